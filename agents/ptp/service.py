"""The PTP agent: polls ptp4l, tells the controller and Prometheus."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter as Counts
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from prometheus_client import Counter, Gauge

from agents.links.qos import Outbox, QosPublisher
from agents.ptp.client import SOCKETS, PtpClient, PtpError, PtpReading
from agents.ptp.messages import STATES, identity
from agents.ptp.phc import Phc, PhcError
from agents.ptp.watch import NONE, Status, Watch
from wire import qos_pb2, security
from wire.exposition import MetricsServer
from wire.families import Registry
from wire.roles import CLOCK_STREAM

log = logging.getLogger(__name__)


class LatestStatus(Outbox):
    """Holds the latest status alone: an older one would be told as news after an outage."""

    def __init__(self) -> None:
        super().__init__()
        self._latest: qos_pb2.QosMessage | None = None

    def __len__(self) -> int:
        return self._latest is not None

    def put(self, message: qos_pb2.QosMessage) -> None:
        self._latest = message

    def next(self, now: float) -> qos_pb2.QosMessage | None:
        message, self._latest = self._latest, None
        return message

    def rewind(self) -> list[qos_pb2.QosMessage]:
        return []


class PtpMetrics:
    """What the agent exports; a value that is not known is NaN, never the last one that was."""

    def __init__(self, host: str) -> None:
        self.registry = registry = Registry()

        def gauge(name: str, text: str) -> Gauge:
            return registry.gauge(f"ptp_{name}", text, "host").labels(host)

        def counter(name: str, text: str) -> Counter:
            return registry.counter(f"ptp_{name}", text, "host").labels(host)

        self.up = gauge("up", "1 while ptp4l answers")
        self.synchronised = gauge("synchronised", "1 while the host vouches for its clock")
        self.offset = gauge(
            "offset_seconds", "Offset from the master of the clock that ptp4l steers, seconds"
        )
        self.system_offset = gauge(
            "system_offset_seconds", "System clock less the clock that ptp4l steers, seconds"
        )
        self.path_delay = gauge("path_delay_seconds", "Mean path delay to the master, seconds")
        self.steps_removed = gauge("steps_removed", "Boundary clocks up to the grandmaster, and one")
        self.last_reading = gauge("last_reading_timestamp_seconds", "Unix time of ptp4l's last answer")
        self.grandmaster_changes = counter("grandmaster_changes_total", "Changes of the grandmaster")
        self.read_errors = counter("read_errors_total", "Readings of ptp4l or of the PHC that failed")
        self._state = registry.gauge(
            "ptp_port_state",
            "1 for the state of the PTP port, 0 for the others; NONE where ptp4l does not tell",
            *("host", "state"),
        )
        self._grandmaster = registry.gauge(
            "ptp_grandmaster", "1 for the grandmaster that the host follows", "host", "identity"
        )
        self._host = host
        self._changes = 0

    def take(
        self, reading: PtpReading | None, system_offset_ns: float | None, status: Status, changes: int
    ) -> None:
        """The outcome of one poll; ``changes`` of the grandmaster since the start."""
        nan = math.nan
        self.up.set(reading is not None)
        self.synchronised.set(status.synchronised)
        for state in (NONE, *STATES.values()):
            self._state.labels(self._host, state).set(state == (reading.state if reading else NONE))
        followed = reading if reading and reading.follows else None
        known = followed if status.state != NONE else None
        self.offset.set(known.offset_ns / 1e9 if known else nan)
        self.path_delay.set(known.path_delay_ns / 1e9 if known else nan)
        self.system_offset.set(nan if system_offset_ns is None else system_offset_ns / 1e9)
        self.steps_removed.set(followed.steps_removed if followed else nan)
        self._grandmaster.clear()
        if followed:
            self._grandmaster.labels(self._host, identity(followed.grandmaster)).set(1)
        if reading:
            self.last_reading.set(time.time())
        self.grandmaster_changes.inc(changes - self._changes)
        self._changes = changes


class PtpAgent:
    """Tells the controller every ``interval_s`` what this host's clock is worth.

    ``host`` is the host's name as its OpenRTiST client or server reports frames under; ``cells`` the cells
    whose frames its clock stamps. Without an ``address`` nothing is told to a controller. ``phc``, where
    given, is the clock that ptp4l steers; without it ptp4l steers the system clock itself (software time
    stamps). The other options are those of :class:`PtpClient` and :class:`Watch`.

    An error is told as state NONE, logged when it changes, and counted; the agent goes on for ever.
    """

    def __init__(
        self,
        *,
        host: str,
        cells: Sequence[str] = (),
        address: str | None = None,
        tls: security.Tls | None = None,
        metrics_address: str | None = None,
        sockets: Sequence[Path] = SOCKETS,
        domain: int | None = None,
        transport_specific: int | None = None,
        reply_dir: Path | None = None,
        phc: Path | None = None,
        grandmaster: bool = False,
        follow: Collection[str] = (),
        interval_s: float = 1.0,
        silence_s: float = 3.0,
        timeout_s: float = 0.5,
    ) -> None:
        if not 0 < interval_s <= threading.TIMEOUT_MAX:
            raise ValueError(f"--interval: {interval_s!r} s is not a positive time that can be waited for")
        if address and not cells:
            raise ValueError("--cell: the controller is told of a cell's clocks; name one")
        self.host = host
        self._interval_s = interval_s
        self._watch = Watch(grandmaster=grandmaster, follow=follow, silence_s=silence_s)
        self._client = PtpClient(
            sockets,
            domain=domain,
            transport_specific=transport_specific,
            timeout_s=timeout_s,
            reply_dir=reply_dir,
        )
        self._phc = Phc(phc) if phc else None
        self.metrics = PtpMetrics(host)
        self._logged: tuple[str, str] | None = None
        self._where = self._client.domain, self._client.transport_specific
        self.counters: Counts[str] = Counts()
        self.status = self._watch.failed("not read yet")
        # The name of a stream is another than that of the host's frames: either may end by itself.
        self._publishers = [
            QosPublisher(address, tls, cell_id=cell, host=f"{CLOCK_STREAM}{host}", outbox=LatestStatus())
            for cell in cells
            if address
        ]
        self._served = MetricsServer(self.metrics.registry, metrics_address, tls) if metrics_address else None
        for publisher in self._publishers:
            publisher.start()

    @property
    def connected(self) -> bool:
        """Whether every controller listens."""
        return all(p.connected for p in self._publishers)

    def run(
        self,
        stop: threading.Event,
        *,
        duration_s: float = math.inf,
        beat: Callable[[], None] | None = None,
    ) -> None:
        """Poll until ``stop`` is set or the time is over; ``beat`` is called after every poll."""
        next_poll = time.monotonic()
        end = next_poll + duration_s
        while not stop.is_set() and time.monotonic() < end:
            self.poll()
            if beat:
                beat()
            next_poll = max(next_poll + self._interval_s, time.monotonic())
            stop.wait(max(0.0, min(next_poll, end) - time.monotonic()))

    def poll(self) -> Status:
        """Read once and tell."""
        reading: PtpReading | None = None
        system_ns: float | None = None
        try:
            reading = self._client.read()
            if self._phc:
                system_ns = self._phc.compare(reading.utc_offset_s).offset_ns
            self.status = self._watch.update(reading, time.monotonic(), system_offset_ns=system_ns or 0.0)
            self.counters["readings"] += 1
        except (PtpError, PhcError) as error:
            self.counters["read_errors"] += 1
            self.metrics.read_errors.inc()
            self.status = self._watch.failed(str(error))
        self.metrics.take(reading, system_ns, self.status, self._watch.grandmaster_changes)
        self._log(self.status)
        message = qos_pb2.QosMessage(clock=self._message(self.status))
        for publisher in self._publishers:
            publisher.put(message)
        return self.status

    def _message(self, status: Status) -> qos_pb2.ClockStatus:
        return qos_pb2.ClockStatus(
            host=self.host,
            ptp_state=status.state,
            offset_ns=status.offset_ns,
            path_delay_ns=status.path_delay_ns,
            time_ns=time.time_ns(),
            grandmaster=status.grandmaster,
        )

    def _log(self, status: Status) -> None:
        """One line where state, grandmaster or the kind of trouble changes, none for its numbers."""
        where = self._client.domain, self._client.transport_specific
        if where != self._where:
            self._where = where
            log.info("%s: ptp4l answers in domain %d, transportSpecific %d", self.host, *where)
        current = (status.state, status.grandmaster)
        if current == self._logged:
            return
        self._logged = current
        if status.synchronised:
            log.info(
                "%s: %s, grandmaster %s, offset %.0f ns",
                self.host,
                status.state,
                status.grandmaster,
                status.offset_ns,
            )
        else:
            log.warning("%s: not synchronised: %s", self.host, status.reason or status.state)

    def close(self) -> None:
        """End; the controller takes the clock for unknown when it has heard nothing for long. May be called
        twice."""
        for publisher in self._publishers:
            publisher.close()
        self._publishers = []
        if self._served:
            self._served.close()
        self._client.close()
        if self._phc:
            self._phc.close()
