from __future__ import annotations

import json
import re
import resource
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from controller.cli import cli
from tests import launch


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_every_command_loads_and_has_help() -> None:
    with cli.make_context("prbandit", [], resilient_parsing=True) as ctx:
        names = cli.list_commands(ctx)
        for name in names:
            command = cli.get_command(ctx, name)
            assert command is not None and command.help, name
    assert {
        "up",
        "controller",
        "gnb-mock",
        "edge-agent",
        "experiment",
        "replay",
        "report",
        "check-config",
    } <= set(names)


def test_experiment_prints_one_json_object_with_the_paper_s_figures() -> None:
    result = run("experiment", "mucb1-1", "--policy", "mucb1", "--seed", "4", "--duration", "100", "--json")
    assert result.exit_code == 0, result.output
    out = json.loads(result.output)
    for key in (
        "qos_delivery_ratio",
        "qos_delivery_ratio_busy",
        "avg_ul_prb",
        "avg_dl_prb",
        "avg_gpu_mhz",
        "bs_power_saving",
        "ue_power_saving",
        "control_slots",
        "simulated_s",
        "wall_s",
    ):
        assert key in out
    assert out["control_slots"] == 20 and out["simulated_s"] == 100


def test_an_unknown_policy_is_named() -> None:
    result = run("experiment", "mucb1-1", "--policy", "nosuch")
    assert result.exit_code != 0 and "unknown policy 'nosuch'" in str(result.exception)


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        (("flows: 1", "flows: 1, fows: 3"), (), r"c\.yaml:2: emulation\.fows: unknown key"),
        (("[10, 90]", "[10, 110]"), (), r"c\.yaml:1: cells.*ul_prb 110 is above 106"),
        (("flows: 1", "flows: -1"), (), r"c\.yaml:2: emulation\.flows"),
        ((), ("--duration", "61"), r"c\.yaml: 61 s are more than the scenario's 60 s .*its flows end there"),
    ],
)
def test_a_scenario_that_cannot_be_run_is_refused_with_its_file(
    tmp_path: Path, change: tuple[str, str], options: tuple[str, ...], match: str
) -> None:
    text = (
        "cells: [{id: c, slices: [{id: ar, actions: {ul_prb: [10, 90], dl_prb: [5], gpu_mhz: [500]}}]}]\n"
        "emulation: {duration_s: 60.0, flows: 1, schedule: always}\n"
    )
    file = tmp_path / "c.yaml"
    file.write_text(text.replace(*change) if change else text)
    result = run("experiment", str(file), *options, "--run", str(tmp_path / "run"))
    assert result.exit_code == 1 and re.search(match, str(result.exception)), result.exception
    assert not (tmp_path / "run").exists()


def test_experiment_record_replay_and_report(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = run("experiment", "demo", "--seed", "1", "--duration", "30", "--run", str(folder), "--json")
    assert done.exit_code == 0, done.output
    replayed = run("replay", str(folder), "--json")
    assert replayed.exit_code == 0, replayed.output
    assert json.loads(replayed.output) == {
        "compared": 61,
        "different": 0,
        "first_difference": None,
        "incomplete_starts": 0,
        "models_lost": [],
    }
    reported = json.loads(run("report", str(folder), "--out", str(tmp_path / "out"), "--json").output)
    assert Path(reported["report"]) == tmp_path / "out" / "report.html"
    assert not (folder / "report.html").exists()
    page = Path(reported["report"]).read_text()
    assert "<svg" in page and "cell-1" in page
    of_report = reported["summary"]["cells"]["cell-1"]["slices"]["ar"]["qos_delivery_ratio"]
    assert of_report == pytest.approx(json.loads(done.output)["qos_delivery_ratio"])


def test_replay_tells_where_a_decision_differs(tmp_path: Path) -> None:
    import sqlite3

    folder = tmp_path / "run"
    run("experiment", "demo", "--seed", "1", "--duration", "10", "--run", str(folder))
    with sqlite3.connect(folder / "run.sqlite") as db:
        (text,) = db.execute("SELECT decision FROM control_slots WHERE control_slot = 7").fetchone()
        record = json.loads(text)
        record["gpu_mhz"] += 100
        db.execute("UPDATE control_slots SET decision = ? WHERE control_slot = 7", (json.dumps(record),))
    result = run("replay", str(folder), "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["first_difference"] == "cell cell-1, control slot 7"


def test_check_config_names_every_mistake(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("control: {control_slot: 5}\n")
    result = run("check-config", str(file))
    assert result.exit_code != 0 and f"{file}:1: control.control_slot: unknown key" in str(result.exception)
    assert json.loads(run("check-config", "mucb1-1", "--json").output)["ok"] is True


def test_keys_are_written_once(tmp_path: Path) -> None:
    first = json.loads(run("keys", str(tmp_path), "--cell", "cell-1", "--json").output)["written"]
    assert any(name.endswith("controller.crt") for name in first)
    assert json.loads(run("keys", str(tmp_path), "--cell", "cell-1", "--json").output)["written"] == []


def test_no_controller_is_an_error_and_not_a_traceback() -> None:
    result = run("reload", "--operator", "127.0.0.1:1")
    assert isinstance(result.exception, ConnectionError) and "no controller answers" in str(result.exception)


def test_a_controller_beyond_loopback_without_keys_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("links: {ran: {address: 'tcp://0.0.0.0:5555'}}\n")
    result = run("controller", str(file), "--no-record")
    assert result.exit_code != 0
    assert "links.ran.address" in str(result.exception) and "security.keys" in str(result.exception)


TWO_SLICES = """
cells:
  - id: cell-1
    slices:
      - {id: a, ues: [ue-1], policy: static}
      - {id: b, ues: [ue-2], policy: mucb1, actions: {ul_prb: [20], dl_prb: [10], gpu_mhz: [700]}}
emulation: {duration_s: 30.0, flows: 3, ues: 3, schedule: always}
"""


def test_experiment_prints_every_slice(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(TWO_SLICES)
    out = json.loads(run("experiment", str(file), "--json").stdout)
    assert [(s["cell"], s["slice"], s["policy"]) for s in out["slices"]] == [
        ("cell-1", "a", "static"),
        ("cell-1", "b", "mucb1"),
    ]
    assert out["slices"][1]["avg_ul_prb"] == 20.0 and "qos_delivery_ratio" not in out
    text = run("experiment", str(file)).stdout
    assert text.count("QoS delivery ratio") == 2 and "slice a" in text and "slice b" in text


TWO_CELLS = """
cells:
  - {id: near, slices: [{id: ar, ues: [ue-1], policy: mucb1}]}
  - {id: far, slices: [{id: ar, ues: [ue-1], policy: static}]}
emulation: {duration_s: 30.0, flows: 1, schedule: always}
"""


def test_experiment_prints_every_cell_and_replays_it(tmp_path: Path) -> None:
    file, folder = tmp_path / "two.yaml", tmp_path / "run"
    file.write_text(TWO_CELLS)
    out = json.loads(run("experiment", str(file), "--run", str(folder), "--json").stdout)
    assert [(s["cell"], s["slice"], s["policy"]) for s in out["slices"]] == [
        ("near", "ar", "mucb1"),
        ("far", "ar", "static"),
    ]
    replayed = json.loads(run("replay", str(folder), "--json").stdout)
    assert (replayed["compared"], replayed["different"]) == (2 * (out["control_slots"] + 1), 0)


def test_a_cell_that_the_scenario_does_not_have_is_named(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(TWO_CELLS)
    result = run("gnb-mock", str(file), "--cell", "middle")
    assert result.exit_code != 0
    assert "unknown cell 'middle'; cells: near, far" in str(result.exception)


@pytest.mark.parametrize(
    "command", [["controller", "demo", "--no-record"], ["edge-agent", "--address", "127.0.0.1:0"]]
)
def test_a_server_may_open_as_many_files_as_the_system_lets_it(command: list[str]) -> None:
    arguments = launch.python(["-m", "controller.cli", *command], {"RLIMIT_NOFILE": (256, 1000)})
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 30.0
            while (limits := resource.prlimit(process.pid, resource.RLIMIT_NOFILE)) != (1000, 1000):
                assert process.poll() is None and time.monotonic() < end, limits
                time.sleep(0.01)
        finally:
            process.kill()


@pytest.mark.parametrize("command", [["controller", "demo", "--no-record"], ["edge-agent"]])
def test_a_limit_under_which_no_thread_can_be_had_is_named_at_once(command: list[str]) -> None:
    arguments = launch.python(["-m", "controller.cli", *command], {"RLIMIT_AS": (500 << 20, 500 << 20)})
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "the address space is limited to 500 MiB (ulimit -v), 1024 MiB are needed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_qos_target_is_the_default_policys_and_no_other_ones(tmp_path: Path) -> None:
    short = ("--duration", "30", "--json")
    out = json.loads(run("experiment", "mucb1-1", "--qos-target", "0.9", *short).stdout)
    assert out["policy"] == "headroom"
    result = run("experiment", "mucb1-1", "--policy", "mucb1", "--qos-target", "0.9", *short)
    assert result.exit_code != 0 and "policy mucb1 has no option 'qos_target'" in str(result.exception)
    assert run("experiment", "mucb1-1", "--qos-target", "1.0", *short).exit_code == 2
