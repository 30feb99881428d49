"""Functions that fits call: good ones, and each kind of bad one."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

NOT_A_FUNCTION = 3


def draw(seed: int, n: int) -> bytes:
    return np.random.default_rng(seed).standard_normal(n).tobytes()


def add(seed: int, left: np.ndarray, right: dict[str, Any]) -> bytes:
    left += right["by"]
    return left.tobytes()


def fail(seed: int, text: str) -> bytes:
    raise RuntimeError(text)


def leave(seed: int, status: int) -> bytes:
    sys.exit(status)


def vanish(seed: int, status: int) -> bytes:
    os._exit(status)


def killed(seed: int) -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def hang(seed: int, mark: str = "") -> bytes:
    if mark:
        Path(mark).write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def after(seed: int, mark: str, go_on: str) -> bytes:
    """Says that it runs, and returns once it may."""
    Path(mark).write_text(str(os.getpid()))
    while not Path(go_on).exists():
        time.sleep(0.01)
    return b"done"


def process(seed: int) -> bytes:
    return f"{os.getpid()} {os.nice(0)} {os.environ.get('OMP_NUM_THREADS')}".encode()


def array(seed: int) -> Any:
    return np.zeros(2)


def large(seed: int, n: int) -> bytes:
    return bytes(n)
