"""The controller as a process: threads, links, timers. What is decided, and from what, is in the cells."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from controller.cell import Acted, ControlledCell
from controller.commands import Commands
from controller.config import CellModel, Config
from controller.core.decision import Decision, Settings
from controller.core.observation import Command, Flow
from controller.core.power import gpu_power_saving
from controller.core.ue_rates import UeRates
from controller.fits import FitPool
from controller.handover import Handovers
from controller.journal import Event as JournalEvent
from controller.journal import Journal, log
from controller.links.counters import Counters
from controller.links.edge import EdgeLink
from controller.links.metrics import Metrics
from controller.links.operator import (
    Broadcaster,
    CellStatus,
    ControllerStatus,
    OperatorServer,
    Savings,
    SliceStatus,
)
from controller.links.page import KEPT_DECISIONS, PageServer
from controller.links.qos import QosIngest, QosQueue
from controller.links.ran import RanLink
from controller.links.ran_protocol import (
    CellJoined,
    CellLost,
    CellNotConnected,
    Event,
    QuotaApplied,
    RawReport,
)
from controller.store.lock import Lock
from controller.store.models import ModelStore
from controller.store.recorder import AsyncRunStore
from controller.store.run import DATABASE_FILE, Retention, RunStore, StoreError, lock_folder
from controller.store.summary import Summary
from wire.security import Tls, curve_server, grpc_server_add

_IDLE_POLL_S = 0.05
_FIRST_DECISION_S = 1.0
_HOUR_S = 3600.0
_RELEASE_WAIT_S = 1.0
_HANGS_S = 5.0
"""The control loops do not turn where they have not for so long."""
_ASK_USE_S = 0.2
"""So long before the end of a control slot the gNB is asked what was used in it."""
_STEP_NS = 100_000_000
"""CLOCK_REALTIME that moved so much against the monotonic clock within a turn was set, not disciplined."""
_READ_NS = 10_000_000
"""Two clocks that were read further apart than this say nothing of each other."""


class LiveFace:
    """Acts on a cell through the RAN link, its edge agent and the hosts' streams.

    Quotas and clocks are renewed for ``valid_for_s`` after a decision; settings hold for ``lease_s``.
    """

    def __init__(
        self,
        cell_id: str,
        ran: RanLink,
        edge: EdgeLink | None,
        qos: QosIngest,
        *,
        valid_for_s: float,
        lease_s: float,
    ) -> None:
        self.cell_id = cell_id
        self._qos, self.lease_s = qos, lease_s
        self._flows: set[str] = set()
        self.edge = edge
        self._ran = ran
        self._valid_for_s = valid_for_s

    def act(self, decision: Decision, bindings: Mapping[str, str]) -> Acted:
        """Ask the gNB for the quotas, the edge agent for the clock, the applications for the settings."""
        sequence = 0
        if decision.quotas:
            try:
                sequence = self._ran.set_quota(self.cell_id, decision.quotas, bindings, self._valid_for_s)
            except CellNotConnected:
                log.debug("cell %s went away while it was decided about", self.cell_id)
        else:
            self._release_quotas()
        if self.edge:
            if decision.gpu_mhz:
                self.edge.lock(decision.gpu_mhz, self._valid_for_s)
            else:
                self.edge.release()
        return Acted(sequence, self._set(decision.settings, keep=decision.keeps_settings))

    def _set(self, settings: Settings, *, keep: bool = False) -> Mapping[str, int]:
        """Tell the applications; the flows that had settings and have none any more go to their defaults, or
        ``keep`` them until their lease ends."""
        gone: Settings = {} if keep else {flow: {} for flow in self._flows - settings.keys()}
        if settings:
            sequences = self._qos.set_settings(self.cell_id, {**settings, **gone}, self.lease_s)
            self._flows = settings.keys() | (self._flows if keep else set())
            return {flow: sequence for flow, sequence in sequences.items() if flow in settings}
        if gone:
            self._qos.release_settings(self.cell_id)
            self._flows = set()
        return {}

    def release(self) -> None:
        """Back to all PRBs, the GPU's own clock and the applications' defaults; who is gone gets there when
        the leases end."""
        self._release_quotas()
        self._set({})
        if self.edge:
            self.edge.release()

    def _release_quotas(self) -> None:
        with suppress(CellNotConnected):
            self._ran.release(self.cell_id)


class LastHour:
    """Which control slots of the last hour kept their promise, by cell and slice; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[tuple[str, str], deque[tuple[float, int]]] = {}

    def add(self, record: Mapping[str, Any], now: float) -> None:
        """Take the record of a decision at ``now`` (monotonic seconds)."""
        with self._lock:
            for name, s in record["slices"].items():
                if s["closed"]["busy"] and s["closed"]["met"] is not None:
                    slots = self._slots.setdefault((record["cell"], name), deque())
                    slots.append((now, s["closed"]["met"]))
                    while now - slots[0][0] > _HOUR_S:
                        slots.popleft()

    def of(self, cell: str, now: float) -> dict[str, tuple[int, int]]:
        """Slice -> control slots that were judged, and how many of them kept the promise."""
        with self._lock:
            known = {
                name: [met for at, met in slots if now - at <= _HOUR_S]
                for (of, name), slots in self._slots.items()
                if of == cell
            }
        return {name: (len(met), sum(met)) for name, met in known.items() if met}


@dataclass(slots=True)
class _Live:
    """One cell and its timers, in monotonic seconds."""

    cell: ControlledCell
    face: LiveFace
    reports: int = 0
    decided: float = 0.0
    next_step: float = 0.0
    ask_use_at: float = math.inf
    reported: float | None = None
    leased_until: float | None = None
    rates: UeRates | None = None

    @property
    def edge(self) -> EdgeLink | None:
        """The link to the agent of the GPU that serves the cell."""
        return self.face.edge

    @property
    def heard(self) -> bool:
        """Whether its cell is under control and has reported in this session: until then nobody knows what
        its UEs need, and it keeps all PRBs."""
        return self.cell.controlled and self.reports > 0

    def report_age(self, now: float) -> float | None:
        """Seconds since the session's last MacReport; None where there was none."""
        heard = self.cell.session and self.reports and self.reported
        return max(0.0, now - self.reported) if heard and self.reported else None

    def lease_left(self, now: float) -> float | None:
        """Seconds until the lease of the quotas ends; None where there are none, or nobody has them."""
        held = self.cell.session and self.leased_until is not None
        return max(0.0, self.leased_until - now) if held and self.leased_until is not None else None


class Daemon:
    """The controller of a testbed.

    ``run`` blocks until ``stop`` is set or ``duration_s`` has passed. Everything that touches the control
    loops runs on the thread of ``run``; operators' calls are queued to it and answered when it is done, and
    ``beat`` is called by it once a second.

    Raises where a server's address cannot be bound, an address beyond loopback has no keys, a key is
    missing, or another process records in the run folder (``lock`` is its lock where the caller has it). A
    run folder that refuses to be written is reported and counted; control goes on without it.
    """

    def __init__(
        self,
        config: Config,
        *,
        config_path: Path | None = None,
        overrides: Mapping[str, Any] | None = None,
        run_dir: Path | None = None,
        learned: Mapping[str, Any] | None = None,
        prior: Mapping[str, Any] | None = None,
        beat: Callable[[], None] | None = None,
        step_on_report: bool = False,
        lock: Lock | None = None,
    ) -> None:
        self.config = config
        self._config_path = config_path
        self._beat, self._next_beat = beat, 0.0
        self._real_from_mono = time.time_ns() - time.monotonic_ns()
        self._step_on_report = step_on_report
        self.counters = Counters()
        self.metrics = Metrics(self.counters)
        self.metrics.configured(config.digest)
        self._broadcaster = Broadcaster(
            self.counters, keep=KEPT_DECISIONS if config.links.page.address else 0
        )
        self._last_hour = LastHour()
        self._summary, self._summing = Summary(), threading.Lock()
        self._started = self._turned = time.monotonic()
        self._next_rates = 0.0
        self._shut_down = threading.Event()
        self._reload_due = False  # set by a signal handler, which may take no lock
        self._reloading: threading.Thread | None = None
        self._reload_error = ""
        self._made = 0
        keys = config.security.keys
        tls = Tls(Path(keys), "controller") if keys else None
        self._run_dir = run_dir
        self._store: AsyncRunStore | None = None
        learned = dict(learned or {})
        waiting: dict[str, list[Command]] = {}
        if run_dir:
            if lock is None:
                with suppress(StoreError):  # a folder that refuses: the store says so, and tries again
                    lock = lock_folder(run_dir)
            of_record, waiting = _left_in(run_dir, [c.id for c in config.cells])
            learned.update(of_record)
            self._store = AsyncRunStore(
                run_dir,
                config=config.to_yaml(),
                seed=config.control.seed,
                retention=Retention(max_days=config.store.retain_days),
                counters=self.counters,
                lock=lock,
            )
        self.journal = Journal(self.counters, self._store, decided=self._decided)
        self._ran = RanLink(
            config.links.ran.address,
            curve=curve_server(keys) if keys else None,
            report_period_ms=config.links.ran.report_period_ms,
            lease_s=config.lease_s,
            expected_cells={c.id for c in config.cells},
            counters=self.counters,
        )
        self._qos_queue = QosQueue(counters=self.counters)
        self._ingest = self._new_ingest()
        self._models = ModelStore(run_dir / "models" if run_dir else None)
        self._fits = FitPool(self._models)
        self._handovers = Handovers(self.journal)
        self._cells = {
            c.id: self._new_cell(c, tls, learned.get(c.id), waiting.get(c.id, ()), prior)
            for c in config.cells
        }
        self.commands = Commands(
            config,
            {name: live.cell for name, live in self._cells.items()},
            self.journal,
            state=self.state,
            end_slot=self._end_slot,
            taken_over=self._taken_over,
            alive=self.alive,
            shut_down=self._shut_down.set,
            reloaded=self._reloaded,
            rekeyed=self._ran.set_keys,
            config_path=config_path,
            overrides=overrides,
            run_dir=run_dir,
        )
        self._qos = self._qos_server(config.links.qos.address, tls) if config.links.qos.address else None
        self._operator = (
            OperatorServer(config.links.operator.address, tls, self.commands, self._broadcaster)
            if config.links.operator.address
            else None
        )
        self._metrics_server = (
            self.metrics.serve(config.links.metrics.address, tls) if config.links.metrics.address else None
        )
        self._page = (
            PageServer(config.links.page.address, tls, self.commands, self._broadcaster)
            if config.links.page.address
            else None
        )

    def _qos_server(self, address: str, tls: Tls | None) -> grpc.Server:
        server = self._ingest.server()
        grpc_server_add(server, address, tls, setting="links.qos.address", missing="security.keys")
        return server

    def _new_ingest(self) -> QosIngest:
        qos = self.config.links.qos
        return QosIngest(
            self._qos_queue.put,
            expected_cells={c.id for c in self.config.cells},
            check_flow=self._check_flow,
            tables=self._tables,
            ues=lambda cell_id: self._cells[cell_id].cell.reported_ues,
            max_streams=qos.max_hosts,
            clock_bound_ns=qos.clock_bound_us * 1e3,
            clock_stale_s=qos.clock_stale_s,
            clock_hosts=qos.clock_hosts,
            # A cell forgets them at the end of the control slot in which their time is over.
            away_s=self.config.away_s + self.config.control.control_slot_s,
            counters=self.counters,
            keys=self.config.security.keys,
        )

    def _new_cell(
        self,
        cell: CellModel,
        tls: Tls | None,
        learned: Mapping[str, Any] | None,
        waiting: Sequence[Command],
        prior: Mapping[str, Any] | None,
    ) -> _Live:
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
        face = LiveFace(
            cell.id,
            self._ran,
            edge,
            self._ingest,
            valid_for_s=2.0 * self.config.control.control_slot_s,
            lease_s=_settings_lease_s(self.config),
        )
        controlled = ControlledCell(
            cell.id,
            self.config,
            self.journal,
            face,
            learned=learned,
            waiting=waiting,
            prior=prior,
            models=self._models.get,
            handovers=self._handovers,
        )
        live = _Live(controlled, face)
        self.metrics.watch_cell(cell.id, lambda: self._status(live))
        return live

    # ---- threads and timers -------------------------------------------------------------------------------

    def run(self, stop: threading.Event, duration_s: float | None = None) -> None:
        """Control until told to stop, or an operator shuts it down; then everything is released and the
        record closed."""
        end = time.monotonic() + duration_s if duration_s else math.inf
        try:
            for live in self._cells.values():
                if live.edge:
                    live.edge.start()
            for server in (self._qos, self._operator):
                if server:
                    server.start()
            log.info("listening for %s", self._listening())
            while not (stop.is_set() or self._shut_down.is_set()) and time.monotonic() < end:
                self._turn()
        finally:
            self._close()

    def _listening(self) -> str:
        links = self.config.links
        served = (
            ("gNBs", self._ran.address),
            ("hosts", links.qos.address),
            ("operators", links.operator.address),
            ("Prometheus", links.metrics.address),
            ("browsers", links.page.address),
        )
        return ", ".join(f"{who} on {address}" for who, address in served if address)

    def totals(self) -> dict[str, object]:
        """What is told at the end."""
        counted = {"control_slots": self._made}
        if self._store:
            counted["recorded"] = self.counters.get("store_slots_total")
            counted["lost"] = self._store.lost
        return {**counted, "events": self.counters.get("events_total")}

    def _turn(self) -> None:
        """One turn: what the gNBs sent, what operators asked, what is due."""
        self._turned = now = time.monotonic()
        due = [min(c.next_step, c.ask_use_at) for c in self._cells.values() if c.heard]
        wait = min(_IDLE_POLL_S, max(0.0, min(due, default=now + _IDLE_POLL_S) - now))
        events = self._ran.poll(wait)
        self._watch_clock()  # what follows reads it, and nothing takes so long as what came before
        for event in events:
            self._handle(event)
        self._take_qos()
        self.commands.answer()
        now = time.monotonic()
        for live in self._cells.values():
            if not live.heard:
                continue
            if live.cell.manual_over(now):
                live.next_step = 0.0
            if now >= live.next_step:
                self._step(live)
            elif ended := live.cell.early(time.time_ns()):
                self._step(live, ended)
            elif now >= live.ask_use_at:
                live.ask_use_at = math.inf
                self._ran.renew(live.cell.cell_id)
        if self._reload_due and not (self._reloading and self._reloading.is_alive()):
            self._reload_due = False
            self._reloading = threading.Thread(target=self._reload_now, name="reload", daemon=True)
            self._reloading.start()
        if now >= self._next_rates:
            self._next_rates = now + 1.0
            self._take_rates()
        if self._beat and now >= self._next_beat:
            self._next_beat = now + 1.0
            with suppress(OSError):  # who looks for it will miss it
                self._beat()

    def reload(self) -> None:
        """Read the configuration again soon, as after SIGHUP, and once more where one is being read; may be
        called by a signal handler."""
        self._reload_due = True

    def _reload_now(self) -> None:
        """Not on the control thread, which carries out its last part."""
        try:
            text = self.commands.read_again()
        except ValueError as error:
            self.commands.called("", f"SIGHUP: refused: {error}", True)
        except Exception:
            log.exception("the configuration was not read again")
        else:
            self.commands.called("", f"SIGHUP: {text}", False)

    def _take_rates(self) -> None:
        """Rates of the UEs, from a report a second."""
        for live in self._cells.values():
            if live.rates is not None and (report := live.cell.latest_report()) is not None:
                live.rates.take(report)

    def alive(self) -> bool:
        """Whether the control loops turn; any thread may ask."""
        return time.monotonic() - self._turned < _HANGS_S

    def _watch_clock(self) -> None:
        """Notices where CLOCK_REALTIME was set: it then differs from the monotonic clock as it did not a turn
        ago."""
        before = time.monotonic_ns()
        real, after = time.time_ns(), time.monotonic_ns()
        if after - before > _READ_NS:
            return  # the thread waited between the two readings
        step_ns, self._real_from_mono = real - after - self._real_from_mono, real - after
        if abs(step_ns) > _STEP_NS:
            for live in self._cells.values():
                live.cell.clock_stepped(step_ns, real)

    def _close(self) -> None:
        # In reverse order, and each of them whatever the one before raised: what is left open keeps the
        # process from ending.
        self.commands.close()
        with ExitStack() as last:
            if self._store:
                last.callback(self._store.close)
            for server in (self._metrics_server, self._page, self._operator):
                if server:
                    last.callback(server.close)
            if self._qos:
                last.callback(lambda qos: qos.stop(0.5).wait(), self._qos)
            last.callback(self._fits.close)
            last.callback(self._ran.close)
            for live in self._cells.values():
                if live.edge:
                    last.callback(live.edge.close)
            self._release_all()

    def _release_all(self) -> None:
        """Back to all PRBs everywhere, and a moment for the gNBs to say so."""
        connected = [name for name, live in self._cells.items() if live.cell.session]
        for name in connected:
            self._cells[name].face.release()
        end = time.monotonic() + _RELEASE_WAIT_S
        while any(map(self._ran.unacknowledged, connected)) and time.monotonic() < end:
            self._ran.poll(0.05)
        for name in self._cells:
            if name not in connected:
                told = "its gNB is not connected; a lease that it has ends by itself"
            elif self._ran.unacknowledged(name):
                told = f"released, not acknowledged: its lease ends within {self.config.lease_s:g} s"
            else:
                told = "all PRBs released, acknowledged"
            log.info("cell %s: %s", name, told, extra={"cell": name})

    # ---- links --------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        """One event of the RAN link."""
        live = self._cells[event.cell_id]
        cell = live.cell
        match event:
            case RawReport():
                live.reports += 1
                live.reported = event.received_mono
                cell.report(event.message, time.time_ns())
                if self._step_on_report and cell.controlled:
                    self._step(live)
            case CellJoined():
                live.reports, live.leased_until = 0, None
                live.rates = UeRates(event.facts.scs_khz, event.facts.tdd)
                cell.joined(event.session, event.facts, time.time_ns())
                live.next_step = time.monotonic() + min(self.config.control.control_slot_s, _FIRST_DECISION_S)
            case CellLost():
                live.leased_until = live.rates = None
                cell.lost(event.why)
                live.face.release()
                self.metrics.gone(event.cell_id)
            case _:
                if isinstance(event, QuotaApplied):
                    held = time.monotonic() + self.config.lease_s
                    live.leased_until = held if event.quotas else None
                cell.enforced(event, time.time_ns())

    def _take_qos(self) -> None:
        """What the hosts reported since the last turn."""
        for cell_id, item in self._qos_queue.take():
            try:
                self._cells[cell_id].cell.take(item, time.monotonic())
            except ValueError as error:
                self.journal.repeated(cell_id, JournalEvent.QOS_REFUSED, str(error), "qos_refused_total")

    def _check_flow(self, cell_id: str, flow: Flow, service: str) -> None:
        """ValueError for a flow of a slice that the cell does not have, or of another service; any thread."""
        self.config.service_of(cell_id, flow, service)

    def _tables(self, cell_id: str, flow: Flow) -> Mapping[str, int]:
        """How many columns each table of a flow's service has; any thread."""
        return self.config.tables_of(cell_id, flow)

    # ---- one control slot ---------------------------------------------------------------------------------

    def _step(self, live: _Live, ended: str = "") -> None:
        """Close the control slot, ``ended`` says why where it is before its time, and begin the next one;
        whatever fails here, the daemon goes on."""
        started = time.perf_counter()
        now, wall = time.monotonic(), time.time_ns()
        slot_s = self.config.control.control_slot_s
        on_time = not ended and now - live.next_step < slot_s
        live.next_step = max(live.next_step + slot_s, now) if on_time else now + slot_s
        live.ask_use_at = live.next_step - min(_ASK_USE_S, slot_s / 4)
        cell = live.cell
        cell.fitted(self._fits.take(cell.cell_id))
        try:
            reading = live.edge.reading(live.decided) if live.edge else None
            _, decision = cell.close(wall, reading, now, ended)
        except Exception as error:
            self.journal.failed(
                cell.cell_id, JournalEvent.STEP_FAILED, repr(error), "step_failed_total", trace=True
            )
            return
        live.decided = now
        for name, jobs in decision.jobs.items():
            for job in jobs:
                try:
                    self._fits.submit(cell.cell_id, name, job)
                except Exception as error:
                    text = f"slice {name}: {job.key}: not submitted: {error!r}"
                    self.journal.repeated(cell.cell_id, JournalEvent.FIT_FAILED, text, "fit_failed_total")
        self.metrics.step_seconds(cell.cell_id, time.perf_counter() - started)

    def _decided(self, record: Mapping[str, Any]) -> None:
        self._made += 1
        self._last_hour.add(record, time.monotonic())
        with self._summing:
            self._summary.add(record)
        self._broadcaster.publish(record)
        self.metrics.observe(record)

    # ---- what operators see and ask (on the threads of the gRPC server) -----------------------------------

    def _end_slot(self, cell_id: str) -> None:
        self._cells[cell_id].next_step = 0.0

    def _taken_over(self, config: Config) -> None:
        for before, after in zip(self.config.cells, config.cells, strict=True):
            now = {(s.id, s.service) for s in after.slices}
            for s in before.slices:
                if (s.id, s.service) not in now:
                    self._fits.forget(before.id, s.id)
        if config.lease_s != self.config.lease_s:
            self._ran.set_lease(config.lease_s)
            for live in self._cells.values():
                live.face.lease_s = _settings_lease_s(config)
                if live.edge:
                    live.edge.set_lease(config.lease_s)
        self.config = config
        self.metrics.configured(config.digest)
        if self._store:
            self._store.configured(time.time_ns(), config.to_yaml())

    def _reloaded(self, error: str) -> None:
        self._reload_error = error
        self.metrics.reloaded(not error)

    def _summed(self, cell: ControlledCell) -> tuple[list[SliceStatus], Savings | None]:
        """The slices as they are played, and what was saved, over the control slots of this process."""
        with self._summing:
            summed = self._summary.cell(cell.cell_id)
        slices = summed["slices"] if summed else {}
        status = [
            SliceStatus(
                name,
                service,
                options.to_dict(),
                slices.get(name, {}).get("explored"),
                options.hops,
                options.policies,
            )
            for name, service, options in cell.slices
        ]
        if not summed or summed["avg_gpu_mhz"] is None:
            return status, None
        gpu = gpu_power_saving(summed["avg_gpu_mhz"], max_mhz=summed["max_mhz"]) if summed["max_mhz"] else 0.0
        seconds = (summed["end_ns"] - summed["begin_ns"]) / 1e9
        return status, Savings(seconds, gpu, summed["bs_power_saving"], summed["ue_power_saving"])

    def state(self) -> ControllerStatus:
        """What the controller is doing now."""
        return ControllerStatus(
            config_path=str(self._config_path or ""),
            run_dir=str(self._run_dir or ""),
            control_slot_s=self.config.control.control_slot_s,
            cells=[self._status(live) for live in self._cells.values()],
            store_error=self._store.error if self._store else "",
            store_lost=self._store.lost if self._store else 0,
            config_hash=self.config.digest,
            lease_s=self.config.lease_s,
            up_s=time.monotonic() - self._started,
            reload_error=self._reload_error,
        )

    def _status(self, live: _Live) -> CellStatus:
        cell = live.cell
        loop, carrier = cell.loop, cell.carrier
        slices, savings = self._summed(cell)
        sample = live.edge.state if live.edge else None
        now = time.monotonic()  # after what it is compared with: no age is negative
        watts = sample is not None and sample.message.HasField("power_w")
        return CellStatus(
            cell_id=cell.cell_id,
            connected=cell.session != 0,
            session=cell.session,
            control_slots=loop.control_slot if loop else 0,
            prb=carrier.n_prb if carrier else 0,
            mode=loop.mode.value if loop else self.config.control.mode,
            last=cell.record,
            reports=live.reports,
            edge_connected=bool(live.edge and live.edge.connected),
            sm_mhz=sample.message.sm_mhz if sample else 0,
            active_flows=cell.active_flows,
            clocks=self._ingest.clocks(cell.cell_id),
            manual=[(name, quota, max(0.0, end - now)) for name, (quota, end) in cell.manual.items()],
            report_age_s=live.report_age(now),
            lease_left_s=live.lease_left(now),
            not_controlled=cell.not_controlled,
            qos=self._last_hour.of(cell.cell_id, now),
            hosts=self._ingest.hosts(cell.cell_id),
            edge_configured=live.edge is not None,
            gpu_age_s=now - sample.received_mono if sample else None,
            report=cell.latest_report(),
            rates={} if live.rates is None else live.rates.latest,
            slices=slices,
            savings=savings,
            gpu_power_w=sample.message.power_w if sample and watts else None,
            gpu_max_mhz=next(c.max_mhz for c in self.config.cells if c.id == cell.cell_id),
        )


def _settings_lease_s(config: Config) -> float:
    """Settings go out with a decision, and are not renewed within a control slot."""
    return max(config.lease_s, 2.0 * config.control.control_slot_s)


def _left_in(run_dir: Path, cells: Sequence[str]) -> tuple[dict[str, Any], dict[str, list[Command]]]:
    """What the cells of an earlier run in this folder had learned, and what operators had asked of them that
    was not done yet; StoreError where it cannot be read."""
    if not (run_dir / DATABASE_FILE).exists():
        return {}, {}
    with RunStore.open(run_dir) as earlier:
        learned = {cell: state for cell in cells if (state := earlier.latest_state(cell))}
        waiting = {cell: earlier.waiting(cell) for cell in cells}
    if not learned:
        log.warning("run record %s holds no control slot: every cell learns from the beginning", run_dir)
    return learned, waiting
