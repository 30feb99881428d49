from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from controller.cli.options import AMOUNT, SECONDS


@click.command()
@click.option("--time", type=SECONDS)
@click.option("--rate", type=AMOUNT)
def command(time: float | None, rate: float | None) -> None:
    click.echo(f"{time} {rate}")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1", "1e300", "soon"])
def test_what_is_no_time_is_refused_by_the_option_s_name(value: str) -> None:
    result = CliRunner().invoke(command, [f"--time={value}"])
    assert result.exit_code == 2 and "'--time'" in result.output


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_what_is_no_amount_is_refused_by_the_option_s_name(value: str) -> None:
    result = CliRunner().invoke(command, [f"--rate={value}"])
    assert result.exit_code == 2 and "'--rate'" in result.output


def test_numbers_are_taken() -> None:
    assert CliRunner().invoke(command, ["--time", "0.5", "--rate", "0"]).output == "0.5 0.0\n"
