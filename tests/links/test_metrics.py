"""Metrics as Prometheus would scrape them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.cli.metrics import markdown, pages
from controller.core.clocks import KnownClock
from controller.core.measure import MAX_NAMES
from controller.core.observation import Command, DirectionColumns, MacReport, Mode
from controller.core.rescue import RescueSpec
from controller.core.ue_rates import Rate, UeRate
from controller.links import metrics as metrics_module
from controller.links.cell_metrics import BASE_UNITS
from controller.links.counters import Counters
from controller.links.metrics import COUNTERS, MAX_CELLS, MAX_WORDS, OF_NO_CELL, OF_SOME_CELL, Metrics
from controller.links.operator import CellStatus, Savings
from controller.loop import ControlLoop
from tests import builders
from tests.wire.test_exposition import page
from wire.exposition import MetricsServer


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, sorted labels) -> value of everything on the page."""
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def exported(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"prbandit_{name}", labels)


@pytest.fixture
def served() -> Iterator[tuple[Metrics, Counters, MetricsServer]]:
    counters = Counters()
    metrics = Metrics(counters)
    server = metrics.serve("127.0.0.1:0")
    yield metrics, counters, server
    server.close()


def observed(metrics: Metrics, n: int = 4, **changes: Any) -> dict[str, Any]:
    """Lets a real control loop decide ``n`` times; returns the last record."""
    loop = ControlLoop(builders.loop_spec(**changes))
    record: dict[str, Any] = {}
    for slot in range(n):
        delays = (90.0, 9.0, 15.0) if slot == n - 1 else (20.0, 9.0, 15.0)
        record = loop.step(builders.observation(slot, delays)).to_record()
        metrics.observe(record)
    return record


def test_everything_on_the_page_has_help_type_and_our_prefix(
    served: tuple[Metrics, Counters, MetricsServer],
) -> None:
    metrics, counters, server = served
    observed(metrics)
    metrics.step_seconds("cell-1", 0.003)
    metrics.watch_cell("cell-1", lambda: STATUS)
    counters.inc("ran_malformed_total", "cell-1", 3)
    counters.inc("something_new_total")
    text = page(server)
    families = list(text_string_to_metric_families(text))
    assert len(families) > 100
    for family in families:
        assert family.name.startswith("prbandit_"), family.name
        assert family.documentation.strip() and family.type != "unknown", family.name
    told = values(text)
    assert told["prbandit_ran_malformed_total", (("cell", "cell-1"),)] == 3
    assert told["prbandit_something_new_total", (("cell", "none"),)] == 1
    assert told["prbandit_step_duration_seconds_count", (("cell", "cell-1"),)] == 1
    assert not [name for name, labels in told if "" in dict(labels).values()]
    assert "_created" not in text
    assert "# HELP prbandit_ran_malformed_total Messages that cannot be parsed" in text
    assert "# TYPE prbandit_ran_malformed_total counter" in text


def test_the_list_has_every_metric_of_the_page_with_its_type_and_labels(
    served: tuple[Metrics, Counters, MetricsServer],
) -> None:
    metrics, _, server = served
    observed(metrics)
    metrics.configured("0a1b")
    metrics.step_seconds("cell-1", 0.003)
    metrics.watch_cell("cell-1", lambda: STATUS)
    listed = {f.name: f for f in (*pages()["Controller"], *pages()["Every page"])}
    shown = set()
    for family in text_string_to_metric_families(page(server)):
        name = family.name + ("_total" if family.type == "counter" else "")
        kind = "info" if name.endswith("_info") else family.type
        shown.add(name)
        assert listed[name].kind == kind, name
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == {*listed[name].labels}, name
    assert shown == listed.keys()


def test_the_page_of_the_documentation_is_that_of_the_command() -> None:
    stored = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert stored.read_text() == markdown(), "stale: prbandit metrics --markdown > docs/metrics.md"


def test_names_follow_the_conventions_of_prometheus() -> None:
    for family in (f for found in pages().values() for f in found):
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
        assert not re.search(r"_(ms|mhz|kbps|percent|milliseconds|us|ns)(_|$)", family.name), family.name
        assert re.fullmatch(r"prbandit_[a-z][a-z_]*[a-z]", family.name), family.name
        assert all(re.fullmatch(r"[a-z]+", label) for label in family.labels), family.name


def test_counters_are_there_before_they_count_for_the_configured_cells(
    served: tuple[Metrics, Counters, MetricsServer],
) -> None:
    metrics, counters, server = served
    for cell in ("a", "b"):
        metrics.watch_cell(cell, lambda: STATUS)
    counters.inc("store_errors_total")
    counters.inc("ran_quota_not_honoured_total", "b")
    told = values(page(server))
    for name in COUNTERS:
        found = {labels for shown, labels in told if shown == f"prbandit_{name}"}
        cells = () if name in OF_NO_CELL else ("a", "b", "none") if name in OF_SOME_CELL else ("a", "b")
        assert found == ({(("cell", cell),) for cell in cells} or {()}), name
    assert told["prbandit_store_errors_total", ()] == 1
    assert told["prbandit_ran_quota_not_honoured_total", (("cell", "a"),)] == 0
    assert told["prbandit_ran_quota_not_honoured_total", (("cell", "b"),)] == 1


COLUMNS = DirectionColumns((9, 28), (1, 1), (1, 2), (1500, 0), (0.125, 0.0), (0, 0), (0, 0))
STATUS = CellStatus(
    "cell-1",
    connected=True,
    report_age_s=0.05,
    lease_left_s=7.5,
    edge_configured=True,
    edge_connected=True,
    sm_mhz=1590,
    gpu_power_w=45.5,
    clocks=(KnownClock("edge", "SLAVE", -120.0, 0.5, ""), KnownClock("ue", "NONE", 0.0, None, "no news")),
    report=MacReport(0, ("imsi-1", "imsi-2"), ("ar", ""), COLUMNS, COLUMNS, (11, 0), (21.5, -3.0)),
    rates={"imsi-1": UeRate(ul=Rate(2e6, 12.5)), "imsi-2": UeRate()},
    savings=Savings(100.0, 0.5, 0.25, 0.125),
)


def test_a_cell_is_asked_for_its_links_and_its_clocks_at_each_scrape() -> None:
    metrics, now = Metrics(), [STATUS]
    metrics.watch_cell("cell-1", lambda: now[0])
    cell, edge, ue = {"cell": "cell-1"}, {"cell": "cell-1", "host": "edge"}, {"cell": "cell-1", "host": "ue"}
    assert exported(metrics, "gnb_connected", **cell) == 1
    assert exported(metrics, "report_age_seconds", **cell) == 0.05
    assert exported(metrics, "lease_remaining_seconds", **cell) == 7.5
    assert exported(metrics, "edge_agent_connected", **cell) == 1
    assert exported(metrics, "gpu_clock_hertz", **cell) == 1.59e9
    assert exported(metrics, "gpu_power_watts", **cell) == 45.5
    for part, saving in (("gpu", 0.5), ("bs", 0.25), ("ue", 0.125)):
        assert exported(metrics, "power_saving_ratio", **cell, part=part) == saving
    assert [exported(metrics, "clock_usable", **host) for host in (edge, ue)] == [1, 0]
    assert exported(metrics, "clock_offset_seconds", **edge) == -120e-9
    assert exported(metrics, "clock_offset_seconds", **ue) is None
    assert exported(metrics, "clock_age_seconds", **ue) is None
    now[0] = CellStatus("cell-1", edge_configured=True, sm_mhz=1590, gpu_power_w=45.5)
    assert (
        exported(metrics, "gnb_connected", **cell) == exported(metrics, "edge_agent_connected", **cell) == 0
    )
    for gone in (
        "report_age_seconds",
        "lease_remaining_seconds",
        "gpu_clock_hertz",
        "gpu_power_watts",
        "ues",
    ):
        assert exported(metrics, gone, **cell) is None, gone
    assert exported(metrics, "clock_usable", **edge) is None
    now[0] = CellStatus("cell-1")
    assert exported(metrics, "edge_agent_connected", **cell) is None  # none is configured


def test_each_ue_shows_by_direction_until_it_is_in_no_report() -> None:
    metrics, now = Metrics(), [STATUS]
    metrics.watch_cell("cell-1", lambda: now[0])
    one, two = ({"cell": "cell-1", "slice": s, "ue": f"imsi-{n}"} for n, s in ((1, "ar"), (2, "none")))
    assert exported(metrics, "ues", cell="cell-1") == 2
    assert exported(metrics, "ue_cqi", **one) == 11
    assert exported(metrics, "ue_cqi", **two) is None  # it reported none
    assert exported(metrics, "ue_snr_db", **two) == -3.0
    assert exported(metrics, "ue_mcs", **two, direction="dl") == 28
    assert exported(metrics, "ue_bler_ratio", **one, direction="ul") == 0.125
    assert exported(metrics, "ue_queued_bytes", **one, direction="dl") == 1500
    assert exported(metrics, "ue_throughput_bits_per_second", **one, direction="ul") == 2e6
    assert exported(metrics, "ue_prb", **one, direction="ul") == 12.5
    for way in ({**one, "direction": "dl"}, {**two, "direction": "ul"}):
        assert exported(metrics, "ue_throughput_bits_per_second", **way) is None
        assert exported(metrics, "ue_prb", **way) is None
    assert STATUS.report is not None
    now[0] = CellStatus("cell-1", connected=True, report=STATUS.report.take([1]), rates=STATUS.rates)
    assert exported(metrics, "ue_mcs", **one, direction="ul") is None
    assert exported(metrics, "ue_mcs", **two, direction="ul") == 28
    assert exported(metrics, "ues", cell="cell-1") == 1


def test_a_decision_shows_as_it_was_recorded(served: tuple[Metrics, Counters, MetricsServer]) -> None:
    metrics, _, _ = served
    record = observed(metrics)
    one = record["slices"]["ar"]
    cell = {"cell": "cell-1"}
    slice_ = {**cell, "slice": "ar"}
    assert exported(metrics, "decisions_total", **cell) == 4
    assert exported(metrics, "control_slot", **cell) == 4
    assert exported(metrics, "last_decision_timestamp_seconds", **cell) == record["time_ns"] / 1e9
    assert exported(metrics, "mode", **cell, mode="active") == 1
    assert exported(metrics, "mode", **cell, mode="shadow") == 0
    assert exported(metrics, "carrier_prb", **cell) == 106
    assert exported(metrics, "gpu_wanted_hertz", **cell) == record["gpu_mhz"] * 1e6
    assert exported(metrics, "gpu_max_hertz", **cell) == 1.6e9
    assert exported(metrics, "quota_prb", **slice_, direction="ul") == record["quotas"]["ar"][0]
    assert exported(metrics, "quota_prb", **slice_, direction="dl") == record["quotas"]["ar"][1]
    assert exported(metrics, "active_flows", **slice_) == 1
    assert exported(metrics, "busy_control_slots_total", **slice_) == 4
    for direction in ("ul", "dl"):
        choice = next(c for c in one["choices"] if c["lever"] == direction)
        assert exported(metrics, "demand_prb", **slice_, direction=direction) == choice["demand"]
        assert exported(metrics, "asked_prb", **slice_, direction=direction) == one["demand"][direction][0]
    assert exported(metrics, "asked_gpu_hertz", **slice_) == one["demand"]["gpu_mhz"] * 1e6
    assert exported(metrics, "settings_flows", **slice_) == 0
    # The last of four control slots violated the uplink's budget of 70 ms.
    of_ul = {**slice_, "measure": "ul"}
    assert exported(metrics, "measure", **of_ul, unit="s") == pytest.approx(0.09)
    assert exported(metrics, "measure_target", **of_ul, unit="s") == pytest.approx(0.07)
    assert exported(metrics, "measure_judged_control_slots_total", **of_ul) == 4
    assert exported(metrics, "measure_met_control_slots_total", **of_ul) == 3
    assert exported(metrics, "qos_judged_control_slots_total", **slice_) == 4
    assert exported(metrics, "qos_met_control_slots_total", **slice_) == 4  # the round trip was kept
    no_decision = {**slice_, "lever": "ul", "reason": "no decision"}
    assert exported(metrics, "unattributed_control_slots_total", **no_decision) == 1
    assert exported(metrics, "outcome_counts_total", **slice_, count="negative_delays") == 0
    assert exported(metrics, "allocator_failures_total", **slice_) == 0


def test_without_quotas_all_that_there_is_shows(
    served: tuple[Metrics, Counters, MetricsServer],
) -> None:
    metrics, _, _ = served
    record = observed(metrics, 1, mode=Mode.SHADOW, cell="c", slices=(builders.slice_spec(policy="aimd"),))
    assert record["quotas"] == {} and record["gpu_mhz"] is None
    assert exported(metrics, "quota_prb", cell="c", slice="ar", direction="ul") == 106
    assert exported(metrics, "gpu_wanted_hertz", cell="c") == 1.6e9
    assert exported(metrics, "mode", cell="c", mode="shadow") == 1


def test_a_slice_that_is_gone_has_no_quota_any_more(
    served: tuple[Metrics, Counters, MetricsServer],
) -> None:
    metrics, _, server = served
    record = observed(metrics)
    elsewhere = {**record, "cell": "cell-2"}
    metrics.observe(elsewhere)
    renamed = {"slices": {"mar": record["slices"]["ar"]}, "quotas": {"mar": record["quotas"]["ar"]}}
    metrics.observe({**record, **renamed})
    left = {
        name for name, labels in values(page(server)) if {("cell", "cell-1"), ("slice", "ar")} <= {*labels}
    }
    assert left and all(name.endswith("_total") for name in left), left
    assert exported(metrics, "busy_control_slots_total", cell="cell-1", slice="ar") == 4
    for cell, name in (("cell-1", "mar"), ("cell-2", "ar")):
        assert exported(metrics, "quota_prb", cell=cell, slice=name, direction="ul") is not None
        assert exported(metrics, "asked_gpu_hertz", cell=cell, slice=name) is not None


def test_a_qos_that_cannot_be_told_is_counted_as_nothing(
    served: tuple[Metrics, Counters, MetricsServer],
) -> None:
    metrics, _, _ = served
    record = observed(metrics)
    closed = record["slices"]["ar"]["closed"]
    closed["met"] = None
    closed["measures"]["ul"].update(met=None, users={}, samples=0)
    metrics.observe(record)
    labels = {"cell": "cell-1", "slice": "ar"}
    assert exported(metrics, "measure_judged_control_slots_total", **labels, measure="ul") == 4
    assert exported(metrics, "measure_judged_control_slots_total", **labels, measure="dl") == 5
    assert exported(metrics, "qos_judged_control_slots_total", **labels) == 4
    assert exported(metrics, "measure", **labels, measure="ul", unit="s") is None


def test_measures_are_in_base_units(served: tuple[Metrics, Counters, MetricsServer]) -> None:
    metrics, _, _ = served
    record = observed(metrics)
    users = {"flow-0": [3000.0, 6000.0], "flow-1": [1500.0, 6000.0]}
    for unit, (base, factor) in {**BASE_UNITS, "mos": ("mos", 1.0)}.items():
        stored = {"unit": unit, "better": "higher", "met": 1, "samples": 1, "users": users}
        record["slices"]["ar"]["closed"]["measures"] = {"m": stored}
        metrics.observe(record)
        labels = {"cell": "cell-1", "slice": "ar", "measure": "m", "unit": base}
        assert exported(metrics, "measure", **labels) == pytest.approx(1500 * factor), unit
        assert exported(metrics, "measure_target", **labels) == pytest.approx(6000 * factor), unit
        stored["better"] = "lower"
        assert exported(metrics, "measure", **labels) == pytest.approx(3000 * factor), unit


def test_choices_are_counted_by_why_and_those_of_single_users_are_not(
    served: tuple[Metrics, Counters, MetricsServer],
) -> None:
    metrics, _, _ = served
    record = observed(metrics)
    ul = record["slices"]["ar"]["choices"][0]
    record["slices"]["ar"]["choices"] = [
        {**ul, "lever": "ul", "why": "explore"},
        {**ul, "lever": "dl", "why": "least that keeps 3 promises of 4 users"},
        {**ul, "lever": "settings", "why": "explore", "user": "flow-0"},
    ]
    labels = {"cell": "cell-1", "slice": "ar"}
    before = exported(metrics, "choices_total", **labels, lever="ul", why="explore") or 0
    metrics.observe(record)
    assert exported(metrics, "choices_total", **labels, lever="ul", why="explore") == before + 1
    assert exported(metrics, "choices_total", **labels, lever="dl", why="other") == 1
    assert exported(metrics, "choices_total", **labels, lever="settings", why="explore") is None


def test_what_came_of_the_last_configuration_shows() -> None:
    metrics = Metrics()
    metrics.configured("0a1b")
    taken = exported(metrics, "config_last_reload_success_timestamp_seconds")
    assert exported(metrics, "config_info", hash="0a1b") == 1
    assert exported(metrics, "config_last_reload_successful") == 1
    metrics.reloaded(False)
    assert exported(metrics, "config_last_reload_successful") == 0
    assert exported(metrics, "config_last_reload_success_timestamp_seconds") == taken
    metrics.configured("2c3d")
    assert exported(metrics, "config_info", hash="0a1b") is None
    assert exported(metrics, "config_info", hash="2c3d") == 1
    assert exported(metrics, "config_last_reload_successful") == 1


def test_flows_are_no_labels(served: tuple[Metrics, Counters, MetricsServer]) -> None:
    metrics, _, server = served
    observed(metrics)
    assert "flow-0" not in page(server)


def test_labels_are_bounded(served: tuple[Metrics, Counters, MetricsServer]) -> None:
    """A peer that makes up cells or reasons cannot fill the memory of Prometheus."""
    metrics, counters, server = served
    for i in range(MAX_CELLS + 50):
        counters.inc("ran_reports_total", f"made-up-{i:04}")
    record = observed(metrics)
    for i in range(MAX_WORDS + 50):
        word = "reason " + chr(ord("a") + i // 26) + chr(ord("a") + i % 26)
        record["slices"]["ar"]["closed"]["unattributed"] = {"ul": word}
        for choice in record["slices"]["ar"]["choices"]:
            choice["why"] = word
        record["slices"]["ar"]["closed"]["measures"] = {word: {**MEASURE}}
        record["slices"]["ar"]["closed"]["counts"] = {word: 1}
        metrics.observe(record)
    told = values(page(server))
    cells = {labels: v for (name, labels), v in told.items() if name == "prbandit_ran_reports_total"}
    assert len(cells) == MAX_CELLS + 1 and cells[(("cell", "other"),)] == 50
    assert sum(cells.values()) == MAX_CELLS + 50
    for name, label, most in (
        ("unattributed_control_slots_total", "reason", MAX_WORDS + 1),
        ("choices_total", "why", MAX_WORDS + 1),
        ("measure_met_control_slots_total", "measure", MAX_NAMES),
        ("outcome_counts_total", "count", MAX_NAMES),
    ):
        found = {dict(labels)[label] for shown, labels in told if shown == f"prbandit_{name}"}
        assert len(found) == most, name


MEASURE = {"unit": "ms", "better": "lower", "met": 1, "samples": 1, "users": {"flow-0": [1.0, 2.0]}}


def test_text_of_others_cannot_break_the_page(served: tuple[Metrics, Counters, MetricsServer]) -> None:
    _, counters, server = served
    counters.inc("ran_reports_total", 'x"} 1\nprbandit_evil 1\\')
    told = values(page(server))
    assert not any(name == "prbandit_evil" for name, _ in told)
    assert told["prbandit_ran_reports_total", (("cell", 'x"} 1\nprbandit_evil 1\\'),)] == 1


def test_a_cell_whose_status_cannot_be_told_leaves_the_others_on_the_page(
    served: tuple[Metrics, Counters, MetricsServer],
) -> None:
    metrics, _, server = served

    def broken() -> CellStatus:
        raise RuntimeError("no link")

    metrics.watch_cell("a", broken)
    metrics.watch_cell("b", lambda: STATUS)
    told = values(page(server))
    assert told["prbandit_report_age_seconds", (("cell", "b"),)] == 0.05
    assert ("prbandit_report_age_seconds", (("cell", "a"),)) not in told


def test_every_counter_of_the_links_has_its_help_text() -> None:
    """What the links may count is in the table, so that no counter shows without its meaning."""
    folder = Path(metrics_module.__file__).parent
    used = set()
    files = (p for p in folder.glob("*.py") if p.name != "metrics.py")
    for path in (*files, folder.parent / "store" / "run.py", folder.parent / "daemon.py"):
        used |= set(re.findall(r'"([a-z]+_[a-z_]+_total)"', path.read_text()))
    assert used - set(COUNTERS) == set()


def test_a_rescue_is_a_gauge_by_lever() -> None:
    metrics = Metrics()
    observed(metrics, 1, rescue=RescueSpec(blind_slots=1))
    assert exported(metrics, "rescue_ratio", cell="cell-1", slice="ar", lever="ul") == 1
    assert exported(metrics, "rescue_ratio", cell="cell-1", slice="ar", lever="edge") == 1
    observed(metrics, 9, rescue=RescueSpec(blind_slots=1))
    assert exported(metrics, "rescue_ratio", cell="cell-1", slice="ar", lever="ul") == 0


def test_a_quota_by_hand_is_a_gauge_by_direction() -> None:
    metrics = Metrics()
    loop = ControlLoop(builders.loop_spec())
    shown = []
    for slot, value in enumerate((None, {"ul": 20, "dl": None, "for_s": 60.0}, None)):
        commands = (Command("quota", value, "ar"),)
        metrics.observe(loop.step(builders.observation(slot, commands=commands)).to_record())
        shown.append(
            [
                exported(metrics, "manual_quota_prb", cell="cell-1", slice="ar", direction=d)
                for d in ("ul", "dl")
            ]
        )
    assert shown == [[0, 0], [20, 0], [0, 0]]


def test_the_quotas_of_a_gnb_that_has_gone_are_not_there() -> None:
    metrics = Metrics()
    record = observed(metrics)
    labels = {"cell": "cell-1", "slice": "ar", "direction": "ul"}
    assert exported(metrics, "quota_prb", **labels) == record["quotas"]["ar"][0]
    metrics.gone("cell-1")
    metrics.gone("nosuch")
    assert exported(metrics, "quota_prb", **labels) is None
    metrics.observe(record)
    assert exported(metrics, "quota_prb", **labels) == record["quotas"]["ar"][0]
