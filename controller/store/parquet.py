"""Parquet files, written batch by batch; several of them appear together or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from wire.definitions.extras import needs


def require() -> None:
    """ImportError, naming the extra ``research``, where Parquet cannot be written: before the long work."""
    with needs("research", "Parquet"):
        import pyarrow.parquet  # noqa: F401


class Files:
    """Parquet files in the making, each under another name beside its own until the block ends.

    At its end all take their names, replacing what bears them; where it is left by an exception, nothing has
    changed. ImportError as :func:`require`, OSError where a file cannot be written.
    """

    def __init__(self) -> None:
        require()
        self._open = ExitStack()
        self._names: dict[Path, str] = {}

    def __enter__(self) -> Files:
        return self

    def add(self, path: Path, schema: Any) -> Callable[[Any], None]:
        """A file of that Arrow schema; returns what takes its batches or tables, each a row group or more."""
        import pyarrow.parquet

        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        self._names[path] = name
        file = self._open.enter_context(os.fdopen(handle, "wb"))
        os.fchmod(file.fileno(), 0o644)
        # The last to be entered ends first: the writer writes its footer, then the file is synchronised.
        self._open.callback(_synchronise, file)
        writer = self._open.enter_context(pyarrow.parquet.ParquetWriter(file, schema, compression="zstd"))
        return lambda rows: writer.write(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._open.close()
            if error is None:
                while self._names:
                    path, name = next(iter(self._names.items()))
                    os.replace(name, path)
                    del self._names[path]
        finally:
            for name in self._names.values():
                with suppress(OSError):
                    os.unlink(name)


def _synchronise(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
