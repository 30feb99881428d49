"""The promise about a share of the frames: exact, by Theorem 1, and with frames that hit together."""

from __future__ import annotations

import doctest
from itertools import product
from math import comb, erf, inf, sqrt

import numpy as np
import pytest

from controller.allocators.mar import promise
from controller.allocators.mar.promise import (
    hit_distribution,
    kept,
    least_hits,
    normal_reliability,
    reliability,
    theorem_1,
    with_correlation,
)

RNG = np.random.default_rng(7)


def convolved(p: np.ndarray) -> np.ndarray:
    """The same distribution frame by frame: sums of positive terms."""
    out = np.ones(1)
    for q in p:
        out = np.convolve(out, [1.0 - q, q])
    return out


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(promise).failed == 0


def test_by_enumeration() -> None:
    p = np.array([0.9, 0.2, 0.65, 0.5, 0.99])
    expected = np.zeros(6)
    for hits in product((0, 1), repeat=5):
        expected[sum(hits)] += np.prod(np.where(hits, p, 1.0 - p))
    assert np.abs(hit_distribution(p) - expected).max() < 1e-15
    assert reliability(p, 0.6) == pytest.approx(expected[3:].sum(), abs=1e-15)
    assert reliability(p, 0.61) == pytest.approx(expected[4:].sum(), abs=1e-15)


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 64, 65, 270, 3000])
def test_as_exact_as_convolution(frames: int) -> None:
    p = RNG.beta(5.0, 1.0, frames)
    expected = convolved(p)
    got = hit_distribution(p)
    assert got.shape == (frames + 1,) and np.abs(got - expected).max() < 1e-14
    for rho in (0.5, 0.8, 0.85, 0.95):
        exact = expected[least_hits(frames, rho) :].sum()
        assert abs(reliability(p, rho) - exact) < promise.TOLERANCE


def test_a_binomial_distribution_in_whole_numbers() -> None:
    # P(S >= 8 of 10) at p = 1/2.
    assert reliability(np.full(10, 0.5), 0.8) == pytest.approx(sum(comb(10, k) for k in (8, 9, 10)) / 1024)


def test_users_and_frequencies_at_once() -> None:
    p = RNG.beta(4.0, 1.0, (3, 2, 40))
    for function in (
        lambda p: reliability(p, 0.8),
        lambda p: normal_reliability(p, 0.8),
        lambda p: with_correlation(p, 0.8, 0.2),
        lambda p: theorem_1(p, 0.8, 0.9)[0],
    ):
        got = function(p)
        assert got.shape == (3, 2) and got[2, 1] == pytest.approx(float(function(p[2, 1])), abs=1e-13)


def test_the_least_number_of_hits_is_whole() -> None:
    for frames in range(1, 400):
        for percent in range(101):
            assert least_hits(frames, percent / 100) == -(-percent * frames // 100)


def test_certain_promises() -> None:
    p = np.array([1.0, 1.0, 0.0, 1.0])
    for rho, met in ((0.75, 1.0), (0.76, 0.0)):
        assert reliability(p, rho) == normal_reliability(p, rho) == with_correlation(p, rho, 0.3) == met
        for epsilon in (0.0, 0.5, 1.0):
            left, right = theorem_1(p, rho, epsilon)
            assert bool(left <= right) == bool(kept(met, epsilon)) == (met >= epsilon)
    # Near certainty is none: epsilon 1 does not take it, any other does.
    near = np.full(300, 0.999)
    assert reliability(near, 0.5) < 1.0 and reliability(near, 1.0) == pytest.approx(0.999**300)
    assert not kept(reliability(near, 0.5), 1.0) and kept(reliability(near, 0.5), 0.999999)
    assert reliability(near, 0.0) == 1.0 and kept(0.0, 0.0)
    assert reliability(np.full(300, 1e-3), 1.0) > 0.0
    # Enough frames that are certain, whatever the others do.
    assert with_correlation(np.array([1.0, 1.0, 0.3]), 0.6, 1.0) == 1.0
    assert with_correlation(np.array([0.0, 0.0, 0.9]), 0.6, 0.5) == 0.0


def test_a_reliability_that_is_epsilon_is_kept() -> None:
    assert kept(reliability([0.9], 1.0), 0.9)
    assert kept(reliability([0.5, 0.5], 1.0), 0.25) and not kept(reliability([0.5, 0.5], 1.0), 0.2501)


def test_theorem_1_as_printed() -> None:
    p = np.array([0.9, 0.7, 0.8, 0.95])
    left, right = theorem_1(p, 0.8, 0.9)
    assert left == pytest.approx((3.2 - 3.35) / sqrt(0.09 + 0.21 + 0.16 + 0.0475))
    assert right == pytest.approx(-1.2815515655)
    assert normal_reliability(p, 0.8) == pytest.approx(0.5 - 0.5 * erf(float(left) / sqrt(2)))
    # The test and the probability say the same.
    many = RNG.beta(8.0, 1.5, (200, 60))
    for epsilon in (0.1, 0.5, 0.9):
        left, right = theorem_1(many, 0.8, epsilon)
        assert np.array_equal(left <= right, kept(normal_reliability(many, 0.8), epsilon))
    assert theorem_1(p, 0.8, 0.0)[1] == inf and theorem_1(p, 0.8, 1.0)[1] == -inf


def test_where_theorem_1_misleads() -> None:
    rows = promise.approximation_errors([10, 100, 1000], [0.8, 0.9, 0.97], [0.8, 0.9, 0.95], epsilon=0.9)
    assert len(rows) == 27
    worst = {n: max(abs(r["error"]) for r in rows if r["frames"] == n) for n in (10, 100, 1000)}
    # It has no continuity correction: with p = rho = .9 it says 1/2 whatever the number of frames.
    assert worst[10] > 0.2 > worst[100] > 0.05 > worst[1000]
    (row,) = (r for r in rows if (r["frames"], r["hit_probability"], r["rho"]) == (10, 0.9, 0.8))
    assert row["exact"] == pytest.approx(0.9298, abs=1e-4) and row["normal"] == pytest.approx(0.854, abs=1e-3)
    assert row["misleads"] == "refuses wrongly" and row["accepted"] and not row["accepted_by_theorem_1"]
    assert abs(row["continuity"] - row["exact"]) < abs(row["error"])
    # Near p = 1 hits are skewed: the tail of too few is longer than a normal one, and promises of high
    # reliability are accepted that are not kept.
    (row,) = promise.approximation_errors([270], [0.97], [0.93], epsilon=0.9995)
    assert row["skewness"] < -0.3 and row["exact"] < 0.9995 < row["normal"]
    assert row["misleads"] == "accepts wrongly"
    (row,) = promise.approximation_errors([5], [1.0], [0.8])
    assert row["exact"] == row["normal"] == 1.0 and row["skewness"] == 0.0 and row["misleads"] == ""


def test_correlation_0_is_independence_and_1_all_or_nothing() -> None:
    p = RNG.beta(5.0, 1.0, (4, 50))
    assert np.array_equal(with_correlation(p, 0.8, 0.0), reliability(p, 0.8))
    # Hardly correlated is nearly independent, though the p differ.
    assert np.abs(with_correlation(p, 0.8, 1e-9) - reliability(p, 0.8)).max() < 1e-6
    for rho in (0.01, 0.5, 0.8, 1.0):
        assert with_correlation(np.full(270, 0.85), rho, 1.0) == pytest.approx(0.85, abs=1e-9)
    assert with_correlation(np.full(1, 0.85), 0.8, 0.4) == pytest.approx(0.85)


def test_correlated_frames_against_a_simulation() -> None:
    # Frames of one p whose common level is beta-distributed: two hits are correlated by 1 / (a + b + 1).
    frames, mean, correlation = 60, 0.85, 0.1
    a, b = mean * (1 / correlation - 1), (1 - mean) * (1 / correlation - 1)
    hits = RNG.binomial(frames, RNG.beta(a, b, 400_000))
    for rho in (0.5, 0.7, 0.8, 0.9, 1.0):
        expected = (hits >= least_hits(frames, rho)).mean()
        assert with_correlation(np.full(frames, mean), rho, correlation) == pytest.approx(expected, abs=0.004)


def test_the_mean_and_the_variance_of_correlated_hits() -> None:
    p = RNG.beta(5.0, 1.0, 40)
    deviation = np.sqrt(p * (1 - p))
    for correlation in (1e-4, 1e-3, 0.01, 0.1, 0.6):
        at_least = np.array([float(with_correlation(p, k / 40, correlation)) for k in range(41)])
        at_least[0] = 1.0
        distribution = at_least - np.append(at_least[1:], 0.0)
        k = np.arange(41)
        mean = (k * distribution).sum()
        wanted = (deviation**2).sum() + correlation * (deviation.sum() ** 2 - (deviation**2).sum())
        assert mean == pytest.approx(p.sum(), abs=1e-6)
        assert ((k - mean) ** 2 * distribution).sum() == pytest.approx(wanted, rel=1e-6)


def test_correlation_takes_from_a_promise_that_is_kept_on_average() -> None:
    correlation = np.array([0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 1.0])
    assert (np.diff(with_correlation(np.full(270, 0.85), 0.8, correlation)[:5]) < 0).all()
    assert (np.diff(with_correlation(np.full(270, 0.75), 0.8, correlation)) > 0).all()


@pytest.mark.parametrize(
    ("p", "named"),
    [
        ([], "no frames"),
        (0.5, "no frames"),
        (np.zeros((3, 0)), "no frames"),
        ([0.5, np.nan], "nan of frame 1"),
        ([0.5, 0.5, 1.5], "1.5 of frame 2"),
        ([[0.5], [-0.1]], "-0.1 of frame 0"),
    ],
)
def test_probabilities_that_are_none_are_refused(p: object, named: str) -> None:
    for function in (
        hit_distribution,
        lambda p: reliability(p, 0.5),
        lambda p: normal_reliability(p, 0.5),
        lambda p: with_correlation(p, 0.5, 0.1),
        lambda p: theorem_1(p, 0.5, 0.5),
    ):
        with pytest.raises(ValueError, match=named):
            function(p)  # type: ignore[operator]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_that_are_none_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="rho"):
        reliability([0.5], share)
    with pytest.raises(ValueError, match="epsilon"):
        kept(0.5, share)
    with pytest.raises(ValueError, match="epsilon"):
        theorem_1([0.5], 0.5, share)
    with pytest.raises(ValueError, match="correlation"):
        with_correlation([0.5], 0.5, share)
    with pytest.raises(ValueError, match="no frames"):
        least_hits(0, 0.5)
