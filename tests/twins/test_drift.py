"""The change detector: false alarms and delays as its table has them, and what must not alarm."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from controller.twins.drift import WARM_UP, Cusum, Settings

NAN = float("nan")


def alarms(values: Iterable[float], settings: Settings | None = None) -> list[tuple[int, int, int]]:
    """Of each alarm: its place, its side and since when."""
    detector, found = Cusum(settings or Settings()), []
    for place, value in enumerate(values):
        detector = detector.observe(float(value))
        if detector.alarm:
            found.append((place, detector.alarm, detector.since))
    return found


def streams(seed: int, n: int, steps: int, phi: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = rng.standard_normal((n, steps))
    for t in range(1, steps):
        out[:, t] = phi * out[:, t - 1] + np.sqrt(1.0 - phi * phi) * out[:, t]
    return out


def first(values: np.ndarray, settings: Settings) -> int:
    """Steps to the first alarm, those there are where none comes."""
    detector = Cusum(settings)
    for step, value in enumerate(values.tolist(), start=1):
        detector = detector.observe(value)
        if detector.alarm:
            return step
    return len(values)


@pytest.mark.parametrize(
    ("phi", "correlation", "low", "high"),
    [(0.0, 0.0, 0.15, 0.35), (0.5, 0.5, 0.15, 0.35), (0.5, 0.0, 0.95, 1.0)],
)
def test_false_alarms(phi: float, correlation: float, low: float, high: float) -> None:
    """One in 1,000 steps is one in 300 for a quarter of the streams."""
    settings = Settings(correlation=correlation)
    false = np.mean([first(s, settings) < 300 for s in streams(1, 120, 300, phi)])
    assert low <= false <= high


@pytest.mark.parametrize(
    ("phi", "shift", "low", "high"),
    [(0.0, 0.5, 25, 55), (0.0, 1.0, 10, 17), (0.0, 2.0, 4, 8), (0.5, 1.0, 20, 36), (0.5, 2.0, 7, 13)],
)
def test_delay_of_an_alarm(phi: float, shift: float, low: float, high: float) -> None:
    settings = Settings(correlation=phi)
    for sign in (1.0, -1.0):
        shifted = streams(2, 60, 300, phi)
        shifted[:, 100:] += sign * shift
        steps = np.array([first(s, settings) for s in shifted])
        assert low <= np.median(steps[steps > 100] - 100) <= high


def test_it_says_on_which_side_and_since_when_and_starts_afresh() -> None:
    noise = streams(3, 1, 400)[0]
    noise[150:] -= 2.0
    noise[300:] += 4.0
    found = alarms(noise)
    assert [side for _, side, _ in found] == [-1, 1]
    for change, (place, _, since) in zip((150, 300), found, strict=True):
        assert change < place < change + 15
        assert abs(place - since + 1 - change) <= 8


def test_a_constant_never_alarms_and_an_outlier_alone_does_not() -> None:
    for value in (0.0, 0.1, -1e300, 5.0):
        for settings in (Settings(), Settings(correlation=0.5), Settings(allowance=0.0)):
            assert alarms([value] * 500, settings) == []
    assert alarms([5.0] * 50 + [4.0] + [5.0] * 100) == []
    assert alarms([*streams(4, 1, 50)[0], 1e12]) == []
    # But a constant that becomes another does.
    (found,) = alarms([5.0] * 50 + [4.0] * 10)
    assert found[1:] == (-1, 3)


def test_what_is_not_finite_is_skipped() -> None:
    values = streams(5, 1, 300)[0]
    values[150:] += 2.0
    thinned = [v for value in values for v in (value, NAN, float("inf"))]
    assert [(p // 3, side, since) for p, side, since in alarms(thinned)] == alarms(values)
    assert alarms([NAN] * 100) == []
    # With a correlation, an observation after a gap has none before it.
    detector = Cusum(Settings(correlation=0.5))
    for value in (1.0, 2.0, NAN, 7.0, 8.0):
        detector = detector.observe(value)
    assert detector.count == 2 and detector.mean == pytest.approx((1.5 + 4.5) / 2)


def test_it_warms_up_before_it_sums() -> None:
    detector = Cusum()
    for value in [0.0, 1.0] * (WARM_UP // 2):
        detector = detector.observe(value)
    assert (detector.rise, detector.fall) == (0.0, 0.0) and detector.count == WARM_UP
    assert detector.observe(5.0).rise > 0.0


def test_state_there_and_back() -> None:
    values = streams(6, 1, 120)[0]
    values[80:] += 2.0
    kept = moved = Cusum(Settings(correlation=0.3))
    assert Cusum.from_state(json.loads(json.dumps(kept.to_state(), allow_nan=False))).count == 0
    for value in values:
        kept = kept.observe(float(value))
        moved = Cusum.from_state(
            json.loads(json.dumps(moved.observe(float(value)).to_state(), allow_nan=False))
        )
        assert moved == kept
    with pytest.raises(KeyError, match="rise"):
        Cusum.from_state({name: v for name, v in kept.to_state().items() if name != "rise"})
    for wrong in ({"squares": -1.0}, {"mean": NAN}, {"count": -1}, {"settings": {"threshold": 0.0}}):
        with pytest.raises(ValueError, match="change detector"):
            Cusum.from_state({**kept.to_state(), **wrong})


def test_settings_that_are_none() -> None:
    for wrong in ({"allowance": -0.1}, {"threshold": 0.0}, {"threshold": NAN}):
        with pytest.raises(ValueError, match="allowance"):
            replace(Settings(), **wrong)
    for correlation in (-0.1, 1.0, NAN):
        with pytest.raises(ValueError, match="correlation"):
            Settings(correlation=correlation)
