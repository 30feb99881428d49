"""The HTTP server that Prometheus scrapes: the same one for the controller and for every agent."""

from __future__ import annotations

import logging
import socket
import socketserver
import ssl
import threading
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, Counter, make_wsgi_app

from wire.deadlines import CROWDED, Deadlines
from wire.families import Family
from wire.roles import METRICS_READERS, identity
from wire.security import Tls, is_loopback, parse_address, require_address

log = logging.getLogger(__name__)

REQUEST_S = 10.0
"""From a connection's first byte to its last."""
MAX_REQUESTS = 16
"""Connections at a time; for one more the oldest of the peer with the most ends."""

REFUSALS = Family(
    "prbandit_metrics_page_refused_total",
    "counter",
    "Requests of the metrics page refused, by reason",
    ("why",),
)
REFUSED = Counter(REFUSALS.name, REFUSALS.text, REFUSALS.labels, registry=None)
"""Of all metrics pages of this process; each of them shows it."""
_REASONS = ("denied", "no TLS handshake", "crowded", "late")
for _reason in _REASONS:
    REFUSED.labels(_reason)


class _Refusals:
    """Counts, and logs every power of two."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._counts = dict.fromkeys(_REASONS, 0)

    def __call__(self, why: str, text: str) -> None:
        REFUSED.labels(why).inc()
        with self._mutex:
            self._counts[why] += 1
            count = self._counts[why]
        if count & (count - 1) == 0:
            log.warning("metrics page: %s (%s: %d)", text, why, count)


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s: %s", self.address_string(), format % args)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread for each request; the TLS handshake is the thread's work, so that it holds up nobody else."""

    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._refused = _Refusals()
        self._requests = Deadlines(REQUEST_S, room=MAX_REQUESTS)
        # A request that was ended still has its thread until that finds out.
        self._slots = threading.BoundedSemaphore(2 * MAX_REQUESTS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # The base class asks the DNS for this host's name, which may take its time.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self._refused("crowded", f"{client_address[0]}: {2 * MAX_REQUESTS} requests are under way")
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        host = client_address[0]
        # TLS takes the socket away; its duplicate is the same connection.
        with request.dup() as connection:

            def end(why: str) -> None:
                self._refused("crowded" if why == CROWDED else "late", f"{host}: {why}")
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

            # On loopback all addresses are one, so that a connection is a peer.
            peer = str(client_address) if is_loopback(host) else host
            under_way = self._requests.begin(peer, end)
            try:
                self._serve(request, client_address)
            finally:
                self._requests.done(under_way)

    def _serve(self, request: Any, client_address: Any) -> None:
        if self._context is None:
            super().finish_request(request, client_address)
            return
        try:
            secure = self._context.wrap_socket(request, server_side=True)
        except OSError as error:
            self._refused("no TLS handshake", f"{client_address[0]}: {error}")
            raise
        with secure:
            if (role := _role(secure)) in METRICS_READERS:
                super().finish_request(secure, client_address)
            else:
                self._refused("denied", f"{client_address[0]}: the page is not for the role {role[:64]!r}")
                secure.recv(65_536)
                secure.sendall(b"HTTP/1.0 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            # Says goodbye first: a client may take a bare end of the connection for a cut answer.
            with suppress(OSError):
                secure.unwrap()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("metrics: request of %s failed", client_address, exc_info=True)


def _role(secure: ssl.SSLSocket) -> str:
    """The role of a client's certificate."""
    subject: Any = (secure.getpeercert() or {}).get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    return identity(names[0]).role if names else ""


class MetricsServer:
    """Serves ``registry`` on ``address`` (``host:port``, port 0 for any) at ``/metrics`` until :meth:`close`.

    With ``tls`` over HTTPS, and for the roles of :data:`wire.roles.METRICS_READERS` alone: both sides show
    their certificates. ``port`` is the one that it listens on. ``setting`` and ``missing`` name the settings
    of address and TLS in errors.

    Raises :class:`wire.security.InsecureAddress` beyond loopback without ``tls``,
    :class:`wire.security.KeyFileError`, ``ValueError`` for what is no address and ``OSError`` where it cannot
    be bound.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        address: str,
        tls: Tls | None,
        *,
        setting: str = "--metrics",
        missing: str = "--keys",
    ) -> None:
        require_address(setting, address, "tcp", secured=tls is not None, missing=missing, listens=True)
        host, port = parse_address(address)
        context = None if tls is None else _context(tls)
        try:
            self._server = _Server(host, port, context)
        except OSError as error:
            raise OSError(f"{setting}: cannot listen on {address}: {error}") from error
        with suppress(ValueError):  # another page shows this registry already
            registry.register(REFUSED)
        self._server.set_app(make_wsgi_app(registry))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving. May be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


def _context(tls: Tls) -> ssl.SSLContext:
    tls.read()  # names the file that is missing or wrong
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate_file, tls.key_file)
    context.load_verify_locations(tls.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context
