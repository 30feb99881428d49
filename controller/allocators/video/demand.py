"""The least resources with which a user's opinion keeps its agreement in a slice window, under its emulated
future.

A rate needs both PRBs and cycles in proportion, so that the least rate is the least of both; the first
segments that are prefetched are then as few as do not take the agreement away. Over a window the mean of a
user's scores is what is held against its agreement. It is uncertain in three ways: what the user will be up
to and where (the futures), the scatter of its scores, and its model, known from so many scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from controller.allocators.video.opinion import OpinionModels
from controller.allocators.video.playback import shown_share
from controller.allocators.video.users import ENOUGH, OPTION_BITRATES, OPTION_KBPS, Users
from wire.definitions import mos
from wire.definitions.viewing import MAX_PREFETCH

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

RATING_S: Final = 10.0
"""Between two scores of a user."""
CHUNK: Final = 64
"""Users of which all is in memory at a time."""
LEAST_VARIANCE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Futures:
    """What may come in a window, float64 [users, futures, steps]: B, C, swipes a minute, and the PRBs of a
    kbit/s."""

    behaviour: FloatArray
    environment: FloatArray
    swipes_per_min: FloatArray
    prb_per_kbps: FloatArray

    def __post_init__(self) -> None:
        for name in ("behaviour", "environment", "swipes_per_min", "prb_per_kbps"):
            column = getattr(self, name)
            if column.ndim != 3 or column.shape != self.behaviour.shape or not np.isfinite(column).all():
                raise ValueError(
                    f"futures: {name} of shape {column.shape} is not finite [users, futures, steps]"
                )


@dataclass(frozen=True, slots=True)
class Demand:
    """By user, [users]: ``kbps``, ``bitrate_kbps`` and ``prefetch`` that keep its agreement with
    ``probability``.

    ``feasible``: whether that is as much as was to be; where it is not, the demand is for the opinion that is
    nearest to it at the least rate. ``prb`` [users, futures] is what the rate takes in each future,
    ``mcycles`` [users] 10^6 cycles/s.
    """

    kbps: FloatArray
    bitrate_kbps: FloatArray
    prefetch: FloatArray
    probability: FloatArray
    feasible: BoolArray
    prb: FloatArray
    mcycles: FloatArray


def demand(
    users: Users, futures: Futures, window_s: float, reliability: float, cycles_per_bit: float
) -> Demand:
    """The least rate with which the agreement is kept with probability ``reliability``, of each user.

    ValueError for a reliability outside (0, 1), and for futures of other users.
    """
    if not 0.0 < reliability < 1.0:
        raise ValueError(f"reliability {reliability} is outside (0, 1)")
    if len(futures.behaviour) != len(users):
        raise ValueError(f"futures of {len(futures.behaviour)} users for {len(users)}")
    parts = [
        _demand(users.take(rows), _take(futures, rows), window_s, reliability, cycles_per_bit)
        for rows in np.array_split(np.arange(len(users)), max(-(-len(users) // CHUNK), 1))
    ]
    return Demand(*(np.concatenate([getattr(p, name) for p in parts]) for name in Demand.__slots__))


def _take(futures: Futures, rows: NDArray[np.int64]) -> Futures:
    return Futures(
        futures.behaviour[rows],
        futures.environment[rows],
        futures.swipes_per_min[rows],
        futures.prb_per_kbps[rows],
    )


def _demand(
    users: Users, futures: Futures, window_s: float, reliability: float, cycles_per_bit: float
) -> Demand:
    bitrate, rate = OPTION_BITRATES, OPTION_KBPS
    mean = expected(users, futures, rate, bitrate, MAX_PREFETCH)
    probability = _kept(users, mean, window_s)
    enough = probability >= reliability
    feasible = np.asarray(enough.any(axis=1), np.bool_)
    nearest = probability >= probability.max(axis=1, keepdims=True) - ENOUGH
    # Where even that is hopeless, probabilities say nothing: then it is the opinion itself.
    hopeless = probability.max(axis=1) < ENOUGH
    average = mean.mean(axis=1)
    nearest[hopeless] = (average >= average.max(axis=1, keepdims=True) - ENOUGH)[hopeless]
    choice = np.where(feasible, enough.argmax(axis=1), nearest.argmax(axis=1))
    rows = np.arange(len(users))
    kbps = rate[choice]
    prefetch = np.full(len(users), MAX_PREFETCH)
    least = np.where(feasible, reliability, probability[rows, choice] - ENOUGH)
    for count in range(MAX_PREFETCH - 1, -1, -1):
        fewer = expected(users, futures, kbps[:, None], bitrate[choice][:, None], count)
        keeps = _kept(users, fewer, window_s)[:, 0] >= least
        keeps &= fewer.mean(axis=(1, 2)) >= average[rows, choice] - (ENOUGH if count else ENOUGH / 2)
        prefetch = np.where(keeps & (prefetch == count + 1), count, prefetch)
    return Demand(
        kbps,
        bitrate[choice],
        prefetch.astype(np.float64),
        probability[rows, choice],
        feasible,
        kbps[:, None] * futures.prb_per_kbps.mean(axis=2),
        kbps * cycles_per_bit / 1e3,
    )


def expected(
    users: Users, futures: Futures, kbps: FloatArray, bitrate_kbps: FloatArray, prefetch: Any
) -> FloatArray:
    """Mean scores over a window, float64 [users, futures, options], of rates and bitrates [options] or
    [users, options]."""
    rate, bits = (
        np.broadcast_to(x, (len(users), np.shape(x)[-1]))[:, None, None, :] for x in (kbps, bitrate_kbps)
    )
    ratio = rate / bits
    shown = shown_share(ratio, futures.swipes_per_min[..., None], prefetch, users.segment_s)
    models = OpinionModels.of(users.models)
    qos = {
        "stalled": 60.0 * (1.0 - shown),
        "quality": mos.quality(bits) * shown,
        "delay": np.minimum(users.segment_s / np.maximum(ratio, 1e-3), 60.0),
        "throughput": rate / 1e3,
        "jitter": users.jitter[:, None, None, None],
        "loss": users.loss[:, None, None, None],
    }
    impact = models.impact(futures.behaviour, futures.environment)
    return np.asarray(models.predict(qos, impact[..., None]).mean(axis=2))


def _kept(users: Users, mean: FloatArray, window_s: float) -> FloatArray:
    """Probability that the mean of a window's scores is the agreement or more, float64 [users, options]."""
    deviation = np.array([m.deviation for m in users.models])
    parameters = np.array([1 + len(m.slopes) + len(m.structure.context) for m in users.models])
    rows = np.array([max(m.rows, 1) for m in users.models])
    scores = max(window_s / RATING_S, 1.0)
    variance = deviation**2 * (1.0 / scores + parameters / rows) + LEAST_VARIANCE
    distance = (mean - users.ela[:, None, None]) / np.sqrt(variance)[:, None, None]
    return np.asarray(ndtr(distance).mean(axis=1))
