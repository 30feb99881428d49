"""RAN link: the controller's side of wire/ran.proto, without sockets, threads or clocks.

Bytes and times go in, events and replies come out. Times are monotonic seconds; the messages themselves carry
CLOCK_REALTIME nanoseconds.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from controller.links import codec
from controller.links.codec import BadReport, CellFacts
from controller.links.counters import Complaints, Counters
from wire import MAX_RAN_MESSAGE_BYTES, PROTOCOL_VERSION, ran_pb2

log = logging.getLogger(__name__)

RESEND_S = 0.1
RESEND_MAX_S = 1.0
HELLO_REQUEST_EVERY_S = 1.0
SESSION_EVERY_S = 2.0
SESSION_BURST = 4
"""A cell gets so many sessions in a row, then one every SESSION_EVERY_S; a Hello beyond has no answer."""
CHALLENGE_S = 0.5
"""A second Hello of a connection that wants the cell of a live session decides, this long after its first."""
MAX_SEQUENCE_GAP = 1 << 20
_HISTORY = 64
_MAX_STRANGERS = 4096
_MAX_CHALLENGERS = 16

Quotas = Mapping[str, tuple[int, int]]
"""Slice -> (UL, DL) PRBs; a slice that is not named has no quota."""


class CellNotConnected(LookupError):
    """There is no live session with that cell."""


# ---- events ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CellJoined:
    """A cell has a new session; it has no quotas from it yet, and what was wanted before is forgotten."""

    cell_id: str
    session: int
    facts: CellFacts


@dataclass(frozen=True, slots=True)
class CellLost:
    """The session of a cell is over. The gNB returns to all PRBs when its lease ends."""

    cell_id: str
    why: str


@dataclass(frozen=True, slots=True)
class RawReport:
    """A MacReport of a live session, in order; its UEs have not been looked at."""

    cell_id: str
    message: ran_pb2.MacReport
    received_mono: float


@dataclass(frozen=True, slots=True)
class QuotaApplied:
    """The cell says which quotas are in force since the time, frame and NR slot in ``message``.

    ``first`` marks the first acknowledgement of the latest :meth:`RanLink.set_quota` or
    :meth:`RanLink.release`; without it the message answers a renewal, a re-send or a superseded quota.
    """

    cell_id: str
    sequence: int
    message: ran_pb2.Applied
    first: bool
    quotas: Quotas


@dataclass(frozen=True, slots=True)
class QuotaNotHonoured:
    """Acknowledged but not so: new transmissions took ``used`` PRBs where ``asked`` was the quota.

    Also raised where the acknowledgement itself says another quota than the one asked for: ``used`` is
    then the quota in force. ``direction`` is ``"ul"`` or ``"dl"``, ``sequence`` that of the message whose
    quota was not kept.
    """

    cell_id: str
    slice: str
    direction: str
    quota: int
    used: int
    sequence: int


@dataclass(frozen=True, slots=True)
class LeaseLapsed:
    """The cell is back at all PRBs since the lease of its quotas ended."""

    cell_id: str


Event = CellJoined | CellLost | RawReport | QuotaApplied | QuotaNotHonoured | LeaseLapsed


# ---- protocol core --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Wanted:
    """The latest set_quota or release. ``bound`` holds its UE bindings, None for a release."""

    quotas: dict[str, tuple[int, int]]
    bound: ran_pb2.ControllerMessage | None
    valid_until: float
    first_sequence: int
    renew_at: float
    acknowledged: bool = False


@dataclass(slots=True)
class _Pending:
    """The latest message that is not acknowledged."""

    sequence: int
    data: bytes
    retry_at: float
    delay: float = RESEND_S


@dataclass(slots=True)
class _Cell:
    facts: CellFacts
    peer: bytes
    session: int
    last_message: float
    last_report: float
    challengers: dict[bytes, float] = field(default_factory=dict)
    report_sequence: int | None = None
    report_time_ns: int = 0
    sequence: int = 0
    applied: int = 0
    in_force_known: bool = False
    sent: dict[int, dict[str, tuple[int, int]]] = field(default_factory=dict)
    wanted: _Wanted | None = None
    pending: _Pending | None = None
    bindings: dict[str, str] = field(default_factory=dict)
    bound: ran_pb2.ControllerMessage = field(default_factory=ran_pb2.ControllerMessage)


def _new_session() -> int:
    # Random, so that a report to a controller that was restarted never fits by chance.
    return secrets.randbits(62) + 1


class RanProtocol:
    """The state of every cell's session.

    ``receive`` and ``tick`` never raise for what a peer sent: it is counted, named in the log now and
    then, and answered where the contract has an answer.

    Args:
        report_period_ms: asked of every gNB, 10..200 ms.
        lease_s: lease of every quota; renewed every third of it.
        expected_cells: cell ids that may join; None: any.
        counters: where to count; see :data:`COUNTERS`.
        new_session: draws session ids above 0.
    """

    def __init__(
        self,
        *,
        report_period_ms: int,
        lease_s: float,
        expected_cells: Collection[str] | None = None,
        counters: Counters | None = None,
        new_session: Callable[[], int] = _new_session,
    ) -> None:
        if not 10 <= report_period_ms <= 200:
            raise ValueError(f"report_period_ms {report_period_ms} is outside 10..200")
        self.counters = counters or Counters()
        self._complain = Complaints(self.counters, log)
        self._report_period_ms = report_period_ms
        self._lease_s = codec.checked_lease(lease_s)
        self._lease_ms = round(lease_s * 1e3)
        self._silence_s = max(2.0, 10 * report_period_ms / 1e3)
        self._expected = None if expected_cells is None else frozenset(expected_cells)
        self._new_session = new_session
        self._cells: dict[str, _Cell] = {}
        self._by_peer: dict[bytes, _Cell] = {}
        self._by_session: dict[int, _Cell] = {}
        self._session_credit: dict[str, tuple[float, float]] = {}
        self._hello_requested: dict[bytes, float] = {}
        self._events: list[Event] = []
        self._outgoing: list[tuple[bytes, bytes]] = []
        self._due = math.inf

    # -- what the controller asks --

    def set_quota(
        self,
        cell_id: str,
        quotas: Quotas,
        bindings: Mapping[str, str],
        valid_for_s: float,
        now: float,
    ) -> int:
        """Sends quotas, re-sends them until acknowledged and renews their lease for ``valid_for_s``.

        ``quotas``: slice -> (UL, DL) PRBs; ``bindings``: UE id -> slice. Supersedes what was asked before.
        Returns the sequence of the message.

        Raises:
            CellNotConnected: no live session.
            ValueError: names the slice, UE or number that cannot be sent. Nothing has been sent then.
        """
        cell = self._cell(cell_id)
        self._check_quotas(cell, quotas)
        bound = self._bind(cell, bindings)
        if not (math.isfinite(valid_for_s) and valid_for_s > 0):
            raise ValueError(f"cell {cell_id}: valid_for_s {valid_for_s} is not a time to come")
        cell.wanted = _Wanted(
            dict(quotas), bound, now + valid_for_s, cell.sequence + 1, now + self._lease_s / 3
        )
        return self._send_wanted(cell, cell.wanted, now)

    def set_lease(self, lease_s: float, now: float) -> None:
        """Another lease for every quota from now on; those that are wanted are renewed with it at once.

        ValueError as for the class.
        """
        self._lease_s = codec.checked_lease(lease_s)
        self._lease_ms = round(lease_s * 1e3)
        for cell_id in self._cells:
            self.renew(cell_id, now)

    def renew(self, cell_id: str, now: float) -> None:
        """Renews the lease at once, so that the acknowledgement says what was used up to now.

        Nothing happens where the cell has no session or no quotas that are still valid.
        """
        cell = self._cells.get(cell_id)
        wanted = cell.wanted if cell else None
        if cell and wanted is not None and wanted.bound is not None and now < wanted.valid_until:
            wanted.renew_at = now + self._lease_s / 3
            self.counters.inc("ran_renewals_total", cell_id)
            self._send_wanted(cell, wanted, now)

    def release(self, cell_id: str, now: float) -> int:
        """Back to all PRBs; re-sent until acknowledged. Returns the sequence of the message.

        Raises:
            CellNotConnected: no live session.
        """
        cell = self._cell(cell_id)
        cell.wanted = _Wanted({}, None, math.inf, cell.sequence + 1, math.inf)
        return self._send_wanted(cell, cell.wanted, now)

    def unacknowledged(self, cell_id: str) -> bool:
        """Whether the latest quota or release of a connected cell awaits its acknowledgement."""
        cell = self._cells.get(cell_id)
        return cell is not None and cell.pending is not None

    @property
    def cells(self) -> dict[str, CellFacts]:
        """The cells that have a live session."""
        return {cell_id: cell.facts for cell_id, cell in self._cells.items()}

    # -- what comes in, what goes out --

    def take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def take_outgoing(self) -> list[tuple[bytes, bytes]]:
        """``(peer, message)`` in the order in which they are to be sent."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def send_failed(self, peer: bytes, why: str) -> None:
        """A message did not go out. Quotas and releases are sent again by the re-send timer."""
        cell = self._by_peer.get(peer)
        self._complain("ran_send_failed_total", f"a message was not sent: {why}", _id(cell))

    @property
    def next_due(self) -> float:
        """When :meth:`tick` has something to do at the earliest."""
        return self._due

    def receive(self, peer: bytes, data: bytes, now: float, owner: str | None = None) -> None:
        """Takes one message.

        ``peer`` is the connection's identity, ``owner`` the cell whose key the connection proved (None
        where connections prove nothing).
        """
        if len(data) > MAX_RAN_MESSAGE_BYTES:
            self._malformed(peer, f"{len(data)} bytes, more than {MAX_RAN_MESSAGE_BYTES}")
            return
        try:
            message = ran_pb2.GnbMessage.FromString(data)
        except DecodeError:
            self._malformed(peer, f"{len(data)} bytes are not a GnbMessage")
            return
        body = message.WhichOneof("body")
        if body == "mac_report":
            report = message.mac_report
            cell = self._session(peer, report.session, now, owner)
            if cell is not None:
                self._report(cell, report, now)
        elif body == "applied":
            applied = message.applied
            cell = self._session(peer, applied.session, now, owner)
            if cell is not None:
                self._applied(cell, applied)
        elif body == "hello":
            self._hello(peer, message.hello, now, owner)
        else:
            self._malformed(peer, "a GnbMessage without a body that this version knows")

    def malformed(self, peer: bytes, why: str) -> None:
        """The shell received something that is not one frame of one message."""
        self._malformed(peer, why)

    def tick(self, now: float) -> None:
        """Re-sends, renews and finds silent cells."""
        if now < self._due:
            return
        self._due = math.inf
        for cell in list(self._cells.values()):
            if now - cell.last_report >= self._silence_s:
                # One that acknowledges and does not report is no better: nobody knows what its UEs need.
                self.counters.inc("ran_cells_lost_total", cell.facts.cell_id)
                silent = now - cell.last_message >= self._silence_s
                what = "silent" if silent else "no MAC report"
                self._lose(cell, f"{what} for {now - cell.last_report:.1f} s")
                continue
            wanted, pending = cell.wanted, cell.pending
            if wanted is not None and now >= wanted.valid_until:
                # Neither renewed nor sent again: whoever should have decided anew has not.
                self.counters.inc("ran_quota_expired_total", cell.facts.cell_id)
                cell.wanted = cell.pending = None
            elif wanted is not None and now >= wanted.renew_at:
                wanted.renew_at = now + self._lease_s / 3
                self.counters.inc("ran_renewals_total", cell.facts.cell_id)
                self._send_wanted(cell, wanted, now)
            elif pending is not None and now >= pending.retry_at:
                pending.delay = min(2 * pending.delay, RESEND_MAX_S)
                pending.retry_at = now + pending.delay
                self.counters.inc("ran_resends_total", cell.facts.cell_id)
                self._outgoing.append((cell.peer, pending.data))
            self._schedule(cell)

    # -- sessions --

    def _hello(self, peer: bytes, hello: ran_pb2.Hello, now: float, owner: str | None) -> None:
        agent_version = hello.protocol_version
        if agent_version != PROTOCOL_VERSION:
            self._reject(
                peer,
                agent_version,
                "ran_version_mismatch_total",
                f"protocol version {agent_version} of the gNB is not version {PROTOCOL_VERSION} of the"
                " controller",
            )
            return
        try:
            facts = codec.open_hello(hello)
        except BadReport as error:
            self._reject(peer, agent_version, "ran_bad_hello_total", str(error))
            return
        cell_id = facts.cell_id
        if owner is not None and owner != cell_id:
            self._reject(
                peer,
                agent_version,
                "ran_wrong_key_total",
                f"cell {cell_id!r} with the key of cell {owner}",
                owner,
            )
            return
        if self._expected is not None and cell_id not in self._expected:
            self._reject(peer, agent_version, "ran_unknown_cell_total", f"cell {cell_id!r} is not known here")
            return
        cell = self._cells.get(cell_id)
        # A Hello that was repeated before the Welcome came gets the same session.
        repeated = (
            cell is not None
            and cell.peer == peer
            and cell.facts == facts
            and cell.report_sequence is None
            and not cell.applied
        )
        if cell is None or not repeated:
            if cell is not None and cell.peer != peer and not self._yields(cell, peer, agent_version, now):
                return
            if not self._may_have_session(cell_id, now):
                return
            if cell is not None:
                self._lose(
                    cell, "taken over by another connection" if cell.peer != peer else "said Hello again"
                )
            other = self._by_peer.get(peer)
            if other is not None:
                self._lose(other, f"its connection now says that it is cell {cell_id}")
            cell = _Cell(facts, peer, self._new_session(), now, now)
            self._cells[cell_id] = self._by_peer[peer] = cell
            self._by_session[cell.session] = cell
            self.counters.inc("ran_sessions_total", cell_id)
            self._events.append(CellJoined(cell_id, cell.session, facts))
        cell.last_message = now
        self._schedule(cell)
        self._stranger(peer, now)
        self.counters.inc("ran_welcomes_total", cell_id)
        self._reply(
            peer,
            welcome=ran_pb2.Welcome(
                session=cell.session,
                protocol_version=PROTOCOL_VERSION,
                report_period_ms=self._report_period_ms,
                lease_ms=self._lease_ms,
            ),
        )

    def _may_have_session(self, cell_id: str, now: float) -> bool:
        """Takes one from the sessions that the cell may still have: each costs a line and a record."""
        credit, since = self._session_credit.get(cell_id, (float(SESSION_BURST), now))
        credit = min(SESSION_BURST, credit + (now - since) / SESSION_EVERY_S)
        if credit < 1.0:
            self._session_credit[cell_id] = credit, now
            self._complain("ran_early_hellos_total", "another Hello, too soon after the last ones", cell_id)
            return False
        if len(self._session_credit) >= _MAX_STRANGERS:
            self._session_credit.clear()
        self._session_credit[cell_id] = credit - 1.0, now
        return True

    def _yields(self, cell: _Cell, peer: bytes, agent_version: int, now: float) -> bool:
        """Whether another connection may have the cell of a live session.

        Its first Hello has no answer: a gNB that was restarted repeats it, and nothing more has come from the
        connection that it had before. Where something has, there are two of one name: the first stays, and
        every later Hello of the other has a Reject.
        """
        first = cell.challengers.get(peer)
        if first is None or now - first < CHALLENGE_S:
            if len(cell.challengers) >= _MAX_CHALLENGERS:
                cell.challengers.clear()
            cell.challengers.setdefault(peer, now)
            self.counters.inc("ran_challenges_total", cell.facts.cell_id)
            return False
        if cell.last_message <= first:
            self._complain(
                "ran_takeovers_total",
                "another connection is this cell, the first is silent",
                cell.facts.cell_id,
            )
            return True
        cell.challengers[peer] = now
        self._reject(
            peer,
            agent_version,
            "ran_cell_in_use_total",
            f"cell {cell.facts.cell_id!r} is in use: another gNB with this cell id is connected and is heard",
            cell.facts.cell_id,
        )
        return False

    def _session(self, peer: bytes, session: int, now: float, owner: str | None) -> _Cell | None:
        """The cell of a live session; asks for a Hello where there is none."""
        cell = self._by_peer.get(peer)
        moved = self._by_session.get(session) if cell is None else None
        if moved is not None and owner in (None, moved.facts.cell_id):
            # The same gNB over another connection: only it knows its session.
            self._move(moved, peer)
            cell = moved
        if cell is not None and owner is not None and owner != cell.facts.cell_id:
            self._complain("ran_wrong_key_total", f"a message with the key of cell {owner}", _id(cell))
            return None
        if cell is not None and session == cell.session:
            cell.last_message = now
            return cell
        self.counters.inc("ran_no_session_total", _id(cell))
        requested = self._hello_requested.get(peer)
        if requested is None or now - requested >= HELLO_REQUEST_EVERY_S:
            self._stranger(peer, now)
            why = "no session" if cell is None or not session else f"session {session} is over"
            self._reply(peer, hello_request=ran_pb2.HelloRequest(reason=why))
        return None

    def _move(self, cell: _Cell, peer: bytes) -> None:
        self.counters.inc("ran_reconnects_total", cell.facts.cell_id)
        del self._by_peer[cell.peer]
        cell.peer = peer
        self._by_peer[peer] = cell

    def _stranger(self, peer: bytes, now: float) -> None:
        """Notes when a peer was last told to say Hello, or welcomed."""
        if len(self._hello_requested) >= _MAX_STRANGERS:
            self._hello_requested = {
                p: t for p, t in self._hello_requested.items() if now - t < HELLO_REQUEST_EVERY_S
            }
            if len(self._hello_requested) >= _MAX_STRANGERS:
                self._hello_requested.clear()
        self._hello_requested[peer] = now

    def _lose(self, cell: _Cell, why: str) -> None:
        del self._cells[cell.facts.cell_id]
        del self._by_peer[cell.peer]
        del self._by_session[cell.session]
        self._hello_requested.pop(cell.peer, None)
        self._events.append(CellLost(cell.facts.cell_id, why))

    def _cell(self, cell_id: str) -> _Cell:
        try:
            return self._cells[cell_id]
        except KeyError:
            raise CellNotConnected(f"cell {cell_id} is not connected") from None

    # -- reports and acknowledgements --

    def _report(self, cell: _Cell, report: ran_pb2.MacReport, now: float) -> None:
        cell_id = cell.facts.cell_id
        sequence, time_ns = report.sequence, report.time_ns
        last = cell.report_sequence
        if last is not None:
            gap = sequence - last
            if gap <= 0:
                self._complain(
                    "ran_sequence_backwards_total",
                    f"MacReport: sequence {sequence} after {last}",
                    cell_id,
                )
                return
            if gap > MAX_SEQUENCE_GAP:
                self._complain(
                    "ran_sequence_jump_total", f"MacReport: sequence {sequence} after {last}", cell_id
                )
                return
            if gap > 1:
                self.counters.inc("ran_reports_lost_total", cell_id, gap - 1)
        cell.report_sequence = sequence
        before, cell.report_time_ns = cell.report_time_ns, time_ns
        if time_ns < before:
            # Only this one: a clock that was set back must not silence the cell for as long.
            self._complain(
                "ran_time_backwards_total",
                f"MacReport {sequence}: time_ns {time_ns} after {before}",
                cell_id,
            )
            return
        cell.last_report = now
        self.counters.inc("ran_reports_total", cell_id)
        self._events.append(RawReport(cell_id, report, now))

    def _applied(self, cell: _Cell, message: ran_pb2.Applied) -> None:
        cell_id = cell.facts.cell_id
        sequence = message.sequence
        try:
            in_force = codec.check_applied(message, cell.facts)
            if not 0 < sequence <= cell.sequence:
                raise BadReport(f"Applied: sequence {sequence}, but the last one sent was {cell.sequence}")
        except BadReport as error:
            self._complain("ran_bad_applied_total", str(error), cell_id)
            return
        if sequence < cell.applied:
            self.counters.inc("ran_stale_applied_total", cell_id)
            return
        if sequence == cell.applied and not (message.lapsed and cell.in_force_known):
            self.counters.inc("ran_repeated_applied_total", cell_id)
            return
        self.counters.inc("ran_applied_total", cell_id)
        if message.lapsed:
            cell.in_force_known = False
            cell.applied = sequence
            self.counters.inc("ran_leases_lapsed_total", cell_id)
            self._events.append(LeaseLapsed(cell_id))
            return
        over = self._over_quota(cell, message) if sequence > cell.applied else {}
        blamed = dict.fromkeys(over, cell.applied)
        differ = self._differences(cell, sequence, in_force)
        blamed |= dict.fromkeys(differ, sequence)
        for (slice_, direction), (quota, used) in (over | differ).items():
            self._complain(
                "ran_quota_not_honoured_total",
                f"slice {slice_!r} {direction}: asked for {quota} PRB, {used} used",
                cell_id,
            )
            which = blamed[slice_, direction]
            self._events.append(QuotaNotHonoured(cell_id, slice_, direction, quota, used, which))
        if sequence > cell.applied:
            cell.applied = sequence
            cell.in_force_known = True
            cell.sent = {s: q for s, q in cell.sent.items() if s >= sequence}
        wanted = cell.wanted
        first = wanted is not None and not wanted.acknowledged and sequence >= wanted.first_sequence
        if wanted is not None and first:
            wanted.acknowledged = True
        if cell.pending is not None and sequence >= cell.pending.sequence:
            cell.pending = None
        self._events.append(QuotaApplied(cell_id, sequence, message, first, in_force))

    def _over_quota(self, cell: _Cell, message: ran_pb2.Applied) -> dict[tuple[str, str], tuple[int, int]]:
        """(slice, direction) -> (asked, used) of the interval that a new Applied covers.

        The use is that since the Applied before. Its quotas are known where that one came here, and where
        all quotas that may have been applied in between were the same.
        """
        quotas = cell.sent.get(cell.applied) if cell.in_force_known else None
        over: dict[tuple[str, str], tuple[int, int]] = {}
        if not quotas or any(cell.sent.get(s) != quotas for s in range(cell.applied + 1, message.sequence)):
            return over
        for use in message.use:
            quota = quotas.get(use.slice)
            if quota is None:
                continue
            direction, limit = ("ul", quota[0]) if use.direction == ran_pb2.UL else ("dl", quota[1])
            # A slice with less than the smallest grant gets one for its signalling.
            if use.max_new_prb > max(limit, cell.facts.min_prb):
                over[use.slice, direction] = (limit, use.max_new_prb)
        return over

    @staticmethod
    def _differences(cell: _Cell, sequence: int, in_force: Quotas) -> dict[tuple[str, str], tuple[int, int]]:
        """(slice, direction) -> (asked, in force) where an Applied says another quota than was asked."""
        sent = cell.sent.get(sequence)
        if sent is None or sent == in_force:
            return {}
        everything = (cell.facts.n_prb, cell.facts.n_prb)
        return {
            (slice_, direction): (a, f)
            for slice_ in dict.fromkeys((*sent, *in_force))
            for direction, a, f in zip(
                ("ul", "dl"), sent.get(slice_, everything), in_force.get(slice_, everything), strict=True
            )
            if a != f
        }

    # -- sending --

    def _send_wanted(self, cell: _Cell, wanted: _Wanted, now: float) -> int:
        cell.sequence += 1
        sequence = cell.sequence
        if wanted.bound is None:
            release = ran_pb2.Release(session=cell.session, sequence=sequence)
            data = ran_pb2.ControllerMessage(release=release).SerializeToString()
        else:
            quota = wanted.bound.set_quota
            quota.session = cell.session
            quota.sequence = sequence
            quota.lease_ms = self._lease_ms
            del quota.quotas[:]
            for slice_, (ul_prb, dl_prb) in wanted.quotas.items():
                quota.quotas.add(slice=slice_, ul_prb=ul_prb, dl_prb=dl_prb)
            data = wanted.bound.SerializeToString()
        cell.sent[sequence] = wanted.quotas
        if len(cell.sent) > _HISTORY:
            del cell.sent[next(iter(cell.sent))]
        cell.pending = _Pending(sequence, data, now + RESEND_S)
        self._outgoing.append((cell.peer, data))
        self._schedule(cell)
        return sequence

    def _schedule(self, cell: _Cell) -> None:
        due = cell.last_report + self._silence_s
        if cell.pending is not None:
            due = min(due, cell.pending.retry_at)
        if cell.wanted is not None:
            due = min(due, cell.wanted.renew_at, cell.wanted.valid_until)
        self._due = min(self._due, due)

    def _reply(self, peer: bytes, **body: Any) -> None:
        self._outgoing.append((peer, ran_pb2.ControllerMessage(**body).SerializeToString()))

    def _reject(self, peer: bytes, agent_version: int, counter: str, reason: str, cell_id: str = "") -> None:
        self._complain(counter, f"Hello refused: {reason}", cell_id)
        bounded = reason.encode()[:127].decode(errors="ignore")
        self._reply(
            peer,
            reject=ran_pb2.Reject(
                reason=bounded, controller_version=PROTOCOL_VERSION, agent_version=agent_version
            ),
        )

    def _malformed(self, peer: bytes, why: str) -> None:
        cell = self._by_peer.get(peer)
        self._complain("ran_malformed_total", f"connection {peer.hex()}: {why}", _id(cell))

    def _check_quotas(self, cell: _Cell, quotas: Quotas) -> None:
        place = f"cell {cell.facts.cell_id}"
        if len(quotas) > codec.MAX_SLICES:
            raise ValueError(f"{place}: {len(quotas)} quotas, more than {codec.MAX_SLICES} slices")
        for slice_, prbs in quotas.items():
            if not slice_ or len(slice_.encode()) > codec.MAX_NAME:
                raise ValueError(f"{place}: slice {slice_!r} is empty or longer than {codec.MAX_NAME} bytes")
            for direction, prb in zip(("UL", "DL"), prbs, strict=True):
                if not 0 <= prb <= cell.facts.n_prb:
                    raise ValueError(
                        f"{place}: slice {slice_!r}: {prb} {direction} PRB on a carrier of {cell.facts.n_prb}"
                    )

    def _bind(self, cell: _Cell, bindings: Mapping[str, str]) -> ran_pb2.ControllerMessage:
        """A SetQuota with the bindings, to be filled in at each sending.

        It is made, and the bindings are checked, where they have changed.
        """
        if bindings == cell.bindings:
            return cell.bound
        place = f"cell {cell.facts.cell_id}"
        if len(bindings) > codec.MAX_UES:
            raise ValueError(f"{place}: {len(bindings)} UE bindings, more than {codec.MAX_UES}")
        bound = ran_pb2.ControllerMessage()
        for ue_id, slice_ in bindings.items():
            if not ue_id or len(ue_id.encode()) > codec.MAX_NAME or len(slice_.encode()) > codec.MAX_NAME:
                raise ValueError(
                    f"{place}: binding of UE {ue_id!r} to slice {slice_!r}: a name is empty or longer"
                    f" than {codec.MAX_NAME} bytes"
                )
            bound.set_quota.bindings.add(ue_id=ue_id, slice=slice_)
        cell.bindings, cell.bound = dict(bindings), bound
        return bound


def _id(cell: _Cell | None) -> str:
    return "" if cell is None else cell.facts.cell_id


TAKEN: dict[str, str] = {
    "ran_reports_total": "MacReports taken",
    "ran_applied_total": "Acknowledgements taken",
    "ran_welcomes_total": "Hellos answered with a Welcome",
}
HELLOS_REFUSED: dict[str, str] = {
    "ran_bad_hello_total": "Hellos refused: impossible cell",
    "ran_version_mismatch_total": "Hellos refused: other protocol version",
    "ran_unknown_cell_total": "Hellos refused: cell not configured",
    "ran_challenges_total": "Hellos of a cell that has a live session over another connection: no answer yet",
    "ran_cell_in_use_total": "Hellos refused: the cell has a session, and its gNB is heard",
    "ran_early_hellos_total": "Hellos without an answer: the cell had too many sessions of late",
}
"""The label ``cell``, where it is not empty, is the cell that the Hello names, whoever sent it."""
REFUSED: dict[str, str] = {
    **HELLOS_REFUSED,
    "ran_malformed_total": "Messages that cannot be parsed, are too large or have no known body",
    "ran_no_session_total": "Messages without a live session",
    "ran_wrong_key_total": "Messages refused: the connection's key belongs to another cell",
    "ran_sequence_backwards_total": "MacReports dropped: sequence repeated or going backwards",
    "ran_sequence_jump_total": "MacReports dropped: sequence too far ahead",
    "ran_time_backwards_total": "MacReports dropped: time going backwards",
    "ran_bad_applied_total": "Acknowledgements with impossible values",
    "ran_repeated_applied_total": "Acknowledgements that say what was acknowledged before",
    "ran_stale_applied_total": "Acknowledgements of superseded quotas after a later one",
}
"""Every message that :meth:`RanProtocol.receive` gets counts once, among these or :data:`TAKEN`."""
COUNTERS: dict[str, str] = {
    **TAKEN,
    **REFUSED,
    "ran_unknown_slice_total": "MacReports that name a slice that is not configured",
    "ran_bad_report_total": "MacReports that could not be opened: impossible values",
    "ran_bad_ue_total": "UEs left out of MacReports: impossible values",
    "ran_reports_lost_total": "MacReports missing from the sequence",
    "ran_key_refused_total": "Connections refused: CURVE key not known",
    "ran_handshake_failed_total": "Connections that ended in their handshake: not ZMTP, or not with our key",
    "ran_front_restarts_total": "Restarts of the process to which gNBs connect",
    "ran_sessions_total": "Sessions opened",
    "ran_takeovers_total": "Sessions taken over by another connection",
    "ran_reconnects_total": "Sessions that went on over another connection",
    "ran_cells_lost_total": "Cells lost by silence",
    "ran_quota_not_honoured_total": "Quotas acknowledged but not kept, by slice and direction",
    "ran_leases_lapsed_total": "Leases that lapsed at the gNB",
    "ran_resends_total": "Quotas and releases sent again",
    "ran_renewals_total": "Lease renewals sent",
    "ran_quota_expired_total": "Quotas no longer renewed for want of a new decision",
    "ran_send_failed_total": "Messages that could not be sent",
}
"""Help text of every counter of this link; each has the label ``cell``, empty where it is not known."""
