"""Schemes in small worlds: what they reserve, and how they are judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra video")
pytest.importorskip("scipy", reason="the extra video")

from controller.allocators.video.agent import GENERAL
from controller.experiments.video.schemes import SCHEMES, Campus, begin, run
from controller.experiments.video.study import best_scores, ceiling, compared, judged
from controller.experiments.video.world import Traces, WorldSpec, draw

WARM_UP_S = 300
SPEC = WorldSpec(users=6, duration_s=660, prb=12)


@pytest.fixture(scope="module")
def traces() -> Traces:
    return draw(SPEC, 3)


@pytest.fixture(scope="module")
def start(traces: Traces) -> Campus:
    return begin(traces, 3, WARM_UP_S)


UNTRAINED = sorted(name for name, scheme in SCHEMES.items() if not scheme.network and not scheme.recurrent)


@pytest.mark.parametrize("name", UNTRAINED)
def test_every_scheme_keeps_within_what_there_is(name: str, traces: Traces, start: Campus) -> None:
    campus = run(traces, SCHEMES[name], 3, start=start)  # the world raises where it does not
    of = judged(campus, WARM_UP_S)
    assert of.scores.shape == (6, 2) and np.isfinite(of.each).all()
    assert 0.0 <= of.prb <= 1.0 + 1e-9 and 0.0 <= of.cycles <= 1.0 + 1e-9
    assert sum(w.steps for w in campus.windows) == (SPEC.duration_s - WARM_UP_S) // 10


def test_runs_are_the_same_of_the_same_seed_and_leave_the_start_alone(traces: Traces, start: Campus) -> None:
    before = start.world.step_number
    first, second = (run(traces, SCHEMES["agents"], 3, start=start) for _ in range(2))
    assert np.array_equal(first.world.ratings, second.world.ratings, equal_nan=True)
    assert start.world.step_number == before and not start.windows


def test_everything_reserved_is_everything(traces: Traces, start: Campus) -> None:
    of = judged(run(traces, SCHEMES["everything"], 3, start=start), WARM_UP_S)
    assert of.prb == pytest.approx(1.0) and of.cycles == pytest.approx(1.0)


def test_the_game_never_reserves_more_than_the_greedy_rule(traces: Traces, start: Campus) -> None:
    game, greedy = (run(traces, SCHEMES[name], 3, start=start).windows[0] for name in ("game", "agents"))
    assert (game.prb <= greedy.prb + 1.0).all() and game.mcycles <= greedy.mcycles * 1.1


def test_without_a_fallback_new_users_go_by_the_general_model(traces: Traces) -> None:
    short = begin(traces, 3, 100)
    campus = run(traces, replace(SCHEMES["no-fallback"], window_min=3), 3, start=short)
    sources = {agent.source for agent in short.population.agents.values()}
    assert sources == {GENERAL}
    assert type(campus.population).__name__ == "Ungrouped"


def test_a_scheme_without_its_network_is_refused(traces: Traces) -> None:
    with pytest.raises(ValueError, match="agents-bdqn: no network of kind group"):
        run(traces, SCHEMES["agents-bdqn"], 3)


def test_nobody_scores_better_than_the_best(traces: Traces, start: Campus) -> None:
    campus = run(traces, SCHEMES["everything"], 3, start=start)
    assert (campus.world.expected <= best_scores(traces) + 1e-9).all()
    for viewer, row in zip(traces.viewers, best_scores(traces), strict=True):
        assert (row <= ceiling(viewer.principle) + 1e-9).all()


def test_a_run_shorter_than_a_window_is_not_judged(traces: Traces, start: Campus) -> None:
    campus = run(traces, SCHEMES["everything"], 3, start=start)
    with pytest.raises(ValueError, match="a window takes 180"):
        judged(campus, SPEC.duration_s - 60)


@pytest.mark.parametrize(
    ("values", "others", "sign"),
    [
        ([2.0, 2.1, 2.2], [1.0, 1.1, 1.3], 1),
        ([1.0, 1.1, 1.3], [2.0, 2.1, 2.2], -1),
        ([1.0, 3.0], [2.0, 2.0], 0),
    ],
)
def test_comparisons_are_seed_by_seed(values: list[float], others: list[float], sign: int) -> None:
    assert compared(values, others) == sign
