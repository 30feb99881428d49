"""Sustained MacReports a second of one controller, against a bare ROUTER that receives the same bytes."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import sharedctypes
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import zmq

from controller import config
from controller.daemon import Daemon
from tests.bench.common import (
    CHILD_S,
    Gnb,
    Row,
    child,
    controller_config,
    mac_report,
    no_collection,
    until_told,
    use_cpu,
)
from wire import ran_pb2

NAME = "report-rate"
CELLS, UES = 100, 16
_WINDOW = 4000
"""Reports on their way at most: 40 of each cell."""
_LOOK_EVERY = 16

Progress = Any
"""Shared doubles of a receiver: reports that it has taken, CPU seconds that it has used."""


def serve_controller(pipe: Connection, settings: config.Config, progress: Progress, cpu: int | None) -> None:
    """A controller that says how far it is; its counters at the end."""
    use_cpu(cpu)
    daemon = Daemon(settings)
    _tell(progress, lambda: daemon.counters.get("ran_reports_total"))
    pipe.send(daemon._ran.address)
    daemon.run(until_told(pipe))
    pipe.send({name: daemon.counters.get(name) for name, _ in daemon.counters.snapshot()})


def serve_bare(pipe: Connection, progress: Progress, cpu: int | None) -> None:
    """A ROUTER that receives, and nothing else; an empty message ends it."""
    use_cpu(cpu)
    taken = 0
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        _tell(progress, lambda: taken)
        pipe.send(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
        while socket.recv_multipart()[1]:
            taken += 1


def _tell(progress: Progress, taken: Callable[[], int]) -> None:
    def tell() -> None:
        while True:
            progress[0], progress[1] = taken(), time.process_time()
            time.sleep(0.005)

    threading.Thread(target=tell, daemon=True).start()


@dataclass(slots=True)
class _Round:
    reports: int
    quotas: int
    wall_s: float
    cpu_s: float


def run(effort: float) -> list[Row]:
    """Reports a second through the controller's own turn, beside a bare ROUTER's receive loop.

    100 cells of 16 UEs, each with a DEALER of its own, send as fast as the receiver takes: never more than
    4,000 reports are on their way. The controller is whole but for the store, the edge link and the servers:
    it checks sessions and sequences, keeps the reports by sub-interval, decides for every cell when its
    control slot ends, and its quotas are acknowledged. Receiver and senders are processes on different CPUs,
    the receiver with all its threads on one; both receivers take turns with the same bytes. ``lost`` is what
    was sent less what the controller counts as taken, and must be 0.
    """
    total = max(CELLS, int(100_000 * effort) // CELLS * CELLS)
    rounds = 3 if effort >= 0.1 else 1
    rng = np.random.default_rng(2)
    reports = [ran_pb2.GnbMessage(mac_report=mac_report(UES, rng)) for _ in range(CELLS)]
    done: dict[str, list[_Round]] = {"controller": [], "bare": []}
    cpu, others = _split_cpus()
    with ExitStack() as stack:
        progress = {name: sharedctypes.RawArray("d", 2) for name in done}
        controller = stack.enter_context(
            child(serve_controller, controller_config(CELLS, UES), progress["controller"], cpu)
        )
        bare = stack.enter_context(child(serve_bare, progress["bare"], cpu))
        stack.enter_context(_on_cpus(others))
        context = stack.enter_context(zmq.Context())
        gnbs = {
            name: [stack.enter_context(_gnb(context, address, i)) for i in range(CELLS)]
            for name, address in (("controller", controller.receive()), ("bare", bare.receive()))
        }
        for _ in range(rounds):
            for gnb in gnbs["controller"]:
                gnb.say_hello()
            for gnb in gnbs["controller"]:
                gnb.be_welcome()
            for name, peers in gnbs.items():
                done[name].append(_flood(peers, reports, total, progress[name]))
        gnbs["bare"][0].socket.send(b"")
        controller.pipe.send("stop")
        for gnb in gnbs["controller"]:
            gnb.leave()
        counters = controller.receive()
    rate = {name: statistics.median(r.reports / r.wall_s for r in list_) for name, list_ in done.items()}
    lost = sum(r.reports for r in done["controller"]) - counters["ran_reports_total"]
    per_cpu_s = {
        name: sum(r.reports for r in list_) / max(1e-9, sum(r.cpu_s for r in list_))
        for name, list_ in done.items()
    }
    details = {
        "cells": CELLS,
        "ues": UES,
        "report_bytes": reports[0].ByteSize(),
        "rounds": rounds,
        "reports_a_round": total,
        "quotas": sum(r.quotas for r in done["controller"]),
        "lost": lost,
        "missed_in_sequence": counters.get("ran_reports_lost_total", 0),
        "per_cpu_s": per_cpu_s,
        "rates": {name: [r.reports / r.wall_s for r in list_] for name, list_ in done.items()},
        "counters": counters,
    }
    return [
        Row(
            NAME,
            f"sustained reports, {CELLS} cells of {UES} UEs, {lost} lost",
            "/s",
            rate["controller"],
            rate["bare"],
            "bare ROUTER",
            rate["controller"] / rate["bare"],
            ">= 10,000 /s, none lost",
            details,
            f"reports in a CPU second of the receiver: {per_cpu_s['controller']:,.0f}, bare ROUTER"
            f" {per_cpu_s['bare']:,.0f}",
        )
    ]


@contextmanager
def _gnb(context: zmq.Context[zmq.Socket[bytes]], address: str, index: int) -> Iterator[Gnb]:
    gnb = Gnb(context, address, f"cell-{index + 1}")
    try:
        yield gnb
    finally:
        gnb.socket.close(100)


def _flood(gnbs: list[Gnb], reports: list[ran_pb2.GnbMessage], total: int, progress: Progress) -> _Round:
    """Send ``total`` reports, a cell at a time, and wait until they are taken."""
    taken, cpu_s = progress[0], progress[1]
    quotas = 0
    deadline = time.monotonic() + CHILD_S
    with no_collection():
        start = time.perf_counter()
        for sent in range(0, total, CELLS):
            while sent - (progress[0] - taken) > _WINDOW:
                _still(deadline)
                time.sleep(0.001)
            for gnb, message in zip(gnbs, reports, strict=True):
                gnb.sequence += 1
                report = message.mac_report
                report.session, report.sequence, report.time_ns = gnb.session, gnb.sequence, time.time_ns()
                gnb.socket.send(message.SerializeToString())
                if gnb.sequence % _LOOK_EVERY == 0:
                    quotas += _answer(gnb)
        while progress[0] - taken < total:
            _still(deadline)
            time.sleep(0.001)
        wall_s = time.perf_counter() - start
    return _Round(total, quotas, wall_s, progress[1] - cpu_s)


def _answer(gnb: Gnb) -> int:
    """Acknowledge what has come; returns how many quotas that were."""
    quotas = 0
    while gnb.socket.poll(0):
        quotas += gnb.acknowledge(gnb.receive())
    return quotas


def _still(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise RuntimeError(f"the reports were not taken within {CHILD_S:g} s")


def _split_cpus() -> tuple[int | None, set[int]]:
    """A CPU for the receiver and the others for the senders; (None, nothing) where there is but one."""
    if not hasattr(os, "sched_getaffinity"):
        return None, set()
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[-1], set(cpus[:-1])) if len(cpus) > 1 else (None, set())


@contextmanager
def _on_cpus(cpus: set[int]) -> Iterator[None]:
    """This thread, and those that it starts, on some CPUs alone."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
