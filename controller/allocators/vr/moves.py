"""What users change in turn, two at a time and game by game; every state that these leave is feasible."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from controller.allocators.vr.problem import LINEAR
from controller.allocators.vr.tables import (
    MOVE,
    add,
    bare,
    compiled,
    fits,
    inlined,
    last_that_fits,
    profit_of,
    rates_of,
    respond,
)

MAX_PARTNERS: Final = 40
"""With whom a user exchanges."""


@bare
def place(t: Any, i: int, node: int, wish: int, prices: Any, used: Any, out: Any) -> tuple[float, int]:
    """Where a user at the fewest pixels costs least, ``wish`` before all others that fit; -1 for nowhere."""
    k = t.menu_at[i]
    if wish >= 0 and (node < 0 or t.node[wish] == node) and fits(t, wish, k, used, out):
        return 0.0, wish
    least, config = np.inf, -1
    top = 1e-12
    for r in range(len(prices)):
        top = max(top, prices[r])
    for c in range(t.config_at[i], t.config_at[i + 1]):
        if (node >= 0 and t.node[c] != node) or not fits(t, c, k, used, out):
            continue
        cost = 0.0
        for r in range(1 + LINEAR):
            q = t.resource[c, r]
            if q >= 0:
                cost += out[r] * (prices[q] / top + 1.0 / (1.001 - used[q]))
        if cost < least:
            least, config = cost, c
    return least, config


@compiled
def admit(t: Any, nodes: int, prices: Any, config: Any, point: Any) -> tuple[int, Any]:
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
            least, c = place(t, i, -1, -1, nothing, nothing, out)
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
                    dear, c = place(t, i, m, wish[i], prices, now, out)
                    if c >= 0:
                        fit, cost = fit + 1, cost + dear
                        placed[q] = c
                        add(t, c, t.menu_at[i], 1.0, now, out)
                for q in range(most):
                    if t.players[g, q] < 0:
                        break
                    add(t, placed[q], t.menu_at[t.players[g, q]], -1.0, now, out)
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
                dear, c = place(t, i, best_node, wish[i], prices, now, out)
                trial[i] = c
                if c >= 0:
                    count += 1
                    add(t, c, t.menu_at[i], 1.0, now, out)
        if count > admitted:
            admitted = count
            config[:] = trial
            used[:] = now
        if count == n:
            break
    for i in range(n):
        point[i] = t.menu_at[i]
    return admitted, used


@inlined
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


@bare
def take_turns(
    t: Any, prices: Any, order: Any, least: float, config: Any, point: Any, used: Any, out: Any
) -> float:
    """Each user changes to what is worth most, where it is worth ``least`` more; what was gained in all.

    Who is not admitted comes in where there is room.
    """
    gained = 0.0
    for i in order:
        c, k = config[i], point[i]
        add(t, c, k, -1.0, used, out)
        worth, new_c, new_k = respond(t, i, _node_of(t, i, config), prices, used, out)
        now = profit_of(t, c, k, rates_of(t, c, prices)) if c >= 0 else -np.inf
        if new_c >= 0 and (c < 0 or worth >= now + least):
            gained += worth - now if c >= 0 else 1.0
            config[i], point[i] = new_c, new_k
        add(t, config[i], point[i], 1.0, used, out)
    return gained


@bare
def replace_others(t: Any, prices: Any, config: Any, point: Any, used: Any, out: Any) -> float:
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
            add(t, c, k, -1.0, used, out)
            config[j] = -1
            worth, own_c, own_k = respond(t, i, _node_of(t, i, config), prices, used, out)
            config[j] = c
            add(t, c, k, 1.0, used, out)
            if own_c >= 0 and worth - t.rate_value[c] - t.value[k] > best:
                best, whom = worth - t.rate_value[c] - t.value[k], j
                new_c, new_k = own_c, own_k
        if whom >= 0:
            add(t, config[whom], point[whom], -1.0, used, out)
            config[whom] = -1
            config[i], point[i] = new_c, new_k
            add(t, new_c, new_k, 1.0, used, out)
            gained += best
    return gained


@bare
def restore(t: Any, before: Any, had: Any, order: Any, config: Any, point: Any, used: Any, out: Any) -> None:
    """Users go back to what they had, or to the last point that fits in that configuration."""
    for i in order:
        c = before[i]
        if c < 0 or config[i] < 0:
            continue
        node = _node_of(t, i, config)
        if node >= 0 and t.node[c] != node:
            continue
        add(t, config[i], point[i], -1.0, used, out)
        k = had[i]
        if not fits(t, c, k, used, out):
            k = min(k, last_that_fits(t, i, c, used, out))
        if k >= 0:
            config[i], point[i] = c, k
        add(t, config[i], point[i], 1.0, used, out)


@bare
def exchange(t: Any, least: float, config: Any, point: Any, used: Any, with_i: Any, out: Any) -> float:
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
            add(t, a, point[i], -1.0, used, out)
            add(t, b, point[j], -1.0, used, out)
            for c in range(t.config_at[i], t.config_at[i + 1]):
                if t.station[c] != t.station[a] or t.node[c] != t.node[a]:
                    continue
                top = last_that_fits(t, i, c, used, out)
                if top < 0:
                    continue
                for d in range(t.config_at[j], t.config_at[j + 1]):
                    if t.station[d] != t.station[b] or t.node[d] != t.node[b]:
                        continue
                    reach = last_that_fits(t, j, d, used, out)
                    if reach < 0:
                        continue
                    most = t.rate_value[c] + t.rate_value[d] + t.value[reach]
                    for k in range(top, t.menu_at[i] - 1, -1):
                        if most + t.value[k] <= best:
                            break
                        for r in range(len(used)):
                            with_i[r] = used[r]
                        add(t, c, k, 1.0, with_i, out)
                        last = last_that_fits(t, j, d, with_i, out)
                        if last >= 0:
                            total = t.rate_value[c] + t.rate_value[d] + t.value[k] + t.value[last]
                            if total > best:
                                best, found = total, True
                                new = (c, k, d, last)
            config[i], point[i], config[j], point[j] = new
            if found:
                gained += best - now
            add(t, config[i], point[i], 1.0, used, out)
            add(t, config[j], point[j], 1.0, used, out)
    return gained


@compiled
def move_games(t: Any, nodes: int, prices: Any, config: Any, point: Any, used: Any) -> float:
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
                add(t, config[i], point[i], -1.0, used, out)
                config[i] = -1
            fit = 0
            for q in range(most):
                i = t.players[g, q]
                if i < 0:
                    break
                _, c = place(t, i, m, -1, prices, used, out)
                config[i], point[i] = c, t.menu_at[i]
                add(t, c, point[i], 1.0, used, out)
                fit += c >= 0
            total = 0.0
            for rho in (1.0, 0.0):
                for q in range(most):
                    i = t.players[g, q]
                    if i < 0:
                        break
                    if config[i] < 0:
                        continue
                    add(t, config[i], point[i], -1.0, used, out)
                    _, c, k = respond(t, i, m, prices if rho > 0.0 else nothing, used, out)
                    if c >= 0:
                        config[i], point[i] = c, k
                    add(t, config[i], point[i], 1.0, used, out)
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
                    add(t, config[i], point[i], -1.0, used, out)
                    config[i], point[i] = old[0, q], old[1, q]
                    add(t, config[i], point[i], 1.0, used, out)
    return gained
