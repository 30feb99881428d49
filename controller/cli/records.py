"""``report``."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli import emit, json_option


@click.command("report")
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--oracle",
    is_flag=True,
    help="First search what hindsight would have played (a run of prbandit experiment; some minutes).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to (default: RUN, where an oracle is kept in any case).",
)
@json_option
def report(run_dir: Path, oracle: bool, out: Path | None, as_json: bool) -> None:
    """Write report.html and summary.json of the run in the folder RUN."""
    from controller import misses
    from controller.store.oracle import ORACLE_FILE
    from controller.store.report import build

    if oracle:
        from controller.cli.progress import progress
        from controller.experiments.mucb1 import recorded

        with progress("oracle", None) as advance:
            recorded.search(run_dir, lambda runs: advance(f"{runs} runs searched"))
    page, summary = build(run_dir, out=out, read_misses=misses.read)
    about = summary["oracle"]
    searched = (run_dir / ORACLE_FILE).exists()
    text = f"{page}\n{about['missing']}" if searched and "missing" in about else str(page)
    emit({"report": str(page), "summary": summary}, as_json, text)
