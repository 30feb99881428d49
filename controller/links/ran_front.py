"""The RAN link's front: the ZMQ ROUTER to which gNBs connect, in a process of its own.

libzmq aborts, or takes all memory, for what some peers can send: a message of endlessly many frames, a PING
behind a full pipe of a connection that breaks. Here that ends this process alone, under a memory limit of its
own; the controller holds the listening socket and the sessions, and starts another one at once.

``python -m controller.links.ran_front LISTENER LINK`` with two inherited file descriptors: the listening TCP
socket, and one end of a SOCK_SEQPACKET pair of which each packet is one message (:func:`to_controller`,
:func:`to_peer`). It ends when the other end is closed. The CURVE keys come as JSON on standard input.
"""

from __future__ import annotations

import ctypes
import json
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import zmq
from zmq.utils import z85

from wire import MAX_RAN_MESSAGE_BYTES
from wire.limits import limit_data, raise_open_files

MAX_PACKET = MAX_RAN_MESSAGE_BYTES + 1024
MEMORY_BYTES = 512 << 20
RCVHWM = 100
"""Messages of one connection that wait while the controller takes none: a second of the fastest reports."""
HANDSHAKE_S = 3.0
"""A connection that has not shaken hands by then is closed, so that silent ones do not take every place."""
_BATCH = 100
_ZAP = "inproc://zeromq.zap.01"
_PR_SET_PDEATHSIG = 1

MESSAGE, MALFORMED, SEND_FAILED, KEY_REFUSED, HANDSHAKE_FAILED, PONG = range(6)
"""What a packet to the controller is; the body of all but MESSAGE is text."""


def to_controller(kind: int, peer: bytes, owner: bytes, body: bytes) -> bytes:
    """``peer``: connection, 255 bytes at most; ``owner``: the cell whose key it has proved, or nothing."""
    return bytes((kind, len(peer), len(owner))) + peer + owner + body


def from_front(packet: bytes) -> tuple[int, bytes, str, bytes]:
    """Kind, peer, owner, body."""
    kind, n, m = packet[:3]
    return kind, packet[3 : 3 + n], packet[3 + n : 3 + n + m].decode(), packet[3 + n + m :]


def to_peer(peer: bytes, data: bytes) -> bytes:
    """A packet to the front: a message for one connection."""
    return bytes((len(peer),)) + peer + data


def to_front(clients: Mapping[str, str]) -> bytes:
    """A packet to the front: the public keys (Z85) that it lets in from now on, and their cells."""
    return to_peer(b"", json.dumps(clients).encode())


PING = to_peer(b"", b"")
"""A packet to the front that it answers with a PONG."""


class Front:
    """See the module."""

    def __init__(self, listener: int, link: socket.socket, curve: Mapping[str, Any] | None) -> None:
        self._link = link
        self._waiting: bytes | None = None
        clients = curve["clients"] if curve else {}
        self._cells = _by_key(clients)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind(_ZAP)
        self._configure(listener, curve)
        self._failures = self._router.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        )
        self._router.bind("tcp://127.0.0.1:*")  # the address of the inherited socket counts, not this one
        self._secured = curve is not None

    def _configure(self, listener: int, curve: Mapping[str, Any] | None) -> None:
        router = self._router
        router.setsockopt(zmq.USE_FD, listener)
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.HANDSHAKE_IVL, round(HANDSHAKE_S * 1e3))
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        router.setsockopt(zmq.RCVHWM, RCVHWM)
        router.setsockopt(zmq.SNDHWM, 64)
        router.setsockopt(zmq.MAXMSGSIZE, 1 << 20)
        # Dead peers are found by TCP: libzmq aborts where the timer of its heartbeats meets a broken
        # connection whose pipe is full.
        router.setsockopt(zmq.TCP_KEEPALIVE, 1)
        router.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 2)
        router.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
        router.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        router.setsockopt(zmq.TCP_MAXRT, 5000)
        if curve is not None:
            router.curve_publickey = curve["public"].encode()
            router.curve_secretkey = curve["secret"].encode()
            router.curve_server = True

    def run(self) -> None:
        """Until the controller closes its end."""
        poller = zmq.Poller()
        for source in (self._zap, self._failures, self._router, self._link):
            poller.register(source, zmq.POLLIN)
        blocked = False
        while True:
            ready = dict(poller.poll())
            if self._zap in ready:
                self._authenticate()
            if self._failures in ready:
                self._note_failures()
            try:
                if ready.get(self._link.fileno(), 0) & zmq.POLLIN:
                    self._send()
                if blocked or self._router in ready:
                    self._receive()
            except (EOFError, ConnectionError):
                return
            if blocked != (self._waiting is not None):
                # What the controller does not take waits in libzmq, and then at the gNB.
                blocked = not blocked
                poller.register(self._link, zmq.POLLIN | (zmq.POLLOUT if blocked else 0))
                poller.register(self._router, 0 if blocked else zmq.POLLIN)

    def _send(self) -> None:
        """From the controller to the gNBs."""
        for _ in range(_BATCH):
            try:
                packet = self._link.recv(MAX_PACKET)
            except BlockingIOError:
                return
            if not packet:
                raise EOFError
            if packet == PING:
                self._play(PONG, b"", "")
                continue
            if not packet[0]:
                self._cells = _by_key(json.loads(packet[1:]))
                continue
            peer = packet[1 : 1 + packet[0]]
            try:
                self._router.send_multipart([peer, packet[1 + packet[0] :]], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                    raise
                self._play(SEND_FAILED, peer, error.strerror)

    def _receive(self) -> None:
        """From the gNBs to the controller."""
        for _ in range(_BATCH):
            if self._waiting is None:
                try:
                    parts = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
                except zmq.Again:
                    return
                self._waiting = self._packet(parts)
            try:
                self._link.send(self._waiting)
            except BlockingIOError:
                return
            self._waiting = None

    def _packet(self, parts: list[zmq.Frame]) -> bytes:
        peer, body = parts[0].bytes, parts[-1]
        if len(parts) != 2:
            return to_controller(MALFORMED, peer, b"", b"a message of %d frames" % (len(parts) - 1))
        if len(body) > MAX_RAN_MESSAGE_BYTES:
            why = b"%d bytes, more than %d" % (len(body), MAX_RAN_MESSAGE_BYTES)
            return to_controller(MALFORMED, peer, b"", why)
        if not self._secured:
            return to_controller(MESSAGE, peer, b"", body.bytes)
        # Of each message: what a connection is called could change hands, and its key be revoked.
        owner = self._cells.get(str(body.get("User-Id")).encode())
        if owner is None:
            return to_controller(KEY_REFUSED, b"", b"", str(body.get("Peer-Address")).encode())
        return to_controller(MESSAGE, peer, owner, body.bytes)

    def _authenticate(self) -> None:
        """ZAP (RFC 27): lets in the keys of the cells and makes the key the connection's User-Id."""
        for _ in range(_BATCH):
            try:
                version, request, _, address, _, _, *key = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            shown = z85.encode(key[0]) if key else b""
            if shown not in self._cells:
                self._play(KEY_REFUSED, b"", address.decode(errors="replace"))
                self._zap.send_multipart([version, request, b"400", b"key not known", b"", b""])
            else:
                self._zap.send_multipart([version, request, b"200", b"OK", shown, b""])

    def _note_failures(self) -> None:
        for _ in range(_BATCH):
            try:
                self._failures.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._play(HANDSHAKE_FAILED, b"", "")

    def _play(self, kind: int, peer: bytes, text: str) -> None:
        """What is only counted is dropped where the controller takes nothing."""
        with suppress(BlockingIOError):
            self._link.send(to_controller(kind, peer, b"", text.encode()))


def _by_key(clients: Mapping[str, str]) -> dict[bytes, bytes]:
    """Public key (Z85) -> cell id."""
    return {key.encode(): cell.encode() for key, cell in clients.items()}


def main() -> None:
    # A stop signal goes to the whole group: the controller has gNBs to release first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    limit_data(MEMORY_BYTES)
    raise_open_files()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None)
    # One that hangs does not see that the controller has gone, and would keep the port.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # libzmq numbers connections from rand() on and does not seed it: a peer could choose the next number.
    libc.srand(secrets.randbits(32))
    curve = json.load(sys.stdin)
    with socket.socket(fileno=int(sys.argv[2])) as link:
        link.setblocking(False)
        Front(int(sys.argv[1]), link, curve).run()


if __name__ == "__main__":
    main()
