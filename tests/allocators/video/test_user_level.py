"""The users' level: the knapsack beside every choice there is, SLSQP beside the convex bound."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from controller.allocators.video import frontier, user_level
from controller.allocators.video.users import gain
from tests.allocators.video.people import users

KBIT_MCYCLES = 0.18
METHODS = (user_level.round_robin, user_level.slsqp, user_level.knapsack)


@pytest.mark.parametrize("seed", range(8))
def test_the_knapsack_chooses_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.0, 1.0, (4, 6))
    parts = np.concatenate([np.zeros((4, 1)), rng.integers(1, 70, (4, 5))], axis=1).astype(np.int64)
    chosen = user_level._choose(values, parts)
    best = max(
        sum(values[u, o] for u, o in enumerate(options))
        for options in product(range(6), repeat=4)
        if sum(parts[u, o] for u, o in enumerate(options)) <= user_level.LEVELS
    )
    assert sum(values[u, o] for u, o in enumerate(chosen)) == pytest.approx(best)
    assert sum(parts[u, o] for u, o in enumerate(chosen)) <= user_level.LEVELS


@pytest.mark.parametrize(("mcycles", "part"), [(1e6, 0.97), (150.0, 0.85)])
def test_the_knapsack_comes_near_every_rate_tried(mcycles: float, part: float) -> None:
    known = users(3, 5, cells=1, kinds=(1, 2))
    prb = 5.0
    rates = frontier.RATES_KBPS
    worth = gain(known.best_bitrates(np.broadcast_to(rates, (3, len(rates))))[1], known.ela[:, None])
    a, b, c = np.meshgrid(*(np.arange(len(rates)),) * 3, indexing="ij")
    needed = (rates[[a, b, c]] / known.kbps_per_prb[:, None, None, None]).sum(axis=0)
    cycles = rates[[a, b, c]].sum(axis=0) * KBIT_MCYCLES
    total = worth[0][a] + worth[1][b] + worth[2][c]
    best = total[(needed <= prb) & (cycles <= mcycles)].max()
    got = user_level.knapsack(known, prb, mcycles, KBIT_MCYCLES)
    found = float(gain(known.best_bitrates(got)[1], known.ela).sum())
    # Rounding PRBs up to parts loses something; a price of cycles more, and most among few users.
    assert best * part <= found <= best + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_slsqp_comes_near_the_convex_bound(seed: int) -> None:
    known = users(6, seed, cells=1, kinds=(0, 3))
    prb, mcycles = 10.0, 1e6
    curves = frontier.hulls(known)
    division = frontier.divide(known, curves, np.array([prb]), mcycles, KBIT_MCYCLES * 1e3)
    bound = sum(float(np.interp(r, h.kbps, h.gain)) for r, h in zip(division.kbps, curves, strict=True))
    got = user_level.slsqp(known, prb, mcycles, KBIT_MCYCLES)
    found = float(gain(known.best_bitrates(got)[1], known.ela).sum())
    assert 0.85 * bound <= found <= bound * (1.0 + 1e-3)
    equal = user_level.round_robin(known, prb, mcycles, KBIT_MCYCLES)
    assert found >= float(gain(known.best_bitrates(equal)[1], known.ela).sum()) - 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("prb", "mcycles"), [(8.0, 1e6), (8.0, 100.0), (0.3, 1e6), (0.0, 1e6)])
def test_no_more_is_divided_than_there_is(method: object, prb: float, mcycles: float) -> None:
    known = users(7, 4, cells=1)
    kbps = method(known, prb, mcycles, KBIT_MCYCLES)  # type: ignore[operator]
    assert (kbps / known.kbps_per_prb).sum() <= prb * (1.0 + 1e-6)
    assert kbps.sum() * KBIT_MCYCLES <= mcycles * (1.0 + 1e-6)
    assert (kbps >= 0.0).all() and np.isfinite(kbps).all()


@pytest.mark.parametrize("method", METHODS)
def test_nobody_gets_nothing(method: object) -> None:
    assert len(method(users(2, 1).take([]), 5.0, 100.0, KBIT_MCYCLES)) == 0  # type: ignore[operator]
