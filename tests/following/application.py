"""Sources that may change cell every few seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tests.applications.periodic import Periodic
from tests.following import NAME


class FollowingUsers(Periodic):
    name: ClassVar[str] = NAME
    tables: ClassVar[Mapping[str, int]] = {}

    @classmethod
    def handover_points(
        cls, options: Mapping[str, Any], seed: int, index: int, until_s: float
    ) -> Sequence[float]:
        return [0.5 + 3.0 * k for k in range(int(until_s / 3.0))]

    def samples(self) -> Mapping[str, Any]:
        return {}
