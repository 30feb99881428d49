"""Starts and stops the processes of flows by a schedule, for hours.

A schedule is a file::

    version: 1
    length_s: 3600.0
    made_by: {seed: 4, ...}          # how it was made; not read
    flows:
      - {flow: ar-1, ue: ue-1, kind: openrtist, active: [[12.0, 140.5], [300.0, 420.0]]}
      - {flow: bg-1, ue: ue-2, kind: iperf3, direction: dl, mbps: 5.0, port: 5201, active: [[0.0, 60.0]]}

Times are seconds since the start, ascending and disjoint.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

log = logging.getLogger(__name__)

VERSION = 1
KINDS = ("openrtist", "iperf3")
DIRECTIONS = ("ul", "dl")
_MAX_S = 31 * 86_400.0
_KEYS = {"flow", "ue", "kind", "active", "direction", "mbps", "port"}
STOP_S = 15.0
"""A process that does not end so long after SIGTERM is killed."""
_BACKOFF_S = (1.0, 30.0)


class ScheduleError(ValueError):
    """A schedule that cannot be played; the text names the file, the flow and the key."""


@dataclass(frozen=True, slots=True)
class TrafficFlow:
    """One flow and its [start, stop) intervals in seconds. The last three are for iperf3."""

    flow: str
    ue: str
    kind: str
    active: tuple[tuple[float, float], ...]
    direction: str = "dl"
    mbps: float = 0.0
    port: int = 5201

    @property
    def planned_s(self) -> float:
        return sum(stop - start for start, stop in self.active)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Flows over ``length_s`` seconds."""

    length_s: float
    flows: tuple[TrafficFlow, ...]
    made_by: dict[str, Any] = field(default_factory=dict)

    def to_yaml(self) -> str:
        """As the file; :func:`parse` is the inverse."""
        lines = [f"version: {VERSION}", f"length_s: {self.length_s}"]
        if self.made_by:
            lines.append(f"made_by: {json.dumps(self.made_by)}")
        lines.append("flows:")
        for f in self.flows:
            entry: dict[str, Any] = {"flow": f.flow, "ue": f.ue, "kind": f.kind}
            if f.kind == "iperf3":
                entry |= {"direction": f.direction, "mbps": f.mbps, "port": f.port}
            entry["active"] = [[round(start, 3), round(stop, 3)] for start, stop in f.active]
            lines.append(f"  - {json.dumps(entry)}")
        return "\n".join(lines) + "\n"


def parse(text: str, name: str = "schedule") -> Schedule:
    """A schedule from YAML text; ``name`` is what errors call the file.

    Raises:
        ScheduleError: names flow, key and value of the first thing that cannot be.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScheduleError(f"{name}: not YAML: {error}") from None
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ScheduleError(f"{name}: not a schedule of version {VERSION}")
    if unknown := set(data) - {"version", "length_s", "made_by", "flows"}:
        raise ScheduleError(f"{name}: unknown key {sorted(unknown)[0]!r}")
    length = _number(name, "length_s", data.get("length_s"), 0.0, _MAX_S)
    entries = data.get("flows")
    if not isinstance(entries, list) or not entries:
        raise ScheduleError(f"{name}: flows: there are none")
    flows = tuple(_flow(f"{name}: flows[{i}]", entry, length) for i, entry in enumerate(entries))
    names = [f.flow for f in flows]
    for flow in names:
        if names.count(flow) > 1:
            raise ScheduleError(f"{name}: flow {flow!r} is there twice")
    return Schedule(length, flows, data.get("made_by") or {})


def _flow(place: str, entry: Any, length: float) -> TrafficFlow:
    if not isinstance(entry, dict):
        raise ScheduleError(f"{place}: {entry!r} is not a flow")
    if unknown := set(entry) - _KEYS:
        raise ScheduleError(f"{place}: unknown key {sorted(map(str, unknown))[0]!r}")
    for key in ("flow", "ue"):
        value = entry.get(key)
        if not isinstance(value, str) or not value or "/" in value or len(value) > 64:
            raise ScheduleError(f"{place}: {key} {value!r} is not a name")
    place = f"{place} ({entry['flow']})"
    kind, direction = entry.get("kind", "openrtist"), entry.get("direction", "dl")
    if kind not in KINDS:
        raise ScheduleError(f"{place}: kind {kind!r} is none of {list(KINDS)}")
    if direction not in DIRECTIONS:
        raise ScheduleError(f"{place}: direction {direction!r} is none of {list(DIRECTIONS)}")
    intervals = entry.get("active")
    if not isinstance(intervals, list):
        raise ScheduleError(f"{place}: active {intervals!r} is not a list of intervals")
    active: list[tuple[float, float]] = []
    for i, pair in enumerate(intervals):
        where = f"{place}: active[{i}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise ScheduleError(f"{where}: {pair!r} is not [start, stop]")
        start = _number(where, "start", pair[0], 0.0, length)
        stop = _number(where, "stop", pair[1], 0.0, length)
        if start >= stop or (active and start < active[-1][1]):
            raise ScheduleError(f"{where}: [{start}, {stop}] is empty or before the end of the one before it")
        active.append((start, stop))
    return TrafficFlow(
        entry["flow"],
        entry["ue"],
        kind,
        tuple(active),
        direction,
        _number(place, "mbps", entry.get("mbps", 0.0), 0.0, 1e5),
        int(_number(place, "port", entry.get("port", 5201), 1, 65535)),
    )


def _number(place: str, key: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ScheduleError(f"{place}: {key} {value!r} is not a number from {low:g} to {high:g}")
    return float(value)


def iperf3_command(flow: TrafficFlow, server: str, seconds: float) -> list[str]:
    """The iperf3 client of a background flow; 0 Mbit/s is TCP at full speed."""
    return [
        *("iperf3", "--client", server, "--port", str(flow.port), "--time", str(max(1, round(seconds)))),
        *(("--reverse",) if flow.direction == "dl" else ()),
        *(("--bitrate", f"{flow.mbps}M") if flow.mbps else ()),
        "--json",
    ]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the whole session that it leads: a command with a prefix is more than one process."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@dataclass(slots=True)
class _State:
    """A flow as it is played."""

    flow: TrafficFlow
    process: subprocess.Popen[bytes] | None = None
    output: IO[bytes] | None = None
    since: float = 0.0
    retry_at: float = 0.0
    backoff: float = _BACKOFF_S[0]
    stopping_at: float = 0.0
    starts: int = 0
    failures: int = 0
    killed: int = 0
    on_s: float = 0.0
    skipped: str = ""


class Runner:
    """Plays a schedule with real processes.

    Args:
        command: gives the command line of a flow that is to run for so many seconds.
        logs: folder; each flow writes ``FLOW.log`` (stderr) and ``FLOW.out`` (stdout) there. OSError where
            an earlier run is in it.
    """

    def __init__(
        self,
        schedule: Schedule,
        command: Callable[[TrafficFlow, float], Sequence[str]],
        logs: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schedule = schedule
        self._command = command
        self._logs = logs
        self._clock = clock
        self._states = [_State(flow) for flow in schedule.flows]
        logs.mkdir(parents=True, exist_ok=True)
        for state in self._states:
            if (there := logs / f"{state.flow.flow}.out").exists():
                raise FileExistsError(f"{there}: holds an earlier run; choose another folder for the logs")
            if state.flow.kind == "iperf3" and shutil.which("iperf3") is None:
                state.skipped = "iperf3 is not installed"
                log.warning("flow %s is skipped: %s", state.flow.flow, state.skipped)

    def run(
        self, stop: Callable[[], bool], on_change: Callable[[str], None] | None = None
    ) -> list[dict[str, Any]]:
        """Play to the end of the schedule or until ``stop``; returns what each flow did.

        A process that ends before its time is started again, after 1 s and then twice as long each time up
        to 30 s. All processes are gone when this returns.
        """
        begun = self._clock()
        try:
            while not stop():
                now = self._clock() - begun
                if now >= self._schedule.length_s:
                    break
                for state in self._states:
                    self._play(state, now, on_change)
                time.sleep(0.05)
        finally:
            self._end(self._clock() - begun)
        return [self._told(state) for state in self._states]

    def _play(self, state: _State, now: float, on_change: Callable[[str], None] | None) -> None:
        if state.skipped:
            return
        interval = next((pair for pair in state.flow.active if pair[0] <= now < pair[1]), None)
        if state.process is not None:
            code = state.process.poll()
            if code is not None:
                self._ended(state, now)
                if interval is not None:
                    self._too_early(state, now, interval[1] - now, f"ended ({code})")
            elif interval is None:
                self._stop(state, now)
            elif now - state.since > 60:
                state.backoff = _BACKOFF_S[0]
        elif interval is not None and now >= state.retry_at and interval[1] - now > 0.1:
            self._start(state, now, interval[1] - now)
            if on_change is not None:
                on_change(f"{state.flow.flow} on")

    def _start(self, state: _State, now: float, seconds: float) -> None:
        command = list(self._command(state.flow, seconds))
        state.output = (self._logs / f"{state.flow.flow}.out").open("ab")
        with (self._logs / f"{state.flow.flow}.log").open("ab") as errors:
            try:
                state.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=state.output,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                state.output.close()
                self._too_early(state, now, seconds, f"{command[0]} cannot be started: {error.strerror}")
                return
        state.since, state.stopping_at = now, 0.0
        state.starts += 1
        log.info("flow %s on for %.1f s", state.flow.flow, seconds)

    def _too_early(self, state: _State, now: float, left: float, why: str) -> None:
        if left <= 1.0:
            # A client that was told its duration may end a moment early.
            state.retry_at = now + left
            return
        state.retry_at, wait = now + state.backoff, state.backoff
        state.backoff = min(2 * wait, _BACKOFF_S[1])
        state.failures += 1
        log.warning("flow %s: %s, %.0f s before its time; again in %g s", state.flow.flow, why, left, wait)

    def _stop(self, state: _State, now: float) -> None:
        assert state.process is not None
        if not state.stopping_at:
            state.stopping_at = now
            _signal(state.process, signal.SIGTERM)
            log.info("flow %s off", state.flow.flow)
        elif now - state.stopping_at > STOP_S:
            self._kill(state)

    def _kill(self, state: _State) -> None:
        assert state.process is not None
        state.killed += 1
        log.warning("flow %s did not stop in %g s: killed", state.flow.flow, STOP_S)
        _signal(state.process, signal.SIGKILL)
        state.process.wait()

    def _ended(self, state: _State, now: float) -> None:
        state.on_s += (state.stopping_at or now) - state.since
        if state.process is not None:
            _signal(state.process, signal.SIGKILL)  # what a prefix has left behind
        state.process = None
        if state.output is not None:
            state.output.close()

    def _end(self, now: float) -> None:
        alive = [s for s in self._states if s.process is not None and s.process.poll() is None]
        for state in alive:
            if not state.stopping_at:
                state.stopping_at = now
                assert state.process is not None
                _signal(state.process, signal.SIGTERM)
        limit = time.monotonic() + STOP_S
        for state in alive:
            assert state.process is not None
            try:
                state.process.wait(max(0.1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._kill(state)
        for state in self._states:
            if state.process is not None:
                self._ended(state, now)

    def _told(self, state: _State) -> dict[str, Any]:
        return {
            "flow": state.flow.flow,
            "ue": state.flow.ue,
            "kind": state.flow.kind,
            "planned_s": round(state.flow.planned_s, 3),
            "on_s": round(state.on_s, 3),
            "starts": state.starts,
            "failures": state.failures,
            "killed": state.killed,
            "skipped": state.skipped,
            **_frames(self._logs / f"{state.flow.flow}.out", state.flow.kind),
        }


def _frames(path: Path, kind: str) -> dict[str, Any]:
    """Sums over the summaries that a flow's clients printed, a JSON object each."""
    names = ("sent", "returned", "lost", "skipped") if kind == "openrtist" else ()
    sums = dict.fromkeys(names, 0)
    text = path.read_text(errors="replace") if names and path.exists() else ""
    for line in text.splitlines():
        try:
            summary = json.loads(line)
            for name in names:
                sums[name] += int(summary[name])
        except (ValueError, KeyError, TypeError):
            continue
    return {f"frames_{name}": value for name, value in sums.items()}
