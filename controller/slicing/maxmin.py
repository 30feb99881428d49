"""Max-min fair division of a cell's PRBs among the demands of its slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from controller.core.decision import Want
from controller.core.spec import Share
from controller.slicing.base import Arbiter

FAIR = "max-min fair share"
"""Why a slice has less than it wants: others want PRBs too."""


class MaxMin(Arbiter):
    """Max-min fairness: floors and the minimums of shares first, then the slice with least gets the next PRB.

    What a share dedicates is set aside beforehand, and the rest divided by :func:`divide`.

    >>> MaxMin().divide("ul", 106, {"ar": Want(90), "video": Want(40)}, {})
    {'ar': (66, 'max-min fair share'), 'video': (40, '')}
    """

    name: ClassVar[str] = "maxmin"

    def divide(
        self, direction: str, prb: int, wants: Mapping[str, Want], shares: Mapping[str, Share]
    ) -> dict[str, tuple[int, str]]:
        share = {name: shares.get(name, _ANY) for name in wants}
        wanted = {name: min(want.prb, share[name].max) for name, want in wants.items()}
        if sum(max(wanted[name], share[name].dedicated) for name in wants) <= prb:
            return {name: (wanted[name], _why(wanted[name], wants[name], share[name])) for name in wants}
        own = divide(prb, {name: min(wanted[name], share[name].dedicated) for name in wants})
        common = max(0, prb - sum(s.dedicated for s in share.values()))
        floors = {name: min(wanted[name], max(w.floor, share[name].min)) for name, w in wants.items()}
        rest = divide(
            common,
            {name: wanted[name] - own[name] for name in wants},
            {name: max(0, floors[name] - own[name]) for name in wants},
        )
        granted = {name: own[name] + rest[name] for name in wants}
        return {
            name: (prb, FAIR if prb < wanted[name] else _why(prb, wants[name], share[name]))
            for name, prb in granted.items()
        }


_ANY = Share()


def _why(prb: int, want: Want, share: Share) -> str:
    """Why a slice that nobody competes with has less than it wants."""
    return "" if prb == want.prb else f"share of at most {share.max} PRB"


def divide(prb: int, wanted: Mapping[str, int], floors: Mapping[str, int] | None = None) -> dict[str, int]:
    """PRBs for each slice, never more than it wants and never more than ``prb`` in total.

    Floors are served first, the rest by progressive filling: the slice with least so far gets the next
    PRB until nobody wants more or nothing is left (Bertsekas & Gallager, Data Networks, 6.5.2). Where the
    floors alone do not fit, they are themselves divided max-min fairly. Ties go to the slice named first.

    Raises ValueError for a negative number of PRBs.

    >>> divide(106, {"ar": 90, "video": 40})
    {'ar': 66, 'video': 40}
    >>> divide(106, {"ar": 30, "video": 40})
    {'ar': 30, 'video': 40}
    """
    floors = floors or {}
    if prb < 0 or any(w < 0 for w in wanted.values()) or any(f < 0 for f in floors.values()):
        raise ValueError(f"PRBs must not be negative: {prb=}, {dict(wanted)=}, {dict(floors)=}")
    if sum(wanted.values()) <= prb:
        return dict(wanted)
    granted = dict.fromkeys(wanted, 0)
    left = _fill(granted, {s: min(floors.get(s, 0), w) for s, w in wanted.items()}, prb)
    _fill(granted, wanted, left)
    return granted


def _fill(granted: dict[str, int], targets: Mapping[str, int], prb: int) -> int:
    """Raise every grant towards its target, least first; returns the PRBs that are left."""
    while prb > 0:
        hungry = [s for s in granted if granted[s] < targets[s]]
        if not hungry:
            break
        least = min(granted[s] for s in hungry)
        level = [s for s in hungry if granted[s] == least]
        above = [granted[s] for s in hungry if granted[s] > least]
        ceiling = min([targets[s] for s in level] + above)
        step = min(ceiling - least, prb // len(level))
        if step == 0:
            for s in level[:prb]:
                granted[s] += 1
            return 0
        for s in level:
            granted[s] += step
        prb -= step * len(level)
    return prb
