"""The neighbour bootstrap: it follows a law, stays within what was seen, and beats what is simpler."""

from __future__ import annotations

import numpy as np
import pytest

from controller.twins.environment import NeighbourBootstrap, crps
from wire.definitions.mobility import walks

STEP_S, TRAIN, FUTURES = 30, 200, 64


def speeds(seed: int, users: int = 12, steps: int = 320) -> np.ndarray:
    _, kmh = walks(np.random.default_rng(seed), users, steps * STEP_S, (1000.0, 600.0))
    return kmh[:, ::STEP_S][:, :steps]


def autoregressive(series: np.ndarray, rng: np.random.Generator, last: np.ndarray, steps: int) -> np.ndarray:
    """Futures of a first-order process on the logit of the bounds 1 and 41 km/h, with normal innovations."""
    y = np.log((series - 1.0) / (41.0 - series))
    mean = y.mean()
    a, b = y[:, :-1] - mean, y[:, 1:] - mean
    phi = (a * b).sum() / (a * a).sum()
    sd = (b - phi * a).std()
    now = np.repeat((np.log((last - 1.0) / (41.0 - last)) - mean)[:, None], FUTURES, axis=1)
    out = np.empty((*now.shape, steps))
    for step in range(steps):
        now = phi * now + sd * rng.standard_normal(now.shape)
        out[..., step] = 1.0 + 40.0 / (1.0 + np.exp(-(now + mean)))
    return out


def test_it_scores_better_on_speeds_than_what_is_simpler() -> None:
    scores: dict[str, list[np.ndarray]] = {}
    covered = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        series = speeds(seed)
        train = series[:, :TRAIN]
        bootstrap = NeighbourBootstrap.fit(train)
        for now in range(TRAIN - 1, series.shape[1] - 6, 10):
            last, ahead = series[:, now], series[:, now + 1 : now + 7]
            futures = {
                "bootstrap": bootstrap.simulate(rng, last, 6, FUTURES),
                "autoregressive": autoregressive(train, rng, last, 6),
                "persistence": np.broadcast_to(last[:, None, None], (12, FUTURES, 6)),
                "climatology": rng.choice(train.ravel(), (12, FUTURES, 6)),
            }
            for name, values in futures.items():
                score = crps(np.moveaxis(values, 1, 2), ahead).mean(axis=0)
                scores.setdefault(name, []).append(score)
            low, high = np.quantile(futures["bootstrap"], (0.1, 0.9), axis=1)
            covered.append((low <= ahead) & (ahead <= high))
    mean = {name: np.mean(rows, axis=0) for name, rows in scores.items()}
    assert (mean["bootstrap"][:2] < 0.95 * mean["autoregressive"][:2]).all()
    assert (mean["bootstrap"] < 0.95 * mean["climatology"])[:3].all()
    assert (mean["bootstrap"] < 0.75 * mean["persistence"]).all()
    assert 0.72 < np.mean(covered) < 0.86


def test_it_follows_an_autoregressive_process() -> None:
    rng = np.random.default_rng(0)
    x = np.zeros((8, 1500))
    for t in range(1, 1500):
        x[:, t] = 0.8 * x[:, t - 1] + 0.6 * rng.standard_normal(8)
    futures = NeighbourBootstrap.fit(x).simulate(rng, np.full(8, 1.5), 20, 2000)
    assert futures[..., 0].mean() == pytest.approx(1.2, abs=0.1)
    assert futures[..., 0].std() == pytest.approx(0.6, abs=0.06)
    assert futures[..., -1].mean() == pytest.approx(0.0, abs=0.15)
    assert futures[..., -1].std() == pytest.approx(1.0, abs=0.1)


def test_it_stays_within_what_was_seen_also_from_beyond_it() -> None:
    series = speeds(0)
    last = np.linspace(-1e9, 1e9, 12)
    futures = NeighbourBootstrap.fit(series).simulate(np.random.default_rng(0), last, 10, 50)
    assert futures.shape == (12, 50, 10)
    assert np.isin(futures, series).all()


def test_a_user_draws_from_its_own_as_far_as_it_has_been_seen() -> None:
    series = np.full((3, 61), np.nan)
    series[0] = 5.0 + np.random.default_rng(0).random(61)
    series[1, :21] = 1.0 + np.random.default_rng(1).random(21)
    last = np.full(3, 5.9)

    def share(weight: float) -> np.ndarray:
        fit = NeighbourBootstrap.fit(series, weight)
        first = fit.simulate(np.random.default_rng(0), last, 1, 4000)[..., 0]
        return (first > 3.0).mean(axis=1)

    # Near to 5.9 there are none but the first user's pairs, if they may be another's.
    assert share(0.0) == pytest.approx([1.0, 0.0, 1.0])
    assert share(60.0) == pytest.approx([1.0, 0.75, 1.0], abs=0.03)
    assert NeighbourBootstrap.fit(series, 60.0).own == pytest.approx([0.5, 0.25, 0.0])


def test_a_gap_makes_no_pair_and_a_user_of_whom_nothing_is_known_gets_those_of_all() -> None:
    series = np.array([[1.0, 2.0, np.nan, 9.0], [np.nan] * 4])
    fit = NeighbourBootstrap.fit(series)
    assert fit.before.tolist() == [1.0, 1.0] and fit.after.tolist() == [2.0, 2.0]
    assert (fit.simulate(np.random.default_rng(0), np.array([8.0, 1.0]), 3, 5) == 2.0).all()
    spread = NeighbourBootstrap.fit(np.arange(100.0)[None, :] % 10)
    unknown = spread.simulate(np.random.default_rng(0), np.array([np.nan]), 1, 3000, np.array([-1]))
    assert np.bincount(unknown.astype(int).ravel(), minlength=10) / 3000 == pytest.approx(0.1, abs=0.03)


def test_it_is_the_same_under_its_generator_and_as_arrays() -> None:
    fit = NeighbourBootstrap.fit(speeds(0).astype(np.float32))
    restored = NeighbourBootstrap.of_arrays(fit.arrays())
    last = speeds(0)[:, -1]
    a, b, c = (
        f.simulate(np.random.default_rng(s), last, 5, 9) for f, s in ((fit, 1), (restored, 1), (fit, 2))
    )
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_the_score_of_an_ensemble() -> None:
    assert crps(np.array([[2.0]]), np.array([5.0])) == pytest.approx([3.0])
    assert crps(np.array([0.0, 4.0]), np.array(1.0)) == pytest.approx(2.0 - 1.0)
    # Of the standard normal at 0: 2 phi(0) - 1 / sqrt(pi).
    many = np.random.default_rng(0).standard_normal(200_000)
    assert crps(many, np.array(0.0)) == pytest.approx(0.2337, abs=0.005)


def test_what_it_cannot_be_fitted_to_or_asked() -> None:
    for bad, named in (
        (np.zeros(3), r"not \[users, steps\]"),
        (np.array([[0.0, np.inf]]), "not finite"),
        (np.array([[0.0], [1.0]]), "no value follows another"),
        (np.array([[0.0, np.nan, 1.0]]), "no value follows another"),
    ):
        with pytest.raises(ValueError, match=named):
            NeighbourBootstrap.fit(bad)
    with pytest.raises(ValueError, match="below 0"):
        NeighbourBootstrap.fit(np.zeros((1, 2)), -1.0)
    fit = NeighbourBootstrap.fit(np.zeros((2, 3)))
    for last, users in ((np.zeros(3), None), (np.zeros(1), np.array([2])), (np.zeros(1), np.array([-2]))):
        with pytest.raises(ValueError, match="of whom 2 are known"):
            fit.simulate(np.random.default_rng(0), last, 1, 1, users)


def test_arrays_that_are_none() -> None:
    arrays = NeighbourBootstrap.fit(np.array([[0.0, 1.0, 2.0], [np.nan] * 3])).arrays()
    with pytest.raises(KeyError, match="first"):
        NeighbourBootstrap.of_arrays({n: a for n, a in arrays.items() if n != "first"})
    for name, wrong in (
        ("before", arrays["before"][:-1]),
        ("first", np.array([0, 2])),
        ("first", np.array([0, 3, 2])),
        ("first", np.array([0, 2, 4])),
        ("after", np.full(4, np.nan)),
        ("own", np.array([0.5, 0.5])),
        ("own", np.array([2.0, 0.0])),
    ):
        with pytest.raises(ValueError, match="neighbour bootstrap"):
            NeighbourBootstrap.of_arrays({**arrays, name: np.asarray(wrong)})
