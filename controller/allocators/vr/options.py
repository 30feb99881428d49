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
    of the users have it kept.

    ``bits_per_pixel``, ``flop_per_pixel``, ``gpu_flops_per_s`` (at the highest clock) and ``encoding_ms``:
    what the game servers need for a frame. ``gpu_share``: of the GPU's time at the clock that is asked for,
    at most. ``gpu_mhz``: the clocks to choose among; the highest of the GPU alone where there is none.
    ``overhead_ms``: what a frame takes beside rendering and transmission, to begin with; it is learned.

    ``bandwidth``: of the slice's PRBs each user has some that are nobody else's, ``dedicated`` as in the
    paper, or users share them, as a scheduler has it: see :mod:`controller.allocators.vr.problem`.

    ``objective``: see :mod:`controller.allocators.vr.check`. ``hysteresis``: what a change of the users'
    settings must be worth, as a part of the slice's QoE; the same part of a user's is what a change of that
    user must be worth.
    """

    on_time: Share = 0.9
    users: Share = 0.9
    bandwidth: Literal["shared", "dedicated"] = "shared"
    objective: Literal["weighted", "printed"] = "weighted"
    bits_per_pixel: Positive = BITS_PER_PIXEL
    flop_per_pixel: Positive = FLOP_PER_PIXEL
    gpu_flops_per_s: Positive = 3e12
    encoding_ms: Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)] = 2.0
    gpu_share: Share = 0.5
    gpu_mhz: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=64)] = ()
    overhead_ms: Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)] = 5.0
    hysteresis: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 0.05

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
