"""Random numbers as functions of (seed, stream, counter): the splitmix64 finaliser, no state.

Runs with different quotas or clocks so share their channel, errors, content and stalls: common random
numbers. A stream is a purpose and an index.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.definitions.extras import needs

with needs("emulator", "the emulated cell"):
    from numba import njit

OPTIONS: dict[str, Any] = {"_nrt": False}
"""The model allocates nothing, and its arrays belong to the caller: without Numba's reference counts on every
array that is touched it runs five times as fast."""

compiled = njit(**OPTIONS)
inlined = njit(forceinline=True, **OPTIONS)
"""For functions of the hot path: a call hands the model's arrays over one by one, which costs more than many
of the functions themselves."""

BLER, CHANNEL, CONTENT, JITTER, STALL, POLL, PHASE, GAP, HOLD, HICCUP = range(1, 11)
APPLICATION = 64
"""Purposes from here on belong to the applications."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11, _S20 = (np.uint64(n) for n in (30, 27, 31, 11, 20))
_ONE = np.uint64(1)
_SCALE = 1.0 / (1 << 53)


@inlined
def _mix(z: Any) -> Any:
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@inlined
def uniform(seed: int, purpose: int, index: int, counter: int) -> float:
    """Uniform in [0, 1)."""
    stream = (np.uint64(purpose) << _S20) + np.uint64(index) + _ONE
    z = _mix(_mix(np.uint64(seed) + stream * _GOLDEN) + np.uint64(counter) * _GOLDEN)
    return float(z >> _S11) * _SCALE


@compiled
def gaussian(seed: int, purpose: int, index: int, counter: int) -> float:
    """Standard normal (Box and Muller)."""
    u = uniform(seed, purpose, index, 2 * counter)
    v = uniform(seed, purpose, index, 2 * counter + 1)
    return math.sqrt(-2.0 * math.log(1.0 - u)) * math.cos(2.0 * math.pi * v)


@compiled
def smooth(seed: int, purpose: int, index: int, t: float) -> float:
    """Standard normal process at ``t``, in its own time scale: independent at a distance of 2 or more."""
    k = math.floor(t)
    w = t - k
    a = gaussian(seed, purpose, index, int(k))
    b = gaussian(seed, purpose, index, int(k) + 1)
    return ((1.0 - w) * a + w * b) / math.sqrt((1.0 - w) * (1.0 - w) + w * w)


def uniforms(seed: int, purpose: int, index: Any, counter: Any) -> NDArray[np.float64]:
    """:func:`uniform` of indices and counters that broadcast, equal to the bit, without compiled code."""
    with np.errstate(over="ignore"):
        stream = np.uint64(purpose << 20) + np.asarray(index).astype(np.uint64) + _ONE
        z = _mixed(np.uint64(seed) + stream * _GOLDEN) + np.asarray(counter).astype(np.uint64) * _GOLDEN
        return (_mixed(z) >> _S11).astype(np.float64) * _SCALE


def gaussians(seed: int, purpose: int, index: Any, counter: Any) -> NDArray[np.float64]:
    """:func:`gaussian` of arrays, to the last digit but for the library's logarithm and cosine."""
    counter = 2 * np.asarray(counter, np.int64)
    u = uniforms(seed, purpose, index, counter)
    v = uniforms(seed, purpose, index, counter + 1)
    return np.sqrt(-2.0 * np.log(1.0 - u)) * np.cos(2.0 * np.pi * v)


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)
