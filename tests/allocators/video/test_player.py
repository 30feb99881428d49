"""The compiled player of many users, at bitrates that change while segments are there and under way."""

from __future__ import annotations

import numpy as np
import pytest

from controller.allocators.video.player import STATE, STEPS_PER_S, SUMS, play
from wire.definitions import mos


class Viewer:
    """One user who fetches at a rate, second by second."""

    def __init__(self) -> None:
        self.state = np.zeros((1, len(STATE)))
        self.under_way_s = np.zeros(1)
        self.sums = np.zeros((1, len(SUMS)))

    def watch(
        self, seconds: int, kbps: float, bitrate_kbps: float, prefetch: int = 0, swipe: bool = False
    ) -> None:
        swipes = np.zeros((1, seconds * STEPS_PER_S), np.int64)
        swipes[0, 0] = swipe
        play(
            self.state,
            self.under_way_s,
            self.sums,
            np.full((1, seconds), kbps),
            np.full(1, bitrate_kbps),
            mos.quality(np.full(1, bitrate_kbps)),
            np.full(1, float(prefetch)),
            swipes,
            1.0,
        )

    def sum(self, name: str) -> float:
        return float(self.sums[0, SUMS.index(name)])

    def of(self, name: str) -> float:
        return float(self.state[0, STATE.index(name)])


def test_first_segments_are_shown_at_the_quality_at_which_they_were_fetched() -> None:
    viewer = Viewer()
    viewer.watch(10, 5000.0, 500.0, prefetch=4)
    assert viewer.of("first_segments") == 4.0
    viewer.watch(10, 20_000.0, 3000.0, prefetch=4)
    before = viewer.sum("shown_quality_s")
    viewer.watch(1, 0.0, 3000.0, prefetch=4, swipe=True)
    assert viewer.sum("shown_quality_s") == pytest.approx(before)


def test_a_segment_under_way_stays_what_it_is_when_the_bitrate_changes() -> None:
    viewer = Viewer()
    viewer.watch(1, 2900.0, 3000.0)
    viewer.watch(1, 50.0, 500.0)
    assert viewer.sum("segments") == 0.0 and viewer.sum("stalled_s") == pytest.approx(2.0)
    viewer.watch(1, 500.0, 500.0)
    assert viewer.sum("segments") == 1.0
    assert viewer.of("ahead_quality") == pytest.approx(1.0)
    assert viewer.sum("fetched_kbit") == pytest.approx(2900.0 + 50.0 + 500.0)


def test_what_was_fetched_was_shown_wasted_or_is_there() -> None:
    rng = np.random.default_rng(1)
    viewer = Viewer()
    for _ in range(60):
        kbps = float(rng.uniform(0.0, 4000.0))
        viewer.watch(5, kbps, 1000.0, int(rng.integers(5)), bool(rng.integers(2)))
    there = 1000.0 * (viewer.of("ahead_s") + viewer.of("first_segments"))
    there += viewer.of("fetched_kbit") if viewer.of("target") else 0.0
    shown = 1000.0 * (300.0 - viewer.sum("stalled_s"))
    assert viewer.sum("fetched_kbit") == pytest.approx(shown + viewer.sum("wasted_kbit") + there, rel=1e-6)
