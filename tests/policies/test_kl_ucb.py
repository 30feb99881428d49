"""KL-UCB against a slow reading of its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controller.policies import Feedback, make
from controller.policies.kl_ucb import upper_bounds
from tests.policies.monotone import mean_cost, step_at


def kl(p: float, q: float) -> float:
    return sum(a * math.log(a / b) if a else 0.0 for a, b in ((p, q), (1 - p, 1 - q)))


def bisected(p: float, divergence: float) -> float:
    """The largest u with kl(p, u) <= divergence, to the last bits."""
    low, high = p, 1.0
    if p == 1:
        return 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if kl(p, middle) <= divergence else (low, middle)
    return low


def test_the_bound_is_that_of_bisection() -> None:
    tries = [(n, s) for n in (1, 2, 3, 7, 40, 1000, 10**5, 10**7) for s in {0, 1, n // 3, n // 2, n - 1, n}]
    for more in (1, 20, 10**4):
        some = [(n, s) for n, s in tries if n * n * more <= 10**14]
        p = np.array([s / n for n, s in some])
        divergence = np.array([math.log(n * more + 1) / n for n, _ in some])
        expected = [bisected(float(a), float(d)) for a, d in zip(p, divergence, strict=True)]
        assert np.abs(upper_bounds(p, divergence) - expected).max() < 1e-9


def test_known_bounds() -> None:
    """kl(0, u) = -log(1 - u); of no divergence and of p = 1 the bound is p."""
    p, divergence = np.array([0.0, 0.0, 0.3, 1.0, 1.0]), np.array([1.0, math.log(2), 0.0, 0.0, 3.0])
    assert upper_bounds(p, divergence) == pytest.approx([1 - math.exp(-1), 0.5, 0.3, 1.0, 1.0], abs=1e-12)


@pytest.mark.parametrize("actions", [(40,), (10, 106), (3, 4, 17, 60, 61, 200), tuple(range(500, 1700, 100))])
@pytest.mark.parametrize("tradeoff", [2.0, 0.7])
def test_choices_are_those_of_the_definition(actions: tuple[int, ...], tradeoff: float) -> None:
    policy, rng = make("kl_ucb", actions, tradeoff=tradeoff), np.random.default_rng(3)
    bits: dict[int, list[int]] = {a: [] for a in actions}
    price = tradeoff * actions[-1]
    for t in range(250):
        action = policy.pull()
        untried = [a for a in actions if not bits[a]]
        if untried:
            assert action == untried[-1]
            assert policy.explain().indices is None
        else:
            index = []
            for a in actions:
                n, p = len(bits[a]), sum(bits[a]) / len(bits[a])
                cost = a + price * (1 - bisected(p, math.log(t) / n))
                index.append((actions[-1] + price - cost) / (actions[-1] + price - actions[0]))
            given = policy.explain().indices
            assert given is not None
            assert given.tolist() == pytest.approx(index, abs=1e-8)
            assert index[actions.index(action)] == pytest.approx(max(index), abs=1e-8)
        bits[action].append(int(rng.random() < (0.9 if action >= actions[len(actions) // 3] else 0.2)))
        policy.update(action, Feedback(bits[action][-1]))


def test_it_costs_less_than_ucb1() -> None:
    actions = tuple(range(10, 106, 5))
    ucb1, ours = (mean_cost(name, actions, step_at(60), 300) for name in ("ucb1", "kl_ucb"))
    assert ours < 0.95 * ucb1
