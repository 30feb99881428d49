"""One control slot of a slice with many users, against one of MUCB1 with two flows."""

from __future__ import annotations

import sys
import time

import numpy as np

from controller import allocators
from controller.core.observation import DirectionColumns, Flow, Frames, MacReport, Observation, Samples
from controller.core.spec import SliceSpec
from controller.loop import ControlLoop
from tests import builders
from tests.bench.common import Row
from tests.echo import PLUGIN

NAME = "control-slot"
USERS = (8, 64, 512)
_S = 1_000 * builders.MS


def run(effort: float) -> list[Row]:
    """A step of the loop for the tests' ``echo`` with 8, 64 and 512 users, five messages of each in the slot.

    The observation is there: what is measured is judging, learning, asking, dividing and settling. Beside it
    is the step of ``ar`` under MUCB1 with two flows of 30 frames a second, in turns.
    """
    sys.path.insert(0, str(PLUGIN))
    try:
        return _rows(max(20, int(300 * effort)))
    finally:
        sys.path.remove(str(PLUGIN))
        allocators.service.cache_clear()


def _rows(n: int) -> list[Row]:
    rows = []
    for users in USERS:
        echo = ControlLoop(builders.loop_spec(SliceSpec("echo", "echo", ("ue-0",))))
        ar = ControlLoop(builders.loop_spec())
        took: dict[str, list[float]] = {"echo": [], "ar": []}
        for k in range(n):
            for name, loop, seen in (
                ("echo", echo, _observation(k, users)),
                ("ar", ar, builders.observation(k, n_flows=2)),
            ):
                start = time.perf_counter()
                loop.step(seen)
                took[name].append((time.perf_counter() - start) * 1e3)
        ms, baseline = (float(np.median(took[name])) for name in ("echo", "ar"))
        label = f"control slot of echo, {users} users"
        aim = "<= 10 ms" if users == 64 else ""
        figures = {"steps": n, "echo_p99_ms": float(np.percentile(took["echo"], 99))}
        rows.append(Row(NAME, label, "ms", ms, baseline, "ar, MUCB1, 2 flows", ms / baseline, aim, figures))
    return rows


def _observation(slot: int, users: int) -> Observation:
    opened = builders.T0 + slot * 5 * _S
    closed = opened + 5 * _S
    flows = tuple(Flow(f"echo-{i}", f"ue-{i % 64}", "echo", 8e3, 8e3, builders.T0) for i in range(users))
    flow = np.repeat(np.arange(users), 5)
    sent = opened + np.tile(np.arange(5), users) * _S + 300 * builders.MS
    back = sent + 20 * builders.MS
    frames = Frames(
        flow, np.tile(np.arange(5), users), sent, sent + 10, sent + 20, back, np.ones(len(flow), np.bool_)
    )
    ues = min(users, 64)
    column = DirectionColumns(*((value,) * ues for value in (18, 1, 1, 0, 0.0, 0, 0)))
    names, slices = tuple(f"ue-{i}" for i in range(ues)), ("echo",) * ues
    reports = tuple(
        MacReport(opened + i * 200 * builders.MS, names, slices, column, column, (15,) * ues, (20.0,) * ues)
        for i in range(25)
    )
    echoes = Samples(flow, back, np.full((len(flow), 1), 20.0, np.float32))
    return builders.observation(
        slot,
        slices=("echo",),
        opened_ns=opened,
        closed_ns=closed,
        flows=flows,
        frames=frames,
        reports=reports,
        samples={"echo": {"echoes": echoes}},
    )
