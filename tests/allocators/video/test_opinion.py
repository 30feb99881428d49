"""QoE models: what viewers mind is found in their scores, and nothing that cannot be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from controller.allocators.video import opinion
from controller.allocators.video.opinion import (
    COLUMNS,
    LEAST_ROWS,
    PRIOR,
    QOS,
    SIGNS,
    OpinionModel,
    OpinionModels,
    first_informative,
    fit,
    truncated_mean,
)
from tests.allocators.video.viewers import COMBINED, QUALITY, STALLS, history
from wire.definitions import mos
from wire.definitions.viewing import Viewer

WIDTH = len(COLUMNS)
MINDED = {"stalls": {"stalled"}, "quality": {"quality"}, "combined": {"stalled", "quality"}}


@pytest.mark.parametrize("viewer", [STALLS, QUALITY, COMBINED], ids=lambda v: v.principle)
def test_what_a_viewer_minds_is_found_and_how_much(viewer: Viewer) -> None:
    rows = history(viewer, 240, seed=3)[:, :WIDTH]
    model = fit(rows)
    assert set(model.structure.qos) == MINDED[viewer.principle]
    assert set(model.dependence) == set(model.structure.qos)
    # The same opinion as the viewer's own, over what may come.
    factors = {n: rows[:, i] for i, n in enumerate(COLUMNS)}
    columns = (rows[:, COLUMNS.index(n)] for n in ("stalled", "quality", "behaviour", "environment"))
    own = np.array([viewer.mean_score(*x) for x in zip(*columns, strict=True)])
    assert np.sqrt(np.mean((model.predict(factors) - own) ** 2)) < 0.25
    assert model.deviation == pytest.approx(mos.DEVIATIONS[viewer.principle], rel=0.2)


def test_context_that_matters_is_found() -> None:
    viewer = Viewer(3.5, "combined", "exponential", (0.25, 0.0))
    found = [fit(history(viewer, 240, seed=s)[:, :WIDTH]).structure.context for s in range(8)]
    assert sum("behaviour" in c for c in found) >= 7 and sum("environment" in c for c in found) <= 2


@pytest.mark.parametrize("name", QOS)
def test_no_factor_has_a_sign_that_it_cannot_have(name: str) -> None:
    rng = np.random.default_rng(QOS.index(name))
    rows = np.full((80, WIDTH), 1.5)
    rows[:, 1:-2] = rng.uniform(0.0, 1.0, (80, len(QOS)))
    wrong = -SIGNS[name] * 3.0 * rows[:, COLUMNS.index(name)]
    rows[:, 0] = np.clip(3.0 + wrong - wrong.mean() + rng.normal(0.0, 0.2, 80), 1.0, 5.0)
    model = fit(rows)
    assert name not in model.structure.qos
    assert all(s * SIGNS[n] > 0.0 for n, s in zip(model.structure.qos, model.slopes, strict=True))


def test_scores_at_the_end_of_the_scale_do_not_bend_the_model() -> None:
    """Long stalls pile up at 1; least squares without the truncation take that for indifference."""
    rows = history(STALLS, 240, seed=5, stalled_s=12.0)[:, :WIDTH]
    model = fit(rows)
    straight = np.polyfit(rows[:, COLUMNS.index("stalled")], rows[:, 0], 1)[0]
    assert model.slopes[0] == pytest.approx(-mos.STALL_WEIGHT, rel=0.25)
    assert abs(straight) < 0.7 * mos.STALL_WEIGHT


@pytest.mark.parametrize("deviation", [0.4, 0.8, 1.0])
def test_the_truncated_mean_is_that_of_the_scores_and_its_derivative(deviation: float) -> None:
    expected = np.linspace(1.0 - 5.0 * deviation, 5.0 + 5.0 * deviation, 41)
    mean, slope = truncated_mean(expected, deviation)
    assert mean == pytest.approx([mos.mean_score(x, deviation) for x in expected], abs=1e-6)
    step = 1e-5
    difference = truncated_mean(expected + step, deviation)[0] - truncated_mean(expected - step, deviation)[0]
    assert slope == pytest.approx(difference / (2.0 * step), abs=1e-4)


def test_too_little_history_is_refused() -> None:
    with pytest.raises(ValueError, match=f"23 scores: a model of its own takes {LEAST_ROWS}"):
        fit(history(STALLS, LEAST_ROWS - 1)[:, :WIDTH])
    with pytest.raises(ValueError, match="columns are score, stalled"):
        fit(np.ones((40, 3)))


def test_constant_factors_and_scores_that_depend_on_nothing_give_the_constant() -> None:
    rows = history(STALLS, 60, seed=1)[:, :WIDTH]
    rows[:, 1:] = 1.5
    rng = np.random.default_rng(0)
    indifferent = history(STALLS, 60, seed=1)[:, :WIDTH]
    indifferent[:, 0] = rng.uniform(1.0, 5.0, 60)
    for each in (rows, indifferent):
        model = fit(each)
        assert not model.informative
        mean = model.predict(dict.fromkeys(COLUMNS, 1.5))
        assert float(mean) == pytest.approx(each[:, 0].mean(), abs=0.05)
    assert first_informative(fit(rows), None) is PRIOR


def test_scores_outside_the_scale_and_unknown_factors_are_left_out() -> None:
    rows = history(COMBINED, 120, seed=2)[:, :WIDTH]
    bad = np.repeat(rows[:1], 4, axis=0)
    bad[:, 0] = (0.0, 5.5, np.nan, -1e9)
    model = fit(rows)
    assert fit(np.concatenate((bad, rows))) == model
    unknown = rows.copy()
    unknown[::3, COLUMNS.index("quality")] = np.nan
    assert set(fit(unknown).structure.qos) <= {"stalled", "quality"}
    assert fit(unknown).rows in (80, 120)


def test_a_model_goes_through_json_and_others_are_refused() -> None:
    model = fit(history(COMBINED, 120)[:, :WIDTH])
    state = json.loads(json.dumps(model.to_state()))
    assert OpinionModel.from_state(state) == model
    for change in (
        {"qos": ["smell"]},
        {"context": ["behaviour"], "shape": ""},
        {"s": [1.0]},
        {"i": [1.0]},
        {"deviation": 0.0},
        {"deviation": float("nan")},
        {"shape": "cubic"},
    ):
        with pytest.raises(ValueError, match="is no QoE model"):
            OpinionModel.from_state({**state, **change})
    with pytest.raises(KeyError):
        OpinionModel.from_state({})


def test_models_as_arrays_predict_as_each_alone() -> None:
    models = [fit(history(v, 120, seed=4)[:, :WIDTH]) for v in (STALLS, QUALITY, COMBINED)]
    models.append(replace(PRIOR, structure=replace(PRIOR.structure, context=("behaviour",), shape="power"),
                          weights=(0.2, 0.0)))  # fmt: skip
    rows = history(COMBINED, 30, seed=9)[:, :WIDTH]
    factors = {n: rows[:, i] for i, n in enumerate(COLUMNS)}
    together = OpinionModels.of(models)
    b, c = (np.tile(factors[n], (len(models), 1)) for n in ("behaviour", "environment"))
    qos = {n: np.tile(factors[n], (len(models), 1)) for n in QOS}
    assert together.predict(qos, together.impact(b, c)) == pytest.approx(
        np.array([m.predict(factors) for m in models])
    )


def test_candidates_are_alike_whatever_was_fitted_before() -> None:
    rows = history(COMBINED, 60)[:, :WIDTH]
    first = fit(rows)
    fit(history(STALLS, 60)[:, :WIDTH])
    opinion._Candidates.services.cache_clear()
    opinion._Candidates.impacts.cache_clear()
    assert fit(rows) == first
