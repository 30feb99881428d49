"""Why a slice missed its promise in a control slot, whatever its service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.core.measure import Lever


@dataclass(frozen=True, slots=True)
class HopCause:
    """Why a hop was late; ``text`` has the numbers that say so. ``stall_ms`` is its longest stall.

    The cause is one of those that the service declares.
    """

    hop: Lever
    cause: str
    text: str = ""
    stall_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Miss:
    """Why a control slot missed. ``hop`` is where, None where that is not known; ``hops`` are the late ones.

    ``unavoidable``: it would have been missed at full resources too, as far as can be told. ``at_full_ms`` is
    what the promise's delay metric would have been then for the worst user, None where that is not known.
    """

    cause: str
    hop: Lever | None = None
    text: str = ""
    hops: Mapping[Lever, HopCause] = field(default_factory=dict)
    unavoidable: bool = False
    at_full_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "cause": str(self.cause),
            "hop": None if self.hop is None else self.hop.value,
            "text": self.text,
            "unavoidable": self.unavoidable,
            "at_full_ms": None if self.at_full_ms is None else round(self.at_full_ms, 1),
            "hops": {hop.value: {"cause": str(c.cause), "text": c.text} for hop, c in self.hops.items()},
        }
