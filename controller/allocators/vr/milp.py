"""Programmes over binary variables, solved by HiGHS, and the rows that those of VR-GX have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, Literal

import numpy as np

from controller.allocators.vr.problem import FloatArray, IntArray, Problem
from wire.definitions.extras import needs

Row = tuple[float, float, IntArray, FloatArray]
"""A constraint: the least, the most, columns and their coefficients."""
Status = Literal["optimal", "feasible", "infeasible", "time limit"]
Progress = Callable[[float, float, float], None]
"""Called with seconds, the best objective so far and the bound."""

PROOF: Final = 1e-6
"""Relative gap below which a solution counts as the optimum."""
SCALE: Final = 1e3
"""A capacity in a programme, so that the tolerances of HiGHS are small against it."""
_TOLERANCE: Final = 1e-9
_OPTIONS: Final[dict[str, Any]] = {
    "threads": 1,
    "random_seed": 0,
    "mip_rel_gap": PROOF / 10,
    "mip_abs_gap": 1e-7,
    "primal_feasibility_tolerance": _TOLERANCE,
    "mip_feasibility_tolerance": _TOLERANCE,
}


def capacity_rows(resource: IntArray, takes: FloatArray) -> list[Row]:
    """A row for each resource that columns take of: ``resource`` [columns, r], -1 for none, and ``takes``,
    of a capacity of 1."""
    rows: list[Row] = []
    for r in np.unique(resource[resource >= 0]):
        j, k = np.nonzero(resource == r)
        rows.append((-inf, SCALE, j, SCALE * takes[j, k]))
    return rows


def game_rows(
    problem: Problem,
    config: IntArray,
    by_user: Sequence[IntArray],
    games: Sequence[IntArray],
    everybody: bool,
) -> list[Row]:
    """One node for the players of each of ``games``.

    ``config`` is that of each column, ``by_user`` the columns of each user. Behind the columns stands, for
    each game and node, a variable that says whether the game is there. ``everybody``: each user has a column.
    """
    nodes = len(problem.instance.nodes)
    rows: list[Row] = []
    for at, players in enumerate(games):
        z = len(config) + nodes * at + np.arange(nodes)
        rows.append((1.0, 1.0, z, np.ones(nodes)))
        for i in players:
            for m in range(nodes):
                own = by_user[i][problem.node[config[by_user[i]]] == m]
                ones = np.append(np.ones(len(own)), -1.0)
                rows.append((0.0 if everybody else -1.0, 0.0, np.append(own, z[m]), ones))
    return rows


def shared_games(problem: Problem) -> list[IntArray]:
    """The users of each game that has more than one."""
    games = int(problem.game.max(initial=-1)) + 1
    players = [np.flatnonzero(problem.game == g) for g in range(games)]
    return [p for p in players if len(p) > 1]


def maximise(
    cost: FloatArray,
    rows: Sequence[Row],
    start: FloatArray | None = None,
    time_limit_s: float = inf,
    progress: Progress | None = None,
) -> tuple[Status, FloatArray | None, float, float]:
    """Maximises over binaries: status, the best found or None, the bound, seconds.

    ImportError, which says what to install, without HiGHS.
    """
    with needs("vr"):
        import highspy

    class Silent(highspy.Highs):
        """Without the line that HiGHS prints where callbacks are set up, before options can be."""

        def enableCallbacks(self) -> None:
            self.setOptionValue("log_to_console", False)
            super().enableCallbacks()

    solver = Silent()
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
    if start is not None:
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
