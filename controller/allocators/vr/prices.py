"""Prices of what is scarce, from the Lagrangian dual of VR-GX, and the nodes of games by them."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from controller.allocators.vr.problem import LINEAR
from controller.allocators.vr.tables import Tables, bare, best_point, compiled, take

ENOUGH: Final = 1e-4


class Asked(NamedTuple):
    """What users would choose at prices: ``config`` and ``point`` [n], what each game is ``worth`` [games,
    nodes] and ``takes`` [games, nodes, LINEAR] on each node, and what all take, ``used`` [resources]. The
    rest is room to work in."""

    config: Any
    point: Any
    worth: Any
    takes: Any
    used: Any
    best: Any
    chosen: Any
    points: Any
    out: Any

    @classmethod
    def of(cls, t: Tables, nodes: int, resources: int) -> Asked:
        n = len(t.menu_at) - 1
        games, most = t.players.shape
        return cls(
            np.full(n, -1),
            np.full(n, -1),
            np.zeros((games, nodes)),
            np.zeros((games, nodes, LINEAR)),
            np.zeros(resources),
            np.zeros((most, nodes)),
            np.zeros((most, nodes), np.int64),
            np.zeros((most, nodes), np.int64),
            np.zeros(1 + LINEAR),
        )


@bare
def dual(t: Any, home: Any, forced: bool, last: Any, prices: Any, spread: float, asked: Any) -> float:
    """The Lagrangian dual at ``prices``: an upper bound on what any solution is worth.

    ``home`` [games] is the node of each game, -1 for the best for all of its players. Unless ``forced`` a
    user may stay away, -1. Of a game that is on no node in particular each node has its part in
    ``asked.used``, by a softmax of what it is worth there over ``spread``: all players of a game change their
    node at once, and prices that answer to that never settle. ``last`` are the last points of :func:`reach`.
    """
    games, nodes = asked.worth.shape
    total = 0.0
    for r in range(len(prices)):
        total += prices[r]
        asked.used[r] = 0.0
    for g in range(games):
        for m in range(nodes):
            asked.worth[g, m] = -np.inf
            for r in range(LINEAR):
                asked.takes[g, m, r] = 0.0
        players = 0
        for q in range(t.players.shape[1]):
            i = t.players[g, q]
            if i < 0:
                break
            players += 1
            for m in range(nodes):
                asked.best[q, m] = -np.inf if forced else 0.0
                asked.chosen[q, m] = -1
            for c in range(t.config_at[i], t.config_at[i + 1]):
                m = t.node[c]
                if home[g] >= 0 and home[g] != m:
                    continue
                if asked.worth[g, m] == -np.inf:
                    asked.worth[g, m] = 0.0
                profit, k = best_point(t, i, c, last[c], prices)
                if profit > asked.best[q, m]:
                    asked.best[q, m], asked.chosen[q, m], asked.points[q, m] = profit, c, k
        best = 0
        for m in range(nodes):
            for q in range(players):
                asked.worth[g, m] += asked.best[q, m]
            if asked.worth[g, m] > asked.worth[g, best]:
                best = m
        if home[g] >= 0:
            best = home[g]
        total += max(asked.worth[g, best], -np.inf if forced else 0.0)
        weight = 0.0
        for m in range(nodes):
            if asked.worth[g, m] > -np.inf:
                weight += math.exp((asked.worth[g, m] - asked.worth[g, best]) / spread)
        for q in range(players):
            i = t.players[g, q]
            asked.config[i], asked.point[i] = asked.chosen[q, best], asked.points[q, best]
            for m in range(nodes):
                c = asked.chosen[q, m]
                if c < 0 or asked.worth[g, m] == -np.inf:
                    continue
                part = math.exp((asked.worth[g, m] - asked.worth[g, best]) / spread) / weight
                take(t, c, t.pixels[asked.points[q, m]], asked.out)
                for r in range(LINEAR):
                    asked.takes[g, m, r] += asked.out[1 + r]
                for r in range(1 + LINEAR):
                    if t.resource[c, r] >= 0:
                        asked.used[t.resource[c, r]] += part * asked.out[r]
    return total


@compiled
def tune(t: Any, home: Any, steps: int, last: Any, prices: Any, asked: Any) -> tuple[float, Any, Any]:
    """Prices that make the dual small, in place; the dual, and what users then choose.

    With quality as a logarithm of pixels what is asked for falls with its price, so that a price times what
    is asked for is the next one: at a power that falls, as what is asked for falls in steps.
    """
    n, top = len(t.menu_at) - 1, 1.0
    for i in range(n):
        top += t.value[t.menu_at[i + 1] - 1]
    used = asked.used
    best = dual(t, home, False, last, prices, 0.05 * top, asked)
    best_config, best_point = asked.config.copy(), asked.point.copy()
    trial = prices.copy()
    if prices.max() <= 0.0:
        scarce = max(1.0, float((used > 1.0).sum()))
        trial[:] = np.where(used > 1.0, 0.2 * top / scarce, 0.0)
    idle = 0
    for step in range(steps):
        if idle >= 3:
            break
        power = 1.0 / (1.0 + 0.25 * step)
        value = dual(t, home, False, last, trial, 0.05 * power * top, asked)
        if value < best:
            gained = best - value
            best = value
            prices[:] = trial
            best_config[:], best_point[:] = asked.config, asked.point
            idle = 0 if gained > ENOUGH * best else idle + 1
        elif step > 8:
            idle += 1
        for r in range(len(prices)):
            if trial[r] > 0.0:
                trial[r] = max(trial[r] * min(max(used[r], 0.1), 10.0) ** power, 1e-6 * top)
            elif used[r] > 1.0:
                trial[r] = 0.01 * top
    return best, best_config, best_point


@compiled
def _crowding(t: Any, load: Any, m: int, prices: Any, at: int) -> float:
    """What it costs that a node is asked for ``load`` [LINEAR] at prices at which 1 would be right.

    Where what is asked for goes with 1 / price, a load of d at price p is worth p d ln(1 / d) less when it
    must fit, and the prices promised p (1 - d): the difference is what is lost.
    """
    cost = 0.0
    for r in range(1, LINEAR):
        price, d = prices[at + m * (LINEAR - 1) + r - 1], load[r]
        if price > 0.0 and d > 0.0:
            cost += price * ((1.0 - d) + d * np.log(d))
        elif price > 0.0:
            cost += price
    return cost


@compiled
def surrogate(t: Any, prices: Any, at: int, worth: Any, takes: Any, home: Any) -> float:
    """What games are worth on their nodes less what it costs that they crowd."""
    games, nodes = worth.shape
    load = np.zeros((nodes, LINEAR))
    summed = 0.0
    for g in range(games):
        summed += worth[g, home[g]]
        load[home[g]] += takes[g, home[g]]
    for m in range(nodes):
        summed -= _crowding(t, load[m], m, prices, at)
    return summed


@compiled
def settle(t: Any, prices: Any, at: int, worth: Any, takes: Any, home: Any) -> None:
    """The node of each game, in place: what games are worth there less what it costs that they crowd.

    Begins with the largest on the emptiest and goes on while a game, or two that change places, do better.
    """
    games, nodes = worth.shape
    load = np.zeros((nodes, LINEAR))
    size = np.zeros(games)
    for g in range(games):
        for m in range(nodes):
            for r in range(1, LINEAR):
                size[g] += prices[at + m * (LINEAR - 1) + r - 1] * takes[g, m, r]
    home[:] = -1
    for g in np.argsort(-size):
        best, chosen = -np.inf, -1
        for m in range(nodes):
            if worth[g, m] == -np.inf:
                continue
            total = worth[g, m] - _crowding(t, load[m] + takes[g, m], m, prices, at)
            total += _crowding(t, load[m], m, prices, at)
            if total > best:
                best, chosen = total, m
        if chosen < 0:
            chosen = worth[g].argmax()
        home[g] = chosen
        load[chosen] += takes[g, chosen]
    for _ in range(6):
        moved = False
        for g in range(games):
            a = home[g]
            for b in range(nodes):
                if b == a or worth[g, b] == -np.inf:
                    continue
                now = (
                    worth[g, a] - _crowding(t, load[a], a, prices, at) - _crowding(t, load[b], b, prices, at)
                )
                then = worth[g, b] - _crowding(t, load[a] - takes[g, a], a, prices, at)
                then -= _crowding(t, load[b] + takes[g, b], b, prices, at)
                if then > now + 1e-9:
                    load[a] -= takes[g, a]
                    load[b] += takes[g, b]
                    home[g] = a = b
                    moved = True
        if games <= 64:
            for g in range(games):
                for h in range(g + 1, games):
                    a, b = home[g], home[h]
                    if a == b or worth[g, b] == -np.inf or worth[h, a] == -np.inf:
                        continue
                    now = worth[g, a] + worth[h, b] - _crowding(t, load[a], a, prices, at)
                    now -= _crowding(t, load[b], b, prices, at)
                    with_a = load[a] - takes[g, a] + takes[h, a]
                    with_b = load[b] - takes[h, b] + takes[g, b]
                    then = worth[g, b] + worth[h, a] - _crowding(t, with_a, a, prices, at)
                    then -= _crowding(t, with_b, b, prices, at)
                    if then > now + 1e-9:
                        load[a], load[b] = with_a, with_b
                        home[g], home[h] = b, a
                        moved = True
        if not moved:
            break
