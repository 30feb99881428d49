"""Each process alone: ``controller``, ``gnb-mock``, ``edge-agent``."""

from __future__ import annotations

import logging
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from agents.gpu.leases import MAX_LEASE_S
from agents.stopping import on_stop_signal
from controller.cli import completion, gpu
from controller.cli.children import hang_up_as_terminate
from controller.cli.logs import life, log_options, log_to_stderr
from controller.cli.options import SECONDS, SEED, warm_start_option
from controller.cli.refusals import Refusals
from controller.cli.supervisor import tell_alive
from controller.config import Config
from wire.limits import raise_open_files

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from agents.emulator.spec import TestbedSpec
    from agents.gpu.service import EdgeAgent
    from wire.security import Tls

log = logging.getLogger(__name__)

MIN_ADDRESS_SPACE = 1 << 30
"""Bytes; the threads' stacks and heaps take it, the process itself some 140 MiB."""

_keys_option = click.option("--keys", help="Folder of CURVE keys and TLS certificates (prbandit keys).")
_duration_option = click.option("--duration", type=SECONDS, help="Stop after so many seconds.")
_heartbeat_option = click.option(
    "--heartbeat", type=click.Path(path_type=Path), help="Touch this file once a second while all is well."
)


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set."""
    stop = threading.Event()
    on_stop_signal(stop.set)
    return stop


def log_channel(config: Config, seed: int) -> None:
    """One line a measured channel: what became of its rows."""
    from controller.scenario import all_trace_uses, rows_lines

    for line in rows_lines(use.to_dict() for use in all_trace_uses(config, seed)):
        log.info("%s", line)


def check_address_space() -> None:
    """ClickException under a limit of the address space in which gRPC's threads end the process, or hang it,
    without a word of why."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        raise click.ClickException(
            f"the address space is limited to {limit >> 20} MiB (ulimit -v), {MIN_ADDRESS_SPACE >> 20} MiB"
            " are needed, most of them never touched; limit the memory itself instead (systemd: MemoryMax=)"
        )


def load_config(
    name: str,
    overrides: dict[str, Any],
    policy: str | None = None,
    qos_target: float | None = None,
    *,
    here: bool = False,
) -> Config:
    """A scenario or configuration file, with dotted keys replaced and one policy in every slice.

    A ``qos_target`` without a policy is the default policy's. ``here``: see :func:`controller.config.load`.
    """
    from controller import config

    loaded = config.load(config.find(name), overrides, here=here)
    if qos_target is not None:
        return loaded.with_policy(policy or "default", qos_target=qos_target)
    return loaded if policy is None else loaded.with_policy(policy)


def emulated(name: str, config: Config, seed: int, cell: str = "") -> TestbedSpec:
    """The emulated testbed of a cell of the configuration in ``name``; ConfigError, naming the file, where it
    cannot be made."""
    from controller.config import ConfigError, find
    from controller.scenario import check_applications, testbed_spec

    try:
        spec = testbed_spec(config, seed, cell)
        check_applications(spec)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{find(name)}: {error}") from error
    return spec


@click.command("controller")
@click.argument("config_file", metavar="CONFIG", shell_complete=completion.scenarios)
@click.option(
    "--run",
    "run_dir",
    type=click.Path(path_type=Path),
    help="Run folder; one that is there already is continued, and so is its learning.",
)
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="Begin with what this checkpoint learned."
)
@warm_start_option
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Replace a key of the file.")
@click.option("--no-record", is_flag=True, help="Write no run folder.")
@_duration_option
@_heartbeat_option
@click.option("--lock-fd", type=int, hidden=True, help="The run folder's lock, taken by who started this.")
@log_options
def controller(
    config_file: str,
    run_dir: Path | None,
    checkpoint: Path | None,
    warm_start: str | None,
    settings: tuple[str, ...],
    no_record: bool,
    duration: float | None,
    heartbeat: Path | None,
    lock_fd: int | None,
    verbose: bool,
    log_format: str,
) -> None:
    """Run the controller with the configuration in CONFIG until SIGINT or SIGTERM."""
    from controller import config as config_module
    from controller.daemon import Daemon
    from controller.store import checkpoint as checkpoint_module
    from controller.store import prior as prior_module
    from controller.store.lock import Lock
    from controller.store.run import DATABASE_FILE, LOCK_FILE

    log_to_stderr(verbose, log_format)
    check_address_space()
    raise_open_files()
    overrides = parse_settings(settings)
    config = load_config(config_file, overrides, here=True)
    learned = checkpoint_module.load(checkpoint).states if checkpoint else None
    if learned and run_dir and (run_dir / DATABASE_FILE).exists():
        raise ValueError(f"--checkpoint: the run in {run_dir} has learned already; choose another --run")
    if run_dir is None and not no_record:
        run_dir = Path(config.store.runs) / time.strftime("%Y%m%d-%H%M%S")
    lock = Lock.adopt(run_dir / LOCK_FILE, lock_fd) if run_dir and lock_fd is not None else None
    stop = stop_on_signals()

    def beat() -> None:
        tell_alive()
        if heartbeat:
            heartbeat.touch()

    path = config_module.find(config_file)
    facts = {
        "configuration": path.resolve(),
        "hash": config.digest,
        "run": "not recorded" if no_record or run_dir is None else run_dir.resolve(),
        "seed": config.control.seed,
    }
    with life(log, "controller", facts, duration) as totals:
        daemon = Daemon(
            config,
            config_path=path,
            overrides=overrides,
            run_dir=None if no_record else run_dir,
            learned=learned,
            prior=prior_module.load(warm_start) if warm_start else None,
            beat=beat,
            lock=lock,
        )
        if sys.stdin is not None and sys.stdin.isatty():
            hang_up_as_terminate()  # whoever closes the terminal wants it to end
        else:
            signal.signal(signal.SIGHUP, lambda *_: daemon.reload())
        try:
            daemon.run(stop, duration)
        finally:
            totals.update(daemon.totals())


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """``key=value`` pairs, values read as YAML."""
    import yaml

    out = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{setting!r} is not KEY=VALUE", param_hint="--set")
        if re.fullmatch(r"\[[0-9A-Fa-f:.]+\]:\d+", value):
            out[key] = value  # an address, which YAML takes for a list
            continue
        try:
            out[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise click.BadParameter(f"{setting!r}: {value!r} is not YAML", param_hint="--set") from error
    return out


@click.command("gnb-mock")
@click.argument("config_file", metavar="CONFIG", shell_complete=completion.scenarios)
@click.option("--ran", default="tcp://127.0.0.1:5555", show_default=True, help="The controller's RAN link.")
@click.option("--qos", default="127.0.0.1:50062", show_default=True, help="The controller's QoS ingest.")
@click.option("--edge", default="127.0.0.1:50061", show_default=True, help="The edge agent; '' for none.")
@click.option("--channel-trace", type=click.Path(), help="Measured channel (CQI, SNR) instead of a process.")
@click.option("--cell", default="", help="Which cell of CONFIG this is (default: its first).")
@click.option("--seed", type=SEED, default=1, show_default=True, help="Of channel, traffic and schedule.")
@click.option(
    "--epoch",
    type=click.FloatRange(min=0, max=1e10),
    help="When emulated time began, s since 1970 (default: now). The same in all cells.",
)
@_keys_option
@_duration_option
@_heartbeat_option
@log_options
def gnb_mock(
    config_file: str,
    ran: str,
    qos: str,
    edge: str,
    channel_trace: str | None,
    seed: int,
    cell: str,
    epoch: float | None,
    keys: str | None,
    duration: float | None,
    heartbeat: Path | None,
    verbose: bool,
    log_format: str,
) -> None:
    """Run the emulated testbed of CONFIG in real time: a gNB, its UEs and their OpenRTiST flows."""
    from agents.gnb_mock.mock import GnbMock
    from controller.config import find
    from controller.scenario import cell_seed
    from wire.security import Tls, curve_client

    log_to_stderr(verbose, log_format)
    replaced = {"emulation.channel_trace": channel_trace} if channel_trace else {}
    with Refusals() as refusals:
        config = refusals.take(lambda: load_config(config_file, replaced))
        spec = None
        if config is not None:
            spec = refusals.take(partial(emulated, config_file, config, seed, cell))
        refusals.connects({"--ran": ran, "--qos": qos, "--edge": edge}, keys)
        refusals.keys(keys, "gnb-mock", spec.cell.cell_id if spec else None)
    assert config is not None and spec is not None
    log_channel(config, seed)
    mock = GnbMock(
        spec,
        cell_seed(config, spec.cell.cell_id, seed),
        ran_address=ran,
        curve=curve_client(keys, spec.cell.cell_id) if keys else None,
        qos_address=qos or None,
        edge_address=edge or None,
        tls=Tls(Path(keys), "gnb-mock") if keys else None,
        health_file=heartbeat,
        epoch_ns=None if epoch is None else round(epoch * 1e9),
    )
    mock.stop_on_signals()
    facts = {
        "configuration": find(config_file).resolve(),
        "hash": config.digest,
        "cell": spec.cell.cell_id,
        "seed": seed,
        **{name: address for name, address in (("ran", ran), ("qos", qos), ("edge", edge)) if address},
    }
    with life(log, "gnb-mock", facts, duration) as totals:
        try:
            with mock:
                mock.wait(duration)
        finally:
            totals.update(mock_totals(mock.stats()))


def mock_totals(stats: Mapping[str, Any]) -> dict[str, object]:
    """What is told of an emulated cell at its end, of :meth:`GnbMock.stats`."""
    return {
        "nr_slots": stats["nr_slot"],
        "overruns": stats["overruns"],
        "worst_late_ms": stats["worst_late_ms"],
    }


@click.group("edge-agent", invoke_without_command=True)
@click.option(
    "--address", default="127.0.0.1:50061", show_default=True, metavar="HOST:PORT", help="Where to listen."
)
@click.option(
    "--backend",
    type=click.Choice(["emulated", "nvml"]),
    default="emulated",
    show_default=True,
    help="An emulated GPU, or this host's own through the driver (needs the extra nvml).",
)
@gpu.gpus_option
@click.option(
    "--max-lease",
    type=SECONDS,
    default=MAX_LEASE_S,
    show_default=True,
    help="Longest lease of a clock lock, s.",
)
@click.option("--metrics", help="Serve Prometheus metrics on this host:port.")
@_keys_option
@_duration_option
@_heartbeat_option
@log_options
@click.pass_context
def edge_agent(
    context: click.Context,
    address: str,
    backend: str,
    gpus: tuple[str, ...],
    max_lease: float,
    metrics: str | None,
    keys: str | None,
    duration: float | None,
    heartbeat: Path | None,
    verbose: bool,
    log_format: str,
) -> None:
    """Run the agent beside the GPU: clocks, power and utilisation out, clock locks in.

    With --backend nvml it ends with exit code 1 and the reason where the driver was changed under it, where
    none of its GPUs has answered for ten seconds, and where the driver hangs at its start or its end: only a
    new process can find a driver again, so run it under a supervisor that starts it anew (deploy/systemd).
    """
    if context.invoked_subcommand is not None:
        given = [
            parameter.opts[0]
            for parameter in context.command.params
            if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        ]
        if given:
            name = context.invoked_subcommand
            raise click.UsageError(
                f"{', '.join(given)}: an option of the agent, which {name} does not read; "
                f"those that {name} has come after its name ({name} --help)"
            )
        return
    from agents.gpu.device import GpuHangs
    from agents.gpu.metrics import registry
    from agents.gpu.service import serve
    from wire.security import Tls

    log_to_stderr(verbose, log_format)
    check_address_space()
    raise_open_files()
    with Refusals() as refusals:
        refusals.listens({"--address": address, "--metrics": metrics}, keys)
        refusals.keys(keys, "edge-agent")
    tls = Tls(Path(keys), "edge-agent") if keys else None
    try:
        agent = serve(address, tls=tls, backend=backend, gpus=gpus, max_lease_s=max_lease)
    except GpuHangs as error:
        gpu.end_hung(str(error))
    agent.stop_on_signals()
    facts: dict[str, object] = {"backend": backend, "gpus": len(agent.infos), "address": address}
    with life(log, "edge-agent", facts | ({"metrics": metrics} if metrics else {}), duration) as totals:
        try:
            _serve_gpus(agent, registry(agent), metrics, tls, duration, heartbeat)
        finally:
            totals.update(agent.counters)


def _serve_gpus(
    agent: EdgeAgent,
    metrics_registry: CollectorRegistry,
    metrics: str | None,
    tls: Tls | None,
    duration: float | None,
    heartbeat: Path | None,
) -> None:
    """Until a stop signal, the end of ``duration``, or a GpuError that only a new process can mend."""
    from agents.gpu.device import GpuError
    from agents.heartbeat import write_heartbeat
    from wire.exposition import MetricsServer

    end = time.monotonic() + duration if duration else float("inf")
    served, unwritten = None, False
    hung: set[str] = set()
    given_up: GpuError | None = None
    try:
        agent.start()
        served = MetricsServer(metrics_registry, metrics, tls) if metrics else None
        while time.monotonic() < end and not agent.wait(min(1.0, end - time.monotonic())):
            hung, before = set(agent.hung()), hung
            for name in sorted(hung - before):
                log.error("gpu %s: a call to it hangs", name)
            for name in sorted(before - hung):
                log.error("gpu %s: the call that hung has returned at last", name)
            if lost := agent.given_up():
                given_up = GpuError(f"{lost}: the edge agent ends, for a new one to find the driver")
                break
            if not agent.alive():
                continue
            tell_alive()
            if heartbeat:
                try:
                    write_heartbeat(heartbeat, {"port": agent.port, "counters": agent.counters})
                    unwritten = False
                except OSError as error:  # who looks for it will miss it; the clocks need the agent
                    if not unwritten:
                        log.error("--heartbeat %s cannot be written: %s", heartbeat, error)
                    unwritten = True
    finally:
        if served is not None:
            served.close()
        if left := agent.close():
            why = f"{given_up}; " if given_up else ""
            names = ", ".join(left)
            gpu.end_hung(
                f"{why}a call to GPU {names} hangs: the process ends without it; clocks may stay locked"
            )
    if given_up:
        raise given_up


edge_agent.add_command(gpu.release)
edge_agent.add_command(gpu.fit_power)
