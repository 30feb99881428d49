"""The mind of a slice: what it asks, what it makes of a grant, and what it learns of what."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controller.allocators.base import SliceView
from controller.allocators.mar.allocator import (
    DROWNED,
    FILLED,
    LATE,
    LEAST_PRB,
    LEAST_STRETCH,
    MAX_STRETCH,
    PATIENCE,
    STRETCH,
    STRETCH_DOWN,
    STRETCH_UP,
    MarAllocator,
)
from controller.allocators.mar.fit import Memory, learn
from controller.allocators.mar.margin import Margin, deviate
from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.radio import prb_hz
from controller.core.decision import Grant
from controller.core.fits import Fit, model_digest
from controller.core.hops import Carrier
from controller.core.measure import Lever, Reason
from controller.core.observation import DirectionColumns, Flow, MacReport, Samples
from controller.core.spec import LoopSpec, SliceSpec
from controller.fits import run_now
from controller.twins.softmax import SoftmaxNetwork, Training
from tests.allocators.mar.people import walkers

MS = 1_000_000
S = 1_000 * MS
T0 = 1_800_000_000 * S
SLOT_NS = 5 * S
PRB = 106
UNIT = prb_hz(Carrier())
LOOP = LoopSpec("cell-1", PRB, Carrier(), (SliceSpec("mar", "mar"),), 1600)
UPLOAD_HZ = (1.0, 5.0, 30.0)
OPTIONS = MarOptions(upload_hz=UPLOAD_HZ, rho=0.8)
GRANT = Grant(PRB, PRB, 0)


def flow(i: int, **more: Any) -> Flow:
    return Flow(f"u{i}", f"ue-{i}", "mar", 0.0, 0.0, T0, **more)


def view(slot: int = 0, users: int | tuple[Flow, ...] = 3, **more: Any) -> SliceView:
    opened = T0 + slot * SLOT_NS
    flows = tuple(flow(i) for i in range(users)) if isinstance(users, int) else users
    known: dict[str, Any] = {"users": flows, "granted": GRANT, "seed": (slot,)}
    closed = opened + SLOT_NS
    # Of everybody's frames something is told: that there is nothing to render.
    nothing = {"hits": table(slot, {i: [[np.nan]] for i in range(len(flows))})} if flows else {}
    more["samples"] = {**nothing, **more.get("samples", {})}
    return SliceView("mar", slot, opened, closed, opened + 200 * MS, closed, **{**known, **more})


def table(slot: int, values: dict[int, list[Any]]) -> Samples:
    """Rows of users, from the first frame that is judged on."""
    user = np.array([u for u, v in values.items() for _ in v], np.int64)
    data = np.array([row for v in values.values() for row in v], np.float32)
    time_ns = T0 + slot * SLOT_NS + 300 * MS + np.arange(len(user)) * MS
    return Samples(user, time_ns, data.reshape(len(user), -1) if values else np.empty((0, 1), np.float32))


def uploads(slot: int, users: int, latency_ms: float, n: int = 4) -> Samples:
    return table(slot, {u: [[0.0] * 6 + [latency_ms]] * n for u in range(users)})


def report(
    slot: int, ms: int, users: int = 3, *, queued: int = 0, carried: int = 0, mcs: int = 9
) -> MacReport:
    n = users
    some = DirectionColumns(
        (mcs,) * n, (1,) * n, (1,) * n, (queued,) * n, (0.0,) * n, (carried,) * n, (0,) * n
    )
    names = tuple(f"ue-{i}" for i in range(n))
    return MacReport(T0 + slot * SLOT_NS + ms * MS, names, ("mar",) * n, some, some)


def twins(expected: dict[int, list[float]]) -> bytes:
    """Twins that expect these shares of hits of users."""
    memory = Memory(len(UPLOAD_HZ), users=[f"u{i}" for i in expected])
    n = len(expected)
    memory.expected = np.array(list(expected.values()), np.float64).reshape(n, len(UPLOAD_HZ))
    memory.own, memory.own_weight = np.zeros((n, 3, 6)), np.zeros((n, 3))
    rng = np.random.default_rng(0)
    memory.network = SoftmaxNetwork.fit(rng.random((20, 16)), rng.integers(0, 2, 20), 2, 0, Training(4, 2))
    return memory.to_bytes()


def windows(n: int = 60, seed: int = 0) -> list[list[float]]:
    """Pairs of deviate and bit, of which the bit rises steeply with the deviate."""
    d = np.random.default_rng(seed).normal(0.0, 1.0, n)
    return [[round(x, 4), float(x > 0.0)] for x in d.tolist()]


def allocator(
    expected: dict[int, list[float]] | None = None, options: MarOptions = OPTIONS, **state: Any
) -> MarAllocator:
    """One that knows these twins and a margin; without, one at the beginning."""
    a = MarAllocator("mar", options, LOOP)
    data = b"" if expected is None else twins(expected)
    known = {"twins": model_digest(data), "windows": windows()} if data else {}
    a.load_state({**a.to_state(), **known, **state}, {model_digest(data): data}.__getitem__)
    return a


def decided(a: MarAllocator, v: SliceView, prb: int | None = None) -> tuple[Any, dict[str, float]]:
    a.learn(v)
    demand = a.demand(v)
    settings = a.settle(v, Grant(demand.ul.prb if prb is None else prb, demand.dl.prb, 0))
    return demand, {user: values["upload_hz"][0] for user, values in settings.items()}


HIGH, LOW = 0.99, 0.3
EXPECTED = {0: [HIGH] * 3, 1: [LOW, HIGH, HIGH], 2: [LOW, LOW, LOW]}


# ---- what is asked and told ---------------------------------------------------------------------------


def test_before_there_are_twins_all_upload_as_often_as_fits() -> None:
    a = allocator()
    demand, told = decided(a, view(users=2))
    assert told == {"u0": 30.0, "u1": 30.0}
    assert demand.choices[0].why == "as often as can be, until there are twins"
    assert {c.why for c in demand.choices[2:]} == {"not known yet"}
    assert demand.ul.floor < demand.ul.prb and len(demand.ul.gain) == demand.ul.prb - demand.ul.floor
    # What does not fit is not told.
    _, told = decided(allocator(), view(users=2), demand.ul.floor)
    assert max(told.values()) < 30.0
    many, told = decided(allocator(), view(users=24))
    assert many.ul.prb == PRB and "short of what all users want" in many.choices[0].why
    assert len(set(told.values())) > 1


def test_each_has_the_lowest_frequency_that_keeps_its_promise() -> None:
    a = allocator(EXPECTED)
    demand, told = decided(a, view())
    assert told == {"u0": 1.0, "u1": 5.0, "u2": 1.0}, "of the third no frequency is better than the lowest"
    assert demand.choices[0].why == "least that keeps 2 promises of 3 users"
    by_user = {c.user: c for c in demand.choices if c.user}
    assert by_user["u1"].action == 5.0 and by_user["u1"].why == "promise kept with 1.00"
    assert by_user["u2"].why.startswith("no frequency keeps the promise, 0.")
    assert by_user["u1"].actions == UPLOAD_HZ and len(by_user["u1"].indices) == 3
    promises = a.to_state()["promises"]
    assert promises["u0"][0] == HIGH and promises["u0"][1] > 0.9 and promises["u2"][1] is None
    assert demand.ul.prb == demand.choices[0].demand == np.ceil(sum(p[2] for p in promises.values()))


def test_who_is_not_known_yet_uploads_as_often_as_can_be() -> None:
    _, told = decided(allocator(EXPECTED), view(users=4))
    assert told["u3"] == 30.0 and told["u0"] == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_settings_fit_the_grant_whatever_it_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    a = allocator({i: np.sort(rng.random(3)).tolist() for i in range(0, n, 2)}, stretch=4.0)
    v = view(users=n)
    a.learn(v)
    demand = a.demand(v)
    asked = a._asked
    assert asked is not None
    lowest = asked.load_hz[:, 0].sum()
    for prb in (0, 1, *rng.integers(0, demand.ul.prb + 1, 8).tolist(), demand.ul.prb):
        told = a.settle(v, Grant(prb, 0, 0))
        assert set(told) == {f"u{i}" for i in range(n)}
        k = [UPLOAD_HZ.index(told[f"u{i}"]["upload_hz"][0]) for i in range(n)]
        taken = asked.load_hz[np.arange(n), k].sum()
        assert taken <= FILLED * prb * UNIT * (1 + 1e-9) or (taken == lowest and not any(k))
        promises = a.to_state()["promises"]
        assert all(p[1] is None for p in promises.values()) or lowest <= FILLED * prb * UNIT
        assert all(
            p[1] is None or UPLOAD_HZ[asked.plan.choice[i]] == told[f"u{i}"]["upload_hz"][0]
            for i, p in enumerate(promises.values())
        )
    a.settle(v, Grant(demand.ul.floor, 0, 0))
    if demand.ul.floor < PRB:
        kept = sum(p[1] is not None for p in a.to_state()["promises"].values())
        assert kept == asked.plan.promised.sum(), "the floor keeps all promises"


def test_nothing_granted_is_the_lowest_for_everybody_and_no_promise() -> None:
    a = allocator(EXPECTED)
    _, told = decided(a, view(), 0)
    assert told == dict.fromkeys(("u0", "u1", "u2"), 1.0)
    assert all(p[1] is None for p in a.to_state()["promises"].values())


def test_nobody_is_there() -> None:
    a = allocator(EXPECTED)
    decided(a, view())
    for users in ((), (flow(0, stop_ns=T0 + S),)):
        demand, told = decided(a, view(1, users=users))
        assert told == {} and demand.ul.prb == demand.dl.prb == LEAST_PRB
        assert demand.ul.floor == demand.dl.floor == 0
        assert demand.choices[0].why == "nobody is there" and a.to_state()["promises"] == {}


def test_a_flow_that_stopped_and_began_again_is_told_once() -> None:
    again = (flow(0, stop_ns=T0 + S), flow(1), replace(flow(0), start_ns=T0 + 2 * S), flow(1))
    demand, told = decided(allocator(EXPECTED), view(users=again))
    assert sorted(told) == ["u0", "u1"] and len([c for c in demand.choices if c.user]) == 2


def test_the_gain_is_that_of_the_best_first_and_reaches_all_that_is_wanted() -> None:
    # The second's radio varies: at 5 Hz it needs a little more than at 1 Hz.
    mean = MarAllocator("mar", OPTIONS, LOOP)._inverse_efficiency(Carrier().prb_per_bit("ul")[1][9])
    radio = {f"ue-{i}": [mean, i % 2 * 0.1 * mean**2] for i in range(3)}
    a = allocator({0: [0.1, 0.1, 0.75], 1: [0.1, 0.6, 0.6], 2: [HIGH] * 3}, stretch=8.0, radio=radio)
    v = view()
    a.learn(v)
    demand = a.demand(v)
    asked = a._asked
    assert asked is not None
    gain = demand.ul.gain
    assert len(gain) == demand.ul.prb - demand.ul.floor > 0
    assert list(gain) == sorted(gain, reverse=True) and gain[0] > 0.0
    # All PRBs together add the hits of the two who have no promise.
    assert sum(gain) == pytest.approx(0.65 + 0.5, abs=0.05)
    # The second takes less for its hits and comes first.
    _, second, _ = (asked.load_hz[:, 1:] - asked.load_hz[:, :1]) / FILLED / UNIT
    assert gain[0] == pytest.approx(0.5 / second[0], rel=0.01)


# ---- late uploads -------------------------------------------------------------------------------------


def test_where_uploads_drown_everybody_goes_to_the_lowest_and_nothing_is_promised() -> None:
    a = allocator(EXPECTED)
    v = view(samples={"pose": uploads(0, 3, DROWNED * 100.0 + 1.0)})
    demand, told = decided(a, v)
    assert told == dict.fromkeys(("u0", "u1", "u2"), 1.0)
    assert demand.choices[0].why == "uploads are late: the queue drains"
    assert all(p[1] is None for p in a.to_state()["promises"].values())
    # When it has drained all is as before.
    _, told = decided(a, view(1, samples={"pose": uploads(1, 3, 30.0)}))
    assert told["u1"] == 5.0


def stretches(a: MarAllocator, latencies: list[float], **more: Any) -> list[float]:
    out = []
    for slot, ms in enumerate(latencies):
        a.learn(view(slot, samples={"pose": uploads(slot, 3, ms)}, **more))
        out.append(a.to_state()["stretch"])
    return out


def test_the_stretch_grows_with_late_uploads_and_shrinks_with_early_ones() -> None:
    a = allocator()
    assert a.to_state()["stretch"] == STRETCH
    got = stretches(a, [101.0, 500.0, 49.0, 50.0, 100.0])
    up = STRETCH * STRETCH_UP**2
    assert got == pytest.approx([STRETCH * STRETCH_UP, up, up * STRETCH_DOWN] + [up * STRETCH_DOWN] * 2)
    assert stretches(allocator(), [1_000.0] * 40)[-1] == MAX_STRETCH
    assert stretches(allocator(), [10.0] * 200)[-1] == LEAST_STRETCH
    # Half of the users, not the worst of them.
    a.learn(view(9, samples={"pose": table(9, {0: [[0.0] * 6 + [9e3]], 1: [[0.0] * 6 + [70.0]] * 3})}))
    assert a.to_state()["stretch"] == got[-1]
    a.learn(view(10, samples={"pose": table(10, {0: [[0.0] * 6 + [np.nan]] * 3})}))
    a.learn(view(11))
    assert a.to_state()["stretch"] == got[-1]


def test_what_is_asked_grows_with_the_stretch() -> None:
    demand, _ = decided(allocator(EXPECTED, stretch=4.0), view())
    twice, _ = decided(allocator(EXPECTED, stretch=8.0), view())
    assert twice.choices[0].demand == pytest.approx(2 * demand.choices[0].demand, abs=1.0)


def test_the_stretch_goes_to_what_the_granted_prbs_carried_where_bytes_waited_all_the_time() -> None:
    efficiency = 1.0 / MarAllocator("mar", OPTIONS, LOOP)._inverse_efficiency(
        Carrier().prb_per_bit("ul")[1][9]
    )
    promised = efficiency * UNIT * PRB * 4.8 / 8.0  # bytes in 4.8 s
    carried = round(promised / 3 / 6.0)  # of each of three users a sixth of what was promised in all
    for queued, stretch in ((1, 0.5 * (STRETCH + 6.0)), (0, STRETCH * STRETCH_UP)):
        a = allocator()
        a.learn(view(0, reports=(report(0, 0), report(0, 200))))  # its radio is known
        reports = tuple(
            report(1, ms, queued=queued, carried=carried * ms // 4800) for ms in range(0, 4801, 200)
        )
        a.learn(view(1, samples={"pose": uploads(1, 3, 150.0)}, reports=reports))
        assert a.to_state()["stretch"] == pytest.approx(stretch, rel=1e-3)


# ---- what teaches what --------------------------------------------------------------------------------


def hits(slot: int, shares: dict[int, float]) -> Samples:
    return table(slot, {u: [[1.0]] * round(10 * s) + [[0.0]] * round(10 - 10 * s) for u, s in shares.items()})


def after(a: MarAllocator, **more: Any) -> list[list[float]]:
    """The windows that a control slot adds, in which u0 hits always and the others never."""
    decided(a, view())
    before = a.to_state()["windows"]
    a.learn(view(1, samples={"hits": hits(1, {0: 1.0, 1: 0.0, 2: 0.0}), **more.pop("samples", {})}, **more))
    return a.to_state()["windows"][len(before) :]


def test_what_came_of_promises_teaches_the_margin() -> None:
    d = [round(float(deviate(e, 0.8)), 4) for e in (HIGH, HIGH, LOW)]
    assert after(allocator(EXPECTED)) == [[d[0], 1.0], [d[1], 0.0], [d[2], 0.0]]
    assert after(allocator()) == [], "nothing was expected"


@pytest.mark.parametrize("lever", [Lever.UL, Lever.SETTINGS])
@pytest.mark.parametrize("reason", Reason)
def test_control_slots_that_were_not_its_own_teach_nothing(lever: Lever, reason: Reason) -> None:
    a = allocator(EXPECTED)
    learned = after(a, unattributed={lever: reason}, samples={"pose": uploads(1, 3, 150.0)})
    own = lever is Lever.UL and (reason.short or reason.more)
    assert bool(learned) == own
    assert (a.to_state()["stretch"] != STRETCH) == own


def test_what_else_teaches_nothing() -> None:
    assert len(after(allocator(EXPECTED), unapplied=frozenset({"u1"}))) == 2
    late = {"pose": uploads(1, 3, LATE * 100.0 + 1.0)}
    assert after(allocator(EXPECTED), samples=late) == []
    assert after(allocator(EXPECTED), granted=None) == []
    assert len(after(allocator(EXPECTED), unattributed={Lever.DL: Reason.ARBITER_CUT})) == 3


def test_no_more_windows_are_kept_than_are_used() -> None:
    a = allocator({i: [0.5] * 3 for i in range(60)})
    for slot in range(8):
        decided(a, view(slot, users=60, samples={"hits": hits(slot, dict.fromkeys(range(60), 0.5))}))
    assert len(a.to_state()["windows"]) == 256


def test_radio_is_learned_of_every_report() -> None:
    a = allocator()
    a.learn(view(granted=None, reports=tuple(report(0, ms, mcs=m) for ms, m in ((0, 5), (200, 15)))))
    (mean, variance) = a.to_state()["radio"]["ue-0"]
    factors = Carrier().prb_per_bit("ul")[1]
    inverse = [a._inverse_efficiency(factors[m]) for m in (5, 15)]
    assert mean == pytest.approx(np.mean(inverse)) and variance == pytest.approx(np.var(inverse))
    a.learn(view(1, reports=(report(1, 0, mcs=15),)))
    (later, less) = a.to_state()["radio"]["ue-0"]
    assert later == pytest.approx(0.8 * mean + 0.2 * inverse[1]) and less == pytest.approx(0.8 * variance)
    # A better radio asks for less.
    good, bad = allocator(EXPECTED), allocator(EXPECTED)
    want = [
        decided(x, view(reports=(report(0, 0, mcs=m),)))[0].choices[0].demand
        for x, m in ((good, 20), (bad, 3))
    ]
    assert want[0] < want[1] / 2
    a.learn(view(2, reports=(report(2, 0, mcs=31),)))  # no MCS of a first transmission
    assert a.to_state()["radio"]["ue-0"] == [later, less]


# ---- fits ---------------------------------------------------------------------------------------------


def test_twins_are_asked_for_until_there_is_a_network_and_then_now_and_then() -> None:
    a = MarAllocator("mar", OPTIONS.model_copy(update={"learn_every_s": 10.0}), LOOP)
    a.learn(view(0))
    assert not a.jobs(), "nothing came yet"
    asked = []
    models: dict[str, bytes] = {}
    fits: tuple[Fit, ...] = ()
    poses = walkers(3, 150)
    for slot in range(1, 10):
        rows = Samples(
            np.repeat(np.arange(3), 150),
            T0 + slot * SLOT_NS + np.tile(np.arange(150) * S // 30 + MS, 3),
            np.concatenate([np.pad(p, ((0, 0), (0, 1)), constant_values=40.0) for p in poses]).astype(
                np.float32
            ),
        )
        a.learn(view(slot, samples={"pose": rows}, fits=fits, models=models.__getitem__))
        fits = ()
        for job in a.jobs():
            fit, data = run_now("mar", job)
            assert not fit.error
            models[fit.digest] = data
            asked.append(slot)
            fits = (fit,)
    assert asked == [1, 2, 3, 4, 6, 8], "200 rows, then every 10 s"
    assert a.to_state()["twins"] in models and Memory.from_bytes(models[a.to_state()["twins"]]).users


def test_a_fit_that_fails_or_does_not_come_is_asked_for_once_more() -> None:
    pose = {"pose": uploads(0, 3, 40.0)}
    a = allocator(EXPECTED)
    digest = a.to_state()["twins"]
    models = {digest: twins(EXPECTED)}.__getitem__
    a.load_state({**a.to_state(), "asked_in": -100}, models)
    a.learn(view(0, samples=pose, models=models))
    (job,) = a.jobs()
    assert job.arguments["before"] == twins(EXPECTED) and job.arguments["flows"] == ["u0", "u1", "u2"]
    a.learn(view(1, samples=pose, fits=(Fit("mar", job.key, "", "killed"),), models=models))
    assert a.to_state()["twins"] == digest and a.to_state()["pending"] == ""
    slots = []
    for slot in range(2, 2 * PATIENCE):
        a.learn(view(slot, samples=pose, models=models, fits=(Fit("mar", "of another time", "0" * 64),)))
        slots += [slot for _ in a.jobs()]
    assert slots == [6, 6 + PATIENCE]


def test_twins_of_other_frequencies_are_refused_and_change_nothing() -> None:
    a = MarAllocator("mar", MarOptions(upload_hz=(1.0, 2.0)), LOOP)
    data = twins(EXPECTED)
    state = {**a.to_state(), "twins": model_digest(data)}
    with pytest.raises(ValueError, match="slice mar: twins of 3 upload frequencies, configured are 2"):
        a.load_state(state, lambda _: data)
    assert a.to_state()["twins"] == ""


# ---- early, operators, restarts -----------------------------------------------------------------------


def test_a_new_user_ends_a_control_slot_early() -> None:
    a = allocator()
    decided(a, view(users=2))
    assert a.early(view(users=2)) == ""
    assert a.early(view(users=3)) == "a user came"
    assert a.early(view(users=3, granted=None)) == ""
    assert a.early(view(users=(flow(0),))) == "", "who goes does not"
    assert a.early(view(users=(flow(0), flow(7, stop_ns=T0 + S)))) == ""
    decided(a, view(users=3))
    assert a.early(view(users=3)) == ""


def test_an_operator_changes_the_promise_live() -> None:
    a = allocator({0: [0.7, 0.95, 0.99]})
    hz = []
    for rho in (0.8, 0.5, 0.95):
        a.set(OPTIONS.model_copy(update={"rho": rho}))
        hz.append(decided(a, view(users=1))[1]["u0"])
    assert hz == [5.0, 1.0, 30.0]
    a.set(OPTIONS.model_copy(update={"epsilon": 1.0, "without_promise": "lowest"}))
    assert decided(a, view(users=1))[1]["u0"] == 1.0
    assert not {"rho", "epsilon", "latency_ms", "without_promise"} & MarOptions.anew
    assert {"vchr", "upload_hz", "bins"} <= MarOptions.anew


def test_a_restart_goes_on_with_the_same_promises() -> None:
    """To the last digit: of what was learned by windows, not of one that was written."""
    a = allocator({i: [0.31 + 0.1 * i, 0.6 + 0.05 * i, 0.95] for i in range(5)}, windows=[])
    slot = 0
    rng = np.random.default_rng(3)
    while slot < 12:
        shares = dict(enumerate(rng.choice([0.2, 0.6, 0.9, 1.0], 5).tolist()))
        decided(a, view(slot, users=5, samples={"hits": hits(slot, shares)}, reports=(report(slot, 0, 5),)))
        slot += 1
    state = json.loads(json.dumps(a.to_state(), allow_nan=False))
    assert len(state["windows"]) > 40
    b = MarAllocator("mar", OPTIONS, LOOP)
    data = twins({i: [0.31 + 0.1 * i, 0.6 + 0.05 * i, 0.95] for i in range(5)})
    b.load_state(state, {model_digest(data): data}.__getitem__)
    assert json.loads(json.dumps(b.to_state())) == state
    for _ in range(3):
        v = view(
            slot, users=5, samples={"hits": hits(slot, {0: 1.0, 3: 0.2}), "pose": uploads(slot, 5, 20.0)}
        )
        v = replace(v, models={model_digest(data): data}.__getitem__)
        assert decided(a, v) == decided(b, v)
        assert [j.key for j in a.jobs()] == [j.key for j in b.jobs()]
        slot += 1
    pairs = np.array(state["windows"])
    margin = Margin.learn(pairs[:, :1], pairs[:, 1:])
    assert margin is not None


def test_a_missing_model_is_a_key_error_and_changes_nothing() -> None:
    a = allocator(EXPECTED)
    before = a.to_state()
    with pytest.raises(KeyError):
        a.load_state({**before, "twins": "0" * 64, "stretch": 9.0}, {}.__getitem__)
    assert a.to_state() == before
    for name in before:
        with pytest.raises(KeyError):
            a.load_state({k: v for k, v in before.items() if k != name}, {}.__getitem__)
    with pytest.raises((ValueError, TypeError)):
        a.load_state({**before, "twins": "", "windows": [["a", 1.0]]}, {}.__getitem__)
    assert a.to_state() == before


def test_the_fit_is_the_function_that_the_job_names() -> None:
    a = allocator()
    a.learn(view(1, samples={"pose": uploads(1, 3, 40.0)}))
    (job,) = a.jobs()
    assert job.function == f"{learn.__module__}:{learn.__name__}"
    assert job.arguments["pose"].shape == (12, 6) and job.arguments["options"] == OPTIONS.to_dict()


# ---- hosts that go their own way ----------------------------------------------------------------------


def hits_of(slot: int, users: int) -> Samples:
    return table(slot, {u: [[1.0]] * 4 for u in range(users)})


def test_a_user_whose_settings_are_refused_keeps_nobody_else_from_being_learned_about() -> None:
    a = allocator(EXPECTED, windows=[])
    decided(a, view())
    seen = {"pose": uploads(1, 3, 150.0), "hits": hits_of(1, 3)}
    told = {f"u{i}": {"upload_hz": (30.0,)} for i in range(3)}
    refused: dict[str, Any] = {
        "samples": seen,
        "settings": told,
        "unattributed": {Lever.SETTINGS: Reason.SETTINGS_NOT_APPLIED},
    }
    a.learn(view(1, unapplied=frozenset({"u1"}), **refused))
    state = a.to_state()
    assert len(state["windows"]) == 2 and state["stretch"] > STRETCH
    # Where all refuse, nothing was as it was to be.
    a.learn(view(2, unapplied=frozenset(told), **refused))
    assert a.to_state()["windows"] == state["windows"] and a.to_state()["stretch"] == state["stretch"]


def test_a_host_that_sends_more_rows_is_no_more_than_one_user() -> None:
    late = table(0, {0: [[0.0] * 6 + [9e3]] * 500, 1: [[0.0] * 6 + [30.0]] * 4, 2: [[0.0] * 6 + [40.0]]})
    a = allocator(EXPECTED)
    demand, told = decided(a, view(samples={"pose": late}))
    assert told["u1"] == 5.0 and "drains" not in demand.choices[0].why
    assert a.to_state()["stretch"] == STRETCH * STRETCH_DOWN


def test_twins_whose_model_has_gone_go_on_learning_from_what_is_in_memory() -> None:
    a = allocator(EXPECTED)
    a.load_state({**a.to_state(), "asked_in": -100}, lambda _: twins(EXPECTED))
    outcome = a.learn(view(1, samples={"pose": uploads(1, 3, 40.0), "hits": hits_of(1, 3)}))
    (job,) = a.jobs()
    assert job.arguments["before"] == twins(EXPECTED)
    assert outcome.measure("hits").values == (1.0,) * 3


@pytest.mark.parametrize(("slot_s", "lookahead"), [(1.9, 10), (5.0, 121)])
def test_slots_in_which_twins_could_never_learn_are_refused(slot_s: float, lookahead: int) -> None:
    options = OPTIONS.model_copy(update={"lookahead_frames": lookahead})
    with pytest.raises(ValueError, match=f"control slots of {slot_s:g} s are too short"):
        MarAllocator("mar", options, replace(LOOP, control_slot_s=slot_s))
    MarAllocator("mar", options, replace(LOOP, control_slot_s=slot_s + 0.1))


def test_of_whom_nothing_is_heard_any_more_he_gets_more_and_not_less() -> None:
    a = allocator(EXPECTED)
    only_one = {"hits": table(0, {1: [[np.nan]]})}
    assert decided(a, view(samples=only_one))[1] == {"u0": 30.0, "u1": 5.0, "u2": 30.0}
    nobody = view(samples={"hits": table(0, {})})
    demand, told = decided(a, nobody)
    assert set(told.values()) == {30.0}
    assert demand.choices[0].why == "no user tells of its frames: as often as can be"
    outcome = a.learn(nobody)
    assert outcome.busy and outcome.met is None and outcome.promised
    for lever in (Lever.UL, Lever.DL):
        assert outcome.unattributed[lever] is Reason.PROMISE_NOT_KNOWN
    # Who has only just come has had no time to tell.
    came = tuple(replace(flow(i), start_ns=T0 + 2 * S) for i in range(3))
    outcome = a.learn(view(users=came, samples={"hits": table(0, {})}))
    assert not outcome.busy and not outcome.unattributed


def test_a_fit_that_fails_is_told_in_the_reason() -> None:
    a = MarAllocator("mar", OPTIONS, LOOP)
    v = view(1, samples={"pose": uploads(1, 3, 40.0)})
    a.learn(v)
    (job,) = a.jobs()
    assert a.demand(v).choices[0].why == "as often as can be, until there are twins"
    failed = (Fit("mar", job.key, "", "the lines of gaze meet nowhere"),)
    v = view(2, samples={"pose": uploads(2, 3, 40.0)}, fits=failed)
    a.learn(v)
    assert a.demand(v).choices[0].why.endswith("the last fit failed: the lines of gaze meet nowhere")
