"""What one run has learned begins the next, and what was wrong in it is unlearned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from controller import policies
from controller.cli import cli
from controller.config import Config, find, load
from controller.loop import ControlLoop
from controller.policies import Context, Feedback, Policy
from controller.scenario import SCS_KHZ
from controller.sim import run
from controller.store import prior
from controller.store.run import RunStore
from wire.definitions.nr import TDD_PATTERNS


def scenario(n: int, policy: str = "headroom") -> Config:
    return load(find(f"mucb1-{n}"), {"emulation.schedule": "always"}).with_policy(policy)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four minutes of scenario 1, with its actions of 20 PRB."""
    folder = tmp_path_factory.mktemp("learned") / "run"
    config = scenario(1)
    with RunStore.create(folder, config=config.to_yaml(), seed=4) as store:
        run(config, 4, duration_s=240.0, store=store)
    return folder


def loop_of(config: Config) -> ControlLoop:
    return ControlLoop(config.loop_spec("cell-1", 106, SCS_KHZ, TDD_PATTERNS["DSUUU"]))


def used(config: Config, seed: int, state: Mapping[str, Any] | None = None) -> float:
    """Mean UL PRB of the first minute."""
    prb: float = run(config, seed, duration_s=60.0, prior=state).summary["avg_ul_prb"]
    return prb


def test_what_one_run_learned_begins_another_with_other_actions(learned: Path) -> None:
    config = scenario(4)  # actions of 10 PRB
    cold, warm = used(config, 5), used(config, 5, prior.load(str(learned)))
    assert warm < 0.9 * cold


def test_a_policy_of_bits_says_that_it_cannot(learned: Path) -> None:
    loop = loop_of(scenario(1, "mucb1"))
    assert "cannot take over" in loop.take_over(prior.load(str(learned)))["ar"]


def test_another_version_and_no_state_are_refused(learned: Path) -> None:
    loop = loop_of(scenario(1))
    state = dict(prior.load(str(learned)))
    with pytest.raises(ValueError, match="version 99"):
        loop.take_over({**state, "version": 99})
    with pytest.raises(ValueError, match="damaged"):
        loop.take_over({"version": state["version"]})
    assert loop.take_over({**state, "slices": {}}) == {
        "ar": "no slice of its name, or only one of service ar"
    }


def test_a_source_without_the_cell_names_those_that_there_are(learned: Path) -> None:
    with pytest.raises(ValueError, match=r"no cell 'cell-9'; cells: cell-1"):
        prior.load(f"{learned}:cell-9")
    assert prior.load(f"{learned}:cell-1") == prior.load(str(learned))


def test_the_command_takes_it(learned: Path) -> None:
    arguments = ["experiment", "mucb1-4", "--policy", "default", "--schedule", "always", "--duration", "30"]
    figures = []
    for more in ([], ["--warm-start", str(learned)]):
        got = CliRunner().invoke(cli, [*arguments, *more, "--json"])
        assert got.exit_code == 0, got.output
        figures.append(json.loads(got.stdout))
    assert figures[1]["avg_ul_prb"] < figures[0]["avg_ul_prb"]


def cliff(policy: Policy, at: float, slots: int) -> list[int]:
    """What a policy plays on a hop whose delay is 12 ms + 30 / headroom from headroom ``at`` on, 400 ms
    below it."""
    played = []
    for _ in range(slots):
        action = policy.pull(Context(10.0, 0.0, 70.0, events=True))
        headroom = action / 10.0
        delay = 12 + 30 / headroom if headroom >= at else 400.0
        policy.update(action, Feedback(int(delay <= 70), delay, 70.0, 10.0))
        played.append(action)
    return played


def test_a_wrong_prior_is_unlearned() -> None:
    actions = range(10, 107, 5)
    easy = policies.make("headroom", actions)
    cliff(easy, 1.5, 200)
    hard = policies.make("headroom", actions)
    hard.take_over(easy.to_state())
    played = cliff(hard, 4.0, 60)
    assert played[0] < 30  # it believes what it was told
    assert sum(a < 40 for a in played[10:]) <= 5, played
    from_nothing = policies.make("headroom", actions)
    assert sum(cliff(from_nothing, 4.0, 60)[40:]) == pytest.approx(sum(played[40:]), rel=0.25)
