"""What slices reserve for a window becomes the minimum of their shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controller.core.decision import Want
from controller.core.spec import Share
from controller.slicing.floors import fill


def with_reserved(
    prb: int, wants: Mapping[str, Want], shares: Mapping[str, Share], reserved: Mapping[str, int]
) -> dict[str, Share]:
    """The shares with the ``min`` of each slice raised to what it has ``reserved``, in PRB of one direction.

    No further than to what it wants and its share allows: what is reserved and not wanted is free for
    others (TS 28.541, rRMPolicyMinRatio). Floors, configured minimums and what is dedicated come before;
    reservations that do not all fit beside them raise each minimum by equal amounts (max-min fairly).
    """
    out = {name: shares.get(name, Share()) for name in wants}
    if not any(reserved.values()):
        return out
    wanted = {name: min(want.prb, out[name].max) for name, want in wants.items()}
    before = {
        name: max(out[name].dedicated, min(wanted[name], max(want.floor, out[name].min)))
        for name, want in wants.items()
    }
    raised = dict.fromkeys(wants, 0)
    targets = {name: max(0, min(wanted[name], reserved.get(name, 0)) - before[name]) for name in wants}
    fill(raised, targets, max(0, prb - sum(before.values())))
    return {
        name: replace(share, min=before[name] + raised[name]) if raised[name] else share
        for name, share in out.items()
    }
