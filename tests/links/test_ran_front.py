"""Peers that abort libzmq or fill its memory: the controller lives, an honest cell stays under control."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from agents.gnb_mock.agent import Cell, CellTime, RanAgent
from controller.links.ran_front import HANDSHAKE_S, MEMORY_BYTES
from tests import launch
from tests.links.ran_controller import PERIOD_MS
from wire import keys, ran_pb2
from wire.security import CurveClient, curve_client

PATIENCE_S = 60.0
TDD = ran_pb2.TddPattern(period_slots=5, dl_slots=1, dl_symbols=4, ul_symbols=6, ul_slots=3)


def eventually(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)


def rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Controller:
    """:mod:`tests.links.ran_controller` as a process, under ``limits``: ``RLIMIT_...`` -> (soft, hard)."""

    def __init__(self, folder: Path | None, limits: Mapping[str, tuple[int, int]] | None = None) -> None:
        command = launch.python(
            ["-m", "tests.links.ran_controller", *([str(folder)] if folder else [])], limits
        )
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.address = self.stdout.readline().strip()
        assert self.address, f"ended with {self.process.wait(PATIENCE_S)}"

    def front(self) -> int:
        """Process id of its front, 0 where there is none."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def stall(self, seconds: float) -> None:
        self.stdin.write(f"stall {seconds}\n")
        self.stdin.flush()

    def end(self) -> dict[str, int]:
        """Its counters."""
        self.stdin.close()
        counters: dict[str, int] = json.loads(self.stdout.readline())
        assert self.process.wait(PATIENCE_S) == 0
        return counters

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.stdin, self.stdout):
            with suppress(OSError):
                pipe.close()


class Honest:
    """A gNB: the agent's protocol over a DEALER, in a thread."""

    def __init__(self, address: str, curve: CurveClient | None, cell_id: str = "cell-1") -> None:
        self.agent = RanAgent(Cell(cell_id, 106, 30, TDD, "test"), hello_timeout_s=0.5, reconnect_s=1.0)
        self._address, self._curve = address, curve
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        agent, due = self.agent, 0.0
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.IMMEDIATE, 1)
            dealer.setsockopt(zmq.SNDHWM, 100)
            if self._curve is not None:
                self._curve.apply(dealer)
            dealer.connect(self._address)
            while not self._stop.is_set():
                now = time.monotonic()
                agent.tick(now)
                if agent.pending is not None:
                    agent.enforced(CellTime(0, 0, time.time_ns()), list)
                try:
                    while (data := agent.to_send()) is not None:
                        dealer.send(data, zmq.NOBLOCK)
                        agent.sent(now)
                    if now >= due and (data := agent.report(ran_pb2.MacReport(time_ns=time.time_ns()))):
                        due = now + PERIOD_MS / 1e3
                        dealer.send(data, zmq.NOBLOCK)
                        agent.report_sent()
                except zmq.Again:
                    agent.not_sent(now)
                if agent.reconnect(now):
                    dealer.disconnect(self._address)
                    dealer.connect(self._address)
                while dealer.poll(2):
                    agent.receive(dealer.recv(), time.monotonic())

    def is_controlled(self) -> None:
        """From now on, too: three more quotas come."""
        quotas = self.agent.counters["quotas"]
        eventually(lambda: self.agent.counters["quotas"] > quotas + 2, "quotas for the honest cell")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    keys.create(folder, cells=["cell-1", "cell-2"], days=2)
    return folder


@pytest.fixture(params=[False, True], ids=["plain", "curve"])
def curve(request: pytest.FixtureRequest, folder: Path) -> Path | None:
    return folder if request.param else None


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def begin(
    stack: ExitStack, folder: Path | None, limits: Mapping[str, tuple[int, int]] | None = None
) -> tuple[Controller, Honest]:
    controller = Controller(folder, limits)
    stack.callback(controller.close)
    honest = Honest(controller.address, curve_client(folder, "cell-1") if folder else None)
    stack.callback(honest.close)
    honest.is_controlled()
    return controller, honest


# ---- attackers ------------------------------------------------------------------------------------------


def command(name: bytes, body: bytes) -> bytes:
    return bytes((4, 1 + len(name) + len(body), len(name))) + name + body


def zmtp(address: str, identity: bytes = b"") -> socket.socket:
    """A connection that has shaken hands: ZMTP 3.1, NULL, DEALER."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.settimeout(PATIENCE_S)
    greeting = b"\xff" + bytes(8) + b"\x7f\3\1" + b"NULL".ljust(52, b"\0")
    properties = [(b"Socket-Type", b"DEALER"), (b"Identity", identity)]
    body = b"".join(bytes((len(n),)) + n + struct.pack(">I", len(v)) + v for n, v in properties)
    connection.sendall(greeting + command(b"READY", body))
    came = b""
    while b"READY" not in came:
        came += connection.recv(4096) or pytest.fail(f"no handshake, but {came!r}")
    connection.settimeout(0.5)
    return connection


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def pings_behind_a_full_pipe(address: str) -> None:
    """Of one chosen routing id: floods in which every fifth frame is a PING, each broken in the midst."""
    ping = command(b"PING", b"")[:2] + b"\4PING" + struct.pack(">H", 30)
    ping = bytes((4, 7)) + ping[2:]
    flood = (b"\0\x14" + bytes(20)) * 5 + ping
    connections = []
    for _ in range(4):
        with suppress(OSError):
            connections.append(zmtp(address, b"X"))
            for _ in range(40):
                connections[-1].sendall(flood * 20)
    time.sleep(0.3)
    for connection in connections:
        reset(connection)


def floods_of_one_routing_id(address: str, curve: CurveClient | None) -> None:
    """More messages than a pipe takes over each of several connections, which then break."""
    with zmq.Context() as context:
        dealers = []
        for _ in range(4):
            dealer = context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.IDENTITY, b"X")
            if curve is not None:
                curve.apply(dealer)
            dealer.connect(address)
            dealers.append(dealer)
        for _ in range(3000):
            for dealer in dealers:
                with suppress(zmq.Again):
                    dealer.send(bytes(20), zmq.NOBLOCK)
        time.sleep(0.3)
        context.destroy(0)


# ---- the tests ------------------------------------------------------------------------------------------


def test_a_controller_that_stood_still_with_a_thousand_reports_and_a_gnb_that_reconnects(
    stack: ExitStack, curve: Path | None
) -> None:
    controller, honest = begin(stack, curve)
    front = controller.front()
    client = curve_client(curve, "cell-2") if curve else None
    controller.stall(2.0)
    floods_of_one_routing_id(controller.address, client)
    honest.close()
    back = Honest(controller.address, curve_client(curve, "cell-1") if curve else None)
    stack.callback(back.close)
    back.is_controlled()
    assert controller.front() == front, "honest peers need no new front"
    assert controller.end().get("ran_front_restarts_total", 0) == 0


def test_floods_of_one_routing_id_do_not_end_the_controller(stack: ExitStack, curve: Path | None) -> None:
    controller, honest = begin(stack, curve)
    for _ in range(3):
        floods_of_one_routing_id(controller.address, curve_client(curve, "cell-2") if curve else None)
    honest.is_controlled()
    assert honest.agent.counters["sessions"] == 1 and honest.agent.counters["leases_lapsed"] == 0
    assert controller.end()["ran_malformed_total"] > 0


def test_a_ping_that_aborts_libzmq_ends_the_front_alone(stack: ExitStack) -> None:
    controller, honest = begin(stack, None)
    front = controller.front()
    end = time.monotonic() + PATIENCE_S
    while controller.front() == front:
        assert time.monotonic() < end, "the front lives: is the front still needed?"
        controller.stall(0.4)
        pings_behind_a_full_pipe(controller.address)
    honest.is_controlled()
    assert honest.agent.counters["sessions"] == 1 and honest.agent.counters["leases_lapsed"] == 0
    assert controller.end()["ran_front_restarts_total"] > 0


@pytest.mark.parametrize(
    "frames",
    [b"\3" + struct.pack(">Q", 1 << 18) + bytes(1 << 18), (b"\1\x14" + bytes(20)) * 10_000],
    ids=["large", "small"],
)
def test_a_message_without_an_end_costs_the_controller_nothing(stack: ExitStack, frames: bytes) -> None:
    """libzmq refuses a large frame that finds no memory, and aborts for a small one."""
    controller, honest = begin(stack, None)
    front, before, most = controller.front(), rss_bytes(controller.process.pid), 0
    with zmtp(controller.address) as connection, suppress(OSError):
        connection.settimeout(PATIENCE_S)
        while True:
            connection.sendall(frames)
            with suppress(OSError):
                most = max(most, rss_bytes(front))
    honest.is_controlled()
    assert 64 << 20 < most < MEMORY_BYTES
    assert rss_bytes(controller.process.pid) - before < 32 << 20
    assert honest.agent.counters["sessions"] == 1 and honest.agent.counters["leases_lapsed"] == 0
    assert controller.end().get("ran_front_restarts_total", 0) <= 1


def test_silent_connections_beyond_the_soft_limit_shut_no_gnb_out_and_are_closed(
    stack: ExitStack, folder: Path
) -> None:
    controller, honest = begin(stack, folder, {"RLIMIT_NOFILE": (64, 1024)})
    host, _, port = controller.address.removeprefix("tcp://").rpartition(":")
    silent = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(200)]
    files = Path(f"/proc/{controller.front()}/fd")
    eventually(lambda: len(list(files.iterdir())) > len(silent), "a place for every connection")
    second = Honest(controller.address, curve_client(folder, "cell-2"), "cell-2")
    stack.callback(second.close)
    second.is_controlled()
    honest.is_controlled()
    for connection in silent:
        connection.settimeout(5 * HANDSHAKE_S)
        while connection.recv(4096):
            pass


def test_a_front_starts_under_a_lower_limit_of_memory_than_its_own(stack: ExitStack) -> None:
    limit = MEMORY_BYTES - (64 << 20)
    controller, honest = begin(stack, None, {"RLIMIT_DATA": (limit, limit)})
    assert resource.prlimit(controller.front(), resource.RLIMIT_DATA) == (limit, limit)
    honest.is_controlled()


def test_a_killed_front_is_started_anew_and_sessions_go_on(stack: ExitStack, curve: Path | None) -> None:
    controller, honest = begin(stack, curve)
    for _ in range(3):
        front = controller.front()
        os.kill(front, signal.SIGKILL)
        eventually(lambda killed=front: controller.front() not in (0, killed), "another front")
        honest.is_controlled()
    assert honest.agent.counters["sessions"] == 1 and honest.agent.counters["leases_lapsed"] == 0
    counters = controller.end()
    assert counters["ran_front_restarts_total"] == 3 and counters["ran_reconnects_total"] == 3


def test_a_front_that_hangs_is_replaced(stack: ExitStack, folder: Path) -> None:
    controller, honest = begin(stack, folder)
    front = controller.front()
    os.kill(front, signal.SIGSTOP)
    eventually(lambda: controller.front() not in (0, front), "another front")
    honest.is_controlled()
    assert controller.end()["ran_front_restarts_total"] == 1


@pytest.mark.parametrize("hangs", [False, True], ids=["runs", "hangs"])
def test_a_killed_controller_leaves_no_front(stack: ExitStack, hangs: bool) -> None:
    controller, _ = begin(stack, None)
    front = controller.front()
    os.kill(front, signal.SIGTERM)
    os.kill(front, signal.SIGINT)
    if hangs:
        os.kill(front, signal.SIGSTOP)
    controller.process.kill()
    controller.process.wait()

    def gone() -> bool:
        with suppress(FileNotFoundError):
            return Path(f"/proc/{front}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    eventually(gone, "the end of the front")


def test_of_two_gnbs_with_one_key_the_second_is_told_and_waits(stack: ExitStack, folder: Path) -> None:
    controller, honest = begin(stack, folder)
    second = Honest(controller.address, curve_client(folder, "cell-1"))
    stack.callback(second.close)
    eventually(lambda: second.agent.rejected, "the Reject")
    assert "'cell-1' is in use" in second.agent.rejected
    honest.is_controlled()
    assert honest.agent.counters["sessions"] == 1 and not second.agent.session
    counters = controller.end()
    assert counters["ran_sessions_total"] == 1 and "ran_takeovers_total" not in counters
