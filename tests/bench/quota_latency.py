"""A MacReport in to its quota on the wire, against an echo of the same bytes."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

import numpy as np
import zmq

from tests.bench.common import (
    CHILD_S,
    Gnb,
    Row,
    child,
    controller_config,
    mac_report,
    no_collection,
    percentile,
    serve_daemon,
)
from wire import ran_pb2

NAME = "quota-latency"
UES = 32
_PAUSE_S = 0.001
_WARM_UP = 50


def serve_echo(pipe: Connection) -> None:
    """A bare ROUTER that sends back what it receives; an empty message ends it."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        pipe.send(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
        while True:
            parts = socket.recv_multipart()
            if not parts[1]:
                return
            socket.send_multipart(parts)


def run(effort: float) -> list[Row]:
    """Time from sending one report of 32 UEs until its SetQuota is here, beside the time of an echo.

    The controller (all of it but the store and the servers) runs in a process of its own and decides at every
    report, so that each passes through receiving, checking, closing the control slot, learning, deciding and
    sending. The echo is a ROUTER in another process that returns the same bytes with pyzmq and nothing else.
    Both are asked in turn, a millisecond apart, over TCP on loopback; every quota is acknowledged after its
    time was taken. The ratio is that of the medians.
    """
    n = max(20, int(3000 * effort))
    rng = np.random.default_rng(1)
    reports = [mac_report(UES, rng) for _ in range(16)]
    settings = controller_config(1, UES, control_slot_s=600.0)
    controlled: list[float] = []
    echoed: list[float] = []
    size = 0
    with (
        child(serve_daemon, settings, True, None) as daemon,
        child(serve_echo) as echo,
        zmq.Context() as context,
    ):
        gnb = Gnb(context, daemon.receive(), "cell-1")
        bare = context.socket(zmq.DEALER)
        bare.setsockopt(zmq.LINGER, 100)
        bare.setsockopt(zmq.RCVTIMEO, int(CHILD_S * 1e3))
        bare.connect(echo.receive())
        try:
            gnb.join()
            with no_collection():
                while len(controlled) < _WARM_UP + n:
                    i = gnb.sequence
                    gnb.sequence += 1
                    report = reports[i % len(reports)]
                    report.session, report.sequence = gnb.session, gnb.sequence
                    report.frame, report.slot, report.time_ns = i % 1024, i % 20, time.time_ns()
                    data = ran_pb2.GnbMessage(mac_report=report).SerializeToString()
                    size = len(data)
                    took = _ask(gnb, data)
                    if took is None:
                        gnb.join()  # this process stood still for so long that the cell was given up
                        continue
                    controlled.append(took)
                    time.sleep(_PAUSE_S)
                    start = time.perf_counter_ns()
                    bare.send(data)
                    bare.recv()
                    echoed.append((time.perf_counter_ns() - start) / 1e3)
                    time.sleep(_PAUSE_S)
            bare.send(b"")
            daemon.pipe.send("stop")
            gnb.leave()
            counters = daemon.receive()
        finally:
            gnb.socket.close()
            bare.close()
    del controlled[:_WARM_UP], echoed[:_WARM_UP]
    figures = {
        "reports": n,
        "report_bytes": size,
        "p50_us": percentile(controlled, 50),
        "p99_us": percentile(controlled, 99),
        "echo_p50_us": percentile(echoed, 50),
        "echo_p99_us": percentile(echoed, 99),
        "counters": counters,
    }
    return [
        Row(
            NAME,
            f"MacReport in to quota on the wire, {UES} UEs, p{p}",
            "us",
            figures[f"p{p}_us"],
            figures[f"echo_p{p}_us"],
            "pyzmq echo",
            figures[f"p{p}_us"] / figures[f"echo_p{p}_us"],
            aim,
            figures,
        )
        for p, aim in ((50, "<= 3"), (99, ""))
    ]


def _ask(gnb: Gnb, data: bytes) -> float | None:
    """Microseconds from a report to its SetQuota, which is acknowledged; None where the session is over."""
    start = time.perf_counter_ns()
    gnb.socket.send(data)
    answer = gnb.socket.recv()
    took = time.perf_counter_ns() - start
    message = ran_pb2.ControllerMessage.FromString(answer)
    if message.HasField("hello_request"):
        return None
    if not message.HasField("set_quota"):
        raise RuntimeError(f"a quota was to come, not {message.WhichOneof('body')}")
    gnb.acknowledge(message)
    return took / 1e3
