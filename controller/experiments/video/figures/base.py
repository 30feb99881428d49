"""What the figures of the case study have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from controller.experiments import figures
from controller.experiments.figures import COLOURS, cell
from controller.experiments.video.study import Study

Figure = figures.Figure[Study]
"""Computed from a study; ``pieces`` by its number of seeds."""

SHOWN: Final[Mapping[str, str]] = {
    "agents": "agents (proposed)",
    "agents-bdqn": "agents, BDQN",
    "pdrl-l1": "PDRL-L1",
    "without-agents": "without agents",
    "hsla-l2": "HSLA-L2",
}
"""Titles of the schemes of figure 5."""
COLOUR: Final = dict(zip(SHOWN, COLOURS, strict=False))
SUMMARY: Final = ("ratio", "kept", "kept_of_possible", "score", "prb", "cycles")
SUMMARY_HEADS: Final = ("QoE / ELA", "ELA kept", "of possible", "score", "PRBs reserved", "cycles reserved")


def interval(of: Mapping[str, float | None] | None, form: str = ".3f", factor: float = 1.0) -> str:
    """``mean +- half width`` of a 95 % interval."""
    if of is None or of["mean"] is None:
        return "-"
    half = of["half_95"]
    return cell(factor * of["mean"], form) + (
        "" if half is None else f" +- {cell(factor * half, form.replace('+', ''))}"
    )


def middle(of: Mapping[str, Any] | None) -> float:
    """The mean, NaN of nothing."""
    return float("nan") if of is None else float(of["mean"])


def half(of: Mapping[str, Any] | None) -> float:
    """Half the width of the interval, 0 where there is none."""
    return 0.0 if of is None or of["half_95"] is None else float(of["half_95"])


def summary_row(name: str, of: Mapping[str, Any], keys: Sequence[str] = SUMMARY) -> list[str]:
    """A row of a table of :data:`SUMMARY`."""
    return [name, *(interval(of[key]) for key in keys)]


def banded(axes: Any, x: Sequence[float], rows: Sequence[Mapping[str, Any] | None], **options: Any) -> None:
    """A line of estimates with its intervals as a band."""
    y, h = [middle(of) for of in rows], [half(of) for of in rows]
    (line,) = axes.plot(x, y, **options)
    axes.fill_between(
        x,
        [a - b for a, b in zip(y, h, strict=True)],
        [a + b for a, b in zip(y, h, strict=True)],
        color=line.get_color(),
        alpha=0.15,
        linewidth=0,
    )
