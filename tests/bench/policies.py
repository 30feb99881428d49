"""pull and update of mucb1, against UCB1 of MABWiser."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from controller import policies
from tests.bench.common import Row, need, no_collection

NAME = "policies"
_BLOCKS = 10


def run(effort: float) -> list[Row]:
    """Microseconds of one pull and one update, with 12 and with 1,000 actions.

    Both learners are used as their users use them: ``pull`` and ``update`` here, ``predict`` and
    ``partial_fit`` of one observation there, both after every action has been played once. The bits come from
    the same rule for both (actions from a third of the set on meet the QoS in nine cases of ten), MABWiser is
    given the same rewards. They take turns in blocks; the figure is that of the median block. The ratio says
    how many times faster the first is.
    """
    mab = need("mabwiser.mab")
    rows = []
    for n, times, aim in ((12, 200, ""), (1000, 20, ">= 50")):
        times = max(2, int(times * effort))
        actions = list(range(10, 10 * n + 10, 10))
        ours, theirs = [], []
        with no_collection():
            play, fit = _ours(actions), _mabwiser(mab, actions)
            for _ in range(_BLOCKS):
                ours.append(_us(play, 50 * times))
                theirs.append(_us(fit, times))
        measured, baseline = statistics.median(ours), statistics.median(theirs)
        rows.append(
            Row(
                NAME,
                f"pull + update of mucb1, {n:,} actions",
                "us",
                measured,
                baseline,
                "MABWiser UCB1",
                baseline / measured,
                aim,
                {
                    "blocks": _BLOCKS,
                    "steps": 50 * times,
                    "mabwiser_steps": times,
                    "us": ours,
                    "mabwiser_us": theirs,
                },
            )
        )
    rows.append(_headroom(max(2, int(200 * effort))))
    return rows


def _headroom(times: int) -> Row:
    """One pull and one update of the default policy with a full memory, against one of mucb1."""
    actions = list(range(10, 130, 10))
    delays = np.random.default_rng(4)
    ours, theirs = [], []
    policy = policies.make("headroom", actions)

    def step() -> None:
        demand = 8.0 + 2.0 * delays.random()
        action = policy.pull(policies.Context(demand, 0.0, 70.0))
        delay = 12.0 + 20.0 * demand / action + 3.0 * delays.random()
        policy.update(action, policies.Feedback(1, delay, 70.0, demand))

    with no_collection():
        bits = _ours(actions)
        _us(step, 400)
        for _ in range(_BLOCKS):
            ours.append(_us(step, times))
            theirs.append(_us(bits, 50 * times))
    measured, baseline = statistics.median(ours), statistics.median(theirs)
    detail = {"blocks": _BLOCKS, "steps": times, "us": ours, "mucb1_us": theirs}
    name = "pull + update of headroom, 12 actions"
    return Row(NAME, name, "us", measured, baseline, "mucb1", baseline / measured, "", detail)


def _us(step: Callable[[], None], times: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(times):
        step()
    return (time.perf_counter_ns() - start) / times / 1e3


def _bits(actions: list[int]) -> Callable[[int], int]:
    """QoS bit of an action; the same sequence for everybody who asks."""
    enough = actions[len(actions) // 3]
    failing = np.random.default_rng(3).random(1 << 16) < 0.1
    index = 0

    def bit(action: int) -> int:
        nonlocal index
        index = (index + 1) & 0xFFFF
        return int(action >= enough and not failing[index])

    return bit


def _ours(actions: list[int]) -> Callable[[], None]:
    policy = policies.make("mucb1", actions)
    bit = _bits(actions)

    def step() -> None:
        action = policy.pull()
        policy.update(action, policies.Feedback(bit(action)))

    for action in actions:
        policy.update(action, policies.Feedback(bit(action)))
    policy.pull()
    return step


def _mabwiser(mab: object, actions: list[int]) -> Callable[[], None]:
    learner = mab.MAB(actions, mab.LearningPolicy.UCB1(alpha=1.0))  # type: ignore[attr-defined]
    bit = _bits(actions)
    largest, price = actions[-1], 2.0 * actions[-1]
    span = largest + price - actions[0]

    def reward(action: int) -> float:
        return (largest + price - action - price * (1 - bit(action))) / span

    def step() -> None:
        action = learner.predict()
        learner.partial_fit([action], [reward(action)])

    learner.fit(actions, [reward(a) for a in actions])
    return step
