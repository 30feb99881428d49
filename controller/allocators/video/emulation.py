"""What an agent's user may be up to in a slice window, and where: futures of behaviour and environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from controller.allocators.video.agent import Agent
from controller.allocators.video.demand import Futures
from wire.definitions import mos
from wire.definitions.viewing import REQUESTS_PER_MIN

FUTURES: Final = 32
STEPS: Final = 4
"""Times of a window at which it is looked at."""
USUAL_PRB_PER_KBPS: Final = 1.0 / 500.0


def futures(agents: Sequence[Agent], window_s: float, rng: np.random.Generator) -> Futures:
    """Of each agent by stretches of its own history, as long as the window, that began anywhere in it."""
    shape = (len(agents), FUTURES, STEPS)
    out = {name: np.empty(shape) for name in ("behaviour", "environment", "swipes_per_min", "prb_per_kbps")}
    usual = {
        "behaviour": float(mos.behaviour(REQUESTS_PER_MIN)),
        "environment": 1.5,
        "swipes_per_min": REQUESTS_PER_MIN,
        "prb_per_kbps": USUAL_PRB_PER_KBPS,
    }
    for i, agent in enumerate(agents):
        n = len(agent.history)
        if not n:
            for name, column in out.items():
                column[i] = usual[name]
            continue
        steps = np.linspace(0.0, window_s / 10.0, STEPS).astype(np.int64)
        rows = (rng.integers(0, n, FUTURES)[:, None] + steps) % n
        for name, column in out.items():
            known = np.nan_to_num(agent.column(name), nan=usual[name])
            column[i] = known[rows]
    return Futures(**out)
