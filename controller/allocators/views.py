"""What allocators read from a :class:`SliceView`: who is there, rows that count, PRBs that users had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from controller.allocators.base import SliceView
from controller.core.hops import Carrier
from controller.core.measure import Lever, Reason
from controller.core.observation import Flow, Samples
from wire.definitions import nr


def active(view: SliceView) -> tuple[Flow, ...]:
    """The users who go on, each once."""
    found: dict[str, Flow] = {}
    for user in view.users:
        if not user.stop_ns or user.stop_ns > view.closed_ns:
            found[user.flow] = user
    return tuple(found.values())


def attributed(view: SliceView, lever: Lever) -> bool:
    """Whether users did as the settings had it, some of them at least, with PRBs of a direction that are
    known.

    For a slice whose settings fit the PRBs that were granted and not those that were asked for: less and more
    than asked for are as good.
    """
    return settings_count(view) and granted_counts(view, lever)


def settings_count(view: SliceView) -> bool:
    """Whether users did as the settings had it, some of them at least."""
    settings = view.unattributed.get(Lever.SETTINGS)
    some = settings is Reason.SETTINGS_NOT_APPLIED and not view.settings.keys() <= view.unapplied
    return settings is None or some


def granted_counts(view: SliceView, lever: Lever) -> bool:
    """Whether a lever stood as asked for, or with less or more, of which it is known how much."""
    reason = view.unattributed.get(lever)
    return reason is None or reason.short or reason.more


def present(view: SliceView) -> frozenset[str]:
    """The users who were there all the time that is judged; none where there is no such time."""
    if view.begin_ns >= view.end_ns:
        return frozenset()
    begin, end = view.begin_ns, view.end_ns
    return frozenset(u.flow for u in view.users if u.start_ns <= begin and not 0 < u.stop_ns < end)


def within(view: SliceView, table: str, columns: int = 1) -> Samples:
    """Rows of a table from the part of the slot that is judged; without any, as many ``columns``."""
    rows = view.samples.get(table)
    if rows is None:
        return Samples(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, columns), np.float32))
    chosen = (rows.time_ns >= view.begin_ns) & (rows.time_ns < view.end_ns)
    return Samples(rows.flow[chosen], rows.time_ns[chosen], rows.values[chosen])


def unreported(view: SliceView, table: str) -> frozenset[str]:
    """Of the users who were there all that time those of whom a table has no row."""
    reporting = set(within(view, table).flow.tolist())
    return present(view) - {u.flow for i, u in enumerate(view.users) if i in reporting}


def faults(impossible: Mapping[str, NDArray[np.bool_]]) -> dict[str, int]:
    """How many rows cannot be, by what it is, from bool [rows] for each; {} for none."""
    return {why: int(bad.sum()) for why, bad in impossible.items() if bad.any()}


def usable(rows: Samples, impossible: Mapping[str, NDArray[np.bool_]]) -> Samples:
    """The rows without those that cannot be."""
    good = ~np.any(list(impossible.values()), axis=0)
    return Samples(rows.flow[good], rows.time_ns[good], rows.values[good])


def kept_by_share(judged: Sequence[bool], share: float) -> int | None:
    """Whether a share of the promises that were judged, rounded down and one at least, was kept; None where
    none was judged."""
    return int(sum(judged) >= max(int(share * len(judged) + 1e-9), 1)) if judged else None


def prb_had(view: SliceView, carrier: Carrier, direction: Literal["ul", "dl"]) -> list[float | None]:
    """PRBs in each slot of a direction that each user's UE had in mean, HARQ included, from the gNB's
    counters; None where they do not tell."""
    if len(view.reports) < 2:
        return [None] * len(view.users)
    first, last = view.reports[0], view.reports[-1]
    slots = (last.time_ns - first.time_ns) / nr.slot_ns(carrier.scs_khz)
    slots *= carrier.tdd.share(direction, guard=carrier.guard)
    before, after = (
        dict(zip(r.ue_id, (r.ul if direction == "ul" else r.dl).prb_slots, strict=False))
        for r in (first, last)
    )
    out: list[float | None] = []
    for user in view.users:
        ue = user.ue_id
        known = slots > 0 and ue in before and ue in after and after[ue] >= before[ue]
        out.append((after[ue] - before[ue]) / slots if known else None)
    return out
