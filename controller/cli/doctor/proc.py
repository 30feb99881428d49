"""Processes of this host, from /proc (Linux): who listens on a port, and with which capabilities."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CAP_SYS_ADMIN = 21
_LISTEN = "0A"
"""TCP_LISTEN in /proc/net/tcp."""


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"pid {self.pid} ({' '.join(self.arguments)[:120] or 'a program without a command line'})"

    def runs(self, command: str) -> bool:
        """Whether this is ``prbandit COMMAND``, however it was started."""
        return any(
            argument == command and _is_prbandit(before)
            for before, argument in zip(self.arguments, self.arguments[1:], strict=False)
        )

    def option(self, name: str) -> str | None:
        """The value of an option of its command line."""
        for i, argument in enumerate(self.arguments):
            if argument == name and i + 1 < len(self.arguments):
                return self.arguments[i + 1]
            if argument.startswith(f"{name}="):
                return argument.partition("=")[2]
        return None


def _is_prbandit(argument: str) -> bool:
    return (
        Path(argument).name == "prbandit"
        or argument in ("controller.cli", "controller.cli.__main__")
        or (argument.endswith("controller/cli/__main__.py"))
    )


def processes() -> Iterator[Process]:
    """Every process whose command line can be read, by pid."""
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            yield Process(pid, tuple(a.decode(errors="replace") for a in line.split(b"\0")[:-1]))


def listeners(port: int) -> list[Process]:
    """Who listens on a TCP port; empty where nobody does, or it is another user's process."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    return [p for p in processes() if sockets and sockets & set(_descriptors(p.pid))]


def _listening(port: int) -> Iterator[str]:
    """Inodes of the sockets that listen on a port."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _descriptors(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield os.readlink(entry.path)


def has_capability(number: int, pid: int | str = "self") -> bool | None:
    """Whether a process has a capability in effect; None where that cannot be read."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return None if found is None else bool(int(found[1], 16) >> number & 1)
