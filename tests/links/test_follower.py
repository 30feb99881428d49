"""A controller that is followed across its restarts, over a real gRPC socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controller.links.counters import Counters
from controller.links.follower import Connection, Decided, Follower, Lost, MetAgain, Seen
from controller.links.operator import Broadcaster, CellStatus, OperatorClient, OperatorError, OperatorServer
from tests.links.test_operator import Target, record, until


class Restarted:
    """An operator API that can be stopped and started again at one address."""

    def __init__(self) -> None:
        self.target = Target()
        self.address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        self.broadcaster = Broadcaster(Counters())
        self.server = OperatorServer(self.address, None, self.target, self.broadcaster)
        self.address = f"127.0.0.1:{self.server.port}"
        self.server.start()

    def last(self, slot: int) -> None:
        self.target.cells = [CellStatus("cell-1", last=record(slot)), CellStatus("cell-2")]

    def decide(self, slot: int) -> None:
        self.last(slot)
        self.broadcaster.publish(record(slot))

    def stop(self) -> None:
        self.server.close(0)

    def client(self) -> OperatorClient:
        return OperatorClient(self.address, timeout_s=5.0)


@pytest.fixture
def controller() -> Iterator[Restarted]:
    controller = Restarted()
    yield controller
    controller.stop()


def take(told: Iterator[Decided | Lost | MetAgain]) -> object:
    """What comes next, a decision as its control slot and what was missed before it."""
    one = next(told)
    return (one.record["control_slot"], one.missed) if isinstance(one, Decided) else one


def test_a_restart_is_told_and_what_was_missed_counted_once(controller: Restarted) -> None:
    controller.last(3)
    follower = Follower(controller.client, latest=True, retry_s=0.05)
    told = iter(follower)
    assert take(told) == (3, 0), "the one in force comes first where it is asked for"
    until(lambda: len(controller.broadcaster))
    controller.decide(4)
    assert take(told) == (4, 0)

    controller.stop()
    lost = take(told)
    assert isinstance(lost, Lost) and lost.why
    controller.last(9)
    controller.start()
    while not isinstance(again := take(told), MetAgain):
        assert isinstance(again, Lost) and again.since == lost.since, "since when does not move"
    assert take(told) == (9, 4), "5 to 8 were decided unseen"
    until(lambda: len(controller.broadcaster))
    controller.broadcaster.publish(record(9))  # of the state and of the stream: once
    controller.decide(10)
    assert take(told) == (10, 0)

    follower.close()
    assert list(told) == []


def test_a_run_that_begins_anew_is_not_a_gap(controller: Restarted) -> None:
    told = iter(Follower(controller.client, "cell-1", latest=True, retry_s=0.05))
    controller.last(7)
    assert take(told) == (7, 0)
    controller.stop()
    controller.last(1)
    controller.start()
    while not isinstance(take(told), MetAgain):
        pass
    assert take(told) == (1, None), "nobody can count what came between"


def test_who_never_answered_is_an_error_and_not_waited_for(controller: Restarted) -> None:
    controller.stop()
    with pytest.raises(OperatorError, match="no controller answers"):
        next(iter(Follower(controller.client)))
    controller.start()
    with pytest.raises(OperatorError, match="unknown cell 'nosuch'"):
        next(iter(Follower(controller.client, "nosuch")))


def test_a_slot_that_is_decided_twice_is_not_missed() -> None:
    seen = Seen()
    assert [seen.take(record(n)).missed for n in (1, 2, 2, 5, 3)] == [0, 0, 0, 2, None]
    assert seen.knows(record(3)) and not seen.knows(record(5))


def test_a_connection_that_a_restart_left_behind_is_not_used(controller: Restarted) -> None:
    connection = Connection(controller.client)
    assert connection.client().set_mode("cell-1", "active")
    controller.stop()
    with pytest.raises(OperatorError):
        connection.client()
    controller.start()
    assert connection.client().set_mode("cell-1", "shadow"), "at once, whatever the old one waits for"
    assert [told[2] for told in controller.target.told] == ["active", "shadow"], "each command once"
    connection.close()
