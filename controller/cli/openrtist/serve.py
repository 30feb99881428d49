"""``openrtist server``: stylises the frames of clients."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import emit, json_option
from controller.cli.logs import log_options, log_to_stderr
from controller.cli.openrtist.common import PATH, keys_option, load, quiet_gabriel, tls_of

if TYPE_CHECKING:
    from agents.links.edge import EdgeFollower


def _host(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """A host or an address without a port; one of version 6 gets its brackets."""
    if ":" not in value:
        return value
    try:
        return f"[{IPv6Address(value.strip('[]'))}]"
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a host; the port is that of --port") from None


@click.command("server")
@click.option(
    "--style",
    "styles",
    type=PATH,
    multiple=True,
    required=True,
    help="ONNX file, or a folder of them; repeatable. The first is what clients get that name none.",
)
@click.option("--address", default="127.0.0.1", show_default=True, callback=_host, help="Host to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=9099, show_default=True)
@click.option("--queue", default=60, show_default=True, type=click.IntRange(1), help="Frames that may wait.")
@click.option(
    "--threads", default=0, type=click.IntRange(0), help="CPU threads of the network (0: a core each)."
)
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--range",
    "values",
    default="auto",
    show_default=True,
    metavar="TAKES[:GIVES]",
    help="Values of black..white that the styles take and give: 0..1, 0..255 or -1..1. By itself: what a"
    " file's metadata say, else found by a trial.",
)
@click.option(
    "--channels", type=click.Choice(["rgb", "bgr"]), default="rgb", help="With --range: their order."
)
@click.option(
    "--emulated-gpu",
    is_flag=True,
    help="Stretch the network's time as the locked clock of --edge-agent says.",
)
@click.option("--edge-agent", default="127.0.0.1:50061", show_default=True, help="With --emulated-gpu.")
@click.option(
    "--max-mhz", type=click.IntRange(1, 65_535), help="Clock of no stretch (default: what the agent says)."
)
@keys_option
@click.option("--certificate", default="edge-agent", show_default=True, help="Whose certificate to show.")
@log_options
@json_option
def server(
    styles: tuple[Path, ...],
    address: str,
    port: int,
    queue: int,
    threads: int,
    provider: str,
    values: str,
    channels: str,
    emulated_gpu: bool,
    edge_agent: str,
    max_mhz: int | None,
    keys: str | None,
    certificate: str,
    verbose: bool,
    log_format: str,
    as_json: bool,
) -> None:
    """Stylise the frames of OpenRTiST clients until SIGINT or SIGTERM."""
    log_to_stderr(verbose, log_format)
    quiet_gabriel()
    style, engine, module = load("style"), load("engine"), load("server")
    try:
        scale = None if values == "auto" else style.scale_of(values, channels)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--range") from None
    if scale is None and channels != "rgb":
        raise click.UsageError("--channels goes with --range")
    loaded = style.load(styles, threads=threads, provider=provider, scale=scale)
    tls = tls_of(keys, certificate)
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
        stylist = engine.StyleEngine(loaded, gpu=gpu)
        running = module.StyleServer(stylist, f"{address}:{port}", tls, queue=queue, on_load=on_load)
        running.run()
    counters = running.counters
    emit(
        {"address": running.address, "styles": list(loaded), "counters": counters},
        as_json,
        ", ".join(f"{name} {count}" for name, count in counters.items()) or "no frames",
    )


def _follow(address: str, tls: Any) -> EdgeFollower:
    from agents.links.edge import EdgeFollower

    follower = EdgeFollower(address, tls, holder="openrtist", setting="--edge-agent")
    follower.start()
    return follower


def _full_clock(address: str, tls: Any, wait_s: float = 15.0) -> int:
    """The highest clock that the agent's GPU takes unlocked (MHz)."""
    import grpc

    from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc, security
    from wire.roles import EDGE_AGENT

    with security.grpc_channel(
        address, tls, server_role=EDGE_AGENT, setting="--edge-agent", missing="--keys"
    ) as channel:
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
