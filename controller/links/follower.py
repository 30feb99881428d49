"""A controller as one sees it for as long as one likes, across its restarts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controller.links.operator import OperatorClient, OperatorError, Watch

Connect = Callable[[], OperatorClient]
"""Makes a client. OSError or ValueError where that is not possible."""

RETRY_S = 1.0


class Connection:
    """An operator client that is made anew where the old one has lost its controller.

    Any thread may use it.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._mutex = threading.Lock()
        self._client: OperatorClient | None = None

    def client(self) -> OperatorClient:
        """One whose controller has just answered: a command is sent once, and not into a connection that a
        restart has left behind. OperatorError, or what ``connect`` raises, where none answers."""
        with self._mutex:
            if self._client is not None:
                try:
                    self._client.hello()
                except OperatorError:
                    self._drop()
                else:
                    return self._client
            self._client = self._connect()
            try:
                self._client.hello()
            except BaseException:
                self._drop()
                raise
            return self._client

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def close(self) -> None:
        with self._mutex:
            self._drop()


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision record, and how many of its cell's were made unseen before it; None where they cannot be
    counted, as the controller counts its control slots anew."""

    record: dict[str, Any]
    missed: int | None = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """The controller cannot be reached since ``since`` (Unix time, s), and why; told again where the reason
    has become another."""

    since: float
    why: str


@dataclass(frozen=True, slots=True)
class MetAgain:
    """It answers again, of what version."""

    version: str


class Seen:
    """The control slots of each cell that were seen."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}

    def knows(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is the latest that was taken of its cell."""
        return self._last.get(record["cell"]) == _key(record)

    def take(self, record: dict[str, Any]) -> Decided:
        before = self._last.get(record["cell"])
        self._last[record["cell"]] = _key(record)
        if before is None or before[0] < record["control_slot"]:
            return Decided(record, 0 if before is None else record["control_slot"] - before[0] - 1)
        return Decided(record, None if before != _key(record) else 0)


def _key(record: Mapping[str, Any]) -> tuple[int, int]:
    return record["control_slot"], record["time_ns"]


class Follower:
    """Iterates over the decisions of a cell (empty: of all) from now on, and over what became of the link.

    With ``latest`` the one that is in force comes first.
    What cannot be reached at first is an error (OSError, ValueError); once it was met, it is tried again for
    ever. :meth:`close`, from any thread, ends the iteration.
    """

    def __init__(
        self, connect: Connect, cell: str = "", *, latest: bool = False, retry_s: float = RETRY_S
    ) -> None:
        self._connect, self._cell, self._latest, self._retry_s = connect, cell, latest, retry_s
        self._closed = threading.Event()
        self._mutex = threading.Lock()
        self._watch: Watch | None = None
        self._seen = Seen()

    def __iter__(self) -> Iterator[Decided | Lost | MetAgain]:
        met, since, told = False, 0.0, ""
        while not self._closed.is_set():
            try:
                with self._connect() as client:
                    watch = client.watch(self._cell)
                    if not self._holds(watch):
                        return
                    state = client.state()
                    if told:
                        yield MetAgain(client.controller_version)
                    told, again, met = "", met, True
                    yield from self._decisions(state, watch, again)
                why = "it has ended the connection"
            except (OSError, ValueError) as error:
                if not met:
                    raise
                why = str(error)
            finally:
                self._holds(None)
            if self._closed.is_set():
                return
            if why != told:
                since = since if told else time.time()
                told = why
                yield Lost(since, why)
            self._closed.wait(self._retry_s)

    def _holds(self, watch: Watch | None) -> bool:
        """Take the stream that :meth:`close` cancels; False where it is closed already."""
        with self._mutex:
            self._watch = watch
            if watch is not None and self._closed.is_set():
                watch.cancel()
            return not self._closed.is_set()

    def _decisions(self, state: Mapping[str, Any], watch: Watch, again: bool) -> Iterator[Decided]:
        until: dict[str, int] = {}
        for last in [cell["last"] for cell in state["cells"]] if again or self._latest else ():
            if last is None or self._cell not in ("", last["cell"]):
                continue
            until[last["cell"]] = last["control_slot"]
            if not self._seen.knows(last):
                yield self._seen.take(last)
        for record in watch:
            # The subscription began before the state was read: what is in both comes once.
            if record["control_slot"] <= until.get(record["cell"], -1):
                continue
            until.pop(record["cell"], None)
            yield self._seen.take(record)

    def close(self) -> None:
        with self._mutex:
            self._closed.set()
            if self._watch is not None:
                self._watch.cancel()
