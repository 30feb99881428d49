"""QoS of a data bearer in the words of 3GPP: the 5QI, its default priority level, and the S-NSSAI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

MAX_FIVE_QI: Final = 255
MAX_PRIORITY_LEVEL: Final = 127
"""TS 23.501 clause 5.7.3.3: the lowest; 1 is the highest."""
MAX_LCID: Final = 32
"""TS 38.331, maxLC-ID."""
FIRST_DRB_LCID: Final = 4
"""The LCIDs below it are those of SRBs."""
MAX_SST: Final = 255
NO_SD: Final = 0xFFFFFF
"""TS 23.003 clause 28.4.2: the SD of an S-NSSAI that has none."""

_LEVELS = {
    1: 20, 2: 40, 3: 30, 4: 50, 65: 7, 66: 20, 67: 15, 71: 56, 72: 56, 73: 56, 74: 56, 76: 56,
    5: 10, 6: 60, 7: 70, 8: 80, 9: 90, 10: 90, 69: 5, 70: 55, 79: 65, 80: 68,
    82: 19, 83: 22, 84: 24, 85: 21, 86: 18, 87: 25, 88: 25, 89: 25, 90: 25,
}  # fmt: skip
PRIORITY_LEVELS: Final[Mapping[int, int]] = MappingProxyType(_LEVELS)
"""5QI -> default priority level, TS 23.501 Table 5.7.4-1: GBR, non-GBR, delay-critical GBR."""

DEFAULT_FIVE_QI: Final = 9
"""Of a bearer that nothing else is said of."""

_SNSSAI = re.compile(r"([0-9]{1,3})(?:-([0-9a-fA-F]{6}))?")


def snssai_text(sst: int, sd: int) -> str:
    """SST, or SST-SD with the SD as six hexadecimal digits; as the C agent's configuration has it."""
    return str(sst) if sd == NO_SD else f"{sst}-{sd:06x}"


def parse_snssai(text: str) -> tuple[int, int]:
    """SST and SD of :func:`snssai_text`'s text; ValueError for what is none."""
    match = _SNSSAI.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= MAX_SST:
        raise ValueError(
            f"{text!r} is no S-NSSAI: SST (1..{MAX_SST}) or SST-SD, the SD as six hexadecimal digits"
        )
    return int(match[1]), int(match[2], 16) if match[2] else NO_SD
