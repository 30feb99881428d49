"""What one control slot decided and why: the one record that log, metrics, page and console show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.core.clocks import STATES
from controller.core.measure import Reason
from controller.core.observation import ClockReport, Hop, Mode
from controller.core.qos import SlotQos

RECORD_VERSION = 1


@dataclass(frozen=True, slots=True)
class HopChoice:
    """One policy's choice for one hop.

    ``state`` is the hop state in PRB (None for a policy that has none), ``demand`` the PRBs that it was
    rounded from; ``indices`` holds the policy's index of every candidate in ``actions``, None where the
    choice was made outside the index rule. ``action`` is PRB (ul, dl) or MHz (edge).
    """

    hop: Hop
    policy: str
    state: int | None
    demand: float | None
    actions: tuple[int, ...]
    indices: tuple[float, ...] | None
    action: int
    why: str

    def to_record(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "state": self.state,
            "demand_prb": None if self.demand is None else round(self.demand, 3),
            "actions": self.actions,
            "indices": None if self.indices is None else [_number(i) for i in self.indices],
            "action": self.action,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class SliceDemand:
    """What an allocator asks for one slice: PRBs wanted and floor in each direction, GPU MHz."""

    ul_prb: int
    dl_prb: int
    gpu_mhz: int
    ul_floor: int = 0
    dl_floor: int = 0
    choices: tuple[HopChoice, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SliceOutcome:
    """The QoS of the control slot that closed; ``unattributed`` says by hop why nothing was learned."""

    qos: SlotQos
    unattributed: Mapping[Hop, Reason]

    def to_record(self) -> dict[str, Any]:
        return {
            **self.qos.to_record(),
            "unattributed": {hop.value: reason.value for hop, reason in self.unattributed.items()},
        }


@dataclass(frozen=True, slots=True)
class SliceDecision:
    """One slice in one control slot: how the last one went, what is asked, what the arbiter grants."""

    slice: str
    closed: SliceOutcome
    demand: SliceDemand
    ul_prb: int
    dl_prb: int

    def to_record(self) -> dict[str, Any]:
        return {
            "closed": self.closed.to_record(),
            "hops": {c.hop.value: c.to_record() for c in self.demand.choices},
            "demand": {
                "ul_prb": self.demand.ul_prb,
                "dl_prb": self.demand.dl_prb,
                "gpu_mhz": self.demand.gpu_mhz,
            },
            "granted": {"ul_prb": self.ul_prb, "dl_prb": self.dl_prb},
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """Quotas and clock of the control slot that begins.

    ``quotas`` maps a slice to its (UL, DL) PRBs; it is empty and ``gpu_mhz`` None where the network is to
    be at full resources (modes shadow and released). ``clocks`` is what hosts told of their clocks in the
    control slot before.
    """

    cell: str
    control_slot: int
    time_ns: int
    mode: Mode
    quotas: Mapping[str, tuple[int, int]]
    gpu_mhz: int | None
    slices: tuple[SliceDecision, ...]
    prb: int
    max_mhz: int
    clocks: tuple[ClockReport, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """As plain JSON values (version :data:`RECORD_VERSION`).

        Keys: ``version, cell, control_slot, time_ns, mode, quotas {slice: [ul, dl]}, gpu_mhz, prb`` (of the
        carrier), ``max_mhz`` and ``slices``: for each slice ``closed`` (QoS of the slot before), ``hops``
        (each hop's choice), ``demand`` and ``granted``. Where a host told of its clock, ``clocks``: for
        each host its last report and the ``worst_offset_ns`` of the slot.
        """
        record: dict[str, Any] = {
            "version": RECORD_VERSION,
            "cell": self.cell,
            "control_slot": self.control_slot,
            "time_ns": self.time_ns,
            "mode": self.mode.value,
            "quotas": {s: list(q) for s, q in self.quotas.items()},
            "gpu_mhz": self.gpu_mhz,
            "prb": self.prb,
            "max_mhz": self.max_mhz,
            "slices": {s.slice: s.to_record() for s in self.slices},
        }
        if self.clocks:
            record["clocks"] = _clocks(self.clocks)
        return record


def _clocks(reports: Sequence[ClockReport]) -> dict[str, Any]:
    """By host; offsets are those of ports that follow a master or are one."""
    out: dict[str, Any] = {}
    for report in reports:
        offset = report.offset_ns if report.ptp_state in STATES else None
        worst = out.get(report.host, {}).get("worst_offset_ns")
        if offset is not None and (worst is None or abs(offset) > abs(worst)):
            worst = offset
        out[report.host] = {
            "state": report.ptp_state,
            "grandmaster": report.grandmaster,
            "offset_ns": offset,
            "worst_offset_ns": worst,
            "path_delay_ns": report.path_delay_ns,
            "fault": report.fault,
        }
    return out


def _number(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return value if math.isfinite(value) else None
