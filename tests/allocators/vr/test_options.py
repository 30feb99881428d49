"""What a configuration may say of a slice."""

from __future__ import annotations

from typing import Any

import pytest

from controller.allocators.vr.options import VrOptions


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"on_time": 0.0}, "on_time"),
        ({"users": 1.5}, "users"),
        ({"bandwidth": "mine"}, "bandwidth"),
        ({"objective": "best"}, "objective"),
        ({"bits_per_pixel": 0.0}, "bits_per_pixel"),
        ({"flop_per_pixel": float("inf")}, "flop_per_pixel"),
        ({"gpu_share": float("nan")}, "gpu_share"),
        ({"gpu_mhz": [400, 400]}, "GPU clocks must rise"),
        ({"gpu_mhz": [0, 400]}, "gpu_mhz"),
        ({"overhead_ms": -1.0}, "overhead_ms"),
        ({"hysteresis": 1.1}, "hysteresis"),
        ({"station": "bs-1"}, "station"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        VrOptions.model_validate(options)


def test_the_gpu_has_the_clocks_that_are_named() -> None:
    VrOptions(gpu_mhz=(400, 1600)).check(n_prb=106, max_mhz=1600)
    with pytest.raises(ValueError, match="gpu_mhz 1600 is above max_mhz 1500"):
        VrOptions(gpu_mhz=(400, 1600)).check(n_prb=106, max_mhz=1500)


def test_control_slots_may_end_before_their_time() -> None:
    assert VrOptions().ends_early
