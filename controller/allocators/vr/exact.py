"""The optimum of VR-GX with its proof, by mixed-integer linear programming (HiGHS).

A column is a user in a configuration at a point of the user's front. What it takes of every resource is then
a constant, however the latency depends on pixels and bandwidth, and the programme is linear: a
multiple-choice knapsack with a column a user, and the columns of a game's players on one node.

Of the many columns few can be in an optimum. With a solution of value v and prices that prove a bound L, a
column that earns d less than the best of its user on the game's best node is in no solution worth more than
L - d: where that is below v, it is left out. So is a column that takes no less than another of its user on
the same node, of anything, and is worth no more. Both are proofs: the optimum of the rest is the optimum.

Where no base station's bandwidth has a price, it is left out too, at first: what then comes out is a bound,
and the optimum where users can be divided over the stations so that it fits.

Where not everybody can be admitted, as many as can be are admitted first, then the QoE is maximised.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, Final

import numpy as np

from controller.allocators.vr import heuristic
from controller.allocators.vr.milp import (
    PROOF,
    Progress,
    Row,
    Status,
    capacity_rows,
    game_rows,
    maximise,
    shared_games,
)
from controller.allocators.vr.prices import Asked, dual
from controller.allocators.vr.problem import LINEAR, FloatArray, IntArray, Problem
from controller.allocators.vr.tables import FULL, Tables, reach, total

_TOLERANCE: Final = 1e-9
_CHEAP: Final = 0.01
"""Of all prices: below it those of bandwidth do not matter."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """``config`` [n] (-1: not admitted), ``point`` [n]; ``value`` and ``bound`` without constants.

    ``columns`` were in the programme of ``of_columns``.
    """

    status: Status
    config: IntArray
    point: IntArray
    value: float
    bound: float
    columns: int = 0
    of_columns: int = 0


def solve(problem: Problem, *, time_limit_s: float = inf, progress: Progress | None = None) -> Optimum:
    """The optimum; the best found, and a bound, where the time limit comes first. The bound is on solutions
    that admit as many; inf where a front is not exact.

    ImportError, which says what to install, without HiGHS.
    """
    start = heuristic.solve(problem)
    n = len(problem)
    if n == 0:
        return Optimum("infeasible", start.config, start.point, 0.0, 0.0)
    config, point, admitted, proven = start.config, start.point, start.admitted, True
    if admitted < n:
        config, point, proven, seconds = _most(problem, start, time_limit_s)
        admitted = int((config >= 0).sum())
        time_limit_s = max(0.0, time_limit_s - seconds)
    if admitted == 0:
        return Optimum("infeasible", config, point, 0.0, 0.0)
    tables = Tables.of(problem)
    value = float(total(tables, config, point))
    forced = admitted == n
    bound, reduced = _reduced(problem, tables, start.prices, forced)
    columns = _columns(problem, reduced, bound - value + _TOLERANCE * max(1.0, abs(value)))
    search = _Search(problem, admitted, time_limit_s, progress)
    stations = len(problem.instance.stations)
    status: Status = "feasible"
    if start.prices[:stations].sum() <= _CHEAP * start.prices.sum():
        relaxed = search.run(_undominated(problem, columns, bandwidth=False), config, point, bandwidth=False)
        bound = min(bound, max(relaxed.bound, value))
        if relaxed.status == "time limit":
            status = relaxed.status
        elif relaxed.picked is not None:
            divided = search.run(_stations(problem, relaxed.picked), config, point)
            config, point = divided.config, divided.point
    value = float(total(tables, config, point))
    if status != "time limit" and bound - value > PROOF * max(1.0, abs(value)):
        last = search.run(_undominated(problem, columns, bandwidth=True), config, point)
        status, config, point = last.status, last.config, last.point
        value = float(total(tables, config, point))
        # Nothing that was left out is worth more than the solution that it was compared with.
        bound = min(bound, max(last.bound, value))
    if not all(m.exact for m in problem.menus):
        # What is missing of a front may be worth more than all that prices prove of the rest.
        bound = inf
    if bound - value <= PROOF * max(1.0, abs(value)):
        status = "optimal" if proven else "time limit"
    elif status != "time limit":
        status = "feasible"
    return Optimum(status, config, point, value, bound, len(columns.user), reduced.total)


@dataclass(frozen=True, slots=True)
class _Reduced:
    """``loss[c]``: what configuration c's points earn less than the best choice, an array a configuration."""

    loss: list[FloatArray]
    total: int


def dual_bound(problem: Problem, prices: FloatArray) -> float:
    """What prices [resources] prove on any solution of a problem whose fronts are exact."""
    tables = Tables.of(problem)
    asked = Asked.of(tables, len(problem.instance.nodes), problem.resources)
    home = np.full(len(tables.players), -1)
    last = reach(tables, problem.resources)
    return float(dual(tables, home, False, last, prices, 1.0, asked))


def _reduced(problem: Problem, tables: Any, prices: FloatArray, forced: bool) -> tuple[float, _Reduced]:
    n, nodes = len(problem), len(problem.instance.nodes)
    asked = Asked.of(tables, nodes, problem.resources)
    last = reach(tables, problem.resources)
    home = np.full(len(tables.players), -1)
    bound = dual(tables, home, forced, last, prices, 1.0, asked)
    worth = asked.worth
    loss: list[FloatArray] = []
    total = 0
    for i in range(n):
        g = problem.game[i]
        profits = []
        own = range(problem.config_at[i], problem.config_at[i + 1])
        for c in own:
            k = slice(problem.menu_at[i], last[c] + 1)
            x = problem.pixels[k]
            cost = take(problem, c, x) @ np.where(problem.resource[c] >= 0, prices[problem.resource[c]], 0.0)
            profits.append(problem.rate_value[c] + problem.value[k] - cost)
            total += len(x)
        best = np.full(nodes, -inf if forced else 0.0)
        for c, profit in zip(own, profits, strict=True):
            best[problem.node[c]] = max(best[problem.node[c]], profit.max())
        for c, profit in zip(own, profits, strict=True):
            m = problem.node[c]
            loss.append((worth[g].max() - worth[g, m]) + (best[m] - profit))
    return float(bound), _Reduced(loss, total)


def take(problem: Problem, c: int, x: FloatArray) -> FloatArray:
    """What frames of ``x`` pixels take in configuration ``c``: float [k, 1 + LINEAR]."""
    return np.column_stack((problem.bandwidth(c, x), problem.fixed[c] + x[:, None] * problem.slope[c]))


@dataclass(frozen=True, slots=True)
class _Columns:
    user: IntArray
    config: IntArray
    point: IntArray

    def take(self, rows: IntArray) -> _Columns:
        return _Columns(self.user[rows], self.config[rows], self.point[rows])


def _columns(problem: Problem, reduced: _Reduced, most: float) -> _Columns:
    """Those that earn at most ``most`` less than the best."""
    user, config, point = [], [], []
    for i in range(len(problem)):
        for c in range(problem.config_at[i], problem.config_at[i + 1]):
            k = np.flatnonzero(reduced.loss[c] <= most) + problem.menu_at[i]
            user.append(np.full(len(k), i))
            config.append(np.full(len(k), c))
            point.append(k)
    return _Columns(*(np.concatenate(x) for x in (user, config, point)))


def _undominated(problem: Problem, columns: _Columns, *, bandwidth: bool) -> _Columns:
    """Without those that another of their user on the same node (and station) is at least as good as in
    everything; ``bandwidth`` says whether that counts."""
    takes, value = _takes(problem, columns), _value(problem, columns)
    place = problem.node[columns.config]
    # Stations differ in what they have of bandwidth and of packets.
    if bandwidth or (problem.resource[columns.config, 1] >= 0).any():
        place = place * len(problem.instance.stations) + problem.station[columns.config]
    if not bandwidth:
        takes = takes[:, 1:]
    group = columns.user * (int(place.max(initial=0)) + 1) + place
    kept: list[int] = []
    for rows in np.split(np.argsort(group, kind="stable"), np.flatnonzero(np.diff(np.sort(group))) + 1):
        best = np.empty((0, takes.shape[1]))
        for row in rows[np.lexsort((takes[rows].sum(axis=1), -value[rows]))]:
            if not (best <= takes[row] * (1.0 + 1e-14)).all(axis=1).any():
                best = np.vstack((best, takes[row]))
                kept.append(int(row))
    return columns.take(np.array(sorted(kept), np.int64))


def _stations(problem: Problem, picked: _Columns) -> _Columns:
    """Columns of what was picked, at every base station."""
    user, config, point = [], [], []
    for i, c, k in zip(picked.user, picked.config, picked.point, strict=True):
        own = np.arange(problem.config_at[i], problem.config_at[i + 1])
        same = (problem.node[own] == problem.node[c]) & (
            problem.frame_rate_hz[own] == problem.frame_rate_hz[c]
        )
        # Not those in which the point does not keep the latency.
        own = own[same & (problem.bandwidth(own, problem.pixels[k]) <= 1.0)]
        user.append(np.full(len(own), i))
        config.append(own)
        point.append(np.full(len(own), k))
    return _Columns(*(np.concatenate(x) for x in (user, config, point)))


def _takes(problem: Problem, columns: _Columns) -> FloatArray:
    takes = np.empty((len(columns.user), 1 + LINEAR))
    for c in np.unique(columns.config):
        rows = columns.config == c
        takes[rows] = take(problem, int(c), problem.pixels[columns.point[rows]])
    return takes


def _value(problem: Problem, columns: _Columns) -> FloatArray:
    value: FloatArray = problem.rate_value[columns.config] + problem.value[columns.point]
    return value


def _most(
    problem: Problem, start: heuristic.Found, time_limit_s: float
) -> tuple[IntArray, IntArray, bool, float]:
    """As many users as can be admitted, each at the fewest pixels, whether no more can be, and seconds."""
    user = np.repeat(np.arange(len(problem)), np.diff(problem.config_at))
    lowest = _Columns(user, np.arange(len(user)), problem.menu_at[user])
    search = _Search(problem, None, time_limit_s, None)
    found = search.run(lowest, start.config, problem.menu_at[:-1].copy())
    admitted = int((found.config >= 0).sum())
    # The bound of HiGHS on a whole number may stay a whole one above an optimum.
    proven = found.bound < admitted + 1 - PROOF
    if found.picked is not None and found.status == "optimal":
        proven = len(found.picked.user) <= admitted
    if admitted <= start.admitted:
        return start.config, start.point, proven, search.seconds
    return found.config, found.point, proven, search.seconds


@dataclass(frozen=True, slots=True)
class _Result:
    """``config`` and ``point`` are the better of the beginning and of what was ``picked``, where that
    fits."""

    status: Status
    config: IntArray
    point: IntArray
    bound: float
    picked: _Columns | None


class _Search:
    """Programmes over columns that admit ``admitted`` users, or as many as can be where None."""

    def __init__(
        self, problem: Problem, admitted: int | None, time_limit_s: float, progress: Progress | None
    ) -> None:
        self._problem, self._admitted = problem, admitted
        self._time_limit_s, self._progress = time_limit_s, progress
        self.seconds = 0.0

    def run(self, columns: _Columns, config: IntArray, point: IntArray, *, bandwidth: bool = True) -> _Result:
        """Beginning with a solution that has ``config`` and ``point``."""
        problem, n, size = self._problem, len(self._problem), len(columns.user)
        nodes = len(problem.instance.nodes)
        by_user = [np.flatnonzero(columns.user == i) for i in range(n)]
        shared = shared_games(problem)
        width = size + nodes * len(shared)
        cost, start = np.zeros(width), np.zeros(width)
        cost[:size] = 1.0 if self._admitted is None else _value(problem, columns)
        everybody = self._admitted == n
        rows: list[Row] = [
            (1.0 if everybody else 0.0, 1.0, own, np.ones(len(own))) for own in by_user if len(own)
        ]
        if everybody and any(not len(own) for own in by_user):
            return _Result("infeasible", config, point, -inf, None)
        if self._admitted is not None and not everybody:
            rows.append((float(self._admitted), float(n), np.arange(size), np.ones(size)))
        rows += game_rows(problem, columns.config, by_user, shared, everybody)
        for at, players in enumerate(shared):
            homes = [int(problem.node[config[i]]) for i in players if config[i] >= 0]
            start[size + nodes * at + (homes[0] if homes else 0)] = 1.0
        resource, takes = problem.resource[columns.config].copy(), _takes(problem, columns)
        if not bandwidth:
            resource[:, 0] = -1
        rows += capacity_rows(resource, takes)
        for i in np.flatnonzero(config >= 0):
            own = by_user[i]
            start[own[(columns.config[own] == config[i]) & (columns.point[own] == point[i])]] = 1.0
        left_s = max(0.0, self._time_limit_s - self.seconds)
        status, chosen, bound, seconds = maximise(cost, rows, start, left_s, self._progress)
        self.seconds += seconds
        if chosen is None:
            return _Result(status, config, point, bound, None)
        picked = columns.take(np.flatnonzero(chosen[:size] > 0.5))
        new_config, new_point = np.full(n, -1), problem.menu_at[:-1].copy()
        new_config[picked.user], new_point[picked.user] = picked.config, picked.point
        if not _better(problem, new_config, new_point, config, point):
            new_config, new_point = config, point
        return _Result(status, new_config, new_point, bound, picked)


def _better(
    problem: Problem, config: IntArray, point: IntArray, than: IntArray, than_point: IntArray
) -> bool:
    """Whether a choice fits, which HiGHS keeps to a tolerance, and admits more or is worth more."""
    used = np.zeros(problem.resources)
    for c, k in zip(config, point, strict=True):
        if c >= 0:
            limited = problem.resource[c] >= 0
            np.add.at(
                used, problem.resource[c][limited], take(problem, int(c), problem.pixels[[k]])[0, limited]
            )
    if not (used <= FULL).all():
        return False
    tables = Tables.of(problem)
    now, before = (total(tables, *choice) for choice in ((config, point), (than, than_point)))
    return bool(((config >= 0).sum(), now) > ((than >= 0).sum(), before))
