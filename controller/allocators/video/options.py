"""What the configuration may say of a ``video`` slice beyond id, service, ues and share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from controller.allocators.base import Options

Share = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Opinion = Annotated[float, Field(ge=1.0, le=5.0, allow_inf_nan=False)]


class VideoOptions(Options):
    """The promise: the mean of a user's latest scores keeps its experience-level agreement (ELA). The slice
    keeps it where a share ``users`` of those whom it promised it have it kept.

    ``ela`` is the agreement of a user who has not said what its own is. ``reliability``: with which an
    agent's demand is to keep it, and with which at least a user is promised it. ``models``: each user's
    ``own`` QoE model, or the ``general`` one of all, for comparison. ``edge_ghz``: what the edge has for
    transcoding for this slice, 10^9 cycles/s.

    ``orchestration``: ``convex``, all users at once on the concave hulls of their gains; ``grouped``, groups
    by their gains and users by the method of their group; ``network``, groups by a branching duelling
    Q-network, whose ``weights`` are a file of `prbandit train`: they are read beside the loop, and until they
    are there, or where they cannot be read, it is ``convex``. ``window_min``: minutes of a slice window, 0:
    by network dynamics; ``reserve``: whether the slice reserves what its agents expect to need in it.
    ``learn_every_s``: between two rounds of fits beside the loop; ``recurrent``: whether these may emulate
    behaviour by a recurrent network.
    """

    anew: ClassVar[frozenset[str]] = frozenset({"learn_every_s", "weights"})
    together: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"orchestration", "weights"}),)

    ela: Opinion = 3.5
    users: Share = 0.7
    reliability: Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)] = 0.8
    models: Literal["own", "general"] = "own"
    edge_ghz: Annotated[float, Field(gt=0.0, le=1e5, allow_inf_nan=False)] = 10.0
    orchestration: Literal["convex", "grouped", "network"] = "convex"
    weights: Annotated[str, Field(max_length=1000)] = ""
    window_min: Literal[0, 3, 6, 9, 12, 15] = 0
    reserve: bool = True
    learn_every_s: Annotated[float, Field(ge=5.0, le=86_400.0, allow_inf_nan=False)] = 60.0
    recurrent: bool = True
    explore: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 0.05

    @model_validator(mode="after")
    def _weights(self) -> Self:
        if (self.orchestration == "network") != bool(self.weights):
            raise ValueError("orchestration network takes weights, and nothing else does")
        return self

    @property
    def ends_early(self) -> bool:
        return True
