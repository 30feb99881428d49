"""Control slots of players for tests: their views, their frames, and what the gNB reports of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controller.allocators.base import SliceView
from controller.core.decision import Grant
from controller.core.hops import Carrier
from controller.core.observation import DirectionColumns, Flow, MacReport, Samples
from controller.core.spec import LoopSpec, SliceSpec
from wire.definitions.cloud_gaming import VIEW_PIXELS

MS = 1_000_000
S = 1_000 * MS
T0 = 1_800_000_000 * S
SLOT_NS = 5 * S
PRB, MHZ = 273, 1600
CARRIER = Carrier()
LOOP = LoopSpec("cell-1", PRB, CARRIER, (SliceSpec("vr", "vr"),), MHZ)
GRANT = Grant(PRB, PRB, MHZ)
DEVICE = (90.0, 8.0)
"""90 Hz and class 8."""
View = Sequence[tuple[float, float, float]]
"""Objects: id, part of the view, attention."""
HALVES: View = ((1, 0.5, 4.0), (2, 0.5, 1.0))


def flow(i: int, **more: Any) -> Flow:
    return Flow(f"u{i}", f"ue-{i}", "vr", 0.0, 0.0, T0, **more)


def drawn(seed: int, objects: int = 12) -> View:
    """A view as players have it: a few large objects, many small ones."""
    rng = np.random.default_rng(seed)
    squares = rng.normal(size=objects) ** 2
    parts, attention = squares / squares.sum(), rng.integers(0, 6, objects)
    return [(float(k), float(p), float(a)) for k, (p, a) in enumerate(zip(parts, attention, strict=True))]


def table(slot: int, values: Mapping[int, Sequence[Any]], columns: int, at_ms: float = 1_000.0) -> Samples:
    """Rows of users, all of a user at the same time."""
    user = np.array([u for u, rows in values.items() for _ in rows], np.int64)
    data = np.array([row for rows in values.values() for row in rows], np.float32).reshape(-1, columns)
    return Samples(user, np.full(len(user), T0 + slot * SLOT_NS + round(at_ms * MS)), data)


def looks(
    slot: int, views: Mapping[int, View], devices: Mapping[int, tuple[float, float]] | None = None
) -> dict[str, Samples]:
    rows = {u: [(o, part * VIEW_PIXELS, attention) for o, part, attention in v] for u, v in views.items()}
    of = {u: [(devices or {}).get(u, DEVICE)] for u in views}
    return {"scene": table(slot, rows, 3), "device": table(slot, of, 2)}


def frames(
    slot: int, latency_ms: Mapping[int, float], n: int = 40, rate: float = 30.0, pixels: float = 0.0
) -> Samples:
    """``n`` frames of each user, all of this latency."""
    return table(slot, {u: [(ms, rate, 1.0, pixels, 1.0)] * n for u, ms in latency_ms.items()}, 5)


def reports(
    slot: int,
    mcs: Sequence[int],
    *,
    queued: Sequence[int] | None = None,
    carried: Sequence[int] | None = None,
    prb_slots: Sequence[int] | None = None,
    cqi: Sequence[int] | None = None,
) -> tuple[MacReport, ...]:
    """The first and the last of a control slot, between which ``carried`` bytes went down in
    ``prb_slots``."""
    n = len(mcs)
    zero = (0,) * n
    names = tuple(f"ue-{i}" for i in range(n))

    def dl(part: int) -> DirectionColumns:
        counted = (tuple(x * part for x in values or zero) for values in (carried, prb_slots))
        return DirectionColumns(tuple(mcs), (1,) * n, (2,) * n, tuple(queued or zero), (0.0,) * n, *counted)

    ul = DirectionColumns((9,) * n, (1,) * n, (1,) * n, zero, (0.0,) * n, zero, zero)
    begin = T0 + slot * SLOT_NS
    return tuple(
        MacReport(begin + part * 4 * S, names, ("vr",) * n, ul, dl(part), tuple(cqi or zero), (20.0,) * n)
        for part in (0, 1)
    )


def view(slot: int = 0, users: int | Sequence[Flow] = 2, **more: Any) -> SliceView:
    """A control slot of users with frames in time; ``views`` is what they look at, HALVES unless given."""
    opened = T0 + slot * SLOT_NS
    flows = tuple(flow(i) for i in range(users)) if isinstance(users, int) else tuple(users)
    views = more.pop("views", dict.fromkeys(range(len(flows)), HALVES))
    devices = more.pop("devices", None)
    mcs = more.pop("mcs", (20,) * 64)
    known: dict[str, Any] = {"users": flows, "granted": GRANT, "reports": reports(slot, mcs)}
    samples = {
        **looks(slot, views, devices),
        "delivered": frames(slot, dict.fromkeys(range(len(flows)), 10.0)),
    }
    known["samples"] = {**samples, **more.pop("samples", {})}
    closed = opened + SLOT_NS
    return SliceView("vr", slot, opened, closed, opened + 200 * MS, closed, **{**known, **more})
