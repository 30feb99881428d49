"""What it costs to plan with a deviation of processing rates that is not the real one: Fig. 3's lesson."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, Final

import numpy as np

from controller.allocators.urllc.instance import Instance
from controller.allocators.urllc.model import Allocation, parts
from controller.allocators.urllc.resources import late_ms
from controller.experiments.figures import Plot, Table
from controller.experiments.urllc.figures.base import Figure, Study, by_method, interval, mean
from controller.experiments.urllc.readings import READINGS, SHOWN

PLANNED: Final = (0.0, 0.02)
REAL: Final = (-0.02, 0.0, 0.02)
TIGHT: Final = 0.97
"""Of the largest latency in a plan without deviation and with the paper's deadline."""
SPREADS: Final = (0.02, 0.1, 0.3)
"""Half-widths of deviations that each device, and the edge for it, has of its own."""
COVERED: Final = 0.95
"""Of a half-width, what a plan without estimates is prepared for, either way."""
KNOWLEDGE: Final = ("known", "bounded", "ignored")
EXCESS: Final = 1e-4
"""Of a limit: what counts as beyond it, as solutions fill a limit to less than that."""


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    cases = list(product(SHOWN, (False, True), PLANNED, REAL))
    found: dict[tuple[str, bool, float, float], list[tuple[float, float, float]]] = {c: [] for c in cases}
    for seed in range(study.drops):
        for reading, tight in product(SHOWN, (False, True)):
            instance = READINGS[reading].instance(seed)
            if tight:
                instance = _with_deadline(instance)
            plans = {planned: _plan(instance, planned) for planned in PLANNED}
            for planned, real in product(PLANNED, REAL):
                a = plans[planned]
                # The same drops in every row: those with all plans in time.
                if a is None or None in plans.values():
                    continue
                got = parts(instance.with_(ue_deviation=real, edge_deviation=real), a)
                late = got.latency_ms > instance.deadline_ms * (1.0 + EXCESS)
                over = got.energy_mj > instance.energy_mj * (1.0 + EXCESS)
                found[reading, tight, planned, real].append(
                    (got.total_ms, float(late.mean()), float(over.mean()))
                )
        advance(f"drop {seed}")
    keys = ("total_ms", "late", "over_energy")
    rows = [
        {
            "reading": reading,
            "tight": tight,
            "planned": planned,
            "real": real,
            "drops": len(of),
            **{key: mean([row[k] for row in of]) for k, key in enumerate(keys)},
        }
        for (reading, tight, planned, real), of in found.items()
    ]
    return {"rows": rows, "spread": [row for reading in SHOWN for row in _spread(study, reading, advance)]}


def _spread(study: Study, reading: str, advance: Callable[[str], None]) -> list[dict[str, Any]]:
    """Deviations of each device's own: plans that know them, that are prepared for all that they may be, and
    that ignore them, each judged by the real ones."""
    rows = []
    for width in SPREADS:
        got: dict[str, list[tuple[float, float]]] = {name: [] for name in KNOWLEDGE}
        for seed in range(study.drops):
            instance, rng = READINGS[reading].instance(seed), np.random.default_rng(seed)
            ue, edge = rng.uniform(-width, width, (2, len(instance)))
            real, most = instance.with_(ue_deviation=ue, edge_deviation=edge), COVERED * width
            bounded = instance.with_(ue_deviation=most, energy_deviation=-most, edge_deviation=most)
            plans = [by_method(of, "joint") for of in (real, bounded, instance)]
            if None in plans:
                continue
            for name, a in zip(KNOWLEDGE, plans, strict=True):
                assert a is not None
                of = parts(real, a)
                got[name].append((of.total_ms, float((of.energy_mj / real.energy_mj).max())))
        best = [total for total, _ in got[KNOWLEDGE[0]]]
        rows += [
            {
                "reading": reading,
                "width": width,
                "plan": name,
                "total_ms": mean([total for total, _ in of]),
                "more_ms": mean([total - least for (total, _), least in zip(of, best, strict=True)]),
                "energy": mean([energy for _, energy in of]),
            }
            for name, of in got.items()
        ]
        advance(f"{reading}, {width:g}")
    return rows


def _plan(instance: Instance, deviation: float) -> Allocation | None:
    """By the joint method, None where some device would be late."""
    plan = instance.with_(ue_deviation=deviation, edge_deviation=deviation)
    a = by_method(plan, "joint")
    return None if a is None or (late_ms(plan, a) > 0.0).any() else a


def _with_deadline(instance: Instance) -> Instance:
    """A deadline for all that makes the slowest quicker; the paper's where there is no plan."""
    a = by_method(instance, "joint")
    if a is None:
        return instance
    return instance.with_(deadline_ms=TIGHT * float(np.max(parts(instance, a).latency_ms)))


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    out: list[str | Table] = [
        "The joint method plans with a deviation, of devices and edge alike, and the real one decides what"
        " comes of it. Planned with too small a one, tasks miss deadlines that bind; with too large a one,"
        f" devices spend more energy than they have. Tight: a deadline of {TIGHT:g} times the largest latency"
        " of a plan without deviation, of the drops in which every plan keeps it.",
    ]
    for reading in SHOWN:
        rows = [
            [
                f"{'tight' if row['tight'] else '10 ms'}, {row['planned']:.0%}, {row['real']:.0%}",
                interval(row["total_ms"]),
                interval(row["late"], ".1f", 100.0),
                interval(row["over_energy"], ".1f", 100.0),
                str(row["drops"]),
            ]
            for row in result["rows"]
            if row["reading"] == reading
        ]
        head = ["deadline, planned, real", "total, ms", "tasks late, %", "over their energy, %", "drops"]
        out.append(Table(f"Planned and real deviation: {READINGS[reading].title}", head, rows))
    for reading in SHOWN:
        rows = [
            [
                f"{row['width']:.0%}, {row['plan']}",
                interval(row["total_ms"]),
                interval(row["more_ms"], "+.3f"),
                interval(row["energy"], ".1f", 100.0),
            ]
            for row in result["spread"]
            if row["reading"] == reading
        ]
        head = ["up to, in the plan", "total, ms", "more than known", "highest energy, % of the budget"]
        out.append(Table(f"Deviations of each device's own: {READINGS[reading].title}", head, rows))
    return out


def plots(result: Mapping[str, Any]) -> list[Plot]:
    return []


FIGURE = Figure(
    "Planned and real deviation",
    lambda drops: drops + len(SHOWN) * len(SPREADS),
    compute,
    shown,
    plots,
)
