"""Concave hulls, and the division on them, beside a linear program."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial import ConvexHull

from controller.allocators.video.frontier import RATES_KBPS, Hull, divide, hulls
from controller.allocators.video.users import gain
from tests.allocators.video.people import users


def test_a_hull_lies_on_and_above_its_points() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = np.sort(rng.uniform(0.0, 10.0, 30)), np.maximum.accumulate(rng.uniform(0.0, 1.0, 30))
        hull = Hull.of(x, y)
        assert (np.interp(x, hull.kbps, hull.gain) >= y - 1e-9).all()
        slopes = np.diff(hull.gain) / np.diff(hull.kbps)
        assert (np.diff(slopes) < 0.0).all() and (slopes > 0.0).all()
        corners = {(float(x[i]), float(y[i])) for i in ConvexHull(np.column_stack([x, y])).vertices}
        assert set(zip(hull.kbps.tolist(), hull.gain.tolist(), strict=True)) <= corners


def test_hulls_bound_what_users_gain() -> None:
    known = users(9, 2)
    for i, hull in enumerate(hulls(known)):
        _, expected = known.take([i]).best_bitrates(RATES_KBPS[None])
        worth = np.interp(RATES_KBPS, hull.kbps, hull.gain)
        assert (worth >= gain(expected[0], known.ela[i]) - 1e-8).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mcycles", [1e6, 2000.0, 300.0])
def test_the_division_is_the_linear_program_s(seed: int, mcycles: float) -> None:
    known, prb, cycles_per_bit = users(12, seed), np.array([9.0, 14.0]), 180.0
    curves = hulls(known)
    division = divide(known, curves, prb, mcycles, cycles_per_bit)
    total = sum(np.interp(r, h.kbps, h.gain) for r, h in zip(division.kbps, curves, strict=True))
    width = np.concatenate([np.diff(h.kbps) for h in curves])
    slope = np.concatenate([np.diff(h.gain) / np.diff(h.kbps) for h in curves])
    user = np.repeat(np.arange(12), [len(h.kbps) - 1 for h in curves])
    limits = [np.where(known.cell[user] == c, 1.0 / known.kbps_per_prb[user], 0.0) for c in range(2)]
    limits.append(np.full(len(user), cycles_per_bit / 1e3))
    best = linprog(-slope, np.stack(limits), [*prb, mcycles], bounds=np.column_stack([0.0 * width, width]))
    assert total == pytest.approx(sum(h.gain[0] for h in curves) - best.fun, rel=1e-7)
    used = np.bincount(known.cell, division.kbps / known.kbps_per_prb, 2)
    assert (used <= prb * (1.0 + 1e-9)).all()
    assert division.kbps.sum() * cycles_per_bit / 1e3 <= mcycles * (1.0 + 1e-9)
    # What the program's dual says that more would be worth.
    if division.cycle_price > 0.0:
        assert division.cycle_price == pytest.approx(-best.ineqlin.marginals[2], rel=1e-4)


def test_nothing_is_divided_among_nobody() -> None:
    nobody = users(2, 1).take([])
    assert len(divide(nobody, [], np.array([5.0, 5.0]), 1e3, 180.0).kbps) == 0
