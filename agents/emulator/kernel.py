"""Entry points of the compiled cell. Only these are cached on disk; what they call is compiled into them.

Numba's cache looks at the file of the cached function alone. The digest of the model's sources is therefore a
closure value of the entry points, which is part of the cache's key.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from agents.emulator import draws, layout, mac, transport
from agents.emulator.layout import EXCHANGE, FRAMES, TO_APPLICATION, TO_TESTBED
from agents.emulator.mac import radio, radio_frame
from agents.emulator.transport import exchange_plan, exchanges_withdrawn, instants, place, stream_send
from wire.definitions import nr, short_packets
from wire.definitions.compiled import kept
from wire.definitions.nr import SLOT_NS, SLOTS_PER_FRAME

SOURCES = (draws, layout, mac, transport, nr, short_packets)


def _digest() -> int:
    h = hashlib.sha256()
    for module in SOURCES:
        h.update(Path(str(module.__file__)).read_bytes())
    return int.from_bytes(h.digest()[:7], "little")


@draws.inlined
def stamp(t: int, epoch: int) -> int:
    """A time of the run, -1 for not yet, as ns of the epoch, 0 for not yet."""
    return t + epoch if t >= 0 else 0


def _entry_points(digest: int) -> tuple[Any, ...]:
    @kept(**draws.OPTIONS)
    def advance(s: Any, until: int) -> int:
        """Runs NR slots up to, not including, ``until``; returns the sources' digest.

        Ends early, at the end of the NR slot, where an application waits for an exchange that has ended.
        """
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
            if (busy and radio(s, n)) or c.wake != 0:
                n += 1
                if c.wake != 0:
                    break
                continue
            frame = (n // SLOTS_PER_FRAME + 1) * SLOTS_PER_FRAME
            n = max(n + 1, min(frame, min(until, (c.next_ns + SLOT_NS - 1) // SLOT_NS)))
        c.slot = n
        return digest

    @kept(**draws.OPTIONS)
    def collect(s: Any, out: Any) -> int:
        """Frames whose times changed since the last call into ``out`` (int64 [.., 6]); how many, or -1.

        Columns: flow, sequence, four times in ns of the epoch, 0 for not yet. -1 and nothing taken where
        ``out`` is too short.
        """
        c = s.cell[0]
        epoch = c.epoch_ns
        for pass_ in range(2):
            k = 0
            for i in range(c.flows):
                f = s.flow[i]
                if f.kind == EXCHANGE:
                    for q in range(f.report_from, f.begun):
                        x = s.exchanges[place(f, q)]
                        if x.changed & TO_TESTBED:
                            if pass_ == 1:
                                out[k, 0], out[k, 1] = i, x.seq
                                out[k, 2], out[k, 3] = stamp(x.t_ue_sent, epoch), stamp(x.t_edge_in, epoch)
                                out[k, 4], out[k, 5] = stamp(x.t_edge_out, epoch), stamp(x.t_ue_in, epoch)
                                x.changed &= ~TO_TESTBED
                            k += 1
                    if pass_ == 1:
                        f.report_from = max(f.report_from, f.returned)
                    continue
                first = max(f.report_from, f.frames - FRAMES)
                settled = True
                for q in range(first, f.frames):
                    fr = s.frames[i * FRAMES + (q & (FRAMES - 1))]
                    if fr.changed == 1:
                        if pass_ == 1:
                            out[k, 0], out[k, 1] = i, fr.seq
                            out[k, 2] = fr.t_ue_sent + epoch if fr.t_ue_sent > 0 else 0
                            out[k, 3] = fr.t_edge_in + epoch if fr.t_edge_in > 0 else 0
                            out[k, 4] = fr.t_edge_out + epoch if fr.t_edge_out > 0 else 0
                            out[k, 5] = fr.t_ue_in + epoch if fr.t_ue_in > 0 else 0
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

    @kept(**draws.OPTIONS)
    def send(s: Any, flow: int, direction: int, size: int) -> int:
        """Bytes of an external flow that enter now, at most ``size``; how many did."""
        return stream_send(s, flow, direction, size) if digest >= 0 else -1

    @kept(**draws.OPTIONS)
    def plan(
        s: Any, first: int, user: Any, due: Any, ul_size: Any, gpu_ns: Any, edge_ns: Any, dl_size: Any
    ) -> int:
        """Exchanges of flows ``first + user``, int64 columns; how many found their flow's ring full."""
        refused = 0
        for k in range(len(user)):
            i = first + user[k]
            if not exchange_plan(s, i, due[k], ul_size[k], gpu_ns[k], edge_ns[k], dl_size[k]):
                refused += 1
        return refused if digest >= 0 else -1

    @kept(**draws.OPTIONS)
    def withdraw(s: Any, flow: int, now: int) -> int:
        """Exchanges of a flow that were planned for ``now`` or later and are not any more."""
        return exchanges_withdrawn(s, flow, now) if digest >= 0 else -1

    @kept(**draws.OPTIONS)
    def collect_exchanges(s: Any, first: int, end: int, out: Any) -> int:
        """As :func:`collect`, of the flows [first, end) for their application.

        Columns: user (flow - first), sequence, four times in ns from the start of the run, -1 for not yet.
        """
        for pass_ in range(2):
            k = 0
            for i in range(first, end):
                f = s.flow[i]
                for q in range(f.app_from, f.begun):
                    x = s.exchanges[place(f, q)]
                    if x.changed & TO_APPLICATION:
                        if pass_ == 1:
                            out[k, 0], out[k, 1] = i - first, x.seq
                            out[k, 2], out[k, 3], out[k, 4], out[k, 5] = (
                                x.t_ue_sent,
                                x.t_edge_in,
                                x.t_edge_out,
                                x.t_ue_in,
                            )
                            x.changed &= ~TO_APPLICATION
                        k += 1
                if pass_ == 1:
                    f.app_from = max(f.app_from, f.returned)
            if k > len(out):
                return -1 if digest >= 0 else -2
        return k

    return advance, collect, send, plan, withdraw, collect_exchanges


DIGEST = _digest()
ENTRY_POINTS = _entry_points(DIGEST)
advance, collect, send, plan, withdraw, collect_exchanges = ENTRY_POINTS


def compile_exchanges(s: Any) -> None:
    """Compiles what only applications call, on a state without exchanges."""
    nothing = np.empty(0, np.int64)
    plan(s, 0, nothing, nothing, nothing, nothing, nothing, nothing)
    withdraw(s, 0, 0)
    collect_exchanges(s, 0, 0, np.empty((0, 6), np.int64))
