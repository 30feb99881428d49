"""``console``: a running controller as Python objects, at a prompt or for a script."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import FAILED
from controller.cli.operate import connection_options
from wire.definitions.extras import needs

if TYPE_CHECKING:
    from controller.console import Controller


@click.command("console")
@connection_options
@click.option(
    "--script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run this Python file in place of a prompt; it finds `controller` as the prompt does.",
)
def console(operator: str, keys: str | None, script: Path | None) -> None:
    """A Python prompt with the controller as objects (extra: console).

    \b
      controller.cells["cell-1"].slices["ar"].policy = "ucb1"
      controller.cells["cell-1"].decisions["ul"].delay      an array, one entry a control slot
      help(controller)

    Reading an attribute asks the controller, assigning to one commands it, through the operator API.
    """
    if script is None:
        with needs("console", "the console"):
            import ptpython  # noqa: F401
        if not sys.stdin.isatty():
            raise click.UsageError("the console needs a terminal; --script FILE runs a file")
    from controller.console import OperatorError, attach

    try:
        attached = attach(operator, keys)
    except OperatorError:
        raise
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    with attached:
        if script is None:
            from controller.console.prompt import run

            run(attached)
        else:
            _run(script, attached)


def _run(script: Path, attached: Controller) -> None:
    """A script's own mistakes have their traceback; what the controller says no to is a sentence."""
    from controller.console import CommandRefused, OperatorError

    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(script), "controller": attached}
    try:
        exec(compile(script.read_bytes(), str(script), "exec"), names)
    except (CommandRefused, OperatorError):
        raise
    except Exception:
        traceback.print_exc()
        raise SystemExit(FAILED) from None
