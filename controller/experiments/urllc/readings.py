"""Readings of the paper's section IV: the same drops with what the text leaves open, or may mean, decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log10
from typing import Any, Final

from controller.allocators.urllc.instance import DEVICE_DEFAULTS, Instance
from controller.experiments.urllc.drops import PAPER, Drop, draw

PATH_LOSS: Final = 37.6
"""dB a decade of distance."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How instances are made of drops. ``changes``: keys of an instance, or of all its devices, with other
    values; ``gain_db``: added to every channel gain."""

    title: str
    drop: Drop = PAPER
    changes: Mapping[str, Any] = field(default_factory=dict)
    gain_db: float = 0.0

    def instance(self, seed: int, **changes: Any) -> Instance:
        """That of a seed, with further changes."""
        of = {**draw(seed, self.drop), **self.changes, **changes}
        every = {key: of.pop(key) for key in DEVICE_DEFAULTS if key in of}
        factor = 10.0 ** (self.gain_db / 10.0)
        of["devices"] = [
            {**row, **every, "channel_gain": factor * row["channel_gain"]} for row in of["devices"]
        ]
        return Instance.of(of)


_BIT: Final = Drop(cycles_per="bit")
_OFFLOADED: Final = {"transmitted": "offloaded"}

READINGS: Final[Mapping[str, Reading]] = {
    "text": Reading("as printed: cycles a byte, all of a task is transmitted"),
    "byte, offloaded": Reading("cycles a byte, (1 - alpha) D is transmitted", changes=_OFFLOADED),
    "bit": Reading("cycles a bit", _BIT),
    "bit, 23 dBW": Reading("cycles a bit, P = 23 dB of a watt", _BIT, {"power_dbm": 53.0}),
    "bit, kB": Reading("cycles a bit, caches of kilobytes", _BIT, {"cache_bits": 480e3}),
    "bit, mean": Reading(
        "cycles a bit, ||h||^2 without the gain of 8 antennas", Drop(cycles_per="bit", antenna_gain="mean")
    ),
    "bit, B each": Reading("cycles a bit, 5 MHz for each of 15 devices", _BIT, {"bandwidth_hz": 75e6}),
    "bit, km": Reading("cycles a bit, d of the path loss in km", _BIT, gain_db=3.0 * PATH_LOSS),
    "bit, 20 MHz": Reading("cycles a bit, B = 20 MHz", _BIT, {"bandwidth_hz": 20e6}),
    "bit, offloaded": Reading("cycles a bit, (1 - alpha) D is transmitted", _BIT, _OFFLOADED),
    "bit, offloaded, 23 dBW": Reading(
        "cycles a bit, (1 - alpha) D, P = 23 dB of a watt", _BIT, {**_OFFLOADED, "power_dbm": 53.0}
    ),
    "bit, offloaded, km": Reading(
        "cycles a bit, (1 - alpha) D, d in km", _BIT, _OFFLOADED, gain_db=3.0 * PATH_LOSS
    ),
    "bit, offloaded, noise": Reading(
        "cycles a bit, (1 - alpha) D, noise of B in MHz", _BIT, _OFFLOADED, gain_db=10.0 * log10(1e6)
    ),
    "bit, offloaded, 10 MHz": Reading(
        "cycles a bit, (1 - alpha) D, B = 10 MHz", _BIT, {**_OFFLOADED, "bandwidth_hz": 10e6}
    ),
}
SHOWN: Final = ("text", "bit, offloaded, 10 MHz")
"""Those of the figures: the text's, and that which gives the paper's levels."""
