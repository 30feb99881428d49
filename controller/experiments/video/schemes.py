"""The schemes of the case study on the campus: the digital agents, the paper's benchmarks, and what is left
out in turn.

All begin with the same minutes in which users get equal shares and bitrates at random, of which agents learn;
only what comes after is judged. A slice reserves PRBs of each cell and cycles of the edge for a window and
gets no more in it: what is not reserved belongs to others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video import bdqn, frontier, orchestration
from controller.allocators.video.agent import GENERAL, HISTORY, OWN, Agent, Population
from controller.allocators.video.bdqn import BranchingNetwork, Condition
from controller.allocators.video.demand import Demand, Futures, demand
from controller.allocators.video.emulation import Emulator
from controller.allocators.video.groups import GROUPS, groups_of
from controller.allocators.video.opinion import COLUMNS, OpinionModel
from controller.allocators.video.orchestration import Plan, Resources
from controller.allocators.video.users import LADDER, Users
from controller.experiments.video.world import STEP_S, Allocation, Traces, World, WorldSpec
from controller.twins.drift import Cusum, Settings
from controller.twins.slice.game import make_game
from controller.twins.slice.reservation import Label, Request, abstract, reserve
from controller.twins.slice.windows import WINDOWS_MIN, SliceWindow, Tuning, dynamics
from wire.definitions.viewing import MAX_PREFETCH

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

WARM_UP_S: Final = 600
WARM_UP: Final = WorldSpec()
"""Of which no more is divided in that time, however much there is: who never sees a stall does not tell what
it thinks of one."""
NEVER: Final = Settings(threshold=1e9)
"""Of a detector that finds no change."""
RELIABILITY: Final = 0.8
"""With which an agent's demand keeps the agreement."""
CYCLE_PARTS: Final = 20
"""Of a group's cycles, that are reserved apart; of the edge's in the game."""
TUNING: Final = Tuning(thresholds=(0.90, 0.915, 0.93, 0.95), target=0.75, step=0.005, bound=0.02)
"""Quintiles of the dynamics of this campus, of the shortest window: users change so much and so fast that
over longer ones the index is 1 nearly all the time, and evenly spaced thresholds know one stage alone."""
SLA_KBPS: Final = 1800.0
"""The throughput of the service-level agreement of HSLA-L2, which is the same for all: the middle of the
ladder, 1500 kbit/s, and a fifth more."""

Orchestrate = Callable[["Campus", Users, Resources], Plan]
"""The state of the run, its users and what there is -> what each user gets."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """``models``: whose QoE models it goes by (own, general); ``slicing``: what it reserves by (agents, sla,
    all); ``window_min``: minutes of a window, 0: by network dynamics.

    ``emulated``: demand is that of emulated futures, else that of the present; ``recurrent``: whether
    behaviour may be emulated by a recurrent network, which takes longer to train than all else. ``short``:
    what divides reservations where they do not fit (greedy, game). ``drift``: agents look for changes of
    opinion and habit; ``fallback``: those without a model of their own go by that of a group. ``network``:
    the kind of network that orchestration takes, "" for none."""

    name: str
    models: str = "own"
    slicing: str = "agents"
    window_min: int = 0
    reliability: float = RELIABILITY
    emulated: bool = True
    recurrent: bool = False
    short: str = "greedy"
    prefetch: bool = True
    drift: bool = True
    fallback: bool = True
    network: str = ""
    orchestrate: Orchestrate = field(
        default=lambda campus, users, resources: convex(campus, users, resources)
    )


def convex(campus: Campus, users: Users, resources: Resources) -> Plan:
    """The convex problem for all users at once, without groups."""
    return orchestration.convex(users, resources)


def grouped(campus: Campus, users: Users, resources: Resources) -> Plan:
    """Groups by their gains, users by the method of their group."""
    return orchestration.plan(users, resources, orchestration.greedy_shares)


def grouped_equally(campus: Campus, users: Users, resources: Resources) -> Plan:
    """Equal shares for groups, users by the method of their group."""
    return orchestration.plan(users, resources, orchestration.equal_shares)


def round_robin(campus: Campus, users: Users, resources: Resources) -> Plan:
    """As much for every user."""
    return orchestration.round_robin(users, resources)


def by_network(campus: Campus, users: Users, resources: Resources) -> Plan:
    """Groups by the branching duelling Q-network, users by the method of their group."""
    level = bdqn.group_level(campus.networks[bdqn.GROUP], condition(campus))
    return orchestration.plan(users, resources, level)


def by_users_network(campus: Campus, users: Users, resources: Resources) -> Plan:
    """Users directly by the five-layer network."""
    return bdqn.serve(campus.networks[bdqn.USER], users, resources, condition(campus))


def condition(campus: Campus) -> Condition:
    """How it has been going for the users."""
    world = campus.world
    last = world.ratings[:, world.step_number - 1]
    return Condition(
        world.buffer_s,
        last[:, COLUMNS.index("quality")],
        last[:, COLUMNS.index("stalled")],
        world.fetched_kbps * world.traces.spec.kbit_mcycles,
    )


class Ungrouped(Population):
    """Agents who go by the general model until they have their own."""

    def _borrowed(self, agent: Agent) -> tuple[OpinionModel | None, str]:
        return self.general, GENERAL


@dataclass(slots=True)
class Window:
    """A slice window that was: its first step and its steps, what was reserved, PRBs [cells] and 10^6
    cycles/s, and each user's demand."""

    first: int
    steps: int
    prb: FloatArray
    mcycles: float
    demand: Demand | None
    dynamics: float


@dataclass(slots=True)
class Campus:
    """A run of a scheme, up to now."""

    world: World
    population: Population
    networks: Mapping[str, BranchingNetwork] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    plan: Plan | None = None

    @property
    def traces(self) -> Traces:
        return self.world.traces


def users_now(campus: Campus, models: str) -> Users:
    """The users as their agents know them now."""
    t, at = campus.traces, campus.world.time_s
    agents = list(campus.population.agents.values())
    general = campus.population.general
    assert general is not None
    chosen: list[OpinionModel] = [
        general if models == "general" or a.model is None else a.model for a in agents
    ]
    jitter = np.array([np.nan_to_num(a.column("jitter")[-12:]).mean() for a in agents])
    return Users(
        tuple(chosen),
        t.ela,
        t.behaviour[:, at],
        t.environment[:, at],
        t.swipes_per_min[:, at],
        t.kbps_per_prb[:, at],
        t.cell[:, at],
        jitter,
        np.zeros(len(agents)),
        t.spec.segment_s,
    )


def observe(campus: Campus) -> None:
    """Hand the ratings of the step that is over to the agents."""
    t, w = campus.traces, campus.world
    at = w.time_s
    ratings = w.ratings[:, w.step_number - 1]
    more = np.column_stack(
        (
            t.swipes_per_min[:, at],
            1.0 / np.maximum(t.kbps_per_prb[:, at], 1e-6),
            np.full(len(ratings), float(at)),
        )
    )
    rows = np.concatenate((ratings, more), axis=1)
    assert rows.shape[1] == len(HISTORY)
    for agent, row in zip(campus.population.agents.values(), rows, strict=True):
        agent.observe(row[None])


def begin(traces: Traces, seed: int = 0, warm_up_s: int = WARM_UP_S, drift: bool = True) -> Campus:
    """The first minutes, which are the same for all schemes; ``seed`` is that of what they draw."""
    spec = traces.spec
    agents = {f"user-{i}": Agent(f"user-{i}", v.ela, spec.segment_s) for i, v in enumerate(traces.viewers)}
    if not drift:
        for agent in agents.values():
            agent.surprise = agent.habit = Cusum(NEVER)
    campus = Campus(World(traces), Population(agents))
    warm = np.random.default_rng((seed, 0))
    while campus.world.time_s < warm_up_s:
        campus.world.step(_at_random(campus, warm))
        observe(campus)
    campus.population.learn()
    return campus


def run(
    traces: Traces,
    scheme: Scheme,
    seed: int = 0,
    *,
    start: Campus | None = None,
    networks: Mapping[str, BranchingNetwork] | None = None,
) -> Campus:
    """Play a scheme through a world; ``seed`` is that of what agents draw. ``start`` is what :func:`begin`
    gave, which stays as it is.

    ValueError where the scheme's network is not among ``networks``.
    """
    if scheme.network and scheme.network not in (networks or {}):
        raise ValueError(f"scheme {scheme.name}: no network of kind {scheme.network}")
    campus = begin(traces, seed, drift=scheme.drift) if start is None else copied(start)
    campus.networks = networks or {}
    if not scheme.fallback:
        campus.population = Ungrouped(campus.population.agents)
        campus.population.learn()
    world, spec = campus.world, traces.spec
    rng = np.random.default_rng((seed, 1))
    window, until = SliceWindow(TUNING), world.step_number
    while not world.done:
        if world.step_number >= until:
            campus.population.learn()
            if campus.windows:
                window.feedback(_met(campus))
            steps = _reserve(campus, scheme, window, rng)
            until = world.step_number + steps
        users = users_now(campus, scheme.models)
        last = campus.windows[-1]
        campus.plan = p = scheme.orchestrate(
            campus, users, Resources(last.prb, last.mcycles, spec.cycles_per_bit)
        )
        if scheme.models == "own":
            unknown = np.array([a.source != OWN for a in campus.population.agents.values()])
            campus.plan = p = orchestration.explored(p, unknown, rng.uniform(size=spec.users))
        prefetch = p.prefetch if scheme.prefetch else np.zeros(spec.users)
        world.step(Allocation(p.prb, p.mcycles, p.bitrate_kbps, prefetch))
        observe(campus)
    return campus


def copied(start: Campus) -> Campus:
    """Traces are shared, nothing else."""
    return deepcopy(start, {id(start.traces): start.traces})


def _at_random(campus: Campus, rng: np.random.Generator) -> Allocation:
    """Equal shares of no more than :data:`WARM_UP`, and bitrates at random."""
    t, spec = campus.traces, campus.traces.spec
    cell = t.cell[:, campus.world.time_s]
    n = np.bincount(cell, minlength=spec.cells)[cell]
    shape = spec.users
    return Allocation(
        min(spec.prb, WARM_UP.prb) / n * rng.uniform(0.3, 1.0, shape),
        np.full(shape, min(spec.edge_mcycles, WARM_UP.edge_mcycles) / shape),
        rng.choice(LADDER, shape),
        rng.integers(0, MAX_PREFETCH + 1, shape).astype(np.float64),
    )


def _met(campus: Campus) -> float:
    """Share of the users whose scores of the last window kept the agreement, of those for whom that was
    expected to be possible: windows are to answer for nothing else."""
    last = campus.windows[-1]
    scores = campus.world.ratings[:, last.first : last.first + last.steps, 0]
    met = np.nanmean(scores, axis=1) >= campus.traces.ela
    possible = np.ones(len(met), np.bool_) if last.demand is None else last.demand.feasible
    return float(met[possible].mean()) if possible.any() else TUNING.target


def _reserve(campus: Campus, scheme: Scheme, window: SliceWindow, rng: np.random.Generator) -> int:
    """Begin a window: how many steps it has."""
    spec, world = campus.traces.spec, campus.world
    agents = list(campus.population.agents.values())
    emulator = Emulator.fit(agents, network=scheme.recurrent)
    ahead: Futures = emulator.futures(agents, 60.0 * WINDOWS_MIN[0], rng)
    index = dynamics(ahead.behaviour, ahead.environment)
    minutes = scheme.window_min or window.minutes(index)
    steps = min(minutes * 60 // STEP_S, spec.steps - world.step_number)
    users = users_now(campus, scheme.models)
    if scheme.slicing == "all":
        prb, mcycles, wanted = np.full(spec.cells, float(spec.prb)), spec.edge_mcycles, None
    elif scheme.slicing == "sla":
        need = SLA_KBPS / np.maximum(users.kbps_per_prb, 1e-9)
        prb = np.minimum(np.bincount(users.cell, need, spec.cells), float(spec.prb))
        mcycles, wanted = min(SLA_KBPS * spec.kbit_mcycles * len(users), spec.edge_mcycles), None
    else:
        ahead = emulator.futures(agents, 60.0 * minutes, rng) if scheme.emulated else present(users)
        wanted = demand(users, ahead, steps * STEP_S, scheme.reliability, spec.cycles_per_bit)
        resources = Resources(np.full(spec.cells, float(spec.prb)), spec.edge_mcycles, spec.cycles_per_bit)
        prb, mcycles = slices(users, wanted, resources, scheme)
    campus.windows.append(Window(world.step_number, steps, prb, mcycles, wanted, index))
    return steps


def present(users: Users) -> Futures:
    """The one future in which all stays as it is."""
    now = (
        users.behaviour,
        users.environment,
        users.swipes_per_min,
        1.0 / np.maximum(users.kbps_per_prb, 1e-9),
    )
    return Futures(*(column[:, None, None] for column in now))


def slices(users: Users, wanted: Demand, resources: Resources, scheme: Scheme) -> tuple[FloatArray, float]:
    """What level two reserves, PRBs [cells] and 10^6 cycles/s: for each group of a cell a quantile of its
    demand, where it is short by gain or by the game."""
    groups = groups_of(users.models)
    labels = [Label(GROUPS[g], f"cell {c}") for g, c in zip(groups, users.cell, strict=True)]
    names = [str(i) for i in range(len(users))]
    distribution = abstract(dict(zip(names, wanted.prb, strict=True)), dict(zip(names, labels, strict=True)))
    out = np.zeros(resources.cells)
    cycles: dict[tuple[int, int], Request] = {}
    for cell in range(resources.cells):
        requests: dict[tuple[int, int], Request] = {}
        for group in range(len(GROUPS)):
            rows = np.flatnonzero((users.cell == cell) & (groups == group))
            if not len(rows):
                continue
            members = users.take(rows)
            need = distribution[labels[rows[0]]].quantile(scheme.reliability)
            requests[cell, group] = Request({"prb": need}, _gains(members, members.kbps_per_prb, need))
            need = float(wanted.mcycles[rows].sum())
            per_mcycle = np.full(len(rows), 1.0 / resources.kbit_mcycles)
            cycles[cell, group] = Request({"edge": need}, _gains(members, per_mcycle, need, CYCLE_PARTS))
        out[cell] = _granted(requests, "prb", float(resources.prb[cell]), scheme.short)
    return out, _granted(cycles, "edge", resources.mcycles, scheme.short)


def _granted(requests: Mapping[tuple[int, int], Request], name: str, capacity: float, short: str) -> float:
    """How much of a resource is reserved for all requests together."""
    needed = sum(r.demand[name] for r in requests.values())
    if short == "greedy" or needed <= capacity:
        return sum(r.amounts.get(name, 0.0) for r in reserve(requests, {name: capacity}).values())
    # In the game all units are of one size: PRBs, or parts of the edge's cycles.
    units = int(capacity) if name == "prb" else CYCLE_PARTS * len(requests)
    gains = [_resampled(r, name, capacity / units) for r in requests.values()]
    taken = sum(make_game(gains, units).play().actions)
    return min(taken * capacity / units, capacity)


def _resampled(request: Request, name: str, unit: float) -> FloatArray:
    """Gains of a request's demand in units of another size."""
    need = request.demand[name]
    if need <= 0.0:
        return np.empty(0)
    worth = np.concatenate(([0.0], np.cumsum(request.gain)))
    amounts = np.arange(int(np.ceil(need / unit)) + 1) * unit
    at = np.interp(amounts, np.linspace(0.0, need, len(worth)), worth)
    return np.minimum.accumulate(np.maximum(np.diff(at), 0.0))


def _gains(users: Users, kbps_per_unit: FloatArray, need: float, parts: int = 0) -> FloatArray:
    """What each further part of a demand gains for a group, never rising: units of a resource, or
    ``parts``."""
    n = parts or max(int(np.ceil(need)), 1)
    segments = [
        (float(d_gain / d_rate * carried), float(d_rate / carried))
        for hull, carried in zip(frontier.hulls(users), kbps_per_unit, strict=True)
        for d_rate, d_gain in zip(np.diff(hull.kbps), np.diff(hull.gain), strict=True)
    ]
    segments.sort(reverse=True)
    units = np.concatenate(([0.0], np.cumsum([width for _, width in segments])))
    worth = np.concatenate(([0.0], np.cumsum([slope * width for slope, width in segments])))
    at = np.interp(np.linspace(0.0, need, n + 1), units, worth)
    return np.minimum.accumulate(np.maximum(np.diff(at), 0.0))


_AGENTS: Final = Scheme("agents")
SCHEMES: Final = {
    s.name: s
    for s in (
        _AGENTS,
        replace(_AGENTS, name="agents-bdqn", network=bdqn.GROUP, orchestrate=by_network),
        Scheme("without-agents", "general", "agents", 9, orchestrate=round_robin),
        replace(_AGENTS, name="pdrl-l1", network=bdqn.USER, orchestrate=by_users_network),
        Scheme("hsla-l2", "own", "sla", 9),
        *(replace(_AGENTS, name=f"window-{minutes}", window_min=minutes) for minutes in WINDOWS_MIN),
        replace(_AGENTS, name="general-models", models="general"),
        replace(_AGENTS, name="no-fallback", fallback=False),
        replace(_AGENTS, name="no-drift", drift=False),
        replace(_AGENTS, name="present", emulated=False),
        replace(_AGENTS, name="recurrent", recurrent=True),
        replace(_AGENTS, name="no-prefetch", prefetch=False),
        replace(_AGENTS, name="reliability-0.5", reliability=0.5),
        replace(_AGENTS, name="reliability-0.95", reliability=0.95),
        replace(_AGENTS, name="sla", slicing="sla"),
        replace(_AGENTS, name="everything", slicing="all"),
        replace(_AGENTS, name="game", short="game"),
        replace(_AGENTS, name="grouped", orchestrate=grouped),
        replace(_AGENTS, name="grouped-equally", orchestrate=grouped_equally),
        replace(_AGENTS, name="round-robin", orchestrate=round_robin),
    )
}
