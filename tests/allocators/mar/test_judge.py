"""What came of a control slot, against counting by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from controller.allocators.base import SliceView
from controller.allocators.mar.judge import judge
from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.promises import Promise, Promises
from controller.core.hops import Carrier
from controller.core.measure import Lever, Outcome, Reason
from controller.core.observation import DirectionColumns, Flow, MacReport, Samples
from wire.definitions import nr

MS = 1_000_000
T0 = 1_800_000_000_000_000_000
BEGIN, END = T0 + 200 * MS, T0 + 4_900 * MS
CARRIER = Carrier()
OPTIONS = MarOptions(vchr=0.8, rho=0.75, epsilon=0.9)


def user(i: int, **more: Any) -> Flow:
    return Flow(f"u{i}", f"ue-{i}", "mar", 0.0, 0.0, T0, **more)


def rows(values: dict[int, list[Any]], times_ms: list[float] | None = None) -> Samples:
    """Rows of a table: of each user its values, at these times or evenly in the part that is judged."""
    flow = np.array([u for u, v in values.items() for _ in v], np.int64)
    data = np.array([row for v in values.values() for row in v], np.float32)
    if times_ms is None:
        time_ns = BEGIN + np.arange(len(flow)) * ((END - BEGIN) // max(len(flow), 1))
    else:
        time_ns = T0 + (np.array(times_ms) * MS).astype(np.int64)
    return Samples(flow, time_ns, data.reshape(len(flow), -1))


def view(users: int, **more: Any) -> SliceView:
    known: dict[str, Any] = {"users": tuple(user(i) for i in range(users))}
    return SliceView("mar", 3, T0, T0 + 5_000 * MS, BEGIN, END, **{**known, **more})


def judged(v: SliceView, promised: set[int] | None = None, options: MarOptions = OPTIONS) -> Outcome:
    """``promised``: to whom something was, in place of everybody."""
    promises = {
        u.flow: Promise(0.9, 0.95 if promised is None or i in promised else None, 2.5)
        for i, u in enumerate(v.users)
    }
    return judge(v, options, Promises(promises), CARRIER, {})


def hits(good: int, bad: int) -> list[float]:
    return [0.9] * good + [0.1] * bad


# ---- hits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.5, 0.75, 0.8, 0.99, 1.0])
def test_the_level_that_a_share_of_the_frames_reaches(rho: float) -> None:
    rng = np.random.default_rng(4)
    for n in (1, 2, 7, 20, 141):
        rates = (rng.integers(0, 33, n) / 32).astype(np.float32)
        outcome = judged(view(1, samples={"hits": rows({0: rates.tolist()})}), options=MarOptions(rho=rho))
        (level,) = outcome.measure("vchr").values
        assert level is not None
        at_least = max(rates[(rates[:, None] <= rates).mean(axis=1) >= rho - 1e-9], default=0.0)
        assert level == at_least
        (share,) = outcome.measure("hits").values
        assert share == (rates >= 0.8).mean()
        # Equation (7) is kept where it reaches V.
        assert (outcome.met == 1) == (level >= 0.8 - 1e-6) or rho == 0.0


def test_a_share_of_exactly_rho_and_a_rate_of_exactly_v_are_enough() -> None:
    outcome = judged(view(1, samples={"hits": rows({0: [0.8, 0.8, 0.8, 0.0]})}))
    assert outcome.met == 1 and outcome.measure("hits").values == (0.75,)
    for v in (0.7, 0.9):  # as float32 they are less
        options = MarOptions(vchr=v, rho=1.0)
        assert judged(view(1, samples={"hits": rows({0: [v]})}), options=options).met == 1
    assert judged(view(1, samples={"hits": rows({0: [0.8, 0.8, 0.0, 0.0]})})).met == 0


@pytest.mark.parametrize(
    ("users", "kept", "epsilon", "met"),
    [
        (10, 9, 0.9, 1),
        (10, 8, 0.9, 0),
        (9, 8, 0.9, 1),  # 8.1 of them, rounded down
        (9, 7, 0.9, 0),
        (1, 0, 0.9, 0),
        (1, 1, 0.9, 1),
        (3, 1, 0.0, 1),
        (3, 0, 0.0, 0),  # one at least
        (3, 2, 1.0, 0),
        (3, 3, 1.0, 1),
    ],
)
def test_a_share_epsilon_of_the_promises_is_to_be_kept(
    users: int, kept: int, epsilon: float, met: int
) -> None:
    samples = {"hits": rows({i: hits(8, 2) if i < kept else hits(2, 8) for i in range(users)})}
    outcome = judged(view(users, samples=samples), options=MarOptions(rho=0.75, epsilon=epsilon))
    assert outcome.met == outcome.measure("vchr").met == met and outcome.promised and outcome.busy
    assert outcome.counts["promises"] == users and outcome.counts["promises_kept"] == kept
    assert outcome.counts["frames"] == 10 * users == outcome.measure("hits").samples
    assert outcome.counts["frames_hit"] == 8 * kept + 2 * (users - kept)


def test_only_to_whom_something_was_promised_counts() -> None:
    samples = {"hits": rows({0: hits(8, 2), 1: hits(0, 9)})}
    assert judged(view(2, samples=samples), {0}).met == 1
    assert judged(view(2, samples=samples), {1}).met == 0
    assert judged(view(2, samples=samples)).met == 1, "0.9 of two, rounded down"
    assert judged(view(2, samples=samples), options=MarOptions(rho=0.75, epsilon=1.0)).met == 0


def test_where_nothing_was_promised_it_is_not_known() -> None:
    v = view(2, samples={"hits": rows({0: hits(8, 2), 1: hits(0, 9)})})
    outcome = judged(v, set())
    assert outcome.met is None and not outcome.promised and outcome.busy
    assert outcome.counts["promises"] == 0 and outcome.counts["frames"] == 19
    # Nor where the allocator knew nobody.
    outcome = judge(v, OPTIONS, Promises(), CARRIER, {})
    assert outcome.met is None and not outcome.promised and outcome.measure("ul_prb").targets == (0.0, 0.0)


def test_nobody_is_there() -> None:
    outcome = judged(view(0))
    assert outcome.met is None and outcome.promised and not outcome.busy and outcome.users == ()
    assert [m.name for m in outcome.measures] == ["vchr", "hits", "upload", "ul_prb"]
    outcome = judged(view(2))  # of whom nothing came
    assert outcome.met is None and outcome.promised and not outcome.busy
    assert outcome.measure("hits").values == (None, None) == outcome.measure("upload").values


def test_rates_that_are_none_are_no_frames() -> None:
    nan = float("nan")
    samples = {"hits": rows({0: [nan, 0.9, nan, 0.9], 1: [nan, nan]}), "pose": rows({0: [[0.0] * 6 + [nan]]})}
    outcome = judged(view(2, samples=samples))
    assert outcome.measure("hits").values == (1.0, None) and outcome.measure("vchr").values[1] is None
    assert outcome.counts["frames"] == 2 == outcome.counts["frames_hit"] and outcome.counts["promises"] == 1
    assert outcome.measure("upload").values == (None, None) and outcome.measure("upload").met is None


def test_what_was_captured_outside_the_part_that_is_judged_does_not_count() -> None:
    times = [0.0, 199.999, 200.0, 4_899.0, 4_900.0, 5_100.0]
    samples = {
        "hits": rows({0: [0.1, 0.1, 0.9, 0.9, 0.1, 0.1]}, times),
        "pose": rows({0: [[0.0] * 6 + [ms] for ms in (900.0, 900.0, 20.0, 40.0, 900.0, 900.0)]}, times),
    }
    outcome = judged(view(1, samples=samples))
    assert outcome.measure("hits").values == (1.0,) and outcome.counts["frames"] == 2
    assert outcome.measure("upload").values == (30.0,) and outcome.measure("upload").samples == 2


# ---- latency and PRBs ---------------------------------------------------------------------------------


def test_the_mean_latency_of_each_user() -> None:
    pose = rows({0: [[0.0] * 6 + [ms] for ms in (80.0, 110.0)], 1: [[0.0] * 6 + [101.0]]})
    outcome = judged(view(3, samples={"pose": pose}))
    upload = outcome.measure("upload")
    assert upload.values == (95.0, 101.0, None) and upload.targets == (100.0,) * 3
    assert upload.met == 0 and upload.samples == 3
    pose.values[2, 6] = 100.0
    assert judged(view(3, samples={"pose": pose})).measure("upload").met == 1


def report(ms: float, ue: tuple[str, ...], prb_slots: tuple[int, ...]) -> MacReport:
    n = len(ue)
    some = DirectionColumns((9,) * n, (1,) * n, (1,) * n, (0,) * n, (0.0,) * n, (0,) * n, prb_slots)
    return MacReport(T0 + int(ms * MS), ue, ("mar",) * n, some, some)


def test_prbs_in_each_uplink_slot_from_counters() -> None:
    reports = (
        report(0, ("ue-0", "ue-1", "ue-3"), (1_000, 50, 7)),
        report(2_000, ("ue-0", "ue-1"), (2_000, 10, 0)),
        report(4_000, ("ue-0", "ue-1", "ue-2", "ue-3"), (58_600, 40, 9, 7)),
    )
    outcome = judged(view(5, reports=reports))
    # 4 s are 8000 slots of 30 kHz; DSUUU has 3.6 of 5 in uplink.
    assert nr.slot_ns(30) == 500_000 and CARRIER.tdd.share("ul", guard=False) == pytest.approx(0.72)
    prb = outcome.measure("ul_prb")
    assert prb.values == (pytest.approx(57_600 / 5_760), None, None, 0.0, None)
    assert prb.targets == (2.5,) * 5 and prb.met is None and prb.samples == 3


@pytest.mark.parametrize("reports", [(), (report(0, ("ue-0",), (1,)),), (report(0, ("ue-0",), (1,)),) * 2])
def test_prbs_that_cannot_be_told(reports: tuple[MacReport, ...]) -> None:
    assert judged(view(1, reports=reports)).measure("ul_prb").values == (None,)


def test_reports_from_before_counters_were_kept_tell_none() -> None:
    some = DirectionColumns((9,), (1,), (1,), (0,))
    reports = tuple(MacReport(T0 + i * 200 * MS, ("ue-0",), ("mar",), some, some) for i in range(3))
    assert judged(view(1, reports=reports)).measure("ul_prb").values == (None,)


def test_what_was_unattributed_is_in_the_outcome() -> None:
    reasons = {Lever.UL: Reason.ARBITER_CUT}
    outcome = judge(view(1), OPTIONS, Promises(), CARRIER, reasons)
    assert outcome.unattributed == reasons and outcome.to_record()["unattributed"] == {"ul": "arbiter cut"}


def test_promises_there_and_back() -> None:
    promises = Promises({"a": Promise(0.5, None, 1.5), "b": Promise(None, 0.25, 0.0)})
    assert Promises.from_state(promises.to_state()) == promises
    for wrong in ({"a": [1.0]}, {"a": 5}, [1]):
        with pytest.raises((TypeError, AttributeError)):
            Promises.from_state(wrong)  # type: ignore[arg-type]


# ---- numbers that cannot be ---------------------------------------------------------------------------


def test_a_rate_that_is_no_share_and_a_time_that_runs_backwards_are_not_known() -> None:
    rates = rows({0: [7.0, -3.0, 1e30, np.inf, 0.9], 1: [1.5] * 3})
    poses = rows({0: [[0.0] * 6 + [ms] for ms in (-5.0, 40.0)], 1: [[0.0] * 6 + [-1e5]]})
    outcome = judged(view(2, samples={"hits": rates, "pose": poses}))
    assert outcome.measure("hits").values == (1.0, None) and outcome.counts["frames"] == 1
    assert outcome.measure("vchr").values[0] == pytest.approx(0.9)
    assert outcome.measure("upload").values == (40.0, None)
    assert outcome.faults == {"vchr outside 0..1": 7, "latency below 0": 2}
    assert not judged(view(1, samples={"hits": rows({0: [np.nan, 0.0, 1.0]})})).faults
