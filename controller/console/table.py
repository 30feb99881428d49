"""Rows as a small table of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from controller.core.names import UnknownName, printable


def text(value: object) -> str:
    """One cell of a table."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows below their heads, columns two blanks apart; numbers stand to the right."""
    cells = [[text(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in (list(heads), *cells)) for i in range(len(heads))]
    right = [
        bool(rows) and all(v is None or isinstance(v, int | float | np.number) for v in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(heads)
    return "\n".join(
        "  ".join(
            word.rjust(width) if to_right else word.ljust(width)
            for word, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in (list(heads), *cells)
    )


class Table(Sequence[Mapping[str, Any]]):
    """Rows of equal keys. ``table["cqi"]`` is a column as an array, ``table[0]`` a row."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], heads: Sequence[str] = ()) -> None:
        self._rows = list(rows)
        self.heads = tuple(heads or (rows[0] if rows else ()))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._rows)

    @overload
    def __getitem__(self, key: str) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, key: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.heads:
                raise UnknownName(f"no column {key!r}; columns: {', '.join(self.heads)}")
            values = [row[key] for row in self._rows]
            numbers = all(v is None or isinstance(v, int | float) for v in values)
            return np.array([np.nan if v is None else v for v in values]) if numbers else np.array(values)
        return self._rows[key]

    def __repr__(self) -> str:
        if not self._rows:
            return "(none)"
        return table(self.heads, [[row[head] for head in self.heads] for row in self._rows])
