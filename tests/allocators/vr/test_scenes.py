"""What is made of the views and devices that hosts send, however odd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from controller.allocators.vr.scenes import MAX_OBJECT, Scene, scenes
from controller.core.observation import Samples
from tests.allocators.vr.players import DEVICE, table
from wire.definitions.bounds import MAX_SETTING_VALUES
from wire.definitions.cloud_gaming import VIEW_PIXELS


def of(views: dict[int, Any], devices: dict[int, Any] | None = None, users: int = 2) -> tuple[Any, Any]:
    known = {u: [DEVICE] for u in views} if devices is None else devices
    return scenes({"scene": table(0, views, 3), "device": table(0, known, 2)}, users)


def test_a_scene_is_its_objects_and_what_the_device_takes() -> None:
    found, faults = of({1: [(3, 100.0, 2.0), (7, 50.0, 0.0)]}, {1: [(60.0, 4.0)]})
    assert found == {1: Scene(((3, 100.0, 2.0), (7, 50.0, 0.0)), (2, 4), (30.0, 60.0))} and not faults


@pytest.mark.parametrize(
    ("device", "classes", "rates"),
    [
        ((72.0, 3.0), (2,), (30.0, 60.0)),
        ((30.0, 24.0), (2, 4, 8, 12, 24), (30.0,)),
        ((1e30, np.inf), (2, 4, 8, 12, 24), (30.0, 60.0, 90.0)),
    ],
)
def test_a_device_has_what_is_not_above_it(device: Any, classes: Any, rates: Any) -> None:
    found, _ = of({0: [(1, 1.0, 1.0)]}, {0: [device]})
    assert (found[0].classes, found[0].rates) == (classes, rates)


@pytest.mark.parametrize("device", [(0.0, 8.0), (-90.0, 8.0), (90.0, 1.0), (np.nan, 8.0), (90.0, np.nan)])
def test_a_device_that_shows_nothing_is_a_fault(device: Any) -> None:
    assert of({0: [(1, 1.0, 1.0)]}, {0: [device]}) == ({}, {"device without a resolution or a frame rate": 1})


@pytest.mark.parametrize(
    ("views", "why"),
    [
        ([(1, np.nan, 1.0)], "scene with a number that is not finite"),
        ([(1, np.inf, 1.0)], "scene with a number that is not finite"),
        ([(1, -1.0, 1.0)], "scene with a number that cannot be"),
        ([(1, 10.0, -1.0)], "scene with a number that cannot be"),
        ([(1, 10.0, 5.5)], "scene with a number that cannot be"),
        ([(1, 1.01 * VIEW_PIXELS, 1.0)], "scene with a number that cannot be"),
        ([(-1, 10.0, 1.0)], "scene with a number that cannot be"),
        ([(1e30, 10.0, 1.0)], "scene with a number that cannot be"),
        ([(MAX_OBJECT + 1, 10.0, 1.0)], "scene with a number that cannot be"),
        ([(1.5, 10.0, 1.0)], "scene with an object twice or without a whole id"),
        ([(1, 10.0, 1.0), (1, 20.0, 1.0)], "scene with an object twice or without a whole id"),
        ([(1, 0.0, 1.0)], "scene without a pixel"),
        (
            [(k, 10.0, 1.0) for k in range(MAX_SETTING_VALUES + 1)],
            f"scene of more than {MAX_SETTING_VALUES} objects",
        ),
    ],
)
def test_a_scene_that_cannot_be_is_a_fault_of_its_user_alone(views: Any, why: str) -> None:
    found, faults = of({0: views, 1: [(1, 10.0, 1.0)]})
    assert set(found) == {1} and faults == {why: 1}


def test_what_can_just_be_is_a_scene() -> None:
    full = [(MAX_OBJECT - k, VIEW_PIXELS / MAX_SETTING_VALUES, 5.0) for k in range(MAX_SETTING_VALUES)]
    found, faults = of({0: full, 1: [(0, float(VIEW_PIXELS), 0.0)]})
    assert len(found[0].objects) == MAX_SETTING_VALUES and len(found[1].objects) == 1 and not faults
    assert [o for o, _, _ in found[0].objects] == [MAX_OBJECT - k for k in range(MAX_SETTING_VALUES)]


def test_the_latest_scene_counts() -> None:
    old, new = table(0, {0: [(1, 10.0, 1.0), (2, 10.0, 1.0)]}, 3, 900.0), table(0, {0: [(3, 5.0, 2.0)]}, 3)
    both = Samples(
        np.concatenate((old.flow, new.flow)),
        np.concatenate((old.time_ns, new.time_ns)),
        np.concatenate((old.values, new.values)),
    )
    found, _ = scenes({"scene": both, "device": table(0, {0: [(30.0, 2.0), DEVICE]}, 2)}, 1)
    assert found[0].objects == ((3, 5.0, 2.0),) and found[0].classes == (2, 4, 8)


def test_nothing_is_known_of_who_sends_one_table_alone() -> None:
    assert of({0: [(1, 10.0, 1.0)]}, {1: [DEVICE]}) == ({}, {})
    assert scenes({"scene": table(0, {0: [(1, 10.0, 1.0)]}, 3)}, 1) == ({}, {})
    assert scenes({}, 3) == ({}, {})
