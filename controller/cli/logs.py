"""The log of every process: a line an event, of which those that repeat are thinned."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

BURST = 3
"""So many lines of a kind are written one after the other."""
EVERY_S = 10.0
"""Then one in so many seconds."""
KINDS = 1000
"""Kinds of lines that are told apart; of more the oldest are forgotten."""

_VARIES = re.compile(
    r"0x[0-9a-f]+|(?<=:)\d{5}\b|(?<![\w.:/-])[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w:/-]|\.\d)", re.IGNORECASE
)
"""Numbers that stand alone, not those of names and addresses; and the ports that clients are given."""


@dataclass(slots=True)
class _Kind:
    """Lines that differ in their numbers alone: the last one, when one was written, how many may be, how many
    were not."""

    record: logging.LogRecord
    since: float
    left: int = BURST
    omitted: int = 0


class Thinned(logging.StreamHandler):
    """Writes to a stream, standard error by default. Lines of one logger and level that differ in numbers
    alone are of one kind.

    Of a kind the first :data:`BURST` are written, then one every :data:`EVERY_S` with the number of those
    that were left out since; where no more come, that is told alone, with the next line of any kind or at the
    end. Debugging lines are all written.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._settle_at = -float("inf")
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        if now >= self._settle_at:
            self._settle_at = now + 1.0
            self._settle(now)
        if record.levelno > logging.DEBUG and not self._due(record, now):
            return
        super().emit(record)

    def _due(self, record: logging.LogRecord, now: float) -> bool:
        try:
            text = record.getMessage()
        except Exception:  # emit says what is wrong with it
            return True
        key = record.name, record.levelno, _VARIES.sub("#", text)
        kind = self._kinds.pop(key, None) or _Kind(record, now)
        self._kinds[key] = kind  # the newest is last
        if len(self._kinds) > KINDS:
            self._tell(self._kinds.pop(next(iter(self._kinds))))
        if kind.left:
            kind.left, kind.since = kind.left - 1, now
            return True
        kind.record = record
        kind.omitted += 1
        return False

    def _settle(self, now: float) -> None:
        """Tells of what was left out in a time that is over, and lets a line of the kind pass again."""
        for kind in self._kinds.values():
            if not kind.left and now - kind.since >= EVERY_S:
                # Where it went on repeating, the summary is the line that was due.
                kind.left = 0 if kind.omitted else BURST
                kind.since = now
                self._tell(kind)

    def _tell(self, kind: _Kind) -> None:
        """Writes the last line of a kind with the number of those like it that were not written."""
        if kind.omitted:
            more = f" ({kind.omitted - 1} more of this kind left out)" if kind.omitted > 1 else ""
            last = logging.makeLogRecord(kind.record.__dict__)
            last.msg, last.args = f"{kind.record.getMessage()}{more}", None
            kind.omitted = 0
            super().emit(last)

    def close(self) -> None:
        self.acquire()
        try:
            for kind in self._kinds.values():
                self._tell(kind)
            self._kinds.clear()
        finally:
            self.release()
        super().close()
