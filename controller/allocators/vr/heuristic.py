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

import math
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

from controller.allocators.vr.problem import LINEAR, FloatArray, IntArray, Problem

PRICE_STEPS: Final = 40
"""At most, while one in two makes the bound better by a part of ENOUGH."""
ENOUGH: Final = 1e-4
DISCOUNTS: Final = (1.0, 0.5, 0.2, 0.0)
"""Of the prices, in turn."""
ROUNDS: Final = 3
"""Of exchanges."""
FEW: Final = 40
"""Up to so many users several divisions of the games over the nodes are tried."""
TRIES: Final = 90
"""How many that are, times users; 3 at least."""
MANY: Final = 300
"""Up to so many users those who are not admitted are tried in the place of the others."""
MAX_PARTNERS: Final = 40
"""With whom a user exchanges."""
MOVE: Final = 1e-9
"""What a change must be worth at least."""
FULL: Final = 1.0 + 1e-12


class Tables(NamedTuple):
    """The arrays of a :class:`Problem`, with the points of each front on its upper concave hull, and the
    users of each game, ``players`` int64 [games, most], -1 beyond, and where one of them has a configuration,
    ``at_node`` bool [games, nodes]. ``most``: pixels of a frame that is in time, where bandwidth is shared.
    ``hull_slope``: value a pixel from a point of the hull to the next."""

    menu_at: Any
    pixels: Any
    value: Any
    hull_at: Any
    hull: Any
    hull_slope: Any
    config_at: Any
    station: Any
    node: Any
    rate_value: Any
    unit: Any
    budget_s: Any
    pixel_s: Any
    most: Any
    fixed: Any
    slope: Any
    resource: Any
    game: Any
    players: Any
    at_node: Any

    @classmethod
    def of(cls, p: Problem) -> Tables:
        hull_at, hull, hull_slope = _hulls(p.menu_at, p.pixels, p.value)
        size = np.bincount(p.game) if len(p) else np.zeros(0, np.int64)
        players = np.full((len(size), max(1, int(size.max(initial=0)))), -1)
        order = np.argsort(p.game, kind="stable")
        at = np.arange(len(p)) - np.repeat(np.cumsum(size) - size, size)
        players[p.game[order], at] = order
        at_node = np.zeros((len(size), len(p.instance.nodes)), bool)
        at_node[np.repeat(p.game, np.diff(p.config_at)), p.node] = True
        fields = {name: getattr(p, name, None) for name in cls._fields}
        fields |= {"hull_at": hull_at, "hull": hull, "hull_slope": hull_slope}
        fields |= {"players": players, "at_node": at_node, "most": np.full(len(p.node), np.inf)}
        if p.shared:
            fields["most"] = p.budget_s / (p.pixel_s + p.unit)
            fields["unit"] = p.unit * p.frame_rate_hz
            fields["budget_s"], fields["pixel_s"] = np.ones(len(p.node)), np.zeros(len(p.node))
        return cls(**fields)


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
    bound, _, _ = _tune(tables, anywhere, PRICE_STEPS, last, prices, asked)
    home = anywhere.copy()
    _settle(tables, prices, 2 * stations, asked.worth, asked.takes, home)
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
    _, config, point = _tune(tables, home, PRICE_STEPS // 4, last, local, asked)
    _, used = _admit(tables, nodes, local, config, point)
    order, room = np.arange(len(problem)), np.empty(problem.resources)
    for discount in DISCOUNTS:
        _take_turns(tables, discount * local, order, MOVE, config, point, used, asked.out)
    for _ in range(ROUNDS):
        gained = _exchange(tables, MOVE, config, point, used, room, asked.out)
        if (config < 0).any() and len(problem) <= MANY:
            gained += _replace(tables, 0.0 * local, config, point, used, asked.out)
        gained += _move_games(tables, nodes, local, config, point, used)
        gained += _take_turns(tables, 0.0 * local, order, MOVE, config, point, used, asked.out)
        if gained <= MOVE:
            break
    return Found(config, point, float(total(tables, config, point)), np.inf, prices)


def _others(
    tables: Tables, prices: FloatArray, at: int, worth: FloatArray, takes: FloatArray, home: IntArray
) -> list[IntArray]:
    """The best, by what :func:`_settle` goes by, of what differs from ``home`` by a game or by two that
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
    rank = [_surrogate(tables, prices, at, worth, takes, other) for other in near]
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
    _, used = _admit(tables, nodes, prices, config, points)
    _restore(tables, before, point, order, config, points, used, out)
    _take_turns(tables, 0.0 * prices, order, least, config, points, used, out)
    _exchange(tables, 2.0 * least, config, points, used, np.empty_like(used), out)
    return Found(config, points, float(total(tables, config, points)), np.inf, prices)


# -- compiled ------------------------------------------------------------------------------------------------

_compiled: Any = njit(cache=True, nogil=True)
_BARE: Final[dict[str, Any]] = {"cache": True, "nogil": True, "_nrt": False}
"""Allocates nothing: without Numba's reference counts on every array that is touched it is five times as
fast."""
_bare: Any = njit(**_BARE)
_inlined: Any = njit(forceinline=True, **_BARE)
"""A call hands the tables over array by array, which takes longer than these functions."""


@_compiled
def _hulls(menu_at: Any, pixels: Any, value: Any) -> tuple[Any, Any, Any]:
    n = len(menu_at) - 1
    at, points = np.zeros(n + 1, np.int64), np.empty(len(pixels), np.int64)
    size = 0
    for i in range(n):
        start = size
        for k in range(menu_at[i], menu_at[i + 1]):
            while size - start >= 2:
                a, b = points[size - 2], points[size - 1]
                rise, run = value[b] - value[a], pixels[b] - pixels[a]
                if rise * (pixels[k] - pixels[b]) > (value[k] - value[b]) * run:
                    break
                size -= 1
            points[size] = k
            size += 1
        at[i + 1] = size
    slope = np.zeros(size)
    for i in range(n):
        for h in range(at[i], at[i + 1] - 1):
            a, b = points[h], points[h + 1]
            slope[h] = (value[b] - value[a]) / (pixels[b] - pixels[a])
    return at, points[:size].copy(), slope


@_inlined
def _take(t: Any, c: int, x: float, out: Any) -> None:
    """What a frame of ``x`` pixels takes in configuration ``c`` of each of its resources."""
    left = t.budget_s[c] - x * t.pixel_s[c]
    out[0] = x * t.unit[c] / left if left > 0.0 else np.inf
    for r in range(LINEAR):
        out[1 + r] = t.fixed[c, r] + t.slope[c, r] * x


@_inlined
def _add(t: Any, c: int, k: int, sign: float, used: Any, out: Any) -> None:
    if c >= 0:
        _take(t, c, t.pixels[k], out)
        for r in range(1 + LINEAR):
            if t.resource[c, r] >= 0:
                used[t.resource[c, r]] += sign * out[r]


@_inlined
def _fits(t: Any, c: int, k: int, used: Any, out: Any) -> bool:
    if t.pixels[k] > t.most[c]:
        return False
    _take(t, c, t.pixels[k], out)
    for r in range(1 + LINEAR):
        if t.resource[c, r] >= 0 and not used[t.resource[c, r]] + out[r] <= FULL:
            return False
    return True


@_inlined
def _rates(t: Any, c: int, prices: Any) -> tuple[float, float, float]:
    """What a configuration costs: for nothing, for a pixel, for the station's bandwidth."""
    fixed, slope = 0.0, 0.0
    for r in range(1, 1 + LINEAR):
        q = t.resource[c, r]
        if q >= 0:
            fixed += prices[q] * t.fixed[c, r - 1]
            slope += prices[q] * t.slope[c, r - 1]
    return fixed, slope, prices[t.resource[c, 0]]


@_inlined
def _profit(t: Any, c: int, k: int, rates: Any) -> float:
    """The value of a point after prices."""
    x = t.pixels[k]
    worth = t.rate_value[c] + t.value[k] - rates[0] - rates[1] * x
    if rates[2] > 0.0:
        worth -= rates[2] * x * t.unit[c] / (t.budget_s[c] - x * t.pixel_s[c])
    return worth


@_inlined
def _last(t: Any, i: int, c: int, used: Any, out: Any) -> int:
    """The last point of a user's front that fits, -1 for none."""
    lo, hi = t.menu_at[i] - 1, t.menu_at[i + 1] - 1
    while lo < hi:
        mid = (lo + hi + 1) // 2
        if _fits(t, c, mid, used, out):
            lo = mid
        else:
            hi = mid - 1
    return lo if lo >= t.menu_at[i] else -1


@_compiled
def reach(t: Any, resources: int) -> Any:
    """For each configuration the last point of its user's front that fits alone."""
    out, nothing = np.empty(1 + LINEAR), np.zeros(resources)
    last = np.empty(len(t.node), np.int64)
    for i in range(len(t.menu_at) - 1):
        for c in range(t.config_at[i], t.config_at[i + 1]):
            last[c] = _last(t, i, c, nothing, out)
    return last


@_inlined
def _best(t: Any, i: int, c: int, last: int, prices: Any) -> tuple[float, int]:
    """Profit of the best point of a user's front up to ``last``, and the point.

    Along the hull the value is concave and what is taken convex: the best of the hull is where the next step
    costs more than it is worth. Of the bandwidth x u / (b - x s) a step from x to y takes
    u b / ((b - x s)(b - y s)) a pixel. A point below the hull can be better where ``last`` cuts an edge of
    the hull or bandwidth, which is not linear, costs: then it is on an edge that meets the best of the hull.
    """
    rates = _rates(t, c, prices)
    budget, pixel_s = t.budget_s[c], t.pixel_s[c]
    bandwidth = rates[2] * t.unit[c] * budget
    lo, hi = t.hull_at[i], t.hull_at[i + 1] - 1
    while lo < hi:
        mid = (lo + hi) // 2
        here, after = t.hull[mid], t.hull[mid + 1]
        dear = True
        if after <= last:
            both = (budget - t.pixels[here] * pixel_s) * (budget - t.pixels[after] * pixel_s)
            dear = t.hull_slope[mid] * both <= rates[1] * both + bandwidth
        if dear:
            hi = mid
        else:
            lo = mid + 1
    point = t.hull[lo]
    profit = _profit(t, c, point, rates)
    curved = bandwidth > 0.0 and pixel_s > 0.0
    begin, end = point + 1, last
    if curved and lo > t.hull_at[i]:
        begin = t.hull[lo - 1] + 1
    if lo + 1 < t.hull_at[i + 1] and t.hull[lo + 1] <= last:
        end = t.hull[lo + 1] - 1 if curved else point
    for k in range(begin, end + 1):
        other = _profit(t, c, k, rates)
        if other > profit:
            profit, point = other, k
    return profit, point


@_bare
def _respond(t: Any, i: int, node: int, prices: Any, used: Any, out: Any) -> tuple[float, int, int]:
    """The best of a user's configurations on a node (-1: any), and of its points, of those that fit."""
    best, config, point = -np.inf, -1, -1
    for c in range(t.config_at[i], t.config_at[i + 1]):
        if node < 0 or t.node[c] == node:
            last = _last(t, i, c, used, out)
            if last >= 0:
                profit, k = _best(t, i, c, last, prices)
                if profit > best:
                    best, config, point = profit, c, k
    return best, config, point


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


@_bare
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
                profit, k = _best(t, i, c, last[c], prices)
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
                _take(t, c, t.pixels[asked.points[q, m]], asked.out)
                for r in range(LINEAR):
                    asked.takes[g, m, r] += asked.out[1 + r]
                for r in range(1 + LINEAR):
                    if t.resource[c, r] >= 0:
                        asked.used[t.resource[c, r]] += part * asked.out[r]
    return total


@_compiled
def _tune(t: Any, home: Any, steps: int, last: Any, prices: Any, asked: Any) -> tuple[float, Any, Any]:
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


@_compiled
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


@_compiled
def _surrogate(t: Any, prices: Any, at: int, worth: Any, takes: Any, home: Any) -> float:
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


@_compiled
def _settle(t: Any, prices: Any, at: int, worth: Any, takes: Any, home: Any) -> None:
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


@_bare
def _place(t: Any, i: int, node: int, wish: int, prices: Any, used: Any, out: Any) -> tuple[float, int]:
    """Where a user at the fewest pixels costs least, ``wish`` before all others that fit; -1 for nowhere."""
    k = t.menu_at[i]
    if wish >= 0 and (node < 0 or t.node[wish] == node) and _fits(t, wish, k, used, out):
        return 0.0, wish
    least, config = np.inf, -1
    top = 1e-12
    for r in range(len(prices)):
        top = max(top, prices[r])
    for c in range(t.config_at[i], t.config_at[i + 1]):
        if (node >= 0 and t.node[c] != node) or not _fits(t, c, k, used, out):
            continue
        cost = 0.0
        for r in range(1 + LINEAR):
            q = t.resource[c, r]
            if q >= 0:
                cost += out[r] * (prices[q] / top + 1.0 / (1.001 - used[q]))
        if cost < least:
            least, config = cost, c
    return least, config


@_compiled
def _admit(t: Any, nodes: int, prices: Any, config: Any, point: Any) -> tuple[int, Any]:
    """Everybody at the fewest pixels, game after game, in the configuration wished for where that fits.

    ``config`` holds the wishes and then what came of them. Returns how many are admitted, and what they use.
    The games of those who take least come first, and nothing is wished for, where not all fit otherwise.
    """
    n, games, most = len(t.menu_at) - 1, len(t.players), t.players.shape[1]
    out = np.empty(1 + LINEAR)
    wish, nothing = config.copy(), np.zeros(len(prices))
    need = np.zeros(games)
    for g in range(games):
        for q in range(most):
            i = t.players[g, q]
            if i < 0:
                break
            least, c = _place(t, i, -1, -1, nothing, nothing, out)
            need[g] += least
    admitted, used = -1, np.zeros(len(prices))
    trial = np.full(n, -1)
    placed = np.full(most, -1)
    for attempt in range(4):
        order = np.argsort(need) if attempt % 2 else np.arange(games)
        if attempt == 2:
            wish[:] = -1  # a higher frame rate that is wished for may take another's place
        now = np.zeros(len(prices))
        count = 0
        trial[:] = -1
        for g in order:
            best_count, best_cost, best_node = 0, np.inf, -1
            wished = -1
            for q in range(most):
                if t.players[g, q] >= 0 and wish[t.players[g, q]] >= 0:
                    wished = t.node[wish[t.players[g, q]]]
                    break
            for m in range(nodes):
                if not t.at_node[g, m]:
                    continue
                cost, fit = 0.0, 0
                for q in range(most):
                    i = t.players[g, q]
                    placed[q] = -1
                    if i < 0:
                        break
                    dear, c = _place(t, i, m, wish[i], prices, now, out)
                    if c >= 0:
                        fit, cost = fit + 1, cost + dear
                        placed[q] = c
                        _add(t, c, t.menu_at[i], 1.0, now, out)
                for q in range(most):
                    if t.players[g, q] < 0:
                        break
                    _add(t, placed[q], t.menu_at[t.players[g, q]], -1.0, now, out)
                if m == wished:
                    cost = -1.0
                if fit > best_count or (fit == best_count and fit > 0 and cost < best_cost):
                    best_count, best_cost, best_node = fit, cost, m
            if best_node < 0:
                continue
            for q in range(most):
                i = t.players[g, q]
                if i < 0:
                    break
                dear, c = _place(t, i, best_node, wish[i], prices, now, out)
                trial[i] = c
                if c >= 0:
                    count += 1
                    _add(t, c, t.menu_at[i], 1.0, now, out)
        if count > admitted:
            admitted = count
            config[:] = trial
            used[:] = now
        if count == n:
            break
    for i in range(n):
        point[i] = t.menu_at[i]
    return admitted, used


@_inlined
def _node_of(t: Any, i: int, config: Any) -> int:
    """The node that a user's game has for others, -1 where it has none."""
    g = t.game[i]
    for q in range(t.players.shape[1]):
        j = t.players[g, q]
        if j < 0:
            break
        if j != i and config[j] >= 0:
            return int(t.node[config[j]])
    return -1


@_bare
def _take_turns(
    t: Any, prices: Any, order: Any, least: float, config: Any, point: Any, used: Any, out: Any
) -> float:
    """Each user changes to what is worth most, where it is worth ``least`` more; what was gained in all.

    Who is not admitted comes in where there is room.
    """
    gained = 0.0
    for i in order:
        c, k = config[i], point[i]
        _add(t, c, k, -1.0, used, out)
        worth, new_c, new_k = _respond(t, i, _node_of(t, i, config), prices, used, out)
        now = _profit(t, c, k, _rates(t, c, prices)) if c >= 0 else -np.inf
        if new_c >= 0 and (c < 0 or worth >= now + least):
            gained += worth - now if c >= 0 else 1.0
            config[i], point[i] = new_c, new_k
        _add(t, config[i], point[i], 1.0, used, out)
    return gained


@_bare
def _replace(t: Any, prices: Any, config: Any, point: Any, used: Any, out: Any) -> float:
    """Who is not admitted takes the place of whom that gains most, where it gains; what was gained."""
    n = len(config)
    gained = 0.0
    for i in range(n):
        if config[i] >= 0:
            continue
        best, whom, new_c, new_k = MOVE, -1, -1, -1
        for j in range(n):
            c, k = config[j], point[j]
            if c < 0:
                continue
            _add(t, c, k, -1.0, used, out)
            config[j] = -1
            worth, own_c, own_k = _respond(t, i, _node_of(t, i, config), prices, used, out)
            config[j] = c
            _add(t, c, k, 1.0, used, out)
            if own_c >= 0 and worth - t.rate_value[c] - t.value[k] > best:
                best, whom = worth - t.rate_value[c] - t.value[k], j
                new_c, new_k = own_c, own_k
        if whom >= 0:
            _add(t, config[whom], point[whom], -1.0, used, out)
            config[whom] = -1
            config[i], point[i] = new_c, new_k
            _add(t, new_c, new_k, 1.0, used, out)
            gained += best
    return gained


@_bare
def _restore(t: Any, before: Any, had: Any, order: Any, config: Any, point: Any, used: Any, out: Any) -> None:
    """Users go back to what they had, or to the last point that fits in that configuration."""
    for i in order:
        c = before[i]
        if c < 0 or config[i] < 0:
            continue
        node = _node_of(t, i, config)
        if node >= 0 and t.node[c] != node:
            continue
        _add(t, config[i], point[i], -1.0, used, out)
        k = had[i]
        if not _fits(t, c, k, used, out):
            k = min(k, _last(t, i, c, used, out))
        if k >= 0:
            config[i], point[i] = c, k
        _add(t, config[i], point[i], 1.0, used, out)


@_bare
def _exchange(t: Any, least: float, config: Any, point: Any, used: Any, with_i: Any, out: Any) -> float:
    """Pairs that share a station or a node divide anew what they have and what is left; what was gained."""
    n = len(config)
    gained = 0.0
    for i in range(n):
        for step in range(1, min(n - 1, MAX_PARTNERS) + 1):
            j = (i + step) % n
            if (j < i and n - 1 <= MAX_PARTNERS) or config[i] < 0 or config[j] < 0:
                continue
            a, b = config[i], config[j]
            if t.station[a] != t.station[b] and t.node[a] != t.node[b]:
                continue
            now = t.rate_value[a] + t.value[point[i]] + t.rate_value[b] + t.value[point[j]]
            best = now + least
            found = False
            new = (a, point[i], b, point[j])
            _add(t, a, point[i], -1.0, used, out)
            _add(t, b, point[j], -1.0, used, out)
            for c in range(t.config_at[i], t.config_at[i + 1]):
                if t.station[c] != t.station[a] or t.node[c] != t.node[a]:
                    continue
                top = _last(t, i, c, used, out)
                if top < 0:
                    continue
                for d in range(t.config_at[j], t.config_at[j + 1]):
                    if t.station[d] != t.station[b] or t.node[d] != t.node[b]:
                        continue
                    reach = _last(t, j, d, used, out)
                    if reach < 0:
                        continue
                    most = t.rate_value[c] + t.rate_value[d] + t.value[reach]
                    for k in range(top, t.menu_at[i] - 1, -1):
                        if most + t.value[k] <= best:
                            break
                        for r in range(len(used)):
                            with_i[r] = used[r]
                        _add(t, c, k, 1.0, with_i, out)
                        last = _last(t, j, d, with_i, out)
                        if last >= 0:
                            total = t.rate_value[c] + t.rate_value[d] + t.value[k] + t.value[last]
                            if total > best:
                                best, found = total, True
                                new = (c, k, d, last)
            config[i], point[i], config[j], point[j] = new
            if found:
                gained += best - now
            _add(t, config[i], point[i], 1.0, used, out)
            _add(t, config[j], point[j], 1.0, used, out)
    return gained


@_compiled
def _move_games(t: Any, nodes: int, prices: Any, config: Any, point: Any, used: Any) -> float:
    """Games of several players change to another node where that is worth more; what was gained."""
    out = np.empty(1 + LINEAR)
    most = t.players.shape[1]
    gained = 0.0
    old = np.empty((2, most), np.int64)
    nothing = np.zeros(len(prices))
    for g in range(len(t.players)):
        if most < 2 or t.players[g, 1] < 0:
            continue
        now, admitted, home = 0.0, 0, -1
        for q in range(most):
            i = t.players[g, q]
            if i < 0:
                break
            old[0, q], old[1, q] = config[i], point[i]
            if config[i] >= 0:
                now += t.rate_value[config[i]] + t.value[point[i]]
                admitted, home = admitted + 1, t.node[config[i]]
        for m in range(nodes):
            if m == home or admitted == 0 or not t.at_node[g, m]:
                continue
            for q in range(most):
                i = t.players[g, q]
                if i < 0:
                    break
                _add(t, config[i], point[i], -1.0, used, out)
                config[i] = -1
            fit = 0
            for q in range(most):
                i = t.players[g, q]
                if i < 0:
                    break
                _, c = _place(t, i, m, -1, prices, used, out)
                config[i], point[i] = c, t.menu_at[i]
                _add(t, c, point[i], 1.0, used, out)
                fit += c >= 0
            total = 0.0
            for rho in (1.0, 0.0):
                for q in range(most):
                    i = t.players[g, q]
                    if i < 0:
                        break
                    if config[i] < 0:
                        continue
                    _add(t, config[i], point[i], -1.0, used, out)
                    _, c, k = _respond(t, i, m, prices if rho > 0.0 else nothing, used, out)
                    if c >= 0:
                        config[i], point[i] = c, k
                    _add(t, config[i], point[i], 1.0, used, out)
            for q in range(most):
                i = t.players[g, q]
                if i < 0:
                    break
                if config[i] >= 0:
                    total += t.rate_value[config[i]] + t.value[point[i]]
            if fit > admitted or (fit == admitted and total > now + MOVE):
                gained += total - now if fit == admitted else 1.0
                now, admitted, home = total, fit, m
                for q in range(most):
                    if t.players[g, q] < 0:
                        break
                    old[0, q], old[1, q] = config[t.players[g, q]], point[t.players[g, q]]
            else:
                for q in range(most):
                    i = t.players[g, q]
                    if i < 0:
                        break
                    _add(t, config[i], point[i], -1.0, used, out)
                    config[i], point[i] = old[0, q], old[1, q]
                    _add(t, config[i], point[i], 1.0, used, out)
    return gained


@_compiled
def total(t: Any, config: Any, point: Any) -> float:
    """The sum of QoE, without constants, of who is admitted."""
    summed = 0.0
    for i in range(len(config)):
        if config[i] >= 0:
            summed += t.rate_value[config[i]] + t.value[point[i]]
    return summed
