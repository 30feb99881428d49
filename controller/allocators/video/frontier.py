"""What a rate is worth to each user: the concave hull of its gains, and the convex problem of dividing on it.

With f_i concave in the rate r_i of user i, PRBs P_c of each cell and F cycles/s of the edge,

    max sum_i f_i(r_i)   s.t.   sum_{i in c} r_i / e_i <= P_c,   k sum_i r_i <= F,

e_i what a PRB carries and k the cycles of a kbit. It is solved by its price of cycles: at a given one each
cell is filled with the segments of hulls that gain most for a PRB, which is exact, and the price is found by
bisection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.users import LADDER, RATIOS, Users, gain

FloatArray = NDArray[np.float64]

BISECTIONS: Final = 40
RATES_KBPS: Final = np.unique(np.concatenate(([0.0], np.outer(LADDER, RATIOS).ravel())))
"""Rates of which hulls are made: every bitrate at every ratio."""


@dataclass(frozen=True, slots=True)
class Hull:
    """Corners of a user's concave hull: ``kbps`` and ``gain`` [corners], both ascending."""

    kbps: FloatArray
    gain: FloatArray

    @classmethod
    def of(cls, kbps: FloatArray, gains: FloatArray) -> Hull:
        """The hull of points in the order of their rates; what gains nothing more is left out."""
        corners = np.empty(len(kbps), np.int64)
        corners = corners[: _corners(kbps, gains, corners)]
        return cls(kbps[corners], gains[corners])


@numba.njit(cache=True, error_model="numpy")
def _corners(kbps: Any, gains: Any, corners: Any) -> Any:
    """Puts the places of the corners into ``corners``; how many."""
    count = 1
    corners[0] = 0
    for i in range(1, len(kbps)):
        if gains[i] <= gains[corners[count - 1]] + 1e-9:
            continue
        while count > 1:
            a, b = corners[count - 2], corners[count - 1]
            if (gains[b] - gains[a]) * (kbps[i] - kbps[a]) > (gains[i] - gains[a]) * (kbps[b] - kbps[a]):
                break
            count -= 1
        corners[count] = i
        count += 1
    return count


def hulls(users: Users, rates_kbps: FloatArray = RATES_KBPS) -> list[Hull]:
    """Of every user, by its own model at the bitrate that is best for each rate."""
    rates = np.broadcast_to(rates_kbps, (len(users), len(rates_kbps)))
    _, expected = users.best_bitrates(rates)
    gains = np.maximum.accumulate(gain(expected, users.ela[:, None]), axis=1)
    return [Hull.of(rates_kbps, row) for row in gains]


@dataclass(frozen=True, slots=True)
class Division:
    """Rates in kbit/s [users], and what a further PRB of each cell, [cells], and a further Mcycle/s would
    gain."""

    kbps: FloatArray
    prb_price: FloatArray
    cycle_price: float


def divide(
    users: Users, curves: list[Hull], prb: FloatArray, mcycles: float, cycles_per_bit: float
) -> Division:
    """The optimum for ``prb`` [cells] and ``mcycles`` in 10^6 cycles/s."""
    kbit_mcycles = cycles_per_bit / 1e3
    segments = [
        (i, float(d_gain / d_rate), float(d_rate))
        for i, h in enumerate(curves)
        for d_rate, d_gain in zip(np.diff(h.kbps), np.diff(h.gain), strict=True)
    ]
    if not segments:
        return Division(np.zeros(len(users)), np.zeros(len(prb)), 0.0)
    user = np.array([s[0] for s in segments])
    slope = np.array([s[1] for s in segments])
    width = np.array([s[2] for s in segments])
    carried = np.maximum(users.kbps_per_prb, 1e-9)[user]
    cell = users.cell[user]

    def fill(price: float) -> tuple[FloatArray, FloatArray]:
        """Rates and prices of PRBs at a price of a kbit/s."""
        net = (slope - price) * carried
        out, prices = np.zeros(len(user)), np.zeros(len(prb))
        for c in range(len(prb)):
            here = np.flatnonzero((cell == c) & (net > 0.0))
            here = here[np.argsort(-net[here], kind="stable")]
            used = np.cumsum(width[here] / carried[here])
            before = np.concatenate(([0.0], used[:-1]))
            part = np.clip((prb[c] - before) * carried[here] / width[here], 0.0, 1.0)
            out[here] = part * width[here]
            if len(here) and used[-1] > prb[c]:
                prices[c] = net[here][int(np.argmax(part < 1.0))]
        return np.bincount(user, out, len(users)).astype(np.float64), prices

    rates, prices = fill(0.0)
    limit = mcycles / kbit_mcycles
    if rates.sum() <= limit * (1.0 + 1e-9):
        return Division(rates, prices, 0.0)
    low, high = 0.0, float(slope.max())
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if fill(middle)[0].sum() > limit:
            low = middle
        else:
            high = middle
    more, less = fill(low)[0], fill(high)[0]
    # Between the two prices the same segments are worth the same: any mixture is an optimum.
    part = (limit - less.sum()) / max(more.sum() - less.sum(), 1e-12)
    rates = less + np.clip(part, 0.0, 1.0) * (more - less)
    return Division(rates, fill(high)[1], high / kbit_mcycles)
