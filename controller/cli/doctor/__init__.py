"""``doctor``: is this host ready for the night?"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import emit, json_option
from controller.cli.options import SECONDS
from wire import OPERATOR_ADDRESS

if TYPE_CHECKING:
    from controller.cli.doctor.findings import Check, Finding
    from controller.cli.doctor.host import Host
    from controller.config import Config

ROLES = ("controller", "edge", "gnb", "ue")
_PATH = click.Path(path_type=Path)


@click.command("doctor")
@click.argument("config_file", metavar="[CONFIG]", required=False)
@click.option(
    "--role",
    "roles",
    type=click.Choice(ROLES),
    multiple=True,
    help="What this host is; repeatable. By default what the arguments say: with CONFIG a controller.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Replace a key of CONFIG.")
@click.option("--run", type=_PATH, help="controller: its run folder (default: store.runs of CONFIG).")
@click.option(
    "--keys", type=_PATH, help="Folder of CURVE keys and TLS certificates (security.keys of CONFIG)."
)
@click.option("--cell", default="", help="gnb, ue: the cell (default: the first of CONFIG, or cell-1).")
@click.option("--address", help="edge: where its agent listens.  [default: 127.0.0.1:50061]")
@click.option("--metrics", default="", help="edge: where its agent serves metrics.")
@click.option(
    "--backend", type=click.Choice(["nvml", "emulated"]), help="edge: of its agent.  [default: nvml]"
)
@click.option("--gpu", "gpus", multiple=True, metavar="GPU", help="edge: UUID or index; default: every GPU.")
@click.option("--ran", default="", help="gnb: the controller's RAN link, tcp://HOST:5555.")
@click.option("--qos", default="", help="ue: the controller's QoS ingest, HOST:50062.")
@click.option("--operator", default="", help="The controller's operator API, HOST:50063, for its version.")
@click.option(
    "--ptp-socket", "ptp_sockets", type=_PATH, multiple=True, help="ptp4l's socket, as of ptp-agent."
)
@click.option("--phc", type=_PATH, help="The hardware clock that ptp4l steers, such as /dev/ptp0.")
@click.option("--oai", type=_PATH, help="gnb: OpenAirInterface's source tree.")
@click.option("--module", type=_PATH, help="gnb: the module or agent library that was built for it.")
@click.option(
    "--answer", "answer_s", type=SECONDS, default=3.0, show_default=True, help="Seconds for a peer's answer."
)
@click.option(
    "--timeout", "timeout_s", type=SECONDS, default=30.0, show_default=True, help="Seconds for all checks."
)
@json_option
def doctor(
    config_file: str | None,
    roles: tuple[str, ...],
    settings: tuple[str, ...],
    timeout_s: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Check this host before the night; every line that is not ok has its remedy.

    With CONFIG it is the controller's host: configuration, ports, keys, run folder, clock, limits, the edge
    agent and a controller that runs. Nothing is changed, locked or set. Run it as the user of the daemon.

    \b
    prbandit doctor /etc/prbandit/config.yaml --run /var/lib/prbandit/run
    prbandit doctor --role edge --keys KEYS --address 0.0.0.0:50061 --operator controller-1:50063
    prbandit doctor --role gnb --keys KEYS --cell cell-1 --ran tcp://controller-1:5555 --oai OAI
    prbandit doctor --role ue --keys KEYS --qos controller-1:50062

    Exit status: 0 without a failure, warnings or not; 1 with one.
    """
    from controller.cli.doctor.findings import run, summary, worst
    from wire.version import full_version

    host, first = _host(config_file, roles, settings, options)
    found, all_returned = run(_checks(host), timeout_s)
    findings = [*first, *found]
    status = worst(findings)
    result = {
        "status": status,
        "version": full_version(),
        "roles": list(host.roles),
        "checks": [
            {"check": f.check, "status": f.status, "text": f.text, "remedy": f.remedy} for f in findings
        ],
    }
    lines = [line for finding in findings for line in finding.lines()]
    emit(result, as_json, "\n".join([*lines, f"{' and '.join(host.roles)}: {summary(findings)}"]))
    code = 1 if status == "fail" else 0
    if not all_returned:
        # A call that hangs in a driver would hang the end of the process too.
        sys.stdout.flush()
        os._exit(code)
    raise SystemExit(code)


def _host(
    config_file: str | None, roles: tuple[str, ...], settings: tuple[str, ...], options: dict[str, Any]
) -> tuple[Host, list[Finding]]:
    """What is to be checked, and what was found of the configuration, which says much of it."""
    from controller import checks
    from controller.cli.doctor.host import Host

    config, path, first = _configuration(config_file, settings) if config_file else (None, None, [])
    roles = tuple(dict.fromkeys(roles)) or _guess(config_file, options)
    links = config.links if config else None
    listens: dict[str, tuple[str, str]] = {}
    if "controller" in roles and config:
        listens |= {f"links.{name}.address": of for name, of in checks.servers(config).items()}
    if "edge" in roles:
        listens["--address"] = (options["address"] or "127.0.0.1:50061", "grpc")
        if options["metrics"]:
            listens["--metrics"] = (options["metrics"], "tcp")
    keys = options["keys"] or (Path(config.security.keys) if config and config.security.keys else None)
    own = (links.operator.address or "") if links else ""
    host = Host(
        roles=roles,
        config_file=path,
        config=config,
        keys=keys,
        cell=options["cell"] or (config.cells[0].id if config else "cell-1"),
        listens=listens,
        ran=options["ran"] or (links.ran.address if links and "gnb" in roles else ""),
        qos=options["qos"] or ((links.qos.address or "") if links and "ue" in roles else ""),
        operator=options["operator"] or own or (OPERATOR_ADDRESS if roles == () else ""),
        edge=(links.edge.address or "") if links else "",
        backend=options["backend"] or "nvml",
        gpus=options["gpus"],
        ptp_sockets=options["ptp_sockets"],
        phc=options["phc"],
        oai=options["oai"],
        module=options["module"],
        run=options["run"],
        edge_metrics=options["metrics"],
        answer_s=options["answer_s"],
    )
    return host, first


def _guess(config_file: str | None, options: dict[str, Any]) -> tuple[str, ...]:
    """The roles that the arguments speak of."""
    found = ["controller"] if config_file else []
    if options["address"] or options["backend"] or options["gpus"] or options["metrics"]:
        found.append("edge")
    if options["ran"] or options["oai"] or options["module"]:
        found.append("gnb")
    if options["qos"]:
        found.append("ue")
    if not found:
        raise click.UsageError(
            f"what is this host? Give the controller's CONFIG, or --role {'|'.join(ROLES)}"
        )
    return tuple(found)


def _configuration(
    config_file: str, settings: tuple[str, ...]
) -> tuple[Config | None, Path | None, list[Finding]]:
    """The configuration, its file, and what is wrong with it; one that only this host cannot run is used."""
    from controller import config
    from controller.cli.configuration import checked
    from controller.cli.doctor.findings import fail, ok
    from controller.cli.processes import parse_settings

    again = f"mend it there; `prbandit check-config {config_file}` says the same"
    path = None
    try:
        path = config.find(config_file)
        whole = checked(config_file, settings)
        return whole, path, [ok("configuration", f"{path}, hash {whole.digest}")]
    except config.ConfigError as error:
        wrong = [fail("configuration", line, again) for line in str(error).splitlines()]
    try:
        return (config.load(path, parse_settings(settings)) if path else None), path, wrong
    except config.ConfigError:
        return None, path, wrong


def _checks(host: Host) -> dict[str, Check]:
    """What is looked at on a host of these roles."""
    from controller.cli.doctor import clock, disk, gpu, keys, oai, peers, ports, software

    checks: dict[str, Check] = {
        "version": software.versions,
        "limits": software.limits,
        "ports": partial(ports.check, host),
        "keys": partial(keys.check, host),
        "clock": partial(clock.check, host),
    }
    if "controller" in host.roles:
        checks |= {"disk": partial(disk.check, host), "edge agent": partial(peers.edge_agent, host)}
    if "edge" in host.roles:
        checks["GPU"] = partial(gpu.check, host)
    if "gnb" in host.roles:
        checks |= {"RAN link": partial(peers.ran_link, host), "OAI module": partial(oai.check, host)}
    if "ue" in host.roles:
        checks["QoS ingest"] = partial(peers.qos_ingest, host)
    checks["controller"] = partial(peers.controller, host)
    return checks
