"""SP1: the slowest tasks first, as many as fit and lower the objective."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra urllc")

from controller.allocators.urllc import alternating, caching
from controller.allocators.urllc.instance import FloatArray, Instance
from controller.allocators.urllc.model import Allocation, parts
from controller.allocators.urllc.resources import cost_ms
from tests.allocators.urllc.instances import drawn, paper


def start(i: Instance) -> Allocation:
    found = alternating.first_allocation(i)
    if found is None:
        pytest.skip("the band is too narrow for all")
    return found


def prefixes(i: Instance, a: Allocation) -> list[Allocation]:
    """Each prefix of the order, one by one."""
    out, cached, room = [a], a.cached.copy(), i.cache_kbit - float(a.cached @ i.task_cache_kbit)
    for m in np.argsort(-parts(i, a).latency_ms, kind="stable"):
        if not cached[m] and i.task_cache_kbit[m] <= room:
            cached = cached.copy()
            cached[m], room = True, room - i.task_cache_kbit[m]
            w = np.where(cached, 1.0, 1.0 - a.local_share)
            out.append(a.with_(cached=cached, edge_ghz=caching.edge_rates(i, w)))
    return out


@pytest.mark.parametrize("seed", range(40))
def test_the_best_prefix_is_cached(seed: int) -> None:
    i = drawn(seed, 8)
    a = start(i)
    new = caching.cache(i, a)
    costs = [cost_ms(i, other) for other in prefixes(i, a)]
    assert cost_ms(i, new) == pytest.approx(min(costs), rel=1e-9)
    assert float(new.cached @ i.task_cache_kbit) <= i.cache_kbit
    assert (new.cached >= a.cached).all()


def test_the_slowest_are_cached_and_stay_so() -> None:
    i = paper(0)
    a = caching.cache(i, start(i))
    latency = parts(i, start(i)).latency_ms
    assert a.cached.sum() == 5 and latency[a.cached].min() >= latency[~a.cached].max()
    assert caching.cache(i, a) is a
    assert caching.cache(i.with_(cache_kbit=10.0), start(i)).cached.sum() == 0


def test_the_edges_rate_is_divided_best() -> None:
    i, rng = drawn(4, 7), np.random.default_rng(1)
    w = rng.uniform(0.0, 1.0, 7)

    def latency(f: FloatArray) -> float:
        return float((w * i.mcycles / (f * (1.0 - i.edge_deviation))).sum())

    best = caching.edge_rates(i, w)
    assert w @ best == pytest.approx(i.edge_ghz)
    for _ in range(50):
        other = best * rng.uniform(0.8, 1.2, 7)
        assert latency(other * i.edge_ghz / (w @ other)) >= latency(best) * (1.0 - 1e-12)
    assert caching.edge_rates(i, np.zeros(7)).tolist() == [0.0] * 7
