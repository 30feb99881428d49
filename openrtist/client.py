"""The OpenRTiST client: sends frames at a forced rate, or as tokens allow, and keeps the book of times."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from gabriel_client.gabriel_client import InputProducer
from gabriel_client.grpc_client import GrpcClient
from gabriel_protocol.v1 import gabriel_pb2

from openrtist import payload, picture
from openrtist.ledger import Ledger
from openrtist.show import Saver
from openrtist.video import Source, VideoError
from wire import qos_pb2, security
from wire.roles import EDGE_AGENT

log = logging.getLogger(__name__)

TICK_S = 0.2
"""Between two reports to the controller."""
CLOCK_STEP_S = 0.010
"""A change of CLOCK_REALTIME against the monotonic clock within one tick that counts as a step."""
_RATE_SAMPLE = 8


class ClientError(ConnectionError):
    """The client cannot go on; the text names the server or the video."""


@dataclass(frozen=True, slots=True)
class FlowName:
    """Whose frames they are, for the controller. Rates are the offered ones in bit/s; None: from the first
    pictures at the qualities of both directions."""

    flow: str
    ue_id: str
    slice: str
    ul_bps: float | None = None
    dl_bps: float | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How many frames. ``tokens`` is how many may be under way at a time, 0: as many as the rate makes.

    The run ends after ``frames`` frames or ``duration_s`` seconds, whichever comes first, or with the video.
    """

    fps: float = 30.0
    tokens: int = 0
    frames: int | None = None
    duration_s: float | None = None
    timeout_s: float = 10.0
    drain_s: float = 5.0
    silent_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise ValueError(f"{self.fps} frames a second")
        if self.tokens < 0:
            raise ValueError(f"{self.tokens} tokens")


def _clock_offset() -> float:
    """CLOCK_REALTIME less the monotonic clock (s), from two readings that nothing came between."""
    offset, best = 0.0, float("inf")
    for _ in range(5):
        before = time.monotonic()
        now = time.time()
        after = time.monotonic()
        if after - before < best:
            offset, best = now - (before + after) / 2, after - before
        if best < CLOCK_STEP_S / 10:
            break
    return offset


class _Gabriel(GrpcClient):
    """Gabriel's client, with word of what it only logs: connections, their end, frames that failed."""

    def __init__(self, owner: Client, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._owner = owner

    async def _run_session(self) -> None:
        why = "the session ended"
        try:
            await super()._run_session()
        except Exception as error:
            cause = error.__cause__
            why = str(error)
            if isinstance(cause, grpc.aio.AioRpcError):
                why = f"{cause.code().name}: {cause.details()}"
            raise
        finally:
            self._owner._on_disconnected(why)

    def _process_registered(self, registered: Any) -> None:
        super()._process_registered(registered)
        self._owner._on_connected()

    def _process_response(self, result_wrapper: Any) -> None:
        result = result_wrapper.result
        if result.status.code != gabriel_pb2.StatusCode.SUCCESS:
            # Gabriel keeps the time of every frame that did not succeed, for ever.
            self._pending_results.pop((result_wrapper.producer_id, result.frame_id), None)
            self._owner._on_failed(result.frame_id, result.status)
        super()._process_response(result_wrapper)


class Client:
    """One flow.

    Args:
        server: ``host:port`` of the OpenRTiST server.
        tell: takes the messages for the controller's QoS ingest; None: nobody is told.
        saver: gets every picture that comes back.
    """

    def __init__(
        self,
        server: str,
        source: Source,
        *,
        name: FlowName,
        pace: Pace | None = None,
        style: str = "",
        tls: security.Tls | None = None,
        publish: Callable[[qos_pb2.QosMessage], None] | None = None,
        saver: Saver | None = None,
        backoff_s: float = 0.5,
    ) -> None:
        security.require_address("--server", server, "tcp", secured=tls is not None, missing="--keys")
        if tls is not None:
            tls.read()
        if len(style.encode()) > payload.MAX_STYLE_NAME:
            raise ValueError(f"style {style!r}: more than {payload.MAX_STYLE_NAME} bytes")
        self._server = server
        self._source, self._played = source, source.name
        self._name = name
        self._pace = pace or Pace()
        self._style = style
        self._tls = tls
        self._publish = publish
        self._saver = saver
        self._backoff_s = backoff_s
        self._ledger = Ledger(self._pace.timeout_s)
        self._counters: Counter[str] = Counter()
        # A client that is started again must not tell of its predecessor's frames.
        self._first = self._sequence = (int(time.time()) & 0x7FF) << 20
        self._ids: dict[int, int] = {}
        self._produced = 0
        self._started = False
        self._start = 0.0
        self._first_sent = self._last_sent = 0.0
        self._first_back = self._last_back = 0.0
        self._first_size = 0
        self._next = 0
        self._media_s = 0.0
        self._ended = float("inf")
        self._connected = False
        self._connected_at = self._connected_s = 0.0
        # When the oldest frame was sent that nothing was heard since, None: nothing is waited for.
        self._unanswered: float | None = None
        self._logged = ""
        self._problem = ""
        self._emulated_mhz = [0, 0]
        self._failure: VideoError | None = None

    @property
    def returned(self) -> int:
        """Frames that have come back so far."""
        return self._ledger.counters["returned"]

    @property
    def round_trips_ms(self) -> list[float]:
        """Round-trip delay of every frame that has come back, in the order of their return."""
        return self._ledger.round_trips_ms

    # ---- the run ----------------------------------------------------------------------------------------

    def run(self, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Run to the end and return the summary; ``stop`` is asked about five times a second.

        Raises:
            ClientError: no connection ever came about.
            VideoError: the video can no longer be played.
        """
        return asyncio.run(self._run(stop))

    async def _run(self, stop: Callable[[], bool]) -> dict[str, Any]:
        self._sending, self._closing = True, False
        self._over = asyncio.Event()
        self._token = asyncio.Event()
        self._renderer = ThreadPoolExecutor(1, "render")
        begun = time.monotonic()
        gabriel = asyncio.create_task(self._gabriel())
        ticks = asyncio.create_task(self._ticks())
        try:
            while not self._over.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), TICK_S)
                limit = self._pace.duration_s
                since = self._start if self._started else begun
                now = time.monotonic()
                if stop() or (limit is not None and now - since >= limit):
                    self._end_sending(now if limit is None else min(now, since + limit))
                    break
                if gabriel.done():
                    gabriel.result()
            end = time.monotonic() + self._pace.drain_s
            while self._ledger.in_flight and time.monotonic() < end and not gabriel.done():
                await asyncio.sleep(0.02)
        finally:
            self._sending, self._closing = False, True
            for task in (gabriel, ticks):
                task.cancel()
            await asyncio.gather(gabriel, ticks, return_exceptions=True)
            self._renderer.shutdown()
            self._report()
            if self._started:
                self._stop_flow()
        if self._failure is not None:
            raise self._failure
        if not self._counters["connections"]:
            raise ClientError(f"server at {self._server}: never connected: {self._logged or 'no answer'}")
        return self.summary()

    def _end_sending(self, now: float) -> None:
        """The run is over: what was due since the last frame, without a connection or token, was not sent."""
        if not self._sending:
            return
        self._sending = False
        self._ended = now
        if self._started:
            self._counters["skipped"] += max(0, self._behind(now))

    def _behind(self, now: float) -> int:
        """Frames whose time is wholly over and that were neither sent nor skipped."""
        return int((now - self._start) * self._pace.fps - self._next + 1e-6)

    async def _gabriel(self) -> None:
        """Keeps a session with the server, for ever; one that falls silent is given up and begun anew."""
        producer = InputProducer(self._produce, [payload.ENGINE_ID], producer_name=self._name.flow)
        while True:
            client = _Gabriel(
                self,
                self._server,
                [producer],
                self._on_result,
                reconnect_interval_seconds=self._backoff_s,
                channel_options=[
                    *security.CHANNEL_OPTIONS,
                    *(security.server_role_options(EDGE_AGENT) if self._tls else ()),
                    ("grpc.http2.lookahead_bytes", payload.WINDOW),
                    ("grpc.max_receive_message_length", payload.MAX_MESSAGE),
                    ("grpc.max_send_message_length", payload.MAX_MESSAGE),
                ],
                tls_ca_cert=str(self._tls.ca_file) if self._tls else None,
                tls_client_cert=str(self._tls.certificate_file) if self._tls else None,
                tls_client_key=str(self._tls.key_file) if self._tls else None,
            )
            session = asyncio.create_task(client.launch_async())
            try:
                await self._watch(session)
            finally:
                session.cancel()
                await asyncio.gather(session, return_exceptions=True)
            await asyncio.sleep(self._backoff_s)

    async def _watch(self, session: asyncio.Task[None]) -> None:
        """Returns when a session has to be begun anew."""
        while True:
            await asyncio.wait({session}, timeout=TICK_S)
            if session.done():
                error = None if session.cancelled() else session.exception()
                if error is not None:
                    self._counters["session_errors"] += 1
                    log.warning("server at %s: %s: %s", self._server, type(error).__name__, error)
                return
            since = self._unanswered
            if self._connected and since is not None and time.monotonic() - since > self._pace.silent_s:
                self._counters["silences"] += 1
                log.warning("server at %s: no answer for %g s", self._server, self._pace.silent_s)
                return

    async def _ticks(self) -> None:
        offset = _clock_offset()
        while True:
            await asyncio.sleep(TICK_S)
            now = _clock_offset()
            if abs(now - offset) > CLOCK_STEP_S:
                self._counters["clock_steps"] += 1
                log.warning(
                    "CLOCK_REALTIME stepped by %.3f s: delays across the step are wrong", now - offset
                )
            offset = now
            lost = self._ledger.expire(time.monotonic())
            if lost:
                self._free_token()
                log.debug("%d frames lost, the first %d", len(lost), lost[0])
            self._report()

    # ---- frames out -------------------------------------------------------------------------------------

    async def _produce(self) -> gabriel_pb2.InputFrame | None:
        """Gabriel's producer: the next frame, when it is due."""
        pace = self._pace
        while self._sending:
            if pace.tokens and self._ledger.in_flight >= pace.tokens:
                self._token.clear()
                await self._token.wait()
                continue
            if not self._started:
                self._start = time.monotonic()
            due = self._start + self._next / pace.fps
            behind = self._behind(time.monotonic())
            if behind > 0:
                # A camera does not wait: what could not be sent in its time is not sent at all.
                self._counters["skipped"] += behind
                self._next += behind
                self._media_s += min(behind / pace.fps, 1.0)
                continue
            await asyncio.sleep(due - time.monotonic())
            try:
                shown, jpeg = await asyncio.get_running_loop().run_in_executor(self._renderer, self._render)
            except VideoError as error:
                shown = jpeg = None
                if self._sending:
                    self._failure = error
            if not self._sending:
                break
            if jpeg is None:
                self._end_sending(due)
                self._over.set()
                break
            if not self._started:
                self._start_flow(shown)
            self._next += 1
            self._media_s += 1 / pace.fps
            sequence, self._sequence = self._sequence, self._sequence + 1
            self._produced += 1
            self._ids[self._produced] = sequence
            ue_sent_ns = time.time_ns()
            data = payload.Frame(sequence, self._style, jpeg).pack()
            self._last_sent = now = time.monotonic()
            if sequence == self._first:
                self._first_sent = now
            self._ledger.sent(sequence, ue_sent_ns, len(data), now)
            if self._unanswered is None:
                self._unanswered = now
            if pace.frames is not None and self._sequence - self._first >= pace.frames:
                self._end_sending(due)
                self._over.set()
            return gabriel_pb2.InputFrame(payload_type=gabriel_pb2.PayloadType.IMAGE, byte_payload=data)
        # Gabriel asks again at once when it gets nothing.
        await asyncio.Event().wait()
        return None

    def _render(self) -> tuple[picture.Picture | None, bytes | None]:
        try:
            shown = self._source.at(self._media_s)
            if shown is None:
                return None, None
            jpeg = picture.encode(shown, picture.UP_QUALITY)
        except VideoError:
            raise
        except Exception as error:
            # Whatever its kind, it is no fault of the server's and a new connection does not mend it.
            raise VideoError(f"{self._played}: {type(error).__name__}: {error}") from error
        if len(jpeg) > payload.MAX_JPEG:
            height, width = shown.shape[:2]
            size = f"{len(jpeg)} bytes, {payload.MAX_JPEG} at most"
            raise VideoError(f"{self._played}: a picture of {width}x{height} takes {size}")
        return shown, jpeg

    def _free_token(self) -> None:
        self._token.set()

    # ---- word from Gabriel ------------------------------------------------------------------------------

    def _on_connected(self) -> None:
        self._counters["connections"] += 1
        self._connected = True
        self._connected_at = time.monotonic()
        self._unanswered = None
        self._logged = ""
        # Gabriel numbers the frames of each connection from 1; those under way are gone with the last one.
        self._ids.clear()
        self._produced = 0
        log.info("server at %s: connected", self._server)

    def _on_disconnected(self, why: str) -> None:
        if self._connected:
            self._connected_s += self._connected_so_far(time.monotonic())
            if not self._closing:
                self._counters["disconnections"] += 1
        self._connected = False
        if why != self._logged and not self._closing:
            log.warning("server at %s: %s; trying again", self._server, why)
            self._logged = why

    def _connected_so_far(self, now: float) -> float:
        """Seconds of this connection within the run."""
        if not self._started:
            return 0.0
        return max(0.0, min(now, self._ended) - max(self._connected_at, self._start))

    def _on_heard(self) -> None:
        self._unanswered = time.monotonic() if self._ledger.in_flight else None

    def _on_failed(self, frame_id: int, status: Any) -> None:
        dropped = status.code == gabriel_pb2.StatusCode.SERVER_DROPPED_FRAME
        why = "dropped_by_server" if dropped else "refused_by_server"
        if not dropped and not self._ledger.counters[why]:
            self._problem = status.message
            log.warning("server at %s refused a frame: %s", self._server, status.message)
        sequence = self._ids.pop(frame_id, None)
        if sequence is not None:
            self._ledger.failed(sequence, why)
        self._on_heard()
        self._free_token()

    def _on_result(self, result: gabriel_pb2.Result) -> None:
        ue_received_ns = time.time_ns()
        now = time.monotonic()
        self._ids.pop(result.frame_id, None)
        try:
            reply = payload.Reply.unpack(result.bytes_result)
        except payload.BadPayload as error:
            self._counters["malformed"] += 1
            log.warning("server at %s: %s", self._server, error)
            self._on_heard()
            return
        for sequence, edge_received_ns in reply.waiting:
            self._ledger.arrived(sequence, edge_received_ns)
        known = self._ledger.returned(
            reply.sequence,
            reply.edge_received_ns,
            reply.edge_sent_ns,
            ue_received_ns,
            len(result.bytes_result),
            inference_us=reply.inference_us,
            engine_us=reply.engine_us,
            returned_at=now,
        )
        self._on_heard()
        if reply.emulated:
            low, high = self._emulated_mhz
            self._emulated_mhz = [min(low or reply.clock_mhz, reply.clock_mhz), max(high, reply.clock_mhz)]
        self._last_back = now
        if not self._first_back:
            self._first_back, self._first_size = now, len(result.bytes_result)
        if known and self._saver is not None:
            self._saver.put(reply.sequence - self._first, reply.jpeg)
        self._free_token()

    # ---- word to the controller -------------------------------------------------------------------------

    def _start_flow(self, shown: picture.Picture | None) -> None:
        self._started = True
        if self._publish is None or shown is None:
            return
        ul, dl = (
            given if given is not None else 8 * len(picture.encode(shown, quality)) * self._pace.fps
            for given, quality in (
                (self._name.ul_bps, picture.UP_QUALITY),
                (self._name.dl_bps, picture.DOWN_QUALITY),
            )
        )
        self._publish(
            qos_pb2.QosMessage(
                flow_start=qos_pb2.FlowStart(
                    flow=self._name.flow,
                    ue_id=self._name.ue_id,
                    slice=self._name.slice,
                    ul_bps=ul,
                    dl_bps=dl,
                    time_ns=time.time_ns(),
                )
            )
        )

    def _stop_flow(self) -> None:
        if self._publish is not None:
            # The flow was over when its last frame went out, not when the last one came back.
            age = time.monotonic() - self._last_sent
            stop = qos_pb2.FlowStop(flow=self._name.flow, time_ns=time.time_ns() - round(age * 1e9))
            self._publish(qos_pb2.QosMessage(flow_stop=stop))

    def _report(self) -> None:
        for batch in self._ledger.changes():
            if self._publish is not None:
                frames = [
                    qos_pb2.Frame(
                        sequence=e.sequence,
                        ue_sent_ns=e.ue_sent_ns,
                        edge_received_ns=e.edge_received_ns,
                        edge_sent_ns=e.edge_sent_ns,
                        ue_received_ns=e.ue_received_ns,
                    )
                    for e in batch
                ]
                self._publish(
                    qos_pb2.QosMessage(frames=qos_pb2.FrameBatch(flow=self._name.flow, frames=frames))
                )

    def summary(self) -> dict[str, Any]:
        """What became of the frames, delays in ms, rates in bit/s: ``ul_bps`` over the time of sending,
        ``dl_bps`` from the first result to the last. Rates count what the Gabriel messages carry.

        ``seconds`` is the time of sending, from the first frame to the last; ``run_s`` goes on to the end of
        the run, and ``connected_s`` is how much of that there was a connection.
        """
        sent = self._ledger.counters["sent"]
        now = min(time.monotonic(), self._ended)
        connected = self._connected_s + (self._connected_so_far(now) if self._connected else 0.0)
        length = self._last_sent - self._first_sent + 1 / self._pace.fps if sent else 0.0
        back = self._last_back - self._first_back
        low, high = self._emulated_mhz
        return {
            "flow": self._name.flow,
            "server": self._server,
            "seconds": round(length, 3),
            "run_s": round(now - self._start, 3) if self._started else 0.0,
            "connected_s": round(connected, 3),
            "fps": self._pace.fps,
            "tokens": self._pace.tokens,
            **self._ledger.summary(),
            "skipped": self._counters["skipped"],
            "sent_fps": round(sent / length, 3) if length else 0.0,
            "ul_bps": round(8 * self._ledger.up_bytes / length) if length else 0,
            "dl_bps": round(8 * (self._ledger.down_bytes - self._first_size) / back) if back else 0,
            "up_frame_bytes": round(self._ledger.up_bytes / sent) if sent else 0,
            "down_frame_bytes": round(self._ledger.down_bytes / self.returned) if self.returned else 0,
            "connections": self._counters["connections"],
            "disconnections": self._counters["disconnections"],
            "silences": self._counters["silences"],
            "session_errors": self._counters["session_errors"],
            "malformed": self._counters["malformed"],
            "clock_steps": self._counters["clock_steps"],
            "video_errors": self._source.errors,
            "problem": self._problem,
            "emulated_gpu_mhz": [low, high] if high else None,
            "saved": self._saver.saved if self._saver else 0,
            "not_saved": self._saver.left_out if self._saver else 0,
        }
