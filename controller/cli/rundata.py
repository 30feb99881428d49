"""``export`` and ``compare``: runs as data."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli import emit, json_option


@click.command("export")
@click.argument("run_dir", metavar="[RUN]", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the files go (default: export in RUN).",
)
@click.option(
    "--tables", metavar="NAME,...", help="These alone (default: all); --schema lists them with their columns."
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--schema", "show_schema", is_flag=True, help="Say what the tables hold, as Markdown.")
@json_option
def export(
    run_dir: Path | None, out: Path | None, tables: str | None, force: bool, show_schema: bool, as_json: bool
) -> None:
    """Write the run in the folder RUN as Parquet files, one a table.

    RUN may be one that a controller is writing: it is read as it is at one moment.
    """
    from controller.store.tables import TABLES, markdown

    if show_schema:
        columns = {name: [column.name for column in table.columns] for name, table in TABLES.items()}
        emit({"tables": columns}, as_json, markdown().rstrip())
        return
    if run_dir is None:
        raise click.UsageError("Missing argument 'RUN'.")
    from controller.cli.progress import progress
    from controller.store.export import FOLDER
    from controller.store.export import export as write

    names = list(TABLES) if tables is None else [name.strip() for name in tables.split(",")]
    out = out or run_dir / FOLDER
    done = 0
    with progress("export", None) as advance:

        def after_slot() -> None:
            nonlocal done
            done += 1
            if done % 500 == 0:
                advance(f"{done} control slots")

        rows = write(run_dir, out, names, force=force, progress=after_slot)
    files = {name: str(out / f"{name}.parquet") for name in rows}
    text = "\n".join(f"{files[name]}  {n} row{'' if n == 1 else 's'}" for name, n in rows.items())
    emit({"run": str(run_dir), "files": files, "rows": rows}, as_json, text)


@click.command("compare")
@click.argument("run_dirs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page with tables and a chart, too.",
)
@json_option
def compare(run_dirs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Put runs beside each other: what they kept, what they spent, how they differ from the first.

    Runs of one scenario and policy count as one, with 95 % intervals over their seeds. What is not alike
    (scenario, carrier, length, versions) is said beside the figures.
    """
    from controller.experiments import compare as room
    from controller.store.files import write_atomic

    if out is not None:
        from controller.store import figures

        figures.require()
    result = room.compare(run_dirs)
    text = room.text(result)
    if out is not None:
        write_atomic(out, room.page(result).encode())
        result = {**result, "page": str(out)}
        text += f"\n\n{out}"
    emit(result, as_json, text)
