"""What the configuration may say of a ``urllc`` slice beyond id, service, ues and share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.allocators.base import Options

Share = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, le=1e12, allow_inf_nan=False)]


class UrllcOptions(Options):
    """The promise: at least a share ``on_time`` of a device's tasks is over within ``deadline_ms``; a lost
    one is not. The slice keeps it where a share ``users`` of its devices have it kept."""

    deadline_ms: Annotated[float, Field(gt=0.0, le=10_000.0, allow_inf_nan=False)] = 10.0
    """Within which a task is to be over."""
    on_time: Share = 0.99
    """The share of a device's tasks that is."""
    users: Share = 0.9
    """The share of devices that have that kept."""
    error: Annotated[float, Field(gt=0.0, lt=0.5, allow_inf_nan=False)] = 1e-5
    """Epsilon: the decoding error probability that the devices' packets are sent for."""
    edge_ghz: Positive = 30.0
    """F_es: the processing rate that the edge server has for this slice."""
    cache_kbit: Annotated[float, Field(ge=0.0, le=1e9, allow_inf_nan=False)] = 60.0
    """S_es: the cache that it has for it."""
    theta: Positive = 1e-26
    """Energy of processing, in Ws^3/cycle^3."""
    min_rate_mbps: Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)] = 0.0
    """R_min: of who transmits."""
    bandwidth: Literal["shared", "dedicated"] = "shared"
    """Of the slice's PRBs each device has some that are nobody else's, dedicated as in the paper, or whoever
    sends has all of them, shared, as a cell's scheduler has it."""
    twin: Literal["estimated", "prior", "none"] = "estimated"
    """The deviation of each processing rate: estimated from completion times and planned for at its upper
    `confidence` bound; prior, that bound before anything is known; none, rates are what they are said to be.
    """
    confidence: Annotated[float, Field(gt=0.5, lt=1.0, allow_inf_nan=False)] = 0.95
    """Of that bound."""
    deviation: Annotated[float, Field(gt=0.0, le=0.5, allow_inf_nan=False)] = 0.05
    """The standard deviation among devices before anything is known."""
    worth: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 0.002
    """A PRB is asked for where it takes this part off the total latency at least."""
    overhead_ms: Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)] = 6.0
    """What a task takes beside processing and transmission, to begin with; it is learned."""

    @property
    def ends_early(self) -> bool:
        return True
