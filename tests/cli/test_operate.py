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


# ---- quotas by hand ------------------------------------------------------------------------------------


def quota(served: Served, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["quota", *arguments, "--operator", served.address])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--ul", "20", "--dl", "30", "--for", "60s"], ("quota", "cell-1", "ar", 20, 30, 60.0)),
        (["--ul", "20", "--for", "5m"], ("quota", "cell-1", "ar", 20, None, 300.0)),
        (["--dl", "0", "--for", "1.5h"], ("quota", "cell-1", "ar", None, 0, 5400.0)),
        (["--dl", "7", "--for", "90"], ("quota", "cell-1", "ar", None, 7, 90.0)),
        (["--dl", "-7", "--for", "-5s"], ("quota", "cell-1", "ar", None, -7, -5.0)),
        (["--clear"], ("clear", "cell-1", "ar")),
    ],
)
def test_a_quota_goes_out_as_it_was_typed(
    served: Served, arguments: list[str], told: tuple[object, ...]
) -> None:
    result = quota(served, "cell-1", "ar", *arguments)
    assert result.exit_code == 0, result.output
    assert served.target.told == [told]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--ul, --dl or both are needed"),
        (["--for", "60s"], "--ul, --dl or both are needed"),
        (["--ul", "20"], "--for is needed"),
        (["--clear", "--ul", "20"], "--clear goes without"),
        *(
            (["--ul", "20", "--for", bad], "is not a time such as 60s, 5m or 1h")
            for bad in ("x", "5x", "nan", "")
        ),
        (["--ul", "2.5", "--for", "60s"], "'2.5' is not a valid integer"),
    ],
)
def test_a_quota_that_is_not_whole_does_not_go_out(
    served: Served, arguments: list[str], message: str
) -> None:
    result = quota(served, "cell-1", "ar", *arguments)
    assert result.exit_code == 2 and message in result.output
    assert not served.target.told


def test_a_quota_that_no_number_of_the_wire_holds_is_refused_in_words(served: Served) -> None:
    result = quota(served, "cell-1", "ar", "--dl", "99999999999", "--for", "60s")
    assert result.exit_code == 1 and "DL 99999999999 PRB: " in str(result.exception)
