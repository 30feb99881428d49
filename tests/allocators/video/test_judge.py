"""What a control slot is judged to have come to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controller.allocators.video.judge import LEAST_SCORES, Promise, Seen, judge
from controller.allocators.video.options import VideoOptions
from controller.core.measure import Outcome
from tests.allocators.video.viewers import LOOP, STALLS, Cell

PROMISE = Promise(2700.0, 2000.0, 5.0, 4.0, 0.5, 0.7, True)
FLOWS = ("u0", "u1", "u2")


def outcome(**changes: Any) -> Outcome:
    """Of three users with agreements of 3.5; scores, promises and what they saw by flow."""
    given: dict[str, Any] = {
        "options": VideoOptions(users=0.7),
        "scores": {},
        "promised": {},
        "seen": {},
        "promises": dict.fromkeys(FLOWS, PROMISE),
        "agreements": dict.fromkeys(FLOWS, 3.5),
        "unattributed": {},
        "faults": {},
        "view": Cell.of(STALLS, STALLS, STALLS).view(),
        **changes,
    }
    return judge(carrier=LOOP.carrier, **given)


def test_a_promise_is_kept_by_a_share_of_users_rounded_down() -> None:
    good, bad = [4.0, 3.0, 4.0], [3.0, 3.0, 3.0]
    for kept, met in (((good, good, bad), 1), ((good, bad, bad), 0), ((good, good, good), 1)):
        found = outcome(promised=dict(zip(FLOWS, kept, strict=True)))
        assert found.met == met == found.measures[0].met and found.promised
        assert found.counts["promises"] == 3 and found.counts["promises_kept"] == sum(k is good for k in kept)


def test_the_agreement_itself_is_enough_and_a_few_scores_are_not() -> None:
    assert outcome(promised={"u0": [3.5] * LEAST_SCORES}).met == 1
    few = outcome(promised={"u0": [1.0] * (LEAST_SCORES - 1)}, scores={"u0": [1.0] * (LEAST_SCORES - 1)})
    assert few.met is None and not few.busy and few.counts["promises"] == 0


def test_scores_without_a_promise_are_told_and_break_none() -> None:
    found = outcome(scores={"u0": [1.0, 1.0, 1.0]}, promises={"u0": replace(PROMISE, kept=False)})
    assert found.met is None and found.busy and not found.promised
    assert found.measures[0].values == (1.0, None, None) and found.measures[0].targets == (3.5, 3.5, 3.5)
    assert found.counts["out_of_reach"] == 1


def test_who_was_not_there_all_the_time_is_not_judged() -> None:
    view = Cell.of(STALLS, STALLS, STALLS).view()
    users = (replace(view.users[0], start_ns=view.end_ns - 1), *view.users[1:])
    found = outcome(view=replace(view, users=users), promised=dict.fromkeys(FLOWS, [1.0] * 3))
    assert found.counts["promises"] == 2


def test_what_was_seen_stands_beside_what_was_to_be() -> None:
    found = outcome(seen={"u1": Seen(2.0, 0.6, 2500.0), "u2": Seen(60.0, 0.0, None)})
    by_name = {m.name: m for m in found.measures}
    assert by_name["stalled"].values == (None, 2.0, 60.0) and by_name["stalled"].targets == (0.5,) * 3
    assert by_name["throughput"].values == (None, 2500.0, None)
    assert by_name["quality"].samples == found.counts["ratings"] == 2
    assert by_name["bitrate"].values == (2000.0,) * 3
    assert all(len(m.values) == len(m.targets) == 3 for m in found.measures)


def test_an_agreement_that_was_not_sent_is_that_of_the_options() -> None:
    found = outcome(agreements={}, options=VideoOptions(ela=2.0), promised={"u0": [2.5] * 3})
    assert found.measures[0].targets == (2.0,) * 3 and found.met == 1


def test_nobody_is_judged_to_nothing() -> None:
    found = outcome(view=Cell.of().view(), promises={})
    assert found.met is None and not found.busy and found.users == ()
    assert np.array([len(m.values) for m in found.measures]) == pytest.approx(0)
