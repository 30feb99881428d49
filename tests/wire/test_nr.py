"""NR numerology, MCS tables, transport block sizes and TDD shares."""

from __future__ import annotations

import csv
import doctest
import gzip
import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from wire.definitions import nr

OAI = Path(__file__).parents[3] / "shared" / "data" / "oai-rfsim"

# The spectral efficiency column of TS 38.214 Tables 5.1.3.1-1 to -3.
SE = {
    1: "0.2344 0.3066 0.3770 0.4902 0.6016 0.7402 0.8770 1.0273 1.1758 1.3262 1.3281 1.4766 1.6953 1.9141 "
    "2.1602 2.4063 2.5703 2.5664 2.7305 3.0293 3.3223 3.6094 3.9023 4.2129 4.5234 4.8164 5.1152 5.3320 "
    "5.5547",
    2: "0.2344 0.3770 0.6016 0.8770 1.1758 1.4766 1.6953 1.9141 2.1602 2.4063 2.5703 2.7305 3.0293 3.3223 "
    "3.6094 3.9023 4.2129 4.5234 4.8164 5.1152 5.3320 5.5547 5.8906 6.2266 6.5703 6.9141 7.1602 7.4063",
    3: "0.0586 0.0781 0.0977 0.1250 0.1523 0.1934 0.2344 0.3066 0.3770 0.4902 0.6016 0.7402 0.8770 1.0273 "
    "1.1758 1.3281 1.4766 1.6953 1.9141 2.1602 2.4063 2.5664 2.7305 3.0293 3.3223 3.6094 3.9023 4.2129 "
    "4.5234",
}


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(nr).failed == 0


@pytest.mark.parametrize(
    ("scs", "slots", "ns", "symbols"),
    [(15, 10, 1_000_000, 14), (30, 20, 500_000, 28), (60, 40, 250_000, 56), (120, 80, 125_000, 112)],
)
def test_numerology(scs: int, slots: int, ns: int, symbols: int) -> None:
    assert (nr.slots_per_frame(scs), nr.slot_ns(scs), nr.symbols_per_ms(scs)) == (slots, ns, symbols)
    assert nr.slots_per_frame(scs) * nr.slot_ns(scs) == 10_000_000


def test_constants_are_those_of_30_khz() -> None:
    assert nr.slots_per_frame(30) == nr.SLOTS_PER_FRAME
    assert nr.slot_ns(30) == nr.SLOT_NS


def test_unknown_spacing_is_named() -> None:
    with pytest.raises(ValueError, match="45"):
        nr.slot_ns(45)


@pytest.mark.parametrize("table", [1, 2, 3])
def test_spectral_efficiencies_are_those_of_the_standard(table: int) -> None:
    column = [float(x) for x in SE[table].split()]
    assert nr.max_mcs(table) == len(column) - 1
    # The standard prints four digits, a tie in the fifth rounded up.
    assert [nr.spectral_efficiency(m, table) for m in range(len(column))] == pytest.approx(column, abs=5.1e-5)


def test_orders_and_rates() -> None:
    assert [nr.modulation_order(m) for m in (0, 9, 10, 16, 17, 28)] == [2, 2, 4, 4, 6, 6]
    assert [nr.modulation_order(m, 2) for m in (4, 5, 10, 11, 19, 20, 27)] == [2, 4, 4, 6, 6, 8, 8]
    assert [nr.modulation_order(m, 3) for m in (14, 15, 20, 21, 28)] == [2, 4, 4, 6, 6]
    assert nr.code_rate(7) == 526 / 1024
    assert nr.code_rate(20, 2) == 682.5 / 1024
    assert nr.MAX_MCS == 28


@pytest.mark.parametrize(
    ("mcs", "table", "named"), [(29, 1, "29"), (-1, 1, "-1"), (28, 2, "28"), (3, 4, "4")]
)
def test_impossible_mcs_or_table_is_named(mcs: int, table: int, named: str) -> None:
    for call in (nr.modulation_order, nr.code_rate, nr.spectral_efficiency):
        with pytest.raises(ValueError, match=named):
            call(mcs, table)
    with pytest.raises(ValueError, match=named):
        nr.tbs_bits(10, 13, mcs, table=table)


def test_small_sizes_are_the_93_of_the_standard() -> None:
    sizes = nr.TBS_SMALL
    assert (len(sizes), sizes[0], sizes[-1]) == (93, 24, 3824)
    assert all(a < b for a, b in pairwise(sizes))
    assert all(s % 8 == 0 for s in sizes)
    # The heads of the standard's columns, numbered from 1.
    assert {k: sizes[k - 1] for k in (1, 31, 61, 91)} == {1: 24, 31: 336, 61: 1288, 91: 3624}


@pytest.mark.parametrize(
    ("n_prb", "mcs", "payload"),
    [
        # TS 38.104 Table A.1-1 (QPSK, R = 1/3): G-FR1-A1-1, -2, -4, -5, -6
        (25, 4, 2152),
        (11, 4, 984),
        (106, 4, 9224),
        (51, 4, 4352),
        (24, 4, 2088),
        # TS 38.104 Table A.2-1 (16QAM, R = 2/3): G-FR1-A2-1, -2, -4, -5, -6
        (25, 16, 9224),
        (11, 16, 4032),
        (106, 16, 38936),
        (51, 16, 18960),
        (24, 16, 8968),
    ],
)
def test_payloads_of_the_reference_channels(n_prb: int, mcs: int, payload: int) -> None:
    assert nr.tbs_bits(n_prb, 14, mcs, dmrs_re=24) == payload


def _by_the_letter(n_prb: int, n_symbols: int, mcs: int, table: int, layers: int, dmrs: int, oh: int) -> int:
    """TS 38.214 clause 5.1.3.2, steps 1 to 4, in exact arithmetic."""
    rate = Fraction(nr.code_rate(mcs, table))
    n_re = min(156, 12 * n_symbols - dmrs - oh) * n_prb
    info = n_re * rate * nr.modulation_order(mcs, table) * layers
    if info <= 3824:
        n = max(3, math.floor(math.log2(info)) - 6)
        quantised = max(24, 2**n * math.floor(info / 2**n))
        return next(s for s in nr.TBS_SMALL if s >= quantised)
    n = math.floor(math.log2(info - 24)) - 5
    quantised = max(3840, 2**n * math.floor((info - 24) / 2**n + Fraction(1, 2)))
    if rate <= Fraction(1, 4):
        c = math.ceil(Fraction(quantised + 24, 3816))
    elif quantised > 8424:
        c = math.ceil(Fraction(quantised + 24, 8424))
    else:
        return 8 * math.ceil(Fraction(quantised + 24, 8)) - 24
    return 8 * c * math.ceil(Fraction(quantised + 24, 8 * c)) - 24


def test_every_branch_follows_the_standard() -> None:
    rng = np.random.default_rng(7)
    branches: Counter[str] = Counter()
    for _ in range(4000):
        table = int(rng.integers(1, 4))
        mcs = int(rng.integers(0, nr.max_mcs(table) + 1))
        n_prb, n_symbols = int(rng.integers(1, 274)), int(rng.integers(3, 15))
        layers, dmrs, oh = int(rng.integers(1, 5)), int(rng.choice([6, 12, 18])), int(rng.choice([0, 6]))
        got = nr.tbs_bits(n_prb, n_symbols, mcs, table=table, layers=layers, dmrs_re=dmrs, overhead_re=oh)
        assert got == _by_the_letter(n_prb, n_symbols, mcs, table, layers, dmrs, oh)
        low = nr.code_rate(mcs, table) <= 0.25
        branches["small" if got <= 3824 else "low rate" if low else "segmented" if got > 8424 else "one"] += 1
    assert min(branches[b] for b in ("small", "low rate", "segmented", "one")) > 100


def test_re_of_a_prb_are_capped_at_156() -> None:
    assert nr.tbs_bits(50, 14, 20, dmrs_re=0) == nr.tbs_bits(50, 14, 20, dmrs_re=12)
    assert nr.tbs_bits(50, 14, 20, dmrs_re=12) > nr.tbs_bits(50, 14, 20, dmrs_re=24)


def test_nothing_fits_where_no_re_is_left() -> None:
    assert nr.tbs_bits(0, 13, 28) == 0
    assert nr.tbs_bits(10, 1, 28, dmrs_re=12) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((-1, 13, 0), "-1 PRB"), ((1, 15, 0), "15 symbols"), ((1, -1, 0), "-1 symbols")],
)
def test_impossible_grants_are_refused(arguments: tuple[int, int, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        nr.tbs_bits(*arguments)
    with pytest.raises(ValueError, match="0 layers"):
        nr.tbs_bits(1, 13, 0, layers=0)


def test_table_holds_every_mcs_and_allocation() -> None:
    table = nr.tbs_table(13, 106, dmrs_re=18)
    assert table.shape == (29, 107)
    assert table.dtype == np.int64
    assert (table[:, 0] == 0).all()
    assert (np.diff(table, axis=1) >= 0).all()
    assert table[28, 5] == nr.tbs_bits(5, 13, 28, dmrs_re=18) == 3840
    assert nr.tbs_table(13, 3, table=2, layers=2).tolist()[27][3] == nr.tbs_bits(3, 13, 27, table=2, layers=2)


# Resource elements of DM-RS by direction and data symbols, and the symbols of the mixed slot's grants.
DMRS_RE = {("UL", 13): 18, ("UL", 5): 12, ("UL", 3): 6, ("DL", 13): 12, ("DL", 5): 6, ("DL", 3): 6}
MIXED = {("DSUUU", "DL"): 3, ("DSUUU", "UL"): 5, ("DDDDDDDMUU", "DL"): 5, ("DDDDDDDMUU", "UL"): 3}


@pytest.mark.skipif(not OAI.is_dir(), reason="../shared/data/oai-rfsim is not there")
def test_grants_measured_on_the_real_scheduler() -> None:
    seen = set()
    with gzip.open(OAI / "slots.csv.gz", "rt") as f:
        for row in csv.DictReader(f):
            grants, cap = int(row["grants_new"]), int(row["cap_prb"])
            same = grants and int(row["prb_new_sum"]) == grants * cap
            if row["noise_power_db"] != "-60.0" or cap != 5 or not same:
                continue
            symbols = int(row["data_symbols"])
            bits = nr.tbs_bits(cap, symbols, 28, dmrs_re=DMRS_RE[row["dir"], symbols])
            assert int(row["tbs_bytes_granted"]) * 8 == grants * bits
            seen.add((row["dir"], symbols, bits // 8))
    assert {("UL", 13, 480), ("UL", 5, 169), ("DL", 13, 496), ("DL", 3, 106)} <= seen


@pytest.mark.skipif(not OAI.is_dir(), reason="../shared/data/oai-rfsim is not there")
def test_bytes_granted_in_ten_frames_on_the_real_scheduler() -> None:
    checked: Counter[tuple[str, str]] = Counter()
    with gzip.open(OAI / "capacity.csv.gz", "rt") as f:
        for row in csv.DictReader(f):
            grants, cap, mcs = int(row["grants_new"]), int(row["cap_prb"]), int(row["mcs_min"])
            whole = row["prb_grant_max"] == row["prb_grant_min"] == row["cap_prb"]
            if row["phase"] != "hold" or not grants or row["mcs_min"] != row["mcs_max"] or not whole:
                continue
            mixed = MIXED[row["tdd"], row["dir"]]
            full_slot = nr.tbs_bits(cap, 13, mcs, dmrs_re=DMRS_RE[row["dir"], 13]) // 8
            mixed_slot = nr.tbs_bits(cap, mixed, mcs, dmrs_re=DMRS_RE[row["dir"], mixed]) // 8
            rest = int(row["tbs_bytes_granted"]) - grants * mixed_slot
            assert rest % (full_slot - mixed_slot) == 0, row
            assert 0 <= rest // (full_slot - mixed_slot) <= grants, row
            checked[row["tdd"], row["dir"]] += 1
    assert set(checked) == set(MIXED)
    assert min(checked.values()) > 50


def test_tdd_symbols_of_each_slot() -> None:
    dsuuu = nr.TDD_PATTERNS["DSUUU"]
    assert dsuuu.period_slots == 5
    assert [dsuuu.dl_symbols_in(s) for s in range(7)] == [14, 4, 0, 0, 0, 14, 4]
    assert [dsuuu.ul_symbols_in(s) for s in range(7)] == [0, 6, 14, 14, 14, 0, 6]
    long = nr.TDD_PATTERNS["DDDDDDDSUU"]
    assert [long.dl_symbols_in(s) for s in (6, 7, 8, 10)] == [14, 6, 0, 14]
    assert [long.ul_symbols_in(s) for s in (6, 7, 8, 19)] == [0, 4, 14, 14]


@pytest.mark.parametrize(
    ("name", "direction", "authors", "with_guard"),
    [
        ("DSUUU", "ul", 3 / 5 + 0.6 / 5, 48 / 70),
        ("DSUUU", "dl", 1 / 5 + 0.4 / 5, 18 / 70),
        ("DDSUU", "dl", 2.6 / 5, 34 / 70),
        ("DDSUU", "ul", 2.4 / 5, 32 / 70),
        ("DDDDDDDSUU", "dl", 7.6 / 10, 104 / 140),
        ("DDDDDDDSUU", "ul", 2.4 / 10, 32 / 140),
    ],
)
def test_tdd_shares(name: str, direction: str, authors: float, with_guard: float) -> None:
    pattern = nr.TDD_PATTERNS[name]
    assert pattern.name == name
    assert pattern.share(direction, guard=False) == pytest.approx(authors)
    assert pattern.share(direction, guard=True) == pytest.approx(with_guard)


def test_impossible_tdd_patterns_are_refused() -> None:
    with pytest.raises(ValueError, match="'X'"):
        nr.TddPattern("X", 1, 8, 7, 3)
    with pytest.raises(ValueError, match="'Y' has a negative"):
        nr.TddPattern("Y", -1, 4, 6, 3)
    with pytest.raises(ValueError, match="'up'"):
        nr.TDD_PATTERNS["DSUUU"].share("up", guard=True)
    assert nr.TddPattern("DU", 1, 0, 0, 1).share("dl", guard=False) == 1 / 3


def test_a_cqi_gives_the_highest_mcs_that_carries_no_more() -> None:
    """TS 38.214 Tables 5.2.2.1-2 and 5.1.3.1-1: CQI 4 and MCS 4 are 308/1024 with QPSK, CQI 15 and MCS 28 are
    948/1024 with 64QAM."""
    found = [nr.mcs_of_cqi(cqi) for cqi in range(16)]
    assert found == sorted(found)
    assert (found[0], found[1], found[4], found[15]) == (0, 0, 4, 28)
    for cqi in range(2, 16):
        limit = nr.CQI_EFFICIENCY[cqi] + 1e-4
        assert nr.spectral_efficiency(found[cqi]) <= limit
        assert found[cqi] == 28 or nr.spectral_efficiency(found[cqi] + 1) > limit
    for cqi in (-1, 16):
        with pytest.raises(ValueError, match=f"CQI {cqi} is outside 0..15"):
            nr.mcs_of_cqi(cqi)
