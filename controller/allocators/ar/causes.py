"""Why a control slot missed the promise of the round trip: a cause for each late hop, and one for the slot.

Two questions, in this order.

**Would all resources have kept it?** The frames go once more, from when they were sent, through a
first-in-first-out queue a hop with full resources, no backlog, and the stalls that each hop really had: time
in which it gave nothing out though frames waited, which no resource shortens. How a hop recovers from a stall
is the transport protocol's doing too, so what a frame waited beyond a stall shrinks no faster than resources
grow. The offered load that is above all that there is waits too, also where an application held its frames
back meanwhile. What misses the round trip's budget there would have been missed whatever the policy: by a
**hiccup** where a hop with stalls would be in time without them, for want of **capacity** where a demand is
above all that there is. These come first: whose decision it was does not matter then.

**Else, why was what was granted not enough?** For each late hop the first of these that holds; each is more
of the policy's doing than the one before it:

1. *mode not active*, *not as asked for*: what was in force was not the policy's own choice.
2. *hiccup drained too slowly*: the hop is in time without its stalls, and all resources would have made them
   good.
3. *backlog inherited*: from an empty queue the same grant would have kept the hop's budget.
4. *load rose*: the grant was enough for the flows of the decision, not for those that began in the slot.
5. *radio faded*: the grant was enough at the MCS of the decision, not at that of the worst second.
6. *burst handed on*: had the frames reached the hop as regularly as they were sent, the same grant would have
   kept its budget.
7. *too little granted*, and by the policy's own word whether it explored.

The slot's cause is that of the first late hop on the way, as what comes behind it has its burst or its
backlog from there; where all resources would have missed too, that of the hop with the longest stall.

Where no hop's delay is known, a gap in what came back, the demand and the queues still tell of some.

What is not told apart: a recovery that TCP prolongs (timer, slow start) from a grant that drains it slowly,
so that a stall of which all resources would have made the round trip just too long or just short enough falls
on either side; frames at full resources after a fade in which the application held most of them back;
whether a hop whose least delay is above half its budget is slow by itself; other slices'
frames at the edge from too low a clock; UEs of a slice from each other's load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.allocators.ar.budgets import Budgets
from controller.allocators.ar.delays import HOPS, LATE, MEAN, MEASURES, ROUND_TRIP, Metric
from controller.allocators.ar.options import ArOptions
from controller.allocators.base import ClosedSlice, SliceView
from controller.core import hops
from controller.core.decision import EXPLORING, Grant
from controller.core.measure import Lever, Measure, Outcome, Reason
from controller.core.misses import HopCause, Miss
from controller.core.observation import BoolArray, Flow, IntArray, MacReport
from wire.definitions import nr

_MS = 1_000_000
_S = 1_000_000_000


class Cause(StrEnum):
    """The main cause of a missed control slot, in the order of precedence."""

    HICCUP = "hiccup"
    CAPACITY = "capacity"
    DRAINED = "hiccup drained too slowly"
    NOT_ACTIVE = "mode not active"
    NOT_AS_ASKED = "not as asked for"
    BACKLOG = "backlog inherited"
    LOAD = "load rose"
    RADIO = "radio faded"
    BURST = "burst handed on"
    EXPLORED = "too little granted, exploring"
    TOO_LITTLE = "too little granted"
    HOP_DELAYS_NOT_KNOWN = "hop delays not known"
    NOT_KNOWN = "not known"


UNAVOIDABLE = frozenset({Cause.HICCUP, Cause.CAPACITY})
"""Causes of control slots that would have been missed at full resources too."""

ENOUGH = 0.9
"""Part of the usable PRBs up to which a demand fits into them: a tenth of the first transmissions fails (the
BLER that link adaptation aims at), and each is sent again."""

FILLED = 0.4
"""A UE that used this part of its grant between two reports had all that it could use: special NR slots,
HARQ feedback and what a scheduler grants ahead leave it no more than half at times (OAI's uplink in DSUUU).
The most that it used in the control slot is then what is usable of a grant; otherwise all of it is."""

STALL_SERVICES = 4.0
"""A stall is longer than so many times what the hop usually takes for a frame that is next: the exponential
and log-normal times of a hop that is only slow stay below that but for one frame in fifty."""

FLOOR_QUANTILE = 0.1
FLOOR_SHARE = 0.5
"""The delay of a hop that no resource removes is this quantile of the slot's, and at most this part of the
hop's budget: a hop whose least delay is more has a budget that was never meant to be kept (the paper's are 2
to 6 times the delay at full resources)."""

WORKED = 0.2
"""Time in which a UE used more than this part of its grant is none in which the hop stalled: half of what one
that is filled uses at least (:data:`FILLED`)."""

IDLE_PRB = 0.05
"""A UE used less than this part of its grant while nothing was sent to it or from it: what a modem asks for
now and then without getting anything through."""

_MODES = frozenset({Reason.SHADOW, Reason.FROZEN, Reason.RELEASED, Reason.MODE_CHANGED, Reason.SET_BY_HAND})


def find(
    view: SliceView,
    outcome: Outcome,
    *,
    budgets: Budgets,
    carrier: hops.Carrier,
    full: Grant,
    metric: Metric = MEAN,
    before: Outcome | None = None,
    why: Mapping[Lever, str] | None = None,
) -> Miss | None:
    """Why the control slot of ``view`` missed the round trip's promise; None where it did not.

    ``outcome`` is what came of it, with what was unattributed, ``before`` that of the control slot before
    (None: not known). ``full`` is all that there is. ``why`` are the policy's words on what it chose. Pure,
    less than a millisecond for a few hundred frames.
    """
    if outcome.met != 0:
        return None
    return _Slot(view, outcome, budgets, carrier, full, metric, before, why or {}).miss()


def of_record(closed: ClosedSlice) -> Miss | None:
    """:func:`find`, from what the record holds of a control slot."""
    options = closed.options
    assert isinstance(options, ArOptions)
    budgets = _budgets(closed.outcome, options.budgets.to_budgets())
    outcome = _outcome(closed.outcome, budgets)
    if outcome is None:
        return Miss(Cause.NOT_KNOWN, text="its measures are not in the record")
    return find(
        closed.view,
        outcome,
        budgets=budgets,
        carrier=closed.loop.carrier,
        full=closed.full,
        metric=Metric.parse(options.metric),
        before=None if closed.before is None else _outcome(closed.before, budgets),
        why=closed.why,
    )


def _budgets(closed: Mapping[str, Any], configured: Budgets) -> Budgets:
    """What the control slot was held against; as configured where its record does not say."""
    targets = {
        name: float(target)
        for name, measure in closed["measures"].items()
        for _, target in measure["users"].values()
        if target is not None
    }
    ul, edge, dl = (targets.get(hop.value, configured.of(hop)) for hop in HOPS)
    return Budgets(ul, edge, dl, targets.get(ROUND_TRIP, ul + edge + dl))


def _outcome(closed: Mapping[str, Any], budgets: Budgets) -> Outcome | None:
    """The outcome as it was, but for the users of whom nothing could be told; None without its measures."""
    stored = closed["measures"]
    if not stored.keys() >= set(MEASURES):
        return None
    users = tuple(dict.fromkeys(user for name in MEASURES for user in stored[name]["users"]))
    limits = {ROUND_TRIP: budgets.round_trip_ms, **{hop.value: budgets.of(hop) for hop in HOPS}}
    values = {name: {user: value for user, (value, _) in stored[name]["users"].items()} for name in MEASURES}
    return Outcome(
        closed["met"],
        bool(closed["busy"]),
        users,
        tuple(
            Measure(
                name,
                "ms",
                "lower",
                tuple(values[name].get(user) for user in users),
                (limits[name],) * len(users),
                stored[name]["met"],
                stored[name]["samples"],
            )
            for name in MEASURES
        ),
        {Lever(lever): Reason(why) for lever, why in closed["unattributed"].items()},
        closed["counts"],
        closed.get("faults", {}),
    )


_Service = tuple[NDArray[np.float64], NDArray[np.float64]]
"""What a frame takes of a server, ns (second array), at times (first array, ns), linear in between."""


# ---- a hop -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Passage:
    """Frames through one hop: when each reached it and left it, ns, int64 [frames] by time of arrival.

    A frame that is still in it leaves at the end of the view. ``floor`` is the delay that no resource
    removes, ns. ``stalls`` are [begin, end) in which nothing left though frames waited.
    """

    entered: IntArray
    left: IntArray
    floor: float
    stalls: tuple[tuple[float, float], ...]
    limit: float
    """A stall is longer than this, ns."""

    @property
    def stalled_ms(self) -> float:
        return max(((end - begin) / _MS for begin, end in self.stalls), default=0.0)

    @property
    def wait_at_open_ms(self) -> float:
        """What the first frame waited beyond the floor: what was before it in the queue."""
        return float(self.left[0] - self.entered[0] - self.floor) / _MS if len(self.left) else 0.0

    def without_first_wait(self) -> _Passage:
        """Without a stall that the first frame met: where others were before it, it waited for those."""
        return replace(self, stalls=tuple(s for s in self.stalls if s[0] > self.entered[0]))

    def recovery(
        self, entered: IntArray, left: IntArray, ease: float
    ) -> Iterator[tuple[tuple[float, float], BoolArray, NDArray[np.floating]]]:
        """Each stall with the frames that felt it, and what they waited beyond its end and the floor.

        ``entered`` and ``left`` are the frames' times, ns. A frame that was in the hop for less than ``ease``
        ns ends the recovery, and so does the time that the stall took, once more.
        """
        for begin, end in self.stalls:
            easy = (entered >= end) & (left - entered <= ease)
            until = min([2 * end - begin, *entered[easy].tolist()])
            felt = (left > begin) & (entered < until)
            yield (begin, end), felt, left - self.floor - np.maximum(entered, end)


def _quantile(values: IntArray, part: float) -> float:
    """The value that so many are no greater than; np.quantile takes ten times as long."""
    return float(np.sort(values)[int(part * (len(values) - 1))])


def _passage(entered: IntArray, left: IntArray, opened_ns: int, budget_ms: float) -> _Passage:
    order = np.argsort(entered, kind="stable")
    entered, left = entered[order], left[order]
    if not len(entered):
        return _Passage(entered, left, budget_ms * _MS * FLOOR_SHARE, (), budget_ms * _MS)
    floor = min(_quantile(left - entered, FLOOR_QUANTILE), budget_ms * _MS * FLOOR_SHARE)
    # First in, first out: the k-th to leave is the k-th that came.
    out = np.sort(left)
    previous = np.concatenate(((opened_ns,), out[:-1]))
    start = np.maximum(previous, entered)
    service = out - start
    limit = max(budget_ms * _MS, STALL_SERVICES * _quantile(service, 0.5))
    stalled = service > limit
    stalls = tuple(
        (float(b), max(float(b), float(e) - floor))
        for b, e in zip(start[stalled].tolist(), out[stalled].tolist(), strict=True)
    )
    return _Passage(entered, left, floor, stalls, limit)


def _through(
    entered: IntArray | NDArray[np.floating],
    service: _Service,
    floor: float,
    stalls: Sequence[tuple[float, float]],
) -> NDArray[np.float64]:
    """When frames leave a first-in-first-out queue that is empty at first, ns, in the order of ``entered``.

    Each takes the server the time that ``service`` says, which does nothing in a stall, and at least
    ``floor`` ns in all.
    """
    order = np.argsort(entered, kind="stable")
    ready = entered[order].astype(np.float64)
    for begin, end in stalls:
        ready[(ready >= begin) & (ready < end)] = end
    takes = np.interp(ready, *service)
    turn = np.cumsum(takes) - takes
    done = np.maximum.accumulate(ready - turn) + turn + floor
    out = np.empty_like(done)
    out[order] = done
    return out


# ---- a control slot --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Demand:
    """PRB that the offered load of the flows needs, the queue left out: at the decision, and in the worst
    second, there with the flows of the decision alone too. 0 where nobody knows.

    ``times`` (ns) and ``prb`` are the demand second by second, float64 [seconds].
    """

    decided: float = 0.0
    worst: float = 0.0
    worst_of_decided: float = 0.0
    times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    prb: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))


_UNUSED = np.empty(0), np.empty(0), np.empty(0)


class _Slot:
    """A missed control slot. All about its worst flow, and the frames of that flow's UE."""

    def __init__(
        self,
        view: SliceView,
        outcome: Outcome,
        budgets: Budgets,
        carrier: hops.Carrier,
        full: Grant,
        metric: Metric,
        before: Outcome | None,
        why: Mapping[Lever, str],
    ) -> None:
        self.view, self.outcome, self.budgets, self.metric = view, outcome, budgets, metric
        self.carrier, self.before, self.why = carrier, before, why
        self.full = _by_hop(full)
        self.granted = _by_hop(view.granted)
        self.usable: dict[Lever, float] = {}
        self.guard_ms = (view.begin_ns - view.opened_ns) / _MS
        self.worst = self._worst_flow()
        self.demand = {hop: self._demand(hop) for hop in (Lever.UL, Lever.DL)}

    def _worst_flow(self) -> str:
        """The flow with the longest round trip; "" where no flow has one."""
        round_trip = self.outcome.measure(ROUND_TRIP)
        known = [(v, u) for u, v in zip(self.outcome.users, round_trip.values, strict=True) if v is not None]
        return max(known)[1] if known else ""

    # ---- the slot's cause ---------------------------------------------------------------------------------

    def miss(self) -> Miss:
        if not self.worst:
            return Miss(Cause.NOT_KNOWN, text="no frame of an active flow")
        mine = self._mine()
        measures = {hop: self.outcome.measure(hop.value) for hop in HOPS}
        if all(m.met is None for m in measures.values()) or not mine.any():
            return self._blind()
        self._follow(mine)
        at_full = self._metric_at_full()
        if at_full is not None:
            # Frames that an application held back while its socket was full are in no record.
            at_full = max(at_full, *(self._overload_ms(hop) for hop in self.demand))
        self.lost = at_full is not None and at_full > self.budgets.round_trip_ms
        late = [hop for hop in HOPS if measures[hop].met == 0] or [self._nearest()]
        causes = {hop: self._hop_cause(hop) for hop in late}
        main = self._main(causes)
        unavoidable = main.cause in UNAVOIDABLE
        return Miss(main.cause, main.hop, main.text, causes, unavoidable, at_full)

    def _main(self, causes: dict[Lever, HopCause]) -> HopCause:
        if self.lost:
            unavoidable = [c for c in causes.values() if c.cause in UNAVOIDABLE]
            if unavoidable:
                return max(unavoidable, key=lambda c: c.stall_ms)
            hop = max(HOPS, key=lambda hop: self.passage[hop].stalled_ms)
            if self.passage[hop].stalls:
                return HopCause(hop, Cause.HICCUP, self._stall_text(hop), self.passage[hop].stalled_ms)
        return next(iter(causes.values()))

    def _blind(self) -> Miss:
        """The cause where no hop's delay is known: what demand, load and queue alone say of the radio."""
        stall = self._round_trip_stall()
        if stall is not None:
            return stall
        for hop in (Lever.UL, Lever.DL):
            for cause in (self._not_its_own(hop), self._changed(hop), self._short(hop)):
                if cause is not None:
                    found = {hop: cause}
                    return Miss(cause.cause, hop, cause.text, found, cause.cause in UNAVOIDABLE)
        text = ", ".join(f"{reason}: {n} frames" for reason, n in self.outcome.faults.items())
        return Miss(Cause.HOP_DELAYS_NOT_KNOWN, text=text)

    def _round_trip_stall(self) -> Miss | None:
        frames, view = self.view.frames, self.view
        mine = self._of_worst_ue() & (frames.ue_sent < view.end_ns)
        sent = frames.ue_sent[mine]
        back = np.where(frames.ue_received[mine] != 0, frames.ue_received[mine], view.end_ns)
        passage = _passage(sent, np.maximum(back, sent), view.opened_ns, self.budgets.round_trip_ms)
        if self._late_before():
            passage = passage.without_first_wait()
        if not passage.stalls:
            return None
        at_once = np.zeros(1), np.zeros(1)
        drained = _through(passage.entered, at_once, passage.floor, passage.stalls)
        at_full = self._metric(np.minimum(drained, view.end_ns) - passage.entered, passage.entered)
        if at_full is None or at_full <= self.budgets.round_trip_ms:
            return None
        text = f"no frame back for {passage.stalled_ms:.0f} ms"
        return Miss(Cause.HICCUP, text=text, unavoidable=True, at_full_ms=at_full)

    # ---- the frames ---------------------------------------------------------------------------------------

    def _of_worst_ue(self) -> BoolArray:
        users = self.view.users
        ues = {f.ue_id for f in users if f.flow == self.worst}
        its = np.array([f.ue_id in ues for f in users], np.bool_)
        frames = self.view.frames
        mine: BoolArray = its[frames.flow] if len(frames) else np.zeros(0, np.bool_)
        return mine

    def _mine(self) -> BoolArray:
        """Frames of the worst flow's UE with every time that they need: bool [frames]."""
        f = self.view.frames
        arrived, left, back = f.edge_received != 0, f.edge_sent != 0, f.ue_received != 0
        whole = (arrived | ~(left | back)) & (left | ~back)
        ordered = (
            ~(arrived & (f.edge_received < f.ue_sent))
            & ~(left & (f.edge_sent < f.edge_received))
            & ~(back & (f.ue_received < f.edge_sent))
        )
        mine: BoolArray = (
            self._of_worst_ue() & f.synchronised & whole & ordered & (f.ue_sent < self.view.end_ns)
        )
        return mine

    def _follow(self, mine: BoolArray) -> None:
        """The frames' way through the hops."""
        f, end = self.view.frames, self.view.end_ns
        sent = f.ue_sent[mine]
        times = [
            sent,
            *(np.where(t[mine] != 0, t[mine], end) for t in (f.edge_received, f.edge_sent, f.ue_received)),
        ]
        reached: list[BoolArray] = [
            np.ones(len(sent), np.bool_),
            f.edge_received[mine] != 0,
            f.edge_sent[mine] != 0,
        ]
        self.sent, self.back = sent, times[-1]
        self.flow = f.flow[mine]
        self.interval = self._frame_interval()
        self.passage: dict[Lever, _Passage] = {}
        for i, hop in enumerate(HOPS):
            inside = reached[i]
            passage = _passage(
                times[i][inside],
                np.maximum(times[i + 1], times[i])[inside],
                self.view.opened_ns,
                self.budgets.of(hop),
            )
            self.passage[hop] = self._at_radio(hop, passage)
        self.reached = dict(zip(HOPS, reached, strict=True))
        self.times = {hop: (times[i], np.maximum(times[i + 1], times[i])) for i, hop in enumerate(HOPS)}
        self.entered = {hop: times[i][reached[i]] for i, hop in enumerate(HOPS)}
        self.sent_of = {hop: sent[reached[i]] for i, hop in enumerate(HOPS)}

    def _at_radio(self, hop: Lever, passage: _Passage) -> _Passage:
        """The passage with its stalls as the PRBs that the UE used show them, where the reports say so.

        A UE that still waits for its cell when the control slot begins may hold its application, which then
        sends nothing until the stall is over: no frame shows that one, the PRBs do.
        """
        since, until, used = self._use(hop) if hop is not Lever.EDGE else _UNUSED
        if not len(used):
            carried = self._late_before() or self._queued_at_open(hop)
            return passage.without_first_wait() if carried else passage
        most = float(used.max())
        if most >= FILLED:
            self.usable[hop] = min(most, 1.0)
        stalls = []
        for begin, end in passage.stalls:
            for worked_from, worked_until in zip(
                since[used > WORKED].tolist(), until[used > WORKED].tolist(), strict=True
            ):
                if begin < worked_until and worked_from < end:
                    before, after = (begin, max(begin, worked_from)), (min(end, worked_until), end)
                    begin, end = max(before, after, key=lambda s: s[1] - s[0])
            if end - begin > passage.limit:
                stalls.append((begin, end))
        opened = float(self.view.opened_ns)
        idle = int(np.argmin(np.append(used < IDLE_PRB, False)))
        if self._waiting_at_open() and idle and until[idle - 1] - opened > passage.limit:
            end = float(until[idle - 1])
            if idle < len(used):  # part of the next interval was idle too
                end += float(until[idle] - since[idle]) * max(0.0, 1 - used[idle] / max(most, FILLED))
            stalls = [(opened, end), *(s for s in stalls if s[0] > end)]
        return replace(passage, stalls=tuple(stalls))

    def _waiting_at_open(self) -> int:
        """Frames of the control slot before that were late and not back at its end."""
        return 0 if self.before is None else self.before.counts.get(LATE, 0)

    def _late_before(self) -> bool:
        """Whether the control slot before missed, or ended with frames that were late and not back."""
        return self._waiting_at_open() > 0 or (self.before is not None and self.before.met == 0)

    def _use(self, hop: Lever) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Between two reports, [since, until) ns: what the worst flow's UE used of its equal part of the
        grant; empty where nobody says."""
        if hop not in self.granted:
            return _UNUSED
        ue = next(f.ue_id for f in self.view.users if f.flow == self.worst)
        points = [
            (r.time_ns, columns.prb_slots[r.ue_id.index(ue)])
            for r in self.view.reports
            if ue in r.ue_id and len((columns := r.dl if hop is Lever.DL else r.ul).prb_slots) == len(r.ue_id)
        ]
        times, prb_slots = np.array(points, np.float64).reshape(-1, 2).T
        direction = "dl" if hop is Lever.DL else "ul"
        share = self.carrier.tdd.share(direction, guard=self.carrier.guard)
        nr_slots = np.diff(times) / _MS * self.carrier.scs_khz / 15 * share
        part = self.granted[hop] / len({f.ue_id for f in self.view.users})
        used = np.diff(prb_slots) / np.maximum(nr_slots * part, 1e-9)
        since, until = times[:-1].copy(), times[1:].copy()
        if len(used):  # before the first report and after the last it went on as it was
            since[0] = min(since[0], self.view.opened_ns)
            until[-1] = max(until[-1], self.view.end_ns)
        return since, until, used

    def _metric(self, delay: NDArray[np.floating] | IntArray, sent: IntArray) -> float | None:
        """The delay metric of the frames (ns) that the slot is judged by, in ms."""
        judged = sent >= self.view.begin_ns
        delay = delay[judged]
        if not len(delay):
            return None
        of = self.metric.percentile
        return float(np.mean(delay) if of is None else np.percentile(delay, of)) / _MS

    # ---- what all resources would have done ---------------------------------------------------------------

    def _service(self, hop: Lever, resources: int) -> _Service:
        """What a frame takes of a hop with ``resources``."""
        if hop is Lever.EDGE:
            # The GPU has a frame to itself from beginning to end.
            takes = self.passage[hop].floor * self.granted.get(hop, resources) / max(resources, 1)
            return np.zeros(1), np.full(1, takes)
        demand = self.demand[hop]
        return demand.times, self.interval * demand.prb / max(self._room(hop, resources), 1e-9)

    def _room(self, hop: Lever, resources: int) -> float:
        """The demand that fits into so many PRBs."""
        return resources * ENOUGH * self.usable.get(hop, 1.0)

    def _fitted(self, hop: Lever) -> bool:
        """Whether the mean demand fits into the grant."""
        if hop is Lever.EDGE:
            return True
        return float(self.demand[hop].prb.mean()) <= self._room(hop, self.granted[hop])

    def _frame_interval(self) -> float:
        """Time between two frames of the worst flow's UE while its applications send, ns."""
        rate = 0.0
        for flow in range(len(self.view.users)):
            sent = np.sort(self.sent[self.flow == flow])
            if len(sent) > 1:
                rate += 1 / max(_quantile(np.diff(sent), 0.5), 1.0)
        return 1 / rate if rate else float(self.view.end_ns - self.view.opened_ns)

    def _metric_at_full(self) -> float | None:
        """The round trip's metric of the worst flow's UE with all resources, ms."""
        if not self.granted:
            return None
        if all(self.granted[hop] >= self.full[hop] for hop in HOPS):
            out = self.back.astype(np.float64)
        else:
            out = self.sent.astype(np.float64)
            for hop in HOPS:
                passage = self.passage[hop]
                entered, service = out, self._service(hop, self.full[hop])
                out = _through(entered, service, passage.floor, passage.stalls)
                if self._fitted(hop):
                    inside = self.reached[hop]
                    ratio = self.granted[hop] / max(self.full[hop], 1)
                    for (begin, end), felt, waited in passage.recovery(
                        self.times[hop][0][inside], self.times[hop][1][inside], self.budgets.of(hop) * _MS / 2
                    ):
                        rows = np.flatnonzero(inside)[felt]
                        rows, beyond = rows[entered[rows] >= begin], waited[felt][entered[rows] >= begin]
                        slow = np.maximum(entered[rows], end) + beyond * ratio + passage.floor
                        out[rows] = np.maximum(out[rows], slow)
        end = self.view.end_ns
        counted = (self.back < end) | (end - self.sent > self.budgets.round_trip_ms * _MS)
        worst = np.array([f.flow == self.worst for f in self.view.users], np.bool_)[self.flow]
        take = counted & worst
        return self._metric(np.minimum(out, end)[take] - self.sent[take], self.sent[take])

    def _overload_ms(self, hop: Lever) -> float:
        """Mean delay of the offered load, second by second, that is above what all resources carry, ms."""
        room, waiting, total = self._room(hop, self.full[hop]), 0.0, 0.0
        for prb in self.demand[hop].prb.tolist():
            before, waiting = waiting, max(0.0, waiting + prb - room)
            total += (before + waiting) / 2
        return 1e3 * total / max(room, 1e-9) / len(self.demand[hop].prb)

    def _hop_metric(
        self, hop: Lever, entered: NDArray[np.floating] | IntArray, resources: int, *, stalls: bool = True
    ) -> float | None:
        passage = self.passage[hop]
        held = passage.stalls if stalls else ()
        left = _through(entered, self._service(hop, resources), passage.floor, held)
        return self._metric(np.minimum(left, self.view.end_ns) - entered, self.sent_of[hop])

    def _keeps(self, hop: Lever, value: float | None) -> bool:
        return value is not None and value <= self.budgets.of(hop)

    # ---- a hop's cause ------------------------------------------------------------------------------------

    def _nearest(self) -> Lever:
        """Where no hop was late by itself: the one nearest to its budget."""

        def part(hop: Lever) -> float:
            values = [v for v in self.outcome.measure(hop.value).values if v is not None]
            return max(values, default=0.0) / self.budgets.of(hop)

        return max(HOPS, key=part)

    def _hop_cause(self, hop: Lever) -> HopCause:
        stall = self.passage[hop].stalled_ms
        if hop not in self.granted:
            own = self._not_its_own(hop)
            return own or HopCause(hop, Cause.NOT_KNOWN, "what was in force is not known", stall)
        found = self._at_all(hop)
        for check in (
            self._not_its_own,
            self._drained,
            self._backlog,
            self._changed,
            self._burst,
            self._too_little,
        ):
            if found is not None:
                break
            found = check(hop)
        return found or HopCause(hop, Cause.NOT_KNOWN, "late at all resources, without a stall", stall)

    def _at_all(self, hop: Lever) -> HopCause | None:
        """Hiccup or capacity, where all resources would not have kept the round trip."""
        full, worst = self.full[hop], self.demand[hop].worst if hop in self.demand else 0.0
        if self.lost and self._stall_matters(hop, full):
            return HopCause(hop, Cause.HICCUP, self._stall_text(hop), self.passage[hop].stalled_ms)
        if hop is Lever.EDGE:
            late = self._late_share(hop)
            if self.granted[hop] >= full and late > 0.5:
                return HopCause(hop, Cause.CAPACITY, f"{late:.0%} of the frames late at {full} MHz")
        elif worst > self._room(hop, full) and (self.lost or self.granted[hop] >= full):
            return HopCause(hop, Cause.CAPACITY, f"demand of {worst:.0f} PRB, there are {full}")
        return None

    def _stall_matters(self, hop: Lever, resources: int) -> bool:
        """Whether the hop keeps its budget with so much but for its stalls."""
        if not self.passage[hop].stalls:
            return False
        entered = self.entered[hop]
        with_stalls = self._hop_metric(hop, entered, resources)
        without = self._hop_metric(hop, entered, resources, stalls=False)
        return self._keeps(hop, without) and not self._keeps(hop, with_stalls)

    def _drained(self, hop: Lever) -> HopCause | None:
        """A stall that all resources would have made good."""
        if self.lost or not self._stall_matters(hop, self.granted[hop]):
            return None
        return HopCause(hop, Cause.DRAINED, self._stall_text(hop), self.passage[hop].stalled_ms)

    def _not_its_own(self, hop: Lever) -> HopCause | None:
        reason = self.outcome.unattributed.get(hop)
        if reason is None or reason.more or reason is Reason.HOP_DELAY_NOT_KNOWN:
            return None
        cause = Cause.NOT_ACTIVE if reason in _MODES else Cause.NOT_AS_ASKED
        return HopCause(hop, cause, reason.value)

    def _backlog(self, hop: Lever) -> HopCause | None:
        waited = self.passage[hop].wait_at_open_ms
        if not (self._queued_at_open(hop) or (self._late_before() and waited > self.guard_ms)):
            return None
        if not self._keeps(hop, self._hop_metric(hop, self.entered[hop], self.granted[hop])):
            return None
        return HopCause(
            hop,
            Cause.BACKLOG,
            f"the queue at its beginning took {max(self._queue_at_open_ms(hop), waited):.0f} ms",
        )

    def _queued_at_open(self, hop: Lever) -> bool:
        """Whether the queue of the first report needs more than the guard."""
        return self._queue_at_open_ms(hop) > self.guard_ms

    def _queue_at_open_ms(self, hop: Lever) -> float:
        """How long the grant takes for the queue of the first report, ms; 0 at the edge."""
        if hop is Lever.EDGE or not self.view.reports or hop not in self.granted:
            return 0.0
        report = self.view.reports[0]
        columns = report.dl if hop is Lever.DL else report.ul
        direction = "dl" if hop is Lever.DL else "ul"
        factors = self.carrier.prb_per_bit(direction)
        try:
            prb_frames = sum(
                8 * queued * factors[table][mcs] / layers
                for mcs, table, layers, queued in zip(
                    columns.mcs, columns.mcs_table, columns.layers, columns.queued_bytes, strict=True
                )
            )
        except (KeyError, ZeroDivisionError):
            return 0.0
        return prb_frames * nr.FRAME_MS / max(self.granted[hop], 1)

    def _changed(self, hop: Lever) -> HopCause | None:
        """Load that rose, or radio that faded, beyond a grant that was enough at the decision."""
        if hop not in self.granted:
            return None
        if hop is Lever.EDGE:
            return self._edge_load()
        demand, room = self.demand[hop], self._room(hop, self.granted[hop])
        if demand.decided > room or demand.worst <= room:
            return None
        text = f"demand rose from {demand.decided:.0f} to {demand.worst:.0f} PRB of {self.granted[hop]}"
        cause = Cause.LOAD if demand.worst_of_decided <= room else Cause.RADIO
        return HopCause(hop, cause, text)

    def _edge_load(self) -> HopCause | None:
        """A flow began, and only then most frames were late."""
        hop, view = Lever.EDGE, self.view
        began = [f.start_ns for f in view.users if view.opened_ns < f.start_ns < view.end_ns]
        if not began:
            return None
        passage = self.passage[hop]
        late = passage.left - passage.entered > self.budgets.of(hop) * _MS
        earlier = passage.entered < min(began)
        if not late[~earlier].any() or (earlier.any() and np.mean(late[earlier]) > 0.5):
            return None
        if not earlier.any() and len(began) == len(view.users):
            return None  # the slot was idle until then: what was granted was for nobody
        return HopCause(hop, Cause.LOAD, f"{len(began)} of {len(view.users)} flows began in it")

    def _burst(self, hop: Lever) -> HopCause | None:
        if hop is Lever.UL:
            return None
        if hop is Lever.DL and self.demand[hop].worst > self._room(hop, self.granted[hop]):
            return None
        entered, sent = self.entered[hop], self.sent_of[hop]
        if not len(entered):
            return None
        lag = entered - sent
        usual = _quantile(lag, 0.5)
        regular = self._hop_metric(hop, sent + usual, self.granted[hop])
        burst = self._hop_metric(hop, entered, self.granted[hop])
        if not self._keeps(hop, regular) or burst is None or self._keeps(hop, burst):
            return None
        earlier = HOPS[: HOPS.index(hop)]
        longest = {h: float((self.passage[h].left - self.passage[h].entered).max()) / _MS for h in earlier}
        holder = max(earlier, key=longest.__getitem__)
        return HopCause(hop, Cause.BURST, f"{holder} held frames up to {longest[holder]:.0f} ms")

    def _short(self, hop: Lever) -> HopCause | None:
        """Too little granted for the demand, whatever the delays."""
        granted, demand = self.granted.get(hop), self.demand[hop].worst
        if granted is None or demand <= self._room(hop, granted):
            return None
        if granted >= self.full[hop]:
            return HopCause(hop, Cause.CAPACITY, f"demand of {demand:.0f} PRB, there are {granted}")
        return self._granted_too_little(hop, f"demand of {demand:.0f} PRB, {granted} granted")

    def _too_little(self, hop: Lever) -> HopCause | None:
        granted = self.granted[hop]
        if granted >= self.full[hop]:
            return None
        late = f"{self._late_share(hop):.0%} of the frames late at "
        if hop is Lever.EDGE:
            return self._granted_too_little(hop, f"{late}{granted} MHz")
        return self._granted_too_little(
            hop, f"{late}{granted} PRB, demand of up to {self.demand[hop].worst:.0f}"
        )

    def _granted_too_little(self, hop: Lever, text: str) -> HopCause:
        own = hop not in self.outcome.unattributed
        word = self.why.get(hop, "")
        explored = own and word in EXPLORING
        return HopCause(
            hop, Cause.EXPLORED if explored else Cause.TOO_LITTLE, f"{text} ({word})" if word else text
        )

    def _late_share(self, hop: Lever) -> float:
        passage = self.passage[hop]
        if not len(passage.left):
            return 0.0
        return float(np.mean(passage.left - passage.entered > self.budgets.of(hop) * _MS))

    def _stall_text(self, hop: Lever) -> str:
        return f"stalled for {self.passage[hop].stalled_ms:.0f} ms"

    # ---- the load -----------------------------------------------------------------------------------------

    def _demand(self, hop: Lever) -> _Demand:
        view = self.view
        if not view.reports:
            return _Demand()
        decided = tuple(f for f in view.users if f.start_ns <= view.opened_ns)
        seconds: dict[int, list[MacReport]] = {}
        for report in view.reports:
            seconds.setdefault((report.time_ns - view.opened_ns) // _S, []).append(report)
        try:
            every = [self._offered(of, view.users, hop) for of in seconds.values()]
            same = (
                every
                if len(decided) == len(view.users)
                else [self._offered(of, decided, hop) for of in seconds.values()]
            )
            return _Demand(
                self._offered(view.reports[:1], decided, hop),
                max(every),
                max(same),
                np.array([view.opened_ns + (second + 0.5) * _S for second in seconds]),
                np.array(every),
            )
        except ValueError:  # an MCS that does not exist: the demand is not known
            return _Demand()

    def _offered(self, reports: Sequence[MacReport], flows: Sequence[Flow], hop: Lever) -> float:
        found = hops.demand_prb(reports, flows, self.view.slice, hop, self.carrier, queue=False)
        return found or 0.0


def _by_hop(grant: Grant | None) -> dict[Lever, int]:
    if grant is None:
        return {}
    return {Lever.UL: grant.ul_prb, Lever.EDGE: grant.gpu_mhz, Lever.DL: grant.dl_prb}
