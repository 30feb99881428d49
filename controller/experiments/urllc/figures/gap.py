"""How far the methods are from a proven lower bound: with every caching decision, and of the paper's size.

For few devices a bound is proven for each caching decision that fits, and the least of them holds for all. At
the paper's size the cache has a price in the Lagrangian, which is weaker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any, Final

import numpy as np

from controller.allocators.urllc import joint
from controller.allocators.urllc.bound import Prices, bound_ms, uncached_ms
from controller.allocators.urllc.instance import BoolArray, Instance
from controller.allocators.urllc.solve import find, lower_bound_ms, report
from controller.experiments.figures import Plot, Table
from controller.experiments.urllc.figures.base import METHODS, NAMES, Figure, Study, interval, mean
from controller.experiments.urllc.readings import READINGS, SHOWN

FEW: Final = 6
FEW_CACHE_BITS: Final = 24e3
"""Two tasks of six, about what 60 kbit hold of fifteen."""


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    rows = []
    for reading in SHOWN:
        for few in (True, False):
            gaps: dict[str, list[float]] = {method: [] for method in METHODS}
            for seed in range(study.drops):
                instance = READINGS[reading].instance(seed)
                if few:
                    rest = np.arange(len(instance)) < FEW
                    instance = instance.only(rest).with_(cache_kbit=FEW_CACHE_BITS / 1e3)
                answers = {method: find(instance, method) for method in METHODS}
                totals = {
                    method: float(report(instance, answer)["objective_ms"])
                    for method, answer in answers.items()
                }
                if few:
                    bound = enumerated_bound_ms(instance)
                else:
                    proven = lower_bound_ms(instance, answers["joint"])
                    assert proven is not None
                    bound = proven
                for method in METHODS:
                    gaps[method].append((totals[method] - bound) / totals[method])
                advance(f"{reading}, {len(instance)} devices, drop {seed}")
            rows.append(
                {
                    "reading": reading,
                    "devices": FEW if few else len(instance),
                    "bound": "each caching decision" if few else "Lagrangian of the cache too",
                    "gap": {method: mean(gaps[method]) for method in METHODS},
                    "most": {method: max(gaps[method]) for method in METHODS},
                }
            )
    return {"rows": rows}


def enumerated_bound_ms(instance: Instance) -> float:
    """No solution is below this: the least bound over the caching decisions that fit.

    Each decision is first bounded at the prices of the joint method's, and where that is below what its own
    resources come to, at its own.
    """
    best = joint.solve(instance)
    if best is None:
        raise ValueError("no caching decision was found with which all devices can be served")
    apart = uncached_ms(instance, _prices(best))
    least = np.inf
    for cached in decisions(instance):
        bound = bound_ms(instance, _prices(best), cached, apart)
        if bound < best.cost_ms:
            solved = joint.resources_for(instance, cached)
            if solved is not None:
                bound = max(bound, bound_ms(instance, _prices(solved), cached))
        least = min(least, bound)
    return float(least)


def decisions(instance: Instance) -> list[BoolArray]:
    """Every set of tasks that the cache can hold, [M] each."""
    m = len(instance)
    found = []
    for count in range(m + 1):
        for chosen in combinations(range(m), count):
            cached = np.zeros(m, np.bool_)
            cached[list(chosen)] = True
            if float(instance.task_cache_kbit[cached].sum()) <= instance.cache_kbit * (1.0 + 1e-12):
                found.append(cached)
    return found


def _prices(solved: joint.Solved) -> Prices:
    return Prices(solved.band, max(solved.edge, 1e-12), deadline=solved.deadline)


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    rows = [
        [
            f"{READINGS[row['reading']].title}; M = {row['devices']}",
            row["bound"],
            *(
                text
                for method in METHODS
                for text in (interval(row["gap"][method], ".3f", 100.0), f"{100.0 * row['most'][method]:.3f}")
            ),
        ]
        for row in result["rows"]
    ]
    head = ["reading", "bound", *(text for m in METHODS for text in (f"{NAMES[m]}, %", "most"))]
    return [
        "(objective - bound) / objective. The bound holds for the exact dispersion and every allocation.",
        Table("Gap to a proven lower bound, %", head, rows),
    ]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    return []


FIGURE = Figure("Gap to the bound", lambda drops: 2 * len(SHOWN) * drops, compute, shown, plots)
