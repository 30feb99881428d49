"""The GPUs of this host, by the name of a backend."""

from __future__ import annotations

from collections.abc import Sequence

from agents.gpu.device import GpuDevice
from agents.gpu.emulated import EmulatedGpu


def open_devices(backend: str) -> Sequence[GpuDevice]:
    """The GPUs of a backend by its name; ``emulated`` is one emulated GTX 1650.

    Raises ``ValueError`` for a name that is not known.
    """
    if backend == "emulated":
        return (EmulatedGpu(),)
    raise ValueError(f"GPU backend {backend!r} is not known; known: emulated")
