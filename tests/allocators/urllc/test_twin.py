"""Twins of processing rates: what they make of completion times, and how sure they are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from controller.allocators.urllc.twin import Deviation, Twin
from wire.definitions.short_packets import inverse_q

Z = inverse_q(0.05)


def learned(true: float, tasks: int, slots: int = 1, noise: float = 0.01, seed: int = 0) -> Deviation:
    rng = np.random.default_rng(seed)
    of = Deviation()
    for _ in range(slots):
        of = of.observe(true + noise * rng.standard_normal(tasks))
    return of


@pytest.mark.parametrize("true", [-0.3, 0.0, 0.02, 0.4])
def test_the_bound_comes_down_to_the_true_deviation_from_above(true: float) -> None:
    bounds = [learned(true, n, slots=6).bounds(Z, 0.05)[1] for n in (3, 30, 3000)]
    assert bounds[-1] == pytest.approx(true, abs=2e-3)
    assert abs(bounds[1] - true) < abs(bounds[0] - true) + 1e-3


def test_of_who_is_not_known_the_bound_is_that_of_the_devices() -> None:
    assert Deviation().bounds(Z, 0.05)[1] == pytest.approx(Z * 0.05)
    assert Deviation().bounds(Z, 0.2)[1] > Deviation().bounds(Z, 0.05)[1]


def test_the_bound_covers_the_true_deviation_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(400):
        true = 0.05 * rng.standard_normal()
        covered += true <= learned(true, 8, noise=0.05, seed=seed).bounds(Z, 0.05)[1]
    assert covered / 400 > 0.90


def test_both_bounds_close_in() -> None:
    few, many = (learned(0.1, n, slots=4).bounds(Z, 0.05) for n in (5, 500))
    assert few[0] < many[0] < many[1] < few[1]
    assert many == (pytest.approx(0.1, abs=3e-3), pytest.approx(0.1, abs=3e-3))


def test_a_drift_is_followed() -> None:
    of = learned(0.1, 100, slots=20)
    for _ in range(12):
        of = of.observe(np.full(100, -0.1))
    assert of.bounds(Z, 0.05)[1] == pytest.approx(-0.1, abs=0.03)


def test_what_cannot_be_and_too_few_tasks_teach_nothing() -> None:
    before = learned(0.1, 50)
    for rows in ([np.nan] * 5, [np.inf, -np.inf, 0.1], [0.1, 0.1], [-5.0, 3.0, 1.0, -0.95], []):
        assert before.observe(np.array(rows, np.float64)) == before


def test_state_goes_through_json() -> None:
    twin = Twin(learned(0.1, 20), learned(-0.2, 20))
    assert Twin.from_state(json.loads(json.dumps(twin.to_state()))) == twin


@pytest.mark.parametrize("state", [[-1.0, 0.0, 0.0], [1.0, 2.0, 0.0], [1.0, 0.0, -1.0], [np.nan, 0.0, 0.0]])
def test_a_state_that_cannot_be_is_refused(state: list[float]) -> None:
    with pytest.raises(ValueError, match="deviation"):
        Deviation.from_state(state)
