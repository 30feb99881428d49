"""The calls to GPUs that are under way, as a driver's may never return, and what was counted."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

from agents.gpu.device import ClockNotSupported, DriverChanged, GpuError, GpuHangs, NoPermission

log = logging.getLogger(__name__)

T = TypeVar("T")

HANG_S = 1.0
"""A call that has not returned for so long hangs (s)."""


def begin(call: Callable[[], T]) -> Future[T]:
    """Begin a call in a thread of its own. Unlike an executor's, it does not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def bounded(call: Callable[[], T], timeout_s: float, what: str) -> T:
    """What a call gives. Raises :class:`GpuHangs` where it has not returned after ``timeout_s``."""
    begun = begin(call)
    wait([begun], timeout_s)
    if not begun.done():
        raise GpuHangs(f"{what} has not returned for {timeout_s:g} s")
    return begun.result()


class Calls:
    """Thread-safe; never waits for a GPU. GPUs are told apart by UUID, or the name of one not opened yet."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._begun: dict[object, tuple[str, float]] = {}
        self._failing: dict[str, tuple[float, GpuError]] = {}
        self._logged: Counter[tuple[str, str]] = Counter()
        self.counters: Counter[str] = Counter()

    @contextmanager
    def calling(self, gpu: str) -> Iterator[None]:
        """Around every call to a device."""
        call, begun = object(), time.monotonic()
        with self._mutex:
            self._begun[call] = (gpu, begun)
        error: GpuError | None = None
        try:
            yield
        except GpuError as failed:
            error = failed
            raise
        finally:
            with self._mutex:
                del self._begun[call]
                self._note(gpu, error)
            took_s = time.monotonic() - begun
            if took_s >= HANG_S:
                self.error(GpuHangs(f"a call took {took_s:.1f} s"), gpu)

    @contextmanager
    def counting(self, gpu: str) -> Iterator[None]:
        """As :meth:`calling`, and its error is counted."""
        try:
            with self.calling(gpu):
                yield
        except GpuError as error:
            self.error(error)
            raise

    def _note(self, gpu: str, error: GpuError | None) -> None:
        # A GPU that refuses what it was asked for answers; what hangs has its own measure.
        if error is None or isinstance(error, NoPermission | ClockNotSupported):
            self._failing.pop(gpu, None)
        elif not isinstance(error, GpuHangs):
            since, before = self._failing.get(gpu, (time.monotonic(), error))
            # The calls after it fail for other reasons: NVML is closed by then.
            self._failing[gpu] = since, before if isinstance(before, DriverChanged) else error

    def failing(self, gpu: str) -> tuple[float, GpuError] | None:
        """For how long no call has reached this GPU (s), and the last error, or that the driver was
        changed; None where the last one did."""
        with self._mutex:
            failing = self._failing.get(gpu)
        return failing and (time.monotonic() - failing[0], failing[1])

    def hanging(self, gpu: str) -> float:
        """For how long a call to this GPU has hung (s), 0 where none does."""
        age_s = self.oldest(gpu)
        return age_s if age_s >= HANG_S else 0.0

    def oldest(self, gpu: str) -> float:
        """For how long the oldest call to this GPU has been under way (s), 0 without calls."""
        with self._mutex:
            begun = [at for name, at in self._begun.values() if name == gpu]
        return time.monotonic() - min(begun) if begun else 0.0

    def refuse(self, gpu: str) -> None:
        """Raises :class:`GpuHangs` where a call to this GPU hangs: one more would not return either."""
        seconds = self.hanging(gpu)
        if seconds:
            error = GpuHangs(f"GPU {gpu}: a call to it has not returned for {seconds:.0f} s")
            self.error(error)
            raise error

    def count(self, name: str) -> None:
        with self._mutex:
            self.counters[name] += 1

    def error(self, error: GpuError, log_as: str = "") -> None:
        """Count an error by its name, and log it where ``tell`` says of what it is."""
        with self._mutex:
            self.counters[f"errors_{error.name}"] += 1
            if not log_as:
                return
            self._logged[log_as, error.name] += 1
            count = self._logged[log_as, error.name]
        # Every power of two: what fails once a second for hours must not fill the disk.
        if count & (count - 1) == 0:
            log.error("gpu %s: %s: %s (%d)", log_as, error.name, error, count)
