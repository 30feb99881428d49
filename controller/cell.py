"""One cell under control: the same object behind the live links and behind the virtual clock.

No socket and no clock: times come in. Whoever drives it (:mod:`controller.daemon`, :mod:`controller.sim`)
hands over what the gNB and the hosts said, closes the control slots, and puts the decisions in force.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from controller.allocators.base import Options, no_models
from controller.config import CellModel, Config
from controller.core import attachment, rescue
from controller.core.collector import SlotCollector
from controller.core.decision import Decision, ManualQuota
from controller.core.fits import Fit
from controller.core.measure import Reason
from controller.core.observation import (
    AppliedSettings,
    ClockReport,
    Command,
    Enforcement,
    Flow,
    GpuReading,
    MacReport,
    Mode,
    Observation,
)
from controller.handover import Handovers
from controller.journal import Event, Journal
from controller.links import codec
from controller.links.qos import FlowBegin, HostLost, QosItem
from controller.links.ran_protocol import LeaseLapsed, QuotaApplied, QuotaNotHonoured
from controller.loop import ControlLoop, Models
from controller.streams import Stream, Streams
from wire import ran_pb2

MAX_UES_NAMED = 1000
"""Characters of the UEs that an event names."""


@dataclass(frozen=True, slots=True)
class Away:
    """There is no session with the gNB. ``carrier`` and ``loop`` are those of the last one, if any."""

    carrier: codec.CellFacts | None = None
    loop: ControlLoop | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """A session with a carrier that the configuration does not fit: the cell is left alone."""

    session: int
    carrier: codec.CellFacts


@dataclass(frozen=True, slots=True)
class Controlled:
    """A session under a control loop."""

    session: int
    carrier: codec.CellFacts
    loop: ControlLoop


State = Away | Joined | Controlled


@dataclass(frozen=True, slots=True)
class Acted:
    """Sequences of what went out: of the quotas (0: there were none), and of each flow's settings.

    :meth:`ControlledCell.enforced` and the answers of the applications speak of these.
    """

    quotas: int = 0
    settings: Mapping[str, int] = field(default_factory=dict)


class Face(Protocol):
    """What acts: the live links, or the emulated testbed."""

    def act(self, decision: Decision, bindings: Mapping[str, str]) -> Acted:
        """Put a decision in force."""

    def release(self) -> None:
        """All resources to everybody; nothing happens where nobody is there."""


class ControlledCell:
    """One cell, its control loop, and what is known of the control slot in progress.

    Transitions of :attr:`state`::

        Away                --joined, the configuration fits-->       Controlled
        Away                --joined, it does not-->                  Joined
        Joined, Controlled  --joined (the gNB begins a new session)-> as from Away
        Joined, Controlled  --lost-->                                 Away
        Joined              --install (a configuration that fits)-->  Controlled
        Controlled, Away    --install-->                              the same, with the new loop

    A loop outlives the sessions of its cell while the carrier stays the same. What was learned is kept
    through everything else as the loop's state.

    ``handovers`` connects the cells of a controller: what another one knows of a flow that begins here is in
    the next observation. ``waiting`` is what operators had asked for of the controller before this one: it
    is done at the first control slot, but for quotas by hand, which are for the time at which they were set.

    UEs that are bound to no slice, and their flows, are background traffic: they have no quota, take what is
    left, and nobody judges them.
    """

    def __init__(
        self,
        cell_id: str,
        config: Config,
        journal: Journal,
        face: Face,
        *,
        learned: Mapping[str, Any] | None = None,
        waiting: Sequence[Command] = (),
        prior: Mapping[str, Any] | None = None,
        models: Models = no_models,
        handovers: Handovers | None = None,
    ) -> None:
        self.cell_id = cell_id
        self.face = face
        self.journal = journal
        self.state: State = Away()
        self.commands = [c for c in waiting if c.kind != "quota"]
        self._resumed = bool(self.commands)
        self.decision: Decision | None = None
        """The decision in force; None where none is known to be."""
        self.record: Mapping[str, Any] | None = None
        """The latest decision, as it is recorded."""
        self.bindings: dict[str, str] = {}
        """UE id -> slice."""
        self._config = config
        model = _model(config, cell_id)
        self._collector = SlotCollector([s.id for s in model.slices])
        self._streams = Streams(config.away_s)
        self._guard_ns = int(config.control.guard_ms * 1e6)
        self._subinterval_ns = int(config.control.subinterval_ms * 1e6)
        self._background: dict[str, Stream] = {}
        self._clock_faults: dict[str, str] = {}
        self._reports: dict[int, tuple[int, ran_pb2.MacReport]] = {}
        self._latest: ran_pb2.MacReport | None = None
        self._opened_reports: dict[int, tuple[int, MacReport | None]] = {}
        self._asked: int | None = None
        self._decided_ns = 0
        self._acknowledged_ns = 0
        self._acted = Acted()
        self._applied: dict[str, codec.SettingsApplied] = {}
        self._fits: list[Fit] = []
        self._arrivals: dict[str, Mapping[str, Any]] = {}
        self._reasons: dict[str, Reason] = {}
        self._used: dict[str, list[int | None]] = {}
        self._learned: Mapping[str, Any] | None = learned
        self._prior = prior
        self._models = models
        self._rescued: dict[str, frozenset[str]] = {}
        self._strayed: dict[str, tuple[Event, str | None]] = {}
        self._manual_until: dict[str, float] = {}
        self._misfit = ""
        self._resume: Mapping[str, Any] | None = None
        self._handovers = handovers or Handovers(journal)
        self._handovers.add(self)

    # ---- sessions and configurations ----------------------------------------------------------------------

    @property
    def session(self) -> int:
        """The number of the session; 0 where there is none."""
        return 0 if isinstance(self.state, Away) else self.state.session

    @property
    def carrier(self) -> codec.CellFacts | None:
        """The carrier that the gNB reported last."""
        return self.state.carrier

    @property
    def loop(self) -> ControlLoop | None:
        """The loop that controls the cell, or did when it was there last."""
        return None if isinstance(self.state, Joined) else self.state.loop

    @property
    def controlled(self) -> bool:
        """Whether there is a session under a control loop."""
        return isinstance(self.state, Controlled)

    @property
    def not_controlled(self) -> str:
        """Why a cell that is connected is left alone; "" where it is not."""
        return self._misfit if isinstance(self.state, Joined) else ""

    @property
    def slices(self) -> Sequence[tuple[str, str, Options]]:
        """Name, service and options of the slices, as operators have set them; before there is a control loop
        as they are configured. Any thread may ask."""
        loop = self.loop
        if loop is not None:
            return loop.played
        return [(s.id, s.service, s.options) for s in _model(self._config, self.cell_id).slices]

    @property
    def control_slot(self) -> int:
        """The control slot in progress, or the one from which the cell goes on when it is back."""
        return self.loop.control_slot if self.loop else int((self._learned or {}).get("control_slot", 0))

    def ask(self, command: Command) -> None:
        """Carry a command out at the next control slot; :meth:`check` says whether that can be."""
        if command.kind == "mode" and not self.controlled:  # which may be long: the last one counts
            self.commands = [c for c in self.commands if c.kind != "mode"]
        if command.kind != "mode" or command not in self.commands[-1:]:
            self.commands.append(command)

    @property
    def active_flows(self) -> int:
        """Flows of slices that have not stopped; any thread may ask."""
        return self._collector.active_flows

    @property
    def reported_flows(self) -> tuple[str, ...]:
        """Flows that a host's stream has started and not ended."""
        return self._streams.flows

    @property
    def learned(self) -> Mapping[str, Any] | None:
        """What a new loop would go on from: the state of the one that there is, else the last known."""
        return self.loop.to_state() if self.loop else self._learned

    @property
    def reported_ues(self) -> tuple[tuple[str, str], ...] | None:
        """UE id and slice ("" for none) of the UEs in the session's last report; None before there is one.
        Any thread may ask."""
        message, bound = self._latest, self.bindings
        return (
            None
            if message is None
            else tuple((u.ue_id, u.slice or bound.get(u.ue_id, "")) for u in message.ues)
        )

    def latest_report(self) -> MacReport | None:
        """The session's last report; None before there is one that can be used. Any thread may ask."""
        message, carrier = self._latest, self.carrier
        if message is None or carrier is None:
            return None
        try:
            report, _ = codec.open_report(message, carrier)
        except codec.BadReport:
            return None
        return self._bound(report)

    def joined(self, session: int, carrier: codec.CellFacts, now_ns: int) -> None:
        """The gNB has a new session; what was gathered before it is of no use any more."""
        self._decision_over()
        self._acknowledged_ns, self._decided_ns = 0, now_ns
        self._reports.clear()
        self._latest = None
        self._collector.restart(now_ns)
        self.journal.event(self.cell_id, Event.CELL_JOINED, f"session {session}, {carrier}")
        loop = self.loop
        if loop is not None and self.carrier == carrier:
            self.state = Controlled(session, carrier, loop)
            return
        learned = self.learned
        self.state = Joined(session, carrier)
        self._note_manual("the gNB has another carrier")
        try:
            new = self.loop_for(self._config)
        except ValueError as error:
            self._learned, self._misfit = learned, str(error)
            self.journal.count("config_refused_total", self.cell_id)
            self.journal.event(self.cell_id, Event.NOT_CONTROLLED, str(error))
            return
        assert new is not None  # has a carrier
        self._drop_commands(learned if self._install(new, learned) else None)
        for command in self.commands if self._resumed else ():
            text = f"{command.kind} {json.dumps(command.value)} {command.slice}".strip()
            self.journal.event(self.cell_id, Event.COMMAND_RESUMED, text)
        self._resumed = False

    def lost(self, why: str) -> None:
        """The session is over."""
        self.journal.event(self.cell_id, Event.CELL_LOST, why)
        # A quota is for the time from now on, not for whenever the gNB comes back.
        for command in self.commands:
            if command.kind == "quota":
                text = f"slice {command.slice}: a quota by hand that was not in force yet"
                self.journal.event(self.cell_id, Event.COMMAND_DROPPED, text)
        self.commands = [c for c in self.commands if c.kind != "quota"]
        self.state = Away(self.carrier, self.loop)
        self._latest = None
        self._decision_over()

    def loop_for(self, config: Config) -> ControlLoop | None:
        """A new control loop for the cell's carrier; None before it has reported one.

        ValueError where ``config`` does not fit the carrier.
        """
        c = self.carrier
        if c is None:
            return None
        spec = config.loop_spec(self.cell_id, c.n_prb, c.scs_khz, c.tdd, c.min_prb)
        return ControlLoop(spec, self._models)

    def configure(self, config: Config, loop: ControlLoop | None) -> None:
        """Go on under another configuration; ``loop`` is what :meth:`loop_for` made of it."""
        model = _model(config, self.cell_id)
        learned = self.learned
        self._config = config
        self._collector.set_slices([s.id for s in model.slices])
        if loop is not None:
            self._decision_over()
            self._drop_commands(learned if self._install(loop, learned) else None)
        self._note_manual("the configuration was read again")

    def _drop_commands(self, before: Mapping[str, Any] | None) -> None:
        """Commands that wait are dropped where they cannot be carried out any more, or the configuration has
        changed, since the state ``before``, what they are about."""
        loop = self.loop
        assert loop is not None
        waiting, self.commands = self.commands, []
        for command in waiting:
            try:
                loop.check(command, self.commands)
                if before and (what := loop.overtaken(command, before)):
                    raise ValueError(f"{command.kind} {command.slice}: the configuration has changed {what}")
            except ValueError as error:
                self.journal.event(self.cell_id, Event.COMMAND_DROPPED, str(error))
            else:
                self.commands.append(command)

    def _install(self, loop: ControlLoop, state: Mapping[str, Any] | None) -> bool:
        """Let ``loop`` control the cell, going on from ``state`` where that fits; tells whether it does."""
        fits = False
        if state:
            try:
                anew = loop.load_state(state)
                fits = True
                where = f"at control slot {loop.control_slot}, mode {loop.mode}"
                self.journal.event(self.cell_id, Event.LEARNING_RESUMED, where)
                if anew:
                    why = loop.load_failures
                    names = (f"{name} ({why[name]})" if name in why else name for name in anew)
                    text = f"slices that start anew: {', '.join(names)}"
                    self.journal.event(self.cell_id, Event.LEARNING_RESTARTED, text)
            except ValueError as error:
                self.journal.event(self.cell_id, Event.LEARNING_RESTARTED, str(error))
        elif self._prior is not None:
            try:
                refused = loop.take_over(self._prior).items()
                text = "; ".join(f"slice {name} begins from nothing: {why}" for name, why in refused)
                self.journal.event(self.cell_id, Event.LEARNING_TAKEN_OVER, text or "by every slice")
            except ValueError as error:
                self.journal.event(self.cell_id, Event.LEARNING_RESTARTED, str(error))
        match self.state:
            case Away(carrier):
                self.state = Away(carrier, loop)
            case Joined(session, carrier) | Controlled(session, carrier):
                self.state = Controlled(session, carrier, loop)
        self.bindings = {ue: s.slice for s in loop.spec.slices for ue in s.ues}
        self._collector.bound = frozenset(self.bindings)
        self._resume = loop.to_state()
        self.journal.start(self.cell_id, loop.spec.to_dict(), self._resume)
        return fits

    def _decision_over(self) -> None:
        """What is in force is not known any more."""
        self.decision = None
        self._reasons.clear()
        self._used.clear()

    def clock_stepped(self, step_ns: int, now_ns: int) -> None:
        """CLOCK_REALTIME was set by ``step_ns`` and is ``now_ns``; all that is known of the control slot so
        far moves along, and what came since no further than now."""
        self._decided_ns = min(self._decided_ns + step_ns, now_ns)
        self._acknowledged_ns = self._acknowledged_ns and min(self._acknowledged_ns + step_ns, now_ns)
        reports, self._reports = self._reports, {}
        for received_ns, message in reports.values():
            moved = min(received_ns + step_ns, now_ns)
            self._reports[(moved - 1) // self._subinterval_ns] = moved, message
        self._applied = {f: replace(a, time_ns=a.time_ns + step_ns) for f, a in self._applied.items()}
        self._collector.shift(step_ns, now_ns)
        text = f"CLOCK_REALTIME was set by {step_ns / 1e9:+.3f} s; flows, frames and reports move along"
        self.journal.count("clock_steps_total", self.cell_id)
        self.journal.repeated(self.cell_id, Event.CLOCK_STEPPED, text)

    # ---- what the gNB says --------------------------------------------------------------------------------

    def report(self, message: ran_pb2.MacReport, received_ns: int) -> None:
        """Keep a report, unopened, as its state sub-interval's last.

        Its place is the time at which it came: the gNB's clock need not agree with the controller's. One that
        comes at the end of a sub-interval is of that, not of the next.
        """
        self._latest = message
        if self.controlled:
            self._reports[(received_ns - 1) // self._subinterval_ns] = received_ns, message

    def enforced(self, event: QuotaApplied | QuotaNotHonoured | LeaseLapsed, now_ns: int) -> None:
        """What became of the quotas that were asked for."""
        match event:
            case QuotaApplied():
                if event.first:
                    self._acknowledged_ns = now_ns
                    return  # its use is that of the slot before
                for use in event.message.use:
                    used = self._used.setdefault(use.slice, [None, None])
                    i = 0 if use.direction == ran_pb2.UL else 1
                    used[i] = max(used[i] or 0, use.max_new_prb)
            case QuotaNotHonoured():
                if event.sequence >= self._acted.quotas:  # else it is about the slot before
                    self._reasons[event.slice] = Reason.QUOTA_NOT_HONOURED
                text = f"slice {event.slice}, {event.direction}: {event.quota} PRB asked, {event.used} used"
                self.journal.repeated(self.cell_id, Event.QUOTA_NOT_HONOURED, text)
            case LeaseLapsed():
                for name in self.decision.quotas if self.decision else ():
                    self._reasons[name] = Reason.LEASE_LAPSED
                self.journal.event(self.cell_id, Event.LEASE_LAPSED, "the gNB is back at all PRBs")

    # ---- what the hosts say -------------------------------------------------------------------------------

    def take(self, item: QosItem, now: float) -> None:
        """A start, an end, frames or a clock that a host reported; ``now`` is monotonic seconds.

        ValueError for what cannot be used; nothing has changed then.
        """
        match item:
            case codec.FrameBatch():
                self._frames(item)
            case FlowBegin():
                if not self.controlled:  # no control slot closes, where it is done otherwise
                    self._forget_flows(item.flow.start_ns, now)
                self._begin(item)
            case codec.SampleBatch():
                self._samples(item)
            case codec.SettingsApplied():
                self._settings_applied(item)
            case codec.FlowEnd():
                if item.flow in self._background:
                    del self._background[item.flow]
                    return
                self._streams.stopped(item.flow)
                self._applied.pop(item.flow, None)
                self._clock_faults.pop(item.flow, None)
                self._collector.flow_stop(item.flow, item.time_ns)
            case ClockReport():
                self._collector.clock(item)
            case HostLost():
                self._host_lost(item, now)

    def _begin(self, item: FlowBegin) -> None:
        flow = item.flow
        stream = item.host, item.stream
        if not flow.slice:
            self._background[flow.flow] = stream
            if flow.flow in self._streams.flows:  # it was a slice's until now
                self._streams.stopped(flow.flow)
                self._collector.flow_stop(flow.flow, flow.start_ns)
            return
        self._collector.flow_start(flow)
        if (known := self._handovers.begin(self.cell_id, flow)) is not None:
            self._arrivals[flow.flow] = known
        self._background.pop(flow.flow, None)
        self._streams.started(flow.flow, stream)

    def _frames(self, item: codec.FrameBatch) -> None:
        if item.flow in self._background:
            return
        before = self._collector.frames_dropped
        self._collector.frames(item.flow, item.columns, item.synchronised, item.received_ns, item.fault)
        self._note_clocks(item.flow, item.fault.reason if item.fault else "")
        if dropped := self._collector.frames_dropped - before:
            self.journal.count("qos_frames_dropped_total", self.cell_id, dropped)

    def _samples(self, item: codec.SampleBatch) -> None:
        if item.flow in self._background:
            return
        before = self._collector.samples_dropped
        self._collector.samples(item.flow, item.table, item.time_ns, item.values)
        if dropped := self._collector.samples_dropped - before:
            self.journal.count("qos_samples_dropped_total", self.cell_id, dropped)

    def _settings_applied(self, item: codec.SettingsApplied) -> None:
        for flow in item.flows:
            self._applied[flow] = item
        if item.refused:
            text = f"host {item.host}, {', '.join(item.flows)}: {item.refused}"
            self.journal.repeated(self.cell_id, Event.SETTINGS_REFUSED, text)

    def fitted(self, fits: Sequence[Fit]) -> None:
        """What came of jobs; the loop sees it when the control slot closes. A slice that is gone gets
        none."""
        known = self.loop.slices if self.loop else frozenset()
        for fit in fits:
            if fit.slice not in known:
                continue
            self._fits.append(fit)
            if fit.error:
                text = f"slice {fit.slice}: {fit.key}: {fit.error}"
                self.journal.repeated(self.cell_id, Event.FIT_FAILED, text, "fit_failed_total")

    def _host_lost(self, item: HostLost, now: float) -> None:
        lost = item.host, item.stream
        ended = self._streams.ended(lost, now)
        self._background = {flow: of for flow, of in self._background.items() if of != lost}
        # A stream that never had a flow is a PTP agent's, and missed.
        kind = Event.HOST_LEFT if ended.left else Event.HOST_LOST
        in_the_middle = f" in the middle of {', '.join(ended.flows)}" if ended.flows else ""
        self.journal.event(self.cell_id, kind, f"the QoS stream of {item.host} ended{in_the_middle}")

    def _note_clocks(self, flow: str, reason: str) -> None:
        """Record when a flow's frames begin and cease to count for the round trip alone."""
        if reason == self._clock_faults.get(flow, ""):
            return
        if reason:
            self._clock_faults[flow] = reason
            text = f"flow {flow}: frames count for the round trip alone: {reason}"
            self.journal.repeated(self.cell_id, Event.CLOCK_FAULT, text)
        else:
            del self._clock_faults[flow]
            text = f"flow {flow}: its clocks agree again"
            self.journal.repeated(self.cell_id, Event.CLOCK_FAULT_ENDED, text)

    def _forget_flows(self, closed_ns: int, now: float) -> None:
        """Flows whose host has not come back are over."""
        for host, flows in self._streams.expire(now):
            for flow in flows:
                self._applied.pop(flow, None)
                self._clock_faults.pop(flow, None)
                self._collector.flow_stop(flow, closed_ns)
            text = f"{', '.join(flows)}: host {host} was gone for {self._streams.patience_s:g} s"
            self.journal.event(self.cell_id, Event.FLOWS_FORGOTTEN, text)

    # ---- control slots ------------------------------------------------------------------------------------

    def check(self, command: Command) -> None:
        """ValueError where an operator's command could not be carried out at the next control slot. A mode
        may wait for the first one: of several cells one that is away keeps no other from being released."""
        if not isinstance(self.state, Controlled):
            if command.kind == "mode" and command.value in list(Mode):
                return
            why = self.not_controlled or "its gNB is not connected"
            raise ValueError(f"cell {self.cell_id} is not under control: {why}")
        if command.kind == "quota" and command.value is not None:
            least = self.state.carrier.min_prb
            for direction in ("ul", "dl"):
                prb = command.value[direction]
                if prb is not None and prb < least:
                    raise ValueError(
                        f"cell {self.cell_id}, slice {command.slice}: {direction.upper()} {prb} PRB: "
                        f"the gNB's smallest grant is {least}, so nothing would get through"
                    )
        self.state.loop.check(command, self.commands)

    @property
    def manual(self) -> Mapping[str, tuple[ManualQuota, float]]:
        """Slice -> the quotas that an operator has set for it, and the monotonic second at which they end;
        none while there is no session. Any thread may ask."""
        state, ends = self.state, self._manual_until.copy()
        quotas = state.loop.manual if isinstance(state, Controlled) else {}
        return {name: (quota, ends[name]) for name, quota in quotas.items() if name in ends}

    def manual_over(self, now: float) -> bool:
        """Whether the time of a quota set by hand is over, so that the control slot is to end."""
        return any(now >= until for until in self._manual_until.values())

    def _note_manual(self, why: str) -> None:
        """An event of each quota set by hand that is neither in force any more nor still to come."""
        waiting = {c.slice for c in self.commands if c.kind == "quota" and c.value is not None}
        known = waiting | (self.loop.manual.keys() if self.loop else set())
        for name in self._manual_until.keys() - known:
            del self._manual_until[name]
            self.journal.event(self.cell_id, Event.QUOTA_ENDED, f"slice {name}: {why}")

    def early(self, now_ns: int) -> str:
        """Why the control slot in progress should end now and not at its time; "" where it should go on.

        Asked once a state sub-interval, whether or not a report came in it, and not before the slot is as
        long as ``control.events`` wants it.
        """
        if not isinstance(self.state, Controlled) or self.decision is None:
            return ""
        loop, opened_ns = self.state.loop, self._acknowledged_ns or self._decided_ns
        events, index = loop.spec.events, (now_ns - 1) // self._subinterval_ns
        if events is None or index == self._asked or now_ns - opened_ns < events.min_slot_s * 1e9:
            return ""
        self._asked = index
        first = opened_ns // self._subinterval_ns
        reports = [r for i in sorted(self._reports) if i >= first and (r := self._opened(i)) is not None]
        try:
            return loop.early(self._collector.so_far(loop.control_slot, opened_ns, now_ns, reports))
        except Exception as error:
            text = f"early: {error!r}"
            self.journal.repeated(self.cell_id, Event.ALLOCATOR_FAILED, text, "allocator_failed_total")
            return ""

    def close(
        self, closed_ns: int, gpu: GpuReading | None, now: float, ended: str = ""
    ) -> tuple[Observation, Decision]:
        """Close the control slot, decide the next one, put it in force and record it.

        ``closed_ns`` is CLOCK_REALTIME (or the virtual clock), ``now`` monotonic seconds, ``ended`` why it
        ends before its time. Whatever fails
        before it is in force is raised with everything as it was after the control slot before: commands are
        kept, and what a half-done step had learned is forgotten. Nothing is renewed past the last good
        decision then, so the network returns to full resources.
        """
        assert isinstance(self.state, Controlled)
        loop = self.state.loop
        commands, self.commands = self.commands, []
        over = [name for name, until in self._manual_until.items() if now >= until]
        try:
            self._forget_flows(closed_ns, now)
            opened_ns = self._acknowledged_ns or self._decided_ns
            observation = self._collector.close(
                control_slot=loop.control_slot,
                opened_ns=opened_ns,
                closed_ns=closed_ns,
                reports=self._take_reports(opened_ns),
                enforcement=self._enforcement(),
                gpu=gpu,
                commands=[*(Command("quota", None, name) for name in over), *commands],
                settings=self._settings_in_force(),
                fits=self._fits,
                ended=ended,
                arrivals=self._arrivals,
            )
            decision = self._decide(loop, observation)
            self._acted = self.face.act(decision, self.bindings)
        except Exception:
            self.commands = commands + self.commands
            self._decision_over()
            self._restore()
            for name in over:  # else it would end the next control slot at once
                self._manual_until.pop(name, None)
            self._note_manual("no decision could be made")
            raise
        self.decision, self._decided_ns, self._acknowledged_ns = decision, closed_ns, 0
        if ended:
            self.journal.count("early_ends_total", self.cell_id)
        self._reasons.clear()
        self._used.clear()
        for command in commands:
            if command.kind == "quota" and command.value is not None:
                self._manual_until[command.slice] = now + command.value["for_s"]
        acting = decision.mode in (Mode.ACTIVE, Mode.FROZEN)
        ended_by = (
            "its time is over" if over else "an operator ended it" if acting else f"mode {decision.mode}"
        )
        self._note_manual(ended_by)
        self._fits = []
        self._arrivals = {}
        for part in decision.slices:
            for what, why in part.failed.items():
                text = f"slice {part.slice}: {what}: {why}"
                self.journal.repeated(self.cell_id, Event.ALLOCATOR_FAILED, text, "allocator_failed_total")
        self.record = decision.to_record()
        self._note_rescue(self.record)
        self._note_ues(observation)
        self._resume = loop.to_state()
        for name, why in loop.state_failures.items():
            text = f"slice {name}: state: {why}"
            self.journal.repeated(self.cell_id, Event.ALLOCATOR_FAILED, text, "allocator_failed_total")
        self.journal.slot(observation, self.record, self._resume)
        return observation, decision

    def _note_rescue(self, record: Mapping[str, Any]) -> None:
        """Events of slices that begin to get more of a resource than they ask for, or get no more of any."""
        if record["mode"] != Mode.ACTIVE:
            return
        for name, s in record["slices"].items():
            before, now = self._rescued.get(name, frozenset()), s.get("rescue", {})
            self._rescued[name] = frozenset(now)
            if now.keys() - before:
                self.journal.event(self.cell_id, Event.RESCUED, f"slice {name}: {rescue.text(now)}")
            elif before and not now:
                self.journal.event(self.cell_id, Event.RESCUE_ENDED, f"slice {name}: gets what it asks for")

    def _note_ues(self, observation: Observation) -> None:
        """Events of flows whose UE the cell, or their slice in it, begins or ceases to have; and of a control
        slot without a report."""
        active = [flow for flow in observation.flows if not flow.stop_ns]
        if not observation.reports:
            if active and observation.closed_ns - observation.opened_ns > 2 * self._subinterval_ns:
                slot = observation.control_slot
                text = f"no MAC report in control slot {slot}: the flows' demand is not known"
                self.journal.repeated(self.cell_id, Event.NO_MAC_REPORT, text)
            return
        slices = dict(self.reported_ues or ())
        of = observation.flows, observation.frames, observation.reports
        idle = {f.flow for name in {f.slice for f in active} for f in attachment.idle(*of, name)}
        before, self._strayed = self._strayed, {}
        for flow in active:
            named = self._collector.named_ue(flow.flow)
            if flow.ue_id != named:
                stray: tuple[Event, str | None] = Event.UE_FOLLOWED, flow.ue_id
            elif slices.get(named) != flow.slice:
                stray = Event.UNKNOWN_UE, slices.get(named)
            elif flow.flow in idle or (before.get(flow.flow) == _IDLE and not _has_frames(flow, observation)):
                stray = _IDLE
            elif flow.flow in before:
                text = f"flow {flow.flow}: UE {named!r} is in slice {flow.slice}"
                self.journal.event(self.cell_id, Event.UE_FOUND, text)
                continue
            else:
                continue
            self._strayed[flow.flow] = stray
            if before.get(flow.flow) != stray:
                kind, where = stray
                is_idle = kind is Event.UE_IDLE
                text = _idle_text(flow) if is_idle else _stray_text(flow, named, where, slices)
                self.journal.event(self.cell_id, kind, text)

    def _settings_in_force(self) -> dict[str, AppliedSettings]:
        """Of every flow that was to have settings, whether its application had put them in force by the time
        from which the control slot is judged."""
        out = {}
        begin = (self._acknowledged_ns or self._decided_ns) + self._guard_ns
        for flow in self.decision.settings if self.decision else ():
            wanted, answer = self._acted.settings.get(flow), self._applied.get(flow)
            if wanted is None or answer is None or answer.sequence < wanted or answer.refused:
                out[flow] = AppliedSettings(0, Reason.SETTINGS_NOT_APPLIED)
            else:
                late = answer.time_ns > begin
                out[flow] = AppliedSettings(answer.time_ns, Reason.SETTINGS_NOT_APPLIED if late else None)
        return out

    def _decide(self, loop: ControlLoop, observation: Observation) -> Decision:
        return loop.step(observation)

    def _restore(self) -> None:
        """A new loop from the state after the last control slot that was written."""
        loop = self.loop_for(self._config)
        assert loop is not None
        self._install(loop, self._resume)

    def _take_reports(self, opened_ns: int) -> list[MacReport]:
        """The reports since ``opened_ns``, opened; one that cannot be is counted and left out."""
        first = opened_ns // self._subinterval_ns
        opened = [self._opened(index) for index in sorted(self._reports) if index >= first]
        self._reports, self._opened_reports = {}, {}
        return [report for report in opened if report is not None]

    def _opened(self, index: int) -> MacReport | None:
        """The report of a state sub-interval, opened once; None where that cannot be."""
        received_ns, message = self._reports[index]
        if self._opened_reports.get(index, (0, None))[0] != received_ns:
            self._opened_reports[index] = received_ns, self._open(received_ns, message)
        return self._opened_reports[index][1]

    def _open(self, received_ns: int, message: ran_pb2.MacReport) -> MacReport | None:
        assert isinstance(self.state, Controlled)
        try:
            report, wrong = codec.open_report(message, self.state.carrier, received_ns)
        except codec.BadReport as error:
            self.journal.repeated(self.cell_id, Event.BAD_REPORT, str(error), "ran_bad_report_total")
            return None
        self._collector.left_out = {ue.ue_id for ue in message.ues} - {*report.ue_id}
        report = self._bound(report)
        for why in wrong:
            text = f"{why}; it is left out of the report"
            self.journal.repeated(self.cell_id, Event.BAD_REPORT, text, "ran_bad_ue_total")
        unknown = {*report.slice} - self.state.loop.slices - {""}
        if unknown:
            names = ", ".join(map(repr, sorted(unknown)))
            text = f"MacReport with UEs of {names}"
            self.journal.repeated(self.cell_id, Event.UNKNOWN_SLICE, text, "ran_unknown_slice_total")
        return report

    def _bound(self, report: MacReport) -> MacReport:
        """The report with the slices of UEs that the gNB names none for. Bindings go out with the quotas: a
        gNB that has none in force does not know them."""
        bound = self.bindings
        pairs = [*zip(report.ue_id, report.slice, strict=True)]
        if not any(not name and ue in bound for ue, name in pairs):
            return report
        return replace(report, slice=tuple(name or bound.get(ue, "") for ue, name in pairs))

    def _enforcement(self) -> dict[str, Enforcement]:
        if not (self.decision and self.decision.quotas):
            return {}
        missing = None if self._acknowledged_ns else Reason.NOT_ACKNOWLEDGED
        return {
            name: Enforcement(self._reasons.get(name, missing), *self._used.get(name, (None, None)))
            for name in self.decision.quotas
        }


def _stray_text(flow: Flow, named: str, where: str | None, slices: Mapping[str, str]) -> str:
    """What is told of a flow whose UE its slice does not have. ``named`` is the UE that its host names,
    ``slices`` UE -> slice as the gNB reports them; ``where`` is the UE that it is taken to be of, else the
    slice of the named one, None where the cell does not have it."""
    if flow.ue_id != named:
        return (
            f"flow {flow.flow} names UE {named!r}, which the cell does not have: it is taken to be of UE"
            f" {flow.ue_id!r}, the only one of slice {flow.slice} that no flow names"
        )
    is_where = "the cell does not have" if where is None else f"is in {where or 'no slice'}"
    has = ", ".join(f"{ue!r} ({name or 'no slice'})" for ue, name in sorted(slices.items())) or "none"
    return (
        f"flow {flow.flow} of slice {flow.slice} names UE {named!r}, which {is_where}: its demand is not"
        f" known; UEs: {has[:MAX_UES_NAMED]}; --ue of the client names another, ues of the slice binds one"
    )


_IDLE: tuple[Event, str | None] = (Event.UE_IDLE, None)


def _has_frames(flow: Flow, observation: Observation) -> bool:
    return bool((observation.frames.flow == observation.flows.index(flow)).any())


def _idle_text(flow: Flow) -> str:
    return (
        f"flow {flow.flow} of slice {flow.slice}: its frames come back, but UE {flow.ue_id!r} carries none of"
        " them: its demand is not known. Does the client reach the edge through the UE (its route, its"
        " interface)? Is it another UE's by now (--ue of the client)?"
    )


def _model(config: Config, cell_id: str) -> CellModel:
    return next(c for c in config.cells if c.id == cell_id)
