"""Keeps every GPU at the highest clock that is leased, and at its default clocks without a lease."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agents.gpu.device import (
    ClockNotReached,
    GpuDevice,
    GpuError,
    GpuInfo,
    NoSuchGpu,
    Reading,
    supported_clock,
)
from agents.gpu.leases import ClockLeases

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """What holds on a GPU: clocks in MHz, 0 for none. ``reached`` is true where nothing is locked."""

    gpu: str
    wanted_mhz: int
    locked_mhz: int
    sm_mhz: int
    reached: bool


def release_clocks(devices: Iterable[GpuDevice]) -> dict[str, GpuError]:
    """Bring every GPU back to its default clocks; the error of each that refuses, by UUID.

    What an agent does when it starts and ends, and all that is left to do after one that was killed.
    """
    failed = {}
    for device in devices:
        try:
            device.unlock()
        except GpuError as error:
            failed[device.info.uuid] = error
    return failed


class ClockKeeper:
    """Leases in, clock locks out. Thread-safe; errors of the GPU are raised as :class:`GpuError`.

    ``reach_s`` bounds the wait for a clock to be read back as set. Where a lease ends and the GPU refuses to
    follow, the keeper tries again every ``retry_s``.
    """

    def __init__(
        self,
        devices: Sequence[GpuDevice],
        *,
        clock: Callable[[], float] = time.monotonic,
        reach_s: float = 0.25,
        poll_s: float = 0.005,
        retry_s: float = 1.0,
        max_holders: int = 64,
    ) -> None:
        self._devices = {d.info.uuid: d for d in devices}
        if len(self._devices) != len(devices):
            raise ValueError("two GPUs have the same UUID")
        self._clock = clock
        self._reach_s = reach_s
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._leases = ClockLeases(max_holders=max_holders)
        self._locked = dict.fromkeys(self._devices, 0)
        self._failed: set[str] = set()
        self._changed = threading.Condition()
        self._counted = threading.Lock()
        self._calls: dict[object, float] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self.counters: Counter[str] = Counter()

    @property
    def infos(self) -> tuple[GpuInfo, ...]:
        return tuple(d.info for d in self._devices.values())

    def device(self, gpu: str) -> GpuDevice:
        """The GPU of this UUID; an empty one means the only GPU. Raises :class:`NoSuchGpu`."""
        if not gpu and len(self._devices) == 1:
            return next(iter(self._devices.values()))
        try:
            return self._devices[gpu]
        except KeyError:
            known = ", ".join(self._devices) or "none"
            raise NoSuchGpu(f"gpu: {gpu!r} is not on this host; known: {known}") from None

    def start(self) -> None:
        """Release whatever an earlier run left locked, then watch the ends of leases."""
        for uuid, error in release_clocks(self._devices.values()).items():
            self._failed.add(uuid)
            self._release_failed(uuid, error)
        self._thread = threading.Thread(target=self._run, name="clock-leases", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all leases and go back to default clocks."""
        self._closed.set()
        with self._changed:
            self._leases.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        failed = release_clocks(self._devices.values())
        for uuid, device in self._devices.items():
            if uuid in failed:
                self._release_failed(uuid, failed[uuid])
            else:
                self._locked[uuid] = 0
            device.close()

    def alive(self, patience_s: float = 5.0) -> bool:
        """Whether the ends of leases are watched, and no call to a GPU has gone on for ``patience_s``."""
        with self._counted:
            oldest = min(self._calls.values(), default=float("inf"))
        watched = self._thread is not None and self._thread.is_alive()
        return watched and time.monotonic() - oldest < patience_s

    def lock(self, gpu: str, holder: str, mhz: int, lease_s: float) -> Held:
        """Lease ``mhz`` for ``lease_s`` to ``holder`` and answer when the clock was read back.

        A lease that the GPU refuses to follow is undone. Raises :class:`GpuError` and
        :class:`agents.gpu.leases.TooManyHolders`.
        """
        device = self.device(gpu)
        uuid = device.info.uuid
        with self._changed:
            if self._closed.is_set():
                raise GpuError("the edge agent is closing")
            self._expire()  # before a renewal takes the place of a lease that has ended
            now = self._clock()
            before = self._leases.put(uuid, holder, mhz, now + lease_s, now)
            try:
                with self._counting():
                    # Another program may have changed the clock of a lease that is only renewed.
                    self._apply(uuid, now, again=device.sm_mhz() != self._locked[uuid])
            except GpuError:
                self.counters["lock_errors"] += 1
                self._leases.restore(uuid, holder, before)
                self._failed.add(uuid)  # what the GPU is left at is not known: set again what is wanted
                self._changed.notify_all()
                raise
            self.counters["locks"] += 1
            self._changed.notify_all()
        return self._read_back(uuid)

    def release(self, gpu: str, holder: str) -> Held:
        """End the lease of ``holder`` (no effect where it has none)."""
        uuid = self.device(gpu).info.uuid
        with self._changed:
            if self._leases.drop(uuid, holder):
                self.counters["releases"] += 1
            try:
                with self._counting():
                    self._apply(uuid, self._clock())
            except GpuError:
                self._failed.add(uuid)
                self._changed.notify_all()
                raise
        return self._read_back(uuid)

    def read(self, gpu: str) -> tuple[int, Reading]:
        """The clock that is locked (0: none) and the GPU's state."""
        device = self.device(gpu)
        with self._counting():
            return self._locked[device.info.uuid], device.read()

    def expire(self) -> None:
        """End the leases whose time has come and set what is left."""
        with self._changed:
            self._expire()

    def _expire(self) -> None:
        now = self._clock()
        ended = self._leases.expire(now)
        for uuid, holder in ended:
            self.counters["lapsed_leases"] += 1
            log.info("gpu %s: the lease of %s has ended", uuid, holder)
        for uuid in {uuid for uuid, _ in ended} | self._failed:
            try:
                self._apply(uuid, now, again=uuid in self._failed)
                self._failed.discard(uuid)
            except GpuError as error:
                self._failed.add(uuid)
                self._release_failed(uuid, error)

    def _apply(self, uuid: str, now: float, *, again: bool = False) -> None:
        device = self._devices[uuid]
        wanted = self._leases.wanted(uuid, now)
        target = supported_clock(device.info, wanted) if wanted else 0
        if target == self._locked[uuid] and not again:
            return
        with self._calling():
            if target:
                device.lock(target)
            else:
                device.unlock()
        self._locked[uuid] = target

    def _read_back(self, uuid: str) -> Held:
        device = self._devices[uuid]
        deadline = time.monotonic() + self._reach_s
        while True:
            last = time.monotonic() >= deadline
            with self._counting():
                sm_mhz = device.sm_mhz() or 0
            with self._changed:
                wanted, locked = self._leases.wanted(uuid, self._clock()), self._locked[uuid]
            reached = locked in (0, sm_mhz)
            if reached or last or self._closed.wait(self._poll_s):
                break
        if not reached:
            self._not_reached(device, locked, sm_mhz)
        return Held(uuid, wanted, locked, sm_mhz, reached)

    def _not_reached(self, device: GpuDevice, locked: int, sm_mhz: int) -> None:
        """Count and tell a clock that did not come. The lock stays: it is the nearest to what is wanted."""
        try:
            with self._calling():
                reasons = ", ".join(device.read().clock_event_reasons) or "none"
        except GpuError as error:
            reasons = str(error)
        seen = f"{sm_mhz} MHz" if sm_mhz else "no clock"
        missed = ClockNotReached(
            f"locked to {locked} MHz, {seen} read back for {self._reach_s:g} s;"
            f" clock event reasons: {reasons}"
        )
        self._count(missed, device.info.uuid)

    def _release_failed(self, uuid: str, error: GpuError) -> None:
        self.counters["release_errors"] += 1
        self._count(error, f"{uuid}: clocks not released")

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """Around every call to a device, as a driver's may never return."""
        call = object()
        with self._counted:
            self._calls[call] = time.monotonic()
        try:
            yield
        finally:
            with self._counted:
                del self._calls[call]

    @contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            with self._calling():
                yield
        except GpuError as error:
            self._count(error)
            raise

    def _count(self, error: GpuError, tell: str = "") -> None:
        """Count an error by its name, and log it where ``tell`` says of what it is."""
        name = f"errors_{error.name}"
        with self._counted:
            self.counters[name] += 1
            count = self.counters[name]
        # Every power of two: what fails once a second for hours must not fill the disk.
        if tell and count & (count - 1) == 0:
            log.error("gpu %s: %s: %s (%d)", tell, error.name, error, count)

    def _run(self) -> None:
        while not self._closed.is_set():
            with self._changed:
                try:
                    self._expire()
                except Exception:
                    # The thread that ends leases must not end.
                    log.exception("a lease could not be ended; all clocks are tried again")
                    self._failed.update(self._devices)
                end = self._leases.next_expiry()
                waits = [end - self._clock()] if end is not None else []
                if self._failed:
                    waits.append(self._retry_s)
                if not self._closed.is_set():
                    self._changed.wait(max(0.0, min(waits)) if waits else None)
