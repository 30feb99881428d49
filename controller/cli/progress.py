"""Long work on stderr: a progress bar, and what is kept when it is broken off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from controller.experiments.results import J, Results


@contextmanager
def progress(what: str, total: int | None, done: int = 0) -> Iterator[Callable[[str], None]]:
    """A bar of ``total`` pieces (None: nobody knows) of which ``done`` are done.

    The value is called with what was done last.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, completed=done)

        def advance(name: str) -> None:
            bar.update(task, advance=1, description=name)

        yield advance


def carry_out(todo: Sequence[J], results: Results, work: Callable[[], Iterator[J]]) -> int:
    """Show how far ``work`` is, which yields pieces of ``todo`` as their results are on disk.

    Returns how many were there already. Where it is broken off, says what is kept and how to go on.
    """
    from controller.experiments.pool import WorkersLost

    finished = sum(job.key in results.rows for job in todo)

    def broken_off() -> str:
        missing = sum(job.key not in results.rows for job in todo)
        return (
            f"{missing} of {len(todo)} runs are missing, the others are kept in {results.path}: "
            "the same command again goes on"
        )

    try:
        with progress("runs", len(todo), finished) as advance:
            for job in work():
                advance(job.name)
    except WorkersLost as error:
        raise click.ClickException(f"{error}; {broken_off()}") from error
    except KeyboardInterrupt:
        click.echo(f"\nprbandit: broken off; {broken_off()}", err=True)
        raise
    return finished
