"""Instances for tests: the paper's drops, and random ones far from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from controller.allocators.urllc.instance import Instance
from controller.experiments.urllc.drops import Drop, draw


def paper(seed: int, devices: int = 15, cycles_per: str = "byte", **cell: Any) -> Instance:
    """A drop of the paper's; ``cell``: other keys of the instance."""
    return Instance.of({**draw(seed, Drop(devices=devices, cycles_per=cycles_per)), **cell})


def mapping(seed: int, devices: int) -> dict[str, Any]:
    """Tight and loose deadlines, budgets, edges and caches; deviations of both signs, overheads, tasks of
    unequal sizes, R_min binding or none, both readings of what is transmitted."""
    rng = np.random.default_rng(seed)
    some: list[dict[str, Any]] = []
    for _ in range(devices):
        gain = 10.0 ** (-3.53 - 3.76 * np.log10(rng.uniform(5.0, 70.0))) * rng.exponential(1.0, 8).sum()
        bits = float(rng.choice([10832.0, rng.uniform(500.0, 20e3)]))
        cycles = bits / 8.0 * rng.uniform(100.0, 300.0) * rng.choice([1.0, 1.0, 8.0])
        device: dict[str, Any] = {"bits": bits, "cycles": float(cycles)}
        device["channel_gain"] = float(gain * 10.0 ** -(rng.uniform(0.0, 3.0) * (rng.random() < 0.3)))
        choices = {
            "deadline_ms": rng.choice([1.0, 2.0, 3.0, 5.0, 20.0, 100.0]),
            "energy_mj": 10.0 ** rng.uniform(-2.0, 1.0),
            "power_dbm": rng.uniform(0.0, 30.0),
            "ue_hz": rng.uniform(2e8, 3e9),
            "error": 10.0 ** rng.uniform(-9.0, -2.0),
            "ue_deviation": rng.uniform(-0.2, 0.2),
            "edge_deviation": rng.uniform(-0.2, 0.2),
            "uncached_overhead_ms": rng.uniform(0.0, 0.5),
            "cached_overhead_ms": rng.uniform(0.0, 1.0),
            "cache_bits": rng.uniform(2e3, 3e4),
        }
        some.append(device | {key: float(value) for key, value in choices.items() if rng.random() < 0.35})
    return {
        "transmitted": str(rng.choice(["whole", "offloaded"])),
        "interval_ms": float(rng.choice([0.1, 0.5, 1.0, 2.0])),
        "min_rate_bps": float(rng.choice([0.0, 1e5, 1e6, 5e6])),
        "bandwidth_hz": float(rng.choice([1e6, 5e6, 20e6])),
        "edge_hz": float(rng.choice([1e8, 1e9, 3e9, 30e9])),
        "cache_bits": float(rng.choice([0.0, 8e3, 20e3, 30e3])),
        "devices": some,
    }


def drawn(seed: int, devices: int) -> Instance:
    return Instance.of(mapping(seed, devices))
