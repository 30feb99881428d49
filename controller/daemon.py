"""The controller as a process: joins links, store and core. The only place that knows them all."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from controller import config as config_module
from controller.config import Config, ConfigError
from controller.core.collector import SlotCollector
from controller.core.decision import Decision
from controller.core.loop import ControlLoop
from controller.core.observation import Command, Enforcement, Flow, MacReport, Mode, Observation
from controller.links import codec
from controller.links.counters import Counters
from controller.links.edge import EdgeLink
from controller.links.metrics import Metrics
from controller.links.operator import Broadcaster, CellStatus, ControllerStatus, OperatorServer
from controller.links.qos import FlowBegin, HostLost, QosIngest, QosItem, QosQueue
from controller.links.ran import RanLink
from controller.links.ran_protocol import (
    CellJoined,
    CellLost,
    CellNotConnected,
    Event,
    LeaseLapsed,
    QuotaApplied,
    QuotaNotHonoured,
    Report,
)
from controller.store import checkpoint
from controller.store.recorder import AsyncRunStore
from controller.store.run import DATABASE_FILE, Retention, RunStore
from wire import ran_pb2
from wire.security import SERVER_OPTIONS, Tls, curve_server, grpc_server_add

log = logging.getLogger("prbandit.controller")

_IDLE_POLL_S = 0.05
_CALL_TIMEOUT_S = 5.0
_FIRST_DECISION_S = 1.0
_RELEASE_WAIT_S = 1.0
_MAX_HOSTS = 32
_COMPLAIN_EVERY_S = 5.0
_ASK_USE_S = 0.2
"""So long before the end of a control slot the gNB is asked what was used in it."""


@dataclass
class _Cell:
    """One cell: its loop, and what is known of the control slot in progress."""

    cell_id: str
    collector: SlotCollector
    edge: EdgeLink | None
    loop: ControlLoop | None = None
    bindings: dict[str, str] = field(default_factory=dict)
    start_id: int = 0
    session: int = 0
    reports: int = 0
    carrier: codec.CellFacts | None = None
    commands: list[Command] = field(default_factory=list)
    decision: Decision | None = None
    record: dict[str, Any] | None = None
    decided_mono: float = 0.0
    decided_ns: int = 0
    acknowledged_ns: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    used: dict[str, list[int | None]] = field(default_factory=dict)
    next_step: float = 0.0
    reported_mono: float | None = None
    leased_until: float | None = None
    quota_sequence: int = 0
    ask_use_at: float = float("inf")
    state: dict[str, Any] | None = None
    flow_streams: dict[str, tuple[str, int]] = field(default_factory=dict)
    streams_lost: dict[tuple[str, int], float] = field(default_factory=dict)
    streams_with_flows: set[tuple[str, int]] = field(default_factory=set)
    clock_faults: dict[str, str] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        return self.session != 0


class Daemon:
    """The controller of a testbed.

    ``run`` blocks until ``stop`` is set or ``duration_s`` has passed. Everything that touches the control
    loops runs on the thread of ``run``; operators' calls are queued to it and answered when it is done, and
    ``beat`` is called by it once a second.

    Raises where a server's address cannot be bound, an address beyond loopback has no keys, or a key is
    missing. A run folder that refuses to be written is reported and counted; control goes on without it.
    """

    def __init__(
        self,
        config: Config,
        *,
        config_path: Path | None = None,
        overrides: Mapping[str, Any] | None = None,
        run_dir: Path | None = None,
        learned: Mapping[str, Any] | None = None,
        beat: Callable[[], None] | None = None,
        step_on_report: bool = False,
    ) -> None:
        self.config = config
        self._config_path = config_path
        self._overrides = dict(overrides or {})
        self._learned = dict(learned or {})
        self._beat, self._next_beat = beat, 0.0
        self._step_on_report = step_on_report
        self.counters = Counters()
        self.metrics = Metrics(self.counters)
        self._broadcaster = Broadcaster(self.counters)
        self._complained: dict[tuple[str, str], float] = {}
        self._calls: queue.SimpleQueue[tuple[Callable[[], str], Future[str]]] = queue.SimpleQueue()
        keys = config.security.keys
        tls = Tls(Path(keys), "controller") if keys else None
        self._run_dir = run_dir
        self._store: AsyncRunStore | None = None
        if run_dir:
            self._learned.update(_learned_in(run_dir))
            self._store = AsyncRunStore(
                run_dir,
                config=config.to_yaml(),
                seed=config.control.seed,
                retention=Retention(max_days=config.store.retain_days),
                counters=self.counters,
            )
        self._ran = RanLink(
            config.links.ran.address,
            curve=curve_server(keys) if keys else None,
            report_period_ms=config.links.ran.report_period_ms,
            lease_s=config.lease_s,
            expected_cells={c.id for c in config.cells},
            counters=self.counters,
        )
        self._cells = {c.id: self._new_cell(c, tls) for c in config.cells}
        self._qos_queue = QosQueue(counters=self.counters)
        self._qos = self._qos_server(config.links.qos.address, tls) if config.links.qos.address else None
        self._operator = (
            OperatorServer(config.links.operator.address, tls, self, self._broadcaster)
            if config.links.operator.address
            else None
        )
        self._metrics_server = (
            self.metrics.serve(config.links.metrics.address, tls) if config.links.metrics.address else None
        )

    def _qos_server(self, address: str, tls: Tls | None) -> grpc.Server:
        server = grpc.server(ThreadPoolExecutor(_MAX_HOSTS + 1), options=SERVER_OPTIONS)
        QosIngest(
            self._qos_queue.put,
            expected_cells={c.id for c in self.config.cells},
            check_flow=self._check_flow,
            max_streams=_MAX_HOSTS,
            clock_bound_ns=self.config.links.qos.clock_bound_us * 1e3,
            clock_stale_s=self.config.links.qos.clock_stale_s,
            clock_hosts=self.config.links.qos.clock_hosts,
            counters=self.counters,
        ).add_to(server)
        grpc_server_add(server, address, tls, setting="links.qos.address", missing="security.keys")
        return server

    def _new_cell(self, cell: config_module.CellModel, tls: Tls | None) -> _Cell:
        edge = None
        if self.config.links.edge.address:
            edge = EdgeLink(
                self.config.links.edge.address,
                tls,
                holder=cell.id,
                gpu=cell.gpu,
                lease_s=self.config.lease_s,
                watch_period_ms=self.config.links.edge.watch_period_ms,
                settle_s=max(0.2, self.config.control.guard_ms / 1e3),
                counters=self.counters,
            )
        collector = SlotCollector([s.id for s in cell.slices], self.config.control.subinterval_ms)
        made = _Cell(cell.id, collector, edge)
        self.metrics.watch_cell(
            cell.id,
            report_age=lambda: None if made.reported_mono is None else time.monotonic() - made.reported_mono,
            lease_remaining=lambda: max(0.0, (made.leased_until or 0.0) - time.monotonic()),
        )
        return made

    # ---- the loop ---------------------------------------------------------------------------------------

    def run(self, stop: threading.Event, duration_s: float | None = None) -> None:
        """Control until told to stop; then everything is released and the record closed."""
        end = time.monotonic() + duration_s if duration_s else float("inf")
        try:
            for cell in self._cells.values():
                if cell.edge:
                    cell.edge.start()
            for server in (self._qos, self._operator):
                if server:
                    server.start()
            log.info("listening for gNBs on %s", self.config.links.ran.address)
            while not stop.is_set() and time.monotonic() < end:
                self._turn()
        finally:
            self._close()

    def _turn(self) -> None:
        """One turn: what the gNBs sent, what operators asked, what is due."""
        now = time.monotonic()
        controlled = [c for c in self._cells.values() if c.connected and c.loop]
        due = [min(c.next_step, c.ask_use_at) for c in controlled]
        wait = min(_IDLE_POLL_S, max(0.0, min(due, default=now + _IDLE_POLL_S) - now))
        for event in self._ran.poll(wait):
            self._handle(event)
        self._take_qos()
        self._answer_calls()
        now = time.monotonic()
        for cell in self._cells.values():
            if not (cell.connected and cell.loop):
                continue
            if now >= cell.next_step:
                self._step(cell)
            elif now >= cell.ask_use_at:
                cell.ask_use_at = float("inf")
                self._ran.renew(cell.cell_id)
        if self._beat and now >= self._next_beat:
            self._next_beat = now + 1.0
            with suppress(OSError):  # who looks for it will miss it
                self._beat()

    def _close(self) -> None:
        # In reverse order, and each of them whatever the one before raised: what is left open keeps the
        # process from ending.
        with ExitStack() as last:
            if self._store:
                last.callback(self._store.close)
            for server in (self._metrics_server, self._operator):
                if server:
                    last.callback(server.close)
            if self._qos:
                last.callback(lambda qos: qos.stop(0.5).wait(), self._qos)
            last.callback(self._ran.close)
            for cell in self._cells.values():
                if cell.edge:
                    last.callback(cell.edge.close)
            self._release_all()

    def _release_all(self) -> None:
        """Back to all PRBs everywhere, and a moment for the gNBs to say so."""
        connected = [c.cell_id for c in self._cells.values() if c.connected]
        for cell_id in connected:
            self._release(cell_id)
        end = time.monotonic() + _RELEASE_WAIT_S
        while any(map(self._ran.unacknowledged, connected)) and time.monotonic() < end:
            self._ran.poll(0.05)

    # ---- RAN events ---------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        cell = self._cells[event.cell_id]
        match event:
            case Report():
                cell.reports += 1
                cell.reported_mono = event.received_mono
                if cell.loop:
                    # The gNB's clock need not agree with ours: what counts is when the report came.
                    now_ns = time.time_ns()
                    cell.collector.report(now_ns, (now_ns, event.message))
                if self._step_on_report and cell.loop:
                    self._step(cell)
            case QuotaApplied():
                self._applied(cell, event)
            case CellJoined():
                self._joined(cell, event)
            case CellLost():
                self._event(cell.cell_id, "cell_lost", event.why)
                cell.session = 0
                cell.decision = None
                if cell.edge:
                    cell.edge.release()
            case QuotaNotHonoured():
                if event.sequence >= cell.quota_sequence:  # else it is about the slot before
                    cell.faults[event.slice] = "quota not honoured"
                self._event(
                    cell.cell_id,
                    "quota_not_honoured",
                    f"slice {event.slice}, {event.direction}: {event.asked} PRB asked, {event.used} used",
                )
            case LeaseLapsed():
                for s in cell.decision.quotas if cell.decision else ():
                    cell.faults[s] = "lease lapsed"
                self._event(cell.cell_id, "lease_lapsed", "the gNB is back at all PRBs")

    def _applied(self, cell: _Cell, event: QuotaApplied) -> None:
        cell.leased_until = time.monotonic() + self.config.lease_s if event.quotas else None
        if event.first:
            cell.acknowledged_ns = time.time_ns()
            return  # its use is that of the slot before
        for use in event.message.use:
            used = cell.used.setdefault(use.slice, [None, None])
            i = 0 if use.direction == ran_pb2.UL else 1
            used[i] = max(used[i] or 0, use.max_new_prb)

    def _joined(self, cell: _Cell, event: CellJoined) -> None:
        cell.session = event.session
        cell.reports = 0
        cell.decision = None
        cell.acknowledged_ns, cell.decided_ns = 0, time.time_ns()
        cell.collector.restart(cell.decided_ns)
        facts = event.facts
        self._event(cell.cell_id, "cell_joined", f"session {event.session}, {facts}")
        if cell.loop is None or cell.carrier != facts:
            cell.carrier = facts
            try:
                self._new_loop(cell, self._state_of(cell))
            except ValueError as error:
                if cell.loop:
                    self._learned[cell.cell_id] = cell.loop.to_state()
                cell.loop = None
                self.counters.inc("config_refused_total", cell.cell_id)
                self._event(cell.cell_id, "not_controlled", str(error))
                return
        cell.next_step = time.monotonic() + min(self.config.control.control_slot_s, _FIRST_DECISION_S)

    def _state_of(self, cell: _Cell) -> Mapping[str, Any] | None:
        return cell.loop.to_state() if cell.loop else self._learned.get(cell.cell_id)

    def _make_loop(self, config: Config, cell: _Cell) -> ControlLoop:
        """A new control loop for the cell's carrier; ValueError where ``config`` does not fit it."""
        facts = cell.carrier
        assert facts is not None
        return ControlLoop(config.loop_spec(cell.cell_id, facts.n_prb, facts.scs_khz, facts.tdd))

    def _new_loop(self, cell: _Cell, state: Mapping[str, Any] | None) -> None:
        self._install(cell, self._make_loop(self.config, cell), state)

    def _install(self, cell: _Cell, loop: ControlLoop, state: Mapping[str, Any] | None) -> None:
        """Let ``loop`` control the cell, going on from ``state`` where that fits."""
        if state:
            try:
                loop.load_state(state)
                where = f"at control slot {loop.control_slot}, mode {loop.mode}"
                self._event(cell.cell_id, "learning_resumed", where)
            except ValueError as error:
                self._event(cell.cell_id, "learning_restarted", str(error))
        cell.loop = loop
        cell.bindings = {ue: s.slice for s in loop.spec.slices for ue in s.ues}
        cell.state = loop.to_state()
        if self._store:
            cell.start_id = self._store.record_start(
                time.time_ns(), cell.cell_id, loop.spec.to_dict(), loop.to_state()
            )

    # ---- one control slot ----------------------------------------------------------------------------------

    def _step(self, cell: _Cell) -> None:
        """Close the control slot and begin the next one; whatever fails here, the daemon goes on."""
        started = time.perf_counter()
        now, wall = time.monotonic(), time.time_ns()
        slot_s = self.config.control.control_slot_s
        cell.next_step = max(cell.next_step + slot_s, now) if now - cell.next_step < slot_s else now + slot_s
        cell.ask_use_at = cell.next_step - min(_ASK_USE_S, slot_s / 4)
        commands, cell.commands = cell.commands, []
        try:
            observation, decision = self._decide(cell, commands, now, wall)
            self._act(cell, decision, 2.0 * slot_s)
        except Exception as error:
            # Nothing is renewed past the last good decision, so the network returns to full resources.
            self.counters.inc("step_failed_total", cell.cell_id)
            log.exception("cell %s: a control slot failed", cell.cell_id)
            self._event(cell.cell_id, "step_failed", repr(error))
            cell.commands = commands + cell.commands
            cell.decision = None
            self._new_loop(cell, cell.state)  # a step that was half done must not leave anything behind
            return
        assert cell.loop is not None
        cell.record = record = decision.to_record()
        cell.state = cell.loop.to_state()
        if self._store:
            self._store.record_slot(cell.start_id, observation, record, cell.state)
        self._broadcaster.publish(record)
        self.metrics.observe(record)
        if cell.edge and (sample := cell.edge.state):
            gpu = sample.message
            power_w = gpu.power_w if gpu.HasField("power_w") else math.nan
            self.metrics.gpu(cell.cell_id, gpu.sm_mhz if gpu.HasField("sm_mhz") else math.nan, power_w)
        self.metrics.step_seconds(cell.cell_id, time.perf_counter() - started)

    def _decide(
        self, cell: _Cell, commands: list[Command], now: float, wall: int
    ) -> tuple[Observation, Decision]:
        loop = cell.loop
        assert loop is not None
        self._forget_flows(cell, now, wall)
        observation = cell.collector.close(
            control_slot=loop.control_slot,
            opened_ns=cell.acknowledged_ns or cell.decided_ns,
            closed_ns=wall,
            open_report=lambda report: self._open(cell, *report),
            enforcement=self._enforcement(cell),
            gpu=cell.edge.reading(cell.decided_mono) if cell.edge else None,
            commands=commands,
        )
        decision = loop.step(observation)
        cell.decision, cell.decided_mono, cell.decided_ns = decision, now, wall
        cell.acknowledged_ns = 0
        cell.faults.clear()
        cell.used.clear()
        return observation, decision

    def _act(self, cell: _Cell, decision: Decision, valid_for_s: float) -> None:
        if decision.quotas:
            try:
                cell.quota_sequence = self._ran.set_quota(
                    cell.cell_id, decision.quotas, cell.bindings, valid_for_s
                )
            except CellNotConnected:
                log.debug("cell %s went away while it was decided about", cell.cell_id)
        else:
            self._release(cell.cell_id)
        if cell.edge:
            if decision.gpu_mhz:
                cell.edge.lock(decision.gpu_mhz, valid_for_s)
            else:
                cell.edge.release()

    def _release(self, cell_id: str) -> None:
        """Back to all PRBs; a cell that is gone gets there by itself when its lease ends."""
        with suppress(CellNotConnected):
            self._ran.release(cell_id)

    def _open(self, cell: _Cell, received_ns: int, message: ran_pb2.MacReport) -> MacReport | None:
        assert cell.carrier is not None and cell.loop is not None
        try:
            report = codec.open_report(message, cell.carrier, received_ns)
        except codec.BadReport as error:
            self.counters.inc("ran_bad_report_total", cell.cell_id)
            self._complaint(cell.cell_id, "bad_report", str(error))
            return None
        unknown = {*report.slice} - cell.loop.slices - {""}
        if unknown:
            self.counters.inc("ran_unknown_slice_total", cell.cell_id)
            names = ", ".join(map(repr, sorted(unknown)))
            self._complaint(cell.cell_id, "unknown_slice", f"MacReport with UEs of {names}")
        return report

    def _enforcement(self, cell: _Cell) -> dict[str, Enforcement]:
        if not (cell.decision and cell.decision.quotas):
            return {}
        missing = "" if cell.acknowledged_ns else "not acknowledged"
        return {
            s: Enforcement(cell.faults.get(s, missing), *cell.used.get(s, (None, None)))
            for s in cell.decision.quotas
        }

    def _complaint(self, cell_id: str, kind: str, text: str) -> None:
        """An event of a kind that may come often: every one is counted elsewhere, few are recorded."""
        now = time.monotonic()
        if now - self._complained.get((cell_id, kind), -float("inf")) >= _COMPLAIN_EVERY_S:
            self._complained[cell_id, kind] = now
            self._event(cell_id, kind, text)

    def _event(self, cell_id: str, kind: str, text: str) -> None:
        log.log(
            logging.INFO if kind in _GOOD_NEWS else logging.WARNING, "cell %s: %s: %s", cell_id, kind, text
        )
        self.counters.inc("events_total", cell_id)
        if self._store:
            self._store.record_event(time.time_ns(), cell_id, kind, text)

    # ---- QoS ingest ----------------------------------------------------------------------------------------

    def _take_qos(self) -> None:
        """What the hosts reported since the last turn."""
        for cell_id, item in self._qos_queue.take():
            cell = self._cells[cell_id]
            try:
                self._take_item(cell, item)
            except ValueError as error:
                self.counters.inc("qos_refused_total", cell_id)
                self._complaint(cell_id, "qos_refused", str(error))

    def _take_item(self, cell: _Cell, item: QosItem) -> None:
        match item:
            case codec.FrameBatch():
                before = cell.collector.frames_dropped
                cell.collector.frames(
                    item.flow, item.columns, item.synchronised, item.received_ns, item.fault
                )
                self._note_clocks(cell, item.flow, item.fault.reason if item.fault else "")
                if dropped := cell.collector.frames_dropped - before:
                    self.counters.inc("qos_frames_dropped_total", cell.cell_id, dropped)
            case FlowBegin():
                cell.collector.flow_start(item.flow)
                # On a new stream after the old one was lost, the flow is no longer the old one's to lose.
                cell.flow_streams[item.flow.flow] = (item.host, item.stream)
                cell.streams_with_flows.add((item.host, item.stream))
            case codec.FlowEnd():
                cell.flow_streams.pop(item.flow, None)
                cell.clock_faults.pop(item.flow, None)
                cell.collector.flow_stop(item.flow, item.time_ns)
            case codec.ClockReport():
                cell.collector.clock(item)
            case HostLost():
                lost = item.host, item.stream
                cell.streams_lost[lost] = time.monotonic()
                theirs = ", ".join(flow for flow, stream in cell.flow_streams.items() if stream == lost)
                # One that never had a flow is a PTP agent's, and missed.
                left = lost in cell.streams_with_flows and not theirs
                cell.streams_with_flows.discard(lost)
                of = f" in the middle of {theirs}" if theirs else ""
                text = f"the QoS stream of {item.host} ended{of}"
                self._event(cell.cell_id, "host_left" if left else "host_lost", text)

    def _note_clocks(self, cell: _Cell, flow: str, reason: str) -> None:
        """Record when a flow's frames begin and cease to count for the round trip alone."""
        if reason == cell.clock_faults.get(flow, ""):
            return
        if reason:
            cell.clock_faults[flow] = reason
            self._complaint(
                cell.cell_id, "clock_fault", f"flow {flow}: frames count for the round trip alone: {reason}"
            )
        else:
            del cell.clock_faults[flow]
            self._complaint(cell.cell_id, "clock_fault_ended", f"flow {flow}: its clocks agree again")

    def _forget_flows(self, cell: _Cell, now: float, wall: int) -> None:
        """Flows whose host has not come back for two control slots are over."""
        patience = 2 * self.config.control.control_slot_s
        for lost in [s for s, since in cell.streams_lost.items() if now - since > patience]:
            del cell.streams_lost[lost]
            theirs = [flow for flow, its in cell.flow_streams.items() if its == lost]
            for flow in theirs:
                del cell.flow_streams[flow]
                cell.clock_faults.pop(flow, None)
                cell.collector.flow_stop(flow, wall)
            if theirs:
                text = f"{', '.join(theirs)}: host {lost[0]} was gone for {patience:g} s"
                self._event(cell.cell_id, "flows_forgotten", text)

    def _check_flow(self, cell_id: str, flow: Flow, service: str) -> None:
        """ValueError for a flow of a slice that the cell does not have; any thread."""
        slices = [s.id for c in self.config.cells if c.id == cell_id for s in c.slices]
        if flow.slice not in slices:
            raise ValueError(
                f"FlowStart of flow {flow.flow!r}: unknown slice {flow.slice!r}; slices: {', '.join(slices)}"
            )

    def _known(self, cell_id: str) -> _Cell:
        try:
            return self._cells[cell_id]
        except KeyError:
            raise ValueError(f"unknown cell {cell_id!r}; cells: {', '.join(self._cells)}") from None

    # ---- operator API (called on the threads of the gRPC server) -------------------------------------------

    def _in_loop(self, call: Callable[[], str]) -> str:
        """Carry out ``call`` on the control thread; ValueError where that does not answer."""
        future: Future[str] = Future()
        self._calls.put((call, future))
        try:
            return future.result(_CALL_TIMEOUT_S)
        except FutureTimeout:
            future.cancel()
            raise ValueError(f"the control loop did not answer within {_CALL_TIMEOUT_S:g} s") from None

    def _answer_calls(self) -> None:
        while True:
            try:
                call, future = self._calls.get_nowait()
            except queue.Empty:
                return
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)

    def state(self) -> ControllerStatus:
        """What the controller is doing now."""
        return ControllerStatus(
            config_path=str(self._config_path or ""),
            run_dir=str(self._run_dir or ""),
            control_slot_s=self.config.control.control_slot_s,
            cells=[self._status(c) for c in self._cells.values()],
        )

    def _status(self, cell: _Cell) -> CellStatus:
        loop, carrier = cell.loop, cell.carrier
        sample = cell.edge.state if cell.edge else None
        return CellStatus(
            cell_id=cell.cell_id,
            connected=cell.connected,
            session=cell.session,
            control_slots=loop.control_slot if loop else 0,
            prb=carrier.n_prb if carrier else 0,
            mode=loop.mode.value if loop else self.config.control.mode,
            last=cell.record,
            reports=cell.reports,
            edge_connected=bool(cell.edge and cell.edge.connected),
            sm_mhz=sample.message.sm_mhz if sample else 0,
            active_flows=cell.collector.active_flows,
        )

    def _chosen(self, cell_id: str) -> list[_Cell]:
        return [self._known(cell_id)] if cell_id else list(self._cells.values())

    def _command(self, cell_id: str, command: Command) -> list[_Cell]:
        """Check a command with every cell that it is for, then give it to all of them."""
        cells = self._chosen(cell_id)
        for cell in cells:
            if cell.loop is None or not cell.connected:
                raise ValueError(f"cell {cell.cell_id} is not under control: its gNB is not connected")
            cell.loop.check(command)
        for cell in cells:
            cell.commands.append(command)
            self._event(cell.cell_id, f"set_{command.kind}", f"{command.value} {command.slice}".strip())
        return cells

    def set_mode(self, cell_id: str, mode: str) -> str:
        """Change the mode at once: the control slot in progress ends here."""

        def call() -> str:
            before = {c.cell_id: c.loop.mode for c in self._chosen(cell_id) if c.loop}
            for cell in self._command(cell_id, Command("mode", mode)):
                if before[cell.cell_id] == mode:
                    continue
                if Mode(mode) in (Mode.RELEASED, Mode.SHADOW):
                    self._release(cell.cell_id)
                    if cell.edge:
                        cell.edge.release()
                cell.next_step = 0.0
            return f"mode {mode}"

        return self._in_loop(call)

    def switch_policy(self, cell_id: str, slice_id: str, policy: str) -> str:
        """Play another policy from the next control slot on; it starts to learn anew."""

        def call() -> str:
            self._command(cell_id, Command("policy", policy, slice_id))
            return f"policy {policy} from the next control slot on"

        return self._in_loop(call)

    def set_budgets(self, cell_id: str, slice_id: str, ul_ms: float, edge_ms: float, dl_ms: float) -> str:
        """Judge by other budgets from the next control slot on."""

        def call() -> str:
            self._command(cell_id, Command("budgets", [ul_ms, edge_ms, dl_ms], slice_id))
            return f"budgets {ul_ms:g} + {edge_ms:g} + {dl_ms:g} ms from the next control slot on"

        return self._in_loop(call)

    def reload(self) -> str:
        """Read the configuration file again; a bad one changes nothing.

        Slices go on learning unless their service, actions or policy have changed. What an operator had set
        stays unless the configuration changes it. Cells, links, security, store and the timing of control
        are read at start alone.
        """

        def call() -> str:
            if not self._config_path:
                raise ValueError("started without a configuration file")
            try:
                new = config_module.load(self._config_path, self._overrides)
            except ConfigError as error:
                self.counters.inc("config_refused_total")
                raise ValueError(f"the configuration stays as it was:\n{error}") from error
            return self._take_over(new)

        return self._in_loop(call)

    def _take_over(self, new: Config) -> str:
        """Everything of ``new`` or nothing of it: all loops are made before the first is exchanged."""
        old = self.config
        fixed = [k for k in ("links", "security", "store") if getattr(old, k) != getattr(new, k)]
        if [c.id for c in old.cells] != [c.id for c in new.cells]:
            fixed.append("cells")
        changes = {k for k, v in new.control.model_dump().items() if v != getattr(old.control, k)}
        fixed += [f"control.{k}" for k in sorted(changes - {"mode"})]
        if fixed:
            raise ValueError(
                f"the configuration stays as it was: {', '.join(fixed)} can change at a restart alone"
            )
        changed = [
            self._cells[after.id]
            for before, after in zip(old.cells, new.cells, strict=True)
            if before != after or changes
        ]
        loops = {c.cell_id: self._make_loop(new, c) for c in changed if c.carrier}
        kept = {
            after.id: {s.id for s in after.slices} - {s.id for s in after.slices if _other_actions(s, before)}
            for before, after in zip(old.cells, new.cells, strict=True)
        }
        self.config = new
        for cell in changed:
            slices = next(c.slices for c in new.cells if c.id == cell.cell_id)
            cell.collector.set_slices([s.id for s in slices])
            state = self._state_of(cell)
            if state:
                same = {n: s for n, s in state["slices"].items() if n in kept[cell.cell_id]}
                state = {**state, "slices": same}
            if cell.cell_id in loops:
                cell.decision = None
                self._install(cell, loops[cell.cell_id], state)
                cell.next_step = 0.0
        return f"reloaded; changed: {', '.join(c.cell_id for c in changed) or 'nothing'}"

    def checkpoint(self) -> str:
        """Write what has been learned to ``checkpoint.json`` in the run folder."""

        def call() -> str:
            if not self._run_dir:
                raise ValueError("there is no run folder to write a checkpoint to")
            states = {c.cell_id: c.loop.to_state() for c in self._cells.values() if c.loop}
            path = self._run_dir / "checkpoint.json"
            try:
                checkpoint.save(path, states)
            except checkpoint.CheckpointError as error:
                raise ValueError(f"checkpoint not written: {error}") from error
            return f"checkpoint of {len(states)} cell(s) in {path}"

        return self._in_loop(call)


_GOOD_NEWS = frozenset(
    {
        "cell_joined",
        "clock_fault_ended",
        "host_left",
        "learning_resumed",
        "set_budgets",
        "set_mode",
        "set_policy",
    }
)


def _learned_in(run_dir: Path) -> dict[str, Any]:
    """What the cells of an earlier run in this folder had learned; StoreError where it cannot be read."""
    if not (run_dir / DATABASE_FILE).exists():
        return {}
    with RunStore.open(run_dir) as earlier:
        return {cell: state for cell in earlier.cells() if (state := earlier.latest_state(cell))}


def _other_actions(s: config_module.SliceModel, before: config_module.CellModel) -> bool:
    """Whether a slice is new or has other actions or another service, so that its learning does not fit."""
    was = next((b for b in before.slices if b.id == s.id), None)
    return was is None or (was.actions, was.service) != (s.actions, s.service)
