"""When the clock of a GPU that was read back is the one that was locked.

No GPU runs at every clock of its list at every moment: its voltage curve moves with the temperature, and
drivers round. So a clock one step of the GPU's own list off the lock is the lock's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence

IDLE = "gpu_idle"
HELD_DOWN = frozenset(
    {
        "sw_power_cap",
        "hw_slowdown",
        "sync_boost",
        "sw_thermal_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
    }
)
"""Clock event reasons (NVML) that hold the clock below the lock, whatever is locked."""


STEP = 0.05
"""A step of the list that is larger than this part of the clock leads to another clock."""


def bounds(wanted_mhz: int, supported: Sequence[int]) -> tuple[int, int]:
    """The lowest and the highest clock (MHz) that count as a wish: one step of ``supported`` (MHz, ascending)
    to either side of the clock that is locked for it, the lowest supported one that is no less."""
    if not supported:
        return wanted_mhz, wanted_mhz
    i = min(bisect_left(supported, wanted_mhz), len(supported) - 1)
    below = _step(supported, i)
    above = _step(supported, i + 1) if i + 1 < len(supported) else below
    return min(wanted_mhz, supported[i] - below), supported[i] + above


def _step(supported: Sequence[int], i: int) -> int:
    """From one clock of the list up to the next, the one at ``i``; 0 where there is none or it is too far."""
    step = supported[i] - supported[i - 1] if i else 0
    return step if step <= STEP * supported[i] else 0


def sleeps(sm_mhz: int, locked_mhz: int, reasons: Collection[str]) -> bool:
    """Whether a GPU is below its lock for want of work alone: the first kernel brings it back."""
    return 0 < sm_mhz < locked_mhz and IDLE in reasons and HELD_DOWN.isdisjoint(reasons)


def is_held(
    sm_mhz: int, wanted_mhz: int, locked_mhz: int, supported: Sequence[int], reasons: Collection[str] = ()
) -> bool:
    """Whether a clock that was read back (MHz; 0: none was) is that of the lock that was set for a wish."""
    low, high = bounds(wanted_mhz, supported)
    return 0 < sm_mhz <= high and (sm_mhz >= low or sleeps(sm_mhz, locked_mhz, reasons))
