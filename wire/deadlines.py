"""Requests that have to come to an end: each has a time, and all together have room for so many."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

LATE = "its time is over"
CROWDED = "too many wait, and this peer has the most of them"


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A request that is under way; ``deadline`` is monotonic seconds."""

    peer: str
    deadline: float
    end: Callable[[str], None]


class Deadlines:
    """Ends requests that take longer than ``seconds``, and one for each that begins beyond ``room``.

    For want of room the oldest request of the peer that has the most of them ends: an honest one is over
    before its turn comes, and one peer's many do not crowd out another's. Any thread may call.
    """

    def __init__(self, seconds: float, room: int | None = None) -> None:
        self._seconds = seconds
        self._room = room
        self._changed = threading.Condition()
        self._open: dict[Request, None] = {}
        self._running = False

    def __len__(self) -> int:
        """Requests under way."""
        return len(self._open)

    def begin(self, peer: str, end: Callable[[str], None]) -> Request:
        """A request of ``peer`` begins.

        ``end`` is called with the reason, on any thread, unless :meth:`done` comes before. RuntimeError where
        no thread can be started that would end it: the request has not begun then.
        """
        request = Request(peer, time.monotonic() + self._seconds, end)
        victim = None
        with self._changed:
            if not self._running:
                threading.Thread(target=self._watch, name="deadlines", daemon=True).start()
                self._running = True
            self._open[request] = None
            if self._room is not None and len(self._open) > self._room:
                most, _ = Counter(r.peer for r in self._open).most_common(1)[0]
                victim = next(r for r in self._open if r.peer == most)
                del self._open[victim]
        if victim is not None:
            self._end(victim, CROWDED)
        return request

    def done(self, request: Request) -> None:
        """The request is over; may be called twice."""
        with self._changed:
            self._open.pop(request, None)

    def _watch(self) -> None:
        """Ends what is late, until nothing is under way; all have equal time, so the oldest is the next."""
        while True:
            with self._changed:
                request = next(iter(self._open), None)
                if request is None:
                    self._running = False
                    return
                if (left := request.deadline - time.monotonic()) > 0.0:
                    self._changed.wait(left)
                    continue
                del self._open[request]
            self._end(request, LATE)

    @staticmethod
    def _end(request: Request, why: str) -> None:
        try:
            request.end(why)
        except Exception:
            log.exception("a request of %s could not be ended", request.peer)
