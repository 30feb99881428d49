from __future__ import annotations

import itertools
import math

import pytest

from agents.gpu.backends import open_devices
from agents.gpu.device import ClockNotSupported, GpuInfo, NoSuchGpu, supported_clock
from agents.gpu.emulated import SUPPORTED_SM_MHZ, EmulatedGpu, EmulatedGpuSpec


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gpu(clock: Clock) -> EmulatedGpu:
    return EmulatedGpu(clock=clock)


def test_the_actions_of_mucb1_are_supported_clocks():
    assert set(range(500, 1700, 100)) <= set(SUPPORTED_SM_MHZ)
    assert SUPPORTED_SM_MHZ[0] == 300 and SUPPORTED_SM_MHZ[-1] == 1600
    steps = {b - a for a, b in itertools.pairwise(SUPPORTED_SM_MHZ)}
    assert steps == {10, 15}


def test_a_wish_is_rounded_up_to_a_supported_clock_and_cut_at_the_highest(gpu: EmulatedGpu):
    assert supported_clock(gpu.info, 1000) == 1000
    assert supported_clock(gpu.info, 1001) == 1015
    assert supported_clock(gpu.info, 1) == 300
    assert supported_clock(gpu.info, 5000) == 1600


def test_unsorted_clocks_are_refused():
    with pytest.raises(ValueError, match="ascend"):
        GpuInfo("u", "n", "emulated", (600, 500), 600)


def test_the_clock_follows_a_lock_after_a_lag_of_20_to_50_ms(gpu: EmulatedGpu, clock: Clock):
    gpu.lock(500)
    clock.now += 0.0199
    assert gpu.read().sm_mhz == 1600
    clock.now += 0.0301
    assert gpu.read().sm_mhz == 500
    gpu.unlock()
    clock.now += 0.05
    assert gpu.read().sm_mhz == 1600


def test_a_repeated_lock_does_not_start_the_lag_again(gpu: EmulatedGpu, clock: Clock):
    gpu.lock(500)
    for _ in range(5):
        clock.now += 0.01
        gpu.lock(500)
    assert gpu.read().sm_mhz == 500


def test_a_clock_that_is_not_supported_is_refused(gpu: EmulatedGpu):
    with pytest.raises(ClockNotSupported, match="1001 MHz"):
        gpu.lock(1001)


def test_power_is_affine_in_the_clock(gpu: EmulatedGpu, clock: Clock):
    watts = []
    for mhz in (400, 800, 1600):
        gpu.lock(mhz)
        clock.now += 1
        gpu.set_load("test", 0.5)
        watts.append(gpu.read().power_w)
    assert watts[2] - watts[1] == pytest.approx(2 * (watts[1] - watts[0]))
    assert watts[0] > EmulatedGpuSpec().idle_w


def test_energy_is_the_integral_of_power_however_often_it_is_read(clock: Clock):
    seldom, often = EmulatedGpu(clock=clock), EmulatedGpu(clock=clock)
    for gpu in (seldom, often):
        gpu.set_load("test", 0.8)
        gpu.lock(600)
    for _ in range(400):
        clock.now += 0.025
        often.read()
    a, b = seldom.read(), often.read()
    assert a.energy_j == pytest.approx(b.energy_j, rel=1e-9)
    assert a.temperature_c == pytest.approx(b.temperature_c, rel=1e-9)
    spec = EmulatedGpuSpec()
    lag = spec.lag_min_s + (spec.lag_max_s - spec.lag_min_s) * 1000 / 1300

    def watts(mhz: int, load: float) -> float:
        return spec.idle_w + spec.dynamic_w * mhz / 1600 * (0.15 + 0.85 * load)

    hold = spec.load_hold_s
    joules = watts(1600, 0.8) * lag + watts(600, 0.8) * (hold - lag) + watts(600, 0) * (10 - hold)
    assert a.energy_j == pytest.approx(joules, rel=1e-9)


def test_temperature_approaches_its_settled_value_in_first_order(clock: Clock):
    spec = EmulatedGpuSpec(load_hold_s=1e9)
    gpu = EmulatedGpu(spec, clock=clock)
    start = gpu.read().temperature_c
    gpu.set_load("test", 1.0)
    settled = spec.ambient_c + spec.kelvin_per_w * gpu.read().power_w
    clock.now += spec.thermal_time_constant_s
    expected = settled + (start - settled) / math.e
    assert gpu.read().temperature_c == pytest.approx(expected)


def test_loads_of_several_sources_add_up_to_at_most_one_and_end_with_their_source(
    gpu: EmulatedGpu, clock: Clock
):
    gpu.set_load("a", 0.3)
    gpu.set_load("b", 0.4)
    assert gpu.read().utilisation == pytest.approx(0.7)
    gpu.set_load("c", 0.9)
    assert gpu.read().utilisation == 1.0
    clock.now += 4.0
    gpu.set_load("a", 0.2)
    clock.now += 2.0
    assert gpu.read().utilisation == pytest.approx(0.2)
    gpu.set_load("a", 0.0)
    assert "gpu_idle" in gpu.read().clock_event_reasons


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_an_impossible_load_is_refused(gpu: EmulatedGpu, value: float):
    with pytest.raises(ValueError, match="utilisation"):
        gpu.set_load("a", value)


def test_a_slowdown_holds_the_clock_below_the_lock_and_says_so(gpu: EmulatedGpu, clock: Clock):
    gpu.set_ceiling(900)
    gpu.lock(1500)
    clock.now += 1
    reading = gpu.read()
    assert reading.sm_mhz == 900
    assert "sw_thermal_slowdown" in reading.clock_event_reasons
    gpu.set_ceiling(0)
    clock.now += 1
    assert gpu.read().sm_mhz == 1500


def test_the_emulated_gpu_is_found_by_its_name_and_by_its_index_only():
    assert open_devices("emulated", ["0", "GPU-emulated-0"])[0][0].info.uuid == "GPU-emulated-0"
    with pytest.raises(NoSuchGpu, match=r"GPU 1: .*GPU-emulated-0"):
        open_devices("emulated", ["1"])


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="'cuda'"):
        open_devices("cuda")
