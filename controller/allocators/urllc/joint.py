"""All of problem (6) but the caching at once, and a search over what is cached.

Algorithm 1 of the paper holds the rates while it offloads: as constraint (6f) is then tight, its linear
programme can only trade between devices, and how much is offloaded in all stays what it was to begin with.
Here alpha is a variable of the convex problem (:mod:`controller.allocators.urllc.barrier`), so that there is
nothing to alternate for a given caching decision; :mod:`controller.allocators.urllc.bound` shows how little
is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from controller.allocators.urllc import resources
from controller.allocators.urllc.barrier import ENERGY_3, JOINT, UE_GHZ, B, G, T, W
from controller.allocators.urllc.bound import Prices, cached_ms
from controller.allocators.urllc.instance import BoolArray, FloatArray, Instance
from controller.allocators.urllc.model import Allocation, parts
from controller.allocators.urllc.resources import Constants, allocation, cost_ms, late_ms

EVALUATIONS: Final = 40
"""Caching decisions that are tried."""
ITERATIONS: Final = 100
TOLERANCE: Final = 1e-5
NEAR: Final = 0.1
"""Of the least cost that was found, above it: decisions that are tried from a second start."""
LITTLE: Final = 0.05
"""Of a task, offloaded at the point of that."""
SILENT: Final = 1e-3
"""Of a task: with less than this a device counts as one that offloads nothing."""
ATTEMPTS: Final = 2
"""Devices in vain, until no more are tried."""

First = Callable[[Constants], FloatArray | None]
"""A point inside all constraints but for lateness, None where there is none."""


@dataclass(frozen=True, slots=True)
class Solved:
    """One caching decision with its resources.

    ``cost_ms``: the objective and lateness at its price; ``band``, ``edge`` and ``deadline`` [M]: prices, ms
    for the whole band, for a GHz and for a ms; ``history_ms``: objectives step by step, from the first point
    on that is as little late as the last, so that they never rise. ``converged``: the last step changed next
    to nothing.
    """

    constants: Constants
    point: FloatArray
    allocation: Allocation
    cost_ms: float
    band: float
    edge: float
    deadline: FloatArray
    history_ms: tuple[float, ...]
    converged: bool
    newton: int

    @property
    def rank(self) -> tuple[bool, float]:
        """What is in time is better than what is late, however little; then it is the cost that counts."""
        return self.cost_ms > self.history_ms[-1], self.cost_ms


def resources_for(
    instance: Instance,
    cached: BoolArray,
    start: FloatArray | None = None,
    *,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    equal_bandwidth: bool = False,
    kind: int = JOINT,
) -> Solved | None:
    """The resources for a caching decision; None where the devices that it leaves cannot all send.

    ``start``: a point to begin with, of the same decision. ``equal_bandwidth``: shares of the band are equal,
    and stay so. ``kind``: of the inner approximation; of the kind ``PAPER`` what the start offloads stays.
    """
    c = Constants.of(instance, cached, equal=equal_bandwidth)
    x = resources.first_point(c) if start is None else start
    if x is None:
        return None
    a = allocation(c, x)
    cost, late = cost_ms(instance, a), float(late_ms(instance, a).sum())
    history, prices, newton, converged = [parts(instance, a).total_ms], np.zeros(2 + len(x)), 0, False
    for _ in range(iterations):
        step = resources.step(c, x, kind)
        if step is None:
            break
        newton, prices = newton + step.newton, step.price
        new = allocation(c, step.point)
        before, after = cost, cost_ms(instance, new)
        if after < before:
            x, a, cost = step.point, new, after
            total, lateness = parts(instance, a).total_ms, float(late_ms(instance, a).sum())
            history = [*history, total] if lateness == late and total <= history[-1] else [total]
            late = lateness
        converged = before - after <= tolerance * (1.0 + abs(after))
        if converged:
            break
    band, edge = float(prices[0]), float(prices[1])
    return Solved(c, x, a, cost, band, edge, prices[2:], tuple(history), converged, newton)


def solve(
    instance: Instance,
    evaluations: int = EVALUATIONS,
    *,
    tolerance: float = TOLERANCE,
    equal_bandwidth: bool = False,
    kind: int = JOINT,
    begin: First | None = None,
) -> Solved | None:
    """A caching decision with its resources, as :func:`_search` has it, the nearest ones also from another
    start, and who had better not send at all.

    ``tolerance``, ``equal_bandwidth`` and ``kind``: see :func:`resources_for`. ``begin``: where the resources
    of a decision begin. None where some devices can neither send nor be cached.
    """

    def resources_of(cached: BoolArray) -> Solved | None:
        start = None
        if begin is not None:
            start = begin(Constants.of(instance, cached, equal=equal_bandwidth))
            if start is None:
                return None
        solved = resources_for(
            instance, cached, start, tolerance=tolerance, equal_bandwidth=equal_bandwidth, kind=kind
        )
        seen.extend(() if solved is None else (solved,))
        return solved

    seen: list[Solved] = []
    found = _search(instance, evaluations, resources_of)
    if found is None or equal_bandwidth or kind != JOINT or evaluations < 4:
        return found
    least = found.cost_ms + NEAR * abs(found.cost_ms)
    near = sorted((s for s in seen if s.cost_ms <= least), key=lambda s: s.rank)
    found = min((_restarted(s, tolerance) for s in near[: evaluations // 4]), key=lambda s: s.rank)
    return found if instance.transmitted == "whole" else _silenced(found, evaluations // 4, tolerance)


def _search(
    instance: Instance, evaluations: int, resources_of: Callable[[BoolArray], Solved | None]
) -> Solved | None:
    """The best of all caching decisions where these are at most ``evaluations``; of more the one that prices
    make out, and from there tasks more, less and exchanged as long as that helps."""
    forced = ~np.isfinite(resources.least_shares(instance))
    if float(instance.task_cache_kbit[forced].sum()) > instance.cache_kbit:
        return None
    tried: dict[bytes, Solved | None] = {}

    def of(cached: BoolArray) -> Solved | None:
        key = np.packbits(cached).tobytes()
        if key not in tried:
            tried[key] = resources_of(cached)
        return tried[key]

    every = decisions(instance, forced, evaluations)
    if every is not None:
        found = [solved for cached in every if (solved := of(cached)) is not None]
        return min(found, key=lambda solved: solved.rank, default=None)
    best = of(forced)
    if best is None:
        # The band is too narrow for all: cache those who need most of it.
        best = of(_filled(instance, forced, resources.least_shares(instance)))
        if best is None:
            return None
    paid = _paid_ms(best)
    saving = paid - _cached_ms(best)
    first = of(_filled(instance, forced, saving / np.maximum(instance.task_cache_kbit, 1e-9)))
    if first is not None and first.rank <= best.rank:
        best = first
    while len(tried) < evaluations:
        paid = np.where(best.constants.cached, paid, _paid_ms(best))
        better = None
        for cached in _neighbours(instance, best.constants.cached, forced, paid - _cached_ms(best)):
            if len(tried) >= evaluations:
                break
            found_ = of(cached)
            if found_ is not None and found_.rank < best.rank:
                better = found_
                break
        if better is None:
            break
        best = better
    return best


def _restarted(solved: Solved, tolerance: float) -> Solved:
    """The better of it and of what comes of a point where little is offloaded: bandwidth and what is
    offloaded rise together, so that there can be an optimum with little of both."""
    c = solved.constants
    start = resources.first_point(c, LITTLE)
    other = None if start is None else resources_for(c.instance, c.cached, start, tolerance=tolerance)
    if other is None or other.cost_ms >= solved.cost_ms - 1e-4 * abs(solved.cost_ms):
        return solved
    return other


def _silenced(solved: Solved, evaluations: int, tolerance: float) -> Solved:
    """The same with devices that offload nothing, one after the other while that lowers the cost.

    Where only what is offloaded is transmitted, a device that offloads nothing leaves its part of the band to
    the others: an optimum of its own, to which no step leads from where all send.
    """
    best, c = solved, solved.constants
    i, failures, tried = c.instance, 0, c.cached | (solved.point[:, W] < SILENT)
    alone = np.maximum(i.mcycles / c.k[:, UE_GHZ], np.sqrt(c.k[:, ENERGY_3] / i.energy_mj))
    for _ in range(evaluations):
        if tried.all() or failures == ATTEMPTS:
            break
        x, of = best.point, parts(i, best.allocation)
        paid = of.latency_ms - of.overhead_ms + best.band * x[:, B] + best.edge * x[:, G]
        m = int(np.argmax(np.where(tried, -np.inf, paid - alone)))
        tried[m] = True
        start = x.copy()
        start[m, W], start[m, T] = 0.5 * SILENT, 1.02 * alone[m]
        start[m, G] = min(x[m, G], 0.25 * SILENT * i.edge_ghz)
        found = resources_for(i, c.cached, start, tolerance=tolerance)
        if found is not None and found.cost_ms < best.cost_ms * (1.0 - TOLERANCE):
            best, failures = found, 0
        else:
            failures += 1
    return best


def decisions(instance: Instance, forced: BoolArray, most: int) -> list[BoolArray] | None:
    """Every caching decision that fits; None where there are more than ``most``."""
    rows = [forced]
    for m in np.flatnonzero(~forced):
        task = np.arange(len(forced)) == m
        rows += [row | task for row in rows if _fits(instance, row | task)]
        if len(rows) > most:
            return None
    return rows


def _fits(instance: Instance, cached: BoolArray) -> bool:
    return float(instance.task_cache_kbit[cached].sum()) <= instance.cache_kbit * (1.0 + 1e-12)


def _paid_ms(solved: Solved) -> FloatArray:
    """Latency and prices of each device that sends, ms [M]."""
    instance, x = solved.constants.instance, solved.point
    late = resources.LATE * late_ms(instance, solved.allocation)
    return (
        parts(instance, solved.allocation).latency_ms + late + solved.band * x[:, B] + solved.edge * x[:, G]
    )


def _cached_ms(solved: Solved) -> FloatArray:
    """What each device would pay at these prices with its task cached, ms [M]."""
    return cached_ms(solved.constants.instance, Prices(solved.band, max(solved.edge, 1e-12)))


def _filled(instance: Instance, forced: BoolArray, worth: FloatArray) -> BoolArray:
    """Those with the highest worth above 0 that still fit into the cache."""
    cached = forced.copy()
    room = instance.cache_kbit - float(instance.task_cache_kbit[forced].sum())
    for m in np.argsort(-worth, kind="stable"):
        if not cached[m] and worth[m] > 0.0 and instance.task_cache_kbit[m] <= room * (1.0 + 1e-12):
            cached[m] = True
            room -= float(instance.task_cache_kbit[m])
    return cached


def _neighbours(
    instance: Instance, cached: BoolArray, forced: BoolArray, saving: FloatArray
) -> list[BoolArray]:
    """Decisions with a task more, less, or with another in the place of one, by what the prices say they
    save."""
    inside, outside = np.flatnonzero(cached & ~forced).tolist(), np.flatnonzero(~cached).tolist()
    moves = [(float(saving[j]), [j]) for j in outside] + [(float(-saving[i]), [i]) for i in inside]
    moves += [(float(saving[j] - saving[i]), [i, j]) for j in outside for i in inside]
    least = -0.2 * max(float(np.abs(saving).max()), 1e-9)
    out = []
    for worth, changed in sorted(moves, key=lambda move: -move[0]):
        new = cached.copy()
        new[changed] = ~new[changed]
        if worth >= least and _fits(instance, new):
            out.append(new)
    return out
