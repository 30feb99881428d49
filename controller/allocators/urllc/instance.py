"""What is to be allocated: devices with tasks, an uplink that they share, an edge server that computes and
caches.

An instance is a mapping as YAML or JSON has it, in the units that its keys name::

    bandwidth_hz: 5.0e6           # B
    interval_ms: 1.0              # phi, the transmission time interval
    min_rate_bps: 1.0e6           # R_min
    edge_hz: 30.0e9               # F_es
    cache_bits: 60000             # S_es
    noise_dbm_per_hz: -174.0      # N_0
    theta: 1.0e-26                # Ws^3/cycle^3
    transmitted: whole            # or offloaded, see below
    devices:
      - {id: ue-1, bits: 10832, cycles: 270800, deadline_ms: 10.0, energy_mj: 3.0, channel_gain: 6.1e-9,
         power_dbm: 23.0, ue_hz: 1.5e9, error: 1.0e-7, ue_deviation: 0.0, edge_deviation: 0.0}

``channel_gain`` is ||h||^2 with path loss, fading and antennas in it; ``power_dbm``, ``ue_hz`` are the most
that there is, ``error`` is epsilon. A deviation is the part of an estimated processing rate by which the real
one falls short of it, so that the real rate is f (1 - deviation), below 0 where it is faster. Beside these a
device may have ``cache_bits`` (what its task takes of the cache, by default ``bits``) and
``uncached_overhead_ms`` and ``cached_overhead_ms``, what its latency has on top of equation (5), by default
0. Every key but ``devices``, ``bits``, ``cycles`` and ``channel_gain`` may be left out: its default is the
paper's, or where the paper has none that of :data:`DEFAULTS`.

``transmitted``: equation (2) has a device send its whole task, D bits, whatever part it offloads, while the
energy under equation (5) is that of (1 - alpha) D bits. ``whole`` is what is printed, ``offloaded`` has
(1 - alpha) D bits in the latency too.

Source: Edge Intelligence-based URLLC for Digital Twin-enabled Metaverse, section II.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from math import isfinite
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from wire.definitions.short_packets import inverse_q

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Transmitted = Literal["whole", "offloaded"]
TRANSMITTED: Final[tuple[Transmitted, ...]] = ("whole", "offloaded")

MAX_DEVICES: Final = 1024
LEAST: Final = 1e-30
MOST: Final = 1e30
"""Numbers other than 0 are from LEAST to MOST: products of them neither vanish nor overflow."""

DEFAULTS: Final[Mapping[str, float]] = {
    "bandwidth_hz": 5e6,
    "interval_ms": 1.0,
    "min_rate_bps": 1e6,
    "edge_hz": 30e9,
    "cache_bits": 60e3,
    "noise_dbm_per_hz": -174.0,
    "theta": 1e-26,
}
"""Of the paper, but for the transmission interval and the least rate, which it leaves open."""
DEVICE_DEFAULTS: Final[Mapping[str, float]] = {
    "deadline_ms": 10.0,
    "energy_mj": 3.0,
    "power_dbm": 23.0,
    "ue_hz": 1.5e9,
    "error": 1e-7,
    "ue_deviation": 0.0,
    "edge_deviation": 0.0,
    "uncached_overhead_ms": 0.0,
    "cached_overhead_ms": 0.0,
}
_REQUIRED: Final = ("bits", "cycles", "channel_gain")
_SIGNED: Final = frozenset(
    (
        "noise_dbm_per_hz",
        "power_dbm",
        "ue_deviation",
        "edge_deviation",
        "uncached_overhead_ms",
        "cached_overhead_ms",
    )
)
_POSITIVE: Final = frozenset(
    (
        "bandwidth_hz",
        "interval_ms",
        "edge_hz",
        "bits",
        "cycles",
        "deadline_ms",
        "energy_mj",
        "ue_hz",
        "error",
        "theta",
    )
)


_inverse_q = lru_cache(maxsize=4096)(inverse_q)


def watt(dbm: float) -> float:
    """Of a power in dBm."""
    return float(10.0 ** (dbm / 10.0 - 3.0))


@dataclass(frozen=True, slots=True)
class Instance:
    """Columns of float64 [M] in units near 1: kbit, 10^6 cycles, GHz, ms, mJ, W, MHz (and so kbit/ms).

    ``snr_per_w``: ||h||^2 / (B N_0), so that gamma = power / share x snr_per_w. ``error``: epsilon.
    ``energy_deviation``: that of the UE's rate by which its energy is counted; the paper has one for both,
    but of a rate that is not known for sure the least is what a deadline, the most what an energy budget must
    be kept with. ``cache_kbit`` is the server's; ``task_cache_kbit`` what each task takes of it. The devices
    keep their order, and ``ids`` their names.

    Worked out once: ``inverse_q``: Q^-1(epsilon); ``mj_per_mcycle``: theta / 2 in mJ for 10^6 cycles where a
    UE processes at 1 GHz, where energy is counted at another deviation than latency for the square of the
    rates' ratio.
    """

    ids: tuple[str, ...]
    kbit: FloatArray
    mcycles: FloatArray
    deadline_ms: FloatArray
    energy_mj: FloatArray
    snr_per_w: FloatArray
    max_power_w: FloatArray
    ue_ghz: FloatArray
    error: FloatArray
    ue_deviation: FloatArray
    energy_deviation: FloatArray
    edge_deviation: FloatArray
    task_cache_kbit: FloatArray
    uncached_overhead_ms: FloatArray
    cached_overhead_ms: FloatArray
    bandwidth_mhz: float
    interval_ms: float
    min_rate_mbps: float
    edge_ghz: float
    cache_kbit: float
    theta: float
    transmitted: Transmitted
    inverse_q: FloatArray = field(init=False, repr=False)
    mj_per_mcycle: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ratio = (1.0 - self.energy_deviation) / (1.0 - self.ue_deviation)
        energy = np.asarray(self.theta / 2.0 * 1e6 * 1e18 * 1e3 * ratio**2)
        object.__setattr__(self, "inverse_q", np.array([_inverse_q(e) for e in self.error.tolist()]))
        object.__setattr__(self, "mj_per_mcycle", energy)

    def __len__(self) -> int:
        return len(self.ids)

    def with_(self, **changes: Any) -> Instance:
        """The same with other columns or limits; a number for a column counts for all devices. Energy is
        counted with the deviation of the UEs' rates unless that is changed too."""
        if "ue_deviation" in changes:
            changes.setdefault("energy_deviation", changes["ue_deviation"])
        columns = {f.name for f in fields(self) if f.type == "FloatArray"}
        wide: dict[str, Any] = {
            k: np.broadcast_to(v, len(self)).astype(np.float64) if k in columns else v
            for k, v in changes.items()
        }
        return replace(self, **wide)

    def only(self, rows: BoolArray) -> Instance:
        """The same with some of the devices."""
        kept: dict[str, Any] = {
            f.name: getattr(self, f.name)[rows] for f in fields(self) if f.init and f.type == "FloatArray"
        }
        kept["ids"] = tuple(name for name, row in zip(self.ids, rows, strict=True) if row)
        return replace(self, **kept)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Instance:
        """Reads an instance as the module describes it. ValueError, naming the place, for what cannot be."""
        if not isinstance(data, Mapping):
            raise ValueError("an instance is a mapping with a list of devices")
        known = {*DEFAULTS, "transmitted", "devices"}
        if unknown := sorted(str(k) for k in data.keys() - known):
            raise ValueError(
                f"{', '.join(unknown)}: no key of an instance; it has {', '.join(sorted(known))}"
            )
        cell = {key: _number(key, data.get(key, default)) for key, default in DEFAULTS.items()}
        transmitted = data.get("transmitted", TRANSMITTED[0])
        if transmitted not in TRANSMITTED:
            raise ValueError(f"transmitted: {transmitted!r} is none of {', '.join(TRANSMITTED)}")
        rows = data.get("devices")
        if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
            raise ValueError("devices: not a list with an entry at least")
        if len(rows) > MAX_DEVICES:
            raise ValueError(f"devices: {len(rows)}, at most {MAX_DEVICES}")
        devices = [_device(i, row) for i, row in enumerate(rows)]
        ids = tuple(_id(i, row) for i, row in enumerate(rows))
        if len(set(ids)) != len(ids):
            raise ValueError(f"devices: id {next(i for i in ids if ids.count(i) > 1)!r} is there twice")
        column = {key: np.array([d[key] for d in devices]) for key in devices[0]}
        noise_w = watt(cell["noise_dbm_per_hz"]) * cell["bandwidth_hz"]
        return cls(
            ids=ids,
            kbit=column["bits"] / 1e3,
            mcycles=column["cycles"] / 1e6,
            deadline_ms=column["deadline_ms"],
            energy_mj=column["energy_mj"],
            snr_per_w=column["channel_gain"] / noise_w,
            max_power_w=np.array([watt(dbm) for dbm in column["power_dbm"]]),
            ue_ghz=column["ue_hz"] / 1e9,
            error=column["error"],
            ue_deviation=column["ue_deviation"],
            energy_deviation=column["ue_deviation"],
            edge_deviation=column["edge_deviation"],
            task_cache_kbit=column["cache_bits"] / 1e3,
            uncached_overhead_ms=column["uncached_overhead_ms"],
            cached_overhead_ms=column["cached_overhead_ms"],
            bandwidth_mhz=cell["bandwidth_hz"] / 1e6,
            interval_ms=cell["interval_ms"],
            min_rate_mbps=cell["min_rate_bps"] / 1e6,
            edge_ghz=cell["edge_hz"] / 1e9,
            cache_kbit=cell["cache_bits"] / 1e3,
            theta=cell["theta"],
            transmitted=transmitted,
        )


def _id(i: int, row: Mapping[str, Any]) -> str:
    value = row.get("id", f"ue-{i + 1}")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"devices[{i}].id: {value!r} is no name")
    return str(value)


def _device(i: int, row: Any) -> dict[str, float]:
    if not isinstance(row, Mapping):
        raise ValueError(f"devices[{i}]: {row!r} is not a mapping")
    where = f"devices[{i}]"
    known = {*_REQUIRED, *DEVICE_DEFAULTS, "cache_bits", "id"}
    if unknown := sorted(str(k) for k in row.keys() - known):
        raise ValueError(
            f"{where}.{', '.join(unknown)}: no key of a device; it has {', '.join(sorted(known))}"
        )
    if missing := [key for key in _REQUIRED if key not in row]:
        raise ValueError(f"{where}: {', '.join(missing)} missing")
    of = {key: _number(f"{where}.{key}", row[key]) for key in _REQUIRED}
    of |= {key: _number(f"{where}.{key}", row.get(key, default)) for key, default in DEVICE_DEFAULTS.items()}
    of["cache_bits"] = _number(f"{where}.cache_bits", row.get("cache_bits", of["bits"]))
    if not of["error"] < 0.5:
        raise ValueError(f"{where}.error: {of['error']!r} is not below 0.5")
    for key in ("ue_deviation", "edge_deviation"):
        if not -1.0 < of[key] < 1.0:
            raise ValueError(f"{where}.{key}: {of[key]!r} is outside (-1, 1)")
    return of


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where}: {value!r} is no number")
    if isinstance(value, int) and abs(value) > MOST:  # too large an integer for a float as well
        raise ValueError(f"{where}: an integer outside {LEAST:g}..{MOST:g}")
    number, key = float(value), where.rsplit(".", 1)[-1]
    if not isfinite(number):
        raise ValueError(f"{where}: {value!r} is not finite")
    if number and not LEAST <= abs(number) <= MOST:
        raise ValueError(f"{where}: {value!r} is outside {LEAST:g}..{MOST:g}")
    if key not in _SIGNED and number < 0.0:
        raise ValueError(f"{where}: {value!r} is negative")
    if key in _POSITIVE and number == 0.0:
        raise ValueError(f"{where}: 0 is not positive")
    if key.endswith(("dbm", "dbm_per_hz")) and abs(number) > 250.0:
        raise ValueError(f"{where}: {value!r} dB is outside -250..250")
    return number
