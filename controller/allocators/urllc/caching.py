"""SP1: which tasks the edge server keeps, the slowest first."""

from __future__ import annotations

import numpy as np

from controller.allocators.urllc.instance import BoolArray, Instance
from controller.allocators.urllc.model import Allocation, parts
from controller.allocators.urllc.resources import cost_ms


def edge_rates(instance: Instance, a: Allocation) -> Allocation:
    """All of the edge's rate divided anew: sum w C / f under sum w f <= F is least where f is as sqrt(C)."""
    w = np.where(a.cached, 1.0, 1.0 - a.local_share)
    root = np.sqrt(instance.mcycles / (1.0 - instance.edge_deviation))
    used = float(w @ root)
    if used <= 0.0:
        return a
    return a.with_(
        edge_ghz=np.where(w > 0.0, np.minimum(instance.edge_ghz * root / used, instance.edge_ghz), 0.0)
    )


def cache(instance: Instance, a: Allocation) -> Allocation:
    """Adds tasks to the cache in the order of their latency t_s, as many as lower the objective.

    A task that does not fit is passed over for the next. Printed, SP1 leaves f as it is; (6f), which SP3
    leaves tight, then lets no task into the cache, as it would take f where (1 - alpha) f went before. So the
    edge's rate is divided anew with each. What is cached stays so, as SP3 has given its bandwidth to others.
    """
    cached = a.cached.copy()
    room = instance.cache_kbit - float(instance.task_cache_kbit[cached].sum())
    if not (~cached & (instance.task_cache_kbit <= room * (1.0 + 1e-12))).any():
        return a
    latency = parts(instance, a).latency_ms
    best, least = a, cost_ms(instance, a)
    for m in np.argsort(-latency, kind="stable"):
        if cached[m] or instance.task_cache_kbit[m] > room * (1.0 + 1e-12):
            continue
        cached = _with(cached, m)
        room -= float(instance.task_cache_kbit[m])
        new = edge_rates(instance, a.with_(cached=cached))
        value = cost_ms(instance, new)
        if value < least:
            best, least = new, value
    return best


def _with(cached: BoolArray, m: int) -> BoolArray:
    out = cached.copy()
    out[m] = True
    return out
