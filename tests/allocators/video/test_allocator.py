"""The slice of viewers: what it asks for, what it makes of a grant, and what it learns from their scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from controller.allocators.base import no_models
from controller.allocators.video.agent import Agent
from controller.allocators.video.allocator import (
    LEAST_PRB,
    MAX_ARRIVED,
    MAX_PENDING,
    USUAL_KBPS,
    VideoAllocator,
)
from controller.allocators.video.learning import handed_over
from controller.allocators.video.options import VideoOptions
from controller.core.decision import Grant
from controller.core.fits import Fit
from controller.core.measure import Lever, Reason
from controller.handover import MAX_STATE_BYTES
from tests.allocators.video.viewers import (
    COMBINED,
    PRB,
    QUALITY,
    STALLS,
    Cell,
    allocator,
    history,
    mos_of,
)
from wire.definitions import mos
from wire.definitions.viewing import Viewer

FOUR = (STALLS, QUALITY, COMBINED, QUALITY)
QUICK: Mapping[str, Any] = {"window_min": 3, "recurrent": False}
NOTHING = Grant(0, 0, 0, "cut", "cut")


def whys(demand: Any) -> dict[str, str]:
    return {c.user or c.lever.value: c.why for c in demand.choices}


@pytest.fixture(scope="module")
def learned() -> tuple[Cell, VideoAllocator]:
    """Ten minutes of four viewers."""
    cell, a = Cell.of(*FOUR), allocator(**QUICK)
    cell.played = cell.play(a, 60)  # type: ignore[attr-defined]
    return cell, a


def go_on(learned: tuple[Cell, VideoAllocator], **options: Any) -> tuple[Cell, VideoAllocator]:
    """A copy of both."""
    cell, a = learned
    copy = replace(cell, models=dict(cell.models), fits=list(cell.fits), since=dict(cell.since))
    other = allocator(**{**QUICK, **options})
    other.load_state(json.loads(json.dumps(a.to_state())), cell.models.__getitem__)
    return copy, other


def test_what_agents_learn_keeps_agreements(learned: tuple[Cell, VideoAllocator]) -> None:
    cell, _ = learned
    played = cell.played  # type: ignore[attr-defined]
    kept = [o.met for o, _, _ in played if o.met is not None]
    assert len(kept) >= 10 and np.mean(kept) >= 0.8
    assert all(mos_of(played, f) >= cell.viewers[f].ela - 0.2 for f in ("u1", "u3"))
    first, last = played[0], played[-1]
    assert whys(first[1])["dl"] == "the usual, until agents have learned"
    assert "own model quality" in whys(last[1])["u1"]
    assert last[1].dl.prb < PRB and not last[1].dl.prb < last[1].dl.floor


def test_nobody_there_takes_the_least() -> None:
    a, cell = allocator(), Cell.of()
    (outcome, demand, settings), *_ = cell.play(a, 2)
    assert (demand.ul.prb, demand.dl.prb) == (LEAST_PRB, LEAST_PRB) and settings == {}
    assert outcome.met is None and not outcome.busy and cell.jobs == []


def test_silence_gives_all_prbs_and_ends() -> None:
    a, cell = allocator(**QUICK), Cell.of(*FOUR, silent=frozenset(f"u{i}" for i in range(4)))
    outcome, demand, _ = cell.play(a, 6)[-1]
    assert demand.dl.prb == PRB and whys(demand)["dl"] == "no user rates what it sees: all there is"
    assert outcome.busy and outcome.unattributed[Lever.DL] is Reason.PROMISE_NOT_KNOWN
    cell.silent = frozenset(("u0",))
    outcome, demand, _ = cell.play(a, 2)[-1]
    assert "all there is" not in whys(demand)["dl"] and Lever.DL not in outcome.unattributed


@pytest.mark.parametrize("prb", [0, 1, 8, 40, PRB])
@pytest.mark.parametrize("orchestration", ["convex", "grouped"])
def test_settings_fit_every_grant(learned: tuple[Cell, VideoAllocator], orchestration: str, prb: int) -> None:
    cell, a = go_on(learned, orchestration=orchestration)
    seen = cell.view()
    a.learn(seen)
    a.demand(seen)
    settings = a.settle(seen, Grant(10, prb, 0, "", "cut"))
    assert set(settings) == set(cell.viewers)
    assert all(s["bitrate_kbps"][0] in mos.BITRATES_KBPS for s in settings.values())
    assert all(s["prefetch"][0] in range(5) and 0.0 < s["edge_ghz"][0] <= 10.0 for s in settings.values())
    assert sum(s["edge_ghz"][0] for s in settings.values()) <= 10.0 + 4 * 0.01
    if prb == 0:
        assert all(s["bitrate_kbps"][0] == mos.BITRATES_KBPS[0] for s in settings.values())


def test_more_prbs_promise_no_less(learned: tuple[Cell, VideoAllocator]) -> None:
    totals = []
    for prb in (5, 20, 60, PRB):
        cell, a = go_on(learned, explore=0.0)
        seen = cell.view()
        a.learn(seen)
        a.demand(seen)
        a.settle(seen, Grant(10, prb, 0, "", "cut"))
        totals.append([p[3] for p in a.to_state()["promises"].values()])
    assert all((np.array(b) >= np.array(a) - 0.3).all() for a, b in pairwise(totals))
    assert sum(totals[-1]) > sum(totals[0])


def test_a_starved_slice_does_not_learn_to_want_nothing() -> None:
    a, cell = allocator(**QUICK), Cell.of(*FOUR)
    cell.play(a, 40, Grant(10, 8, 0, "cut", "cut"))
    played = cell.play(a, 56)
    assert all(demand.dl.prb > 50 for _, demand, _ in played)
    assert mos_of(played, "u1") >= QUALITY.ela - 0.3 and mos_of(played, "u3") >= QUALITY.ela - 0.3


def test_after_an_outage_all_is_as_before(learned: tuple[Cell, VideoAllocator]) -> None:
    cell, a = go_on(learned)
    before = cell.play(a, 6)[-1][1].dl.prb
    cell.radio = 0.0
    out = cell.play(a, 24)
    assert mos_of(out, "u0") < 2.0
    cell.radio = 1.0
    played = cell.play(a, 40)
    assert all(demand.dl.prb >= 0.6 * before for _, demand, _ in played)
    assert all(mos_of(played, f) >= cell.viewers[f].ela - 0.5 for f in ("u0", "u1", "u3"))


def test_users_who_get_no_segment_at_all_are_heard(learned: tuple[Cell, VideoAllocator]) -> None:
    """Without a segment there is no rate of fetching to learn from."""
    cell, a = go_on(learned)
    cell.radio = 0.0
    low = a.to_state()["stretch"]
    cell.play(a, 12)
    assert a.to_state()["stretch"] > 1.5 * low


def test_an_agreement_that_nobody_can_keep_is_not_promised() -> None:
    hard = Viewer(5.0, "combined", "linear", (0.2, 0.2))
    a, cell = allocator(**QUICK), Cell.of(hard, hard)
    played = cell.play(a, 36)
    outcome, demand, _ = played[-1]
    assert outcome.counts["promises"] == 0 and outcome.counts["out_of_reach"] == 2
    assert "of 0 of 2 users" in whys(demand)["dl"] and 0 < demand.dl.prb <= PRB
    assert mos_of(played, "u0") > 2.0


def test_a_user_who_leaves_and_comes_with_its_agent(learned: tuple[Cell, VideoAllocator]) -> None:
    cell, a = go_on(learned)
    state = json.loads(json.dumps(a.hand_over("u1")))
    assert len(json.dumps(state)) < MAX_STATE_BYTES
    assert a.hand_over("nobody") is None
    del cell.viewers["u1"]
    left = cell.play(a, 2)[-1]
    assert "u1" not in left[2] and "u1" not in left[0].users
    # In another cell, in the middle of its slice window; and the same user without an agent.
    found = {}
    for agent in (state, None):
        there, b = Cell.of(STALLS, seed=3), allocator(**QUICK)
        there.play(b, 12)
        window = b.to_state()["window"]
        there.viewers["u1"] = QUALITY
        there.arrivals = {"u1": agent} if agent else {}
        first = there.step(b)
        assert "u1" in first[2] and b.to_state()["window"] == window
        found[agent is None] = there.play(b, 2)[-1][1]
    assert "own model quality" in whys(found[False])["u1"]
    assert "quality" not in whys(found[True])["u1"]


@pytest.mark.parametrize("wrong", [{}, {"user": 3}, {"seen": "many"}, {"history": ["", ""]}, {"ela": 77.0}])
def test_an_agent_that_cannot_be_is_left_out(
    learned: tuple[Cell, VideoAllocator], wrong: dict[str, Any]
) -> None:
    state = learned[1].hand_over("u1")
    assert state is not None
    there, b = Cell.of(STALLS), allocator(**QUICK)
    there.viewers["u1"] = QUALITY
    there.arrivals = {"u1": {**state, **wrong} if wrong else {}}
    there.play(b, 3)
    kept = b.to_state()["arrived"] or {"u1": None}
    assert "user" in wrong or kept == {"u1": None}
    assert all(not f.error for f in there.fits)


def test_no_more_arrivals_wait_than_there_is_room_for(learned: tuple[Cell, VideoAllocator]) -> None:
    state = learned[1].hand_over("u1")
    assert state is not None
    a, cell = allocator(**QUICK), Cell.of(*[QUALITY] * 9)
    seen = cell.view(arrivals={f"u{i}": state for i in range(9)})
    a.learn(seen)
    arrived = a.to_state()["arrived"]
    assert list(arrived) == [f"u{i}" for i in range(9 - MAX_ARRIVED, 9)]
    assert all(s["user"] == flow for flow, s in arrived.items())


def test_a_failed_fit_loses_no_rating() -> None:
    a, cell = allocator(**QUICK), Cell.of(*FOUR)
    cell.play(a, 3)
    cell.play(a, 5)
    while not a.to_state()["pending"]:
        cell.step(a)
    pending = a.to_state()["rows_of"]
    key = a.to_state()["pending"]
    cell.fits = [Fit("video", key, "", "killed: it took longer than 1 s")]
    _, demand, _ = cell.step(a)
    assert len(a.to_state()["rows_of"]) == len(pending) + 4
    assert "the last fit failed: killed" in whys(demand)["dl"]
    cell.play(a, 7)
    assert "failed" not in whys(cell.step(a)[1])["dl"]
    assert len(a.to_state()["rows_of"]) < len(pending) + 4
    seen = sum(len(r) for r in cell.jobs[-1].arguments["rows"].values())
    assert seen >= len(pending)


def test_a_fit_that_is_lost_is_asked_for_again() -> None:
    a, cell = allocator(**QUICK), Cell.of(*FOUR)
    cell.play(a, 2)
    first = len(cell.jobs)
    for _ in range(14):
        cell.fits = []
        cell.step(a)
    assert len(cell.jobs) == first + 1
    assert cell.jobs[-1].key != cell.jobs[first - 1].key


def test_restarted_in_the_middle_it_goes_on_as_if_not() -> None:
    results = []
    for restart in (None, 7, 13):
        a, cell = allocator(**QUICK), Cell.of(*FOUR)
        out: list[Any] = []
        for slot in range(20):
            if slot == restart:
                state = json.loads(json.dumps(a.to_state()))
                a = allocator(**QUICK)
                a.load_state(state, cell.models.__getitem__)
            out.append(cell.step(a))
        results.append((out, a.to_state()))
    assert results[0] == results[1] == results[2]


def test_a_state_that_cannot_be_is_refused_and_changes_nothing(learned: tuple[Cell, VideoAllocator]) -> None:
    cell, a = learned
    good = a.to_state()
    b = allocator(**QUICK)
    before = b.to_state()
    with pytest.raises(KeyError):
        b.load_state(good, no_models)
    for change in (
        {"stretch": 99.0}, {"radio": {"ue-0": -1.0}}, {"context": {"u0": [9.0, 1.0]}}, {"rows": ["", ""]},
        {"window": [1]}, {"slice_window": {"moves": 99, "streak": 0}}, {"promises": {"u0": [1.0]}},
    ):  # fmt: skip
        with pytest.raises((ValueError, KeyError, TypeError)):
            b.load_state({**good, **change}, cell.models.__getitem__)
        assert b.to_state() == before


def test_the_state_of_64_users_with_all_that_waits_is_small() -> None:
    a, cell = allocator(**QUICK), Cell.of(*[FOUR[i % 4] for i in range(64)])
    agent = history(QUALITY, 240)
    came = Agent("u0", 3.5)
    came.observe(agent)
    for slot in range(20):
        cell.arrivals = {f"u{slot % 64}": {**handed_over(came), "seen": 10**6}}
        seen = cell.view()
        a.learn(seen)
        demand = a.demand(seen)
        cell.granted = Grant(demand.ul.prb, demand.dl.prb, 0)
        cell.settings = a.settle(seen, cell.granted)
    state = a.to_state()
    assert len(state["rows_of"]) == MAX_PENDING and len(state["arrived"]) == MAX_ARRIVED
    assert len(json.dumps(state)) < 65_536


def test_decisions_do_not_depend_on_the_order_of_rows() -> None:
    played = []
    for reverse in (False, True):
        a, cell = allocator(**QUICK), Cell.of(*FOUR, reverse=reverse)
        played.append([(d, s, o.met) for o, d, s in cell.play(a, 20)])
    for (d, s, met), (e, t, other) in zip(*played, strict=True):
        assert (d.dl, d.ul, met) == (e.dl, e.ul, other) and s == t


def test_the_context_of_a_slot_of_another_clock_does_not_stop_learning() -> None:
    a, cell = allocator(**QUICK), Cell.of(*FOUR)
    cell.play(a, 8)
    cell.slot -= 6
    cell.play(a, 8)
    assert all(not f.error for f in cell.fits) and a.to_state()["agents"]
    cell.slot += 10**6
    cell.play(a, 8)
    assert all(not f.error for f in cell.fits) and "failed" not in whys(cell.step(a)[1])["dl"]


@pytest.mark.parametrize(
    "change",
    [
        {"ela": 2.0}, {"users": 1.0}, {"reliability": 0.5}, {"models": "general"}, {"edge_ghz": 0.5},
        {"orchestration": "grouped"}, {"window_min": 15}, {"window_min": 0}, {"reserve": False},
        {"explore": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_an_operator_sets_each_option(learned: tuple[Cell, VideoAllocator], change: dict[str, Any]) -> None:
    cell, a = go_on(learned)
    before = cell.step(a)[1]
    a.set(VideoOptions(**{**QUICK, **change}))
    played = cell.play(a, 8)
    assert all(0 < d.dl.prb <= PRB and set(s) == set(cell.viewers) for _, d, s in played)
    _, demand, settings = played[-1]
    match change:
        case {"reserve": False}:
            assert demand.reserved == (0, 0)
        case {"edge_ghz": ghz}:
            assert sum(s["edge_ghz"][0] for s in settings.values()) <= ghz + 0.04
        case {"models": "general"}:
            assert (
                len({c.action for c in demand.choices if c.user})
                <= 2
                < len({c.action for c in before.choices})
            )
        case {"window_min": _}:
            # The window goes on; agents know what they ask for in it all the time.
            assert demand.dl.prb != 0 and all(c.action != USUAL_KBPS for c in demand.choices if c.user)
        case {"explore": 1.0}:
            assert not any(p[6] for p in a.to_state()["promises"].values())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("models", "mine"), ("ela", 0.5), ("ela", 5.5), ("users", 0.0), ("users", 1.5), ("reliability", 1.0),
        ("reliability", 0.0),
        ("edge_ghz", 0.0), ("orchestration", "magic"), ("window_min", 5),
        ("learn_every_s", 1.0), ("explore", 1.5), ("explore", float("nan")), ("ela", "3"), ("elas", 3.0),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        VideoOptions(**{option: value})


def test_a_user_who_comes_ends_the_slot_early(learned: tuple[Cell, VideoAllocator]) -> None:
    cell, a = go_on(learned)
    cell.step(a)
    seen = cell.view()
    assert a.early(seen) == ""
    cell.viewers["u9"] = STALLS
    assert a.early(cell.view()) == "a user came"
    assert a.early(replace(cell.view(), granted=None)) == ""


def test_a_grant_of_nothing_for_long_does_no_harm(learned: tuple[Cell, VideoAllocator]) -> None:
    cell, a = go_on(learned)
    played = cell.play(a, 6, NOTHING)
    assert all(d.dl.prb > 0 and s for _, d, s in played)
    assert cell.play(a, 1)[0][1].dl.prb > 40


def test_promises_that_are_broken_make_later_ones_rarer(learned: tuple[Cell, VideoAllocator]) -> None:
    cell, a = go_on(learned)
    before = a.to_state()["margin"]
    # Nobody's model knows it: from now on all are harder to please.
    cell.viewers = {f: replace(v, weights=(0.9, 0.9)) for f, v in cell.viewers.items()}
    played = cell.play(a, 8)
    kept, given = (sum(o.counts[name] for o, _, _ in played) for name in ("promises_kept", "promises"))
    assert given and kept < 0.8 * given
    assert a.to_state()["margin"] > before
