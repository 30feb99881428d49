"""No grant below the smallest one of the gNB's scheduler."""

from __future__ import annotations

from collections.abc import Mapping

from controller.core.decision import Want
from controller.core.spec import Share

NONE_WHOLE = "less than the smallest grant"
GIVEN_UP = "the smallest grant of another slice"


def whole_grants(
    divided: Mapping[str, tuple[int, str]],
    wants: Mapping[str, Want],
    shares: Mapping[str, Share],
    least: int,
    turn: int,
) -> dict[str, tuple[int, str]]:
    """What was divided (slice -> PRBs, and why they are less than wanted), with none of those in ``wants``
    between 0 and ``least``, which would carry no data.

    Their PRBs are put together, and what is missing for a whole grant comes from the slices that have most,
    above ``least`` and above their own minimum; where there are none, those who get nothing take turns, by
    ``turn``. The sum does not rise.
    """
    out = dict(divided)
    short = [name for name in wants if 0 < out[name][0] < least]
    if not short:
        return out
    first = turn % len(short)
    pool = sum(out[name][0] for name in short)
    prb = {name: out[name][0] for name in wants} | dict.fromkeys(short, 0)
    for name in short[first:] + short[:first]:
        kept = {n: max(least, shares[n].min, shares[n].dedicated) for n in wants}
        can_give = sum(max(0, prb[n] - kept[n]) for n in wants if n not in short)
        if pool + can_give < least:
            continue
        while pool < least:
            donor = max((n for n in wants if n not in short and prb[n] > kept[n]), key=lambda n: prb[n])
            prb[donor] -= 1
            pool += 1
        prb[name], pool = least, pool - least
    for name in wants:
        before, why = out[name]
        if prb[name] < before:
            why = NONE_WHOLE if name in short else GIVEN_UP
        out[name] = prb[name], why
    return out
