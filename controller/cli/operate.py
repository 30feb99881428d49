"""What an operator does to a running controller; everything goes through the operator API."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from controller.cli import emit, health, json_option
from controller.cli.options import DURATION
from controller.core import rescue
from controller.links.health import verdict
from wire import OPERATOR_ADDRESS
from wire.roles import OBSERVER, OPERATOR


def _connection(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--operator", default=OPERATOR_ADDRESS, show_default=True, help="The controller's operator API."
    )(command)
    return click.option("--keys", help="Folder of TLS certificates (prbandit keys).")(command)


def _client(operator: str, keys: str | None) -> Any:
    from controller.links.operator import OperatorClient
    from wire.security import Tls

    tls = Tls(Path(keys), _role(Path(keys))) if keys else None
    return OperatorClient(operator, tls, setting="--operator", missing="--keys")


def _role(keys: Path) -> str:
    """A host that may only look has no operator's certificate."""
    return OPERATOR if (keys / f"{OPERATOR}.crt").exists() else OBSERVER


def _command(operator: str, keys: str | None, as_json: bool, call: Callable[[Any], str]) -> None:
    with _client(operator, keys) as client:
        message = call(client)
    emit({"ok": True, "message": message}, as_json, message)


@click.command("status")
@_connection
@json_option
def status(operator: str, keys: str | None, as_json: bool) -> None:
    """What the controller is doing now: is it healthy, is it good, what does it play.

    \b
    Exit status, for monitoring:
      0  healthy
      1  degraded; the lines that begin with ! say why
      2  the controller cannot be reached
    With --json the object has it as "health".
    """
    try:
        with _client(operator, keys) as client:
            state = client.state()
    except (OSError, ValueError) as error:  # keys that cannot be used are no way to it either
        _unreachable(error, as_json)
    state["health"] = verdict(state)
    emit(state, as_json, "\n".join(_fitted(health.describe(state))))
    if state["health"]["reasons"]:
        raise SystemExit(health.DEGRADED)


def _unreachable(error: Exception, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"health": {"status": "unreachable", "reasons": [str(error)]}}))
    click.echo(f"prbandit: {error}", err=True)
    raise SystemExit(health.UNREACHABLE) from error


def _fitted(lines: Iterable[str]) -> Iterator[str]:
    """The lines, broken at words where a terminal is narrower."""
    if not sys.stdout.isatty():
        yield from lines
        return
    width = max(20, shutil.get_terminal_size().columns)
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        yield from textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )


@click.command("watch")
@_connection
@click.option("--cell", default="", help="Only this cell.")
@click.option("--count", type=int, help="Stop after so many decisions.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: a decision's whole record.")
def watch(operator: str, keys: str | None, cell: str, count: int | None, as_json: bool) -> None:
    """Print decisions as they are made: what is played, why, and what came of the slot before.

    Delays and other measures stand beside their budgets, in the line of the lever that they are of.
    """
    with _client(operator, keys) as client:
        for seen, record in enumerate(client.watch(cell), 1):
            for line in (json.dumps(record),) if as_json else _fitted([decision_line(record)]):
                click.echo(line)
            if count and seen >= count:
                break


def decision_line(record: dict[str, Any]) -> str:
    """One decision as one line."""
    parts = [f"{record['cell']} #{record['control_slot']} {record['mode']}"]
    if "ended" in record:
        parts.append(f"early: {record['ended']}")
    for name, s in record["slices"].items():
        closed = s["closed"]
        met = closed["met"]
        measures = dict(closed["measures"])
        levers = {c["lever"] for c in s["choices"] if not c.get("user")}
        rest = [
            f"{m.replace('_', ' ')} {health.measured(of)}" for m, of in measures.items() if m not in levers
        ]
        parts.append(", ".join([f"{name}: last QoS {'-' if met is None else met}", *rest]))
        if "manual" in s:
            parts.append(f"set by hand: {health.manual_text(s['manual'])}")
        for c in s["choices"]:
            if not c.get("user"):
                delay = f", {health.measured(measures[c['lever']])}" if c["lever"] in measures else ""
                played = health.played(c, s)
                parts.append(f"{c['lever']} {played:g} {c['unit']}{delay} ({c['why']}{_state(c)})")
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
@click.option("--hop", default="", help="Only this hop (ul, edge, dl); the others go on learning.")
@_connection
@json_option
def policy(
    policy: str, cell: str, slice_id: str, hop: str, operator: str, keys: str | None, as_json: bool
) -> None:
    """Play POLICY from the next control slot on; it starts to learn anew."""
    _command(operator, keys, as_json, lambda c: c.switch_policy(cell, slice_id, policy, hop))


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


@click.command("lease")
@click.argument("seconds", type=DURATION)
@_connection
@json_option
def lease(seconds: float, operator: str, keys: str | None, as_json: bool) -> None:
    """Let quotas and clock locks hold for SECONDS without renewal, from now on."""
    _command(operator, keys, as_json, lambda c: c.set_lease(seconds))


@click.command("shutdown")
@_connection
@json_option
def shutdown(operator: str, keys: str | None, as_json: bool) -> None:
    """Release everything and end the controller; a supervisor may start it again."""
    _command(operator, keys, as_json, lambda c: c.shut_down())


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
