"""What came of a control slot, against counting by hand."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pytest

from controller.allocators.base import SliceView
from controller.allocators.vr.judge import Promise, judge, silent
from controller.allocators.vr.options import VrOptions
from controller.core.measure import Lever, Outcome, Reason
from controller.core.observation import Flow, Samples
from tests.allocators.vr.players import CARRIER, MS, SLOT_NS, T0, S, flow, reports
from wire.definitions import nr

BEGIN, END = T0 + 1_000 * MS, T0 + 5_000 * MS
"""Four seconds are judged."""
OPTIONS = VrOptions(on_time=0.75, users=0.75)


def rows(values: dict[int, list[Any]], at_ns: int = BEGIN + S) -> Samples:
    user = np.array([u for u, v in values.items() for _ in v], np.int64)
    data = np.array([row for v in values.values() for row in v], np.float32).reshape(-1, 5)
    return Samples(user, np.full(len(user), at_ns), data)


def frame(ms: float, rate: float = 30.0, quality: float = 2.0) -> tuple[float, ...]:
    return ms, rate, quality, 1e6, 1.0


def view(users: int | tuple[Flow, ...], **more: Any) -> SliceView:
    flows = tuple(flow(i) for i in range(users)) if isinstance(users, int) else users
    return SliceView("vr", 3, T0, T0 + SLOT_NS, BEGIN, END, **{"users": flows, **more})


def judged(v: SliceView, promised: set[int] | None = None, **more: Any) -> Outcome:
    """``promised``: to whom something was, in place of everybody."""
    some = {u.flow for i, u in enumerate(v.users) if promised is None or i in promised}
    return judge(v, OPTIONS, {f: Promise(60.0, 3.5, 12.0, **more) for f in some}, CARRIER, {})


def measure(outcome: Outcome, name: str) -> Any:
    return next(m for m in outcome.measures if m.name == name)


def test_six_measures_against_their_targets() -> None:
    # 90 of 120 frames within 1/60 s, with quality 2 the most of them; one never came.
    own = [frame(10.0, 60.0)] * 60 + [frame(15.0, 60.0, 4.0)] * 30 + [frame(20.0, 60.0)] * 29
    own += [frame(np.nan, 60.0)]
    outcome = judged(view(1, samples={"delivered": rows({0: own})}), changed=True)
    assert measure(outcome, "on_time").values == (0.75,) and outcome.met == 1
    quality = (60 * 2.0 + 30 * 4.0) / 90
    assert measure(outcome, "qoe").values[0] == pytest.approx(quality + log(90 / 4.0 / 30.0))
    assert measure(outcome, "frame_rate").values == (22.5,)
    assert measure(outcome, "latency").values[0] == pytest.approx((600 + 450 + 580) / 119)
    assert measure(outcome, "latency").targets == (1e3 / 60.0,)
    assert measure(outcome, "changes").values == (pytest.approx(12.0),)
    assert [measure(outcome, m).targets for m in ("qoe", "frame_rate", "dl_prb")] == [
        (3.5,),
        (60.0,),
        (12.0,),
    ]
    assert outcome.counts == {
        "promises": 1,
        "promises_kept": 1,
        "frames": 120,
        "frames_on_time": 90,
        "settings_changed": 1,
    }
    assert outcome.busy and outcome.promised and not outcome.faults


def test_a_frame_is_in_time_within_its_period_and_float32() -> None:
    just = np.nextafter(np.float32(1e3 / 90.0), np.float32(1e3))
    good = judged(view(1, samples={"delivered": rows({0: [frame(float(just), 90.0)]})}))
    late = judged(view(1, samples={"delivered": rows({0: [frame(1.01 * float(just), 90.0)]})}))
    assert measure(good, "on_time").values == (1.0,) and measure(late, "on_time").values == (0.0,)
    # Without a frame in time quality is nothing and the rate counts as 1 Hz.
    assert measure(late, "qoe").values == (pytest.approx(log(1.0 / 30.0)),)


def test_the_slice_keeps_its_promise_where_enough_users_have_it_kept() -> None:
    good, bad = [frame(10.0)] * 3 + [frame(40.0)], [frame(10.0)] * 2 + [frame(40.0)] * 2
    for kept, met in ((4, 1), (3, 1), (2, 0)):
        samples = {"delivered": rows({i: good if i < kept else bad for i in range(4)})}
        outcome = judged(view(4, samples=samples))
        assert outcome.met == met == measure(outcome, "on_time").met
        assert outcome.counts["promises_kept"] == kept
    # Who was promised nothing does not count, whatever came.
    outcome = judged(
        view(4, samples={"delivered": rows({i: good if i else bad for i in range(4)})}), {1, 2, 3}
    )
    assert outcome.met == 1 and outcome.counts["promises"] == 3
    outcome = judged(view(2, samples={"delivered": rows({0: good, 1: good})}), set())
    assert outcome.met is None and outcome.promised is False and outcome.busy


def test_without_rows_nothing_is_known() -> None:
    outcome = judged(view(2))
    assert outcome.met is None and not outcome.busy and outcome.promised
    assert all(
        v is None for m in ("on_time", "qoe", "latency", "frame_rate") for v in measure(outcome, m).values
    )
    assert judged(view(0)).users == ()


@pytest.mark.parametrize("at_ns", [BEGIN - 1, END])
def test_frames_of_outside_of_what_is_judged_do_not_count(at_ns: int) -> None:
    assert judged(view(1, samples={"delivered": rows({0: [frame(10.0)]}, at_ns)})).counts["frames"] == 0


def test_the_rate_is_of_the_time_in_which_a_user_was_there() -> None:
    users = (flow(0, stop_ns=BEGIN + S), Flow("late", "ue-1", "vr", 0.0, 0.0, END - 2 * S), flow(2))
    samples = {"delivered": rows({i: [frame(10.0)] * 30 for i in range(3)}, BEGIN + S)}
    assert measure(judged(view(users, samples=samples)), "frame_rate").values == (30.0, 15.0, 7.5)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (frame(-1.0), "latency below 0"),
        (frame(10.0, 0.0), "frame rate not above 0"),
        (frame(10.0, np.nan), "frame rate not above 0"),
        (frame(10.0, np.inf), "frame rate not above 0"),
        (frame(10.0, 30.0, -1.0), "quality not from 0"),
        (frame(10.0, 30.0, np.inf), "quality not from 0"),
        ((10.0, 30.0, 1.0, -5.0, 1.0), "pixels not from 0"),
        ((10.0, 30.0, 1.0, np.nan, 1.0), "pixels not from 0"),
    ],
)
def test_a_row_that_cannot_be_is_a_fault_and_nothing_else(row: Any, why: str) -> None:
    outcome = judged(view(2, samples={"delivered": rows({0: [row, frame(10.0)], 1: [row]})}))
    assert outcome.faults == {why: 2} and outcome.counts["frames"] == 1
    assert measure(outcome, "on_time").values == (1.0, None)


def test_prbs_that_a_user_had_are_of_downlink_slots() -> None:
    v = view(2, reports=reports(0, (20, 20), prb_slots=(40_000, 0)))
    dl_slots = 4e9 / nr.slot_ns(CARRIER.scs_khz) * CARRIER.tdd.share("dl", guard=CARRIER.guard)
    assert measure(judged(v), "dl_prb").values == (pytest.approx(40_000 / dl_slots), 0.0)
    assert measure(judged(view(2)), "dl_prb").values == (None, None)


def test_what_is_not_attributed_stays_so() -> None:
    reasons = {Lever.DL: Reason.ARBITER_CUT}
    assert judge(view(1), OPTIONS, {}, CARRIER, reasons).unattributed == reasons


def test_who_is_silent() -> None:
    users = tuple(flow(i) for i in range(4))
    settings = {"u2": {"frame_rate": (0.0,)}, "u1": {"frame_rate": (30.0,)}}
    v = view(users, samples={"delivered": rows({0: [frame(np.nan)]})}, settings=settings)
    assert silent(v) == {"u1", "u3"}, "of the third nothing is rendered"
    v = view((flow(0, stop_ns=BEGIN + S), Flow("new", "ue-1", "vr", 0.0, 0.0, BEGIN + 1)))
    assert silent(v) == frozenset(), "who was not there all the time may have had no frame"
