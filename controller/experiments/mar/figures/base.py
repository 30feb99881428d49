"""What figures are computed from: videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.splits import Kind, split
from controller.allocators.mar.traces import Observed, observe, place
from controller.experiments import figures
from controller.experiments.mar.baselines import Problem, twins
from wire.definitions.poses import FloatArray, IntArray
from wire.definitions.vchr import Content

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


Figure = figures.Figure[Sequence[Video]]
"""Computed from videos; ``pieces`` by their number."""


def hertz(upload_hz: Sequence[float]) -> list[str]:
    """Heads of columns."""
    return [f"{hz:g} Hz" for hz in upload_hz]
