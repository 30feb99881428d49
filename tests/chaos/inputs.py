"""Bytes that a broken or hostile peer may send, drawn from a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Sequence

BANNERS = (
    b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),  # the begin of a TLS hello
    b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01CURVE" + bytes(40),  # of a ZMTP greeting
    # A ZMTP server's greeting, and a WELCOME that is none.
    b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + b"\1" + bytes(31) + b"\x04\x0a\x07WELCOMEab",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)),  # HTTP/2 and its settings
)


def mutated(rng: random.Random, valid: bytes) -> bytes:
    """A few bits flipped, bytes put in, taken out or doubled."""
    data = bytearray(valid)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case 2:
                del data[at : at + rng.randint(1, 8)]
            case _:
                data[at:at] = data[at : at + rng.randint(1, 32)]
    return bytes(data)


def hostile(rng: random.Random, valid: Sequence[bytes], huge: int) -> bytes:
    """Random, mutated, truncated, replayed or ``huge`` bytes."""
    kind = rng.random()
    message = rng.choice(valid)
    if kind < 0.3:
        return rng.randbytes(rng.randint(1, 200))
    if kind < 0.7:
        return mutated(rng, message)
    if kind < 0.85:
        return message[: rng.randrange(len(message))] or b"\xff"
    if kind < 0.99:
        return message
    return rng.randbytes(1) * huge
