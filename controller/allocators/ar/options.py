"""What the configuration may say of a slice of the ``ar`` service."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from controller import policies
from controller.allocators.ar.budgets import Budgets
from controller.allocators.ar.delays import Metric
from controller.allocators.base import Options

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BudgetsModel(BaseModel):
    """Delay budgets of the hops in ms; the round trip's is their sum."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    ul_ms: Positive = 70.0
    edge_ms: Positive = 20.0
    dl_ms: Positive = 60.0

    def to_budgets(self) -> Budgets:
        return Budgets(self.ul_ms, self.edge_ms, self.dl_ms)


class Actions(BaseModel):
    """The action sets, ascending: PRBs of uplink and downlink, GPU MHz."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    ul_prb: tuple[int, ...] = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    dl_prb: tuple[int, ...] = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    gpu_mhz: tuple[int, ...] = tuple(range(500, 1601, 100))

    @field_validator("ul_prb", "dl_prb", "gpu_mhz", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        """A YAML list, or ``{from: 10, to: 106, step: 20}``."""
        if isinstance(value, dict):
            if set(value) != {"from", "to", "step"} or not all(type(v) is int for v in value.values()):
                raise ValueError("a range needs the whole numbers from, to and step, nothing else")
            if value["step"] <= 0 or value["to"] < value["from"]:
                raise ValueError(f"the range {value} is empty")
            return tuple(range(value["from"], value["to"] + 1, value["step"]))
        return tuple(value) if isinstance(value, list) else value

    @field_validator("ul_prb", "dl_prb", "gpu_mhz")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or value[0] <= 0 or list(value) != sorted(set(value)):
            raise ValueError(f"must be ascending whole numbers above 0, not {list(value)}")
        return value


class ArOptions(Options):
    """One policy for all hops of the slice, its action sets, and the delays that it promises.

    ``metric`` is the statistic of a flow's frame delays that is held against a budget (mean, p90). ``queue``
    adds the MAC queue to the demand, ``late_frames`` counts frames that are not back at their age (both off:
    as the MUCB1 authors' code). ``adaptive_budgets``: under a policy that looks at delays the hops' budgets
    move toward the bottleneck, their sum stays.
    """

    anew: ClassVar[frozenset[str]] = frozenset({"policy", "policy_options", "actions"})
    together: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"policy", "policy_options"}),)

    policy: str = policies.DEFAULT
    policy_options: dict[str, Any] = Field(default_factory=dict)
    budgets: BudgetsModel = BudgetsModel()
    metric: str = "mean"
    actions: Actions = Actions()
    queue: bool = True
    late_frames: bool = True
    adaptive_budgets: bool = True

    @field_validator("metric")
    @classmethod
    def _metric(cls, value: str) -> str:
        Metric.parse(value)
        return value

    @field_validator("policy")
    @classmethod
    def _named(cls, value: str) -> str:
        return policies.resolved(value)

    @model_validator(mode="after")
    def _policy(self) -> ArOptions:
        for actions in (self.actions.ul_prb, self.actions.dl_prb, self.actions.gpu_mhz):
            policies.make(self.policy, actions, **self.policy_options)
        return self

    @property
    def ends_early(self) -> bool:
        return policies.is_contextual(self.policy)

    def check(self, *, n_prb: int, max_mhz: int) -> None:
        for name, limit, what in (
            ("ul_prb", n_prb, f"{n_prb}, all that there is"),
            ("dl_prb", n_prb, f"{n_prb}, all that there is"),
            ("gpu_mhz", max_mhz, f"max_mhz {max_mhz}"),
        ):
            highest = getattr(self.actions, name)[-1]
            if highest > limit:
                raise ValueError(f"{name} {highest} is above {what}")
