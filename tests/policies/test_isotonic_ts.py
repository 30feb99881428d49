"""Isotonic Thompson sampling against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from controller.policies import Context, Feedback, make
from tests.policies.monotone import mean_cost, step_at
from tests.policies.test_tally import least_of_greatest_means


@pytest.mark.parametrize("actions", [(40,), (10, 106), (3, 4, 17, 60, 61, 200), tuple(range(500, 1700, 100))])
@pytest.mark.parametrize("tradeoff", [2.0, 0.7])
def test_choices_are_those_of_the_definition(actions: tuple[int, ...], tradeoff: float) -> None:
    policy, bit = make("isotonic_ts", actions, tradeoff=tradeoff), np.random.default_rng(3)
    met, missed = dict.fromkeys(actions, 0), dict.fromkeys(actions, 0)
    price = tradeoff * actions[-1]
    for slot in range(100):
        action = policy.pull(Context(rng=np.random.default_rng((8, slot))))
        rng = np.random.default_rng((8, slot))
        draws = [float(rng.beta(1 + met[a], 1 + missed[a])) for a in actions]
        chances = least_of_greatest_means(draws, [2.0 + met[a] + missed[a] for a in actions])
        costs = [a + price * (1 - p) for a, p in zip(actions, chances, strict=True)]
        assert costs[actions.index(action)] == pytest.approx(min(costs))
        indices = policy.explain().indices
        assert indices is not None
        greatest = actions[-1] + price
        assert indices.tolist() == pytest.approx([(greatest - c) / (greatest - actions[0]) for c in costs])
        q = int(bit.random() < (0.9 if action >= actions[len(actions) // 3] else 0.2))
        (met if q else missed)[action] += 1
        policy.update(action, Feedback(q))


def test_what_was_seen_at_one_action_moves_the_others() -> None:
    """Forty misses in the middle leave hardly a hope below it, where nothing was played."""
    policy = make("isotonic_ts", (10, 20, 30, 40, 50))
    for _ in range(40):
        policy.update(30, Feedback(0))
    played = [policy.pull(Context(rng=np.random.default_rng(seed))) for seed in range(200)]
    assert sum(action < 30 for action in played) < 100
    assert {40, 50} <= set(played)


def test_reasons() -> None:
    policy = make("isotonic_ts", (10, 50))
    reasons = set()
    for seed in range(60):
        action = policy.pull(Context(rng=np.random.default_rng(seed)))
        reasons.add(policy.explain().reason)
        assert (policy.explain().reason == "first visit") == (seed == 0)
        policy.update(action, Feedback(int(action == 50)))
    assert reasons == {"first visit", "explore", "exploit"}


def test_it_costs_less_than_ucb1() -> None:
    actions = tuple(range(10, 106, 5))
    ucb1, ours = (mean_cost(name, actions, step_at(60), 300) for name in ("ucb1", "isotonic_ts"))
    assert ours < 0.85 * ucb1
