"""The fixed allocation that VR-GX is compared with: everybody 4K at 30 frames a second, where it fits."""

from __future__ import annotations

from math import log
from typing import Final

import numpy as np

from controller.allocators.vr.check import Constraints, Objective, weights
from controller.allocators.vr.exact import take
from controller.allocators.vr.instance import Instance, User
from controller.allocators.vr.menus import Menu
from controller.allocators.vr.problem import IntArray, Problem, Queue
from controller.allocators.vr.tables import FULL
from wire.definitions import cloud_gaming

CLASS: Final = 4


def problem(
    instance: Instance,
    constraints: Constraints,
    objective: Objective,
    *,
    queue: Queue = "least",
    stations: int | None = None,
    nodes: int | None = None,
) -> Problem:
    """With a single point for each user: all objects at 4K, or at the display's highest below, or its lowest.

    The frame rates are all that the display takes; :func:`solve` takes the lowest.
    """
    menus: dict[int, Menu] = {}
    for i, user in enumerate(instance.users):
        if not user.fault:
            below = [k for k in user.resolutions if k <= CLASS]
            only = max(below, default=min(user.resolutions))
            menus[i] = _single(instance, user, objective, only)
    return Problem.of(
        instance, constraints, objective, queue=queue, stations=stations, nodes=nodes, menus=menus
    )


def solve(problem: Problem) -> tuple[IntArray, IntArray]:
    """Configuration of each user, -1 where not admitted, and point.

    In the order of users, each where it takes least of what is left: of the resource of which it takes most.
    The first admitted player of a game chooses the node of the others.
    """
    config, point = np.full(len(problem), -1), problem.menu_at[:-1].copy()
    left = np.ones(problem.resources)
    home: dict[int, int] = {}
    for i in range(len(problem)):
        least = np.inf
        own = np.arange(problem.config_at[i], problem.config_at[i + 1])
        for c in own[problem.frame_rate_hz[own] == problem.frame_rate_hz[own].min()]:
            if home.get(int(problem.game[i]), problem.node[c]) != problem.node[c]:
                continue
            limited = problem.resource[c] >= 0
            needs = take(problem, int(c), problem.pixels[point[[i]]])[0, limited]
            there = left[problem.resource[c][limited]]
            if (needs <= there + (FULL - 1.0)).all():
                part = float((needs / np.maximum(there, 1e-12)).max())
                if part < least:
                    least, config[i] = part, c
        if config[i] >= 0:
            limited = problem.resource[config[i]] >= 0
            needs = take(problem, int(config[i]), problem.pixels[point[[i]]])[0, limited]
            left[problem.resource[config[i]][limited]] -= needs
            home[int(problem.game[i])] = int(problem.node[config[i]])
    return config, point


def _single(instance: Instance, user: User, objective: Objective, only: int) -> Menu:
    """A front of one point: all objects at class ``only``."""
    pixels = sum(o.pixels for o in user.objects) * instance.resolution_pixels[only] / cloud_gaming.VIEW_PIXELS
    value = sum(weights(user, objective)) * log(only / instance.lowest)
    choice = np.zeros((1, len(user.objects)), np.uint8)
    return Menu(np.array([pixels]), np.array([value]), choice, (only,), True)
