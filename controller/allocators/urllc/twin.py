"""The twin of a device: how far its processing rates, and the edge's for it, fall short of what is said.

A task of alpha C cycles at an estimated rate f that took t at the UE was processed at alpha C / t, which
deviates from f by d = 1 - alpha C / (f t), the f-hat / f of equations (3) and (4). Work varies from task to
task, so d is a mean with an uncertainty: normal with unknown variance, a prior of mean 0, and older control
slots forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from controller.allocators.urllc.instance import FloatArray

FORGET: Final = 0.8
"""What the tasks of earlier control slots weigh in the next that teaches."""
PRIOR_WEIGHT: Final = 1.0
"""The prior weighs as so many tasks, so that of who is not known the bounds are those of all devices."""
LOW: Final = -0.9
HIGH: Final = 0.9
"""What a deviation can be."""
LEAST_TASKS: Final = 3
"""Of a control slot, that it teaches."""
DIGITS: Final = 8
"""Of the state: a restart goes on with the same numbers."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """Of one processor for one device: weight, mean and sum of squared differences of d."""

    weight: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def observe(self, deviations: FloatArray) -> Deviation:
        """With the tasks of a control slot, float64 [n]; what is not finite or cannot be does not count."""
        d = deviations[np.isfinite(deviations)]
        d = d[(d > LOW) & (d < HIGH)]
        if len(d) < LEAST_TASKS:
            return self
        old, new = self.weight * FORGET, float(len(d))
        weight = old + new
        gap = float(d.mean()) - self.mean
        mean = self.mean + gap * new / weight
        squares = self.squares * FORGET + float(((d - d.mean()) ** 2).sum()) + gap * gap * old * new / weight
        return Deviation(*(round(x, DIGITS) for x in (weight, mean, squares)))

    def bounds(self, quantile: float, prior: float) -> tuple[float, float]:
        """Between what the mean deviation is, but with the probability Q(``quantile``) on either side, where
        devices' deviations have the standard deviation ``prior`` around 0."""
        weight = self.weight + PRIOR_WEIGHT
        mean = self.weight * self.mean / weight
        spread = self.squares + PRIOR_WEIGHT * prior**2
        spread += self.weight * PRIOR_WEIGHT / weight * self.mean**2
        margin = quantile * sqrt(spread / weight / weight)
        return max(mean - margin, LOW), min(mean + margin, HIGH)

    def to_state(self) -> list[float]:
        return [self.weight, self.mean, self.squares]

    @classmethod
    def from_state(cls, state: Sequence[float]) -> Deviation:
        """ValueError for what no observations give."""
        weight, mean, squares = (float(x) for x in state)
        if not (0.0 <= weight < 1e12 and LOW <= mean <= HIGH and 0.0 <= squares < 1e12):
            raise ValueError(f"deviation {list(state)} is not what can be")
        return cls(weight, mean, squares)


@dataclass(frozen=True, slots=True)
class Twin:
    """Of one device: its own processor, and the edge's for it."""

    ue: Deviation = Deviation()
    edge: Deviation = Deviation()

    def to_state(self) -> list[list[float]]:
        return [self.ue.to_state(), self.edge.to_state()]

    @classmethod
    def from_state(cls, state: Sequence[Sequence[float]]) -> Twin:
        ue, edge = state
        return cls(Deviation.from_state(ue), Deviation.from_state(edge))
