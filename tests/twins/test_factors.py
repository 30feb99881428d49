"""Which factors are found to matter: the level of the test, forms of dependence, and what cannot be told."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from controller.twins.factors import LEAST_ROWS, dependence, independent_rows, significant

ROWS = 60
DRAWS = 500


def columns(rng: np.random.Generator, correlation: float, count: int) -> NDArray[np.float64]:
    """First-order autoregressive columns, independent of each other, [count, ROWS]."""
    noise = rng.normal(size=(count, ROWS + 50))
    out = np.zeros_like(noise)
    for step in range(1, noise.shape[1]):
        out[:, step] = correlation * out[:, step - 1] + noise[:, step]
    return out[:, 50:]


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_what_does_not_matter_is_seldom_found_to(correlation: float) -> None:
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(DRAWS):
        experience, *factors = columns(rng, correlation, 5)
        false += bool(significant(experience, {str(i): f for i, f in enumerate(factors)}))
    # Four standard deviations of 500 draws above the level of 5 %.
    assert false / DRAWS <= 0.05 + 4.0 * (0.05 * 0.95 / DRAWS) ** 0.5


def test_autocorrelated_rows_tell_less() -> None:
    rng = np.random.default_rng(2)
    (x, y), (u, v) = columns(rng, 0.0, 2), columns(rng, 0.9, 2)
    assert independent_rows(u, v) < 0.4 * independent_rows(x, y) <= ROWS
    assert independent_rows(np.ones(ROWS), y) == ROWS


@pytest.mark.parametrize("form", ["linear", "parabola", "step"])
def test_dependence_of_any_form_is_found(form: str) -> None:
    rng = np.random.default_rng(6)
    x, other = rng.uniform(-1.0, 1.0, (2, 120))
    y = {"linear": x, "parabola": 2.0 * x**2, "step": np.where(x > 0.5, 1.0, 0.0)}[form]
    found = significant(y + rng.normal(0.0, 0.15, 120), {"other": other, "x": x})
    assert list(found) == ["x"] and found["x"][0] > 0.3 and found["x"][1] < 0.01


def test_the_strongest_come_first() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, 240))
    assert list(significant(2.0 * a + b, {"b": b, "a": a})) == ["a", "b"]


@pytest.mark.parametrize("constant", ["factor", "experience"])
def test_a_constant_depends_on_nothing(constant: str) -> None:
    moving, still = np.random.default_rng(5).normal(size=40), np.full(40, 3.0)
    x, y = (still, moving) if constant == "factor" else (moving, still)
    assert dependence(x, y) == (0.0, 1.0)
    assert significant(y, {"x": x}) == {}


def test_unknown_rows_are_left_out_and_too_few_tell_nothing() -> None:
    x = np.arange(40.0)
    gaps = np.where(np.arange(40) % 2, np.nan, x)
    assert dependence(gaps, x) == dependence(gaps[::2], x[::2])
    assert dependence(x[: LEAST_ROWS - 1], x[: LEAST_ROWS - 1]) == (0.0, 1.0)
    assert dependence(np.full(40, np.nan), x) == (0.0, 1.0)


def test_rows_that_are_mostly_equal_count_as_independent_where_they_are() -> None:
    rng = np.random.default_rng(1)
    stalled, swipes = ((rng.random(240) > 0.9) * rng.random(240) for _ in range(2))
    assert independent_rows(stalled, swipes) > 200.0
    assert independent_rows(np.zeros(240), swipes) == 240.0


def test_of_factors_that_matter_the_strongest_comes_first() -> None:
    rng = np.random.default_rng(5)
    weak, strong, none = rng.normal(size=(3, 300))
    found = significant(0.5 * weak + 2.0 * strong, {"none": none, "weak": weak, "strong": strong})
    assert list(found) == ["strong", "weak"]


@pytest.mark.parametrize(
    "seed, rows, rounded, squared",
    [
        (1, 8, False, -0.16592342978195818),
        (3, 60, False, 0.25036213047231837),
        (4, 240, True, 0.19113544727884613),
    ],
)
def test_distance_correlation_is_that_of_another_implementation(
    seed: int, rows: int, rounded: bool, squared: float
) -> None:
    """dcor 0.7, ``u_distance_correlation_sqr``."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    y = x**2 + rng.normal(size=rows) * 0.5
    if rounded:
        x, y = np.round(x), np.round(y)
    strength, p = dependence(x, y)
    assert strength == pytest.approx(max(squared, 0.0) ** 0.5, abs=1e-12)
    # scipy.stats.chi2.sf
    pytest.importorskip("scipy", reason="the chi-squared law to compare with")
    from scipy.stats import chi2

    assert p == pytest.approx(chi2.sf(max(independent_rows(x, y) * squared + 1.0, 0.0), 1), abs=1e-12)
