"""Policies and services of other packages: found by name, through all that the house has; what is broken is
refused by name and breaks no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agents.emulator import applications
from controller import allocators, config, policies
from controller.cli import cli
from controller.experiments import pool
from controller.experiments.runs import RunSpec
from controller.store.run import RunStore, environment
from tests.e2e.harness import Testbed, until
from tests.experiments.builders import small
from tests.plugins import EXAMPLES, distribution, installed
from wire.definitions.plugins import POLICIES, SERVICES

EXAMPLE = EXAMPLES / "my_policy"


def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in ``folder`` is installed, for this process and those that it starts."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was brought along in a test is not there in the next."""
    known = set(sys.modules)
    yield
    policies._brought_class.cache_clear()
    allocators.service.cache_clear()
    for module in ("my_policy", "broken", "fine"):
        if module not in known:
            sys.modules.pop(module, None)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = installed(EXAMPLE, tmp_path / "site-packages")
    there(folder, monkeypatch)
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def listed(what: str) -> dict[str, Any]:
    result = run(what, "--json")
    assert result.exit_code == 0, result.output
    return {one["name"]: one for one in json.loads(result.stdout)[what]}


# ---- the policy of the documentation ---------------------------------------------------------------------


def test_the_example_is_about_twenty_lines() -> None:
    lines = (EXAMPLE / "my_policy.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 30


def test_the_example_is_listed_with_its_package_and_its_options(example: Path) -> None:
    one = listed("policies")["my_policy"]
    assert one["package"] == "my-policy 1.0" and one["options"] == ["patience"] and not one["default"]
    assert listed("policies")["mucb1"]["package"] is None
    assert run("policies").stdout.splitlines()[-1].endswith("a step more after a miss (my-policy 1.0)")
    assert environment()["versions"]["my-policy"] == "1.0"


def test_check_config_knows_the_example_and_its_options(example: Path) -> None:
    policy = ("--set", "cells.0.slices.0.policy=my_policy")
    options = "cells.0.slices.0.policy_options"
    checked = run("check-config", "demo", *policy, "--set", f"{options}={{patience: 3}}", "--json")
    (slice_,) = json.loads(checked.stdout)["config"]["cells"][0]["slices"]
    assert (slice_["policy"], slice_["policy_options"]) == ("my_policy", {"patience": 3})
    for given, said in (
        ("{patienc: 3}", r"demo\.yaml:10: .*policy my_policy has no option 'patienc'; its options: patience"),
        ("{patience: 0}", r"demo\.yaml:10: .*option patience 0 is not a whole number above 0"),
    ):
        with pytest.raises(config.ConfigError, match=said):
            config.load(
                config.find("demo"),
                {"cells.0.slices.0.policy": "my_policy", options: {given.split(":")[0][1:]: int(given[-2])}},
            )


def test_the_example_plays_an_experiment_and_replays_to_equal_decisions(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, scenario = tmp_path / "run", small(tmp_path)
    played = run("experiment", scenario, "--policy", "my_policy", "--run", str(folder), "--json")
    assert played.exit_code == 0, played.output
    out = json.loads(played.stdout)
    assert out["policy"] == "my_policy" and 0 < out["avg_ul_prb"] < 106
    replayed = run("replay", str(folder), "--json")
    assert json.loads(replayed.stdout)["different"] == 0
    with RunStore.open(folder) as store:
        whys = {c["why"] for r in store.decisions() for c in r["slices"]["ar"]["choices"]}
    assert whys == {"explore", "exploit"}
    policies._brought_class.cache_clear()
    monkeypatch.undo()
    assert "unknown policy 'my_policy'" in str(run("replay", str(folder)).exception)


def test_the_example_is_found_by_the_processes_of_jobs(example: Path) -> None:
    assert dict(pool.local(policies.option_names, ["my_policy", "static"], 2)) == {
        0: ("patience",),
        1: ("action",),
    }


def test_results_of_another_version_of_the_example_are_not_taken_up(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from controller.experiments import runs

    scenario, keys = small(tmp_path), []
    for _ in range(2):
        runs._code.cache_clear()
        keys.append(RunSpec.make(scenario, "my_policy", 1).key)
        (example / "my_policy.py").open("a").write("# otherwise\n")
    runs._code.cache_clear()
    assert keys[0] != keys[1]


def test_the_example_keeps_the_contract(example: Path) -> None:
    """As its author runs it."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            *("tests/policies/test_contract.py", "-k", "my_policy"),
        ],
        cwd=EXAMPLES.parents[1],
        env={**os.environ, "PYTHONPATH": f"{example}:{EXAMPLES.parents[1]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_an_operator_switches_a_running_controller_to_the_example(example: Path, tmp_path: Path) -> None:
    bed = Testbed(tmp_path, config.find("demo").read_text())
    bed.environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    try:
        for name in ("controller", "gnb-mock"):
            bed.start(name)
        client = ("--operator", bed.operator_address)
        status = ("status", *client, "--json")
        until(lambda: json.loads(run(*status).stdout).get("cells"), "a cell")
        until(lambda: json.loads(run(*status).stdout)["cells"][0]["control_slots"] > 2, "a control slot")
        switched = run("policy", "my_policy", *client)
        assert switched.exit_code == 0, switched.output

        def plays() -> bool:
            with RunStore.open(bed.run_dir) as store:
                *_, last = store.decisions()
            return {c["method"] for c in last["slices"]["ar"]["choices"]} == {"my_policy"}

        until(plays, "a control slot under the example")
        refused = run("policy", "my_polic", *client)
        assert refused.exit_code != 0 and "my_policy" in str(refused.exception or refused.output)
    finally:
        bed.close()
    assert json.loads(run("replay", str(bed.run_dir), "--json").stdout)["different"] == 0


# ---- what cannot be used ---------------------------------------------------------------------------------


MODULES = {
    "broken": "raise RuntimeError('no licence file')\n",
    "fine": (EXAMPLE / "my_policy.py").read_text().replace('"my_policy"', '"fine"'),
}


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of which each brings something along that cannot be used, and one that is in order."""
    value = "fine:MyPolicy"
    brought = {
        "one": {POLICIES: {"fine": value, "mucb1": value, "twice": "fine:One"}, SERVICES: {"ar": "fine:X"}},
        "another": {POLICIES: {"twice": "fine:Two", "broken": "broken:Policy", "gone": "fine:Gone"}},
        "a-third": {
            POLICIES: {"other": value, "lacks": "fine:Policy", "none": "fine:UNKNOWN"},
            SERVICES: {"down": "broken:SERVICE", "missing": "there_is_no_such.module:SERVICE"},
        },
    }
    for name, entry_points in brought.items():
        there(distribution(tmp_path / name, name, entry_points, MODULES), monkeypatch)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "of another 1.0 (broken:Policy) cannot be loaded: RuntimeError: no licence"),
        ("gone", "of another 1.0 (fine:Gone) cannot be loaded: AttributeError: "),
        ("none", "of a-third 1.0 (fine:UNKNOWN) is no subclass of controller.policies.Policy"),
        ("lacks", "of a-third 1.0 (fine:Policy) lacks _learned, _load, explain, pull, update of "),
        ("other", "of a-third 1.0 (fine:MyPolicy) calls itself 'fine'"),
        ("twice", "is brought along more than once, by one 1.0 (fine:One), another 1.0 (fine:Two): "),
    ],
)
def test_a_policy_that_cannot_be_used_says_whose_it_is_and_why(
    others: None, tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(ValueError) as refused:
        policies.make(name, (10, 20))
    assert str(refused.value).startswith(f"policy '{name}'") and said in str(refused.value)
    (line,) = [line for line in run("policies").stdout.splitlines() if line.split()[0] == name]
    assert f"cannot be used: {refused.value}" in line
    mistake = mistake_in(tmp_path, f"policy: {name}")
    assert mistake.startswith(f"{tmp_path}/c.yaml:4: cells.0.slices.0.policy: {refused.value}")


def mistake_in(folder: Path, line: str) -> str:
    file = folder / "c.yaml"
    file.write_text(f"cells:\n  - id: cell-1\n    slices:\n      - {{id: s, ues: [ue-1], {line}}}\n")
    with pytest.raises(config.ConfigError) as refused:
        config.load(file)
    return str(refused.value)


def test_the_others_are_as_they_were(others: None, tmp_path: Path) -> None:
    assert policies.make("fine", (10, 20)).pull() == 20
    assert type(policies.make("mucb1", (10, 20))).__module__ == "controller.policies.mucb1"
    found = listed("policies")
    assert found["mucb1"]["package"] is None and "error" not in found["mucb1"]
    said = "one 1.0 brings a policy of this name, which is PRBandit's own: rename it there"
    assert found["mucb1 (refused)"]["error"] == f"policy 'mucb1': {said}"
    assert "twice" not in policies.names() and "fine" in policies.names()
    assert run("check-config", "demo").exit_code == 0


def test_a_service_that_cannot_be_used_says_whose_it_is_and_why(others: None, tmp_path: Path) -> None:
    found = listed("services")
    assert found["ar"]["module"] == "controller.allocators.ar" and "error" in found["ar (refused)"]
    for name, said in (
        ("down", "of a-third 1.0 (broken:SERVICE) cannot be loaded: RuntimeError: no licence file"),
        ("missing", "of a-third 1.0 (there_is_no_such.module:SERVICE) cannot be loaded: ModuleNotFoundError"),
    ):
        error = found[name]["error"]
        assert error.startswith(f"service '{name}' {said}")
        mistake = mistake_in(tmp_path, f"service: {name}")
        assert mistake.startswith(f"{tmp_path}/c.yaml:4: cells.0.slices.0.service: {error}")


def test_an_option_that_a_foreign_policy_stumbles_over_is_a_mistake_in_the_configuration(
    others: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MODULES["fine"].replace("if not isinstance(patience, int) or patience < 1", "if patience < 1")
    (tmp_path / "a-third" / "fine.py").write_text(text)
    mistake = mistake_in(tmp_path, "policy: fine, policy_options: {patience: '5'}")
    assert "c.yaml:4: " in mistake and "policy fine: cannot be made: TypeError: '<' not supp" in mistake


def test_an_application_may_not_take_a_name_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_points = {"prbandit.applications": {"vr": "fine:X"}}
    there(distribution(tmp_path / "one", "one", entry_points, {"fine": ""}), monkeypatch)
    assert applications.load("vr").__module__ == "agents.emulator.applications.vr"
