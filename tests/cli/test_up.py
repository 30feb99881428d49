"""``prbandit up`` that does not come to its end, with the processes that it starts."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from controller import config
from controller.cli import children, cli, up
from controller.cli.ports import claim_port, free_port
from controller.cli.view import View
from controller.core.observation import Command
from controller.links import operator
from controller.loop import ControlLoop
from controller.store.summary import Summary
from tests import builders
from tests.e2e.harness import parent_of, until

SUMMARY = {
    "connections": 3,
    "connections_broken": 1,
    "connections_refused": 0,
    "connections_failed": 0,
    "ul_bytes": 2_500_000,
    "dl_bytes": 700_000,
    "overruns": 12,
    "worst_late_ms": 7.5,
    "resyncs": 0,
}


def named(pid: int, name: str) -> bool:
    return name in Path(f"/proc/{pid}/cmdline").read_text().split("\0")


@contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """``up`` that has decided twice, and the ids of its processes."""
    command = [sys.executable, "-m", "controller.cli", "up", "--run", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    ours: list[int] = []
    try:
        assert process.stdout is not None
        for line in iter(process.stdout.readline, ""):
            if line.startswith("cell-1 #2"):
                break
        every = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
        ours += [pid for pid in every if parent_of(pid) == process.pid]
        assert len(ours) == 3
        yield process, ours
        until(lambda: not any(map(parent_of, ours)), f"the end of the processes {ours}")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_its_processes_do_not_outlive_it(tmp_path: Path, number: int) -> None:
    with running(tmp_path / "run") as (process, _):
        process.send_signal(number)
        said, _ = process.communicate()
    hung_up = number == signal.SIGHUP
    assert process.returncode == (0 if hung_up else -number), said
    assert (tmp_path / "run" / "report.html").exists() is hung_up


def test_what_was_recorded_before_a_process_died_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with running(folder) as (process, ours):
        os.kill(next(pid for pid in ours if named(pid, "gnb-mock")), signal.SIGKILL)
        said, _ = process.communicate()
    assert process.returncode == 1
    summary, _, error = said.partition("prbandit: gnb-mock ended with -9")
    assert "Summary" in summary and "report: " in summary and error, said
    assert (folder / "report.html").is_file()
    assert json.loads((folder / "summary.json").read_text())["cells"]["cell-1"]


# ---- without its processes ------------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started, and the signals of the tests stay as they are."""
    monkeypatch.setattr(children, "interrupt_on_signals", lambda: None)
    monkeypatch.setattr(up, "_process", lambda *_: nullcontext())


def watch(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def end(*_: object) -> None:
        raise error

    monkeypatch.setattr(up, "_watch", end)


@pytest.mark.usefixtures("alone")
def test_stopped_before_the_first_control_slot_there_is_nothing_to_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(monkeypatch, KeyboardInterrupt())
    result = CliRunner().invoke(cli, ["up", "--run", str(tmp_path / "run")])
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "no control slot is over yet: nothing to report; logs: " in said
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.usefixtures("alone")
def test_an_error_before_the_first_control_slot_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(monkeypatch, OSError("controller ended with 1"))
    result = CliRunner().invoke(cli, ["up", "--run", str(tmp_path / "run")])
    assert result.exit_code == 1 and str(result.exception) == "controller ended with 1"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("as_json", [True, False])
def test_with_frames_it_tells_what_the_user_plane_has_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    from controller.store import report, run

    folder = tmp_path / "run"
    (folder / "logs").mkdir(parents=True)
    (folder / run.DATABASE_FILE).touch()
    (folder / "logs" / "user-plane.log").write_text(f"begin\n{json.dumps(SUMMARY)}\nover\n")
    summary = {"cells": {"cell-1": {"slices": {}}}}
    monkeypatch.setattr(report, "build", lambda at, **_: (Path(at) / "report.html", summary))
    watch(monkeypatch, KeyboardInterrupt())
    for name in ("video", "style"):
        (tmp_path / name).touch()
    line = ["up", "--frames", "--video", str(tmp_path / "video"), "--style", str(tmp_path / "style")]
    result = CliRunner().invoke(cli, [*line, "--run", str(folder), *(["--json"] if as_json else [])])
    assert result.exit_code == 0, result.output + str(result.exception)
    if as_json:
        assert json.loads(result.stdout)["user_plane"] == SUMMARY
    else:
        assert (
            "user plane: 3 connections, 2.5 MB up, 0.7 MB down; 1 broken, 0 refused, 0 failed"
            in result.stdout
        )
        assert "late 12 times, at worst by 7.5 ms" in result.stdout


# ---- what it shows ---------------------------------------------------------------------------------------


def state(**slots: int) -> dict[str, Any]:
    """Cells at a control slot each; at 0 there is no decision yet."""
    cells: list[dict[str, Any]] = []
    for cell, slot in slots.items():
        loop = ControlLoop(builders.loop_spec(cell=cell))
        last = loop.step(builders.observation(slot - 1)).to_record() if slot else None
        cells.append({"cell_id": cell, "active_flows": 1, "last": last})
    return {"control_slot_s": 0.5, "cells": cells}


def shown(of: dict[str, Any], width: int = 200, view: View | None = None) -> str:
    view = view or View()
    for cell in of["cells"]:
        if cell["last"] is not None:
            view.add(cell["last"])
    console = Console(width=width)
    with console.capture() as said:
        console.print(view.render(of, 9.0, width))
    return said.get()


def test_the_view_has_every_cell_in_one_table() -> None:
    lines = shown(state(a=3, b=7, c=0)).splitlines()
    assert "cell a  control slot 3" in lines[0] and "9 s left" in lines[0]
    assert "cell b  control slot 7" in lines[1] and "left" not in lines[1]
    assert lines[2].strip() == "cell c  waiting for the first decision ..."
    table = [[part.strip() for part in line.split("│")[1:3]] for line in lines if line.startswith("│")]
    assert table and table == [[cell, "ar"] for cell in "ab" for _ in range(len(table) // 2)]
    assert sum(" cell " in line and " slice " in line for line in lines) == 1


def test_the_view_of_one_cell_has_no_column_for_it() -> None:
    said = shown(state(a=3))
    assert "cell a  control slot 3" in said and said.count("cell") == 1
    assert "waiting for the first decision" in shown(state(a=0, b=0))


def test_the_decisions_of_all_cells_are_printed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [state(a=0, b=1), state(a=1, b=1), state(a=1, b=2)]

    class Client:
        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None: ...

        def state(self) -> dict[str, Any]:
            if not states:
                raise KeyboardInterrupt
            return states.pop(0)

    monkeypatch.setattr(operator, "OperatorClient", Client)
    console = Console(width=200, force_terminal=False)
    with console.capture() as said, pytest.raises(KeyboardInterrupt):
        up._watch(console, {}, tmp_path, "", None)
    lines = [" ".join(line.split()[:2]) for line in said.get().splitlines()]
    assert lines == ["b #1", "a #1", "b #2"]


def test_the_summary_names_every_policy_that_played() -> None:
    loop = ControlLoop(builders.loop_spec())
    records = []
    for n in range(6):
        change = {"policy": "static", "policy_options": {}}
        commands = (Command("options", change, "ar"),) if n == 3 else ()
        records.append(loop.step(builders.observation(n, commands=commands)).to_record())
    summary = Summary()
    for record in records:
        summary.add(record)
    console = Console(width=200)
    with console.capture() as said:
        console.print(up.summary_table(summary.result(), 200))
    assert "mucb1, static" in said.get()


def test_real_applications_are_of_one_cell() -> None:
    cells = "cells: [{id: a, slices: [{id: ar}]}, {id: b, slices: [{id: ar}]}]\n"
    text = cells + "emulation: {duration_s: 60.0, schedule: always}\n"
    with pytest.raises(ValueError, match=r"--frames: real applications go through one cell.*several: a, b"):
        up._real_applications(config.parse(text), "up.yaml", 1, [1] * 6, "v", "s", 5.0, "160x80")


@pytest.mark.parametrize("width", [40, 60, 80, 110, 200])
def test_the_view_fits_and_keeps_the_newest_of_the_history(width: int) -> None:
    view = View()
    loop = ControlLoop(builders.loop_spec())
    for slot in range(60):  # down to the least, and one that is far above it
        last = loop.step(builders.observation(slot)).to_record()
        if slot < 59:
            view.add(last)
    commands = (Command("quota", {"ul": 106, "dl": None, "for_s": 9.0}, "ar"),)
    last = loop.step(builders.observation(60, commands=commands)).to_record()
    said = shown(
        {"control_slot_s": 0.5, "cells": [{"cell_id": "cell-1", "active_flows": 1, "last": last}]},
        width,
        view,
    )
    assert max(map(len, said.splitlines())) <= width
    head = " ".join(said.split())
    assert "(0.5 s each)" in head and "9 s left" in head
    ul, trip = (next(line for line in said.splitlines() if what in f" {line}") for what in (" ul", "round"))
    assert "20 of 70 ms" in ul and "44 of 150 ms" in trip, said
    assert "█" in ul.rstrip(" │\n")[-1:], said
    assert "106 PRB" in ul, "what is in force, not what the policy wished"
    assert ("set by hand" in ul) is (width > 80)


@pytest.mark.parametrize("width", [80, 120])
def test_the_summary_is_readable_at_80_columns(width: int) -> None:
    of = {
        "policies": ["headroom"],
        "control_slots": 1234,
        "qos_delivery_ratio": 0.98,
        "qos_delivery_ratio_busy": 1.0,
        **dict.fromkeys(("avg_ul_prb", "avg_dl_prb", "avg_gpu_mhz"), 1000.0),
        **dict.fromkeys(("bs_power_saving", "ue_power_saving"), 0.5),
    }
    console = Console(width=width)
    with console.capture() as said:
        console.print(up.summary_table({"cells": {"cell-1": {"slices": {"ar": of}}}}, width))
    (row,) = [line for line in said.get().splitlines() if "cell-1" in line]
    assert all(part in row for part in ("headroom", "1234", "98.0%", "100.0%", "1000.0", "50.0%")), said.get()


def operators(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[str, str]:
    """What ``up`` says, and the operator's address in its configuration; it starts nothing."""
    watch(monkeypatch, KeyboardInterrupt())
    result = CliRunner().invoke(cli, ["up", "--run", str(folder)])
    return result.output, config.load(folder / "up.yaml").links.operator.address or ""


@pytest.mark.usefixtures("alone")
def test_the_operators_port_is_the_usual_one_where_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setattr(up, "OPERATOR_ADDRESS", f"127.0.0.1:{port}")
    folder = tmp_path / ("[red]" + "long" * 40)
    said, address = operators(monkeypatch, folder)
    assert address == f"127.0.0.1:{port}" and "prbandit status, watch, quota" in said
    assert f"record and logs: {folder}\n" in said, "whole, and no style"
    assert re.search(r"^metrics: http://127.0.0.1:\d+/metrics$", said, re.MULTILINE)
    page = config.load(folder / "up.yaml").links.page.address
    assert f"page: http://{page}/\n" in said
    claim = claim_port(port)
    assert claim is not None, "it was given back"
    with claim:
        said, address = operators(monkeypatch, tmp_path / "second")  # another is about to listen
    assert address != f"127.0.0.1:{port}" and f"prbandit status --operator {address}\n" in said
    with socket.create_server(("127.0.0.1", port)):
        _, address = operators(monkeypatch, tmp_path / "third")
    assert address != f"127.0.0.1:{port}"
