"""Control slots of industrial devices for tests: what they say of themselves, their tasks, MAC reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controller.allocators.base import SliceView
from controller.core.decision import Grant
from controller.core.hops import Carrier
from controller.core.observation import DirectionColumns, Flow, MacReport, Samples
from controller.core.spec import LoopSpec, SliceSpec

MS = 1_000_000
S = 1_000 * MS
T0 = 1_800_000_000 * S
SLOT_NS = 5 * S
PRB, MHZ = 106, 1600
LOOP = LoopSpec("cell-1", PRB, Carrier(), (SliceSpec("urllc", "urllc"),), MHZ)
GRANT = Grant(PRB, PRB, MHZ)
NAN = float("nan")
DEVICE = (1354.0, 270_800.0, 1.5, 3.0, 23.0, 1.0)
"""Bytes, cycles, GHz, mJ, dBm, and that it sends whole tasks."""
TASK = (0.05, 2.0, 0.02, 1.0, 3.07, 0.5, 0.0)
"""ms in the device, up, at the edge, down and in all, mJ, and that it was not lost."""
LOST = (0.05, NAN, NAN, NAN, NAN, 0.5, 1.0)


def flow(i: int, **more: Any) -> Flow:
    return Flow(f"d{i}", f"ue-{i}", "urllc", 0.0, 0.0, T0, **more)


def table(slot: int, values: Mapping[int, Sequence[Sequence[float]]], columns: int) -> Samples:
    """Rows of users, spread over the control slot."""
    user = np.array([u for u, rows in values.items() for _ in rows], np.int64)
    data = np.array([row for rows in values.values() for row in rows], np.float32).reshape(-1, columns)
    at = np.concatenate([np.linspace(0.1, 0.9, len(rows)) for rows in values.values()] or [np.empty(0)])
    return Samples(user, T0 + slot * SLOT_NS + (at * SLOT_NS).astype(np.int64), data)


def reports(slot: int, snr_db: Sequence[float]) -> tuple[MacReport, ...]:
    """The first and the last of a control slot."""
    n = len(snr_db)
    zero = (0,) * n
    names = tuple(f"ue-{i}" for i in range(n))
    begin = T0 + slot * SLOT_NS

    def columns(part: int) -> DirectionColumns:
        return DirectionColumns((9,) * n, (1,) * n, (1,) * n, zero, (0.0,) * n, zero, (1000 * part,) * n)

    return tuple(
        MacReport(
            begin + part * 4 * S, names, ("urllc",) * n, columns(part), columns(part), zero, tuple(snr_db)
        )
        for part in (0, 1)
    )


def view(slot: int = 0, users: int | Sequence[Flow] = 3, **more: Any) -> SliceView:
    """A control slot of devices whose tasks are in time; ``devices`` and ``tasks`` by user, ``snr_db``."""
    opened = T0 + slot * SLOT_NS
    flows = tuple(flow(i) for i in range(users)) if isinstance(users, int) else tuple(users)
    n = len(flows)
    devices = more.pop("devices", dict.fromkeys(range(n), DEVICE))
    tasks = more.pop("tasks", {u: [TASK] * 50 for u in range(n)})
    samples = {
        "device": table(slot, {u: [row] for u, row in devices.items()}, 6),
        "task": table(slot, tasks, 7),
    }
    known: dict[str, Any] = {
        "users": flows,
        "granted": GRANT,
        "reports": reports(slot, more.pop("snr_db", (16.0,) * n)),
        "samples": {**samples, **more.pop("samples", {})},
    }
    closed = opened + SLOT_NS
    return SliceView("urllc", slot, opened, closed, opened + 200 * MS, closed, **{**known, **more})
