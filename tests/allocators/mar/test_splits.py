"""Splits of frames: what is tested on is not trained on, nor near it where the kind says so."""

from __future__ import annotations

import numpy as np
import pytest

from controller.allocators.mar.splits import KINDS, Kind, split


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [60, 90, 270, 1000])
def test_no_frame_is_in_both_and_a_third_is_tested(kind: Kind, frames: int) -> None:
    train, test = split(frames, kind, 3, history=15, lookahead=3)
    assert not np.intersect1d(train, test).size
    assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all()
    assert test[-1] < frames and len(test) == pytest.approx(frames / 3, abs=4)


def test_temporal_leaves_out_the_windows_before_the_test() -> None:
    train, test = split(270, "temporal", history=15, lookahead=10)
    assert test.tolist() == list(range(180, 270))
    assert train.tolist() == list(range(155))


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_whole_and_far_from_training(seed: int) -> None:
    train, test = split(270, "blocks", seed, history=15, lookahead=10)
    assert np.unique(test // 30).size == 3 and len(test) == 90
    assert np.abs(train[:, None] - test).min() == 11


def test_seeds_draw_other_frames_and_one_seed_the_same() -> None:
    for kind in ("blocks", "random"):
        drawn = [split(270, kind, seed, history=15, lookahead=10)[1].tolist() for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]


def test_too_few_frames_and_unknown_kinds() -> None:
    for frames, kind in ((0, "random"), (2, "random"), (2, "blocks"), (30, "temporal"), (12, "blocks")):
        with pytest.raises(ValueError, match=f"{frames} frames are too few"):
            split(frames, kind, history=15, lookahead=10)
    with pytest.raises(ValueError, match="'weekly'"):
        split(270, "weekly", history=15, lookahead=10)  # type: ignore[arg-type]
