"""The application ``mar``: what is uploaded, what the edge knows when, what it predicts, and what is hit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from agents.emulator.applications import mar
from agents.emulator.applications.base import ExchangeTimes
from agents.emulator.applications.mar import Mar, Traces, Walks
from agents.emulator.spec import (
    ApplicationSpec,
    CellSpec,
    ChannelProcess,
    PathSpec,
    RlcSpec,
    TestbedSpec,
    UeSpec,
    UserSpec,
)
from agents.emulator.testbed import EmulatedTestbed
from wire.definitions import poses as p
from wire.definitions import vchr

SECOND = 2000
SECOND_NS = 10**9
MS = 10**6
REAL = Path(__file__).parents[3] / "../shared/data/pose-traces"
CALM = PathSpec(ul_hold_rate_hz=0.0, hiccup_rate_hz=0.0)
HERE = {"content_x": 0.0, "content_z": 0.0}
ALWAYS = ((0.0, 1e6),)


def saved(tmp_path, poses, name="walk.npz"):
    np.savez(tmp_path / name, pose=poses)
    return {"traces": str(tmp_path / name), **HERE}


def still(users=1, frames=50):
    """People who stand 1.5 m before the content and look at it."""
    poses = np.zeros((users, frames, 6))
    poses[..., 1], poses[..., 2], poses[..., 3] = 1.5, -1.5, 15.0
    return poses


def turning(frames=400):
    """Somebody who walks by at 0.3 m/s and turns by 30 degrees a second, through 360."""
    poses = still(1, frames)
    k = np.arange(frames)
    poses[0, :, 0], poses[0, :, 4] = 0.01 * k - 1.0, (330 + k) % 360
    return poses


def cell(options, n=1, *, seed=3, active=ALWAYS, transport="tcp", **parts):
    ues = [UeSpec(f"ue-{i}", i + 1, "s", ChannelProcess(sd_db=0.0)) for i in range(n)]
    users = [UserSpec(f"mar-{i}", f"ue-{i}", active, transport=transport, options=options) for i in range(n)]
    parts = {"path": CALM, **parts}
    return EmulatedTestbed(
        TestbedSpec(ues, [], applications=[ApplicationSpec("mar", users)], **parts), seed=seed
    )


def application(bed) -> Mar:
    return bed._applications[0].application


def tables(bed):
    """{table: {user: (frame [n], values [n, columns])}}."""
    app, result = application(bed), {}
    for s in bed.take_samples():
        user = np.full(len(s.time_ns), s.flow)
        frame = app._frame_at(user, s.time_ns - bed.epoch_ns)
        assert np.array_equal(app._captured_ns(user, frame), s.time_ns - bed.epoch_ns)
        result.setdefault(s.table, {})[s.flow] = (frame, s.values)
    return result


def mean_hits(bed, first=30):
    hits = tables(bed)["hits"]
    return float(np.mean([np.nanmean(values[frame >= first]) for frame, values in hits.values()]))


# -- hand-made poses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hz", [0.5, 1, 5, 30])
def test_who_stands_still_hits_whatever_the_frequency(tmp_path, hz):
    bed = cell({**saved(tmp_path, still(2)), "upload_hz": hz}, 2)
    bed.advance(6 * SECOND)
    for frame, values in tables(bed)["hits"].values():
        assert frame.tolist() == list(range(len(frame))) and len(frame) > 170
        rising = values[:, 0]
        # Nothing is prepared until the first upload is there and the lookahead is over.
        first = int(np.argmax(rising))
        assert 10 < first < 10 + 30 / hz + 10
        assert not rising[:first].any() and (rising[first:] == 1.0).all()


def test_who_turns_at_constant_speed_is_predicted_exactly_through_360_degrees(tmp_path):
    bed = cell({**saved(tmp_path, turning()), "upload_hz": 10})
    bed.advance(6 * SECOND)
    frame, values = tables(bed)["prediction"][0]
    true = p.unwrapped(turning())[0, frame]
    late = frame > 40
    assert late.sum() > 100 and values[late] == pytest.approx(true[late], abs=1e-6)


def test_at_one_upload_a_second_the_last_pose_is_held(tmp_path):
    bed = cell({**saved(tmp_path, turning()), "upload_hz": 1})
    bed.advance(6 * SECOND)
    seen = tables(bed)
    uploads = seen["pose"][0][0]
    assert np.diff(uploads).tolist() == [30] * (len(uploads) - 1) and len(uploads) >= 5
    frame, values = seen["prediction"][0]
    # 10 frames ahead, and an upload is under way for one frame at least.
    newest = uploads[np.searchsorted(uploads, frame - 10, side="left") - 1]
    assert values == pytest.approx(p.unwrapped(turning())[0, newest], abs=1e-9)


@pytest.mark.parametrize("ahead", [0, 8])
def test_predictions_and_hits_are_those_of_what_had_arrived(ahead):
    """Against the regression of wire.definitions.poses, where a narrow quota makes uploads late."""
    bed = cell({"history": 20, "lookahead": ahead}, 2, seed=5)
    bed.set_quotas({"s": (5, 106)}, {})
    bed.advance(3 * SECOND)
    bed.apply({f"mar-{i}": {"upload_hz": (4.0,)} for i in range(2)})
    bed.advance(6 * SECOND)
    app, seen = application(bed), tables(bed)
    for user in range(2):
        uploads, values = seen["pose"][user]
        captured = app._captured_ns(np.full(len(uploads), user), uploads)
        known = app._frame_at(np.full(len(uploads), user), np.ceil(captured + values[:, 6] * 1e6).astype(int))
        assert values[:, 6].max() > 500
        frame, predicted = seen["prediction"][user]
        expected = []
        for now in frame - ahead:
            arrived = known <= now
            weights = p.regression_weights(uploads[arrived], np.array([now]), ahead, 20)
            expected.append((weights @ values[arrived, :6])[0])
        assert len(frame) > 150 and predicted == pytest.approx(np.array(expected), abs=1e-6)
        frames, hits = seen["hits"][user]
        true = app.source.poses(np.full(len(frames), user), frames)
        prepared = np.zeros((len(frames), 32), bool)
        prepared[np.isin(frames, frame)] = vchr.visible(predicted, app.content)
        assert hits[:, 0] == pytest.approx(
            vchr.hit_rate(vchr.visible(true, app.content), prepared), nan_ok=True
        )


def test_a_late_upload_is_not_used_before_it_arrives(tmp_path):
    """Two uploads a second are known at once, but for the third, which takes 400 ms."""
    app = Mar([UserSpec("f", "u", options={**saved(tmp_path, turning()), "upload_hz": 2})], 1)
    due, known = np.empty(0, np.int64), np.empty(0, np.int64)
    rows = {"pose": [], "prediction": []}
    before = 0
    while app.due_ns < 3 * SECOND_NS:
        now = app.due_ns
        k = np.flatnonzero((known >= before) & (known < now))
        app.take(ExchangeTimes(0 * k, k, due[k], known[k], known[k], 0 * k - 1))
        due = np.concatenate((due, app.offer(now).due_ns))
        known = due + 400 * MS * (np.arange(len(due)) == 2)
        before = now
        for table, (_, time_ns, values) in app.samples().items():
            if table in rows:
                rows[table] += zip(app._frame_at(0, time_ns).tolist(), values.tolist(), strict=True)
    first = int(app._frame_at(0, due[0]))
    predicted = {frame - 10 - first: values[0] for frame, values in rows["prediction"]}
    walked = turning()[0, :, 0]
    # Frames since the first upload. The third is of frame 30 and known from 42 on.
    for since, newest in ((14, 0), (15, 15), (30, 15), (41, 15), (42, 30), (44, 30), (45, 45)):
        assert predicted[since] == pytest.approx(walked[first + newest]), since
    assert [values[6] for _, values in rows["pose"]] == [0, 0, 400, *[0] * (len(rows["pose"]) - 3)]


# -- the cell ----------------------------------------------------------------------------------------


def test_a_starved_slice_hits_less():
    means = []
    for quota in (106, 5):
        bed = cell({}, 4)
        bed.set_quotas({"s": (quota, 106)}, {})
        bed.advance(6 * SECOND)
        means.append(mean_hits(bed))
    assert means[0] > 0.8 and means[1] < means[0] - 0.1


def test_another_frequency_holds_from_its_instant_on_and_bytes_follow():
    bed = cell({"frame_bytes": 5000}, 2)
    instant = 3 * SECOND + 77
    bed.advance(instant)
    bed.apply({"mar-0": {"upload_hz": (3.0,)}})
    bed.advance(6 * SECOND)
    frames, app = bed.take_frames(), application(bed)
    for user, hz_after in ((0, 3.0), (1, 30.0)):
        sent = frames.ue_sent[frames.flow == user] - bed.epoch_ns
        frame = app._frame_at(np.full(len(sent), user), sent)
        before = sent < instant * 500_000
        assert np.all(np.diff(frame[before]) == 1) and before.sum() == pytest.approx(91, abs=1)
        assert np.all(np.diff(frame[~before]) == 30 / hz_after)
        assert (~before).sum() == pytest.approx(3 * hz_after, abs=2)
        up = bed.counters()[2 * user]
        assert up.offered == 5000 * len(sent)


def test_what_is_set_as_it_was_loses_no_upload_and_moves_no_row():
    """A setting calls the application, and takes back what it has planned, at instants of its own."""
    beds = [cell({}, 3) for _ in range(2)]
    for instant in range(7, 3 * SECOND, 7):
        beds[1].advance(instant)
        beds[1].apply({"mar-1": {"upload_hz": (30.0,)}})
    frames, rows = [], []
    for bed in beds:
        bed.advance(3 * SECOND + 1)
        f, seen = bed.take_frames(), tables(bed)
        frames.append(np.stack((f.flow, f.sequence, f.ue_sent, f.edge_sent)).tolist())
        # The other one was called last at a later instant.
        assert min(len(frame) for frame, _ in seen["pose"].values()) > 85
        rows.append(
            {(t, u): (x[:80].tolist(), v[:80].tolist()) for t, of in seen.items() for u, (x, v) in of.items()}
        )
    assert frames[0] == frames[1]
    assert rows[0].keys() == rows[1].keys()
    for key, first in rows[0].items():
        assert first == rows[1][key], key


@pytest.mark.parametrize("hz", [1, 7, 12.5, 29, 30])
def test_uploads_are_as_many_as_the_frequency_says_and_spread_over_users(hz):
    app = Mar([UserSpec(f"f-{i}", "u", options={"upload_hz": hz}) for i in range(40)], 2)
    due = [[] for _ in app.users]
    while app.due_ns < 20 * SECOND_NS:
        e = app.offer(app.due_ns)
        for user, t in zip(e.user.tolist(), e.due_ns.tolist(), strict=True):
            due[user].append(t)
        assert np.all(e.ul_bytes == 6000) and np.all(e.edge_ns == 5 * MS) and np.all(e.dl_bytes == 2000)
    for times in due:
        assert len(times) == pytest.approx(20 * hz, abs=hz / 5 + 1)
        assert np.max(np.abs(np.diff(times) - SECOND_NS / hz)) <= SECOND_NS / 30 + 1
    first = np.array([times[0] for times in due])
    quarter = (first * 4 * hz / SECOND_NS).astype(int)
    assert len(set(first.tolist())) == 40 and np.bincount(quarter).max() < 20


def test_every_upload_that_arrives_has_one_row_and_a_lost_one_has_none():
    ues = [UeSpec("ue-0", 1, "s", ChannelProcess(14.0, 14.0, 0.5))]
    users = [UserSpec("mar-0", "ue-0", transport="udp", options={"upload_hz": 20})]
    parts = {"rlc": RlcSpec(mode="um"), "cell": CellSpec(harq_rounds=1), "path": CALM}
    bed = EmulatedTestbed(TestbedSpec(ues, [], applications=[ApplicationSpec("mar", users)], **parts), seed=3)
    bed.advance(6 * SECOND)
    f, (frame, values) = bed.take_frames(), tables(bed)["pose"][0]
    arrived = np.flatnonzero(f.edge_sent)
    assert 10 < len(arrived) < len(f) - 10
    # The last ones may have arrived since the application was called.
    assert len(arrived) - 5 <= len(frame)
    arrived = arrived[: len(frame)]
    sent = f.ue_sent[arrived] - bed.epoch_ns
    assert frame.tolist() == application(bed)._frame_at(np.zeros(len(sent), np.int64), sent).tolist()
    assert values[:, 6] == pytest.approx((f.edge_sent - f.ue_sent)[arrived] / 1e6)


def test_outside_its_intervals_a_user_has_no_rows_and_what_is_old_is_not_regressed_on(tmp_path):
    bed = cell({**saved(tmp_path, turning()), "upload_hz": 30}, active=((1.0, 3.0), (5.0, 6.0)))
    bed.advance(8 * SECOND)
    app, seen = application(bed), tables(bed)
    for frame, _ in (seen[t][0] for t in ("hits", "prediction", "pose")):
        captured = app._captured_ns(np.zeros(len(frame), np.int64), frame) / 1e9
        assert np.all(((captured >= 1) & (captured < 3)) | ((captured >= 5) & (captured < 6)))
    frame, values = seen["prediction"][0]
    resumed = frame >= 150
    # The first ones after the break hold the last pose from before it, the others are on the line.
    true = p.unwrapped(turning())[0, frame]
    assert resumed.sum() >= 19
    assert values[resumed][:1, 0] == pytest.approx(p.unwrapped(turning())[0, 89, 0], abs=0.02)
    assert values[resumed][3:] == pytest.approx(true[resumed][3:], abs=1e-6)


def test_noise_of_the_estimate_is_as_large_as_asked_for(tmp_path):
    bed = cell({**saved(tmp_path, still(4)), "pose_noise_m": 0.02, "pose_noise_deg": 3.0}, 4)
    bed.advance(6 * SECOND)
    seen = tables(bed)
    error = np.concatenate([v[:, :6] for _, v in seen["pose"].values()]) - still(1, 2)[0, 0]
    assert error[:, :3].std(axis=0) == pytest.approx([0.02] * 3, rel=0.1)
    assert error[:, 3:].std(axis=0) == pytest.approx([3.0] * 3, rel=0.1)
    assert np.abs(error.mean(axis=0) / error.std(axis=0)).max() < 0.15


# -- the walks ---------------------------------------------------------------------------------------


def test_a_trace_goes_forwards_and_backwards_and_users_beyond_the_file_walk_as_the_first():
    poses = np.zeros((2, 4, 6))
    poses[0, :, 0], poses[1, :, 0] = (0.0, 0.1, 0.2, 0.3), (5.0, 5.1, 5.2, 5.3)
    walk = Traces(poses, np.arange(3))
    x = walk.poses(np.arange(3)[:, None], np.arange(9)[None])[..., 0]
    forwards_and_backwards = np.array([0, 1, 2, 3, 2, 1, 0, 1, 2]) / 10
    assert x == pytest.approx(np.stack((forwards_and_backwards, 5 + forwards_and_backwards, x[0])))


def test_drawn_people_walk_round_the_content_at_any_time_as_at_any_other():
    walks = Walks(7, np.arange(20), vchr.Content(2.0, -1.0))
    frames = np.arange(900) + 3600 * 30
    poses = walks.poses(np.arange(20)[:, None], frames[None])
    assert np.array_equal(walks.poses(np.array([4, 11]), frames[[800, 3]]), poses[[4, 11], [800, 3]])
    p.check_poses(poses, max_step_m=0.1, max_turn_deg=10.0)
    distance = np.hypot(poses[..., 0] - 2.0, poses[..., 2] + 1.0)
    assert 0.8 <= distance.min() < 1.0 and 1.8 < distance.max() <= 2.0
    assert vchr.gaze_point(poses)[[0, 2]] == pytest.approx([2.0, -1.0], abs=0.15)
    assert len(np.unique(walks.poses(np.arange(20), np.zeros(20, np.int64)), axis=0)) == 20


def offline(poses, content, hz):
    uploaded, now = p.upload_frames(hz, poses.shape[1]), np.arange(20, poses.shape[1] - 10)
    prepared = vchr.visible(p.predict(poses[:, uploaded], uploaded, now), content)
    return float(np.nanmean(vchr.hit_rate(vchr.visible(poses[:, 30:], content), prepared)))


def test_drawn_people_hit_about_as_often_as_those_of_the_traces():
    content = vchr.Content(0.0, 0.0)
    poses = Walks(1, np.arange(60), content).poses(np.arange(60)[:, None], np.arange(600)[None])
    means = [offline(poses, content, hz) for hz in (1, 5, 30)]
    assert means == sorted(means)
    assert means == pytest.approx([0.81, 0.88, 0.885], abs=0.03)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/pose-traces")
def test_in_a_wide_cell_the_real_traces_hit_as_offline():
    path = REAL / "longdress.npz"
    bed = cell({"traces": str(path), "upload_hz": 5, "frame_bytes": 1000, "estimation_ms": 0}, 40)
    bed.advance(10 * SECOND)
    poses = mar.read_traces(str(path))
    content = application(bed).content
    assert (content.x, content.z) == pytest.approx(vchr.gaze_point(poses)[[0, 2]])
    reached, ideal = mean_hits(bed), offline(p.unwrapped(poses), content, 5)
    # An upload takes some 10 ms, so that it is used a frame later.
    assert ideal - 0.02 < reached < ideal + 0.002


# -- what is refused ---------------------------------------------------------------------------------


def npz(**arrays):
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def npy(array):
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


def with_nan():
    poses = still(2)
    poses[1, 7, 2] = np.nan
    return poses


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (npz(pose=with_nan()), "user 1, frame 7: z is not finite"),
        (npz(pose=still()[0]), r"shape \(50, 6\), not \(users, frames, 6\)"),
        (npz(poses=still()), "no array 'pose'; arrays: poses"),
        (npz(), "no array 'pose'; arrays: none"),
        (npz(pose=np.array([None])), "not an .npz file"),
        (npz(pose=np.full((1, 2, 6), "x")), "are no poses"),
        (npy(still()), "single array"),
        (b"x,y,z\n1,2,3\n", "not an .npz file"),
        (b"", "not an .npz file"),
        (npz(pose=still())[:400], "not an .npz file"),
        (npz(pose=still()).replace(bytes(20), bytes([1]) * 20), "not an .npz file"),
        (None, "No such file"),
    ],
)
def test_bad_traces_are_refused_by_name(tmp_path, content, says):
    file = tmp_path / "bad.npz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=f"flow 'mar-0': .*bad.npz.*{says}"):
        cell({"traces": str(file), **HERE})


def test_where_all_look_the_same_way_the_content_has_to_be_placed(tmp_path):
    options = saved(tmp_path, still())
    cell(options)
    with pytest.raises(ValueError, match=r"walk.npz: the lines of gaze.*content_x and content_z"):
        cell({"traces": options["traces"]})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"upload_rate": 5}, "no option upload_rate; it has traces, upload_hz"),
        ({"upload_hz": 31}, r"31 Hz is outside \(0, 30\]"),
        ({"upload_hz": 0}, r"0 Hz is outside \(0, 30\]"),
        ({"upload_hz": float("nan")}, "upload_hz nan is not finite"),
        ({"upload_hz": "5"}, "upload_hz '5' is no number"),
        ({"frame_bytes": 0}, "frame_bytes 0 is outside"),
        ({"frame_bytes": 0.5}, "frame_bytes 0.5 is no whole number"),
        ({"frame_bytes": True}, "frame_bytes True is no whole number"),
        ({"content_bytes": 10**9}, "content_bytes 1000000000 is outside"),
        ({"estimation_ms": -1.0}, "estimation_ms -1.0 is outside"),
        ({"pose_noise_deg": 400}, "pose_noise_deg 400 is outside"),
        ({"history": 0}, "history 0 is outside"),
        ({"lookahead": -1}, "lookahead -1 is outside"),
        ({"traces": 5}, "traces 5 is no text"),
        ({"content_m": [1, 2]}, r"content_m \[1, 2\] is not 3 numbers"),
        ({"content_m": [1, 2, -1]}, "content of -1 m along z"),
        ({"cells": [4, 4.5, 2]}, "cells 4.5 is no whole number"),
        ({"cells": [4, 4, 0]}, "content of 0 cells along z"),
        ({"field_of_view_deg": [90, 180]}, "field of view of 180 degrees"),
        ({"content_x": 1.0}, "neither can do without the other"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options, says):
    with pytest.raises(ValueError, match=f"flow 'mar-0': .*{says}"):
        cell(options)


def test_all_users_have_the_same_options():
    users = [UserSpec(f"f-{i}", "u", options={"frame_bytes": 100 + i}) for i in range(2)]
    with pytest.raises(ValueError, match="'f-1': its options differ from those of 'f-0'"):
        Mar(users, 1)


def test_options_of_a_scenario_reach_the_application():
    options = {"content_m": [1, 2, 3], "cells": [2, 2, 2], "history": 1, "field_of_view_deg": [60, 40]}
    o = Mar([UserSpec("f", "u", options=options)], 1).options
    assert (o.content_m, o.cells, o.history, o.field_of_view_deg) == ((1, 2, 3), (2, 2, 2), 1, (60, 40))
    app = Mar([UserSpec("f", "u", options={"cells": [2, 3, 2], "content_x": 1, "content_z": 2})], 1)
    assert (app.content.cells, app.content.x, app.content.z) == ((2, 3, 2), 1, 2)
