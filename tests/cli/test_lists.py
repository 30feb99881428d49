from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from controller import allocators, config, policies, slicing
from controller.cli import cli


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("scenarios", sorted(config.scenarios())),
        ("policies", list(policies.names())),
        ("services", list(allocators.names())),
        ("arbiters", list(slicing.names())),
    ],
)
def test_what_there_is_is_listed_with_a_word_on_each(command: str, names: list[str]) -> None:
    (found,) = json.loads(run(command, "--json")).values()
    assert [one["name"] for one in found] == names
    assert all(len(one["about"]) > 15 and not one["about"].endswith(".") for one in found), found
    assert all("``" not in one["about"] and ":mod:" not in one["about"] for one in found), found
    lines = run(command).splitlines()
    assert [line.split()[0] for line in lines] == names
    assert all(one["about"] in line for one, line in zip(found, lines, strict=True))


def test_the_default_policy_is_told_and_what_each_takes() -> None:
    found = {one["name"]: one for one in json.loads(run("policies", "--json"))["policies"]}
    assert [name for name, one in found.items() if one["default"]] == [policies.DEFAULT]
    assert found["headroom"]["options"] == ["qos_target"] and "(default)" in found["headroom"]["about"]


def test_services_are_listed_where_what_they_need_is_not_installed() -> None:
    code = "import sys; sys.modules['numba'] = None; from controller.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "services"], capture_output=True, text=True, check=True
    )
    assert done.stdout == run("services")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("experiment", "mucb1_1"), "did you mean 'mucb1-1'?"),
        (("up", "--config", "frame"), "did you mean 'frames'?"),
        (("experiment", "demo", "--policy", "mucb"), "unknown policy 'mucb', did you mean 'mucb1'?"),
        (("experiment", "demo", "--policy", "headrom"), "unknown policy 'headrom', did you mean 'headroom'?"),
        (("experiment", "demo", "--policy", "zzz"), "unknown policy 'zzz'; policies: static, "),
    ],
)
def test_a_name_that_is_none_names_the_nearest(arguments: tuple[str, ...], told: str) -> None:
    assert told in str(CliRunner().invoke(cli, list(arguments)).exception)


def test_the_help_of_experiment_has_the_options_of_a_scenario() -> None:
    whole, one = run("experiment", "--help"), run("experiment", "mucb1-1", "--help")
    for option in ("--policy", "--seed", "--schedule", "--duration", "--run", "--oracle", "--warm-start"):
        assert option in whole and option in one, option
    assert "table-v" in whole and "study" in whole and run("experiment", "-h") == whole


def test_the_help_of_sweep_shows_a_spec() -> None:
    from controller.experiments.sweep import EXAMPLE, SweepSpec

    told = run("sweep", "--help")
    assert all(line in told for line in EXAMPLE.read_text().splitlines())
    assert all(f"  {key}:" in told for key in SweepSpec.model_fields)
