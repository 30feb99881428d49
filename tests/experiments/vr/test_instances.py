"""Synthetic instances are whole, seeded, and of any size."""

from __future__ import annotations

import json

import numpy as np
import pytest

from controller.allocators.vr.instance import Instance
from controller.experiments.vr.instances import draw


def test_an_instance_is_read_without_a_fault() -> None:
    for users, stations in ((1, 1), (16, 4), (100, 50)):
        instance = Instance.of(draw(users, stations, 3))
        assert len(instance.users) == users and len(instance.stations) == stations
        assert not [of.fault for of in (*instance.users, *instance.stations, *instance.nodes) if of.fault]


def test_a_seed_is_an_instance_and_what_is_drawn_is_plain_json() -> None:
    assert json.loads(json.dumps(draw(5, 3, 1))) == draw(5, 3, 1)
    assert draw(5, 3, 1) != draw(5, 3, 2)


def test_views_are_filled_and_more_stations_are_a_larger_place() -> None:
    data = draw(30, 100)
    for user in data["users"]:
        assert sum(o["pixels"] for o in user["objects"]) == pytest.approx(640 * 360, rel=0.01)
        assert {o["attention"] for o in user["objects"]} <= set(range(6))
    best = [max(user["sinr_db"]) for user in data["users"]]
    worst = [min(user["sinr_db"]) for user in data["users"]]
    assert 0 < np.median(best) < 30 and np.median(worst) < -20


@pytest.mark.parametrize("wrong", [(0, 4), (4, 0)])
def test_nobody_and_nothing(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one of each"):
        draw(*wrong)
