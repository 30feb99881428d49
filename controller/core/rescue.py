"""More than a slice asks for, where nothing says that what it asks for will do.

A bandit that learns nothing asks for its lowest untried action for ever. So a lever about which nothing was
learned goes to all that there is, whatever the reason, and comes back by small steps once something can be
learned; and a slice that misses its promise control slot after control slot is given more each time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.core.measure import RESOURCES, Lever, Outcome, Reason

STEPS = 8
"""A floor rises and falls in eighths of the carrier and of the GPU's highest clock."""
RISE = 2
"""Steps of a control slot that missed its promise; one that kept it goes down by one."""
FULL = STEPS


@dataclass(frozen=True, slots=True)
class RescueSpec:
    """When a slice gets more than it asks for.

    ``blind_slots``: control slots running in which nothing was learned about a lever, after which it goes to
    full resources. ``missed_slots``: control slots running that missed the promise, after which the floors
    rise. ValueError for less than one.
    """

    blind_slots: int = 3
    missed_slots: int = 4

    def __post_init__(self) -> None:
        if self.blind_slots < 1 or self.missed_slots < 1:
            raise ValueError(f"rescue after {self.blind_slots} blind or {self.missed_slots} missed slots")


@dataclass(frozen=True, slots=True)
class Floor:
    """What a lever has at least, in ``steps`` of 1/:data:`STEPS` of all that there is, and why."""

    steps: int
    why: str

    def of(self, maximum: int) -> int:
        """In PRB or MHz, rounded up."""
        return -(-maximum * self.steps // STEPS)


def text(rescue: Mapping[str, Sequence[Any]]) -> str:
    """What a slice's record (``rescue``) says, as a person reads it; "" for nothing."""
    by_why: dict[str, list[str]] = {}
    for lever, (least, why) in rescue.items():
        unit = "MHz" if lever == Lever.EDGE.value else "PRB"
        by_why.setdefault(why, []).append(f"{lever} {least} {unit}")
    return "; ".join(f"{', '.join(levers)} at least ({why})" for why, levers in by_why.items())


class Rescue:
    """The floors of one slice's resources. A lever's floor falls while its slice is idle, keeps its promise
    or has given none, and something is, or could be, learned about the lever."""

    def __init__(self, spec: RescueSpec) -> None:
        self._spec = spec
        self._blind = dict.fromkeys(RESOURCES, 0)
        self._missed = 0
        self._floors: dict[Lever, Floor] = {}

    @property
    def floors(self) -> Mapping[Lever, Floor]:
        """The levers that have a floor."""
        return self._floors

    def close(self, outcome: Outcome, more: Collection[Lever], unseen: Reason | None = None) -> None:
        """Take the outcome of a control slot in which decisions were in force.

        ``more`` are the levers that had more than the slice asked for, and for no other reason would not be
        learned about. ``unseen`` says why the outcome is not that of the slice's users; None where it is.
        """
        if not outcome.busy and not unseen:
            for lever in RESOURCES:
                self._lower(lever)
            return
        for lever in RESOURCES:
            why = unseen or self._blind_because(lever, outcome, more)
            if why is None:
                self._blind[lever] = 0
                if outcome.met or not outcome.promised:
                    self._lower(lever)
                continue
            self._blind[lever] = min(self._blind[lever] + 1, self._spec.blind_slots)
            if self._blind[lever] == self._spec.blind_slots:
                self._floors[lever] = Floor(FULL, f"nothing learned: {why.value}")
        if outcome.met is not None and not unseen:
            self._missed = 0 if outcome.met else self._missed + 1
        if self._missed >= self._spec.missed_slots and (outcome.promised or unseen):
            kept = {measure.name for measure in outcome.measures if measure.met}
            # Where every lever kept its own measure (percentiles do not add up), all of them are too little.
            for lever in [lever for lever in RESOURCES if lever.value not in kept] or RESOURCES:
                self._raise(lever)

    @staticmethod
    def _blind_because(lever: Lever, outcome: Outcome, more: Collection[Lever]) -> Reason | None:
        """Why nothing was learned about a lever; None where something was, or would be at what it wants.

        Where nothing is known of the settings, what its users do with the resources is not known either.
        """
        reason = outcome.unattributed.get(Lever.SETTINGS) or outcome.unattributed.get(lever)
        if reason is not None and reason.more and lever in more:
            known = outcome.met is not None or not outcome.promised
            return None if known else Reason.PROMISE_NOT_KNOWN
        return reason

    def _raise(self, lever: Lever) -> None:
        before = self._floors.get(lever)
        if before is None or before.steps < FULL:
            steps = min(FULL, RISE + (before.steps if before else 0))
            self._floors[lever] = Floor(
                steps, f"promise missed {self._spec.missed_slots} control slots running"
            )

    def _lower(self, lever: Lever) -> None:
        floor = self._floors.pop(lever, None)
        if floor is not None and floor.steps > 1:
            self._floors[lever] = Floor(floor.steps - 1, floor.why)

    def to_state(self) -> dict[str, Any]:
        return {
            "blind": {lever.value: n for lever, n in self._blind.items() if n},
            "missed": self._missed,
            "floors": {lever.value: [floor.steps, floor.why] for lever, floor in self._floors.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """KeyError, TypeError, ValueError for what is no state."""
        blind = {lever: int(state["blind"].get(lever.value, 0)) for lever in RESOURCES}
        floors = {Lever(name): Floor(int(steps), str(why)) for name, (steps, why) in state["floors"].items()}
        self._missed, self._blind, self._floors = int(state["missed"]), blind, floors
