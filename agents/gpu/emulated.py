"""An emulated GPU in the likeness of a GTX 1650, the card of the MUCB1 testbed.

What it models: the supported SM clocks, the lag between a clock request and the clock, power that is affine
in the clock (MUCB1 eq. 4) with a dynamic part that grows with utilisation, first-order temperature, an
energy counter, and a ceiling under which a slowdown holds the clock whatever is locked. Between two changes
everything is integrated in closed form, so that readings do not depend on how often they are taken.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from agents.gpu.device import ClockNotSupported, GpuDevice, GpuInfo, Reading

SUPPORTED_SM_MHZ = (*(mhz + step for mhz in range(300, 1600, 100) for step in range(0, 100, 15)), 1600)
"""300 to 1600 MHz in steps of 15 MHz, every whole hundred included (the step below one is 10 MHz)."""


@dataclass(frozen=True, slots=True)
class EmulatedGpuSpec:
    """Parameters of the emulated GPU; the power figures are in the range of a 75 W card."""

    uuid: str = "GPU-emulated-0"
    name: str = "Emulated GeForce GTX 1650"
    supported_sm_mhz: tuple[int, ...] = SUPPORTED_SM_MHZ
    default_sm_mhz: int = 1600
    memory_mhz: int = 4001
    idle_w: float = 9.0
    """Power at clock 0 and no load: the constant term of MUCB1 eq. 4 (W)."""
    dynamic_w: float = 60.0
    """Dynamic power at the highest clock and full utilisation (W)."""
    clocking_share: float = 0.15
    """Share of the dynamic power that the clock costs without load."""
    lag_min_s: float = 0.020
    lag_max_s: float = 0.050
    """Time from a request to the new clock: the minimum plus a part in proportion to the step (s)."""
    ambient_c: float = 30.0
    kelvin_per_w: float = 0.6
    thermal_time_constant_s: float = 45.0
    load_hold_s: float = 5.0
    """A source of load that says nothing for so long counts as idle (s)."""


class EmulatedGpu(GpuDevice):
    """See the module. ``clock`` gives monotonic seconds."""

    def __init__(
        self, spec: EmulatedGpuSpec | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spec = spec = spec or EmulatedGpuSpec()
        self._info = GpuInfo(spec.uuid, spec.name, "emulated", spec.supported_sm_mhz, spec.default_sm_mhz)
        self._clock = clock
        self._mutex = threading.Lock()
        self._at = clock()
        self._sm_mhz = spec.default_sm_mhz
        self._locked_mhz = 0
        self._ceiling_mhz = 0
        self._change: tuple[float, int] | None = None
        self._loads: dict[str, tuple[float, float]] = {}
        self._energy_j = 0.0
        self._temperature_c = spec.ambient_c + spec.kelvin_per_w * self._power(0.0)

    @property
    def info(self) -> GpuInfo:
        return self._info

    def lock(self, mhz: int) -> None:
        if mhz not in self._spec.supported_sm_mhz:
            raise ClockNotSupported(f"GPU {self._spec.uuid}: no SM clock of {mhz} MHz")
        self._request(locked_mhz=mhz)

    def unlock(self) -> None:
        self._request(locked_mhz=0)

    def set_ceiling(self, mhz: int) -> None:
        """Hold the clock at or below ``mhz`` as a thermal slowdown does; 0 ends it."""
        self._request(ceiling_mhz=mhz)

    def set_load(self, source: str, utilisation: float) -> None:
        """Say how busy ``source`` keeps the GPU (0..1). The loads of several sources add up to at most 1.

        Raises ``ValueError`` for a utilisation outside 0..1 or not a number.
        """
        if not 0.0 <= utilisation <= 1.0:
            raise ValueError(f"utilisation: {utilisation} is not in 0..1")
        with self._mutex:
            now = self._advance()
            if utilisation > 0.0:
                self._loads[source] = (utilisation, now + self._spec.load_hold_s)
            else:
                self._loads.pop(source, None)

    def read(self) -> Reading:
        with self._mutex:
            self._advance()
            utilisation = self._utilisation()
            reasons = []
            if self._ceiling_mhz and (self._locked_mhz or self._spec.default_sm_mhz) > self._ceiling_mhz:
                reasons.append("sw_thermal_slowdown")
            if self._locked_mhz:
                reasons.append("applications_clocks_setting")
            if utilisation == 0.0:
                reasons.append("gpu_idle")
            return Reading(
                mono_ns=round(self._at * 1e9),
                sm_mhz=self._sm_mhz,
                memory_mhz=self._spec.memory_mhz,
                power_w=self._power(utilisation),
                energy_j=self._energy_j,
                utilisation=utilisation,
                temperature_c=self._temperature_c,
                clock_event_reasons=tuple(reasons),
            )

    def _request(self, locked_mhz: int | None = None, ceiling_mhz: int | None = None) -> None:
        with self._mutex:
            now = self._advance()
            if locked_mhz is not None:
                self._locked_mhz = locked_mhz
            if ceiling_mhz is not None:
                self._ceiling_mhz = ceiling_mhz
            target = self._locked_mhz or self._spec.default_sm_mhz
            if self._ceiling_mhz:
                target = min(target, self._ceiling_mhz)
            if self._change is not None and self._change[1] == target:
                return
            if target == self._sm_mhz:
                self._change = None
                return
            spec = self._spec
            span = spec.supported_sm_mhz[-1] - spec.supported_sm_mhz[0] or 1
            step = min(1.0, abs(target - self._sm_mhz) / span)
            self._change = (now + spec.lag_min_s + (spec.lag_max_s - spec.lag_min_s) * step, target)

    def _utilisation(self) -> float:
        return min(1.0, math.fsum(load for load, _ in self._loads.values()))

    def _power(self, utilisation: float) -> float:
        spec = self._spec
        share = spec.clocking_share + (1.0 - spec.clocking_share) * utilisation
        return spec.idle_w + spec.dynamic_w * share * self._sm_mhz / spec.supported_sm_mhz[-1]

    def _advance(self) -> float:
        """Integrate up to now, through the clock change and the ends of loads on the way."""
        now = max(self._clock(), self._at)
        while True:
            ends = [end for _, end in self._loads.values()]
            if self._change is not None:
                ends.append(self._change[0])
            until = min([now, *ends])
            self._integrate(until - self._at)
            self._at = until
            if self._change is not None and self._change[0] <= until:
                self._sm_mhz = self._change[1]
                self._change = None
            for source in [s for s, (_, end) in self._loads.items() if end <= until]:
                del self._loads[source]
            if until >= now:
                return now

    def _integrate(self, seconds: float) -> None:
        if seconds <= 0.0:
            return
        spec = self._spec
        power = self._power(self._utilisation())
        settled = spec.ambient_c + spec.kelvin_per_w * power
        decay = math.exp(-seconds / spec.thermal_time_constant_s)
        self._temperature_c = settled + (self._temperature_c - settled) * decay
        self._energy_j += power * seconds
