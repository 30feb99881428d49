"""Path loss of TR 38.901 against numbers worked out by hand, shadowing, the serving cell, and SINR."""

from __future__ import annotations

import numpy as np
import pytest

from wire.definitions.propagation import (
    Site,
    efficiency,
    line_of_sight,
    path_loss_db,
    received_dbm,
    serving,
    shadowing_db,
    sinr_db,
)

SITE = Site()


def test_probability_of_a_line_of_sight() -> None:
    np.testing.assert_allclose(
        line_of_sight([0.0, 18.0, 100.0, 5000.0]), [1.0, 1.0, 0.3476, 0.0036], atol=1e-4
    )


@pytest.mark.parametrize(
    ("distance_m", "los_db", "nlos_db"), [(100.0, 69.16, 89.06), (500.0, 95.82, 115.94)], ids=["near", "far"]
)
def test_path_loss_before_and_after_the_breakpoint(distance_m: float, los_db: float, nlos_db: float) -> None:
    # The breakpoint is at 4 x 24 m x 0.5 m x 0.7 GHz / c = 112 m.
    p = float(line_of_sight(distance_m))
    assert float(path_loss_db(distance_m, SITE)) == pytest.approx(p * los_db + (1 - p) * nlos_db, abs=0.02)


def test_path_loss_rises_without_a_step() -> None:
    loss = path_loss_db(np.arange(10.0, 5000.0), SITE)
    assert (np.diff(loss) > 0.0).all() and np.diff(loss).max() < 1.5
    assert path_loss_db(0.0, SITE) == path_loss_db(10.0, SITE)


def test_shadowing_is_correlated_over_what_was_travelled() -> None:
    travelled = np.tile(np.arange(40) * 25.0, (2000, 1))
    shadowing = shadowing_db(np.random.default_rng(1), travelled, 2, SITE)
    assert shadowing.std() == pytest.approx(6.0, rel=0.03)
    x = shadowing[:, :, 0]
    for apart in (1, 2):
        found = (x[:, apart:] * x[:, :-apart]).mean() / x.var()
        assert found == pytest.approx(np.exp(-apart * 25.0 / 50.0), abs=0.03)
    assert abs(np.corrcoef(x.ravel(), shadowing[:, :, 1].ravel())[0, 1]) < 0.03
    still = shadowing_db(np.random.default_rng(1), np.zeros((1, 5)), 1, SITE)
    assert np.ptp(still) == 0.0


def test_the_serving_cell_changes_with_the_hysteresis() -> None:
    received = np.array([[[-80.0, -90.0], [-80.0, -77.0], [-80.0, -75.0], [-80.0, -83.0], [-80.0, -85.0]]])
    assert serving(received, 4.0).tolist() == [[0, 0, 1, 1, 0]]
    assert serving(received, 0.0).tolist() == [[0, 1, 1, 0, 0]]
    assert serving(received[:, :, :1]).tolist() == [[0] * 5]


def test_sinr_of_one_station_is_above_noise_and_of_two_above_interference() -> None:
    # Noise of 52 x 180 kHz at 9 dB: -174 + 9 + 69.71 dBm.
    assert sinr_db(np.full((1, 1, 1), -80.0), np.zeros((1, 1)), SITE)[0, 0] == pytest.approx(15.29, abs=0.01)
    two = np.array([[[-50.0, -60.0]]])
    assert sinr_db(two, np.zeros((1, 1)), SITE)[0, 0] == pytest.approx(10.0 + 3.01, abs=0.01)
    assert sinr_db(two, np.ones((1, 1)), SITE)[0, 0] == pytest.approx(-10.0 + 3.01, abs=0.01)


def test_power_received_is_that_sent_less_all_losses() -> None:
    shadowing = np.full((1, 1, 2), 3.0)
    received = received_dbm(np.zeros((1, 1, 2)), np.array([[100.0, 0.0], [0.0, 500.0]]), shadowing, SITE)
    np.testing.assert_allclose(received[0, 0], 46.0 + 8.0 - path_loss_db([100.0, 500.0], SITE) - 3.0)


def test_efficiency_is_attenuated_and_limited() -> None:
    np.testing.assert_allclose(efficiency([-10.1, 0.0, 30.0, 50.0]), [0.0, 0.6, 5.981, 5.981], atol=1e-3)
