"""Budgets that move toward the bottleneck hop."""

from __future__ import annotations

import json

import pytest

from controller.allocators.ar.adaptive import EVERY, RANGE, AdaptiveBudgets
from controller.allocators.ar.budgets import Budgets
from controller.allocators.ar.delays import HOPS
from controller.core.measure import Lever

CONFIGURED = Budgets(70, 20, 60)
SPENDS = dict.fromkeys(HOPS, True)


def observe(
    adaptive: AdaptiveBudgets,
    slots: int,
    ul: float,
    edge: float,
    dl: float,
    spends: dict[Lever, bool] = SPENDS,
) -> None:
    for _ in range(slots):
        adaptive.observe({Lever.UL: ul, Lever.EDGE: edge, Lever.DL: dl}, spends)


def of(adaptive: AdaptiveBudgets) -> list[float]:
    return [adaptive.budgets.of(hop) for hop in HOPS]


def test_the_bottleneck_receives_and_the_sum_stays() -> None:
    adaptive = AdaptiveBudgets(CONFIGURED)
    observe(adaptive, EVERY - 1, 20, 18, 20)
    assert adaptive.budgets == CONFIGURED
    observe(adaptive, 20 * EVERY, 20, 18, 20)
    ul, edge, dl = of(adaptive)
    assert edge > 30 and sum((ul, edge, dl)) == pytest.approx(150)
    assert adaptive.budgets.round_trip_ms == CONFIGURED.round_trip_ms
    assert max(edge / 20, 70 / ul, 60 / dl) <= RANGE


def test_it_comes_to_rest_and_a_delay_at_the_edge_of_the_hysteresis_moves_nothing() -> None:
    adaptive = AdaptiveBudgets(CONFIGURED)
    observe(adaptive, 40 * EVERY, 20, 18, 20)
    before = of(adaptive)
    for delay in (17.0, 18.0, 19.0, 17.5) * 5:
        observe(adaptive, EVERY, 20, delay, 20)
    assert of(adaptive) == before


def test_it_goes_back_when_the_bottleneck_moves() -> None:
    adaptive = AdaptiveBudgets(CONFIGURED)
    observe(adaptive, 20 * EVERY, 20, 18, 20)
    widened = adaptive.budgets.edge_ms
    observe(adaptive, 40 * EVERY, 60, 5, 20)  # cross traffic on the uplink
    assert adaptive.budgets.ul_ms > 70 and adaptive.budgets.edge_ms < widened


@pytest.mark.parametrize(
    ("delays", "spends"),
    [
        ((20.0, 18.0, 20.0), {**SPENDS, Lever.EDGE: False}),  # its least costs nothing that could be saved
        ((60.0, 18.0, 55.0), SPENDS),  # nobody has anything to give
        ((5.0, 2.0, 5.0), SPENDS),  # nobody needs anything
    ],
)
def test_without_a_receiver_or_a_giver_nothing_moves(
    delays: tuple[float, float, float], spends: dict[Lever, bool]
) -> None:
    adaptive = AdaptiveBudgets(CONFIGURED)
    observe(adaptive, 20 * EVERY, *delays, spends=spends)
    assert adaptive.budgets == CONFIGURED


def test_holds_and_hiccups_are_no_usual_delay() -> None:
    adaptive = AdaptiveBudgets(CONFIGURED)
    for _ in range(30):
        observe(adaptive, 4, 20, 5, 20)
        observe(adaptive, 1, 900, 5, 20)
    assert adaptive.budgets == CONFIGURED


def test_its_state_goes_through_json_and_other_budgets_begin_as_configured() -> None:
    adaptive = AdaptiveBudgets(CONFIGURED)
    observe(adaptive, 5 * EVERY + 3, 20, 18, 20)
    state = json.loads(json.dumps(adaptive.to_state()))
    again = AdaptiveBudgets(CONFIGURED)
    again.load_state(state)
    assert again.to_state() == state and again.budgets == adaptive.budgets
    for a in (adaptive, again):
        observe(a, EVERY, 20, 18, 20)
    assert again.budgets == adaptive.budgets
    other = AdaptiveBudgets(Budgets(100, 50, 100))
    other.load_state(state)
    assert other.budgets == Budgets(100, 50, 100)
