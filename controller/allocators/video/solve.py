"""One division of what there is among the users of an instance, and whose agreement nothing can keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from controller.allocators.video import frontier, orchestration
from controller.allocators.video.groups import GROUPS, groups_of
from controller.allocators.video.instance import Instance
from controller.allocators.video.orchestration import Plan, Resources
from controller.allocators.video.users import OPTION_BITRATES, OPTION_KBPS, Users
from wire.definitions.viewing import MAX_PREFETCH

METHODS: Final[Mapping[str, Callable[[Users, Resources], Plan]]] = {
    "convex": orchestration.convex,
    "grouped": orchestration.plan,
    "round-robin": orchestration.round_robin,
}
DEFAULT: Final = "convex"


def solve(instance: Instance, options: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values: what each user gets, the prices of resources, and who cannot be contented.

    ``options``: ``method``, one of :data:`METHODS`. ``best`` of a user is the highest opinion that its model
    expects at any rate; where it is below the agreement, that is ``impossible``. A price is what one PRB of a
    cell, or 10^9 cycles/s, more would gain in the sum of gains, on the concave hulls
    (:mod:`controller.allocators.video.frontier`), whatever the method. ValueError for another method.
    """
    method = options.get("method", DEFAULT)
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    users, resources = instance.users, instance.resources
    plan = METHODS[method](users, resources)
    curves = frontier.hulls(users)
    division = frontier.divide(users, curves, resources.prb, resources.mcycles, resources.cycles_per_bit)
    opinion = users.opinion(plan.kbps[:, None], plan.bitrate_kbps[:, None], plan.prefetch[:, None])[:, 0]
    options_kbps, bitrates = (
        np.broadcast_to(x, (len(users), len(x))) for x in (OPTION_KBPS, OPTION_BITRATES)
    )
    best = users.opinion(options_kbps, bitrates, MAX_PREFETCH).max(axis=1)
    groups = groups_of(users.models)
    used = np.bincount(users.cell, plan.prb, resources.cells)
    rows = [
        {
            "id": instance.ids[i],
            "cell": instance.cells[users.cell[i]],
            "group": GROUPS[groups[i]],
            "prb": float(plan.prb[i]),
            "gcycles": float(plan.mcycles[i]) / 1e3,
            "kbps": float(plan.kbps[i]),
            "bitrate_kbps": float(plan.bitrate_kbps[i]),
            "prefetch": int(plan.prefetch[i]),
            "ela": float(users.ela[i]),
            "expected": float(opinion[i]),
            "best": float(best[i]),
            "kept": bool(opinion[i] >= users.ela[i]),
        }
        for i in range(len(users))
    ]
    return {
        "method": method,
        "users": rows,
        "cells": {
            name: {
                "prb": float(resources.prb[c]),
                "used": float(used[c]),
                "price": float(division.prb_price[c]),
            }
            for c, name in enumerate(instance.cells)
        },
        "edge": {
            "gcycles": resources.mcycles / 1e3,
            "used": float(plan.mcycles.sum()) / 1e3,
            "price": 1e3 * division.cycle_price,
        },
        "kept": sum(row["kept"] for row in rows),
        "impossible": [row["id"] for row in rows if row["best"] < row["ela"]],
    }
