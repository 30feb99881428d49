"""Cost of one GPU state and of one clock lock in the edge agent, against the bare NVML calls."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.agents.gpu import stub as stub_module
from tests.bench.common import Row, Skip, child, need, no_collection

NAME = "edge-agent"
CLOCKS = (900, 1200)
_BLOCKS = 10


def run(effort: float) -> list[Row]:
    """Microseconds of one GPU state, of one lock that is read back, and of one lock over the edge link.

    The agent and the bare calls go through the same ``pynvml`` and the same stub ``libnvidia-ml.so.1`` of the
    tests, whose clock follows at once, in one process; they take turns in blocks and the figure is that of
    the median block. A state is all that ``WatchGpu`` sends, serialised; bare, it is the seven NVML calls
    that it needs. A lock changes the clock every time; bare, it is the setting and one reading of the clock.
    A real driver takes longer for each call, so it is the difference that carries over, not the ratio.
    """
    need("pynvml")
    try:
        library = stub_module.build()
    except stub_module.NoCompiler as missing:
        raise Skip(str(missing)) from missing
    with tempfile.TemporaryDirectory(prefix="prbandit-bench-") as folder:
        stub = stub_module.Stub(Path(folder) / "gpus")
        wanted = {"LD_LIBRARY_PATH": str(library), stub_module.STATE: str(stub.path)}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)  # the loader reads them when a process starts
        try:
            with child(serve_measured, max(20, int(2000 * effort))) as measured:
                blocks = measured.receive()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        locks = stub.gpu.locks
    rows = []
    for what, ours, theirs, against in (
        ("one GPU state", "state", "bare_state", "7 calls of pynvml"),
        ("one lock, read back", "lock", "bare_lock", "2 calls of pynvml"),
        ("one lock over gRPC", "lock_grpc", "bare_lock", "2 calls of pynvml"),
    ):
        measured_us, baseline_us = statistics.median(blocks[ours]), statistics.median(blocks[theirs])
        details = {"us": blocks[ours], "bare_us": blocks[theirs], "locks_of_the_stub": locks}
        rows.append(
            Row(
                NAME,
                what,
                "us",
                measured_us,
                baseline_us,
                against,
                measured_us / baseline_us,
                "",
                details,
                f"{what}: {measured_us - baseline_us:.0f} us more than the bare calls",
            )
        )
    return rows


def serve_measured(pipe: Connection, times: int) -> None:
    """Sends microseconds a call of every block, by what was called."""
    import pynvml

    from agents.gpu.keeper import ClockKeeper
    from agents.gpu.nvml import open_some
    from agents.gpu.service import EdgeService, serve
    from wire import edge_pb2, edge_pb2_grpc, security

    pynvml.nvmlInit()
    assert pynvml.nvmlSystemGetDriverVersion() == "stub", "no benchmark sets the clocks of a real GPU"
    (gpu,), _ = open_some()
    uuid = gpu.info.uuid
    keeper = ClockKeeper([gpu])
    service: Any = EdgeService(keeper, max_watchers=1)
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    agent = serve("127.0.0.1:0", backend=open_some()[0])
    agent.start()
    turn = 0

    def clock() -> int:
        nonlocal turn
        turn += 1
        return CLOCKS[turn % len(CLOCKS)]

    def state() -> None:
        service._state(uuid, None).SerializeToString()

    def bare_state() -> None:
        pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
        pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)
        pynvml.nvmlDeviceGetPowerUsage(handle)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        pynvml.nvmlDeviceGetUtilizationRates(handle)
        pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
        pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)

    def lock() -> None:
        assert keeper.lock(uuid, "bench", clock(), 60.0).reached

    def bare_lock() -> None:
        mhz = clock()
        pynvml.nvmlDeviceSetGpuLockedClocks(handle, mhz, mhz)
        assert pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) == mhz

    with security.grpc_channel(f"127.0.0.1:{agent.port}", None) as channel:
        edge: Any = edge_pb2_grpc.EdgeStub(channel)

        def lock_grpc() -> None:
            request = edge_pb2.LockClocksRequest(holder="bench", mhz=clock(), lease_ms=60_000)
            assert edge.LockClocks(request, timeout=10).reached

        calls = (state, bare_state, lock, bare_lock, lock_grpc)
        blocks: dict[str, list[float]] = {call.__name__: [] for call in calls}
        for call in calls:
            call()
        with no_collection():
            for _ in range(_BLOCKS):
                for call in calls:
                    blocks[call.__name__].append(_us(call, max(1, times // _BLOCKS)))
    agent.close()
    keeper.close()
    pipe.send(blocks)


def _us(call: Callable[[], None], times: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(times):
        call()
    return (time.perf_counter_ns() - start) / times / 1e3
