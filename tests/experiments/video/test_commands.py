"""`prbandit solve video`: files, options, the table and the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("numba", reason="the extra video")
pytest.importorskip("scipy", reason="the extra video")

from controller.cli import cli
from controller.experiments.video.instances import generate


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, ["solve", "video", *(str(a) for a in args)])


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    path = tmp_path / "instance.json"
    path.write_text(json.dumps(generate(1, 6)))
    return path


@pytest.mark.parametrize("method", ["convex", "grouped", "round-robin"])
def test_every_method_as_json_and_as_a_table(instance: Path, method: str) -> None:
    out = run(instance, "--method", method, "--json")
    assert out.exit_code == 0, out.output
    of = json.loads(out.stdout)
    assert of["method"] == method and len(of["users"]) == 6
    assert of["kept"] + len(of["impossible"]) <= 6
    table = run(instance, "--method", method)
    assert table.exit_code == 0 and f"{method}: {of['kept']} of 6 agreements kept" in table.output


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_an_instance_is_generated_and_solved(tmp_path: Path, name: str) -> None:
    out = run(tmp_path / name, "--generate", "--seed", "4", "--users", "5")
    assert out.exit_code == 0, out.output
    assert run(tmp_path / name).exit_code == 0
    again = run(tmp_path / name, "--generate")
    assert again.exit_code == 1 and "--force" in again.output
    assert run(tmp_path / name, "--generate", "--force").exit_code == 0


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--seed", "1"), "--seed goes with --generate"),
        (("--users", "3"), "--users goes with --generate"),
        (("--force",), "--force goes with --generate"),
        (("--method", "best"), "'best' is none of convex, grouped, round-robin"),
        (("--method", "convex", "--generate"), "--method does not go with --generate"),
    ],
)
def test_options_that_do_not_go_together(instance: Path, args: tuple[str, ...], text: str) -> None:
    out = run(instance, *args)
    assert out.exit_code == 2 and text in out.output


def changed(path: Path, edit: Any) -> Path:
    data = generate(1, 3)
    edit(data)
    path.write_text(json.dumps(data))
    return path


def _user(**more: Any) -> Any:
    return lambda data: data["users"][1].update(more)


def _model(**more: Any) -> Any:
    return lambda data: data["users"][1]["model"].update(more)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (_user(ela=5.5), "users[1].ela: 5.5 is outside 1..5"),
        (_user(ela="high"), "users[1].ela: 'high' is no number"),
        (_user(cell="cell-9"), "users[1].cell: 'cell-9' is none of"),
        (_user(id="user-1"), "users[1].id: 'user-1' twice"),
        (_user(environment=2.5), "users[1].environment: 2.5 is outside 1..2"),
        (_user(colour=1), "users[1]: no key 'colour'"),
        (_user(model=3), "users[1].model: 3 is no mapping"),
        (_model(s=[1.0]), "users[1].model: "),
        (_model(s="abc"), "users[1].model.s: 'abc' is no list"),
        (_model(qos=["taste"]), "users[1].model: "),
        (_model(deviation=0.0), "users[1].model.deviation: 0.0 is outside"),
        (_model(i=[0.1, True]), "users[1].model.i[1]: True is no number"),
        (lambda data: data.update(users=[]), "users: a list of at least one"),
        (lambda data: data.update(cells={}), "cells: {} is no mapping"),
        (lambda data: data["cells"].update({"cell-1": -1}), "cells.cell-1: -1 is outside"),
        (lambda data: data.update(edge_gcycles=float("inf")), "edge_gcycles"),
        (lambda data: data["users"][1].pop("ela"), "users[1]: no ela"),
    ],
)
def test_an_instance_that_is_none(tmp_path: Path, edit: Any, text: str) -> None:
    out = run(changed(tmp_path / "instance.json", edit))
    assert out.exit_code == 1 and text in out.output and "Traceback" not in out.output


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    out = run(tmp_path / "nothing.yaml")
    assert out.exit_code == 1 and "cannot be read" in out.output
