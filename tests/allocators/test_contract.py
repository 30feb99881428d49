"""What holds for the allocator of every service, through the cases that the service itself names."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller import allocators
from controller.allocators.base import Allocator, Column, Options, Service, SliceView
from controller.core.decision import Choice, Grant, SliceDecision
from controller.core.measure import MAX_NAMES, Reason
from controller.core.observation import Frames
from controller.handover import MAX_STATE_BYTES
from tests.allocators.world import MHZ, PRB, Played, World, play

MAX_STATE = 64 * 1024
MAX_CALLS = 20_000
"""Calls of one control slot of 64 users: learn, demand and settle."""

CASES = [
    pytest.param(name, options, id=f"{name}-{i}")
    for name in allocators.names()
    for i, options in enumerate(allocators.service(name).unit_test_options)
]
every_case = pytest.mark.parametrize(("name", "options"), CASES)


def world(name: str, options: dict[str, Any], **more: Any) -> World:
    return World(allocators.service(name), options, **more)


def state(allocator: Allocator) -> Any:
    return json.loads(json.dumps(allocator.to_state(), allow_nan=False))


@every_case
def test_a_case_is_valid_and_its_names_are_few(name: str, options: dict[str, Any]) -> None:
    w = world(name, options)
    assert type(w.options).model_validate(w.options.to_dict()) == w.options
    json.dumps(w.options.to_dict(), allow_nan=False)
    assert w.options.anew <= type(w.options).model_fields.keys()
    assert len(w.service.settings) <= MAX_NAMES
    assert all(column.name and column.length >= 1 for column in w.service.settings.values())


@every_case
def test_equal_seeds_give_equal_decisions(name: str, options: dict[str, Any]) -> None:
    a, b = world(name, options, seed=1), world(name, options, seed=1)
    one, two = a.allocator(), b.allocator()
    assert play(a, one, 30) == play(b, two, 30)
    assert state(one) == state(two)


@every_case
@pytest.mark.parametrize("after", [0, 1, 20])
def test_state_goes_through_json_and_learning_goes_on(name: str, options: dict[str, Any], after: int) -> None:
    w = world(name, options, seed=2)
    whole, resumed = w.allocator(), w.allocator()
    play(w, whole, after)
    before = whole.to_state()
    resumed.load_state(saved := state(whole), w.models.__getitem__)
    assert state(resumed) == saved
    w.granted, w.settings = None, {}  # the control slot of a restart is not learned from
    for _ in range(10):
        view = w.view()
        same = replace(view)  # with a generator of its own
        assert whole.learn(view) == resumed.learn(same)
        demand = whole.demand(view)
        assert demand == resumed.demand(same)
        grant = w.grant(demand)
        settings = whole.settle(view, grant)
        assert settings == resumed.settle(same, grant)
        w.go_on(grant, settings, whole.jobs())
        assert [job.key for job in resumed.jobs()] == [job.key for job in whole.jobs()]
        assert state(whole) == state(resumed)
    assert before == saved, "a state is a copy"


@every_case
@pytest.mark.parametrize("users", [0, 1, 4])
def test_two_hundred_control_slots_keep_the_contract(name: str, options: dict[str, Any], users: int) -> None:
    w = world(name, options, users=users, seed=3)

    def look(view: SliceView, grant: Grant, played: Played) -> None:
        outcome, demand, settings = played
        check_outcome(view, played)
        for want in (demand.ul, demand.dl):
            assert type(want.prb) is type(want.floor) is int and 0 <= want.floor <= want.prb <= PRB
            assert not want.gain or len(want.gain) == want.prb - want.floor
            assert list(want.gain) == sorted(want.gain, reverse=True)
        assert all(type(prb) is int and 0 <= prb <= PRB for prb in demand.reserved)
        assert type(demand.gpu_mhz) is int and 0 <= demand.gpu_mhz <= MHZ
        for choice in demand.choices:
            check_choice(w, view, choice)
        w.service.check_settings(settings, frozenset(u.flow for u in view.users))
        record = SliceDecision(view.slice, outcome, demand, grant, settings).to_record()
        json.dumps(record, allow_nan=False)

    play(w, w.allocator(), 200, look)


def check_outcome(view: SliceView, played: Played) -> None:
    outcome = played[0]
    assert outcome.met in (0, 1, None)
    assert set(outcome.users) <= {u.flow for u in view.users}
    assert len({m.name for m in outcome.measures}) == len(outcome.measures) <= MAX_NAMES
    # About a lever that had more than it wanted something may be learned all the same.
    assert {k: r for k, r in view.unattributed.items() if not r.more}.items() <= outcome.unattributed.items()
    for measure in outcome.measures:
        assert measure.met in (0, 1, None) and measure.better in ("lower", "higher") and measure.samples >= 0
        assert len(measure.values) == len(measure.targets) == len(outcome.users)
    if outcome.measures:
        assert outcome.met == outcome.measures[0].met
    assert all(type(n) is int for n in (*outcome.counts.values(), *outcome.faults.values()))


def check_choice(w: World, view: SliceView, choice: Choice) -> None:
    assert choice.lever in w.levers and choice.unit and choice.method and choice.why
    assert choice.user in {"", *(u.flow for u in view.users)}
    assert list(choice.actions) == sorted(set(choice.actions))
    assert len(choice.indices) in (0, len(choice.actions))
    assert not choice.actions or choice.action in choice.actions


@every_case
def test_a_slice_settles_for_any_grant_down_to_nothing(name: str, options: dict[str, Any]) -> None:
    w = world(name, options, seed=4)
    allocator = w.allocator()
    play(w, allocator, 10)
    for _ in range(20):
        view = w.view()
        allocator.learn(view)
        demand = allocator.demand(view)
        for part in (1.0, 0.5, 0.0):
            grant = Grant(int(demand.ul.prb * part), int(demand.dl.prb * part), int(demand.gpu_mhz * part))
            settings = allocator.settle(view, grant)
            w.service.check_settings(settings, frozenset(u.flow for u in view.users))


@every_case
def test_a_control_slot_without_an_attributed_lever_teaches_nothing_about_one(
    name: str, options: dict[str, Any]
) -> None:
    w, other = world(name, options, seed=5), world(name, options, seed=6)
    learned, again = w.allocator(), w.allocator()
    play(w, learned, 10)
    for _ in range(10):
        before = state(learned)
        again.load_state(before, w.models.__getitem__)
        nothing = dict.fromkeys(w.levers, Reason.NOT_ACKNOWLEDGED)
        view = w.view(unattributed=nothing)
        silent = replace(view, reports=(), samples={}, fits=())
        again.learn(silent)
        assert state(again) == before, "frames alone taught something"
        # What it was granted, what became of the frames, and what was told make no difference.
        frames = other.view().frames
        frames = frames if len(view.users) == len(w.users) else Frames.empty()
        learned.learn(view)
        again.load_state(before, w.models.__getitem__)
        again.learn(
            replace(view, frames=frames, granted=Grant(1, 1, 100), settings={}, unapplied=frozenset())
        )
        assert state(again) == state(learned)


@every_case
def test_what_is_handed_over_is_small_and_changes_nothing_and_another_goes_on_with_it(
    name: str, options: dict[str, Any]
) -> None:
    w, other = world(name, options, seed=8), world(name, options, seed=9)
    allocator, taking = w.allocator(), other.allocator()
    assert allocator.hand_over("nobody") is None
    play(w, allocator, 20)
    before = state(allocator)
    known = {u.flow: allocator.hand_over(u.flow) for u in w.users}
    assert state(allocator) == before
    arrivals = {f: json.loads(json.dumps(a, allow_nan=False)) for f, a in known.items() if a is not None}
    assert all(len(json.dumps(a)) <= MAX_STATE_BYTES for a in arrivals.values())
    view = replace(other.view(), arrivals=arrivals)
    taking.learn(view)
    taking.settle(view, other.grant(taking.demand(view)))


@every_case
def test_sixty_four_users_are_served_within_bounds(name: str, options: dict[str, Any]) -> None:
    w = world(name, options, users=64, seed=7)
    allocator = w.allocator()
    play(w, allocator, 30)
    assert len(json.dumps(allocator.to_state())) < MAX_STATE
    view = w.view()

    def control_slot() -> None:
        allocator.learn(view)
        allocator.settle(view, w.grant(allocator.demand(view)))

    assert calls(control_slot) < MAX_CALLS


def calls(work: Callable[[], None]) -> int:
    """How many functions, Python's and C's, are called."""
    count = 0

    def profile(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@every_case
def test_options_that_are_set_again_change_nothing(name: str, options: dict[str, Any]) -> None:
    w = world(name, options, seed=8)
    allocator, same = w.allocator(), w.allocator()
    play(w, allocator, 10)
    same.load_state(before := state(allocator), w.models.__getitem__)
    try:
        allocator.set(w.options)
    except ValueError as error:
        assert str(error)
    assert state(allocator) == before
    view = w.view()
    view = replace(view, unattributed=dict.fromkeys(w.levers, Reason.NO_DECISION))
    assert allocator.learn(view) == same.learn(view)
    assert allocator.demand(view) == same.demand(replace(view))  # with a generator of its own


@pytest.mark.parametrize(
    ("name", "length", "mistake"),
    [
        ("s" * 32, 1, "setting 's+'... is longer than 31 bytes"),
        ("rates", 65, "setting rates of 65 values, not 1 to 64"),
        ("rates", 0, "setting rates of 0 values, not 1 to 64"),
    ],
)
def test_a_service_has_no_setting_that_its_messages_cannot_carry(
    name: str, length: int, mistake: str
) -> None:
    with pytest.raises(ValueError, match=mistake):
        Service(
            "wide", Options, allocators.service("ar").allocator, settings={name: Column(name, "1", length)}
        )


def test_a_service_whose_packages_are_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.startswith("controller.allocators.vr")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(
        ValueError, match=r"'vr': the package numba is missing: .venv/bin/pip install -e '.\[vr\]'$"
    ):
        allocators.service.__wrapped__("vr")
