"""The study as one self-contained HTML page: tables, losses, and QoS against resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controller.experiments.study import result as result_module
from controller.experiments.study.jobs import CLAIRVOYANT
from controller.experiments.study.result import LABELS, REFERENCES, RESOURCES
from controller.store import figures

DRAWN = ("whole", "first_5min", "last_third")
_COLOURS = ("#5d6873", "#cf7a22", "#d64545", "#2f81c7", "#8d63c9", "#c2549d", "#8a6d3b", "#3aa6a0", "#6b8e23")
_CLAIRVOYANT = "#2a9563"
_MARKERS = "osD^vP<>h"
_TEMPLATE = Path(__file__).with_name("study.html")


def require() -> None:
    """ImportError, naming the extra ``report``, where the page cannot be made: before the long work."""
    figures.template(_TEMPLATE)


def build(out: Mapping[str, Any]) -> str:
    """The page of a :func:`controller.experiments.study.result.result`.

    ImportError, naming the extra ``report``, where matplotlib or Jinja2 is not installed.
    """
    template = figures.template(_TEMPLATE)
    page: str = template.render(
        r=out,
        tables=[
            {
                "condition": name,
                "text": condition["text"],
                "scenario": scenario,
                "rows": (rows := _rows(out, name, scenario)),
                "parts": {
                    part: label
                    for part, label in out["parts"].items()
                    if any(r["parts"][part]["figures"]["qos_windows"]["mean"] is not None for r in rows)
                },
                "svg": _plane(out, name, scenario),
            }
            for name, condition in out["conditions"].items()
            for scenario in condition["scenarios"]
        ],
        figures=("qos_windows", *RESOURCES, "resources"),
        references=REFERENCES,
        resources=RESOURCES,
        labels=LABELS,
        cell=result_module.cell,
        points=result_module.points,
        ratio=result_module.ratio,
        loss_value=result_module.loss_value,
    )
    return page


def _rows(out: Mapping[str, Any], condition: str, scenario: int) -> list[Mapping[str, Any]]:
    return [r for r in out["rows"] if (r["condition"], r["scenario"]) == (condition, scenario)]


def _plane(out: Mapping[str, Any], condition: str, scenario: int) -> Any:
    """QoS against resources, a point a policy with its intervals, a part of the run a plot."""
    import matplotlib
    from matplotlib.figure import Figure

    colours = {p: (_COLOURS[i % 9], _MARKERS[i % 9]) for i, p in enumerate(out["policies"])}
    colours[CLAIRVOYANT] = (_CLAIRVOYANT, "*")
    label = f"QoS against resources, {condition}, scenario {scenario}"
    with matplotlib.rc_context(figures.RC):
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        axes = figure.subplots(1, len(DRAWN), sharey=True)
        means: list[float] = []
        for axis, part in zip(axes, DRAWN, strict=True):
            for row in _rows(out, condition, scenario):
                of = row["parts"][part]["figures"]
                x, y = of["resources"], of["qos_windows"]
                if x["mean"] is None or y["mean"] is None:
                    continue
                means.append(y["mean"])
                colour, marker = colours[row["policy"]]
                axis.errorbar(
                    x["mean"],
                    y["mean"],
                    xerr=x["half_95"],
                    yerr=y["half_95"],
                    fmt=marker,
                    color=colour,
                    markersize=9 if marker == "*" else 5,
                    label=row["policy"],
                )
            axis.set_title(out["parts"][part])
            axis.set_xlabel("resources, of full")
            axis.set_xlim(0, 1.05)
        axes[0].set_ylabel("QoS delivery ratio")
        axes[0].set_ylim(*_range(means))
        if axes[-1].get_legend_handles_labels()[0]:
            figures.legend(axes[-1])
        return figures.svg(figure, f"{condition}-{scenario}", label)


def _range(means: Sequence[float]) -> tuple[float, float]:
    """Of the QoS axis: all means. Intervals of few seeds reach far beyond what a ratio can be."""
    return (max(0.0, min(means) - 0.08), min(1.02, max(means) + 0.05)) if means else (0.0, 1.02)
