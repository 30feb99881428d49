"""UCB1 (Auer, Cesa-Bianchi and Fischer, 2002) on the cost of MUCB1 (paper, eq. 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, log
from typing import Any, ClassVar

import numpy as np

from controller.policies.base import NOT_PULLED, UNKNOWN, Context, Explanation, Feedback, Policy


class Ucb1(Policy):
    """Plays the action with the greatest upper confidence bound; learns about the played one alone.

    An action a costs c(a, q) = a + lambda (1 - q) with lambda = ``tradeoff`` x the largest action. The
    reward is (c_max - c) / (c_max - c_min) in 0..1, c_max = the largest action + lambda, c_min = the smallest
    action. The index is mean reward + sqrt(2 ln t / n): n the updates of the action, t those of the
    instance. Ties go to the smaller action.

    The first pull is the middle action (position n // 2), whatever was learned. Then an action without an
    update goes first, the smallest before the others. The choices follow from the QoS bits alone.

    >>> policy = Ucb1([10, 30, 50])
    >>> policy.pull()
    30
    >>> policy.update(30, Feedback(1))
    >>> policy.pull()
    10
    >>> policy.explain().reason
    'explore'
    """

    name: ClassVar[str] = "ucb1"
    per_state: ClassVar[bool] = True
    option_names: ClassVar[tuple[str, ...]] = ("tradeoff",)

    def __init__(
        self,
        actions: Sequence[int],
        *,
        tradeoff: float = 2.0,
    ) -> None:
        super().__init__(actions)
        if isinstance(tradeoff, bool) or not isinstance(tradeoff, int | float):
            raise ValueError(f"policy {self.name}: option tradeoff {tradeoff!r} is not a number")
        if not (isfinite(tradeoff) and tradeoff > 0):
            raise ValueError(f"policy {self.name}: option tradeoff {tradeoff!r} is not positive")
        self._tradeoff = float(tradeoff)
        a = np.array(self.actions, np.float64)
        price = self._tradeoff * a[-1]
        worst = a[-1] + price
        span = worst - a[0]
        self._reward = ((worst - (a + price)) / span, (worst - a) / span)  # by QoS
        self._n = np.zeros(len(a))
        self._mean = np.zeros(len(a))
        self._index = np.empty(len(a))
        self._work = np.empty(len(a))
        self._t = 0
        self._first = True
        self._untried = True
        self._indexed = False
        self._reason = NOT_PULLED.reason

    def pull(self, context: Context = UNKNOWN) -> int:
        self._indexed = False
        if self._first:
            self._first = False
            self._reason = "first visit"
            return self.actions[len(self.actions) // 2]
        n, mean = self._n, self._mean
        if self._untried:
            least = int(n.argmin())
            if n[least] == 0:
                self._reason = "explore"
                return self.actions[least]
            self._untried = False
        indices = self._index
        np.divide(2 * log(self._t), n, out=indices)
        np.sqrt(indices, out=indices)
        np.add(mean, indices, out=indices)
        chosen = int(indices.argmax())
        self._indexed = True
        self._reason = "exploit" if mean[chosen] >= mean[mean.argmax()] else "explore"
        return self.actions[chosen]

    def update(self, action: int, feedback: Feedback) -> None:
        i = self._index_of(action, feedback)
        self._t += 1
        self._credit(i, i + 1, feedback.met)

    def _credit(self, start: int, stop: int, qos: int) -> None:
        """One more observation of QoS ``qos`` for the actions at positions start..stop-1.

        mean <- (1 / n) (mean (n - 1) + r) in float64: with this order of operations exact ties fall as in
        the authors' runs.
        """
        n, mean = self._n[start:stop], self._mean[start:stop]
        np.multiply(mean, n, out=mean)
        np.add(mean, self._reward[1 if qos else 0][start:stop], out=mean)
        np.add(n, 1.0, out=n)
        np.multiply(np.divide(1.0, n, out=self._work[start:stop]), mean, out=mean)

    def explain(self) -> Explanation:
        return Explanation(self._index.copy() if self._indexed else None, self._reason)

    def options(self) -> dict[str, Any]:
        return {"tradeoff": self._tradeoff}

    def _learned(self) -> dict[str, Any]:
        return {
            "t": self._t,
            "first": self._first,
            "counts": [int(n) for n in self._n],
            "means": self._mean.tolist(),
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        t, first = state["t"], state["first"]
        where = f"state of policy {self.name}"
        arrays = {}
        for what in ("counts", "means"):
            try:
                arrays[what] = np.array(state[what], np.float64)
            except (TypeError, ValueError):
                raise ValueError(f"{where}: {what} {state[what]!r} are not numbers from 0") from None
        counts, means = arrays["counts"], arrays["means"]
        if not isinstance(first, bool):
            raise ValueError(f"{where}: first {first!r} is not true or false")
        if isinstance(t, bool) or not isinstance(t, int) or t < 0:
            raise ValueError(f"{where}: t {t!r} is not a count")
        for what, values in arrays.items():
            if values.shape != self._n.shape:
                raise ValueError(
                    f"{where}: {what} has shape {values.shape}, there are {len(self._n)} actions"
                )
            if not (np.isfinite(values).all() and (values >= 0).all()):
                raise ValueError(f"{where}: {what} {state[what]!r} are not numbers from 0")
        if (counts > t).any() or (counts != np.floor(counts)).any():
            raise ValueError(f"{where}: counts {state['counts']!r} do not fit {t} updates")
        self._t, self._first = t, first
        self._n[:], self._mean[:] = counts, means
