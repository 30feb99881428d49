"""Lines of the log that repeat are thinned, and none is lost without a count."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys

import pytest

from controller.cli.logs import BURST, EVERY_S, KINDS, Thinned


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
        "import logging, sys; from controller.cli.processes import log_to_stderr; log_to_stderr(False)\n"
        f"for i in range({repeats}): logging.getLogger('a.b').warning('server at h:1: frame %d refused', i)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert counted(lines) == repeats and len(lines) == min(repeats, BURST + 1), lines
    assert all(re.match(r"\d{4}-.* WARNING a\.b: server at h:1: frame \d+ refused", line) for line in lines)
