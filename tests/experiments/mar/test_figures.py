"""The figures of ``prbandit figures mar`` on a few drawn walkers: computed, stored, shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from controller.allocators.mar.options import MarOptions
from controller.cli import cli
from controller.experiments.mar import figures
from controller.experiments.mar.figures import accuracy, vchr
from controller.experiments.mar.figures.base import Video
from tests.allocators.mar.walkers import walkers
from wire.definitions.vchr import visible
from wire.pose_files import read_poses

DATA = Path(__file__).parents[3] / "../shared/data/pose-traces"
DRAWN = ("vchr", "clone")


class Bar:
    """A progress bar that counts."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done: list[str] = []

    @contextmanager
    def __call__(self, what: str, total: int | None) -> Iterator[Callable[[str], None]]:
        self.total = total
        yield self.done.append


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path, Bar]:
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    out, bar = tmp_path_factory.mktemp("figures"), Bar()
    result = figures.run({"a": walkers(4, 120)}, out, DRAWN, bar)
    return result, out, bar


def test_files_and_progress(made: tuple[dict, Path, Bar]) -> None:
    result, out, bar = made
    assert json.loads((out / "figures.json").read_text()) == result
    page = (out / "figures.html").read_text()
    plots = sorted(p.stem for p in out.glob("*.svg"))
    assert page.count("<svg") == len(plots) >= len(DRAWN)
    assert {p.rsplit("-", 1)[0] for p in plots} == set(DRAWN)
    assert (
        "<script" not in page
        and "src=" not in page
        and "https://" not in page.replace("https://www.w3.org", "")
    )
    assert len(bar.done) == bar.total


def test_text_has_every_figure_and_the_page_the_same_tables(made: tuple[dict, Path, Bar]) -> None:
    result, out, _ = made
    text = figures.text(result)
    page = (out / "figures.html").read_text()
    for name in DRAWN:
        assert f"{name}: {figures.FIGURES[name].title}" in text
        assert f'id="{name}"' in page
    assert "a: mean VCHR by upload frequency" in text and "a: mean VCHR by upload frequency" in page


def test_vchr_is_that_of_the_traces_and_its_parts_add_up(made: tuple[dict, Path, Bar]) -> None:
    of = made[0]["figures"]["vchr"]["a"]
    observed = Video("a", walkers(4, 120), MarOptions()).observed
    assert np.allclose(of["mean"], np.nanmean(observed.vchr, axis=(0, 2)), atol=0.02)
    assert of["of_user"] == pytest.approx(np.nanmean(observed.vchr[0], axis=-1).tolist())
    for hz in of["upload_hz"]:
        assert sum(row["share"] for row in of["samples"] if row["upload_hz"] == hz) == pytest.approx(1.0)
    held = [row for row in of["samples"] if row["samples"] == 1]
    assert held and all(row["vchr"] == row["held"] for row in held)
    options = {row["option"]: row["vchr"] for row in of["options"]}
    default = MarOptions()
    for same in (
        f"field of view {default.field_of_view_deg[0]:g} degrees",
        f"W = {default.lookahead_frames} frames",
        f"H = {default.history_frames} frames",
    ):
        assert options[same] == options["as the service"]


def test_without_occlusion_more_is_in_view_and_nothing_seen_is_missing() -> None:
    video = Video("a", walkers(3, 40), MarOptions())
    fov = video.options.field_of_view_deg
    seen = visible(video.poses, video.content, fov)
    there = vchr.in_frustum(video.poses, video.content, fov)
    assert (there | ~seen).all() and there.sum() > 1.5 * seen.sum()


def test_distributions_sum_to_one() -> None:
    of = figures.FIGURES["distribution"].compute([Video("a", walkers(4, 120), MarOptions())], print)["a"]
    assert of["user"] == 3
    for key in ("predicted", "true"):
        assert np.allclose(np.sum(of[key], axis=1), 1.0)


def test_clones_are_faithful_to_users_that_they_have_not_seen(made: tuple[dict, Path, Bar]) -> None:
    of = made[0]["figures"]["clone"]["a"]
    rows = {(row["predictor"].split()[0], row["technique"]): row for row in of["rows"]}
    linear = rows["linear", "linear"]
    assert (linear["history"], linear["order"]) == (MarOptions().history_frames, 1)
    assert all(f["same_cells"] == 1.0 and f["rmse_m"] < 1e-9 for f in linear["fidelity"])
    for predictor in ("linear", "double", "saturating"):
        general, held = (rows[predictor, t]["fidelity"][4] for t in ("general", "held"))
        assert general["rmse_m"] < 0.5 * held["rmse_m"]


def test_theorem_1_misleads_less_the_more_frames() -> None:
    figure = figures.FIGURES["theorem-1"]
    computed = figure.compute([Video("a", walkers(1, 40), MarOptions())], print)
    errors = [row["largest_error"] for row in computed["summary"]]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.1
    for row in computed["summary"]:
        wrong = [r for r in computed["rows"] if r["frames"] == row["frames"] and r["misleads"]]
        assert row["accepts wrongly"] + row["refuses wrongly"] == len(wrong)
    assert figures.text({"figures": {"theorem-1": computed}}) and figure.plots(computed)


@pytest.mark.slow
@pytest.mark.long
def test_accuracy_on_a_few_walkers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    monkeypatch.setattr(accuracy, "SEEDS", {"temporal": (0,), "blocks": (0,), "random": (0, 1)})
    bar = Bar()
    result = figures.run({"a": walkers(8, 120)}, tmp_path, ["accuracy"], bar)
    of = result["figures"]["accuracy"]["a"]
    assert len(bar.done) == bar.total
    for kind in ("temporal", "blocks", "random"):
        models = of["splits"][kind]["models"]
        hindsight, table = models["the same, strength in hindsight"], models["table of user and frequency"]
        assert hindsight["log_loss"] <= table["log_loss"]
        assert all(0.0 <= m["accuracy"] <= 1.0 and m["log_loss"] > 0.0 for m in models.values())
    random, temporal = (
        of["splits"][k]["models"]["personal network (paper)"]["log_loss"] for k in ("random", "temporal")
    )
    assert random < temporal
    assert all(0 <= t["better"] <= t["users"] == 8 and 0.0 <= t["p"] <= 1.0 for t in of["paired"].values())
    assert "what is personal" in figures.text(result)


@pytest.mark.parametrize("name", ["vchr", "distribution", "clone"])
def test_one_user_is_enough(name: str) -> None:
    pytest.importorskip("matplotlib")
    computed = figures.FIGURES[name].compute([Video("alone", walkers(1, 120), MarOptions())], print)
    assert "alone" in figures.text({"figures": {name: computed}})
    assert figures.FIGURES[name].plots(computed)
    if name == "clone":
        assert computed["alone"]["unseen"] == 0


def test_a_trace_too_short_to_split_is_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    path = tmp_path / "brief.npz"
    np.savez(path, pose=walkers(2, 60))
    got = CliRunner().invoke(cli, ["figures", "mar", "--traces", str(path), "--out", str(tmp_path / "out")])
    assert got.exit_code == 2 and "brief: 30 frames are too few for a temporal split" in got.output
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    path = tmp_path / "a.npz"
    np.savez(path, pose=walkers(2, 120))
    got = CliRunner().invoke(cli, ["figures", "mar", "--traces", str(path), "--out", str(tmp_path / "out")])
    assert got.exit_code == 1
    assert "a figure needs the package scipy: .venv/bin/pip install -e '.[mar]'" in got.output


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
@pytest.mark.parametrize(
    ("name", "mean", "fall"),
    [("longdress", (0.807, 0.862, 0.878, 0.885), 13), ("loot", (0.770, 0.846, 0.868, 0.875), 8)],
)
def test_known_vchr_of_real_traces(name: str, mean: tuple[float, ...], fall: int) -> None:
    of = vchr.compute([Video(name, read_poses(DATA / f"{name}.npz"), MarOptions())], print)[name]
    at = [of["upload_hz"].index(hz) for hz in (1.0, 3.0, 5.0, 30.0)]
    assert [of["mean"][k] for k in at] == pytest.approx(mean, abs=0.002)
    (step,) = (row for row in of["steps"] if row["from_hz"] == 2.0)
    assert step["fall"] == fall and step["of_these"] < fall / 2
