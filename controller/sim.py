"""Joins the core and the emulated cell on a virtual clock: days of testbed time in minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agents.emulator import schedule
from agents.emulator.channel import read_trace
from agents.emulator.spec import (
    CellSpec,
    ChannelProcess,
    ChannelTrace,
    EdgeSpec,
    FlowSpec,
    LinkSpec,
    TestbedSpec,
    UeSpec,
)
from agents.emulator.testbed import EmulatedTestbed
from agents.emulator.warmup import warm_up
from controller.config import Config, Emulation
from controller.core.collector import SlotCollector
from controller.core.decision import Decision, SliceDemand
from controller.core.loop import ControlLoop
from controller.core.observation import Enforcement, Flow, GpuReading, Observation
from controller.links import codec
from controller.store.summary import Allocation, Summary
from wire.definitions.nr import SLOT_NS, TDD_PATTERNS

EPOCH_NS = 1_767_225_600_000_000_000
"""2026-01-01: when a virtual run begins, so that its record is the same every time."""

SUFFIXES = (".csv", ".csv.gz")
"""Names of the channel traces in a folder."""

FRAMES_KEPT_NR_SLOTS = 20_000
"""NR slots (10 s) after which frames are taken from the cell, which forgets those of half a minute ago."""


def testbed_spec(config: Config, seed: int) -> TestbedSpec:
    """The emulated testbed of a scenario; ValueError where the configuration has none.

    The schedule ``described`` is drawn with ``seed``, ``published`` with the authors' own. Where each UE is
    in the measured channel: :func:`trace_uses`. OSError, ValueError for a trace that cannot be used.
    """
    e = config.emulation
    if e is None:
        raise ValueError("the configuration has no emulation section")
    cell = config.cells[0]
    if len(config.cells) > 1:
        raise ValueError("an emulated testbed has one cell")
    channels: Sequence[ChannelProcess | ChannelTrace] = (
        [ChannelTrace(path=use.trace, start_s=use.start_s) for use in trace_uses(e, seed)]
        if e.channel_trace
        else [ChannelProcess()] * e.ues
    )
    ues = [
        UeSpec(f"ue-{i}", 0x4600 + i, _slice_of(config, f"ue-{i}"), channel)
        for i, channel in enumerate(channels, 1)
    ]
    flows = [
        FlowSpec(f"openrtist-{i + 1}", ues[i % e.ues].ue_id, active)
        for i, active in enumerate(_active(e, seed))
    ]
    return TestbedSpec(
        ues=tuple(ues),
        flows=tuple(flows),
        cell=CellSpec(cell_id=cell.id, n_prb=e.prb, tdd=TDD_PATTERNS[e.tdd], k2=e.k2),
        edge=EdgeSpec(max_mhz=cell.max_mhz),
    )


@dataclass(frozen=True, slots=True)
class TraceUse:
    """Where a UE is in a measured channel: the file, the second in which it begins, how many it has.

    Seconds are those of 5G, as the others are cut out; the trace repeats at its end.
    """

    ue: str
    trace: str
    start_s: int
    length_s: int

    def to_dict(self) -> dict[str, Any]:
        return {"ue": self.ue, "trace": self.trace, "start_s": self.start_s, "length_s": self.length_s}

    def __str__(self) -> str:
        return f"{self.ue}: {Path(self.trace).name} from {self.start_s} of {self.length_s} s"


GOLDEN = 0.6180339887498949
"""The fractional part of its multiples spreads any number of seeds evenly."""


def trace_uses(e: Emulation, seed: int) -> tuple[TraceUse, ...]:
    """The measured channel of each UE under a seed; none where a process drives the cell.

    Of the n traces of a folder (``*.csv, *.csv.gz``, by name) UE k = 0, 1, ... takes number (seed + k) mod n.
    It begins after the part (:data:`GOLDEN` seed + k / UEs) mod 1 of the trace, so that no two seeds, and no
    two UEs of a cell, meet the same channel at the same time. ValueError for a folder without traces;
    ValueError, OSError as :func:`agents.emulator.channel.read_trace`.
    """
    if not e.channel_trace:
        return ()
    path = Path(e.channel_trace)
    files = sorted(f for f in path.iterdir() if f.name.endswith(SUFFIXES)) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: no channel trace (*.csv, *.csv.gz) in this folder")
    chosen = [files[(seed + k) % len(files)] for k in range(e.ues)]
    lengths = {file: len(read_trace(ChannelTrace(path=file), LinkSpec())) for file in set(chosen)}
    return tuple(
        TraceUse(
            f"ue-{k + 1}", str(file), int((GOLDEN * seed + k / e.ues) % 1 * lengths[file]), lengths[file]
        )
        for k, file in enumerate(chosen)
    )


def _slice_of(config: Config, ue_id: str) -> str:
    return next((s.id for s in config.cells[0].slices if ue_id in s.ues), "")


def _active(e: Emulation, seed: int) -> tuple[schedule.Intervals, ...]:
    if e.schedule == "always" or e.on_off is None:
        return (((0.0, e.duration_s),),) * e.flows
    times = e.on_off.model_dump()
    if e.schedule == "published":
        return schedule.published(e.flows, e.duration_s, **times)
    return schedule.described(e.flows, e.duration_s, **times, seed=seed)


def control_slots(config: Config, duration_s: float | None = None) -> int:
    """Control slots that a run holds; ValueError for none, and for a run longer than its scenario.

    ``duration_s`` shortens the scenario.
    """
    if config.emulation is None:
        raise ValueError("the configuration has no emulation section")
    length_s = config.emulation.duration_s if duration_s is None else duration_s
    slot_s = config.control.control_slot_s
    if length_s > config.emulation.duration_s:
        raise ValueError(
            f"{length_s:g} s are more than the scenario's {config.emulation.duration_s:g} s "
            "(emulation.duration_s): its flows end there"
        )
    if not length_s >= slot_s:
        raise ValueError(f"{length_s:g} s hold no control slot of {slot_s:g} s")
    return int(length_s / slot_s)


def loads(config: Config, seed: int, duration_s: float | None = None) -> tuple[int, ...]:
    """Flows that are active at some time in each control slot of a run, known beforehand."""
    slot_s = config.control.control_slot_s
    count = [0] * control_slots(config, duration_s)
    assert config.emulation is not None  # has control slots
    for active in _active(config.emulation, seed):
        touched = {
            slot
            for start, stop in active
            for slot in range(int(start / slot_s), min(len(count), -int(-stop // slot_s)))
        }
        for slot in touched:
            count[slot] += 1
    return tuple(count)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave. ``wall_s`` leaves out compilation, warm-up and construction."""

    summary: dict[str, Any]
    control_slots: int
    simulated_s: float
    wall_s: float
    channel: tuple[TraceUse, ...] = ()
    """Where each UE was in a measured channel."""


OnSlot = Callable[[Observation, Decision, ControlLoop], None]


def run(
    config: Config,
    seed: int,
    *,
    on_slot: OnSlot | None = None,
    duration_s: float | None = None,
    plan: Sequence[Allocation] | None = None,
) -> Result:
    """Run a scenario on the virtual clock.

    ``on_slot`` sees every control slot as it is decided. Deterministic under ``seed``: schedule, channel and
    traffic are the same whatever is allocated. With a ``plan`` the n-th control slot runs under its n-th
    allocation in place of what the policy chose, and no MAC report is taken, as no state is needed.

    ValueError for a configuration that cannot be emulated, a duration outside the scenario and a plan that
    is shorter than the run or for more than one slice.
    """
    n_slots = control_slots(config, duration_s)
    spec = testbed_spec(config, seed)
    slot_s = config.control.control_slot_s
    if plan is not None and len(plan) < n_slots:
        raise ValueError(f"a plan of {len(plan)} control slots for a run of {n_slots}")
    if plan is not None and len(config.cells[0].slices) != 1:
        raise ValueError("a plan is for a cell of one slice")
    warm_up()
    bed = EmulatedTestbed(spec, seed=seed, epoch_ns=EPOCH_NS)
    loop = ControlLoop(config.loop_spec(spec.cell.cell_id, spec.cell.n_prb, 30, spec.cell.tdd))
    runner = VirtualCell(bed, loop, config.control.subinterval_ms, plan)
    summary = Summary()
    started = time.perf_counter()
    for slot in range(n_slots + 1):
        observation, decision = runner.control_slot(int(slot * slot_s * 1e9 / SLOT_NS))
        summary.add(decision.to_record())
        if on_slot:
            on_slot(observation, decision, loop)
    wall_s = time.perf_counter() - started
    assert config.emulation is not None  # has control slots
    channel = trace_uses(config.emulation, seed)
    return Result(summary.result(), n_slots, n_slots * slot_s, wall_s, channel)


class VirtualCell:
    """One control loop on one emulated cell, advanced control slot by control slot."""

    def __init__(
        self,
        bed: EmulatedTestbed,
        loop: ControlLoop,
        subinterval_ms: float,
        plan: Sequence[Allocation] | None = None,
    ) -> None:
        self._bed, self._loop, self._plan = bed, loop, plan
        self._collector = SlotCollector([s.slice for s in loop.spec.slices], subinterval_ms)
        self._facts = codec.CellFacts(
            loop.spec.cell, loop.spec.n_prb, loop.spec.carrier.scs_khz, loop.spec.carrier.tdd
        )
        self._subinterval = round(subinterval_ms * 1e6 / SLOT_NS)
        self._bindings = {ue: s.slice for s in loop.spec.slices for ue in s.ues}
        self._opened_ns = bed.time_ns()
        self._decision: Decision | None = None

    def control_slot(self, until_nr_slot: int) -> tuple[Observation, Decision]:
        """Let the cell run to an NR slot, close the control slot there and put the next decision in force."""
        bed = self._bed
        step = self._subinterval if self._plan is None else FRAMES_KEPT_NR_SLOTS
        taken = bed.nr_slot
        while bed.nr_slot < until_nr_slot:
            bed.advance(min(bed.nr_slot + step, until_nr_slot))
            if self._plan is None:
                report = codec.open_report(bed.mac_report(), self._facts)
                self._collector.report(report.time_ns - 1, report)
            if bed.nr_slot - taken >= FRAMES_KEPT_NR_SLOTS:
                self._flows_and_frames()
                taken = bed.nr_slot
        self._flows_and_frames()
        now = bed.time_ns()
        observation = self._collector.close(
            control_slot=self._loop.control_slot,
            opened_ns=self._opened_ns,
            closed_ns=now,
            enforcement=self._enforcement(),
            gpu=GpuReading((self._decision.gpu_mhz if self._decision else None) or self._loop.spec.max_mhz),
        )
        decision = self._loop.step(observation)
        if self._plan is not None:
            # The decision after the last control slot is never in force.
            at = min(decision.control_slot - 1, len(self._plan) - 1)
            decision = _planned(decision, self._plan[at])
        bed.set_quotas(decision.quotas, self._bindings)
        bed.set_gpu_mhz(decision.gpu_mhz or self._loop.spec.max_mhz)
        self._opened_ns, self._decision = now, decision
        return observation, decision

    def _flows_and_frames(self) -> None:
        infos = self._bed.flows
        for event in self._bed.take_flow_events():
            info = infos[event.flow]
            if event.kind == "start":
                self._collector.flow_start(
                    Flow(
                        info.flow,
                        info.ue_id,
                        self._bindings.get(info.ue_id, ""),
                        info.ul_bps,
                        info.dl_bps,
                        event.time_ns,
                    )
                )
            else:
                self._collector.flow_stop(info.flow, event.time_ns)
        updates = self._bed.take_frames()
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
        for index in np.unique(updates.flow):
            self._collector.frames(infos[index].flow, columns[updates.flow == index], True)

    def _enforcement(self) -> dict[str, Enforcement]:
        used: dict[str, list[int]] = {}
        for use in self._bed.slice_use():
            used.setdefault(use.slice, [0, 0])[use.direction - 1] = use.max_new_prb
        if self._decision is None:
            return {}
        out = {}
        for name, quota in self._decision.quotas.items():
            ul, dl = used.get(name, [0, 0])
            out[name] = Enforcement("quota not honoured" if ul > quota[0] or dl > quota[1] else "", ul, dl)
        return out


def _planned(decision: Decision, a: Allocation) -> Decision:
    """The decision with another allocation for its one slice."""
    (one,) = decision.slices
    demand = SliceDemand(a.ul_prb, a.dl_prb, a.gpu_mhz)
    return replace(
        decision,
        quotas={one.slice: (a.ul_prb, a.dl_prb)},
        gpu_mhz=a.gpu_mhz,
        slices=(replace(one, demand=demand, ul_prb=a.ul_prb, dl_prb=a.dl_prb),),
    )
