"""Equations (1) to (5) against numbers worked out by hand, in SI units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from controller.allocators.urllc.instance import Instance
from controller.allocators.urllc.model import Allocation, parts, rate_mbps
from tests.allocators.urllc.instances import drawn
from wire.definitions.short_packets import inverse_q, rate_bps

GAIN = 1e-10
DEVICE = {"bits": 8000, "cycles": 200_000, "channel_gain": GAIN, "error": 1e-5}
NOISE_W = 10.0**-20.4 * 2e6
SHARE, POWER = 0.25, 0.1


def of(**cell: Any) -> Instance:
    device = {**DEVICE, "ue_deviation": 0.2, "edge_deviation": -0.25}
    device |= {"uncached_overhead_ms": 0.5, "cached_overhead_ms": 0.3}
    return Instance.of({"bandwidth_hz": 2e6, "interval_ms": 0.5, **cell, "devices": [device]})


def allocation(cached: bool = False, **changes: float) -> Allocation:
    values = {"local_share": 0.4, "bandwidth": SHARE, "power_w": POWER, "ue_ghz": 1.0, "edge_ghz": 8.0}
    columns = {name: np.array([value]) for name, value in (values | changes).items()}
    return Allocation(cached=np.array([cached]), **columns)


def by_hand(exact: bool) -> float:
    """Equation (1), bit/s."""
    gamma = POWER * GAIN / (SHARE * NOISE_W)
    v = 1.0 - (1.0 + gamma) ** -2 if exact else 1.0
    loss = math.sqrt(SHARE * v / (0.5e-3 * 2e6)) * 4.264890793922602
    return 2e6 / math.log(2.0) * (SHARE * math.log(1.0 + gamma) - loss)


@pytest.mark.parametrize("exact", [True, False])
def test_the_rate_is_that_of_equation_1(exact: bool) -> None:
    rate = float(rate_mbps(of(), [SHARE], [POWER], exact=exact)[0])
    assert rate == pytest.approx(by_hand(exact) / 1e6, rel=1e-9)


def test_the_rate_is_the_one_that_the_cell_has() -> None:
    i = drawn(3, 6)
    b, p = np.linspace(0.05, 0.3, 6), i.max_power_w * np.linspace(0.2, 1.0, 6)
    for m, rate in enumerate(rate_mbps(i, b, p)):
        hz = b[m] * i.bandwidth_mhz * 1e6
        cell = rate_bps(hz, p[m] * i.snr_per_w[m] / b[m], i.interval_ms / 1e3, float(i.error[m]))
        assert max(rate, 0.0) * 1e6 == pytest.approx(float(cell), rel=1e-9)
        assert inverse_q(float(i.error[m])) == i.inverse_q[m]


def test_latency_and_energy_of_a_task_that_is_shared() -> None:
    rate = by_hand(True)
    p = parts(of(), allocation())
    # 80,000 cycles at 0.8 GHz; 120,000 at 10 GHz; the whole task is sent.
    assert p.local_ms[0] == pytest.approx(0.1)
    assert p.edge_ms[0] == pytest.approx(0.012)
    assert p.transmission_ms[0] == pytest.approx(8000.0 / rate * 1e3)
    assert p.latency_ms[0] == pytest.approx(0.1 + 0.012 + 8e6 / rate + 0.5) == p.total_ms
    # alpha theta / 2 C (0.8 GHz)^2, and the power for what is offloaded.
    assert p.computing_mj[0] == pytest.approx(0.4 * 0.5e-26 * 200_000 * (0.8e9) ** 2 * 1e3)
    assert p.transmission_mj[0] == pytest.approx(0.6 * POWER * 8000.0 / rate * 1e3)
    assert p.energy_mj[0] == pytest.approx(0.256 + 0.6 * POWER * 8e6 / rate)


def test_only_what_is_offloaded_is_sent_in_the_other_reading() -> None:
    whole, offloaded = parts(of(), allocation()), parts(of(transmitted="offloaded"), allocation())
    assert offloaded.transmission_ms[0] == pytest.approx(0.6 * whole.transmission_ms[0])
    assert offloaded.energy_mj[0] == whole.energy_mj[0] and offloaded.local_ms[0] == whole.local_ms[0]


def test_a_cached_task_is_processed_at_the_edge_alone() -> None:
    p = parts(of(), allocation(cached=True))
    assert p.latency_ms[0] == pytest.approx(200_000 / 10e9 * 1e3 + 0.3)
    assert p.energy_mj[0] == p.transmission_ms[0] == p.local_ms[0] == p.rate_mbps[0] == 0.0


def test_what_never_ends_is_endless_and_what_is_not_done_takes_nothing() -> None:
    i = of()
    for changes in ({"bandwidth": 0.0}, {"power_w": 0.0}, {"ue_ghz": 0.0}, {"edge_ghz": 0.0}):
        assert parts(i, allocation(**changes)).latency_ms[0] == math.inf
    local, away = allocation(local_share=1.0, edge_ghz=0.0), allocation(local_share=0.0, ue_ghz=0.0)
    assert parts(i, local).edge_ms[0] == 0.0 and parts(i, local).transmission_mj[0] == 0.0
    assert parts(i, away).local_ms[0] == 0.0 and parts(i, away).computing_mj[0] == 0.0
    silent = allocation(local_share=1.0, edge_ghz=0.0, bandwidth=0.0, power_w=0.0)
    assert parts(of(transmitted="offloaded"), silent).latency_ms[0] == pytest.approx(0.25 + 0.5)


def test_the_exact_rate_is_never_below_that_of_v_1() -> None:
    for seed in range(20):
        i = drawn(seed, 10)
        rng = np.random.default_rng(seed)
        b, p = rng.uniform(1e-4, 1.0, 10), i.max_power_w * rng.uniform(1e-4, 1.0, 10)
        assert (rate_mbps(i, b, p) >= rate_mbps(i, b, p, exact=False)).all()
