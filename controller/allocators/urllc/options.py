"""What the configuration may say of a ``urllc`` slice beyond id, service, ues and share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.allocators.base import Options

Share = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, le=1e12, allow_inf_nan=False)]


class UrllcOptions(Options):
    """The promise: at least a share ``on_time`` of a device's tasks is over within ``deadline_ms``; a lost
    one is not. The slice keeps it where a share ``users`` of its devices have it kept.

    ``error``: epsilon, the decoding error probability that the devices' packets are sent for. ``edge_ghz``
    and ``cache_kbit``: F_es and S_es, what the edge server has for this slice. ``theta``: Ws^3/cycle^3.
    ``min_rate_mbps``: R_min.

    ``bandwidth``: of the slice's PRBs each device has some that are nobody else's, ``dedicated`` as in the
    paper, or whoever sends has all of them, ``shared``, as the scheduler of a cell has it.

    ``twin``: ``estimated``, the deviation of each processing rate is learned from completion times and
    planned for at its upper ``confidence`` bound; ``prior``, that bound is the one before anything is known;
    ``none``, rates are taken for what they are said to be. ``deviation``: the standard deviation among
    devices, before anything is known.

    ``worth``: a PRB is asked for where it takes this part off the total latency at least. ``overhead_ms``:
    what a task takes beside processing and transmission, to begin with; it is learned.
    """

    deadline_ms: Annotated[float, Field(gt=0.0, le=10_000.0, allow_inf_nan=False)] = 10.0
    on_time: Share = 0.99
    users: Share = 0.9
    error: Annotated[float, Field(gt=0.0, lt=0.5, allow_inf_nan=False)] = 1e-5
    edge_ghz: Positive = 30.0
    cache_kbit: Annotated[float, Field(ge=0.0, le=1e9, allow_inf_nan=False)] = 60.0
    theta: Positive = 1e-26
    min_rate_mbps: Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)] = 0.0
    bandwidth: Literal["shared", "dedicated"] = "shared"
    twin: Literal["estimated", "prior", "none"] = "estimated"
    confidence: Annotated[float, Field(gt=0.5, lt=1.0, allow_inf_nan=False)] = 0.95
    deviation: Annotated[float, Field(gt=0.0, le=0.5, allow_inf_nan=False)] = 0.05
    worth: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 0.002
    overhead_ms: Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)] = 6.0

    @property
    def ends_early(self) -> bool:
        return True
