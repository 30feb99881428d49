"""What the configuration may say of a ``vr`` slice beyond id, service, ues and share."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from controller.allocators.base import Misfits, Options
from wire.definitions.cloud_gaming import BITS_PER_PIXEL, FLOP_PER_PIXEL

Share = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class VrOptions(Options):
    """The promise: at least a share ``on_time`` of a user's frames is there within 1/f of when it was due, at
    the frame rate f and the resolutions that the user was given. The slice keeps it where a share ``users``
    of the users have it kept."""

    on_time: Share = 0.9
    """The share of a user's frames that is there in time."""
    users: Share = 0.9
    """The share of users who have that kept."""
    bandwidth: Literal["shared", "dedicated"] = "shared"
    """Of the slice's PRBs each user has some that are nobody else's, dedicated as in the paper, or users
    share them, as a scheduler has it."""
    objective: Literal["weighted", "printed"] = "weighted"
    """The paper's equation (1): weighted, attention outside the logarithm, as the authors' code; or as
    printed."""
    bits_per_pixel: Positive = BITS_PER_PIXEL
    """Of a frame as it is sent."""
    flop_per_pixel: Positive = FLOP_PER_PIXEL
    """Of rendering."""
    gpu_flops_per_s: Positive = 3e12
    """What the GPU renders at its highest clock."""
    encoding_ms: Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)] = 2.0
    """What encoding a frame takes."""
    gpu_share: Share = 0.5
    """Of the GPU's time at the clock that is asked for, at most."""
    gpu_mhz: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=64)] = ()
    """The clocks to choose among, rising; empty: the highest alone."""
    overhead_ms: Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)] = 5.0
    """What a frame takes beside rendering and transmission, to begin with; it is learned."""
    hysteresis: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 0.05
    """What a change of the users' settings must be worth, as a part of the slice's QoE; the same part of a
    user's is what a change of that user must be worth."""

    @field_validator("gpu_mhz")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(b <= a for a, b in pairwise(value)):
            raise ValueError("GPU clocks must rise")
        return value

    def check(self, *, n_prb: int, max_mhz: int, min_prb: int = 1) -> None:
        if self.gpu_mhz and self.gpu_mhz[-1] > max_mhz:
            raise Misfits([(("gpu_mhz",), f"gpu_mhz {self.gpu_mhz[-1]} is above max_mhz {max_mhz}")])

    @property
    def ends_early(self) -> bool:
        return True
