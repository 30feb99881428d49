"""Seeded drops of the paper's simulations: places, fading and tasks of the devices of an instance.

Devices are anywhere in a square with the access point in its middle, at least ``min_distance_m`` from it.
||h||^2 is g sum |h_l|^2 over L antennas of unit Rayleigh fading, with a path loss of 35.3 + 37.6 log10(d) dB
at d metres. A task has 1354 bytes and 100 to 300 cycles a byte. Device k of a seed is the same however many
devices there are and whatever else is asked for, so that drops are common random numbers.

What the paper leaves open is a field of :class:`Drop` with a default, or one of an instance's
(:data:`controller.allocators.urllc.instance.DEFAULTS`): the transmission interval and R_min.

Source: Edge Intelligence-based URLLC for Digital Twin-enabled Metaverse, section IV.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from controller.allocators.urllc.instance import DEFAULTS, DEVICE_DEFAULTS, MAX_DEVICES, TRANSMITTED

DEVICES: Final = 15
BYTES: Final = 1354
BITS: Final = 8 * BYTES
CYCLES: Final = (100.0, 300.0)
"""Of a byte, or of a bit."""
CYCLES_PER: Final[Mapping[str, int]] = {"byte": BYTES, "bit": BITS}
ANTENNA_GAIN: Final = ("sum", "mean")
MOST_ANTENNAS: Final = 64


@dataclass(frozen=True, slots=True)
class Drop:
    """How a drop is made. ValueError, naming the field, for what cannot be.

    ``cycles_per``: what 100 to 300 cycles are of; the text says byte. ``antenna_gain``: ||h||^2 is the sum
    over the antennas, as printed, or their mean, as where h is normalised. ``min_distance_m``: the model of
    the path loss has no least distance.
    """

    devices: int = DEVICES
    cycles_per: str = "byte"
    side_m: float = 100.0
    min_distance_m: float = 1.0
    antennas: int = 8
    antenna_gain: str = ANTENNA_GAIN[0]

    def __post_init__(self) -> None:
        for name, most in (("devices", MAX_DEVICES), ("antennas", MOST_ANTENNAS)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not from 1 to {most}")
        for name, known in (("cycles_per", tuple(CYCLES_PER)), ("antenna_gain", ANTENNA_GAIN)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: {getattr(self, name)!r} is none of {', '.join(known)}")
        for name in ("side_m", "min_distance_m"):
            if not 0.0 < getattr(self, name) <= 1e5:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0 and at most 100000")


PAPER: Final = Drop()


def draw(seed: int, drop: Drop = PAPER) -> dict[str, Any]:
    """An instance as :mod:`controller.allocators.urllc.instance` reads it, with every key written out.

    Cycles are whole and gains of six digits, so that a file of it is the same on every machine.
    """
    if seed < 0:
        raise ValueError(f"seed: {seed!r} is negative")
    devices = [_device(np.random.default_rng((seed, k)), k, drop) for k in range(drop.devices)]
    return {**DEFAULTS, "transmitted": TRANSMITTED[0], "devices": devices}


def _device(rng: np.random.Generator, k: int, drop: Drop) -> dict[str, Any]:
    across, along, work = rng.random(3).tolist()
    # |h_l|^2 of CN(0, 1) is exponential.
    fading = -np.log1p(-rng.random(MOST_ANTENNAS)[: drop.antennas])
    distance = max(drop.side_m * float(np.hypot(across - 0.5, along - 0.5)), drop.min_distance_m)
    gain = 10.0 ** (-(35.3 + 37.6 * np.log10(distance)) / 10.0)
    gain *= fading.sum() if drop.antenna_gain == "sum" else fading.mean()
    cycles = (CYCLES[0] + (CYCLES[1] - CYCLES[0]) * work) * CYCLES_PER[drop.cycles_per]
    return {
        "id": f"ue-{k + 1}",
        "bits": BITS,
        "cycles": round(cycles),
        "channel_gain": float(f"{gain:.6g}"),
        **DEVICE_DEFAULTS,
    }
