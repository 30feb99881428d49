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

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Literal

import numpy as np

from controller.allocators.vr import heuristic
from controller.allocators.vr.problem import LINEAR, FloatArray, IntArray, Problem

_Row = tuple[float, float, IntArray, FloatArray]
"""A constraint: the least, the most, columns and their coefficients."""
Status = Literal["optimal", "feasible", "infeasible", "time limit"]
Progress = Callable[[float, float, float], None]
"""Called with seconds, the best objective so far and the bound."""

PROOF: Final = 1e-6
"""Relative gap below which a solution counts as the optimum."""
_TOLERANCE: Final = 1e-9
_SCALE: Final = 1e3
"""A capacity in the programme, so that the tolerances of HiGHS are small against it."""
_CHEAP: Final = 0.01
"""Of all prices: below it those of bandwidth do not matter."""
_OPTIONS: Final[dict[str, Any]] = {
    "output_flag": False,
    "threads": 1,
    "random_seed": 0,
    "mip_rel_gap": PROOF / 10,
    "mip_abs_gap": 1e-7,
    "primal_feasibility_tolerance": _TOLERANCE,
    "mip_feasibility_tolerance": _TOLERANCE,
}


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
    """The optimum; the best found, and a bound, where the time limit comes first.

    ImportError, which says what to install, without HiGHS.
    """
    start = heuristic.solve(problem)
    n = len(problem)
    if n == 0:
        return Optimum("infeasible", start.config, start.point, 0.0, 0.0)
    config, point, admitted = start.config, start.point, start.admitted
    if admitted < n:
        config, point, admitted = _most(problem, start, time_limit_s)
    if admitted == 0:
        return Optimum("infeasible", config, point, 0.0, 0.0)
    tables = heuristic.Tables.of(problem)
    value = float(heuristic.total(tables, config, point))
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
    value = float(heuristic.total(tables, config, point))
    if status != "time limit" and bound - value > PROOF * max(1.0, abs(value)):
        last = search.run(_undominated(problem, columns, bandwidth=True), config, point)
        status, config, point = last.status, last.config, last.point
        value = float(heuristic.total(tables, config, point))
        # Nothing that was left out is worth more than the solution that it was compared with.
        bound = min(bound, max(last.bound, value))
    if not all(m.exact for m in problem.menus):
        bound = max(bound, start.bound)
    if bound - value <= PROOF * max(1.0, abs(value)):
        status = "optimal"
    return Optimum(status, config, point, value, bound, len(columns.user), reduced.total)


@dataclass(frozen=True, slots=True)
class _Reduced:
    """``loss[c]``: what configuration c's points earn less than the best choice, an array a configuration."""

    loss: list[FloatArray]
    total: int


def _reduced(problem: Problem, tables: Any, prices: FloatArray, forced: bool) -> tuple[float, _Reduced]:
    n, nodes = len(problem), len(problem.instance.nodes)
    asked = heuristic.Asked.of(tables, nodes, problem.resources)
    last = heuristic.reach(tables, problem.resources)
    home = np.full(len(tables.players), -1)
    bound = heuristic.dual(tables, home, forced, last, prices, 1.0, asked)
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
            cost = _take(problem, c, x) @ np.where(problem.resource[c] >= 0, prices[problem.resource[c]], 0.0)
            profits.append(problem.rate_value[c] + problem.value[k] - cost)
            total += len(x)
        best = np.full(nodes, -inf if forced else 0.0)
        for c, profit in zip(own, profits, strict=True):
            best[problem.node[c]] = max(best[problem.node[c]], profit.max())
        for c, profit in zip(own, profits, strict=True):
            m = problem.node[c]
            loss.append((worth[g].max() - worth[g, m]) + (best[m] - profit))
    return float(bound), _Reduced(loss, total)


def _take(problem: Problem, c: int, x: FloatArray) -> FloatArray:
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
    if bandwidth:
        place = place * len(problem.instance.stations) + problem.station[columns.config]
    else:
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
        takes[rows] = _take(problem, int(c), problem.pixels[columns.point[rows]])
    return takes


def _value(problem: Problem, columns: _Columns) -> FloatArray:
    value: FloatArray = problem.rate_value[columns.config] + problem.value[columns.point]
    return value


def _most(problem: Problem, start: heuristic.Found, time_limit_s: float) -> tuple[IntArray, IntArray, int]:
    """As many users as can be admitted, each at the fewest pixels."""
    user = np.repeat(np.arange(len(problem)), np.diff(problem.config_at))
    lowest = _Columns(user, np.arange(len(user)), problem.menu_at[user])
    search = _Search(problem, None, time_limit_s, None)
    found = search.run(lowest, start.config, problem.menu_at[:-1].copy())
    if (found.config >= 0).sum() <= start.admitted:
        return start.config, start.point, start.admitted
    return found.config, found.point, int((found.config >= 0).sum())


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
        self._left_s, self._progress = time_limit_s, progress

    def run(self, columns: _Columns, config: IntArray, point: IntArray, *, bandwidth: bool = True) -> _Result:
        """Beginning with a solution that has ``config`` and ``point``."""
        problem, n, size = self._problem, len(self._problem), len(columns.user)
        nodes = len(problem.instance.nodes)
        by_user = [np.flatnonzero(columns.user == i) for i in range(n)]
        shared = [players for players in _players(problem) if len(players) > 1]
        width = size + nodes * len(shared)
        cost, start = np.zeros(width), np.zeros(width)
        cost[:size] = 1.0 if self._admitted is None else _value(problem, columns)
        everybody = self._admitted == n
        rows: list[_Row] = [
            (1.0 if everybody else 0.0, 1.0, own, np.ones(len(own))) for own in by_user if len(own)
        ]
        if everybody and any(not len(own) for own in by_user):
            return _Result("infeasible", config, point, -inf, None)
        if self._admitted is not None and not everybody:
            rows.append((float(self._admitted), float(n), np.arange(size), np.ones(size)))
        for at, players in enumerate(shared):
            z = size + nodes * at + np.arange(nodes)
            rows.append((1.0, 1.0, z, np.ones(nodes)))
            for i in players:
                for m in range(nodes):
                    own = by_user[i][problem.node[columns.config[by_user[i]]] == m]
                    ones = np.append(np.ones(len(own)), -1.0)
                    rows.append((0.0 if everybody else -1.0, 0.0, np.append(own, z[m]), ones))
            homes = [int(problem.node[config[i]]) for i in players if config[i] >= 0]
            start[z[homes[0] if homes else 0]] = 1.0
        resource, takes = problem.resource[columns.config].copy(), _takes(problem, columns)
        if not bandwidth:
            resource[:, 0] = -1
        for r in np.unique(resource[resource >= 0]):
            j, k = np.nonzero(resource == r)
            rows.append((-inf, _SCALE, j, _SCALE * takes[j, k]))
        for i in np.flatnonzero(config >= 0):
            own = by_user[i]
            start[own[(columns.config[own] == config[i]) & (columns.point[own] == point[i])]] = 1.0
        status, chosen, bound, seconds = _highs(cost, rows, start, self._left_s, self._progress)
        self._left_s = max(0.0, self._left_s - seconds)
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
            take = _take(problem, int(c), problem.pixels[[k]])[0]
            limited = problem.resource[c] >= 0
            np.add.at(used, problem.resource[c][limited], take[limited])
    if not (used <= heuristic.FULL).all():
        return False
    tables = heuristic.Tables.of(problem)
    now, before = (heuristic.total(tables, *choice) for choice in ((config, point), (than, than_point)))
    return bool(((config >= 0).sum(), now) > ((than >= 0).sum(), before))


def _players(problem: Problem) -> list[IntArray]:
    games = int(problem.game.max(initial=-1)) + 1
    return [np.flatnonzero(problem.game == g) for g in range(games)]


def _highs(
    cost: FloatArray, rows: list[_Row], start: FloatArray, time_limit_s: float, progress: Progress | None
) -> tuple[Status, FloatArray | None, float, float]:
    """Maximises over binaries: status, the best found or None, the bound, seconds."""
    try:
        import highspy
    except ImportError as error:
        said = "the package highspy is missing: pip install 'prbandit[vr]'"
        raise ImportError(said, name="highspy") from error
    solver = highspy.Highs()
    for option, value in _OPTIONS.items():
        solver.setOptionValue(option, value)
    if time_limit_s < inf:
        solver.setOptionValue("time_limit", float(time_limit_s))
    width = len(cost)
    programme = highspy.HighsLp()
    programme.num_col_, programme.num_row_ = width, len(rows)
    programme.sense_ = highspy.ObjSense.kMaximize
    programme.col_cost_ = cost
    programme.col_lower_, programme.col_upper_ = np.zeros(width), np.ones(width)
    programme.integrality_ = [highspy.HighsVarType.kInteger] * width
    programme.row_lower_ = np.array([max(row[0], -highspy.kHighsInf) for row in rows])
    programme.row_upper_ = np.array([row[1] for row in rows])
    programme.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    programme.a_matrix_.start_ = np.cumsum([0] + [len(row[2]) for row in rows])
    programme.a_matrix_.index_ = np.concatenate([row[2] for row in rows])
    programme.a_matrix_.value_ = np.concatenate([row[3] for row in rows])
    solver.passModel(programme)
    begin = highspy.HighsSolution()
    begin.col_value = start.tolist()
    solver.setSolution(begin)
    if progress is not None:
        solver.cbMipLogging += lambda event: progress(
            event.data_out.running_time, event.data_out.mip_primal_bound, event.data_out.mip_dual_bound
        )
    solver.run()
    information, model, seconds = solver.getInfo(), solver.getModelStatus(), float(solver.getRunTime())
    chosen = np.array(solver.getSolution().col_value) if information.primal_solution_status == 2 else None
    if model == highspy.HighsModelStatus.kOptimal:
        return "optimal", chosen, float(information.mip_dual_bound), seconds
    if model == highspy.HighsModelStatus.kTimeLimit:
        return "time limit", chosen, float(information.mip_dual_bound), seconds
    infeasible = model == highspy.HighsModelStatus.kInfeasible
    return ("infeasible" if infeasible else "feasible"), chosen, (-inf if infeasible else inf), seconds
