"""One exchange after the other: what a player that fetches segments does. The end of an exchange calls it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from agents.emulator.applications.base import (
    Application,
    Exchanges,
    ExchangeTimes,
    SampleRows,
    Settings,
    UnitTestCase,
)
from agents.emulator.spec import UserSpec

REQUEST_BYTES = 200
PAUSE_NS = 20_000_000
POLL_NS = 100_000_000
PATIENCE_NS = 3_000_000_000
"""After this a user fetches the next segment although the last one has not come."""


class Chain(Application):
    """A request, ``size_bytes`` back, a pause of 20 ms."""

    name: ClassVar[str] = "chain"
    service: ClassVar[str] = "segments"
    settings: ClassVar[Mapping[str, int]] = {"size_bytes": 1}
    tables: ClassVar[Mapping[str, int]] = {"segment": 2}
    wakes: ClassVar[bool] = True

    def __init__(self, users: Sequence[UserSpec], seed: int) -> None:
        super().__init__(users, seed)
        self._size = np.array([int(u.options.get("size_bytes", 50_000)) for u in users])
        self._begin = np.zeros(len(users), np.int64)
        self._sequence = np.full(len(users), -1)
        self._idle = np.ones(len(users), bool)
        self._due = 0
        self._segments: list[tuple[int, int, float, float]] = []

    @property
    def due_ns(self) -> int:
        return self._due

    def offer(self, now_ns: int) -> Exchanges:
        self._due = (now_ns // POLL_NS + 1) * POLL_NS
        self._idle |= now_ns - self._begin > PATIENCE_NS
        user = np.flatnonzero(self._idle)
        due = np.maximum(self._begin[user], now_ns)
        active = self.active.contain(user, due)
        user, due = user[active], due[active]
        self._begin[user], self._idle[user] = due, False
        self._sequence[user] += 1
        return Exchanges.of(user, due, ul_bytes=REQUEST_BYTES, edge_ns=500_000, dl_bytes=self._size[user])

    def take(self, times: ExchangeTimes) -> None:
        rows = zip(times.user, times.sequence, times.ue_sent, times.ue_received, strict=True)
        for user, sequence, sent, received in rows:
            if received >= 0:
                self._segments.append((user, received, float(sequence), (received - sent) / 1e6))
                if sequence == self._sequence[user]:
                    self._idle[user], self._begin[user] = True, received + PAUSE_NS

    def defaults(self, user: int) -> Settings:
        return {"size_bytes": (float(self.users[user].options.get("size_bytes", 50_000)),)}

    def check(self, user: int, setting: str, values: tuple[float, ...]) -> None:
        if values[0] < 1:
            raise ValueError(f"{values[0]:g} is below 1")

    def apply(self, user: int, settings: Settings, now_ns: int, withdrawn: int) -> None:
        self._size[user] = int(settings["size_bytes"][0])
        if withdrawn:
            self._idle[user] = True
            self._sequence[user] -= withdrawn

    def samples(self) -> Mapping[str, SampleRows]:
        rows = np.array(self._segments, float).reshape(-1, 4)
        self._segments.clear()
        return {"segment": (rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), rows[:, 2:])}

    @classmethod
    def unit_test_cases(cls) -> Iterable[UnitTestCase]:
        refused: tuple[Settings, ...] = ({"size_bytes": (-1.0,)}, {"colour": (1.0,)})
        yield UnitTestCase({"size_bytes": 30_000}, {"size_bytes": (90_000.0,)}, refused)
        yield UnitTestCase({"size_bytes": 1_000_000}, {"size_bytes": (100_000.0,)}, refused)
