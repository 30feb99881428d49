"""The decisions of a controller since a console looks on, as arrays."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.console.table import table
from controller.core.measure import worst_value
from controller.core.names import UnknownName, nearest
from controller.links.follower import Decided, Follower, Lost

KEPT = 4096
"""Decisions of a cell that are kept: nearly six hours of control slots of 5 s."""

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Row:
    """What is kept of one slice in one decision record: of each lever what was chosen, and of each measure
    what came of the control slot before."""

    control_slot: int
    time_ns: int
    mode: str
    choices: Mapping[str, tuple[float, float | None, float | None, str, str]]
    measures: Mapping[str, tuple[float | None, float | None, int | None]]
    units: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, record: Mapping[str, Any], name: str) -> Row:
        s = record["slices"][name]
        manual = s.get("manual", {})
        choices, measures = {}, {}
        units = {name: ("", of["unit"]) for name, of in s["closed"]["measures"].items()}
        for c in s["choices"]:
            if not c.get("user"):
                by_hand = manual.get(c["lever"])
                action, why = (c["action"], c["why"]) if by_hand is None else (by_hand, "set by hand")
                units[c["lever"]] = c["unit"], units.get(c["lever"], ("", ""))[1]
                choices[c["lever"]] = (action, c["state"], c["demand"], why, c["method"])
        for measure, of in s["closed"]["measures"].items():
            value = worst_value(of)
            target = next((t for v, t in of["users"].values() if v == value), None)
            measures[measure] = (value, target, of["met"])
        return cls(record["control_slot"], record["time_ns"], record["mode"], choices, measures, units)


class History:
    """Follows a controller beside the caller. Any thread may read."""

    def __init__(self, follower: Callable[[], Follower], kept: int = KEPT) -> None:
        self._make, self._kept = follower, kept
        self._mutex = threading.Lock()
        self._rows: dict[tuple[str, str], deque[Row]] = {}
        self._lost: Lost | None = None
        self._fault: Exception | None = None
        self._follower: Follower | None = None
        self._begin()

    def _begin(self) -> None:
        self._fault = None
        self._follower = self._make()
        threading.Thread(target=self._follow, args=(self._follower,), daemon=True).start()

    def _follow(self, follower: Follower) -> None:
        try:
            for told in follower:
                with self._mutex:
                    self._lost = told if isinstance(told, Lost) else None
                    if isinstance(told, Decided):
                        self._take(told.record)
        except Exception as error:
            self._fault = error

    def _take(self, record: Mapping[str, Any]) -> None:
        for name in record["slices"]:
            kept = self._rows.setdefault((record["cell"], name), deque(maxlen=self._kept))
            kept.append(Row.of(record, name))

    @property
    def lost(self) -> Lost | None:
        """Since when the controller cannot be reached; None while it can."""
        return self._lost

    def rows(self, cell: str, name: str) -> Sequence[Row]:
        """What is kept of a slice, the oldest first. Raises what ended the following, and tries it again."""
        if (fault := self._fault) is not None:
            self._begin()
            raise fault
        with self._mutex:
            return tuple(self._rows.get((cell, name), ()))

    def close(self) -> None:
        if self._follower is not None:
            self._follower.close()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Column:
    """One lever or measure over the control slots of :class:`Decisions`, arrays [n].

    ``action``, ``state`` and ``demand`` are float64 in the lever's unit; ``why`` and ``policy`` text.
    ``value`` is what came of each control slot (the worst user's), ``budget`` what it was held against,
    ``met`` 1 or 0. NaN, or "", for what there is none of or what is not known, as what comes of the latest.
    ``units``: of the actions, and of the values.
    """

    name: str
    units: tuple[str, str]
    control_slot: NDArray[np.int64]
    action: NDArray[np.float64]
    state: NDArray[np.float64]
    demand: NDArray[np.float64]
    why: NDArray[np.str_]
    policy: NDArray[np.str_]
    value: NDArray[np.float64]
    budget: NDArray[np.float64]
    met: NDArray[np.float64]

    @property
    def delay(self) -> NDArray[np.float64]:
        """``value`` of a hop: its delay, ms."""
        return self.value

    def __len__(self) -> int:
        return len(self.control_slot)

    def __repr__(self) -> str:
        columns = ("control_slot", "action", "state", "demand", "why", "value", "budget", "met")
        rows = [[getattr(self, c)[i].item() for c in columns] for i in range(len(self))[-_SHOWN:]]
        return f"{self.name}: {len(self)} control slots, the latest:\n{table(columns, rows)}"


class Decisions(Mapping[str, Column]):
    """The decisions of a slice that are kept, the oldest first.

    ``decisions["ul"]`` is a :class:`Column`: of a lever, or of a measure.
    ``control_slot`` int64 [n], ``time`` datetime64[ns] [n] (UTC), ``mode`` text [n].
    """

    def __init__(self, of: str, rows: Sequence[Row]) -> None:
        self._of, self._rows = of, rows
        self.control_slot = np.array([row.control_slot for row in rows], np.int64)
        self.time = np.array([row.time_ns for row in rows], "datetime64[ns]")
        self.mode = np.array([row.mode for row in rows], np.str_)
        names: dict[str, None] = {}
        for row in rows:
            names |= dict.fromkeys((*row.choices, *row.measures))
        self._names = tuple(names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> Column:
        if name not in self._names:
            known = ", ".join(self._names) or "none yet"
            raise UnknownName(f"no lever or measure {name!r}{nearest(name, self._names)}; there are: {known}")
        chosen: list[Any] = [row.choices.get(name, (None, None, None, "", "")) for row in self._rows]
        came = [
            after.measures.get(name, (None, None, None))
            if after.control_slot == row.control_slot + 1
            else _UNKNOWN
            for row, after in zip(self._rows, self._rows[1:], strict=False)
        ]
        came += [_UNKNOWN] * (len(self._rows) - len(came))
        action, state, demand = (_floats(c[i] for c in chosen) for i in range(3))
        why, policy = (np.array([c[i] for c in chosen], np.str_) for i in (3, 4))
        value, budget, met = (_floats(c[i] for c in came) for i in range(3))
        units = next(row.units[name] for row in reversed(self._rows) if name in row.units)
        return Column(name, units, self.control_slot, action, state, demand, why, policy, value, budget, met)

    def __repr__(self) -> str:
        n = len(self.control_slot)
        if not n:
            return f"{self._of}: no decision seen yet"
        levers = [name for name in self._names if any(name in row.choices for row in self._rows)]
        rows = [
            [row.control_slot, row.mode, *(row.choices.get(lever, (None,))[0] for lever in levers)]
            for row in self._rows[-_SHOWN:]
        ]
        measures = ", ".join(name for name in self._names if name not in levers)
        return (
            f"{self._of}: {n} control slots, the latest:\n{table(['control_slot', 'mode', *levers], rows)}"
            + (f"\nmeasures beside: {measures}" if measures else "")
        )


_UNKNOWN: tuple[float | None, float | None, int | None] = (None, None, None)


def _floats(values: Iterator[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if v is None else v for v in values], np.float64)
