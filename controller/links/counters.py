"""Counters and complaints of the links: what went wrong is counted, and named in the log now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

import grpc

_GUARD = {
    grpc.StatusCode.INVALID_ARGUMENT: ("malformed", "Calls refused: the request does not parse"),
    grpc.StatusCode.PERMISSION_DENIED: (
        "denied",
        "Calls refused: not for the role of the certificate, or it is revoked",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("crowded", "Calls refused or ended: too many of one peer"),
    grpc.StatusCode.DEADLINE_EXCEEDED: ("late", "Calls ended: no request, or no end, within the time for it"),
}


def guard_counters(link: str) -> dict[str, str]:
    """Help text of the counters of what :class:`wire.serving.Guard` refuses on a link."""
    return {f"{link}_{kind}_total": text for kind, text in _GUARD.values()}


def guard_refusals(link: str, complain: Complaints) -> Callable[[grpc.StatusCode, str], None]:
    """What a :class:`wire.serving.Guard` of that link is to call."""
    return lambda code, text: complain(f"{link}_{_GUARD[code][0]}_total", text)


class Counters:
    """Monotonic counters by name and cell; any thread may count.

    >>> counters = Counters()
    >>> counters.inc("ran_malformed_total", cell="cell-1")
    >>> counters.snapshot()
    {('ran_malformed_total', 'cell-1'): 1}
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[tuple[str, str]] = Counter()

    def inc(self, name: str, cell: str = "", n: int = 1) -> None:
        with self._lock:
            self._values[name, cell] += n

    def get(self, name: str, cell: str | None = None) -> int:
        """The value of one counter; without ``cell`` its sum over all cells."""
        with self._lock:
            return sum(v for (n, c), v in self._values.items() if n == name and cell in (None, c))

    def snapshot(self) -> dict[tuple[str, str], int]:
        """``(name, cell) -> value``; the cell is empty where none is to blame or it is not known."""
        with self._lock:
            return dict(self._values)


class Complaints:
    """Counts every complaint and logs one of a kind at most every ``every_s`` seconds.

    The number of complaints of that kind that were not logged in between stands in the next one.
    """

    def __init__(
        self,
        counters: Counters,
        logger: logging.Logger,
        *,
        every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = counters
        self._logger = logger
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}

    def __call__(self, name: str, text: str, cell: str = "") -> None:
        """Counts ``name`` and logs ``text``, which names the place."""
        self.counters.inc(name, cell)
        now = self._clock()
        with self._lock:
            since, unlogged = self._logged.get((name, cell), (-float("inf"), 0))
            if now - since < self._every_s:
                self._logged[name, cell] = (since, unlogged + 1)
                return
            self._logged[name, cell] = (now, 0)
        more = f" ({unlogged} more of this kind before)" if unlogged else ""
        self._logger.warning("%s%s%s", f"cell {cell}: " if cell else "", text, more)
