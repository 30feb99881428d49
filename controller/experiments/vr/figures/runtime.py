"""Fig. 5: run time, beside what the paper says of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.experiments.figures import COLOURS, Plot, Table, logarithmic
from controller.experiments.vr.figures.base import NAMES, Figure, Study, lines, plot

PAPER: Final = (
    "The paper: its optimum is proven for up to 6 users within an hour (CPLEX CP), that of RCA for up to 5;"
    " its heuristic takes less than 4 ms."
)
HOUR_S: Final = 3600.0
HEURISTIC_S: Final = 4e-3


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    return study.every(advance, lambda solved: {"seconds": solved["seconds"], "status": solved["status"]})


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    rows = [
        [
            str(users),
            *(f"{1e3 * result['of'][solver][k]['seconds']:.2f}" for solver in NAMES),
            result["of"]["exact"][k]["status"],
        ]
        for k, users in enumerate(result["users"])
    ]
    head = ["users", *NAMES.values(), "status"]
    return [
        PAPER,
        "From an instance that is read to a solution that is checked, after compilation.",
        Table("ms", head, rows),
    ]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure = lines(result, [("seconds", lambda entry: entry["seconds"])])
    (axis,) = figure.axes
    logarithmic(axis, "y")
    axis.axhline(HOUR_S, color=COLOURS[5], linewidth=0.8, linestyle="--")
    axis.text(1, HOUR_S * 1.2, "the paper's limit: its optimum, from 7 users on", fontsize=7)
    axis.axhline(HEURISTIC_S, color=COLOURS[5], linewidth=0.8, linestyle=":")
    axis.text(1, HEURISTIC_S * 0.5, "the paper's heuristic: below this", fontsize=7)
    axis.legend(fontsize=7, loc="center right")
    return plot("Run time", figure)


FIGURE = Figure("Run time (Fig. 5)", lambda users: users, compute, shown, plots)
