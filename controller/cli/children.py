"""Processes that a command starts and that end with it, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """A process that gets SIGTERM when the thread that calls this is gone, be it by SIGKILL (Linux only).

    What a prefix like ``sh -c`` starts in its turn does not get it. ``options`` are those of ``Popen``;
    OSError where the command cannot be started.
    """
    parent = os.getpid()

    def end_with_parent() -> None:
        if _prctl is None:
            return
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            # It was gone before it could be said.
            os.kill(os.getpid(), signal.SIGTERM)

    return subprocess.Popen(command, preexec_fn=end_with_parent, **options)


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does; the ones after the first change nothing.

    Who closes a terminal sends SIGHUP more than once, and the processes are to be stopped in order.
    """

    def handler(_signum: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handler)
    hang_up_as_terminate()


def hang_up_as_terminate() -> None:
    """Let SIGHUP do what SIGTERM does, as the terminal or ssh may be closed; nohup goes on ignoring it."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
