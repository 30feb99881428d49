"""How far a promise may be trusted: learned from windows that hit and miss together."""

from __future__ import annotations

import json
from statistics import NormalDist

import numpy as np
import pytest

from controller.allocators.mar.margin import LEAST_WINDOWS, Margin, deviate
from controller.allocators.mar.promise import normal_reliability

RHO = 0.8
FRAMES = 90
SHARES = np.linspace(0.02, 0.98, 49)


def windows(
    n: int, seed: int, *, optimism: float = 0.0, together: int = 15, wander: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """Of n windows of :data:`FRAMES` frames what is expected of them, and the share that hit.

    ``together`` frames hit or miss as one; the true probability is ``optimism`` logits below what is
    expected, ``wander`` more or less.
    """
    rng = np.random.default_rng(seed)
    expected = rng.beta(6.0, 1.5, n)
    logit = np.log(expected / (1 - expected)) - optimism + wander * rng.standard_normal(n)
    level = 1 / (1 + np.exp(-logit))
    hits = rng.random((n, FRAMES // together)) < level[:, None]
    return expected, hits.mean(axis=1)


def learned(n: int, seed: int, **more: float) -> Margin:
    expected, share = windows(n, seed, **more)  # type: ignore[arg-type]
    margin = Margin.learn(deviate(expected, RHO)[:, None], (share >= RHO - 1e-9)[:, None].astype(float))
    assert margin is not None
    return margin


def test_the_deviate_is_that_of_equation_12_but_for_the_number_of_frames() -> None:
    for p in (0.6, 0.8, 0.93):
        d = float(deviate(p, RHO))
        assert NormalDist().cdf(d * FRAMES**0.5) == pytest.approx(
            float(normal_reliability(np.full(FRAMES, p), RHO))
        )
    assert np.isfinite(deviate([0.0, 1.0], 0.5)).all() and np.isnan(deviate(np.nan, 0.5))
    assert deviate(np.full((2, 3), 0.8), 0.8) == pytest.approx(np.zeros((2, 3)))


@pytest.mark.parametrize("rho", [0.3, 0.8, 1.0])
def test_reliability_rises_with_what_is_expected(rho: float) -> None:
    margin = learned(200, 1)
    reliability = margin.reliability(SHARES, rho)
    assert (np.diff(reliability) >= 0.0).all() and reliability[-1] > reliability[0]
    assert ((reliability >= 0.0) & (reliability <= 1.0)).all()


@pytest.mark.parametrize("frequencies", [1, 8])
@pytest.mark.parametrize("n", [8, 12, 40])
def test_of_whom_more_is_expected_is_promised_no_less(n: int, frequencies: int) -> None:
    """Whatever came of the windows: by chance against what was expected of them, and all kept but k."""
    rng = np.random.default_rng(n)
    turned = 0
    for i in range(60):
        expected = rng.beta(6.0, 1.5, (n, frequencies))
        kept = (rng.random((n, 1)) < 0.8) if i % 2 else (np.arange(n)[:, None] >= i % 5)
        d = deviate(expected, RHO)
        margin = Margin.learn(d, np.broadcast_to(kept, d.shape).astype(float))
        assert margin is not None and margin.weights[1] >= 0.0
        reliability = margin.reliability(SHARES, RHO)
        assert (np.diff(reliability) >= -1e-12).all()
        turned += bool(np.ptp(reliability[-5:]) == 0.0)
    assert turned > 5, "the standard errors did not matter in any of them"


@pytest.mark.parametrize("frequencies", [1, 8])
def test_where_every_promise_was_kept_it_is_given(frequencies: int) -> None:
    d = deviate(np.random.default_rng(5).beta(20.0, 1.0, (40, frequencies)), RHO)
    margin = Margin.learn(d, np.ones_like(d))
    assert margin is not None
    assert (margin.reliability(np.array([0.9, 0.95, 0.99, 1.0]), RHO) > 0.95).all()


def test_what_is_too_optimistic_is_trusted_less_than_by_equation_12() -> None:
    margin, honest = learned(300, 2, optimism=1.0), learned(300, 2)
    at = np.array([0.84, 0.88, 0.92])
    normal = normal_reliability(np.broadcast_to(at[:, None], (3, FRAMES)), RHO)
    assert (margin.reliability(at, RHO) < normal - 0.05).all()
    assert (margin.reliability(at, RHO) < honest.reliability(at, RHO)).all()


SAMPLES = 200


@pytest.mark.parametrize(
    ("n", "optimism", "together"),
    [(40, 0.0, 15), (40, 1.0, 15), (200, 0.0, 15), (200, 0.0, 30), (200, 1.0, 30)],
)
def test_of_those_accepted_at_epsilon_about_so_many_are_kept(n: int, optimism: float, together: int) -> None:
    """Over samples of the past, each with as many windows of the future. Of what is accepted at least a share
    epsilon is kept, but for three standard errors of that share (a ratio, over the samples)."""
    epsilon, accepted, kept, naive, naive_kept = 0.9, [], [], 0, 0
    for seed in range(SAMPLES):
        margin = learned(n, seed, optimism=optimism, together=together)
        expected, share = windows(n, 10_000 + seed, optimism=optimism, together=together)
        took = margin.reliability(expected, RHO) >= epsilon
        accepted.append(int(took.sum()))
        kept.append(int((share[took] >= RHO - 1e-9).sum()))
        by_theorem = deviate(expected, RHO) * FRAMES**0.5 >= NormalDist().inv_cdf(epsilon)
        naive += int(by_theorem.sum())
        naive_kept += int((share[by_theorem] >= RHO - 1e-9).sum())
    total = sum(accepted)
    rest = np.array(kept) - sum(kept) / total * np.array(accepted)
    standard_error = rest.std() * len(rest) ** 0.5 / total
    assert total > 0.02 * n * SAMPLES
    assert sum(kept) / total > epsilon - 3 * standard_error
    assert standard_error < 0.012
    # Equation (12) accepts more. Half a second that hits together and p that are right it just stands.
    assert naive > 2 * total
    assert (naive_kept / naive < 0.8) == (optimism > 0.0 or together > 15)


def test_where_little_is_known_little_is_promised() -> None:
    rng = np.random.default_rng(4)
    d = rng.normal(0.3, 0.5, (400, 1))
    kept = (rng.random((400, 1)) < 1 / (1 + np.exp(-4 * d))).astype(float)
    few, many = (
        Margin.learn(d[:20], kept[:20]),
        Margin.learn(np.repeat(d[:20], 20, 0), np.repeat(kept[:20], 20, 0)),
    )
    assert few is not None and many is not None
    assert few.reliability(np.array([0.97]), RHO) < many.reliability(np.array([0.97]), RHO)


def test_frequencies_of_one_window_count_as_one() -> None:
    expected, share = windows(60, 5)
    d, kept = deviate(expected, RHO)[:, None], (share >= RHO)[:, None].astype(float)
    one, eight = Margin.learn(d, kept), Margin.learn(np.repeat(d, 8, axis=1), np.repeat(kept, 8, axis=1))
    assert one is not None and eight is not None
    assert one.windows == eight.windows == 60
    assert one.reliability(SHARES, RHO) == pytest.approx(eight.reliability(SHARES, RHO), abs=0.01)


def test_too_few_windows() -> None:
    n = LEAST_WINDOWS
    d, kept = np.zeros((n, 3)), np.ones((n, 3))
    assert Margin.learn(d, kept) is not None
    assert Margin.learn(d[1:], kept[1:]) is None
    kept[0] = np.nan
    assert Margin.learn(d, kept) is None
    kept[0, 1] = 1.0
    assert Margin.learn(d, kept) is not None
    d[0, 1] = np.nan
    assert Margin.learn(d, kept) is None
    assert Margin.learn(np.empty((0, 1)), np.empty((0, 1))) is None


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_windows_that_all_came_out_alike(kept: float) -> None:
    d = np.random.default_rng(6).normal(0.0, 1.0, (30, 2))
    margin = Margin.learn(d, np.full((30, 2), kept))
    assert margin is not None
    reliability = margin.reliability(SHARES, RHO)
    assert np.isfinite(reliability).all()
    at_usual = float(margin.reliability(np.array(0.8), RHO))
    assert at_usual > 0.8 if kept else at_usual < 0.2


def test_what_is_not_known_stays_so_and_nothing_is_certain_but_a_share_of_0() -> None:
    margin = learned(50, 7)
    expected = np.array([[0.9, np.nan], [0.0, 1.0]])
    got = margin.reliability(expected, RHO)
    assert np.isnan(got).tolist() == [[False, True], [False, False]]
    assert np.nanmax(got) < 1.0
    assert margin.reliability(expected, 0.0)[~np.isnan(expected)].tolist() == [1.0] * 3
    assert np.isnan(margin.reliability(expected, 0.0)[0, 1])


def test_state_there_and_back() -> None:
    margin = learned(40, 8)
    restored = Margin.from_state(json.loads(json.dumps(margin.to_state(), allow_nan=False)))
    assert restored.windows == 40
    assert np.array_equal(restored.reliability(SHARES, RHO), margin.reliability(SHARES, RHO))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [1.0]},
        {"weights": None},
        {"covariance": [[1.0, 0.0]]},
        {"weights": [float("nan"), 0.0]},
        {"covariance": [[1.0, 0.0], [0.0, float("inf")]]},
        {"covariance": [[1.0, 2.0], [2.0, 1.0]]},
        {"weights": [1.0, -0.1]},
        {"windows": "many"},
    ],
)
def test_states_that_are_none(change: dict[str, object]) -> None:
    state = learned(40, 9).to_state()
    with pytest.raises((ValueError, TypeError)):
        Margin.from_state({**state, **change})
    with pytest.raises(KeyError):
        Margin.from_state({name: v for name, v in state.items() if name not in change})
