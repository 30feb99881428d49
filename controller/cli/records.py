"""``report``."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli import emit, json_option


@click.command("report")
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@json_option
def report(run_dir: Path, as_json: bool) -> None:
    """Write report.html and summary.json into the run folder RUN."""
    from controller.store.report import build

    page, summary = build(run_dir)
    emit({"report": str(page), "summary": summary}, as_json, str(page))
