"""Rows that users send: units, order, and each of the ways in which a row cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from controller.allocators.base import SliceView
from controller.allocators.video.agent import HISTORY
from controller.allocators.video.rows import (
    PROFILE,
    RATING,
    Profile,
    as_packed,
    pack_rows,
    profiles_of,
    ratings_of,
    unpack_rows,
)
from controller.core.observation import Flow, Samples
from tests.allocators.video.viewers import STALLS, T0, S, history

ROW = {"score": 4.0, "stalled": 1.5, "quality": 0.5, "delay": 250.0, "jitter": 20.0, "throughput": 3.0,
       "behaviour": 1.5, "environment": 1.2}  # fmt: skip
NAN = float("nan")


def view(
    ratings: list[tuple[int, int, dict[str, float]]], profiles: list[tuple[int, Any]] | None = None
) -> SliceView:
    """Rows (user, seconds, changes) of users u0 and u1."""
    users = tuple(Flow(f"u{i}", f"ue-{i}", "video", 0.0, 0.0, T0) for i in range(2))
    values = [[{**ROW, **change}.get(c.name, 0.0) for c in RATING] for _, _, change in ratings]
    samples = {
        "rating": Samples(
            np.array([u for u, _, _ in ratings], np.int64),
            np.array([T0 + t * S for _, t, _ in ratings], np.int64),
            np.array(values, np.float32).reshape(-1, len(RATING)),
        )
    }
    if profiles is not None:
        samples["profile"] = Samples(
            np.array([u for u, _ in profiles], np.int64),
            np.full(len(profiles), T0, np.int64),
            np.array([row for _, row in profiles], np.float32).reshape(-1, len(PROFILE)),
        )
    return SliceView("video", 0, T0, T0 + 10 * S, T0, T0 + 10 * S, users=users, samples=samples)


def test_units_are_those_of_the_history() -> None:
    rows, faults = ratings_of(view([(1, 3, {})]), {"ue-1": 0.002}, {"ue-1": 0.1})
    assert faults == {} and list(rows) == ["u1"]
    row = dict(zip(HISTORY, rows["u1"][0].tolist(), strict=True))
    expected = {
        **ROW,
        "delay": 0.25,
        "jitter": 0.02,
        "loss": 0.1,
        "swipes_per_min": 6.0,
        "prb_per_kbps": 0.002,
    }
    assert {n: row[n] for n in expected} == pytest.approx(expected)
    assert row["time_s"] == T0 / S + 3.0 and set(row) == {*expected, "time_s"}


def test_a_ue_of_which_no_report_tells_has_no_radio_and_no_loss() -> None:
    rows, _ = ratings_of(view([(0, 1, {})]), {}, {})
    row = dict(zip(HISTORY, rows["u0"][0].tolist(), strict=True))
    assert np.isnan(row["prb_per_kbps"]) and row["loss"] == 0.0


def test_rows_are_in_the_order_of_time_user_by_user() -> None:
    of = [(1, 5, {"score": 2.0}), (0, 4, {"score": 3.0}), (1, 1, {"score": 1.0}), (1, 5, {"score": 5.0})]
    rows, _ = ratings_of(view(of), {}, {})
    assert rows["u1"][:, 0].tolist() == [1.0, 2.0, 5.0] and rows["u0"][:, 0].tolist() == [3.0]


OPINION = "score outside 1..5 or context outside 1..2"
SEEN = "stalled or quality that cannot be"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"score": 0.9}, OPINION), ({"score": 5.1}, OPINION), ({"score": NAN}, OPINION),
        ({"behaviour": 0.9}, OPINION), ({"behaviour": NAN}, OPINION), ({"environment": 2.1}, OPINION),
        ({"delay": float("inf")}, OPINION), ({"stalled": -1.0}, SEEN), ({"stalled": 61.0}, SEEN),
        ({"stalled": NAN}, SEEN), ({"quality": -0.1}, SEEN), ({"quality": 1.1}, SEEN),
        ({"quality": NAN}, SEEN),
    ],
)  # fmt: skip
def test_each_fault_is_named_and_the_row_left_out(change: dict[str, float], fault: str) -> None:
    rows, faults = ratings_of(view([(0, 1, change), (0, 2, {})]), {}, {})
    assert faults == {fault: 1} and len(rows["u0"]) == 1


@pytest.mark.parametrize("name", ["delay", "jitter", "throughput", "speed", "x", "y"])
def test_what_is_not_known_is_no_fault(name: str) -> None:
    rows, faults = ratings_of(view([(0, 1, {name: NAN})]), {}, {})
    assert faults == {} and len(rows["u0"]) == 1


def test_no_rows_are_none() -> None:
    assert ratings_of(view([]), {}, {}) == ({}, {})
    assert profiles_of(view([])) == ({}, 0)


def test_the_latest_profile_counts_and_those_that_cannot_be_are_counted() -> None:
    good, better = (3.0, 1.0, 180.0, 500.0, 3000.0, 4.0), (3.5, 2.0, 0.0, 500.0, 3000.0, 4.0)
    bad = [
        (0.5, *good[1:]),
        (NAN, *good[1:]),
        (3.0, 0.0, *good[2:]),
        (3.0, 1.0, -1.0, *good[3:]),
        (3.0, 1.0, NAN, *good[3:]),
    ]
    profiles, wrong = profiles_of(view([], [(0, good), (0, better), *((1, row) for row in bad)]))
    assert profiles == {"u0": Profile(3.5, 2.0, 0.0)} and wrong == len(bad)


def test_a_history_goes_through_json_as_it_is_kept() -> None:
    rows = as_packed(history(STALLS, 7, start_s=1.8e9))
    assert (unpack_rows(pack_rows(rows)) == rows).all()
    assert unpack_rows(pack_rows(rows[:0])).shape == (0, len(HISTORY))
    with pytest.raises(ValueError, match="no history"):
        unpack_rows([pack_rows(rows)[0], pack_rows(rows[:3])[1]])
