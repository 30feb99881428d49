"""Records a run beside the control loop, from a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.core.observation import Observation
from controller.store.lock import Lock
from controller.store.run import (
    DATABASE_FILE,
    CounterSink,
    Retention,
    RunStore,
    StoreError,
    environment,
    lock_folder,
)

log = logging.getLogger(__name__)


class _LiveStart:
    """A control loop that is being recorded; ``row`` is its id in the file that is open, None: not in it."""

    __slots__ = ("cell", "config", "lost", "row", "spec", "state", "time_ns", "written")

    def __init__(
        self, time_ns: int, cell: str, spec: Mapping[str, Any], state: Mapping[str, Any], config: str
    ) -> None:
        self.time_ns, self.cell, self.spec, self.state = time_ns, cell, spec, state
        self.config = config
        self.row: int | None = None
        self.written = 0
        self.lost = 0


@dataclass(frozen=True, slots=True)
class _SlotItem:
    start: _LiveStart
    observation: Observation
    decision: Mapping[str, Any]
    state: Mapping[str, Any]
    weight: int


@dataclass(frozen=True, slots=True)
class _EventItem:
    event: tuple[int, str, str, str, Mapping[str, Any]]
    weight: int = 1024


@dataclass(frozen=True, slots=True)
class _StartItem:
    start: _LiveStart
    weight: int = 4096


@dataclass(frozen=True, slots=True)
class _ConfigItem:
    """Another configuration; the starts under it bring it along where this is lost."""

    time_ns: int
    config: str
    weight: int = 4096


_Item = _SlotItem | _EventItem | _StartItem | _ConfigItem


class AsyncRunStore:
    """Records a run from a thread of its own, so that no disk ever holds up a control slot.

    The methods ``record_*`` put what they are given in a bounded queue and return at once; turning it into
    JSON is the writer's work, so a caller hands over plain values that it will not change any more. Where the
    disk refuses, the writer keeps what waits, tries again with growing pauses (up to ``retry_s``) and logs
    once a minute. Where the queue is full (``max_items``, or about ``max_bytes``) its oldest control slot or
    event is lost and counted; a start goes on file with its first control slot at the latest.

    The folder is created, or opened where it holds a run (a resumed one gets an event ``run_resumed``, and
    one ``configuration_changed`` where that begins another part of the run). Its lock is taken at once
    (``lock`` is one that the caller has taken): Locked where another process has it. It is let go of at the
    end. A folder whose lock cannot be written is one that refuses.
    Counters: ``store_slots_total``, ``store_errors_total``, ``store_lost_total`` and
    ``store_refused_total`` (cannot be recorded at all).
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        config: str,
        seed: int | None = None,
        meta: Mapping[str, Any] | None = None,
        retention: Retention | None = None,
        counters: CounterSink | None = None,
        max_items: int = 256,
        max_bytes: int = 64 << 20,
        retry_s: float = 30.0,
        report_every_s: float = 60.0,
        lock: Lock | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._lock = lock
        if lock is None:
            with contextlib.suppress(StoreError):  # the writer will say so, and try again
                self._lock = lock_folder(self.folder)
        self._config = self._under = config  # the caller's by now; that of what has been written
        self._seed, self._meta, self._retention = seed, meta, retention
        self._counters = counters
        self._max_items, self._max_bytes = max_items, max_bytes
        self._retry_s, self._report_every_s = retry_s, report_every_s
        self._changed = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._bytes = 0
        self._busy = False
        self._closing = False
        self._next_handle = 1
        self._starts: dict[int, _LiveStart] = {}
        self._store: RunStore | None = None
        self._created_ns = 0
        self._reported: dict[str, float] = {}
        self.error = ""
        """Why nothing can be written at present; empty where all is well."""
        self.lost = 0
        """Control slots and events that will never be in the record."""
        self._thread = threading.Thread(target=self._run, name="run-record", daemon=True)
        self._thread.start()

    # ---- the caller's side ------------------------------------------------------------------------------

    def record_start(self, time_ns: int, cell: str, spec: Mapping[str, Any], state: Mapping[str, Any]) -> int:
        """As :meth:`RunStore.record_start`; the handle is for :meth:`record_slot` of this object alone.

        A new start of a cell ends the one before it.
        """
        start = _LiveStart(time_ns, cell, spec, state, self._config)
        with self._changed:
            self._starts = {h: s for h, s in self._starts.items() if s.cell != cell}
            handle = self._next_handle
            self._next_handle += 1
            self._starts[handle] = start
        self._put(_StartItem(start))
        return handle

    def configured(self, time_ns: int, config: str) -> None:
        """From here on another configuration counts, as after a reload (YAML text). One that still waits to
        be written and under which no control loop began is none of the run's any more."""
        self._config = config
        with self._changed:
            # The item at the head is the writer's.
            waiting = [i for i in range(1, len(self._queue)) if isinstance(self._queue[i], _ConfigItem)]
            for i in reversed(waiting):
                self._bytes -= self._queue[i].weight
                del self._queue[i]
        self._put(_ConfigItem(time_ns, config))

    def record_slot(
        self,
        handle: int,
        observation: Observation,
        decision: Mapping[str, Any],
        state: Mapping[str, Any],
    ) -> None:
        """As :meth:`RunStore.record_slot`. ValueError for a handle whose start has ended."""
        start = self._starts.get(handle)
        if start is None:
            raise ValueError(f"start {handle} is not one that is being recorded")
        ues = sum(len(r.ue_id) for r in observation.reports)
        weight = 4096 + 64 * len(observation.frames) + 512 * ues
        self._put(_SlotItem(start, observation, decision, state, weight))

    def record_event(
        self, time_ns: int, cell: str, kind: str, text: str = "", data: Mapping[str, Any] | None = None
    ) -> None:
        """As :meth:`RunStore.record_event`."""
        self._put(_EventItem((time_ns, cell, kind, text, data or {})))

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all that was handed over before is on file; False where it is not in ``timeout_s``."""
        with self._changed:
            last = self._queue[-1] if self._queue else None
            return self._changed.wait_for(lambda: all(item is not last for item in self._queue), timeout_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what waits and end the thread; False where something was lost. May be repeated."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self.lost

    def _put(self, item: _Item) -> None:
        with self._changed:
            if self._closing:
                self._lose(item)
                return
            self._queue.append(item)
            self._bytes += item.weight
            while len(self._queue) > self._max_items or self._bytes > self._max_bytes:
                # The item at the head is the writer's while it is busy.
                oldest = 1 if self._busy else 0
                if oldest >= len(self._queue):
                    break
                dropped = self._queue[oldest]
                del self._queue[oldest]
                self._bytes -= dropped.weight
                self._lose(dropped)
            self._changed.notify_all()

    def _lose(self, item: _Item) -> None:
        if isinstance(item, _StartItem | _ConfigItem):
            return  # its first control slot brings it along
        cell = item.event[1] if isinstance(item, _EventItem) else item.start.cell
        if isinstance(item, _SlotItem):
            item.start.lost += 1
        self.lost += 1
        self._count("store_lost_total", cell)

    def _count(self, name: str, cell: str = "") -> None:
        if self._counters is not None:
            self._counters.inc(name, cell)

    # ---- the writer's side ------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = 0.0
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                if pause_s and not self._closing:
                    self._changed.wait_for(lambda: self._closing, pause_s)
                else:
                    self._changed.wait_for(lambda: self._queue or self._closing or self._store is None)
                closing = self._closing
                item = self._queue[0] if self._queue else None
                self._busy = item is not None
            try:
                if self._store is None:
                    self._open_or_create()
                if item is not None:
                    self._write(item)
                pause_s = 0.0
                self._recovered()
            except OSError as error:
                pause_s = min(self._retry_s, max(0.2, 2 * pause_s))
                self._failed(error)
                if closing:
                    break
                continue
            except Exception as error:
                # This item can never be recorded; the next one may be.
                self._report("refused", f"not recorded: {error}")
                self._count("store_refused_total", item.start.cell if isinstance(item, _SlotItem) else "")
                with self._changed:
                    self.lost += 1
                    if isinstance(item, _SlotItem):
                        item.start.lost += 1
            with self._changed:
                if item is not None:
                    self._queue.popleft()
                    self._bytes -= item.weight
                elif closing:
                    break
        with self._changed:
            for left in self._queue:
                self._lose(left)
            self._queue.clear()
            self._bytes = 0
            self._busy = False
            self._changed.notify_all()
        if self._store is not None:
            with contextlib.suppress(sqlite3.Error):
                self._store.close()
        if self._lock is not None:
            self._lock.close()

    def _open_or_create(self) -> None:
        try:
            self._open()
        except OSError:
            raise
        except Exception as error:
            raise StoreError(f"{self.folder}: cannot be written: {error}") from error

    def _open(self) -> None:
        if self._lock is None or not self._lock.held:
            if self._lock is not None:
                self._lock.close()
            self._lock = lock_folder(self.folder)
        path = self.folder / DATABASE_FILE
        if path.exists():
            store = RunStore.open(self.folder, write=True, retention=self._retention, lock=self._lock)
            try:
                if not self._created_ns:
                    self._resumed(store)
            except BaseException:
                store.close()
                raise
        else:
            store = RunStore.create(
                self.folder,
                config=self._under,
                seed=self._seed,
                meta=self._meta,
                retention=self._retention,
                lock=self._lock,
            )
        created_ns = store.about()["created_ns"]
        if created_ns != self._created_ns:
            # Another run than before: what it does not hold is lost, its starts are written anew. (An inode
            # would not tell: a new file may inherit it.)
            with self._changed:
                for start in self._starts.values():
                    start.row = None
                    start.lost += start.written
                    start.written = 0
        self._created_ns, self._store = created_ns, store

    def _resumed(self, store: RunStore) -> None:
        """A run that was there goes on: said once, before anything else is written."""
        assert self._lock is not None
        left = self._lock.taken_over
        text = f"the lock was left behind by {left}" if left is not None else ""
        now, versions = time.time_ns(), environment()["versions"]
        store.record_event(now, "", "run_resumed", text, data={"versions": versions})
        self._begin_part(store, now, self._under)

    def _begin_part(self, store: RunStore, time_ns: int, config: str) -> None:
        self._under = config
        number, changes = store.begin_part(time_ns, config, seed=self._seed, meta=self._meta)
        if changes:
            text = f"part {number} of the run: {'; '.join(changes)}"
            store.record_event(time_ns, "", "configuration_changed", text, data={"part": number})

    def _write(self, item: _Item) -> None:
        assert self._store is not None
        if isinstance(item, _ConfigItem):
            self._begin_part(self._store, item.time_ns, item.config)
            return
        if isinstance(item, _EventItem):
            self._store.record_event(*item.event)
            return
        start = item.start
        if start.row is None:
            self._begin_part(self._store, start.time_ns, start.config)
            start.row = self._store.record_start(start.time_ns, start.cell, start.spec, start.state)
        if isinstance(item, _SlotItem):
            with self._changed:
                lost = start.lost
            self._store.record_slot(start.row, item.observation, item.decision, item.state, lost=lost)
            with self._changed:
                start.lost -= lost
                start.written += 1
            self._count("store_slots_total", start.cell)

    def _failed(self, error: OSError) -> None:
        if self._store is not None:
            with contextlib.suppress(sqlite3.Error):
                self._store.close()
            self._store = None
        self.error = str(error)
        self._count("store_errors_total")
        self._report("failed", f"{error} ({len(self._queue)} items wait; the controller goes on)")

    def _report(self, kind: str, text: str) -> None:
        now = time.monotonic()
        if now - self._reported.get(kind, -float("inf")) >= self._report_every_s:
            self._reported[kind] = now
            log.error("run record %s: %s (%d lost so far)", self.folder, text, self.lost)

    def _recovered(self) -> None:
        if self.error:
            log.warning("run record %s: written again (%d items lost)", self.folder, self.lost)
            self.error = ""
            self._reported.pop("failed", None)
