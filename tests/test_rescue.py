"""Blindness gives, it does not starve: a lever about which nothing is learned goes to full resources."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controller import policies
from controller.core.decision import Decision, SliceDecision
from controller.core.measure import RESOURCES, Lever, Measure, Outcome, Reason
from controller.core.observation import Command, Enforcement, Frames, GpuReading, Observation
from controller.core.rescue import FULL, Rescue, RescueSpec, text
from controller.core.spec import EventsSpec, LoopSpec, Share
from controller.loop import ControlLoop
from tests.builders import loop_spec, observation, report, slice_spec

FULL_PRB, FULL_MHZ = 106, 1600
GOOD, BAD = (20.0, 9.0, 15.0), (200.0, 50.0, 100.0)
SPEC = RescueSpec()


class Loop(ControlLoop):
    """A loop that remembers its last decision."""

    last: Decision | None = None

    def step(self, observation: Observation) -> Decision:
        self.last = super().step(observation)
        return self.last

    @property
    def clock(self) -> int:
        """What the GPU runs at where it does what was decided."""
        return self.last.gpu_mhz if self.last is not None and self.last.gpu_mhz else FULL_MHZ


def new_loop(**changes: Any) -> Loop:
    return Loop(loop_spec(slice_spec(**changes), rescue=SPEC))


def low(loop: Loop) -> Decision:
    """Bring every lever of the loop to its smallest action."""
    for _ in range(120):
        decision = step(loop)
    assert decision.quotas == {"ar": (10, 10)} and decision.gpu_mhz == 500
    return decision


def step(loop: Loop, delays: tuple[float, float, float] = GOOD, **changes: Any) -> Decision:
    return loop.step(observation(loop.control_slot, delays, **{"gpu": GpuReading(loop.clock), **changes}))


def the(decision: Decision) -> SliceDecision:
    return decision.slices[0]


def unsynchronised(frames: Frames) -> Frames:
    return replace(frames, synchronised=np.zeros(len(frames), np.bool_))


# ---- nothing learned ----------------------------------------------------------------------------------


def says(reason: Reason) -> Callable[[Any], Outcome]:
    def learn(view: Any) -> Outcome:
        measure = Measure("m", "1", "higher", (1.0,), (1.0,), 1, 1)
        return Outcome(1, True, ("u",), (measure,), unattributed=dict.fromkeys(RESOURCES, reason))

    return learn


@pytest.mark.parametrize("reason", Reason)
def test_no_reason_is_exempt(reason: Reason, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = new_loop()
    low(loop)
    monkeypatch.setattr("controller.allocators.ar.allocator.ArAllocator.learn", lambda _, v: says(reason)(v))
    for _ in range(SPEC.blind_slots - 1):
        decision = step(loop)
        assert decision.quotas == {"ar": (10, 10)} and decision.gpu_mhz == 500
    decision = step(loop)
    assert decision.quotas == {"ar": (FULL_PRB, FULL_PRB)} and decision.gpu_mhz == FULL_MHZ
    assert set(the(decision).rescue) == set(RESOURCES)
    assert reason.value in text(the(decision).to_record()["rescue"])


@pytest.mark.parametrize("reason", [Reason.QUOTA_NOT_HONOURED, Reason.NOT_ACKNOWLEDGED, Reason.LEASE_LAPSED])
def test_quotas_that_are_not_enforced_are_given_up(reason: Reason) -> None:
    loop = new_loop()
    low(loop)
    for _ in range(SPEC.blind_slots):
        decision = step(loop, enforcement={"ar": Enforcement(reason)})
    assert decision.quotas == {"ar": (FULL_PRB, FULL_PRB)}
    assert decision.gpu_mhz == 500, "the GPU was learned about"


@pytest.mark.parametrize("reason", [Reason.LOCK_NOT_CONFIRMED, Reason.CLOCK_NOT_REACHED])
def test_a_clock_that_is_not_confirmed_is_given_up(reason: Reason) -> None:
    loop = new_loop()
    low(loop)
    for _ in range(SPEC.blind_slots):
        decision = step(loop, gpu=GpuReading(480, reason=reason))
    assert decision.quotas == {"ar": (10, 10)}
    assert decision.gpu_mhz == FULL_MHZ


def test_an_allocator_that_fails_for_ever_gives_all(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = new_loop()
    low(loop)
    monkeypatch.setattr("controller.allocators.ar.allocator.ArAllocator.demand", lambda *_: 1 / 0)
    for _ in range(SPEC.blind_slots + 1):
        decision = step(loop)
    assert decision.quotas == {"ar": (FULL_PRB, FULL_PRB)} and decision.gpu_mhz == FULL_MHZ


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"reports": ()}, "no MAC report"),
        ({"reports": tuple(report(i, queued=5_000) for i in range(25))}, "traffic of no known flow"),
    ],
)
def test_users_of_whom_nobody_tells_are_not_starved(changes: dict[str, Any], why: str) -> None:
    loop = new_loop()
    low(loop)
    for _ in range(SPEC.blind_slots):
        decision = step(loop, n_flows=0, **changes)
    assert decision.quotas == {"ar": (FULL_PRB, FULL_PRB)} and decision.gpu_mhz == FULL_MHZ
    assert why in text(the(decision).to_record()["rescue"])


def test_an_idle_slice_asks_for_nothing_more() -> None:
    loop = new_loop()
    low(loop)
    for _ in range(10):
        decision = step(loop, n_flows=0)
    assert not the(decision).rescue


def test_it_comes_back_by_small_steps_and_learns_on() -> None:
    loop = new_loop()
    low(loop)
    for _ in range(SPEC.blind_slots):
        step(loop, enforcement={"ar": Enforcement(Reason.NOT_ACKNOWLEDGED)})
    quotas = [step(loop).quotas["ar"][0] for _ in range(FULL + 1)]
    assert quotas == [93, 80, 67, 53, 40, 27, 14, 10, 10]
    assert not the(step(loop)).rescue


def test_what_was_met_with_more_credits_no_smaller_action() -> None:
    loop = new_loop()
    low(loop)
    for _ in range(SPEC.blind_slots):
        step(loop, enforcement={"ar": Enforcement(Reason.NOT_ACKNOWLEDGED)})
    before = counts(loop)
    outcome = the(step(loop)).outcome
    assert outcome.unattributed[Lever.UL] is Reason.RESCUED, "106 PRB are more than the largest action"
    assert counts(loop) == before
    step(loop)
    step(loop)
    after = counts(loop)
    assert [a - b for a, b in zip(after, before, strict=True)] == [0, 0, 0, 0, 1], "80 PRB speak for 90"


def test_what_was_missed_with_more_debits_what_is_less() -> None:
    loop = new_loop()
    low(loop)
    for _ in range(SPEC.blind_slots):
        step(loop, enforcement={"ar": Enforcement(Reason.NOT_ACKNOWLEDGED)})
    before = counts(loop)
    assert Lever.UL not in the(step(loop, BAD)).outcome.unattributed
    assert [a - b for a, b in zip(counts(loop), before, strict=True)] == [1, 1, 1, 1, 1]


def counts(loop: Loop) -> list[int]:
    ((_, policy),) = [
        h for h in loop.to_state()["slices"]["ar"]["allocator"]["hops"]["ul"] if sum(h[1]["counts"]) > 50
    ]
    return list(policy["counts"])


# ---- promises missed ----------------------------------------------------------------------------------


def test_a_slice_that_misses_its_promise_is_given_more_and_not_less() -> None:
    loop = new_loop(ul_prb=(10,), dl_prb=(10,), gpu_mhz=(500,))
    decisions = [step(loop, BAD) for _ in range(SPEC.missed_slots + 4)]
    ul = [d.quotas["ar"][0] for d in decisions]
    assert ul == [10] * (SPEC.missed_slots - 1) + [27, 53, 80, 106, 106]
    assert "promise missed 4 control slots running" in text(the(decisions[-1]).to_record()["rescue"])
    ul = [step(loop).quotas["ar"][0] for _ in range(9)]
    assert ul == sorted(ul, reverse=True) and ul[-1] == 10


def test_a_hop_that_keeps_its_budget_is_not_given_more() -> None:
    loop = new_loop(ul_prb=(10,), dl_prb=(10,), gpu_mhz=(500,))
    for _ in range(SPEC.missed_slots):
        decision = step(loop, (200.0, 9.0, 15.0))
    assert set(the(decision).rescue) == {Lever.UL}


def test_where_every_hop_keeps_its_budget_and_the_promise_is_missed_all_are_given_more() -> None:
    """Percentiles do not add up: a twelfth of the frames is slow on each hop, never the same ones."""
    loop = new_loop(ul_prb=(10,), dl_prb=(10,), gpu_mhz=(500,), metric="p90")
    for _ in range(SPEC.missed_slots + 1):
        whole = observation(loop.control_slot)
        columns = [whole.frames.edge_received, whole.frames.edge_sent, whole.frames.ue_received]
        late = np.zeros(len(whole.frames), np.int64)
        for hop in range(3):
            late[4 * hop :: 12] += 400_000_000
            columns[hop] = np.where(columns[hop] > 0, columns[hop] + late, 0)
        moved = replace(whole.frames, edge_received=columns[0], edge_sent=columns[1], ue_received=columns[2])
        decision = loop.step(replace(whole, frames=moved, gpu=GpuReading(loop.clock)))
    outcome = the(decision).outcome
    assert outcome.met == 0 and [m.met for m in outcome.measures[1:]] == [1, 1, 1]
    assert set(the(decision).rescue) == set(RESOURCES)


# ---- one setting --------------------------------------------------------------------------------------


def test_without_rescue_nothing_changes() -> None:
    loop = Loop(loop_spec())
    for _ in range(20):
        decision = loop.step(
            observation(loop.control_slot, BAD, enforcement={"ar": Enforcement(Reason.LEASE_LAPSED)})
        )
    assert decision.quotas == {"ar": (10, 10)} and not the(decision).rescue
    assert "rescue" not in the(decision).to_record()


def test_a_spec_goes_through_json_and_one_from_before_has_no_rescue() -> None:
    spec = loop_spec(rescue=RescueSpec(5, 6))
    data = json.loads(json.dumps(spec.to_dict()))
    assert LoopSpec.from_dict(data) == spec
    del data["rescue"]
    assert LoopSpec.from_dict(data).rescue is None


@pytest.mark.parametrize("wrong", [(0, 4), (3, 0), (-1, 1)])
def test_less_than_one_slot_is_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="rescue after"):
        RescueSpec(*wrong)


# ---- with the rest of the loop ------------------------------------------------------------------------


def test_state_goes_on_where_it_was() -> None:
    blind: dict[str, Any] = {"enforcement": {"ar": Enforcement(Reason.NOT_ACKNOWLEDGED)}}
    loop, other = new_loop(), new_loop()
    low(loop)
    for _ in range(SPEC.blind_slots - 1):
        step(loop, **blind)
    other.load_state(json.loads(json.dumps(loop.to_state())))
    assert step(other, **blind).quotas == {"ar": (FULL_PRB, FULL_PRB)}


def test_frozen_holds_what_rescue_gave() -> None:
    loop = new_loop()
    low(loop)
    for _ in range(SPEC.blind_slots):
        step(loop, enforcement={"ar": Enforcement(Reason.NOT_ACKNOWLEDGED)})
    step(loop, commands=(Command("mode", "frozen"),))
    decisions = [step(loop) for _ in range(12)]
    assert all(d.quotas == {"ar": (FULL_PRB, FULL_PRB)} for d in decisions)


def test_two_blind_slices_share_and_one_that_sees_learns_on() -> None:
    loop = Loop(loop_spec(slice_spec("ar"), slice_spec("b"), rescue=SPEC))
    ok, bad = Enforcement(), Enforcement(Reason.QUOTA_NOT_HONOURED)
    for _ in range(60):
        step(loop, slices=("ar", "b"), enforcement={"ar": ok, "b": ok})
    for _ in range(SPEC.blind_slots):
        decision = step(loop, slices=("ar", "b"), enforcement={"ar": bad, "b": ok})
    quotas = decision.quotas
    assert quotas["ar"][0] + quotas["b"][0] == FULL_PRB and quotas["ar"][0] > 50
    assert quotas["b"][0] >= next(s for s in decision.slices if s.slice == "b").demand.ul.floor


# ---- the round trip alone -----------------------------------------------------------------------------


def blind_hops(loop: Loop, delays: tuple[float, float, float]) -> Observation:
    whole = observation(loop.control_slot, delays)
    return replace(whole, frames=unsynchronised(whole.frames), gpu=GpuReading(loop.clock))


def test_without_synchronised_clocks_the_round_trip_teaches_every_hop() -> None:
    """The round trip is met from 50 PRB of uplink on; the loop finds that and does not starve."""
    loop = Loop(loop_spec(rescue=SPEC))
    met = []
    for _ in range(400):
        last = loop.last
        enough = last is None or not last.quotas or last.quotas["ar"][0] >= 50
        decision = loop.step(blind_hops(loop, GOOD if enough else (300.0, 9.0, 15.0)))
        assert not the(decision).outcome.unattributed or decision.control_slot < 3
        met.append(enough)
    assert sum(met[-100:]) >= 85
    assert all(m.met is None for m in the(decision).outcome.measures[1:])


def test_a_round_trip_that_was_missed_credits_no_hop() -> None:
    loop = Loop(loop_spec())
    played = {c.lever: int(c.action) for c in the(loop.step(blind_hops(loop, GOOD))).demand.choices}
    before = loop.to_state()["slices"]["ar"]["allocator"]["hops"]
    loop.step(blind_hops(loop, BAD))
    after = loop.to_state()["slices"]["ar"]["allocator"]["hops"]
    for hop in RESOURCES:
        missed = policies.restore(before[hop.value][0][1])
        missed.update(played[hop], policies.Feedback(0))
        assert missed.to_state()["means"] == after[hop.value][0][1]["means"]


def test_a_quota_that_comes_too_late_is_said_to_be_the_reason() -> None:
    loop = new_loop()
    low(loop)
    for _ in range(SPEC.blind_slots):
        whole = observation(loop.control_slot)
        late = whole.closed_ns - 100_000_000  # the guard is 200 ms
        decision = loop.step(replace(whole, opened_ns=late, gpu=GpuReading(loop.clock)))
    assert decision.quotas == {"ar": (FULL_PRB, FULL_PRB)}
    assert "too late to be judged" in text(the(decision).to_record()["rescue"])


# ---- the rules alone ----------------------------------------------------------------------------------


def outcome(met: int | None, **unattributed: Reason) -> Outcome:
    return Outcome(met, True, unattributed={Lever(k): v for k, v in unattributed.items()})


def test_more_than_asked_for_is_not_blindness_unless_the_promise_is_not_known() -> None:
    rescue = Rescue(RescueSpec(1, 4))
    rescue.close(outcome(1, edge=Reason.CLOCK_RAISED), {Lever.EDGE})
    assert not rescue.floors
    rescue.close(outcome(None, edge=Reason.CLOCK_RAISED), {Lever.EDGE})
    assert rescue.floors[Lever.EDGE].steps == FULL


def test_settings_that_are_not_in_force_make_every_resource_unknown() -> None:
    rescue = Rescue(RescueSpec(1, 4))
    rescue.close(outcome(1, settings=Reason.SETTINGS_NOT_APPLIED), ())
    assert {lever: floor.steps for lever, floor in rescue.floors.items()} == dict.fromkeys(RESOURCES, FULL)


def test_a_slot_in_which_nobody_was_seen_does_not_count_as_kept() -> None:
    rescue = Rescue(RescueSpec(100, 2))
    idle = Outcome(1, False)
    for _ in range(2):
        rescue.close(outcome(0), ())
        rescue.close(idle, (), Reason.UNKNOWN_TRAFFIC)
    assert rescue.floors


def test_a_slice_that_promised_nothing_is_no_slice_in_need() -> None:
    nothing = Outcome(None, True, promised=False)
    rescue = Rescue(RescueSpec(1, 1))
    for _ in range(10):
        rescue.close(nothing, ())
    assert not rescue.floors
    # It goes back to what it asks for, also where it has more than that.
    rescue.close(outcome(0), ())
    before = {lever: floor.steps for lever, floor in rescue.floors.items()}
    more = replace(nothing, unattributed=dict.fromkeys(RESOURCES, Reason.RESCUED))
    rescue.close(more, RESOURCES)
    assert {lever: floor.steps for lever, floor in rescue.floors.items()} == {
        x: n - 1 for x, n in before.items()
    }
    # One of which nothing is known does not.
    rescue.close(replace(more, promised=True), RESOURCES)
    assert {floor.steps for floor in rescue.floors.values()} == {FULL}


def test_promising_nothing_makes_up_for_no_miss() -> None:
    rescue = Rescue(RescueSpec(9, 3))
    for met in (0, None, 0, None):
        rescue.close(Outcome(met, True, promised=met is not None), ())
    assert not rescue.floors
    rescue.close(outcome(0), ())
    assert rescue.floors
    blind = Outcome(None, True, promised=False, unattributed={Lever.UL: Reason.NOT_ACKNOWLEDGED})
    rescue = Rescue(RescueSpec(2, 9))
    for _ in range(2):
        rescue.close(blind, ())
    assert set(rescue.floors) == {Lever.UL}, "a promise is not what says whether quotas are in force"


@pytest.mark.parametrize(
    ("changes", "within"),
    [
        ({"reports": ()}, 1),  # nobody says what the demand is
        ({"enforcement": {"ar": Enforcement(Reason.NOT_ACKNOWLEDGED)}, "gpu": None}, 3),
        ({"enforcement": {"ar": Enforcement(Reason.QUOTA_NOT_HONOURED)}}, 3),
        ({"flows": (), "frames": Frames.empty(), "reports": ()}, 3),
    ],
)
def test_the_default_policy_that_learns_nothing_gives(changes: dict[str, Any], within: int) -> None:
    spec = loop_spec(slice_spec(policy="headroom"), rescue=RescueSpec(), events=EventsSpec())
    loop = ControlLoop(spec)
    for slot in range(15):
        decision = loop.step(observation(slot, (9.0, 6.0, 9.0)))
    assert max(decision.quotas["ar"]) < 106
    for slot in range(15, 15 + within):
        decision = loop.step(observation(slot, (9.0, 6.0, 9.0), **changes))
    assert decision.quotas["ar"] == (106, 106)


# ---- quotas by hand ------------------------------------------------------------------------------------


def by_hand(ul: int | None, dl: int | None) -> tuple[Command, ...]:
    return (Command("quota", {"ul": ul, "dl": dl, "for_s": 60.0}, "ar"),)


def test_what_a_quota_by_hand_does_is_no_reason_for_a_rescue_and_the_count_goes_on_afterwards() -> None:
    loop = new_loop()
    low(loop)
    blind = {"enforcement": {"ar": Enforcement(Reason.NOT_ACKNOWLEDGED)}}
    for _ in range(SPEC.blind_slots - 1):
        step(loop, **blind)
    step(loop, commands=by_hand(5, 5))
    for _ in range(3 * max(SPEC.blind_slots, SPEC.missed_slots)):
        decision = step(loop, BAD, **blind)
        assert decision.quotas == {"ar": (5, 5)} and not the(decision).rescue
    # The slot that the command ends is of the quota by hand, the next one drains its queues.
    for commands in ((Command("quota", None, "ar"),), ()):
        decision = step(loop, BAD, commands=commands, **blind)
        assert decision.quotas == {"ar": (10, 10)} and not the(decision).rescue
    assert step(loop, **blind).quotas == {"ar": (FULL_PRB, FULL_PRB)}


def test_a_rescue_does_not_override_a_quota_by_hand_and_is_there_afterwards() -> None:
    loop = new_loop()
    low(loop)
    for _ in range(SPEC.blind_slots):
        decision = step(loop, enforcement={"ar": Enforcement(Reason.QUOTA_NOT_HONOURED)})
    assert decision.quotas == {"ar": (FULL_PRB, FULL_PRB)}
    decision = step(loop, commands=by_hand(5, None))
    dl = decision.quotas["ar"][1]
    assert decision.quotas["ar"][0] == 5 and dl > 90
    assert set(the(decision).rescue) == {Lever.DL} and the(decision).grant.ul_why == "quota set by hand"
    decision = step(loop, commands=(Command("quota", None, "ar"),))
    assert decision.quotas == {"ar": (dl, dl)} and set(the(decision).rescue) == {Lever.UL, Lever.DL}


def test_a_control_slot_under_a_quota_by_hand_does_not_end_early() -> None:
    spec = loop_spec(slice_spec(policy="headroom"), rescue=RescueSpec(), events=EventsSpec())
    loop = ControlLoop(spec)
    for slot in range(15):
        loop.step(observation(slot, (9.0, 6.0, 9.0)))
    assert loop.early(observation(15, n_flows=2)) == "ar: a flow started"
    loop.step(observation(15, (9.0, 6.0, 9.0), commands=by_hand(5, 5)))
    assert not loop.early(observation(16, n_flows=2))


def test_what_a_quota_by_hand_leaves_is_divided_among_the_others() -> None:
    wide = {"ul_prb": (90,), "dl_prb": (10,)}
    loop = ControlLoop(loop_spec(*(slice_spec(name, **wide) for name in ("ar", "video", "vr"))))
    names = ("ar", "video", "vr")
    loop.step(observation(0, slices=names))
    decision = loop.step(observation(1, slices=names, commands=by_hand(6, None)))
    assert decision.quotas == {"ar": (6, 10), "video": (50, 10), "vr": (50, 10)}
    assert [s.grant.ul_why for s in decision.slices] == ["quota set by hand", *["max-min fair share"] * 2]


def test_a_replay_of_quotas_by_hand_decides_the_same() -> None:
    loop, replayed = new_loop(), new_loop()
    for slot in range(30):
        commands = {8: by_hand(5, None), 14: by_hand(90, 90), 20: (Command("quota", None, "ar"),)}
        seen = observation(slot, BAD if slot in range(9, 15) else GOOD, commands=commands.get(slot, ()))
        kept = Observation.from_dict(json.loads(json.dumps(seen.to_dict())))
        assert loop.step(seen).to_record() == replayed.step(kept).to_record()
    assert loop.to_state() == replayed.to_state()


def test_no_more_is_said_than_a_share_allows() -> None:
    of = slice_spec(share=Share(max=40), ul_prb=(10, 30), dl_prb=(10, 30))
    loop = Loop(loop_spec(of, rescue=SPEC))
    for _ in range(SPEC.blind_slots + 2):
        decision = step(loop, enforcement={"ar": Enforcement(Reason.NOT_ACKNOWLEDGED)})
    assert decision.quotas["ar"] == (40, 40)
    assert {least for lever, (least, _) in the(decision).rescue.items() if lever is not Lever.EDGE} == {40}
