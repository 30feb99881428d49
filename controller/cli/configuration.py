"""``check-config`` and ``keys``."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli import emit, json_option


@click.command("check-config")
@click.argument("file")
@json_option
def check_config(file: str, as_json: bool) -> None:
    """Check a configuration or scenario FILE and print it with every default written out."""
    from controller import config

    checked = config.load(config.find(file))
    emit(
        {"file": file, "ok": True, "config": checked.model_dump(mode="json")},
        as_json,
        checked.to_yaml().rstrip(),
    )


@click.command("keys")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--cell", "cells", multiple=True, required=True, help="Cell id; once for each cell.")
@click.option("--host", "hosts", multiple=True, help="Host name or address that the certificates name.")
@click.option(
    "--agent",
    "agents",
    multiple=True,
    metavar="ROLE@HOST",
    help="A certificate of that role which speaks for that host alone, such as ptp-agent@edge-1.",
)
@click.option("--days", default=825, show_default=True, help="How long the certificates hold.")
@json_option
def keys(
    folder: Path,
    cells: tuple[str, ...],
    hosts: tuple[str, ...],
    agents: tuple[str, ...],
    days: int,
    as_json: bool,
) -> None:
    """Write CURVE keys and TLS certificates to FOLDER; those that are there already stay."""
    from wire import keys as wire_keys

    written = wire_keys.create(folder, cells=list(cells), hosts=list(hosts), agents=list(agents), days=days)
    names = [str(path) for path in written]
    emit({"written": names}, as_json, "\n".join(names) or f"all keys were already in {folder}")
