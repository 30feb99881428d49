"""What ``watch`` shows, at every width and whatever the names in it, and its lines where nobody looks on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from controller import allocators
from controller.cli import cli
from controller.cli.health import measured, three
from controller.cli.view import Watched
from controller.core.names import printable
from controller.core.observation import DirectionColumns, MacReport
from controller.links.follower import Decided, Lost
from controller.links.health import Heard
from controller.links.operator import CellStatus, OperatorClient
from tests.cli.test_explain import decided, of_service
from tests.cli.test_operate import cell_of
from tests.links.test_follower import Restarted
from tests.links.test_operator import Served, until

_WORD = re.compile(r"[\w/.:%()#'=+-]*[A-Za-z][\w/.:%()#'=+-]*")


def watched(*cells: CellStatus, records: list[dict[str, Any]] | None = None) -> Watched:
    """A view of what an operator API tells of these cells."""
    served = Served()
    served.target.cells = list(cells)
    with OperatorClient(served.address) as client:
        view = Watched("127.0.0.1:1")
        view.state = client.state()
    served.server.close(0)
    for record in [c.last for c in cells] if records is None else records:
        assert record is not None
        view.add(Decided(dict(record)))
    return view


def shown(view: Watched, width: int) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as said:
        console.print(view)
    return said.get()


def ues(n: int, name: str = "ue-{}") -> MacReport:
    columns = DirectionColumns((20,) * n, (1,) * n, (1,) * n, (123456,) * n, (0.1,) * n)
    return MacReport(1, tuple(name.format(i) for i in range(n)), ("ar",) * n, columns, columns)


@pytest.mark.parametrize("name", allocators.names())
def test_no_word_is_cut_however_narrow_the_terminal(name: str) -> None:
    options = allocators.service(name).unit_test_options[0]
    records = of_service(name, options, 6)
    one = watched(replace(cell_of(records[-1]), report=ues(3)), records=records)
    other = {**records[-1], "cell": "cell-2"}
    two = watched(
        replace(cell_of(records[-1]), report=ues(3)),
        replace(cell_of(other), cell_id="cell-2"),
        records=[*records, other],
    )
    for view in (one, two):
        whole = set(_WORD.findall(shown(view, 400)))
        assert {"healthy", *records[-1]["slices"]} <= whole
        for width in (40, 60, 80, 100, 132):
            said = shown(view, width)
            assert max(map(len, said.splitlines())) <= width, said
            assert "…" not in said
            cut = [word for word in _WORD.findall(said) if word not in whole]
            assert not cut, f"{width} columns cut {cut}:\n{said}"
            assert all(
                choice["lever"] in said
                for choice in records[-1]["slices"][name]["choices"]
                if not choice.get("user")
            )


@pytest.mark.parametrize("width", [40, 60, 80])
def test_of_several_slices_each_row_says_whose_it_is(width: int) -> None:
    last = list(decided(3))[-1]
    last = {**last, "slices": {"ar": last["slices"]["ar"], "ar-2": last["slices"]["ar"]}}
    lines = shown(watched(replace(cell_of(last), last=last)), width).splitlines()
    (row, other) = (n for n, line in enumerate(lines) if re.search(r"\bul\b.* PRB", line))
    for n, name in ((row, "ar"), (other, "ar-2")):
        assert re.search(rf"\b{name} +│", lines[n]) or f"slice {name}" in map(str.strip, lines[:n])
    assert lines.count("slice ar-2") == (width < 70)


def test_figures_have_three_digits_and_no_exponent() -> None:
    """As on the page."""
    measure = {"unit": "ms", "users": {"a": (1789.6, 100.0)}, "better": "lower"}
    assert measured(measure) == "1790 of 100 ms"
    assert [three(v) for v in (0.6667, 45.04, 1.5e6, 0.0, 150.0)] == ["0.667", "45", "1500000", "0", "150"]


def test_what_is_wrong_stands_first_and_what_was_missed_beside_it() -> None:
    last = list(decided(3))[-1]
    view = watched(replace(cell_of(last), edge_connected=False))
    view.add(Decided({**last, "control_slot": 9}, missed=5))
    lines = shown(view, 200).splitlines()
    assert lines[0].endswith(": degraded") and "! cell cell-1: the edge agent is not connected" in lines[1]
    assert "cell-1: 5 decisions not seen before control slot 9" in lines[2]
    assert "control slot 9" in lines[3]
    view.lost = Lost(0.0, "nobody answers")
    said = shown(view, 200)
    assert said.startswith("controller not reachable since ") and ", trying again: nobody answers" in said
    assert "degraded" not in said and "control slot 9" in said, "what it told last stands"


def test_before_the_first_decision_there_is_a_view_too() -> None:
    said = shown(watched(CellStatus("cell-1"), records=[]), 80)
    assert "degraded" in said and "waiting for the first decision" in said and "nan" not in said


def test_of_many_ues_the_first_are_shown_and_the_rest_counted() -> None:
    last = list(decided(3))[-1]
    said = shown(watched(replace(cell_of(last), report=ues(100))), 100)
    assert "ue-7 " in said and "ue-8" not in said and "92 more UEs" in said
    assert "1 more UE\n" in re.sub(" +\n", "\n", shown(watched(replace(cell_of(last), report=ues(9))), 100))


EVIL = "ue\x1b[2J\x07[red]x[/red]\u202e\n{}"


def test_names_from_outside_are_shown_and_not_obeyed() -> None:
    last = list(decided(3))[-1]
    cell = replace(cell_of(last), report=ues(2, EVIL), hosts=[Heard(EVIL.format("host"), 0.1)])
    for said in (shown(watched(cell), 300), shown(watched(cell), 40)):
        assert not set("\x1b\x07\u202e") & set(said)
        assert "[red]x[/red]" in said, "no markup of ours either"
    served = Served()
    served.target.cells = [cell]
    lines = CliRunner().invoke(cli, ["status", "--operator", served.address])
    served.server.close(0)
    assert lines.exit_code == 0 and r"ue\x1b[2J\x07[red]x[/red]\u202e\n0" in lines.output
    assert printable("ue-1, größer") == "ue-1, größer"


# ---- lines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
def test_lines_go_on_after_a_restart_and_say_what_was_missed(as_json: bool) -> None:
    controller = Restarted()
    controller.last(1)
    command = ["watch", "--count", "3", "--operator", controller.address, *(["--json"] if as_json else [])]
    watching = subprocess.Popen(
        [sys.executable, "-m", "controller.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = threading.Timer(60, watching.kill)
    limit.start()
    try:
        assert watching.stdout is not None
        until(lambda: len(controller.broadcaster) or watching.poll() is not None)
        controller.decide(2)
        first = watching.stdout.readline()  # at once, and not when a buffer is full
        controller.stop()
        controller.last(7)
        controller.start()
        # It says so once it has read the state, in which control slot 7 is the last.
        notes, note = watching.stderr if as_json else watching.stdout, ""
        while "reachable again" not in note and (line := notes.readline()):
            note += line
        controller.decide(8)
        # Not by communicate, which knows nothing of what the streams have read ahead.
        rest, err = watching.stdout.read(), watching.stderr.read()
        watching.wait()
    finally:
        limit.cancel()
        watching.kill()
        controller.stop()
    out, err = (first + rest, note + err) if as_json else (first + note + rest, err)
    assert watching.returncode == 0, err
    beside = err if as_json else out
    assert "controller not reachable since" in beside and "reachable again" in beside
    assert "cell-1: 4 decisions not seen" in beside
    if as_json:
        assert [json.loads(line)["control_slot"] for line in out.splitlines()] == [2, 7, 8]
    else:
        slots = [line.split()[1] for line in out.splitlines() if line.startswith("cell-1 #")]
        assert slots == ["#2", "#7", "#8"]
