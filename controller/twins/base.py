"""The contract of a twin: the controller's model of one user."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from controller.allocators.base import SliceView


class Twin(ABC):
    """What one user would experience under levers that may be chosen.

    It lives in its allocator's state and moves between cells as that state. Deterministic in (state, view,
    levers), no I/O, no clock; what it draws, it draws from the view's generator.

    Attributes:
        user: the flow that it models.
        levers: name and unit of each column of :meth:`predict`'s argument, such as ``("ul", "PRB")``.
        unit: the unit of the measure that it predicts ("ms", "mos", "1").
        edges: float64 [bins + 1] in ``unit``, strictly ascending: bin ``i`` is from ``edges[i]`` up to, not
            including, ``edges[i + 1]``. The outer ones may be infinite.
    """

    user: str
    levers: tuple[tuple[str, str], ...]
    unit: str
    edges: NDArray[np.float64]

    @abstractmethod
    def observe(self, view: SliceView) -> None:
        """Learn from what a control slot showed of its user.

        Other users make no difference. A slot that shows nothing of it, no report, no frame and no sample,
        changes nothing.
        """

    @abstractmethod
    def predict(self, levers: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [k, levers] in the levers' units -> float64 [k, bins]: the probability of each bin.

        Rows are independent of each other, not negative, and sum to 1, also where nothing like it was ever
        seen; nothing is learned. ValueError for an array of another shape and for one that is not finite.
        """

    @abstractmethod
    def to_state(self) -> dict[str, Any]:
        """Plain JSON, about 1 KiB at most: 64 of them are in an allocator's state. Weights go by digest."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state of :meth:`to_state`; ValueError, and nothing changed, where it does not fit."""

    def check(self, levers: NDArray[np.float64]) -> None:
        """ValueError for what :meth:`predict` does not take."""
        if levers.ndim != 2 or levers.shape[1] != len(self.levers):
            names = ", ".join(f"{name} ({unit})" for name, unit in self.levers)
            raise ValueError(f"twin of {self.user}: levers of shape {levers.shape}, columns are {names}")
        if not np.isfinite(levers).all():
            raise ValueError(f"twin of {self.user}: levers that are not finite")
