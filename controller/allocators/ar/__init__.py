"""The ``ar`` service (OpenRTiST): a bandit for each hop and hop state, as in the MUCB1 paper."""

from controller.allocators.ar.allocator import ArAllocator
from controller.allocators.ar.options import ArOptions
from controller.allocators.base import Service

SERVICE = Service("ar", ArOptions, ArAllocator)

__all__ = ["SERVICE", "ArAllocator", "ArOptions"]
