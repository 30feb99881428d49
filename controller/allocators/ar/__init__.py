"""The ``ar`` service (OpenRTiST): a bandit for each hop and hop state, as in the MUCB1 paper."""

from controller import policies
from controller.allocators.ar import causes
from controller.allocators.ar.allocator import ArAllocator
from controller.allocators.ar.options import ArOptions
from controller.allocators.base import Service

SERVICE = Service(
    "ar",
    ArOptions,
    ArAllocator,
    causes=tuple(causes.Cause),
    miss=causes.of_record,
    five_qi=80,  # low-latency eMBB, augmented reality
    unit_test_options=(
        *({"policy": name} for name in policies.names()),
        {"metric": "p90", "queue": False},
    ),
)

__all__ = ["SERVICE", "ArAllocator", "ArOptions"]
