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
from collections import Counter
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
MAX_S = 31 * 86_400.0
MAX_INTERVALS = 100_000
"""Of all flows together; more take minutes to read."""
_TOP = {"version", "length_s", "made_by", "flows"}
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
        """As the file, in milliseconds; :func:`parse` is the inverse.

        Raises:
            ScheduleError: :func:`parse` would refuse it.
        """
        entries = [_entry(f) for f in self.flows]
        _schedule("schedule", {"version": VERSION, "length_s": self.length_s, "flows": entries})
        lines = [f"version: {VERSION}", f"length_s: {self.length_s}"]
        if self.made_by:
            lines.append(f"made_by: {json.dumps(self.made_by)}")
        lines += ["flows:", *(f"  - {json.dumps(entry)}" for entry in entries)]
        return "\n".join(lines) + "\n"


def _entry(flow: TrafficFlow) -> dict[str, Any]:
    entry: dict[str, Any] = {"flow": flow.flow, "ue": flow.ue, "kind": flow.kind}
    if flow.kind == "iperf3":
        entry |= {"direction": flow.direction, "mbps": flow.mbps, "port": flow.port}
    times = [[round(start, 3), round(stop, 3)] for start, stop in flow.active]
    return entry | {"active": [pair for pair in times if pair[0] < pair[1]]}


def read(path: Path) -> Schedule:
    """The schedule in a file.

    Raises:
        ScheduleError: names the file, and what :func:`parse` names.
        OSError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ScheduleError(f"{path}: not text in UTF-8: {error.reason} at byte {error.start}") from None
    return parse(text, str(path))


def parse(text: str, name: str = "schedule") -> Schedule:
    """A schedule from YAML text; ``name`` is what errors call the file.

    Raises:
        ScheduleError: names flow, key and value of the first thing that cannot be.
    """
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ScheduleError(f"{name}: not YAML: {error}") from None
    return _schedule(name, data)


def check_length(length_s: float, intervals: float, name: str = "schedule") -> None:
    """ScheduleError for more seconds or more intervals of all flows than a schedule may have."""
    _number(name, "length_s", length_s, 0.0, MAX_S)
    if intervals > MAX_INTERVALS:
        raise ScheduleError(f"{name}: {intervals:.0f} intervals, {MAX_INTERVALS} are the most")


def _schedule(name: str, data: Any) -> Schedule:
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ScheduleError(f"{name}: not a schedule of version {VERSION}")
    if unknown := set(data) - _TOP:
        raise ScheduleError(f"{name}: unknown key {sorted(map(str, unknown))[0]!r}")
    length = _number(name, "length_s", data.get("length_s"), 0.0, MAX_S)
    entries = data.get("flows")
    if not isinstance(entries, list) or not entries:
        raise ScheduleError(f"{name}: flows: there are none")
    flows = tuple(_flow(f"{name}: flows[{i}]", entry, length) for i, entry in enumerate(entries))
    check_length(length, sum(len(f.active) for f in flows), name)
    for flow, times in Counter(f.flow for f in flows).items():
        if times > 1:
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
    until: float = 0.0
    retry_at: float = 0.0
    backoff: float = _BACKOFF_S[0]
    stopping_at: float = 0.0
    starts: int = 0
    failures: int = 0
    killed: int = 0
    good: int = 0
    on_s: float = 0.0
    skipped: str = ""
    reached: set[tuple[float, float]] = field(default_factory=set)
    carried: set[tuple[float, float]] = field(default_factory=set)
    frames: int = 0


class Runner:
    """Plays a schedule with real processes.

    Args:
        command: gives the command line of a flow that is to run for so many seconds.
        logs: folder; each flow writes ``FLOW.log`` (stderr) and ``FLOW.out`` (stdout) there. OSError where
            an earlier run is in it.
        start: as ``subprocess.Popen``.
    """

    def __init__(
        self,
        schedule: Schedule,
        command: Callable[[TrafficFlow, float], Sequence[str]],
        logs: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
    ) -> None:
        self._schedule = schedule
        self._command = command
        self._logs = logs
        self._clock = clock
        self._popen = start
        self._states = [_State(flow) for flow in schedule.flows]
        logs.mkdir(parents=True, exist_ok=True)
        for state in self._states:
            if (existing := logs / f"{state.flow.flow}.out").exists():
                raise FileExistsError(f"{existing}: holds an earlier run; choose another folder for the logs")
            if state.flow.kind == "iperf3" and shutil.which("iperf3") is None:
                state.skipped = "iperf3 is not installed"
                log.warning("flow %s is skipped: %s", state.flow.flow, state.skipped)

    def run(
        self, stop: Callable[[], bool], on_change: Callable[[str], None] | None = None
    ) -> list[dict[str, Any]]:
        """Play to the end of the schedule or until ``stop``; returns what each flow did.

        A process that ends before its time is started again, after 1 s and then twice as long each time up
        to 30 s. That, and an exit code other than 0, is a failure. All processes are gone when this returns.

        Of each flow, ``intervals`` began, and in ``silent`` of them no client said that it had sent a frame
        (iperf3: none ended well). ``ran`` is whether any of its processes did its work to the end; True where
        none was due.
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
        return [self._reported(state) for state in self._states]

    def _play(self, state: _State, now: float, on_change: Callable[[str], None] | None) -> None:
        interval = next((pair for pair in state.flow.active if pair[0] <= now < pair[1]), None)
        if interval is not None:
            state.reached.add(interval)
        if state.skipped:
            return
        if state.process is not None:
            if state.process.poll() is not None:
                self._ended(state, now)
            elif now >= state.until:
                self._stop(state, now)
            elif now - state.since > 60:
                state.backoff = _BACKOFF_S[0]
        elif interval is not None and now >= state.retry_at and interval[1] - now > 0.1:
            self._start(state, now, interval)
            if on_change is not None:
                on_change(f"{state.flow.flow} on")

    def _start(self, state: _State, now: float, interval: tuple[float, float]) -> None:
        state.since, state.until, state.stopping_at = now, interval[1], 0.0
        seconds = interval[1] - now
        command = list(self._command(state.flow, seconds))
        state.output = (self._logs / f"{state.flow.flow}.out").open("ab")
        with (self._logs / f"{state.flow.flow}.log").open("ab") as errors:
            try:
                state.process = self._popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=state.output,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                state.output.close()
                self._failed(state, now, f"{command[0]} cannot be started: {error.strerror}")
                return
        state.starts += 1
        log.info("flow %s on for %.1f s", state.flow.flow, seconds)

    def _failed(self, state: _State, now: float, why: str) -> None:
        state.failures += 1
        left = state.until - now
        if state.stopping_at or left <= 0:
            log.warning("flow %s: %s", state.flow.flow, why)
            return
        state.retry_at, wait = now + state.backoff, state.backoff
        state.backoff = min(2 * wait, _BACKOFF_S[1])
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
        assert state.process is not None
        code = state.process.returncode
        state.on_s += (state.stopping_at or now) - state.since
        _signal(state.process, signal.SIGKILL)  # what a prefix has left behind
        state.process = None
        if state.output is not None:
            state.output.close()
        good = code == 0 or (state.stopping_at > 0 and _told_to_end(state.flow.kind, code))
        carried = good
        if state.flow.kind == "openrtist":
            before, state.frames = state.frames, self._frames(state.flow)["frames_sent"]
            carried = state.frames > before
        if carried:
            state.carried |= {pair for pair in state.reached if pair[1] == state.until}
        state.good += good and carried
        if not good or (not state.stopping_at and state.until - now > 1.0):
            self._failed(state, now, f"ended ({code})")
        else:
            # A client that was told its duration may end a moment early.
            state.retry_at = max(now, state.until)

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

    def _reported(self, state: _State) -> dict[str, Any]:
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
            "intervals": len(state.reached),
            "silent": len(state.reached - state.carried),
            "ran": bool(state.good or not state.reached),
            **self._frames(state.flow),
        }

    def _frames(self, flow: TrafficFlow) -> dict[str, int]:
        return _frames(self._logs / f"{flow.flow}.out", flow.kind)


def _told_to_end(kind: str, code: int) -> bool:
    """Whether SIGTERM explains how a process ended. A prefix may pass it on, and iperf3 ends with 1."""
    return code in (-signal.SIGTERM, 128 + signal.SIGTERM) or (kind == "iperf3" and code == 1)


def _frames(path: Path, kind: str) -> dict[str, int]:
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
