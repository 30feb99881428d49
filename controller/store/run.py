"""A run folder: ``config.yaml``, ``run.json`` and ``run.sqlite``.

``run.sqlite`` is in WAL mode with ``synchronous=NORMAL``: after ``kill -9`` every committed control slot is
there. A power cut may take the last commits before it (those that the system had not yet written back), but
always whole control slots and always the newest: observation, decision and loop state of a control slot are
one transaction.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import socket
import sqlite3
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from controller.core.observation import Observation
from controller.store.files import write_atomic

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
RUN_FORMAT = "prbandit-run"
CONFIG_FILE, RUN_FILE, DATABASE_FILE = "config.yaml", "run.json", "run.sqlite"

_PRUNE_EVERY = 16
_PACKAGES = ("prbandit", "numpy", "numba", "grpcio", "protobuf", "pyzmq")

_SCHEMA = """
CREATE TABLE starts (
    id INTEGER PRIMARY KEY,
    time_ns INTEGER NOT NULL,
    cell TEXT NOT NULL,
    spec TEXT NOT NULL,
    state TEXT NOT NULL,
    lost INTEGER NOT NULL DEFAULT 0,
    pruned INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX starts_cell ON starts (cell);
CREATE TABLE control_slots (
    id INTEGER PRIMARY KEY,
    start_id INTEGER NOT NULL REFERENCES starts (id),
    cell TEXT NOT NULL,
    control_slot INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    mode TEXT NOT NULL,
    observation BLOB NOT NULL,
    decision TEXT NOT NULL,
    UNIQUE (start_id, control_slot)
);
CREATE INDEX control_slots_cell ON control_slots (cell);
CREATE INDEX control_slots_time ON control_slots (time_ns);
CREATE TABLE state (
    cell TEXT PRIMARY KEY,
    control_slot INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    state TEXT NOT NULL
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    time_ns INTEGER NOT NULL,
    cell TEXT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX events_time ON events (time_ns);
"""


class StoreError(OSError):
    """The run record cannot be written or read; the text names the path."""


class CounterSink(Protocol):
    """What the record counts into, such as ``controller.links.counters.Counters``."""

    def inc(self, name: str, cell: str = "", n: int = 1) -> None: ...


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept: at most ``max_slots`` control slots a cell and nothing older than ``max_days``.

    None is no limit. Old rows go in batches of ``batch``, now and then while new ones are written; the
    latest state of a cell always stays, and the file's free pages are used again. ValueError for a limit that
    is not positive.
    """

    max_slots: int | None = None
    max_days: float | None = None
    batch: int = 200

    def __post_init__(self) -> None:
        for name in ("max_slots", "max_days", "batch"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"retention {name} {value!r} is not a positive number")


@dataclass(frozen=True, slots=True)
class Start:
    """A control loop was created: all that a replay of its control slots needs.

    ``lost`` control slots could not be recorded and ``pruned`` have been deleted by retention; a replay
    gives equal decisions where both are 0.
    """

    id: int
    time_ns: int
    cell: str
    spec: dict[str, Any]
    state: dict[str, Any]
    lost: int = 0
    pruned: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """One step of a loop: ``observation`` closed a control slot, ``decision`` began ``control_slot``."""

    start_id: int
    cell: str
    control_slot: int
    time_ns: int
    mode: str
    observation: Observation
    decision: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened beside the control slots; the cell is empty where it concerns the daemon."""

    time_ns: int
    cell: str
    kind: str
    text: str
    data: dict[str, Any]


def to_json(value: Any) -> str:
    """The one JSON text of a record: compact, no NaN. ValueError where ``value`` is not plain JSON."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def environment() -> dict[str, Any]:
    """Versions of what runs, and the host that it runs on."""
    versions = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "versions": versions,
        "host": {
            "name": socket.gethostname(),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
    }


class RunStore:
    """A run folder, open for one thread. Made by :meth:`create` and :meth:`open`.

    Every method raises :class:`StoreError` where the disk or the file refuses, and ValueError where what it
    was given cannot be recorded; nothing has been written then.
    """

    def __init__(
        self, folder: Path, connection: sqlite3.Connection, *, writable: bool, retention: Retention
    ) -> None:
        self.folder = folder
        self.path = folder / DATABASE_FILE
        self.writable = writable
        self._retention = retention
        self._db = connection
        self._inode = self.path.stat().st_ino
        self._since_prune = 0

    # ---- opening ----------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        folder: Path | str,
        *,
        config: str,
        seed: int | None = None,
        meta: Mapping[str, Any] | None = None,
        retention: Retention | None = None,
    ) -> RunStore:
        """A new run folder with the resolved configuration ``config`` (YAML text).

        ``meta`` goes into ``run.json`` beside versions, seed, host and time of creation. StoreError where the
        folder already holds a run.
        """
        folder = Path(folder)
        path = folder / DATABASE_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            there = path.exists()
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written: {error.strerror or error}") from error
        if there:
            raise StoreError(f"{path}: there is a run already")
        try:
            now = time.time_ns()
            about = {
                "format": RUN_FORMAT,
                "version": SCHEMA_VERSION,
                "created": datetime.fromtimestamp(now // 1_000_000_000, UTC).isoformat(),
                "created_ns": now,
                "seed": seed,
                **environment(),
                **({"meta": dict(meta)} if meta else {}),
            }
            write_atomic(folder / CONFIG_FILE, config.encode())
            write_atomic(folder / RUN_FILE, (json.dumps(about, indent=1) + "\n").encode())
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written: {error.strerror or error}") from error
        # Under another name until it is whole: what is called run.sqlite is a run.
        unfinished = path.with_name(f".{path.name}.new")
        try:
            # The log of a file that was taken away would be played into this one.
            for stale in (unfinished, Path(f"{path}-wal"), Path(f"{path}-shm")):
                stale.unlink(missing_ok=True)
            with _errors(path), contextlib.closing(_connect(unfinished)) as db:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
            os.replace(unfinished, path)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
        return cls.open(folder, write=True, retention=retention)

    @classmethod
    def open(cls, folder: Path | str, *, write: bool = False, retention: Retention | None = None) -> RunStore:
        """An existing run, to read it or (``write``) to go on recording.

        StoreError where there is none, where the file is damaged, and where it has another schema version
        than this controller reads (both are named).
        """
        folder = Path(folder)
        path = folder / DATABASE_FILE
        if not path.is_file():
            raise StoreError(f"{path}: no run record there")
        with _errors(path):
            db = _connect(path) if write else _connect_read_only(path)
            try:
                version = db.execute("PRAGMA user_version").fetchone()[0]
                if version != SCHEMA_VERSION:
                    if version == 0:
                        raise StoreError(f"{path}: is not a run record")
                    raise StoreError(
                        f"{path}: the record has schema version {version}, "
                        f"this controller reads {SCHEMA_VERSION}"
                    )
                if write:
                    _pragmas(db)
                db.execute("SELECT count(*) FROM state").fetchone()
            except BaseException:
                db.close()
                raise
        return cls(folder, db, writable=write, retention=retention or Retention())

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._db.close()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- writing ----------------------------------------------------------------------------------------

    def record_start(
        self, time_ns: int, cell: str, spec: Mapping[str, Any], state: Mapping[str, Any], *, lost: int = 0
    ) -> int:
        """A control loop begins with ``state``; returns the start's id, which its control slots carry."""
        row = (time_ns, cell, _json("loop spec", spec), _json("loop state", state), lost)
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO starts (time_ns, cell, spec, state, lost) VALUES (?, ?, ?, ?, ?)", row
            )
            return int(cursor.lastrowid or 0)

    def record_slot(
        self,
        start_id: int,
        observation: Observation,
        decision: Mapping[str, Any],
        state: Mapping[str, Any],
        *,
        lost: int = 0,
    ) -> None:
        """One control slot, one transaction: what was observed, decided (``Decision.to_record``), learned.

        ``lost`` is how many control slots of the start before this one could not be recorded.
        """
        cell, number, time_ns = decision["cell"], decision["control_slot"], decision["time_ns"]
        where = f"cell {cell}, control slot {number}"
        text = _json(f"{where}: decision", decision)
        state_text = _json(f"{where}: loop state", state)
        blob = zlib.compress(_json(f"{where}: observation", observation.to_dict()).encode())
        with self._transaction():
            try:
                self._db.execute(
                    "INSERT INTO control_slots"
                    " (start_id, cell, control_slot, time_ns, mode, observation, decision)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (start_id, cell, number, time_ns, decision["mode"], blob, text),
                )
            except sqlite3.IntegrityError as error:
                raise ValueError(f"{where}, start {start_id}: cannot be recorded: {error}") from error
            self._db.execute(
                "INSERT OR REPLACE INTO state (cell, control_slot, time_ns, state) VALUES (?, ?, ?, ?)",
                (cell, number, time_ns, state_text),
            )
            if lost:
                self._db.execute("UPDATE starts SET lost = lost + ? WHERE id = ?", (lost, start_id))
        self._since_prune += 1
        if self._since_prune >= _PRUNE_EVERY:
            self._since_prune = 0
            try:
                self.prune(time_ns)
            except StoreError as error:
                # The control slot is on file; what hinders here will hinder the next one too.
                log.warning("retention: %s", error)

    def record_event(
        self, time_ns: int, cell: str, kind: str, text: str = "", data: Mapping[str, Any] | None = None
    ) -> None:
        """Something that happened beside the control slots."""
        row = (time_ns, cell, kind, text, _json(f"event {kind}", data or {}))
        with self._transaction():
            self._db.execute(
                "INSERT INTO events (time_ns, cell, kind, text, data) VALUES (?, ?, ?, ?, ?)", row
            )

    def prune(self, now_ns: int) -> int:
        """Delete one batch of what retention no longer keeps; returns how many control slots went."""
        keep = self._retention
        if keep.max_slots is None and keep.max_days is None:
            return 0
        with self._transaction():
            old: list[tuple[int, int]] = []
            oldest_ns = None if keep.max_days is None else now_ns - int(keep.max_days * 86_400e9)
            if oldest_ns is not None:
                old += self._db.execute(
                    "SELECT id, start_id FROM control_slots WHERE time_ns < ? ORDER BY time_ns LIMIT ?",
                    (oldest_ns, keep.batch),
                ).fetchall()
            if keep.max_slots is not None:
                for (cell,) in self._db.execute("SELECT cell FROM state").fetchall():
                    limit = self._db.execute(
                        "SELECT id FROM control_slots WHERE cell = ? ORDER BY id DESC LIMIT 1 OFFSET ?",
                        (cell, keep.max_slots),
                    ).fetchone()
                    if limit is not None:
                        old += self._db.execute(
                            "SELECT id, start_id FROM control_slots WHERE cell = ? AND id <= ?"
                            " ORDER BY id LIMIT ?",
                            (cell, limit[0], keep.batch),
                        ).fetchall()
            rows = dict(old)
            self._db.executemany("DELETE FROM control_slots WHERE id = ?", ((i,) for i in rows))
            self._db.executemany(
                "UPDATE starts SET pruned = pruned + 1 WHERE id = ?", ((s,) for s in rows.values())
            )
            # A start with nothing left goes too, unless it is its cell's last.
            self._db.execute(
                "DELETE FROM starts WHERE pruned > 0"
                " AND id NOT IN (SELECT max(id) FROM starts GROUP BY cell)"
                " AND NOT EXISTS (SELECT 1 FROM control_slots WHERE start_id = starts.id)"
            )
            first = self._db.execute("SELECT time_ns FROM control_slots ORDER BY id LIMIT 1").fetchone()
            limits = [t for t in (oldest_ns, first[0] if rows and first else None) if t is not None]
            if limits:
                self._db.execute(
                    "DELETE FROM events WHERE id IN"
                    " (SELECT id FROM events WHERE time_ns < ? ORDER BY time_ns LIMIT ?)",
                    (max(limits), keep.batch),
                )
            return len(rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        if not self.writable:
            raise StoreError(f"{self.path}: was opened to be read")
        try:
            there = self.path.stat().st_ino == self._inode
        except OSError:
            there = False
        if not there:
            # SQLite would go on writing into the file that nobody can open any more.
            raise StoreError(f"{self.path}: has been removed or replaced")
        with _errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                raise

    # ---- reading ----------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """Content of ``run.json``: versions, seed, host, time of creation."""
        path = self.folder / RUN_FILE
        try:
            about = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
        if not isinstance(about, dict):
            raise StoreError(f"{path}: is not an object")
        return about

    def config(self) -> str:
        """The resolved configuration, YAML text."""
        path = self.folder / CONFIG_FILE
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error

    def cells(self) -> list[str]:
        """Cells that a control loop was made for, by name."""
        return [cell for (cell,) in self._rows("SELECT DISTINCT cell FROM starts ORDER BY cell")]

    def latest_state(self, cell: str) -> dict[str, Any] | None:
        """Loop state after the last recorded control slot of a cell; None where there is none."""
        for (text,) in self._rows("SELECT state FROM state WHERE cell = ?", (cell,)):
            return self._decoded(f"state of cell {cell}", text)
        return None

    def starts(self, cell: str | None = None) -> Iterator[Start]:
        """Control loops in the order in which they were made."""
        for id_, time_ns, name, spec, state, lost, pruned in self._rows(
            "SELECT id, time_ns, cell, spec, state, lost, pruned FROM starts"
            " WHERE ? IS NULL OR cell = ? ORDER BY id",
            (cell, cell),
        ):
            yield Start(
                id_,
                time_ns,
                name,
                self._decoded(f"start {id_}", spec),
                self._decoded(f"start {id_}", state),
                lost,
                pruned,
            )

    def slots(self, start_id: int) -> Iterator[Slot]:
        """Control slots of one control loop, oldest first."""
        for id_, cell, number, time_ns, mode, blob, text in self._rows(
            "SELECT id, cell, control_slot, time_ns, mode, observation, decision FROM control_slots"
            " WHERE start_id = ? ORDER BY id",
            (start_id,),
        ):
            where = f"control_slots row {id_} (cell {cell}, control slot {number})"
            try:
                observation = Observation.from_dict(json.loads(zlib.decompress(blob)))
            except (zlib.error, ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{self.path}: {where}: observation cannot be read: {error!r}") from error
            yield Slot(start_id, cell, number, time_ns, mode, observation, self._decoded(where, text))

    def decisions(self, cell: str | None = None, *, start_id: int | None = None) -> Iterator[dict[str, Any]]:
        """Decision records of a cell (None: of all) or of one start, in the order of recording."""
        for id_, text in self._rows(
            "SELECT id, decision FROM control_slots"
            " WHERE (?1 IS NULL OR cell = ?1) AND (?2 IS NULL OR start_id = ?2) ORDER BY id",
            (cell, start_id),
        ):
            yield self._decoded(f"control_slots row {id_}", text)

    def events(self, cell: str | None = None) -> Iterator[Event]:
        """Events of a cell (None: all of them), in the order of recording."""
        for id_, time_ns, name, kind, text, data in self._rows(
            "SELECT id, time_ns, cell, kind, text, data FROM events WHERE ? IS NULL OR cell = ? ORDER BY id",
            (cell, cell),
        ):
            yield Event(time_ns, name, kind, text, self._decoded(f"event {id_}", data))

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        with _errors(self.path):
            yield from self._db.execute(query, values)

    def _decoded(self, where: str, text: str) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError as error:
            raise StoreError(f"{self.path}: {where}: not JSON: {error}") from error
        if not isinstance(value, dict):
            raise StoreError(f"{self.path}: {where}: not a JSON object")
        return value


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=5.0, isolation_level=None)


def _connect_read_only(path: Path) -> sqlite3.Connection:
    uri = path.resolve().as_uri()
    db = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
    try:
        db.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        db.close()
        wal = path.with_name(f"{path.name}-wal")
        if os.access(path.parent, os.W_OK) or (wal.exists() and wal.stat().st_size):
            raise
        # A finished run on a read-only medium: WAL wants to write its index beside the file.
        db = sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    return db


def _pragmas(db: sqlite3.Connection) -> None:
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "journal_size_limit=16777216",
    ):
        db.execute(f"PRAGMA {pragma}").fetchone()


def _json(where: str, value: Any) -> str:
    try:
        return to_json(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


# ---- recording beside the control loop --------------------------------------------------------------------


class _LiveStart:
    """A control loop that is being recorded; ``row`` is its id in the file that is open, None: not in it."""

    __slots__ = ("cell", "lost", "row", "spec", "state", "time_ns", "written")

    def __init__(self, time_ns: int, cell: str, spec: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self.time_ns, self.cell, self.spec, self.state = time_ns, cell, spec, state
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


_Item = _SlotItem | _EventItem | _StartItem


class AsyncRunStore:
    """Records a run from a thread of its own, so that no disk ever holds up a control slot.

    The methods ``record_*`` put what they are given in a bounded queue and return at once; turning it into
    JSON is the writer's work, so a caller hands over plain values that it will not change any more. Where the
    disk refuses, the writer keeps what waits, tries again with growing pauses (up to ``retry_s``) and logs
    once a minute. Where the queue is full (``max_items``, or about ``max_bytes``) its oldest control slot or
    event is lost and counted; a start goes on file with its first control slot at the latest.

    The folder is created, or opened where it holds a run (a resumed one gets an event ``run_resumed``).
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
    ) -> None:
        self.folder = Path(folder)
        self._create: dict[str, Any] = {"config": config, "seed": seed, "meta": meta, "retention": retention}
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
        start = _LiveStart(time_ns, cell, spec, state)
        with self._changed:
            self._starts = {h: s for h, s in self._starts.items() if s.cell != cell}
            handle = self._next_handle
            self._next_handle += 1
            self._starts[handle] = start
        self._put(_StartItem(start))
        return handle

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
        """Wait until all that was handed over is on file; False where it is not after ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_s)

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
        if isinstance(item, _StartItem):
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

    def _open_or_create(self) -> None:
        try:
            self._open()
        except OSError:
            raise
        except Exception as error:
            raise StoreError(f"{self.folder}: cannot be written: {error}") from error

    def _open(self) -> None:
        path = self.folder / DATABASE_FILE
        if path.exists():
            store = RunStore.open(self.folder, write=True, retention=self._create["retention"])
            if not self._created_ns:
                versions = environment()["versions"]
                store.record_event(time.time_ns(), "", "run_resumed", data={"versions": versions})
        else:
            store = RunStore.create(self.folder, **self._create)
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

    def _write(self, item: _Item) -> None:
        assert self._store is not None
        if isinstance(item, _EventItem):
            self._store.record_event(*item.event)
            return
        start = item.start
        if start.row is None:
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
