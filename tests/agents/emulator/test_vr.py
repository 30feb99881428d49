"""The application ``vr``: what is rendered, what it costs, what arrives of it, and what is said of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from agents.emulator.applications import vr
from agents.emulator.applications.base import NEVER, ExchangeTimes
from agents.emulator.applications.vr import DrawnScenes, Vr, VrOptions
from agents.emulator.spec import (
    ApplicationSpec,
    CellSpec,
    ChannelProcess,
    EdgeSpec,
    PathSpec,
    RlcSpec,
    TestbedSpec,
    UeSpec,
    UserSpec,
)
from agents.emulator.testbed import EmulatedTestbed
from agents.links.qos import samples_messages
from wire.definitions import cloud_gaming as cg
from wire.definitions.nr import SLOT_NS

SECOND = 2000
SECOND_NS = 10**9
MS = 10**6
REAL = Path(__file__).parents[3] / "../shared/data/vr-gx/sixteen-users.json"
CALM = PathSpec(ul_hold_rate_hz=0.0, hiccup_rate_hz=0.0)
STEADY = EdgeSpec(stall_rate_hz=0.0)
ALWAYS = ((0.0, 1e6),)
SMALL = {"hmd_resolution": "4k", "max_fps": 90, "bits_per_pixel": 0.02, "scene_s": 0}


def saved(tmp_path, *users):
    """An instance of users (hmd_resolution, max_fps, [(id, pixels, attention)])."""
    rows = [
        {
            "hmd_resolution": hmd,
            "max_fps": fps,
            "objects": [{"id": i, "pixels": a, "attention": w} for i, a, w in objects],
        }
        for hmd, fps, objects in users
    ]
    file = tmp_path / "instance.json"
    file.write_text(json.dumps({"users": rows}))
    return {"instance": str(file), "bits_per_pixel": 0.02}


HALVES = ("8k", 90, [(7, cg.VIEW_PIXELS / 2, 5), (3, cg.VIEW_PIXELS / 2, 1.5)])


def users(options, n=1, *, active=ALWAYS, transport="tcp"):
    return [UserSpec(f"vr-{i}", f"ue-{i}", active, transport=transport, options=options) for i in range(n)]


def cell(options, n=1, *, seed=3, active=ALWAYS, transport="tcp", channel=None, **parts):
    ues = [UeSpec(f"ue-{i}", i + 1, "s", channel or ChannelProcess(sd_db=0.0)) for i in range(n)]
    spec = ApplicationSpec("vr", users(options, n, active=active, transport=transport))
    parts = {"path": CALM, "edge": STEADY, **parts}
    return EmulatedTestbed(TestbedSpec(ues, [], applications=[spec], **parts), seed=seed)


def application(bed) -> Vr:
    return bed._applications[0].application


def tables(bed):
    """{table: {user: (time [n], values [n, columns])}}."""
    result = {}
    for s in bed.take_samples():
        result.setdefault(s.table, {})[s.flow] = (s.time_ns - bed.epoch_ns, s.values)
    return result


def run(app, until_ns, delay_ns=10 * MS):
    """The application alone, whose frames all take the same time; its exchanges and rows, both stacked.

    ``delay_ns`` may be a function of (user, sequence): NEVER for what is lost.
    """
    delay = delay_ns if callable(delay_ns) else lambda user, sequence: delay_ns
    offered, rows = [], {}
    waiting, count = [], [0] * len(app.users)
    while app.due_ns < until_ns:
        now = app.due_ns
        back = [w for w in waiting if w[2] < now]
        waiting = [w for w in waiting if w[2] >= now]
        if back:
            user, sequence, received, due = np.array(sorted(back)).T
            app.take(ExchangeTimes(user, sequence, due, due, due + 3 * MS, received))
        e = app.offer(now)
        for u, due in zip(e.user.tolist(), e.due_ns.tolist(), strict=True):
            waiting.append((u, count[u], due + delay(u, count[u]), due))
            count[u] += 1
        offered.append(np.stack((e.user, e.due_ns, e.gpu_ns, e.edge_ns, e.dl_bytes), axis=1))
        for table, (user, time_ns, values) in app.samples().items():
            rows.setdefault(table, []).append(np.column_stack((user, time_ns, values)))
    return np.concatenate(offered), {table: np.concatenate(parts) for table, parts in rows.items()}


# -- what a frame costs ------------------------------------------------------------------------------


def test_pixels_work_and_bytes_follow_from_areas_and_classes(tmp_path):
    options = {
        **saved(tmp_path, HALVES),
        "bits_per_pixel": 0.25,
        "flop_per_pixel": 600,
        "gpu_flops_per_s": 2e12,
        "encoding_ms": 1.5,
        "size_jitter": 0,
    }
    for settings, expected, quality in (
        ({}, 2560 * 1440, 0.0),
        ({"objects": (7.0,), "resolutions": (24.0,)}, 2560 * 1440 / 2 * (1 + 81), 5 * math.log(12)),
        (
            {"objects": (3.0, 7.0, 99.0), "resolutions": (4.0, 12.0, 8.0)},
            2560 * 1440 / 2 * (2.25 + 20.25),
            1.5 * math.log(2) + 5 * math.log(6),
        ),
    ):
        app = Vr(users(options), 1)
        app.apply(0, {**app.defaults(0), **settings}, 0, 0)
        frames, rows = run(app, SECOND_NS)
        _, _, gpu, edge, size = frames.T
        assert len(frames) > 25
        assert gpu == pytest.approx(expected * 600 / 2e12 * 1e9, abs=2)
        assert (edge == 1.5 * MS).all()
        assert size == pytest.approx(expected * 0.25 / 8, abs=1)
        last = rows["delivered"][-1]
        assert last[3:6].tolist() == pytest.approx([30.0, quality, expected])


def test_sizes_vary_by_the_jitter_and_depend_on_the_time_of_the_frame_alone(tmp_path):
    options = {**saved(tmp_path, HALVES, HALVES), "size_jitter": 0.2}
    sizes = []
    for settings in ({}, {"frame_rate": (90.0,), "objects": (7.0,), "resolutions": (8.0,)}):
        app = Vr(users(options, 2), 5)
        for u in range(2):
            app.apply(u, {**app.defaults(u), **settings}, 0, 0)
        frames, rows = run(app, 10 * SECOND_NS)
        mean = rows["delivered"][0, 5] * 0.02 / 8
        sizes.append({(u, t): s / mean for u, t, _, _, s in frames.tolist()})
    slow, fast = sizes
    values = np.array(list(slow.values()))
    assert 0.8 <= values.min() < 0.82 and 1.18 < values.max() <= 1.2
    assert values.mean() == pytest.approx(1.0, abs=0.02)
    assert len(fast) == pytest.approx(3 * len(slow), abs=6) and slow.keys() <= fast.keys()
    assert [fast[k] for k in slow] == pytest.approx(list(slow.values()), rel=1e-3)


def test_gpu_and_latency_are_what_the_cell_did():
    """The rows against the times of the testbed; a slower clock makes each frame take as much longer."""
    spans = []
    for mhz in (1600, 400):
        bed = cell({**SMALL, "encoding_ms": 3.0}, 2, edge=EdgeSpec(stall_rate_hz=0.0, clock_lag_ms=0.0))
        bed.set_gpu_mhz(mhz)
        bed.advance(3 * SECOND)
        f, seen = bed.take_frames(), tables(bed)["delivered"]
        for user in range(2):
            mine = f.flow == user
            sent, edge, back = (c[mine] - bed.epoch_ns for c in (f.ue_sent, f.edge_sent, f.ue_received))
            time_ns, values = seen[user]
            n = len(time_ns)
            assert n > 80 and np.array_equal(time_ns, sent[:n])
            assert values[:, 0] == pytest.approx((back - sent)[:n] / 1e6)
            assert values[:, 4] == pytest.approx((edge - sent)[:n] / 1e6 - 3.0)
            assert (values[:, 1] == 30.0).all()
        spans.append(np.median(seen[0][1][:, 4]))
    e = EdgeSpec()
    slowdown = (e.base_ms + 4 * e.clocked_ms) / (e.base_ms + e.clocked_ms)
    assert spans[0] == pytest.approx(cg.RESOLUTION_PIXELS[2] * cg.FLOP_PER_PIXEL / 3e9, rel=1e-5)
    assert spans[1] == pytest.approx(slowdown * spans[0], rel=1e-5)


# -- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [30, 60, 90])
def test_frames_are_evenly_spaced_and_another_rate_begins_with_the_next(rate):
    bed = cell(SMALL, 3)
    instant = SECOND + 77
    bed.advance(instant)
    bed.apply({"vr-1": {"frame_rate": (float(rate),)}})
    bed.advance(3 * SECOND)
    seen, phases = tables(bed)["delivered"], set()
    for user in range(3):
        due, values = seen[user]
        after = due >= instant * SLOT_NS
        hz = rate if user == 1 else 30
        assert values[:, 1].tolist() == np.where(after, hz, 30).tolist()
        before, after = due[~after], due[after]
        assert np.abs(np.diff(before) - SECOND_NS / 30).max() <= 1
        assert np.abs(np.diff(after) - SECOND_NS / hz).max() <= 1 and len(after) > 50
        assert after[0] - before[-1] <= SECOND_NS / 30 + 1
        phases.add(int(due[0]))
    assert len(phases) == 3 and max(phases) < SECOND_NS / 30


def test_what_is_set_as_it_was_moves_no_frame_and_no_row():
    """A setting calls the application, and takes back what it has planned, at instants of its own."""
    options = {**SMALL, "max_fps": 60, "scene_s": 0.3, "bits_per_pixel": 0.12}
    beds = [cell(options, 3) for _ in range(2)]
    for instant in range(3, 3 * SECOND, 3):
        beds[1].advance(instant)
        beds[1].apply({"vr-1": {"frame_rate": (30.0,)}})
    frames, rows = [], []
    for bed in beds:
        bed.advance(3 * SECOND + 400)
        f, seen = bed.take_frames(), tables(bed)
        frames.append(np.stack((f.flow, f.sequence, f.ue_sent, f.edge_sent, f.ue_received)).tolist())
        rows.append(
            {
                (table, user): np.column_stack(part)[:60]
                for table, of in seen.items()
                for user, part in of.items()
            }
        )
    assert frames[0] == frames[1]
    assert rows[0].keys() == rows[1].keys() and len(rows[0]) == 9
    for key, first in rows[0].items():
        assert np.array_equal(first, rows[1][key], equal_nan=True), key
    # It is a busy cell, in which frames are skipped.
    assert np.isnan(rows[0]["delivered", 1][:, 1]).any()


def test_an_object_that_is_not_in_view_counts_when_it_comes():
    app = Vr(users({**SMALL, "objects": 6, "scene_s": 0.5}), 11)
    scenes = [app.source.scene(0, k) for k in range(9)]
    coming = sorted(set(scenes[8].ids.tolist()) - set(scenes[0].ids.tolist()))
    assert len(coming) >= 3
    settings = {"objects": tuple(map(float, coming)), "resolutions": (8.0,) * len(coming)}
    app.apply(0, {**app.defaults(0), **settings}, 0, 0)
    ends = np.cumsum([app.source.length_ns(0, k) for k in range(9)])
    _, rows = run(app, int(ends[-1]))
    number = np.searchsorted(ends, rows["delivered"][:, 1], side="right")
    expected = []
    for k in number.tolist():
        named = np.isin(scenes[k].ids, coming)
        expected.append(scenes[k].attention[named].sum() * math.log(4))
    assert rows["delivered"][:, 4] == pytest.approx(expected)
    assert expected[0] == 0.0 and len(set(expected)) >= 3


def test_the_shorter_of_objects_and_resolutions_counts_and_a_new_setting_forgets_the_old(tmp_path):
    options = saved(tmp_path, HALVES)
    bed = cell(options)
    for k, (settings, quality) in enumerate(
        (
            ({"objects": (7.0, 3.0), "resolutions": (4.0,)}, 5 * math.log(2)),
            ({"objects": (3.0,), "resolutions": (4.0, 8.0)}, 1.5 * math.log(2)),
            ({"resolutions": (8.0, 8.0)}, 0.0),
            ({"objects": (7.0, 3.0)}, 0.0),
        )
    ):
        bed.apply({"vr-0": settings})
        bed.advance((k + 1) * SECOND)
        _, values = tables(bed)["delivered"][0]
        assert len(values) > 25 and values[5:, 2] == pytest.approx(quality)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"frame_rate": (90.0,)}, "'frame_rate': 90 Hz is neither 0 nor one of 30, 60, 90 up to 60"),
        ({"frame_rate": (45.0,)}, "45 Hz is neither 0 nor one of"),
        ({"frame_rate": (30.0, 60.0)}, "2 values instead of 1"),
        ({"objects": (1.5,)}, "'objects': 1.5 is no id"),
        ({"objects": (-1.0,)}, "-1 is no id"),
        ({"objects": (2.0, 1.0, 2.0)}, "named twice"),
        ({"objects": tuple(map(float, range(65)))}, "65 values instead of 1 to 64"),
        ({"objects": ()}, "0 values instead of 1 to 64"),
        ({"resolutions": (2.0, 8.0)}, "'resolutions': 8 is none of 2, 4$"),
    ],
)
def test_settings_that_the_device_does_not_have_are_refused_by_name(tmp_path, settings, says):
    bed = cell(saved(tmp_path, ("2k", 60, [(1, 1000, 1)])))
    with pytest.raises(ValueError, match=f"'vr-0', setting .*{says}"):
        bed.apply({"vr-0": settings})


def test_without_settings_a_device_gets_the_default_or_the_highest_below_it_that_it_has(tmp_path):
    options = saved(tmp_path, ("2k", 30, [(1, 9, 1)]), ("8k", 72, [(1, 9, 1)]), ("4k", 90, [(1, 9, 1)]))
    app = Vr(users({**options, "default_frame_rate": 90, "default_class": 12}, 3), 1)
    assert [app.defaults(u)["frame_rate"] for u in range(3)] == [(30.0,), (60.0,), (90.0,)]
    _, rows = run(app, SECOND_NS)
    quality = {int(u): q for u, q in rows["delivered"][:, [0, 4]]}
    assert quality == pytest.approx({0: math.log(2), 1: math.log(6), 2: math.log(4)})


# -- rows of scenes ----------------------------------------------------------------------------------


def test_a_scene_is_there_at_once_after_each_change_and_every_second():
    active = ((0.25, 4.0), (4.3, 6.0))
    bed = cell({**SMALL, "scene_s": 1.5}, 3, active=active)
    bed.advance(8 * SECOND)
    app, seen = application(bed), tables(bed)
    for user in range(3):
        lengths = [app.source.length_ns(user, k) for k in range(40)]
        changes = np.cumsum(lengths)
        moments, at = [], 0
        for start, stop in active:
            at = round(start * SECOND_NS)
            while at < stop * SECOND_NS:
                moments.append(at)
                at = min(at + SECOND_NS, int(changes[np.searchsorted(changes, at, side="right")]))
        time_ns, values = seen["scene"][user]
        expected = [app.source.scene(user, int(np.searchsorted(changes, t, side="right"))) for t in moments]
        assert time_ns.tolist() == [t for t, s in zip(moments, expected, strict=True) for _ in s.ids]
        rows = [np.column_stack((s.ids, s.area, s.attention)) for s in expected]
        assert np.array_equal(values, np.concatenate(rows))
        time_ns, values = seen["device"][user]
        assert time_ns.tolist() == moments and (values == (90.0, 8.0)).all()
        changed = sum(0 <= c - s * SECOND_NS < (e - s) * SECOND_NS for c in changes for s, e in active)
        assert changed >= 1 and len(moments) >= 7


def test_frames_have_the_pixels_of_the_scene_in_which_they_are_due():
    bed = cell({**SMALL, "scene_s": 0.2, "default_class": 8, "bits_per_pixel": 0.002}, 2)
    bed.advance(3 * SECOND)
    bed.apply({"vr-0": {"objects": (0.0,), "resolutions": (2.0,)}})
    bed.advance(4 * SECOND)
    app, seen = application(bed), tables(bed)["delivered"]
    for user in range(2):
        ends = np.cumsum([app.source.length_ns(user, k) for k in range(200)])
        time_ns, values = seen[user]
        expected = []
        for t in time_ns.tolist():
            scene = app.source.scene(user, int(np.searchsorted(ends, t, side="right")))
            coarse = (scene.ids == 0) & (user == 0) & (t >= 3 * SECOND_NS)
            expected.append(float(scene.attention[~coarse].sum() * math.log(4)))
        assert len(expected) > 100 and len(set(expected)) > 5
        assert values[:, 2] == pytest.approx(expected)


def test_the_largest_scene_fits_into_messages():
    bed = cell({**SMALL, "objects": vr.MAX_OBJECTS, "scene_s": 0.5}, 2)
    bed.advance(20 * SECOND)
    seen = {(s.table, s.flow): s for s in bed.take_samples()}
    scene = seen["scene", 0]
    assert len(scene.time_ns) > 1024 and len(scene.time_ns) % 64 == 0
    messages = list(samples_messages("vr-0", "scene", scene.time_ns, scene.values))
    sent = np.concatenate([np.reshape(m.samples.values, (-1, 3)) for m in messages])
    assert np.array_equal(sent[:, 0], scene.values[:, 0]) and np.array_equal(sent[:, 2], scene.values[:, 2])
    assert sent[:, 1] == pytest.approx(scene.values[:, 1], rel=1e-6)
    objects = tuple(scene.values[-64:, 0].tolist())
    bed.apply({"vr-0": {"objects": objects, "resolutions": (8.0,) * 64}})


# -- a server that is behind -------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_each_frame_has_one_row_and_no_more_are_under_way_than_the_backlog(transport):
    options = {**SMALL, "bits_per_pixel": 0.1, "max_backlog": 3, "give_up_ms": 150, "default_frame_rate": 60}
    bed = cell(options, 2, transport=transport)
    bed.set_quotas({"s": (106, 20)}, {})
    bed.advance(3 * SECOND)
    bed.set_quotas({"s": (106, 106)}, {})
    bed.advance(4 * SECOND)
    f, app, seen = bed.take_frames(), application(bed), tables(bed)["delivered"]
    for user in range(2):
        mine = f.flow == user
        sent, back = f.ue_sent[mine] - bed.epoch_ns, f.ue_received[mine] - bed.epoch_ns
        received = dict(zip(sent.tolist(), back.tolist(), strict=True))
        time_ns, values = seen[user]
        k = np.arange(len(time_ns) + 9)
        due = app._phase_ns[user] + (k - 5) * SECOND_NS // 60
        assert time_ns.tolist() == due[due >= 0][: len(time_ns)].tolist() and len(time_ns) > 200
        latency = np.array([received.get(t, -1) - t for t in time_ns.tolist()]) / 1e6
        expected = np.where((latency > 0) & (latency <= 150), latency, np.nan)
        assert np.array_equal(values[:, 0], expected, equal_nan=True)
        skipped = np.array([t not in received for t in time_ns.tolist()])
        late = ~skipped & (latency > 150)
        assert skipped.sum() > 50 and late.sum() > 5 and np.isfinite(expected).sum() > 20
        assert np.isnan(values[skipped, 4]).all() and np.isfinite(values[~skipped & ~late, 4]).all()
        if transport == "tcp":
            underway = [np.sum((sent < t) & ((back < 0) | (back >= t))) for t in sent.tolist()]
            assert max(underway) == 2


def test_after_an_outage_a_server_goes_on_and_what_was_given_up_is_not_repeated():
    bed = cell({**SMALL, "give_up_ms": 300}, 2)
    bed.advance(SECOND)
    bed.set_quotas({"s": (106, 0)}, {})
    for instant in range(3 * SECOND, 4 * SECOND, 3):
        bed.advance(instant)
        bed.apply({f"vr-{instant % 2}": {}})
    bed.set_quotas({"s": (106, 106)}, {})
    bed.advance(8 * SECOND)
    time_ns, values = tables(bed)["delivered"][0]
    arrived = np.isfinite(values[:, 0])
    assert np.abs(np.diff(time_ns) - SECOND_NS / 30).max() <= 1
    outage = (time_ns >= 1.05 * SECOND_NS) & (time_ns < 3.7 * SECOND_NS)
    assert outage.sum() > 75 and not arrived[outage].any()
    assert arrived[time_ns > 6 * SECOND_NS].all()
    assert bed.health().exchanges_refused == 0


def test_frames_lost_on_the_way_are_given_up_and_do_not_stop_the_server():
    bed = cell(
        {**SMALL, "give_up_ms": 200},
        transport="udp",
        channel=ChannelProcess(14.0, 14.0, 0.5),
        rlc=RlcSpec(mode="um"),
        cell=CellSpec(harq_rounds=1),
    )
    bed.advance(6 * SECOND)
    f, (time_ns, values) = bed.take_frames(), tables(bed)["delivered"][0]
    back = f.ue_received[: len(time_ns)] > 0
    lost = np.isnan(values[:, 0])
    assert len(time_ns) >= 170 and 20 < lost.sum() < len(lost) - 10
    assert lost[np.isin(time_ns, (f.ue_sent - bed.epoch_ns)[: len(back)][back])].sum() == 0


def test_when_all_that_is_under_way_is_lost_a_frame_goes_at_a_time_until_one_arrives():
    app = Vr(users({**SMALL, "give_up_ms": 400}, transport="udp"), 2)
    lost = range(30, 36)
    _, rows = run(app, 5 * SECOND_NS, lambda _, k: NEVER if k in lost else 10 * MS)
    time_ns, latency = rows["delivered"][:, [1, 2]].T
    assert np.isfinite(latency[:30]).all() and np.isnan(latency[30:34]).all()
    # 30 to 33 fill the backlog; 34 goes once these are given up, 35 once 34 is.
    missing = np.flatnonzero(np.isnan(latency))
    assert missing.tolist() == list(range(30, int(missing[-1]) + 1))
    outage = (time_ns[missing[-1] + 1] - time_ns[30]) / MS
    assert 100 + 3 * 400 <= outage <= 100 + 3 * 440
    assert len(latency) - missing[-1] > 50


def test_a_row_waits_for_those_before_it():
    lost = {3, 4}
    app = Vr(users(SMALL, transport="udp"), 2)
    rows, due_ns, count = [], [], 0
    while app.due_ns < SECOND_NS:
        now = app.due_ns
        k = np.array([i for i, t in enumerate(due_ns) if now - 5 * MS <= t + 40 * MS < now and i not in lost])
        if len(k):
            due = np.array(due_ns)[k]
            app.take(ExchangeTimes(0 * k, k, due, due, due + 3 * MS, due + 40 * MS))
        e = app.offer(now)
        due_ns += e.due_ns.tolist()
        if "delivered" in (new := app.samples()):
            time_ns, values = new["delivered"][1:]
            rows += [(t, now - t, v) for t, v in zip(time_ns.tolist(), values[:, 0].tolist(), strict=True)]
        count += len(e)
    assert [t for t, _, _ in rows] == due_ns[: len(rows)] and len(rows) > 20
    waited = np.array([w for _, w, _ in rows]) / MS
    assert [i for i, (_, _, v) in enumerate(rows) if math.isnan(v)] == sorted(lost)
    assert waited[:3].max() <= 46 and 500 <= waited[3] <= 506 and 500 - 34 <= waited[5] <= 506 - 33
    assert waited[-1] <= 46


# -- what users see ----------------------------------------------------------------------------------


def drawn(seed=7, n=60, **options):
    return DrawnScenes(seed, np.arange(n), VrOptions(**options))


def test_drawn_scenes_are_a_function_of_their_number_and_share_objects_with_those_before():
    source, fresh = drawn(), drawn()
    stays, shares = [], []
    for user in range(60):
        scenes = [source.scene(user, k) for k in range(12)]
        later = fresh.scene(user, 11)
        assert np.array_equal(later.ids, scenes[11].ids) and np.array_equal(later.area, scenes[11].area)
        attention: dict[int, float] = {}
        gone: set[int] = set()
        for before, scene in zip([None, *scenes], scenes, strict=False):
            ids = scene.ids.tolist()
            assert 3 <= len(set(ids)) == len(ids) <= 20
            assert scene.area.sum() == pytest.approx(cg.VIEW_PIXELS) and scene.area.min() > 0
            assert gone.isdisjoint(ids)
            for i, a in zip(ids, scene.attention.tolist(), strict=True):
                assert attention.setdefault(i, a) == a and a in (0, 1, 2, 3, 4, 5)
            if before is not None:
                gone |= set(before.ids.tolist()) - set(ids)
                stays.append(np.isin(before.ids, scene.ids).mean())
            shares.append(scene.area / scene.area.mean())
    assert np.mean(stays) == pytest.approx(2 / 3, abs=0.03)
    # The square of a normal number: a quarter is below 0.1 of the mean, 8 % below 0.01.
    shares = np.concatenate(shares)
    assert np.mean(shares < 0.1) == pytest.approx(0.25, abs=0.04)
    assert np.mean(shares < 0.01) == pytest.approx(0.08, abs=0.02)


def test_drawn_users_have_all_kinds_of_devices_and_scenes_of_the_asked_length():
    source = drawn(n=300, scene_s=5.0)
    assert {d.classes for d in source.devices} == set(cg.HMD_CLASSES.values())
    assert {d.max_fps for d in source.devices} == set(cg.FRAME_RATES_HZ)
    assert {len(source.scene(u, 0).ids) for u in range(300)} == set(range(3, 21))
    lengths = np.array([source.length_ns(u, k) for u in range(300) for k in range(4)])
    assert lengths.mean() / 1e9 == pytest.approx(5.0, rel=0.1) and (lengths % SLOT_NS == 0).all()
    assert lengths.std() == pytest.approx(lengths.mean(), rel=0.15)
    same = drawn(n=5, hmd_resolution="4k", max_fps=60, objects=9, scene_s=0)
    assert {(d.classes, d.max_fps) for d in same.devices} == {((2, 4, 8), 60)}
    assert {len(same.scene(u, 0).ids) for u in range(5)} == {9}
    assert same.length_ns(0, 0) == NEVER


def test_users_beyond_the_instance_are_as_the_first_and_an_index_chooses(tmp_path):
    options = saved(tmp_path, HALVES, ("2k", 60, [(1, 1000.5, 2.5)]))
    specs = [UserSpec(f"vr-{i}", "u", index=k, options=options) for i, k in enumerate((1, 4, 3))]
    app = Vr(specs, 1)
    assert [d.max_fps for d in app.source.devices] == [60, 90, 60]
    scene = app.source.scene(0, 0)
    assert (scene.ids.tolist(), scene.area.tolist(), scene.attention.tolist()) == ([1], [1000.5], [2.5])


@pytest.mark.skipif(not REAL.is_file(), reason="needs ../shared/data/vr-gx")
def test_the_users_of_the_papers_instance_play():
    bed = cell({"instance": str(REAL), "bits_per_pixel": 0.005}, 16)
    bed.advance(3 * SECOND)
    content, seen = json.loads(REAL.read_text()), tables(bed)
    for user, expected in enumerate(content["users"]):
        rows = [(o["id"], o["pixels"], o["attention"]) for o in expected["objects"]]
        time_ns, values = seen["scene"][user]
        assert values[: len(rows)].tolist() == [list(map(float, r)) for r in rows]
        classes = content["allowed_resolutions"][expected["hmd_resolution"]]
        limits = [expected["max_fps"], cg.class_of(classes[-1])]
        assert seen["device"][user][1][0].tolist() == limits
        time_ns, values = seen["delivered"][user]
        late = time_ns > SECOND_NS
        assert late.sum() > 50 and np.isfinite(values[late, 0]).all()
        assert values[:, 3] == pytest.approx(content["resolution_pixels"]["2K"])


def test_a_smaller_quota_delivers_less():
    delivered = []
    for quota in (106, 30, 10):
        bed = cell({**SMALL, "bits_per_pixel": 0.05}, 4)
        bed.set_quotas({"s": (106, quota)}, {})
        bed.advance(4 * SECOND)
        rows = [v for t, v in tables(bed)["delivered"].values()]
        delivered.append(float(np.mean([np.isfinite(v[30:, 0]).mean() for v in rows])))
    assert delivered[0] > 0.98 and delivered[0] > delivered[1] + 0.1 and delivered[1] > delivered[2] + 0.1


# -- what is refused ---------------------------------------------------------------------------------


def instance(change):
    """A good instance, but for what ``change`` does to its second user."""
    user = {"hmd_resolution": "2k", "max_fps": 60, "objects": [{"id": 1, "pixels": 10, "attention": 1}]}
    users = json.loads(json.dumps([user, user]))
    change(users[1])
    return json.dumps({"users": users})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no list of users"),
        ('{"users": []}', "no list of users"),
        ('{"users": [4]}', "user 0: there is no 'hmd_resolution'"),
        (instance(lambda u: u.update(hmd_resolution="3k")), "user 1: hmd_resolution '3k' is none of 2k, 4k"),
        (instance(lambda u: u.update(hmd_resolution=["2k"])), r"user 1: hmd_resolution \['2k'\] is none of"),
        (instance(lambda u: u.pop("max_fps")), "user 1: there is no 'max_fps'"),
        (instance(lambda u: u.update(max_fps=20)), "user 1: max_fps 20 is below 30"),
        (instance(lambda u: u.update(max_fps="60")), "user 1: max_fps '60' is no number"),
        (instance(lambda u: u.update(max_fps=10**400)), "user 1: max_fps 10+ is not finite"),
        (instance(lambda u: u.update(objects=[])), "user 1: objects are no list of 1 to 64"),
        (instance(lambda u: u.update(objects=u["objects"] * 65)), "user 1: objects are no list of 1 to 64"),
        (instance(lambda u: u.update(objects=u["objects"] * 2)), "user 1: two objects have the same id"),
        (instance(lambda u: u["objects"].append(3)), "user 1: object 1: there is no 'id'"),
        (instance(lambda u: u["objects"][0].update(id=1.5)), "object 0: id 1.5 is no whole number"),
        (instance(lambda u: u["objects"][0].update(id=-1)), r"object 0: id -1 is outside \[0"),
        (
            instance(lambda u: u["objects"][0].update(pixels=0)),
            r"object 0: pixels 0 is outside \(0, 230400\]",
        ),
        (instance(lambda u: u["objects"][0].update(pixels=math.nan)), "object 0: pixels nan is not finite"),
        (instance(lambda u: u["objects"][0].update(attention=5.5)), r"attention 5.5 is outside \[0, 5\]"),
        (instance(lambda u: u["objects"][0].update(attention=True)), "attention True is no number"),
    ],
)
def test_bad_instances_are_refused_by_name(tmp_path, content, says):
    file = tmp_path / "bad.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=f"flow 'vr-0': .*bad.json: .*{says}"):
        cell({"instance": str(file)})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fps": 30}, "vr has no option fps; it has instance, objects"),
        ({"objects": 65}, "objects 65 is outside 0..64"),
        ({"objects": 2.5}, "objects 2.5 is no whole number"),
        ({"hmd_resolution": "3k"}, "hmd_resolution '3k' is none of 2k, 4k, 8k"),
        ({"hmd_resolution": 2}, "hmd_resolution 2 is no text"),
        ({"max_fps": 20}, "max_fps 20 is below 30"),
        ({"scene_s": -1}, "scene_s -1 is outside"),
        ({"scene_s": 1e-3}, "scene_s 0.001 is neither 0 nor 0.01 or more"),
        ({"bits_per_pixel": 0}, "bits_per_pixel 0 is outside"),
        ({"flop_per_pixel": float("inf")}, "flop_per_pixel inf is not finite"),
        ({"gpu_flops_per_s": 0}, "gpu_flops_per_s 0 is outside"),
        ({"size_jitter": 1}, "size_jitter 1 is outside"),
        ({"encoding_ms": True}, "encoding_ms True is no number"),
        ({"default_frame_rate": 45}, "default_frame_rate 45 Hz is none of 30, 60, 90"),
        ({"default_class": 3}, "default_class 3 is none of 2, 4, 8, 12, 24"),
        ({"give_up_ms": 0}, "give_up_ms 0 is outside"),
        ({"max_backlog": 0}, "max_backlog 0 is outside"),
        ({"max_backlog": 17}, "max_backlog 17 is outside"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options, says):
    with pytest.raises(ValueError, match=f"flow 'vr-0': {says}"):
        cell(options)


def test_all_users_have_the_same_options():
    specs = [UserSpec(f"f-{i}", "u", options={"objects": 3 + i}) for i in range(2)]
    with pytest.raises(ValueError, match="'f-1': its options differ from those of 'f-0'"):
        Vr(specs, 1)
