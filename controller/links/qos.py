"""QoS ingest: the controller's side of wire/qos.proto.

:class:`QosIngest` checks what the hosts send and hands it on as core types; :class:`QosQueue` holds it until
the control loop takes it. A message that cannot be used is answered with a notice that names the place,
counted, and the stream goes on. The other way go settings, to the stream that started the flow.

Settings of a flow, from :meth:`QosIngest.set_settings` to the end of their lease::

    waiting   -- after any message of the stream          -> sent      SetSettings with its sequence
    sent      -- no answer for resend_s                   -> sent      the same sequence once more
    sent      -- SettingsApplied                          -> answered
    answered  -- set_settings, the same values            -> answered  the same sequence, its lease anew
    any       -- set_settings, other values or refused    -> waiting   a new sequence
    any       -- the flow starts on another stream        -> waiting   a new sequence
    any       -- release_settings                         -> waiting   a new sequence, no settings, no lease
    any       -- the lease ends, the flow stops           -> forgotten
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NoReturn, TypeVar

import grpc
import numpy as np

from controller.core.clocks import ClockBoard, ClockFault, KnownClock, Moment
from controller.core.collector import MAX_AHEAD_NS, MAX_BEHIND_NS
from controller.core.observation import Flow
from controller.links import codec
from controller.links.codec import BadMessage, ClockReport, FlowEnd, FrameBatch, SampleBatch, SettingsApplied
from controller.links.counters import Complaints, Counters, guard_counters, guard_refusals
from controller.links.health import Heard
from wire import PROTOCOL_VERSION, qos_pb2
from wire.definitions.bounds import (
    MAX_CELL_FLOWS,
    MAX_CELL_ID,
    MAX_FLOW_NAME,
    MAX_SETTINGS_FLOWS,
    MAX_SETTINGS_LEASE_MS,
    check_settings,
)
from wire.roles import CLOCK_STREAM, PTP_AGENT, TELLS_EDGE_CLOCK, Identity, clock_host
from wire.serving import Guard, caller

log = logging.getLogger(__name__)

MAX_SEQUENCES = 1024
"""SetSettings of a stream whose answers are known; later answers to older ones are refused."""
MAX_NOT_TAKEN = 8
"""Flows of a stream that could not start, of which it is known why."""
MAX_WHY = 240
"""Characters of why."""
REFUSED_NS = 10_000_000_000
"""So long a refused message is told of."""
MAX_RECENT = 4096
"""Samples messages of a flow that are remembered, to know one that comes twice."""

COUNTERS: dict[str, str] = {
    **guard_counters("qos"),
    "qos_streams_total": "Streams of hosts that were accepted",
    "qos_version_mismatch_total": "Streams refused: other protocol version",
    "qos_stream_refused_total": "Streams refused: no Hello, unknown cell or too many",
    "qos_malformed_total": "Messages refused: not a QosMessage, or without a known body",
    "qos_refused_total": "Messages refused: impossible value, unknown flow or slice",
    "qos_frames_total": "Frame reports taken",
    "qos_frames_dropped_total": "Frame reports dropped, oldest first, because the queue was full",
    "qos_frames_unsynchronised_total": "Frame reports taken that count for the round trip alone",
    "qos_samples_total": "Rows of samples taken",
    "qos_samples_dropped_total": "Rows of samples dropped, oldest first, because the queue was full",
    "qos_samples_repeated_total": "Rows of samples left out because their message had come before",
    "qos_settings_sent_total": "Settings sent to hosts, renewed leases included; messages",
    "qos_settings_resent_total": "Settings sent once more because they were not answered; messages",
    "qos_settings_applied_total": "Answers to settings that were taken",
    "qos_settings_refused_total": "Answers to settings that an application refused",
    "qos_denied_total": "Calls and messages refused: not for the certificate's role, or of another host",
    "qos_clock_out_of_bound_total": "Clock reports with an offset beyond the bound",
    "qos_clock_unusable_total": "Clock reports of a clock that cannot be used, whatever the reason",
    "qos_clock_reports_dropped_total": "Clock reports dropped because a later one of that host came",
}
"""Help text of every counter of this link; each has the label ``cell``, empty where it is not known."""


@dataclass(frozen=True, slots=True)
class FlowBegin:
    """``host`` says that a flow is active, on its ``stream``; ``service`` is empty where it does not say."""

    host: str
    flow: Flow
    stream: int = field(default=0, compare=False)
    service: str = ""


@dataclass(frozen=True, slots=True)
class HostLost:
    """A stream of a host ended; it may come back and start its flows again."""

    host: str
    time_ns: int
    stream: int = field(default=0, compare=False)


QosItem = FlowBegin | FlowEnd | FrameBatch | SampleBatch | SettingsApplied | ClockReport | HostLost


B = TypeVar("B", FrameBatch, SampleBatch)


class _Batches(Generic[B]):
    """Batches that wait, at most ``max_rows`` rows of them beside the latest; the oldest go first."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._waiting: deque[tuple[str, B]] = deque()
        self.rows = 0

    def append(self, cell_id: str, batch: B) -> list[tuple[str, int]]:
        """Takes a batch; returns what was dropped for it as (cell id, rows)."""
        self._waiting.append((cell_id, batch))
        self.rows += len(batch)
        dropped = []
        while self.rows > self._max_rows and len(self._waiting) > 1:
            cell, oldest = self._waiting.popleft()
            self.rows -= len(oldest)
            dropped.append((cell, len(oldest)))
        return dropped

    def take(self) -> deque[tuple[str, B]]:
        taken, self._waiting = self._waiting, deque()
        self.rows = 0
        return taken


class QosQueue:
    """Holds what the hosts reported until the control loop takes it; any thread may put and take.

    When more than ``max_frames`` frame reports wait, the oldest are dropped and counted, and so it is with
    ``max_samples`` rows of samples. Starts and ends of flows and answers to settings are never dropped:
    :meth:`put` refuses them when ``max_events`` wait. Of a host's clock reports only the latest waits.
    """

    def __init__(
        self,
        *,
        max_frames: int = 100_000,
        max_samples: int = 100_000,
        max_events: int = 65_536,
        counters: Counters | None = None,
    ) -> None:
        if min(max_frames, max_samples, max_events) < 1:
            raise ValueError(
                f"a queue of {max_frames} frames, {max_samples} samples and {max_events} events holds nothing"
            )
        self._max_events = max_events
        self.counters = counters or Counters()
        self._lock = threading.Lock()
        self._events: list[tuple[str, QosItem]] = []
        self._clocks: dict[tuple[str, str], ClockReport] = {}
        self._frames: _Batches[FrameBatch] = _Batches(max_frames)
        self._samples: _Batches[SampleBatch] = _Batches(max_samples)

    def put(self, cell_id: str, item: QosItem) -> None:
        """Takes one item.

        Raises:
            BadMessage: the queue holds all the flow events that it can.
        """
        dropped: list[tuple[str, int]] = []
        counter = "qos_frames_dropped_total"
        with self._lock:
            if isinstance(item, FrameBatch):
                dropped = self._frames.append(cell_id, item)
            elif isinstance(item, SampleBatch):
                counter = "qos_samples_dropped_total"
                dropped = self._samples.append(cell_id, item)
            elif isinstance(item, ClockReport):
                if (cell_id, item.host) in self._clocks:
                    self.counters.inc("qos_clock_reports_dropped_total", cell_id)
                self._clocks[cell_id, item.host] = item
            elif len(self._events) >= self._max_events:
                raise BadMessage(f"the queue is full: {len(self._events)} flow events wait")
            else:
                self._events.append((cell_id, item))
        for cell, rows in dropped:
            self.counters.inc(counter, cell, rows)

    def take(self) -> list[tuple[str, QosItem]]:
        """All that waits as ``(cell id, item)``: flow events and answers to settings in order, clock reports,
        frames in order, samples in order."""
        with self._lock:
            events, self._events = self._events, []
            clocks, self._clocks = self._clocks, {}
            frames, samples = self._frames.take(), self._samples.take()
        return [*events, *((cell, report) for (cell, _), report in clocks.items()), *frames, *samples]

    def __len__(self) -> int:
        """Frame reports that wait."""
        return self._frames.rows


def _not_its_own(host: str, shown: Identity | None) -> str:
    """Why a stream with this certificate does not speak for a host, or nothing."""
    if shown is None:
        return ""
    if shown.host and shown.host != clock_host(host):
        return f"the certificate is of host {shown.host!r}"
    if host.startswith(CLOCK_STREAM) and shown.role not in TELLS_EDGE_CLOCK:
        return f"{CLOCK_STREAM} is not for the role {shown.role!r}"
    return ""


def read_clocks() -> Moment:
    """Now."""
    return Moment(time.time_ns(), time.monotonic_ns())


@dataclass(slots=True)
class _Stream:
    """One stream of a host, which may have several: one a client."""

    hello: qos_pb2.QosHello
    number: int
    peer: str = ""
    identity: Identity | None = None
    """Of its certificate; None without TLS."""
    heard_ns: int = 0
    """When its last message came, monotonic ns."""
    ended_ns: int | None = None
    """When it ended, monotonic ns."""
    settings: dict[str, _Settings] = field(default_factory=dict)
    """Flow -> settings that are for this stream."""
    sent: OrderedDict[int, tuple[str, ...]] = field(default_factory=OrderedDict)
    """Sequence -> flows, of the SetSettings that went out."""
    not_taken: dict[str, str] = field(default_factory=dict)
    """Flow -> why it could not start."""
    refusal: tuple[int, str] = (0, "")
    """When one of its other messages was refused last, monotonic ns, and why."""

    def refused(self, now_ns: int) -> str:
        """Why what it reports is not used; "" where it is."""
        at_ns, why = self.refusal
        recent = why if now_ns - at_ns < REFUSED_NS else ""
        return next(iter(self.not_taken.values()), recent)

    @property
    def ended(self) -> bool:
        return self.ended_ns is not None

    @property
    def reporter(self) -> tuple[str, int]:
        """Who reports: the same over all streams of a process."""
        return self.hello.host, self.hello.instance


@dataclass(slots=True)
class _Settings:
    """What a flow is to be set to, and how far that is; see the module's docstring. Times are monotonic ns.

    ``values`` is None where the flow is released.
    """

    values: dict[str, tuple[float, ...]] | None
    until_ns: int
    sequence: int
    sent_ns: int | None = None
    sent_real_ns: int = 0
    answer: tuple[int, str] | None = None
    """``time_ns`` and ``refused`` as the host wrote them."""
    renewed: bool = False

    @property
    def refused(self) -> bool:
        return self.answer is not None and bool(self.answer[1])

    def resend(self, sequence: int) -> None:
        """They go out under a new sequence."""
        self.sequence = sequence
        self.sent_ns, self.answer, self.renewed = None, None, False

    def due(self, now_ns: int, resend_ns: int) -> bool:
        """Whether they are to be sent now."""
        if self.sent_ns is None:
            return True
        if self.answer is None:
            return now_ns - self.sent_ns >= resend_ns
        return self.renewed


@dataclass(slots=True)
class _Reported:
    """A flow, and the stream that started it last.

    ``recent``: digest of a Samples message that was taken -> monotonic ns.
    """

    stream: _Stream
    flow: Flow
    stopped: bool = False
    recent: OrderedDict[bytes, int] = field(default_factory=OrderedDict)

    @property
    def active(self) -> bool:
        """Whether the flow goes on, and its stream too."""
        return not (self.stopped or self.stream.ended)

    def over(self, since_ns: int) -> bool:
        """Whether the flow has stopped, or its stream ended before ``since_ns`` (monotonic)."""
        ended_ns = self.stream.ended_ns
        return self.stopped or (ended_ns is not None and ended_ns <= since_ns)


class _SequenceAllocator:
    """Sequences for settings that are set together: one for at most MAX_SETTINGS_FLOWS flows of a stream."""

    def __init__(self, sequences: Iterator[int]) -> None:
        self._sequences = sequences
        self._open: dict[tuple[int, bool], tuple[int, int]] = {}

    def allocate(self, stream: _Stream, *, release: bool = False) -> int:
        key = stream.number, release
        sequence, flows = self._open.get(key, (0, MAX_SETTINGS_FLOWS))
        if flows == MAX_SETTINGS_FLOWS:
            sequence, flows = next(self._sequences), 0
        self._open[key] = sequence, flows + 1
        return sequence


class QosIngest:
    """The gRPC servicer.

    Args:
        sink: takes ``(cell id, item)``, from several threads; a ValueError of it refuses the message. It must
            not call the ingest.
        expected_cells: cell ids that may report; None: any.
        check_flow: takes ``(cell id, flow, service)`` and raises ValueError for a flow that cannot be, for
            instance one of an unknown slice. The service is empty where the host does not say: it is an old
            one, and there is nothing to check.
        tables: takes ``(cell id, flow)`` and returns the tables of samples that the flow's service declares,
            name -> number of columns; raises ValueError where there is none. Asked at every Samples message.
            None: no flow has samples.
        max_streams: hosts' streams at a time; each takes a thread of the server's pool.
        clock_bound_ns: frames behind which a clock's offset is beyond it count for the round trip alone.
        clock_stale_s: and those behind which a host has told of its clock, but not for so long.
        clock_hosts: the edge's host, and others that every frame passes: their clocks must be told of and be
            good for any frame to be synchronised. Empty: see :class:`ClockBoard`.
        away_s: flows of a stream that ended count among MAX_CELL_FLOWS for so long: the host may come back.
        resend_s: settings that are not answered for so long are sent once more.
        clock: reads both clocks.
        guard_options: those of :class:`wire.serving.Guard`.
    """

    def __init__(
        self,
        sink: Callable[[str, QosItem], None],
        *,
        expected_cells: Collection[str] | None = None,
        check_flow: Callable[[str, Flow, str], None] | None = None,
        tables: Callable[[str, Flow], Mapping[str, int]] | None = None,
        ues: Callable[[str], Sequence[tuple[str, str]] | None] = lambda _cell: None,
        max_streams: int = 32,
        clock_bound_ns: float = 1e6,
        clock_stale_s: float = 5.0,
        clock_hosts: Collection[str] = (),
        away_s: float = 0.0,
        resend_s: float = 0.5,
        counters: Counters | None = None,
        clock: Callable[[], Moment] = read_clocks,
        **guard_options: Any,
    ) -> None:
        self._sink = sink
        self._expected = None if expected_cells is None else frozenset(expected_cells)
        self._check_flow = check_flow
        self._tables = tables
        self._ues = ues
        self._away_ns = round(away_s * 1e9)
        self._resend_ns = round(resend_s * 1e9)
        self._max_streams = max_streams
        self._new_board = lambda: ClockBoard(
            bound_ns=clock_bound_ns, stale_ns=round(clock_stale_s * 1e9), required=clock_hosts
        )
        self._boards: dict[str, ClockBoard] = {}
        self.counters = counters or Counters()
        self._complain = Complaints(self.counters, log)
        refused = guard_refusals("qos", self._complain)
        self._guard = Guard(refused, streams=max_streams, **guard_options)
        self._clock = clock
        self._lock = threading.Lock()
        self._streams = 0
        self._open: dict[int, _Stream] = {}
        self._numbers = itertools.count(1)
        self._sequences = itertools.count(1)
        self._flows: OrderedDict[tuple[str, str], _Reported] = OrderedDict()
        self._settings: dict[str, dict[str, _Settings]] = {}

    def add_to(self, server: grpc.Server) -> None:
        """Registers the service, behind a guard of its own."""
        self._guard.add(server, qos_pb2.DESCRIPTOR.services_by_name["QosIngest"], self)

    def server(self) -> grpc.Server:
        """A server for the service alone."""
        server = self._guard.server("qos")
        self.add_to(server)
        return server

    def Publish(
        self, requests: Iterator[qos_pb2.QosMessage | None], context: grpc.ServicerContext
    ) -> Iterator[qos_pb2.QosNotice]:
        """One host's stream."""
        with self._lock:
            self._streams += 1
            too_many = self._streams > self._max_streams
        try:
            if too_many:
                self._abort(
                    context,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "qos_stream_refused_total",
                    f"more than {self._max_streams} hosts report already",
                )
            yield from self._serve(requests, context)
        finally:
            with self._lock:
                self._streams -= 1

    def ListUes(self, request: qos_pb2.ListUesRequest, context: grpc.ServicerContext) -> qos_pb2.ListUesReply:
        """The UEs of a cell."""
        version = request.protocol_version
        if version != PROTOCOL_VERSION:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"protocol version {version} of the host is not version {PROTOCOL_VERSION} of the controller",
            )
        cell_id = request.cell_id
        if self._expected is not None and cell_id not in self._expected:
            known = ", ".join(sorted(self._expected))
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"cell {cell_id[:MAX_CELL_ID]!r} is not known here; cells: {known}",
            )
        ues = self._ues(cell_id)
        return qos_pb2.ListUesReply(
            connected=ues is not None,
            ues=[qos_pb2.CellUe(ue_id=ue, slice=slice_) for ue, slice_ in ues or ()],
        )

    def _serve(
        self, requests: Iterator[qos_pb2.QosMessage | None], context: grpc.ServicerContext
    ) -> Iterator[qos_pb2.QosNotice]:
        hello = self._hello(next(requests, None), context)
        cell_id = hello.cell_id
        stream = _Stream(hello, next(self._numbers), context.peer(), caller(context))
        self.counters.inc("qos_streams_total", cell_id)
        stream.heard_ns = self._clock().mono_ns
        with self._lock:
            self._open[stream.number] = stream
        try:
            yield qos_pb2.QosNotice(kind=qos_pb2.ACCEPTED, protocol_version=PROTOCOL_VERSION)
            for message in requests:
                stream.heard_ns = self._clock().mono_ns
                reason = self._take(stream, message)
                if reason:
                    yield qos_pb2.QosNotice(
                        kind=qos_pb2.REFUSED, reason=reason, protocol_version=PROTOCOL_VERSION
                    )
                for settings in self._due_settings(stream):
                    yield qos_pb2.QosNotice(
                        kind=qos_pb2.SETTINGS, settings=settings, protocol_version=PROTOCOL_VERSION
                    )
        finally:
            self._ended(stream)

    def _ended(self, stream: _Stream) -> None:
        cell_id, host = stream.hello.cell_id, stream.hello.host
        with self._lock:
            self._open.pop(stream.number, None)
            stream.ended_ns = self._clock().mono_ns
            self._board(cell_id).stream_ended(stream.number)
        try:
            self._sink(cell_id, HostLost(host, self._clock().real_ns, stream.number))
        except ValueError as error:
            self._complain("qos_refused_total", f"host {host!r} lost: {error}", cell_id)

    def _hello(self, message: qos_pb2.QosMessage | None, context: grpc.ServicerContext) -> qos_pb2.QosHello:
        precondition = grpc.StatusCode.FAILED_PRECONDITION
        if message is None or message.WhichOneof("body") != "hello":
            self._abort(context, precondition, "qos_stream_refused_total", "the first message is no QosHello")
        hello = message.hello
        version = hello.protocol_version
        if version != PROTOCOL_VERSION:
            self._abort(
                context,
                precondition,
                "qos_version_mismatch_total",
                f"protocol version {version} of host {hello.host!r} is not version {PROTOCOL_VERSION}"
                " of the controller",
            )
        if not hello.host or len(hello.host.encode()) > MAX_FLOW_NAME:
            self._abort(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "qos_stream_refused_total",
                f"QosHello: host {hello.host[:32]!r} is empty or longer than {MAX_FLOW_NAME} bytes",
            )
        if why := _not_its_own(hello.host, caller(context)):
            self._abort(
                context,
                grpc.StatusCode.PERMISSION_DENIED,
                "qos_denied_total",
                f"QosHello: host {hello.host!r}: {why}",
            )
        known = hello.cell_id and len(hello.cell_id.encode()) <= MAX_CELL_ID
        if not known or (self._expected is not None and hello.cell_id not in self._expected):
            self._abort(
                context,
                grpc.StatusCode.NOT_FOUND,
                "qos_stream_refused_total",
                f"QosHello of host {hello.host!r}: cell {hello.cell_id[:64]!r} is not known here",
            )
        return hello

    def _abort(self, context: Any, code: grpc.StatusCode, counter: str, text: str) -> NoReturn:
        self._complain(counter, f"QoS stream of {context.peer()} refused: {text}")
        context.abort(code, text)
        raise AssertionError("abort raises")

    def _take(self, stream: _Stream, message: qos_pb2.QosMessage | None) -> str:
        """Hands one message on; returns why it was refused, or nothing."""
        hello = stream.hello
        cell_id = hello.cell_id
        counter = "qos_refused_total"
        try:
            body = None if message is None else message.WhichOneof("body")
            if message is None or body is None:
                counter = "qos_malformed_total"
                raise BadMessage(
                    "not a QosMessage" if message is None else "a QosMessage without a body known here"
                )
            if body != "clock" and stream.identity is not None and stream.identity.role == PTP_AGENT:
                counter = "qos_denied_total"
                raise BadMessage(f"{body}: the role {PTP_AGENT!r} tells of clocks alone")
            if body == "frames":
                now = self._clock()
                fault = self._clock_fault(hello, now)
                batch = codec.open_frame_batch(
                    message.frames, synchronised=fault is None, received_ns=now.real_ns, fault=fault
                )
                self._known(stream, batch.flow, "FrameBatch")
                if len(batch):
                    self.counters.inc("qos_frames_total", cell_id, len(batch))
                    if fault is not None:
                        self.counters.inc("qos_frames_unsynchronised_total", cell_id, len(batch))
                    self._sink(cell_id, batch)
            elif body == "samples":
                self._take_samples(stream, message.samples)
            elif body == "settings_applied":
                self._take_answer(stream, message.settings_applied)
            elif body == "flow_start":
                flow = codec.open_flow_start(message.flow_start)
                service = message.flow_start.service
                now = self._clock()
                if flow.start_ns > now.real_ns or self._clock_fault(hello, now):
                    # What is told now is not of the future: such a clock is ahead.
                    flow = replace(flow, start_ns=now.real_ns)
                if self._check_flow is not None:
                    self._check_flow(cell_id, flow, service)
                with self._lock:
                    stream.not_taken.pop(flow.flow, None)
                    self._claim(stream, flow.flow)
                    self._sink(cell_id, FlowBegin(hello.host, flow, stream.number, service))
                    self._started(stream, flow)
                    self._board(cell_id).flow_started(flow.flow, hello.host, stream.number)
            elif body == "flow_stop":
                end = codec.open_flow_stop(message.flow_stop)
                stream.not_taken.pop(end.flow, None)
                now = self._clock()
                if end.time_ns > now.real_ns or self._clock_fault(hello, now):
                    end = replace(end, time_ns=now.real_ns)
                with self._lock:
                    reported = self._known(stream, end.flow, "FlowStop")
                    self._sink(cell_id, end)
                    reported.stopped = True
                    self._forget_settings(cell_id, end.flow)
                    self._board(cell_id).flow_ended(end.flow)
            elif body == "clock":
                clock = codec.open_clock_status(message.clock)
                if clock.host != clock_host(hello.host):
                    counter = "qos_denied_total"
                    raise BadMessage(
                        f"ClockStatus of host {clock.host!r}: this is a stream of {hello.host!r},"
                        " which tells of its own clock alone"
                    )
                own = stream.identity is not None and stream.identity.role not in TELLS_EDGE_CLOCK
                with self._lock:
                    board = self._board(cell_id)
                    clock = board.take(clock, self._clock(), own=own)
                if board.beyond_bound(clock):
                    self.counters.inc("qos_clock_out_of_bound_total", cell_id)
                if clock.fault:
                    self.counters.inc("qos_clock_unusable_total", cell_id)
                self._sink(cell_id, clock)
            else:
                raise BadMessage("a second QosHello")
        except ValueError as error:
            self._complain(counter, f"message of host {hello.host!r} refused: {error}", cell_id)
            self._not_taken(stream, message, str(error))
            return str(error)
        return ""

    def _not_taken(self, stream: _Stream, message: qos_pb2.QosMessage | None, why: str) -> None:
        """A message of a stream was refused."""
        starts = message is not None and message.WhichOneof("body") == "flow_start"
        with self._lock:
            if message is not None and starts and len(stream.not_taken) < MAX_NOT_TAKEN:
                stream.not_taken[message.flow_start.flow[:MAX_FLOW_NAME]] = why[:MAX_WHY]
            else:
                stream.refusal = self._clock().mono_ns, why[:MAX_WHY]
        if message is not None and message.WhichOneof("body") == "frames":
            self._tell_blind(stream, message.frames.flow)

    def _tell_blind(self, stream: _Stream, flow: str) -> None:
        """Frames of a flow came and cannot be used: that there are none is no outage."""
        with suppress(ValueError):
            self._known(stream, flow, "FrameBatch")
            now_ns = self._clock().real_ns
            fault = ClockFault(f"{stream.hello.host}: frames of it are refused", now_ns)
            none = np.empty((0, 5), np.int64)
            self._sink(stream.hello.cell_id, FrameBatch(flow, none, False, now_ns, fault))

    def _started(self, stream: _Stream, flow: Flow) -> None:
        """A flow starts, maybe once more: what is set of it goes to the stream that it is on now. Holds the
        lock."""
        cell_id = stream.hello.cell_id
        reported = _Reported(stream, flow)
        before = self._flows.get((cell_id, flow.flow))
        if before is not None:
            if before.stream.reporter == stream.reporter:
                reported.recent = before.recent
            settings = before.stream.settings.get(flow.flow)
            if settings is not None and before.stream is not stream:
                del before.stream.settings[flow.flow]
                settings.resend(next(self._sequences))
                stream.settings[flow.flow] = settings
        self._flows[cell_id, flow.flow] = reported
        self._flows.move_to_end((cell_id, flow.flow))

    # ---- samples ---------------------------------------------------------------------------------------

    def _take_samples(self, stream: _Stream, message: qos_pb2.Samples) -> None:
        cell_id = stream.hello.cell_id
        now = self._clock()
        reported = self._known(stream, message.flow, "Samples")
        if reported.stopped:
            raise BadMessage(f"Samples of flow {message.flow!r}: the flow has stopped")
        if self._tables is None:
            raise BadMessage(f"Samples of flow {message.flow!r}: no table of samples is known here")
        columns = self._tables(cell_id, reported.flow)
        batch = codec.open_samples(message, columns, received_ns=now.real_ns)
        if not len(batch):
            return
        digest = hashlib.blake2b(message.SerializeToString(deterministic=True), digest_size=16).digest()
        with self._lock:
            recent = reported.recent
            # What is older than this is refused by its time.
            oldest_ns = now.mono_ns - (MAX_BEHIND_NS + MAX_AHEAD_NS)
            while recent and (len(recent) > MAX_RECENT or next(iter(recent.values())) < oldest_ns):
                recent.popitem(last=False)
            repeated = digest in recent
            if not repeated:
                self._sink(cell_id, batch)
                recent[digest] = now.mono_ns
        counter = "qos_samples_repeated_total" if repeated else "qos_samples_total"
        self.counters.inc(counter, cell_id, len(batch))

    # ---- settings --------------------------------------------------------------------------------------

    def set_settings(
        self, cell_id: str, settings: Mapping[str, Mapping[str, Sequence[float]]], lease_s: float
    ) -> dict[str, int]:
        """What flows are to be set to from now on, flow -> name -> values; any thread may call.

        It goes out on the stream that started the flow, after the next message of that stream, and until it
        is answered. The lease is to be renewed by calling this every control slot; a flow that is not named
        keeps what it has until its lease ends, and one without any setting is released. What an application
        refused is put to it once more. On a new stream of the same flow the settings go out anew.

        Args:
            settings: all that is set of each flow; values in the unit that its service declares.
            lease_s: from now on; then the application goes back to its defaults.

        Returns:
            Flow -> sequence of its settings. They are in force once a :class:`SettingsApplied` names the flow
            with this sequence or a later one. Flows that have not started or have stopped are left out.

        Raises:
            ValueError: names flow, setting and value (see :func:`~wire.definitions.bounds.check_settings`),
                or the lease, which is more than 0 and at most MAX_SETTINGS_LEASE_MS. Nothing is changed then.
        """
        if not (math.isfinite(lease_s) and 0.0 < lease_s <= MAX_SETTINGS_LEASE_MS / 1e3):
            raise ValueError(
                f"settings: lease of {lease_s} s is not within 0..{MAX_SETTINGS_LEASE_MS / 1e3:g} s"
            )
        check_settings(settings)
        wanted = {
            flow: {name: tuple(map(float, values)) for name, values in of_flow.items()}
            for flow, of_flow in settings.items()
        }
        sequences: dict[str, int] = {}
        with self._lock:
            now_ns = self._clock().mono_ns
            until_ns = now_ns + round(lease_s * 1e9)
            in_force = self._settings.setdefault(cell_id, {})
            allocator = _SequenceAllocator(self._sequences)
            for flow, values in wanted.items():
                reported = self._flows.get((cell_id, flow))
                if reported is None or reported.stopped:
                    continue
                stream, known = reported.stream, in_force.get(flow)
                if not values:
                    if known is not None:
                        sequences[flow] = self._release(stream, known, allocator)
                    continue
                if known is None or known.until_ns <= now_ns:
                    known = _Settings(values, until_ns, allocator.allocate(stream))
                    in_force[flow] = stream.settings[flow] = known
                elif known.values != values or known.refused:
                    known.values = values
                    known.resend(allocator.allocate(stream))
                else:
                    known.renewed = True
                known.until_ns = until_ns
                sequences[flow] = known.sequence
        return sequences

    def release_settings(self, cell_id: str) -> dict[str, int]:
        """All applications of a cell go back to their defaults, at once; any thread may call.

        Where a host does not answer, its application does so when its lease ends. Returns as
        :meth:`set_settings`.
        """
        with self._lock:
            allocator = _SequenceAllocator(self._sequences)
            now_ns = self._clock().mono_ns
            return {
                flow: self._release(self._flows[cell_id, flow].stream, settings, allocator)
                for flow, settings in self._settings.get(cell_id, {}).items()
                if settings.until_ns > now_ns
            }

    def _release(self, stream: _Stream, settings: _Settings, allocator: _SequenceAllocator) -> int:
        if settings.values is not None:
            settings.values = None
            settings.resend(allocator.allocate(stream, release=True))
        return settings.sequence

    def _forget_settings(self, cell_id: str, flow: str) -> None:
        """Holds the lock."""
        if self._settings.get(cell_id, {}).pop(flow, None) is not None:
            self._flows[cell_id, flow].stream.settings.pop(flow, None)

    def _due_settings(self, stream: _Stream) -> list[qos_pb2.SetSettings]:
        """What is to be sent on a stream now; it counts as sent."""
        if not stream.settings:
            return []
        cell_id = stream.hello.cell_id
        now = self._clock()
        due: dict[tuple[int, int], dict[str, _Settings]] = {}
        with self._lock:
            for flow, settings in list(stream.settings.items()):
                if settings.until_ns <= now.mono_ns:
                    self._forget_settings(cell_id, flow)
                elif settings.due(now.mono_ns, self._resend_ns):
                    # A flow whose lease was not renewed must not have it renewed by another one's.
                    lease = settings.until_ns if settings.answer is not None else 0
                    due.setdefault((settings.sequence, lease), {})[flow] = settings
            messages = []
            for (sequence, _), of_flows in due.items():
                left_ns = min(settings.until_ns for settings in of_flows.values()) - now.mono_ns
                release = any(settings.values is None for settings in of_flows.values())
                values = {flow: settings.values or {} for flow, settings in of_flows.items()}
                lease_ms = 0 if release else max(1, left_ns // 1_000_000)
                messages.append(codec.settings_message(sequence, lease_ms, values))
                if sequence not in stream.sent:
                    stream.sent[sequence] = tuple(of_flows)
                    while len(stream.sent) > MAX_SEQUENCES:
                        stream.sent.popitem(last=False)
                first = next(iter(of_flows.values()))
                unanswered = first.sent_ns is not None and first.answer is None
                self.counters.inc("qos_settings_sent_total", cell_id)
                if unanswered:
                    self.counters.inc("qos_settings_resent_total", cell_id)
                for settings in of_flows.values():
                    if settings.sent_ns is None:
                        settings.sent_real_ns = now.real_ns
                    settings.sent_ns, settings.renewed = now.mono_ns, False
        return messages

    def _take_answer(self, stream: _Stream, message: qos_pb2.SettingsApplied) -> None:
        cell_id = stream.hello.cell_id
        now = self._clock()
        fault = self._clock_fault(stream.hello, now)
        with self._lock:
            applied = codec.open_settings_applied(
                message, host=stream.hello.host, stream=stream.number, sent=stream.sent
            )
            answer = applied.time_ns, applied.refused
            # Flows that have other settings by now, or have gone, are not what it speaks of; and a renewed
            # lease is answered as the settings were.
            fresh = {
                flow: settings
                for flow in applied.flows
                if (settings := stream.settings.get(flow)) is not None
                and settings.sequence == applied.sequence
                and settings.sent_ns is not None
                and settings.answer != answer
            }
            if not fresh:
                return
            time_ns = now.real_ns
            if fault is None:
                earliest_ns = max(settings.sent_real_ns for settings in fresh.values())
                time_ns = min(max(applied.time_ns, earliest_ns), now.real_ns)
            self._sink(cell_id, replace(applied, flows=tuple(fresh), time_ns=time_ns))
            for flow, settings in fresh.items():
                settings.answer = answer
                if settings.values is None:
                    self._forget_settings(cell_id, flow)
        if applied.refused:
            self._complain(
                "qos_settings_refused_total",
                f"host {applied.host!r} refused settings of {', '.join(fresh)}: {applied.refused}",
                cell_id,
            )
        else:
            self.counters.inc("qos_settings_applied_total", cell_id)

    def clocks(self, cell_id: str) -> tuple[KnownClock, ...]:
        """What is known of the clocks of a cell's hosts now; any thread may ask."""
        with self._lock:
            return self._board(cell_id).known(self._clock())

    def hosts(self, cell_id: str) -> tuple[Heard, ...]:
        """The hosts whose streams are open; any thread may ask."""
        now_ns = self._clock().mono_ns
        with self._lock:
            streams = [s for s in self._open.values() if s.hello.cell_id == cell_id]
            return tuple(Heard(s.hello.host, (now_ns - s.heard_ns) / 1e9, s.refused(now_ns)) for s in streams)

    def _board(self, cell_id: str) -> ClockBoard:
        """The clocks of a cell. Holds the lock."""
        return self._boards.setdefault(cell_id, self._new_board())

    def _clock_fault(self, hello: qos_pb2.QosHello, now: Moment) -> ClockFault | None:
        """Why what this host stamps now counts for the round trip alone."""
        if not hello.clocks_synchronised:
            return ClockFault(f"{hello.host}: says that its clocks are not synchronised", 0)
        with self._lock:
            return self._board(hello.cell_id).fault(hello.host, now)

    def _known(self, stream: _Stream, flow: str, what: str) -> _Reported:
        # A flow that has stopped is still known: its last frames come after its end.
        reported = self._flows.get((stream.hello.cell_id, flow))
        if reported is None:
            raise BadMessage(f"{what} of flow {flow[:MAX_FLOW_NAME]!r}: the flow never started")
        if reported.stream.reporter != stream.reporter:
            raise BadMessage(f"{what} of flow {flow!r}: {self._owned(reported)}")
        return reported

    def _claim(self, stream: _Stream, flow: str) -> None:
        """Raises for a flow that is another's; makes room where there are too many. Holds the lock."""
        cell_id = stream.hello.cell_id
        if reported := self._flows.get((cell_id, flow)):
            if reported.active and reported.stream.reporter != stream.reporter:
                raise BadMessage(f"FlowStart of flow {flow!r}: {self._owned(reported)}")
            return
        flows = [key for key in self._flows if key[0] == cell_id]
        if len(flows) < MAX_CELL_FLOWS:
            return
        over_ns = self._clock().mono_ns - self._away_ns
        over = next((key for key in flows if self._flows[key].over(over_ns)), None)
        if over is None:
            raise BadMessage(
                f"FlowStart of flow {flow!r}: more than {MAX_CELL_FLOWS} flows are active in cell {cell_id!r}"
            )
        self._forget_settings(*over)
        del self._flows[over]

    def _owned(self, reported: _Reported) -> str:
        owner = reported.stream
        return (
            f"another process of host {owner.hello.host!r} at {owner.peer} reports a flow of that name;"
            " give one of them another name"
        )
