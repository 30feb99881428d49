"""5G NR numerology, MCS tables, transport block sizes and TDD shares.

Sources: TS 38.211 clause 4.3.2 (frames and NR slots), TS 38.214 clause 5.1.3.1 (MCS tables) and clause
5.1.3.2 (transport block size). Directions are ``"ul"`` and ``"dl"``.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from math import ceil, floor
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_PRB: Final = 275
"""PRBs of a carrier at most (TS 38.331: maxNrofPhysicalResourceBlocks)."""
SMALLEST_GRANT_PRB: Final = 5
"""Of OAI's scheduler, in both directions."""
N_SC_PER_RB: Final = 12
"""Subcarriers of a PRB (TS 38.211 clause 4.4.4.1)."""
SYMBOLS_PER_SLOT: Final = 14
"""OFDM symbols of an NR slot, normal cyclic prefix (TS 38.211 Table 4.3.2-1)."""
FRAME_MS: Final = 10
"""Length of a radio frame in ms."""
SLOTS_PER_FRAME: Final = 20
"""NR slots of a radio frame at 30 kHz SCS."""
SLOT_NS: Final = 500_000
"""Length of an NR slot at 30 kHz SCS, in ns."""

_MU = {15: 0, 30: 1, 60: 2, 120: 3}


def numerology(scs_khz: int) -> int:
    """The numerology mu of a subcarrier spacing in kHz (TS 38.211 Table 4.2-1), 0..3.

    ValueError for a spacing that is none of 15, 30, 60 and 120 kHz.
    """
    try:
        return _MU[scs_khz]
    except (KeyError, TypeError):
        raise ValueError(f"subcarrier spacing of {scs_khz!r} kHz is none of {list(_MU)}") from None


def slots_per_frame(scs_khz: int) -> int:
    """NR slots of a radio frame.

    >>> slots_per_frame(30)
    20
    """
    return FRAME_MS << numerology(scs_khz)


def slot_ns(scs_khz: int) -> int:
    """Length of an NR slot in ns.

    >>> slot_ns(30)
    500000
    """
    return 1_000_000 >> numerology(scs_khz)


def symbols_per_ms(scs_khz: int) -> int:
    """OFDM symbols of a millisecond.

    >>> symbols_per_ms(30)
    28
    """
    return SYMBOLS_PER_SLOT << numerology(scs_khz)


# (Qm, R x 1024) by MCS index.
_MCS: Final[dict[int, tuple[tuple[int, float], ...]]] = {
    # TS 38.214 Table 5.1.3.1-1, up to 64QAM
    1: (
        *((2, r) for r in (120, 157, 193, 251, 308, 379, 449, 526, 602, 679)),
        *((4, r) for r in (340, 378, 434, 490, 553, 616, 658)),
        *((6, r) for r in (438, 466, 517, 567, 616, 666, 719, 772, 822, 873, 910, 948)),
    ),
    # TS 38.214 Table 5.1.3.1-2, up to 256QAM
    2: (
        *((2, r) for r in (120, 193, 308, 449, 602)),
        *((4, r) for r in (378, 434, 490, 553, 616, 658)),
        *((6, r) for r in (466, 517, 567, 616, 666, 719, 772, 822, 873)),
        *((8, r) for r in (682.5, 711, 754, 797, 841, 885, 916.5, 948)),
    ),
    # TS 38.214 Table 5.1.3.1-3, low spectral efficiency
    3: (
        *((2, r) for r in (30, 40, 50, 64, 78, 99, 120, 157, 193, 251, 308, 379, 449, 526, 602)),
        *((4, r) for r in (340, 378, 434, 490, 553, 616)),
        *((6, r) for r in (438, 466, 517, 567, 616, 666, 719, 772)),
    ),
}

MCS_TABLES: Final[tuple[int, ...]] = tuple(_MCS)
"""The MCS tables: 1, 2 and 3 for TS 38.214 Tables 5.1.3.1-1, -2 and -3."""
MAX_MCS: Final = len(_MCS[1]) - 1
"""The highest MCS index of Table 5.1.3.1-1 that carries a code rate."""


def max_mcs(table: int = 1) -> int:
    """The highest MCS index that carries a code rate: 28, 27 and 28 in tables 1, 2 and 3."""
    return len(_rows(table)) - 1


def _rows(table: int) -> tuple[tuple[int, float], ...]:
    try:
        return _MCS[table]
    except (KeyError, TypeError):
        raise ValueError(f"MCS table {table!r} is none of {list(_MCS)}") from None


def _row(mcs: int, table: int) -> tuple[int, float]:
    rows = _rows(table)
    if not 0 <= mcs < len(rows):
        raise ValueError(f"MCS {mcs!r} is outside 0..{len(rows) - 1} of MCS table {table}")
    return rows[mcs]


def modulation_order(mcs: int, table: int = 1) -> int:
    """Bits of a modulation symbol, Qm (TS 38.214 clause 5.1.3.1).

    ValueError for an impossible MCS or table.
    """
    return _row(mcs, table)[0]


def code_rate(mcs: int, table: int = 1) -> float:
    """Target code rate R, 0..1 (TS 38.214 clause 5.1.3.1).

    ValueError for an impossible MCS or table.
    """
    return _row(mcs, table)[1] / 1024


def spectral_efficiency(mcs: int, table: int = 1) -> float:
    """Information bits of a resource element and layer, Qm R (TS 38.214 clause 5.1.3.1).

    >>> round(spectral_efficiency(28), 4)
    5.5547
    """
    order, rate = _row(mcs, table)
    return order * rate / 1024


CQI_EFFICIENCY: Final[tuple[float, ...]] = (
    *(0.0, 0.1523, 0.2344, 0.3770, 0.6016, 0.8770, 1.1758, 1.4766),
    *(1.9141, 2.4063, 2.7305, 3.3223, 3.9023, 4.5234, 5.1152, 5.5547),
)
"""Information bits of a resource element by CQI, 64QAM (TS 38.214 Table 5.2.2.1-2); 0: out of range."""


@cache
def mcs_of_cqi(cqi: int) -> int:
    """The highest MCS of table 1 with no more bits than a CQI says; 0 for CQI 0. ValueError outside 0..15.

    >>> mcs_of_cqi(15)
    28
    """
    if not 0 <= cqi < len(CQI_EFFICIENCY):
        raise ValueError(f"CQI {cqi} is outside 0..{len(CQI_EFFICIENCY) - 1}")
    limit = CQI_EFFICIENCY[cqi] + 1e-4
    return max((m for m in range(max_mcs(1) + 1) if spectral_efficiency(m) <= limit), default=0)


TBS_SMALL: Final[tuple[int, ...]] = (
    *range(24, 193, 8),
    *range(208, 385, 16),
    *range(408, 577, 24),
    *range(608, 769, 32),
    *(808, 848, 888, 928, 984, 1032, 1064, 1128, 1160, 1192, 1224, 1256, 1288, 1320, 1352),
    *range(1416, 1929, 64),
    *(2024, 2088, 2152, 2216, 2280, 2408, 2472, 2536, 2600, 2664, 2728, 2792, 2856),
    *(2976, 3104, 3240, 3368, 3496, 3624, 3752, 3824),
)
"""Transport block sizes of at most 3824 bits (TS 38.214 Table 5.1.3.2-1), ascending."""

_MAX_RE_PER_PRB = 156


def tbs_bits(
    n_prb: int,
    n_symbols: int,
    mcs: int,
    *,
    table: int = 1,
    layers: int = 1,
    dmrs_re: int = 12,
    overhead_re: int = 0,
) -> int:
    """Transport block size in bits (TS 38.214 clause 5.1.3.2, and 6.1.4.2 for PUSCH).

    ``n_symbols`` are the symbols of the grant, ``dmrs_re`` the resource elements of DM-RS in a PRB and
    ``overhead_re`` is xOverhead. 0 where no resource element is left for data. ValueError for an
    impossible MCS, table, number of layers, PRBs or symbols.

    OAI spends 6 resource elements on each DM-RS symbol: in DL 12 at 13 symbols, 6 at 5 and 3 symbols; in UL
    18 at 13 symbols, 12 at 5, 6 at 3. With these the sizes equal the ones measured on its scheduler.

    >>> tbs_bits(106, 13, 28) // 8
    10497
    """
    order, rate = _row(mcs, table)
    if not 1 <= layers <= 4:
        raise ValueError(f"{layers!r} layers is outside 1..4")
    if n_prb < 0:
        raise ValueError(f"{n_prb!r} PRB is negative")
    if not 0 <= n_symbols <= SYMBOLS_PER_SLOT:
        raise ValueError(f"{n_symbols!r} symbols is outside 0..{SYMBOLS_PER_SLOT} of an NR slot")
    re_per_prb = min(_MAX_RE_PER_PRB, N_SC_PER_RB * n_symbols - dmrs_re - overhead_re)
    if re_per_prb <= 0 or n_prb == 0:
        return 0
    # Exact in float64: every rate is a multiple of 1/2048.
    info = re_per_prb * n_prb * order * layers * rate / 1024
    if info <= 3824:
        step = 1 << max(3, int(info).bit_length() - 7)
        return TBS_SMALL[bisect_left(TBS_SMALL, max(24, step * floor(info / step)))]
    step = 1 << (int(info - 24).bit_length() - 6)
    with_crc = max(3840, step * floor((info - 24) / step + 0.5)) + 24
    if rate <= 256:
        blocks = ceil(with_crc / 3816)
    elif with_crc > 8424 + 24:
        blocks = ceil(with_crc / 8424)
    else:
        blocks = 1
    return 8 * blocks * ceil(with_crc / (8 * blocks)) - 24


def tbs_table(
    n_symbols: int, max_prb: int, *, table: int = 1, layers: int = 1, dmrs_re: int = 12
) -> NDArray[np.int64]:
    """:func:`tbs_bits` of every MCS and allocation: int64 [n_mcs, max_prb + 1], bits."""
    return np.array(
        [
            [
                tbs_bits(n, n_symbols, mcs, table=table, layers=layers, dmrs_re=dmrs_re)
                for n in range(max_prb + 1)
            ]
            for mcs in range(max_mcs(table) + 1)
        ],
        np.int64,
    )


@dataclass(frozen=True, slots=True)
class TddPattern:
    """TDD-UL-DL-Pattern (TS 38.331): DL NR slots, one mixed NR slot, then UL NR slots.

    The mixed slot begins with ``dl_symbols`` and ends with ``ul_symbols``; the rest is the guard.
    ValueError for negative counts and for a mixed slot of more than 14 symbols.
    """

    name: str
    dl_slots: int
    dl_symbols: int
    ul_symbols: int
    ul_slots: int

    def __post_init__(self) -> None:
        if min(self.dl_slots, self.dl_symbols, self.ul_symbols, self.ul_slots) < 0:
            raise ValueError(f"TDD pattern {self.name!r} has a negative count")
        if self.dl_symbols + self.ul_symbols > SYMBOLS_PER_SLOT:
            raise ValueError(
                f"TDD pattern {self.name!r}: {self.dl_symbols} DL and {self.ul_symbols} UL symbols "
                f"do not fit into the {SYMBOLS_PER_SLOT} of the mixed slot"
            )

    @property
    def period_slots(self) -> int:
        """NR slots of a period."""
        return self.dl_slots + 1 + self.ul_slots

    def dl_symbols_in(self, slot: int) -> int:
        """DL symbols of an NR slot; ``slot`` counts from the start of any period."""
        at = slot % self.period_slots
        if at < self.dl_slots:
            return SYMBOLS_PER_SLOT
        return self.dl_symbols if at == self.dl_slots else 0

    def ul_symbols_in(self, slot: int) -> int:
        """UL symbols of an NR slot; ``slot`` counts from the start of any period."""
        at = slot % self.period_slots
        if at > self.dl_slots:
            return SYMBOLS_PER_SLOT
        return self.ul_symbols if at == self.dl_slots else 0

    def share(self, direction: str, *, guard: bool) -> float:
        """The part of the symbols that a direction has, 0..1.

        ``guard=True`` counts symbols of 14. ``guard=False`` leaves the guard out of the mixed slot, as the
        authors of MUCB1 do: DSUUU has (3 + 6/10)/5 in UL and (1 + 4/10)/5 in DL. ValueError for a direction
        that is neither ``"ul"`` nor ``"dl"``.

        >>> round(TDD_PATTERNS["DSUUU"].share("ul", guard=False), 3)
        0.72
        >>> round(TDD_PATTERNS["DSUUU"].share("ul", guard=True), 3)
        0.686
        """
        if direction == "ul":
            slots, symbols = self.ul_slots, self.ul_symbols
        elif direction == "dl":
            slots, symbols = self.dl_slots, self.dl_symbols
        else:
            raise ValueError(f"direction {direction!r} is neither 'ul' nor 'dl'")
        mixed = SYMBOLS_PER_SLOT if guard else self.dl_symbols + self.ul_symbols
        return (slots + (symbols / mixed if mixed else 0.0)) / self.period_slots


TDD_PATTERNS: Final[dict[str, TddPattern]] = {
    p.name: p
    for p in (
        TddPattern("DSUUU", 1, 4, 6, 3),
        TddPattern("DDSUU", 2, 6, 4, 2),
        TddPattern("DDDDDDDSUU", 7, 6, 4, 2),
    )
}
"""The patterns of the paper's Table III, by name."""
