"""When the service ar ends a control slot before its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controller.core.observation import Enforcement, Flow, Frames, GpuReading, MacReport, Observation
from controller.core.spec import EventsSpec, Share
from controller.loop import ControlLoop
from tests.builders import MS, SLOT_NS, T0, frames, loop_spec, report, slice_spec

FLOW = Flow("f", "ue-1", "ar", 1e6, 1e6, T0)


def learned(policy: str = "headroom", slots: int = 12) -> Any:
    """A loop that has played some control slots of a good cell, and when the next one began."""
    loop = ControlLoop(loop_spec(slice_spec(policy=policy), events=EventsSpec()))
    for slot in range(slots):
        loop.step(played(slot, T0 + slot * SLOT_NS))
    return loop, T0 + slots * SLOT_NS


def played(slot: int, opened: int, **changes: Any) -> Observation:
    """A control slot of a good cell."""
    closed = opened + SLOT_NS
    values: dict[str, Any] = {
        "reports": reports(opened, 25),
        "flows": (FLOW,),
        "frames": frames(opened, closed, (9, 6, 9)),
        "enforcement": {"ar": Enforcement()},
        "gpu": GpuReading(1600),
    }
    return Observation(slot, opened, closed, **{**values, **changes})


def reports(
    opened: int, n: int, queued: Sequence[int] = (), mcs: Sequence[int] = ()
) -> tuple[MacReport, ...]:
    return tuple(
        report(
            opened + (i + 1) * 200 * MS,
            ul_mcs=mcs[i] if i < len(mcs) else 18,
            queued=queued[i] if i < len(queued) else 0,
        )
        for i in range(n)
    )


def so_far(opened: int, n: int, **changes: Any) -> Observation:
    now = opened + n * 200 * MS
    values: dict[str, Any] = {
        "reports": reports(opened, n),
        "flows": (FLOW,),
        "frames": frames(opened, now - 100 * MS, (9, 6, 9)),
    }
    return Observation(12, opened, now, **{**values, **changes})


def stuck(opened: int, now: int, since_ms: float) -> Frames:
    """What was sent since then is still on its way up; what was sent before is back."""
    of = frames(opened, now, (9, 6, 9))
    first = int(np.searchsorted(of.ue_sent, now - int(since_ms * MS)))
    sent = of.ue_sent.copy()
    sent[first] = now - int(since_ms * MS)
    columns = {name: getattr(of, name).copy() for name in ("edge_received", "edge_sent", "ue_received")}
    for column in columns.values():
        column[first:] = 0
    return replace(of, ue_sent=sent, **columns)


def test_a_lost_frame_is_no_frame_that_waits() -> None:
    loop, opened = learned()
    of = frames(opened, opened + 900 * MS, (9, 6, 9))
    columns = {name: getattr(of, name).copy() for name in ("edge_received", "edge_sent", "ue_received")}
    for column in columns.values():
        column[3] = 0
    assert loop.early(so_far(opened, 5, frames=replace(of, **columns))) == ""


def test_a_good_control_slot_lasts_its_time() -> None:
    loop, opened = learned()
    assert all(loop.early(so_far(opened, n)) == "" for n in range(1, 25))


def test_a_flow_that_starts_ends_it() -> None:
    loop, opened = learned()
    other = Flow("g", "ue-1", "ar", 1e6, 1e6, opened + 1)
    assert loop.early(so_far(opened, 5, flows=(FLOW, other))) == "ar: a flow started"
    ended = replace(other, stop_ns=opened + 2)
    assert loop.early(so_far(opened, 5, flows=(FLOW, ended))) == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (lambda o: {"reports": reports(o, 5, queued=(0, 0, 0, 9_000, 12_000))}, "ar: ul: the queue grows"),
        (lambda o: {"reports": reports(o, 5, queued=(0, 0, 9_000, 12_000, 0))}, ""),
        (lambda o: {"reports": reports(o, 5, mcs=(18, 18, 18, 3, 3))}, "ar: ul: the MCS falls"),
        (lambda o: {"reports": reports(o, 5, mcs=(18, 18, 3, 18, 3))}, ""),
        (lambda o: {"reports": ()}, ""),
        (lambda o: {"frames": stuck(o, o + 1000 * MS, 130)}, "ar: ul: frames wait"),
        (lambda o: {"frames": stuck(o, o + 1000 * MS, 110)}, ""),
    ],
)
def test_a_hop_that_falls_behind_ends_it(changes: Any, why: str) -> None:
    loop, opened = learned()
    assert loop.early(so_far(opened, 5, **changes(opened))) == why


def test_the_queue_that_was_drained_ends_it() -> None:
    loop, opened = learned()
    closed = opened + SLOT_NS
    decision = loop.step(
        Observation(
            12,
            opened,
            closed,
            reports=reports(opened, 25, queued=(0,) * 23 + (30_000, 30_000)),
            flows=(FLOW,),
            frames=frames(opened, closed, (9, 6, 9)),
            enforcement={"ar": Enforcement()},
            gpu=GpuReading(1600),
        )
    )
    assert decision.quotas["ar"] == (106, 106)
    draining = replace(so_far(closed, 5, reports=reports(closed, 5, queued=(30_000,) * 4 + (0,))))
    assert loop.early(draining) == ""
    drained = replace(so_far(closed, 5, reports=reports(closed, 5, queued=(30_000, 9_000, 0, 0, 0))))
    assert loop.early(drained) == "ar: the queue has drained"


@pytest.mark.parametrize("policy", ["static", "aimd", "ucb1", "mucb1"])
def test_policies_of_bits_do_not_ask_for_it(policy: str) -> None:
    loop, opened = learned(policy)
    assert loop.early(so_far(opened, 5, frames=stuck(opened, opened + 1000 * MS, 900))) == ""


def test_asking_changes_nothing() -> None:
    decisions = []
    for asks in (0, 10):
        loop, opened = learned()
        for _ in range(asks):
            assert loop.early(so_far(opened, 5, frames=stuck(opened, opened + 1000 * MS, 900)))
        decisions.append(loop.step(played(12, opened)).to_record())
    assert decisions[0] == decisions[1]


def test_flows_that_start_all_the_time_end_nothing_where_all_is_given() -> None:
    loop = ControlLoop(loop_spec(slice_spec(policy="headroom"), events=EventsSpec()))
    loop.step(played(0, T0))
    other = Flow("g", "ue-1", "ar", 1e6, 1e6, T0 + SLOT_NS + 1)
    assert loop.early(so_far(T0 + SLOT_NS, 5, flows=(FLOW, other))) == ""


def test_a_slice_with_all_of_its_share_asks_for_no_more() -> None:
    share = Share(max=50)
    loop = ControlLoop(loop_spec(slice_spec(policy="headroom", share=share), events=EventsSpec()))
    decision = loop.step(played(0, T0))
    assert decision.quotas["ar"] == (50, 50)
    queued = reports(T0 + SLOT_NS, 5, queued=(30_000,) * 5)
    assert loop.early(so_far(T0 + SLOT_NS, 5, reports=queued)) == ""


def test_before_the_first_decision_there_is_nothing_to_end() -> None:
    loop = ControlLoop(loop_spec(slice_spec(policy="headroom"), events=EventsSpec()))
    assert loop.early(so_far(T0, 5)) == ""
