"""Networks learn: the environment, a pass through PyTorch, the same again, and what was broken off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from controller.allocators.video import bdqn
from controller.allocators.video.bdqn import KINDS, SHAPES, BranchingNetwork
from controller.allocators.video.groups import GROUPS, groups_of
from controller.allocators.video.orchestration import Resources, Shares
from controller.allocators.video.users import gain
from controller.cli import cli
from controller.experiments.video.training import learner, worlds
from controller.experiments.video.training.learner import Training, train
from controller.experiments.video.training.worlds import Place
from tests.allocators.video.people import users

torch = pytest.importorskip("torch", reason="training needs the extra drl")
gymnasium = pytest.importorskip("gymnasium", reason="training needs the extra drl")

TINY = Training(
    steps=150, validate=1, sets=1, held_out=1, loads=1, validations=1, batch=8, update=5, target=5
)


@pytest.fixture(scope="module")
def made() -> dict[bool, list[Place]]:
    return {held_out: worlds.places(0, 1, 1, held_out) for held_out in (False, True)}


@pytest.fixture
def known(made: dict[bool, list[Place]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The worlds, which take seconds to make, are made once."""
    monkeypatch.setattr(learner, "places", lambda *args, held_out=False: made[held_out])


def test_worlds_held_out_are_of_other_people(made: dict[bool, list[Place]]) -> None:
    assert made[False][0].traces.viewers != made[True][0].traces.viewers
    place = made[False][0]
    assert len(place.hulls) == place.traces.spec.steps - place.begin
    for episode in (worlds.Episode.of(place, "group", np.random.default_rng(i)) for i in range(5)):
        assert worlds.USERS[0] <= episode.count <= worlds.USERS[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_environment_is_one_of_gymnasium_s(kind: str, made: dict[bool, list[Place]]) -> None:
    from gymnasium.utils.env_checker import check_env

    env = learner.environment(kind, made[False])
    check_env(env)
    observed, _ = env.reset(seed=3)
    assert observed.shape == (2 * SHAPES[kind].inputs,)
    _, reward, terminated, truncated, info = env.step(np.zeros(2 * SHAPES[kind].branches, np.int64))
    assert not terminated and not truncated
    assert reward == pytest.approx(float(info["gain"] @ info["users"]) / info["users"].sum())
    world = env.episode.run.world
    score = world.ratings[:, world.step_number - 1, 0]
    assert reward == pytest.approx(float(gain(score, env.episode.run.traces.ela).mean()))


@pytest.mark.parametrize("kind", KINDS)
def test_pytorch_and_numpy_have_the_same_values(kind: str) -> None:
    weights = learner.initial(Training(kind, 4))
    states = np.random.default_rng(1).uniform(0.0, 1.0, (6, SHAPES[kind].inputs)).astype(np.float32)
    tensors = {name: torch.from_numpy(a) for name, a in weights.items()}
    there = learner.q_values(tensors, torch.from_numpy(states), len(SHAPES[kind].shared)).numpy()
    np.testing.assert_allclose(BranchingNetwork(kind, weights, {}).q(states), there, atol=1e-5)


@pytest.mark.parametrize("mcycles", [1e5, 1500.0])
def test_within_groups_all_keep_to_what_their_group_has(mcycles: float) -> None:
    known = users(14, 3)
    groups = groups_of(known.models)
    resources = Resources(np.array([9.0, 12.0]), mcycles, 180.0)
    shares = bdqn.group_shares(np.tile([0, 3, 6, 6, 3, 0], (2, 1)), known, groups, resources)
    hulls = worlds.frontier.hulls(known)
    kbps = worlds.divided(known, hulls, groups, shares, resources)
    at = known.cell * len(GROUPS) + groups
    used = Shares(
        np.bincount(at, kbps / known.kbps_per_prb, 6).reshape(2, 3),
        np.bincount(at, kbps * 0.18, 6).reshape(2, 3),
    )
    assert (used.prb <= shares.prb * (1.0 + 1e-9)).all()
    assert (used.mcycles <= shares.mcycles * (1.0 + 1e-6)).all()


@pytest.mark.slow
@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_weights(kind: str) -> None:
    tiny = replace(TINY, kind=kind)
    first, second = train(tiny), train(tiny)
    assert first.to_bytes() == second.to_bytes()
    assert first.training["validated"] == max(gain for _, gain in first.training["curve"])
    other = train(replace(tiny, seed=1))
    assert any((other.weights[n] != a).any() for n, a in first.weights.items())


@pytest.mark.slow
@pytest.mark.usefixtures("known")
def test_what_was_broken_off_goes_on(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    train(TINY, checkpoint, until=1)
    assert checkpoint.exists()
    assert train(TINY, checkpoint).to_bytes() == train(TINY).to_bytes()
    with pytest.raises(ValueError, match="another training"):
        train(replace(TINY, rate=1e-3), checkpoint)
    checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="no checkpoint"):
        train(TINY, checkpoint)


@pytest.mark.slow
@pytest.mark.usefixtures("known")
def test_one_branch_of_which_one_level_is_right_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reward is made to depend on one branch alone."""

    def step(self: worlds.Episode, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.run.world.step_number += 1
        right = (actions[self.run.users().cell, 1] == 5).astype(float)
        return right, right, self.run.users().cell

    monkeypatch.setattr(worlds.Episode, "step", step)
    learnt = train(replace(TINY, steps=600, batch=32, rate=2e-3, update=1, validate=10))
    assert learnt.training["validated"] > 0.9


@pytest.mark.usefixtures("known")
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        learner, "Training", lambda kind, seed, steps: replace(TINY, kind=kind, seed=seed, steps=steps)
    )
    out = tmp_path / "group.weights"
    args = ["train", "video", "--out", str(out), "--steps", "60", "--json"]
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    network = BranchingNetwork.from_bytes(out.read_bytes())
    assert network.kind == printed["kind"] == "group" and printed["steps"] == 60
    assert not out.with_name("group.weights.checkpoint").exists()
    assert "--force" in CliRunner().invoke(cli, args).output


@pytest.mark.parametrize(
    "wrong", [{"kind": "slice"}, {"steps": 0}, {"gamma": 1.0}, {"seed": -1}, {"rate": 0.0}]
)
def test_no_such_training(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no such training"):
        Training(**wrong)  # type: ignore[arg-type]
