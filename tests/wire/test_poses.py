"""Hand-made poses: where a device looks, what is uploaded, what is predicted."""

from __future__ import annotations

import numpy as np
import pytest

from wire.definitions import poses as p


def pose(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


@pytest.mark.parametrize(
    ("degrees", "looks"),
    [
        ((0, 0, 0), (0, 0, 1)),
        ((0, 90, 0), (1, 0, 0)),
        ((0, 180, 0), (0, 0, -1)),
        ((90, 0, 0), (0, -1, 0)),
        ((-90, 0, 0), (0, 1, 0)),
        ((0, 0, 90), (0, 0, 1)),
        ((90, 90, 0), (0, -1, 0)),
    ],
)
def test_where_a_device_looks(degrees: tuple[float, ...], looks: tuple[float, ...]) -> None:
    here = pose(1, 2, 3, *degrees)
    assert p.forward(here) == pytest.approx(looks, abs=1e-12)
    assert p.rotation(here)[:, 2] == pytest.approx(looks, abs=1e-12)


def test_rotations_about_z_then_x_then_y_as_unity_has_them() -> None:
    # Rolled by 90 degrees the right of the device points up; then pitched down, its up points ahead.
    assert p.rotation(pose(0, 0, 0, 0, 0, 90))[:, 0] == pytest.approx((0, 1, 0), abs=1e-12)
    r = p.rotation(pose(0, 0, 0, 90, 0, 90))
    assert r[:, 0] == pytest.approx((0, 0, 1), abs=1e-12)
    assert r[:, 2] == pytest.approx((0, -1, 0), abs=1e-12)
    r = p.rotation(np.random.default_rng(1).uniform(-360, 360, (50, 6)))
    assert np.allclose(r @ r.swapaxes(-1, -2), np.eye(3)) and np.allclose(np.linalg.det(r), 1.0)


def test_how_far_a_device_turned() -> None:
    a = pose(0, 0, 0, 0, 350, 0)
    assert p.turned(a, pose(0, 0, 0, 0, 10, 0)) == pytest.approx(20.0)
    assert p.turned(a, pose(5, 5, 5, 360, 350, -360)) == pytest.approx(0.0, abs=1e-5)
    assert p.turned(pose(0, 0, 0, 0, 0, 0), pose(0, 0, 0, 0, 180, 0)) == pytest.approx(180.0)


@pytest.mark.parametrize(
    ("hz", "frames"),
    [
        (30, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        (15, [0, 2, 4, 6, 8, 10, 12]),
        (5, [0, 6, 12]),
        (1, [0]),
        (12, [0, 2, 5, 7, 10, 12]),
    ],
)
def test_which_frames_are_uploaded(hz: float, frames: list[int]) -> None:
    assert p.upload_frames(hz, 13).tolist() == frames


def test_a_thousand_seconds_have_a_thousand_times_the_uploads_of_one() -> None:
    for hz in (0.1, 1, 7, 7.3, 29.97):
        assert len(p.upload_frames(hz, 300_000)) == pytest.approx(hz * 10_000, abs=1)
    with pytest.raises(ValueError, match=r"outside \(0, 30\]"):
        p.upload_frames(31.0, 10)
    with pytest.raises(ValueError, match="outside"):
        p.upload_frames(float("nan"), 10)


def test_a_line_is_continued_and_one_upload_is_held() -> None:
    frames = np.arange(40)
    walk = np.zeros((40, 6))
    walk[:, 0], walk[:, 4] = 0.01 * frames, (350 + 2 * frames) % 360
    now = np.array([20, 24])
    uploaded = p.upload_frames(5, 40)
    ahead = p.predict(walk[uploaded], uploaded, now)
    assert ahead[:, 0] == pytest.approx([0.30, 0.34])
    # No jump where the angle passes 360.
    assert np.cos(np.radians(ahead[:, 4])) == pytest.approx(np.cos(np.radians(350 + 2.0 * (now + 10))))
    # At 1 Hz one upload at most lies in the window of 15 frames; then none does, and the last is held.
    uploaded = p.upload_frames(1, 40)
    held = p.predict(walk[uploaded], uploaded, np.array([20, 32]))
    assert held[:, 0] == pytest.approx([0.0, 0.30])
    # A line through two uploads, 15 frames apart, is not drawn: the window is open at its far end.
    assert p.regression_weights(np.array([0, 15]), np.array([15])).tolist() == [[0.0, 1.0]]
    assert p.regression_weights(np.array([1, 15]), np.array([15])).tolist() == [
        pytest.approx([-10 / 14, 24 / 14])
    ]


def test_what_comes_later_is_not_known_now() -> None:
    weights = p.regression_weights(np.array([3, 6, 9]), np.arange(12))
    assert np.isnan(weights[:3]).all()
    assert np.allclose(weights[3:].sum(axis=1), 1.0)
    for now, row in enumerate(weights[3:], start=3):
        assert not row[np.array([3, 6, 9]) > now].any()


def test_bad_traces_are_named_by_user_and_frame() -> None:
    good = np.zeros((2, 4, 6), np.float32)
    assert p.check_poses(good).dtype == np.float64
    with pytest.raises(ValueError, match=r"walk.npz: shape \(4, 6\), not \(users, frames, 6\)"):
        p.check_poses(good[0], "walk.npz")
    with pytest.raises(ValueError, match="shape"):
        p.check_poses(good[:, :1])
    with pytest.raises(ValueError, match="no poses"):
        p.check_poses(np.full((1, 2, 6), "x"))
    bad = good.copy()
    bad[1, 2, 4] = np.nan
    with pytest.raises(ValueError, match="user 1, frame 2: ry is not finite"):
        p.check_poses(bad)
    bad = good.copy()
    bad[1, 3, 0] = 0.6
    with pytest.raises(ValueError, match=r"user 1, frame 3: 0.60 m from the frame before, more than 0.5 m"):
        p.check_poses(bad)
    bad = good.copy()
    bad[0, 1:, 4] = 75
    with pytest.raises(ValueError, match="user 0, frame 1: turned by 75 degrees"):
        p.check_poses(bad)
    bad[0, 1:, 4] = 360
    p.check_poses(bad)


def test_the_weights_of_a_line_count_what_is_known_alone() -> None:
    offset = np.arange(-4.0, 1.0)
    known = np.array([[1, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
    weights = p.line_weights(offset, known, 6)
    assert weights[0] == pytest.approx([-1.5, 0, 0, 0, 2.5])
    assert not weights[1:].any()
    every = p.line_weights(offset, np.ones(5, bool), 6)
    assert every.sum() == pytest.approx(1.0) and every @ (7.0 + 2.0 * offset) == pytest.approx(19.0)
