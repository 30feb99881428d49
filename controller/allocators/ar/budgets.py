"""Delay budgets of a round trip and its hops (MUCB1 paper, section VII and eq. 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, isfinite
from types import MappingProxyType
from typing import Final

from controller.core.measure import RESOURCES as HOPS
from controller.core.measure import Lever

IMPORTANCE: Final[Mapping[Lever, float]] = MappingProxyType({Lever.UL: 6.0, Lever.EDGE: 2.0, Lever.DL: 3.0})
"""Wanted ratio of a hop's budget to its lowest possible delay: the dearer a hop's resources, the higher."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """The delay that each hop and the round trip may take, in ms.

    ``round_trip_ms`` is the sum of the hops' budgets (eq. 7) where it is not given. ValueError for a
    budget that is not positive and finite.

    >>> Budgets(70, 20, 60).round_trip_ms
    150.0
    """

    ul_ms: float
    edge_ms: float
    dl_ms: float
    round_trip_ms: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ul_ms", "edge_ms", "dl_ms"):
            _positive(f"budget {name}", getattr(self, name))
        if self.round_trip_ms == 0:
            object.__setattr__(self, "round_trip_ms", float(self.ul_ms + self.edge_ms + self.dl_ms))
        _positive("budget round_trip_ms", self.round_trip_ms)

    def of(self, hop: Lever) -> float:
        """The budget of a hop in ms."""
        if hop == Lever.UL:
            return self.ul_ms
        return self.edge_ms if hop == Lever.EDGE else self.dl_ms


def split(
    round_trip_ms: float,
    one_flow_ms: Mapping[Lever, float],
    importance: Mapping[Lever, float] = IMPORTANCE,
    round_to_ms: float = 10,
) -> Budgets:
    """Split a round-trip budget by what one flow takes at full resources (section VII).

    ``one_flow_ms`` is each hop's delay metric with one flow at the most PRBs and the highest clock (the
    row of Table IV that the budget is about). The products of delay and importance are scaled to the
    budget and rounded to multiples of ``round_to_ms`` by largest remainder, so that they add up to it. A hop
    that would be left with nothing gets one step of the largest.

    ValueError where a hop is missing or not positive, and where the budget is no multiple of
    ``round_to_ms`` or has less than one for each hop.

    >>> split(150, {Lever.UL: 12, Lever.EDGE: 9, Lever.DL: 19})
    Budgets(ul_ms=70.0, edge_ms=20.0, dl_ms=60.0, round_trip_ms=150.0)
    """
    _positive("round_trip_ms", round_trip_ms)
    _positive("round_to_ms", round_to_ms)
    weights: dict[Lever, float] = {}
    for hop in HOPS:
        for what, values in (("one_flow_ms", one_flow_ms), ("importance", importance)):
            if hop not in values:
                raise ValueError(f"{what} has no value for hop {hop.value}")
            _positive(f"{what} of hop {hop.value}", values[hop])
        weights[hop] = one_flow_ms[hop] * importance[hop]
    units = round(round_trip_ms / round_to_ms)
    if abs(units * round_to_ms - round_trip_ms) > 1e-9 * round_trip_ms:
        raise ValueError(f"round-trip budget {round_trip_ms!r} ms is no multiple of {round_to_ms!r} ms")
    if units < len(HOPS):
        raise ValueError(f"round-trip budget {round_trip_ms!r} ms has no {round_to_ms!r} ms for each hop")
    total = sum(weights.values())
    exact = {hop: units * weight / total for hop, weight in weights.items()}
    whole = {hop: floor(value) for hop, value in exact.items()}
    by_remainder = sorted(HOPS, key=lambda hop: whole[hop] - exact[hop])
    for hop in by_remainder[: units - sum(whole.values())]:
        whole[hop] += 1
    for hop in HOPS:
        if whole[hop] == 0:
            whole[max(HOPS, key=whole.__getitem__)] -= 1
            whole[hop] = 1
    ul, edge, dl = (float(whole[hop] * round_to_ms) for hop in HOPS)
    return Budgets(ul, edge, dl, float(round_trip_ms))


def _positive(what: str, value: float) -> None:
    if not (isfinite(value) and value > 0):
        raise ValueError(f"{what} {value!r} is not a positive number")
