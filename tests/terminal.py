"""A process on a terminal of its own, as a person would have it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from typing import Self

_CODES = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]|\x1b[=>78]"
)
_HOME = "\x1b[H"


class Terminal:
    """Runs a command (default: of ``prbandit``) on a pseudo terminal; leaving the block kills it."""

    __test__ = False

    def __init__(
        self, *arguments: str, columns: int = 110, rows: int = 40, command: Sequence[str] = ()
    ) -> None:
        self._master, slave = pty.openpty()
        self.resize(columns, rows, fd=slave)
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [*(command or (sys.executable, "-m", "controller.cli")), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
            env=environment,
        )
        os.close(slave)
        self._said = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end has been closed
            while data := os.read(self._master, 65536):
                self._said += data
                if b"\x1b[6n" in data:  # where the cursor is
                    os.write(self._master, b"\x1b[1;1R")

    @property
    def raw(self) -> str:
        """All that was written."""
        return bytes(self._said).decode(errors="replace")

    @property
    def text(self) -> str:
        """All that was written, without what only moves and colours."""
        return _CODES.sub("", self.raw).replace("\r", "")

    @property
    def screen(self) -> str:
        """What a view that begins each time at the top left corner has shown last, whole."""
        last = self.raw.rpartition("\x1b[?1049l")[0] or self.raw
        shown = last.split(_HOME)
        return _CODES.sub("", shown[-2] if len(shown) > 2 else "").replace("\r", "")

    def resize(self, columns: int, rows: int, fd: int | None = None) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._master if fd is None else fd, termios.TIOCSWINSZ, size)
        if fd is None:
            os.killpg(self.process.pid, signal.SIGWINCH)

    def send(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait(self, timeout_s: float = 60.0) -> int:
        """The exit status, once all that was written is read."""
        status = self.process.wait(timeout_s)
        self._reader.join(5.0)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(5.0)
        os.close(self._master)
