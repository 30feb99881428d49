"""An instance as the arrays that solvers work on: users, their fronts, their configurations, what each takes.

A configuration of a user is a frame rate, a base station and a compute node. In it a frame of P pixels takes

    bandwidth  P unit / (budget - P pixel_s)   of the station's, the least that keeps equation (24)
    others     fixed + P slope                 of packets at the station and of GPU, CPU, memory and network

of what there is of each resource, so that every capacity is 1. That is the paper's model, in which a user's
bandwidth is nobody else's. A scheduler gives what a user does not need for the moment to others. Where the
bandwidth is ``shared`` a user takes

    bandwidth  P unit f

of it, and a frame may take all of it: P (pixel_s + unit) must be within the budget, in which then is what
frames wait for one another.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from controller.allocators.vr.check import LIGHT_M_S, Constraints, Objective, Placement, Solution
from controller.allocators.vr.instance import Instance, Node, Station
from controller.allocators.vr.menus import MAX_POINTS, Menu, menu
from wire.definitions import cloud_gaming

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NODE_RESOURCES: Final = ("gpu", "cpu", "memory", "network")
LINEAR: Final = 1 + len(NODE_RESOURCES)
"""Resources of a configuration beside the bandwidth: the station's packets, then those of the node."""
MARGIN: Final = 1e-12
"""Bandwidths are rounded up by this part, so that the latency is kept in floating point too."""
Queue = Literal["least", "most"]


@dataclass(frozen=True, slots=True)
class Problem:
    """See the module. Users are those who can be served, alone: n of them, ``user`` their index in the
    instance; ``reasons`` says of each other why not.

    User i has the points ``menu_at[i]`` to ``menu_at[i + 1]`` of ``pixels`` and ``value``, and the
    configurations ``config_at[i]`` to ``config_at[i + 1]`` of ``station``, ``node``, ``frame_rate_hz``,
    ``rate_value`` (ln f/30), ``unit``, ``budget_s``, ``pixel_s``, ``fixed`` and ``slope`` [c, LINEAR].
    Column 0 of ``resource`` [c, 1 + LINEAR] is the station's bandwidth, -1 a resource without limit.
    ``game`` numbers the users' games.
    """

    instance: Instance
    constraints: Constraints
    objective: Objective
    menus: tuple[Menu, ...]
    reasons: Mapping[int, str]
    user: IntArray
    game: IntArray
    menu_at: IntArray
    pixels: FloatArray
    value: FloatArray
    config_at: IntArray
    station: IntArray
    node: IntArray
    frame_rate_hz: FloatArray
    rate_value: FloatArray
    unit: FloatArray
    budget_s: FloatArray
    pixel_s: FloatArray
    fixed: FloatArray
    slope: FloatArray
    resource: IntArray
    resources: int
    queue_s: FloatArray
    shared: bool

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def of(
        cls,
        instance: Instance,
        constraints: Constraints,
        objective: Objective,
        *,
        queue: Queue = "least",
        points: int = MAX_POINTS,
        stations: int | None = None,
        nodes: int | None = None,
        shared: bool = False,
        menus: Mapping[int, Menu] | None = None,
    ) -> Problem:
        """``queue``: a packet waits at a station as in an empty one, or as in the fullest that can be.

        ``stations``: at most so many a user, those with the highest SINR. ``menus``: fronts that are known,
        by user.
        """
        builder = _Builder(instance, constraints == "full", queue)
        reasons = {i: user.fault for i, user in enumerate(instance.users) if user.fault}
        users = [i for i, user in enumerate(instance.users) if not user.fault]
        found = [(menus or {}).get(i) or menu(instance, instance.users[i], objective, points) for i in users]
        least = [float(m.pixels[0]) for m in found]
        columns, why = builder.configurations(users, least, stations, nodes, shared)
        reasons |= {users[n]: text for n, text in why.items()}
        can = [n for n in range(len(users)) if n not in why]
        users, found = [users[n] for n in can], [found[n] for n in can]
        sizes = np.bincount(columns.pop("user"), minlength=len(can) + len(why))[can]
        games = {g: k for k, g in enumerate(dict.fromkeys(instance.users[i].game for i in users))}
        return cls(
            instance,
            constraints,
            objective,
            tuple(found),
            reasons,
            np.array(users, np.int64),
            np.array([games[instance.users[i].game] for i in users], np.int64),
            _offsets([len(m.pixels) for m in found]),
            _concatenated([m.pixels for m in found]),
            _concatenated([m.value for m in found]),
            _offsets(sizes.tolist()),
            **columns,
            resources=builder.resources,
            queue_s=builder.queue_s,
            shared=shared,
        )

    def bandwidth(self, config: Any, pixels: Any) -> FloatArray:
        """Part of the station's that frames take in configurations, arrays that broadcast; inf where they are
        not in time."""
        c, x = np.asarray(config), np.asarray(pixels, np.float64)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.shared:
                late = x * (self.pixel_s[c] + self.unit[c]) > self.budget_s[c]
                return np.where(late, inf, x * self.unit[c] * self.frame_rate_hz[c])
            left = self.budget_s[c] - x * self.pixel_s[c]
            return np.where(left > 0.0, x * self.unit[c] / left, inf)

    def solution(self, config: Sequence[int], point: Sequence[int]) -> Solution:
        """What the choice of a configuration and a point of each user comes to, with the least bandwidth that
        keeps the latency; a configuration of -1 is not admitted. ValueError where bandwidth is shared."""
        if self.shared:
            raise ValueError("a user has no bandwidth where it is shared")
        full = self.constraints == "full"
        packets = [0.0] * len(self.instance.stations)
        for c, k in zip(config, point, strict=True):
            if c >= 0:
                bits = self.pixels[k] * self.instance.bits_per_pixel
                packets[self.station[c]] += bits * self.frame_rate_hz[c] / self.instance.packet_bits
        out: dict[int, Placement] = {}
        for n, (c, k) in enumerate(zip(config, point, strict=True)):
            if c < 0:
                continue
            b = int(self.station[c])
            station = self.instance.stations[b]
            rate = station.processing_packets_per_s
            budget = float(self.budget_s[c])
            if full and isfinite(rate):
                wait = 1.0 / (rate - packets[b]) if rate > packets[b] else inf
                budget += float(self.queue_s[b]) - wait
            left = budget - self.pixels[k] * self.pixel_s[c]
            need = self.pixels[k] * self.unit[c] / left if left > 0.0 else inf
            out[int(self.user[n])] = Placement(
                b,
                int(self.node[c]),
                float(self.frame_rate_hz[c]),
                float(need * station.bandwidth_hz * (1.0 + MARGIN)),
                self.menus[n].resolutions(int(k - self.menu_at[n])),
            )
        return out


class _Builder:
    """Configurations of users."""

    def __init__(self, instance: Instance, full: bool, queue: Queue) -> None:
        self._instance, self._full = instance, full
        stations, nodes = instance.stations, instance.nodes
        good_station = np.array([not s.fault for s in stations], bool)
        good_node = np.array([not n.fault for n in nodes], bool)
        self._bandwidth_hz = np.where(good_station, [s.bandwidth_hz for s in stations], 0.0)
        latency = np.array([n.latency_s for n in nodes]).reshape(len(nodes), len(stations)).T
        self._routing_s = np.where(good_node & good_station[:, None], latency, inf)
        capacities = [
            [n.gpu_flops_per_s for n in nodes],
            [n.cpu if full else inf for n in nodes],
            [n.memory_gb if full else inf for n in nodes],
            [n.network_bits_per_s if full else inf for n in nodes],
        ]
        self._node_capacity = np.array(capacities, np.float64).reshape(len(NODE_RESOURCES), len(nodes)).T
        rate = np.array([s.processing_packets_per_s if full else inf for s in stations], np.float64)
        self._s_per_bit = np.array(
            [_inverse(s.processing_bits_per_s) if full else 0.0 for s in stations], np.float64
        )
        finite = np.isfinite(rate)
        # Beyond this load packets wait twenty times as long as in an empty station.
        most = 0.95 * rate
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            load = most if queue == "most" else np.zeros(len(stations))
            self.queue_s = np.where(finite, 1.0 / (rate - load), 0.0)
        self._packet_rate = np.where(finite, most if queue == "most" else rate, inf)
        self.resources = len(stations) * 2 + len(nodes) * len(NODE_RESOURCES)

    def configurations(
        self,
        users: Sequence[int],
        least_pixels: Sequence[float],
        stations: int | None,
        nodes: int | None,
        shared: bool,
    ) -> tuple[dict[str, Any], dict[int, str]]:
        """Columns of those in which users can be served alone, at the fewest pixels, with ``user`` the place
        in ``users``; and of each user for whom there is none why."""
        instance = self._instance
        user, f_hz, b, m = self._candidates(users, stations, nodes)
        shape = (len(users), len(instance.stations))
        efficiency = np.array([instance.users[i].spectral_efficiency for i in users]).reshape(shape)
        least = np.array(least_pixels, np.float64)[user]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            offered = efficiency[user, b] * self._bandwidth_hz[b]
            unit = instance.bits_per_pixel / offered
            budget = 1.0 / f_hz - self._routing_s[b, m] - instance.fixed_latency_s
            pixel_s = np.zeros(len(f_hz))
            fixed, slope = np.zeros((len(f_hz), LINEAR)), np.zeros((len(f_hz), LINEAR))
            capacity = np.column_stack((self._packet_rate[b], self._node_capacity[m]))
            slope[:, 1] = instance.flop_per_pixel * f_hz
            if self._full:
                distance = np.array([instance.users[i].distance_m for i in users]).reshape(shape)
                budget = budget - distance[user, b] / LIGHT_M_S - self.queue_s[b]
                rendering = instance.flop_per_pixel / self._node_capacity[m, 0]
                pixel_s = instance.bits_per_pixel * self._s_per_bit[b] + np.nan_to_num(rendering, nan=0.0)
                bits_per_s = instance.bits_per_pixel * f_hz
                slope[:, 0] = bits_per_s / instance.packet_bits
                game = [instance.game(instance.users[i]) for i in users]
                cpu, cpu_slope, memory, memory_slope = (
                    np.array([getattr(g, name) for g in game], np.float64)[user]
                    for name in ("cpu", "cpu_per_pixel_s", "memory_gb", "memory_gb_per_pixel")
                )
                fixed[:, 2], slope[:, 2] = cpu, cpu_slope * f_hz
                fixed[:, 3], slope[:, 3] = memory, memory_slope
                slope[:, 4] = bits_per_s
            limited = np.isfinite(capacity) & ((fixed > 0.0) | (slope > 0.0))
            fixed = np.where(limited, fixed / capacity, 0.0)
            slope = np.where(limited, slope / capacity, 0.0)
            alone = fixed + slope * least[:, None] <= 1.0
            left = budget - least * (pixel_s + unit if shared else pixel_s)
            bandwidth = np.where(left > 0.0, least * unit * f_hz if shared else least * unit / left, inf)
        stages = (
            ("no base station reaches it" + _faults(instance.stations), offered > 0.0),
            ("no compute node can be reached" + _faults(instance.nodes), np.isfinite(self._routing_s[b, m])),
            *((name, alone[:, 1 + k]) for k, name in enumerate(NODE_RESOURCES)),
            ("latency", left > 0.0),
            ("bandwidth", bandwidth <= 1.0),
            ("packets of the base station", alone[:, 0]),
        )
        can = np.ones(len(user), bool)
        why: dict[int, str] = {}
        for n in np.flatnonzero(np.bincount(user, minlength=len(users)) == 0).tolist():
            missing = "compute node" if instance.stations else "base station"
            why[n] = f"no base station and compute node can serve the user: there is no {missing}"
        for name, holds in stages:
            can &= holds
            for n in np.flatnonzero(np.bincount(user[can], minlength=len(users)) == 0).tolist():
                why.setdefault(n, f"no base station and compute node can serve the user: {name}")
        own = np.flatnonzero(can)
        resource = np.full((len(own), 1 + LINEAR), -1)
        resource[:, 0] = b[own]
        node_at = len(instance.stations) * 2 + m[own] * len(NODE_RESOURCES)
        at = np.column_stack(
            (len(instance.stations) + b[own], node_at[:, None] + np.arange(len(NODE_RESOURCES)))
        )
        resource[:, 1:] = np.where(limited[own], at, -1)
        columns = {
            "user": user[own],
            "station": b[own],
            "node": m[own],
            "frame_rate_hz": f_hz[own],
            "rate_value": np.log(f_hz[own] / cloud_gaming.FRAME_RATES_HZ[0]),
            "unit": unit[own],
            "budget_s": budget[own],
            "pixel_s": pixel_s[own],
            "fixed": fixed[own],
            "slope": slope[own],
            "resource": resource,
        }
        return columns, why

    def _candidates(
        self, users: Sequence[int], stations: int | None, nodes: int | None
    ) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
        """Place of the user, frame rate, station and node of all configurations, by user."""
        instance = self._instance
        n_stations, n_nodes = len(instance.stations), len(instance.nodes)
        every_station, every_node = np.arange(n_stations), np.arange(n_nodes)
        near: dict[int, IntArray] = {}
        for i in users:
            if stations is None or stations >= n_stations:
                near[i] = every_station
            else:
                order = np.argsort(-np.array(instance.users[i].spectral_efficiency), kind="stable")
                near[i] = np.sort(order[:stations])
        games: dict[Hashable, list[int]] = {}
        for i in users:
            games.setdefault(instance.users[i].game, []).append(i)
        home: dict[Hashable, IntArray] = dict.fromkeys(games, every_node)
        if nodes is not None and nodes < n_nodes:
            for g, (game, players) in enumerate(games.items()):
                far = sum(self._routing_s[near[i]].min(axis=0, initial=inf) for i in players)
                near_by = np.argsort(far, kind="stable")[: nodes // 2]
                others = np.setdiff1d(every_node, near_by)
                spread = others[(g + np.arange(nodes - len(near_by)) * len(others) // nodes) % len(others)]
                home[game] = np.union1d(near_by, spread)
        # Most users have the same rates, stations and nodes to choose among.
        grids: dict[tuple[Any, ...], tuple[FloatArray, IntArray, IntArray]] = {}
        parts: list[tuple[FloatArray, IntArray, IntArray]] = []
        for i in users:
            user = instance.users[i]
            b, m = near[i], home[user.game]
            key = (user.frame_rates_hz, b.tobytes(), m.tobytes())
            if key not in grids:
                rates = np.array(user.frame_rates_hz)
                shape = (len(rates), len(b), len(m))
                grid = (rates[:, None, None], b[None, :, None], m[None, None, :])
                f, b, m = (np.broadcast_to(axis, shape).ravel() for axis in grid)
                grids[key] = (f, b, m)
            parts.append(grids[key])
        return (
            np.repeat(np.arange(len(users)), [len(p[0]) for p in parts]),
            _concatenated([p[0] for p in parts]),
            _concatenated([p[1] for p in parts]).astype(np.int64),
            _concatenated([p[2] for p in parts]).astype(np.int64),
        )


def _faults(places: Sequence[Station] | Sequence[Node]) -> str:
    """The first fault among stations or nodes, in brackets."""
    return next((f" ({place.fault})" for place in places if place.fault), "")


def _inverse(rate: float) -> float:
    return 1.0 / rate if rate > 0.0 else inf


def _offsets(lengths: Sequence[int]) -> IntArray:
    return np.concatenate(([0], np.cumsum(np.array(lengths, np.int64)))).astype(np.int64)


def _concatenated(parts: Sequence[Any]) -> FloatArray:
    return np.concatenate(parts) if parts else np.zeros(0)
