"""The edge agent on real GPUs as it is deployed: the unit's drop-in and the compose override."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
import yaml

from controller.cli import cli
from wire.security import is_loopback

ROOT = Path(__file__).resolve().parents[3]
UNIT = ROOT / "deploy/systemd/prbandit-edge-agent.service"
DROP_IN = ROOT / "deploy/systemd/prbandit-edge-agent.service.d/nvml.conf"
OVERRIDE = ROOT / "deploy/compose.nvml.yaml"
PROGRAM = "/opt/prbandit/bin/prbandit"


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The options of an edge-agent command line as the CLI itself reads them; its errors are the test's."""
    context = click.Context(cli, info_name="prbandit")
    name, command, rest = cli.resolve_command(context, list(arguments))
    assert name == "edge-agent" and isinstance(command, click.Group)
    inner = command.make_context(name, rest, parent=context)
    if inner.args or inner._protected_args:
        name, command, rest = command.resolve_command(inner, [*inner._protected_args, *inner.args])
        assert command is not None
        return dict(command.make_context(name, rest, parent=inner).params)
    return dict(inner.params)


def settings(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text().splitlines()
    return [(k, v) for k, _, v in (x.partition("=") for x in lines if "=" in x and not x.startswith("#"))]


def test_the_drop_in_runs_the_nvml_agent_and_releases_after_it() -> None:
    found = settings(DROP_IN)
    starts = [value for key, value in found if key == "ExecStart"]
    assert starts[0] == "", "without a reset a unit would have two commands"
    program, *arguments = shlex.split(starts[1])
    options = parsed(arguments)
    assert program == PROGRAM and options["backend"] == "nvml"
    assert options["keys"] and not is_loopback(options["address"])
    (stop,) = [value for key, value in found if key == "ExecStopPost"]
    program, *arguments = shlex.split(stop)
    # A host without a driver any more has nothing locked: the unit does not fail for that.
    assert program == f"-{PROGRAM}" and arguments[:2] == ["edge-agent", "release"]
    # A release of other GPUs than the agent's would leave a lock or end a stranger's.
    assert parsed(arguments)["gpus"] == options["gpus"]


def test_the_drop_in_adds_one_capability_and_the_gpu_and_no_more() -> None:
    found = dict(settings(DROP_IN))
    base = dict(settings(UNIT))
    assert found["AmbientCapabilities"] == found["CapabilityBoundingSet"] == "CAP_SYS_ADMIN"
    assert (found["DevicePolicy"], found["DeviceAllow"]) == ("closed", "char-nvidia* rw")
    changed = {k for k in found if k in base and base[k] != found[k]}
    assert changed == {
        *("After", "CapabilityBoundingSet", "ExecStart"),
        *("PrivateDevices", "PrivateUsers", "ProcSubset"),
    }
    assert "User" not in found and base["User"] == "prbandit"


def test_an_agent_that_ended_for_want_of_its_driver_is_started_again_for_as_long_as_it_takes() -> None:
    base = dict(settings(UNIT)) | dict(settings(DROP_IN))
    assert (base["Restart"], base["StartLimitIntervalSec"]) == ("always", "0")
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert services["edge-agent"]["restart"] == "unless-stopped"
    assert "restart" not in yaml.safe_load(OVERRIDE.read_text())["services"]["edge-agent"]


def test_the_compose_override_changes_the_edge_agent_alone() -> None:
    services = yaml.safe_load(OVERRIDE.read_text())["services"]
    base = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["edge-agent"]
    assert list(services) == ["edge-agent"]
    agent = services["edge-agent"]
    assert agent["cap_add"] == ["SYS_ADMIN", "DAC_READ_SEARCH"] and "privileged" not in agent
    # The same agent, of the image that has no stub.
    assert "command" not in agent and parsed(base["command"])["backend"] == "nvml"
    assert agent["image"] != base["image"] and agent["build"]["target"] != base["build"]["target"]
