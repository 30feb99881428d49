"""``python -m agents.emulator.warmup``: compiles the emulated cell into Numba's on-disk cache.

Where the installed tree is read-only, set ``NUMBA_CACHE_DIR`` to a folder that is not, here and later.
"""

from __future__ import annotations

from time import perf_counter


def warm_up() -> tuple[float, bool]:
    """Compiles what is not in the cache yet: (seconds, whether anything was compiled)."""
    start = perf_counter()
    from agents.emulator import kernel
    from agents.emulator.spec import EXTERNAL, FlowSpec, TestbedSpec, UeSpec
    from agents.emulator.testbed import EmulatedTestbed

    flows = [FlowSpec("flow-1", "ue-1"), FlowSpec("flow-2", "ue-1", (), kind=EXTERNAL)]
    bed = EmulatedTestbed(TestbedSpec([UeSpec("ue-1", 1)], flows), seed=0)
    bed.send(1, "ul", 1000)
    bed.advance(200)
    bed.take_frames()
    compiled = any(f.stats.cache_misses for f in (kernel.advance, kernel.collect, kernel.send))
    return perf_counter() - start, compiled


def main() -> None:
    seconds, compiled = warm_up()
    print(f"emulated cell {'compiled' if compiled else 'already compiled'} ({seconds:.1f} s)")


if __name__ == "__main__":
    main()
