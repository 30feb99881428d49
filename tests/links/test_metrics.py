"""Metrics as Prometheus would scrape them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.core.clocks import KnownClock
from controller.core.observation import Command, Mode
from controller.core.rescue import RescueSpec
from controller.links import metrics as metrics_module
from controller.links.counters import Counters
from controller.links.metrics import COUNTERS, MAX_CELLS, MAX_REASONS, Metrics
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
    metrics.gpu("cell-1", 1590.0, 45.5)
    counters.inc("ran_malformed_total", "cell-1", 3)
    counters.inc("something_new_total")
    text = page(server)
    families = list(text_string_to_metric_families(text))
    assert len(families) > 40
    for family in families:
        assert family.name.startswith("prbandit_"), family.name
        assert family.documentation.strip() and family.type != "unknown", family.name
    told = values(text)
    assert told["prbandit_ran_malformed_total", (("cell", "cell-1"),)] == 3
    assert told["prbandit_something_new_total", (("cell", ""),)] == 1
    assert told["prbandit_ran_no_session_total", (("cell", ""),)] == 0
    assert told["prbandit_step_duration_seconds_count", (("cell", "cell-1"),)] == 1
    assert "# HELP prbandit_ran_malformed_total Messages that cannot be parsed" in text
    assert "# TYPE prbandit_ran_malformed_total counter" in text


def test_what_is_known_of_clocks_is_asked_for_at_each_scrape() -> None:
    metrics, known = Metrics(), [KnownClock("edge", "SLAVE", -120.0, 0.5, "")]
    metrics.watch_cell("cell-1", clocks=lambda: known)
    edge = {"cell": "cell-1", "host": "edge"}
    assert exported(metrics, "clock_usable", **edge) == 1
    assert exported(metrics, "clock_offset_seconds", **edge) == -120e-9
    assert exported(metrics, "clock_age_seconds", **edge) == 0.5
    known[:] = [KnownClock("edge", "", 0.0, None, "edge: no news of its clock")]
    assert exported(metrics, "clock_usable", **edge) == 0
    assert math.isnan(exported(metrics, "clock_age_seconds", **edge) or 0.0)
    known.clear()
    assert exported(metrics, "clock_usable", **edge) is None


def test_a_decision_shows_as_it_was_recorded(served: tuple[Metrics, Counters, MetricsServer]) -> None:
    metrics, _, _ = served
    record = observed(metrics)
    one = record["slices"]["ar"]
    cell = {"cell": "cell-1"}
    slice_ = {**cell, "slice": "ar"}
    assert exported(metrics, "decisions_total", **cell) == 4
    assert exported(metrics, "control_slot", **cell) == 4
    assert exported(metrics, "last_decision_timestamp_seconds", **cell) == record["time_ns"] / 1e9
    assert exported(metrics, "mode", **cell, prbandit_mode="active") == 1
    assert exported(metrics, "mode", **cell, prbandit_mode="shadow") == 0
    assert exported(metrics, "carrier_prb", **cell) == 106
    assert exported(metrics, "gpu_wanted_mhz", **cell) == record["gpu_mhz"]
    assert exported(metrics, "gpu_max_mhz", **cell) == 1600
    assert exported(metrics, "quota_prb", **slice_, direction="ul") == record["quotas"]["ar"][0]
    assert exported(metrics, "quota_prb", **slice_, direction="dl") == record["quotas"]["ar"][1]
    assert exported(metrics, "active_flows", **slice_) == 1
    assert exported(metrics, "busy_control_slots_total", **slice_) == 4
    for hop in ("ul", "edge", "dl"):
        choice = next(c for c in one["choices"] if c["lever"] == hop)
        assert exported(metrics, "hop_state_prb", **slice_, hop=hop) == choice["state"]
        assert exported(metrics, "hop_demand_prb", **slice_, hop=hop) == choice["demand"]
        assert exported(metrics, "hop_action", **slice_, hop=hop) == choice["action"]
    # The last of four control slots violated the uplink's budget of 70 ms.
    assert exported(metrics, "delay_seconds", **slice_, hop="ul") == pytest.approx(0.09)
    assert exported(metrics, "qos_delivery_ratio", **slice_, hop="ul") == 0.75
    assert exported(metrics, "qos_delivery_ratio", **slice_, hop="edge") == 1.0
    assert exported(metrics, "qos_delivery_ratio", **slice_, hop="round_trip") == 1.0
    assert exported(metrics, "qos_judged_control_slots_total", **slice_, hop="ul") == 4
    assert exported(metrics, "qos_met_control_slots_total", **slice_, hop="ul") == 3
    assert exported(metrics, "unattributed_total", **slice_, hop="ul", reason="no decision") == 1
    assert exported(metrics, "measure", **slice_, measure="ul") == pytest.approx(90.0)
    assert exported(metrics, "measure_met_total", **slice_, measure="ul") == 3
    assert exported(metrics, "lever", **slice_, lever="edge") == record["gpu_mhz"]
    assert exported(metrics, "lever", **slice_, lever="settings") == 0
    assert exported(metrics, "allocator_failures_total", **slice_) == 0


def test_without_quotas_all_that_there_is_shows_and_a_stateless_policy_has_no_state(
    served: tuple[Metrics, Counters, MetricsServer],
) -> None:
    metrics, _, _ = served
    record = observed(metrics, 1, mode=Mode.SHADOW, cell="c", slices=(builders.slice_spec(policy="aimd"),))
    assert record["quotas"] == {} and record["gpu_mhz"] is None
    assert exported(metrics, "quota_prb", cell="c", slice="ar", direction="ul") == 106
    assert exported(metrics, "gpu_wanted_mhz", cell="c") == 1600
    assert exported(metrics, "mode", cell="c", prbandit_mode="shadow") == 1
    state = exported(metrics, "hop_state_prb", cell="c", slice="ar", hop="ul")
    assert state is not None and math.isnan(state)


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
    assert left and all(name.endswith(("_total", "_created")) for name in left), left
    assert exported(metrics, "busy_control_slots_total", cell="cell-1", slice="ar") == 4
    for cell, name in (("cell-1", "mar"), ("cell-2", "ar")):
        assert exported(metrics, "quota_prb", cell=cell, slice=name, direction="ul") is not None
        assert exported(metrics, "hop_action", cell=cell, slice=name, hop="edge") is not None


def test_a_qos_that_cannot_be_told_is_in_no_ratio(served: tuple[Metrics, Counters, MetricsServer]) -> None:
    metrics, _, _ = served
    record = observed(metrics)
    ul = record["slices"]["ar"]["closed"]["measures"]["ul"]
    ul.update(met=None, users={}, samples=0)
    metrics.observe(record)
    labels = {"cell": "cell-1", "slice": "ar", "hop": "ul"}
    assert exported(metrics, "qos_delivery_ratio", **labels) == 0.75
    delay = exported(metrics, "delay_seconds", **labels)
    assert delay is not None and math.isnan(delay)


def test_flows_and_ues_are_no_labels(served: tuple[Metrics, Counters, MetricsServer]) -> None:
    metrics, _, server = served
    observed(metrics)
    text = page(server)
    assert "flow-0" not in text and "ue-1" not in text


def test_labels_are_bounded(served: tuple[Metrics, Counters, MetricsServer]) -> None:
    """A peer that makes up cells or reasons cannot fill the memory of Prometheus."""
    metrics, counters, server = served
    for i in range(MAX_CELLS + 50):
        counters.inc("ran_unknown_cell_total", f"made-up-{i:04}")
    record = observed(metrics)
    for i in range(MAX_REASONS + 50):
        record["slices"]["ar"]["closed"]["unattributed"] = {"ul": f"reason {i}"}
        metrics.observe(record)
    told = values(page(server))
    cells = {labels: v for (name, labels), v in told.items() if name == "prbandit_ran_unknown_cell_total"}
    assert len(cells) == MAX_CELLS + 1 and cells[(("cell", "other"),)] == 50
    assert sum(cells.values()) == MAX_CELLS + 50
    reasons = {labels: v for (name, labels), v in told.items() if name == "prbandit_unattributed_total"}
    assert len({dict(labels)["reason"] for labels in reasons}) == MAX_REASONS + 1


def test_text_of_others_cannot_break_the_page(served: tuple[Metrics, Counters, MetricsServer]) -> None:
    _, counters, server = served
    counters.inc("ran_unknown_cell_total", 'x"} 1\nprbandit_evil 1\\')
    told = values(page(server))
    assert not any(name == "prbandit_evil" for name, _ in told)
    assert told["prbandit_ran_unknown_cell_total", (("cell", 'x"} 1\nprbandit_evil 1\\'),)] == 1


def test_ages_are_asked_for_at_the_scrape_and_a_failure_is_no_number(
    served: tuple[Metrics, Counters, MetricsServer],
) -> None:
    metrics, _, server = served
    ages = iter([0.5, 0.75])

    def broken() -> float:
        raise RuntimeError("no link")

    metrics.watch_cell("a", report_age=lambda: next(ages), lease_remaining=lambda: None)
    metrics.watch_cell("b", report_age=broken)
    for age in (0.5, 0.75):
        told = values(page(server))
        assert told["prbandit_report_age_seconds", (("cell", "a"),)] == age
        assert math.isnan(told["prbandit_lease_remaining_seconds", (("cell", "a"),)])
        assert math.isnan(told["prbandit_report_age_seconds", (("cell", "b"),)])


def test_every_counter_of_the_links_has_its_help_text() -> None:
    """What the links may count is in the table, so that no counter shows without its meaning."""
    folder = Path(metrics_module.__file__).parent
    used = set()
    for path in (*folder.glob("*.py"), folder.parent / "store" / "run.py", folder.parent / "daemon.py"):
        used |= set(re.findall(r'"([a-z]+_[a-z_]+_total)"', path.read_text()))
    assert used - set(COUNTERS) == set()


def test_a_rescue_is_a_gauge_by_lever() -> None:
    metrics = Metrics()
    observed(metrics, 1, rescue=RescueSpec(blind_slots=1))
    assert exported(metrics, "rescue", cell="cell-1", slice="ar", lever="ul") == 106
    assert exported(metrics, "rescue", cell="cell-1", slice="ar", lever="edge") == 1600
    observed(metrics, 9, rescue=RescueSpec(blind_slots=1))
    assert exported(metrics, "rescue", cell="cell-1", slice="ar", lever="ul") == 0


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


def test_the_quotas_of_a_gnb_that_has_gone_are_no_numbers() -> None:
    metrics = Metrics()
    record = observed(metrics)
    labels = {"cell": "cell-1", "slice": "ar", "direction": "ul"}
    assert exported(metrics, "quota_prb", **labels) == record["quotas"]["ar"][0]
    metrics.gone("cell-1")
    metrics.gone("nosuch")
    assert math.isnan(exported(metrics, "quota_prb", **labels) or 0.0)
    metrics.observe(record)
    assert exported(metrics, "quota_prb", **labels) == record["quotas"]["ar"][0]
