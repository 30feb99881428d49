"""Budgets that move toward the bottleneck hop while the round trip's stays (MUCB1 paper, section VII's
future work)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controller.allocators.ar.budgets import Budgets
from controller.allocators.ar.delays import HOPS
from controller.core.measure import Lever

WINDOW = 24
"""Busy control slots over which a hop's usual delay is taken."""
EVERY = 12
"""Busy control slots between two moves: a move is seen in full before the next."""
USUAL = 0.7
"""The quantile of the control slots' delays that is a hop's usual one: holds and hiccups, which no budget
prevents, are fewer than the rest."""
STEP = 1 / 30
"""A move, as a part of the round-trip budget: 5 of 150 ms."""
PRESSED, SLACK = 0.5, 0.45
"""A hop whose usual delay is above PRESSED of its budget receives, one that would still be below SLACK of the
rest gives. The distance between them is the hysteresis."""
RANGE = 2.0
"""A budget stays between 1 / RANGE and RANGE times the configured one."""


class AdaptiveBudgets:
    """The budgets of a slice's hops, moved a step at a time from a hop with slack to one that is pressed.

    Only a hop that is played above its smallest action receives: the others cost nothing that a longer budget
    would save. The sum of the hops' budgets stays what it was, the round trip's is never touched.
    """

    def __init__(self, configured: Budgets) -> None:
        self._configured = configured
        self.budgets = configured
        """In force now."""
        self._delays: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)
        self._since = 0

    def observe(self, delays_ms: Mapping[Lever, float], spends: Mapping[Lever, bool]) -> None:
        """Take the delays of a busy control slot, by hop, and whether each had more than its least."""
        self._delays.append((delays_ms[Lever.UL], delays_ms[Lever.EDGE], delays_ms[Lever.DL]))
        self._since += 1
        if self._since < EVERY or len(self._delays) < EVERY:
            return
        self._since = 0
        usual = dict(zip(HOPS, np.quantile(np.array(self._delays), USUAL, axis=0).tolist(), strict=True))
        step = STEP * self._configured.round_trip_ms
        now = {hop: self.budgets.of(hop) for hop in HOPS}
        base = {hop: self._configured.of(hop) for hop in HOPS}
        receivers = [
            h for h in HOPS if spends[h] and usual[h] > PRESSED * now[h] and now[h] + step <= RANGE * base[h]
        ]
        givers = [h for h in HOPS if usual[h] < SLACK * (now[h] - step) and now[h] - step >= base[h] / RANGE]
        if not receivers or not givers:
            return
        to = max(receivers, key=lambda h: usual[h] / now[h])
        by = min(givers, key=lambda h: usual[h] / (now[h] - step))
        if to is not by:
            now[to] += step
            now[by] -= step
            self.budgets = self._of([now[h] for h in HOPS])

    def _of(self, budgets: Sequence[float]) -> Budgets:
        ul, edge, dl = budgets
        return Budgets(ul, edge, dl, self._configured.round_trip_ms)

    def to_state(self) -> dict[str, Any]:
        return {
            "configured": [self._configured.of(hop) for hop in HOPS],
            "budgets": [self.budgets.of(hop) for hop in HOPS],
            "delays": [list(d) for d in self._delays],
            "since": self._since,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """ValueError, TypeError, KeyError for what is no state; what moved from another split is left."""
        if [float(b) for b in state["configured"]] == [self._configured.of(hop) for hop in HOPS]:
            self.budgets = self._of([float(b) for b in state["budgets"]])
        delays = [(float(ul), float(edge), float(dl)) for ul, edge, dl in state["delays"]]
        self._delays = deque(delays, maxlen=WINDOW)
        self._since = int(state["since"])
