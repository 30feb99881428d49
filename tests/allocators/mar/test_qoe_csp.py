"""Algorithm 1 against the paper's own search, and the fit into a limit against all subsets of users."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from controller.allocators.mar.qoe_csp import AS_GOOD, Allotment, Plan, least_bandwidth, within
from controller.allocators.mar.radio import Uplink

FREQUENCIES = np.array([1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 15.0, 30.0])


def uplink(users: int, rng: np.random.Generator) -> Uplink:
    return Uplink.from_snr_db(48_000.0, rng.normal(rng.uniform(3, 25, (users, 1)), 4.0, (users, 60)))


def bandwidths(users: int, rng: np.random.Generator) -> np.ndarray:
    return uplink(users, rng).bandwidth_hz(FREQUENCIES[:, None], 0.1).T


# ---- one user -----------------------------------------------------------------------------------------


def step_search(
    radio: Uplink, keeps: np.ndarray, delta: float, most: float, *, highest: bool
) -> float | None:
    """Lines 9 to 16 of Algorithm 1: raise b by delta until (12) holds; None beyond ``most``.

    A bandwidth b sustains every frequency up to one. Of these the user takes the ``highest``, as the paper's
    twin, which knows b, has it; or else any of them that keeps the promise. As this may be kept at 2 Hz and
    missed at 3, the first reading passes over an answer within delta of what the next frequency takes.
    """
    b = delta
    while b <= most:
        sustained = np.flatnonzero(float(radio.frequency_hz(b, 0.1)) >= FREQUENCIES)
        considered = sustained[-1:] if highest else sustained
        if keeps[considered].any():
            return b
        b += delta
    return None


@pytest.mark.parametrize("highest", [False, True])
def test_the_same_answer_as_the_papers_step_search(highest: bool) -> None:
    rng = np.random.default_rng(1)
    found = none = 0
    for _ in range(30):
        radio = uplink(1, rng)
        one = Uplink(*(np.asarray(v)[0] for v in (np.full(1, radio.frame_bits), radio.mean, radio.variance)))
        bandwidth = one.bandwidth_hz(FREQUENCIES, 0.1)
        delta = min(bandwidth[-1] / 500, np.diff(bandwidth).min() / 2)
        if delta < bandwidth[-1] / 4000:
            continue
        # The reliability does not rise steadily.
        reliability = rng.random((1, 8)) ** rng.choice([0.2, 2.0, 8.0])
        plan = least_bandwidth(reliability, reliability, bandwidth[None], 0.9)
        b = step_search(one, reliability[0] >= 0.9, delta, bandwidth[-1] + delta, highest=highest)
        assert (b is not None) == bool(plan.promised[0])
        if b is None:
            none += 1
            continue
        found += 1
        least = bandwidth[plan.choice[0]]
        assert least <= b * (1 + 1e-9) and b - least <= delta * (1 + 1e-9)
    assert found >= 8 and none >= 3


def test_the_least_bandwidth_of_those_that_keep_it() -> None:
    reliability = np.array([[0.95, 0.2, 0.99], [0.5, 0.9, 0.95], [0.1, 0.2, 0.91], [0.3, 0.3, 0.3]])
    bandwidth = np.tile([1.0, 2.0, 4.0], (4, 1))
    plan = least_bandwidth(reliability, reliability, bandwidth, 0.9)
    assert plan.choice.tolist() == [0, 1, 2, 0] and plan.promised.tolist() == [True, True, True, False]
    # A frequency that costs less than a lower one, as no radio has it: it is the bandwidth that counts.
    plan = least_bandwidth(reliability[:1], reliability[:1], np.array([[3.0, 2.0, 1.0]]), 0.9)
    assert plan.choice.tolist() == [2]


@pytest.mark.parametrize(("epsilon", "promised"), [(0.0, True), (0.5, True), (0.51, False), (1.0, False)])
def test_epsilon_itself_is_enough(epsilon: float, promised: bool) -> None:
    half = np.full((1, 2), 0.5)
    assert least_bandwidth(half, half, np.array([[1.0, 2.0]]), epsilon).promised.tolist() == [promised]
    certain = least_bandwidth(np.ones((1, 2)), half, np.array([[1.0, 2.0]]), epsilon)
    assert certain.promised.all() and certain.choice.tolist() == [0]


@pytest.mark.parametrize(
    ("rule", "choice"), [("lowest", [0, 0, 0, 0]), ("highest", [3, 3, 3, 3]), ("best", [3, 1, 0, 2])]
)
def test_what_a_user_gets_with_whom_none_keeps_the_promise(rule: Any, choice: list[int]) -> None:
    expected = np.array(
        [
            [0.1, 0.2, 0.3, 0.4],
            [0.1, 0.6, 0.6 + 0.9 * AS_GOOD, 0.5],  # nearly as good, for less
            [np.nan] * 4,
            [np.nan, 0.2, 0.5, np.nan],
        ]
    )
    bandwidth = np.tile([1.0, 2.0, 4.0, 8.0], (4, 1))
    plan = least_bandwidth(np.full((4, 4), 0.3), expected, bandwidth, 0.9, rule)
    assert plan.choice.tolist() == choice and not plan.promised.any()
    # It makes no difference to who has a promise.
    assert least_bandwidth(np.ones((4, 4)), expected, bandwidth, 0.9, rule).choice.tolist() == [0] * 4


def test_a_reliability_that_is_not_known_keeps_nothing() -> None:
    reliability = np.array([[np.nan, 0.95], [np.nan, np.nan]])
    bandwidth = np.tile([1.0, 2.0], (2, 1))
    for epsilon in (0.0, 0.9):
        plan = least_bandwidth(reliability, reliability, bandwidth, epsilon)
        assert plan.choice.tolist() == [1, 0] and plan.promised.tolist() == [True, False]


def test_what_cannot_be_had_is_not_chosen() -> None:
    bandwidth = np.array([[1.0, 2.0, np.inf]])
    reliability, expected = np.array([[0.1, 0.2, 0.99]]), np.array([[0.1, 0.2, 0.9]])
    for rule, choice in (("lowest", 0), ("highest", 1), ("best", 1)):
        plan = least_bandwidth(reliability, expected, bandwidth, 0.9, rule)  # type: ignore[arg-type]
        assert plan.choice.tolist() == [choice] and not plan.promised.any()


# ---- a limit ------------------------------------------------------------------------------------------


def total(bandwidth: np.ndarray, choice: np.ndarray) -> float:
    return float(bandwidth[np.arange(len(choice)), choice].sum())


def instance(rng: np.random.Generator, users: int) -> tuple[Plan, np.ndarray]:
    return Plan(rng.integers(0, 8, users), rng.random(users) < 0.7), bandwidths(users, rng)


@pytest.mark.parametrize("seed", range(40))
def test_as_many_promises_as_any_subset_of_users_allows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users = int(rng.integers(1, 8))
    plan, bandwidth = instance(rng, users)
    wanted = bandwidth[np.arange(users), plan.choice]
    least = float(bandwidth[:, 0].sum())
    for limit in (0.0, 0.5 * least, least, *rng.uniform(least, 1.1 * wanted.sum() + least, 4).tolist()):
        got = within(plan, bandwidth, limit)
        check(plan, bandwidth, limit, got)
        if not got.fits:
            assert not got.kept.any() and got.choice.tolist() == [0] * users
            continue
        most = max(
            n
            for n in range(int(plan.promised.sum()) + 1)
            for some in combinations(np.flatnonzero(plan.promised).tolist(), n)
            if least + sum(wanted[u] - bandwidth[u, 0] for u in some) <= limit * (1 + 1e-12)
        )
        assert got.kept.sum() == most


def check(plan: Plan, bandwidth: np.ndarray, limit: float, got: Allotment) -> None:
    """What holds for every allotment."""
    users = np.arange(len(plan.choice))
    assert got.fits == (bandwidth[:, 0].sum() <= limit * (1 + 1e-12))
    assert got.total_hz == pytest.approx(total(bandwidth, got.choice))
    if got.fits:
        assert got.total_hz <= limit * (1 + 1e-9)
    assert (got.choice <= plan.choice).all() and (got.choice >= 0).all()
    short = bandwidth[users, plan.choice] - bandwidth[users, got.choice]
    assert got.short_hz == pytest.approx(short) and (got.short_hz >= 0.0).all()
    assert not (got.kept & ~plan.promised).any()
    assert (got.choice[got.kept] == plan.choice[got.kept]).all()
    # A promise that is not kept is short, unless nothing fits at all.
    assert not got.fits or (short[plan.promised & ~got.kept] > 0.0).all()
    # Nothing is left that the next frequency of anybody would fit into.
    below = np.flatnonzero(got.choice < plan.choice)
    if got.fits and len(below):
        step = bandwidth[below, got.choice[below] + 1] - bandwidth[below, got.choice[below]]
        assert got.total_hz + step.min() > limit * (1 - 1e-9)


def test_a_plan_that_fits_is_left_alone() -> None:
    rng = np.random.default_rng(3)
    plan, bandwidth = instance(rng, 6)
    wanted = total(bandwidth, plan.choice)
    for limit in (np.inf, wanted, 2 * wanted):
        got = within(plan, bandwidth, limit)
        assert np.array_equal(got.choice, plan.choice) and np.array_equal(got.kept, plan.promised)
        assert got.fits and not got.short_hz.any() and got.total_hz == wanted
        got.choice[0] = 7
    assert not np.array_equal(got.choice, plan.choice), "it is a copy"


def test_users_of_equal_cost_keep_their_order() -> None:
    bandwidth = np.tile([1.0, 3.0, 9.0], (4, 1))
    plan = Plan(np.array([1, 1, 1, 1]), np.array([True] * 4))
    for more, kept in ((0.0, 0), (1.9, 0), (2.0, 1), (4.0, 2), (6.0, 3), (8.0, 4)):
        got = within(plan, bandwidth, 4.0 + more)
        assert got.kept.tolist() == [i < kept for i in range(4)]
        assert got.short_hz.tolist() == [0.0 if i < kept else 2.0 for i in range(4)]


def test_promises_come_before_the_others_however_cheap() -> None:
    bandwidth = np.array([[1.0, 2.0, 3.0], [1.0, 5.0, 9.0]])
    plan = Plan(np.array([2, 1]), np.array([False, True]))
    got = within(plan, bandwidth, 6.0)
    assert got.choice.tolist() == [0, 1] and got.kept.tolist() == [False, True]
    assert got.short_hz.tolist() == [2.0, 0.0]
    # A promise that does not fit gives way, in part, to what is left.
    got = within(plan, bandwidth, 5.9)
    assert got.choice.tolist() == [2, 0] and not got.kept.any() and got.short_hz.tolist() == [0.0, 4.0]


def test_a_promise_that_needs_no_more_than_the_lowest_costs_nothing() -> None:
    bandwidth = np.tile([1.0, 3.0], (3, 1))
    plan = Plan(np.array([1, 0, 1]), np.array([True, True, True]))
    got = within(plan, bandwidth, 3.0)
    assert got.kept.tolist() == [False, True, False] and got.choice.tolist() == [0, 0, 0] and got.fits
    got = within(plan, bandwidth, 2.9)
    assert not got.kept.any() and not got.fits and got.total_hz == 3.0


def test_nobody() -> None:
    plan = Plan(np.empty(0, np.int64), np.empty(0, np.bool_))
    got = within(plan, np.empty((0, 8)), 0.0)
    assert got.fits and got.total_hz == 0.0 and len(got.choice) == 0
