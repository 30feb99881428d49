"""What an application of the emulated UEs is: it plans exchanges, sees their times and sends samples.

An exchange is a request from the UE to the edge, work there, and an answer back. The application says when
one begins and how large it is; the compiled cell carries it. Every time here is in ns from the start of the
run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from agents.emulator.layout import NEVER
from agents.emulator.spec import UserSpec

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

Settings = Mapping[str, tuple[float, ...]]
"""Name -> values of one user; a scalar is a tuple of one."""

SampleRows = tuple[IntArray, IntArray, FloatArray]
"""Rows of one table: user [n], time in ns [n], values [n, columns]; NaN is not known."""

NOT_YET = -1
"""A time of an exchange that has not come."""

__all__ = [
    "NEVER",
    "NOT_YET",
    "ActiveIntervals",
    "Application",
    "ExchangeTimes",
    "Exchanges",
    "SampleRows",
    "Settings",
    "UnitTestCase",
    "joined",
]


@dataclass(frozen=True, slots=True)
class Exchanges:
    """What an application puts into the cell, as int64 columns of equal length; a row is one exchange.

    ``user`` indexes the application's users. ``due_ns``: when the UE or, with ``ul_bytes`` 0, the edge
    begins; in an interval in which the user is active, and no earlier than the user's exchange before. At the
    edge come first ``gpu_ns`` in the GPU's queue, as long as it takes at the highest clock, then ``edge_ns``
    of other work, beside that of other exchanges (a reserved CPU). ``dl_bytes`` go back; with 0 nothing does,
    and ``ue_received`` never comes. Not both sizes are 0.

    With ``ul_bytes`` 0 ``ue_sent`` and ``edge_received`` are ``due_ns``, so that every frame belongs to the
    control slot in which it began. A user's exchanges are numbered from 0 in the order in which they are
    offered.
    """

    user: IntArray
    due_ns: IntArray
    ul_bytes: IntArray
    gpu_ns: IntArray
    edge_ns: IntArray
    dl_bytes: IntArray

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def of(
        cls,
        user: Any = (),
        due_ns: Any = (),
        *,
        ul_bytes: Any = 0,
        gpu_ns: Any = 0,
        edge_ns: Any = 0,
        dl_bytes: Any = 0,
    ) -> Exchanges:
        """Columns of what broadcasts to the length of ``user``; fractions of bytes and ns are cut off."""
        shape = np.shape(user)
        columns = (user, due_ns, ul_bytes, gpu_ns, edge_ns, dl_bytes)
        return cls(*(np.array(np.broadcast_to(np.asarray(c).astype(np.int64), shape)) for c in columns))


@dataclass(frozen=True, slots=True)
class ExchangeTimes:
    """Exchanges whose times changed, as int64 columns of equal length, by user and in the order of sequence.

    ``sequence`` counts the user's exchanges as they were offered. ``ue_sent``: the UE began to send;
    ``edge_received``: the edge has the whole request; ``edge_sent``: it began to answer; ``ue_received``: the
    UE has the whole answer. :data:`NOT_YET` for what has not come, and never comes for a lost message.
    """

    user: IntArray
    sequence: IntArray
    ue_sent: IntArray
    edge_received: IntArray
    edge_sent: IntArray
    ue_received: IntArray

    def __len__(self) -> int:
        return len(self.user)


def joined(parts: Mapping[str, Sequence[SampleRows]]) -> dict[str, SampleRows]:
    """Table -> all rows of its parts, in their order; each table has a part at least."""
    return {
        table: (
            np.concatenate([user for user, _, _ in rows]),
            np.concatenate([time_ns for _, time_ns, _ in rows]),
            np.concatenate([values for _, _, values in rows]),
        )
        for table, rows in parts.items()
    }


@dataclass(frozen=True, slots=True)
class UnitTestCase:
    """A variant of an application for the contract test, which runs it with one and with several users.

    ``options`` are those of each user. After ``change`` a user offers other bytes than before, by exchange or
    by second. Each of ``refused`` raises ValueError.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    change: Settings = field(default_factory=dict)
    refused: Sequence[Settings] = ()


class ActiveIntervals:
    """When each user is active."""

    def __init__(self, users: Sequence[UserSpec]) -> None:
        edges = [(u, round(t * 1e9)) for u, user in enumerate(users) for pair in user.active for t in pair]
        user, time_ns = np.array(edges, np.int64).reshape(-1, 2).T
        self._edges = _key(user, time_ns)

    def contain(self, user: IntArray, time_ns: IntArray) -> NDArray[np.bool_]:
        """Whether the user is active at the time; bool [n] for int64 [n]."""
        return np.searchsorted(self._edges, _key(user, time_ns), side="right") % 2 == 1


def _key(user: IntArray, time_ns: IntArray) -> IntArray:
    """One number, in the order of users and times; 2**54 ns are 208 days."""
    return (user << 54) | np.minimum(time_ns, (1 << 54) - 1)


class Application(ABC):
    """All users of one application in the cell: columns, not objects. It knows nothing of the controller.

    The testbed calls it at NR slot boundaries: at the first one at or after :attr:`due_ns`, and after
    :meth:`apply`. With ``wakes`` it also does so at the end of each NR slot in which an exchange came to its
    end. Each time it calls :meth:`take` where times have changed, :meth:`offer`, then :meth:`samples`, and
    nothing else, whoever advances the cell and in whatever steps. All randomness is from
    :mod:`agents.emulator.draws`, so that two runs with other quotas or settings share it.

    Subclasses name themselves and what they know: ``settings``, setting -> how many values it has at most,
    at least 1 where it is set; ``tables``, table -> number of its columns. ``service``: whose users these
    are, the application's own name where empty.
    """

    name: ClassVar[str]
    service: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, int]] = {}
    tables: ClassVar[Mapping[str, int]] = {}
    wakes: ClassVar[bool] = False

    def __init__(self, users: Sequence[UserSpec], seed: int) -> None:
        """ValueError names the flow and the option that cannot be."""
        self.users = tuple(users)
        self.seed = seed
        self.index: IntArray = np.array([i if u.index is None else u.index for i, u in enumerate(users)])
        self.active = ActiveIntervals(users)

    @property
    @abstractmethod
    def due_ns(self) -> int:
        """When it wants to be called next: the end of what it has planned; later than the call before."""

    @abstractmethod
    def offer(self, now_ns: int) -> Exchanges:
        """What begins at ``now_ns`` or later and has not been offered, up to the next :attr:`due_ns`.

        Planning far ahead costs nothing: a setting takes back what has not begun. A user's ring holds
        ``ApplicationSpec.exchanges``; what finds it full keeps its number and never begins, and
        :meth:`EmulatedTestbed.health` counts it.
        """

    @abstractmethod
    def take(self, times: ExchangeTimes) -> None:
        """Exchanges whose times changed since the last call."""

    def defaults(self, user: int) -> Settings:
        """What a user does while nobody has set it otherwise: a value for each of ``settings``, or ()."""
        if self.settings:
            raise NotImplementedError(f"application {self.name!r} has settings and no defaults")
        return {}

    def check(self, user: int, setting: str, values: tuple[float, ...]) -> None:
        """ValueError, which says why, for values that a user's setting cannot have. Changes nothing.

        The testbed has seen to it that the setting is one of ``settings`` and that the values are finite and
        no more than it has; it puts the flow and the setting before the text.
        """
        return

    def apply(self, user: int, settings: Settings, now_ns: int, withdrawn: int) -> None:
        """Settings of a user that hold from ``now_ns`` on; each has passed :meth:`check`.

        The user's latest ``withdrawn`` exchanges have not begun and are taken back, with their numbers: they
        are to be offered anew under the settings. :meth:`offer` is called at ``now_ns``.
        """
        raise NotImplementedError(f"application {self.name!r} has settings and no apply")

    def power_db(self) -> FloatArray | None:
        """Transmit power of the users' UEs, [users], dB relative to the UE's maximum and no more than 0.

        None: all transmit at the maximum. Read at the start and after :meth:`apply`; from then on the UL SNR
        of the UE, of all its flows, is so much lower. Where users of a UE differ, it has the least. Emulated
        only: transmit power is no lever of OAI's scheduler.
        """
        return None

    def samples(self) -> Mapping[str, SampleRows]:
        """Table -> rows since the last call, oldest first for each user. Realised experience is one table."""
        return {}

    @classmethod
    def handover_points(
        cls, options: Mapping[str, Any], seed: int, index: int, until_s: float
    ) -> Sequence[float] | None:
        """Times in s, ascending, at which a user has nothing under way that it would miss in another cell.

        ``seed`` is :attr:`UserSpec.seed`, ``index`` the user's place in the random numbers. None: users of
        this application stay in their cell. ValueError for options that cannot be.
        """
        return None

    @classmethod
    def unit_test_cases(cls) -> Iterable[UnitTestCase]:
        """The variants that the contract test is to run."""
        return (UnitTestCase(),)
