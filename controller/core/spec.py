"""What a control loop is made from: the carrier, the slices, and what each slice's service may choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from controller.core.hops import Carrier
from controller.core.observation import Mode
from controller.core.rescue import RescueSpec
from wire.definitions.nr import MAX_PRB, TddPattern


@dataclass(frozen=True, slots=True)
class Share:
    """TS 28.541 RRMPolicyRatio, in PRB of each direction.

    ``dedicated`` PRBs are nobody else's even when idle; up to ``min`` the slice comes before others, up to
    ``max`` it may have. ValueError unless 0 <= dedicated <= min <= max (a min of 0 is that of dedicated).
    """

    dedicated: int = 0
    min: int = 0
    max: int = MAX_PRB

    def __post_init__(self) -> None:
        if not (0 <= self.dedicated <= max(self.min, self.dedicated) <= self.max):
            raise ValueError(
                f"share: dedicated {self.dedicated}, min {self.min} and max {self.max} must not fall"
            )
        if self.min and self.min < self.dedicated:
            raise ValueError(f"share: min {self.min} is below dedicated {self.dedicated}")


@dataclass(frozen=True, slots=True)
class SliceSpec:
    """One slice: its service, the UEs that are bound to it, its share of the carrier.

    ``options`` are the service's own, as plain JSON values; the service knows what they mean.
    """

    slice: str
    service: str
    ues: tuple[str, ...] = ()
    share: Share = Share()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventsSpec:
    """When a control slot may end before its time: not in its first ``min_slot_s`` seconds.

    ValueError for what is no time.
    """

    min_slot_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.min_slot_s < float("inf"):
            raise ValueError(f"events: min_slot_s {self.min_slot_s!r} is not a positive number")


@dataclass(frozen=True, slots=True)
class LoopSpec:
    """All that a :class:`ControlLoop` is made from.

    ``n_prb`` is the carrier's bandwidth, ``max_mhz`` the GPU's highest clock, ``guard_ms`` the start of a
    control slot whose frames do not count (the queue of the last action drains), ``arbiter`` the name of who
    divides the PRBs. ``seed`` is that of all randomness of the allocators. ``rescue`` says when a slice gets
    more than it asks for, ``events`` when a control slot may end before its time; None: never.
    ``control_slot_s`` is how long it lasts otherwise. ``min_prb`` is the smallest grant of the gNB's
    scheduler: a quota below it gives a UE no data.
    """

    cell: str
    n_prb: int
    carrier: Carrier
    slices: tuple[SliceSpec, ...]
    max_mhz: int
    mode: Mode = Mode.ACTIVE
    guard_ms: float = 200.0
    seed: int = 0
    arbiter: str = "maxmin"
    rescue: RescueSpec | None = None
    events: EventsSpec | None = None
    control_slot_s: float = 5.0
    min_prb: int = 1

    def __post_init__(self) -> None:
        names = [s.slice for s in self.slices]
        if len(set(names)) != len(names):
            raise ValueError(f"cell {self.cell}: slices named twice in {names}")
        bound = [ue for s in self.slices for ue in s.ues]
        if twice := sorted({ue for ue in bound if bound.count(ue) > 1}):
            raise ValueError(f"cell {self.cell}: UEs bound to two slices: {twice}")
        dedicated = sum(s.share.dedicated for s in self.slices)
        if dedicated > self.n_prb:
            raise ValueError(
                f"cell {self.cell}: {dedicated} PRB are dedicated to slices, the carrier has {self.n_prb}"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; :meth:`from_dict` is the inverse."""
        carrier = {
            name: getattr(self.carrier, name)
            for name in ("scs_khz", "guard", "ul_overhead", "dl_overhead", "subinterval_ms")
        }
        return {
            "cell": self.cell,
            "n_prb": self.n_prb,
            "carrier": {"tdd": asdict(self.carrier.tdd), **carrier},
            "slices": [
                {
                    "slice": s.slice,
                    "service": s.service,
                    "ues": list(s.ues),
                    "share": asdict(s.share),
                    "options": dict(s.options),
                }
                for s in self.slices
            ],
            "max_mhz": self.max_mhz,
            "mode": self.mode.value,
            "guard_ms": self.guard_ms,
            "seed": self.seed,
            "arbiter": self.arbiter,
            "rescue": None if self.rescue is None else asdict(self.rescue),
            "events": None if self.events is None else asdict(self.events),
            "control_slot_s": self.control_slot_s,
            "min_prb": self.min_prb,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LoopSpec:
        """From :meth:`to_dict`; KeyError, TypeError, ValueError for what is none."""
        carrier = data["carrier"]
        # Neither is in the records from before there was one.
        rescue, events = data.get("rescue"), data.get("events")
        slices = tuple(
            SliceSpec(**{**s, "ues": tuple(s["ues"]), "share": Share(**s["share"])}) for s in data["slices"]
        )
        return cls(
            **{
                **data,
                "carrier": Carrier(**{**carrier, "tdd": TddPattern(**carrier["tdd"])}),
                "slices": slices,
                "mode": Mode(data["mode"]),
                "rescue": None if rescue is None else RescueSpec(**rescue),
                "events": None if events is None else EventsSpec(**events),
            }
        )
