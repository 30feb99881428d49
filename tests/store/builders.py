"""Control slots of a real control loop on small observations, for tests of the record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from controller.core.observation import Observation
from controller.loop import ControlLoop
from controller.store.run import to_json
from tests import builders


@dataclass(frozen=True)
class Step:
    """What one control slot gives the record."""

    observation: Observation
    record: dict[str, Any]
    state: dict[str, Any]


def steps(loop: ControlLoop, n: int, slot_ns: int = 1_000 * builders.MS) -> Iterator[Step]:
    """The loop's next ``n`` control slots, with delays that now and then violate a budget."""
    for _ in range(n):
        number = loop.control_slot
        delays = (20.0 + 60.0 * (number % 7 == 3), 9.0, 15.0)
        observation = builders.observation(number, delays, slot_ns=slot_ns, n_flows=int(number % 5 != 4))
        decision = loop.step(observation)
        yield Step(observation, decision.to_record(), loop.to_state())


def plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(to_json(value))
