"""What is shipped around the code: image, compose file, its configuration, systemd units, package data."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import string
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
from controller.cli.processes import parse_settings
from controller.links.ran_front import MEMORY_BYTES
from wire.roles import ROLES
from wire.security import is_loopback

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "deploy/Dockerfile"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service and "entrypoint" not in service]
"""Services that are ``prbandit`` of our image."""
LASTING = [name for name in OURS if name != "keys"]
CI = yaml.safe_load((ROOT / "deploy/compose.ci.yml").read_text())["services"]
PROMETHEUS = ROOT / "deploy/prometheus/compose.yml"
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


def product() -> list[tuple[str, str]]:
    """The stage that a build without a target ends with, which is the target ``prbandit``."""
    every = instructions(DOCKERFILE.read_text())
    assert every[-1] == ("FROM", "prbandit")
    start = every.index(("FROM", "dependencies AS prbandit"))
    stop = next(i for i, (word, _) in enumerate(every) if word == "FROM" and i > start)
    return every[start:stop]


# ---- image -----------------------------------------------------------------------------------------------


def test_the_image_ends_with_a_numeric_user_that_is_not_root() -> None:
    users = [value for word, value in product() if word == "USER"]
    assert users and all(re.fullmatch(r"\d+:\d+", user) for user in users)
    assert all(int(part) > 0 for part in users[-1].split(":"))


def test_the_image_starts_the_installed_command() -> None:
    (entry,) = [yaml.safe_load(value) for word, value in product() if word == "ENTRYPOINT"]
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
    modules = {f"{name}.py" for name in PROJECT["tool"]["setuptools"]["py-modules"]}
    assert packages | modules <= set(copied())
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
def test_a_service_has_no_rights_and_bounds(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys()
    assert service.get("network_mode") in (None, "none")
    # Ours are the user of the image, whom no service may leave; others name theirs.
    user = service.get("user", "")
    assert ("build" in service and not user) or not user.startswith("0")
    assert service["pids_limit"] and service["mem_limit"]
    assert int(service["stop_grace_period"].removesuffix("s")) > 10
    assert ("profiles" in service) == (name not in OURS)
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or volume.endswith(":ro"), volume


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_runs_a_command_that_the_cli_takes(name: str) -> None:
    commands = [SERVICES[name]["command"], *([CI[name]["command"]] if "command" in CI.get(name, {}) else [])]
    for command in commands:
        assert command[0] == name
        parsed(command)


def test_the_stack_of_ci_is_the_same_with_short_leases() -> None:
    """Control slots and a lease that the configuration takes, and nothing else."""
    command = CI["controller"]["command"]
    assert [x for x in command if not x.startswith("--set=")] == SERVICES["controller"]["command"]
    options = parsed(command)
    settings = parse_settings(options["settings"])
    resolved = config.load(CONFIG, settings)
    assert set(settings) == {"control.control_slot_s", "links.ran.lease_s"}
    assert resolved.lease_s < config.load(CONFIG).lease_s
    assert {key for service in CI.values() for key in service} == {"command", "healthcheck"}


def compose() -> list[str]:
    """The command, where one is installed."""
    for command in (["docker-compose"], ["docker", "compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version"], capture_output=True, timeout=60)
            if done.returncode == 0:
                return command
    pytest.skip("neither docker-compose nor docker compose is installed (apt install docker-compose)")


@pytest.mark.parametrize("more", [(), ("deploy/compose.ci.yml",), ("deploy/compose.nvml.yaml",)], ids=str)
def test_compose_takes_the_files_with_and_without_monitoring(more: tuple[str, ...]) -> None:
    command = [*compose(), *(x for name in ("docker-compose.yml", *more) for x in ("-f", name))]
    for profile, names in (((), OURS), (("--profile", "monitoring"), list(SERVICES))):
        done = subprocess.run(
            [*command, *profile, "config", "--services"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        # docker-compose 1.29 names those of every profile.
        assert set(names) <= set(done.stdout.split()) <= set(SERVICES)
        assert "obsolete" not in done.stderr


# ---- Prometheus and Grafana -------------------------------------------------------------------------------


def test_prometheus_scrapes_every_page_of_the_containers_by_their_roles() -> None:
    pages = {}
    for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]:
        ((target,),) = [x["targets"] for x in job["static_configs"]]
        tls = job["tls_config"]
        pages[tls["server_name"]] = target
        assert job["scheme"] == "https" and target.split(":")[0] == tls["server_name"]
        assert {tls["ca_file"], tls["cert_file"], tls["key_file"]} == set(
            SERVICES["prometheus-keys"]["command"]
        )
    metrics = {
        "controller": config.load(CONFIG).links.metrics.address,
        "edge-agent": parsed(SERVICES["edge-agent"]["command"])["metrics"],
    }
    assert {role: page.rpartition(":")[2] for role, page in pages.items()} == {
        role: str(address).rpartition(":")[2] for role, address in metrics.items()
    }


def test_prometheus_reads_its_own_keys_alone_by_their_group() -> None:
    copier, reader = SERVICES["prometheus-keys"], SERVICES["prometheus"]
    (user,) = {value for word, value in product() if word == "USER"}
    assert reader["group_add"] == [user.split(":")[1]] and user.split(":")[0] not in reader["user"]
    assert copier["entrypoint"][:3] == ["install", "-m", "0440"]
    assert f"prometheus-keys:{copier['entrypoint'][-1]}" in copier["volumes"]
    assert "prometheus-keys:/keys:ro" in reader["volumes"]
    assert not [v for v in reader["volumes"] if v.startswith("keys:")]


def test_images_of_others_are_pinned() -> None:
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert images and all(re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", image) for image in images)


GRAFANA = ROOT / "deploy/grafana"


@pytest.mark.skipif(not GRAFANA.exists(), reason="deploy/grafana is not there yet")
def test_what_prometheus_and_grafana_mount_is_there_and_where_they_look_for_it() -> None:
    binds = dict(v.split(":")[:2] for s in SERVICES.values() for v in s["volumes"] if v.startswith("./"))
    assert binds and all((ROOT / source).is_dir() for source in binds)
    for rules in yaml.safe_load(PROMETHEUS.read_text())["rule_files"]:
        assert (PROMETHEUS.parent / rules).is_file()
    assert binds["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    provided = [yaml.safe_load(x.read_text()) for x in (GRAFANA / "provisioning/dashboards").glob("*.yml")]
    paths = {p["options"]["path"] for file in provided for p in file["providers"]}
    assert paths == {binds["./deploy/grafana/dashboards"]}
    assert list((GRAFANA / "dashboards").glob("*.json"))
    sources = [yaml.safe_load(x.read_text()) for x in (GRAFANA / "provisioning/datasources").glob("*.yml")]
    (url,) = {d["url"] for file in sources for d in file["datasources"]}
    port = SERVICES["prometheus"]["ports"][0].rpartition(":")[2]
    assert url == f"http://prometheus:{port}"
    assert set(SERVICES["grafana"]["networks"]) & set(SERVICES["prometheus"]["networks"])


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (apt install prometheus)")
def test_prometheus_takes_the_configuration_of_the_containers() -> None:
    command = ["promtool", "check", "config", "--syntax-only", str(PROMETHEUS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


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
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports.keys() == {"controller", "prometheus", "grafana"}
    for port in (p for published in ports.values() for p in published):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{PRBANDIT_\w+_PORT:-(\d+)\}:\1", port)
    links = config.load(CONFIG).links
    served = {str(link.address).rpartition(":")[2] for link in (links.operator, links.metrics, links.page)}
    assert {p.rpartition(":")[2] for p in ports["controller"]} == served


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


PROGRAM = "/opt/prbandit/bin/prbandit"
NAMES = {
    "PTP_HOST": "edge-1",
    "PTP_CELL": "cell-1",
    "PTP_CONTROLLER": "controller:50062",
    "PTP_OPTIONS": "",
}
"""What the units' environment files say."""
EXPOSURE = {"prbandit-controller": 1.3, "prbandit-edge-agent": 1.2, "prbandit-ptp-agent": 1.3, "nvml": 1.9}
"""What `systemd-analyze security` may say at most, from 0, the best, to 10; systemd 252 says 0.1 less. The
network that every daemon is for costs 1.0 of it, CAP_SYS_ADMIN and the drop-in's devices another 0.7."""

needs_systemd_analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed (apt install systemd)"
)
each_unit = pytest.mark.parametrize("path", UNITS, ids=lambda p: p.stem)


@each_unit
def test_a_unit_runs_a_command_that_the_cli_takes_without_root(path: Path) -> None:
    settings = unit_settings(path)
    program, *arguments = shlex.split(string.Template(settings["ExecStart"]).substitute(NAMES))
    assert program == PROGRAM and path.stem == f"prbandit-{arguments[0]}"
    options = parsed(arguments)
    assert options.get("keys") or is_loopback(options.get("address", "localhost"))
    assert settings["User"] == "prbandit" and settings["CapabilityBoundingSet"] == ""
    assert settings["NoNewPrivileges"] == "yes" and settings["ProtectSystem"] == "strict"
    assert settings["Restart"] == "always"
    assert int(settings["MemoryMax"].removesuffix("G")) << 30 >= 2 * MEMORY_BYTES
    assert int(settings["LimitNOFILE"]) > 4096
    # What the process says every second of itself is waited for at the start and missed later.
    assert settings["Type"] == "notify" and settings["WatchdogSec"] == "20"


def installed(path: Path, folder: Path, *, drop_ins: bool = False) -> Path:
    """A copy of the unit whose programs are there."""
    for source in (path, *(path.with_name(f"{path.name}.d").glob("*.conf") if drop_ins else ())):
        copy = folder / source.relative_to(path.parent)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(source.read_text().replace(PROGRAM, "/bin/true"))
    return folder / path.name


def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)


@needs_systemd_analyze
@pytest.mark.parametrize("drop_ins", [False, True], ids=["plain", "drop-ins"])
@each_unit
def test_systemd_understands_every_setting_of_a_unit(path: Path, drop_ins: bool, tmp_path: Path) -> None:
    done = analyzed("verify", "--man=no", str(installed(path, tmp_path, drop_ins=drop_ins)))
    ours = [line for line in done.stderr.splitlines() if path.stem in line]
    assert done.returncode == 0 and not ours, done.stderr


@needs_systemd_analyze
@pytest.mark.parametrize("name", EXPOSURE)
def test_a_unit_is_exposed_no_more_than_its_work_asks_for(name: str, tmp_path: Path) -> None:
    (path,) = [p for p in UNITS if p.stem == name or (p.with_name(f"{p.name}.d") / f"{name}.conf").exists()]
    unit = installed(path, tmp_path, drop_ins=path.stem != name)
    most = round(10 * EXPOSURE[name])
    done = analyzed("security", "--offline=true", "--no-pager", f"--threshold={most}", str(unit))
    assert "exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, "\n".join(x for x in done.stdout.splitlines() if not x.startswith("✓"))
