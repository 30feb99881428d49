"""What one control slot decided and why: the one record that log, metrics, page and console show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.core.clocks import STATES
from controller.core.fits import Job
from controller.core.measure import Lever, Outcome
from controller.core.observation import ClockReport, Mode

RECORD_VERSION = 2
"""Of :meth:`Decision.to_record`."""
STATE_VERSION = 2
"""Of the state of a control loop."""

Settings = Mapping[str, Mapping[str, tuple[float, ...]]]
"""Flow -> name -> values; a scalar is a tuple of one. Names and units are those that the service declares."""


@dataclass(frozen=True, slots=True)
class Want:
    """PRBs of one direction: ``prb`` wanted, ``floor`` without which the promise is lost.

    ``gain`` is float [prb - floor]: what each further PRB above the floor adds to the slice's experience,
    never rising; () where the allocator does not know. ValueError unless 0 <= floor <= prb, and for another
    gain.
    """

    prb: int
    floor: int = 0
    gain: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= self.prb:
            raise ValueError(f"want of {self.prb} PRB with a floor of {self.floor}")
        if self.gain and len(self.gain) != self.prb - self.floor:
            raise ValueError(f"{len(self.gain)} gains for {self.prb - self.floor} PRB above the floor")
        if any(not math.isfinite(g) for g in self.gain) or list(self.gain) != sorted(self.gain, reverse=True):
            raise ValueError("gains must be finite and never rise")


BY_MORE_HEADROOM = "by what more headroom gave"
EXPLORING = frozenset({"first visit", "explore", "decrease", BY_MORE_HEADROOM})
"""A policy's words (:attr:`Choice.why`) for an action whose outcome it does not know yet: those of
:class:`controller.policies.base.Explanation`, the step down of ``aimd``, and that of ``headroom``."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Why one lever stands where it stands.

    ``method`` is a policy's or solver's name; ``state`` and ``demand`` what it was chosen from, in the
    lever's ``unit``, None where there is none. ``actions`` are what it was chosen among, ascending, () where
    there was no set; ``indices`` the policy's index of each, () where no index decided. ``binding`` is the
    constraint that holds it back ("gpu", "latency", "energy"), "" for none. ``user`` is "" for the whole
    slice. ValueError for an action, a state or a demand that is not finite: JSON has no such number.
    """

    lever: Lever
    unit: str
    method: str
    action: float
    why: str
    user: str = ""
    state: float | None = None
    demand: float | None = None
    actions: tuple[float, ...] = ()
    indices: tuple[float, ...] = ()
    binding: str = ""

    def __post_init__(self) -> None:
        # A sum is finite where its parts are: in every choice of every control slot.
        if not math.isfinite(self.action + (self.state or 0.0) + (self.demand or 0.0)):
            raise ValueError(f"{self.lever}: action {self.action}, state {self.state}, demand {self.demand}")

    def to_record(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "lever": self.lever.value,
            "unit": self.unit,
            "method": self.method,
            "action": _plain(self.action),
            "why": self.why,
            "state": _plain(self.state),
            "demand": None if self.demand is None else round(self.demand, 3),
            "actions": [_plain(a) for a in self.actions],
            "indices": [_number(i) for i in self.indices],
            "binding": self.binding,
        }
        if self.user:
            record["user"] = self.user
        return record


@dataclass(frozen=True, slots=True)
class SliceDemand:
    """What an allocator asks for one slice.

    ``gpu_mhz`` 0 needs no GPU. ``gpu_share`` is the part of the GPU's time at that clock that it will take,
    0..1. ``reserved``: UL and DL PRBs of its slice window, which it gets before others wherever it wants
    them, and others may use while it does not. ValueError for what cannot be.
    """

    ul: Want
    dl: Want
    gpu_mhz: int = 0
    gpu_share: float = 0.0
    choices: tuple[Choice, ...] = ()
    reserved: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if len(self.reserved) != 2 or min(self.reserved) < 0:
            raise ValueError(f"reserved PRBs {self.reserved}: UL and DL, not negative")
        if self.gpu_mhz < 0 or not 0.0 <= self.gpu_share <= 1.0:
            raise ValueError(f"{self.gpu_mhz} MHz for {self.gpu_share!r} of the GPU's time")


MAX_MANUAL_S = 3600.0
"""How long a quota set by hand may hold."""


@dataclass(frozen=True, slots=True)
class ManualQuota:
    """PRBs that an operator set for a slice; None: that direction is the allocator's."""

    ul: int | None = None
    dl: int | None = None

    def __str__(self) -> str:
        parts = (("UL", self.ul), ("DL", self.dl))
        return ", ".join(f"{direction} {prb} PRB" for direction, prb in parts if prb is not None)


@dataclass(frozen=True, slots=True)
class Grant:
    """What the arbiter left of a demand; ``ul_why`` and ``dl_why`` say why it is less, "" where it is not."""

    ul_prb: int
    dl_prb: int
    gpu_mhz: int
    ul_why: str = ""
    dl_why: str = ""


@dataclass(frozen=True, slots=True)
class SliceDecision:
    """One slice in one control slot: what came of the last one, what is asked, granted, and told to its
    users.

    ``demand`` is the allocator's own; ``rescue`` holds the levers for which more than that was asked (see
    :mod:`controller.core.rescue`), in PRB or MHz, and why. ``failed`` names what of the allocator failed
    (``learn``, ``demand``, ``settle``) and how. ``manual`` is what an operator set in place of the demand.
    """

    slice: str
    outcome: Outcome
    demand: SliceDemand
    grant: Grant
    settings: Settings = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    rescue: Mapping[Lever, tuple[int, str]] = field(default_factory=dict)
    manual: ManualQuota | None = None

    def to_record(self) -> dict[str, Any]:
        d, g = self.demand, self.grant
        record: dict[str, Any] = {
            "closed": self.outcome.to_record(),
            "choices": [c.to_record() for c in d.choices],
            "demand": {
                "ul": [d.ul.prb, d.ul.floor],
                "dl": [d.dl.prb, d.dl.floor],
                "gpu_mhz": d.gpu_mhz,
                "gpu_share": d.gpu_share,
            },
            "granted": {"ul": [g.ul_prb, g.ul_why], "dl": [g.dl_prb, g.dl_why]},
            "settings": {flow: {n: list(v) for n, v in of.items()} for flow, of in self.settings.items()},
        }
        if any(d.reserved):
            record["demand"]["reserved"] = list(d.reserved)
        if self.failed:
            record["failed"] = dict(self.failed)
        if self.rescue:
            record["rescue"] = {lever.value: list(floor) for lever, floor in self.rescue.items()}
        if self.manual is not None:
            record["manual"] = {"ul": self.manual.ul, "dl": self.manual.dl}
        return record


@dataclass(frozen=True, slots=True)
class Decision:
    """Quotas, clock and settings of the control slot that begins.

    ``quotas`` maps a slice to its (UL, DL) PRBs; it is empty and ``gpu_mhz`` None where the network is to
    be at full resources (modes shadow and released). ``clocks`` is what hosts told of their clocks in the
    control slot before, ``ended`` why that ended early ("" where it did not). ``jobs`` (slice -> jobs) are to
    run beside the loop.
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
    jobs: Mapping[str, Sequence[Job]] = field(default_factory=dict)
    ended: str = ""

    @property
    def settings(self) -> Settings:
        """What the applications of all slices are to do; nothing where the network is at full resources."""
        if not self.quotas:
            return {}
        return {flow: of for s in self.slices for flow, of in s.settings.items()}

    @property
    def keeps_settings(self) -> bool:
        """Whether flows that :attr:`settings` does not name keep what they have: the settle of a slice
        failed, so nobody knows what its users were to do."""
        return any("settle" in s.failed for s in self.slices)

    def to_record(self) -> dict[str, Any]:
        """As plain JSON values (version :data:`RECORD_VERSION`).

        Keys: ``version, cell, control_slot, time_ns, mode, quotas {slice: [ul, dl]}, gpu_mhz, prb`` (of the
        carrier), ``max_mhz`` and ``slices``: for each slice ``closed`` (the outcome of the slot before),
        ``choices`` (one a lever), ``demand`` (PRBs wanted and floor of each direction and, where it has
        some, ``reserved``: UL and DL PRBs), ``granted`` (PRBs, and why they are less), ``settings`` and,
        where its allocator failed, ``failed``, where it is given more than it asks for, ``rescue`` (of each
        lever the least that it gets, and why), and where an operator set its quotas, ``manual`` (UL and DL
        PRBs, None for a direction that is the allocator's). Where the slot before ended early, ``ended`` says
        why. Where a host told of its clock, ``clocks``: for each host its last report and the
        ``worst_offset_ns`` of the slot.
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
        if self.ended:
            record["ended"] = self.ended
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


def _plain(value: Any) -> Any:
    """A NumPy scalar as a plain number."""
    return value.item() if hasattr(value, "item") else value


def _number(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return _plain(value) if math.isfinite(value) else None
