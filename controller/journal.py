"""What is written down of a running controller: the log, the counters, the run record, the live decisions.

Whoever has something to tell says it here, once; where it goes is decided here alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from controller.core.observation import Observation
from controller.links.counters import Counters

log = logging.getLogger("prbandit.controller")

REPEAT_S = 5.0
"""An event that may come often (:meth:`Journal.repeated`) is written so often at most."""
BURST = 30
"""Events of one kind and cell that are written one after the other; of a flood one every REPEAT_S is then."""


class Event(StrEnum):
    """The kinds of events."""

    CELL_JOINED = "cell_joined"
    CELL_LOST = "cell_lost"
    NOT_CONTROLLED = "not_controlled"
    LEARNING_RESUMED = "learning_resumed"
    LEARNING_RESTARTED = "learning_restarted"
    LEARNING_TAKEN_OVER = "learning_taken_over"
    STEP_FAILED = "step_failed"
    ALLOCATOR_FAILED = "allocator_failed"
    RESCUED = "rescued"
    RESCUE_ENDED = "rescue_ended"
    QUOTA_NOT_HONOURED = "quota_not_honoured"
    LEASE_LAPSED = "lease_lapsed"
    BAD_REPORT = "bad_report"
    NO_MAC_REPORT = "no_mac_report"
    UNKNOWN_SLICE = "unknown_slice"
    UNKNOWN_UE = "unknown_ue"
    UE_FOLLOWED = "ue_followed"
    UE_IDLE = "ue_idle"
    UE_FOUND = "ue_found"
    QOS_REFUSED = "qos_refused"
    SETTINGS_REFUSED = "settings_refused"
    HOST_LEFT = "host_left"
    HOST_LOST = "host_lost"
    FLOWS_FORGOTTEN = "flows_forgotten"
    CLOCK_STEPPED = "clock_stepped"
    CLOCK_FAULT = "clock_fault"
    CLOCK_FAULT_ENDED = "clock_fault_ended"
    FIT_FAILED = "fit_failed"
    HANDED_OVER = "handed_over"
    HAND_OVER_FAILED = "hand_over_failed"
    COMMAND_DROPPED = "command_dropped"
    COMMAND_RESUMED = "command_resumed"
    SET_MODE = "set_mode"
    SET_POLICY = "set_policy"
    SET_BUDGETS = "set_budgets"
    SET_OPTIONS = "set_options"
    SET_QUOTA = "set_quota"
    SET_LEASE = "set_lease"
    RELOADED = "reloaded"
    OPERATOR_CALL = "operator_call"
    CALL_REFUSED = "call_refused"
    QUOTA_ENDED = "quota_ended"


_COMMANDS = frozenset(
    {
        Event.OPERATOR_CALL,
        Event.RELOADED,
        Event.SET_BUDGETS,
        Event.SET_LEASE,
        Event.SET_MODE,
        Event.SET_OPTIONS,
        Event.SET_POLICY,
        Event.SET_QUOTA,
    }
)
"""What an operator did: always written."""
_EXPECTED = _COMMANDS | {
    Event.CELL_JOINED,
    Event.CLOCK_FAULT_ENDED,
    Event.COMMAND_RESUMED,
    Event.HANDED_OVER,
    Event.HOST_LEFT,
    Event.LEARNING_RESUMED,
    Event.LEARNING_TAKEN_OVER,
    Event.QUOTA_ENDED,
    Event.RESCUE_ENDED,
    Event.UE_FOUND,
}
"""What happens in good order: logged as information, all else as a warning."""


class Store(Protocol):
    """The run record, as :class:`controller.store.recorder.AsyncRunStore` keeps it."""

    def record_start(
        self, time_ns: int, cell: str, spec: Mapping[str, Any], state: Mapping[str, Any]
    ) -> int: ...

    def record_slot(
        self, handle: int, observation: Observation, decision: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None: ...

    def record_event(
        self, time_ns: int, cell: str, kind: str, text: str = "", data: Mapping[str, Any] | None = None
    ) -> None: ...

    def flush(self, timeout_s: float) -> bool: ...


def _fields(cell: str, kind: Event) -> dict[str, str]:
    """Of a line in the log, for who reads it as JSON."""
    return {"cell": cell, "event": kind.value}


@dataclass(slots=True)
class _Written:
    """Of one kind and cell: how many events may be written now, how many were not since the last that was."""

    left: float
    time_ns: int
    thinned: int = 0


class Journal:
    """Takes events, starts and control slots of any cell; events from any thread.

    ``store`` is the run record, None for none. ``decided`` is called with the cell and the record of each
    decision (live subscribers, metrics), ``happened`` with the cell and the kind of each event that is
    written. ``time_ns`` reads CLOCK_REALTIME, or the virtual clock.
    """

    def __init__(
        self,
        counters: Counters | None = None,
        store: Store | None = None,
        *,
        decided: Callable[[Mapping[str, Any]], object] | None = None,
        happened: Callable[[str, str], object] | None = None,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.counters = counters if counters is not None else Counters()
        self._store = store
        self._decided = decided
        self._happened = happened
        self._time_ns = time_ns
        self._thinning = threading.Lock()
        self._repeated: dict[tuple[str, Event], int] = {}
        self._written: dict[tuple[str, Event], _Written] = {}
        self._starts: dict[str, int] = {}

    def event(self, cell: str, kind: Event, text: str, data: Mapping[str, Any] | None = None) -> None:
        """Something that happened: logged, counted and recorded, with ``data`` (plain JSON values); of a
        flood (:data:`BURST`) most is only counted."""
        if kind not in _COMMANDS:
            thinned = self._may_write(cell, kind)
            if thinned is None:
                self.counters.inc("events_thinned_total", cell)
                return
            if thinned:
                text = f"{text} ({thinned} more of its kind were not written)"
        level = logging.INFO if kind in _EXPECTED else logging.WARNING
        log.log(
            level, "%s%s: %s", f"cell {cell}: " if cell else "", kind.value, text, extra=_fields(cell, kind)
        )
        self.counters.inc("events_total", cell)
        if self._happened:
            self._happened(cell, kind.value)
        if self._store:
            self._store.record_event(self._time_ns(), cell, kind.value, text, data)

    def repeated(self, cell: str, kind: Event, text: str, counter: str = "") -> None:
        """An event of a kind that may come often: each is counted in ``counter``, few are written."""
        if counter:
            self.counters.inc(counter, cell)
        now = self._time_ns()
        with self._thinning:
            last = self._repeated.get((cell, kind))
            if last is not None and 0 <= now - last < REPEAT_S * 1e9:
                return
            self._repeated[cell, kind] = now
        self.event(cell, kind, text)

    def _may_write(self, cell: str, kind: Event) -> int | None:
        """How many events of the kind were not written since the last that was; None: this is not either."""
        now = self._time_ns()
        with self._thinning:  # servers' threads refuse calls while the control thread tells of its own
            w = self._written.setdefault((cell, kind), _Written(BURST, now))
            w.left = min(BURST, w.left + max(0, now - w.time_ns) / (REPEAT_S * 1e9))
            w.time_ns = now
            if w.left < 1:
                w.thinned += 1
                return None
            w.left -= 1
            thinned, w.thinned = w.thinned, 0
            return thinned

    def failed(self, cell: str, kind: Event, text: str, counter: str, *, trace: bool = False) -> None:
        """An event of a failure in the controller itself, with the traceback of what is being handled."""
        self.counters.inc(counter, cell)
        if trace:
            log.exception("cell %s: %s", cell, kind.value, extra=_fields(cell, kind))
        self.event(cell, kind, text)

    def written(self, timeout_s: float) -> bool:
        """Whether all that was told until now is on file, after ``timeout_s`` at most; where nothing is
        recorded nothing is missing."""
        return self._store is None or self._store.flush(timeout_s)

    def count(self, name: str, cell: str, n: int = 1) -> None:
        """Count without an event."""
        self.counters.inc(name, cell, n)

    def start(self, cell: str, spec: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """A control loop begins with ``state``; the cell's next control slots are its."""
        if self._store:
            self._starts[cell] = self._store.record_start(self._time_ns(), cell, spec, state)

    def slot(self, observation: Observation, record: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """One control slot: what was observed, decided (``Decision.to_record``) and learned."""
        if self._store:
            self._store.record_slot(self._starts[record["cell"]], observation, record, state)
        if self._decided:
            self._decided(record)
