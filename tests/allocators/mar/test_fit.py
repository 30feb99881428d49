"""What twins learn of the poses of a control slot, from whom, and what they remember."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from controller.allocators.mar import fit
from controller.allocators.mar.clone import LinearClone
from controller.allocators.mar.fit import LEAST_ROWS, MAX_USERS, ROWS_OF_USER, Memory, learn
from controller.twins.softmax import Training
from tests.allocators.mar.people import statue, walkers
from wire.definitions.vchr import gaze_point

S = 1_000_000_000
T0 = 1_800_000_000 * S
OPTIONS: dict[str, Any] = {"upload_hz": [1.0, 3.0, 10.0, 30.0], "vchr": 0.7}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps of training."""
    monkeypatch.setattr(fit, "TRAINING", Training(hidden=8, steps=80))


def uploads(
    poses: np.ndarray, every: int | list[int], phase_ns: int = 5_000_000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the table of poses: users, times and poses, of every so many frames, in the order of time."""
    strides = [every] * len(poses) if isinstance(every, int) else every
    parts = [
        (np.full(len(k), u), k) for u, s in enumerate(strides) for k in [np.arange(0, poses.shape[1], s)]
    ]
    user, frame = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(frame, kind="stable")
    user, frame = user[order], frame[order]
    return user, T0 + phase_ns + frame * S // 30, poses[user, frame].astype(np.float32)


def learned(
    poses: np.ndarray,
    every: int | list[int] = 1,
    before: bytes = b"",
    *,
    names: list[str] | None = None,
    options: dict[str, Any] | None = None,
    seconds: float | None = None,
    seed: int = 1,
) -> Memory:
    names = names or [f"u{i}" for i in range(len(poses))]
    closed = T0 + round((poses.shape[1] / 30 if seconds is None else seconds) * S)
    more = {**OPTIONS, **(options or {})}
    data = learn(before, names, *uploads(poses, every), T0, closed, more, seed)
    return Memory.from_bytes(data)


def test_it_learns_of_everybody() -> None:
    memory = learned(walkers(6, 150))
    assert memory.users == [f"u{i}" for i in range(6)] and not memory.left_out
    assert len(memory.x) == 6 * 4 * ROWS_OF_USER < LEAST_ROWS and memory.network is None
    assert memory.expected_of("u0") is None and memory.expected_of("who") is None
    memory = learned(walkers(6, 150, seed=1), before=memory.to_bytes())
    assert memory.network is not None and len(memory.x) >= LEAST_ROWS
    for u in range(6):
        expected = memory.expected_of(f"u{u}")
        assert expected is not None and ((expected > 0.0) & (expected < 1.0)).all()


def test_who_stands_still_is_expected_to_hit_more_than_who_does_not() -> None:
    memory = Memory(4)
    restless = [0.2, 0.2, 0.2, 3.0, 3.0, 3.0]
    for i in range(4):
        poses = walkers(6, 150, seed=i, restless=np.array(restless))
        memory = learned(poses, before=memory.to_bytes() if i else b"")
    expected = np.array([memory.expected_of(f"u{u}") for u in range(6)])
    assert expected[:3].min(axis=0).mean() > expected[3:].max(axis=0).mean()


def test_equal_slots_teach_the_same_and_another_seed_something_else() -> None:
    poses = walkers(10, 150)
    a, b, c = (learned(poses, seed=seed).to_bytes() for seed in (1, 1, 2))
    assert a == b != c


def test_a_user_teaches_nothing_above_its_own_frequency() -> None:
    for every, known in ((1, 4), (3, 3), (10, 2), (30, 1)):
        memory = learned(walkers(3, 300), every)
        assert sorted(set(memory.frequency.tolist())) == list(range(known)), every
        assert (memory.weight > 0.0).tolist() == [f < known for f in range(4)]
        assert ((memory.own_weight > 0.0) == (np.arange(4) < known)).all()
    # Each its own.
    memory = learned(walkers(3, 300), [1, 10, 30])
    assert (memory.own_weight > 0.0).sum(axis=1).tolist() == [4, 2, 1]
    # Of whom nothing is known there is asked all the same.
    assert np.isfinite(memory.deviation()).all() and memory.deviation().shape == (3, 4, 6, 6)


def test_who_uploads_all_frames_teaches_what_traces_do() -> None:
    """Errors at 30 Hz are those of the trace itself: float32 on the way, and the frame's own phase."""
    poses = walkers(2, 200)
    memory = learned(poses)
    truth = fit.observe(poses, OPTIONS["upload_hz"], memory.content).error  # type: ignore[arg-type]
    sum_of_squares = memory.own / memory.own_weight[..., None]
    assert sum_of_squares == pytest.approx((truth**2).mean(axis=2), rel=1e-3, abs=1e-6)
    # 15 frames are about as good as one that is independent.
    assert memory.own_weight == pytest.approx(np.full((2, 4), 170 / 15))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda p: p[1, 70:, 0].__iadd__(9.0), "moved faster"),
        (lambda p: p[1, 70, 4:5].__iadd__(150.0), "turned faster"),
        (lambda p: p[1].fill(-1e30), "further than"),
    ],
)
def test_whose_poses_cannot_be_is_left_out_by_name(spoil: Any, why: str) -> None:
    poses = walkers(3, 150)
    spoil(poses)
    memory = learned(poses)
    assert list(memory.left_out) == ["u1"] and why in memory.left_out["u1"]
    assert memory.users == ["u0", "u2"]
    others = learned(poses[[0, 2]], names=["u0", "u2"])
    assert np.allclose(memory.own, others.own) and memory.content == others.content
    # The next time he is back, and no longer named.
    memory = learned(walkers(3, 150), before=memory.to_bytes())
    assert not memory.left_out and memory.users == ["u0", "u2", "u1"]


@pytest.mark.parametrize("known", [0, 1])
def test_who_uploaded_less_than_twice_is_passed_over(known: int) -> None:
    poses = walkers(3, 150)
    poses[1, known:] = np.nan
    memory = learned(poses)
    assert memory.users == ["u0", "u2"] and not memory.left_out


def test_single_poses_that_are_not_known_are_passed_over() -> None:
    poses = walkers(2, 150)
    poses[0, 40:45] = np.nan
    memory = learned(poses)
    assert not memory.left_out
    # Where they are missing, what is predicted from frequencies above 5 Hz is not known.
    assert memory.own_weight[0, 0] == pytest.approx(memory.own_weight[1, 0], rel=0.05)
    assert (memory.own_weight[0, 2:] < 0.9 * memory.own_weight[1, 2:]).all()
    assert (memory.own_weight[0] > 0.0).all()


def test_absent_users_are_remembered() -> None:
    first = learned(walkers(10, 150))
    later = learned(walkers(2, 150, seed=3), before=first.to_bytes(), names=["u4", "new"])
    assert later.users == [*first.users, "new"]
    assert later.expected_of("u0") == pytest.approx(first.expected_of("u0"))
    assert later.expected_of("u4") != pytest.approx(first.expected_of("u4"))
    # Errors fade together, so that the absent one's relation to the common does.
    assert later.own[0] == pytest.approx(fit.FORGET * first.own[0])
    assert np.isfinite(later.deviation()).all()


def test_beyond_so_many_the_longest_known_of_the_absent_is_forgotten() -> None:
    memory = Memory(2)
    fit._places(memory, [f"a{i}" for i in range(MAX_USERS)])
    memory.expected[:] = np.arange(MAX_USERS)[:, None]
    place = fit._places(memory, ["a0", "b0", "b1"])
    assert len(memory.users) == MAX_USERS and memory.users[0] == "a0" and memory.users[-2:] == ["b0", "b1"]
    assert not {"a1", "a2"} & set(memory.users) and "a3" in memory.users
    assert [memory.users[p] for p in place] == ["a0", "b0", "b1"]
    assert memory.expected[memory.users.index("a3"), 0] == 3.0 and np.isnan(memory.expected[-1]).all()
    assert len(memory.own) == len(memory.own_weight) == MAX_USERS


def test_a_flow_that_stopped_and_began_again_is_one_user() -> None:
    poses = walkers(3, 300)
    user, time_ns, _ = uploads(poses, 1)
    keep = ((user != 0) | (time_ns < T0 + 4 * S)) & ((user != 2) | (time_ns > T0 + 5 * S))
    poses[2] = poses[0]
    arguments = (
        user[keep],
        time_ns[keep],
        poses[user[keep], np.tile(np.arange(300), (3, 1)).T.ravel()[keep]],
    )
    names = ["a", "b", "a"]
    memory = Memory.from_bytes(learn(b"", names, *arguments, T0, T0 + 10 * S, OPTIONS, 1))
    assert memory.users == ["a", "b"] and memory.own.shape == (2, 4, 6)
    # Both halves are his.
    assert memory.own_weight[0, 3] == pytest.approx(memory.own_weight[1, 3], rel=0.35)
    again = Memory.from_bytes(learn(memory.to_bytes(), names, *arguments, T0, T0 + 10 * S, OPTIONS, 2))
    assert again.users == ["a", "b"]


def test_it_goes_through_bytes() -> None:
    memory = learned(walkers(10, 150))
    memory.left_out = {"x": "why"}
    data = memory.to_bytes()
    restored = Memory.from_bytes(data)
    assert restored.to_bytes() == data and restored.network is not None
    assert restored.content == memory.content and restored.left_out == {"x": "why"}
    assert restored.expected == pytest.approx(memory.expected)
    empty = Memory(4)
    assert Memory.from_bytes(empty.to_bytes()).to_bytes() == empty.to_bytes()


def test_rates_are_kept_as_they_are() -> None:
    """0.7 and 0.9 as float32 are less than 0.7 and 0.9."""
    memory = learned(walkers(4, 150))
    kept = Memory.from_bytes(memory.to_bytes()).vchr
    denominators = np.arange(1, 33)
    off = np.abs(kept[:, None] * denominators - np.round(kept[:, None] * denominators)).min(axis=1)
    assert off.max() < 1e-12


@pytest.mark.parametrize("change", ["version", "frequencies", "users", "content", "left_out", "gone"])
def test_bytes_that_are_none(change: str) -> None:
    values, arrays = fit.unpack_arrays(learned(walkers(10, 150)).to_bytes())
    wrong: Any = {
        "version": 99,
        "frequencies": 10**15,
        "users": ["u0"],
        "content": [1.0],
        "left_out": 5,
    }
    if change == "gone":
        del arrays["own"]
    else:
        values[change] = wrong[change]
    with pytest.raises(ValueError, match=r"twins|users|array"):
        Memory.from_bytes(fit.pack_arrays(values, arrays))
    with pytest.raises(ValueError, match="no packed arrays"):
        Memory.from_bytes(b"twins")


def test_rows_are_no_more_than_the_options_say() -> None:
    memory = Memory(4)
    options = {"memory_rows": 50}
    for i in range(4):
        before = memory
        memory = learned(
            walkers(5, 150, seed=i), [1, 1, 1, 1, 3], memory.to_bytes() if i else b"", options=options
        )
        counts = np.bincount(memory.frequency, minlength=4)
        assert counts.max() <= 50 and len(memory.x) == len(memory.vchr) == len(memory.frequency)
    assert counts.tolist() == [50] * 4
    # The latest are those that stay: of three slots' worth of 30 rows at 1 Hz the last 50.
    assert np.array_equal(memory.vchr[memory.frequency == 0][:20], before.vchr[before.frequency == 0][-20:])


def test_content_stands_where_all_users_so_far_looked() -> None:
    """Whoever comes first has looked from one side: half a metre and more to the wrong place."""
    everybody = walkers(8, 150)
    first = learned(everybody[:1])
    assert first.content is not None and np.hypot(first.content.x, first.content.z) > 0.2
    memory = learned(walkers(8, 150, seed=1), before=first.to_bytes())
    assert memory.content is not None
    both = np.concatenate([everybody[0], *walkers(8, 150, seed=1)])
    assert (memory.content.x, memory.content.z) == pytest.approx(gaze_point(both)[[0, 2]], abs=1e-3)
    assert np.hypot(memory.content.x, memory.content.z) < 0.1
    assert len(memory.x) > len(first.x) > 0, "what was seen before counts on"


def test_content_stands_where_it_is_said_to() -> None:
    said = learned(walkers(3, 150), options={"content_x": 4.0, "content_z": -1.0, "cells": [2, 3, 1]})
    assert said.content is not None
    assert (said.content.x, said.content.z, said.content.cells) == (4.0, -1.0, (2, 3, 1))


def test_gazes_that_meet_nowhere_do_not_tell_it() -> None:
    poses = np.concatenate([statue(150), statue(150)])
    with pytest.raises(ValueError, match="parallel"):
        learned(poses)
    assert learned(poses, options={"content_x": 0.0, "content_z": 0.0}).own_weight.sum() > 0.0


def test_tables_that_are_empty_teach_nothing() -> None:
    nobody = np.empty(0, np.int64)
    for before in (b"", learned(walkers(10, 150)).to_bytes()):
        for flows in ([], ["u0", "x"]):
            data = learn(
                before, flows, nobody, nobody, np.empty((0, 6), np.float32), T0, T0 + 5 * S, OPTIONS, 1
            )
            memory = Memory.from_bytes(data)
            old = Memory.from_bytes(before) if before else Memory(4)
            assert not memory.left_out
            assert memory.to_bytes() == old.to_bytes()


@pytest.mark.parametrize("frames", [2, 20, 30])
def test_a_slot_that_is_too_short_teaches_nothing(frames: int) -> None:
    before = learned(walkers(10, 150)).to_bytes()
    for old in (b"", before):
        memory = learned(walkers(10, frames), before=old)
        assert memory.to_bytes() == (old or Memory(4).to_bytes())
    assert learned(walkers(10, 31), seconds=1.04).own_weight.sum() > 0.0


def test_uploads_outside_the_slot_do_not_count() -> None:
    poses = walkers(10, 150)
    user, time_ns, pose = uploads(poses, 1)
    early, late = time_ns - 20 * S, time_ns + 20 * S
    more = np.full_like(pose, 7.0)
    both = [np.concatenate(c) for c in ((user, user, user), (early, time_ns, late), (more, pose, more))]
    data = learn(b"", [f"u{i}" for i in range(10)], *both, T0, T0 + 5 * S, OPTIONS, 1)
    assert data == learned(poses).to_bytes()


def test_a_turn_through_180_degrees_is_none_to_the_other_side() -> None:
    # Three who stand still but for a slow turn in which the angle jumps from 180 to -180 degrees.
    poses = np.concatenate([statue(150, a) for a in (0.0, 100.0, 200.0)])
    turn = poses[..., 4] + np.linspace(-20.0, 20.0, 150)
    wrapped = poses.copy()
    poses[..., 4], wrapped[..., 4] = turn, (turn + 180.0) % 360.0 - 180.0
    a, b = learned(poses, 3), learned(wrapped, 3)
    assert not b.left_out
    assert a.own == pytest.approx(b.own, abs=1e-4)


# ---- the predictor, cloned from what it was given and what it answered --------------------------------

EVERY, LATENCY_MS, LATE_FRAMES, WINDOW, AHEAD = 3, 40.0, 2, 12, 10


def answers(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of predictions: the line through the uploads of twelve frames that have arrived."""
    users, frames, _ = poses.shape
    rows = []
    for user in range(users):
        for now in range(2 * WINDOW, frames - AHEAD):
            k = np.arange(0, now - LATE_FRAMES + 1, EVERY)
            k = k[now - k < WINDOW]
            line = np.polynomial.polynomial.polyfit(k - now, poses[user, k], 1)
            rows.append((user, now + AHEAD, line[0] + AHEAD * line[1]))
    user, frame, pose = (np.array(column) for column in zip(*rows, strict=True))
    return user, T0 + 5_000_000 + frame * S // 30, pose


def imitated(poses: np.ndarray, spoil: slice, pose: float, latency_ms: float) -> Memory:
    """What is known after a slot in which the users ``spoil`` sent nothing but these numbers."""
    user, time_ns, given = uploads(poses, EVERY)
    predicted = answers(poses)
    wrong = np.isin(user, np.arange(len(poses))[spoil])
    given[wrong] = pose if np.isfinite(pose) else given[wrong]
    predicted[2][np.isin(predicted[0], user[wrong])] = 5.0
    data = learn(
        b"",
        [f"u{i}" for i in range(len(poses))],
        *(user, time_ns, given),
        T0,
        T0 + poses.shape[1] * S // 30,
        {**OPTIONS, "lookahead_frames": AHEAD},
        1,
        np.where(wrong, latency_ms, LATENCY_MS),
        predicted,
    )
    return Memory.from_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "pose", "latency_ms"),
    [
        (slice(0, 0), np.nan, LATENCY_MS),
        (slice(2, 4), 1e30, LATENCY_MS),
        (slice(2, 4), np.nan, -1e5),
    ],
    ids=["all are honest", "two are nowhere", "two upload before they capture"],
)
def test_the_predictor_is_cloned_from_those_whose_poses_can_be(
    spoil: slice, pose: float, latency_ms: float
) -> None:
    memory = imitated(walkers(4, 150), spoil, pose, latency_ms)
    assert memory.clone == LinearClone(WINDOW, 1)
    assert memory.fidelity is not None and max(memory.fidelity) < 1e-3
