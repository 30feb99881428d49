"""Ways of users over a campus: closed paths between waypoints, walked, cycled or driven."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MODES_KMH = ((2.0, 7.0), (8.0, 22.0), (20.0, 40.0))
"""Speeds on foot, by bicycle and by car: together the paper's 2 to 40 km/h."""
MODE_S = 180.0
"""Mean time for which a user goes on in one way."""
PACE_S = 15.0
"""Mean time for which it keeps a speed."""
WAYPOINTS = 8


def walks(
    rng: np.random.Generator, users: int, seconds: int, area_m: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Positions in m, float64 [users, seconds + 1, 2], and speeds in km/h, float64 [users, seconds + 1].

    Each user begins somewhere on a closed path of its own through the area, and changes its way of moving,
    and within that its speed, at times of a Poisson process.
    """
    positions = np.empty((users, seconds + 1, 2))
    speeds = np.empty((users, seconds + 1))
    for user in range(users):
        points = rng.uniform((0.0, 0.0), area_m, (WAYPOINTS, 2))
        closed = np.vstack((points, points[:1]))
        legs = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))))
        speeds[user] = _speeds(rng, seconds + 1)
        travelled = np.concatenate(([0.0], np.cumsum(speeds[user, :-1]))) / 3.6
        place = (rng.uniform(0.0, legs[-1]) + travelled) % legs[-1]
        for axis in range(2):
            positions[user, :, axis] = np.interp(place, legs, closed[:, axis])
    return positions, speeds


def _speeds(rng: np.random.Generator, seconds: int) -> FloatArray:
    out = np.empty(seconds)
    at, mode_until = 0, 0.0
    low, high = MODES_KMH[0]
    while at < seconds:
        if at >= mode_until:
            low, high = MODES_KMH[int(rng.integers(len(MODES_KMH)))]
            mode_until = at + rng.exponential(MODE_S)
        until = min(seconds, at + 1 + int(rng.exponential(PACE_S)))
        out[at:until] = rng.uniform(low, high)
        at = until
    return out
