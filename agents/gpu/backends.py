"""The GPUs of this host, by the name of a backend."""

from __future__ import annotations

from collections.abc import Sequence

from agents.gpu.device import GpuDevice, NoSuchGpu
from agents.gpu.emulated import EmulatedGpu

BACKENDS = ("emulated", "nvml")


def open_devices(backend: str, gpus: Sequence[str] = ()) -> Sequence[GpuDevice]:
    """The GPUs of a backend by its name: ``emulated`` is one emulated GTX 1650, ``nvml`` the real ones.

    ``gpus`` names some of them by UUID or index; empty: all. Raises ``ValueError`` for a backend that is not
    known and :class:`agents.gpu.device.GpuError` for GPUs that cannot be opened.
    """
    if backend == "nvml":
        from agents.gpu import nvml

        return nvml.open_gpus(gpus)
    if backend == "emulated":
        gpu = EmulatedGpu()
        for name in gpus:
            if name not in ("0", gpu.info.uuid):
                raise NoSuchGpu(f"GPU {name}: the emulated one is 0 {gpu.info.uuid}")
        return (gpu,)
    raise ValueError(f"GPU backend {backend!r} is not known; known: {', '.join(BACKENDS)}")
