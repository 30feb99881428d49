"""Algorithm 1: caching, offloading and resources in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from controller.allocators.urllc import caching, offloading, resources
from controller.allocators.urllc.barrier import PAPER
from controller.allocators.urllc.instance import FloatArray, Instance
from controller.allocators.urllc.model import Allocation
from controller.allocators.urllc.resources import Constants, value_ms

TOLERANCE: Final = 1e-3
MAX_ITERATIONS: Final = 20
OFFLOADED: Final = 0.7
"""Of each task, to begin with."""

Sp3 = Callable[[Constants, FloatArray], FloatArray | None]
"""A point of the constants' problem (15), from the point of the approximation."""
Sp2 = Callable[[Instance, Allocation], FloatArray]


@dataclass(frozen=True, slots=True)
class Run:
    """``history_ms``: objectives from the start on; where that was feasible they never rise. ``converged``:
    by the rule of the paper, in at most 20 iterations."""

    allocation: Allocation
    history_ms: tuple[float, ...]
    iterations: int
    converged: bool


def fast(c: Constants, x: FloatArray) -> FloatArray | None:
    """SP3 by the compiled barrier method."""
    found = resources.step(c, x, PAPER)
    return None if found is None else found.point


def solve(
    instance: Instance,
    start: Allocation,
    *,
    sp2: Sp2 = offloading.offload,
    sp3: Sp3 = fast,
    tolerance: float = TOLERANCE,
    iterations: int = MAX_ITERATIONS,
) -> Run:
    """From a feasible ``start`` until the objective falls by less than ``tolerance`` of itself.

    A subproblem's answer that does not lower the objective, or breaks a deadline that was kept, is left.
    """
    best = start
    cost, total = value_ms(instance, start)
    history = [total]
    done, converged = 0, False
    while done < iterations and not converged:
        before = cost
        for subproblem in (
            lambda a: caching.cache(instance, a),
            lambda a: _offloading(instance, a, sp2),
            lambda a: _resources(instance, a, sp3),
        ):
            new = subproblem(best)
            if new is None or new is best:
                continue
            value, of = value_ms(instance, new)
            if value <= cost:
                best, cost, total = new, value, of
        done += 1
        history.append(total)
        converged = before - cost <= tolerance * abs(cost)
    return Run(best, tuple(history), done, converged)


def first_allocation(instance: Instance, offloaded: float = OFFLOADED) -> Allocation | None:
    """Where Algorithm 1 begins: nothing cached but what cannot send, shares equal; None where there is no
    such point. It may be late."""
    c = Constants.of(instance, ~np.isfinite(resources.least_shares(instance)))
    x = resources.first_point(c, offloaded, exact=False)
    return None if x is None else resources.allocation(c, x)


def _with_rates(instance: Instance, a: Allocation) -> Allocation:
    """Also rates at which a device would process what it does not at present."""
    energy = np.sqrt(instance.energy_mj / (instance.mj_per_mcycle * instance.mcycles))
    idle = np.minimum(instance.ue_ghz, energy / (1.0 - instance.ue_deviation))
    rate = instance.edge_ghz / len(instance)
    return a.with_(
        ue_ghz=np.where(~a.cached & (a.ue_ghz <= 0.0), idle, a.ue_ghz),
        edge_ghz=np.where(a.edge_ghz <= 0.0, rate, a.edge_ghz),
    )


def _offloading(instance: Instance, a: Allocation, sp2: Sp2) -> Allocation:
    b = _with_rates(instance, a)
    alpha = sp2(instance, b)
    return b.with_(
        local_share=alpha,
        ue_ghz=np.where(alpha > 0.0, b.ue_ghz, 0.0),
        edge_ghz=np.where(alpha < 1.0, b.edge_ghz, 0.0),
    )


def _resources(instance: Instance, a: Allocation, sp3: Sp3) -> Allocation | None:
    c = Constants.of(instance, a.cached)
    found = sp3(c, resources.point(instance, a))
    return None if found is None else resources.allocation(c, found)
