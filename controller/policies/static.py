"""The baseline that always plays the same action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from controller.policies.base import NOT_PULLED, UNKNOWN, Context, Explanation, Feedback, Policy


class Static(Policy):
    """Plays the largest action, or the option ``action`` (MUCB1 paper, section IX-B).

    ValueError for an ``action`` outside ``actions``.

    >>> Static([10, 30, 50]).pull(), Static([10, 30, 50], action=30).pull()
    (50, 30)
    """

    name: ClassVar[str] = "static"
    per_state: ClassVar[bool] = False
    option_names: ClassVar[tuple[str, ...]] = ("action",)
    reasons: ClassVar[Mapping[str, str]] = {
        "fixed": "always the same action: the option action, or the largest; it learns nothing"
    }

    def __init__(self, actions: Sequence[int], *, action: int | None = None) -> None:
        super().__init__(actions)
        if action is not None and action not in self.actions:
            raise ValueError(f"policy static: option action {action!r} is none of {list(self.actions)}")
        self._option = None if action is None else self.actions[self.actions.index(action)]
        self._action = self.actions[-1] if self._option is None else self._option
        self._pulled = False

    def pull(self, context: Context = UNKNOWN) -> int:
        self._pulled = True
        return self._action

    def update(self, action: int, feedback: Feedback) -> None:
        self._index_of(action, feedback)

    def explain(self) -> Explanation:
        return Explanation(None, "fixed") if self._pulled else NOT_PULLED

    def options(self) -> dict[str, Any]:
        return {} if self._option is None else {"action": self._option}

    def _learned(self) -> dict[str, Any]:
        return {}

    def _load(self, state: Mapping[str, Any]) -> None:
        pass
