"""The contract of a policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the last pull chose what it chose.

    ``indices`` is the index of each action, float64 [n_actions], or None where no index decided.
    ``reason`` is ``first visit`` (the first pull of an instance), ``explore`` (the action is not the one
    with the best estimate, or has none yet), ``exploit`` (it is), a word of the policy's own, or
    ``not pulled``.
    """

    indices: NDArray[np.float64] | None
    reason: str


NOT_PULLED = Explanation(None, "not pulled")


class Policy(ABC):
    """Chooses among a fixed set of actions and learns from one QoS bit for each.

    A policy stands for one hop, or for one (hop, state) where ``per_state`` is set. ``actions`` are PRBs or
    MHz, strictly ascending. :meth:`pull` may be called again without an update in between.

    A policy that ``draws`` takes all its randomness from the generator that :meth:`pull` is given, which is
    made anew for each control slot so that a replay draws the same. Raises ValueError for actions that are
    none, not whole, negative, not ascending or not unique.
    """

    name: ClassVar[str]
    per_state: ClassVar[bool]
    option_names: ClassVar[tuple[str, ...]] = ()
    draws: ClassVar[bool] = False

    def __init__(self, actions: Sequence[int]) -> None:
        try:
            whole = tuple(index(a) for a in actions)
        except TypeError:
            raise ValueError(f"policy {self.name}: actions {actions!r} are not whole numbers") from None
        if not whole:
            raise ValueError(f"policy {self.name}: no actions")
        if whole[0] < 0 or whole[-1] == 0:
            raise ValueError(f"policy {self.name}: actions {list(whole)} must not be negative or all zero")
        for a, b in pairwise(whole):
            if a >= b:
                raise ValueError(f"policy {self.name}: actions are not strictly ascending at {a}, {b}")
        self.actions: tuple[int, ...] = whole
        self._position = {a: i for i, a in enumerate(whole)}

    @abstractmethod
    def pull(self, rng: np.random.Generator | None = None) -> int:
        """The action to play now, one of ``actions``; ``rng`` is needed by a policy that ``draws``."""

    @abstractmethod
    def update(self, action: int, qos: int) -> None:
        """Learn that ``action`` met (1) or violated (0) the QoS.

        ValueError for an action outside ``actions`` and for another QoS; nothing is learned then.
        """

    @abstractmethod
    def explain(self) -> Explanation:
        """Why the last :meth:`pull` chose its action."""

    def options(self) -> dict[str, Any]:
        """The options that make an equal policy, as plain JSON values."""
        return {}

    def to_state(self) -> dict[str, Any]:
        """All that :func:`controller.policies.restore` needs, as plain JSON values."""
        return {
            "name": self.name,
            "actions": list(self.actions),
            "options": self.options(),
            **self._learned(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The policy that :meth:`to_state` described. ValueError that names what does not fit."""
        try:
            if state["name"] != cls.name:
                raise ValueError(f"state of policy {state['name']!r}, not {cls.name!r}")
            policy = cls(state["actions"], **state["options"])
            policy._load(state)
        except KeyError as e:
            raise ValueError(f"state of policy {cls.name}: {e.args[0]!r} is missing") from None
        except TypeError as e:
            raise ValueError(f"state of policy {cls.name}: {e}") from None
        return policy

    @abstractmethod
    def _learned(self) -> dict[str, Any]:
        """What the policy has learned, as plain JSON values."""

    @abstractmethod
    def _load(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`_learned` gave."""

    def _index_of(self, action: int, qos: int) -> int:
        """Position of an action in ``actions``, both arguments checked."""
        if qos not in (0, 1):
            raise ValueError(f"policy {self.name}: QoS {qos!r} is neither 0 nor 1")
        try:
            return self._position[action]
        except KeyError:
            raise ValueError(
                f"policy {self.name}: action {action!r} is none of {list(self.actions)}"
            ) from None
