"""What users of a slice were promised for a control slot, and what was expected of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Promise:
    """Of one user: ``expected``, the mean probability of a hit, None where not known; ``reliability``, P of
    the promise, None where none was given; ``prb``: the PRBs of its b*."""

    expected: float | None
    reliability: float | None
    prb: float


@dataclass(frozen=True, slots=True)
class Promises:
    """By flow."""

    of: Mapping[str, Promise] = field(default_factory=dict)

    def to_state(self) -> dict[str, Any]:
        return {flow: [p.expected, p.reliability, p.prb] for flow, p in self.of.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Promises:
        return cls({str(flow): Promise(*values) for flow, values in state.items()})
