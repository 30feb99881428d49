"""``prbandit figures vr``: the paper's figures, and what it does not show.

A figure is a file of this package with a ``FIGURE`` and a line of :data:`FIGURES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from controller.experiments import figures
from controller.experiments.figures import Progress
from controller.experiments.vr.figures import (
    attention,
    bandwidth,
    fairness,
    forms,
    growth,
    optima,
    qoe,
    runtime,
)
from controller.experiments.vr.figures.base import Figure, Study

FIGURES: Final[Mapping[str, Figure]] = {
    "qoe": qoe.FIGURE,
    "fairness": fairness.FIGURE,
    "bandwidth": bandwidth.FIGURE,
    "run-time": runtime.FIGURE,
    "optima": optima.FIGURE,
    "forms": forms.FIGURE,
    "growth": growth.FIGURE,
    "attention": attention.FIGURE,
}
NAMES: Final = tuple(FIGURES)


def run(study: Study, out: Path, names: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Compute figures. Writes ``figures.json``, an SVG file for each plot and ``figures.html`` to ``out``.
    Returns what is in ``figures.json``.

    ImportError, naming the extra ``vr``.
    """
    figures.require("vr")
    computed: dict[str, Any] = {}
    with progress("figures", sum(FIGURES[name].pieces(study.users) for name in names)) as advance:
        for name in names:
            computed[name] = FIGURES[name].compute(study, advance)
    result = {"users": study.users, "time_limit_s": study.time_limit_s, "figures": computed}
    introduction = (
        f"Solvers on the first 1 to {study.users} users of an instance, at most {study.time_limit_s:g} s"
        " each. Every solution has passed the checker, which knows nothing of the solvers."
    )
    figures.write(result, FIGURES, out, "VR-GX: cloud gaming by what users look at", [introduction])
    return result


def text(result: Mapping[str, Any]) -> str:
    """Every figure as sentences and tables."""
    return figures.text(result["figures"], FIGURES)
