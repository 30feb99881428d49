"""What an operator does to a running controller; everything goes through the operator API."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from controller.cli import emit, json_option
from controller.cli.options import DURATION
from controller.core import rescue


def _connection(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--operator", default="127.0.0.1:50063", show_default=True, help="The controller's operator API."
    )(command)
    return click.option("--keys", help="Folder of TLS certificates (prbandit keys).")(command)


def _client(operator: str, keys: str | None) -> Any:
    from controller.links.operator import OperatorClient
    from wire.security import Tls

    tls = Tls(Path(keys), "operator") if keys else None
    return OperatorClient(operator, tls, setting="--operator", missing="--keys")


def _command(operator: str, keys: str | None, as_json: bool, call: Callable[[Any], str]) -> None:
    with _client(operator, keys) as client:
        message = call(client)
    emit({"ok": True, "message": message}, as_json, message)


@click.command("status")
@_connection
@json_option
def status(operator: str, keys: str | None, as_json: bool) -> None:
    """What the controller is doing now."""
    with _client(operator, keys) as client:
        state = client.state()
    lines = [
        f"controller {state['version']}, control slot {state['control_slot_s']:g} s, run {state['run_dir']}"
    ]
    for cell in state["cells"]:
        quotas = (cell["last"] or {}).get("quotas") or {}
        quotas_text = ", ".join(f"{name} UL {ul} DL {dl} PRB" for name, (ul, dl) in quotas.items())
        lines.append(
            f"cell {cell['cell_id']}: {'connected' if cell['connected'] else 'not connected'}, "
            f"mode {cell['mode']}, {cell['control_slots']} control slots, {cell['active_flows']} flows, "
            f"quotas {quotas_text or 'none'}, GPU {cell['sm_mhz'] or '-'} MHz"
        )
        for name, s in (cell["last"] or {}).get("slices", {}).items():
            if "rescue" in s:
                lines.append(f"  slice {name} gets more than it asks for: {rescue.text(s['rescue'])}")
        lines += map(_clock_line, cell["clocks"])
    emit(state, as_json, "\n".join(lines))


def _clock_line(clock: dict[str, Any]) -> str:
    """A host's clock as one line."""
    state = clock["ptp_state"]
    known = f"{state}, offset {clock['offset_ns'] / 1e3:.1f} us, {clock['age_s']:.1f} s ago" if state else ""
    return f"  clock of {clock['host']}: {', '.join(filter(None, (known, clock['fault'] or 'usable')))}"


@click.command("watch")
@_connection
@click.option("--cell", default="", help="Only this cell.")
@click.option("--count", type=int, help="Stop after so many decisions.")
@json_option
def watch(operator: str, keys: str | None, cell: str, count: int | None, as_json: bool) -> None:
    """Print decisions as they are made."""
    with _client(operator, keys) as client:
        for seen, record in enumerate(client.watch(cell), 1):
            click.echo(json.dumps(record) if as_json else decision_line(record))
            if count and seen >= count:
                break


def decision_line(record: dict[str, Any]) -> str:
    """One decision as one line."""
    parts = [f"{record['cell']} #{record['control_slot']} {record['mode']}"]
    if "ended" in record:
        parts.append(f"early: {record['ended']}")
    for name, s in record["slices"].items():
        met = s["closed"]["met"]
        parts.append(f"{name}: last QoS {'-' if met is None else met}")
        parts += [
            f"{c['lever']} {c['action']:g} {c['unit']} ({c['why']}{_state(c)})"
            for c in s["choices"]
            if not c.get("user")
        ]
        if s["settings"]:
            parts.append(f"settings of {len(s['settings'])} users")
        if "rescue" in s:
            parts.append(f"more than it asks for: {rescue.text(s['rescue'])}")
        for what, why in s.get("failed", {}).items():
            parts.append(f"{what} failed: {why}")
    return "  ".join(parts)


def _state(choice: dict[str, Any]) -> str:
    """From what a choice was made: its state, or the demand where there are no states."""
    state, demand = choice["state"], choice["demand"]
    if state is not None:
        return f", state {state}"
    return f", demand {demand:.1f} PRB" if choice["actions"] and demand is not None else ""


@click.command("mode")
@click.argument("mode", type=click.Choice(["active", "shadow", "frozen", "released"]))
@click.option("--cell", default="", help="Only this cell.")
@_connection
@json_option
def mode(mode: str, cell: str, operator: str, keys: str | None, as_json: bool) -> None:
    """Change the MODE at once: active, shadow, frozen or released."""
    _command(operator, keys, as_json, lambda c: c.set_mode(cell, mode))


@click.command("policy")
@click.argument("policy")
@click.option("--cell", default="", help="Only this cell.")
@click.option("--slice", "slice_id", default="", help="Only this slice.")
@_connection
@json_option
def policy(policy: str, cell: str, slice_id: str, operator: str, keys: str | None, as_json: bool) -> None:
    """Play POLICY from the next control slot on; it starts to learn anew."""
    _command(operator, keys, as_json, lambda c: c.switch_policy(cell, slice_id, policy))


@click.command("budgets")
@click.argument("ul_ms", type=float)
@click.argument("edge_ms", type=float)
@click.argument("dl_ms", type=float)
@click.option("--cell", default="", help="Only this cell.")
@click.option("--slice", "slice_id", default="", help="Only this slice.")
@_connection
@json_option
def budgets(
    ul_ms: float,
    edge_ms: float,
    dl_ms: float,
    cell: str,
    slice_id: str,
    operator: str,
    keys: str | None,
    as_json: bool,
) -> None:
    """Judge by other hop budgets (ms) from the next control slot on."""
    _command(operator, keys, as_json, lambda c: c.set_budgets(cell, slice_id, ul_ms, edge_ms, dl_ms))


@click.command("options")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option("--cell", default="", help="Only this cell.")
@click.option("--slice", "slice_id", default="", help="Only this slice.")
@_connection
@json_option
def options(
    changes: tuple[str, ...], cell: str, slice_id: str, operator: str, keys: str | None, as_json: bool
) -> None:
    """Set options of slices from the next control slot on, as the configuration has them.

    VALUE is YAML and takes the place of the whole option: prbandit options --slice ar metric=p90 queue=false
    """
    text = _options(changes)
    _command(operator, keys, as_json, lambda c: c.set_options(cell, slice_id, text))


def _options(changes: Sequence[str]) -> str:
    """KEY=VALUE... as one YAML mapping; UsageError, naming the option, for what is none."""
    import yaml

    from controller.config import StrictLoader

    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not (name and equals):
            raise click.UsageError(f"{change}: KEY=VALUE is needed")
        if name in values:
            raise click.UsageError(f"{name}: given twice")
        try:
            values[name] = yaml.load(text, Loader=StrictLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise click.UsageError(f"{name}: {getattr(error, 'problem', None) or error}") from error
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


@click.command("quota")
@click.argument("cell")
@click.argument("slice_id", metavar="SLICE")
@click.option("--ul", type=int, metavar="PRB", help="Uplink; without it the policy's.")
@click.option("--dl", type=int, metavar="PRB", help="Downlink; without it the policy's.")
@click.option(
    "--for", "for_s", type=DURATION, help="How long: 60s, 5m; 1h at most. Needed with --ul or --dl."
)
@click.option("--clear", is_flag=True, help="End what was set before its time.")
@_connection
@json_option
def quota(
    cell: str,
    slice_id: str,
    ul: int | None,
    dl: int | None,
    for_s: float | None,
    clear: bool,
    operator: str,
    keys: str | None,
    as_json: bool,
) -> None:
    """Move the quotas of SLICE in CELL by hand, for a time; then its policy goes on.

    The quotas go out under a lease: where the controller dies, the gNB is back at all PRBs when it ends.
    Nothing is learned from the slice meanwhile, nothing but its time or an operator ends it (a mode without
    quotas, a reload that changes the cell, a restart of the controller), and it is in the run record.

    prbandit quota cell-1 ar --ul 20 --dl 40 --for 60s
    """
    if clear:
        if (ul, dl, for_s) != (None, None, None):
            raise click.UsageError("--clear goes without --ul, --dl and --for")
        _command(operator, keys, as_json, lambda c: c.clear_quota(cell, slice_id))
        return
    if ul is None and dl is None:
        raise click.UsageError("--ul, --dl or both are needed (PRB), or --clear")
    if for_s is None:
        raise click.UsageError("--for is needed: how long, such as 60s or 5m")
    _command(operator, keys, as_json, lambda c: c.set_quota(cell, slice_id, ul, dl, for_s))


@click.command("reload")
@_connection
@json_option
def reload(operator: str, keys: str | None, as_json: bool) -> None:
    """Read the configuration file again; a bad one changes nothing."""
    _command(operator, keys, as_json, lambda c: c.reload())


@click.command("checkpoint")
@_connection
@json_option
def checkpoint(operator: str, keys: str | None, as_json: bool) -> None:
    """Write what has been learned to a checkpoint in the run folder."""
    _command(operator, keys, as_json, lambda c: c.checkpoint())
