"""Fig. 3: fairness of QoE and of latency, and who is admitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.experiments.figures import Plot, Table, cell
from controller.experiments.vr.figures.base import NAMES, Figure, Study, lines, plot

KEYS = {"jain_qoe": "Jain index of QoE", "jain_latency": "Jain index of latency", "admitted": "admitted"}


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    return study.every(advance, lambda solved: {key: solved[key] for key in KEYS})


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    tables: list[str | Table] = ["The index is over the admitted users."]
    for key in ("jain_qoe", "jain_latency"):
        rows = [
            [str(users), *(cell(result["of"][solver][k][key]) for solver in NAMES)]
            for k, users in enumerate(result["users"])
        ]
        tables.append(Table(KEYS[key], ["users", *NAMES.values()], rows))
    return tables


def plots(result: Mapping[str, Any]) -> list[Plot]:
    panels: list[tuple[str, Callable[[Any], float | None]]] = [
        (label, lambda entry, key=key: entry[key])  # type: ignore[misc]
        for key, label in KEYS.items()
    ]
    return plot("Fairness and admission", lines(result, panels))


FIGURE = Figure("Fairness and admission (Fig. 3)", lambda users: users, compute, shown, plots)
