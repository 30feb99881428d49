"""The operator's commands of the command line, against an operator API of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from controller.cli import cli
from controller.cli.watch import decision_line
from controller.core.clocks import KnownClock
from controller.core.decision import ManualQuota
from controller.core.observation import Command, DirectionColumns, MacReport
from controller.links.health import Heard
from controller.links.operator import CellStatus
from controller.loop import ControlLoop
from tests import builders
from tests.links.test_operator import Served


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.server.close(0)


def options(served: Served, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["options", *arguments, "--operator", served.address])


def test_options_go_out_as_one_mapping(served: Served) -> None:
    changes = ["metric=p90", "queue=false", "text='1 = 2'", "actions={ul_prb: [10, 20]}", "nothing=", "on=1"]
    result = options(served, "--cell", "cell-1", "--slice", "ar", *changes)
    assert result.exit_code == 0, result.output
    ((what, cell, name, text),) = served.target.told
    assert (what, cell, name) == ("options", "cell-1", "ar")
    assert yaml.safe_load(text) == {
        "metric": "p90",
        "queue": False,
        "text": "1 = 2",
        "actions": {"ul_prb": [10, 20]},
        "nothing": None,
        "on": 1,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "KEY=VALUE"),
        (["metric"], "metric: KEY=VALUE is needed"),
        (["=p90"], "=p90: KEY=VALUE is needed"),
        (["metric=p90", "metric=mean"], "metric: given twice"),
        (["actions={ul_prb: [1], ul_prb: [2]}"], "actions: key 'ul_prb' twice"),
        (["actions={ul_prb: ["], "actions: "),
    ],
)
def test_what_is_no_option_is_refused_by_name_and_nothing_goes_out(
    served: Served, changes: list[str], message: str
) -> None:
    result = options(served, *changes)
    assert result.exit_code == 2 and message in result.output
    assert not served.target.told


def test_what_the_controller_refuses_is_told(served: Served) -> None:
    result = options(served, "--cell", "nosuch", "metric=p90")
    assert result.exit_code == 1 and "unknown cell 'nosuch'" in str(result.exception)


# ---- quotas by hand ------------------------------------------------------------------------------------


def quota(served: Served, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["quota", *arguments, "--operator", served.address])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--ul", "20", "--dl", "30", "--for", "60s"], ("quota", "cell-1", "ar", 20, 30, 60.0)),
        (["--ul", "20", "--for", "5m"], ("quota", "cell-1", "ar", 20, None, 300.0)),
        (["--dl", "0", "--for", "1.5h"], ("quota", "cell-1", "ar", None, 0, 5400.0)),
        (["--dl", "7", "--for", "90"], ("quota", "cell-1", "ar", None, 7, 90.0)),
        (["--dl", "-7", "--for", "-5s"], ("quota", "cell-1", "ar", None, -7, -5.0)),
        (["--clear"], ("clear", "cell-1", "ar")),
    ],
)
def test_a_quota_goes_out_as_it_was_typed(
    served: Served, arguments: list[str], told: tuple[object, ...]
) -> None:
    result = quota(served, "cell-1", "ar", *arguments)
    assert result.exit_code == 0, result.output
    assert served.target.told == [told]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--ul, --dl or both are needed"),
        (["--for", "60s"], "--ul, --dl or both are needed"),
        (["--ul", "20"], "--for is needed"),
        (["--clear", "--ul", "20"], "--clear goes without"),
        *(
            (["--ul", "20", "--for", bad], "is not a time such as 60s, 5m or 1h")
            for bad in ("x", "5x", "nan", "")
        ),
        (["--ul", "2.5", "--for", "60s"], "'2.5' is not a valid integer"),
    ],
)
def test_a_quota_that_is_not_whole_does_not_go_out(
    served: Served, arguments: list[str], message: str
) -> None:
    result = quota(served, "cell-1", "ar", *arguments)
    assert result.exit_code == 2 and message in result.output
    assert not served.target.told


def test_a_quota_that_no_number_of_the_wire_holds_is_refused_in_words(served: Served) -> None:
    result = quota(served, "cell-1", "ar", "--dl", "99999999999", "--for", "60s")
    assert result.exit_code == 1 and "DL 99999999999 PRB: " in str(result.exception)


# ---- status and watch ------------------------------------------------------------------------------------


def cell_of(record: dict[str, Any], **changes: Any) -> CellStatus:
    """A cell in which all is well."""
    well = CellStatus(
        "cell-1",
        connected=True,
        session=1,
        control_slots=7,
        prb=106,
        mode="active",
        last=record,
        reports=12,
        edge_connected=True,
        sm_mhz=1100,
        active_flows=1,
        report_age_s=0.1,
        lease_left_s=2.5,
        qos={"ar": (700, 690)},
        hosts=[Heard("ue", 0.5)],
        edge_configured=True,
        gpu_age_s=0.2,
    )
    return replace(well, **changes)


def decided(*values: dict[str, Any] | None) -> dict[str, Any]:
    """The record of the last of some control slots, with a quota by hand, its end or none in each."""
    loop, record = ControlLoop(builders.loop_spec()), {}
    for slot, value in enumerate((None, None, *values)):
        commands = (Command("quota", value, "ar"),) if value else ()
        record = loop.step(builders.observation(slot, commands=commands)).to_record()
    return record


def status(served: Served, *cells: CellStatus, **state: Any) -> Result:
    served.target.cells = list(cells)
    if state:
        whole = replace(served.target.state(), **state)
        served.target.state = lambda: whole  # type: ignore[method-assign]
    return CliRunner().invoke(cli, ["status", "--operator", served.address])


def test_the_status_says_whether_it_is_healthy_and_good_and_what_it_plays(served: Served) -> None:
    result = status(served, cell_of(decided()))
    assert result.exit_code == 0, result.output
    said = result.output.splitlines()
    assert said[0].endswith(": healthy") and not [line for line in said if line.startswith("  !")]
    for line in (
        "cell cell-1: connected, mode active, 106 PRB, 7 control slots, 1 flows",
        "  MAC reports: last 0.1 s ago, 12 in this session",
        "  lease of the quotas: 2.5 s left",
        "  QoS streams: ue 0.5 s ago",
        "  edge agent: connected, GPU 1100 MHz, 0.2 s ago",
        "  slice ar: mucb1, UL 10 PRB, DL 10 PRB",
        "    QoS of the last hour: 98.6% (690 of 700 slots)",
        "    last control slot: round trip 44 of 150 ms, ul 20 of 70 ms, edge 9 of 20 ms, dl 15 of 60 ms",
    ):
        assert line in said, result.output


def test_the_status_shows_ues_with_what_is_known_of_their_bearers(served: Served) -> None:
    column = DirectionColumns(*((1,) * 10,) * 4)
    names = tuple(f"ue-{i}" for i in range(1, 11))
    plain = MacReport(1, names, ("ar",) * 8 + ("",) * 2, column, column)
    known = replace(plain, five_qi=(80,) + (0,) * 9, snssai=("1-000001", "2") + ("",) * 8)
    for report, first in (
        (plain, "ue-1 (ar), ue-2 (ar), ue-3 (ar)"),
        (known, "ue-1 (ar, 5QI 80, S-NSSAI 1-000001), ue-2 (ar, S-NSSAI 2), ue-3 (ar)"),
    ):
        said = status(served, cell_of(decided(), report=report)).output
        assert f"  UEs: {first}, ue-4 (ar)" in said and "ue-8 (ar), 2 more\n" in said
    assert "  UEs: ue-9 (no slice)\n" in status(served, cell_of(decided(), report=plain.take([8]))).output
    assert "  UEs: none\n" in status(served, cell_of(decided(), report=plain.take([]))).output
    away = cell_of(decided(), connected=False, report_age_s=None)
    assert "UEs:" not in status(served, away).output


def test_the_quotas_of_a_gnb_that_has_gone_are_not_shown(served: Served) -> None:
    result = status(served, cell_of(decided(), connected=False, lease_left_s=None, report_age_s=None))
    assert result.exit_code == 1 and "  ! cell cell-1: its gNB is not connected" in result.output
    assert "slice ar: mucb1, no quotas: its gNB is gone" in result.output and "UL 10" not in result.output


def test_a_quota_by_hand_is_in_the_status_and_is_not_degraded(served: Served) -> None:
    manual = {"ul": 20, "dl": None, "for_s": 60.0}
    cell = cell_of(decided(manual), manual=[("ar", ManualQuota(20, None), 57.4)])
    result = status(served, cell)
    assert result.exit_code == 0
    assert "slice ar: mucb1, UL 20 PRB" in result.output
    assert "    set by hand: UL 20 PRB, 57 s left" in result.output


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": "shadow"}, "mode shadow: nothing is learned, all resources are everybody's"),
        ({"mode": "released"}, "mode released: nothing is learned, all resources are everybody's"),
        ({"mode": "frozen"}, "mode frozen: nothing is learned"),
        ({"not_controlled": "ul_prb 30 is above 24"}, "not under control: ul_prb 30 is above 24"),
        ({"report_age_s": 18.2}, "no MAC report for 18 s"),
        ({"report_age_s": None}, "no MAC report"),
        ({"edge_connected": False}, "the edge agent is not connected"),
        ({"hosts": []}, "no QoS stream: nobody tells of its 1 flows"),
        (
            {"hosts": [Heard("ue", 0.5, "FlowStart of flow 'f': ul_bps nan is not a rate in bit/s")]},
            "not taken of host ue: FlowStart of flow 'f': ul_bps nan",
        ),
        ({"hosts": [Heard("ue", 9.0)]}, "the QoS stream of ue is silent for 9 s"),
        ({"clocks": [KnownClock("ue", "", 0.0, None, "ue: no news of its clock")]}, "clock: ue: no news"),
        ({"last": None}, "no decision yet"),
        ({"lease_left_s": 0.0}, "its quotas are not in force at the gNB: their lease has lapsed"),
        ({"lease_left_s": None}, "its quotas are not in force at the gNB: not acknowledged"),
    ],
)
def test_what_is_degraded_says_why_and_ends_with_1(
    served: Served, changes: dict[str, Any], reason: str
) -> None:
    result = status(served, cell_of(decided(), **changes))
    assert result.exit_code == 1
    assert f"  ! cell cell-1: {reason}" in result.output, result.output
    told = json.loads(CliRunner().invoke(cli, ["status", "--json", "--operator", served.address]).output)
    assert told["health"]["status"] == "degraded" and len(told["health"]["reasons"]) == 1


def test_a_slice_that_is_rescued_fails_or_is_not_honoured_is_degraded(served: Served) -> None:
    record = decided()
    s = record["slices"]["ar"]
    s["rescue"] = {"ul": [106, "nothing learned: not acknowledged"]}
    s["failed"] = {"demand": "ValueError: no"}
    s["closed"]["unattributed"] = {"ul": "quota not honoured"}
    result = status(served, cell_of(record))
    assert result.exit_code == 1
    for reason in (
        "gets more than it asks for: ul 106 PRB at least",
        ": demand failed",
        ": quota not honoured",
    ):
        assert f"  ! cell cell-1: slice ar{' ' if reason[0] != ':' else ''}{reason}" in result.output


def test_a_run_that_is_not_recorded_is_degraded(served: Served) -> None:
    result = status(served, cell_of(decided()), store_error="disk full", store_lost=3)
    assert result.exit_code == 1 and "  ! the run is not recorded: disk full" in result.output
    assert "3 control slots and events are not in the record" in result.output


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--keys", "/nosuch"]])
def test_a_controller_that_cannot_be_reached_ends_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, ["status", "--operator", "127.0.0.1:1", *arguments])
    assert result.exit_code == 2 and "prbandit: " in result.stderr
    if "--json" in arguments:
        assert json.loads(result.stdout)["health"]["status"] == "unreachable"


def test_a_decision_is_a_line_with_delays_beside_their_budgets() -> None:
    line = decision_line(decided({"ul": 20, "dl": None, "for_s": 60.0}))
    assert "\n" not in line and "ar: last QoS 1, round trip 44 of 150 ms  set by hand: UL 20 PRB" in line
    assert "ul 20 PRB, 20 of 70 ms (" in line and "edge 500 MHz, 9 of 20 ms (" in line


def test_watch_prints_one_object_a_line_and_says_so(served: Served) -> None:
    command = ["watch", "--json", "--count", "2", "--operator", served.address]
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(CliRunner().invoke, cli, command)
        while not watching.done():
            served.broadcaster.publish(decided())
        result = watching.result()
    first, second = map(json.loads, result.output.splitlines())
    assert first == second and set(first["slices"]) == {"ar"}
    assert "One JSON object a line" in CliRunner().invoke(cli, ["watch", "--help"]).output
