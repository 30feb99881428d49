"""A GPU behind an interface: what the edge agent needs of it, and how a backend fails.

The interface is cut to fit NVML (``lock`` is ``nvmlDeviceSetGpuLockedClocks`` with minimum = maximum,
``read`` collects ``nvmlDeviceGetClockInfo``, ``...GetPowerUsage``, ``...GetTotalEnergyConsumption``,
``...GetUtilizationRates``, ``...GetTemperature`` and ``...GetCurrentClocksEventReasons``), so that the
service above it is the same for an emulated and a real GPU.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass


class GpuError(Exception):
    """A GPU call failed. ``name`` tells the kind in metrics."""

    name = "unknown"


class NoPermission(GpuError):
    """The driver refuses this user to change clocks."""

    name = "no_permission"


class NoDriver(GpuError):
    """There is no driver, or it does not answer."""

    name = "no_driver"


class DriverChanged(NoDriver):
    """The driver is not that of this process's library: only a new process can use it."""

    name = "driver_changed"


class NoSuchGpu(GpuError):
    """No GPU has this UUID or index."""

    name = "no_such_gpu"


class ClockNotSupported(GpuError):
    """The GPU cannot be locked, or not to this clock."""

    name = "clock_not_supported"


class GpuLost(GpuError):
    """The GPU was there and is gone (fallen off the bus, or needs a reset)."""

    name = "gpu_lost"


class GpuHangs(GpuError):
    """A call to the GPU does not return, or took far too long."""

    name = "gpu_hangs"


class ClockNotReached(GpuError):
    """The GPU took the lock, and another clock was read back until the deadline."""

    name = "clock_not_reached"


ERRORS: tuple[type[GpuError], ...] = (
    NoPermission,
    NoDriver,
    DriverChanged,
    NoSuchGpu,
    ClockNotSupported,
    GpuLost,
    GpuHangs,
    ClockNotReached,
    GpuError,
)
"""Every kind of error, for metrics that are there before the first of them."""


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """What does not change about a GPU. ``supported_sm_mhz`` ascends; empty: it cannot be locked.

    ``default_sm_mhz`` is the highest clock that an unlocked GPU takes, 0 where it does not say.
    """

    uuid: str
    name: str
    backend: str
    supported_sm_mhz: tuple[int, ...]
    default_sm_mhz: int

    def __post_init__(self) -> None:
        if list(self.supported_sm_mhz) != sorted(set(self.supported_sm_mhz)):
            raise ValueError(f"GPU {self.uuid}: supported SM clocks must ascend")


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a GPU; None where it does not report a field.

    ``mono_ns`` is the host's monotonic clock (ns) at the moment that ``energy_j`` and ``power_w`` stand for.
    Clocks in MHz as the hardware runs them, ``power_w`` in W, ``energy_j`` in J since the driver was loaded
    (never falls), ``utilisation`` 0..1, ``temperature_c`` in degrees Celsius; ``clock_event_reasons`` are
    NVML's clocks event reasons in lower case (``gpu_idle``, ``applications_clocks_setting``,
    ``sw_thermal_slowdown``, ...).
    """

    mono_ns: int
    sm_mhz: int | None
    memory_mhz: int | None
    power_w: float | None
    energy_j: float | None
    utilisation: float | None
    temperature_c: float | None
    clock_event_reasons: tuple[str, ...] = ()


class GpuDevice(abc.ABC):
    """One GPU. Every method may be called from several threads and raises only :class:`GpuError`."""

    @property
    @abc.abstractmethod
    def info(self) -> GpuInfo:
        """Identity and supported clocks; never raises."""

    @abc.abstractmethod
    def lock(self, mhz: int) -> None:
        """Ask for this SM clock. Returning does not promise the clock: :meth:`sm_mhz` tells.

        Raises :class:`ClockNotSupported` where ``mhz`` is not one of ``info.supported_sm_mhz``.
        """

    @abc.abstractmethod
    def unlock(self) -> None:
        """Back to default clocks; no effect where nothing is locked."""

    @abc.abstractmethod
    def read(self) -> Reading:
        """Read the state back from the hardware."""

    def sm_mhz(self) -> int | None:
        """The SM clock alone, which a backend may read for less than the whole state."""
        return self.read().sm_mhz

    def probe(self) -> None:
        """Raises where the GPU does not answer; a field that it does not report is an answer."""
        self.sm_mhz()

    def close(self) -> None:
        """Give the handle back. Does not change clocks."""
        return None


@dataclass(frozen=True, slots=True)
class MissingGpu:
    """A GPU that could not be opened. ``name`` is its UUID, or its index where that could not be read.

    ``open`` tries again and raises :class:`GpuError`; it returns when the driver does.
    """

    name: str
    error: GpuError
    open: Callable[[], GpuDevice]


def supported_clock(info: GpuInfo, mhz: int) -> int:
    """The clock to lock for a wish of ``mhz``: the nearest supported one at or above, else the highest.

    Rounding up keeps the promise that a holder gets at least what it asked for, as far as the GPU can.
    Raises :class:`ClockNotSupported` for a GPU that lists no clock.
    """
    if not info.supported_sm_mhz:
        raise ClockNotSupported(f"GPU {info.uuid}: lists no clock to lock")
    return next((clock for clock in info.supported_sm_mhz if clock >= mhz), info.supported_sm_mhz[-1])
