"""Lines of the log that repeat are thinned, and none is lost without a count."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controller import config
from controller.cli.logs import BURST, EVERY_S, FORMAT_VARIABLE, KINDS, JsonLines, Thinned
from controller.cli.ports import free_ports
from controller.journal import Event, Journal
from wire.version import full_version

ROOT = Path(__file__).resolve().parents[2]


class Log:
    """A log on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        self.handler = Thinned(clock=lambda: self.now)
        self.handler.setStream(self.stream)
        self.logger = logging.Logger("x")
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def counted(lines: list[str]) -> int:
    """How many complaints the lines speak of."""
    return len(lines) + sum(int(m[1]) for line in lines if (m := re.search(r"\((\d+) more of this", line)))


def test_a_complaint_that_repeats_is_written_seldom_with_a_count_of_the_rest() -> None:
    log = Log()
    for i in range(98):  # in 26 s
        log.now = i * 26 / 98
        log.logger.warning("cell %s: %.1f s late, going on from here", "c", i / 7)
    log.handler.close()
    assert len(log.lines) == BURST + 3 and counted(log.lines) == 98
    assert log.lines[:2] == [
        "cell c: 0.0 s late, going on from here",
        "cell c: 0.1 s late, going on from here",
    ]
    assert log.lines[-1].startswith("cell c: 13.9 s late")  # the last one that came


def test_what_has_ceased_is_told_with_the_next_line_and_passes_again_after_a_while() -> None:
    log = Log()
    for _ in range(10):
        log.logger.warning("no answer")
    assert log.lines == ["no answer"] * BURST
    log.now = EVERY_S
    log.logger.info("something else")
    assert log.lines[BURST:] == [f"no answer ({10 - BURST - 1} more of this kind left out)", "something else"]
    log.now = 3 * EVERY_S
    log.logger.warning("no answer")
    assert log.lines[-1] == "no answer"


def test_lines_of_different_names_levels_and_loggers_are_of_different_kinds() -> None:
    log = Log()
    for i in range(20):
        log.logger.info("user plane of ue-%d: 127.0.0.1:91%02d to 127.0.0.1:9099", i, i)
        log.logger.info("gpu GPU-%d: opened", i)
    assert len(log.lines) == 40
    for _ in range(BURST):
        log.logger.info("the same")
        log.logger.error("the same")
    assert len(log.lines) == 40 + 2 * BURST


def test_tracebacks_repeat_no_more_than_their_line_and_debugging_is_whole() -> None:
    log = Log()
    for _ in range(20):
        try:
            raise KeyError("a")
        except KeyError:
            log.logger.exception("a step failed")
        log.logger.debug("details")
    assert log.stream.getvalue().count("Traceback") == BURST
    assert log.lines.count("details") == 20


def test_of_many_kinds_the_oldest_are_told_and_forgotten() -> None:
    log = Log()
    for _ in range(BURST + 2):
        log.logger.warning("first")
    for i in range(KINDS):
        log.logger.warning("kind-%d", i)
    assert "first (1 more of this kind left out)" in log.lines
    assert len(log.handler._kinds) <= KINDS


@pytest.mark.parametrize("repeats", [1, 200])
def test_a_process_of_ours_thins_its_log(repeats: int) -> None:
    code = (
        "import logging, sys; from controller.cli.logs import log_to_stderr; log_to_stderr(False)\n"
        f"for i in range({repeats}): logging.getLogger('a.b').warning('server at h:1: frame %d refused', i)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert counted(lines) == repeats and len(lines) == min(repeats, BURST + 1), lines
    assert all(re.match(r"\d{4}-.* WARNING a\.b: server at h:1: frame \d+ refused", line) for line in lines)


# ---- JSON ------------------------------------------------------------------------------------------------


def json_log() -> Log:
    log = Log()
    log.handler.setFormatter(JsonLines())
    return log


def objects(lines: list[str]) -> list[dict[str, Any]]:
    """The lines, each of which must be one JSON object."""
    found = [
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in lines
    ]
    assert all(isinstance(line, dict) for line in found)
    return found


def test_a_line_of_json_has_its_time_level_and_fields_whatever_they_are() -> None:
    log = json_log()
    log.logger.warning("two\nlines of %s", "ü", extra={"cell": "c", "level": "mine", "far": math.inf})
    log.logger.info("%d frames", "no number")
    first, second = objects(log.lines)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "WARNING",
        "logger": "x",
        "message": "two\nlines of ü",
        "cell": "c",
        "far": "inf",
    }
    assert "no number" in second["message"] and second["level"] == "INFO"


def test_the_time_is_utc_with_milliseconds() -> None:
    record = logging.makeLogRecord({"created": 1_796_042_587.25, "msg": "m", "levelname": "INFO"})
    assert json.loads(JsonLines().format(record))["time"] == "2026-11-30T12:43:07.250Z"


def test_an_exception_is_a_field_of_its_line() -> None:
    log = json_log()
    try:
        raise KeyError("a")
    except KeyError:
        log.logger.exception("a step failed")
    (line,) = objects(log.lines)
    assert line["message"] == "a step failed"
    assert line["exception"].startswith("Traceback") and line["exception"].endswith("KeyError: 'a'")


def test_lines_of_json_are_thinned_like_text_and_count_what_was_left_out() -> None:
    log = json_log()
    for i in range(20):
        log.logger.warning("frame %d refused", i, extra={"cell": "c"})
    log.handler.close()
    lines = objects(log.lines)
    assert len(lines) == BURST + 1
    assert lines[-1]["omitted"] == 20 - BURST - 1 and lines[-1]["cell"] == "c"
    assert counted(log.lines) == 20


def test_an_event_of_a_cell_has_cell_and_kind_as_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    log = json_log()
    monkeypatch.setattr("controller.journal.log", log.logger)
    Journal().event("cell-1", Event.CELL_LOST, "silent for 2 s")
    (line,) = objects(log.lines)
    assert (line["cell"], line["event"], line["level"]) == ("cell-1", "cell_lost", "WARNING")


def edge_agent(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "controller.cli", "edge-agent", "--address", "127.0.0.1:0", *arguments]
    env = {**os.environ, **(environment or {})}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def test_a_daemon_tells_in_json_that_it_begins_and_why_it_ends() -> None:
    process = edge_agent(environment={FORMAT_VARIABLE: "json"})
    assert process.stderr is not None
    begun = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    lines = objects([begun, *process.communicate(timeout=120)[1].splitlines()])
    assert process.returncode == 0
    assert lines[0]["version"] == full_version() and lines[0]["backend"] == "emulated"
    told = [line["message"] for line in lines]
    assert "SIGTERM: stopping" in told and told[-1].startswith("edge-agent ends: stopped; uptime 0:0")
    assert lines[-1]["why"] == "stopped"


def test_a_time_that_is_over_is_why_a_daemon_ends() -> None:
    told = edge_agent("--duration", "0.1").communicate(timeout=120)[1]
    assert re.search(r" INFO .* edge-agent ends: --duration 0\.1 s is over; uptime 0:00:\d\d", told)


def test_what_ends_a_daemon_at_its_start_is_a_line_of_json_too() -> None:
    process = edge_agent("--log-format", "json", "--keys", "/nowhere")
    (line,) = objects(process.communicate(timeout=120)[1].splitlines())
    assert process.returncode == 1
    assert line["level"] == "ERROR" and "there is no folder /nowhere" in line["message"]


def test_what_kills_a_thread_or_the_process_is_a_line_of_json() -> None:
    code = (
        "import threading; from controller.cli.logs import log_to_stderr; log_to_stderr(False, 'json')\n"
        "t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()\n"
        "raise RuntimeError('the end')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    thread, process = objects(done.stderr.splitlines())
    assert "ZeroDivisionError" in thread["message"] and "Traceback" in thread["exception"]
    assert process["message"] == "RuntimeError: the end" and process["level"] == "CRITICAL"


def test_a_controller_says_under_what_it_runs_where_it_listens_and_what_came_of_it(tmp_path: Path) -> None:
    file, run = tmp_path / "config.yaml", tmp_path / "run"
    ports = free_ports(5)
    ran, qos, operator, metrics, page = (f"127.0.0.1:{port}" for port in ports)
    file.write_text(
        f"control: {{seed: 7}}\n"
        f"links: {{ran: {{address: 'tcp://{ran}'}}, qos: {{address: '{qos}'}}, edge: {{address: null}},\n"
        f"  operator: {{address: '{operator}'}}, metrics: {{address: '{metrics}'}},\n"
        f"  page: {{address: '{page}'}}}}\n"
    )
    options = ("--run", "run", "--duration", "1")
    command = [sys.executable, "-m", "controller.cli", "controller", file.name, *options]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    begins, ends = done.stderr.splitlines()[0], done.stderr.splitlines()[-1]
    digest = config.load(file).digest
    about = f"configuration {file.resolve()}, hash {digest}, run {run.resolve()}, seed 7"
    assert begins.endswith(f"controller {full_version()} begins: {about}")
    where = f"gNBs on tcp://{ran}, hosts on {qos}, operators on {operator}, Prometheus on {metrics}"
    where += f", browsers on {page}"
    assert f"listening for {where}\n" in done.stderr
    assert "cell cell-1: its gNB is not connected" in done.stderr
    totals = r"control slots 0, recorded 0, lost 0, events \d+"
    assert re.search(rf"controller ends: --duration 1 s is over; uptime 0:00:\d\d, {totals}$", ends)
