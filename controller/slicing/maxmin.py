"""Max-min fair division of a cell's PRBs among the demands of its slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from controller.slicing.floors import FloorsFirst, Gains, fill

FAIR = "max-min fair share"
"""Why a slice has less than it wants: others want PRBs too."""


class MaxMin(FloorsFirst):
    """Max-min fairness: above the floors the slice with least gets the next PRB (progressive filling).

    >>> from controller.core.decision import Want
    >>> MaxMin().divide("ul", 106, {"ar": Want(90), "video": Want(40)}, {})
    {'ar': (66, 'max-min fair share'), 'video': (40, '')}
    """

    name: ClassVar[str] = "maxmin"
    reason: ClassVar[str] = FAIR

    def raise_grants(
        self, granted: dict[str, int], wanted: Mapping[str, int], gains: Gains, prb: int
    ) -> None:
        fill(granted, wanted, prb)
