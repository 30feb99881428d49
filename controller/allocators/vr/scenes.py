"""What users look at and with what, from the tables ``scene`` and ``device`` of a control slot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from controller.core.observation import Samples
from wire.definitions.bounds import MAX_SETTING_VALUES
from wire.definitions.cloud_gaming import FRAME_RATES_HZ, MAX_ATTENTION, RESOLUTION_PIXELS, VIEW_PIXELS

OBJECT, AREA, ATTENTION = range(3)
"""Columns of ``scene``: the object's id, pixels of the reference view, attention."""
MAX_FPS, HIGHEST = range(2)
"""Columns of ``device``: Hz, resolution class."""
MAX_OBJECT: Final = (1 << 24) - 1
"""The highest id: float32 has all whole numbers up to here, beyond it two objects may have the same."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The latest of a user: ``objects`` as (id, area, attention), the ``classes`` and ``rates`` of the
    device."""

    objects: tuple[tuple[int, float, float], ...]
    classes: tuple[int, ...]
    rates: tuple[float, ...]


def scenes(samples: Mapping[str, Samples], users: int) -> tuple[dict[int, Scene], dict[str, int]]:
    """Scene by user, of those of whom both tables have rows that can be used; and what could not be, by
    why."""
    found: dict[int, Scene] = {}
    faults: dict[str, int] = {}
    scene, device = samples.get("scene"), samples.get("device")
    if scene is None or device is None:
        return found, faults
    for i in range(users):
        views, devices = _latest(scene, i), _latest(device, i)
        if not len(views) or not len(devices):
            continue
        classes = tuple(k for k in RESOLUTION_PIXELS if k <= devices[-1, HIGHEST])
        rates = tuple(f for f in FRAME_RATES_HZ if f <= devices[-1, MAX_FPS])
        why = _fault(views) or ("" if classes and rates else "device without a resolution or a frame rate")
        if why:
            faults[why] = faults.get(why, 0) + 1
            continue
        objects = tuple((int(o), a, t) for o, a, t in views.astype(np.float64).tolist())
        found[i] = Scene(objects, classes, rates)
    return found, faults


def _latest(rows: Samples, user: int) -> np.ndarray:
    """Values of the user's rows of the latest time."""
    own = np.flatnonzero(rows.flow == user)
    if not len(own):
        return rows.values[:0]
    return rows.values[own[rows.time_ns[own] == rows.time_ns[own].max()]]


def _fault(views: np.ndarray) -> str:
    if not np.isfinite(views).all():
        return "scene with a number that is not finite"
    if (views < 0.0).any() or (views > (MAX_OBJECT, VIEW_PIXELS, MAX_ATTENTION)).any():
        return "scene with a number that cannot be"
    if len(views) > MAX_SETTING_VALUES:
        return f"scene of more than {MAX_SETTING_VALUES} objects"
    if len(np.unique(views[:, OBJECT])) < len(views) or (views[:, OBJECT] % 1.0 != 0.0).any():
        return "scene with an object twice or without a whole id"
    return "" if views[:, AREA].sum() > 0.0 else "scene without a pixel"
