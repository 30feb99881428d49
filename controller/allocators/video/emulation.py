"""What agents' users may be up to in a slice window, and where: emulated futures of behaviour and
environment.

Behaviour is how often a user swipes, in four states (:data:`EDGES`): a finite-state machine for each user,
shrunk towards that of all, or one small recurrent network, whichever predicted held-out time better.
Environment and radio are Monte Carlo: C and the PRBs of a kbit/s by a nearest-neighbour bootstrap, user by
user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.agent import Agent
from controller.allocators.video.demand import Futures
from controller.twins.environment import NeighbourBootstrap
from controller.twins.markov import MarkovChain
from controller.twins.recurrent import RecurrentNetwork, better
from wire.definitions import mos
from wire.definitions.viewing import REQUESTS_PER_MIN

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FUTURES: Final = 32
TIMES: Final = 4
"""At which a future is looked at, evenly over the window."""
STEP_S: Final = 30.0
"""Of the emulation."""
EDGES: Final = np.array((3.0, 6.0, 9.5))
"""Swipes a minute between the states of behaviour."""
STATES: Final = len(EDGES) + 1
USUAL_SWIPES: Final = np.array((1.5, 4.5, 7.5, 13.0))
"""A minute, in a state in which no user was seen."""
USUAL_PRB_PER_KBPS: Final = 1.0 / 500.0
USUAL_ENVIRONMENT: Final = 1.5
LEAST_STEPS: Final = 12
"""Of all users together, for more than the usual."""
NETWORK_STEPS: Final = 1000
"""Of all users together, for a recurrent network."""
HELD_OUT: Final = 0.3
"""Of each user's time, on which the network and the chains are compared."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """``users`` are those of the rows of the environment's and the radio's pairs; ``network`` is None where
    the chains predict as well. None of ``environment`` and ``radio`` where nothing was seen."""

    users: tuple[str, ...]
    pooled: MarkovChain
    chains: Mapping[str, MarkovChain]
    swipes: FloatArray
    network: RecurrentNetwork | None
    environment: NeighbourBootstrap | None
    radio: NeighbourBootstrap | None

    @classmethod
    def fit(cls, agents: Sequence[Agent], *, network: bool = True, seed: int = 0) -> Emulator:
        """From the agents' histories; ``network``: whether to try one."""
        series = {a.user: _series(a) for a in agents}
        states = {user: s[0] for user, s in series.items()}
        pooled = MarkovChain.fit(states.values(), STATES)
        chains = {user: MarkovChain.fit([s], STATES, pooled) for user, s in states.items()}
        rates = np.concatenate([s[1] for s in series.values()] or [np.empty(0)])
        known = np.isfinite(rates)
        of = np.searchsorted(EDGES, rates[known], side="right")
        count = np.bincount(of, minlength=STATES)
        mean = np.bincount(of, rates[known], STATES) / np.maximum(count, 1)
        return cls(
            tuple(series),
            pooled,
            chains,
            np.where(count > 0, mean, USUAL_SWIPES),
            _network(states, seed) if network else None,
            _bootstrap([s[2] for s in series.values()]),
            _bootstrap([s[3] for s in series.values()]),
        )

    def futures(self, agents: Sequence[Agent], window_s: float, rng: np.random.Generator) -> Futures:
        """Of each agent; of one that is not among ``users`` as of any."""
        steps = max(round(window_s / STEP_S), TIMES)
        at = np.linspace(0, steps - 1, TIMES).astype(np.int64)
        place = {user: i for i, user in enumerate(self.users)}
        rows = np.array([place.get(a.user, -1) for a in agents], np.int64)
        series = [_series(a) for a in agents]
        swipes = self.swipes[self._states(agents, [s[0] for s in series], steps, rng)[:, :, at]]
        environment = self._walk(
            self.environment, rows, [s[2] for s in series], steps, rng, USUAL_ENVIRONMENT
        )
        radio = self._walk(self.radio, rows, [s[3] for s in series], steps, rng, USUAL_PRB_PER_KBPS)
        return Futures(
            mos.behaviour(swipes), np.clip(environment[:, :, at], *mos.FACTOR_RANGE), swipes, radio[:, :, at]
        )

    def _states(
        self, agents: Sequence[Agent], states: Sequence[IntArray], steps: int, rng: np.random.Generator
    ) -> IntArray:
        """int64 [agents, FUTURES, steps]."""
        if self.network is not None and len(agents):
            hidden = np.stack([self.network.hidden(s) for s in states])
            return self.network.simulate(rng, hidden, steps, FUTURES)
        out = np.empty((len(agents), FUTURES, steps), np.int64)
        for i, (agent, seen) in enumerate(zip(agents, states, strict=True)):
            chain = self.chains.get(agent.user, self.pooled)
            last = seen[seen >= 0]
            usual = int(np.searchsorted(EDGES, REQUESTS_PER_MIN, side="right"))
            out[i] = chain.simulate(rng, int(last[-1]) if len(last) else usual, steps, FUTURES)
        return out

    @staticmethod
    def _walk(
        bootstrap: NeighbourBootstrap | None,
        rows: IntArray,
        series: Sequence[FloatArray],
        steps: int,
        rng: np.random.Generator,
        usual: float,
    ) -> FloatArray:
        """float64 [agents, FUTURES, steps]."""
        if bootstrap is None or not len(rows):
            return np.full((len(rows), FUTURES, steps), usual)
        last = np.array([s[np.isfinite(s)][-1] if np.isfinite(s).any() else np.nan for s in series])
        return bootstrap.simulate(rng, last, steps, FUTURES, rows)


def _series(agent: Agent) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """In steps of :data:`STEP_S`: states of behaviour (-1: not seen), swipes a minute, C, and PRBs of a
    kbit/s."""
    if not len(agent.history):
        return np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0)
    # The clock of a user's host may have been set back.
    step = np.maximum.accumulate(np.floor(agent.column("time_s") / STEP_S).astype(np.int64))
    step = np.minimum(step - step[0], int(STEP_S) * len(agent.history))  # no more gaps than there is to see
    last = np.flatnonzero(np.append(np.diff(step) > 0, True))
    columns = []
    for name in ("swipes_per_min", "environment", "prb_per_kbps"):
        column = np.full(int(step[-1]) + 1, np.nan)
        column[step[last]] = agent.column(name)[last]
        columns.append(column)
    states = np.where(
        np.isfinite(columns[0]), np.searchsorted(EDGES, np.nan_to_num(columns[0]), side="right"), -1
    )
    return states.astype(np.int64), columns[0], columns[1], columns[2]


def _bootstrap(series: Sequence[FloatArray]) -> NeighbourBootstrap | None:
    length = max((len(s) for s in series), default=0)
    padded = np.full((len(series), max(length, 1)), np.nan)
    for row, s in zip(padded, series, strict=True):
        row[: len(s)] = s
    pairs = np.isfinite(padded[:, :-1] + padded[:, 1:]).sum()
    return NeighbourBootstrap.fit(padded) if pairs >= LEAST_STEPS else None


def _network(states: Mapping[str, IntArray], seed: int) -> RecurrentNetwork | None:
    """A network of all users, where it predicts the last part of their time better than their chains."""
    if sum(int((s >= 0).sum()) for s in states.values()) < NETWORK_STEPS:
        return None
    since = {user: int(len(s) * (1.0 - HELD_OUT)) for user, s in states.items()}
    before = {user: s[: since[user]] for user, s in states.items()}
    pooled = MarkovChain.fit(before.values(), STATES)
    chains = [MarkovChain.fit([s], STATES, pooled) for s in before.values()]
    tried = RecurrentNetwork.fit(list(before.values()), STATES, seed=seed)
    held_out = [s[max(since[user] - 1, 0) :] for user, s in states.items()]
    if not better(chains, tried, held_out, 1).network:
        return None
    return RecurrentNetwork.fit(list(states.values()), STATES, seed=seed)


def arrays_of(emulator: Emulator) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Plain values and arrays, as :func:`controller.twins.packing.pack_arrays` takes them."""
    arrays: dict[str, NDArray[Any]] = {
        "counts": np.stack([c.counts for c in emulator.chains.values()] or [np.zeros((STATES, STATES))]),
        "pooled": np.stack((emulator.pooled.counts, emulator.pooled.prior)),
        "swipes": emulator.swipes,
    }
    parts = {"network": emulator.network, "environment": emulator.environment, "radio": emulator.radio}
    for name, part in parts.items():
        if part is not None:
            arrays |= {f"{name}/{key}": column for key, column in part.arrays().items()}
    return {"users": list(emulator.users), "parts": [n for n, p in parts.items() if p is not None]}, arrays


def of_arrays(values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Emulator:
    """The inverse of :func:`arrays_of`; ValueError, KeyError for what is none."""
    users = tuple(map(str, values["users"]))

    def part(name: str) -> dict[str, NDArray[Any]]:
        return {key.partition("/")[2]: column for key, column in arrays.items() if key.startswith(f"{name}/")}

    counts, pooled = arrays["counts"], MarkovChain(arrays["pooled"][0], arrays["pooled"][1])
    if counts.shape != (max(len(users), 1), STATES, STATES) or arrays["swipes"].shape != (STATES,):
        raise ValueError(f"chains {counts.shape} of {len(users)} users: no emulator")
    there = frozenset(values["parts"])
    shrunk = MarkovChain.fit([], STATES, pooled).prior
    return Emulator(
        users,
        pooled,
        {user: MarkovChain(counts[i], shrunk) for i, user in enumerate(users)},
        arrays["swipes"],
        RecurrentNetwork.of_arrays(part("network")) if "network" in there else None,
        NeighbourBootstrap.of_arrays(part("environment")) if "environment" in there else None,
        NeighbourBootstrap.of_arrays(part("radio")) if "radio" in there else None,
    )
