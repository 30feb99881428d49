"""``prbandit solve urllc``: an instance in, out what each device caches, offloads and uses, and what that
gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isfinite
from typing import Any, Final, Literal

import numpy as np

from controller.allocators.base import Options
from controller.allocators.urllc import alternating, joint
from controller.allocators.urllc.bound import Prices, bound_ms, cache_price, cached_ms, uncached_ms
from controller.allocators.urllc.check import Violation, violations
from controller.allocators.urllc.instance import BoolArray, FloatArray, Instance
from controller.allocators.urllc.model import Allocation, parts
from controller.allocators.urllc.resources import late_ms, least_shares

Method = Literal["joint", "algorithm-1", "algorithm-1-cvxpy"]
METHODS: Final[tuple[Method, ...]] = ("joint", "algorithm-1", "algorithm-1-cvxpy")
BOUNDED: Final = 64
"""Caching decisions that are bounded one by one."""
NEAR: Final = 1e-3
"""Of the objective: a bound as near as this is good enough."""
_GENEROUS: Final = 1e6
"""Times a budget: none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a method found for the devices that can be served at all, ``served`` [M].

    ``prices``: of the joint method at this instance, where that is what found it. ``converged``: by the
    method's own rule.
    """

    served: BoolArray
    allocation: Allocation
    history_ms: tuple[float, ...]
    iterations: int
    converged: bool
    prices: Prices | None = None


def solve(instance: Mapping[str, Any], options: Options | None = None) -> dict[str, Any]:
    """Solves an instance once.

    Args:
        instance: what :mod:`controller.allocators.urllc.instance` reads; beside it ``method``: ``joint`` (the
            default), ``algorithm-1`` (the paper's, compiled) or ``algorithm-1-cvxpy`` (the same by CVXPY and
            Clarabel); ``bound``: whether to prove a lower bound, which takes a second and more.
        options: of the slice; none of them counts.

    Returns:
        See :func:`report`. ValueError, naming the place, for an instance or a choice that is none.
    """
    if not isinstance(instance, Mapping):
        raise ValueError("an instance is a mapping with a list of devices")
    data = dict(instance)
    method, bound = data.pop("method", METHODS[0]), data.pop("bound", False)
    if method not in METHODS:
        raise ValueError(f"method: {method!r} is none of {', '.join(METHODS)}")
    if not isinstance(bound, bool):
        raise ValueError(f"bound: {bound!r} is neither true nor false")
    read = Instance.of(data)
    answer = find(read, method)
    return report(read, answer, lower_bound_ms(read, answer) if bound else None)


def find(instance: Instance, method: Method = "joint") -> Answer:
    """Solve by a method. Devices that can neither send nor be cached are left out."""
    served = _servable(instance)
    of = instance.only(served)
    if not len(of):
        empty = np.zeros(0)
        none = Allocation(np.zeros(0, np.bool_), empty, empty, empty, empty, empty)
        return Answer(served, none, (), 0, True)
    if method == "joint":
        solved = _joint(of)
        history, steps = solved.history_ms, len(solved.history_ms) - 1
        return Answer(served, solved.allocation, history, steps, solved.converged, _prices(solved))
    run = _algorithm_1(of, method)
    # While devices come to be less late the total may rise: the history is of what followed.
    rises = [k + 1 for k, (a, b) in enumerate(pairwise(run.history_ms)) if b > a]
    history = run.history_ms[rises[-1] if rises else 0 :]
    return Answer(served, run.allocation, history, run.iterations, run.converged)


def _joint(instance: Instance) -> joint.Solved:
    solved = joint.solve(instance)
    if solved is None:
        raise ValueError("bandwidth_hz: no division of the band in which every device can send was found")
    return solved


def _algorithm_1(instance: Instance, method: Method) -> alternating.Run:
    """From a simple start, or where that is late from what the joint method has, which is not if anything
    is."""
    start = alternating.first_allocation(instance)
    if start is None or late_ms(instance, start).any():
        other = _joint(instance).allocation
        if start is None or not late_ms(instance, other).any():
            start = other
    if method == "algorithm-1":
        return alternating.solve(instance, start)
    from controller.allocators.urllc import convex

    sp2, sp3 = convex.Offloading(len(instance)).step, convex.Resources(len(instance)).step
    return alternating.solve(instance, start, sp2=sp2, sp3=sp3)


def lower_bound_ms(instance: Instance, answer: Answer) -> float | None:
    """What no solution for the devices that are served can be below; None where none was found.

    The prices are those of the joint method at this instance. Where there are few caching decisions each is
    bounded by itself, which leaves no gap for tasks being cached as a whole.
    """
    of = instance.only(answer.served)
    if not len(of) or violations(of, answer.allocation):
        return None
    prices = answer.prices or _prices(_joint(of))
    apart, together = uncached_ms(of, prices), cached_ms(of, prices)
    prices = replace(prices, cache=cache_price(of, apart, together))
    least, total = bound_ms(of, prices, apart_ms=apart), parts(of, answer.allocation).total_ms
    every = joint.decisions(of, np.zeros(len(of), np.bool_), BOUNDED)
    return (
        least if every is None else max(least, min(_decision_ms(of, c, prices, apart, total) for c in every))
    )


def _decision_ms(
    of: Instance, cached: BoolArray, prices: Prices, apart_ms: FloatArray, total: float
) -> float:
    """A bound with a caching decision: at these prices, and where that is below the objective ``total`` at
    those of the decision."""
    bound = bound_ms(of, prices, cached, apart_ms)
    if bound >= total * (1.0 - NEAR):
        return bound
    solved = joint.resources_for(of, cached)
    return bound if solved is None else max(bound, bound_ms(of, _prices(solved), cached))


def _prices(solved: joint.Solved) -> Prices:
    return Prices(solved.band, max(solved.edge, 1e-12), deadline=solved.deadline)


def report(instance: Instance, answer: Answer, bound: float | None = None) -> dict[str, Any]:
    """Plain JSON; a number that there is none of is null.

    ``status``: ``converged``, ``iteration limit`` or ``infeasible``; ``objective_ms``: the sum (6a) with the
    exact dispersion, where every device is served; ``objective_v1_ms``: with V = 1, where that leaves
    each of them a rate; ``history_ms``: how it fell, from where nobody came to be less late any more;
    ``late``: each device that cannot be served in time, by how much at the least total lateness that was
    found, and what holds it back; ``violations`` of problem (6); ``bound_ms`` and ``gap``, where a bound was
    asked for.
    """
    of, a = instance.only(answer.served), answer.allocation
    parted, late = parts(of, a), late_ms(of, a)
    found = violations(of, a)
    held = _late(instance, answer, late)
    status = "infeasible" if held or found else "converged" if answer.converged else "iteration limit"
    everybody = len(of) == len(instance)
    total = parted.total_ms if everybody else None
    rows = _devices(instance, answer)
    return {
        "status": status,
        "objective_ms": total,
        "objective_v1_ms": _finite(parts(of, a, exact=False).total_ms) if everybody else None,
        "iterations": answer.iterations,
        "history_ms": list(answer.history_ms),
        "devices": rows,
        "late": held,
        "violations": [_plain(v) for v in (*found, *_unserved(instance, answer))],
        "bound_ms": bound,
        "gap": None if bound is None or not total else (total - bound) / total,
    }


def _servable(instance: Instance) -> BoolArray:
    """Devices that can send at full power, and of the others those that fit into the cache, smallest
    first."""
    can = np.isfinite(least_shares(instance))
    room = instance.cache_kbit
    for m in np.argsort(instance.task_cache_kbit, kind="stable"):
        if not can[m] and instance.task_cache_kbit[m] <= room:
            can[m] = True
            room -= float(instance.task_cache_kbit[m])
    return can


def _devices(instance: Instance, answer: Answer) -> list[dict[str, Any]]:
    of, a = instance.only(answer.served), answer.allocation
    p = parts(of, a)
    rows: dict[str, dict[str, Any]] = {}
    for m, name in enumerate(of.ids):
        rows[name] = {
            "id": name,
            "cached": bool(a.cached[m]),
            "local_share": float(a.local_share[m]),
            "bandwidth": float(a.bandwidth[m]),
            "power_w": float(a.power_w[m]),
            "f_ue_hz": float(a.ue_ghz[m] * 1e9),
            "f_es_hz": float(a.edge_ghz[m] * 1e9),
            "latency_ms": {
                "local": float(p.local_ms[m]),
                "transmission": float(p.transmission_ms[m]),
                "edge": float(p.edge_ms[m]),
                "overhead": float(p.overhead_ms[m]),
                "total": float(p.latency_ms[m]),
            },
            "energy_mj": float(p.energy_mj[m]),
            "rate_bps": float(p.rate_mbps[m] * 1e6),
        }
    return [rows.get(name) or {"id": name, "cached": None, "latency_ms": None} for name in instance.ids]


def _late(instance: Instance, answer: Answer, late: FloatArray) -> list[dict[str, Any]]:
    of = instance.only(answer.served)
    by = dict(zip(of.ids, late.tolist(), strict=True))
    held = []
    for m, name in enumerate(instance.ids):
        if name not in by:
            held.append({"device": name, "by_ms": None, "binding": "channel"})
        elif by[name] > 0.0:
            alone = instance.only(np.arange(len(instance)) == m)
            held.append({"device": name, "by_ms": by[name], "binding": _binding(alone, answer, of)})
    return held


def _binding(alone: Instance, answer: Answer, of: Instance) -> str:
    """What makes a device late: its own limits, with all of the network to itself, or what it shares."""

    def in_time(device: Instance) -> bool:
        solved = joint.solve(device, 2)
        return solved is not None and not late_ms(device, solved.allocation).any()

    if in_time(alone):
        prices = answer.prices or _prices(_joint(of))
        return "bandwidth" if prices.band >= prices.edge * of.edge_ghz else "edge rate"
    if in_time(alone.with_(energy_mj=alone.energy_mj * _GENEROUS)):
        return "energy"
    if in_time(alone.with_(deadline_ms=alone.deadline_ms * _GENEROUS)):
        return "deadline"
    return "least rate"


def _unserved(instance: Instance, answer: Answer) -> list[Violation]:
    """Of the devices that can be neither cached nor served: their latency has no end."""
    rows = np.flatnonzero(~answer.served).tolist()
    deadline = instance.deadline_ms.tolist()
    return [Violation("6b", "latency", instance.ids[m], inf, deadline[m], "ms") for m in rows]


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _plain(violation: Any) -> dict[str, Any]:
    return {
        "constraint": violation.constraint,
        "name": violation.name,
        "device": violation.device or None,
        "value": _finite(violation.value),
        "limit": violation.limit,
        "unit": violation.unit,
    }
