"""An exchange in every period: what a camera, a renderer or a sensor does. It plans ahead of the cell."""

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

HORIZON_NS = 50_000_000
"""What is planned in one call."""
MAX_SIZE = 10_000_000
DEFAULTS = {
    "size_bytes": 4000,
    "period_ms": 33.0,
    "gpu_ms": 1.0,
    "edge_ms": 2.0,
    "answer_bytes": 1000,
    "uplink": 1,
}


class Periodic(Application):
    """``size_bytes`` go up and ``answer_bytes`` back; without ``uplink``, ``size_bytes`` go down."""

    name: ClassVar[str] = "periodic"
    settings: ClassVar[Mapping[str, int]] = {"size_bytes": 1}
    tables: ClassVar[Mapping[str, int]] = {"round_trip": 1}

    def __init__(self, users: Sequence[UserSpec], seed: int) -> None:
        super().__init__(users, seed)
        for user in users:
            if unknown := user.options.keys() - DEFAULTS.keys():
                raise ValueError(f"flow {user.flow!r}: options {sorted(unknown)} are not known")

        def column(name: str, scale: float = 1.0) -> np.ndarray:
            return np.array([int(u.options.get(name, DEFAULTS[name]) * scale) for u in users])

        self._size, self._answer, self._uplink = (
            column("size_bytes"),
            column("answer_bytes"),
            column("uplink"),
        )
        self._period, self._gpu, self._edge = (column(f"{n}_ms", 1e6) for n in ("period", "gpu", "edge"))
        self._phase = (draws.uniforms(seed, draws.APPLICATION, self.index, 0) * self._period).astype(np.int64)
        self._next = np.zeros(len(users), np.int64)
        self._due = 0
        self._round_trips: list[np.ndarray] = []

    @property
    def due_ns(self) -> int:
        return self._due

    def offer(self, now_ns: int) -> Exchanges:
        self._due = (now_ns // HORIZON_NS + 1) * HORIZON_NS
        end = -((self._phase - self._due) // self._period)
        count = np.maximum(0, end - self._next)
        user = np.repeat(np.arange(len(count)), count)
        k = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + self._next[user]
        self._next = np.maximum(self._next, end)
        due = self._phase[user] + k * self._period[user]
        active = self.active.contain(user, due)
        user, due = user[active], due[active]
        size, up = self._size[user], self._uplink[user] == 1
        return Exchanges.of(
            user,
            due,
            ul_bytes=np.where(up, size, 0),
            gpu_ns=self._gpu[user],
            edge_ns=self._edge[user],
            dl_bytes=np.where(up, self._answer[user], size),
        )

    def take(self, times: ExchangeTimes) -> None:
        back = times.ue_received >= 0
        ms = (times.ue_received - times.ue_sent)[back] / 1e6
        self._round_trips.append(np.stack((times.user[back], times.ue_received[back], ms)))

    def defaults(self, user: int) -> Settings:
        return {"size_bytes": (float(self.users[user].options.get("size_bytes", DEFAULTS["size_bytes"])),)}

    def check(self, user: int, setting: str, values: tuple[float, ...]) -> None:
        if not 1 <= values[0] <= MAX_SIZE:
            raise ValueError(f"{values[0]:g} is outside 1..{MAX_SIZE}")

    def apply(self, user: int, settings: Settings, now_ns: int, withdrawn: int) -> None:
        self._size[user] = int(settings["size_bytes"][0])
        self._next[user] = max(0, -((self._phase[user] - now_ns) // self._period[user]))

    def samples(self) -> Mapping[str, SampleRows]:
        rows = np.concatenate((np.empty((3, 0)), *self._round_trips), axis=1)
        self._round_trips.clear()
        return {"round_trip": (rows[0].astype(np.int64), rows[1].astype(np.int64), rows[2:].T)}

    @classmethod
    def unit_test_cases(cls) -> Iterable[UnitTestCase]:
        refused: tuple[Settings, ...] = ({"size_bytes": (0.0,)}, {"size_bytes": (1.0, 2.0)})
        for options in ({"uplink": 1}, {"uplink": 0, "size_bytes": 20_000}):
            yield UnitTestCase(options, {"size_bytes": (12_000.0,)}, refused)
