"""Whether an allocation satisfies problem (6), constraint by constraint, with nothing approximated.

R_min (6d) counts for devices that transmit: a device with a cached task sends nothing, and bandwidth for it
would be wasted. Printed it stands for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.allocators.urllc.instance import FloatArray, Instance
from controller.allocators.urllc.model import Allocation, parts

TOLERANCE = 1e-6
"""Of a limit, and of the number itself: what counts as within it."""


@dataclass(frozen=True, slots=True)
class Violation:
    """``constraint`` as the paper numbers it, by ``name``; ``device`` "" for what all share."""

    constraint: str
    name: str
    device: str
    value: float
    limit: float
    unit: str

    def __str__(self) -> str:
        whose = f" of {self.device}" if self.device else ""
        return f"({self.constraint}) {self.name}{whose}: {self.value:.6g} {self.unit}, limit {self.limit:.6g}"


def violations(instance: Instance, allocation: Allocation, tolerance: float = TOLERANCE) -> list[Violation]:
    """Each constraint of problem (6) that does not hold, in the order of the paper; [] for a solution."""
    a, m = allocation, len(instance)
    found: list[Violation] = []
    for column in (a.cached, a.local_share, a.bandwidth, a.power_w, a.ue_ghz, a.edge_ghz):
        if np.shape(column) != (m,):
            raise ValueError(f"an allocation for {np.shape(column)} devices of an instance of {m}")
    of = parts(instance, a)
    sends = ~a.cached
    offloaded = np.where(a.cached, 1.0, 1.0 - a.local_share)

    def above(
        constraint: str, name: str, value: FloatArray, limit: FloatArray | float, unit: str, who: bool
    ) -> None:
        value, limits = np.atleast_1d(value), np.broadcast_to(limit, np.shape(np.atleast_1d(value)))
        for i in np.flatnonzero(~(value <= limits + tolerance * np.maximum(np.abs(limits), 1e-3))):
            device = instance.ids[i] if who else ""
            found.append(Violation(constraint, name, device, float(value[i]), float(limits[i]), unit))

    def below(constraint: str, name: str, value: FloatArray, limit: float, unit: str) -> None:
        short = np.flatnonzero(~(value >= limit - tolerance * max(abs(limit), 1e-3)))
        found.extend(
            Violation(constraint, name, instance.ids[i], float(value[i]), limit, unit) for i in short
        )

    above("6b", "latency", of.latency_ms, instance.deadline_ms, "ms", True)
    above("6c", "bandwidth", np.array([a.bandwidth.sum()]), 1.0, "of the band", False)
    below("6d", "rate", np.where(sends, of.rate_mbps, np.inf), instance.min_rate_mbps, "Mbit/s")
    above("6e", "energy", of.energy_mj, instance.energy_mj, "mJ", True)
    above("6f", "edge rate", np.array([float(offloaded @ a.edge_ghz)]), instance.edge_ghz, "GHz", False)
    cache = np.array([float(a.cached @ instance.task_cache_kbit)])
    above("6g", "cache", cache, instance.cache_kbit, "kbit", False)
    for name, value, limit, unit in (
        ("local share", a.local_share, 1.0, ""),
        ("power", a.power_w, instance.max_power_w, "W"),
        ("processing rate of the UE", a.ue_ghz, instance.ue_ghz, "GHz"),
        ("processing rate of the edge", a.edge_ghz, instance.edge_ghz, "GHz"),
        ("bandwidth", a.bandwidth, 1.0, "of the band"),
    ):
        above("6h", name, value, limit, unit, True)
        below("6h", name, value, 0.0, unit)
    return found
