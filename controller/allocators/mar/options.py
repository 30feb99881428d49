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
    has a VCHR of at least ``vchr``, and an upload takes ``latency_ms`` on average.

    ``upload_hz``: the frequencies to choose among. ``without_promise``: which of them a user gets with whom
    none keeps the promise: the ``lowest``, the ``highest``, or the ``best``, the lowest of those with which
    as many frames will hit as with any. ``bins``: of the probability mass function of VCHR.

    ``ask``: for the ``sum`` of the users' b*, as the paper; or for what they need ``pooled``, in one queue.

    ``frame_bytes`` and ``content_bytes``: what an upload takes up and what comes back for it. The rest says
    how the application predicts (H, W in frames) and what is rendered: field of view, size of the content in
    metres, its cells; where it stands is where the users look, unless ``content_x`` and ``content_z`` say so.

    ``learn_every_s``: how often the twins learn; ``memory_rows``: how many frames of each upload frequency
    they remember.
    """

    anew: ClassVar[frozenset[str]] = frozenset(
        {
            *("vchr", "upload_hz", "bins", "history_frames", "lookahead_frames", "field_of_view_deg"),
            *("content_m", "cells", "content_x", "content_z"),
        }
    )

    vchr: Share = 0.8
    rho: Share = 0.8
    epsilon: Share = 0.9
    latency_ms: Positive = 100.0
    upload_hz: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)] = UPLOAD_HZ
    without_promise: Literal["best", "lowest", "highest"] = "best"
    ask: Literal["sum", "pooled"] = "sum"
    bins: Annotated[int, Field(ge=2, le=50)] = 10
    frame_bytes: Annotated[int, Field(ge=1, le=10_000_000)] = 6000
    content_bytes: Annotated[int, Field(ge=0, le=10_000_000)] = 2000
    history_frames: Annotated[int, Field(ge=1, le=900)] = HISTORY_FRAMES
    lookahead_frames: Annotated[int, Field(ge=0, le=300)] = LOOKAHEAD_FRAMES
    field_of_view_deg: tuple[Angle, Angle] = FIELD_OF_VIEW_DEG
    content_m: tuple[Positive, Positive, Positive] = (0.7, 1.8, 0.5)
    cells: tuple[
        Annotated[int, Field(ge=1, le=16)],
        Annotated[int, Field(ge=1, le=16)],
        Annotated[int, Field(ge=1, le=16)],
    ] = (4, 4, 2)
    content_x: Coordinate | None = None
    content_z: Coordinate | None = None
    learn_every_s: Annotated[float, Field(gt=0.0, le=86_400.0, allow_inf_nan=False)] = 30.0
    memory_rows: Annotated[int, Field(ge=50, le=100_000)] = 1000

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
