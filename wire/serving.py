"""How every gRPC service of ours is served: who may call, what does not parse, what takes too long.

The calls of all methods are taken as streams of requests, the same on the wire: a handler then runs from the
headers on, knows its peer, and need not wait for a message for ever. No deserializer raises, for which gRPC
would keep memory and write a traceback.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from wire.deadlines import CROWDED, Deadlines
from wire.revocation import Revoked
from wire.roles import METHODS, Identity, identity
from wire.security import SERVER_OPTIONS, is_loopback

FIRST_MESSAGE_S = 5.0
"""From a call's headers to the end of its first message."""
REQUEST_S = 30.0
"""From the headers of a call with one answer to the end of that."""
CALLS = 8
"""Calls with one answer that are worked on at a time."""

M = TypeVar("M", bound=Message)

Parsed = tuple[Message | None]
"""A message, None for bytes that are none; in a tuple, as for gRPC None is an error."""


def parse(kind: type[M], data: bytes) -> M | None:
    """The message in ``data``, None where it holds none."""
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def caller(context: grpc.ServicerContext) -> Identity | None:
    """Whose certificate a caller shows; None without TLS."""
    about: Mapping[str, Any] = context.auth_context()
    if b"ssl" not in about.get("transport_security_type", ()):
        return None
    names = about.get("x509_common_name") or (b"",)
    return identity(names[0].decode(errors="replace"))


def peer_of(context: grpc.ServicerContext) -> str:
    """Who counts as one peer: a certificate at an address; on loopback, where all addresses are one, a
    connection."""
    peer = context.peer()
    address, _, _ = peer.rpartition(":")
    shown = caller(context)
    name = "" if shown is None else shown.common_name
    place = peer if is_loopback(address.replace("%5B", "[").replace("%5D", "]")) else address
    return f"{name} {place}"


def share(of: int) -> int:
    """How many of so many one peer may have; where there are fewer than four, all."""
    return of - of // 4


class Guard:
    """Stands before the services of one server.

    ``refused`` takes every refusal as (status, text that names peer and method), from any thread: to count it
    and to log some of them. Refused are

    - a role that :data:`wire.roles.METHODS` does not name, and a certificate that is revoked in ``keys``, the
      folder of the server's keys, at its next message where it is in a call (PERMISSION_DENIED);
    - a request that does not parse (INVALID_ARGUMENT);
    - of one peer more than its :func:`share` of the ``streams`` or of the ``calls`` (RESOURCE_EXHAUSTED);
    - a call without a first message after ``first_message_s``, and a call with one answer that is not over
      after ``request_s`` (DEADLINE_EXCEEDED here; the peer sees CANCELLED);
    - where more calls wait for their first message than can be worked on, one of them (RESOURCE_EXHAUSTED
      here; the peer sees CANCELLED).

    A servicer's method with a single request gets it as gRPC's own; one with a stream of requests gets an
    iterator of messages, None for each that does not parse.
    """

    def __init__(
        self,
        refused: Callable[[grpc.StatusCode, str], None],
        *,
        streams: int,
        calls: int = CALLS,
        keys: Path | str | None = None,
        first_message_s: float = FIRST_MESSAGE_S,
        request_s: float = REQUEST_S,
    ) -> None:
        self._refused = refused
        self._revoked = None if keys is None else Revoked(keys)
        self._streams, self._calls = streams, calls
        # Beside those that are worked on: all of them may begin at once.
        self._room = streams + calls
        self._silent = Deadlines(first_message_s, room=self._room)
        self._requests = Deadlines(request_s)
        self._lock = threading.Lock()
        self._open: Counter[tuple[str, bool]] = Counter()

    def server(self, name: str) -> grpc.Server:
        """A server with a thread for each call that is worked on or waits for its first message; more calls
        wait for a thread."""
        threads = self._streams + self._calls + self._room
        return grpc.server(
            futures.ThreadPoolExecutor(threads, thread_name_prefix=name),
            maximum_concurrent_rpcs=threads + 4 * self._calls,
            options=SERVER_OPTIONS,
        )

    def add(self, server: grpc.Server, service: ServiceDescriptor, servicer: object) -> None:
        """Registers ``servicer`` for a service that :data:`wire.roles.METHODS` knows."""
        handlers = {}
        for method in service.methods:
            name = f"/{service.full_name}/{method.name}"
            kind = message_factory.GetMessageClass(method.input_type)
            behaviour = getattr(servicer, method.name)
            make, wrap = (
                (grpc.stream_stream_rpc_method_handler, self._stream)
                if method.server_streaming
                else (grpc.stream_unary_rpc_method_handler, self._unary)
            )
            handlers[method.name] = make(
                wrap(name, behaviour, many=method.client_streaming),
                request_deserializer=lambda data, kind=kind: (parse(kind, data),),
                response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
            )
            if name not in METHODS:
                raise ValueError(f"{name}: no role is known to be permitted to call it")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    # ---- handlers --------------------------------------------------------------------------------------

    def _unary(self, method: str, behaviour: Callable[..., Any], *, many: bool) -> Callable[..., Any]:
        def handle(requests: Iterator[Parsed], context: grpc.ServicerContext) -> Any:
            peer = self._admit(method, context, stream=False)
            whole = self._requests.begin(peer, lambda why: self._cut(method, context, why))
            if not context.add_callback(lambda: self._requests.done(whole)):
                self._requests.done(whole)
            return behaviour(self._request(method, peer, requests, context, many=many), context)

        return handle

    def _stream(self, method: str, behaviour: Callable[..., Any], *, many: bool) -> Callable[..., Any]:
        def handle(requests: Iterator[Parsed], context: grpc.ServicerContext) -> Iterator[Any]:
            peer = self._admit(method, context, stream=True)
            for answer in behaviour(self._request(method, peer, requests, context, many=many), context):
                self._check_certificate(method, context)
                yield answer

        return handle

    def _admit(self, method: str, context: grpc.ServicerContext, *, stream: bool) -> str:
        """Lets a call in until it is over; who calls."""
        self._check_certificate(method, context)
        shown = caller(context)
        if shown is not None and shown.role not in METHODS[method]:
            self._refuse(
                method,
                context,
                grpc.StatusCode.PERMISSION_DENIED,
                f"is not for the role {shown.role[:64]!r}",
            )
        peer = peer_of(context)
        key = peer, stream
        most = self._streams if stream else self._calls
        bound = share(most)
        with self._lock:
            # Of a bound that is everybody's the service itself tells.
            full = bound < most and self._open[key] >= bound
            self._open[key] += not full

        def leave() -> None:
            with self._lock:
                self._open[key] -= 1
                if not self._open[key]:
                    del self._open[key]

        if full:
            self._refuse(
                method,
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"one peer may have {bound} {'streams' if stream else 'calls'} at a time",
            )
        if not context.add_callback(leave):
            leave()
        return peer

    def _request(
        self,
        method: str,
        peer: str,
        requests: Iterator[Parsed],
        context: grpc.ServicerContext,
        *,
        many: bool,
    ) -> Any:
        """The request of a call, or the iterator over its requests."""
        silent = self._silent.begin(peer, lambda why: self._cut(method, context, why))
        try:
            first = next(requests, None)
        finally:
            self._silent.done(silent)
        if many:
            return self._messages(method, context, first, requests)
        if first is None or first[0] is None:
            text = "there is no request" if first is None else "the request does not parse"
            self._refuse(method, context, grpc.StatusCode.INVALID_ARGUMENT, text)
        return first[0]

    def _messages(
        self, method: str, context: grpc.ServicerContext, first: Parsed | None, rest: Iterator[Parsed]
    ) -> Iterator[Message | None]:
        if first is not None:
            yield first[0]
            for (message,) in rest:
                self._check_certificate(method, context)
                yield message

    def _check_certificate(self, method: str, context: grpc.ServicerContext) -> None:
        if self._revoked is None:
            return
        for certificate in context.auth_context().get("x509_pem_cert", ()):
            if certificate in self._revoked:
                shown = caller(context)
                name = shown.common_name[:64] if shown else ""
                code = grpc.StatusCode.PERMISSION_DENIED
                self._refuse(method, context, code, f"the certificate of {name!r} is revoked")

    # ---- refusals --------------------------------------------------------------------------------------

    def _refuse(
        self, method: str, context: grpc.ServicerContext, code: grpc.StatusCode, why: str
    ) -> NoReturn:
        text = f"{method.rpartition('/')[2]}: {why}"
        self._refused(code, f"{context.peer()}: {text}")
        context.abort(code, text)
        raise AssertionError("abort returned")

    def _cut(self, method: str, context: grpc.ServicerContext, why: str) -> None:
        code = grpc.StatusCode.RESOURCE_EXHAUSTED if why == CROWDED else grpc.StatusCode.DEADLINE_EXCEEDED
        self._refused(code, f"{context.peer()}: {method.rpartition('/')[2]}: ended: {why}")
        with suppress(Exception):  # it may be over by now
            context.cancel()
