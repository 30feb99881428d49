"""`prbandit misses` on runs of the emulated cell, against what full resources would have missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controller.cli import cli


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = run(
        *("experiment", "mucb1-1", "--policy", "aimd", "--seed", "4", "--duration", "700"),
        *("--schedule", "always", "--run", str(folder)),
    )
    assert done.exit_code == 0, done.output
    return folder


def test_hiccups_are_what_full_resources_would_have_missed_too(emulated: Path) -> None:
    result = run("misses", str(emulated), "--truth", "--json")
    assert result.exit_code == 0, result.output
    out: dict[str, Any] = json.loads(result.output)
    (of,) = out["cells"]["cell-1"].values()
    truth = out["truth"]
    assert of["missed"] == len(of["missed_slots"]) == sum(c["slots"] for c in of["causes"].values())
    # Both kinds are there, and told apart: 88 to 96 % of them in whole hours.
    too = sum(c["missed_at_full"] for c in truth["causes"].values())
    assert too >= 3 and of["missed"] - too >= 10
    assert truth["causes"]["hiccup"]["missed_at_full"] >= 0.7 * too
    assert truth["agree"] > 0.85


def test_the_table_and_the_chart(emulated: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the chart needs the extra 'report'")
    chart = tmp_path / "chart.svg"
    result = run("misses", str(emulated), "--chart", str(chart))
    assert result.exit_code == 0, result.output
    first, *rows = result.output.splitlines()
    assert first.startswith("cell cell-1  slice ar: ") and "hiccup" in rows[0]
    assert rows[-1] == str(chart) and "<svg" in chart.read_text()


def test_the_report_has_them(emulated: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the report needs the extra 'report'")
    result = run("report", str(emulated), "--out", str(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    own = json.loads(run("misses", str(emulated), "--json").output)["cells"]["cell-1"]["ar"]
    own.pop("missed_slots")
    assert json.loads(result.output)["summary"]["misses"]["cells"]["cell-1"]["ar"] == own
    page = (tmp_path / "report.html").read_text()
    assert "missed control slots by cause" in page and "Missed control slots by cause" in page
    for cause, n in own["causes"].items():
        assert f'<td class="text">{cause}</td><td>{n["slots"]}</td>' in page


TWO = """
cells:
  - id: cell-1
    slices:
      - {id: a, ues: [ue-1], policy: static}
      - {id: b, ues: [ue-2], policy: static}
emulation: {duration_s: 30.0, flows: 2, ues: 2, schedule: always}
"""


def test_a_comparison_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    file, folder = tmp_path / "two.yaml", tmp_path / "run"
    file.write_text(TWO)
    assert run("experiment", str(file), "--run", str(folder)).exit_code == 0
    assert set(json.loads(run("misses", str(folder), "--json").output)["cells"]["cell-1"]) == {"a", "b"}
    refused = run("misses", str(folder), "--truth")
    assert refused.exit_code == 1 and "--truth is for a run with one slice" in refused.output


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    result = run("misses", str(tmp_path))
    assert result.exit_code == 1 and "no run record there" in str(result.exception)
