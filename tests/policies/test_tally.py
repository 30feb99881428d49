"""What the policies that count bits do with odd counts, and isotonic regression against its definition."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from controller.policies import Context, Feedback, make, restore
from controller.policies.isotonic import isotonic

NAMES = ("kl_ucb", "isotonic_ts", "monotone_threshold")
every = pytest.mark.parametrize("name", NAMES)


@every
@pytest.mark.parametrize("q", [0, 1])
@pytest.mark.parametrize("actions", [(40,), (3, 4, 17, 60, 61, 200)], ids=len)
def test_bits_that_never_change_lead_to_an_end(name: str, q: int, actions: tuple[int, ...]) -> None:
    policy, rng = make(name, actions), np.random.default_rng(2)
    played = []
    for _ in range(600):
        played.append(policy.pull(Context(rng=rng)))
        policy.update(played[-1], Feedback(q))
    end = actions[0] if q or name != "monotone_threshold" else actions[-1]
    assert sum(abs(action - end) <= 0.1 * actions[-1] for action in played[-200:]) > 150


@every
@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"counts": [1, 2]}, "counts has 2 entries"),
        ({"actions": [10, 20]}, "counts has 3 entries"),
        ({"counts": [1, -2, 0]}, "counts"),
        ({"counts": [1.5, 2, 0]}, "counts"),
        ({"counts": [True, 2, 0]}, "counts"),
        ({"counts": "123"}, "counts"),
        ({"met": [0, None, 0]}, "met"),
        ({"met": [0, float("nan"), 0]}, "met"),
        ({"met": [9, 9, 9]}, "above counts"),
    ],
)
def test_a_broken_state_is_refused_by_name(name: str, broken: dict[str, Any], named: str) -> None:
    policy = make(name, (10, 20, 30))
    for action in (10, 20, 20, 30):
        policy.update(action, Feedback(1))
    with pytest.raises(ValueError, match=f"{name}.*{named}"):
        restore({**policy.to_state(), **broken})


@every
def test_counts_with_holes_are_learned_on_from(name: str) -> None:
    state = {**make(name, (10, 20, 30, 40)).to_state(), "counts": [0, 5, 0, 2], "met": [0, 1, 0, 2]}
    policy = restore(json.loads(json.dumps(state)))
    rng = np.random.default_rng(4)
    for _ in range(40):
        action = policy.pull(Context(rng=rng))
        policy.update(action, Feedback(int(action >= 30)))
    learned = policy.to_state()
    assert sum(learned["counts"]) == 47 and learned["counts"][3] >= 2
    assert learned["met"][0] == 0 and learned["met"][1] == 1


@pytest.mark.parametrize("name", ["kl_ucb", "isotonic_ts"])
@pytest.mark.parametrize("tradeoff", [0, float("nan"), "2", True])
def test_impossible_tradeoffs_are_refused(name: str, tradeoff: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}: option tradeoff {tradeoff!r}"):
        make(name, (10, 20), tradeoff=tradeoff)


def least_of_greatest_means(values: list[float], weights: list[float]) -> list[float]:
    """The min-max formula of isotonic regression."""

    def mean(i: int, j: int) -> float:
        weight = weights[i : j + 1]
        return sum(v * w for v, w in zip(values[i : j + 1], weight, strict=True)) / sum(weight)

    n = len(values)
    return [max(min(mean(i, j) for j in range(k, n)) for i in range(k + 1)) for k in range(n)]


def test_isotonic_regression_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(5)
    for n in range(1, 13):
        for _ in range(10):
            values = rng.choice([0.0, 0.25, 0.5, 1.0, float(rng.random())], n).tolist()
            weights = rng.integers(1, 50, n).astype(float).tolist()
            assert isotonic(values, weights) == pytest.approx(least_of_greatest_means(values, weights))
    assert isotonic([], []) == []
    assert isotonic([3.0, 1.0, 2.0], [1.0, 3.0, 1.0]) == [1.5, 1.5, 2.0]
