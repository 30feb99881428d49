"""Whether the clocks behind a frame's four times agree, from what the hosts tell of their PTP clocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

from controller.core.observation import ClockReport

MAX_HOSTS = 64
"""Hosts in one cell whose clocks count for any frames; as many more may report for their own alone."""

FORGET = 12
"""A host that has been silent for so many times what makes its clock stale is forgotten."""

STATES = frozenset({"SLAVE", "MASTER"})
"""portState (IEEE 1588-2008, Table 8) of a port whose clock has the network's time."""


class Moment(NamedTuple):
    """The controller's two clocks at one moment, in ns: CLOCK_REALTIME, as in the frames, and a monotonic
    one, which alone says how long ago something was."""

    real_ns: int
    mono_ns: int


@dataclass(frozen=True, slots=True)
class ClockFault:
    """Why frames count for the round trip alone; nothing vouches for those heard after ``since_ns``."""

    reason: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class KnownClock:
    """What is known of a host's clock: as it was told ``age_s`` ago, and what is wrong with it, if anything.

    ``age_s`` is None, and the state empty, of a required host that never told.
    """

    host: str
    ptp_state: str
    offset_ns: float
    age_s: float | None
    fault: str


@dataclass(slots=True)
class _Host:
    """``good``: when its clock was last told to be good; ``other``: to follow another grandmaster.

    ``own``: told by one whose word counts for this host's own frames alone.
    """

    report: ClockReport
    received: Moment
    own: bool
    good: Moment | None = None
    other: Moment | None = None


class ClockBoard:
    """The clocks of one cell's hosts, as they were last told.

    A clock can be used while its port is SLAVE or MASTER, its offset within ``bound_ns``, its last report
    younger than ``stale_ns`` and the time in it no further from the controller's. Frames that a host
    reports are stamped by itself and by the edge. Their clocks must be good and follow one grandmaster:

    - the host's own, once it was told of;
    - those of the ``required`` hosts, whatever flows they report; the clock of no other host counts then;
    - where none is required nobody has said which host is the edge: it may be any that reports no flows of
      its own, so the clocks of all these must be good. One of them that went silent counts while no other
      of them tells of its clock: with one edge its silence is seen, and a UE's host that was taken away
      holds up nobody.

    A host that has been silent for :data:`FORGET` times ``stale_ns`` is forgotten, and is then as one that
    never told of its clock; required ones are not.
    """

    def __init__(self, *, bound_ns: float, stale_ns: int, required: Collection[str] = ()) -> None:
        if not (bound_ns > 0 and stale_ns > 0):
            raise ValueError(f"clock bound {bound_ns!r} ns and stale time {stale_ns!r} ns must be positive")
        self._bound_ns = bound_ns
        self._stale_ns = stale_ns
        self._required = frozenset(required)
        self._hosts: dict[str, _Host] = {}
        self._flows: dict[str, tuple[str, int]] = {}
        self._with_flows: Counter[str] = Counter()

    def flow_started(self, flow: str, host: str, stream: int) -> None:
        """``host`` reports frames of ``flow`` on a stream of its: it is no edge meanwhile."""
        self.flow_ended(flow)
        self._flows[flow] = host, stream
        self._with_flows[host] += 1

    def flow_ended(self, flow: str) -> None:
        """A flow is over; one that never started may be."""
        if began := self._flows.pop(flow, None):
            self._with_flows -= Counter(began[:1])  # drops a host at zero

    def stream_ended(self, stream: int) -> None:
        """A stream is lost; of its flows those count on that have started on another since."""
        for flow in [flow for flow, (_, started_on) in self._flows.items() if started_on == stream]:
            self.flow_ended(flow)

    def take(self, report: ClockReport, now: Moment, *, own: bool = False) -> ClockReport:
        """Remember a report that came ``now``; returns it with its ``fault``.

        With ``own`` it is of one whose word counts for its host's own frames alone; these hosts take up no
        place of the others. ValueError for one host too many, and with ``own`` for a host that is required or
        of whose clock another one's word counts.
        """
        self._forget(now)
        before = self._hosts.get(report.host)
        if own and (report.host in self._required or (before is not None and not before.own)):
            raise ValueError(f"ClockStatus of host {report.host!r}: its PTP agent tells of that clock")
        if report.host not in self._required and (before is None or before.own != own):
            present = sum(
                entry.own == own for host, entry in self._hosts.items() if host not in self._required
            )
            if present >= MAX_HOSTS:
                raise ValueError(
                    f"ClockStatus of host {report.host!r}: more than {MAX_HOSTS} hosts in one cell"
                )
        entry = _Host(report, now, own)
        if before is not None:
            moved = before.report.grandmaster != report.grandmaster
            entry.good = before.good
            entry.other = before.received if moved else before.other
        self._hosts[report.host] = entry
        why = self._wrong(entry, now)
        if not why:
            entry.good = now
        entry.report = replace(report, fault=why)
        return entry.report

    def beyond_bound(self, report: ClockReport) -> bool:
        """Whether the offset is larger than the bound."""
        return abs(report.offset_ns) > self._bound_ns

    def fault(self, host: str, now: Moment) -> ClockFault | None:
        """Why frames that come from ``host`` ``now`` count for the round trip alone; None: they do not."""
        self._forget(now)
        names = set(self._required or self._maybe_edges(host, now))
        if host in self._hosts:
            names.add(host)
        masters: dict[str, str] = {}
        changed_ns = 0
        faults = []
        for name in sorted(names):
            entry = self._hosts.get(name)
            if entry is None:
                faults.append(ClockFault(f"{name}: no news of its clock", 0))
            elif why := self._wrong(entry, now):
                faults.append(ClockFault(why, _real_ns(entry.good, now)))
            elif entry.report.grandmaster:
                masters.setdefault(entry.report.grandmaster, name)
                changed_ns = max(changed_ns, _real_ns(entry.other, now))
        if len(masters) > 1:
            faults.append(
                ClockFault(f"{', '.join(sorted(masters.values()))}: different grandmasters", changed_ns)
            )
        if not faults:
            return None
        # The first by name is told; nothing vouches for frames since the earliest of all.
        return ClockFault(faults[0].reason, min(f.since_ns for f in faults))

    def known(self, now: Moment) -> tuple[KnownClock, ...]:
        """The clocks of all hosts that are remembered or required, by name."""
        self._forget(now)
        clocks = []
        for host in sorted(self._hosts.keys() | self._required):
            entry = self._hosts.get(host)
            if entry is None:
                clocks.append(KnownClock(host, "", 0.0, None, f"{host}: no news of its clock"))
            else:
                age_s = (now.mono_ns - entry.received.mono_ns) / 1e9
                report = entry.report
                fault = self._wrong(entry, now)
                clocks.append(KnownClock(host, report.ptp_state, report.offset_ns, age_s, fault))
        return tuple(clocks)

    def _forget(self, now: Moment) -> None:
        for host, entry in list(self._hosts.items()):
            silent_ns = now.mono_ns - entry.received.mono_ns
            if silent_ns > FORGET * self._stale_ns and host not in self._required:
                del self._hosts[host]

    def _maybe_edges(self, host: str, now: Moment) -> list[str]:
        """The hosts that may be the edge of ``host``'s frames, where nobody has said."""
        others = [
            n for n, entry in self._hosts.items() if not (n == host or n in self._with_flows or entry.own)
        ]
        return [n for n in others if not self._silent(self._hosts[n], now)] or others

    def _silent(self, entry: _Host, now: Moment) -> bool:
        return now.mono_ns - entry.received.mono_ns > self._stale_ns

    def _wrong(self, entry: _Host, now: Moment) -> str:
        """What is wrong with one clock; free of numbers, so that equal faults read equal."""
        report = entry.report
        if self._silent(entry, now):
            return f"{report.host}: no news of its clock"
        if report.ptp_state not in STATES:
            return f"{report.host}: PTP state {report.ptp_state}"
        if self.beyond_bound(report):
            return f"{report.host}: offset beyond the bound"
        if abs(entry.received.real_ns - report.time_ns) > self._stale_ns:
            return f"{report.host}: its time is far from the controller's"
        return ""


def _real_ns(then: Moment | None, now: Moment) -> int:
    """A moment by the real clock as it goes now, which may have been set since; 0 for none."""
    return 0 if then is None else now.real_ns - (now.mono_ns - then.mono_ns)
