"""Poses of a head-mounted or hand-held device: coordinates, rotations, uploads, prediction.

Coordinates are Unity's: left-handed, y up, the XZ plane is the floor, lengths in metres, angles in degrees
about X, Y and Z applied in the order Z, X, Y about fixed axes. With all angles 0 a device looks along +z; a
positive rotation about X looks down, one about Y to the right.

A pose is a row of six numbers, :data:`POSE`. Frames are numbered from 0 in the order of capture.

Source: Digital-twin-based QoE-CSP, equations (4) and (5); the predictor is that of its reference [14], ViVo
(Han et al., MobiCom 2020): linear regression of each coordinate on time over a window of the past.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

POSE: Final = ("x", "y", "z", "rx", "ry", "rz")
"""Columns of a pose: metres, then degrees."""
FRAME_RATE_HZ: Final = 30.0
"""Frames that a device captures a second."""
HISTORY_FRAMES: Final = 15
"""H of equation (5): uploads no older than this many frames are regressed on."""
LOOKAHEAD_FRAMES: Final = 10
"""W of equation (4): how many frames ahead of the present one a pose is predicted for."""

MAX_STEP_M: Final = 0.5
"""Between two frames at 30 Hz a head does not move further (15 m/s)."""
MAX_TURN_DEG: Final = 60.0
"""Between two frames at 30 Hz a head does not turn further (1800 degrees a second)."""


def check_poses(
    poses: Any, where: str = "poses", *, max_step_m: float = MAX_STEP_M, max_turn_deg: float = MAX_TURN_DEG
) -> FloatArray:
    """The traces of several users as float64 [users, frames, 6].

    Raises:
        ValueError: names ``where``, user and frame: another shape, no user, fewer than two frames, a number
            that is not finite, a device that is further from where it was a frame before than
            ``max_step_m`` metres, or turned by more than ``max_turn_deg`` degrees.
    """
    array = np.asarray(poses)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{where}: {array.dtype} are no poses")
    if array.ndim != 3 or array.shape[2] != len(POSE) or not array.shape[0] or array.shape[1] < 2:
        raise ValueError(f"{where}: shape {array.shape}, not (users, frames, {len(POSE)})")
    array = array.astype(np.float64)
    for user, frame, column in np.argwhere(~np.isfinite(array))[:1].tolist():
        raise ValueError(f"{where}: user {user}, frame {frame}: {POSE[column]} is not finite")
    step = np.linalg.norm(np.diff(array[..., :3], axis=1), axis=-1)
    for user, frame in np.argwhere(step > max_step_m)[:1].tolist():
        raise ValueError(
            f"{where}: user {user}, frame {frame + 1}: {step[user, frame]:.2f} m from the frame before, more"
            f" than {max_step_m:g} m"
        )
    turn = turned(array[:, :-1], array[:, 1:])
    for user, frame in np.argwhere(turn > max_turn_deg)[:1].tolist():
        raise ValueError(
            f"{where}: user {user}, frame {frame + 1}: turned by {turn[user, frame]:.0f} degrees since the"
            f" frame before, more than {max_turn_deg:g}"
        )
    return array


def rotation(poses: FloatArray) -> FloatArray:
    """Rotation matrices [..., 3, 3] of poses [..., 6]: device axes to world, R = R_y R_x R_z.

    The columns are where the device's right, up and forward axes point.
    """
    angle = np.radians(poses[..., 3:])
    (cx, cy, cz), (sx, sy, sz) = (np.moveaxis(f(angle), -1, 0) for f in (np.cos, np.sin))
    rows = (
        (cy * cz + sy * sx * sz, -cy * sz + sy * sx * cz, sy * cx),
        (cx * sz, cx * cz, -sx),
        (-sy * cz + cy * sx * sz, sy * sz + cy * sx * cz, cy * cx),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def forward(poses: FloatArray) -> FloatArray:
    """Unit vectors [..., 3] along which devices look."""
    rx, ry = np.radians(poses[..., 3]), np.radians(poses[..., 4])
    return np.stack([np.sin(ry) * np.cos(rx), -np.sin(rx), np.cos(ry) * np.cos(rx)], axis=-1)


def turned(a: FloatArray, b: FloatArray) -> FloatArray:
    """The angle in degrees, 0..180, of the rotation from the attitude of pose ``a`` to that of ``b``."""
    trace = (rotation(a) * rotation(b)).sum(axis=(-2, -1))
    return np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))


def unwrapped(poses: FloatArray) -> FloatArray:
    """The same poses [..., n, 6] without jumps of 360 degrees along n, so that angles can be regressed on."""
    out = np.array(poses, np.float64)
    out[..., 3:] = np.unwrap(out[..., 3:], period=360.0, axis=-2)
    return out


def upload_frames(upload_hz: float, frames: int, frame_rate_hz: float = FRAME_RATE_HZ) -> IntArray:
    """The frames of 0..``frames`` - 1 that are uploaded: evenly, the first among them.

    An interval that is no whole number of frames is rounded down upload by upload. ValueError for a frequency
    outside (0, ``frame_rate_hz``].
    """
    if not (isfinite(upload_hz) and 0.0 < upload_hz <= frame_rate_hz):
        raise ValueError(f"upload frequency {upload_hz!r} Hz is outside (0, {frame_rate_hz:g}]")
    count = int(np.ceil(frames * upload_hz / frame_rate_hz)) + 1
    # The small addend keeps 0.1 * 30 / 0.1 at frame 30.
    chosen = np.floor(np.arange(count) * frame_rate_hz / upload_hz + 1e-9).astype(np.int64)
    return chosen[chosen < frames]


def line_weights(offset: FloatArray, known: NDArray[np.bool_], lookahead: int) -> FloatArray:
    """How much each sample of a window counts in the least-squares line through those that are known.

    ``offset``: frames from now to each sample, 0 or less, [..., n], as ``known``. The line is read
    ``lookahead`` frames after now; a row sums to 1, or is all 0 with fewer than two samples, through which
    there is no line.
    """
    count = known.sum(axis=-1, keepdims=True)
    some = np.maximum(count, 1)
    mean = (offset * known).sum(axis=-1, keepdims=True) / some
    from_mean = np.where(known, offset - mean, 0.0)
    spread = (from_mean**2).sum(axis=-1, keepdims=True)
    line = known / some + from_mean * (lookahead - mean) / np.where(spread > 0.0, spread, 1.0)
    return np.where(count >= 2, line, 0.0)


def regression_weights(
    uploaded: IntArray, now: IntArray, lookahead: int = LOOKAHEAD_FRAMES, history: int = HISTORY_FRAMES
) -> FloatArray:
    """How much each uploaded pose counts in a prediction: float64 [len(now), len(uploaded)].

    Row i predicts frame ``now[i] + lookahead`` from the uploads k with ``now[i] - history < k <= now[i]``:
    the least-squares line through them, read at that frame. With one of them in the window, or none, the
    last upload is held. Rows sum to 1; a row without any upload up to now is NaN. ``uploaded`` rises.
    """
    offset = uploaded[None, :].astype(np.float64) - np.asarray(now)[:, None]
    inside = (offset > -history) & (offset <= 0.0)
    line = line_weights(offset, inside, lookahead)
    latest = np.searchsorted(uploaded, now, side="right") - 1
    held = np.zeros_like(line)
    held[np.arange(len(held)), np.maximum(latest, 0)] = 1.0
    weights = np.where(inside.sum(axis=1, keepdims=True) >= 2, line, held)
    weights[latest < 0] = np.nan
    return weights


def predict(
    poses: FloatArray,
    uploaded: IntArray,
    now: IntArray,
    lookahead: int = LOOKAHEAD_FRAMES,
    history: int = HISTORY_FRAMES,
) -> FloatArray:
    """Poses predicted at the frames ``now`` for ``lookahead`` frames later, float64 [..., len(now), 6].

    ``poses`` are those of the uploaded frames, [..., len(uploaded), 6]. NaN where nothing had been uploaded.
    Equations (4) and (5).
    """
    return regression_weights(uploaded, now, lookahead, history) @ unwrapped(poses)
