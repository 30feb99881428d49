"""What came of a control slot: frames in time, their rate, latency and quality, against what users were
given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.base import SliceView
from controller.allocators.vr.options import VrOptions
from controller.core.hops import Carrier
from controller.core.measure import Lever, Measure, Outcome, Reason
from controller.core.observation import Samples
from wire.definitions import cloud_gaming, nr
from wire.definitions.cloud_gaming import FloatArray

BoolArray = NDArray[np.bool_]

LATENCY, RATE, QUALITY, PIXELS, GPU = range(5)
"""Columns of the table ``delivered``: ms, Hz, sum of attention ln(class / lowest), pixels, ms."""
_LATE: Final = 1e-3
"""Of 1/f: float32 on the way."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What a user was given: frame rate, the QoE of that, and PRBs of the downlink at the user's MCS."""

    frame_rate_hz: float
    qoe: float
    prb: float


def judge(
    view: SliceView,
    options: VrOptions,
    promises: Mapping[str, Promise],
    carrier: Carrier,
    unattributed: Mapping[Lever, Reason],
) -> Outcome:
    """Five measures of each user, judged on the frames that were due between ``begin_ns`` and ``end_ns``.

    ``on_time``: the share of them that was there within 1/f, against the option of that name. ``qoe``:
    ln(f/30) of the frame rate that was in time (1 Hz at least) plus the mean quality of those frames, against
    what was given; quality is by the attention that the users had then. ``latency``: the mean of the frames
    that came, in ms, against 1/f. ``frame_rate``: of the frames in time. ``dl_prb``: PRBs in each downlink
    slot that the user really had, HARQ included, against what the settings need.

    The slice has met its promise where a share ``users`` of those who were given something, rounded down and
    one at least, had ``on_time`` kept. ``counts``: ``promises`` that were judged and ``promises_kept``,
    ``frames`` due and ``frames_on_time``. ``faults``: rows with a number that cannot be.
    """
    users = view.users
    rows = within(view, "delivered")
    faults = _faults(rows)
    rows = rows if not faults else _usable(rows)
    n = len(users)
    share: list[float | None] = [None] * n
    qoe: list[float | None] = [None] * n
    latency: list[float | None] = [None] * n
    rate: list[float | None] = [None] * n
    seconds = max((view.end_ns - view.begin_ns) / 1e9, 1e-3)
    frames = frames_on_time = 0
    budget = [1e3 / cloud_gaming.FRAME_RATES_HZ[0]] * n
    for i, user in enumerate(users):
        own = rows.values[rows.flow == i].astype(np.float64)
        if not len(own):
            continue
        ms = own[:, LATENCY]
        budget[i] = 1e3 / float(own[:, RATE].max())
        good = on_time(own)
        frames, frames_on_time = frames + len(own), frames_on_time + int(good.sum())
        share[i] = float(good.mean())
        there = seconds * _present_share(view, user.start_ns, user.stop_ns)
        rate[i] = float(good.sum()) / max(there, 1e-3)
        quality = float(own[good, QUALITY].mean()) if good.any() else 0.0
        qoe[i] = quality + log(max(rate[i] or 0.0, 1.0) / cloud_gaming.FRAME_RATES_HZ[0])
        latency[i] = float(ms[np.isfinite(ms)].mean()) if np.isfinite(ms).any() else None
    kept = [None if s is None else s >= options.on_time - 1e-9 for s in share]
    given = [promises.get(u.flow) for u in users]
    judged = [k for k, p in zip(kept, given, strict=True) if p is not None and k is not None]
    enough = max(int(options.users * len(judged) + 1e-9), 1)
    met = int(sum(judged) >= enough) if judged else None
    measures = (
        Measure("on_time", "1", "higher", tuple(share), (options.on_time,) * n, met, frames),
        Measure(
            "qoe", "1", "higher", tuple(qoe), tuple(0.0 if p is None else p.qoe for p in given), None, frames
        ),
        Measure("latency", "ms", "lower", tuple(latency), tuple(budget), None, frames),
        Measure(
            "frame_rate",
            "Hz",
            "higher",
            tuple(rate),
            tuple(0.0 if p is None else p.frame_rate_hz for p in given),
            None,
            frames,
        ),
        Measure(
            "dl_prb",
            "PRB",
            "higher",
            tuple(_prb(view, carrier)),
            tuple(0.0 if p is None else p.prb for p in given),
            None,
            len(view.reports),
        ),
    )
    return Outcome(
        met=met,
        busy=any(k is not None for k in kept),
        promised=bool(judged) or all(k is None for k in kept),
        users=tuple(u.flow for u in users),
        measures=measures,
        unattributed=unattributed,
        counts={
            "promises": len(judged),
            "promises_kept": sum(judged),
            "frames": frames,
            "frames_on_time": frames_on_time,
        },
        faults=faults,
    )


def on_time(rows: FloatArray) -> BoolArray:
    """Which frames were there within 1/f: bool [n] of rows of the table ``delivered``; NaN never came."""
    in_time: BoolArray = rows[:, LATENCY] * rows[:, RATE] <= 1e3 * (1.0 + _LATE)
    return in_time


def within(view: SliceView, table: str) -> Samples:
    """Rows of a table from the part of the slot that is judged."""
    rows = view.samples.get(table)
    if rows is None:
        return Samples(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 5), np.float32))
    chosen = (rows.time_ns >= view.begin_ns) & (rows.time_ns < view.end_ns)
    return Samples(rows.flow[chosen], rows.time_ns[chosen], rows.values[chosen])


def present(view: SliceView) -> frozenset[str]:
    """The users who were there all the time that is judged; none where there is no such time."""
    if view.begin_ns >= view.end_ns:
        return frozenset()
    begin, end = view.begin_ns, view.end_ns
    return frozenset(u.flow for u in view.users if u.start_ns <= begin and not 0 < u.stop_ns < end)


def silent(view: SliceView) -> frozenset[str]:
    """Of the users who were there all that time those of whose frames no row has come."""
    delivering = set(within(view, "delivered").flow.tolist())
    return present(view) - {u.flow for i, u in enumerate(view.users) if i in delivering}


def _present_share(view: SliceView, start_ns: int, stop_ns: int) -> float:
    end = view.end_ns if not stop_ns else min(stop_ns, view.end_ns)
    length = view.end_ns - view.begin_ns
    return max(end - max(start_ns, view.begin_ns), 0) / length if length > 0 else 1.0


def _impossible(rows: Samples) -> dict[str, BoolArray]:
    v = rows.values
    return {
        "latency below 0": v[:, LATENCY] < 0.0,
        "frame rate not above 0": ~((v[:, RATE] > 0.0) & np.isfinite(v[:, RATE])),
        "quality not from 0": ~((v[:, QUALITY] >= 0.0) & np.isfinite(v[:, QUALITY])),
        "pixels not from 0": ~((v[:, PIXELS] >= 0.0) & np.isfinite(v[:, PIXELS])),
    }


def _faults(rows: Samples) -> dict[str, int]:
    return {why: int(bad.sum()) for why, bad in _impossible(rows).items() if bad.any()}


def _usable(rows: Samples) -> Samples:
    good = ~np.any(list(_impossible(rows).values()), axis=0)
    return Samples(rows.flow[good], rows.time_ns[good], rows.values[good])


def _prb(view: SliceView, carrier: Carrier) -> list[float | None]:
    """PRBs in each downlink slot that each user's UE had in mean, from the gNB's counters."""
    if len(view.reports) < 2:
        return [None] * len(view.users)
    first, last = view.reports[0], view.reports[-1]
    slots = (last.time_ns - first.time_ns) / nr.slot_ns(carrier.scs_khz)
    slots *= carrier.tdd.share("dl", guard=carrier.guard)
    before = dict(zip(first.ue_id, first.dl.prb_slots, strict=False))
    after = dict(zip(last.ue_id, last.dl.prb_slots, strict=False))
    out: list[float | None] = []
    for user in view.users:
        ue = user.ue_id
        known = slots > 0 and ue in before and ue in after and after[ue] >= before[ue]
        out.append((after[ue] - before[ue]) / slots if known else None)
    return out
