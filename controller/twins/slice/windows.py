"""How long a slice window lasts: network dynamics in five stages, the higher the shorter.

Section III-D of Revolutionizing QoE-driven Network Management with Digital Agents in 6G has the stages, the
windows and that QoE feedback tunes the mapping; what dynamics are and how they are tuned stands here.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wire.definitions.mos import FACTOR_RANGE

FloatArray = NDArray[np.float64]

WINDOWS_MIN: Final = (3, 6, 9, 12, 15)
"""Minutes, ascending: the last is of the lowest stage."""

_UNIFORM: Final = (FACTOR_RANGE[1] - FACTOR_RANGE[0]) / math.sqrt(12.0)
"""Standard deviation of what is anywhere in the range with equal probability."""


def dynamics(behaviour: FloatArray, environment: FloatArray) -> float:
    """Index 0..1 of how much users' behaviour B and environment C vary in the emulated futures of a window.

    Both are float64 [users, futures, steps] within 1..2. A user's is the mean of the standard deviations of
    its B and its C, along and among the futures, in units of that of a uniform variable on 1..2; the index is
    the mean over users, at most 1. 0: nothing changes, and that is known.

    ValueError for other shapes, no users, and values outside the range.
    """
    varied = []
    for name, factor in (("behaviour", behaviour), ("environment", environment)):
        if factor.ndim != 3 or not factor.size or factor.shape != behaviour.shape:
            raise ValueError(f"{name} of shape {factor.shape}, not [users, futures, steps] with some of each")
        if not ((factor >= FACTOR_RANGE[0]) & (factor <= FACTOR_RANGE[1])).all():
            raise ValueError(f"{name} outside {FACTOR_RANGE[0]}..{FACTOR_RANGE[1]}")
        varied.append(factor.std(axis=(1, 2)))
    return min(1.0, float(np.mean(varied)) / _UNIFORM)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How QoE feedback moves the thresholds between stages.

    ``thresholds``: of the index, ascending within 0..1, one fewer than there are windows. ``target``: the
    share of users' windows whose QoE is to meet the ELA; above ``target + room`` there is room. ``step``:
    what one move adds to all thresholds or takes off them, ``bound``: how far they may be moved in all.
    ``patience``: windows in a row that must ask for the same before it is done. Values are assumed.
    ValueError for what cannot be.
    """

    thresholds: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    target: float = 0.9
    room: float = 0.05
    step: float = 0.02
    bound: float = 0.15
    patience: int = 2

    def __post_init__(self) -> None:
        limits = (0.0, *self.thresholds, 1.0)
        if len(self.thresholds) != len(WINDOWS_MIN) - 1 or not all(a < b for a, b in pairwise(limits)):
            raise ValueError(f"thresholds {self.thresholds}: must be four, ascending between 0 and 1")
        if not (0.0 <= self.target <= 1.0 and 0.0 <= self.room < math.inf):
            raise ValueError(f"target {self.target} and room {self.room}")
        if not (0.0 < self.step < math.inf and 0.0 <= self.bound < math.inf) or self.patience < 1:
            raise ValueError(f"step {self.step}, bound {self.bound} and patience {self.patience}")


DEFAULT_TUNING: Final = Tuning()


class SliceWindow:
    """From dynamics to minutes; :meth:`feedback` tunes it. Higher dynamics never give a longer window.

    All thresholds move together, so that they stay in their order. Between ``target`` and ``target + room``
    nothing moves, and the bound holds, so that constant feedback comes to rest.
    """

    def __init__(self, tuning: Tuning = DEFAULT_TUNING) -> None:
        self.tuning = tuning
        self._moves = 0
        self._streak = 0

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Where the stages begin now; below 0 or above 1 a stage is out of reach."""
        return tuple(t + self._moves * self.tuning.step for t in self.tuning.thresholds)

    def stage(self, index: float) -> int:
        """0 (lowest) to 4 of an index of :func:`dynamics`; ValueError for one outside 0..1."""
        if not 0.0 <= index <= 1.0:
            raise ValueError(f"dynamics {index} is outside 0..1")
        return bisect_right(self.thresholds, index)

    def minutes(self, index: float) -> int:
        """The window for an index of :func:`dynamics`."""
        return WINDOWS_MIN[-1 - self.stage(index)]

    def feedback(self, met: float) -> None:
        """The share 0..1 of users whose QoE met their ELA in the window that is over; ValueError for another.

        Short of the target, thresholds fall and windows get shorter; above it with room, they rise.
        """
        if not 0.0 <= met <= 1.0:
            raise ValueError(f"share {met} of ELAs met is outside 0..1")
        t = self.tuning
        wish = -1 if met < t.target else 1 if met > t.target + t.room else 0
        self._streak = self._streak + wish if wish * self._streak > 0 else wish
        if abs(self._streak) >= t.patience:
            self._streak = 0
            if abs(self._moves + wish) * t.step <= t.bound * (1.0 + 1e-9):
                self._moves += wish

    def to_state(self) -> dict[str, Any]:
        """What feedback has moved, as plain JSON values."""
        return {"moves": self._moves, "streak": self._streak}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], tuning: Tuning = DEFAULT_TUNING) -> SliceWindow:
        """Of :meth:`to_state`; ValueError for a state that is none of this tuning."""
        moves, streak = state.get("moves"), state.get("streak")
        if type(moves) is not int or abs(moves) * tuning.step > tuning.bound * (1.0 + 1e-9):
            raise ValueError(f"slice window: {moves!r} moves of {tuning.step}, at most {tuning.bound} in all")
        if type(streak) is not int or abs(streak) >= tuning.patience:
            raise ValueError(f"slice window: a streak of {streak!r} with a patience of {tuning.patience}")
        window = cls(tuning)
        window._moves, window._streak = moves, streak
        return window
