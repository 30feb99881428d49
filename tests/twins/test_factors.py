"""Which factors an experience depends on: distance correlation, its p-value, and many factors at once."""

from __future__ import annotations

import numpy as np
import pytest

from controller.twins.factors import LEAST_ROWS, dependence, independent_rows, significant

pytest.importorskip("dcor")


def autoregressive(rng: np.random.Generator, n: int, correlation: float) -> np.ndarray:
    noise = rng.normal(size=n)
    out = np.empty(n)
    out[0] = noise[0]
    for t in range(1, n):
        out[t] = correlation * out[t - 1] + np.sqrt(1.0 - correlation**2) * noise[t]
    return out


def test_rows_that_are_mostly_equal_count_as_independent_where_they_are() -> None:
    rng = np.random.default_rng(1)
    stalled, swipes = ((rng.random(240) > 0.9) * rng.random(240) for _ in range(2))
    assert independent_rows(stalled, swipes) > 200.0
    assert independent_rows(np.zeros(240), swipes) == 240.0


def test_rows_that_follow_each_other_count_as_fewer() -> None:
    rng = np.random.default_rng(2)
    x, y = (autoregressive(rng, 4000, 0.8) for _ in range(2))
    assert independent_rows(x, y) == pytest.approx(4000 * (1 - 0.64) / (1 + 0.64), rel=0.15)


def test_dependence_without_correlation_is_found() -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(-1.0, 1.0, 200)
    strength, p = dependence(x, x * x + 0.1 * rng.normal(size=200))
    assert strength > 0.3 and p < 1e-3


@pytest.mark.parametrize(
    "x",
    [np.full(50, 2.0), np.where(np.arange(50) < LEAST_ROWS - 1, np.arange(50.0), np.nan)],
    ids=["constant", "too few rows that are known"],
)
def test_nothing_is_told_of(x: np.ndarray) -> None:
    assert dependence(x, np.arange(50.0)) == (0.0, 1.0)


def test_factors_that_do_not_matter_are_chosen_no_more_often_than_the_level_says() -> None:
    rng = np.random.default_rng(4)
    chosen = 0
    for _ in range(120):
        experience = autoregressive(rng, 60, 0.6)
        factors = {f"f{i}": autoregressive(rng, 60, 0.6) for i in range(3)}
        chosen += bool(significant(experience, factors))
    assert chosen <= 12  # 6 are expected at most; more than 12 come with a probability of 1 %


def test_of_factors_that_matter_the_strongest_comes_first() -> None:
    rng = np.random.default_rng(5)
    weak, strong, none = rng.normal(size=(3, 300))
    found = significant(0.5 * weak + 2.0 * strong, {"none": none, "weak": weak, "strong": strong})
    assert list(found) == ["strong", "weak"]
