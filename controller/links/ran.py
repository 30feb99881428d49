"""RAN link: :class:`controller.links.ran_protocol.RanProtocol` behind a ZMQ ROUTER that serves many cells.

The ROUTER is in a process of its own, :mod:`controller.links.ran_front`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from controller.links import ran_front
from controller.links.codec import CellFacts
from controller.links.counters import Complaints, Counters
from controller.links.ran_front import MAX_PACKET, PING, from_front, to_front, to_peer
from controller.links.ran_protocol import Event, Quotas, RanProtocol
from wire.security import CurveServer, address_parts, require_address

log = logging.getLogger(__name__)

RESTART_S = 0.5
"""From one start of the front to the next, at least."""
PING_S = 0.25
MAX_UNANSWERED = 5
"""A front that has sent nothing since so many pings hangs: replaced before its cells count as silent."""
START_PINGS = 40
"""As many more for a front that has just been started."""


def _listen(address: str) -> socket.socket:
    """A listening socket for ``tcp://HOST:PORT``; ``*`` is every IPv4 address, or any port."""
    parts = address_parts(address, "zmq")
    assert parts is not None
    host, number = parts
    family, kind, protocol, _, where = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(100)
    except OSError:
        listener.close()
        raise
    return listener


def _clients(curve: CurveServer) -> dict[str, str]:
    return {key.decode(): cell for key, cell in curve.clients.items()}


class _Front:
    """The front process and this end of the socket pair to it."""

    def __init__(self, listener: socket.socket, curve: CurveServer | None) -> None:
        keys = curve and {
            "public": curve.public.decode(),
            "secret": curve.secret.decode(),
            "clients": _clients(curve),
        }
        self.socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        fds = (listener.fileno(), other.fileno())
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", ran_front.__name__, *map(str, fds)],
                stdin=subprocess.PIPE,
                # It finds the same packages as this process, however this one was told where they are.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                pass_fds=fds,
            )
        except BaseException:
            self.socket.close()
            raise
        finally:
            other.close()
        assert self.process.stdin is not None
        with suppress(BrokenPipeError), self.process.stdin as stdin:
            stdin.write(json.dumps(keys).encode())

    def end(self) -> int:
        """Its exit status."""
        self.socket.close()
        try:
            return self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class RanLink:
    """A ZMQ ROUTER that serves many cells. All methods are to be called by one thread.

    The front ends with the thread that started it.

    Args:
        address: ZMQ endpoint to bind, ``tcp://127.0.0.1:5555`` (port 0: any; see :attr:`address`).
        curve: the controller's keys and the cells'; None: loopback only.
        report_period_ms, lease_s, expected_cells, counters: as for :class:`RanProtocol`.
        setting, missing: names of the settings for the error texts.

    Raises:
        InsecureAddress: beyond loopback without ``curve``.
        ValueError: the address is none.
        OSError: the address cannot be bound.
    """

    MAX_BATCH = 1000
    """Messages that one :meth:`poll` takes at most."""

    def __init__(
        self,
        address: str,
        curve: CurveServer | None = None,
        *,
        report_period_ms: int,
        lease_s: float,
        expected_cells: Collection[str] | None = None,
        counters: Counters | None = None,
        setting: str = "links.ran.address",
        missing: str = "security.keys",
    ) -> None:
        require_address(setting, address, "zmq", secured=curve is not None, missing=missing, listens=True)
        self._protocol = RanProtocol(
            report_period_ms=report_period_ms,
            lease_s=lease_s,
            expected_cells=expected_cells,
            counters=counters,
        )
        self.counters = self._protocol.counters
        self._complain = Complaints(self.counters, log)
        self._curve = curve
        self._front: _Front | None = None
        self._start_at = 0.0
        self._starts = b""
        self._ping_at = 0.0
        self._unanswered = 0
        try:
            self._listener = _listen(address)
        except OSError as error:
            why = error.strerror or str(error)
            raise OSError(error.errno, f"{setting}: cannot listen on {address}: {why}") from error
        host, port, *_ = self._listener.getsockname()
        self.address: str = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        self._poller = select.poll()
        self._start()

    def _start(self) -> None:
        """The front, where it does not run and ran long enough ago. Sessions outlive it."""
        now = time.monotonic()
        if self._front is not None or now < self._start_at:
            return
        self._start_at = now + RESTART_S
        try:
            self._front = _Front(self._listener, self._curve)
        except OSError as error:
            self._complain("ran_front_restarts_total", f"the RAN front cannot be started: {error}")
            return
        # A front numbers its connections anew.
        self._starts = (int.from_bytes(self._starts, "big") + 1).to_bytes(4, "big")
        self._poller.register(self._front.socket, select.POLLIN)
        self._ping_at, self._unanswered = now + PING_S, -START_PINGS

    def _ping(self) -> None:
        """Ends a front that hangs. Pings are counted, not time: a stop of this process counts as one."""
        now = time.monotonic()
        if self._front is None or now < self._ping_at:
            return
        if self._unanswered >= MAX_UNANSWERED:
            self._front.process.kill()
            self._ended("hangs and is killed")
            return
        self._ping_at = now + PING_S
        self._unanswered += 1
        with suppress(BlockingIOError, ConnectionError):
            self._front.socket.send(PING)

    def _ended(self, what: str = "has ended") -> None:
        assert self._front is not None
        self._poller.unregister(self._front.socket)
        status = self._front.end()
        self._front = None
        self._complain(
            "ran_front_restarts_total",
            f"the RAN front {what} (status {status}), a peer may have made it: it is started anew",
        )
        self._start()

    def poll(self, timeout_s: float) -> list[Event]:
        """Waits for events for ``timeout_s`` at most, and takes those that are there, up to MAX_BATCH
        messages. Timers (re-send, renewal, silence) run in here: call it again and again."""
        protocol = self._protocol
        deadline = time.monotonic() + timeout_s
        while True:
            self._receive()
            self._ping()
            now = time.monotonic()
            protocol.tick(now)
            self._flush()
            events = protocol.take_events()
            if events or now >= deadline:
                return events
            due = min(deadline, protocol.next_due, self._ping_at if self._front else self._start_at)
            wait_s = max(0.0, due - now)
            self._poller.poll(math.ceil(wait_s * 1e3))

    def set_quota(self, cell_id: str, quotas: Quotas, bindings: Mapping[str, str], valid_for_s: float) -> int:
        """As :meth:`RanProtocol.set_quota`, from now on; the message is on its way on return."""
        sequence = self._protocol.set_quota(cell_id, quotas, bindings, valid_for_s, time.monotonic())
        self._flush()
        return sequence

    def set_keys(self, curve: CurveServer) -> list[str]:
        """Let in the cells' keys of ``curve`` and no others from now on; the controller's own stays. Returns
        the cells of which a key is let in no more.

        What a connection sends whose key is not there any more is dropped and counted.
        """
        if self._curve is None:
            raise ValueError("the link has no keys")
        gone = sorted(cell for key, cell in self._curve.clients.items() if key not in curve.clients)
        self._curve = replace(self._curve, clients=curve.clients)
        if self._front is not None:
            try:
                self._front.socket.send(to_front(_clients(self._curve)))
            except (BlockingIOError, ConnectionError):
                self._front.process.kill()  # the next one begins with them
        return gone

    def set_lease(self, lease_s: float) -> None:
        """As :meth:`RanProtocol.set_lease`; the messages are on their way on return."""
        self._protocol.set_lease(lease_s, time.monotonic())
        self._flush()

    def renew(self, cell_id: str) -> None:
        """As :meth:`RanProtocol.renew`; the message is on its way on return."""
        self._protocol.renew(cell_id, time.monotonic())
        self._flush()

    def release(self, cell_id: str) -> int:
        """As :meth:`RanProtocol.release`; the message is on its way on return."""
        sequence = self._protocol.release(cell_id, time.monotonic())
        self._flush()
        return sequence

    def unacknowledged(self, cell_id: str) -> bool:
        """As :meth:`RanProtocol.unacknowledged`; for a clean end: release, then poll while true."""
        return self._protocol.unacknowledged(cell_id)

    def tick(self, now: float) -> None:
        """Runs the timers; :meth:`poll` does it."""
        self._protocol.tick(now)
        self._flush()

    @property
    def cells(self) -> dict[str, CellFacts]:
        return self._protocol.cells

    def close(self) -> None:
        """Closes the socket at once; what was not sent is dropped. Quotas end with their lease."""
        self._listener.close()
        if self._front is not None:
            self._front.end()
            self._front = None

    def __enter__(self) -> RanLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self) -> None:
        """What the front has, up to MAX_BATCH packets."""
        protocol, now = self._protocol, time.monotonic
        self._start()
        for _ in range(self.MAX_BATCH):
            if self._front is None:
                return
            try:
                packet = self._front.socket.recv(MAX_PACKET)
            except BlockingIOError:
                return
            except ConnectionError:
                packet = b""
            if not packet:
                self._ended()
                return
            self._unanswered = 0
            kind, number, owner, body = from_front(packet)
            peer = self._starts + number
            if kind == ran_front.MESSAGE:
                protocol.receive(peer, body, now(), owner if self._curve else None)
            elif kind != ran_front.PONG:
                self._note(kind, peer, body.decode(errors="replace"))

    def _note(self, kind: int, peer: bytes, text: str) -> None:
        if kind == ran_front.MALFORMED:
            self._protocol.malformed(peer, text)
        elif kind == ran_front.SEND_FAILED:
            self._protocol.send_failed(peer, text)
        elif kind == ran_front.KEY_REFUSED:
            self._complain(
                "ran_key_refused_total", f"a connection from {text} is refused: no cell has its key"
            )
        else:
            self._complain(
                "ran_handshake_failed_total",
                "a connection has ended in its handshake: not ZMTP, no key, or another controller's key",
            )

    def _flush(self) -> None:
        for peer, data in self._protocol.take_outgoing():
            try:
                if self._front is None or not peer.startswith(self._starts):
                    raise ConnectionError("its connection has ended with the RAN front")
                self._front.socket.send(to_peer(peer[len(self._starts) :], data))
            except (BlockingIOError, ConnectionError) as error:
                # The next poll finds out that the front has ended.
                self._protocol.send_failed(peer, error.strerror or str(error))
