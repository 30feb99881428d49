"""What came of a control slot: what users said of late against their agreements, and what they saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from controller.allocators.base import SliceView
from controller.allocators.video.options import VideoOptions
from controller.allocators.views import kept_by_share, prb_had, present
from controller.core.hops import Carrier
from controller.core.measure import Lever, Measure, Outcome, Reason

JUDGED_SCORES: Final = 18
"""The latest of a user, by which its agreement is judged: those of the shortest slice window, 3 minutes."""
LEAST_SCORES: Final = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """What a user's ratings in a control slot were, each a mean: s a minute, 1, kbit/s while fetching."""

    stalled: float
    quality: float
    kbps: float | None


@dataclass(frozen=True, slots=True)
class Promise:
    """What a user was to have: the rate and bitrate in kbit/s, PRBs, the opinion that its model expects, what
    it would see; ``kept``: whether that keeps its agreement."""

    kbps: float
    bitrate_kbps: float
    prb: float
    expected: float
    stalled: float
    quality: float
    kept: bool


def judge(
    view: SliceView,
    options: VideoOptions,
    scores: Mapping[str, Sequence[float]],
    promised: Mapping[str, Sequence[float]],
    seen: Mapping[str, Seen],
    promises: Mapping[str, Promise],
    agreements: Mapping[str, float],
    carrier: Carrier,
    unattributed: Mapping[Lever, Reason],
    faults: Mapping[str, int],
) -> Outcome:
    """Six measures of each user.

    ``mos``: the mean of its latest :data:`JUDGED_SCORES` scores, of three at least, against its agreement.
    ``stalled`` (s/min), ``quality`` (1) and ``throughput`` (kbit/s while fetching): what it rated in this
    control slot against what it was to see. ``bitrate`` (kbit/s): what it was told against the lowest.
    ``dl_prb``: PRBs in each downlink slot that it really had, HARQ included, against those of the plan.

    A promise is judged by the latest scores under one, ``promised``. The slice has met its promise where a
    share ``users`` of those whose agreement was promised, rounded down and one at least, have it kept.
    ``counts``: ``promises`` that were judged and ``promises_kept``, ``ratings`` in this slot, and
    ``out_of_reach``: users whose agreement nothing keeps.
    """
    users = view.users
    there = present(view)
    mean = [_mean(scores.get(u.flow, ())) if u.flow in there else None for u in users]
    kept = [_mean(promised.get(u.flow, ())) if u.flow in there else None for u in users]
    targets = tuple(agreements.get(u.flow, options.ela) for u in users)
    given = [promises.get(u.flow) for u in users]
    saw = [seen.get(u.flow) for u in users]
    judged = [
        value >= target - 1e-9
        for value, target, p in zip(kept, targets, given, strict=True)
        if value is not None and p is not None and p.kept
    ]
    met = kept_by_share(judged, options.users)

    def columns(name: str) -> tuple[tuple[float | None, ...], tuple[float, ...]]:
        """What users saw, and what they were to see."""
        return (
            tuple(None if s is None else getattr(s, name) for s in saw),
            tuple(0.0 if p is None else float(getattr(p, name)) for p in given),
        )

    rated = sum(s is not None for s in saw)
    measures = (
        Measure("mos", "mos", "higher", tuple(mean), targets, met, len(judged)),
        Measure("stalled", "s/min", "lower", *columns("stalled"), None, rated),
        Measure("quality", "1", "higher", *columns("quality"), None, rated),
        Measure("throughput", "kbit/s", "higher", *columns("kbps"), None, rated),
        Measure(
            "bitrate",
            "kbit/s",
            "higher",
            tuple(None if p is None else p.bitrate_kbps for p in given),
            tuple(0.0 for _ in users),
            None,
            len(given),
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
    )
    return Outcome(
        met=met,
        busy=any(value is not None for value in mean),
        promised=bool(judged) or all(value is None for value in mean),
        users=tuple(u.flow for u in users),
        measures=measures,
        unattributed=unattributed,
        counts={
            "promises": len(judged),
            "promises_kept": sum(judged),
            "ratings": rated,
            "out_of_reach": sum(p is not None and not p.kept for p in given),
        },
        faults=faults,
    )


def _mean(scores: Sequence[float]) -> float | None:
    return float(np.mean(scores)) if len(scores) >= LEAST_SCORES else None
