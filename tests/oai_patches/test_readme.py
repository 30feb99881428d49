"""What oai_patches/README.md tells a user to write and to type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller import config
from controller.cli import cli
from controller.core.observation import Command
from controller.loop import ControlLoop
from tests import builders
from tests.links.test_operator import Served
from wire.definitions.nr import TDD_PATTERNS

README = (Path(__file__).parents[2] / "oai_patches" / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_configuration_for_a_first_run_is_accepted_and_lets_a_quota_be_moved(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    file = tmp_path / "first.yaml"
    file.write_text(text, encoding="utf-8")
    result = CliRunner().invoke(cli, ["check-config", str(file)])
    assert result.exit_code == 0, result.output + str(result.exception)
    loop = ControlLoop(config.parse(text).loop_spec("cell-1", 106, 30, TDD_PATTERNS["DSUUU"]))
    assert loop.step(builders.observation(0, n_flows=0)).quotas == {"ar": (106, 106)}
    command = Command("quota", {"ul": 20, "dl": 40, "for_s": 60.0}, "ar")
    loop.check(command)
    decision = loop.step(builders.observation(1, n_flows=0, commands=(command,)))
    assert decision.quotas == {"ar": (20, 40)}


def test_its_quotas_by_hand_are_typed_as_the_command_takes_them() -> None:
    lines = re.findall(r"^prbandit (quota .*)$", README, re.MULTILINE)
    assert lines
    served = Served()
    try:
        for line in lines:
            result = CliRunner().invoke(cli, [*shlex.split(line), "--operator", served.address])
            assert result.exit_code == 0, result.output
    finally:
        served.server.close(0)
    assert served.target.told == [("quota", "cell-1", "ar", 20, 40, 60.0), ("clear", "cell-1", "ar")]


@pytest.mark.parametrize("word", re.findall(r"`prbandit ([a-z-]+)[ `]", README))
def test_its_commands_are_there(word: str) -> None:
    assert CliRunner().invoke(cli, [word, "--help"]).exit_code == 0
