"""The solvers of VR-GX: known optima, brute force, and random instances through the checker."""

from __future__ import annotations

import json
from importlib import import_module
from math import nan
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra vr")
pytest.importorskip("highspy", reason="the extra vr")

from controller.allocators.vr import exact, heuristic
from controller.allocators.vr.check import evaluate
from controller.allocators.vr.instance import Instance
from controller.allocators.vr.problem import Problem
from controller.allocators.vr.rca import REASON
from controller.allocators.vr.solve import SOLVERS, Request, jain, solve
from controller.allocators.vr.tables import FULL
from tests.allocators.vr.worlds import SIXTEEN, best, draw, solution_of

service = import_module("controller.allocators.vr.solve")

OPTIMA = {4: 164.015, 5: 168.174, 6: 228.883, 8: 306.110, 10: 341.984}


@pytest.fixture(scope="module")
def sixteen() -> dict[str, Any]:
    if not SIXTEEN.exists():
        pytest.skip(f"no {SIXTEEN.name} of VR-GX in ../shared/data")
    data: dict[str, Any] = json.loads(SIXTEEN.read_text())
    return data


@pytest.mark.parametrize("users", OPTIMA)
def test_the_known_optima_are_found_and_proven(sixteen: dict[str, Any], users: int) -> None:
    result = solve({**sixteen, "first": users, "constraints": "published-code"})
    assert result["status"] == "optimal" and result["violations"] == [] and result["admitted"] == users
    assert round(result["objective"], 3) == OPTIMA[users]
    assert 0.0 <= result["gap"] <= 1e-6 and result["bound"] >= result["objective"]


def test_what_one_user_gets_of_the_published_instance(sixteen: dict[str, Any]) -> None:
    """User 3 has a 4K display at 30 frames a second: all that is looked at is at its highest."""
    for solver in ("exact", "heuristic"):
        of = solve({**sixteen, "first": 6, "solver": solver, "constraints": "published-code"})["users"][3]
        attention = {str(o["id"]): o["attention"] for o in sixteen["users"][3]["objects"]}
        assert of["binding"] == "display" and of["frame_rate"] == 30
        assert all(of["resolutions"][o] == "8K" for o, rating in attention.items() if rating > 0)
        assert of["qoe"] == pytest.approx(sum(attention.values()) * np.log(8 / 2))
        assert of["latency_ms"]["total"] <= of["budget_ms"] * (1 + 1e-9)
        assert of["latency_ms"]["total"] == pytest.approx(
            sum(ms for term, ms in of["latency_ms"].items() if term != "total")
        )


@pytest.mark.parametrize("seed", range(12))
def test_every_solution_passes_the_checker(seed: int) -> None:
    """Also those that the time limit or a queue forces; what is printed is what was checked."""
    data = draw(seed, 2 + seed % 8, queue=seed % 3 == 0)
    instance = Instance.of(data)
    for constraints in ("full", "published-code"):
        for objective in ("weighted", "printed"):
            results = {}
            for solver in SOLVERS:
                result = solve({**data, "solver": solver, "constraints": constraints, "objective": objective})
                results[solver] = result
                json.dumps(result, allow_nan=False)
                evaluation = evaluate(instance, solution_of(instance, result), constraints, objective)
                assert evaluation.violations == () and result["violations"] == []
                assert evaluation.objective == pytest.approx(result["objective"], abs=1e-9)
                assert result["status"] == "infeasible" or result["admitted"] > 0
                for of in result["users"]:
                    assert bool(of["reason"]) != of["admitted"]
                if result["bound"] is not None:
                    assert result["bound"] >= result["objective"]
            optimum = results["exact"]
            for solver in SOLVERS:
                assert results[solver]["admitted"] <= optimum["admitted"]
                if results[solver]["admitted"] == optimum["admitted"]:
                    assert results[solver]["objective"] <= optimum["objective"] * (1 + 1e-6) + 1e-9
            bound = results["heuristic"]["bound"]
            if bound is not None:
                assert bound >= optimum["objective"] * (1 - 1e-9)
            if optimum["status"] == "optimal":
                assert "" not in [of["binding"] for of in optimum["users"]], "an upgrade fits"


@pytest.mark.parametrize("seed", range(16))
def test_the_optimum_is_that_of_brute_force(seed: int) -> None:
    few = seed % 2
    data = draw(
        100 + seed, 3 if few else 2, objects=2 if few else 3, displays=("2k",) if few else ("2k", "4k")
    )
    data["base_stations"], data["compute_nodes"] = data["base_stations"][:2], data["compute_nodes"][:2]
    for of in (*data["compute_nodes"], *data["users"]):
        for key in ("latency_ms_to_bs", "sinr_db", "distance_m"):
            if key in of:
                of[key] = of[key][:2]
    instance = Instance.of(data)
    for constraints in ("full", "published-code"):
        for objective in ("weighted", "printed"):
            result = solve({**data, "constraints": constraints, "objective": objective})
            admitted, value = best(instance, constraints, objective)
            assert result["admitted"] == admitted
            assert result["objective"] == pytest.approx(value, abs=1e-6)
            assert result["status"] == ("optimal" if admitted else "infeasible")


def test_a_time_limit_leaves_a_solution_and_a_bound(sixteen: dict[str, Any]) -> None:
    result = solve({**sixteen, "time_limit_s": 0.01})
    assert result["status"] == "time limit" and result["violations"] == [] and result["admitted"] == 16
    assert result["bound"] > result["objective"] > 0 and result["gap"] < 0.05


def test_progress_is_reported(sixteen: dict[str, Any]) -> None:
    heard: list[tuple[float, float, float]] = []
    solve({**sixteen, "first": 10, "progress": lambda *of: heard.append(of)})
    assert heard and all(bound >= best - 1e-6 for _, best, bound in heard)


def test_the_heuristic_s_bound_is_not_below_the_optimum(sixteen: dict[str, Any]) -> None:
    for users in (8, 10):
        problem = Problem.of(Instance.of(sixteen).first(users), "published-code", "weighted")
        found, optimum = heuristic.solve(problem), exact.solve(problem)
        assert found.value <= optimum.value + 1e-9 <= found.bound + 1e-6
        assert found.value >= optimum.value * 0.99


@pytest.mark.parametrize("seed", range(8))
def test_a_bound_counts_every_point_of_the_fronts(seed: int) -> None:
    """Where rendering takes time bandwidth is convex in pixels: a point below the hull can be the best."""
    problem = Problem.of(Instance.of(draw(seed, 4, objects=9)), "full", "weighted")
    prices = heuristic.solve(problem).prices
    for price in (prices, np.full_like(prices, 2.0), np.full_like(prices, 10.0)):
        assert exact.dual_bound(problem, price) == pytest.approx(_dual(problem, price), rel=1e-9)


def _dual(problem: Problem, prices: Any) -> float:
    """What the prices prove, by trying all."""
    nodes = len(problem.instance.nodes)
    worth = np.zeros((len(problem) + 1, nodes))
    for i in range(len(problem)):
        best = np.zeros(nodes)
        x = problem.pixels[problem.menu_at[i] : problem.menu_at[i + 1]]
        value = problem.value[problem.menu_at[i] : problem.menu_at[i + 1]]
        for c in range(problem.config_at[i], problem.config_at[i + 1]):
            needs = exact.take(problem, c, x)
            limited = problem.resource[c] >= 0
            fits = (needs[:, limited] <= FULL).all(axis=1)
            cost = needs[fits][:, limited] @ prices[problem.resource[c][limited]]
            profit = problem.rate_value[c] + value[fits] - cost
            best[problem.node[c]] = max(best[problem.node[c]], profit.max(initial=0.0))
        worth[problem.game[i]] += best
    return float(prices.sum() + worth.max(axis=1).sum())


def test_a_front_that_is_not_all_there_proves_nothing() -> None:
    instance = Instance.of(draw(3, 3, objects=9))
    for points, proven in ((1 << 15, True), (8, False)):
        problem = Problem.of(instance, "full", "weighted", points=points)
        assert all(menu.exact for menu in problem.menus) == proven
        optimum = exact.solve(problem)
        assert (optimum.status, np.isfinite(optimum.bound)) == ("optimal" if proven else "feasible", proven)


# ---- the two that are compared with ------------------------------------------------------------------------


def test_rca_gives_a_station_to_one_user(sixteen: dict[str, Any]) -> None:
    result = solve({**sixteen, "first": 8, "solver": "rca"})
    admitted = [of for of in result["users"] if of["admitted"]]
    assert len({of["station"] for of in admitted}) == len(admitted) == 4
    assert {of["bandwidth_hz"] for of in admitted} == {100e6} and {of["frame_rate"] for of in admitted} == {
        30
    }
    assert {of["reason"] for of in result["users"] if not of["admitted"]} == {REASON}
    assert (result["status"], result["bound"], result["gap"]) == ("feasible", None, None)


def test_rca_prefers_the_user_with_the_better_channel() -> None:
    data = alike(2)
    data["users"][1]["sinr_db"] = [20.0]
    assert [of["admitted"] for of in solve({**data, "solver": "rca"})["users"]] == [False, True]
    # ... unless nothing that this one looks at matters to it.
    data["users"][1]["objects"] = [{"id": 0, "pixels": 1000, "attention": 0}]
    assert [of["admitted"] for of in solve({**data, "solver": "rca"})["users"]] == [True, False]


def test_fixed_is_4k_at_30_in_the_order_of_users_where_it_fits() -> None:
    data = alike(3)
    data["users"][0]["max_fps"] = 90
    flops = 1000 * 3840 * 2160 / (640 * 360) * 440 * 30
    data["compute_nodes"][0]["gpu_flops_per_s"] = 2.5 * flops
    result = solve({**data, "solver": "fixed", "constraints": "published-code"})
    first, second, third = result["users"]
    assert first["resolutions"] == second["resolutions"] == {"0": "4K"} and first["frame_rate"] == 30
    assert not third["admitted"] and third["reason"] == "no room beside the others: gpu"
    assert result["gpu_share"] == [{"node": 0, "share": pytest.approx(2 / 2.5)}]
    data["allowed_resolutions"] = {"4k": ["2K"]}
    assert solve({**data, "solver": "fixed"})["users"][0]["resolutions"] == {"0": "2K"}


# ---- bad input ---------------------------------------------------------------------------------------------


def alike(users: int) -> dict[str, Any]:
    """One station, one node, and users who are all alike, each with a game of its own."""
    return {
        "base_stations": [{"id": 0, "bandwidth_hz": 1e8}],
        "compute_nodes": [{"id": 0, "gpu_flops_per_s": 3e12, "latency_ms_to_bs": [0.5]}],
        "users": [
            {
                "id": i,
                "hmd_resolution": "4k",
                "max_fps": 60,
                "game": i,
                "sinr_db": [15.0],
                "objects": [{"id": 0, "pixels": 1000, "attention": 3}],
            }
            for i in range(users)
        ],
    }


def change(data: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return data


NOBODY = "no base station and compute node can serve the user: "
BAD: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "out of reach": (("users", 1, "sinr_db"), [None], NOBODY + "no base station reaches it"),
    "NaN SINR": (("users", 1, "sinr_db"), [nan], NOBODY + "no base station reaches it"),
    "no SINR": (("users", 1, "sinr_db"), None, "users[1].sinr_db: an entry for each of 1 stations is needed"),
    "no objects": (("users", 1, "objects"), [], "there is no object to render"),
    "objects without pixels": (
        ("users", 1, "objects"),
        [{"id": 0, "pixels": 0, "attention": 5}],
        "its objects have no pixels",
    ),
    "NaN pixels": (
        ("users", 1, "objects", 0, "pixels"),
        nan,
        "users[1].objects[0].pixels: nan is not a finite",
    ),
    "NaN attention": (("users", 1, "objects", 0, "attention"), nan, "users[1].objects[0].attention: nan"),
    "negative attention": (("users", 1, "objects", 0, "attention"), -1, "users[1].objects[0].attention: -1"),
    "NaN frame rate": (("users", 1, "max_fps"), nan, "users[1].max_fps: nan"),
    "a slow display": (("users", 1, "max_fps"), 29, "the display's 29 Hz allow no frame rate"),
    "unknown display": (("users", 1, "hmd_resolution"), "16k", "users[1].hmd_resolution: '16k' is none of"),
    "a duplicate": (("users", 1, "id"), 0, "users[1].id: 0 is there twice"),
    "no id": (("users", 1, "id"), None, "users[1].id: None is neither"),
    "no user": (("users", 1), 7, "users[1]: a mapping is needed, not int"),
    "an enormous view": (("users", 1, "objects", 0, "pixels"), 10**9, NOBODY + "gpu"),
    "pixels that vanish": (
        ("users", 1, "objects", 0, "pixels"),
        5e-324,
        "users[1].objects[0].pixels: 5e-324 is",
    ),
    "attention that overflows": (
        ("users", 1, "objects", 0, "attention"),
        1e308,
        "users[1].objects[0].attention: 1e+308 is neither 0 nor from 1e-18 to 1e+18",
    ),
    "an endless number": (("users", 1, "objects", 0, "pixels"), 10**400, "users[1].objects[0].pixels"),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("case", BAD)
def test_a_user_who_cannot_be_served_is_named_and_the_others_are_served(case: str, solver: str) -> None:
    path, value, reason = BAD[case]
    result = solve({**change(alike(2), path, value), "solver": solver})
    good, bad = result["users"]
    assert good["admitted"] and result["violations"] == [] and result["admitted"] == 1
    assert not bad["admitted"] and bad["reason"].startswith(reason), bad["reason"]
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("base_stations", 0, "bandwidth_hz"), 0, "no base station reaches it"),
        (
            ("base_stations", 0, "bandwidth_hz"),
            nan,
            "(base_stations[0].bandwidth_hz: nan is not a number from 0)",
        ),
        (
            ("base_stations", 0, "bandwidth_hz"),
            -1,
            "no base station reaches it (base_stations[0].bandwidth_hz: -1 ",
        ),
        (
            ("base_stations", 0, "bandwidth_hz"),
            1e308,
            "(base_stations[0].bandwidth_hz: 1e+308 is neither 0 nor",
        ),
        (("base_stations", 0, "processing_bits_per_s"), 0, "latency"),
        (("compute_nodes", 0, "gpu_flops_per_s"), 0, "gpu"),
        (
            ("compute_nodes", 0, "gpu_flops_per_s"),
            nan,
            "(compute_nodes[0].gpu_flops_per_s: nan is not a number",
        ),
        (("compute_nodes", 0, "network_bits_per_s"), 0, "network"),
        (("compute_nodes", 0, "latency_ms_to_bs"), [nan], "no compute node can be reached"),
        (("compute_nodes", 0, "latency_ms_to_bs"), [40.0], "latency"),
        (("base_stations",), [], "sinr_db: an entry for each of 0 stations is needed"),
        (("compute_nodes",), [], "no base station and compute node can serve the user"),
    ],
)
def test_what_has_no_capacity_serves_nobody(
    path: tuple[Any, ...], value: Any, reason: str, solver: str
) -> None:
    data = change(alike(2), path, value)
    result = solve({**data, "solver": solver})
    assert (result["status"], result["admitted"], result["violations"]) == ("infeasible", 0, [])
    assert result["objective"] == 0.0 and result["bound"] is None
    for of in result["users"]:
        assert reason in of["reason"], of["reason"]
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_display_that_allows_no_resolution(solver: str) -> None:
    data = {**alike(2), "allowed_resolutions": {"4k": [], "2k": ["2K"]}}
    data["users"][0]["hmd_resolution"] = "2k"
    result = solve({**data, "solver": solver})
    assert [of["admitted"] for of in result["users"]] == [True, False]
    assert result["users"][1]["reason"] == "the display '4k' allows no resolution"


@pytest.mark.parametrize("solver", ["exact", "heuristic", "fixed"])
def test_a_game_whose_players_cannot_share_a_node(solver: str) -> None:
    data = alike(2)
    data["users"][1]["game"] = 0
    data["base_stations"].append({"id": 1, "bandwidth_hz": 1e8})
    data["compute_nodes"] = [
        {"id": 0, "gpu_flops_per_s": 3e12, "latency_ms_to_bs": [0.5, None]},
        {"id": 1, "gpu_flops_per_s": 3e12, "latency_ms_to_bs": [None, 0.5]},
    ]
    data["users"][0]["sinr_db"], data["users"][1]["sinr_db"] = [15.0, None], [None, 15.0]
    result = solve({**data, "solver": solver})
    (reason,) = (of["reason"] for of in result["users"] if not of["admitted"])
    assert result["admitted"] == 1
    assert reason.startswith("the game's players cannot all share a node: node ")
    data["users"][1]["game"] = 1
    assert solve({**data, "solver": solver})["admitted"] == 2


@pytest.mark.parametrize("solver", ["exact", "heuristic"])
def test_a_game_s_node_without_room_while_another_has_some(solver: str) -> None:
    """Three players whose node can hold two, and a node to spare."""
    data = alike(3)
    for user in data["users"]:
        user["game"] = 0
    least = 1000 * 2560 * 1440 / (640 * 360) * 440 * 30
    data["compute_nodes"] = [
        {"id": m, "gpu_flops_per_s": 2.5 * least, "latency_ms_to_bs": [0.5]} for m in range(2)
    ]
    result = solve({**data, "solver": solver})
    (reason,) = (of["reason"] for of in result["users"] if not of["admitted"])
    assert reason.startswith("the game's players cannot all share a node") and "has no room (gpu)" in reason
    del data["compute_nodes"][1]
    result = solve({**data, "solver": solver})
    assert [of["reason"] for of in result["users"] if not of["admitted"]] == [
        "no room beside the others: gpu"
    ]


@pytest.mark.parametrize("solver", SOLVERS)
def test_frames_may_take_longer_than_a_second(solver: str) -> None:
    data = {**alike(2), "frame_rates": [0.5], "constraints": "published-code", "solver": solver}
    data["base_stations"][0]["bandwidth_hz"] = 1e4
    data["users"] = data["users"][:1]
    result = solve(data)
    assert result["admitted"] == 1 and result["violations"] == []


def test_a_limit_beyond_all_numbers_and_very_many_streams_are_none() -> None:
    data = {**alike(2), "mimo_streams": 10**12}
    for key in ("cpu", "memory_gb", "network_bits_per_s"):
        data["compute_nodes"][0][key] = 1e308
    assert solve(data)["admitted"] == 2


def test_no_attention_is_an_admitted_user_without_quality() -> None:
    data = alike(2)
    data["users"][1]["objects"][0]["attention"] = 0
    for solver in ("exact", "heuristic", "fixed"):
        result = solve({**data, "solver": solver})
        assert result["admitted"] == 2 and result["violations"] == []
    assert solve(data)["users"][1]["qoe"] == pytest.approx(np.log(60 / 30))
    assert solve({**data, "objective": "printed"})["users"][1]["qoe"] == pytest.approx(np.log(60))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"solver": "best"}, "solver: 'best' is none of exact, heuristic, rca, fixed"),
        ({"constraints": "none"}, "constraints: 'none' is none of full, published-code"),
        ({"objective": None}, "objective: None is none of weighted, printed"),
        ({"first": 3}, "users: 3 is not from 1 to the instance's 2"),
        ({"first": 0}, "users: 0 is not"),
        ({"time_limit_s": 0.0}, "time_limit_s: 0.0 is not a time"),
        ({"users": None}, "users: a list is needed"),
        ({"bits_per_pixel": nan}, "bits_per_pixel: nan"),
        ({"packet_bits": 5e-324}, "packet_bits: 5e-324 is neither 0 nor"),
        ({"frame_rates": [30, "60"]}, "frame_rates: '60' is not"),
        ({"frame_rates": []}, "frame_rates: a list of Hz is needed"),
        ({"mimo_streams": 2.5}, "mimo_streams: 2.5 is not a whole number"),
        ({"resolution_pixels": {"1080p": 2e6}}, "resolution '1080p' is not"),
        (
            {"resolution_pixels": {f"{k}K": k for k in range(2, 300)}},
            "resolution_pixels: 298 resolutions are not",
        ),
    ],
)
def test_what_is_no_request(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match="^" + named):
        Request.of({**alike(2), **change})


def test_a_sinr_of_each_stream_is_their_sum() -> None:
    data = alike(2)
    data["users"][0]["sinr_db"], data["users"][1]["sinr_db"] = [[15.0] * 4], [[15.0, 5.0]]
    first, second = Instance.of(data).users
    assert first.spectral_efficiency == Instance.of(alike(1)).users[0].spectral_efficiency
    assert second.spectral_efficiency == (pytest.approx(np.log2(1 + 10**1.5) + np.log2(1 + 10**0.5)),)


def test_near_stations_alone_are_those_with_the_best_channel_and_prove_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = draw(1, 6)
    instance = Instance.of(data)
    problem = Problem.of(instance, "full", "weighted", stations=1)
    for n, i in enumerate(problem.user):
        own = problem.station[problem.config_at[n] : problem.config_at[n + 1]]
        assert set(own.tolist()) == {int(np.argmax(instance.users[i].spectral_efficiency))}
    whole = solve(data)
    monkeypatch.setattr(service, "MAX_CONFIGURATIONS", dict.fromkeys(SOLVERS, 1))
    near = solve(data)
    assert (whole["status"], near["status"], near["bound"]) == ("optimal", "feasible", None)


# ---- objectives, fairness ----------------------------------------------------------------------------------


def test_attention_decides_in_the_weighted_objective_alone() -> None:
    """A GPU that can raise one of two equal objects: the one that is looked at, or whichever."""
    data = alike(1)
    data["users"][0] |= {
        "hmd_resolution": "2k",
        "max_fps": 30,
        "objects": [{"id": j, "pixels": 1000, "attention": a} for j, a in enumerate((1, 4))],
    }
    low, high = (1000 * k / (640 * 360) * 440 * 30 for k in (2560 * 1440, 3840 * 2160))
    data["compute_nodes"][0]["gpu_flops_per_s"] = 1.01 * (low + high)
    published = {**data, "constraints": "published-code"}
    assert solve(published)["users"][0]["resolutions"] == {"0": "2K", "1": "4K"}
    printed = solve({**published, "objective": "printed"})
    assert sorted(printed["users"][0]["resolutions"].values()) == ["2K", "4K"]
    # ln(30) + ln(1 x 1) + ln(2 x 4), whichever has the 2.
    assert printed["objective"] == pytest.approx(np.log(30) + np.log(8))
    data["users"][0]["objects"][0]["attention"] = 2
    assert solve({**published, "objective": "printed"})["objective"] == pytest.approx(np.log(30) + np.log(16))


def test_jain() -> None:
    assert jain([]) is None and jain([0.0, 0.0]) == 1.0
    assert jain([3.0, 3.0]) == pytest.approx(1.0) and jain([1.0, 0.0]) == pytest.approx(0.5)
