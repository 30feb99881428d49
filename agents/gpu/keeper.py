"""Keeps every GPU at the highest clock that is leased, and at its default clocks without a lease."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from agents.gpu.calls import Calls, begin
from agents.gpu.device import (
    ClockNotReached,
    DriverChanged,
    GpuDevice,
    GpuError,
    GpuHangs,
    GpuInfo,
    MissingGpu,
    NoPermission,
    NoSuchGpu,
    Reading,
    supported_clock,
)
from agents.gpu.leases import ClockLeases
from wire.definitions.gpu import HELD_DOWN, bounds, is_held, sleeps

log = logging.getLogger(__name__)

TURN_S = 2.0
"""A call waits so long for those before it on the same GPU (s)."""
LOOK_S = 1.0
"""The ends of leases are looked for at least so often (s): waits stand still while the host is suspended."""
MOST_STEPS = 4
"""A GPU that takes a clock so many steps of its list below the lock is locked higher by as many."""
GIVE_UP_S = 10.0
"""An agent none of whose GPUs has answered for so long is of no use (s): a new process may find a driver."""
RETRY_MAX_S = 300.0
"""Between attempts to release a GPU that this user may not release: each waits twice as long (s)."""


def boottime() -> float:
    """CLOCK_BOOTTIME (s): unlike the monotonic clock it goes on while the host is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class TooLate(Exception):
    """A lock came to its turn after its caller had gone, or its lease had ended."""


@dataclass(frozen=True, slots=True)
class Held:
    """What holds on a GPU: clocks in MHz, 0 for none. ``reached`` is true where nothing is locked."""

    gpu: str
    wanted_mhz: int
    locked_mhz: int
    sm_mhz: int
    reached: bool


def release_clocks(devices: Iterable[GpuDevice], timeout_s: float = 3.0) -> dict[str, GpuError]:
    """Bring every GPU back to its default clocks; the error of each that refuses, by UUID.

    :class:`GpuHangs` of those that have not answered after ``timeout_s``. All that is left to do after an
    agent that was killed.
    """
    begun = {device.info.uuid: begin(device.unlock) for device in devices}
    wait(begun.values(), timeout_s)
    failed: dict[str, GpuError] = {}
    for uuid, release in begun.items():
        try:
            if release.done():
                release.result()
            else:
                failed[uuid] = GpuHangs(f"GPU {uuid}: not released within {timeout_s:g} s")
        except GpuError as error:
            failed[uuid] = error
    return failed


class _Kept:
    """One GPU: its leases, its lock, and the thread that ends leases.

    Its mutex is held over calls to the device, so each GPU has its own: one that hangs holds up no other.
    """

    def __init__(
        self,
        device: GpuDevice,
        calls: Calls,
        closed: threading.Event,
        *,
        clock: Callable[[], float],
        reach_s: float,
        poll_s: float,
        retry_s: float,
        max_holders: int,
    ) -> None:
        self.device = device
        self.uuid = device.info.uuid
        self.locked_mhz = 0
        self._aim = 0  # the supported clock for what is wanted, ``_steps`` of its list below the lock
        self._steps = 0
        self._short = 0  # so many steps below its lock this GPU was last seen
        self._vain = False  # locking more than the aim did not bring it
        self.released = threading.Event()
        """Whatever an earlier run left locked was released, or refused to be."""
        self._hangs = False  # the last call, which was given up, has not returned
        self._calls = calls
        self._closed = closed
        self._clock = clock
        self._reach_s = reach_s
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._leases = ClockLeases(max_holders=max_holders)
        self._unsure = False  # what the GPU was left at is not known: what is wanted is set again
        self._retry_at, self._wait_s = 0.0, retry_s  # when, and the pause after one more refusal
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._unsure = True
        self._thread = threading.Thread(target=self._run, name=f"leases-{self.uuid}", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def busy(self) -> bool:
        """Whether its end is waited for, or would be for ever."""
        return self.alive() or self._hangs

    def close(self) -> None:
        """Let the thread end, which releases the clocks; does not wait for it."""
        if self._thread is None:
            self.start()
        # In a thread: another may hold the mutex for as long as the driver pleases.
        begin(self._wake)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def lock(self, holder: str, mhz: int, expires: float, waiting: Callable[[], bool]) -> Held:
        self._calls.refuse(self.uuid)
        with self._turn():
            if self._closed.is_set():
                raise GpuError("the edge agent is closing")
            self._in_time(expires, waiting)
            try:
                # Another program may have changed the clock of a lease that is only renewed.
                with self._calls.calling(self.uuid):
                    sm_mhz = self.device.sm_mhz()
            except GpuError as error:
                self._refused(error)
                raise
            self._expire()  # before a renewal takes the place of a lease that has ended
            now = self._in_time(expires, waiting)  # the calls above may have taken their time
            before = self._leases.put(holder, mhz, expires, now)
            try:
                self._apply(now, renew=self._unsure or sm_mhz != self.locked_mhz)
            except GpuError as error:
                self._leases.restore(holder, before)
                self._refused(error)
                raise
            self._calls.count("locks")
            self._changed.notify_all()
            wanted, locked = self._leases.wanted(now), self.locked_mhz
        return self._read_back(wanted, locked)

    def release(self, holder: str) -> Held:
        with self._turn():
            if self._leases.drop(holder):
                self._calls.count("releases")
            try:
                self._calls.refuse(self.uuid)
                self._apply(self._clock())
            except GpuError as error:
                if not isinstance(error, GpuHangs):
                    self._calls.error(error)
                self._unsure = True
                self._retry_soon()
                self._changed.notify_all()
                raise
            wanted, locked = self._leases.wanted(self._clock()), self.locked_mhz
        return self._read_back(wanted, locked)

    def read(self) -> tuple[int, Reading]:
        self._calls.refuse(self.uuid)
        with self._calls.counting(self.uuid):
            return self.locked_mhz, self.device.read()

    def probe(self) -> None:
        with suppress(GpuError), self._calls.calling(self.uuid):
            self.device.probe()

    def expire(self) -> None:
        with self._changed:
            self._expire()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._changed.acquire(timeout=TURN_S):
            error = GpuHangs(f"GPU {self.uuid}: a call before this one has not returned for {TURN_S:g} s")
            self._calls.error(error)
            raise error
        try:
            yield
        finally:
            self._changed.release()

    def _in_time(self, expires: float, waiting: Callable[[], bool]) -> float:
        """Now. Raises :class:`TooLate` where nobody waits for the lock any more or its lease has ended."""
        if not waiting():
            raise TooLate(f"GPU {self.uuid}: the caller has gone")
        now = self._clock()
        if now >= expires:
            raise TooLate(f"GPU {self.uuid}: the lease ended before the GPU could be locked")
        return now

    def _refused(self, error: GpuError) -> None:
        self._calls.count("lock_errors")
        self._calls.error(error)
        if not isinstance(error, NoPermission):  # which leaves the GPU as it was
            self._unsure = True
            self._changed.notify_all()

    def _expire(self) -> None:
        now = self._clock()
        ended = self._leases.expire(now)
        for holder in ended:
            self._calls.count("lapsed_leases")
            log.info("gpu %s: the lease of %s has ended", self.uuid, holder)
        if ended or (self._unsure and now >= self._retry_at):
            try:
                self._apply(now, renew=self._unsure)
            except GpuError as error:
                self._unsure = True
                self._release_failed(error)
                if isinstance(error, NoPermission):  # an agent that may only watch is never let
                    self._retry_at = now + self._wait_s
                    self._wait_s = min(2 * self._wait_s, RETRY_MAX_S)

    def _retry_soon(self) -> None:
        self._retry_at, self._wait_s = 0.0, self._retry_s

    def _apply(self, now: float, *, renew: bool = False) -> None:
        wanted = self._leases.wanted(now)
        aim = supported_clock(self.device.info, wanted) if wanted else 0
        if aim != self._aim:
            self._aim, self._steps, self._vain = aim, self._short, False
        target = self._above(aim) if aim else 0
        if target == self.locked_mhz and not renew:
            return
        self._set(target)

    def _above(self, mhz: int) -> int:
        """The clock to lock for a supported one."""
        supported = self.device.info.supported_sm_mhz
        return supported[min(supported.index(mhz) + self._steps, len(supported) - 1)]

    def _set(self, target: int) -> None:
        with self._calls.calling(self.uuid):
            if target:
                self.device.lock(target)
            else:
                self.device.unlock()
        self.locked_mhz, self._unsure = target, False
        self._retry_soon()

    def _read_back(self, wanted: int, locked: int) -> Held:
        """What holds after ``wanted`` and ``locked`` (MHz) were set, which no error undoes any more."""
        held = Held(self.uuid, wanted, locked, 0, not locked)
        try:
            held = self._wait_for(held)
            if held.reached:
                if held.sm_mhz >= held.locked_mhz:
                    self._short = 0
                return held
            reasons, told = self._reasons()
            if self._adjust(held, reasons):
                before, held = held, self._wait_for(held)
                if held.sm_mhz == before.sm_mhz:
                    held = self._in_vain(held)
        except GpuError:  # counted
            return replace(held, sm_mhz=0, reached=not held.locked_mhz)
        supported = self.device.info.supported_sm_mhz
        if is_held(held.sm_mhz, held.wanted_mhz, held.locked_mhz, supported, reasons):
            return replace(held, reached=True)
        self._not_reached(held, told)
        return held

    def _wait_for(self, held: Held) -> Held:
        """What holds when the clock is what is wanted at least, and a step more at most, or time is up."""
        supported = self.device.info.supported_sm_mhz
        deadline = time.monotonic() + self._reach_s
        while True:
            last = time.monotonic() >= deadline
            with self._calls.counting(self.uuid):
                sm_mhz = self.device.sm_mhz() or 0
            with self._turn():
                wanted, locked = self._leases.wanted(self._clock()), self.locked_mhz
            least = max(1, min(wanted, locked))
            reached = not locked or least <= sm_mhz <= bounds(wanted, supported)[1]
            if reached or last or self._closed.wait(self._poll_s):
                return Held(held.gpu, wanted, locked, sm_mhz, reached)

    def _reasons(self) -> tuple[tuple[str, ...], str]:
        """What holds the clock, and in words."""
        try:
            with self._calls.calling(self.uuid):
                reasons = self.device.read().clock_event_reasons
        except GpuError as error:
            return (), str(error)
        return reasons, ", ".join(reasons) or "none"

    def _adjust(self, held: Held, reasons: tuple[str, ...]) -> bool:
        """Lock a GPU that takes a clock a few steps below its lock so much higher, and no higher than that.

        Not where something holds it down, nor where it has no work, nor where that was in vain.
        """
        if sleeps(held.sm_mhz, held.locked_mhz, reasons) or not HELD_DOWN.isdisjoint(reasons):
            return False
        supported = self.device.info.supported_sm_mhz
        with self._turn():
            if self._vain or not self._aim or self.locked_mhz != held.locked_mhz:
                return False
            short = max(0, supported.index(self.locked_mhz) - bisect_right(supported, held.sm_mhz) + 1)
            if short > MOST_STEPS:
                return False
            self._steps = self._short = short
            target = self._above(self._aim)
            if target == self.locked_mhz:
                return False
            self._set(target)
        return True

    def _in_vain(self, held: Held) -> Held:
        with self._turn():
            if self.locked_mhz == held.locked_mhz:
                self._vain, self._steps, self._short = True, 0, 0
                self._set(self._aim)
            return replace(held, locked_mhz=self.locked_mhz)

    def _not_reached(self, held: Held, reasons: str) -> None:
        """Count and tell a clock that did not come. The lock stays: it is the nearest to what is wanted."""
        seen = f"{held.sm_mhz} MHz" if held.sm_mhz else "no clock"
        missed = ClockNotReached(
            f"locked to {held.locked_mhz} MHz, {seen} read back for {self._reach_s:g} s;"
            f" clock event reasons: {reasons}"
        )
        self._calls.error(missed, self.uuid)

    def _release_failed(self, error: GpuError) -> None:
        self._calls.count("release_errors")
        self._calls.error(error, f"{self.uuid}: clocks not released")

    def _run(self) -> None:
        while not self._closed.is_set():
            with self._changed:
                try:
                    self._expire()
                except Exception:
                    # The thread that ends leases must not end.
                    log.exception("gpu %s: a lease could not be ended; it is tried again", self.uuid)
                    self._unsure = True
                self.released.set()
                end = self._leases.next_expiry()
                waits = [LOOK_S]
                if end is not None:
                    waits.append(max(0.0, end - self._clock()))
                if self._unsure:
                    waits.append(self._retry_s)
                if not self._closed.is_set():
                    self._changed.wait(min(waits))
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._leases.clear()
            try:
                with self._calls.calling(self.uuid):
                    self.device.unlock()
                self.locked_mhz = 0
            except GpuError as error:
                self._release_failed(error)
        try:
            self.device.close()
        except GpuError as error:
            self._hangs = True
            self._calls.error(error, self.uuid)


class ClockKeeper:
    """Leases in, clock locks out. Thread-safe; errors of the GPU are raised as :class:`GpuError`.

    ``missing`` GPUs are tried again every ``find_s`` until they can be opened, released and kept too.
    ``reach_s`` bounds the wait for a clock to be read back as set. Where a lease ends and the GPU refuses to
    follow, the keeper tries again every ``retry_s``. ``clock`` gives the seconds by which leases end.

    A call to a driver that hangs holds up the calls to that GPU, never those to another, and neither
    :meth:`start`, :meth:`alive` nor :meth:`close`. So each GPU has a thread that ends leases, and each
    missing one a thread that tries to open it.
    """

    def __init__(
        self,
        devices: Sequence[GpuDevice],
        missing: Sequence[MissingGpu] = (),
        *,
        clock: Callable[[], float] = boottime,
        reach_s: float = 0.25,
        poll_s: float = 0.005,
        retry_s: float = 1.0,
        find_s: float = 3.0,
        max_holders: int = 64,
    ) -> None:
        self._calls = Calls()
        self._clock = clock
        self._find_s = find_s
        self._closed = threading.Event()
        self._finders: list[tuple[str, threading.Thread]] = []
        self._found = threading.Lock()

        def keep(device: GpuDevice) -> _Kept:
            return _Kept(
                device,
                self._calls,
                self._closed,
                clock=clock,
                reach_s=reach_s,
                poll_s=poll_s,
                retry_s=retry_s,
                max_holders=max_holders,
            )

        self._keep = keep
        # These two are replaced and never changed, so that nobody needs a lock to look at them.
        self._kept = {d.info.uuid: keep(d) for d in devices}
        self._missing = tuple(missing)
        if len(self._kept) != len(devices):
            raise ValueError("two GPUs have the same UUID")

    @property
    def counters(self) -> Counter[str]:
        return self._calls.counters

    @property
    def infos(self) -> tuple[GpuInfo, ...]:
        return tuple(kept.device.info for kept in self._kept.values())

    @property
    def missing(self) -> tuple[str, ...]:
        """The GPUs that could not be opened yet, by UUID or index."""
        return tuple(m.name for m in self._missing)

    def device(self, gpu: str) -> GpuDevice:
        """The GPU of this UUID; an empty one means the only GPU. Raises :class:`NoSuchGpu`."""
        return self._named(gpu).device

    def start(self) -> None:
        """Release whatever an earlier run left locked, then watch the ends of leases.

        Returns when that is done, and after two seconds where a GPU hangs.
        """
        for missing in self._missing:
            self._left_out(missing.name, missing.error)
        for kept in self._kept.values():
            kept.start()
        end = time.monotonic() + TURN_S
        for kept in self._kept.values():
            kept.released.wait(max(0.0, end - time.monotonic()))
        for missing in self._missing:
            finder = threading.Thread(
                target=self._find, args=(missing,), name=f"missing-{missing.name}", daemon=True
            )
            self._finders.append((missing.name, finder))
            finder.start()

    def close(self, timeout_s: float = 3.0) -> tuple[str, ...]:
        """End all leases and go back to default clocks.

        The GPUs (UUID, or name of a missing one) of which a call or a thread has not ended after
        ``timeout_s``: their clocks may still be locked, and what hangs in the driver cannot be ended.
        """
        end = time.monotonic() + timeout_s
        self._closed.set()
        for kept in self._kept.values():
            kept.close()
        while (left := self._left()) and time.monotonic() < end:
            time.sleep(0.01)
        return left

    def _left(self) -> tuple[str, ...]:
        # First who looks for GPUs: one that is found in the end is among those that are kept.
        missing = [name for name, finder in self._finders if finder.is_alive()]
        kept = [uuid for uuid, kept in self._kept.items() if kept.busy() or self._calls.oldest(uuid)]
        return (*kept, *missing)

    def alive(self, patience_s: float = 5.0) -> bool:
        """Whether the ends of leases are watched on every GPU but the :meth:`hung` ones, and on one at least.

        A hang is cured, if at all, by a new process, which costs the other GPUs their leases.
        """
        hung = self.hung(patience_s)
        well = [kept for uuid, kept in self._kept.items() if uuid not in hung]
        return bool(well) and all(kept.alive() for kept in well)

    def probe(self) -> None:
        """Ask every GPU to which no call is under way for an answer; does not wait for it."""
        for uuid, kept in self._kept.items():
            if not self._calls.oldest(uuid):
                begin(kept.probe)

    def given_up(self) -> GpuError | None:
        """Why this process cannot use its GPUs any more; None where it can, or may again.

        At once where the driver was changed, as a process keeps the library that it began with; else where
        none of its GPUs has answered for :data:`GIVE_UP_S`. One that is left is reason to go on.
        """
        failing = {uuid: self._calls.failing(uuid) for uuid in self._kept}
        found = [f for f in failing.values() if f is not None]
        changed = [error for _, error in found if isinstance(error, DriverChanged)]
        if changed:
            return changed[0]
        hung = self.hung()
        if found and all(f[0] >= GIVE_UP_S if f else uuid in hung for uuid, f in failing.items()):
            return found[0][1]
        return None

    def hung(self, patience_s: float = 5.0) -> tuple[str, ...]:
        """The GPUs, also missing ones, to which a call has gone on for more than ``patience_s``."""
        return tuple(gpu for gpu in (*self._kept, *self.missing) if self._calls.oldest(gpu) > patience_s)

    def hanging(self, gpu: str) -> float:
        """For how long a call to this GPU has hung (s), 0 where none does."""
        return self._calls.hanging(gpu)

    def lock(
        self,
        gpu: str,
        holder: str,
        mhz: int,
        lease_s: float,
        *,
        waiting: Callable[[], bool] = lambda: True,
    ) -> Held:
        """Lease ``mhz`` for ``lease_s`` to ``holder`` and answer when the clock was read back.

        The lease counts from this call, however long the calls before it took. One that the GPU refuses to
        follow is undone. Raises :class:`GpuError`, :class:`agents.gpu.leases.TooManyHolders`, and
        :class:`TooLate` with the clock untouched where the lease is over, or ``waiting`` says that its caller
        has gone, before it comes to its turn.
        """
        expires = self._clock() + lease_s
        return self._named(gpu).lock(holder, mhz, expires, waiting)

    def release(self, gpu: str, holder: str) -> Held:
        """End the lease of ``holder`` (no effect where it has none)."""
        return self._named(gpu).release(holder)

    def read(self, gpu: str) -> tuple[int, Reading]:
        """The clock that is locked (0: none) and the GPU's state. Raises :class:`GpuError`."""
        return self._named(gpu).read()

    def read_all(self, timeout_s: float) -> dict[str, tuple[int, Reading]]:
        """What :meth:`read` gives of every GPU that can be read, and is, within ``timeout_s``."""
        readings: dict[str, tuple[int, Reading]] = {}

        def read(kept: _Kept) -> None:
            with suppress(GpuError):
                readings[kept.uuid] = kept.read()

        threads = [threading.Thread(target=read, args=(k,), daemon=True) for k in self._kept.values()]
        for thread in threads:
            thread.start()
        end = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return readings.copy()

    def expire(self) -> None:
        """End the leases whose time has come and set what is left."""
        for kept in self._kept.values():
            kept.expire()

    def _named(self, gpu: str) -> _Kept:
        kept = self._kept
        if not gpu and len(kept) == 1:
            return next(iter(kept.values()))
        try:
            return kept[gpu]
        except KeyError:
            raise NoSuchGpu(f"gpu: {gpu!r} is not on this host; known: {', '.join(kept) or 'none'}") from None

    def _left_out(self, name: str, error: GpuError) -> None:
        self._calls.count("release_errors")
        self._calls.error(error, f"{name}: left out, clocks not released")

    def _find(self, missing: MissingGpu) -> None:
        pause_s = 0.0 if isinstance(missing.error, GpuHangs) else self._find_s  # one that hangs may answer
        while not self._closed.wait(pause_s):
            pause_s = self._find_s
            try:
                with self._calls.calling(missing.name):
                    device = missing.open()
                if self._keep_found(missing, device):
                    return
            except GpuError as error:
                self._left_out(missing.name, error)
            except Exception:
                # The thread that looks for a GPU must not end.
                log.exception("gpu %s could not be opened; it is tried again", missing.name)

    def _keep_found(self, missing: MissingGpu, device: GpuDevice) -> bool:
        info = device.info
        with self._found:
            new = info.uuid not in self._kept  # indexes move when a GPU goes
            if new:
                kept = self._keep(device)
                kept.start()
                self._kept = {**self._kept, info.uuid: kept}
                self._missing = tuple(m for m in self._missing if m is not missing)
                if self._closed.is_set():  # ``close`` may have looked before this one was there
                    kept.close()
        if new:
            log.info("gpu %s: %s (%s) can be opened again", info.uuid, info.name, missing.name)
        else:
            device.close()
        return new
