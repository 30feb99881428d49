"""Leases against the clocks, with time passed in: no lock outlives its lease, whoever comes first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agents.gpu import calls, keeper
from agents.gpu.device import (
    DriverChanged,
    GpuDevice,
    GpuError,
    GpuHangs,
    GpuInfo,
    GpuLost,
    MissingGpu,
    NoDriver,
    NoPermission,
    Reading,
)
from agents.gpu.keeper import ClockKeeper, TooLate

WAIT_S = 30.0


def eventually(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"not within {WAIT_S:g} s: {what}"
        time.sleep(0.005)


class Gpu(GpuDevice):
    """``history`` holds the clocks that were locked, 0 for each release."""

    def __init__(self, uuid: str) -> None:
        self.locked = 0
        self.history: list[int] = []
        self.failing = False
        self.closed = False
        self._info = GpuInfo(uuid, "test", "test", (500, 900, 1600), 1600)

    @property
    def info(self) -> GpuInfo:
        return self._info

    def lock(self, mhz: int) -> None:
        self.locked = mhz
        self.history.append(mhz)

    def unlock(self) -> None:
        self.locked = 0
        self.history.append(0)

    def read(self) -> Reading:
        if self.failing:
            raise GpuLost("for a moment")
        return Reading(1, self.locked or 1600, 4001, 30.0, 0.0, 0.0, 40.0)

    def close(self) -> None:
        self.closed = True


class Stubborn(Gpu):
    """Refuses to be released, with ``error``; ``tries`` counts."""

    def __init__(self, uuid: str, error: GpuError | None = None) -> None:
        super().__init__(uuid)
        self.error = error or GpuLost("off the bus")
        self.tries = 0

    def unlock(self) -> None:
        self.tries += 1
        raise self.error


class Clock:
    now = 0.0
    asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now


def made(*gpus: Gpu) -> tuple[ClockKeeper, Clock]:
    clock = Clock()
    return ClockKeeper(gpus, clock=clock), clock


def test_a_call_for_one_gpu_does_not_swallow_the_end_of_another_s_lease() -> None:
    a, b = Gpu("A"), Gpu("B")
    kept, clock = made(a, b)
    kept.lock("A", "cell", 900, 3.0)
    clock.now = 3.0001
    kept.lock("B", "cell", 900, 3.0)
    kept.expire()
    assert a.locked == 0
    assert kept.counters["lapsed_leases"] == 1


def test_a_late_renewal_that_fails_leaves_no_lock_without_a_lease() -> None:
    a = Gpu("A")
    kept, clock = made(a)
    kept.lock("A", "cell", 900, 3.0)
    clock.now, a.failing = 3.0001, True
    with pytest.raises(GpuLost):
        kept.lock("A", "cell", 900, 3.0)
    a.failing, clock.now = False, 3.01
    kept.expire()
    assert a.locked == 0


def test_a_late_renewal_does_not_hide_the_end_of_the_lease_before_it() -> None:
    kept, clock = made(Gpu("A"))
    kept.lock("A", "cell", 900, 3.0)
    clock.now = 3.0001
    kept.lock("A", "cell", 900, 3.0)
    assert kept.counters["lapsed_leases"] == 1


def test_a_release_that_fails_for_hours_is_counted_each_time_and_told_ever_more_seldom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept, clock = made(Stubborn("A"))
    kept.lock("A", "cell", 900, 3.0)
    clock.now = 3.0
    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            kept.expire()
    assert kept.counters["release_errors"] == kept.counters["errors_gpu_lost"] == 100
    assert len([r for r in caplog.records if "clocks not released" in r.getMessage()]) == 7
    assert "A: clocks not released: gpu_lost: off the bus (64)" in caplog.text


def test_a_gpu_that_cannot_be_released_is_told_however_often_others_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a, b = Stubborn("A"), Stubborn("B")
    kept, clock = made(a, b)
    kept.lock("A", "cell", 900, 3.0)
    kept.lock("B", "cell", 900, 4.0)
    clock.now = 3.0
    kept.expire()
    kept.expire()
    a.failing = True
    for _ in range(4):  # counted, and told to the caller alone
        with pytest.raises(GpuLost):
            kept.read("A")
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        clock.now = 4.0
        kept.expire()
    assert kept.counters["errors_gpu_lost"] == 8
    assert [r.getMessage() for r in caplog.records] == [
        "gpu B: clocks not released: gpu_lost: off the bus (1)"
    ]


def test_who_may_not_release_a_gpu_tries_ever_more_seldom() -> None:
    gpu = Stubborn("A", NoPermission("not for you"))
    kept, clock = made(gpu)
    kept.lock("A", "cell", 900, 10.0)
    clock.now = 10.0
    tried = []
    for _ in range(1200):
        before = gpu.tries
        kept.expire()
        if gpu.tries > before:
            tried.append(clock.now - 10.0)
        clock.now += 1.0
    assert tried == [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 811, 1111]
    assert kept.counters["release_errors"] == kept.counters["errors_no_permission"] == len(tried)


@pytest.mark.parametrize("what", ["the end of a lease", "its release", "a lock that was set"])
def test_who_may_lock_again_releases_at_once(what: str) -> None:
    gpu = Stubborn("A", NoPermission("not for you"))
    kept, clock = made(gpu)

    def tries_of(call: Callable[[], object]) -> int:
        before = gpu.tries
        call()
        return gpu.tries - before

    kept.lock("A", "cell", 900, 10.0)
    clock.now = 10.0
    for _ in range(100):
        kept.expire()
        clock.now += 1.0
    assert tries_of(kept.expire) == 0
    if what == "its release":
        with pytest.raises(NoPermission):
            kept.release("A", "nobody")
        assert tries_of(kept.expire) == 1
        return
    kept.lock("A", "cell", 900, 10.0)
    if what == "the end of a lease":
        clock.now += 10.0
        assert tries_of(kept.expire) == 1 and tries_of(kept.expire) == 0
        clock.now += 1.0
        assert tries_of(kept.expire) == 1, "the pauses begin anew"
    else:
        clock.now += 1.0
        assert tries_of(kept.expire) == 0, "what the GPU is at is known again"


def test_a_lock_that_is_refused_for_want_of_permission_leaves_nothing_to_make_up_for() -> None:
    class Watched(Stubborn):
        def lock(self, mhz: int) -> None:
            raise self.error

    gpu = Watched("A", NoPermission("not for you"))
    kept, _ = made(gpu)
    with pytest.raises(NoPermission):
        kept.lock("A", "cell", 900, 3.0)
    kept.expire()
    assert gpu.tries == 0 and kept.counters["lock_errors"] == 1


class Unreadable(Gpu):
    """Its clock cannot be read back once it is locked."""

    def sm_mhz(self) -> int:
        if self.locked:
            raise GpuLost("for a moment")
        return 1600


def test_a_lock_that_was_set_and_cannot_be_read_back_is_answered_as_not_reached() -> None:
    gpu = Unreadable("A")
    kept, clock = made(gpu)
    assert kept.lock("A", "cell", 900, 3.0) == keeper.Held("A", 900, 900, 0, False)
    assert kept.counters["locks"] == kept.counters["errors_gpu_lost"] == 1
    clock.now = 3.0
    kept.expire()
    assert gpu.history == [900, 0]


def test_a_lock_that_was_set_is_answered_though_another_call_hangs_before_it_is_read_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold, goes_on = threading.Event(), threading.Event()

    def waiting() -> bool:
        hold.set()
        return goes_on.wait(2 * WAIT_S)

    class Interrupted(Gpu):
        def sm_mhz(self) -> int:
            if self.locked and not hold.is_set():
                other.start()
                assert hold.wait(WAIT_S)
                monkeypatch.setattr(keeper, "TURN_S", 0.05)
            return super().sm_mhz() or 0

    gpu = Interrupted("A")
    kept, _ = made(gpu)
    other = threading.Thread(target=lambda: kept.lock("A", "other", 900, 3.0, waiting=waiting), daemon=True)
    monkeypatch.setattr(keeper, "TURN_S", WAIT_S)
    try:
        assert kept.lock("A", "cell", 900, 3.0) == keeper.Held("A", 900, 900, 0, False)
    finally:
        goes_on.set()
        other.join()
    assert gpu.locked == 900


def test_the_thread_that_ends_leases_survives_what_nobody_foresaw() -> None:
    class Odd(Gpu):
        calls = 0

        def unlock(self) -> None:
            self.calls += 1
            if self.calls == 2:  # the first is that of the start
                raise RuntimeError("not of NVML")
            super().unlock()

    gpu, clock = Odd("A"), Clock()
    kept = ClockKeeper([gpu], clock=clock, retry_s=0.05)
    kept.start()
    try:
        kept.lock("A", "cell", 900, 3.0)
        clock.now = 3.0
        eventually(lambda: gpu.history == [0, 900, 0], "the release at the second attempt")
        assert gpu.calls == 3
    finally:
        kept.close()


def test_that_the_driver_was_changed_is_not_forgotten_over_the_errors_that_follow() -> None:
    """Who asks does so once a second, and other calls come between."""

    class Gone(Gpu):
        error: GpuError | None = None

        def read(self) -> Reading:
            if self.error is not None:
                raise self.error
            return super().read()

    gpu = Gone("A")
    kept, _ = made(gpu)
    changed = DriverChanged("another library")
    for gpu.error in (GpuLost("off the bus"), changed, NoDriver("uninitialized"), GpuLost("off the bus")):
        with pytest.raises(GpuError):
            kept.read("A")
    assert kept.given_up() is changed
    gpu.error = None
    kept.read("A")
    assert kept.given_up() is None


# ---- time ------------------------------------------------------------------------------------------------


def test_leases_count_while_the_host_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 42.0}.__getitem__)
    assert keeper.boottime() == 42.0
    gpu = Gpu("A")
    kept = ClockKeeper([gpu])
    kept.lock("A", "cell", 900, 3.0)
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 45.0}.__getitem__)
    kept.expire()
    assert gpu.history == [900, 0]


def test_a_lease_that_ended_in_a_suspend_ends_soon_after_it() -> None:
    gpu = Gpu("A")
    kept, clock = made(gpu)
    kept.start()
    try:
        kept.lock("A", "cell", 900, 3600.0)
        time.sleep(0.2)  # the thread has begun to wait for the end, from which nothing wakes it
        clock.now = 3601.0
        eventually(lambda: gpu.history == [0, 900, 0], "the end of the lease")
    finally:
        kept.close()


def test_a_lease_that_is_shorter_than_every_wait_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOK_S", 3600.0)
    gpu = Gpu("A")
    kept = ClockKeeper([gpu])
    kept.start()
    try:
        time.sleep(0.2)  # the thread has begun to wait, for a lease only if it is told of one
        kept.lock("A", "cell", 900, 0.5)
        eventually(lambda: gpu.history == [0, 900, 0], "the end of the lease")
    finally:
        kept.close()


class Waiting:
    """A caller; by the time that it is asked whether it still waits, it is ``at``."""

    def __init__(self, clock: Clock, at: float) -> None:
        self.clock, self.at = clock, at

    def __call__(self) -> bool:
        self.clock.now = self.at
        return True


def test_a_lease_counts_from_the_arrival_of_its_call() -> None:
    gpu = Gpu("A")
    kept, clock = made(gpu)
    kept.lock("A", "cell", 900, 4.0, waiting=Waiting(clock, 3.0))
    clock.now = 4.0
    kept.expire()
    assert gpu.history == [900, 0]


def test_a_lease_that_is_over_before_its_turn_is_not_taken() -> None:
    gpu = Gpu("A")
    kept, clock = made(gpu)
    with pytest.raises(TooLate, match="the lease ended"):
        kept.lock("A", "cell", 900, 4.0, waiting=Waiting(clock, 4.0))
    assert gpu.history == []


def test_a_lock_whose_caller_has_gone_is_dropped() -> None:
    gpu = Gpu("A")
    gpu.failing = True  # it is not even read
    kept, _ = made(gpu)
    with pytest.raises(TooLate, match="the caller has gone"):
        kept.lock("A", "cell", 900, 4.0, waiting=lambda: False)
    assert gpu.history == [] and kept.counters["locks"] == 0


# ---- a driver that hangs ---------------------------------------------------------------------------------


class Hanging(Gpu):
    """A driver call that does not return until it is told to."""

    def __init__(self, uuid: str, call: str) -> None:
        super().__init__(uuid)
        self.call = call
        self.called, self.goes_on = threading.Event(), threading.Event()

    def _hang(self, call: str) -> None:
        if call == self.call:
            self.called.set()
            assert self.goes_on.wait(2 * WAIT_S)

    def lock(self, mhz: int) -> None:
        self._hang("lock")
        super().lock(mhz)

    def unlock(self) -> None:
        self._hang("unlock")
        super().unlock()

    def read(self) -> Reading:
        self._hang("read")
        return super().read()


class Caller(threading.Thread):
    """Locks in a thread of its own; ``error`` is what came of it."""

    def __init__(self, kept: ClockKeeper, holder: str = "cell", lease_s: float = 3.0) -> None:
        super().__init__(daemon=True)
        self.error: Exception | None = None
        self._lock = lambda: kept.lock("A", holder, 900, lease_s)
        self.start()

    def run(self) -> None:
        try:
            self._lock()
        except Exception as error:
            self.error = error


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call waits in vain for its turn, however slow this machine is."""
    monkeypatch.setattr(calls, "HANG_S", 1e9)
    monkeypatch.setattr(keeper, "TURN_S", WAIT_S)


@pytest.fixture
def hanging() -> Iterator[Callable[[str], Hanging]]:
    """Makes GPUs whose calls return at last, also where a test fails."""
    gpus: list[Hanging] = []

    def make(call: str) -> Hanging:
        gpus.append(Hanging("A", call))
        return gpus[-1]

    yield make
    for gpu in gpus:
        gpu.goes_on.set()


@pytest.mark.parametrize("call", ["lock", "read"])
def test_a_call_to_a_gpu_that_hangs_is_noticed(hanging: Callable[[str], Hanging], call: str) -> None:
    gpu = hanging(call)
    kept = ClockKeeper([gpu], reach_s=0.0)
    assert not kept.alive()  # nobody watches the leases yet
    kept.start()
    assert kept.alive(WAIT_S)
    caller = Caller(kept)
    assert gpu.called.wait(WAIT_S)
    assert kept.alive(WAIT_S) and not kept.hung(WAIT_S)
    assert not kept.alive(0.0) and kept.hung(0.0) == ("A",)
    gpu.goes_on.set()
    caller.join()
    eventually(lambda: kept.alive(0.0), "a call in time")
    assert kept.close(WAIT_S) == ()
    assert gpu.locked == 0
    assert not kept.alive(WAIT_S)


def test_a_gpu_that_hangs_costs_the_others_no_restart(hanging: Callable[[str], Hanging]) -> None:
    gpu, lost = hanging("lock"), GpuLost("lost")
    goes_on = threading.Event()

    def open_it() -> GpuDevice:
        goes_on.wait(2 * WAIT_S)
        raise lost

    kept = ClockKeeper([Gpu("B"), gpu], [MissingGpu("0", lost, open_it)], reach_s=0.0, find_s=0.01)
    kept.start()
    try:
        caller = Caller(kept)
        assert gpu.called.wait(WAIT_S)
        eventually(lambda: kept.hung(0.0) == ("A", "0"), "both hangs, and none of B")
        eventually(lambda: kept.alive(0.0), "a keeper that is alive for B's sake")
        kept._closed.set()
        kept._kept["B"].close()
        eventually(lambda: not kept.alive(0.0), "the end of B's leases, which is seen")
    finally:
        gpu.goes_on.set()
        goes_on.set()
        kept.close()
    caller.join()


def test_a_gpu_that_hangs_holds_up_the_end_of_no_other_s_lease(
    patient: None, hanging: Callable[[str], Hanging]
) -> None:
    a, b, clock = hanging("lock"), Gpu("B"), Clock()
    kept = ClockKeeper([a, b], clock=clock, reach_s=0.0)
    kept.start()
    kept.lock("B", "cell", 900, 3.0)
    caller = Caller(kept)
    assert a.called.wait(WAIT_S)
    clock.now = 3.0
    eventually(lambda: b.history == [0, 900, 0], "the end of B's lease")
    kept.lock("B", "cell", 500, 3.0)
    assert b.locked == 500 and not a.goes_on.is_set()
    a.goes_on.set()
    caller.join()
    assert kept.close(WAIT_S) == ()


@pytest.mark.parametrize("call", ["read", "lock"])
def test_nobody_s_lock_comes_after_the_hang_in_which_its_lease_ended(
    patient: None, hanging: Callable[[str], Hanging], call: str
) -> None:
    gpu, clock = hanging(call), Clock()
    kept = ClockKeeper([gpu], clock=clock, reach_s=0.0)
    first = Caller(kept, holder="cell-1", lease_s=4.0)
    assert gpu.called.wait(WAIT_S)
    asked = clock.asked
    second = Caller(kept, holder="cell-2", lease_s=4.0)
    eventually(lambda: clock.asked > asked, "the second call")
    clock.now = 6.0
    gpu.goes_on.set()
    first.join(), second.join()
    assert isinstance(second.error, TooLate)
    kept.expire()
    assert gpu.locked == 0
    # A lock that is in the driver cannot be called back; it ends with its lease.
    assert gpu.history == ([] if call == "read" else [900, 0])


def test_while_a_call_hangs_no_further_one_is_begun(
    hanging: Callable[[str], Hanging], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = hanging("read")
    kept = ClockKeeper([gpu], reach_s=0.0)
    caller = Caller(kept)
    assert gpu.called.wait(WAIT_S)
    monkeypatch.setattr(calls, "HANG_S", 0.0)
    assert kept.hanging("A") > 0.0 and kept.hanging("B") == 0.0
    for call in (lambda: kept.read("A"), lambda: kept.lock("A", "cell-2", 900, 3.0)):
        with pytest.raises(GpuHangs, match="GPU A: a call to it has not returned for"):
            call()
    assert kept.counters["errors_gpu_hangs"] == 2
    gpu.goes_on.set()
    caller.join()
    assert kept.counters["errors_gpu_hangs"] > 2, "a call that returned at last is counted"


def test_a_call_does_not_wait_for_its_turn_for_ever(
    hanging: Callable[[str], Hanging], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "HANG_S", 1e9)
    monkeypatch.setattr(keeper, "TURN_S", 0.05)
    gpu = hanging("lock")
    kept = ClockKeeper([gpu], reach_s=0.0)
    caller = Caller(kept)
    assert gpu.called.wait(WAIT_S)
    for call in (lambda: kept.lock("A", "cell-2", 900, 3.0), lambda: kept.release("A", "cell-2")):
        with pytest.raises(GpuHangs):
            call()
    gpu.goes_on.set()
    caller.join()


def test_a_release_during_a_hang_is_made_up_for(
    hanging: Callable[[str], Hanging], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = hanging("")
    kept = ClockKeeper([gpu], reach_s=0.0)
    kept.lock("A", "cell", 900, 60.0)
    gpu.call = "read"
    reader = threading.Thread(target=kept.read, args=("A",), daemon=True)
    reader.start()
    assert gpu.called.wait(WAIT_S)
    with monkeypatch.context() as patch:
        patch.setattr(calls, "HANG_S", 0.0)
        with pytest.raises(GpuHangs):
            kept.release("A", "cell")
    gpu.goes_on.set()
    reader.join()
    kept.expire()
    assert gpu.history == [900, 0]


def test_neither_start_nor_close_waits_for_a_gpu_that_hangs(
    hanging: Callable[[str], Hanging], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "TURN_S", 0.1)
    a, b = hanging("unlock"), Gpu("B")
    kept = ClockKeeper([a, b], reach_s=0.0)
    kept.start()
    assert a.called.wait(WAIT_S)
    eventually(lambda: b.history == [0], "B's release at the start")
    monkeypatch.setattr(keeper, "TURN_S", WAIT_S)
    kept.lock("B", "cell", 900, 60.0)
    assert "A" in kept.close(0.5)
    eventually(lambda: b.history == [0, 900, 0] and b.closed, "B's release at the end")
    assert a.history == [] and not a.closed


def test_close_names_a_gpu_that_is_held_up_between_two_calls_and_releases_it_after_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "LOOK_S", 3600.0)
    gpu = Gpu("A")
    kept = ClockKeeper([gpu], reach_s=0.0)
    kept.start()
    kept.lock("A", "cell", 900, 3600.0)
    asked, goes_on = threading.Event(), threading.Event()

    def waiting() -> bool:
        asked.set()
        goes_on.wait(2 * WAIT_S)
        return False

    def late() -> None:
        with pytest.raises(TooLate):
            kept.lock("A", "late", 900, 3600.0, waiting=waiting)

    caller = threading.Thread(target=late, daemon=True)
    time.sleep(0.2)  # the thread that ends leases has begun to wait
    caller.start()
    assert asked.wait(WAIT_S)
    try:
        assert kept.close(0.3) == ("A",)
    finally:
        goes_on.set()
    eventually(lambda: gpu.history == [0, 900, 0] and gpu.closed, "its release")
    assert kept.close(WAIT_S) == ()
    caller.join()


@pytest.mark.parametrize("started", [True, False])
def test_a_gpu_that_refuses_to_be_released_is_closed_all_the_same(started: bool) -> None:
    gpu = Stubborn("A")
    kept = ClockKeeper([gpu])
    if started:
        kept.start()
    before = kept.counters["release_errors"]
    assert kept.close(WAIT_S) == ()
    assert gpu.closed and kept.counters["release_errors"] == before + 1


@pytest.mark.parametrize("silent", [True, False])
def test_release_clocks_waits_for_no_gpu_that_hangs(hanging: Callable[[str], Hanging], silent: bool) -> None:
    a, b = hanging("unlock" if silent else ""), Gpu("B")
    failed = keeper.release_clocks([a, b], 0.5 if silent else WAIT_S)
    assert isinstance(failed.pop("A", None), GpuHangs) is silent
    eventually(lambda: b.history == [0], "B's release")
    assert a.history == ([] if silent else [0])


# ---- GPUs that cannot be opened --------------------------------------------------------------------------


def test_a_gpu_that_could_not_be_opened_is_tried_until_it_can_and_then_released() -> None:
    lost, back = GpuLost("GPU 0: lost"), Gpu("A")
    back.locked = 900
    tries: list[int] = []
    found = threading.Event()

    def open_it() -> GpuDevice:
        tries.append(1)
        if len(tries) == 2:
            raise RuntimeError("not of NVML")
        if not found.is_set():
            raise lost
        return back

    kept = ClockKeeper([Gpu("B")], [MissingGpu("0", lost, open_it)], find_s=0.01)
    kept.start()
    try:
        assert kept.missing == ("0",) and [i.uuid for i in kept.infos] == ["B"]
        eventually(lambda: len(tries) > 3, "further attempts")
        assert kept.counters["errors_gpu_lost"] > 2 and kept.counters["release_errors"] > 2
        found.set()
        eventually(lambda: back.history == [0], "its release")
        eventually(lambda: not kept.missing, "the end of the search")
        assert {i.uuid for i in kept.infos} == {"A", "B"} and kept.alive(WAIT_S)
        assert kept.lock("A", "cell", 500, 60.0).locked_mhz == 500
    finally:
        kept.close()
    assert back.history == [0, 500, 0] and back.closed


def test_an_index_that_now_means_a_gpu_that_is_kept_is_no_new_one() -> None:
    b, again = Gpu("B"), Gpu("B")
    kept = ClockKeeper([b], [MissingGpu("0", GpuLost("lost"), lambda: again)], find_s=0.01)
    kept.start()
    eventually(lambda: again.closed, "the second handle's end")
    assert kept.missing == ("0",) and kept.device("B") is b
    kept.close()


def test_a_gpu_that_is_found_while_the_keeper_closes_is_released_before_it_has_closed() -> None:
    back, called, goes_on = Gpu("A"), threading.Event(), threading.Event()
    back.locked = 900

    def open_it() -> GpuDevice:
        called.set()
        goes_on.wait(2 * WAIT_S)
        return back

    b = Gpu("B")
    kept = ClockKeeper([b], [MissingGpu("0", GpuLost("lost"), open_it)], find_s=0.01)
    kept.start()
    assert called.wait(WAIT_S)
    try:
        assert "0" in kept.close(0.3)
        eventually(lambda: b.history == [0, 0] and b.closed, "B's release, which waits for no other GPU")
        threading.Timer(0.2, goes_on.set).start()
        assert kept.close(WAIT_S) == ()
        assert back.history == [0] and back.closed
    finally:
        goes_on.set()


def test_one_gpu_that_hangs_while_it_is_opened_holds_up_the_search_for_no_other() -> None:
    called, goes_on = threading.Event(), threading.Event()
    lost = GpuLost("lost")

    def open_it() -> GpuDevice:
        called.set()
        goes_on.wait(2 * WAIT_S)
        raise lost

    kept = ClockKeeper(
        [Gpu("B")],
        [MissingGpu("0", lost, open_it), MissingGpu("1", lost, lambda: Gpu("C"))],
        find_s=0.01,
    )
    kept.start()
    try:
        assert called.wait(WAIT_S)
        eventually(lambda: kept.missing == ("0",), "the other GPU")
        assert {i.uuid for i in kept.infos} == {"B", "C"}
    finally:
        goes_on.set()
        kept.close()


def test_a_gpu_that_hung_when_it_was_opened_counts_as_hanging_from_the_start() -> None:
    goes_on = threading.Event()

    def open_it() -> GpuDevice:
        goes_on.wait(2 * WAIT_S)
        return Gpu("A")

    kept = ClockKeeper([Gpu("B")], [MissingGpu("0", GpuHangs("not opened"), open_it)], find_s=3600.0)
    kept.start()
    try:
        eventually(lambda: kept.hung(0.0) == ("0",), "its hang")
        assert "0" in kept.close(0.3)
    finally:
        goes_on.set()
    assert kept.close(WAIT_S) == ()
