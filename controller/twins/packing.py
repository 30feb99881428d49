"""Arrays and plain values as bytes: what a fit gives back, and a model is kept as."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = "fiub"
_MOST = 1 << 30


def pack_arrays(values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A line of JSON with the values and the arrays' types and shapes, then the arrays, compressed.

    ``values`` are plain JSON values; arrays are of numbers or bools.
    """
    columns = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    head = {"values": dict(values), "arrays": {n: [a.dtype.str, list(a.shape)] for n, a in columns.items()}}
    body = b"".join(a.tobytes() for a in columns.values())
    return json.dumps(head, allow_nan=False).encode() + b"\n" + zlib.compress(body, 1)


def unpack_arrays(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Values and arrays of :func:`pack_arrays`; ValueError for bytes that are none."""
    head, _, compressed = data.partition(b"\n")
    try:
        described = json.loads(head)
        inflate = zlib.decompressobj()
        body = inflate.decompress(compressed, _MOST)
        arrays: dict[str, NDArray[Any]] = {}
        place = 0
        for name, (kind, shape) in described["arrays"].items():
            dtype = np.dtype(kind)
            if dtype.kind not in _KINDS:
                raise ValueError(f"array {name}: {kind} is no type of numbers")
            size = dtype.itemsize * int(np.prod(shape))
            arrays[name] = np.frombuffer(body[place : place + size], dtype).reshape(shape).copy()
            place += size
        values = dict(described["values"])
    except (KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
        raise ValueError(f"no packed arrays: {error}") from None
    if place != len(body):
        raise ValueError(f"no packed arrays: {len(body) - place} bytes too many")
    return values, arrays
