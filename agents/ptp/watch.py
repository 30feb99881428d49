"""What a host may say of its clock, from what ptp4l said one reading after the other. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from agents.ptp.client import PtpReading
from agents.ptp.messages import identity

NONE = "NONE"
"""The state that is told while the host follows no clock that it is meant to follow."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is told: ``state`` is SLAVE, MASTER, ... or :data:`NONE`, and then ``reason`` says why.

    ``offset_ns`` is that of CLOCK_REALTIME from the grandmaster; it and the path delay are 0 with NONE,
    where no value can be given.
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
    SLAVE for seconds after the last Sync: after ``silence_s`` seconds without one its offset is history.
    """

    def __init__(
        self, *, grandmaster: bool = False, follow: Collection[str] = (), silence_s: float = 3.0
    ) -> None:
        if not silence_s > 0:
            raise ValueError(f"silence {silence_s!r} s is not a positive time")
        self._meant = grandmaster
        self._follow = frozenset(follow)
        self._silence_s = silence_s
        self._ingress: tuple[int, float] | None = None
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
        if self._ingress is None or self._ingress[0] != reading.ingress_ns:
            self._ingress = (reading.ingress_ns, now_s)
        if why := self._objection(reading, now_s):
            return Status(NONE, 0.0, 0.0, identity(reading.grandmaster), why)
        measured = reading.offset_ns if reading.state in ("SLAVE", "UNCALIBRATED") else 0.0
        return Status(
            reading.state,
            measured + system_offset_ns,
            reading.path_delay_ns,
            identity(reading.grandmaster),
            "",
        )

    def _objection(self, reading: PtpReading, now_s: float) -> str:
        follows = identity(reading.grandmaster)
        if self._follow and follows not in self._follow:
            return f"the grandmaster is {follows}, not {' or '.join(sorted(self._follow))}"
        if reading.state == "MASTER" and reading.is_grandmaster and not self._meant:
            return "no master: the host has become its own grandmaster"
        assert self._ingress is not None
        silent_s = now_s - self._ingress[1]
        if reading.state == "SLAVE" and (silent_s >= self._silence_s or not reading.ingress_ns):
            return f"no Sync from the master for {silent_s:.1f} s"
        return ""
