"""An application inside the emulated testbed: when it is called, and what is accepted from it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NoReturn

import numpy as np

from agents.emulator import kernel, layout
from agents.emulator.applications import load
from agents.emulator.applications.base import (
    Application,
    Exchanges,
    ExchangeTimes,
    FloatArray,
    IntArray,
    SampleRows,
    Settings,
)
from agents.emulator.spec import ApplicationSpec

MAX_HELD_ROWS = 262_144
"""Rows of samples of one application that wait to be taken: 45 s of 64 users at 90 rows a second."""
MAX_BYTES = 1 << 40
"""Of a message; more is a mistake."""


class ApplicationError(RuntimeError):
    """An application broke its contract; the text names it and what it did."""


@dataclass(frozen=True, slots=True)
class TableRows:
    """Rows of one table.

    ``user``: int64 [n]; ``time_ns``: int64 [n], from the start of the run; ``values``: float64 [n, columns].
    """

    table: str
    user: IntArray
    time_ns: IntArray
    values: FloatArray


class HostedApplication:
    """One application on the arrays of a cell. Its users are the flows from ``first`` on.

    ValueError where the application is not known or does not take its users' options.
    """

    def __init__(self, spec: ApplicationSpec, first: int, seed: int, state: layout.State, bit: int) -> None:
        try:
            application = load(spec.application)(spec.users, seed)
        except ValueError as error:
            raise ValueError(f"applications: {error}") from error
        self.application: Application = application
        self.name = spec.application
        self.first, self.end = first, first + len(spec.users)
        self.samples_lost = 0
        self._state = state
        self._bit = 1 << bit
        self._planned_ns = np.zeros(len(spec.users), np.int64)
        self._times = np.empty((256, 6), np.int64)
        self._rows: deque[TableRows] = deque()
        self._held = 0
        if application.wakes:
            state.flow["wakes"][first : self.end] = self._bit

    @property
    def service(self) -> str:
        """The service whose users these are."""
        return self.application.service or self.name

    def due_ns(self) -> int:
        """When the application is to be called next, ns from the start of the run."""
        return int(self.application.due_ns)

    def wakes(self, bits: int) -> bool:
        """Whether the application is one of those that an exchange's end calls."""
        return bits & self._bit != 0

    def call(self, now_ns: int) -> None:
        """Hands over the times that changed, then plans what the application offers and collects its samples.

        :class:`ApplicationError` where it breaks its contract.
        """
        times = self._collect()
        if len(times):
            self.application.take(times)
        self._plan(self.application.offer(now_ns), now_ns)
        for table, rows in self.application.samples().items():
            self._hold(table, rows)
        if self.due_ns() <= now_ns:
            self._refuse(f"wants to be called at {self.due_ns()} ns, which is not after {now_ns} ns")

    def defaults(self, user: int) -> Settings:
        """A user's settings where nobody has set them."""
        return self.application.defaults(user)

    def check(self, user: int, settings: Settings) -> None:
        """ValueError, which names the flow and the setting, for settings that cannot be."""
        flow = self.application.users[user].flow
        known = self.application.settings
        for name, values in settings.items():
            place = f"flow {flow!r}, setting {name!r}"
            if name not in known:
                names = ", ".join(sorted(known)) or "none"
                raise ValueError(f"{place}: application {self.name!r} has {names}")
            if not 1 <= len(values) <= known[name]:
                bound = f"1 to {known[name]}" if known[name] > 1 else "1"
                raise ValueError(f"{place}: {len(values)} values instead of {bound}")
            if not all(math.isfinite(v) for v in values):
                raise ValueError(f"{place}: {tuple(values)} is not finite")
            try:
                self.application.check(user, name, values)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error

    def apply(self, settings: Mapping[int, Settings], now_ns: int) -> None:
        """Puts checked settings, by user, in force and lets the application plan anew."""
        for user, values in settings.items():
            withdrawn = int(kernel.withdraw(self._state, self.first + user, now_ns))
            self._planned_ns[user] = now_ns
            self.application.apply(user, values, now_ns, withdrawn)
        self.call(now_ns)

    def power_db(self) -> FloatArray:
        """Transmit power of the users' UEs, [users], dB relative to the maximum."""
        power = self.application.power_db()
        users = len(self.application.users)
        if power is None:
            return np.zeros(users)
        if power.shape != (users,) or not np.all(np.isfinite(power) & (power <= 0.0)):
            self._refuse(f"has transmit powers {power} instead of {users} of at most 0 dB")
        return power

    def take_rows(self) -> list[TableRows]:
        """The samples since the last call: each table once, its rows by user and then as they came."""
        tables: dict[str, list[TableRows]] = {}
        for rows in self._rows:
            tables.setdefault(rows.table, []).append(rows)
        self._rows.clear()
        self._held = 0
        result = []
        for table, parts in sorted(tables.items()):
            user, time_ns, values = (
                np.concatenate([getattr(p, column) for p in parts])
                for column in ("user", "time_ns", "values")
            )
            order = np.argsort(user, kind="stable")
            result.append(TableRows(table, user[order], time_ns[order], values[order]))
        return result

    # -- inside --------------------------------------------------------------------------------------

    def _refuse(self, what: str) -> NoReturn:
        raise ApplicationError(f"application {self.name!r} {what}")

    def _collect(self) -> ExchangeTimes:
        while True:
            n = kernel.collect_exchanges(self._state, self.first, self.end, self._times)
            if n >= 0:
                return ExchangeTimes(*self._times[:n].T.copy())
            self._times = np.empty((2 * len(self._times), 6), np.int64)

    def _plan(self, exchanges: Exchanges, now_ns: int) -> None:
        columns = [np.ascontiguousarray(getattr(exchanges, f.name), np.int64) for f in fields(Exchanges)]
        user, due, ul, gpu, edge, dl = columns
        n = len(user)
        if any(c.shape != (n,) for c in columns):
            self._refuse(f"offers columns of unequal shapes {[c.shape for c in columns]}")
        if n == 0:
            return
        if user.min() < 0 or user.max() >= len(self._planned_ns):
            self._refuse(f"offers exchanges of users outside 0..{len(self._planned_ns) - 1}")
        order = np.argsort(user, kind="stable")
        by_user, in_turn = user[order], due[order]
        first = np.flatnonzero(np.diff(by_user, prepend=-1))
        before = np.concatenate(([0], in_turn[:-1]))
        before[first] = np.maximum(self._planned_ns[by_user[first]], now_ns)
        for wrong, what in (
            (in_turn < before, "due in the past or before the exchange before"),
            (~self.application.active.contain(by_user, in_turn), "due while the user is not active"),
            (((ul < 0) | (dl < 0) | (ul + dl <= 0) | (ul + dl > MAX_BYTES))[order], "of impossible size"),
            (((gpu < 0) | (edge < 0) | (gpu + edge > layout.NEVER >> 8))[order], "with impossible work"),
        ):
            if wrong.any():
                k = int(np.flatnonzero(wrong)[0])
                flow = self.application.users[int(by_user[k])].flow
                self._refuse(f"offers an exchange of flow {flow!r} at {int(in_turn[k])} ns that is {what}")
        last = np.concatenate((first[1:], [n])) - 1
        self._planned_ns[by_user[last]] = in_turn[last]
        kernel.plan(self._state, self.first, *columns)

    def _hold(self, table: str, rows: SampleRows) -> None:
        user, time_ns = (np.asarray(c, np.int64) for c in rows[:2])
        values = np.asarray(rows[2], np.float64)
        tables = self.application.tables
        if table not in tables:
            self._refuse(f"sends table {table!r}, and declares {', '.join(sorted(tables)) or 'none'}")
        if user.ndim != 1 or time_ns.shape != user.shape or values.shape != (len(user), tables[table]):
            self._refuse(
                f"sends table {table!r} in shapes {user.shape}, {time_ns.shape}, {values.shape}"
                f" instead of (n,), (n,), (n, {tables[table]})"
            )
        if len(user) == 0:
            return
        if user.min() < 0 or user.max() >= len(self._planned_ns):
            self._refuse(f"sends table {table!r} of users outside 0..{len(self._planned_ns) - 1}")
        self._rows.append(TableRows(table, user, time_ns, values))
        self._held += len(user)
        while self._held > MAX_HELD_ROWS and len(self._rows) > 1:
            lost = len(self._rows.popleft().user)
            self._held -= lost
            self.samples_lost += lost
