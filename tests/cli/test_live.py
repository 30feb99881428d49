"""What operators hold in their hands, against one real controller with keys, through a kill and a restart."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.console import CommandRefused, Controller, OperatorError, attach
from tests.e2e.harness import Testbed, until
from tests.e2e.test_live import CONFIG
from tests.terminal import Terminal
from wire import keys

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    pytest.importorskip("cryptography", reason="keys need the extra 'keys'")
    folder = tmp_path_factory.mktemp("live")
    keys.create(folder / "keys", cells=["cell-1"], days=2)
    bed = Testbed(folder, CONFIG, folder / "keys")
    try:
        bed.start_all()
        bed.wait_for_slot(3, 300.0)
        yield bed
    finally:
        for name in bed.processes:
            print(f"---- {name}\n{bed.log(name)}")
        bed.close()


@pytest.fixture(scope="module")
def at(bed: Testbed) -> tuple[str, ...]:
    return "--operator", bed.operator_address, "--keys", str(bed.keys)


@contextmanager
def attached(bed: Testbed) -> Iterator[Controller]:
    with attach(bed.operator_address, bed.keys) as controller:
        yield controller


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "controller.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def line_of(terminal: Terminal, word: str) -> str:
    return next((line for line in terminal.screen.splitlines() if word in line), "")


def slot_shown(terminal: Terminal) -> int:
    words = line_of(terminal, "cell cell-1 ").split()
    return int(words[words.index("slot") + 1]) if "slot" in words else -1


# ---- the console -----------------------------------------------------------------------------------------


def test_attributes_read_the_controller_and_assignments_command_it(bed: Testbed) -> None:
    with attached(bed) as controller:
        cell = controller.cells["cell-1"]
        ar = cell.slices["ar"]
        ar.policy = "ucb1"
        until(lambda: ar.policy == "ucb1", "the policy in a decision")
        assert {c["method"] for c in bed.cell()["last"]["slices"]["ar"]["choices"]} == {"ucb1"}
        ar.dl.policy = "aimd"
        until(lambda: ar.dl.policy == "aimd", "the policy of one hop")
        assert (ar.ul.policy, ar.edge.policy) == ("ucb1", "ucb1"), "the others go on"
        ar.budgets = (80, 25, 50)
        until(lambda: ar.ul.budget == 80.0, "the budgets in a judgement")
        cell.mode = "shadow"
        until(lambda: bed.cell()["mode"] == cell.mode == "shadow", "the mode")
        cell.mode = "active"
        until(lambda: bed.cell()["mode"] == cell.mode == "active", "the mode")
        assert ar.quota(ul=20, for_s=30) == "UL 20 PRB for 30 s, slice ar; then its policy goes on"
        until(lambda: ar.ul.action == 20, "the quota by hand")
        ar.clear_quota()
        ar.options["metric"] = "p90"
        until(lambda: ar.options["metric"] == "p90", "the option")
        assert "checkpoint of 1 cell(s)" in controller.checkpoint()
        assert controller.reload().startswith("reloaded")
        assert cell.connected and cell.ues["ue_id"].tolist() == ["ue-1"] and cell.ues["ul_mcs"][0] >= 0
        for refused, said in (
            (lambda: setattr(ar, "policy", "ucb"), "unknown policy 'ucb', did you mean 'ucb1'?"),
            (lambda: setattr(cell, "mode", "on"), "unknown mode 'on'"),
            (lambda: ar.options.update(nosuch=1), "nosuch"),
        ):
            with pytest.raises(CommandRefused) as refusal:
                refused()
            assert said in str(refusal.value) and refusal.value.__cause__ is None
        with pytest.raises(KeyError, match="no cell 'cell-9', did you mean 'cell-1'"):
            controller.cells["cell-9"]
        with pytest.raises(KeyError, match="slices: ar"):
            cell.slices["vr"]
        for shown in (controller, cell, ar, ar.ul, cell.ues, ar.options):
            assert "object at" not in repr(shown)


def test_decisions_are_arrays_beside_what_came_of_them(bed: Testbed, tmp_path: Path) -> None:
    with attached(bed) as controller:
        cell = controller.cells["cell-1"]
        until(
            lambda: "ul" in cell.decisions and np.isfinite(cell.decisions["ul"].delay).sum() >= 3,
            "decisions with what came of them",
        )
        decisions = cell.decisions
        ul = decisions["ul"]
        assert set(decisions) == {"ul", "edge", "dl", "round_trip"}
        assert (np.diff(decisions.control_slot) == 1).all(), "none is missed, none is there twice"
        recorded = {slot: bed_record(bed, slot) for slot in decisions.control_slot.tolist()[:3]}
        for i, (slot, record) in enumerate(recorded.items()):
            (choice,) = [c for c in record["slices"]["ar"]["choices"] if c["lever"] == "ul"]
            assert (ul.action[i], ul.why[i]) == (choice["action"], choice["why"])
            came = bed_record(bed, slot + 1)["slices"]["ar"]["closed"]["measures"]["ul"]["users"]
            worst = max((value for value, _ in came.values()), default=np.nan)
            np.testing.assert_equal(ul.delay[i], worst)
        assert np.isnan(ul.delay[-1]), "nobody knows yet what comes of the latest"
        pytest.importorskip("matplotlib")
        path = cell.plot(tmp_path / "decisions.svg")
        assert "<svg" in path.read_text()


def bed_record(bed: Testbed, slot: int) -> dict[str, Any]:
    """A decision record of the run, as soon as it is there."""
    from controller.store.run import RunStore

    def find() -> Any:
        with RunStore.open(bed.run_dir) as store:
            return [record for _, record in store.decided("cell-1", slot)]

    found: list[dict[str, Any]] = until(find, f"control slot {slot} in the record")
    return found[-1]


def test_a_script_finds_the_controller_and_its_mistakes_are_its_own(
    bed: Testbed, at: tuple[str, ...], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("cell = controller.cells['cell-1']\nprint(cell.name, list(cell.slices))\n")
    done = run("console", *at, "--script", str(script))
    assert (done.returncode, done.stdout) == (0, "cell-1 ['ar']\n"), done.stderr
    script.write_text("controller.cells['cell-1'].mode = 'nosuch'\n")
    done = run("console", *at, "--script", str(script))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("prbandit: unknown mode 'nosuch'")
    script.write_text("1 / 0\n")
    done = run("console", *at, "--script", str(script))
    assert done.returncode == 1 and "script.py" in done.stderr and "ZeroDivisionError" in done.stderr


def test_the_prompt_completes_keys_and_attributes_and_says_refusals(
    bed: Testbed, at: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ptpython", reason="the console needs the extra 'console'")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with Terminal("console", *at, columns=120) as terminal:
        seen = 0

        def shows(*wanted: str) -> Callable[[], bool]:
            return lambda: all(word in terminal.text[seen:] for word in wanted)

        def type_(text: str, what: str, *wanted: str) -> None:
            nonlocal seen
            seen = len(terminal.text)
            terminal.send(text)
            until(shows(*wanted), what)

        until(shows(">>>"), "a prompt")
        type_('controller.cells["\t', "the cell's name as a completion", "'cell-1']")
        type_(".sli\t", "an attribute as a completion", "ces")
        type_('["ar"].ul\r', "the hop as a table", "policy", "budget", "PRB")
        type_("controller.cells['cell-1'].mode = 'nosuch'\r", "a refusal", "unknown mode 'nosuch'; modes: ")
        type_(
            "controller.cells['cell-9']\r", "a name that is none", "no cell 'cell-9', did you mean 'cell-1'?"
        )
        assert "Traceback" not in terminal.text and "grpc" not in terminal.text
        terminal.send("\x04")
        assert terminal.wait() == 0


# ---- explain and completion ------------------------------------------------------------------------------


def test_the_latest_decision_is_explained_and_each_of_the_run(bed: Testbed, at: tuple[str, ...]) -> None:
    live = run("explain", "cell-1", "ar", *at)
    assert live.returncode == 0 and "ul: " in live.stdout and "candidates" in live.stdout, live.stderr
    slot = bed.cell()["last"]["control_slot"] - 1
    until(lambda: bed_record(bed, slot), "the record")
    kept = json.loads(run("explain", "--run", str(bed.run_dir), "--slot", str(slot), "--json").stdout)
    assert kept["decisions"][0]["control_slot"] == slot
    old = run("explain", "--slot", "1", *at)
    assert old.returncode == 2 and str(bed.run_dir) in old.stderr


COMPLETE = """
prbandit() { "$PYTHON" -m controller.cli "$@"; }
eval "$(prbandit completion bash)"
# The generated function runs its first argument as a program of its own.
mkdir -p bin && printf '#!/bin/sh\\nexec "%s" -m controller.cli "$@"\\n' "$PYTHON" > bin/prbandit
chmod +x bin/prbandit
complete_line() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _prbandit_completion bin/prbandit
  echo "${COMPREPLY[*]}"; }
complete -p prbandit > /dev/null || echo not bound
"""


def test_a_real_bash_completes_commands_values_and_the_controllers_cells(
    bed: Testbed, at: tuple[str, ...], tmp_path: Path
) -> None:
    lines = {
        ("expl",): "explain",
        ("mode", ""): "active shadow frozen released",
        ("policy", "m"): "mucb1 monotone_threshold",
        ("experiment", "stu"): "study",
        ("controller", "mar"): "mar mar-longdress",
        ("explain", *at, "cell-1", ""): "ar",
        ("mode", "active", *at, "--cell", ""): "cell-1",
        ("explain", "--operator", "127.0.0.1:1", ""): "",
    }
    calls = "".join(f"complete_line prbandit {shlex.join(words)}\n" for words in lines)
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", "-c", COMPLETE + calls],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert dict(zip(lines, done.stdout.splitlines(), strict=True)) == lines, done.stderr
    assert not done.stderr, "a shell that completes shows no errors"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0 and "_PRBANDIT_COMPLETE" in done.stdout


# ---- a restart under watch and console: the last, as it takes the controller away -------------------------


def test_watch_and_console_meet_a_killed_controller_again(bed: Testbed, at: tuple[str, ...]) -> None:
    lines = subprocess.Popen(
        [sys.executable, "-m", "controller.cli", "watch", "--json", *at],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with attached(bed) as controller, Terminal("watch", *at, columns=100, rows=40) as watched:
        cell = controller.cells["cell-1"]
        until(lambda: slot_shown(watched) >= 0 and len(cell.decisions.control_slot) > 1, "a view of it")
        words = ("healthy", "round trip", "lease of the quotas", "ue-1")
        until(lambda: all(word in watched.screen for word in words), "health, table, links and UEs")
        watched.resize(40, 60)
        until(
            lambda: "lever" in watched.screen and max(map(len, watched.screen.splitlines())) <= 40,
            "40 columns",
        )
        watched.resize(100, 40)

        bed.kill("controller")
        until(lambda: "controller not reachable since" in watched.screen, "word that it is gone")
        before = slot_shown(watched)
        assert before > 0, "what was known stands"
        until(lambda: controller.lost, "the console knows it")
        with pytest.raises(OperatorError, match="no controller answers"):
            cell.mode = "active"

        bed.start("controller")
        until(lambda: "healthy" in watched.screen and slot_shown(watched) > before, "the view goes on")
        assert "not reachable" not in watched.screen
        until(lambda: not controller.lost and cell.decisions.control_slot[-1] > before, "the console goes on")
        slots = cell.decisions.control_slot
        assert (np.diff(slots) >= 1).all(), "each control slot once, in order"
        cell.mode = "active"
        shown = slot_shown(watched)
        assert shown <= bed.cell()["last"]["control_slot"]

        watched.send("\x03")
        assert watched.wait() == 130
        assert "Traceback" not in watched.text
        assert "\x1b[?1049l" in watched.raw and "\x1b[?25h" in watched.raw, "the terminal is as it was"
    lines.send_signal(2)
    out, err = lines.communicate(timeout=60)
    assert lines.returncode == 130 and "Traceback" not in err
    decided = [json.loads(line)["control_slot"] for line in out.splitlines()]
    assert decided == sorted(set(decided)) and decided[0] <= before < decided[-1]
    assert "controller not reachable since" in err and "is reachable again" in err
