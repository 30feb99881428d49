"""From bandwidth and SNR to the upload frequency that keeps a latency, and back.

Uploads of ``frame_bits`` begin evenly, ``frequency_hz`` a second, and take S = frame_bits / (b e): b is the
bandwidth in Hz, e = log2(1 + SNR) in bit/s/Hz, constant during a frame, drawn anew for each. The bandwidth b
is the user's for uplink all of the time; :func:`prb_hz` says what a PRB of a real carrier is worth of it.

Source: Digital-twin-based QoE-CSP, equations (1) to (3). Equation (3) prints, for D/G/1,

    lambda E[S^2] / (2 (1 - lambda E[S]))

as the time from when a frame is selected to when it is fully uploaded. That is the mean wait of M/G/1
(Pollaczek-Khinchine) without the frame's own transmission: at a low frequency it falls to 0, below E[S]. The
mean sojourn in D/G/1 is, with Kingman's bound on the wait (the arrivals have no variance), at most

    E[S] + lambda Var[S] / (2 (1 - lambda E[S]))

This is the default, ``bound="kingman"``; ``"printed"`` is equation (3) as it stands. Neither knows of
scheduling requests, HARQ or the time to the next uplink slot: who plans with a latency takes them off it.

Both take the transmissions as independent of one another. Measured SNR stays where it is for seconds: at 1 to
3 Hz that changes little, but from 10 Hz on a queue that is stable on average grows for as long as the SNR is
low, and the mean sojourn on the channel traces is seconds instead of T. For a channel that is slow against
the uploads :func:`slow_snr_db` gives the SNR to plan with.

All functions take arrays that broadcast: frequencies [k, 1] against the users [users] of an uplink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controller.core.hops import Carrier
from wire.definitions import nr

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Bound = Literal["kingman", "printed"]
BOUNDS: Final[tuple[Bound, ...]] = ("kingman", "printed")

FLOOR_DB: Final = -6.7
"""SNR at which CQI 1 is reached: below it a UE goes on at the lowest rate, with HARQ."""
MAX_LOAD: Final = 1.0 - 1e-9
"""Of lambda E[S]: from 1 on a queue grows without end, unless no transmission takes longer than another."""
_ROUND_UP: Final = 1.0 + 1e-12
"""A bandwidth is the least, rounded up, so that it sustains what it was computed for."""


@dataclass(frozen=True, eq=False)
class Uplink:
    """What uploads need: bits of a frame, and the mean and the variance of 1/e, in s Hz/bit and its square.

    Each is a number or has an entry a user, [users]. ValueError for what is not finite, for a frame or a
    mean that is not positive and for a negative variance.
    """

    frame_bits: FloatArray
    mean: FloatArray
    variance: FloatArray

    def __post_init__(self) -> None:
        for name, least in (("frame_bits", "positive"), ("mean", "positive"), ("variance", "0 or more")):
            value = np.asarray(getattr(self, name), np.float64)
            good = np.isfinite(value) & (value >= 0.0 if name == "variance" else value > 0.0)
            if not good.all():
                raise ValueError(f"uplink: {name} {value[~good].flat[0]:g} is not a number that is {least}")
            object.__setattr__(self, name, value)

    @classmethod
    def from_snr_db(cls, frame_bits: ArrayLike, snr_db: ArrayLike, *, floor_db: float = FLOOR_DB) -> Uplink:
        """From samples of the SNR in dB, [samples] or [users, samples].

        A sample below ``floor_db`` counts as ``floor_db``. Without that the moments of 1/log2(1 + SNR) would
        be those of the few worst samples, in which nothing is sent. ValueError for no samples, for one that
        is not finite and for a floor that is not.
        """
        samples = np.asarray(snr_db, np.float64)
        if not np.isfinite(floor_db):
            raise ValueError(f"SNR floor of {floor_db!r} dB is not finite")
        _check_samples(samples, "SNR samples in dB")
        return cls._from_efficiency(frame_bits, np.log2(1.0 + 10.0 ** (np.maximum(samples, floor_db) / 10.0)))

    @classmethod
    def from_prb_bps(cls, frame_bits: ArrayLike, bps: ArrayLike, carrier: Carrier) -> Uplink:
        """From samples of the bits that a PRB carries a second (:func:`prb_bps`), [samples] or
        [users, samples]: what the MAC measures.

        ValueError for no samples, and for one that is not positive.
        """
        samples = np.asarray(bps, np.float64)
        _check_samples(samples, "samples of bit/s a PRB")
        if not (samples > 0.0).all():
            raise ValueError(f"samples of bit/s a PRB: {samples[samples <= 0.0].flat[0]:g} is not positive")
        return cls._from_efficiency(frame_bits, samples / prb_hz(carrier))

    @classmethod
    def _from_efficiency(cls, frame_bits: ArrayLike, efficiency: FloatArray) -> Uplink:
        inverse = 1.0 / efficiency
        return cls(np.asarray(frame_bits, np.float64), inverse.mean(axis=-1), inverse.var(axis=-1))

    @classmethod
    def of_users(cls, uplinks: Sequence[Uplink]) -> Uplink:
        """Several users' uplinks, each of one user, as one [users]. ValueError for none."""
        if not uplinks:
            raise ValueError("uplink of no user")
        return cls(*(np.array([float(getattr(u, f)) for u in uplinks]) for f in cls.__dataclass_fields__))

    def transmission_s(self, bandwidth_hz: ArrayLike) -> FloatArray:
        """E[S] in s, equation (2); infinite without bandwidth."""
        with np.errstate(divide="ignore"):
            return self.frame_bits * self.mean / _bandwidth(bandwidth_hz)

    def transmission_variance(self, bandwidth_hz: ArrayLike) -> FloatArray:
        """Var[S] in s^2; without bandwidth infinite, or NaN where all transmissions are equal."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.variance * (self.frame_bits / _bandwidth(bandwidth_hz)) ** 2

    def latency_s(
        self, frequency_hz: ArrayLike, bandwidth_hz: ArrayLike, bound: Bound = "kingman"
    ) -> FloatArray:
        """Equation (3): the bound on the mean time in s from when a frame is selected until it is uploaded.

        Infinite where the queue is not stable, lambda E[S] >= 1.
        """
        frequency = _frequency(frequency_hz)
        mean, variance = self.transmission_s(bandwidth_hz), self.transmission_variance(bandwidth_hz)
        with np.errstate(invalid="ignore", divide="ignore"):
            load = frequency * mean
            if _printed(bound):
                total = frequency * (variance + mean**2) / (2.0 * (1.0 - load))
            else:
                total = mean + frequency * variance / (2.0 * (1.0 - load))
        return np.where(load < 1.0, total, np.inf)

    def bandwidth_hz(
        self, frequency_hz: ArrayLike, latency_s: ArrayLike, bound: Bound = "kingman"
    ) -> FloatArray:
        """The least bandwidth in Hz at which uploads of a frequency keep a latency, and are stable.

        The root of a quadratic in 1/b: the bound grows in it, from nothing. More bandwidth keeps the latency
        as well. ``latency_s`` may be infinite. Frequency 0 is a single frame. ValueError for a frequency that
        is negative or not finite, and for a latency that is not positive.
        """
        frequency, latency = _frequency(frequency_hz), _latency(latency_s)
        mean = self.frame_bits * self.mean
        if _printed(bound):
            moment = self.frame_bits**2 * (self.variance + self.mean**2)
            root = (
                frequency * mean + np.sqrt((frequency * mean) ** 2 + 2 * frequency * moment / latency)
            ) / 2
        else:
            spread = 2.0 * frequency * self.frame_bits**2 * self.variance / latency
            away = mean * (1.0 / latency - frequency)
            root = (mean * (1.0 / latency + frequency) + np.sqrt(away**2 + spread)) / 2
        return np.asarray(np.maximum(root, frequency * mean / MAX_LOAD) * _ROUND_UP)

    def load_hz(self, frequency_hz: ArrayLike) -> FloatArray:
        """The bandwidth in Hz that uploads of a frequency fill on average: lambda E[S] of 1 Hz."""
        return np.asarray(_frequency(frequency_hz) * self.frame_bits * self.mean)

    def pooled_bandwidth_hz(self, frequency_hz: ArrayLike, latency_s: float) -> float:
        """The least bandwidth in Hz that users [users] need together, who take turns in one queue.

        Many periodic streams of unrelated phases arrive like a Poisson stream, so here Pollaczek and
        Khinchine's mean wait is the right one: E[S] + Lambda E[S^2] / (2 (1 - Lambda E[S])) <= T, Lambda the
        sum of the frequencies [users]. It is far less than the sum of what each would need for itself: there
        each user's bandwidth must upload a frame within T and then lies idle. ValueError as
        :meth:`bandwidth_hz`.
        """
        latency = float(_latency(latency_s))
        total, mean, moment = self._pool(frequency_hz)
        if not total:
            return 0.0
        linear = mean * (latency * total + 1.0)
        inside = linear**2 - latency * total * (2.0 * mean**2 - moment) * 2.0
        root = (linear + np.sqrt(max(inside, 0.0))) / (2.0 * latency)
        return float(max(root, total * mean / MAX_LOAD) * _ROUND_UP)

    def pooled_load_hz(self, frequency_hz: ArrayLike, bandwidth_hz: float, latency_s: float) -> float:
        """How much of a common bandwidth users may fill within a latency, in Hz; ``frequency_hz`` [users]
        says in which proportion they upload. 0 where a single frame takes too long."""
        latency = float(_latency(latency_s))
        total, mean, moment = self._pool(frequency_hz)
        if not total or not bandwidth_hz:
            return 0.0
        transmission = mean / bandwidth_hz
        left = latency - transmission
        if left <= 0.0:
            return 0.0
        wait = moment / mean / bandwidth_hz / 2.0
        return float(bandwidth_hz * left / (left + wait))

    def _pool(self, frequency_hz: ArrayLike) -> tuple[float, float, float]:
        """Frames a second, and the first two moments of bandwidth times transmission time of one of them."""
        frequency = np.broadcast_to(_frequency(frequency_hz), np.shape(self.mean))
        total = float(frequency.sum())
        if not total:
            return 0.0, 0.0, 0.0
        weight = frequency / total
        mean = float((weight * self.frame_bits * self.mean).sum())
        moment = float((weight * self.frame_bits**2 * (self.variance + self.mean**2)).sum())
        return total, mean, moment

    def frequency_hz(
        self, bandwidth_hz: ArrayLike, latency_s: ArrayLike, bound: Bound = "kingman"
    ) -> FloatArray:
        """The highest upload frequency in Hz that a bandwidth sustains within a latency, and is stable.

        The inverse of :meth:`bandwidth_hz`; any lower frequency is sustained as well. 0 where even a single
        frame takes longer. Infinite with infinite bandwidth. ValueError as there.
        """
        bandwidth, latency = _bandwidth(bandwidth_hz), _latency(latency_s)
        mean, variance = self.transmission_s(bandwidth), self.transmission_variance(bandwidth)
        with np.errstate(divide="ignore", invalid="ignore"):
            if _printed(bound):
                highest = 2.0 / ((variance + mean**2) / latency + 2.0 * mean)
            else:
                left = latency - mean
                highest = np.where(left > 0.0, 2.0 / (variance / left + 2.0 * mean), 0.0)
            highest = np.minimum(highest, MAX_LOAD / mean)
        return np.where(np.isfinite(mean), highest, 0.0)


def slow_snr_db(snr_db: ArrayLike, outage: float, *, floor_db: float = FLOOR_DB) -> FloatArray:
    """The SNR in dB below which samples [..., samples] are for a share ``outage`` of the time; [...].

    Where the SNR stays for much longer than a frame takes, each of its values is a queue of its own, without
    any wait while S < 1 / lambda. An :class:`Uplink` of this one sample (as [..., 1]) keeps the latency for
    the rest of the time, but for what is left of a queue after an outage: at lambda E[S] near 1 that is long.
    ValueError as :meth:`Uplink.from_snr_db`, and for a share outside 0..1.
    """
    samples = np.asarray(snr_db, np.float64)
    _check_samples(samples, "SNR samples in dB")
    if not 0.0 <= outage <= 1.0:
        raise ValueError(f"outage {outage!r} is outside 0..1")
    return np.asarray(np.quantile(np.maximum(samples, floor_db), outage, axis=-1, method="lower"))


def prb_hz(carrier: Carrier) -> float:
    """What a PRB is worth of equation (1)'s bandwidth, in Hz: resource elements that it carries a second.

    12 subcarriers x symbols a second x uplink share of the TDD pattern x (1 - overhead); the cyclic prefix
    is what is missing to 12 subcarrier spacings. With it a PRB carries prb_hz x e bit/s.
    """
    share = carrier.tdd.share("ul", guard=carrier.guard) * (1.0 - carrier.ul_overhead)
    return nr.N_SC_PER_RB * nr.symbols_per_ms(carrier.scs_khz) * 1000.0 * share


def prb_bps(carrier: Carrier, mcs: int, table: int = 1, layers: int = 1) -> float:
    """Bits that a PRB carries a second in the uplink at an MCS. ValueError for an MCS or table that is none,
    and for no layers."""
    if layers < 1:
        raise ValueError(f"{layers!r} layers")
    return carrier.bits_per_prb("ul", mcs, table) * layers * 1000.0 / nr.FRAME_MS


def prbs(bandwidth_hz: ArrayLike, carrier: Carrier) -> IntArray:
    """The least whole number of PRBs whose uplink carries what a bandwidth in Hz does.

    For users who share the grant sum their bandwidths first: not each fills up its last PRB. A scheduler may
    have a smallest grant (5 PRB in OpenAirInterface); it lasts so much shorter, and is no more on average.
    ValueError for a bandwidth that is negative or not finite.
    """
    bandwidth = _bandwidth(bandwidth_hz)
    if not np.isfinite(bandwidth).all():
        raise ValueError("no number of PRBs carries an infinite bandwidth")
    return np.asarray(np.ceil(bandwidth / prb_hz(carrier) - 1e-9), np.int64)


def _printed(bound: Bound) -> bool:
    if bound not in BOUNDS:
        raise ValueError(f"latency bound {bound!r} is none of {', '.join(BOUNDS)}")
    return bound == "printed"


def _check_samples(samples: FloatArray, what: str) -> None:
    if not samples.ndim or not samples.size:
        raise ValueError(f"{what}: there are none")
    if not np.isfinite(samples).all():
        raise ValueError(f"{what}: {samples[~np.isfinite(samples)].flat[0]} is not finite")


def _frequency(value: Any) -> FloatArray:
    frequency = np.asarray(value, np.float64)
    _refuse(frequency, ~(np.isfinite(frequency) & (frequency >= 0.0)), "upload frequency of {:g} Hz")
    return frequency


def _bandwidth(value: Any) -> FloatArray:
    bandwidth = np.asarray(value, np.float64)
    _refuse(bandwidth, ~(bandwidth >= 0.0), "bandwidth of {:g} Hz")
    return bandwidth


def _latency(value: Any) -> FloatArray:
    latency = np.asarray(value, np.float64)
    _refuse(latency, ~(latency > 0.0), "latency of {:g} s")
    return latency


def _refuse(values: FloatArray, bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        raise ValueError(f"{what.format(values[bad].flat[0])} is none")
