"""What a control loop is made from: the carrier, the slices and what their policies may choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from controller.core.budgets import Budgets
from controller.core.hops import Carrier
from controller.core.observation import Mode
from wire.definitions.nr import TddPattern


@dataclass(frozen=True, slots=True)
class SliceSpec:
    """One slice: its service, budgets, and what its allocator may choose from.

    ``ul_prb``, ``dl_prb`` and ``gpu_mhz`` are ascending action sets. ``queue`` adds the MAC queue to the
    demand (off: as the authors' code). ``ues`` are bound to the slice.
    """

    slice: str
    service: str
    policy: str
    ul_prb: tuple[int, ...]
    dl_prb: tuple[int, ...]
    gpu_mhz: tuple[int, ...]
    budgets: Budgets
    metric: str = "mean"
    policy_options: Mapping[str, Any] = field(default_factory=dict)
    queue: bool = True
    ues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoopSpec:
    """All that a :class:`ControlLoop` is made from.

    ``n_prb`` is the carrier's bandwidth, ``max_mhz`` the GPU's highest clock, ``guard_ms`` the start of a
    control slot whose frames do not count (the queue of the last action drains).
    """

    cell: str
    n_prb: int
    carrier: Carrier
    slices: tuple[SliceSpec, ...]
    max_mhz: int
    mode: Mode = Mode.ACTIVE
    guard_ms: float = 200.0
    seed: int = 0

    def __post_init__(self) -> None:
        names = [s.slice for s in self.slices]
        if len(set(names)) != len(names):
            raise ValueError(f"cell {self.cell}: slices named twice in {names}")
        bound = [ue for s in self.slices for ue in s.ues]
        if twice := sorted({ue for ue in bound if bound.count(ue) > 1}):
            raise ValueError(f"cell {self.cell}: UEs bound to two slices: {twice}")
        for s in self.slices:
            for what, actions, limit in (
                ("ul_prb", s.ul_prb, self.n_prb),
                ("dl_prb", s.dl_prb, self.n_prb),
                ("gpu_mhz", s.gpu_mhz, self.max_mhz),
            ):
                if not actions or list(actions) != sorted(set(actions)) or actions[0] <= 0:
                    raise ValueError(
                        f"cell {self.cell}, slice {s.slice}: {what} must be ascending and above 0, "
                        f"not {list(actions)}"
                    )
                if actions[-1] > limit:
                    raise ValueError(
                        f"cell {self.cell}, slice {s.slice}: {what} {actions[-1]} is above {limit}, "
                        "all that there is"
                    )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; :meth:`from_dict` is the inverse."""
        return {
            "cell": self.cell,
            "n_prb": self.n_prb,
            "carrier": {
                "tdd": asdict(self.carrier.tdd),
                "scs_khz": self.carrier.scs_khz,
                "guard": self.carrier.guard,
                "ul_overhead": self.carrier.ul_overhead,
                "dl_overhead": self.carrier.dl_overhead,
                "subinterval_ms": self.carrier.subinterval_ms,
            },
            "slices": [
                {
                    "slice": s.slice,
                    "service": s.service,
                    "policy": s.policy,
                    "ul_prb": list(s.ul_prb),
                    "dl_prb": list(s.dl_prb),
                    "gpu_mhz": list(s.gpu_mhz),
                    "budgets": asdict(s.budgets),
                    "metric": s.metric,
                    "policy_options": dict(s.policy_options),
                    "queue": s.queue,
                    "ues": list(s.ues),
                }
                for s in self.slices
            ],
            "max_mhz": self.max_mhz,
            "mode": self.mode.value,
            "guard_ms": self.guard_ms,
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LoopSpec:
        carrier = data["carrier"]
        slices = tuple(
            SliceSpec(
                **{
                    **s,
                    **{k: tuple(s[k]) for k in ("ul_prb", "dl_prb", "gpu_mhz", "ues")},
                    "budgets": Budgets(**s["budgets"]),
                }
            )
            for s in data["slices"]
        )
        return cls(
            **{
                **data,
                "carrier": Carrier(**{**carrier, "tdd": TddPattern(**carrier["tdd"])}),
                "slices": slices,
                "mode": Mode(data["mode"]),
            }
        )
