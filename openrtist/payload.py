"""What the Gabriel messages of a frame carry: a short header, then the picture as JPEG.

Gabriel's own messages have no room for a style, a sequence that outlives a connection, or times. All numbers
are in network order; times are CLOCK_REALTIME nanoseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

ENGINE_ID = "openrtist"
MAX_MESSAGE = 16 << 20
"""Bytes of a Gabriel message that server and client take."""
MAX_JPEG = MAX_MESSAGE - (1 << 16)
"""Bytes of a picture that fits into one, with what the messages carry besides."""
WINDOW = 1 << 20
"""Bytes that HTTP/2 lets a sender be ahead of its reader: a frame larger than that waits for the way back."""
MAX_STYLE_NAME = 64
_FRAME_MAGIC, _REPLY_MAGIC = b"PBF1", b"PBR2"
_FRAME = struct.Struct("!4sIB")
_REPLY = struct.Struct("!4sIQQIIHBB")
_STAMPS = struct.Struct("!QQ")
_STAMPS_AT = 8
_WAITING = struct.Struct("!IQ")
MAX_CLOCK_MHZ = 0xFFFF
"""The highest clock that a reply can tell."""
MAX_WAITING = 255
"""Frames of which a reply can say that they have arrived."""


class BadPayload(ValueError):
    """A payload that is no frame or no reply; the text says why."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame on its way to the server. ``style`` empty: the server's first one."""

    sequence: int
    style: str
    jpeg: bytes

    def pack(self) -> bytes:
        """ValueError for a sequence beyond 32 bits or a style name of more than 64 bytes."""
        style = self.style.encode()
        if len(style) > MAX_STYLE_NAME:
            raise ValueError(f"style {self.style!r}: more than {MAX_STYLE_NAME} bytes")
        if not 0 <= self.sequence < 1 << 32:
            raise ValueError(f"sequence {self.sequence} is beyond 32 bits")
        return b"".join((_FRAME.pack(_FRAME_MAGIC, self.sequence, len(style)), style, self.jpeg))

    @classmethod
    def unpack(cls, data: bytes) -> Frame:
        """Raises BadPayload."""
        if len(data) < _FRAME.size:
            raise BadPayload(f"frame of {len(data)} bytes, its header has {_FRAME.size}")
        magic, sequence, length = _FRAME.unpack_from(data)
        if magic != _FRAME_MAGIC:
            raise BadPayload(f"frame begins with {magic!r}, not {_FRAME_MAGIC!r}")
        start = _FRAME.size + length
        if length > MAX_STYLE_NAME or start > len(data):
            raise BadPayload(f"frame {sequence}: a style name of {length} bytes")
        try:
            style = data[_FRAME.size : start].decode()
        except UnicodeDecodeError:
            raise BadPayload(f"frame {sequence}: the style name is not UTF-8") from None
        return cls(sequence, style, data[start:])


@dataclass(frozen=True, slots=True)
class Reply:
    """A stylised frame on its way back.

    ``inference_us`` is the time that the network took (microseconds), ``engine_us`` that of the whole engine,
    JPEG both ways included. ``clock_mhz`` is the clock that an emulated GPU ran at, 0 where none is emulated.
    ``waiting`` are (sequence, edge_received_ns) of frames that have arrived meanwhile and wait: without them
    the wait at a slow edge would look like one in the uplink.
    """

    sequence: int
    edge_received_ns: int
    edge_sent_ns: int
    inference_us: int
    engine_us: int
    clock_mhz: int
    emulated: bool
    jpeg: bytes
    waiting: tuple[tuple[int, int], ...] = ()

    def pack(self) -> bytes:
        """ValueError for more than 255 waiting frames or a clock beyond 16 bits."""
        if not 0 <= self.clock_mhz <= MAX_CLOCK_MHZ:
            raise ValueError(f"a clock of {self.clock_mhz} MHz, {MAX_CLOCK_MHZ} at most")
        if len(self.waiting) > MAX_WAITING:
            raise ValueError(f"{len(self.waiting)} waiting frames, {MAX_WAITING} at most")
        head = _REPLY.pack(
            _REPLY_MAGIC,
            self.sequence,
            self.edge_received_ns,
            self.edge_sent_ns,
            min(self.inference_us, 0xFFFFFFFF),
            min(self.engine_us, 0xFFFFFFFF),
            self.clock_mhz,
            self.emulated,
            len(self.waiting),
        )
        return b"".join((head, *(_WAITING.pack(*frame) for frame in self.waiting), self.jpeg))

    @classmethod
    def unpack(cls, data: bytes) -> Reply:
        """Raises BadPayload."""
        if len(data) < _REPLY.size:
            raise BadPayload(f"reply of {len(data)} bytes, its header has {_REPLY.size}")
        magic, sequence, received, sent, inference, engine, clock, emulated, count = _REPLY.unpack_from(data)
        if magic != _REPLY_MAGIC:
            raise BadPayload(f"reply begins with {magic!r}, not {_REPLY_MAGIC!r}")
        start = _REPLY.size + count * _WAITING.size
        if start > len(data):
            raise BadPayload(f"reply {sequence}: {count} waiting frames in {len(data)} bytes")
        waiting = tuple(_WAITING.iter_unpack(data[_REPLY.size : start]))
        return cls(sequence, received, sent, inference, engine, clock, bool(emulated), data[start:], waiting)


def stamped(
    reply: bytes, edge_received_ns: int, edge_sent_ns: int, waiting: Sequence[tuple[int, int]] = ()
) -> bytes:
    """A packed reply without waiting frames, with the two times of the edge and those frames in it."""
    waiting = waiting[:MAX_WAITING]
    return b"".join(
        (
            reply[:_STAMPS_AT],
            _STAMPS.pack(edge_received_ns, edge_sent_ns),
            reply[_STAMPS_AT + _STAMPS.size : _REPLY.size - 1],
            bytes((len(waiting),)),
            *(_WAITING.pack(*frame) for frame in waiting),
            reply[_REPLY.size :],
        )
    )


def sequence_of(frame: bytes) -> int | None:
    """The sequence of a packed frame, None where it is none."""
    if len(frame) < _FRAME.size or frame[:4] != _FRAME_MAGIC:
        return None
    return int(_FRAME.unpack_from(frame)[1])
