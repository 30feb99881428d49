"""The TCP-based baseline: additive decrease, multiplicative increase of the allocation."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from controller.policies.base import NOT_PULLED, UNKNOWN, Context, Explanation, Feedback, Policy


class Aimd(Policy):
    """Doubles on a violation, goes to the next smaller action on success (MUCB1 paper, section IX-B).

    It starts at the smallest action at or above half the largest one. An update moves it from its present
    value, whichever action the update names: on a violation to the smallest action at or above twice
    that (else the largest), on success to the next smaller one (else it stays).

    >>> policy = Aimd([10, 30, 50, 70, 90])
    >>> policy.pull()
    50
    >>> policy.update(50, Feedback(1))
    >>> policy.pull()
    30
    >>> policy.update(30, Feedback(0))
    >>> policy.pull()
    70
    """

    name: ClassVar[str] = "aimd"
    per_state: ClassVar[bool] = False
    reasons: ClassVar[Mapping[str, str]] = {
        "first visit": "the first pull: the smallest action at or above half the largest",
        "increase": "the budget was missed: the smallest action at or above twice the last, or the largest",
        "decrease": "the budget was kept: the next smaller action",
        "hold": "nothing is smaller to go down to or larger to go up to, or what was kept with more says "
        "nothing of less",
    }

    def __init__(self, actions: Sequence[int]) -> None:
        super().__init__(actions)
        self._at = self._at_or_above(self.actions[-1] / 2)
        self._moved = "first visit"
        self._explanation = NOT_PULLED

    def _at_or_above(self, value: float) -> int:
        return min(bisect_left(self.actions, value), len(self.actions) - 1)

    def pull(self, context: Context = UNKNOWN) -> int:
        self._explanation = Explanation(None, self._moved)
        return self.actions[self._at]

    def update(self, action: int, feedback: Feedback) -> None:
        played, before = self._index_of(action, feedback), self._at
        if not feedback.met:
            self._at = self._at_or_above(2 * self.actions[max(played, before)])
        elif played <= before:  # what was met with more says nothing about less
            self._at = max(0, before - 1)
        self._moved = "hold" if self._at == before else "increase" if self._at > before else "decrease"

    def explain(self) -> Explanation:
        return self._explanation

    def _learned(self) -> dict[str, Any]:
        return {"present": self.actions[self._at], "moved": self._moved}

    def _load(self, state: Mapping[str, Any]) -> None:
        if state["present"] not in self._position:
            raise ValueError(
                f"state of policy aimd: present {state['present']!r} is none of {list(self.actions)}"
            )
        self._at = self._position[state["present"]]
        self._moved = str(state["moved"])
