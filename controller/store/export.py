"""``prbandit export``: a run as Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from controller.store import parquet
from controller.store.rows import batches, schema
from controller.store.run import RunStore, StoreError
from controller.store.tables import TABLES

FOLDER = "export"
"""Where the files of a run go unless another folder is given."""


def export(
    run: Path,
    out: Path,
    names: Sequence[str],
    *,
    force: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Writes tables of the run in the folder ``run`` to ``out``, a file ``TABLE.parquet`` each; returns the
    rows of each.

    The run is only read, as it is at one moment, so that a controller may write it meanwhile. All files take
    their names at the end, or none does.

    Raises:
        ValueError: there is no such table, or a file that is there and may not be replaced (no ``force``).
        StoreError: there is no run, or it cannot be read.
        ImportError: pyarrow is not installed; names the extra ``research``.
        OSError: ``out`` cannot be written.
    """
    parquet.require()
    if unknown := [name for name in names if name not in TABLES]:
        raise ValueError(f"unknown table {', '.join(unknown)}; tables: {', '.join(TABLES)}")
    paths = {name: out / f"{name}.parquet" for name in names}
    with RunStore.open(run) as store:
        if not force and (present := [str(path) for path in paths.values() if path.exists()]):
            raise ValueError(
                f"{', '.join(present)}: there already; --force replaces it, --out names another folder"
            )
        try:
            return _write(store, out, paths, progress)
        except StoreError:
            raise
        except OSError as error:
            raise OSError(f"{out}: cannot be written: {error.strerror or error}") from error


def _write(
    store: RunStore, out: Path, paths: dict[str, Path], progress: Callable[[], None]
) -> dict[str, int]:
    out.mkdir(parents=True, exist_ok=True)
    rows = dict.fromkeys(paths, 0)
    with parquet.Files() as files:
        write: dict[str, Callable[[Any], None]] = {
            name: files.add(path, schema(TABLES[name])) for name, path in paths.items()
        }
        for name, batch in batches(store, list(paths), progress):
            write[name](batch)
            rows[name] += batch.num_rows
    return rows
