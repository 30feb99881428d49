"""The lower bound is below every allocation, and near what the joint method finds."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra urllc")

from controller.allocators.urllc import bound, joint
from controller.allocators.urllc.bound import Prices, bound_ms, cached_ms, uncached_ms
from controller.allocators.urllc.check import violations
from controller.allocators.urllc.instance import FloatArray, Instance
from controller.allocators.urllc.model import Allocation, parts, rate_mbps
from controller.allocators.urllc.solve import find, lower_bound_ms
from tests.allocators.urllc.instances import drawn, paper


def grid_ms(i: Instance, prices: Prices) -> float:
    """The least of latency and prices of one device that sends, over grids that close in."""
    low, high, least = np.array([1e-7, 1e-5, 0.0]), np.ones(3), np.inf
    for _ in range(12):
        axes = [np.linspace(a, b, 41) for a, b in zip(low, high, strict=True)]
        if least == np.inf:
            axes[:2] = [np.geomspace(a, 1.0, 121) for a in low[:2]]
        cost = cost_ms(i, prices, axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :])
        least = min(least, float(cost.min()))
        at = np.unravel_index(int(cost.argmin()), cost.shape)
        low = np.array([axis[max(k - 3, 0)] for axis, k in zip(axes, at, strict=True)])
        high = np.array([axis[min(k + 3, len(axis) - 1)] for axis, k in zip(axes, at, strict=True)])
    return least


def cost_ms(i: Instance, prices: Prices, b: FloatArray, p: FloatArray, w: FloatArray) -> FloatArray:
    """Latency and prices; b, p (of the most) and w broadcast; inf where energy or R_min is not kept."""
    rate = rate_mbps(i, b, p * i.max_power_w[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        airtime = np.where(rate > max(i.min_rate_mbps, 1e-9), i.kbit[0] / rate, np.inf)
        spent = np.where(w > 0.0, w * p * i.max_power_w[0] * airtime, 0.0)
        own = (1.0 - w) * i.mcycles[0]
        f = np.sqrt((i.energy_mj[0] - spent) / (i.mj_per_mcycle[0] * own))
        f = np.minimum(np.where(own > 0.0, f, np.inf), i.ue_ghz[0] * (1.0 - i.ue_deviation[0]))
        work = i.mcycles[0] / (1.0 - i.edge_deviation[0])
        edge = min(np.sqrt(work / prices.edge), i.edge_ghz)
        sent = airtime if i.transmitted == "whole" else np.where(w > 0.0, w * airtime, 0.0)
        total = np.where(own > 0.0, own / f, 0.0) + sent + w * (work / edge + prices.edge * edge)
        total = total + prices.band * b + i.uncached_overhead_ms[0]
    silent = (w == 0.0) & (i.transmitted == "offloaded") & (i.min_rate_mbps == 0.0)
    return np.where(
        (spent <= i.energy_mj[0]) & (silent | np.isfinite(airtime)) & ~np.isnan(total), total, np.inf
    )


@pytest.mark.parametrize("seed", range(30))
def test_a_devices_least_cost_is_that_of_a_grid(seed: int) -> None:
    i = drawn(seed, 1)
    rng = np.random.default_rng(seed)
    prices = Prices(float(10.0 ** rng.uniform(-2, 1.5)), float(10.0 ** rng.uniform(-3, 0.5)))
    assert float(uncached_ms(i, prices)[0]) <= grid_ms(i, prices) * (1.0 + 1e-9)
    # R_min leaves a curve that no grid is near to.
    free = i.with_(min_rate_mbps=0.0)
    low, grid = float(uncached_ms(free, prices)[0]), grid_ms(free, prices)
    assert grid * (1.0 - 2e-3) <= low <= grid * (1.0 + 1e-9) or low == grid == np.inf


def test_a_deadlines_price_is_for_what_is_late() -> None:
    i = paper(1, 1)
    prices = Prices(1.0, 0.1)
    plain, priced = uncached_ms(i, prices), uncached_ms(i, Prices(1.0, 0.1, deadline=np.array([0.5])))
    assert priced[0] <= plain[0] + 0.5 * (plain[0] - i.deadline_ms[0])
    f = np.sqrt(i.mcycles / 0.1)
    assert cached_ms(i, prices) == pytest.approx(i.mcycles / f + 0.1 * f)
    tight = cached_ms(i, Prices(1.0, 0.1, deadline=1.0))
    f = np.sqrt(2.0 * i.mcycles / 0.1)
    assert tight == pytest.approx(2.0 * i.mcycles / f + 0.1 * f - i.deadline_ms)


@pytest.mark.parametrize("seed", range(24))
def test_for_any_prices_it_is_below_what_is_found(seed: int) -> None:
    i = drawn(200 + seed, 1 + seed % 4)
    answer = find(i)
    if not answer.served.all() or violations(i, answer.allocation):
        pytest.skip("no solution was found")
    total = parts(i, answer.allocation).total_ms
    rng = np.random.default_rng(seed)
    for _ in range(3):
        band, edge, cache = 10.0 ** rng.uniform(-2, 1, 3)
        prices = Prices(float(band), float(edge), float(cache), rng.uniform(0.0, 1.0, len(i)))
        assert bound_ms(i, prices) <= total * (1.0 + 1e-6)
        assert bound_ms(i, prices, answer.allocation.cached) <= total * (1.0 + 1e-6)
    least = lower_bound_ms(i, answer)
    assert least is not None and least <= total * (1.0 + 1e-6)
    if i.transmitted == "whole":
        assert least >= 0.95 * total


@pytest.mark.parametrize(
    ("devices", "cycles_per", "most"),
    [(4, "byte", 2e-3), (4, "bit", 2e-3), (15, "byte", 3e-3)],
)
def test_the_joint_method_is_near_it(devices: int, cycles_per: str, most: float) -> None:
    i = paper(6, devices, cycles_per)
    answer = find(i)
    least, total = lower_bound_ms(i, answer), parts(i, answer.allocation).total_ms
    assert least is not None and total * (1.0 - most) <= least <= total


def test_what_the_cache_can_hold() -> None:
    i = paper(1, 3, cache_bits=25e3)
    assert bound.usable_cache_kbit(i) == pytest.approx(2 * 10.832)
    unequal = i.with_(task_cache_kbit=np.array([9.0, 11.0, 30.0]))
    assert bound.usable_cache_kbit(unequal) == pytest.approx(20.0)
    assert bound.usable_cache_kbit(unequal.with_(cache_kbit=10.0)) == 9.0
    assert bound.usable_cache_kbit(unequal.with_(cache_kbit=5.0)) == 0.0
    apart, together = np.array([5.0, 3.0, 9.0]), np.array([1.0, 1.0, 1.0])
    # All that can be held fits at once: the largest is none of them.
    assert bound.cache_price(unequal, apart, together) == 0.0
    assert bound.cache_price(i, apart, together) == pytest.approx(2.0 / 10.832)


def test_there_is_none_without_a_solution() -> None:
    i = paper(1, 3).with_(deadline_ms=1e-3)
    answer = find(i)
    assert lower_bound_ms(i, answer) is None
    silent = Allocation(*(np.zeros(3, t) for t in (np.bool_, *[np.float64] * 5)))
    assert violations(i, silent)
    assert joint.solve(i) is not None
