"""What problem (6) comes to where a decision is taken beforehand and everything else is optimised.

A baseline is an allocation of problem (6), so that the checker and the model judge it as any other, but for
:func:`local_processing`, whose devices send nothing: as printed, equation (2) has a device send its whole
task even where it offloads none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from controller.allocators.urllc import joint, resources
from controller.allocators.urllc.barrier import LEAST_W, PAPER, W
from controller.allocators.urllc.instance import BoolArray, FloatArray, Instance
from controller.allocators.urllc.model import Allocation
from controller.allocators.urllc.resources import Constants


def no_caching(instance: Instance) -> Allocation | None:
    """Nothing is cached, None where some device cannot send."""
    solved = joint.solve(instance.with_(cache_kbit=0.0))
    return None if solved is None else solved.allocation


def all_local(instance: Instance) -> Allocation | None:
    """alpha = 1, to a millionth, of all that is not cached; None where some device can neither send nor be
    cached."""
    return _offloading(instance, LEAST_W)


def all_offloaded(instance: Instance) -> Allocation | None:
    """alpha = 0, to a millionth; None where no caching decision that was tried leaves the others the energy
    for it."""
    return _offloading(instance, 1.0 - LEAST_W)


def equal_bandwidth(instance: Instance) -> Allocation | None:
    """The band divided equally between those who send; None where that is too little for some of them."""
    solved = joint.solve(instance, equal_bandwidth=True)
    return None if solved is None else solved.allocation


BASELINES: Final[Mapping[str, Callable[[Instance], Allocation | None]]] = {
    "no caching": no_caching,
    "all local": all_local,
    "all offloaded": all_offloaded,
    "equal bandwidth": equal_bandwidth,
}


def local_processing(instance: Instance) -> tuple[BoolArray, FloatArray]:
    """Who is cached and each device's latency, ms [M], where the others process all of their tasks and send
    nothing.

    The highest rate that the energy allows is sqrt(2 E / (theta C)). Cached are the slowest, as many as fit
    and lower the total.
    """
    i = instance
    rate = np.minimum(i.ue_ghz * (1.0 - i.ue_deviation), np.sqrt(i.energy_mj / (i.mj_per_mcycle * i.mcycles)))
    alone = i.mcycles / rate + i.uncached_overhead_ms
    work = i.mcycles / (1.0 - i.edge_deviation)
    cached, room = np.zeros(len(i), np.bool_), i.cache_kbit
    best, latency = cached, alone
    for m in np.argsort(-alone, kind="stable"):
        if i.task_cache_kbit[m] > room * (1.0 + 1e-12):
            continue
        room -= float(i.task_cache_kbit[m])
        cached = cached.copy()
        cached[m] = True
        shared = np.sqrt(work) * np.sqrt(work[cached]).sum() / i.edge_ghz + i.cached_overhead_ms
        new = np.where(cached, shared, alone)
        if new.sum() < latency.sum():
            best, latency = cached, new
    return best, latency


def _offloading(instance: Instance, share: float) -> Allocation | None:
    """With ``share`` of each task offloaded that is not cached, by the paper's inner approximation, which
    leaves it so."""

    def begin(c: Constants) -> FloatArray | None:
        x = resources.first_point(c, share, exact=False)
        return None if x is None or (x[~c.cached, W] != share).any() else x

    solved = joint.solve(instance, kind=PAPER, begin=begin)
    return None if solved is None else solved.allocation
