"""Arrays and plain values as bytes: what a fit gives back, and a model is kept as."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPE = re.compile(r"\|b1|\|[iu]1|[<>](?:[iu][248]|f[248])")


def pack_arrays(values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A line of JSON with the values and the arrays' types and shapes, then the arrays, compressed.

    ``values`` are plain JSON values; arrays are of whole or floating-point numbers of up to 64 bits, or of
    bools: ValueError for others.
    """
    columns = {name: np.asarray(a) for name, a in arrays.items()}
    for name, a in columns.items():
        _check_type(name, a.dtype.str)
    head = {"values": dict(values), "arrays": {n: [a.dtype.str, list(a.shape)] for n, a in columns.items()}}
    body = b"".join(a.tobytes() for a in columns.values())
    return json.dumps(head, allow_nan=False).encode() + b"\n" + zlib.compress(body, 1)


def unpack_arrays(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Values and arrays of :func:`pack_arrays`; ValueError for bytes that are none, or not all of them.

    No more is inflated than the arrays' shapes say.
    """
    head, _, compressed = data.partition(b"\n")
    try:
        described = json.loads(head)
        values = dict(described["values"])
        shapes: dict[str, tuple[np.dtype[Any], list[int]]] = {}
        for name, (kind, shape) in described["arrays"].items():
            _check_type(name, kind)
            if not all(type(n) is int and n >= 0 for n in shape):
                raise ValueError(f"array {name}: {shape} is no shape")
            shapes[name] = np.dtype(kind), shape
        size = sum(dtype.itemsize * prod(shape) for dtype, shape in shapes.values())
        inflate = zlib.decompressobj()
        body = inflate.decompress(compressed, size + 1)
        if len(body) != size or not inflate.eof or inflate.unused_data:
            raise ValueError(f"they are not the {size} bytes that they say they are")
        arrays: dict[str, NDArray[Any]] = {}
        place = 0
        for name, (dtype, shape) in shapes.items():
            end = place + dtype.itemsize * prod(shape)
            arrays[name] = np.frombuffer(body[place:end], dtype).reshape(shape).copy()
            place = end
    except (LookupError, TypeError, AttributeError, OverflowError, RecursionError, zlib.error) as error:
        raise ValueError(f"no packed arrays: {error!r}") from None
    except ValueError as error:
        raise ValueError(f"no packed arrays: {error}") from None
    return values, arrays


def _check_type(name: str, kind: Any) -> None:
    if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        raise ValueError(f"array {name}: {kind!r} is no type of numbers")
