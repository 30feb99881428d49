"""The static baseline."""

from __future__ import annotations

import pytest

from controller.policies import Feedback, make


def test_it_plays_the_largest_action_whatever_comes_back() -> None:
    policy = make("static", (10, 50, 106))
    for q in (0, 1, 0):
        assert policy.pull() == 106
        policy.update(106, Feedback(q))
    assert policy.explain().reason == "fixed"


def test_it_plays_the_action_of_its_option() -> None:
    assert make("static", (10, 50, 106), action=50).pull() == 50


@pytest.mark.parametrize("action", [11, "10", 10.5, 0])
def test_the_option_is_one_of_the_actions(action: object) -> None:
    with pytest.raises(ValueError, match=f"option action {action!r}"):
        make("static", (10, 50, 106), action=action)
