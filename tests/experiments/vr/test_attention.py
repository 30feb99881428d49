"""Predicted attention: on ratings of low rank that are known, and on the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controller.experiments.vr import attention
from controller.experiments.vr.attention import Settings

DATA = Path(__file__).parents[3] / "../shared/data/attention"
FEW = (Settings(1, 0.02, 100), Settings(1, 0.2, 20), Settings(2, 0.05, 100))


def drawn() -> tuple[attention.FloatArray, attention.FloatArray]:
    """Ratings of 20 users and 40 objects with one factor, a third of them missing."""
    rng = np.random.default_rng(0)
    truth = np.clip(3.0 + 1.2 * rng.choice([-1.0, 1.0], (20, 1)) * rng.choice([-1.0, 1.0], (1, 40)), 1, 5)
    return np.where(rng.random(truth.shape) < 1 / 3, np.nan, truth), truth


def test_a_factor_is_found_that_means_do_not_know() -> None:
    pytest.importorskip("cornac", reason="the extra vr")
    observed, truth = drawn()
    missing = np.isnan(observed)
    predicted = attention.predict(observed, Settings(1, 0.02, 200), seeds=2)
    assert attention.rmse(predicted, truth, missing) < 0.4
    assert attention.rmse(attention.object_means(observed), truth, missing) > 1.0
    np.testing.assert_array_equal(predicted, attention.predict(observed, Settings(1, 0.02, 200), seeds=2))
    assert predicted.min() >= 1.0 and predicted.max() <= 5.0


def test_who_and_what_was_never_rated_has_a_prediction() -> None:
    pytest.importorskip("cornac", reason="the extra vr")
    observed, _ = drawn()
    observed[3], observed[:, 7] = np.nan, np.nan
    predicted = attention.predict(observed, FEW[0], seeds=1)
    assert np.isfinite(predicted).all()
    assert attention.object_means(observed)[0, 7] == pytest.approx(np.nanmean(observed))


def test_cross_validation_holds_out_what_it_scores() -> None:
    observed, _ = drawn()
    held: list[int] = []

    def remembers(known: attention.FloatArray) -> attention.FloatArray:
        held.append(int((~np.isnan(observed) & np.isnan(known)).sum()))
        return np.nan_to_num(known, nan=3.0)

    error = attention.cross_validated(observed, remembers)
    assert sum(held) == (~np.isnan(observed)).sum() and len(held) == attention.FOLDS
    # What was held out was not remembered: 3.0 is 1.2 away from every rating.
    assert error == pytest.approx(1.2)


def test_the_truth_chooses_nothing() -> None:
    pytest.importorskip("cornac", reason="the extra vr")
    observed, truth = drawn()
    of_truth = attention.scores(observed, truth, FEW, 1)
    of_noise = attention.scores(observed, 6.0 - truth, FEW, 1)
    for row, other in zip(of_truth["rows"], of_noise["rows"], strict=True):
        assert (row["model"], row["cross_validated"]) == (other["model"], other["cross_validated"])
        assert row["chosen"] == other["chosen"]
    assert sum(row["chosen"] for row in of_truth["rows"]) == 1


def test_the_published_ratings() -> None:
    if not DATA.exists():
        pytest.skip(f"no {DATA.name} in ../shared/data")
    observed, truth = attention.read(DATA)
    assert observed.shape == truth.shape == (30, 96) and np.isnan(observed).sum() == 1154
    everything = np.ones_like(truth, bool)
    assert round(attention.rmse(attention.constant(observed), truth, everything), 2) == 1.42
    pytest.importorskip("cornac", reason="the extra vr")
    predicted = attention.predict(observed, Settings(1, 0.02, 100))
    assert attention.rmse(predicted, truth, everything) < 0.6


def test_files_that_are_no_ratings(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=attention.OBSERVED):
        attention.read(tmp_path)
    (tmp_path / attention.OBSERVED).write_text("1,2\n")
    (tmp_path / attention.TRUTH).write_text("1,x\n")
    with pytest.raises(ValueError, match=attention.TRUTH):
        attention.read(tmp_path)
    (tmp_path / attention.TRUTH).write_text("1,2,3\n")
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(1, 3\)"):
        attention.read(tmp_path)
    (tmp_path / attention.TRUTH).write_text("1,9\n")
    with pytest.raises(ValueError, match="ratings are 1 to 5"):
        attention.read(tmp_path)
