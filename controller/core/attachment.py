"""Which UE a flow is of: what its host says, held against the UEs that the gNB reports.

A host names a UE once, when its flow starts. A gNB without a core names its UEs by their RNTI, which is
another one after each attach, and a client may have been given a name that the gNB never had. Who looks a
flow's UE up in the reports and does not find it must not read that as no demand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from controller.core.observation import Flow, MacReport


def unreported(flows: Iterable[Flow], reports: Sequence[MacReport], slice_id: str) -> tuple[Flow, ...]:
    """The flows of a slice that were active at a report which does not have their UE in that slice."""
    members = [(r.time_ns, _members(r.ue_id, r.slice, slice_id)) for r in reports]
    return tuple(
        f
        for f in flows
        if f.slice == slice_id
        and any(
            f.start_ns <= time_ns and (not f.stop_ns or f.stop_ns > time_ns) and f.ue_id not in ues
            for time_ns, ues in members
        )
    )


@lru_cache(maxsize=256)
def _members(ue_ids: tuple[str, ...], slices: tuple[str, ...], slice_id: str) -> frozenset[str]:
    """A cell's reports name the same UEs again and again."""
    return frozenset(ue for ue, name in zip(ue_ids, slices, strict=True) if name == slice_id)


def followed(flows: Collection[Flow], report: MacReport, left_out: Collection[str] = ()) -> dict[str, str]:
    """Flow -> UE, for the active flows that name a UE which the cell does not have, where it is certain whose
    they are.

    The gNB says which of its UEs are in a slice, by S-NSSAI or by binding. Where the flows of a slice name
    one UE that the cell does not have, and the slice has one UE that no flow names, it is that one.
    ``left_out`` are UEs that the cell has too, though they are not in ``report``.
    """
    attached = frozenset(report.ue_id) | frozenset(left_out)
    active = [f for f in flows if not f.stop_ns]
    out: dict[str, str] = {}
    for slice_id in {f.slice for f in active if f.ue_id not in attached}:
        of_slice = [f for f in active if f.slice == slice_id]
        named = {f.ue_id for f in of_slice}
        gone = named - attached
        unnamed = _members(report.ue_id, report.slice, slice_id) - named
        if len(gone) == len(unnamed) == 1:
            (ue,) = unnamed
            out |= {f.flow: ue for f in of_slice if f.ue_id in gone}
    return out
