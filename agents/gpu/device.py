"""A GPU behind an interface: what the edge agent needs of it, and how a backend fails.

The interface is cut to fit NVML (``lock`` is ``nvmlDeviceSetGpuLockedClocks`` with minimum = maximum,
``read`` collects ``nvmlDeviceGetClockInfo``, ``...GetPowerUsage``, ``...GetTotalEnergyConsumption``,
``...GetUtilizationRates``, ``...GetTemperature`` and ``...GetCurrentClocksEventReasons``), so that the
service above it is the same for an emulated and a real GPU.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass


class GpuError(Exception):
    """A GPU call failed."""


class NoPermission(GpuError):
    """The driver refuses this user to change clocks."""


class NoDriver(GpuError):
    """There is no driver, or it does not answer."""


class NoSuchGpu(GpuError):
    """No GPU has this UUID."""


class ClockNotSupported(GpuError):
    """The GPU cannot be locked, or not to this clock."""


class GpuLost(GpuError):
    """The GPU was there and is gone (fallen off the bus, or needs a reset)."""


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """What does not change about a GPU. ``supported_sm_mhz`` ascends and is not empty.

    ``default_sm_mhz`` is the highest clock that an unlocked GPU takes.
    """

    uuid: str
    name: str
    backend: str
    supported_sm_mhz: tuple[int, ...]
    default_sm_mhz: int

    def __post_init__(self) -> None:
        if not self.supported_sm_mhz or list(self.supported_sm_mhz) != sorted(set(self.supported_sm_mhz)):
            raise ValueError(f"GPU {self.uuid}: supported SM clocks must ascend and not be empty")


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a GPU now.

    Clocks in MHz as the hardware runs them, ``power_w`` in W, ``energy_j`` in J since the driver was loaded
    (never falls), ``utilisation`` 0..1, ``temperature_c`` in degrees Celsius; ``clock_event_reasons`` are
    NVML's clocks event reasons in lower case (``gpu_idle``, ``applications_clocks_setting``,
    ``sw_thermal_slowdown``, ...).
    """

    sm_mhz: int
    memory_mhz: int
    power_w: float
    energy_j: float
    utilisation: float
    temperature_c: float
    clock_event_reasons: tuple[str, ...] = ()


class GpuDevice(abc.ABC):
    """One GPU. Every method may be called from several threads and raises only :class:`GpuError`."""

    @property
    @abc.abstractmethod
    def info(self) -> GpuInfo:
        """Identity and supported clocks; never raises."""

    @abc.abstractmethod
    def lock(self, mhz: int) -> None:
        """Ask for this SM clock. Returning does not promise the clock: :meth:`read` tells.

        Raises :class:`ClockNotSupported` where ``mhz`` is not one of ``info.supported_sm_mhz``.
        """

    @abc.abstractmethod
    def unlock(self) -> None:
        """Back to default clocks; no effect where nothing is locked."""

    @abc.abstractmethod
    def read(self) -> Reading:
        """Read the state back from the hardware."""

    def close(self) -> None:
        """Give the handle back. Does not change clocks."""
        return None


def supported_clock(info: GpuInfo, mhz: int) -> int:
    """The clock to lock for a wish of ``mhz``: the nearest supported one at or above, else the highest.

    Rounding up keeps the promise that a holder gets at least what it asked for, as far as the GPU can.
    """
    return next((clock for clock in info.supported_sm_mhz if clock >= mhz), info.supported_sm_mhz[-1])
