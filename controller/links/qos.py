"""QoS ingest: the controller's side of wire/qos.proto.

:class:`QosIngest` checks what the hosts send and hands it on as core types; :class:`QosQueue` holds it until
the control loop takes it. A message that cannot be used is answered with a notice that names the place,
counted, and the stream goes on.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from controller.core.clocks import ClockBoard, ClockFault, Moment
from controller.core.observation import Flow
from controller.links import codec
from controller.links.codec import BadMessage, ClockReport, FlowEnd, FrameBatch
from controller.links.counters import Complaints, Counters
from wire import PROTOCOL_VERSION, qos_pb2

log = logging.getLogger(__name__)

MAX_FLOWS = 4096
"""Flows that are remembered; the ones that stopped longest ago are forgotten first."""

COUNTERS: dict[str, str] = {
    "qos_streams_total": "Streams of hosts that were accepted",
    "qos_version_mismatch_total": "Streams refused: other protocol version",
    "qos_stream_refused_total": "Streams refused: no Hello, unknown cell or too many",
    "qos_malformed_total": "Messages refused: not a QosMessage, or without a known body",
    "qos_refused_total": "Messages refused: impossible value, unknown flow or slice",
    "qos_frames_total": "Frame reports taken",
    "qos_frames_dropped_total": "Frame reports dropped, oldest first, because the queue was full",
    "qos_frames_unsynchronised_total": "Frame reports taken that count for the round trip alone",
    "qos_clock_out_of_bound_total": "Clock reports with an offset beyond the bound",
    "qos_clock_unusable_total": "Clock reports of a clock that cannot be used, whatever the reason",
    "qos_clock_reports_dropped_total": "Clock reports dropped because a later one of that host came",
}
"""Help text of every counter of this link; each has the label ``cell``, empty where it is not known."""


@dataclass(frozen=True, slots=True)
class FlowBegin:
    """``host`` says that a flow is active, on its ``stream``."""

    host: str
    flow: Flow
    stream: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class HostLost:
    """A stream of a host ended; it may come back and start its flows again."""

    host: str
    time_ns: int
    stream: int = field(default=0, compare=False)


QosItem = FlowBegin | FlowEnd | FrameBatch | ClockReport | HostLost


class QosQueue:
    """Holds what the hosts reported until the control loop takes it; any thread may put and take.

    When more than ``max_frames`` frame reports wait, the oldest are dropped and counted. Starts and ends of
    flows are never dropped: :meth:`put` refuses them when ``max_events`` wait. Of a host's clock reports
    only the latest waits.
    """

    def __init__(
        self, *, max_frames: int = 100_000, max_events: int = 65_536, counters: Counters | None = None
    ) -> None:
        if max_frames < 1 or max_events < 1:
            raise ValueError(f"a queue of {max_frames} frames and {max_events} events holds nothing")
        self._max_frames = max_frames
        self._max_events = max_events
        self.counters = counters or Counters()
        self._lock = threading.Lock()
        self._events: list[tuple[str, QosItem]] = []
        self._clocks: dict[tuple[str, str], ClockReport] = {}
        self._frames: deque[tuple[str, FrameBatch]] = deque()
        self._n_frames = 0

    def put(self, cell_id: str, item: QosItem) -> None:
        """Takes one item.

        Raises:
            BadMessage: the queue holds all the flow events that it can.
        """
        dropped: list[tuple[str, FrameBatch]] = []
        with self._lock:
            if isinstance(item, FrameBatch):
                self._frames.append((cell_id, item))
                self._n_frames += len(item)
                while self._n_frames > self._max_frames and len(self._frames) > 1:
                    dropped.append(self._frames.popleft())
                    self._n_frames -= len(dropped[-1][1])
            elif isinstance(item, ClockReport):
                if (cell_id, item.host) in self._clocks:
                    self.counters.inc("qos_clock_reports_dropped_total", cell_id)
                self._clocks[cell_id, item.host] = item
            elif len(self._events) >= self._max_events:
                raise BadMessage(f"the queue is full: {len(self._events)} flow events wait")
            else:
                self._events.append((cell_id, item))
        for cell, batch in dropped:
            self.counters.inc("qos_frames_dropped_total", cell, len(batch))

    def take(self) -> list[tuple[str, QosItem]]:
        """All that waits as ``(cell id, item)``: flow events in order, clock reports, frames in order."""
        with self._lock:
            events, self._events = self._events, []
            clocks, self._clocks = self._clocks, {}
            frames, self._frames = self._frames, deque()
            self._n_frames = 0
        return [*events, *((cell, report) for (cell, _), report in clocks.items()), *frames]

    def __len__(self) -> int:
        """Frame reports that wait."""
        return self._n_frames


def parse(data: bytes) -> qos_pb2.QosMessage | None:
    """A QosMessage, or None for bytes that are none: the servicer refuses it and the stream goes on."""
    try:
        return qos_pb2.QosMessage.FromString(data)
    except DecodeError:
        return None


def read_clocks() -> Moment:
    """Now."""
    return Moment(time.time_ns(), time.monotonic_ns())


@dataclass(slots=True)
class _Stream:
    """One stream of a host, which may have several: one a client."""

    hello: qos_pb2.QosHello
    number: int
    peer: str = ""
    ended: bool = False

    @property
    def reporter(self) -> tuple[str, int]:
        """Who reports: the same over all streams of a process."""
        return self.hello.host, self.hello.instance


@dataclass(slots=True)
class _Reported:
    """A flow, and the stream that started it last."""

    stream: _Stream
    stopped: bool = False

    @property
    def active(self) -> bool:
        """Whether the flow goes on, and its stream too."""
        return not (self.stopped or self.stream.ended)


class QosIngest:
    """The gRPC servicer.

    Args:
        sink: takes ``(cell id, item)``, from several threads; a ValueError of it refuses the message.
        expected_cells: cell ids that may report; None: any.
        check_flow: takes ``(cell id, flow)`` and raises ValueError for a flow that cannot be, for instance
            one of an unknown slice.
        max_streams: hosts at a time; each takes a thread of the server's pool.
        clock_bound_ns: frames behind which a clock's offset is beyond it count for the round trip alone.
        clock_stale_s: and those behind which a host has told of its clock, but not for so long.
        clock_hosts: the edge's host, and others that every frame passes: their clocks must be told of and be
            good for any frame to be synchronised. Empty: see :class:`ClockBoard`.
        clock: reads both clocks.
    """

    def __init__(
        self,
        sink: Callable[[str, QosItem], None],
        *,
        expected_cells: Collection[str] | None = None,
        check_flow: Callable[[str, Flow], None] | None = None,
        max_streams: int = 32,
        clock_bound_ns: float = 1e6,
        clock_stale_s: float = 5.0,
        clock_hosts: Collection[str] = (),
        counters: Counters | None = None,
        clock: Callable[[], Moment] = read_clocks,
    ) -> None:
        self._sink = sink
        self._expected = None if expected_cells is None else frozenset(expected_cells)
        self._check_flow = check_flow
        self._max_streams = max_streams
        self._new_board = lambda: ClockBoard(
            bound_ns=clock_bound_ns, stale_ns=round(clock_stale_s * 1e9), required=clock_hosts
        )
        self._boards: dict[str, ClockBoard] = {}
        self.counters = counters or Counters()
        self._complain = Complaints(self.counters, log)
        self._clock = clock
        self._lock = threading.Lock()
        self._streams = 0
        self._numbers = itertools.count(1)
        self._flows: OrderedDict[tuple[str, str], _Reported] = OrderedDict()

    def add_to(self, server: grpc.Server) -> None:
        """Registers the service; unlike the generated helper, bytes that cannot be parsed do not end a
        stream."""
        handler = grpc.stream_stream_rpc_method_handler(
            self.Publish,
            request_deserializer=lambda data: (parse(data),),
            response_serializer=qos_pb2.QosNotice.SerializeToString,
        )
        service = qos_pb2.DESCRIPTOR.services_by_name["QosIngest"].full_name
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Publish": handler}),)
        )

    def Publish(
        self, requests: Iterator[tuple[qos_pb2.QosMessage | None]], context: grpc.ServicerContext
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

    def _serve(
        self, requests: Iterator[tuple[qos_pb2.QosMessage | None]], context: grpc.ServicerContext
    ) -> Iterator[qos_pb2.QosNotice]:
        first = next(requests, (None,))[0]
        hello = self._hello(first, context)
        cell_id = hello.cell_id
        stream = _Stream(hello, next(self._numbers), context.peer())
        self.counters.inc("qos_streams_total", cell_id)
        try:
            yield qos_pb2.QosNotice(kind=qos_pb2.ACCEPTED, protocol_version=PROTOCOL_VERSION)
            for (message,) in requests:
                reason = self._take(stream, message)
                if reason:
                    yield qos_pb2.QosNotice(
                        kind=qos_pb2.REFUSED, reason=reason, protocol_version=PROTOCOL_VERSION
                    )
        finally:
            self._ended(stream)

    def _ended(self, stream: _Stream) -> None:
        cell_id, host = stream.hello.cell_id, stream.hello.host
        with self._lock:
            stream.ended = True
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
        theirs = hello.protocol_version
        if theirs != PROTOCOL_VERSION:
            self._abort(
                context,
                precondition,
                "qos_version_mismatch_total",
                f"protocol version {theirs} of host {hello.host!r} is not version {PROTOCOL_VERSION}"
                " of the controller",
            )
        if not hello.host or len(hello.host.encode()) > codec.MAX_FLOW_NAME:
            self._abort(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "qos_stream_refused_total",
                f"QosHello: host {hello.host[:32]!r} is empty or longer than {codec.MAX_FLOW_NAME} bytes",
            )
        known = hello.cell_id and len(hello.cell_id.encode()) <= codec.MAX_CELL_ID
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
            elif body == "flow_start":
                flow = codec.open_flow_start(message.flow_start)
                now = self._clock()
                if flow.start_ns > now.real_ns or self._clock_fault(hello, now):
                    # What is told now is not of the future: such a clock is ahead.
                    flow = replace(flow, start_ns=now.real_ns)
                if self._check_flow is not None:
                    self._check_flow(cell_id, flow)
                with self._lock:
                    self._claim(stream, flow.flow)
                    self._sink(cell_id, FlowBegin(hello.host, flow, stream.number))
                    self._flows[cell_id, flow.flow] = _Reported(stream)
                    self._flows.move_to_end((cell_id, flow.flow))
                    self._board(cell_id).flow_started(flow.flow, hello.host, stream.number)
            elif body == "flow_stop":
                end = codec.open_flow_stop(message.flow_stop)
                now = self._clock()
                if end.time_ns > now.real_ns or self._clock_fault(hello, now):
                    end = replace(end, time_ns=now.real_ns)
                with self._lock:
                    reported = self._known(stream, end.flow, "FlowStop")
                    self._sink(cell_id, end)
                    reported.stopped = True
                    self._board(cell_id).flow_ended(end.flow)
            elif body == "clock":
                clock = codec.open_clock_status(message.clock)
                with self._lock:
                    board = self._board(cell_id)
                    clock = board.take(clock, self._clock())
                if board.beyond_bound(clock):
                    self.counters.inc("qos_clock_out_of_bound_total", cell_id)
                if clock.fault:
                    self.counters.inc("qos_clock_unusable_total", cell_id)
                self._sink(cell_id, clock)
            else:
                raise BadMessage("a second QosHello")
        except ValueError as error:
            self._complain(counter, f"message of host {hello.host!r} refused: {error}", cell_id)
            return str(error)
        return ""

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
            raise BadMessage(f"{what} of flow {flow!r}: the flow never started")
        if reported.stream.reporter != stream.reporter:
            raise BadMessage(f"{what} of flow {flow!r}: {self._owned(reported)}")
        return reported

    def _claim(self, stream: _Stream, flow: str) -> None:
        """Raises for a flow that is another's; makes room where there are too many. Holds the lock."""
        key = stream.hello.cell_id, flow
        if reported := self._flows.get(key):
            if reported.active and reported.stream.reporter != stream.reporter:
                raise BadMessage(f"FlowStart of flow {flow!r}: {self._owned(reported)}")
        elif len(self._flows) >= MAX_FLOWS:
            stopped = next((k for k, reported in self._flows.items() if not reported.active), None)
            if stopped is None:
                raise BadMessage(f"FlowStart of flow {flow!r}: more than {MAX_FLOWS} flows are active")
            del self._flows[stopped]

    def _owned(self, reported: _Reported) -> str:
        its = reported.stream
        return (
            f"another process of host {its.hello.host!r} at {its.peer} reports a flow of that name;"
            " give one of them another name"
        )
