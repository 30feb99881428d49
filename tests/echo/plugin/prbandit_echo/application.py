"""Users that send one message a second and get it back. The setting is its size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from agents.emulator import draws
from agents.emulator.applications.base import (
    Application,
    Exchanges,
    ExchangeTimes,
    SampleRows,
    Settings,
    UnitTestCase,
)
from agents.emulator.spec import UserSpec

SECOND_NS = 1_000_000_000
DEFAULT_BYTES = 1000
MAX_BYTES = 1_000_000


class Echo(Application):
    """Option ``message_bytes``: the size where nobody has set it. Table ``echoes``: the round trip, ms."""

    name: ClassVar[str] = "echo"
    settings: ClassVar[Mapping[str, int]] = {"message_bytes": 1}
    tables: ClassVar[Mapping[str, int]] = {"echoes": 1}

    def __init__(self, users: Sequence[UserSpec], seed: int) -> None:
        super().__init__(users, seed)
        for user in users:
            if unknown := sorted(user.options.keys() - {"message_bytes"}):
                raise ValueError(f"flow {user.flow!r}: echo has no option {', '.join(unknown)}")
        self._bytes = np.array([int(self.defaults(i)["message_bytes"][0]) for i in range(len(users))])
        self._phase = (draws.uniforms(seed, draws.APPLICATION, self.index, 0) * SECOND_NS).astype(np.int64)
        self._next = np.zeros(len(users), np.int64)
        self._due = 0
        self._echoes: list[tuple[int, int, float]] = []

    @property
    def due_ns(self) -> int:
        return self._due

    def offer(self, now_ns: int) -> Exchanges:
        self._due = (now_ns // SECOND_NS + 1) * SECOND_NS
        due = self._phase + self._next * SECOND_NS
        user = np.flatnonzero((due >= now_ns) & (due < self._due))
        self._next[due < self._due] += 1
        user = user[self.active.contain(user, due[user])]
        size = self._bytes[user]
        return Exchanges.of(user, due[user], ul_bytes=size, dl_bytes=size)

    def take(self, times: ExchangeTimes) -> None:
        back = np.flatnonzero(times.ue_received >= 0)
        for i in back.tolist():
            ms = (times.ue_received[i] - times.ue_sent[i]) / 1e6
            self._echoes.append((int(times.user[i]), int(times.ue_received[i]), float(ms)))

    def defaults(self, user: int) -> Settings:
        return {"message_bytes": (float(self.users[user].options.get("message_bytes", DEFAULT_BYTES)),)}

    def check(self, user: int, setting: str, values: tuple[float, ...]) -> None:
        if not 1 <= values[0] <= MAX_BYTES:
            raise ValueError(f"{values[0]:g} bytes are outside 1..{MAX_BYTES}")

    def apply(self, user: int, settings: Settings, now_ns: int, withdrawn: int) -> None:
        self._bytes[user] = int(settings["message_bytes"][0])
        self._next[user] -= withdrawn

    def samples(self) -> Mapping[str, SampleRows]:
        rows, self._echoes = np.array(self._echoes).reshape(-1, 3), []
        return {"echoes": (rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), rows[:, 2:])}

    @classmethod
    def unit_test_cases(cls) -> Iterable[UnitTestCase]:
        refused: tuple[Settings, ...] = ({"message_bytes": (0.0,)}, {"message_bytes": (1.0, 2.0)})
        yield UnitTestCase({}, {"message_bytes": (4000.0,)}, refused)
