"""How far a promise may be trusted: equation (12) with a spread that is learned instead of assumed.

Equation (12) takes frames as independent and the probabilities of hits as right. Frames are neither: half a
second hits or misses together, and a user may do better or worse in the next seconds than its twin thinks.
The share of frames that hit then departs from the mean of the probabilities, m, by more than
sqrt(m (1 - m) / frames). By how much is seen on frames that are known: the residual

    r = (share of frames that hit - m) / sqrt(m (1 - m))

of users that the twin was not trained on. Its mean and spread are learned window by window, and of the
windows the least favourable one is believed: time brings what a common mean does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import erfc, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.definitions.poses import FloatArray

BoolArray = NDArray[np.bool_]

LEAST_RESIDUALS = 8
"""Users times windows; from fewer nothing is learned."""
_LEAST_SHARE = 0.005
"""Of m and 1 - m: a twin that is sure is not believed to be."""


@dataclass(frozen=True, slots=True)
class Margin:
    """``mean`` and ``spread`` of the residuals by window, float64 [windows]; ``count``: of users times windows."""

    mean: FloatArray
    spread: FloatArray
    count: int

    @classmethod
    def learn(cls, expected: FloatArray, share: FloatArray, frames: int) -> Margin | None:
        """From windows [W], users [U] and frequencies [F] of which it is known what came.

        ``expected`` [W, U, F]: means of the probabilities of hits; ``share`` [W, U, F]: shares of the frames
        that hit, NaN where there were none. ``frames``: how many a window has. None where there are too few.
        """
        residual = (share - expected) / _deviation(expected)
        known = np.isfinite(residual)
        kept = known.any(axis=(1, 2))
        residual = residual[kept]
        count = int(np.isfinite(residual).any(axis=2).sum())
        if count < LEAST_RESIDUALS:
            return None
        # A spread is itself uncertain, and never less than that of independent frames.
        inflation = sqrt((count + 1) / (count - 3))
        spread = np.maximum(np.nanstd(residual, axis=(1, 2)), 1.0 / sqrt(frames)) * inflation
        return cls(np.nanmean(residual, axis=(1, 2)), spread, count)

    def reliability(self, expected: FloatArray, rho: float) -> FloatArray:
        """P(share of frames that hit >= rho), float64 [...], for means of probabilities [...]."""
        deviate = (expected - rho) / _deviation(expected)
        z = (deviate[..., None] + self.mean) / self.spread
        return _normal(z.min(axis=-1))

    def to_state(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "spread": self.spread.tolist(), "count": self.count}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Margin:
        """ValueError, KeyError, TypeError for a state that is none."""
        mean, spread = (np.array(state[name], np.float64) for name in ("mean", "spread"))
        if mean.shape != spread.shape or not mean.size or not (np.isfinite(mean) & (spread > 0)).all():
            raise ValueError("no margin")
        return cls(mean, spread, int(state["count"]))


def _deviation(expected: FloatArray) -> FloatArray:
    m = np.clip(expected, _LEAST_SHARE, 1.0 - _LEAST_SHARE)
    return np.sqrt(m * (1.0 - m))


def _normal(z: FloatArray) -> FloatArray:
    """P(Z <= z) of a standard normal Z."""
    flat = [0.5 * erfc(-value / sqrt(2.0)) for value in np.asarray(z).ravel().tolist()]
    return np.array(flat, np.float64).reshape(np.shape(z))
