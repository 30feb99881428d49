"""`prbandit solve vr`: files, options, the table and the JSON."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("numba", reason="the extra vr")
pytest.importorskip("highspy", reason="the extra vr")

from controller.cli import cli
from controller.experiments.vr.instances import draw


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, ["solve", "vr", *(str(a) for a in args)])


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    path = tmp_path / "instance.json"
    path.write_text(json.dumps(draw(4, 2)))
    return path


@pytest.mark.parametrize("solver", ["exact", "heuristic", "rca", "fixed"])
def test_json_of_every_solver(instance: Path, solver: str) -> None:
    result = run(instance, "--solver", solver, "--json")
    assert result.exit_code == 0, result.output
    solved = json.loads(result.stdout)
    assert solved["solver"] == solver and solved["violations"] == [] and solved["seconds"] > 0
    assert [of["user"] for of in solved["users"]] == [0, 1, 2, 3]
    assert solved["status"] in ("optimal", "feasible")
    assert (solved["bound"] is None) == (solver in ("rca", "fixed")) == (solved["gap"] is None)


def test_every_option_reaches_the_solver(instance: Path) -> None:
    options = (
        "--users",
        "2",
        "--constraints",
        "published-code",
        "--objective",
        "printed",
        "--time-limit",
        "9",
    )
    solved = json.loads(run(instance, *options, "--json").stdout)
    assert len(solved["users"]) == 2 and solved["solver"] == "exact"
    assert (solved["constraints"], solved["objective_form"]) == ("published-code", "printed")
    assert all(
        set(of["latency_ms"]) == {"transmission", "routing", "fixed", "total"} for of in solved["users"]
    )


def test_a_synthetic_instance_is_drawn(instance: Path) -> None:
    drawn = json.loads(run("--synthetic", "4,2", "--solver", "heuristic", "--json").stdout)
    read = json.loads(run(instance, "--solver", "heuristic", "--json").stdout)
    assert {**drawn, "seconds": 0} == {**read, "seconds": 0}
    other = json.loads(run("--synthetic", "4,2,7", "--solver", "heuristic", "--json").stdout)
    assert other["objective"] != drawn["objective"]


def test_the_table(instance: Path) -> None:
    data = json.loads(instance.read_text())
    data["users"][1]["objects"] = []
    instance.write_text(json.dumps(data))
    result = run(instance)
    lines = result.stdout.splitlines()
    assert lines[0].split() == [
        "user",
        "station",
        "node",
        "Hz",
        "MHz",
        "QoE",
        "ms",
        "of",
        "binding",
        "resolutions",
    ]
    assert lines[2].split()[:2] == ["1", "-"] and lines[2].endswith("there is no object to render")
    assert re.search(r"exact, constraints full, objective weighted: optimal, [\d.]+ \(bound", result.stdout)
    assert "3 of 4 users; fairness (Jain) of QoE 0." in result.stdout


def test_progress_goes_to_stderr() -> None:
    result = run("--synthetic", "10", "--progress", "--json")
    json.loads(result.stdout)
    assert re.search(r"\d\.\d s  best \d+\.\d+  bound (\d|inf)", result.stderr)


def test_not_a_number_in_a_file_is_a_named_reason(instance: Path) -> None:
    text = re.sub(r'"max_fps": \d+', '"max_fps": NaN', instance.read_text(), count=1)
    instance.write_text(text)
    result = run(instance, "--json")
    assert "NaN" not in result.stdout
    assert json.loads(result.stdout)["users"][0]["reason"].startswith("users[0].max_fps: nan")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "Expecting value"),
        ("[1]", "an object is needed, not list"),
        ("{}", "base_stations: a list is needed, not NoneType"),
        ("[" * 100_000, "recursion"),
        ('{"a": 1' + "0" * 5000 + "}", "digits"),
        ("\udcff", "utf-8"),
    ],
)
def test_a_file_that_is_no_instance(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    result = run(path)
    assert result.exit_code == 1 and named in result.output and "broken.json" in result.output
    assert not isinstance(result.exception, (ValueError, RecursionError))


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), "one of INSTANCE and --synthetic is needed"),
        (("nowhere.json",), "does not exist"),
        (("--synthetic", "4", "--solver", "best"), "solver: 'best' is none of exact, heuristic, rca, fixed"),
        (("--synthetic", "4", "--users", "5"), "users: 5 is not from 1 to the instance's 4"),
        (("--synthetic", "4", "--users", "0"), "--users"),
        (("--synthetic", "4", "--time-limit", "nan"), "--time-limit"),
        (("--synthetic", "0"), "is not USERS[,STATIONS[,SEED]]"),
        (("--synthetic", "4,4,4,4"), "is not USERS[,STATIONS[,SEED]]"),
        (("--synthetic", "many"), "is not USERS[,STATIONS[,SEED]]"),
    ],
)
def test_options_that_cannot_be(args: tuple[str, ...], named: str) -> None:
    result = run(*args)
    assert result.exit_code in (1, 2) and named in " ".join(result.output.split()), result.output


@pytest.mark.parametrize("package", ["numba", "highspy"])
def test_a_missing_extra_is_one_sentence(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("controller.allocators.vr")]:
        monkeypatch.delitem(sys.modules, name)
    absent: Any = None
    monkeypatch.setitem(sys.modules, package, absent)
    result = run("--synthetic", "3")
    assert result.exit_code == 1
    assert result.output == f"Error: the package {package} is missing: .venv/bin/pip install -e '.[vr]'\n"
