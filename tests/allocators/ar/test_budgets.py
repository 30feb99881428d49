"""Delay budgets and their split."""

from __future__ import annotations

import doctest

import pytest

from controller.allocators.ar import budgets
from controller.allocators.ar.budgets import Budgets, split
from controller.core.measure import RESOURCES as HOPS
from controller.core.measure import Lever

TABLE_IV_AVERAGE = {Lever.UL: 12.0, Lever.EDGE: 9.0, Lever.DL: 19.0}
TABLE_IV_P90 = {Lever.UL: 27.0, Lever.EDGE: 7.0, Lever.DL: 31.0}


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(budgets).failed == 0


def test_table_iv_splits_as_in_the_paper() -> None:
    got = split(150, TABLE_IV_AVERAGE, {Lever.UL: 6, Lever.EDGE: 2, Lever.DL: 3})
    assert got == split(150, TABLE_IV_AVERAGE) == Budgets(70, 20, 60, 150)


@pytest.mark.parametrize("round_trip", range(50, 400, 10))
@pytest.mark.parametrize("one_flow", [TABLE_IV_AVERAGE, TABLE_IV_P90])
def test_the_parts_add_up_in_whole_steps(round_trip: int, one_flow: dict[Lever, float]) -> None:
    got = split(round_trip, one_flow)
    parts = [got.of(hop) for hop in HOPS]
    assert sum(parts) == got.round_trip_ms == round_trip
    assert all(part % 10 == 0 and part > 0 for part in parts)
    weights = {Lever.UL: 6, Lever.EDGE: 2, Lever.DL: 3}
    total = sum(weights[hop] * one_flow[hop] for hop in HOPS)
    for hop in HOPS:
        assert abs(got.of(hop) - round_trip * weights[hop] * one_flow[hop] / total) < 20


def test_largest_remainder_where_plain_rounding_misses_the_budget() -> None:
    # Thirds of 100 all round to 30; thirds of 200 all round to 70.
    equal = dict.fromkeys(HOPS, 10.0)
    same = dict.fromkeys(HOPS, 1.0)
    assert split(100, equal, same) == Budgets(40, 30, 30, 100)
    assert split(200, equal, same) == Budgets(70, 70, 60, 200)


def test_no_hop_is_left_with_nothing() -> None:
    # The exact parts are 66.2, 5.7 and 38.0 ms; largest remainder alone would leave the edge none.
    assert split(110, TABLE_IV_P90) == Budgets(60, 10, 40, 110)
    assert split(30, TABLE_IV_AVERAGE) == Budgets(10, 10, 10, 30)


@pytest.mark.parametrize(
    ("round_trip", "one_flow", "step", "named"),
    [
        (155, TABLE_IV_AVERAGE, 10, "155 ms is no multiple"),
        (20, TABLE_IV_AVERAGE, 10, "has no 10 ms for each hop"),
        (150, {Lever.UL: 12.0, Lever.DL: 19.0}, 10, "no value for hop edge"),
        (150, {**TABLE_IV_AVERAGE, Lever.DL: float("nan")}, 10, "one_flow_ms of hop dl nan"),
        (150, {**TABLE_IV_AVERAGE, Lever.UL: 0.0}, 10, "one_flow_ms of hop ul"),
        (0, TABLE_IV_AVERAGE, 10, "round_trip_ms 0"),
        (150, TABLE_IV_AVERAGE, -10, "round_to_ms -10"),
    ],
)
def test_impossible_splits_name_what_is_wrong(
    round_trip: float, one_flow: dict[Lever, float], step: float, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        split(round_trip, one_flow, round_to_ms=step)


def test_a_finer_step_splits_what_a_coarse_one_cannot() -> None:
    assert split(155, TABLE_IV_AVERAGE, round_to_ms=5).round_trip_ms == 155


def test_budgets_of_hops_and_round_trip() -> None:
    b = Budgets(70, 20, 60)
    assert [b.of(hop) for hop in HOPS] == [70, 20, 60]
    assert b.round_trip_ms == 150
    assert Budgets(70, 20, 60, round_trip_ms=140).round_trip_ms == 140


@pytest.mark.parametrize("bad", [-1.0, 0.0, float("nan"), float("inf")])
def test_budgets_are_positive(bad: float) -> None:
    with pytest.raises(ValueError, match="edge_ms"):
        Budgets(70, bad, 60)
    if bad != 0:
        with pytest.raises(ValueError, match="round_trip_ms"):
            Budgets(70, 20, 60, bad)
