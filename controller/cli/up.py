"""``up``: the whole loop on the embedded emulated testbed, in separate processes over the real links."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.box import HEAVY_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller.cli import children, emit, health, json_option
from controller.cli.health import measured
from controller.cli.logs import FORMAT_VARIABLE, log_format_option
from controller.cli.operate import decision_line
from controller.cli.options import SECONDS, SEED, Quantity, qos_target_option, warm_start_option
from controller.cli.ports import claim_port, free_ports
from wire import OPERATOR_ADDRESS, PAGE_ADDRESS

if TYPE_CHECKING:
    from controller.config import Config

_START_S = 300.0
"""The emulated cell's first start compiles it: a minute or two, more on a busy machine."""
_STOP_S = 10.0
_LOG_WIDTH = 110
_SPARKS = "▁▂▃▄▅▆▇█"


@click.command("up")
@click.option(
    "--config", "config_file", help="Scenario or configuration (default: demo; with --frames: frames)."
)
@click.option("--policy", help="Play this policy in every slice.")
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
    from controller.cli.processes import load_config
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
                    _say(console, decision_line(record))
            if first is None and now - started > _START_S:
                raise OSError(f"no decision within {_START_S:g} s:\n{_tail(logs / 'controller.log')}")
            if screen is not None:
                left = None if first is None or not duration else duration - (now - first)
                screen.update(view.render(state, left, console.width))
            time.sleep(0.25 if screen is not None else 0.1)


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class View:
    """The live terminal view: a line a cell, and one table of all their slices."""

    def __init__(self, keep: int = 60) -> None:
        self._history: dict[tuple[str, str, str], deque[float]] = {}
        self._keep = keep
        self._qos: dict[str, deque[int]] = {}
        self._records: dict[str, dict[str, Any]] = {}

    def add(self, record: dict[str, Any]) -> None:
        """Take in the record of a control slot."""
        cell = record["cell"]
        self._records[cell] = record
        qos = self._qos.setdefault(cell, deque(maxlen=self._keep))
        for name, s in record["slices"].items():
            for choice in s["choices"]:
                history = self._history.setdefault((cell, name, choice["lever"]), deque(maxlen=self._keep))
                history.append(_of_maximum(choice, s, record))
            met = s["closed"]["met"]
            if met is not None and s["closed"]["busy"]:
                qos.append(met)

    def render(self, state: dict[str, Any] | None, left_s: float | None, width: int) -> Group:
        """The view as of now, for so many columns."""
        if state is None or not self._records:
            return Group(Text("waiting for the first decision ..."))
        cells = state["cells"]
        heads = [self._head(c, state["control_slot_s"], left_s if c is cells[0] else None) for c in cells]
        rows = [{"cell": Text(c["cell_id"]), **row} for c in cells for row in self._rows(c["cell_id"])]
        return Group(*heads, _table(rows, width, several=len(cells) > 1))

    def _head(self, cell: dict[str, Any], control_slot_s: float, left_s: float | None) -> Text:
        record = self._records.get(cell["cell_id"])
        if record is None:
            return Text(f"cell {cell['cell_id']}  waiting for the first decision ...")
        qos = self._qos[cell["cell_id"]]
        ratio = sum(qos) / len(qos) if qos else float("nan")
        return Text(
            f"cell {cell['cell_id']}  control slot {record['control_slot']} ({control_slot_s:g} s each)  "
            f"mode {record['mode']}  active flows {cell['active_flows']}  "
            f"QoS delivery ratio of the last {len(qos)} busy slots {ratio:.0%}"
            + (f"  {left_s:.0f} s left" if left_s is not None else "")
        )

    def _rows(self, cell: str) -> Iterator[dict[str, Text]]:
        """Of the slices of one cell, its latest record; none before there is one."""
        record = self._records.get(cell)
        if record is None:
            return
        for name, s in record["slices"].items():
            measures = dict(s["closed"]["measures"])
            promise = next(iter(measures), "")
            for c in s["choices"]:
                if not c.get("user"):
                    yield self._row(name, c, measures.pop(c["lever"], None), record)
            for measure, stored in measures.items():
                met = s["closed"]["met"] if measure == promise else stored["met"]
                of = {"slice": name, "lever": measure.replace("_", " "), "measure": measured(stored)}
                yield {**{what: Text(text) for what, text in of.items()}, "QoS": _met(met)}

    def _row(
        self, name: str, c: dict[str, Any], measure: dict[str, Any] | None, record: dict[str, Any]
    ) -> dict[str, Text]:
        s = record["slices"][name]
        part, why = _of_maximum(c, s, record), c["why"]
        if s.get("manual", {}).get(c["lever"]) is not None:
            why = "set by hand"
        elif (least := s.get("rescue", {}).get(c["lever"])) is not None:
            why = f"at least {least[0]}: {least[1]}"
        history = self._history[record["cell"], name, c["lever"]]
        row = {
            "slice": name,
            "lever": c["lever"],
            "state": _state(c),
            "action": f"{health.played(c, s):g} {c['unit']}",
            "of maximum": _bar(part) + f" {part:4.0%}",
            "why": why,
            "measure": "-" if measure is None else measured(measure),
            "history": "".join(_SPARKS[min(7, int(v * 8))] for v in history),
        }
        met = _met(None if measure is None else measure["met"])
        return {**{what: Text(text) for what, text in row.items()}, "QoS": met}


_COLUMNS = ("cell", "slice", "lever", "state", "action", "of maximum", "why", "measure", "QoS", "history")
_NEEDED = ("lever", "action", "measure")
_WANTED = ("QoS", "why", "state", "of maximum")
"""Columns beside those that are needed, the most wanted first: a narrow terminal has no room for all."""
_LEAST_WHY = 12
_MEASURE = len("44.5 of 150 ms")
_LEAST_HISTORY, _GOOD_HISTORY, _MOST_HISTORY = 8, 16, 30
_NARROW = 70
"""A terminal with less columns has none for lines between them."""


def _table(rows: Sequence[Mapping[str, Text]], width: int, *, several: bool) -> Table:
    """Rows as a table of at most ``width`` columns; the history ends with the newest."""
    lines = width >= _NARROW
    between = 3 if lines else 1
    of = {c: max([len(c), *(row[c].cell_len for row in rows if c in row)]) for c in _COLUMNS}
    of["history"] = _LEAST_HISTORY
    of["measure"] = max(of["measure"], _MEASURE)  # else columns come and go with it
    shown = {*_NEEDED, "history", *(("cell",) if several else ())}
    left = width - 1 - sum(of[c] + between for c in shown)
    for c in ("slice", *_WANTED):
        spare = left - between
        if c not in ("slice", "QoS"):
            spare -= _GOOD_HISTORY - _LEAST_HISTORY
        if c == "why":
            of[c] = min(of[c], max(_LEAST_WHY, spare))
        if of[c] <= spare:
            shown.add(c)
            left -= of[c] + between
    of["history"] = max(1, min(_MOST_HISTORY, _LEAST_HISTORY + left))
    box, padding = (HEAVY_HEAD, (0, 1, 0, 1)) if lines else (None, (0, 1, 0, 0))
    table = Table(expand=False, box=box, padding=padding)
    for c in _COLUMNS:
        if c in shown:
            right = c in ("state", "action", "measure")
            justify: Literal["left", "right"] = "right" if right else "left"
            table.add_column(c, justify=justify, width=of[c], no_wrap=True, overflow="ellipsis")
    for row in rows:
        newest = {**row, "history": row.get("history", Text())[-of["history"] :]}
        table.add_row(*(newest.get(c, "") for c in _COLUMNS if c in shown))
    return table


def _state(c: dict[str, Any]) -> str:
    """The state of a choice in PRB (the edge's is the uplink's), the demand where there are no states."""
    state = c["demand"] if c["state"] is None and c["actions"] else c["state"]
    if state is None:
        return "-"
    return f"{state:.3g} {'PRB' if c['lever'] == 'edge' else c['unit']}"


def _met(met: int | None) -> Text:
    return Text(
        "-" if met is None else "met" if met else "missed",
        style="" if met is None else "green" if met else "red",
    )


def _of_maximum(choice: dict[str, Any], of: dict[str, Any], record: dict[str, Any]) -> float:
    """A choice's action as a part of all that there is; of a setting, of the largest that there was to
    choose."""
    limits = {"ul": record["prb"], "dl": record["prb"], "edge": record["max_mhz"]}
    limit = limits.get(choice["lever"]) or max(choice["actions"], default=choice["action"])
    return min(1.0, health.played(choice, of) / limit) if limit else 0.0


def _bar(part: float, width: int = 16) -> str:
    full = round(part * width)
    return "█" * full + "·" * (width - full)


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
