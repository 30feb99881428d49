"""``python -m agents.emulator.warmup``: compiles the emulated cell into Numba's on-disk cache.

Where the installed tree is read-only, set ``NUMBA_CACHE_DIR`` to a folder that is not, here and later.
"""

from __future__ import annotations

import logging
import threading
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.emulator.spec import TestbedSpec

log = logging.getLogger(__name__)

_PATIENCE_S = 3.0


def warm_up(spec: TestbedSpec | None = None) -> tuple[float, bool]:
    """Runs an emulated testbed for a while, so that nothing is left to compile.

    ``spec``: the testbed that will run; without it, one that uses all of the compiled code. Returns the
    seconds that it took, and whether anything was compiled: that takes a minute or two, once for an
    installation, and the log says what is being waited for.
    """
    start = perf_counter()
    notice = threading.Timer(
        _PATIENCE_S,
        log.warning,
        ["preparing the emulated cell: its first start compiles it, a minute or two"],
    )
    notice.daemon = True
    notice.start()
    try:
        from agents.emulator import kernel
        from agents.emulator.build import new_state
        from agents.emulator.spec import EXTERNAL, FlowSpec, TestbedSpec, UeSpec
        from agents.emulator.testbed import EmulatedTestbed

        flows = [FlowSpec("flow-1", "ue-1"), FlowSpec("flow-2", "ue-1", (), kind=EXTERNAL)]
        default = TestbedSpec([UeSpec("ue-1", 1)], flows)
        kernel.compile_exchanges(new_state(default, 0))
        spec = spec or default
        bed = EmulatedTestbed(spec, seed=0)
        bed.set_quotas({}, {})
        bed.set_gpu_mhz(spec.edge.max_mhz)
        for flow, flow_spec in enumerate(spec.flows):
            if flow_spec.kind == EXTERNAL:
                bed.send(flow, "ul", 1000)
        bed.advance(200)
        bed.mac_report()
        bed.slice_use()
        bed.take_frames()
        bed.take_flow_events()
        bed.edge_utilisation()
    finally:
        notice.cancel()
    seconds = perf_counter() - start
    # Without a cache nothing hits, or misses.
    compiled = not all(f.stats.cache_hits for f in kernel.ENTRY_POINTS if f.signatures)
    if seconds > _PATIENCE_S:
        log.warning("emulated cell ready after %.0f s", seconds)
    return seconds, compiled


def main() -> None:
    seconds, compiled = warm_up()
    print(f"emulated cell {'compiled' if compiled else 'already compiled'} ({seconds:.1f} s)")


if __name__ == "__main__":
    main()
