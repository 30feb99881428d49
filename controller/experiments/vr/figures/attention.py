"""Predicted attention, scored against the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.experiments.figures import Plot, Table, cell
from controller.experiments.vr import attention
from controller.experiments.vr.figures.base import Figure, Study

PAPER_RMSE: Final = 0.60


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    if study.attention is None:
        advance("attention")
        return {}
    result = attention.scores(*attention.read(study.attention))
    advance("attention")
    return result


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    if not result:
        return ["No ratings were given (--attention)."]
    rows = [
        [
            row["model"] + (" *" if row["chosen"] else ""),
            *(cell(row[k]) for k in ("cross_validated", "all", "missing")),
        ]
        for row in result["rows"]
    ]
    total = result["users"] * result["objects"]
    return [
        f"{result['users']} users, {result['objects']} objects, {result['missing']} of {total} ratings are"
        f" missing. Observed ratings are those of the ground truth in {100.0 * result['agree']:.0f} % of the"
        f" entries and differ by {result['differ']:.2f} (RMSE).",
        f"Matrix factorisation by Cornac; of each rank the settings with the least cross-validated error, *"
        f" the least of all. The authors reach {PAPER_RMSE:.2f}.",
        Table("RMSE", ["model", "held-out observed", "truth, all", "truth, missing"], rows),
    ]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    return []


FIGURE = Figure("Attention", lambda users: 1, compute, shown, plots)
