"""Isotonic regression: the non-decreasing sequence nearest to values, by weighted least squares."""

from __future__ import annotations

from collections.abc import Sequence


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing x of least sum of w (x - value)^2; ``weights`` are positive, [n] as ``values``.

    Pool adjacent violators (Ayer et al., 1955), linear in n. For shares of successes with their counts as
    weights this is also the maximum of the likelihood.
    """
    blocks: list[tuple[float, float, int]] = []
    for mean, weight in zip(values, weights, strict=True):
        size = 1
        while blocks and blocks[-1][0] >= mean:
            left, more, wide = blocks.pop()
            mean = (left * more + mean * weight) / (more + weight)
            weight += more
            size += wide
        blocks.append((mean, weight, size))
    return [mean for mean, _, size in blocks for _ in range(size)]
