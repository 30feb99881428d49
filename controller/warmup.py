"""``python -m controller.warmup``: compiles what the services compile, into Numba's on-disk cache.

Where the installed tree is read-only, set ``NUMBA_CACHE_DIR`` to a folder that is not, here and later.
"""

from __future__ import annotations

from time import perf_counter

from controller import allocators
from controller.core.hops import Carrier
from controller.core.spec import LoopSpec


def main() -> None:
    """Makes a slice of each service once; one whose extra is not installed is named and left out."""
    for name in allocators.names():
        start = perf_counter()
        try:
            service = allocators.service(name)
        except ValueError as error:
            print(error)
            continue
        service.allocator(name, service.options(), LoopSpec("warm-up", 106, Carrier(), (), 1600))
        print(f"service {name} ready ({perf_counter() - start:.1f} s)")


if __name__ == "__main__":
    main()
