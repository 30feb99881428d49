"""The cause of a missed control slot, on slots whose cause is known because they were made that way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from controller.allocators.ar import causes, delays
from controller.allocators.ar.budgets import Budgets
from controller.allocators.ar.causes import Cause
from controller.allocators.ar.delays import Metric
from controller.allocators.base import SliceView
from controller.core.decision import Grant
from controller.core.hops import Carrier
from controller.core.measure import Lever, Outcome, Reason
from controller.core.misses import Miss
from controller.core.observation import DirectionColumns, Flow, Frames, MacReport, Observation

MS = 1_000_000
T0 = 1_800_000_000_000_000_000
SLOT_MS, GUARD_MS, FRAME_MS = 5000.0, 200.0, 100 / 3
FULL, PLENTY = Grant(106, 106, 1600), Grant(50, 50, 1600)
BUDGETS = Budgets(70, 20, 60)


@dataclass
class Hop:
    """A server that takes ``service`` ms a frame (by time, ms of the slot), with stalls and ``ahead`` ms of
    work at the beginning; ``latency`` comes on top and holds nobody up."""

    service: Any = 3.0
    latency: float = 8.0
    stalls: Sequence[tuple[float, float]] = ()
    ahead: float = 0.0

    def pass_through(self, entered: list[float]) -> list[float]:
        free, left = self.ahead, []
        for t in entered:
            start = max(t, free)
            for begin, end in self.stalls:
                if begin <= start < end:
                    start = end
            free = start + (self.service(start) if callable(self.service) else self.service)
            left.append(free + self.latency)
        return left


@dataclass
class World:
    """A control slot of some flows over one UE, a report every 200 ms."""

    ul: Hop = field(default_factory=lambda: Hop(latency=10.0))
    edge: Hop = field(default_factory=lambda: Hop(service=7.0, latency=1.0))
    dl: Hop = field(default_factory=lambda: Hop(latency=10.0))
    grant: Grant = PLENTY
    starts_ms: Sequence[float] = (-60_000.0,)
    sends_from_ms: float = 0.0
    ul_mcs: Any = 18
    dl_mcs: Any = 28
    ul_bps: float = 3e6
    dl_bps: float = 1e6
    queued: int = 0
    ul_used: Any = None
    """Part of the UL grant that is used, by time; None: the reports do not say."""
    synchronised: bool = True
    unattributed: dict[Lever, Reason] = field(default_factory=dict)

    def observation(self) -> Observation:
        rows = sorted(
            (sent, number)
            for number, start in enumerate(self.starts_ms)
            for sent in np.arange(max(start, self.sends_from_ms) + 3 * number, SLOT_MS, FRAME_MS).tolist()
        )
        sent = [t for t, _ in rows]
        times = [sent]
        for hop in (self.ul, self.edge, self.dl):
            times.append(hop.pass_through(times[-1]))

        def column(of: list[float]) -> Any:
            return np.array([T0 + round(t * MS) if t < SLOT_MS else 0 for t in of], np.int64)

        return Observation(
            7,
            T0,
            T0 + round(SLOT_MS * MS),
            reports=self.reports(),
            flows=tuple(
                Flow(f"f{i}", "ue1", "ar", self.ul_bps, self.dl_bps, T0 + round(start * MS))
                for i, start in enumerate(self.starts_ms)
            ),
            frames=Frames(
                np.array([number for _, number in rows], np.int64),
                np.arange(len(rows), dtype=np.int64),
                *map(column, times),
                np.full(len(rows), self.synchronised),
            ),
        )

    def reports(self) -> tuple[MacReport, ...]:
        out, total = [], 0
        nr_slots = 200 * 2 * Carrier().tdd.share("ul", guard=False)
        for at in np.arange(200.0, SLOT_MS + 1, 200.0).tolist():
            queued = self.queued if at == 200.0 else 0
            if self.ul_used is not None:
                total += round(self.ul_used(at - 100.0) * self.grant.ul_prb * nr_slots)
            mcs = [m(at) if callable(m) else m for m in (self.ul_mcs, self.dl_mcs)]
            ul, dl = (DirectionColumns((m,), (1,), (1,), (q,)) for m, q in zip(mcs, (queued, 0), strict=True))
            if self.ul_used is not None:
                ul = replace(ul, prb_slots=(total,))
            out.append(MacReport(T0 + round(at * MS), ("ue1",), ("ar",), ul, dl))
        return tuple(out)

    def find(self, **more: Any) -> Miss | None:
        view = SliceView.of(
            self.observation(),
            "ar",
            guard_ms=GUARD_MS,
            granted=self.grant,
            unattributed=self.unattributed,
        )
        metric = more.get("metric", Metric())
        outcome = delays.judge(view, BUDGETS, metric=metric, unattributed=self.unattributed)
        return causes.find(view, outcome, budgets=BUDGETS, carrier=Carrier(), full=FULL, **more)

    def miss(self, **more: Any) -> Miss:
        found = self.find(**more)
        assert found is not None, "the control slot did not miss"
        return found


MISSED_BEFORE = Outcome(0, True, counts={delays.LATE: 5})
MET_BEFORE = Outcome(1, True, counts={delays.LATE: 0})


def where(miss: Miss) -> tuple[str, Lever | None]:
    return miss.cause, miss.hop


def test_a_control_slot_that_kept_its_promise_has_no_cause() -> None:
    assert World().find() is None


@pytest.mark.parametrize("grant", [Grant(50, 50, 1600), FULL])
def test_a_stall_that_all_resources_would_have_missed_with_is_a_hiccup(grant: Grant) -> None:
    for hop in ("ul", "dl"):
        miss = replace(World(grant=grant), **{hop: Hop(stalls=[(1000, 3000)])}).miss(before=MET_BEFORE)
        assert where(miss) == (Cause.HICCUP, Lever(hop)) and miss.unavoidable
        assert miss.text == f"stalled for {miss.hops[Lever(hop)].stall_ms:.0f} ms"
        assert 1950 < miss.hops[Lever(hop)].stall_ms < 2050
        assert miss.at_full_ms is not None and miss.at_full_ms > 400


def test_a_hiccup_at_the_edge_is_that_of_the_edge() -> None:
    miss = World(edge=Hop(service=7.0, latency=1.0, stalls=[(1000, 2800)])).miss()
    assert where(miss) == (Cause.HICCUP, Lever.EDGE)


def test_a_hiccup_comes_before_whose_decision_it_was_and_before_what_was_inherited() -> None:
    world = World(ul=Hop(stalls=[(1000, 3000)]), unattributed={Lever.UL: Reason.FROZEN})
    assert where(world.miss(before=MISSED_BEFORE)) == (Cause.HICCUP, Lever.UL)


def test_a_stall_that_all_resources_would_have_made_good_was_drained_too_slowly() -> None:
    miss = World(ul=Hop(service=27.0, stalls=[(1000, 1750)]), grant=Grant(20, 50, 1600)).miss()
    assert where(miss) == (Cause.DRAINED, Lever.UL) and not miss.unavoidable
    assert miss.at_full_ms is not None and miss.at_full_ms < 150


def test_time_in_which_the_prbs_were_used_is_no_stall() -> None:
    # Nothing comes out for two seconds; at first because the UE is slow, then because it is gone.
    hop = Hop(stalls=[(1000, 3000)])
    working = World(ul=hop, ul_used=lambda _: 0.5)
    assert working.miss().cause is Cause.TOO_LITTLE
    gone = World(ul=hop, ul_used=lambda t: 0.0 if 1000 < t < 3000 else 0.3)
    assert where(gone.miss()) == (Cause.HICCUP, Lever.UL)


def test_a_stall_that_began_before_the_slot_is_seen_by_the_prbs_alone() -> None:
    # The application is held up by its full socket: no frame is sent before the UE is back.
    stalled = World(
        ul=Hop(stalls=[(0, 1600)], ahead=2600.0, service=10.0),
        sends_from_ms=1500.0,
        ul_used=lambda t: 0.0 if t < 1600 else 0.5,
    )
    assert where(stalled.miss(before=MISSED_BEFORE)) == (Cause.HICCUP, Lever.UL)
    working = replace(stalled, ul_used=lambda _: 0.5)
    assert working.miss(before=MISSED_BEFORE).cause is Cause.BACKLOG


def test_a_backlog_that_the_grant_would_not_have_had_from_an_empty_queue_is_inherited() -> None:
    world = World(ul=Hop(service=25.0, ahead=1200.0))
    miss = world.miss(before=MISSED_BEFORE)
    assert where(miss) == (Cause.BACKLOG, Lever.UL)
    assert miss.text == "the queue at its beginning took 1198 ms"
    # Nothing says that there was one.
    assert world.miss(before=MET_BEFORE).cause is not Cause.BACKLOG
    # The queue of the first report does: at 50 PRB and MCS 18 it takes more than the guard.
    assert replace(world, queued=1_000_000).miss(before=MET_BEFORE).cause is Cause.BACKLOG


def test_a_lever_that_was_not_as_asked_for_is_named() -> None:
    too_little = World(ul=Hop(service=40.0), grant=Grant(4, 50, 1600))
    for reason in (Reason.ARBITER_CUT, Reason.QUOTA_NOT_HONOURED, Reason.LEASE_LAPSED):
        miss = replace(too_little, unattributed={Lever.UL: reason}).miss()
        assert where(miss) == (Cause.NOT_AS_ASKED, Lever.UL) and miss.text == reason.value
    for mode in (Reason.FROZEN, Reason.MODE_CHANGED):
        assert replace(too_little, unattributed={Lever.UL: mode}).miss().cause is Cause.NOT_ACTIVE
    # Another lever's reason is none of this hop's.
    assert replace(too_little, unattributed={Lever.DL: Reason.ARBITER_CUT}).miss().cause is Cause.TOO_LITTLE


def test_more_than_was_asked_for_is_no_excuse_but_no_exploration_either() -> None:
    world = World(ul=Hop(service=40.0), grant=Grant(4, 50, 1600), unattributed={Lever.UL: Reason.RESCUED})
    assert world.miss(why={Lever.UL: "explore"}).cause is Cause.TOO_LITTLE


def test_a_flow_that_began_in_the_slot_is_a_load_that_rose() -> None:
    ul = Hop(service=lambda t: 20.0)
    world = World(ul=ul, grant=Grant(8, 50, 1600), starts_ms=(-60_000.0, 1000.0))
    miss = world.miss()
    assert where(miss) == (Cause.LOAD, Lever.UL)
    assert where(replace(world, starts_ms=(-60_000.0, -1.0)).miss())[0] is Cause.TOO_LITTLE


def test_a_flow_that_began_is_a_load_that_rose_at_the_edge_too() -> None:
    world = World(
        edge=Hop(service=22.0, latency=0.0),
        grant=Grant(50, 50, 900),
        starts_ms=(-60_000.0, 1500.0),
    )
    world.edge.service = lambda t: 15.0 if t < 1500 else 20.0
    assert where(world.miss()) == (Cause.LOAD, Lever.EDGE)


def test_an_mcs_that_fell_is_a_radio_that_faded() -> None:
    world = World(
        ul=Hop(service=lambda t: 20.0 if t < 2000 else 60.0),
        ul_mcs=lambda t: 18 if t < 2000 else 5,
        grant=Grant(8, 50, 1600),
    )
    assert where(world.miss()) == (Cause.RADIO, Lever.UL)
    assert where(replace(world, ul_mcs=5).miss())[0] is Cause.TOO_LITTLE


def test_a_hop_that_frames_reached_in_a_burst_is_not_to_blame() -> None:
    world = World(ul=Hop(stalls=[(1000, 1500)]), dl=Hop(service=31.0), grant=Grant(50, 3, 1600))
    miss = world.miss(why={Lever.DL: "explore"})
    assert where(miss) == (Cause.BURST, Lever.DL) and "ul held frames" in miss.text
    # The same hop without the burst keeps its budget.
    assert replace(world, ul=Hop()).find() is None


@pytest.mark.parametrize(
    ("word", "cause"),
    [("explore", Cause.EXPLORED), ("first visit", Cause.EXPLORED), ("exploit", Cause.TOO_LITTLE)],
)
def test_too_little_granted_says_whether_the_policy_explored(word: str, cause: Cause) -> None:
    miss = World(ul=Hop(service=40.0), grant=Grant(4, 50, 1600)).miss(why={Lever.UL: word})
    assert where(miss) == (cause, Lever.UL) and word in miss.text and "4 PRB" in miss.text
    slow_edge = World(edge=Hop(service=40.0), grant=Grant(50, 50, 500))
    assert where(slow_edge.miss(why={Lever.EDGE: word})) == (cause, Lever.EDGE)


def test_the_first_late_hop_on_the_way_is_the_main_one() -> None:
    world = World(ul=Hop(service=40.0), dl=Hop(service=45.0), grant=Grant(4, 1, 1600))
    miss = world.miss()
    assert miss.hop is Lever.UL and set(miss.hops) == {Lever.UL, Lever.DL}


def test_a_demand_above_all_that_there_is_is_for_want_of_capacity() -> None:
    world = World(ul=Hop(service=40.0), ul_mcs=0, ul_bps=8e6, grant=FULL)
    miss = world.miss()
    assert where(miss) == (Cause.CAPACITY, Lever.UL) and miss.unavoidable and "106" in miss.text
    assert where(World(edge=Hop(service=40.0), grant=FULL).miss()) == (Cause.CAPACITY, Lever.EDGE)


def test_without_synchronised_clocks_the_hops_are_not_known_but_some_causes_are() -> None:
    blind = World(ul=Hop(service=36.0), synchronised=False)
    assert where(blind.miss()) == (Cause.HOP_DELAYS_NOT_KNOWN, None)
    stalled = replace(blind, ul=Hop(stalls=[(1000, 3000)]))
    assert where(stalled.miss()) == (Cause.HICCUP, None)
    assert "no frame back" in stalled.miss().text
    short = replace(blind, grant=Grant(4, 50, 1600))
    assert where(short.miss(why={Lever.UL: "explore"})) == (Cause.EXPLORED, Lever.UL)
    crowded = replace(blind, grant=FULL, ul_mcs=0, ul_bps=8e6)
    assert where(crowded.miss()) == (Cause.CAPACITY, Lever.UL) and crowded.miss().unavoidable
    carried = replace(blind, ul=Hop(service=25.0, ahead=1200.0))
    assert where(carried.miss(before=MISSED_BEFORE)) == (Cause.HOP_DELAYS_NOT_KNOWN, None)
    cut = replace(blind, unattributed={Lever.UL: Reason.ARBITER_CUT})
    assert where(cut.miss()) == (Cause.NOT_AS_ASKED, Lever.UL)


def test_what_cannot_be_told_is_said() -> None:
    silent = World(sends_from_ms=SLOT_MS)
    assert where(silent.miss()) == (Cause.NOT_KNOWN, None)
    assert "no frame" in silent.miss().text
    # Late at all resources, without a stall, with little demand.
    assert where(World(ul=Hop(service=34.5), grant=FULL).miss()) == (Cause.NOT_KNOWN, Lever.UL)
    # What was in force is not known.
    world = World(ul=Hop(service=40.0))
    view = SliceView.of(world.observation(), "ar", guard_ms=GUARD_MS)
    outcome = delays.judge(view, BUDGETS)
    found = causes.find(view, outcome, budgets=BUDGETS, carrier=Carrier(), full=FULL)
    assert found is not None and where(found) == (Cause.NOT_KNOWN, Lever.UL)


def test_an_mcs_that_does_not_exist_leaves_the_demand_unknown() -> None:
    assert World(ul=Hop(service=40.0), ul_mcs=77).miss().cause is Cause.TOO_LITTLE
    assert World(ul=Hop(stalls=[(1000, 3000)]), ul_mcs=77).miss().cause is Cause.HICCUP


def test_without_reports_the_frames_tell() -> None:
    world = World(ul=Hop(stalls=[(1000, 3000)]))
    view = SliceView.of(replace(world.observation(), reports=()), "ar", guard_ms=200, granted=world.grant)
    found = causes.find(
        view, delays.judge(view, BUDGETS), budgets=BUDGETS, carrier=Carrier(), full=FULL, before=MISSED_BEFORE
    )
    assert found is not None and where(found) == (Cause.HICCUP, Lever.UL)


def test_a_percentile_is_held_against_the_budget_where_that_is_the_metric() -> None:
    # A stall of 350 ms: it is in one frame of ten, and hardly in the mean.
    world = World(ul=Hop(stalls=[(1000, 1900)]))
    miss = world.miss(metric=Metric(95.0))
    assert where(miss) == (Cause.HICCUP, Lever.UL)


def test_lost_and_negative_times_are_left_out() -> None:
    world = World(ul=Hop(stalls=[(1000, 3000)]))
    observation = world.observation()
    f = observation.frames
    arrived, back = f.edge_received.copy(), f.ue_received.copy()
    arrived[::7], back[3::11] = 0, 1  # a time that later ones follow; one before it was sent
    frames = replace(f, edge_received=arrived, ue_received=back)
    view = SliceView.of(replace(observation, frames=frames), "ar", guard_ms=GUARD_MS, granted=world.grant)
    outcome = delays.judge(view, BUDGETS)
    found = causes.find(view, outcome, budgets=BUDGETS, carrier=Carrier(), full=FULL)
    assert found is not None and found.cause is Cause.HICCUP


def test_the_worst_flow_s_ue_is_opened_reports() -> None:
    good, bad = World(), World(ul=Hop(stalls=[(1000, 3000)]))
    first, second = good.observation(), bad.observation()
    flows = (first.flows[0], replace(second.flows[0], flow="bad", ue_id="ue2"))
    columns = [
        np.concatenate((getattr(first.frames, name), getattr(second.frames, name)))
        for name in ("sequence", "ue_sent", "edge_received", "edge_sent", "ue_received", "synchronised")
    ]
    flow = np.repeat([0, 1], [len(first.frames), len(second.frames)])
    view = SliceView.of(
        replace(first, flows=flows, frames=Frames(flow, *columns)),
        "ar",
        guard_ms=GUARD_MS,
        granted=good.grant,
    )
    outcome = delays.judge(view, BUDGETS)
    found = causes.find(view, outcome, budgets=BUDGETS, carrier=Carrier(), full=FULL)
    assert found is not None and where(found) == (Cause.HICCUP, Lever.UL)


def test_every_cause_has_another_name() -> None:
    assert len({cause.value for cause in Cause}) == len(Cause)
    assert all(a != b for a, b in pairwise(Cause))


def test_what_is_usable_of_a_grant_is_the_most_that_the_ue_used() -> None:
    # A demand of 5 PRB, then 15, with 20 granted; but the UE never uses more than half of them.
    world = World(
        ul=Hop(service=lambda t: 20.0 if t < 2000 else 60.0),
        ul_mcs=lambda t: 18 if t < 2000 else 6,
        grant=Grant(20, 50, 1600),
        ul_used=lambda _: 0.5,
    )
    assert where(world.miss()) == (Cause.RADIO, Lever.UL)
    assert where(replace(world, ul_used=None).miss()) == (Cause.TOO_LITTLE, Lever.UL)


@pytest.mark.parametrize("hop", ["ul", "edge", "dl"])
@pytest.mark.parametrize("stall_ms", [1200.0, 1600.0, 2000.0])
def test_the_round_trip_at_full_resources_is_what_they_would_have_given(hop: str, stall_ms: float) -> None:
    stalls = [(1000.0, 1000.0 + stall_ms)]
    halves = {"ul": Hop(12.0, stalls=()), "edge": Hop(6.0, latency=8.0), "dl": Hop(12.0)}
    halves[hop] = replace(halves[hop], stalls=stalls)
    full = {name: replace(of, service=of.service / 2) for name, of in halves.items()}
    # Demands that take the service times above: at full, frames of 6, 3 and 6 ms every 33 ms.
    offered = {"ul_bps": 3e6 * 106 * 0.9 * 6 / FRAME_MS / 5.0, "dl_bps": 1e6 * 106 * 0.9 * 6 / FRAME_MS / 2.2}

    def world(of: dict[str, Hop], grant: Grant) -> World:
        return World(ul=of["ul"], edge=of["edge"], dl=of["dl"], grant=grant, **offered)

    miss = world(halves, Grant(53, 53, 800)).miss()
    view = SliceView.of(world(full, FULL).observation(), "ar", guard_ms=GUARD_MS)
    (expected,) = delays.judge(view, BUDGETS).measure(delays.ROUND_TRIP).values
    assert expected is not None
    # Never less; a little more, as it does not count on a queue that recovers faster than resources grow.
    assert miss.at_full_ms is not None and 0.98 < miss.at_full_ms / expected < 1.15
    assert miss.unavoidable == (expected > BUDGETS.round_trip_ms)


def test_a_fade_that_no_resource_carries_is_for_want_of_capacity_though_few_frames_were_sent() -> None:
    # The application's socket was full until the radio was back.
    world = World(
        ul=Hop(ahead=4600.0),
        sends_from_ms=4200.0,
        ul_mcs=lambda t: 0 if t < 4000 else 18,
        ul_bps=8e6,
        grant=Grant(90, 50, 1600),
    )
    miss = world.miss(before=MISSED_BEFORE)
    assert where(miss) == (Cause.CAPACITY, Lever.UL) and miss.unavoidable
    assert where(replace(world, ul_mcs=18).miss(before=MISSED_BEFORE)) == (Cause.BACKLOG, Lever.UL)
