"""``solve``: two hundred random instances through the checker, and what is not one."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra urllc")

from controller.allocators.urllc.check import violations
from controller.allocators.urllc.instance import Instance
from controller.allocators.urllc.solve import METHODS, find, report, solve
from tests.allocators.urllc.instances import drawn, mapping, paper

INSTANCES = 200


@pytest.mark.parametrize("method", ["joint", "algorithm-1"])
def test_every_answer_is_feasible_or_says_who_is_late(method: Any) -> None:
    """Only deadlines and R_min may be broken, and only for those who are named; no history rises."""
    feasible = 0
    for seed in range(INSTANCES):
        i = drawn(seed, 1 + seed % 4)
        try:
            answer = find(i, method)
        except ValueError as error:
            assert "bandwidth_hz" in str(error)
            continue
        result = report(i, answer)
        assert all(later <= earlier for earlier, later in pairwise(result["history_ms"])), seed
        broken = violations(i.only(answer.served), answer.allocation)
        assert {v.constraint for v in broken} <= {"6b", "6d"}, seed
        late = {row["device"] for row in result["late"]}
        assert {v.device for v in broken} <= late, seed
        assert {name for name, ok in zip(i.ids, answer.served, strict=True) if not ok} <= late
        assert (result["status"] == "infeasible") == bool(late)
        feasible += not late
        json.dumps(result, allow_nan=False)
    assert feasible > INSTANCES // 2


def test_the_report_adds_up() -> None:
    i = paper(2, 6, "bit")
    result = report(i, find(i))
    rows = result["devices"]
    assert result["status"] == "converged" and result["violations"] == [] == result["late"]
    assert result["objective_ms"] == pytest.approx(sum(row["latency_ms"]["total"] for row in rows))
    assert result["history_ms"][-1] == result["objective_ms"] <= result["objective_v1_ms"]
    for row in rows:
        of = dict(row["latency_ms"])
        assert of.pop("total") == pytest.approx(sum(of.values()))
    assert sum(row["bandwidth"] for row in rows) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_solve_a_mapping(method: str) -> None:
    if method == "algorithm-1-cvxpy":
        pytest.importorskip("cvxpy", reason="the extra urllc")
    result = solve({**mapping(4, 3), "method": method, "bound": method == "joint"})
    assert result["status"] == "converged"
    assert method != "joint" or 0.0 <= result["gap"] < 0.2


@pytest.mark.parametrize(
    ("change", "binding"),
    [
        ({"energy_mj": 1e-7}, "energy"),
        ({"deadline_ms": 1e-2}, "deadline"),
    ],
)
def test_who_is_late_is_told_what_binds(change: dict[str, float], binding: str) -> None:
    device = {"bits": 10832.0, "cycles": 270_800.0, "channel_gain": 6e-9}
    result = solve({"cache_bits": 0, "devices": [device, {**device, "id": "late", **change}]})
    assert result["status"] == "infeasible"
    assert [(row["device"], row["binding"]) for row in result["late"]] == [("late", binding)]
    assert result["late"][0]["by_ms"] > 0.0


def test_what_many_share_binds() -> None:
    device = {"bits": 10832.0, "cycles": 270_800.0, "channel_gain": 6e-9, "deadline_ms": 2.0}
    narrow = solve({"cache_bits": 0, "bandwidth_hz": 1e6, "min_rate_bps": 0, "devices": [device] * 6})
    assert narrow["status"] == "infeasible"
    assert {row["binding"] for row in narrow["late"]} == {"bandwidth"}


def test_a_device_without_a_channel_is_left_out_or_cached() -> None:
    device = {"bits": 10832.0, "cycles": 270_800.0, "channel_gain": 6e-9}
    silent = {**device, "channel_gain": 0.0, "id": "silent"}
    cached = solve({"devices": [device, silent]})
    assert cached["status"] == "converged" and cached["devices"][1]["cached"]
    none = solve({"cache_bits": 0, "devices": [device, silent]})
    assert none["status"] == "infeasible"
    assert none["late"] == [{"device": "silent", "by_ms": None, "binding": "channel"}]
    alone = solve({"cache_bits": 0, "devices": [silent]})
    assert alone["objective_ms"] is None and alone["status"] == "infeasible"


def test_one_device_has_all_of_the_band() -> None:
    i = paper(1, 1, cache_bits=0.0)
    answer = find(i)
    assert answer.allocation.bandwidth[0] == pytest.approx(1.0, abs=1e-4)
    assert answer.allocation.power_w[0] <= i.max_power_w[0]
    assert np.isfinite(answer.history_ms).all()


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"method": "simplex"}, "method"),
        ({"bound": "yes"}, "bound"),
        ({"bandwidth_hz": float("nan")}, "bandwidth_hz"),
        ({"devices": [{"bits": 1, "cycles": 1, "channel_gain": -1}]}, r"devices\[0\]\.channel_gain"),
    ],
)
def test_what_cannot_be_is_refused_by_its_place(data: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=place):
        solve({**mapping(1, 2), **data})
    with pytest.raises(ValueError, match="mapping"):
        solve([])  # type: ignore[arg-type]


def test_extremes_neither_raise_nor_rise() -> None:
    """A band of a Hz and of 1e15 Hz, an edge of a Hz, tasks of a bit and of a Gbit, deadlines of a minute."""
    base = {"bits": 10832.0, "cycles": 270_800.0, "channel_gain": 6e-9}
    cells: list[dict[str, Any]] = [
        {"bandwidth_hz": 1.0}, {"bandwidth_hz": 1e15}, {"edge_hz": 1.0}, {"edge_hz": 1e18},
        {"interval_ms": 1e-6}, {"min_rate_bps": 1e12}, {"cache_bits": 1e12}, {"theta": 1e-30},
        {"theta": 1e-20},
    ]  # fmt: skip
    devices: list[dict[str, Any]] = [
        {"bits": 1.0}, {"bits": 1e9}, {"cycles": 1.0}, {"cycles": 1e12}, {"deadline_ms": 6e4},
        {"deadline_ms": 1e-9}, {"energy_mj": 1e-9}, {"energy_mj": 1e9}, {"power_dbm": -200.0},
        {"channel_gain": 1.0}, {"channel_gain": 1e-25}, {"ue_hz": 1.0}, {"error": 0.49}, {"error": 1e-30},
        {"uncached_overhead_ms": -1.0}, {"ue_deviation": 0.99}, {"edge_deviation": -0.99},
    ]  # fmt: skip
    for cell, device in [(c, {}) for c in cells] + [({}, d) for d in devices]:
        data = {**cell, "devices": [base, {**base, **device}]}
        try:
            result = solve(data)
        except ValueError as error:
            assert "bandwidth_hz" in str(error), data
            continue
        json.dumps(result, allow_nan=False)
        i = Instance.of(data)
        answer = find(i)
        broken = violations(i.only(answer.served), answer.allocation)
        assert {v.constraint for v in broken} <= {"6b", "6d"}, (data, [str(v) for v in broken])
        assert list(result["history_ms"]) == sorted(result["history_ms"], reverse=True), data


@pytest.mark.parametrize("method", METHODS)
def test_a_cache_below_one_task_keeps_none(method: Any) -> None:
    if method == "algorithm-1-cvxpy":
        pytest.importorskip("cvxpy", reason="the extra urllc")
    below, none = (find(paper(2, 4, cache_bits=bits), method) for bits in (10_831.0, 0.0))
    assert not below.allocation.cached.any()
    assert below.history_ms[-1] == pytest.approx(none.history_ms[-1], rel=1e-9)
