"""What the benchmarks share: the row that each prints, MAC reports, child processes, a gNB's connection."""

from __future__ import annotations

import gc
import importlib
import logging
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

import numpy as np
import zmq

from controller import config
from controller.cli.ports import free_port
from controller.daemon import Daemon
from wire import PROTOCOL_VERSION, ran_pb2

CHILD_S = 60.0


class Skip(Exception):
    """A benchmark cannot run here; the text names what is missing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: two figures of the same run, in the same unit, and their ratio.

    ``ratio`` is measured / baseline, or baseline / measured where that is how many times better it is.
    ``aim`` and ``note`` (printed below the table) are text; ``details`` holds all that was seen.
    """

    benchmark: str
    name: str
    unit: str
    measured: float
    baseline: float
    against: str
    ratio: float
    aim: str
    details: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def need(module: str) -> ModuleType:
    """Import a module of the extra ``bench``; :class:`Skip` names it where it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Skip(f"{error.name} is not installed (pip install -e '.[bench]')") from error


def percentile(values: Sequence[float], p: int) -> float:
    """The ``p``-th percentile, 1..99, linear between the two nearest values."""
    return statistics.quantiles(values, n=100, method="inclusive")[p - 1]


# ---- MAC reports ----------------------------------------------------------------------------------------


def controller_config(
    cells: int, ues: int, *, control_slot_s: float = 5.0, qos: bool = False, metrics: bool = False
) -> config.Config:
    """A controller of ``cells`` cells with one AR slice of ``ues`` UEs each, on free ports of loopback."""
    slices = [{"id": "ar", "ues": [f"ue-{i + 1}" for i in range(ues)]}]
    return config.parse(
        f"control: {{control_slot_s: {control_slot_s}}}",
        overrides={
            "cells": [{"id": f"cell-{i + 1}", "slices": slices} for i in range(cells)],
            "links.ran.address": "tcp://127.0.0.1:0",
            "links.edge.address": None,
            "links.qos.address": f"127.0.0.1:{free_port()}" if qos else None,
            "links.operator.address": None,
            "links.metrics.address": f"127.0.0.1:{free_port()}" if metrics else None,
            "links.page.address": None,
        },
    )


def mac_report(ues: int, rng: np.random.Generator) -> ran_pb2.MacReport:
    """MAC state as a cell in the middle of a busy day reports it: every field of every UE is set."""
    report = ran_pb2.MacReport()
    for i in range(ues):
        ul, dl = (
            ran_pb2.DirectionState(
                mcs=int(rng.integers(5, 28)),
                mcs_table=1,
                layers=1,
                queued_bytes=int(rng.integers(0, 3000)),
                lc_bytes=int(rng.integers(1 << 20, 1 << 30)),
                prb_slots=int(rng.integers(1 << 16, 1 << 24)),
                bler=float(rng.uniform(0.01, 0.12)),
            )
            for _ in range(2)
        )
        report.ues.add(
            rnti=0x4601 + i,
            ue_id=f"ue-{i + 1}",
            slice="ar",
            ul=ul,
            dl=dl,
            cqi=int(rng.integers(6, 16)),
            snr_db=float(rng.uniform(5, 30)),
            snssai=ran_pb2.Snssai(sst=1, sd=1),
            five_qi=80,
            priority_level=68,
            dl_channels=[ran_pb2.LogicalChannel(lcid=4, queued_bytes=dl.queued_bytes)],
        )
    return report


def hello(cell_id: str) -> bytes:
    """The Hello of a cell of 106 PRB at 30 kHz with the TDD pattern DSUUU."""
    tdd = ran_pb2.TddPattern(period_slots=5, dl_slots=1, dl_symbols=4, ul_symbols=6, ul_slots=3)
    return ran_pb2.GnbMessage(
        hello=ran_pb2.Hello(protocol_version=PROTOCOL_VERSION, cell_id=cell_id, prb=106, scs_khz=30, tdd=tdd)
    ).SerializeToString()


class Gnb:
    """A DEALER that has said Hello and knows its session."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, cell_id: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.IDENTITY, cell_id.encode())
        self.socket.setsockopt(zmq.RCVTIMEO, int(CHILD_S * 1e3))
        self.socket.connect(address)
        self.cell_id = cell_id
        self.session = 0
        self.sequence = 0

    def join(self) -> None:
        """Say Hello and wait for the Welcome to a new session."""
        self.say_hello()
        self.be_welcome()

    def say_hello(self) -> None:
        self.socket.send(hello(self.cell_id))
        self.sequence = 0

    def be_welcome(self) -> None:
        """Wait for the Welcome; what an earlier session left unread is dropped."""
        while not (message := self.receive()).HasField("welcome"):
            if message.HasField("reject"):
                raise RuntimeError(f"{self.cell_id} was rejected: {message.reject.reason}")
        self.session = message.welcome.session

    def receive(self) -> ran_pb2.ControllerMessage:
        return ran_pb2.ControllerMessage.FromString(self.socket.recv())

    def acknowledge(self, message: ran_pb2.ControllerMessage) -> bool:
        """Answer a SetQuota or a Release with Applied; False for anything else."""
        if message.HasField("set_quota"):
            sequence, quotas = message.set_quota.sequence, message.set_quota.quotas
        elif message.HasField("release"):
            sequence, quotas = message.release.sequence, None
        else:
            return False
        applied = ran_pb2.Applied(
            session=self.session, sequence=sequence, time_ns=time.time_ns(), in_force=quotas
        )
        self.socket.send(ran_pb2.GnbMessage(applied=applied).SerializeToString())
        return True

    def leave(self) -> None:
        """Acknowledge what comes up to the Release of a controller that ends, then close."""
        try:
            while self.socket.poll(int(CHILD_S * 1e3)):
                message = self.receive()
                if self.acknowledge(message) and message.HasField("release"):
                    break
        finally:
            self.socket.close(100)


# ---- child processes ------------------------------------------------------------------------------------


class Child:
    """A process of ours and the pipe to it."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def receive(self) -> Any:
        """What the child says next; RuntimeError where it says nothing."""
        if not self.pipe.poll(CHILD_S):
            raise RuntimeError(f"{self.process.name} did not answer within {CHILD_S:g} s")
        try:
            return self.pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.process.name} has ended") from None

    def ask(self, what: Any) -> Any:
        self.pipe.send(what)
        return self.receive()


@contextmanager
def child(target: Callable[..., None], *arguments: Any) -> Iterator[Child]:
    """``target(pipe, *arguments)`` in a process of its own, until it ends or the block does."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_begin, args=(target, theirs, *arguments), name=target.__name__, daemon=True
    )
    process.start()
    theirs.close()
    try:
        yield Child(process, ours)
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()


def _begin(target: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    logging.basicConfig(level=logging.ERROR)
    target(pipe, *arguments)


def until_told(pipe: Connection) -> threading.Event:
    """An event that is set when the other end says something or is gone."""
    stop = threading.Event()

    def wait() -> None:
        with suppress(EOFError, OSError):
            pipe.recv()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    return stop


def serve_daemon(pipe: Connection, settings: config.Config, step_on_report: bool, cpu: int | None) -> None:
    """A controller: says its RAN address, runs until told to stop, then says its counters."""
    use_cpu(cpu)
    daemon = Daemon(settings, step_on_report=step_on_report)
    pipe.send(daemon._ran.address)
    stop = until_told(pipe)
    daemon.run(stop)
    with suppress(OSError):
        pipe.send({name: daemon.counters.get(name) for name, _ in daemon.counters.snapshot()})


def use_cpu(cpu: int | None) -> None:
    """Bind this process, its future threads included, to one CPU where the system can."""
    if cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection in this process while its clock runs."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
