"""Users of a world with the QoE models that were learnt of each, and a world played through by a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video import frontier, opinion
from controller.allocators.video.bdqn import Condition
from controller.allocators.video.frontier import Hull
from controller.allocators.video.opinion import COLUMNS, OpinionModel
from controller.allocators.video.orchestration import FULL_SHARE, Plan, Resources
from controller.allocators.video.users import LADDER, Users
from controller.experiments.video.world import Allocation, Traces, World
from wire.definitions.viewing import MAX_PREFETCH

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_PER_USER = ("position_m", "speed_kmh", "cell", "kbps_per_prb", "swipes", "swipes_per_min")
_CONTEXT = ("behaviour", "environment", "quantile")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of users: their models, and ``jitter`` [users] that the models that mind it are given."""

    models: tuple[OpinionModel, ...]
    jitter: FloatArray

    def take(self, count: int) -> Known:
        """The first of them."""
        return Known(self.models[:count], self.jitter[:count])


def first(traces: Traces, count: int) -> Traces:
    """The first users of a world alone; ValueError for more than it has."""
    if not 1 <= count <= traces.spec.users:
        raise ValueError(f"{count} users of {traces.spec.users}")
    columns = {name: getattr(traces, name)[:count] for name in (*_PER_USER, *_CONTEXT, "viewers", "later")}
    return replace(traces, spec=replace(traces.spec, users=count), **columns)


def learn(traces: Traces, until_s: int, seed: int) -> Known:
    """A model of each user of its own ratings of the time until then, in which rates, bitrates and
    prefetching are at random.

    ValueError for less time than a model takes (:data:`controller.allocators.video.opinion.LEAST_ROWS`).
    """
    world, rng = World(traces), np.random.default_rng((seed, 0))
    while world.time_s < until_s:
        world.step(at_random(world, rng))
    ratings = world.ratings[:, : world.step_number]
    jitter = ratings[:, :, COLUMNS.index("jitter")]
    known = np.isfinite(jitter)
    mean = np.where(known, jitter, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return Known(tuple(opinion.fit(rows) for rows in ratings), mean)


def at_random(world: World, rng: np.random.Generator) -> Allocation:
    """Parts of equal shares, bitrates and prefetching at random."""
    spec, n = world.traces.spec, world.traces.spec.users
    cell = world.traces.cell[:, world.time_s]
    here = np.bincount(cell, minlength=spec.cells)[cell]
    return Allocation(
        spec.prb * FULL_SHARE / here * rng.uniform(0.3, 1.0, n),
        np.full(n, spec.edge_mcycles * FULL_SHARE / n),
        rng.choice(LADDER, n),
        rng.integers(0, MAX_PREFETCH + 1, n).astype(np.float64),
    )


@dataclass(slots=True)
class Run:
    """A world from step ``begin`` on, with empty buffers there."""

    traces: Traces
    known: Known
    begin: int
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.world = World(self.traces, self.begin)

    @property
    def resources(self) -> Resources:
        spec = self.traces.spec
        return Resources(np.full(spec.cells, float(spec.prb)), spec.edge_mcycles, spec.cycles_per_bit)

    def users(self) -> Users:
        """The users now."""
        t, at = self.traces, self.world.time_s
        return Users(
            self.known.models,
            t.ela,
            t.behaviour[:, at],
            t.environment[:, at],
            t.swipes_per_min[:, at],
            t.kbps_per_prb[:, at],
            t.cell[:, at],
            self.known.jitter,
            np.zeros(t.spec.users),
            t.spec.segment_s,
        )

    def condition(self) -> Condition:
        """How it has been going for them."""
        last = self.world.ratings[:, max(self.world.step_number - 1, 0)]
        return Condition(
            self.world.buffer_s,
            last[:, COLUMNS.index("quality")],
            last[:, COLUMNS.index("stalled")],
            self.world.fetched_kbps * self.traces.spec.kbit_mcycles,
        )

    def step(self, plan: Plan) -> FloatArray:
        """Ratings of a step by a plan, [users, COLUMNS]."""
        return self.world.step(Allocation(plan.prb, plan.mcycles, plan.bitrate_kbps, plan.prefetch))


Rule = Callable[[Run], Plan]
"""The run up to now -> what each user gets in the next step."""


def play(traces: Traces, known: Known, rule: Rule, begin: int) -> World:
    """A world played to its end from step ``begin`` on by a rule."""
    run = Run(traces, known, begin)
    while not run.world.done:
        run.step(rule(run))
    return run.world


def curves(traces: Traces, known: Known, steps: Sequence[int]) -> list[list[Hull]]:
    """The users' hulls at the beginning of each step, which do not depend on what anybody gets."""
    return [frontier.hulls(Run(traces, known, step).users()) for step in steps]
