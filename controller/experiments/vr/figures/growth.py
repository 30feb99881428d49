"""Beyond sixteen users: how solvers grow on synthetic instances, and their distance from the bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any, Final

import numpy as np

from controller.allocators.vr import heuristic
from controller.allocators.vr.exact import dual_bound
from controller.allocators.vr.instance import Instance, User
from controller.allocators.vr.problem import Problem
from controller.allocators.vr.solve import HEURISTIC_POINTS, NEAR, Solver, limits
from controller.experiments.figures import COLOURS, Plot, Table, canvas, cell, logarithmic
from controller.experiments.vr.figures.base import Figure, Study, solve
from controller.experiments.vr.instances import draw

SIZES: Final = (
    *((4, 4), (8, 4), (16, 4), (24, 4), (64, 4), (64, 16), (64, 64), (256, 16), (256, 100), (256, 256)),
    *((1000, 100), (1000, 256), (1000, 475)),
)
"""Users and base stations."""
EXACT: Final = 64
"""Users of an instance that the optimum is tried on."""
SEED: Final = 0


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    rows = []
    for users, stations in SIZES:
        if users <= study.largest:
            rows.append(_row(users, stations, study.time_limit_s))
        advance(f"{users} users")
    return {"rows": rows, "time_limit_s": study.time_limit_s}


def _row(users: int, stations: int, limit_s: float) -> dict[str, Any]:
    data = draw(users, stations, SEED)
    row: dict[str, Any] = {"users": users, "stations": stations, "nodes": len(data["compute_nodes"])}
    solvers: tuple[Solver, ...] = ("heuristic", "exact") if users <= EXACT else ("heuristic",)
    bounds = []
    for solver in solvers:
        solved = solve(data, solver, "full", "weighted", limit_s)
        keys = ("objective", "seconds", "status", "admitted", "bound")
        row[solver] = {key: solved[key] for key in keys}
        bounds += [] if solved["bound"] is None else [solved["bound"]]
    row["bound"] = min(bounds) if bounds else relaxed_bound(Instance.of(data))
    return row


def relaxed_bound(instance: Instance) -> float:
    """A bound on the QoE of any solution of a large instance without faults, in the full model.

    The dual of a relaxation at the heuristic's prices: beside the few base stations with the highest SINR a
    user reaches every node over one more that is as good as the best of the others in everything, and whose
    bandwidth is scarce to none.
    """
    near: dict[str, Any] = {**limits(instance, "heuristic")}
    restricted = Problem.of(instance, "full", "weighted", points=HEURISTIC_POINTS, **near)
    prices = heuristic.solve(restricted).prices
    any_other = replace(
        max(instance.stations, key=lambda s: s.bandwidth_hz),
        id="any other",
        processing_bits_per_s=inf,
        processing_packets_per_s=inf,
    )
    relaxed = replace(
        instance,
        stations=(*instance.stations, any_other),
        nodes=tuple(
            replace(node, latency_s=(*node.latency_s, min(node.latency_s))) for node in instance.nodes
        ),
        users=tuple(_with_any_other(user) for user in instance.users),
    )
    problem = Problem.of(relaxed, "full", "weighted", stations=NEAR + 1)
    n = len(instance.stations)
    bandwidth, packets, nodes = prices[:n], prices[n : 2 * n], prices[2 * n :]
    return dual_bound(problem, np.concatenate((bandwidth, [0.0], packets, [0.0], nodes)))


def _with_any_other(user: User) -> User:
    """With the best stations, and the best of the others as the last."""
    efficiency = np.array(user.spectral_efficiency)
    best = np.argsort(-efficiency, kind="stable")
    kept = np.zeros(len(efficiency) + 1)
    kept[best[:NEAR]] = efficiency[best[:NEAR]]
    kept[-1] = efficiency[best[NEAR:]].max(initial=0.0)
    return replace(
        user, spectral_efficiency=tuple(kept.tolist()), distance_m=(*user.distance_m, min(user.distance_m))
    )


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    rows = []
    for row in result["rows"]:
        of, exact = row["heuristic"], row.get("exact")
        rows.append(
            [
                f"{row['users']}",
                str(row["stations"]),
                str(row["nodes"]),
                cell(of["objective"], ".2f"),
                str(of["admitted"]),
                cell(1e3 * of["seconds"], ".1f"),
                cell(_gap(row["bound"], of["objective"]), ".3f"),
                "-" if exact is None else cell(exact["objective"], ".2f"),
                "-" if exact is None else cell(exact["seconds"], ".2f"),
                "-" if exact is None else exact["status"],
                "-" if exact is None else cell(_gap(row["bound"], exact["objective"]), ".4f"),
            ]
        )
    head = [
        *("users", "stations", "nodes", "heuristic", "admitted", "ms", "gap %"),
        *("optimum", "s", "status", "gap %"),
    ]
    return [
        f"Synthetic instances (seed {SEED}), full model, at most {result['time_limit_s']:g} s for the"
        f" optimum, which is tried up to {EXACT} users. The gap is to the best bound that is proven:"
        " that of the optimum, else the Lagrangian dual.",
        Table("Growth", head, rows),
    ]


def _gap(bound: float | None, objective: float) -> float | None:
    return None if bound is None or not objective else 100.0 * (bound / objective - 1.0)


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, axes = canvas(2, width=4.6)
    seconds, gap = axes[0]
    for k, solver in enumerate(("exact", "heuristic")):
        rows = [row for row in result["rows"] if solver in row]
        users = [row["users"] for row in rows]
        style = {"marker": "os"[k], "linestyle": "none", "color": COLOURS[k], "label": solver}
        seconds.plot(users, [row[solver]["seconds"] for row in rows], **style)
        values = [_gap(row["bound"], row[solver]["objective"]) or 0.0 for row in rows]
        gap.plot(users, np.maximum(values, 1e-4), **style)
    for axis, label in ((seconds, "seconds"), (gap, "gap to the bound, %")):
        logarithmic(axis, "x", "y")
        axis.set_xlabel("users")
        axis.set_ylabel(label)
    seconds.legend(fontsize=7)
    return [Plot("Run time and gap of synthetic instances (proven optima stand at 0.0001 %)", figure)]


FIGURE = Figure("Beyond sixteen users", lambda users: len(SIZES), compute, shown, plots)
