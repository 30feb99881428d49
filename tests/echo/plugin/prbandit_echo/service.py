"""Asks for more PRBs when a message came back late, for fewer while all come back in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from controller.allocators.base import Allocator, Column, Options, Service, SliceView
from controller.core.decision import Choice, Grant, Settings, SliceDemand, Want
from controller.core.fits import Job
from controller.core.measure import Lever, Measure, Outcome
from controller.core.spec import LoopSpec

_MS = 1_000_000


class EchoOptions(Options):
    """``within_ms`` is the promise; a user's messages have ``bytes_per_prb`` for each UL PRB of its slice."""

    within_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 100.0
    least_prb: Annotated[int, Field(ge=1)] = 2
    most_prb: Annotated[int, Field(ge=1)] = 40
    bytes_per_prb: Annotated[int, Field(ge=1)] = 200
    fit: bool = False

    def check(self, *, n_prb: int, max_mhz: int, min_prb: int = 1) -> None:
        if not self.least_prb <= self.most_prb <= n_prb:
            raise ValueError(f"least_prb {self.least_prb} and most_prb {self.most_prb} of {n_prb} PRB")


class EchoAllocator(Allocator):
    def __init__(self, slice_id: str, options: Options, loop: LoopSpec) -> None:
        assert isinstance(options, EchoOptions)
        self._slice, self._options, self._loop = slice_id, options, loop
        self._prb = options.least_prb
        self._good = 0
        self._model = ""

    def set(self, options: Options) -> None:
        assert isinstance(options, EchoOptions)
        self._options = options
        self._prb = min(max(self._prb, options.least_prb), options.most_prb)

    def learn(self, view: SliceView) -> Outcome:
        for fit in view.fits:
            if not fit.error:
                self._model = fit.digest
                view.models(fit.digest)
        outcome = self._judge(view)
        if Lever.UL not in view.unattributed and Lever.DL not in view.unattributed and outcome.busy:
            if outcome.met == 0:
                self._good, self._prb = 0, min(2 * self._prb, self._options.most_prb)
            elif outcome.met == 1:
                self._good += 1
                if self._good >= 5:
                    self._good, self._prb = 0, max(self._prb - 1, self._options.least_prb)
        return outcome

    def _judge(self, view: SliceView) -> Outcome:
        sent, back = view.frames.ue_sent, view.frames.ue_received
        late = (back == 0) & (view.end_ns - sent > self._options.within_ms * _MS)
        # One that is back counts however late in the slot it was sent: with one a second there are few.
        counted = (sent >= view.begin_ns) & ((back != 0) | late)
        delay = np.where(back != 0, back - sent, view.end_ns - sent) / _MS
        worst: list[float | None] = []
        for i in range(len(view.users)):
            mine = delay[counted & (view.frames.flow == i)]
            worst.append(float(mine.max()) if len(mine) else None)
        told = view.samples.get("echoes")
        size = [view.settings.get(u.flow, {}).get("message_bytes", (None,))[0] for u in view.users]
        known = [ms for ms in worst if ms is not None]
        limit = self._options.within_ms
        met = None if not known else int(max(known) <= limit)
        n = len(view.users)
        return Outcome(
            met=met,
            busy=bool(known),
            users=tuple(u.flow for u in view.users),
            measures=(
                Measure("reply", "ms", "lower", tuple(worst), (limit,) * n, met, int(counted.sum())),
                Measure("message_size", "bytes", "higher", tuple(size), (0.0,) * n, None, n),
            ),
            unattributed=dict(view.unattributed),
            counts={"late_messages": int(late.sum()), "echoes": 0 if told is None else len(told)},
        )

    def demand(self, view: SliceView) -> SliceDemand:
        want = Want(self._prb, min(self._prb, self._options.least_prb))
        choices = tuple(
            Choice(lever, "PRB", "double-or-less", self._prb, "late" if not self._good else "in time")
            for lever in (Lever.UL, Lever.DL)
        )
        return SliceDemand(want, want, choices=choices)

    def settle(self, view: SliceView, grant: Grant) -> Settings:
        size = float(max(1, self._options.bytes_per_prb * grant.ul_prb))
        return {u.flow: {"message_bytes": (size,)} for u in view.users if not u.stop_ns}

    def jobs(self) -> Sequence[Job]:
        if not self._options.fit:
            return ()
        return (Job("mean", "prbandit_echo.service:fit", {"values": np.arange(4.0)}, 7),)

    def to_state(self) -> dict[str, Any]:
        return {"prb": self._prb, "good": self._good, "model": self._model}

    def load_state(self, state: Mapping[str, Any], models: Callable[[str], bytes]) -> None:
        self._prb, self._good = int(state["prb"]), int(state["good"])
        self._model = str(state["model"])


def fit(values: np.ndarray, seed: int) -> bytes:
    """What is computed beside the loop."""
    return (values.mean() + np.random.default_rng(seed).random()).tobytes()


SERVICE = Service(
    name="echo",
    options=EchoOptions,
    allocator=EchoAllocator,
    tables={"echoes": (Column("round_trip", "ms"),)},
    settings={"message_bytes": Column("message_bytes", "bytes")},
)
