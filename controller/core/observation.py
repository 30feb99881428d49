"""What the control loop is given, and nothing else: plain values, no I/O, no clock.

Times are CLOCK_REALTIME nanoseconds. Delays elsewhere are milliseconds. PRB are counts, GPU clocks MHz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.core.measure import Reason

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Hop(StrEnum):
    """The three legs of a frame's round trip."""

    UL = "ul"
    EDGE = "edge"
    DL = "dl"


HOPS: tuple[Hop, ...] = (Hop.UL, Hop.EDGE, Hop.DL)


class Mode(StrEnum):
    """What the controller does with its decisions."""

    ACTIVE = "active"
    """Decide, act and learn."""
    SHADOW = "shadow"
    """Decide and record, act on nothing: the network is at full resources."""
    FROZEN = "frozen"
    """Hold the quotas and clocks that are in force; decide and learn nothing."""
    RELEASED = "released"
    """Everything back to full resources."""


@dataclass(frozen=True, slots=True)
class DirectionColumns:
    """MAC state of every UE of a report in one direction, one entry a UE."""

    mcs: tuple[int, ...]
    mcs_table: tuple[int, ...]
    layers: tuple[int, ...]
    queued_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MacReport:
    """The gNB's MAC state at one instant, UEs as columns of equal length."""

    time_ns: int
    ue_id: tuple[str, ...]
    slice: tuple[str, ...]
    ul: DirectionColumns
    dl: DirectionColumns


@dataclass(frozen=True, slots=True)
class Flow:
    """One application stream. ``stop_ns`` is 0 while the flow is active; rates are offered bit/s."""

    flow: str
    ue_id: str
    slice: str
    ul_bps: float
    dl_bps: float
    start_ns: int
    stop_ns: int = 0


@dataclass(frozen=True, slots=True)
class Frames:
    """Timestamps of frames, as columns of equal length; a time of 0 is not known (yet).

    ``flow`` indexes the observation's flows. ``synchronised`` tells whether the hops' times come from
    clocks known to agree; where not, only the round trip counts.
    """

    flow: IntArray
    sequence: IntArray
    ue_sent: IntArray
    edge_received: IntArray
    edge_sent: IntArray
    ue_received: IntArray
    synchronised: BoolArray

    @staticmethod
    def empty() -> Frames:
        return _NO_FRAMES

    def __len__(self) -> int:
        return len(self.flow)

    def to_dict(self) -> dict[str, list[Any]]:
        return {name: getattr(self, name).tolist() for name in _FRAME_COLUMNS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[Any]]) -> Frames:
        columns = {name: np.asarray(data[name], np.int64) for name in _FRAME_COLUMNS[:-1]}
        return cls(**columns, synchronised=np.asarray(data["synchronised"], np.bool_))


_FRAME_COLUMNS = (
    "flow",
    "sequence",
    "ue_sent",
    "edge_received",
    "edge_sent",
    "ue_received",
    "synchronised",
)
_NO_FRAMES = Frames.from_dict(dict.fromkeys(_FRAME_COLUMNS, ()))


@dataclass(frozen=True, slots=True)
class Enforcement:
    """What became of a slice's quotas in the control slot that closes.

    ``reason`` is None where the quotas were acknowledged, in force for the whole slot and kept by the cell;
    else it names what was not so (:attr:`Reason.NOT_ACKNOWLEDGED`, ``LEASE_LAPSED``, ``QUOTA_NOT_HONOURED``).
    ``*_used`` are the most PRBs of new transmissions in any one NR slot, None where the gNB has not said.
    """

    reason: Reason | None = None
    ul_used: int | None = None
    dl_used: int | None = None


@dataclass(frozen=True, slots=True)
class ClockReport:
    """State of a host's PTP clock as the host told it; offset and path delay in ns.

    ``grandmaster`` is the identity of the clock that it follows, empty where that is not told. ``fault``
    is the controller's: why the clock cannot be used, empty where it can.
    """

    host: str
    ptp_state: str
    offset_ns: float
    path_delay_ns: float
    time_ns: int
    grandmaster: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """The clock that the edge agent read back; ``reason`` as in :class:`Enforcement`."""

    sm_mhz: int
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """What an operator asked for since the last control slot; the loop carries it out at its next step.

    ``kind`` is ``mode`` (value: a mode), ``policy`` (value: a policy's name) or ``budgets`` (value: ms of
    ul, edge and dl). An empty ``slice`` is every slice.
    """

    kind: str
    value: Any
    slice: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """All that one control slot is judged by and the next one is decided from.

    The slot ``control_slot`` ran from ``opened_ns`` (acknowledgement of its quotas) to ``closed_ns``.
    ``reports`` holds one report a state sub-interval, oldest first; ``flows`` every flow that was active
    at some time in the slot; ``enforcement`` an entry for every slice that had a quota. What became of the
    frames is known until ``known_ns`` (0: until the close): hosts report them in batches. ``clocks`` are
    the reports of the hosts' clocks in the order of their arrival; ``clock_faults`` says of flows with frames
    that are not synchronised why (flow -> reason).
    """

    control_slot: int
    opened_ns: int
    closed_ns: int
    reports: tuple[MacReport, ...] = ()
    flows: tuple[Flow, ...] = ()
    frames: Frames = field(default_factory=Frames.empty)
    enforcement: Mapping[str, Enforcement] = field(default_factory=dict)
    gpu: GpuReading | None = None
    commands: tuple[Command, ...] = ()
    known_ns: int = 0
    clocks: tuple[ClockReport, ...] = ()
    clock_faults: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; :meth:`from_dict` is the inverse."""
        return {
            "control_slot": self.control_slot,
            "opened_ns": self.opened_ns,
            "closed_ns": self.closed_ns,
            "reports": [
                [r.time_ns, r.ue_id, r.slice, *(_direction_to_list(d) for d in (r.ul, r.dl))]
                for r in self.reports
            ],
            "flows": [
                [f.flow, f.ue_id, f.slice, f.ul_bps, f.dl_bps, f.start_ns, f.stop_ns] for f in self.flows
            ],
            "frames": self.frames.to_dict(),
            "enforcement": {s: [e.reason or "", e.ul_used, e.dl_used] for s, e in self.enforcement.items()},
            "gpu": None if self.gpu is None else [self.gpu.sm_mhz, self.gpu.reason or ""],
            "commands": [[c.kind, c.value, c.slice] for c in self.commands],
            "known_ns": self.known_ns,
            "clocks": [
                [c.host, c.ptp_state, c.offset_ns, c.path_delay_ns, c.time_ns, c.grandmaster, c.fault]
                for c in self.clocks
            ],
            "clock_faults": dict(self.clock_faults),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Observation:
        return cls(
            control_slot=data["control_slot"],
            opened_ns=data["opened_ns"],
            closed_ns=data["closed_ns"],
            reports=tuple(
                MacReport(t, tuple(ue), tuple(sl), _direction_from_list(ul), _direction_from_list(dl))
                for t, ue, sl, ul, dl in data["reports"]
            ),
            flows=tuple(Flow(*f) for f in data["flows"]),
            frames=Frames.from_dict(data["frames"]),
            enforcement={s: Enforcement(_reason(e[0]), *e[1:]) for s, e in data["enforcement"].items()},
            gpu=None if data["gpu"] is None else GpuReading(data["gpu"][0], _reason(data["gpu"][1])),
            commands=tuple(Command(*c) for c in data["commands"]),
            known_ns=data["known_ns"],
            clocks=tuple(ClockReport(*c) for c in data.get("clocks", ())),
            clock_faults=data.get("clock_faults", {}),
        )


def _reason(text: str) -> Reason | None:
    return Reason(text) if text else None


def _direction_to_list(d: DirectionColumns) -> list[tuple[int, ...]]:
    return [d.mcs, d.mcs_table, d.layers, d.queued_bytes]


def _direction_from_list(columns: Sequence[Sequence[int]]) -> DirectionColumns:
    return DirectionColumns(*(tuple(c) for c in columns))
