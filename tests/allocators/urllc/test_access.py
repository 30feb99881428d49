"""The delay of grants and NR slots, learned as a line in devices a PRB."""

from __future__ import annotations

import json

import numpy as np
import pytest

from controller.allocators.urllc.access import NOISE_MS, SLOPE_MS, AccessDelay


def test_before_anything_is_known_it_is_what_was_configured() -> None:
    assert AccessDelay().line(6.0) == (6.0, SLOPE_MS)
    assert AccessDelay().at(0.5, 6.0) == pytest.approx(6.0 + 0.5 * SLOPE_MS + NOISE_MS)


def test_a_line_is_found() -> None:
    rng = np.random.default_rng(1)
    of = AccessDelay()
    for x in rng.uniform(0.1, 1.5, 200):
        of = of.observe(x, 4.0 + 5.0 * x + 0.1 * rng.standard_normal())
    a, c = of.line(6.0)
    assert (a, c) == (pytest.approx(4.0, abs=0.3), pytest.approx(5.0, abs=0.5))


def test_neither_is_below_nothing() -> None:
    falling, small = AccessDelay(), AccessDelay()
    for x in np.linspace(0.1, 2.0, 50):
        falling = falling.observe(x, max(9.0 - 4.0 * x, 0.0))
        small = small.observe(x, 8.0 * max(x - 1.0, 0.0))
    assert falling.line(6.0)[1] == 0.0 and falling.line(6.0)[0] > 0.0
    assert min(small.line(6.0)) >= 0.0
    for of in (falling, small):
        assert all(of.at(x, 6.0) <= of.at(x + 0.1, 6.0) for x in np.linspace(0, 3, 20))


def test_what_was_long_ago_is_forgotten() -> None:
    of = AccessDelay()
    for y in [20.0] * 50 + [5.0] * 20:
        of = of.observe(0.5, y)
    assert of.at(0.5, 6.0) == pytest.approx(5.0 + NOISE_MS, abs=0.3)


def test_what_nobody_shows_any_more_is_forgotten_slowly() -> None:
    of = AccessDelay()
    for _ in range(20):
        of = of.observe(0.5, 20.0)
    after = of
    for _ in range(300):
        after = after.unseen()
    assert of.unseen().at(0.5, 6.0) == pytest.approx(of.at(0.5, 6.0), abs=0.1)
    assert after.at(0.5, 6.0) == pytest.approx(AccessDelay().at(0.5, 6.0), abs=0.1)


def test_state_goes_through_json() -> None:
    of = AccessDelay().observe(0.3, 7.0)
    assert AccessDelay.from_state(json.loads(json.dumps(of.to_state()))) == of
    for state in ([1.0] * 4, [float("inf")] + [0.0] * 4, [-1.0] * 5):
        with pytest.raises(ValueError, match="access delay"):
            AccessDelay.from_state(state)
