"""People who walk round the origin and look at it, each with a bearing, pace and restlessness of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def walkers(users: int, frames: int, seed: int = 0) -> NDArray[np.float64]:
    """Poses [users, frames, 6] of eyes 1.6 m up that circle at about 1.5 m and look at the middle."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames) / 30.0
    poses = np.empty((users, frames, 6))
    for user in range(users):
        bearing = rng.uniform(0.0, 360.0) + rng.uniform(-30.0, 30.0) * time
        bearing += rng.uniform(2.0, 20.0) * np.sin(rng.uniform(0.5, 3.0) * time + rng.uniform(0.0, 6.0))
        distance = rng.uniform(1.2, 2.0) + 0.1 * np.sin(rng.uniform(0.5, 2.0) * time)
        angle = np.radians(bearing)
        poses[user, :, 0] = -distance * np.sin(angle)
        poses[user, :, 1] = 1.6 + 0.02 * np.sin(6.0 * time)
        poses[user, :, 2] = -distance * np.cos(angle)
        poses[user, :, 3] = 25.0 + rng.uniform(2.0, 10.0) * np.sin(rng.uniform(0.5, 4.0) * time)
        poses[user, :, 4] = bearing + rng.uniform(2.0, 10.0) * np.sin(rng.uniform(0.5, 4.0) * time)
        poses[user, :, 5] = rng.uniform(0.5, 3.0) * np.sin(2.0 * time)
    return poses
