"""Who watches: states, swipes and the ways of users."""

from __future__ import annotations

import numpy as np
import pytest

from wire.definitions import mobility, mos, viewing


def test_requests_come_at_their_rate_and_scatter_with_the_state() -> None:
    each = [viewing.draw_behaviour(np.random.default_rng(seed), 3600.0) for seed in range(60)]
    per_min = np.array([len(b.swipes_s) / 60.0 for b in each])
    assert per_min.mean() == pytest.approx(viewing.REQUESTS_PER_MIN, rel=0.05)
    minutes = np.concatenate([np.bincount((b.swipes_s // 60).astype(int), minlength=60) for b in each])
    assert minutes.var() > 1.5 * minutes.mean()
    for b in each:
        assert (np.diff(b.swipes_s) >= 0.0).all() and b.since_s[0] == 0.0
        assert (np.diff(b.state) != 0).all()


def test_more_time_goes_on_from_less() -> None:
    short, long = (viewing.draw_behaviour(np.random.default_rng(1), s) for s in (500.0, 2000.0))
    np.testing.assert_array_equal(short.swipes_s, long.swipes_s[long.swipes_s < 500.0])
    np.testing.assert_array_equal(short.state, long.state[: len(short.state)])


def test_swipes_are_counted_over_the_last_minute() -> None:
    b = viewing.Behaviour(np.zeros(1), np.zeros(1, np.int64), np.array([1.0, 2.0, 70.0, 80.0, 80.5]))
    assert b.swipes_per_min(np.array([0.0, 2.0, 20.0, 61.5, 80.0, 500.0])).tolist() == [0, 12, 6, 1, 2, 0]


def test_viewers_are_spread_over_principles_and_agreements() -> None:
    rng = np.random.default_rng(2)
    viewers = [viewing.draw_viewer(rng) for _ in range(600)]
    for names, of in ((mos.PRINCIPLES, "principle"), (mos.IMPACTS, "impact")):
        assert all(150 < sum(getattr(v, of) == name for v in viewers) < 250 for name in names)
    ela = np.array([v.ela for v in viewers])
    assert ela.min() >= 3.0 and ela.max() <= 5.0 and ela.mean() == pytest.approx(4.0, abs=0.1)
    assert np.mean([v.weights[0] == 0.0 for v in viewers]) == pytest.approx(0.3, abs=0.06)


def test_users_move_at_their_speed_within_the_area() -> None:
    positions, speeds = mobility.walks(np.random.default_rng(3), 4, 900, (1200.0, 800.0))
    assert positions.shape == (4, 901, 2) and speeds.shape == (4, 901)
    assert speeds.min() >= 2.0 and speeds.max() <= 40.0 and np.ptp(speeds) > 30.0
    assert (positions >= 0.0).all() and (positions <= (1200.0, 800.0)).all()
    step = np.linalg.norm(np.diff(positions, axis=1), axis=-1)
    # As the crow flies it is less round a corner.
    assert (step <= speeds[:, :-1] / 3.6 + 1e-9).all()
    assert step.sum() == pytest.approx(speeds[:, :-1].sum() / 3.6, rel=0.02)
