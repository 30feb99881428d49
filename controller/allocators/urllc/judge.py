"""What came of a control slot: tasks in time, their latency, losses and energy, against what was promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from controller.allocators.base import SliceView
from controller.allocators.urllc.instance import BoolArray, FloatArray
from controller.allocators.urllc.options import UrllcOptions
from controller.allocators.views import faults, kept_by_share, prb_had, unreported, usable, within
from controller.core.hops import Carrier
from controller.core.measure import Lever, Measure, Outcome, Reason
from controller.core.observation import Samples

LOCAL, UPLINK, EDGE, DOWNLINK, TOTAL, ENERGY, LOST = range(7)
COLUMNS: Final = 7
"""Columns of the table ``task``: five latencies in ms, mJ, and whether the task was lost."""
_LATE: Final = 1e-3
"""Of the deadline: float32 on the way."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What a device was to have: ms of processing, at the device and at the edge, and PRBs of the uplink."""

    computing_ms: float
    prb: float


def judge(
    view: SliceView,
    options: UrllcOptions,
    promises: Mapping[str, Promise],
    energy_mj: Mapping[str, float],
    carrier: Carrier,
    unattributed: Mapping[Lever, Reason],
) -> Outcome:
    """Seven measures of each device, judged on the tasks that began between ``begin_ns`` and ``end_ns``.

    ``on_time``: the share of them that was over within the deadline, against the option of that name.
    ``latency``: their mean in ms, of those that were not lost, against the deadline. ``latency_tail``: what a
    share ``on_time`` of these does not exceed, against the same. ``computing``: the mean of what device and
    edge took for them, in ms, against the plan. ``loss``: the share that was lost, against epsilon.
    ``energy``: mean of the UE's in mJ, against its budget in ``energy_mj`` (0: not known). ``ul_prb``: PRBs
    in each uplink slot that the device really had, HARQ included, against those of its bandwidth in the plan.

    The slice has met its promise where a share ``users`` of the devices that were promised something, rounded
    down and one at least, had ``on_time`` kept. ``counts``: ``promises`` that were judged and
    ``promises_kept``, ``tasks``, ``tasks_on_time``, ``tasks_lost``. ``faults``: rows with a number that
    cannot be.
    """
    users = view.users
    n = len(users)
    rows = within(view, "task", COLUMNS)
    impossible = _impossible(rows)
    found, rows = faults(impossible), usable(rows, impossible)
    columns: list[list[float | None]] = [[None] * n for _ in range(6)]
    share, mean, tail, computing, loss, energy = columns
    tasks = in_time = lost = 0
    for i in range(n):
        own = rows.values[rows.flow == i].astype(np.float64)
        if not len(own):
            continue
        gone = own[:, LOST] > 0.5
        ms = own[~gone, TOTAL]
        good = int((ms <= options.deadline_ms * (1.0 + _LATE)).sum())
        tasks, in_time, lost = tasks + len(own), in_time + good, lost + int(gone.sum())
        share[i], loss[i] = good / len(own), float(gone.mean())
        if len(ms):
            mean[i], tail[i] = float(ms.mean()), float(np.quantile(ms, options.on_time))
            computing[i] = float(np.nan_to_num(own[~gone][:, [LOCAL, EDGE]]).sum(axis=1).mean())
        spent = own[np.isfinite(own[:, ENERGY]), ENERGY]
        energy[i] = float(spent.mean()) if len(spent) else None
    kept = [None if s is None else s >= options.on_time - 1e-9 for s in share]
    given = [promises.get(u.flow) for u in users]
    judged = [k for k, p in zip(kept, given, strict=True) if p is not None and k is not None]
    met = kept_by_share(judged, options.users)
    deadline = (options.deadline_ms,) * n
    measures = (
        Measure("on_time", "1", "higher", tuple(share), (options.on_time,) * n, met, tasks),
        Measure("latency", "ms", "lower", tuple(mean), deadline, None, tasks),
        Measure("latency_tail", "ms", "lower", tuple(tail), deadline, None, tasks),
        Measure(
            "computing",
            "ms",
            "lower",
            tuple(computing),
            tuple(0.0 if p is None else p.computing_ms for p in given),
            None,
            tasks,
        ),
        Measure("loss", "1", "lower", tuple(loss), (options.error,) * n, None, tasks),
        Measure(
            "energy",
            "mJ",
            "lower",
            tuple(energy),
            tuple(energy_mj.get(u.flow, 0.0) for u in users),
            None,
            tasks,
        ),
        Measure(
            "ul_prb",
            "PRB",
            "higher",
            tuple(prb_had(view, carrier, "ul")),
            tuple(0.0 if p is None else p.prb for p in given),
            None,
            len(view.reports),
        ),
    )
    return Outcome(
        met=met,
        busy=any(k is not None for k in kept),
        promised=bool(judged) or all(k is None for k in kept),
        users=tuple(u.flow for u in users),
        measures=measures,
        unattributed=unattributed,
        counts={
            "promises": len(judged),
            "promises_kept": sum(judged),
            "tasks": tasks,
            "tasks_on_time": in_time,
            "tasks_lost": lost,
        },
        faults=found,
    )


def tasks_of(view: SliceView) -> Samples:
    """Rows of the table ``task`` that count and that can be."""
    rows = within(view, "task", COLUMNS)
    return usable(rows, _impossible(rows))


def silent(view: SliceView) -> frozenset[str]:
    """Of the devices that were there all that time those of whose tasks no row has come."""
    return unreported(view, "task")


def _impossible(rows: Samples) -> dict[str, BoolArray]:
    v: FloatArray = rows.values.astype(np.float64)
    times = v[:, : TOTAL + 1]
    lost = v[:, LOST]
    return {
        "infinite": np.isinf(v).any(axis=1),
        "latency below 0": np.asarray((times < 0.0).any(axis=1)),
        "energy below 0": v[:, ENERGY] < 0.0,
        "lost neither 0 nor 1": ~((lost == 0.0) | (lost == 1.0)),
        "neither lost nor over": (lost == 0.0) & ~np.isfinite(v[:, TOTAL]),
    }
