"""What a figure is: computed from videos, shown as sentences and tables, drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.splits import Kind, split
from controller.allocators.mar.traces import Observed, observe, place
from controller.experiments.mar.baselines import Problem, twins
from wire.definitions.poses import FloatArray, IntArray
from wire.definitions.vchr import Content

COLOURS = ("#2f81c7", "#cf7a22", "#2a9563", "#d64545", "#8d63c9", "#5d6873", "#c2549d", "#8a6d3b")


DEFAULT_SNR_DB: tuple[FloatArray, ...] = (np.array([10.0]),)
"""Where no channel is given."""


@dataclass
class Video:
    """Poses [users, frames, 6] of people who watch one video, and what is computed of them once.

    ``snr_db``: samples of the SNR; user k has those of k modulo their number."""

    name: str
    poses: FloatArray
    options: MarOptions
    snr_db: tuple[FloatArray, ...] = DEFAULT_SNR_DB
    _twins: dict[tuple[Kind, int], FloatArray] = field(default_factory=dict)

    @cached_property
    def content(self) -> Content:
        return place(self.poses, size_m=self.options.content_m, cells=self.options.cells)

    @cached_property
    def observed(self) -> Observed:
        return self.observe()

    def observe(self, **other: Any) -> Observed:
        """With other options than the service's (:func:`controller.allocators.mar.traces.observe`)."""
        o = self.options
        default: dict[str, Any] = {
            "field_of_view_deg": o.field_of_view_deg,
            "history": o.history_frames,
            "lookahead": o.lookahead_frames,
        }
        return observe(self.poses, o.upload_hz, self.content, **(default | other))

    def split(self, kind: Kind, seed: int = 0) -> tuple[IntArray, IntArray]:
        """Places of frames to train on and to test on. ValueError, naming the video, for too few."""
        o = self.options
        try:
            return split(
                len(self.observed.frame), kind, seed, history=o.history_frames, lookahead=o.lookahead_frames
            )
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def problem(self, kind: Kind, seed: int = 0) -> Problem:
        """What models are learned from, and tested on."""
        return Problem(self.observed, *self.split(kind, seed), self.content, self.options, seed)

    def twins(self, kind: Kind, seed: int = 0) -> FloatArray:
        """What the twins say of the test frames: [users, frequencies, frames, bins]."""
        if (kind, seed) not in self._twins:
            self._twins[kind, seed] = twins(self.problem(kind, seed))
        return self._twins[kind, seed]


class Table(NamedTuple):
    """Rows of cells as text; the first column reads from the left."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Plot(NamedTuple):
    """A matplotlib figure and what it shows."""

    caption: str
    figure: Any


@dataclass(frozen=True, slots=True)
class Figure:
    """``pieces``: how often ``compute`` reports progress, by the number of videos. Its result is plain JSON,
    ``shown`` makes sentences and tables of it, ``plots`` drawings."""

    title: str
    pieces: Callable[[int], int]
    compute: Callable[[Sequence[Video], Callable[[str], None]], dict[str, Any]]
    shown: Callable[[Mapping[str, Any]], list[str | Table]]
    plots: Callable[[Mapping[str, Any]], list[Plot]]


def cell(value: float | None, form: str = ".3f") -> str:
    """A number of a table; ``-`` for None and NaN."""
    return "-" if value is None or value != value else format(value, form)


def plain(values: Any) -> Any:
    """An array as lists of numbers; NaN as None."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, list):
        return [plain(value) for value in values]
    return None if isinstance(values, float) and values != values else values


def hertz(upload_hz: Sequence[float]) -> list[str]:
    """Heads of columns."""
    return [f"{hz:g} Hz" for hz in upload_hz]


def canvas(columns: int, rows: int = 1, width: float = 3.6, height: float = 3.2) -> tuple[Any, Any]:
    """A matplotlib figure and its axes [rows][columns]."""
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(max(width * columns, 5.0), height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
