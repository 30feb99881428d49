"""``edge-agent release`` and ``edge-agent fit-power``: what is done to GPUs beside the agent."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from controller.cli import children, emit, json_option
from controller.cli.logs import complain
from controller.cli.options import SECONDS

gpus_option = click.option(
    "--gpu", "gpus", multiple=True, metavar="GPU", help="UUID or index; repeatable. Default: every GPU."
)


def end_hung(why: str) -> NoReturn:
    """End with exit code 1 while a call hangs in the driver, for which an ordinary end may wait for ever."""
    complain(why)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


@click.command("release")
@gpus_option
@json_option
def release(gpus: tuple[str, ...], as_json: bool) -> None:
    """Bring NVML GPUs back to their default clocks and end: for what a killed agent left locked.

    A GPU whose driver has not answered after a few seconds fails, and does not keep the others locked.
    """
    from agents.gpu.device import GpuError, GpuHangs
    from agents.gpu.keeper import release_clocks
    from agents.gpu.nvml import find_gpus

    try:
        devices, missing = find_gpus(gpus)
    except GpuHangs as error:
        end_hung(str(error))
    failed = release_clocks(devices) | {m.name: m.error for m in missing}
    hangs = [f"{error.name}: {error}" for error in failed.values() if isinstance(error, GpuHangs)]
    if not hangs:  # else NVML could not be closed either
        try:
            for device in devices:
                device.close()
        except GpuHangs as error:
            hangs.append(str(error))
    released = [d.info.uuid for d in devices if d.info.uuid not in failed]
    errors = {uuid: f"{error.name}: {error}" for uuid, error in failed.items()}
    emit({"released": released, "failed": errors}, as_json, "\n".join(f"{u}: released" for u in released))
    if hangs:
        end_hung("; ".join(errors.values()) or hangs[0])
    if failed:
        raise GpuError("; ".join(errors.values()))


@click.command("fit-power")
@click.option("--edge", default="127.0.0.1:50061", show_default=True, help="The edge agent.")
@click.option("--keys", help="Folder of CURVE keys and TLS certificates (prbandit keys).")
@click.option("--gpu", default="", metavar="UUID", help="Which GPU; not needed where there is one.")
@click.option(
    "--clocks", default=8, show_default=True, type=click.IntRange(min=3), help="Clocks to measure at."
)
@click.option("--from", "low", default=0, type=click.IntRange(min=0), help="Lowest clock, MHz.")
@click.option("--to", "high", default=0, type=click.IntRange(min=0), help="Highest clock, MHz.")
@click.option(
    "--settle", default=2.0, show_default=True, type=SECONDS, help="Seconds at a clock before it counts."
)
@click.option(
    "--measure", "measure_s", default=3.0, show_default=True, type=SECONDS, help="Seconds measured."
)
@json_option
def fit_power(
    edge: str,
    keys: str | None,
    gpu: str,
    clocks: int,
    low: int,
    high: int,
    settle: float,
    measure_s: float,
    as_json: bool,
) -> None:
    """Fit P = a f + b (MUCB1 equation 4) to the power that a GPU draws at locked clocks.

    Through a running edge agent: locks clock after clock under the present load, measures power at each, and
    gives the lock back. Keep the load steady and controllers off the GPU meanwhile: the highest clock wins.
    With --keys it shows the controller's certificate, as that alone may lock clocks.
    """
    import grpc

    from agents.gpu import powerfit
    from wire.roles import CONTROLLER, EDGE_AGENT
    from wire.security import Tls, grpc_channel

    def progress(done: int, of: int, mhz: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"{done + 1} of {of}: {mhz} MHz", err=True)

    children.interrupt_on_signals()  # the lock is given back however the fit is ended
    tls = Tls(Path(keys), CONTROLLER) if keys else None
    with grpc_channel(edge, tls, server_role=EDGE_AGENT, setting="--edge", missing="--keys") as channel:
        from wire import edge_pb2_grpc

        try:
            fit = powerfit.measure(
                edge_pb2_grpc.EdgeStub(channel),
                gpu=gpu,
                clocks=clocks,
                low=low,
                high=high,
                settle_s=settle,
                measure_s=measure_s,
                progress=progress,
            )
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call):
                raise
            raise ValueError(f"edge agent {edge}: {error.code().name} {error.details()}") from error
    lines = [
        f"{fit.gpu} ({fit.name}), {len(fit.samples)} samples of {fit.source}",
        "   MHz        W      fit     util     degC",
        *(
            f"{s.mhz:6d} {s.power_w:8.2f} {fit.w_per_mhz * s.mhz + fit.idle_w:8.2f}"
            f" {_cell(s.utilisation, '.0%')} {_cell(s.temperature_c, '.1f')}"
            for s in fit.samples
        ),
        *(f"left out {mhz} MHz: {why}" for mhz, why in fit.left_out.items()),
        f"P = {fit.w_per_mhz:.5f} W/MHz * f + {fit.idle_w:.2f} W",
        f"residual {fit.rms_w:.3f} W RMS, R2 {'-' if fit.r2 is None else format(fit.r2, '.4f')}",
        *(f"warning: {warning}" for warning in fit.warnings),
    ]
    if as_json:
        for warning in fit.warnings:
            click.echo(f"warning: {warning}", err=True)
    emit(fit.to_dict(), as_json, "\n".join(lines))


def _cell(value: float | None, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>8}"
