"""Short packets: the rate of a code of finite blocklength, and the probability that its block is lost.

In the normal approximation a block of n channel uses at signal-to-noise ratio ``snr`` carries

    n ln(1 + snr) - sqrt(n V) Q^-1(error)   nat,   V = 1 - (1 + snr)^-2,

so that ``phi`` seconds of ``b B`` Hz are n = phi b B channel uses at the rate of equation (1). The same law
read the other way gives the probability that a block of given size is lost. Signal-to-noise ratios are
linear.

Source: Edge Intelligence-based URLLC for Digital Twin-enabled Metaverse, equation (1); Polyanskiy, Poor and
Verdu, Channel coding rate in the finite blocklength regime, 2010, equation (296). The approximation leaves
out terms of the order of ln(n) / 2 and is loose for n below some hundred.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LN2: Final = math.log(2.0)


def q_function(x: float) -> float:
    """Q(x): the probability that a standard normal exceeds ``x``."""
    return 0.5 * math.erfc(x / math.sqrt(2.0))


def inverse_q(probability: float) -> float:
    """The x of Q(x) = ``probability``; ValueError outside (0, 1).

    >>> round(inverse_q(1e-7), 4)
    5.1993
    """
    if not 0.0 < probability < 1.0:
        raise ValueError(f"probability {probability!r} is outside (0, 1)")
    return -NormalDist().inv_cdf(probability)


def dispersion(snr: Any) -> FloatArray:
    """V of the complex Gaussian channel in nat^2 by channel use, below 1; ``snr`` of any shape."""
    ratio = np.asarray(snr, np.float64)
    return np.asarray(ratio * (2.0 + ratio) / (1.0 + ratio) ** 2)


def rate_bps(bandwidth_hz: Any, snr: Any, interval_s: float, error: float) -> FloatArray:
    """Equation (1) in bit/s, for bandwidths above 0 and SNRs that broadcast; 0 where noise leaves nothing.

    ``snr`` is the ratio within the bandwidth, ``interval_s`` the transmission time interval phi and ``error``
    the decoding error probability. ValueError for an interval that is not positive and a probability outside
    (0, 1).
    """
    if not interval_s > 0.0:
        raise ValueError(f"transmission interval of {interval_s!r} s is not positive")
    hz, ratio = np.asarray(bandwidth_hz, np.float64), np.asarray(snr, np.float64)
    loss = np.sqrt(dispersion(ratio) / (interval_s * hz)) * inverse_q(error)
    return np.asarray(np.maximum(hz / LN2 * (np.log1p(ratio) - loss), 0.0))


def error_probability(bits: float, channel_uses: float, snr: float) -> float:
    """The probability that a block of ``bits`` in ``channel_uses`` is lost; 1 without channel uses or signal.

    Scalars and :mod:`math` alone, as the compiled cell runs this very function.
    """
    if bits <= 0.0:
        return 0.0
    if channel_uses <= 0.0 or snr <= 0.0:
        return 1.0
    margin = math.log1p(snr) - bits * math.log(2.0) / channel_uses
    return 0.5 * math.erfc((1.0 + snr) * math.sqrt(channel_uses / (2.0 * snr * (2.0 + snr))) * margin)
