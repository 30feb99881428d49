"""``calibrate``: the emulated cell beside what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from controller.cli import emit, json_option

_DATA = Path(__file__).parents[3] / "shared" / "data" / "oai-rfsim"


@click.command("calibrate")
@click.option(
    "--against", required=True, type=click.Choice(["oai-rfsim", "paper", "short-packets"]), help="The judge."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of the measurements (oai-rfsim). Default: ../shared/data/oai-rfsim.",
)
@json_option
def calibrate(against: str, data: Path | None, as_json: bool) -> None:
    """Drive the emulated cell as the measurements were driven and print both, with the deviation."""
    from agents.emulator.calibration import paper, rfsim, short_packets

    if data and against != "oai-rfsim":
        raise click.UsageError("--data goes with --against oai-rfsim")

    def progress(stage: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"{stage} ...", err=True)

    if against == "paper":
        result = paper.calibrate(progress)
    elif against == "short-packets":
        result = short_packets.calibrate(progress)
    else:
        result = rfsim.calibrate(data or _DATA, progress)
    emit(result.to_dict(), as_json, result.to_text())
