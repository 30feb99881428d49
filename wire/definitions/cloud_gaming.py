"""VR cloud gaming: objects in a field of view, resolution classes, and the quality of experience of a frame.

A view holds objects, each with its area in a reference view of 640 x 360 pixels. Every object is rendered at
a resolution class of its own: at class k it covers area / 230400 x the pixels of class k. A class is named by
its number ("2K" is 2), which is also its quality coefficient: tau = k / lowest.

Source: VR-GX, equations (1) and (13). Equation (1) prints ln(tau lambda) for an object at quality tau with
attention lambda. As ln(tau lambda) = ln tau + ln lambda and exactly one class is chosen, attention would then
change no choice. The authors' code has lambda ln tau, and so has :func:`view_quality`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

VIEW_PIXELS: Final = 640 * 360
"""Of the view in which the areas of objects are given."""
RESOLUTION_PIXELS: Final[dict[int, int]] = {
    2: 2560 * 1440,
    4: 3840 * 2160,
    8: 7680 * 4320,
    12: 11520 * 6480,
    24: 23040 * 12960,
}
"""Resolution class -> pixels of a whole view."""
HMD_CLASSES: Final[dict[str, tuple[int, ...]]] = {
    "2k": (2, 4),
    "4k": (2, 4, 8),
    "8k": (2, 4, 8, 12, 24),
}
"""Resolution of a head-mounted display -> the classes that it may be sent."""
FRAME_RATES_HZ: Final = (30.0, 60.0, 90.0)
MAX_ATTENTION: Final = 5.0
"""Attention is 0 (never rated) to 5."""
BITS_PER_PIXEL: Final = 0.25
FLOP_PER_PIXEL: Final = 440.0


def class_of(name: str) -> int:
    """The number of a resolution class: 12 for "12K". ValueError for a name that is none."""
    digits = name.strip().upper().removesuffix("K")
    if not digits.isdecimal() or int(digits) == 0:
        raise ValueError(f"resolution {name!r} is not a positive number and a K")
    return int(digits)


def view_quality(classes: Any, attention: Any, lowest: float = 2.0) -> float:
    """The sum over objects of attention x ln(class / lowest), for arrays [objects]; 0 for no objects."""
    quality = np.asarray(classes, np.float64) / lowest
    return float(np.sum(np.asarray(attention, np.float64) * np.log(quality)))


def rate_quality(frame_rate_hz: float) -> float:
    """ln(f / 30): 0 at 30 frames a second. ValueError for a rate that is not positive."""
    if not frame_rate_hz > 0:
        raise ValueError(f"frame rate {frame_rate_hz!r} Hz is not positive")
    return float(np.log(frame_rate_hz / FRAME_RATES_HZ[0]))
