"""On/off schedules of the scenarios."""

from __future__ import annotations

import numpy as np
import pytest

from agents.emulator.schedule import described, mean_active, published

MIN = 60.0
SCENARIOS = {
    1: (2, 60, 5, 4, 2, 2),
    2: (3, 60, 10, 1, 5, 1),
    3: (2, 60, 5, 2, 3, 2),
    4: (2, 60, 10, 10, 1, 1),
    5: (3, 90, 15, 5, 1, 1),
}


def arguments(scenario):
    flows, length, on, off, min_on, min_off = SCENARIOS[scenario]
    return (flows, length * MIN), {
        "mean_on_s": on * MIN,
        "mean_off_s": off * MIN,
        "min_on_s": min_on * MIN,
        "min_off_s": min_off * MIN,
    }


@pytest.mark.parametrize(("scenario", "active"), [(3, 1.05), (4, 1.39)])
def test_published_schedule_has_the_published_load(scenario, active):
    args, kw = arguments(scenario)
    assert round(mean_active(published(*args, **kw), args[1]) + 1e-9, 2) == pytest.approx(active, abs=0.0051)


@pytest.mark.parametrize(("scenario", "active"), [(3, 1.31), (4, 0.89)])
def test_described_schedule_has_the_described_load_on_average(scenario, active):
    args, kw = arguments(scenario)
    means = [mean_active(described(*args, **kw, seed=s), args[1]) for s in range(300)]
    assert np.mean(means) == pytest.approx(active, abs=0.1)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("make", [described, published])
def test_intervals_are_ascending_disjoint_and_inside_the_scenario(scenario, make):
    args, kw = arguments(scenario)
    flows = make(*args, **kw)
    assert len(flows) == args[0]
    for intervals in flows:
        edges = [t for interval in intervals for t in interval]
        assert edges == sorted(edges)
        assert all(start < stop for start, stop in intervals)
        assert not edges or (edges[0] >= 0 and edges[-1] <= args[1])


def test_described_schedule_keeps_both_minimums():
    args, kw = arguments(3)
    for seed in range(20):
        for intervals in described(*args, **kw, seed=seed):
            assert all(b - a >= kw["min_on_s"] - 1e-9 for a, b in intervals if b < args[1])
            starts, stops = [0.0, *(b for _, b in intervals)], [a for a, _ in intervals]
            assert all(on - off >= kw["min_off_s"] - 1e-9 for off, on in zip(starts, stops, strict=False))


def test_published_schedule_is_whole_seconds_and_breaks_the_minimum_off_time():
    args, kw = arguments(4)
    flows = published(*args, **kw)
    assert all(t == int(t) for intervals in flows for pair in intervals for t in pair)
    # The first off time of a flow is drawn second and not raised to its minimum.
    first_off = [
        published(1, args[1], **kw, seed=s)[0][0][0]
        for s in range(60)
        if published(1, args[1], **kw, seed=s)[0]
    ]
    assert min(first_off) < kw["min_off_s"]


def test_seed_decides_the_schedule():
    args, kw = arguments(1)
    assert described(*args, **kw, seed=1) == described(*args, **kw, seed=1)
    assert described(*args, **kw, seed=1) != described(*args, **kw, seed=2)
    assert published(*args, **kw) == published(*args, **kw, seed=4)


@pytest.mark.parametrize(
    "wrong", [{"mean_on_s": 0.0}, {"mean_off_s": -1.0}, {"min_on_s": -1.0}, {"min_off_s": -0.5}]
)
def test_times_that_are_not_positive_are_refused(wrong):
    args, kw = arguments(1)
    for make in (described, published):
        with pytest.raises(ValueError, match="schedule"):
            make(*args, **{**kw, **wrong})
