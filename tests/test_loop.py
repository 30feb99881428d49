from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from controller.allocators.ar.allocator import ArAllocator
from controller.allocators.ar.budgets import Budgets
from controller.allocators.ar.delays import judge
from controller.allocators.base import SliceView
from controller.core.decision import Choice, Decision, SliceDemand, Want
from controller.core.measure import Lever, Outcome, Reason
from controller.core.observation import (
    ClockReport,
    Command,
    DirectionColumns,
    Enforcement,
    Frames,
    GpuReading,
    Mode,
    Observation,
)
from controller.core.spec import LoopSpec
from controller.loop import ControlLoop
from tests.builders import MS, SLOT_NS, T0, loop_spec, observation, slice_spec

GOOD = (20.0, 9.0, 15.0)
BAD = (200.0, 50.0, 100.0)


def hop_action(decision: Decision, hop: Lever, slice_: str = "ar") -> int:
    s = next(s for s in decision.slices if s.slice == slice_)
    return next(c.action for c in s.demand.choices if c.lever is hop)


def run(loop: ControlLoop, slots: int, delays: tuple[float, float, float] = GOOD) -> list[Decision]:
    return [loop.step(observation(loop.control_slot, delays)) for _ in range(slots)]


def test_first_visit_plays_the_middle_action_and_says_so() -> None:
    decision = ControlLoop(loop_spec()).step(observation(0))
    assert decision.quotas == {"ar": (50, 50)}
    assert decision.gpu_mhz == 1100
    assert {c.why for c in decision.slices[0].demand.choices} == {"first visit"}


def test_frames_under_way_count_unless_the_slice_leaves_them_out() -> None:
    """``late_frames: false``, as the MUCB1 authors' code judges."""

    def met(late_frames: bool) -> int | None:
        loop = ControlLoop(loop_spec(slice_spec(late_frames=late_frames)))
        loop.step(observation(0))
        seen = observation(1)
        back = seen.frames.ue_received.copy()
        back[-60:] = 0
        decision = loop.step(replace(seen, frames=replace(seen.frames, ue_received=back)))
        return decision.slices[0].outcome.met

    assert met(late_frames=True) == 0 and met(late_frames=False) == 1


def test_success_everywhere_drives_all_hops_to_the_smallest_action() -> None:
    last = run(ControlLoop(loop_spec()), 120)[-10:]
    assert all(d.quotas["ar"] == (10, 10) and d.gpu_mhz == 500 for d in last)


def test_each_hop_learns_its_own_threshold() -> None:
    loop = ControlLoop(loop_spec())
    decision = loop.step(observation(0))
    played: list[tuple[int, int, int]] = []
    for slot in range(1, 460):
        ul, dl = decision.quotas["ar"]
        mhz = decision.gpu_mhz or 0
        played.append((ul, mhz, dl))
        delays = (
            20.0 if ul >= 70 else 120.0,
            9.0 if mhz >= 800 else 30.0,
            15.0 if dl >= 30 else 90.0,
        )
        decision = loop.step(observation(slot, delays))
    medians = [sorted(hop)[30] for hop in zip(*played[-60:], strict=True)]
    assert medians == [70, 800, 30]


def test_the_edge_uses_the_state_of_the_uplink() -> None:
    decision = ControlLoop(loop_spec()).step(observation(0))
    by_hop = {c.lever: c for c in decision.slices[0].demand.choices}
    assert by_hop[Lever.EDGE].state == by_hop[Lever.UL].state != by_hop[Lever.DL].state


def test_without_reports_the_last_state_stays() -> None:
    loop = ControlLoop(loop_spec())
    before = loop.step(observation(0)).slices[0].demand.choices
    after = loop.step(observation(1, reports=())).slices[0].demand.choices
    assert [c.state for c in before] == [c.state for c in after]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"enforcement": {}}, {"ul": "not acknowledged", "dl": "not acknowledged"}),
        (
            {"enforcement": {"ar": Enforcement(Reason.QUOTA_NOT_HONOURED)}},
            {"ul": "quota not honoured", "dl": "quota not honoured"},
        ),
        ({"gpu": None}, {"edge": "no edge agent"}),
        ({"gpu": GpuReading(900, Reason.CLOCK_NOT_REACHED)}, {"edge": "clock not reached"}),
    ],
)
def test_a_slot_not_under_its_own_action_teaches_nothing(changes: dict, expected: dict[str, str]) -> None:
    loop = ControlLoop(loop_spec())
    loop.step(observation(0))
    before = loop.to_state()["slices"]["ar"]["allocator"]["hops"]
    decision = loop.step(observation(1, **changes))
    assert {h.value: r for h, r in decision.slices[0].outcome.unattributed.items()} == expected
    after = loop.to_state()["slices"]["ar"]["allocator"]["hops"]
    for hop in ("ul", "edge", "dl"):
        counts = [sum(p["counts"]) for _, p in after[hop]]
        assert (counts == [sum(p["counts"]) for _, p in before[hop]]) == (hop in expected)


@pytest.mark.parametrize(
    ("reason", "granted"), [(None, 1100), (Reason.CLOCK_NOT_REACHED, 1085), (Reason.CLOCK_RAISED, 1085)]
)
def test_a_clock_a_step_below_the_one_that_was_played_is_that_one(
    reason: Reason | None, granted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: list[SliceView] = []
    learn = ArAllocator.learn

    def spy(self: ArAllocator, view: SliceView) -> Outcome:
        views.append(view)
        return learn(self, view)

    monkeypatch.setattr(ArAllocator, "learn", spy)
    loop = ControlLoop(loop_spec())
    assert loop.step(observation(0)).gpu_mhz == 1100
    loop.step(observation(1, gpu=GpuReading(1085, reason)))
    assert views[-1].granted is not None and views[-1].granted.gpu_mhz == granted


def falling_short(policy: str, clock: Callable[[int], int]) -> list[Choice]:
    """The edge's choices in forty control slots on a GPU that takes another clock than is asked for."""
    loop = ControlLoop(loop_spec(slice_spec("ar", policy=policy)))
    decision, choices = loop.step(observation(0)), []
    for slot in range(1, 41):
        asked = decision.gpu_mhz or 0
        taken = clock(asked)
        reading = GpuReading(taken, Reason.CLOCK_NOT_REACHED if taken < asked else None)
        decision = loop.step(observation(slot, gpu=reading))
        choices += [c for c in decision.slices[0].demand.choices if c.lever is Lever.EDGE]
    return choices


def test_a_gpu_that_falls_short_of_every_clock_is_not_driven_to_its_lowest() -> None:
    played = {c.action for c in falling_short("headroom", lambda mhz: round(0.97 * mhz))}
    assert played == {1600, 1500}, "what there was at first, and no less"


def test_a_gpu_that_falls_short_of_its_lowest_clock_is_not_bound_to_it() -> None:
    """A bandit that learns nothing asks for its lowest untried action, which must not bind the others."""
    assert {c.why for c in falling_short("mucb1", lambda mhz: round(0.97 * mhz))} == {"explore"}


def test_a_gpu_that_is_held_down_is_learned_about_at_what_there_is() -> None:
    choices = falling_short("headroom", lambda mhz: min(mhz, 900))
    assert {c.action for c in choices if c.why == "within what there was"} == {900}


@pytest.mark.parametrize("restarted", [False, True])
def test_a_hop_that_begins_anew_is_not_bound_by_what_there_was(restarted: bool) -> None:
    loop = ControlLoop(loop_spec(slice_spec("ar")))
    state = loop.to_state()
    state["slices"]["ar"]["allocator"] |= {
        "short": {"ul": 4, "edge": 4},
        "ceiling": {"edge": [900, 9], "ul": [30, 9]},
    }
    static = {"edge": {"policy": "static", "policy_options": {"action": 1600}}}
    if restarted:
        loop = ControlLoop(loop_spec(slice_spec("ar", hop_policies=static)))
    loop.load_state(state)
    if not restarted:
        loop.step(replace(observation(0), commands=(Command("options", {"hop_policies": static}),)))
    else:
        loop.step(observation(0))
    now = loop.to_state()["slices"]["ar"]["allocator"]
    assert now["short"] == {"ul": 4} and set(now["ceiling"]) == {"ul"}
    assert hop_action(run(loop, 1)[0], Lever.EDGE) == 1600


def test_an_arbiter_cut_is_not_learned_from() -> None:
    wide = {"ul_prb": (90,), "dl_prb": (10,)}
    loop = ControlLoop(loop_spec(slice_spec("ar", **wide), slice_spec("video", **wide)))
    names = ("ar", "video")
    first = loop.step(observation(0, slices=names))
    assert first.quotas == {"ar": (53, 10), "video": (53, 10)}
    second = loop.step(observation(1, slices=names))
    assert second.slices[0].outcome.unattributed == {Lever.UL: "arbiter cut"}


def test_the_gpu_runs_at_the_highest_clock_and_the_other_slice_does_not_learn_from_it() -> None:
    loop = ControlLoop(loop_spec(slice_spec("ar", gpu_mhz=(500,)), slice_spec("video", gpu_mhz=(900,))))
    names = ("ar", "video")
    assert loop.step(observation(0, slices=names)).gpu_mhz == 900
    closed = {s.slice: s.outcome for s in loop.step(observation(1, slices=names)).slices}
    assert closed["ar"].unattributed == {Lever.EDGE: "clock raised by another slice"}
    assert closed["video"].unattributed == {}


@pytest.mark.parametrize("mode", ["shadow", "released"])
def test_shadow_and_released_leave_the_network_alone_and_learn_nothing(mode: str) -> None:
    loop = ControlLoop(loop_spec(mode=Mode(mode)))
    decisions = run(loop, 4)
    assert all(d.quotas == {} and d.gpu_mhz is None for d in decisions)
    assert set(decisions[-1].slices[0].outcome.unattributed.values()) == {mode}
    for _, policy in loop.to_state()["slices"]["ar"]["allocator"]["hops"]["ul"]:
        assert sum(policy["counts"]) == 0


def test_shadow_still_decides() -> None:
    decision = ControlLoop(loop_spec(mode=Mode.SHADOW)).step(observation(0))
    assert decision.slices[0].demand.ul.prb == 50
    assert decision.to_record()["slices"]["ar"]["choices"][0]["why"] == "first visit"


def test_frozen_holds_what_was_in_force() -> None:
    loop = ControlLoop(loop_spec())
    held = run(loop, 5)[-1]
    frozen = loop.step(observation(5, BAD, commands=(Command("mode", "frozen"),)))
    assert (frozen.quotas, frozen.gpu_mhz) == (held.quotas, held.gpu_mhz)
    assert {c.why for c in frozen.slices[0].demand.choices} == {"frozen"}
    state = loop.to_state()
    again = loop.step(observation(6, BAD))
    assert again.quotas == held.quotas
    assert loop.to_state()["slices"] == state["slices"]


def test_a_mode_change_cuts_the_slot_short_and_it_is_not_learned_from() -> None:
    loop = ControlLoop(loop_spec())
    run(loop, 2)
    decision = loop.step(observation(2, commands=(Command("mode", "released"),)))
    assert set(decision.slices[0].outcome.unattributed.values()) == {"mode changed"}
    assert decision.quotas == {}


def test_the_old_policy_learns_from_its_last_slot_before_it_is_switched() -> None:
    loop = ControlLoop(loop_spec())
    run(loop, 2)
    decision = loop.step(
        observation(2, commands=(Command("options", {"policy": "static", "policy_options": {}}),))
    )
    assert decision.slices[0].outcome.unattributed == {}
    assert decision.quotas == {"ar": (90, 90)} and decision.gpu_mhz == 1600


def test_new_budgets_judge_from_the_next_slot_on() -> None:
    loop = ControlLoop(loop_spec())
    run(loop, 1)
    at_change = loop.step(
        observation(
            1, commands=(Command("options", {"budgets": {"ul_ms": 5.0, "edge_ms": 5.0, "dl_ms": 5.0}}),)
        )
    )
    assert at_change.slices[0].outcome.met == 1
    after = loop.step(observation(2))
    assert after.slices[0].outcome.met == 0


@pytest.mark.parametrize(
    "command",
    [
        Command("mode", "sleep"),
        Command("options", {"policy": "nosuch"}),
        Command("options", {"policy": "ucb1"}, "nosuch"),
        Command("options", {"budgets": {"ul_ms": 70.0, "edge_ms": -1.0, "dl_ms": 60.0}}),
        Command("options", {"colour": "red"}),
        Command("options", {"actions": {"ul_prb": [10, 107]}}),
        Command("dance", 1),
    ],
)
def test_check_refuses_what_step_could_not_carry_out(command: Command) -> None:
    with pytest.raises(ValueError):
        ControlLoop(loop_spec()).check(command)


def test_equal_observations_give_equal_decisions_also_through_json() -> None:
    spec = loop_spec()
    a, b = ControlLoop(spec), ControlLoop(LoopSpec.from_dict(json.loads(json.dumps(spec.to_dict()))))
    for slot in range(60):
        obs = observation(slot, GOOD if slot % 3 else BAD, n_flows=slot % 4)
        copy = Observation.from_dict(json.loads(json.dumps(obs.to_dict())))
        assert a.step(obs).to_record() == b.step(copy).to_record()


def test_a_restart_goes_on_learning() -> None:
    whole, first = ControlLoop(loop_spec()), ControlLoop(loop_spec())
    run(whole, 30)
    run(first, 30)
    second = ControlLoop(loop_spec())
    second.load_state(json.loads(json.dumps(first.to_state())))
    assert second.control_slot == 30
    # The slot in which the restart fell is not learned from; from then on both see the same.
    missed = {"enforcement": {}, "gpu": None}
    whole.step(observation(30, **missed))
    second.step(observation(30, **missed))
    for slot in range(31, 60):
        assert whole.step(observation(slot)).to_record() == second.step(observation(slot)).to_record()


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    loop = ControlLoop(loop_spec())
    run(loop, 5)
    before = loop.to_state()
    for broken in (
        {**before, "version": 99},
        {k: v for k, v in before.items() if k != "slices"},
        {**before, "slices": []},
        ControlLoop(loop_spec(slice_spec(ul_prb=(10, 20)))).to_state() | {"control_slot": "x"},
    ):
        with pytest.raises(ValueError):
            loop.load_state(broken)
        assert loop.to_state() == before


def test_with_other_actions_a_slice_starts_anew_and_the_others_go_on() -> None:
    two = (slice_spec("a", ul_prb=(10, 20, 30)), slice_spec("b"))
    first = ControlLoop(loop_spec(*two))
    for slot in range(3):
        first.step(observation(slot, slices=("a", "b")))
    second = ControlLoop(loop_spec(slice_spec("a"), slice_spec("b"), slice_spec("c")))
    assert second.load_state(json.loads(json.dumps(first.to_state()))) == ("a", "c")
    before, after = first.to_state()["slices"], second.to_state()["slices"]
    assert after["b"]["allocator"] == before["b"]["allocator"]
    assert after["a"]["allocator"] != before["a"]["allocator"]


def test_learning_that_does_not_fit_is_left_out_by_name_and_the_rest_goes_on() -> None:
    loop = ControlLoop(loop_spec())
    run(loop, 3)
    state = json.loads(json.dumps(loop.to_state()))
    state["slices"]["ar"]["allocator"]["hops"]["ul"][0][1]["actions"] = [10, 20, 30, 40, 50]
    state["mode"] = "released"
    second = ControlLoop(loop_spec())
    assert second.load_state(state) == ("ar",)
    assert "slice ar, hop ul: learned with actions [10, 20, 30, 40, 50]" in second.load_failures["ar"]
    # The operator's mode and the count of control slots are kept.
    assert (second.mode, second.control_slot) == (Mode.RELEASED, 3)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ul_prb": (10, 107)}, "ul_prb 107 is above 106"),
        ({"gpu_mhz": (1700,)}, "gpu_mhz 1700 is above max_mhz 1600"),
        ({"dl_prb": (30, 10)}, "ascending"),
        ({"dl_prb": ()}, "ascending"),
    ],
)
def test_actions_that_the_cell_does_not_have_are_refused(changes: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ControlLoop(loop_spec(slice_spec(**changes)))


def test_a_ue_in_two_slices_is_refused() -> None:
    with pytest.raises(ValueError, match="two slices"):
        loop_spec(slice_spec("a", ues=("ue-1",)), slice_spec("b", ues=("ue-1",)))


def test_the_record_is_plain_json() -> None:
    loop = ControlLoop(loop_spec())
    for record in (d.to_record() for d in run(loop, 12)):
        assert json.loads(json.dumps(record, allow_nan=False)) == json.loads(json.dumps(record))
        choice = record["slices"]["ar"]["choices"][0]
        assert len(choice["indices"]) in (0, len(choice["actions"]))


def test_a_frame_on_its_way_is_aged_at_the_time_until_which_frames_are_known() -> None:
    closed = T0 + SLOT_NS
    sent = closed - 190 * MS  # older than the round-trip budget at the close, younger when last heard of
    on_its_way = Frames(*(np.array([v], np.int64) for v in (0, 1, sent, 0, 0, 0)), np.array([True]))
    seen = (observation(0, frames=on_its_way), observation(0, frames=on_its_way, known_ns=sent + 10 * MS))
    outcomes = [judge(SliceView.of(o, "ar", guard_ms=200.0), Budgets(70, 20, 60)) for o in seen]
    assert [o.counts["late_frames"] for o in outcomes] == [1, 0]


def test_a_policy_that_is_always_cut_learns_within_what_it_gets() -> None:
    """Two slices that want 60 PRB each of 106: a deterministic policy must not ask for 60 for ever."""
    actions = {"ul_prb": (20, 40, 60), "dl_prb": (10,), "policy": "ucb1"}
    loop = ControlLoop(loop_spec(slice_spec("a", **actions), slice_spec("b", **actions)))
    names = ("a", "b")
    learned = 0
    for slot in range(200):
        decision = loop.step(observation(slot, slices=names))
        if slot > 100:
            learned += Lever.UL not in decision.slices[0].outcome.unattributed
        assert sum(q[0] for q in decision.quotas.values()) <= 106
    assert learned > 50


def test_frozen_after_released_holds_full_resources() -> None:
    loop = ControlLoop(loop_spec())
    run(loop, 3)
    loop.step(observation(3, commands=(Command("mode", "released"),)))
    frozen = loop.step(observation(4, commands=(Command("mode", "frozen"),)))
    assert frozen.quotas == {} and frozen.gpu_mhz is None


def test_what_frozen_holds_survives_a_restart() -> None:
    loop = ControlLoop(loop_spec())
    held = run(loop, 5)[-1]
    loop.step(observation(5, commands=(Command("mode", "frozen"),)))
    again = ControlLoop(loop_spec())
    again.load_state(json.loads(json.dumps(loop.to_state())))
    decision = again.step(observation(6))
    assert (decision.mode, decision.quotas, decision.gpu_mhz) == (Mode.FROZEN, held.quotas, held.gpu_mhz)


def test_an_operator_s_settings_survive_a_restart_and_a_changed_configuration_wins() -> None:
    loop = ControlLoop(loop_spec())
    run(loop, 3)
    commands = (
        Command("mode", "shadow"),
        Command("options", {"policy": "aimd"}),
        Command("options", {"budgets": {"ul_ms": 50.0, "edge_ms": 20.0, "dl_ms": 40.0}}),
    )
    loop.step(observation(3, commands=commands))
    state = json.loads(json.dumps(loop.to_state()))
    same = ControlLoop(loop_spec())
    same.load_state(state)
    assert same.mode is Mode.SHADOW
    assert same.to_state()["slices"]["ar"]["set"] == state["slices"]["ar"]["set"]
    changed = ControlLoop(loop_spec(slice_spec(policy="ucb1", budgets=Budgets(70, 30, 60)), mode=Mode.FROZEN))
    changed.load_state(state)
    assert changed.mode is Mode.FROZEN
    assert changed.to_state()["slices"]["ar"]["set"]["policy"] == "ucb1"
    assert changed.to_state()["slices"]["ar"]["set"]["budgets"]["edge_ms"] == 30


def test_without_an_edge_agent_no_clock_is_claimed() -> None:
    loop = ControlLoop(loop_spec())
    assert loop.step(observation(0, gpu=None)).gpu_mhz is None
    assert loop.step(observation(1)).gpu_mhz is not None


def test_what_hosts_told_of_their_clocks_is_recorded_and_survives_json() -> None:
    told = (
        ClockReport("edge", "MASTER", 0.0, 0.0, T0, "aa"),
        ClockReport("ue-1", "SLAVE", -900.0, 2000.0, T0, "aa"),
        ClockReport("ue-1", "SLAVE", 300.0, 2100.0, T0, "aa"),
        ClockReport("ue-1", "NONE", 0.0, 0.0, T0, "", "ue-1: PTP state NONE"),
    )
    seen = observation(0, clocks=told, clock_faults={"flow-0": "ue-1: PTP state NONE"})
    assert Observation.from_dict(json.loads(json.dumps(seen.to_dict()))).clocks == told
    record = ControlLoop(loop_spec()).step(seen).to_record()
    assert record["clocks"]["ue-1"] == {
        "state": "NONE",
        "grandmaster": "",
        "offset_ns": None,
        "worst_offset_ns": -900.0,
        "path_delay_ns": 0.0,
        "fault": "ue-1: PTP state NONE",
    }
    assert record["clocks"]["edge"]["offset_ns"] == 0.0


def test_what_was_said_of_the_wrong_ue_teaches_the_radio_hops_nothing_and_the_demand_stays() -> None:
    loop = ControlLoop(loop_spec())
    run(loop, 3)
    demand = {c.lever: c.demand for c in loop.step(observation(3)).slices[0].demand.choices}
    assert demand["ul"] is not None and demand["ul"] > 0
    renamed = tuple(replace(r, ue_id=("ue-2",)) for r in observation(4).reports)
    elsewhere = tuple(replace(r, slice=("vr",)) for r in observation(4).reports)
    half = (*observation(4).reports[:12], *renamed[12:])
    before = None
    for slot, (reports, why) in enumerate(
        (
            ((), Reason.NO_MAC_REPORT),
            (renamed, Reason.UE_NOT_REPORTED),
            (elsewhere, Reason.UE_NOT_REPORTED),
            (half, Reason.UE_NOT_REPORTED),
        ),
        4,
    ):
        decision = loop.step(observation(slot, reports=reports))
        # What is played in a state that nobody measured teaches the edge nothing either, whose state it is.
        edge = {} if before is None else {"edge": before}
        assert decision.slices[0].outcome.unattributed == {"ul": why, "dl": why, **edge}
        assert {c.lever: c.demand for c in decision.slices[0].demand.choices} == demand
        before = why
    assert loop.step(observation(8)).slices[0].outcome.unattributed == dict.fromkeys(
        ("ul", "edge", "dl"), before
    )
    assert loop.step(observation(9)).slices[0].outcome.unattributed == {}


def test_frames_that_do_not_cross_the_radio_teach_the_radio_hops_nothing() -> None:
    loop = ControlLoop(loop_spec())
    demands = []
    for slot, carried in enumerate((1_000_000, 1_000_000, 1_000_000, 0, 0)):
        seen = observation(slot)
        reports = tuple(
            replace(r, **{d: _counting(getattr(r, d), 9 + n * carried) for d in ("ul", "dl")})
            for n, r in enumerate(seen.reports)
        )
        decision = loop.step(replace(seen, reports=reports))
        radio = decision.slices[0].outcome.unattributed.get(Lever.UL)
        assert radio == (Reason.NO_DECISION if slot == 0 else None if carried else Reason.UE_IDLE)
        demands.append({c.lever: c.demand for c in decision.slices[0].demand.choices})
    assert demands[-1] == demands[2]


def _counting(of: DirectionColumns, carried: int) -> DirectionColumns:
    return replace(of, bler=(0.0,), lc_bytes=(carried,), prb_slots=(9,))


def test_a_policy_that_looks_at_delays_takes_a_demand_that_is_not_known_for_none_that_is_small() -> None:
    loop = ControlLoop(loop_spec(slice_spec(policy="headroom")))
    for slot in range(40):
        decision = loop.step(observation(slot))
    assert hop_action(decision, Lever.UL) < 106
    more = observation(40)
    more = replace(more, flows=(*more.flows, replace(more.flows[0], flow="other", ue_id="ue-9")))
    assert hop_action(loop.step(more), Lever.UL) == 106


def test_actions_below_the_smallest_grant_are_refused() -> None:
    spec = loop_spec(slice_spec(ul_prb=(3, 50), dl_prb=(5, 50)))
    assert not ControlLoop(spec).step(observation(0)).slices[0].failed
    with pytest.raises(ValueError, match=r"slice ar: ul_prb 3 is below 5, the smallest grant of the gNB"):
        ControlLoop(replace(spec, min_prb=5))


@pytest.mark.parametrize(("asked", "granted"), [(0, 0), (1, 5), (4, 5), (5, 5), (6, 6)])
def test_what_an_allocator_asks_for_is_none_or_as_much_as_the_smallest_grant(
    asked: int, granted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = ControlLoop(loop_spec(min_prb=5))
    demand = SliceDemand(Want(asked), Want(asked, gain=(1.0,) * asked))
    monkeypatch.setattr("controller.allocators.ar.allocator.ArAllocator.demand", lambda *_: demand)
    for slot in range(2):
        decision = loop.step(observation(slot))
        assert decision.quotas["ar"] == (granted, granted) and not decision.slices[0].failed
    assert decision.slices[0].outcome.unattributed.get(Lever.UL) is not Reason.RESCUED
