"""Frames that were timed elsewhere, judged control slot by control slot as the controller would have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from controller.allocators.ar.delays import HOPS, MEASURES, Metric, delivery_ratio, judge
from controller.allocators.ar.options import ArOptions
from controller.allocators.base import SliceView
from controller.config import Config
from controller.core.observation import Flow, Frames, Mode, Observation
from controller.core.spec import LoopSpec
from controller.loop import ControlLoop
from controller.scenario import SCS_KHZ
from controller.store.run import RunStore
from wire.definitions.nr import TDD_PATTERNS

MAX_SLOTS = 1_000_000
"""More control slots than that are a wrong time in the data."""


class TimedFlow(Protocol):
    """A flow's name and its frames: int64 [n, 5], by sequence: the sequence and the four times in
    CLOCK_REALTIME ns, 0 where there is none."""

    flow: str
    frames: NDArray[np.int64]

    @property
    def start_ns(self) -> int: ...
    @property
    def stop_ns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose the flows are, and the rates that they offer."""

    ue: str
    slice: str
    ul_bps: float
    dl_bps: float


def control_slots(flows: Sequence[TimedFlow], config: Config, owner: Owner) -> list[Observation]:
    """Observations, control slot by control slot from the first frame: flows and frames as they were known at
    the close; neither MAC state nor GPU. ValueError, with the frames at both ends, where the times span more
    than ``MAX_SLOTS``."""
    known = [
        Flow(f.flow, owner.ue, owner.slice, owner.ul_bps, owner.dl_bps, f.start_ns, f.stop_ns + 1)
        for f in flows
    ]
    table = np.concatenate(
        [np.column_stack([np.full(len(f.frames), i), f.frames]) for i, f in enumerate(flows)]
    )
    table = table[np.argsort(table[:, 2], kind="stable")]
    sent = table[:, 2]
    step = round(config.control.control_slot_s * 1e9)
    opened = int(sent[0])
    if (count := (int(sent[-1]) - opened) // step) > MAX_SLOTS:
        days = (int(sent[-1]) - opened) / 86_400e9
        first, last = (f"frame {table[i, 1]} of {flows[table[i, 0]].flow} at {sent[i]} ns" for i in (0, -1))
        raise ValueError(
            f"the times are {days:.0f} days apart, {count} control slots: is a line wrong?"
            f" The first is {first}, the last {last}"
        )
    slots: list[Observation] = []
    while opened <= sent[-1]:
        closed = opened + step
        rows = table[np.searchsorted(sent, opened) : np.searchsorted(sent, closed)].copy()
        times = rows[:, 2:]
        times[times >= closed] = 0
        active = [i for i, f in enumerate(known) if f.start_ns < closed and f.stop_ns > opened]
        index = np.full(len(known), -1)
        index[active] = range(len(active))
        slots.append(
            Observation(
                control_slot=len(slots),
                opened_ns=opened,
                closed_ns=closed,
                flows=tuple(known[i] for i in active),
                frames=Frames(
                    flow=index[rows[:, 0]],
                    sequence=rows[:, 1],
                    ue_sent=rows[:, 2],
                    edge_received=rows[:, 3],
                    edge_sent=rows[:, 4],
                    ue_received=rows[:, 5],
                    synchronised=np.ones(len(rows), np.bool_),
                ),
            )
        )
        opened = closed
    return slots


def judge_slots(slots: Sequence[Observation], config: Config, name: str) -> dict[str, Any]:
    """QoS of every control slot by the budgets of slice ``name``, and over all busy ones.

    ValueError where the configuration has no such slice, or it is of another service.
    """
    chosen = next((s for s in config.cells[0].slices if s.id == name), None)
    if chosen is None:
        raise ValueError(f"no slice {name!r} in the configuration")
    if not isinstance(chosen.options, ArOptions):
        raise ValueError(
            f"slice {name!r} is of service {chosen.service!r}, whose promise is no delay of frames"
        )
    budgets, metric = chosen.options.budgets.to_budgets(), Metric.parse(chosen.options.metric)
    limits = dict(zip(MEASURES, (budgets.round_trip_ms, *map(budgets.of, HOPS)), strict=True))
    rows: list[dict[str, Any]] = []
    for observation in slots:
        view = SliceView.of(observation, name, guard_ms=config.control.guard_ms)
        outcome = judge(view, budgets, metric=metric)
        row: dict[str, Any] = {
            "control_slot": observation.control_slot,
            "opened_ns": observation.opened_ns,
            "busy": outcome.busy,
            "flows": len(outcome.users),
        }
        for measure in outcome.measures:
            delays = dict(zip(outcome.users, measure.values, strict=True))
            row[measure.name] = {
                "q": measure.met,
                "ms": {flow: ms for flow, ms in delays.items() if ms is not None},
                "frames": measure.samples,
                "budget_ms": limits[measure.name],
            }
        rows.append(row | dict(outcome.counts))
    busy = [row for row in rows if row["busy"]]
    return {
        "control_slots": len(rows),
        "busy_slots": len(busy),
        "qos_delivery_ratio_busy": {
            leg: delivery_ratio(row[leg]["q"] for row in busy if row[leg]["q"] is not None)
            for leg in MEASURES
        },
        "mean_delay_ms": {
            leg: _mean([ms for row in busy for ms in row[leg]["ms"].values()]) for leg in MEASURES
        },
        "slots": rows,
    }


def write_run(slots: Sequence[Observation], config: Config, folder: Path, source: str) -> None:
    """A run that only watched: every control slot in shadow, so that `report` and `replay` take it."""
    spec = replace(_loop_spec(config), mode=Mode.SHADOW)
    loop = ControlLoop(spec)
    with RunStore.create(folder, config=config.to_yaml(), meta={"imported": source}) as store:
        start = store.record_start(slots[0].opened_ns, spec.cell, spec.to_dict(), loop.to_state())
        for observation in slots:
            decision = loop.step(observation)
            store.record_slot(start, observation, decision.to_record(), loop.to_state())


def _loop_spec(config: Config) -> LoopSpec:
    return config.loop_spec(config.cells[0].id, 106, SCS_KHZ, TDD_PATTERNS["DSUUU"])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
