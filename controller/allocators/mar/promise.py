"""The promise of equation (7): that at least a share rho of the frames hit, with probability epsilon.

``p`` are the probabilities with which frames hit, float [..., frames]; every function works on the last axis
and gives an array [...]. A frame hits when its VCHR reaches V.

Source: Digital-twin-based QoE-CSP, equations (7), (12) to (14). With independent frames the number of hits
S is Poisson-binomial, and here its distribution is computed exactly. Theorem 1 replaces it by a normal one
(:func:`normal_reliability`). :func:`with_correlation` is for frames that are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, erfc, inf, sqrt
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

TOLERANCE: Final = 1e-12
"""Rounding of a computed reliability is less."""


def least_hits(frames: int, rho: float) -> int:
    """The fewest hits that are a share of at least ``rho`` of the frames.

    ValueError for no frames, and for ``rho`` outside 0..1.

    >>> least_hits(10, 0.7), least_hits(10, 0.71), least_hits(3, 0.0)
    (7, 8, 0)
    """
    if frames < 1:
        raise ValueError("a promise about no frames")
    _check_share("rho", rho)
    # 0.7 * 10 is 7.000000000000001.
    return max(ceil(rho * frames - 1e-9), 0)


def hit_distribution(p: ArrayLike) -> FloatArray:
    """P(S = 0), ..., P(S = frames): the Poisson-binomial distribution, float64 [..., frames + 1].

    The product of the frames' generating functions, pairwise in a tree by FFT: O(n log^2 n), with an absolute
    error of some 1e-16 log2(n) in each entry. ValueError, naming the frame, for a probability that is none.
    """
    return _distribution(_probabilities(p))


def reliability(p: ArrayLike, rho: float) -> FloatArray:
    """P(S >= rho frames), exact for independent frames; float64 [...].

    It is 1 or 0 only where the promise is certain to be kept or missed. ValueError as
    :func:`hit_distribution` and :func:`least_hits`.
    """
    p = _probabilities(p)
    return _but_for_certainty(p, rho, _tail(_distribution(p), least_hits(p.shape[-1], rho)))


def kept(reliability: ArrayLike, epsilon: float) -> BoolArray:
    """Whether a reliability is at least ``epsilon``, but for rounding. ``epsilon`` 1 asks for certainty.

    ValueError for ``epsilon`` outside 0..1.
    """
    _check_share("epsilon", epsilon)
    least = epsilon if epsilon == 1.0 else epsilon - TOLERANCE
    return np.asarray(np.asarray(reliability) >= least)


def theorem_1(p: ArrayLike, rho: float, epsilon: float) -> tuple[FloatArray, float]:
    """The left-hand side [...] and the right-hand side of equation (12): left <= right accepts.

    Where all ``p`` are 0 or 1 the left-hand side divides by 0. The number of hits is certain then: -inf where
    it suffices, inf where it does not. ``epsilon`` 0 and 1 are inf and -inf on the right. ValueError as
    :func:`reliability` and :func:`kept`.
    """
    _check_share("epsilon", epsilon)
    left = _normal_deviate(_probabilities(p), rho, continuity=False)
    if epsilon in (0.0, 1.0):
        return left, inf if epsilon == 0.0 else -inf
    return left, NormalDist().inv_cdf(1.0 - epsilon)


def normal_reliability(p: ArrayLike, rho: float, *, continuity: bool = False) -> FloatArray:
    """P(S >= rho frames) in the normal approximation of equation (14); float64 [...].

    ``continuity`` takes the number of hits for whole, S >= k as S > k - 1/2, which the paper does not.
    ValueError as :func:`reliability`.
    """
    return _upper_normal(_normal_deviate(_probabilities(p), rho, continuity=continuity))


def with_correlation(p: ArrayLike, rho: float, correlation: ArrayLike) -> FloatArray:
    """P(S >= rho frames) where frames hit together; float64 [...].

    ``correlation`` is that of the hits of two frames, the mean over the pairs of those that are judged
    together: Cov(hit_i, hit_j) = correlation sqrt(p_i (1 - p_i) p_j (1 - p_j)). 0 is :func:`reliability`; at
    1 frames of equal p hit or miss all together. With n frames of one p the number of hits has the variance
    of n / (1 + (n - 1) correlation) independent ones.

    S is taken as beta-binomial with the mean and the variance that follow. That is exact for n frames of one
    p whose common level is itself drawn from a beta distribution. Where frames of unequal p are correlated so
    little that the variance is below that of a binomial distribution, S is a mixture of that and of the
    Poisson-binomial, with the same mean and variance.

    Correlation takes reliability from a promise that is kept on average, and gives some to one that is not.
    ``correlation`` broadcasts against [...]. ValueError as :func:`reliability`, and for a correlation outside
    0..1.
    """
    p = _probabilities(p)
    frames = p.shape[-1]
    least = least_hits(frames, rho)
    correlation = np.asarray(correlation, np.float64)
    if not ((correlation >= 0.0) & (correlation <= 1.0)).all():
        raise ValueError("correlation of frames is outside 0..1")
    mean = p.mean(axis=-1)
    of_frames = p * (1.0 - p)
    independent = of_frames.sum(axis=-1)
    variance = independent + correlation * (np.sqrt(of_frames).sum(axis=-1) ** 2 - independent)
    binomial = frames * mean * (1.0 - mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(binomial > 0.0, variance / binomial - 1.0, 0.0)
        weight = np.where(binomial > independent, (variance - independent) / (binomial - independent), 1.0)
    common = np.clip(excess / max(frames - 1, 1), 0.0, 1.0)
    mixed = _tail(_beta_binomial(np.broadcast_to(mean, common.shape), common, frames), least)
    weight = np.where(correlation > 0.0, np.clip(weight, 0.0, 1.0), 0.0)
    if (weight < 1.0).any():
        exact = _tail(_distribution(p), least)
        mixed = exact + weight * (mixed - exact)
    return _but_for_certainty(p, rho, mixed)


def approximation_errors(
    frames: Sequence[int], hit_probability: Sequence[float], rho: Sequence[float], epsilon: float = 0.9
) -> list[dict[str, Any]]:
    """Where Theorem 1 misleads: a row for each number of frames, common hit probability and rho.

    A row has the probability of the promise ``exact``, in the ``normal`` approximation, and with the
    ``continuity`` correction; ``error`` = normal - exact, ``skewness`` of the number of hits, which no normal
    distribution has (negative near p = 1, and shrinking only as 1/sqrt(frames)); what each would accept at
    ``epsilon``, and ``misleads``: "accepts wrongly", "refuses wrongly" or "".
    """
    rows: list[dict[str, Any]] = []
    for n in frames:
        for p in hit_probability:
            same = np.full(n, p)
            sigma = sqrt(n * p * (1.0 - p))
            for share in rho:
                exact, normal = float(reliability(same, share)), float(normal_reliability(same, share))
                accepted, by_theorem = bool(kept(exact, epsilon)), bool(kept(normal, epsilon))
                rows.append(
                    {
                        "frames": n,
                        "hit_probability": p,
                        "rho": share,
                        "exact": exact,
                        "normal": normal,
                        "continuity": float(normal_reliability(same, share, continuity=True)),
                        "error": normal - exact,
                        "skewness": (1.0 - 2.0 * p) / sigma if sigma else 0.0,
                        "accepted": accepted,
                        "accepted_by_theorem_1": by_theorem,
                        "misleads": ""
                        if accepted == by_theorem
                        else "accepts wrongly"
                        if by_theorem
                        else "refuses wrongly",
                    }
                )
    return rows


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} {value!r} is outside 0..1")


def _probabilities(p: ArrayLike) -> FloatArray:
    array = np.asarray(p, np.float64)
    if not array.ndim or not array.shape[-1]:
        raise ValueError("hit probabilities of no frames")
    for at in np.argwhere(~((array >= 0.0) & (array <= 1.0)))[:1].tolist():
        raise ValueError(f"hit probability {array[tuple(at)]} of frame {at[-1]} is outside 0..1")
    return array


def _distribution(p: FloatArray) -> FloatArray:
    frames = p.shape[-1]
    factors = np.stack([1.0 - p, p], axis=-1)
    while factors.shape[-2] > 1:
        if factors.shape[-2] % 2:
            one = np.zeros((*factors.shape[:-2], 1, factors.shape[-1]))
            one[..., 0] = 1.0
            factors = np.concatenate([factors, one], axis=-2)
        degree = 2 * (factors.shape[-1] - 1)
        size = 1 << degree.bit_length()
        transformed = np.fft.rfft(factors, size)
        factors = np.fft.irfft(transformed[..., ::2, :] * transformed[..., 1::2, :], size)[..., : degree + 1]
    return np.maximum(factors[..., 0, : frames + 1], 0.0)


def _tail(distribution: FloatArray, least: int) -> FloatArray:
    """P(S >= least), from the side that has the smaller sum of rounding."""
    above = distribution[..., least:].sum(axis=-1)
    return np.where(above < 0.5, above, 1.0 - distribution[..., :least].sum(axis=-1))


def _but_for_certainty(p: FloatArray, rho: float, probability: FloatArray) -> FloatArray:
    """1 and 0 where the promise is certain to be kept or missed, and nowhere else."""
    least = least_hits(p.shape[-1], rho)
    certain = np.count_nonzero(p == 1.0, axis=-1) >= least
    impossible = np.count_nonzero(p > 0.0, axis=-1) < least
    below_1 = np.clip(probability, np.nextafter(0.0, 1.0), np.nextafter(1.0, 0.0))
    return np.where(certain, 1.0, np.where(impossible, 0.0, below_1))


def _normal_deviate(p: FloatArray, rho: float, *, continuity: bool) -> FloatArray:
    frames = p.shape[-1]
    least = least_hits(frames, rho)
    mean, sigma = p.sum(axis=-1), np.sqrt((p * (1.0 - p)).sum(axis=-1))
    threshold = least - 0.5 if continuity else rho * frames
    with np.errstate(divide="ignore", invalid="ignore"):
        deviate = (threshold - mean) / sigma
    return np.where(sigma > 0.0, deviate, np.where(mean >= least - 0.5, -inf, inf))


def _upper_normal(z: FloatArray) -> FloatArray:
    """P(Z >= z) of a standard normal Z."""
    flat = [0.5 * erfc(value / sqrt(2.0)) for value in z.ravel().tolist()]
    return np.array(flat, np.float64).reshape(z.shape)


def _beta_binomial(mean: FloatArray, common: FloatArray, frames: int) -> FloatArray:
    """P(S = 0), ..., P(S = frames), [..., frames + 1]: hits at a level with a beta distribution of this mean,
    two of them correlated by ``common``, 0..1 (1: all or none)."""
    hits = np.arange(frames)
    # At 1 a ratio is 0 or infinite; the nearest smaller number gives the same to within rounding.
    below_1 = np.nextafter(1.0, 0.0)
    mean, common = np.minimum(mean, below_1)[..., None], np.minimum(common, below_1)[..., None]
    # P(S = k + 1) / P(S = k), with numerator and denominator multiplied by common.
    up = (frames - hits) * (hits * common + mean * (1.0 - common))
    down = (hits + 1) * ((frames - 1 - hits) * common + (1.0 - mean) * (1.0 - common))
    with np.errstate(divide="ignore"):
        ratio = np.log(up) - np.log(down)
    log = np.concatenate([np.zeros((*ratio.shape[:-1], 1)), np.cumsum(ratio, axis=-1)], axis=-1)
    weights = np.exp(log - log.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))
