"""Results of many runs that outlive the process: what is there is not done again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from controller.store.lock import Lock


class ResultsError(ValueError):
    """Results that cannot be used; the text names the file."""


class Keyed(Protocol):
    """A piece of work; the same key is the same work."""

    @property
    def key(self) -> str: ...

    @property
    def name(self) -> str: ...


J = TypeVar("J", bound=Keyed)
Row = dict[str, Any]


class Results:
    """Rows on disk, one JSON object a line with its ``key``, each there for good when :meth:`add` returns.

    One process at a time, by a lock file beside it; ``with`` it whatever is made of them is that one's to
    write. Locked where another one has it, :class:`ResultsError` for a file that holds something else.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        """Takes up what is there (with ``fresh`` forgets it); a last line cut off by a crash is removed."""
        self.path = path
        self.rows: dict[str, Row] = {}
        self._lock = Lock.take(path.with_name(f"{path.name}.lock"), what=path.name)
        try:
            self._file = path.open("a+b")
        except BaseException:
            self._lock.close()
            raise
        try:
            if fresh:
                self._file.truncate(0)
            self._read()
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                self.rows[row["key"]] = row
            except (ValueError, TypeError, KeyError) as error:
                raise ResultsError(f"{self.path}:{number}: not a result: {error}") from error
        if len(whole) < len(content):
            self._file.truncate(len(whole))

    def add(self, row: Row) -> None:
        self._file.write(json.dumps(row, default=str).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows[row["key"]] = row

    def close(self) -> None:
        self._file.close()
        self._lock.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Executor = Callable[[Callable[[J], Row], Sequence[J]], Iterable[tuple[int, Row]]]


def carry_out(
    todo: Sequence[J], work: Callable[[J], Row], results: Results, execute_all: Executor[J]
) -> Iterator[J]:
    """Do what is not among the results yet; yields each piece when its row is on disk."""
    missing = [job for job in todo if job.key not in results.rows]
    for i, row in execute_all(work, missing):
        results.add(row)
        yield missing[i]
