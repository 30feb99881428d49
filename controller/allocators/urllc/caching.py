"""SP1: which tasks the edge server keeps, the slowest first."""

from __future__ import annotations

import numpy as np

from controller.allocators.urllc.instance import FloatArray, Instance
from controller.allocators.urllc.model import Allocation, parts
from controller.allocators.urllc.resources import LATE, cost_ms, lateness_ms


def edge_rates(instance: Instance, w: FloatArray) -> FloatArray:
    """All of the edge's rate divided between parts ``w`` of the tasks, GHz [..., M].

    sum w C / f under sum w f <= F is least where f is as sqrt(C).
    """
    root = np.sqrt(instance.mcycles / (1.0 - instance.edge_deviation))
    used = np.maximum((w * root).sum(axis=-1, keepdims=True), 1e-300)
    return np.where(w > 0.0, np.minimum(instance.edge_ghz * root / used, instance.edge_ghz), 0.0)


def cache(instance: Instance, a: Allocation) -> Allocation:
    """Adds tasks to the cache in the order of their latency t_s, as many as lower the objective.

    A task that does not fit is passed over for the next. Printed, SP1 leaves f as it is; (6f), which SP3
    leaves tight, then lets no task into the cache, as it would take f where (1 - alpha) f went before. So the
    edge's rate is divided anew with each. What is cached stays so, as SP3 has given its bandwidth to others.
    """
    size = instance.task_cache_kbit
    room = instance.cache_kbit - float(size[a.cached].sum())
    if not (~a.cached & (size <= room * (1.0 + 1e-12))).any():
        return a
    of = parts(instance, a)
    place, count = np.where(a.cached, 0, len(a.cached)), 0
    for m in np.argsort(-of.latency_ms, kind="stable"):
        if not a.cached[m] and size[m] <= room * (1.0 + 1e-12):
            place[m], count, room = count, count + 1, room - float(size[m])
    cached = a.cached | (place <= np.arange(count)[:, None])
    w = np.where(cached, 1.0, 1.0 - a.local_share)
    edge = edge_rates(instance, w)
    real = np.where(w > 0.0, edge * (1.0 - instance.edge_deviation), 1.0)
    alone = of.local_ms + of.transmission_ms + of.overhead_ms
    latency = np.where(cached, instance.cached_overhead_ms, alone) + w * instance.mcycles / real
    cost = (latency + LATE * lateness_ms(instance, cached, latency, of.rate_mbps)).sum(axis=1)
    best = int(np.argmin(cost))
    if not cost[best] < cost_ms(instance, a):
        return a
    return a.with_(cached=cached[best], edge_ghz=edge[best])
