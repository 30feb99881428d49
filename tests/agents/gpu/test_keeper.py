"""Leases against the clocks, with time passed in: no lock outlives its lease, whoever comes first."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from agents.gpu.device import GpuDevice, GpuInfo, GpuLost, NoPermission, Reading
from agents.gpu.keeper import ClockKeeper


class Gpu(GpuDevice):
    def __init__(self, uuid: str) -> None:
        self.locked = 0
        self.failing = False
        self._info = GpuInfo(uuid, "test", "test", (500, 900, 1600), 1600)

    @property
    def info(self) -> GpuInfo:
        return self._info

    def lock(self, mhz: int) -> None:
        self.locked = mhz

    def unlock(self) -> None:
        self.locked = 0

    def read(self) -> Reading:
        if self.failing:
            raise GpuLost("for a moment")
        return Reading(1, self.locked or 1600, 4001, 30.0, 0.0, 0.0, 40.0)


class Stubborn(Gpu):
    def unlock(self) -> None:
        raise NoPermission("not for you")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def keeper(*gpus: Gpu) -> tuple[ClockKeeper, Clock]:
    clock = Clock()
    return ClockKeeper(gpus, clock=clock), clock


def test_a_call_for_one_gpu_does_not_swallow_the_end_of_another_s_lease() -> None:
    a, b = Gpu("A"), Gpu("B")
    kept, clock = keeper(a, b)
    kept.lock("A", "cell", 900, 3.0)
    clock.now = 3.0001
    kept.lock("B", "cell", 900, 3.0)
    kept.expire()
    assert a.locked == 0
    assert kept.counters["lapsed_leases"] == 1


def test_a_late_renewal_that_fails_leaves_no_lock_without_a_lease() -> None:
    a = Gpu("A")
    kept, clock = keeper(a)
    kept.lock("A", "cell", 900, 3.0)
    clock.now, a.failing = 3.0001, True
    with pytest.raises(GpuLost):
        kept.lock("A", "cell", 900, 3.0)
    a.failing, clock.now = False, 3.01
    kept.expire()
    assert a.locked == 0


def test_a_release_that_fails_for_hours_is_counted_each_time_and_told_ever_more_seldom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept, clock = keeper(Stubborn("A"))
    kept.lock("A", "cell", 900, 3.0)
    clock.now = 3.0
    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            kept.expire()
    assert kept.counters["release_errors"] == kept.counters["errors_no_permission"] == 100
    assert len(caplog.records) == 7
    assert "A: clocks not released: no_permission: not for you (64)" in caplog.text


def test_the_thread_that_ends_leases_survives_what_nobody_foresaw() -> None:
    class Odd(Gpu):
        calls = 0

        def unlock(self) -> None:
            self.calls += 1
            if self.calls == 2:  # the first is that of the start
                raise RuntimeError("not of NVML")
            super().unlock()

    gpu = Odd("A")
    kept = ClockKeeper([gpu], retry_s=0.05)
    kept.start()
    try:
        kept.lock("A", "cell", 900, 0.1)
        assert gpu.locked == 900
        end = time.monotonic() + 10
        while gpu.locked and time.monotonic() < end:
            time.sleep(0.01)
        assert gpu.locked == 0 and gpu.calls >= 3
    finally:
        kept.close()


class Hanging(Gpu):
    """A driver call that does not return until it is told to."""

    def __init__(self, uuid: str, call: str) -> None:
        super().__init__(uuid)
        self.call = call
        self.called, self.goes_on = threading.Event(), threading.Event()

    def _hang(self, call: str) -> None:
        if call == self.call:
            self.called.set()
            assert self.goes_on.wait(20)

    def lock(self, mhz: int) -> None:
        self._hang("lock")
        super().lock(mhz)

    def read(self) -> Reading:
        self._hang("read")
        return super().read()


@pytest.mark.parametrize("call", ["lock", "read"])
def test_a_call_to_a_gpu_that_hangs_is_noticed(call: str) -> None:
    gpu = Hanging("A", call)
    kept = ClockKeeper([gpu], reach_s=0.0)
    assert not kept.alive()  # nobody watches the leases yet
    kept.start()
    assert kept.alive()
    caller = threading.Thread(target=kept.lock, args=("A", "cell", 900, 3.0))
    caller.start()
    assert gpu.called.wait(10)
    assert kept.alive() and not kept.alive(0.0)
    gpu.goes_on.set()
    caller.join()
    assert kept.alive(0.0)
    kept.close()
    assert gpu.locked == 0
    assert not kept.alive()
