"""The HTTP server that Prometheus scrapes: the same one for the controller and for every agent."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import ssl
import threading
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from wire.security import Tls, parse_address, require_secure

log = logging.getLogger(__name__)

_REQUEST_S = 10.0
_MAX_REQUESTS = 16


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
        self._free = threading.BoundedSemaphore(_MAX_REQUESTS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # The base class asks the DNS for this host's name, which may take its time.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(_REQUEST_S)
        if self._context is None:
            super().finish_request(request, client_address)
            return
        with self._context.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)
            # Says goodbye first: a client may take a bare end of the connection for a cut answer.
            with contextlib.suppress(OSError):
                secure.unwrap()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("metrics: request of %s failed", client_address, exc_info=True)


class MetricsServer:
    """Serves ``registry`` on ``address`` (``host:port``, port 0 for any) at ``/metrics`` until :meth:`close`.

    With ``tls`` over HTTPS: the server shows its certificate of the key folder and asks for none, so that
    Prometheus needs no key of the testbed. ``port`` is the one that it listens on. ``setting`` and
    ``missing`` name the settings of address and TLS in errors.

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
        require_secure(setting, address, tls is not None, missing)
        try:
            host, port = parse_address(address)
        except ValueError as error:
            raise ValueError(f"{setting}: {error}") from error
        context = None if tls is None else _context(tls)
        try:
            self._server = _Server(host, port, context)
        except OSError as error:
            raise OSError(f"{setting}: cannot listen on {address}: {error}") from error
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
    return context
