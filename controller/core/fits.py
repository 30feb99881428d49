"""Training that takes longer than a control slot may: what is asked for, and what came of it. Values."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Job:
    """A fit that is to run beside the loop.

    Attributes:
        key: names the job within its slice for ever, for instance by user and digest of the data; equal keys
            are the same job, which is asked for once.
        function: ``"module:name"`` of a pure function at the top of an importable module. It is called with
            ``arguments`` by name and ``seed=seed``, draws from that seed alone, and returns bytes.
        arguments: plain values (None, bool, int, float, str, bytes), NumPy scalars and arrays, and tuples,
            lists and string-keyed dicts of them. They are copied when the job is submitted.
        seed: 0 or more.

    Raises:
        ValueError: names the job and what cannot be: an empty key, a function that is not of that form or
            that of ``__main__``, an argument that is not plain or is named ``seed``, a negative seed.
    """

    key: str
    function: str
    arguments: Mapping[str, Any] = field(compare=False)
    seed: int

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError(f"job of {self.function}: its key is empty")
        if not _FUNCTION.fullmatch(self.function) or self.function.startswith("__main__:"):
            raise ValueError(
                f"job {self.key}: function {self.function!r} is not module:name of an importable module"
            )
        if self.seed < 0:
            raise ValueError(f"job {self.key}: seed {self.seed} is negative")
        if "seed" in self.arguments:
            raise ValueError(f"job {self.key}: an argument is named seed")
        for name, value in self.arguments.items():
            _check_plain(f"job {self.key}: argument {name}", value)


def _check_plain(place: str, value: Any) -> None:
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.hasobject:
            raise ValueError(f"{place}: an array of Python objects")
    elif type(value) in (tuple, list):
        for i, entry in enumerate(value):
            _check_plain(f"{place}[{i}]", entry)
    elif type(value) is dict:
        for key, entry in value.items():
            if type(key) is not str:
                raise ValueError(f"{place}: key {key!r} is no string")
            _check_plain(f"{place}[{key!r}]", entry)
    elif value is not None and type(value) not in (bool, int, float, str, bytes):
        raise ValueError(f"{place}: {type(value).__name__} is no plain value")


@dataclass(frozen=True, slots=True)
class Fit:
    """What came of a job. Either ``digest`` (SHA-256, hex) names the result's bytes in the run's models, or
    ``error`` says why there are none."""

    slice: str
    key: str
    digest: str
    error: str = ""


def model_digest(data: bytes) -> str:
    """The name of a result: SHA-256 of its bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
