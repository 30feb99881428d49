"""What holds for all tests: signals as a terminal gives them, and a line at the end on what was skipped."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Generator
from types import FrameType
from typing import Any

import pytest

_IGNORED = "PRBANDIT_TESTS_IGNORE"
"""Names of the signals that this run ignores, for the workers of it."""


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Who is sent a signal that has a handler has it by default again in the processes that it starts."""


def pytest_configure() -> None:
    """A process under nohup, in the background of a shell, or started by one that blocks signals hands on to
    its children that they ignore them: those that a test stops by such a signal would run for ever. This
    process goes on ignoring what it was told to."""
    told = os.environ.get(_IGNORED, "").split()
    ignored = [
        s
        for s in (
            signal.SIGHUP,
            signal.SIGINT,
            signal.SIGQUIT,
            signal.SIGTERM,
            signal.SIGUSR1,
            signal.SIGUSR2,
        )
        if s.name in told or signal.getsignal(s) is signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, _nothing)
    os.environ[_IGNORED] = " ".join(s.name for s in ignored)
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


CAUSES = {
    "a C compiler (apt install gcc libc6-dev)": r"C compiler|\b(gcc|cc)\b",
    "CMake and the C agent's libraries (see README)": r"C agent|cmake|libzmq|nanopb|protoc|g\+\+|clang",
    "linuxptp (apt install linuxptp iproute2)": r"ptp4l|linuxptp|pmc",
    "PTP hardware": r"hardware clock",
    "systemd (apt install systemd)": r"systemd",
    "git": r"git is not",
    "iperf3 (apt install iperf3)": r"iperf3",
    "../shared/data": r"shared/data|pose traces|the real style",
    "an OAI tree (PRBANDIT_OAI_TREES)": r"OAI",
    "CUDA": r"CUDA",
    "the extra {} (.venv/bin/pip install -e '.[{}]')": r"prbandit\[(\w+)\]|extra[s]?[ :`'\"]+(\w+)",
}
"""What a skipped test wants, by what its reason says; the first that fits."""


def cause(reason: str) -> str:
    """What a test that was skipped for ``reason`` wants."""
    for wanted, said in CAUSES.items():
        if match := re.search(said, reason):
            extra = next(filter(None, match.groups()), "")
            return wanted.format(extra, extra)
    return reason


def closing_line(reasons: list[str]) -> str:
    """How many tests were skipped and what they want, the most wanted first."""
    counts = Counter(map(cause, reasons)).most_common()
    return f"skipped: {len(reasons)}, which want " + "; ".join(f"{what}: {n}" for what, n in counts)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any) -> Generator[None]:
    """After all that pytest has to say."""
    yield
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [
        str(r.longrepr[2] if isinstance(r.longrepr, tuple) else r.longrepr).removeprefix("Skipped: ")
        for r in skipped
    ]
    if reasons:
        terminalreporter.write_line(closing_line(reasons))
