"""Reads the text files that the MUCB1 authors' modified OpenRTiST writes, so that their experiments live on.

Each line is ``port sequence nanoseconds``: the port of the flow's server, the frame's number in its flow, and
CLOCK_REALTIME. Which of a frame's four times a file holds is in its name, in any order and case: ``sent`` or
``recv``, and ``client`` or ``server`` (``feanor_sent_timestamps_client.txt``). A flow that is stopped and
started again on its port counts from the beginning; here it becomes a flow of its own.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wire import qos_pb2
from wire.definitions.bounds import MAX_FRAMES

IntArray = NDArray[np.int64]

COLUMNS = ("sequence", "ue_sent_ns", "edge_received_ns", "edge_sent_ns", "ue_received_ns")
_MIN_NS, _MAX_NS = 10**18, 1 << 62
"""2001 to 2116: a time of another clock, or one that was cut off with its line, is neither."""
_SLACK_NS = 5_000_000_000
"""How far the hosts' clocks may be apart before a frame is taken for one of the flow's earlier run."""
_FAR_NS = 300_000_000_000
"""A time with no other of its port so near is wrong; a step ahead as long as that is told."""
MAX_NAMED = 200
_SENT = re.compile("sent|send", re.IGNORECASE)
_RECEIVED = re.compile("recv|received?", re.IGNORECASE)
_CLIENT = re.compile("client", re.IGNORECASE)
_SERVER = re.compile("server", re.IGNORECASE)


class TimestampError(ValueError):
    """A folder that holds no timestamps, or a file that holds none; the text names it."""


@dataclass(frozen=True)
class ImportedFlow:
    """One run of a flow. ``frames`` is int64 [n, 5], by sequence: the sequence and the four times in
    CLOCK_REALTIME ns, 0 where the files have none."""

    flow: str
    port: int
    frames: IntArray

    @property
    def start_ns(self) -> int:
        """When its first frame was sent."""
        sent = self.frames[:, 1]
        return int(sent[sent > 0].min())

    @property
    def stop_ns(self) -> int:
        """When its last frame was sent."""
        return int(self.frames[:, 1].max())


@dataclass
class Imported:
    """What the files hold. ``counters`` counts every problem, ``problems`` names the first 200 by line."""

    flows: list[ImportedFlow] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def complain(self, counter: str, text: str) -> None:
        self.counters[counter] += 1
        if len(self.problems) < MAX_NAMED:
            self.problems.append(text)

    def messages(
        self, ue_id: str, slice_id: str, ul_bps: float, dl_bps: float
    ) -> Iterator[qos_pb2.QosMessage]:
        """The flows as a host would have told the controller: start, frames, stop."""
        for flow in self.flows:
            yield qos_pb2.QosMessage(
                flow_start=qos_pb2.FlowStart(
                    flow=flow.flow,
                    ue_id=ue_id,
                    slice=slice_id,
                    ul_bps=ul_bps,
                    dl_bps=dl_bps,
                    time_ns=flow.start_ns,
                )
            )
            rows = flow.frames.tolist()
            for some in (rows[i : i + MAX_FRAMES] for i in range(0, len(rows), MAX_FRAMES)):
                frames = [
                    qos_pb2.Frame(
                        sequence=sequence,
                        ue_sent_ns=ue_sent,
                        edge_received_ns=edge_received,
                        edge_sent_ns=edge_sent,
                        ue_received_ns=ue_received,
                    )
                    for sequence, ue_sent, edge_received, edge_sent, ue_received in some
                ]
                yield qos_pb2.QosMessage(frames=qos_pb2.FrameBatch(flow=flow.flow, frames=frames))
            yield qos_pb2.QosMessage(flow_stop=qos_pb2.FlowStop(flow=flow.flow, time_ns=flow.stop_ns))


def column_of(name: str) -> int | None:
    """Which of the four times (0..3) a file of this name holds; None for another file."""
    sent, received = bool(_SENT.search(name)), bool(_RECEIVED.search(name))
    client, server = bool(_CLIENT.search(name)), bool(_SERVER.search(name))
    if sent == received or client == server:
        return None
    return (0 if sent else 3) if client else (2 if sent else 1)


def read(folder: Path) -> Imported:
    """All timestamp files under a folder.

    Lines that are none, times twice (the first stands), frames out of order, times that go back or minutes
    ahead, times that no other of their port is near, and frames that nobody sent are counted and named; what
    can be used is used.

    Raises:
        TimestampError: the folder is not there, holds no file of times that clients sent or a link of such a
            name that leads nowhere, or not one frame was sent.
        OSError: a file or a folder in it cannot be read.
    """
    if not folder.is_dir():
        raise TimestampError(f"{folder}: no such folder")
    out = Imported()
    files: dict[int, list[Path]] = {}
    for column, path in _files(folder):
        files.setdefault(column, []).append(path)
    if 0 not in files:
        raise TimestampError(f"{folder}: no file of the times that a client sent (*sent*client*)")
    company = _Company()
    for column, paths in files.items():
        for path in paths:
            company.read(column, path)
    # (port, sequence) -> the runs that sent it, as [run, times], oldest first.
    frames: dict[tuple[int, int], list[tuple[int, list[int]]]] = {}
    runs: Counter[int] = Counter()
    for path in files[0]:
        _read_sent(out, company, path, frames, runs)
    if not frames:
        names = ", ".join(str(path) for path in files[0])
        why = f"{out.counters['garbage']} lines that are none"
        first = f", the first at {out.problems[0]}" if out.problems else ""
        raise TimestampError(f"{names}: not one frame was sent: {why}{first}")
    for column in (1, 2, 3):
        for path in files.get(column, ()):
            _read_later(out, company, path, column, frames)
    _collect(out, frames)
    return out


def _files(folder: Path) -> list[tuple[int, Path]]:
    """The timestamp files under a folder, by path, and the column that each holds."""

    def refuse(error: OSError) -> None:
        raise error

    found = []
    for where, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            path, column = Path(where, name), column_of(name)
            if column is None:
                continue
            if not path.exists():
                raise TimestampError(f"{path}: a link that leads to no file")
            if path.is_file():
                found.append((column, path))
    return sorted(found, key=lambda entry: entry[1])


def _lines(out: Imported, path: Path) -> Iterator[tuple[str, int, int, int]]:
    """(place, port, sequence, ns) of every line that is one."""
    taken = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            place = f"{path}:{number}"
            parts = line.split()
            if not parts:
                continue
            try:
                port, sequence, time_ns = (int(part) for part in parts)
            except ValueError:
                shown = line[:60].decode(errors="replace").rstrip()
                out.complain("garbage", f"{place}: {shown!r} is not 'port sequence nanoseconds'")
                continue
            if not (0 < port < 1 << 16 and 0 <= sequence < 1 << 32):
                out.complain("garbage", f"{place}: port {port} or sequence {sequence} cannot be")
                continue
            if not _MIN_NS <= time_ns < _MAX_NS:
                out.complain("garbage", f"{place}: {time_ns} is not a CLOCK_REALTIME time in ns")
                continue
            taken += 1
            yield place, port, sequence, time_ns
    out.files[str(path)] = taken


class _Company:
    """Which times have another one of their port within minutes, in any of the files.

    A pause between two experiments leaves none alone; a time of which a digit is wrong has none near. Where
    a port has no two times together, all ports count.
    """

    def __init__(self) -> None:
        # (port or 0 for all, minutes) -> the one time of these minutes; None: there is more than one.
        self._of: dict[tuple[int, int], tuple[int, ...] | None] = {}
        self._together: set[int] = set()

    def read(self, column: int, path: Path) -> None:
        for _, port, sequence, time_ns in _lines(Imported(), path):
            stamp = (column, port, sequence, time_ns)
            for of in (port, 0):
                key = (of, time_ns // _FAR_NS)
                # The same line in a copy of the file is not another time.
                if self._of.setdefault(key, stamp) != stamp:
                    self._of[key] = None
                    self._together.add(of)

    def alone(self, port: int, time_ns: int) -> bool:
        at, of = time_ns // _FAR_NS, port if port in self._together else 0
        near = [self._of[of, some] for some in (at - 1, at, at + 1) if (of, some) in self._of]
        return of in self._together and len(near) == 1 and near[0] is not None


class _Order:
    """Complains of frames and times of one port and file that are out of order."""

    def __init__(self, out: Imported) -> None:
        self._out = out
        self._last: dict[int, tuple[int, int]] = {}

    def begin(self, port: int) -> None:
        self._last.pop(port, None)

    def check(self, place: str, port: int, sequence: int, time_ns: int) -> None:
        last_sequence, last_ns = self._last.get(port, (-1, 0))
        if sequence < last_sequence:
            self._out.complain("out_of_order", f"{place}: frame {sequence} comes after {last_sequence}")
        if time_ns < last_ns:
            back = (last_ns - time_ns) / 1e6
            self._out.complain("clock_back", f"{place}: the time goes back by {back:.3f} ms")
        elif last_ns and time_ns - last_ns > _FAR_NS:
            ahead = (time_ns - last_ns) / 1e9
            self._out.complain("clock_ahead", f"{place}: the time goes ahead by {ahead:.0f} s")
        self._last[port] = max(sequence, last_sequence), max(time_ns, last_ns)


def _believed(out: Imported, company: _Company, path: Path) -> Iterator[tuple[str, int, int, int]]:
    """The lines of a file without those whose time is far from all others."""
    for place, port, sequence, time_ns in _lines(out, path):
        if company.alone(port, time_ns):
            text = f"{time_ns} is minutes away from every other time of port {port}: left out"
            out.complain("far_off", f"{place}: {text}")
            continue
        yield place, port, sequence, time_ns


def _read_sent(
    out: Imported,
    company: _Company,
    path: Path,
    frames: dict[tuple[int, int], list[tuple[int, list[int]]]],
    runs: Counter[int],
) -> None:
    first: dict[int, int] = {}
    seen: dict[int, int] = {}
    order = _Order(out)
    for place, port, sequence, time_ns in _believed(out, company, path):
        before = frames.setdefault((port, sequence), [])
        if any(times[0] == time_ns for _, times in before):
            out.complain("duplicates", f"{place}: frame {sequence} of port {port} was sent already")
            continue
        if port not in first or (sequence == first[port] and seen[port] > 1):
            # The frame with which the flow began: it begins again.
            first[port], seen[port] = sequence, 0
            runs[port] += 1
            order.begin(port)
        run = runs[port]
        if before and before[-1][0] == run:
            out.complain("duplicates", f"{place}: frame {sequence} of port {port} was sent already")
            continue
        seen[port] += 1
        order.check(place, port, sequence, time_ns)
        before.append((run, [time_ns, 0, 0, 0]))


def _read_later(
    out: Imported,
    company: _Company,
    path: Path,
    column: int,
    frames: dict[tuple[int, int], list[tuple[int, list[int]]]],
) -> None:
    order = _Order(out)
    at: dict[int, int] = {}
    for place, port, sequence, time_ns in _believed(out, company, path):
        candidates = frames.get((port, sequence), [])
        fits = [(run, times) for run, times in candidates if times[0] <= time_ns + _SLACK_NS]
        if not fits:
            out.complain("never_sent", f"{place}: frame {sequence} of port {port} was not sent before that")
            continue
        run, times = fits[-1]
        if at.get(port, run) != run:
            order.begin(port)
        at[port] = run
        if times[column]:
            out.complain("duplicates", f"{place}: frame {sequence} of port {port} has that time already")
            continue
        order.check(place, port, sequence, time_ns)
        times[column] = time_ns


def _collect(out: Imported, frames: dict[tuple[int, int], list[tuple[int, list[int]]]]) -> None:
    rows: dict[tuple[int, int], list[list[int]]] = {}
    for (port, sequence), sent in frames.items():
        for run, times in sent:
            rows.setdefault((port, run), []).append([sequence, *times])
    for (port, run), some in sorted(rows.items()):
        table = np.array(sorted(some), np.int64)
        known = table[:, 1:] != 0
        out.counters["frames"] += len(table)
        out.counters["lost"] += int((~known[:, 3]).sum())
        out.counters["incomplete"] += int((~known[:, 1:3].all(axis=1) & known[:, 3]).sum())
        steps = np.diff(table[:, 1:], axis=1)
        both = known[:, 1:] & known[:, :-1]
        out.counters["negative_delays"] += int(((steps < 0) & both).any(axis=1).sum())
        out.flows.append(ImportedFlow(f"port-{port}" if run == 1 else f"port-{port}-{run}", port, table))
