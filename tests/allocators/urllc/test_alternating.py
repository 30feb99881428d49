"""Algorithm 1: it begins feasible, never rises and stops by the paper's rule."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra urllc")

from controller.allocators.urllc import alternating, offloading
from controller.allocators.urllc.check import violations
from controller.allocators.urllc.instance import FloatArray, Instance
from controller.allocators.urllc.model import Allocation
from controller.allocators.urllc.resources import Constants, late_ms
from tests.allocators.urllc.instances import drawn, paper


def start(i: Instance) -> Allocation:
    found = alternating.first_allocation(i)
    if found is None:
        pytest.skip("the band is too narrow for all")
    return found


@pytest.mark.parametrize(
    ("devices", "cycles_per"), [(1, "bit"), (4, "byte"), (15, "byte"), (15, "bit"), (40, "byte")]
)
def test_it_descends_and_stops_by_the_rule(devices: int, cycles_per: str) -> None:
    i = paper(3, devices, cycles_per)
    a = start(i)
    assert violations(i, a) == []
    run = alternating.solve(i, a)
    assert violations(i, run.allocation) == []
    assert run.converged and run.iterations == len(run.history_ms) - 1 <= alternating.MAX_ITERATIONS
    fell = [(old - new) / new for old, new in pairwise(run.history_ms)]
    assert min(fell) >= 0.0 and fell[-1] <= alternating.TOLERANCE
    assert all(f > alternating.TOLERANCE for f in fell[:-1])
    assert run.history_ms[-1] < 0.8 * run.history_ms[0]


@pytest.mark.parametrize("seed", range(60))
def test_from_a_feasible_start_all_stays_feasible(seed: int) -> None:
    i = drawn(seed, 1 + seed % 12)
    a = start(i)
    begins_in_time = not late_ms(i, a).any()
    run = alternating.solve(i, a)
    assert late_ms(i, run.allocation).sum() <= late_ms(i, a).sum()
    assert {v.constraint for v in violations(i, run.allocation)} <= {"6b", "6d"}
    if begins_in_time:
        assert violations(i, run.allocation) == []
        assert list(run.history_ms) == sorted(run.history_ms, reverse=True)


def test_it_stops_after_the_iterations_that_it_has() -> None:
    i = paper(0, 15, "bit")
    run = alternating.solve(i, start(i), tolerance=0.0, iterations=2)
    assert run.iterations == 2 and not run.converged


def test_a_subproblem_without_a_better_answer_leaves_what_there_is() -> None:
    i = paper(0)
    a = start(i).with_(cached=np.arange(15) < 5)

    def worse(instance: Instance, a: Allocation) -> FloatArray:
        return np.where(a.cached, 0.0, 1.0 - a.local_share)

    def none(c: Constants, x: FloatArray) -> None:
        return None

    run = alternating.solve(i, a, sp2=worse, sp3=none)
    assert run.allocation is a and run.converged and run.history_ms[0] == run.history_ms[-1]


def test_tasks_come_back_to_a_device_that_processed_nothing() -> None:
    """The rates with which the linear programme counts are those that the device then has."""
    i = paper(27, 15, "bit")
    a = start(i)
    for _ in range(2):
        a = alternating._offloading(i, a, offloading.offload)
        used = a.local_share > 0.0
        assert (a.ue_ghz[used & ~a.cached] > 0.0).all() and (a.ue_ghz[~used] == 0.0).all()
        assert not late_ms(i, a).any()
        new = alternating._resources(i, a, alternating.fast)
        assert new is not None
        a = new
        assert (a.local_share[~used] == 0.0).all()
