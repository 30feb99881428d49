"""What figures are computed from: an instance, its first users, and what solvers make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from controller.allocators.vr.check import Constraints, Objective
from controller.allocators.vr.solve import SOLVERS, Request, Solver, report
from controller.experiments import figures
from controller.experiments.figures import COLOURS, Plot, canvas
from controller.experiments.vr.timing import timed

NAMES: Final[Mapping[Solver, str]] = {
    "exact": "VR-GX, optimum",
    "heuristic": "VR-GX, heuristic",
    "rca": "RCA (Du et al.)",
    "fixed": "4K at 30 Hz",
}
PUBLISHED: Final[Constraints] = "published-code"


@dataclass
class Study:
    """The ``users`` first users of an instance and fewer; what was solved is kept.

    ``time_limit_s`` is of one solution; ``attention``: the folder of ratings, None where there is none.
    ``largest``: users of synthetic instances at most.
    """

    data: Mapping[str, Any]
    users: int
    time_limit_s: float
    attention: Path | None = None
    largest: int = 1000
    _solved: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)

    def solved(
        self,
        users: int,
        solver: Solver,
        constraints: Constraints = PUBLISHED,
        objective: Objective = "weighted",
    ) -> dict[str, Any]:
        """As ``prbandit solve`` prints it, with the ``seconds`` of the solver."""
        key = (users, solver, constraints, objective)
        if key not in self._solved:
            self._solved[key] = solve(
                {**self.data, "first": users}, solver, constraints, objective, self.time_limit_s
            )
        return self._solved[key]

    def counts(self) -> range:
        return range(1, self.users + 1)

    def every(self, advance: Callable[[str], None], of: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """For each solver and number of users a value of what was solved."""
        values: dict[str, list[Any]] = {solver: [] for solver in SOLVERS}
        for users in self.counts():
            for solver in SOLVERS:
                values[solver].append(of(self.solved(users, solver)))
            advance(f"{users} users")
        return {"users": list(self.counts()), "of": values}


Figure = figures.Figure[Study]
"""Computed from a study; ``pieces`` by its number of users."""


def solve(
    data: Mapping[str, Any], solver: Solver, constraints: Constraints, objective: Objective, limit_s: float
) -> dict[str, Any]:
    """As ``prbandit solve`` prints it."""
    more = {"solver": solver, "constraints": constraints, "objective": objective, "time_limit_s": limit_s}
    request = Request.of({**data, **more})
    answer, seconds = timed(request)
    return {**report(request, answer), "seconds": seconds}


def lines(result: Mapping[str, Any], panels: Sequence[tuple[str, Callable[[Any], float | None]]]) -> Any:
    """A matplotlib figure with an axis for each panel (its label, and the value of an entry) and a line for
    each solver by the number of users; gaps where there is no value."""
    figure, axes = canvas(len(panels), width=4.6)
    for axis, (label, value) in zip(axes[0], panels, strict=True):
        for k, (solver, name) in enumerate(NAMES.items()):
            y = [value(entry) for entry in result["of"][solver]]
            nan = float("nan")
            axis.plot(
                result["users"],
                [nan if v is None else v for v in y],
                marker="os^v"[k],
                markersize=3.5,
                color=COLOURS[k],
                label=name,
            )
        axis.set_xlabel("users")
        axis.set_ylabel(label)
    axes[0][0].legend(fontsize=7)
    return figure


def plot(caption: str, figure: Any) -> list[Plot]:
    return [Plot(caption, figure)]
