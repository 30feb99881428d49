"""Limits of the operating system that a process of ours sets itself."""

from __future__ import annotations

import resource


def raise_open_files() -> None:
    """Raise the soft limit of open files, 1024 by custom, to the hard one: every connection takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit_data(size: int) -> None:
    """Limit private memory, soft and hard, to ``size`` bytes, or to the hard limit where that is lower."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        size = min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
