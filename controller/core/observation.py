"""What the control loop is given, and nothing else: plain values, no I/O, no clock.

Times are CLOCK_REALTIME nanoseconds. Delays elsewhere are milliseconds. PRB are counts, GPU clocks MHz.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.core.fits import Fit
from controller.core.measure import Reason

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

OBSERVATION_VERSION = 2


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
    """MAC state of every UE of a report in one direction, one entry a UE.

    ``bler`` is that of first transmissions, 0..1. ``lc_bytes`` (bytes of the logical channels) and
    ``prb_slots`` (PRBs times NR slots, HARQ retransmissions included) are counted since the UE attached. Both
    of these and BLER are empty in records from before they were kept.
    """

    mcs: tuple[int, ...]
    mcs_table: tuple[int, ...]
    layers: tuple[int, ...]
    queued_bytes: tuple[int, ...]
    bler: tuple[float, ...] = ()
    lc_bytes: tuple[int, ...] = ()
    prb_slots: tuple[int, ...] = ()

    def take(self, rows: Sequence[int]) -> DirectionColumns:
        """The columns of some of the UEs."""
        return DirectionColumns(*(_take(getattr(self, name), rows) for name in DIRECTION_COLUMNS))


DIRECTION_COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(DirectionColumns))


@dataclass(frozen=True, slots=True)
class MacReport:
    """The gNB's MAC state at one instant, UEs as columns of equal length.

    ``cqi`` is the wide-band CQI (TS 38.214 clause 5.2.2.1; 0: none reported), ``snr_db`` the SNR of the
    PUSCH. ``five_qi`` and ``priority_level`` are of a QoS flow of the UE's first DRB (TS 23.501 clauses
    5.7.2.1 and 5.7.3.3, level 1 goes first; 0: not known). ``snssai`` is that DRB's, SST or SST-SD as
    :func:`wire.definitions.qos.snssai_text` writes it, "" where it is not known. ``dl_channels`` has LCID and
    queued bytes of the logical channels with bytes that wait, of a UE with more than eight the fullest.
    Nobody decides by these four.

    A column from ``cqi`` on is empty where the gNB knows it of no UE, and in records from before it was kept.
    """

    time_ns: int
    ue_id: tuple[str, ...]
    slice: tuple[str, ...]
    ul: DirectionColumns
    dl: DirectionColumns
    cqi: tuple[int, ...] = ()
    snr_db: tuple[float, ...] = ()
    five_qi: tuple[int, ...] = ()
    priority_level: tuple[int, ...] = ()
    snssai: tuple[str, ...] = ()
    dl_channels: tuple[tuple[tuple[int, int], ...], ...] = ()

    def take(self, rows: Sequence[int]) -> MacReport:
        """The report of some of the UEs."""
        columns = {c: _take(getattr(self, c), rows) for c in UE_COLUMNS}
        return MacReport(self.time_ns, ul=self.ul.take(rows), dl=self.dl.take(rows), **columns)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, columns by name; those of what the gNB does not know are left out."""
        return {
            "time_ns": self.time_ns,
            **{c: column for c in UE_COLUMNS if (column := getattr(self, c)) or c not in _OPTIONAL},
            **{d: {c: getattr(getattr(self, d), c) for c in DIRECTION_COLUMNS} for d in ("ul", "dl")},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MacReport:
        """From :meth:`to_dict`; columns that are not there are empty."""
        ul, dl = (
            DirectionColumns(**{c: tuple(data[d].get(c, ())) for c in DIRECTION_COLUMNS})
            for d in ("ul", "dl")
        )
        columns = {c: tuple(data.get(c, ())) for c in UE_COLUMNS}
        channels = columns.pop("dl_channels")
        pairs = tuple(tuple((lcid, queued) for lcid, queued in of_ue) for of_ue in channels)
        return cls(data["time_ns"], ul=ul, dl=dl, dl_channels=pairs, **columns)


UE_COLUMNS: tuple[str, ...] = tuple(
    f.name for f in fields(MacReport) if f.name not in ("time_ns", "ul", "dl")
)
_OPTIONAL = frozenset(UE_COLUMNS[UE_COLUMNS.index("snr_db") + 1 :])
"""The columns of what a gNB may not know."""


def _take(column: tuple[Any, ...], rows: Sequence[int]) -> tuple[Any, ...]:
    return tuple(column[i] for i in rows) if column else ()


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

    def take(self, rows: NDArray[Any], flow: IntArray) -> Frames:
        """Some of the frames (a mask or indices), with their ``flow`` renumbered."""
        columns = (getattr(self, name)[rows] for name in FRAME_COLUMNS[1:])
        return Frames(flow, *columns)

    def to_dict(self) -> dict[str, str]:
        """As packed columns (:func:`pack`)."""
        return {name: pack(getattr(self, name)) for name in FRAME_COLUMNS}

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> Frames:
        return cls(**{name: unpack(data[name]) for name in FRAME_COLUMNS})


FRAME_COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(Frames))
"""The columns of frames; of those, the times follow the sequence in their order on the way."""
_NO_FRAMES = Frames(
    **{name: np.empty(0, np.int64) for name in FRAME_COLUMNS[:-1]}, synchronised=np.empty(0, np.bool_)
)


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows of one table of one control slot, in the order of their arrival.

    ``flow`` (int64 [rows]) indexes the observation's flows, or the view's users; ``time_ns`` (int64 [rows])
    is CLOCK_REALTIME; ``values`` (float32 [rows, columns]) are in the units that the service declares, NaN
    where not known.
    """

    flow: IntArray
    time_ns: IntArray
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.flow)

    def to_dict(self) -> dict[str, str]:
        """As packed columns (:func:`pack`)."""
        return {name: pack(getattr(self, name)) for name in ("flow", "time_ns", "values")}

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> Samples:
        return cls(unpack(data["flow"]), unpack(data["time_ns"]), unpack(data["values"]))


def pack(array: NDArray[Any]) -> str:
    """An array as text: its type, its shape and its bytes, zlib-compressed, in base64."""
    data = zlib.compress(np.ascontiguousarray(array).tobytes(), 1)
    shape = "x".join(map(str, array.shape))
    return f"{array.dtype.str}:{shape}:{base64.b64encode(data).decode()}"


def unpack(text: str) -> NDArray[Any]:
    """The array of :func:`pack`; ValueError for a text that is none."""
    try:
        dtype, shape, data = text.split(":")
        flat = np.frombuffer(zlib.decompress(base64.b64decode(data, validate=True)), np.dtype(dtype))
        return flat.reshape([int(n) for n in shape.split("x")])
    except (TypeError, AttributeError, zlib.error) as error:
        raise ValueError(f"not a packed column: {error}") from error


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

    ``kind`` is ``mode`` (value: a mode), ``options`` (value: option -> new value, as in the configuration),
    ``policy`` (value: ``policy`` and ``hop``, "" for every hop; the service knows which options that are) or
    ``quota`` (value: ``ul`` and ``dl`` in PRB, None for the allocator's own, and ``for_s``; a value of None
    ends what was set before, by an operator or because its time is over). An empty ``slice`` is every slice;
    ``quota`` is of one.
    """

    kind: str
    value: Any
    slice: str = ""


@dataclass(frozen=True, slots=True)
class AppliedSettings:
    """What became of the settings of a flow: in force since ``since_ns`` where ``reason`` is None."""

    since_ns: int
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """All that one control slot is judged by and the next one is decided from.

    The slot ``control_slot`` ran from ``opened_ns`` (acknowledgement of its quotas) to ``closed_ns``.
    ``reports`` holds one report a state sub-interval, oldest first; ``flows`` every flow that was active at
    some time in the slot; ``enforcement`` an entry for every slice that had a quota. What became of the
    frames is known until ``known_ns`` (0: until the close): hosts report them in batches. ``clocks`` are the
    reports of the hosts' clocks in the order of their arrival; ``clock_faults`` says of flows with frames
    that are not synchronised why (flow -> reason). ``samples`` are those of the flows' tables (slice -> table
    -> rows), ``settings`` has an entry for every flow that was to have some, ``fits`` are the results of jobs
    that have come since the control slot before. ``ended`` says why the slot ended before its
    time, "" where it did not. ``arrivals`` (flow -> plain JSON) has what the allocator of the cell that a
    flow comes from knows of it, for flows that began in the slot.
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
    samples: Mapping[str, Mapping[str, Samples]] = field(default_factory=dict)
    settings: Mapping[str, AppliedSettings] = field(default_factory=dict)
    fits: tuple[Fit, ...] = ()
    ended: str = ""
    arrivals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values (version :data:`OBSERVATION_VERSION`); :meth:`from_dict` is the inverse.

        Frames and samples are packed columns: 40 users at 30 Hz would be 42,000 numbers a control slot.
        """
        return {
            "version": OBSERVATION_VERSION,
            "control_slot": self.control_slot,
            "opened_ns": self.opened_ns,
            "closed_ns": self.closed_ns,
            "reports": [r.to_dict() for r in self.reports],
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
            "samples": {
                s: {name: rows.to_dict() for name, rows in tables.items()}
                for s, tables in self.samples.items()
            },
            "settings": {flow: [a.since_ns, a.reason or ""] for flow, a in self.settings.items()},
            "fits": [[f.slice, f.key, f.digest, f.error] for f in self.fits],
            **({"ended": self.ended} if self.ended else {}),
            **({"arrivals": {flow: dict(of) for flow, of in self.arrivals.items()}} if self.arrivals else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Observation:
        """From :meth:`to_dict`; KeyError, TypeError, ValueError for what is none."""
        if data["version"] != OBSERVATION_VERSION:
            raise ValueError(
                f"observation of version {data['version']}, this controller reads {OBSERVATION_VERSION}"
            )
        return cls(
            control_slot=data["control_slot"],
            opened_ns=data["opened_ns"],
            closed_ns=data["closed_ns"],
            reports=tuple(map(MacReport.from_dict, data["reports"])),
            flows=tuple(Flow(*f) for f in data["flows"]),
            frames=Frames.from_dict(data["frames"]),
            enforcement={s: Enforcement(_reason(e[0]), *e[1:]) for s, e in data["enforcement"].items()},
            gpu=None if data["gpu"] is None else GpuReading(data["gpu"][0], _reason(data["gpu"][1])),
            commands=tuple(Command(*c) for c in data["commands"]),
            known_ns=data["known_ns"],
            clocks=tuple(ClockReport(*c) for c in data["clocks"]),
            clock_faults=data["clock_faults"],
            samples={
                s: {name: Samples.from_dict(rows) for name, rows in tables.items()}
                for s, tables in data["samples"].items()
            },
            settings={
                flow: AppliedSettings(since, _reason(why)) for flow, (since, why) in data["settings"].items()
            },
            fits=tuple(Fit(*f) for f in data["fits"]),
            ended=data.get("ended", ""),
            arrivals=data.get("arrivals", {}),
        )


def _reason(text: str) -> Reason | None:
    return Reason(text) if text else None
