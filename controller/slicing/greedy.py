"""PRBs go where the next one gains most."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import ClassVar

from controller.slicing.floors import FloorsFirst, Gains


class Greedy(FloorsFirst):
    """Above the floors each next PRB goes to the slice whose satisfaction it raises most.

    Among equals to that with the fewest PRBs so far, then to the first named. As gains never rise, no other
    division has a higher sum of satisfactions.

    >>> from controller.core.decision import Want
    >>> Greedy().divide("ul", 3, {"ar": Want(3, gain=(5.0, 4.0, 1.0)), "vr": Want(2, gain=(9.0, 1.0))}, {})
    {'ar': (2, 'highest gain first'), 'vr': (1, 'highest gain first')}
    """

    name: ClassVar[str] = "greedy"
    reason: ClassVar[str] = "highest gain first"

    def raise_grants(
        self, granted: dict[str, int], wanted: Mapping[str, int], gains: Gains, prb: int
    ) -> None:
        first = dict(granted)
        of = {s: gains(s) for s in granted if granted[s] < wanted[s]}
        queue = [(-of[s][0], granted[s], i, s) for i, s in enumerate(of)]
        heapq.heapify(queue)
        while prb and queue:
            _, _, i, s = queue[0]
            granted[s] += 1
            prb -= 1
            if granted[s] < wanted[s]:
                heapq.heapreplace(queue, (-of[s][granted[s] - first[s]], granted[s], i, s))
            else:
                heapq.heappop(queue)
