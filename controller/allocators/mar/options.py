"""What the configuration may say of a ``mar`` slice beyond id, service, ues and share."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from controller.allocators.base import Options
from wire.definitions.poses import FRAME_RATE_HZ, HISTORY_FRAMES, LOOKAHEAD_FRAMES
from wire.definitions.vchr import FIELD_OF_VIEW_DEG

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Angle = Annotated[float, Field(gt=0.0, lt=180.0, allow_inf_nan=False)]
Coordinate = Annotated[float, Field(allow_inf_nan=False)]

UPLOAD_HZ = (1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 15.0, 30.0)


class MarOptions(Options):
    """The promise: with a probability of at least ``epsilon`` a share of at least ``rho`` of a user's frames
    has a VCHR of at least ``vchr``, and an upload takes ``latency_ms`` on average."""

    anew: ClassVar[frozenset[str]] = frozenset(
        {
            *("vchr", "upload_hz", "bins", "history_frames", "lookahead_frames", "field_of_view_deg"),
            *("content_m", "cells", "content_x", "content_z"),
        }
    )

    vchr: Share = 0.8
    """V: the VCHR that a frame is to have at least."""
    rho: Share = 0.8
    """The share of a user's frames that is to have it."""
    epsilon: Share = 0.9
    """The probability with which a user's share is to be kept."""
    latency_ms: Positive = 100.0
    """T: what an upload takes on average."""
    upload_hz: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)] = UPLOAD_HZ
    """The upload frequencies to choose among, rising, none above the frame rate."""
    without_promise: Literal["best", "lowest", "highest"] = "best"
    """Which of them a user gets with whom none keeps the promise; best: the lowest of those with which as
    many frames will hit as with any."""
    ask: Literal["sum", "pooled"] = "sum"
    """For the sum of the users' b*, as the paper; or for what they need pooled, in one queue."""
    bins: Annotated[int, Field(ge=2, le=50)] = 10
    """Of the probability mass function of VCHR."""
    frame_bytes: Annotated[int, Field(ge=1, le=10_000_000)] = 6000
    """What an upload takes up."""
    content_bytes: Annotated[int, Field(ge=0, le=10_000_000)] = 2000
    """What comes back for it."""
    history_frames: Annotated[int, Field(ge=1, le=900)] = HISTORY_FRAMES
    """H: pose frames from which the application predicts."""
    lookahead_frames: Annotated[int, Field(ge=0, le=300)] = LOOKAHEAD_FRAMES
    """W: how many frames ahead."""
    field_of_view_deg: tuple[Angle, Angle] = FIELD_OF_VIEW_DEG
    """Horizontal and vertical."""
    content_m: tuple[Positive, Positive, Positive] = (0.7, 1.8, 0.5)
    """Size of the content: width, height, depth."""
    cells: tuple[
        Annotated[int, Field(ge=1, le=16)],
        Annotated[int, Field(ge=1, le=16)],
        Annotated[int, Field(ge=1, le=16)],
    ] = (4, 4, 2)
    """Into how many cells each side of it is divided."""
    content_x: Coordinate | None = None
    """Where the content stands, in m; null: where the users look."""
    content_z: Coordinate | None = None
    """As `content_x`; neither can do without the other."""
    learn_every_s: Annotated[float, Field(gt=0.0, le=86_400.0, allow_inf_nan=False)] = 30.0
    """How often the twins learn."""
    memory_rows: Annotated[int, Field(ge=50, le=100_000)] = 1000
    """Frames of each upload frequency that they remember."""

    @field_validator("upload_hz")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(b <= a for a, b in pairwise(value)):
            raise ValueError("upload frequencies must rise")
        if value[-1] > FRAME_RATE_HZ:
            raise ValueError(f"{value[-1]:g} Hz is above the frame rate, {FRAME_RATE_HZ:g}")
        return value

    @model_validator(mode="after")
    def _stands_somewhere(self) -> Self:
        if (self.content_x is None) != (self.content_z is None):
            raise ValueError("content_x and content_z: neither can do without the other")
        return self

    @property
    def ends_early(self) -> bool:
        return True

    @property
    def frame_bits(self) -> float:
        return 8.0 * self.frame_bytes
