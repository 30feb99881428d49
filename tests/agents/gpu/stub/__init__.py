"""The stub ``libnvidia-ml.so.1``: built from nvml_stub.c by the system's compiler, steered through a file."""

from __future__ import annotations

import atexit
import ctypes
import enum
import mmap
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml_stub.c")
LIBRARY = "libnvidia-ml.so.1"
STATE = "PRBANDIT_NVML_STUB"
"""Environment variable that names the state file."""
GPUS = tuple(f"GPU-00000000-0000-1650-0000-00000000000{i}" for i in range(2))
SUPPORTED_MHZ = tuple(range(300, 2101, 15))
BOOST_MHZ, IDLE_MHZ = 1905, 300
"""What an unlocked GPU takes under load and without."""
_MAGIC = 0x4E564D4C

UNINITIALIZED, INVALID_ARGUMENT, DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND = 1, 2, 9, 13
GPU_IS_LOST, RESET_REQUIRED, VERSION_MISMATCH, UNKNOWN = 15, 16, 18, 999


class Unsupported(enum.IntFlag):
    """Bits of ``GpuState.unsupported``."""

    SM_CLOCK = 1
    MEMORY_CLOCK = 2
    POWER = 4
    ENERGY = 8
    UTILISATION = 16
    TEMPERATURE = 32
    REASONS = 64
    CLOCK_LIST = 128
    LOCK = 256
    ALL = 511


class Hangs(enum.IntFlag):
    """Bits of ``StubState.hangs``."""

    INIT = 1
    COUNT = 2
    SHUTDOWN = 4


class GpuState(ctypes.Structure):
    """``struct gpu`` of nvml_stub.c."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("error", "no_permission", "unsupported", "lag_ms", "stuck")),
        *((name, ctypes.c_uint32) for name in ("ceiling_mhz", "load_percent", "applications_memory_mhz")),
        *((name, ctypes.c_uint32) for name in ("idle_mw", "uw_per_mhz", "locked_mhz", "locks", "resets")),
        *((name, ctypes.c_uint32) for name in ("from_mhz", "to_mhz", "hang")),
        ("offset_mhz", ctypes.c_int32),
        *((name, ctypes.c_uint32) for name in ("unknown", "vain", "idle_drops", "more_reasons")),
        ("change_ns", ctypes.c_uint64),
        ("at_ns", ctypes.c_uint64),
        ("energy_mj", ctypes.c_double),
    )


class StubState(ctypes.Structure):
    """``struct stub`` of nvml_stub.c."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("magic", "gpus", "init_error", "inits", "hangs")),
        ("gpu", GpuState * 2),
    )


class NoCompiler(Exception):
    """The stub cannot be built here; the text names what is missing."""


@cache
def build() -> Path:
    """The folder that holds the stub as ``libnvidia-ml.so.1``; built once a process. Raises NoCompiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("no C compiler (cc) for the stub libnvidia-ml.so.1")
    folder = Path(tempfile.mkdtemp(prefix="prbandit-nvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    command += [f"-Wl,-soname,{LIBRARY}", "-o", str(folder / LIBRARY), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    return folder


class Stub:
    """The GPUs behind the stub: their knobs and their state, shared with every process that uses the file."""

    def __init__(self, path: Path, *, gpus: int = 1) -> None:
        self.path = path
        path.write_bytes(bytes(ctypes.sizeof(StubState)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.state = StubState.from_buffer(self._map)
        self.state.magic = _MAGIC
        self.state.gpus = gpus
        for gpu in self.state.gpu:
            gpu.load_percent, gpu.idle_mw, gpu.uw_per_mhz = 50, 10_000, 24_000

    @property
    def gpu(self) -> GpuState:
        """The first GPU."""
        state: GpuState = self.state.gpu[0]
        return state

    def environment(self, **more: str) -> dict[str, str]:
        """For a process that is to find the stub before any driver of this machine."""
        return {**os.environ, "LD_LIBRARY_PATH": str(build()), STATE: str(self.path), **more}
