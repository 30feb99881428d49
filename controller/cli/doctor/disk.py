"""The run folder: free space for the night, and whether it can be written and locked."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from controller.cli.doctor.findings import Finding, fail, ok, skipped, warning
from controller.cli.doctor.host import Host
from controller.store.lock import Holder
from controller.store.run import DATABASE_FILE, LOCK_FILE, RunStore, StoreError

BYTES_PER_HOUR = 80e6
"""Of a cell at a control slot of 5 s: ``vr`` with sixteen users, which writes most; ``ar`` writes 12e6."""
NIGHT_H, WEEK_H = 12.0, 168.0
_LEAST_S = 300.0
"""A run so long tells its own rate."""


def check(host: Host) -> Iterator[Finding]:
    if host.config is None:
        yield skipped("disk", "no configuration")
        return
    folder = (host.run or Path(host.config.store.runs)).absolute()
    yield from _record(host, folder)
    yield from _writable(host, folder)
    yield _space(host, folder)


def _record(host: Host, folder: Path) -> Iterator[Finding]:
    """An earlier run in this folder: whole, and nobody else's."""
    if (folder / DATABASE_FILE).exists():
        try:
            with RunStore.open(folder) as store:
                cells = ", ".join(store.cells()) or "no cell yet"
        except StoreError as error:
            yield fail("run", str(error), f"mv {folder} {folder}.damaged, or choose another --run")
            return
        yield ok("run", f"{folder} holds a run ({cells}), which goes on")
    lock = folder / LOCK_FILE
    if not _is_locked(lock):
        return
    holder = Holder.parse(lock.read_text(encoding="utf-8", errors="replace"))
    whose = str(holder) if holder else "a process that the lock file does not name"
    state = host.controller()
    if not isinstance(state, str) and state["run_dir"] and _same(folder, Path(state["run_dir"]), holder):
        yield ok("run", f"{folder}: the controller that runs records there, {whose}")
    else:
        stop = f"stop it (`kill {holder.pid}`), or choose another --run" if holder else "choose another --run"
        yield fail("run", f"{folder}: another process writes there: {whose}", stop)


def _same(folder: Path, run_dir: Path, holder: Holder | None) -> bool:
    if not run_dir.is_absolute() and holder is not None:
        run_dir = Path(f"/proc/{holder.pid}/cwd").resolve() / run_dir
    return run_dir.resolve() == folder.resolve()


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock; it is not taken from anybody, nor made."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _writable(host: Host, folder: Path) -> Iterator[Finding]:
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            yield fail(
                "disk", f"{place}: {why}", f"free space there (`df -h {place}`), or choose another --run"
            )
        elif error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            yield warning("disk", f"{place}: this filesystem has no locks", "choose a --run on a local disk")
        else:
            own = f"`chown` it to the daemon's user (`ls -ld {place}`), or choose another --run"
            yield fail("disk", f"{place} cannot be written: {why}", own)
    else:
        yield ok("disk", f"{place} can be written and has locks")


def _space(host: Host, folder: Path) -> Finding:
    assert host.config is not None
    place = _existing(folder)
    free = shutil.disk_usage(place).free
    rate, whose = _rate(host, folder)
    lasts_h = free / rate
    text = (
        f"{free / 1e9:.1f} GB free at {place}, {rate / 1e6:.0f} MB an hour ({whose}):"
        f" enough for {lasts_h / 24:.1f} days"
    )
    keep = host.config.store.retain_days
    less = "free space, or bound the record with store.retain_days"
    if lasts_h < NIGHT_H:
        return fail("disk", text, less)
    if keep is not None and keep * 24 * rate > free:
        return warning(
            "disk", f"{text}; store.retain_days keeps {keep:g}", "lower store.retain_days, or free space"
        )
    if keep is None and lasts_h < WEEK_H:
        return warning("disk", f"{text}, and store.retain_days is not set", less)
    return ok("disk", text)


def _rate(host: Host, folder: Path) -> tuple[float, str]:
    """Bytes an hour: of the run that is there, else the most that was measured."""
    assert host.config is not None
    database = folder / DATABASE_FILE
    if database.exists():
        try:
            with RunStore.open(folder) as store:
                seconds = store.recorded_s()
            if seconds >= _LEAST_S:
                return database.stat().st_size / seconds * 3600, "as this run did"
        except (OSError, ValueError):
            pass
    scale = len(host.config.cells) * max(1.0, 5.0 / host.config.control.control_slot_s)
    return BYTES_PER_HOUR * scale, "the most that was measured"
