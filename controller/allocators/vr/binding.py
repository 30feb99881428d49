"""What holds an admitted user back, and what keeps a user out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Final

import numpy as np

from controller.allocators.vr.check import (
    TOLERANCE,
    Constraints,
    Evaluation,
    Objective,
    Placement,
    Served,
    Solution,
    weights,
)
from controller.allocators.vr.exact import take
from controller.allocators.vr.instance import Instance, User
from controller.allocators.vr.problem import NODE_RESOURCES, FloatArray, Problem
from wire.definitions import cloud_gaming

RESOURCES: Final = ("bandwidth", "packets", *NODE_RESOURCES)
"""Of a configuration, in the order of :attr:`Problem.resource`."""
BESIDE: Final = "no room beside the others"
GAME: Final = "the game's players cannot all share a node"


def binding(
    instance: Instance,
    solution: Solution,
    evaluation: Evaluation,
    constraints: Constraints,
    objective: Objective,
) -> dict[int, str]:
    """For each admitted user the constraint that stops the cheapest upgrade.

    An upgrade is the next frame rate, or one object at its next resolution where that counts (attention);
    the cheapest renders the fewest pixels a second more. "" where one would fit beside what the others have,
    "display" where there is none, "latency" where no bandwidth would keep it, else of the resources in want
    the one that lacks most, in parts of its capacity.
    """
    left = _left(instance, solution, evaluation, constraints == "full", objective)
    return {i: left.stops(i, p) for i, p in solution.items()}


@dataclass(frozen=True, slots=True)
class _Left:
    """What a solution leaves of every resource; ``at`` are the users of each station."""

    instance: Instance
    solution: Solution
    served: Mapping[int, Served]
    full: bool
    objective: Objective
    bandwidth_hz: list[float]
    packets_per_s: list[float]
    node: dict[str, list[float]]
    at: list[list[int]]

    def stops(self, i: int, p: Placement) -> str:
        user = self.instance.users[i]
        stopping, least = "display", inf
        now = self.served[i].pixels * p.frame_rate_hz
        for pixels, rate in _upgrades(self.instance, user, p, self.served[i].pixels, self.objective):
            why = self._stops(i, p, pixels, rate)
            if not why:
                return ""
            if pixels * rate - now < least:
                stopping, least = why, pixels * rate - now
        return stopping

    def _stops(self, i: int, p: Placement, pixels: float, rate: float) -> str:
        instance, served = self.instance, self.served[i]
        station, node = instance.stations[p.station], instance.nodes[p.node]
        game = instance.game(instance.users[i])
        more = pixels * rate - served.pixels * p.frame_rate_hz
        wants = {"gpu": (more * instance.flop_per_pixel, node.gpu_flops_per_s)}
        terms = {name: of for name, of in served.latency_s.items() if name != "transmission"}
        others_hz = 0.0
        if self.full:
            wants["cpu"] = (more * game.cpu_per_pixel_s, node.cpu)
            wants["memory"] = ((pixels - served.pixels) * game.memory_gb_per_pixel, node.memory_gb)
            wants["network"] = (more * instance.bits_per_pixel, node.network_bits_per_s)
            for term in ("processing", "rendering"):
                terms[term] *= pixels / served.pixels
            if isfinite(station.processing_packets_per_s):
                packets = more * instance.bits_per_pixel / instance.packet_bits
                slack = self.packets_per_s[p.station] - packets
                if slack <= 0.0:
                    return "packets"
                longer = 1.0 / slack - terms["queue"]
                terms["queue"] += longer
                others_hz = sum(self._more_hz(j, longer) for j in self.at[p.station] if j != i)
                if others_hz == inf:
                    return "packets"
        lacks = {
            name: (wanted - self.node[name][p.node]) / capacity
            for name, (wanted, capacity) in wants.items()
            if isfinite(capacity) and wanted > self.node[name][p.node] + TOLERANCE * capacity
        }
        time = 1.0 / rate - sum(terms.values())
        bits_hz = pixels * instance.bits_per_pixel / instance.users[i].spectral_efficiency[p.station]
        if time <= 0.0 or bits_hz / time > station.bandwidth_hz * (1.0 + TOLERANCE):
            return "latency"
        short = bits_hz / time + others_hz - p.bandwidth_hz - self.bandwidth_hz[p.station]
        if short > TOLERANCE * station.bandwidth_hz:
            lacks["bandwidth"] = short / station.bandwidth_hz
        return max(lacks, key=lambda name: lacks[name], default="")

    def _more_hz(self, j: int, longer_s: float) -> float:
        """What a user needs beside where packets wait longer at the station; inf where nothing would do."""
        p, served = self.solution[j], self.served[j]
        time = served.latency_s["transmission"] + served.budget_s - served.total_latency_s - longer_s
        if time <= 0.0:
            return inf
        need = served.bits / time / self.instance.users[j].spectral_efficiency[p.station]
        return max(0.0, need - p.bandwidth_hz)


def _left(
    instance: Instance, solution: Solution, evaluation: Evaluation, full: bool, objective: Objective
) -> _Left:
    nodes = {
        "gpu": [n.gpu_flops_per_s for n in instance.nodes],
        "cpu": [n.cpu for n in instance.nodes],
        "memory": [n.memory_gb for n in instance.nodes],
        "network": [n.network_bits_per_s for n in instance.nodes],
    }
    packets = [s.processing_packets_per_s for s in instance.stations]
    at: list[list[int]] = [[] for _ in instance.stations]
    for i, p in solution.items():
        served, game = evaluation.served[i], instance.game(instance.users[i])
        rendered = served.pixels * p.frame_rate_hz
        nodes["gpu"][p.node] -= rendered * instance.flop_per_pixel
        nodes["cpu"][p.node] -= game.cpu + game.cpu_per_pixel_s * rendered
        nodes["memory"][p.node] -= game.memory_gb + game.memory_gb_per_pixel * served.pixels
        nodes["network"][p.node] -= rendered * instance.bits_per_pixel
        packets[p.station] -= rendered * instance.bits_per_pixel / instance.packet_bits
        at[p.station].append(i)
    bandwidth = [s.bandwidth_hz - u for s, u in zip(instance.stations, evaluation.bandwidth_hz, strict=True)]
    return _Left(instance, solution, evaluation.served, full, objective, bandwidth, packets, nodes, at)


def _upgrades(
    instance: Instance, user: User, p: Placement, pixels: float, objective: Objective
) -> Iterator[tuple[float, float]]:
    """Pixels of a frame and frame rate after each upgrade."""
    for f in user.frame_rates_hz:
        if f > p.frame_rate_hz:
            yield pixels, f
            break
    area = instance.resolution_pixels
    for o, k, weight in zip(user.objects, p.resolutions, weights(user, objective), strict=True):
        above = [c for c in user.resolutions if c > k]
        if above and weight > 0.0:
            yield pixels + o.pixels * (area[min(above)] - area[k]) / cloud_gaming.VIEW_PIXELS, p.frame_rate_hz


def reasons(problem: Problem, solution: Solution, evaluation: Evaluation) -> dict[int, str]:
    """Why each user of the instance who is not in ``solution`` is not: alone (:attr:`Problem.reasons`), as
    the game's players are on a node without room while another has some, or beside the others, with the
    resource that lacks least where most is there."""
    found = dict(problem.reasons)
    free = _free(problem, solution, evaluation)
    node_of = {problem.instance.users[i].game: p.node for i, p in solution.items()}
    for n, i in enumerate(problem.user.tolist()):
        if i in solution:
            continue
        own = range(problem.config_at[n], problem.config_at[n + 1])
        lacking = {c: _lacking(problem, c, problem.pixels[problem.menu_at[n]], free) for c in own}
        home = node_of.get(problem.instance.users[i].game)
        there = [of for c, of in lacking.items() if home is None or problem.node[c] == home]
        least, resource = min(there, default=(inf, ""))
        if least <= 0.0:
            found[i] = "the solver left the user out"
        elif home is not None and (not there or min(lacking.values())[0] <= 0.0):
            why = f"has no room ({resource})" if there else "cannot serve the user"
            found[i] = f"{GAME}: node {problem.instance.nodes[home].id!r} {why}"
        else:
            found[i] = f"{BESIDE}: {resource}"
    return found


def _lacking(problem: Problem, c: int, pixels: float, free: FloatArray) -> tuple[float, str]:
    """By how much the resource that lacks most falls short of what a configuration takes, and its name."""
    needs = take(problem, c, np.array([pixels]))[0]
    limited = np.flatnonzero(problem.resource[c] >= 0)
    short = needs[limited] - free[problem.resource[c][limited]]
    return float(short.max()), RESOURCES[limited[short.argmax()]]


def _free(problem: Problem, solution: Solution, evaluation: Evaluation) -> FloatArray:
    """What is left of each resource of a problem, as a part of its capacity."""
    free = np.ones(problem.resources)
    number = {int(i): n for n, i in enumerate(problem.user)}
    for i, p in solution.items():
        n = number[i]
        own = np.arange(problem.config_at[n], problem.config_at[n + 1])
        same = (problem.station[own] == p.station) & (problem.node[own] == p.node)
        c = int(own[same & (problem.frame_rate_hz[own] == p.frame_rate_hz)][0])
        needs = take(problem, c, np.array([evaluation.served[i].pixels]))[0]
        needs[0] = p.bandwidth_hz / problem.instance.stations[p.station].bandwidth_hz
        limited = problem.resource[c] >= 0
        free[problem.resource[c][limited]] -= needs[limited]
    return free
