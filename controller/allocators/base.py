"""The contract of an allocator: one slice's state in, its demand for PRBs and GPU MHz out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from controller.core.decision import SliceDemand
from controller.core.measure import Reason
from controller.core.observation import Hop, Observation
from controller.core.qos import SlotQos


@dataclass(frozen=True, slots=True)
class SliceView:
    """What an allocator sees of its slice at the end of a control slot.

    ``unattributed`` names, for each hop that must not be learned from, why; a hop that is not in it ran
    wholly under this allocator's own action. ``available`` is what each hop really had (PRB, MHz), where that
    is known.
    """

    slice: str
    observation: Observation
    qos: SlotQos
    unattributed: Mapping[Hop, Reason]
    available: Mapping[Hop, int] = field(default_factory=dict)


class Allocator(ABC):
    """Turns one slice's state into its demand. Deterministic, no I/O, no clock; state is plain JSON."""

    service: ClassVar[str]

    @abstractmethod
    def demand(self, view: SliceView) -> SliceDemand:
        """What the slice wants in the control slot that begins."""

    @abstractmethod
    def learn(self, view: SliceView) -> Mapping[Hop, Reason]:
        """Learn from the control slot that closed; returns why, for each hop it did not learn from."""

    @abstractmethod
    def to_state(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state of :meth:`to_state`; ValueError where it does not fit this allocator."""
