"""Fig. 3: total latency and offloaded share against the edge server's rate, with and without a deviation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.experiments.figures import COLOURS, Plot, Table, canvas
from controller.experiments.urllc.figures.base import (
    METHODS,
    NAMES,
    Figure,
    Study,
    half,
    interval,
    middle,
    paired,
    summary,
)
from controller.experiments.urllc.readings import READINGS, SHOWN

EDGE_GHZ: Final = (30.0, 32.0, 34.0, 36.0, 38.0)
DEVIATION: Final = 0.02
PAPER: Final = (
    "The paper shows about 19 ms at 30 GHz, nearly 2.5 ms less at 38 GHz, an offloaded share of 0.70 that"
    " rises to 0.71, and a higher latency where rates fall short by 2 %. The share is of the tasks that are"
    " not cached."
)


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    curves = []
    for reading in SHOWN:
        for method in METHODS:
            exact, short = (
                [
                    study.outcomes(reading, method, edge_hz=1e9 * ghz, ue_deviation=d, edge_deviation=d)
                    for ghz in EDGE_GHZ
                ]
                for d in (0.0, DEVIATION)
            )
            curves.append(
                {
                    "reading": reading,
                    "method": method,
                    "exact": [summary(of) for of in exact],
                    "deviation": [summary(of) for of in short],
                    "cost_of_deviation_ms": [paired(a, b) for a, b in zip(short, exact, strict=True)],
                    "fall_ms": [paired(of[0], of[-1]) for of in (exact, short)],
                }
            )
            advance(f"{reading}, {method}")
    return {"edge_ghz": list(EDGE_GHZ), "deviation": DEVIATION, "curves": curves}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    out: list[str | Table] = [PAPER]
    for curve in result["curves"]:
        rows = [
            [
                f"{ghz:g}",
                interval(curve["exact"][k]["total_ms"]),
                interval(curve["deviation"][k]["total_ms"]),
                interval(curve["cost_of_deviation_ms"][k], ".4f"),
                interval(curve["exact"][k]["share"]),
                interval(curve["deviation"][k]["share"]),
            ]
            for k, ghz in enumerate(result["edge_ghz"])
        ]
        rows.append(["30 less 38", *(interval(fall) for fall in curve["fall_ms"]), "", "", ""])
        head = ["F, GHz", "no deviation", "2 %", "2 % costs", "share", "share, 2 %"]
        caption = f"Total latency, ms: {NAMES[curve['method']]}, {READINGS[curve['reading']].title}"
        out.append(Table(caption, head, rows))
    return out


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, axes = canvas(2, 2, width=4.8)
    for axis, curve in zip(axes.flat, result["curves"], strict=True):
        right = axis.twinx()
        for k, (key, label) in enumerate((("exact", "no deviation"), ("deviation", "2 % short"))):
            axis.errorbar(
                result["edge_ghz"],
                [middle(point["total_ms"]) for point in curve[key]],
                yerr=[half(point["total_ms"]) for point in curve[key]],
                marker="os"[k],
                markersize=3.5,
                capsize=2,
                color=COLOURS[k],
                label=label,
            )
        right.plot(
            result["edge_ghz"],
            [middle(point["share"]) for point in curve["exact"]],
            marker="^",
            markersize=3.5,
            linestyle="--",
            color=COLOURS[2],
            label="share, no deviation",
        )
        right.set_ylim(0.0, 1.0)
        right.grid(False)
        right.set_ylabel("offloaded share")
        axis.set_title(f"{NAMES[curve['method']]}; {curve['reading']}", fontsize=8)
        axis.set_xlabel("rate of the edge server, GHz")
        axis.set_ylabel("total latency, ms")
    handles = [axes[0][0].get_legend_handles_labels(), right.get_legend_handles_labels()]
    axes[0][0].legend(handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], fontsize=7)
    return [Plot("Total latency and offloaded share against the edge server's rate", figure)]


FIGURE = Figure("Edge rate (Fig. 3)", lambda drops: len(SHOWN) * len(METHODS), compute, shown, plots)
