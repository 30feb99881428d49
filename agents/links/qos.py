"""Publishes flows and frames to the controller's QoS ingest, through outages.

:class:`Outbox` decides what is sent and what is kept and is pure; :class:`QosPublisher` is the gRPC stream.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator

import grpc

from wire import PROTOCOL_VERSION, qos_pb2, qos_pb2_grpc, security

log = logging.getLogger(__name__)

MAX_BATCH = 1024
"""Frames of a FrameBatch at most (wire/qos.proto)."""


class Outbox:
    """Messages on their way to the controller, oldest first.

    A gRPC stream does not say what of it arrived when it breaks, so what was sent in the last ``keep_s``
    seconds is kept and sent again on the next stream, after the FlowStart of every flow that was active
    before it. A frame may be reported twice. While nothing can be sent, at most ``max_frames`` frames wait;
    beyond that the oldest go (:attr:`dropped_frames`). Flow events are never dropped.
    """

    def __init__(self, *, max_frames: int = 20_000, keep_s: float = 2.0) -> None:
        self._max_frames = max_frames
        self._keep_s = keep_s
        self._sent: deque[tuple[float, qos_pb2.QosMessage]] = deque()
        self._waiting: deque[qos_pb2.QosMessage] = deque()
        self._waiting_frames = 0
        self._active: dict[str, qos_pb2.QosMessage] = {}
        self.dropped_frames = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: qos_pb2.QosMessage) -> None:
        """Queue a message."""
        self._waiting.append(message)
        self._waiting_frames += len(message.frames.frames)
        self._trim()

    def next(self, now: float) -> qos_pb2.QosMessage | None:
        """The next message to send (it counts as sent), None where none waits; ``now`` in seconds."""
        while self._sent and self._sent[0][0] <= now - self._keep_s:
            self._settle(self._sent.popleft()[1])
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        self._waiting_frames -= len(message.frames.frames)
        self._sent.append((now, message))
        return message

    def rewind(self) -> list[qos_pb2.QosMessage]:
        """A new stream begins: what to send before :meth:`next`."""
        again = [message for _, message in self._sent]
        self._sent.clear()
        self._waiting.extendleft(reversed(again))
        self._waiting_frames += sum(len(m.frames.frames) for m in again)
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

    def _trim(self) -> None:
        while self._waiting_frames > self._max_frames:
            index = next(i for i, m in enumerate(self._waiting) if m.HasField("frames"))
            count = len(self._waiting[index].frames.frames)
            del self._waiting[index]
            self._waiting_frames -= count
            self.dropped_frames += count


class _Stream:
    """State of one gRPC stream, shared by its request and its answer side."""

    def __init__(self) -> None:
        self.accepted = False
        self.ended = False
        self.call: grpc.Call | None = None


class QosPublisher:
    """Keeps one stream to the controller's QosIngest open, for ever, in its own thread.

    Reconnects after ``backoff_s[0]`` seconds, doubling up to ``backoff_s[1]``. A controller that does not
    accept the hello within ``accept_s`` counts as gone. While it refuses messages, the active flows are
    started again every ``start_again_s``.
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
        setting: str = "--qos",
        missing: str = "--keys",
    ) -> None:
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
        self._channel = security.grpc_channel(address, tls, setting=setting, missing=missing)
        self._thread = threading.Thread(target=self._run, name="qos-publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, message: qos_pb2.QosMessage) -> None:
        """Queue a message; never blocks."""
        with self._changed:
            self._outbox.put(message)
            self._changed.notify_all()

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
        if self._thread.ident is not None:
            self._thread.join(max(0.1, end - time.monotonic()))
        self._end(self._stream)
        self._channel.close()
        if self._thread.ident is not None:
            self._thread.join()

    def _end(self, stream: _Stream | None) -> None:
        with self._changed:
            if stream is not None:
                stream.ended = True
            self._changed.notify_all()
        if stream is not None and stream.call is not None:
            stream.call.cancel()

    def _run(self) -> None:
        wait = self._backoff_s[0]
        said = ""
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
                wait, said = self._backoff_s[0], ""
            if why != said and not self._closed.is_set():
                log.warning("QoS ingest at %s: %s; trying again", self._address, why)
                said = why
            self._closed.wait(wait)
            wait = min(2 * wait, self._backoff_s[1])

    def _on_notice(self, stream: _Stream, notice: qos_pb2.QosNotice) -> None:
        if notice.kind == qos_pb2.ACCEPTED:
            with self._changed:
                stream.accepted = True
                self._counters["streams"] += 1
                self._changed.notify_all()
            log.info("QoS ingest at %s: connected", self._address)
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
                message = self._outbox.next(time.monotonic())
                if message is not None:
                    if not len(self._outbox):
                        self._changed.notify_all()
                    return message
                self._changed.wait()
        return None
