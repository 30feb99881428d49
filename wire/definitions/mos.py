"""Opinion of video: what a user says of what it saw, on the absolute category rating scale (ITU-T P.800,
P.910).

A user's score of an interval is drawn round E = S x I(B, C), equation (1) of the digital-agents paper. S is
the quality of service by one of the three principles of its section IV, from R, the seconds that playback
stood still in a minute, and Q, the quality of what was shown, 0..1; I(B, C) is the impact of the user's
behaviour B and the complexity C of its environment, both 1..2. Scores are normal, truncated to 1..5.

The paper prints the deviation of the first principle as 8, with which every mean opinion would lie between
2.9 and 3.1, whatever was stalled: it is read as 0.8, that of the third. The second arguments are read as
standard deviations. The paper leaves Q, B of the swipes, C of the velocity and I open: what stands here is
assumed, with I(1, 1) = 1, so that whoever stands still in plain surroundings is content with less.

Source: Revolutionizing QoE-driven Network Management with Digital Agents in 6G, sections III-C and IV.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SCALE: Final = (1.0, 5.0)
"""The lowest and the highest score: bad and excellent."""
STALL_WEIGHT: Final = 0.4
"""What a second of stalling in a minute takes off."""
PRINCIPLES: Final = ("stalls", "quality", "combined")
DEVIATIONS: Final = {"stalls": 0.8, "quality": 1.0, "combined": 0.8}
"""Of a score, by principle."""
IMPACTS: Final = ("linear", "exponential", "power")
BITRATES_KBPS: Final = (500.0, 750.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0)
"""The ladder, ascending; the paper has 500 kbit/s to 3 Mbit/s."""
FACTOR_RANGE: Final = (1.0, 2.0)
"""Of B and of C."""
SWIPES_AT_MOST: Final = 12.0
"""A minute, with which B is 2: twice the requests of the paper."""
SPEEDS_KMH: Final = (2.0, 40.0)
"""With the first C is 2, with the second 1."""


def quality(bitrate_kbps: Any) -> FloatArray:
    """Q of a bitrate: 0 at the lowest of the ladder, 1 at the highest, by its logarithm (Weber-Fechner).

    >>> quality([500.0, 3000.0]).tolist()
    [0.0, 1.0]
    """
    low, high = BITRATES_KBPS[0], BITRATES_KBPS[-1]
    ratio = np.maximum(np.asarray(bitrate_kbps, np.float64), 1e-9) / low
    return np.clip(np.log(ratio) / np.log(high / low), 0.0, 1.0)


def service_quality(principle: str, stalled_s: Any, shown_quality: Any) -> FloatArray:
    """S of an interval, not limited to the scale: 5 - 0.4 R, 1 + 4 Q or 1 + 4 Q - 0.4 R.

    ``stalled_s`` is R in seconds a minute, ``shown_quality`` Q. ValueError for another principle.
    """
    r, q = np.asarray(stalled_s, np.float64), np.asarray(shown_quality, np.float64)
    if principle not in PRINCIPLES:
        raise ValueError(f"principle {principle!r} is none of {', '.join(PRINCIPLES)}")
    if principle == "stalls":
        return SCALE[1] - STALL_WEIGHT * r + 0.0 * q
    stalled = STALL_WEIGHT * r if principle == "combined" else 0.0 * r
    return 1.0 + 4.0 * q - stalled


def impact(shape: str, behaviour: Any, environment: Any, weights: Sequence[float]) -> FloatArray:
    """I(B, C) of a user who weighs B and C with ``weights``: 1 at B = C = 1, and never above it.

    ``linear``: 1 - u (B - 1) - v (C - 1), ``exponential``: exp of the negative sum, ``power``: B^-u C^-v.
    ValueError for another shape.
    """
    b, c = np.asarray(behaviour, np.float64), np.asarray(environment, np.float64)
    u, v = weights
    if shape == "linear":
        return np.maximum(1.0 - u * (b - 1.0) - v * (c - 1.0), 0.0)
    if shape == "exponential":
        return np.exp(-u * (b - 1.0) - v * (c - 1.0))
    if shape == "power":
        return np.asarray(b**-u * c**-v)
    raise ValueError(f"impact {shape!r} is none of {', '.join(IMPACTS)}")


def behaviour(swipes_per_min: Any) -> FloatArray:
    """B of how often a user swipes on to another video."""
    return FACTOR_RANGE[0] + np.clip(np.asarray(swipes_per_min, np.float64) / SWIPES_AT_MOST, 0.0, 1.0)


def environment(speed_kmh: Any) -> FloatArray:
    """C of a velocity; the paper has it fall with it."""
    slow, fast = SPEEDS_KMH
    return FACTOR_RANGE[1] - np.clip((np.asarray(speed_kmh, np.float64) - slow) / (fast - slow), 0.0, 1.0)


def score(mean: float, deviation: float, uniform: float) -> float:
    """The score at quantile ``uniform`` (0..1) of a normal of ``mean`` and ``deviation``, truncated to the
    scale.

    >>> score(3.0, 0.8, 0.5)
    3.0
    """
    normal = NormalDist(mean, deviation)
    low, high = (normal.cdf(x) for x in SCALE)
    if high - low < 1e-12:  # all of it lies beyond one end
        return SCALE[0] if mean < SCALE[0] else SCALE[1]
    p = min(max(low + uniform * (high - low), 1e-15), 1.0 - 1e-15)
    return min(max(normal.inv_cdf(p), SCALE[0]), SCALE[1])


def mean_score(mean: float, deviation: float) -> float:
    """The mean of :func:`score`: a truncated normal's is drawn towards the middle of the scale."""
    normal, unit = NormalDist(mean, deviation), NormalDist()
    weight = normal.cdf(SCALE[1]) - normal.cdf(SCALE[0])
    if weight < 1e-12:
        return SCALE[0] if mean < SCALE[0] else SCALE[1]
    density = [unit.pdf((x - mean) / deviation) for x in SCALE]
    return min(max(mean + deviation * (density[0] - density[1]) / weight, SCALE[0]), SCALE[1])
