"""``up``: the whole loop on the embedded emulated testbed, in separate processes over the real links."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from controller.cli import children, completion, emit, json_option
from controller.cli.logs import FORMAT_VARIABLE, log_format_option
from controller.cli.options import SECONDS, SEED, Quantity, qos_target_option, warm_start_option
from controller.cli.ports import claim_port, free_ports
from controller.cli.view import View
from controller.cli.watch import decision_line
from controller.core.names import printable
from wire import OPERATOR_ADDRESS, PAGE_ADDRESS

if TYPE_CHECKING:
    from controller.config import Config

_START_S = 300.0
"""The emulated cell's first start compiles it: a minute or two, more on a busy machine."""
_STOP_S = 10.0
_LOG_WIDTH = 110


@click.command("up")
@click.option(
    "--config",
    "config_file",
    shell_complete=completion.scenarios,
    help="Scenario or configuration (default: demo; with --frames: frames).",
)
@click.option("--policy", shell_complete=completion.policies, help="Play this policy in every slice.")
@qos_target_option
@click.option("--channel-trace", type=click.Path(), help="Measured channel (CQI, SNR) instead of a process.")
@click.option(
    "--seed",
    type=SEED,
    help="Seed of channel, traffic and policies (default: control.seed of the configuration, else 1).",
)
@click.option("--duration", type=SECONDS, help="Stop after so many seconds; without it, at Ctrl-C.")
@click.option(
    "--run", "run_dir", type=click.Path(path_type=Path), help="Run folder (default: a new one in runs/)."
)
@click.option(
    "--frames",
    is_flag=True,
    help="Real OpenRTiST clients and server; their TCP goes through the emulated cell (extra: openrtist).",
)
@click.option("--video", type=click.Path(exists=True), help="With --frames: what the clients' cameras see.")
@click.option(
    "--style",
    type=click.Path(exists=True),
    help="With --frames: an ONNX file of openrtist import-style.",
)
@click.option("--fps", type=Quantity(1, 120), default=5.0, show_default=True, help="With --frames.")
@click.option("--size", default="160x80", show_default=True, help="With --frames: of the pictures.")
@warm_start_option
@log_format_option
@json_option
def up(
    config_file: str | None,
    policy: str | None,
    qos_target: float | None,
    channel_trace: str | None,
    seed: int | None,
    duration: float | None,
    run_dir: Path | None,
    frames: bool,
    video: str | None,
    style: str | None,
    fps: float,
    size: str,
    warm_start: str | None,
    log_format: str,
    as_json: bool,
) -> None:
    """Start controller, emulated gNB and edge agent, show what they do, and report at the end.

    With --frames the radio and the GPU's clock are emulated, the rest is real: as many clients as CONFIG has
    flows send a video to a server that stylises it, all the time, whatever CONFIG's schedule, and the
    controller decides on the frames' own times.
    """
    from controller import misses
    from controller.cli.processes import emulated, load_config
    from controller.cli.user_plane import summary_text
    from controller.scenario import all_trace_uses, rows_lines
    from controller.store import figures
    from controller.store.report import build
    from controller.store.run import DATABASE_FILE, lock_folder

    console = Console(stderr=as_json)
    if not console.is_terminal:
        console = Console(stderr=as_json, width=_LOG_WIDTH)
    if frames and not (video and style):
        raise click.UsageError("--frames needs --video and --style")
    if not frames and (video or style):
        raise click.UsageError("--video and --style go with --frames")
    config_file = config_file or ("frames" if frames else "demo")
    load_config(config_file, {}, here=True)  # its own addresses, which are replaced here, may not be wrong
    ports = free_ports(7)
    claim = claim_port(int(OPERATOR_ADDRESS.rpartition(":")[2]))
    operator = OPERATOR_ADDRESS if claim else f"127.0.0.1:{ports[3]}"
    own_page = claim_port(int(PAGE_ADDRESS.rpartition(":")[2]))
    page_address = PAGE_ADDRESS if own_page else f"127.0.0.1:{ports[6]}"
    for claimed in filter(None, (claim, own_page)):
        click.get_current_context().call_on_close(claimed.close)
    config = load_config(
        config_file,
        {
            **({"emulation.channel_trace": str(Path(channel_trace).resolve())} if channel_trace else {}),
            "links.ran.address": f"tcp://127.0.0.1:{ports[0]}",
            "links.edge.address": f"127.0.0.1:{ports[1]}",
            "links.qos.address": f"127.0.0.1:{ports[2]}",
            "links.operator.address": operator,
            "links.metrics.address": f"127.0.0.1:{ports[4]}",
            "links.page.address": page_address,
        },
        policy,
        qos_target,
    )
    figures.require()
    if config.emulation is None:
        raise ValueError(f"{config_file}: no emulation section, so there is no testbed to bring up")
    seed = (config.control.seed or 1) if seed is None else seed
    config = config.with_seed(seed)
    for cell in config.cells:
        emulated(config_file, config, seed, cell.id)
    channel = [use.to_dict() for use in all_trace_uses(config, seed)]
    children.interrupt_on_signals()
    run_dir = run_dir or Path(config.store.runs) / time.strftime("up-%Y%m%d-%H%M%S")
    lock = lock_folder(run_dir)
    click.get_current_context().call_on_close(lock.close)
    logs = run_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    file = run_dir / "up.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    commands = {
        "edge-agent": ["edge-agent", "--address", f"127.0.0.1:{ports[1]}"],
        "controller": [
            *("controller", str(file), "--run", str(run_dir), "--lock-fd", str(lock.fileno())),
            *(("--warm-start", warm_start) if warm_start else ()),
        ],
    }
    if frames:
        commands |= _real_applications(config, str(file), seed, ports, str(video), str(style), fps, size)
    else:
        # Users who change cell need the same time in all of them.
        epoch = ("--epoch", f"{time.time():.3f}") if len(config.cells) > 1 else ()
        for i, cell in enumerate(config.cells):
            commands["gnb-mock" if i == 0 else f"gnb-mock-{cell.id}"] = [
                *("gnb-mock", str(file), "--cell", cell.id, "--seed", str(seed)),
                *("--ran", f"tcp://127.0.0.1:{ports[0]}", "--qos", f"127.0.0.1:{ports[2]}"),
                *("--edge", f"127.0.0.1:{ports[1]}"),
                *epoch,
            ]
    source = channel_trace or "a channel process"
    _say(console, f"PRBandit on the emulated testbed, channel: {source}")
    for line in rows_lines(channel):
        _say(console, line)
    _say(console, f"record and logs: {run_dir}")
    if claim:
        _say(console, "prbandit status, watch, quota and the like speak to it")
    else:
        _say(console, f"prbandit status --operator {operator}")
        _say(console, f"  (likewise watch, quota, ...; another program has {OPERATOR_ADDRESS})")
    _say(console, f"page: http://{page_address}/")
    _say(console, f"metrics: http://{config.links.metrics.address}/metrics")
    failed: Exception | None = None
    try:
        with ExitStack() as stack:
            processes = {
                name: stack.enter_context(
                    _process(
                        name,
                        arguments,
                        logs,
                        {**os.environ, FORMAT_VARIABLE: log_format},
                        (lock.fileno(),) if name == "controller" else (),
                    )
                )
                for name, arguments in commands.items()
            }
            _watch(console, processes, logs, operator, duration)
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be closed
            _say(console, "stopping")
    except Exception as error:
        # What was recorded until then is worth its report.
        failed = error
    page: Path | None = None
    summary: dict[str, Any] = {"cells": {}}
    try:
        if (run_dir / DATABASE_FILE).exists():
            page, summary = build(run_dir, read_misses=misses.read)
    except Exception as error:
        if failed is None:
            raise
        raise failed from error
    if not summary["cells"]:
        raise failed or click.ClickException(f"no control slot is over yet: nothing to report; logs: {logs}")
    carried = _last_json(logs / "user-plane.log") if frames else None
    if not as_json:
        console.print(summary_table(summary, console.width))
        if carried is not None:
            _say(console, summary_text(carried))
        _say(console, f"report: {page}")
    result = {
        "run": str(run_dir),
        "report": str(page),
        "channel": channel,
        "summary": summary,
        "user_plane": carried,
    }
    emit(result, as_json, "")
    if failed is not None:
        raise failed


def _say(console: Console, line: str) -> None:
    """A line as it is: nothing in it is a style, and a path or a URL stays whole."""
    console.print(line, soft_wrap=True, markup=False)


def _last_json(path: Path) -> dict[str, Any] | None:
    """The last line of a process's output that is a JSON object and none of its log: what it has printed at
    its end."""
    for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        with suppress(ValueError):
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                if "logger" not in found:
                    return found
    return None


def _real_applications(
    config: Config, file: str, seed: int, ports: list[int], video: str, style: str, fps: float, size: str
) -> dict[str, list[str]]:
    """The processes of ``--frames`` beside controller and edge agent."""
    from agents.emulator.spec import MAX_EXTERNAL

    assert config.emulation is not None
    if len(config.cells) > 1:
        ids = ", ".join(c.id for c in config.cells)
        raise ValueError(f"--frames: real applications go through one cell, here are several: {ids}")
    ran, edge, qos = f"tcp://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[2]}"
    server = ports[5]
    cell = config.cells[0]
    of = [f"ue-{i % config.emulation.ues + 1}" for i in range(config.emulation.flows)]
    if max(Counter(of).values()) > MAX_EXTERNAL:
        raise ValueError(f"--frames: more than {MAX_EXTERNAL} flows of one UE")
    listens = dict(zip(sorted(set(of)), free_ports(len(set(of))), strict=True))
    commands = {
        "openrtist-server": [
            *("openrtist", "server", "--style", style, "--port", str(server)),
            *("--emulated-gpu", "--edge-agent", edge, "--threads", "1"),
        ],
        "user-plane": [
            *("user-plane", file, "--seed", str(seed), "--ran", ran, "--server", f"127.0.0.1:{server}"),
            "--json",
            *(a for ue, port in listens.items() for a in ("--listen", f"{ue}=127.0.0.1:{port}")),
        ],
    }
    for i, ue in enumerate(of, 1):
        slice_ = next((s.id for s in cell.slices if ue in s.ues), "")
        commands[f"openrtist-client-{i}"] = [
            *("openrtist", "client", f"127.0.0.1:{listens[ue]}", "--video", video, "--loop"),
            *("--size", size, "--fps", f"{fps:g}", "--qos", qos, "--cell", cell.id),
            *("--flow", f"openrtist-{i}", "--ue", ue, "--slice", slice_, "--silent", "60"),
        ]
    return commands


@contextmanager
def _process(
    name: str,
    arguments: list[str],
    logs: Path,
    environment: Mapping[str, str],
    fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, its output in a log file; asked to stop at the end, killed if it does not. It does
    not outlive this one, and gets the file descriptors ``fds``."""
    with (logs / f"{name}.log").open("ab") as log:
        # Its own group: Ctrl-C reaches this process alone, which then stops the others in order.
        process = children.start(
            [sys.executable, "-m", "controller.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(fds),
            env=environment,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _watch(
    console: Console,
    processes: dict[str, subprocess.Popen[bytes]],
    logs: Path,
    operator: str,
    duration: float | None,
) -> None:
    """Show the loop until the time is up; an error with the end of its log where a process dies."""
    from controller.links.operator import OperatorClient, OperatorError

    view = View()
    started = time.monotonic()
    first: float | None = None
    seen: dict[str, int] = {}
    redraws = console.is_terminal and not console.is_dumb_terminal
    live = Live(console=console, refresh_per_second=4) if redraws else nullcontext()
    with OperatorClient(operator, None) as client, live as screen:
        while True:
            for name, process in processes.items():
                if process.poll() is not None:
                    raise OSError(f"{name} ended with {process.returncode}:\n{_tail(logs / f'{name}.log')}")
            now = time.monotonic()
            if first is not None and duration and now - first >= duration:
                return
            try:
                state = client.state()
            except OperatorError:
                state = None
            for record in (c["last"] for c in (state["cells"] if state else ())):
                if record is None or record["control_slot"] == seen.get(record["cell"]):
                    continue
                seen[record["cell"]] = record["control_slot"]
                first = first or now
                view.add(record)
                if screen is None:
                    _say(console, printable(decision_line(record)))
            if first is None and now - started > _START_S:
                raise OSError(f"no decision within {_START_S:g} s:\n{_tail(logs / 'controller.log')}")
            if screen is not None:
                left = None if first is None or not duration else duration - (now - first)
                screen.update(view.render(state, left, console.width))
            time.sleep(0.25 if screen is not None else 0.1)


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def summary_table(summary: dict[str, Any], width: int) -> Table:
    """What a run gave, one row a slice."""
    lines = width >= _LOG_WIDTH
    box, padding = (HEAVY_HEAD, (0, 1, 0, 1)) if lines else (None, (0, 1, 0, 0))
    table = Table(title="Summary", box=box, padding=padding)
    for column in (
        "cell",
        "slice",
        "policy",
        "control slots",
        "QoS",
        "QoS busy",
        "UL PRB",
        "DL PRB",
        "MHz",
        "BS",
        "UE",
    ):
        table.add_column(column)
    for cell, c in summary["cells"].items():
        for name, s in c["slices"].items():
            busy = s["qos_delivery_ratio_busy"]
            table.add_row(
                cell,
                name,
                ", ".join(s["policies"]) or "-",
                str(s["control_slots"]),
                _percent(s["qos_delivery_ratio"]),
                _percent(busy),
                _number(s["avg_ul_prb"], ".1f"),
                _number(s["avg_dl_prb"], ".1f"),
                _number(s["avg_gpu_mhz"], ".0f"),
                _percent(s["bs_power_saving"]),
                _percent(s["ue_power_saving"]),
            )
    table.caption = "BS, UE: power saved against all PRBs (models of the MUCB1 paper)"
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
