"""PRBs as the equilibrium of a game of the slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from controller.slicing.floors import FloorsFirst, Gains, fill
from controller.twins.slice.game import make_game


class BestResponse(FloorsFirst):
    """Above the floors slices take PRBs at a price that rises with the load, each the best for itself where
    the others stay, until none would move (:mod:`controller.twins.slice.game`).

    What the equilibrium leaves over is divided max-min fairly, so that nothing is idle while somebody wants
    it. Slices respond in the order of what they have and of their gains; only equals go by their naming.
    """

    name: ClassVar[str] = "best-response"
    reason: ClassVar[str] = "equilibrium of best responses"

    def raise_grants(
        self, granted: dict[str, int], wanted: Mapping[str, int], gains: Gains, prb: int
    ) -> None:
        of = {s: gains(s) for s in granted}
        players = sorted(of, key=lambda s: (granted[s], of[s]))
        taken = make_game([of[s] for s in players], prb).play().actions
        for s, units in zip(players, taken, strict=True):
            granted[s] += units
        fill(granted, wanted, prb - sum(taken))
