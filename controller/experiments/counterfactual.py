"""A recorded run played once more under another policy, its frames replaced by what a model says. Pure.

The policy is run by the control loop itself, slot by slot: what it is given of a slot is the recorded
observation with one frame a flow that took as long as :mod:`controller.experiments.offpolicy` says, with its
quotas in force, its clock read back and the queues that belong to such delays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from controller.allocators.ar.delays import HOPS, ROUND_TRIP
from controller.allocators.base import SliceView
from controller.core import hops
from controller.core.decision import Decision
from controller.core.measure import Lever, Outcome, Reason
from controller.core.observation import (
    DirectionColumns,
    Enforcement,
    Flow,
    Frames,
    GpuReading,
    MacReport,
    Mode,
    Observation,
)
from controller.core.spec import LoopSpec
from controller.experiments import offpolicy
from controller.experiments.offpolicy import Log, Models, Outcomes, Played, Unanswerable
from controller.loop import ControlLoop
from controller.loop import Models as ModelBytes

_MS = 1_000_000
_SERVICE = "ar"
_MAX_QUEUE = 1 << 30
"""Bytes to which a queue may grow."""


@dataclass(frozen=True)
class Step:
    """What closed a recorded control slot; ``row`` is its row of the logs, None where no decision was in
    force in it."""

    observation: Observation
    row: int | None


@dataclass(frozen=True)
class Recording:
    """The control loops of one cell, one after the other, and the logs of its slices of the service ``ar``.

    ``judged`` holds for each slice and row where the judged flows are among the observation's.
    """

    cell: str
    loops: tuple[tuple[LoopSpec, tuple[Step, ...]], ...]
    logs: Mapping[str, Log]
    judged: Mapping[str, Sequence[tuple[int, ...]]]


@dataclass(frozen=True)
class RecordedLoop:
    """A control loop on record without a gap: its specification, its first state, and of each control slot
    what closed it and the decision record that came of that."""

    spec: LoopSpec
    state: Mapping[str, Any]
    slots: Iterable[tuple[Observation, Mapping[str, Any]]]


@dataclass(frozen=True)
class _Row:
    """A control slot of one slice: by hop what it had, what it needed and what a bit cost; of each judged
    flow the hops' delays and where it is; the hops' budgets and the round trip's."""

    had: tuple[float | None, ...]
    demand: tuple[float | None, ...]
    cost: tuple[float | None, ...]
    delays: list[list[float | None]]
    judged: tuple[int, ...]
    budgets: list[float]
    met: int | None


def record(loops: Iterable[RecordedLoop], models: ModelBytes, last: int) -> Recording:
    """Replay the loops of one cell and keep, of the ``last`` control slots, what each hop had, needed, took.

    :class:`Unanswerable` where there is no slice of the service ``ar`` or no finished control slot, and where
    this controller decides otherwise than is on record.
    """
    kept: list[tuple[LoopSpec, deque[Step]]] = []
    rows: dict[str, list[_Row]] = {}
    n = 0
    cell = ""
    for of in loops:
        cell = of.spec.cell
        loop = ControlLoop(of.spec, models)
        loop.load_state(of.state)
        names = [s.slice for s in of.spec.slices if s.service == _SERVICE]
        if not names or (rows and set(names) != set(rows)):
            raise Unanswerable(f"cell {cell}: no slice of the service {_SERVICE} is there throughout")
        steps: deque[Step] = deque()
        kept.append((of.spec, steps))
        before: Decision | None = None
        for observation, recorded in of.slots:
            if observation.ended:
                raise Unanswerable(
                    f"cell {cell}, control slot {observation.control_slot}: {observation.ended}: control"
                    " slots that end early depend on what was done in them"
                )
            decision = loop.step(observation)
            quotas = {name: list(quota) for name, quota in decision.quotas.items()}
            if (quotas, decision.gpu_mhz) != (recorded["quotas"], recorded["gpu_mhz"]):
                raise Unanswerable(
                    f"cell {cell}, control slot {decision.control_slot}: this controller decides otherwise "
                    "than is on record"
                )
            row = None
            if before is not None and before.control_slot == observation.control_slot:
                for s in decision.slices:
                    if s.slice in names:
                        taken = _row(of.spec, s.slice, observation, before, s.outcome)
                        rows.setdefault(s.slice, []).append(taken)
                row, n = n, n + 1
            steps.append(Step(observation, row))
            before = decision
            if n > last:
                _drop(kept, n - last)
    if not n:
        raise Unanswerable(f"cell {cell}: no control slot on record is over")
    first = max(0, n - last)
    return Recording(
        cell,
        tuple(
            (spec, tuple(replace(s, row=None if s.row is None else s.row - first) for s in steps))
            for spec, steps in kept
        ),
        {name: _log(of[first:]) for name, of in rows.items()},
        {name: [row.judged for row in of[first:]] for name, of in rows.items()},
    )


def _drop(kept: Sequence[tuple[LoopSpec, deque[Step]]], first: int) -> None:
    """Forget the steps before row ``first``."""
    for _, steps in kept:
        while steps and (steps[0].row is None or steps[0].row < first):
            steps.popleft()
        if steps:
            return


def _row(spec: LoopSpec, name: str, observation: Observation, before: Decision, outcome: Outcome) -> _Row:
    flows = [i for i, f in enumerate(observation.flows) if f.slice == name]
    users = [observation.flows[i] for i in flows]
    reports, gpu = observation.reports, observation.gpu
    ul, dl = (
        hops.demand_prb(reports, users, name, hop, spec.carrier, queue=False) for hop in (Lever.UL, Lever.DL)
    )
    active = max((sum(_active(f, r.time_ns) for f in users) for r in reports), default=0)
    quota = before.quotas.get(name, (spec.n_prb, spec.n_prb))
    enforcement = observation.enforcement.get(name)
    in_force = name not in before.quotas or (enforcement is not None and not enforcement.reason)
    read_back = gpu is not None and gpu.reason in (None, Reason.CLOCK_RAISED)
    judged = _positions(observation.flows, flows, outcome.users) if outcome.busy else ()
    measures = [outcome.measure(leg) for leg in (*(hop.value for hop in HOPS), ROUND_TRIP)]
    delays = [[m.values[i] for m in measures[:3]] for i in range(len(judged))]
    for of in delays:
        if of == [None, None, None]:  # not one frame: all that is known is how long it waited
            of[0] = (observation.closed_ns - observation.opened_ns) / _MS
    return _Row(
        had=(
            quota[0] if in_force else None,
            gpu.sm_mhz if gpu is not None and read_back else None,
            quota[1] if in_force else None,
        ),
        demand=(ul, active or None, dl),
        cost=(
            _cost(reports, users, name, Lever.UL, spec),
            None,
            _cost(reports, users, name, Lever.DL, spec),
        ),
        delays=delays,
        judged=judged,
        budgets=[m.targets[0] if m.targets else 0.0 for m in measures],
        met=outcome.met,
    )


def _cost(
    reports: Sequence[MacReport], users: Sequence[Flow], name: str, hop: Lever, spec: LoopSpec
) -> float | None:
    """The most PRB that an offered bit took in any report; None where no traffic was offered."""
    costs = []
    for report in reports:
        offered = sum(f.dl_bps if hop is Lever.DL else f.ul_bps for f in users if _active(f, report.time_ns))
        prb = hops.demand_prb((report,), users, name, hop, spec.carrier, queue=False)
        if offered and prb:
            costs.append(prb / offered)
    return max(costs, default=None)


def _active(flow: Flow, time_ns: int) -> bool:
    return flow.start_ns <= time_ns and (flow.stop_ns == 0 or flow.stop_ns > time_ns)


def _positions(flows: Sequence[Flow], candidates: Sequence[int], users: Sequence[str]) -> tuple[int, ...]:
    """Where the judged users are among the flows; a name may be there twice, in the same order."""
    left = iter(candidates)
    return tuple(next(i for i in left if flows[i].flow == user) for user in users)


def _log(rows: Sequence[_Row]) -> Log:
    width = max(1, *(len(row.judged) for row in rows))
    delay = np.full((len(rows), width, 3), np.nan)
    judged = np.zeros((len(rows), width), np.bool_)
    for i, row in enumerate(rows):
        if row.judged:
            delay[i, : len(row.judged)] = np.array(row.delays, float)
            judged[i, : len(row.judged)] = True
    return Log(
        had=np.array([row.had for row in rows], float),
        demand=np.array([row.demand for row in rows], float),
        cost=np.array([row.cost for row in rows], float),
        delay_ms=delay,
        judged=judged,
        budget_ms=np.array([row.budgets for row in rows], float),
        met=np.array([row.met for row in rows], float),
    )


# ---- playing it again -----------------------------------------------------------------------------------


def under(spec: LoopSpec, policy: str, options: Mapping[str, Any]) -> LoopSpec:
    """The loop with another policy in every slice of the service ``ar``, in mode active."""
    changed = {"policy": policy, "policy_options": dict(options)}
    return replace(
        spec,
        mode=Mode.ACTIVE,
        slices=tuple(
            replace(s, options={**s.options, **changed}) if s.service == _SERVICE else s for s in spec.slices
        ),
    )


def play(
    recording: Recording,
    policy: str,
    options: Mapping[str, Any],
    models: Mapping[str, Models],
    model_bytes: ModelBytes,
) -> dict[str, Played]:
    """Run the policy over the recording, learning as it goes; by slice what it had and what came of it.

    ``models`` are those of the slices. ValueError for a policy or options that there are not.
    """
    n = {name: len(log) for name, log in recording.logs.items()}
    had = {name: np.full((n[name], 3), np.nan) for name in n}
    outcomes: dict[str, list[Outcomes]] = {name: [] for name in n}
    missed = dict.fromkeys(n, False)
    state: dict[str, Any] | None = None
    for spec, steps in recording.loops:
        loop = ControlLoop(under(spec, policy, options), model_bytes)
        if state is not None:
            loop.load_state(state)
        last: Decision | None = None
        for step in steps:
            observation = replace(step.observation, commands=_commands(step.observation))
            if last is not None and step.row is not None:
                observation = _in_force(observation, last)
                for name in n:
                    log = recording.logs[name]
                    ul, dl = last.quotas.get(name, (spec.n_prb, spec.n_prb))
                    mhz = np.nan if np.isnan(log.had[step.row, 1]) else _mhz(last)
                    now = np.array([[ul, mhz, dl]], float)
                    came = models[name].outcomes(
                        np.array([step.row]), now, np.array([missed[name]], np.bool_)
                    )
                    had[name][step.row] = now[0]
                    outcomes[name].append(came)
                    missed[name] = not came.met[0]
                    observation = _with(
                        observation, name, spec, log, step.row, recording.judged[name][step.row], came
                    )
            last = loop.step(observation)
        state = loop.to_state()
    return {name: Played(had[name], _together(outcomes[name])) for name in n}


def _commands(observation: Observation) -> tuple[Any, ...]:
    """Without those that would take the policy out of control."""
    return tuple(
        c
        for c in observation.commands
        if c.kind == "options" and not {"policy", "policy_options"} & c.value.keys()
    )


def _mhz(decision: Decision) -> int:
    return decision.max_mhz if decision.gpu_mhz is None else decision.gpu_mhz


def _in_force(observation: Observation, last: Decision) -> Observation:
    gpu = observation.gpu
    return replace(
        observation,
        control_slot=last.control_slot,
        enforcement={name: Enforcement() for name in last.quotas},
        gpu=None if gpu is None else GpuReading(_mhz(last)),
    )


def _with(
    observation: Observation,
    name: str,
    spec: LoopSpec,
    log: Log,
    row: int,
    judged: Sequence[int],
    came: Outcomes,
) -> Observation:
    """The observation with the frames and queues of one slice as they would have been."""
    if not judged or came.unchanged[0]:
        return observation
    likely = came.delay_ms[0]
    flows, frames = observation.flows, observation.frames
    begin = SliceView.of(replace(observation, frames=Frames.empty()), name, guard_ms=spec.guard_ms).begin_ns
    sent = np.array([max(begin, flows[i].start_ns) for i in judged], np.int64)
    times = sent[:, None] + np.cumsum(np.nan_to_num(likely[: len(judged)]) * _MS, axis=1).astype(np.int64)
    others = np.flatnonzero([flows[i].slice != name for i in frames.flow])
    kept = frames.take(others, frames.flow[others])
    new = Frames(
        np.array(judged, np.int64),
        np.arange(len(judged), dtype=np.int64),
        sent,
        times[:, 0],
        times[:, 1],
        times[:, 2],
        np.ones(len(judged), np.bool_),
    )
    joined = Frames(*(np.concatenate((getattr(kept, c), getattr(new, c))) for c in _FRAME_COLUMNS))
    growth = [_growth(log.worst_ms[row, hop], likely[:, hop]) for hop in (0, 2)]
    reports = observation.reports
    if growth != [1.0, 1.0]:
        reports = tuple(_queued(r, name, *growth) for r in reports)
    return replace(observation, frames=joined, reports=reports)


_FRAME_COLUMNS = tuple(Frames.__slots__)


def _growth(real: float, likely: Any) -> float:
    worst = np.nanmax(likely, initial=0.0)
    return float(worst / real) if real > 0 and worst > 0 else 1.0


def _queued(report: MacReport, name: str, ul: float, dl: float) -> MacReport:
    """The queues of a slice's UEs grow as the delay does at the same arrivals (Little's law)."""

    def grown(columns: DirectionColumns, factor: float) -> DirectionColumns:
        if factor == 1.0:
            return columns
        queued = tuple(
            min(_MAX_QUEUE, round(q * factor)) if of == name else q
            for q, of in zip(columns.queued_bytes, report.slice, strict=True)
        )
        return columns if queued == columns.queued_bytes else replace(columns, queued_bytes=queued)

    of_ul, of_dl = grown(report.ul, ul), grown(report.dl, dl)
    return report if of_ul is report.ul and of_dl is report.dl else replace(report, ul=of_ul, dl=of_dl)


def _together(parts: Sequence[Outcomes]) -> Outcomes:
    return Outcomes(*(np.concatenate([getattr(p, c) for p in parts]) for c in Outcomes.__dataclass_fields__))


def estimate(
    recording: Recording,
    policy: str,
    options: Mapping[str, Any],
    model_bytes: ModelBytes,
    *,
    replicates: int = 24,
    seed: int = 0,
    played: Callable[[str], None] = lambda _what: None,
) -> dict[str, offpolicy.Evaluation]:
    """What the policy would have come to in each slice; ``played`` is told of every time it was played.

    :class:`Unanswerable` where a slice's log cannot tell of any policy; one that cannot tell of this policy
    has an evaluation that says so.
    """
    for name, log in recording.logs.items():
        try:
            offpolicy.check(log)
        except Unanswerable as error:
            raise Unanswerable(f"cell {recording.cell}, slice {name}: {error}") from None
    whole = {name: Models(log) for name, log in recording.logs.items()}
    point = play(recording, policy, options, whole, model_bytes)
    played("the run itself")
    drawn = {name: offpolicy.weights(log, replicates, seed) for name, log in recording.logs.items()}
    resampled = []
    for i in range(replicates):
        models = {name: Models(log, drawn[name][i]) for name, log in recording.logs.items()}
        resampled.append((models, play(recording, policy, options, models, model_bytes)))
        played(f"replicate {i + 1}")
    return {
        name: offpolicy.evaluate(log, point[name], [(m[name], p[name]) for m, p in resampled])
        for name, log in recording.logs.items()
    }
