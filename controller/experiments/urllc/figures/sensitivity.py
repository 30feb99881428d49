"""How much the parameters matter that the paper leaves open: the interval phi and R_min; and epsilon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.allocators.urllc.instance import DEFAULTS, DEVICE_DEFAULTS
from controller.experiments.figures import Plot, Table
from controller.experiments.urllc.figures.base import Figure, Study, interval, paired, summary
from controller.experiments.urllc.readings import SHOWN

VALUES: Final[Mapping[str, tuple[float, ...]]] = {
    "interval_ms": (0.1, 0.25, 0.5, 1.0, 2.0, 10.0),
    "min_rate_bps": (0.0, 1e6, 4e6, 8e6, 8.5e6, 9e6, 12e6),
    "error": (1e-9, 1e-7, 1e-5, 1e-3),
}
LABELS: Final = {"interval_ms": "phi, ms", "min_rate_bps": "R_min, bit/s", "error": "epsilon"}


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    rows = []
    for reading in SHOWN:
        before = study.outcomes(reading, "joint")
        for key, values in VALUES.items():
            for value in values:
                of = study.outcomes(reading, "joint", **{key: value})
                change = paired(of, before, relative=True)
                rows.append({"reading": reading, "key": key, "value": value, **summary(of), "change": change})
            advance(f"{reading}, {key}")
    return {"drops": study.drops, "rows": rows}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    defaults = {**DEFAULTS, **DEVICE_DEFAULTS}
    out: list[str | Table] = ["The joint method. * is the default. A drop is late where some device is."]
    for key, label in LABELS.items():
        rows = [
            [
                f"{row['reading']}, {row['value']:g}{' *' if row['value'] == defaults[key] else ''}",
                interval(row["total_ms"]),
                interval(row["change"], "+.2f", 100.0),
                interval(row["share"], ".2f"),
                f"{row['late']} of {row['served']}",
            ]
            for row in result["rows"]
            if row["key"] == key
        ]
        head = [f"reading, {label}", "total, ms", "% of the default's", "share", "late drops"]
        out.append(Table(f"Sensitivity: {label}", head, rows))
    return out


def plots(result: Mapping[str, Any]) -> list[Plot]:
    return []


FIGURE = Figure("Sensitivity", lambda drops: len(SHOWN) * len(VALUES), compute, shown, plots)
