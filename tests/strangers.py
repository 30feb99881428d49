"""Other programs on the port where an agent looks for its controller over CURVE."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import zmq

from wire.security import CurveServer

PATIENCE_S = 60.0
WRONG_KEY = "wrong-key"
_GREETINGS = {
    "garbage": bytes(range(1, 256)) * 4,
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html></html>",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
    # A greeting of ZMTP 3.1 with CURVE, then a command that is no WELCOME.
    "handshake": b"\xff" + bytes(8) + b"\x7f\3\1" + b"CURVE".ljust(52, b"\0") + b"\4\5\4PING",
}
STRANGERS = (*_GREETINGS, WRONG_KEY)


class Stranger:
    """A listener at :attr:`address` that says what its name says; WRONG_KEY: a controller with other keys."""

    def __init__(self, name: str) -> None:
        self._greeting = _GREETINGS.get(name)
        self._closed = False
        if self._greeting is not None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
            return
        self._context: zmq.Context[Any] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        CurveServer(*zmq.curve_keypair()).apply(self._router)
        self._router.bind("tcp://127.0.0.1:*")
        self.address = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)

    def fail_handshake(self) -> None:
        """Until the handshake of one connection has failed here."""
        if self._greeting is None:
            assert self._monitor.poll(int(PATIENCE_S * 1e3)), "no handshake came"
            return
        self._listener.settimeout(PATIENCE_S)
        connection, _ = self._listener.accept()
        with connection, suppress(OSError):
            connection.sendall(self._greeting)
            connection.settimeout(0.5)
            while connection.recv(4096):
                pass

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._greeting is None:
            self._router.disable_monitor()
            self._monitor.close(0)
            self._router.close(0)
            self._context.term()
        else:
            self._listener.close()

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
