"""The operator's commands of the command line, against an operator API of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from click.testing import CliRunner, Result

from controller.cli import cli
from tests.links.test_operator import Served


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.server.close(0)


def options(served: Served, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["options", *arguments, "--operator", served.address])


def test_options_go_out_as_one_mapping(served: Served) -> None:
    changes = ["metric=p90", "queue=false", "text='1 = 2'", "actions={ul_prb: [10, 20]}", "nothing=", "on=1"]
    result = options(served, "--cell", "cell-1", "--slice", "ar", *changes)
    assert result.exit_code == 0, result.output
    ((what, cell, name, text),) = served.target.told
    assert (what, cell, name) == ("options", "cell-1", "ar")
    assert yaml.safe_load(text) == {
        "metric": "p90",
        "queue": False,
        "text": "1 = 2",
        "actions": {"ul_prb": [10, 20]},
        "nothing": None,
        "on": 1,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "KEY=VALUE"),
        (["metric"], "metric: KEY=VALUE is needed"),
        (["=p90"], "=p90: KEY=VALUE is needed"),
        (["metric=p90", "metric=mean"], "metric: given twice"),
        (["actions={ul_prb: [1], ul_prb: [2]}"], "actions: key 'ul_prb' twice"),
        (["actions={ul_prb: ["], "actions: "),
    ],
)
def test_what_is_no_option_is_refused_by_name_and_nothing_goes_out(
    served: Served, changes: list[str], message: str
) -> None:
    result = options(served, *changes)
    assert result.exit_code == 2 and message in result.output
    assert not served.target.told


def test_what_the_controller_refuses_is_told(served: Served) -> None:
    result = options(served, "--cell", "nosuch", "metric=p90")
    assert result.exit_code == 1 and "unknown cell 'nosuch'" in str(result.exception)
