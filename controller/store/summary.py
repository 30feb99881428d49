"""The figures of a run, from its decision records one by one, whatever the services. Pure: no file, no clock.

The outcome in decision record n is that of control slot n - 1, which ran under the allocation of record n -
1. So a control slot counts once the record after its own has come; the allocation of the last record of all
does not count, nor does the outcome of a slot for which there was no decision (the first of a control loop).

Control slots may end early (``control.events``), so delivery ratios and averages weigh each by how long it
lasted; where all last the same they are shares and means of control slots.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.core.decision import EXPLORING
from controller.core.measure import RESOURCES, Reason, worst_value
from controller.core.power import CARRIER_MHZ, bs_power_saving, ue_power_saving

RECENT = 25
"""Control slots behind the figures of one load."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """What was in force: PRBs of one slice in each direction, and the GPU's clock."""

    ul_prb: int
    dl_prb: int
    gpu_mhz: int


@dataclass(frozen=True, slots=True)
class ClosedSlot:
    """One control slot of a cell that is over: when it began, how long it lasted, what was in force, what
    came of it. ``ended`` says why it ended early, "" where it did not.

    ``outcomes`` is ``closed`` of the next record, by slice; ``choices`` led to ``allocations``, ``settings``
    were what the slices' users were told.
    """

    cell: str
    control_slot: int
    begin_ns: int
    end_ns: int
    mode: str
    prb: int
    max_mhz: int
    allocations: Mapping[str, Allocation]
    choices: Mapping[str, Sequence[Mapping[str, Any]]]
    outcomes: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
    length_ns: int
    ended: str = ""
    rescued: frozenset[str] = frozenset()
    """The slices that were given more than they asked for, as nothing was learned or the promise missed."""

    @property
    def total(self) -> Allocation:
        """The cell's allocation: its slices' quotas together, at most the carrier."""
        parts = self.allocations.values()
        return Allocation(
            min(self.prb, sum(a.ul_prb for a in parts)),
            min(self.prb, sum(a.dl_prb for a in parts)),
            max((a.gpu_mhz for a in parts), default=self.max_mhz),
        )


def allocations(record: Mapping[str, Any]) -> dict[str, Allocation]:
    """What a decision record puts in force for each slice; without a quota or clock all that there is."""
    mhz = record["max_mhz"] if record["gpu_mhz"] is None else record["gpu_mhz"]
    full = (record["prb"], record["prb"])
    quotas = {name: record["quotas"].get(name, full) for name in record["slices"]}
    return {name: Allocation(ul, dl, mhz) for name, (ul, dl) in quotas.items()}


class Pairs:
    """Joins each control slot's allocation with the outcome that the next record tells of it."""

    def __init__(self) -> None:
        self._open: dict[str, Mapping[str, Any]] = {}
        self._usual: dict[str, int] = {}

    def add(self, record: Mapping[str, Any]) -> ClosedSlot | None:
        """The control slot that ``record`` closes; None where its own decision is not known."""
        cell, number = record["cell"], record["control_slot"]
        before = self._open.get(cell)
        self._open[cell] = record
        if before is None or before["control_slot"] != number - 1:
            return None
        closed = {name: s["closed"] for name, s in record["slices"].items()}
        if closed and all(_unknown(c) for c in closed.values()):
            return None
        return ClosedSlot(
            cell=cell,
            control_slot=number - 1,
            begin_ns=before["time_ns"],
            end_ns=record["time_ns"],
            mode=before["mode"],
            prb=before["prb"],
            max_mhz=before["max_mhz"],
            allocations=allocations(before),
            choices={name: s["choices"] for name, s in before["slices"].items()},
            outcomes=closed,
            settings={name: s["settings"] for name, s in before["slices"].items()},
            length_ns=self._length(cell, record["time_ns"] - before["time_ns"], "ended" in record),
            ended=record.get("ended", ""),
            rescued=frozenset(name for name, s in before["slices"].items() if s.get("rescue")),
        )

    def _length(self, cell: str, length_ns: int, early: bool) -> int:
        """How long a control slot lasted: as its times say; as long as the last one that did not end early
        where it seems to have lasted more than twice that, or less than nothing: the clock was set."""
        usual = self._usual.get(cell, length_ns)
        if length_ns > 0 and not early:
            self._usual[cell] = length_ns
        return length_ns if 0 < length_ns <= 2 * usual else max(usual, 1)


def _unknown(closed: Mapping[str, Any]) -> bool:
    reasons = closed["unattributed"]
    return all(reasons.get(lever.value) == Reason.NO_DECISION.value for lever in RESOURCES)


@dataclass(slots=True)
class _Met:
    """For how long something was met (ns), of the control slots in which that can be told, and of the busy
    ones."""

    judged: int = 0
    met: int = 0
    judged_busy: int = 0
    met_busy: int = 0

    def add(self, met: int | None, busy: bool, length_ns: int) -> None:
        if met is not None:
            self.judged += length_ns
            self.met += met * length_ns
            if busy:
                self.judged_busy += length_ns
                self.met_busy += met * length_ns

    @property
    def ratio(self) -> float | None:
        return _ratio(self.met, self.judged)

    @property
    def ratio_busy(self) -> float | None:
        return _ratio(self.met_busy, self.judged_busy)


@dataclass(slots=True)
class _Measure:
    """One measure of a slice; ``total`` sums the worst user's value of ``slots`` control slots."""

    unit: str
    better: str
    met: _Met = field(default_factory=_Met)
    slots: int = 0
    total: float = 0.0
    samples: int = 0

    def add(self, measure: Mapping[str, Any], busy: bool, length_ns: int) -> None:
        self.met.add(measure["met"], busy, length_ns)
        self.samples += measure["samples"]
        worst = worst_value(measure)
        if worst is not None:
            self.slots += 1
            self.total += worst

    def result(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "better": self.better,
            "delivery_ratio": self.met.ratio,
            "delivery_ratio_busy": self.met.ratio_busy,
            "mean_of_worst_user": _ratio(self.total, self.slots),
            "samples": self.samples,
        }


@dataclass(slots=True)
class _Sums:
    """Sums over control slots of one slice, or of a cell; resources and savings times ns."""

    slots: int = 0
    length_ns: int = 0
    busy: int = 0
    promise: _Met = field(default_factory=lambda: _Met())
    parts: dict[str, _Met] = field(default_factory=dict)
    """Of the measures beside each slice's first, which is its promise."""
    ul_prb: int = 0
    dl_prb: int = 0
    gpu_mhz: int = 0
    bs_power_saving: float = 0.0
    ue_power_saving: float = 0.0

    def allocate(self, a: Allocation, prb: int, length_ns: int) -> None:
        self.slots += 1
        self.length_ns += length_ns
        self.ul_prb += a.ul_prb * length_ns
        self.dl_prb += a.dl_prb * length_ns
        self.gpu_mhz += a.gpu_mhz * length_ns
        carrier_mhz = CARRIER_MHZ * prb / 106
        self.bs_power_saving += bs_power_saving(a.dl_prb, n_prb=prb) * length_ns
        self.ue_power_saving += ue_power_saving(a.ul_prb, n_prb=prb, carrier_mhz=carrier_mhz) * length_ns

    def judge(self, closed: Mapping[str, Any], length_ns: int) -> None:
        busy = bool(closed["busy"])
        self.busy += busy
        self.promise.add(closed["met"], busy, length_ns)
        for name, measure in list(closed["measures"].items())[1:]:
            self.parts.setdefault(name, _Met()).add(measure["met"], busy, length_ns)

    def qos(self) -> dict[str, Any]:
        return {
            "qos_delivery_ratio": self.promise.ratio,
            "qos_delivery_ratio_busy": self.promise.ratio_busy,
            "hop_delivery_ratio": {name: part.ratio for name, part in self.parts.items()},
            "hop_delivery_ratio_busy": {name: part.ratio_busy for name, part in self.parts.items()},
        }

    def means(self) -> dict[str, Any]:
        return {
            "avg_ul_prb": _ratio(self.ul_prb, self.length_ns),
            "avg_dl_prb": _ratio(self.dl_prb, self.length_ns),
            "avg_gpu_mhz": _ratio(self.gpu_mhz, self.length_ns),
            "bs_power_saving": _ratio(self.bs_power_saving, self.length_ns),
            "ue_power_saving": _ratio(self.ue_power_saving, self.length_ns),
        }


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None


@dataclass(slots=True)
class _Slice:
    sums: _Sums = field(default_factory=_Sums)
    policy: str | None = None
    policies: list[str] = field(default_factory=list)
    choices: int = 0
    explored: int = 0
    unattributed: dict[str, Counter[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    measures: dict[str, _Measure] = field(default_factory=dict)
    settings: dict[str, tuple[int, float]] = field(default_factory=dict)
    by_load: dict[int, deque[tuple[Allocation, Mapping[str, Any]]]] = field(default_factory=dict)
    rescued: int = 0


@dataclass(slots=True)
class _Clock:
    """A host's PTP clock; ``slots`` are control slots with news of it."""

    slots: int = 0
    worst_offset_ns: float | None = None
    grandmasters: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, clock_status: Mapping[str, Any]) -> None:
        self.slots += 1
        offset = clock_status["worst_offset_ns"]
        if offset is not None:
            self.worst_offset_ns = max(self.worst_offset_ns or 0.0, abs(offset))
        if clock_status["grandmaster"] and clock_status["grandmaster"] not in self.grandmasters[-1:]:
            self.grandmasters.append(clock_status["grandmaster"])
        if clock_status["fault"]:
            self.faults[clock_status["fault"]] += 1

    def result(self) -> dict[str, Any]:
        return {
            "control_slots": self.slots,
            "worst_offset_ns": self.worst_offset_ns,
            "grandmasters": list(self.grandmasters),
            "faults": dict(self.faults),
        }


@dataclass(slots=True)
class _Cell:
    prb: int = 0
    max_mhz: int = 0
    begin_ns: int = 0
    end_ns: int = 0
    sums: _Sums = field(default_factory=_Sums)
    modes: Counter[str] = field(default_factory=Counter)
    slices: dict[str, _Slice] = field(default_factory=dict)
    clocks: dict[str, _Clock] = field(default_factory=dict)


class Summary:
    """Adds up decision records (``Decision.to_record``) of any number of cells, in their order.

    What cannot be told counts in no delivery ratio. ``*_busy`` are over the control slots in
    which a user was judged. Averages are of the quotas and clocks in force: all PRBs and the highest clock in
    the modes shadow and released. Power savings are 0..1, by :mod:`controller.core.power`; a carrier of
    another width than 106 PRB counts with proportionally more or less than 40 MHz.
    """

    def __init__(self) -> None:
        self._pairs = Pairs()
        self._cells: dict[str, _Cell] = {}
        self._all = _Sums()
        self._events: dict[str, Counter[str]] = {}

    def add(self, record: Mapping[str, Any]) -> ClosedSlot | None:
        """Take the next record of a cell; returns the control slot that it closes, None where none counts."""
        cell = self._cells.setdefault(record["cell"], _Cell())
        cell.prb, cell.max_mhz = record["prb"], record["max_mhz"]
        for host, clock_status in record.get("clocks", {}).items():
            cell.clocks.setdefault(host, _Clock()).add(clock_status)
        slot = self._pairs.add(record)
        if slot is None:
            return None
        if not cell.sums.slots:
            cell.begin_ns = slot.begin_ns
        cell.end_ns = slot.end_ns
        cell.modes[slot.mode] += 1
        cell.sums.allocate(slot.total, slot.prb, slot.length_ns)
        self._all.allocate(slot.total, slot.prb, slot.length_ns)
        for name, allocation in slot.allocations.items():
            closed = slot.outcomes.get(name)
            if closed is not None:
                entry = cell.slices.setdefault(name, _Slice())
                self._add_slice(entry, slot, name, allocation, closed)
                cell.sums.judge(closed, slot.length_ns)
                self._all.judge(closed, slot.length_ns)
        return slot

    @staticmethod
    def _add_slice(
        entry: _Slice, slot: ClosedSlot, name: str, allocation: Allocation, closed: Mapping[str, Any]
    ) -> None:
        entry.sums.allocate(allocation, slot.prb, slot.length_ns)
        entry.sums.judge(closed, slot.length_ns)
        entry.counts.update(closed["counts"])
        entry.faults.update(closed.get("faults", {}))
        for measure, stored in closed["measures"].items():
            if measure not in entry.measures:
                entry.measures[measure] = _Measure(stored["unit"], stored["better"])
            entry.measures[measure].add(stored, bool(closed["busy"]), slot.length_ns)
        for settings in slot.settings[name].values():
            for setting, values in settings.items():
                n, total = entry.settings.get(setting, (0, 0.0))
                entry.settings[setting] = n + 1, total + sum(values) / len(values)
        for choice in slot.choices[name]:
            entry.choices += 1
            entry.explored += choice["why"] in EXPLORING
            entry.policy = choice["method"]
            if entry.policy not in entry.policies:
                entry.policies.append(entry.policy)
        for lever, reason in closed["unattributed"].items():
            entry.unattributed.setdefault(reason, Counter())[lever] += 1
        entry.rescued += name in slot.rescued
        recent = entry.by_load.setdefault(closed["users"], deque(maxlen=RECENT))
        recent.append((allocation, closed))

    def add_event(self, cell: str, kind: str) -> None:
        """Count an event; the cell is empty where it concerns the daemon."""
        self._events.setdefault(cell, Counter())[kind] += 1

    def headline(self) -> dict[str, Any]:
        """The figures of the whole run, flat.

        Keys: ``control_slots`` and ``busy_control_slots`` (of all cells; a slot is busy for each slice that
        was), ``qos_delivery_ratio``, ``qos_delivery_ratio_busy`` (of the slices' promises),
        ``hop_delivery_ratio`` and ``hop_delivery_ratio_busy`` (of their other measures by name; over all
        slices' control slots), ``avg_ul_prb``, ``avg_dl_prb``, ``avg_gpu_mhz``, ``bs_power_saving``,
        ``ue_power_saving`` (of a cell). None where there is nothing.
        """
        return {
            "control_slots": self._all.slots,
            "busy_control_slots": self._all.busy,
            **self._all.qos(),
            **self._all.means(),
        }

    def result(self) -> dict[str, Any]:
        """Plain JSON: :meth:`headline`, ``events`` by kind (of all cells and of the daemon), and ``cells``
        with their own ``events`` and their ``slices``.

        A slice has the headline's keys and ``policy`` (the latest method), ``policies``, ``explored`` (part
        of its choices whose outcome was not known), ``unattributed`` (reason -> lever -> control slots),
        ``frames`` (samples that its promise was judged by), ``negative_delays`` and ``unsynchronised_frames``
        (of those counts) and ``unsynchronised`` (reason -> frames, where it is known), and ``by_load``: for
        each number of judged users the means over its last 25 control slots. A cell's ``outcomes`` hold for
        each slice its ``measures`` by name (``unit``, ``better``, ``delivery_ratio``,
        ``delivery_ratio_busy``, ``mean_of_worst_user``, ``samples``), its ``counts`` and the means of its
        users' ``settings``. Its ``clocks`` are by host: ``control_slots`` with news of it, its
        ``worst_offset_ns``, the ``grandmasters`` that it followed one after the other, and ``faults`` (reason
        -> control slots that ended with it).

        ``rescued`` of a slice counts the control slots in which it was given more than it asked for.
        """
        cells = {name: self._cell(name, cell) for name, cell in self._cells.items()}
        events: Counter[str] = sum(self._events.values(), Counter())
        return {**self.headline(), "events": dict(events), "cells": cells}

    def cell(self, name: str) -> dict[str, Any] | None:
        """One of the ``cells`` of :meth:`result`; None before it has a record."""
        cell = self._cells.get(name)
        return None if cell is None else self._cell(name, cell)

    def _cell(self, name: str, cell: _Cell) -> dict[str, Any]:
        return {
            "control_slots": cell.sums.slots,
            "busy_control_slots": cell.sums.busy,
            "prb": cell.prb,
            "max_mhz": cell.max_mhz,
            "begin_ns": cell.begin_ns,
            "end_ns": cell.end_ns,
            "modes": dict(cell.modes),
            **cell.sums.means(),
            "events": dict(self._events.get(name, Counter())),
            "clocks": {host: clock.result() for host, clock in cell.clocks.items()},
            "slices": {s: self._slice(entry) for s, entry in cell.slices.items()},
            "outcomes": {s: self._outcome(entry) for s, entry in cell.slices.items()},
        }

    @staticmethod
    def _outcome(entry: _Slice) -> dict[str, Any]:
        return {
            "measures": {name: measure.result() for name, measure in entry.measures.items()},
            "counts": dict(entry.counts),
            "settings": {name: total / n for name, (n, total) in entry.settings.items()},
        }

    @staticmethod
    def _slice(entry: _Slice) -> dict[str, Any]:
        return {
            "policy": entry.policy,
            "policies": list(entry.policies),
            "explored": _ratio(entry.explored, entry.choices),
            "control_slots": entry.sums.slots,
            "busy_control_slots": entry.sums.busy,
            **entry.sums.qos(),
            **entry.sums.means(),
            "unattributed": {reason: dict(levers) for reason, levers in entry.unattributed.items()},
            "negative_delays": entry.counts["negative_delays"],
            "frames": next((m.samples for m in entry.measures.values()), 0),
            "unsynchronised_frames": entry.counts["unsynchronised_frames"],
            "unsynchronised": dict(entry.faults),
            "by_load": {str(load): _load(entry.by_load[load]) for load in sorted(entry.by_load)},
            "rescued": entry.rescued,
        }


def _load(recent: deque[tuple[Allocation, Mapping[str, Any]]]) -> dict[str, Any]:
    n = len(recent)
    bits = [closed["met"] for _, closed in recent]
    known = [q for q in bits if q is not None]
    return {
        "control_slots": n,
        "qos_delivery_ratio": _ratio(sum(known), len(known)),
        "avg_ul_prb": sum(a.ul_prb for a, _ in recent) / n,
        "avg_dl_prb": sum(a.dl_prb for a, _ in recent) / n,
        "avg_gpu_mhz": sum(a.gpu_mhz for a, _ in recent) / n,
    }
