"""What each decision is worth: methods beside baselines that take one beforehand, on the same drops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.allocators.urllc.baselines import BASELINES, local_processing
from controller.allocators.urllc.instance import Instance
from controller.experiments.figures import COLOURS, Plot, Table, canvas
from controller.experiments.urllc.figures.base import (
    NAMES,
    SOLVERS,
    Figure,
    Outcome,
    Solver,
    Study,
    half,
    interval,
    middle,
    paired,
    summary,
)
from controller.experiments.urllc.readings import READINGS, SHOWN

NOTHING_SENT: Final = "all local, nothing sent"
_SOLVERS: Final[Mapping[str, Solver]] = {**SOLVERS, **BASELINES}


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    of: dict[str, dict[str, list[Outcome | None]]] = {
        reading: {name: [] for name in (*_SOLVERS, NOTHING_SENT)} for reading in SHOWN
    }
    for seed in range(study.drops):
        for reading in SHOWN:
            instance = READINGS[reading].instance(seed)
            for name, solver in _SOLVERS.items():
                a = solver(instance)
                of[reading][name].append(None if a is None else Outcome.of(instance, a))
            of[reading][NOTHING_SENT].append(_nothing_sent(instance))
        advance(f"drop {seed}")
    rows = [
        {
            "reading": reading,
            "method": name,
            **summary(outcomes),
            "worse": paired(outcomes, of[reading]["joint"], relative=True),
        }
        for reading in SHOWN
        for name, outcomes in of[reading].items()
    ]
    return {"drops": study.drops, "rows": rows}


def _nothing_sent(instance: Instance) -> Outcome:
    cached, latency = local_processing(instance)
    edge, local = float(latency[cached].sum()), float(latency[~cached].sum())
    late = int((latency > instance.deadline_ms).sum())
    return Outcome(edge + local, local, 0.0, edge, None if cached.all() else 0.0, late)


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    out: list[str | Table] = [
        "Each with everything else optimised. As printed, equation (2) has a device send its whole task even"
        f' where it processes all of it, which is what makes "all local" dear; "{NOTHING_SENT}" is what a'
        " device would do that is not bound to that, at the rate that its energy allows.",
    ]
    for reading in SHOWN:
        rows = [
            [
                NAMES.get(row["method"], row["method"]),
                *(interval(row[key]) for key in ("total_ms", "local_ms", "transmission_ms", "edge_ms")),
                interval(row["worse"], "+.2f", 100.0),
                interval(row["share"], ".2f"),
                f"{row['served']} of {result['drops']}",
                str(row["late"]),
            ]
            for row in result["rows"]
            if row["reading"] == reading
        ]
        head = ["method", "total", "local", "air", "edge", "% above joint", "share", "drops", "late"]
        out.append(Table(f"Latency, ms: {READINGS[reading].title}", head, rows))
    return out


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, axes = canvas(len(SHOWN), width=4.6)
    for axis, reading in zip(axes[0], SHOWN, strict=True):
        rows = [row for row in result["rows"] if row["reading"] == reading][::-1]
        left = [0.0] * len(rows)
        for k, part in enumerate(("local_ms", "transmission_ms", "edge_ms")):
            values = [middle(row[part]) for row in rows]
            label = ("local", "transmission", "edge")[k]
            axis.barh(range(len(rows)), values, left=left, color=COLOURS[k], label=label)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axis.errorbar(
            left, range(len(rows)), xerr=[half(row["total_ms"]) for row in rows], fmt="none", capsize=2
        )
        axis.set_yticks(
            range(len(rows)), [NAMES.get(row["method"], row["method"]) for row in rows], fontsize=7
        )
        axis.set_xlabel("total latency, ms")
        axis.set_title(reading, fontsize=8)
    axes[0][0].legend(fontsize=7)
    return [Plot("Total latency of methods and baselines, by part", figure)]


FIGURE = Figure("Baselines", lambda drops: drops, compute, shown, plots)
