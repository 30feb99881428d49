"""What the configuration may say of a ``video`` slice beyond id, service, ues and share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from controller.allocators.base import Options

Share = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Opinion = Annotated[float, Field(ge=1.0, le=5.0, allow_inf_nan=False)]


class VideoOptions(Options):
    """The promise: the mean of a user's latest scores keeps its experience-level agreement (ELA). The slice
    keeps it where a share ``users`` of those whom it promised it have it kept."""

    anew: ClassVar[frozenset[str]] = frozenset({"learn_every_s", "weights"})
    together: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"orchestration", "weights"}),)

    ela: Opinion = 3.5
    """The agreement, a mean opinion score, of a user who has not said what its own is."""
    users: Share = 0.7
    """The share of those whom the slice promised it that have it kept."""
    reliability: Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)] = 0.8
    """With which an agent's demand is to keep it, and with which at least a user is promised it."""
    models: Literal["own", "general"] = "own"
    """Each user's own QoE model, or the general one of all, for comparison."""
    edge_ghz: Annotated[float, Field(gt=0.0, le=1e5, allow_inf_nan=False)] = 10.0
    """What the edge has for transcoding for this slice, 10^9 cycles/s."""
    orchestration: Literal["convex", "grouped", "network"] = "convex"
    """convex: all users at once on the concave hulls of their gains; grouped: groups by their gains, users by
    the method of their group; network: groups by a branching duelling Q-network."""
    weights: Annotated[str, Field(max_length=1000)] = ""
    """Of that network: a file of `prbandit train`. It is read beside the loop; until it is there, or where it
    cannot be read, orchestration is convex."""
    window_min: Literal[0, 3, 6, 9, 12, 15] = 0
    """Of a slice window; 0: by network dynamics."""
    reserve: bool = True
    """Whether the slice reserves what its agents expect to need in a window."""
    learn_every_s: Annotated[float, Field(ge=5.0, le=86_400.0, allow_inf_nan=False)] = 60.0
    """Between two rounds of fits beside the loop."""
    recurrent: bool = True
    """Whether these may emulate behaviour by a recurrent network."""
    explore: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 0.05
    """The least probability with which a user is shown another bitrate than the best known, to learn what it
    would rather see."""

    @model_validator(mode="after")
    def _weights(self) -> Self:
        if (self.orchestration == "network") != bool(self.weights):
            raise ValueError("orchestration network takes weights, and nothing else does")
        return self

    @property
    def ends_early(self) -> bool:
        return True
