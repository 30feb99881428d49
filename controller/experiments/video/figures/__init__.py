"""``prbandit figures video``: figure 5, and what the paper does not show.

A figure is a file of this package with a ``FIGURE`` and a line of :data:`FIGURES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from controller.experiments import figures
from controller.experiments.figures import Progress
from controller.experiments.video.figures import (
    ablation,
    demand,
    emulation,
    fig_5,
    load,
    models,
    regret,
    windows,
)
from controller.experiments.video.figures.base import Figure
from controller.experiments.video.study import Study

FIGURES: Final[Mapping[str, Figure]] = {
    "fig-5": fig_5.FIGURE,
    "load": load.FIGURE,
    "ablation": ablation.FIGURE,
    "regret": regret.FIGURE,
    "models": models.FIGURE,
    "demand": demand.FIGURE,
    "emulation": emulation.FIGURE,
    "windows": windows.FIGURE,
}
NAMES: Final = tuple(FIGURES)
NETWORKED: Final = frozenset({"fig-5", "ablation", "regret"})
"""Figures with schemes that take networks."""


def run(study: Study, out: Path, names: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Compute figures. Writes ``figures.json``, an SVG file for each plot and ``figures.html`` to ``out``.
    Returns what is in ``figures.json``.

    ImportError, naming the extra ``video``.
    """
    figures.require("video")
    computed: dict[str, Any] = {}
    with progress("figures", sum(FIGURES[name].pieces(study.seeds) for name in names)) as advance:
        for name in names:
            computed[name] = FIGURES[name].compute(study, advance)
    result = {"seeds": study.seeds, "judged_s": study.judged_s, "figures": computed}
    introduction = (
        f"Means over {study.seeds} seeds with 95 % intervals; every scheme meets the same worlds, of which"
        f" {study.judged_s / 60:.0f} minutes are judged, in windows of 3 minutes, on drawn scores."
    )
    figures.write(result, FIGURES, out, "Video: digital agents", [introduction])
    return result


def text(result: Mapping[str, Any]) -> str:
    """Every figure as sentences and tables."""
    return figures.text(result["figures"], FIGURES)
