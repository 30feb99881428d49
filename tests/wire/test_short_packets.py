"""Short packets: equation (1), and the error probability as its inverse."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from wire.definitions.short_packets import (
    dispersion,
    error_probability,
    inverse_q,
    q_function,
    rate_bps,
)


def test_q_and_its_inverse_agree_where_urllc_works() -> None:
    for error in (0.3, 1e-2, 1e-4, 1e-7, 1e-9):
        assert q_function(inverse_q(error)) == pytest.approx(error, rel=1e-9)
    # Abramowitz and Stegun, table 26.2
    assert inverse_q(1e-5) == pytest.approx(4.26489, abs=1e-5)


@pytest.mark.parametrize("error", [0.0, 1.0, -0.1, math.nan])
def test_no_error_probability_outside_0_to_1(error: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        rate_bps(1e6, 10.0, 1e-3, error)


@pytest.mark.parametrize("interval", [0.0, -1e-3, math.nan])
def test_no_transmission_interval_that_is_not_positive(interval: float) -> None:
    with pytest.raises(ValueError, match="not positive"):
        rate_bps(1e6, 10.0, interval, 1e-5)


def test_equation_1_by_hand() -> None:
    # b B = 0.2 x 5 MHz, snr 3, phi 1 ms, 1e-3: 1e6/ln 2 (ln 4 - sqrt((1 - 1/16) / 1000) x 3.0902)
    by_hand = 1e6 / math.log(2) * (math.log(4) - math.sqrt(0.9375 / 1000) * 3.090232)
    assert rate_bps(1e6, 3.0, 1e-3, 1e-3) == pytest.approx(by_hand, rel=1e-6)


def test_the_error_of_a_block_at_the_rate_is_the_error_of_the_rate() -> None:
    for snr in (0.5, 10.0, 1e4):
        for error in (1e-2, 1e-4, 1e-7):
            bandwidth, interval = 360e3, 5e-4
            bits = float(rate_bps(bandwidth, snr, interval, error)) * interval
            assert error_probability(bits, bandwidth * interval, snr) == pytest.approx(error, rel=1e-6)


def test_a_noisy_channel_carries_nothing_rather_than_less() -> None:
    assert rate_bps(1e4, 1e-3, 1e-4, 1e-7) == 0.0
    assert error_probability(1000, 156, 0.0) == 1.0
    assert error_probability(1000, 0, 10.0) == 1.0
    assert error_probability(0, 156, 10.0) == 0.0


def test_error_falls_with_channel_uses_and_snr() -> None:
    by_uses = [error_probability(1000, n, 10.0) for n in range(280, 400, 10)]
    by_snr = [error_probability(1000, 312, snr) for snr in np.linspace(5, 20, 30)]
    assert all(b < a for a, b in pairwise(by_uses))
    assert all(b < a for a, b in pairwise(by_snr))


def test_dispersion_is_that_of_the_paper() -> None:
    snr = np.array([1e-9, 1.0, 3.0, 1e6])
    assert dispersion(snr) == pytest.approx(1 - (1 + snr) ** -2.0, rel=1e-6, abs=1e-15)
