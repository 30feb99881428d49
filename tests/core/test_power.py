"""Power models."""

from __future__ import annotations

import doctest
from math import floor

import pytest

from controller.core import power
from controller.core.power import (
    bs_power,
    bs_power_saving,
    gpu_power_saving,
    gpu_power_w,
    ue_power,
    ue_power_saving,
)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(power).failed == 0


def test_check_values() -> None:
    assert round(bs_power_saving(10), 3) == 0.437
    assert round(ue_power_saving(33), 3) == 0.376
    assert bs_power_saving(106) == 0
    assert ue_power_saving(106) == 0


# Table V: UL PRB, DL PRB, UE and BS savings in % of every scheme that saves; the paper truncates all four.
TABLE_V = [
    (27, 10, 40, 43),
    (45, 36, 30, 31),
    (33, 10, 37, 43),
    (75, 13, 15, 42),
    (57, 50, 25, 25),
    (70, 11, 18, 43),
    (30, 11, 38, 43),
    (46, 35, 30, 31),
    (42, 10, 32, 43),
    (47, 10, 30, 43),
    (54, 45, 26, 27),
    (48, 10, 29, 43),
    (65, 10, 20, 43),
    (54, 42, 26, 28),
    (78, 10, 14, 43),
]


@pytest.mark.parametrize(("ul", "dl", "ue", "bs"), TABLE_V)
def test_table_v_follows_from_its_own_allocations(ul: int, dl: int, ue: int, bs: int) -> None:
    nearly_one = 0.999
    assert floor(100 * ue_power_saving(ul + nearly_one)) <= ue <= floor(100 * ue_power_saving(ul))
    assert floor(100 * bs_power_saving(dl + nearly_one)) <= bs <= floor(100 * bs_power_saving(dl))


def test_the_saving_of_the_average_is_the_average_of_the_savings() -> None:
    for saving in (bs_power_saving, ue_power_saving):
        assert saving(30) == pytest.approx((saving(10) + saving(50)) / 2)


def test_absolute_models() -> None:
    assert bs_power(0) == 145
    assert bs_power(106) == 280
    assert ue_power(53) == pytest.approx(0.4)  # 20 MHz
    assert ue_power(106) == pytest.approx(0.55)  # 40 MHz
    assert ue_power(273, n_prb=273, carrier_mhz=100) == pytest.approx(1.0)


def test_gpu() -> None:
    assert gpu_power_w(1000, w_per_mhz=0.04, idle_w=8) == pytest.approx(48)
    assert gpu_power_saving(400, max_mhz=1600) == 0.75
    assert gpu_power_saving(1600, max_mhz=1600) == 0


@pytest.mark.parametrize("bad", [-1.0, float("nan"), 107.0])
def test_allocations_outside_the_carrier_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="DL allocation"):
        bs_power_saving(bad)
    with pytest.raises(ValueError, match="UL allocation"):
        ue_power_saving(bad)


def test_impossible_clocks_are_refused() -> None:
    with pytest.raises(ValueError, match="1700"):
        gpu_power_saving(1700, max_mhz=1600)
    with pytest.raises(ValueError, match="GPU clock nan"):
        gpu_power_w(float("nan"), w_per_mhz=1, idle_w=1)
