"""``completion``, and the values that a shell completes: those known here, and a controller's cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from controller.cli import cli, emit, json_option
from controller.core.measure import RESOURCES
from wire import OPERATOR_ADDRESS

SHELLS = ("bash", "fish", "zsh")
_ANSWER_S = 0.5
"""Who presses TAB does not wait for a controller longer than that."""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print the script that makes SHELL complete commands, options and values.

    \b
      bash  eval "$(prbandit completion bash)"       in ~/.bashrc
      zsh   eval "$(prbandit completion zsh)"        in ~/.zshrc
      fish  prbandit completion fish | source        in ~/.config/fish/config.fish

    Cells and slices are those of the controller that --operator and --keys name, if it answers at once.
    """
    made = get_completion_class(shell)
    assert made is not None
    script = made(cli, {}, "prbandit", "_PRBANDIT_COMPLETE").source()
    emit({"shell": shell, "script": script}, as_json, script)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def policies(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from controller import policies as room

    return _items(("default", *room.names()), incomplete)


def listed(one: Completer) -> Completer:
    """Of words with commas between, the last."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(f"{before}{comma}{item.value}")
            for item in one(ctx, parameter, last)
            if item.value not in before.split(",")
        ]

    return complete


def scenarios(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The scenarios that ship with it, or a file."""
    from controller import config

    return _items(sorted(config.scenarios()), incomplete) or [CompletionItem(incomplete, type="file")]


def hops(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _items(RESOURCES, incomplete)


def cells(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _items((cell["cell_id"] for cell in _cells(ctx)), incomplete)


def slices(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Those of the cell that the line names, or of all."""
    names: dict[str, None] = {}
    for cell in _cells(ctx):
        if ctx.params.get("cell") in (None, "", cell["cell_id"]):
            names |= dict.fromkeys(s["slice"] for s in cell["slices"])
    return _items(names, incomplete)


def _cells(ctx: click.Context) -> list[dict[str, Any]]:
    """What the line's controller tells; nothing where it does not answer: a shell shows no errors here."""
    from controller.cli.operate import connect

    try:
        with connect(
            ctx.params.get("operator") or OPERATOR_ADDRESS, ctx.params.get("keys"), _ANSWER_S
        ) as client:
            found: list[dict[str, Any]] = client.state()["cells"]
            return found
    except Exception:
        return []
