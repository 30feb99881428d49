"""Publishes flows, frames and samples to the controller's QoS ingest, through outages; takes its settings.

:class:`Outbox` decides what is sent and what is kept and is pure; :class:`QosPublisher` is the gRPC stream.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc
import numpy as np
from numpy.typing import ArrayLike

from agents.links.settings import Settings, SettingsState
from wire import PROTOCOL_VERSION, qos_pb2, qos_pb2_grpc, security
from wire.definitions.bounds import MAX_FLOW_NAME, MAX_NAME, MAX_SAMPLE_VALUES, MAX_SAMPLES, check_name
from wire.roles import CONTROLLER

log = logging.getLogger(__name__)

MAX_UNAPPLIED = 1024
"""SetSettings that wait for the application; beyond that the oldest go, and the controller repeats them."""


def samples_messages(
    flow: str, table: str, time_ns: ArrayLike, values: ArrayLike
) -> Iterator[qos_pb2.QosMessage]:
    """Rows of a table in as many messages as their bounds ask for, in order.

    Args:
        time_ns: integers [rows], CLOCK_REALTIME ns.
        values: [rows, columns], or [rows] of a table with one column, in the units that the flow's service
            declares; they go out as float32, NaN where not known.

    Raises:
        ValueError: names flow and table: an empty or overlong name, times that are no positive integers,
            another number of times than rows, no column or too many, a value that is infinite as float32.
    """
    check_name("samples", "flow", flow, MAX_FLOW_NAME)
    check_name(f"samples of flow {flow!r}", "table", table, MAX_NAME)
    place = f"samples of flow {flow!r}: table {table!r}"
    times = np.asarray(time_ns)
    with np.errstate(over="ignore"):
        rows = np.asarray(values).astype(np.float32)
    if rows.ndim == 1:
        rows = rows[:, None]
    if rows.ndim != 2 or times.shape != rows.shape[:1]:
        raise ValueError(f"{place}: times of shape {times.shape}, values of shape {rows.shape}")
    if not len(rows):
        return iter(())
    if not np.issubdtype(times.dtype, np.integer) or times.min() < 1:
        raise ValueError(f"{place}: the times are not CLOCK_REALTIME ns")
    if not 1 <= rows.shape[1] <= MAX_SAMPLE_VALUES:
        raise ValueError(f"{place}: {rows.shape[1]} columns, not 1 to {MAX_SAMPLE_VALUES}")
    if np.isinf(rows).any():
        row, column = np.argwhere(np.isinf(rows))[0].tolist()
        raise ValueError(f"{place}: row {row}: column {column} is infinite as float32")
    step = min(MAX_SAMPLES, MAX_SAMPLE_VALUES // rows.shape[1])
    return (
        qos_pb2.QosMessage(
            samples=qos_pb2.Samples(
                flow=flow,
                table=table,
                time_ns=times[i : i + step].tolist(),
                values=rows[i : i + step].ravel().tolist(),
            )
        )
        for i in range(0, len(rows), step)
    )


def list_ues(
    address: str,
    tls: security.Tls | None,
    cell_id: str,
    *,
    timeout_s: float = 10.0,
    setting: str = "--qos",
    missing: str = "--keys",
) -> tuple[tuple[str, str], ...]:
    """UE id and slice ("" for none) of the UEs that a cell has, as the controller knows them.

    Waits ``timeout_s`` for the controller, and for a UE.

    Raises:
        InsecureAddress: beyond loopback without ``tls``.
        LookupError: the cell has no UE, or no gNB is connected.
        ConnectionError: the controller is not there, or does not answer this; the text says why.
    """
    channel = security.grpc_channel(address, tls, server_role=CONTROLLER, setting=setting, missing=missing)
    end = time.monotonic() + timeout_s
    request = qos_pb2.ListUesRequest(protocol_version=PROTOCOL_VERSION, cell_id=cell_id)
    with channel:
        ask = qos_pb2_grpc.QosIngestStub(channel).ListUes
        while True:
            left = max(0.1, end - time.monotonic())
            try:
                reply = ask(request, timeout=left, wait_for_ready=True)
            except grpc.RpcError as error:
                why = f"{error.code().name}: {error.details()}"
                raise ConnectionError(f"controller at {address}: {why}") from error
            if reply.ues:
                return tuple((ue.ue_id, ue.slice) for ue in reply.ues)
            if time.monotonic() >= end:
                what = "has no UE" if reply.connected else "has no gNB that is connected and reports"
                raise LookupError(f"controller at {address}: cell {cell_id} {what}")
            time.sleep(min(0.5, left))


class Outbox:
    """Messages on their way to the controller, oldest first.

    A gRPC stream does not say what of it arrived when it breaks, so what was sent in the last ``keep_s``
    seconds is kept and sent again on the next stream, after the FlowStart of every flow that was active
    before it. A frame may be reported twice. While nothing can be sent, at most ``max_frames`` frames and
    ``max_samples`` rows of samples wait; beyond that the oldest of their kind go (:attr:`dropped_frames`,
    :attr:`dropped_samples`). Flow events are never dropped.
    """

    def __init__(self, *, max_frames: int = 20_000, max_samples: int = 20_000, keep_s: float = 2.0) -> None:
        self._max_frames = max_frames
        self._max_samples = max_samples
        self._keep_s = keep_s
        self._sent: deque[tuple[float, qos_pb2.QosMessage]] = deque()
        self._waiting: deque[qos_pb2.QosMessage] = deque()
        self._waiting_frames = 0
        self._waiting_samples = 0
        self._active: dict[str, qos_pb2.QosMessage] = {}
        self.dropped_frames = 0
        self.dropped_samples = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: qos_pb2.QosMessage) -> None:
        """Queue a message."""
        self._waiting.append(message)
        self._count(message, 1)
        self._trim()

    def next(self, now: float) -> qos_pb2.QosMessage | None:
        """The next message to send (it counts as sent), None where none waits; ``now`` in seconds."""
        while self._sent and self._sent[0][0] <= now - self._keep_s:
            self._settle(self._sent.popleft()[1])
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        self._count(message, -1)
        self._sent.append((now, message))
        return message

    def rewind(self) -> list[qos_pb2.QosMessage]:
        """A new stream begins: what to send before :meth:`next`."""
        unacknowledged = [message for _, message in self._sent]
        self._sent.clear()
        self._waiting.extendleft(reversed(unacknowledged))
        for message in unacknowledged:
            self._count(message, 1)
        self._trim()
        return list(self._active.values())

    def start_again(self) -> None:
        """Queue the FlowStart of every active flow once more, before what waits."""
        stopped = {m.flow_stop.flow for _, m in self._sent if m.HasField("flow_stop")}
        self._waiting.extendleft(m for flow, m in self._active.items() if flow not in stopped)

    def _settle(self, message: qos_pb2.QosMessage) -> None:
        match message.WhichOneof("body"):
            case "flow_start":
                self._active[message.flow_start.flow] = message
            case "flow_stop":
                self._active.pop(message.flow_stop.flow, None)

    def _count(self, message: qos_pb2.QosMessage, sign: int) -> None:
        self._waiting_frames += sign * len(message.frames.frames)
        self._waiting_samples += sign * len(message.samples.time_ns)

    def _trim(self) -> None:
        while self._waiting_frames > self._max_frames:
            self.dropped_frames += len(self._drop("frames").frames.frames)
        while self._waiting_samples > self._max_samples:
            self.dropped_samples += len(self._drop("samples").samples.time_ns)

    def _drop(self, body: str) -> qos_pb2.QosMessage:
        """Takes out the oldest message of a kind."""
        index = next(i for i, m in enumerate(self._waiting) if m.HasField(body))
        message = self._waiting[index]
        del self._waiting[index]
        self._count(message, -1)
        return message


@dataclass(slots=True, eq=False)
class _Stream:
    """State of one gRPC stream, shared by its request and its answer side.

    ``applied``: sequence -> answer to settings of this stream; on another one it would mean nothing.
    """

    accepted: bool = False
    ended: bool = False
    call: grpc.Call | None = None
    applied: dict[int, qos_pb2.SettingsApplied] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A SetSettings, where and when (monotonic s) it came; or a flow that has stopped."""

    stream: _Stream | None = None
    settings: qos_pb2.SetSettings | None = None
    received: float = 0.0
    stopped: str = ""


class QosPublisher:
    """Keeps one stream to the controller's QosIngest open, for ever, in its own thread.

    Reconnects after ``backoff_s[0]`` seconds, doubling up to ``backoff_s[1]``. A controller that does not
    accept the hello within ``accept_s`` counts as gone. While it refuses messages, the active flows are
    started again every ``start_again_s``.

    An application that takes settings gives two callbacks, which come on one thread of the publisher's own,
    one at a time, from :meth:`start` to :meth:`close`; what they share with other threads they must lock, and
    while one of them runs no lease ends and no other settings are taken. Settings come only while the
    application reports: the controller sends them after its messages.

    Args:
        on_settings: puts in force what is set of some flows, flow -> name -> values, each in the unit that
            the service declares; what a flow's settings do not name is at its default. ValueError, and
            nothing changed, where they cannot be: its text is the answer. Not called twice for what comes
            twice.
        on_settings_lapsed: takes the flows whose lease has ended, by the monotonic clock, or that were
            released: they go back to their defaults. Not called for flows that have stopped, nor by close.
    """

    def __init__(
        self,
        address: str,
        tls: security.Tls | None,
        *,
        cell_id: str,
        host: str,
        clocks_synchronised: bool = True,
        outbox: Outbox | None = None,
        backoff_s: tuple[float, float] = (0.2, 5.0),
        accept_s: float = 5.0,
        start_again_s: float = 2.0,
        on_settings: Callable[[Settings], None] | None = None,
        on_settings_lapsed: Callable[[tuple[str, ...]], None] | None = None,
        setting: str = "--qos",
        missing: str = "--keys",
    ) -> None:
        if (on_settings is None) != (on_settings_lapsed is None):
            raise ValueError("on_settings and on_settings_lapsed: neither can do without the other")
        self._host = host
        self._hello = qos_pb2.QosMessage(
            hello=qos_pb2.QosHello(
                protocol_version=PROTOCOL_VERSION,
                host=host,
                cell_id=cell_id,
                clocks_synchronised=clocks_synchronised,
                instance=secrets.randbits(64),
            )
        )
        self._address = address
        self._outbox = Outbox() if outbox is None else outbox
        self._backoff_s = backoff_s
        self._accept_s = accept_s
        self._start_again_s = start_again_s
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._stream: _Stream | None = None
        self._start_again_at = 0.0
        self._counters: Counter[str] = Counter()
        self._channel = security.grpc_channel(
            address, tls, server_role=CONTROLLER, setting=setting, missing=missing
        )
        self._thread = threading.Thread(target=self._run, name="qos-publisher", daemon=True)
        self._arrived: deque[_Arrived] = deque(maxlen=MAX_UNAPPLIED)
        self._arrival = threading.Condition()
        self._settings_thread: threading.Thread | None = None
        if on_settings is not None and on_settings_lapsed is not None:
            self._settings_thread = threading.Thread(
                target=self._run_settings,
                args=(SettingsState(on_settings, on_settings_lapsed, time.time_ns),),
                name="qos-settings",
                daemon=True,
            )

    def start(self) -> None:
        self._thread.start()
        if self._settings_thread is not None:
            self._settings_thread.start()

    def put(self, message: qos_pb2.QosMessage) -> None:
        """Queue a message; never blocks."""
        with self._changed:
            self._outbox.put(message)
            self._changed.notify_all()
        if message.HasField("flow_stop"):
            self._arrive(_Arrived(stopped=message.flow_stop.flow))

    def put_samples(self, flow: str, table: str, time_ns: ArrayLike, values: ArrayLike) -> None:
        """Queue rows of a table, see :func:`samples_messages`; never blocks."""
        for message in samples_messages(flow, table, time_ns, values):
            self.put(message)

    @property
    def connected(self) -> bool:
        stream = self._stream
        return stream is not None and stream.accepted and not stream.ended

    @property
    def counters(self) -> dict[str, int]:
        with self._changed:
            return {
                **self._counters,
                "dropped_frames": self._outbox.dropped_frames,
                "dropped_samples": self._outbox.dropped_samples,
                "waiting": len(self._outbox),
            }

    def close(self, *, flush_s: float = 0.5) -> None:
        """Send what waits for at most ``flush_s`` if the controller is there, then end the stream."""
        end = time.monotonic() + flush_s
        with self._changed:
            while self.connected and len(self._outbox) and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
        self._closed.set()
        with self._changed:
            if self._stream is not None:
                # Half-closes: what was taken still goes out.
                self._stream.ended = True
            self._changed.notify_all()
        with self._arrival:
            self._arrival.notify_all()
        if self._thread.ident is not None:
            self._thread.join(max(0.1, end - time.monotonic()))
        self._end(self._stream)
        self._channel.close()
        if self._thread.ident is not None:
            self._thread.join()
        applying = self._settings_thread
        if applying is not None and applying.ident is not None and applying is not threading.current_thread():
            # A callback that does not return holds up nobody's end.
            applying.join(1.0)

    def _end(self, stream: _Stream | None) -> None:
        with self._changed:
            if stream is not None:
                stream.ended = True
            self._changed.notify_all()
        if stream is not None and stream.call is not None:
            stream.call.cancel()

    def _run(self) -> None:
        wait = self._backoff_s[0]
        logged = ""
        stub = qos_pb2_grpc.QosIngestStub(self._channel)
        while not self._closed.is_set():
            stream = self._stream = _Stream()
            why = "the controller ended the stream"
            try:
                stream.call = call = stub.Publish(self._requests(stream))
                for notice in call:
                    self._on_notice(stream, notice)
            except grpc.RpcError as error:
                why = f"{error.code().name}: {error.details()}"
            except ValueError as error:
                # The channel was closed under the call.
                why = str(error)
            self._end(stream)
            self._counters["streams_ended"] += 1
            if stream.accepted:
                wait, logged = self._backoff_s[0], ""
            if why != logged and not self._closed.is_set():
                log.warning("QoS ingest at %s: %s; trying again", self._address, why)
                logged = why
            self._closed.wait(wait)
            wait = min(2 * wait, self._backoff_s[1])

    def _on_notice(self, stream: _Stream, notice: qos_pb2.QosNotice) -> None:
        if notice.kind == qos_pb2.ACCEPTED:
            with self._changed:
                stream.accepted = True
                self._counters["streams"] += 1
                self._changed.notify_all()
            log.info("QoS ingest at %s: connected", self._address)
        elif notice.kind == qos_pb2.SETTINGS:
            self._on_set_settings(stream, notice.settings)
        elif notice.kind != qos_pb2.REFUSED:
            with self._changed:
                self._counters["unknown_notices"] += 1
        else:
            self._counters["refused"] += 1
            count = self._counters["refused"]
            if count & (count - 1) == 0:
                # Every power of two: a controller that refuses a flow refuses it five times a second.
                log.warning(
                    "QoS ingest at %s refused a message (%d so far): %s", self._address, count, notice.reason
                )
            with self._changed:
                # What a flow was refused for may have passed: its name was another's, its slice not known.
                if (now := time.monotonic()) >= self._start_again_at:
                    self._start_again_at = now + self._start_again_s
                    self._outbox.start_again()
                    self._changed.notify_all()

    # ---- settings ---------------------------------------------------------------------------------------

    def _on_set_settings(self, stream: _Stream, settings: qos_pb2.SetSettings) -> None:
        if self._settings_thread is None:
            text = f"host {self._host!r} takes no settings"
            self._answer(
                stream,
                qos_pb2.SettingsApplied(sequence=settings.sequence, time_ns=time.time_ns(), refused=text),
            )
        else:
            self._arrive(_Arrived(stream, settings, time.monotonic()))

    def _arrive(self, arrived: _Arrived) -> None:
        if self._settings_thread is not None:
            with self._arrival:
                self._arrived.append(arrived)
                self._arrival.notify_all()

    def _answer(self, stream: _Stream, applied: qos_pb2.SettingsApplied) -> None:
        with self._changed:
            self._counters["settings_refused" if applied.refused else "settings_applied"] += 1
            stream.applied[applied.sequence] = applied
            self._changed.notify_all()

    def _run_settings(self, state: SettingsState) -> None:
        """Applies what has come and ends leases, until the publisher is closed."""
        while (arrived := self._wait_for_arrival(state.deadline)) is not None:
            # What came in time renews a lease before it is looked at, however long a callback took.
            for each in arrived:
                if each.stream is not None and each.settings is not None:
                    now = time.monotonic()
                    self._answer(each.stream, state.take(each.stream, each.settings, each.received, now))
                else:
                    state.forget(each.stopped)
            with self._arrival:
                waiting = bool(self._arrived)
            if not waiting and (lapsed := state.lapse(time.monotonic())):
                with self._changed:
                    self._counters["settings_lapsed"] += len(lapsed)
                log.warning("the lease of the settings of %s has ended", ", ".join(lapsed))

    def _wait_for_arrival(self, deadline: float | None) -> list[_Arrived] | None:
        """What has come, nothing where a lease ends first, None where the publisher is closed."""
        with self._arrival:
            while not self._closed.is_set():
                left = None if deadline is None else deadline - time.monotonic()
                if self._arrived or (left is not None and left <= 0.0):
                    arrived = list(self._arrived)
                    self._arrived.clear()
                    return arrived
                self._arrival.wait(left)
        return None

    # ---- requests ---------------------------------------------------------------------------------------

    def _requests(self, stream: _Stream) -> Iterator[qos_pb2.QosMessage]:
        yield self._hello
        with self._changed:
            self._changed.wait_for(lambda: stream.accepted or stream.ended, self._accept_s)
            if not stream.accepted:
                late = not stream.ended
                preface = []
            else:
                late = False
                preface = self._outbox.rewind()
        if late:
            log.warning("QoS ingest at %s: no answer to the hello", self._address)
            self._end(stream)
        yield from preface
        while (message := self._wait_for_next(stream)) is not None:
            yield message

    def _wait_for_next(self, stream: _Stream) -> qos_pb2.QosMessage | None:
        with self._changed:
            while not stream.ended:
                if stream.applied:
                    sequence = next(iter(stream.applied))
                    return qos_pb2.QosMessage(settings_applied=stream.applied.pop(sequence))
                message = self._outbox.next(time.monotonic())
                if message is not None:
                    if not len(self._outbox):
                        self._changed.notify_all()
                    return message
                self._changed.wait()
        return None
