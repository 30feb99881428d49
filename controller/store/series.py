"""The control slots of a run as columns, for its charts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from controller.core.measure import RESOURCES as LEVERS
from controller.core.measure import Lever, worst_value
from controller.store.run import RunStore
from controller.store.summary import Allocation, ClosedSlot, Summary

LAST_DECISIONS = 20


@dataclass(slots=True)
class MeasureSeries:
    """One measure of a slice: the worst user's value, the target, whether it was met; NaN where not known."""

    unit: str
    better: str
    met: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    target: list[float] = field(default_factory=list)

    def add(self, measure: Mapping[str, Any]) -> None:
        worst = worst_value(measure)
        targets = [t for _, t in measure["users"].values() if t is not None]
        self.met.append(_or_nan(measure["met"]))
        self.value.append(_or_nan(worst))
        # The strictest, where users have their own; one that nobody was held against goes on.
        strictest = min if self.better == "lower" else max
        self.target.append(strictest(targets) if targets else self.target[-1] if self.target else np.nan)

    def pad(self, length: int) -> None:
        for column in (self.met, self.value, self.target):
            column.extend([np.nan] * (length - len(column)))


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


@dataclass(slots=True)
class SliceSeries:
    """One slice's control slots in their order, as columns."""

    time: list[float] = field(default_factory=list)
    users: list[float] = field(default_factory=list)
    ul_prb: list[float] = field(default_factory=list)
    dl_prb: list[float] = field(default_factory=list)
    gpu_mhz: list[float] = field(default_factory=list)
    met: list[float] = field(default_factory=list)
    busy: list[bool] = field(default_factory=list)
    measures: dict[str, MeasureSeries] = field(default_factory=dict)
    settings: dict[str, list[float]] = field(default_factory=dict)
    """Mean over the users, by name."""
    unsynchronised: list[float] = field(default_factory=list)
    state: dict[str, list[float]] = field(default_factory=lambda: {lever.value: [] for lever in LEVERS})
    actions: dict[str, Counter[tuple[float, float]]] = field(
        default_factory=lambda: {lever.value: Counter() for lever in LEVERS}
    )

    def add(self, seconds: float, slot: ClosedSlot, name: str, allocation: Allocation) -> None:
        """Control slot ``slot`` of slice ``name``."""
        closed = slot.outcomes[name]
        before = len(self.time)
        self.time.append(seconds)
        self.users.append(closed["users"])
        self.ul_prb.append(allocation.ul_prb)
        self.dl_prb.append(allocation.dl_prb)
        self.gpu_mhz.append(allocation.gpu_mhz)
        self.busy.append(bool(closed["busy"]))
        self.met.append(_or_nan(closed["met"]))
        self.unsynchronised.append(closed["counts"].get("unsynchronised_frames", 0))
        for measure, stored in closed["measures"].items():
            series = self.measures.setdefault(measure, MeasureSeries(stored["unit"], stored["better"]))
            series.pad(before)
            series.add(stored)
        for series in self.measures.values():
            series.pad(before + 1)
        self._add_settings(slot.settings[name], before)
        choices = {c["lever"]: c for c in slot.choices[name] if not c.get("user")}
        for lever in LEVERS:
            choice = choices.get(lever.value)
            known = choice is not None and choice["state"] is not None
            self.state[lever.value].append(choice["state"] if choice is not None and known else np.nan)
            if choice is not None and known:
                self.actions[lever.value][choice["state"], choice["action"]] += 1

    def _add_settings(self, settings: Mapping[str, Mapping[str, Sequence[float]]], before: int) -> None:
        values: dict[str, list[float]] = {}
        for of in settings.values():
            for setting, numbers in of.items():
                values.setdefault(setting, []).extend(numbers)
        for setting in {*values, *self.settings}:
            column = self.settings.setdefault(setting, [np.nan] * before)
            column.append(float(np.mean(values[setting])) if setting in values else np.nan)

    def by_hop(self) -> dict[str, list[float]]:
        """What was in force, PRB or MHz."""
        return {Lever.UL.value: self.ul_prb, Lever.EDGE.value: self.gpu_mhz, Lever.DL.value: self.dl_prb}

    def met_by_hop(self) -> dict[str, list[float]]:
        """Of the measures that are named as a lever, whether they were met."""
        return {name: m.met for name, m in self.measures.items() if name in {lever.value for lever in LEVERS}}


@dataclass(slots=True)
class CellSeries:
    slices: dict[str, SliceSeries] = field(default_factory=dict)
    last: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=LAST_DECISIONS))
    prb: int = 0
    max_mhz: int = 0
    clocks: dict[str, ClockSeries] = field(default_factory=dict)
    strips: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    """What was in force from a time (ns) on, by what it is: the run's part, the mode, each slice's policy."""
    first_ns: int = 0
    end_ns: int = 0

    def seconds(self, time_ns: int) -> float:
        """Since the run's first control slot."""
        return (time_ns - self.first_ns) / 1e9

    @property
    def length_s(self) -> float:
        return self.seconds(self.end_ns)

    def note(self, part: int, record: Mapping[str, Any]) -> None:
        """What a decision record says of part, mode and policies, where that is new."""
        said = {"part": f"part {part}", "mode": record["mode"]}
        for name, s in record["slices"].items():
            methods = dict.fromkeys(c["method"] for c in s["choices"])
            if methods:
                said[f"policy of {name}"] = ", ".join(methods)
        for what, value in said.items():
            strip = self.strips.setdefault(what, [])
            if not strip or strip[-1][1] != value:
                strip.append((record["time_ns"], value))


@dataclass(slots=True)
class ClockSeries:
    """A host's worst offset in each control slot, ns; NaN where it followed no clock."""

    time: list[float] = field(default_factory=list)
    offset_ns: list[float] = field(default_factory=list)


def read(store: RunStore) -> tuple[Summary, dict[int, Summary], dict[str, CellSeries]]:
    summary = Summary()
    by_part: dict[int, Summary] = {}
    cells: dict[str, CellSeries] = {}
    first_ns = 0
    for part, record in store.decisions_by_part():
        by_part.setdefault(part, Summary()).add(record)
        cell = cells.setdefault(record["cell"], CellSeries())
        cell.last.append(record)
        cell.prb, cell.max_mhz = record["prb"], record["max_mhz"]
        slot = summary.add(record)
        cell.note(part, record)
        if slot is not None:
            first_ns = first_ns or slot.begin_ns
            cell.end_ns = max(cell.end_ns, slot.end_ns)
        for host, clock_status in record.get("clocks", {}).items():
            clock = cell.clocks.setdefault(host, ClockSeries())
            clock.time.append((record["time_ns"] - (first_ns or record["time_ns"])) / 1e9)
            clock.offset_ns.append(
                np.nan if clock_status["worst_offset_ns"] is None else clock_status["worst_offset_ns"]
            )
        if slot is not None:
            seconds = (slot.begin_ns - first_ns) / 1e9
            for name, allocation in slot.allocations.items():
                if name in slot.outcomes:
                    cell.slices.setdefault(name, SliceSeries()).add(seconds, slot, name, allocation)
    for cell in cells.values():
        cell.first_ns = first_ns
    return summary, by_part, cells
