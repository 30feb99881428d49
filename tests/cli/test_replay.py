"""`prbandit replay --policy`: short emulated runs, whose truth can be had."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controller.cli import cli
from tests.experiments.builders import SMALL, small


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two minutes and a half with traffic nearly all the time."""
    text = SMALL.replace("duration_s: 60.0", "duration_s: 150.0").replace(
        "mean_on_s: 20.0", "mean_on_s: 60.0"
    )
    return small(tmp_path_factory.mktemp("scenario"), text)


@pytest.fixture(scope="module")
def recorded(scenario: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ucb1") / "run"
    done = run("experiment", scenario, "--policy", "ucb1", "--seed", "4", "--run", str(folder), "--json")
    assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout)


def estimated(folder: Path, policy: str, *more: str) -> tuple[int, dict[str, Any]]:
    result = run("replay", str(folder), "--policy", policy, "--replicates", "4", "--json", *more)
    return result.exit_code, json.loads(result.stdout)


def test_the_policy_on_record_comes_to_what_is_on_record(recorded: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = recorded
    status, out = estimated(folder, "ucb1")
    (of,) = out["slices"]
    assert status == 0 and of["refused"] is None and len(out["assumptions"]) == 6
    assert of["qos_delivery_ratio"]["estimate"] == pytest.approx(truth["qos_delivery_ratio"], abs=1e-12)
    assert of["qos_delivery_ratio_busy"]["estimate"] == pytest.approx(truth["qos_delivery_ratio_busy"])
    for name, figure in (("UL PRB", "avg_ul_prb"), ("DL PRB", "avg_dl_prb"), ("GPU MHz", "avg_gpu_mhz")):
        assert of["resources"][name]["estimate"] == pytest.approx(truth[figure])
    assert of["decided_by_monotonicity"] == 1.0


def test_another_policy_comes_to_what_it_comes_to(
    recorded: tuple[Path, dict[str, Any]], scenario: str
) -> None:
    truth = json.loads(run("experiment", scenario, "--policy", "static", "--seed", "4", "--json").stdout)
    _, out = estimated(recorded[0], "static")
    (of,) = out["slices"]
    assert of["resources"]["UL PRB"]["estimate"] == truth["avg_ul_prb"]
    assert of["qos_delivery_ratio"]["low"] <= truth["qos_delivery_ratio"] <= of["qos_delivery_ratio"]["high"]
    assert of["qos_delivery_ratio"]["estimate"] > of["qos_delivery_ratio_recorded"]
    assert of["bounds"][0] <= truth["qos_delivery_ratio"] <= of["bounds"][1]


def test_a_run_at_full_resources_cannot_tell_of_a_saver(scenario: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run("experiment", scenario, "--policy", "static", "--seed", "4", "--run", str(folder))
    status, out = estimated(folder, "aimd")
    assert (
        status == 1
        and "less" in out["slices"][0]["refused"]
        and "than this run tells of" in out["slices"][0]["refused"]
    )
    text = run("replay", str(folder), "--policy", "aimd", "--replicates", "4")
    assert text.exit_code == 1 and "this run cannot tell what aimd would have done: in " in text.stdout


def test_what_a_run_cannot_tell(recorded: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = recorded
    status, out = estimated(folder, "aimd", "--last", "50")
    assert status == 1 and "at least 100 are needed" in out["slices"][0]["refused"]
    result = run("replay", str(folder), "--policy", "nobody")
    assert result.exit_code == 1 and "unknown policy 'nobody'" in str(result.exception)
    for sql, why in (
        ("UPDATE starts SET lost = 1", "1 control loops left out, their record has gaps"),
        (
            "UPDATE control_slots SET decision = replace(decision, '\"gpu_mhz\":', '\"gpu_mhz\":1')",
            "decides otherwise",
        ),
    ):
        copy = tmp_path / why[:3]
        copy.mkdir()
        with sqlite3.connect(folder / "run.sqlite") as real, sqlite3.connect(copy / "run.sqlite") as db:
            real.backup(db)
            db.execute(sql)
        status, out = estimated(copy, "aimd")
        assert status == 1 and why in out["slices"][0]["refused"]


def test_a_replay_names_the_models_that_are_not_there_any_more(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = run("experiment", "mar", "--duration", "15", "--seed", "4", "--run", str(folder))
    assert done.exit_code == 0, done.output
    done = run("replay", str(folder), "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["models_lost"] == []
    model = min((folder / "models").iterdir())
    model.unlink()
    done = run("replay", str(folder), "--json")
    out = json.loads(done.stdout)
    assert done.exit_code == 1 and out["different"] > 0
    assert out["models_lost"] == [f"model {model}: No such file or directory"]
    assert f"1 models cannot be read: model {model}" in run("replay", str(folder)).stdout
