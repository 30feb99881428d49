"""What an operator does to a running controller; everything goes through the operator API."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from controller.cli import FAILED, UNREACHABLE, completion, emit, error_object, health, json_option
from controller.cli.options import DURATION
from controller.cli.text import fitted
from controller.links.health import verdict
from wire import OPERATOR_ADDRESS

if TYPE_CHECKING:
    from controller.links.operator import OperatorClient


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--operator", default=OPERATOR_ADDRESS, show_default=True, help="The controller's operator API."
    )(command)
    return click.option("--keys", help="Folder of TLS certificates (prbandit keys).")(command)


def connect(operator: str, keys: str | None, timeout_s: float = 10.0) -> OperatorClient:
    """A client of the operator API; UsageError for an address or keys that cannot be used."""
    from controller.links.operator import OperatorClient, operator_tls

    try:
        tls = operator_tls(Path(keys)) if keys else None
        return OperatorClient(operator, tls, timeout_s=timeout_s, setting="--operator", missing="--keys")
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error


def _command(operator: str, keys: str | None, as_json: bool, call: Callable[[OperatorClient], str]) -> None:
    with connect(operator, keys) as client:
        message = call(client)
    emit({"ok": True, "message": message}, as_json, message)


@click.command("status")
@connection_options
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
        with connect(operator, keys) as client:
            state = client.state()
    except (OSError, click.UsageError) as error:  # keys that cannot be used are no way to it either
        _unreachable(str(error), as_json)
    state["health"] = verdict(state)
    emit(state, as_json, "\n".join(fitted(health.describe(state))))
    if state["health"]["reasons"]:
        raise SystemExit(FAILED)


def _unreachable(why: str, as_json: bool) -> NoReturn:
    if as_json:
        verdict = {"health": {"status": "unreachable", "reasons": [why]}}
        click.echo(json.dumps({**error_object(why, UNREACHABLE), **verdict}))
    click.echo(f"prbandit: {why}", err=True)
    raise SystemExit(UNREACHABLE)


@click.command("mode")
@click.argument("mode", type=click.Choice(["active", "shadow", "frozen", "released"]))
@click.option("--cell", default="", shell_complete=completion.cells, help="Only this cell.")
@connection_options
@json_option
def mode(mode: str, cell: str, operator: str, keys: str | None, as_json: bool) -> None:
    """Change the MODE at once: active, shadow, frozen or released."""
    _command(operator, keys, as_json, lambda c: c.set_mode(cell, mode))


@click.command("policy")
@click.argument("policy", shell_complete=completion.policies)
@click.option("--cell", default="", shell_complete=completion.cells, help="Only this cell.")
@click.option("--slice", "slice_id", default="", shell_complete=completion.slices, help="Only this slice.")
@click.option(
    "--hop",
    default="",
    shell_complete=completion.hops,
    help="Only this hop (ul, edge, dl); the others go on learning.",
)
@connection_options
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
@click.option("--cell", default="", shell_complete=completion.cells, help="Only this cell.")
@click.option("--slice", "slice_id", default="", shell_complete=completion.slices, help="Only this slice.")
@connection_options
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
@click.option("--cell", default="", shell_complete=completion.cells, help="Only this cell.")
@click.option("--slice", "slice_id", default="", shell_complete=completion.slices, help="Only this slice.")
@connection_options
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
@click.argument("cell", shell_complete=completion.cells)
@click.argument("slice_id", metavar="SLICE", shell_complete=completion.slices)
@click.option("--ul", type=int, metavar="PRB", help="Uplink; without it the policy's.")
@click.option("--dl", type=int, metavar="PRB", help="Downlink; without it the policy's.")
@click.option(
    "--for", "for_s", type=DURATION, help="How long: 60s, 5m; 1h at most. Needed with --ul or --dl."
)
@click.option("--clear", is_flag=True, help="End what was set before its time.")
@connection_options
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
@connection_options
@json_option
def lease(seconds: float, operator: str, keys: str | None, as_json: bool) -> None:
    """Let quotas and clock locks hold for SECONDS without renewal, from now on."""
    _command(operator, keys, as_json, lambda c: c.set_lease(seconds))


@click.command("shutdown")
@connection_options
@json_option
def shutdown(operator: str, keys: str | None, as_json: bool) -> None:
    """Release everything and end the controller; a supervisor may start it again."""
    _command(operator, keys, as_json, lambda c: c.shut_down())


@click.command("reload")
@connection_options
@json_option
def reload(operator: str, keys: str | None, as_json: bool) -> None:
    """Read the configuration file again; a bad one changes nothing."""
    _command(operator, keys, as_json, lambda c: c.reload())


@click.command("checkpoint")
@connection_options
@json_option
def checkpoint(operator: str, keys: str | None, as_json: bool) -> None:
    """Write what has been learned to a checkpoint in the run folder."""
    _command(operator, keys, as_json, lambda c: c.checkpoint())
