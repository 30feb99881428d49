"""QoS of a data bearer in the words of 3GPP."""

from __future__ import annotations

import pytest

from wire.definitions import qos


def test_an_snssai_survives_its_text() -> None:
    for snssai in ((1, qos.NO_SD), (255, 0), (128, 0xABCDEF)):
        assert qos.parse_snssai(qos.snssai_text(*snssai)) == snssai


@pytest.mark.parametrize(
    "text", ["", "0", "256", "1-", "1-12345", "1-1234567", "1-00000g", "-1", "1 ", "\u0661"]
)
def test_what_is_no_snssai_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no S-NSSAI"):
        qos.parse_snssai(text)


def test_priority_levels_are_those_of_standardised_5qis() -> None:
    levels = qos.PRIORITY_LEVELS
    assert all(1 <= five_qi <= qos.MAX_FIVE_QI for five_qi in levels)
    assert all(1 <= level <= qos.MAX_PRIORITY_LEVEL for level in levels.values())
    assert (levels[1], levels[9], levels[80], levels[82]) == (20, 90, 68, 19)
    assert qos.DEFAULT_FIVE_QI in levels
