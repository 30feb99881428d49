"""Small observations and specs for tests of the core."""

from __future__ import annotations

from typing import Any

import numpy as np

from controller.allocators.ar.budgets import Budgets
from controller.core.hops import Carrier
from controller.core.observation import (
    DirectionColumns,
    Enforcement,
    Flow,
    Frames,
    GpuReading,
    MacReport,
    Observation,
)
from controller.core.spec import LoopSpec, SliceSpec

T0 = 1_800_000_000_000_000_000
MS = 1_000_000
SLOT_NS = 5_000 * MS


def slice_spec(name: str = "ar", **changes: Any) -> SliceSpec:
    """A slice of the service ``ar``; ``ues`` and ``share`` aside, ``changes`` are options or action sets."""
    actions = {
        "ul_prb": (10, 30, 50, 70, 90),
        "dl_prb": (10, 30, 50, 70, 90),
        "gpu_mhz": tuple(range(500, 1601, 100)),
    }
    actions = {key: list(changes.pop(key, values)) for key, values in actions.items()}
    common = {key: changes.pop(key) for key in ("ues", "share") if key in changes}
    budgets = changes.pop("budgets", Budgets(70, 20, 60))
    options = {
        "policy": "mucb1",
        "budgets": {"ul_ms": budgets.ul_ms, "edge_ms": budgets.edge_ms, "dl_ms": budgets.dl_ms},
        "actions": actions,
        **changes,
    }
    return SliceSpec(name, "ar", options=options, **common)


def loop_spec(*slices: SliceSpec, **changes: Any) -> LoopSpec:
    values: dict[str, Any] = {
        "cell": "cell-1",
        "n_prb": 106,
        "carrier": Carrier(),
        "slices": slices or (slice_spec(),),
        "max_mhz": 1600,
    }
    return LoopSpec(**{**values, **changes})


def report(
    time_ns: int, slice_: str = "ar", ul_mcs: int = 18, dl_mcs: int = 28, queued: int = 0
) -> MacReport:
    def column(mcs: int) -> DirectionColumns:
        return DirectionColumns((mcs,), (1,), (1,), (queued,))

    return MacReport(time_ns, ("ue-1",), (slice_,), column(ul_mcs), column(dl_mcs))


def frames(opened: int, closed: int, delays_ms: tuple[float, float, float], flow: int = 0) -> Frames:
    """Thirty frames a second, every one with the same delay of each hop."""
    sent = np.arange(opened, closed, MS * 100 // 3, dtype=np.int64)
    ul, edge, dl = (int(d * MS) for d in delays_ms)
    back = sent + ul + edge + dl
    return Frames(
        np.full(len(sent), flow, np.int64),
        np.arange(len(sent), dtype=np.int64),
        sent,
        sent + ul,
        sent + ul + edge,
        np.where(back <= closed, back, 0),
        np.ones(len(sent), np.bool_),
    )


def observation(
    slot: int,
    delays_ms: tuple[float, float, float] = (20.0, 9.0, 15.0),
    *,
    slices: tuple[str, ...] = ("ar",),
    n_flows: int = 1,
    slot_ns: int = SLOT_NS,
    **changes: Any,
) -> Observation:
    """A control slot with every flow of the first slice seeing the same delays, all well enforced."""
    opened = T0 + slot * slot_ns
    closed = opened + slot_ns
    flows = tuple(Flow(f"flow-{i}", "ue-1", slices[0], 2.997e6, 0.992e6, T0) for i in range(n_flows))
    values: dict[str, Any] = {
        "control_slot": slot,
        "opened_ns": opened,
        "closed_ns": closed,
        "reports": tuple(report(opened + i * 200 * MS, slices[0]) for i in range(slot_ns // (200 * MS))),
        "flows": flows,
        "frames": frames(opened, closed, delays_ms) if n_flows else Frames.empty(),
        "enforcement": {s: Enforcement() for s in slices},
        "gpu": GpuReading(1600),
    }
    return Observation(**{**values, **changes})
