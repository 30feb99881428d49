"""What a slice acts with, what it promised and what came of it, whatever its service."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

MAX_NAMES = 16
"""Measures, and settings, that one service may have: their names are labels of metrics."""


class Lever(StrEnum):
    """What a slice acts with: PRB of uplink and downlink, the GPU's clock, settings of applications."""

    UL = "ul"
    EDGE = "edge"
    DL = "dl"
    SETTINGS = "settings"


RESOURCES: tuple[Lever, ...] = (Lever.UL, Lever.EDGE, Lever.DL)
"""The levers that are a cell's and its edge's resources: everybody's, whatever the service."""


class Reason(StrEnum):
    """Why nothing may be learned about a lever from a control slot."""

    NO_DECISION = "no decision"
    MODE_CHANGED = "mode changed"
    SHADOW = "shadow"
    FROZEN = "frozen"
    RELEASED = "released"
    ARBITER_CUT = "arbiter cut"
    NOT_ACKNOWLEDGED = "not acknowledged"
    QUOTA_NOT_HONOURED = "quota not honoured"
    LEASE_LAPSED = "lease lapsed"
    NO_EDGE_AGENT = "no edge agent"
    CLOCK_NOT_REACHED = "clock not reached"
    LOCK_NOT_CONFIRMED = "lock not confirmed"
    CLOCK_RAISED = "clock raised by another slice"
    RESCUED = "given more than asked for"
    SET_BY_HAND = "quota set by hand"
    SETTINGS_NOT_APPLIED = "settings not applied"
    ALLOCATOR_FAILED = "allocator failed"
    NOT_KNOWN = "not known"
    HOP_DELAY_NOT_KNOWN = "hop delay not known"
    NO_WINDOW = "quota in force too late to be judged"
    PROMISE_NOT_KNOWN = "promise not known"
    NO_MAC_REPORT = "no MAC report"
    UE_NOT_REPORTED = "UE of a flow not reported in its slice"
    UE_IDLE = "UE of a flow carries none of its frames"
    UNKNOWN_TRAFFIC = "traffic of no known flow"

    @property
    def short(self) -> bool:
        """Whether the lever had less than its slice asked for."""
        return self in (Reason.ARBITER_CUT, Reason.CLOCK_NOT_REACHED)

    @property
    def more(self) -> bool:
        """Whether the lever had more than its slice asked for, all else being known."""
        return self in (Reason.CLOCK_RAISED, Reason.RESCUED)


@dataclass(frozen=True, slots=True)
class Measure:
    """What one promise came to, user by user.

    ``values`` and ``targets`` are in ``unit`` ("ms", "mos", "1", "frames/s"), one entry a user of
    :attr:`Outcome.users`; a value of None cannot be told. ``better`` says which way is good. ``met`` is 1, 0,
    or None where it cannot be told. ``samples`` counts the frames, tasks or poses behind the values. There is
    no time of computation in it: a replay gives equal measures.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    values: tuple[float | None, ...]
    targets: tuple[float, ...]
    met: int | None
    samples: int

    def to_record(self, users: tuple[str, ...]) -> dict[str, Any]:
        """As plain JSON values; ``users`` maps each user whose value can be told to it and its target."""
        worse = max if self.better == "lower" else min
        pairs: dict[str, list[float]] = {}
        for user, value, target in zip(users, self.values, self.targets, strict=True):
            if value is not None:  # a flow that stopped and began again is there twice: the worse one stands
                pairs[user] = [worse(value, pairs[user][0]) if user in pairs else value, target]
        return {
            "unit": self.unit,
            "better": self.better,
            "met": self.met,
            "samples": self.samples,
            "users": pairs,
        }


def worst_value(measure: Mapping[str, Any]) -> float | None:
    """The value of the worst user of a measure (:meth:`Measure.to_record`); None where there is none."""
    values = [value for value, _ in measure["users"].values()]
    worst = max if measure["better"] == "lower" else min
    return worst(values) if values else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A slice's control slot that is over.

    ``met`` is what its delivery ratio counts (that of the first measure, where there is one), ``busy``
    whether a user was judged. ``unattributed`` says why, for each lever that nothing was learned about.
    ``counts`` are whole numbers worth a column (late_frames, negative_delays, rebuffers); ``faults`` counts
    the samples that could be used in part only, by what was wrong with them. ``promised`` is False where
    nothing had been promised to any of the users of whom it is known what came: ``met`` is None then.
    ValueError for measures that do not fit the users, are no numbers or bear one name, and for a bit that is
    none.
    """

    met: int | None
    busy: bool
    users: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()
    unattributed: Mapping[Lever, Reason] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    promised: bool = True

    def __post_init__(self) -> None:
        if len({m.name for m in self.measures}) < len(self.measures):
            raise ValueError(f"measures named twice in {[m.name for m in self.measures]}")
        if self.met not in (0, 1, None):
            raise ValueError(f"met is {self.met!r}, neither 0 nor 1 nor None")
        if self.met is not None and not self.promised:
            raise ValueError(f"met is {self.met} of a promise that was not given")
        n = len(self.users)
        for m in self.measures:
            if not len(m.values) == len(m.targets) == n:
                raise ValueError(f"measure {m.name}: not one value and one target for each user")
            if m.met not in (0, 1, None):
                raise ValueError(f"measure {m.name}: met is {m.met!r}, neither 0 nor 1 nor None")
            if n and not all(math.isfinite(v) for v in (*m.values, *m.targets) if v is not None):
                raise ValueError(f"measure {m.name}: a value or a target is not finite")

    def measure(self, name: str) -> Measure:
        """The measure of that name; KeyError where there is none."""
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise KeyError(name)

    def to_record(self) -> dict[str, Any]:
        """As plain JSON values; ``users`` is their number."""
        record: dict[str, Any] = {
            "met": self.met,
            "busy": self.busy,
            "users": len(self.users),
            "measures": {m.name: m.to_record(self.users) for m in self.measures},
            "unattributed": {lever.value: reason.value for lever, reason in self.unattributed.items()},
            "counts": {name: int(n) for name, n in self.counts.items()},
        }
        if self.faults:
            record["faults"] = dict(self.faults)
        if not self.promised:
            record["promised"] = False
        return record
