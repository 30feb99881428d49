"""Dividing what a group has among its users: SLSQP where opinions are smooth, dynamic programming on the
ladder.

A group has PRBs of a cell and cycles of the edge. In every case rates of its users come out, in kbit/s.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from controller.allocators.video.frontier import RATES_KBPS
from controller.allocators.video.users import LADDER, Users, gain
from wire.definitions.compiled import kept
from wire.definitions.viewing import MAX_PREFETCH

FloatArray = NDArray[np.float64]

SLSQP_ITERATIONS: Final = 30
STEP: Final = 0.02
"""Relative, of the central differences of SLSQP."""
LEVELS: Final = 120
"""Parts of the PRBs between which dynamic programming tells."""
BISECTIONS: Final = 6
"""Of the price of cycles in dynamic programming."""


def round_robin(users: Users, prb: float, mcycles: float, kbit_mcycles: float) -> FloatArray:
    """As much time, and so as many PRBs, for everybody; cycles as well."""
    if not len(users):
        return np.empty(0)
    n = len(users)
    return np.minimum(prb / n * users.kbps_per_prb, mcycles / kbit_mcycles / n)


def slsqp(users: Users, prb: float, mcycles: float, kbit_mcycles: float) -> FloatArray:
    """The largest sum of gains by sequential least squares quadratic programming, begun at
    :func:`round_robin`.

    Users whose opinions do not depend on the bitrate are played the lowest.
    """
    start = round_robin(users, prb, mcycles, kbit_mcycles)
    if not len(users) or start.max(initial=0.0) <= 0.0:
        return start
    lowest = float(LADDER[0])
    top = float(RATES_KBPS[4.0 * lowest >= RATES_KBPS][-1])
    bitrates = np.full((len(users), 3), lowest)

    def negative(scaled: FloatArray) -> tuple[float, FloatArray]:
        rates = np.clip(scaled, 1e-3, None)[:, None] * lowest * np.array([1.0 - STEP, 1.0, 1.0 + STEP])
        value = gain(users.opinion(rates, bitrates, MAX_PREFETCH), users.ela[:, None])
        slope = (value[:, 2] - value[:, 0]) / (2.0 * STEP * np.clip(scaled, 1e-3, None))
        return -float(value[:, 1].sum()), -slope

    # Parts of the PRBs and of the cycles that a user takes.
    used = np.stack(
        (
            lowest / np.maximum(users.kbps_per_prb, 1e-9) / prb,
            np.full(len(users), lowest * kbit_mcycles / mcycles),
        )
    )
    constraints = {"type": "ineq", "fun": lambda x: 1.0 - used @ x, "jac": lambda x: -used}
    found = minimize(
        negative,
        np.minimum(start, top) / lowest,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, top / lowest)] * len(users),
        constraints=constraints,
        options={"maxiter": SLSQP_ITERATIONS, "ftol": 1e-5},
    )
    rates = np.clip(np.nan_to_num(found.x), 0.0, top / lowest) * lowest
    rates = rates / max(float((used @ (rates / lowest)).max()), 1.0)
    worse = _total(users, rates) < _total(users, np.minimum(start, top))
    return np.minimum(start, top) if worse else rates


def _total(users: Users, rates: FloatArray) -> float:
    _, expected = users.best_bitrates(rates)
    return float(gain(expected, users.ela).sum())


def knapsack(users: Users, prb: float, mcycles: float, kbit_mcycles: float) -> FloatArray:
    """The largest sum of gains over one rate of :data:`controller.allocators.video.frontier.RATES_KBPS` for
    each user.

    A multiple-choice knapsack by dynamic programming over the PRBs, in :data:`LEVELS` parts; cycles at a
    price that is found by bisection, where they are short.
    """
    if not len(users) or prb <= 0.0:
        return np.zeros(len(users))
    rates = np.broadcast_to(RATES_KBPS, (len(users), len(RATES_KBPS)))
    gains = gain(users.best_bitrates(rates)[1], users.ela[:, None])
    parts = np.ceil(rates / np.maximum(users.kbps_per_prb, 1e-9)[:, None] * (LEVELS / prb) - 1e-9)
    parts = np.minimum(parts, LEVELS + 1).astype(np.int64)
    limit = mcycles / kbit_mcycles
    best = _choose(gains, parts)
    if RATES_KBPS[best].sum() <= limit:
        return RATES_KBPS[best]
    low, high = 0.0, float(np.ptp(gains)) / float(RATES_KBPS[1])
    fitting = np.zeros(len(users), np.int64)
    for _ in range(BISECTIONS + 4):
        middle = 0.5 * (low + high)
        best = _choose(gains - middle * RATES_KBPS, parts)
        if RATES_KBPS[best].sum() > limit:
            low = middle
        else:
            high, fitting = middle, best
    return RATES_KBPS[fitting]


def _choose(values: FloatArray, parts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each user the option of a largest sum of ``values`` [users, options] within :data:`LEVELS`
    ``parts``.

    An option that takes no part is always there.
    """
    out = np.empty(len(values), np.int64)
    _knapsack(values, parts, LEVELS, out)
    return out


@kept(error_model="numpy")
def _knapsack(values: Any, parts: Any, levels: int, out: Any) -> None:
    """The options of :func:`_choose` into ``out`` [users]; the first of those that are as good."""
    users, options = values.shape
    total = np.zeros(levels + 1)
    chosen = np.empty((users, levels + 1), np.int64)
    for user in range(users):
        sums = np.full(levels + 1, -np.inf)
        for option in range(options):
            value, part = values[user, option], parts[user, option]
            # Nothing is gained by an option beside another that takes no more and is as good.
            needed = True
            for other in range(options):
                cheaper = parts[user, other] < part or (parts[user, other] == part and other < option)
                if parts[user, other] <= part and (
                    values[user, other] > value or (values[user, other] == value and cheaper)
                ):
                    needed = False
                    break
            if not needed:
                continue
            for level in range(part, levels + 1):
                new = total[level - part] + value
                if new > sums[level]:
                    sums[level] = new
                    chosen[user, level] = option
        total = sums
    at = levels
    for user in range(users - 1, -1, -1):
        out[user] = chosen[user, at]
        at -= parts[user, out[user]]
