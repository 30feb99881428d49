"""``openrtist import-timestamps``: frames that the MUCB1 authors' OpenRTiST has timed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from controller.cli import emit, json_option
from controller.cli.openrtist.common import PATH, load
from controller.cli.options import AMOUNT


@click.command("import-timestamps")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--output",
    "-o",
    type=PATH,
    help="Table of frames (.parquet), messages of the QoS ingest (.qos), or a new run folder.",
)
@click.option(
    "--config", "config_file", default="mucb1-1", show_default=True, help="Control slot and budgets."
)
@click.option("--ue", default="ue-1", show_default=True)
@click.option("--slice", "slice_", help="Whose budgets apply (default: the configuration's first).")
@click.option("--ul-bps", type=AMOUNT, default=2.997e6, show_default=True, help="Offered rate.")
@click.option("--dl-bps", type=AMOUNT, default=0.992e6, show_default=True, help="Offered rate.")
@json_option
def import_timestamps(
    folder: Path,
    output: Path | None,
    config_file: str,
    ue: str,
    slice_: str | None,
    ul_bps: float,
    dl_bps: float,
    as_json: bool,
) -> None:
    """Read the timestamp files of the MUCB1 authors' OpenRTiST in FOLDER and judge QoS by control slot.

    Files are known by their names: *sent*client*, *recv*server*, *sent*server*, *recv*client*, with lines
    "port sequence nanoseconds". What cannot be used is counted and named by file and line.
    """
    from controller.cli.processes import load_config
    from controller.experiments.mucb1 import imported

    config = load_config(config_file, {})
    slices = [s.id for s in config.cells[0].slices]
    if slice_ is not None and slice_ not in slices:
        raise click.BadParameter(f"{slice_!r} is none of {', '.join(slices)}", param_hint="--slice")
    found = load("timestamps").read(folder)
    owner = imported.Owner(ue, slice_ or slices[0], ul_bps, dl_bps)
    try:
        slots = imported.control_slots(found.flows, config, owner)
    except ValueError as error:
        raise click.ClickException(
            "\n".join([str(error), *_troubles(found.counters, found.problems)])
        ) from error
    judged = imported.judge_slots(slots, config, owner.slice)
    if output is not None:
        if output.suffix == ".parquet":
            _write_frames(found, output)
        elif output.suffix == ".qos":
            _write_messages(found.messages(ue, owner.slice, ul_bps, dl_bps), output)
        elif output.suffix:
            raise click.BadParameter(f"{output}: neither .parquet, .qos nor a folder", param_hint="--output")
        else:
            imported.write_run(slots, config, output, str(folder))
    result = {
        "folder": str(folder),
        "output": str(output) if output else None,
        "files": found.files,
        "flows": [
            {"flow": f.flow, "frames": len(f.frames), "start_ns": f.start_ns, "stop_ns": f.stop_ns}
            for f in found.flows
        ],
        "counters": dict(found.counters),
        "problems": found.problems,
        **judged,
    }
    emit(result, as_json, _imported_text(result))


def _write_frames(found: Any, output: Path) -> None:
    from controller.experiments.tables import write_parquet

    names = load("timestamps").COLUMNS
    rows = [
        {
            "flow": flow.flow,
            **{n: (v or None) if n != "sequence" else v for n, v in zip(names, row, strict=True)},
        }
        for flow in found.flows
        for row in flow.frames.tolist()
    ]
    write_parquet(output, rows)


def _write_messages(messages: Iterable[Any], output: Path) -> None:
    import io

    from google.protobuf.proto import serialize_length_prefixed

    from controller.store.files import write_atomic

    out = io.BytesIO()
    for message in messages:
        serialize_length_prefixed(message, out)
    write_atomic(output, out.getvalue())


def _imported_text(result: dict[str, Any]) -> str:
    counters = result["counters"]
    lines = [
        f"{counters.get('frames', 0)} frames of {len(result['flows'])} flows in {len(result['files'])} files,"
        f" of which {counters.get('lost', 0)} never came back,"
        f" {counters.get('incomplete', 0)} lack a time of the edge,"
        f" {counters.get('negative_delays', 0)} have a negative delay",
        f"{result['busy_slots']} busy control slots of {result['control_slots']}",
    ]
    for leg in ("ul", "edge", "dl", "round_trip"):
        mean, ratio = result["mean_delay_ms"][leg], result["qos_delivery_ratio_busy"][leg]
        if mean is not None and ratio is not None:
            lines.append(
                f"{leg:>10}  mean delay {mean:8.1f} ms   QoS delivered in {100 * ratio:5.1f} % of busy slots"
            )
    lines += _troubles(counters, result["problems"])
    if result["output"]:
        lines.append(f"written: {result['output']}")
    return "\n".join(lines)


def _troubles(counters: Mapping[str, int], problems: Sequence[str]) -> list[str]:
    """How many lines were in trouble, and the places of the first."""
    named = ("garbage", "duplicates", "far_off", "out_of_order", "clock_back", "clock_ahead", "never_sent")
    counts = [f"{counters[name]} {name.replace('_', ' ')}" for name in named if counters.get(name)]
    return ["; ".join(counts), *(f"  {problem}" for problem in problems[:20])] if counts else []
