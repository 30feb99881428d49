from __future__ import annotations

import json

import numpy as np
import pytest

from controller.twins.slice.windows import WINDOWS_MIN, SliceWindow, Tuning, dynamics

SHAPE = (4, 20, 30)
STILL = np.full(SHAPE, 1.5)


def test_dynamics_are_how_much_behaviour_and_environment_vary() -> None:
    uniform = np.broadcast_to(1.0 + (np.arange(600) + 0.5) / 600, (4, 600)).reshape(SHAPE)
    assert dynamics(STILL, STILL) == 0.0
    assert dynamics(uniform, uniform) == pytest.approx(1.0, abs=1e-4)
    assert dynamics(uniform, STILL) == pytest.approx(0.5, abs=1e-4) == dynamics(STILL, uniform)
    # Half of the users stand still.
    assert dynamics(np.concatenate([STILL[:2], uniform[2:]]), STILL) == pytest.approx(0.25, abs=1e-4)


def test_dynamics_are_along_a_future_and_among_the_futures_alike() -> None:
    along = np.where(np.arange(30) < 15, 1.2, 1.8) * np.ones(SHAPE)
    among = np.where(np.arange(20) < 10, 1.2, 1.8)[:, None] * np.ones(SHAPE)
    assert dynamics(along, STILL) == pytest.approx(dynamics(among, STILL))
    assert dynamics(1.5 + (along - 1.5) * 0.5, STILL) == pytest.approx(0.5 * dynamics(along, STILL))


def test_dynamics_are_at_most_1() -> None:
    extremes = np.where(np.arange(30) % 2, 1.0, 2.0) * np.ones(SHAPE)
    assert dynamics(extremes, extremes) == 1.0


def test_five_stages_have_five_windows_and_higher_dynamics_never_a_longer_one() -> None:
    rng = np.random.default_rng(1)
    window = SliceWindow()
    assert [window.minutes(i) for i in (0.0, 0.3, 0.5, 0.7, 1.0)] == [15, 12, 9, 6, 3]
    for _ in range(100):
        minutes = [window.minutes(i) for i in np.linspace(0.0, 1.0, 101)]
        assert minutes == sorted(minutes, reverse=True)
        assert set(minutes) <= set(WINDOWS_MIN)
        window.feedback(rng.random())


def test_short_of_the_target_windows_get_shorter_and_with_room_longer() -> None:
    def after(met: float, times: int) -> list[int]:
        window = SliceWindow()
        for _ in range(times):
            window.feedback(met)
        return [window.minutes(i) for i in np.linspace(0.0, 1.0, 101)]

    before = after(0.92, 40)
    assert before == after(0.92, 0)
    short, room = after(0.5, 40), after(1.0, 40)
    assert all(a <= b for a, b in zip(short, before, strict=True)) and short != before
    assert all(a >= b for a, b in zip(room, before, strict=True)) and room != before


def test_thresholds_move_slowly_and_stay_within_their_bound() -> None:
    tuning = Tuning(step=0.02, bound=0.05, patience=3)
    window = SliceWindow(tuning)
    seen = [window.thresholds]
    for _ in range(30):
        window.feedback(0.0)
        seen.append(window.thresholds)
    first = [t[0] for t in seen]
    assert first[:3] == [0.2] * 3 and first[3] == pytest.approx(0.18)
    assert first[-1] == pytest.approx(0.16)  # a third step would pass the bound


def test_feedback_that_swings_moves_nothing() -> None:
    window = SliceWindow()
    before = window.thresholds
    for _ in range(50):
        window.feedback(0.5)
        window.feedback(1.0)
    assert window.thresholds == before
    for met in (0.5, 0.92) * 20:  # what is in between breaks the row
        window.feedback(met)
    assert window.thresholds == before


def test_a_network_that_answers_comes_to_rest() -> None:
    window, moved = SliceWindow(), []
    for _ in range(200):
        met = 0.98 - 0.005 * window.minutes(0.5) - 0.3 * (window.thresholds[2] - 0.5)
        window.feedback(min(met, 1.0))
        moved.append(window.thresholds[0])
    assert len(set(moved[-50:])) == 1


def test_the_state_goes_through_json() -> None:
    rng = np.random.default_rng(2)
    window = SliceWindow()
    for _ in range(37):
        window.feedback(rng.random())
    resumed = SliceWindow.from_state(json.loads(json.dumps(window.to_state())))
    assert resumed.to_state() == window.to_state()
    for met in rng.random(40):
        window.feedback(met)
        resumed.feedback(met)
        assert resumed.thresholds == window.thresholds


def test_what_cannot_be_is_refused() -> None:
    for behaviour, environment, why in (
        (np.ones((0, 2, 2)), np.ones((0, 2, 2)), "behaviour of shape"),
        (np.ones((2, 2)), np.ones((2, 2)), "behaviour of shape"),
        (STILL, STILL[1:], "environment of shape"),
        (STILL, np.full(SHAPE, np.nan), "environment outside"),
        (STILL + 1.0, STILL, "behaviour outside"),
    ):
        with pytest.raises(ValueError, match=why):
            dynamics(behaviour, environment)
    window = SliceWindow()
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="dynamics"):
            window.minutes(wrong)
        with pytest.raises(ValueError, match="share"):
            window.feedback(wrong)
    for thresholds in (
        (0.1, 0.2, 0.3),
        (0.1, 0.3, 0.2, 0.4),
        (0.0, 0.2, 0.3, 0.4),
        (0.1, 0.2, 0.3, float("nan")),
    ):
        with pytest.raises(ValueError, match="thresholds"):
            Tuning(thresholds)
    for options in ({"step": 0.0}, {"bound": -1.0}, {"patience": 0}, {"target": 1.5}, {"room": float("nan")}):
        with pytest.raises(ValueError):
            Tuning(**options)
    for state in (
        {},
        {"moves": 0},
        {"moves": 50, "streak": 0},
        {"moves": 0, "streak": 9},
        {"moves": 0.5, "streak": 0},
    ):
        with pytest.raises(ValueError, match="slice window"):
            SliceWindow.from_state(state)
