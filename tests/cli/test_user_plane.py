"""``prbandit user-plane``: which UE's address leads where."""

from __future__ import annotations

import logging
import re

import pytest
from click.testing import CliRunner

from controller.cli import cli


def test_an_address_leads_to_its_own_server_or_to_that_of_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agents.gnb_mock.user_plane")
    listens = ("--listen", "ue-1=127.0.0.1:0", "--listen", "ue-2=127.0.0.1:0=[::1]:5201")
    line = ["user-plane", "frames-2", *listens, "--server", "127.0.0.1:9090", "--duration", "0.1"]
    result = CliRunner().invoke(cli, [*line, "--ran", "tcp://127.0.0.1:9"])
    assert result.exit_code == 0, result.output
    told = [re.sub(r":\d+ to", " to", r.getMessage()) for r in caplog.records]
    assert "user plane of ue-1: 127.0.0.1 to 127.0.0.1:9090" in told
    assert "user plane of ue-2: 127.0.0.1 to [::1]:5201" in told


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
