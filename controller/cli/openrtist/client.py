"""``openrtist client``: sends frames and times their round trips."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from controller.cli import emit, json_option
from controller.cli.logs import log_options, log_to_stderr
from controller.cli.openrtist.common import PATH, keys_option, load, quiet_gabriel, tls_of
from controller.cli.options import AMOUNT, SECONDS, Quantity
from controller.cli.processes import stop_on_signals
from wire.security import is_loopback, parse_address

NO_UE = "ue-1"
"""Of a client that tells nobody of its flow."""
_MAX_PIXELS = 4096 * 4096
"""What the server takes (openrtist.picture, whose packages are an extra)."""


def _size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        width, height = (int(part) for part in value.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not WIDTHxHEIGHT") from None
    if min(width, height) < 16 or max(width, height) > 8192 or width * height > _MAX_PIXELS:
        raise click.BadParameter(f"{value!r}: 16 to 8192 pixels a side, {_MAX_PIXELS} in all at most")
    return width, height


def _server(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        parse_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


@click.command("client")
@click.argument("server", callback=_server)
@click.option("--video", required=True, help="Video file; or a camera: /dev/video0, a pipe, rtsp://...")
@click.option("--size", callback=_size, metavar="WxH", help="Scale frames (default: as they are).")
@click.option("--fps", type=Quantity(0, 1000, min_open=True), default=30.0, show_default=True)
@click.option("--loop/--no-loop", default=False, show_default=True, help="Begin a file again at its end.")
@click.option(
    "--tokens",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Frames under way at a time; 0: tokens off, the frame rate is forced.",
)
@click.option("--style", default="", help="Name of the style (default: the server's first).")
@click.option("--duration", type=SECONDS, help="Stop after so many seconds.")
@click.option("--frames", type=click.IntRange(1), help="Stop after so many frames.")
@click.option("--timeout", type=SECONDS, default=10.0, show_default=True, help="A frame is lost after (s).")
@click.option("--drain", type=AMOUNT, default=5.0, show_default=True, help="Wait for the last (s).")
@click.option(
    "--silent", type=SECONDS, default=10.0, show_default=True, help="Give up a mute server after (s)."
)
@click.option("--save", type=PATH, help="Video (.mp4), last picture (.png, .jpg) or folder of pictures.")
@click.option("--qos", help="The controller's QoS ingest; without it nobody is told.")
@click.option("--cell", default="cell-1", show_default=True)
@click.option("--flow", help="Its name, which no other flow of the cell has (default: openrtist-UE).")
@click.option("--ue", help="The UE that it is behind (default: the cell's only UE, as --qos has it).")
@click.option("--slice", "slice_", default="ar", show_default=True)
@click.option("--host", help="This host's name for the controller (default: the flow's).")
@click.option("--ul-bps", type=AMOUNT, help="Offered rate (default: of the first picture).")
@click.option("--dl-bps", type=AMOUNT, help="Offered rate (default: of the first picture).")
@click.option(
    "--clocks",
    type=click.Choice(["auto", "synchronised", "unsynchronised"]),
    default="auto",
    show_default=True,
    help="Whether this host's clock agrees with the server's; auto: where the server is on loopback.",
)
@keys_option
@click.option("--certificate", default="gnb-mock", show_default=True, help="Whose certificate to show.")
@log_options
@json_option
def client(
    server: str,
    video: str,
    size: tuple[int, int] | None,
    fps: float,
    loop: bool,
    tokens: int,
    style: str,
    duration: float | None,
    frames: int | None,
    timeout: float,
    drain: float,
    silent: float,
    save: Path | None,
    qos: str | None,
    cell: str,
    flow: str | None,
    ue: str | None,
    slice_: str,
    host: str | None,
    ul_bps: float | None,
    dl_bps: float | None,
    clocks: str,
    keys: str | None,
    certificate: str,
    verbose: bool,
    log_format: str,
    as_json: bool,
) -> None:
    """Send the frames of a video to the OpenRTiST server at SERVER (host:port) and time their round trips."""
    log_to_stderr(verbose, log_format)
    quiet_gabriel()
    module = load("client")
    tls = tls_of(keys, certificate)
    stop = stop_on_signals()
    ue = ue or (_only_ue(qos, tls, cell) if qos else NO_UE)
    flow = flow or f"openrtist-{ue}"
    failure = None
    with ExitStack() as stack:
        source = load("video").open_source(video, *(size or (None, None)), loop=loop)
        stack.callback(source.close)
        saver = publisher = None
        if save is not None:
            saver = load("show").Saver(save, fps)
        publish = None
        if qos:
            synchronised = is_loopback(server) if clocks == "auto" else clocks == "synchronised"
            publisher = _publisher(qos, tls, cell, host or flow, synchronised)
            stack.callback(publisher.close, flush_s=5.0)
            publish = publisher.put
        running = module.Client(
            server,
            source,
            name=module.FlowName(flow, ue, slice_, ul_bps, dl_bps),
            pace=module.Pace(fps, tokens, frames, duration, timeout, drain, silent),
            style=style,
            tls=tls,
            publish=publish,
            saver=saver,
        )
        try:
            running.run(stop.is_set)
        except module.VideoError as error:
            # What was sent until then counts all the same.
            failure = error
        finally:
            if saver is not None:
                saver.close()
    # What the saver and the publisher say is whole only now that they are closed.
    summary = running.summary() | {"qos": publisher.counters if publisher is not None else None}
    emit(summary, as_json, _frames_text(summary))
    if failure is not None:
        raise failure
    if saver is not None and saver.error:
        raise click.ClickException(saver.error)
    if summary["sent"] and not summary["returned"]:
        why = f": {summary['problem']}" if summary["problem"] else ""
        raise click.ClickException(f"server at {server}: none of {summary['sent']} frames came back{why}")


def _only_ue(qos: str, tls: Any, cell: str) -> str:
    """The cell's only UE; an error that lists them where there are several."""
    from agents.links.qos import list_ues

    try:
        ues = list_ues(qos, tls, cell)
    except (LookupError, ConnectionError) as error:
        raise click.ClickException(f"{error}; name the UE with --ue") from error
    if len(ues) > 1:
        has = ", ".join(f"{ue} ({slice_ or 'no slice'})" for ue, slice_ in ues)
        raise click.UsageError(f"cell {cell} has {len(ues)} UEs: {has}; name one with --ue")
    return ues[0][0]


def _publisher(address: str, tls: Any, cell: str, host: str, synchronised: bool) -> Any:
    from agents.links.qos import QosPublisher

    publisher = QosPublisher(address, tls, cell_id=cell, host=host, clocks_synchronised=synchronised)
    publisher.start()
    return publisher


_TOLD = (
    ("late", "frames came back after --timeout"),
    ("unknown", "results belong to no frame that was sent"),
    ("malformed", "results are no reply"),
    ("session_errors", "sessions ended with an error"),
    ("clock_steps", "steps of this host's clock"),
    ("negative_delays", "frames arrived before they were sent, as the clocks have it"),
    ("over_a_clock_step", "frames were under way at a step of the clock: only their round trip counts"),
    ("video_errors", "packets of the video did not decode"),
    ("not_saved", "pictures were not saved"),
)
_TOLD_OF_QOS = (
    ("waiting", "messages never reached the controller"),
    ("dropped_frames", "frames were not told to the controller, for want of room"),
    ("refused", "messages were refused by the controller"),
)


def _frames_text(summary: dict[str, Any]) -> str:
    seconds = max(summary["seconds"], summary["run_s"])
    gap = seconds - summary["connected_s"] > 0.1 and (summary["disconnections"] or summary["silences"])
    connected = f" ({summary['connected_s']:.1f} s of them connected)" if gap else ""
    lines = [
        f"{summary['sent']} frames sent in {seconds:.1f} s{connected}, {summary['returned']} returned,"
        f" {summary['lost']} lost ({summary['dropped_by_server']} dropped by the server,"
        f" {summary['refused_by_server']} refused), {summary['skipped']} not sent in time",
        f"up {summary['ul_bps'] / 1e6:.2f} Mbit/s, down {summary['dl_bps'] / 1e6:.2f} Mbit/s",
    ]
    for name, label in (("ul", "UL"), ("edge", "edge"), ("dl", "DL"), ("round_trip", "round trip")):
        if (leg := summary["delay_ms"][name]) is not None:
            lines.append(
                f"{label:>10}  mean {leg['mean']:8.1f} ms   p50 {leg['p50']:8.1f}   p90 {leg['p90']:8.1f}"
                f"   max {leg['max']:8.1f}"
            )
    if (low_high := summary["emulated_gpu_mhz"]) is not None:
        lines.append(f"the edge's GPU is emulated: it ran at {low_high[0]} to {low_high[1]} MHz")
    if summary["disconnections"] or summary["silences"]:
        lines.append(
            f"{summary['disconnections']} connections lost, {summary['silences']} given up for silence"
        )
    lines += [f"{summary[name]} {words}" for name, words in _TOLD if summary[name]]
    qos = summary["qos"] or {}
    lines += [f"{qos[name]} {words}" for name, words in _TOLD_OF_QOS if qos.get(name)]
    if summary["problem"]:
        lines.append(f"the server refused frames: {summary['problem']}")
    return "\n".join(lines)
