"""The TCP-based baseline."""

from __future__ import annotations

import pytest

from controller.policies import Feedback, make, restore


def moves(actions: tuple[int, ...], bits: str) -> list[int]:
    policy = make("aimd", actions)
    played = [policy.pull()]
    for q in bits:
        policy.update(played[-1], Feedback(int(q)))
        played.append(policy.pull())
    return played


def test_it_starts_at_the_smallest_action_from_half_the_largest() -> None:
    assert moves((10, 30, 50, 70, 90), "") == [50]
    assert moves((10, 30, 45, 90), "") == [45]
    assert moves(tuple(range(500, 1700, 100)), "") == [800]
    assert moves((40,), "") == [40]


def test_success_goes_one_action_down_and_stops_at_the_smallest() -> None:
    assert moves((10, 30, 50, 70, 90), "1111") == [50, 30, 10, 10, 10]


def test_violation_doubles_and_stops_at_the_largest() -> None:
    # 2 x 10 = 20 -> 30, 2 x 30 = 60 -> 70, 2 x 70 = 140 -> the largest.
    assert moves((10, 30, 50, 70, 90), "110000") == [50, 30, 10, 30, 70, 90, 90]
    # Exactly twice the present action is enough.
    assert moves((10, 20, 30, 40, 60), "1100") == [30, 20, 10, 20, 40]


def test_it_moves_from_its_present_value() -> None:
    policy = make("aimd", (10, 30, 50, 70, 90))
    assert policy.pull() == 50
    policy.update(10, Feedback(1))
    assert policy.pull() == 30
    policy.update(10, Feedback(0))
    assert policy.pull() == 70


def test_it_says_how_it_moved() -> None:
    policy = make("aimd", (10, 30, 50))
    said = []
    for q in (1, 1, 0, 0, 0):
        action = policy.pull()
        said.append(policy.explain().reason)
        policy.update(action, Feedback(q))
    assert said == ["first visit", "decrease", "hold", "increase", "increase"]


def test_a_state_of_other_actions_is_refused() -> None:
    state = make("aimd", (10, 30, 50)).to_state()
    with pytest.raises(ValueError, match="present 31"):
        restore({**state, "present": 31})


def test_what_was_met_with_more_does_not_lower_it_and_what_was_missed_with_more_raises_it() -> None:
    policy = make("aimd", [10, 30, 50, 70, 90])
    assert policy.pull() == 50
    policy.update(90, Feedback(1))
    assert policy.pull() == 50
    policy.update(70, Feedback(0))
    assert policy.pull() == 90
