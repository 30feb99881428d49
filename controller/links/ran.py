"""RAN link: :class:`controller.links.ran_protocol.RanProtocol` behind a ZMQ ROUTER that serves many cells."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Mapping
from typing import Any

import zmq
import zmq.auth.thread
from zmq.utils import z85

from controller.links.codec import CellFacts
from controller.links.counters import Counters
from controller.links.ran_protocol import Event, Quotas, RanProtocol
from wire.security import CurveServer, require_secure

log = logging.getLogger(__name__)


class _CellKeys(zmq.auth.thread.ThreadAuthenticator):
    """ZAP: lets in the keys of ``clients`` and makes the cell id the connection's User-Id."""

    def __init__(self, context: zmq.Context[Any], curve: CurveServer, counters: Counters) -> None:
        super().__init__(context, log=log)
        self._clients = curve.clients
        self._counters = counters
        self.configure_curve_callback("*", credentials_provider=self)

    def callback(self, domain: str, key: bytes) -> bool:
        if key in self._clients:
            return True
        self._counters.inc("ran_key_refused_total")
        return False

    def curve_user_id(self, client_public_key: bytes) -> str:
        return self._clients.get(z85.encode(client_public_key), "")


class RanLink:
    """A ZMQ ROUTER that serves many cells. All methods are to be called by one thread.

    Args:
        address: ZMQ endpoint to bind, ``tcp://127.0.0.1:5555`` (port 0: any; see :attr:`address`).
        curve: the controller's keys and the cells'; None: loopback only.
        report_period_ms, lease_s, expected_cells, counters: as for :class:`RanProtocol`.
        setting, missing: names of the settings for the error texts.

    Raises:
        InsecureAddress: beyond loopback without ``curve``.
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
        require_secure(setting, address, curve is not None, missing)
        self._protocol = RanProtocol(
            report_period_ms=report_period_ms,
            lease_s=lease_s,
            expected_cells=expected_cells,
            counters=counters,
        )
        self.counters = self._protocol.counters
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._keys: _CellKeys | None = None
        self._socket = self._context.socket(zmq.ROUTER)
        try:
            self._configure(address, curve)
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(error.errno, f"{setting}: cannot listen on {address}: {error.strerror}") from error
        self.address: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._receive = self._drain if curve is None else self._drain_with_owner

    def _configure(self, address: str, curve: CurveServer | None) -> None:
        socket = self._socket
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
        socket.setsockopt(zmq.HEARTBEAT_TTL, 3000)
        socket.setsockopt(zmq.RCVHWM, 1000)
        socket.setsockopt(zmq.SNDHWM, 64)
        socket.setsockopt(zmq.MAXMSGSIZE, 1 << 20)
        if "[" in address:
            socket.setsockopt(zmq.IPV6, 1)
        if curve is not None:
            self._keys = _CellKeys(self._context, curve, self.counters)
            self._keys.start()
            curve.apply(socket)

    def poll(self, timeout_s: float) -> list[Event]:
        """Waits for events for ``timeout_s`` at most, and takes those that are there, up to MAX_BATCH
        messages. Timers (re-send, renewal, silence) run in here: call it again and again."""
        protocol = self._protocol
        deadline = time.monotonic() + timeout_s
        while True:
            self._receive()
            now = time.monotonic()
            protocol.tick(now)
            self._flush()
            events = protocol.take_events()
            if events or now >= deadline:
                return events
            wait_s = max(0.0, min(deadline, protocol.next_due) - now)
            self._poller.poll(math.ceil(wait_s * 1e3))

    def set_quota(self, cell_id: str, quotas: Quotas, bindings: Mapping[str, str], valid_for_s: float) -> int:
        """As :meth:`RanProtocol.set_quota`, from now on; the message is on its way on return."""
        sequence = self._protocol.set_quota(cell_id, quotas, bindings, valid_for_s, time.monotonic())
        self._flush()
        return sequence

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
        self._socket.close(0)
        if self._keys is not None:
            self._keys.stop()
            self._keys = None
        self._context.destroy(0)

    def __enter__(self) -> RanLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drain(self) -> None:
        receive, protocol, now = self._socket.recv_multipart, self._protocol, time.monotonic
        for _ in range(self.MAX_BATCH):
            try:
                parts = receive(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(parts) == 2:
                protocol.receive(parts[0], parts[1], now())
            else:
                protocol.malformed(parts[0], f"a message of {len(parts) - 1} frames")

    def _drain_with_owner(self) -> None:
        for _ in range(self.MAX_BATCH):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            peer, body = parts[0].bytes, parts[-1]
            if len(parts) == 2:
                # Each message, not each connection: an identity can change hands (ROUTER_HANDOVER).
                self._protocol.receive(peer, body.bytes, time.monotonic(), str(body.get("User-Id")))
            else:
                self._protocol.malformed(peer, f"a message of {len(parts) - 1} frames")

    def _flush(self) -> None:
        for peer, data in self._protocol.take_outgoing():
            try:
                self._socket.send_multipart([peer, data], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                    raise
                self._protocol.send_failed(peer, error.strerror)
