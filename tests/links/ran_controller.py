"""``python -m tests.links.ran_controller [KEYS]``: a RAN link that gives every cell quotas, in a process.

Prints its address. ``stall SECONDS`` on standard input has it stand still; the end of that ends it, and its
counters come as JSON.
"""

from __future__ import annotations

import json
import select
import sys
import time

from controller.links.ran import RanLink
from wire.security import curve_server

PERIOD_MS, LEASE_S = 10, 3.0


def main() -> None:
    curve = curve_server(sys.argv[1]) if sys.argv[1:] else None
    due = 0.0
    with RanLink("tcp://127.0.0.1:0", curve, report_period_ms=PERIOD_MS, lease_s=LEASE_S) as link:
        print(link.address, flush=True)
        while True:
            link.poll(0.02)
            if time.monotonic() >= due:
                due = time.monotonic() + 0.2
                for cell in link.cells:
                    link.set_quota(cell, {"ar": (30, 20)}, {}, 60.0)
            if select.select([sys.stdin], [], [], 0.0)[0]:
                words = sys.stdin.readline().split()
                if not words:
                    break
                time.sleep(float(words[1]))
        print(json.dumps({name: link.counters.get(name) for name, _ in link.counters.snapshot()}), flush=True)


if __name__ == "__main__":
    main()
