"""Attention that was never rated, predicted from what was: by matrix factorisation (Cornac's ``MF``).

A rating is the mean, a user's and an object's bias and the product of their factors, learned by stochastic
gradient descent with regularisation, as the mean over several seeds.

Rank, regularisation and iterations are those with the least error of held-out observed ratings
(cross-validation). The ground truth is scored against and chooses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wire.definitions.extras import needs

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

OBSERVED: Final = "uoal_observed.csv"
TRUTH: Final = "uoal_ground_truth.csv"
LEAST, MOST = 1.0, 5.0
FOLDS: Final = 5
SEEDS: Final = 5
LEARNING_RATE: Final = 0.01


class Settings(NamedTuple):
    """Of a factorisation."""

    factors: int
    regularisation: float
    iterations: int


GRID: Final = tuple(Settings(*of) for of in product((1, 2, 3, 5, 10), (0.02, 0.05, 0.1, 0.2), (50, 100, 200)))


def read(folder: Path) -> tuple[FloatArray, FloatArray]:
    """Observed ratings [users, objects], NaN where there is none, and the ground truth of all.

    OSError, or ValueError naming the file, for what cannot be used.
    """
    tables = []
    for name in (OBSERVED, TRUTH):
        try:
            tables.append(np.loadtxt(folder / name, delimiter=",", ndmin=2, encoding="utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"{folder / name}: {error}") from error
    observed, truth = tables
    if observed.shape != truth.shape:
        raise ValueError(f"{folder}: {OBSERVED} is {observed.shape}, {TRUTH} is {truth.shape}")
    if not ((truth >= LEAST) & (truth <= MOST)).all():
        raise ValueError(f"{folder / TRUTH}: ratings are {LEAST:g} to {MOST:g}")
    return np.where(observed >= LEAST, observed, np.nan), truth


def predict(observed: FloatArray, settings: Settings, seeds: int = SEEDS) -> FloatArray:
    """A rating of every user for every object, 1 to 5. ImportError without Cornac."""
    with needs("vr"):
        from cornac.data import Dataset
        from cornac.models import MF

    users, objects = np.nonzero(~np.isnan(observed))
    ratings = zip(users.tolist(), objects.tolist(), observed[users, objects].tolist(), strict=True)
    data = Dataset.from_uir(list(ratings), seed=0)
    total = np.zeros(observed.shape)
    for seed in range(seeds):
        model = MF(
            k=settings.factors,
            lambda_reg=settings.regularisation,
            max_iter=settings.iterations,
            learning_rate=LEARNING_RATE,
            num_threads=1,
            seed=seed,
        ).fit(data)
        # Who, and what, was never rated has the mean.
        user, factors_of_user = _rows(model.u_biases, model.u_factors, data.uid_map, observed.shape[0])
        of, factors_of_object = _rows(model.i_biases, model.i_factors, data.iid_map, observed.shape[1])
        total += np.clip(
            model.global_mean + user[:, None] + of + factors_of_user @ factors_of_object.T, LEAST, MOST
        )
    return total / seeds


def _rows(biases: Any, factors: Any, places: Any, size: int) -> tuple[FloatArray, FloatArray]:
    known = np.array(list(places), np.int64)
    rows = np.array(list(places.values()), np.int64)
    bias, factor = np.zeros(size), np.zeros((size, factors.shape[1]))
    bias[known], factor[known] = biases[rows], factors[rows]
    return bias, factor


def object_means(observed: FloatArray) -> FloatArray:
    """What all users have rated an object on average; the mean of all where nobody has."""
    known = ~np.isnan(observed)
    count = known.sum(axis=0)
    mean = np.where(count > 0, np.nansum(observed, axis=0) / np.maximum(count, 1), observed[known].mean())
    return np.broadcast_to(mean, observed.shape)


def constant(observed: FloatArray) -> FloatArray:
    """The mean of all ratings."""
    return np.full(observed.shape, np.nanmean(observed))


def cross_validated(
    observed: FloatArray, model: Callable[[FloatArray], FloatArray], folds: int = FOLDS
) -> float:
    """RMSE of observed ratings that the model was not fitted to; each is held out once."""
    users, objects = np.nonzero(~np.isnan(observed))
    fold = np.random.default_rng(0).permutation(len(users)) % folds
    squares = 0.0
    for k in range(folds):
        out = users[fold == k], objects[fold == k]
        kept = observed.copy()
        kept[out] = np.nan
        squares += float(((model(kept)[out] - observed[out]) ** 2).sum())
    return float(np.sqrt(squares / len(users)))


def rmse(predicted: FloatArray, truth: FloatArray, which: BoolArray) -> float:
    return float(np.sqrt(((predicted - truth)[which] ** 2).mean()))


def scores(
    observed: FloatArray,
    truth: FloatArray,
    grid: Sequence[Settings] = GRID,
    seeds: int = SEEDS,
    advance: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """``rows``: of each model its ``cross_validated`` RMSE of held-out ratings, and its RMSE to the ground
    truth on ``missing`` and on ``all`` entries; of each rank the settings that cross-validation chooses, of
    which the row ``chosen`` has the least error. Beside it what is known of the two tables."""
    missing = np.isnan(observed)
    rows: list[dict[str, Any]] = []

    def add(name: str, model: Callable[[FloatArray], FloatArray], error: float | None = None) -> None:
        predicted = model(observed)
        rows.append(
            {
                "model": name,
                "cross_validated": cross_validated(observed, model) if error is None else error,
                "missing": rmse(predicted, truth, missing),
                "all": rmse(predicted, truth, np.ones_like(missing)),
                "chosen": False,
            }
        )
        advance(name)

    add("constant", constant)
    add("mean of the object", object_means)
    best: dict[int, tuple[float, Settings]] = {}
    for settings in grid:
        error = cross_validated(observed, lambda known, of=settings: predict(known, of, seeds))  # type: ignore[misc]
        known = best.get(settings.factors)
        if known is None or error < known[0]:
            best[settings.factors] = (error, settings)
    for error, settings in best.values():
        name = f"{settings.factors} factors, {settings.regularisation:g}, {settings.iterations} iterations"
        add(name, lambda known, of=settings: predict(known, of, seeds), error)  # type: ignore[misc]
    least = min(rows[2:], key=lambda row: row["cross_validated"])
    least["chosen"] = True
    return {
        "rows": rows,
        "users": observed.shape[0],
        "objects": observed.shape[1],
        "missing": int(missing.sum()),
        "agree": float((observed == truth)[~missing].mean()),
        "differ": rmse(observed, truth, ~missing),
    }
