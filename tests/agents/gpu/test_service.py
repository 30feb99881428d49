from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from agents.gpu.device import GpuDevice, GpuInfo, GpuLost, NoPermission, Reading
from agents.gpu.emulated import EmulatedGpu, EmulatedGpuSpec
from agents.gpu.keeper import ClockKeeper
from agents.gpu.service import EdgeAgent, EdgeService, serve
from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc, security

DEADLINE_S = 30.0


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


class BrokenGpu(GpuDevice):
    """A GPU that fails as told; ``calls`` records what was asked of it."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls: list[object] = []

    @property
    def info(self) -> GpuInfo:
        return GpuInfo("GPU-broken", "broken", "test", (500, 1600), 1600)

    def lock(self, mhz: int) -> None:
        self._do(mhz)

    def unlock(self) -> None:
        self._do("unlock")

    def read(self) -> Reading:
        clocks = [c for c in self.calls if isinstance(c, int)]
        return Reading(1, clocks[-1] if clocks else 1600, 4001, 30.0, 0.0, 0.0, 40.0)

    def _do(self, call: object) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(call)


@pytest.fixture
def gpu() -> EmulatedGpu:
    return EmulatedGpu()


class Clock:
    """The agent's, which a test moves on."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def agent(gpu: EmulatedGpu, clock: Clock) -> Iterator[EdgeAgent]:
    agent = serve("127.0.0.1:0", backend=[gpu], max_watchers=2, max_lease_s=3600.0, clock=clock)
    agent.start()
    yield agent
    agent.close()


@pytest.fixture
def channel(agent: EdgeAgent) -> Iterator[grpc.Channel]:
    with security.grpc_channel(f"127.0.0.1:{agent.port}", None) as channel:
        yield channel


@pytest.fixture
def edge(channel: grpc.Channel) -> edge_pb2_grpc.EdgeStub:
    return edge_pb2_grpc.EdgeStub(channel)


def lock(
    edge: edge_pb2_grpc.EdgeStub, mhz: int, lease_ms: int = 60_000, holder: str = "cell-1", gpu: str = ""
):
    request = edge_pb2.LockClocksRequest(gpu=gpu, holder=holder, mhz=mhz, lease_ms=lease_ms)
    return edge.LockClocks(request, timeout=DEADLINE_S)


def release(edge: edge_pb2_grpc.EdgeStub, holder: str = "cell-1"):
    return edge.ReleaseClocks(edge_pb2.ReleaseClocksRequest(holder=holder), timeout=DEADLINE_S)


def watch(edge: edge_pb2_grpc.EdgeStub, period_ms: int = 10, gpu: str = ""):
    return edge.WatchGpu(edge_pb2.WatchGpuRequest(gpu=gpu, period_ms=period_ms), timeout=2 * DEADLINE_S)


def refused(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_hello_describes_the_gpus(edge: edge_pb2_grpc.EdgeStub, gpu: EmulatedGpu):
    hello = edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION, holder="cell-1")
    welcome = edge.Hello(hello, timeout=DEADLINE_S)
    assert welcome.protocol_version == PROTOCOL_VERSION
    assert [g.uuid for g in welcome.gpus] == [gpu.info.uuid]
    assert tuple(welcome.gpus[0].supported_sm_mhz) == gpu.info.supported_sm_mhz
    assert welcome.gpus[0].default_sm_mhz == 1600
    assert welcome.gpus[0].backend == "emulated"


def test_hello_refuses_another_version_and_names_both(edge: edge_pb2_grpc.EdgeStub, agent: EdgeAgent):
    other = PROTOCOL_VERSION + 41
    error = refused(lambda: edge.Hello(edge_pb2.EdgeHello(protocol_version=other), timeout=DEADLINE_S))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert str(other) in error.details() and str(PROTOCOL_VERSION) in error.details()
    assert agent.counters["refused_failed_precondition"] == 1


def test_a_lock_is_answered_once_the_clock_reads_back(edge: edge_pb2_grpc.EdgeStub, gpu: EmulatedGpu):
    held = lock(edge, 701)
    assert (held.wanted_mhz, held.locked_mhz, held.sm_mhz, held.reached) == (701, 715, 715, True)
    assert gpu.read().sm_mhz == 715


def test_the_highest_clock_of_two_holders_wins_until_it_is_released(edge: edge_pb2_grpc.EdgeStub):
    lock(edge, 700, holder="cell-1")
    assert lock(edge, 1200, holder="cell-2").locked_mhz == 1200
    held = lock(edge, 600, holder="cell-1")
    assert (held.wanted_mhz, held.sm_mhz) == (1200, 1200)
    held = release(edge, "cell-2")
    assert (held.wanted_mhz, held.locked_mhz, held.sm_mhz, held.reached) == (600, 600, 600, True)
    held = release(edge, "cell-1")
    assert (held.wanted_mhz, held.locked_mhz, held.reached) == (0, 0, True)


def test_a_lease_is_no_longer_than_the_agent_allows():
    agent = serve("127.0.0.1:0", max_lease_s=5.0)
    agent.start()
    try:
        with security.grpc_channel(f"127.0.0.1:{agent.port}", None) as channel:
            edge = edge_pb2_grpc.EdgeStub(channel)
            hello = edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION)
            assert edge.Hello(hello, timeout=DEADLINE_S).max_lease_ms == 5000
            error = refused(lambda: lock(edge, 700, lease_ms=5001))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "lease_ms: 5001 is not in 1..5000" in error.details()
            assert lock(edge, 700, lease_ms=5000).locked_mhz
    finally:
        agent.close()


@pytest.mark.parametrize("seconds", [0.0, -1.0, 3601.0])
def test_an_impossible_longest_lease_is_refused(seconds: float):
    with pytest.raises(ValueError, match="--max-lease"):
        serve("127.0.0.1:0", max_lease_s=seconds)


def test_a_release_without_a_lease_changes_nothing(edge: edge_pb2_grpc.EdgeStub):
    lock(edge, 700)
    assert release(edge, "somebody").locked_mhz == 700


def test_the_end_of_a_lease_gives_the_next_highest_and_then_the_default_clock(
    edge: edge_pb2_grpc.EdgeStub, gpu: EmulatedGpu, agent: EdgeAgent, clock: Clock
):
    lock(edge, 500, holder="cell-1", lease_ms=2_000_000)
    lock(edge, 1000, holder="cell-2", lease_ms=1_000_000)
    clock.ahead_s = 1_000.0
    eventually(lambda: gpu.read().sm_mhz == 500)
    clock.ahead_s = 2_000.0
    eventually(lambda: gpu.read().sm_mhz == 1600)
    assert agent.counters["lapsed_leases"] == 2


def test_renewal_keeps_a_lock_beyond_its_first_lease(gpu: EmulatedGpu):
    now = [0.0]
    keeper = ClockKeeper([gpu], clock=lambda: now[0])
    keeper.lock("", "cell-1", 600, 1.0)
    now[0] = 0.9
    keeper.lock("", "cell-1", 600, 1.0)
    now[0] = 1.8
    keeper.expire()
    assert keeper.read("")[0] == 600
    now[0] = 1.9
    keeper.expire()
    assert keeper.read("")[0] == 0


class Context:
    """Of a call whose caller may have gone; asking about it takes ``asking_s`` of the agent's clock."""

    def __init__(self, clock: Clock, *, active: bool = True, left_s: float | None = None) -> None:
        self.clock, self.active, self.left_s = clock, active, left_s
        self.asking_s = 0.0

    def is_active(self) -> bool:
        self.clock.ahead_s += self.asking_s
        return self.active

    def time_remaining(self) -> float | None:
        return self.left_s

    def peer(self) -> str:
        return "test"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise RuntimeError(code, details)


@pytest.mark.parametrize("why", ["cancelled", "past its deadline", "lease over"])
def test_a_lock_that_nobody_waits_for_any_more_does_not_touch_the_gpu(clock: Clock, why: str):
    device = BrokenGpu()
    service = EdgeService(ClockKeeper([device], clock=clock), max_watchers=1)
    context = Context(clock, active=why != "cancelled", left_s=0.0 if why == "past its deadline" else None)
    context.asking_s = 5.0 if why == "lease over" else 0.0
    request = edge_pb2.LockClocksRequest(holder="cell-1", mhz=500, lease_ms=4_000)
    with pytest.raises(RuntimeError) as caught:
        service.LockClocks(request, context)
    assert caught.value.args[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert device.calls == []
    assert service.counters["refused_deadline_exceeded"] == 1
    context.active, context.left_s, context.asking_s = True, 1.0, 0.0
    assert service.LockClocks(request, context).locked_mhz == 500


def test_a_clock_that_is_not_reached_is_said_so(
    edge: edge_pb2_grpc.EdgeStub, gpu: EmulatedGpu, agent: EdgeAgent
):
    gpu.set_ceiling(900)
    held = lock(edge, 1500)
    assert (held.locked_mhz, held.sm_mhz, held.reached) == (1500, 900, False)
    assert agent.counters["errors_clock_not_reached"] == 1
    gpu.set_ceiling(0)
    assert lock(edge, 1500).reached


@pytest.mark.parametrize(
    ("field", "values", "code"),
    [
        ("mhz", {"mhz": 0}, grpc.StatusCode.INVALID_ARGUMENT),
        ("lease_ms", {"lease_ms": 0}, grpc.StatusCode.INVALID_ARGUMENT),
        ("lease_ms", {"lease_ms": 3_600_001}, grpc.StatusCode.INVALID_ARGUMENT),
        ("holder", {"holder": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ("holder", {"holder": "x" * 65}, grpc.StatusCode.INVALID_ARGUMENT),
        ("gpu", {"gpu": "GPU-unknown"}, grpc.StatusCode.NOT_FOUND),
    ],
)
def test_a_bad_lock_is_refused_naming_the_field(
    edge: edge_pb2_grpc.EdgeStub,
    agent: EdgeAgent,
    field: str,
    values: dict[str, object],
    code: grpc.StatusCode,
):
    good: dict[str, object] = {"mhz": 700, "lease_ms": 1000, "holder": "cell-1", "gpu": ""}
    error = refused(lambda: lock(edge, **{**good, **values}))
    assert error.code() is code
    assert error.details().startswith(field + ":")
    assert agent.counters[f"refused_{code.name.lower()}"] == 1
    assert next(iter(watch(edge))).locked_mhz == 0


def test_a_release_needs_a_holder(edge: edge_pb2_grpc.EdgeStub):
    assert refused(lambda: release(edge, "")).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_watch_streams_the_state(edge: edge_pb2_grpc.EdgeStub):
    lock(edge, 800)
    states = watch(edge)
    seen = [next(states) for _ in range(3)]
    assert [s.sm_mhz for s in seen] == [800] * 3
    assert [s.locked_mhz for s in seen] == [800] * 3
    assert seen[0].time_ns < seen[1].time_ns < seen[2].time_ns
    assert seen[0].mono_ns < seen[1].mono_ns < seen[2].mono_ns < time.monotonic_ns()
    assert seen[0].energy_j < seen[2].energy_j
    assert seen[0].power_w > 0 and seen[0].temperature_c > 0
    states.cancel()


@pytest.mark.parametrize("period_ms", [0, 9, 10_001])
def test_a_watch_period_outside_its_bounds_is_refused(edge: edge_pb2_grpc.EdgeStub, period_ms: int):
    error = refused(lambda: next(watch(edge, period_ms)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "period_ms" in error.details()


def test_watchers_are_bounded_and_one_that_leaves_makes_room(edge: edge_pb2_grpc.EdgeStub, agent: EdgeAgent):
    first, second = watch(edge, 10_000), watch(edge, 10_000)
    next(first), next(second)
    error = refused(lambda: next(watch(edge)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert lock(edge, 700).reached
    first.cancel()
    eventually(lambda: agent.watchers == 1)
    assert next(watch(edge)).locked_mhz == 700


def test_the_load_of_an_emulated_application_heats_the_gpu(channel: grpc.Channel, gpu: EmulatedGpu):
    idle = gpu.read().power_w
    stub = edge_pb2_grpc.EmulatedGpuStub(channel)
    answer = stub.SetLoad(edge_pb2.EmulatedLoad(utilisation=0.75), timeout=DEADLINE_S)
    assert answer.utilisation == 0.75
    assert gpu.read().power_w > idle


@pytest.mark.parametrize("utilisation", [-1.0, 1.5, math.nan])
def test_an_impossible_load_is_refused(channel: grpc.Channel, utilisation: float):
    stub = edge_pb2_grpc.EmulatedGpuStub(channel)
    request = edge_pb2.EmulatedLoad(utilisation=utilisation)
    error = refused(lambda: stub.SetLoad(request, timeout=DEADLINE_S))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "utilisation" in error.details()


def test_a_gpu_that_is_not_emulated_takes_no_load():
    agent = serve("127.0.0.1:0", backend=[BrokenGpu()])
    agent.start()
    try:
        with security.grpc_channel(f"127.0.0.1:{agent.port}", None) as channel:
            stub = edge_pb2_grpc.EmulatedGpuStub(channel)
            error = refused(lambda: stub.SetLoad(edge_pb2.EmulatedLoad(utilisation=0.5), timeout=DEADLINE_S))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        agent.close()


def test_close_releases_and_ends_the_watches(gpu: EmulatedGpu):
    agent = serve("127.0.0.1:0", backend=[gpu])
    agent.start()
    with security.grpc_channel(f"127.0.0.1:{agent.port}", None) as channel:
        edge = edge_pb2_grpc.EdgeStub(channel)
        lock(edge, 500)
        states = watch(edge, 10_000)
        next(states)
        agent.close()
        with pytest.raises((grpc.RpcError, StopIteration)):
            next(states)
    eventually(lambda: gpu.read().sm_mhz == 1600)
    agent.close()


def test_start_releases_what_an_earlier_run_left_locked(gpu: EmulatedGpu):
    gpu.lock(500)
    agent = serve("127.0.0.1:0", backend=[gpu])
    agent.start()
    try:
        eventually(lambda: gpu.read().sm_mhz == 1600)
    finally:
        agent.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoPermission("no"), grpc.StatusCode.PERMISSION_DENIED),
        (GpuLost("gone"), grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_an_error_of_the_gpu_undoes_the_lease(error: Exception, code: grpc.StatusCode):
    device = BrokenGpu()
    agent = serve("127.0.0.1:0", backend=[device])
    agent.start()
    try:
        with security.grpc_channel(f"127.0.0.1:{agent.port}", None) as channel:
            edge = edge_pb2_grpc.EdgeStub(channel)
            lock(edge, 500, holder="cell-1")
            device.error = error
            assert refused(lambda: lock(edge, 1600, holder="cell-2")).code() is code
            device.error = None
            held = lock(edge, 500, holder="cell-1")
            assert (held.wanted_mhz, held.locked_mhz) == (500, 500)
            assert agent.counters["lock_errors"] == 1
    finally:
        agent.close()


def test_a_release_that_fails_at_the_end_of_a_lease_is_tried_again():
    now = [0.0]
    device = BrokenGpu()
    keeper = ClockKeeper([device], clock=lambda: now[0], reach_s=0.0)
    keeper.lock("", "cell-1", 500, 1.0)
    device.error = GpuLost("not now")
    now[0] = 2.0
    keeper.expire()
    assert keeper.counters["release_errors"] == 1
    device.error = None
    keeper.expire()
    assert device.calls == [500, "unlock"]
    keeper.expire()
    assert device.calls == [500, "unlock"]


def test_a_renewal_locks_again_where_another_program_changed_the_clock(gpu: EmulatedGpu):
    keeper = ClockKeeper([gpu])
    keeper.lock("", "cell-1", 700, 60.0)
    gpu.unlock()
    eventually(lambda: gpu.read().sm_mhz == 1600)
    assert keeper.lock("", "cell-1", 700, 60.0).reached


def test_two_gpus_have_to_be_named():
    gpus = [EmulatedGpu(EmulatedGpuSpec(uuid=f"GPU-{n}")) for n in "ab"]
    agent = serve("127.0.0.1:0", backend=gpus)
    agent.start()
    try:
        with security.grpc_channel(f"127.0.0.1:{agent.port}", None) as channel:
            edge = edge_pb2_grpc.EdgeStub(channel)
            error = refused(lambda: lock(edge, 700))
            assert "GPU-a" in error.details() and "GPU-b" in error.details()
            assert lock(edge, 700, gpu="GPU-b").gpu == "GPU-b"
            assert gpus[0].read().sm_mhz == 1600
    finally:
        agent.close()


def test_an_address_beyond_loopback_needs_tls():
    with pytest.raises(security.InsecureAddress, match=r"--address.*--keys"):
        serve("0.0.0.0:0")


def test_wait_ends_with_stop(agent: EdgeAgent):
    assert agent.wait(0.0) is False
    threading.Timer(0.01, agent.stop).start()
    assert agent.wait(DEADLINE_S) is True


def test_sigterm_releases_the_clocks(tmp_path: Path):
    script = tmp_path / "agent.py"
    script.write_text(
        "from agents.gpu.emulated import EmulatedGpu\n"
        "from agents.gpu.service import serve\n"
        "class Gpu(EmulatedGpu):\n"
        "    def lock(self, mhz):\n"
        "        super().lock(mhz)\n"
        "        print('locked', mhz, flush=True)\n"
        "    def unlock(self):\n"
        "        super().unlock()\n"
        "        print('unlocked', flush=True)\n"
        "agent = serve('127.0.0.1:0', backend=[Gpu()])\n"
        "agent.stop_on_signals()\n"
        "agent.start()\n"
        "print(agent.port, flush=True)\n"
        "agent.wait()\n"
        "agent.close()\n"
    )
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [sys.executable, script],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "unlocked\n"
        with security.grpc_channel(f"127.0.0.1:{int(process.stdout.readline())}", None) as channel:
            lock(edge_pb2_grpc.EdgeStub(channel), 500)
        assert process.stdout.readline() == "locked 500\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=DEADLINE_S)[0] == "unlocked\n"
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
