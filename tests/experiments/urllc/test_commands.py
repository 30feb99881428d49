"""`prbandit solve urllc`: files, options, the table and the JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

pytest.importorskip("numba", reason="the extra urllc")

from controller.allocators import urllc
from controller.cli import cli
from controller.experiments.urllc.drops import Drop, draw

TASK = "bits: 1, cycles: 1"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, ["solve", "urllc", *(str(a) for a in args)])


def written(path: Path, devices: int = 4, **more: Any) -> Path:
    path.write_text(json.dumps({**draw(1, Drop(devices=devices)), "cache_bits": 12e3, **more}))
    return path


def changed(path: Path, device: int = 0, **more: Any) -> Path:
    data = draw(1, Drop(devices=4))
    data["devices"][device] |= more
    path.write_text(json.dumps({**data, "cache_bits": 12e3}))
    return path


def solved(*args: str | Path) -> dict[str, Any]:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output

    def no(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    loaded: dict[str, Any] = json.loads(result.stdout, parse_constant=no)
    return loaded


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    return written(tmp_path / "instance.json")


@pytest.mark.parametrize("method", ["joint", "algorithm-1", "algorithm-1-cvxpy"])
def test_json_of_every_method(instance: Path, method: str) -> None:
    if method.endswith("cvxpy"):
        pytest.importorskip("cvxpy", reason="the extra urllc")
    of = solved(instance, "--method", method)
    assert of["method"] == method and of["status"] == "converged" and of["violations"] == of["late"] == []
    assert of["seconds"] > 0.0 and of["bound_ms"] is of["gap"] is None
    assert of["history_ms"] == sorted(of["history_ms"], reverse=True)
    assert of["objective_ms"] == pytest.approx(of["history_ms"][-1])
    assert of["objective_ms"] == pytest.approx(sum(d["latency_ms"]["total"] for d in of["devices"]))
    assert [d["id"] for d in of["devices"]] == ["ue-1", "ue-2", "ue-3", "ue-4"]
    assert sum(d["cached"] for d in of["devices"]) == 1
    for d in of["devices"]:
        assert set(d) == {
            *("id", "cached", "local_share", "bandwidth", "power_w", "f_ue_hz", "f_es_hz", "latency_ms"),
            *("energy_mj", "rate_bps"),
        }


def test_a_bound_is_proven(instance: Path) -> None:
    of = solved(instance, "--bound")
    assert 0.0 < of["bound_ms"] <= of["objective_ms"]
    assert of["gap"] == pytest.approx(1.0 - of["bound_ms"] / of["objective_ms"]) and of["gap"] < 0.01


def test_the_table(instance: Path) -> None:
    lines = run(instance, "--bound").stdout.splitlines()
    assert lines[0].split()[:4] == ["device", "cached", "alpha", "band"]
    assert [line.split()[0] for line in lines[1:5]] == ["ue-1", "ue-2", "ue-3", "ue-4"]
    assert lines[6].startswith("joint: converged, ") and "with V = 1" in lines[6]
    assert lines[7].startswith("no less than ") and lines[7].endswith("%")


def test_yaml_with_defaults(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text("devices:\n  - {bits: 1e4, cycles: 2e5, channel_gain: 6.1e-9}\n" * 1)
    of = solved(path)
    assert of["status"] == "converged" and of["devices"][0]["id"] == "ue-1"


@pytest.mark.parametrize(
    ("more", "binding"),
    [
        ({"deadline_ms": 1e-3}, "deadline"),
        ({"energy_mj": 1e-8}, "energy"),
        ({"channel_gain": 0.0}, "channel"),
    ],
)
def test_an_infeasible_instance_names_devices_and_what_binds(
    tmp_path: Path, more: dict[str, float], binding: str
) -> None:
    # No cache: two devices at fault with it would leave one.
    path = changed(tmp_path / "i.json", 2, **more)
    path.write_text(json.dumps({**json.loads(path.read_text()), "cache_bits": 0}))
    of = solved(path, "--bound")
    assert of["status"] == "infeasible"
    assert [(late["device"], late["binding"]) for late in of["late"]] == [("ue-3", binding)]
    by = of["late"][0]["by_ms"]
    assert (by is None) == (binding == "channel") and (by is None or by > 0.0)
    text = run(path).stdout
    assert f"for {binding}" in text and "infeasible" in text


def test_a_channel_of_nothing_is_cached(tmp_path: Path) -> None:
    of = solved(changed(tmp_path / "i.json", 2, channel_gain=0.0))
    assert of["status"] == "converged" and [d["cached"] for d in of["devices"]] == [False, False, True, False]


def test_a_cache_below_one_task_holds_none(tmp_path: Path) -> None:
    of = solved(written(tmp_path / "i.json", cache_bits=1e4))
    assert of["status"] == "converged" and not any(d["cached"] for d in of["devices"])


def test_one_device(tmp_path: Path) -> None:
    for bits in (0, 60e3):
        of = solved(written(tmp_path / "i.json", 1, cache_bits=bits))
        assert of["status"] == "converged" and of["devices"][0]["cached"] == bool(bits)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: [1\nb: 2\n", "instance.yaml:2: expected ',' or ']'"),
        ("a: 1\na: 2\n", "instance.yaml:2: key 'a' twice"),
        ("- 1\n", "instance.yaml: an instance is a mapping, not list"),
        ("", "instance.yaml: an instance is a mapping, not NoneType"),
        ("a: &x [1]\nb: *x\n", "instance.yaml: an alias is not taken here"),
        ("a: " + "[" * 1000, "instance.yaml"),
        ("a: 2024-13-45\n", "instance.yaml: month must be in 1..12"),
        ("\udcff", "instance.yaml: cannot be read"),
        ("speed: 1\n", "instance.yaml: speed: no key of an instance"),
        ("devices: []\n", "instance.yaml: devices: not a list with an entry at least"),
        ("min_rate_bps: -5\ndevices: [1]\n", "min_rate_bps: -5 is negative"),
        ("devices: [{bits: 1}]\n", "devices[0]: cycles, channel_gain missing"),
        ("devices: [{bits: one, cycles: 1, channel_gain: 1}]\n", "devices[0].bits: 'one' is no number"),
        (f"devices: [{{{TASK}, channel_gain: .nan}}]\n", "devices[0].channel_gain: nan is not finite"),
        (f"devices: [{{{TASK}, channel_gain: -1.0}}]\n", "devices[0].channel_gain: -1.0 is negative"),
        (f"devices: [{{{TASK}, channel_gain: 1, ue_hz: -1}}]\n", "devices[0].ue_hz: -1 is negative"),
        (f"devices: [{{{TASK}, channel_gain: 1, colour: 3}}]\n", "devices[0].colour: no key of a device"),
    ],
)
def test_a_file_that_is_no_instance(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "instance.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    result = run(path)
    assert result.exit_code == 1 and named in result.output, result.output
    assert result.output.count("\n") == 1 and result.output.startswith("Error: ")


def test_json_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    for text, named in (('{\n"a": }', "i.json:2: Expecting value"), ('{"a": 1, "a": 2}', "key 'a' twice")):
        path.write_text(text)
        assert named in run(path).output
    path.write_text('{"devices": [{"bits": NaN, "cycles": 1, "channel_gain": 1}]}')
    assert "devices[0].bits: nan is not finite" in run(path).output


def test_generate_writes_the_drop_of_a_seed(tmp_path: Path) -> None:
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for path in (a, b):
        assert run("--generate", "--seed", "3", "--devices", "2", path).exit_code == 0
    assert a.read_bytes() == b.read_bytes()
    assert a.read_text().startswith("# prbandit solve urllc --generate: seed 3, devices 2, cycles_per byte, ")
    assert yaml.safe_load(a.read_text()) == draw(3, Drop(devices=2))
    assert run("--generate", "--seed", "4", b, "--force").exit_code == 0
    assert a.read_bytes() != b.read_bytes()
    assert solved(a)["status"] == "converged"


def test_generate_leaves_a_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("mine")
    result = run("--generate", path)
    assert result.exit_code == 1 and "is there already; --force" in result.output
    assert path.read_text() == "mine"


def test_every_option_of_generate_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    options = ("--cycles-per", "bit", "--side-m", "50", "--min-distance-m", "10", "--antennas", "2")
    options += ("--antenna-gain", "mean", "--interval-ms", "0.5", "--min-rate-bps", "2e6")
    options += ("--transmitted", "offloaded", "--devices", "3")
    assert run("--generate", path, *options).exit_code == 0
    drop = Drop(3, "bit", 50.0, 10.0, 2, "mean")
    changed = {"interval_ms": 0.5, "min_rate_bps": 2e6, "transmitted": "offloaded"}
    assert json.loads(path.read_text()) == {**draw(0, drop), **changed}


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), "Missing argument 'FILE'"),
        (("nowhere.yaml",), "nowhere.yaml: cannot be read"),
        (("nowhere.yaml", "--method", "best"), "'best' is none of joint, algorithm-1, algorithm-1-cvxpy"),
        (("nowhere.yaml", "--seed", "1"), "--seed goes with --generate"),
        (("nowhere.yaml", "--force"), "--force goes with --generate"),
        (("nowhere.yaml", "--generate", "--bound"), "do not go with --generate"),
        (("nowhere.yaml", "--generate", "--seed", "-1"), "--seed"),
        (("nowhere.yaml", "--generate", "--devices", "0"), "devices: 0 is not from 1 to 1024"),
        (("nowhere.yaml", "--generate", "--cycles-per", "word"), "cycles_per: 'word' is none of byte, bit"),
        (
            ("nowhere.yaml", "--generate", "--transmitted", "all"),
            "transmitted: 'all' is none of whole, offloaded",
        ),
        (("nowhere.yaml", "--generate", "--interval-ms", "nan"), "--interval-ms"),
        (("nowhere/a.yaml", "--generate"), "nowhere/a.yaml: cannot be written"),
    ],
)
def test_options_that_cannot_be(args: tuple[str, ...], named: str) -> None:
    result = run(*args)
    assert result.exit_code in (1, 2) and named in " ".join(result.output.split()), result.output
    assert not Path("nowhere.yaml").exists()


def test_a_missing_extra_is_one_sentence(instance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("controller.allocators.urllc")]:
        monkeypatch.delitem(sys.modules, name)
    absent: Any = None
    monkeypatch.setitem(sys.modules, "numba", absent)
    result = run(instance)
    assert result.exit_code == 1
    assert result.output == "Error: the package numba is missing: .venv/bin/pip install -e '.[urllc]'\n"


def test_cvxpy_is_needed_by_its_method_alone(instance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "controller.allocators.urllc.convex", raising=False)
    monkeypatch.delattr(urllc, "convex", raising=False)
    absent: Any = None
    monkeypatch.setitem(sys.modules, "cvxpy", absent)
    assert solved(instance)["status"] == "converged"
    result = run(instance, "--method", "algorithm-1-cvxpy")
    assert result.output == "Error: the package cvxpy is missing: .venv/bin/pip install -e '.[urllc]'\n"


@pytest.mark.parametrize("method", ["joint", "algorithm-1"])
def test_histories_never_rise_and_all_is_json_on_instances_of_any_kind(tmp_path: Path, method: str) -> None:
    """Most of them infeasible: deadlines, energy, channels and edge over many orders of magnitude."""
    rng = np.random.default_rng(11)
    statuses = set()
    for k in range(40):
        path = written(
            tmp_path / f"{k}.json", int(rng.integers(1, 6)), cache_bits=float(rng.choice([0, 2e4]))
        )
        data = json.loads(path.read_text())
        data |= {
            "edge_hz": 10.0 ** rng.uniform(6, 11),
            "transmitted": str(rng.choice(["whole", "offloaded"])),
        }
        data["min_rate_bps"] = float(rng.choice([0.0, 1e6, 1e8]))
        for row in data["devices"]:
            row["channel_gain"] *= float(rng.choice([0.0, 1.0, 10.0 ** rng.uniform(-7, 2)]))
            row["deadline_ms"] = 10.0 ** rng.uniform(-2, 2)
            row["energy_mj"] = 10.0 ** rng.uniform(-4, 2)
            row["edge_deviation"] = float(rng.uniform(-0.5, 0.5))
        path.write_text(json.dumps(data))
        result = run(path, "--method", method, "--json")
        if "no division of the band" in result.output:
            continue
        assert result.exit_code == 0, result.output
        of = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(name))
        assert of["history_ms"] == sorted(of["history_ms"], reverse=True)
        assert (of["status"] == "infeasible") == bool(of["late"] or of["violations"])
        statuses.add(of["status"])
    assert {"infeasible", "converged"} <= statuses
