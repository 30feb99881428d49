"""Algorithm 1 of the urllc service by CVXPY and by compiled code, and the joint method."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.bench.common import Row, Skip, no_collection

NAME = "urllc"
DEVICES = {5: "", 15: "50", 50: "", 100: ""}
"""And the aim for the compiled code: times the speed of CVXPY with problems built in each iteration."""
SHARED_BY = 15
"""Devices that share the band, the edge and the cache of the paper; more have as much more of them."""
DROPS = 4


def run(effort: float) -> list[Row]:
    """The paper's drops. A time is from a feasible start that is there to the end of the algorithm, of what
    is compiled: the least of a few for each drop, the mean over drops. SP2 is built as often as SP3."""
    try:
        import cvxpy  # noqa: F401
        import numba  # noqa: F401
    except ImportError as error:
        raise Skip(f"{error.name} is not installed (pip install -e '.[urllc]')") from error
    largest = max(DEVICES) if effort >= 0.5 else 15 if effort >= 0.05 else 5
    drops, times = max(1, round(DROPS * effort)), max(1, round(3 * effort))
    rows: list[Row] = []
    with no_collection():
        for devices, aim in DEVICES.items():
            if devices <= largest:
                rows += _rows(devices, aim, drops, times)
    return rows


def _rows(devices: int, aim: str, drops: int, times: int) -> list[Row]:
    from controller.allocators.urllc import alternating, convex, joint

    sp2, sp3 = convex.Offloading(devices).step, convex.Resources(devices).step
    methods: dict[str, Callable[[Any, Any], tuple[float, int]]] = {
        "compiled code": lambda i, start: _end(alternating.solve(i, start)),
        "CVXPY, compiled once": lambda i, start: _end(alternating.solve(i, start, sp2=sp2, sp3=sp3)),
        "CVXPY, built each time": lambda i, start: _end(
            alternating.solve(i, start, sp2=convex.rebuilt_offloading, sp3=convex.rebuilt_resources)
        ),
        "joint": lambda i, _: _joint(joint.solve(i)),
    }
    seconds, objective = dict.fromkeys(methods, 0.0), dict.fromkeys(methods, 0.0)
    iterations, apart = dict.fromkeys(methods, 0), 0.0
    for seed in range(drops):
        instance = _instance(seed, devices)
        start = alternating.first_allocation(instance)
        results: dict[str, tuple[float, int]] = {}
        for name, method in methods.items():
            if name != "CVXPY, built each time":
                method(instance, start)
            least, results[name] = _least(method, instance, start, times)
            seconds[name] += least / drops
            objective[name] += results[name][0] / drops
            iterations[name] += results[name][1]
        totals = [results[name][0] for name in list(methods)[:3]]
        apart = max(apart, max(totals) / min(totals) - 1.0)
    rebuilt, rows = "CVXPY, built each time", []
    for name in methods:
        if name == rebuilt:
            continue
        details = {"objective_ms": objective[name], "iterations": iterations[name] / drops, "apart": apart}
        note = f"{devices} devices: Algorithm 1's three objectives are within {apart:.1g} of each other"
        note += f"; joint {1.0 - objective['joint'] / objective[rebuilt]:.2%} below them"
        ms, baseline = 1e3 * seconds[name], 1e3 * seconds[rebuilt]
        title, aimed = f"{name}, {devices} devices", aim if name == "compiled code" else ""
        noted = note if name == "joint" else ""
        rows.append(Row(NAME, title, "ms", ms, baseline, rebuilt, baseline / ms, aimed, details, noted))
    return rows


def _instance(seed: int, devices: int) -> Any:
    from controller.allocators.urllc.instance import DEFAULTS, Instance
    from controller.experiments.urllc.drops import Drop, draw

    shared = {key: DEFAULTS[key] * devices / SHARED_BY for key in ("bandwidth_hz", "edge_hz", "cache_bits")}
    return Instance.of({**draw(seed, Drop(devices=devices)), **shared})


def _end(run: Any) -> tuple[float, int]:
    return run.history_ms[-1], run.iterations


def _joint(solved: Any) -> tuple[float, int]:
    return solved.cost_ms, len(solved.history_ms) - 1


def _least(
    method: Callable[[Any, Any], tuple[float, int]], instance: Any, start: Any, times: int
) -> tuple[float, tuple[float, int]]:
    least, result = float("inf"), (0.0, 0)
    for _ in range(times):
        begin = time.perf_counter()
        result = method(instance, start)
        least = min(least, time.perf_counter() - begin)
    return least, result
