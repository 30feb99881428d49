"""``prbandit solve vr``: an instance and a solver in, out who is admitted, what each gets and its worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any, Final, Literal

import numpy as np

from controller.allocators.base import Options
from controller.allocators.vr import exact, fixed, heuristic, rca
from controller.allocators.vr.binding import binding, reasons
from controller.allocators.vr.check import (
    CONSTRAINTS,
    OBJECTIVES,
    Constraints,
    Evaluation,
    Objective,
    Solution,
    constant,
    evaluate,
)
from controller.allocators.vr.instance import Instance
from controller.allocators.vr.menus import MAX_POINTS
from controller.allocators.vr.milp import PROOF, Progress, Status
from controller.allocators.vr.problem import Problem, Queue

Solver = Literal["exact", "heuristic", "rca", "fixed"]
SOLVERS: Final[tuple[Solver, ...]] = ("exact", "heuristic", "rca", "fixed")
HEURISTIC_POINTS: Final = 1 << 12
"""Of a front; where that is not all of it, the heuristic's bound is none."""
MAX_CONFIGURATIONS: Final[Mapping[Solver, int]] = {
    "exact": 2_000_000,
    "heuristic": 500_000,
    "rca": 200_000,
    "fixed": 500_000,
}
NEAR: Final = 4
"""Base stations that a user has where there are more configurations than that, and as many compute nodes as
there may be then. No bound holds for all."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be solved, and how."""

    instance: Instance
    solver: Solver = "exact"
    constraints: Constraints = "full"
    objective: Objective = "weighted"
    time_limit_s: float = inf
    progress: Progress | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Request:
        """Reads the argument of :func:`solve`. ValueError, naming the place, for what cannot be used."""
        instance = Instance.of(data)
        if data.get("first") is not None:
            instance = instance.first(data["first"])
        chosen = {}
        for key, known in (("solver", SOLVERS), ("constraints", CONSTRAINTS), ("objective", OBJECTIVES)):
            chosen[key] = data.get(key, known[0])
            if chosen[key] not in known:
                raise ValueError(f"{key}: {chosen[key]!r} is none of {', '.join(known)}")
        limit = data.get("time_limit_s")
        if limit is not None and not limit > 0.0:
            raise ValueError(f"time_limit_s: {limit!r} is not a time")
        return cls(
            instance, **chosen, time_limit_s=inf if limit is None else limit, progress=data.get("progress")
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a solver found. ``bound`` is on the objective of any solution that admits as many, None where the
    solver proves none; ``reasons`` is of each user who is not in ``solution``."""

    status: Status
    solution: Solution
    evaluation: Evaluation
    bound: float | None
    reasons: Mapping[int, str]


def solve(instance: Mapping[str, Any], options: Options | None = None) -> dict[str, Any]:
    """Solves an instance once.

    Args:
        instance: what :mod:`controller.allocators.vr.instance` reads; beside it ``first``: of the users only
            so many, ``solver``, ``constraints``, ``objective``, ``time_limit_s`` and ``progress``, which is
            called with seconds, the best objective and the bound (exact).
        options: of the slice; none of them counts.

    Returns:
        See :func:`report`. ValueError, naming the place, for an instance or a choice that is none.
    """
    request = Request.of(instance)
    return report(request, find(request))


def find(request: Request) -> Answer:
    """Solve and check.

    A packet's wait at a base station depends on all that are sent there. A solver takes an empty station for
    granted, with which a bound holds for any load; where the checker finds that this was too little, it has
    to solve again with a full one.
    """
    answer = _find(request, "least")
    if answer.evaluation.violations:
        least, answer = answer, _find(request, "most")
        if request.solver == "exact":
            # The optimum beside full stations may be less than what was found beside their true load.
            answer = max(find(replace(request, solver="heuristic")), answer, key=_rank)
        bound = least.bound if len(least.solution) == len(answer.solution) else None
        if answer.evaluation.violations:
            why = f"the solution of solver {request.solver} is none: {answer.evaluation.violations[0]}"
            users = range(len(request.instance.users))
            empty = evaluate(request.instance, {}, request.constraints, request.objective)
            return Answer("infeasible", {}, empty, None, {i: answer.reasons.get(i, why) for i in users})
        objective = answer.evaluation.objective
        status = answer.status
        if least.status == "optimal" and bound is not None and bound - objective <= PROOF * abs(objective):
            status = "optimal"
        elif status == "optimal":
            status = "feasible"
        answer = Answer(status, answer.solution, answer.evaluation, bound, answer.reasons)
    return answer


def _rank(answer: Answer) -> tuple[bool, int, float]:
    """The better is a solution, admits more, is worth more."""
    return not answer.evaluation.violations, len(answer.solution), answer.evaluation.objective


def _find(request: Request, queue: Queue) -> Answer:
    instance, constraints, objective = request.instance, request.constraints, request.objective
    near = limits(instance, request.solver)
    choice: dict[str, Any] = {"queue": queue, **near}
    status: Status = "feasible"
    bound: float | None = None
    if request.solver == "rca":
        problem = Problem.of(instance, constraints, "weighted", **choice)
        status, solution = rca.solve(problem, time_limit_s=request.time_limit_s)
        status = "feasible" if status == "optimal" else status
    elif request.solver == "fixed":
        problem = fixed.problem(instance, constraints, objective, **choice)
        config, point = fixed.solve(problem)
        solution = problem.solution(config.tolist(), point.tolist())
    elif request.solver == "heuristic":
        problem = _with_constants(
            Problem.of(instance, constraints, objective, points=HEURISTIC_POINTS, **choice)
        )
        found = heuristic.solve(problem)
        solution = problem.solution(found.config.tolist(), found.point.tolist())
        bound = found.bound if all(m.exact for m in problem.menus) else None
        if bound is not None and bound - found.value <= PROOF * max(1.0, abs(found.value)):
            status = "optimal" if found.admitted == len(problem) else status
    else:
        problem = _with_constants(Problem.of(instance, constraints, objective, points=MAX_POINTS, **choice))
        best = exact.solve(problem, time_limit_s=request.time_limit_s, progress=request.progress)
        solution = problem.solution(best.config.tolist(), best.point.tolist())
        status, bound = best.status, best.bound
    if not solution:
        status, bound = "infeasible", None
    evaluation = evaluate(instance, solution, constraints, objective)
    if bound is not None and isfinite(bound) and not near:
        bound = max(bound, evaluation.objective)
    else:
        status, bound = "feasible" if status == "optimal" else status, None
    left_out = dict(problem.reasons)
    if request.solver == "rca":
        left_out |= {int(i): rca.REASON for i in problem.user if int(i) not in solution}
    elif not evaluation.violations:
        left_out = reasons(problem, solution, evaluation)
    return Answer(status, solution, evaluation, bound, left_out)


def _with_constants(problem: Problem) -> Problem:
    """The same with all of a user's QoE in the values: where not everybody is admitted it counts who is."""
    own = np.array([constant(problem.instance.users[i], problem.objective) for i in problem.user], np.float64)
    each = np.repeat(own, np.diff(problem.config_at))
    return replace(problem, rate_value=problem.rate_value + each)


def limits(instance: Instance, solver: Solver) -> dict[str, int]:
    """How many base stations and compute nodes a user has at most; {}: all."""
    rates = sum(len(user.frame_rates_hz) for user in instance.users)
    most = MAX_CONFIGURATIONS[solver]
    if rates * len(instance.stations) * len(instance.nodes) <= most:
        return {}
    return {"stations": NEAR, "nodes": max(2, most // (rates * NEAR))}


def report(request: Request, answer: Answer) -> dict[str, Any]:
    """Plain JSON.

    ``status``, ``objective``, ``bound`` and ``gap`` (a part of the objective; None where the solver proves
    none), ``admitted``, ``users``: of each its ``user`` (the id), ``admitted``, ``station``, ``node``,
    ``frame_rate``, ``bandwidth_hz``, ``resolutions`` by object, ``qoe``, ``latency_ms`` by term and
    ``total``, ``budget_ms``, ``binding`` (:func:`controller.allocators.vr.binding.binding`) and, of who is
    not admitted, the ``reason``. ``violations`` of the checker; ``bandwidth_hz`` of each station and
    ``gpu_share`` of each node in use; ``jain_qoe`` and ``jain_latency`` over who is admitted, None where
    nobody is.
    """
    instance, evaluation = request.instance, answer.evaluation
    holds = binding(instance, answer.solution, evaluation, request.constraints, request.objective)
    gap = None
    if answer.bound is not None:
        gap = (answer.bound - evaluation.objective) / max(abs(evaluation.objective), 1e-12)
    served = evaluation.served.values()
    return {
        "status": answer.status,
        "objective": evaluation.objective,
        "bound": answer.bound,
        "gap": gap,
        "admitted": len(answer.solution),
        "users": [_user(request, answer, holds, i) for i in range(len(instance.users))],
        "violations": list(evaluation.violations),
        "bandwidth_hz": [
            {"station": s.id, "used": used, "of": s.bandwidth_hz}
            for s, used in zip(instance.stations, evaluation.bandwidth_hz, strict=True)
        ],
        "gpu_share": [
            {"node": n.id, "share": used / n.gpu_flops_per_s if used > 0.0 else 0.0}
            for n, used in zip(instance.nodes, evaluation.gpu_flops_per_s, strict=True)
        ],
        "jain_qoe": jain([s.qoe for s in served]),
        "jain_latency": jain([s.total_latency_s for s in served]),
        "solver": request.solver,
        "constraints": request.constraints,
        "objective_form": request.objective,
    }


def _user(request: Request, answer: Answer, holds: Mapping[int, str], i: int) -> dict[str, Any]:
    instance = request.instance
    user, p = instance.users[i], answer.solution.get(i)
    if p is None:
        nothing = ("station", "node", "frame_rate", "bandwidth_hz", "resolutions", "qoe", "latency_ms")
        return {
            "user": user.id,
            "admitted": False,
            **dict.fromkeys((*nothing, "budget_ms", "binding")),
            "reason": answer.reasons[i],
        }
    served = answer.evaluation.served[i]
    return {
        "user": user.id,
        "admitted": True,
        "station": instance.stations[p.station].id,
        "node": instance.nodes[p.node].id,
        "frame_rate": p.frame_rate_hz,
        "bandwidth_hz": p.bandwidth_hz,
        "resolutions": {str(o.id): f"{k}K" for o, k in zip(user.objects, p.resolutions, strict=True)},
        "qoe": served.qoe,
        "latency_ms": {
            **{term: 1e3 * s for term, s in served.latency_s.items()},
            "total": 1e3 * served.total_latency_s,
        },
        "budget_ms": 1e3 * served.budget_s,
        "binding": holds[i],
        "reason": "",
    }


def jain(values: Sequence[float]) -> float | None:
    """Raj Jain's index of fairness, 1 / n to 1; 1 where all are 0, None for nobody."""
    if not values:
        return None
    squares = float(np.square(values).sum())
    return float(np.sum(values)) ** 2 / (len(values) * squares) if squares > 0.0 else 1.0
