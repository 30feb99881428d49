"""``openrtist schedule`` and ``openrtist traffic``: on and off times, and the clients that keep them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import yaml

from controller.cli import children, emit, json_option
from controller.cli.logs import log_options, log_to_stderr
from controller.cli.openrtist.common import FILE, PATH, load
from controller.cli.options import AMOUNT, SECONDS
from controller.cli.processes import stop_on_signals
from wire.security import parse_address

_NOTHING = {"openrtist": "without a frame", "iperf3": "without effect"}


@click.command("schedule")
@click.option("--seed", default=4, show_default=True)
@click.option("--flows", default=2, show_default=True, type=click.IntRange(0), help="OpenRTiST flows.")
@click.option("--ue", "ues", multiple=True, help="UE of the next flow, in turn; repeatable (default: ue-1).")
@click.option("--length", default=3600.0, show_default=True, type=SECONDS, help="Seconds.")
@click.option("--mean-on", default=300.0, show_default=True, type=SECONDS)
@click.option("--mean-off", default=240.0, show_default=True, type=SECONDS)
@click.option("--min-on", default=120.0, show_default=True, type=AMOUNT)
@click.option("--min-off", default=120.0, show_default=True, type=AMOUNT)
@click.option(
    "--published", is_flag=True, help="As the authors' generator makes it, not as the paper describes it."
)
@click.option("--iperf3", default=0, show_default=True, type=click.IntRange(0), help="Background flows.")
@click.option("--iperf3-direction", type=click.Choice(["ul", "dl"]), default="dl", show_default=True)
@click.option("--iperf3-mbps", type=AMOUNT, default=5.0, show_default=True, help="0: all it gets.")
@click.option(
    "--iperf3-port", type=click.IntRange(1, 65535), default=5201, show_default=True, help="Of the first."
)
@json_option
def schedule(
    seed: int,
    flows: int,
    ues: tuple[str, ...],
    length: float,
    mean_on: float,
    mean_off: float,
    min_on: float,
    min_off: float,
    published: bool,
    iperf3: int,
    iperf3_direction: str,
    iperf3_mbps: float,
    iperf3_port: int,
    as_json: bool,
) -> None:
    """Print a schedule of on and off times (exponential, with minimums) for `traffic`.

    The defaults are scenario 1 of the paper.
    """
    from agents.emulator import schedule as onoff

    traffic = load("traffic")
    if not flows + iperf3:
        raise click.UsageError("a schedule without a flow")
    if published and max(mean_on, min_on, mean_off) < 1:
        raise click.UsageError("--published counts whole seconds: --mean-on and --mean-off are too short")
    # As many as there will be about, before they are made.
    cycle = max(mean_on, min_on) + max(mean_off, 0 if published else min_off)
    traffic.check_length(length, (flows + iperf3) * length / cycle)
    make = onoff.published if published else onoff.described
    times = make(
        flows + iperf3,
        length,
        mean_on_s=mean_on,
        mean_off_s=mean_off,
        min_on_s=min_on,
        min_off_s=min_off,
        seed=seed,
    )
    names = ues or ("ue-1",)
    made = []
    for i, on in enumerate(times):
        ue = names[i % len(names)]
        if i < flows:
            made.append(traffic.TrafficFlow(f"ar-{i + 1}", ue, "openrtist", on))
        else:
            number = i - flows
            made.append(
                traffic.TrafficFlow(
                    f"bg-{number + 1}", ue, "iperf3", on, iperf3_direction, iperf3_mbps, iperf3_port + number
                )
            )
    made_by = {
        "seed": seed,
        "kind": "published" if published else "described",
        "mean_on_s": mean_on,
        "mean_off_s": mean_off,
        "min_on_s": min_on,
        "min_off_s": min_off,
        "mean_active": round(onoff.mean_active(times, length), 3),
    }
    text = traffic.Schedule(length, tuple(made), made_by).to_yaml()
    emit(yaml.safe_load(text), as_json, text.rstrip())


@click.command("traffic")
@click.argument("schedule_file", metavar="SCHEDULE", type=FILE)
@click.option(
    "--server",
    "servers",
    multiple=True,
    required=True,
    metavar="[UE=]HOST:PORT",
    help="OpenRTiST server: of all UEs, or of one (its user-plane address, say); repeatable.",
)
@click.option("--video", help="Video of the OpenRTiST flows.")
@click.option(
    "--iperf3-server",
    "iperf3_servers",
    multiple=True,
    metavar="[UE=]HOST",
    help="Host of the iperf3 servers (default: the OpenRTiST server's); repeatable.",
)
@click.option(
    "--on-ue",
    multiple=True,
    metavar="UE=COMMAND",
    help="Prefix of a UE's commands: ue-1='ip netns exec ue1'; repeatable.",
)
@click.option("--logs", type=PATH, help="Folder of the flows' logs (default: a new one in runs/).")
@click.argument("client_options", nargs=-1, type=click.UNPROCESSED)
@log_options
@json_option
def traffic(
    schedule_file: Path,
    servers: tuple[str, ...],
    video: str | None,
    iperf3_servers: tuple[str, ...],
    on_ue: tuple[str, ...],
    logs: Path | None,
    client_options: tuple[str, ...],
    verbose: bool,
    log_format: str,
    as_json: bool,
) -> None:
    """Start and stop real clients as SCHEDULE says, for hours.

    What follows -- is handed to every OpenRTiST client: -- --size 160x80 --fps 30 --qos 127.0.0.1:50062.
    """
    import shlex
    import sys

    log_to_stderr(verbose, log_format)
    module = load("traffic")
    if client_options and not client_options[0].startswith("-"):
        raise click.UsageError(f"unexpected {client_options[0]!r}; options of the clients come after --")
    plan = module.read(schedule_file)
    if video is None and any(f.kind == "openrtist" for f in plan.flows):
        raise click.UsageError("--video is missing: the schedule has OpenRTiST flows")
    ues = {f.ue for f in plan.flows}
    server_of = _by_ue("--server", servers, ues)
    iperf3_of = _by_ue("--iperf3-server", iperf3_servers, ues)
    try:
        host_of = {ue: parse_address(server)[0] for ue, server in server_of.items()} | iperf3_of
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--server") from None
    prefixes = {ue: shlex.split(c) for ue, c in _by_ue("--on-ue", on_ue, ues, of_all=False).items()}
    for flow in plan.flows:
        if flow.ue not in (host_of if flow.kind == "iperf3" else server_of):
            raise click.UsageError(f"flow {flow.flow!r} of the schedule: no --server for {flow.ue}")

    def command_of(flow: Any, seconds: float) -> list[str]:
        prefix = prefixes.get(flow.ue, [])
        if flow.kind == "iperf3":
            return [*prefix, *module.iperf3_command(flow, host_of[flow.ue], seconds)]
        return [
            *(*prefix, sys.executable, "-m", "controller.cli", "openrtist", "client", server_of[flow.ue]),
            *("--video", str(video), "--loop", "--flow", flow.flow, "--ue", flow.ue, "--json"),
            *("--duration", f"{seconds:.3f}", *client_options),
        ]

    folder = logs or Path("runs") / time.strftime("traffic-%Y%m%d-%H%M%S")
    stop = stop_on_signals()
    children.hang_up_as_terminate()
    outcomes = module.Runner(plan, command_of, folder, start=children.start).run(stop.is_set)
    lines = []
    for row in outcomes:
        frames = f", {row['frames_sent']} frames, {row['frames_lost']} lost" if "frames_sent" in row else ""
        note = f" (skipped: {row['skipped']})" if row["skipped"] else ""
        if row["silent"]:
            frames += f", {row['silent']} of {row['intervals']} times on {_NOTHING[row['kind']]}"
        lines.append(
            f"{row['flow']:>8} on {row['ue']}: {row['on_s']:.1f} of {row['planned_s']:.1f} s,"
            f" {row['starts']} starts, {row['failures']} failed{frames}{note}"
        )
    emit({"schedule": str(schedule_file), "logs": str(folder), "flows": outcomes}, as_json, "\n".join(lines))
    if never := [row["flow"] for row in outcomes if not row["ran"]]:
        raise click.ClickException(f"no client of {', '.join(never)} did its work: see the logs in {folder}")


def _by_ue(option: str, settings: tuple[str, ...], ues: set[str], *, of_all: bool = True) -> dict[str, str]:
    """What an option says of each UE; a setting without ``UE=`` is that of all which have none of their
    own."""
    given: dict[str, str] = {}
    for setting in settings:
        ue, separator, value = setting.partition("=")
        if not separator and of_all:
            ue, value = "", setting
        if not value or (separator and not ue):
            raise click.BadParameter(f"{setting!r} is not UE=VALUE", param_hint=option)
        if ue and ue not in ues:
            raise click.BadParameter(f"{setting!r}: no flow of the schedule is on {ue}", param_hint=option)
        if ue in given:
            raise click.BadParameter(f"{ue or 'all UEs'}: set twice", param_hint=option)
        given[ue] = value
    default = given.pop("", None)
    return (dict.fromkeys(ues, default) if default is not None else {}) | given
