"""Which factors a user's experience depends on: distance correlation, and whether it is significant.

Distance correlation is 0 for independent quantities alone, whatever the form of their dependence (Szekely,
Rizzo and Bakirov, Measuring and testing dependence by correlation of distances, 2007). Its square is
estimated without bias; n times it, plus 1, is at most as large as a chi-squared variable of one degree of
freedom where there is no dependence (Shen, Panda and Vogelstein, The chi-square test of distance correlation,
2022). Rows that follow each other in time are no independent samples: n is that of as many independent ones
(Bartlett).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import erfc, sqrt

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LEAST_ROWS = 8


def independent_rows(x: FloatArray, y: FloatArray) -> float:
    """How many independent pairs tell as much of a correlation as these, which follow each other in time."""
    n = len(x)
    product = min(max(_lag_1(x) * _lag_1(y), 0.0), 0.99)
    return max(n * (1.0 - product) / (1.0 + product), 1.0)


def _lag_1(x: FloatArray) -> float:
    """Autocorrelation of the ranks at lag 1, equal values at their mean rank; 0 of a constant."""
    _, value, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - 0.5 * (counts - 1))[value]
    ranks -= ranks.mean()
    power = float(ranks @ ranks)
    return float(ranks[1:] @ ranks[:-1]) / power if power > 0.0 else 0.0


def dependence(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Distance correlation of two columns in the order of time, 0..1, and its p-value.

    Rows with a NaN are left out; of a constant, and of fewer than :data:`LEAST_ROWS` rows, the p-value is 1.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = np.asarray(x[known], np.float64), np.asarray(y[known], np.float64)
    if len(x) < LEAST_ROWS or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return 0.0, 1.0
    squared = _squared(x, y)
    chi_squared = max(independent_rows(x, y) * squared + 1.0, 0.0)
    return sqrt(max(squared, 0.0)), erfc(sqrt(0.5 * chi_squared))


def _squared(x: FloatArray, y: FloatArray) -> float:
    """Square of the distance correlation, estimated without bias, so that it may be below 0 (Szekely and
    Rizzo, Partial distance correlation with methods for dissimilarities, 2014); 0 of a column whose centred
    distances are all 0. Takes n^2 memory."""
    a, b = _u_centred(x), _u_centred(y)
    power = float(np.vdot(a, a)) * float(np.vdot(b, b))
    return float(np.vdot(a, b)) / sqrt(power) if power > 0.0 else 0.0


def _u_centred(column: FloatArray) -> FloatArray:
    """U-centred distances, [n, n]: each row and column sums to 0, the diagonal is 0."""
    n = len(column)
    distances = np.abs(column[:, np.newaxis] - column)
    of_row = distances.sum(axis=1)
    centred = distances - of_row[:, np.newaxis] / (n - 2) - of_row / (n - 2)
    centred += of_row.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0.0)
    return centred


def significant(
    experience: FloatArray, factors: Mapping[str, FloatArray], level: float = 0.05
) -> dict[str, tuple[float, float]]:
    """The factors on which an experience, [rows], depends: name -> (distance correlation, p-value), strongest
    first.

    Of as many factors as there are, none that does not matter is among them with probability 1 - ``level``
    (Holm, A simple sequentially rejective multiple test procedure, 1979).
    """
    found = {name: dependence(column, experience) for name, column in factors.items()}
    chosen = {}
    for place, (name, (strength, p)) in enumerate(sorted(found.items(), key=lambda item: item[1][1])):
        if p * (len(found) - place) > level:
            break
        chosen[name] = (strength, p)
    return dict(sorted(chosen.items(), key=lambda item: -item[1][0]))
