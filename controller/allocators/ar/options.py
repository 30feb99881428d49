"""What the configuration may say of a slice of the ``ar`` service."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from controller import policies
from controller.allocators.ar.budgets import Budgets
from controller.allocators.ar.delays import HOPS, Metric
from controller.allocators.base import Misfits, Options
from controller.core.measure import Lever

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BudgetsModel(BaseModel):
    """Delay budgets of the hops in ms; the round trip's is their sum."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    ul_ms: Positive = 70.0
    """Of the uplink."""
    edge_ms: Positive = 20.0
    """Of the edge."""
    dl_ms: Positive = 60.0
    """Of the downlink."""

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
    """The action sets, ascending: a list, or {from: 10, to: 106, step: 20}. One that is not given (null)
    follows the carrier (:func:`default_prb`), or the GPU (:func:`default_mhz`).

    A policy plays these alone, static the largest of each that is given, else all that there is; one that
    looks at delays (headroom) also all that there is, which ``share`` bounds and not the largest of these.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    ul_prb: tuple[int, ...] | None = None
    """PRBs of the uplink; null: ten steps of the carrier's."""
    dl_prb: tuple[int, ...] | None = None
    """PRBs of the downlink; null: ten steps of the carrier's."""
    gpu_mhz: tuple[int, ...] | None = None
    """Clocks of the GPU; null: steps of 100 MHz from 5/16 of `max_mhz` on."""

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


class HopPolicy(BaseModel):
    """A policy with its options."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    policy: str
    """What learns the actions of the hop; `prbandit policies` lists them."""
    policy_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the policy, by name."""

    @field_validator("policy")
    @classmethod
    def _named(cls, value: str) -> str:
        return policies.resolved(value)


class ArOptions(Options):
    """The policies of the slice's hops, their action sets, and the delays that the slice promises."""

    anew: ClassVar[frozenset[str]] = frozenset({"policy", "policy_options", "actions"})
    in_state: ClassVar[frozenset[str]] = frozenset({"actions"})
    together: ClassVar[tuple[frozenset[str], ...]] = (
        frozenset({"policy", "policy_options", "hop_policies"}),
    )

    policy: str = policies.DEFAULT
    """What learns the actions of all hops of the slice; `prbandit policies` lists them."""
    policy_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the policy, by name."""
    hop_policies: dict[Literal["ul", "edge", "dl"], HopPolicy] = Field(default_factory=dict)
    """Policies of single hops (`ul`, `edge`, `dl`), played there instead of `policy`."""
    budgets: BudgetsModel = BudgetsModel()
    metric: str = "mean"
    """The statistic of a flow's frame delays that is held against a budget: mean, or a percentile such as
    p90."""
    actions: Actions = Actions()
    queue: bool = True
    """Whether the MAC queue is part of the demand; off: as the MUCB1 authors' code."""
    late_frames: bool = True
    """Whether frames that are not back count at their age; off: as the MUCB1 authors' code."""
    adaptive_budgets: bool = True
    """Under a policy that looks at delays the hops' budgets move toward the bottleneck, their sum stays."""

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
        for hop in HOPS:
            policy, options = self.policy_of(hop)
            # Those that follow the carrier and the GPU stand for the paper's until these are known.
            policies.make(policy, self.actions.of(hop, n_prb=106, max_mhz=1600), **options)
        return self

    def policy_of(self, hop: Lever) -> tuple[str, dict[str, Any]]:
        """The policy that is played at a hop, and its options."""
        of = self.hop_policies.get(hop.value)  # type: ignore[call-overload]
        return (self.policy, self.policy_options) if of is None else (of.policy, of.policy_options)

    @property
    def hops(self) -> tuple[str, ...]:
        return tuple(hop.value for hop in HOPS)

    def switched(self, policy: str, hop: str = "") -> dict[str, Any]:
        if not hop:
            return {**super().switched(policy), "hop_policies": {}}
        if hop not in HOPS:
            raise ValueError(f"unknown hop {hop!r}; hops: {', '.join(HOPS)}")
        return {"hop_policies": {**self.to_dict()["hop_policies"], hop: {"policy": policy}}}

    @property
    def ends_early(self) -> bool:
        return all(policies.is_contextual(self.policy_of(hop)[0]) for hop in HOPS)

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
