"""A bounded HTTP server for pages of ours: the metrics of every process, and the controller's page."""

from __future__ import annotations

import logging
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

from wire.deadlines import CROWDED, Deadlines
from wire.revocation import Revoked
from wire.roles import Identity, identity
from wire.security import Tls, is_loopback, parse_address, require_address

log = logging.getLogger(__name__)

REQUEST_S = 10.0
"""From a connection's first byte to its last."""
MAX_REQUESTS = 16
"""Connections at a time; for one more the oldest of the peer with the most ends."""
STREAM_SEND_S = 10.0
"""How long an answer without an end may wait for its client to take some of it."""

REASONS = {
    "denied": "not for the role of the certificate, or the certificate is revoked",
    "no TLS handshake": "no TLS handshake, or no certificate of our authority",
    "crowded": "too many connections of one peer",
    "late": "not over within the time for it",
}
"""Why a connection is refused or ended -> what that means."""

IDENTITY = "prbandit.identity"
"""In the environ of a request: whose certificate the client shows (:class:`Identity`), None without TLS."""
PEER = "prbandit.peer"
"""In the environ of a request: the client's address and port."""
ENDLESS = "prbandit.endless"
"""In the environ of a request: to be called where its answer has no end. It then counts neither as late nor
among those that crowd; its application bounds how many there are."""


REVOKED = "prbandit.revoked"
"""In the environ of a request: whether the client's certificate has been revoked since; an answer without an
end asks before each of its parts."""


class _Answer(SimpleHandler):
    """One answer; where the client has gone that is no error."""

    server_software = "prbandit"

    def log_exception(self, exc_info: Any) -> None:
        if exc_info and isinstance(exc_info[1], OSError):
            log.debug("a client has gone", exc_info=exc_info)
        else:
            log.error("a page cannot be made", exc_info=exc_info)


class _Handler(WSGIRequestHandler):
    server: _Server
    identity: Identity | None = None

    def __init__(
        self,
        *args: Any,
        endless: Callable[[], None],
        identity: Identity | None,
        revoked: Callable[[], bool] = lambda: False,
    ) -> None:
        self._endless, self.identity, self._revoked = endless, identity, revoked
        super().__init__(*args)

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(65_537)
        if len(self.raw_requestline) > 65_536:
            self.requestline = self.request_version = self.command = ""
            self.send_error(414)
            return
        if not self.parse_request():
            return
        self.log_message("%s", self.requestline)
        environ = self.get_environ()
        environ[IDENTITY] = self.identity
        environ[PEER] = "{}:{}".format(*self.client_address[:2])
        environ[ENDLESS] = self._without_end
        environ[REVOKED] = self._revoked
        answer = _Answer(self.rfile, self.wfile, sys.stderr, environ, multithread=True)
        answer.run(self.server.get_app())  # type: ignore[arg-type]

    def _without_end(self) -> None:
        self._endless()
        self.connection.settimeout(STREAM_SEND_S)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s: %s", self.address_string(), format % args)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread for each request; the TLS handshake is the thread's work, so that it holds up nobody else."""

    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext | None,
        revoked: Revoked | None,
        readers: Collection[str],
        refused: Callable[[str, str], None],
        *,
        endless: int,
    ) -> None:
        self._context, self._readers, self._refused = context, readers, refused
        self._revoked = revoked
        self._requests = Deadlines(REQUEST_S, room=MAX_REQUESTS)
        # A request that was ended still has its thread until that finds out.
        self._most = 2 * MAX_REQUESTS + endless
        self._slots = threading.BoundedSemaphore(self._most)
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
            self._refused("crowded", f"{client_address[0]}: {self._most} requests are under way")
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

            def done() -> None:
                self._requests.done(under_way)

            try:
                self._serve(request, client_address, done)
            finally:
                done()

    def _serve(self, request: Any, client_address: Any, endless: Callable[[], None]) -> None:
        if self._context is None:
            _Handler(request, client_address, self, endless=endless, identity=None)
            return
        try:
            secure = self._context.wrap_socket(request, server_side=True)
        except OSError as error:
            self._refused("no TLS handshake", f"{client_address[0]}: {error}")
            raise
        with secure:
            shown, certificate = _identity(secure), secure.getpeercert(binary_form=True) or b""

            def revoked() -> bool:
                return self._revoked is not None and certificate in self._revoked

            if shown.role in self._readers and not revoked():
                _Handler(secure, client_address, self, endless=endless, identity=shown, revoked=revoked)
            else:
                name = repr(shown.common_name[:64])
                why = f"the certificate of {name} is revoked" if revoked() else f"it is not for {name}"
                self._refused("denied", f"{client_address[0]}: {why}")
                secure.recv(65_536)
                secure.sendall(b"HTTP/1.0 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            # Says goodbye first: a client may take a bare end of the connection for a cut answer.
            with suppress(OSError):
                secure.unwrap()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("request of %s failed", client_address, exc_info=True)


def _identity(secure: ssl.SSLSocket) -> Identity:
    """Whose certificate a client shows."""
    subject: Any = (secure.getpeercert() or {}).get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    return identity(names[0] if names else "")


class WebServer:
    """Serves the WSGI application ``app`` on ``address`` (``host:port``, port 0 for any) until :meth:`close`.

    With ``tls`` over HTTPS, and for the roles ``readers`` alone: both sides show their certificates, and one
    that is revoked (:mod:`wire.revocation`) is refused.
    ``refused`` takes every refusal as (one of :data:`REASONS`, text), from any thread. ``endless``: how many
    answers at a time have no end (:data:`ENDLESS`). ``port`` is the one that it listens on. ``setting`` and
    ``missing`` name the settings of address and TLS in errors.

    Raises :class:`wire.security.InsecureAddress` beyond loopback without ``tls``,
    :class:`wire.security.KeyFileError`, ``ValueError`` for what is no address and ``OSError`` where it cannot
    be bound.
    """

    def __init__(
        self,
        name: str,
        app: WSGIApplication,
        address: str,
        tls: Tls | None,
        *,
        readers: Collection[str],
        refused: Callable[[str, str], None],
        setting: str,
        missing: str,
        endless: int = 0,
    ) -> None:
        require_address(setting, address, "tcp", secured=tls is not None, missing=missing, listens=True)
        host, port = parse_address(address)
        context = None if tls is None else _context(tls)
        try:
            revoked = None if tls is None else Revoked(tls.folder)
            self._server = _Server(host, port, context, revoked, readers, refused, endless=endless)
        except OSError as error:
            raise OSError(f"{setting}: cannot listen on {address}: {error}") from error
        self._server.set_app(app)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name=name, daemon=True
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
