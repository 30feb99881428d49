"""Worlds in which networks learn, and others in which they are validated: people with the models that were
learnt of them, over all loads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from controller.allocators.video import bdqn, frontier
from controller.allocators.video.bdqn import Condition
from controller.allocators.video.frontier import Hull
from controller.allocators.video.groups import GROUPS, groups_of
from controller.allocators.video.orchestration import FULL_SHARE, Plan, Resources, Shares, with_bitrates
from controller.allocators.video.users import Users, gain
from controller.experiments.video.runs import FloatArray, IntArray, Known, Run, curves, first, learn
from controller.experiments.video.world import STEP_S, Traces, WorldSpec, draw

USERS: Final = (16, 24)
PRB: Final = (10, 60)
LEARN_S: Final = 600
"""In which models are learnt."""
EPISODE: Final = 60
"""Steps of an episode."""
EPISODES_EACH: Final = 3
"""That one world has room for."""
PEOPLE: Final = 8
"""Sets of people that networks learn with."""
HELD_OUT: Final = 2
"""Sets of people that they are validated with."""
LOADS: Final = 2
"""Worlds of each set of people, of other widths of the carrier."""
SEED_BASE: Final = 1_000_000
"""Seeds of these worlds begin here, so that no figure has them."""


@dataclass(frozen=True, slots=True)
class Place:
    """A world of :data:`USERS`' most users; ``hulls`` of each step from ``begin`` on."""

    traces: Traces
    known: Known
    begin: int
    hulls: list[list[Hull]]


def places(seed: int, sets: int, loads: int = LOADS, held_out: bool = False) -> list[Place]:
    """Worlds of ``sets`` of people, drawn from the seed; those held out are others."""
    out = []
    rng = np.random.default_rng((seed, int(held_out)))
    # One width out of each equal part of the range: few worlds, and yet every load.
    parts = (np.arange(sets * loads) + rng.uniform(size=sets * loads)) / (sets * loads)
    widths = rng.permutation(np.floor(PRB[0] + parts * (PRB[1] + 1 - PRB[0])).astype(np.int64))
    for index in range(sets):
        people = SEED_BASE + 2 * (1000 * seed + index) + int(held_out)
        known: Known | None = None
        for prb in widths[index * loads : (index + 1) * loads]:
            spec = WorldSpec(
                users=USERS[1], duration_s=LEARN_S + EPISODES_EACH * EPISODE * STEP_S, prb=int(prb)
            )
            traces = draw(spec, people)
            # The same people judge in the same way whatever the carrier: what is learnt once serves.
            known = known or learn(traces, LEARN_S, people)
            begin = LEARN_S // STEP_S
            steps = range(begin, spec.steps)
            out.append(Place(traces, known, begin, curves(traces, known, steps)))
    return out


@dataclass(slots=True)
class Episode:
    """:data:`EPISODE` steps of a place, with fewer users: what a network of a kind sees and does there."""

    place: Place
    kind: str
    count: int
    begin: int
    run: Run

    @classmethod
    def of(cls, place: Place, kind: str, rng: np.random.Generator) -> Episode:
        """Users and part of the time at random."""
        count = int(rng.integers(USERS[0], USERS[1] + 1))
        begin = place.begin + EPISODE * int(rng.integers(EPISODES_EACH))
        return cls(place, kind, count, begin, Run(first(place.traces, count), place.known.take(count), begin))

    @property
    def done(self) -> bool:
        return self.run.world.step_number >= self.begin + EPISODE or self.run.world.done

    def hulls(self) -> list[Hull]:
        """The users' now."""
        at = min(self.run.world.step_number - self.place.begin, len(self.place.hulls) - 1)
        return self.place.hulls[at][: self.count]

    def states(self) -> FloatArray:
        """[cells, inputs]."""
        users, resources, condition = self.run.users(), self.run.resources, self.run.condition()
        return states(self.kind, users, self.hulls(), resources, condition)

    def step(self, actions: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
        """A step by actions [cells, branches]: of each user, what its score was worth and what it was worth
        in the mean, and the cell in which it was."""
        users, resources = self.run.users(), self.run.resources
        plan = decide(self.kind, actions, users, self.hulls(), resources)
        score = self.run.step(plan)[:, 0]
        expected = self.run.world.expected[:, self.run.world.step_number - 1]
        return gain(score, users.ela), gain(expected, users.ela), users.cell


def states(
    kind: str, users: Users, hulls: list[Hull], resources: Resources, condition: Condition
) -> FloatArray:
    """What a network of a kind sees, [cells, inputs]."""
    if kind == bdqn.USER:
        return bdqn.user_states(users, resources, condition)
    return bdqn.group_states(users, hulls, groups_of(users.models), resources, condition)


def decide(kind: str, actions: IntArray, users: Users, hulls: list[Hull], resources: Resources) -> Plan:
    """What each user gets by actions [cells, branches]; among the users of a group by :func:`divided`."""
    if kind == bdqn.USER:
        return bdqn.user_plan(actions, users, resources)
    groups = groups_of(users.models)
    shares = bdqn.group_shares(actions, users, groups, resources)
    return with_bitrates(users, divided(users, hulls, groups, shares, resources), resources)


def divided(
    users: Users, hulls: list[Hull], groups: IntArray, shares: Shares, resources: Resources
) -> FloatArray:
    """Rates of users within their groups by the convex division on their hulls: several times as fast as
    SLSQP and dynamic programming, which serve while a network does not learn."""
    at = users.cell * len(GROUPS) + groups
    apart = replace(users, cell=at)
    prb, mcycles = shares.prb.ravel() * FULL_SHARE, shares.mcycles.ravel() * FULL_SHARE
    kbps = frontier.divide(apart, hulls, prb, np.inf, resources.cycles_per_bit).kbps
    used = np.bincount(at, kbps, len(prb)) * resources.kbit_mcycles
    for group in np.flatnonzero(used > mcycles * (1.0 + 1e-9)):
        rows = np.flatnonzero(at == group)
        members = replace(users.take(rows), cell=np.zeros(len(rows), np.int64))
        own = [hulls[i] for i in rows]
        limit = float(mcycles[group])
        kbps[rows] = frontier.divide(members, own, prb[[group]], limit, resources.cycles_per_bit).kbps
    return kbps
