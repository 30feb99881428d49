from __future__ import annotations

import re

import pytest

from agents.emulator.spec import MAX_K2, SCHEDULERS, CellSpec, PathSpec
from controller import config, policies, scenario
from controller.config import Config, ConfigError
from controller.core.spec import EventsSpec, LoopSpec
from controller.links.edge import RETRY_S, EdgeLink
from controller.links.ran_protocol import RESEND_S
from controller.loop import ControlLoop
from wire.definitions.nr import TDD_PATTERNS

GOOD = """\
control:
  control_slot_s: 2.0
cells:
  - id: cell-1
    slices:
      - id: ar
        policy: ucb1
        actions:
          ul_prb: {from: 10, to: 106, step: 20}
          dl_prb: [10, 50]
        ues: [ue-1]
"""


def test_defaults_are_the_paper_s() -> None:
    c = Config()
    assert c.control.control_slot_s == 5.0
    assert c.lease_s == 10.0
    b = c.cells[0].slices[0].options.budgets
    assert (b.ul_ms, b.edge_ms, b.dl_ms) == (70, 20, 60)


def test_a_range_of_actions_ends_before_the_carrier_does() -> None:
    actions = config.parse(GOOD).cells[0].slices[0].options.actions
    assert actions.ul_prb == (10, 30, 50, 70, 90)
    assert actions.dl_prb == (10, 50)


def test_a_short_control_slot_keeps_the_least_lease() -> None:
    assert config.parse("control: {control_slot_s: 1.0}").lease_s == 3.0


def test_what_is_written_out_reads_back_the_same() -> None:
    c = config.parse(GOOD)
    assert config.parse(c.to_yaml()) == c


def test_a_digest_names_what_is_configured_and_not_how_it_was_written() -> None:
    c = config.parse(GOOD)
    assert re.fullmatch("[0-9a-f]{12}", c.digest)
    assert config.parse(c.to_yaml()).digest == c.digest
    assert config.parse(f"# a comment\n{GOOD}").digest == c.digest
    assert config.parse(GOOD, overrides={"control.control_slot_s": 2}).digest == c.digest
    assert config.parse(GOOD, overrides={"control.control_slot_s": 2.5}).digest != c.digest


@pytest.mark.parametrize("name", sorted(config.scenarios()))
def test_every_shipped_scenario_is_valid(name: str) -> None:
    c = config.load(config.find(name))
    assert c.emulation is not None
    ControlLoop(c.loop_spec(c.cells[0].id, c.emulation.prb, 30, TDD_PATTERNS[c.emulation.tdd]))


def test_the_paper_s_scenarios_have_its_action_sets() -> None:
    steps = {}
    for n in range(1, 6):
        c = config.load(config.find(f"mucb1-{n}"))
        ul = c.cells[0].slices[0].options.actions.ul_prb
        steps[n] = (ul[1] - ul[0], ul[0], ul[-1], c.emulation.flows if c.emulation else 0)
    assert steps == {
        1: (20, 10, 90, 2),
        2: (5, 10, 105, 3),
        3: (20, 10, 90, 2),
        4: (10, 10, 100, 2),
        5: (10, 10, 100, 3),
    }


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("control_slot_s: 2.0", "control_slott_s: 2.0", "f.yaml:2: control.control_slott_s", "unknown key"),
        ("control_slot_s: 2.0", "control_slot_s: fast", "f.yaml:2: control.control_slot_s", "number"),
        ("control_slot_s: 2.0", "control_slot_s: .nan", "f.yaml:2: control.control_slot_s", "finite"),
        ("policy: ucb1", "policy: ucb7", "f.yaml:7: cells.0.slices.0.policy", "unknown policy 'ucb7'"),
        ("policy: ucb1", "service: tv", "f.yaml:7: cells.0.slices.0.service", "unknown service 'tv'"),
        ("[10, 50]", "[50, 10]", "f.yaml:10: cells.0.slices.0.actions.dl_prb", "ascending"),
        ("[10, 50]", "[10, 5.5]", "f.yaml:10: cells.0.slices.0.actions.dl_prb.1", "integer"),
        ("step: 20", "stepp: 20", "f.yaml:9: cells.0.slices.0.actions.ul_prb", "from, to and step"),
        ("id: cell-1", "id: 'a b'", "f.yaml:4: cells.0.id", "pattern"),
        ("id: ar", "id: ar\n        id: video", "f.yaml:7", "key 'id' twice"),
        ("cells:", "cells: [", "f.yaml:", ""),
    ],
)
def test_a_mistake_is_named_by_file_line_and_key(old: str, new: str, where: str, what: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    with pytest.raises(ConfigError) as error:
        config.parse(text, "f.yaml")
    assert where in str(error.value), error.value
    assert what in str(error.value), error.value


def test_every_mistake_is_told_at_once() -> None:
    text = GOOD.replace("control_slot_s", "x").replace("policy", "y")
    with pytest.raises(ConfigError) as error:
        config.parse(text, "f.yaml")
    assert len(str(error.value).splitlines()) == 2


def test_a_guard_as_long_as_the_slot_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves nothing"):
        config.parse("control: {control_slot_s: 1.0, guard_ms: 1000.0}")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere/f\.yaml: cannot be read"):
        config.load("/nowhere/f.yaml")


def test_an_unknown_scenario_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="mucb1-1"):
        config.find("mucb1-9")


def test_overrides_replace_by_dotted_key() -> None:
    c = config.parse(GOOD, overrides={"cells.0.slices.0.policy": "aimd", "security.keys": "k"})
    assert c.cells[0].slices[0].options.policy == "aimd" and c.security.keys == "k"


def test_a_carrier_smaller_than_the_actions_is_refused() -> None:
    with pytest.raises(ValueError, match="ul_prb 90 is above 51"):
        ControlLoop(config.parse(GOOD).loop_spec("cell-1", 51, 30, TDD_PATTERNS["DSUUU"]))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("links: {ran: {lease_s: 0.01}}", "f.yaml:1: links.ran.lease_s"),
        ("cells: [{id: c, max_mhz: 300000}]", "f.yaml:1: cells.0.max_mhz"),
        (
            f"cells: [{{id: c, slices: [{{id: a, ues: [{', '.join(f'u{i}' for i in range(65))}]}}]}}]",
            "64 UEs",
        ),
        ("? [a, b]\n: 1", "f.yaml:1: a key must be a word"),
        ("cells: [{id: c, slices: [{id: a, policy: static, policy_options: {action: 30}}]}]", "action"),
    ],
)
def test_what_would_stop_the_daemon_later_is_refused_here(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        config.parse(text, "f.yaml")


def test_an_override_without_a_place_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cells\.7\.id: there is no such place"):
        config.parse(GOOD, overrides={"cells.7.id": "x"})


def test_one_policy_everywhere_also_without_cells_in_the_file() -> None:
    assert config.parse("{}").with_policy("aimd").cells[0].slices[0].options.policy == "aimd"
    with pytest.raises(ConfigError, match="unknown policy 'x'"):
        config.parse(GOOD).with_policy("x")


def test_events_are_on_by_default_where_a_control_slot_is_long_enough() -> None:
    cells = "cells: [{id: cell-1, slices: [{id: ar}]}]\n"

    def events(control: str) -> EventsSpec | None:
        spec = config.parse(f"{cells}control: {control}").loop_spec("cell-1", 106, 30, TDD_PATTERNS["DSUUU"])
        assert LoopSpec.from_dict(spec.to_dict()) == spec
        return spec.events

    assert events("{}") == EventsSpec(1.0)
    assert events("{events: on}") == EventsSpec(1.0)
    assert events("{events: {min_slot_s: 0.4}}") == EventsSpec(0.4)
    assert events("{events: off}") is None
    assert events("{control_slot_s: 1.0}") is None
    two = cells.replace(
        "[{id: ar}]", "[{id: ar}, {id: b, policy: mucb1}]"
    )  # its control slots last their time
    assert config.parse(two).loop_spec("cell-1", 106, 30, TDD_PATTERNS["DSUUU"]).events is None
    with pytest.raises(ConfigError, match=r"guard_ms 500 leaves nothing .* events\.min_slot_s 0\.4"):
        config.parse("control: {guard_ms: 500.0, events: {min_slot_s: 0.4}}")


@pytest.mark.parametrize("events", ["{min_slot_s: 0}", "{min_slot_s: .inf}", "{slots: 3}", "3", "often"])
def test_events_that_cannot_be_are_refused_by_name(events: str) -> None:
    with pytest.raises(config.ConfigError, match=r"control\.events"):
        config.parse(f"cells: [{{id: c, slices: [{{id: ar}}]}}]\ncontrol: {{events: {events}}}")


def test_a_slice_has_the_default_policy_and_default_names_it_everywhere() -> None:
    cells = "cells: [{{id: c, slices: [{{id: ar{}}}]}}]"
    for text in ("", ", policy: default"):
        assert config.parse(cells.format(text)).cells[0].slices[0].options.policy == policies.DEFAULT
    assert config.parse("{}").with_policy("default").cells[0].slices[0].options.policy == policies.DEFAULT


@pytest.mark.parametrize("name", [n for n in config.scenarios() if not n.startswith("mucb1-")])
def test_the_shipped_scenarios_play_the_default(name: str) -> None:
    for cell in config.load(config.find(name)).cells:
        with_policy = [s for s in cell.slices if "policy" in type(s.options).model_fields]
        assert all(s.options.policy == policies.DEFAULT for s in with_policy)


def test_rescue_is_on_by_default_and_can_be_turned_off() -> None:
    cells = "cells: [{id: c, slices: [{id: ar}]}]\n"
    assert config.parse(cells).control.rescue == config.RescueModel(blind_slots=3, missed_slots=4)
    assert config.parse(f"{cells}control: {{rescue: off}}").control.rescue is None
    assert config.parse(f"{cells}control: {{rescue: on}}").control.rescue == config.RescueModel()
    some = config.parse(f"{cells}control: {{rescue: {{blind_slots: 5}}}}").control.rescue
    assert some == config.RescueModel(blind_slots=5, missed_slots=4)


@pytest.mark.parametrize(
    "rescue", ["{blind_slots: 0}", "{missed_slots: -1}", "{slots: 3}", "3", "yes please"]
)
def test_a_rescue_that_cannot_be_is_refused_by_name(rescue: str) -> None:
    with pytest.raises(config.ConfigError, match=r"control\.rescue"):
        config.parse(f"cells: [{{id: c, slices: [{{id: ar}}]}}]\ncontrol: {{rescue: {rescue}}}")


@pytest.mark.parametrize("n", range(1, 6))
def test_the_papers_scenarios_leave_the_policies_alone(n: int) -> None:
    loaded = config.load(config.find(f"mucb1-{n}"))
    assert loaded.control.rescue is None and loaded.cells[0].slices[0].options.policy == "mucb1"


def test_a_modem_of_the_emulation_is_the_path_s() -> None:
    c = config.parse(GOOD + "emulation: {schedule: always, modem_ms: 2.0, modem_poll_ms: 0.0}\n")
    path = scenario.testbed_spec(c, 0).path
    assert (path.ue_dl_offset_ms, path.ue_dl_poll_ms) == (2.0, 0.0)
    assert scenario.testbed_spec(config.parse(GOOD + "emulation: {schedule: always}\n"), 0).path == PathSpec()


def test_a_bearer_of_a_slice_is_its_ues_and_by_default_what_the_service_is_for() -> None:
    text = """
cells:
  - id: c
    slices:
      - {id: ar, ues: [ue-1]}
      - {id: cars, service: urllc, ues: [ue-2]}
      - {id: mar, service: mar, ues: [ue-3]}
emulation:
  ues: 4
  schedule: always
  bearers: {ar: {five_qi: 3, snssai: 1-00000A}, cars: {snssai: "2"}, mar: {snssai: 3}}
"""
    ues = scenario.testbed_spec(config.parse(text), 0).ues
    assert [(u.slice, u.five_qi, u.snssai) for u in ues] == [
        ("ar", 3, "1-00000A"),
        ("cars", 82, "2"),
        ("mar", 80, "3"),
        ("", 9, ""),
    ]
    assert config.parse(config.parse(text).to_yaml()) == config.parse(text)


@pytest.mark.parametrize(
    ("bearers", "says"),
    [
        ("{mar: {five_qi: 9}}", r"emulation: emulation.bearers: unknown slice 'mar'; slices: ar"),
        ("{ar: {five_qi: 256}}", r"emulation.bearers.ar.five_qi: .*less than or equal to 255"),
        ("{ar: {five_qi: 0}}", r"emulation.bearers.ar.five_qi: .*greater than or equal to 1"),
        ("{ar: {snssai: 1-2}}", r"emulation.bearers.ar.snssai: '1-2' is no S-NSSAI"),
        ("{ar: {snssai: 256}}", r"emulation.bearers.ar.snssai: '256' is no S-NSSAI"),
        ("{ar: {snssai: true}}", r"emulation.bearers.ar.snssai: .*valid string"),
        ("{ar: {qci: 9}}", r"emulation.bearers.ar.qci: unknown key"),
    ],
)
def test_a_bearer_that_cannot_be_is_refused_by_place(bearers: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.parse(GOOD + f"emulation: {{schedule: always, bearers: {bearers}}}\n")


def test_a_k2_that_the_emulated_cell_does_not_have_is_refused_by_place() -> None:
    text = GOOD + "emulation: {schedule: always, k2: %d}\n"
    assert scenario.testbed_spec(config.parse(text % MAX_K2), 0).cell.k2 == MAX_K2
    with pytest.raises(ConfigError, match=rf"emulation\.k2: .*less than or equal to {MAX_K2}"):
        config.parse(text % (MAX_K2 + 1))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_emulations_scheduler_is_the_cells(name: str) -> None:
    c = config.parse(GOOD + f"emulation: {{schedule: always, scheduler: {name}}}\n")
    assert scenario.testbed_spec(c, 0).cell.scheduler == name


def test_the_emulations_scheduler_is_the_measured_one_by_default_and_an_unknown_one_is_refused() -> None:
    text = GOOD + "emulation: {schedule: always%s}\n"
    assert scenario.testbed_spec(config.parse(text % ""), 0).cell == CellSpec(cell_id="cell-1")
    with pytest.raises(ConfigError, match=r"emulation\.scheduler.*'oai-2024' or 'oai-2026'"):
        config.parse(text % ", scheduler: oai")


def test_a_decoding_error_of_users_is_their_flows() -> None:
    users = (
        "emulation: {schedule: always, flows: 0, users: [{application: %s, slice: ar, decoding_error: %s}]}\n"
    )
    (group,) = scenario.testbed_spec(config.parse(GOOD + users % ("vr", "1.0e-4")), 0).applications
    assert group.users[0].decoding_error == 1e-4
    with pytest.raises(config.ConfigError, match=r"emulation\.users\.0\.decoding_error"):
        config.parse(GOOD + users % ("vr", "0.6"))
    with pytest.raises(ValueError, match="openrtist has no decoding_error"):
        scenario.testbed_spec(config.parse(GOOD + users % ("openrtist", "0.1")), 0)


def test_the_shortest_lease_outlives_a_renewal_that_is_lost() -> None:
    least = 1.5
    assert config.parse(f"links: {{ran: {{lease_s: {least}}}}}").lease_s == least
    with pytest.raises(
        ConfigError, match=rf"lease_s: Input should be greater than or equal to {least} \(is 1.4\)"
    ):
        config.parse("links: {ran: {lease_s: 1.4}}")
    link = EdgeLink("127.0.0.1:1", holder="cell-1", lease_s=least)
    try:
        assert least / 3 + link._lock_deadline_s + RETRY_S < least > least / 3 + RESEND_S
    finally:
        link.close()
