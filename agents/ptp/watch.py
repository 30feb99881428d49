"""What a host may say of its clock, from what ptp4l said one reading after the other. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from agents.ptp.client import PtpReading
from agents.ptp.messages import identity

NONE = "NONE"
"""The state that is told while the host follows no clock that it is meant to follow."""

_MISSED = 3
"""Times the interval of Syncs without one until the offset is history."""

_LONGEST_S = 16.0
"""Interval of Syncs that is believed; a port that sends none says 2^127 s."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is told: ``state`` is SLAVE, MASTER, ... or :data:`NONE`, and then ``reason`` says why.

    ``offset_ns`` is that of CLOCK_REALTIME from the grandmaster; it and the path delay are 0 with NONE,
    where no value can be given. ``grandmaster`` is the clock that the host follows or is, empty while it
    neither follows one nor is meant to be one.
    """

    state: str
    offset_ns: float
    path_delay_ns: float
    grandmaster: str
    reason: str

    @property
    def synchronised(self) -> bool:
        """Whether the host vouches for its clock; how large an offset is good enough is not its business."""
        return self.state in ("SLAVE", "MASTER")


class Watch:
    """Turns readings into what is told.

    ``grandmaster`` tells that this host is meant to be the source of time; any other that ends up without a
    master takes its own clock for the grandmaster's, and is not synchronised to anybody then. With
    ``follow`` (clock identities as linuxptp writes them) no other grandmaster is accepted. A port can be
    SLAVE for seconds after the last Sync: after ``silence_s`` seconds without one its offset is history, or
    after three times the time between two Syncs where that is longer. The port tells that of its own
    configuration, which need not be its master's, so what was seen counts too.
    """

    def __init__(
        self, *, grandmaster: bool = False, follow: Collection[str] = (), silence_s: float = 3.0
    ) -> None:
        if not 0 < silence_s < math.inf:
            raise ValueError(f"--silence: {silence_s!r} s is not a positive time")
        self._meant = grandmaster
        self._follow = frozenset(follow)
        self._silence_s = silence_s
        self._ingress: tuple[int, float] | None = None
        self._unchanged = False
        self._between_s: deque[float] = deque(maxlen=2)
        self._last_grandmaster: bytes | None = None
        self.grandmaster_changes = 0

    def failed(self, why: str) -> Status:
        """ptp4l could not be read, or the system clock not be compared with its clock."""
        return Status(NONE, 0.0, 0.0, "", why)

    def update(self, reading: PtpReading, now_s: float, *, system_offset_ns: float = 0.0) -> Status:
        """The next reading, at ``now_s`` of a clock that nobody sets.

        ``system_offset_ns`` is CLOCK_REALTIME less the clock that ptp4l steers, where these are two.
        """
        if self._last_grandmaster not in (None, reading.grandmaster):
            self.grandmaster_changes += 1
        self._last_grandmaster = reading.grandmaster
        self._note_sync(reading.ingress_ns, now_s)
        # ptp4l goes on naming a master that it has lost.
        leads = reading.state == "MASTER" and (self._meant or not reading.is_grandmaster)
        grandmaster = identity(reading.grandmaster) if reading.follows or leads else ""
        if why := self._objection(reading, now_s):
            return Status(NONE, 0.0, 0.0, grandmaster, why)
        measured = reading.offset_ns if reading.follows else 0.0
        return Status(reading.state, measured + system_offset_ns, reading.path_delay_ns, grandmaster, "")

    def _note_sync(self, ingress_ns: int, now_s: float) -> None:
        if self._ingress is None or self._ingress[0] != ingress_ns:
            if self._ingress is not None and self._ingress[0] and ingress_ns:
                # Where every reading finds another Sync, they come faster than the readings.
                self._between_s.append(now_s - self._ingress[1] if self._unchanged else 0.0)
            self._ingress, self._unchanged = (ingress_ns, now_s), False
        else:
            self._unchanged = True

    def _patience_s(self, log_sync_interval: int) -> float:
        configured_s = 2.0**log_sync_interval
        told_s = configured_s if configured_s <= _LONGEST_S else 0.0
        # Of two the shorter: one Sync that got lost, or an outage, is no interval.
        seen_s = min(*self._between_s, _LONGEST_S) if len(self._between_s) == 2 else 0.0
        return max(self._silence_s, _MISSED * told_s, _MISSED * seen_s)

    def _objection(self, reading: PtpReading, now_s: float) -> str:
        follows = identity(reading.grandmaster)
        if self._follow and follows not in self._follow:
            return f"the grandmaster is {follows}, not {' or '.join(sorted(self._follow))}"
        if reading.state == "MASTER" and reading.is_grandmaster and not self._meant:
            return "no master: the host has become its own grandmaster"
        assert self._ingress is not None
        silent_s = now_s - self._ingress[1]
        patience_s = self._patience_s(reading.log_sync_interval)
        if reading.state == "SLAVE" and (silent_s >= patience_s or not reading.ingress_ns):
            return f"no Sync from the master for {silent_s:.1f} s"
        return ""
