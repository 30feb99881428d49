"""The page: a browser's way to the operator API, as HTTP with JSON, and the files that show it.

==============================  =========================================================================
``GET /``                       the page; its style, script and icon beside it
``GET /api/state``              the state as ``OperatorClient.state`` has it; with it ``health``, and in
                                ``may`` the methods that the caller's role permits
``GET /api/decisions``          decision records as Server-Sent Events: the recent ones, then each as made
``POST /api/METHOD``            any other method of the operator API: its request and its answer as JSON
==============================  =========================================================================

Roles are those of the gRPC server (:data:`wire.roles.METHODS`). Without TLS the page is on loopback alone,
where any site in a browser could reach it: a request must name this host as its own (DNS rebinding), and what
is more than a look at the page must come from the page itself (cross-site requests).
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from typing import Any, NoReturn
from wsgiref.types import StartResponse

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.message import Message

from controller.links import health
from controller.links.counters import Complaints
from controller.links.operator import (
    MAX_SUBSCRIBERS,
    Broadcaster,
    OperatorService,
    OperatorTarget,
    Subscription,
    TooManySubscribers,
    plain,
)
from wire import operator_pb2
from wire.roles import METHODS, Identity
from wire.security import Tls, is_loopback
from wire.serving import share
from wire.web import ENDLESS, IDENTITY, PEER, REASONS, REVOKED, WebServer

log = logging.getLogger(__name__)

KEPT_DECISIONS = 200
"""Of each cell, for who opens the page."""
MAX_BODY_BYTES = 32 * 1024
"""Of a command; escaped, the longest field of one (MAX_OPTIONS_BYTES) fits."""
MAX_READ_BYTES = 1 << 20
"""Of the body of any request, wanted or not."""
PING_S = 5.0
"""A stream of decisions says at least so often that it is alive: a client that has gone is noticed."""
RETRY_MS = 2_000
"""After which a browser opens its stream of decisions again."""

COUNTERS: dict[str, str] = {
    "page_denied_total": "Requests of the page refused: not for the role of the certificate",
    "page_handshake_total": "Connections to the page without a TLS handshake",
    "page_crowded_total": "Connections to the page refused or ended: too many",
    "page_late_total": "Connections to the page ended: not over within the time for it",
    "page_foreign_total": "Requests of the page refused: for another host, or of another site",
    "page_malformed_total": "Requests of the page refused: no such page or method, or not what it takes",
    "page_subscribers_refused_total": "Streams of decisions to the page refused: too many",
}
"""Help text of every counter of the page."""
_COUNTED = dict(zip(REASONS, ("denied", "handshake", "crowded", "late"), strict=True))

_SERVICE = operator_pb2.DESCRIPTOR.services_by_name["Operator"]
_CALLS = {method.name: method for method in _SERVICE.methods if not method.server_streaming}
_STATE, _DECISIONS = "GetState", "WatchDecisions"
"""The methods behind ``/api/state`` and ``/api/decisions``."""

_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]
_HOST = re.compile(r"(localhost|[0-9.]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?\Z", re.IGNORECASE)

_STATUSES = {
    400: "400 Bad Request",
    403: "403 Forbidden",
    404: "404 Not Found",
    405: "405 Method Not Allowed",
    411: "411 Length Required",
    413: "413 Content Too Large",
    415: "415 Unsupported Media Type",
    421: "421 Misdirected Request",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}
_OF_GRPC = {grpc.StatusCode.INTERNAL: 500}
"""gRPC's status of an aborted call -> HTTP's; any other is a bad request."""


class _Refused(Exception):
    """A request is answered with ``status`` and ``text``; ``counted`` by that counter of the page."""

    def __init__(self, status: int, text: str, counted: str = "malformed", *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status, self.counted, self.headers = status, counted, headers


class _Caller:
    """What the operator service sees of a caller: of :class:`grpc.ServicerContext` what a call needs that has
    one answer."""

    def __init__(self, peer: str, identity: Identity | None) -> None:
        self._peer, self._identity = peer, identity

    def peer(self) -> str:
        return f"page:{self._peer}"

    def auth_context(self) -> Mapping[str, list[bytes]]:
        if self._identity is None:
            return {}
        return {
            "transport_security_type": [b"ssl"],
            "x509_common_name": [self._identity.common_name.encode()],
        }

    def abort(self, code: grpc.StatusCode, text: str) -> NoReturn:
        raise _Refused(_OF_GRPC.get(code, 400), text)


class _Stream:
    """The body of an answer with decisions; closing it ends the subscription, whether or not it had begun."""

    def __init__(self, parts: Iterator[bytes], end: Callable[[], None]) -> None:
        self._parts, self._end = parts, end

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def close(self) -> None:
        self._end()


class Page:
    """The WSGI application. ``secured`` says that it is served over TLS alone.

    Every refusal counts in the broadcaster's counters, by :data:`COUNTERS`.
    """

    def __init__(self, target: OperatorTarget, broadcaster: Broadcaster, *, secured: bool) -> None:
        self._service = OperatorService(target, broadcaster)
        self._broadcaster = broadcaster
        self._secured = secured
        self._complain = Complaints(broadcaster.counters, log)
        # The others are left to those who watch over gRPC.
        self._streams = threading.BoundedSemaphore(max_streams(broadcaster.max_subscribers))
        folder = resources.files("controller.links") / "page_files"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        body = _read(environ)
        try:
            return self._answer(environ, body, start_response)
        except _Refused as refused:
            text = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO'][:64]!r}: {refused}"
            self._complain(f"page_{refused.counted}_total", f"page: {environ[PEER]}: {text}")
            return _json(start_response, {"error": str(refused)}, refused.status, refused.headers)

    def refused(self, why: str, text: str) -> None:
        """What :class:`wire.web.WebServer` is to call."""
        self._complain(f"page_{_COUNTED[why]}_total", f"page: {text}")

    def _answer(self, environ: dict[str, Any], data: bytes, start_response: StartResponse) -> Iterable[bytes]:
        self._require_our_name(environ)
        path, verb = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if not path.startswith("/api/"):
            if path not in self._files:
                raise _Refused(404, "there is no such page")
            _require_verb(verb, "GET")
            body, kind = self._files[path]
            return _send(start_response, body, f"{kind}; charset=utf-8")
        _require_our_site(environ)
        if path in ("/api/state", "/api/decisions"):
            _require_verb(verb, "GET")
            return (self._state if path == "/api/state" else self._decisions)(environ, start_response)
        name = path.removeprefix("/api/")
        if name not in _CALLS:
            raise _Refused(404, f"there is no method {name[:64]!r}; methods: {', '.join(_CALLS)}")
        _require_verb(verb, "POST")
        return _json(start_response, plain(self._call(name, environ, _body(environ, data))))

    # ---- what is asked --------------------------------------------------------------------------------

    def _state(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        state = plain(self._call(_STATE, environ, {}))
        cells = {cell["cell_id"]: list(health.of_cell(cell)) for cell in state["cells"]}
        state["health"] = {**health.verdict(state), "cells": cells}
        state["may"] = [name for name in _CALLS if _may(environ[IDENTITY], name)]
        return _json(start_response, state)

    def _call(self, name: str, environ: dict[str, Any], body: dict[str, Any]) -> Message:
        """Any method with one answer, its request parsed by the names of the fields."""
        identity = environ[IDENTITY]
        _require_role(identity, name)
        request = message_factory.GetMessageClass(_CALLS[name].input_type)()
        try:
            json_format.ParseDict(body, request)
        except (json_format.ParseError, ValueError, TypeError) as error:
            raise _Refused(400, f"{name}: {error}") from error
        answer: Message = getattr(self._service, name)(request, _Caller(environ[PEER], identity))
        return answer

    def _decisions(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        _require_role(environ[IDENTITY], _DECISIONS)
        known = environ.get("HTTP_LAST_EVENT_ID", "")
        after_ns = int(known) if re.fullmatch(r"[0-9]{1,20}", known) else 0
        if not self._streams.acquire(blocking=False):
            self._crowded("as many pages are open as are served")
        try:
            subscription = self._broadcaster.subscribe()
        except TooManySubscribers as error:
            self._streams.release()
            self._crowded(str(error))
        environ[ENDLESS]()
        start_response("200 OK", [("Content-Type", "text/event-stream; charset=utf-8"), *_HEADERS])
        return _Stream(
            self._events(subscription, after_ns, environ[REVOKED]), lambda: self._end(subscription)
        )

    def _events(
        self, subscription: Subscription, after_ns: int, revoked: Callable[[], bool]
    ) -> Iterator[bytes]:
        """The recent decisions made after ``after_ns``, then each as it is made; one may come twice."""
        yield f"retry: {RETRY_MS}\n\n".encode()
        for message in self._broadcaster.recent(after_ns):
            yield _event(message)
        while True:
            try:
                live = subscription.take(PING_S)
            except TimeoutError:
                yield b": alive\n\n"
                continue
            if live is None or revoked():
                return
            yield _event(live)

    def _end(self, subscription: Subscription) -> None:
        self._broadcaster.unsubscribe(subscription)
        self._streams.release()

    def _crowded(self, text: str) -> NoReturn:
        raise _Refused(503, text, "subscribers_refused", ("Retry-After", "10"))

    # ---- whether it may be asked ----------------------------------------------------------------------

    def _require_our_name(self, environ: Mapping[str, Any]) -> None:
        host = environ.get("HTTP_HOST", "")
        # Over TLS the browser has compared it with the certificate.
        if self._secured or (_HOST.match(host) and is_loopback(host)):
            return
        raise _Refused(421, f"{host[:64]!r} is no name of this host: localhost or 127.0.0.1", "foreign")


def max_streams(subscribers: int = MAX_SUBSCRIBERS) -> int:
    """How many pages may be open where a broadcaster serves so many subscribers."""
    return share(subscribers)


def _require_our_site(environ: Mapping[str, Any]) -> None:
    """A request of another site is refused, and a command that does not say that it is of this one."""
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    host = environ.get("HTTP_HOST", "")
    ours = site in (None, "same-origin", "none") and origin in (
        None,
        f"{environ['wsgi.url_scheme']}://{host}",
    )
    if environ["REQUEST_METHOD"] != "GET":
        ours = ours and (site == "same-origin" or (site is None and origin is not None))
    if not ours:
        raise _Refused(403, "a command must come from the page itself (Origin, Sec-Fetch-Site)", "foreign")


def _require_verb(verb: str, wanted: str) -> None:
    if verb != wanted:
        raise _Refused(405, f"{wanted} is needed", "malformed", ("Allow", wanted))


def _may(identity: Identity | None, name: str) -> bool:
    return identity is None or identity.role in METHODS[f"/{_SERVICE.full_name}/{name}"]


def _require_role(identity: Identity | None, name: str) -> None:
    if identity is not None and not _may(identity, name):
        raise _Refused(403, f"{name}: is not for the role {identity.role[:64]!r}", "denied")


def _length(environ: Mapping[str, Any]) -> int | None:
    """Bytes of a request's body as its headers say; None where they do not."""
    length = environ.get("CONTENT_LENGTH") or ""
    return int(length) if re.fullmatch(r"[0-9]{1,10}", length) else None


def _read(environ: Mapping[str, Any]) -> bytes:
    """A request's body, of a larger one than is taken a part: where a connection ends before its client has
    sent it, the answer may be lost."""
    data = bytearray()
    left = min(_length(environ) or 0, MAX_READ_BYTES)
    while left > 0 and (part := environ["wsgi.input"].read(min(left, 65_536))):
        left -= len(part)
        if len(data) <= MAX_BODY_BYTES:
            data += part
    return bytes(data)


def _body(environ: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """The JSON object that a request holds."""
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _Refused(415, "Content-Type: application/json is needed")
    length = _length(environ)
    if length is None:
        raise _Refused(411, "Content-Length is needed")
    if length > MAX_BODY_BYTES:
        raise _Refused(413, f"a request is {MAX_BODY_BYTES} bytes at most")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise _Refused(400, "the body is no JSON object")
    return body


def _event(message: operator_pb2.DecisionRecord) -> bytes:
    return f"id: {message.time_ns}\ndata: {message.json}\n\n".encode()


def _json(
    start_response: StartResponse,
    value: Any,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    body = json.dumps(value, separators=(",", ":")).encode()
    return _send(start_response, body, "application/json", _STATUSES.get(status, "200 OK"), headers)


def _send(
    start_response: StartResponse,
    body: bytes,
    kind: str,
    status: str = "200 OK",
    headers: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *_HEADERS, *headers])
    return [body]


class PageServer(WebServer):
    """Serves the page on ``address`` until :meth:`close`: a :class:`wire.web.WebServer`, whose errors are its
    own."""

    def __init__(
        self,
        address: str,
        tls: Tls | None,
        target: OperatorTarget,
        broadcaster: Broadcaster,
        *,
        setting: str = "links.page.address",
        missing: str = "security.keys",
    ) -> None:
        self._broadcaster = broadcaster
        page = Page(target, broadcaster, secured=tls is not None)
        super().__init__(
            "page",
            page,
            address,
            tls,
            readers=METHODS[f"/{_SERVICE.full_name}/{_STATE}"],
            refused=page.refused,
            setting=setting,
            missing=missing,
            endless=max_streams(broadcaster.max_subscribers),
        )

    def close(self) -> None:
        """End the streams and stop serving. May be called twice."""
        self._broadcaster.close()
        super().close()
