"""``openrtist import-style``."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli import emit, json_option
from controller.cli.openrtist.common import FILE, PATH, load


@click.command("import-style")
@click.argument("xml", type=FILE)
@click.argument("weights", type=FILE)
@click.option("--output", "-o", type=PATH, help="ONNX file (default: the name of the weights).")
@click.option("--width", type=click.IntRange(16), help="Fix the model's width in pixels.")
@click.option("--height", type=click.IntRange(16), help="Fix the model's height in pixels.")
@json_option
def import_style(
    xml: Path, weights: Path, output: Path | None, width: int | None, height: int | None, as_json: bool
) -> None:
    """Convert a style that OpenRTiST ships (OpenVINO IR version 6: XML and .bin) to ONNX.

    The model takes any resolution unless --width and --height fix one.
    """
    if (width is None) != (height is None):
        raise click.UsageError("--width and --height go together")
    from controller.store.files import write_atomic

    model = load("convert").import_style(xml, weights, width=width, height=height)
    output = output or Path(f"{weights.stem}.onnx")
    try:
        write_atomic(output, model)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(output)) from error
    size = f"{width}x{height}" if width else "any resolution"
    emit(
        {"output": str(output), "bytes": len(model), "width": width, "height": height},
        as_json,
        f"{output}: {len(model)} bytes, {size}",
    )
