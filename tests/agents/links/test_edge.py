from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest

from agents.gpu.emulated import EmulatedGpu
from agents.gpu.service import serve
from agents.links.edge import EdgeFollower
from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc, security

DEADLINE_S = 10.0


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def followers() -> Iterator[list[EdgeFollower]]:
    made: list[EdgeFollower] = []
    yield made
    for follower in made:
        follower.close()


def follow(followers: list[EdgeFollower], port: int, silent_s: float = 3.0) -> EdgeFollower:
    follower = EdgeFollower(
        f"127.0.0.1:{port}",
        None,
        holder="mock",
        period_ms=10,
        load_period_s=0.05,
        backoff_s=(0.05, 0.2),
        silent_s=silent_s,
    )
    followers.append(follower)
    follower.start()
    return follower


def test_the_clock_read_back_is_followed_and_the_load_is_told(followers: list[EdgeFollower]):
    gpu = EmulatedGpu()
    agent = serve("127.0.0.1:0", backend=[gpu])
    agent.start()
    follower = follow(followers, agent.port)
    eventually(lambda: follower.sm_mhz == 1600)
    gpu.lock(700)
    eventually(lambda: follower.sm_mhz == 700)
    follower.set_load(0.4)
    eventually(lambda: gpu.read().utilisation == 0.4)
    agent.close()


def test_without_its_agent_the_clock_is_unknown_and_comes_back_with_it(followers: list[EdgeFollower]):
    agent = serve("127.0.0.1:0")
    agent.start()
    follower = follow(followers, agent.port)
    eventually(lambda: follower.connected)
    agent.close()
    eventually(lambda: not follower.connected)
    again = serve(f"127.0.0.1:{agent.port}")
    again.start()
    eventually(lambda: follower.connected)
    again.close()


class Odd(edge_pb2_grpc.EdgeServicer):
    """An edge agent that greets as told, streams one state and then says nothing."""

    def __init__(self, code: grpc.StatusCode | None = None, mhz: int = 900) -> None:
        self.hellos = 0
        self.closed = threading.Event()
        self._code = code
        self._mhz = mhz

    def Hello(self, request: edge_pb2.EdgeHello, context: grpc.ServicerContext) -> edge_pb2.EdgeWelcome:
        self.hellos += 1
        if self._code is not None:
            context.abort(self._code, f"the caller speaks {request.protocol_version}, this edge agent 9")
        return edge_pb2.EdgeWelcome(protocol_version=PROTOCOL_VERSION)

    def WatchGpu(
        self, request: edge_pb2.WatchGpuRequest, context: grpc.ServicerContext
    ) -> Iterator[edge_pb2.GpuState]:
        yield edge_pb2.GpuState(gpu="GPU-odd", sm_mhz=self._mhz)
        context.add_callback(self.closed.set)
        self.closed.wait(6 * DEADLINE_S)


@pytest.fixture
def odd_server() -> Iterator[Callable[[Odd], int]]:
    servers = []

    def serve_odd(odd: Odd) -> int:
        server = grpc.server(futures.ThreadPoolExecutor(4), options=security.SERVER_OPTIONS)
        edge_pb2_grpc.add_EdgeServicer_to_server(odd, server)
        port = security.grpc_server_add(server, "127.0.0.1:0", None)
        server.start()
        servers.append((server, odd))
        return port

    yield serve_odd
    for server, odd in servers:
        odd.closed.set()
        server.stop(0).wait()


def test_a_silent_agent_is_given_up(followers: list[EdgeFollower], odd_server: Callable[[Odd], int]):
    odd = Odd()
    follower = follow(followers, odd_server(odd), silent_s=0.2)
    eventually(lambda: follower.sm_mhz == 900)
    eventually(lambda: follower.counters["silent"] >= 1)
    eventually(lambda: odd.hellos >= 2)


def test_an_agent_that_takes_no_load_is_not_asked_again(
    followers: list[EdgeFollower], odd_server: Callable[[Odd], int]
):
    follower = follow(followers, odd_server(Odd()))
    eventually(lambda: follower.connected)
    eventually(lambda: not follower._takes_load)
    assert follower.counters["load_errors"] == 0


def test_another_version_is_logged_and_tried_again(
    followers: list[EdgeFollower], odd_server: Callable[[Odd], int], caplog: pytest.LogCaptureFixture
):
    odd = Odd(code=grpc.StatusCode.FAILED_PRECONDITION)
    follower = follow(followers, odd_server(odd))
    eventually(lambda: odd.hellos >= 2)
    assert not follower.connected
    assert f"the caller speaks {PROTOCOL_VERSION}, this edge agent 9" in caplog.text


def test_a_clock_of_zero_is_not_believed(followers: list[EdgeFollower], odd_server: Callable[[Odd], int]):
    follower = follow(followers, odd_server(Odd(mhz=0)))
    eventually(lambda: follower.counters["impossible_states"] == 1)
    assert follower.sm_mhz == 0


def test_an_address_beyond_loopback_needs_tls():
    with pytest.raises(security.InsecureAddress, match=r"--edge.*--keys"):
        EdgeFollower("edge-agent:50053", None, holder="h")
