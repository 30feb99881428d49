"""What figures are computed from: drops, readings of the paper, methods, and what these give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from controller.allocators.urllc.instance import Instance
from controller.allocators.urllc.model import Allocation, parts
from controller.allocators.urllc.resources import late_ms
from controller.allocators.urllc.solve import Method, find
from controller.experiments import figures
from controller.experiments.figures import cell
from controller.experiments.stats import estimate
from controller.experiments.urllc.readings import READINGS

METHODS: Final[tuple[Method, ...]] = ("joint", "algorithm-1")
NAMES: Final[Mapping[str, str]] = {"joint": "joint", "algorithm-1": "Algorithm 1"}

Solver = Callable[[Instance], Allocation | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The objective and its parts in ms, ``share``: mean offloaded part of the tasks that are not cached,
    None where all are; ``late``: devices that miss their deadline or R_min."""

    total_ms: float
    local_ms: float
    transmission_ms: float
    edge_ms: float
    share: float | None
    late: int

    @classmethod
    def of(cls, instance: Instance, a: Allocation) -> Outcome:
        of, sends = parts(instance, a), ~a.cached
        local, air, edge = (float(part.sum()) for part in (of.local_ms, of.transmission_ms, of.edge_ms))
        share = float((1.0 - a.local_share[sends]).mean()) if sends.any() else None
        return cls(of.total_ms, local, air, edge, share, int((late_ms(instance, a) > 0.0).sum()))


def by_method(instance: Instance, method: Method) -> Allocation | None:
    """What ``prbandit solve`` finds, None where not all devices can be served."""
    try:
        answer = find(instance, method)
    except ValueError:
        return None
    return answer.allocation if answer.served.all() else None


SOLVERS: Final[Mapping[str, Solver]] = {name: partial(by_method, method=name) for name in METHODS}


@dataclass
class Study:
    """``drops`` seeds from 0 on, the same for every figure. What was solved is kept."""

    drops: int
    _solved: dict[tuple[Any, ...], Outcome | None] = field(default_factory=dict)

    def outcome(self, seed: int, reading: str, solver: str, **changes: Any) -> Outcome | None:
        key = (seed, reading, solver, *sorted(changes.items()))
        if key not in self._solved:
            instance = READINGS[reading].instance(seed, **changes)
            a = SOLVERS[solver](instance)
            self._solved[key] = None if a is None else Outcome.of(instance, a)
        return self._solved[key]

    def outcomes(self, reading: str, solver: str, **changes: Any) -> list[Outcome | None]:
        """Of every drop."""
        return [self.outcome(seed, reading, solver, **changes) for seed in range(self.drops)]


Figure = figures.Figure[Study]
"""Computed from a study; ``pieces`` by its number of drops."""


def summary(outcomes: Sequence[Outcome | None]) -> dict[str, Any]:
    """Plain JSON: means with their intervals of ``total_ms``, its parts and ``share``; ``served`` drops, and
    those with ``late`` devices."""
    there = [of for of in outcomes if of is not None]
    keys = ("total_ms", "local_ms", "transmission_ms", "edge_ms", "share")
    means = {key: mean([getattr(of, key) for of in there]) for key in keys}
    return {**means, "served": len(there), "late": sum(of.late > 0 for of in there)}


def mean(values: Sequence[float | None]) -> dict[str, float | None] | None:
    """With its interval, None of nothing."""
    of = estimate(values)
    return None if of is None else of.to_dict()


def paired(
    outcomes: Sequence[Outcome | None], others: Sequence[Outcome | None], *, relative: bool = False
) -> dict[str, float | None] | None:
    """Mean of the total's differences drop by drop, ms, or as parts of the others' total."""
    pairs = [(a, b) for a, b in zip(outcomes, others, strict=True) if a is not None and b is not None]
    return mean([(a.total_ms - b.total_ms) / (b.total_ms if relative else 1.0) for a, b in pairs])


def interval(of: Mapping[str, float | None] | None, form: str = ".3f", factor: float = 1.0) -> str:
    """``mean +- half width`` of a 95 % interval."""
    if of is None or of["mean"] is None:
        return "-"
    half = of["half_95"]
    return cell(factor * of["mean"], form) + (
        "" if half is None else f" +- {cell(factor * half, form.replace('+', ''))}"
    )


def middle(of: Mapping[str, Any] | None) -> float:
    """The mean, NaN of nothing."""
    return float("nan") if of is None else float(of["mean"])


def half(of: Mapping[str, Any] | None) -> float:
    return 0.0 if of is None or of["half_95"] is None else float(of["half_95"])
