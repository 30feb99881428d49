"""What nobody can better, who knows all: the viewers as they are, B, C and the channel of each step before it
begins; and the regret of those who do not.

**Curves.** In a step a viewer is shown something in a part of the time, at some bitrates. By each of the
principles of :mod:`wire.definitions.mos` S is linear in the parts of the time at each bitrate, so that the
most that S can be with y kbit/s of what is shown is the concave hull of no video at 0 and each bitrate's S at
its rate. The mean score, and what it is worth against the agreement, never fall in S; of that as a function
of y the concave hull is taken, of values at the upper end of each interval of a grid, so that it lies nowhere
below.

**For a step** (:func:`step_bound`): the most of the sum of the curves over rates that cells and edge allow
(:func:`controller.allocators.video.frontier.divide`), with nothing stalled while a video starts. It bounds
what can be made of what is fetched in the step, not what is shown of a buffer that was filled before.

**For a run** (:func:`run_bound`), a linear program over all its steps: what is shown in a step was fetched in
it or before, what is carried into the next is no more than a player holds, AHEAD + 1 + MAX_PREFETCH segments
of the highest bitrate. No scheme that starts with empty buffers can better it.

A scheme's *regret* is the bound of the run less what it made of it. What is compared is the gain
(:func:`controller.allocators.video.users.gain`) of the mean of the law from which each score was drawn
(:attr:`World.expected`), not of the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video import bdqn, frontier, orchestration
from controller.allocators.video.bdqn import BranchingNetwork
from controller.allocators.video.frontier import Hull
from controller.allocators.video.opinion import CONTEXT, OpinionModel, Structure, truncated_mean
from controller.allocators.video.orchestration import Plan
from controller.allocators.video.users import LADDER, Users, gain
from controller.experiments import pool
from controller.experiments.stats import estimate
from controller.experiments.video.runs import Rule, Run, learn, play
from controller.experiments.video.world import STEP_S, Traces, WorldSpec, draw
from wire.definitions import mos, viewing

FloatArray = NDArray[np.float64]

GRID_KBPS: Final = np.linspace(0.0, float(LADDER[-1]), 121)
"""Of curves."""


def services(viewer: viewing.Viewer) -> Hull:
    """The most that S can be with a rate of what is shown."""
    shown = np.concatenate(([0.0], np.ones(len(LADDER))))
    quality = np.concatenate(([0.0], mos.quality(LADDER)))
    s = mos.service_quality(viewer.principle, 60.0 * (1.0 - shown), quality)
    return Hull.of(np.concatenate(([0.0], LADDER)), np.maximum.accumulate(s))


def curves(traces: Traces, step: int) -> list[Hull]:
    """What a rate of what is shown is worth in a step to each user at most."""
    at = (step + 1) * STEP_S
    out = []
    for user in range(traces.spec.users):
        viewer = traces.viewer(user, at)
        best = services(viewer)
        upper = np.append(GRID_KBPS[1:], GRID_KBPS[-1])
        worth = gain(mean_scores(traces, user, step, np.interp(upper, best.kbps, best.gain)), viewer.ela)
        out.append(Hull.of(GRID_KBPS, worth))
    return out


def mean_scores(traces: Traces, user: int, step: int, service: FloatArray) -> FloatArray:
    """The means of a user's scores of a step, of values of S."""
    at = (step + 1) * STEP_S
    viewer = traces.viewer(user, at)
    b, c = traces.behaviour[user, at], traces.environment[user, at]
    impact = float(mos.impact(viewer.impact, b, c, viewer.weights))
    return truncated_mean(service * impact, mos.DEVIATIONS[viewer.principle])[0]


def carried(traces: Traces, step: int) -> FloatArray:
    """kbit/s that a PRB of its cell carries for each user in the mean of a step, [users]."""
    return np.asarray(traces.kbps_per_prb[:, step * STEP_S : (step + 1) * STEP_S].mean(axis=1))


def seen(users: Users, traces: Traces, step: int) -> Users:
    """The users with what the channel will be."""
    return replace(users, kbps_per_prb=carried(traces, step))


def step_bound(run: Run) -> float:
    """Of the sum of gains of the step that is next."""
    traces, step = run.traces, run.world.step_number
    hulls, r = curves(traces, step), run.resources
    division = frontier.divide(seen(run.users(), traces, step), hulls, r.prb, r.mcycles, r.cycles_per_bit)
    return sum(float(np.interp(y, h.kbps, h.gain)) for y, h in zip(division.kbps, hulls, strict=True))


def run_bound(traces: Traces, begin: int, end: int | None = None) -> float:
    """Of the mean gain of a user in a step, from step ``begin`` to before ``end``.

    ImportError where SciPy is not installed; RuntimeError where the solver fails.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    spec = traces.spec
    steps = range(begin, spec.steps if end is None else end)
    n, count = spec.users, len(steps)
    hulls = [curves(traces, step) for step in steps]
    segments = [
        (k, u, dy * STEP_S, dg / (dy * STEP_S))
        for k, of_step in enumerate(hulls)
        for u, h in enumerate(of_step)
        for dy, dg in zip(np.diff(h.kbps), np.diff(h.gain), strict=True)
    ]
    step_of, user_of = (np.array([s[i] for s in segments], np.int64) for i in (0, 1))
    width, slope = (np.array([s[i] for s in segments]) for i in (2, 3))
    # Columns: kbit shown, of each segment; then kbit fetched and kbit carried on, of each step and user.
    shown, pairs = len(segments), count * n
    fetched, kept = shown + np.arange(pairs), shown + pairs + np.arange(pairs)
    held = (viewing.AHEAD + 1 + viewing.MAX_PREFETCH) * spec.segment_s * float(LADDER[-1])
    rate = np.stack([carried(traces, step) for step in steps]).ravel()
    cell = np.stack([traces.cell[:, step * STEP_S] for step in steps])
    row_of_cell = pairs + (np.arange(count)[:, None] * spec.cells + cell).ravel()
    row_of_edge = pairs + count * spec.cells + np.repeat(np.arange(count), n)
    later = np.arange(n, pairs)
    entries = (
        (step_of * n + user_of, np.arange(shown), np.ones(shown)),
        (np.arange(pairs), kept, np.ones(pairs)),
        (np.arange(pairs), fetched, -np.ones(pairs)),
        (later, kept[later - n], -np.ones(len(later))),
        (row_of_cell, fetched, 1.0 / (np.maximum(rate, 1e-9) * STEP_S)),
        (row_of_edge, fetched, np.full(pairs, spec.kbit_mcycles / STEP_S)),
    )
    rows, columns, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    limits = np.concatenate(
        (np.zeros(pairs), np.full(count * spec.cells, float(spec.prb)), np.full(count, spec.edge_mcycles))
    )
    found = linprog(
        np.concatenate((-slope, np.zeros(2 * pairs))),
        csr_array((values, (rows, columns)), shape=(len(limits), shown + 2 * pairs)),
        limits,
        bounds=np.column_stack(
            (
                np.zeros(shown + 2 * pairs),
                np.concatenate((width, np.full(pairs, np.inf), np.full(pairs, held))),
            )
        ),
        method="highs-ipm",
    )
    if found.status != 0:
        raise RuntimeError(f"the bound of the run was not found: {found.message}")
    least = sum(float(h.gain[0]) for of_step in hulls for h in of_step)
    return (least - float(found.fun)) / pairs


# ---- schemes ---------------------------------------------------------------------------------------------


def true_model(viewer: viewing.Viewer) -> OpinionModel:
    """What a viewer judges by, as a model."""
    intercept, slopes = {
        "stalls": (mos.SCALE[1], {"stalled": -mos.STALL_WEIGHT}),
        "quality": (1.0, {"quality": 4.0}),
        "combined": (1.0, {"stalled": -mos.STALL_WEIGHT, "quality": 4.0}),
    }[viewer.principle]
    structure = Structure(tuple(slopes), CONTEXT, viewer.impact)
    deviation = mos.DEVIATIONS[viewer.principle]
    return OpinionModel(structure, intercept, tuple(slopes.values()), viewer.weights, deviation)


def foresight(run: Run) -> Plan:
    """The convex division among all users by who knows the viewers, and B, C, swipes and the channel of the
    step."""
    traces, step, r = run.traces, run.world.step_number, run.resources
    at = (step + 1) * STEP_S
    users = replace(
        seen(run.users(), traces, step),
        models=tuple(true_model(traces.viewer(user, at)) for user in range(traces.spec.users)),
        behaviour=traces.behaviour[:, at],
        environment=traces.environment[:, at],
        swipes_per_min=traces.swipes_per_min[:, at],
    )
    plan = orchestration.convex(users, r)
    return replace(plan, prefetch=np.full(len(users), float(viewing.MAX_PREFETCH)))


def network_rule(network: BranchingNetwork) -> Rule:
    """A network's rule, of either kind."""

    def rule(run: Run) -> Plan:
        users, resources, condition = run.users(), run.resources, run.condition()
        if network.kind == bdqn.USER:
            return bdqn.serve(network, users, resources, condition)
        return orchestration.plan(users, resources, bdqn.group_level(network, condition))

    return rule


def rules(networks: Mapping[str, BranchingNetwork]) -> dict[str, Rule]:
    """The group level by network, by gain and by equal shares; without groups; with foresight."""
    return {
        **{name: network_rule(network) for name, network in networks.items()},
        "greedy": lambda run: orchestration.plan(run.users(), run.resources, orchestration.greedy_shares),
        "equal": lambda run: orchestration.plan(run.users(), run.resources, orchestration.equal_shares),
        "ungrouped": lambda run: orchestration.convex(run.users(), run.resources),
        "round robin": lambda run: orchestration.round_robin(run.users(), run.resources),
        "foresight": foresight,
    }


# ---- regret ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """A world of :func:`regrets`; ``networks`` as bytes, by name."""

    spec: WorldSpec
    seed: int
    learn_s: int
    networks: Mapping[str, bytes]


def measure(job: Job) -> dict[str, Any]:
    """Of a world: the bounds, and for each scheme the mean gain, of means (``gain``) and of scores that were
    drawn (``drawn``), and the part of the users' scores that keep the agreement (``kept``)."""
    traces = draw(job.spec, job.seed)
    known = learn(traces, job.learn_s, job.seed)
    begin = job.learn_s // STEP_S
    networks = {name: BranchingNetwork.from_bytes(data) for name, data in job.networks.items()}
    schemes = {}
    ela = traces.ela[:, None]
    for name, rule in rules(networks).items():
        world = play(traces, known, rule, begin)
        expected, score = world.expected[:, begin:], world.ratings[:, begin:, 0]
        schemes[name] = {
            "gain": float(gain(expected, ela).mean()),
            "drawn": float(gain(score, ela).mean()),
            "kept": float((score >= ela).mean()),
        }
    steps = [step_bound(Run(traces, known, step)) for step in range(begin, job.spec.steps)]
    return {
        "seed": job.seed,
        "step_bound": float(np.mean(steps)) / job.spec.users,
        "run_bound": run_bound(traces, begin),
        "schemes": schemes,
    }


def regrets(
    seeds: Sequence[int],
    spec: WorldSpec,
    networks: Mapping[str, bytes],
    learn_s: int = 600,
    workers: int = 1,
) -> dict[str, Any]:
    """Regret of each scheme against the bound of the run, and what it is made of, with 95 % intervals over
    the seeds; plain data. ValueError for a world that is over when models are learnt."""
    if spec.duration_s <= learn_s:
        raise ValueError(f"{spec.duration_s} s: models are learnt until {learn_s} s")
    jobs = [Job(spec, seed, learn_s, networks) for seed in seeds]
    done = dict(pool.local(measure, jobs, workers))
    worlds = [done[i] for i in range(len(jobs))]
    mean = partial(_estimate, worlds)
    return {
        "users": spec.users,
        "prb": spec.prb,
        "seeds": list(seeds),
        "step_bound": mean(lambda w: w["step_bound"]),
        "run_bound": mean(lambda w: w["run_bound"]),
        "schemes": {
            name: {
                **{
                    key: mean(lambda w, name=name, key=key: w["schemes"][name][key])
                    for key in ("gain", "drawn", "kept")
                },
                "regret": mean(lambda w, name=name: w["run_bound"] - w["schemes"][name]["gain"]),
                "over_greedy": mean(
                    lambda w, name=name: w["schemes"][name]["gain"] - w["schemes"]["greedy"]["gain"]
                ),
            }
            for name in worlds[0]["schemes"]
        },
        "worlds": worlds,
    }


def _estimate(worlds: Sequence[Mapping[str, Any]], of: Any) -> dict[str, float | None]:
    found = estimate([of(world) for world in worlds])
    assert found is not None
    return found.to_dict()
