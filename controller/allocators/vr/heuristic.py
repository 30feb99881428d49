"""Algorithm 1, mended: prices for what is scarce, then users who take what they can pay for, then exchanges.

The published one ranks users by SINR, raises resolutions in a fixed order and looks at latency and GPU of the
wrong station. Here

1. prices of all resources come from the Lagrangian dual of the problem, by subgradients with Polyak's step;
   the dual is an upper bound on the optimum;
2. every user gets the fewest pixels at the lowest frame rate, where they fit; players of a game share a node;
3. in turn, users take the configuration and the point of their front that is worth most after its price and
   fits beside the others, at prices that fall to nothing;
4. two users at a time exchange what they have, who is not admitted takes another's place, and whole games
change
   their node, where that is worth more.

From step 2 on every state is feasible.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from controller.allocators.vr.moves import admit, exchange, move_games, replace_others, restore, take_turns
from controller.allocators.vr.prices import Asked, dual, settle, surrogate, tune
from controller.allocators.vr.problem import LINEAR, FloatArray, IntArray, Problem
from controller.allocators.vr.tables import MOVE, Tables, reach, total

PRICE_STEPS: Final = 40
"""At most, while one in two makes the bound better by a part of ENOUGH."""
DISCOUNTS: Final = (1.0, 0.5, 0.2, 0.0)
"""Of the prices, in turn."""
ROUNDS: Final = 3
"""Of exchanges."""
FEW: Final = 40
"""Up to so many users several divisions of the games over the nodes are tried."""
TRIES: Final = 70
"""How many that are, times users; 3 at least."""
MANY: Final = 300
"""Up to so many users those who are not admitted are tried in the place of the others."""


@dataclass(frozen=True, slots=True)
class Found:
    """For each user of a problem a configuration, -1 where not admitted, and a point of the front.

    ``value`` is the sum of QoE without constants; ``bound`` is what the ``prices`` [resources] prove on it,
    for any solution that admits as many.
    """

    config: IntArray
    point: IntArray
    value: float
    bound: float
    prices: FloatArray

    @property
    def admitted(self) -> int:
        return int((self.config >= 0).sum())


def solve(problem: Problem) -> Found:
    """From nothing."""
    tables = Tables.of(problem)
    nodes, stations = len(problem.instance.nodes), len(problem.instance.stations)
    prices = np.zeros(problem.resources)
    anywhere = np.full(len(tables.players), -1)
    asked = Asked.of(tables, nodes, problem.resources)
    last = reach(tables, problem.resources)
    bound, _, _ = tune(tables, anywhere, PRICE_STEPS, last, prices, asked)
    home = anywhere.copy()
    settle(tables, prices, 2 * stations, asked.worth, asked.takes, home)
    homes = [home]
    if len(problem) <= FEW:
        homes += _others(tables, prices, 2 * stations, asked.worth, asked.takes, home)
    best: Found | None = None
    for place in homes:
        found = _at(problem, tables, place, last, prices, asked)
        if best is None or (found.admitted, found.value) > (best.admitted, best.value):
            best = found
    assert best is not None
    return replace(best, bound=float(bound), prices=prices)


def frontier(problem: Problem, prices: FloatArray, points: int) -> tuple[FloatArray, FloatArray]:
    """Of a problem with one base station: parts of its bandwidth, ascending, and what the users' QoE can be
    with each, on the concave hull, at the ``prices`` of the other resources. Begins with (0, 0)."""
    tables = Tables.of(problem)
    asked = Asked.of(tables, len(problem.instance.nodes), problem.resources)
    last, home = reach(tables, problem.resources), np.full(len(tables.players), -1)
    local = prices.copy()
    top = 1.0 + float(tables.value[tables.menu_at[1:] - 1].sum()) if len(problem) else 1.0
    part, value = [0.0], [0.0]
    for price in np.geomspace(100.0 * top, 1e-4 * top, points):
        local[0] = price
        dual(tables, home, False, last, local, 1.0, asked)
        if asked.used[0] > part[-1] * (1.0 + 1e-9):
            part.append(float(asked.used[0]))
            value.append(float(total(tables, asked.config, asked.point)))
    return np.array(part), np.array(value)


def _at(
    problem: Problem, tables: Tables, home: IntArray, last: IntArray, prices: FloatArray, asked: Asked
) -> Found:
    """With the games on nodes to begin with."""
    nodes = len(problem.instance.nodes)
    local = prices.copy()
    _, config, point = tune(tables, home, PRICE_STEPS // 4, last, local, asked)
    _, used = admit(tables, nodes, local, config, point)
    order, room = np.arange(len(problem)), np.empty(problem.resources)
    for discount in DISCOUNTS:
        take_turns(tables, discount * local, order, MOVE, config, point, used, asked.out)
    for _ in range(ROUNDS):
        gained = exchange(tables, MOVE, config, point, used, room, asked.out)
        if (config < 0).any() and len(problem) <= MANY:
            gained += replace_others(tables, 0.0 * local, config, point, used, asked.out)
        gained += move_games(tables, nodes, local, config, point, used)
        gained += take_turns(tables, 0.0 * local, order, MOVE, config, point, used, asked.out)
        if gained <= MOVE:
            break
    return Found(config, point, float(total(tables, config, point)), np.inf, prices)


def _others(
    tables: Tables, prices: FloatArray, at: int, worth: FloatArray, takes: FloatArray, home: IntArray
) -> list[IntArray]:
    """The best, by what :func:`settle` goes by, of what differs from ``home`` by a game or by two that
    change places."""
    games, nodes = worth.shape
    near: list[IntArray] = []
    for g in range(games):
        for m in range(nodes):
            if m != home[g] and worth[g, m] > -np.inf:
                near.append(home.copy())
                near[-1][g] = m
        for h in range(g):
            if home[g] != home[h] and worth[g, home[h]] > -np.inf and worth[h, home[g]] > -np.inf:
                near.append(home.copy())
                near[-1][[g, h]] = home[[h, g]]
    rank = [surrogate(tables, prices, at, worth, takes, other) for other in near]
    return [
        near[k]
        for k in np.argsort(-np.array(rank), kind="stable")[: max(3, TRIES // max(1, len(tables.game))) - 1]
    ]


def hold(
    problem: Problem, prices: FloatArray, before: IntArray, point: IntArray, order: IntArray, least: float
) -> Found:
    """From what users had ``before``: configurations [n], -1 for who had nothing, and points.

    In ``order`` users go back to what they had, as far as it still fits. Then who gains at least ``least``
    changes, and two users exchange where both together gain twice as much.
    """
    tables = Tables.of(problem)
    nodes = len(problem.instance.nodes)
    config, points = before.copy(), point.copy()
    out = np.empty(1 + LINEAR)
    _, used = admit(tables, nodes, prices, config, points)
    restore(tables, before, point, order, config, points, used, out)
    take_turns(tables, 0.0 * prices, order, least, config, points, used, out)
    exchange(tables, 2.0 * least, config, points, used, np.empty_like(used), out)
    return Found(config, points, float(total(tables, config, points)), np.inf, prices)
