"""A problem as compiled functions have it: its arrays, what a choice takes, earns and leaves room for."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from controller.allocators.vr.problem import LINEAR, Problem
from wire.definitions.compiled import kept

MOVE: Final = 1e-9
"""What a change must be worth at least."""
FULL: Final = 1.0 + 1e-12
compiled: Any = kept(nogil=True)
_BARE: Final[dict[str, Any]] = {"nogil": True, "_nrt": False}
"""Allocates nothing: without Numba's reference counts on every array that is touched it is five times as
fast."""
bare: Any = kept(**_BARE)
inlined: Any = kept(forceinline=True, **_BARE)
"""A call hands the tables over array by array, which takes longer than these functions."""


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


@compiled
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


@inlined
def take(t: Any, c: int, x: float, out: Any) -> None:
    """What a frame of ``x`` pixels takes in configuration ``c`` of each of its resources."""
    left = t.budget_s[c] - x * t.pixel_s[c]
    out[0] = x * t.unit[c] / left if left > 0.0 else np.inf
    for r in range(LINEAR):
        out[1 + r] = t.fixed[c, r] + t.slope[c, r] * x


@inlined
def add(t: Any, c: int, k: int, sign: float, used: Any, out: Any) -> None:
    if c >= 0:
        take(t, c, t.pixels[k], out)
        for r in range(1 + LINEAR):
            if t.resource[c, r] >= 0:
                used[t.resource[c, r]] += sign * out[r]


@inlined
def fits(t: Any, c: int, k: int, used: Any, out: Any) -> bool:
    if t.pixels[k] > t.most[c]:
        return False
    take(t, c, t.pixels[k], out)
    for r in range(1 + LINEAR):
        if t.resource[c, r] >= 0 and not used[t.resource[c, r]] + out[r] <= FULL:
            return False
    return True


@inlined
def rates_of(t: Any, c: int, prices: Any) -> tuple[float, float, float]:
    """What a configuration costs: for nothing, for a pixel, for the station's bandwidth."""
    fixed, slope = 0.0, 0.0
    for r in range(1, 1 + LINEAR):
        q = t.resource[c, r]
        if q >= 0:
            fixed += prices[q] * t.fixed[c, r - 1]
            slope += prices[q] * t.slope[c, r - 1]
    return fixed, slope, prices[t.resource[c, 0]]


@inlined
def profit_of(t: Any, c: int, k: int, rates: Any) -> float:
    """The value of a point after prices."""
    x = t.pixels[k]
    worth = t.rate_value[c] + t.value[k] - rates[0] - rates[1] * x
    if rates[2] > 0.0:
        worth -= rates[2] * x * t.unit[c] / (t.budget_s[c] - x * t.pixel_s[c])
    return worth


@inlined
def last_that_fits(t: Any, i: int, c: int, used: Any, out: Any) -> int:
    """The last point of a user's front that fits, -1 for none."""
    lo, hi = t.menu_at[i] - 1, t.menu_at[i + 1] - 1
    while lo < hi:
        mid = (lo + hi + 1) // 2
        if fits(t, c, mid, used, out):
            lo = mid
        else:
            hi = mid - 1
    return lo if lo >= t.menu_at[i] else -1


@compiled
def reach(t: Any, resources: int) -> Any:
    """For each configuration the last point of its user's front that fits alone."""
    out, nothing = np.empty(1 + LINEAR), np.zeros(resources)
    last = np.empty(len(t.node), np.int64)
    for i in range(len(t.menu_at) - 1):
        for c in range(t.config_at[i], t.config_at[i + 1]):
            last[c] = last_that_fits(t, i, c, nothing, out)
    return last


@inlined
def best_point(t: Any, i: int, c: int, last: int, prices: Any) -> tuple[float, int]:
    """Profit of the best point of a user's front up to ``last``, and the point.

    Along the hull the value is concave and what is taken convex: the best of the hull is where the next step
    costs more than it is worth. Of the bandwidth x u / (b - x s) a step from x to y takes
    u b / ((b - x s)(b - y s)) a pixel. A point below the hull can be better where ``last`` cuts an edge of
    the hull or bandwidth, which is not linear, costs: then it is on an edge that meets the best of the hull.
    """
    rates = rates_of(t, c, prices)
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
    profit = profit_of(t, c, point, rates)
    curved = bandwidth > 0.0 and pixel_s > 0.0
    begin, end = point + 1, last
    if curved and lo > t.hull_at[i]:
        begin = t.hull[lo - 1] + 1
    if lo + 1 < t.hull_at[i + 1] and t.hull[lo + 1] <= last:
        end = t.hull[lo + 1] - 1 if curved else point
    for k in range(begin, end + 1):
        other = profit_of(t, c, k, rates)
        if other > profit:
            profit, point = other, k
    return profit, point


@bare
def respond(t: Any, i: int, node: int, prices: Any, used: Any, out: Any) -> tuple[float, int, int]:
    """The best of a user's configurations on a node (-1: any), and of its points, of those that fit."""
    best, config, point = -np.inf, -1, -1
    for c in range(t.config_at[i], t.config_at[i + 1]):
        if node < 0 or t.node[c] == node:
            last = last_that_fits(t, i, c, used, out)
            if last >= 0:
                profit, k = best_point(t, i, c, last, prices)
                if profit > best:
                    best, config, point = profit, c, k
    return best, config, point


@compiled
def total(t: Any, config: Any, point: Any) -> float:
    """The sum of QoE, without constants, of who is admitted."""
    summed = 0.0
    for i in range(len(config)):
        if config[i] >= 0:
            summed += t.rate_value[config[i]] + t.value[point[i]]
    return summed
