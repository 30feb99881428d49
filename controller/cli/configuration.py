"""``check-config`` and ``keys``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli import emit, json_option
from wire.definitions.nr import MAX_PRB

if TYPE_CHECKING:
    from controller.config import Config


def _reference(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from controller.reference import markdown

        click.echo(markdown(), nl=False)
        context.exit()


@click.command("check-config")
@click.argument("file")
@click.option(
    "--reference",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_reference,
    help="Print every key with its type, default, unit and meaning (Markdown), and end.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Replace a key of the file.")
@click.option(
    "--prb",
    type=click.IntRange(1, MAX_PRB),
    help="Of the gNBs' carrier, which FILE does not tell (default: that of its emulation, if it has one).",
)
@json_option
def check_config(file: str, settings: tuple[str, ...], prb: int | None, as_json: bool) -> None:
    """Check a configuration or scenario FILE and print it with every default written out.

    Says what `prbandit controller FILE` would say on this host, all mistakes at once, each with file, line
    and key, and ends with 1 where there is one.
    """
    found = checked(file, settings, prb)
    emit(
        {"file": file, "ok": True, "config": found.model_dump(mode="json")},
        as_json,
        found.to_yaml().rstrip(),
    )


def checked(file: str, settings: tuple[str, ...] = (), prb: int | None = None) -> Config:
    """A configuration that a controller on this host can run with; ConfigError: a line for each mistake."""
    from controller import config
    from controller.cli.processes import emulated, parse_settings
    from controller.loop import ControlLoop
    from controller.scenario import SCS_KHZ

    path = config.find(file)
    found = config.load(path, parse_settings(settings), here=True, carriers=prb)
    for cell in found.cells if found.emulation is not None else ():
        spec = emulated(file, found, 1, cell.id).cell
        try:
            ControlLoop(found.loop_spec(cell.id, prb or spec.n_prb, SCS_KHZ, spec.tdd))
        except ValueError as error:
            raise config.ConfigError(f"{path}: {error}") from error
    return found


@click.command("keys")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--cell", "cells", multiple=True, help="Cell id; once for each cell.")
@click.option("--host", "hosts", multiple=True, help="Host name or address that the certificates name.")
@click.option(
    "--agent",
    "agents",
    multiple=True,
    metavar="ROLE@HOST",
    help="A certificate of that role which speaks for that host alone, such as ptp-agent@edge-1.",
)
@click.option(
    "--revoke",
    metavar="NAME",
    help="Instead: let nobody in any more with the certificate of a role or ROLE@HOST, or the key of a cell.",
)
@click.option("--days", default=825, show_default=True, help="How long the certificates hold.")
@json_option
def keys(
    folder: Path,
    cells: tuple[str, ...],
    hosts: tuple[str, ...],
    agents: tuple[str, ...],
    revoke: str | None,
    days: int,
    as_json: bool,
) -> None:
    """Write CURVE keys and TLS certificates to FOLDER; those that are there already stay.

    What was revoked counts no more where the folder's list (revoked) is, within a second; a cell's key where
    the controller's folder lacks it, from `prbandit reload` on. Without --revoke the same command then writes
    new ones.
    """
    from wire import keys as wire_keys

    if revoke is not None:
        changed = [str(path) for path in wire_keys.revoke(folder, revoke)]
        emit({"revoked": revoke, "changed": changed}, as_json, "\n".join(changed))
        return
    if not cells:
        raise click.UsageError("--cell is needed: a cell's id, once for each cell")

    written = wire_keys.create(folder, cells=list(cells), hosts=list(hosts), agents=list(agents), days=days)
    names = [str(path) for path in written]
    emit({"written": names}, as_json, "\n".join(names) or f"all keys were already in {folder}")
