"""What comes of people whose poses are known at every frame, at each upload frequency.

Of a trace everything can be computed: what the edge would have had, what it would have predicted, what was
seen and what had been prepared. This is what twins are trained on and judged by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wire.definitions.poses import (
    FRAME_RATE_HZ,
    HISTORY_FRAMES,
    LOOKAHEAD_FRAMES,
    FloatArray,
    IntArray,
    regression_weights,
    unwrapped,
    upload_frames,
)
from wire.definitions.vchr import FIELD_OF_VIEW_DEG, Content, gaze_point, hit_rate, visible

FIRST_FRAME = 30
"""The first frame that is judged: before it the window of the predictor has not filled."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known when the content of a frame is prepared; leading axes as one likes.

    ``predicted``: the pose predicted for the frame, [..., 6]; ``last``: the latest upload, [..., 6];
    ``age``: how many frames before the prediction that was captured, [...].
    """

    predicted: FloatArray
    last: FloatArray
    age: FloatArray

    def __getitem__(self, index: Any) -> Situation:
        """The same index into the leading axes of all."""
        return Situation(self.predicted[index], self.last[index], self.age[index])


@dataclass(frozen=True, slots=True)
class Observed:
    """Users [U] at upload frequencies [F] in frames [N].

    ``situation``: leading axes [U, F, N]; ``error``: true less predicted pose, [U, F, N, 6], angles within
    -180..180 degrees; ``vchr``: equation (6), [U, F, N], NaN in frames in which there is nothing to render.
    """

    upload_hz: tuple[float, ...]
    frame: IntArray
    situation: Situation
    error: FloatArray
    vchr: FloatArray

    @property
    def users(self) -> int:
        return len(self.vchr)

    def of(self, users: Sequence[int] | IntArray) -> Observed:
        """The same of some users."""
        chosen = np.asarray(users, np.int64)
        return Observed(
            self.upload_hz, self.frame, self.situation[chosen], self.error[chosen], self.vchr[chosen]
        )


def place(poses: FloatArray, **more: Any) -> Content:
    """The content at the point at which the users [..., 6] look; ``more`` as of :class:`Content`."""
    x, _, z = gaze_point(poses)
    return Content(float(x), float(z), **more)


def observe(
    poses: FloatArray,
    upload_hz: Sequence[float],
    content: Content,
    *,
    field_of_view_deg: tuple[float, float] = FIELD_OF_VIEW_DEG,
    history: int = HISTORY_FRAMES,
    lookahead: int = LOOKAHEAD_FRAMES,
    first: int = FIRST_FRAME,
    frame_rate_hz: float = FRAME_RATE_HZ,
) -> Observed:
    """What comes of traces [users, frames, 6], as :func:`wire.definitions.poses.check_poses` gives them.

    Every user uploads its first frame. Uploads take no time: what a network adds is seen in the loop.
    ValueError where no frame is left to judge.
    """
    frames = poses.shape[1]
    first = max(first, lookahead)
    if frames <= first:
        raise ValueError(f"{frames} frames: the first that is judged is frame {first}")
    now = np.arange(first - lookahead, frames - lookahead)
    truth = unwrapped(poses)[:, first:]
    seen = visible(poses[:, first:], content, field_of_view_deg)
    predicted, last, age = [], [], []
    for hz in upload_hz:
        uploaded = upload_frames(hz, frames, frame_rate_hz)
        sent = unwrapped(poses[:, uploaded])
        latest = np.searchsorted(uploaded, now, side="right") - 1
        predicted.append(regression_weights(uploaded, now, lookahead, history) @ sent)
        last.append(sent[:, latest])
        age.append(np.broadcast_to(now - uploaded[latest], predicted[-1].shape[:2]))
    situation = Situation(np.stack(predicted, 1), np.stack(last, 1), np.stack(age, 1).astype(np.float64))
    rate = hit_rate(seen[:, None], visible(situation.predicted, content, field_of_view_deg))
    return Observed(
        tuple(float(hz) for hz in upload_hz),
        now + lookahead,
        situation,
        pose_error(truth[:, None], situation.predicted),
        rate,
    )


def pose_error(true: FloatArray, predicted: FloatArray) -> FloatArray:
    """True less predicted poses [..., 6]; angles within -180..180 degrees."""
    error = true - predicted
    error[..., 3:] = (error[..., 3:] + 180.0) % 360.0 - 180.0
    return error
