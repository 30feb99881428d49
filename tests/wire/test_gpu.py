"""When a clock that was read back is the one that was locked."""

from __future__ import annotations

import pytest

from wire.definitions.gpu import bounds, is_held, sleeps

FINE = tuple(range(300, 2101, 15))
COARSE = (500, 900, 1600)


@pytest.mark.parametrize(
    ("wanted", "supported", "expected"),
    [
        (1005, FINE, (990, 1020)),
        (1001, FINE, (990, 1020)),  # 1005 is locked
        (992, FINE, (990, 1020)),
        (300, FINE, (300, 315)),
        (200, FINE, (200, 315)),
        (2100, FINE, (2085, 2115)),
        (9000, FINE, (2085, 2115)),
        (900, COARSE, (900, 900)),  # a step of this list leads to another action
        (2000, COARSE, (1600, 1600)),
        (900, (900,), (900, 900)),
        (900, (), (900, 900)),
    ],
)
def test_a_step_of_the_gpu_s_own_list_to_either_side(
    wanted: int, supported: tuple[int, ...], expected: tuple[int, int]
) -> None:
    low, high = bounds(wanted, supported)
    assert (low, high) == expected
    assert not is_held(low - 1, wanted, max(wanted, low), supported)
    assert is_held(low, wanted, wanted, supported) and is_held(high, wanted, wanted, supported)
    assert not is_held(high + 1, wanted, wanted, supported)


@pytest.mark.parametrize(
    ("sm_mhz", "reasons", "expected"),
    [
        (300, ("gpu_idle",), True),
        (300, ("gpu_idle", "applications_clocks_setting"), True),
        (300, (), False),
        (300, ("gpu_idle", "sw_power_cap"), False),
        (300, ("gpu_idle", "hw_thermal_slowdown"), False),
        (900, ("gpu_idle",), False),
        (0, ("gpu_idle",), False),
    ],
)
def test_a_gpu_without_work_sleeps(sm_mhz: int, reasons: tuple[str, ...], expected: bool) -> None:
    assert sleeps(sm_mhz, 900, reasons) is expected


def test_what_was_not_read_is_not_held() -> None:
    assert not is_held(0, 900, 900, FINE, ("gpu_idle",))
