"""Ports for processes that are about to be started."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_240
_TRIES = 1000


def free_ports(n: int) -> list[int]:
    """Ports of loopback that nobody listens on now, below those that the kernel gives to connections.

    One from the kernel's range may be a connection's by the time that it is listened on. OSError where there
    are not so many.
    """
    try:
        above = int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        above = 32_768
    # The ports of parallel runs must differ, so nothing here is seeded.
    candidates = random.SystemRandom().sample(range(_LOWEST, max(above, _LOWEST + _TRIES)), _TRIES)
    ports: list[int] = []
    with ExitStack() as held:
        for port in candidates:
            try:
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == n:
                return ports
    raise OSError(f"127.0.0.1: {n} free ports were not found")


def claim_port(port: int) -> socket.socket | None:
    """A port of loopback for a process that is about to be started; None where it is another's.

    Others in this network namespace who claim it are refused until what this gives is closed.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0prbandit-port-{port}")
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        claim.close()
        return None
    return claim


def free_port() -> int:
    """One of :func:`free_ports`."""
    return free_ports(1)[0]
