"""A gNB that speaks the RAN link in front of the emulated testbed, in real time.

One thread owns the emulated testbed, the RAN agent and the ZMQ socket. It advances the testbed to the NR
slot that is due, a few milliseconds at a time, sends a MacReport at every multiple of the report period in
emulated time, and puts quotas and GPU clocks in force at the NR slot boundary where it stands. What it puts
in force is logged in :attr:`GnbMock.history`; :func:`replay` repeats a history in virtual time and gives the
same reports (not with a user plane: what its connections sent is not in the history).
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zmq

from agents.emulator.spec import EXTERNAL, TestbedSpec
from agents.emulator.testbed import EmulatedTestbed
from agents.emulator.warmup import warm_up
from agents.gnb_mock.agent import Cell, CellTime, Quotas, RanAgent
from agents.gnb_mock.pacing import CellClock, Pacer
from agents.gnb_mock.user_plane import UserPlane
from agents.heartbeat import write_heartbeat
from agents.links.edge import EdgeFollower
from agents.links.qos import QosPublisher
from agents.links.settings import Settings
from agents.stopping import on_stop_signal
from wire import MAX_GNB_MESSAGE_BYTES, qos_pb2, ran_pb2, security
from wire.definitions import nr
from wire.definitions.bounds import MAX_FRAMES
from wire.version import version

log = logging.getLogger(__name__)

SCS_KHZ: Final = 30
SLOTS_PER_MS: Final = 2
FRAMES_PERIOD_SLOTS: Final = 400
"""Flows and frames go to the QoS ingest every 200 ms."""
MAKE_UP_SLOTS: Final = 2000
"""Emulated at once while time is made up for, between two looks whether to stop."""
MAX_RECEIVED: Final = 64
"""Messages taken from the socket before the cell goes on."""
SETTINGS_TIMEOUT_S: Final = 2.0
REAL_TIME_CHECK_NS: Final = 1_000_000_000
MAX_CLOCK_STEP_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class QuotaChange:
    """These quotas hold from NR slot ``nr_slot`` on (counted from the start of the run)."""

    nr_slot: int
    quotas: Quotas
    bindings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ClockChange:
    """The GPU's clock was ordered at NR slot ``nr_slot``."""

    nr_slot: int
    mhz: int


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """These settings (flow -> name -> values) hold from NR slot ``nr_slot`` on."""

    nr_slot: int
    settings: Settings


Change = QuotaChange | ClockChange | SettingsChange


class GnbMock:
    """See the module.

    A ``user_plane`` carries real connections through the cell, which then goes on NR slot by NR slot.
    ``ran_address`` is the controller's ROUTER (``tcp://host:port``); without ``qos_address`` flows and frames
    are told to nobody, and without ``edge_address`` the emulated GPU runs at its default clock. With an edge
    agent the emulated server runs at the clock that the agent reads back, without a lag of its own. A flow
    that starts while its UE is in no slice is background traffic: the QoS ingest does not hear of it.

    ``epoch_ns`` is CLOCK_REALTIME at which emulated time has begun, None: at the start. Time that is over by
    then is made up for, at full resources, before the cell's thread goes on in real time: cells with the same
    epoch have the same time.

    Raises :class:`wire.security.InsecureAddress` for an address beyond loopback without ``curve`` or ``tls``,
    ValueError for one that is none, and :class:`wire.security.KeyFileError` for keys that cannot be used.
    """

    def __init__(
        self,
        spec: TestbedSpec,
        seed: int,
        *,
        ran_address: str,
        curve: security.CurveClient | None = None,
        qos_address: str | None = None,
        edge_address: str | None = None,
        gpu: str = "",
        tls: security.Tls | None = None,
        user_plane: UserPlane | None = None,
        step_s: float = 0.004,
        health_file: Path | None = None,
        history_limit: int = 100_000,
        epoch_ns: int | None = None,
    ) -> None:
        if epoch_ns is not None and epoch_ns > time.time_ns():
            raise ValueError(f"epoch {epoch_ns / 1e9:.3f} s is in the future")
        security.require_address("--ran", ran_address, "zmq", secured=curve is not None, missing="--keys")
        if edge_address is not None:
            spec = dataclasses.replace(spec, edge=dataclasses.replace(spec.edge, clock_lag_ms=0.0))
        self._user_plane = user_plane
        if user_plane is not None:
            spec = user_plane.join(spec)
            step_s = nr.SLOT_NS / 1e9
        self.spec = spec
        self.seed = seed
        self.history: deque[Change] = deque(maxlen=history_limit)
        self.clock = CellClock()
        self.epoch_ns = 0
        self._given_epoch_ns = epoch_ns
        self._ran_address = ran_address
        self._curve = curve
        self._step_ns = round(step_s * 1e9)
        self._health_file = health_file
        cell_id = spec.cell.cell_id
        self._agent = RanAgent(describe_cell(spec))
        self._qos: QosPublisher | None = None
        self._edge: EdgeFollower | None = None
        if qos_address is not None:
            self._qos = QosPublisher(
                qos_address,
                tls,
                cell_id=cell_id,
                host=f"gnb-mock/{cell_id}",
                clocks_synchronised=spec.clocks_synchronised,
                setting="--qos",
                missing="--keys",
                on_settings=self._order_settings,
                on_settings_lapsed=self._settings_lapsed,
            )
        if edge_address is not None:
            self._edge = EdgeFollower(
                edge_address,
                tls,
                holder=f"gnb-mock/{cell_id}",
                gpu=gpu,
                setting="--edge",
                missing="--keys",
            )
        self._slice_of = {ue.ue_id: ue.slice for ue in spec.ues}
        self._quotas_since_ns = 0
        self._gpu_mhz = spec.edge.max_mhz
        self._active: set[int] = set()
        self._open_flows: set[int] = set()
        self._counters: Counter[str] = Counter()
        self._next_report = 0
        self._period_slots = 0
        self._next_frames = FRAMES_PERIOD_SLOTS
        self._real_time_check_ns = 0
        self._beat = 0.0
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._testbed: EmulatedTestbed | None = None
        self._pacer: Pacer | None = None
        self._threads: list[threading.Thread] = []
        self._orders: queue.SimpleQueue[tuple[Settings, Future[None]]] = queue.SimpleQueue()

    # ---- life -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Compile what has to be compiled, then let emulated time run."""
        warm_up(self.spec)
        if self._qos is not None:
            self._qos.start()
        if self._edge is not None:
            self._edge.start()
        self._threads = [threading.Thread(target=self._main, name="gnb-mock", daemon=True)]
        if self._health_file is not None:
            self._threads.append(threading.Thread(target=self._keep_heartbeat, name="health", daemon=True))
        self._beat = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let :meth:`wait` return; may be called by any thread."""
        self._stop.set()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT end :meth:`wait`. To be called in the main thread."""
        on_stop_signal(self.stop)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until :meth:`stop`; False where the time was up before. Raises what ended the thread."""
        done = self._stop.wait(timeout_s)
        if self._failure is not None:
            raise self._failure
        return done

    def close(self) -> None:
        """Stop the cell and leave the links."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        if self._qos is not None:
            self._qos.close()
        if self._edge is not None:
            self._edge.close()

    def __enter__(self) -> GnbMock:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """The cell's thread went through its loop in the last two seconds."""
        return self._failure is None and time.monotonic() - self._beat < 2.0

    @property
    def quotas(self) -> Quotas:
        """The quotas in force."""
        return self._agent.quotas

    def stats(self) -> dict[str, Any]:
        """Where the cell stands and everything counted so far, as plain JSON values.

        ``quotas_since_ns``: the time, ns since 1970, of the NR slot from which on ``quotas`` are in force; 0
        where there were never any.
        """
        testbed, pacer, agent = self._testbed, self._pacer, self._agent
        return {
            "cell_id": self.spec.cell.cell_id,
            "nr_slot": testbed.nr_slot if testbed else 0,
            "session": agent.session,
            "rejected": agent.rejected,
            "quotas": {s: list(q) for s, q in agent.quotas.items()},
            "quotas_since_ns": self._quotas_since_ns,
            "gpu_mhz": self._gpu_mhz,
            "active_flows": len(self._active),
            "overruns": pacer.overruns if pacer else 0,
            "resyncs": pacer.resyncs if pacer else 0,
            "worst_late_ms": round(pacer.worst_late_ns / 1e6, 3) if pacer else 0.0,
            "clock_shifts": self.clock.shifts,
            "qos_connected": bool(self._qos and self._qos.connected),
            "edge_connected": bool(self._edge and self._edge.connected),
            "model": dataclasses.asdict(testbed.health()) if testbed else {},
            "mock": dict(self._counters),
            "ran": dict(agent.counters),
            "qos": self._qos.counters if self._qos else {},
            "edge": dict(self._edge.counters) if self._edge else {},
            "user_plane": dict(self._user_plane.counters) if self._user_plane else {},
        }

    # ---- the cell's thread ------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
                self._connect(socket)
                self._run(socket)
        except BaseException as error:
            log.exception("cell %s: the emulated gNB has failed", self.spec.cell.cell_id)
            self._failure = error
            self._stop.set()

    def _connect(self, socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.SNDHWM, 100)
        socket.setsockopt(zmq.RCVHWM, 100)
        # Not ZMQ's heartbeats: their timer aborts where it meets a broken connection whose pipe is full.
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 2)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        socket.setsockopt(zmq.TCP_MAXRT, 5000)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_GNB_MESSAGE_BYTES)
        if "[" in self._ran_address:
            socket.setsockopt(zmq.IPV6, 1)
        if self._curve is not None:
            self._curve.apply(socket)
        socket.connect(self._ran_address)

    def _run(self, socket: zmq.Socket[bytes]) -> None:
        epoch_ns = self._given_epoch_ns
        self.epoch_ns = time.time_ns() if epoch_ns is None else epoch_ns
        testbed = self._testbed = EmulatedTestbed(self.spec, seed=self.seed, epoch_ns=self.epoch_ns)
        if epoch_ns is not None:
            self._make_up(testbed)
        start_ns = time.monotonic_ns() - max(0, time.time_ns() - self.epoch_ns)
        pacer = self._pacer = Pacer(start_ns, nr.SLOT_NS, tolerance_ns=2 * self._step_ns)
        step = start_ns
        while not self._stop.is_set():
            now_ns = time.monotonic_ns()
            self._beat = now_ns / 1e9
            due, skipped = pacer.due(now_ns, testbed.nr_slot)
            self._keep_real_time(testbed, skipped, now_ns)
            self._follow_edge(testbed)
            if self._user_plane is not None:
                self._user_plane.put(testbed)
            self._advance(testbed, socket, due)
            if self._user_plane is not None:
                self._user_plane.take(testbed)
            self._agent.tick(now_ns / 1e9)
            self._enforce(testbed)
            self._apply_settings(testbed)
            self._send_control(socket)
            if self._agent.reconnect(now_ns / 1e9):
                socket.disconnect(self._ran_address)
                socket.connect(self._ran_address)
            if now_ns >= step:
                step = now_ns + self._step_ns
            self._wait(socket, step)

    def _make_up(self, testbed: EmulatedTestbed) -> None:
        """Emulates what is over since the epoch, unless it is stopped."""
        while not self._stop.is_set():
            self._beat = time.monotonic_ns() / 1e9
            late = max(0, time.time_ns() - self.epoch_ns) // nr.SLOT_NS - testbed.nr_slot
            if late <= 0:
                break
            testbed.advance(testbed.nr_slot + min(late, MAKE_UP_SLOTS))
        self._next_frames += testbed.nr_slot // FRAMES_PERIOD_SLOTS * FRAMES_PERIOD_SLOTS

    def _wait(self, socket: zmq.Socket[bytes], until_ns: int) -> None:
        """Until a message or the time comes. Poll counts in ms, too coarse for the user plane."""
        wait_ns = max(0, until_ns - time.monotonic_ns())
        if self._user_plane is not None:
            time.sleep(wait_ns / 1e9)
            wait_ns = 0
        if socket.poll(-(-wait_ns // 1_000_000)):
            self._receive(socket)

    def _keep_real_time(self, testbed: EmulatedTestbed, skipped: int, now_ns: int) -> None:
        if skipped:
            log.warning("cell %s: %.1f s late, going on from here", self.spec.cell.cell_id, skipped / 1e9)
        elif now_ns < self._real_time_check_ns:
            return
        self._real_time_check_ns = now_ns + REAL_TIME_CHECK_NS
        emulated = testbed.time_ns()
        ahead = time.time_ns() - self.clock.real_ns(emulated)
        if skipped:
            self.clock.skip(emulated, skipped)
        elif ahead > MAX_CLOCK_STEP_NS:
            # A suspend stops the monotonic clock but not CLOCK_REALTIME.
            self.clock.skip(emulated, ahead)
            log.warning("cell %s: CLOCK_REALTIME went ahead by %.1f s", self.spec.cell.cell_id, ahead / 1e9)

    def _follow_edge(self, testbed: EmulatedTestbed) -> None:
        if self._edge is None:
            return
        mhz = self._edge.sm_mhz or self.spec.edge.max_mhz
        if mhz != self._gpu_mhz:
            self._gpu_mhz = mhz
            testbed.set_gpu_mhz(mhz)
            self.history.append(ClockChange(testbed.nr_slot, mhz))

    def _advance(self, testbed: EmulatedTestbed, socket: zmq.Socket[bytes], due: int) -> None:
        self._schedule_reports(testbed.nr_slot)
        while True:
            target = min(due, self._next_frames)
            if self._period_slots:
                target = min(target, self._next_report)
            if target > testbed.nr_slot:
                testbed.advance(target)
            if self._period_slots and testbed.nr_slot == self._next_report:
                self._next_report += self._period_slots
                self._send_report(testbed, socket)
            if testbed.nr_slot == self._next_frames:
                self._next_frames += FRAMES_PERIOD_SLOTS
                self._publish(testbed)
            if testbed.nr_slot >= due:
                return

    def _schedule_reports(self, nr_slot: int) -> None:
        """Reports stand at multiples of their period, so that they do not depend on when a session began."""
        period = self._agent.report_period_ms * SLOTS_PER_MS if self._agent.session else 0
        if period != self._period_slots:
            self._period_slots = period
            if period:
                self._next_report = (nr_slot // period + 1) * period

    def _send_report(self, testbed: EmulatedTestbed, socket: zmq.Socket[bytes]) -> None:
        report = testbed.mac_report()
        report.time_ns = self.clock.real_ns(report.time_ns)
        data = self._agent.report(report)
        if data is None:
            return
        if _send(socket, data):
            self._counters["reports"] += 1
            self._agent.report_sent()
        else:
            self._counters["reports_dropped"] += 1
            self._agent.not_sent(time.monotonic())

    def _enforce(self, testbed: EmulatedTestbed) -> None:
        pending = self._agent.pending
        if pending is None:
            return
        if pending.changed:
            bindings = {ue: s for ue, s in pending.bindings.items() if ue in self._slice_of}
            self._counters["unknown_ues"] += len(pending.bindings) - len(bindings)
            try:
                testbed.set_quotas(pending.quotas, bindings)
            except ValueError as error:
                self._agent.not_enforceable(str(error))
                self._enforce(testbed)
                return
            self._slice_of.update(bindings)
            self.history.append(QuotaChange(testbed.nr_slot, dict(pending.quotas), bindings))
        at = CellTime(
            frame=testbed.nr_slot // nr.SLOTS_PER_FRAME % 1024,
            slot=testbed.nr_slot % nr.SLOTS_PER_FRAME,
            time_ns=self.clock.real_ns(testbed.time_ns()),
        )
        if pending.changed:
            self._quotas_since_ns = at.time_ns
        self._agent.enforced(at, testbed.slice_use)

    def _send_control(self, socket: zmq.Socket[bytes]) -> None:
        while (data := self._agent.to_send()) is not None:
            if not _send(socket, data):
                self._agent.not_sent(time.monotonic())
                return
            self._agent.sent(time.monotonic())

    def _receive(self, socket: zmq.Socket[bytes]) -> None:
        for _ in range(MAX_RECEIVED):
            try:
                parts = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(parts) == 1:
                self._agent.receive(parts[0], time.monotonic())
            else:
                self._agent.counters["malformed"] += 1

    # ---- settings ---------------------------------------------------------------------------------------

    def _order_settings(self, settings: Settings) -> None:
        """Has the cell's thread put settings in force; raises what the cell says of them. Any thread."""
        order: Future[None] = Future()
        self._orders.put((settings, order))
        try:
            order.result(SETTINGS_TIMEOUT_S)
        except FutureTimeout:
            order.cancel()
            raise ValueError("the emulated cell does not answer") from None

    def _settings_lapsed(self, flows: tuple[str, ...]) -> None:
        # Not waited for: a cell that stands still does it when it goes on.
        self._orders.put(({flow: {} for flow in flows}, Future()))

    def _apply_settings(self, testbed: EmulatedTestbed) -> None:
        while True:
            try:
                settings, order = self._orders.get_nowait()
            except queue.Empty:
                return
            if not order.set_running_or_notify_cancel():
                continue
            try:
                testbed.apply(settings)
            except Exception as error:
                self._counters["settings_refused"] += 1
                order.set_exception(error if isinstance(error, ValueError) else ValueError(repr(error)))
            else:
                self.history.append(SettingsChange(testbed.nr_slot, settings))
                order.set_result(None)

    # ---- flows and frames -------------------------------------------------------------------------------

    def _publish(self, testbed: EmulatedTestbed) -> None:
        events = testbed.take_flow_events()
        updates = testbed.take_frames()
        samples = testbed.take_samples()
        for event in events:
            if event.kind == "start":
                self._active.add(event.flow)
            else:
                self._active.discard(event.flow)
        own = bool(self.spec.applications) or any(f.kind != EXTERNAL for f in self.spec.flows)
        if self._edge is not None and own:
            self._edge.set_load(testbed.edge_utilisation())
        if self._qos is None:
            return
        for event in events:
            flow = testbed.flows[event.flow]
            time_ns = self.clock.real_ns(event.time_ns)
            if event.kind == "start":
                slice_ = self._slice_of[flow.ue_id]
                if not slice_ or not flow.announced:
                    self._open_flows.discard(event.flow)
                    continue
                self._open_flows.add(event.flow)
                start = qos_pb2.FlowStart(
                    flow=flow.flow,
                    ue_id=flow.ue_id,
                    slice=slice_,
                    ul_bps=flow.ul_bps,
                    dl_bps=flow.dl_bps,
                    time_ns=time_ns,
                    service=flow.service,
                )
                self._qos.put(qos_pb2.QosMessage(flow_start=start))
            elif event.flow in self._open_flows:
                self._qos.put(qos_pb2.QosMessage(flow_stop=qos_pb2.FlowStop(flow=flow.flow, time_ns=time_ns)))
        columns = [
            self.clock.real_column(column).tolist()
            for column in (updates.ue_sent, updates.edge_received, updates.edge_sent, updates.ue_received)
        ]
        for index in self._open_flows.intersection(np.unique(updates.flow).tolist()):
            rows = np.flatnonzero(updates.flow == index).tolist()
            for some in (rows[i : i + MAX_FRAMES] for i in range(0, len(rows), MAX_FRAMES)):
                frames = [
                    qos_pb2.Frame(
                        sequence=int(updates.sequence[row]),
                        ue_sent_ns=columns[0][row],
                        edge_received_ns=columns[1][row],
                        edge_sent_ns=columns[2][row],
                        ue_received_ns=columns[3][row],
                    )
                    for row in some
                ]
                batch = qos_pb2.FrameBatch(flow=testbed.flows[index].flow, frames=frames)
                self._qos.put(qos_pb2.QosMessage(frames=batch))
        for table in samples:
            if table.flow in self._open_flows:
                name, times = testbed.flows[table.flow].flow, self.clock.real_column(table.time_ns)
                self._qos.put_samples(name, table.table, times, table.values)

    # ---- health -----------------------------------------------------------------------------------------

    def _keep_heartbeat(self) -> None:
        assert self._health_file is not None
        while True:
            if self.alive:
                try:
                    write_heartbeat(self._health_file, self.stats())
                except OSError as error:
                    self._counters["heartbeat_errors"] += 1
                    if self._counters["heartbeat_errors"] == 1:
                        log.warning("heartbeat file %s: %s", self._health_file, error.strerror)
            if self._stop.wait(1.0):
                return


def _send(socket: zmq.Socket[bytes], data: bytes) -> bool:
    try:
        socket.send(data, zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def describe_cell(spec: TestbedSpec) -> Cell:
    """What the Hello of an emulated cell says."""
    tdd = spec.cell.tdd
    return Cell(
        cell_id=spec.cell.cell_id,
        prb=spec.cell.n_prb,
        scs_khz=SCS_KHZ,
        tdd=ran_pb2.TddPattern(
            period_slots=tdd.period_slots,
            dl_slots=tdd.dl_slots,
            dl_symbols=tdd.dl_symbols,
            ul_symbols=tdd.ul_symbols,
            ul_slots=tdd.ul_slots,
        ),
        agent_version=f"gnb-mock {version()}",
        min_prb=spec.cell.min_grant_prb,
    )


def replay(
    spec: TestbedSpec,
    seed: int,
    history: Iterable[Change],
    *,
    epoch_ns: int,
    until_nr_slot: int,
    report_period_ms: int,
) -> Iterator[ran_pb2.MacReport]:
    """The MacReports (session, sequence 0) that a :class:`GnbMock` with this history made, in virtual time.

    ``spec`` and ``epoch_ns`` are the mock's own (:attr:`GnbMock.spec`, :attr:`GnbMock.epoch_ns`). A report at
    the NR slot of a change comes before the change, as in real time.
    """
    testbed = EmulatedTestbed(spec, seed=seed, epoch_ns=epoch_ns)
    changes = deque(history)
    period = report_period_ms * SLOTS_PER_MS
    for boundary in range(period, until_nr_slot + 1, period):
        while changes and changes[0].nr_slot < boundary:
            change = changes.popleft()
            testbed.advance(change.nr_slot)
            if isinstance(change, QuotaChange):
                testbed.set_quotas(change.quotas, change.bindings)
            elif isinstance(change, SettingsChange):
                testbed.apply(change.settings)
            else:
                testbed.set_gpu_mhz(change.mhz)
        testbed.advance(boundary)
        testbed.take_frames()
        yield testbed.mac_report()
