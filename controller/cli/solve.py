"""``solve``, ``figures`` and ``train``: a service's allocation problem once, the figures of its paper, and
what it learns beforehand.

What a service has of these stands in ``controller.experiments.<service>.commands``, as click commands of the
same names.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

import click

from controller import experiments
from wire.definitions.extras import MissingExtra, is_ours, missing

_ROOM = experiments.__name__


class _ByService(click.Group):
    """Its commands are those of its own name in the services' ``commands`` modules.

    What such a command needs and is not installed is the extra of the service's name.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [service for service in _services() if self._command(service) is not None]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return self._command(name) if name in _services() else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            there = ", ".join(self.list_commands(ctx)) or "none"
            raise click.UsageError(f"{ctx.info_name}: no service {args[0]!r}; there are: {there}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ImportError as error:
            raise _missing(error, ctx.invoked_subcommand) from error

    def _command(self, service: str) -> click.Command | None:
        try:
            command = getattr(import_module(_module(service)), self.name or "", None)
        except ImportError as error:
            raise _missing(error, service) from error
        assert command is None or isinstance(command, click.Command)
        return command


def _module(service: str) -> str:
    return f"{_ROOM}.{service}.commands"


def _services() -> list[str]:
    packages = sorted(found.name for found in iter_modules(experiments.__path__) if found.ispkg)
    return [name for name in packages if find_spec(_module(name)) is not None]


def _missing(error: ImportError, service: str | None) -> Exception:
    """What a person can do about it; the error itself where the module is one of ours."""
    if is_ours(error):
        return error
    said = error if isinstance(error, MissingExtra) else missing(error.name, str(service))
    return click.ClickException(str(said))


@click.group("solve", cls=_ByService, subcommand_metavar="SERVICE [ARGS]...")
def solve() -> None:
    """Solve a service's allocation problem once, from files: the least resources for each user."""


@click.group("figures", cls=_ByService, subcommand_metavar="SERVICE [ARGS]...")
def figures() -> None:
    """Redo the figures of a service's paper, from files: plots, tables and an HTML page."""


@click.group("train", cls=_ByService, subcommand_metavar="SERVICE [ARGS]...")
def train() -> None:
    """Train what a service's allocator takes as weights: never while the loop runs."""
