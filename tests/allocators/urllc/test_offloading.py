"""SP2 in closed form against HiGHS."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the extra urllc")
pytest.importorskip("numba", reason="the extra urllc")

from scipy.optimize import linprog

from controller.allocators.urllc import alternating, caching, offloading
from controller.allocators.urllc.instance import Instance
from controller.allocators.urllc.model import Allocation, parts
from tests.allocators.urllc.instances import drawn, paper


def allocation(instance: Instance) -> Allocation:
    start = alternating.first_allocation(instance)
    if start is None:
        pytest.skip("the band is too narrow for all")
    return alternating._with_rates(instance, caching.cache(instance, start))


@pytest.mark.parametrize("seed", range(60))
def test_alpha_is_the_optimum_of_the_linear_programme(seed: int) -> None:
    i = drawn(seed, 2 + seed % 11) if seed % 3 else paper(seed, 15, "bit" if seed % 2 else "byte")
    a = allocation(i)
    cost, low, high, edge, rest = offloading.programme(i, a)
    alpha = offloading.offload(i, a)
    found = linprog(
        cost, A_ub=-edge[None, :], b_ub=[rest - edge.sum()], bounds=list(zip(low, high, strict=True))
    )
    assert found.status == 0
    assert float((1.0 - alpha) @ edge) <= rest * (1.0 + 1e-6)
    sends = ~a.cached
    assert (alpha[sends] >= low[sends]).all() and (alpha[sends] <= high[sends]).all()
    assert (alpha[a.cached] == 0.0).all()
    scale = float(np.abs(cost).sum()) + 1e-9
    assert float(cost[sends] @ alpha[sends]) <= float(cost[sends] @ found.x[sends]) + 1e-6 * scale


def test_energy_and_deadline_bound_alpha() -> None:
    i = paper(1, 5, cache_bits=0.0).with_(energy_mj=2.0)
    a = allocation(i).with_(local_share=np.full(5, 0.2))
    assert (parts(i, a, exact=False).energy_mj < 2.0).all()
    _, low, high, _, _ = offloading.programme(i, a)
    for m in range(5):
        for bound in (low[m], high[m]):
            of = parts(i, a.with_(local_share=np.full(5, bound)), exact=False)
            within = of.energy_mj[m] <= 2.0 * (1 + 1e-6) and of.latency_ms[m] <= i.deadline_ms[m] * (1 + 1e-6)
            assert within
        if 0.0 < high[m] < 1.0:
            of = parts(i, a.with_(local_share=np.full(5, high[m] + 1e-3)), exact=False)
            assert of.energy_mj[m] > 2.0 or of.latency_ms[m] > i.deadline_ms[m]


def test_who_has_not_the_energy_to_send_all_keeps_some_of_it() -> None:
    """A slow processor takes less energy than the radio: alpha has a least value, and takes it."""
    i = paper(1, 5, cache_bits=0.0)
    a = allocation(i).with_(ue_ghz=np.full(5, 0.1))
    radio = parts(i, a.with_(local_share=np.zeros(5))).transmission_mj
    tight = i.with_(energy_mj=0.8 * radio, deadline_ms=100.0, edge_ghz=100.0)
    _, low, _, _, _ = offloading.programme(tight, a)
    alpha = offloading.offload(tight, a)
    assert (low > 0.05).all() and (alpha == low).all()
    energy = parts(tight, a.with_(local_share=alpha), exact=False).energy_mj
    assert energy == pytest.approx(tight.energy_mj, rel=1e-6)


def test_where_the_edge_leaves_no_alpha_it_stays() -> None:
    i = paper(1, 5, cache_bits=0.0)
    a = allocation(i)
    tiny = i.with_(edge_ghz=1e-3, energy_mj=1e-3)
    assert (offloading.offload(tiny, a) == a.local_share).all()
