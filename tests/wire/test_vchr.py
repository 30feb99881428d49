"""Hand-made poses before a box of cells, and the same answers from rays against every other cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wire.definitions import poses, vchr
from wire.definitions.vchr import Content

BOX = Content(0.0, 0.0, (0.8, 1.6, 0.4))
"""Cells of 0.2 m across, 0.4 m up, 0.2 m deep."""
TRACES = Path(__file__).parents[2] / "../shared/data/pose-traces"


def seen_from(*pose: float, content: Content = BOX) -> set[tuple[int, ...]]:
    cells = vchr.visible(np.array(pose, np.float64), content).reshape(content.cells)
    return {tuple(c) for c in np.argwhere(cells).tolist()}


def test_in_front_one_sees_the_front_and_behind_the_back() -> None:
    front = {(x, y, 0) for x in range(4) for y in range(4)}
    assert seen_from(0, 0.8, -3, 0, 0, 0) == front
    assert seen_from(0, 0.8, 3, 0, 180, 0) == {(x, y, 1) for x, y, _ in front}
    assert seen_from(0, 0.8, -3, 0, 180, 0) == set()
    # Rolled upside down the same is seen; the image is turned.
    assert seen_from(0, 0.8, -3, 0, 0, 180) == front


def test_from_the_side_and_from_a_corner() -> None:
    assert seen_from(3, 0.8, 0, 0, -90, 0) == {(3, y, z) for y in range(4) for z in range(2)}
    # Steeply on the front, flat on the side, whose far cells are behind the near ones.
    assert seen_from(2, 0.8, -3, 0, -34, 0) == {c for c in np.ndindex(4, 4, 2) if c[2] == 0}


def test_the_frustum_cuts_what_lies_outside_it() -> None:
    # 0.6 m before the centres of the front, at the height of the lowest: the upper half is above 45 degrees.
    seen = seen_from(0, 0.2, -0.7, 0, 0, 0)
    assert seen == {(x, y, 0) for x in range(4) for y in range(2)}
    narrow = vchr.visible(np.array([0, 0.8, -3, 0, 0, 0.0]), BOX, (5.0, 90.0)).reshape(4, 4, 2)
    assert {x for x, _, _ in np.argwhere(narrow).tolist()} == {1, 2}


def test_from_within_the_cell_that_one_is_in_hides_all_others() -> None:
    assert seen_from(0.1, 0.6, -0.15, 0, 0, 0) == {(2, 1, 0)}
    assert seen_from(0.1, 0.6, -0.05, 0, 0, 0) == set()


def by_rays(pose: np.ndarray, content: Content) -> np.ndarray:
    """A line to each centre against each other cell, by slabs."""
    eye, axes = pose[:3], poses.rotation(pose)
    low = np.array(list(np.ndindex(*content.cells))) * np.array(content.size_m) / content.cells
    low = low + content.least
    high = low + np.array(content.size_m) / content.cells
    seen = np.zeros(len(low), bool)
    for i, centre in enumerate((low + high) / 2):
        line = centre - eye
        right, up, ahead = line @ axes
        if not (ahead > 0 and abs(right) <= ahead and abs(up) <= ahead):
            continue
        with np.errstate(divide="ignore"):
            a, b = (low - eye) / line, (high - eye) / line
        near, far = np.minimum(a, b).max(axis=1), np.maximum(a, b).min(axis=1)
        hit = (near < far - 1e-9) & (far > 1e-9) & (near < 1 - 1e-9)
        hit[i] = False
        seen[i] = not hit.any()
    return seen


@pytest.mark.parametrize("cells", [(4, 4, 2), (1, 1, 1), (3, 5, 4)])
def test_the_same_as_rays_against_every_other_cell(cells: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(3)
    content = Content(0.48, -0.32, cells=cells)
    eyes = rng.uniform((-1.5, 0.05, -2.0), (2.0, 2.5, 1.5), (150, 3))
    look = np.array([0.48, 0.9, -0.32]) - eyes
    turn = np.degrees(np.arctan2(look[:, 0], look[:, 2])) + rng.normal(0, 20, len(eyes))
    down = rng.normal(0, 25, len(eyes))
    walk = np.column_stack([eyes, down, turn, rng.normal(0, 15, len(eyes))])
    mine = vchr.visible(walk, content)
    assert np.array_equal(mine, [by_rays(pose, content) for pose in walk])
    assert mine.any() and not mine.all()


def test_hits_are_the_common_part_of_what_is_seen_or_prepared() -> None:
    seen = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    prepared = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
    rate = vchr.hit_rate(seen, prepared)
    assert rate[[0, 1, 3]].tolist() == [1.0, 0.0, 0.25] and np.isnan(rate[2])
    assert vchr.hit_rate(seen[:, :0], prepared[:, :0]).tolist() == pytest.approx([np.nan] * 4, nan_ok=True)


def test_where_gazes_meet() -> None:
    around = np.arange(0, 360, 30.0)
    x, z = 0.5 + 2 * np.sin(np.radians(around)), -0.3 + 2 * np.cos(np.radians(around))
    ring = np.column_stack([x, np.full(12, 1.6), z, np.full(12, 10.0), around + 180, np.zeros(12)])
    x, y, z = vchr.gaze_point(ring)
    assert (x, z) == pytest.approx((0.5, -0.3)) and y == pytest.approx(1.6 - 2 * np.tan(np.radians(10)))
    with pytest.raises(ValueError, match="parallel"):
        vchr.gaze_point(np.tile(ring[0], (5, 1)))
    with pytest.raises(ValueError, match="parallel"):
        vchr.gaze_point(ring[:0])


def test_contents_and_fields_of_view_that_are_none() -> None:
    for bad in ({"size_m": (0.0, 1.0, 1.0)}, {"cells": (4, 0, 2)}, {"size_m": (1.0, np.nan, 1.0)}):
        with pytest.raises(ValueError, match=r"along [xy]: not"):
            Content(0.0, 0.0, **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nowhere"):
        Content(np.inf, 0.0)
    with pytest.raises(ValueError, match="field of view"):
        vchr.visible(np.zeros(6), BOX, (180.0, 90.0))


@pytest.mark.parametrize(
    ("video", "means"),
    [("longdress", (0.807, 0.862, 0.878, 0.885)), ("loot", (0.770, 0.846, 0.868, 0.875))],
)
def test_means_of_forty_people(video: str, means: tuple[float, ...]) -> None:
    file = TRACES / f"{video}.npz"
    if not file.exists():
        pytest.skip(f"{file.name}: no pose traces beside the checkout")
    people = poses.check_poses(np.load(file)["pose"], video)
    x, _, z = vchr.gaze_point(people)
    content, now = Content(x, z), np.arange(20, 290)
    seen = vchr.visible(people, content)[:, 30:]
    for hz, mean in zip((1, 3, 5, 30), means, strict=True):
        uploaded = poses.upload_frames(hz, 300)
        prepared = vchr.visible(poses.predict(people[:, uploaded], uploaded, now), content)
        assert np.nanmean(vchr.hit_rate(seen, prepared)) == pytest.approx(mean, abs=6e-4)


def test_no_pose_has_no_row() -> None:
    assert vchr.visible(np.zeros((0, 6)), BOX).shape == (0, 32)
