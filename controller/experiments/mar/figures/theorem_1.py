"""Equation (12): where the normal approximation of Theorem 1 misleads, beside the exact distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from controller.allocators.mar.promise import approximation_errors
from controller.experiments.figures import COLOURS, Plot, Table, canvas, cell
from controller.experiments.mar.figures.base import Figure, Video

FRAMES: Final = (10, 30, 90, 300, 900)
HIT_PROBABILITY: Final = tuple(k / 100 for k in range(50, 100))
RHO: Final = (0.7, 0.8, 0.9, 0.95)
WORST: Final = 12


def compute(videos: Sequence[Video], advance: Callable[[str], None]) -> dict[str, Any]:
    epsilon = videos[0].options.epsilon
    rows = approximation_errors(FRAMES, HIT_PROBABILITY, RHO, epsilon)
    summary = [
        {
            "frames": n,
            "instances": sum(row["frames"] == n for row in rows),
            "largest_error": max(abs(row["error"]) for row in rows if row["frames"] == n),
            "largest_error_continuity": max(
                abs(row["continuity"] - row["exact"]) for row in rows if row["frames"] == n
            ),
            **{
                why: sum(row["frames"] == n and row["misleads"] == why for row in rows)
                for why in ("accepts wrongly", "refuses wrongly")
            },
        }
        for n in FRAMES
    ]
    advance("theorem-1")
    return {"epsilon": epsilon, "summary": summary, "rows": rows}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    worst = sorted((row for row in result["rows"] if row["misleads"]), key=lambda row: -abs(row["error"]))[
        :WORST
    ]
    return [
        "Frames hit independently, all with one probability; accepted where the promise is kept with a"
        f" probability of at least {result['epsilon']:g}.",
        Table(
            "By number of frames: the largest error of the probability, and wrong answers",
            ["frames", "instances", "normal", "with continuity", "accepts wrongly", "refuses wrongly"],
            [
                [
                    str(row["frames"]),
                    str(row["instances"]),
                    cell(row["largest_error"]),
                    cell(row["largest_error_continuity"]),
                    str(row["accepts wrongly"]),
                    str(row["refuses wrongly"]),
                ]
                for row in result["summary"]
            ],
        ),
        Table(
            "The wrong answers with the largest errors",
            [
                "frames",
                "hit probability",
                "rho",
                "exact",
                "normal",
                "with continuity",
                "skewness",
                "Theorem 1",
            ],
            [
                [
                    str(row["frames"]),
                    cell(row["hit_probability"], ".2f"),
                    cell(row["rho"], "g"),
                    *(cell(row[key]) for key in ("exact", "normal", "continuity", "skewness")),
                    row["misleads"],
                ]
                for row in worst
            ],
        ),
    ]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, axes = canvas(len(FRAMES), width=2.6)
    for axis, n in zip(axes[0], FRAMES, strict=True):
        for k, rho in enumerate(RHO):
            rows = [row for row in result["rows"] if row["frames"] == n and row["rho"] == rho]
            x = [row["hit_probability"] for row in rows]
            axis.plot(x, [row["exact"] for row in rows], color=COLOURS[k], label=f"rho {rho:g}, exact")
            axis.plot(x, [row["normal"] for row in rows], "--", color=COLOURS[k])
        axis.axhline(result["epsilon"], color=COLOURS[5], linewidth=0.8)
        axis.set_title(f"{n} frames")
        axis.set_xlabel("hit probability")
    axes[0][0].set_ylabel("P(the promise is kept)")
    axes[0][0].legend(fontsize=7)
    return [Plot("Exact (lines) and normal (dashes) probability of the promise", figure)]


FIGURE = Figure("Theorem 1 beside the exact distribution (equation 12)", lambda n: 1, compute, shown, plots)
