"""Arrays as bytes: what goes in comes out, and what is none is refused with a ValueError."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest

from controller.twins.packing import pack_arrays, unpack_arrays

RNG = np.random.default_rng(1)
ARRAYS: dict[str, Any] = {
    "half": RNG.standard_normal((5, 3)).astype(np.float16),
    "single": RNG.standard_normal(7).astype(np.float32),
    "double": RNG.standard_normal((2, 3, 4)),
    "whole": RNG.integers(-9, 9, (4,)).astype(np.int8),
    "bits": RNG.random((3, 3)) < 0.5,
    "big-endian": np.arange(3, dtype=">i4"),
    "empty": np.empty((0, 17), np.float16),
    "number": np.array(2.5),
    "transposed": np.arange(12.0).reshape(3, 4).T,
}
VALUES: dict[str, Any] = {"version": 1, "users": ["a", "b\n"], "none": None, "deep": {"x": [1.5, [True]]}}


def test_values_types_and_shapes_come_back() -> None:
    values, arrays = unpack_arrays(pack_arrays(VALUES, ARRAYS))
    assert values == VALUES and list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape), name
        assert np.array_equal(arrays[name], array)
        assert arrays[name].flags.writeable
    assert unpack_arrays(pack_arrays({}, {})) == ({}, {})


def test_equal_arrays_are_equal_bytes() -> None:
    assert pack_arrays(VALUES, ARRAYS) == pack_arrays(VALUES, {n: a.copy() for n, a in ARRAYS.items()})


@pytest.mark.parametrize("array", [np.array([{}]), np.array(["a"]), np.array([1j]), np.array([1], "M8[s]")])
def test_what_are_no_numbers_is_not_packed(array: Any) -> None:
    with pytest.raises(ValueError, match=r"array a: .* is no type of numbers"):
        pack_arrays({}, {"a": array})


def test_values_that_json_has_not_are_not_packed() -> None:
    with pytest.raises(ValueError, match="JSON"):
        pack_arrays({"x": float("nan")}, {})


def test_every_truncation_is_refused() -> None:
    data = pack_arrays(VALUES, ARRAYS)
    for length in range(len(data)):
        with pytest.raises(ValueError, match="no packed arrays"):
            unpack_arrays(data[:length])
    with pytest.raises(ValueError, match="no packed arrays"):
        unpack_arrays(data + b"more")
    without = pack_arrays({}, {})
    for length in range(len(without)):
        with pytest.raises(ValueError, match="no packed arrays"):
            unpack_arrays(without[:length])


def test_damaged_bytes_are_refused_or_harmless() -> None:
    data = pack_arrays(VALUES, ARRAYS)
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(1500):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)).tolist():
            damaged[at] = int(rng.integers(256))
        try:
            unpack_arrays(bytes(damaged))
        except ValueError:
            refused += 1
    assert refused > 1000


def packed(arrays: Any, body: bytes = b"", values: Any = None) -> bytes:
    head = {"values": {} if values is None else values, "arrays": arrays}
    return json.dumps(head).encode() + b"\n" + zlib.compress(body)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\xff\xfe\x00",
        b"{}\n",
        b"[1]\n" + zlib.compress(b""),
        b'"x"\n' + zlib.compress(b""),
        b"[" * 100_000 + b"\n",
        b'{"values": {}, "arrays": {"a": ["<f8", [1e400]]}}\n' + zlib.compress(b""),
        packed([]),
        packed({}, b"", [1]),
        packed({"a": None}),
        packed({"a": ["<f8"]}),
        packed({"a": ["<f8", 3]}),
        packed({"a": ["<f8", [-1]]}, bytes(8)),
        packed({"a": ["<f8", [-1, -1]]}, bytes(8)),
        packed({"a": ["<f8", [1.0]]}, bytes(8)),
        packed({"a": ["<f8", [True]]}, bytes(8)),
        packed({"a": ["<f8", "1"]}, bytes(8)),
        packed({"a": ["<f8", [1] * 100]}, bytes(8)),
        packed({"a": ["<f8", [1 << 62, 1 << 62]]}),
        packed({"a": ["<f8", [10**30]]}, bytes(8)),
        packed({"a": ["<f8", [0, 10**30]]}),
        packed({"a": ["<f8", [2]]}, bytes(8)),
        packed({"a": ["<f8", [1]]}, bytes(16)),
        packed({"a": [None, [1]]}, bytes(8)),
        packed({"a": ["(1,", [1]]}, bytes(8)),
        packed({"a": ["|O", [1]]}, bytes(8)),
        packed({"a": ["|S8", [1]]}, bytes(8)),
        packed({"a": ["<M8[s]", [1]]}, bytes(8)),
        packed({"a": ["<f8,<f8", [1]]}, bytes(16)),
        packed({"a": [[["x", "<f8"]], [1]]}, bytes(8)),
    ],
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no packed arrays"):
        unpack_arrays(data)


def test_no_more_is_inflated_than_the_shapes_say() -> None:
    bomb = packed({"a": ["<f8", [1]]}, bytes(30_000_000))  # 30 kB
    lie = packed({"a": ["<f8", [1 << 40]]}, bytes(8))
    tracemalloc.start()
    try:
        for data in (bomb, lie):
            with pytest.raises(ValueError, match="no packed arrays"):
                unpack_arrays(data)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
