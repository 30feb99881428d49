"""The client, against a ptp4l of our own that answers oddly."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agents.ptp.client import MAX_PORTS, PtpClient, PtpError
from agents.ptp.messages import Id
from tests.agents.ptp.fake import CLOCK, MASTER, FakePtp4l

PATIENCE_S = 20.0


@pytest.fixture
def ptp4l(tmp_path: Path) -> Iterator[FakePtp4l]:
    fake = FakePtp4l(tmp_path / "ptp4l")
    yield fake
    fake.close()


@pytest.fixture
def client(ptp4l: FakePtp4l, tmp_path: Path) -> Iterator[PtpClient]:
    made = PtpClient([tmp_path / "ptp4lro", ptp4l.path], timeout_s=PATIENCE_S, reply_dir=tmp_path)
    yield made
    made.close()


@pytest.fixture
def hasty(ptp4l: FakePtp4l, tmp_path: Path) -> Iterator[PtpClient]:
    """For answers that do not come."""
    made = PtpClient([ptp4l.path], timeout_s=0.2, reply_dir=tmp_path)
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
    client = PtpClient(
        [ptp4l.path], domain=24, transport_specific=1, timeout_s=PATIENCE_S, reply_dir=tmp_path
    )
    client.read()
    client.close()
    assert {question[2:] for question in ptp4l.asked} == {(24, 1)}


@pytest.mark.parametrize("where", [(24, 0), (255, 0), (0, 1), (127, 1)])
def test_a_ptp4l_in_another_domain_is_found(
    ptp4l: FakePtp4l, hasty: PtpClient, where: tuple[int, int]
) -> None:
    ptp4l.domain = where
    for _ in range(50):  # a busy machine may be late with an answer
        with suppress(PtpError):
            assert hasty.read().state == "SLAVE"
            break
    else:
        pytest.fail("it was not found")
    assert (hasty.domain, hasty.transport_specific) == where
    ptp4l.asked.clear()
    hasty.read()
    assert {question[2:] for question in ptp4l.asked} == {where}  # it is not looked for again


def test_a_ptp4l_in_another_domain_than_is_asked_for_is_named_with_the_remedy(
    ptp4l: FakePtp4l, tmp_path: Path
) -> None:
    ptp4l.domain = (24, 1)
    client = PtpClient([ptp4l.path], domain=3, transport_specific=0, timeout_s=0.5, reply_dir=tmp_path)
    with pytest.raises(PtpError) as error:
        client.read()
    told = f"{ptp4l.path}: ptp4l is in domain 24, not 3: --domain 24, in transportSpecific 1, not 0: "
    assert str(error.value) == f"{told}--transport-specific 1"
    client.close()
    assert client.domain == 3


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
    with pytest.raises(PtpError, match="DEFAULT_DATA_SET: 64 datagrams and no answer"):
        client.read()


def test_a_question_that_got_lost_is_asked_again(ptp4l: FakePtp4l, hasty: PtpClient) -> None:
    lost: list[Id] = []

    def lossy(id: Id, answer: bytes) -> list[bytes]:
        if id in lost:
            return [answer]
        lost.append(id)
        return []

    ptp4l.odd = lossy
    # Where the second answer is late as well, the reading fails: the next one may be luckier.
    for _ in range(20):
        lost.clear()
        with suppress(PtpError):
            assert hasty.read().state == "SLAVE"
            break
    else:
        pytest.fail("no question was asked again")
    assert len(lost) == 6


def test_silence_names_the_socket_and_what_was_asked(
    ptp4l: FakePtp4l, hasty: PtpClient, client: PtpClient
) -> None:
    ptp4l.silent_for = set(Id)
    with pytest.raises(PtpError, match=rf"{ptp4l.path}: DEFAULT_DATA_SET: no answer within 0.4 s"):
        hasty.read()
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


def test_a_path_that_no_unix_socket_can_have_is_refused_with_the_bound(
    ptp4l: FakePtp4l, tmp_path: Path
) -> None:
    name = len(f"/ptp-agent-{os.getpid()}-00000000")
    folder = Path(tempfile.mkdtemp(prefix="ptp"))
    try:
        fits = folder / ("x" * (107 - name - len(f"{folder}/")))
        fits.mkdir()
        client = PtpClient([ptp4l.path], timeout_s=PATIENCE_S, reply_dir=fits)
        assert client.read().state == "SLAVE"
        client.close()
        with pytest.raises(
            ValueError,
            match=rf"--reply-dir: {fits}y: {108 - name} bytes are too long .* {107 - name} at most",
        ):
            PtpClient([ptp4l.path], reply_dir=Path(f"{fits}y"))
    finally:
        shutil.rmtree(folder)
    with pytest.raises(PtpError, match=r"no ptp4l: .*: AF_UNIX path too long"):
        PtpClient([tmp_path / ("x" * 108)], reply_dir=tmp_path).read()


def test_sockets_that_killed_processes_left_behind_are_removed_and_no_others(
    ptp4l: FakePtp4l, client: PtpClient, tmp_path: Path
) -> None:
    client.read()
    (ours,) = tmp_path.glob("ptp-agent-*")
    for name in (f"ptp-agent-{os.getpid()}-00000000", "ptp-agent-1-0123abcd", "ptp-agent-socket"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left_behind:
            left_behind.bind(str(tmp_path / name))
    (tmp_path / "ptp-agent-1-00000000").write_text("no socket")
    PtpClient([ptp4l.path], reply_dir=tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {ours.name, "ptp-agent-socket", "ptp-agent-1-00000000", ptp4l.path.name}
    assert client.read().state == "SLAVE"


def test_a_ptp4l_that_comes_back_is_found_again_and_nothing_is_left_behind(tmp_path: Path) -> None:
    first = FakePtp4l(tmp_path / "ptp4l")
    client = PtpClient([first.path], timeout_s=PATIENCE_S, reply_dir=tmp_path)
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
    client = PtpClient([read_only.path, ptp4l.path], timeout_s=PATIENCE_S, reply_dir=tmp_path)
    client.read()
    client.close()
    read_only.close()
    assert read_only.asked and not ptp4l.asked
