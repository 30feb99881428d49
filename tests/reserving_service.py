"""A service that asks for what its options say, in both directions: PRBs, a floor, gains, reserved PRBs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.allocators.base import Allocator, Options, Service, SliceView
from controller.core.decision import SliceDemand, Want
from controller.core.measure import Outcome
from controller.core.spec import LoopSpec

NAME = "reserving"


class ReservingOptions(Options):
    """``gain`` of each PRB above the floor; ``from_slot``: nothing is wanted before."""

    prb: int = 0
    floor: int = 0
    gain: float | None = None
    reserved: tuple[Any, Any] = (0, 0)
    from_slot: int = 0


class Reserving(Allocator):
    def __init__(self, slice_id: str, options: Options, loop: LoopSpec) -> None:
        assert isinstance(options, ReservingOptions)
        self._options = options

    def learn(self, view: SliceView) -> Outcome:
        return Outcome(1, bool(view.users), unattributed=view.unattributed)

    def demand(self, view: SliceView) -> SliceDemand:
        o = self._options
        prb, floor = (o.prb, o.floor) if view.control_slot >= o.from_slot else (0, 0)
        want = Want(prb, floor, () if o.gain is None else (o.gain,) * (prb - floor))
        return SliceDemand(want, want, reserved=o.reserved)

    def to_state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any], models: Callable[[str], bytes]) -> None:
        pass


SERVICE = Service(NAME, ReservingOptions, Reserving)
