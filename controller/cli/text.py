"""Lines for a terminal, whatever is in them."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator

from controller.core.names import printable

NARROWEST = 20
"""Columns that a line is given at least."""


def fitted(lines: Iterable[str]) -> Iterator[str]:
    """The lines, printable, and broken at words where stdout is a terminal that is narrower."""
    width = max(NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None
    for line in map(printable, lines):
        if width is None or not line.strip():
            yield line
        else:
            yield from wrapped(line, width)


def wrapped(line: str, width: int) -> list[str]:
    """One line as lines of at most ``width`` columns, the further ones indented; a word stays whole."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def missed_text(cell: str, missed: int | None) -> str:
    """How many decisions of a cell were not seen; "" for none."""
    if missed is None:
        return f"{cell}: its control slots are counted anew; what came between was not seen"
    return f"{cell}: {missed} decision{'s' if missed > 1 else ''} not seen" if missed else ""


def lost_text(since: float, why: str) -> str:
    """A controller that cannot be reached since a time (Unix, s)."""
    at = time.strftime("%H:%M:%S", time.localtime(since))
    return f"controller not reachable since {at}, trying again: {why}"
