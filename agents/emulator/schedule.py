"""When the flows of a scenario are on: exponential on/off times with minimums.

Both functions return, for each flow, its [start, stop) intervals in seconds, ascending and disjoint, cut at
the scenario's length. Times of the arguments are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Intervals = tuple[tuple[float, float], ...]


def described(
    n_flows: int,
    length_s: float,
    *,
    mean_on_s: float,
    mean_off_s: float,
    min_on_s: float,
    min_off_s: float,
    seed: int = 4,
) -> tuple[Intervals, ...]:
    """The schedule as the MUCB1 paper describes it: each flow off first, then on, by turns.

    A time shorter than its minimum is raised to it. ValueError for times that are not positive.
    """
    _check(n_flows, length_s, mean_on_s, mean_off_s, min_on_s, min_off_s)
    rng = np.random.default_rng(seed)
    flows = []
    for _ in range(n_flows):
        now, intervals = 0.0, []
        while True:
            on, off = rng.exponential(mean_on_s), rng.exponential(mean_off_s)
            start = now + max(off, min_off_s)
            if start >= length_s:
                break
            now = start + max(on, min_on_s)
            intervals.append((start, min(now, length_s)))
        flows.append(tuple(intervals))
    return tuple(flows)


def published(
    n_flows: int,
    length_s: float,
    *,
    mean_on_s: float,
    mean_off_s: float,
    min_on_s: float,
    min_off_s: float,
    seed: int = 4,
) -> tuple[Intervals, ...]:
    """The schedule that the authors' generator makes, for comparison with their Table V.

    NumPy's legacy generator, on drawn before off, the flows in turn. Times are whole seconds. The clock
    advances *by* the end of an on time instead of *to* it, and the minimum off time is not enforced
    (``min_off_s`` is checked and otherwise unused). ValueError for times that are not positive.
    """
    _check(n_flows, length_s, mean_on_s, mean_off_s, min_on_s, min_off_s)
    rng = np.random.RandomState(seed)
    flows = []
    for _ in range(n_flows):
        now, intervals = 0, []
        while now < length_s:
            on, off = max(rng.exponential(mean_on_s), min_on_s), rng.exponential(mean_off_s)
            now += int(off)
            end = min(int(now + on), int(length_s))
            if now < end:
                intervals.append((float(now), float(end)))
            now += end
        flows.append(tuple(intervals))
    return tuple(flows)


def mean_active(flows: Sequence[Intervals], length_s: float) -> float:
    """Active flows on average over the scenario."""
    return sum(stop - start for intervals in flows for start, stop in intervals) / length_s


def _check(n_flows: int, *times: float) -> None:
    if n_flows < 0:
        raise ValueError(f"schedule of {n_flows} flows")
    if min(times[:3]) <= 0 or min(times) < 0:
        raise ValueError(f"schedule: length and means are positive, minimums not negative (got {times} s)")
