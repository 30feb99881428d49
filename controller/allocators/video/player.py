"""The player of :mod:`wire.definitions.viewing` for many users at once, compiled: fluid rates, steps of 0.1
s."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wire.definitions.compiled import kept
from wire.definitions.viewing import AHEAD

FloatArray = NDArray[np.float64]

STEP_S: Final = 0.1
STEPS_PER_S: Final = 10
STATE: Final = (
    "ahead_s",
    "ahead_quality",
    "first_segments",
    "fetched_kbit",
    "target",
    "stale",
    "segment_kbit",
    "segment_quality",
    "first_quality",
)
"""Columns of a player's state: seconds of the current video that are there, and their mean quality; first
segments of next videos; of the segment under way, what is there, whose it is (0: none, 1: the current
video's, 2: a next video's), whether it will be thrown away, its size and its quality; the mean quality of
first segments. A segment is of the bitrate that was set when its fetching began."""
SUMS: Final = (
    "stalled_s",
    "shown_quality_s",
    "fetched_kbit",
    "wasted_kbit",
    "fetch_s",
    "fetch_s2",
    "segments",
)
"""What is summed over time; ``fetch_s`` and ``fetch_s2`` over segments: time of fetching, and its square."""


@kept(error_model="numpy")
def play(
    state: Any,
    under_way_s: Any,
    sums: Any,
    kbps: Any,
    bitrate_kbps: Any,
    quality: Any,
    prefetch: Any,
    swipes: Any,
    segment_s: float,
) -> None:
    """Lets time go on in ``state`` [users, STATE] and ``under_way_s`` [users], and adds to ``sums`` [users,
    SUMS].

    ``kbps`` [users, seconds] is what each user can fetch, ``bitrate_kbps``, ``quality`` and ``prefetch``
    [users] what it is set to, ``swipes`` int [users, steps] how often it swipes in each step.
    """
    users, seconds = kbps.shape
    for u in range(users):
        for step in range(seconds * STEPS_PER_S):
            for _ in range(swipes[u, step]):
                sums[u, 3] += state[u, 0] * bitrate_kbps[u]
                if state[u, 2] > 0:
                    state[u, 2] -= 1.0
                    state[u, 0] = segment_s
                    state[u, 1] = state[u, 8]
                    if state[u, 4] == 1.0:
                        state[u, 5] = 1.0
                else:
                    state[u, 0] = 0.0
                    if state[u, 4] == 1.0:
                        state[u, 5] = 1.0
                    elif state[u, 4] == 2.0:
                        state[u, 4] = 1.0
            left = kbps[u, step // STEPS_PER_S] * STEP_S
            while True:
                if state[u, 4] == 0.0:
                    if state[u, 0] < segment_s:
                        state[u, 4] = 1.0
                    elif state[u, 2] < prefetch[u]:
                        state[u, 4] = 2.0
                    elif state[u, 0] < AHEAD * segment_s - 1e-9:
                        state[u, 4] = 1.0
                    else:
                        break
                    state[u, 3] = 0.0
                    state[u, 6] = bitrate_kbps[u] * segment_s
                    state[u, 7] = quality[u]
                    under_way_s[u] = 0.0
                missing = state[u, 6] - state[u, 3]
                if left < missing:
                    state[u, 3] += left
                    sums[u, 2] += left
                    under_way_s[u] += STEP_S
                    break
                left -= missing
                sums[u, 2] += missing
                fetch = under_way_s[u] + STEP_S
                sums[u, 4] += fetch
                sums[u, 5] += fetch * fetch
                sums[u, 6] += 1.0
                if state[u, 5] == 1.0:
                    sums[u, 3] += state[u, 6]
                    state[u, 5] = 0.0
                elif state[u, 4] == 1.0:
                    total = state[u, 0] + segment_s
                    state[u, 1] = (state[u, 1] * state[u, 0] + state[u, 7] * segment_s) / total
                    state[u, 0] = total
                else:
                    state[u, 8] = (state[u, 8] * state[u, 2] + state[u, 7]) / (state[u, 2] + 1.0)
                    state[u, 2] += 1.0
                state[u, 4] = 0.0
            shown = min(STEP_S, state[u, 0])
            state[u, 0] -= shown
            if state[u, 0] < 1e-9:
                state[u, 0] = 0.0
            sums[u, 0] += STEP_S - shown
            sums[u, 1] += shown * state[u, 1]
