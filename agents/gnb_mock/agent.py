"""The RAN agent's side of the RAN link, without I/O: bytes and time in, bytes and enforcement out.

The C agent inside the gNB implements this same protocol; this is its readable model. It owns no socket, no
clock and no scheduler. Its owner

* passes what arrived to :meth:`RanAgent.receive` and calls :meth:`RanAgent.tick` a few times a second or
  more, both with monotonic seconds;
* carries out :attr:`RanAgent.pending`, if there is one, at an NR slot boundary and says so with
  :meth:`RanAgent.enforced`, which makes the acknowledgement, or says with :meth:`RanAgent.not_enforceable`
  why it cannot;
* sends what :meth:`RanAgent.to_send` gives for as long as the socket takes it, and confirms each with
  :meth:`RanAgent.sent`. These messages must not be dropped;
* sends what :meth:`RanAgent.report` gives at once and says so with :meth:`RanAgent.report_sent`, or drops it;
* says with :meth:`RanAgent.not_sent` that the socket took a message not, and makes the connection anew where
  :meth:`RanAgent.reconnect` says so.

States: without a session (saying Hello until a Welcome comes) or with one. Quotas outlive a session, never
their lease.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from google.protobuf.message import DecodeError

from wire import MAX_GNB_MESSAGE_BYTES, PROTOCOL_VERSION, ran_pb2

log = logging.getLogger(__name__)

MAX_LEASE_MS = 3_600_000
REPORT_PERIOD_MS = (10, 200)
# Bounds of wire/ran.options; a string's max_size there counts a terminating zero.
MAX_SLICES = 16
MAX_BINDINGS = 64
MAX_USES = 32
MAX_NAME_BYTES = 31
MAX_PENDING_ACKS = 8

Quotas = Mapping[str, tuple[int, int]]
"""Slice to its (UL, DL) PRBs."""

_NONE: Quotas = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Cell:
    """What Hello says about the cell; ``min_prb`` is the smallest grant of its scheduler."""

    cell_id: str
    prb: int
    scs_khz: int
    tdd: ran_pb2.TddPattern
    agent_version: str
    min_prb: int = 1


@dataclass(frozen=True, slots=True)
class CellTime:
    """An NR slot boundary of the cell: system frame number, NR slot in it, CLOCK_REALTIME ns."""

    frame: int
    slot: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class Enforce:
    """Put these quotas in force; no quotas means all PRBs for everybody. ``bindings``: UE id to slice.

    ``changed`` is false where they are in force already (a renewal), so that only the use is asked for.
    """

    quotas: Quotas
    bindings: Mapping[str, str]
    session: int
    sequence: int
    changed: bool
    lapsed: bool = False


@dataclass(frozen=True, slots=True)
class _Lease:
    ends: float
    session: int
    sequence: int


class RanAgent:
    """See the module. ``now`` is monotonic seconds everywhere.

    A Hello that is not answered within ``hello_timeout_s`` is said again, then after twice the time, up to
    ``hello_backoff_s``; after a Reject it is said again every ``reject_retry_s``. A connection over which no
    Hello is answered, or nothing can be sent, for ``reconnect_s`` is to be made anew.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        hello_timeout_s: float = 1.0,
        hello_backoff_s: float = 5.0,
        reject_retry_s: float = 10.0,
        reconnect_s: float = 5.0,
    ) -> None:
        self.cell = cell
        self.counters: Counter[str] = Counter()
        self.session = 0
        self.report_period_ms = 0
        self.rejected = ""
        self.pending: Enforce | None = None
        self._hello_timeout_s = hello_timeout_s
        self._hello_backoff_s = hello_backoff_s
        self._reject_retry_s = reject_retry_s
        self._reconnect_s = reconnect_s
        self._silent_since: float | None = None
        self._hello: bytes | None = None
        self._hello_wait_s = hello_timeout_s
        self._hello_due = float("-inf")
        self._acks: deque[bytes] = deque()
        self._last_sequence = 0
        self._last_ack: bytes | None = None
        self._reports = 0
        self._lease: _Lease | None = None
        self._in_force: tuple[Quotas, Mapping[str, str]] = (_NONE, {})

    @property
    def quotas(self) -> Quotas:
        """The quotas in force."""
        return self._in_force[0]

    def lease_left(self, now: float) -> float | None:
        """Seconds until the quotas lapse, None without a lease."""
        return None if self._lease is None else self._lease.ends - now

    # ---- out --------------------------------------------------------------------------------------------

    def to_send(self) -> bytes | None:
        """The next message that must not be dropped, None where there is none. See :meth:`sent`."""
        if self._hello is not None:
            return self._hello
        return self._acks[0] if self._acks else None

    def sent(self, now: float) -> None:
        """The socket took what :meth:`to_send` gave."""
        if self._hello is not None:
            self._hello = None
            self._hello_due = now + (self._reject_retry_s if self.rejected else self._hello_wait_s)
            self._hello_wait_s = min(2 * self._hello_wait_s, self._hello_backoff_s)
        elif self._acks:
            self._acks.popleft()
        self.report_sent()

    def not_sent(self, now: float) -> None:
        """The socket did not take a message: there is no connection, or a full one."""
        if self._silent_since is None:
            self._silent_since = now

    def report_sent(self) -> None:
        """The socket took a report. Without a session only an answer shows that the controller is there."""
        if self.session:
            self._silent_since = None

    def reconnect(self, now: float) -> bool:
        """Whether the connection is to be made anew, now.

        libzmq never retries a connection whose CURVE handshake was answered by something else, and does not
        say so. It does retry one that is refused; then this does no harm.
        """
        if self._silent_since is None or now - self._silent_since < self._reconnect_s:
            return False
        self._silent_since = now
        self.counters["reconnects"] += 1
        if not self.session:
            self._hello_wait_s = self._hello_timeout_s
            self._hello_due = now
        if self._due_in_log("reconnects"):
            log.warning(
                "cell %s: no answer from the controller for %g s, connecting anew: is it there, is its key"
                " the one that this agent has, does it know the key of this cell? (reconnects: %d)",
                self.cell.cell_id,
                self._reconnect_s,
                self.counters["reconnects"],
            )
        return True

    def report(self, report: ran_pb2.MacReport) -> bytes | None:
        """Session and sequence for a report; None without a session (the report is not to be sent)."""
        if not self.session:
            return None
        self._reports += 1
        report.session = self.session
        report.sequence = self._reports
        return ran_pb2.GnbMessage(mac_report=report).SerializeToString()

    def enforced(self, at: CellTime, use: Callable[[], Iterable[ran_pb2.SliceUse]]) -> None:
        """:attr:`pending` holds from ``at`` on.

        ``use`` gives what the slices used since it was called last; it is called only where an
        acknowledgement says it. A lapse of quotas of an earlier session is not said: they have no sequence
        in this one.
        """
        done = self.pending
        if done is None:
            raise RuntimeError("nothing was to be enforced")
        self.pending = None
        self._in_force = (done.quotas, done.bindings)
        if not self.session or done.session != self.session:
            return
        uses = sorted(use(), key=lambda u: u.slice not in done.quotas)
        if len(uses) > MAX_USES:
            self.counters["uses_left_out"] += len(uses) - MAX_USES
        self._last_ack = ran_pb2.GnbMessage(
            applied=ran_pb2.Applied(
                session=self.session,
                sequence=done.sequence,
                time_ns=at.time_ns,
                frame=at.frame,
                slot=at.slot,
                in_force=[
                    ran_pb2.SliceQuota(slice=s, ul_prb=ul, dl_prb=dl) for s, (ul, dl) in done.quotas.items()
                ],
                use=uses[:MAX_USES],
                lapsed=done.lapsed,
            )
        ).SerializeToString()
        self._acknowledge(self._last_ack)

    def not_enforceable(self, why: str) -> None:
        """The scheduler cannot take :attr:`pending`: all PRBs instead, acknowledged as a lapsed lease."""
        refused = self.pending
        if refused is None:
            raise RuntimeError("nothing was to be enforced")
        self._ignore("refused_quotas", f"quota {refused.sequence} cannot be put in force: {why}")
        self._lease = None
        self._to_all_prbs(refused.session, refused.sequence)

    def _to_all_prbs(self, session: int, sequence: int) -> None:
        self.pending = Enforce(_NONE, {}, session, sequence, changed=bool(self.quotas), lapsed=True)

    def _acknowledge(self, ack: bytes) -> None:
        if len(self._acks) >= MAX_PENDING_ACKS:
            # The controller asks again for the one that it misses.
            self._acks.popleft()
            self.counters["acks_superseded"] += 1
        self._acks.append(ack)

    # ---- time -------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Say Hello when it is time, and end a lease."""
        if not self.session and self._hello is None and now >= self._hello_due:
            self._say_hello()
            self.not_sent(now)
        if self._lease is not None and now >= self._lease.ends:
            lease, self._lease = self._lease, None
            self.counters["leases_lapsed"] += 1
            log.warning(
                "cell %s: the lease of quota %d has ended, back to all PRBs",
                self.cell.cell_id,
                lease.sequence,
            )
            self._to_all_prbs(lease.session, lease.sequence)

    def _say_hello(self) -> None:
        cell = self.cell
        self._hello = ran_pb2.GnbMessage(
            hello=ran_pb2.Hello(
                protocol_version=PROTOCOL_VERSION,
                cell_id=cell.cell_id,
                prb=cell.prb,
                scs_khz=cell.scs_khz,
                tdd=cell.tdd,
                agent_version=cell.agent_version,
                min_prb=cell.min_prb,
            )
        ).SerializeToString()
        self.counters["hellos"] += 1

    # ---- in ---------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """One message of the controller. One that cannot be used is counted and changes nothing."""
        message = ran_pb2.ControllerMessage()
        try:
            if len(data) > MAX_GNB_MESSAGE_BYTES:
                raise DecodeError("too long")
            message.ParseFromString(data)
        except DecodeError as error:
            self._ignore("malformed", f"message of {len(data)} bytes: {error}")
            return
        body = message.WhichOneof("body")
        if body is not None:
            self._silent_since = None
        match body:
            case "welcome":
                self._on_welcome(message.welcome)
            case "reject":
                self._on_reject(message.reject, now)
            case "hello_request":
                self._on_hello_request(message.hello_request)
            case "set_quota":
                self._on_set_quota(message.set_quota, now)
            case "release":
                self._on_release(message.release)
            case _:
                self._ignore("malformed", "message without a known body")

    def _on_welcome(self, welcome: ran_pb2.Welcome) -> None:
        low, high = REPORT_PERIOD_MS
        if welcome.protocol_version != PROTOCOL_VERSION:
            self._ignore(
                "refused_welcomes",
                f"the controller speaks version {welcome.protocol_version}, this agent {PROTOCOL_VERSION}",
            )
            return
        if not welcome.session or not low <= welcome.report_period_ms <= high:
            self._ignore(
                "refused_welcomes",
                f"session {welcome.session}, report_period_ms {welcome.report_period_ms} (not {low}..{high})",
            )
            return
        self.report_period_ms = welcome.report_period_ms
        self.rejected = ""
        self._hello = None
        if welcome.session != self.session:
            self._end_session()
            self.session = welcome.session
            self.counters["sessions"] += 1
            log.info("cell %s: session %d", self.cell.cell_id, welcome.session)

    def _on_reject(self, reject: ran_pb2.Reject, now: float) -> None:
        self._end_session()
        self._hello = None
        self.counters["rejects"] += 1
        self.rejected = reject.reason or "no reason given"
        log.error(
            "cell %s: rejected by the controller: %s (it speaks version %d, this agent %d)",
            self.cell.cell_id,
            self.rejected,
            reject.controller_version,
            PROTOCOL_VERSION,
        )
        self._hello_due = now + self._reject_retry_s

    def _on_hello_request(self, request: ran_pb2.HelloRequest) -> None:
        self.counters["hello_requests"] += 1
        if not self.session:
            # The Hello is on its way, or its timer runs.
            return
        log.info("cell %s: the controller asks for a Hello: %s", self.cell.cell_id, request.reason)
        self._end_session()
        self._say_hello()

    def _end_session(self) -> None:
        self.session = 0
        self._last_sequence = 0
        self._last_ack = None
        self._reports = 0
        self._acks.clear()
        self._hello_wait_s = self._hello_timeout_s

    def _on_set_quota(self, quota: ran_pb2.SetQuota, now: float) -> None:
        if not self._is_new(quota.session, quota.sequence):
            return
        try:
            quotas, bindings = self._check(quota)
        except ValueError as error:
            self._ignore("refused_quotas", f"SetQuota {quota.sequence}: {error}")
            return
        self._last_sequence = quota.sequence
        self._lease = _Lease(now + quota.lease_ms / 1e3, quota.session, quota.sequence)
        self.counters["quotas"] += 1
        self.pending = Enforce(
            quotas, bindings, quota.session, quota.sequence, changed=(quotas, bindings) != self._in_force
        )

    def _on_release(self, release: ran_pb2.Release) -> None:
        if not self._is_new(release.session, release.sequence):
            return
        self._last_sequence = release.sequence
        self._lease = None
        self.counters["releases"] += 1
        self.pending = Enforce(_NONE, {}, release.session, release.sequence, changed=bool(self.quotas))

    def _is_new(self, session: int, sequence: int) -> bool:
        if not self.session or session != self.session:
            self._ignore("wrong_session", f"session {session}, not {self.session}")
            return False
        if sequence > self._last_sequence:
            return True
        if sequence == self._last_sequence and sequence:
            self.counters["repeated_sequence"] += 1
            # With an enforcement under way its acknowledgement comes by itself.
            if self.pending is None and self._last_ack is not None and self._last_ack not in self._acks:
                self._acknowledge(self._last_ack)
            return False
        self._ignore("old_sequence", f"sequence {sequence} after {self._last_sequence}")
        return False

    def _check(self, quota: ran_pb2.SetQuota) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
        if not 0 < quota.lease_ms <= MAX_LEASE_MS:
            raise ValueError(f"lease_ms: {quota.lease_ms} is not in 1..{MAX_LEASE_MS}")
        if len(quota.quotas) > MAX_SLICES:
            raise ValueError(f"quotas: {len(quota.quotas)} slices, {MAX_SLICES} at most")
        if len(quota.bindings) > MAX_BINDINGS:
            raise ValueError(f"bindings: {len(quota.bindings)} UEs, {MAX_BINDINGS} at most")
        quotas: dict[str, tuple[int, int]] = {}
        for q in quota.quotas:
            _check_name("quotas.slice", q.slice)
            if q.slice in quotas:
                raise ValueError(f"quotas: slice {q.slice!r} is named twice")
            if max(q.ul_prb, q.dl_prb) > self.cell.prb:
                raise ValueError(
                    f"quotas: slice {q.slice!r} is given {q.ul_prb} UL and {q.dl_prb} DL PRB, "
                    f"the carrier has {self.cell.prb}"
                )
            quotas[q.slice] = (q.ul_prb, q.dl_prb)
        bindings: dict[str, str] = {}
        for b in quota.bindings:
            _check_name("bindings.ue_id", b.ue_id)
            if b.slice:
                _check_name("bindings.slice", b.slice)
            if b.ue_id in bindings:
                raise ValueError(f"bindings: UE {b.ue_id!r} is named twice")
            bindings[b.ue_id] = b.slice
        return quotas, bindings

    def _ignore(self, counter: str, why: str) -> None:
        self.counters[counter] += 1
        if self._due_in_log(counter):
            log.warning(
                "cell %s: %s, message ignored (%s: %d)",
                self.cell.cell_id,
                why,
                counter,
                self.counters[counter],
            )

    def _due_in_log(self, counter: str) -> bool:
        """Every power of two: a peer that errs for hours must not fill the disk."""
        return self.counters[counter] & (self.counters[counter] - 1) == 0


def _check_name(place: str, name: str) -> None:
    if not name:
        raise ValueError(f"{place}: empty")
    if "\0" in name:
        raise ValueError(f"{place}: {name!r} has a zero byte, which ends a name in C")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"{place}: {name!r} is longer than {MAX_NAME_BYTES} bytes")
