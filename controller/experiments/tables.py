"""Rows as a Parquet file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controller.store.files import write_atomic
from wire.definitions.extras import needs


def require_parquet() -> None:
    """ImportError, naming the extra ``research``, where Parquet cannot be written: before the long work."""
    with needs("research", "Parquet"):
        import pyarrow.parquet  # noqa: F401


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a table, atomically; a column that a row lacks is null there.

    ImportError as :func:`require_parquet`, OSError where the file cannot be written.
    """
    require_parquet()
    import pyarrow
    import pyarrow.parquet

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [_plain(row.get(name)) for row in rows] for name in names}
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({n: _array(c) for n, c in columns.items()}), out)
    write_atomic(path, out.getvalue())


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
