"""``openrtist``: styles, server, client, traffic generator, and what their frames say."""

from __future__ import annotations

import importlib
import logging
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import emit, json_option
from controller.cli.processes import SECONDS, log_to_stderr, stop_on_signals

if TYPE_CHECKING:
    from agents.gnb_mock.edge import EdgeFollower

_keys_option = click.option("--keys", help="Folder of TLS certificates (prbandit keys).")
_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def _load(name: str) -> Any:
    """A module of the openrtist room; its packages are an extra."""
    try:
        return importlib.import_module(f"openrtist.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("openrtist", "wire"):
            raise
        raise click.ClickException(
            f"the package {error.name} is missing: pip install 'prbandit[openrtist]'"
        ) from error


def _tls(keys: str | None, certificate: str) -> Any:
    from wire.security import Tls

    return Tls(Path(keys), certificate) if keys else None


def _quiet_gabriel() -> None:
    """Gabriel logs an error for every frame that is dropped; here they are counted."""
    for name in ("gabriel_server", "gabriel_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@click.group("openrtist")
def openrtist() -> None:
    """Timestamped OpenRTiST: styles, server, client, traffic, and the paper's Table II."""


@openrtist.command("import-style")
@click.argument("xml", type=_FILE)
@click.argument("weights", type=_FILE)
@click.option("--output", "-o", type=_PATH, help="ONNX file (default: the name of the weights).")
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

    model = _load("convert").import_style(xml, weights, width=width, height=height)
    output = output or Path(f"{weights.stem}.onnx")
    write_atomic(output, model)
    size = f"{width}x{height}" if width else "any resolution"
    emit(
        {"output": str(output), "bytes": len(model), "width": width, "height": height},
        as_json,
        f"{output}: {len(model)} bytes, {size}",
    )


@openrtist.command("server")
@click.option(
    "--style",
    "styles",
    type=_PATH,
    multiple=True,
    required=True,
    help="ONNX file, or a folder of them; repeatable. The first is what clients get that name none.",
)
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=9099, show_default=True)
@click.option("--queue", default=60, show_default=True, type=click.IntRange(1), help="Frames that may wait.")
@click.option(
    "--threads", default=0, type=click.IntRange(0), help="CPU threads of the network (0: a core each)."
)
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--emulated-gpu",
    is_flag=True,
    help="Stretch the network's time as the locked clock of --edge-agent says.",
)
@click.option("--edge-agent", default="127.0.0.1:50061", show_default=True, help="With --emulated-gpu.")
@click.option("--max-mhz", type=click.IntRange(1), help="Clock of no stretch (default: what the agent says).")
@_keys_option
@click.option("--certificate", default="edge-agent", show_default=True, help="Whose certificate to show.")
@click.option("-v", "--verbose", is_flag=True)
@json_option
def server(
    styles: tuple[Path, ...],
    address: str,
    port: int,
    queue: int,
    threads: int,
    provider: str,
    emulated_gpu: bool,
    edge_agent: str,
    max_mhz: int | None,
    keys: str | None,
    certificate: str,
    verbose: bool,
    as_json: bool,
) -> None:
    """Stylise the frames of OpenRTiST clients until SIGINT or SIGTERM."""
    log_to_stderr(verbose)
    _quiet_gabriel()
    style, engine, module = _load("style"), _load("engine"), _load("server")
    loaded = style.load(styles, threads=threads, provider=provider)
    tls = _tls(keys, certificate)
    with ExitStack() as stack:
        gpu, on_load = None, None
        if emulated_gpu:
            follower = _follow(edge_agent, tls)
            stack.callback(follower.close)
            full = max_mhz or _full_clock(edge_agent, tls)
            gpu = engine.EmulatedGpu(full, lambda: follower.sm_mhz)
            on_load = follower.set_load
            logging.getLogger(__name__).warning(
                "the GPU is emulated: the network's time is stretched by %d MHz over the clock of %s",
                full,
                edge_agent,
            )
        host = f"[{address}]" if ":" in address and not address.startswith("[") else address
        stylist = engine.StyleEngine(loaded, gpu=gpu)
        running = module.StyleServer(stylist, f"{host}:{port}", tls, queue=queue, on_load=on_load)
        running.run()
    counters = running.counters
    emit(
        {"address": running.address, "styles": list(loaded), "counters": counters},
        as_json,
        ", ".join(f"{name} {count}" for name, count in counters.items()) or "no frames",
    )


def _follow(address: str, tls: Any) -> EdgeFollower:
    from agents.gnb_mock.edge import EdgeFollower

    follower = EdgeFollower(address, tls, holder="openrtist", setting="--edge-agent")
    follower.start()
    return follower


def _full_clock(address: str, tls: Any, wait_s: float = 15.0) -> int:
    """The highest clock that the agent's GPU takes unlocked (MHz)."""
    import grpc

    from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc, security

    with security.grpc_channel(address, tls, setting="--edge-agent", missing="--keys") as channel:
        hello = edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION, holder="openrtist")
        try:
            welcome = edge_pb2_grpc.EdgeStub(channel).Hello(hello, timeout=wait_s, wait_for_ready=True)
        except grpc.RpcError as error:
            raise click.ClickException(
                f"--edge-agent {address}: {error.code().name}: {error.details()}"
            ) from error
    if not welcome.gpus:
        raise click.ClickException(f"--edge-agent {address}: has no GPU")
    return int(welcome.gpus[0].default_sm_mhz)


def _size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        width, height = (int(part) for part in value.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not WIDTHxHEIGHT") from None
    if min(width, height) < 16 or max(width, height) > 8192:
        raise click.BadParameter(f"{value!r}: 16 to 8192 pixels a side")
    return width, height


@openrtist.command("client")
@click.argument("server")
@click.option("--video", required=True, help="Video file; or a camera: /dev/video0, a pipe, rtsp://...")
@click.option("--size", callback=_size, metavar="WxH", help="Scale frames (default: as they are).")
@click.option("--fps", type=click.FloatRange(0, 1000, min_open=True), default=30.0, show_default=True)
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
@click.option(
    "--drain", type=click.FloatRange(0), default=5.0, show_default=True, help="Wait for the last (s)."
)
@click.option(
    "--silent", type=SECONDS, default=10.0, show_default=True, help="Give up a mute server after (s)."
)
@click.option("--save", type=_PATH, help="Video (.mp4), last picture (.png, .jpg) or folder of pictures.")
@click.option("--qos", help="The controller's QoS ingest; without it nobody is told.")
@click.option("--cell", default="cell-1", show_default=True)
@click.option("--flow", default="openrtist", show_default=True)
@click.option("--ue", default="ue-1", show_default=True)
@click.option("--slice", "slice_", default="ar", show_default=True)
@click.option("--host", help="This host's name for the controller (default: the flow's).")
@click.option("--ul-bps", type=click.FloatRange(0), help="Offered rate (default: of the first picture).")
@click.option("--dl-bps", type=click.FloatRange(0), help="Offered rate (default: of the first picture).")
@click.option(
    "--clocks",
    type=click.Choice(["auto", "synchronised", "unsynchronised"]),
    default="auto",
    show_default=True,
    help="Whether this host's clock agrees with the server's; auto: where the server is on loopback.",
)
@_keys_option
@click.option("--certificate", default="gnb-mock", show_default=True, help="Whose certificate to show.")
@click.option("-v", "--verbose", is_flag=True)
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
    flow: str,
    ue: str,
    slice_: str,
    host: str | None,
    ul_bps: float | None,
    dl_bps: float | None,
    clocks: str,
    keys: str | None,
    certificate: str,
    verbose: bool,
    as_json: bool,
) -> None:
    """Send the frames of a video to the OpenRTiST server at SERVER (host:port) and time their round trips."""
    from wire.security import is_loopback

    log_to_stderr(verbose)
    _quiet_gabriel()
    module = _load("client")
    tls = _tls(keys, certificate)
    stop = stop_on_signals()
    with ExitStack() as stack:
        source = _load("video").open_source(video, *(size or (None, None)), loop=loop)
        stack.callback(source.close)
        saver = None
        if save is not None:
            saver = _load("show").Saver(save, fps)
        tell = None
        if qos:
            synchronised = is_loopback(server) if clocks == "auto" else clocks == "synchronised"
            publisher = _publisher(qos, tls, cell, host or flow, synchronised)
            stack.callback(publisher.close, flush_s=5.0)
            tell = publisher.put
        running = module.Client(
            server,
            source,
            name=module.FlowName(flow, ue, slice_, ul_bps, dl_bps),
            pace=module.Pace(fps, tokens, frames, duration, timeout, drain, silent),
            style=style,
            tls=tls,
            tell=tell,
            saver=saver,
        )
        try:
            summary = running.run(stop.is_set)
        finally:
            if saver is not None:
                saver.close()
        # What the saver says is whole only now.
        summary = running.summary() | {"qos": publisher.counters if qos else None}
    emit(summary, as_json, _frames_text(summary))
    if saver is not None and saver.error:
        raise click.ClickException(saver.error)


def _publisher(address: str, tls: Any, cell: str, host: str, synchronised: bool) -> Any:
    from agents.gnb_mock.qos import QosPublisher

    publisher = QosPublisher(address, tls, cell_id=cell, host=host, clocks_synchronised=synchronised)
    publisher.start()
    return publisher


def _frames_text(summary: dict[str, Any]) -> str:
    lines = [
        f"{summary['sent']} frames sent in {summary['seconds']:.1f} s, {summary['returned']} returned,"
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
    if summary["problem"]:
        lines.append(f"the server refused frames: {summary['problem']}")
    return "\n".join(lines)


# ---- timestamps -----------------------------------------------------------------------------------------


@openrtist.command("import-timestamps")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--output",
    "-o",
    type=_PATH,
    help="Table of frames (.parquet), messages of the QoS ingest (.qos), or a new run folder.",
)
@click.option(
    "--config", "config_file", default="mucb1-1", show_default=True, help="Control slot and budgets."
)
@click.option("--ue", default="ue-1", show_default=True)
@click.option("--slice", "slice_", help="Whose budgets apply (default: the configuration's first).")
@click.option("--ul-bps", type=click.FloatRange(0), default=2.997e6, show_default=True, help="Offered rate.")
@click.option("--dl-bps", type=click.FloatRange(0), default=0.992e6, show_default=True, help="Offered rate.")
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

    config = load_config(config_file, {})
    module = _load("timestamps")
    imported = module.read(folder)
    name = slice_ or config.cells[0].slices[0].id
    slots = list(_control_slots(imported, config, ue, name, ul_bps, dl_bps))
    judged = _judge(slots, config, name)
    if output is not None:
        if output.suffix == ".parquet":
            _write_frames(imported, output)
        elif output.suffix == ".qos":
            _write_messages(imported, output, ue, name, ul_bps, dl_bps)
        elif output.suffix:
            raise click.BadParameter(f"{output}: neither .parquet, .qos nor a folder", param_hint="--output")
        else:
            _write_run(slots, config, output, str(folder))
    result = {
        "folder": str(folder),
        "output": str(output) if output else None,
        "files": imported.files,
        "flows": [
            {"flow": f.flow, "frames": len(f.frames), "start_ns": f.start_ns, "stop_ns": f.stop_ns}
            for f in imported.flows
        ],
        "counters": dict(imported.counters),
        "problems": imported.problems,
        **judged,
    }
    emit(result, as_json, _imported_text(result))


_MAX_SLOTS = 1_000_000


def _control_slots(imported: Any, config: Any, ue: str, name: str, ul_bps: float, dl_bps: float) -> Any:
    """Observations, control slot by control slot from the first frame: flows and frames as they were known at
    the close; neither MAC state nor GPU."""
    import numpy as np

    from controller.core.observation import Flow, Frames, Observation

    flows = [Flow(f.flow, ue, name, ul_bps, dl_bps, f.start_ns, f.stop_ns + 1) for f in imported.flows]
    table = np.concatenate(
        [np.column_stack([np.full(len(f.frames), i), f.frames]) for i, f in enumerate(imported.flows)]
    )
    table = table[np.argsort(table[:, 2], kind="stable")]
    sent = table[:, 2]
    step = round(config.control.control_slot_s * 1e9)
    opened, number = int(sent[0]), 0
    if (count := (int(sent[-1]) - opened) // step) > _MAX_SLOTS:
        days = (int(sent[-1]) - opened) / 86_400e9
        raise ValueError(f"the times are {days:.0f} days apart, {count} control slots: is a line wrong?")
    while opened <= sent[-1]:
        closed = opened + step
        rows = table[np.searchsorted(sent, opened) : np.searchsorted(sent, closed)].copy()
        times = rows[:, 2:]
        times[times >= closed] = 0
        active = [i for i, f in enumerate(flows) if f.start_ns < closed and f.stop_ns > opened]
        index = np.full(len(flows), -1)
        index[active] = range(len(active))
        yield Observation(
            control_slot=number,
            opened_ns=opened,
            closed_ns=closed,
            flows=tuple(flows[i] for i in active),
            frames=Frames(
                flow=index[rows[:, 0]],
                sequence=rows[:, 1],
                ue_sent=rows[:, 2],
                edge_received=rows[:, 3],
                edge_sent=rows[:, 4],
                ue_received=rows[:, 5],
                synchronised=np.ones(len(rows), np.bool_),
            ),
        )
        opened, number = closed, number + 1


def _judge(slots: list[Any], config: Any, name: str) -> dict[str, Any]:
    from controller.core.observation import HOPS
    from controller.core.qos import Metric, delivery_ratio, slot_qos

    spec = _loop_spec(config)
    chosen = next((s for s in spec.slices if s.slice == name), None)
    if chosen is None:
        raise click.BadParameter(f"no slice {name!r} in the configuration", param_hint="--slice")
    rows = []
    for observation in slots:
        qos = slot_qos(
            observation, name, chosen.budgets, metric=Metric.parse(chosen.metric), guard_ms=spec.guard_ms
        )
        rows.append(
            {"control_slot": observation.control_slot, "opened_ns": observation.opened_ns, **qos.to_record()}
        )
    legs = [*(hop.value for hop in HOPS), "round_trip"]
    busy = [row for row in rows if row["busy"]]
    return {
        "control_slots": len(rows),
        "busy_slots": len(busy),
        "qos_delivery_ratio_busy": {
            leg: delivery_ratio(row[leg]["q"] for row in busy if row[leg]["q"] is not None) for leg in legs
        },
        "mean_delay_ms": {leg: _mean([ms for row in busy for ms in row[leg]["ms"].values()]) for leg in legs},
        "slots": rows,
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _loop_spec(config: Any) -> Any:
    from controller.core.nr import TDD_PATTERNS

    cell = config.cells[0]
    return config.loop_spec(cell.id, 106, 30, TDD_PATTERNS["DSUUU"])


def _write_frames(imported: Any, output: Path) -> None:
    from controller.experiments.tables import write_parquet

    names = _load("timestamps").COLUMNS
    rows = [
        {
            "flow": flow.flow,
            **{n: (v or None) if n != "sequence" else v for n, v in zip(names, row, strict=True)},
        }
        for flow in imported.flows
        for row in flow.frames.tolist()
    ]
    try:
        write_parquet(output, rows)
    except ImportError as error:
        raise click.ClickException(str(error)) from error


def _write_messages(imported: Any, output: Path, ue: str, name: str, ul_bps: float, dl_bps: float) -> None:
    import io

    from google.protobuf.proto import serialize_length_prefixed

    from controller.store.files import write_atomic

    out = io.BytesIO()
    for message in imported.messages(ue, name, ul_bps, dl_bps):
        serialize_length_prefixed(message, out)
    write_atomic(output, out.getvalue())


def _write_run(slots: list[Any], config: Any, folder: Path, source: str) -> None:
    """A run that only watched: every control slot in shadow, so that `report` and `replay` take it."""
    from dataclasses import replace

    from controller.core.loop import ControlLoop
    from controller.core.observation import Mode
    from controller.store.run import RunStore

    spec = replace(_loop_spec(config), mode=Mode.SHADOW)
    loop = ControlLoop(spec)
    with RunStore.create(folder, config=config.to_yaml(), meta={"imported": source}) as store:
        start = store.record_start(slots[0].opened_ns, spec.cell, spec.to_dict(), loop.to_state())
        for observation in slots:
            decision = loop.step(observation)
            store.record_slot(start, observation, decision.to_record(), loop.to_state())


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
    named = ("garbage", "duplicates", "out_of_order", "clock_back", "never_sent")
    if troubles := [f"{counters[n]} {n.replace('_', ' ')}" for n in named if counters.get(n)]:
        lines += ["; ".join(troubles), *(f"  {problem}" for problem in result["problems"][:20])]
    if result["output"]:
        lines.append(f"written: {result['output']}")
    return "\n".join(lines)


# ---- traffic --------------------------------------------------------------------------------------------


@openrtist.command("schedule")
@click.option("--seed", default=4, show_default=True)
@click.option("--flows", default=2, show_default=True, type=click.IntRange(0), help="OpenRTiST flows.")
@click.option("--ue", "ues", multiple=True, help="UE of the next flow, in turn; repeatable (default: ue-1).")
@click.option("--length", default=3600.0, show_default=True, type=SECONDS, help="Seconds.")
@click.option("--mean-on", default=300.0, show_default=True, type=SECONDS)
@click.option("--mean-off", default=240.0, show_default=True, type=SECONDS)
@click.option("--min-on", default=120.0, show_default=True, type=click.FloatRange(0))
@click.option("--min-off", default=120.0, show_default=True, type=click.FloatRange(0))
@click.option(
    "--published", is_flag=True, help="As the authors' generator makes it, not as the paper describes it."
)
@click.option("--iperf3", default=0, show_default=True, type=click.IntRange(0), help="Background flows.")
@click.option("--iperf3-direction", type=click.Choice(["ul", "dl"]), default="dl", show_default=True)
@click.option(
    "--iperf3-mbps", type=click.FloatRange(0), default=5.0, show_default=True, help="0: all it gets."
)
@click.option(
    "--iperf3-port", type=click.IntRange(1, 65535), default=5201, show_default=True, help="Of the first."
)
def schedule(
    seed: int,
    flows: int,
    ues: tuple[str, ...],
    length: float,
    mean_on: float,
    mean_off: float,
    min_on: float,
    min_off: float,
    published: bool,
    iperf3: int,
    iperf3_direction: str,
    iperf3_mbps: float,
    iperf3_port: int,
) -> None:
    """Print a schedule of on and off times (exponential, with minimums) for `traffic`.

    The defaults are scenario 1 of the paper.
    """
    from agents.emulator import schedule as onoff

    traffic = _load("traffic")
    if not flows + iperf3:
        raise click.UsageError("a schedule without a flow")
    make = onoff.published if published else onoff.described
    times = make(
        flows + iperf3,
        length,
        mean_on_s=mean_on,
        mean_off_s=mean_off,
        min_on_s=min_on,
        min_off_s=min_off,
        seed=seed,
    )
    names = ues or ("ue-1",)
    made = []
    for i, on in enumerate(times):
        ue = names[i % len(names)]
        if i < flows:
            made.append(traffic.TrafficFlow(f"ar-{i + 1}", ue, "openrtist", on))
        else:
            number = i - flows
            made.append(
                traffic.TrafficFlow(
                    f"bg-{number + 1}", ue, "iperf3", on, iperf3_direction, iperf3_mbps, iperf3_port + number
                )
            )
    made_by = {
        "seed": seed,
        "kind": "published" if published else "described",
        "mean_on_s": mean_on,
        "mean_off_s": mean_off,
        "min_on_s": min_on,
        "min_off_s": min_off,
        "mean_active": round(onoff.mean_active(times, length), 3),
    }
    click.echo(traffic.Schedule(length, tuple(made), made_by).to_yaml(), nl=False)


@openrtist.command("traffic", context_settings={"ignore_unknown_options": True})
@click.argument("schedule_file", metavar="SCHEDULE", type=_FILE)
@click.option(
    "--server",
    "servers",
    multiple=True,
    required=True,
    metavar="[UE=]HOST:PORT",
    help="OpenRTiST server: of all UEs, or of one (its user-plane address, say); repeatable.",
)
@click.option("--video", help="Video of the OpenRTiST flows.")
@click.option(
    "--iperf3-server",
    "iperf3_servers",
    multiple=True,
    metavar="[UE=]HOST",
    help="Host of the iperf3 servers (default: the OpenRTiST server's); repeatable.",
)
@click.option(
    "--on-ue",
    multiple=True,
    metavar="UE=COMMAND",
    help="Prefix of a UE's commands: ue-1='ip netns exec ue1'; repeatable.",
)
@click.option("--logs", type=_PATH, help="Folder of the flows' logs (default: a new one in runs/).")
@click.argument("client_options", nargs=-1, type=click.UNPROCESSED)
@click.option("-v", "--verbose", is_flag=True)
@json_option
def traffic(
    schedule_file: Path,
    servers: tuple[str, ...],
    video: str | None,
    iperf3_servers: tuple[str, ...],
    on_ue: tuple[str, ...],
    logs: Path | None,
    client_options: tuple[str, ...],
    verbose: bool,
    as_json: bool,
) -> None:
    """Start and stop real clients as SCHEDULE says, for hours.

    What follows -- is handed to every OpenRTiST client: -- --size 160x80 --fps 30 --qos 127.0.0.1:50062.
    """
    import shlex
    import sys

    log_to_stderr(verbose)
    module = _load("traffic")
    plan = module.parse(schedule_file.read_text(encoding="utf-8"), str(schedule_file))
    if video is None and any(f.kind == "openrtist" for f in plan.flows):
        raise click.UsageError("--video is missing: the schedule has OpenRTiST flows")
    ues = {f.ue for f in plan.flows}
    server_of = _by_ue("--server", servers, ues)
    iperf3_of = _by_ue("--iperf3-server", iperf3_servers, ues)
    prefixes = {ue: shlex.split(c) for ue, c in _by_ue("--on-ue", on_ue, ues, of_all=False).items()}
    for flow in plan.flows:
        if flow.ue not in server_of and (flow.kind == "openrtist" or flow.ue not in iperf3_of):
            raise click.UsageError(f"flow {flow.flow!r} of the schedule: no --server for {flow.ue}")

    def command_of(flow: Any, seconds: float) -> list[str]:
        prefix = prefixes.get(flow.ue, [])
        if flow.kind == "iperf3":
            host = iperf3_of.get(flow.ue) or server_of[flow.ue].rpartition(":")[0].strip("[]")
            return [*prefix, *module.iperf3_command(flow, host, seconds)]
        return [
            *(*prefix, sys.executable, "-m", "controller.cli", "openrtist", "client", server_of[flow.ue]),
            *("--video", str(video), "--loop", "--flow", flow.flow, "--ue", flow.ue, "--json"),
            *("--duration", f"{seconds:.3f}", *client_options),
        ]

    folder = logs or Path("runs") / time.strftime("traffic-%Y%m%d-%H%M%S")
    stop = stop_on_signals()
    told = module.Runner(plan, command_of, folder).run(stop.is_set)
    lines = []
    for row in told:
        frames = f", {row['frames_sent']} frames, {row['frames_lost']} lost" if "frames_sent" in row else ""
        note = f" (skipped: {row['skipped']})" if row["skipped"] else ""
        lines.append(
            f"{row['flow']:>8} on {row['ue']}: {row['on_s']:.1f} of {row['planned_s']:.1f} s,"
            f" {row['starts']} starts, {row['failures']} ended too early{frames}{note}"
        )
    emit({"schedule": str(schedule_file), "logs": str(folder), "flows": told}, as_json, "\n".join(lines))


def _by_ue(option: str, settings: tuple[str, ...], ues: set[str], *, of_all: bool = True) -> dict[str, str]:
    """What an option says of each UE; a setting without ``UE=`` is that of all which have none of their
    own."""
    given: dict[str, str] = {}
    for setting in settings:
        ue, separator, value = setting.partition("=")
        if not separator and of_all:
            ue, value = "", setting
        if not value or (separator and not ue):
            raise click.BadParameter(f"{setting!r} is not UE=VALUE", param_hint=option)
        if ue and ue not in ues:
            raise click.BadParameter(f"{setting!r}: no flow of the schedule is on {ue}", param_hint=option)
        if ue in given:
            raise click.BadParameter(f"{ue or 'all UEs'}: set twice", param_hint=option)
        given[ue] = value
    default = given.pop("", None)
    return (dict.fromkeys(ues, default) if default is not None else {}) | given


# ---- Table II -------------------------------------------------------------------------------------------


@openrtist.command("table-ii")
@click.option("--style", type=_PATH, required=True, help="Style as ONNX (import-style).")
@click.option("--video", required=True)
@click.option("--seconds", type=SECONDS, default=5.0, show_default=True, help="For each row.")
@click.option(
    "--limit", type=SECONDS, default=60.0, show_default=True, help="Wait so long for three results."
)
@click.option("--only", multiple=True, metavar="WxH@FPS", help="Only this row; repeatable.")
@click.option(
    "--threads", default=0, type=click.IntRange(0), help="CPU threads of the network (0: a core each)."
)
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--out", type=_PATH, help="Also write the table as HTML.")
@json_option
def table_ii(
    style: Path,
    video: str,
    seconds: float,
    limit: float,
    only: tuple[str, ...],
    threads: int,
    provider: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Redo Table II of the paper on this machine: bitrates and inference time over loopback, tokens off."""
    from controller.cli.progress import progress
    from controller.cli.up import free_ports

    module = _load("table_ii")
    _quiet_gabriel()
    cases = [case for case in module.PAPER if not only or case.name in only]
    if unknown := set(only) - {case.name for case in module.PAPER}:
        raise click.BadParameter(f"{sorted(unknown)[0]!r} is no row of the table", param_hint="--only")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server goes with us
    address = f"127.0.0.1:{free_ports(1)[0]}"
    rows = []
    with _server_process(style, address, threads, provider) as about, progress("rows", len(cases)) as advance:
        for case in cases:
            rows.append(module.measure(case, address, video, seconds=seconds, limit_s=max(limit, seconds)))
            advance(case.name)
        ran_on = about()
    from controller.store.run import environment

    result = {
        "rows": [row.to_dict() for row in rows],
        "provider": ran_on,
        "style": str(style),
        "video": video,
        "seconds": seconds,
        "host": environment()["host"],
    }
    if out is not None:
        from controller.store.files import write_atomic

        write_atomic(out, module.html(result).encode())
    emit(result, as_json, module.text(result))


def _server_process(style: Path, address: str, threads: int, provider: str) -> Any:
    """A server of our own in another process; the value tells on what it ran."""
    import subprocess
    import sys
    import tempfile
    from contextlib import contextmanager

    host, _, port = address.rpartition(":")

    @contextmanager
    def process() -> Any:
        with tempfile.TemporaryFile() as log:
            child = subprocess.Popen(
                [
                    *(sys.executable, "-m", "controller.cli", "openrtist", "server", "--style", str(style)),
                    *("--address", host, "--port", port, "--threads", str(threads), "--provider", provider),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

            def said() -> str:
                log.seek(0)
                return log.read().decode(errors="replace")

            try:
                end = time.monotonic() + 60
                while "OpenRTiST server on" not in said():
                    if child.poll() is not None or time.monotonic() > end:
                        raise click.ClickException(f"the server did not start: {said().strip()[-400:]}")
                    time.sleep(0.1)
                yield lambda: "cuda" if " on cuda" in said() else "cpu"
            finally:
                child.terminate()
                try:
                    # An inference that runs is not broken off.
                    child.wait(5)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    return process()
