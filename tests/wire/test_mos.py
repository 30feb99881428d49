"""Opinions: the principles, the impact of B and C, and scores on a scale with ends."""

from __future__ import annotations

import numpy as np
import pytest

from wire.definitions import mos


def test_principles_as_the_paper_has_them() -> None:
    assert float(mos.service_quality("stalls", 5.0, 0.3)) == 3.0
    assert float(mos.service_quality("quality", 5.0, 0.25)) == 2.0
    assert float(mos.service_quality("combined", 5.0, 0.75)) == 2.0
    with pytest.raises(ValueError, match="'best' is none of"):
        mos.service_quality("best", 0.0, 0.0)


@pytest.mark.parametrize("shape", mos.IMPACTS)
def test_impact_falls_with_what_is_minded_alone(shape: str) -> None:
    grid = np.linspace(1.0, 2.0, 11)
    assert float(mos.impact(shape, 1.0, 1.0, (0.3, 0.2))) == 1.0
    for b, c, weights in ((grid, 1.5, (0.3, 0.0)), (1.5, grid, (0.0, 0.3))):
        assert (np.diff(mos.impact(shape, b, c, weights)) < 0.0).all()
    assert np.ptp(mos.impact(shape, grid, 1.0, (0.0, 0.2))) == 0.0
    assert float(mos.impact(shape, 2.0, 2.0, (0.9, 0.9))) >= 0.0
    with pytest.raises(ValueError, match="'flat' is none of"):
        mos.impact("flat", 1.0, 1.0, (0.0, 0.0))


@pytest.mark.parametrize("mean", [-30.0, -1.0, 1.0, 2.2, 3.0, 4.8, 7.0, 30.0])
@pytest.mark.parametrize("deviation", [0.8, 1.0])
def test_the_mean_of_scores_is_that_of_their_law(mean: float, deviation: float) -> None:
    uniform = (np.arange(4000) + 0.5) / 4000
    scores = np.array([mos.score(mean, deviation, float(u)) for u in uniform])
    assert scores.min() >= 1.0 and scores.max() <= 5.0 and (np.diff(scores) >= 0.0).all()
    assert scores.mean() == pytest.approx(mos.mean_score(mean, deviation), abs=2e-3)


def test_factors_stay_in_their_range() -> None:
    assert mos.behaviour([0.0, 6.0, 12.0, 60.0]).tolist() == [1.0, 1.5, 2.0, 2.0]
    assert mos.environment([0.0, 2.0, 21.0, 40.0, 90.0]).tolist() == [2.0, 2.0, 1.5, 1.0, 1.0]


def test_quality_is_0_to_1_over_the_ladder() -> None:
    q = mos.quality((0.0, *mos.BITRATES_KBPS, 9000.0))
    assert q[:2].tolist() == [0.0, 0.0] and q[-2:].tolist() == [1.0, 1.0]
    assert (np.diff(q[1:-1]) > 0.0).all()
