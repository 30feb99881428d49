"""What came of a control slot: hits, VCHR, latency and PRBs of each user against its promise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from controller.allocators.base import SliceView
from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.promises import Promises
from controller.allocators.views import faults, kept_by_share, prb_had, unreported, within
from controller.core.hops import Carrier
from controller.core.measure import Lever, Measure, Outcome, Reason
from controller.core.observation import Samples
from wire.definitions.poses import POSE, FloatArray

LATENCY = len(POSE)
"""The column of the table ``pose`` that holds the latency in ms."""


def judge(
    view: SliceView,
    options: MarOptions,
    promises: Promises,
    carrier: Carrier,
    unattributed: Mapping[Lever, Reason],
) -> Outcome:
    """Four measures of each user, judged on what was captured between ``begin_ns`` and ``end_ns``.

    ``vchr``: what a share rho of the user's frames reached, against V: the promise of equation (7) is kept
    where it is at least V. ``hits``: the share of frames of at least V, against rho. ``upload``: mean ms
    from capture to the pose known at the edge, against T. ``ul_prb``: PRBs in each uplink slot that the user
    really had, HARQ included, against those of its b*; 0 where it had none.

    The slice has met its promise where a share epsilon of the users who were promised something, rounded down
    and one at least, had it kept; where nobody was it is not known. ``counts``:
    ``promises`` that were judged and ``promises_kept``, ``frames`` and ``frames_hit``. ``faults``: rows with
    a VCHR outside 0..1 or a latency below 0, which is taken as not known.
    """
    users = view.users
    n = len(users)
    hits, poses = within(view, "hits"), within(view, "pose")
    reached: list[float | None] = [None] * n
    share: list[float | None] = [None] * n
    frames = frames_hit = 0
    for i in range(n):
        rates = hits.values[hits.flow == i, 0].astype(np.float64) if len(hits) else np.empty(0)
        rates = rates[(rates >= 0.0) & (rates <= 1.0)]
        if len(rates):
            hit = rates >= options.vchr - 1e-6  # float32 on the way
            share[i] = float(hit.mean())
            reached[i] = float(_reached(rates, options.rho))
            frames, frames_hit = frames + len(rates), frames_hit + int(hit.sum())
    kept = [None if s is None else s >= options.rho - 1e-9 for s in share]
    given = [promises.of.get(u.flow) for u in users]
    promised = [p is not None and p.reliability is not None for p in given]
    judged = [k for k, p in zip(kept, promised, strict=True) if p and k is not None]
    met = kept_by_share(judged, options.epsilon)
    latency = _latency(poses, n)
    known = [ms for ms in latency if ms is not None]
    got = prb_had(view, carrier, "ul")
    measures = (
        Measure("vchr", "1", "higher", tuple(reached), (options.vchr,) * n, met, frames),
        Measure("hits", "1", "higher", tuple(share), (options.rho,) * n, met, frames),
        Measure(
            "upload",
            "ms",
            "lower",
            tuple(latency),
            (options.latency_ms,) * n,
            int(max(known) <= options.latency_ms) if known else None,
            len(poses),
        ),
        Measure(
            "ul_prb",
            "PRB",
            "higher",
            tuple(got),
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
            "frames_hit": frames_hit,
        },
        faults=_faults(hits, poses),
    )


def silent(view: SliceView) -> frozenset[str]:
    """Of the users who were there all that time those of whose frames no row has come."""
    return unreported(view, "hits")


def _faults(hits: Samples, poses: Samples) -> dict[str, int]:
    """Rows with a number that cannot be, by what it is."""
    rates, latency = hits.values[:, 0], poses.values[:, -1]
    return faults({"vchr outside 0..1": (rates < 0.0) | (rates > 1.0), "latency below 0": latency < 0.0})


def _reached(rates: FloatArray, rho: float) -> float:
    """The highest level that at least a share ``rho`` of the rates reaches."""
    ordered = np.sort(rates)[::-1]
    least = max(int(np.ceil(rho * len(rates) - 1e-9)), 1)
    return float(ordered[least - 1])


def _latency(poses: Samples, users: int) -> list[float | None]:
    """Mean latency of each user's uploads in ms."""
    out: list[float | None] = []
    for i in range(users):
        ms = poses.values[poses.flow == i, LATENCY].astype(np.float64) if len(poses) else np.empty(0)
        ms = ms[np.isfinite(ms) & (ms >= 0.0)]
        out.append(float(ms.mean()) if len(ms) else None)
    return out
