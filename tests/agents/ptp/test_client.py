"""The client, against a ptp4l of our own that answers oddly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.ptp.client import MAX_PORTS, PtpClient, PtpError
from agents.ptp.messages import Id
from tests.agents.ptp.fake import CLOCK, MASTER, FakePtp4l


@pytest.fixture
def ptp4l(tmp_path: Path) -> Iterator[FakePtp4l]:
    fake = FakePtp4l(tmp_path / "ptp4l")
    yield fake
    fake.close()


@pytest.fixture
def client(ptp4l: FakePtp4l, tmp_path: Path) -> Iterator[PtpClient]:
    made = PtpClient([tmp_path / "ptp4lro", ptp4l.path], timeout_s=0.2, reply_dir=tmp_path)
    yield made
    made.close()


def test_a_reading_is_what_ptp4l_says(ptp4l: FakePtp4l, client: PtpClient) -> None:
    ptp4l.offset_ns, ptp4l.path_delay_ns, ptp4l.ingress_ns = -1178.5, 2230.25, 99
    got = client.read()
    assert (got.state, got.offset_ns, got.path_delay_ns, got.ingress_ns) == ("SLAVE", -1178.5, 2230.25, 99)
    assert (got.clock, got.grandmaster, got.is_grandmaster) == (CLOCK, MASTER, False)
    assert (got.steps_removed, got.grandmaster_class, got.log_sync_interval) == (1, 6, 0)
    ptp4l.grandmaster = CLOCK
    assert client.read().is_grandmaster
    assert client.strays == 0


def test_the_utc_offset_counts_only_where_the_time_is_tai(ptp4l: FakePtp4l, client: PtpClient) -> None:
    assert client.read().utc_offset_s == 0
    ptp4l.time_flags = 0x08
    assert client.read().utc_offset_s == 37


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["MASTER", "SLAVE", "LISTENING"], "SLAVE"),
        (["LISTENING", "UNCALIBRATED", "MASTER"], "UNCALIBRATED"),
        (["LISTENING", "MASTER"], "MASTER"),
        (["LISTENING"], "LISTENING"),
    ],
)
def test_of_several_ports_the_one_that_follows_counts(
    ptp4l: FakePtp4l, client: PtpClient, states: list[str], expected: str
) -> None:
    ptp4l.states = states
    assert client.read().state == expected
    assert [port for id, port, *_ in ptp4l.asked if id is Id.PORT_DATA_SET] == list(range(1, len(states) + 1))


def test_domain_and_transport_specific_are_those_of_the_configuration(
    ptp4l: FakePtp4l, tmp_path: Path
) -> None:
    client = PtpClient([ptp4l.path], domain=24, transport_specific=1, reply_dir=tmp_path)
    client.read()
    client.close()
    assert {question[2:] for question in ptp4l.asked} == {(24, 1)}


def test_answers_to_others_and_nonsense_are_passed_over(ptp4l: FakePtp4l, client: PtpClient) -> None:
    def noisy(id: Id, answer: bytes) -> list[bytes]:
        old, foreign, wrong = bytearray(answer), bytearray(answer), bytearray(answer)
        old[31] ^= 0xFF  # another sequenceId
        foreign[43] ^= 0xFF  # another targetPortIdentity
        wrong[52:54] = Id.TIME_PROPERTIES_DATA_SET.to_bytes(2, "big")
        if id is Id.CURRENT_DATA_SET:
            old[56:64], foreign[56:64] = bytes(8), bytes(8)  # the offset
        return [b"", b"garbage", bytes(old), bytes(foreign), bytes(wrong), answer]

    ptp4l.odd = noisy
    assert client.read().offset_ns == 250.0
    assert client.strays >= 4 * 6


def test_a_flood_of_nonsense_ends_in_an_error(ptp4l: FakePtp4l, client: PtpClient) -> None:
    ptp4l.odd = lambda id, answer: [b"garbage"] * 200
    with pytest.raises(PtpError, match=r"DEFAULT_DATA_SET: (64 datagrams and|no answer within)"):
        client.read()


def test_a_question_that_got_lost_is_asked_again(ptp4l: FakePtp4l, client: PtpClient) -> None:
    lost = []

    def lossy(id: Id, answer: bytes) -> list[bytes]:
        if id in lost:
            return [answer]
        lost.append(id)
        return []

    ptp4l.odd = lossy
    assert client.read().state == "SLAVE"
    assert len(lost) == 6


def test_silence_names_the_socket_and_what_was_asked(ptp4l: FakePtp4l, client: PtpClient) -> None:
    ptp4l.silent_for = {Id.TIME_STATUS_NP}
    with pytest.raises(PtpError, match=rf"{ptp4l.path}: TIME_STATUS_NP: no answer within 0.4 s"):
        client.read()
    ptp4l.silent_for = set()
    assert client.read().state == "SLAVE"


def test_an_error_status_names_the_error(ptp4l: FakePtp4l, client: PtpClient) -> None:
    def refusing(id: Id, answer: bytes) -> list[bytes]:
        if id is not Id.PARENT_DATA_SET:
            return [answer]
        error = answer[:2] + (60).to_bytes(2, "big") + answer[4:48]
        return [error + bytes.fromhex("0002 0008 0006 2002 00000000")]

    ptp4l.odd = refusing
    with pytest.raises(PtpError, match="PARENT_DATA_SET: ptp4l answers NOT_SUPPORTED"):
        client.read()


@pytest.mark.parametrize("ports", [0, MAX_PORTS + 1])
def test_a_clock_without_ports_or_with_too_many_is_refused(
    ptp4l: FakePtp4l, client: PtpClient, ports: int
) -> None:
    ptp4l.states = ["SLAVE"] * ports
    with pytest.raises(PtpError, match=f"{ports} ports"):
        client.read()


def test_without_a_ptp4l_every_socket_that_was_tried_is_named(tmp_path: Path) -> None:
    client = PtpClient([tmp_path / "one", tmp_path / "two"], reply_dir=tmp_path)
    with pytest.raises(PtpError, match=r"no ptp4l: .*one: No such file.*; .*two: No such file"):
        client.read()
    assert list(tmp_path.iterdir()) == []


def test_a_reply_folder_that_is_not_there_is_named(ptp4l: FakePtp4l, tmp_path: Path) -> None:
    with pytest.raises(PtpError, match=r"nowhere/ptp-agent-.*cannot be bound"):
        PtpClient([ptp4l.path], reply_dir=tmp_path / "nowhere").read()


def test_a_ptp4l_that_comes_back_is_found_again_and_nothing_is_left_behind(tmp_path: Path) -> None:
    first = FakePtp4l(tmp_path / "ptp4l")
    client = PtpClient([first.path], timeout_s=0.2, reply_dir=tmp_path)
    assert client.read().state == "SLAVE"
    first.close()
    with pytest.raises(PtpError):
        client.read()
    with pytest.raises(PtpError, match="no ptp4l"):
        client.read()
    second = FakePtp4l(first.path)
    second.offset_ns = 7.0
    assert client.read().offset_ns == 7.0
    client.close()
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_the_read_only_socket_is_preferred(ptp4l: FakePtp4l, tmp_path: Path) -> None:
    read_only = FakePtp4l(tmp_path / "ptp4lro")
    client = PtpClient([read_only.path, ptp4l.path], reply_dir=tmp_path)
    client.read()
    client.close()
    read_only.close()
    assert read_only.asked and not ptp4l.asked
