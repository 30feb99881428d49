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

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.users import LADDER, RATIOS, Users, gain
from wire.definitions.compiled import kept

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


@kept(error_model="numpy")
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
    user = np.repeat(np.arange(len(curves)), [len(h.kbps) - 1 for h in curves])
    rates, prices = np.zeros(len(users)), np.zeros(len(prb))
    if not len(user):
        return Division(rates, prices, 0.0)
    width = np.concatenate([np.diff(h.kbps) for h in curves])
    slope = np.concatenate([np.diff(h.gain) for h in curves]) / width
    carried = np.maximum(users.kbps_per_prb, 1e-9)[user]
    limit = mcycles / kbit_mcycles
    columns = (user, slope, width, carried, users.cell[user], np.asarray(prb, np.float64))
    price = _divide(*columns, limit, rates, prices)
    return Division(rates, prices, price / kbit_mcycles)


@kept(error_model="numpy")
def _divide(
    user: Any,
    slope: Any,
    width: Any,
    carried: Any,
    cell: Any,
    prb: Any,
    limit: float,
    rates: Any,
    prices: Any,
) -> Any:
    """The optimum of segments into ``rates`` [users] and ``prices`` [cells]; the price of a kbit/s."""
    _fill(user, slope, width, carried, cell, prb, 0.0, rates, prices)
    if rates.sum() <= limit * (1.0 + 1e-9):
        return 0.0
    low, high = 0.0, slope.max()
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        _fill(user, slope, width, carried, cell, prb, middle, rates, prices)
        if rates.sum() > limit:
            low = middle
        else:
            high = middle
    more = np.zeros(len(rates))
    _fill(user, slope, width, carried, cell, prb, low, more, prices)
    _fill(user, slope, width, carried, cell, prb, high, rates, prices)
    # Between the two prices the same segments are worth the same: any mixture is an optimum.
    part = (limit - rates.sum()) / max(more.sum() - rates.sum(), 1e-12)
    rates += min(max(part, 0.0), 1.0) * (more - rates)
    return high


@kept(error_model="numpy")
def _fill(
    user: Any,
    slope: Any,
    width: Any,
    carried: Any,
    cell: Any,
    prb: Any,
    price: float,
    rates: Any,
    prices: Any,
) -> None:
    """Rates and prices of PRBs at a price of a kbit/s: each cell has the segments that gain most."""
    rates[:] = 0.0
    prices[:] = 0.0
    left = prb.copy()
    net = (slope - price) * carried
    for s in np.argsort(-net, kind="mergesort"):
        if not net[s] > 0.0:
            break
        c = cell[s]
        needed = width[s] / carried[s]
        if needed <= left[c]:
            left[c] -= needed
            rates[user[s]] += width[s]
        elif prices[c] == 0.0:
            rates[user[s]] += left[c] * carried[s]
            left[c] = 0.0
            prices[c] = net[s]
