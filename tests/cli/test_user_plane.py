"""``prbandit user-plane``: which UE's address leads where."""

from __future__ import annotations

import json
import logging
import re

import pytest
from click.testing import CliRunner

from controller.cli import cli, user_plane


def test_an_address_leads_to_its_own_server_or_to_that_of_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agents.gnb_mock.user_plane")
    listens = ("--listen", "ue-1=127.0.0.1:0", "--listen", "ue-2=127.0.0.1:0=[::1]:5201")
    line = ["user-plane", "frames-2", *listens, "--server", "127.0.0.1:9090", "--duration", "0.1"]
    result = CliRunner().invoke(cli, [*line, "--ran", "tcp://127.0.0.1:9"])
    assert result.exit_code == 0, result.output
    told = [re.sub(r":\d+ to", " to", r.getMessage()) for r in caplog.records]
    assert "user plane of ue-1: 127.0.0.1 to 127.0.0.1:9090" in told
    assert "user plane of ue-2: 127.0.0.1 to [::1]:5201" in told


def test_what_it_has_carried_and_how_late_the_cell_was_is_told_at_the_end() -> None:
    line = ["user-plane", "frames", "--listen", "ue-1=127.0.0.1:0", "--ran", "tcp://127.0.0.1:9"]
    result = CliRunner().invoke(cli, [*line, "--duration", "0.1", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    names = {f"connections{kind}" for kind in ("", "_broken", "_refused", "_failed")}
    assert set(told) == names | {"ul_bytes", "dl_bytes", "overruns", "worst_late_ms", "resyncs"}
    said = CliRunner().invoke(cli, [*line, "--duration", "0.1"]).stdout
    assert "user plane: 0 connections, 0.0 MB up" in said and "NR slots late" in said


def test_a_cell_that_runs_late_is_told_at_powers_of_two(caplog: pytest.LogCaptureFixture) -> None:
    class Late:
        """A cell, second by second."""

        def __init__(self) -> None:
            self.overruns = iter((0, 1, 1, 5, 7, 8, 9, 10_000))
            self.now = 0

        def wait(self, timeout_s: float) -> bool:
            assert timeout_s == 1.0
            self.now = next(self.overruns, -1)
            return self.now < 0

        def stats(self) -> dict[str, float]:
            return {"overruns": self.now, "worst_late_ms": 2.5, "resyncs": 3}

    user_plane._wait(Late(), None)  # type: ignore[arg-type]
    told = [
        int(re.findall(r"late (\d+) times, at worst by 2.5 ms, and 3", r.message)[0]) for r in caplog.records
    ]
    assert told == [1, 5, 8, 10_000]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("ue-1", "is not UE=HOST:PORT"),
        ("=127.0.0.1:1", "is not UE=HOST:PORT"),
        ("ue-1=9101", "'9101' is not HOST:PORT"),
        ("ue-1=127.0.0.1:9101=", "'' is not HOST:PORT"),
        ("ue-1=127.0.0.1:9101=foo", "'foo' is not HOST:PORT"),
    ],
)
def test_an_address_that_cannot_be_is_named_with_its_option(value: str, words: str) -> None:
    result = CliRunner().invoke(cli, ["user-plane", "frames-2", "--listen", value])
    assert result.exit_code == 2 and "--listen" in result.output
    assert words in " ".join(result.output.replace("│", " ").split())


def test_a_ue_that_is_not_in_the_cell_is_named() -> None:
    line = ["user-plane", "frames", "--listen", "ue-2=127.0.0.1:0", "--duration", "0.1"]
    result = CliRunner().invoke(cli, line)
    assert result.exit_code != 0 and "ue-2" in str(result.exception)


def test_a_server_that_cannot_be_is_named_with_its_option() -> None:
    result = CliRunner().invoke(cli, ["user-plane", "frames-2", "--server", "foo"])
    assert result.exit_code == 2 and "--server" in result.output
    assert "'foo' is not HOST:PORT" in result.output
