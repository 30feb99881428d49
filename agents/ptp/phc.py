"""How far the system clock is from a network card's PTP hardware clock (PHC).

With hardware time stamps ptp4l steers the PHC, and phc2sys the system clock after it. Frames carry the
system clock's time, so its distance from the PHC is part of their error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TRIES = 5


class PhcError(OSError):
    """The PHC cannot be read; the text names the device."""


@dataclass(frozen=True, slots=True)
class SystemOffset:
    """CLOCK_REALTIME less UTC by the PHC, ns, and by how much that can be wrong."""

    offset_ns: float
    uncertainty_ns: float


def compare(
    phc: Callable[[], int],
    utc_offset_s: int,
    system: Callable[[], int] = time.time_ns,
    monotonic: Callable[[], int] = time.monotonic_ns,
) -> SystemOffset:
    """Read the PHC between two readings of the system clock, five times; the narrowest pair counts.

    ``phc``, ``system`` and ``monotonic`` give ns; the PHC is ``utc_offset_s`` ahead of UTC.
    """
    best: SystemOffset | None = None
    for _ in range(_TRIES):
        begin, before = monotonic(), system()
        reading = phc()
        after, end = system(), monotonic()
        # The width by a clock that nobody sets: a step between the readings would make it negative.
        half = (end - begin) / 2
        offset = (before - reading) + (after - before) / 2 + utc_offset_s * 1e9
        if best is None or half < best.uncertainty_ns:
            best = SystemOffset(offset, half)
    assert best is not None
    return best


class Phc:
    """A PHC device such as ``/dev/ptp0``, open for reading. Raises :class:`PhcError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def close(self) -> None:
        """Close the device. May be called twice; a later reading opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def compare(self, utc_offset_s: int) -> SystemOffset:
        """As :func:`compare`."""
        try:
            if self._fd < 0:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            # The dynamic clock of a file descriptor: FD_TO_CLOCKID of clock_getres(2).
            clock = (~self._fd << 3) | 3
            return compare(lambda: time.clock_gettime_ns(clock), utc_offset_s)
        except OSError as error:
            self.close()
            raise PhcError(f"{self.path}: the PHC cannot be read: {error.strerror or error}") from error
