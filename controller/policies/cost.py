"""What an action costs and how a QoS bit weighs against it (MUCB1 paper, eq. 10)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray


def tradeoff_of(policy: str, value: Any) -> float:
    """The option ``tradeoff`` of a policy. ValueError where it is not a positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"policy {policy}: option tradeoff {value!r} is not a number")
    if not (isfinite(value) and value > 0):
        raise ValueError(f"policy {policy}: option tradeoff {value!r} is not positive")
    return float(value)


def rewards(actions: Sequence[int], tradeoff: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The reward of each action where QoS is missed and where it is met, float64 [n_actions] each.

    An action a costs c(a, q) = a + lambda (1 - q) with lambda = ``tradeoff`` x the largest action. The
    reward is (c_max - c) / (c_max - c_min) in 0..1, c_max = the largest action + lambda, c_min = the smallest
    action.
    """
    a = np.array(actions, np.float64)
    price = tradeoff * a[-1]
    worst = a[-1] + price
    span = worst - a[0]
    return (worst - (a + price)) / span, (worst - a) / span
