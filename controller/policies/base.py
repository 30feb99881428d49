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


TOO_LONG = 2.0
"""Budgets of a hop."""

LOAD_CHANGED = "load changed"
BACKLOG = "backlog inherited"
BURST = "burst handed on"
"""Why the delay of a control slot does not speak for the action."""

NOT_PULLED = Explanation(None, "not pulled")
UNTRIED = "explore, untried"
"""Among :attr:`Policy.reasons`: reason ``explore`` where no index decided."""


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a hop when its next action is chosen.

    ``demand`` is what its offered traffic needs: PRB at a radio hop (without the queue), active flows at the
    edge; None where nobody knows. ``waiting_ms`` is how long what is in the hop now has waited. ``budget_ms``
    is the delay that it may take; what waits longer than :data:`TOO_LONG` of it is a backlog. ``events``
    tells that the control slot may end early. ``rng`` is for a policy that ``draws``, None for the others.
    """

    demand: float | None = None
    waiting_ms: float = 0.0
    budget_ms: float | None = None
    events: bool = False
    rng: np.random.Generator | None = None

    @property
    def backlogged(self) -> bool:
        """Whether what is in the hop must be drained first."""
        return self.budget_ms is not None and self.waiting_ms > TOO_LONG * self.budget_ms


UNKNOWN = Context()
"""Nothing is known: enough for the policies that learn from QoS bits alone."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What came of an action.

    ``met`` is the hop's QoS bit. ``delay_ms`` is the delay metric of the hop's worst flow, None where it is
    not known, ``budget_ms`` what it was held against. ``demand`` is the highest that the hop's traffic needed
    in the control slot, in the unit of the context's, and ``slots`` how long that lasted, in control slots of
    full length. ``confounded`` says why the delay does not speak for the action (:data:`LOAD_CHANGED`,
    :data:`BACKLOG`, :data:`BURST`); "" where it does.
    """

    met: int
    delay_ms: float | None = None
    budget_ms: float | None = None
    demand: float | None = None
    confounded: str = ""
    slots: float = 1.0


class Policy(ABC):
    """Chooses among a fixed set of actions and learns from what came of each.

    A policy stands for one hop, or for one (hop, state) where ``per_state`` is set. ``actions`` are PRBs or
    MHz, strictly ascending. :meth:`pull` may be called again without an update in between.

    One that is ``contextual`` is given all of a context and a feedback; the others may be given the QoS bit
    alone. A policy that ``draws`` takes all its randomness from the generator of the context of :meth:`pull`,
    which is made anew for each control slot so that a replay draws the same. Raises ValueError for actions
    that are none, not whole, negative, not ascending or not unique.
    """

    name: ClassVar[str]
    per_state: ClassVar[bool]
    option_names: ClassVar[tuple[str, ...]] = ()
    draws: ClassVar[bool] = False
    contextual: ClassVar[bool] = False
    index_text: ClassVar[str] = ""
    """What its index of an action is; "" where it has none."""
    reasons: ClassVar[Mapping[str, str]] = {}
    """What each reason of its :class:`Explanation` says of the action that it chose."""

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
    def pull(self, context: Context = UNKNOWN) -> int:
        """The action to play now, one of ``actions``."""

    @abstractmethod
    def update(self, action: int, feedback: Feedback) -> None:
        """Learn what came of ``action``.

        ValueError for an action outside ``actions`` and for a QoS bit that is none; nothing is learned then.
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

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Go on from what another instance learned (its :meth:`to_state`): of another cell, of another hop of
        the same kind, with other actions. ValueError where that teaches this policy nothing."""
        raise ValueError(f"policy {self.name} learns its own actions alone: it cannot take over a state")

    @abstractmethod
    def _learned(self) -> dict[str, Any]:
        """What the policy has learned, as plain JSON values."""

    @abstractmethod
    def _load(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`_learned` gave."""

    def _index_of(self, action: int, feedback: Feedback) -> int:
        """Position of an action in ``actions``, both arguments checked."""
        if feedback.met not in (0, 1):
            raise ValueError(f"policy {self.name}: QoS {feedback.met!r} is neither 0 nor 1")
        try:
            return self._position[action]
        except KeyError:
            raise ValueError(
                f"policy {self.name}: action {action!r} is none of {list(self.actions)}"
            ) from None
