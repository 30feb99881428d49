"""The missed control slots of a run by cause, from its record: live, emulated, whatever the policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from controller.allocators.ar import causes
from controller.allocators.ar.budgets import Budgets
from controller.allocators.ar.causes import Cause, Miss
from controller.allocators.ar.delays import HOPS, MEASURES, ROUND_TRIP, Metric
from controller.allocators.ar.options import ArOptions
from controller.allocators.base import SliceView
from controller.core.decision import Grant
from controller.core.measure import Lever, Measure, Outcome, Reason
from controller.core.observation import Observation
from controller.core.spec import LoopSpec, SliceSpec
from controller.store import figures, record
from controller.store.figures import Array
from controller.store.files import write_atomic
from controller.store.run import RunStore, Start, StoreError
from controller.store.summary import ClosedSlot, Pairs

SERVICE = "ar"
"""The service whose slices are split: causes are those of a round trip over its hops."""

COLOURS: dict[Cause, str] = {
    Cause.HICCUP: "#5d6873",
    Cause.CAPACITY: "#9aa5b1",
    Cause.DRAINED: "#31435a",
    Cause.NOT_ACTIVE: "#c9b458",
    Cause.NOT_AS_ASKED: "#a38a1f",
    Cause.BACKLOG: "#8d63c9",
    Cause.LOAD: "#2f81c7",
    Cause.RADIO: "#57b4c9",
    Cause.BURST: "#2a9563",
    Cause.EXPLORED: "#cf7a22",
    Cause.TOO_LITTLE: "#d64545",
    Cause.HOP_DELAYS_NOT_KNOWN: "#b9b9b9",
    Cause.NOT_KNOWN: "#dcdcdc",
}
STRETCHES = 60
"""Bars of the chart: each is an equal stretch of the run."""


@dataclass(frozen=True, slots=True)
class MissedSlot:
    """A control slot that missed, and why."""

    control_slot: int
    begin_ns: int
    end_ns: int
    miss: Miss

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        m = self.miss
        return {
            "control_slot": self.control_slot,
            "begin_ns": self.begin_ns,
            "cause": m.cause.value,
            "hop": None if m.hop is None else m.hop.value,
            "text": m.text,
            "at_full_ms": None if m.at_full_ms is None else round(m.at_full_ms, 1),
            "hops": {hop.value: {"cause": c.cause.value, "text": c.text} for hop, c in m.hops.items()},
        }


@dataclass(slots=True)
class SliceMisses:
    """One slice: its control slots, how many of them could be judged, and those that missed, in order."""

    control_slots: int = 0
    judged: int = 0
    missed: list[MissedSlot] = field(default_factory=list)

    def by_cause(self) -> dict[Cause, Counter[str]]:
        """Missed control slots by cause, then by hop ("" where none is known); causes in their order."""
        found: dict[Cause, Counter[str]] = {}
        for slot in self.missed:
            hop = "" if slot.miss.hop is None else slot.miss.hop.value
            found.setdefault(slot.miss.cause, Counter())[hop] += 1
        return {cause: found[cause] for cause in Cause if cause in found}

    def result(self) -> dict[str, Any]:
        """Plain JSON: ``control_slots, judged, missed``, ``unavoidable`` (how many would have been missed at
        full resources too) and ``causes``: for each that there is its ``slots`` and their ``hops`` ("" where
        that is not known)."""
        causes_found = self.by_cause()
        return {
            "control_slots": self.control_slots,
            "judged": self.judged,
            "missed": len(self.missed),
            "unavoidable": sum(n.total() for cause, n in causes_found.items() if cause.unavoidable),
            "causes": {
                cause.value: {"slots": n.total(), "hops": dict(n)} for cause, n in causes_found.items()
            },
        }


@dataclass(slots=True)
class Misses:
    """A run's missed control slots, by cell and slice.

    ``left_out`` are the slices of other services (cell -> slice -> service), ``gaps`` the control slots that
    the record has not (cell -> lost or pruned): with one its neighbours are not known either.
    """

    cells: dict[str, dict[str, SliceMisses]] = field(default_factory=dict)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    gaps: Counter[str] = field(default_factory=Counter)
    first_ns: int = 0
    last_ns: int = 0
    """Beginning and end of the control slots that there are."""

    def seconds(self, of: SliceMisses) -> Array:
        """When a slice's missed control slots began, seconds after the first of all: float64 [missed]."""
        return np.array([(slot.begin_ns - self.first_ns) / 1e9 for slot in of.missed], np.float64)

    def result(self, *, slots: bool = False) -> dict[str, Any]:
        """Plain JSON: :meth:`SliceMisses.result` by cell and slice under ``cells``, ``left_out`` and
        ``gaps``; with ``slots`` each slice's ``missed_slots`` one by one, too."""

        def of(s: SliceMisses) -> dict[str, Any]:
            each = {"missed_slots": [slot.to_dict() for slot in s.missed]} if slots else {}
            return {**s.result(), **each}

        return {
            "cells": {
                cell: {name: of(s) for name, s in slices.items()} for cell, slices in self.cells.items()
            },
            "left_out": {cell: dict(of) for cell, of in self.left_out.items()},
            "gaps": dict(self.gaps),
        }


def read(store: RunStore) -> Misses:
    """Every missed control slot of a run, with its cause. StoreError where the record cannot be read."""
    out = Misses()
    pairs = Pairs()
    for start in store.starts():
        if start.lost or start.pruned:
            out.gaps[start.cell] += start.lost + start.pruned
        try:
            spec = LoopSpec.from_dict(start.spec)
        except record.NOT_A_RECORD as error:
            raise StoreError(f"{store.path}: start {start.id}: cannot be read: {error!r}") from error
        for s in spec.slices:
            if s.service != SERVICE:
                out.left_out.setdefault(start.cell, {})[s.slice] = s.service
        mine = {s.slice: _Reader(spec, s, start) for s in spec.slices if s.service == SERVICE}
        for decision in store.decisions(start_id=start.id):
            slot = pairs.add(decision)
            if slot is not None:
                out.first_ns = min(out.first_ns or slot.begin_ns, slot.begin_ns)
                out.last_ns = max(out.last_ns, slot.end_ns)
                _add(out, store, start, mine, slot)
    return out


def _add(
    out: Misses, store: RunStore, start: Start, readers: Mapping[str, _Reader], slot: ClosedSlot
) -> None:
    observation: Observation | None = None
    for name, closed in slot.outcomes.items():
        if name not in readers or name not in slot.allocations:
            continue
        entry = out.cells.setdefault(slot.cell, {}).setdefault(name, SliceMisses())
        entry.control_slots += 1
        entry.judged += closed["met"] is not None
        if closed["met"] == 0 and observation is None:
            observation = store.observation(start.id, slot.control_slot + 1)
        try:
            miss = readers[name].next(slot, closed, observation)
        except record.NOT_A_RECORD as error:
            where = f"cell {slot.cell}, slice {name}, control slot {slot.control_slot}"
            raise StoreError(f"{store.path}: {where}: cannot be read: {error!r}") from error
        if miss is not None:
            entry.missed.append(MissedSlot(slot.control_slot, slot.begin_ns, slot.end_ns, miss))


class _Reader:
    """What is known of a slice from one record to the next."""

    def __init__(self, spec: LoopSpec, of: SliceSpec, start: Start) -> None:
        self._spec, self._name = spec, of.slice
        saved = start.state.get("slices", {}).get(of.slice, {}).get("set", {})
        known = {key: value for key, value in {**of.options, **saved}.items() if key in _OPTIONS}
        try:
            options = ArOptions.model_validate(known)
        except ValueError:  # of a version whose options are not those of the present
            options = ArOptions()
        self._budgets, self._metric = options.budgets.to_budgets(), Metric.parse(options.metric)
        self._before: tuple[int, Mapping[str, Any]] | None = None

    def next(
        self, slot: ClosedSlot, closed: Mapping[str, Any], observation: Observation | None
    ) -> Miss | None:
        """Why the slice missed this control slot; None where it did not."""
        self._budgets = _budgets(closed, self._budgets)
        earlier, self._before = self._before, (slot.control_slot, closed)
        if closed["met"] != 0:
            return None
        if observation is None:  # retention took it away meanwhile
            return Miss(Cause.NOT_KNOWN, text="its observation is not in the record")
        outcome = _outcome(closed, self._budgets)
        before = None
        if earlier is not None and earlier[0] == slot.control_slot - 1 and earlier[1]["measures"]:
            before = _outcome(earlier[1], self._budgets)
        a = slot.allocations[self._name]
        mhz = a.gpu_mhz if observation.gpu is None else observation.gpu.sm_mhz
        view = SliceView.of(
            observation,
            self._name,
            guard_ms=self._spec.guard_ms,
            granted=Grant(a.ul_prb, a.dl_prb, mhz),
            unattributed=outcome.unattributed,
        )
        return causes.find(
            view,
            outcome,
            budgets=self._budgets,
            carrier=self._spec.carrier,
            full=Grant(slot.prb, slot.prb, slot.max_mhz),
            metric=self._metric,
            before=before,
            why={
                Lever(c["lever"]): c["why"]
                for c in slot.choices[self._name]
                if not c.get("user") and c["lever"] in HOPS
            },
        )


_OPTIONS = frozenset({"budgets", "metric"})


def _budgets(closed: Mapping[str, Any], before: Budgets) -> Budgets:
    """What the control slot was held against; as before where its record does not say."""
    targets = {
        name: target
        for name in MEASURES
        for _, target in closed["measures"].get(name, {"users": {}})["users"].values()
        if target is not None
    }
    ul, edge, dl = (targets.get(hop.value, before.of(hop)) for hop in HOPS)
    return Budgets(ul, edge, dl, targets.get(ROUND_TRIP, before.round_trip_ms))


def _outcome(closed: Mapping[str, Any], budgets: Budgets) -> Outcome:
    """The outcome as it was, but for the users of whom nothing could be told."""
    stored = closed["measures"]
    users = tuple(dict.fromkeys(user for measure in stored.values() for user in measure["users"]))
    limits = {ROUND_TRIP: budgets.round_trip_ms, **{hop.value: budgets.of(hop) for hop in HOPS}}
    measures = tuple(
        Measure(
            name,
            "ms",
            "lower",
            tuple(
                stored[name]["users"][user][0] if user in stored[name]["users"] else None for user in users
            ),
            (limits[name],) * len(users),
            stored[name]["met"],
            stored[name]["samples"],
        )
        for name in MEASURES
    )
    return Outcome(
        closed["met"],
        bool(closed["busy"]),
        users,
        measures,
        {Lever(lever): Reason(why) for lever, why in closed["unattributed"].items()},
        closed["counts"],
        closed.get("faults", {}),
    )


# ---- text and chart --------------------------------------------------------------------------------------


def text(misses: Misses) -> str:
    """The tables as a person reads them."""
    lines: list[str] = []
    for cell, slices in misses.cells.items():
        for name, s in slices.items():
            n, judged = len(s.missed), s.judged
            lines.append(
                f"cell {cell}  slice {name}: {n} of {judged} judged control slots missed"
                + (f" ({n / judged:.1%})" if judged else "")
            )
            width = max((len(cause) for cause in s.by_cause()), default=0)
            for cause, hops in s.by_cause().items():
                total = hops.total()
                where = ", ".join(f"{hop or 'no hop'} {k}" for hop, k in sorted(hops.items()))
                bar = "█" * round(30 * total / n)
                lines.append(f"  {cause:{width}}  {total:5}  {total / n:6.1%}  {bar:30}  {where}")
    if not misses.cells:
        lines.append("no control slot of a slice of the service ar is over")
    for cell, left_out in misses.left_out.items():
        for name, service in left_out.items():
            lines.append(f"cell {cell}  slice {name}: service {service}, left out")
    for cell, gaps in misses.gaps.items():
        lines.append(f"cell {cell}: {gaps} control slots are not in the record")
    return "\n".join(lines)


def draw(axis: Any, slots: Sequence[MissedSlot], times: Array, last: float) -> None:
    """Missed control slots over time, stacked by cause: ``times`` of their beginnings, float64 [slots], on an
    axis from 0 to ``last``."""
    edges = np.linspace(0.0, max(last, 1e-9), STRETCHES + 1)
    below = np.zeros(STRETCHES)
    for cause in Cause:
        own = times[[slot.miss.cause is cause for slot in slots]]
        if len(own):
            counts, _ = np.histogram(own, edges)
            axis.bar(
                edges[:-1],
                counts,
                np.diff(edges),
                bottom=below,
                align="edge",
                color=COLOURS[cause],
                label=f"{cause} {len(own)}",
            )
            below += counts
    axis.set_ylabel("missed control slots")
    axis.set_ylim(bottom=0)
    if len(slots):
        figures.legend(axis)


def write_chart(path: Path, misses: Misses) -> None:
    """The chart of :func:`draw` for every slice, as an SVG file.

    ImportError as :func:`controller.store.figures.require`; StoreError where it cannot be written.
    """
    figures.require()
    import matplotlib
    from matplotlib.figure import Figure

    slices = [(cell, name, s) for cell, of in misses.cells.items() for name, s in of.items()]
    seconds = (misses.last_ns - misses.first_ns) / 1e9
    unit, scale = figures.unit(seconds)
    with matplotlib.rc_context(figures.RC):
        figure = Figure(figsize=(9.5, 2.2 * max(len(slices), 1) + 0.5), layout="constrained")
        panels = figure.subplots(max(len(slices), 1), 1, sharex=True, squeeze=False)[:, 0]
        panels[-1].set_xlabel(f"{unit} since the first control slot")
        for axis, (cell, name, s) in zip(panels, slices, strict=False):
            draw(axis, s.missed, misses.seconds(s) / scale, seconds / scale)
            axis.set_title(f"cell {cell}, slice {name}: {len(s.missed)} of {s.judged} missed")
        markup = figures.standalone_svg(figure)
    try:
        write_atomic(path, markup.encode())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
