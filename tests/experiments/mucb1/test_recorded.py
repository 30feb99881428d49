"""A recorded run against its oracle: at the time of the run, later, and where there is none."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from controller.cli import cli
from controller.experiments.mucb1 import oracle
from controller.experiments.runs import RunSpec, execute
from controller.store.run import RunStore
from tests.experiments.builders import SMALL, small

pytest.importorskip("matplotlib", reason="the report needs the extra 'report'")
pytest.importorskip("jinja2", reason="the report needs the extra 'report'")

from tests.store.test_report import Page

pytestmark = pytest.mark.long

SHORT = SMALL.replace("duration_s: 60.0", "duration_s: 40.0")

REGRET = "Regret against the best fixed actions in hindsight"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str]:
    """A run with its oracle: the folder, what the command said as JSON, the scenario."""
    folder = tmp_path_factory.mktemp("recorded")
    scenario = small(folder, SHORT)
    done = run(
        "experiment",
        scenario,
        "--policy",
        "mucb1",
        "--seed",
        5,
        "--run",
        folder / "run",
        "--oracle",
        "--json",
    )
    assert done.exit_code == 0, done.output
    return folder / "run", json.loads(done.stdout), scenario


def test_the_report_shows_the_run_against_its_oracle(at_once: tuple[Path, dict, str]) -> None:
    folder, told, scenario = at_once
    spec = RunSpec.make(scenario, "mucb1", 5)
    played, found = execute(spec), oracle.find(spec).reference
    curves = oracle.regret(played, found)
    assert told["report"] == str(folder / "report.html")
    of_report = summary_of(folder)["oracle"]
    assert (of_report["cell"], of_report["slice"]) == ("cell-1", "ar")
    for one in (told["oracle"], of_report):
        for name in ("avg_ul_prb", "avg_dl_prb", "avg_gpu_mhz"):
            assert one["relative"][name] == pytest.approx(played.figures[name] / found.figures[name])
        for hop, curve in curves.items():
            assert one["regret"][hop] == pytest.approx(curve[-1])
        assert one["regret"]["total"] == pytest.approx(sum(curve[-1] for curve in curves.values()))
        assert one["actions"]["2"]["ul"] == found.actions[2].ul_prb
    page = (folder / "report.html").read_text()
    Page(page)
    assert f"<figcaption>{REGRET}</figcaption>" in page and "this run / clairvoyant" in page
    assert f"{found.figures['avg_ul_prb']:.1f}" in page


def test_the_oracle_found_later_is_the_one_found_at_once(
    at_once: tuple[Path, dict, str], tmp_path: Path
) -> None:
    folder, _, scenario = at_once
    later = tmp_path / "later"
    done = run("experiment", scenario, "--policy", "mucb1", "--seed", 5, "--run", later)
    assert done.exit_code == 0 and "oracle" not in done.output
    without = run("report", later)
    assert without.output == f"{later / 'report.html'}\n"  # nobody asked
    page = (later / "report.html").read_text()
    assert "oracle" not in page and REGRET not in page
    assert summary_of(later)["oracle"].keys() == {"missing"}
    done = run("report", later, "--oracle")
    assert done.exit_code == 0, done.output
    assert (later / "oracle.json").read_text() == (folder / "oracle.json").read_text()
    assert summary_of(later)["oracle"] == summary_of(folder)["oracle"]


def test_a_run_that_cannot_be_had_again_is_refused(at_once: tuple[Path, dict, str], tmp_path: Path) -> None:
    """Another channel behind the same record: the oracle would be searched on another cell."""
    _, _, scenario = at_once
    folder = tmp_path / "run"
    assert run("experiment", scenario, "--seed", 5, "--run", folder).exit_code == 0
    about = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**about, "seed": 6}))
    refused = run("report", folder, "--oracle")
    assert refused.exit_code == 1 and "give another QoS than was recorded" in str(refused.exception)
    assert not (folder / "oracle.json").exists()


def test_an_oracle_of_another_run_is_not_shown(at_once: tuple[Path, dict, str], tmp_path: Path) -> None:
    folder, _, scenario = at_once
    other = tmp_path / "run"
    assert run("experiment", scenario, "--seed", 6, "--run", other).exit_code == 0
    kept = other / "oracle.json"
    for text, match in (
        ((folder / "oracle.json").read_text(), "of another run (seed 5, 40 control slots; here 6, 40)"),
        ('{"version": 1, "seed": 6}', "cannot be used"),
        ('{"version": 2}', "version 2, not 1"),
        ("[]", "cannot be used"),
    ):
        kept.write_text(text)
        told = run("report", other)
        assert told.exit_code == 0, told.output
        assert match in told.output and "--oracle" in told.output
        assert REGRET not in (other / "report.html").read_text()


def test_a_live_run_has_none_and_says_why(at_once: tuple[Path, dict, str], tmp_path: Path) -> None:
    folder, _, _ = at_once
    live = tmp_path / "live"
    with RunStore.open(folder) as store:
        RunStore.create(live, config=store.config(), seed=5).close()
    told = run("report", live)
    assert told.exit_code == 0 and "oracle" not in told.output
    assert "only a run of `prbandit experiment` has one" in summary_of(live)["oracle"]["missing"]
    refused = run("report", live, "--oracle")
    assert refused.exit_code == 1 and "cannot be played again" in str(refused.exception)


def test_a_run_that_was_cut_off_has_the_oracle_of_what_it_holds(
    at_once: tuple[Path, dict, str], tmp_path: Path
) -> None:
    _, _, scenario = at_once
    folder = tmp_path / "run"
    assert run("experiment", scenario, "--seed", 5, "--run", folder).exit_code == 0
    with sqlite3.connect(folder / "run.sqlite") as db:
        db.execute("DELETE FROM control_slots WHERE control_slot > 30")
    assert run("report", folder, "--oracle").exit_code == 0
    kept = json.loads((folder / "oracle.json").read_text())
    assert len(kept["loads"]) == 29 == summary_of(folder)["control_slots"]


def test_more_than_one_slice_is_refused_before_the_run(tmp_path: Path) -> None:
    text = SHORT.replace("emulation:", "      - {id: other, ues: [ue-2]}\nemulation:\n  ues: 2")
    out = tmp_path / "run"
    refused = run("experiment", small(tmp_path, text), "--run", out, "--oracle")
    assert refused.exit_code == 1 and "one cell with one slice" in str(refused.exception)
    assert not out.exists()
    assert run("experiment", small(tmp_path, text), "--run", out).exit_code == 0
    assert "oracle" not in run("report", out).output
    assert "one with more has no oracle" in summary_of(out)["oracle"]["missing"]


def test_the_curve_is_the_cost_above_hindsight_slot_by_slot(at_once: tuple[Path, dict, str]) -> None:
    spec = RunSpec.make(at_once[2], "mucb1", 5)
    found = oracle.find(spec)
    s = found.full.series
    curve = oracle.regret(found.full, found.reference)["edge"]
    for n, load in enumerate(found.reference.loads):
        step = 1600 + 3200 * (s.q["edge"][n] == 0) - found.reference.hindsight[load]["edge"].mean_cost
        assert curve[n] - (curve[n - 1] if n else 0.0) == pytest.approx(step / 1600)
    assert np.diff(curve).max() > 0
