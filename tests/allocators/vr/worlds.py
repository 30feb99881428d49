"""Instances of VR-GX for tests: random ones with every capacity, and a brute force for tiny ones."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from controller.allocators.vr.check import Constraints, Objective, Placement, Solution, evaluate
from controller.allocators.vr.instance import Instance

SIXTEEN = Path(__file__).parents[3] / "../shared/data/vr-gx/sixteen-users.json"
VIEW = 640 * 360


def draw(
    seed: int,
    users: int,
    *,
    objects: int = 6,
    displays: tuple[str, ...] = ("2k", "4k", "8k"),
    queue: bool = False,
) -> dict[str, Any]:
    """A seeded instance whose capacities range from too little for anybody to more than enough."""
    rng = np.random.default_rng(seed)
    stations, nodes = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    load = users / nodes

    def capacity(each: float) -> float:
        return float(each * load * 10 ** rng.uniform(-1.0, 1.0))

    data: dict[str, Any] = {
        "base_stations": [
            {
                "id": f"bs-{b}",
                "bandwidth_hz": float(1e6 * users / stations * 10 ** rng.uniform(-0.5, 1.5)),
                "processing_bits_per_s": float(10 ** rng.uniform(9, 11)),
            }
            for b in range(stations)
        ],
        "compute_nodes": [
            {
                "id": m,
                "gpu_flops_per_s": capacity(2e11),
                "cpu": capacity(2.0),
                "memory_gb": capacity(2.0),
                "network_bits_per_s": capacity(1e8),
                "latency_ms_to_bs": rng.uniform(0.0, 12.0, stations).tolist(),
            }
            for m in range(nodes)
        ],
        "games": [
            {"id": g, "cpu": 0.5, "memory_gb": 0.5, "cpu_per_pixel_s": 1e-9, "memory_gb_per_pixel": 2e-8}
            for g in range(2)
        ],
        "fixed_latency_s": 1e-4,
        "users": [
            {
                "id": i,
                "hmd_resolution": str(rng.choice(displays)),
                "max_fps": int(rng.choice([30, 60, 90])),
                "game": int(rng.integers(max(1, users // 2))),
                "sinr_db": [
                    None if rng.random() < 0.1 else float(rng.uniform(-5, 30)) for _ in range(stations)
                ],
                "distance_m": rng.uniform(10, 500, stations).tolist(),
                "objects": [
                    {
                        "id": j,
                        "pixels": int(rng.integers(0, VIEW / objects)) + 1,
                        "attention": int(rng.integers(0, 6)),
                    }
                    for j in range(int(rng.integers(1, objects + 1)))
                ],
            }
            for i in range(users)
        ],
    }
    if queue:
        for station in data["base_stations"]:
            station["processing_packets_per_s"] = float(1e4 * users * 10 ** rng.uniform(-1.0, 1.0))
    return data


def solution_of(instance: Instance, result: dict[str, Any]) -> Solution:
    """What a result of ``solve`` says that users get."""
    stations = {s.id: b for b, s in enumerate(instance.stations)}
    nodes = {n.id: m for m, n in enumerate(instance.nodes)}
    return {
        i: Placement(
            stations[of["station"]],
            nodes[of["node"]],
            of["frame_rate"],
            of["bandwidth_hz"],
            tuple(int(of["resolutions"][str(o.id)][:-1]) for o in instance.users[i].objects),
        )
        for i, of in enumerate(result["users"])
        if of["admitted"]
    }


def best(instance: Instance, constraints: Constraints, objective: Objective) -> tuple[int, float]:
    """Brute force: how many can be admitted, and what that is worth at most. No station has a queue."""
    full = constraints == "full"
    options = [_options(instance, i, full) for i in range(len(instance.users))]
    found = (0, 0.0)
    for choice in product(*(range(len(of)) for of in options)):
        chosen = {
            i: of[c] for i, (of, c) in enumerate(zip(options, choice, strict=True)) if of[c] is not None
        }
        if len(chosen) < found[0]:
            continue
        if not _fits(instance, chosen, full):
            continue
        evaluation = evaluate(instance, chosen, constraints, objective)
        assert evaluation.violations == ()
        found = max(found, (len(chosen), evaluation.objective))
    return found


def _options(instance: Instance, i: int, full: bool) -> list[Placement | None]:
    """What a user may have, with the least bandwidth that keeps the latency (equations 14 and 17 to 24)."""
    user = instance.users[i]
    out: list[Placement | None] = [None]
    pixels_of = instance.resolution_pixels
    for b, m, f, classes in product(
        range(len(instance.stations)),
        range(len(instance.nodes)),
        user.frame_rates_hz,
        product(user.resolutions, repeat=len(user.objects)),
    ):
        station, node = instance.stations[b], instance.nodes[m]
        pixels = sum(o.pixels * pixels_of[k] / VIEW for o, k in zip(user.objects, classes, strict=True))
        bits = pixels * instance.bits_per_pixel
        left = 1 / f - node.latency_s[b] - instance.fixed_latency_s
        if full:
            left -= user.distance_m[b] / 299_792_458.0 + bits / station.processing_bits_per_s
            left -= pixels * instance.flop_per_pixel / node.gpu_flops_per_s
        if left > 0 and user.spectral_efficiency[b] > 0:
            hz = bits / left / user.spectral_efficiency[b] * (1 + 1e-12)
            if hz <= station.bandwidth_hz:
                out.append(Placement(b, m, f, hz, classes))
    return out


def _fits(instance: Instance, chosen: Solution, full: bool) -> bool:
    """Capacities and the games' nodes, quickly: the checker says the same of what is left."""
    hz, flops = [0.0] * len(instance.stations), [0.0] * len(instance.nodes)
    cpu, memory, network = ([0.0] * len(instance.nodes) for _ in range(3))
    home: dict[Any, int] = {}
    for i, p in chosen.items():
        user = instance.users[i]
        game, f = instance.game(user), p.frame_rate_hz
        views = zip(user.objects, p.resolutions, strict=True)
        pixels = sum(o.pixels * instance.resolution_pixels[k] / VIEW for o, k in views)
        hz[p.station] += p.bandwidth_hz
        flops[p.node] += pixels * instance.flop_per_pixel * f
        cpu[p.node] += game.cpu + game.cpu_per_pixel_s * pixels * f
        memory[p.node] += game.memory_gb + game.memory_gb_per_pixel * pixels
        network[p.node] += pixels * instance.bits_per_pixel * f
        if home.setdefault(user.game, p.node) != p.node:
            return False
    fits = all(u <= s.bandwidth_hz for u, s in zip(hz, instance.stations, strict=True))
    fits &= all(u <= n.gpu_flops_per_s for u, n in zip(flops, instance.nodes, strict=True))
    if full:
        fits &= all(u <= n.cpu for u, n in zip(cpu, instance.nodes, strict=True))
        fits &= all(u <= n.memory_gb for u, n in zip(memory, instance.nodes, strict=True))
        fits &= all(u <= n.network_bits_per_s for u, n in zip(network, instance.nodes, strict=True))
    return fits
