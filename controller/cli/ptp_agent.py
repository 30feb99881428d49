"""``ptp-agent``: what this host's clock is worth."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from pathlib import Path

import click

from controller.cli.logs import life, log_options, log_to_stderr
from controller.cli.options import SECONDS
from controller.cli.processes import stop_on_signals
from controller.cli.refusals import Refusals
from controller.cli.supervisor import tell_alive

log = logging.getLogger(__name__)


@click.command("ptp-agent")
@click.option("--host", required=True, help="This host's name, the one that its frames are reported under.")
@click.option("--cell", "cells", multiple=True, help="Cell whose frames this clock stamps; may be repeated.")
@click.option(
    "--qos", default="127.0.0.1:50062", show_default=True, help="The controller's QoS ingest; '' for none."
)
@click.option(
    "--socket",
    "sockets",
    type=click.Path(path_type=Path),
    multiple=True,
    help="ptp4l's socket; by default ptp4lro or ptp4l in /var/run.",
)
@click.option(
    "--domain",
    type=click.IntRange(0, 255),
    help="ptp4l's domainNumber; by default the one that it answers in.",
)
@click.option(
    "--transport-specific",
    type=click.IntRange(0, 15),
    help="ptp4l's transportSpecific; by default the one that it answers in, 0 or 1.",
)
@click.option(
    "--reply-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the socket that ptp4l answers to, its path some 80 bytes at most; by default the "
    "service's runtime directory.",
)
@click.option(
    "--phc",
    type=click.Path(path_type=Path),
    help="The hardware clock that ptp4l steers, such as /dev/ptp0; without it the system clock itself.",
)
@click.option("--grandmaster", is_flag=True, help="This host is meant to be the source of time.")
@click.option("--follow", multiple=True, metavar="ID", help="Accept this grandmaster; may be repeated.")
@click.option("--interval", type=SECONDS, default=1.0, show_default=True, help="Seconds between readings.")
@click.option(
    "--silence",
    type=SECONDS,
    default=3.0,
    show_default=True,
    help="Seconds without a Sync until the offset is history; at least three times what lies between two "
    "Syncs (ptp4l's logSyncInterval, or longer where fewer come), but no more than 48 for that.",
)
@click.option("--metrics", help="Serve Prometheus metrics on host:port.")
@click.option("--keys", help="Folder of CURVE keys and TLS certificates (prbandit keys).")
@click.option("--duration", type=SECONDS, help="Stop after so many seconds.")
@click.option(
    "--heartbeat", type=click.Path(path_type=Path), help="Touch this file once a second while all is well."
)
@log_options
def ptp_agent(
    host: str,
    cells: tuple[str, ...],
    qos: str,
    sockets: tuple[Path, ...],
    domain: int | None,
    transport_specific: int | None,
    reply_dir: Path | None,
    phc: Path | None,
    grandmaster: bool,
    follow: tuple[str, ...],
    interval: float,
    silence: float,
    metrics: str | None,
    keys: str | None,
    duration: float | None,
    heartbeat: Path | None,
    verbose: bool,
    log_format: str,
) -> None:
    """Watch the clock of this host: tell the controller what ptp4l says of it."""
    from agents.heartbeat import write_heartbeat
    from agents.ptp.client import SOCKETS
    from agents.ptp.service import PtpAgent
    from wire.security import Tls

    log_to_stderr(verbose, log_format)
    with Refusals() as refusals:
        refusals.connects({"--qos": qos}, keys)
        refusals.listens({"--metrics": metrics}, keys)
        refusals.keys(keys, "ptp-agent")
    stop = stop_on_signals()
    agent = PtpAgent(
        host=host,
        cells=cells,
        address=qos or None,
        tls=Tls(Path(keys), "ptp-agent") if keys else None,
        metrics_address=metrics,
        sockets=sockets or SOCKETS,
        domain=domain,
        transport_specific=transport_specific,
        reply_dir=reply_dir,
        phc=phc,
        grandmaster=grandmaster,
        follow=follow,
        interval_s=interval,
        silence_s=silence,
    )

    def beat() -> None:
        tell_alive()
        if heartbeat:
            with suppress(OSError):  # who looks for it will miss it
                write_heartbeat(heartbeat, {"state": agent.status.state, "counters": agent.counters})

    facts: dict[str, object] = {"host": host, "cells": " ".join(cells) or "none", "qos": qos or "none"}
    with life(log, "ptp-agent", facts, duration) as totals:
        try:
            agent.run(stop, duration_s=duration or math.inf, beat=beat)
        finally:
            totals.update({"state": agent.status.state, **agent.counters})
            agent.close()
