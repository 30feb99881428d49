"""People who walk round a box and look at it, drawn for tests; nothing of the emulator is in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wire.definitions.poses import FRAME_RATE_HZ
from wire.definitions.vchr import Content

BOX = Content(0.0, 0.0)


def walkers(
    users: int, frames: int, seed: int = 0, *, restless: float | NDArray[np.float64] = 1.0
) -> NDArray[np.float64]:
    """Poses [users, frames, 6]: each goes round the origin, its head swings by ``restless`` times some 15
    degrees. Sums of sines: smooth, and never the same."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames) / FRAME_RATE_HZ
    restless = np.broadcast_to(restless, (users,))[:, None]

    def wave(*of: tuple[float, float]) -> NDArray[np.float64]:
        parts = [
            size * np.sin(2 * np.pi * (hz * rng.uniform(0.7, 1.3, (users, 1)) * t + rng.random((users, 1))))
            for size, hz in of
        ]
        return np.sum(parts, axis=0)

    bearing = np.radians(rng.uniform(0.0, 360.0, (users, 1)) + restless * wave((25.0, 0.1), (4.0, 0.5)))
    distance = 1.4 + restless * wave((0.25, 0.15))
    height = 1.6 + restless * wave((0.02, 0.4))
    return np.stack(
        (
            distance * np.sin(bearing),
            height,
            distance * np.cos(bearing),
            12.0 + restless * wave((9.0, 0.4), (3.0, 1.1)),
            np.degrees(bearing) + 180.0 + restless * wave((12.0, 0.4), (4.0, 1.2)),
            restless * wave((3.0, 0.7)),
        ),
        axis=-1,
    )


def statue(frames: int, bearing_deg: float = 0.0) -> NDArray[np.float64]:
    """Poses [1, frames, 6] of a person who stands 1.5 m from the origin, looks at it and does not move."""
    angle = np.radians(bearing_deg)
    pose = (1.5 * np.sin(angle), 1.6, 1.5 * np.cos(angle), 10.0, bearing_deg + 180.0, 0.0)
    return np.tile(np.array(pose), (1, frames, 1))
