"""Futures of agents' users: what was seen goes on, gaps and clocks do no harm, and nobody is needed."""

from __future__ import annotations

import numpy as np
import pytest

from controller.allocators.video.agent import HISTORY, Agent
from controller.allocators.video.demand import Futures
from controller.allocators.video.emulation import (
    EDGES,
    FUTURES,
    NETWORK_STEPS,
    STATES,
    STEP_S,
    TIMES,
    USUAL_ENVIRONMENT,
    USUAL_PRB_PER_KBPS,
    USUAL_SWIPES,
    Emulator,
)
from tests.allocators.video.viewers import STALLS, history
from wire.definitions import mos

WINDOW_S = 540.0


def agent(name: str, rows: int, **columns: object) -> Agent:
    """With scores whose columns are these, constants or arrays."""
    of = history(STALLS, rows, seed=len(name))
    for column, values in columns.items():
        of[:, HISTORY.index(column)] = values
    if "swipes_per_min" in columns:
        of[:, HISTORY.index("behaviour")] = mos.behaviour(of[:, HISTORY.index("swipes_per_min")])
    out = Agent(name, 3.5)
    out.observe(of)
    return out


def futures(
    agents: list[Agent], of: list[Agent] | None = None, window_s: float = WINDOW_S, seed: int = 0
) -> Futures:
    return Emulator.fit(agents, network=False).futures(
        agents if of is None else of, window_s, np.random.default_rng(seed)
    )


def test_who_swipes_seldom_goes_on_to() -> None:
    seldom, often = agent("seldom", 200, swipes_per_min=1.0), agent("often", 200, swipes_per_min=11.0)
    ahead = futures([seldom, often])
    assert ahead.swipes_per_min.shape == (2, FUTURES, TIMES)
    mean = ahead.swipes_per_min.mean(axis=(1, 2))
    assert mean[0] < 4.0 and mean[1] > 8.0
    assert (ahead.behaviour == mos.behaviour(ahead.swipes_per_min)).all()


def test_environment_and_radio_stay_within_what_was_seen() -> None:
    ahead = futures([agent("a", 100, environment=1.25, prb_per_kbps=0.003), agent("b", 100)])
    assert ((ahead.environment >= 1.0) & (ahead.environment <= 2.0)).all()
    assert ahead.prb_per_kbps.min() >= 0.001 and ahead.prb_per_kbps.max() <= 0.004


def test_nobody_and_who_never_scored_have_the_usual() -> None:
    nobody = futures([])
    assert nobody.behaviour.shape == (0, FUTURES, TIMES)
    new = futures([Agent("new", 3.5)])
    assert set(np.unique(new.swipes_per_min)) <= set(USUAL_SWIPES)
    assert (new.environment == USUAL_ENVIRONMENT).all()
    assert (new.prb_per_kbps == USUAL_PRB_PER_KBPS).all()


def test_who_was_not_there_for_the_fit_is_as_any() -> None:
    known = agent("known", 200, swipes_per_min=1.0, environment=1.25, prb_per_kbps=0.003)
    ahead = futures([known], [Agent("new", 3.5), known])
    assert (ahead.environment == 1.25).all() and (ahead.prb_per_kbps == 0.003).all()
    assert ahead.swipes_per_min[0].mean() > ahead.swipes_per_min[1].mean()


def test_a_radio_that_is_not_known_is_the_usual_and_gaps_are_no_transitions() -> None:
    unknown = agent("unknown", 60, prb_per_kbps=np.nan)
    assert (futures([unknown]).prb_per_kbps == USUAL_PRB_PER_KBPS).all()
    times = 10.0 * np.arange(60.0)
    times[30:] += 40.0 * STEP_S
    swipes = np.where(np.arange(60) < 30, 1.0, 11.0)
    emulator = Emulator.fit([agent("gap", 60, time_s=times, swipes_per_min=swipes)], network=False)
    assert emulator.pooled.counts[0, STATES - 1] == 0.0
    assert emulator.pooled.counts.sum() == 18.0


@pytest.mark.parametrize("clock", ["back", "far ahead", "still"])
def test_a_clock_that_is_set_does_no_harm(clock: str) -> None:
    times = 10.0 * np.arange(60.0) + 1e9
    if clock == "back":
        times[20:] -= 400.0
    elif clock == "far ahead":
        times[20:] += 1e8
    else:
        times[:] = 1e9
    ahead = futures([agent("a", 60, time_s=times), agent("b", 60)])
    assert np.isfinite(ahead.prb_per_kbps).all() and len(ahead.behaviour) == 2


def test_a_state_that_nobody_was_in_has_the_usual_swipes() -> None:
    emulator = Emulator.fit([agent("a", 60, swipes_per_min=5.0)], network=False)
    assert emulator.swipes.tolist() == [USUAL_SWIPES[0], 5.0, USUAL_SWIPES[2], USUAL_SWIPES[3]]
    assert len(EDGES) + 1 == STATES


def test_equal_seeds_give_equal_futures_and_windows_are_long_enough() -> None:
    agents = [agent("a", 60), agent("b", 90)]
    first, again, other = (futures(agents, seed=s).environment for s in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    assert futures(agents, window_s=1.0).behaviour.shape == (2, FUTURES, TIMES)


def test_a_network_is_not_tried_on_little() -> None:
    agents = [agent(f"a{i}", 60) for i in range(4)]
    assert sum(len(a.history) for a in agents) < NETWORK_STEPS
    assert Emulator.fit(agents, network=True, seed=1).network is None
