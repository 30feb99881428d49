"""The codec of PTP management messages, against bytes written by hand from IEEE 1588-2008, clause 15."""

from __future__ import annotations

import doctest
import random

import pytest

from agents.ptp import messages
from agents.ptp.messages import (
    BadManagement,
    CurrentDataSet,
    DefaultDataSet,
    Id,
    ManagementError,
    ParentDataSet,
    PortDataSet,
    PortIdentity,
    TimeProperties,
    TimeStatus,
    parse,
    request,
)

CLOCK = bytes.fromhex("7a5253fffe1fd490")
MASTER = bytes.fromhex("860bb4fffe2a41e2")
US = PortIdentity(bytes(8), 0x1234)


def answer(
    id: int, content: str, *, tlv: int = 1, action: int = 2, sequence: int = 7, port: int = 0
) -> bytes:
    """A whole message; ``content`` is the hex of the data field."""
    data = bytes.fromhex(content.replace(" ", ""))
    tlv_bytes = tlv.to_bytes(2, "big") + (2 + len(data)).to_bytes(2, "big") + id.to_bytes(2, "big") + data
    length = 48 + len(tlv_bytes)
    header = (
        "0d 02" + f"{length:04x}" + "00 00 0000" + "00" * 8 + "00" * 4
        + CLOCK.hex() + f"{port:04x}" + f"{sequence:04x}" + "04 7f"
    )  # fmt: skip
    body = "00" * 8 + "1234" + "00 00" + f"{action:02x}" + "00"
    return bytes.fromhex((header + body).replace(" ", "")) + tlv_bytes


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(messages).failed == 0


def test_a_get_is_the_bytes_of_the_standard() -> None:
    got = request(Id.CURRENT_DATA_SET, sequence=0x0A0B, source=US, port=2, domain=24, transport_specific=1)
    assert got.hex(" ") == (
        "1d 02 00 36 18 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"  # header up to messageTypeSpecific
        " 00 00 00 00 00 00 00 00 12 34 0a 0b 04 7f"  # sourcePortIdentity, sequenceId, control, interval
        " ff ff ff ff ff ff ff ff 00 02 00 00 00 00"  # targetPortIdentity, hops, GET
        " 00 01 00 02 20 01"  # TLV MANAGEMENT, length 2, CURRENT_DATA_SET
    )


@pytest.mark.parametrize(
    ("id", "content", "expected"),
    [
        (
            Id.DEFAULT_DATA_SET,
            "03 00 0001 80 ff fe ffff 80 7a5253fffe1fd490 18 00",
            DefaultDataSet(True, True, 1, 255, CLOCK, 24),
        ),
        # -1178.5 ns and 2230.25 ns in units of 2^-16 ns
        (
            Id.CURRENT_DATA_SET,
            "0001 fffffffffb658000 0000000008b64000",
            CurrentDataSet(1, -1178.5, 2230.25),
        ),
        (
            Id.PARENT_DATA_SET,
            "860bb4fffe2a41e2 0001 00 00 ffff 7fffffff 0a f8 fe ffff 80 860bb4fffe2a41e2",
            ParentDataSet(PortIdentity(MASTER, 1), MASTER, 248),
        ),
        (Id.TIME_PROPERTIES_DATA_SET, "0025 1c 20", TimeProperties(37, True, True, True, 0x20)),
        (Id.TIME_PROPERTIES_DATA_SET, "fffe 00 a0", TimeProperties(-2, False, False, False, 0xA0)),
        (
            Id.PORT_DATA_SET,
            "7a5253fffe1fd490 0001 09 00 0000000000000000 01 03 fe 01 00 02",
            PortDataSet(PortIdentity(CLOCK, 1), "SLAVE", -2),
        ),
        (
            Id.TIME_STATUS_NP,
            "fffffffffffffb66 18ea4ac2b4c4c0d1 00000000 00000000 0000 0000 0000000000000000 0000"
            " 00000001 860bb4fffe2a41e2",
            TimeStatus(-1178, 0x18EA4AC2B4C4C0D1, True, MASTER),
        ),
    ],
)
def test_each_data_set_is_read_from_its_bytes(id: Id, content: str, expected: object) -> None:
    got = parse(answer(id, content))
    assert got.data == expected
    assert (got.source, got.target, got.sequence) == (PortIdentity(CLOCK, 0), US, 7)
    assert messages.ID_OF[type(expected)] is id


@pytest.mark.parametrize(("code", "name"), [(2, "NO_SUCH_ID"), (6, "NOT_SUPPORTED"), (0x77, "0x0077")])
def test_an_error_status_names_the_error_and_what_it_is_about(code: int, name: str) -> None:
    assert parse(answer(code, "c000 00000000", tlv=2)).data == ManagementError(name, Id.TIME_STATUS_NP)


CURRENT = answer(Id.CURRENT_DATA_SET, "0001" + "00" * 16)


def changed(at: int, value: int) -> bytes:
    data = bytearray(CURRENT)
    data[at] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "0 bytes are too few"),
        (changed(0, 0x0B), "messageType 0xb is not Management"),
        (changed(1, 1), "versionPTP 1 is not 2"),
        (changed(3, 255), "messageLength 255 of 72 bytes"),
        (changed(3, 20), "messageLength 20 of 72 bytes"),
        (changed(46, 0), "actionField 0 is not RESPONSE"),
        (changed(49, 9), "tlvType 0x0009"),
        (changed(51, 1), "lengthField 1 of a TLV at byte 48"),
        (changed(51, 200), "lengthField 200 of a TLV at byte 48"),
        (changed(51, 19), "CURRENT_DATA_SET has 17 bytes instead of 18"),
        (changed(53, 0x7F), "managementId 0x207f is not known here"),
        (answer(Id.PORT_DATA_SET, "00" * 10 + "2a" + "00" * 15), "portState 42 is none of 1..9"),
        (answer(2, "c0", tlv=2), "names no managementId"),
    ],
)
def test_what_cannot_be_used_is_refused_by_field_and_value(data: bytes, complaint: str) -> None:
    with pytest.raises(BadManagement, match=complaint):
        parse(data)


def test_a_message_cut_anywhere_is_refused() -> None:
    assert isinstance(parse(CURRENT).data, CurrentDataSet)
    for length in range(len(CURRENT)):
        with pytest.raises(BadManagement):
            parse(CURRENT[:length])


def test_padding_behind_the_message_is_ignored() -> None:
    assert parse(CURRENT + b"\xa5" * 8) == parse(CURRENT)


def test_no_bytes_raise_anything_else() -> None:
    source = random.Random(5)
    good = [CURRENT, answer(Id.PORT_DATA_SET, "00" * 10 + "09" + "00" * 15), answer(2, "c000", tlv=2)]
    for _ in range(20_000):
        data = bytearray(source.choice(good))
        for _ in range(source.randint(1, 6)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            parse(bytes(data[: source.randint(0, len(data))] if source.random() < 0.3 else data))
        except BadManagement:
            continue


@pytest.mark.parametrize(
    "bad",
    [{"sequence": -1}, {"sequence": 65_536}, {"port": 65_536}, {"domain": 256}, {"transport_specific": 16}],
)
def test_a_number_that_does_not_fit_its_field_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"does not fit|out of range"):
        request(Id.CURRENT_DATA_SET, **{"sequence": 1, "source": US, **bad})  # type: ignore[arg-type]
