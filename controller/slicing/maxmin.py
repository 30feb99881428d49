"""Max-min fair division of a cell's PRBs among the demands of its slices."""

from __future__ import annotations

from collections.abc import Mapping


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
