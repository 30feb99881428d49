"""The rendering capacity allocator of Du et al. (arXiv 2208.05438), as VR-GX is compared with.

All users have the lowest frame rate f. What is maximised is the sum over users of

    (1 - T f) x throughput / reference x sum of attention x ln(class / lowest)

with T the time of transmission, routing and ``fixed_latency_s``, and the reference the throughput of the
base station's whole bandwidth over four streams at 30 dB. As T = bits / throughput + what is fixed, this is
linear in the bandwidth: of the users of a base station one gets all of it, and the others are not admitted.
What is left is which user that is, and, beside it, resolutions and the compute node, within all capacities
and with one node a game: a mixed-integer linear programme with a column for each user, configuration and
point of the front's upper concave hull.

Its resolutions and users are scored by the QoE of VR-GX (:func:`controller.allocators.vr.check.evaluate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf, log2
from typing import Final

import numpy as np

from controller.allocators.vr.check import Placement
from controller.allocators.vr.exact import take
from controller.allocators.vr.milp import Row, Status, capacity_rows, game_rows, maximise, shared_games
from controller.allocators.vr.problem import Problem
from controller.allocators.vr.tables import FULL, Tables

REFERENCE_BPS_HZ: Final = 4 * log2(1 + 10 ** (30 / 10))
_ADMITTED: Final = 1e-6
"""Of two that are worth the same the one that admits more: at the lowest resolution users are worth 0."""
REASON: Final = "rca gives each base station's bandwidth to one user"


def solve(problem: Problem, *, time_limit_s: float = inf) -> tuple[Status, Mapping[int, Placement]]:
    """Whom it admits and what they get; ``problem`` has the weighted objective, whose values are those of the
    sum over objects.

    ImportError, which says what to install, without HiGHS.
    """
    instance = problem.instance
    tables = Tables.of(problem)
    user, config, point, worth, takes = [], [], [], [], []
    for i in range(len(problem)):
        own = np.arange(problem.config_at[i], problem.config_at[i + 1])
        hull = tables.hull[tables.hull_at[i] : tables.hull_at[i + 1]]
        x, value = problem.pixels[hull], problem.value[hull]
        for c in own[problem.frame_rate_hz[own] == problem.frame_rate_hz[own].min()]:
            needs = take(problem, int(c), x)
            fits = (problem.budget_s[c] > x * problem.pixel_s[c]) & (needs <= FULL).all(axis=1)
            station, node = instance.stations[problem.station[c]], instance.nodes[problem.node[c]]
            fixed_s = node.latency_s[problem.station[c]] + instance.fixed_latency_s
            late = (x * problem.unit[c] + fixed_s) * problem.frame_rate_hz[c]
            efficiency = instance.bits_per_pixel / (problem.unit[c] * station.bandwidth_hz)
            user.append(np.full(int(fits.sum()), i))
            config.append(np.full(int(fits.sum()), c))
            point.append(hull[fits])
            worth.append(((1.0 - late) * efficiency / REFERENCE_BPS_HZ * value + _ADMITTED)[fits])
            takes.append(needs[fits])
    if not user:
        return "infeasible", {}
    of_user, of_config, of_point = (np.concatenate(part) for part in (user, config, point))
    by_user = [np.flatnonzero(of_user == i) for i in range(len(problem))]
    games = shared_games(problem)
    rows: list[Row] = [(0.0, 1.0, own, np.ones(len(own))) for own in by_user if len(own)]
    needs = np.concatenate(takes)
    needs[:, 0] = 1.0
    rows += capacity_rows(problem.resource[of_config], needs)
    rows += game_rows(problem, of_config, by_user, games, everybody=False)
    cost = np.concatenate((*worth, np.zeros(len(games) * len(instance.nodes))))
    status, chosen, _, _ = maximise(cost, rows, time_limit_s=time_limit_s)
    config_of, point_of = np.full(len(problem), -1), problem.menu_at[:-1].copy()
    if chosen is not None:
        picked = np.flatnonzero(chosen[: len(of_user)] > 0.5)
        config_of[of_user[picked]], point_of[of_user[picked]] = of_config[picked], of_point[picked]
    solution = problem.solution(config_of.tolist(), point_of.tolist())
    return status, {
        i: replace(p, bandwidth_hz=instance.stations[p.station].bandwidth_hz) for i, p in solution.items()
    }
