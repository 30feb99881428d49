"""A lower bound on the total latency of problem (6): its Lagrangian, device by device, proven to a tolerance.

With a price of the band (ms for all of it), of the edge's rate (ms for a GHz) and of the cache (ms a kbit)
devices decouple. For any prices above 0

    sum over m of the least of (uncached m, cached m) - price of band - price of edge x F_es - price of cache
    x S

is no more than the optimum, as what an allocation that satisfies (6c), (6f) and (6g) pays is no more than
what is taken off. The least of an uncached device over b, p, alpha and f, with the exact dispersion, is
bounded by branch and bound over boxes of (b, p): in a box the rate is at most G(most b, most p) - sqrt(least
b V(least p, most b)) and its energy at least that of the least p at that rate; what is left is convex in
alpha. A deadline has a price too: a ms of latency then costs 1 + nu, and nu x the deadline is taken off. What
R_min asks of a device counts in each box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from controller.allocators.urllc.instance import BoolArray, FloatArray, Instance
from wire.definitions.short_packets import LN2, dispersion

PROVEN: Final = 2e-4
"""Of a device's least cost, as a part of it: how near to it a box must come."""
MAX_BOXES: Final = 4096
MAX_ROUNDS: Final = 40
MAX_SUMS_OF: Final = 16
"""Tasks, for which every sum of their sizes is looked at."""
_LEAST_SHARE: Final = 1e-5
_LEAST_POWER: Final = 1e-5
_BISECTIONS: Final = 40


@dataclass(frozen=True, slots=True)
class Prices:
    """``band``: ms for all of it; ``edge``: ms for a GHz; ``cache``: ms a kbit; ``deadline``: nu of each
    device, ms for a ms, [M] or 0 for all."""

    band: float
    edge: float
    cache: float = 0.0
    deadline: FloatArray | float = 0.0


def cached_ms(instance: Instance, prices: Prices) -> FloatArray:
    """The least of latency and prices of a cached task over its edge rate, but for the cache's, [M]."""
    nu = np.asarray(prices.deadline)
    late = (1.0 + nu) * instance.cached_overhead_ms - nu * instance.deadline_ms
    return np.asarray(_edge_ms(instance, prices) + late)


def uncached_ms(instance: Instance, prices: Prices) -> FloatArray:
    """A lower bound on the least of latency and prices of each device that is not cached, [M]; inf for one
    that cannot be served so."""
    m = len(instance)
    nu = np.broadcast_to(prices.deadline, m)
    edge = _edge_ms(instance, prices) / (1.0 + nu)
    least = np.array([_least(instance, i, prices.band / (1.0 + nu[i]), float(edge[i])) for i in range(m)])
    return np.asarray((1.0 + nu) * least - nu * instance.deadline_ms)


def bound_ms(
    instance: Instance,
    prices: Prices,
    cached: BoolArray | None = None,
    apart_ms: FloatArray | None = None,
) -> float:
    """The bound at given prices; of the allocations with just this caching decision where there is one.

    ``apart_ms``: what :func:`uncached_ms` has at these prices. inf where a device can be neither cached nor
    served.
    """
    apart = uncached_ms(instance, prices) if apart_ms is None else apart_ms
    together = cached_ms(instance, prices)
    fixed = prices.band + prices.edge * instance.edge_ghz
    if cached is not None:
        return float(np.where(cached, together, apart).sum() - fixed)
    fits = _fits(instance)
    together = np.where(fits, together + prices.cache * instance.task_cache_kbit, np.inf)
    return float(np.minimum(apart, together).sum() - fixed - prices.cache * usable_cache_kbit(instance))


def usable_cache_kbit(instance: Instance) -> float:
    """The most that whole tasks can fill of the cache; of many tasks of different sizes a bound on it."""
    size = instance.task_cache_kbit[_fits(instance)]
    if len(size) and size.min() == size.max() and size[0] > 0.0:
        return float(size[0] * min(np.floor(instance.cache_kbit / size[0] * (1.0 + 1e-12)), len(size)))
    if len(size) > MAX_SUMS_OF:
        return float(min(instance.cache_kbit, size.sum()))
    sums = np.zeros(1)
    for task in size:
        sums = np.concatenate((sums, sums + task))
    return float(sums[sums <= instance.cache_kbit * (1.0 + 1e-12)].max())


def cache_price(instance: Instance, apart_ms: FloatArray, together_ms: FloatArray) -> float:
    """The price of the cache with which the bound is highest, ms a kbit."""
    saving = np.where(_fits(instance), apart_ms - together_ms, 0.0)
    size = np.where(saving > 0.0, instance.task_cache_kbit, 0.0)
    worth = np.where(size > 0.0, saving / np.where(size > 0.0, size, 1.0), 0.0)
    order = np.argsort(-worth, kind="stable")
    used = np.cumsum(size[order])
    beyond = np.flatnonzero(used > usable_cache_kbit(instance) * (1.0 + 1e-9))
    return max(0.0, float(worth[order[beyond[0]]])) if len(beyond) else 0.0


def _fits(instance: Instance) -> BoolArray:
    """Tasks that the cache could hold at all, [M]."""
    return np.asarray(instance.task_cache_kbit <= instance.cache_kbit * (1.0 + 1e-12))


def _edge_ms(instance: Instance, prices: Prices) -> FloatArray:
    """min over f <= F of (1 + nu) C / f + price f, for a whole task at the edge."""
    work = (1.0 + np.asarray(prices.deadline)) * instance.mcycles / (1.0 - instance.edge_deviation)
    f = np.minimum(np.sqrt(work / max(prices.edge, 1e-300)), instance.edge_ghz)
    return np.asarray(work / f + prices.edge * f)


def _least(instance: Instance, m: int, band_ms: float, edge_ms: float) -> float:
    """Branch and bound over boxes of share and power; prices in ms of this device's latency."""
    shares = np.concatenate(([0.0], np.geomspace(_LEAST_SHARE, 1.0, 33)))
    powers = np.concatenate(([0.0], np.geomspace(_LEAST_POWER, 1.0, 17))) * instance.max_power_w[m]
    grid = np.meshgrid(np.arange(len(shares) - 1), np.arange(len(powers) - 1), indexing="ij")
    b, p = (index.ravel() for index in grid)
    box = np.stack((shares[b], shares[b + 1], powers[p], powers[p + 1]), axis=1)
    best, settled = np.inf, np.inf
    for _ in range(MAX_ROUNDS):
        low = _box_ms(instance, m, box, band_ms, edge_ms)
        point = np.column_stack((box[:, 1], box[:, 1], box[:, 3], box[:, 3]))
        best = min(best, float(_box_ms(instance, m, point, band_ms, edge_ms).min(initial=np.inf)))
        open_ = low < best - PROVEN * abs(best)
        settled = min(settled, float(low[~open_].min(initial=np.inf)))
        box, low = box[open_], low[open_]
        if not len(box) or len(box) > MAX_BOXES:
            break
        box = _halved(box)
    left = float(_box_ms(instance, m, box, band_ms, edge_ms).min(initial=np.inf)) if len(box) else np.inf
    return min(settled, left)


def _halved(box: FloatArray) -> FloatArray:
    """Each box in four."""
    b, p = 0.5 * (box[:, 0] + box[:, 1]), 0.5 * (box[:, 2] + box[:, 3])
    quarters = [
        np.column_stack((b0, b1, p0, p1))
        for b0, b1 in ((box[:, 0], b), (b, box[:, 1]))
        for p0, p1 in ((box[:, 2], p), (p, box[:, 3]))
    ]
    return np.concatenate(quarters)


def _box_ms(instance: Instance, m: int, box: FloatArray, band_ms: float, edge_ms: float) -> FloatArray:
    """What no allocation with share and power in the box is below, [boxes]."""
    b0, b1, p0, p1 = box.T
    a = float(instance.snr_per_w[m])
    uses = 1e3 * instance.interval_ms * instance.bandwidth_mhz
    loss = np.sqrt(b0 * dispersion(p0 * a / b1) / uses) * float(instance.inverse_q[m])
    rate = instance.bandwidth_mhz / LN2 * (b1 * np.log1p(p1 * a / b1) - loss)
    ok = (rate > 0.0) & (rate >= instance.min_rate_mbps * (1.0 - 1e-9))
    tau = instance.kbit[m] / np.where(ok, rate, 1.0)
    joule = p0 * tau
    whole = instance.transmitted == "whole"
    offloading = edge_ms + (0.0 if whole else 1.0) * tau
    value = _offload_ms(instance, m, joule, offloading) + band_ms * b0 + (tau if whole else 0.0)
    value = value + float(instance.uncached_overhead_ms[m])
    return np.where(ok, value, np.inf)


def _offload_ms(instance: Instance, m: int, joule: FloatArray, slope: FloatArray) -> FloatArray:
    """min over w of local latency + w x slope, where local energy is what w x joule leaves of E; [boxes].

    Local latency is the longer of (1 - w) C / F and what the energy allows, x^(3/2) / y^(1/2) in x and y
    affine in w: convex.
    """
    work, energy = float(instance.mcycles[m]), float(instance.energy_mj[m])
    fast = float(instance.ue_ghz[m] * (1.0 - instance.ue_deviation[m]))
    root = np.sqrt(instance.mj_per_mcycle[m])
    most = np.where(joule > energy, energy / np.where(joule > 0.0, joule, 1.0), 1.0)
    low, high = np.zeros_like(joule), most

    def local(w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Latency and its slope."""
        x, y = (1.0 - w) * work, np.maximum(energy - w * joule, 1e-12)
        by_rate, by_energy = x / fast, root * x**1.5 / np.sqrt(y)
        grown = root * (-1.5 * work * np.sqrt(x) / np.sqrt(y) + 0.5 * joule * x**1.5 / y**1.5)
        return np.maximum(by_rate, by_energy), np.where(by_rate >= by_energy, -work / fast, grown)

    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        rises = local(middle)[1] + slope > 0.0
        low, high = np.where(rises, low, middle), np.where(rises, middle, high)
    return np.minimum(local(low)[0] + low * slope, local(high)[0] + high * slope)
