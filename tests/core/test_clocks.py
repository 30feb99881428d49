"""Whether the clocks behind a frame's four times agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core import clocks
from controller.core.clocks import ClockBoard, ClockFault, Moment
from controller.core.observation import ClockReport

T0 = 1_800_000_000_000_000_000
S = 1_000_000_000
STALE_S = 5


def told(host: str = "ue-1", at_s: float = 0.0, **changes: object) -> ClockReport:
    report = ClockReport(host, "SLAVE", 100.0, 2000.0, T0 + round(at_s * S))
    return replace(report, **changes)  # type: ignore[arg-type]


def at(real_ns: int, stepped_ns: int = 0) -> Moment:
    """A moment of a controller whose real clock has been set by so much since T0."""
    return Moment(real_ns, 7 * S + real_ns - T0 - stepped_ns)


def board(*required: str) -> ClockBoard:
    return ClockBoard(bound_ns=1e6, stale_ns=STALE_S * S, required=required)


def take(b: ClockBoard, report: ClockReport) -> str:
    return b.take(report, at(report.time_ns)).fault


def reason(b: ClockBoard, host: str = "ue-1", at_s: float = 0.0) -> str:
    fault = b.fault(host, at(T0 + round(at_s * S)))
    return "" if fault is None else fault.reason


def test_where_nobody_tells_of_a_clock_the_host_is_believed() -> None:
    assert board().fault("ue-1", at(T0)) is None


def test_a_good_clock_has_no_fault() -> None:
    b = board()
    assert take(b, told()) == ""
    assert reason(b) == ""


@pytest.mark.parametrize("state", ["NONE", "LISTENING", "UNCALIBRATED", "FAULTY", "PASSIVE", "nonsense"])
def test_a_port_that_follows_no_master_and_is_none_cannot_be_used(state: str) -> None:
    b = board()
    assert take(b, told(ptp_state=state, offset_ns=0.0)) == f"ue-1: PTP state {state}"
    assert reason(b) == f"ue-1: PTP state {state}"


def test_a_master_is_synchronised() -> None:
    assert take(board(), told(ptp_state="MASTER", offset_ns=0.0)) == ""


@pytest.mark.parametrize(("offset_ns", "good"), [(1e6, True), (-1e6, True), (1e6 + 1, False), (-2e6, False)])
def test_the_bound_is_that_of_the_offsets_size(offset_ns: float, good: bool) -> None:
    b = board()
    fault = take(b, told(offset_ns=offset_ns))
    assert fault == ("" if good else "ue-1: offset beyond the bound")
    assert b.beyond_bound(told(offset_ns=offset_ns)) is not good


def test_a_clock_without_news_is_stale_and_good_again_with_the_next() -> None:
    b = board()
    take(b, told())
    assert reason(b, at_s=STALE_S) == ""
    fault = b.fault("ue-1", at(T0 + STALE_S * S + 1))
    assert fault == ClockFault("ue-1: no news of its clock", T0)
    take(b, told(at_s=9))
    assert reason(b, at_s=9) == ""


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_how_old_news_is_does_not_depend_on_the_real_clock(step_s: int) -> None:
    """The controller's clock is set: by it the last news is of an hour ago, or of the future."""
    b = board()
    take(b, told())
    now = T0 + step_s * S
    assert b.fault("ue-1", at(now + STALE_S * S, step_s * S)) is None
    fault = b.fault("ue-1", at(now + STALE_S * S + 1, step_s * S))
    # Frames are told of by the clock as it goes now.
    assert fault == ClockFault("ue-1: no news of its clock", now)


def test_of_two_faults_the_earlier_says_how_far_back() -> None:
    b = board("edge-a", "edge-b")
    take(b, told("edge-b", 0.0))
    take(b, told("edge-a", 4.0))
    take(b, told("edge-a", 4.1, ptp_state="NONE"))
    fault = b.fault("ue-1", at(T0 + (STALE_S + 1) * S))
    assert fault == ClockFault("edge-a: PTP state NONE", T0)


def test_a_fault_reaches_back_to_the_last_good_news() -> None:
    b = board()
    take(b, told(at_s=1))
    take(b, told(at_s=2))
    take(b, told(at_s=3, offset_ns=5e6))
    take(b, told(at_s=4, offset_ns=6e6))
    assert b.fault("ue-1", at(T0 + 4 * S)) == ClockFault("ue-1: offset beyond the bound", T0 + 2 * S)
    take(b, told(at_s=5))
    assert b.fault("ue-1", at(T0 + 5 * S)) is None


def test_a_clock_that_has_been_set_is_far_from_the_controllers() -> None:
    b = board()
    b.take(told(), at(T0))
    assert b.take(told(at_s=3600), at(T0 + S)).fault == "ue-1: its time is far from the controller's"
    assert reason(b, at_s=1) == "ue-1: its time is far from the controller's"
    # So is a report that took long to arrive.
    assert b.take(told(at_s=2), at(T0 + 20 * S)).fault == "ue-1: its time is far from the controller's"


def test_the_edges_clock_counts_for_every_ue_and_a_ues_clock_for_its_own_frames() -> None:
    b = board()
    for stream, host in enumerate(("ue-1", "ue-2")):
        b.flow_started(f"flow of {host}", host, stream)
        take(b, told(host))
    take(b, told("edge"))
    assert reason(b, "ue-1") == reason(b, "ue-2") == ""
    take(b, told("ue-2", ptp_state="LISTENING"))
    assert (reason(b, "ue-1"), reason(b, "ue-2")) == ("", "ue-2: PTP state LISTENING")
    take(b, told("edge", ptp_state="NONE"))
    assert reason(b, "ue-1") == "edge: PTP state NONE"


def test_a_required_clock_must_be_told_of() -> None:
    b = board("edge", "edge-2")
    take(b, told("ue-1"))
    assert b.fault("ue-1", at(T0)) == ClockFault("edge: no news of its clock", 0)
    take(b, told("edge"))
    assert reason(b, "ue-1") == "edge-2: no news of its clock"
    take(b, told("edge-2"))
    assert reason(b, "ue-1") == ""


@pytest.mark.parametrize("changes", [{"ptp_state": "NONE"}, {"offset_ns": 500e6}])
def test_a_required_clock_counts_whatever_flows_its_host_reports(changes: dict[str, object]) -> None:
    b = board("edge")
    b.flow_started("f", "edge", 1)
    take(b, told("edge", **changes))
    assert reason(b, "ue-1").startswith("edge: ") and reason(b, "edge").startswith("edge: ")


def test_where_the_edge_is_named_other_hosts_hold_up_their_own_frames_alone() -> None:
    b = board("edge")
    take(b, told("edge"))
    take(b, told("ue-1"))
    take(b, told("ue-2", ptp_state="LISTENING"))
    assert (reason(b, "ue-1"), reason(b, "ue-2")) == ("", "ue-2: PTP state LISTENING")


def test_where_the_edge_is_not_named_it_may_be_any_host_without_flows() -> None:
    b = board()
    b.flow_started("f", "ue-1", 1)
    take(b, told("ue-1"))
    take(b, told("edge", ptp_state="NONE"))
    take(b, told("ue-2"))
    assert reason(b, "ue-1") == "edge: PTP state NONE"
    take(b, told("edge"))
    take(b, told("ue-2", ptp_state="LISTENING"))
    assert reason(b, "ue-1") == "ue-2: PTP state LISTENING"
    b.flow_started("g", "ue-2", 2)
    assert reason(b, "ue-1") == ""


def test_a_host_that_was_taken_away_holds_up_nobody_and_the_edges_silence_is_seen() -> None:
    b = board()
    for host in ("edge", "ue-1", "ue-2"):
        take(b, told(host))
    later = STALE_S + 1
    for host in ("edge", "ue-1"):
        take(b, told(host, later))
    assert reason(b, "ue-1", later) == ""
    take(b, told("ue-1", 2 * later))
    assert reason(b, "ue-1", 2 * later) == "edge: no news of its clock"


def test_a_host_is_without_flows_again_when_its_last_one_ends() -> None:
    b = board()
    take(b, told("edge", ptp_state="NONE"))

    def ue_1_is_held_up() -> bool:
        return reason(b, "ue-1") == "edge: PTP state NONE"

    b.flow_ended("never started")
    for flow in ("f", "g", "g"):
        b.flow_started(flow, "edge", 1)
    b.flow_ended("f")
    assert not ue_1_is_held_up()
    b.flow_ended("g")
    assert ue_1_is_held_up()
    b.flow_started("f", "edge", 1)
    b.flow_started("f", "ue-2", 2)
    assert ue_1_is_held_up()


def test_a_stream_that_ends_takes_its_own_flows_along() -> None:
    b = board()
    take(b, told("edge", ptp_state="NONE"))
    b.flow_started("f", "edge", 1)
    b.flow_started("g", "edge", 1)
    # The client has come back before its old stream was seen to end.
    b.flow_started("g", "edge", 2)
    b.stream_ended(1)
    assert reason(b, "ue-1") == ""
    b.stream_ended(2)
    assert reason(b, "ue-1") == "edge: PTP state NONE"


def test_hosts_that_follow_different_grandmasters_do_not_agree() -> None:
    b = board()
    take(b, told("edge", grandmaster="aa"))
    take(b, told("ue-1", grandmaster="aa"))
    assert reason(b) == ""
    take(b, told("edge", 1, grandmaster="aa"))
    take(b, told("ue-1", 1, grandmaster="bb"))
    assert b.fault("ue-1", at(T0 + S)) == ClockFault("edge, ue-1: different grandmasters", T0)
    take(b, told("edge", 2, grandmaster="bb"))
    assert reason(b, at_s=2) == ""


def test_a_grandmaster_that_is_not_told_contradicts_nobody() -> None:
    b = board()
    take(b, told("edge", grandmaster="aa"))
    take(b, told("ue-1"))
    assert reason(b) == ""


def test_hosts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "MAX_HOSTS", 2)
    b = board()
    take(b, told("a"))
    take(b, told("b"))
    with pytest.raises(ValueError, match="host 'c': more than 2 hosts"):
        take(b, told("c"))
    take(b, told("b", 1))


def test_a_required_host_finds_a_place_among_any_number_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "MAX_HOSTS", 2)
    b = board("edge")
    take(b, told("a"))
    take(b, told("b"))
    take(b, told("edge"))
    with pytest.raises(ValueError, match="host 'c': more than 2 hosts"):
        take(b, told("c"))


def test_hosts_that_report_for_themselves_take_no_place_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clocks, "MAX_HOSTS", 2)
    b = board()
    for host in "ab":
        b.take(told(host), at(T0), own=True)
    with pytest.raises(ValueError, match="host 'c': more than 2 hosts"):
        b.take(told("c"), at(T0), own=True)
    # A PTP agent may take over what a host reported itself, within the same bound.
    for host in ("edge", "a"):
        take(b, told(host))
    with pytest.raises(ValueError, match="host 'b': more than 2 hosts"):
        take(b, told("b"))
    b.take(told("c"), at(T0), own=True)
    assert [c.host for c in b.known(at(T0))] == ["a", "b", "c", "edge"]


def test_a_silent_host_is_forgotten_and_its_place_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "MAX_HOSTS", 1)
    b = board("edge")
    take(b, told("edge"))
    take(b, told("stranger"))
    long = STALE_S * clocks.FORGET
    with pytest.raises(ValueError, match="more than 1 hosts"):
        take(b, told("ue-1", long))
    take(b, told("ue-1", long + 1))
    # A host that has to tell of its clock is not forgotten.
    assert [c.host for c in b.known(at(T0 + (long + 1) * S))] == ["edge", "ue-1"]
    assert reason(b, "ue-1", long + 1) == "edge: no news of its clock"


def test_a_host_that_is_not_heard_again_is_no_edge_for_ever() -> None:
    b = board()
    take(b, told("stranger", ptp_state="NONE"))
    long = STALE_S * clocks.FORGET
    assert reason(b, "ue-1", long) == "stranger: no news of its clock"
    assert reason(b, "ue-1", long + 1) == ""


def test_the_word_of_a_host_on_its_own_clock_counts_for_its_own_frames_alone() -> None:
    b = board()
    b.take(told("ue-2", ptp_state="NONE"), at(T0), own=True)
    assert (reason(b, "ue-1"), reason(b, "ue-2")) == ("", "ue-2: PTP state NONE")


def test_no_host_tells_in_the_place_of_a_ptp_agent() -> None:
    b, required = board(), board("edge")
    take(b, told("ue-2"))
    for asked, host in ((b, "ue-2"), (required, "edge")):
        with pytest.raises(ValueError, match=f"ClockStatus of host '{host}': its PTP agent tells"):
            asked.take(told(host, ptp_state="NONE"), at(T0), own=True)
    assert reason(b, "ue-2") == ""


def test_what_is_known_says_state_offset_age_and_fault() -> None:
    b = board("edge")
    take(b, told("ue-1", ptp_state="LISTENING", offset_ns=-7.0))
    assert b.known(at(T0 + S)) == (
        clocks.KnownClock("edge", "", 0.0, None, "edge: no news of its clock"),
        clocks.KnownClock("ue-1", "LISTENING", -7.0, 1.0, "ue-1: PTP state LISTENING"),
    )


def test_nothing_is_kept_of_flows_that_ended() -> None:
    b = board()
    for i in range(9):
        b.flow_started(f"f{i}", f"ue-{i}", i)
        b.flow_ended(f"f{i}") if i % 2 else b.stream_ended(i)
    assert not b._flows and not b._with_flows


@pytest.mark.parametrize("bad", [{"bound_ns": 0.0}, {"bound_ns": float("nan")}, {"stale_ns": 0}])
def test_a_bound_that_is_none_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ClockBoard(**{"bound_ns": 1e6, "stale_ns": S, **bad})  # type: ignore[arg-type]
