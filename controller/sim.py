"""Joins cells under control and emulated testbeds on a virtual clock: days of testbed time in minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from agents.emulator.testbed import EmulatedTestbed
from agents.emulator.warmup import warm_up
from controller.cell import Acted, ControlledCell
from controller.config import Config
from controller.core.decision import Decision, Grant, Settings, SliceDemand, Want
from controller.core.fits import Fit
from controller.core.measure import Reason
from controller.core.observation import Flow, GpuReading, Observation
from controller.fits import run_now
from controller.handover import Handovers
from controller.journal import Journal, Store
from controller.links import codec
from controller.links.qos import FlowBegin, QosItem
from controller.links.ran_protocol import QuotaApplied, QuotaNotHonoured
from controller.loop import ControlLoop
from controller.scenario import SCS_KHZ, TraceUse, all_trace_uses, cell_seed, control_slots, testbed_spec
from controller.store.models import ModelStore
from controller.store.summary import Allocation, Summary
from wire import ran_pb2
from wire.definitions.nr import SLOT_NS

EPOCH_NS = 1_767_225_600_000_000_000
"""2026-01-01: when a virtual run begins, so that its record is the same every time."""

FRAMES_KEPT_NR_SLOTS = 20_000
"""NR slots (10 s) after which frames are taken from the cell, which forgets those of half a minute ago."""

_HOST = "emulator"
_SESSION = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave. ``wall_s`` leaves out compilation, warm-up and construction."""

    summary: dict[str, Any]
    control_slots: int
    simulated_s: float
    wall_s: float
    channel: tuple[TraceUse, ...] = ()
    """Where each UE was in a measured channel, cell after cell."""


OnSlot = Callable[[Observation, Decision, ControlLoop], None]


class Observer(Protocol):
    """Sees what a cell hears of its users, and how far the cell is at times of its own choice."""

    @property
    def next_nr_slot(self) -> int:
        """When it looks next, in NR slots from the start."""

    def take(self, item: QosItem) -> None:
        """What the cell is told, just before it is."""

    def look(self, time_ns: int) -> None:
        """The cell is at ``next_nr_slot`` (``time_ns``), and has been told all that there is until then."""


def run(
    config: Config,
    seed: int,
    *,
    on_slot: OnSlot | None = None,
    duration_s: float | None = None,
    plan: Sequence[Allocation] | None = None,
    store: Store | None = None,
    models: ModelStore | None = None,
    prior: Mapping[str, Any] | None = None,
    observe: Callable[[str], Observer] | None = None,
) -> Result:
    """Run a scenario on the virtual clock.

    ``on_slot`` sees every control slot as it is decided, cell after cell; ``store`` records it. Deterministic
    under ``seed``: schedule, channel and traffic are the same whatever is allocated. With a ``plan`` the n-th
    control slot runs under its n-th allocation in place of what the policy chose, and no MAC report is taken,
    as no state is needed.

    Fits are computed at the end of the control slot that asked for them, and seen at the next one's;
    ``models`` keeps their results (None: in memory). ``prior`` is the state of a control loop that every
    cell's begins with (:meth:`ControlLoop.take_over`). ``observe`` gives the observer of a cell by its id;
    the run is the same with it.

    The cells share one edge: its clock is the highest that any of them wishes. Each has a GPU queue to
    itself.

    ValueError for a configuration that cannot be emulated, a duration outside the scenario and a plan that
    is shorter than the run or for more than one slice.
    """
    n_slots = control_slots(config, duration_s)
    specs = {c.id: testbed_spec(config, seed, c.id) for c in config.cells}
    slot_s = config.control.control_slot_s
    if plan is not None and len(plan) < n_slots:
        raise ValueError(f"a plan of {len(plan)} control slots for a run of {n_slots}")
    if plan is not None and (len(config.cells) != 1 or len(config.cells[0].slices) != 1):
        raise ValueError("a plan is for a cell of one slice")
    models = models or ModelStore(None)
    warm_up()
    beds = {
        name: EmulatedTestbed(spec, seed=cell_seed(config, name, seed), epoch_ns=EPOCH_NS)
        for name, spec in specs.items()
    }
    summary = Summary()
    first = next(iter(beds.values()))
    journal = Journal(store=store, decided=summary.add, happened=summary.add_event, time_ns=first.time_ns)
    edge = VirtualEdge(max(c.max_mhz for c in config.cells))
    handovers = Handovers(journal)
    cells = [
        VirtualCell(
            bed, config, journal, edge, models, handovers, plan, prior, observe(name) if observe else None
        )
        for name, bed in beds.items()
    ]
    started = time.perf_counter()
    end = int(n_slots * slot_s * 1e9 / SLOT_NS)
    until = 0
    while until <= end:
        for cell in cells:
            cell.advance(until)
        closing = {cell: why for cell in cells if (why := cell.ends(last=until == end)) is not None}
        for cell, why in closing.items():
            observation, decision = cell.close(why)
            if on_slot:
                on_slot(observation, decision, cell.loop)
        if closing:
            for cell in cells:
                cell.set_clock()
        until = max(until + 1, min(end, *(cell.next_look for cell in cells))) if until < end else end + 1
    wall_s = time.perf_counter() - started
    return Result(summary.result(), n_slots, n_slots * slot_s, wall_s, all_trace_uses(config, seed))


class VirtualEdge:
    """The clock of the edge's GPU: the highest that any cell has locked, its maximum without a lock."""

    def __init__(self, max_mhz: int) -> None:
        self._max_mhz = max_mhz
        self._locks: dict[str, int] = {}

    def lock(self, cell: str, mhz: int | None) -> None:
        """One cell's wish; None takes it back."""
        self._locks.pop(cell, None)
        if mhz:
            self._locks[cell] = mhz

    @property
    def mhz(self) -> int:
        return max(self._locks.values(), default=self._max_mhz)


class VirtualCell:
    """A cell under control on an emulated testbed: the virtual clock, and the face that acts."""

    def __init__(
        self,
        bed: EmulatedTestbed,
        config: Config,
        journal: Journal,
        edge: VirtualEdge,
        models: ModelStore,
        handovers: Handovers,
        plan: Sequence[Allocation] | None = None,
        prior: Mapping[str, Any] | None = None,
        observer: Observer | None = None,
    ) -> None:
        spec = bed.spec
        self._bed, self._plan, self._edge, self._observer = bed, plan, edge, observer
        self._config, self._models = config, models
        self._settings: dict[str, Mapping[str, tuple[float, ...]]] = {}
        self._sequences: dict[str, int] = {}
        self._answer: codec.SettingsApplied | None = None
        self._jobs: set[tuple[str, str]] = set()
        self._fits: list[Fit] = []
        self._tables: dict[str, Mapping[str, int]] = {}
        cell_id = spec.cell.cell_id
        if plan is None:
            self._cell = ControlledCell(
                cell_id, config, journal, self, prior=prior, models=models.get, handovers=handovers
            )
        else:
            self._cell = _PlannedCell(cell_id, config, journal, self, plan)
        self._step = (
            round(config.control.subinterval_ms * 1e6 / SLOT_NS) if plan is None else FRAMES_KEPT_NR_SLOTS
        )
        self._slot_s = config.control.control_slot_s
        self._base, self._slots = 0, 0
        self._max_mhz = spec.edge.max_mhz
        facts = codec.CellFacts(
            cell_id, spec.cell.n_prb, SCS_KHZ, spec.cell.tdd, min_prb=spec.cell.min_grant_prb
        )
        self._cell.joined(_SESSION, facts, bed.time_ns())
        if not self._cell.controlled:
            # Raises what the cell could not be controlled for.
            self._cell.loop_for(config)
        self._events = plan is None and self.loop.spec.events is not None

    @property
    def loop(self) -> ControlLoop:
        """The cell's control loop."""
        loop = self._cell.loop
        assert loop is not None
        return loop

    def _run(self, until_nr_slot: int) -> None:
        """Let the cell run, and the observer look where its time comes."""
        while self._observer is not None and (due := self._observer.next_nr_slot) <= until_nr_slot:
            self._bed.advance(due)
            self._flows_and_frames()
            self._observer.look(self._bed.time_ns())
        self._bed.advance(until_nr_slot)

    def _take(self, item: QosItem, now: float) -> None:
        if self._observer is not None:
            self._observer.take(item)
        self._cell.take(item, now)

    def advance(self, until_nr_slot: int) -> None:
        """Let the cell run to an NR slot, and hand on what happens until there."""
        bed = self._bed
        taken = bed.nr_slot
        while bed.nr_slot < until_nr_slot:
            self._run(min(bed.nr_slot + self._step, until_nr_slot))
            if self._plan is None:
                report = bed.mac_report()
                self._cell.report(report, report.time_ns)
            if bed.nr_slot - taken >= FRAMES_KEPT_NR_SLOTS:
                self._flows_and_frames()
                taken = bed.nr_slot
        self._flows_and_frames()

    @property
    def _due(self) -> int:
        """The NR slot at which the control slot has lasted its time."""
        return self._base + int(self._slots * self._slot_s * 1e9 / SLOT_NS)

    @property
    def next_look(self) -> int:
        """The next NR slot at which the control slot may end."""
        return min(self._due, self._bed.nr_slot + self._step) if self._events else self._due

    def ends(self, *, last: bool) -> str | None:
        """Why the control slot ends here before its time, "" where its time (or the ``last``) has come; None
        where it goes on."""
        if last or self._bed.nr_slot >= self._due:
            return ""
        return (self._cell.early(self._bed.time_ns()) or None) if self._events else None

    def close(self, ended: str = "") -> tuple[Observation, Decision]:
        """Close the control slot here and put the next decision's quotas in force."""
        if ended:
            self._base, self._slots = self._bed.nr_slot, 0
        self._slots += 1
        now = self._bed.time_ns()
        self._enforcement(now)
        self._cell.fitted(self._fits)
        observation, decision = self._cell.close(now, self._gpu(), now / 1e9, ended)
        self._applied(now, (), first=True)
        if self._answer is not None:
            self._cell.take(self._answer, now / 1e9)
        self._fits = self._fit(decision)
        return observation, decision

    def _fit(self, decision: Decision) -> list[Fit]:
        fits = []
        for name, jobs in decision.jobs.items():
            for job in jobs:
                if (name, job.key) not in self._jobs:
                    self._jobs.add((name, job.key))
                    fit, data = run_now(name, job)
                    if not fit.error:
                        self._models.put(data)
                    fits.append(fit)
        return fits

    def set_clock(self) -> None:
        """Put the edge's clock in force."""
        self._bed.set_gpu_mhz(min(self._edge.mhz, self._max_mhz))

    # ---- the face -----------------------------------------------------------------------------------------

    def act(self, decision: Decision, bindings: Mapping[str, str]) -> Acted:
        self._bed.set_quotas(decision.quotas, bindings)
        self._edge.lock(self._cell.cell_id, decision.gpu_mhz)
        return Acted(
            decision.control_slot,
            self._set(decision.settings, decision.control_slot, keep=decision.keeps_settings),
        )

    def _set(self, settings: Settings, sequence: int, *, keep: bool = False) -> Mapping[str, int]:
        """Tell the applications what has changed; what is not set any more goes back to its default, unless
        it is to ``keep`` what it has."""
        changed = {flow: of for flow, of in settings.items() if self._settings.get(flow) != of}
        if not keep:
            changed |= {flow: {} for flow in self._settings.keys() - settings.keys()}
        self._answer = None
        if changed:
            refused = ""
            try:
                self._bed.apply(changed)
            except ValueError as error:
                refused = str(error)
            else:
                self._settings = {**(self._settings if keep else {}), **settings}
            self._sequences |= dict.fromkeys(changed, sequence)
            self._answer = codec.SettingsApplied(
                _HOST, 0, tuple(changed), sequence, self._bed.time_ns(), refused
            )
        return {flow: self._sequences[flow] for flow in settings}

    def release(self) -> None:
        self._bed.set_quotas({}, {})
        self._edge.lock(self._cell.cell_id, None)
        self._set({}, 0)

    # ---- what gNB, edge agent and hosts would say ---------------------------------------------------------

    def _gpu(self) -> GpuReading:
        decision = self._cell.decision
        wanted = (decision.gpu_mhz if decision else None) or self._max_mhz
        mhz = min(self._edge.mhz, self._max_mhz)
        # As an edge agent says it where another holder's higher clock wins.
        return GpuReading(mhz, None if mhz == wanted else Reason.CLOCK_RAISED)

    def _enforcement(self, now_ns: int) -> None:
        uses = self._bed.slice_use()
        decision = self._cell.decision
        if decision is None:
            return
        self._applied(now_ns, uses)
        for use in uses:
            i = 0 if use.direction == ran_pb2.UL else 1
            quota = decision.quotas.get(use.slice)
            if quota is not None and use.max_new_prb > quota[i]:
                direction = "ul" if i == 0 else "dl"
                event = QuotaNotHonoured(
                    self._cell.cell_id, use.slice, direction, quota[i], use.max_new_prb, decision.control_slot
                )
                self._cell.enforced(event, now_ns)

    def _applied(self, now_ns: int, uses: Sequence[ran_pb2.SliceUse], *, first: bool = False) -> None:
        decision = self._cell.decision
        quotas = decision.quotas if decision else {}
        sequence = decision.control_slot if decision else 0
        message = ran_pb2.Applied(session=_SESSION, sequence=sequence, time_ns=now_ns, use=uses)
        self._cell.enforced(QuotaApplied(self._cell.cell_id, sequence, message, first, quotas), now_ns)

    def _flows_and_frames(self) -> None:
        bed = self._bed
        infos = bed.flows
        now = bed.time_ns() / 1e9
        for event in bed.take_flow_events():
            info = infos[event.flow]
            if not info.announced:
                continue
            if event.kind == "start":
                slice_ = self._cell.bindings.get(info.ue_id, "")
                flow = Flow(info.flow, info.ue_id, slice_, info.ul_bps, info.dl_bps, event.time_ns)
                if slice_:
                    self._config.service_of(self._cell.cell_id, flow, info.service)
                    self._tables[info.flow] = self._config.tables_of(self._cell.cell_id, flow)
                self._take(FlowBegin(_HOST, flow), now)
            else:
                self._take(codec.FlowEnd(info.flow, event.time_ns), now)
        updates = bed.take_frames()
        columns = np.stack(
            (
                updates.sequence,
                updates.ue_sent,
                updates.edge_received,
                updates.edge_sent,
                updates.ue_received,
            ),
            axis=1,
        )
        synchronised = bed.spec.clocks_synchronised
        if not synchronised:
            # The edge's clock is another one than the UE's: what it told means nothing beside theirs.
            columns[:, 2:4] = 0
        for index in np.unique(updates.flow):
            batch = codec.FrameBatch(infos[index].flow, columns[updates.flow == index], synchronised, 0)
            self._take(batch, now)
        for rows in bed.take_samples():
            name = infos[rows.flow].flow
            tables = self._tables.get(name)
            if tables is not None and tables.get(rows.table) != rows.values.shape[1]:
                raise ValueError(
                    f"flow {name!r}: table {rows.table!r} of {rows.values.shape[1]} columns;"
                    f" its service has {dict(tables)}"
                )
            values = rows.values.astype(np.float32)
            self._take(codec.SampleBatch(name, rows.table, rows.time_ns, values, bed.time_ns()), now)


class _PlannedCell(ControlledCell):
    """A cell whose allocations are given in place of what its loop decides."""

    def __init__(
        self, cell_id: str, config: Config, journal: Journal, face: VirtualCell, plan: Sequence[Allocation]
    ) -> None:
        super().__init__(cell_id, config, journal, face)
        self._plan = plan

    def _note_rescue(self, record: Mapping[str, Any]) -> None:
        """Nothing: what the loop makes of slots without a report is not played."""

    def _note_ues(self, observation: Observation) -> None:
        """Nothing, for there are no reports."""

    def _decide(self, loop: ControlLoop, observation: Observation) -> Decision:
        decision = super()._decide(loop, observation)
        # The decision after the last control slot is never in force.
        a = self._plan[min(decision.control_slot - 1, len(self._plan) - 1)]
        (only,) = decision.slices
        demand = SliceDemand(Want(a.ul_prb), Want(a.dl_prb), a.gpu_mhz)
        grant = Grant(a.ul_prb, a.dl_prb, a.gpu_mhz)
        return replace(
            decision,
            quotas={only.slice: (a.ul_prb, a.dl_prb)},
            gpu_mhz=a.gpu_mhz,
            slices=(replace(only, demand=demand, grant=grant),),
        )
