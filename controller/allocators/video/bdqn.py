"""The branching duelling Q-network (Tavakoli et al. 2018) of the group level, and the one that serves users
directly: what they see, what they decide, and a pass through them in NumPy.

A network looks at one cell at a time, every cell with the same weights (the several agents of the paper), so
that it serves any number of cells. Layers are counted by their weights on the way from a state to a value: a
*four-layer* network has two that are shared, then the hidden and the last one of the value and of the
advantage of each branch; a *five-layer* network has three that are shared.

    Q_d(s, a) = V(s) + A_d(s, a) - mean over a' of A_d(s, a')

for each branch d; what is chosen is the largest in every branch.

**Group level** (four layers). State of a cell, float [GROUPS x len(GROUP_FEATURES)], 0..4 each:

==========  ==================================================================================================
buffer      mean over the group's users of the seconds of video that they have / (AHEAD x a segment)
load        10^6 cycles/s that the group used in the last step / those of the edge
quality     mean over the users of the quality Q of what was shown to them in the last step, 0..1
index       of the group's QoE model: 1 in its place of GROUPS, 0 in the others, 0 in all without users
users       of the group / of the cell (not in the paper)
wanted      mean PRBs with which the users' models expect the agreement to be kept, or as much of it as can
            be, / (PRBs of the cell / its users), at most 4 (not in the paper)
==========  ==================================================================================================

Action: [2 x GROUPS] branches, PRBs of each group and then cycles of each group, one of :data:`WEIGHTS` each:
what a user of the group gets relative to a user of another. PRBs are divided among the groups of a cell,
cycles among those of all cells, in proportion to weight x users; groups without users get none. With the same
weight everywhere that is :func:`controller.allocators.video.orchestration.equal_shares`.

Reward of a step, 0 to about 1: the mean over the cell's users of what the score that each really gave is
worth against its agreement (:func:`controller.allocators.video.users.gain`). That is made for mean scores; of
single ones, which scatter, it says the same of who is near its agreement, only less sharply.

**Users directly** (five layers, the benchmark PDRL-L1). State of a cell, float [USER_SLOTS x
len(USER_FEATURES)]: its users in their order, zeros where there is none: buffer as above, Q, seconds of
stalling in a minute / 60, kbit/s that a PRB carries / 1000, ELA / 5, B - 1, C - 1, and 1. Action: [2 x
USER_SLOTS] branches, the PRB weight of each user and then the place of its bitrate on the ladder. No QoE
model is asked; first segments are always prefetched. The reward is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video import frontier
from controller.allocators.video.frontier import Hull
from controller.allocators.video.groups import GROUPS
from controller.allocators.video.orchestration import (
    FULL_SHARE,
    GroupLevel,
    Plan,
    Resources,
    Shares,
    count_users,
)
from controller.allocators.video.users import LADDER, Users
from controller.twins.packing import pack_arrays, unpack_arrays
from wire.definitions import mos, viewing

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

WEIGHTS: Final = np.array((0.4, 0.55, 0.75, 1.0, 1.35, 1.8, 2.5))
"""Levels of a branch: of a user, relative to the others."""
LEVELS: Final = len(LADDER)
assert len(WEIGHTS) == LEVELS
GROUP_FEATURES: Final = (
    "buffer",
    "load",
    "quality",
    *(f"index {name}" for name in GROUPS),
    "users",
    "wanted",
)
USER_FEATURES: Final = (
    "buffer",
    "quality",
    "stalled",
    "kbps_per_prb",
    "ela",
    "behaviour",
    "environment",
    "present",
)
USER_SLOTS: Final = 24
"""Users of a cell at most of the network that serves them directly."""
GROUP, USER = "group", "user"
KINDS: Final = (GROUP, USER)
MOST: Final = 4.0
"""Of a feature."""
NEAR: Final = 0.01
"""Part of what can be gained that is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a network: its inputs, the widths of the shared layers, of the hidden layers of each stream, and its
    branches, of :data:`LEVELS` each."""

    inputs: int
    shared: tuple[int, ...]
    hidden: int
    branches: int

    def arrays(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights."""
        out: dict[str, tuple[int, ...]] = {}
        before = self.inputs
        for i, width in enumerate(self.shared):
            out |= {f"shared_{i}_w": (before, width), f"shared_{i}_b": (width,)}
            before = width
        h, d = self.hidden, self.branches
        return out | {
            "value_0_w": (before, h),
            "value_0_b": (h,),
            "value_1_w": (h, 1),
            "value_1_b": (1,),
            "advantage_0_w": (d, before, h),
            "advantage_0_b": (d, 1, h),
            "advantage_1_w": (d, h, LEVELS),
            "advantage_1_b": (d, 1, LEVELS),
        }


SHAPES: Final = {
    GROUP: Shape(len(GROUPS) * len(GROUP_FEATURES), (128, 128), 32, 2 * len(GROUPS)),
    USER: Shape(USER_SLOTS * len(USER_FEATURES), (256, 256, 128), 32, 2 * USER_SLOTS),
}


@dataclass(frozen=True, slots=True)
class BranchingNetwork:
    """``weights``: float32 arrays of the names and shapes of the kind's :class:`Shape`; ``training``: plain
    values that say how they came about."""

    kind: str
    weights: Mapping[str, NDArray[np.float32]]
    training: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"network of kind {self.kind!r}: kinds are {', '.join(KINDS)}")
        shapes = SHAPES[self.kind].arrays()
        if {n: a.shape for n, a in self.weights.items()} != shapes:
            raise ValueError(f"weights of a network of kind {self.kind} do not have its shapes")
        if not all(np.isfinite(a).all() for a in self.weights.values()):
            raise ValueError(f"weights of a network of kind {self.kind} are not finite")

    def q(self, states: FloatArray) -> NDArray[np.float32]:
        """Q [rows, branches, LEVELS] of states [rows, inputs]."""
        w = self.weights
        x = np.asarray(states, np.float32)
        for i in range(len(SHAPES[self.kind].shared)):
            x = np.maximum(x @ w[f"shared_{i}_w"] + w[f"shared_{i}_b"], 0.0)
        value = np.maximum(x @ w["value_0_w"] + w["value_0_b"], 0.0) @ w["value_1_w"] + w["value_1_b"]
        streams = np.maximum(x @ w["advantage_0_w"] + w["advantage_0_b"], 0.0)
        advantage = streams @ w["advantage_1_w"] + w["advantage_1_b"]
        advantage -= advantage.mean(axis=-1, keepdims=True)
        return np.asarray(value[:, None] + advantage.transpose(1, 0, 2))

    def act(self, states: FloatArray) -> IntArray:
        """The best level of each branch, int64 [rows, branches]; the lowest of those that are as good.

        ValueError for states of another width, or that are not finite.
        """
        inputs = SHAPES[self.kind].inputs
        if states.ndim != 2 or states.shape[1] != inputs or not np.isfinite(states).all():
            raise ValueError(f"states {states.shape}: rows of {inputs} finite numbers are needed")
        return np.asarray(self.q(states).argmax(axis=-1), np.int64)

    def to_bytes(self) -> bytes:
        """As a model is kept."""
        return pack_arrays({"kind": self.kind, "training": dict(self.training)}, self.weights)

    @classmethod
    def from_bytes(cls, data: bytes) -> BranchingNetwork:
        """ValueError for bytes that are no network."""
        values, arrays = unpack_arrays(data)
        training = values.get("training")
        if not isinstance(training, Mapping) or any(a.dtype != np.float32 for a in arrays.values()):
            raise ValueError("no network: its weights are not float32, or it does not say how it was trained")
        return cls(str(values.get("kind")), arrays, training)


@dataclass(frozen=True, slots=True)
class Condition:
    """How it has been going for each user, float64 [users]: seconds of video that it has; of the last step, Q
    of what was shown, s a minute of stalling, and 10^6 cycles/s used. NaN, not known, counts as 0."""

    buffer_s: FloatArray
    quality: FloatArray
    stalled: FloatArray
    mcycles: FloatArray


# ---- group level -----------------------------------------------------------------------------------------


def group_states(
    users: Users, curves: Sequence[Hull], groups: IntArray, resources: Resources, condition: Condition
) -> FloatArray:
    """States of the cells, [cells, inputs]; ``curves`` are the users' (:func:`frontier.hulls`)."""
    count = count_users(users, groups, resources.cells)
    of_cell = count.sum(axis=1)

    def mean(values: FloatArray) -> FloatArray:
        total = np.zeros_like(count)
        np.add.at(total, (users.cell, groups), np.nan_to_num(values))
        return total / np.maximum(count, 1.0)

    prb = wanted_kbps(curves) / np.maximum(users.kbps_per_prb, 1e-9)
    equal = np.maximum(resources.prb, 1e-9) / np.maximum(of_cell, 1.0)
    out = np.zeros((*count.shape, len(GROUP_FEATURES)))
    out[..., 0] = mean(condition.buffer_s) / (viewing.AHEAD * users.segment_s)
    out[..., 1] = mean(condition.mcycles) * count / max(resources.mcycles, 1e-9)
    out[..., 2] = mean(condition.quality)
    out[..., 3 : 3 + len(GROUPS)] = np.eye(len(GROUPS)) * (count > 0.0)[..., None]
    out[..., -2] = count / np.maximum(of_cell, 1.0)[:, None]
    out[..., -1] = mean(np.minimum(prb / equal[users.cell], MOST))
    return np.clip(out, 0.0, MOST).reshape(resources.cells, -1)


def wanted_kbps(curves: Sequence[Hull]) -> FloatArray:
    """The rate of each user with which its model expects the agreement to be kept, or as much of it as can
    be."""
    return np.array([np.interp(min(1.0, h.gain[-1]) - NEAR, h.gain, h.kbps) for h in curves])


def group_shares(actions: IntArray, users: Users, groups: IntArray, resources: Resources) -> Shares:
    """What actions [cells, branches] give to the groups."""
    count = count_users(users, groups, resources.cells)
    prb, cycles = (WEIGHTS[part] * count for part in np.split(actions, 2, axis=1))
    return Shares(
        prb / np.maximum(prb.sum(axis=1, keepdims=True), 1e-9) * resources.prb[:, None],
        cycles / max(cycles.sum(), 1e-9) * resources.mcycles,
    )


def group_level(network: BranchingNetwork, condition: Condition) -> GroupLevel:
    """The group level of a step by a network of kind ``group``; ValueError for one of another kind."""
    if network.kind != GROUP:
        raise ValueError(f"a network of kind {network.kind} does not divide among groups")

    def level(users: Users, groups: IntArray, resources: Resources) -> Shares:
        states = group_states(users, frontier.hulls(users), groups, resources, condition)
        return group_shares(network.act(states), users, groups, resources)

    return level


# ---- users directly --------------------------------------------------------------------------------------


def user_states(users: Users, resources: Resources, condition: Condition) -> FloatArray:
    """States of the cells, [cells, inputs]; ValueError for more than :data:`USER_SLOTS` users in one."""
    columns = np.column_stack(
        (
            condition.buffer_s / (viewing.AHEAD * users.segment_s),
            condition.quality,
            condition.stalled / 60.0,
            users.kbps_per_prb / 1e3,
            users.ela / mos.SCALE[1],
            users.behaviour - 1.0,
            users.environment - 1.0,
            np.ones(len(users)),
        )
    )
    out = np.zeros((resources.cells, USER_SLOTS, len(USER_FEATURES)))
    out[users.cell, _slots(users, resources.cells)] = np.clip(np.nan_to_num(columns), 0.0, MOST)
    return out.reshape(resources.cells, -1)


def _slots(users: Users, cells: int) -> IntArray:
    """The place of each user among those of its cell."""
    out = np.zeros(len(users), np.int64)
    for cell in range(cells):
        here = np.flatnonzero(users.cell == cell)
        if len(here) > USER_SLOTS:
            raise ValueError(f"cell {cell}: {len(here)} users, the network serves up to {USER_SLOTS}")
        out[here] = np.arange(len(here))
    return out


def user_plan(actions: IntArray, users: Users, resources: Resources) -> Plan:
    """What actions [cells, branches] give to the users; where cycles are short all get less. What is expected
    of it is not known (NaN)."""
    slots = _slots(users, resources.cells)
    weight = WEIGHTS[actions[users.cell, slots]]
    bitrate = LADDER[actions[users.cell, USER_SLOTS + slots]]
    total = np.bincount(users.cell, weight, resources.cells)
    prb = weight / total[users.cell] * resources.prb[users.cell] * FULL_SHARE
    kbps = prb * users.kbps_per_prb
    limit = FULL_SHARE * resources.mcycles / resources.kbit_mcycles
    kbps = kbps * min(1.0, limit / max(float(kbps.sum()), 1e-9))
    return Plan(
        kbps / np.maximum(users.kbps_per_prb, 1e-9),
        kbps * resources.kbit_mcycles,
        kbps,
        bitrate,
        np.full(len(users), float(viewing.MAX_PREFETCH)),
        np.full(len(users), np.nan),
    )


def serve(network: BranchingNetwork, users: Users, resources: Resources, condition: Condition) -> Plan:
    """One step by a network of kind ``user``; ValueError for one of another kind."""
    if network.kind != USER:
        raise ValueError(f"a network of kind {network.kind} does not serve users directly")
    return user_plan(network.act(user_states(users, resources, condition)), users, resources)
