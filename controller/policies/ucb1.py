"""UCB1 (Auer, Cesa-Bianchi and Fischer, 2002) on the cost of MUCB1 (paper, eq. 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, sqrt
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from controller.policies.base import NOT_PULLED, UNKNOWN, UNTRIED, Context, Explanation, Feedback, Policy
from controller.policies.cost import rewards, tradeoff_of

FEW = 24
"""Up to so many actions a loop over floats is faster than NumPy, whose every call costs as much as a few."""


class _Few:
    """Counts and means of a small action set. What was read stays as it was: an update makes new lists."""

    def __init__(self, reward: Sequence[NDArray[np.float64]]) -> None:
        self._reward = [r.tolist() for r in reward]
        self.load(np.zeros(len(reward[0])), np.zeros(len(reward[0])))

    def load(self, n: NDArray[np.float64], mean: NDArray[np.float64]) -> None:
        self.n: list[float] = n.tolist()
        self.mean: list[float] = mean.tolist()

    def best(self, two_log_t: float) -> int:
        """The first action with the greatest index; each has an update."""
        mean, best, greatest = self.mean, 0, -1.0
        for i, n in enumerate(self.n):
            index = mean[i] + sqrt(two_log_t / n)
            if index > greatest:
                best, greatest = i, index
        return best

    def credit(self, start: int, stop: int, qos: int) -> None:
        n, mean, reward = self.n.copy(), self.mean.copy(), self._reward[qos]
        for i in range(start, stop):
            total = mean[i] * n[i] + reward[i]
            n[i] = count = n[i] + 1.0
            mean[i] = 1.0 / count * total
        self.n, self.mean = n, mean


class _Many:
    """Counts and means of a large action set: the same operations in the same order, so the same values."""

    def __init__(self, reward: Sequence[NDArray[np.float64]]) -> None:
        self._reward = reward
        self.load(np.zeros(len(reward[0])), np.zeros(len(reward[0])))

    def load(self, n: NDArray[np.float64], mean: NDArray[np.float64]) -> None:
        self.n, self.mean = n, mean

    def best(self, two_log_t: float) -> int:
        indices = two_log_t / self.n
        np.sqrt(indices, out=indices)
        indices += self.mean
        return int(indices.argmax())

    def credit(self, start: int, stop: int, qos: int) -> None:
        self.n, self.mean = self.n.copy(), self.mean.copy()
        n, mean = self.n[start:stop], self.mean[start:stop]
        mean *= n
        mean += self._reward[qos][start:stop]
        n += 1.0
        mean *= 1.0 / n


class Ucb1(Policy):
    """Plays the action with the greatest upper confidence bound; learns about the played one alone.

    Cost and reward are those of :func:`controller.policies.cost.rewards`. The index is
    mean reward + sqrt(2 ln t / n): n the updates of the action, t those of the instance. Ties go to the
    smaller action.

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
    index_text: ClassVar[str] = "mean reward + sqrt(2 ln t / n), n updates of the action of t in all"
    reasons: ClassVar[Mapping[str, str]] = {
        "first visit": "the first pull in this state: the middle action",
        UNTRIED: "never tried in this state: such actions go first, the smallest before the others",
        "explore": "the greatest index, though another has the better mean reward so far",
        "exploit": "the greatest index, and the best mean reward so far",
    }

    def __init__(
        self,
        actions: Sequence[int],
        *,
        tradeoff: float = 2.0,
    ) -> None:
        super().__init__(actions)
        self._tradeoff = tradeoff_of(self.name, tradeoff)
        kernel = _Few if len(self.actions) <= FEW else _Many
        self._arms: _Few | _Many = kernel(rewards(self.actions, self._tradeoff))
        self._t = 0
        self._first = True
        self._untried = True
        self._explanation: Explanation | None = NOT_PULLED
        self._seen: tuple[Any, Any, float, int] = ([], [], 0.0, 0)

    def pull(self, context: Context = UNKNOWN) -> int:
        arms = self._arms
        if self._first:
            self._first = False
            self._explanation = Explanation(None, "first visit")
            return self.actions[len(self.actions) // 2]
        if self._untried:
            if 0.0 in arms.n:
                self._explanation = Explanation(None, "explore")
                return self.actions[list(arms.n).index(0.0)]
            self._untried = False
        two_log_t = 2 * log(self._t)
        chosen = arms.best(two_log_t)
        self._explanation, self._seen = None, (arms.mean, arms.n, two_log_t, chosen)
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
        self._arms.credit(start, stop, 1 if qos else 0)

    def explain(self) -> Explanation:
        if self._explanation is None:
            seen, counts, two_log_t, chosen = self._seen
            mean = np.array(seen)
            indices = mean + np.sqrt(two_log_t / np.array(counts))
            reason = "exploit" if mean[chosen] >= mean.max() else "explore"
            self._explanation = Explanation(indices, reason)
        return self._explanation

    def options(self) -> dict[str, Any]:
        return {"tradeoff": self._tradeoff}

    def _learned(self) -> dict[str, Any]:
        return {
            "t": self._t,
            "first": self._first,
            "counts": [int(n) for n in self._arms.n],
            "means": [float(mean) for mean in self._arms.mean],
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
            if values.shape != (len(self.actions),):
                raise ValueError(
                    f"{where}: {what} has shape {values.shape}, there are {len(self.actions)} actions"
                )
            if not (np.isfinite(values).all() and (values >= 0).all()):
                raise ValueError(f"{where}: {what} {state[what]!r} are not numbers from 0")
        if (counts > t).any() or (counts != np.floor(counts)).any():
            raise ValueError(f"{where}: counts {state['counts']!r} do not fit {t} updates")
        self._t, self._first = t, first
        self._arms.load(counts, means)
