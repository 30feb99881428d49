"""The edge link against a small agent of the test's own, and its judgement of the clock without one."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from agents.gpu.service import serve
from controller.core.observation import GpuReading
from controller.links import edge
from controller.links.edge import ClockHistory, EdgeLink
from tests.links.test_codec import gpu_state
from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc, keys
from wire.security import SERVER_OPTIONS, InsecureAddress, Tls, grpc_server_add

PATIENCE_S = 60.0


def until(done: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (result := done()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return result


# -- the judgement


def clock_lock(mhz: int, *, wanted: int | None = None, reached: bool = True) -> edge_pb2.ClockLock:
    return edge_pb2.ClockLock(wanted_mhz=wanted or mhz, locked_mhz=mhz, sm_mhz=mhz, reached=reached)


@pytest.fixture
def history() -> ClockHistory:
    """A clock of 800 MHz that was locked at 100.05 and read back every 200 ms up to 105."""
    history = ClockHistory(lease_s=3, stale_s=2)
    history.want(800)
    history.lock(800, clock_lock(800), 100.05)
    for i in range(25):
        history.sample(800, 800, 100.2 + 0.2 * i)
        if i % 5 == 4:
            history.lock(800, clock_lock(800), 100.2 + 0.2 * i)
    return history


def test_a_clock_that_was_set_and_read_back_all_the_time_is_relied_on(history: ClockHistory) -> None:
    assert history.reading(100.0, 105.0) == GpuReading(800)


def test_without_samples_there_is_no_agent(history: ClockHistory) -> None:
    assert ClockHistory(lease_s=3, stale_s=2).reading(0, 5) == GpuReading(0, "no edge agent")
    assert history.reading(102.0, 107.2) == GpuReading(800, "no edge agent")


def test_a_clock_that_drops_is_not_reached(history: ClockHistory) -> None:
    history.sample(600, 800, 105.1)
    history.sample(800, 800, 105.2)
    assert history.reading(100.0, 105.3) == GpuReading(800, "clock not reached")
    # Before the interval it does not matter.
    for i in range(5):
        history.sample(800, 800, 105.4 + 0.2 * i)
    history.lock(800, clock_lock(800), 106.3)
    assert history.reading(105.1, 106.3).reason is None


LIST = tuple(range(300, 2101, 15))


def locked(supported: tuple[int, ...] = LIST) -> ClockHistory:
    """800 MHz are wanted and 810 locked, the next clock of the list; read back as that."""
    history = ClockHistory(lease_s=3, stale_s=2)
    history.supported = supported
    history.want(800)
    history.lock(800, edge_pb2.ClockLock(wanted_mhz=800, locked_mhz=810, sm_mhz=810, reached=True), 100.0)
    return history


@pytest.mark.parametrize(
    ("supported", "sm_mhz", "reason"),
    [
        (LIST, 795, None),
        (LIST, 825, None),
        (LIST, 780, "clock not reached"),
        (LIST, 840, "clock not reached"),
        (LIST, 0, "clock not reached"),
        ((410, 810, 1210), 410, "clock not reached"),
        ((), 795, "clock not reached"),
    ],
)
def test_a_clock_within_a_step_of_the_gpu_s_own_list_is_reached(
    supported: tuple[int, ...], sm_mhz: int, reason: str | None
) -> None:
    history = locked(supported)
    history.sample(sm_mhz, 810, 100.5)
    assert history.reading(100.0, 101.0).reason == reason


def test_a_gpu_that_sleeps_has_the_clock_at_which_it_wakes() -> None:
    history = locked()
    history.sample(300, 810, 100.5, ["gpu_idle", "applications_clocks_setting"])
    assert history.reading(100.0, 101.0) == GpuReading(810)
    # Raised by another holder it must not look as though the least clock had been enough.
    history.lock(800, edge_pb2.ClockLock(wanted_mhz=1200, locked_mhz=1200, sm_mhz=300, reached=True), 101.0)
    history.sample(300, 1200, 101.5, ["gpu_idle"])
    assert history.reading(100.5, 101.6) == GpuReading(1200, "clock raised by another slice")


def test_how_far_a_throttled_gpu_fell_short_is_not_read_from_its_sleep() -> None:
    history = locked()
    history.sample(600, 810, 100.5, ["sw_power_cap"])
    history.sample(300, 810, 101.0, ["gpu_idle", "sw_power_cap"])
    assert history.reading(100.0, 101.1) == GpuReading(300, "clock not reached")
    history.sample(300, 810, 101.0, ["gpu_idle"])
    assert history.reading(100.0, 101.1) == GpuReading(810, "clock not reached")


def test_another_holders_higher_clock_is_not_ours(history: ClockHistory) -> None:
    assert not history.lock(800, clock_lock(1200, wanted=1200), 105.0)
    assert history.reading(104.0, 105.0).reason == "clock raised by another slice"
    assert history.lock(800, clock_lock(800), 105.1)
    assert history.reading(104.0, 105.2).reason == "lock not confirmed"


def test_an_agent_that_did_not_reach_the_clock_is_believed(history: ClockHistory) -> None:
    history.lock(800, clock_lock(800, reached=False), 105.0)
    assert history.reading(104.0, 105.0).reason == "clock not reached"


def test_a_new_clock_has_to_be_confirmed_by_the_start_of_the_interval(history: ClockHistory) -> None:
    history.want(1200)
    assert history.reading(105.0, 105.1).reason == "lock not confirmed"
    # An answer to the former wish confirms nothing.
    history.lock(800, clock_lock(800), 105.1)
    assert not history.confirmed
    history.lock(1200, clock_lock(1200), 105.15)
    history.sample(1200, 1200, 105.3)
    assert history.reading(105.0, 105.4).reason is None
    assert history.reading(104.9, 105.4).reason == "lock not confirmed"


def test_a_lock_that_was_not_renewed_for_a_lease_is_not_relied_on(history: ClockHistory) -> None:
    for i in range(20):
        history.sample(800, 800, 105.2 + 0.2 * i)
    assert history.reading(100.0, 107.9).reason is None
    assert history.reading(100.0, 108.1).reason == "lock not confirmed"
    history.lock(800, clock_lock(800), 109.0)
    assert history.reading(105.0, 109.0).reason == "lock not confirmed"


def test_a_gap_in_the_samples_is_not_vouched_for(history: ClockHistory) -> None:
    history.lock(800, clock_lock(800), 107.2)
    assert history.reading(104.0, 107.3).reason == "lock not confirmed"


def test_after_a_disconnection_the_lock_has_to_be_confirmed_again(history: ClockHistory) -> None:
    history.disconnected()
    assert history.reading(100.0, 105.0).reason == "lock not confirmed"


def test_nothing_wanted_is_nothing_confirmed(history: ClockHistory) -> None:
    history.want(None)
    assert history.reading(100.0, 105.0).reason == "lock not confirmed"


# -- the link


class Agent(edge_pb2_grpc.EdgeServicer):
    """An edge agent with one GPU whose clock is what was locked last."""

    def __init__(self, gpus: tuple[str, ...] = ("GPU-0",), version: int = PROTOCOL_VERSION) -> None:
        self.gpus = gpus
        self.version = version
        self.locks: list[edge_pb2.LockClocksRequest] = []
        self.releases: list[edge_pb2.ReleaseClocksRequest] = []
        self.hellos = 0
        self.mhz = 1600
        self.locked = 0
        self.hang = threading.Event()
        self.state_changes: dict[str, Any] = {}
        self.port = 0
        self._stop = threading.Event()
        self.start()

    def start(self, tls: Tls | None = None) -> None:
        self._stop.clear()
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=SERVER_OPTIONS)
        edge_pb2_grpc.add_EdgeServicer_to_server(self, self._server)
        self.port = grpc_server_add(self._server, f"127.0.0.1:{self.port}", tls)
        self._server.start()

    def stop(self) -> None:
        self._stop.set()
        self._server.stop(0).wait()

    def _maybe_hang(self) -> None:
        while self.hang.is_set() and not self._stop.is_set():
            time.sleep(0.01)

    def Hello(self, request: edge_pb2.EdgeHello, context: grpc.ServicerContext) -> edge_pb2.EdgeWelcome:
        self.hellos += 1
        self._maybe_hang()
        if request.protocol_version != self.version and self.version == 0:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"this agent speaks version {self.version}")
        gpus = [
            edge_pb2.GpuInfo(uuid=g, supported_sm_mhz=[800, 1600], default_sm_mhz=1600) for g in self.gpus
        ]
        return edge_pb2.EdgeWelcome(protocol_version=self.version, agent_version="t", gpus=gpus)

    def WatchGpu(
        self, request: edge_pb2.WatchGpuRequest, context: grpc.ServicerContext
    ) -> Iterator[edge_pb2.GpuState]:
        while context.is_active() and not self._stop.is_set():
            self._maybe_hang()
            fields = {"gpu": request.gpu, "sm_mhz": self.mhz, "locked_mhz": self.locked}
            yield gpu_state(**(fields | self.state_changes))
            time.sleep(request.period_ms / 1e3)

    def LockClocks(
        self, request: edge_pb2.LockClocksRequest, context: grpc.ServicerContext
    ) -> edge_pb2.ClockLock:
        self.locks.append(request)
        self._maybe_hang()
        self.mhz = self.locked = request.mhz
        return clock_lock(request.mhz)

    def ReleaseClocks(
        self, request: edge_pb2.ReleaseClocksRequest, context: grpc.ServicerContext
    ) -> edge_pb2.ClockLock:
        self.releases.append(request)
        self._maybe_hang()
        self.mhz, self.locked = 1600, 0
        return edge_pb2.ClockLock(sm_mhz=1600)


@pytest.fixture
def agent() -> Iterator[Agent]:
    agent = Agent()
    yield agent
    agent.hang.clear()
    agent.stop()


@pytest.fixture
def connect(agent: Agent) -> Iterator[Callable[..., EdgeLink]]:
    links = []

    def make(**options: Any) -> EdgeLink:
        options = {"holder": "cell-1", "lease_s": 3.0, "watch_period_ms": 20} | options
        link = EdgeLink(f"127.0.0.1:{agent.port}", **options)
        links.append(link)
        link.start()
        return link

    yield make
    for link in links:
        link.close()


def count(link: EdgeLink, name: str) -> int:
    assert name in edge.COUNTERS
    return link.counters.get(name, "cell-1")


Connect = Callable[..., EdgeLink]


def test_states_come_and_a_lock_is_made_confirmed_and_read_back(agent: Agent, connect: Connect) -> None:
    link = connect(settle_s=0.05, lease_s=60)
    assert link.state is None and not link.connected
    assert link.reading(time.monotonic()).reason == "no edge agent"
    link.lock(800, 30)
    until(lambda: link.state and link.state.message.sm_mhz == 800)
    assert link.connected
    assert link.gpu is not None and list(link.gpu.supported_sm_mhz) == [800, 1600]
    until(lambda: link.reading(time.monotonic() - 0.1) == GpuReading(800))
    (lock,) = agent.locks
    assert (lock.gpu, lock.holder, lock.mhz, lock.lease_ms) == ("GPU-0", "cell-1", 800, 60_000)
    agent.mhz = 700
    until(lambda: link.reading(time.monotonic() - 0.1).reason == "clock not reached")


def test_an_agent_that_allows_shorter_leases_gets_them() -> None:
    agent = serve("127.0.0.1:0", max_lease_s=0.6)
    agent.start()
    link = EdgeLink(
        f"127.0.0.1:{agent.port}", holder="cell-1", lease_s=60.0, watch_period_ms=20, settle_s=0.05
    )
    try:
        link.start()
        link.lock(800, 30)
        until(lambda: agent.counters.get("locks", 0) >= 3)
        assert agent.counters.get("lapsed_leases", 0) == 0
        until(lambda: link.reading(time.monotonic() - 0.1).reason is None)
        assert count(link, "edge_lock_failed_total") == 0
    finally:
        link.close()
        agent.close()


def test_the_lease_is_renewed_until_the_decision_is_too_old(agent: Agent, connect: Connect) -> None:
    link = connect(lease_s=0.15)
    until(lambda: link.connected)
    link.lock(800, 60)
    until(lambda: len(agent.locks) >= 3)
    link.lock(800, 0.05)
    until(lambda: count(link, "edge_lock_expired_total") == 1)
    renewed = len(agent.locks)
    time.sleep(0.2)
    assert len(agent.locks) == renewed
    until(lambda: link.reading(time.monotonic()).reason == "lock not confirmed")


def test_a_lock_that_was_under_way_with_another_lease_is_renewed_at_once(
    agent: Agent, connect: Connect
) -> None:
    link = connect(lease_s=6.0)
    until(lambda: link.connected)
    agent.hang.set()
    link.lock(800, 600)
    until(lambda: agent.locks)
    link.set_lease(600.0)
    agent.hang.clear()
    until(lambda: [lock.lease_ms for lock in agent.locks] == [6000, 600_000])


def test_the_latest_wish_wins_and_release_gives_the_clock_back(
    agent: Agent, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "controller.links.edge")
    link = connect()
    for mhz in (900, 1000, 1100, 800):
        link.lock(mhz, 30)
    until(lambda: agent.locked == 800)
    assert agent.locks[-1].mhz == 800
    link.release()
    (release,) = until(lambda: agent.releases)
    assert (release.gpu, release.holder) == ("GPU-0", "cell-1")
    until(lambda: link.state and link.state.message.locked_mhz == 0)
    assert agent.locks[-1].mhz == 800
    until(lambda: _GIVEN_BACK in caplog.messages)


_GIVEN_BACK = "cell cell-1: the lock of the clock of GPU GPU-0 is given back"


def test_close_gives_the_clock_back(
    agent: Agent, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "controller.links.edge")
    monkeypatch.setattr(edge, "RELEASE_DEADLINE_S", 20.0)
    link = connect()
    link.lock(800, 30)
    until(lambda: agent.locked == 800)
    link.close()
    assert len(agent.releases) == 1
    assert _GIVEN_BACK in caplog.messages
    link.close()


def test_after_a_restart_of_the_agent_the_clock_is_locked_again(agent: Agent, connect: Connect) -> None:
    link = connect(lease_s=30)
    link.lock(800, 60)
    until(lambda: link.reading(time.monotonic()).reason is None)
    before = time.monotonic()
    agent.stop()
    until(lambda: not link.connected)
    assert count(link, "edge_unavailable_total") >= 1
    agent.locks.clear()
    agent.mhz, agent.locked = 1600, 0
    agent.start()
    until(lambda: agent.locked == 800 and link.connected)
    # Whatever was read back since, nobody held the lock in between.
    assert link.reading(before).reason == "lock not confirmed"


def test_an_agent_that_never_answers_blocks_nobody(
    agent: Agent, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "HELLO_DEADLINE_S", 0.1)
    agent.hang.set()
    link = connect()
    link.lock(800, 30)
    link.release()
    link.lock(900, 30)
    until(lambda: agent.hellos >= 2)
    assert link.reading(0.0) == GpuReading(0, "no edge agent")
    assert count(link, "edge_unavailable_total") >= 1
    assert not agent.locks
    agent.hang.clear()
    until(lambda: agent.locked == 900)


def test_an_agent_that_falls_silent_is_found_and_met_again(agent: Agent, connect: Connect) -> None:
    link = connect()
    link._stale_s = 0.3
    until(lambda: link.connected)
    agent.hang.set()
    until(lambda: not link.connected and count(link, "edge_unavailable_total"))
    agent.hang.clear()
    until(lambda: link.connected)
    assert agent.hellos >= 2


def test_a_lock_that_is_not_answered_is_counted_and_tried_again(agent: Agent, connect: Connect) -> None:
    link = connect(lease_s=0.6)
    until(lambda: link.connected)
    agent.hang.set()
    link.lock(800, 60)
    until(lambda: count(link, "edge_lock_failed_total"))
    agent.hang.clear()
    until(lambda: agent.locked == 800)


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 3], ids=["agent refuses", "controller refuses"])
def test_another_version_is_counted_with_both_named_and_tried_again(
    agent: Agent,
    connect: Connect,
    version: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(edge, "REFUSED_RETRY_S", 0.05)
    agent.version = version
    link = connect()
    link.lock(800, 30)
    until(lambda: count(link, "edge_version_mismatch_total") >= 2)
    assert f"version {version}" in caplog.text and f"version {PROTOCOL_VERSION}" in caplog.text
    assert not agent.locks and not link.connected
    agent.version = PROTOCOL_VERSION
    until(lambda: agent.locked == 800)


@pytest.mark.parametrize(
    ("gpus", "gpu", "named"),
    [((), "", "none"), (("GPU-0", "GPU-1"), "", "GPU-0, GPU-1"), (("GPU-0",), "GPU-7", "no GPU GPU-7")],
)
def test_without_the_gpu_nothing_is_locked(
    agent: Agent,
    connect: Connect,
    gpus: tuple[str, ...],
    gpu: str,
    named: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent.gpus = gpus
    link = connect(gpu=gpu)
    link.lock(800, 30)
    until(lambda: count(link, "edge_refused_total"))
    until(lambda: named in caplog.text)
    assert not agent.locks and link.gpu is None


@pytest.mark.parametrize(
    "change",
    [{"power_w": math.nan}, {"utilisation": -1.0}, {"gpu": "GPU-9"}, {"sm_mhz": 4_000_000}],
)
def test_an_impossible_state_is_counted_and_ignored(
    agent: Agent, connect: Connect, change: dict[str, Any]
) -> None:
    agent.state_changes = change
    link = connect()
    until(lambda: count(link, "edge_bad_state_total") >= 2)
    assert link.state is None
    agent.state_changes = {}
    until(lambda: link.state)


def test_wishes_and_settings_are_checked(agent: Agent, connect: Connect) -> None:
    link = connect()
    for mhz in (0, -5, 10**9):
        with pytest.raises(ValueError, match=f"{mhz} MHz"):
            link.lock(mhz, 5)
    with pytest.raises(ValueError, match="valid_for_s"):
        link.lock(800, math.nan)
    for bad in ({"holder": ""}, {"lease_s": 0.0}, {"watch_period_ms": 1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            EdgeLink("127.0.0.1:1", **({"holder": "c", "lease_s": 3.0} | bad))
    with pytest.raises(InsecureAddress, match=r"links\.edge\.address.*security\.keys"):
        EdgeLink("edge.lab:50061", holder="c", lease_s=3)


def test_the_link_runs_over_mutual_tls(agent: Agent, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'prbandit[keys]'")
    keys.create(tmp_path, cells=[], days=2)
    agent.stop()
    agent.port = 0
    agent.start(Tls(tmp_path, "edge-agent"))
    address = f"localhost:{agent.port}"
    plain = EdgeLink(address, holder="cell-1", lease_s=3)
    link = EdgeLink(address, Tls(tmp_path, "controller"), holder="cell-1", lease_s=3, watch_period_ms=20)
    try:
        plain.start()
        link.start()
        until(lambda: link.connected)
        until(lambda: count(plain, "edge_unavailable_total"))
        assert plain.state is None
    finally:
        plain.close()
        link.close()
