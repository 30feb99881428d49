"""The application ``urllc``: what tasks take, by part, what they cost, and what is lost of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from agents.emulator.applications.urllc import PLAN_NS, Urllc
from agents.emulator.spec import (
    ApplicationSpec,
    CellSpec,
    ChannelProcess,
    EdgeSpec,
    PathSpec,
    TestbedSpec,
    UeSpec,
    UserSpec,
)
from agents.emulator.testbed import EmulatedTestbed
from agents.links.qos import samples_messages
from wire.definitions.nr import SLOT_NS

SECOND = 2000
SECOND_NS = 10**9
MS = 10**6
ALWAYS = ((0.0, 1e6),)
PROMPT = PathSpec(ue_dl_offset_ms=0.5, ue_dl_poll_ms=0.0, ul_hold_rate_hz=0.0, hiccup_rate_hz=0.0)
EXACT = {"work_sd": 0.0}
NOMINAL = {"work_sd": 0.0, "deviation": 0.0, "edge_deviation": 0.0}
LOCAL, UP, EDGE, DOWN, TOTAL, ENERGY, LOST = range(7)


def cell(
    options, n=1, *, active=ALWAYS, transport="udp", error=1e-5, seed=3, snr_db=16.5, sd_db=0.0, **parts
):
    """``active`` may be a list of one for each user. Devices send what they offload."""
    options = {"transmitted": "offloaded", **options}
    each = active if isinstance(active, list) else [active] * n
    ues = [UeSpec(f"ue-{i}", i + 1, "s", ChannelProcess(snr_db, snr_db + 10, sd_db)) for i in range(n)]
    users = [
        UserSpec(f"u-{i}", f"ue-{i}", each[i], transport=transport, decoding_error=error, options=options)
        for i in range(n)
    ]
    parts = {
        "cell": CellSpec(k2=2, short_packet_margin_db=0.5),
        "path": PROMPT,
        "edge": EdgeSpec(stall_rate_hz=0.0),
        **parts,
    }
    spec = TestbedSpec(ues, [], applications=[ApplicationSpec("urllc", users)], **parts)
    return EmulatedTestbed(spec, seed=seed)


def application(bed) -> Urllc:
    return bed._applications[0].application


def rows_of(bed, table="task"):
    """{user: (times from the start [n], values [n, columns])} of the samples since the last call."""
    return {s.flow: (s.time_ns - bed.epoch_ns, s.values) for s in bed.take_samples() if s.table == table}


def run(options, seconds=2.0, settings=None, n=1, **parts):
    """A cell that has run with the same settings for everybody; the cell, and its rows of tasks by user."""
    bed = cell(options, n, **parts)
    if settings is not None:
        bed.apply({f"u-{i}": settings for i in range(n)})
    bed.advance(round(seconds * SECOND))
    return bed, rows_of(bed)


def approx(values):
    return pytest.approx(np.array(values), rel=1e-4, abs=2e-6)


# -- the parts of a task -----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_each_part_takes_what_equations_3_to_5_say(share):
    settings = {"local_share": (share,), "ue_ghz": (1.2,), "edge_ghz": (2.5,)}
    bed, rows = run(EXACT, settings=settings, n=2)
    app = application(bed)
    frames = bed.take_frames()
    for user, (time_ns, v) in rows.items():
        late, edge_late = (float(d[0]) for d in app.deviations(np.array([user]), np.array([0])))
        local = share * app.cycles[user] / (1.2 * (1 - late)) / 1e6
        edge = (1 - share) * app.cycles[user] / (2.5 * (1 - edge_late)) / 1e6
        assert v[:, EDGE] == approx([edge] * len(v))
        if share:
            assert v[:, LOCAL] == approx([local] * len(v))
        else:
            assert np.isnan(v[:, LOCAL]).all()
        assert v[:, TOTAL] == approx(np.nansum(v[:, :TOTAL], axis=1))
        assert not v[:, LOST].any()
        mine = frames.flow == user
        sent, received, answered, back = (
            getattr(frames, name)[mine][: len(v)]
            for name in ("ue_sent", "edge_received", "edge_sent", "ue_received")
        )
        assert sent - bed.epoch_ns == pytest.approx(time_ns + local * MS, abs=2)
        assert v[:, UP] == approx((received - sent) / MS)
        assert v[:, DOWN] == approx((back - answered) / MS)
        # 0.3 ms on the way to the edge, and no more than two grants.
        assert v[:, UP].min() > 1.5 and v[:, UP].max() < 7.0


def test_a_share_of_one_sends_nothing():
    bed, rows = run(NOMINAL, settings={"local_share": (1.0,), "ue_ghz": (0.5,)})
    _, v = rows[0]
    assert len(v) == pytest.approx(40, abs=1) and not v[:, LOST].any()
    local = application(bed).cycles[0] / 0.5 / 1e6
    assert v[:, LOCAL] == approx([local] * len(v)) and v[:, TOTAL] == approx(v[:, LOCAL])
    assert np.isnan(v[:, [UP, EDGE, DOWN]]).all()
    assert all(c.offered == 0 for c in bed.counters()) and len(bed.take_frames()) == 0


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_device_that_sends_whole_tasks_sends_them_whatever_it_offloads(share):
    settings = {"local_share": (share,), "edge_ghz": (2.5,)}
    bed, rows = run({**NOMINAL, "transmitted": "whole"}, settings=settings)
    _, v = rows[0]
    frames = bed.take_frames()
    cycles = application(bed).cycles[0]
    assert bed.counters()[0].offered == 1354 * int((frames.ue_sent > 0).sum())
    assert v[:, EDGE] == approx([(1 - share) * cycles / 2.5 / 1e6] * len(v))
    assert (v[:, UP] > 1.5).all() and v[:, TOTAL] == approx(np.nansum(v[:, :TOTAL], axis=1))


def test_a_cached_task_is_at_the_edge_when_it_is_captured():
    settings = {"cached": (1.0,), "local_share": (0.7,), "edge_ghz": (3.0,)}
    bed, rows = run(NOMINAL, settings=settings)
    time_ns, v = rows[0]
    frames = bed.take_frames()
    assert np.array_equal((frames.edge_received - bed.epoch_ns)[: len(v)], time_ns)
    assert v[:, EDGE] == approx([application(bed).cycles[0] / 3.0 / 1e6] * len(v))
    assert np.isnan(v[:, [LOCAL, UP]]).all() and not v[:, ENERGY].any() and not v[:, LOST].any()
    assert v[:, TOTAL] == approx(v[:, EDGE] + v[:, DOWN])
    up, down = bed.counters()
    assert up.offered == 0 and down.offered == 64 * len(frames)


@pytest.mark.parametrize(("share", "size"), [(0.0, 1354), (0.3, 948), (0.5, 677), (0.9, 136), (0.9999, 1)])
def test_the_rest_of_the_bytes_goes_up_and_a_result_down(share, size):
    bed, rows = run(EXACT, settings={"local_share": (share,)}, n=3)
    frames = bed.take_frames()
    for user in rows:
        began = (frames.flow == user) & (frames.ue_sent > 0)
        answered = (frames.flow == user) & (frames.edge_sent > 0)
        up, down = bed.counters()[2 * user : 2 * user + 2]
        assert up.offered == size * began.sum() and down.offered == 64 * answered.sum()
    for c in (*bed.counters(), *bed.rlc_counters()):
        assert c.offered == c.delivered + c.queued + c.dropped


def test_the_energy_is_that_of_processing():
    bed, rows = run(NOMINAL, settings={"local_share": (0.4,), "ue_ghz": (1.25,)})
    # theta / 2 alpha C f^2
    expected = 0.5e-26 * 0.4 * application(bed).cycles[0] * 1.25e9**2 * 1e3
    assert rows[0][1][:, ENERGY] == approx([expected] * len(rows[0][1]))
    bed, rows = run(EXACT, settings={"local_share": (0.4,), "ue_ghz": (1.25,)})
    late = float(application(bed).deviations(np.array([0]), np.array([0]))[0][0])
    assert late != 0.0
    assert rows[0][1][:, ENERGY] == approx([expected * (1 - late) ** 2] * len(rows[0][1]))


# -- devices and edge --------------------------------------------------------------------------------


def test_devices_are_drawn_within_their_bounds_and_shared_by_seed():
    bed = cell({"deviation": 0.1, "edge_deviation": 0.05}, 60)
    app = application(bed)
    users, zero = np.arange(60), np.zeros(60, np.int64)
    ue, edge = app.deviations(users, zero)
    for values, half in ((ue, 0.1), (edge, 0.05)):
        assert np.all(np.abs(values) <= half) and values.min() < -half / 2 and values.max() > half / 2
    assert abs(np.corrcoef(ue, edge)[0, 1]) < 0.4
    per_byte = app.cycles / 1354
    assert 100 <= per_byte.min() < 120 and 280 < per_byte.max() <= 300
    same = application(cell({"deviation": 0.1, "edge_deviation": 0.05}, 60)).deviations(users, zero)
    other = application(cell({"deviation": 0.1, "edge_deviation": 0.05}, 60, seed=4))
    assert np.array_equal(ue, same[0]) and not np.array_equal(ue, other.deviations(users, zero)[0])
    later = app.deviations(users, zero + 77 * SECOND_NS)
    assert np.array_equal(ue, later[0]) and np.array_equal(edge, later[1])


def test_a_deviation_that_drifts_is_smooth_uniform_and_seen_in_the_tasks():
    app = application(cell({"deviation": 0.2, "deviation_drift_s": 2.0}))
    t = np.arange(0, 4000 * SECOND_NS, SECOND_NS // 10)
    d = app.deviations(np.zeros(len(t), np.int64), t)[0]
    assert np.abs(np.diff(d)).max() < 0.06
    counts, _ = np.histogram(d, bins=5, range=(-0.2, 0.2))
    assert counts / len(d) == pytest.approx(np.full(5, 0.2), abs=0.04)
    bed, rows = run({"work_sd": 0.0, "deviation": 0.2, "deviation_drift_s": 2.0}, 6, {"local_share": (0.6,)})
    time_ns, v = rows[0]
    d = application(bed).deviations(np.zeros(len(v), np.int64), time_ns)[0]
    assert np.ptp(d) > 0.1
    assert v[:, LOCAL] == approx(0.6 * application(bed).cycles[0] / (1.5 * (1 - d)) / 1e6)


def test_the_cycles_of_tasks_vary_within_three_deviations():
    bed, rows = run(
        {**NOMINAL, "work_sd": 0.1, "task_hz": 200.0}, 6, {"local_share": (1.0,), "ue_ghz": (1.5,)}
    )
    part = rows[0][1][:, LOCAL] * 1.5e6 / application(bed).cycles[0] - 1
    assert np.std(part) == pytest.approx(0.1, rel=0.1) and np.mean(part) == pytest.approx(0, abs=0.01)
    assert 0.2 < np.abs(part).max() < 0.30001


def test_the_edge_scales_its_rates_down_where_more_is_granted_than_it_has():
    settings = [
        {"local_share": (0.0,), "edge_ghz": (8.0,)},
        {"local_share": (0.5,), "edge_ghz": (8.0,)},
        {"cached": (1.0,), "local_share": (0.9,), "edge_ghz": (4.0,)},
    ]
    # Constraint (6f): 8 + 0.5 x 8 + 4 = 16 GHz; the second is away from 2 s on, which leaves 12.
    bed = cell({**NOMINAL, "edge_ghz": 8.0}, 3, active=[ALWAYS, ((0.0, 2.0),), ALWAYS])
    bed.apply({f"u-{i}": s for i, s in enumerate(settings)})
    bed.advance(4 * SECOND)
    app, rows = application(bed), rows_of(bed)
    for user, cycles, granted in ((0, 1.0, 8.0), (1, 0.5, 8.0), (2, 1.0, 4.0)):
        time_ns, v = rows[user]
        scale = np.where(time_ns < 2 * SECOND_NS, 8 / 16, 8 / 12)
        assert v[:, EDGE] == approx(cycles * app.cycles[user] / (granted * scale) / 1e6)
    assert rows[1][0].max() < 2 * SECOND_NS


def test_a_grant_of_one_user_reaches_the_others_tasks_with_the_next_plan():
    bed = cell({**NOMINAL, "edge_ghz": 8.0, "task_hz": 200.0}, 2)
    bed.apply({f"u-{i}": {"local_share": (0.0,), "edge_ghz": (4.0,)} for i in (0, 1)})
    bed.advance(SECOND + 3)
    now = bed.time_ns() - bed.epoch_ns
    bed.apply({"u-0": {"local_share": (0.0,), "edge_ghz": (8.0,)}})
    bed.advance(2 * SECOND)
    app, rows = application(bed), rows_of(bed)
    for user, granted, reach_ns in ((0, 8.0, 0), (1, 4.0, PLAN_NS)):
        time_ns, v = rows[user]
        ghz = app.cycles[user] / v[:, EDGE] / 1e6
        assert ghz[time_ns < now] == approx([4.0] * (time_ns < now).sum())
        after = time_ns >= now + reach_ns
        assert after.sum() > 50
        assert ghz[after] == approx([granted * 8 / 12] * after.sum())


# -- settings ----------------------------------------------------------------------------------------

SLOW = {**NOMINAL, "task_bytes": 1000, "cycles_per_byte": (1000.0, 1000.0)}
"""A million cycles: 10 ms at 0.1 GHz."""


def test_a_task_under_way_keeps_its_settings_and_the_next_has_the_new_ones():
    bed = cell(SLOW, 2)
    old = {"local_share": (1 / 2,), "ue_ghz": (0.025,), "edge_ghz": (1.0,)}  # 20 ms in the device
    bed.apply({f"u-{i}": old for i in (0, 1)})
    phase = int(application(bed)._phase_ns[0])
    captured = phase + 50 * MS * 10
    bed.advance(-(-(captured + 8 * MS) // SLOT_NS))
    new = {"local_share": (0.25,), "ue_ghz": (0.25,), "edge_ghz": (2.0,)}
    bed.apply({"u-0": new})
    # The same once more: nothing is left out or offered twice.
    bed.advance(bed.nr_slot + 3)
    bed.apply({"u-0": new})
    bed.advance(2 * SECOND)
    rows = rows_of(bed)
    time_ns, v = rows[0]
    assert time_ns.tolist() == [phase + 50 * MS * k for k in range(len(v))] and len(v) > 35
    before = time_ns <= captured
    assert v[:, LOCAL] == approx(np.where(before, 20.0, 1.0))
    assert v[:, EDGE] == approx(np.where(before, 0.5, 0.375))
    assert not v[:, LOST].any()
    # The other user's have not changed.
    assert rows[1][1][:, LOCAL] == approx([20.0] * len(rows[1][1]))
    frames = bed.take_frames()
    assert bed.counters()[0].offered == 500 * before.sum() + 750 * (
        ((frames.flow == 0) & (frames.ue_sent > 0)).sum() - before.sum()
    )


def test_cached_tasks_go_before_one_that_the_device_still_works_on():
    bed = cell({**SLOW, "task_hz": 100.0})
    bed.apply({"u-0": {"local_share": (0.5,), "ue_ghz": (0.01,)}})
    phase = int(application(bed)._phase_ns[0])
    bed.advance(-(-(phase + 5 * MS) // SLOT_NS))
    bed.apply({"u-0": {"cached": (1.0,)}})
    bed.advance(SECOND // 2)
    time_ns, v = rows_of(bed)[0]
    # The first is 50 ms in the device, and its row comes first all the same.
    assert time_ns.tolist() == [phase + 10 * MS * k for k in range(len(v))]
    assert v[0, LOCAL] == approx(50.0) and np.isnan(v[1:, LOCAL]).all() and not v[:, LOST].any()
    frames = bed.take_frames()
    assert (frames.ue_sent - bed.epoch_ns)[5] == phase + 50 * MS


def test_tasks_wait_for_the_devices_processor_and_it_stops_at_their_timeout():
    options = {**SLOW, "task_hz": 100.0, "timeout_ms": 30.0}
    bed = cell(options)
    bed.apply({"u-0": {"local_share": (1.0,), "ue_ghz": (0.05,)}})  # 20 ms every 10 ms
    bed.advance(SECOND)
    v = rows_of(bed)[0][1]
    # Ends: 20, 40 (timeout of the second too), then 50, 60, ...: every task is stopped after 10 ms of work.
    assert v[0, TOTAL] == approx(20.0) and v[0, ENERGY] > 0
    assert v[1:, LOST].sum() == len(v) - 1 - (v[1, LOST] == 0)
    assert np.isnan(v[v[:, LOST] == 1][:, :ENERGY]).all()
    assert v[5:, ENERGY] == approx([v[0, ENERGY] / 2] * len(v[5:]))


def test_power_is_in_the_snr_at_once():
    bed = cell(EXACT, 2)
    bed.advance(10)
    before = [u.snr_db for u in bed.mac_report().ues]
    bed.apply({"u-1": {"power_dbm": (13.0,)}})
    after = [u.snr_db for u in bed.mac_report().ues]
    assert after == pytest.approx([before[0], before[1] - 10.0], abs=1e-5)


def test_less_power_takes_more_prb_for_the_same_tasks():
    prb = []
    for power in (23.0, 8.0):
        bed, rows = run(EXACT, 4, {"power_dbm": (power,), "local_share": (0.0,)})
        assert not rows[0][1][:, LOST].any()
        prb.append(bed.mac_report().ues[0].ul.prb_slots)
    assert prb[1] > 1.2 * prb[0]


# -- losses ------------------------------------------------------------------------------------------


def test_what_is_lost_on_the_way_has_a_row_after_its_timeout():
    # At -40 dBm nothing comes through.
    bed = cell(EXACT)
    bed.apply({"u-0": {"power_dbm": (-40.0,), "local_share": (0.2,)}})
    phase = int(application(bed)._phase_ns[0])
    bed.advance((phase + 100 * MS) // SLOT_NS - 1)
    assert rows_of(bed) == {}
    bed.advance((phase + 100 * MS + PLAN_NS) // SLOT_NS + 2)
    time_ns, v = rows_of(bed)[0]
    assert time_ns.tolist() == [phase] and v[0, LOST] == 1
    assert v[0, LOCAL] > 0 and v[0, ENERGY] > 0 and np.isnan(v[0, [UP, EDGE, DOWN, TOTAL]]).all()


def test_each_message_that_the_radio_loses_is_a_lost_task():
    # The SNR ages by some 0.3 dB a radio frame, without a margin.
    parts = {"cell": CellSpec(k2=2, short_packet_margin_db=0.0)}
    options = {**EXACT, "task_bytes": 40, "task_hz": 50.0, "result_bytes": 10}
    bed = cell(options, 4, error=0.3, snr_db=5.0, sd_db=1.5, **parts)
    bed.apply({f"u-{i}": {"local_share": (0.0,)} for i in range(4)})
    bed.advance(20 * SECOND)
    rows = rows_of(bed)
    bed.advance(20 * SECOND + 300)
    rows = {u: np.concatenate((rows[u][1], v)) for u, (_, v) in rows_of(bed).items()}
    lost_up = sum(int(np.isnan(v[:, UP]).sum()) for v in rows.values())
    lost = sum(int(v[:, LOST].sum()) for v in rows.values())
    up, down = bed.counters()[0::2], bed.counters()[1::2]
    assert 20 < lost_up < lost
    assert lost_up == pytest.approx(sum(c.dropped for c in up) / 40, abs=2)
    assert lost - lost_up == pytest.approx(sum(c.dropped for c in down) / 10, abs=2)
    for v in rows.values():
        assert np.array_equal(np.isnan(v[:, TOTAL]), v[:, LOST] == 1)


def test_a_result_after_the_timeout_is_a_loss():
    # 20 ms of work at the edge, and 15 until the timeout.
    options = {**SLOW, "timeout_ms": 15.0}
    bed, rows = run(options, settings={"local_share": (0.0,), "edge_ghz": (0.05,)})
    v = rows[0][1]
    assert v[:, LOST].all() and not np.isnan(v[:, UP]).any()
    assert np.isnan(v[:, [EDGE, DOWN, TOTAL]]).all()
    assert bed.counters()[1].delivered > 0


@pytest.mark.parametrize("name", ["ue_ghz", "edge_ghz"])
def test_the_slowest_rate_loses_every_task_and_stops_nothing(name):
    bed, rows = run(EXACT, settings={name: (5e-324,)}, n=2)
    for _, v in rows.values():
        assert len(v) > 30 and v[:, LOST].all()
    bed.apply({"u-0": {}})
    bed.advance(4 * SECOND)
    assert not rows_of(bed)[0][1][10:, LOST].any()


# -- rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_each_task_has_one_row_in_the_order_of_capture(transport):
    active = ((0.25, 1.0), (2.0, 3.5))
    bed = cell({"task_hz": 30.0}, 3, active=active, transport=transport, error=0.0)
    bed.advance(5 * SECOND)
    rows, app = rows_of(bed), application(bed)
    assert set(rows) == {0, 1, 2}
    for user, (time_ns, v) in rows.items():
        all_ns = app._phase_ns[user] + np.floor(np.arange(200) * SECOND_NS / 30).astype(np.int64)
        on = ((all_ns >= 0.25e9) & (all_ns < 1e9)) | ((all_ns >= 2e9) & (all_ns < 3.5e9))
        assert time_ns.tolist() == all_ns[on].tolist()
        assert v.shape[1] == 7 and np.isin(v[:, LOST], (0, 1)).all()


def test_a_task_that_would_be_sent_after_the_stop_has_no_row():
    bed = cell(SLOW, active=((0.0, 1.0),))
    bed.apply({"u-0": {"local_share": (0.5,), "ue_ghz": (0.01,)}})  # 50 ms in the device, as the period
    bed.advance(2 * SECOND)
    time_ns, v = rows_of(bed)[0]
    assert len(v) == 19 and time_ns.max() < 0.95e9 and not v[:, LOST].any()


def test_a_device_says_what_it_is_when_it_begins_and_every_ten_seconds():
    bed = cell({"energy_mj": 2.5, "max_power_dbm": 20.0}, 2, active=((1.5, 13.0), (13.5, 15.0)))
    bed.advance(20 * SECOND)
    rows = rows_of(bed, "device")
    for user in (0, 1):
        time_ns, v = rows[user]
        assert time_ns.tolist() == [1.5e9, 11.5e9, 13.5e9]
        expected = [1354, application(bed).cycles[user], 1.5, 2.5, 20.0, 0.0]
        assert v.tolist() == [expected] * 3


def test_rows_keep_their_precision_on_the_wire():
    bed = cell({}, 1)
    bed.advance(SECOND)
    for s in bed.take_samples():
        sent = list(samples_messages("u-0", s.table, s.time_ns, s.values))
        values = np.concatenate([np.array(m.samples.values) for m in sent])
        known = ~np.isnan(s.values.ravel())
        # A nanosecond in a millisecond would be 1e-6.
        assert values[known] == pytest.approx(s.values.ravel()[known], rel=1e-7)


# -- the defaults, and what is refused ---------------------------------------------------------------


def test_by_default_nothing_is_cached_and_the_edge_is_divided_evenly():
    bed, rows = run(NOMINAL, n=3)
    for user, (_, v) in rows.items():
        cycles = application(bed).cycles[user]
        assert v[:, LOCAL] == approx([cycles / 2 / 1.5 / 1e6] * len(v))
        assert v[:, EDGE] == approx([cycles / 2 / 10.0 / 1e6] * len(v))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tasks": 3}, "urllc has no option tasks"),
        ({"task_bytes": 0}, "task_bytes 0"),
        ({"task_bytes": 10.5}, "task_bytes 10.5 is no whole number"),
        ({"cycles_per_byte": [300.0, 100.0]}, "cycles_per_byte"),
        ({"cycles_per_byte": [0.0, 100.0]}, "cycles_per_byte"),
        ({"cycles_per_byte": 100.0}, "cycles_per_byte 100.0 is not 2 numbers"),
        ({"task_hz": 0.0}, "task_hz"),
        ({"ue_ghz": -1.0}, "ue_ghz"),
        ({"edge_ghz": math.nan}, "edge_ghz nan"),
        ({"deviation": 1.0}, "deviation 1.0"),
        ({"work_sd": -0.1}, "work_sd"),
        ({"timeout_ms": 0.0}, "timeout_ms"),
        ({"max_power_dbm": -50.0}, "max_power_dbm"),
        ({"theta": -1e-26}, "theta"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options, says):
    with pytest.raises(ValueError, match=f"flow 'u-0': .*{says}"):
        cell(options)


def test_all_users_have_the_same_options():
    users = [UserSpec(f"u-{i}", "ue-0", options={"task_hz": 10.0 + i}) for i in (0, 1)]
    spec = TestbedSpec([UeSpec("ue-0", 1)], [], applications=[ApplicationSpec("urllc", users)])
    with pytest.raises(ValueError, match="flow 'u-1': its options differ from those of 'u-0'"):
        EmulatedTestbed(spec, seed=1)


def test_a_held_uplink_is_in_the_uplinks_part_alone():
    calm, held = (
        run({**NOMINAL, "timeout_ms": 500.0}, 10, {"local_share": (0.3,)}, path=path)[1][0][1]
        for path in (PROMPT, replace(PROMPT, ul_hold_rate_hz=11.0))
    )
    assert np.percentile(held[:, UP], 99) > 2 * np.percentile(calm[:, UP], 99)
    for part in (LOCAL, EDGE):
        assert held[:, part] == approx(calm[:, part])
