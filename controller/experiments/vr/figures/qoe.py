"""Fig. 2: total and mean QoE by the number of users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.experiments.figures import Plot, Table, cell
from controller.experiments.vr.figures.base import NAMES, Figure, Study, lines, plot


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    keys = ("objective", "admitted", "status", "gap")
    return study.every(advance, lambda solved: {key: solved[key] for key in keys})


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    rows = []
    for k, users in enumerate(result["users"]):
        of = [result["of"][solver][k] for solver in NAMES]
        heuristic = of[1]["objective"] / of[0]["objective"] - 1.0 if of[0]["objective"] else None
        rows.append(
            [
                str(users),
                *(cell(entry["objective"]) for entry in of),
                of[0]["status"],
                "-" if heuristic is None else f"{100.0 * heuristic:+.3f} %",
                *(str(entry["admitted"]) for entry in of),
            ]
        )
    return [
        "Constraints of the authors' code, attention-weighted objective. The mean is over who is admitted.",
        Table(
            "Total QoE, the heuristic beside the optimum, and who is admitted",
            [
                "users",
                *NAMES.values(),
                "status",
                "heuristic",
                *(f"admitted, {solver}" for solver in NAMES),
            ],
            rows,
        ),
    ]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    def mean(entry: Any) -> float | None:
        return entry["objective"] / entry["admitted"] if entry["admitted"] else None

    figure = lines(result, [("total QoE", lambda e: e["objective"]), ("mean QoE of the admitted", mean)])
    return plot("Total and mean QoE", figure)


FIGURE = Figure("QoE (Fig. 2)", lambda users: users, compute, shown, plots)
