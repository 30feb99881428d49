"""A hop of which only the chances are known, and what a policy costs in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from controller.policies import Context, Feedback, make

Chance = Callable[[int], float]


def step_at(enough: int, below: float = 0.1, above: float = 0.97) -> Chance:
    """Too little fails nearly always, enough hardly ever."""
    return lambda action: above if action >= enough else below


def mean_cost(name: str, actions: Sequence[int], chance: Chance, slots: int, **options: Any) -> float:
    """a + lambda (1 - chance of a) of what was played, lambda twice the largest action; mean of six seeds."""
    costs = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        policy = make(name, actions, **options)
        for _ in range(slots):
            action = policy.pull(Context(rng=rng) if policy.draws else Context())
            policy.update(action, Feedback(int(rng.random() < chance(action))))
            costs.append(action + 2.0 * actions[-1] * (1 - chance(action)))
    return float(np.mean(costs))
