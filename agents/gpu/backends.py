"""The GPUs of this host, by the name of a backend."""

from __future__ import annotations

from collections.abc import Sequence

from agents.gpu.device import GpuDevice, MissingGpu, NoSuchGpu
from agents.gpu.emulated import EmulatedGpu

BACKENDS = ("emulated", "nvml")


def open_devices(backend: str, gpus: Sequence[str] = ()) -> tuple[Sequence[GpuDevice], Sequence[MissingGpu]]:
    """The GPUs of a backend by its name: ``emulated`` is one emulated GTX 1650, ``nvml`` the real ones.

    And those beside them that cannot be opened now. ``gpus`` names some by UUID or index; empty: all. Raises
    ``ValueError`` for a backend that is not known and :class:`agents.gpu.device.GpuError` for a name that is
    no GPU's, or where no GPU can be opened.
    """
    if backend == "nvml":
        from agents.gpu import nvml

        return nvml.open_some(gpus)
    if backend == "emulated":
        gpu = EmulatedGpu()
        for name in gpus:
            if name not in ("0", gpu.info.uuid):
                raise NoSuchGpu(f"GPU {name}: the emulated one is 0 {gpu.info.uuid}")
        return (gpu,), ()
    raise ValueError(f"GPU backend {backend!r} is not known; known: {', '.join(BACKENDS)}")
