"""The figures of `prbandit figures vr` on a small instance: computed, stored, shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("numba", reason="the extra vr")
pytest.importorskip("highspy", reason="the extra vr")
pytest.importorskip("matplotlib", reason="the extra vr")
pytest.importorskip("jinja2", reason="the extra vr")
pytest.importorskip("scipy", reason="the extra vr")

from controller.allocators.vr.instance import Instance
from controller.allocators.vr.solve import solve
from controller.cli import cli
from controller.experiments.vr import figures
from controller.experiments.vr.figures import growth
from controller.experiments.vr.figures.base import Study
from controller.experiments.vr.instances import draw

DRAWN = ("qoe", "fairness", "bandwidth", "run-time", "optima", "forms", "growth")


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
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Bar]:
    out, bar = tmp_path_factory.mktemp("figures"), Bar()
    study = Study(draw(3, 2), 3, 10.0, largest=8)
    return figures.run(study, out, DRAWN, bar), out, bar


def test_files_and_progress(made: tuple[dict[str, Any], Path, Bar]) -> None:
    result, out, bar = made
    assert json.loads((out / "figures.json").read_text()) == result
    page = (out / "figures.html").read_text()
    plots = sorted(p.stem for p in out.glob("*.svg"))
    assert page.count("<svg") == len(plots) == len(DRAWN) - 1
    assert "<script" not in page and "src=" not in page and "mathdefault" not in page
    assert len(bar.done) == bar.total
    text = figures.text(result)
    for name in DRAWN:
        assert f"{name}: {figures.FIGURES[name].title}" in text and f'id="{name}"' in page


def test_what_is_shown_is_what_the_solvers_say(made: tuple[dict[str, Any], Path, Bar]) -> None:
    computed = made[0]["figures"]
    solved = solve({**draw(3, 2), "first": 3, "constraints": "published-code"})
    qoe = computed["qoe"]["of"]
    assert qoe["exact"][2]["objective"] == pytest.approx(solved["objective"])
    assert computed["optima"]["rows"][2]["bound"] == pytest.approx(solved["bound"])
    assert computed["fairness"]["of"]["exact"][2]["jain_qoe"] == pytest.approx(solved["jain_qoe"])
    for k in range(3):
        for other in ("heuristic", "rca", "fixed"):
            assert qoe[other][k]["objective"] <= qoe["exact"][k]["objective"] + 1e-6
    # Whole base stations: as many as users are admitted.
    for mhz, of in zip(computed["bandwidth"]["of"]["rca"], qoe["rca"], strict=True):
        assert mhz == pytest.approx(100.0 * of["admitted"])
    for row in computed["forms"]["rows"]:
        assert row["full"]["objective"] <= row["published-code"]["objective"] + 1e-6
        assert row["printed"]["weighted"] <= row["full"]["objective"] + 1e-6


def test_growth_has_a_bound_and_stops_at_the_largest(made: tuple[dict[str, Any], Path, Bar]) -> None:
    rows = made[0]["figures"]["growth"]["rows"]
    assert [row["users"] for row in rows] == [4, 8]
    for row in rows:
        assert row["bound"] >= row["exact"]["objective"] >= row["heuristic"]["objective"] - 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_of_a_relaxation_holds(seed: int) -> None:
    """Also where most stations are one of "any other"."""
    data = draw(10, 9, seed)
    optimum = solve({**data, "time_limit_s": 20.0})
    bound = growth.relaxed_bound(Instance.of(data))
    assert bound >= optimum["objective"] and bound < 1.1 * optimum["objective"]


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "instance.json").write_text(json.dumps(draw(2, 2)))
    args = ["figures", "vr", "--instance", str(tmp_path / "instance.json"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, [*args, "--figure", "qoe", "--figure", "attention", "--json"])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)["figures"]) == {"qoe", "attention"}
    result = CliRunner().invoke(cli, [*args, "--figure", "qoe", "--users", "3"])
    assert result.exit_code == 1 and "users: 3 is not from 1 to the instance's 2" in result.output
    result = CliRunner().invoke(cli, [*args, "--figure", "fig-2"])
    assert result.exit_code == 2 and "no figure 'fig-2'; figures: qoe," in " ".join(result.output.split())
