"""Where only what is offloaded is transmitted: devices that had better send nothing."""

from __future__ import annotations

import pytest

pytest.importorskip("numba", reason="the extra urllc")

from controller.allocators.urllc import joint
from controller.allocators.urllc.bound import Prices, bound_ms
from controller.allocators.urllc.check import violations
from controller.allocators.urllc.instance import Instance
from controller.experiments.urllc.readings import READINGS


def of_those_that_send(instance: Instance) -> joint.Solved | None:
    return joint._search(instance, joint.EVALUATIONS, lambda cached: joint.resources_for(instance, cached))


@pytest.mark.parametrize("seed", [1, 3])
def test_who_offloads_nothing_leaves_the_band_to_others(seed: int) -> None:
    instance = READINGS["bit, offloaded, 10 MHz"].instance(seed)
    sending = of_those_that_send(instance)
    solved = joint.solve(instance)
    assert sending is not None and solved is not None
    assert solved.cost_ms < sending.cost_ms * (1.0 - 5e-3)
    assert violations(instance, solved.allocation) == []
    silent = ~solved.constants.cached & (solved.allocation.local_share > 1.0 - joint.SILENT)
    assert silent.any() and (solved.allocation.bandwidth[silent] < 0.02).all()
    prices = Prices(solved.band, solved.edge, deadline=solved.deadline)
    bound = bound_ms(instance, prices, solved.constants.cached)
    assert bound <= solved.cost_ms <= bound * (1.0 + 1e-3)
    assert list(solved.history_ms) == sorted(solved.history_ms, reverse=True)


def test_all_of_them_send_where_the_whole_task_is_transmitted() -> None:
    instance = READINGS["text"].instance(1)
    a, b = joint.solve(instance), of_those_that_send(instance)
    assert a is not None and b is not None
    # From another start it may be the last digits better.
    assert b.cost_ms * (1.0 - 1e-4) < a.cost_ms <= b.cost_ms
