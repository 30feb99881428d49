"""The compiled convex problem: its derivatives, and that what satisfies it satisfies problem (6)."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra urllc")

from controller.allocators.urllc import alternating, barrier, joint, resources
from controller.allocators.urllc.barrier import JOINT, PAPER, B, G, P, T, V, W
from controller.allocators.urllc.instance import FloatArray, Instance
from controller.allocators.urllc.model import parts, rate_mbps
from controller.allocators.urllc.resources import Constants
from tests.allocators.urllc.instances import drawn, paper

SHARES = (0.0, 0.3, 0.999, 1.0)
"""Of a task, offloaded."""


def room() -> tuple[FloatArray, ...]:
    n = barrier.N
    return np.zeros(5), np.zeros(n), np.zeros((n, n)), np.zeros(n), np.zeros((n, n))


def device(
    kind: int, c: Constants, at: FloatArray, x: FloatArray, sharp: float = 50.0
) -> tuple[float, FloatArray, FloatArray]:
    """Value, gradient and Hessian of device 0."""
    grad, hess = np.zeros(barrier.N), np.zeros((barrier.N, barrier.N))
    value = barrier.device(
        kind, c.whole, c.scale, c.instance.edge_ghz, c.k[0], at, x, sharp, 1e3 * sharp, grad, hess, *room()
    )
    return value, grad, hess


def point_of_a_device(
    seed: int, transmitted: str, cached: bool, w: float
) -> tuple[Constants, FloatArray, FloatArray]:
    """A device with a point of the approximation and one within it."""
    i = paper(seed, 1, transmitted=transmitted, min_rate_bps=1e6)
    i = i.with_(energy_mj=5.0, edge_deviation=-0.1, ue_ghz=1e3)
    c = Constants.of(i, np.array([cached]))
    at = np.array([0.2, 0.1, 1.0, 0.6, max(w, 1e-3), 0.0])
    # Half of the energy is the processor's.
    local = np.sqrt(c.k[0, barrier.ENERGY_3] * (1.0 - w) ** 3 / 2.5) if w < 1.0 else 1.0
    x = np.array([0.22, 0.09, local, 0.5 * w * i.edge_ghz, w, 0.2])
    if cached:
        return c, at, np.array([1.0, 1.0, 1.0, 3.0, 1.0, 0.2])
    exact = float(rate_mbps(i, at[B], at[P])[0]), float(rate_mbps(i, at[B], at[P], exact=False)[0])
    at[T] = 1.0 / exact[0]
    return c, at, x


@pytest.mark.parametrize(
    ("kind", "transmitted", "cached", "w"),
    [
        (kind, transmitted, cached, w)
        for kind, transmitted, cached, w in product(
            (PAPER, JOINT), ("whole", "offloaded"), (False, True), SHARES
        )
        if (not cached or w == 1.0) and (kind == PAPER or cached or 0.0 < w < 1.0)
    ],
)
def test_derivatives_are_those_of_the_value(kind: int, transmitted: str, cached: bool, w: float) -> None:
    c, at, x = point_of_a_device(1, transmitted, cached, w)
    value, grad, hess = device(kind, c, at, x)
    assert np.isfinite(value) and np.allclose(hess, hess.T)
    moving = [j for j in range(barrier.N) if barrier.free(kind, False, cached, x[W], j)]
    assert moving
    for j in moving:
        h = 1e-6 * x[j] if j != W else 1e-6 * min(w, 1.0 - w)
        up, down = x.copy(), x.copy()
        up[j], down[j] = x[j] + h, x[j] - h
        (above, grad_up, _), (below, grad_down, _) = device(kind, c, at, up), device(kind, c, at, down)
        rounding = 1e-13 / h
        noise = rounding * (1.0 + abs(value))
        assert (above - below) / (2 * h) == pytest.approx(grad[j], rel=1e-5, abs=noise)
        slope = (grad_up - grad_down) / (2 * h)
        noise = rounding * (1.0 + np.abs(grad).max())
        assert slope[moving] == pytest.approx(hess[j, moving], rel=1e-5, abs=noise)


@pytest.mark.parametrize("w", [0.0, 1.0])
def test_what_a_device_does_not_use_is_no_part_of_its_problem(w: float) -> None:
    c, at, x = point_of_a_device(1, "whole", False, w)
    value, grad, hess = device(PAPER, c, at, x)
    unused = G if w == 0.0 else T
    other = x.copy()
    other[unused] = -3.0
    assert device(PAPER, c, at, other)[0] == value
    assert grad[unused] == 0.0 and not hess[unused].any()


@pytest.mark.parametrize("variable", [B, P, T, G, V])
def test_outside_it_is_endless(variable: int) -> None:
    c, at, x = point_of_a_device(1, "whole", False, 0.5)
    for value in (0.0, -1.0):
        x[variable] = value
        assert device(JOINT, c, at, x)[0] == np.inf


@pytest.mark.parametrize("kind", [PAPER, JOINT])
def test_the_approximated_rate_is_inner_and_touches_at_its_point(kind: int) -> None:
    """(17) less (19), with V = 1, and the tangent of the exact dispersion."""
    rng = np.random.default_rng(5)
    for seed in range(40):
        i = drawn(seed, 1)
        k, out = Constants.of(i, np.array([False])).k[0], np.zeros(5)
        at = np.array([rng.uniform(1e-3, 1.0), i.max_power_w[0] * rng.uniform(1e-2, 1.0), 1.0, 1.0, 0.5, 0.0])
        scale = i.bandwidth_mhz / np.log(2.0)

        def true(b: float, p: float, i: Instance = i) -> float:
            return float(rate_mbps(i, b, p, exact=kind == JOINT)[0])

        there = barrier.rate(kind, scale, k, at, at[B], at[P], out)
        slope = out.copy()
        size = scale * at[B] * np.log1p(at[P] * i.snr_per_w[0] / at[B]) + abs(there)
        assert there == pytest.approx(true(at[B], at[P]), abs=1e-9 * size)
        for j, value in ((0, at[B]), (1, at[P])):
            h = 1e-5 * value
            up = true(at[B] + h, at[P]) if j == 0 else true(at[B], at[P] + h)
            down = true(at[B] - h, at[P]) if j == 0 else true(at[B], at[P] - h)
            assert (up - down) / (2 * h) == pytest.approx(slope[j], rel=1e-4, abs=1e-6 * size / value)
        for _ in range(20):
            b, p = at[B] * 4.0 ** rng.uniform(-1, 1), at[P] * 4.0 ** rng.uniform(-1, 1)
            assert barrier.rate(kind, scale, k, at, b, p, out) <= true(b, p) + 1e-9 * size


@pytest.mark.parametrize("transmitted", ["whole", "offloaded"])
@pytest.mark.parametrize("kind", [PAPER, JOINT])
def test_what_is_inside_satisfies_the_problem_that_is_approximated(kind: int, transmitted: str) -> None:
    """However far from the point: energy, latency and rate are never more than what bounds them."""
    rng, inside = np.random.default_rng(7), 0
    for seed in range(150):
        i = paper(seed, 1, transmitted=transmitted, min_rate_bps=1e5)
        c = Constants.of(i, np.zeros(1, np.bool_))
        at = resources.first_point(c)
        assert at is not None
        x = at.copy()
        x[:, [B, P, T, G]] *= 2.0 ** rng.uniform((-1.0, -2.0, -0.3, -1.0), (0.02, 0.0, 2.0, 0.02), (1, 4))
        if kind == JOINT:
            x[:, W] = np.clip(at[:, W] * 1.6 ** rng.uniform(-1.0, 0.6), 0.0, 0.99)
        x[:, V] = rng.uniform(0.0, 3.0)
        at[:, T] = 1.0 / rate_mbps(i, at[:, B], at[:, P], exact=kind == JOINT)
        if not np.isfinite(device(kind, c, at[0], x[0])[0]):
            continue
        inside += 1
        of = parts(i, resources.allocation(c, x))
        assert (of.energy_mj <= i.energy_mj * (1.0 + 1e-9)).all()
        assert (of.latency_ms <= i.deadline_ms + x[:, V] + 1e-9).all()
        assert (i.kbit / of.rate_mbps <= i.kbit / i.min_rate_mbps + x[:, V] + 1e-9).all()
    assert inside >= 30


def test_a_factor_is_there_where_rounding_leaves_no_pivot() -> None:
    g = np.array([1.0, -2.0, 3e4, 0.5, 7.0, 1e3])
    hess = 1e16 * np.outer(g, g)
    assert barrier.factor(hess)
    assert not barrier.factor(np.full((barrier.N, barrier.N), np.nan))


@pytest.mark.parametrize("kind", [PAPER, JOINT])
def test_prices_are_what_a_little_more_is_worth(kind: int) -> None:
    i = paper(4, 8)
    c = Constants.of(i, np.arange(8) < 2)
    x = resources.first_point(c, exact=kind == JOINT)
    assert x is not None
    step = resources.step(c, x, kind)
    assert step is not None
    total = parts(i, resources.allocation(c, step.point), exact=kind == JOINT).total_ms
    more = i.with_(edge_ghz=i.edge_ghz * 1.01)
    richer = resources.step(Constants.of(more, c.cached), x, kind)
    assert richer is not None
    gained = total - parts(more, resources.allocation(c, richer.point), exact=kind == JOINT).total_ms
    assert gained == pytest.approx(step.price[1] * 0.01 * i.edge_ghz, rel=0.05)
    assert step.price[0] > 0.0 and (step.price[2:] >= 0.0).all()


@pytest.mark.parametrize("cycles_per", ["byte", "bit"])
@pytest.mark.parametrize("seed", range(8))
def test_a_point_next_to_a_boundary_is_left(seed: int, cycles_per: str) -> None:
    """Band and edge used up, what is offloaded all or nothing: the same optimum as from the middle."""
    i = paper(seed, 6, cycles_per).with_(energy_mj=8.0, deadline_ms=20.0)
    c = Constants.of(i, np.zeros(6, np.bool_))
    x = resources.first_point(c)
    assert x is not None
    edge, whole = x.copy(), np.arange(6) % 2 == 0
    edge[:, W] = np.where(whole, 1.0, 0.0)
    edge[:, T] = np.where(whole, 0.0, np.sqrt(c.k[:, barrier.ENERGY_3] / i.energy_mj) + i.mcycles / i.ue_ghz)
    edge[:, B] *= 1.0 / x[:, B].sum()
    edge[:, G] = edge[:, W] * i.edge_ghz / 3.0
    from_middle, from_edge = (joint.resources_for(i, c.cached, y) for y in (x, edge))
    assert from_middle is not None and from_edge is not None
    assert from_edge.cost_ms == pytest.approx(from_middle.cost_ms, rel=1e-4)
    assert from_edge.newton < 12 * len(from_edge.history_ms) * barrier.PATIENCE


def test_it_is_compiled_once_and_kept_for_the_next_process() -> None:
    i = paper(1, 3)
    start = alternating.first_allocation(i)
    assert start is not None
    alternating.solve(i, start)
    joint.solve(i.with_(transmitted="offloaded"))
    assert len(barrier.minimise.signatures) == 1 and barrier.minimise.stats.cache_path
