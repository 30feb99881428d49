"""The missed control slots of a run by cause: as values, as text and as a chart.

Why each was missed its service says; :mod:`controller.misses` asks it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from controller.core.misses import Miss
from controller.store import figures
from controller.store.figures import Array
from controller.store.files import write_atomic
from controller.store.run import StoreError

_COLOURS = (
    "#5d6873", "#9aa5b1", "#4a6a96", "#c9b458", "#a38a1f", "#8d63c9", "#2f81c7", "#57b4c9", "#2a9563",
    "#cf7a22", "#d64545", "#b9b9b9", "#dcdcdc",
)  # fmt: skip
"""Of the causes in their order, again from the first where there are more."""
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
        return {"control_slot": self.control_slot, "begin_ns": self.begin_ns, **self.miss.to_dict()}


@dataclass(slots=True)
class SliceMisses:
    """One slice: its control slots, how many of them could be judged, and those that missed, in order.

    ``order`` are the causes that its service declares.
    """

    order: tuple[str, ...] = ()
    control_slots: int = 0
    judged: int = 0
    missed: list[MissedSlot] = field(default_factory=list)

    def by_cause(self) -> dict[str, Counter[str]]:
        """Missed control slots by cause, then by hop ("" where none is known); causes in their order."""
        found: dict[str, Counter[str]] = {}
        for slot in self.missed:
            hop = "" if slot.miss.hop is None else slot.miss.hop.value
            found.setdefault(slot.miss.cause, Counter())[hop] += 1
        return {cause: found[cause] for cause in self.order if cause in found}

    def result(self) -> dict[str, Any]:
        """Plain JSON: ``control_slots, judged, missed``, ``unavoidable`` (how many would have been missed at
        full resources too) and ``causes``: for each that there is its ``slots`` and their ``hops`` ("" where
        that is not known)."""
        return {
            "control_slots": self.control_slots,
            "judged": self.judged,
            "missed": len(self.missed),
            "unavoidable": sum(slot.miss.unavoidable for slot in self.missed),
            "causes": {
                str(cause): {"slots": n.total(), "hops": dict(n)} for cause, n in self.by_cause().items()
            },
        }


@dataclass(slots=True)
class Misses:
    """A run's missed control slots, by cell and slice.

    ``left_out`` are the slices whose service does not say why (cell -> slice -> service), ``gaps`` the
    control slots that are not in the record (cell -> lost or pruned): the one after a gap is left out too, as
    what was in force in it is not known.
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
        lines.append("no control slot is over of a slice whose service says why it missed")
    for cell, left_out in misses.left_out.items():
        for name, service in left_out.items():
            lines.append(f"cell {cell}  slice {name}: service {service}, left out")
    for cell, gaps in misses.gaps.items():
        lines.append(f"cell {cell}: {gaps} control slots are not in the record")
    return "\n".join(lines)


def draw(axis: Any, of: SliceMisses, times: Array, last: float) -> None:
    """A slice's missed control slots over time, stacked by cause: ``times`` of their beginnings, float64
    [missed], on an axis from 0 to ``last``."""
    edges = np.linspace(0.0, max(last, 1e-9), STRETCHES + 1)
    below = np.zeros(STRETCHES)
    for cause, colour in zip(of.order, cycle(_COLOURS), strict=False):
        own = times[[slot.miss.cause == cause for slot in of.missed]]
        if len(own):
            counts, _ = np.histogram(own, edges)
            axis.bar(
                edges[:-1],
                counts,
                np.diff(edges),
                bottom=below,
                align="edge",
                color=colour,
                label=f"{cause} {len(own)}",
            )
            below += counts
    axis.set_ylabel("missed control slots")
    axis.set_ylim(bottom=0)
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set_axisbelow(True)


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
            draw(axis, s, misses.seconds(s) / scale, seconds / scale)
            if s.missed:
                figures.legend(axis)
            axis.set_title(f"cell {cell}, slice {name}: {len(s.missed)} of {s.judged} missed")
        markup = figures.standalone_svg(figure)
    try:
        write_atomic(path, markup.encode())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
