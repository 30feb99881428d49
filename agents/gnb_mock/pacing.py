"""Emulated time against wall time: how many NR slots are due, and which CLOCK_REALTIME an NR slot has."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_LATE_NS: Final = 1_000_000_000
"""A pause longer than this (a suspend, a stopped process) is not caught up."""


class Pacer:
    """Counts the NR slots that are due. Times are nanoseconds of one monotonic clock.

    A run that is late catches up, and :attr:`overruns` counts each time that it was late by more than
    ``tolerance_ns``. One that is later than ``max_late_ns`` goes on where it stood (:attr:`resyncs`).
    """

    def __init__(
        self, start_ns: int, slot_ns: int, *, tolerance_ns: int, max_late_ns: int = MAX_LATE_NS
    ) -> None:
        self._start_ns = start_ns
        self._slot_ns = slot_ns
        self._tolerance_ns = tolerance_ns
        self._max_late_ns = max_late_ns
        self.overruns = 0
        self.resyncs = 0
        self.worst_late_ns = 0

    def due(self, now_ns: int, done: int) -> tuple[int, int]:
        """The NR slot count to advance to, and the ns that a resync has skipped before it (else 0)."""
        late = now_ns - self._start_ns - done * self._slot_ns
        skipped = 0
        if late > self._max_late_ns:
            skipped = late
            self._start_ns += late
            self.resyncs += 1
        elif late > self._tolerance_ns:
            self.overruns += 1
            self.worst_late_ns = max(self.worst_late_ns, late)
        return max(done, (now_ns - self._start_ns) // self._slot_ns), skipped


class CellClock:
    """CLOCK_REALTIME of emulated times, in ns. The two differ by what was skipped up to the time.

    A frame that was on its way during a pause keeps the time at which it was sent, so that its delay holds
    the pause, as it would on a real testbed.
    """

    def __init__(self) -> None:
        self._from: list[int] = []
        self._shift: list[int] = [0]

    @property
    def shifts(self) -> int:
        return len(self._from)

    def skip(self, at_ns: int, by_ns: int) -> None:
        """From emulated time ``at_ns`` on, real time is ``by_ns`` later than before. ``at_ns`` ascends."""
        if self._from and at_ns < self._from[-1]:
            raise ValueError(f"at_ns {at_ns} is before the last skip at {self._from[-1]}")
        self._from.append(at_ns)
        self._shift.append(self._shift[-1] + by_ns)

    def real_ns(self, emulated_ns: int) -> int:
        """One time; 0 means "not known" and stays 0."""
        if not emulated_ns:
            return 0
        return emulated_ns + self._shift[bisect_right(self._from, emulated_ns)]

    def real_column(self, emulated_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """A column of times, as :meth:`real_ns`."""
        if not self._from:
            return emulated_ns
        index = np.searchsorted(np.asarray(self._from, np.int64), emulated_ns, side="right")
        return np.where(emulated_ns == 0, 0, emulated_ns + np.asarray(self._shift, np.int64)[index])
