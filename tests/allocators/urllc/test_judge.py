"""What becomes of tasks, as measures: in time, late, lost, never told of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.allocators.urllc.judge import Promise, judge, silent
from controller.allocators.urllc.options import UrllcOptions
from controller.core.measure import Outcome
from tests.allocators.urllc.factory import LOOP, LOST, NAN, TASK, flow, view

LATE = (0.05, 9.0, 0.02, 2.0, 11.07, 0.5, 0.0)
PROMISES = {f"d{i}": Promise(0.06, 2.0) for i in range(3)}
BUDGET = {f"d{i}": 3.0 for i in range(3)}


def outcome(tasks: dict[int, list[tuple[float, ...]]], **more: object) -> Outcome:
    promises = more.pop("promises", PROMISES)
    options = UrllcOptions(**more)  # type: ignore[arg-type]
    return judge(view(tasks=tasks), options, promises, BUDGET, LOOP.carrier, {})  # type: ignore[arg-type]


def test_tasks_in_time_late_and_lost_are_counted() -> None:
    found = outcome({0: [TASK] * 50, 1: [TASK] * 40 + [LATE] * 10, 2: [TASK] * 45 + [LOST] * 5})
    assert found.measure("on_time").values == (1.0, 0.8, 0.9)
    assert found.measure("loss").values == (0.0, 0.0, pytest.approx(0.1))
    assert found.measure("latency").values == (
        pytest.approx(3.07),
        pytest.approx(3.07 + 0.2 * 8.0),
        pytest.approx(3.07),
    )
    assert found.measure("latency_tail").values[1] == pytest.approx(11.07)
    assert found.measure("computing").values == (pytest.approx(0.07),) * 3
    assert found.measure("computing").targets == (0.06,) * 3
    assert found.measure("energy").values == (pytest.approx(0.5),) * 3
    assert found.measure("energy").targets == (3.0,) * 3
    assert found.counts == {
        "promises": 3,
        "promises_kept": 1,
        "tasks": 150,
        "tasks_on_time": 135,
        "tasks_lost": 5,
    }
    assert found.met == 0 and found.busy and found.promised


def test_the_slice_keeps_its_promise_where_so_many_devices_have_it_kept() -> None:
    tasks = {0: [TASK] * 50, 1: [TASK] * 50, 2: [LATE] * 50}
    assert outcome(tasks, users=0.6).met == 1
    assert outcome(tasks, users=1.0).met == 0
    assert outcome(tasks, promises={}).met is None


def test_a_task_at_the_deadline_is_in_time_whatever_32_bits_made_of_it() -> None:
    exact = (0.0, 5.0, 2.5, 2.5, 10.0000004, 0.5, 0.0)
    assert outcome({u: [exact] * 20 for u in range(3)}).met == 1


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ((-1.0, 2.0, 0.02, 1.0, 3.0, 0.5, 0.0), "latency below 0"),
        ((0.1, 2.0, 0.02, 1.0, 3.0, -0.5, 0.0), "energy below 0"),
        ((0.1, 2.0, 0.02, 1.0, 3.0, 0.5, 0.5), "lost neither 0 nor 1"),
        ((0.1, 2.0, 0.02, 1.0, NAN, 0.5, 0.0), "neither lost nor over"),
        ((float("inf"), 2.0, 0.02, 1.0, 3.0, 0.5, 0.0), "infinite"),
    ],
)
def test_rows_that_cannot_be_are_named_and_left_out(row: tuple[float, ...], fault: str) -> None:
    found = outcome({0: [TASK] * 10 + [row] * 2, 1: [TASK], 2: [TASK]})
    assert found.faults == {fault: 2} and found.counts["tasks"] == 12


def test_devices_of_whose_tasks_no_row_came_are_silent_unless_they_have_just_come() -> None:
    seen = view(tasks={0: [TASK] * 5})
    assert silent(seen) == {"d1", "d2"}
    newcomer = replace(flow(2), start_ns=seen.closed_ns - 1)
    assert silent(view(users=[flow(0), flow(1), newcomer], tasks={0: [TASK] * 5})) == {"d1"}
