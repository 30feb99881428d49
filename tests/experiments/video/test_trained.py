"""Networks for figures: which are trained, and the schemes that take them."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="the extra video")
pytest.importorskip("scipy", reason="the extra video")

from controller.allocators.video.bdqn import GROUP, KINDS, USER, BranchingNetwork
from controller.experiments.video import trained
from controller.experiments.video.study import Study, Task, judged
from controller.experiments.video.training.learner import Training, initial
from controller.experiments.video.world import WorldSpec

STEPS = 120


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """As they are before anything is learnt."""
    out = {}
    for kind in KINDS:
        training = Training(kind, trained.SEED, STEPS)
        network = BranchingNetwork(kind, initial(training), asdict(training))
        file = tmp_path / f"{kind}.weights"
        file.write_bytes(network.to_bytes())
        out[kind] = str(file)
    return out


def none(what: str, total: int | None) -> None:
    raise AssertionError(f"{what} are trained")


@pytest.mark.skipif(find_spec("torch") is None, reason="the extra drl")
def test_what_was_trained_in_the_same_way_stays(files: dict[str, str], tmp_path: Path) -> None:
    assert trained.train_all(tmp_path, STEPS, 1, none) == files  # type: ignore[arg-type]


@pytest.mark.skipif(find_spec("torch") is None, reason="the extra drl")
@pytest.mark.parametrize("other", [b"nothing", None])
def test_what_is_not_of_this_training_is_trained(
    files: dict[str, str], tmp_path: Path, other: bytes | None
) -> None:
    if other is not None:
        Path(files[GROUP]).write_bytes(other)
    with pytest.raises(AssertionError, match="networks are trained"):
        trained.train_all(tmp_path, STEPS if other else STEPS + 60, 1, none)  # type: ignore[arg-type]


def test_without_pytorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trained, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"--train-steps 0 .*/pip install -e '.\[drl\]'"):
        trained.train_all(tmp_path, STEPS, 1, none)  # type: ignore[arg-type]


def test_schemes_of_networks_keep_within_what_there_is(files: dict[str, str]) -> None:
    task = Task(Study(networks=files), 2)
    spec = WorldSpec(users=4, duration_s=780)
    runs = task.play(spec, ("agents-bdqn", "pdrl-l1"))
    assert list(runs) == ["agents-bdqn", "pdrl-l1"]
    for campus in runs.values():
        assert set(campus.networks) == {GROUP, USER} and judged(campus).scores.shape == (4, 1)


def test_schemes_without_their_network_are_left_out() -> None:
    task = Task(Study(), 2)
    assert list(task.play(WorldSpec(users=4, duration_s=780), ("everything", "pdrl-l1"))) == ["everything"]
