"""Clones of pose predictors: the same poses as the predictor's on people that the clone has not seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from controller.allocators.mar.clone import GeneralClone, Inputs, LinearClone, from_bytes, inputs, joined
from tests.allocators.mar.walkers import walkers
from wire.definitions.poses import FloatArray, IntArray, predict, unwrapped, upload_frames

NOW = np.arange(40, 110)
POSES = walkers(8, 120)
Predictor = Callable[[FloatArray, IntArray, IntArray], FloatArray]


def smoothed(sent: FloatArray, uploaded: IntArray, now: IntArray) -> FloatArray:
    """Half of the latest upload, half of the one before, and no more: linear in the poses, no regression."""
    latest = np.searchsorted(uploaded, now, side="right") - 1
    sent = unwrapped(sent)
    return 0.5 * sent[latest] + 0.5 * sent[np.maximum(latest - 1, 0)]


def pairs(users: range, rates: tuple[float, ...], predictor: Predictor) -> tuple[Inputs, FloatArray]:
    given, out = [], []
    for hz in rates:
        uploaded = upload_frames(hz, 120)
        for user in users:
            given.append(inputs(POSES[user][uploaded], uploaded, NOW, 10))
            out.append(predictor(POSES[user][uploaded], uploaded, NOW))
    return joined(given), np.concatenate(out)


@pytest.mark.parametrize("history", [6, 15, 24])
@pytest.mark.parametrize("lookahead", [0, 10])
def test_the_window_of_a_regression_is_found(history: int, lookahead: int) -> None:
    uploaded = upload_frames(30.0, 120)
    given = joined([inputs(POSES[u][uploaded], uploaded, NOW, lookahead) for u in range(3)])
    out = np.concatenate([predict(POSES[u][uploaded], uploaded, NOW, lookahead, history) for u in range(3)])
    assert LinearClone.fit(given, out) == LinearClone(history, 1)


def test_the_linear_clone_is_the_predictor_for_unseen_users_at_every_frequency() -> None:
    clone = LinearClone.fit(*pairs(range(4), (5.0, 30.0), predict))
    for hz in (1.0, 2.0, 4.0, 10.0, 30.0):
        given, out = pairs(range(4, 8), (hz,), predict)
        assert np.allclose(clone.predict(given), out, atol=1e-9)


def test_orders_are_told_apart_and_the_simplest_is_taken() -> None:
    given, _ = pairs(range(3), (15.0, 30.0), predict)
    for clone in (LinearClone(1, 0), LinearClone(18, 2)):
        assert LinearClone.fit(given, clone.predict(given)) == clone


def test_a_parabola_through_samples_of_one_is_that_one() -> None:
    age = np.arange(12.0)[None]
    poses = (3.0 + 2.0 * -age - 0.5 * age**2)[..., None] * np.ones(6)
    (at,) = LinearClone(12, 2).predict(Inputs(poses, age, np.array([10.0])))
    assert np.allclose(at, 3.0 + 20.0 - 50.0)


@pytest.mark.parametrize("predictor", [predict, smoothed])
def test_the_general_clone_finds_what_is_linear_in_the_poses(predictor: Predictor) -> None:
    rates = (2.0, 5.0, 30.0)
    clone = GeneralClone.fit(*pairs(range(6), rates, predictor))
    for hz in rates:
        given, out = pairs(range(6, 8), (hz,), predictor)
        moved = out - given.poses[:, 0]
        assert np.square(clone.predict(given) - out).mean() <= 1e-4 * np.square(moved).mean()


def test_the_general_clone_answers_for_ages_that_it_has_not_seen() -> None:
    clone = GeneralClone.fit(*pairs(range(6), (5.0, 6.0, 10.0), predict))
    given, out = pairs(range(6, 8), (7.0,), predict)
    held = np.abs(given.poses[:, 0] - out)[:, :3].mean()
    assert np.isfinite(clone.predict(given)).all()
    assert np.abs(clone.predict(given) - out)[:, :3].mean() < held


def test_turns_across_360_degrees_are_small() -> None:
    uploaded = upload_frames(30.0, 120)
    poses = POSES[0].copy()
    poses[:, 4] = (poses[:, 4] - poses[60, 4]) % 360.0
    given = inputs(poses, uploaded, NOW, 10)
    assert np.abs(given.displacement()[..., 4]).max() < 90.0
    wrapped = predict(poses, uploaded, NOW)
    wrapped[:, 4] %= 360.0
    assert LinearClone.fit(given, wrapped).history == 15


@pytest.mark.parametrize("technique", [LinearClone, GeneralClone])
def test_a_clone_is_stored(technique: type[LinearClone] | type[GeneralClone]) -> None:
    given, out = pairs(range(3), (2.0, 10.0), predict)
    clone = technique.fit(given, out)
    loaded = from_bytes(clone.to_bytes())
    assert type(loaded) is technique and loaded.to_bytes() == clone.to_bytes()
    assert np.array_equal(loaded.predict(given), clone.predict(given))


def test_what_is_no_clone_and_what_cannot_be_learned_from() -> None:
    given, out = pairs(range(1), (10.0,), predict)
    stored = GeneralClone.fit(given, out).to_bytes()
    for data in (b"", b"{}", b"[1]", b'{"technique": "linear"}', stored[:-8]):
        with pytest.raises(ValueError, match="no clone of a predictor"):
            from_bytes(data)
    for technique in (LinearClone, GeneralClone):
        with pytest.raises(ValueError, match="nothing to learn from"):
            technique.fit(given, out[:-1])
    with pytest.raises(ValueError, match="frame 3: nothing had been uploaded"):
        inputs(POSES[0][:1], np.array([5]), np.array([3, 9]), 10)
