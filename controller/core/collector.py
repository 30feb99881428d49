"""Gathers what happens during a control slot into the observation that closes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.core.attachment import Follower
from controller.core.clocks import ClockFault
from controller.core.fits import Fit
from controller.core.observation import (
    AppliedSettings,
    BoolArray,
    ClockReport,
    Command,
    Enforcement,
    Flow,
    Frames,
    GpuReading,
    IntArray,
    MacReport,
    Observation,
    Samples,
)
from wire.definitions.bounds import MAX_CELL_FLOWS

MAX_FRAMES = 200_000
MAX_CLOCKS = 4096
MAX_SAMPLES = 200_000
"""Rows of samples that wait for the end of a control slot; beyond them the oldest go."""
RETAIN_NS = 60_000_000_000
"""How long a flow that stopped is remembered, for late news of its last frames."""
MAX_AHEAD_NS = 1_000_000_000
"""A frame said to be sent so much later than now is refused: that clock is wrong."""
MAX_BEHIND_NS = 60_000_000_000
"""Frames that are all older than this when they are told are of a clock that is behind."""
MAX_STEP_NS = 1_000_000_000
"""An unsynchronised clock that moved so much against the controller's has been set."""
MAX_LAG_NS = 1_000_000_000
"""A host whose last batch is older than this is taken to have nothing more to say."""


@dataclass(frozen=True, slots=True)
class _Batch:
    flow: str
    columns: IntArray
    synchronised: bool
    known_ns: int


@dataclass(frozen=True, slots=True)
class _Rows:
    flow: str
    table: str
    time_ns: IntArray
    values: NDArray[np.float32]


class SlotCollector:
    """Flows, frames and clocks of one cell between two control slots.

    Frame times are merged by (flow, sequence): a later batch fills in what an earlier one did not
    know. Frames of a slot that is closed are forgotten, and late news of them is ignored.

    Frames whose clocks are not synchronised are placed by the time at which the controller heard of them: the
    flow's first batch tells how far its clock is off. A clock that is found to be wrong was so since it was
    last told to be right: frames heard in between are taken back.

    ``slices`` are the slices that the cell has; a flow of another one is refused.
    """

    def __init__(self, slices: Sequence[str]) -> None:
        self._slices = frozenset(slices)
        self._flows: dict[str, Flow] = {}
        self._batches: list[_Batch] = []
        self._clocks: list[ClockReport] = []
        self._faults: dict[str, str] = {}
        self._n_frames = 0
        self._floor_ns = 0
        self._known: dict[str, int] = {}
        self._offset: dict[str, int] = {}
        self.frames_dropped = 0
        self._ended: dict[str, None] = {}
        self._samples: list[_Rows] = []
        self._n_samples = 0
        self.samples_dropped = 0
        self._follower = Follower()
        self.left_out: Collection[str] = ()
        """UEs that the gNB has, though they were left out of its last report."""
        self.bound: Collection[str] = ()
        """UEs that the configuration names."""

    def set_slices(self, slices: Sequence[str]) -> None:
        """The slices that the cell has from now on."""
        self._slices = frozenset(slices)

    def flow_start(self, flow: Flow) -> None:
        """A flow is active from now on; ValueError for an unknown slice or one flow too many.

        Flows that have stopped are none too many: for want of room the one that stopped first is forgotten.
        """
        if flow.slice not in self._slices:
            known = ", ".join(sorted(self._slices))
            raise ValueError(f"flow {flow.flow}: unknown slice {flow.slice!r}; slices: {known}")
        if flow.flow not in self._flows and len(self._flows) >= MAX_CELL_FLOWS:
            stopped = [f for f in self._flows.values() if f.stop_ns]
            if not stopped:
                raise ValueError(f"flow {flow.flow}: more than {MAX_CELL_FLOWS} flows in one cell")
            self._drop(min(stopped, key=lambda f: f.stop_ns).flow)
        self._flows[flow.flow] = flow
        self._ended.pop(flow.flow, None)

    def flow_stop(self, flow: str, time_ns: int) -> None:
        """A flow ends; ValueError where it never started."""
        known = self._flows.get(flow)
        if known is None:
            raise ValueError(f"flow {flow}: stopped, but never started")
        self._flows[flow] = replace(known, stop_ns=max(time_ns, known.start_ns))

    def clock(self, report: ClockReport) -> None:
        """Keep what a host told of its clock; beyond :data:`MAX_CLOCKS` in a slot the oldest go."""
        self._clocks.append(report)
        del self._clocks[:-MAX_CLOCKS]

    def frames(
        self,
        flow: str,
        columns: IntArray,
        synchronised: bool,
        known_ns: int = 0,
        fault: ClockFault | None = None,
    ) -> None:
        """Times of frames of one flow.

        ``columns`` is int64 [n, 5]: sequence, ue_sent, edge_received, edge_sent, ue_received (ns, 0: not
        known at ``known_ns``). ``fault`` says why they are not ``synchronised``, where that is known.
        What comes of a flow that stopped so long ago that it is forgotten is dropped. ValueError where the
        flow never started, or some of the frames are of the future; all of them: its clock has been set, and
        that is a fault.
        """
        if flow in self._ended:
            self.frames_dropped += len(columns)
            return
        if flow not in self._flows:
            raise ValueError(f"flow {flow}: frames, but it never started")
        if known_ns:
            self._known[flow] = known_ns
        if synchronised and known_ns and len(columns) and _when(columns).min() > known_ns + MAX_AHEAD_NS:
            synchronised, fault = False, ClockFault("times ahead of the controller's clock", known_ns)
        if synchronised and known_ns and len(columns) and _when(columns).max() < known_ns - MAX_BEHIND_NS:
            synchronised, fault = False, ClockFault("times behind the controller's clock", known_ns)
        if not synchronised and known_ns:
            columns = self._on_our_clock(flow, columns, known_ns)
        if fault is not None:
            self._faults[flow] = fault.reason
            self._take_back(flow, fault.since_ns)
        when = _when(columns)
        if known_ns and (wrong := int(np.count_nonzero(when > known_ns + MAX_AHEAD_NS))):
            raise ValueError(f"flow {flow}: {wrong} frames sent in the future; is its clock synchronised?")
        columns = columns[when >= self._floor_ns]
        if not len(columns):
            return
        self._batches.append(_Batch(flow, columns, synchronised, known_ns))
        self._n_frames += len(columns)
        while self._n_frames > MAX_FRAMES:
            dropped = len(self._batches.pop(0).columns)
            self._n_frames -= dropped
            self.frames_dropped += dropped

    def samples(self, flow: str, table: str, time_ns: IntArray, values: NDArray[np.float32]) -> None:
        """Rows of a table of one flow: int64 [n] and float32 [n, columns].

        They are of the control slot that their times fall in, or of the next to close where that is over.
        ValueError where the flow never started.
        """
        if flow not in self._flows:
            if flow in self._ended:
                self.samples_dropped += len(time_ns)
                return
            raise ValueError(f"flow {flow}: samples of table {table}, but it never started")
        self._samples.append(_Rows(flow, table, time_ns, values))
        self._n_samples += len(time_ns)
        while self._n_samples > MAX_SAMPLES:
            dropped = len(self._samples.pop(0).time_ns)
            self._n_samples -= dropped
            self.samples_dropped += dropped

    def _take_samples(
        self, index: Mapping[str, int], slices: Mapping[str, str], closed_ns: int
    ) -> dict[str, dict[str, Samples]]:
        """Slice -> table -> the rows until ``closed_ns``; later ones wait on."""
        parts: dict[str, dict[str, list[_Rows]]] = {}
        later: list[_Rows] = []
        for rows in self._samples:
            now = rows.time_ns < closed_ns
            if not now.all():
                later.append(replace(rows, time_ns=rows.time_ns[~now], values=rows.values[~now]))
            if now.any():
                part = replace(rows, time_ns=rows.time_ns[now], values=rows.values[now])
                parts.setdefault(slices[rows.flow], {}).setdefault(rows.table, []).append(part)
        self._samples = later
        self._n_samples = sum(len(rows.time_ns) for rows in later)
        return {
            name: {
                table: Samples(
                    np.concatenate([np.full(len(r.time_ns), index[r.flow], np.int64) for r in rows]),
                    np.concatenate([r.time_ns for r in rows]),
                    np.concatenate([r.values for r in rows]),
                )
                for table, rows in tables.items()
            }
            for name, tables in parts.items()
        }

    def _take_back(self, flow: str, since_ns: int) -> None:
        """Frames of a flow that were heard after ``since_ns`` were not synchronised either."""
        for i, b in enumerate(self._batches):
            if b.flow == flow and b.synchronised and b.known_ns > since_ns:
                columns = self._on_our_clock(flow, b.columns, b.known_ns)
                self._batches[i] = replace(b, columns=columns, synchronised=False)

    def _on_our_clock(self, flow: str, columns: IntArray, known_ns: int) -> IntArray:
        """The UE's times shifted so that its latest one is the time of arrival.

        Rows without one are left out, and so are the edge's times: they are of yet another clock.
        """
        ue_rows = columns[(columns[:, 1] > 0) | (columns[:, 4] > 0)]
        if not len(ue_rows):
            return ue_rows
        offset = known_ns - int(ue_rows[:, (1, 4)].max())
        known = self._offset.get(flow)
        if known is None or abs(offset - known) > MAX_STEP_NS:
            self._offset[flow] = known = offset
        shifted = np.zeros_like(ue_rows)
        shifted[:, 0] = ue_rows[:, 0]
        for column in (1, 4):
            shifted[:, column] = np.where(ue_rows[:, column] > 0, ue_rows[:, column] + known, 0)
        return shifted

    def so_far(
        self, control_slot: int, opened_ns: int, now_ns: int, reports: Sequence[MacReport]
    ) -> Observation:
        """What is known of the control slot in progress: its flows, frames and reports."""
        flows = self._flows_of({b.flow for b in self._batches}, opened_ns)
        frames = self._merge({f.flow: i for i, f in enumerate(flows)}, now_ns)
        known_ns = self._known_until(now_ns)
        return Observation(
            control_slot, opened_ns, now_ns, tuple(reports), tuple(flows), frames, known_ns=known_ns
        )

    @property
    def active_flows(self) -> int:
        """Flows that have not stopped; any thread may ask."""
        return sum(not f.stop_ns for f in list(self._flows.values()))

    def restart(self, time_ns: int) -> None:
        """What was gathered before ``time_ns`` is of no use any more: the cell was away."""
        self._forget(time_ns)

    def shift(self, step_ns: int, now_ns: int) -> None:
        """The controller's clock was set by ``step_ns`` and is ``now_ns``: all times move along, so that what
        began before goes on after it. What came between the step and its notice moves no further than now.
        How far unsynchronised clocks are off is found anew."""

        def moved(time_ns: int) -> int:
            return time_ns and min(time_ns + step_ns, now_ns)

        self._flows = {
            name: replace(f, start_ns=moved(f.start_ns), stop_ns=moved(f.stop_ns))
            for name, f in self._flows.items()
        }
        for i, b in enumerate(self._batches):
            columns = b.columns.copy()
            times = columns[:, 1:]
            times[times > 0] += step_ns
            self._batches[i] = replace(b, columns=columns, known_ns=moved(b.known_ns))
        self._samples = [replace(rows, time_ns=rows.time_ns + step_ns) for rows in self._samples]
        self._known = {flow: moved(known_ns) for flow, known_ns in self._known.items()}
        self._floor_ns = moved(self._floor_ns)
        self._offset.clear()

    def close(
        self,
        *,
        control_slot: int,
        opened_ns: int,
        closed_ns: int,
        reports: Sequence[MacReport] = (),
        enforcement: Mapping[str, Enforcement] | None = None,
        gpu: GpuReading | None = None,
        commands: Sequence[Command] = (),
        settings: Mapping[str, AppliedSettings] | None = None,
        fits: Sequence[Fit] = (),
        ended: str = "",
        arrivals: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Observation:
        """End the control slot; ``reports`` are those of its state sub-intervals, oldest first."""
        self._samples = [rows for rows in self._samples if rows.flow in self._flows]
        seen = {b.flow for b in self._batches} | {rows.flow for rows in self._samples}
        self._follower.close(self._flows.values(), reports, self.left_out, self.bound)
        flows = self._flows_of(seen, opened_ns)
        index = {f.flow: i for i, f in enumerate(flows)}
        observation = Observation(
            control_slot=control_slot,
            opened_ns=opened_ns,
            closed_ns=closed_ns,
            reports=tuple(reports),
            flows=tuple(flows),
            frames=self._merge(index, closed_ns),
            enforcement=dict(enforcement or {}),
            gpu=gpu,
            commands=tuple(commands),
            known_ns=self._known_until(closed_ns),
            clocks=tuple(self._clocks),
            samples=self._take_samples(index, {f.flow: f.slice for f in flows}, closed_ns),
            settings=dict(settings or {}),
            fits=tuple(fits),
            clock_faults={f: why for f, why in self._faults.items() if f in index},
            ended=ended,
            arrivals=dict(arrivals or {}),
        )
        self._clocks.clear()
        self._faults.clear()
        self._forget(closed_ns)
        return observation

    def _flows_of(self, seen: Collection[str], opened_ns: int) -> list[Flow]:
        """Flows of a control slot: those that something came of, and those that were active in it."""
        flows = [f for name, f in self._flows.items() if name in seen or self._lived(f, opened_ns)]
        of = self._follower.followed
        return [replace(f, ue_id=of[f.flow]) if f.flow in of else f for f in flows]

    def named_ue(self, flow: str) -> str:
        """The UE that a flow's host named; KeyError for an unknown flow."""
        return self._flows[flow].ue_id

    def _known_until(self, closed_ns: int) -> int:
        """The earliest last batch of the active flows; a frame cannot be late before its host could tell."""
        recent = closed_ns - MAX_LAG_NS
        active = [t for f, t in self._known.items() if t >= recent and not self._flows[f].stop_ns]
        return min([closed_ns, *active])

    @staticmethod
    def _lived(flow: Flow, since_ns: int) -> bool:
        return not flow.stop_ns or flow.stop_ns > since_ns

    def _merge(self, index: Mapping[str, int], closed_ns: int) -> Frames:
        """All frames sent in the slot, one row each: known times win over unknown ones."""
        if not self._batches:
            return Frames.empty()
        flow = np.concatenate([np.full(len(b.columns), index[b.flow]) for b in self._batches])
        rows = np.concatenate([b.columns for b in self._batches])
        synchronised = np.concatenate([np.full(len(b.columns), b.synchronised) for b in self._batches])
        order = np.lexsort((rows[:, 0], flow))
        flow, rows, synchronised = flow[order], rows[order], synchronised[order]
        new = np.ones(len(rows), np.bool_)
        new[1:] = (flow[1:] != flow[:-1]) | (rows[1:, 0] != rows[:-1, 0])
        starts = np.flatnonzero(new)
        if len(starts) < len(rows):
            if not synchronised.all():
                _one_clock(rows, synchronised, starts)
            flow = flow[starts]
            rows = np.maximum.reduceat(rows, starts, axis=0)
            synchronised = np.logical_and.reduceat(synchronised, starts)
        sent = rows[:, 1] < closed_ns
        columns = np.ascontiguousarray(rows[sent].T)
        return Frames(flow[sent], *columns, synchronised[sent])  # type: ignore[call-arg]

    def _drop(self, flow: str) -> None:
        """Forget a flow and what its host told of it."""
        del self._flows[flow]
        self._batches = [b for b in self._batches if b.flow != flow]
        self._n_frames = sum(len(b.columns) for b in self._batches)
        self._samples = [rows for rows in self._samples if rows.flow != flow]
        self._n_samples = sum(len(rows.time_ns) for rows in self._samples)
        for known in (self._known, self._offset, self._faults):
            known.pop(flow, None)

    def _forget(self, closed_ns: int) -> None:
        self._floor_ns = closed_ns
        kept_flows = {n: f for n, f in self._flows.items() if self._lived(f, closed_ns - RETAIN_NS)}
        self._ended |= dict.fromkeys(self._flows.keys() - kept_flows.keys())
        for name in list(self._ended)[:-MAX_CELL_FLOWS]:
            del self._ended[name]
        self._flows = kept_flows
        kept = [
            replace(b, columns=b.columns[_when(b.columns) >= closed_ns])
            for b in self._batches
            if b.flow in self._flows
        ]
        self._batches = [b for b in kept if len(b.columns)]
        self._n_frames = sum(len(b.columns) for b in self._batches)
        self._known = {n: t for n, t in self._known.items() if n in self._flows}
        self._offset = {n: o for n, o in self._offset.items() if n in self._flows}


def _one_clock(rows: IntArray, synchronised: BoolArray, starts: IntArray) -> None:
    """Where a frame was both told by its own clock and placed on ours, put all of it on ours, in place.

    ``starts`` is where each frame's rows begin. Of what its own clock told the round trip is kept, which is
    one clock's; the hops are not. One whose sending only its own clock knows keeps both.
    """
    lengths = np.diff(np.append(starts, len(rows)))
    placed = np.repeat(np.maximum.reduceat(np.where(synchronised, 0, rows[:, 1]), starts), lengths)
    own = (placed > 0) & synchronised
    back = own & (rows[:, 1] > 0) & (rows[:, 4] > 0)
    rows[back, 4] += placed[back] - rows[back, 1]
    rows[own & ~back, 4] = 0
    rows[own, 1] = placed[own]
    rows[own, 2:4] = 0


def _when(columns: IntArray) -> IntArray:
    """When each frame was sent; where that is not known, the latest time that is. ns, [n]."""
    return np.where(columns[:, 1] > 0, columns[:, 1], columns[:, 2:].max(axis=1))
