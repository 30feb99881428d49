"""UCB1 and MUCB1 against a plain reading of their definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from controller.policies import Feedback, make, restore, ucb1

ACTION_SETS = {
    "scenarios 4, 5": tuple(range(10, 106, 10)),
    "scenarios 1, 3": (10, 30, 50, 70, 90),
    "scenario 2": tuple(range(10, 106, 5)),
    "GPU": tuple(range(500, 1700, 100)),
    "one": (40,),
    "two": (10, 106),
    "uneven": (3, 4, 17, 60, 61, 200),
    "many": tuple(range(10, 110)),
}
every_set = pytest.mark.parametrize("actions", ACTION_SETS.values(), ids=ACTION_SETS.keys())


class Reference:
    """The definition, word by word, on dictionaries."""

    def __init__(self, actions: tuple[int, ...], monotonic: bool, tradeoff: float = 2.0) -> None:
        self.actions, self.monotonic = actions, monotonic
        self.lam = tradeoff * max(actions)
        self.c_max, self.c_min = max(actions) + self.lam, min(actions)
        self.n = dict.fromkeys(actions, 0)
        self.mean = dict.fromkeys(actions, 0.0)
        self.t = 0
        self.seen = False
        self.index: dict[int, float] | None = None

    def reward(self, a: int, q: int) -> float:
        cost = a + self.lam * (1 - q)
        return (self.c_max - cost) / (self.c_max - self.c_min)

    def pull(self) -> int:
        self.index = None
        if not self.seen:
            self.seen = True
            return self.actions[len(self.actions) // 2]
        for a in self.actions:
            if self.n[a] == 0:
                return a
        self.index = {a: self.mean[a] + math.sqrt(2 * math.log(self.t) / self.n[a]) for a in self.actions}
        best = max(self.index.values())
        return next(a for a in self.actions if self.index[a] == best)

    def update(self, action: int, q: int) -> None:
        self.t += 1
        touched = [action]
        if self.monotonic:
            touched = [a for a in self.actions if (a >= action if q else a <= action)]
        for a in touched:
            self.n[a] += 1
            n = self.n[a]
            self.mean[a] = (1 / n) * (self.mean[a] * (n - 1) + self.reward(a, q))


def bits(kind: str, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    if kind == "coin":
        return lambda action, actions: int(rng.random() < 0.5)
    if kind == "success":
        return lambda action, actions: 1
    if kind == "violation":
        return lambda action, actions: 0
    return lambda action, actions: int((action >= actions[len(actions) // 3]) != (rng.random() < 0.15))


@every_set
@pytest.mark.parametrize("name", ["ucb1", "mucb1"])
@pytest.mark.parametrize("kind", ["coin", "success", "violation", "threshold"])
def test_choices_are_those_of_the_definition(name: str, actions: tuple[int, ...], kind: str) -> None:
    for seed, tradeoff in ((1, 2.0), (2, 0.7)):
        policy = make(name, actions, tradeoff=tradeoff)
        reference = Reference(actions, monotonic=name == "mucb1", tradeoff=tradeoff)
        qos = bits(kind, seed)
        for step in range(1500):
            action = policy.pull()
            assert action == reference.pull(), step
            indices = policy.explain().indices
            if reference.index is None:
                assert indices is None
            else:
                assert indices is not None
                assert indices.tolist() == [reference.index[a] for a in actions]
            q = qos(action, actions)
            policy.update(action, Feedback(q))
            reference.update(action, q)
        state = policy.to_state()
        assert state["counts"] == [reference.n[a] for a in actions]
        assert state["means"] == [reference.mean[a] for a in actions]
        assert state["t"] == 1500


@pytest.mark.parametrize("name", ["ucb1", "mucb1"])
def test_the_tradeoff_defaults_to_twice_the_largest_action(name: str) -> None:
    policy = make(name, (10, 50))
    policy.update(10, Feedback(0))
    # lambda = 100: c(10, 0) = 110 of 10..150.
    assert policy.to_state()["means"][0] == 40 / 140
    assert policy.to_state()["options"] == {"tradeoff": 2.0}


@pytest.mark.parametrize("tradeoff", [0, -1.0, float("nan"), float("inf"), "2", True])
def test_impossible_tradeoffs_are_refused(tradeoff: Any) -> None:
    with pytest.raises(ValueError, match=f"option tradeoff {tradeoff!r}"):
        make("mucb1", (10, 20), tradeoff=tradeoff)


@pytest.mark.parametrize("name", ["ucb1", "mucb1"])
def test_the_first_pull_is_the_middle_and_is_used_up_by_pulling(name: str) -> None:
    policy = make(name, (10, 20, 30, 40))
    policy.update(40, Feedback(1))
    assert (policy.pull(), policy.explain().reason) == (30, "first visit")
    assert (policy.pull(), policy.explain().reason) == (10, "explore")
    assert restore(policy.to_state()).pull() == 10
    assert restore(make(name, (10, 20, 30, 40)).to_state()).pull() == 30


@pytest.mark.parametrize("name", ["ucb1", "mucb1"])
def test_explore_and_exploit_tell_whether_the_best_mean_was_chosen(name: str) -> None:
    rng = np.random.default_rng(4)
    policy = make(name, (10, 30, 50, 70, 90))
    reasons = set()
    for step in range(600):
        action = policy.pull()
        why = policy.explain()
        if why.indices is not None:
            means = policy.to_state()["means"]
            best = means[policy.actions.index(action)] == max(means)
            assert why.reason == ("exploit" if best else "explore"), step
            reasons.add(why.reason)
        policy.update(action, Feedback(int(rng.random() < (0.9 if action >= 50 else 0.3))))
    assert reasons == {"explore", "exploit"}


def test_indices_are_those_of_the_pull_even_after_an_update() -> None:
    policy = make("mucb1", (10, 20))
    for _ in range(5):
        policy.update(policy.pull(), Feedback(1))
    action = policy.pull()
    before = policy.explain().indices
    assert before is not None
    copy = before.copy()
    policy.update(action, Feedback(0))
    after = policy.explain().indices
    assert after is not None
    assert (after == copy).all()
    policy.pull()
    assert (before == copy).all()
    assert (policy.explain().indices != copy).any()


def test_ucb1_learns_about_the_played_action_alone() -> None:
    policy = make("ucb1", (10, 20, 30))
    policy.update(20, Feedback(1))
    policy.update(20, Feedback(0))
    assert policy.to_state()["counts"] == [0, 2, 0]


def test_mucb1_credits_upwards_on_success_and_debits_downwards_on_violation() -> None:
    policy = make("mucb1", (10, 20, 30, 40))
    policy.update(20, Feedback(1))
    # lambda = 80: rewards on success (120 - a) / 110, on violation (40 - a) / 110.
    success = [(120 - a) / 110 for a in (10, 20, 30, 40)]
    assert policy.to_state()["counts"] == [0, 1, 1, 1]
    assert policy.to_state()["means"] == [0.0, *success[1:]]
    policy.update(30, Feedback(0))
    state = policy.to_state()
    assert state["counts"] == [1, 2, 2, 1]
    assert state["means"][3] == success[3]
    violation = [(40 - a) / 110 for a in (10, 20, 30, 40)]
    assert state["means"][:3] == pytest.approx(
        [violation[0], (success[1] + violation[1]) / 2, (success[2] + violation[2]) / 2]
    )
    assert state["t"] == 2


def test_mucb1_needs_far_fewer_slots_below_the_threshold_than_ucb1() -> None:
    actions, threshold = tuple(range(10, 106, 5)), 60
    violations = {}
    for name in ("ucb1", "mucb1"):
        policy = make(name, actions)
        violations[name] = 0
        for _ in range(400):
            action = policy.pull()
            policy.update(action, Feedback(int(action >= threshold)))
            violations[name] += action < threshold
    assert violations["mucb1"] < violations["ucb1"] / 3


@pytest.mark.parametrize("name", ["ucb1", "mucb1"])
@pytest.mark.parametrize("threshold", [10, 30, 50, 70, 90])
def test_the_smallest_sufficient_action_is_learned(name: str, threshold: int) -> None:
    actions = (10, 30, 50, 70, 90)
    policy = make(name, actions)
    played = []
    for _ in range(4000):
        action = policy.pull()
        policy.update(action, Feedback(int(action >= threshold)))
        played.append(action)
    tail = played[-1000:]
    assert max(actions, key=tail.count) == threshold
    if name == "mucb1":
        assert tail.count(threshold) > 700


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"counts": [1, 2]}, "counts has shape"),
        ({"counts": [1, -2, 0]}, "counts"),
        ({"counts": [1, 99, 0]}, "do not fit"),
        ({"counts": [0.5, 1, 0]}, "do not fit"),
        ({"means": [0.1, None, 0.2]}, "means"),
        ({"means": [0.1, "x", 0.2]}, "means"),
        ({"means": [0.1, float("nan"), 0.2]}, "means"),
        ({"t": -1}, "t -1"),
        ({"t": "many"}, "t 'many'"),
        ({"first": 0}, "first 0"),
        ({"name": "ucb1", "options": {"action": 10}}, "action"),
    ],
)
def test_a_broken_state_is_refused_by_name(broken: dict[str, Any], named: str) -> None:
    policy = make("mucb1", (10, 20, 30))
    for _ in range(6):
        policy.update(policy.pull(), Feedback(1))
    with pytest.raises(ValueError, match=named):
        restore({**policy.to_state(), **broken})


def test_a_thousand_actions() -> None:
    actions = tuple(range(1, 1001))
    policy, reference = make("mucb1", actions), Reference(actions, monotonic=True)
    for _ in range(120):
        action = policy.pull()
        assert action == reference.pull()
        policy.update(action, Feedback(int(action >= 700)))
        reference.update(action, int(action >= 700))


@pytest.mark.parametrize("name", ["ucb1", "mucb1"])
@pytest.mark.parametrize("n", [ucb1.FEW, ucb1.FEW + 1])
def test_small_and_large_sets_are_one_definition(name: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    actions = tuple(int(a) for a in np.cumsum(np.random.default_rng(n).integers(1, 9, n)))
    policy, reference = make(name, actions), Reference(actions, monotonic=name == "mucb1")
    monkeypatch.setattr(ucb1, "FEW", n - 1 if n == ucb1.FEW else n)
    other = make(name, actions)
    assert type(policy._arms) is not type(other._arms)
    qos = bits("threshold", 5)
    for step in range(1500):
        action = policy.pull()
        assert action == other.pull() == reference.pull(), step
        assert policy.explain().reason == other.explain().reason
        indices = [why.indices for why in (policy.explain(), other.explain())]
        for given in indices:
            assert (None if given is None else given.tolist()) == (
                None if reference.index is None else list(reference.index.values())
            )
            assert given is None or given.dtype == np.float64
        q = qos(action, actions)
        for learner in (policy, other):
            learner.update(action, Feedback(q))
        reference.update(action, q)
    assert policy.to_state() == other.to_state()
    assert policy.to_state()["means"] == list(reference.mean.values())
    assert restore(policy.to_state()).to_state() == policy.to_state()


@pytest.mark.parametrize("n", [5, ucb1.FEW + 1])
def test_a_pull_is_explained_as_it_was_after_any_update(n: int) -> None:
    policy = make("mucb1", tuple(range(1, n + 1)))
    for action in policy.actions:
        policy.update(action, Feedback(action % 2))
    policy.pull()
    action = policy.pull()
    twin = restore(policy.to_state())
    assert twin.pull() == action
    before = twin.explain()
    for q in (0, 1):
        policy.update(action, Feedback(q))
        policy.update(1, Feedback(q))
    after = policy.explain()
    assert before.indices is not None and after.indices is not None
    assert (after.reason, after.indices.tolist()) == (before.reason, before.indices.tolist())
