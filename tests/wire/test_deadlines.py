"""Requests that take too long, or are too many, end; the others do not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from wire.deadlines import CROWDED, LATE, Deadlines

PATIENCE_S = 30.0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)


class Ended:
    """Who was ended, and why."""

    def __init__(self) -> None:
        self.reasons: list[tuple[str, str]] = []

    def by(self, name: str) -> Callable[[str], None]:
        return lambda why: self.reasons.append((name, why))


@contextmanager
def busy(deadlines: Deadlines) -> Iterator[None]:
    """The thread that ends late requests is busy with another one meanwhile."""
    began, finish = threading.Event(), threading.Event()

    def end(why: str) -> None:
        began.set()
        finish.wait(PATIENCE_S)

    deadlines.begin("busy", end)
    assert began.wait(PATIENCE_S)
    try:
        yield
    finally:
        finish.set()


def test_what_takes_too_long_ends_and_what_is_over_does_not() -> None:
    ended, deadlines = Ended(), Deadlines(0.05)
    with busy(deadlines):
        over = deadlines.begin("a", ended.by("over"))
        deadlines.begin("a", ended.by("late"))
        deadlines.done(over)
    until(lambda: ended.reasons == [("late", LATE)])
    assert len(deadlines) == 0
    # It goes on after a time without any.
    until(lambda: not deadlines._running)
    deadlines.begin("a", ended.by("later"))
    until(lambda: ended.reasons[-1] == ("later", LATE))


def test_for_one_too_many_the_oldest_of_the_peer_with_the_most_ends() -> None:
    ended, deadlines = Ended(), Deadlines(60.0, room=4)
    for name in ("honest", "a", "a2", "a3", "a4", "other"):
        deadlines.begin(name[0], ended.by(name))
    assert ended.reasons == [("a", CROWDED), ("a2", CROWDED)]
    assert len(deadlines) == 4


def test_a_request_is_ended_once_and_may_be_over_twice() -> None:
    ended, deadlines = Ended(), Deadlines(0.05, room=1)
    with busy(deadlines):
        first = deadlines.begin("a", ended.by("first"))
        second = deadlines.begin("b", ended.by("second"))
        deadlines.done(second)
        deadlines.done(second)
        deadlines.begin("c", ended.by("last"))
    # Requests end in the order in which they began.
    until(lambda: len(deadlines) == 0 and len(ended.reasons) > 1)
    deadlines.done(first)
    assert ended.reasons == [("first", CROWDED), ("last", LATE)]


def test_after_a_thread_that_cannot_start_later_requests_still_end(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, deadlines = Ended(), Deadlines(0.05)

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            deadlines.begin("a", requests.by("refused"))
        assert len(deadlines) == 0
    deadlines.begin("b", requests.by("late"))
    until(lambda: requests.reasons == [("late", LATE)])


def test_an_end_that_fails_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    ended, deadlines = Ended(), Deadlines(0.05)

    def fail(why: str) -> None:
        raise RuntimeError(why)

    deadlines.begin("a", fail)
    deadlines.begin("a", ended.by("second"))
    until(lambda: ended.reasons == [("second", LATE)])
    assert "a request of a could not be ended" in caplog.text
