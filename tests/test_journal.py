"""What is written down of a running controller: everything, but of a flood little."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from controller import journal as journal_module
from controller.journal import BURST, REPEAT_S, Event, Journal
from tests.test_cell import Memory


class Clock:
    def __init__(self) -> None:
        self.ns = 1_800_000_000_000_000_000

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory() -> Memory:
    return Memory()


def test_of_a_flood_little_is_written_and_all_is_counted(
    clock: Clock, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(store=memory, time_ns=clock)
    with caplog.at_level(logging.INFO, "prbandit.controller"):
        for i in range(10_000):
            journal.event("cell-1", Event.HOST_LEFT, f"the QoS stream of h{i} ended")
            clock.ns += 1_000_000
    written = BURST + int(10 / REPEAT_S) - 1
    assert abs(len(memory.events) - written) <= 1 and len(caplog.records) == len(memory.events)
    counted = journal.counters.get("events_total", "cell-1") + journal.counters.get(
        "events_thinned_total", "cell-1"
    )
    assert counted == 10_000
    assert "more of its kind were not written)" in caplog.records[-1].getMessage()


def test_a_flood_in_one_cell_of_one_kind_thins_no_other_and_no_command(clock: Clock, memory: Memory) -> None:
    journal = Journal(store=memory, time_ns=clock)
    for _ in range(1000):
        journal.event("cell-1", Event.HOST_LEFT, "ended")
        journal.event("cell-1", Event.SET_MODE, "active")
    memory.events.clear()
    journal.event("cell-2", Event.HOST_LEFT, "ended")
    journal.event("cell-1", Event.CELL_LOST, "silent")
    journal.event("cell-1", Event.SET_MODE, "active")
    assert memory.events == [Event.HOST_LEFT, Event.CELL_LOST, Event.SET_MODE]


def test_a_clock_that_is_set_back_stops_no_event(clock: Clock, memory: Memory) -> None:
    journal = Journal(store=memory, time_ns=clock)
    journal.event("cell-1", Event.HOST_LEFT, "ended")
    clock.ns -= 3_600_000_000_000
    for _ in range(5):
        clock.ns += 1_000_000_000
        journal.event("cell-1", Event.HOST_LEFT, "ended")
    assert len(memory.events) == 6


def test_threads_that_tell_at_once_write_no_more_and_count_all(
    clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(journal_module._Written):
        """Another thread has its turn between what is read and what is written."""

        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            time.sleep(0.0005)
            return value

    monkeypatch.setattr(journal_module, "_Written", Slow)
    journal = Journal(store=memory, time_ns=clock)
    with ThreadPoolExecutor(4) as pool:
        told = [pool.submit(journal.event, "", Event.CALL_REFUSED, "no") for _ in range(2 * BURST)]
    assert all(t.exception() is None for t in told)
    assert len(memory.events) == BURST == journal.counters.get("events_thinned_total")
    clock.ns += int(REPEAT_S * 1e9)
    journal.event("", Event.CALL_REFUSED, "no")
    assert memory.texts[-1] == f"no ({BURST} more of its kind were not written)"
