"""MUCB1: UCB1 that knows that more resources do not worsen the QoS (MUCB1 paper, section VIII)."""

from __future__ import annotations

from typing import ClassVar

from controller.policies.base import Feedback
from controller.policies.ucb1 import Ucb1


class Mucb1(Ucb1):
    """UCB1 that also updates the actions that a QoS bit speaks for (MUCB1 paper, section VIII-D).

    On a violation every smaller action is updated as though it had violated, on success every larger one as
    though it had succeeded: count and mean both, and t once. The credit never goes the other way, so the
    estimates are biased: a violation that no allocation could have avoided debits every smaller action.

    >>> policy = Mucb1([10, 30, 50, 70])
    >>> policy.pull()
    50
    >>> policy.update(50, Feedback(1))
    >>> policy.to_state()["counts"]
    [0, 0, 1, 1]
    """

    name: ClassVar[str] = "mucb1"

    def update(self, action: int, feedback: Feedback) -> None:
        i = self._index_of(action, feedback)
        self._t += 1
        if feedback.met:
            self._credit(i, len(self.actions), 1)
        else:
            self._credit(0, i + 1, 0)
