"""What is shipped for hosts: ptp4l takes the configurations, systemd the units, the CLI the command."""

from __future__ import annotations

import shlex
import shutil
import string
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from controller.cli import cli
from tests.agents.ptp.linuxptp import Pair, needs_linuxptp, wait_for

DEPLOY = Path(__file__).resolve().parents[3] / "deploy/linuxptp"
CONFIGS = sorted(DEPLOY.glob("*.conf"))
UNITS = sorted(DEPLOY.glob("*.service"))
AGENT = DEPLOY.with_name("systemd") / "prbandit-ptp-agent.service"
NAMES = {
    "PTP_HOST": "edge-1",
    "PTP_CELL": "cell-1",
    "PTP_CONTROLLER": "controller:50062",
    "PTP_OPTIONS": "--phc /dev/ptp0 --grandmaster",
}


def settings(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def options(path: Path) -> dict[str, list[str]]:
    """Of a ptp4l configuration, by section."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            found[section] = []
        elif line and not line.startswith("#"):
            found[section].append(" ".join(line.split()))
    return found


@needs_linuxptp
@pytest.mark.slow
def test_ptp4l_takes_the_configurations_and_clients_follow_the_grandmaster(tmp_path: Path) -> None:
    """Hardware stamps are not to be had on a virtual interface; all other lines are as shipped."""
    pair = Pair(tmp_path)
    try:
        shipped = {}
        for name in ("grandmaster", "client", "client-software"):
            lines = options(DEPLOY / f"{name}.conf")["global"]
            own = ("time_stamping", "uds_address", "pi_")
            shipped[name] = [line for line in lines if not line.startswith(own)]
        pair.ptp4l("master", *shipped["grandmaster"])
        for name in ("client", "client-software"):
            pair.ptp4l("client", *shipped[name])
            wait_for(
                f"{name} follows",
                lambda: pair.pmc("client", "PORT_DATA_SET").get("portState") == "SLAVE",
            )
            parent = pair.pmc("client", "PARENT_DATA_SET")
            assert parent["grandmasterPriority1"] == "10"
            assert pair.pmc("client", "DEFAULT_DATA_SET")["slaveOnly"] == "1"
            pair.kill("client")
    finally:
        pair.close()


@pytest.mark.skipif(not shutil.which("ptp4l"), reason="ptp4l is not installed (apt install linuxptp)")
@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_ptp4l_knows_every_option(path: Path, tmp_path: Path) -> None:
    """On an interface that is not there it ends after it has read its configuration."""
    config = tmp_path / path.name
    config.write_text(path.read_text().replace("[eth0]", "[prb-nowhere]"))
    config.write_text(config.read_text().replace("/var/run/ptp4l", str(tmp_path / "socket")))
    done = subprocess.run(["ptp4l", "-m", "-f", str(config)], capture_output=True, text=True, timeout=30)
    # linuxptp 4 says of slaveOnly that its name has changed; there is no name that 3 and 4 both like.
    said = (done.stdout + done.stderr).replace(
        "option slaveOnly is deprecated, please use clientOnly instead", ""
    )
    assert done.returncode != 0 and "No such device" in said, said
    assert "option" not in said and "configuration file" not in said, said


def test_hosts_agree_on_what_must_be_equal() -> None:
    common = ("network_transport", "delay_mechanism", "logSyncInterval", "logAnnounceInterval", "uds_address")
    told = {
        path.stem: [line for line in options(path)["global"] if line.split()[0] in common] for path in CONFIGS
    }
    assert len(told) == 3 and len({tuple(sorted(lines)) for lines in told.values()}) == 1, told
    for path in CONFIGS:
        assert ("slaveOnly 1" in options(path)["global"]) == path.stem.startswith("client")


def parsed(extra: str) -> dict[str, Any]:
    """The agent's command line as the CLI reads it."""
    line = settings(AGENT)["ExecStart"].replace("$PTP_OPTIONS", extra)
    program, *arguments = shlex.split(string.Template(line).substitute(NAMES))
    assert program == "/opt/prbandit/bin/prbandit"
    context = click.Context(cli, info_name="prbandit")
    name, command, rest = cli.resolve_command(context, arguments)
    assert command is not None and AGENT.stem == f"prbandit-{name}"
    return dict(command.make_context(name, rest, parent=context).params)


def test_the_agents_unit_runs_a_command_that_the_cli_takes_without_root() -> None:
    plain, full = parsed(""), parsed(NAMES["PTP_OPTIONS"])
    assert plain["qos"] == "controller:50062" and plain["keys"] == "/etc/prbandit/keys"
    assert (plain["host"], plain["cells"], plain["grandmaster"]) == ("edge-1", ("cell-1",), False)
    assert (str(full["phc"]), full["grandmaster"]) == ("/dev/ptp0", True)
    unit = settings(AGENT)
    # ptp4l must see the socket that it answers to.
    assert unit["RuntimeDirectory"] and unit["PrivateTmp"] == "yes"
    # Before linuxptp 4.0 its one socket is for its group.
    assert settings(DEPLOY / "ptp4l.service")["Group"] == unit["User"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.stem)
def test_systemd_understands_every_setting_of_a_unit(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    for program in ("/usr/sbin/ptp4l", "/usr/sbin/phc2sys"):
        text = text.replace(program, "/bin/true")
    for unit in UNITS:  # they name each other
        (tmp_path / unit.name).write_text(text if unit == path else "[Service]\nExecStart=/bin/true\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in done.stderr.splitlines() if path.stem in line]
    assert done.returncode == 0 and not ours, done.stderr
