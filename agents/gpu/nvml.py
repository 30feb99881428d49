"""The GPUs of this host through NVML (``nvidia-ml-py``, module ``pynvml``).

What NVML does not promise, as its API reference has it: that a lock is honoured (power and thermal limits
hold the clock lower), that a field exists on a GPU (``NVML_ERROR_NOT_SUPPORTED``), or that a GPU that was
there still is. Changing clocks takes root; the kernel module asks for CAP_SYS_ADMIN. Reading takes nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import Any

from agents.gpu.calls import begin, bounded
from agents.gpu.device import (
    ClockNotSupported,
    DriverChanged,
    GpuDevice,
    GpuError,
    GpuHangs,
    GpuInfo,
    GpuLost,
    MissingGpu,
    NoDriver,
    NoPermission,
    NoSuchGpu,
    Reading,
)
from wire.definitions.extras import missing

log = logging.getLogger(__name__)

RESTART_S, RESTART_MAX_S = 1.0, 60.0
"""Between attempts to open NVML anew after the driver or a GPU was lost: each waits twice as long (s)."""
OPEN_S, KNOWN_S, CLOSE_S = 5.0, 1.0, 1.0
"""NVML and a GPU are given so long to be opened, a GPU to say its UUID, NVML to be given back (s)."""

_KINDS: dict[str, type[GpuError]] = {
    "NVML_ERROR_UNINITIALIZED": NoDriver,
    "NVML_ERROR_DRIVER_NOT_LOADED": NoDriver,
    "NVML_ERROR_LIBRARY_NOT_FOUND": NoDriver,
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": DriverChanged,
    "NVML_ERROR_NO_PERMISSION": NoPermission,
    "NVML_ERROR_NOT_FOUND": NoSuchGpu,
    "NVML_ERROR_GPU_NOT_FOUND": NoSuchGpu,
    "NVML_ERROR_NOT_SUPPORTED": ClockNotSupported,
    "NVML_ERROR_FREQ_NOT_SUPPORTED": ClockNotSupported,
    "NVML_ERROR_FUNCTION_NOT_FOUND": ClockNotSupported,
    "NVML_ERROR_GPU_IS_LOST": GpuLost,
    "NVML_ERROR_RESET_REQUIRED": GpuLost,
}

_REMEDIES = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": "libnvidia-ml.so.1 comes with NVIDIA's driver, in a container with its"
    " Container Toolkit",
    "NVML_ERROR_DRIVER_NOT_LOADED": "nvidia-smi on this host says more",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "libnvidia-ml.so.1 of this process is not that of the kernel module"
    " that is loaded: the driver was changed",
}
"""What helps where no GPU can be reached."""

PACKAGE = "nvidia-ml-py>=12.560"
_NEEDED = (
    "NVMLError",
    "NVMLError_InvalidArgument",
    "NVML_CLOCK_MEM",
    "NVML_CLOCK_SM",
    "NVML_TEMPERATURE_GPU",
    "nvmlDeviceGetApplicationsClock",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetMaxClockInfo",
    "nvmlDeviceGetName",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetSupportedGraphicsClocks",
    "nvmlDeviceGetSupportedMemoryClocks",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceResetGpuLockedClocks",
    "nvmlDeviceSetGpuLockedClocks",
    "nvmlInit",
    "nvmlShutdown",
    *_KINDS,
)
"""What the module ``pynvml`` must have: another package of PyPI, older, has the same name."""

REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons."""


def _pynvml() -> ModuleType:
    """The module ``pynvml`` of ``nvidia-ml-py``. Raises :class:`NoDriver` for want of it."""
    remedy = f"pip uninstall pynvml, then pip install --force-reinstall '{PACKAGE}'"
    try:
        spec = importlib.util.find_spec("pynvml")
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise NoDriver(str(missing("pynvml", "nvml", "a real GPU")))
    where = spec.origin or ", ".join(spec.submodule_search_locations or ()) or "pynvml"
    try:
        module = importlib.import_module("pynvml")
    except Exception as error:  # whatever a stranger's module may raise
        why = f"{type(error).__name__}: {error}"
        raise NoDriver(f"{where} cannot be imported ({why}): {remedy}") from error
    lacking = [name for name in _NEEDED if not hasattr(module, name)]
    if lacking:
        more = f" and {len(lacking) - 1} more" if lacking[1:] else ""
        raise NoDriver(f"{where} is not the pynvml of {PACKAGE}, it lacks {lacking[0]}{more}: {remedy}")
    return module


class Nvml:
    """NVML of this process, shared by its GPUs.

    A lost GPU or driver stays lost for a process until NVML is opened anew, so that the first call after such
    an error does that once :data:`RESTART_S` has passed; ``generation`` tells the GPUs that their handles
    are void.
    """

    def __init__(self) -> None:
        self.api: Any = _pynvml()
        self._kinds = {getattr(self.api, name): kind for name, kind in _KINDS.items()}
        self._mutex = threading.Lock()
        self._users, self._counting = 0, threading.Lock()
        self._broken_at: float | None = None
        self._restarted = -math.inf
        self._wait_s = RESTART_S
        self.generation = 0
        bounded(self._init, OPEN_S, "NVML: nvmlInit")

    def _init(self) -> None:
        """Open NVML. Raises :class:`NoDriver`."""
        try:
            self.api.nvmlInit()
        except self.api.NVMLError as error:
            kind = self.kind(error)
            raise (kind if issubclass(kind, NoDriver) else NoDriver)(f"NVML: {self._text(error)}") from error

    def _text(self, error: Any) -> str:
        remedy = next((r for name, r in _REMEDIES.items() if getattr(self.api, name) == error.value), "")
        return str(error).rstrip(".") + (f" ({remedy})" if remedy else "")

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """NVML's errors as ours; the message begins with ``what``."""
        try:
            yield
        except self.api.NVMLError as error:
            kind = self.kind(error)
            if issubclass(kind, GpuLost | NoDriver) and self._broken_at is None:
                self._broken_at = now = time.monotonic()
                # The others lose their handles too: a GPU that stays away must not cost them that for ever.
                soon = now - self._restarted < 2 * self._wait_s
                self._wait_s = min(2 * self._wait_s, RESTART_MAX_S) if soon else RESTART_S
            raise kind(f"{what}: {self._text(error)}") from error

    def kind(self, error: Any) -> type[GpuError]:
        """Which of our errors an ``NVMLError`` is."""
        return self._kinds.get(error.value, GpuError)

    def revive(self) -> None:
        """Open NVML anew where that is due. Raises :class:`NoDriver`."""
        if self._broken_at is None:
            return
        with self._mutex:
            now = time.monotonic()
            if self._broken_at is None or now - self._broken_at < self._wait_s:
                return
            self._broken_at = now
            with suppress(self.api.NVMLError):
                self.api.nvmlShutdown()
            self._init()
            self._restarted, self._broken_at = now, None
            self.generation += 1
            log.info("NVML was opened anew")

    def count(self) -> int:
        """GPUs of this host. Raises :class:`GpuError`."""
        with self.errors("NVML"):
            return int(bounded(self.api.nvmlDeviceGetCount, OPEN_S, "NVML: nvmlDeviceGetCount"))

    def uuid(self, gpu: str) -> str:
        """The UUID of a GPU named by UUID or index, empty where it cannot be read. Not bounded in time."""
        with suppress(self.api.NVMLError, NoSuchGpu):
            return str(self.api.nvmlDeviceGetUUID(self.handle(gpu)))
        return ""

    def known(self) -> list[str]:
        """Index and UUID of the GPUs that can be read, within a second."""
        with suppress(GpuError):
            calls = [begin(partial(self.uuid, str(index))) for index in range(self.count())]
            wait(calls, KNOWN_S)
            uuids = [uuid.result() if uuid.done() else "" for uuid in calls]
            return [f"{index} {uuid}" for index, uuid in enumerate(uuids) if uuid]
        return []

    def handle(self, gpu: str) -> Any:
        """NVML's handle of a GPU named by UUID or index. Raises its errors and :class:`NoSuchGpu`."""
        if not gpu.isdecimal():
            return self.api.nvmlDeviceGetHandleByUUID(gpu)
        count = self.api.nvmlDeviceGetCount()
        if int(gpu) >= count:  # pynvml would cut the number to 32 bits
            raise NoSuchGpu(f"GPU {gpu}: the indexes here end at {count - 1}")
        return self.api.nvmlDeviceGetHandleByIndex(int(gpu))

    def acquire(self) -> None:
        with self._counting:
            self._users += 1

    def release(self) -> None:
        """The last GPU to be closed closes NVML. Raises :class:`GpuHangs`."""
        with self._counting:
            self._users -= 1
            last = not self._users
        if last:
            self.close()

    def close(self) -> None:
        """Give NVML back. Raises :class:`GpuHangs`."""
        bounded(self._shut, CLOSE_S, "NVML: nvmlShutdown")

    def _shut(self) -> None:
        with self._mutex, suppress(self.api.NVMLError):
            self.api.nvmlShutdown()


class NvmlGpu(GpuDevice):
    """One GPU. ``gpu`` is its UUID or its index as nvidia-smi counts.

    Raises :class:`GpuError` where it cannot be opened.
    """

    def __init__(self, nvml: Nvml, gpu: str) -> None:
        self._nvml = nvml
        self._uuid = gpu
        self._gaps: set[str] = set()
        self._generation = nvml.generation
        self._closed = False
        api = nvml.api
        with nvml.errors(f"GPU {gpu}"):
            try:
                self._handle = nvml.handle(gpu)
            except api.NVMLError_InvalidArgument as error:
                raise NoSuchGpu(f"GPU {gpu}: {error}") from error
            self._uuid = str(api.nvmlDeviceGetUUID(self._handle))
            name = str(api.nvmlDeviceGetName(self._handle))
            supported = self._supported()
            default = self._field(api.nvmlDeviceGetMaxClockInfo, self._handle, api.NVML_CLOCK_SM)
        highest = supported[-1] if supported else 0
        self._info = GpuInfo(
            uuid=self._uuid,
            name=name,
            backend="nvml",
            supported_sm_mhz=supported,
            default_sm_mhz=min(default or highest, highest or default or 0),
        )
        if not supported:
            log.warning("gpu %s: lists no clocks; it can be watched, not locked", self._uuid)
        nvml.acquire()

    @property
    def info(self) -> GpuInfo:
        return self._info

    def lock(self, mhz: int) -> None:
        if mhz not in self._info.supported_sm_mhz:
            raise ClockNotSupported(f"GPU {self._uuid}: no SM clock of {mhz} MHz")
        api = self._nvml.api
        with self._use(f"cannot lock {mhz} MHz") as handle:
            try:
                api.nvmlDeviceSetGpuLockedClocks(handle, mhz, mhz)
            except api.NVMLError_InvalidArgument as error:
                raise ClockNotSupported(f"GPU {self._uuid}: cannot lock {mhz} MHz: {error}") from error

    def unlock(self) -> None:
        api = self._nvml.api
        # A GPU that cannot be locked is not locked.
        with suppress(ClockNotSupported), self._use("cannot release its clocks") as handle:
            try:
                api.nvmlDeviceResetGpuLockedClocks(handle)
            except api.NVMLError_InvalidArgument:
                if self._info.supported_sm_mhz:
                    raise

    def read(self) -> Reading:
        api = self._nvml.api
        with self._use("cannot be read") as handle:
            power_mw = self._field(api.nvmlDeviceGetPowerUsage, handle)
            energy_mj, mono_ns = self._energy(handle)
            rates = self._field(api.nvmlDeviceGetUtilizationRates, handle)
            reading = Reading(
                mono_ns=mono_ns,
                sm_mhz=self._field(api.nvmlDeviceGetClockInfo, handle, api.NVML_CLOCK_SM),
                memory_mhz=self._field(api.nvmlDeviceGetClockInfo, handle, api.NVML_CLOCK_MEM),
                power_w=None if power_mw is None else power_mw / 1e3,
                energy_j=None if energy_mj is None else energy_mj / 1e3,
                utilisation=None if rates is None else min(1.0, rates.gpu / 100),
                temperature_c=self._field(api.nvmlDeviceGetTemperature, handle, api.NVML_TEMPERATURE_GPU),
                clock_event_reasons=self._reasons(handle),
            )
            if power_mw is energy_mj is rates is reading.sm_mhz is reading.memory_mhz is None:
                self._answers(handle)
            return reading

    def sm_mhz(self) -> int | None:
        api = self._nvml.api
        with self._use("cannot be read") as handle:
            mhz: int | None = self._field(api.nvmlDeviceGetClockInfo, handle, api.NVML_CLOCK_SM)
            return mhz

    def probe(self) -> None:
        with self._use("does not answer") as handle:
            self._answers(handle)

    def _answers(self, handle: Any) -> None:
        """Raises NVML's error where the GPU says nothing; that it lacks a field says something."""
        api, said = self._nvml.api, None
        for call, *arguments in (
            (api.nvmlDeviceGetClockInfo, api.NVML_CLOCK_SM),
            (api.nvmlDeviceGetPowerUsage,),
            (api.nvmlDeviceGetUtilizationRates,),
        ):
            try:
                call(handle, *arguments)
                return
            except api.NVMLError as error:
                if issubclass(self._nvml.kind(error), ClockNotSupported | NoPermission):
                    return
                said = error
        if said is not None:
            raise said

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._nvml.release()

    @contextmanager
    def _use(self, what: str) -> Iterator[Any]:
        """The handle, opened anew where NVML was; NVML's errors as ours."""
        nvml = self._nvml
        nvml.revive()
        with nvml.errors(f"GPU {self._uuid}: {what}"):
            if self._generation != nvml.generation:
                generation = nvml.generation
                self._handle = nvml.api.nvmlDeviceGetHandleByUUID(self._uuid)
                self._generation = generation
            yield self._handle

    def _field(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What a call gives, None where this GPU, driver or user has no answer."""
        try:
            return call(*arguments)
        except self._nvml.api.NVMLError as error:
            if issubclass(self._nvml.kind(error), GpuLost | NoDriver):
                raise
            name = "/".join([call.__name__, *(str(a) for a in arguments[1:])])
            if name not in self._gaps:
                self._gaps.add(name)
                log.info("gpu %s: %s: %s", self._uuid, name, error)
            return None

    def _energy(self, handle: Any) -> tuple[int | None, int]:
        """Energy (mJ) and the monotonic time (ns) that it stands for.

        Another thread may run between the two readings, and powers are made of them: so the best of three.
        """
        tries = []
        for _ in range(3):
            begun = time.monotonic_ns()
            energy_mj = self._field(self._nvml.api.nvmlDeviceGetTotalEnergyConsumption, handle)
            took = time.monotonic_ns() - begun
            tries.append((took, energy_mj, begun + took // 2))
            if energy_mj is None or took < 2_000_000:
                break
        _, energy_mj, mono_ns = min(tries, key=lambda t: t[0])
        return energy_mj, mono_ns

    def _reasons(self, handle: Any) -> tuple[str, ...]:
        api = self._nvml.api
        bits = self._field(api.nvmlDeviceGetCurrentClocksEventReasons, handle)
        if bits is None:  # drivers before R535 have the call under its old name alone
            bits = self._field(api.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
        return tuple(name for bit, name in REASONS.items() if bits & bit)

    def _supported(self) -> tuple[int, ...]:
        """The SM clocks of the memory clock that the GPU takes under load.

        That is its applications clock where it has one, else the highest: an idle GPU lowers its memory
        clock, for which it lists fewer SM clocks.
        """
        api = self._nvml.api
        memory = self._field(api.nvmlDeviceGetApplicationsClock, self._handle, api.NVML_CLOCK_MEM)
        if not memory:
            memory = max(self._field(api.nvmlDeviceGetSupportedMemoryClocks, self._handle) or (0,))
        clocks = (
            self._field(api.nvmlDeviceGetSupportedGraphicsClocks, self._handle, memory) if memory else None
        )
        return tuple(sorted(set(clocks or ())))


def find_gpus(gpus: Sequence[str] = ()) -> tuple[list[NvmlGpu], list[MissingGpu]]:
    """The named GPUs (UUID or index; empty: all), and those of them that cannot be opened.

    Each is opened in a thread of its own; one that has not answered after :data:`OPEN_S` is missing with
    :class:`GpuHangs`, and its ``open`` waits for that thread. Raises :class:`NoDriver` where NVML cannot be
    opened, :class:`NoSuchGpu` where it knows no GPU.
    """
    nvml = Nvml()
    opened: list[NvmlGpu] = []
    missing: list[MissingGpu] = []
    hangs = False
    try:
        names = tuple(gpus) or tuple(str(index) for index in range(nvml.count()))
        if not names:
            raise NoSuchGpu("NVML: the driver knows no GPU")
        openings = [begin(partial(_opened, nvml, name)) for name in names]
        _, hanging = wait(openings, OPEN_S)
        hangs = bool(hanging)
        for name, opening in zip(names, openings, strict=True):
            if opening in hanging:
                error = GpuHangs(f"GPU {name}: not opened within {OPEN_S:g} s")
                missing.append(MissingGpu(name, error, partial(_opened_late, nvml, name, [opening])))
                continue
            found = opening.result()
            if isinstance(found, MissingGpu):
                missing.append(found)
            elif all(found.info.uuid != other.info.uuid for other in opened):
                opened.append(found)
            else:
                _close(found)
    finally:
        if not opened and not hangs:
            _close(nvml)
    return opened, missing


def open_some(gpus: Sequence[str] = ()) -> tuple[list[NvmlGpu], list[MissingGpu]]:
    """As :func:`find_gpus`, for who needs one GPU at least and no name that is wrong.

    Raises :class:`GpuError` where a named GPU does not exist, or none can be opened.
    """
    opened, missing = find_gpus(gpus)
    errors = [m.error for m in missing]
    wrong = [error for error in errors if gpus and isinstance(error, NoSuchGpu)]
    if wrong or not opened:
        for device in opened:
            _close(device)
        raise wrong[0] if wrong else errors[0]
    return opened, missing


def _close(what: Nvml | NvmlGpu) -> None:
    """Close what is not used; an error that is under way matters more than a driver that does not return."""
    try:
        what.close()
    except GpuHangs as error:
        log.error("%s", error)


def _opened(nvml: Nvml, gpu: str) -> NvmlGpu | MissingGpu:
    try:
        return NvmlGpu(nvml, gpu)
    except NoSuchGpu as error:
        error = NoSuchGpu(f"{error}; known: {', '.join(nvml.known()) or 'none'}")
        return MissingGpu(gpu, error, partial(_reopened, nvml, gpu))
    except GpuError as error:
        known = nvml.uuid(gpu) or gpu
        return MissingGpu(known, error, partial(_reopened, nvml, known))


def _opened_late(nvml: Nvml, gpu: str, begun: list[Future[NvmlGpu | MissingGpu]]) -> NvmlGpu:
    """What the opening that is ``begun`` gives at last; where it failed the next call begins another."""
    if not begun:
        return _reopened(nvml, gpu)
    found = begun.pop().result()
    if isinstance(found, MissingGpu):
        raise found.error
    return found


def _reopened(nvml: Nvml, gpu: str) -> NvmlGpu:
    nvml.revive()
    return NvmlGpu(nvml, gpu)
