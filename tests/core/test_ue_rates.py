"""Rates of UEs from cumulative counters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.observation import DirectionColumns, MacReport
from controller.core.ue_rates import Rate, UeRates
from wire.definitions.nr import TDD_PATTERNS

S = 1_000_000_000
T0 = 1_800_000_000 * S
DSUUU = TDD_PATTERNS["DSUUU"]


def report(at_s: float, **ues: tuple[int, int, int, int]) -> MacReport:
    """UE id -> UL bytes, UL PRBs times NR slots, and those of DL."""

    def columns(k: int) -> DirectionColumns:
        n = len(ues)
        counted = tuple(u[k] for u in ues.values()), tuple(u[k + 1] for u in ues.values())
        return DirectionColumns((0,) * n, (1,) * n, (1,) * n, (0,) * n, (0.0,) * n, *counted)

    return MacReport(T0 + round(at_s * S), tuple(ues), ("ar",) * len(ues), columns(0), columns(2))


def test_rates_are_differences_over_the_time_and_the_nr_slots_of_the_direction() -> None:
    """Of 2,000 NR slots a second DSUUU gives four of five to UL (its mixed slot among them), two to DL."""
    rates = UeRates(30, DSUUU)
    assert rates.take(report(0.0, a=(1_000, 500, 10, 10))) == {}
    told = rates.take(report(2.0, a=(251_000, 500 + 30 * 3_200, 10, 10 + 53 * 1_600)))
    assert told["a"].ul == Rate(1e6, 30.0)
    assert told["a"].dl == Rate(0.0, 53.0)
    assert rates.latest is told


def test_all_prbs_of_every_slot_of_a_direction_are_the_carriers() -> None:
    for scs_khz, per_s in ((15, 1_000), (30, 2_000), (60, 4_000)):
        for tdd in TDD_PATTERNS.values():
            rates = UeRates(scs_khz, tdd)
            slots = range(10 * per_s)
            ul = sum(tdd.ul_symbols_in(i) > 0 for i in slots)
            dl = sum(tdd.dl_symbols_in(i) > 0 for i in slots)
            rates.take(report(0.0, a=(0, 0, 0, 0)))
            told = rates.take(report(10.0, a=(0, 106 * ul, 0, 106 * dl)))["a"]
            assert told.ul and told.dl
            assert told.ul.prb == pytest.approx(106, rel=1e-3)
            assert told.dl.prb == pytest.approx(106, rel=1e-3)


def test_reports_that_are_close_leave_the_rates_as_they_were() -> None:
    rates = UeRates(30, DSUUU)
    rates.take(report(0.0, a=(0, 0, 0, 0)))
    first = rates.take(report(1.0, a=(125_000, 0, 0, 0)))
    for i in range(1, 10):
        assert rates.take(report(1.0 + i / 10, a=(125_000 * (1 + 9 * i), 0, 0, 0))) is first
    told = rates.take(report(2.0, a=(125_000 * 3, 0, 0, 0)))
    assert told["a"].ul == Rate(2e6, 0.0)


def test_a_ue_that_attached_anew_has_no_rate_until_it_is_seen_twice() -> None:
    rates = UeRates(30, DSUUU)
    rates.take(report(0.0, a=(10_000, 10, 10_000, 10), b=(0, 0, 0, 0)))
    told = rates.take(report(1.0, a=(500, 20, 20_000, 5), b=(125, 0, 0, 0), c=(9, 9, 9, 9)))
    assert told["a"].ul is None and told["a"].dl is None
    assert told["b"].ul == Rate(1e3, 0.0)
    assert told["c"].ul is None and told["c"].dl is None
    told = rates.take(report(2.0, a=(625, 20, 20_000, 5), c=(134, 9, 9, 9)))
    assert told["a"].ul == told["c"].ul == Rate(1e3, 0.0)
    assert set(told) == {"a", "c"}  # b has gone


def test_a_gnb_whose_clock_was_set_back_starts_anew() -> None:
    rates = UeRates(30, DSUUU)
    rates.take(report(100.0, a=(0, 0, 0, 0)))
    rates.take(report(101.0, a=(125, 0, 0, 0)))
    assert rates.take(report(50.0, a=(250, 0, 0, 0))) == {}
    assert rates.take(report(51.0, a=(375, 0, 0, 0)))["a"].ul == Rate(1e3, 0.0)


def test_without_counters_there_is_no_rate() -> None:
    rates = UeRates(30, DSUUU)
    for at in (0.0, 1.0):
        old = report(at, a=(0, 0, 0, 0))
        told = rates.take(replace(old, ul=replace(old.ul, lc_bytes=(), prb_slots=())))
    assert told["a"].ul is None and told["a"].dl == Rate(0.0, 0.0)
