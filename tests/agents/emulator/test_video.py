"""The application ``video`` and its player: what is played, stalled and thrown away, and what users say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agents.emulator.applications.player import Player, Segment
from agents.emulator.applications.video import Person, Video, VideoOptions
from agents.emulator.layout import NEVER
from agents.emulator.spec import (
    ApplicationSpec,
    ChannelProcess,
    EdgeSpec,
    PathSpec,
    RlcSpec,
    TestbedSpec,
    Track,
    UeSpec,
    UserSpec,
)
from agents.emulator.testbed import EmulatedTestbed
from wire.definitions import mos, viewing

SECOND = 2000
SECOND_NS = 10**9
ALWAYS = ((0.0, 1e6),)
PROMPT = PathSpec(ue_dl_offset_ms=0.5, ue_dl_poll_ms=0.0, ul_hold_rate_hz=0.0, hiccup_rate_hz=0.0)
(
    SCORE,
    STALLED,
    QUALITY,
    DELAY,
    JITTER,
    THROUGHPUT,
    B,
    C,
    SPEED,
    SWIPES,
    BUFFER,
    PREFETCHED,
    WASTED,
    X,
    Y,
) = range(15)


def cell(options=None, n=1, *, active=ALWAYS, seed=3, person=None, track=None, transport="tcp", **parts):
    """``active`` may be a list of one for each user; ``person`` is the users' own seed."""
    each = active if isinstance(active, list) else [active] * n
    channel = parts.pop("channel", ChannelProcess(sd_db=0.0))
    ues = [UeSpec(f"ue-{i}", i + 1, "s", channel) for i in range(n)]
    users = [
        UserSpec(
            f"v-{i}",
            f"ue-{i}",
            each[i],
            transport=transport,
            seed=person,
            track=track,
            options={"edge_ghz": 10.0 / n, **(options or {})},
        )
        for i in range(n)
    ]
    parts = {"path": PROMPT, "edge": EdgeSpec(stall_rate_hz=0.0), **parts}
    spec = TestbedSpec(ues, [], applications=[ApplicationSpec("video", users)], **parts)
    return EmulatedTestbed(spec, seed=seed)


def application(bed) -> Video:
    return bed._applications[0].application


def rows_of(bed, table="rating"):
    """{user: (times from the start [n], values [n, columns])} of the samples since the last call."""
    return {s.flow: (s.time_ns - bed.epoch_ns, s.values) for s in bed.take_samples() if s.table == table}


def everything(bed):
    """All ratings of all users, [rows, columns]."""
    return np.concatenate([values for _, values in rows_of(bed).values()])


def run(options=None, seconds=60.0, n=1, *, quota=None, settings=None, **parts):
    bed = cell(options, n, **parts)
    if quota is not None:
        bed.set_quotas({"s": (quota, quota)}, {})
    if settings is not None:
        bed.apply({f"v-{i}": settings for i in range(n)})
    bed.advance(round(seconds * SECOND))
    return bed


# -- the player --------------------------------------------------------------------------------------


def swipes(*times):
    return lambda k: times[k] if k < len(times) else NEVER


def by_ticks(segment, times, arrivals, until):
    """Stalled, quality and wasted of a player, tick by tick. Buffered are [video, ticks left, size, quality];
    the first of the current video is under playback."""
    buffered, video = [], 0
    stalled, quality, wasted = 0, 0.0, 0.0
    for t in range(until):
        if t in times:
            for own in [b for b in buffered if b[0] == video]:
                wasted += own[2] * own[1] / segment
                buffered.remove(own)
            video += 1
        for s in arrivals.get(t, ()):
            if s.video < video:
                wasted += s.size
            else:
                buffered.append([s.video, segment, s.size, s.quality])
        current = [b for b in buffered if b[0] == video]
        if not current:
            stalled += 1
            continue
        current[0][1] -= 1
        quality += current[0][3]
        if current[0][1] == 0:
            buffered.remove(current[0])
    return stalled, quality, wasted


@pytest.mark.parametrize("seed", range(60))
def test_the_player_does_as_a_list_of_ticks_does(seed):
    rng = np.random.default_rng(seed)
    segment, until, prefetch = int(rng.integers(5, 60)), 3000, int(rng.integers(0, 5))
    times = sorted(set(rng.integers(1, until, rng.integers(0, 40)).tolist()))
    player = Player(segment, swipes(*times), 0)
    now, arrivals, slow = 0, {}, rng.uniform(0.2, 3.0)
    while now < until:
        wanted = player.wanted(prefetch)
        if wanted is None:
            now = min(player.next_ns, until)
            player.advance(now)
            continue
        came = Segment(*wanted, int(rng.integers(1, 1000)), float(rng.uniform()))
        now += int(rng.integers(1, 2 + int(segment * slow)))
        if now >= until:
            break
        player.advance(now)
        player.receive(came)
        arrivals.setdefault(now, []).append(came)
    player.advance(until)
    stalled, quality, wasted = by_ticks(segment, times, arrivals, until)
    assert player.stalled_ns == stalled
    assert player.quality_ns == pytest.approx(quality, abs=1e-6)
    # At a swipe in the last instant the player has already thrown away.
    assert until in times or player.wasted_bytes == pytest.approx(wasted, abs=1e-6)


def test_segments_are_asked_for_in_their_order():
    player = Player(1000, swipes(10_000, 20_000), 0)
    asked = []
    while (wanted := player.wanted(2)) is not None:
        asked.append(wanted)
        player.receive(Segment(*wanted, 1, 0.5))
    # The first plays at once, the next one is there, those of the next videos, then four are ahead.
    assert asked == [(0, 0), (0, 1), (1, 0), (2, 0), (0, 2), (0, 3), (0, 4)]
    assert player.buffered_ns == 5000 and player.prefetched == 2
    player.advance(1000)
    assert player.wanted(2) == (0, 5)
    player.advance(10_000)
    assert (player.stalled_ns, player.video, player.buffered_ns) == (5000, 1, 1000)
    assert player.wanted(2) == (1, 1) and player.wanted(0) == (1, 1)


def test_a_player_begins_with_the_video_that_its_user_is_at():
    player = Player(1000, swipes(10, 20, 30), 20)
    assert player.video == 2 and player.wanted(0) == (2, 0)


# -- people ------------------------------------------------------------------------------------------


def test_a_person_is_the_same_however_much_of_it_was_drawn():
    options = VideoOptions(swipe_factor=0.5, swipe_factor_at_s=3000.0)
    short, long = Person(7, 3, options), Person(7, 3, options)
    long.swipes_s(50_000.0)
    assert short.viewer == long.viewer
    assert np.array_equal(short.swipes_s(4000.0), long.swipes_s(4000.0))
    assert short.swipe_ns(900) == long.swipe_ns(900) > 4096 * SECOND_NS
    other = Person(7, 4, options)
    assert other.viewer != short.viewer and not np.array_equal(other.swipes_s(500.0), short.swipes_s(500.0))


def test_users_swipe_as_often_as_the_options_say_and_more_after_a_drift():
    people = [Person(1, i, VideoOptions(swipe_factor=3.0, swipe_factor_at_s=10_000.0)) for i in range(20)]
    counts = np.array([[np.sum(s < 1e4), np.sum(s >= 1e4)] for s in (p.swipes_s(2e4) for p in people)])
    before, after = counts.mean(axis=0) / (1e4 / 60)
    assert before == pytest.approx(6.0, rel=0.05) and after == pytest.approx(18.0, rel=0.05)


def test_a_user_is_the_same_person_in_another_cell_under_another_allocation():
    beds = [
        run({"prefetch": 4}, 90, 3, seed=1, person=5),
        run({"prefetch": 0}, 90, 3, seed=2, person=5, quota=20, channel=ChannelProcess(12.0, 12.0)),
    ]
    a, b = (rows_of(bed) for bed in beds)
    for user in range(3):
        assert np.array_equal(a[user][0], b[user][0])
        same = [B, C, SPEED, SWIPES]
        assert np.array_equal(a[user][1][:, same], b[user][1][:, same])
        assert not np.array_equal(a[user][1][:, DELAY], b[user][1][:, DELAY])
    (_, profile), *_ = (rows_of(run({}, 1, 3, seed=s, person=5), "profile")[0] for s in (1, 2))
    assert profile[0, 0] == Person(5, 0, VideoOptions()).viewer.ela


# -- the cell ----------------------------------------------------------------------------------------


def test_what_came_was_played_or_thrown_away_or_is_there():
    options = {"size_jitter": 0.0, "requests_per_min": 20.0, "prefetch": 2}
    bed = run(options, 60, 4)
    app = application(bed)
    for i, user in enumerate(app._users):
        player, size = user.player, 125_000
        played = (player.now_ns - player.stalled_ns) / SECOND_NS * size
        there = player.buffered_ns / SECOND_NS * size + player.prefetched * size
        down = bed.counters()[2 * i + 1]
        received = down.delivered - down.delivered % size
        assert received == pytest.approx(played + player.wasted_bytes + there, abs=1e-3)
        assert received > 40 * size and player.wasted_bytes > size
    sizes = {c.offered for c in bed.counters() if c.direction == "ul"}
    assert all(n % 300 == 0 for n in sizes)


def test_sizes_vary_round_the_bitrate_and_are_the_same_for_every_allocation():
    bed = run({"bitrate_kbps": 2000.0, "requests_per_min": 1.0}, 60)
    person = application(bed)._users[0].person
    sizes = np.array([application(bed)._segment(person, 0, k, 2000.0).size for k in range(2000)])
    assert sizes.mean() == pytest.approx(250_000, rel=0.01)
    assert sizes.min() >= 0.85 * 250_000 and sizes.max() <= 1.15 * 250_000 and np.std(sizes) > 20_000


def test_ratings_do_not_depend_on_how_the_cell_was_advanced():
    results = []
    for step in (70 * SECOND, 777, 20):
        bed = cell({"rating_s": 5.0}, 3, active=[ALWAYS, ((1.2345678, 33.0),), ALWAYS])
        rows = {}
        for halt in (20 * SECOND + 1, 45 * SECOND):
            while bed.nr_slot < halt:
                bed.advance(min(halt, bed.nr_slot + step))
                for table in ("rating", "profile"):
                    for s in bed.take_samples() if table == "rating" else []:
                        rows.setdefault((s.flow, s.table), []).extend(
                            np.column_stack((s.time_ns, np.nan_to_num(s.values, nan=-1.0))).tolist()
                        )
            bed.set_quotas({"s": (30, 30)}, {})
            bed.apply({"v-1": {"bitrate_kbps": (2500.0,), "prefetch": (3.0,)}})
        results.append(rows)
    assert results[0] == results[1] == results[2]
    assert len(results[0][0, "rating"]) == 8 and len(results[0][1, "rating"]) >= 5


def test_prefetching_more_takes_the_stalls_from_the_start_of_videos():
    # The edge takes 0.45 s for a segment of a second.
    rows = {
        prefetch: everything(run({"edge_ghz": 0.4, "prefetch": prefetch}, 300, 2)).mean(axis=0)
        for prefetch in (0, 1, 4)
    }
    assert rows[0][STALLED] > 3 * rows[1][STALLED] > 4 * rows[4][STALLED] > 0
    assert rows[0][SCORE] < rows[1][SCORE]
    assert rows[0][PREFETCHED] == 0 and 3.5 < rows[4][PREFETCHED] <= 4


def test_scores_fall_with_the_quota_and_with_the_bitrate():
    def mean(quota, bitrate):
        rows = everything(
            run({"bitrate_kbps": bitrate, "principle": "combined"}, 200, 4, quota=quota, person=2)
        )
        return rows[:, SCORE].mean(), rows[:, STALLED].mean(), rows[:, QUALITY].mean()

    (ample, few_stalls, good), (short, stalls, _), (low, *_) = (
        mean(106, 3000.0),
        mean(14, 3000.0),
        mean(106, 500.0),
    )
    assert ample > short + 0.4 and stalls > 10 * few_stalls
    assert ample > low + 0.6 and good > 0.9


def test_a_row_is_what_it_says():
    track = Track(
        np.column_stack((np.arange(41.0), np.arange(41.0) * 2)), np.where(np.arange(41) < 20, 10.0, 30.0)
    )
    bed = run({"rating_s": 10.0, "ela": 4.0, "principle": "combined", "size_jitter": 0.0}, 40, track=track)
    user = application(bed)._users[0]
    samples = {s.table: (s.time_ns - bed.epoch_ns, s.values) for s in bed.take_samples()}
    time_ns, v = samples["rating"]
    assert (np.diff(time_ns) == 10 * SECOND_NS).all() and len(v) in (3, 4)
    assert time_ns[0] - user.phase_ns in (0, 10 * SECOND_NS)
    assert v[:, X] == pytest.approx(time_ns / 1e9) and v[:, Y] == pytest.approx(2 * time_ns / 1e9)
    assert v[:, SPEED] == pytest.approx([track.mean_speed_kmh(t / 1e9 - 10, t / 1e9) for t in time_ns])
    assert np.abs(v[:, C] - mos.environment(v[:, SPEED])).max() < 0.3
    assert v[:, B] == pytest.approx(
        [float(mos.behaviour(user.person.swipes_per_min(t / 1e9))) for t in time_ns]
    )
    swiped = user.person.swipes_s(1e3)
    assert v[:, SWIPES] == pytest.approx(
        [6.0 * np.sum((swiped >= t / 1e9 - 10) & (swiped < t / 1e9)) for t in time_ns]
    )
    assert (v[:, SCORE] >= 1).all() and (v[:, SCORE] <= 5).all()
    frames = bed.take_frames()
    took, back = (frames.ue_received - frames.ue_sent) / 1e6, frames.ue_received - bed.epoch_ns
    for row, t in zip(v, time_ns, strict=True):
        of = took[(back > t - 10 * SECOND_NS) & (back <= t)]
        assert row[[DELAY, JITTER]] == pytest.approx([of.mean(), of.std()])
        assert row[THROUGHPUT] == pytest.approx(1.0 / (of.mean() / 1e3))
    profile_ns, profile = samples["profile"]
    assert profile_ns.tolist() == [0, *time_ns]
    assert profile.tolist() == [[4.0, 1.0, viewing.CYCLES_PER_BIT, 500.0, 3000.0, viewing.AHEAD]] * len(
        profile
    )


def test_a_segment_under_way_at_a_swipe_is_thrown_away_when_it_is_there():
    # 10 s at the edge for each segment, and swipes much more often: nothing is ever played.
    options = {"edge_ghz": 0.018, "edge_ghz_at_most": 1.0, "requests_per_min": 40.0, "prefetch": 0}
    bed = run({**options, "size_jitter": 0.0, "rating_s": 60.0}, 400)
    v = everything(bed)
    user = application(bed)._users[0]
    late = int((bed.take_frames().ue_received > 0).sum())
    assert late >= 38 and user.player.wasted_bytes == pytest.approx(125_000 * late, rel=0.06)
    assert v[:, STALLED].mean() > 55 and v[:, WASTED].mean() == pytest.approx(100, rel=0.15)


def test_an_interval_that_activity_does_not_cover_is_not_rated():
    active = ((3.0, 24.5), (25.0, 26.0), (40.0, 60.0))
    bed = run({"rating_s": 5.0}, 70, active=active)
    phase = application(bed)._users[0].phase_ns / 1e9
    samples = {s.table: (s.time_ns - bed.epoch_ns) / 1e9 for s in bed.take_samples()}
    ends = [phase + 5 * k for k in range(20)]
    whole = [t for t in ends for a, b in active if a <= t - 5 and t <= b]
    assert samples["rating"] == pytest.approx(whole) and 6 <= len(whole) <= 7
    assert samples["profile"] == pytest.approx(sorted([3.0, 25.0, 40.0, *whole]))
    events = [e.kind for e in bed.take_flow_events()]
    assert events == ["start", "stop"] * 3


def test_a_segment_that_comes_after_the_stop_is_nobodys():
    options = {"edge_ghz": 0.1, "edge_ghz_at_most": 1.0, "size_jitter": 0.0, "requests_per_min": 0.1}
    bed = run(options, 10, active=((0.0, 1.0), (1.5, 100.0)))  # 1.8 s at the edge
    player = application(bed)._users[0].player
    frames = bed.take_frames()
    sent = (frames.ue_sent - bed.epoch_ns) / 1e9
    # The next one goes out when the first, of the player before, is there.
    assert sent[0] < 0.01 and sent[1] == pytest.approx(1.9, abs=0.1)
    assert player.now_ns - player.stalled_ns < 9 * SECOND_NS and player.wasted_bytes == 0


def test_the_edge_scales_its_rates_down_where_more_is_granted_than_it_has():
    works = []
    for n in (1, 2, 4):
        options = {"edge_ghz": 1.0, "edge_ghz_at_most": 2.0, "size_jitter": 0.0, "requests_per_min": 0.1}
        frames = run(options, 5, n).take_frames()
        done = frames.edge_sent > 0
        works.append(np.median((frames.edge_sent - frames.edge_received)[done]) / 1e6)
    assert works == pytest.approx([180.0, 180.0, 360.0])


def test_settings_hold_from_the_next_segment_on():
    options = {"size_jitter": 0.0, "requests_per_min": 0.1, "edge_ghz": 10.0}
    bed = cell(options)
    bed.advance(10 * SECOND)
    before = bed.counters()[1].offered
    bed.apply({"v-0": {"bitrate_kbps": (3000.0,), "edge_ghz": (5.0,)}})
    bed.advance(20 * SECOND)
    frames = bed.take_frames()
    late = (frames.ue_sent - bed.epoch_ns > 10 * SECOND_NS) & (frames.edge_sent > 0)
    assert bed.counters()[1].offered - before == 375_000 * late.sum()
    work = (frames.edge_sent - frames.edge_received)[late] / 1e6
    assert work == pytest.approx([8 * 375_000 * 180 / 5e9 * 1e3] * late.sum())


def test_a_segment_lost_over_udp_is_asked_for_anew():
    bed = cell(
        {"give_up_s": 1.0},
        transport="udp",
        channel=ChannelProcess(14.0, 14.0, 0.5),
        rlc=RlcSpec(mode="um", queue_limit_bytes=60_000),
    )
    bed.advance(20 * SECOND)
    frames = bed.take_frames()
    # A segment is larger than the queue: none ever comes whole.
    assert (frames.ue_received == 0).all()
    sent = (frames.ue_sent - bed.epoch_ns) / 1e9
    assert len(sent) in (19, 20) and np.diff(sent) == pytest.approx([1.0] * (len(sent) - 1), abs=0.01)
    assert everything(bed)[:, STALLED] == pytest.approx([60.0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bitrate_kbps": 1200.0}, "'v-0': bitrate_kbps 1200 is none of 500, 750"),
        ({"prefetch": 5}, "prefetch 5 is outside 0..4"),
        ({"prefetch": 1.0}, "prefetch 1.0 is no whole number"),
        ({"edge_ghz": 11.0}, "edge_ghz 11.0 is outside"),
        ({"ela": 5.5}, "ela 5.5 is neither 0 nor"),
        ({"principle": "mood"}, "principle 'mood' is none of stalls"),
        ({"swipe_factor": 0.0}, "swipe_factor 0.0 is outside"),
        ({"bitrate": 1000.0}, "video has no option bitrate"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options, says):
    with pytest.raises(ValueError, match=says):
        cell(options)


def test_users_with_other_options_and_tracks_that_are_none_are_refused():
    bed = cell(n=2)
    users = [replace(u, options={"prefetch": i}) for i, u in enumerate(bed.spec.users)]
    spec = replace(bed.spec, applications=[ApplicationSpec("video", users)])
    with pytest.raises(ValueError, match="'v-1': its options differ"):
        EmulatedTestbed(spec, seed=1)
    with pytest.raises(ValueError, match="track: positions"):
        Track(np.zeros((3, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="not finite"):
        Track(np.full((3, 2), np.nan), np.zeros(3))
