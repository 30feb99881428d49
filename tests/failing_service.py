"""A service whose allocator fails where, how and when its options say; the same in a replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from controller.allocators.base import Allocator, Column, Options, Service, SliceView
from controller.core.decision import Choice, Grant, Settings, SliceDemand, Want
from controller.core.fits import Job
from controller.core.measure import Lever, Measure, Outcome
from controller.core.spec import LoopSpec

NAME = "failing"
PRB = 20
"""What it wants in each direction, and one more in every third control slot."""


class FailingOptions(Options):
    """``how`` names what happens in the control slots from ``first`` up to ``last``."""

    how: str = ""
    first: int = 3
    last: int = 5


class Failing(Allocator):
    def __init__(self, slice_id: str, options: Options, loop: LoopSpec) -> None:
        assert isinstance(options, FailingOptions)
        self._options, self._prb = options, loop.n_prb
        self._slot = 0
        self._learned = 0
        self.fits: list[str] = []

    @property
    def _how(self) -> str:
        return self._options.how if self._options.first <= self._slot <= self._options.last else ""

    def learn(self, view: SliceView) -> Outcome:
        self._slot = view.control_slot
        self.fits += [f"{view.control_slot} {fit.key} {fit.error}".strip() for fit in view.fits]
        match self._how:
            case "learn: raises":
                raise RuntimeError("cannot learn")
            case "learn: nothing":
                return None  # type: ignore[return-value]
            case "learn: too few values":
                return Outcome(1, True, ("u",), (Measure("m", "1", "higher", (), (), 1, 0),))
            case "learn: NaN":
                return Outcome(1, True, ("u",), (Measure("m", "1", "higher", (float("nan"),), (1.0,), 1, 0),))
        self._learned += 1
        return Outcome(1, bool(view.users), unattributed=view.unattributed)

    def demand(self, view: SliceView) -> SliceDemand:
        match self._how:
            case "demand: raises":
                raise KeyError("no such user")
            case "demand: too many PRBs":
                return SliceDemand(Want(PRB), Want(self._prb + 1))
            case "demand: too fast a clock":
                return SliceDemand(Want(PRB), Want(PRB), 10**6)
            case "demand: floor above what is wanted":
                return SliceDemand(Want(PRB, PRB + 1), Want(PRB))
            case "demand: no whole number":
                return SliceDemand(Want(np.int64(PRB)), Want(PRB))  # type: ignore[arg-type]
            case "demand: a clock that is none":
                return SliceDemand(Want(PRB), Want(PRB), 500.0)  # type: ignore[arg-type]
            case "demand: NaN in a choice":
                choice = Choice(Lever.UL, "PRB", "m", PRB, "because", state=float("nan"))
                return SliceDemand(Want(PRB), Want(PRB), choices=(choice,))
            case "demand: nothing":
                return None  # type: ignore[return-value]
        return SliceDemand(Want(PRB + (self._slot % 3 == 0)), Want(PRB))

    def settle(self, view: SliceView, grant: Grant) -> Settings:
        flow = view.users[0].flow if view.users else "bad-1"
        match self._how:
            case "settle: raises":
                raise ZeroDivisionError("no PRB left")
            case "settle: nothing":
                return None  # type: ignore[return-value]
            case "settle: another's flow":
                return {"flow-0": {"upload_hz": (1.0,)}}
            case "settle: unknown setting":
                return {flow: {"colour": (1.0,)}}
            case "settle: NaN":
                return {flow: {"upload_hz": (float("nan"),)}}
            case "settle: too many values":
                return {flow: {"upload_hz": (1.0, 2.0)}}
            case "settle: no value":
                return {flow: {"upload_hz": ()}}
        return {u.flow: {"upload_hz": (np.float32(grant.ul_prb),)} for u in view.users}

    def jobs(self) -> Sequence[Job]:
        match self._how:
            case "jobs: raises":
                raise OSError("no data")
            case "jobs: nothing":
                return None  # type: ignore[return-value]
            case "jobs: an impossible one":
                return (Job("", "tests.fit_jobs:draw", {}, 0),)
        return (Job(f"job {self._slot}", "tests.fit_jobs:draw", {"n": 1}, 0),)

    def to_state(self) -> dict[str, Any]:
        return {"slot": self._slot, "learned": self._learned, "fits": list(self.fits)}

    def load_state(self, state: Mapping[str, Any], models: Callable[[str], bytes]) -> None:
        self._slot, self._learned, self.fits = state["slot"], state["learned"], list(state["fits"])


HOWS = tuple(
    f"{where}: {what}"
    for where, whats in {
        "learn": ("raises", "nothing", "too few values", "NaN"),
        "demand": (
            "raises",
            "too many PRBs",
            "too fast a clock",
            "floor above what is wanted",
            "no whole number",
            "a clock that is none",
            "NaN in a choice",
            "nothing",
        ),
        "settle": (
            "raises",
            "nothing",
            "another's flow",
            "unknown setting",
            "NaN",
            "too many values",
            "no value",
        ),
        "jobs": ("raises", "nothing", "an impossible one"),
    }.items()
    for what in whats
)

SERVICE = Service(NAME, FailingOptions, Failing, settings={"upload_hz": Column("upload_hz", "Hz")})
