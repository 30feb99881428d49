"""The policy that learns how much headroom a hop's delay needs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from controller.policies import Context, Feedback, Policy, make, restore
from controller.policies.base import BACKLOG, BURST, LOAD_CHANGED
from controller.policies.headroom import KEPT, MEMORY

PRB = (*range(10, 107, 10), 106)
Delay = Callable[[float, np.random.Generator], float]


def cliff(at: float, *, floor: float = 12.0, hiccups: float = 0.08) -> Delay:
    """Floor and transmission above a headroom of ``at``, half a second below it; some hiccups anywhere."""

    def delay(headroom: float, rng: np.random.Generator) -> float:
        if rng.random() < hiccups:
            return float(rng.uniform(100, 500))
        return 500.0 if headroom < at else floor + 20 / headroom + float(rng.exponential(2.0))

    return delay


def play(
    policy: Policy,
    slots: int,
    delay: Delay,
    *,
    demand: Callable[[int], float] = lambda _: 8.0,
    budget: float = 70.0,
    seed: int = 1,
) -> list[int]:
    rng = np.random.default_rng(seed)
    played = []
    for slot in range(slots):
        d = demand(slot)
        action = policy.pull(Context(d, 0.0, budget, events=True))
        took = delay(action / d, rng)
        policy.update(action, Feedback(int(took <= budget), took, budget, d))
        played.append(action)
    return played


def test_it_starts_at_all_there_is_and_stops_before_the_cliff() -> None:
    played = play(make("headroom", PRB), 600, cliff(3.0))
    assert played[0] == 106
    assert min(played[:3]) >= 50  # an octave at a time
    late = played[60:]
    assert sum(a < 24 for a in late) <= 0.05 * len(late)
    assert np.mean(played[-200:]) < 50


def test_a_demand_that_was_never_seen_is_a_headroom_that_was() -> None:
    policy = make("headroom", PRB)
    play(policy, 100, cliff(3.0, hiccups=0.0))
    assert 24 <= policy.pull(Context(8.0, 0.0, 70.0)) <= 50
    assert 48 <= policy.pull(Context(16.0, 0.0, 70.0)) <= 100
    assert policy.pull(Context(60.0, 0.0, 70.0)) == 106


def test_what_waits_too_long_is_drained_and_unknown_demand_is_given_everything() -> None:
    policy = make("headroom", PRB)
    play(policy, 100, cliff(3.0))
    for context, why in (
        (Context(8.0, 141.0, 70.0), "drains a backlog"),
        (Context(None, 0.0, 70.0), "demand not known"),
        (Context(math.nan, 0.0, 70.0), "demand not known"),
        (Context(-1.0, 0.0, 70.0), "demand not known"),
        (Context(math.inf, 0.0, 70.0), "demand not known"),
        (Context(0.0, 0.0, 70.0, events=False), "idle"),
        (Context(0.0, math.inf, 70.0, events=True), "drains a backlog"),
        (Context(1e9, 0.0, 70.0), "not known to be enough with less"),
    ):
        assert (policy.pull(context), policy.explain().reason) == (106, why), context
    assert policy.pull(Context(0.0, 0.0, 70.0, events=True)) == 10


@pytest.mark.parametrize("why", [BACKLOG, BURST, LOAD_CHANGED])
def test_confounded_feedback_teaches_nothing_about_the_action(why: str) -> None:
    policy = make("headroom", PRB)
    play(policy, 50, cliff(3.0))
    before = policy.to_state()["samples"]
    policy.pull(Context(8.0, 0.0, 70.0))
    policy.update(50, Feedback(0, 500.0, 70.0, 8.0, confounded=why))
    assert policy.to_state()["samples"] == before


@pytest.mark.parametrize("delay", [None, math.nan, -5.0, math.inf])
def test_where_no_delay_is_known_the_bit_stands_in(delay: float | None) -> None:
    policy = make("headroom", PRB)
    for _ in range(200):
        action = policy.pull(Context(8.0, 0.0, 70.0))
        policy.update(action, Feedback(int(action >= 40), delay, 70.0, 8.0))
    played = []
    for _ in range(100):
        played.append(policy.pull(Context(8.0, 0.0, 70.0)))
        policy.update(played[-1], Feedback(int(played[-1] >= 40), delay, 70.0, 8.0))
    assert 40 <= np.mean(played) <= 70 and sum(a < 40 for a in played) <= 10


def test_always_missed_is_all_there_is_and_always_met_goes_down() -> None:
    hopeless = play(make("headroom", PRB), 100, lambda *_: 900.0)
    assert set(hopeless) == {106}
    easy = play(make("headroom", PRB), 100, lambda *_: 5.0)
    assert easy[-1] == 10


def test_a_constant_delay_within_the_budget_costs_nothing() -> None:
    assert play(make("headroom", PRB), 100, lambda *_: 45.0)[-1] <= 20


def test_a_cell_that_gets_worse_is_noticed_and_one_that_gets_better_is_used() -> None:
    policy = make("headroom", PRB)
    play(policy, 200, cliff(2.0))
    worse = play(policy, 60, cliff(6.0), seed=2)
    assert sum(a < 48 for a in worse[8:]) <= 6, worse
    better = play(policy, 500, cliff(2.0), seed=3)
    assert np.mean(better[-60:]) < 40


def test_the_rise_of_the_demand_is_prepared_for() -> None:
    rng = np.random.default_rng(5)
    policies = {name: make("headroom", PRB) for name in ("steady", "fading")}
    for name, policy in policies.items():
        for _ in range(150):
            action = policy.pull(Context(8.0, 0.0, 70.0))
            worst = 8.0 * (1.0 if name == "steady" else float(rng.choice([1.0, 1.5, 2.0])))
            took = cliff(3.0, hiccups=0.0)(action / worst, rng)
            policy.update(action, Feedback(int(took <= 70), took, 70.0, worst))
    steady, fading = (policy.pull(Context(8.0, 0.0, 70.0)) for policy in policies.values())
    assert fading >= 1.5 * steady


@pytest.mark.parametrize("actions", [(40,), (10, 11, 100), (1, 106), tuple(range(1, 107))])
def test_one_action_and_uneven_ones(actions: tuple[int, ...]) -> None:
    played = play(make("headroom", actions), 150, cliff(2.0))
    enough = [a for a in actions if a >= 16] or [actions[-1]]
    assert sum(a < enough[0] for a in played) <= 8


def test_a_higher_target_keeps_more() -> None:
    means = []
    for target in (0.8, 0.98):
        policy = make("headroom", PRB, qos_target=target)
        means.append(float(np.mean(play(policy, 400, lambda r, g: 20 + 160 / r * g.random())[100:])))
    assert means[0] < means[1]


@pytest.mark.parametrize("target", [1.0, 0.4, math.nan, "0.9", True])
def test_impossible_targets_are_refused(target: object) -> None:
    with pytest.raises(ValueError, match="qos_target"):
        make("headroom", PRB, qos_target=target)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("samples", [[1, 2.0, 1.0]]),
        ("samples", [[1, -2.0, 1.0, 0.0]]),
        ("samples", [[1, math.nan, 1.0, 0.0]]),
        ("samples", [[10_000, 2.0, 1.0, 0.0]]),
        ("samples", [[1, 2.0, 1.0, 1e9]]),
        ("samples", [[1, 2.0, 1.0, 0.0]] * (MEMORY + 1)),
        ("rises", "many"),
        ("alarm", None),
        ("clock", math.inf),
    ],
)
def test_a_state_that_cannot_be_is_refused(key: str, value: object) -> None:
    policy = make("headroom", PRB)
    play(policy, 20, cliff(2.0))
    with pytest.raises(ValueError, match="state of policy headroom"):
        restore({**policy.to_state(), key: value})


def test_a_state_is_small_and_taken_over_by_other_actions() -> None:
    policy = make("headroom", PRB)
    play(policy, 500, cliff(3.0))
    assert len(json.dumps(policy.to_state())) < 8_000
    other = make("headroom", tuple(range(10, 107, 5)))
    other.take_over(policy.to_state())
    assert 24 <= other.pull(Context(8.0, 0.0, 70.0)) <= 50
    with pytest.raises(ValueError, match="mucb1"):
        other.take_over(make("mucb1", PRB).to_state())
    with pytest.raises(ValueError, match="cannot take over"):
        make("mucb1", PRB).take_over(policy.to_state())


def test_a_clock_jump_ages_nothing() -> None:
    """Time is control slots played: a control slot of an hour, or of none, is one or none."""
    policy = make("headroom", PRB)
    play(policy, 50, cliff(3.0))
    before = len(policy.to_state()["samples"])
    action = policy.pull(Context(8.0, 0.0, 70.0))
    policy.update(action, Feedback(1, 15.0, 70.0, 8.0, slots=720.0))
    assert policy.to_state()["clock"] == 51.0
    policy.update(action, Feedback(1, 15.0, 70.0, 8.0, slots=0.0))
    policy.update(action, Feedback(1, 15.0, 70.0, 8.0, slots=-3.0))
    assert len(policy.to_state()["samples"]) == before + 1


def test_a_drift_alarm_keeps_the_newest_alone() -> None:
    policy = make("headroom", PRB)
    play(policy, 100, cliff(2.0, hiccups=0.0))
    sizes = []
    for _ in range(6):
        action = policy.pull(Context(8.0, 0.0, 70.0))
        policy.update(action, Feedback(0, 900.0, 70.0, 8.0))
        sizes.append(len(policy.to_state()["samples"]))
    assert KEPT in sizes


def test_a_miss_without_a_late_flow_is_a_miss() -> None:
    """A flow of which no delay is known is late whatever the others took."""
    policy = make("headroom", PRB)
    for _ in range(60):
        action = policy.pull(Context(5.0, 0.0, 70.0))
        policy.update(action, Feedback(0, 10.0, 70.0, 5.0))
    assert policy.pull(Context(5.0, 0.0, 70.0)) == 106


@pytest.mark.parametrize("demand", [1e-308, 1e-9, 1e12, 1e308])
def test_extreme_demands_leave_a_state_that_can_be_kept(demand: float) -> None:
    policy = make("headroom", (0, 10, 106))
    for d in (demand, 8.0, demand, 1e-310):
        action = policy.pull(Context(d, 0.0, 70.0))
        policy.update(action, Feedback(1, 10.0, 70.0, demand))
        policy.update(0, Feedback(1, 10.0, 70.0, d))
    assert restore(json.loads(json.dumps(policy.to_state(), allow_nan=False))).to_state() == policy.to_state()


def test_a_control_slot_of_no_length_teaches_nothing() -> None:
    policy = make("headroom", PRB)
    policy.update(10, Feedback(1, 10.0, 70.0, 5.0, slots=0.0003))
    assert policy.to_state()["samples"] == []
