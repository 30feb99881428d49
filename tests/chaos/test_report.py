"""A promise that is broken is named, and one that holds is not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from controller.links import ran_protocol
from tests.chaos.inputs import hostile
from tests.chaos.report import Outcome, Row, Snapshot, judge, table
from tests.chaos.world import CELL, Slots

REFUSED = "ran_malformed_total"
BEFORE = Snapshot(
    {(REFUSED, ""): 10}, {}, {"controller": 1}, {"controller": 80}, {"controller": 0}, Slots([1, 2])
)
AFTER = Snapshot(
    {(REFUSED, ""): 5010, (REFUSED, CELL): 9},
    {},
    {"controller": 1},
    {"controller": 82},
    {"controller": 20_000},
    Slots([1, 2, 3]),
)
SENT = Outcome(sent=5001, taken=1, counters=frozenset({REFUSED}), to_full=[3.2], to_control=[0.5])


def judged(outcome: Outcome = SENT, after: Snapshot = AFTER, peak: float = 90.0) -> Row:
    row = Row("attack", True)
    judge(row, outcome, BEFORE, after, victim="controller", peaks={"controller": peak}, untouched=CELL)
    return row


def test_what_holds_is_accounted_for_and_not_broken() -> None:
    row = judged()
    assert (row.broken, row.accounted, row.refused, row.slots) == ([], True, 5000, 1)
    assert row.log_bytes_per_refused == 4.0
    assert "yes" in table([row], {}).splitlines()[1]


@pytest.mark.parametrize(
    ("row", "promise"),
    [
        (lambda: judged(replace(SENT, sent=5002)), "5002 sent, 5000 counted"),
        (lambda: judged(replace(SENT, to_full=[None])), "full resources after never"),
        (lambda: judged(replace(SENT, to_full=[3.0, 9.0])), "full resources after 9.0 s"),
        (lambda: judged(replace(SENT, to_control=[0.1, None])), "no control again"),
        (lambda: judged(peak=400.0), "320 MiB at its peak"),
        (lambda: judged(after=replace(AFTER, rss_mib={"controller": 200})), "grew by 120 MiB"),
        (lambda: judged(after=replace(AFTER, log_bytes={"controller": 60_000})), "12.0 bytes of log"),
        (lambda: judged(after=replace(AFTER, slots=Slots([2, 3]))), "1 control slots lost"),
        (lambda: judged(after=replace(AFTER, slots=Slots([1, 2, 2], twice=1))), "1 twice"),
    ],
)
def test_what_does_not_hold_is_named(row: Callable[[], Row], promise: str) -> None:
    (broken,) = row().broken
    assert promise in broken
    assert f"BROKEN attack: {broken}" in table([row()], {})


def test_a_hello_in_the_name_of_the_untouched_cell_is_the_attackers() -> None:
    counters = AFTER.counters | {("ran_challenges_total", CELL): 1}
    refused = frozenset(ran_protocol.REFUSED)
    row = judged(replace(SENT, sent=5002, counters=refused), replace(AFTER, counters=counters))
    assert (row.broken, row.accounted, row.refused) == ([], True, 5001)


def test_a_process_that_was_restarted_has_counters_that_tell_nothing() -> None:
    row = judged(after=replace(AFTER, pids={"controller": 2}))
    assert row.refused is None and row.accounted is None


def test_a_seed_gives_the_same_bytes() -> None:
    drawn = [[hostile(random.Random(7), [b"valid"], 100) for _ in range(50)] for _ in range(2)]
    assert drawn[0] == drawn[1]
