"""QoS of a control slot from frame timestamps."""

from __future__ import annotations

import doctest
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from controller.allocators.ar import delays
from controller.allocators.ar.budgets import Budgets
from controller.allocators.ar.delays import HOPS, Metric, delivery_ratio
from controller.allocators.base import SliceView
from controller.core.measure import Measure, Outcome
from controller.core.observation import Flow, Frames, Observation

MS = 1_000_000
T0 = 1_700_000_000_000_000_000
SLOT_MS = 5000.0
BUDGETS = Budgets(70, 20, 60)

Row = tuple[
    Any, ...
]  # flow index, sent, edge received, edge sent, received (ms of the slot, None unknown) [, sync]


def frames(rows: Sequence[Row]) -> Frames:
    def at(column: int) -> Any:
        return np.array([0 if r[column] is None else T0 + round(r[column] * MS) for r in rows], np.int64)

    return Frames(
        np.array([r[0] for r in rows], np.int64),
        np.arange(len(rows), dtype=np.int64),
        at(1),
        at(2),
        at(3),
        at(4),
        np.array([r[5] if len(r) > 5 else True for r in rows], np.bool_),
    )


def flow(name: str, start_ms: float = -60_000, stop_ms: float | None = None, slice_id: str = "ar") -> Flow:
    stop = 0 if stop_ms is None else T0 + round(stop_ms * MS)
    return Flow(name, "ue1", slice_id, 3e6, 1e6, T0 + round(start_ms * MS), stop)


def observe(rows: Sequence[Row], flows: Sequence[Flow] | None = None, **more: Any) -> Observation:
    return Observation(
        7,
        T0,
        T0 + round(SLOT_MS * MS),
        flows=tuple(flows if flows is not None else [flow("a")]),
        frames=frames(rows),
        **more,
    )


def judge(rows: Sequence[Row], flows: Sequence[Flow] | None = None, **options: Any) -> Outcome:
    return judged(observe(rows, flows), **options)


def judged(observation: Observation, *, guard_ms: float = 200.0, **options: Any) -> Outcome:
    view = SliceView.of(observation, "ar", guard_ms=guard_ms)
    return delays.judge(view, options.pop("budgets", BUDGETS), **options)


def good(flow_index: int = 0, sent: float = 1000.0, ul: float = 40, edge: float = 15, dl: float = 30) -> Row:
    return (flow_index, sent, sent + ul, sent + ul + edge, sent + ul + edge + dl)


def bits(result: Outcome) -> list[int | None]:
    """q of ul, edge, dl and the round trip."""
    return [result.measure(hop.value).met for hop in HOPS] + [result.met]


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(delays).failed == 0


def test_delays_of_each_hop_and_the_round_trip() -> None:
    got = judge([good(ul=40, edge=15, dl=30), good(sent=2000, ul=60, edge=5, dl=50)])
    assert bits(got) == [1, 1, 1, 1]
    assert [got.measure(hop.value).values for hop in HOPS] == [(50.0,), (10.0,), (40.0,)]
    assert got.measure("round_trip").values == (100.0,)
    assert got.measure("round_trip").samples == got.measure("ul").samples == 2
    assert (got.busy, got.users, got.counts["late_frames"], got.counts["negative_delays"]) == (
        True,
        ("a",),
        0,
        0,
    )
    assert [got.measure(hop.value).targets for hop in HOPS] == [(70,), (20,), (60,)]


def test_a_budget_is_met_at_equality() -> None:
    assert bits(judge([good(ul=70, edge=20, dl=60)])) == [1, 1, 1, 1]
    assert bits(judge([good(ul=70.1, edge=20, dl=59.9)])) == [0, 1, 1, 1]
    assert bits(judge([good(ul=10, edge=20.1, dl=10)])) == [1, 0, 1, 1]
    assert bits(judge([good(ul=70, edge=20, dl=60.1)])) == [1, 1, 0, 0]


def test_the_round_trip_budget_may_differ_from_the_sum() -> None:
    rows = [good(ul=60, edge=15, dl=50)]
    assert judge(rows, budgets=Budgets(70, 20, 60, 120)).met == 0
    assert judge(rows, budgets=Budgets(70, 20, 60, 130)).met == 1


def test_every_active_flow_must_meet_the_budget() -> None:
    flows = [flow("a"), flow("b")]
    slow = good(1, ul=100, edge=10, dl=20)
    got = judge([good(0), slow], flows)
    assert bits(got) == [0, 1, 1, 1]
    assert got.measure("ul").values == (40.0, 100.0)
    assert bits(judge([good(0), good(1)], flows)) == [1, 1, 1, 1]


def test_flows_of_another_slice_do_not_count() -> None:
    flows = [flow("other", slice_id="vr"), flow("a")]
    got = judge([good(0, ul=400), good(1)], flows)
    assert bits(got) == [1, 1, 1, 1]
    assert got.users == ("a",)
    assert got.measure("round_trip").samples == 1


def test_no_active_flow_is_met_but_not_busy() -> None:
    for flows in ([], [flow("a", slice_id="vr")], [flow("a", stop_ms=-10)], [flow("a", stop_ms=150)]):
        got = judge([], flows)
        assert bits(got) == [1, 1, 1, 1]
        assert not got.busy
        assert got.users == ()


def test_an_active_flow_without_frames_violates() -> None:
    got = judge([good(0)], [flow("a"), flow("silent")])
    assert bits(got) == [0, 0, 0, 0]
    assert got.measure("round_trip").values == (85.0, None)


def test_a_flow_that_was_hardly_active_is_not_judged_without_frames() -> None:
    # The round-trip budget is 150 ms: 149 ms of activity prove nothing, 150 ms do.
    just_started = [flow("a"), flow("new", start_ms=SLOT_MS - 149)]
    got = judge([good(0)], just_started)
    assert bits(got) == [1, 1, 1, 1]
    assert got.users == ("a",)
    assert bits(judge([good(0)], [flow("a"), flow("new", start_ms=SLOT_MS - 150)])) == [0, 0, 0, 0]
    # The guard is not activity.
    assert bits(judge([good(0)], [flow("a"), flow("old", stop_ms=200 + 149)])) == [1, 1, 1, 1]
    assert bits(judge([good(0)], [flow("a"), flow("old", stop_ms=200 + 150)])) == [0, 0, 0, 0]
    # With a frame it is judged however short.
    late = good(1, sent=SLOT_MS - 140, ul=100, edge=10, dl=20)
    assert bits(judge([good(0), late], just_started)) == [0, 1, 1, 1]
    # Alone, it leaves the slot idle.
    alone = judge([], [flow("new", start_ms=SLOT_MS - 100)])
    assert (bits(alone), alone.busy) == ([1, 1, 1, 1], False)


def test_frames_outside_the_window_do_not_count() -> None:
    early, last, after = good(sent=199.9, ul=400), good(sent=4999, ul=1), good(sent=5000, ul=400)
    got = judge([early, good(sent=200), last, after])
    assert bits(got) == [1, 1, 1, 1]
    assert got.measure("round_trip").samples == 2
    assert judge([early, good()], guard_ms=100).measure("round_trip").samples == 2
    assert judge([early, good()], guard_ms=100).met == 0


def test_a_frame_that_never_returns_counts_at_its_age() -> None:
    got = judge([(0, 1000, None, None, None)])
    assert got.measure("round_trip").values == (4000.0,)
    assert got.measure("ul").values == (4000.0,)
    assert [got.measure(hop.value).samples for hop in HOPS] == [1, 0, 0]
    assert bits(got) == [0, 0, 0, 0]
    assert got.counts["late_frames"] == 1


def test_a_late_frame_counts_at_its_age_in_the_hop_that_it_is_in() -> None:
    in_edge = judge([good(), (0, 4000, 4030, None, None)])
    assert in_edge.measure("ul").values == (35.0,)
    assert in_edge.measure("edge").values == ((15 + 970) / 2,)
    assert in_edge.measure("dl").values == (30.0,)
    assert bits(in_edge) == [1, 0, 1, 0]
    in_dl = judge([good(), (0, 4000, 4030, 4050, None)])
    assert in_dl.measure("edge").values == (17.5,)
    assert in_dl.measure("dl").values == ((30 + 950) / 2,)
    assert bits(in_dl) == [1, 1, 0, 0]


def test_without_late_frames_only_those_with_four_times_count() -> None:
    """As the MUCB1 authors' code judges: what is still under way is held against nobody."""
    under_way = [(0, 1000, None, None, None), (0, 1000, 1500, None, None), (0, 1000, 1500, 1510, None)]
    assert bits(judge([good(), *under_way])) == [0, 0, 0, 0]
    got = judge([good(), *under_way, (0, 1000, None, 1900, 1990)], late=False)
    assert bits(got) == [1, 1, 1, 1]
    assert [got.measure(m).samples for m in delays.MEASURES] == [1, 1, 1, 1]
    assert got.counts["late_frames"] == 0
    assert bits(judge(under_way, late=False)) == [0, 0, 0, 0]  # an active flow without a frame to count


def test_a_young_frame_is_left_out_of_everything() -> None:
    got = judge([good(), (0, SLOT_MS - 150, SLOT_MS - 10, None, None)])
    assert got.measure("round_trip").samples == got.measure("ul").samples == 1
    assert got.counts["late_frames"] == 0
    older = judge([good(), (0, SLOT_MS - 150.1, SLOT_MS - 10, None, None)])
    assert older.measure("ul").samples == 2
    assert older.counts["late_frames"] == 1


def test_a_hop_that_a_frame_entered_after_the_close_is_left_out() -> None:
    got = judge([good(), (0, 4000, 4030, SLOT_MS + 20, None)])
    assert got.measure("edge").values == ((15 + 990) / 2,)
    assert got.measure("dl").samples == 1
    assert got.counts["negative_delays"] == 0


def test_missing_times_in_the_middle_leave_what_can_be_computed() -> None:
    no_edge = judge([(0, 1000, None, None, 1090)])
    assert bits(no_edge) == [None, None, None, 1]
    assert no_edge.measure("round_trip").values == (90.0,)
    one_edge_time = judge([(0, 1000, None, 1050, 1090)])
    assert bits(one_edge_time) == [None, None, 1, 1]
    assert one_edge_time.measure("dl").values == (40.0,)
    not_back = judge([(0, 1000, None, 1050, None)])
    assert bits(not_back) == [None, None, 0, 0]
    assert not_back.measure("dl").values == (3950.0,)
    with_others = judge([good(), (0, 1000, None, None, 1090)])
    assert bits(with_others) == [1, 1, 1, 1]
    assert [with_others.measure(hop.value).samples for hop in HOPS] == [1, 1, 1]


def test_unsynchronised_frames_count_for_the_round_trip_alone() -> None:
    rows = [(*good(), False), (*good(sent=2000, ul=1000), False)]
    got = judge(rows)
    assert bits(got) == [None, None, None, 0]
    assert got.measure("round_trip").samples == 2
    assert got.counts["unsynchronised_frames"] == 2
    assert all(got.measure(hop.value).samples == 0 for hop in HOPS)
    assert bits(judge([(0, 1000, None, None, None, False)])) == [None, None, None, 0]
    mixed = judge([good(), *rows])
    assert bits(mixed)[:3] == [1, 1, 1]
    assert mixed.measure("ul").values == (40.0,)


def test_unsynchronised_clocks_are_not_negative_delays() -> None:
    assert judge([(0, 1000, 900, 910, 1090, False)]).counts["negative_delays"] == 0


def test_a_hop_is_unknown_only_while_no_flow_violates_it() -> None:
    flows = [flow("a"), flow("b")]
    blind = (1, 1000, 1040, 1055, 1085, False)
    assert bits(judge([good(0), blind], flows)) == [None, None, None, 1]
    assert bits(judge([good(0, ul=90), blind], flows)) == [0, None, None, 1]


def test_a_flow_whose_frames_are_all_refused_is_not_known_and_one_without_any_is_not_met() -> None:
    flows = [flow("a"), flow("b")]
    rows = [good(0)]
    assert bits(judge(rows, flows)) == [0] * 4
    refused = observe(rows, flows, clock_faults={"b": "h: frames of it are refused"})
    assert bits(judged(refused)) == [None] * 4


def test_negative_delays_are_counted_and_not_used() -> None:
    backwards = (0, 1000, 990, 1005, 1035)
    got = judge([backwards])
    assert got.counts["negative_delays"] == 1
    assert bits(got) == [None, 1, None, 1]
    assert got.measure("ul").samples == got.measure("dl").samples == 0
    with_good = judge([good(), backwards])
    assert with_good.measure("ul").values == (40.0,)
    assert with_good.measure("edge").samples == 2
    assert with_good.counts["negative_delays"] == 1


@pytest.mark.parametrize("off_ms", [3_600_000, 200, -3_600_000, -200])
def test_a_clock_of_the_edge_that_is_off_is_held_against_no_radio_hop(off_ms: int) -> None:
    off = (0, 1000, 1020 + off_ms, 1030 + off_ms, 1060)
    assert bits(judge([off])) == [None, 1, None, 1]
    assert bits(judge([off, good()])) == [1, 1, 1, 1]


def test_a_negative_round_trip_is_counted_and_not_used() -> None:
    got = judge([(0, 1000, None, None, 900)])
    assert got.measure("round_trip") == Measure("round_trip", "ms", "lower", (None,), (150.0,), None, 0)
    assert got.counts["negative_delays"] == 1
    assert judge([(0, 1000, None, None, 900), good()]).measure("round_trip").values == (85.0,)


@pytest.mark.parametrize("percentile", [50.0, 90.0, 95.0, 100.0])
def test_percentiles_of_each_flow(percentile: float) -> None:
    rng = np.random.default_rng(3)
    rows = [
        good(
            int(rng.integers(0, 3)),
            sent=float(s),
            ul=float(rng.integers(5, 90)),
            dl=float(rng.integers(5, 90)),
        )
        for s in rng.integers(300, 4500, 200)
    ]
    flows = [flow("a"), flow("b"), flow("c"), flow("silent")]
    got = judge(rows, flows, metric=Metric(percentile))
    for hop, start in (("ul", 1), ("dl", 3)):
        want = [
            np.percentile([r[start + 1] - r[start] for r in rows if r[0] == i], percentile) for i in range(3)
        ]
        assert got.measure(hop).values[:3] == pytest.approx(want)
        assert got.measure(hop).values[3] is None
    assert judge([], metric=Metric(percentile)).met == 0


def test_a_percentile_violates_where_the_mean_does_not() -> None:
    rows = [good(sent=300 + 10 * i, ul=10) for i in range(80)] + [
        good(sent=2000 + i, ul=200) for i in range(20)
    ]
    assert judge(rows).measure("ul").met == 1
    assert judge(rows, metric=Metric.parse("p90")).measure("ul").met == 0


def test_against_a_frame_by_frame_reading_of_the_rules() -> None:
    rng = np.random.default_rng(11)
    for _ in range(150):
        flows = [flow("a"), flow("b"), flow("c", slice_id="vr")]
        rows: list[Row] = []
        for _ in range(int(rng.integers(0, 40))):
            stamps = np.cumsum([rng.uniform(0, 5200), *rng.uniform(-3, 150, 3)])
            known = [stamps[0]] + [None if rng.random() < 0.15 else t for t in stamps[1:]]
            reached = int(rng.integers(1, 5)) if rng.random() < 0.4 else 4
            rows.append(
                (int(rng.integers(0, 3)), *known[:reached], *[None] * (4 - reached), rng.random() < 0.8)
            )
        got = judge(rows, flows)
        legs = {hop: {"a": ([], []), "b": ([], [])} for hop in (*HOPS, "round")}  # delays, unknown frames
        negative = 0
        for index, *times, synchronised in rows:
            sent, back = times[0], times[3]
            if index == 2 or not 200 <= sent < SLOT_MS or (back is None and SLOT_MS - sent <= 150):
                continue
            last = max(i for i in range(4) if times[i] is not None)
            for k, leg in enumerate((*HOPS, "round")):
                delays, unknown = legs[leg]["ab"[index]]
                start, end = (sent, back) if leg == "round" else (times[k], times[k + 1])
                at_edge = [t for t in times[1:3] if t is not None]
                off = any(t < sent or (back is not None and t > back) for t in at_edge)
                if leg != "round" and not synchronised:
                    unknown.append(1)
                elif start is not None and end is not None:
                    usable = end >= start and not (off and leg in ("ul", "dl"))
                    (delays if usable else unknown).append(end - start)
                    negative += end < start
                elif leg == "round" or last == k:
                    if start < SLOT_MS and not (off and leg in ("ul", "dl")):
                        delays.append(SLOT_MS - start)
                elif last > k:
                    unknown.append(1)
        for leg, budget in zip((*HOPS, "round"), (70, 20, 60, 150), strict=True):
            q: int | None = 1
            for delays, unknown in legs[leg].values():
                one = (np.mean(delays) <= budget) if delays else None if unknown else False
                q = 0 if q == 0 or one is False or one == 0 else None if q is None or one is None else 1
            part = got.measure("round_trip" if leg == "round" else leg)
            assert part.met == q, (leg, rows)
            want = [np.mean(d) if d else None for d, _ in legs[leg].values()]
            assert list(part.values) == [None if w is None else pytest.approx(w, abs=1e-4) for w in want]
            assert part.samples == sum(len(d) for d, _ in legs[leg].values())
        assert got.counts["negative_delays"] == negative


def test_a_guard_that_leaves_no_window_teaches_nothing() -> None:
    got = judge([good()], guard_ms=SLOT_MS)
    assert bits(got) == [None] * 4
    assert got.busy
    assert bits(judge([], [], guard_ms=SLOT_MS)) == [1] * 4


def test_a_frame_of_no_known_flow_is_an_error_that_says_where() -> None:
    for index in (1, -1):
        with pytest.raises(ValueError, match=r"control slot 7.*1 flows"):
            judge([good(), good(index)])
    with pytest.raises(ValueError, match="guard -1"):
        judge([], guard_ms=-1)


def test_the_record_is_plain_json() -> None:
    flows = [flow("a", stop_ms=1500), flow("a", start_ms=1600), flow("silent")]
    got = judge([good(0), good(1, sent=2000, ul=50)], flows)
    record = json.loads(json.dumps(got.to_record()))
    assert (record["users"], record["busy"], record["met"]) == (3, True, 0)
    common = {"unit": "ms", "better": "lower", "met": 0, "samples": 2}
    assert record["measures"]["ul"] == {**common, "users": {"a": [50.0, 70.0]}}
    assert record["measures"]["round_trip"] == {**common, "users": {"a": [95.0, 150.0]}}
    assert list(record["measures"]) == ["round_trip", "ul", "edge", "dl"]
    assert record["counts"] == {"late_frames": 0, "unsynchronised_frames": 0, "negative_delays": 0}


def test_metrics_by_name() -> None:
    assert Metric.parse("mean") == Metric()
    assert Metric.parse("p90") == Metric(90.0)
    assert Metric.parse("p99.9") == Metric(99.9)
    for metric in (Metric(), Metric(90), Metric(99.9)):
        assert Metric.parse(str(metric)) == metric
    for bad in ("p0", "p101", "pnan", "p", "median", "90", ""):
        with pytest.raises(ValueError, match=f"'{bad}'"):
            Metric.parse(bad)


def test_delivery_ratio() -> None:
    assert delivery_ratio([1, 1, 0, 1]) == 0.75
    assert delivery_ratio(iter([0])) == 0
    assert delivery_ratio([]) is None
    with pytest.raises(ValueError, match=r"slot 1 is 2"):
        delivery_ratio([1, 2])


def test_reasons_of_unsynchronised_frames_are_counted_by_flow() -> None:
    flows = [flow("a"), flow("b"), flow("c"), flow("d")]
    rows = [good(0), (*good(0, sent=2000), False), (*good(1), False), (*good(1, sent=2000), False)]
    rows += [good(2), good(3)]
    late = (2, 1500, None, None, None, False)
    faults = {"a": "x", "b": "y", "c": "x", "d": "w", "gone": "z"}
    seen = observe([*rows, late], flows, clock_faults=faults)
    got = judged(seen)
    assert got.faults == {"x": 2, "y": 2}
    assert got.counts["unsynchronised_frames"] == 4
    assert got.to_record()["faults"] == {"x": 2, "y": 2}
    # A reason that is not known is not made up, and an older record has none.
    assert judged(observe(rows, flows)).faults == {}
    assert "faults" not in judged(observe(rows, flows)).to_record()
