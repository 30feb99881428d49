"""Algorithm 1: the least bandwidth of each user that keeps its promise, and what a cell can give of it.

The paper raises b in steps of delta until equation (12) holds. The promise depends on b through the upload
frequency alone, of which there are few, and the least b of each is known in closed form (:mod:`radio`):
the least b among those frequencies that keep it is the answer at once, to within delta the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from controller.allocators.mar.promise import kept
from wire.definitions.poses import FloatArray, IntArray

BoolArray = NDArray[np.bool_]
Rule = Literal["best", "lowest", "highest"]

AS_GOOD = 0.03
"""Of the frames, one a second: an expected share of hits that is so much below the best is as good."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A frequency for each user, by its place among the frequencies: int64 [U]; ``promised``: bool [U],
    whether it keeps the promise."""

    choice: IntArray
    promised: BoolArray


def least_bandwidth(
    reliability: FloatArray,
    expected: FloatArray,
    bandwidth_hz: FloatArray,
    epsilon: float,
    rule: Rule = "best",
) -> Plan:
    """For each user the frequency of the least bandwidth that keeps the promise.

    Args:
        reliability: P of the promise, [U, F]; NaN where it is not known, which keeps none.
        expected: share of the frames that will hit, [U, F]; NaN where it is not known.
        bandwidth_hz: the least bandwidth of each frequency, [U, F]; infinite for one that cannot be had.
        epsilon: the least reliability.
        rule: what a user gets whom no frequency keeps the promise with: the ``lowest`` frequency, the
            ``highest``, or the ``best``, the one of least bandwidth whose expected share of hits is within
            :data:`AS_GOOD` of the highest.
    """
    possible = np.isfinite(bandwidth_hz)
    known = np.where(np.isfinite(reliability) & possible, reliability, -1.0)
    keeps: BoolArray = np.logical_and(known >= 0.0, kept(np.maximum(known, 0.0), epsilon))
    cost = np.where(possible, bandwidth_hz, np.inf)
    promised: BoolArray = np.asarray(keeps.any(axis=1))
    least = np.where(keeps, cost, np.inf).argmin(axis=1)
    if rule == "lowest":
        other = np.zeros(len(known), np.int64)
    elif rule == "highest":
        # The last that can be had.
        other = known.shape[1] - 1 - possible[:, ::-1].argmax(axis=1)
    else:
        share = np.where(np.isfinite(expected) & possible, expected, -1.0)
        good = possible & (share >= share.max(axis=1, keepdims=True) - AS_GOOD)
        other = np.where(good, cost, np.inf).argmin(axis=1)
    return Plan(np.where(promised, least, other), promised)


@dataclass(frozen=True, slots=True)
class Allotment:
    """What a limit leaves of a plan: ``choice`` [U]; ``kept``: bool [U], promises that still hold;
    ``short_hz``: what each user has less than in the plan, [U]; ``total_hz`` in all. ``fits``: whether the
    lowest frequencies of all users fit."""

    choice: IntArray
    kept: BoolArray
    short_hz: FloatArray
    total_hz: float
    fits: bool


def within(plan: Plan, bandwidth_hz: FloatArray, limit_hz: float) -> Allotment:
    """Fits a plan into a limit: as many promises as can be kept, then the rest.

    Everybody has at least its lowest frequency, where even these do not fit too: who has less is slow, who
    has nothing does not see. The cheapest promises come first, which keeps the greatest number. What is left
    goes to the users without, again the cheapest first.

    ``bandwidth_hz`` [U, F] rises with F. Users of equal cost keep their order.
    """
    users = np.arange(len(plan.choice))
    lowest = np.zeros(len(users), np.int64)
    wanted = bandwidth_hz[users, plan.choice]
    least = bandwidth_hz[:, 0] if bandwidth_hz.shape[1] else wanted
    if float(wanted.sum()) <= limit_hz * (1.0 + 1e-12):
        zero = np.zeros(len(users))
        return Allotment(plan.choice.copy(), plan.promised.copy(), zero, float(wanted.sum()), True)
    choice, left = lowest, limit_hz - float(least.sum())
    fits = left >= 0.0
    holds = plan.promised & (plan.choice == 0) & fits
    extra = wanted - least
    order = sorted(users.tolist(), key=lambda u: float(extra[u]))
    for u in order:
        if plan.promised[u] and extra[u] <= left:
            choice[u], holds[u] = plan.choice[u], fits
            left -= float(extra[u])
    for u in order:
        if not holds[u]:
            more = bandwidth_hz[u, : plan.choice[u] + 1] - least[u]
            choice[u] = max(int(np.searchsorted(more, left, "right")) - 1, 0)
            left -= float(more[choice[u]])
    given = bandwidth_hz[users, choice]
    return Allotment(choice, holds, np.maximum(wanted - given, 0.0), float(given.sum()), fits)
