"""This installation, and the limits that the system sets it."""

from __future__ import annotations

import platform
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import zmq

from controller.cli.doctor.findings import Finding, fail, ok, warning
from controller.cli.processes import MIN_ADDRESS_SPACE
from controller.links.ran_front import MEMORY_BYTES
from wire import PROTOCOL_VERSION
from wire.version import full_version

OPEN_FILES = 4096
MEMORY = 2 * MEMORY_BYTES
"""What a controller may come to use: the unit's MemoryMax is not below it."""
_CGROUP = Path("/sys/fs/cgroup")


def versions() -> Iterator[Finding]:
    """Of PRBandit, Python and libzmq."""
    yield ok("version", f"prbandit {full_version()}, protocol {PROTOCOL_VERSION}")
    yield ok("version", f"Python {platform.python_version()}")
    if zmq.has("curve"):
        yield ok("version", f"libzmq {zmq.zmq_version()} with CURVE")
    else:
        text = f"libzmq {zmq.zmq_version()} without CURVE: no address beyond loopback"
        yield fail("version", text, "pip install --force-reinstall --only-binary pyzmq pyzmq")


def limits() -> Iterator[Finding]:
    """Of open files, address space and memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        text = f"{hard} open files at most: every connection takes one"
        yield warning("limits", text, "ulimit -Hn 16384 as root; systemd: LimitNOFILE=16384")
    else:
        yield ok("limits", f"{'any number of' if hard == resource.RLIM_INFINITY else hard} open files")
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY and space < MIN_ADDRESS_SPACE:
        text = f"the address space is limited to {space >> 20} MiB, {MIN_ADDRESS_SPACE >> 20} MiB are needed"
        yield fail(
            "limits", text, "ulimit -v unlimited; limit the memory itself instead (systemd: MemoryMax=)"
        )
    available, where = _memory()
    if available is not None and available < MEMORY:
        text = f"{available >> 20} MiB of memory {where}, a controller may need {MEMORY >> 20} MiB"
        yield warning(
            "limits", text, "stop other programs (`ps --sort=-rss aux | head`), or raise MemoryMax="
        )
    elif available is not None:
        yield ok("limits", f"{available >> 20} MiB of memory {where}")


def _memory() -> tuple[int | None, str]:
    """Bytes that can be had: of the host, or what is left in the control group of this process."""
    found = [
        (size, where)
        for size, where in ((_of_host(), "available"), (_of_group(), "left in this group"))
        if size
    ]
    return min(found, default=(None, ""))


def _of_host() -> int:
    """0 where it cannot be read."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def _of_group() -> int:
    """0 where there is no limit, or it cannot be read."""
    with suppress(OSError, ValueError):
        group = _CGROUP / Path("/proc/self/cgroup").read_text().rpartition("::/")[2].strip()
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    return 0
