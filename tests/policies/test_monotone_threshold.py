"""The first action at or above a threshold, against a slow reading of its definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from controller.policies import Feedback, make
from tests.policies.monotone import mean_cost, step_at
from tests.policies.test_kl_ucb import kl
from tests.policies.test_tally import least_of_greatest_means


def defined(actions: tuple[int, ...], bits: dict[int, list[int]], threshold: float) -> int:
    """What is to be played, by trying every action as the smallest that is possible."""
    t = sum(map(len, bits.values()))
    if t == 0:
        return actions[-1]
    played = [a for a in actions if bits[a]]
    n = {a: float(len(bits[a])) for a in played}
    fit = least_of_greatest_means([sum(bits[a]) / n[a] for a in played], [n[a] for a in played])
    share = dict(zip(played, fit, strict=True))
    leader = next((a for a in played if share[a] >= threshold - 1e-12), actions[-1])

    def against(action: int) -> float:
        too_low = [a for a in played if a >= action and share[a] < threshold - 1e-12]
        return sum(n[a] * kl(share[a], threshold) for a in too_low)

    possible = [a for a in actions if a < leader and against(a) <= math.log(t)]
    return possible[len(possible) // 2] if possible else leader


@pytest.mark.parametrize("actions", [(40,), (10, 106), (3, 4, 17, 60, 61, 200), tuple(range(10, 106, 8))])
@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_choices_are_those_of_the_definition(actions: tuple[int, ...], threshold: float) -> None:
    for seed in range(2):
        policy, rng = make("monotone_threshold", actions, threshold=threshold), np.random.default_rng(seed)
        bits: dict[int, list[int]] = {a: [] for a in actions}
        for step in range(100):
            action = policy.pull()
            assert action == defined(actions, bits, threshold), step
            bits[action].append(int(rng.random() < 0.2 + 0.75 * action / actions[-1]))
            policy.update(action, Feedback(bits[action][-1]))


def test_it_bisects_a_thousand_actions() -> None:
    policy = make("monotone_threshold", range(1, 1001))
    played = []
    for _ in range(12):
        played.append(policy.pull())
        policy.update(played[-1], Feedback(int(played[-1] >= 700)))
    assert played[:4] == [1000, 500, 750, 625]
    assert abs(played[-1] - 700) <= 2


def test_too_little_is_tried_ever_more_seldom() -> None:
    policy = make("monotone_threshold", range(10, 101, 10))
    played = []
    for _ in range(3000):
        played.append(policy.pull())
        policy.update(played[-1], Feedback(int(played[-1] >= 60)))
    assert played[-2000:].count(60) >= 1997
    assert set(played[20:]) == {50, 60}


def test_where_nothing_is_enough_it_ends_at_the_largest() -> None:
    policy, rng = make("monotone_threshold", (10, 20, 30, 40)), np.random.default_rng(1)
    played = []
    for _ in range(800):
        played.append(policy.pull())
        policy.update(played[-1], Feedback(int(rng.random() < 0.5)))
    assert played[-400:].count(40) > 380


@pytest.mark.parametrize("threshold", [0, 1, 1.5, -0.1, float("nan"), "0.9", True])
def test_impossible_thresholds_are_refused(threshold: Any) -> None:
    with pytest.raises(ValueError, match=f"option threshold {threshold!r}"):
        make("monotone_threshold", (10, 20), threshold=threshold)


def test_it_costs_less_than_ucb1() -> None:
    actions = tuple(range(10, 106, 5))
    ucb1, ours = (mean_cost(name, actions, step_at(60), 300) for name in ("ucb1", "monotone_threshold"))
    assert ours < 0.75 * ucb1
