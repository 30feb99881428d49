"""One writer at a time: a lock file that names its holder.

What counts is the kernel's lock on the file (``flock``), which ends with the process however it ends; the
text in the file is for the message to the next one. A filesystem without locks has the text alone: then a
holder counts for dead where its process is gone, or its machine has been started anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

log = logging.getLogger(__name__)

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_READ_TRIES, _READ_PAUSE_S = 10, 0.02
_TAKE_TRIES = 5


class Locked(OSError):
    """Another process writes there; the text names it, and what to do."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock. ``started`` is when the process did, in the kernel's ticks since ``boot``, and
    ``namespace`` that of its pid; "" where the kernel does not tell."""

    pid: int
    host: str
    boot: str
    namespace: str
    started: str
    since: str
    command: str

    @classmethod
    def of_this_process(cls) -> Self:
        return cls(
            os.getpid(),
            socket.gethostname(),
            _boot(),
            _namespace(),
            _started(os.getpid()),
            datetime.fromtimestamp(int(time.time()), UTC).isoformat(),
            " ".join([Path(sys.argv[0]).name.replace("__main__.py", "prbandit"), *sys.argv[1:]])[:100],
        )

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for what no holder wrote, as an empty file: who had it let go of it."""
        try:
            data = json.loads(text)
            return cls(int(data.pop("pid")), **{name: str(value) for name, value in data.items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def __str__(self) -> str:
        return f"pid {self.pid} on host {self.host} since {self.since} ({self.command})"

    @property
    def elsewhere(self) -> bool:
        """On a machine of which nothing can be told here. The same name with another boot id is this one
        before it was started anew."""
        return self.boot != _boot() and self.host != socket.gethostname()

    @property
    def alive(self) -> bool | None:
        """By its pid and when that process began, as a pid is used again; None where that cannot be told."""
        if self.elsewhere:
            return None
        if self.boot != _boot():
            return False
        if self.namespace != _namespace():
            return None
        return bool(self.started) and _started(self.pid) == self.started


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id")


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Field 22 of proc_pid_stat(5); "" where there is no such process. The name before it may hold blanks."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


class Lock:
    """A lock file of this process, by :meth:`take` or :meth:`adopt`; :meth:`close` lets go of it."""

    def __init__(self, path: Path, fd: int | None) -> None:
        self.path = path
        self._fd = fd
        self._inode = path.stat().st_ino
        self.taken_over: Holder | None = None
        """Who left it behind without an end."""

    @classmethod
    def take(cls, path: Path, *, what: str = "this folder") -> Self:
        """Take the lock; the folder is made where there is none.

        ``what`` is what it protects, for the message. :class:`Locked` where another process has it, or one on
        a host of which nothing can be told; OSError where the file cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_TAKE_TRIES):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            lock = None
            try:
                lock = cls._locked(path, fd, what)
            finally:
                if lock is None or lock.fileno() != fd:
                    os.close(fd)
            if lock is not None:
                return lock
        raise Locked(f"{path.parent}: {what} is taken by one process after the other; try again")

    @classmethod
    def _locked(cls, path: Path, fd: int, what: str) -> Self | None:
        """None where the file is not the one any more that was opened."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(_taken(path, what, _holder(path))) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            log.warning(
                "%s: this filesystem has no locks (%s): who holds it is told by the file's text alone",
                path,
                error.strerror,
            )
            return cls._claimed(path, what)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(fd).st_ino:
                before = Holder.parse(_read(str(path)))
                if before is not None and before.elsewhere:
                    raise Locked(_unknown(path, what, before))
                lock = cls(path, fd)
                lock._write(before)
                return lock
        return None

    @classmethod
    def _claimed(cls, path: Path, what: str) -> Self | None:
        """Without a kernel's lock; None where another process was faster."""
        text = _read(str(path))
        before = Holder.parse(text)
        if before is not None and (alive := before.alive) is not False:
            raise Locked(_taken(path, what, before) if alive else _unknown(path, what, before))
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            os.rename(path, aside)
            if _read(str(aside)) != text:
                os.rename(aside, path)
                return None
            aside.unlink()
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except (FileNotFoundError, FileExistsError):
            return None
        lock = cls(path, fd)
        lock._write(before)
        return lock if lock.held else None

    @classmethod
    def adopt(cls, path: Path, fd: int) -> Self:
        """The lock that the process which started this one had taken and handed on as ``fd``; it ends when
        both have let go, and goes on naming that one. ValueError where it is none of ``path``."""
        try:
            same = os.fstat(fd).st_ino == path.stat().st_ino
        except OSError:
            same = False
        if not same:
            raise ValueError(f"{path}: descriptor {fd} is not that file's")
        os.set_inheritable(fd, False)
        return cls(path, fd)

    def _write(self, before: Holder | None) -> None:
        self.taken_over = before
        if before is not None:
            log.warning("%s: taken over from %s, which is gone", self.path, before)
        text = json.dumps(asdict(Holder.of_this_process())) + "\n"
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
            os.ftruncate(self.fileno(), 0)
            os.pwrite(self.fileno(), text.encode(), 0)

    def fileno(self) -> int:
        if self._fd is None:
            raise ValueError(f"{self.path}: the lock has been let go of")
        return self._fd

    @property
    def held(self) -> bool:
        """Whether the file is still there: who removes it lets the next one in."""
        try:
            return self._fd is not None and self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Let go, where no other process holds it as well. May be called twice."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        own = Holder.parse(_read(str(self.path)))
        if own is not None and own.pid == os.getpid():
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
        os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _holder(path: Path) -> Holder | None:
    """Who has the lock: its text comes a moment after it."""
    for _ in range(_READ_TRIES):
        if (holder := Holder.parse(_read(str(path)))) is not None:
            return holder
        time.sleep(_READ_PAUSE_S)
    return None


def _taken(path: Path, what: str, holder: Holder | None) -> str:
    whose = holder or f"a process that {path} does not name"
    return f"{path.parent}: {what} is being written by another process: {whose}; stop it or choose another"


def _unknown(path: Path, what: str, holder: Holder) -> str:
    return (
        f"{path.parent}: {what} was left to {holder}, of which nothing can be told from here"
        f" (host {socket.gethostname()}); where that process is over, remove {path}"
    )
