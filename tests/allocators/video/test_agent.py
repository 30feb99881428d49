"""Agents: whose model they go by, what they do when their user changes, and what they keep."""

from __future__ import annotations

import numpy as np
import pytest

from controller.allocators.video.agent import (
    CHOOSE_ROWS,
    GENERAL,
    GROUP,
    HISTORY,
    LEAST_SPREAD,
    MAX_GENERAL,
    MAX_ROWS,
    OWN,
    Agent,
    Population,
    possible,
)
from controller.allocators.video.opinion import LEAST_ROWS, first_informative
from tests.allocators.video.viewers import COMBINED, QUALITY, STALLS, history
from wire.definitions import mos
from wire.definitions.viewing import Viewer


def population(*of: tuple[Viewer, int]) -> Population:
    """Agents ``a0`` and so on, with so many scores of a viewer each."""
    agents = {}
    for i, (viewer, rows) in enumerate(of):
        agents[f"a{i}"] = agent = Agent(f"a{i}", viewer.ela)
        agent.observe(history(viewer, rows, seed=i))
    return Population(agents)


def test_the_model_is_ones_own_or_that_of_a_group_or_of_all() -> None:
    p = population((STALLS, 120), (QUALITY, 120), (COMBINED, 120), (QUALITY, 20), (STALLS, 3), (STALLS, 0))
    p.learn()
    assert [a.source for a in p.agents.values()] == [OWN, OWN, OWN, GROUP, GENERAL, GENERAL]
    assert p.agents["a3"].model is p.groups["quality"]
    assert p.agents["a4"].model is p.general and p.agents["a5"].model is p.general
    p.agents["a3"].observe(history(QUALITY, 60, seed=33))
    p.learn()
    assert p.agents["a3"].source == OWN


def test_few_scores_of_all_are_a_constant_and_more_are_not_missed() -> None:
    p = population((STALLS, 3), (QUALITY, 3))
    p.learn()
    assert p.general is not None and not p.general.informative
    for i, agent in enumerate(p.agents.values()):
        agent.observe(history(COMBINED, 60, seed=40 + i))
    p.learn()
    assert p.general.informative and p.general.rows == 126


def test_nobody_with_anything_learns_nothing() -> None:
    p = population((STALLS, 0))
    p.learn()
    assert p.general is None and p.agents["a0"].model is None
    assert first_informative(p.agents["a0"].model, p.general).informative


def test_who_always_saw_the_lowest_bitrate_has_no_model_without_quality() -> None:
    """Such a model asks for next to nothing, and its user never sees anything else."""
    agent = Agent("a0", 3.5)
    agent.observe(history(COMBINED, 120, bitrates_kbps=(500.0,), stalled_s=6.0))
    assert agent.column("quality").std() < LEAST_SPREAD
    p = Population({"a0": agent})
    p.learn()
    assert agent.source == GENERAL and p.general is not None and not p.general.informative
    assert "quality" in first_informative(agent.model, p.general).structure.qos
    agent.observe(history(COMBINED, 60, seed=1))
    p.learn()
    assert agent.source == OWN and "quality" in agent.model.structure.qos  # type: ignore[union-attr]


def test_scores_and_context_that_cannot_be_are_left_out() -> None:
    rows = history(STALLS, 8)
    rows[0, 0], rows[1, 0], rows[2, 0] = 0.5, 6.0, np.nan
    rows[3, HISTORY.index("behaviour")] = 2.5
    rows[4, HISTORY.index("environment")] = np.nan
    rows[5, HISTORY.index("delay")] = np.inf
    rows[6, HISTORY.index("delay")] = np.nan
    agent = Agent("a0", 3.0)
    assert agent.observe(rows) == 6 and agent.seen == 2 == len(agent.history)
    assert possible(rows).tolist() == [False] * 6 + [True] * 2


def test_the_history_is_bounded_and_the_latest_stay() -> None:
    agent = Agent("a0", 3.0)
    for k in range(5):
        agent.observe(history(STALLS, 100, seed=k, start_s=1000.0 * k))
    assert len(agent.history) == MAX_ROWS and agent.seen == 500
    assert agent.column("time_s")[-1] == 4990.0
    assert agent.opinions.shape == (MAX_ROWS, len(HISTORY) - 3)


def changed(seed: int, then: Viewer = STALLS, scores: int = 90) -> tuple[Agent, list[int], Population]:
    """A viewer of bitrates who becomes another; the scores after which there was a drift."""
    agent = Agent("a0", 3.5)
    p = Population({"a0": agent})
    agent.observe(history(QUALITY, 120, seed=seed, stalled_s=6.0))
    p.learn()
    agent.drifts, drifts = 0, []
    for k, row in enumerate(history(then, scores, seed=seed + 50, stalled_s=6.0, start_s=1200.0)):
        before = agent.drifts
        agent.observe(row[None])
        drifts += [k] * (agent.drifts - before)
        if k % 30 == 29:
            p.learn()
    return agent, drifts, p


def test_a_user_who_judges_by_something_else_is_found_out_and_fitted_anew() -> None:
    found = [changed(seed) for seed in range(4)]
    assert all(drifts and drifts[0] <= 60 for _, drifts, _ in found)
    assert all(a.model is not None and "stalled" in a.model.structure.qos for a, _, _ in found)


def test_who_stays_as_he_is_seldom_alarms() -> None:
    assert sum(len(changed(seed, QUALITY)[1]) for seed in range(4)) <= 1


def alarmed(agent: Agent, rows: int) -> None:
    """Scores that are nothing like its model's, until that is noticed."""
    drifts = agent.drifts
    for row in history(QUALITY, rows, seed=7, start_s=5000.0):
        row[0] = mos.SCALE[0] + mos.SCALE[1] - row[0]
        agent.observe(row[None])
        if agent.drifts > drifts:
            return
    pytest.fail("no alarm")


def test_the_first_alarm_refits_and_the_next_forgets() -> None:
    agent = Agent("a0", 3.5)
    p = Population({"a0": agent})
    agent.observe(history(QUALITY, 120))
    p.learn()
    model, scores = agent.model, len(agent.history)
    alarmed(agent, 60)
    assert agent.fitted == 0 and agent.model is model and agent.source == OWN
    assert len(agent.history) > scores and agent.surprised == agent.seen
    p.learn()
    assert agent.model is not model and agent.surprise.count == len(agent.history)
    # Still far off: what came before the change is not worth keeping.
    alarmed(agent, 60)
    assert agent.model is None and agent.source == GENERAL and agent.surprised is None
    assert CHOOSE_ROWS <= len(agent.history) < LEAST_ROWS + 20
    assert (agent.column("time_s") >= 5000.0).all()


def test_what_comes_after_the_alarm_is_not_forgotten() -> None:
    agent = Agent("a0", 3.5)
    agent.observe(history(QUALITY, 120))
    Population({"a0": agent}).learn()
    agent.surprised = agent.seen
    rows = history(QUALITY, 60, seed=7, start_s=5000.0)
    rows[:, 0] = mos.SCALE[0] + mos.SCALE[1] - rows[:, 0]
    agent.observe(rows)
    assert len(agent.history) >= 55 and agent.source == GENERAL


def test_a_habit_that_changes_is_a_drift() -> None:
    rows = history(STALLS, 360)
    column = rows[:, HISTORY.index("behaviour")]
    column[:] = np.random.default_rng(0).normal(1.2, 0.03, 360).clip(1.0, 2.0)
    column[240:] += 0.6
    agent = Agent("a0", 3.5)
    agent.observe(rows[:240])
    assert agent.drifts == 0
    agent.observe(rows[240:])
    assert agent.drifts >= 1 and agent.fitted == 0


def test_the_general_model_is_of_as_many_scores_of_each() -> None:
    p = population((STALLS, 200), (QUALITY, 200), (COMBINED, 200))
    p.learn()
    assert p.general is not None and p.general.rows == MAX_GENERAL
