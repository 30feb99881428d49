"""What holds for every policy."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from controller import policies
from controller.policies import Context, Feedback, Policy, is_per_state, make, names, restore

ACTION_SETS = [(40,), (10, 20), (10, 30, 50, 70, 90), tuple(range(10, 106, 5)), tuple(range(500, 1700, 100))]
every_policy = pytest.mark.parametrize("name", names())
every_set = pytest.mark.parametrize("actions", ACTION_SETS, ids=len)

Environment = Callable[[int, np.random.Generator], int]


def threshold(at: int, noise: float = 0.1) -> Environment:
    """QoS is met from ``at`` on, but for a bit in ten."""
    return lambda action, rng: int((action >= at) != (rng.random() < noise))


def pull(policy: Policy, slot: int = 0) -> int:
    """What a policy plays in a control slot, whose generator is the same each time."""
    return policy.pull(Context(rng=np.random.default_rng((9, slot)) if policy.draws else None))


def play(policy: Policy, slots: int, environment: Environment, seed: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    played = []
    for slot in range(slots):
        action = pull(policy, slot)
        q = environment(action, rng)
        policy.update(action, Feedback(q))
        played.append((action, q))
    return played


def build(name: str, actions: Sequence[int], /, *, seed: int = 0, **options: Any) -> Policy:
    return make(name, actions, **options)


def test_the_four_policies_are_there() -> None:
    assert set(names()) >= {"static", "aimd", "ucb1", "mucb1"}
    assert {n: is_per_state(n) for n in ("static", "aimd", "ucb1", "mucb1")} == {
        "static": False,
        "aimd": False,
        "ucb1": True,
        "mucb1": True,
    }


@pytest.mark.parametrize("name", ["kl_ucb", "isotonic_ts", "monotone_threshold"])
def test_the_policies_of_the_literature_are_there(name: str) -> None:
    assert name in names() and is_per_state(name)


@every_policy
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(type(build(name, (10, 20))).__module__)
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(policies).failed == 0


@every_policy
@every_set
def test_actions_come_from_the_set(name: str, actions: tuple[int, ...]) -> None:
    policy = build(name, actions)
    assert policy.actions == actions
    for action, _ in play(policy, 400, threshold(actions[-1] // 2), seed=1):
        assert type(action) is int
        assert action in actions


@every_policy
@every_set
def test_equal_seeds_make_equal_runs(name: str, actions: tuple[int, ...]) -> None:
    runs = [play(build(name, actions, seed=5), 300, threshold(actions[0] + 1), seed=2) for _ in range(2)]
    assert runs[0] == runs[1]


@every_policy
@every_set
@pytest.mark.parametrize("after", [0, 1, 3, 150])
def test_state_goes_through_json_and_learning_goes_on(
    name: str, actions: tuple[int, ...], after: int
) -> None:
    policy = build(name, actions)
    play(policy, after, threshold(actions[-1] // 2, 0.3), seed=3)
    text = json.dumps(policy.to_state(), allow_nan=False)
    again = restore(json.loads(text))
    assert type(again) is type(policy)
    assert again.to_state() == policy.to_state()
    assert again.explain().reason == "not pulled"
    assert play(again, 200, threshold(actions[-1] // 2, 0.3), seed=4) == play(
        policy, 200, threshold(actions[-1] // 2, 0.3), seed=4
    )


@every_policy
def test_a_state_is_a_copy(name: str) -> None:
    policy = build(name, (10, 20, 30))
    play(policy, 20, threshold(20), seed=1)
    before = policy.to_state()
    kept = json.loads(json.dumps(before))
    play(policy, 20, threshold(20), seed=2)
    assert before == kept


@every_policy
def test_pulling_again_without_an_update_changes_no_estimate(name: str) -> None:
    actions = (10, 30, 50, 70, 90)
    once, often = build(name, actions), build(name, actions)
    play(once, 60, threshold(50), seed=6)
    play(often, 60, threshold(50), seed=6)
    assert {pull(often) for _ in range(5)} == {pull(once)}
    assert often.to_state() == once.to_state()
    assert play(often, 50, threshold(50), seed=7) == play(once, 50, threshold(50), seed=7)


@every_policy
def test_pulls_before_any_update_are_valid(name: str) -> None:
    policy = build(name, (10, 30, 50))
    assert {pull(policy, slot) for slot in range(4)} <= {10, 30, 50}


@every_policy
@pytest.mark.parametrize("action", [0, 11, -10, 1000, None, "10"])
def test_an_unknown_action_is_refused_and_teaches_nothing(name: str, action: Any) -> None:
    policy = build(name, (10, 20))
    before = policy.to_state()
    with pytest.raises(ValueError, match=f"{name}.*{action!r}"):
        policy.update(action, Feedback(1))
    assert policy.to_state() == before


@every_policy
@pytest.mark.parametrize("q", [-1, 2, 0.5, float("nan"), None, "1"])
def test_a_qos_that_is_no_bit_is_refused_and_teaches_nothing(name: str, q: Any) -> None:
    policy = build(name, (10, 20))
    before = policy.to_state()
    with pytest.raises(ValueError, match=f"{name}.*{q!r}"):
        policy.update(10, Feedback(q))
    assert policy.to_state() == before


@every_policy
@pytest.mark.parametrize(
    ("actions", "named"),
    [
        ((), "no actions"),
        ((20, 10), "20, 10"),
        ((10, 10), "10, 10"),
        ((10.5, 20), "10.5"),
        ((-5, 10), "-5"),
        ((0,), "all zero"),
        (None, "None"),
    ],
)
def test_impossible_action_sets_are_refused(name: str, actions: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*{named}"):
        build(name, actions)


@every_policy
@pytest.mark.parametrize("option", ["colour", "name", "actions"])
def test_an_unknown_option_is_named(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*'{option}'"):
        build(name, (10, 20), **{option: 1})


def test_an_unknown_policy_is_named() -> None:
    for call in (
        lambda: make("greedy", (1, 2)),
        lambda: is_per_state("greedy"),
        lambda: restore({"name": "greedy"}),
    ):
        with pytest.raises(ValueError, match=r"'greedy'.*mucb1"):
            call()


@every_policy
def test_randomness_comes_from_a_generator(name: str) -> None:
    source = inspect.getsource(importlib.import_module(type(build(name, (10, 20))).__module__))
    assert "import random" not in source
    assert "default_rng" not in source


@every_policy
@every_set
def test_only_the_generator_of_the_context_is_drawn_from(name: str, actions: tuple[int, ...]) -> None:
    policy = build(name, actions)
    play(policy, 20, threshold(actions[-1] // 2), seed=3)
    rng = np.random.default_rng(1)
    before = rng.bit_generator.state
    policy.pull(Context(rng=rng))
    assert (rng.bit_generator.state != before) == policy.draws
    if policy.draws:
        with pytest.raises(ValueError, match=f"{name}.*generator"):
            policy.pull()
        assert policy.explain().reason not in ("", "not pulled")


@every_policy
def test_a_state_with_a_hole_is_refused_by_name(name: str) -> None:
    whole = build(name, (10, 20)).to_state()
    for key in whole:
        with pytest.raises(ValueError, match=key):
            restore({k: v for k, v in whole.items() if k != key})
    for broken in ({"actions": [20, 10]}, {"actions": 3}, {"options": {"colour": 1}}, {"options": 3}):
        with pytest.raises(ValueError, match=name):
            restore({**whole, **broken})


@every_policy
@every_set
def test_every_pull_is_explained(name: str, actions: tuple[int, ...]) -> None:
    policy = build(name, actions)
    assert policy.explain().reason == "not pulled"
    rng = np.random.default_rng(8)
    for slot in range(100):
        action = pull(policy, slot)
        why = policy.explain()
        assert why.reason not in ("", "not pulled")
        if why.indices is not None:
            assert why.indices.shape == (len(actions),)
            assert np.isfinite(why.indices).all()
            assert action == actions[int(np.argmax(why.indices))]
        policy.update(action, Feedback(int(rng.random() < 0.7)))
