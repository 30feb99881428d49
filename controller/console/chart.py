"""Decisions as a picture: a file where matplotlib is there, characters where it is not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.console.history import Column, Decisions
from controller.core.names import printable

_SPARKS = "▁▂▃▄▅▆▇█"
_COLUMNS = 60


class Drawing(str):
    """Lines of characters that a console shows as they are."""

    def __repr__(self) -> str:
        return str(self)


def plot(of: Mapping[str, Decisions], title: str, file: Path | str | None) -> Path | Drawing:
    """Draw the decisions of slices; ValueError where none was seen yet."""
    if not any(len(decisions.control_slot) for decisions in of.values()):
        raise ValueError(f"{title}: no decision seen yet")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        if file is not None:
            raise
        return Drawing("\n".join(_lines(of)))
    panels = [(name, c, d) for name, d in of.items() for c in d.values() if not np.isnan(_shown(c)).all()]
    shows = file is None and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    figure: Any
    size = (9.0, 1.2 + 1.6 * len(panels))
    if shows:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=size, layout="constrained")
    else:
        figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, column, decisions) in zip(axes, panels, strict=True):
        _draw(axis, name, column, decisions)
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(AutoDateLocator()))
    axes[-1].set_xlabel("UTC")
    figure.suptitle(title)
    known: dict[str, Any] = {}
    for axis in figure.axes:
        known |= {label: line for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(known.values()), list(known), loc="outside lower center", ncols=3)
    path = _target(file)
    figure.savefig(path, dpi=120)
    if shows:
        figure.show()
    return path


def _target(file: Path | str | None) -> Path:
    if file is not None:
        return Path(file)
    handle, path = tempfile.mkstemp(".png", "prbandit-")
    os.close(handle)
    return Path(path)


def _shown(column: Column) -> NDArray[np.float64]:
    """The actions of a lever, the values of a measure."""
    return column.value if np.isnan(column.action).all() else column.action


def _draw(axis: Any, name: str, column: Column, decisions: Decisions) -> None:
    of_action, of_value = column.units
    what = f"{printable(name)} {column.name.replace('_', ' ')}"
    acts = not np.isnan(column.action).all()
    axis.set_ylabel(f"{what}\n{of_action if acts else of_value}")
    if acts:
        axis.step(decisions.time, column.action, where="post", color="C0", label="action")
        axis.set_ylim(bottom=0)
    if not np.isnan(column.value).all():
        other = axis.twinx() if acts else axis
        other.plot(decisions.time, column.value, ".", color="C1", markersize=4, label="what came of it")
        other.step(decisions.time, column.budget, where="post", color="C3", lw=0.8, label="budget or target")
        if acts:
            other.set_ylabel(of_value)
        other.set_ylim(bottom=min(0.0, float(np.nanmin(column.value))))


def _lines(of: Mapping[str, Decisions]) -> Iterator[str]:
    for name, decisions in of.items():
        for column in decisions.values():
            values = _shown(column)[-_COLUMNS:]
            known = values[~np.isnan(values)]
            if not len(known):
                continue
            high = max(float(known.max()), 1e-9)
            marks = "".join(" " if np.isnan(v) else _SPARKS[min(7, int(v / high * 8))] for v in values)
            yield f"{printable(name):10} {column.name:12} {marks}  last {known[-1]:.4g}, highest {high:.4g}"
