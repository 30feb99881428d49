"""``prbandit figures urllc``: the paper's figures, and what it does not show.

A figure is a file of this package with a ``FIGURE`` and a line of :data:`FIGURES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from controller.experiments import figures
from controller.experiments.figures import Progress
from controller.experiments.urllc.figures import (
    baselines,
    deviation,
    dispersion,
    edge,
    energy,
    gap,
    readings,
    sensitivity,
    twins,
)
from controller.experiments.urllc.figures.base import Figure, Study

FIGURES: Final[Mapping[str, Figure]] = {
    "fig-2": energy.FIGURE,
    "fig-3": edge.FIGURE,
    "readings": readings.FIGURE,
    "baselines": baselines.FIGURE,
    "gap": gap.FIGURE,
    "dispersion": dispersion.FIGURE,
    "sensitivity": sensitivity.FIGURE,
    "deviation": deviation.FIGURE,
    "twins": twins.FIGURE,
}
NAMES: Final = tuple(FIGURES)


def run(study: Study, out: Path, names: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Compute figures. Writes ``figures.json``, an SVG file for each plot and ``figures.html`` to ``out``.
    Returns what is in ``figures.json``.

    ImportError, naming the extra ``urllc``.
    """
    figures.require("urllc")
    computed: dict[str, Any] = {}
    with progress("figures", sum(FIGURES[name].pieces(study.drops) for name in names)) as advance:
        for name in names:
            computed[name] = FIGURES[name].compute(study, advance)
    result = {"drops": study.drops, "figures": computed}
    introduction = (
        f"Means over {study.drops} drops with 95 % intervals; every method, reading and parameter meets the"
        " same drops. Latencies are exact, with the channel's dispersion."
    )
    figures.write(result, FIGURES, out, "URLLC offloading and caching: total latency", [introduction])
    return result


def text(result: Mapping[str, Any]) -> str:
    """Every figure as sentences and tables."""
    return figures.text(result["figures"], FIGURES)
