"""What agents learn beside the loop: their models, what their users may be up to, and what they demand of a
window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.agent import (
    CHOOSE_ROWS,
    GENERAL,
    GROUP,
    HISTORY,
    OWN,
    Agent,
    Population,
    possible,
)
from controller.allocators.video.demand import Demand, demand
from controller.allocators.video.emulation import Emulator
from controller.allocators.video.groups import GROUPS
from controller.allocators.video.opinion import OpinionModel, first_informative
from controller.allocators.video.rows import Profile, pack_rows, unpack_rows
from controller.allocators.video.users import Users
from controller.twins.drift import Cusum
from controller.twins.packing import pack_arrays, unpack_arrays
from controller.twins.slice.reservation import Distribution
from controller.twins.slice.windows import WINDOWS_MIN, dynamics
from wire.definitions import mos
from wire.definitions.viewing import REQUESTS_PER_MIN

FloatArray = NDArray[np.float64]

MAX_AGENTS: Final = 256
"""The latest that were heard of."""
TYPICAL_MIN: Final = 9
"""Minutes over which dynamics are looked at."""
HANDED_ROWS: Final = 60
"""Latest scores that follow a user to another cell."""
USUAL_PRB_PER_KBPS: Final = 1.0 / 500.0


@dataclass(slots=True)
class Memory:
    """What a round of learning gave. ``demands``: window in minutes -> that of ``users``; ``quantiles``:
    window in minutes -> PRBs that all of them together need in a share ``reliability`` of the futures;
    ``index``: dynamics."""

    population: Population
    users: tuple[str, ...] = ()
    demands: dict[int, Demand] = field(default_factory=dict)
    quantiles: dict[int, float] = field(default_factory=dict)
    index: float = 0.0
    recurrent: bool = False

    def to_bytes(self) -> bytes:
        agents = list(self.population.agents.values())
        general = self.population.general
        values = {
            "agents": [_agent_state(a) for a in agents],
            "rows": [len(a.history) for a in agents],
            "general": None if general is None else general.to_state(),
            "groups": {name: model.to_state() for name, model in self.population.groups.items()},
            "users": list(self.users),
            "quantiles": [[w, q] for w, q in self.quantiles.items()],
            "index": self.index,
            "recurrent": self.recurrent,
        }
        arrays: dict[str, NDArray[Any]] = {
            "history": np.concatenate([a.history for a in agents] or [np.empty((0, len(HISTORY)))])
        }
        for window, d in self.demands.items():
            for name in _DEMAND:
                arrays[f"{window}/{name}"] = getattr(d, name)
        return pack_arrays(values, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Memory:
        """ValueError, KeyError, TypeError for bytes that are none."""
        values, arrays = unpack_arrays(data)
        agents: dict[str, Agent] = {}
        at = 0
        for state, rows in zip(values["agents"], values["rows"], strict=True):
            agent = _agent_of(state)
            agent.history = arrays["history"][at : at + rows]
            agents[agent.user] = agent
            at += rows
        general = values["general"]
        groups = {str(n): OpinionModel.from_state(m) for n, m in values["groups"].items()}
        if not groups.keys() <= {*GROUPS} or at != len(arrays["history"]):
            raise ValueError(
                f"groups {sorted(groups)}, {at} of {len(arrays['history'])} rows: no memory of agents"
            )
        demands = {}
        for window, _ in values["quantiles"]:
            columns = {name: arrays[f"{window}/{name}"] for name in _DEMAND}
            if any(len(c) != len(values["users"]) for c in columns.values()):
                raise ValueError(
                    f"demands of a window of {window} min that are not of {len(values['users'])} users"
                )
            demands[int(window)] = Demand(**columns)
        return cls(
            Population(agents, None if general is None else OpinionModel.from_state(general), groups),
            tuple(map(str, values["users"])),
            demands,
            {int(w): float(q) for w, q in values["quantiles"]},
            float(values["index"]),
            bool(values["recurrent"]),
        )


_DEMAND: Final = tuple(Demand.__slots__)


def _agent_state(a: Agent) -> dict[str, Any]:
    return {
        "user": a.user,
        "ela": a.ela,
        "segment_s": a.segment_s,
        "model": None if a.model is None else a.model.to_state(),
        "source": a.source,
        "seen": a.seen,
        "fitted": a.fitted,
        "surprise": a.surprise.to_state(),
        "surprised": a.surprised,
        "habit": a.habit.to_state(),
        "habit_step": a.habit_step,
        "drifts": a.drifts,
    }


def _agent_of(state: Mapping[str, Any]) -> Agent:
    model = state["model"]
    if state["source"] not in (OWN, GROUP, GENERAL):
        raise ValueError(f"agent {state['user']!r}: a model of {state['source']!r}")
    return Agent(
        str(state["user"]),
        float(state["ela"]),
        float(state["segment_s"]),
        model=None if model is None else OpinionModel.from_state(model),
        source=state["source"],
        seen=int(state["seen"]),
        fitted=int(state["fitted"]),
        surprise=Cusum.from_state(state["surprise"]),
        surprised=None if state["surprised"] is None else int(state["surprised"]),
        habit=Cusum.from_state(state["habit"]),
        habit_step=int(state["habit_step"]),
        drifts=int(state["drifts"]),
    )


def handed_over(agent: Agent) -> dict[str, Any]:
    """What follows a user to another cell, as plain JSON, some KiB: its agent with its latest scores."""
    return {**_agent_state(agent), "history": pack_rows(agent.history[-HANDED_ROWS:])}


def arrived(state: Mapping[str, Any]) -> Agent:
    """The agent of :func:`handed_over`; ValueError, KeyError, TypeError for what is none."""
    if type(state["seen"]) is not int or state["seen"] < 0:
        raise ValueError(f"agent {state['user']!r}: {state['seen']!r} scores seen")
    agent = _agent_of(state)
    agent.history = unpack_rows(state["history"])[-HANDED_ROWS:]
    if not possible(agent.history).all():
        raise ValueError(f"agent {agent.user!r}: scores, context or times that cannot be")
    if Profile.of((agent.ela, agent.segment_s, 0.0)) is None:
        raise ValueError(f"agent {agent.user!r}: an ELA of {agent.ela}, segments of {agent.segment_s} s")
    return agent


def learn(
    *,
    before: bytes,
    rows: Mapping[str, FloatArray],
    profiles: Mapping[str, Sequence[float]],
    arrivals: Mapping[str, Mapping[str, Any]],
    present: Sequence[str],
    options: Mapping[str, Any],
    seed: int,
) -> bytes:
    """One round, a job of :mod:`controller.core.fits`: the memory's bytes.

    ``rows`` [n, HISTORY] of each user since the round ``before``; ``present`` are those whose demands are
    asked for.
    """
    memory = Memory.from_bytes(before) if before else Memory(Population())
    agents = memory.population.agents
    for state in arrivals.values():
        agent = arrived(state)
        known = agents.get(agent.user)
        if known is None or known.seen < agent.seen:
            agents[agent.user] = agent
    for user in dict.fromkeys((*rows, *profiles, *present)):
        profile = Profile(*profiles[user]) if user in profiles else Profile(float(options["ela"]))
        agent = agents.pop(user) if user in agents else Agent(user, profile.ela)
        if user in profiles:
            agent.ela, agent.segment_s = profile.ela, profile.segment_s
        if user in rows:
            agent.observe(rows[user])
        agents[user] = agent  # the latest come last
    memory.population.agents = dict(list(agents.items())[-MAX_AGENTS:])
    memory.population.learn()
    of = [memory.population.agents[u] for u in present if u in memory.population.agents]
    memory.users = tuple(a.user for a in of)
    memory.demands, memory.quantiles = {}, {}
    if not of or memory.population.general is None:
        return memory.to_bytes()
    rng = np.random.default_rng(seed)
    emulator = Emulator.fit(of, network=bool(options["recurrent"]), seed=seed & 0xFFFF)
    memory.recurrent = emulator.network is not None
    ahead = emulator.futures(of, 60.0 * TYPICAL_MIN, rng)
    memory.index = round(dynamics(ahead.behaviour, ahead.environment), 4)
    users = users_of(of, memory.population.general, str(options["models"]))
    reliability = float(options["reliability"])
    for minutes in [int(options["window_min"])] if options["window_min"] else WINDOWS_MIN:
        ahead = emulator.futures(of, 60.0 * minutes, rng)
        # Cycles are divided by the rate in the loop: a slice's users need not have segments of the same
        # cycles.
        wanted = demand(users, ahead, 60.0 * minutes, reliability, 1e3)
        memory.demands[minutes] = wanted
        memory.quantiles[minutes] = Distribution(wanted.prb.sum(axis=0)).quantile(reliability)
    return memory.to_bytes()


def users_of(agents: Sequence[Agent], general: OpinionModel, models: str) -> Users:
    """The users of agents as they were when they last scored."""
    n = len(agents)

    def last(name: str, usual: float) -> FloatArray:
        out = np.full(n, usual)
        for i, agent in enumerate(agents):
            known = agent.column(name)[-CHOOSE_ROWS:]
            known = known[np.isfinite(known)]
            if len(known):
                out[i] = known[-1] if name in ("behaviour", "environment", "swipes_per_min") else known.mean()
        return out

    return Users(
        tuple(first_informative(None if models == "general" else a.model, general) for a in agents),
        np.array([a.ela for a in agents]),
        last("behaviour", float(mos.behaviour(REQUESTS_PER_MIN))),
        last("environment", float(np.mean(mos.FACTOR_RANGE))),
        last("swipes_per_min", REQUESTS_PER_MIN),
        1.0 / np.maximum(last("prb_per_kbps", USUAL_PRB_PER_KBPS), 1e-9),
        np.zeros(n, np.int64),
        last("jitter", 0.0),
        last("loss", 0.0),
    )
