"""The ``prbandit`` command. One file a command group; each imports what it needs when it runs."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

import click

from controller.cli.logs import complain
from wire.definitions.extras import MissingExtra, is_ours, missing
from wire.version import full_version

_COMMANDS = {
    "up": "up",
    "controller": "processes",
    "gnb-mock": "processes",
    "user-plane": "user_plane",
    "edge-agent": "processes",
    "ptp-agent": "ptp_agent",
    "experiment": "experiment",
    "replay": "replay",
    "sweep": "sweep",
    "solve": "solve",
    "figures": "solve",
    "train": "solve",
    "calibrate": "calibrate",
    "openrtist": "openrtist",
    "oai": "oai",
    "report": "records",
    "export": "rundata",
    "compare": "rundata",
    "misses": "misses",
    "scenarios": "lists",
    "policies": "lists",
    "services": "lists",
    "arbiters": "lists",
    "metrics": "metrics",
    "check-config": "configuration",
    "keys": "configuration",
    "doctor": "doctor",
    "status": "operate",
    "watch": "operate",
    "mode": "operate",
    "policy": "operate",
    "lease": "operate",
    "shutdown": "operate",
    "budgets": "operate",
    "options": "operate",
    "quota": "operate",
    "reload": "operate",
    "checkpoint": "operate",
}


class Lazy(click.Group):
    """Loads the file of a command when it is called, so that ``controller`` needs no emulator.

    ``files`` says which file of ``package`` holds a command.
    """

    def __init__(self, *args: Any, package: str, files: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._package, self._files = package, dict(files)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._files)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._files:
            return None
        module = importlib.import_module(f"{self._package}.{self._files[name]}")
        command = getattr(module, name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"prbandit, version {full_version()}")
        context.exit()


@click.group(
    cls=Lazy, package=__name__, files=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version, with the commit that it was made from, and exit.",
)
def cli() -> None:
    """PRBandit: learns the fewest PRBs and GPU megahertz that still meet a delay target."""


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")


def emit(result: Any, as_json: bool, text: str) -> None:
    """Print a result as JSON or as text."""
    click.echo(json.dumps(result) if as_json else text)


_DISTRIBUTIONS = {"PIL": "pillow", "pynvml": "nvidia-ml-py"}
"""Modules that are called otherwise than the package that brings them."""


def _extra_of(module: str) -> str | None:
    """The first extra of this project that brings a module; None where none does."""
    top = module.partition(".")[0]
    package = _DISTRIBUTIONS.get(top, top).replace("_", "-").lower()
    try:
        wanted = requires("prbandit") or []
    except PackageNotFoundError:
        return None
    for requirement in wanted:
        if found := re.match(rf"{re.escape(package)}\b(?!-).*extra == ['\"]([\w-]+)['\"]", requirement):
            return found[1]
    return None


def main() -> None:
    """Entry point: an error that a person can mend is one line, not a traceback."""
    # gRPC's core logs every handshake that fails, and strangers can make as many as they like.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        complain(error.format_message(), "Error")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:
        if is_ours(error):
            raise
        if not isinstance(error, MissingExtra):
            if (extra := _extra_of(str(error.name))) is None:
                raise
            error = missing(error.name, extra)
        complain(str(error))
        sys.exit(1)
    except Exception as error:
        own = type(error).__module__.partition(".")[0] in ("controller", "wire", "agents")
        if not own and not isinstance(error, (ValueError, OSError)):
            raise
        complain(str(error))
        sys.exit(1)
