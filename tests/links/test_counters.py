"""Counting from many threads, and complaints that do not flood the log."""

from __future__ import annotations

import logging
import threading

import pytest

from controller.links.counters import Complaints, Counters


def test_no_count_is_lost_between_threads() -> None:
    counters = Counters()

    def count() -> None:
        for _ in range(2000):
            counters.inc("n", "cell-1")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters.inc("n", "cell-2", 5)
    assert counters.snapshot() == {("n", "cell-1"): 8000, ("n", "cell-2"): 5}
    assert counters.get("n") == 8005
    assert counters.get("n", "cell-2") == 5
    assert counters.get("other") == 0


def test_every_complaint_is_counted_and_one_of_a_kind_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    counters = Counters()
    complain = Complaints(counters, logging.getLogger("test"), every_s=5, clock=lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for i in range(10):
            complain("bad_total", f"report {i}", "cell-1")
        complain("bad_total", "another cell", "cell-2")
        now[0] += 5
        complain("bad_total", "report 10", "cell-1")
    assert counters.get("bad_total", "cell-1") == 11
    assert [r.getMessage() for r in caplog.records] == [
        "cell cell-1: report 0",
        "cell cell-2: another cell",
        "cell cell-1: report 10 (9 more of this kind before)",
    ]
