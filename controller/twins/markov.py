"""A finite-state machine of a user's behaviour: a first-order Markov chain over bins of what is observed.

A sequence is int [steps] of states 0..S - 1 at steps of equal length; -1 is a gap, over which no transition
counts. Each row of the transition probabilities has a Dirichlet prior, whose mean is that of another chain,
such as that of all users (partial pooling), or uniform.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

GAP: Final = -1
POOLED_WEIGHT: Final = 64.0
"""Of all users' chain as the prior of one."""


def check_sequence(sequence: Any, states: int) -> IntArray:
    """``sequence`` as int64 [steps]; ValueError where it is not of -1..``states`` - 1."""
    array = np.asarray(sequence)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(
            f"a sequence of states is {array.dtype} {array.shape}: whole numbers [steps] expected"
        )
    if array.size and (array.min() < GAP or array.max() >= states):
        raise ValueError(f"states {array.min()}..{array.max()} are outside {GAP}..{states - 1}")
    return array.astype(np.int64)


def draw(cumulative: FloatArray, uniform: FloatArray) -> IntArray:
    """Index drawn from each row of ``cumulative`` probabilities [..., S] with ``uniform`` [...] of 0..1."""
    return np.asarray((cumulative[..., :-1] <= uniform[..., None]).sum(axis=-1), np.int64)


@dataclass(frozen=True, slots=True)
class MarkovChain:
    """``counts`` [S, S] of transitions from row to column, and ``prior`` [S, S], counts above 0."""

    counts: FloatArray
    prior: FloatArray

    @property
    def states(self) -> int:
        return len(self.counts)

    @property
    def transitions(self) -> FloatArray:
        """Probabilities, float64 [S, S]: the posterior mean; rows sum to 1."""
        total = self.counts + self.prior
        return np.asarray(total / total.sum(axis=1, keepdims=True))

    @classmethod
    def fit(
        cls,
        sequences: Iterable[Any],
        states: int,
        prior: MarkovChain | None = None,
        weight: float | None = None,
    ) -> MarkovChain:
        """The chain of all ``sequences`` together. ``weight``: transitions from each state that the prior's
        mean counts for; by default S where it is uniform, and :data:`POOLED_WEIGHT` where it is ``prior``.

        ValueError for states outside -1..``states`` - 1, another number of states in ``prior`` and a weight
        that is not above 0.
        """
        if weight is None:
            weight = float(states) if prior is None else POOLED_WEIGHT
        if states < 1 or not 0.0 < weight < np.inf:
            raise ValueError(f"a Markov chain of {states} states with a prior weight of {weight}")
        if prior is not None and prior.states != states:
            raise ValueError(f"a prior of {prior.states} states for a Markov chain of {states}")
        mean = np.full((states, states), 1.0 / states) if prior is None else prior.transitions
        return cls(np.zeros((states, states)), weight * mean).updated(*sequences)

    def updated(self, *sequences: Any) -> MarkovChain:
        """With the transitions of more sequences."""
        counts = self.counts.copy()
        for sequence in sequences:
            array = check_sequence(sequence, self.states)
            before, after = array[:-1], array[1:]
            seen = (before != GAP) & (after != GAP)
            np.add.at(counts, (before[seen], after[seen]), 1.0)
        return MarkovChain(counts, self.prior)

    def predict(self, state: int, steps: int) -> FloatArray:
        """Probability of each state 1..``steps`` after ``state``, float64 [steps, S]."""
        self._check_state(state)
        transitions = self.transitions
        out = np.empty((steps, self.states))
        row = np.eye(self.states)[state]
        for step in range(steps):
            row = row @ transitions
            out[step] = row
        return out

    def simulate(self, rng: np.random.Generator, state: int, steps: int, futures: int) -> IntArray:
        """Futures after ``state``, int64 [futures, steps]."""
        self._check_state(state)
        cumulative = np.cumsum(self.transitions, axis=1)
        uniform = rng.random((steps, futures))
        out = np.empty((futures, steps), np.int64)
        now = np.full(futures, state, np.int64)
        for step in range(steps):
            now = draw(cumulative[now], uniform[step])
            out[:, step] = now
        return out

    def scores(self, sequence: Any) -> FloatArray:
        """Log score of each one-step prediction in nat, float64 [steps - 1]; NaN where a gap leaves none."""
        array = check_sequence(sequence, self.states)
        before, after = array[:-1], array[1:]
        seen = (before != GAP) & (after != GAP)
        return np.where(seen, np.log(self.transitions)[before, after], np.nan)

    def log_score(self, sequence: Any) -> float:
        """Mean of :meth:`scores`: 0 is perfect; NaN where there is none."""
        scores = self.scores(sequence)
        scores = scores[~np.isnan(scores)]
        return float(scores.mean()) if scores.size else float("nan")

    def to_state(self) -> dict[str, Any]:
        """Plain JSON; :meth:`from_state` is the inverse."""
        return {"counts": self.counts.tolist(), "prior": self.prior.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> MarkovChain:
        """KeyError, ValueError for a state that is none."""
        counts, prior = (np.array(state[name], np.float64) for name in ("counts", "prior"))
        if counts.ndim != 2 or not counts.size or not counts.shape[0] == counts.shape[1]:
            raise ValueError(f"counts {counts.shape} of a Markov chain are not [S, S]")
        if prior.shape != counts.shape or not np.isfinite(counts + prior).all():
            raise ValueError(f"prior {prior.shape} and counts {counts.shape} of a Markov chain do not fit")
        if (counts < 0.0).any() or (prior <= 0.0).any():
            raise ValueError("a Markov chain with counts below 0, or a prior that is not above 0")
        return cls(counts, prior)

    def _check_state(self, state: int) -> None:
        if not 0 <= state < self.states:
            raise ValueError(f"state {state} is outside 0..{self.states - 1}")
