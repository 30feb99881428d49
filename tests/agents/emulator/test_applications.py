"""Every application there is, in the cell: the contract of agents.emulator.applications.base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

import tests.applications
from agents.emulator import applications, draws
from agents.emulator.applications.base import Application, Exchanges, ExchangeTimes, UnitTestCase
from agents.emulator.applications.hosting import ApplicationError
from agents.emulator.spec import (
    OPENRTIST_SERVICE,
    ApplicationSpec,
    CellSpec,
    Change,
    ChannelProcess,
    EdgeSpec,
    FlowSpec,
    PathSpec,
    RlcSpec,
    TestbedSpec,
    UeSpec,
    UserSpec,
)
from agents.emulator.testbed import EmulatedTestbed
from tests.applications.periodic import Periodic
from wire.definitions import plugins
from wire.definitions.nr import SLOT_NS

SECOND = 2000
CALM = PathSpec(ul_hold_rate_hz=0.0, hiccup_rate_hz=0.0)
STEADY = EdgeSpec(stall_rate_hz=0.0)
NOISY = ChannelProcess(14.0, 14.0, 0.5)


def cases() -> Iterator[tuple[str, UnitTestCase, str]]:
    for name in applications.names():
        for case in applications.load(name).unit_test_cases():
            for transport in ("tcp", "udp"):
                yield name, case, transport


def named(value: object) -> str | None:
    return f"{dict(value.options)}" if isinstance(value, UnitTestCase) else None


every = pytest.mark.parametrize(("name", "case", "transport"), list(cases()), ids=named)


def cell(
    name, options, transport="tcp", *, n=3, active=((0.0, 1e6),), seed=3, others=(), channel=None, **parts
):
    """A cell with ``n`` UEs of slice ``s``, a user on each, and ``others`` on the first."""
    ues = [UeSpec(f"ue-{i}", i + 1, "s", channel or ChannelProcess()) for i in range(n)]
    users = [
        UserSpec(f"{name}-{i}", f"ue-{i}", active, 2e6, 1e6, transport, options=options) for i in range(n)
    ]
    parts = {"path": CALM, "edge": STEADY, **parts}
    spec = TestbedSpec(ues, list(others), applications=[ApplicationSpec(name, users)], **parts)
    return EmulatedTestbed(spec, seed=seed)


def drain(bed, until, step=400):
    """Runs to an NR slot; {(flow, sequence): [four times]} of all frames that changed on the way."""
    seen = {}
    while bed.nr_slot < until:
        bed.advance(min(until, bed.nr_slot + step))
        f = bed.take_frames()
        rows = np.stack((f.flow, f.sequence, f.ue_sent, f.edge_received, f.edge_sent, f.ue_received), axis=1)
        seen.update({(flow, sequence): times for flow, sequence, *times in rows.tolist()})
    return seen


def round_trips_ms(frames):
    return np.array([t[3] - t[0] for t in frames.values() if t[3]]) / 1e6


def samples_of(bed):
    """{(flow, table): rows of (time, values)}; None for NaN, which is equal to nothing."""
    rows = {
        (s.flow, s.table): np.column_stack((s.time_ns - bed.epoch_ns, s.values)) for s in bed.take_samples()
    }
    return {key: np.where(np.isnan(values), None, values).tolist() for key, values in rows.items()}


def assert_conserved(bed):
    for c in (*bed.counters(), *bed.rlc_counters()):
        assert c.offered == c.delivered + c.queued + c.dropped, c


# -- every application -------------------------------------------------------------------------------


@every
def test_one_advance_equals_a_thousand(name, case, transport):
    results = []
    for steps in (1, 37, SECOND):
        bed = cell(name, case.options, transport, others=[FlowSpec("camera", "ue-0")])
        for half in (1, 2):
            for k in range(1, steps + 1):
                bed.advance((half - 1) * SECOND + SECOND * k // steps)
            if half == 1:
                bed.set_quotas({"s": (60, 60)}, {})
                bed.apply({f"{name}-1": case.change})
        f = bed.take_frames()
        frames = np.stack(
            (f.flow, f.sequence, f.ue_sent, f.edge_received, f.edge_sent, f.ue_received)
        ).tolist()
        results.append((frames, samples_of(bed), bed.counters(), bed.rlc_counters(), bed.take_flow_events()))
    assert results[0] == results[1] == results[2]
    assert results[0][0][0] and results[0][1]


@every
@pytest.mark.parametrize("mode", ["am", "um"])
def test_bytes_are_conserved_at_every_instant_whatever_the_quota(name, case, transport, mode):
    bed = cell(
        name, case.options, transport, channel=NOISY, rlc=RlcSpec(mode=mode), cell=CellSpec(harq_rounds=2)
    )
    rng = np.random.default_rng(5)
    while bed.nr_slot < 3 * SECOND:
        bed.set_quotas({"s": tuple(rng.choice([0, 5, 30, 106], 2))}, {})
        bed.advance(bed.nr_slot + int(rng.integers(1, 60)))
        assert_conserved(bed)
    assert sum(c.delivered for c in bed.counters()) > 0
    if transport == "tcp":
        assert sum(c.dropped for c in bed.counters()) == 0


@every
def test_frames_come_in_order_of_sequence_and_time(name, case, transport):
    bed = cell(name, case.options, transport)
    frames = drain(bed, 4 * SECOND)
    for flow in range(3):
        sequence = [k for f, k in frames if f == flow]
        assert sequence == list(range(len(sequence))) and len(sequence) > 2
        sent = [frames[flow, k][0] for k in sequence]
        assert sent == sorted(sent)
    for times in frames.values():
        known = [t for t in times if t]
        assert known == sorted(known) and times[: len(known)] == known


@every
def test_a_setting_changes_what_is_offered_from_its_instant_on(name, case, transport):
    instant = SECOND + 7
    beds = [cell(name, case.options, transport, n=1) for _ in range(2)]
    for bed in beds:
        bed.advance(instant)
    assert beds[0].counters() == beds[1].counters()
    beds[1].apply({f"{name}-0": case.change})
    now = beds[0].time_ns()
    frames = [drain(bed, 4 * SECOND) for bed in beds]
    before = [{k: t[0] for k, t in f.items() if t[0] < now} for f in frames]
    assert before[0] == before[1]

    # Other sizes, or as large ones more or less often.
    total = [sum(c.offered for c in bed.counters()) for bed in beds]
    per_exchange = [n / len(f) for n, f in zip(total, frames, strict=True)]
    same = [a[0] == pytest.approx(a[1], rel=0.05) for a in (total, per_exchange)]
    assert not all(same)


def test_what_was_planned_ahead_is_taken_back_for_a_setting_and_nothing_is_left_out():
    """The application has planned 50 ms when the setting comes; its exchanges keep their instants."""
    beds = [cell("periodic", {"period_ms": 10.0}, n=2) for _ in range(2)]
    for instant, size in ((SECOND + 3, 5000), (SECOND + 50, 6000)):
        for bed in beds:
            bed.advance(instant)
        beds[1].apply({"periodic-0": {"size_bytes": (float(size),)}})
    frames = [drain(bed, 2 * SECOND) for bed in beds]
    sent = [[(k, t[0]) for k, t in f.items()] for f in frames]
    assert sent[0] == sent[1]
    first_user = [t[0] - beds[1].epoch_ns for (flow, _), t in frames[1].items() if flow == 0]
    slots = np.array(first_user) / SLOT_NS
    first, second = slots >= SECOND + 3, slots >= SECOND + 50
    expected = np.where(second, 6000, np.where(first, 5000, 4000)).sum()
    assert beds[1].counters()[0].offered == expected
    assert beds[1].counters()[2].offered == beds[0].counters()[2].offered


@every
def test_experience_is_worse_under_a_smaller_quota(name, case, transport):
    medians = []
    for quota in (106, 10):
        bed = cell(name, case.options, transport, n=2, channel=ChannelProcess(sd_db=0.0))
        bed.set_quotas({"s": (quota, quota)}, {})
        frames = drain(bed, 6 * SECOND)
        back = round_trips_ms(frames)
        # What has not come back has taken at least as long as it has been under way.
        waiting = [bed.time_ns() - t[0] for t in frames.values() if not t[3]]
        medians.append(np.median(np.concatenate((back, np.array(waiting) / 1e6))))
    assert medians[1] > 1.2 * medians[0]


@every
def test_settings_that_cannot_be_are_refused_by_name_and_change_nothing(name, case, transport):
    beds = [cell(name, case.options, transport, n=2) for _ in range(2)]
    for bed in beds:
        bed.advance(500)
    setting, values = next(iter(case.change.items()))
    wrong = [
        ({"nobody": case.change}, "'nobody'"),
        ({f"{name}-0": {"no-such-setting": (1.0,)}}, f"'{name}-0', setting 'no-such-setting'"),
        ({f"{name}-0": {setting: (*values, 1.0)}}, f"setting {setting!r}.* values instead of"),
        (
            {f"{name}-0": case.change, f"{name}-1": {setting: (float("nan"),) * len(values)}},
            f"'{name}-1'.*finite",
        ),
        *(({f"{name}-0": case.change, f"{name}-1": refused}, f"'{name}-1'") for refused in case.refused),
    ]
    for settings, says in wrong:
        with pytest.raises(ValueError, match=says):
            beds[0].apply(settings)
    frames = [drain(bed, 2 * SECOND) for bed in beds]
    assert frames[0] == frames[1]


@every
def test_what_is_not_set_any_more_is_at_its_default(name, case, transport):
    beds = [cell(name, case.options, transport, n=2) for _ in range(2)]
    for bed in beds:
        bed.advance(500)
    beds[0].apply({f"{name}-0": case.change})
    beds[0].apply({f"{name}-0": {}})
    beds[1].apply({f"{name}-0": {}})
    frames = [drain(bed, 2 * SECOND) for bed in beds]
    assert frames[0] == frames[1]


@every
def test_users_begin_only_while_they_are_active_and_start_and_stop_like_any_flow(name, case, transport):
    active = ((0.5, 1.25), (2.0, 2.5))
    bed = cell(name, case.options, transport, n=2, active=active)
    frames = drain(bed, 5 * SECOND)
    sent = np.array([t[0] for t in frames.values()]) - bed.epoch_ns
    assert len(sent) > 0
    assert np.all(((sent >= 5e8) & (sent < 1.25e9)) | ((sent >= 2e9) & (sent < 2.5e9)))
    events = [(e.time_ns - bed.epoch_ns, e.kind) for e in bed.take_flow_events() if e.flow == 1]
    assert events == [(5e8, "start"), (1.25e9, "stop"), (2e9, "start"), (2.5e9, "stop")]


@every
def test_runs_share_their_randomness_and_seeds_differ(name, case, transport):
    runs = [drain(cell(name, case.options, transport, seed=seed), 4 * SECOND) for seed in (3, 3, 4)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@every
def test_samples_have_the_shape_that_is_declared(name, case, transport):
    bed = cell(name, case.options, transport)
    bed.advance(3 * SECOND)
    tables = applications.load(name).tables
    samples = bed.take_samples()
    assert {s.table for s in samples} <= tables.keys()
    assert samples
    for s in samples:
        assert s.values.shape == (len(s.time_ns), tables[s.table])
        assert np.all(np.diff(s.time_ns) >= 0) and np.all(s.time_ns <= bed.time_ns())
    assert bed.take_samples() == []


# -- the exchange ------------------------------------------------------------------------------------


class Script(Application):
    """Offers what the tests have written down."""

    name = "script"
    rows: tuple[tuple[int, ...], ...] = ()

    def __init__(self, users, seed):
        super().__init__(users, seed)
        self.times: list[ExchangeTimes] = []
        self._done = False

    @property
    def due_ns(self):
        return 10**18 if self._done else 0

    def offer(self, now_ns):
        if self._done:
            return Exchanges.of()
        self._done = True
        user, due, ul, gpu, edge, dl = zip(*self.rows, strict=True)
        return Exchanges.of(user, due, ul_bytes=ul, gpu_ns=gpu, edge_ns=edge, dl_bytes=dl)

    def take(self, times):
        self.times.append(times)


@pytest.fixture
def scripted(monkeypatch):
    """A cell whose users do what rows of (user, due, ul, gpu, edge, dl) say."""
    monkeypatch.setitem(applications._APPLICATIONS, "script", "unused:Script")
    monkeypatch.setattr("agents.emulator.applications.hosting.load", lambda name: Script)

    def make(rows, transport="tcp", **parts):
        monkeypatch.setattr(Script, "rows", tuple(rows))
        return cell("script", {}, transport, n=1 + max(r[0] for r in rows), **parts)

    return make


def only(frames):
    (times,) = frames.values()
    return times


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("due", [0, 1, SLOT_NS, 123_456_789])
def test_without_a_request_the_edge_begins_when_it_is_due(scripted, transport, due):
    bed = scripted([(0, due, 0, 3_000_000, 4_000_000, 5000)], transport)
    sent, received, answered, back = (t - bed.epoch_ns for t in only(drain(bed, SECOND)))
    assert sent == received == due
    assert answered == due + 7_000_000
    assert answered < back < answered + 60_000_000


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_megabyte_streams_down_without_being_held_up(scripted, transport):
    bed = scripted([(0, 0, 200, 0, 0, 1_000_000)], transport, channel=ChannelProcess(40.0, 40.0, 0.0))
    times = only(drain(bed, 10 * SECOND))
    # 106 PRB carry about 48 Mbit/s in the DL of DSUUU's pattern; the rest is TCP's slow start.
    assert times[3] - times[2] < 1.5e9
    assert_conserved(bed)


def test_a_megabyte_streams_up_through_a_window_of_a_tenth(scripted):
    bed = scripted([(0, 0, 1_000_000, 0, 0, 100)], channel=ChannelProcess(40.0, 40.0, 0.0))
    assert only(drain(bed, 10 * SECOND))[3]


def test_an_upload_without_an_answer_ends_at_the_edge(scripted):
    bed = scripted([(0, 0, 3000, 0, 1_000_000, 0)] * 3)
    frames = drain(bed, SECOND)
    assert all(t[2] and not t[3] for t in frames.values()) and len(frames) == 3


def test_work_on_the_gpu_queues_and_follows_the_clock_and_other_work_does_not(scripted):
    spans = {}
    for mhz in (1600, 800):
        rows = [(u, 10_000_000, 0, gpu, edge, 100) for u, gpu, edge in ((0, 8_000_000, 0), (1, 0, 8_000_000))]
        bed = scripted([*rows, (0, 10_000_000, 0, 8_000_000, 0, 100)], edge=replace(STEADY, clock_lag_ms=0.0))
        bed.set_gpu_mhz(mhz)
        spans[mhz] = [t[2] - t[1] for t in drain(bed, SECOND).values()]
    e = STEADY
    slowdown = (e.base_ms + e.clocked_ms * 2) / (e.base_ms + e.clocked_ms)
    assert spans[1600] == [8_000_000, 16_000_000, 8_000_000]
    assert spans[800] == pytest.approx([8e6 * slowdown, 16e6 * slowdown, 8e6], abs=2)


def test_answers_go_back_in_the_order_in_which_the_edge_is_done(scripted):
    bed = scripted([(0, 0, 500, 0, 90_000_000, 4000), (0, 1_000_000, 500, 0, 0, 4000)])
    frames = drain(bed, SECOND)
    assert frames[0, 1][3] < frames[0, 0][2] < frames[0, 0][3]


def test_a_lost_datagram_loses_its_message_and_nobody_sends_it_again(scripted):
    rows = [(0, k * 20_000_000, 6000, 0, 0, 6000) for k in range(200)]
    bed = scripted(rows, "udp", channel=NOISY, rlc=RlcSpec(mode="um"), cell=CellSpec(harq_rounds=1))
    frames = drain(bed, 8 * SECOND)
    up, down = bed.counters()
    lost = [t for t in frames.values() if not t[3]]
    assert len(frames) == 200 and 10 < len(lost) < 190
    assert up.offered == 200 * 6000 and up.dropped > 0 and up.queued == 0
    assert down.offered == 6000 * sum(t[2] > 0 for t in frames.values()) and down.dropped > 0
    assert_conserved(bed)
    tcp = scripted(rows, "tcp", channel=NOISY, rlc=RlcSpec(mode="um"), cell=CellSpec(harq_rounds=1))
    assert all(t[3] for t in drain(tcp, 30 * SECOND).values())


def test_a_full_queue_loses_datagrams_and_counts_them(scripted):
    bed = scripted([(0, 0, 100_000, 0, 0, 100)], "udp", rlc=RlcSpec(queue_limit_bytes=50_000))
    assert not only(drain(bed, SECOND))[1]
    assert bed.counters()[0].dropped > 50_000 - 1500
    assert_conserved(bed)


def test_a_short_delay_line_loses_datagrams_and_counts_them(scripted):
    bed = scripted([(0, 0, 0, 0, 0, 3_000_000)], "udp", path=replace(CALM, line_packets=1024))
    assert not only(drain(bed, 2 * SECOND))[3]
    assert bed.counters()[1].dropped > 0 and bed.health().line_drops > 0
    assert_conserved(bed)


def test_a_ring_holds_half_a_minute_of_90_frames_a_second_and_what_is_too_much_is_counted(scripted):
    rows = [(0, k * 11_111_111, 0, 0, 0, 500) for k in range(2800)]
    bed = scripted(rows)
    bed.advance(31 * SECOND)
    assert len(bed.take_frames()) == 2790 and bed.health().frames_unreported == 0
    bed = scripted([(0, k * 1_000_000, 0, 0, 0, 500) for k in range(5000)])
    frames = drain(bed, 7 * SECOND)
    assert len(frames) == 4096 and bed.health().exchanges_refused == 5000 - 4096
    assert all(t[3] for t in frames.values())


def test_the_application_sees_the_times_that_the_testbed_reports(scripted, monkeypatch):
    monkeypatch.setattr(Script, "wakes", True)
    bed = scripted([(u, k * 30_000_000, 2000, 100_000, 0, 2000) for k in range(30) for u in (0, 1)])
    frames = drain(bed, 2 * SECOND)
    seen = {}
    for t in bed._applications[0].application.times:
        rows = np.stack((t.user, t.sequence, t.ue_sent, t.edge_received, t.edge_sent, t.ue_received), axis=1)
        seen.update({(u, k): times for u, k, *times in rows.tolist()})
    assert {k: [t - bed.epoch_ns for t in times] for k, times in frames.items()} == seen


# -- transmit power ----------------------------------------------------------------------------------


class Quiet(Periodic):
    """A source whose setting is its UE's transmit power in dB."""

    name = "quiet"
    settings: ClassVar = {"power_db": 1}

    def __init__(self, users, seed):
        super().__init__(users, seed)
        self.power = np.zeros(len(users))

    def defaults(self, user):
        return {"power_db": (0.0,)}

    def check(self, user, setting, values):
        pass

    def apply(self, user, settings, now_ns, withdrawn):
        super().apply(user, {"size_bytes": (4000.0,)}, now_ns, withdrawn)
        self.power[user] = settings["power_db"][0]

    def power_db(self):
        return self.power


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr("agents.emulator.applications.hosting.load", lambda name: Quiet)


def snrs(bed):
    return np.array([[u.snr_db, u.cqi] for u in bed.mac_report().ues])


def test_transmit_power_is_in_the_ul_snr_of_the_ue_at_once_and_from_then_on(quiet):
    beds = [cell("quiet", {}, "udp") for _ in range(2)]
    for bed in beds:
        bed.advance(SECOND + 3)
    before = snrs(beds[0])
    beds[1].apply({"quiet-1": {"power_db": (-6.0,)}})
    lower = [[0.0, 0.0], [6.0, 0.0], [0.0, 0.0]]
    assert before - snrs(beds[1]) == pytest.approx(np.array(lower), abs=1e-5)
    for bed in beds:
        bed.advance(2 * SECOND)
    assert snrs(beds[0]) - snrs(beds[1]) == pytest.approx(np.array(lower), abs=1e-5)
    beds[1].apply({"quiet-1": {}})
    assert snrs(beds[0]) == pytest.approx(snrs(beds[1]), abs=1e-5)
    for bed in beds:
        bed.advance(3 * SECOND)
    assert np.array_equal(snrs(beds[0]), snrs(beds[1]))


def test_a_ue_of_two_users_has_the_lower_power_for_all_its_flows(quiet):
    users = [UserSpec(f"quiet-{k}", "ue-0", transport="udp") for k in (0, 1)]
    ue = UeSpec("ue-0", 1, "s", ChannelProcess(16.5, 26.5, 0.0))
    load = FlowSpec("load", "ue-0", kind="saturated_ul")
    bed = EmulatedTestbed(TestbedSpec([ue], [load], applications=[ApplicationSpec("quiet", users)]), seed=3)
    bed.apply({"quiet-0": {"power_db": (-3.0,)}, "quiet-1": {"power_db": (-5.0,)}})
    bed.advance(10 * SECOND)
    report = bed.mac_report().ues[0]
    assert report.snr_db == pytest.approx(11.5)
    # 10 % BLER at -2.4 dB and 0.87 dB a step; the loop's steps are coarse.
    assert report.ul.mcs == pytest.approx((11.5 + 2.4) / 0.87, abs=1.5)


@pytest.mark.parametrize("power", [0.1, float("nan"), float("-inf")])
def test_a_power_above_the_maximum_or_without_a_number_is_the_applications_mistake(quiet, power):
    bed = cell("quiet", {}, "udp")
    bed._applications[0].application.power[1] = power
    with pytest.raises(ApplicationError, match="application 'quiet' has transmit powers"):
        bed.apply({"quiet-0": {}})


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [(0, 5, 1, 0, 0, 1), (0, 4, 1, 0, 0, 1)],
            "flow 'script-0' at 4 ns that is due in the past or before",
        ),
        ([(0, 2 * 10**15, 1, 0, 0, 1)], "not active"),
        ([(0, 0, 0, 0, 0, 0)], "impossible size"),
        ([(0, 0, -1, 0, 0, 5)], "impossible size"),
        ([(0, 0, 1, -1, 0, 5)], "impossible work"),
        ([(-1, 0, 1, 0, 0, 5), (0, 0, 1, 0, 0, 5)], "users outside 0..0"),
    ],
)
def test_an_application_that_breaks_its_contract_is_named(scripted, rows, says):
    bed = scripted(rows)
    with pytest.raises(ApplicationError, match=f"application 'script'.*{says}"):
        bed.advance(10)


def test_specifications_that_cannot_be_are_refused_by_name():
    def spec(*users):
        return TestbedSpec([UeSpec("ue-0", 1)], [], applications=[ApplicationSpec("periodic", users)])

    for wrong, says in (
        (lambda: UserSpec("f", "ue-0", transport="sctp"), "'f': transport 'sctp'"),
        (lambda: UserSpec("f", "ue-0", ul_bps=float("nan")), "'f': ul_bps nan"),
        (lambda: UserSpec("f", "ue-0", [(2.0, 1.0)]), "'f': interval"),
        (lambda: ApplicationSpec("a", []), "'a' has no users"),
        (lambda: ApplicationSpec("a", [UserSpec("f", "u")], exchanges=1000), "1000 is not a power of two"),
        (lambda: spec(UserSpec("f", "ue-9")), "'f': UE 'ue-9'"),
        (lambda: spec(UserSpec("f", "ue-0"), UserSpec("f", "ue-0")), "flow 'f' is there twice"),
        (
            lambda: EmulatedTestbed(spec(UserSpec("f", "ue-0", options={"no": 1})), seed=1),
            "'f': options .*no",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            wrong()


def test_a_user_keeps_its_randomness_by_its_index():
    def phases(*indices):
        ues = [UeSpec(f"ue-{i}", i + 1) for i in range(len(indices))]
        users = [UserSpec(f"f-{i}", f"ue-{i}", index=k) for i, k in enumerate(indices)]
        spec = TestbedSpec(ues, [], applications=[ApplicationSpec("periodic", users)])
        frames = drain(EmulatedTestbed(spec, seed=1), 400)
        return [frames[i, 0][0] for i in range(len(indices))]

    assert phases(7, 3) == phases(3, 7)[::-1]


def test_every_flow_says_whose_service_it_is():
    others = [FlowSpec("camera", "ue-0"), FlowSpec("load", "ue-0", kind="saturated_dl")]
    bed = cell("chain", {}, n=1, others=others)
    assert [(f.flow, f.service) for f in bed.flows] == [
        ("camera", OPENRTIST_SERVICE),
        ("load", ""),
        ("chain-0", "segments"),
    ]
    with pytest.raises(ValueError, match="'chain-0' is not external"):
        bed.send(2, "ul", 10)


# -- the table of names ------------------------------------------------------------------------------


def test_an_unknown_application_is_refused_with_the_known_ones():
    assert set(tests.applications.NAMES) <= set(applications.names())
    with pytest.raises(ValueError, match=r"application 'nothing' is none of: .*chain, .*periodic"):
        applications.load("nothing")
    with pytest.raises(ValueError, match="application 'nothing' is none of"):
        cell("nothing", {})
    with pytest.raises(ValueError, match=r"'periodic' is tests.applications.periodic:Periodic already"):
        applications.register("periodic", "elsewhere:Periodic")


def test_an_application_of_another_distribution_is_found_by_its_entry_point(tmp_path, monkeypatch):
    (tmp_path / "third_party.py").write_text(
        "from tests.applications.periodic import Periodic\n\n\nclass Own(Periodic):\n    name = 'own'\n"
    )
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{plugins.APPLICATIONS}]\nown = third_party:Own\nother = third_party:Own\nno = third_party:np\n"
    )
    (tmp_path / "third_party.py").open("a").write("\n\nnp = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "own" in applications.names()
    assert applications.load("own").name == "own"
    assert len(drain(cell("own", {}, n=1), SECOND)) > 10
    for name, says in (("other", "calls itself 'own'"), ("no", "no subclass of Application")):
        with pytest.raises(ValueError, match=says):
            applications.load(name)


def test_the_draws_of_applications_equal_those_of_the_cell():
    index, counter = np.arange(5)[:, None], np.array([0, 1, 17, 1 << 40])
    expected = [[draws.uniform(9, draws.APPLICATION + 2, i, k) for k in counter.tolist()] for i in range(5)]
    assert draws.uniforms(9, draws.APPLICATION + 2, index, counter).tolist() == expected
    expected = [[draws.gaussian(9, draws.APPLICATION, i, k) for k in (0, 1, 17)] for i in range(5)]
    assert draws.gaussians(9, draws.APPLICATION, index, counter[:3]) == pytest.approx(
        np.array(expected), abs=1e-12
    )


def test_exchanges_feel_an_edge_that_slows_down_in_the_run():
    def served_ms(**parts):
        frames = drain(cell("periodic", {"gpu_ms": 5.0, "edge_ms": 0.0}, n=1, **parts), 4 * SECOND)
        return [(t[2] - t[1]) / 1e6 for (_, k), t in sorted(frames.items()) if t[2]]

    plain, slow = served_ms(), served_ms(change=Change(2.0, service_time=2.0))
    assert len(plain) == len(slow) > 100 and set(plain) == {5.0}
    assert slow == sorted(slow) and set(slow) == {5.0, 10.0}
    assert slow.count(10.0) == pytest.approx(len(slow) / 2, abs=3)
