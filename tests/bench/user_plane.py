"""The user plane: throughput and added delay of real TCP, against a plain relay of the same bytes."""

from __future__ import annotations

import selectors
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from agents.emulator.spec import CellSpec, ChannelProcess, PathSpec, RlcSpec, TcpSpec, TestbedSpec, UeSpec
from agents.emulator.testbed import EmulatedTestbed
from agents.emulator.warmup import warm_up
from agents.gnb_mock.pacing import Pacer
from agents.gnb_mock.user_plane import Listen, UserPlane
from controller.cli.ports import free_port
from tests.bench.common import Child, Row, child, percentile, until_told
from wire.definitions.nr import SLOT_NS, TDD_PATTERNS

NAME = "user-plane"
STREAMS = 4
MESSAGE = 12_500
"""Bytes of a 160x80 camera frame."""
_QUIET = PathSpec(ul_hold_rate_hz=0.0, hiccup_rate_hz=0.0, ue_dl_poll_ms=0.0)


def run(effort: float) -> list[Row]:
    """Real TCP through the user plane in real time, and through a relay that only copies, in turns.

    Throughput: four connections carry what they can both ways for some seconds through a cell wider than any
    it is calibrated on (273 PRB, DDDDDDDSUU, MCS 28), where the model itself lets 203 Mbit/s down and some 40
    up; of the baseline the ratio is what is left. Delay: camera frames go up one at a time; what is measured
    is the time from the writing to the last byte, against the NR slots that the model itself needed. The
    relay's stands beside it.
    """
    seconds, messages = max(1.0, 5 * effort), max(20, int(300 * effort))
    warm_up()
    with ExitStack() as stack:
        ports = {name: (free_port(), free_port()) for name in ("wide", "usual", "relay")}
        children = {
            "wide": stack.enter_context(child(serve_cell, *ports["wide"], True)),
            "usual": stack.enter_context(child(serve_cell, *ports["usual"], False)),
            "relay": stack.enter_context(child(serve_relay, *ports["relay"])),
        }
        for one in children.values():
            one.receive()
        rate = {name: _exchange(ports[name], seconds) for name in ("wide", "relay")}
        delay = {name: _messages(ports[name], messages) for name in ("usual", "relay")}
        model = _model(children["usual"])
        wide = children["wide"].ask("end")
    off = [abs(a - b) for a, b in zip(delay["usual"], model, strict=True)]
    return [
        Row(
            NAME,
            f"both ways, {STREAMS} connections",
            "Mbit/s",
            rate["wide"],
            rate["relay"],
            "plain relay",
            rate["wide"] / rate["relay"],
            ">= 200 Mbit/s",
            {"seconds": seconds, "late_steps": wide["overruns"], "steps": wide["steps"]},
        ),
        Row(
            NAME,
            f"delay of {MESSAGE} B up, p50",
            "ms",
            statistics.median(delay["usual"]) * 1e3,
            statistics.median(model) * 1e3,
            "the model's own",
            statistics.median(delay["usual"]) / statistics.median(model),
            "within 1 ms",
            {
                "off_p50_ms": percentile(off, 50) * 1e3,
                "off_p99_ms": percentile(off, 99) * 1e3,
                "relay_p50_ms": percentile(delay["relay"], 50) * 1e3,
                "relay_p99_ms": percentile(delay["relay"], 99) * 1e3,
                "messages": messages,
            },
            f"off the model's delay by {percentile(off, 50) * 1e3:.2f} ms (p50), "
            f"{percentile(off, 99) * 1e3:.2f} ms (p99); a plain relay takes "
            f"{percentile(delay['relay'], 50) * 1e3:.2f} ms (p50), "
            f"{percentile(delay['relay'], 99) * 1e3:.2f} ms (p99)",
        ),
    ]


# ---- what stands in the middle --------------------------------------------------------------------------


def serve_cell(pipe: Connection, port: int, server: int, wide: bool) -> None:
    """A user plane in real time; says in the end how often it was late, and what each message took."""
    plane = UserPlane([Listen("ue", ("127.0.0.1", port), ("127.0.0.1", server))])
    cell = CellSpec(n_prb=273, tdd=TDD_PATTERNS["DDDDDDDSUU"]) if wide else CellSpec()
    spec = TestbedSpec(
        [UeSpec("ue", 1, channel=ChannelProcess(dl_mean_db=40.0))],
        (),
        cell=cell,
        tcp=TcpSpec(send_buffer_bytes=(1 << 19) if wide else 131_072),
        rlc=RlcSpec(queue_limit_bytes=5_000_000),
        path=_QUIET,
    )
    bed = EmulatedTestbed(plane.join(spec), seed=1)
    bed.advance(200)
    spans: list[float] = []
    began = 0
    steps = 0
    stop = until_told(pipe)
    start = time.monotonic_ns() - bed.nr_slot * SLOT_NS
    pacer = Pacer(start, SLOT_NS, tolerance_ns=2 * SLOT_NS)
    pipe.send("ready")
    with closing(plane):
        while not stop.is_set():
            idle = not wide and _under_way(bed) == 0
            plane.put(bed)
            if idle and _under_way(bed):
                began = bed.nr_slot
            due, _ = pacer.due(time.monotonic_ns(), bed.nr_slot)
            if wide and bed.nr_slot < due:
                bed.advance(due)
            while bed.nr_slot < due:
                under_way = _under_way(bed)
                bed.advance(bed.nr_slot + 1)
                if under_way and not _under_way(bed):
                    spans.append((bed.nr_slot - began) * SLOT_NS / 1e9)
            plane.take(bed)
            steps += 1
            left = start + (bed.nr_slot + 1) * SLOT_NS - time.monotonic_ns()
            if left > 0:
                time.sleep(left / 1e9)
    pipe.send({"overruns": pacer.overruns, "steps": steps, "spans": spans})


def _under_way(bed: EmulatedTestbed) -> int:
    return sum(bed.underway(i, "ul") for i in range(len(bed.flows)))


def serve_relay(pipe: Connection, port: int, server: int) -> None:
    """Copies bytes between client and server, one thread for all."""
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", port))
    selector.register(listener, selectors.EVENT_READ)
    stop = until_told(pipe)
    pipe.send("ready")
    other: dict[Any, socket.socket] = {}
    while not stop.is_set():
        for key, _ in selector.select(0.1):
            if key.fileobj is listener:
                client, _ = listener.accept()
                ends = (client, socket.create_connection(("127.0.0.1", server)))
                for end, peer in (ends, ends[::-1]):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    other[end] = peer
                    selector.register(end, selectors.EVENT_READ)
                continue
            source = key.fileobj
            assert isinstance(source, socket.socket)
            try:
                data = source.recv(65_536)
                other[source].sendall(data)
            except OSError:
                data = b""
            if not data:
                for end in (source, other.pop(source, None)):
                    if end is not None and other.pop(end, end) and end.fileno() >= 0:
                        selector.unregister(end)
                        end.close()
    selector.close()


def _model(cell: Child) -> list[float]:
    spans: list[float] = cell.ask("end")["spans"]
    return spans


# ---- client and server ----------------------------------------------------------------------------------


@contextmanager
def _server(port: int) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(30)
        yield listener


def _exchange(ports: tuple[int, int], seconds: float) -> float:
    """Mbit/s that arrive at both ends together, the first half second aside."""
    block = bytes(65_536)
    stop = threading.Event()

    def feed(connection: socket.socket) -> None:
        try:
            while not stop.is_set():
                connection.sendall(block)
        except OSError:
            pass

    with _server(ports[1]) as listener, ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        ends = []
        for _ in range(STREAMS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", ports[0])))
            ends += [client, stack.enter_context(listener.accept()[0])]
        # Only now: the relay stands still while one end does not read.
        for end in ends:
            selector.register(end, selectors.EVENT_READ)
            threading.Thread(target=feed, args=(end,), daemon=True).start()
        got, began = 0, time.perf_counter()
        counting = False
        while (now := time.perf_counter()) < began + seconds + (0 if counting else 0.5):
            if not counting and now >= began + 0.5:
                got, began, counting = 0, now, True
            for key, _ in selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                got += len(key.fileobj.recv(1 << 20))
        rate = got * 8 / (time.perf_counter() - began) / 1e6
        stop.set()
    return rate


def _messages(ports: tuple[int, int], count: int) -> list[float]:
    """Seconds from the writing of a message to the arrival of its last byte."""
    data, out = bytes(MESSAGE), []
    with _server(ports[1]) as listener, socket.create_connection(("127.0.0.1", ports[0])) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with listener.accept()[0] as connection:
            for k in range(count):
                start = time.perf_counter()
                client.sendall(data)
                left = MESSAGE
                while left:
                    left -= len(connection.recv(left))
                out.append(time.perf_counter() - start)
                time.sleep(0.033 + 0.0001 * (k % 7))
    return out
