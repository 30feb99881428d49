from __future__ import annotations

import numpy as np
import pytest

from controller.core import collector as collector_module
from controller.core.clocks import ClockFault
from controller.core.collector import SlotCollector
from controller.core.observation import ClockReport, Flow
from tests.builders import MS, T0

S = 1_000 * MS


def flow(name: str = "f", slice_: str = "ar", start: int = T0) -> Flow:
    return Flow(name, "ue-1", slice_, 3e6, 1e6, start)


def rows(*frames: tuple[int, int, int, int, int]) -> np.ndarray:
    return np.array(frames, np.int64)


def close(c: SlotCollector, opened: int, closed: int, slot: int = 1, **more: object):
    return c.close(control_slot=slot, opened_ns=opened, closed_ns=closed, **more)  # type: ignore[arg-type]


def test_later_news_fill_in_what_was_not_known() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    c.frames("f", rows((1, T0 + 1, 0, 0, 0), (2, T0 + 2, 0, 0, 0)), True)
    c.frames("f", rows((1, T0 + 1, T0 + 5, T0 + 6, T0 + 9)), True)
    got = close(c, T0, T0 + S).frames
    assert got.sequence.tolist() == [1, 2]
    assert got.ue_received.tolist() == [T0 + 9, 0]
    assert got.edge_received.tolist() == [T0 + 5, 0]


def test_frames_of_two_flows_keep_their_flow() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow("a"))
    c.flow_start(flow("b"))
    c.frames("b", rows((1, T0 + 1, 0, 0, 0)), True)
    c.frames("a", rows((1, T0 + 2, 0, 0, 0)), False)
    obs = close(c, T0, T0 + S)
    by_flow = {
        obs.flows[i].flow: (sent, sync)
        for i, sent, sync in zip(
            obs.frames.flow, obs.frames.ue_sent.tolist(), obs.frames.synchronised.tolist(), strict=True
        )
    }
    assert by_flow == {"a": (T0 + 2, False), "b": (T0 + 1, True)}


def test_a_frame_belongs_to_the_slot_in_which_it_was_sent() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    c.frames("f", rows((1, T0 + 1, 0, 0, 0), (2, T0 + S + 1, 0, 0, 0)), True)
    assert close(c, T0, T0 + S).frames.sequence.tolist() == [1]
    c.frames("f", rows((1, T0 + 1, T0 + 2, T0 + 3, T0 + 4)), True)  # late news of a closed slot
    assert close(c, T0 + S, T0 + 2 * S, 2).frames.sequence.tolist() == [2]
    assert len(close(c, T0 + 2 * S, T0 + 3 * S, 3).frames) == 0


def test_a_flow_that_stopped_is_in_the_slot_it_stopped_in_and_not_in_the_next() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    c.flow_stop("f", T0 + S // 2)
    assert [f.stop_ns for f in close(c, T0, T0 + S).flows] == [T0 + S // 2]
    assert close(c, T0 + S, T0 + 2 * S, 2).flows == ()
    assert c.active_flows == 0


def test_late_news_of_a_stopped_flow_are_no_error() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    c.frames("f", rows((1, T0 + 1, 0, 0, 0)), True)
    c.flow_stop("f", T0 + 10)
    close(c, T0, T0 + S)
    c.frames("f", rows((1, T0 + 1, T0 + 2, T0 + 3, T0 + 4)), True)


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda c: c.flow_start(flow(slice_="nosuch")), "unknown slice 'nosuch'"),
        (lambda c: c.flow_stop("ghost", T0), "ghost: stopped, but never started"),
        (lambda c: c.frames("ghost", rows((1, T0, 0, 0, 0)), True), "ghost: frames, but it never started"),
    ],
)
def test_what_cannot_be_placed_is_refused_by_name(act, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        act(SlotCollector(["ar"]))


def test_a_full_collector_drops_the_oldest_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "MAX_FRAMES", 3)
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    for i in range(5):
        c.frames("f", rows((i, T0 + i + 1, 0, 0, 0)), True)
    assert c.frames_dropped == 2
    assert close(c, T0, T0 + S).frames.sequence.tolist() == [2, 3, 4]


def test_too_many_flows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "MAX_CELL_FLOWS", 1)
    c = SlotCollector(["ar"])
    c.flow_start(flow("a"))
    c.flow_start(flow("a"))
    with pytest.raises(ValueError, match="more than 1 flows"):
        c.flow_start(flow("b"))


def test_for_want_of_room_the_flow_that_stopped_first_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "MAX_CELL_FLOWS", 3)
    c = SlotCollector(["ar"])
    for name in ("a", "b", "c"):
        c.flow_start(flow(name))
        c.frames(name, rows((1, T0 + 1, 0, 0, 0)), True, T0 + 2 * MS)
        c.samples(name, "pose", np.array([T0 + 1]), np.zeros((1, 1), np.float32))
    c.flow_stop("b", T0 + 2 * MS)
    c.flow_stop("a", T0 + 3 * MS)
    c.flow_start(flow("d"))
    seen = close(c, T0, T0 + S)
    assert [f.flow for f in seen.flows] == ["a", "c", "d"]
    assert [seen.flows[i].flow for i in seen.frames.flow] == ["a", "c"]
    assert [seen.flows[i].flow for i in seen.samples["ar"]["pose"].flow] == ["a", "c"]
    with pytest.raises(ValueError, match="never started"):
        c.frames("b", rows((2, T0 + 1, 0, 0, 0)), True)


def test_a_frame_is_not_late_before_its_host_could_tell() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow("a"))
    c.flow_start(flow("b"))
    c.frames("a", rows((1, T0 + 1, 0, 0, 0)), True, T0 + S - 150 * MS)
    c.frames("b", rows((1, T0 + 1, 0, 0, 0)), True, T0 + S - 50 * MS)
    assert close(c, T0, T0 + S).known_ns == T0 + S - 150 * MS
    # A host that has said nothing for long has nothing more to say.
    assert close(c, T0 + S, T0 + 3 * S, 2).known_ns == T0 + 3 * S


def test_what_comes_of_a_flow_after_it_was_forgotten_is_dropped_and_counted() -> None:
    c = SlotCollector(("ar",))
    c.flow_start(flow())
    c.flow_stop("f", T0 + 10 * MS)
    long_ago = T0 + collector_module.RETAIN_NS + 1_000 * MS
    close(c, T0, long_ago)
    c.frames("f", rows((0, T0, 0, 0, long_ago)), True)
    c.samples("f", "t", np.array([T0]), np.zeros((1, 1), np.float32))
    assert (c.frames_dropped, c.samples_dropped) == (1, 1)
    assert not close(c, long_ago, long_ago + MS, slot=2).flows
    c.flow_start(flow(start=long_ago + MS))
    c.frames("f", rows((1, long_ago + MS, 0, 0, 0)), True)
    assert c.frames_dropped == 1
    with pytest.raises(ValueError, match="never started"):
        c.frames("another", rows((0, T0, 0, 0, 0)), True)


def test_a_flow_that_stopped_does_not_hold_the_others_back() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow("a"))
    c.frames("a", rows((1, T0 + 1, 0, 0, 0)), True, T0 + S // 2)
    c.flow_stop("a", T0 + S // 2)
    assert close(c, T0, T0 + S).known_ns == T0 + S


def test_a_clock_that_is_far_off_is_placed_by_arrival_where_it_is_not_synchronised() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    hour = 3600 * S
    for i in range(1, 10):
        sent = T0 + i * 100 * MS - hour
        c.frames("f", rows((i, sent, 7, 7, sent + 40 * MS)), False, T0 + i * 100 * MS + 45 * MS)
    got = close(c, T0, T0 + S).frames
    assert got.sequence.tolist() == list(range(1, 10))
    # One offset for all: the round trips stay what the host measured, the spacing too.
    assert ((got.ue_received - got.ue_sent) == 40 * MS).all()
    assert (np.diff(got.ue_sent) == 100 * MS).all()
    assert got.ue_received[0] == T0 + 145 * MS
    assert not got.edge_received.any()


def test_a_synchronised_frame_from_the_future_is_refused() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    with pytest.raises(ValueError, match="flow f: 1 frames sent in the future"):
        c.frames("f", rows((1, T0, 0, 0, 0), (2, T0 + 300 * S, 0, 0, 0)), True, T0)


def test_a_clock_that_steps_ahead_is_not_synchronised_any_more() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    c.frames("f", rows((1, T0 + 10 * MS, T0 + 20 * MS, T0 + 25 * MS, T0 + 40 * MS)), True, T0 + 50 * MS)
    sent = T0 + 100 * MS + 300 * S
    c.frames("f", rows((2, sent, sent + 1, sent + 2, sent + 30 * MS)), True, T0 + 140 * MS)
    got = close(c, T0, T0 + S)
    assert got.frames.synchronised.tolist() == [True, False]
    assert (got.frames.ue_received - got.frames.ue_sent).tolist() == [30 * MS, 30 * MS]
    assert got.frames.ue_received[1] == T0 + 140 * MS
    assert got.clock_faults == {"f": "times ahead of the controller's clock"}


def test_frames_of_a_clock_that_is_behind_count_for_the_round_trip_and_are_not_lost() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    sent = T0 + 100 * MS - 3600 * S
    c.frames("f", rows((1, sent, sent + 5 * MS, sent + 6 * MS, sent + 30 * MS)), True, T0 + 140 * MS)
    got = close(c, T0, T0 + S)
    assert got.frames.synchronised.tolist() == [False]
    assert (got.frames.ue_received - got.frames.ue_sent).tolist() == [30 * MS]
    assert got.frames.ue_received.tolist() == [T0 + 140 * MS]
    assert got.clock_faults == {"f": "times behind the controller's clock"}


def test_frames_heard_since_a_clock_was_last_known_to_be_good_are_taken_back() -> None:
    c = SlotCollector(["ar"])
    for name in ("f", "g"):
        c.flow_start(flow(name))
        for i in range(1, 5):
            sent = T0 + i * 100 * MS
            c.frames(name, rows((i, sent, sent + 5 * MS, sent + 6 * MS, sent + 9 * MS)), True, sent + 10 * MS)
    sent = T0 + 500 * MS
    fault = ClockFault("h: offset beyond the bound", T0 + 210 * MS)
    c.frames("f", rows((5, sent, sent + 5 * MS, sent + 6 * MS, sent + 9 * MS)), False, sent + 10 * MS, fault)
    got = close(c, T0, T0 + S)
    by_flow = {
        f.flow: got.frames.synchronised[got.frames.flow == i].tolist() for i, f in enumerate(got.flows)
    }
    assert by_flow == {"f": [True, True, False, False, False], "g": [True] * 4}
    assert got.clock_faults == {"f": "h: offset beyond the bound"}
    assert (got.frames.ue_received - got.frames.ue_sent == 9 * MS).all()
    # The next slot begins without that fault.
    assert close(c, T0 + S, T0 + 2 * S, 2).clock_faults == {}
    c.frames("f", np.empty((0, 5), np.int64), False, T0 + 2 * S + 1, ClockFault("refused", T0 + 2 * S))
    got = close(c, T0 + 2 * S, T0 + 3 * S, 3)
    assert got.clock_faults == {"f": "refused"} and not len(got.frames)


def test_a_frame_in_flight_while_its_clock_is_found_to_be_wrong_keeps_one_clock() -> None:
    """Its first report was on the host's clock, 400 ms ahead; the second is placed by its arrival."""
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    ahead = 400 * MS
    sent = T0 + 100 * MS + ahead
    c.frames("f", rows((1, sent, 0, 0, 0)), True, T0 + 110 * MS)
    fault = ClockFault("h: PTP state NONE", T0 + 120 * MS)
    c.frames("f", rows((1, sent, sent + 1, sent + 2, sent + 90 * MS)), False, T0 + 200 * MS, fault)
    got = close(c, T0, T0 + S).frames
    assert got.synchronised.tolist() == [False]
    assert (got.ue_received - got.ue_sent).tolist() == [90 * MS]
    assert got.ue_received.tolist() == [T0 + 200 * MS]
    assert not got.edge_received.any()


def test_a_frame_in_flight_while_its_clock_recovers_is_back_and_keeps_its_round_trip() -> None:
    """Its first report was placed by its arrival; the second is on the host's clock, 5 ms ahead."""
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    sent = T0 + 105 * MS
    fault = ClockFault("h: PTP state NONE", T0)
    c.frames("f", rows((1, sent, 0, 0, 0)), False, T0 + 110 * MS, fault)
    c.frames("f", rows((1, sent, sent + 20 * MS, sent + 30 * MS, sent + 90 * MS)), True, T0 + 200 * MS)
    got = close(c, T0, T0 + S).frames
    assert got.synchronised.tolist() == [False]
    assert (got.ue_received - got.ue_sent).tolist() == [90 * MS]
    assert not got.edge_received.any() and not got.edge_sent.any()


def test_what_hosts_told_of_their_clocks_is_part_of_the_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "MAX_CLOCKS", 3)
    c = SlotCollector(["ar"])
    reports = [ClockReport("h", "SLAVE", float(i), 1.0, T0 + i) for i in range(5)]
    for told in reports:
        c.clock(told)
    assert close(c, T0, T0 + S).clocks == tuple(reports[2:])
    assert close(c, T0 + S, T0 + 2 * S, 2).clocks == ()


def test_frames_of_a_flow_that_is_forgotten_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "RETAIN_NS", S)
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    c.frames("f", rows((1, T0 + 900 * S, 0, 0, 0)), True)
    c.flow_stop("f", T0 + 1)
    for slot in range(5):
        close(c, T0 + slot * S, T0 + (slot + 1) * S, slot)


def test_an_edge_host_may_tell_before_the_ue_does() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    c.frames("f", rows((1, 0, T0 + 20 * MS, T0 + 30 * MS, 0)), True)
    c.frames("f", rows((1, T0 + 10 * MS, 0, 0, T0 + 50 * MS)), True)
    got = close(c, T0, T0 + S).frames
    assert got.edge_received.tolist() == [T0 + 20 * MS]


def test_what_was_gathered_while_the_cell_was_away_is_dropped() -> None:
    c = SlotCollector(["ar"])
    c.flow_start(flow())
    c.frames("f", rows((1, T0 + 1, 0, 0, 0)), True)
    c.restart(T0 + S)
    assert len(close(c, T0, T0 + 2 * S).frames) == 0
    close(c, T0 + 2 * S, T0 + 3 * S, 2)
    assert close(c, T0 + 2 * S, T0 + 4 * S, 3).reports == ()
