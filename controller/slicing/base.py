"""The contract of an arbiter: who divides a cell's PRBs among its slices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from controller.core.decision import Want
from controller.core.measure import Outcome
from controller.core.spec import Share


class Arbiter(ABC):
    """Divides the PRBs of one direction at a time. Deterministic, no I/O, no clock; state is plain JSON."""

    name: ClassVar[str]

    @abstractmethod
    def divide(
        self, direction: str, prb: int, wants: Mapping[str, Want], shares: Mapping[str, Share]
    ) -> dict[str, tuple[int, str]]:
        """PRBs for each slice, and why they are less than it wants ("" where they are not).

        No slice gets more than it wants, nor more than the ``max`` of its share; the sum is at most ``prb``
        (of ``direction``, "ul" or "dl"); what a share dedicates to a slice goes to nobody else. Terminates on
        every input. A slice that is not in ``shares`` has the whole carrier to compete for. ValueError for a
        negative ``prb``.
        """

    def close(self, outcomes: Mapping[str, Outcome]) -> None:  # noqa: B027
        """What came of the control slot that is over, by slice."""

    def to_state(self) -> dict[str, Any]:
        """What it has learned, as plain JSON values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take over a state of :meth:`to_state`; ValueError where it does not fit."""
