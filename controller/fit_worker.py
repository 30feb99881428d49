"""The process in which fits are computed, see :mod:`controller.fits`. Imports little: it starts often.

A job comes as the pickle of ``(function, arguments, seed)`` and is acknowledged. What goes back is bytes
alone, one byte that says which kind and then the result or the text of the error: the parent unpickles
nothing of a job.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

READY, TAKEN, RESULT, ERROR = b"s", b"t", b"r", b"e"
MAX_RESULT = 64 << 20
"""Bytes of a result."""
MAX_ERROR = 1000
"""Characters of an error's text."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def call(function: str, arguments: Mapping[str, Any], seed: int) -> bytes:
    """Calls a job's function; ValueError or TypeError where it cannot be found or returns no such bytes."""
    module, _, name = function.partition(":")
    target = getattr(importlib.import_module(module), name, None)
    if not callable(target):
        raise ValueError(f"{module} has no function {name}")
    result = target(**arguments, seed=seed)
    if not isinstance(result, bytes):
        raise TypeError(f"{function} returned {type(result).__name__}, not bytes")
    if len(result) > MAX_RESULT:
        raise ValueError(f"{function} returned {len(result)} bytes, more than {MAX_RESULT}")
    return result


def describe(error: BaseException) -> str:
    """Type, text and the innermost place of an error, in at most MAX_ERROR characters."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    text = f"{type(error).__name__}: {error}"
    return text[: MAX_ERROR - len(place)] + place


def serve(connection: Connection, niceness: int) -> None:
    """Computes jobs, one after another, until the parent is gone."""
    # The parent ends its workers itself, and by Ctrl-C each process of a terminal is told.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_the_parent()
    os.nice(niceness)
    for name in _THREADS:
        os.environ.setdefault(name, "1")
    connection.send_bytes(READY)
    while True:
        try:
            data = connection.recv_bytes()
            connection.send_bytes(TAKEN)
        except (EOFError, OSError):
            return
        try:
            answer = RESULT + call(*pickle.loads(data))
        except BaseException as error:
            answer = ERROR + describe(error).encode(errors="replace")
        with contextlib.suppress(BrokenPipeError):
            connection.send_bytes(answer)


def end_with_the_parent() -> None:
    """Ends this process when its parent is gone: one whose parent was killed would work or wait on."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
