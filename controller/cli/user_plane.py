"""``user-plane``: real TCP connections through the emulated cell."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import completion, emit, json_option
from controller.cli.logs import life, log_options, log_to_stderr
from controller.cli.options import SECONDS, SEED
from controller.cli.processes import emulated, load_config, log_channel, mock_totals
from controller.cli.refusals import Refusals
from wire.security import Address, parse_address

if TYPE_CHECKING:
    from agents.gnb_mock.mock import GnbMock

log = logging.getLogger(__name__)


class _Listen(click.ParamType):
    name = "UE=HOST:PORT[=HOST:PORT]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Address, Address | None]:
        if isinstance(value, tuple):
            return value
        ue, _, addresses = value.partition("=")
        address, sign, server = addresses.partition("=")
        if not ue:
            self.fail(f"{value!r} is not {self.name}", param, ctx)
        try:
            return ue, parse_address(address), parse_address(server) if sign else None
        except ValueError as error:
            self.fail(f"{value!r} is not {self.name}: {error}", param, ctx)


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> Address:
    try:
        return parse_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("user-plane")
@click.argument("config_file", metavar="CONFIG", shell_complete=completion.scenarios)
@click.option(
    "--listen",
    "listens",
    type=_Listen(),
    multiple=True,
    default=("ue-1=127.0.0.1:9098",),
    show_default=True,
    help="Where applications of a UE connect, and to which server if not to --server's. Repeatable.",
)
@click.option(
    "--server",
    default="127.0.0.1:9099",
    show_default=True,
    callback=_address,
    metavar="HOST:PORT",
    help="Server behind the cell.",
)
@click.option("--ran", default="tcp://127.0.0.1:5555", show_default=True, help="The controller's RAN link.")
@click.option("--channel-trace", type=click.Path(), help="Measured channel (CQI, SNR) instead of a process.")
@click.option("--seed", type=SEED, default=1, show_default=True, help="Of channel, traffic and schedule.")
@click.option("--keys", help="Folder of CURVE keys (prbandit keys).")
@click.option("--duration", type=SECONDS, help="Stop after so many seconds.")
@click.option(
    "--heartbeat", type=click.Path(path_type=Path), help="Touch this file once a second while all is well."
)
@log_options
@json_option
def user_plane(
    config_file: str,
    listens: tuple[tuple[str, Address, Address | None], ...],
    server: Address,
    ran: str,
    channel_trace: str | None,
    seed: int,
    keys: str | None,
    duration: float | None,
    heartbeat: Path | None,
    verbose: bool,
    log_format: str,
    as_json: bool,
) -> None:
    """Carry TCP connections through the emulated cell of CONFIG, in real time.

    The cell takes its quotas from the controller as gnb-mock's does, and delays the bytes as its queues do.
    The flows that CONFIG emulates are left out; their UEs stay. At the end it tells what it has carried, and
    how often the cell was late: the delays of a late cell are longer than its queues make them.
    """
    from agents.gnb_mock.mock import GnbMock
    from agents.gnb_mock.user_plane import Listen, UserPlane
    from wire.security import curve_client

    log_to_stderr(verbose, log_format)
    replaced = {"emulation.channel_trace": channel_trace} if channel_trace else {}
    with Refusals() as refusals:
        config = refusals.take(lambda: load_config(config_file, replaced))
        whole = None
        if config is not None:
            whole = refusals.take(partial(emulated, config_file, config, seed))
        refusals.connects({"--ran": ran}, keys)
        refusals.keys(keys, "", whole.cell.cell_id if whole else None)
    assert config is not None and whole is not None
    spec = replace(whole, flows=())
    log_channel(config, seed)
    plane = UserPlane([Listen(ue, address, to or server) for ue, address, to in listens])
    try:
        mock = GnbMock(
            spec,
            seed,
            ran_address=ran,
            curve=curve_client(keys, spec.cell.cell_id) if keys else None,
            user_plane=plane,
            health_file=heartbeat,
        )
        mock.stop_on_signals()
        facts: dict[str, object] = {
            "hash": config.digest,
            "cell": spec.cell.cell_id,
            "seed": seed,
            "ran": ran,
        }
        with life(log, "user-plane", facts, duration) as totals:
            try:
                with mock:
                    _wait(mock, duration)
            finally:
                result = summary(mock.stats())
                totals.update(mock_totals(mock.stats()))
                emit(result, as_json, summary_text(result))
    finally:
        plane.close()


def _wait(mock: GnbMock, duration: float | None) -> None:
    """Until the mock is stopped or the time is up, with word of a cell that runs late."""
    end = time.monotonic() + duration if duration else float("inf")
    warn_at = 1
    while not mock.wait(max(0.0, min(1.0, end - time.monotonic()))) and time.monotonic() < end:
        stats = mock.stats()
        if stats["overruns"] >= warn_at:
            log.warning("%s", _late(stats))
            # At powers of two, as a machine that is too slow is late all the time.
            warn_at = 1 << stats["overruns"].bit_length()


def summary(stats: dict[str, Any]) -> dict[str, Any]:
    """What :meth:`GnbMock.stats` says of the connections and of the cell's lateness."""
    connections = ("connections", "connections_broken", "connections_refused", "connections_failed")
    counted = (*connections, "ul_bytes", "dl_bytes")
    return {name: stats["user_plane"].get(name, 0) for name in counted} | {
        name: stats[name] for name in ("overruns", "worst_late_ms", "resyncs")
    }


def summary_text(result: dict[str, Any]) -> str:
    """A summary in words."""
    return (
        f"user plane: {result['connections']} connections, {result['ul_bytes'] / 1e6:.1f} MB up,"
        f" {result['dl_bytes'] / 1e6:.1f} MB down; {result['connections_broken']} broken,"
        f" {result['connections_refused']} refused, {result['connections_failed']} failed; {_late(result)}"
    )


def _late(counts: dict[str, Any]) -> str:
    return (
        f"the cell was more than 2 NR slots late {counts['overruns']} times, at worst by"
        f" {counts['worst_late_ms']:.1f} ms, and {counts['resyncs']} times too late to catch up"
    )
