"""``prbandit edge-agent --backend nvml`` as a process of its own against the stub ``libnvidia-ml.so.1``.

The agent, pynvml and the loader run as they do in the field; the file behind the stub says what the GPU did.
"""

from __future__ import annotations

import fcntl
import json
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from agents.gpu.device import ERRORS, GpuHangs
from controller.cli import cli
from controller.cli.ports import free_port
from controller.core.measure import Reason
from controller.core.observation import GpuReading
from controller.links import codec
from controller.links.edge import EdgeLink
from tests.agents.gpu import stub as stub_module
from tests.agents.gpu.stub import BOOST_MHZ, GPUS, SUPPORTED_MHZ, Hangs, Stub, Unsupported
from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc, security

ROOT = Path(__file__).resolve().parents[3]
DROP_IN = ROOT / "deploy/systemd/prbandit-edge-agent.service.d/nvml.conf"
CLI = [sys.executable, "-m", "controller.cli"]
START_S = 60.0
CALL_S = 30.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("pynvml") is None, reason="nvidia-ml-py is not installed"),
]


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    """One GPU under half load."""
    try:
        stub_module.build()
    except stub_module.NoCompiler as missing:
        pytest.skip(str(missing))
    return Stub(tmp_path / "gpus")


def until(condition: Callable[[], Any], what: str, timeout_s: float = START_S) -> Any:
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(0.01)
    return value


class Agent:
    """A running agent and a channel to it."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log
        self._channel = security.grpc_channel(f"127.0.0.1:{port}", None)
        self.edge: Any = edge_pb2_grpc.EdgeStub(self._channel)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait(self) -> None:
        hello = edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION, holder="test")
        end = time.monotonic() + START_S
        while True:
            assert self.process.poll() is None, self.log
            try:
                self.welcome = self.edge.Hello(hello, timeout=CALL_S)
                return
            except grpc.RpcError:
                assert time.monotonic() < end, self.log
                time.sleep(0.05)

    def lock(self, mhz: int, *, lease_ms: int = 60_000, gpu: str = "", holder: str = "cell-1") -> Any:
        request = edge_pb2.LockClocksRequest(gpu=gpu, holder=holder, mhz=mhz, lease_ms=lease_ms)
        return self.edge.LockClocks(request, timeout=CALL_S)

    def state(self, gpu: str = "") -> edge_pb2.GpuState:
        stream = self.edge.WatchGpu(edge_pb2.WatchGpuRequest(gpu=gpu, period_ms=10), timeout=CALL_S)
        try:
            return next(stream)
        finally:
            stream.cancel()

    def told_of_a_hang(self, gpu: str) -> bool:
        """Call a GPU that hangs, and say whether the agent has told so."""
        with suppress(grpc.RpcError):
            next(self.edge.WatchGpu(edge_pb2.WatchGpuRequest(gpu=gpu, period_ms=10), timeout=1.0))
        return f"gpu {gpu}: a call to it hangs" in self.log

    def close(self) -> None:
        self._channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextmanager
def hung(stub: Stub) -> Iterator[None]:
    """No call to a GPU returns."""
    with stub.path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def running(stub: Stub, *more: str) -> Iterator[Agent]:
    port = free_port()
    log = stub.path.with_name(f"agent-{port}.log")
    command = [*CLI, "edge-agent", "--backend", "nvml", "--address", f"127.0.0.1:{port}", *more]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=stub.environment(), stdout=out, stderr=subprocess.STDOUT, text=True
        )
    agent = Agent(process, port, log)
    try:
        agent.wait()
        yield agent
    finally:
        agent.close()


def prbandit(stub: Stub, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of ours that sees the stub."""
    return subprocess.run(
        [*CLI, *arguments], cwd=ROOT, env=stub.environment(), capture_output=True, text=True, timeout=START_S
    )


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def metrics(port: int, *, up: int | None = None) -> dict[str, float]:
    """A scrape; with ``up`` the first in which the GPU was that: readings may come late on a busy machine."""
    if up is not None:
        name = f'prbandit_agent_gpu_up{{gpu="{GPUS[0]}"}}'
        return until(lambda: page if (page := metrics(port)).get(name) == up else None, f"{name} {up}")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=CALL_S) as page:
        lines = page.read().decode().splitlines()
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if x[0] != "#")}


def test_the_agent_lists_locks_reads_back_and_releases(stub: Stub) -> None:
    stub.gpu.lag_ms = 40
    with running(stub) as agent:
        (info,) = agent.welcome.gpus
        assert (info.uuid, info.backend, info.default_sm_mhz) == (GPUS[0], "nvml", 2100)
        assert tuple(info.supported_sm_mhz) == SUPPORTED_MHZ
        resets = stub.gpu.resets
        assert resets == 1, "the start releases"
        held = agent.lock(1000)
        assert (held.wanted_mhz, held.locked_mhz, held.sm_mhz, held.reached) == (1000, 1005, 1005, True)
        state = agent.state()
        codec.check_gpu_state(state)
        assert (state.sm_mhz, state.locked_mhz, state.memory_mhz) == (1005, 1005, 4001)
        assert state.power_w == pytest.approx(10 + 0.024 * 1005 / 2, abs=0.01) and state.utilisation == 0.5
        assert state.energy_j > 0 and state.temperature_c > 30
        assert list(state.clock_event_reasons) == ["applications_clocks_setting"]
        agent.edge.ReleaseClocks(edge_pb2.ReleaseClocksRequest(holder="cell-1"), timeout=CALL_S)
        assert stub.gpu.locked_mhz == 0 and stub.gpu.resets == resets + 1


def test_the_end_of_a_lease_and_sigterm_release(stub: Stub) -> None:
    with running(stub) as agent:
        agent.lock(900, lease_ms=2_000)
        assert stub.gpu.locks == 1
        until(lambda: stub.gpu.locked_mhz == 0, "the end of the lease", CALL_S)
        agent.lock(900)
        assert stub.gpu.locked_mhz == 900
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(CALL_S) == 0, agent.log
        assert stub.gpu.locked_mhz == 0


def exec_stop_post() -> list[str]:
    """What the unit runs after the agent, however that ended; the interpreter's path replaced."""
    (line,) = re.findall(r"(?m)^ExecStopPost=(.*)$", DROP_IN.read_text())
    program, *arguments = shlex.split(line)
    assert program == "-/opt/prbandit/bin/prbandit"  # that it fails does not make the unit fail
    return arguments


def test_what_kill_9_leaves_locked_exec_stop_post_releases(stub: Stub) -> None:
    with running(stub) as agent:
        agent.lock(900)
        agent.process.kill()
        agent.process.wait(CALL_S)
        assert stub.gpu.locked_mhz == 900, "a lock outlives its process"
        done = prbandit(stub, *exec_stop_post())
        assert done.returncode == 0, done.stderr
        assert stub.gpu.locked_mhz == 0 and GPUS[0] in done.stdout


def test_an_agent_that_starts_releases_what_a_killed_one_left(stub: Stub) -> None:
    with running(stub) as agent:
        agent.lock(900)
        agent.process.kill()
        agent.process.wait(CALL_S)
    with running(stub) as agent:
        assert stub.gpu.locked_mhz == 0
        assert agent.state().sm_mhz == BOOST_MHZ


def test_release_tells_what_it_could_not_release(stub: Stub) -> None:
    stub.state.gpus = 2
    stub.gpu.no_permission = 1
    done = prbandit(stub, "edge-agent", "release", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["released"] == [GPUS[1]] and told["failed"][GPUS[0]].startswith("no_permission: ")
    assert "Insufficient Permissions" in done.stderr and "Traceback" not in done.stderr


def test_release_tells_which_gpu_it_could_not_open(stub: Stub) -> None:
    stub.state.gpus = 2
    for gpu in stub.state.gpu:
        gpu.locked_mhz = 900
    stub.gpu.error = stub_module.GPU_IS_LOST
    for name, arguments in (("0", []), (GPUS[0], ["--gpu", GPUS[0], "--gpu", GPUS[1]])):
        done = prbandit(stub, "edge-agent", "release", "--json", *arguments)
        assert done.returncode == 1
        told = json.loads(done.stdout)
        assert told["released"] == [GPUS[1]] and list(told["failed"]) == [name]
        assert told["failed"][name].startswith("gpu_lost: ") and "GPU is lost" in done.stderr
    assert [g.locked_mhz for g in stub.state.gpu] == [900, 0]


@pytest.mark.parametrize("when", ["opened", "released"])
def test_a_gpu_that_hangs_keeps_no_other_from_its_release(stub: Stub, when: str) -> None:
    stub.state.gpus = 2
    for gpu in stub.state.gpu:
        gpu.locked_mhz = 900
    stub.gpu.hang = 1 if when == "opened" else 2

    def told() -> Any:
        done = prbandit(stub, "edge-agent", "release", "--json")
        assert done.returncode == 1
        assert "gpu_hangs: " in done.stderr and "Traceback" not in done.stderr
        told = json.loads(done.stdout)
        return told if told["released"] else None  # a machine that stands still makes the other hang too

    failed = until(told, "the release of the other")["failed"]
    assert list(failed) == ["0" if when == "opened" else GPUS[0]]
    assert [g.locked_mhz for g in stub.state.gpu] == [900, 0]


def test_a_gpu_that_hangs_when_the_agent_starts_is_released_when_it_answers(stub: Stub) -> None:
    stub.state.gpus = 2
    for gpu in stub.state.gpu:
        gpu.locked_mhz = 900
    stub.gpu.hang = 1
    port = free_port()
    with running(stub, "--metrics", f"127.0.0.1:{port}") as agent:
        assert [info.uuid for info in agent.welcome.gpus] == [GPUS[1]]
        assert [g.locked_mhz for g in stub.state.gpu] == [900, 0]
        assert "gpu 0: left out, clocks not released: gpu_hangs" in agent.log
        name = 'prbandit_agent_gpu_hang_seconds{gpu="0"}'
        page = until(lambda: page if (page := metrics(port))[name] >= 1 else None, "a hang that is seen")
        assert page['prbandit_agent_gpu_up{gpu="0"}'] == 0
        stub.gpu.hang = 0
        until(lambda: stub.gpu.locked_mhz == 0, "its release")
        until(lambda: name not in metrics(port), "its place among the others")
        agent.lock(1200, gpu=GPUS[0])
        assert [g.locked_mhz for g in stub.state.gpu] == [1200, 0]


def test_an_agent_of_which_one_gpu_hangs_goes_on_for_the_other_and_names_it(stub: Stub) -> None:
    stub.state.gpus = 2
    beat = stub.path.with_name("beat.json")
    with running(stub, "--heartbeat", str(beat)) as agent:
        agent.lock(900, gpu=GPUS[0])
        agent.lock(900, gpu=GPUS[1], lease_ms=1_000)
        stub.gpu.hang = 1
        until(lambda: agent.told_of_a_hang(GPUS[0]), "word of it")
        beat.unlink()
        until(beat.exists, "the heartbeat, which goes on")
        until(lambda: stub.state.gpu[1].locked_mhz == 0, "the end of the other's lease")
        agent.lock(900, gpu=GPUS[1])
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(CALL_S) == 1
        assert f"a call to GPU {GPUS[0]} hangs: the process ends without it" in agent.log
        assert [g.locked_mhz for g in stub.state.gpu] == [900, 0]


def test_an_agent_of_which_every_gpu_hangs_says_no_more_that_it_is_alive(stub: Stub) -> None:
    beat = stub.path.with_name("beat.json")
    with running(stub, "--heartbeat", str(beat)) as agent:
        until(beat.exists, "the heartbeat")
        stub.gpu.hang = 1
        until(lambda: agent.told_of_a_hang(GPUS[0]), "word of it")
        time.sleep(0.5)  # one that was begun before may still be written
        beat.unlink(missing_ok=True)
        time.sleep(2.5)
        assert not beat.exists()
        stub.gpu.hang = 0
        until(beat.exists, "the heartbeat after the hang")
        assert f"gpu {GPUS[0]}: the call that hung has returned at last" in agent.log


def test_a_gpu_that_was_lost_when_the_agent_started_is_released_when_it_is_back(stub: Stub) -> None:
    stub.state.gpus = 2
    for gpu in stub.state.gpu:
        gpu.locked_mhz = 900
    stub.gpu.error = stub_module.GPU_IS_LOST
    port = free_port()
    with running(stub, "--metrics", f"127.0.0.1:{port}") as agent:
        assert [info.uuid for info in agent.welcome.gpus] == [GPUS[1]]
        assert [g.locked_mhz for g in stub.state.gpu] == [900, 0]
        page = metrics(port)
        assert page['prbandit_agent_gpu_up{gpu="0"}'] == 0
        assert page['prbandit_agent_errors_total{error="gpu_lost"}'] >= 1
        assert page["prbandit_agent_release_errors_total"] >= 1
        assert "gpu 0: left out, clocks not released: gpu_lost" in agent.log
        stub.gpu.error = 0
        until(lambda: stub.gpu.locked_mhz == 0, "its release")
        page = metrics(port, up=1)
        assert 'prbandit_agent_gpu_up{gpu="0"}' not in page
        agent.lock(1200, gpu=GPUS[0])
        assert [g.locked_mhz for g in stub.state.gpu] == [1200, 0]


def test_during_a_hang_a_scrape_is_answered_and_sigterm_ends_the_process(stub: Stub) -> None:
    port = free_port()
    with running(stub, "--metrics", f"127.0.0.1:{port}") as agent:
        agent.lock(900)
        with hung(stub):
            name = f'prbandit_agent_gpu_hang_seconds{{gpu="{GPUS[0]}"}}'
            page = until(lambda: page if (page := metrics(port))[name] >= 1 else None, "a hang that is seen")
            assert page[f'prbandit_agent_gpu_up{{gpu="{GPUS[0]}"}}'] == 0
            assert not [n for n in page if "gpu_sm_mhz" in n or "gpu_power" in n]
            agent.process.send_signal(signal.SIGTERM)
            assert agent.process.wait(CALL_S) == 1, agent.log
            assert stub.gpu.locked_mhz == 900
        assert f"a call to GPU {GPUS[0]} hangs: the process ends without it" in agent.log
        assert "Traceback" not in agent.log
    done = prbandit(stub, *exec_stop_post())
    assert done.returncode == 0 and stub.gpu.locked_mhz == 0


def test_after_a_hang_its_calls_are_counted(stub: Stub) -> None:
    port = free_port()
    with running(stub, "--metrics", f"127.0.0.1:{port}") as agent:
        with hung(stub):
            name = f'prbandit_agent_gpu_hang_seconds{{gpu="{GPUS[0]}"}}'
            until(lambda: metrics(port)[name] >= 1, "a hang that is seen")
        page = metrics(port, up=1)
        assert page['prbandit_agent_errors_total{error="gpu_hangs"}'] >= 1
        until(lambda: metrics(port)[name] == 0, "the end of the hang")
        assert agent.lock(900).reached


def test_a_heartbeat_that_cannot_be_written_is_told_once_and_ends_nothing(stub: Stub) -> None:
    beat = stub.path.with_name("folder") / "beat.json"
    stub.gpu.locked_mhz = 900
    with running(stub, "--heartbeat", str(beat)) as agent:
        until(lambda: str(beat) in agent.log, "word of it")
        agent.lock(900)
        time.sleep(2.5)  # two more attempts at least, as good as always
        assert agent.process.poll() is None and stub.gpu.locked_mhz == 900
        assert agent.log.count("--heartbeat") == 1
        beat.parent.mkdir()
        until(beat.exists, "the heartbeat")
        beat.unlink()
        until(beat.exists, "the next one")


def test_without_permission_the_agent_still_streams_the_state(stub: Stub) -> None:
    stub.gpu.no_permission = 1
    port = free_port()
    with running(stub, "--metrics", f"127.0.0.1:{port}") as agent:
        assert agent.state().sm_mhz == BOOST_MHZ
        code, details = refused(lambda: agent.lock(900))
        assert code is grpc.StatusCode.PERMISSION_DENIED and GPUS[0] in details
        assert metrics(port)['prbandit_agent_errors_total{error="no_permission"}'] >= 2
        assert "no_permission" in agent.log and "Traceback" not in agent.log


def test_a_lost_gpu_is_unavailable_until_it_is_back(stub: Stub) -> None:
    port = free_port()
    with running(stub, "--metrics", f"127.0.0.1:{port}") as agent:
        assert agent.lock(900).reached
        stub.gpu.error = stub_module.GPU_IS_LOST
        for call in (agent.state, lambda: agent.lock(900)):
            code, details = refused(call)
            assert code is grpc.StatusCode.UNAVAILABLE and "GPU is lost" in details
        page = metrics(port, up=0)
        assert page['prbandit_agent_errors_total{error="gpu_lost"}'] >= 2
        stub.gpu.error = stub.gpu.locked_mhz = 0

        def back() -> bool:
            try:
                return agent.lock(900).reached
            except grpc.RpcError:
                return False

        until(back, "the GPU")
        assert agent.state().sm_mhz == stub.gpu.locked_mhz == 900


@pytest.mark.parametrize("first", [stub_module.VERSION_MISMATCH, stub_module.GPU_IS_LOST])
def test_an_agent_whose_driver_was_changed_ends_and_the_next_one_releases(stub: Stub, first: int) -> None:
    with running(stub) as agent:
        agent.lock(900)
        stub.gpu.error, stub.state.init_error = first, stub_module.VERSION_MISMATCH
        assert agent.process.wait(CALL_S) == 1, "without anybody asking for the GPU"
        (told,) = re.findall(r"(?m)^prbandit: (.*)$", agent.log)
        assert "mismatch (libnvidia-ml.so.1 of this process is not that of the kernel module" in told
        assert told.endswith("the edge agent ends, for a new one to find the driver")
        assert "Traceback" not in agent.log
    done = prbandit(stub, *exec_stop_post())
    assert done.returncode == 1 and "mismatch" in done.stderr and stub.gpu.locked_mhz == 900
    stub.gpu.error = stub.state.init_error = 0  # who starts now maps the library of the new driver
    with running(stub) as agent:
        assert stub.gpu.locked_mhz == 0 and agent.lock(900).reached


@pytest.mark.parametrize(
    ("call", "name", "command"),
    [
        (Hangs.INIT, "nvmlInit", ["edge-agent", "--backend", "nvml"]),
        (Hangs.COUNT, "nvmlDeviceGetCount", ["edge-agent", "release"]),
    ],
)
def test_a_driver_that_hangs_at_the_start_ends_the_process_with_its_name(
    stub: Stub, call: Hangs, name: str, command: list[str]
) -> None:
    stub.state.hangs = call
    done = prbandit(stub, *command)
    assert (done.returncode, done.stderr) == (1, f"prbandit: NVML: {name} has not returned for 5 s\n")


def test_a_release_that_cannot_give_the_driver_back_has_released(stub: Stub) -> None:
    stub.gpu.locked_mhz, stub.state.hangs = 900, Hangs.SHUTDOWN
    done = prbandit(stub, "edge-agent", "release")
    assert stub.gpu.locked_mhz == 0 and f"{GPUS[0]}: released" in done.stdout
    assert (done.returncode, done.stderr) == (1, "prbandit: NVML: nvmlShutdown has not returned for 1 s\n")


def test_a_stuck_clock_is_answered_and_counted(stub: Stub) -> None:
    port = free_port()
    with running(stub, "--metrics", f"127.0.0.1:{port}") as agent:
        assert agent.state().sm_mhz == BOOST_MHZ
        stub.gpu.stuck = 1
        held = agent.lock(900)
        assert (held.locked_mhz, held.sm_mhz, held.reached) == (900, BOOST_MHZ, False)
        assert metrics(port)['prbandit_agent_errors_total{error="clock_not_reached"}'] == 1
        stub.gpu.stuck = 0
        assert agent.lock(900).reached


def test_what_a_gpu_does_not_report_is_a_gap(stub: Stub) -> None:
    stub.gpu.unsupported = Unsupported.ALL
    port = free_port()
    with running(stub, "--metrics", f"127.0.0.1:{port}") as agent:
        state = agent.state()
        codec.check_gpu_state(state)
        # Nothing but these two is set: what is not known is not said to be 0.
        assert {field.name for field, _ in state.ListFields()} == {"gpu", "time_ns", "mono_ns"}
        page = metrics(port, up=1)
        assert not [name for name in page if "power" in name or "energy" in name or "sm_mhz" in name]
        assert refused(lambda: agent.lock(900))[0] is grpc.StatusCode.FAILED_PRECONDITION


def test_the_controller_s_link_holds_a_clock_and_sees_it_lost(stub: Stub) -> None:
    stub.gpu.lag_ms = 20
    with running(stub) as agent:
        link = EdgeLink(f"127.0.0.1:{agent.port}", holder="cell-1", lease_s=10.0, watch_period_ms=20)
        link.start()
        try:
            link.lock(1000, 60.0)

            def reading() -> GpuReading:
                return link.reading(time.monotonic() - 0.5)

            until(lambda: reading() == GpuReading(1005), "a second at the clock")
            assert stub.gpu.locked_mhz == 1005
            stub.gpu.ceiling_mhz = 600
            until(lambda: reading() == GpuReading(600, Reason.CLOCK_NOT_REACHED), "the slowdown", CALL_S)
            stub.gpu.ceiling_mhz = 0
        finally:
            link.close()
        until(lambda: stub.gpu.locked_mhz == 0, "the release of a clean end", CALL_S)


@pytest.mark.parametrize("offset", [-15, -30, 15])
def test_a_clock_that_the_gpu_takes_beside_its_lock_is_learned_about(stub: Stub, offset: int) -> None:
    stub.gpu.offset_mhz = offset
    with running(stub) as agent:
        link = EdgeLink(f"127.0.0.1:{agent.port}", holder="cell-1", lease_s=10.0, watch_period_ms=20)
        link.start()
        try:
            link.lock(1000, 60.0)
            expected = GpuReading(1005 + max(offset, 0))
            until(lambda: link.reading(time.monotonic() - 0.5) == expected, "a second at the clock")
        finally:
            link.close()


def test_metrics_show_the_gpu_and_every_error_before_its_first(stub: Stub) -> None:
    port = free_port()
    with running(stub, "--metrics", f"127.0.0.1:{port}") as agent:
        agent.lock(1200)
        page = metrics(port, up=1)
        label = f'{{gpu="{GPUS[0]}"}}'
        assert page[f"prbandit_agent_gpu_clock_hertz{label}"] == 1.2e9
        assert page[f"prbandit_agent_gpu_locked_hertz{label}"] == 1.2e9
        assert page[f"prbandit_agent_gpu_power_watts{label}"] == pytest.approx(10 + 0.024 * 600, abs=0.01)
        assert page[f"prbandit_agent_gpu_energy_joules_total{label}"] > 0
        reason = f'{{gpu="{GPUS[0]}",reason="applications_clocks_setting"}}'
        assert page[f"prbandit_agent_gpu_clock_event{reason}"] == 1
        assert page["prbandit_agent_locks_total"] == 1
        # A machine that stood still for a second makes its calls hang.
        errors = {kind.name: page[f'prbandit_agent_errors_total{{error="{kind.name}"}}'] for kind in ERRORS}
        assert not [name for name, count in errors.items() if count and name != GpuHangs.name]


def test_two_gpus_are_told_apart_by_uuid(stub: Stub) -> None:
    stub.state.gpus = 2
    with running(stub) as agent:
        assert [info.uuid for info in agent.welcome.gpus] == list(GPUS)
        code, details = refused(lambda: agent.lock(900))
        assert code is grpc.StatusCode.NOT_FOUND and all(uuid in details for uuid in GPUS)
        agent.lock(900, gpu=GPUS[1])
        assert [g.locked_mhz for g in stub.state.gpu] == [0, 900]
    with running(stub, "--gpu", GPUS[1]) as agent:
        assert [info.uuid for info in agent.welcome.gpus] == [GPUS[1]]


@pytest.mark.parametrize("what", ["driver", "library", "gpu", "index"])
def test_an_agent_without_its_gpu_says_what_is_missing(stub: Stub, what: str) -> None:
    arguments = ["edge-agent", "--backend", "nvml", "--address", "127.0.0.1:0"]
    says = {
        "driver": "Driver Not Loaded",
        "library": "Shared Library Not Found",
        "gpu": f"GPU-x: Not Found; known: 0 {GPUS[0]}",
        "index": "GPU 3: the indexes here end at 0; known: 0",
    }[what]
    if what == "driver":
        stub.state.init_error = stub_module.DRIVER_NOT_LOADED
    if what in ("gpu", "index"):
        arguments += ["--gpu", "GPU-x" if what == "gpu" else "3"]
    if what == "library":
        # A file of that name that is none comes first, so that no driver of this machine is found.
        folder = stub.path.with_name("empty")
        folder.mkdir()
        (folder / stub_module.LIBRARY).mkdir()
        environment = {**stub.environment(), "LD_LIBRARY_PATH": str(folder)}
        done = subprocess.run(
            [*CLI, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=START_S
        )
    else:
        done = prbandit(stub, *arguments)
    assert done.returncode == 1 and says in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1, "one line, not a traceback"


def test_fit_power_finds_the_constants_of_the_gpu(stub: Stub) -> None:
    with running(stub) as agent:
        arguments = ["--edge", f"127.0.0.1:{agent.port}", "--clocks", "4", "--settle", "0.05"]

        def fitted() -> bool:
            done = prbandit(stub, "edge-agent", "fit-power", *arguments, "--measure", "0.3", "--json")
            assert done.returncode == 0, done.stderr
            fit = json.loads(done.stdout)
            assert fit["source"] == "energy counter" and fit["warnings"] == []
            assert stub.gpu.locked_mhz == 0
            return (
                fit["w_per_mhz"] == pytest.approx(0.024 * 0.5, rel=0.02)
                and fit["idle_w"] == pytest.approx(10.0, rel=0.02)
                and len(fit["samples"]) == 8
                and fit["rms_w"] < 0.2
            )

        # A machine that stands still between two readings spoils a fit, not five.
        assert any(fitted() for _ in range(5))

        stub.gpu.unsupported = Unsupported.ENERGY
        done = prbandit(stub, "edge-agent", "fit-power", *arguments, "--measure", "0.3")
        assert done.returncode == 0, done.stderr
        assert "8 samples of power" in done.stdout and "P = 0.0120" in done.stdout

        stub.gpu.unsupported = Unsupported.UTILISATION | Unsupported.TEMPERATURE
        stub.gpu.load_percent = 0
        done = prbandit(stub, "edge-agent", "fit-power", *arguments, "--measure", "0.1")
        assert done.returncode == 0, done.stderr
        assert len(re.findall(r"(?m)^ +\d+ .* - +-$", done.stdout)) == 8
        assert "warning: the GPU does not report its utilisation" in done.stdout
        assert "warning: the slope is not clear of the residuals" in done.stdout
        stub.gpu.unsupported, stub.gpu.load_percent = 0, 5
        done = prbandit(stub, "edge-agent", "fit-power", *arguments, "--measure", "0.1", "--json")
        assert "warning: the mean utilisation was 5%" in done.stderr
        assert json.loads(done.stdout)["warnings"][0].startswith("the mean utilisation was 5%")

        stub.gpu.no_permission = 1
        done = prbandit(stub, "edge-agent", "fit-power", *arguments)
        assert done.returncode == 1 and "PERMISSION_DENIED" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_fit_that_is_stopped_gives_its_lock_back(stub: Stub, number: int) -> None:
    with running(stub) as agent:
        command = [*CLI, "edge-agent", "fit-power", "--edge", f"127.0.0.1:{agent.port}"]
        fit = subprocess.Popen([*command, "--settle", "30"], cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            until(lambda: stub.gpu.locked_mhz, "a lock of the fit")
            fit.send_signal(number)
            assert fit.wait(CALL_S) != 0
            until(lambda: stub.gpu.locked_mhz == 0, "the fit's release", CALL_S)
        finally:
            fit.kill()
            fit.wait()


@pytest.mark.parametrize("name", ["release", "fit-power"])
def test_options_of_the_agent_before_a_subcommand_are_refused_not_ignored(name: str) -> None:
    command = ["edge-agent", "--backend", "nvml", "--gpu", "0", name]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2
    assert f"--backend, --gpu: an option of the agent, which {name} does not read" in result.output


@pytest.mark.parametrize("option", ["--settle", "--measure"])
@pytest.mark.parametrize("value", ["inf", "nan", "0"])
def test_a_time_that_cannot_be_measured_is_refused_by_its_option(option: str, value: str) -> None:
    result = CliRunner().invoke(cli, ["edge-agent", "fit-power", option, value])
    assert result.exit_code == 2 and f"Invalid value for {option}:" in result.output.replace("'", "")
