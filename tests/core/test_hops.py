"""Hop demand and hop states."""

from __future__ import annotations

import doctest
from collections.abc import Sequence
from dataclasses import replace

import pytest

from controller.core import hops
from controller.core.hops import Carrier, demand_prb, hop_state, state_grid
from controller.core.measure import Lever
from controller.core.observation import DirectionColumns, Flow, MacReport
from wire.definitions import nr

MS = 1_000_000
T0 = 1_700_000_000_000_000_000
UL_BPS, DL_BPS = 2.997e6, 0.992e6
CARRIER = Carrier()

Ue = tuple[str, str, int, int]  # ue_id, slice, MCS, queued bytes


def columns(ues: Sequence[Ue], table: int = 1, layers: int = 1) -> DirectionColumns:
    n = len(ues)
    return DirectionColumns(tuple(u[2] for u in ues), (table,) * n, (layers,) * n, tuple(u[3] for u in ues))


def report(at_ms: float, ul: Sequence[Ue], dl: Sequence[Ue] | None = None) -> MacReport:
    return MacReport(
        T0 + int(at_ms * MS),
        tuple(u[0] for u in ul),
        tuple(u[1] for u in ul),
        columns(ul),
        columns(ul if dl is None else dl),
    )


def flow(name: str = "f", ue: str = "ue1", start_ms: float = -1000, stop_ms: float | None = None) -> Flow:
    stop = 0 if stop_ms is None else T0 + int(stop_ms * MS)
    return Flow(name, ue, "ar", UL_BPS, DL_BPS, T0 + int(start_ms * MS), stop)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(hops).failed == 0


def test_one_flow_needs_what_the_paper_says() -> None:
    reports = [report(0, [("ue1", "ar", 7, 0)], [("ue1", "ar", 28, 0)])]
    ul = demand_prb(reports, [flow()], "ar", Lever.UL, CARRIER)
    dl = demand_prb(reports, [flow()], "ar", Lever.DL, CARRIER)
    assert ul == pytest.approx(13.107, abs=1e-3)
    assert dl == pytest.approx(2.207, abs=1e-3)
    se = 526 * 2 / 1024
    assert ul == pytest.approx(UL_BPS * 0.01 / (se * 12 * 28 * 10 * 0.72 * 0.92))


def test_the_edge_has_the_demand_of_the_uplink() -> None:
    reports = [report(0, [("ue1", "ar", 7, 5000)], [("ue1", "ar", 28, 10)])]
    assert demand_prb(reports, [flow()], "ar", Lever.EDGE, CARRIER) == demand_prb(
        reports, [flow()], "ar", Lever.UL, CARRIER
    )


def test_a_queue_is_to_drain_in_one_subinterval() -> None:
    reports = [report(0, [("ue1", "ar", 10, 20_000)])]
    queue_alone = demand_prb(reports, [], "ar", Lever.UL, CARRIER)
    per_prb = CARRIER.bits_per_prb("ul", 10)
    assert queue_alone == pytest.approx(20_000 * 8 * 10 / 200 / per_prb)
    faster = demand_prb(reports, [], "ar", Lever.UL, replace(CARRIER, subinterval_ms=50.0))
    assert faster == pytest.approx(20_000 * 8 * 10 / 50 / per_prb)
    assert demand_prb(reports, [], "ar", Lever.UL, CARRIER, queue=False) == 0


def test_without_the_queue_it_is_the_flows_times_one_flow() -> None:
    reports = [report(0, [("ue1", "ar", 7, 9000)])]
    flows = [flow("a"), flow("b"), flow("c")]
    one = demand_prb(reports, flows[:1], "ar", Lever.UL, CARRIER, queue=False)
    assert one is not None
    assert demand_prb(reports, flows, "ar", Lever.UL, CARRIER, queue=False) == pytest.approx(3 * one)


def test_each_ue_counts_at_its_own_mcs_and_queue() -> None:
    reports = [report(0, [("ue1", "ar", 7, 100), ("ue2", "ar", 20, 700)])]
    flows = [flow("a", "ue1"), flow("b", "ue2")]
    want = sum(
        (UL_BPS * 0.01 + queued * 8 / 20) / CARRIER.bits_per_prb("ul", mcs)
        for mcs, queued in ((7, 100), (20, 700))
    )
    assert demand_prb(reports, flows, "ar", Lever.UL, CARRIER) == pytest.approx(want)


def test_mcs_table_and_layers_count() -> None:
    ues = [("ue1", "ar", 20, 4000)]
    d = columns(ues, table=2, layers=2)
    reports = [MacReport(T0, ("ue1",), ("ar",), d, d)]
    want = 4000 * 8 / 20 / (2 * CARRIER.bits_per_prb("dl", 20, 2))
    assert demand_prb(reports, [], "ar", Lever.DL, CARRIER) == pytest.approx(want)
    assert CARRIER.bits_per_prb("dl", 20, 2) != CARRIER.bits_per_prb("dl", 20, 1)


def test_the_mean_is_over_the_reports() -> None:
    busy, idle = report(0, [("ue1", "ar", 10, 8000)]), report(200, [("ue1", "ar", 10, 0)])
    one = demand_prb([busy], [], "ar", Lever.UL, CARRIER)
    assert one is not None
    assert demand_prb([busy, idle, idle, idle], [], "ar", Lever.UL, CARRIER) == pytest.approx(one / 4)


def test_a_flow_counts_at_the_reports_of_its_life() -> None:
    ue = [("ue1", "ar", 7, 0)]
    reports = [report(t, ue) for t in (0, 200, 400, 600)]
    one = demand_prb(reports, [flow()], "ar", Lever.UL, CARRIER)
    assert one is not None
    for start, stop, part in ((200, None, 3), (-5, 400, 2), (100, 300, 1), (210, 390, 0), (700, None, 0)):
        got = demand_prb(reports, [flow(start_ms=start, stop_ms=stop)], "ar", Lever.UL, CARRIER)
        assert got == pytest.approx(one * part / 4), (start, stop)
    both = [flow("a"), flow("b", start_ms=200, stop_ms=400)]
    assert demand_prb(reports, both, "ar", Lever.UL, CARRIER) == pytest.approx(one * 5 / 4)


def test_the_report_says_which_ues_a_slice_has() -> None:
    reports = [report(0, [("ue1", "ar", 7, 0), ("ue2", "vr", 7, 0), ("ue3", "", 7, 9999)])]
    flows = [flow("a", "ue1"), flow("b", "ue2"), flow("c", "elsewhere")]
    one = demand_prb(reports, flows[:1], "ar", Lever.UL, CARRIER)
    assert demand_prb(reports, flows, "ar", Lever.UL, CARRIER) == one
    assert demand_prb(reports, flows, "vr", Lever.UL, CARRIER) == one
    assert demand_prb(reports, flows, "none", Lever.UL, CARRIER) == 0


def test_no_report_is_not_no_demand() -> None:
    assert demand_prb([], [flow()], "ar", Lever.UL, CARRIER) is None


@pytest.mark.parametrize("mcs", [29, -1])
def test_an_impossible_mcs_names_its_place(mcs: int) -> None:
    with pytest.raises(ValueError, match=rf"{T0}.*'ue1'.*MCS {mcs}"):
        demand_prb([report(0, [("ue1", "ar", mcs, 100)])], [], "ar", Lever.UL, CARRIER)


def test_guard_and_overhead_of_the_carrier() -> None:
    assert Carrier(guard=True).bits_per_prb("ul", 28) / CARRIER.bits_per_prb("ul", 28) == pytest.approx(
        (48 / 70) / 0.72
    )
    assert Carrier(ul_overhead=0.2).bits_per_prb("ul", 3) == pytest.approx(
        CARRIER.bits_per_prb("ul", 3) * 0.8 / 0.92
    )
    ddsuu = Carrier(tdd=nr.TDD_PATTERNS["DDSUU"], guard=True)
    # Table III: 82 Mbit/s measured in DL at 106 PRB.
    assert ddsuu.bits_per_prb("dl", 28) * 106 * 100 / 1e6 == pytest.approx(82.6, abs=0.1)
    assert Carrier(guard=True).bits_per_prb("dl", 28) * 106 * 100 / 1e6 == pytest.approx(43.7, abs=0.1)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"ul_overhead": 1.0}, "ul overhead"),
        ({"dl_overhead": -0.1}, "dl overhead"),
        ({"subinterval_ms": 0.0}, "sub-interval"),
        ({"scs_khz": 31}, "31"),
        ({"tdd": nr.TddPattern("DD", 2, 14, 0, 0)}, "no ul symbol"),
    ],
)
def test_impossible_carriers_are_refused(bad: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Carrier(**bad)  # type: ignore[arg-type]


def test_the_state_is_the_next_grid_value_above_whole_prbs() -> None:
    grid = state_grid()
    assert grid == tuple(range(0, 106, 5))
    expected = {
        0: 5,
        0.1: 5,
        4: 5,
        4.01: 10,
        5: 10,
        9.5: 15,
        13.1: 15,
        14.0: 15,
        14.2: 20,
        104: 105,
        500: 105,
    }
    assert {d: hop_state(d, grid) for d in expected} == expected


@pytest.mark.parametrize("demand", [-1.0, float("nan"), float("inf")])
def test_a_demand_that_is_no_number_is_refused(demand: float) -> None:
    with pytest.raises(ValueError, match="demand"):
        hop_state(demand, state_grid())


def test_state_grid_ends_within_the_carrier() -> None:
    assert state_grid(51, 10) == (0, 10, 20, 30, 40, 50)
    assert state_grid(50, 10)[-1] == 50
    with pytest.raises(ValueError, match="steps of 0"):
        state_grid(106, 0)
