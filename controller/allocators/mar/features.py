"""What a twin sees of a frame that is to be rendered: how much would be missed if the prediction were off.

A pose itself says little of other people and other videos, and a network that is given it learns its
training set. What matters is the geometry at the predicted pose: how VCHR falls as the true pose departs
from it by what is usual for this user at this upload frequency. That is computed with equation (6) for some
departures, the same ones for all frames (common random numbers), at three scales.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from controller.allocators.mar.traces import Situation
from wire.definitions.poses import FloatArray
from wire.definitions.vchr import Content, hit_rate, visible

SCALES: Final = (0.5, 1.0, 2.0)
"""In standard deviations of the prediction's error."""
DRAWS: Final = 16
NAMES: Final = (
    *(f"{name} at {scale:g} sd" for scale in SCALES for name in ("mean vchr", "vchr >= V", "vchr = 1")),
    "visible cells / 10",
    "moved / 0.2 m",
    "turned about x / 10 deg",
    "turned about y / 10 deg",
    "turned about z / 10 deg",
    "age / 10 frames",
    "ln(upload frequency / 1 Hz)",
)
_ALL_VISIBLE = 1.0 - 1e-9


def departures() -> FloatArray:
    """Standard normal, float64 [DRAWS, 6]: antithetic pairs, the same wherever they are asked for."""
    half = np.random.default_rng(20260).standard_normal((DRAWS // 2, 6))
    return np.concatenate([half, -half])


def features(
    situation: Situation,
    upload_hz: FloatArray,
    deviation: FloatArray,
    content: Content,
    field_of_view_deg: tuple[float, float],
    vchr: float,
) -> FloatArray:
    """float64 [..., len(NAMES)] for situations with leading axes [...].

    ``upload_hz`` [...]; ``deviation``: lower Cholesky factors [..., 6, 6] of the covariance of the
    prediction's error (metres, degrees); both may have axes of length 1. ``vchr`` is V.
    """
    predicted = situation.predicted
    prepared = visible(predicted, content, field_of_view_deg)
    off = np.einsum("...ij,kj->...ki", deviation, departures())
    columns = []
    for scale in SCALES:
        seen = visible(predicted[..., None, :] + scale * off, content, field_of_view_deg)
        rate = np.nan_to_num(hit_rate(seen, prepared[..., None, :]), nan=1.0)
        columns += [rate.mean(-1), (rate >= vchr).mean(-1), (rate >= _ALL_VISIBLE).mean(-1)]
    moved = predicted - situation.last
    columns.append(prepared.sum(-1) / 10.0)
    columns.append(np.linalg.norm(moved[..., :3], axis=-1) / 0.2)
    columns.extend(np.moveaxis(np.abs(moved[..., 3:]) / 10.0, -1, 0))
    columns.append(situation.age / 10.0)
    columns.append(np.broadcast_to(np.log(upload_hz), situation.age.shape))
    return np.stack(columns, axis=-1)
