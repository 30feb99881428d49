from __future__ import annotations

import pytest

from openrtist.payload import MAX_WAITING, BadPayload, Frame, Reply, sequence_of, stamped


def test_a_frame_and_a_reply_come_back_as_they_went() -> None:
    frame = Frame(0xFFFFFFFF, "the_scream-ä", b"\xff\xd8jpeg")
    assert Frame.unpack(frame.pack()) == frame
    reply = Reply(7, 1 << 62, 3, 28_000, 31_000, 1600, True, b"")
    assert Reply.unpack(reply.pack()) == reply


def test_a_reply_is_stamped_and_nothing_else_of_it_changes() -> None:
    reply = Reply(7, 0, 0, 28_000, 31_000, 1600, False, b"jpeg" * 100)
    got = Reply.unpack(stamped(reply.pack(), 1_720_457_989_000_000_001, 1_720_457_989_000_000_002))
    assert (got.edge_received_ns, got.edge_sent_ns) == (1_720_457_989_000_000_001, 1_720_457_989_000_000_002)
    assert (got.sequence, got.inference_us, got.engine_us, got.clock_mhz, got.emulated, got.jpeg) == (
        7,
        28_000,
        31_000,
        1600,
        False,
        b"jpeg" * 100,
    )


def test_a_reply_tells_of_the_frames_that_have_arrived_and_wait() -> None:
    waiting = [(8, 1 << 60), (9, (1 << 60) + 5)]
    packed = stamped(Reply(7, 0, 0, 1, 2, 3, True, b"jpeg").pack(), 4, 5, waiting)
    assert Reply.unpack(packed) == Reply(7, 4, 5, 1, 2, 3, True, b"jpeg", tuple(waiting))
    many = [(k, k) for k in range(MAX_WAITING + 10)]
    assert (
        len(Reply.unpack(stamped(Reply(7, 0, 0, 1, 2, 3, True, b"").pack(), 4, 5, many)).waiting)
        == MAX_WAITING
    )
    with pytest.raises(BadPayload, match="2 waiting frames"):
        Reply.unpack(packed[: -len(b"jpeg") - 1])


def test_the_sequence_of_a_frame_is_read_without_the_rest() -> None:
    assert sequence_of(Frame(77, "s", b"x").pack()) == 77
    assert sequence_of(b"PBF1") is None and sequence_of(b"a bare JPEG picture") is None


@pytest.mark.parametrize(
    "data", [b"", b"PBF1", b"\xff\xd8\xff\xe0 a bare JPEG", Reply(1, 0, 0, 0, 0, 0, False, b"").pack()]
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(BadPayload):
        Frame.unpack(data)


def test_a_frame_that_is_cut_off_in_its_style_name_is_refused() -> None:
    with pytest.raises(BadPayload, match="frame 5: a style name of 10 bytes"):
        Frame.unpack(Frame(5, "the_scream", b"").pack()[:-1])
    with pytest.raises(BadPayload, match="not UTF-8"):
        Frame.unpack(Frame(5, "x", b"").pack()[:-1] + b"\xff")


def test_what_is_no_reply_is_refused() -> None:
    whole = Reply(1, 0, 0, 0, 0, 0, False, b"").pack()
    for data in (b"", whole[:-1], Frame(1, "a" * 60, b"").pack()):
        with pytest.raises(BadPayload):
            Reply.unpack(data)


def test_what_cannot_be_packed_is_named() -> None:
    with pytest.raises(ValueError, match="more than 64 bytes"):
        Frame(1, "ä" * 33, b"").pack()
    with pytest.raises(ValueError, match="beyond 32 bits"):
        Frame(1 << 32, "", b"").pack()
