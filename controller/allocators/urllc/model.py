"""Equations (1) to (5): what an allocation gives each device, with the exact dispersion or with V = 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from controller.allocators.urllc.instance import BoolArray, FloatArray, Instance
from wire.definitions.short_packets import LN2, dispersion


@dataclass(frozen=True, slots=True)
class Allocation:
    """The variables of problem (6), columns [M]: s, alpha, b, p, f_ue, f_es.

    ``bandwidth`` is a share of the band, 0 where nothing is sent. What a cached device has of the variables
    that its task does not use is 0.
    """

    cached: BoolArray
    local_share: FloatArray
    bandwidth: FloatArray
    power_w: FloatArray
    ue_ghz: FloatArray
    edge_ghz: FloatArray

    def with_(self, **changes: Any) -> Allocation:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Parts:
    """Of each device [M]: rates in Mbit/s (kbit/ms), the parts of its latency in ms, its energy in mJ."""

    rate_mbps: FloatArray
    local_ms: FloatArray
    transmission_ms: FloatArray
    edge_ms: FloatArray
    overhead_ms: FloatArray
    computing_mj: FloatArray
    transmission_mj: FloatArray

    @property
    def latency_ms(self) -> FloatArray:
        """Equation (5)."""
        return self.local_ms + self.transmission_ms + self.edge_ms + self.overhead_ms

    @property
    def energy_mj(self) -> FloatArray:
        return self.computing_mj + self.transmission_mj

    @property
    def total_ms(self) -> float:
        """The objective (6a)."""
        return float(self.latency_ms.sum())


def rate_mbps(instance: Instance, bandwidth: Any, power_w: Any, *, exact: bool = True) -> FloatArray:
    """Equation (1) for all devices, [M]; with V = 1 where not ``exact``. Below 0 where noise leaves
    nothing."""
    b, p = np.asarray(bandwidth, np.float64), np.asarray(power_w, np.float64)
    uses = 1e3 * instance.interval_ms * instance.bandwidth_mhz
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.where(b > 0.0, p * instance.snr_per_w / b, 0.0)
        v = dispersion(snr) if exact else 1.0
        nat = b * np.log1p(snr) - np.sqrt(b * v / uses) * instance.inverse_q
    return np.asarray(instance.bandwidth_mhz / LN2 * nat)


def parts(instance: Instance, allocation: Allocation, *, exact: bool = True) -> Parts:
    """Equations (2) to (5). A part that never ends is inf: no rate where bits are sent, no processing
    rate."""
    a, s = allocation, allocation.cached
    rate = np.maximum(rate_mbps(instance, a.bandwidth, a.power_w, exact=exact), 0.0)
    rate, offloaded = np.where(s, 0.0, rate), np.where(s, 1.0, 1.0 - a.local_share)
    sent, local = np.where(s, 0.0, instance.kbit), np.where(s, 0.0, instance.mcycles * a.local_share)
    real_ue = a.ue_ghz * (1.0 - instance.ue_deviation)
    airtime = _ratio(sent, rate)
    return Parts(
        rate_mbps=rate,
        local_ms=_ratio(local, real_ue),
        transmission_ms=airtime if instance.transmitted == "whole" else _product(offloaded, airtime),
        edge_ms=_ratio(instance.mcycles * offloaded, a.edge_ghz * (1.0 - instance.edge_deviation)),
        overhead_ms=np.where(s, instance.cached_overhead_ms, instance.uncached_overhead_ms),
        computing_mj=instance.mj_per_mcycle * local * real_ue**2,
        transmission_mj=_product(offloaded * a.power_w, airtime),
    )


def _ratio(amount: FloatArray, rate: FloatArray) -> FloatArray:
    """amount / rate; 0 of nothing, inf without a rate."""
    some = amount > 0.0
    out = np.where(some, np.inf, 0.0)
    np.divide(amount, rate, out=out, where=some & (rate > 0.0))
    return out


def _product(factor: FloatArray, time: FloatArray) -> FloatArray:
    """factor x time; 0 of no factor, even where the time is inf."""
    out = np.zeros_like(factor)
    np.multiply(factor, time, out=out, where=factor > 0.0)
    return out
