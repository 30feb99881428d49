"""Which PRBandit this is: the version of the package, and the commit that it was made from.

A checkout asks git. What was built knows no git: its commit is in ``wire/_build.py``, which ``setup.py``
writes into a wheel, an image or an archive of the sources. Where neither is there, nothing is said of one.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from importlib import import_module, metadata
from pathlib import Path

UNKNOWN = "unknown"
_DIGITS = 12
_GIT_S = 10.0
_COMMIT = re.compile(r"[0-9a-f]{7,64}(?:\.dirty)?")


@cache
def version() -> str:
    """Version of the installed package; "unknown" where it is not installed."""
    try:
        return metadata.version("prbandit")
    except metadata.PackageNotFoundError:
        return UNKNOWN


@cache
def commit() -> str:
    """The commit, 12 hexadecimal digits, and ``.dirty`` after it where tracked files were changed since; ""
    where it is not known. Found once a process."""
    root = Path(__file__).resolve().parents[1]
    return of_checkout(root) if (root / ".git").exists() else _of_build()


def full_version() -> str:
    """Both as one version of PEP 440: ``0.1.0+g0123456789ab``, ``0.1.0+g0123456789ab.dirty``; or the
    version alone."""
    return f"{version()}+g{commit()}" if commit() else version()


def of_checkout(root: Path) -> str:
    """The commit of the checkout whose top is ``root``, as :func:`commit`."""
    if not (root / ".git").exists():
        return ""
    head = _git(root, "rev-parse", "--verify", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    if head is None or changes is None:
        return ""
    return abbreviated(head.strip() + (".dirty" if changes.strip() else ""))


def abbreviated(commit: str) -> str:
    """A commit of any length as :func:`commit` gives it; "" for what is none."""
    if not _COMMIT.fullmatch(commit):
        return ""
    digits, dot, dirty = commit.partition(".")
    return f"{digits[:_DIGITS]}{dot}{dirty}"


def _of_build() -> str:
    try:
        return abbreviated(str(import_module("wire._build").COMMIT))
    except (ImportError, AttributeError):
        return ""


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where it is not installed, refuses or hangs."""
    command = ["git", "-C", str(root), "--no-optional-locks", *arguments]
    # Of a hook of git, which names another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_S,
            check=True,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout
