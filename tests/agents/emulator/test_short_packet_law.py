"""Flows with a decoding error: which blocks follow the law of short packets, and that they do."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tests.applications  # noqa: F401 -- registers periodic
from agents.emulator.layout import LINK_LAW, SHORT_PACKET_LAW
from agents.emulator.spec import (
    ApplicationSpec,
    CellSpec,
    ChannelProcess,
    EdgeSpec,
    FlowSpec,
    PathSpec,
    RlcSpec,
    TestbedSpec,
    UeSpec,
    UserSpec,
)
from agents.emulator.testbed import EmulatedTestbed
from wire.definitions.nr import tbs_bits
from wire.definitions.short_packets import error_probability

SECOND = 2000
PROMPT = PathSpec(ue_dl_offset_ms=0.5, ue_dl_poll_ms=0.0, ul_hold_rate_hz=0.0, hiccup_rate_hz=0.0)
STEADY = EdgeSpec(stall_rate_hz=0.0)
IMMEDIATE = CellSpec(short_packet_margin_db=0.0, k2=2)
TELEGRAM = {"size_bytes": 100, "answer_bytes": 100, "period_ms": 5.0, "gpu_ms": 0.0, "edge_ms": 0.0}
SMALLEST_PRB, FULL_UL_RE, MCS = 5, 12 * 13 - 18, 20


def cell(error, *, n=1, snr_db=16.5, sd_db=0.0, others=(), options=TELEGRAM, seed=3, **parts):
    """``n`` UEs, each with a user whose datagrams have a decoding error, and other flows."""
    ues = [UeSpec(f"ue-{i}", i + 1, "s", ChannelProcess(snr_db, snr_db, sd_db)) for i in range(n)]
    users = [
        UserSpec(f"u-{i}", f"ue-{i}", transport="udp", decoding_error=error, options=options)
        for i in range(n)
    ]
    parts = {"cell": IMMEDIATE, "path": PROMPT, "edge": STEADY, **parts}
    spec = TestbedSpec(ues, list(others), applications=[ApplicationSpec("periodic", users)], **parts)
    return EmulatedTestbed(spec, seed=seed)


def snr_of(error):
    """dB at which the smallest UL block at :data:`MCS` is lost with this probability."""
    bits, low, high = tbs_bits(SMALLEST_PRB, 13, MCS, dmrs_re=18), 0.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        at_middle = error_probability(bits, SMALLEST_PRB * FULL_UL_RE, 10 ** (middle / 10))
        low, high = (middle, high) if at_middle > error else (low, middle)
    return high


def frames_of(bed, until, step=400):
    """{(flow, sequence): four times} of all exchanges up to an NR slot."""
    seen = {}
    while bed.nr_slot < until:
        bed.advance(min(until, bed.nr_slot + step))
        f = bed.take_frames()
        rows = np.stack((f.flow, f.sequence, f.ue_sent, f.edge_received, f.edge_sent, f.ue_received), axis=1)
        seen.update({(flow, k): times for flow, k, *times in rows.tolist()})
    return seen


def assert_conserved(bed):
    for c in (*bed.counters(), *bed.rlc_counters()):
        assert c.offered == c.delivered + c.queued + c.dropped, c


# -- the law -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "n", "seconds"), [(1e-2, 1, 60), (1e-3, 1, 100), (1e-4, 8, 150)])
def test_as_many_blocks_are_lost_as_the_law_says_and_no_more_than_the_decoding_error(error, n, seconds):
    """On a constant channel on which most UL blocks are as large as the decoding error lets them be."""
    bed = cell(error, n=n, snr_db=snr_of(0.95 * error), options={**TELEGRAM, "period_ms": 50.0})
    bed.advance(seconds * SECOND)
    uplinks = [c for c in bed.short_packet_counters() if c.direction == "ul"]
    blocks, lost, expected = (sum(getattr(c, k) for c in uplinks) for k in ("blocks", "lost", "probability"))
    assert 0.5 * error * blocks < expected <= error * blocks
    assert expected > 15
    # Four standard deviations of the binomial distribution.
    assert abs(lost - expected) < 4 * math.sqrt(expected)


def test_both_directions_follow_the_law():
    # With fading the blocks are of all probabilities, and more are lost than the decoding error has it.
    bed = cell(0.05, n=8, snr_db=10.0, sd_db=2.0)
    bed.advance(30 * SECOND)
    for direction in ("ul", "dl"):
        counters = [c for c in bed.short_packet_counters() if c.direction == direction]
        lost, expected = sum(c.lost for c in counters), sum(c.probability for c in counters)
        assert expected > 300 and abs(lost - expected) < 4 * math.sqrt(expected)
        assert all(c.lost > 0 for c in counters)


def test_the_margin_makes_up_for_an_snr_that_ages():
    losses = []
    for margin in (0.0, 0.5):
        spec = CellSpec(short_packet_margin_db=margin)
        bed = cell(0.01, n=4, sd_db=0.8, cell=spec)
        bed.advance(30 * SECOND)
        c = bed.short_packet_counters()
        losses.append(sum(x.probability for x in c) / sum(x.blocks for x in c))
    assert losses[1] < losses[0] / 5


@pytest.mark.parametrize("snr_db", [-4.0, 3.3, 9.1, 16.5, 24.0])
@pytest.mark.parametrize(("size", "margin"), [(20, 0.0), (700, 0.5), (5000, 2.0)])
def test_the_grant_is_the_highest_mcs_within_the_error_in_the_fewest_prb(snr_db, size, margin):
    error = 1e-5
    spec = CellSpec(short_packet_margin_db=margin, min_grant_prb=2)
    options = {"size_bytes": size, "answer_bytes": size, "period_ms": 500.0}
    bed = cell(error, snr_db=snr_db, cell=spec, options=options)
    bed.advance(SECOND // 2)
    s, c = bed._state, bed._cell
    granted = [s.harq[16 + pid] for pid in range(16) if s.harq[16 + pid]["tbs"] > 0]
    assert granted
    snr = 10 ** ((snr_db - margin) / 10)
    datagrams = math.ceil(size / c["udp_payload"])
    need = size + datagrams * (c["udp_header"] + c["l2_header"]) + c["mac_header"]
    for h in granted:
        tbs, uses = s.tbs[h["shape"]], int(s.channel_uses[h["shape"]])

        def best(prb, tbs=tbs, uses=uses):
            within = [m for m in range(29) if error_probability(8 * tbs[m, prb], prb * uses, snr) <= error]
            return max(within, default=0)

        assert h["law"] == SHORT_PACKET_LAW and h["mcs"] == best(h["prb"])
        assert h["tbs"] == tbs[h["mcs"], h["prb"]]
        if h["tbs"] >= need:
            assert all(tbs[best(prb), prb] < need for prb in range(2, h["prb"]))
        else:
            # The rest of a message may come next, in fewer.
            assert h["prb"] == 106 or len(granted) > 1


def test_where_no_mcs_is_good_enough_the_lowest_is_sent_and_lost():
    bed = cell(1e-5, snr_db=-12.0)
    bed.advance(SECOND)
    sent = [h for h in bed._state.harq if h["tbs"] > 0]
    assert sent and {int(h["mcs"]) for h in sent} == {0}
    up, down = bed.short_packet_counters()
    assert up.lost == up.blocks > 100 and up.probability == pytest.approx(up.blocks, rel=1e-3)
    assert down.blocks == 0
    assert bed.counters()[0].delivered == 0
    assert_conserved(bed)


# -- sent once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["am", "um"])
def test_a_lost_block_is_sent_once_and_nothing_waits_for_it(mode):
    frames, beds = [], []
    for snr_db in (9.85, 30.0):
        bed = cell(0.4, snr_db=snr_db, rlc=RlcSpec(mode=mode))
        frames.append(frames_of(bed, 20 * SECOND))
        beds.append(bed)
    up, down = beds[0].short_packet_counters()
    harq = beds[0].harq_counters()
    assert up.lost > 20 and down.lost > 20
    assert all(h.retransmissions == h.failed == 0 for h in harq)
    assert [h.new for h in harq] == [up.blocks, down.blocks]
    for c in beds[0].counters():
        assert 0 < c.dropped < c.offered and c.dropped % 100 == 0
    assert_conserved(beds[0])
    # What is behind a loss takes no longer than where nothing is lost.
    slowest = [[max(t[b] - t[a] for t in f.values() if t[b]) for a, b in ((0, 1), (2, 3))] for f in frames]
    assert all(lossy <= 1.5 * clear for lossy, clear in zip(*slowest, strict=True))
    not_back = [t for t in frames[0].values() if not t[3]]
    assert len(not_back) == sum(c.dropped + c.queued for c in beds[0].counters()) / 100


@pytest.mark.parametrize("mode", ["am", "um"])
def test_a_lost_block_takes_every_datagram_with_it_of_which_it_had_a_part(mode):
    options = {"size_bytes": 9000, "answer_bytes": 100, "period_ms": 40.0}
    bed = cell(0.3, snr_db=9.85, options=options, rlc=RlcSpec(mode=mode))
    frames = frames_of(bed, 20 * SECOND)
    assert 0 < sum(not t[1] for t in frames.values()) < len(frames)
    assert 0 < bed.counters()[0].dropped < bed.counters()[0].offered
    assert_conserved(bed)
    assert not any(bed.health().__getattribute__(k) for k in bed.health().__dataclass_fields__)


# -- other flows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["am", "um"])
def test_other_flows_keep_the_links_law_with_harq_on_another_ue_and_on_the_same(mode):
    ordinary = [UserSpec(f"o-{i}", f"ue-{i}", transport="udp", options={"period_ms": 7.0}) for i in (0, 1)]
    short = UserSpec("u-0", "ue-0", transport="udp", decoding_error=0.3, options=TELEGRAM)
    ues = [UeSpec(f"ue-{i}", i + 1, "s", ChannelProcess(9.85, 9.85, 0.3)) for i in (0, 1)]
    spec = TestbedSpec(
        ues,
        [],
        cell=IMMEDIATE,
        rlc=RlcSpec(mode=mode),
        path=PROMPT,
        edge=STEADY,
        applications=[ApplicationSpec("periodic", (short, *ordinary))],
    )
    bed = EmulatedTestbed(spec, seed=3)
    bed.advance(20 * SECOND)
    assert_conserved(bed)
    of_short, of_ordinary = bed.short_packet_counters()[:2], bed.short_packet_counters()[2:]
    assert all(c.lost > 0 for c in of_short) and all(c.blocks == 0 for c in of_ordinary)
    harq = bed.harq_counters()
    assert all(h.retransmissions > 0 for h in harq)
    lost, *kept = [c.dropped for c in bed.counters() if c.direction == "ul"]
    assert lost > 0 and kept == [0, 0]
    # The radio has lost nothing but datagrams of the one flow, 28 bytes of headers with each.
    dropped = bed.rlc_counters()[0].dropped
    assert dropped == lost // 100 * 128


def test_an_external_stream_beside_short_packets_loses_no_byte():
    stream = FlowSpec("stream", "ue-0", (), kind="external")
    bed = cell(0.3, snr_db=9.85, others=[stream])
    taken = {"ul": 0, "dl": 0}
    for _ in range(2000):
        for direction in taken:
            taken[direction] += bed.send(0, direction, 3000)
        bed.advance(bed.nr_slot + 7)
    bed.advance(bed.nr_slot + SECOND)
    assert bed.short_packet_counters()[0].lost > 0
    for direction, size in taken.items():
        assert bed.delivered(0, direction) == size > 1_000_000 and bed.dropped(0, direction) == 0
    assert_conserved(bed)


def test_short_packets_do_not_move_the_bler_loop():
    bed = cell(0.4, snr_db=9.85)
    bed.advance(20 * SECOND)
    assert sum(c.lost for c in bed.short_packet_counters()) > 100
    assert bed._state.rlc["bler"].tolist() == [0.0, 0.0]
    assert bed._state.rlc["mcs"].tolist() == [9, 9]


def test_flows_of_other_decoding_errors_do_not_share_a_block():
    users = [
        UserSpec(f"u-{k}", "ue-0", transport="udp", decoding_error=e, options={**TELEGRAM, "size_bytes": 900})
        for k, e in enumerate((0.4, 1e-6))
    ]
    spec = TestbedSpec(
        [UeSpec("ue-0", 1, "s", ChannelProcess(9.85, 9.85, 0.0))],
        [],
        cell=IMMEDIATE,
        path=PROMPT,
        edge=STEADY,
        applications=[ApplicationSpec("periodic", users)],
    )
    bed = EmulatedTestbed(spec, seed=3)
    bed.advance(20 * SECOND)
    dropped = {(c.name, c.direction): c.dropped for c in bed.counters()}
    assert dropped["u-0", "dl"] > 0 and dropped["u-1", "dl"] == 0


# -- the run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["am", "um"])
def test_one_advance_equals_a_thousand(mode):
    results = []
    for steps in (1, 1000):
        bed = cell(
            0.2,
            n=2,
            snr_db=9.85,
            sd_db=1.0,
            others=[FlowSpec("camera", "ue-0")],
            rlc=RlcSpec(mode=mode),
        )
        for k in range(1, steps + 1):
            bed.advance(2 * SECOND * k // steps)
        f = bed.take_frames()
        frames = np.stack((f.flow, f.sequence, f.ue_sent, f.edge_received, f.edge_sent, f.ue_received))
        accounts = bed.counters(), bed.rlc_counters(), bed.harq_counters(), bed.short_packet_counters()
        results.append((frames.tolist(), *accounts))
    assert results[0] == results[1]
    assert bed.short_packet_counters()[0].lost > 0


def test_a_cell_without_such_flows_knows_no_such_block():
    bed = cell(0.0, others=[FlowSpec("camera", "ue-0")])
    bed.advance(2 * SECOND)
    assert {c.blocks for c in bed.short_packet_counters()} == {0}
    assert {int(h["law"]) for h in bed._state.harq} == {LINK_LAW}
    assert any(h.retransmissions for h in bed.harq_counters())


@pytest.mark.parametrize("error", [-0.1, 0.51, math.nan])
def test_a_decoding_error_that_cannot_be_is_refused_by_name(error):
    with pytest.raises(ValueError, match=r"flow 'f': decoding_error .* is outside \[0, 0.5\]"):
        UserSpec("f", "ue-0", decoding_error=error)


@pytest.mark.parametrize("margin", [-1.0, 31.0, math.nan])
def test_a_margin_that_cannot_be_is_refused_by_name(margin):
    with pytest.raises(ValueError, match=r"cell\.short_packet_margin_db"):
        CellSpec(short_packet_margin_db=margin)
