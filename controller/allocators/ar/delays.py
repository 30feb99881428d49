"""The outcome of a control slot from frame timestamps (MUCB1 paper, eq. 1, 2, 8 and 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.allocators.ar.budgets import Budgets
from controller.allocators.base import SliceView
from controller.core.measure import RESOURCES, Lever, Measure, Outcome, Reason

_MS = 1_000_000

LATE, UNSYNCHRONISED, NEGATIVE = "late_frames", "unsynchronised_frames", "negative_delays"


@dataclass(frozen=True, slots=True)
class Metric:
    """The statistic of a flow's frame delays that is held against a budget.

    ``percentile`` None is the mean; otherwise a percentile, linear between the two nearest delays.

    >>> Metric.parse("mean"), str(Metric.parse("p90"))
    (Metric(percentile=None), 'p90')
    """

    percentile: float | None = None

    def __post_init__(self) -> None:
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise ValueError(f"percentile {self.percentile!r} is outside 0..100")

    @classmethod
    def parse(cls, text: str) -> Metric:
        """``mean``, or ``p`` and a percentile such as ``p90``. ValueError for anything else."""
        if text == "mean":
            return cls()
        try:
            if not text.startswith("p"):
                raise ValueError
            return cls(float(text[1:]))
        except ValueError:
            raise ValueError(f"delay metric {text!r} is neither 'mean' nor a percentile like 'p90'") from None

    def __str__(self) -> str:
        return "mean" if self.percentile is None else f"p{self.percentile:g}"


MEAN = Metric()


ROUND_TRIP = "round_trip"
HOPS = RESOURCES
"""The legs of a frame's round trip, named as the levers that shorten them, in their order on the way."""
MEASURES: tuple[str, ...] = (ROUND_TRIP, *(hop.value for hop in HOPS))


def judge(
    view: SliceView,
    budgets: Budgets,
    *,
    metric: Metric = MEAN,
    late: bool = True,
    unattributed: Mapping[Lever, Reason] | None = None,
) -> Outcome:
    """Judge a slice's frames of one control slot (eq. 1 for the round trip, eq. 8 for the hops).

    Frames of the slot were sent in [begin, end) of the view; what the hosts had not told by its end cannot be
    held against anybody. A frame that is not back by then counts at its age once that exceeds the round-trip
    budget, and is left out of everything before. It counts at its measured delay in the hops behind it, at
    its age in the hop that it is in, and not in later ones. With ``late`` off only frames whose four times
    are all known count, as in the MUCB1 authors' code: what is still under way is held against nobody.

    A measure is met where every judged flow's metric is within the budget, not met where one is known not to
    be. A flow active in that window without a frame to count is not within any, unless it was active for less
    than the round-trip budget: then it is not judged; where all frames that came of it were refused, it is
    not known. With no judged flow all are met. A hop's measure cannot be told where a flow has frames but no
    usable delay over the hop, because they are unsynchronised, lack a time that a later one follows, or show
    a negative delay, and no other flow is known to violate the budget. A frame that was at the edge before it
    was sent or after it was back tells of neither uplink nor downlink. None can be told where flows were
    active but the guard leaves no window.

    Counts: ``late_frames`` were not back and counted at their age, ``unsynchronised_frames`` counted for the
    round trip alone (by what was wrong, where it is known, in the outcome's faults), ``negative_delays`` were
    not used.
    """
    reasons = {} if unattributed is None else unattributed
    closed, begin = view.end_ns, view.begin_ns
    if begin >= closed:
        return _no_window(view, budgets, reasons)

    # Flows active in the window, numbered 0, 1, ...; -1 for the others.
    number = [-1] * len(view.users)
    names: list[str] = []
    active_ns: list[int] = []
    for i, f in enumerate(view.users):
        active = min(closed, f.stop_ns or closed) - max(begin, f.start_ns)
        if active > 0:
            number[i] = len(names)
            names.append(f.flow)
            active_ns.append(active)

    frames = view.frames
    n = len(names)
    if n == 0 and len(frames) == 0:
        return _idle(budgets, reasons)
    flow = np.array(number, np.intp)[frames.flow] if len(frames) else np.empty(0, np.intp)
    came = np.bincount(flow[flow >= 0], minlength=n)
    blind = {i for i, name in enumerate(names) if name in view.clock_faults and not came[i]}
    sent = frames.ue_sent
    back = frames.ue_received != 0
    age = closed - sent
    counts = back | (age > budgets.round_trip_ms * _MS)
    if not late:
        counts = back & (frames.edge_received != 0) & (frames.edge_sent != 0)
    chosen = np.flatnonzero((flow >= 0) & (sent >= begin) & (age > 0) & counts)
    flow, sent, back, age = flow[chosen], sent[chosen], back[chosen], age[chosen]
    counted = np.bincount(flow, minlength=n)

    judged = [i for i in range(n) if counted[i] or active_ns[i] >= budgets.round_trip_ms * _MS]
    if not judged:
        return _idle(budgets, reasons)

    received = frames.ue_received[chosen]
    arrived, left = frames.edge_received[chosen], frames.edge_sent[chosen]
    known_arrived, known_left = arrived != 0, left != 0
    synchronised = frames.synchronised[chosen]

    # One of the clocks of a frame that was at the edge before it was sent, or after it was back, is wrong: a
    # hop that it makes too short it makes the other one too long.
    disordered = (known_arrived & (arrived < sent)) | (known_left & (left < sent))
    disordered |= back & ((known_arrived & (arrived > received)) | (known_left & (left > received)))

    delay = np.where(back, received - sent, age)
    usable = delay >= 0
    negative = int(len(usable) - np.count_nonzero(usable))
    of = _Judged(flow, judged, n, blind)
    measures = [_judge(ROUND_TRIP, delay, usable, ~usable, of, budgets.round_trip_ms, metric)]

    # A hop's start and end times, whether they are known, and whether a time after the hop is known.
    legs = (
        (sent, None, arrived, known_arrived, known_left | back),
        (arrived, known_arrived, left, known_left, back),
        (left, known_left, received, back, None),
    )
    for hop, (start, known_start, end, known_end, beyond) in zip(HOPS, legs, strict=True):
        inside = ~known_end if beyond is None else ~(known_end | beyond)
        usable = known_end | (inside & (start < closed))
        if known_start is not None:
            usable &= known_start
        usable &= synchronised
        delay = np.where(known_end, end, closed) - start
        below = usable & (delay < 0)
        negative += int(np.count_nonzero(below))
        usable &= ~below if hop is Lever.EDGE else ~(below | disordered)
        # A synchronised frame that is still before the hop tells nothing against it; any other does.
        passed = known_end if beyond is None else known_end | beyond
        unknown = ~usable & (passed | ~synchronised)
        measures.append(_judge(hop.value, delay, usable, unknown, of, budgets.of(hop), metric))
    return Outcome(
        met=measures[0].met,
        busy=True,
        users=tuple(names[i] for i in judged),
        measures=tuple(measures),
        unattributed=reasons,
        counts={
            LATE: int(len(back) - np.count_nonzero(back)),
            UNSYNCHRONISED: int(len(synchronised) - np.count_nonzero(synchronised)),
            NEGATIVE: negative,
        },
        faults=_reasons(view.clock_faults, names, flow[~synchronised]),
    )


def delivery_ratio(bits: Iterable[int]) -> float | None:
    """QoS delivery ratio: the mean of the slots' q (eq. 2 for the round trip, eq. 9 for a hop).

    None where there is no slot. ValueError for a q that is neither 0 nor 1.

    >>> delivery_ratio([1, 0, 1, 1])
    0.75
    """
    slots = met = 0
    for q in bits:
        if q not in (0, 1):
            raise ValueError(f"q of slot {slots} is {q!r}, neither 0 nor 1")
        slots += 1
        met += int(q)
    return met / slots if slots else None


def _reasons(faults: Mapping[str, str], names: list[str], flow: NDArray[np.intp]) -> dict[str, int]:
    """Unsynchronised frames by reason; ``flow`` indexes ``names``, one entry a frame."""
    out: dict[str, int] = {}
    if faults and len(flow):
        for name, frames in zip(names, np.bincount(flow, minlength=len(names)).tolist(), strict=True):
            if frames and name in faults:
                out[faults[name]] = out.get(faults[name], 0) + frames
    return out


@dataclass(frozen=True, slots=True)
class _Judged:
    """``flow``: of each frame, 0 to ``n_flows`` - 1. ``judged``: those that are; of ``blind`` ones frames
    came that could not be used."""

    flow: NDArray[np.intp]
    judged: list[int]
    n_flows: int
    blind: set[int]


def _judge(
    name: str,
    delay: NDArray[np.int64],
    usable: NDArray[np.bool_],
    unknown: NDArray[np.bool_],
    of: _Judged,
    budget_ms: float,
    metric: Metric,
) -> Measure:
    """Hold each judged flow's metric of its usable delays (ns) against a budget."""
    flow, judged = of.flow, of.judged
    delay, its_flow = delay[usable], flow[usable]
    counts = np.bincount(its_flow, minlength=of.n_flows)
    if metric.percentile is None:
        sums = np.bincount(its_flow, weights=delay, minlength=of.n_flows)
        values = (sums / (np.maximum(counts, 1) * _MS)).tolist()
    else:
        values = _percentiles(delay, its_flow, counts, metric.percentile)
    has_delay = (counts > 0).tolist()
    violated = missing = False
    out: list[float | None] = []
    for i in judged:
        if has_delay[i]:
            out.append(values[i])
            violated = violated or values[i] > budget_ms
        else:
            out.append(None)
            if i in of.blind or (unknown & (flow == i)).any():
                missing = True
            else:
                violated = True
    q = 0 if violated else None if missing else 1
    return Measure(name, "ms", "lower", tuple(out), (budget_ms,) * len(out), q, len(delay))


def _percentiles(
    delay: NDArray[np.int64], flow: NDArray[np.intp], counts: NDArray[np.intp], percentile: float
) -> list[float]:
    """Percentile of each flow's delays (ns) in ms; 0 for a flow without one."""
    if not len(delay):
        return [0.0] * len(counts)
    ordered = delay[np.lexsort((delay, flow))]
    first = np.cumsum(counts) - counts
    rank = np.maximum(counts - 1, 0) * (percentile / 100)
    below = np.floor(rank).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(counts - 1, 0))
    last = len(ordered) - 1
    low = ordered[np.minimum(first + below, last)]
    high = ordered[np.minimum(first + above, last)]
    values: list[float] = ((low + (high - low) * (rank - below)) / _MS).tolist()
    return values


def _idle(budgets: Budgets, reasons: Mapping[Lever, Reason]) -> Outcome:
    return _without_frames(budgets, 1, (), reasons, busy=False)


def _no_window(view: SliceView, budgets: Budgets, reasons: Mapping[Lever, Reason]) -> Outcome:
    names = tuple(
        f.flow
        for f in view.users
        if f.start_ns < view.closed_ns and (f.stop_ns == 0 or f.stop_ns > view.opened_ns)
    )
    return _without_frames(budgets, None, names, reasons, busy=True) if names else _idle(budgets, reasons)


def _without_frames(
    budgets: Budgets,
    met: int | None,
    names: tuple[str, ...],
    reasons: Mapping[Lever, Reason],
    *,
    busy: bool,
) -> Outcome:
    none, n = (None,) * len(names), len(names)
    limits = (budgets.round_trip_ms, *map(budgets.of, HOPS))
    return Outcome(
        met=met,
        busy=busy,
        users=names,
        measures=tuple(
            Measure(name, "ms", "lower", none, (limit,) * n, met, 0)
            for name, limit in zip(MEASURES, limits, strict=True)
        ),
        unattributed=reasons,
        counts=dict.fromkeys((LATE, UNSYNCHRONISED, NEGATIVE), 0),
    )
