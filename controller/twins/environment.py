"""Monte Carlo of what surrounds a user: futures of a scalar that is observed at steps of equal length, such
as its speed or its SINR.

A nearest-neighbour bootstrap (Lall and Sharma 1996): the next value is what once followed a value near the
present one, of the user itself or of any. So it stays within what has been seen, follows whatever law there
is, and changes of regime too. On the emulated users' speeds a first-order autoregressive process on a logit
scale is the worse of both by its continuous ranked probability score; on their SINR they are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

OWN_WEIGHT: Final = 240.0


@dataclass(frozen=True, slots=True)
class NeighbourBootstrap:
    """Pairs of values that followed one another: ``before`` and ``after`` [n].

    User ``u`` has the pairs from ``first[u]`` up to ``first[u + 1]`` of the first half, ascending in
    ``before``; the second half is all of them once more, ascending over all users. ``own`` [users] is the
    probability of a draw from a user's own pairs.
    """

    before: FloatArray
    after: FloatArray
    first: IntArray
    own: FloatArray

    @property
    def users(self) -> int:
        return len(self.own)

    @classmethod
    def fit(cls, series: FloatArray, weight: float = OWN_WEIGHT) -> NeighbourBootstrap:
        """From ``series`` [users, steps], NaN where nothing was seen; no pair is made over a gap.

        A user of n pairs has futures of its own with probability n / (n + ``weight``) in each step, else
        those of all. ValueError where there is no pair, for a value that is infinite, and for a weight below
        0.
        """
        series = np.asarray(series, np.float64)
        if series.ndim != 2 or np.isinf(series).any():
            raise ValueError(f"series {series.shape} that are not [users, steps], or not finite")
        if not weight >= 0.0:
            raise ValueError(f"weight {weight} of all users' pairs is below 0")
        seen = ~np.isnan(series[:, :-1] + series[:, 1:])
        before, after = series[:, :-1][seen], series[:, 1:][seen]
        if not len(before):
            raise ValueError(f"series {series.shape} in which no value follows another")
        user = np.nonzero(seen)[0]
        count = np.bincount(user, minlength=len(series))
        order = np.concatenate((np.lexsort((before, user)), np.argsort(before, kind="stable")))
        first = np.concatenate(([0], np.cumsum(count)))
        own = np.where(count > 0, count / np.maximum(count + weight, 1.0), 0.0)
        return cls(before[order], after[order], first, own)

    def simulate(
        self,
        rng: np.random.Generator,
        last: FloatArray,
        steps: int,
        futures: int,
        users: IntArray | None = None,
    ) -> FloatArray:
        """Futures after the ``last`` values [n] of ``users`` [n] (all by default), float64 [n, futures,
        steps].

        -1 is a user who was not there for the fit; a ``last`` of NaN one of whom nothing is known.
        """
        who = np.arange(self.users) if users is None else np.asarray(users, np.int64)
        if np.shape(last) != who.shape or (who < -1).any() or (who >= self.users).any():
            raise ValueError(
                f"{np.shape(last)} last values of {who.shape} users, of whom {self.users} are known"
            )
        value = np.repeat(np.asarray(last, np.float64), futures)
        who = np.repeat(who, futures)
        half = len(self.before) // 2
        own = np.where(who >= 0, self.own[who], 0.0)
        uniform = rng.random((steps, 2, len(value)))
        out = np.empty((len(value), steps))
        for step in range(steps):
            from_own = uniform[step, 0] < own
            begin = np.where(from_own, self.first[who], half)
            end = np.where(from_own, self.first[who + 1], 2 * half)
            out[:, step] = value = self.after[self._neighbour(value, begin, end, uniform[step, 1])]
        return out.reshape(-1, futures, steps)

    def _neighbour(self, value: FloatArray, begin: IntArray, end: IntArray, uniform: FloatArray) -> IntArray:
        """Index of a pair between ``begin`` and ``end``, drawn from the 2 sqrt(n) whose ``before`` is about
        ``value``."""
        count = end - begin
        near = np.minimum(count, np.ceil(2.0 * np.sqrt(count)).astype(np.int64))
        near = np.where(np.isnan(value), count, near)
        low, high = begin.copy(), end.copy()
        # Bisection of all rows at once, each within its own pairs.
        for _ in range(int(count.max(initial=0)).bit_length()):
            middle = (low + high) // 2
            right = (low < high) & (self.before[np.minimum(middle, len(self.before) - 1)] < value)
            low = np.where(right, middle + 1, low)
            high = np.where(right, high, middle)
        start = np.clip(low - near // 2, begin, end - near)
        return np.asarray(start + (uniform * near).astype(np.int64))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, values as float32; :meth:`of_arrays` is the inverse."""
        values = {name: np.asarray(getattr(self, name), np.float32) for name in ("before", "after", "own")}
        return {**values, "first": self.first}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> NeighbourBootstrap:
        """ValueError, KeyError for arrays that are none."""
        before, after, own = (arrays[name].astype(np.float64) for name in ("before", "after", "own"))
        first = arrays["first"].astype(np.int64)
        fits = before.ndim == own.ndim == first.ndim == 1 and before.shape == after.shape
        if (
            not fits
            or not len(before)
            or len(first) != len(own) + 1
            or first[0]
            or 2 * first[-1] != len(before)
        ):
            raise ValueError("pairs of a neighbour bootstrap that do not fit one another")
        if (np.diff(first) < 0).any() or not np.isfinite(before + after).all():
            raise ValueError(
                "pairs of a neighbour bootstrap that are not finite, or of users who are not in order"
            )
        if not ((own >= 0.0) & (own <= 1.0)).all() or (own[np.diff(first) == 0] > 0.0).any():
            raise ValueError("a neighbour bootstrap that draws from pairs which a user has not")
        return cls(before, after, first, own)


def crps(futures: FloatArray, observed: FloatArray) -> FloatArray:
    """Continuous ranked probability score [...] of ``futures`` [..., m] against what was ``observed`` [...],
    in its unit: mean |X - y| - mean |X - X'| / 2 (Gneiting and Raftery 2007, equation 21); 0 is perfect."""
    ranked = np.sort(futures, axis=-1)
    m = futures.shape[-1]
    spread = (ranked * (2.0 * np.arange(1, m + 1) - m - 1.0)).sum(axis=-1) / m**2
    return np.asarray(np.abs(futures - observed[..., None]).mean(axis=-1) - spread)
