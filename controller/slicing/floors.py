"""What every arbiter does alike: dedicated PRBs, then floors and minimums of shares, then the rest."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from controller.core.decision import Want
from controller.core.spec import Share
from controller.slicing.base import Arbiter

Gains = Callable[[str], tuple[float, ...]]

_ANY = Share()


class FloorsFirst(Arbiter):
    """Floors and the minimums of shares first; :meth:`raise_grants` says who gets the PRBs above them.

    What a share dedicates is set aside beforehand, and the rest, the common part, is divided. Where the
    floors alone do not fit, they are themselves divided max-min fairly.
    """

    reason: ClassVar[str]
    """Why a slice has less than it wants: others want PRBs too."""

    @abstractmethod
    def raise_grants(
        self,
        granted: dict[str, int],
        wanted: Mapping[str, int],
        gains: Gains,
        prb: int,
    ) -> None:
        """Raise ``granted`` towards ``wanted`` by ``prb`` in all, fewer only where nobody wants more.

        Both are in PRBs of the common part, by slice. ``gains`` of a slice is float [wanted - granted]: what
        each further PRB adds to its satisfaction, which goes from 0 at its floor to 1 where it has all that
        it wants.
        """

    def divide(
        self, direction: str, prb: int, wants: Mapping[str, Want], shares: Mapping[str, Share]
    ) -> dict[str, tuple[int, str]]:
        if prb < 0:
            raise ValueError(f"PRBs must not be negative: {prb=}")
        share = {name: shares.get(name, _ANY) for name in wants}
        wanted = {name: min(want.prb, share[name].max) for name, want in wants.items()}
        if sum(max(wanted[name], share[name].dedicated) for name in wants) <= prb:
            return {name: (wanted[name], _why(wanted[name], wants[name], share[name])) for name in wants}
        own = dict.fromkeys(wants, 0)
        fill(own, {name: min(wanted[name], share[name].dedicated) for name in wants}, prb)
        above = {name: wanted[name] - own[name] for name in wants}
        floors = {name: min(wanted[name], max(w.floor, share[name].min)) for name, w in wants.items()}
        granted = dict.fromkeys(wants, 0)
        left = fill(
            granted,
            {name: max(0, floors[name] - own[name]) for name in wants},
            max(0, prb - sum(s.dedicated for s in share.values())),
        )
        if left:
            least = {name: own[name] + granted[name] - want.floor for name, want in wants.items()}

            def gains(name: str) -> tuple[float, ...]:
                return satisfaction(wants[name])[least[name] : wanted[name] - wants[name].floor]

            self.raise_grants(granted, above, gains, left)
        return {
            name: (got, self.reason if got < wanted[name] else _why(got, wants[name], share[name]))
            for name in wants
            for got in (own[name] + granted[name],)
        }


def satisfaction(want: Want) -> tuple[float, ...]:
    """float [prb - floor]: the want's gains in parts of their sum, as those of services differ in unit.

    Without gains every PRB above the floor is worth the same; what would lose counts as nothing.
    """
    if not want.gain:
        return (1.0 / n,) * n if (n := want.prb - want.floor) else ()
    exponent = math.frexp(want.gain[0])[1]
    # So scaled, no sum overflows, and nothing is rounded: what was equal stays equal.
    parts = [math.ldexp(max(g, 0.0), -exponent) for g in want.gain]
    whole = sum(parts)
    return tuple(p / whole for p in parts) if whole else (0.0,) * len(parts)


def fill(granted: dict[str, int], targets: Mapping[str, int], prb: int) -> int:
    """Raise every grant towards its target, least first; returns the PRBs that are left.

    Progressive filling: the slice with least so far gets the next PRB until nobody wants more or nothing is
    left (Bertsekas & Gallager, Data Networks, 6.5.2). Ties go to the slice named first.
    """
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


def _why(prb: int, want: Want, share: Share) -> str:
    """Why a slice that nobody competes with has less than it wants."""
    return "" if prb == want.prb else f"share of at most {share.max} PRB"
