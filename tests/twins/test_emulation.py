"""The chain and the network on what emulated viewers do: which knows more of the time that was held out."""

from __future__ import annotations

import numpy as np
import pytest

from controller.twins.markov import MarkovChain
from controller.twins.recurrent import RecurrentNetwork, better
from wire.definitions.viewing import draw_behaviour

STEP_S, STATES = 30.0, 4
EDGES = np.array([3.0, 6.0, 9.5])
"""Swipes a minute, between the states."""


def states(seed: int, users: int, steps: int, alike: bool) -> np.ndarray:
    """How often each user swipes, binned, int64 [users, steps]: seen over a minute, every half."""
    rng = np.random.default_rng(seed)
    times = STEP_S * np.arange(2, steps + 2)
    rates = np.full(users, 6.0) if alike else rng.uniform(3.0, 9.0, users)
    swipes = [draw_behaviour(rng, times[-1] + STEP_S, rate).swipes_per_min(times) for rate in rates]
    return np.searchsorted(EDGES, np.stack(swipes), side="right")


@pytest.mark.parametrize("alike", [True, False])
def test_after_two_hours_the_network_knows_most_and_after_half_an_hour_less(alike: bool) -> None:
    sequences = states(1, 24, 360, alike)
    gains = {}
    for train in (60, 240):
        seen = sequences[:, :train]
        everybody = MarkovChain.fit(seen, STATES)
        own = [MarkovChain.fit([s], STATES) for s in seen]
        shrunk = [MarkovChain.fit([s], STATES, everybody) for s in seen]
        share = np.log((np.bincount(seen.ravel(), minlength=STATES) + 1.0) / (seen.size + STATES))
        held_out = sequences[:, train:]
        by_own, by_shrunk = (
            np.mean([c.scores(s)[train - 1 :].mean() for c, s in zip(chains, sequences, strict=True)])
            for chains in (own, shrunk)
        )
        assert -np.log(STATES) < share[held_out].mean() < by_own < by_shrunk
        network = RecurrentNetwork.fit(seen, STATES)
        gains[train] = better(shrunk, network, sequences, train)
    assert gains[240].network and gains[240].gain > 0.03
    assert gains[60].gain < gains[240].gain
