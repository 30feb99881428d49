"""What policies share that learn from how often the QoS of each action was met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from controller.policies.base import Feedback, Policy


class Tally(Policy):
    """Counts, for each action, its updates (``_n``) and those that met the QoS (``_met``).

    Both are float64 [n_actions] of whole numbers. An update replaces them, so that what a pull read stays.
    """

    per_state: ClassVar[bool] = True

    def __init__(self, actions: Sequence[int]) -> None:
        super().__init__(actions)
        self._n: NDArray[np.float64] = np.zeros(len(self.actions))
        self._met: NDArray[np.float64] = np.zeros(len(self.actions))
        self._t = 0
        """Updates of all actions."""

    def update(self, action: int, feedback: Feedback) -> None:
        i = self._index_of(action, feedback)
        self._t += 1
        self._n = self._n.copy()
        self._n[i] += 1
        if feedback.met:
            self._met = self._met.copy()
            self._met[i] += 1

    def _learned(self) -> dict[str, Any]:
        return {"counts": [int(n) for n in self._n], "met": [int(n) for n in self._met]}

    def _load(self, state: Mapping[str, Any]) -> None:
        where = f"state of policy {self.name}"
        for what in ("counts", "met"):
            values = state[what]
            if not isinstance(values, list) or not all(type(v) is int and v >= 0 for v in values):
                raise ValueError(f"{where}: {what} {values!r} are not whole numbers from 0")
            if len(values) != len(self.actions):
                raise ValueError(
                    f"{where}: {what} has {len(values)} entries, there are {len(self.actions)} actions"
                )
        counts, met = state["counts"], state["met"]
        if any(m > n for n, m in zip(counts, met, strict=True)):
            raise ValueError(f"{where}: met {met!r} is above counts {counts!r}")
        self._n, self._met = np.array(counts, np.float64), np.array(met, np.float64)
        self._t = sum(counts)
