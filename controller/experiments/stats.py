"""Means over seeds with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from wire.definitions.extras import needs


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds; ``half`` is half the width of its 95 % interval, None with one seed."""

    mean: float
    half: float | None

    def to_dict(self) -> dict[str, float | None]:
        return {"mean": self.mean, "half_95": self.half}


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Mean and 95 % interval (Student's t) of values of independent seeds, None left out.

    None where no value is left. MissingExtra, naming the extra ``research``, where SciPy is not installed.
    """
    known = [v for v in values if v is not None]
    n = len(known)
    if not n:
        return None
    mean = sum(known) / n
    if n == 1:
        return Estimate(mean, None)
    with needs("research", "an interval over seeds"):
        from scipy.stats import t
    variance = sum((v - mean) ** 2 for v in known) / (n - 1)
    return Estimate(mean, float(t.ppf(0.975, n - 1)) * sqrt(variance / n))
