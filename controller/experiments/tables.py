"""Rows as a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controller.store import parquet


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a table, atomically; a column that a row lacks is null there.

    ImportError as :func:`controller.store.parquet.require`, OSError where the file cannot be written.
    """
    parquet.require()
    import pyarrow

    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pyarrow.table({n: _array([_plain(row.get(n)) for row in rows]) for n in names})
    with parquet.Files() as files:
        files.add(path, table.schema)(table)


def _plain(value: Any) -> Any:
    """A list or mapping, the value of a parameter, as text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _array(values: list[Any]) -> Any:
    import pyarrow

    kinds = {type(v) for v in values if v is not None}
    if kinds == {int, float}:
        values = [None if v is None else float(v) for v in values]
    elif len(kinds) > 1:
        values = [None if v is None else str(v) for v in values]
    return pyarrow.array(values)
