"""Algorithm 1 by CVXPY and Clarabel: built anew, compiled once, and the compiled code, all the same."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cvxpy", reason="the extra urllc")
pytest.importorskip("numba", reason="the extra urllc")

from controller.allocators.urllc import alternating, caching, convex, offloading, resources
from controller.allocators.urllc.barrier import PAPER, B, G, P, T, W
from controller.allocators.urllc.instance import FloatArray, Instance
from controller.allocators.urllc.model import parts
from controller.allocators.urllc.resources import Constants
from tests.allocators.urllc.instances import drawn, paper

DROPS = 30
CASES = [(seed, "byte", 15) for seed in range(3)] + [(seed, "bit", 15) for seed in range(3)] + [(1, "bit", 4)]


@pytest.fixture(scope="module")
def compiled() -> dict[int, tuple[convex.Offloading, convex.Resources]]:
    return {m: (convex.Offloading(m), convex.Resources(m)) for m in (4, 15)}


def before_sp3(i: Instance) -> tuple[Constants, FloatArray]:
    a = alternating.first_allocation(i)
    assert a is not None
    a = alternating._offloading(i, caching.cache(i, a), offloading.offload)
    return Constants.of(i, a.cached), resources.point(i, a)


def objective(c: Constants, x: FloatArray | None, at: FloatArray) -> float:
    """(15a) of the approximation at ``at``: what the step minimises."""
    assert x is not None
    return parts(c.instance, resources.allocation(c, x), exact=False).total_ms


@pytest.mark.parametrize(("seed", "cycles_per", "devices"), CASES)
def test_a_step_of_sp3_is_the_same_in_all_three(
    compiled: dict[int, tuple[convex.Offloading, convex.Resources]], seed: int, cycles_per: str, devices: int
) -> None:
    c, x = before_sp3(paper(seed, devices, cycles_per, cache_bits=25e3))
    once, anew = compiled[devices][1].step(c, x.copy()), convex.rebuilt_resources(c, x.copy())
    step = resources.step(c, x.copy(), PAPER)
    assert once is not None and anew is not None and step is not None
    fast = step.point
    values = [objective(c, y, x) for y in (once, anew, fast)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)
    sends = ~c.cached
    for column, rows in ((B, sends), (P, sends), (T, sends & (x[:, W] < 1.0)), (G, x[:, W] > 0.0)):
        assert fast[rows, column] == pytest.approx(once[rows, column], rel=2e-3, abs=1e-6)
        assert anew[rows, column] == pytest.approx(once[rows, column], rel=1e-4, abs=1e-6)


def test_a_problem_is_compiled_once() -> None:
    problem = convex.Resources(4)
    for seed in range(2):
        assert problem.step(*before_sp3(paper(seed, 4))) is not None
    assert problem.problem.is_dcp(dpp=True) and convex.Offloading(4).problem.is_dcp(dpp=True)
    assert (
        problem.problem.compiler_cache
        if hasattr(problem.problem, "compiler_cache")
        else problem.problem._cache
    )


@pytest.mark.parametrize("cycles_per", ["byte", "bit"])
def test_whole_runs_are_the_same(
    compiled: dict[int, tuple[convex.Offloading, convex.Resources]], cycles_per: str
) -> None:
    sp2, sp3 = compiled[15]
    for seed in range(DROPS):
        i = paper(seed, 15, cycles_per)
        start = alternating.first_allocation(i)
        assert start is not None
        fast, by_cvxpy = alternating.solve(i, start), alternating.solve(i, start, sp2=sp2.step, sp3=sp3.step)
        assert fast.history_ms[-1] == pytest.approx(by_cvxpy.history_ms[-1], rel=1e-3)
        assert fast.iterations == by_cvxpy.iterations
        assert (fast.allocation.cached == by_cvxpy.allocation.cached).all()


@pytest.mark.parametrize("seed", range(12))
def test_steps_of_random_instances_are_the_same(
    compiled: dict[int, tuple[convex.Offloading, convex.Resources]], seed: int
) -> None:
    i = drawn(seed, 4)
    if alternating.first_allocation(i) is None:
        pytest.skip("the band is too narrow for all")
    c, x = before_sp3(i)
    once, step = compiled[4][1].step(c, x.copy()), resources.step(c, x.copy(), PAPER)
    assert once is not None and step is not None
    a, b = (resources.cost_ms(i, resources.allocation(c, y)) for y in (once, step.point))
    assert b <= a * (1.0 + 1e-4) + 1e-4


def test_sp2_leaves_alpha_where_there_is_none() -> None:
    i = paper(1, 4, cache_bits=0.0)
    a = alternating.first_allocation(i)
    assert a is not None
    tiny = i.with_(edge_ghz=1e-3, energy_mj=1e-3)
    assert (convex.Offloading(4).step(tiny, a) == a.local_share).all()
    weak = i.with_(snr_per_w=1e-3)
    assert convex.Resources(4).step(Constants.of(weak, np.zeros(4, np.bool_)), resources.point(i, a)) is None
