"""One orchestration step (figure 4): what each group gets of its cell and of the edge, and each user of its
group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video import frontier, user_level
from controller.allocators.video.groups import GROUPS, SMOOTH, groups_of
from controller.allocators.video.users import LADDER, Users
from wire.definitions.viewing import MAX_PREFETCH

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FULL_SHARE: Final = 0.999
"""Of the resources that are divided: rounding takes none of what there is not."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What groups get, float64 [cells, GROUPS]: PRBs of the cell, and 10^6 cycles/s of the edge."""

    prb: FloatArray
    mcycles: FloatArray


@dataclass(frozen=True, slots=True)
class Resources:
    """What is to be divided: PRBs [cells], 10^6 cycles/s, and the cycles of a bit."""

    prb: FloatArray
    mcycles: float
    cycles_per_bit: float

    @property
    def cells(self) -> int:
        return len(self.prb)

    @property
    def kbit_mcycles(self) -> float:
        return self.cycles_per_bit / 1e3


@dataclass(frozen=True, slots=True)
class Plan:
    """What each user gets, float64 [users]: PRBs, 10^6 cycles/s, the rate of both in kbit/s, the bitrate in
    kbit/s and how many first segments to prefetch; ``expected``: the opinion that its model expects of
    that."""

    prb: FloatArray
    mcycles: FloatArray
    kbps: FloatArray
    bitrate_kbps: FloatArray
    prefetch: FloatArray
    expected: FloatArray


GroupLevel = Callable[[Users, IntArray, Resources], Shares]
"""Users, their groups and what there is -> what each group gets."""


def equal_shares(users: Users, groups: IntArray, resources: Resources) -> Shares:
    """As much for every user."""
    count = count_users(users, groups, resources.cells)
    of_cell = np.maximum(count.sum(axis=1, keepdims=True), 1.0)
    return Shares(count / of_cell * resources.prb[:, None], count / max(count.sum(), 1.0) * resources.mcycles)


def greedy_shares(users: Users, groups: IntArray, resources: Resources) -> Shares:
    """To the group whose users' opinions gain most for the next PRB and cycle (:mod:`frontier`), and what
    nobody gains by, by :func:`equal_shares`."""
    curves = frontier.hulls(users)
    division = frontier.divide(users, curves, resources.prb, resources.mcycles, resources.cycles_per_bit)
    return shares_of(users, groups, division.kbps, resources)


def shares_of(users: Users, groups: IntArray, kbps: FloatArray, resources: Resources) -> Shares:
    """What the groups of users with these rates take, and of what is left as much for every user."""
    shape = (resources.cells, len(GROUPS))
    prb, cycles = np.zeros(shape), np.zeros(shape)
    np.add.at(prb, (users.cell, groups), kbps / np.maximum(users.kbps_per_prb, 1e-9))
    np.add.at(cycles, (users.cell, groups), kbps * resources.kbit_mcycles)
    equal = equal_shares(users, groups, resources)
    prb_left = np.maximum(1.0 - prb.sum(axis=1) / np.maximum(resources.prb, 1e-9), 0.0)
    cycles_left = max(1.0 - cycles.sum() / resources.mcycles, 0.0)
    return Shares(prb + equal.prb * prb_left[:, None], cycles + equal.mcycles * cycles_left)


def count_users(users: Users, groups: IntArray, cells: int) -> FloatArray:
    """Users of each group in each cell, float64 [cells, GROUPS]."""
    out = np.zeros((cells, len(GROUPS)))
    np.add.at(out, (users.cell, groups), 1.0)
    return out


def plan(users: Users, resources: Resources, group_level: GroupLevel = greedy_shares) -> Plan:
    """Rates, bitrates and prefetching of every user: groups by ``group_level``, users by the method of their
    group."""
    groups = groups_of(users.models)
    shares = group_level(users, groups, resources)
    kbps = np.zeros(len(users))
    for cell in range(resources.cells):
        for group, name in enumerate(GROUPS):
            rows = np.flatnonzero((users.cell == cell) & (groups == group))
            if len(rows):
                method = user_level.slsqp if name in SMOOTH else user_level.knapsack
                prb, mcycles = float(shares.prb[cell, group]), float(shares.mcycles[cell, group])
                kbps[rows] = method(
                    users.take(rows), prb * FULL_SHARE, mcycles * FULL_SHARE, resources.kbit_mcycles
                )
    return with_bitrates(users, kbps, resources)


def convex(users: Users, resources: Resources) -> Plan:
    """The convex problem of all users at once, without groups."""
    curves = frontier.hulls(users)
    rates = frontier.divide(users, curves, resources.prb, resources.mcycles, resources.cycles_per_bit).kbps
    return with_bitrates(users, rates, resources)


def with_bitrates(users: Users, kbps: FloatArray, resources: Resources) -> Plan:
    """The plan of given rates, after what is left of cells and edge has gone to all in proportion to what
    they have."""
    kbps = _stretched(users, kbps, resources)
    bitrate, expected = users.best_bitrates(kbps)
    prefetch = users.prefetch(kbps, bitrate).astype(np.float64)
    prb = kbps / np.maximum(users.kbps_per_prb, 1e-9)
    return Plan(prb, kbps * resources.kbit_mcycles, kbps, bitrate, prefetch, expected)


def _stretched(users: Users, kbps: FloatArray, resources: Resources) -> FloatArray:
    """Rates that use up what there is: a margin for what the models do not know costs nothing then. Nobody
    has less for it, except where the rates are more than there is."""
    limit = FULL_SHARE * resources.mcycles / resources.kbit_mcycles
    used = np.bincount(users.cell, kbps / np.maximum(users.kbps_per_prb, 1e-9), resources.cells)
    factor = (FULL_SHARE * resources.prb / np.maximum(used, 1e-9))[users.cell]
    fitting = kbps * np.minimum(factor, 1.0)
    fitting = fitting * min(1.0, limit / max(float(fitting.sum()), 1e-9))
    more = np.maximum(kbps * factor - fitting, 0.0)
    return np.asarray(fitting + more * min(1.0, (limit - fitting.sum()) / max(float(more.sum()), 1e-9)))


def explored(plan: Plan, unknown: NDArray[np.bool_], uniform: FloatArray) -> Plan:
    """The plan with another bitrate for users of whom too little is known, ``unknown`` [users]: any that
    their rate carries, by ``uniform`` [users] from 0 up to 1. Who always sees the same says nothing of what
    it would rather see.
    """
    carried = np.maximum((plan.kbps[:, None] >= LADDER).sum(axis=1), 1)
    tried = LADDER[(uniform * carried).astype(np.int64)]
    return replace(plan, bitrate_kbps=np.where(unknown, tried, plan.bitrate_kbps))


def round_robin(users: Users, resources: Resources) -> Plan:
    """Every user of a cell as many PRBs, all as many cycles; the bitrates that the models hold best for these
    rates."""
    here = np.bincount(users.cell, minlength=resources.cells)[users.cell]
    kbps = FULL_SHARE * resources.prb[users.cell] / np.maximum(here, 1) * users.kbps_per_prb
    limit = FULL_SHARE * resources.mcycles / resources.kbit_mcycles / max(len(users), 1)
    kbps = np.minimum(kbps, limit)
    bitrate, expected = users.best_bitrates(kbps)
    full = np.full(len(users), float(MAX_PREFETCH))
    prb = kbps / np.maximum(users.kbps_per_prb, 1e-9)
    return Plan(prb, kbps * resources.kbit_mcycles, kbps, bitrate, full, expected)
