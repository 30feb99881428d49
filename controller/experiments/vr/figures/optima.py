"""The optimum under the constraints of the authors' code, with its proof."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.experiments.figures import Plot, Table, cell
from controller.experiments.vr.figures.base import Figure, Study

KEYS = ("objective", "bound", "gap", "status", "seconds", "admitted")


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    rows = []
    for users in study.counts():
        solved = study.solved(users, "exact")
        rows.append({"users": users, **{key: solved[key] for key in KEYS}})
        advance(f"{users} users")
    return {"rows": rows, "time_limit_s": study.time_limit_s}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    rows = [
        [
            str(row["users"]),
            cell(row["objective"], ".6f"),
            cell(row["bound"], ".6f"),
            cell(row["gap"], ".1e"),
            row["status"],
            cell(row["seconds"]),
            str(row["admitted"]),
        ]
        for row in result["rows"]
    ]
    head = ["users", "objective", "bound", "gap", "status", "seconds", "admitted"]
    return [f"At most {result['time_limit_s']:g} s each, on one core.", Table("Optima", head, rows)]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    return []


FIGURE = Figure("Optima of the authors' constraints", lambda users: users, compute, shown, plots)
