"""Models of VCHR side by side on drawn walkers, and their scores."""

from __future__ import annotations

from dataclasses import replace
from math import inf, log
from pathlib import Path

import numpy as np
import pytest

from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.splits import split
from controller.allocators.mar.traces import observe, place
from controller.experiments.mar import baselines
from controller.experiments.mar.baselines import Problem, score
from controller.twins.softmax import Training
from tests.allocators.mar.walkers import walkers
from wire.pose_files import read_poses

DATA = Path(__file__).parents[3] / "../shared/data/pose-traces"


@pytest.fixture(scope="module")
def problem() -> Problem:
    poses = walkers(5, 120)
    content, options = place(poses), MarOptions()
    observed = observe(poses, (1.0, 3.0, 30.0), content)
    train, test = split(len(observed.frame), "temporal", history=15, lookahead=10)
    return Problem(observed, train, test, content, options)


def with_vchr(problem: Problem, vchr: np.ndarray) -> Problem:
    return replace(problem, observed=replace(problem.observed, vchr=vchr))


def test_every_model_gives_a_distribution_for_every_test_frame(problem: Problem) -> None:
    shape = (5, 3, len(problem.test), problem.bins)
    for p in (
        baselines.common(problem),
        baselines.by_frequency(problem),
        baselines.table(problem)[0],
        baselines.of_network(problem, baselines.aggregated(problem)),
        baselines.twins(problem),
    ):
        assert p.shape == shape and (p >= 0.0).all() and np.allclose(p.sum(axis=-1), 1.0)


def test_the_common_model_has_the_shares_of_the_training_frames(problem: Problem) -> None:
    vchr = np.full_like(problem.observed.vchr, 0.35)
    vchr[..., problem.train[::4]] = 0.95
    vchr[..., problem.test] = 0.05
    said = baselines.common(with_vchr(problem, vchr))[0, 0, 0]
    n = 5 * 3 * len(problem.train)
    nines = 5 * 3 * len(problem.train[::4])
    assert said[9] == pytest.approx((nines + 1) / (n + 10)) and said.argmax() == 3
    assert said[0] == pytest.approx(1 / (n + 10))


def test_the_bin_of_the_mean_is_foretold_for_each_frequency(problem: Problem) -> None:
    vchr = np.full_like(problem.observed.vchr, 0.95)
    vchr[:, 0, ::2] = 0.15
    said = baselines.by_frequency(with_vchr(problem, vchr))
    assert (said[:, 0].argmax(axis=-1) == 5).all() and (said[:, 1:].argmax(axis=-1) == 9).all()


def test_a_table_is_shrunk_the_less_the_steadier_its_users_are(problem: Problem) -> None:
    rng = np.random.default_rng(0)
    steady = np.empty_like(problem.observed.vchr)
    steady[:] = (np.arange(5)[:, None, None] + 0.5) / 10
    p, strength = baselines.table(with_vchr(problem, steady))
    assert strength == min(baselines.STRENGTHS)
    assert (p.argmax(axis=-1) == np.arange(5)[:, None, None]).all()
    noise = rng.uniform(0.0, 1.0, steady.shape)
    assert baselines.table(with_vchr(problem, noise))[1] >= 100.0
    in_hindsight, _ = baselines.table_in_hindsight(problem)
    assert score(problem, in_hindsight).log_loss <= score(problem, baselines.table(problem)[0]).log_loss


def test_personal_networks_know_their_users_apart(problem: Problem) -> None:
    vchr = np.empty_like(problem.observed.vchr)
    vchr[:] = (np.arange(5)[:, None, None] + 0.5) / 10
    steady = with_vchr(problem, vchr)
    networks = baselines.personal(steady, Training(steps=100, batch=64))
    for user, network in enumerate(networks):
        assert (baselines.of_network(steady, network)[user].argmax(axis=-1) == user).all()


def test_a_user_without_a_frame_to_learn_from_has_the_common_network(problem: Problem) -> None:
    vchr = problem.observed.vchr.copy()
    vchr[2, :, problem.train] = np.nan
    networks = baselines.personal(with_vchr(problem, vchr), Training(steps=5))
    assert len(networks) == 5


def test_offsets_fall_to_nothing_under_a_penalty_and_follow_a_user_without(problem: Problem) -> None:
    of = baselines.variant(problem, inf)
    assert np.allclose(baselines.with_offsets(of, 1e6), of.probabilities, atol=1e-4)
    outcome = np.full_like(of.outcome, 2)
    free = baselines.with_offsets(baselines.Variant(of.test_logits, of.logits, outcome), 1e-4)
    assert free[..., 2].mean() > 0.8 > of.probabilities[..., 2].mean()


def test_scores(problem: Problem) -> None:
    outcome = problem.outcome(problem.test)
    sure = np.eye(problem.bins)[np.maximum(outcome, 0)]
    right = score(problem, sure)
    assert right.accuracy == 1.0 and right.log_loss == 0.0
    assert right.calibration_error == right.hit_calibration_error == 0.0
    flat = score(problem, np.full(sure.shape, 0.1))
    assert flat.log_loss == pytest.approx(log(10)) and np.allclose(flat.by_user, log(10))
    assert flat.calibration_error == pytest.approx(abs(0.1 - flat.accuracy))
    hits = (outcome[outcome >= 0] >= 8).mean()
    assert flat.hit_calibration_error == pytest.approx(abs(0.2 - hits))
    with pytest.raises(ValueError, match="nothing is to be rendered"):
        score(with_vchr(problem, np.full_like(problem.observed.vchr, np.nan)), sure)


def test_frames_with_nothing_to_render_are_not_scored(problem: Problem) -> None:
    vchr = problem.observed.vchr.copy()
    vchr[1] = np.nan
    scores = score(with_vchr(problem, vchr), np.full((5, 3, len(problem.test), 10), 0.1))
    assert np.isnan(scores.by_user[1]) and np.isfinite(np.delete(scores.by_user, 1)).all()


def test_points_of_a_reliability_diagram() -> None:
    p = np.array([0.05, 0.08, 0.95, 0.95, 0.95, 1.0])
    came = np.array([0, 1, 1, 1, 1, 0], bool)
    (low, often, n), (high, most, many) = baselines.reliability(p, came)
    assert (low, often, n) == pytest.approx((0.065, 0.5, 2))
    assert (high, most, many) == pytest.approx((0.9625, 0.75, 4))
    assert baselines.calibration_error(p, came) == pytest.approx((2 * 0.435 + 4 * 0.2125) / 6)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_on_real_traces_the_twins_beat_every_baseline_in_time() -> None:
    poses = read_poses(DATA / "longdress.npz")
    content, options = place(poses), MarOptions()
    observed = observe(poses, options.upload_hz, content)
    train, test = split(len(observed.frame), "temporal", history=15, lookahead=10)
    problem = Problem(observed, train, test, content, options)
    majority, twins = (score(problem, of(problem)) for of in (baselines.common, baselines.twins))
    table = score(problem, baselines.table_in_hindsight(problem)[0])
    assert majority.accuracy == pytest.approx(0.661, abs=0.002)
    assert table.log_loss == pytest.approx(1.225, abs=0.003)
    assert twins.log_loss < 0.97 and twins.accuracy > majority.accuracy + 0.01
    assert twins.calibration_error < 0.04 and twins.hit_calibration_error < 0.04
    assert (twins.by_user < table.by_user).sum() >= 34
