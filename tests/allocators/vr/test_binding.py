"""What holds a user back is found by trying: with a little more of it the upgrade fits."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("numba", reason="the extra vr")
pytest.importorskip("highspy", reason="the extra vr")

from controller.allocators.vr.solve import solve

LOW, HIGH = 1000 * 2560 * 1440 / (640 * 360), 1000 * 3840 * 2160 / (640 * 360)
"""Pixels of the one object at 2K and 4K."""
BITS = 0.25


def world(**more: Any) -> dict[str, Any]:
    """One user with one object on one station and node: all that there is can be had."""
    data: dict[str, Any] = {
        "base_stations": [{"id": 0, "bandwidth_hz": 1e8}],
        "compute_nodes": [{"id": 0, "gpu_flops_per_s": 3e12, "latency_ms_to_bs": [0.0]}],
        "games": [{"id": 0, "cpu_per_pixel_s": 1e-6, "memory_gb_per_pixel": 1e-6}],
        "users": [
            {
                "id": 0,
                "hmd_resolution": "2k",
                "max_fps": 30,
                "game": 0,
                "sinr_db": [15.0],
                "objects": [{"id": 0, "pixels": 1000, "attention": 3}],
            }
        ],
    }
    for key, value in more.items():
        data["compute_nodes" if key in CAPACITY else "base_stations"][0][key] = value
    return data


CAPACITY = {
    "gpu_flops_per_s": ("gpu", HIGH * 440 * 30),
    "cpu": ("cpu", HIGH * 30 * 1e-6),
    "memory_gb": ("memory", HIGH * 1e-6),
    "network_bits_per_s": ("network", HIGH * BITS * 30),
}


@pytest.mark.parametrize("solver", ["exact", "heuristic"])
@pytest.mark.parametrize("capacity", CAPACITY)
def test_a_capacity_a_hair_below_what_4k_takes_binds(capacity: str, solver: str) -> None:
    name, needed = CAPACITY[capacity]
    # A GPU that is full with one user renders a frame for as long as it may take: that is latency.
    how = {"solver": solver, "constraints": "published-code" if name == "gpu" else "full"}
    (of,) = solve(world(**{capacity: needed * (1 - 1e-6)}) | how)["users"]
    assert of["resolutions"] == {"0": "2K"} and of["binding"] == name
    (of,) = solve(world(**{capacity: needed * (1 + 1e-6)}) | how)["users"]
    assert of["resolutions"] == {"0": "4K"} and of["binding"] == "display"


def test_bandwidth_that_others_have_binds_and_what_a_station_has_not_is_latency() -> None:
    alone = solve(world())["users"][0]
    data = world(bandwidth_hz=alone["bandwidth_hz"] * (1 - 1e-6))
    (of,) = solve(data)["users"]
    assert of["resolutions"] == {"0": "2K"} and of["binding"] == "latency"
    data = world(bandwidth_hz=1.9 * alone["bandwidth_hz"])
    data["users"].append({**data["users"][0], "id": 1})
    result = solve(data)
    assert sorted(of["resolutions"]["0"] for of in result["users"]) == ["2K", "4K"]
    assert {of["resolutions"]["0"]: of["binding"] for of in result["users"]} == {
        "2K": "bandwidth",
        "4K": "display",
    }


def test_a_higher_frame_rate_is_an_upgrade_too() -> None:
    data = world()
    data["users"][0] |= {"max_fps": 60, "objects": [{"id": 0, "pixels": 1000, "attention": 0}]}
    assert solve(data)["users"][0]["binding"] == "display"
    data["compute_nodes"][0]["latency_ms_to_bs"] = [20.0]
    (of,) = solve(data)["users"]
    assert (of["frame_rate"], of["binding"]) == (30, "latency")


def test_packets_bind_where_others_wait_too_long() -> None:
    """A station with packets for one user at 4K and one at 2K."""
    packets = (HIGH + LOW) * BITS / 12 * 30
    data = world(processing_packets_per_s=packets + 1e3) | {"packet_bits": 12}
    data["users"].append({**data["users"][0], "id": 1})
    result = solve(data)
    assert result["violations"] == [] and result["admitted"] == 2
    assert sorted(of["binding"] for of in result["users"]) == ["display", "packets"]


def test_whoever_is_served_below_what_fits_is_bound_by_nothing() -> None:
    data = world()
    data["users"][0] |= {"hmd_resolution": "4k"}
    (of,) = solve({**data, "solver": "fixed"})["users"]
    assert of["resolutions"] == {"0": "4K"} and of["binding"] == ""
