"""A run folder: ``config.yaml``, ``run.json``, ``run.sqlite`` and ``run.lock``.

A run has parts (:mod:`controller.store.parts`): a start, or a reload, with another configuration, versions or
seed begins one. All of them are in ``run.sqlite``; ``config.yaml`` and ``run.json`` are those of the latest.
Who writes holds the lock.

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
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from controller.core.names import config_hash
from controller.core.observation import Command, Observation
from controller.store import record
from controller.store.files import write_atomic
from controller.store.lock import Lock, Locked
from controller.store.parts import Part
from wire.definitions import plugins
from wire.version import full_version

log = logging.getLogger(__name__)

SCHEMA_VERSION = 3
"""Version 1 has records of version 1, which are upgraded as they are read; versions 1 and 2 know no parts."""
RUN_FORMAT = "prbandit-run"
CONFIG_FILE, RUN_FILE, DATABASE_FILE, LOCK_FILE = "config.yaml", "run.json", "run.sqlite", "run.lock"

_SCHEMA_WITH_PARTS = 3
_PRUNE_EVERY = 16
_PACKAGES = ("numpy", "numba", "grpcio", "protobuf", "pyzmq")

_PARTS = """
CREATE TABLE parts (
    id INTEGER PRIMARY KEY,
    time_ns INTEGER NOT NULL,
    config TEXT NOT NULL,
    about TEXT NOT NULL
);
"""
_SCHEMA = f"""{_PARTS}
CREATE TABLE starts (
    id INTEGER PRIMARY KEY,
    time_ns INTEGER NOT NULL,
    cell TEXT NOT NULL,
    spec TEXT NOT NULL,
    state TEXT NOT NULL,
    lost INTEGER NOT NULL DEFAULT 0,
    pruned INTEGER NOT NULL DEFAULT 0,
    part INTEGER NOT NULL DEFAULT 1
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


Upgrade = Callable[[Mapping[str, Any]], Mapping[str, Any]]


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
    gives equal decisions where both are 0. ``part`` is the number of the run's part that it is in.
    """

    id: int
    time_ns: int
    cell: str
    spec: dict[str, Any]
    state: dict[str, Any]
    lost: int = 0
    pruned: int = 0
    part: int = 1


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
class Recorded:
    """A control slot as it is on record: ``decision`` began it, ``observation`` (None where it was not asked
    for) is of the one before. ``part`` is the number of the run's part, ``start_id`` that of its start."""

    part: int
    start_id: int
    decision: dict[str, Any]
    observation: Observation | None


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
    """Versions of what runs, of what brings policies and services along, and the host that it runs on."""
    versions = {
        "prbandit": full_version(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    versions |= plugins.versions()
    return {
        "versions": versions,
        "host": {
            "name": socket.gethostname(),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
    }


def _inode(path: Path) -> int:
    """0 where there is no such file."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


class RunStore:
    """A run folder, open for one thread. Made by :meth:`create` and :meth:`open`.

    Every method raises :class:`StoreError` where the disk or the file refuses, and ValueError where what it
    was given cannot be recorded; nothing has been written then.
    """

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        *,
        writable: bool,
        retention: Retention,
        own_lock: Lock | None = None,
    ) -> None:
        self.folder = folder
        self.path = folder / DATABASE_FILE
        self.writable = writable
        self._own_lock = own_lock
        self._retention = retention
        self._db = connection
        self._log = Path(f"{self.path}-wal")
        self._inode, self._log_inode = _inode(self.path), _inode(self._log)
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
        lock: Lock | None = None,
    ) -> RunStore:
        """A new run folder with the resolved configuration ``config`` (YAML text).

        ``meta`` goes into ``run.json`` beside versions, seed, host and time of creation. StoreError where the
        folder already holds a run, Locked where another process writes there; ``lock`` is the folder's where
        the caller holds it.
        """
        folder = Path(folder)
        with _locked(folder, lock) as own_lock:
            return cls._create(folder, config, _about(seed, meta), retention, own_lock)

    @classmethod
    def _create(
        cls,
        folder: Path,
        config: str,
        about: Mapping[str, Any],
        retention: Retention | None,
        own_lock: Lock | None,
    ) -> RunStore:
        path = folder / DATABASE_FILE
        if path.exists():
            raise StoreError(f"{path}: there is a run already")
        part = Part(1, time.time_ns(), config, about)
        _write_files(folder, part, part.time_ns, [part])
        # Under another name until it is whole: what is called run.sqlite is a run.
        unfinished = path.with_name(f".{path.name}.new")
        try:
            # The log of a file that was taken away would be played into this one.
            for stale in (unfinished, Path(f"{path}-wal"), Path(f"{path}-shm")):
                stale.unlink(missing_ok=True)
            with _errors(path), contextlib.closing(_connect(unfinished)) as db:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
                _insert_part(db, part)
            os.replace(unfinished, path)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
        return cls._open(folder, True, retention, own_lock)

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        write: bool = False,
        retention: Retention | None = None,
        lock: Lock | None = None,
    ) -> RunStore:
        """An existing run, to read it or (``write``) to go on recording; ``lock`` is as in :meth:`create`.

        StoreError where there is none, where the file is damaged, and where it has another schema version
        than this controller reads (both are named).
        """
        folder = Path(folder)
        if not (folder / DATABASE_FILE).is_file():
            raise StoreError(f"{folder / DATABASE_FILE}: no run record there")
        if not write:
            return cls._open(folder, False, retention, None)
        with _locked(folder, lock) as own_lock:
            return cls._open(folder, True, retention, own_lock)

    @classmethod
    def _open(cls, folder: Path, write: bool, retention: Retention | None, own_lock: Lock | None) -> RunStore:
        path = folder / DATABASE_FILE
        with _errors(path):
            db = _connect(path) if write else _connect_read_only(path)
            try:
                version = db.execute("PRAGMA user_version").fetchone()[0]
                if not 1 <= version <= SCHEMA_VERSION:
                    if version == 0:
                        raise StoreError(f"{path}: is not a run record")
                    raise StoreError(
                        f"{path}: the record has schema version {version}, "
                        f"this controller reads up to {SCHEMA_VERSION}"
                    )
                if write:
                    _pragmas(db)
                    if version < _SCHEMA_WITH_PARTS:
                        _add_parts(db, folder)
                    # From here on there may be records that an earlier controller does not know.
                    db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                db.execute("SELECT count(*) FROM state").fetchone()
            except BaseException:
                db.close()
                raise
        return cls(folder, db, writable=write, retention=retention or Retention(), own_lock=own_lock)

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._db.close()
        if self._own_lock is not None:
            self._own_lock.close()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- writing ----------------------------------------------------------------------------------------

    def begin_part(
        self, time_ns: int, config: str, *, seed: int | None = None, meta: Mapping[str, Any] | None = None
    ) -> tuple[int, list[str]]:
        """What is recorded from here on was made under ``config`` (YAML text), ``seed``, these versions.

        Returns the number of the part, and what is otherwise than in the one before where that makes a new
        one; ``config.yaml`` and ``run.json`` are its then.
        """
        about = _about(seed, meta)
        parts = list(self.parts())
        latest = parts[-1]
        part = latest
        if not latest.same(config, about):
            part = Part(latest.number + 1, time_ns, config, about)
            parts.append(part)
        if part is not latest:
            with self._transaction():
                _insert_part(self._db, part)
        try:
            written, created_ns = self.about(), self.about()["created_ns"]
            stale = self.config() != part.config or written.get("part", 1) != part.number
        except (StoreError, KeyError):
            stale, created_ns = True, parts[0].time_ns
        if stale:
            _write_files(self.folder, part, created_ns, parts)
        return part.number, part.changes(latest) if part is not latest else []

    def record_start(
        self, time_ns: int, cell: str, spec: Mapping[str, Any], state: Mapping[str, Any], *, lost: int = 0
    ) -> int:
        """A control loop begins with ``state``; returns the start's id, which its control slots carry. It is
        in the latest part."""
        row = (time_ns, cell, _json("loop spec", spec), _json("loop state", state), lost)
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO starts (time_ns, cell, spec, state, lost, part)"
                " VALUES (?, ?, ?, ?, ?, (SELECT max(id) FROM parts))",
                row,
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

    def flush(self, timeout_s: float = 0.0) -> bool:
        """As :meth:`controller.store.recorder.AsyncRunStore.flush`; here all is on file at once."""
        return True

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
            self._db.execute(
                "DELETE FROM parts WHERE id NOT IN (SELECT part FROM starts)"
                " AND id < (SELECT min(part) FROM starts)"
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
        # SQLite would go on writing into a file that nobody can open any more.
        if _inode(self.path) != self._inode:
            raise StoreError(f"{self.path}: has been removed or replaced")
        if self._log_inode and _inode(self._log) != self._log_inode:
            with _errors(self.path):  # it is open here still: what it holds goes into the database
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            raise StoreError(f"{self._log}: has been removed or replaced")
        with _errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
                self._log_inode = self._log_inode or _inode(self._log)
            except BaseException:
                if self._db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                raise

    # ---- reading ----------------------------------------------------------------------------------------

    def parts(self) -> Iterator[Part]:
        """The parts of the run, in the order in which they began; at least one."""
        if not self._has_parts:
            yield _part_of_files(self.folder)
            return
        for number, time_ns, config, about in self._rows(
            "SELECT id, time_ns, config, about FROM parts ORDER BY id"
        ):
            yield Part(number, time_ns, config, self._decoded(f"part {number}", about))

    @property
    def _has_parts(self) -> bool:
        return next(self._rows("PRAGMA user_version"))[0] >= _SCHEMA_WITH_PARTS

    def about(self) -> dict[str, Any]:
        """Content of ``run.json``: the number of the latest part, its versions, seed and host, and the run's
        time of creation."""
        path = self.folder / RUN_FILE
        try:
            about = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
        if not isinstance(about, dict):
            raise StoreError(f"{path}: is not an object")
        return about

    def config(self) -> str:
        """The resolved configuration of the latest part, YAML text."""
        path = self.folder / CONFIG_FILE
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error

    def cells(self) -> list[str]:
        """Cells that a control loop was made for, by name."""
        return [cell for (cell,) in self._rows("SELECT DISTINCT cell FROM starts ORDER BY cell")]

    def recorded_s(self) -> float:
        """Seconds of control that are in the record, those between its starts left out; of the cell that has
        most."""
        query = (
            "SELECT max(s) FROM (SELECT sum(d) AS s FROM (SELECT cell, max(time_ns) - min(time_ns) AS d"
            " FROM control_slots GROUP BY start_id) GROUP BY cell)"
        )
        ((longest_ns,),) = self._rows(query)
        return (longest_ns or 0) / 1e9

    def latest_state(self, cell: str) -> dict[str, Any] | None:
        """Loop state after the last recorded control slot of a cell; None where there is none."""
        for (text,) in self._rows("SELECT state FROM state WHERE cell = ?", (cell,)):
            return self._decoded(f"state of cell {cell}", text, record.upgrade_state)
        return None

    def waiting(self, cell: str) -> list[Command]:
        """What operators had asked of a cell that no recorded control slot has carried out, in order. Events
        say so in ``command``, and in ``control_slot`` during which it was."""
        query = "SELECT control_slot, time_ns FROM state WHERE cell = ?"
        slot, time_ns = next(self._rows(query, (cell,)), (-1, 0))
        out = []
        for id_, text in self._rows(
            "SELECT id, data FROM events WHERE cell = ? AND time_ns >= ? AND kind LIKE 'set_%' ORDER BY id",
            (cell, time_ns),
        ):
            data = self._decoded(f"event {id_}", text)
            try:
                # A loop may have counted its control slots anew, a clock may have been set back: not both.
                if data["control_slot"] >= slot:
                    out.append(Command(*data["command"]))
            except (KeyError, TypeError):  # of a version that did not keep them
                continue
        return out

    def starts(self, cell: str | None = None) -> Iterator[Start]:
        """Control loops in the order in which they were made."""
        has_parts = self._has_parts
        part_column = "part" if has_parts else "1"
        for id_, time_ns, name, spec, state, lost, pruned, part in self._rows(
            f"SELECT id, time_ns, cell, spec, state, lost, pruned, {part_column} FROM starts"
            " WHERE ? IS NULL OR cell = ? ORDER BY id",
            (cell, cell),
        ):
            made = self._decoded(f"start {id_}", spec, record.upgrade_spec)
            began = self._decoded(f"start {id_}", state, record.upgrade_state)
            if not has_parts:
                made, began = _as_before(f"{self.path}: start {id_}", made, began)
            yield Start(id_, time_ns, name, made, began, lost, pruned, part)

    def slots(self, start_id: int) -> Iterator[Slot]:
        """Control slots of one control loop, oldest first."""
        for id_, cell, number, time_ns, mode, blob, text in self._rows(
            "SELECT id, cell, control_slot, time_ns, mode, observation, decision FROM control_slots"
            " WHERE start_id = ? ORDER BY id",
            (start_id,),
        ):
            where = f"control_slots row {id_} (cell {cell}, control slot {number})"
            observation = self._observation(where, blob)
            decision = self._decoded(where, text, record.upgrade)
            yield Slot(start_id, cell, number, time_ns, mode, observation, decision)

    def observation(self, start_id: int, control_slot: int) -> Observation | None:
        """The observation from which one start's ``control_slot`` was decided; None where it is not kept."""
        for id_, blob in self._rows(
            "SELECT id, observation FROM control_slots WHERE start_id = ? AND control_slot = ?",
            (start_id, control_slot),
        ):
            return self._observation(f"control_slots row {id_} (control slot {control_slot})", blob)
        return None

    def _observation(self, where: str, blob: bytes) -> Observation:
        try:
            return Observation.from_dict(record.upgrade_observation(json.loads(zlib.decompress(blob))))
        except (zlib.error, *record.NOT_A_RECORD) as error:
            raise StoreError(f"{self.path}: {where}: observation cannot be read: {error!r}") from error

    def decisions(self, cell: str | None = None, *, start_id: int | None = None) -> Iterator[dict[str, Any]]:
        """Decision records of a cell (None: of all) or of one start, in the order of recording."""
        for id_, text in self._rows(
            "SELECT id, decision FROM control_slots"
            " WHERE (?1 IS NULL OR cell = ?1) AND (?2 IS NULL OR start_id = ?2) ORDER BY id",
            (cell, start_id),
        ):
            yield self._decoded(f"control_slots row {id_}", text, record.upgrade)

    def decisions_by_part(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Decision records of all cells in the order of recording, each with the number of its part."""
        return ((recorded.part, recorded.decision) for recorded in self.recorded())

    def recorded(self, *, observed: bool = False) -> Iterator[Recorded]:
        """The control slots of all cells in the order of recording; ``observed``: with their observations."""
        part_of = {start.id: start.part for start in self.starts()}
        blob_column = "observation" if observed else "NULL"
        for id_, start_id, text, blob in self._rows(
            f"SELECT id, start_id, decision, {blob_column} FROM control_slots ORDER BY id"
        ):
            if start_id not in part_of:  # it began after the starts had been read
                part_of |= {start.id: start.part for start in self.starts()}
            where = f"control_slots row {id_}"
            decision = self._decoded(where, text, record.upgrade)
            observation = self._observation(where, blob) if observed else None
            yield Recorded(part_of[start_id], start_id, decision, observation)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read in the block is the run at one moment, however much is recorded meanwhile. While it
        lasts, SQLite's log grows by what is recorded."""
        with _errors(self.path):
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            with _errors(self.path):
                self._db.execute("ROLLBACK")

    def decided(self, cell: str, control_slot: int | None = None) -> list[tuple[Start, dict[str, Any]]]:
        """The decision records that began one control slot of a cell (None: the latest), in the order of
        recording, each with the start that it is of: a run may have counted its control slots anew."""
        started = {start.id: start for start in self.starts(cell)}
        values: tuple[Any, ...]
        if control_slot is None:
            query, values = "ORDER BY id DESC LIMIT 1", (cell,)
        else:
            query, values = "AND control_slot = ? ORDER BY id", (cell, control_slot)
        return [
            (started[start_id], self._decoded(f"control_slots row {id_}", text, record.upgrade))
            for id_, start_id, text in self._rows(
                f"SELECT id, start_id, decision FROM control_slots WHERE cell = ? {query}", values
            )
            if start_id in started  # else it began after the starts had been read
        ]

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

    def _decoded(self, where: str, text: str, upgrade: Upgrade | None = None) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.path}: {where}: not JSON: {error}") from error
        if not isinstance(value, dict):
            raise StoreError(f"{self.path}: {where}: not a JSON object")
        if upgrade is None:
            return value
        try:
            return dict(upgrade(value))
        except record.NOT_A_RECORD as error:
            raise StoreError(f"{self.path}: {where}: cannot be read: {error}") from error


def lock_folder(folder: Path) -> Lock:
    """The lock of a run folder, which is made where there is none; Locked where another process has it."""
    try:
        return Lock.take(folder / LOCK_FILE, what="the run")
    except Locked:
        raise
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _locked(folder: Path, lock: Lock | None) -> Iterator[Lock | None]:
    """The lock that a store takes for itself, let go of where opening fails; None where its caller has it."""
    own = None if lock is not None else lock_folder(folder)
    try:
        yield own
    except BaseException:
        if own is not None:
            own.close()
        raise


def _about(seed: int | None, meta: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"seed": seed, **environment(), **({"meta": dict(meta)} if meta else {})}


def _write_files(folder: Path, part: Part, created_ns: int, parts: Sequence[Part]) -> None:
    about = {
        "format": RUN_FORMAT,
        "version": SCHEMA_VERSION,
        "created": _iso(created_ns),
        "created_ns": created_ns,
        "part": part.number,
        "config_hash": config_hash(part.config),
        **part.about,
    }
    if len(parts) > 1:
        about["parts"] = [part_about(p, before) for p, before in zip(parts, (None, *parts), strict=False)]
    try:
        write_atomic(folder / CONFIG_FILE, part.config.encode())
        write_atomic(folder / RUN_FILE, (json.dumps(about, indent=1) + "\n").encode())
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror or error}") from error


def part_about(part: Part, before: Part | None) -> dict[str, Any]:
    """A part as plain JSON values: ``part``, ``began``, ``began_ns``, ``config_hash``, ``seed``,
    ``versions``, ``host``, ``meta`` and what has ``changed`` since the one before."""
    changed = [] if before is None else part.changes(before)
    began = {"part": part.number, "began": _iso(part.time_ns), "began_ns": part.time_ns}
    return {**began, "config_hash": config_hash(part.config), **part.about, "changed": changed}


def _iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).isoformat()


def _part_of_files(folder: Path) -> Part:
    """The part of a run from before there were any; what cannot be read of it is not known."""
    try:
        about = json.loads((folder / RUN_FILE).read_bytes())
        config = (folder / CONFIG_FILE).read_text(encoding="utf-8")
        known = {k: about[k] for k in ("seed", "versions", "host", "meta") if k in about}
        return Part(1, int(about["created_ns"]), config, known)
    except (OSError, ValueError, KeyError, TypeError):
        return Part(1, 0, "", {})


def _insert_part(db: sqlite3.Connection, part: Part) -> None:
    db.execute(
        "INSERT INTO parts (id, time_ns, config, about) VALUES (?, ?, ?, ?)",
        (part.number, part.time_ns, part.config, to_json(dict(part.about))),
    )


def _as_before(where: str, spec: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(dict(part) for part in record.static_at_full(spec, state))
    except record.NOT_A_RECORD as error:
        raise StoreError(f"{where}: cannot be read: {error}") from error


def _add_parts(db: sqlite3.Connection, folder: Path) -> None:
    """To a record from before there were parts: what it holds is its first."""
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute(_PARTS)
        db.execute("ALTER TABLE starts ADD COLUMN part INTEGER NOT NULL DEFAULT 1")
        _insert_part(db, _part_of_files(folder))
        for id_, spec, state in db.execute("SELECT id, spec, state FROM starts").fetchall():
            made, began = _as_before(
                f"start {id_}", record.upgrade_spec(json.loads(spec)), record.upgrade_state(json.loads(state))
            )
            db.execute(
                "UPDATE starts SET spec = ?, state = ? WHERE id = ?", (to_json(made), to_json(began), id_)
            )
        db.execute(f"PRAGMA user_version={_SCHEMA_WITH_PARTS}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


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
