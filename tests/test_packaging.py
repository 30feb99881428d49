"""What is shipped around the code: image, compose file, its configuration, systemd units, package data."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from controller import config
from controller.cli import cli
from controller.links.ran_front import MEMORY_BYTES
from wire.roles import ROLES
from wire.security import is_loopback

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "deploy/Dockerfile"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LASTING = [name for name in SERVICES if name != "keys"]
CONFIG = ROOT / "deploy/compose.yaml"
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ADDRESS_OPTIONS = ("ran", "qos", "edge", "address", "operator")


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The options of a ``prbandit`` command line as the CLI itself reads them; its errors are the test's."""
    context = click.Context(cli, info_name="prbandit")
    name, command, rest = cli.resolve_command(context, list(arguments))
    assert command is not None
    return dict(command.make_context(name, rest, parent=context).params)


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """(instruction, its arguments) in order; comments and line continuations resolved."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (word.upper(), rest.strip())
        for line in joined.splitlines()
        for word, _, rest in [line.partition(" ")]
        if word
    ]


def final_stage() -> list[tuple[str, str]]:
    every = instructions(DOCKERFILE.read_text())
    start = max(i for i, (word, _) in enumerate(every) if word == "FROM")
    return every[start:]


# ---- image -----------------------------------------------------------------------------------------------


def test_the_image_ends_with_a_numeric_user_that_is_not_root() -> None:
    users = [value for word, value in final_stage() if word == "USER"]
    assert users and all(re.fullmatch(r"\d+:\d+", user) for user in users)
    assert all(int(part) > 0 for part in users[-1].split(":"))


def test_the_image_starts_the_installed_command() -> None:
    (entry,) = [yaml.safe_load(value) for word, value in final_stage() if word == "ENTRYPOINT"]
    assert entry == ["prbandit"] and entry[0] in PROJECT["project"]["scripts"]


def test_the_image_is_built_on_debian_with_the_python_that_the_package_asks_for() -> None:
    every = instructions(DOCKERFILE.read_text())
    stages = {value.split()[2] for word, value in every if word == "FROM" and " AS " in value}
    bases = {value.split()[0] for word, value in every if word == "FROM"} - stages
    assert bases == {"python:3.11-slim-bookworm"}
    assert PROJECT["project"]["requires-python"] == ">=3.11"


def copied() -> list[str]:
    """Paths of the tree that the Dockerfile copies."""
    every = instructions(DOCKERFILE.read_text())
    return [
        p for word, value in every if word == "COPY" and "--from" not in value for p in value.split()[:-1]
    ]


def test_the_image_holds_every_package_and_the_build_context_nothing_else() -> None:
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {p.rstrip("*") for p in patterns if any((ROOT / p.rstrip("*")).rglob("*.py"))}
    assert packages <= set(copied())
    ignore = [x for x in (ROOT / ".dockerignore").read_text().splitlines() if x and not x.startswith("#")]
    assert ignore[0] == "*"
    assert {x[1:] for x in ignore if x.startswith("!")} == set(copied())
    assert all((ROOT / path).exists() for path in copied())


def test_every_file_beside_the_code_is_package_data() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    tests_alone = ROOT / "wire" / "vectors"
    for package in ("wire", "controller", "agents"):
        for path in (ROOT / package).rglob("*"):
            if (
                path.is_dir()
                or "__pycache__" in path.parts
                or path.suffix == ".py"
                or path.parent == tests_alone
            ):
                continue
            patterns = data.get(".".join(path.relative_to(ROOT).parts[:-1]), [])
            assert any(fnmatch.fnmatch(path.name, p) for p in patterns), f"{path} would not be installed"


# ---- compose file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_and_a_command_that_the_cli_takes(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "user", "cap_add", "devices", "pid", "ipc", "entrypoint"} & service.keys()
    assert service.get("network_mode") in (None, "none")
    assert service["command"][0] == name
    parsed(service["command"])


@pytest.mark.parametrize("name", LASTING)
def test_a_lasting_service_is_checked_and_restarted_and_only_reads_its_keys(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["depends_on"] == {"keys": {"condition": "service_completed_successfully"}}
    assert "keys:/keys:ro" in service["volumes"]
    check = service["healthcheck"]["test"]
    if check[0] == "CMD":
        assert check[1] == "prbandit"
        assert parsed(check[2:])["keys"] == "/keys"
    else:
        heartbeat = str(parsed(service["command"])["heartbeat"])
        assert check[0] == "CMD-SHELL" and heartbeat in check[1]


def test_ports_of_the_host_are_on_its_loopback_address_and_can_be_moved() -> None:
    ports = [p for service in SERVICES.values() for p in service.get("ports", ())]
    assert ports and all(re.fullmatch(r"127\.0\.0\.1:\$\{PRBANDIT_\w+_PORT:-(\d+)\}:\1", p) for p in ports)
    links = config.load(CONFIG).links
    served = {str(link.address).rpartition(":")[2] for link in (links.operator, links.metrics, links.page)}
    assert {p.rpartition(":")[2] for p in ports} == served


def test_the_heartbeat_check_tells_a_fresh_file_from_an_old_and_from_none(tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat"
    check = SERVICES["gnb-mock"]["healthcheck"]["test"][1]
    command = check.replace("$$", "$").replace("/tmp/heartbeat", str(heartbeat))

    def healthy() -> bool:
        return subprocess.run(["sh", "-c", command], capture_output=True, timeout=30).returncode == 0

    assert not healthy()
    heartbeat.touch()
    assert healthy()
    os.utime(heartbeat, (time.time() - 60, time.time() - 60))
    assert not healthy()


# ---- addresses and keys ----------------------------------------------------------------------------------


def addresses(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(place, address) of every address in a configuration."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from addresses(inner, f"{place}.{key}".lstrip("."))
    elif place.endswith(".address") and value:
        yield place, value


def test_every_address_of_the_containers_has_keys() -> None:
    resolved = config.load(CONFIG)
    found = dict(addresses(resolved.model_dump(mode="json")))
    assert {place.split(".")[1] for place in found} == {"ran", "edge", "qos", "operator", "metrics", "page"}
    assert not [place for place, address in found.items() if is_loopback(address)], (
        "unreachable for the others"
    )
    assert resolved.security.keys == "/keys"
    for name in LASTING:
        options = parsed(SERVICES[name]["command"])
        beyond = [options[o] for o in ADDRESS_OPTIONS if options.get(o) and not is_loopback(options[o])]
        assert not beyond or options["keys"] == "/keys", f"{name}: {beyond} without --keys"


def test_the_services_find_each_other_under_the_names_in_their_certificates() -> None:
    links = config.load(CONFIG).links
    gnb, edge = (parsed(SERVICES[name]["command"]) for name in ("gnb-mock", "edge-agent"))
    served = {
        "ran": ("controller", links.ran.address),
        "qos": ("controller", links.qos.address),
        "edge": ("edge-agent", edge["address"]),
    }
    for option, (host, address) in served.items():
        called, _, port = gnb[option].removeprefix("tcp://").rpartition(":")
        assert (called, port) == (host, str(address).rpartition(":")[2])
        assert host in ROLES and host in SERVICES
    assert links.edge.address == gnb["edge"]


def test_keys_are_made_for_every_cell_of_the_configuration() -> None:
    keys = parsed(SERVICES["keys"]["command"])
    assert set(keys["cells"]) == {cell.id for cell in config.load(CONFIG).cells}
    assert str(keys["folder"]) == "/keys" and "keys:/keys" in SERVICES["keys"]["volumes"]


def test_the_run_folder_is_a_volume_and_its_record_bounded() -> None:
    controller = SERVICES["controller"]
    volumes = {v.split(":")[1]: v.split(":")[0] for v in controller["volumes"]}
    assert volumes[str(parsed(controller["command"])["run_dir"])] in COMPOSE["volumes"]
    assert config.load(CONFIG).store.retain_days


# ---- systemd ---------------------------------------------------------------------------------------------


def unit_settings(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.stem)
def test_a_unit_runs_a_command_that_the_cli_takes_without_root(path: Path) -> None:
    settings = unit_settings(path)
    program, *arguments = shlex.split(settings["ExecStart"])
    assert program == "/opt/prbandit/bin/prbandit" and path.stem == f"prbandit-{arguments[0]}"
    options = parsed(arguments)
    assert options.get("keys") or is_loopback(options.get("address", "localhost"))
    assert settings["User"] == "prbandit" and settings["CapabilityBoundingSet"] == ""
    assert settings["NoNewPrivileges"] == "yes" and settings["ProtectSystem"] == "strict"
    assert settings["Restart"] == "always"
    assert int(settings["MemoryMax"].removesuffix("G")) << 30 >= 2 * MEMORY_BYTES
    assert int(settings["LimitNOFILE"]) > 4096
    # What the process says every second of itself is waited for at the start and missed later.
    assert settings["Type"] == "notify" and settings["WatchdogSec"] == "20"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.stem)
def test_systemd_understands_every_setting_of_a_unit(path: Path, tmp_path: Path) -> None:
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/prbandit/bin/prbandit", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    ours = [line for line in done.stderr.splitlines() if path.stem in line]
    assert done.returncode == 0 and not ours, done.stderr
