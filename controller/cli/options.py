"""The kinds of numbers that options take, and options of several commands."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import click


class Quantity(click.FloatRange):
    """A range of numbers without NaN, which ``click.FloatRange`` takes for any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


AMOUNT = Quantity(0, 1e12)
"""Any amount that is not negative."""
SEED = click.IntRange(0, 2**63 - 1)
SECONDS = Quantity(0, 1e9, min_open=True)
"""A time: up to thirty years, as timers overflow not far beyond."""


class Duration(click.ParamType):
    """``60``, ``60s``, ``1.5m`` or ``1h`` as seconds."""

    name = "TIME"
    _UNITS: ClassVar[Mapping[str, float]] = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        parts = re.fullmatch(r"([-+]?[0-9]*\.?[0-9]+) *([a-z]*)", str(value).strip(), re.ASCII)
        if parts is None or (parts[2] or "s") not in self._UNITS:
            self.fail(f"{value!r} is not a time such as 60s, 5m or 1h", param, ctx)
        return float(parts[1]) * self._UNITS[parts[2] or "s"]


DURATION = Duration()

qos_target_option = click.option(
    "--qos-target",
    type=Quantity(0.5, 1, max_open=True),
    help="Part of what full resources would deliver that policy default is to keep (0.98).",
)
warm_start_option = click.option(
    "--warm-start",
    metavar="RUN|CHECKPOINT[:CELL]",
    help="Begin with what another run or cell has learned; what does not fit begins from nothing.",
)


class Seeds(click.ParamType):
    """``3`` is seeds 1, 2, 3; ``4,7`` is those."""

    name = "N|A,B,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = [int(part) for part in str(value).rstrip(",").split(",")]
        except ValueError:
            self.fail(f"{value!r} is neither a number of seeds nor seeds with commas", param, ctx)
        if "," not in str(value):
            numbers = list(range(1, numbers[0] + 1))
        if not numbers or min(numbers) < 0:
            self.fail(f"{value!r}: at least one seed, none negative", param, ctx)
        if len(set(numbers)) != len(numbers):
            self.fail(f"{value!r}: a seed is there twice", param, ctx)
        return tuple(numbers)


class Listed(click.ParamType):
    """``a,b``: one or more words, or whole numbers, with commas between."""

    def __init__(self, of: type[str] | type[int]) -> None:
        self._of = of
        self.name = "N,..." if of is int else "NAME,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self._of(part.strip()) for part in str(value).rstrip(",").split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers with commas", param, ctx)


SEEDS = Seeds()
NUMBERS = Listed(int)
NAMES = Listed(str)


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the runs of a grid are done (``jobs``, ``scheduler``, ``keys``), and whether kept ones count
    (``fresh``)."""
    for option in (
        click.option("--fresh", is_flag=True, help="Forget the runs that are already there."),
        click.option(
            "--keys", type=click.Path(path_type=Path), help="Keys for a scheduler at tls:// (prbandit keys)."
        ),
        click.option(
            "--scheduler",
            metavar="tcp|tls://HOST:PORT",
            help="Run on this Dask cluster (extra: sweep); tcp:// on loopback alone.",
        ),
        click.option(
            "--jobs", type=click.IntRange(1), default=2, show_default=True, help="Local worker processes."
        ),
    ):
        command = option(command)
    return command
