"""Users in groups by the structure of their QoE models: what their opinions depend on says how to divide
among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.opinion import OpinionModel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

GROUPS: Final = ("stalls", "quality", "combined")
"""Who minds how smoothly a video plays and not how it looks; who minds how it looks; who minds both. The
index of a group's QoE model is its place here."""
SMOOTH: Final = frozenset({"stalls"})
"""Groups whose opinion is a smooth function of the rate. That of the others goes up in steps with the
bitrate, so that dividing among them is a knapsack problem."""
_LADDER: Final = frozenset({"quality", "throughput"})


def group_of(model: OpinionModel) -> int:
    """Place in :data:`GROUPS`; who minds nothing is in the first, and needs as good as nothing there."""
    if not minds_bitrates(model):
        return 0
    return 1 if frozenset(model.structure.qos) <= _LADDER else 2


def minds_bitrates(model: OpinionModel) -> bool:
    """Whether opinions depend on what the bitrate decides."""
    return bool(_LADDER.intersection(model.structure.qos))


def groups_of(models: Sequence[OpinionModel]) -> IntArray:
    """Of each user, int64 [users]."""
    return np.array([group_of(m) for m in models], np.int64)
