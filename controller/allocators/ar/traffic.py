"""What a slice's reports and frames tell beside its QoS: how long queues are and how long frames wait."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.core.measure import Lever
from controller.core.observation import Flow, Frames, MacReport

_MS = 1_000_000


def queue_ms(reports: Sequence[MacReport], flows: Sequence[Flow], slice_id: str, hop: Lever) -> list[float]:
    """How old the MAC queue of a radio hop is at each report: the time in which its bytes are offered.

    The rate is that of the flows active at the report, or what the MAC carried between the reports before and
    at it where that is more. 0 where nothing waits, infinite where the rate is 0.
    """
    downlink = hop is Lever.DL
    out = []
    before: tuple[int, int] | None = None
    for report in reports:
        columns = report.dl if downlink else report.ul
        rows = [i for i, name in enumerate(report.slice) if name == slice_id]
        queued = sum(columns.queued_bytes[i] for i in rows)
        now = report.time_ns
        rate = sum(
            f.dl_bps if downlink else f.ul_bps
            for f in flows
            if f.start_ns <= now and (f.stop_ns == 0 or f.stop_ns > now)
        )
        if columns.lc_bytes:
            carried = sum(columns.lc_bytes[i] for i in rows)
            if before is not None and now > before[0]:
                rate = max(rate, (carried - before[1]) * 8e9 / (now - before[0]))
            before = now, carried
        out.append(0.0 if not queued else queued * 8e3 / rate if rate > 0 else float("inf"))
    return out


def waiting_ms(frames: Frames, hop: Lever, end_ns: int) -> float:
    """Age in the hop of the oldest frame that is in it at ``end_ns``; 0 where there is none.

    What is not synchronised is in no hop. Frames that a later time is known of have left it. One that a frame
    which entered after it has overtaken is lost: a hop is first in, first out for each flow.
    """
    times = (frames.ue_sent, frames.edge_received, frames.edge_sent, frames.ue_received)
    i = (Lever.UL, Lever.EDGE, Lever.DL).index(hop)
    inside = (times[i] > 0) & (times[i] < end_ns) & frames.synchronised
    for later in times[i + 1 :]:
        inside &= later == 0
    if not inside.any():
        return 0.0
    left = (times[i] > 0) & ~inside & (sum(later > 0 for later in times[i + 1 :]) > 0)
    last = np.zeros(int(frames.flow.max()) + 1, np.int64)
    np.maximum.at(last, frames.flow[left], times[i][left])
    inside &= times[i] >= last[frames.flow]
    entered = times[i][inside]
    return float((end_ns - entered.min()) / _MS) if len(entered) else 0.0


def highest(demands: Sequence[float], n: int) -> float | None:
    """The highest mean of ``n`` consecutive demands (or of all, where there are fewer); None without one."""
    if not demands:
        return None
    n = min(n, len(demands))
    sums = np.convolve(demands, np.ones(n), "valid")
    return float(sums.max()) / n
