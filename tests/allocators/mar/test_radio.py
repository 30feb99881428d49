"""Equations (1) to (3) against a simulated queue, and their inverses against one another."""

from __future__ import annotations

import numpy as np
import pytest

from controller.allocators.mar import radio
from controller.allocators.mar.radio import BOUNDS, Bound, Uplink
from controller.core.hops import Carrier
from wire.definitions import nr

BITS = 400_000.0
CONSTANT = Uplink.from_snr_db(BITS, [10.0])
FADING = Uplink.from_snr_db(BITS, np.random.default_rng(1).normal(5.0, 6.0, 4000))


def sojourns_s(snr_db: np.ndarray, frequency: float, bandwidth: float) -> np.ndarray:
    """Of frames that meet these SNR, one after the other, by Lindley's recursion."""
    service = BITS / (bandwidth * np.log2(1.0 + 10.0 ** (snr_db / 10.0)))
    # W[k + 1] = max(0, W[k] + S[k] - 1/lambda): the walk less its lowest point so far.
    walk = np.concatenate([[0.0], np.cumsum(service[:-1] - 1.0 / frequency)])
    return walk - np.minimum.accumulate(walk) + service


def simulated_sojourn_s(samples_db: np.ndarray, frequency: float, bandwidth: float) -> float:
    """The mean in D/G/1, with an SNR drawn anew for every frame."""
    drawn = np.random.default_rng(2).choice(samples_db, 200_000)
    return float(sojourns_s(drawn, frequency, bandwidth).mean())


def test_moments_by_hand() -> None:
    # SNR 0 and 10 log10(3) dB are 1 and 2 bit/s/Hz.
    uplink = Uplink.from_snr_db(BITS, [0.0, 10.0 * np.log10(3.0)])
    assert uplink.transmission_s(1e6) == pytest.approx(BITS / 1e6 * 0.75)
    assert uplink.transmission_variance(1e6) == pytest.approx((BITS / 1e6) ** 2 * (0.625 - 0.75**2))


def test_snr_below_the_floor_counts_as_the_floor() -> None:
    deep = Uplink.from_snr_db(BITS, [-300.0, 10.0])
    assert float(deep.mean) == float(Uplink.from_snr_db(BITS, [radio.FLOOR_DB, 10.0]).mean)
    assert float(deep.mean) < float(Uplink.from_snr_db(BITS, [-300.0, 10.0], floor_db=-20.0).mean)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("spread_db", [0.0, 2.0, 6.0])
def test_the_bound_is_one_on_the_simulated_queue(load: float, spread_db: float) -> None:
    samples = np.maximum(np.random.default_rng(3).normal(8.0, spread_db, 2000), radio.FLOOR_DB)
    uplink = Uplink.from_snr_db(BITS, samples)
    frequency = 10.0
    bandwidth = float(frequency * BITS * uplink.mean / load)
    simulated = simulated_sojourn_s(samples, frequency, bandwidth)
    bound = float(uplink.latency_s(frequency, bandwidth))
    # 1 % for the noise of the simulation; without spread the bound is the sojourn itself.
    assert simulated <= 1.01 * bound
    if not spread_db:
        assert simulated == pytest.approx(bound)


def test_the_printed_equation_is_no_bound() -> None:
    samples = np.random.default_rng(3).normal(8.0, 2.0, 2000)
    uplink = Uplink.from_snr_db(BITS, samples)
    frequency, bandwidth = 1.0, float(BITS * uplink.mean / 0.1)
    simulated = simulated_sojourn_s(samples, frequency, bandwidth)
    assert float(uplink.latency_s(frequency, bandwidth, "printed")) < 0.2 * simulated
    # At a high load it counts a wait that evenly spaced frames do not have.
    bandwidth = float(BITS * CONSTANT.mean / 0.9)
    simulated = simulated_sojourn_s(np.array([10.0]), frequency, bandwidth)
    assert float(CONSTANT.latency_s(frequency, bandwidth, "printed")) > 4.0 * simulated


def test_a_slow_channel_is_planned_by_its_outage() -> None:
    # A quarter of the time at 0 dB, in periods of 100 s, at 10 Hz.
    snr = np.tile(np.repeat([0.0, 20.0, 10.0, 15.0], 1000), 5)
    mean = Uplink.from_snr_db(BITS, snr)
    bandwidth = float(mean.bandwidth_hz(10.0, 0.1))
    assert sojourns_s(np.random.default_rng(5).permutation(snr), 10.0, bandwidth).mean() < 0.1
    assert sojourns_s(snr, 10.0, bandwidth).mean() > 10.0
    for outage, share in ((0.0, 1.0), (0.2, 1.0), (0.3, 0.75), (1.0, 0.25)):
        slow = Uplink.from_snr_db(BITS, radio.slow_snr_db(snr, outage)[None])
        each = Uplink.from_snr_db(BITS, snr[:, None])
        for frequency in (1.0, 30.0):
            within = each.latency_s(frequency, slow.bandwidth_hz(frequency, 0.1)) <= 0.1
            assert within.mean() == share
    # Without an outage no frame waits.
    slow = Uplink.from_snr_db(BITS, radio.slow_snr_db(snr, 0.0)[None])
    assert sojourns_s(snr, 10.0, float(slow.bandwidth_hz(10.0, 0.09))).max() <= 0.09
    assert radio.slow_snr_db([-30.0, 3.0], 0.1) == radio.FLOOR_DB
    assert radio.slow_snr_db([[1.0, 2.0], [3.0, 4.0]], 1.0).tolist() == [2.0, 4.0]


def test_a_queue_that_is_not_stable_takes_for_ever() -> None:
    bandwidth = BITS * FADING.mean
    for bound in BOUNDS:
        assert np.isfinite(FADING.latency_s(0.999, bandwidth, bound))
        assert np.isinf(FADING.latency_s([1.001, 5.0], bandwidth, bound)).all()
        assert np.isinf(FADING.latency_s(1.0, 0.0, bound))


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("uplink", [CONSTANT, FADING], ids=["constant", "fading"])
def test_bandwidth_and_frequency_are_inverse(uplink: Uplink, bound: Bound) -> None:
    rng = np.random.default_rng(4)
    frequency, latency = 10 ** rng.uniform(-1, 2, 500), 10 ** rng.uniform(-3, 1, 500)
    bandwidth = uplink.bandwidth_hz(frequency, latency, bound)
    # The least: it keeps the latency, and a little less does not.
    assert (uplink.latency_s(frequency, bandwidth, bound) <= latency * (1 + 1e-9)).all()
    assert (uplink.latency_s(frequency, bandwidth * (1 - 1e-6), bound) > latency).all()
    highest = uplink.frequency_hz(bandwidth, latency, bound)
    assert (highest >= frequency * (1 - 1e-6)).all()
    # And it sustains no more than it was made for, but where constant transmissions never wait: there a
    # single frame needs as much.
    waits = (bound == "printed") | (uplink.variance > 0) | (frequency * latency > 1)
    assert highest[np.broadcast_to(waits, 500)] == pytest.approx(
        frequency[np.broadcast_to(waits, 500)], rel=1e-6
    )
    assert (uplink.latency_s(highest, bandwidth, bound) <= latency * (1 + 1e-6)).all()


@pytest.mark.parametrize("bound", BOUNDS)
def test_more_bandwidth_sustains_more(bound: Bound) -> None:
    bandwidth = np.geomspace(1e4, 1e9, 300)
    highest = FADING.frequency_hz(bandwidth, 0.1, bound)
    assert (np.diff(highest) >= 0).all() and highest[-1] > 100
    # What is over in 100 ms takes BITS x mean / 100 ms.
    single = BITS * float(FADING.mean) / 0.1
    if bound == "kingman":
        assert (highest[bandwidth < single] == 0).all() and (highest[bandwidth > 1.01 * single] > 0).all()


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_limits(bound: Bound) -> None:
    for uplink in (CONSTANT, FADING):
        stable = 5.0 * BITS * float(uplink.mean)
        assert uplink.bandwidth_hz(5.0, np.inf, bound) == pytest.approx(stable)
        assert uplink.frequency_hz(stable, np.inf, bound) == pytest.approx(5.0)
        assert uplink.frequency_hz(np.inf, 0.1, bound) == np.inf
        assert uplink.frequency_hz(0.0, [0.1, np.inf], bound).tolist() == [0.0, 0.0]
    single = BITS * float(FADING.mean) / 0.1
    assert FADING.bandwidth_hz(0.0, 0.1) == pytest.approx(single)
    assert FADING.bandwidth_hz(0.0, 0.1, "printed") == 0.0


def test_users_and_frequencies_at_once() -> None:
    users = Uplink.of_users([CONSTANT, FADING, Uplink.from_snr_db(2 * BITS, [3.0])])
    frequency = np.array([1.0, 5.0, 30.0])[:, None]
    bandwidth = users.bandwidth_hz(frequency, 0.1)
    assert bandwidth.shape == (3, 3)
    assert bandwidth[1, 1] == FADING.bandwidth_hz(5.0, 0.1)
    assert np.allclose(users.frequency_hz(bandwidth[2], 0.1), 30.0)
    matrix = Uplink.from_snr_db(BITS, np.array([[10.0, 10.0], [0.0, 20.0]]))
    assert matrix.mean[0] == pytest.approx(float(CONSTANT.mean)) and matrix.variance[1] > 0


def test_a_prb_is_worth_its_resource_elements_of_the_uplink() -> None:
    carrier = Carrier()
    assert radio.prb_hz(carrier) == pytest.approx(12 * 28_000 * 0.72 * 0.92)
    # As the MAC counts it: a PRB carries its worth times the spectral efficiency.
    for mcs in (0, 9, 28):
        bps = radio.prb_bps(carrier, mcs)
        assert bps == pytest.approx(radio.prb_hz(carrier) * nr.spectral_efficiency(mcs))
        measured = Uplink.from_prb_bps(BITS, [bps], carrier)
        assert float(measured.mean) == pytest.approx(1.0 / nr.spectral_efficiency(mcs))
        # Ten PRBs upload a frame in the time that their bit rate takes.
        assert measured.transmission_s(10 * radio.prb_hz(carrier)) == pytest.approx(BITS / (10 * bps))
    assert radio.prb_bps(carrier, 9, layers=2) == 2 * radio.prb_bps(carrier, 9)
    less = Carrier(tdd=nr.TDD_PATTERNS["DDDDDDDSUU"])
    assert radio.prb_hz(less) < radio.prb_hz(carrier) / 2


def test_whole_prbs() -> None:
    carrier = Carrier()
    worth = radio.prb_hz(carrier)
    assert radio.prbs([0.0, 1.0, worth, 3 * worth, 3 * worth + 1.0], carrier).tolist() == [0, 1, 1, 3, 4]
    with pytest.raises(ValueError, match="infinite"):
        radio.prbs([worth, np.inf], carrier)


@pytest.mark.parametrize("samples", [[], [np.nan], [1.0, np.inf], 3.0])
def test_samples_that_are_none_are_refused(samples: object) -> None:
    with pytest.raises(ValueError, match="SNR samples in dB: "):
        Uplink.from_snr_db(BITS, samples)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bit/s a PRB: "):
        Uplink.from_prb_bps(BITS, samples, Carrier())  # type: ignore[arg-type]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="bit/s a PRB: 0 is not positive"):
        Uplink.from_prb_bps(BITS, [1e5, 0.0], Carrier())
    with pytest.raises(ValueError, match="frame_bits 0 is not"):
        Uplink.from_snr_db(0.0, [1.0])
    with pytest.raises(ValueError, match="variance -1 is not"):
        Uplink(np.array(BITS), np.array(1.0), np.array(-1.0))
    with pytest.raises(ValueError, match="floor"):
        Uplink.from_snr_db(BITS, [1.0], floor_db=float("nan"))
    with pytest.raises(ValueError, match="no user"):
        Uplink.of_users([])
    for latency in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="latency of"):
            FADING.bandwidth_hz(1.0, latency)
        with pytest.raises(ValueError, match="latency of"):
            FADING.frequency_hz(1e6, latency)
    for frequency in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="upload frequency of"):
            FADING.bandwidth_hz([1.0, frequency], 0.1)
    for bandwidth in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="bandwidth of"):
            FADING.frequency_hz(bandwidth, 0.1)
    with pytest.raises(ValueError, match="none of kingman, printed"):
        FADING.latency_s(1.0, 1e6, "other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="MCS 99"):
        radio.prb_bps(Carrier(), 99)
    with pytest.raises(ValueError, match="0 layers"):
        radio.prb_bps(Carrier(), 9, layers=0)
    with pytest.raises(ValueError, match=r"outage 1\.5"):
        radio.slow_snr_db([1.0], 1.5)
    with pytest.raises(ValueError, match="there are none"):
        radio.slow_snr_db([], 0.1)
