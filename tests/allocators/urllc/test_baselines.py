"""Baselines of problem (6): solutions of it, no better than the optimum, with what was taken beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra urllc")

from controller.allocators.urllc import baselines, joint
from controller.allocators.urllc.check import violations
from controller.allocators.urllc.instance import Instance
from controller.allocators.urllc.model import parts
from controller.experiments.urllc.drops import Drop, draw


def instance(seed: int = 0, per: str = "bit", **more: Any) -> Instance:
    return Instance.of({**draw(seed, Drop(devices=8, cycles_per=per)), "cache_bits": 30e3, **more})


@pytest.mark.parametrize("transmitted", ["whole", "offloaded"])
@pytest.mark.parametrize("name", list(baselines.BASELINES))
def test_a_baseline_solves_the_problem_and_is_no_better_than_the_optimum(name: str, transmitted: str) -> None:
    for seed in range(3):
        of = instance(seed, transmitted=transmitted)
        best = joint.solve(of)
        a = baselines.BASELINES[name](of)
        assert best is not None and a is not None
        assert violations(of, a) == []
        assert parts(of, a).total_ms >= best.cost_ms * (1.0 - 1e-4)
        sends = ~a.cached
        if name == "no caching":
            assert sends.all()
        elif name == "all local":
            assert a.local_share[sends] == pytest.approx(1.0, abs=2e-6)
        elif name == "all offloaded":
            assert a.local_share[sends] == pytest.approx(0.0, abs=2e-6)
        else:
            assert a.bandwidth[sends] == pytest.approx(1.0 / sends.sum(), rel=1e-6)


def test_all_local_without_transmission_has_a_closed_form() -> None:
    for per in ("byte", "bit"):
        of = instance(1, per, transmitted="offloaded", min_rate_bps=0.0)
        cached, latency = baselines.local_processing(of)
        a = baselines.all_local(of)
        assert a is not None and (a.cached == cached).all()
        assert parts(of, a).total_ms == pytest.approx(latency.sum(), rel=1e-4)


def test_no_baseline_where_the_band_or_the_energy_is_too_small() -> None:
    data = draw(2, Drop(devices=4))
    far = {**data, "devices": [{**row, "channel_gain": 1e-17} for row in data["devices"]]}
    assert baselines.no_caching(Instance.of(far)) is None
    assert baselines.equal_bandwidth(Instance.of({**far, "cache_bits": 0})) is None
    poor = {**data, "devices": [{**row, "energy_mj": 1e-4} for row in data["devices"]], "cache_bits": 0}
    assert baselines.all_offloaded(Instance.of(poor)) is None


def test_local_processing_is_of_those_that_save_most() -> None:
    of = instance(3, cache_bits=0)
    cached, alone = baselines.local_processing(of)
    assert not cached.any()
    rate = np.minimum(of.ue_ghz, np.sqrt(of.energy_mj / (of.mj_per_mcycle * of.mcycles)))
    assert alone == pytest.approx(of.mcycles / rate)
    with_cache, latency = baselines.local_processing(of.with_(cache_kbit=22.0))
    assert with_cache.sum() == 2 and set(np.argsort(-alone)[:2]) == set(np.flatnonzero(with_cache))
    assert latency.sum() < alone.sum()
