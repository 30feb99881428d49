"""What comes of traces, frame by frame and in a straightforward way, against what is computed at once."""

from __future__ import annotations

import numpy as np
import pytest

from controller.allocators.mar.traces import FIRST_FRAME, Observed, observe, place, pose_error
from tests.allocators.mar.people import BOX, statue, walkers
from wire.definitions.poses import FloatArray, turned, unwrapped, upload_frames
from wire.definitions.vchr import hit_rate, visible


def line(x: FloatArray, y: FloatArray, at: float) -> FloatArray:
    """The least-squares line through (x, y[:, c]), read at ``at``."""
    return np.array([np.polyval(np.polyfit(x, y[:, c], 1), at) for c in range(y.shape[1])])


def slowly(poses: FloatArray, hz: float, frame: int, lookahead: int, history: int) -> tuple[FloatArray, int]:
    """The pose predicted for a frame of one user [frames, 6], and the latest upload's."""
    now = frame - lookahead
    uploads = [f for f in upload_frames(hz, len(poses)).tolist() if f <= now]
    known = unwrapped(poses[uploads])
    window = [i for i, f in enumerate(uploads) if f > now - history]
    if len(window) < 2:
        return known[-1], uploads[-1]
    return line(np.array([uploads[i] - now for i in window]), known[window], lookahead), uploads[-1]


@pytest.mark.parametrize(("lookahead", "history", "first"), [(10, 15, 30), (0, 1, 5), (40, 60, 30)])
def test_it_is_what_a_loop_over_frames_gives(lookahead: int, history: int, first: int) -> None:
    poses, frequencies = walkers(3, 90, seed=1), (1.0, 7.0, 30.0)
    # One who turns through 180 degrees, where angles jump.
    poses[1, :, 4] = (np.linspace(150.0, 400.0, 90) + 180.0) % 360.0 - 180.0
    got = observe(poses, frequencies, BOX, lookahead=lookahead, history=history, first=first)
    begin = max(first, lookahead)
    assert got.upload_hz == frequencies and got.users == 3
    assert got.frame.tolist() == list(range(begin, 90))
    assert got.vchr.shape == (3, 3, 90 - begin) and got.error.shape == (*got.vchr.shape, 6)
    for u in range(3):
        for f, hz in enumerate(frequencies):
            for n in range(0, 90 - begin, 4):
                frame = begin + n
                predicted, upload = slowly(poses[u], hz, frame, lookahead, history)
                situation = got.situation[u, f, n]
                # Angles may differ by whole turns.
                off = pose_error(situation.predicted.copy(), predicted)
                assert np.abs(off).max() < 1e-7
                assert np.abs(pose_error(situation.last.copy(), poses[u, upload])).max() < 1e-9
                assert situation.age == frame - lookahead - upload
                truth = poses[u, frame]
                assert np.abs(pose_error(truth - got.error[u, f, n], predicted)).max() < 1e-7
                seen, prepared = visible(truth, BOX), visible(predicted, BOX)
                assert got.vchr[u, f, n] == pytest.approx(float(hit_rate(seen, prepared)), nan_ok=True)


def test_errors_are_within_half_a_turn() -> None:
    error = pose_error(np.array([1.0, 0, 0, 179.0, -179.0, 720.0]), np.array([0.0, 0, 0, -179.0, 179.0, 1.0]))
    assert error.tolist() == [1.0, 0.0, 0.0, -2.0, 2.0, -1.0]


def test_the_more_uploads_the_smaller_the_error() -> None:
    error = np.abs(observe(walkers(6, 300), (1.0, 5.0, 30.0), BOX).error).mean(axis=(0, 2))
    # Of places; a line through two samples of a head that nods is further off than the last of them.
    assert (error[0, :3] > error[1, :3]).all() and (error[1] > error[2]).all()
    assert observe(statue(60), (1.0, 30.0), BOX).error == pytest.approx(0.0, abs=1e-9)


def test_where_nothing_is_to_render_it_is_not_a_number() -> None:
    away = statue(60)
    away[..., 4] += 180.0
    assert np.isnan(observe(away, (1.0, 30.0), BOX).vchr).all()
    # Who turns away has nothing to render but what was prepared in vain.
    turning = statue(120)
    turning[0, :, 4] += np.clip((np.arange(120) - 60) * 12.0, 0.0, 180.0)
    vchr = observe(turning, (30.0,), BOX).vchr[0, 0]
    assert vchr[0] == 1.0 and np.isnan(vchr[-1]) and 0.0 in vchr


def test_too_few_frames() -> None:
    assert observe(walkers(1, FIRST_FRAME + 1), (1.0,), BOX).vchr.shape == (1, 1, 1)
    with pytest.raises(ValueError, match="30 frames: the first that is judged is frame 30"):
        observe(walkers(1, FIRST_FRAME), (1.0,), BOX)
    with pytest.raises(ValueError, match="40 frames: the first that is judged is frame 50"):
        observe(walkers(1, 40), (1.0,), BOX, lookahead=50)


def test_frequencies_that_are_none() -> None:
    for hz in (0.0, 31.0, float("nan")):
        with pytest.raises(ValueError, match="upload frequency"):
            observe(walkers(1, 60), (1.0, hz), BOX)


def test_some_of_the_users() -> None:
    poses = walkers(4, 60)
    some = observe(poses, (2.0, 10.0), BOX).of([2, 0])
    alone = observe(poses[[2, 0]], (2.0, 10.0), BOX)
    assert isinstance(some, Observed)
    assert np.array_equal(some.vchr, alone.vchr, equal_nan=True)
    assert np.allclose(some.situation.predicted, alone.situation.predicted)


def test_content_stands_where_users_look() -> None:
    poses = walkers(5, 200)
    poses[..., 0] += 0.7
    poses[..., 2] -= 2.0
    content = place(poses, cells=(2, 2, 2))
    assert (content.x, content.z) == pytest.approx((0.7, -2.0), abs=0.15) and content.cells == (2, 2, 2)
    with pytest.raises(ValueError, match="parallel"):
        place(statue(30))


def test_turned_agrees_with_the_error_for_small_ones() -> None:
    """The error's angles and the angle between attitudes are of one size."""
    got = observe(walkers(2, 90), (10.0,), BOX)
    predicted = got.situation.predicted
    angle = turned(predicted + got.error, predicted)
    assert (angle <= np.abs(got.error[..., 3:]).sum(axis=-1) + 1e-6).all()
