"""Sources without TCP, holds and hiccups, and queueing against the closed form."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from agents.emulator.spec import (
    BURST_UL,
    CBR_DL,
    CBR_UL,
    ECHO,
    RFSIM_PATH,
    ChannelProcess,
    EdgeSpec,
    FlowSpec,
    PathSpec,
    RateSpec,
    RlcSpec,
    TestbedSpec,
    UeSpec,
)
from agents.emulator.testbed import EmulatedTestbed

SECOND = 2000
CLEAR = ChannelProcess(50.0, 50.0, 0.0)
NOISY = ChannelProcess(14.0, 14.0, 0.5)
QUIET = PathSpec(ul_hold_rate_hz=0.0, hiccup_rate_hz=0.0)


def bed_of(*flows, channel=CLEAR, seed=1, **parts):
    return EmulatedTestbed(TestbedSpec([UeSpec("ue", 1, "s", channel)], flows, **parts), seed=seed)


def times_of(bed, until, flow=0):
    """Times of one flow's emissions: int64 [emissions, 4], 0 is never."""
    seen = {}
    while bed.nr_slot < until:
        bed.advance(min(until, bed.nr_slot + SECOND))
        f = bed.take_frames()
        columns = (f.flow, f.sequence, f.ue_sent, f.edge_received, f.edge_sent, f.ue_received)
        for index, sequence, *times in zip(*(c.tolist() for c in columns), strict=True):
            if index == flow:
                seen[sequence] = times
    return np.array([seen[k] for k in sorted(seen)], np.int64)


def gap(ms):
    return {"gap_ms": (ms, ms)}


# -- sources -----------------------------------------------------------------------------------------


def test_an_echo_goes_down_and_comes_up_and_its_gaps_are_those_asked_for():
    bed = bed_of(FlowSpec("e", "ue", kind=ECHO, gap_ms=(30.0, 45.0), burst_bytes=200), path=QUIET)
    t = times_of(bed, 20 * SECOND)[:-2]
    assert len(t) == pytest.approx(20_000 / 37.5, rel=0.05)
    sent, ue_in, ue_sent, back = t[:, 2], t[:, 3], t[:, 0], t[:, 1]
    assert (ue_in > sent).all() and (ue_sent == ue_in).all() and (back > ue_sent).all()
    gaps = np.diff(sent) / 1e6
    assert gaps.min() >= 30 and gaps.max() <= 45
    assert gaps.std() == pytest.approx(15 / np.sqrt(12), rel=0.1)
    up, down = bed.counters()
    assert down.offered - 400 <= up.offered <= down.offered


def test_a_constant_rate_offers_its_rate_and_an_unloaded_cell_carries_it():
    for kind, at in ((CBR_UL, 0), (CBR_DL, 1)):
        bed = bed_of(FlowSpec("c", "ue", kind=kind, **gap(2.5)), path=QUIET)
        bed.advance(10 * SECOND)
        c = bed.counters()[at]
        assert c.offered == pytest.approx(10_000 / 2.5 * 1000, rel=0.001)
        assert c.delivered > 0.99 * c.offered and c.dropped == 0
        assert bed.counters()[1 - at].offered == 0
        assert bed.health().frames_unreported == 0


def test_a_burst_is_complete_with_its_last_packet_and_takes_longer_under_a_smaller_quota():
    delays = []
    for quota in (106, 10):
        flow = FlowSpec("b", "ue", kind=BURST_UL, packets=9, burst_bytes=12_500, **gap(200.0))
        bed = bed_of(flow, path=QUIET)
        bed.set_quotas({"s": (quota, quota)}, {})
        t = times_of(bed, 20 * SECOND)[:-1]
        assert len(t) >= 98
        assert (t[:, 2] == t[:, 1]).all()
        delays.append(np.median(t[:, 1] - t[:, 0]) / 1e6)
        assert bed.counters()[0].offered % 12_500 == 0
    assert 5 < delays[0] < 15
    # 12.5 kB at 10 PRB of 4.1 kbit a radio frame each.
    assert delays[1] == pytest.approx(delays[0] + 12_500 * 8 / 41_000 * 10, rel=0.2)


@pytest.mark.parametrize("kind", [CBR_UL, CBR_DL, ECHO, BURST_UL])
def test_bytes_of_a_source_without_tcp_are_conserved_with_its_losses_counted(kind):
    flow = FlowSpec("f", "ue", kind=kind, packets=4, burst_bytes=6000, **gap(4.0))
    bed = bed_of(flow, channel=NOISY, rlc=RlcSpec(mode="um", queue_limit_bytes=20_000))
    for _ in range(60):
        bed.advance(bed.nr_slot + 157)
        for c in (*bed.counters(), *bed.rlc_counters()):
            assert c.offered == c.delivered + c.queued + c.dropped, c
    bed.set_quotas({"s": (5, 5)}, {})
    bed.advance(bed.nr_slot + 4 * SECOND)
    for c in (*bed.counters(), *bed.rlc_counters()):
        assert c.offered == c.delivered + c.queued + c.dropped, c
    assert sum(c.dropped for c in bed.counters()) > 0


def test_poisson_gaps_are_exponential():
    flow = FlowSpec("p", "ue", kind=ECHO, arrivals="poisson", burst_bytes=100, **gap(20.0))
    gaps = np.diff(times_of(bed_of(flow, path=QUIET), 60 * SECOND)[:, 2]) / 1e6
    assert gaps.mean() == pytest.approx(20.0, rel=0.05)
    assert gaps.std() == pytest.approx(20.0, rel=0.08)


def test_sources_on_ticks_send_only_in_nr_slots_with_downlink():
    flow = FlowSpec("e", "ue", kind=ECHO, gap_ms=(30.0, 45.0), on_ticks=True)
    bed = bed_of(flow, path=RFSIM_PATH)
    slot = (times_of(bed, 10 * SECOND)[1:, 2] - bed.epoch_ns) // 500_000
    tick = (slot + bed.spec.cell.sched_lead_slots) % 5
    assert set(tick.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"gap_ms": (0.0, 1.0)}, "gaps"),
        ({"gap_ms": (2.0, 1.0)}, "gaps"),
        ({"packets": 0}, "packets"),
        ({"packets": 9, "burst_bytes": 8}, "packets"),
        ({"arrivals": "bursty"}, "arrivals"),
    ],
)
def test_impossible_sources_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        FlowSpec("f", "ue", kind=CBR_UL, **wrong)


# -- interruptions -----------------------------------------------------------------------------------


def hops(path, seconds=60, seed=1):
    t = times_of(
        bed_of(FlowSpec("f", "ue"), channel=ChannelProcess(), path=path, seed=seed), seconds * SECOND
    )
    t = t[t[:, 3] > 0] / 1e6
    return np.column_stack([t[:, 1] - t[:, 0], t[:, 2] - t[:, 1], t[:, 3] - t[:, 2]])


def test_holds_lengthen_the_uplinks_tail_and_lose_nothing():
    calm, held = hops(QUIET), hops(PathSpec(hiccup_rate_hz=0.0))
    assert np.quantile(held[:, 0], 0.9) > np.quantile(calm[:, 0], 0.9) + 2
    assert np.median(held[:, 0]) < np.median(calm[:, 0]) + 2
    assert held[:, 0].max() > 50 > calm[:, 0].max()
    assert len(held) == len(calm)


def test_a_hiccup_stops_both_directions_for_its_length_and_loses_no_frame():
    path = PathSpec(ul_hold_rate_hz=0.0, hiccup_rate_hz=0.05, hiccup_min_ms=2000.0, hiccup_max_ms=2000.0)
    bed = bed_of(FlowSpec("f", "ue", ((0.0, 60.0),)), path=path)
    t = times_of(bed, 80 * SECOND)
    assert (t[:, 3] > 0).all()
    back = np.sort(t[:, 3]) / 1e6
    pauses = [b - a for a, b in pairwise(back) if b - a > 500]
    assert 1 <= len(pauses) <= 8
    assert 1900 < min(pauses) < 2600


@pytest.mark.parametrize(
    "wrong",
    [
        {"ul_hold_rate_hz": -1.0},
        {"hiccup_rate_hz": 200.0},
        {"ul_hold_sigma": 3.0},
        {"ul_hold_median_ms": -1.0},
        {"hiccup_min_ms": 3000.0, "hiccup_max_ms": 2000.0},
    ],
)
def test_impossible_interruptions_are_refused(wrong):
    with pytest.raises(ValueError, match="path"):
        PathSpec(**wrong)


# -- queueing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.3, 0.6])
def test_poisson_frames_wait_at_the_edge_as_in_an_m_d_1_queue(rho):
    service_ms = 40.0
    rate = rho / service_ms * 1e3
    bits = RateSpec(1000 * 8 * rate, 0.0, 1000 * 8 * rate)
    flow = FlowSpec("f", "ue", fps=rate, ul=bits, dl=bits, frame_jitter=0.0, arrivals="poisson")
    edge = EdgeSpec(base_ms=service_ms, clocked_ms=0.0, stall_rate_hz=0.0, frames_held=200)
    t = times_of(bed_of(flow, edge=edge, path=QUIET), 4000 * SECOND)
    wait = (t[:, 2] - t[:, 1])[t[:, 2] > 0] / 1e6 - service_ms
    # Pollaczek and Khinchine for a constant service time.
    assert wait.mean() == pytest.approx(service_ms * rho / (2 * (1 - rho)), rel=0.06)


def test_more_prb_or_mhz_never_hurt_under_common_random_numbers():
    """Mean round trip over a grid, all with the same channel, errors, stalls and holds.

    The tolerance is 2 ms: other grants put other blocks into the NR slots whose errors are drawn.
    """

    def mean_ms(ul, dl, mhz):
        flows = [FlowSpec(f"f{i}", "ue") for i in range(2)]
        bed = bed_of(*flows, channel=ChannelProcess(), path=PathSpec(hiccup_rate_hz=0.0))
        bed.set_quotas({"s": (ul, dl)}, {})
        bed.set_gpu_mhz(mhz)
        t = times_of(bed, 40 * SECOND)
        t = t[t[:, 3] > 0] / 1e6
        return (t[:, 3] - t[:, 0]).mean()

    for grid in (
        [(ul, 106, 1600) for ul in (20, 30, 40, 50, 60, 70, 80, 90, 106)],
        [(106, dl, 1600) for dl in (5, 10, 15, 20, 30, 50, 70, 106)],
        [(106, 106, mhz) for mhz in (500, 600, 700, 800, 1000, 1200, 1400, 1600)],
        [(30, 10, 700), (50, 10, 900), (50, 30, 900), (70, 50, 1200), (106, 106, 1600)],
    ):
        means = [mean_ms(*x) for x in grid]
        assert all(b <= a + 2.0 for a, b in pairwise(means)), list(zip(grid, means, strict=True))
        assert means[-1] < means[0]
