"""What the configuration may say of a slice of the ``ar`` service."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from controller import policies
from controller.allocators.ar.budgets import Budgets
from controller.allocators.ar.delays import Metric
from controller.allocators.base import Misfits, Options
from controller.core.measure import Lever

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BudgetsModel(BaseModel):
    """Delay budgets of the hops in ms; the round trip's is their sum."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    ul_ms: Positive = 70.0
    edge_ms: Positive = 20.0
    dl_ms: Positive = 60.0

    def to_budgets(self) -> Budgets:
        return Budgets(self.ul_ms, self.edge_ms, self.dl_ms)


_HIGHEST = 100_000
"""No carrier has so many PRB and no GPU so many MHz."""

PRB_STEPS = 10
MHZ_STEP = 100


def default_prb(n_prb: int, min_prb: int = 1) -> tuple[int, ...]:
    """The paper's ten steps of its 106 PRB (10, 20, ... 100) for another carrier; none is below the smallest
    grant.

    >>> default_prb(106), default_prb(24, 5)
    ((10, 20, 30, 40, 50, 60, 70, 80, 90, 100), (5, 10, 15, 20))
    """
    step = min(max(n_prb // PRB_STEPS, min_prb, 1), n_prb)
    return tuple(range(step, n_prb + 1, step))[:PRB_STEPS]


def default_mhz(max_mhz: int) -> tuple[int, ...]:
    """The paper's steps of 100 MHz from 5/16 of the highest clock (500 of 1600) for another GPU.

    >>> default_mhz(1600)[0], default_mhz(1600)[-1], default_mhz(1980)[0], default_mhz(1980)[-1]
    (500, 1600, 600, 1900)
    """
    lowest = max(1, round(max_mhz * 5 / 16 / MHZ_STEP)) * MHZ_STEP
    return tuple(range(lowest, max_mhz + 1, MHZ_STEP)) or (max_mhz,)


class Actions(BaseModel):
    """The action sets, ascending: PRBs of uplink and downlink, GPU MHz. One that is not given (null) follows
    the carrier (:func:`default_prb`), or the GPU (:func:`default_mhz`).

    A policy plays these alone, static the largest of each that is given, else all that there is; one that
    looks at delays (headroom) also all that there is, which ``share`` bounds and not the largest of these.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    ul_prb: tuple[int, ...] | None = None
    dl_prb: tuple[int, ...] | None = None
    gpu_mhz: tuple[int, ...] | None = None

    @field_validator("ul_prb", "dl_prb", "gpu_mhz", mode="before")
    @classmethod
    def _sequence(cls, value: Any) -> Any:
        """A YAML list, or ``{from: 10, to: 106, step: 20}``."""
        if isinstance(value, dict):
            if set(value) != {"from", "to", "step"} or not all(type(v) is int for v in value.values()):
                raise ValueError("a range needs the whole numbers from, to and step, nothing else")
            if value["step"] <= 0 or value["to"] < value["from"]:
                raise ValueError(f"the range {value} is empty")
            if value["to"] > _HIGHEST:
                raise ValueError(f"the range {value} ends above {_HIGHEST}")
            return tuple(range(value["from"], value["to"] + 1, value["step"]))
        return tuple(value) if isinstance(value, list) else value

    @field_validator("ul_prb", "dl_prb", "gpu_mhz")
    @classmethod
    def _ascending(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or value[0] <= 0 or list(value) != sorted(set(value))):
            raise ValueError(f"must be ascending whole numbers above 0, not {list(value)}")
        return value

    def given(self, lever: Lever) -> tuple[int, ...] | None:
        """The actions of a lever as configured; None where they follow the carrier or the GPU."""
        return {Lever.UL: self.ul_prb, Lever.EDGE: self.gpu_mhz, Lever.DL: self.dl_prb}[lever]

    def of(self, lever: Lever, *, n_prb: int, max_mhz: int, min_prb: int = 1) -> tuple[int, ...]:
        """The actions of a lever on this carrier, under this gNB and with this GPU."""
        default = default_mhz(max_mhz) if lever is Lever.EDGE else default_prb(n_prb, min_prb)
        return self.given(lever) or default


class ArOptions(Options):
    """One policy for all hops of the slice, its action sets, and the delays that it promises.

    ``metric`` is the statistic of a flow's frame delays that is held against a budget (mean, p90). ``queue``
    adds the MAC queue to the demand, ``late_frames`` counts frames that are not back at their age (both off:
    as the MUCB1 authors' code). ``adaptive_budgets``: under a policy that looks at delays the hops' budgets
    move toward the bottleneck, their sum stays.
    """

    anew: ClassVar[frozenset[str]] = frozenset({"policy", "policy_options", "actions"})
    in_state: ClassVar[frozenset[str]] = frozenset({"actions"})
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
        for lever in (Lever.UL, Lever.EDGE, Lever.DL):
            # Those that follow the carrier and the GPU stand for the paper's until these are known.
            policies.make(self.policy, self.actions.of(lever, n_prb=106, max_mhz=1600), **self.policy_options)
        return self

    @property
    def ends_early(self) -> bool:
        return policies.is_contextual(self.policy)

    @property
    def policies(self) -> tuple[str, ...]:
        return policies.names()

    @property
    def min_action_prb(self) -> int:
        return max(given[0] for given in (self.actions.ul_prb or (0,), self.actions.dl_prb or (0,)))

    def check(self, *, n_prb: int, max_mhz: int, min_prb: int = 1) -> None:
        found = []
        for name, least, limit, what in (
            ("ul_prb", min_prb, n_prb, f"{n_prb}, all that there is"),
            ("dl_prb", min_prb, n_prb, f"{n_prb}, all that there is"),
            ("gpu_mhz", 0, max_mhz, f"max_mhz {max_mhz}"),
        ):
            given = getattr(self.actions, name)
            if given is not None and given[-1] > limit:
                found.append((("actions", name), f"{name} {given[-1]} is above {what}"))
            elif given is not None and given[0] < least:
                text = f"{name} {given[0]} is below {least}, the smallest grant of the gNB"
                found.append((("actions", name), text))
        if found:
            raise Misfits(found)
