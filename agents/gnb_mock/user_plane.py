"""Carries real TCP connections through the emulated cell: real clients, real servers, an emulated radio.

A UE has one or more listening addresses, each for one server. A connection to it is joined to a new one to
that server; the bytes of the two directions wait in the cell's queues as packets would, and come out in
order. What is under way is bounded as by a sender's socket buffer (``tcp.send_buffer_bytes``), so that a slow
radio blocks the writer and a reader that stops blocks the whole way. Nothing is lost: a connection that
cannot go on is broken at both ends.

What is not modelled: the congestion window of the connection (the sender has what the send buffer takes) and
the packets of its opening and closing. Acknowledgements load the other direction, but the sender's buffer is
freed when its bytes are delivered and does not wait for them: a starved other direction does not slow it.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from agents.emulator.spec import EXTERNAL, MAX_EXTERNAL, FlowSpec, TestbedSpec
from agents.emulator.testbed import EmulatedTestbed
from wire import security
from wire.security import Address

log = logging.getLogger(__name__)

READ_BYTES: Final = 16_384
"""Bytes of a direction that are read and not yet in the cell."""
UNREAD_BYTES: Final = 131_072
"""Bytes that came out of the cell and that the reader has not taken; with more, nothing goes in."""
SOCKET_BYTES: Final = 32_768
"""Kernel buffer on the writer's side. A large one would take frames that the radio cannot."""


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Listen:
    """Applications of a UE that connect to ``address`` (port 0: any that is free) reach ``server``."""

    ue: str
    address: Address
    server: Address


class UserPlane:
    """See the module. ``addresses`` are those of ``listens``, in their order, with the ports that they got.

    :meth:`join` puts the flows into the testbed's specification. One thread calls :meth:`put` before each
    advance of the cell and :meth:`take` after it. ``counters`` counts connections, those that were broken,
    refused or failed, and the bytes handed on in each direction (``ul_bytes``, ``dl_bytes``). ValueError for
    an address beyond loopback (the bytes are carried as they are), OSError, naming the address, where one
    cannot be listened on.
    """

    def __init__(self, listens: Sequence[Listen]) -> None:
        for host, port in (a for listen in listens for a in (listen.address, listen.server)):
            if not security.is_loopback(_text((host, port))):
                raise ValueError(
                    f"user plane: {host}:{port} is not loopback, and what it carries is not encrypted"
                )
        self._free: dict[str, list[int]] = {listen.ue: [] for listen in listens}
        self._ue_of: dict[int, str] = {}
        self._live: dict[int, _Connection] = {}
        self._draining: dict[int, str] = {}
        self._selector = selectors.DefaultSelector()
        self.counters: Counter[str] = Counter()
        self._listeners: list[socket.socket] = []
        self.addresses: list[Address] = []
        try:
            for listen in listens:
                self.addresses.append(self._listen(listen))
                at, to = _text(self.addresses[-1]), _text(listen.server)
                log.info("user plane of %s: %s to %s", listen.ue, at, to)
        except OSError:
            self.close()
            raise

    def _listen(self, listen: Listen) -> Address:
        ue, address = listen.ue, listen.address
        listener = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self._listeners.append(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        listener.setblocking(False)
        try:
            listener.bind(address)
            listener.listen(16)
        except OSError as error:
            raise OSError(error.errno, f"user plane of {ue}, {_text(address)}: {error.strerror}") from None
        self._selector.register(listener, selectors.EVENT_READ, (listen, listener))
        host, port = listener.getsockname()[:2]
        return host, port

    def join(self, spec: TestbedSpec) -> TestbedSpec:
        """The testbed with a flow for each connection that there may be. ValueError for an unknown UE."""
        flows = list(spec.flows)
        self._ue_of.clear()
        for ue, free in self._free.items():
            free.clear()
            for k in range(MAX_EXTERNAL):
                self._ue_of[len(flows)] = ue
                free.append(len(flows))
                flows.append(FlowSpec(f"{ue}/tcp-{k + 1}", ue, (), kind=EXTERNAL))
        return replace(spec, flows=tuple(flows))

    # ---- the cell's thread ------------------------------------------------------------------------------

    def put(self, testbed: EmulatedTestbed) -> None:
        """Takes new connections and what applications have written, and puts it into the cell."""
        for key, _ in self._selector.select(0):
            self._accept(testbed, key.data)
        for at, connection in list(self._live.items()):
            self._guard(at, connection, connection.put, testbed)

    def take(self, testbed: EmulatedTestbed) -> None:
        """Hands on what has come out of the cell."""
        for at, connection in list(self._live.items()):
            self._guard(at, connection, connection.take, testbed)
            if connection.done:
                self._end(at, connection)
        for at, ue in list(self._draining.items()):
            if all(testbed.underway(at, d) == 0 for d in ("ul", "dl")):
                del self._draining[at]
                self._free[ue].append(at)

    def _guard(
        self,
        at: int,
        connection: _Connection,
        do: Callable[[EmulatedTestbed], None],
        testbed: EmulatedTestbed,
    ) -> None:
        try:
            do(testbed)
        except OSError as error:
            self._complain("broken", self._ue_of[at], f"connection broken: {error.strerror or error}")
            connection.reset()
            self._end(at, connection)

    def _accept(self, testbed: EmulatedTestbed, key: tuple[Listen, socket.socket]) -> None:
        listen, listener = key
        ue = listen.ue
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._complain("failed", ue, f"no connection: {error.strerror}")
            return
        if not self._free[ue]:
            self._complain("refused", ue, f"more than {MAX_EXTERNAL} connections, one refused")
            client.close()
            return
        at = self._free[ue].pop()
        try:
            self._live[at] = _Connection(at, client, listen.server, testbed, self.counters)
        except OSError as error:
            client.close()
            self._free[ue].append(at)
            self._complain("failed", ue, f"no connection: {error.strerror}")
            return
        self.counters["connections"] += 1

    def _complain(self, what: str, ue: str, why: str) -> None:
        """Counts a connection that was broken, refused or failed, and logs every power of two of them."""
        self.counters[f"connections_{what}"] += 1
        count = self.counters[f"connections_{what}"]
        if count & (count - 1) == 0:
            log.warning("user plane of %s: %s (%d so far)", ue, why, count)

    def _end(self, at: int, connection: _Connection) -> None:
        connection.close()
        self._live.pop(at, None)
        self._draining[at] = self._ue_of[at]

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._live)

    def close(self) -> None:
        """Ends all connections and listens no more."""
        for connection in self._live.values():
            connection.reset()
            connection.close()
        self._live.clear()
        for listener in self._listeners:
            listener.close()
        self._selector.close()


class _Connection:
    """A client's connection and the one to the server, joined by an external flow of the cell."""

    def __init__(
        self,
        flow: int,
        client: socket.socket,
        server: Address,
        testbed: EmulatedTestbed,
        counters: Counter[str],
    ) -> None:
        self._client = client
        self._server = socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET)
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        for end in (self._client, self._server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connecting = True
        error = self._server.connect_ex(server)
        self._refused = 0 if error in (0, errno.EINPROGRESS) else error
        self._ways = (
            _Way(flow, "ul", self._client, self._server, testbed, counters),
            _Way(flow, "dl", self._server, self._client, testbed, counters),
        )

    def put(self, testbed: EmulatedTestbed) -> None:
        if self._connecting and not self._connected():
            return
        for way in self._ways:
            way.put(testbed)

    def take(self, testbed: EmulatedTestbed) -> None:
        for way in self._ways:
            way.take(testbed)

    def _connected(self) -> bool:
        error = self._refused or self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, f"server: {errno.errorcode.get(error, error)}")
        try:
            self._server.getpeername()
        except OSError:
            return False
        self._connecting = False
        return True

    @property
    def done(self) -> bool:
        """Both directions have ended."""
        return all(way.ended for way in self._ways)

    def reset(self) -> None:
        """Both ends learn that bytes are missing: the close sends RST."""
        for end in (self._client, self._server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        self._client.close()
        self._server.close()


class _Way:
    """One direction: read from the source, through the cell, written to the sink."""

    def __init__(
        self,
        flow: int,
        direction: str,
        source: socket.socket,
        sink: socket.socket,
        testbed: EmulatedTestbed,
        counters: Counter[str],
    ) -> None:
        self._counters, self._bytes = counters, f"{direction}_bytes"
        self._flow, self._direction = flow, direction
        self._source, self._sink = source, sink
        self._read, self._underway, self._out = bytearray(), bytearray(), bytearray()
        self._seen = testbed.delivered(flow, direction)
        self._dropped = testbed.dropped(flow, direction)
        self._eof = False
        self.ended = False

    def put(self, testbed: EmulatedTestbed) -> None:
        if not self._eof and len(self._read) < READ_BYTES:
            with suppress(BlockingIOError):
                data = self._source.recv(READ_BYTES - len(self._read))
                self._eof = not data
                self._read += data
        if self._read and len(self._out) < UNREAD_BYTES:
            n = testbed.send(self._flow, self._direction, len(self._read))
            self._underway += self._read[:n]
            del self._read[:n]

    def take(self, testbed: EmulatedTestbed) -> None:
        if testbed.dropped(self._flow, self._direction) != self._dropped:
            raise OSError(errno.ENOBUFS, "a queue of the cell was full")
        delivered = testbed.delivered(self._flow, self._direction)
        if delivered != self._seen:
            n = delivered - self._seen
            self._seen = delivered
            self._out += self._underway[:n]
            del self._underway[:n]
        if self._out:
            with suppress(BlockingIOError):
                n = self._sink.send(self._out)
                self._counters[self._bytes] += n
                del self._out[:n]
        if self._eof and not self.ended and not (self._read or self._underway or self._out):
            self.ended = True
            try:
                self._sink.shutdown(socket.SHUT_WR)
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    raise
