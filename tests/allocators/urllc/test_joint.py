"""The joint method: against SciPy's SLSQP of all of problem (6), Algorithm 1, and every caching decision."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the extra urllc")
pytest.importorskip("numba", reason="the extra urllc")

from scipy.optimize import minimize

from controller.allocators.urllc import alternating, joint, resources
from controller.allocators.urllc.check import violations
from controller.allocators.urllc.instance import BoolArray, FloatArray, Instance
from controller.allocators.urllc.model import Allocation, parts
from controller.allocators.urllc.resources import cost_ms, late_ms
from tests.allocators.urllc.instances import drawn, paper

LEAST = np.array([1e-6, 1e-6, 0.0, 1e-4, 1e-4])
"""Of b, p, alpha, f_ue, f_es, the last four in parts of the most."""


def unpacked(i: Instance, cached: BoolArray, z: FloatArray) -> Allocation:
    b, p, alpha, ue, edge = z.reshape(5, len(i))
    sends = ~cached
    return Allocation(
        cached=cached,
        local_share=np.where(sends, alpha, 0.0),
        bandwidth=np.where(sends, b, 0.0),
        power_w=np.where(sends, p * i.max_power_w, 0.0),
        ue_ghz=np.where(sends, ue * i.ue_ghz, 0.0),
        edge_ghz=edge * i.edge_ghz,
    )


def room(i: Instance, cached: BoolArray, z: FloatArray) -> FloatArray:
    """Constraints (6b) to (6f), none below 0."""
    a = unpacked(i, cached, z)
    of = parts(i, a)
    used = float(np.where(cached, 1.0, 1.0 - a.local_share) @ a.edge_ghz)
    rate = np.where(cached, 1.0, of.rate_mbps - max(i.min_rate_mbps, 1e-3))
    shared = [1.0 - a.bandwidth.sum(), 1.0 - used / i.edge_ghz]
    return np.concatenate(
        (1.0 - of.latency_ms / i.deadline_ms, 1.0 - of.energy_mj / i.energy_mj, rate, np.array(shared))
    )


def slsqp_ms(i: Instance, cached: BoolArray, start: FloatArray) -> float:
    """What SLSQP makes of all of problem (6) for a caching decision; inf where it has no solution."""
    bounds = [(low, 1.0) for low in np.repeat(LEAST, len(i))]
    with np.errstate(all="ignore"):
        found = minimize(
            lambda z: parts(i, unpacked(i, cached, z)).total_ms,
            np.clip(start, [low for low, _ in bounds], 1.0),
            method="SLSQP",
            bounds=bounds,
            constraints=[{"type": "ineq", "fun": lambda z: room(i, cached, z)}],
            options={"maxiter": 60, "ftol": 1e-9},
        )
        if not np.isfinite(found.x).all() or not (room(i, cached, found.x) >= -1e-7).all():
            return np.inf
    return float(found.fun)


def packed(i: Instance, a: Allocation) -> FloatArray:
    return np.concatenate(
        (a.bandwidth, a.power_w / i.max_power_w, a.local_share, a.ue_ghz / i.ue_ghz, a.edge_ghz / i.edge_ghz)
    )


@pytest.mark.parametrize("seed", range(24))
def test_slsqp_finds_nothing_better(seed: int) -> None:
    i = drawn(100 + seed, 1 + seed % 3)
    solved = joint.solve(i)
    rng = np.random.default_rng(seed)
    found = np.inf
    for bits in product([False, True], repeat=len(i)):
        cached = np.array(bits)
        if float(cached @ i.task_cache_kbit) > i.cache_kbit:
            continue
        starts = [rng.uniform(0.1, 0.9, 5 * len(i)) for _ in range(2)]
        for start in starts:
            start[: len(i)] = 0.95 / len(i)
            start[-len(i) :] = 0.9 / len(i)
        if solved is not None and (solved.constants.cached == cached).all():
            starts.append(packed(i, solved.allocation))
        found = min(found, *(slsqp_ms(i, cached, start) for start in starts))
    if solved is None or late_ms(i, solved.allocation).any():
        assert found == np.inf
    else:
        assert violations(i, solved.allocation) == []
        assert parts(i, solved.allocation).total_ms <= found * (1.0 + 1e-3)


@pytest.mark.parametrize("seed", range(30))
def test_it_is_no_worse_than_algorithm_1(seed: int) -> None:
    i = paper(seed, 15, "bit" if seed % 2 else "byte") if seed < 10 else drawn(seed, 2 + seed % 9)
    start, solved = alternating.first_allocation(i), joint.solve(i)
    if start is None or solved is None:
        pytest.skip("the band is too narrow for all")
    run = alternating.solve(i, start)
    assert solved.cost_ms <= cost_ms(i, run.allocation) * (1.0 + 1e-4)


def test_of_few_decisions_all_are_tried() -> None:
    """A small edge: what the prices of an empty cache fill it with is more than the edge can process."""
    i = paper(1, 4, edge_hz=4e8, cache_bits=33e3).with_(deadline_ms=50.0)
    solved = joint.solve(i)
    every = joint.decisions(i, np.zeros(4, np.bool_), 40)
    assert solved is not None and every is not None and len(every) == 15
    costs = [found.cost_ms for cached in every if (found := joint.resources_for(i, cached)) is not None]
    assert solved.cost_ms <= min(costs) * (1.0 + 1e-9)
    assert joint.decisions(i, np.zeros(4, np.bool_), 14) is None


def test_a_search_also_takes_tasks_out_of_the_cache() -> None:
    """Eight devices at an edge that can do with one or two of their tasks: near the best of all decisions."""
    i = paper(7, 8, edge_hz=6e8, cache_bits=44e3).with_(deadline_ms=200.0)
    every = joint.decisions(i, np.zeros(8, np.bool_), 1000)
    assert every is not None
    best = min(found.cost_ms for c in every if (found := joint.resources_for(i, c)) is not None)
    searched = joint.solve(i)
    assert searched is not None and searched.constants.cached.sum() < 4
    assert searched.cost_ms <= best * (1.0 + 1e-3)


def test_a_start_that_is_late_comes_to_be_in_time() -> None:
    """Each deadline can be kept, but not with equal shares of the edge, which is where the method begins."""
    i = paper(2, 5, cache_bits=0.0, edge_hz=2e9, transmitted="offloaded")
    alone = i.mcycles / np.minimum(i.ue_ghz, np.sqrt(i.energy_mj / (i.mj_per_mcycle * i.mcycles)))
    i = i.with_(deadline_ms=1.02 * alone)
    c = resources.Constants.of(i, np.zeros(5, np.bool_))
    x = resources.first_point(c)
    assert x is not None and late_ms(i, resources.allocation(c, x)).any()
    solved = joint.solve(i)
    assert solved is not None and violations(i, solved.allocation) == []


@pytest.mark.parametrize("transmitted", ["whole", "offloaded"])
def test_a_task_that_stays_whole_keeps_its_energy(transmitted: str) -> None:
    """A share that is rounded to nothing must not cost what the budget does not have."""
    i = paper(3, 4, cache_bits=0.0, min_rate_bps=1e4, transmitted=transmitted, edge_hz=1e6)
    i = i.with_(energy_mj=1.0, deadline_ms=1e3)
    solved = joint.solve(i)
    assert solved is not None and violations(i, solved.allocation) == []
    assert (solved.allocation.local_share > 0.99).all()


def test_the_exact_dispersion_serves_who_has_no_rate_with_v_1() -> None:
    i = paper(1, 1, cache_bits=0.0, min_rate_bps=0.0).with_(deadline_ms=1e5, energy_mj=100.0)
    weakest = i.snr_per_w.copy()
    while np.isfinite(resources.least_shares(i.with_(snr_per_w=weakest), exact=False)).all():
        weakest = weakest * 0.98
    i = i.with_(snr_per_w=weakest)
    assert np.isfinite(resources.least_shares(i)).all()
    solved = joint.solve(i)
    assert solved is not None and violations(i, solved.allocation) == []


def test_in_time_is_better_than_a_little_late() -> None:
    """R_min is a hair above what device 1 can have with all of the band: it must be the cached one."""
    i = paper(3, 2, cache_bits=11e3, min_rate_bps=0.0, edge_hz=2e9)
    alone = resources.rate_mbps(i, np.ones(2), i.max_power_w)
    weak, strong = (0, 1) if alone[0] < alone[1] else (1, 0)
    slow = i.with_(
        min_rate_mbps=float(alone[weak]) * (1.0 + 1e-5),
        mcycles=np.where(np.arange(2) == weak, 0.2, 3.0),
        energy_mj=50.0,
        deadline_ms=50.0,
    )
    solved = joint.solve(slow)
    assert solved is not None and violations(slow, solved.allocation) == []
    assert solved.constants.cached[weak] and not solved.constants.cached[strong]
    late = joint.resources_for(slow, np.arange(2) == strong)
    assert late is not None and late.rank > solved.rank


def test_who_cannot_send_is_cached_or_there_is_no_solution() -> None:
    i = paper(5, 6)
    silent = i.with_(snr_per_w=np.where(np.arange(6) == 3, 0.0, i.snr_per_w))
    solved = joint.solve(silent)
    assert solved is not None and solved.constants.cached[3] and violations(silent, solved.allocation) == []
    assert joint.solve(silent.with_(cache_kbit=5.0)) is None


def test_its_history_is_of_what_is_equally_late_and_never_rises() -> None:
    for seed in range(30):
        solved = joint.solve(drawn(seed, 1 + seed % 7), 6)
        if solved is not None:
            assert list(solved.history_ms) == sorted(solved.history_ms, reverse=True)
            assert solved.history_ms[-1] == parts(solved.constants.instance, solved.allocation).total_ms
