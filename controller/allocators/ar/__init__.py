"""The ``ar`` service (OpenRTiST): a bandit for each hop and hop state, as in the MUCB1 paper."""

from controller.allocators.ar.hop_bandits import ArAllocator

__all__ = ["ArAllocator"]
