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
from controller.allocators.views import faults, kept_by_share, prb_had, unreported, usable, within
from controller.allocators.vr.options import VrOptions
from controller.core.hops import Carrier
from controller.core.measure import Lever, Measure, Outcome, Reason
from controller.core.observation import Samples
from wire.definitions import cloud_gaming
from wire.definitions.cloud_gaming import FloatArray

BoolArray = NDArray[np.bool_]

LATENCY, RATE, QUALITY, PIXELS, GPU = range(5)
COLUMNS = 5
"""Columns of the table ``delivered``: ms, Hz, sum of attention ln(class / lowest), pixels, ms."""
_LATE: Final = 1e-3
"""Of 1/f: float32 on the way."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What a user was given: frame rate, the QoE of that, PRBs of the downlink at the user's radio, and
    whether it was something else than before."""

    frame_rate_hz: float
    qoe: float
    prb: float
    changed: bool = False


def judge(
    view: SliceView,
    options: VrOptions,
    promises: Mapping[str, Promise],
    carrier: Carrier,
    unattributed: Mapping[Lever, Reason],
) -> Outcome:
    """Six measures of each user, judged on the frames that were due between ``begin_ns`` and ``end_ns``.

    ``on_time``: the share of them that was there within 1/f, against the option of that name. ``qoe``:
    ln(f/30) of the frame rate that was in time (1 Hz at least) plus the mean quality of those frames, against
    what was given; quality is by the attention that the users had then. ``latency``: the mean of the frames
    that came, in ms, against 1/f. ``frame_rate``: of the frames in time. ``dl_prb``: PRBs in each downlink
    slot that the user really had, HARQ included, against what the settings need. ``changes``: of the
    settings, a minute.

    The slice has met its promise where a share ``users`` of those who were given something, rounded down and
    one at least, had ``on_time`` kept. ``counts``: ``promises`` that were judged and ``promises_kept``,
    ``frames`` due and ``frames_on_time``, ``settings_changed``. ``faults``: rows with a number that cannot
    be.
    """
    users = view.users
    rows = within(view, "delivered", COLUMNS)
    impossible = _impossible(rows)
    found, rows = faults(impossible), usable(rows, impossible)
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
    per_minute = 60.0 / max((view.closed_ns - view.opened_ns) / 1e9, 1e-3)
    met = kept_by_share(judged, options.users)
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
            tuple(prb_had(view, carrier, "dl")),
            tuple(0.0 if p is None else p.prb for p in given),
            None,
            len(view.reports),
        ),
        Measure(
            "changes",
            "1/min",
            "lower",
            tuple(None if p is None else p.changed * per_minute for p in given),
            (0.0,) * n,
            None,
            len(judged),
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
            "settings_changed": sum(p is not None and p.changed for p in given),
        },
        faults=found,
    )


def on_time(rows: FloatArray) -> BoolArray:
    """Which frames were there within 1/f: bool [n] of rows of the table ``delivered``; NaN never came."""
    in_time: BoolArray = rows[:, LATENCY] * rows[:, RATE] <= 1e3 * (1.0 + _LATE)
    return in_time


def silent(view: SliceView) -> frozenset[str]:
    """Of the users who were there all that time and for whom frames were to be rendered, those of whose
    frames no row has come."""
    paused = {flow for flow, values in view.settings.items() if values.get("frame_rate") == (0.0,)}
    return unreported(view, "delivered") - paused


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
