"""The mind of a slice: what it asks, what it makes of a grant, and what it learns of what."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from controller.allocators.base import SliceView, no_models
from controller.allocators.vr import SERVICE
from controller.allocators.vr.allocator import (
    FILLED,
    LEAST_PRB,
    NO_ROOM,
    OVERHEAD_LIMIT,
    SLACK,
    USABLE,
    USUAL_MCS,
    VrAllocator,
)
from controller.allocators.vr.options import VrOptions
from controller.core.decision import Grant, Settings, SliceDemand
from controller.core.measure import Lever, Reason
from controller.core.observation import Flow, Samples
from tests.allocators.test_contract import MAX_CALLS, MAX_STATE, calls
from tests.allocators.vr.players import (
    CARRIER,
    HALVES,
    LOOP,
    MHZ,
    PRB,
    SLOT_NS,
    T0,
    S,
    View,
    drawn,
    flow,
    frames,
    reports,
    view,
)
from wire.definitions import nr
from wire.definitions.cloud_gaming import FRAME_RATES_HZ, RESOLUTION_PIXELS

OPTIONS = VrOptions(bits_per_pixel=0.05)
GOOD, WORSE, BAD = 20, 13, 3
"""MCS."""


def allocator(options: VrOptions = OPTIONS, **state: Any) -> VrAllocator:
    a = VrAllocator("vr", options, LOOP)
    if state:
        a.load_state({**a.to_state(), **state}, no_models)
    return a


def decided(
    a: VrAllocator, v: SliceView, prb: int | None = None, mhz: int | None = None
) -> tuple[SliceDemand, Settings]:
    a.learn(v)
    demand = a.demand(v)
    dl = demand.dl.prb if prb is None else min(prb, demand.dl.prb)
    return demand, a.settle(v, Grant(demand.ul.prb, dl, demand.gpu_mhz if mhz is None else mhz))


def state(a: VrAllocator) -> Any:
    return json.loads(json.dumps(a.to_state(), allow_nan=False))


def views(users: int, seed: int = 0) -> dict[int, View]:
    return {i: drawn(100 * seed + i) for i in range(users)}


def rates(settings: Settings) -> dict[str, float]:
    return {user: values["frame_rate"][0] for user, values in settings.items()}


def classes(settings: Settings, user: str) -> dict[float, float]:
    return dict(zip(settings[user]["objects"], settings[user]["resolutions"], strict=True))


def prb_of(a: VrAllocator) -> dict[str, float]:
    return {user: s[2] for user, s in state(a)["settings"].items()}


# ---- what is asked and told ---------------------------------------------------------------------------


def test_what_is_looked_at_is_finer_and_all_of_it_is_of_the_device() -> None:
    demand, told = decided(allocator(), view(devices={0: (60.0, 4.0)}), 60)
    assert set(told) == {"u0", "u1"}
    for user, highest, most in (("u0", 4, 60.0), ("u1", 8, 90.0)):
        of = classes(told, user)
        assert set(of) == {1.0, 2.0} and set(of.values()) <= {k for k in RESOLUTION_PIXELS if k <= highest}
        assert of[1.0] >= of[2.0] and rates(told)[user] in FRAME_RATES_HZ and rates(told)[user] <= most
    assert classes(told, "u1")[1.0] > classes(told, "u1")[2.0]
    assert demand.dl.floor <= demand.dl.prb <= PRB


def test_nobody_is_there() -> None:
    a = allocator()
    decided(a, view())
    for users in ((), (flow(0, stop_ns=T0 + S),)):
        demand, told = decided(a, view(1, users))
        assert told == {} and demand.ul.prb == demand.dl.prb == LEAST_PRB and demand.gpu_mhz == 0
        assert demand.choices[0].why == "nobody is there" and state(a)["settings"] == {}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bandwidth", ["shared", "dedicated"])
def test_settings_fit_the_grant_whatever_it_is(seed: int, bandwidth: Any) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    a = allocator(replace_options(bandwidth=bandwidth))
    v = view(users=n, views=views(n, seed), mcs=rng.integers(2, 28, n).tolist())
    a.learn(v)
    demand = a.demand(v)
    for prb in (0, 1, *rng.integers(0, demand.dl.prb + 1, 6).tolist(), demand.dl.prb):
        told = a.settle(v, Grant(0, prb, demand.gpu_mhz))
        SERVICE.check_settings(told, frozenset(told))
        assert len(told) == n
        assert sum(prb_of(a).values()) <= prb * USABLE * FILLED * (1.0 + SLACK) + 1e-6
        assert all(prb_of(a)[user] == 0.0 for user, rate in rates(told).items() if rate == 0.0)
    gain = demand.dl.gain
    assert len(gain) == demand.dl.prb - demand.dl.floor and list(gain) == sorted(gain, reverse=True)


def replace_options(**changes: Any) -> VrOptions:
    return VrOptions.model_validate({**OPTIONS.model_dump(), **changes})


def test_more_prb_are_never_worth_less() -> None:
    v, worth = view(users=6, views=views(6)), []
    for prb in (30, 60, 120, 240):
        a = allocator()
        decided(a, v, prb)
        worth.append(sum(s[1] for s in state(a)["settings"].values()))
    assert worth == sorted(worth) and worth[0] < worth[-1]


def test_nothing_granted_pauses_all_and_they_come_back() -> None:
    a = allocator()
    demand, told = decided(a, view(), 0)
    assert rates(told) == {"u0": 0.0, "u1": 0.0} and demand.dl.prb > 0
    # Of who renders nothing there are no frames; that is no silence.
    paused = {"delivered": frames(1, {})}
    v = view(1, samples=paused, settings=told, granted=Grant(5, 0, MHZ))
    outcome = a.learn(v)
    assert outcome.met is None and not outcome.busy
    demand, told = decided(a, view(1, samples=paused, settings=told, granted=Grant(5, 0, MHZ)))
    assert min(rates(told).values()) >= 30.0 and "no user tells" not in demand.choices[0].why


def test_a_user_that_cannot_be_served_says_why_and_the_floor_is_finite() -> None:
    a = allocator()
    for slot in range(4):
        demand, told = decided(a, view(slot, views={0: HALVES, 1: HALVES}, mcs=(GOOD, 0)))
    assert 0 <= demand.dl.floor <= demand.dl.prb
    a = allocator(OPTIONS.model_copy(update={"bits_per_pixel": 5.0}))
    demand, told = decided(a, view())
    why = {c.user: c.why for c in demand.choices if c.user}
    assert why["u0"].startswith("not admitted: no base station and compute node can serve the user")
    assert rates(told) == {"u0": 0.0, "u1": 0.0}


def test_where_nobody_can_be_served_the_slice_asks_for_all_there_is_and_all_play_as_they_can() -> None:
    a = allocator(OPTIONS.model_copy(update={"bits_per_pixel": 5.0}))
    demand, told = decided(a, view())
    assert (demand.ul.prb, demand.dl.prb, demand.gpu_mhz) == (
        PRB,
        PRB,
        MHZ,
    ) and "all there is" in demand.choices[0].why
    for slot in range(1, 4):
        b = allocator(OPTIONS.model_copy(update={"bits_per_pixel": 5.0}))
        b.load_state(state(a), no_models)
        v = view(slot, settings=told)
        demand, told = decided(a, v)
        assert decided(b, v) == (demand, told)
        assert (demand.dl.prb, demand.gpu_mhz) == (PRB, MHZ) and set(rates(told).values()) == {30.0}
        assert all(set(values["resolutions"]) == {2.0} for values in told.values())
    # With a cell that has room again they are admitted.
    c = allocator()
    c.load_state(state(a), no_models)
    demand, told = decided(c, view(4, settings=told))
    assert all("not admitted" not in choice.why for choice in demand.choices)


def test_a_frame_that_a_lower_clock_makes_late_leaves_the_floor_finite() -> None:
    # Some can be served at the highest clock alone.
    options = replace_options(overhead_ms=16.0, gpu_mhz=[200, 800, MHZ], flop_per_pixel=1500.0)
    for mcs in range(4, 16):
        demand, _ = decided(allocator(options), view(users=6, views=views(6), mcs=(GOOD,) * 5 + (mcs,)))
        assert demand.dl.floor <= demand.dl.prb


def test_who_has_sent_no_view_has_room_for_what_servers_begin_with() -> None:
    a = allocator()
    demand, told = decided(a, view(views={}))
    per_bit = a._s_per_bit("ue-0")
    default = RESOLUTION_PIXELS[2] * OPTIONS.bits_per_pixel * 30.0 * per_bit
    assert told == {} and demand.dl.prb == np.ceil(2 * default / USABLE / FILLED) > LEAST_PRB
    assert demand.choices[0].why == "no user has sent what it looks at" and demand.gpu_mhz == MHZ
    assert {c.why for c in demand.choices if c.user} == {"no view is known"}
    # Beside many of these, who has sent a view keeps a part of its own.
    demand, told = decided(allocator(replace_options(bits_per_pixel=0.1)), view(users=9, views={3: HALVES}))
    assert demand.dl.prb == PRB and rates(told)["u3"] >= 30.0


def test_who_sends_no_view_goes_on_with_what_it_had() -> None:
    a = allocator()
    _, told = decided(a, view())
    had = prb_of(a)
    later, same = decided(a, view(1, views={0: HALVES}, settings=told, mcs=(GOOD, BAD)))
    assert same["u1"] == told["u1"] and prb_of(a)["u1"] == had["u1"]
    assert later.dl.prb >= np.ceil(had["u1"] / FILLED)
    assert [s[5] for s in state(a)["settings"].values()] == [False, False]


def test_a_ue_that_two_users_share_and_one_without_a_report() -> None:
    a = allocator()
    users = (flow(0), Flow("u1", "ue-0", "vr", 0.0, 0.0, T0), flow(9))
    _, told = decided(a, view(users=users, reports=reports(0, (GOOD,))))
    assert set(told) == {"u0", "u1", "u9"} and min(rates(told).values()) >= 30.0
    usual = CARRIER.prb_per_bit("dl")[1][USUAL_MCS] * nr.FRAME_MS / 1e3
    assert a._s_per_bit("ue-9") == usual and set(state(a)["radio"]) == {"ue-0"}
    assert a.demand(view(1, users=users, reports=())).dl.prb > 0


def test_a_flow_that_stopped_and_began_again_is_told_once() -> None:
    again = (flow(0, stop_ns=T0 + S), flow(1), replace(flow(0), start_ns=T0 + 2 * S), flow(1))
    demand, told = decided(allocator(), view(users=again))
    assert sorted(told) == ["u0", "u1"] and len([c for c in demand.choices if c.user]) == 2


def test_who_comes_back_under_another_name_is_somebody_new() -> None:
    a = allocator()
    _, told = decided(a, view())
    other = (flow(0), Flow("new", "ue-1", "vr", 0.0, 0.0, T0 + SLOT_NS))
    assert a.early(view(1, other)) == "a user came"
    assert a.early(view(1)) == a.early(view(1, other, granted=None)) == ""
    _, told = decided(a, view(1, other, settings=told))
    assert set(told) == {"u0", "new"} == set(state(a)["settings"])
    assert set(a._menus) == {"u0", "new"} and a.early(view(2, other)) == ""


# ---- the GPU ------------------------------------------------------------------------------------------


def test_the_least_clock_that_does_and_a_lower_one_is_made_do_with() -> None:
    options = replace_options(gpu_mhz=[200, 800, MHZ])
    light, _ = decided(allocator(options), view(devices={0: (30.0, 2.0), 1: (30.0, 2.0)}))
    a = allocator(options)
    heavy, _ = decided(a, view(users=8, views=views(8)))
    assert light.gpu_mhz == 200 < heavy.gpu_mhz and 0.0 < heavy.gpu_share <= 1.0
    share = sum(s[3] for s in state(a)["settings"].values())
    decided(a, view(users=8, views=views(8)), mhz=200)
    lower = sum(s[3] for s in state(a)["settings"].values())
    # Shares are of the GPU's time at the clock that was granted.
    assert lower * 200 < share * heavy.gpu_mhz


@pytest.mark.parametrize("mhz", [0, 1, 5000])
def test_any_clock_may_have_been_read_back(mhz: int) -> None:
    a = allocator()
    _, told = decided(a, view())
    late = frames(1, {0: 20.0, 1: 20.0}, pixels=1e6)
    a.learn(view(1, settings=told, granted=Grant(PRB, PRB, mhz), samples={"delivered": late}))
    assert 0.0 <= state(a)["overhead_s"] <= OVERHEAD_LIMIT / 30.0
    settled = a.settle(view(1), Grant(PRB, PRB, mhz))
    assert set(settled) == {"u0", "u1"}


# ---- nobody flaps -------------------------------------------------------------------------------------


def play(
    a: VrAllocator, slots: int, users: int, first: int = 0, **more: Any
) -> list[tuple[SliceDemand, Settings]]:
    """Control slots with views that do not change; ``mcs`` may be a function of the slot."""
    out: list[tuple[SliceDemand, Settings]] = []
    mcs = more.pop("mcs", None)
    for slot in range(first, first + slots):
        settings = out[-1][1] if out else {}
        radio = {} if mcs is None else {"mcs": mcs(slot)}
        known = {"views": views(users), "settings": settings, **radio, **more}
        out.append(decided(a, view(slot, users, **known)))
    return out


def test_a_radio_that_is_known_anew_each_slot_changes_nothing() -> None:
    a = allocator(replace_options(bits_per_pixel=0.05))
    rng = np.random.default_rng(1)
    played = play(a, 25, 8, mcs=lambda _: (GOOD + rng.integers(-1, 2, 8)).tolist())
    assert played[-1][0].dl.prb > 0.85 * PRB, "the cell is full"
    changes = sum(told[u] != before[u] for (_, before), (_, told) in pairwise(played[5:]) for u in told)
    assert changes <= 4, "of 152"


def test_who_comes_into_a_cell_with_room_changes_nothing_for_the_others() -> None:
    a = allocator(replace_options(bits_per_pixel=0.01))
    _, before = play(a, 3, 3)[-1]
    _, after = decided(a, view(3, 4, views=views(4), settings=before))
    assert {u: after[u] for u in before} == before and rates(after)["u3"] >= 30.0
    _, after = decided(a, view(4, (flow(0), flow(2)), views={0: views(3)[0], 1: views(3)[2]}, settings=after))
    assert after == {u: before[u] for u in ("u0", "u2")}, "who leaves changes nothing either"


def test_who_fades_pays_for_it_alone() -> None:
    a = allocator(replace_options(bits_per_pixel=0.05))
    _, before = play(a, 4, 8)[-1]
    prb = sum(prb_of(a).values())
    qoe = {u: s[1] for u, s in state(a)["settings"].items()}
    for slot in range(4, 8):
        mcs = [WORSE, *(GOOD,) * 7]
        decided(a, view(slot, 8, views=views(8), settings=before, mcs=mcs))
    faded = {u: s[1] for u, s in state(a)["settings"].items()}
    assert faded["u0"] < qoe["u0"] and sum(prb_of(a).values()) <= (1.0 + SLACK) * max(
        prb, PRB * USABLE * FILLED
    )
    assert all(faded[u] >= qoe[u] for u in qoe if u != "u0"), "nobody else has less"


def test_who_is_admitted_stays_and_who_waits_comes_in_when_there_is_room() -> None:
    a = allocator(replace_options(bits_per_pixel=0.1))
    in_cell = 0
    for users in range(2, 20):
        _, told = decided(a, view(users, users, views=views(users)))
        admitted = [u for u, rate in rates(told).items() if rate]
        if len(admitted) < users:
            break
        in_cell = users
    assert 2 <= in_cell < 19 and set(admitted) >= {f"u{i}" for i in range(in_cell)}, "the last one waits"
    last = f"u{in_cell}"
    for slot in range(30, 36):
        demand, told = decided(a, view(slot, in_cell + 1, views=views(in_cell + 1), settings=told))
        assert rates(told)[last] == 0.0 and all(rates(told)[u] for u in admitted)
    assert next(c for c in demand.choices if c.user == last).why == f"not admitted: {NO_ROOM}"
    rest = tuple(flow(i) for i in range(2, in_cell + 1))
    _, told = decided(a, view(40, rest, views={i: views(in_cell + 1)[i + 2] for i in range(len(rest))}))
    assert rates(told)[last] >= 30.0


def lowest_prb(a: VrAllocator, ue: str = "ue-0", bits_per_pixel: float = 1.0) -> float:
    """Of a user at the lowest class and frame rate."""
    return RESOLUTION_PIXELS[2] * bits_per_pixel * FRAME_RATES_HZ[0] * a._s_per_bit(ue)


@pytest.mark.parametrize(("part", "admitted"), [(1.0 - 0.5 * SLACK, 4), (1.0 - 1.5 * SLACK, 5)])
def test_who_comes_in_leaves_something_to_spare(part: float, admitted: int) -> None:
    known = allocator()
    known.learn(view(users=5))
    bits_per_pixel = part * PRB * USABLE * FILLED / 5 / lowest_prb(known)
    a = allocator(replace_options(bits_per_pixel=bits_per_pixel))
    still: View = ((1, 1.0, 0.0),)
    _, told = decided(a, view(0, 4, views=dict.fromkeys(range(4), still)))
    assert min(rates(told).values()) == 30.0, "nobody has more while another has nothing"
    _, told = decided(a, view(1, 5, views=dict.fromkeys(range(5), still), settings=told))
    assert sum(rate > 0.0 for rate in rates(told).values()) == admitted
    # Where nobody is there yet, all of these may be.
    _, told = decided(allocator(a._options), view(0, 5, views=dict.fromkeys(range(5), still)))
    assert min(rates(told).values()) == 30.0


def test_where_by_far_more_users_would_do_they_are_chosen_anew() -> None:
    # Two with a bad radio fill the cell; four others would fit in the place of one.
    known = allocator()
    known.learn(view(users=6, mcs=(4, 4, *(27,) * 4)))
    bad, good = lowest_prb(known), lowest_prb(known, "ue-5")
    bits_per_pixel = 0.97 * PRB * USABLE * FILLED / (2 * bad)
    assert bad > 4 * good
    a = allocator(replace_options(bits_per_pixel=bits_per_pixel))
    still: View = ((1, 1.0, 0.0),)
    _, told = decided(a, view(0, 2, mcs=(4, 4), views=dict.fromkeys(range(2), still)))
    assert min(rates(told).values()) == 30.0
    known_views = {"views": dict.fromkeys(range(6), still), "mcs": (4, 4, *(27,) * 4)}
    _, told = decided(a, view(1, 6, settings=told, **known_views))
    assert sum(rate > 0.0 for rate in rates(told).values()) == 5 and 0.0 in (
        rates(told)["u0"],
        rates(told)["u1"],
    )


def test_the_floor_is_of_those_whose_frames_can_be_in_time() -> None:
    a = allocator()
    v = view(users=3, mcs=(GOOD, GOOD, BAD))
    a.learn(v)
    problem = a._problem_of(v.users, a._scenes_of(v, v.users), 160.0, MHZ)
    assert len(problem) == 3
    late = replace(problem, budget_s=problem.budget_s.copy())
    late.budget_s[problem.config_at[2] :] = 0.0
    assert 0.0 < a._floor(late, 0.0) < a._floor(problem, 0.0) < np.inf


def test_changes_are_of_the_frame_rate_and_of_objects_that_are_still_there() -> None:
    a = allocator(replace_options(bits_per_pixel=0.01))
    _, told = decided(a, view())
    other: View = ((2, 0.5, 1.0), (3, 0.5, 4.0))
    _, after = decided(a, view(1, settings=told, views={0: other, 1: HALVES}))
    assert set(classes(after, "u0")) == {2.0, 3.0}
    changed = {u: s[5] for u, s in state(a)["settings"].items()}
    assert changed == {"u0": classes(after, "u0")[2.0] != classes(told, "u0")[2.0], "u1": False}
    decided(a, view(2, settings=after, views={0: other, 1: HALVES}), 20)
    assert any(s[5] for s in state(a)["settings"].values())


# ---- hosts that fall silent ---------------------------------------------------------------------------


def test_where_no_user_tells_of_frames_the_slice_asks_for_all_there_is() -> None:
    a = allocator()
    first, told = decided(a, view())
    assert first.dl.prb < PRB
    nothing = {"delivered": frames(1, {})}
    v = view(1, settings=told, samples=nothing)
    outcome = a.learn(v)
    assert outcome.busy and outcome.unattributed[Lever.DL] is Reason.PROMISE_NOT_KNOWN
    demand, same = decided(a, v)
    assert demand.dl.prb == PRB and "all there is" in demand.choices[0].why and same == told
    # And so it does where not even views come.
    demand, same = decided(a, view(2, settings=told, samples=nothing, views={}))
    assert demand.dl.prb == PRB and same == told and demand.gpu_mhz == MHZ
    # One of two that is silent keeps what it has.
    demand, same = decided(a, view(3, settings=told, samples={"delivered": frames(3, {0: 10.0})}))
    assert demand.dl.prb == first.dl.prb and same == told


def test_a_slot_without_reports_and_samples_changes_nothing() -> None:
    a = allocator()
    _, told = decided(a, view())
    before = state(a)
    v = view(1, settings=told, reports=(), samples={"delivered": frames(1, {})})
    _, same = decided(a, v)
    assert same == told and state(a)["radio"] == before["radio"]
    assert state(a)["overhead_s"] == before["overhead_s"]


# ---- what is learned ----------------------------------------------------------------------------------

FULL = {"queued": (500_000, 500_000), "carried": (4_000_000, 4_000_000), "prb_slots": (200_000, 200_000)}


def full(slot: int, **changes: Any) -> Any:
    return reports(slot, (GOOD, GOOD), **{**FULL, **changes})


def used_share(prb_slots: int) -> float:
    slots_per_s = 1e9 / nr.slot_ns(CARRIER.scs_khz) * CARRIER.tdd.share("dl", guard=CARRIER.guard)
    return float(prb_slots / (PRB * slots_per_s * 4.0))


def test_what_is_usable_is_what_is_used_while_most_wait() -> None:
    a = allocator()
    a.learn(view(reports=full(0)))
    assert state(a)["usable"] == pytest.approx((USABLE + used_share(400_000)) / 2)
    # Where one waits alone it is the one's radio.
    a = allocator()
    alone = full(0, queued=(500_000, 0), carried=(1_000_000, 7_000_000))
    a.learn(view(reports=alone))
    assert state(a)["usable"] == USABLE


def test_what_was_thought_usable_comes_back() -> None:
    a = allocator(usable=0.3)
    for slot in range(30):
        a.learn(view(slot))
    assert 0.9 * USABLE < state(a)["usable"] <= USABLE
    a = allocator(usable=0.9)
    a.learn(view())
    assert state(a)["usable"] == 0.9, "what is more was used once"


def test_late_frames_are_overhead_and_it_comes_back_when_nothing_is_rendered() -> None:
    a = allocator()
    _, told = decided(a, view())
    begin = state(a)["overhead_s"]
    for slot in range(1, 6):
        late = {"delivered": frames(slot, {0: 30.0, 1: 30.0})}
        a.learn(view(slot, settings=told, samples=late))
    high = state(a)["overhead_s"]
    assert begin < high <= OVERHEAD_LIMIT / 30.0
    paused = {u: {**values, "frame_rate": (0.0,)} for u, values in told.items()}
    for slot in range(6, 30):
        a.learn(view(slot, settings=paused, samples={"delivered": frames(slot, {})}))
    assert state(a)["overhead_s"] == pytest.approx(OPTIONS.overhead_ms / 1e3, rel=0.01)
    # Of silent hosts it is not known.
    b = allocator(overhead_s=high)
    b.learn(view(1, settings=told, samples={"delivered": frames(1, {})}))
    assert state(b)["overhead_s"] == high


@pytest.mark.parametrize(
    ("unattributed", "unapplied", "usable", "overhead"),
    [
        ({}, (), True, True),
        ({Lever.DL: Reason.ARBITER_CUT}, (), True, True),
        ({Lever.DL: Reason.RESCUED}, (), True, True),
        ({Lever.DL: Reason.NOT_ACKNOWLEDGED}, (), False, False),
        ({Lever.DL: Reason.LEASE_LAPSED}, (), False, False),
        ({Lever.SETTINGS: Reason.SETTINGS_NOT_APPLIED}, ("u0",), True, True),
        ({Lever.SETTINGS: Reason.SETTINGS_NOT_APPLIED}, ("u0", "u1"), False, False),
        ({Lever.SETTINGS: Reason.ALLOCATOR_FAILED}, (), False, False),
        ({Lever.EDGE: Reason.CLOCK_RAISED}, (), True, True),
        ({Lever.EDGE: Reason.CLOCK_NOT_REACHED}, (), True, True),
        ({Lever.EDGE: Reason.LOCK_NOT_CONFIRMED}, (), True, False),
        (dict.fromkeys(Lever, Reason.FROZEN), (), False, False),
    ],
)
def test_only_what_was_attributed_teaches(
    unattributed: Any, unapplied: tuple[str, ...], usable: bool, overhead: bool
) -> None:
    a = allocator()
    _, told = decided(a, view())
    before = state(a)
    late = {"delivered": frames(1, {0: 30.0, 1: 30.0})}
    known = {"unattributed": unattributed, "unapplied": frozenset(unapplied)}
    outcome = a.learn(view(1, settings=told, reports=full(1), samples=late, **known))
    assert (state(a)["usable"] != before["usable"]) is usable
    assert (state(a)["overhead_s"] != before["overhead_s"]) is overhead
    assert unattributed.items() <= {**dict(outcome.unattributed), **unattributed}.items()
    assert outcome.counts["promises"] == 2 - len(unapplied)


def test_without_a_decision_nothing_is_learned_of_frames() -> None:
    a = allocator()
    before = state(a)
    late = {"delivered": frames(0, {0: 30.0, 1: 30.0})}
    a.learn(view(granted=None, reports=full(0), samples=late))
    assert {**state(a), "radio": {}} == before


def test_the_radio_is_what_prbs_carried_or_what_the_cqi_promises() -> None:
    a = allocator()
    a.learn(view(reports=reports(0, (GOOD, BAD))))
    mcs = CARRIER.prb_per_bit("dl")[1]
    assert a._s_per_bit("ue-0") == pytest.approx(mcs[GOOD] / 2 * nr.FRAME_MS / 1e3, rel=1e-5)
    assert a._s_per_bit("ue-1") > a._s_per_bit("ue-0")
    # Link adaptation lowers the MCS of who gets nothing; its CQI tells.
    b = allocator()
    b.learn(view(reports=reports(0, (0, 0), cqi=(15, 7))))
    assert b._s_per_bit("ue-0") < b._s_per_bit("ue-1") < mcs[0] / 2 * nr.FRAME_MS / 1e3
    # And what was carried, once there is enough of it.
    c = allocator()
    c.learn(view(reports=full(0)))
    slots_per_s = 1e9 / nr.slot_ns(CARRIER.scs_khz) * CARRIER.tdd.share("dl", guard=CARRIER.guard)
    assert c._s_per_bit("ue-0") == pytest.approx(200_000 / slots_per_s / 8 / 4_000_000, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0, 1e30, 0.0])
@pytest.mark.parametrize("column", range(5))
def test_rows_that_cannot_be_leave_a_state_that_can(bad: float, column: int) -> None:
    a = allocator()
    _, told = decided(a, view())
    row = [10.0, 30.0, 1.0, 1e5, 1.0]
    row[column] = bad
    rows = Samples(np.zeros(5, np.int64), np.full(5, T0 + SLOT_NS + S), np.array([row] * 5, np.float32))
    demand, same = decided(a, view(1, settings=told, samples={"delivered": rows}))
    assert set(same) == {"u0", "u1"} and demand.dl.prb > 0
    known = state(a)
    assert 0.0 <= known["overhead_s"] <= OVERHEAD_LIMIT / 30.0 and 0.3 <= known["usable"] <= 1.0


# ---- options and state --------------------------------------------------------------------------------


def test_options_are_set_while_it_runs() -> None:
    a = allocator(replace_options(gpu_mhz=[400, MHZ]))
    decided(a, view())
    assert a._clocks == (400, MHZ)
    a.set(OPTIONS)
    assert a._clocks == (400, 800, 1200, 1600)
    uneven: View = ((1, 0.9, 4.0), (2, 0.1, 1.0))
    a = allocator(OPTIONS)
    _, weighted = decided(a, view(users=8, views=dict.fromkeys(range(8), uneven)))
    a.set(replace_options(objective="printed"))
    fresh = allocator(replace_options(objective="printed"))
    fresh.load_state(state(a), no_models)
    v = view(1, 8, views=dict.fromkeys(range(8), uneven), settings=weighted)
    assert decided(a, v) == decided(fresh, v), "fronts are of the new objective"
    before = sum(prb_of(a).values())
    a.set(replace_options(bits_per_pixel=0.1))
    decided(a, view(3))
    assert sum(prb_of(a).values()) != before


def test_it_goes_on_from_its_state_as_if_it_had_not_stopped() -> None:
    whole = allocator(replace_options(bits_per_pixel=0.1))
    played = play(whole, 5, 6)
    resumed = allocator(replace_options(bits_per_pixel=0.1))
    resumed.load_state(state(whole), no_models)
    for slot in range(5, 9):
        # One of them sends no view any more, another one is gone.
        users = tuple(flow(i) for i in range(5))
        known = {"views": {i: views(6)[i] for i in range(4)}, "settings": played[-1][1]}
        assert decided(whole, view(slot, users, **known)) == decided(resumed, view(slot, users, **known))
        assert state(whole) == state(resumed) and "u5" not in state(resumed)["settings"]


@pytest.mark.parametrize("changes", [{"usable": float("nan")}, {"overhead_s": -1.0}, {"usable": "much"}])
def test_a_state_that_cannot_be_is_refused_and_nothing_has_changed(changes: dict[str, Any]) -> None:
    a = allocator()
    decided(a, view())
    before = state(a)
    with pytest.raises(ValueError):
        a.load_state({**before, **changes}, no_models)
    assert state(a) == before


def test_sixty_four_users_with_full_views_are_served_within_bounds() -> None:
    a = allocator(replace_options(bits_per_pixel=0.02))
    many = {i: [(float(2**24 - 1 - k), 1 / 64, float(k % 6)) for k in range(64)] for i in range(64)}
    _, told = decided(a, view(0, 64, views=many))
    assert len(json.dumps(a.to_state())) < MAX_STATE
    busy = {i: drawn(i) for i in range(64)}
    v = view(1, 64, views=busy, settings=told)
    decided(a, v)
    v = view(2, 64, views={**busy, 0: drawn(99)})

    def control_slot() -> None:
        decided(a, v, 100)

    # Who waits makes it two problems.
    assert calls(control_slot) < 3 * MAX_CALLS
