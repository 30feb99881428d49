"""What a user's view can be rendered at: pixels of a frame against its quality, the best of every size.

A choice of resolutions is dominated where another has no more pixels and no less quality. Bandwidth, latency,
GPU, CPU, memory and network all rise with the pixels of a frame and depend on nothing else of it, so that
among the choices that are left, the Pareto front, there is an optimum for whatever is scarce.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.allocators.vr.check import Objective, weights
from controller.allocators.vr.instance import Instance, User
from wire.definitions import cloud_gaming
from wire.definitions.compiled import kept

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_POINTS = 1 << 15
"""Of a front that is exact: with many objects of arbitrary attention there can be many."""
FAST_POINTS = 256
"""Of a front for the heuristic."""


@dataclass(frozen=True, slots=True)
class Menu:
    """A front: ``pixels`` [k] and ``value`` [k] rise, from the lowest class for all objects on.

    ``choice`` is uint8 [k, objects]: an index into ``classes``. ``exact``: no point of the front is missing.
    """

    pixels: FloatArray
    value: FloatArray
    choice: NDArray[np.uint8]
    classes: tuple[int, ...]
    exact: bool

    def resolutions(self, k: int) -> tuple[int, ...]:
        """The class of each object at point ``k``."""
        return tuple(self.classes[c] for c in self.choice[k])


def menu(instance: Instance, user: User, objective: Objective, points: int = MAX_POINTS) -> Menu:
    """The front of a user without fault, thinned where it has more than ``points``."""
    classes = user.resolutions
    area = np.array([o.pixels for o in user.objects]) / cloud_gaming.VIEW_PIXELS
    pixels = area[:, None] * np.array([instance.resolution_pixels[k] for k in classes])
    value = np.array(weights(user, objective))[:, None] * np.array(
        [log(k / instance.lowest) for k in classes]
    )
    p, v, choice, exact = front(pixels, value, points)
    return Menu(p, v, choice, classes, exact)


@kept(nogil=True)
def front(pixels: Any, value: Any, points: int) -> tuple[Any, Any, Any, bool]:
    """Pareto front of the sums over rows of one entry each, of float64 [objects, classes] arrays.

    Returns pixels [k] and value [k], rising, the column chosen in each row uint8 [k, objects], and whether
    all of the front is there; where it has more than ``points``, each of as many equal intervals of pixels
    keeps its best.
    """
    objects, classes = pixels.shape
    p, v = np.zeros(1), np.zeros(1)
    choice = np.zeros((1, objects), np.uint8)
    exact = True
    for o in range(objects):
        n = len(p)
        heads = np.zeros(classes, np.int64)
        size = 0
        new_p, new_v = np.empty(n * classes), np.empty(n * classes)
        parent, column = np.empty(n * classes, np.int64), np.empty(n * classes, np.uint8)
        best = -np.inf
        while True:
            # The next by pixels, the better first, of as many rising lists as there are classes.
            c, least, most = -1, 0.0, 0.0
            for k in range(classes):
                if heads[k] < n:
                    x, y = p[heads[k]] + pixels[o, k], v[heads[k]] + value[o, k]
                    if c < 0 or x < least or (x == least and y > most):
                        c, least, most = k, x, y
            if c < 0:
                break
            if most > best + 1e-12:
                best = most
                new_p[size], new_v[size], parent[size], column[size] = least, most, heads[c], c
                size += 1
            heads[c] += 1
        keep = np.arange(size)
        if size > points:
            exact = False
            width = (new_p[size - 1] - new_p[0]) / (points - 1)
            kept, last = 1, -1
            for k in range(1, size):
                bucket = int((new_p[k] - new_p[0]) / width)
                if bucket == last and k > 1:
                    keep[kept - 1] = k
                else:
                    keep[kept] = k
                    kept += 1
                    last = bucket
            keep = keep[:kept]
        grown = np.empty((len(keep), objects), np.uint8)
        for k in range(len(keep)):
            grown[k] = choice[parent[keep[k]]]
            grown[k, o] = column[keep[k]]
        p, v, choice = new_p[keep], new_v[keep], grown
    return p, v, choice, exact
