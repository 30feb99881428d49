"""Bandwidth, power and rates by successive inner approximations: points, where to begin, one step.

A point is float64 [M, 6] as :mod:`controller.allocators.urllc.barrier` has it. Every step solves a convex
problem whose solutions satisfy problem (6) but for lateness v. The kind ``PAPER`` has V = 1: as V is never
more than that, what V = 1 carries the exact law carries too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from controller.allocators.urllc import barrier
from controller.allocators.urllc.barrier import JOINT, LEAST_W, B, G, P, T, V, W
from controller.allocators.urllc.instance import BoolArray, FloatArray, Instance
from controller.allocators.urllc.model import Allocation, Parts, parts, rate_mbps
from wire.definitions.short_packets import LN2

LATE: Final = 1e3
"""What a ms of lateness costs, in ms of latency."""
TOLERANCE: Final = 3e-6
"""Of the objective of a convex problem."""
USED: Final = 0.98
"""Of what there is, by a point to begin with."""
LATE_MS: Final = 1e-6
"""What counts as late."""
WHOLE: Final = 1.0 - 1e-9
"""Of the band, where shares are equal and stay so."""
VIOLATION: Final = 1e-4
"""ms of room that lateness has to begin with."""
AWAY: Final = 1e-5
"""How far from 0 what a device offloads is to begin with, and a hundredth of how far from 1: from nearer,
Newton's method takes long to leave, and an approximation at 0 keeps it there."""
NONE: Final = 3e-7
"""Parts of a task that are less than this are nothing: less than the checker's tolerance comes of it."""
_GRID: Final = 48
_SHARES: Final = np.geomspace(1e-6, 1.0, 200)[:, None]


@dataclass(frozen=True, slots=True)
class Constants:
    """An instance as the compiled code has it, for one caching decision. ``k``: [M, CONSTANTS]; ``equal``:
    all who send have equal shares of the band."""

    instance: Instance
    cached: BoolArray
    k: FloatArray
    whole: bool
    scale: float
    equal: bool = False

    @classmethod
    def of(cls, instance: Instance, cached: BoolArray, *, equal: bool = False) -> Constants:
        i = instance
        k = np.empty((len(i), barrier.CONSTANTS))
        overhead = np.where(cached, i.cached_overhead_ms, i.uncached_overhead_ms)
        k[:, barrier.KBIT], k[:, barrier.MCYCLES] = i.kbit, i.mcycles
        k[:, barrier.EDGE_MCYCLES] = i.mcycles / (1.0 - i.edge_deviation)
        k[:, barrier.ENERGY_3] = i.mj_per_mcycle * i.mcycles**3
        k[:, barrier.TIME], k[:, barrier.ENERGY] = i.deadline_ms - overhead, i.energy_mj
        k[:, barrier.SNR], k[:, barrier.POWER] = i.snr_per_w, i.max_power_w
        k[:, barrier.NOISE] = i.inverse_q / np.sqrt(1e3 * i.interval_ms * i.bandwidth_mhz)
        k[:, barrier.UE_GHZ] = i.ue_ghz * (1.0 - i.ue_deviation)
        slowest = i.kbit / i.min_rate_mbps if i.min_rate_mbps > 0.0 else np.full(len(i), 1e6)
        k[:, barrier.RATE_TIME], k[:, barrier.CACHED] = slowest, cached
        return cls(i, cached, k, i.transmitted == "whole", i.bandwidth_mhz / LN2, equal)


def least_shares(instance: Instance, mbps: FloatArray | float = 0.0, *, exact: bool = True) -> FloatArray:
    """Of each device the least share of the band with which it has a rate above ``mbps`` at full power, [M];
    inf for a device that has it with none."""
    enough = rate_mbps(instance, _SHARES, instance.max_power_w, exact=exact) > mbps
    return np.where(enough.any(axis=0), _SHARES[np.argmax(enough, axis=0), 0], np.inf)


def _shares(c: Constants, exact: bool) -> FloatArray | None:
    """Shares with which all devices that send have a rate, that of R_min if it can be, [M]; None where there
    are none. Equal ones, or where these do not do the least that each needs and an equal part of the rest,
    but not more than what its rate is highest with."""
    i, sends = c.instance, ~c.cached
    rate = rate_mbps(i, _SHARES, i.max_power_w, exact=exact)
    most, best = rate.max(axis=0), _SHARES[rate.argmax(axis=0), 0]
    if (most[sends] <= 0.0).any():
        return None
    equal = np.where(sends, (WHOLE if c.equal else USED) / sends.sum(), 0.0)
    with_equal = rate_mbps(i, np.where(sends, equal, 1.0), i.max_power_w, exact=exact)
    if c.equal:
        return equal if (with_equal > 0.0)[sends].all() else None
    for wanted in (max(i.min_rate_mbps, 1e-3 * i.bandwidth_mhz / sends.sum()), 0.0):
        if (with_equal > wanted)[sends].all():
            return equal
        needed = np.where(sends, least_shares(i, np.minimum(wanted, 0.9 * most), exact=exact), 0.0)
        if needed.sum() < USED:
            more = (USED - needed.sum()) / sends.sum()
            return np.where(sends, np.minimum(needed + more, np.maximum(needed, best)), 0.0)
    return None


def first_point(c: Constants, offloaded: float = 0.7, *, exact: bool = True) -> FloatArray | None:
    """A point inside all constraints, late by what it is late; None where the band is too narrow for all.

    Power leaves half of the energy to processing, edge rates are as the square roots of the work.
    """
    i, sends = c.instance, ~c.cached
    x = np.ones((len(i), barrier.N))
    if sends.any():
        share = _shares(c, exact)
        if share is None:
            return None
        power = i.max_power_w * np.geomspace(1e-4, 1.0, _GRID)[:, None]
        rate = rate_mbps(i, np.where(sends, share, 1.0), power, exact=exact)
        energy = np.where(rate > 0.0, power * i.kbit / np.where(rate > 0.0, rate, 1.0), np.inf)
        if not np.isfinite(energy.min(axis=0)[sends]).all():
            return None
        fits = energy <= 0.5 * i.energy_mj / offloaded
        row = np.where(fits.any(axis=0), _GRID - 1 - np.argmax(fits[::-1], axis=0), np.argmin(energy, axis=0))
        at = np.arange(len(i))
        spent = energy[row, at]
        w = np.clip(0.5 * i.energy_mj / spent, LEAST_W, offloaded)
        own = (1.0 - w) * i.mcycles
        joules = np.maximum(i.energy_mj - w * spent, 0.25 * i.energy_mj)
        slow = np.sqrt(i.mj_per_mcycle * own**3 / (0.9 * joules))
        x[:, B], x[:, P] = share, power[row, at]
        x[:, T], x[:, W] = 1.02 * np.maximum(own / c.k[:, barrier.UE_GHZ], slow), w
    x[c.cached, W] = 1.0
    weight = x[:, W] * np.sqrt(i.mcycles)
    x[:, G] = np.minimum(USED * i.edge_ghz * weight / weight.sum(), USED * i.edge_ghz * x[:, W])
    x[:, V] = 0.0
    rate = rate_mbps(i, x[:, B], x[:, P], exact=exact)
    x[:, V] = np.maximum(-slack_ms(c, x, rate), 0.0)
    return x


def slack_ms(c: Constants, x: FloatArray, rate: FloatArray) -> FloatArray:
    """How much sooner than its deadline, and than R_min has it, each device is at its rate in Mbit/s, ms
    [M]."""
    i, sends = c.instance, ~c.cached
    tau = np.where(sends, 1.0 / np.where(sends, rate, 1.0), 0.0)
    sent = i.kbit * tau * (1.0 if c.whole else x[:, W])
    latency = np.where(sends, np.where(x[:, W] < 1.0, x[:, T], 0.0) + sent, 0.0)
    edge = x[:, W] > 0.0
    latency[edge] += (x[:, W] ** 2 * c.k[:, barrier.EDGE_MCYCLES])[edge] / x[edge, G]
    return np.minimum(c.k[:, barrier.TIME] - latency, c.k[:, barrier.RATE_TIME] - i.kbit * tau)


def inside(c: Constants, x: FloatArray, kind: int = JOINT, nearer: float = 1.0) -> FloatArray:
    """A point near ``x`` with room in every constraint, ``nearer`` times as much of it as usual."""
    i, k, out, sends = c.instance, c.k, x.copy(), ~c.cached
    if not c.equal:
        out[:, B] *= 1.0 - 1e-3
    out[:, G] *= 1.0 - 1e-3
    out[sends, P] *= 1.0 - 4e-3 * nearer
    rate = np.where(sends, rate_mbps(i, out[:, B], out[:, P], exact=kind == JOINT), 1.0)
    radio = out[:, P] * i.kbit / np.maximum(rate, 1e-12)
    if kind == JOINT:
        least = AWAY * np.minimum(1.0, i.energy_mj / radio)
        out[:, W] = np.where(sends, np.clip(out[:, W], least, 1.0 - 100.0 * AWAY), 1.0)
        out[:, G] = np.maximum(out[:, G], 0.4 / len(out) * i.edge_ghz * np.minimum(out[:, W], least))
    own = 1.0 - out[:, W]
    left = np.maximum(i.energy_mj - out[:, W] * radio, 1e-3 * i.energy_mj)
    fastest = np.maximum(
        1.001 * own * i.mcycles / k[:, barrier.UE_GHZ], np.sqrt(1.01 * k[:, barrier.ENERGY_3] * own**3 / left)
    )
    out[sends, T] = np.maximum(out[:, T] * (1.0 + 4e-3 * nearer), fastest)[sends]
    out[:, G] = np.minimum(out[:, G], (1.0 - 1e-3) * i.edge_ghz * out[:, W])
    out[:, V] = 1.3 * np.maximum(-slack_ms(c, out, rate), 0.0) + VIOLATION * nearer
    return out


@dataclass(frozen=True, slots=True)
class Step:
    """One convex problem solved. ``price``: ms of the objective that the whole band [0], a GHz of the edge
    [1] and a ms of each device's deadline [2:] are worth at the margin; ``newton``: steps."""

    point: FloatArray
    price: FloatArray
    newton: int


def step(c: Constants, x: FloatArray, kind: int) -> Step | None:
    """The inner approximation at ``x``, solved; None where no point inside was found."""
    at, sends = x.copy(), ~c.cached
    rate = rate_mbps(c.instance, x[:, B], x[:, P], exact=kind == JOINT)
    if (rate[sends] <= 0.0).any():
        return None
    at[:, T] = np.where(sends, 1.0 / np.where(sends, rate, 1.0), 1.0)
    price = np.zeros(2 + len(x))
    for nearer in (1.0, 5.0, 25.0):
        start = inside(c, x, kind, nearer)
        at[:, W] = np.maximum(start[:, W], LEAST_W)
        newton = barrier.minimise(
            kind,
            c.whole,
            c.equal,
            c.scale,
            c.instance.edge_ghz,
            c.k,
            at,
            start,
            LATE,
            TOLERANCE,
            price,
        )
        if newton > 0:
            return Step(start, price, newton)
    return None


def allocation(c: Constants, x: FloatArray) -> Allocation:
    """The point as variables of problem (6)."""
    i, sends = c.instance, ~c.cached
    w = np.where(x[:, W] < NONE, 0.0, np.where(x[:, W] > 1.0 - NONE, 1.0, x[:, W]))
    w = np.where(sends, w, 1.0)
    own = (1.0 - w) * i.mcycles
    ue = np.divide(own, x[:, T] * (1.0 - i.ue_deviation), out=np.zeros_like(own), where=own > 0.0)
    whole = np.sqrt(i.energy_mj / (i.mj_per_mcycle * i.mcycles)) / (1.0 - i.ue_deviation)
    ue = np.where(w > 0.0, ue, np.minimum(ue, whole))
    return Allocation(
        cached=c.cached.copy(),
        local_share=np.where(sends, 1.0 - w, 0.0),
        bandwidth=np.where(sends, x[:, B], 0.0),
        power_w=np.where(sends, x[:, P], 0.0),
        ue_ghz=np.minimum(ue, i.ue_ghz),
        edge_ghz=np.where(w > 0.0, np.minimum(x[:, G] / np.where(w > 0.0, w, 1.0), i.edge_ghz), 0.0),
    )


def point(instance: Instance, a: Allocation) -> FloatArray:
    """The other way."""
    x = np.ones((len(instance), barrier.N))
    sends = ~a.cached
    w = np.where(sends, 1.0 - a.local_share, 1.0)
    x[:, B], x[:, P] = np.where(sends, a.bandwidth, 1.0), np.where(sends, a.power_w, 1.0)
    real = np.where(w < 1.0, a.ue_ghz * (1.0 - instance.ue_deviation), 1.0)
    x[:, T] = (1.0 - w) * instance.mcycles / real
    x[:, W], x[:, G] = w, w * a.edge_ghz
    x[:, V] = 0.0
    return x


def late_ms(instance: Instance, a: Allocation, of: Parts | None = None) -> FloatArray:
    """By how much each device misses its deadline, or what R_min asks of its transmission, ms [M].

    ``of``: the allocation's parts, where they are there already.
    """
    of = parts(instance, a) if of is None else of
    return lateness_ms(instance, a.cached, of.latency_ms, of.rate_mbps)


def lateness_ms(
    instance: Instance, cached: BoolArray, latency_ms: FloatArray, rate: FloatArray
) -> FloatArray:
    """The same for latencies in ms and rates in Mbit/s, all [..., M]."""
    late = latency_ms - instance.deadline_ms
    if instance.min_rate_mbps > 0.0:
        rate = np.where(cached, np.inf, np.maximum(rate, 1e-12))
        late = np.maximum(late, instance.kbit / rate - instance.kbit / instance.min_rate_mbps)
    return np.where(late > LATE_MS, late, 0.0)


def cost_ms(instance: Instance, a: Allocation) -> float:
    """The objective (6a), with lateness at its price: what no step may raise."""
    return value_ms(instance, a)[0]


def value_ms(instance: Instance, a: Allocation) -> tuple[float, float]:
    """That, and the objective (6a) alone."""
    of = parts(instance, a)
    total = of.total_ms
    return float(total + LATE * late_ms(instance, a, of).sum()), total
