"""Bounds that hold for whoever plays, and regret."""

from __future__ import annotations

import numpy as np
import pytest

from controller.allocators.video.users import LADDER, gain
from controller.experiments.video import clairvoyant
from controller.experiments.video.runs import Known, Run, at_random, first, learn, play
from controller.experiments.video.world import Traces, World, WorldSpec, draw
from wire.definitions import mos, viewing

SPEC = WorldSpec(users=8, duration_s=300, prb=8)


@pytest.fixture(scope="module")
def traces() -> Traces:
    return draw(SPEC, 5)


@pytest.fixture(scope="module")
def known(traces: Traces) -> Known:
    return Known(tuple(map(clairvoyant.true_model, traces.viewers)), np.zeros(8))


@pytest.mark.parametrize("principle", mos.PRINCIPLES)
def test_no_mixture_of_bitrates_is_better_than_the_hull_of_services(principle: str) -> None:
    hull = clairvoyant.services(viewing.Viewer(4.0, principle, "linear", (0.1, 0.1)))
    rng = np.random.default_rng(1)
    for _ in range(300):
        part = rng.dirichlet(np.full(len(LADDER) + 1, 0.5))[1:]
        s = mos.service_quality(principle, 60.0 * (1.0 - part.sum()), float(part @ mos.quality(LADDER)))
        assert s <= np.interp(float(part @ LADDER), hull.kbps, hull.gain) + 1e-9


def test_curves_lie_above_every_mean_score(traces: Traces) -> None:
    for user, curve in enumerate(clairvoyant.curves(traces, 7)):
        viewer = traces.viewers[user]
        for kbps in np.linspace(0.0, 3500.0, 57):
            for bitrate in LADDER:
                part = min(1.0, kbps / bitrate)
                score = viewer.mean_score(
                    60.0 * (1.0 - part),
                    part * float(mos.quality(bitrate)),
                    float(traces.behaviour[user, 80]),
                    float(traces.environment[user, 80]),
                )
                assert gain(score, viewer.ela) <= np.interp(kbps, curve.kbps, curve.gain) + 1e-9


def test_the_true_model_says_what_the_viewer_says(traces: Traces) -> None:
    for user, viewer in enumerate(traces.viewers):
        factors = {"stalled": 12.0, "quality": 0.4, "behaviour": 1.3, "environment": 1.6}
        expected = clairvoyant.true_model(viewer).predict(factors)
        assert float(expected) == pytest.approx(viewer.mean_score(12.0, 0.4, 1.3, 1.6)), user


def test_a_run_of_one_step_is_bounded_as_the_step(traces: Traces, known: Known) -> None:
    for step in (0, 9, 29):
        bound = clairvoyant.step_bound(Run(traces, known, step)) / 8
        assert clairvoyant.run_bound(traces, step, step + 1) == pytest.approx(bound, rel=1e-5)


def test_nobody_betters_the_bound_of_the_run(traces: Traces, known: Known) -> None:
    bound = clairvoyant.run_bound(traces, 0)
    steps = np.mean([clairvoyant.step_bound(Run(traces, known, step)) for step in range(SPEC.steps)]) / 8
    assert bound >= steps - 1e-6
    for rule in clairvoyant.rules({}).values():
        world = play(traces, known, rule, 0)
        assert float(gain(world.expected, traces.ela[:, None]).mean()) < bound
    world, rng = World(traces), np.random.default_rng(1)
    while not world.done:
        world.step(at_random(world, rng))
    assert float(gain(world.expected, traces.ela[:, None]).mean()) < bound


def test_the_bound_falls_with_what_there_is(traces: Traces) -> None:
    bounds = [
        clairvoyant.run_bound(draw(WorldSpec(users=8, duration_s=100, prb=p), 5), 0) for p in (3, 8, 40)
    ]
    assert bounds[0] < bounds[1] < bounds[2]
    short = WorldSpec(users=8, duration_s=100, prb=40, edge_mcycles=800.0)
    assert clairvoyant.run_bound(draw(short, 5), 0) < bounds[2]


def test_regret_is_the_bound_less_what_was_made_of_it() -> None:
    spec = WorldSpec(users=4, duration_s=400, prb=6)
    result = clairvoyant.regrets([1, 2], spec, {}, learn_s=300)
    assert set(result["schemes"]) == set(clairvoyant.rules({}))
    for scheme in result["schemes"].values():
        assert scheme["regret"]["mean"] == pytest.approx(result["run_bound"]["mean"] - scheme["gain"]["mean"])
        assert scheme["regret"]["mean"] > 0.0 and scheme["regret"]["half_95"] > 0.0
    assert result["schemes"]["greedy"]["over_greedy"]["mean"] == 0.0
    with pytest.raises(ValueError, match="learnt until 400"):
        clairvoyant.regrets([1], spec, {}, learn_s=400)


def test_the_first_users_are_those_of_a_smaller_world() -> None:
    large, small = draw(WorldSpec(users=6, duration_s=60), 3), draw(WorldSpec(users=2, duration_s=60), 3)
    part = first(large, 2)
    assert part.spec == small.spec and part.viewers == small.viewers
    np.testing.assert_array_equal(part.kbps_per_prb, small.kbps_per_prb)
    np.testing.assert_array_equal(part.swipes, small.swipes)
    for count in (0, 7):
        with pytest.raises(ValueError, match="of 6"):
            first(large, count)


def test_too_little_time_to_learn_from(traces: Traces) -> None:
    with pytest.raises(ValueError, match="24"):
        learn(traces, 100, 1)
