"""Users as orchestration sees them: models of every group, made from a seed."""

from __future__ import annotations

import numpy as np

from controller.allocators.video.opinion import OpinionModel, Structure
from controller.allocators.video.users import Users

STRUCTURES = (("stalled",), ("quality",), ("stalled", "quality"), ("stalled", "delay"), ("throughput",), ())
SLOPES = {"stalled": -0.4, "quality": 4.0, "delay": -0.5, "throughput": 1.2}


def model(kind: int, rng: np.random.Generator) -> OpinionModel:
    qos = STRUCTURES[kind % len(STRUCTURES)]
    slopes = tuple(SLOPES[name] * float(rng.uniform(0.8, 1.2)) for name in qos)
    intercept = 5.0 if not qos or SLOPES[qos[-1]] < 0.0 else 1.0
    if kind % 2:
        return OpinionModel(Structure(qos), intercept, slopes, deviation=0.8)
    context = Structure(qos, ("behaviour", "environment"), ("linear", "exponential", "power")[kind % 3])
    return OpinionModel(context, intercept, slopes, (0.1, float(rng.uniform(0.05, 0.2))), 1.0)


def users(count: int, seed: int, cells: int = 2, kinds: tuple[int, ...] = (0, 1, 2)) -> Users:
    """``kinds``: places in :data:`STRUCTURES` among which users take turns."""
    rng = np.random.default_rng(seed)
    return Users(
        tuple(model(kinds[i % len(kinds)], rng) for i in range(count)),
        rng.uniform(3.0, 5.0, count),
        rng.uniform(1.0, 2.0, count),
        rng.uniform(1.0, 2.0, count),
        rng.uniform(0.0, 20.0, count),
        rng.uniform(100.0, 700.0, count),
        rng.integers(0, cells, count),
        rng.uniform(0.0, 0.2, count),
        np.zeros(count),
    )
