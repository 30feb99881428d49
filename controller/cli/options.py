"""The kinds of numbers that options take, and options of several commands."""

from __future__ import annotations

import math
from typing import Any

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
SECONDS = Quantity(0, 1e9, min_open=True)
"""A time: up to thirty years, as timers overflow not far beyond."""

warm_start_option = click.option(
    "--warm-start",
    metavar="RUN|CHECKPOINT[:CELL]",
    help="Begin with what another run or cell has learned; what does not fit begins from nothing.",
)
