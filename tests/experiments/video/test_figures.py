"""The figures of `prbandit figures video` on small worlds: computed, stored, shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("numba", reason="the extra video")
pytest.importorskip("scipy", reason="the extra video")
pytest.importorskip("matplotlib", reason="the extra video")
pytest.importorskip("jinja2", reason="the extra video")

from controller.cli import cli
from controller.experiments.video import figures, instances
from controller.experiments.video.figures import (
    ablation,
    demand,
    emulation,
    fig_5,
    load,
    models,
    regret,
    windows,
)
from controller.experiments.video.schemes import begin
from controller.experiments.video.study import Study, Task
from controller.experiments.video.world import WorldSpec, draw
from wire.definitions.viewing import Viewer

STUDY = Study(seeds=2, users=(4,), judged_s=180)


@contextmanager
def silent(what: str, total: int | None) -> Iterator[Any]:
    yield lambda name: None


def no(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "spec", _small(Task.spec))
    monkeypatch.setattr(load, "SWEEPS", {"both": (1.0,), "prb": (25, 50), "cycles": (10.0,)})
    monkeypatch.setattr(ablation, "PARTS", {"everything": "all"})
    monkeypatch.setattr(ablation, "CHANGES", {"no-drift": "none"})
    monkeypatch.setattr(regret, "TYPICAL_USERS", 4)
    monkeypatch.setattr(regret, "PRB", (25,))
    monkeypatch.setattr(windows, "FIXED", {"window-3": "3 min"})
    monkeypatch.setattr(models, "ROWS", (6, 24))
    monkeypatch.setattr(models, "HELD_OUT", 12)
    monkeypatch.setattr(demand, "WINDOW_MIN", 3)
    monkeypatch.setattr(emulation, "HISTORY_MIN", (10, 12))
    monkeypatch.setattr(emulation, "HELD_OUT_MIN", 12)


def _small(spec: Any) -> Any:
    def of(task: Task, users: int = 4, **changes: Any) -> Any:
        return spec(task, min(users, 4), **changes)

    return of


@pytest.mark.parametrize("name", figures.NAMES)
def test_a_figure_is_computed_shown_and_drawn(name: str, tmp_path: Path) -> None:
    result = figures.run(STUDY, tmp_path, [name], silent)
    stored = json.loads((tmp_path / "figures.json").read_text(), parse_constant=no)
    assert stored == json.loads(json.dumps(result))
    assert figures.FIGURES[name].title in (tmp_path / "figures.html").read_text()
    assert list(tmp_path.glob(f"{name}-*.svg")) and name in figures.text(result)


def test_a_figure_is_the_same_again() -> None:
    first, second = (fig_5.compute(STUDY, lambda name: None) for _ in range(2))
    assert first == second and first["missing"] == ["agents-bdqn", "pdrl-l1"]


def test_the_point_of_the_case_study_is_in_every_sweep() -> None:
    of = load.of_seed(Task(STUDY, 0))["sweeps"]
    assert of["both"]["1"] == of["prb"]["50"] == of["cycles"]["10"]


def test_demand_by_true_models_is_as_reliable_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "WINDOW_MIN", 9)
    kept, expected = [], []
    for seed in range(3):
        start = begin(draw(WorldSpec(users=8, duration_s=1260), seed), seed, 180)
        for b in demand.play(start, seed, "true", "rate")["bins"][-2:]:
            kept += [b["kept"]] * b["count"]
            expected += [b["nominal"]] * b["count"]
    assert len(kept) > 20
    assert np.mean(kept) == pytest.approx(np.mean(expected), abs=0.1)


def test_factors_of_viewers() -> None:
    both = models.factors(Viewer(4.0, "combined", "linear", (0.0, 0.1)))
    assert both == {"stalled", "quality", "environment"}
    assert models.factors(Viewer(4.0, "stalls", "linear", (0.0, 0.0))) == {"stalled"}


def test_pearson_finds_a_line_and_not_a_parabola() -> None:
    rng = np.random.default_rng(0)
    x, other = rng.uniform(-1.0, 1.0, (2, 200))
    found = models.pearson(2.0 * x + 0.1 * other, {"x": x, "squared": x * x, "constant": np.ones(200)})
    assert set(found) == {"x"}


def run(*args: str | Path) -> Any:
    return CliRunner().invoke(cli, ["figures", "video", *(str(a) for a in args)])


def test_the_command_without_networks(tmp_path: Path) -> None:
    out = run(
        "--out",
        tmp_path,
        "--seeds",
        2,
        "--users",
        4,
        "--minutes",
        3,
        "--jobs",
        1,
        "--train-steps",
        0,
        "--only",
        "fig-5",
        "--json",
    )
    assert out.exit_code == 0, out.output
    result = json.loads(out.stdout, parse_constant=no)
    assert result["seeds"] == 2 and list(result["figures"]) == ["fig-5"]
    assert len(result["figures"]["fig-5"]["verdicts"]["ratio, agents"]) == 7


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--only", "fig-6"), "no figure 'fig-6'"),
        (("--seeds", 1), "not in the range"),
        (("--users", 25), "not in the range"),
        (("--networks", "/nowhere", "--only", "fig-5"), "group.weights"),
    ],
)
def test_bad_options(args: tuple[Any, ...], text: str) -> None:
    out = run(*args)
    assert out.exit_code != 0 and text in out.output and "Traceback" not in out.output


def test_instances_are_drawn_from_the_seed() -> None:
    assert instances.generate(1, 5) == instances.generate(1, 5) != instances.generate(2, 5)
