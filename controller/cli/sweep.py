"""``sweep``: a grid of runs over local processes or a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from controller.cli import emit, json_option
from controller.cli.options import worker_options


class _WithExample(click.Command):
    """Its help ends with the example of a SPEC that ships with the package."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from controller.experiments.sweep import EXAMPLE

        with formatter.section(f"SPEC, as in {EXAMPLE.name}"):
            formatter.write(
                "\n".join(f"  {line}".rstrip() for line in EXAMPLE.read_text().splitlines()) + "\n"
            )


@click.command("sweep", cls=_WithExample)
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The Parquet file of the results; by default SPEC's name with .parquet.",
)
@worker_options
@json_option
def sweep(
    spec: Path,
    out: Path | None,
    jobs: int,
    scheduler: str | None,
    keys: Path | None,
    fresh: bool,
    as_json: bool,
) -> None:
    """Run the grid in SPEC (YAML) and write one row a run as Parquet.

    Each of SPEC's scenarios is run with each of its policies, seeds and combinations of parameters. Every
    finished run is kept beside the result (.jsonl): the same command again does what is missing.
    """
    from controller.cli.progress import carry_out
    from controller.experiments import pool, tables
    from controller.experiments import results as results_module
    from controller.experiments import sweep as sweep_module
    from controller.store import parquet

    parquet.require()
    todo = sweep_module.runs(spec)
    target = out or spec.with_suffix(".parquet")
    kept = target.with_suffix(".jsonl")
    target.parent.mkdir(parents=True, exist_ok=True)

    def run_all(function: Callable[[Any], Any], missing: Sequence[Any]) -> Iterable[tuple[int, Any]]:
        if scheduler and missing:
            names = [f"prbandit-{run.key}" for run in missing]
            return pool.dask(function, missing, scheduler, keys=keys, names=names)
        return pool.local(function, missing, jobs)

    with results_module.Results(kept, fresh=fresh) as results:
        finished = carry_out(
            todo, results, lambda: results_module.carry_out(todo, sweep_module.row, results, run_all)
        )
        rows = [sweep_module.labelled(results.rows[run.key], run) for run in todo]
        tables.write_parquet(target, rows)
    emit(
        {"runs": len(todo), "already_there": finished, "results": str(target), "rows": rows},
        as_json,
        f"{target}: {len(todo)} runs ({finished} were already there)",
    )
