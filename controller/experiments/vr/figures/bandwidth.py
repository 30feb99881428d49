"""Fig. 4: bandwidth that is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.experiments.figures import Plot, Table, cell
from controller.experiments.vr.figures.base import NAMES, Figure, Study, lines, plot


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    return study.every(advance, lambda solved: sum(s["used"] for s in solved["bandwidth_hz"]) / 1e6)


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    rows = [
        [str(users), *(cell(result["of"][solver][k], ".2f") for solver in NAMES)]
        for k, users in enumerate(result["users"])
    ]
    return [Table("MHz of all base stations", ["users", *NAMES.values()], rows)]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    return plot("Bandwidth in use", lines(result, [("MHz", lambda mhz: mhz)]))


FIGURE = Figure("Bandwidth (Fig. 4)", lambda users: users, compute, shown, plots)
