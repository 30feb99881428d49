"""Counts the control slots in which it saw each user, those of the cells before included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.allocators.base import Allocator, Options, Service, SliceView
from controller.core.decision import SliceDemand, Want
from controller.core.measure import Outcome
from controller.core.spec import LoopSpec
from tests.following import NAME

MAX_PRB = 50


class FollowingOptions(Options):
    """``how`` names what hand_over does instead."""

    how: str = ""


class Following(Allocator):
    def __init__(self, slice_id: str, options: Options, loop: LoopSpec) -> None:
        assert isinstance(options, FollowingOptions)
        self._cell, self._how = loop.cell, options.how
        self._seen: dict[str, int] = {}

    def learn(self, view: SliceView) -> Outcome:
        for flow, arrival in view.arrivals.items():
            assert flow in {u.flow for u in view.users} and arrival["cell"] != self._cell
            self._seen[flow] = arrival["seen"]
        for flow in {u.flow for u in view.users}:
            self._seen[flow] = self._seen.get(flow, 0) + 1
        return Outcome(1, bool(view.users), unattributed=view.unattributed)

    def demand(self, view: SliceView) -> SliceDemand:
        # What is decided depends on what is known of the users, so that a replay without it differs.
        known = sum(self._seen[u.flow] for u in view.users)
        return SliceDemand(Want(1 + known % MAX_PRB), Want(1))

    def hand_over(self, flow: str) -> Mapping[str, Any] | None:
        match self._how:
            case "raises":
                raise RuntimeError(f"of {flow} nothing can be said")
            case "large":
                return {"of": "x" * 20_000}
            case "no mapping":
                return [flow]  # type: ignore[return-value]
            case "not finite":
                return {"seen": float("nan")}
        return {"cell": self._cell, "seen": self._seen[flow]} if flow in self._seen else None

    def to_state(self) -> dict[str, Any]:
        return dict(self._seen)

    def load_state(self, state: Mapping[str, Any], models: Callable[[str], bytes]) -> None:
        self._seen = dict(state)


SERVICE = Service(NAME, FollowingOptions, Following)
