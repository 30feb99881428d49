"""A run as pandas data frames, for a notebook: :func:`prbandit.load_run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from controller.store.rows import batches, schema
from controller.store.run import DATABASE_FILE, RunStore, StoreError
from controller.store.tables import TABLES, Table
from wire.definitions.extras import needs

if TYPE_CHECKING:
    import pandas


class RunData:
    """The tables of a run, each a data frame that is read when it is first asked for.

    What the columns mean is in ``docs/run-data.md``. A controller may be writing the run: each frame is of
    the moment at which it was read; :meth:`read` reads several of one moment, and in one pass.

    Whole numbers and bits that may be missing are of pandas' ``Int64`` and ``boolean``, times are UTC.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frames: dict[str, pandas.DataFrame] = {}

    def __repr__(self) -> str:
        return f"<run {self.path}>"

    def read(self, *names: str) -> dict[str, pandas.DataFrame]:
        """The tables of those names (all of them where none is given), by name, read anew.

        ValueError for a name that is none; StoreError for a record that cannot be read.
        """
        names = names or tuple(TABLES)
        if unknown := [name for name in names if name not in TABLES]:
            raise ValueError(f"unknown table {', '.join(unknown)}; tables: {', '.join(TABLES)}")
        import pyarrow

        parts: dict[str, list[Any]] = {name: [] for name in names}
        if (self.path / DATABASE_FILE).is_file():
            with RunStore.open(self.path) as store:
                for name, batch in batches(store, names):
                    parts[name].append(batch)
            tables = {
                name: pyarrow.Table.from_batches(of, schema(TABLES[name])) for name, of in parts.items()
            }
        else:
            tables = {name: _of_file(self.path / f"{name}.parquet") for name in names}
        self._frames |= {name: _pandas(TABLES[name], table) for name, table in tables.items()}
        return {name: self._frames[name] for name in names}

    def _frame(self, name: str) -> pandas.DataFrame:
        return self._frames[name] if name in self._frames else self.read(name)[name]

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration of the run's latest part."""
        loaded: Mapping[str, Any] = yaml.safe_load(str(self.parts["config"].iloc[-1])) or {}
        return loaded

    @property
    def decisions(self) -> pandas.DataFrame:
        """A row a control slot, slice and lever: what was decided, why, and what came of it."""
        return self._frame("decisions")

    @property
    def measures(self) -> pandas.DataFrame:
        """A row a control slot, slice, measure and user: what the user had, and was promised."""
        return self._frame("measures")

    @property
    def counts(self) -> pandas.DataFrame:
        """A row a control slot, slice and thing counted."""
        return self._frame("counts")

    @property
    def settings(self) -> pandas.DataFrame:
        """A row a control slot, user and setting: what an application was told to do."""
        return self._frame("settings")

    @property
    def enforcement(self) -> pandas.DataFrame:
        """A row a control slot and slice: what became of its quotas and of the clock."""
        return self._frame("enforcement")

    @property
    def frames(self) -> pandas.DataFrame:
        """A row a frame, with its four times."""
        return self._frame("frames")

    @property
    def samples(self) -> pandas.DataFrame:
        """A row a row of a service's tables: poses, realised experience."""
        return self._frame("samples")

    @property
    def reports(self) -> pandas.DataFrame:
        """A row a UE and report: the gNB's MAC state."""
        return self._frame("reports")

    @property
    def clocks(self) -> pandas.DataFrame:
        """A row a report of a host's PTP clock."""
        return self._frame("clocks")

    @property
    def events(self) -> pandas.DataFrame:
        """A row an event."""
        return self._frame("events")

    @property
    def starts(self) -> pandas.DataFrame:
        """A row a control loop that was made."""
        return self._frame("starts")

    @property
    def parts(self) -> pandas.DataFrame:
        """A row a part of the run, with its configuration."""
        return self._frame("parts")


def load_run(path: str | Path) -> RunData:
    """The run in the folder ``path``, or the folder of an export of it, as data frames.

    >>> run = load_run("runs/last-night")                                            # doctest: +SKIP
    >>> run.decisions.query("lever == 'ul'").groupby("slice").in_force.mean()        # doctest: +SKIP

    StoreError where there is none; ImportError, naming the extra ``research``, where pandas or pyarrow is not
    installed.
    """
    with needs("research", "data frames of a run"):
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
    path = Path(path)
    if not (path / DATABASE_FILE).is_file() and not any(
        (path / f"{name}.parquet").is_file() for name in TABLES
    ):
        raise StoreError(
            f"{path}: neither a run folder ({DATABASE_FILE}) nor an export of one (TABLE.parquet)"
        )
    return RunData(path)


def _of_file(path: Path) -> Any:
    import pyarrow.parquet

    if not path.is_file():
        raise StoreError(f"{path}: this export has no such table")
    return pyarrow.parquet.read_table(path)


def _pandas(table: Table, rows: Any) -> pandas.DataFrame:
    import pandas

    nullable = {"int64": pandas.Int64Dtype(), "bool": pandas.BooleanDtype()}
    frame: dict[str, Any] = {}
    for c in table.columns:
        series = rows.column(c.name)
        whole = nullable[c.type] if c.nullable and c.type in nullable else None
        frame[c.name] = series.to_pandas(types_mapper=None if whole is None else lambda _, of=whole: of)
    return pandas.DataFrame(frame)
