"""The OpenRTiST server: Gabriel's gRPC transport, one engine, first in, first out.

Gabriel's own runners put the engine in another process and give it a frame when it is free, so a frame's wait
at the edge is not seen. Here the edge's times are taken where the frame comes in and where it goes out, and a
client that does not read its results holds up nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from gabriel_protocol.v1 import gabriel_pb2, gabriel_pb2_grpc
from gabriel_server.grpc_server import SESSION_ID_METADATA_KEY, STREAM_ROLE_METADATA_KEY, GrpcServer

from openrtist.engine import StyleEngine
from openrtist.payload import ENGINE_ID, MAX_MESSAGE, MAX_WAITING, WINDOW, sequence_of, stamped
from wire import security

log = logging.getLogger(__name__)

TOKENS = 1 << 30
"""Tokens that every producer gets. Gabriel has no way to do without, so the server grants more than a client
can use; how many frames are under way at a time is the client's choice."""
_OPTIONS = (
    *(option for option in security.SERVER_OPTIONS if option[0] != "grpc.max_receive_message_length"),
    ("grpc.http2.lookahead_bytes", WINDOW),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
)


_REMEDY = "install gabriel-client>=5.2,<5.3 beside that client, or use `prbandit openrtist client`"


class _Others(grpc.GenericRpcHandler):
    """Takes the calls that this Gabriel does not have: those of its other versions, and strangers'."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def service(self, details: Any) -> Any:
        older = "/gabriel." in details.method
        why = f"calls {details.method}" + (", as Gabriel before 5.1 did" if older else "")

        async def refuse(_requests: Any, context: Any) -> None:
            await self._transport.refuse(context, why)

        return grpc.stream_stream_rpc_method_handler(refuse)


class Transport(GrpcServer):
    """Gabriel's gRPC server on one address under the loopback rule; Gabriel's own listens on all of them."""

    def __init__(
        self,
        address: str,
        tls: security.Tls | None,
        engine_cb: Callable[..., Any],
        counters: Counter[str],
    ) -> None:
        super().__init__(TOKENS, engine_cb, {ENGINE_ID})
        self._address = address
        self._tls = tls
        self.port = 0
        self._counters = counters

    async def _start_grpc_server(self) -> None:
        server = grpc.aio.server(options=_OPTIONS)
        gabriel_pb2_grpc.add_GabrielClientServiceServicer_to_server(self, server)
        server.add_generic_rpc_handlers((_Others(self),))
        self.port = security.grpc_server_add(
            server, self._address, self._tls, setting="--address", missing="--keys"
        )
        await server.start()
        self._server = server

    async def ClientSession(self, request_iterator: Any, context: Any) -> None:
        """Gabriel's session of a client, which those before 5.2 open in another way."""
        told = dict(context.invocation_metadata())
        if not told.get(SESSION_ID_METADATA_KEY) or STREAM_ROLE_METADATA_KEY not in told:
            await self.refuse(context, "opens its session as Gabriel before 5.2 did")
        await super().ClientSession(request_iterator, context)

    async def refuse(self, context: Any, why: str) -> None:
        """End the call of a client of another version, with a line in the log and the remedy in both."""
        self._counters["other_version"] += 1
        count = self._counters["other_version"]
        text = f"{why}; this server speaks Gabriel 5.2: {_REMEDY}"
        if count & (count - 1) == 0:  # every power of two, as such a client comes again
            log.warning("client %s %s (%d refused so far)", context.peer(), text, count)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the client {text}")

    def connected(self, session: str) -> bool:
        """Whether a client is still there."""
        return session in self._clients


@dataclass(slots=True)
class _Job:
    frame_id: int
    producer_id: str
    session: str
    input_frame: gabriel_pb2.InputFrame
    client_info: Any
    received_ns: int


class StyleServer:
    """Serves until :meth:`stop`.

    Args:
        queue: frames that may wait for the engine; when they are that many, new ones are refused.
        backlog: results that may wait for a client to read them; beyond that they are dropped, and the
            client's frames are not stylised.
        on_load: called about twice a second with the share of time (0..1) that the network was running.
    """

    def __init__(
        self,
        engine: StyleEngine,
        address: str,
        tls: security.Tls | None = None,
        *,
        queue: int = 60,
        backlog: int = 16,
        on_load: Callable[[float], None] | None = None,
    ) -> None:
        if queue < 1 or backlog < 1:
            raise ValueError(f"a queue of {queue} frames and a backlog of {backlog} results hold nothing")
        self._engine = engine
        self._address = address
        self._tls = tls
        self._queue_limit = queue
        self._backlog = backlog
        self._on_load = on_load
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._senders: dict[str, asyncio.Queue[tuple[_Job, gabriel_pb2.Result, bytes | None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # By session: what has arrived and was not told yet, as (sequence, edge_received_ns).
        self._arrived: dict[str, dict[int, int]] = {}
        self._counters: Counter[str] = Counter()

    @property
    def counters(self) -> dict[str, int]:
        """Frames ``received`` and ``sent`` back; not stylised because of ``queue_full``, because the client
        has ``not_read`` its results or because of ``client_gone``; the engine's ``frames``, ``refused`` and
        ``errors``; calls of clients of an ``other_version`` of Gabriel.
        """
        return {name: n for name, n in (self._counters + self._engine.counters).items() if n}

    @property
    def address(self) -> str:
        """Where it listens, with the real port."""
        return f"{self._address.rpartition(':')[0]}:{self._transport.port}"

    def run(self, ready: Callable[[str], None] | None = None) -> None:
        """Serve until SIGINT, SIGTERM or :meth:`stop`; ``ready`` gets the address.

        Raises:
            OSError: the address cannot be bound.
            wire.security.InsecureAddress, KeyFileError: as there.
        """
        asyncio.run(self._serve(ready))

    def stop(self) -> None:
        """Any thread may call it."""
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def _serve(self, ready: Callable[[str], None] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Only the main thread may take signals.
            with suppress(ValueError, RuntimeError):
                self._loop.add_signal_handler(number, self._stopping.set)
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(self._queue_limit)
        self._transport = Transport(self._address, self._tls, self._take, self._counters)
        with ThreadPoolExecutor(1, "engine") as pool:
            tasks = [
                asyncio.create_task(self._transport.launch_async(self._address, MAX_MESSAGE)),
                asyncio.create_task(self._work(pool)),
                asyncio.create_task(self._tell_load()),
            ]
            stop = asyncio.create_task(self._stopping.wait())
            started = asyncio.create_task(self._transport.wait_for_start())
            try:
                done, _ = await asyncio.wait({*tasks, started, stop}, return_when=asyncio.FIRST_COMPLETED)
                if started in done:
                    log.info("OpenRTiST server on %s", self.address)
                    if ready is not None:
                        ready(self.address)
                    done, _ = await asyncio.wait({*tasks, stop}, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stop, started}:
                    task.result()
            finally:
                pending = [*tasks, *self._tasks, started, stop]
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)

    async def _take(self, from_client: gabriel_pb2.FromClient, session: str, info: Any) -> tuple[Any, str]:
        """Gabriel's callback for each frame that has come in."""
        received_ns = time.time_ns()
        self._counters["received"] += 1
        message = from_client.input
        job = _Job(message.frame_id, message.producer_id, session, message.input_frame, info, received_ns)
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            self._counters["queue_full"] += 1
            code = gabriel_pb2.StatusCode.SERVER_DROPPED_FRAME
            return code, f"{self._queue_limit} frames wait already"
        sequence = sequence_of(message.input_frame.byte_payload)
        if sequence is not None:
            arrived = self._arrived.setdefault(session, {})
            arrived[sequence] = received_ns
            if len(arrived) > MAX_WAITING:
                del arrived[next(iter(arrived))]
        return gabriel_pb2.StatusCode.SUCCESS, ""

    async def _work(self, pool: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            job = await self._jobs.get()
            if not self._transport.connected(job.session):
                self._arrived.pop(job.session, None)
                self._counters["client_gone"] += 1
                continue
            sender = self._sender(job.session)
            if sender.full():
                self._counters["not_read"] += 1
                continue
            outcome = await loop.run_in_executor(pool, self._engine.handle, job.input_frame, job.client_info)
            result = gabriel_pb2.Result(
                status=outcome.status, frame_id=job.frame_id, target_engine_id=ENGINE_ID
            )
            if outcome.status.code != gabriel_pb2.StatusCode.SUCCESS:
                self._complain(job, outcome.status.message)
            if self._senders.get(job.session) is sender:
                sender.put_nowait((job, result, outcome.payload))
            else:
                self._counters["client_gone"] += 1

    def _complain(self, job: _Job, why: str) -> None:
        count = self._engine.counters["refused"] + self._engine.counters["errors"]
        if count & (count - 1) == 0:  # every power of two: one bad client must not fill the log
            log.warning("frame %d of %s (%d refused so far): %s", job.frame_id, job.producer_id, count, why)

    def _sender(self, session: str) -> asyncio.Queue[Any]:
        """The queue of results of one client; a task of its own sends them."""
        queue = self._senders.get(session)
        if queue is None:
            queue = self._senders[session] = asyncio.Queue(self._backlog)
            task = asyncio.create_task(self._send(session, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return queue

    async def _send(self, session: str, queue: asyncio.Queue[Any]) -> None:
        try:
            while self._transport.connected(session):
                try:
                    job, result, payload = await asyncio.wait_for(queue.get(), 1.0)
                except TimeoutError:
                    continue
                if payload is not None:
                    result.bytes_result = stamped(
                        payload, job.received_ns, time.time_ns(), self._waiting(session, job)
                    )
                sent = await self._transport.send_result(
                    session, job.producer_id, ENGINE_ID, result, return_token=True
                )
                self._counters["sent" if sent else "client_gone"] += 1
        finally:
            del self._senders[session]
            self._arrived.pop(session, None)
            self._counters["client_gone"] += queue.qsize()

    def _waiting(self, session: str, job: _Job) -> list[tuple[int, int]]:
        """Frames that have arrived since the last reply and are not this one; each is told once."""
        arrived = self._arrived.pop(session, {})
        if (own := sequence_of(job.input_frame.byte_payload)) is not None:
            arrived.pop(own, None)
        return list(arrived.items())

    async def _tell_load(self) -> None:
        at, busy = time.monotonic(), self._engine.busy_s
        while True:
            await asyncio.sleep(0.5)
            now, so_far = time.monotonic(), self._engine.busy_s
            if self._on_load is not None:
                self._on_load(min(1.0, (so_far - busy) / (now - at)))
            at, busy = now, so_far
