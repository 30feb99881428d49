"""Which UE a flow is of: what its host says, held against the UEs that the gNB reports.

A host names a UE once, when its flow starts. A gNB without a core names its UEs by their RNTI, which is
another one after each attach, and a client may have been given a name that the gNB never had. Who looks a
flow's UE up in the reports and does not find it must not read that as no demand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

import numpy as np

from controller.core.measure import Reason
from controller.core.observation import Flow, Frames, MacReport

MISSED = 10
"""A UE that is missing in one of so many reports, or in fewer of them, counts as reported."""
CROSSED = 3
"""So many frames, sent after one report and back before another, tell whether their UE carries them."""
MARGIN_NS = 100_000_000
"""Frames this close to a report may have been counted by the gNB before or after it."""
MIN_FRAME_BYTES = 40
"""Less than any frame and its answer have: the headers of IP and TCP."""


def unmeasured(
    flows: Sequence[Flow], frames: Frames, reports: Sequence[MacReport], slice_id: str
) -> Reason | None:
    """Why the MAC reports say nothing of the demand of a slice's flows; None where they do, or there are no
    flows of it. ``frames`` index ``flows``."""
    own = [flow for flow in flows if flow.slice == slice_id]
    if not own:
        return None
    if not reports:
        return Reason.NO_MAC_REPORT
    if unreported(own, reports, slice_id):
        return Reason.UE_NOT_REPORTED
    return Reason.UE_IDLE if idle(flows, frames, reports, slice_id) else None


def unreported(flows: Iterable[Flow], reports: Sequence[MacReport], slice_id: str) -> tuple[Flow, ...]:
    """The flows of a slice whose UE is not in that slice in the reports made while they were active: in more
    than one of :data:`MISSED` of them."""
    of_slice = [f for f in flows if f.slice == slice_id]
    if not of_slice:
        return ()
    # A cell's reports have the same UEs again and again.
    columns = {(r.ue_id, r.slice) for r in reports}
    always = frozenset.intersection(*(_members(*c, slice_id) for c in columns)) if columns else frozenset()
    suspect = [f for f in of_slice if f.ue_id not in always]
    if not suspect:
        return ()
    members = [(r.time_ns, _members(r.ue_id, r.slice, slice_id)) for r in reports]
    return tuple(f for f in suspect if _missed(f, members))


def _missed(flow: Flow, members: Sequence[tuple[int, frozenset[str]]]) -> bool:
    """Whether the UE of a flow is missing in too many of the reports (their times, and UEs of the slice) that
    were made while it was active."""
    stop_ns = flow.stop_ns
    seen = [
        flow.ue_id in ues
        for time_ns, ues in members
        if flow.start_ns <= time_ns and (not stop_ns or stop_ns > time_ns)
    ]
    return MISSED * seen.count(False) > len(seen)


def idle(
    flows: Sequence[Flow], frames: Frames, reports: Sequence[MacReport], slice_id: str
) -> tuple[Flow, ...]:
    """The flows of a slice whose frames came back while the bytes of their UE's logical channels stood still.

    ``frames`` index ``flows``. Such frames do not cross the radio, or not by this UE: a client that reaches
    the edge by another interface, the context of a UE that has come back by another name, a MAC state that is
    no longer written. A UE whose counters are all zero is one whose gNB does not count.
    """
    if len(frames) < CROSSED or len(reports) < 2:
        return ()
    out = []
    for ue_id in {f.ue_id for f in flows if f.slice == slice_id}:
        first, last = (
            _first_counters(reports, ue_id, slice_id),
            _first_counters(reports[::-1], ue_id, slice_id),
        )
        if first is None or last is None or not any(last[1]):
            continue
        carried = [after - before for before, after in zip(first[1][:2], last[1][:2], strict=True)]
        if min(carried) < 0 or sum(carried) >= len(frames) * MIN_FRAME_BYTES:
            continue
        of_ue = [i for i, f in enumerate(flows) if f.ue_id == ue_id and f.slice == slice_id]
        back = frames.ue_received
        crossed = np.isin(frames.flow, of_ue) & (back > 0) & (back < last[0] - MARGIN_NS)
        n = int(np.count_nonzero(crossed & (frames.ue_sent > first[0] + MARGIN_NS)))
        if n >= CROSSED and sum(carried) < n * MIN_FRAME_BYTES:
            out += [flows[i] for i in of_ue]
    return tuple(out)


def _first_counters(
    reports: Iterable[MacReport], ue_id: str, slice_id: str
) -> tuple[int, tuple[int, ...]] | None:
    """The first of the reports that has the counters of a UE of a slice: its time, and what it says."""
    for report in reports:
        if (found := _counters(report, ue_id, slice_id)) is not None:
            return report.time_ns, found
    return None


def _counters(report: MacReport, ue_id: str, slice_id: str) -> tuple[int, ...] | None:
    """What a UE of a slice has carried: bytes up and down, and PRBs; None where that is not reported."""
    if not report.ul.lc_bytes or ue_id not in report.ue_id:
        return None
    i = report.ue_id.index(ue_id)
    if report.slice[i] != slice_id:
        return None
    columns = (report.ul.lc_bytes, report.dl.lc_bytes, report.ul.prb_slots, report.dl.prb_slots)
    return tuple(column[i] for column in columns)


@lru_cache(maxsize=256)
def _members(ue_ids: tuple[str, ...], slices: tuple[str, ...], slice_id: str) -> frozenset[str]:
    """A cell's reports name the same UEs again and again."""
    return frozenset(ue for ue, name in zip(ue_ids, slices, strict=True) if name == slice_id)


class Follower:
    """Takes a flow whose UE the cell does not have for another UE's, where one is left that it must be.

    The gNB says which of its UEs are in a slice, by S-NSSAI or by binding. Where the active flows of a slice
    name one UE that the cell does not have, and the slice has one UE that no flow names, the flows are that
    one's: from the second control slot on, in which it is so. Two UEs that were reported side by side, or
    that are both bound by name, are two.
    """

    def __init__(self) -> None:
        self.followed: dict[str, str] = {}
        """Flow -> the UE that it is taken to be of."""
        self._candidates: dict[str, str] = {}
        self._beside: dict[str, set[str]] = {}

    def close(
        self,
        flows: Collection[Flow],
        reports: Sequence[MacReport],
        left_out: Collection[str] = (),
        bound: Collection[str] = (),
    ) -> None:
        """A control slot ends: ``flows`` are all that are remembered, ``left_out`` UEs that the gNB has
        though they are not in its last report, ``bound`` those that the configuration names."""
        named = {f.ue_id for f in flows}
        self._beside = {ue: of for ue, of in self._beside.items() if ue in named}
        for ue_ids in {r.ue_id for r in reports}:
            for ue in named.intersection(ue_ids):
                self._beside.setdefault(ue, set()).update(ue_ids)
        before = self._candidates
        self._candidates = {}
        if reports:
            attached = {*reports[-1].ue_id, *left_out}
            active = [f for f in flows if not f.stop_ns]
            for slice_id in {f.slice for f in active}:
                of_slice = [f for f in active if f.slice == slice_id]
                gone = {f.ue_id for f in of_slice} - attached
                unnamed = _members(reports[-1].ue_id, reports[-1].slice, slice_id) - named
                if len(gone) == len(unnamed) == 1:
                    (old,), (new,) = gone, unnamed
                    if new not in self._beside.get(old, ()) and not {old, new} <= {*bound}:
                        self._candidates |= {f.flow: new for f in of_slice if f.ue_id == old}
        self.followed = {flow: ue for flow, ue in self._candidates.items() if before.get(flow) == ue}
