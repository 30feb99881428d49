"""Which UE a flow is of, where its name and the gNB's do not agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.attachment import Follower, idle, unreported
from controller.core.observation import DirectionColumns, Flow, MacReport
from tests import builders

T0 = 1_800_000_000_000_000_000


def report(time_ns: int = T0, **ues: str) -> MacReport:
    """UE -> slice."""
    n = len(ues)
    columns = DirectionColumns((18,) * n, (1,) * n, (1,) * n, (0,) * n)
    return MacReport(time_ns, tuple(ues), tuple(ues.values()), columns, columns)


def flow(ue: str, slice_: str = "ar", name: str = "f", start_ns: int = T0 - 1, stop_ns: int = 0) -> Flow:
    return Flow(name, ue, slice_, 1e6, 1e6, start_ns, stop_ns)


def test_a_flow_is_reported_where_the_reports_while_it_was_active_have_its_ue_in_its_slice() -> None:
    seen, other, gone = report(a="ar"), report(T0 + 1, a="vr"), report(T0 + 2)
    assert unreported([flow("a")], [seen, seen], "ar") == ()
    for strays in (other, gone):
        assert unreported([flow("a")], [seen, strays], "ar") == (flow("a"),)
    assert unreported([flow("a", start_ns=T0 + 3)], [seen, gone], "ar") == ()
    assert unreported([flow("a", stop_ns=T0 + 2)], [seen, gone], "ar") == ()
    assert unreported([flow("b", "vr")], [seen], "ar") == ()


def test_one_report_of_many_without_the_ue_is_no_matter() -> None:
    seen, gone = report(a="ar"), report()
    assert unreported([flow("a")], [seen] * 9 + [gone], "ar") == ()
    assert unreported([flow("a")], [seen] * 8 + [gone] * 2, "ar") == (flow("a"),)


MS = 1_000_000


def counted(ms: int, ul: int, dl: int, prb: int = 9, slice_: str = "ar") -> MacReport:
    """UE a, with the bytes that it has carried."""
    up, down = (DirectionColumns((18,), (1,), (1,), (0,), (0.0,), (carried,), (prb,)) for carried in (ul, dl))
    return MacReport(T0 + ms * MS, ("a",), (slice_,), up, down)


@pytest.mark.parametrize(
    ("last", "is_idle"),
    [
        (counted(1000, 7000, 7000), True),
        (counted(1000, 7200, 7200), True),
        (counted(1000, 900_000, 900_000), False),
        (counted(1000, 10, 900_000), False),  # another one of its name, which began to count anew
        (counted(200, 7000, 7000), False),  # too short a time
    ],
)
def test_frames_that_come_back_while_the_bytes_of_their_ue_stand_still_do_not_cross_it(
    last: MacReport, is_idle: bool
) -> None:
    frames = builders.frames(T0, T0 + 1000 * MS, (20.0, 9.0, 15.0))
    flows = (flow("a"),)
    assert idle(flows, frames, [counted(0, 7000, 7000), last], "ar") == (flows if is_idle else ())


def test_what_is_not_counted_or_does_not_come_back_says_nothing() -> None:
    still = [counted(0, 7000, 7000), counted(1000, 7000, 7000)]
    frames = builders.frames(T0, T0 + 1000 * MS, (20.0, 9.0, 15.0))
    flows = (flow("a"),)
    assert idle(flows, frames, [counted(0, 0, 0, prb=0), counted(1000, 0, 0, prb=0)], "ar") == ()
    assert idle(flows, frames, [counted(0, 0, 0), counted(1000, 0, 0)], "ar") == flows
    assert idle(flows, frames, [replace(r, slice=("vr",)) for r in still], "ar") == ()
    assert idle(flows, frames, [report(), report(T0 + 1000 * MS)], "ar") == ()
    assert idle(flows, replace(frames, ue_received=frames.ue_received * 0), still, "ar") == ()
    assert idle((flow("b"), flow("a")), frames, still, "ar") == ()


def follow(flows: list[Flow], *slots: MacReport, **more: list[str]) -> dict[str, str]:
    """Whom the flows are taken to be of after control slots with these reports."""
    follower = Follower()
    for last in slots:
        follower.close(flows, [last], **more)
    return follower.followed


def test_the_only_ue_of_a_slice_that_no_flow_names_is_the_one_that_came_back() -> None:
    flows = [flow("a", name="f"), flow("a", name="g"), flow("c", name="h")]
    back = report(b="ar", c="ar", d="vr")
    assert follow(flows, back) == {}  # it may be another's, whose flow begins in a moment
    assert follow(flows, back, back) == {"f": "b", "g": "b"}
    assert follow(flows, back, back, report(a="ar", c="ar")) == {}
    assert follow(flows, back, report(e="ar", c="ar")) == {}


@pytest.mark.parametrize(
    ("flows", "reported"),
    [
        ([flow("a")], {"a": "ar", "b": "ar"}),  # it is there
        ([flow("a")], {"a": "vr", "b": "ar"}),  # it is there, in another slice
        ([flow("a")], {"b": "ar", "c": "ar"}),  # which of the two?
        ([flow("a"), flow("b", name="g")], {"c": "ar"}),  # whose?
        ([flow("a")], {"b": "vr", "c": ""}),  # none of its slice
        ([flow("a")], {}),
        ([flow("a", stop_ns=T0)], {"b": "ar"}),
        ([flow("a"), flow("b", name="g")], {"b": "ar"}),  # another flow's
        ([flow("a"), flow("b", name="g", stop_ns=T0)], {"b": "ar"}),  # that of a flow that has stopped
    ],
)
def test_nothing_is_guessed(flows: list[Flow], reported: dict[str, str]) -> None:
    assert follow(flows, report(**reported), report(**reported)) == {}


def test_two_ues_that_were_side_by_side_or_are_both_bound_by_name_are_two() -> None:
    left = report(b="ar")
    assert follow([flow("a")], report(a="ar", b="ar"), left, left) == {}
    assert follow([flow("a")], left, left, bound=["a", "b"]) == {}
    assert follow([flow("a")], left, left, bound=["b"]) == {"f": "b"}


def test_a_ue_that_was_left_out_of_the_report_is_there() -> None:
    assert follow([flow("a")], report(b="ar"), report(b="ar"), left_out=["a"]) == {}
    assert follow([flow("a")], report(b="ar"), report(b="ar"), left_out=["c"]) == {"f": "b"}


def test_each_slice_follows_its_own() -> None:
    flows, back = [flow("a"), flow("b", "vr", "g")], report(c="ar", d="vr")
    assert follow(flows, back, back) == {"f": "c", "g": "d"}
    assert follow([replace(f, stop_ns=T0) for f in flows], back, back) == {}
