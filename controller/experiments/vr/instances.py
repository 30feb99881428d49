"""Seeded synthetic instances of VR-GX, of the paper's kind: any number of base stations, nodes and users.

Base stations stand on a square grid, 475 of them on 4 square kilometres, and users anywhere between. The SINR
is that of the urban micro path loss of TR 38.901 (non line of sight, 3.5 GHz, 33 dBm on 100 MHz, 9 dB noise
figure) with 7.8 dB of shadowing and what neighbours at a tenth of their power interfere. Each compute node
serves about two stations, and is half a millisecond from those of its neighbours. Views, attention, displays
and games are drawn like those of the published sixteen users.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from wire.definitions import cloud_gaming

STATIONS_PER_KM2: Final = 475 / 4
STATIONS_PER_NODE: Final = 2
PLAYERS_PER_GAME: Final = 3.0


def draw(
    users: int,
    stations: int = 4,
    seed: int = 0,
    *,
    nodes: int | None = None,
    gpu_flops_per_s: float | None = None,
) -> dict[str, Any]:
    """An instance as :mod:`controller.allocators.vr.instance` reads it. ValueError for less than one of each.

    ``gpu_flops_per_s``: of a node; by default 3e12 for eight users of a node, as in the published instance.
    """
    nodes = max(1, round(stations / STATIONS_PER_NODE)) if nodes is None else nodes
    if users < 1 or stations < 1 or nodes < 1:
        raise ValueError(
            f"{users} users, {stations} stations and {nodes} nodes: at least one of each is needed"
        )
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(stations)))
    spacing = 1000.0 / np.sqrt(STATIONS_PER_KM2)
    at = spacing * (np.stack(np.divmod(np.arange(stations), side), axis=1) + 0.5)
    place = rng.uniform(0.0, spacing * side, (users, 2))
    distance = np.maximum(np.linalg.norm(place[:, None] - at, axis=-1), 10.0)
    loss_db = 36.7 * np.log10(distance) + 22.7 + 26.0 * np.log10(3.5) + rng.normal(0.0, 7.8, distance.shape)
    received = 10.0 ** ((33.0 - loss_db) / 10.0)
    noise = 10.0 ** ((-174.0 + 80.0 + 9.0) / 10.0)
    sinr_db = 10.0 * np.log10(received / (noise + 0.1 * (received.sum(axis=1, keepdims=True) - received)))
    home = np.arange(stations) * nodes // stations
    hops = np.abs(home[None, :] - np.arange(nodes)[:, None])
    gpu = 3e12 * max(1.0, users / nodes / 8.0) if gpu_flops_per_s is None else gpu_flops_per_s
    games = max(1, round(users / PLAYERS_PER_GAME))
    displays = list(cloud_gaming.HMD_CLASSES)
    return {
        "base_stations": [{"id": b, "bandwidth_hz": 100e6} for b in range(stations)],
        "compute_nodes": [
            {"id": m, "gpu_flops_per_s": gpu, "latency_ms_to_bs": np.minimum(0.5 * hops[m], 5.0).tolist()}
            for m in range(nodes)
        ],
        "fixed_latency_s": 0.000101024,
        "users": [
            {
                "id": i,
                "hmd_resolution": displays[rng.choice(3, p=(0.45, 0.35, 0.2))],
                "max_fps": int(rng.choice([30, 60, 90])),
                "game": int(rng.integers(games)),
                "sinr_db": np.round(sinr_db[i], 3).tolist(),
                "objects": _objects(rng),
            }
            for i in range(users)
        ],
    }


def _objects(rng: np.random.Generator) -> list[dict[str, Any]]:
    """What a user looks at: some large objects, many small ones, that fill the view."""
    count = int(rng.integers(3, 21))
    share = rng.dirichlet(np.full(count, 0.4))
    pixels = np.maximum(1, np.round(share * cloud_gaming.VIEW_PIXELS)).astype(int)
    attention = rng.integers(0, int(cloud_gaming.MAX_ATTENTION) + 1, count)
    return [{"id": j, "pixels": int(pixels[j]), "attention": int(attention[j])} for j in range(count)]
