"""Solvers of the vr service: time and gap of the heuristic, time to the proof of the optimum."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.bench.common import Row, Skip, no_collection

NAME = "vr"
HEURISTIC = {4: "", 16: "4 ms", 64: "", 256: "100 ms", 1000: ""}
"""Users, and the aim."""
EXACT = {4: "", 6: "paper: 3,600 s", 10: "", 16: "15 s", 20: "", 24: "60 s"}
LIMIT_S = 300.0
SIXTEEN = Path(__file__).parents[2] / "../shared/data/vr-gx/sixteen-users.json"


def run(effort: float) -> list[Row]:
    """The first users of the published instance with the authors' constraints; where it is absent, and for
    more than its sixteen, synthetic ones, with a base station for four users, in the full model.

    A time is from an instance that is read to a solution that is checked, of what is compiled.
    """
    try:
        import highspy  # noqa: F401
        import numba  # noqa: F401
    except ImportError as error:
        raise Skip(f"{error.name} is not installed (pip install -e '.[vr]')") from error
    largest = {True: 10_000, False: 16}[effort >= 0.1]
    times = max(2, round(10 * effort))
    rows: list[Row] = []
    with no_collection():
        first = None
        for users, aim in HEURISTIC.items():
            if users > largest:
                continue
            kind, data, constraints = _instance(users)
            seconds, answer = _seconds(data, "heuristic", constraints, times)
            first = seconds if first is None else first
            name = f"heuristic, {users} users{kind}"
            rows.append(Row(NAME, name, "ms", 1e3 * seconds, 1e3 * first, "4 users", seconds / first, aim))
            bound, value = _bound(data, answer), answer.evaluation.objective
            aim = "1.005" if users == 16 else ""
            name = f"its QoE, {users} users{kind}"
            rows.append(Row(NAME, name, "", value, bound, "the best bound", bound / value, aim))
        for users, aim in EXACT.items():
            if users > min(largest, 6 if effort < 0.1 else largest):
                continue
            kind, data, constraints = _instance(users)
            fast, _ = _seconds(data, "heuristic", constraints, times)
            seconds, answer = _seconds(data, "exact", constraints, 1)
            note = "" if answer.status == "optimal" else f"{users} users: {answer.status}"
            name = f"proof of the optimum, {users} users{kind}"
            rows.append(
                Row(
                    NAME,
                    name,
                    "s",
                    seconds,
                    fast,
                    "heuristic",
                    seconds / fast,
                    aim,
                    {"status": answer.status},
                    note,
                )
            )
    return rows


def _instance(users: int) -> tuple[str, Mapping[str, Any], str]:
    from controller.experiments.vr.instances import draw

    if users <= 16 and SIXTEEN.exists():
        return "", {**json.loads(SIXTEEN.read_text()), "first": users}, "published-code"
    return " (synthetic)", draw(users, max(4, users // 4)), "full"


def _seconds(data: Mapping[str, Any], solver: str, constraints: str, times: int) -> tuple[float, Any]:
    """The least of a few, and the answer."""
    from controller.allocators.vr.solve import Request, find
    from controller.experiments.vr.timing import warm_up

    request = Request.of({**data, "solver": solver, "constraints": constraints, "time_limit_s": LIMIT_S})
    warm_up(request)
    return _least(lambda: find(request), times)


def _least(work: Callable[[], Any], times: int) -> tuple[float, Any]:
    least, result = float("inf"), None
    for _ in range(times):
        begin = time.perf_counter()
        result = work()
        least = min(least, time.perf_counter() - begin)
    return least, result


def _bound(data: Mapping[str, Any], answer: Any) -> float:
    """The heuristic's own, or that of a relaxation where it has none."""
    from controller.allocators.vr.instance import Instance
    from controller.experiments.vr.figures.growth import relaxed_bound

    return relaxed_bound(Instance.of(data)) if answer.bound is None else float(answer.bound)
