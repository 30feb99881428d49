"""How much of the time something is shown, by how fast segments come: the twin's emulation of the player.

Tabulated once in a process by playing (:mod:`controller.allocators.video.player`) under Poisson swipes, and
interpolated. A closed form, a queue of first segments that fills at the surplus of the rate, is off by up to
6 % of the time between the bitrate and half as much again, which is a whole point of the opinion of users who
mind stalls.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.player import STATE, STEPS_PER_S, SUMS, play
from wire.definitions.compiled import kept
from wire.definitions.viewing import MAX_PREFETCH

FloatArray = NDArray[np.float64]

RATIOS: Final = np.array(
    (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)
)
"""Rate of fetching over the bitrate."""
SWIPES_PER_MIN: Final = np.array((0.0, 1.0, 3.0, 6.0, 9.0, 12.0, 18.0, 24.0))
_EMULATED_S: Final = 6000
_SEED: Final = 20240


@cache
def table() -> FloatArray:
    """Share of the time in which something is shown of segments of 1 s, [prefetch, swipes, ratios].

    It never falls with the prefetch, nor with the ratio. Segments of another length make another unit of
    time: what counts is the swipes in that of a segment.
    """
    out = np.empty((MAX_PREFETCH + 1, len(SWIPES_PER_MIN), len(RATIOS)))
    n = len(RATIOS)
    one = np.ones(n)
    kbps = np.repeat(RATIOS[:, None], _EMULATED_S, axis=1)
    for k, f in enumerate(SWIPES_PER_MIN):
        # The same swipes whatever the rate and the prefetch.
        rng = np.random.default_rng((_SEED, k))
        swipes = np.tile(rng.poisson(f / 60.0 / STEPS_PER_S, _EMULATED_S * STEPS_PER_S), (n, 1))
        for prefetch in range(MAX_PREFETCH + 1):
            state, under_way, sums = np.zeros((n, len(STATE))), np.zeros(n), np.zeros((n, len(SUMS)))
            play(state, under_way, sums, kbps, one, one, prefetch * one, swipes, 1.0)
            out[prefetch, k] = 1.0 - sums[:, 0] / _EMULATED_S
    out[:, :, 0] = 0.0
    return np.maximum.accumulate(np.maximum.accumulate(out, axis=2), axis=0)


def shown_share(ratio: Any, swipes_per_min: Any, prefetch: Any, segment_s: float = 1.0) -> FloatArray:
    """Part of the time in which something is shown, 0..1, of arrays that broadcast.

    ``ratio``: rate of fetching over the bitrate, from 0; ``prefetch``: first segments that are held, whole,
    0..MAX_PREFETCH. Linear between what is tabulated.
    """
    shape = np.broadcast_shapes(np.shape(ratio), np.shape(swipes_per_min), np.shape(prefetch))
    of_segment = np.asarray(swipes_per_min, np.float64) * segment_s
    r, f = (np.array(np.broadcast_to(x, shape), np.float64, order="C") for x in (ratio, of_segment))
    n = np.array(np.broadcast_to(prefetch, shape), np.int64, order="C")
    out = np.empty(r.size)
    _shown_each(table(), r.ravel(), f.ravel(), n.ravel(), out)
    return out.reshape(shape)


@kept(error_model="numpy")
def shown(shares: Any, ratio: float, swipes_per_min: float, prefetch: int) -> Any:
    """:func:`shown_share` of numbers by :func:`table`, compiled, of segments of 1 s."""
    r = min(max(ratio, RATIOS[0]), RATIOS[-1])
    f = min(max(swipes_per_min, SWIPES_PER_MIN[0]), SWIPES_PER_MIN[-1])
    i, j = 0, 0
    while i < len(RATIOS) - 2 and r >= RATIOS[i + 1]:
        i += 1
    while j < len(SWIPES_PER_MIN) - 2 and f >= SWIPES_PER_MIN[j + 1]:
        j += 1
    x = (r - RATIOS[i]) / (RATIOS[i + 1] - RATIOS[i])
    y = (f - SWIPES_PER_MIN[j]) / (SWIPES_PER_MIN[j + 1] - SWIPES_PER_MIN[j])
    low = shares[prefetch, j, i] * (1.0 - x) + shares[prefetch, j, i + 1] * x
    high = shares[prefetch, j + 1, i] * (1.0 - x) + shares[prefetch, j + 1, i + 1] * x
    return low * (1.0 - y) + high * y


@kept(error_model="numpy")
def _shown_each(shares: Any, ratio: Any, swipes_per_min: Any, prefetch: Any, out: Any) -> None:
    for k in range(len(ratio)):
        out[k] = shown(shares, ratio[k], swipes_per_min[k], prefetch[k])
