"""``misses``."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli import emit, json_option


@click.command("misses")
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--chart", type=click.Path(path_type=Path, dir_okay=False), help="Write the chart as an SVG file, too."
)
@click.option(
    "--truth",
    is_flag=True,
    help="Play the run again at full resources, to compare with (a run of prbandit experiment).",
)
@json_option
def misses(run_dir: Path, chart: Path | None, truth: bool, as_json: bool) -> None:
    """Split every missed control slot of RUN by its cause."""
    from controller.misses import read
    from controller.store import misses as store_misses
    from controller.store.run import RunStore

    with RunStore.open(run_dir) as store:
        found = read(store)
    result = {"run": run_dir.resolve().name, **found.result(slots=True)}
    text = store_misses.text(found)
    if truth:
        from controller.experiments import at_full

        slices = [s for of in found.cells.values() for s in of.values()]
        if len(slices) != 1 or found.left_out:
            raise click.ClickException(f"{run_dir}: --truth is for a run with one slice")
        result["truth"] = at_full.compare(slices[0], at_full.missed(run_dir))
        text += "\n" + at_full.text(result["truth"])
    if chart is not None:
        store_misses.write_chart(chart, found)
        result["chart"] = str(chart)
        text += f"\n{chart}"
    emit(result, as_json, text)
