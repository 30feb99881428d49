"""Entry points of the compiled cell. Only these are cached on disk; what they call is compiled into them.

Numba's cache looks at the file of the cached function alone. The digest of the model's sources is therefore a
closure value of the entry points, which is part of the cache's key.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from numba import njit

from agents.emulator import draws, layout, mac, transport
from agents.emulator.layout import FRAMES
from agents.emulator.mac import radio, radio_frame
from agents.emulator.transport import instants, stream_send
from wire.definitions import nr
from wire.definitions.nr import SLOT_NS, SLOTS_PER_FRAME

SOURCES = (draws, layout, mac, transport, nr)


def _digest() -> int:
    h = hashlib.sha256()
    for module in SOURCES:
        h.update(Path(str(module.__file__)).read_bytes())
    return int.from_bytes(h.digest()[:7], "little")


def _entry_points(digest: int) -> tuple[Any, Any, Any]:
    @njit(cache=True, **draws.OPTIONS)
    def advance(s: Any, until: int) -> int:
        """Runs NR slots up to, not including, ``until``; returns the sources' digest."""
        c = s.cell[0]
        n = c.slot
        while n < until:
            now = n * SLOT_NS
            if n % SLOTS_PER_FRAME == 0:
                radio_frame(s, n)
            if c.next_ns <= now:
                instants(s, now)
            busy = False
            for u in range(c.ues):
                if s.ue[u].busy == 1:
                    busy = True
                    break
            if busy and radio(s, n):
                n += 1
                continue
            frame = (n // SLOTS_PER_FRAME + 1) * SLOTS_PER_FRAME
            n = max(n + 1, min(frame, min(until, (c.next_ns + SLOT_NS - 1) // SLOT_NS)))
        c.slot = n
        return digest

    @njit(cache=True, **draws.OPTIONS)
    def collect(s: Any, out: Any) -> int:
        """Frames whose times changed since the last call into ``out`` (int64 [.., 6]); how many, or -1.

        -1 and nothing taken where ``out`` is too short.
        """
        c = s.cell[0]
        for pass_ in range(2):
            k = 0
            for i in range(c.flows):
                f = s.flow[i]
                first = max(f.report_from, f.frames - FRAMES)
                settled = True
                for q in range(first, f.frames):
                    fr = s.frames[i * FRAMES + (q & (FRAMES - 1))]
                    if fr.changed == 1:
                        if pass_ == 1:
                            out[k, 0], out[k, 1] = i, fr.seq
                            out[k, 2], out[k, 3] = fr.t_ue_sent, fr.t_edge_in
                            out[k, 4], out[k, 5] = fr.t_edge_out, fr.t_ue_in
                            fr.changed = 0
                        k += 1
                    if pass_ == 1 and settled:
                        if q < f.returned:
                            f.report_from = q + 1
                        else:
                            settled = False
            if k > len(out):
                return -1 if digest >= 0 else -2
        return k

    @njit(cache=True, **draws.OPTIONS)
    def send(s: Any, flow: int, direction: int, size: int) -> int:
        """Bytes of an external flow that enter now, at most ``size``; how many did."""
        return stream_send(s, flow, direction, size) if digest >= 0 else -1

    return advance, collect, send


DIGEST = _digest()
advance, collect, send = _entry_points(DIGEST)
