"""Bins of VCHR, errors of prediction with partial pooling, and the probability of a hit."""

from __future__ import annotations

import numpy as np
import pytest

from controller.allocators.mar.features import DRAWS, NAMES, departures, features
from controller.allocators.mar.traces import observe
from controller.allocators.mar.twin import (
    CORRELATED_FRAMES,
    PRIOR_WEIGHT,
    ErrorModel,
    Model,
    bin_edges,
    bins_of,
    every,
    rows,
    train,
)
from controller.twins.softmax import Training
from tests.allocators.mar.people import BOX, walkers

FIELD = (90.0, 90.0)
SHORT = Training(hidden=8, steps=60)


# ---- bins ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vchr", "bins", "below"),
    [
        (0.8, 10, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        (0.75, 4, [0, 0.25, 0.5, 0.75]),
        (0.8, 4, [0, 0.25, 0.5, 0.75, 0.8]),
        (0.0, 3, [0, 1 / 3, 2 / 3]),
        (1.0, 3, [0, 1 / 3, 2 / 3, 1]),
        (0.3 + 1e-13, 10, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        (0.3 - 1e-13, 10, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        (1e-12, 2, [0, 0.5]),
        (1 - 1e-12, 2, [0, 0.5, 1]),
    ],
)
def test_edges_are_multiples_and_v(vchr: float, bins: int, below: list[float]) -> None:
    edges = bin_edges(vchr, bins)
    assert edges[:-1] == pytest.approx(below) and (np.diff(edges) > 0).all()
    assert edges[0] == 0.0 and 1.0 < edges[-1] < 1.0 + 1e-15


@pytest.mark.parametrize("vchr", [0.0, 0.05, 0.3, 0.7, 0.75, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("bins", [2, 3, 10, 32])
def test_every_rate_is_in_the_bin_that_holds_it_and_v_parts_hits(vchr: float, bins: int) -> None:
    edges = bin_edges(vchr, bins)
    cells = np.arange(1, 33)
    rates = np.unique(np.concatenate([np.arange(n + 1) / n for n in cells]))
    got = bins_of(rates, edges)
    assert got.min() == 0 and got.max() == len(edges) - 2
    assert ((edges[got] <= rates + 1e-9) & (rates < edges[got + 1])).all()
    model = Model.__new__(Model)
    object.__setattr__(model, "edges", edges)
    object.__setattr__(model, "vchr", vchr)
    assert model.hit(np.eye(len(edges) - 1)[got]).tolist() == (rates >= vchr - 1e-9).astype(float).tolist()


def test_1_is_in_the_highest_bin_and_not_a_number_in_none() -> None:
    edges = bin_edges(0.8, 10)
    assert bins_of(np.array([1.0, 0.0, np.nan, 0.8, 0.7999]), edges).tolist() == [9, 0, -1, 8, 7]
    assert bins_of(np.array([0.999, 1.0]), bin_edges(1.0, 10)).tolist() == [9, 10]


# ---- errors -------------------------------------------------------------------------------------------

SIZES = np.array([0.02, 0.01, 0.02, 2.0, 5.0, 1.0])


def errors(users: int, frames: int, scale: np.ndarray, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed).standard_normal((users, 1, frames, 6))
    return draw * SIZES * scale[:, None, None, None]


def test_who_has_many_errors_has_its_own_variance_and_who_has_none_the_common() -> None:
    scale = np.array([1.0, 4.0, 1.0])
    error = errors(3, 60_000, scale)
    known = np.ones((3, 60_000), np.bool_)
    known[2] = False
    model = ErrorModel.of(error, known)
    common = np.diagonal(model.covariance[0])
    assert common == pytest.approx(SIZES**2 * (1 + 16) / 2, rel=0.05)
    assert model.variance[0, 0] == pytest.approx(SIZES**2, rel=0.06)
    assert model.variance[1, 0] == pytest.approx(16 * SIZES**2, rel=0.06)
    assert model.variance[2, 0] == pytest.approx(common)


def test_the_weight_of_ones_own_is_that_of_its_independent_errors() -> None:
    error = errors(2, 150, np.array([1.0, 3.0]))
    model = ErrorModel.of(error, np.ones((2, 150), np.bool_))
    own, common = (error**2).mean(axis=2)[:, 0], np.diagonal(model.covariance[0])
    n = 150 / CORRELATED_FRAMES
    assert model.variance[:, 0] == pytest.approx((n * own + PRIOR_WEIGHT * common) / (n + PRIOR_WEIGHT))


def test_unknown_errors_change_nothing() -> None:
    error = errors(2, 100, np.ones(2))
    known = np.random.default_rng(1).random((2, 100)) < 0.5
    other = np.where(known[:, None, :, None], error, 1e3)
    a, b = ErrorModel.of(error, known), ErrorModel.of(other, known)
    assert np.array_equal(a.variance, b.variance) and np.array_equal(a.covariance, b.covariance)
    with pytest.raises(ValueError, match="no error of a prediction is known"):
        ErrorModel.of(error, np.zeros((2, 100), np.bool_))


def test_deviations_have_ones_own_variances_and_everybodys_correlations() -> None:
    rng = np.random.default_rng(2)
    mixed = rng.standard_normal((2, 2, 4000, 6)) @ rng.standard_normal((6, 6)) * SIZES
    mixed[1] *= 3.0
    model = ErrorModel.of(mixed, np.ones((2, 4000), np.bool_))
    factor = model.deviation()
    assert factor.shape == (2, 2, 6, 6) and np.array_equal(factor, np.tril(factor))
    covariance = factor @ factor.swapaxes(-1, -2)
    assert np.diagonal(covariance, axis1=-2, axis2=-1) == pytest.approx(model.variance)
    for u in range(2):
        sd = np.sqrt(np.diagonal(covariance[u, 0]))
        everybody = np.sqrt(np.diagonal(model.covariance[0]))
        correlation = model.covariance[0] / np.outer(everybody, everybody)
        assert covariance[u, 0] / np.outer(sd, sd) == pytest.approx(correlation, abs=1e-9)


def test_who_never_moves_has_a_deviation() -> None:
    model = ErrorModel.of(np.zeros((2, 1, 50, 6)), np.ones((2, 50), np.bool_))
    assert np.isfinite(model.deviation()).all() and (np.diagonal(model.deviation()[0, 0]) > 0).all()


# ---- the network's view -------------------------------------------------------------------------------


def test_departures_are_antithetic_and_everywhere_the_same() -> None:
    d = departures()
    assert d.shape == (DRAWS, 6) and np.array_equal(d, departures())
    assert d.sum(axis=0) == pytest.approx(0.0)


def test_features_of_one_frame_are_those_of_many() -> None:
    observed = observe(walkers(2, 60), (2.0, 30.0), BOX)
    deviation = ErrorModel.of(observed.error, np.ones((2, 30), np.bool_)).deviation()
    x = rows(observed, deviation, np.arange(30), BOX, FIELD, 0.8)
    assert x.shape == (2, 2, 30, len(NAMES)) and np.isfinite(x).all()
    one = features(observed.situation[1, 0, 7], np.array(2.0), deviation[1, 0], BOX, FIELD, 0.8)
    assert one == pytest.approx(x[1, 0, 7])
    # The shares of departures fall with their scale, on average.
    at = {name: x[..., i].mean() for i, name in enumerate(NAMES)}
    assert at["mean vchr at 0.5 sd"] > at["mean vchr at 1 sd"] > at["mean vchr at 2 sd"]
    assert np.array_equal(x[..., -1], np.broadcast_to(np.log([[2.0], [30.0]]), (2, 2, 30)))


def test_where_a_user_stands_and_how_often_it_turned_make_no_difference() -> None:
    """Features are geometry: they are the same elsewhere, and a whole turn further."""
    observed = observe(walkers(1, 60), (5.0,), BOX)
    moved = walkers(1, 60)
    moved[..., 0] += 3.0
    moved[..., 4] += 360.0
    there = type(BOX)(BOX.x + 3.0, BOX.z)
    elsewhere = observe(moved, (5.0,), there)
    deviation = ErrorModel.of(observed.error, np.ones((1, 30), np.bool_)).deviation()
    a = rows(observed, deviation, np.arange(30), BOX, FIELD, 0.8)
    b = rows(elsewhere, deviation, np.arange(30), there, FIELD, 0.8)
    # Rounding may move a ray over an edge.
    assert np.isclose(a, b, atol=1e-6).mean() > 0.99


def test_a_model_gives_the_probability_of_each_bin_and_of_a_hit() -> None:
    observed = observe(walkers(4, 90), (2.0, 10.0), BOX)
    observed.vchr[0, 0, :5] = np.nan  # left out
    deviation = ErrorModel.of(observed.error, np.ones((4, 60), np.bool_)).deviation()
    for vchr in (0.0, 0.8, 1.0):
        edges = bin_edges(vchr, 5)
        x = rows(observed, deviation, np.arange(60), BOX, FIELD, vchr)
        network = train(x, observed.vchr, edges, seed=1, training=SHORT)
        model = Model(network, edges, vchr, BOX)
        p = model.probabilities(observed.situation, np.array([[[2.0], [10.0]]]), deviation[:, :, None])
        assert p.shape == (4, 2, 60, len(edges) - 1) and p.sum(axis=-1) == pytest.approx(1.0)
        hit = model.hit(p)
        assert hit == pytest.approx(p[..., edges[:-1] >= vchr - 1e-9].sum(axis=-1))
        truth = observed.vchr[np.isfinite(observed.vchr)] >= vchr - 1e-9
        assert hit.mean() == pytest.approx(truth.mean(), abs=0.1)


def test_without_a_frame_to_render_there_is_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        train(np.zeros((3, 4)), np.full(3, np.nan), bin_edges(0.8, 4))


def test_every_so_many() -> None:
    assert every([3, 4, 5, 9, 10], 2).tolist() == [3, 5, 10]
    assert every([], 3).tolist() == []
