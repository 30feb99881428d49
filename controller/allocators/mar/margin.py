"""How far a promise may be trusted: equation (12) with a right-hand side that is learned instead of assumed.

Equation (12) takes frames as independent and the probabilities of hits as right. Frames are neither: half a
second hits or misses together, and a user may do better or worse in the next seconds than its twin thinks.
How much that takes is seen on frames that are known. With m the mean of the probabilities, the deviate

    d = (m - rho) / sqrt(m (1 - m))

is what equation (12) compares, but for the factor sqrt(frames). Whether the promise was kept is regressed on
it (logistic regression, Platt scaling) over windows of users that the twin was not trained on. What is
believed is a little less than the estimate, by :data:`STANDARD_ERRORS` of it: where little is known, little
is promised. But a user of whom more is expected is promised no less: the standard error of an estimate far
from all windows is large, most of all where every promise was kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wire.definitions.poses import FloatArray

STANDARD_ERRORS = 0.5
LEAST_WINDOWS = 8
"""Users times windows; from fewer nothing is learned."""
_LEAST_SHARE = 0.005
"""Of m and 1 - m: a twin that is sure is not believed to be."""
_RIDGE = 0.1
_STEPS = 30


def deviate(expected: ArrayLike, rho: float) -> FloatArray:
    """d of means of probabilities, float64 of the same shape."""
    m = np.clip(np.asarray(expected, np.float64), _LEAST_SHARE, 1.0 - _LEAST_SHARE)
    return np.asarray((m - rho) / np.sqrt(m * (1.0 - m)))


@dataclass(frozen=True, slots=True)
class Margin:
    """ln(P / (1 - P)) = ``weights`` [2] times (1, d); ``covariance`` [2, 2] of the weights; ``windows``:
    how many users times windows it was learned from."""

    weights: FloatArray
    covariance: FloatArray
    windows: int

    @classmethod
    def learn(cls, deviates: FloatArray, kept: FloatArray) -> Margin | None:
        """From deviates [n, F] of n windows of a user at F frequencies, and whether the promise was kept:
        1, 0, or NaN where that is not known. Those of one window count as one: they hit and miss together.

        None where there are too few.
        """
        known = np.isfinite(kept) & np.isfinite(deviates)
        windows = int(known.any(axis=1).sum())
        if windows < LEAST_WINDOWS:
            return None
        x = np.stack([np.ones(known.sum()), deviates[known]], axis=1)
        y, weight = kept[known], windows / known.sum()
        weights, information = _fit(x, y, weight, [0, 1])
        if weights[1] < 0.0:  # by chance: more hits keep a promise sooner
            weights, information = _fit(x, y, weight, [0])
        return cls(weights, np.asarray(np.linalg.inv(information), np.float64), windows)

    def reliability(self, expected: FloatArray, rho: float) -> FloatArray:
        """P(share of frames that hit >= rho), float64 [...], for means of probabilities [...]; NaN for NaN.

        It never falls as these rise. A share of at least 0 is certain.
        """
        d = np.minimum(deviate(expected, rho), self._turn())
        x = np.stack([np.ones_like(d), d], axis=-1)
        error = np.sqrt(np.einsum("...i,ij,...j->...", x, self.covariance, x))
        believed = _logistic(x @ self.weights - STANDARD_ERRORS * error)
        return np.where(np.isfinite(d) & (rho <= 0.0), 1.0, believed)

    def _turn(self) -> float:
        """Up to which deviate the estimate rises faster than its standard errors do; infinite for all."""
        (a, b), (_, c) = self.covariance
        slope = self.weights[1]
        spare = STANDARD_ERRORS**2 * c - slope**2
        return float((slope * np.sqrt(max(a * c - b * b, 0.0) / spare) - b) / c) if spare > 0.0 else np.inf

    def to_state(self) -> dict[str, Any]:
        return {
            "weights": self.weights.tolist(),
            "covariance": self.covariance.tolist(),
            "windows": self.windows,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Margin:
        """ValueError, KeyError, TypeError for a state that is none."""
        weights, covariance = (np.array(state[name], np.float64) for name in ("weights", "covariance"))
        if weights.shape != (2,) or covariance.shape != (2, 2):
            raise ValueError("no margin")
        if not (np.isfinite(weights).all() and np.isfinite(covariance).all()):
            raise ValueError("a margin that is not finite")
        if weights[1] < 0.0 or not (np.linalg.eigvalsh(covariance) > 0.0).all():
            raise ValueError("a margin that falls, or without a covariance")
        return cls(weights, covariance, int(state["windows"]))


def _fit(x: FloatArray, y: FloatArray, weight: float, free: list[int]) -> tuple[FloatArray, FloatArray]:
    """Newton's method: weights [2], of which those ``free`` differ from 0, and their information [2, 2]; each
    row counts as ``weight``."""
    weights, ridge = np.zeros(2), _RIDGE * np.eye(2)
    information = ridge
    for _ in range(_STEPS):
        p = _logistic(x @ weights)
        information = weight * (x * (p * (1.0 - p))[:, None]).T @ x + ridge
        gradient = weight * x.T @ (y - p) - ridge @ weights
        step = np.linalg.solve(information[np.ix_(free, free)], gradient[free])
        weights[free] += np.clip(step, -5.0, 5.0)
    return weights, information


def _logistic(z: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -500.0, 500.0))))
