"""The checker: what is right to the limit passes, and each constraint is missed by no hair."""

from __future__ import annotations

from dataclasses import replace
from math import inf, log, log2, nan
from typing import Any

import pytest

from controller.allocators.vr.check import Placement, evaluate
from controller.allocators.vr.instance import Instance

HAIR = 1e-6
SCALE_4K = 3840 * 2160 / (640 * 360)
PIXELS = 1000 * SCALE_4K
"""Of a frame of either user's one object at 4K."""
FLOP = PIXELS * 440 * 30 * 2
BITS = PIXELS * 0.25
CHANNEL = 4 * log2(1 + 10**1.5)


def world() -> dict[str, Any]:
    """Two players of a game, two stations and nodes, with far more than they need."""
    user = {
        "hmd_resolution": "4k",
        "max_fps": 60,
        "game": 0,
        "sinr_db": [15.0, 15.0],
        "distance_m": [300, 300],
    }
    objects = [{"id": 0, "pixels": 1000, "attention": 3}]
    return {
        "base_stations": [
            {"id": b, "bandwidth_hz": 1e9, "processing_bits_per_s": 1e9, "processing_packets_per_s": 1e5}
            for b in range(2)
        ],
        "compute_nodes": [
            {
                "id": m,
                "gpu_flops_per_s": 3e12,
                "cpu": 1e3,
                "memory_gb": 1e3,
                "network_bits_per_s": 1e12,
                "latency_ms_to_bs": [0.5, [0.5, 1.0]],
            }
            for m in range(2)
        ],
        "games": [
            {"id": 0, "cpu": 1.0, "memory_gb": 2.0, "cpu_per_pixel_s": 1e-6, "memory_gb_per_pixel": 1e-5}
        ],
        "fixed_latency_s": 1e-4,
        "users": [{"id": i, **user, "objects": objects} for i in range(2)],
    }


def placed(**more: Any) -> dict[int, Placement]:
    one = replace(Placement(0, 0, 30.0, 1e7, (4,)), **more)
    return {0: one, 1: one}


def found(data: dict[str, Any], solution: dict[int, Placement], *constraints: Any) -> set[str]:
    """The equations that are violated."""
    violations = evaluate(Instance.of(data), solution, *constraints).violations
    return {v.split()[0] for v in violations}


def test_a_solution_passes_and_its_terms_are_those_of_the_equations() -> None:
    evaluation = evaluate(Instance.of(world()), placed(station=1))
    assert evaluation.violations == ()
    served = evaluation.served[0]
    packets = 2 * BITS / 12_000 * 30
    assert served.latency_s == pytest.approx(
        {
            "transmission": BITS / (1e7 * CHANNEL),
            "propagation": 300 / 299_792_458,
            "processing": BITS / 1e9,
            "queue": 1 / (1e5 - packets),
            "routing": 1e-3,
            "rendering": PIXELS * 440 / 3e12,
            "fixed": 1e-4,
        }
    )
    assert served.budget_s == pytest.approx(1 / 30) and served.qoe == pytest.approx(3 * log(2))
    assert evaluation.objective == pytest.approx(2 * served.qoe)
    assert evaluation.bandwidth_hz == (0.0, 2e7) and evaluation.gpu_flops_per_s == pytest.approx((FLOP, 0.0))
    printed = evaluate(Instance.of(world()), placed(), "full", "printed")
    assert printed.objective == pytest.approx(2 * (log(30) + log(2 * 3)))
    published = evaluate(Instance.of(world()), placed(), "published-code").served[0]
    assert set(published.latency_s) == {"transmission", "routing", "fixed"}


@pytest.mark.parametrize(
    ("where", "key", "limit", "equation", "published"),
    [
        ("compute_nodes", "gpu_flops_per_s", FLOP, "(7)", True),
        ("compute_nodes", "cpu", 2 * (1.0 + 1e-6 * PIXELS * 30), "(8)", False),
        ("compute_nodes", "memory_gb", 2 * (2.0 + 1e-5 * PIXELS), "(9)", False),
        ("compute_nodes", "network_bits_per_s", 2 * BITS * 30, "(10)", False),
        ("base_stations", "bandwidth_hz", 2e7, "(12)", True),
    ],
)
def test_a_capacity_holds_to_the_limit_and_no_hair_beyond(
    where: str, key: str, limit: float, equation: str, published: bool
) -> None:
    data = world()
    data[where][0][key] = limit
    assert found(data, placed()) == set()
    data[where][0][key] = limit * (1 - HAIR)
    assert found(data, placed()) == {equation}
    assert found(data, placed(), "published-code") == ({equation} if published else set())


@pytest.mark.parametrize("constraints", ["full", "published-code"])
def test_the_latency_holds_to_the_limit_and_no_hair_beyond(constraints: str) -> None:
    """Of each term in turn: a hair of the budget more is too much."""
    data = world()
    served = evaluate(Instance.of(data), placed(), constraints).served[0]  # type: ignore[arg-type]
    spare = served.budget_s - served.total_latency_s
    data["fixed_latency_s"] += spare
    assert found(data, placed(), constraints) == set()
    data["fixed_latency_s"] += HAIR * served.budget_s
    assert found(data, placed(), constraints) == {"(24)"}
    routed = world()
    routed["compute_nodes"][0]["latency_ms_to_bs"][0] += 1e3 * (spare + HAIR * served.budget_s)
    assert found(routed, placed(), constraints) == {"(24)"}
    thin = BITS / (served.latency_s["transmission"] + spare) / CHANNEL
    assert found(world(), placed(bandwidth_hz=thin), constraints) == set()
    assert "(24)" in found(world(), placed(bandwidth_hz=thin * (1 - HAIR)), constraints)


@pytest.mark.parametrize(
    ("where", "key", "term"),
    [
        ("base_stations", "processing_bits_per_s", lambda s: BITS / s),
        ("base_stations", "processing_packets_per_s", lambda s: 2 * BITS / 12_000 * 30 + 1 / s),
        ("compute_nodes", "gpu_flops_per_s", lambda s: PIXELS * 440 / s),
        ("users", "distance_m", lambda s: [s * 299_792_458] * 2),
    ],
)
def test_each_term_of_the_full_model_counts(where: str, key: str, term: Any) -> None:
    data = world()
    served = evaluate(Instance.of(data), placed()).served[0]
    name = {
        "processing_bits_per_s": "processing",
        "processing_packets_per_s": "queue",
        "gpu_flops_per_s": "rendering",
        "distance_m": "propagation",
    }[key]
    most = served.latency_s[name] + served.budget_s - served.total_latency_s
    for entry in data[where]:
        entry[key] = term(most)
    if key != "gpu_flops_per_s":  # such a GPU is overloaded by two users
        assert found(data, placed()) == set()
    for entry in data[where]:
        entry[key] = term(most * (1 + HAIR))
    assert "(24)" in found(data, placed()) and "(24)" not in found(data, placed(), "published-code")


def test_the_rate_holds_to_the_limit_and_no_hair_beyond() -> None:
    """Equation (16) alone: what is offered a second, where the latency is that of nothing else."""
    need = BITS * 30 / CHANNEL
    data = world()
    for constraints in ("full", "published-code"):
        assert "(16)" not in found(data, placed(bandwidth_hz=need), constraints)
        assert "(16)" in found(data, placed(bandwidth_hz=need * (1 - HAIR)), constraints)


def test_what_is_no_choice() -> None:
    instance = Instance.of(world())
    assert found(world(), placed(resolutions=(12,))) == {"(3)"}
    assert "(4)" in found(world(), placed(frame_rate_hz=90.0))
    assert "(4)" in found(world(), placed(frame_rate_hz=29.999999))
    for hz in (0.0, -1.0, nan, inf):
        assert "(11)" in found(world(), placed(bandwidth_hz=hz))
    one = placed()[0]
    assert found(world(), {0: one, 1: replace(one, node=1)}) == {"(6)"}
    assert found(world(), {0: one, 1: replace(one, station=1)}) == set()
    for solution, named in (
        ({2: one}, "user 2 is outside 0..1"),
        ({0: replace(one, station=2)}, "station 2 is outside"),
        ({0: replace(one, node=-1)}, "node -1 is outside"),
        ({0: replace(one, resolutions=(4, 4))}, "2 resolutions for 1 objects"),
        ({0: replace(one, resolutions=(3,))}, "resolution 3K has no pixels"),
    ):
        with pytest.raises(ValueError, match=named):
            evaluate(instance, solution)


def test_what_is_broken_serves_nobody() -> None:
    for where, key, equation in (
        ("base_stations", "bandwidth_hz", "(11)"),
        ("compute_nodes", "gpu_flops_per_s", "(5)"),
    ):
        data = world()
        data[where][0][key] = nan
        assert equation in found(data, placed())
    data = world()
    for user in data["users"]:
        user["sinr_db"] = [None, 15.0]
    assert {"(16)", "(24)"} <= found(data, placed())
    data = world()
    data["base_stations"][0]["processing_packets_per_s"] = 2 * BITS / 12_000 * 30
    assert found(data, placed()) == {"(24)"}
