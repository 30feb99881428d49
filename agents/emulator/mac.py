"""The radio: RLC queues, HARQ, link adaptation, scheduling requests and the scheduler. One NR slot a call.

Compiled code, on the arrays of :class:`agents.emulator.layout.State`. ``row`` is ``2 * ue + direction``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from agents.emulator import draws
from agents.emulator.draws import compiled, inlined
from agents.emulator.layout import (
    ACK_SLOT,
    ACKS,
    ACKS_LEN,
    AM,
    COMPLETE,
    DATAGRAM,
    DISCARDED,
    DL,
    FAILED,
    GRANTS,
    HOST,
    LINK_LAW,
    LOST,
    NEVER,
    PROBE,
    PUSCH,
    PUSCH_LEN,
    RAW,
    REACH,
    RECEIVED,
    RESULTS,
    RESULTS_LEN,
    RETX,
    RETX_LEN,
    SATURATED_DL,
    SATURATED_UL,
    SEGMENTS,
    SHORT_PACKET_LAW,
    UL,
    UNDERWAY,
)
from wire.definitions import short_packets
from wire.definitions.nr import SLOT_NS, SLOTS_PER_FRAME

BSR_LEVELS = np.array(
    [
        *(0, 10, 14, 20, 28, 38, 53, 74, 102, 142, 198, 276, 384, 535, 745, 1038, 1446, 2014, 2806, 3909),
        *(5446, 7587, 10570, 14726, 20516, 28581, 39818, 55474, 77284, 107669, 150000),
    ],
    np.int64,
)
"""Buffer sizes in bytes (TS 38.321 Table 6.1.3.1-1); a larger buffer reads as :data:`BSR_TOP`."""
BSR_TOP = 300_000
"""What OAI takes a buffer of more than 150,000 bytes for. rfsim: backlogs of 77, 108, 150 and 300 kB."""

READY = -1
"""``due`` of a lost segment that waits for a transport block already."""

ASKED, UNASKED = 1, 2
"""Why a UE without known data gets a minimum grant: its scheduling request, or inactivity."""

SATURATED_BACKLOG = 600_000
SATURATED_PACKET = 1428
OUTAGE_DB = -30.0

error_probability = compiled(short_packets.error_probability)


@inlined
def bsr(size: int) -> int:
    """The buffer size that the gNB reads from a report of ``size`` bytes: the level at or above."""
    if size > 150_000:
        return BSR_TOP
    return BSR_LEVELS[np.searchsorted(BSR_LEVELS, size)]


@inlined
def backlog(r: Any) -> int:
    """Bytes of an RLC entity that wait for a transport block."""
    return r.queued - r.sent + r.am_bytes


@inlined
def enqueue(s: Any, row: int, size: int, flow: int, kind: int, a: int, b: int) -> bool:
    """Puts a packet of ``size`` IP bytes into an RLC queue; False where it was dropped."""
    c, r, e = s.cell[0], s.rlc[row], s.ue[row >> 1]
    r.packets_in += 1
    r.bytes_in += size
    waiting = backlog(r)
    if waiting + size > c.queue_limit or r.pk_tail - r.pk_head >= c.queue_packets:
        r.packets_dropped += 1
        r.bytes_dropped += size
        return False
    if row & 1 == UL and waiting == 0:
        e.sr_trigger = 1
    r.queued += size + c.l2_header
    p = s.packets[row * c.queue_packets + (r.pk_tail & (c.queue_packets - 1))]
    p.end, p.size, p.flow, p.kind, p.a, p.b, p.lost = r.queued, size, flow, kind, a, b, 0
    r.pk_tail += 1
    e.busy = 1
    return True


@inlined
def line_push(
    c: Any, line: Any, head: int, tail: int, due: int, p_size: int, flow: int, kind: int, a: int, b: int
) -> int:
    """Puts a packet on a delay line; the new tail, or the old one where it was dropped (and counted)."""
    if tail - head >= c.line_packets:
        c.line_drops += 1
        return tail
    x = line[tail & (c.line_packets - 1)]
    x.due, x.size, x.flow, x.kind, x.a, x.b = due, p_size, flow, kind, a, b
    if due < c.next_ns:
        c.next_ns = due
    return tail + 1


@compiled
def exchange_over(s: Any, i: int, x: Any, state: int) -> None:
    """An exchange is over. Those that are over and have none before them under way leave the flow's ring."""
    f = s.flow[i]
    x.state = state
    while f.returned < f.begun:
        first = s.exchanges[f.ring_first + (f.returned & (f.ring - 1))]
        if first.state != COMPLETE and first.state != FAILED:
            break
        f.returned += 1
    if state == COMPLETE:
        s.cell[0].wake |= f.wakes


@compiled
def datagram_dropped(s: Any, i: int, up: bool, position: int, size: int) -> None:
    """A datagram with ``size`` bytes of a message is gone, and the message with it: nobody sends it again."""
    f = s.flow[i]
    if up:
        f.ul_dropped += size
    else:
        f.dl_dropped += size
    x = s.exchanges[f.ring_first + (position & (f.ring - 1))]
    if x.position == position and x.state < COMPLETE:
        exchange_over(s, i, x, FAILED)


@inlined
def poll_instant(s: Any, u: int, t: int) -> int:
    """When the UE's modem hands over what it had at ``t``: one instant in every poll period."""
    c = s.cell[0]
    period = c.poll_ns
    if period == 0:
        return t
    k = t // period
    at = k * period + int(draws.uniform(c.seed, draws.POLL, u, k) * period)
    if at < t:
        at = (k + 1) * period + int(draws.uniform(c.seed, draws.POLL, u, k + 1) * period)
    return at


@inlined
def hand_up(s: Any, row: int, p: Any, due: int) -> None:
    """A complete packet leaves the radio."""
    c, r = s.cell[0], s.rlc[row]
    r.packets_out += 1
    r.bytes_out += p.size
    if RAW <= p.kind <= PROBE:
        f = s.flow[p.flow]
        if row & 1 == UL:
            f.ul_delivered += p.size
        else:
            f.dl_delivered += p.size
        if p.kind == RAW:
            return
    if row & 1 == UL:
        if p.kind == DATAGRAM and c.up_tail - c.up_head >= c.line_packets:
            datagram_dropped(s, p.flow, True, p.a, p.b)
        c.up_tail = line_push(c, s.up, c.up_head, c.up_tail, due, p.size, p.flow, p.kind, p.a, p.b)
    else:
        e = s.ue[row >> 1]
        if e.host_tail - e.host_head >= HOST:
            e.host_drops += 1
            if p.kind == DATAGRAM:
                datagram_dropped(s, p.flow, False, p.a, p.b)
            return
        x = s.host[(row >> 1) * HOST + (e.host_tail & (HOST - 1))]
        x.due, x.size, x.flow, x.kind, x.a, x.b = due, p.size, p.flow, p.kind, p.a, p.b
        if e.host_head == e.host_tail:
            e.host_due = due
        e.host_tail += 1
        if due < c.next_ns:
            c.next_ns = due


@inlined
def release(s: Any, row: int, n: int) -> None:
    """Hands up what is in order at the end of NR slot ``n`` (PDCP reordering, 38.323 5.2.2.2)."""
    c, r = s.cell[0], s.rlc[row]
    now = (n + 1) * SLOT_NS
    due = -1
    moved = False
    while r.sg_head < r.sg_tail:
        g = s.segments[row * SEGMENTS + (r.sg_head & (SEGMENTS - 1))]
        if g.state == UNDERWAY or (g.state == LOST and r.reorder_due > now):
            break
        if due < 0:
            if row & 1 == UL:
                due = now + c.pusch_ns + c.ul_forward_ns
            else:
                due = poll_instant(s, row >> 1, now + c.ue_dl_ns)
        while r.pk_head < r.pk_tail:
            p = s.packets[row * c.queue_packets + (r.pk_head & (c.queue_packets - 1))]
            if g.state == LOST or g.state == DISCARDED:
                if p.end - p.size - c.l2_header >= g.end:
                    break
                p.lost = 1
            if p.end > g.end:
                break
            if p.lost:
                r.packets_dropped += 1
                r.bytes_dropped += p.size
                if RAW <= p.kind <= PROBE:
                    if row & 1 == UL:
                        s.flow[p.flow].ul_dropped += p.size
                    else:
                        s.flow[p.flow].dl_dropped += p.size
                elif p.kind == DATAGRAM:
                    datagram_dropped(s, p.flow, row & 1 == UL, p.a, p.b)
            else:
                hand_up(s, row, p, due)
            r.pk_head += 1
        if g.state == RECEIVED:
            r.ahead -= 1
        r.sg_head += 1
        moved = True
    if r.ahead == 0 or c.am == 1:
        r.reorder_due = NEVER
    elif moved or r.reorder_due == NEVER:
        r.reorder_due = now + c.reordering_ns


@compiled
def next_of_one_law(s: Any, row: int, most: int) -> tuple[int, float]:
    """How many of the next ``most`` bytes at the queue's head are of packets whose flows have one decoding
    error, and that error; (0, 0) where none waits."""
    c, r = s.cell[0], s.rlc[row]
    error, end = -1.0, r.sent
    for k in range(r.pk_head, r.pk_tail):
        p = s.packets[row * c.queue_packets + (k & (c.queue_packets - 1))]
        if p.end <= r.sent:
            continue
        if error < 0.0:
            error = s.flow[p.flow].decoding_error
        elif s.flow[p.flow].decoding_error != error:
            break
        end = p.end
        if end - r.sent >= most:
            break
    return min(end - r.sent, most), max(error, 0.0)


@inlined
def fill(s: Any, row: int, h: Any) -> None:
    """Puts the queue's next bytes into transport block ``h``, RLC retransmissions first.

    Those of a UE with a decoding error also say which law the block follows, and are of one law.
    """
    r = s.rlc[row]
    room = h.tbs - s.cell[0].mac_header
    h.seg, h.rexmit, h.rexmit_bytes, h.taken = -1, -1, 0, 0
    if r.am_head < r.am_ready and room > 0:
        k = s.small[row, AM + (r.am_head & (SEGMENTS - 1))]
        g = s.segments[row * SEGMENTS + (k & (SEGMENTS - 1))]
        take = min(room, g.unsent)
        g.unsent -= take
        r.am_bytes -= take
        if g.unsent == 0:
            r.am_head += 1
        h.rexmit, h.rexmit_bytes, h.taken = k, take, take
        room -= take
    waiting = r.queued - r.sent
    if s.ue[row >> 1].decoding_error > 0.0:
        waiting, error = next_of_one_law(s, row, min(room, waiting))
        if h.rexmit >= 0:
            h.law = LINK_LAW
            if error > 0.0:
                waiting = 0
        elif waiting > 0:
            h.law = SHORT_PACKET_LAW if error > 0.0 else LINK_LAW
    if waiting > 0 and room > 0:
        if r.sg_tail - r.sg_head >= SEGMENTS:
            r.stalled += 1
            return
        take = min(room, waiting)
        g = s.segments[row * SEGMENTS + (r.sg_tail & (SEGMENTS - 1))]
        g.start, g.end, g.state, g.unsent, g.missing = r.sent, r.sent + take, UNDERWAY, 0, take
        h.seg = r.sg_tail
        r.sg_tail += 1
        r.sent += take
        h.taken += take


@inlined
def arrived(s: Any, row: int, k: int, size: int) -> None:
    g, r = s.segments[row * SEGMENTS + (k & (SEGMENTS - 1))], s.rlc[row]
    g.missing -= size
    if g.missing == 0:
        g.state = RECEIVED
        r.ahead += 1


@compiled
def given_up(s: Any, row: int, k: int, size: int, n: int) -> None:
    """A transport block with ``size`` bytes of segment ``k`` failed in its last HARQ round."""
    c, r = s.cell[0], s.rlc[row]
    g = s.segments[row * SEGMENTS + (k & (SEGMENTS - 1))]
    if c.am == 0:
        g.state = LOST
        return
    if g.unsent == 0:
        g.due = n + c.am_slots
        s.small[row, AM + (r.am_tail & (SEGMENTS - 1))] = k
        r.am_tail += 1
    elif g.due == READY:
        r.am_bytes += size
    g.unsent += size


@compiled
def retransmissions_due(s: Any, row: int, n: int) -> None:
    """Lost segments whose STATUS report has come join what waits for a transport block."""
    r = s.rlc[row]
    while r.am_ready < r.am_tail:
        k = s.small[row, AM + (r.am_ready & (SEGMENTS - 1))]
        g = s.segments[row * SEGMENTS + (k & (SEGMENTS - 1))]
        if g.due > n:
            return
        if row & 1 == UL and backlog(r) == 0:
            s.ue[row >> 1].sr_trigger = 1
        r.am_bytes += g.unsent
        r.am_ready += 1
        g.due = READY


@compiled
def transmit_short(s: Any, row: int, h: Any, snr_db: float, n: int) -> None:
    """The outcome of a block under the law of short packets, its only one: what is lost is lost for good."""
    c, r = s.cell[0], s.rlc[row]
    uses = float(h.prb * s.channel_uses[h.shape])
    probability = error_probability(8.0 * h.tbs, uses, 10.0 ** (snr_db / 10.0))
    h.ok = 1 if draws.uniform(c.seed, draws.BLER, row, n) >= probability else 0
    r.short_blocks += 1
    r.short_probability += probability
    if h.ok == 0:
        r.short_lost += 1
        if h.seg >= 0:
            s.segments[row * SEGMENTS + (h.seg & (SEGMENTS - 1))].state = DISCARDED
            release(s, row, n)


@inlined
def transmit(s: Any, row: int, pid: int, n: int, known: int) -> None:
    """Sends HARQ process ``pid`` in NR slot ``n``; the gNB knows the outcome at NR slot ``known``."""
    c, r, e = s.cell[0], s.rlc[row], s.ue[row >> 1]
    h = s.harq[row * 16 + pid]
    if h.round == 0:
        r.window_new += h.adapted
        r.harq_new += 1
    else:
        r.harq_retx += 1
    snr = e.snr_ul if row & 1 == UL else e.snr_dl
    x = (snr + c.harq_gain * h.round - s.midpoint[h.mcs]) / c.bler_scale
    if h.law == SHORT_PACKET_LAW:
        transmit_short(s, row, h, snr, n)
    elif snr <= OUTAGE_DB or x < -20.0:
        h.ok = 0
    elif x > 20.0:
        h.ok = 1
    else:
        h.ok = 1 if draws.uniform(c.seed, draws.BLER, row, n) * (1.0 + math.exp(x)) >= 1.0 else 0
    if h.ok == 1:
        if h.seg >= 0:
            g = s.segments[row * SEGMENTS + (h.seg & (SEGMENTS - 1))]
            arrived(s, row, h.seg, g.end - g.start)
        if h.rexmit >= 0:
            arrived(s, row, h.rexmit, h.rexmit_bytes)
        release(s, row, n)
    h.due = known
    s.small[row, RESULTS + (r.res_tail & (RESULTS_LEN - 1))] = pid
    if r.res_head == r.res_tail:
        r.res_due = known
    r.res_tail += 1


@inlined
def outcomes(s: Any, row: int, n: int) -> None:
    """HARQ outcomes that reach the gNB by NR slot ``n``."""
    c, r, e = s.cell[0], s.rlc[row], s.ue[row >> 1]
    while r.res_head < r.res_tail:
        pid = s.small[row, RESULTS + (r.res_head & (RESULTS_LEN - 1))]
        h = s.harq[row * 16 + pid]
        if h.due > n:
            r.res_due = h.due
            return
        r.res_head += 1
        if h.ok == 0 and h.round == 0:
            r.window_failed += h.adapted
        if h.ok == 0 and h.round + 1 < c.rounds and h.law == LINK_LAW:
            s.small[row, RETX + (r.retx_tail & (RETX_LEN - 1))] = pid
            r.retx_tail += 1
            continue
        r.free_harq |= 1 << pid
        if row & 1 == UL:
            e.scheduled -= h.tbs
        if h.ok == 1:
            if row & 1 == UL:
                r.lc_bytes += h.taken
                # A block that took several rounds carries an old report.
                if h.slot > e.bsr_slot:
                    e.bsr_slot = h.slot
                    e.estimate = h.bsr
        elif h.law == LINK_LAW:
            r.harq_failed += 1
            if h.seg >= 0:
                g = s.segments[row * SEGMENTS + (h.seg & (SEGMENTS - 1))]
                given_up(s, row, h.seg, g.end - g.start, n)
            if h.rexmit >= 0:
                given_up(s, row, h.rexmit, h.rexmit_bytes, n)
            if c.am == 0:
                release(s, row, n - 1)
    r.res_due = NEVER


@inlined
def pusch(s: Any, u: int, n: int) -> None:
    """The UE's transmission in UL slot ``n``, which it was granted."""
    row = 2 * u
    at = PUSCH + n % PUSCH_LEN
    pid = s.small[row, at]
    s.small[row, at] = -1
    e, h = s.ue[u], s.harq[row * 16 + pid]
    e.granted -= 1
    e.last_pusch = n
    if h.round == 0:
        h.slot = n
        if e.hold_from <= n < e.hold_until:
            # The grant goes out as padding, and the report says that nothing waits.
            h.seg, h.rexmit, h.rexmit_bytes, h.taken, h.bsr = -1, -1, 0, 0, 0
            e.sr_trigger = 1
        else:
            fill(s, row, h)
            h.bsr = bsr(backlog(s.rlc[row]))
            e.sr_trigger = 0
    transmit(s, row, pid, n, n + s.cell[0].ul_known)


@compiled
def scheduling_request(s: Any, u: int, n: int) -> None:
    """The UE has data and no grant: it asks for one at its SR occasion (38.321 5.4.4)."""
    c, e = s.cell[0], s.ue[u]
    if (n - e.sr_offset) % c.sr_period != 0 or e.hold_from <= n < e.hold_until:
        return
    if e.sr_trigger == 0:
        if n - e.last_pusch < c.retx_bsr:
            return
        e.sr_trigger = 1
    e.sr_known_slot = n + c.sr_known
    e.sr_silent_until = n + c.sr_prohibit


@inlined
def feedback_slot(s: Any, row: int, n: int) -> int:
    """First UL slot with room for the HARQ feedback of a PDSCH in ``n``, or -1; takes the room."""
    c = s.cell[0]
    for k in range(c.k1_min, c.k1_min + c.k1_span):
        m = n + k
        if s.tdd[2, m % c.period] == 0:
            continue
        at = m % ACKS_LEN
        if s.small[row, ACK_SLOT + at] != m:
            s.small[row, ACK_SLOT + at] = m
            s.small[row, ACKS + at] = 0
        if s.small[row, ACKS + at] < c.acks_per_slot:
            s.small[row, ACKS + at] += 1
            return m
    return -1


@inlined
def prb_for(s: Any, shape: int, mcs: int, need: int, low: int, high: int) -> int:
    """Fewest PRBs in low..high whose transport block holds ``need`` bytes, else ``high``."""
    if s.tbs[shape, mcs, high] <= need:
        return high
    while low < high:
        middle = (low + high) >> 1
        if s.tbs[shape, mcs, middle] >= need:
            high = middle
        else:
            low = middle + 1
    return low


@inlined
def short_packet_mcs(s: Any, shape: int, prb: int, snr: float, error: float, top: int) -> int:
    """Highest MCS up to ``top`` whose block is lost with at most ``error``, 0 where none is."""
    uses = float(prb * s.channel_uses[shape])
    low, high = 0, top
    while low < high:
        middle = (low + high + 1) >> 1
        if error_probability(8.0 * s.tbs[shape, middle, prb], uses, snr) <= error:
            low = middle
        else:
            high = middle - 1
    return low


@compiled
def short_packet_grant(s: Any, row: int, shape: int, need: int, limit: int, error: float) -> tuple[int, int]:
    """MCS and PRBs of a block under the law of short packets: the fewest PRBs that hold ``need`` bytes at the
    highest MCS that keeps to ``error``, else ``limit`` of them."""
    c, e = s.cell[0], s.ue[row >> 1]
    snr_db, top = (e.snr_ul, c.max_mcs_ul) if row & 1 == UL else (e.snr_dl, c.max_mcs_dl)
    snr = 10.0 ** ((snr_db - c.short_packet_margin) / 10.0)
    at_limit = short_packet_mcs(s, shape, limit, snr, error, top)
    # A smaller block has no higher MCS, but for the rounding of block sizes.
    prb = prb_for(s, shape, min(at_limit + 1, top), need, c.min_grant, limit)
    while prb < limit:
        mcs = short_packet_mcs(s, shape, prb, snr, error, top)
        if s.tbs[shape, mcs, prb] >= need:
            return mcs, prb
        prb += 1
    return at_limit, limit


@inlined
def first_of(turn: int, n: int) -> int:
    """Who of ``n`` comes first, as in ``oai_patches/glue/src/passes.c``: one further after eight rounds, or
    it would keep step with the TDD period."""
    return (turn + turn // (8 * n)) % n


@inlined
def schedule(s: Any, d: int, shape: int, n: int, m: int, dcis: int) -> int:
    """Grants of one direction in NR slot ``n`` for NR slot ``m``, that one or a later one; how many, at most
    ``dcis``.

    Retransmissions first: they keep PRBs, MCS and size, need an NR slot of the same shape, count inside
    their slice's quota where they fit and exceed it where not. A UE with a retransmission pending gets no new
    data. Then new data by the proportional-fair metric, slices with a quota before what has none. Grants that
    nobody asked for come last (OAI gives them first, which many idle UEs would turn into a full uplink).

    The pipeline: new data slice by slice, those with a quota in turn, but for a DCI that is kept for what has
    none, and a smallest grant where the quotas leave less; in each, of as many UEs as there are DCIs, by
    turns, those without known data first. The only DCI is kept once every slice has come first. Without any
    quota all UEs are one pass.
    """
    c = s.cell[0]
    granted = 0
    turn = 0
    if d == DL:
        turn = c.turn_dl
        c.turn_dl += 1
    else:
        turn = c.turn_ul
        c.turn_ul += 1
    avail = c.n_prb
    if d == DL:
        if c.ssb_period > 0 and n % (SLOTS_PER_FRAME * c.ssb_period) == 0:
            avail = min(avail, c.ssb_free)
    elif c.prach_period > 0:
        whole = SLOTS_PER_FRAME * c.prach_period
        if m % whole == whole - 1:
            avail = min(avail, c.prach_free)
    for i in range(c.slices):
        x = s.slices[i]
        x.left = x.quota_ul if d == UL else x.quota_dl
        x.slot_prb = 0
    candidates = 0
    for i in range(c.ues):
        u = (i + n) % c.ues
        e = s.ue[u]
        s.scratch[u] = -1.0
        if e.busy == 0 or e.hiccup_from <= n < e.hiccup_until:
            continue
        row = 2 * u + d
        r = s.rlc[row]
        if r.retx_head < r.retx_tail:
            pid = s.small[row, RETX + (r.retx_head & (RETX_LEN - 1))]
            h = s.harq[row * 16 + pid]
            if h.shape != shape or h.prb > avail or granted >= dcis:
                continue
            known = 0
            if d == DL:
                ack = feedback_slot(s, row, n)
                if ack < 0:
                    continue
                known = ack + c.dl_known
            granted += 1
            r.retx_head += 1
            h.round += 1
            s.small[row, GRANTS + SLOTS_PER_FRAME + m % SLOTS_PER_FRAME] += 1
            avail -= h.prb
            x = s.slices[e.slice]
            x.left = max(0, x.left - h.prb)
            r.prb_slots += h.prb
            if d == DL:
                x.retx_dl += h.prb
                transmit(s, row, pid, n, known)
            else:
                x.retx_ul += h.prb
                s.small[row, PUSCH + m % PUSCH_LEN] = pid
                e.granted += 1
                e.last_grant = n
            continue
        if r.free_harq == 0:
            continue
        if d == DL:
            if backlog(r) == 0:
                continue
        elif e.estimate - e.scheduled <= 0 and e.sr_flag == 0:
            continue
        candidates += 1
        s.scratch[u] = 1.0
    if candidates == 0:
        return granted
    if candidates > 1:
        for u in range(c.ues):
            if s.scratch[u] >= 0.0:
                r = s.rlc[2 * u + d]
                filtered = r.throughput * c.pf_keep ** (n - r.last_tb)
                s.scratch[u] = s.tbs[shape, r.mcs, c.n_prb] / max(filtered, 1e-3)
                if d == UL and s.ue[u].estimate <= s.ue[u].scheduled:
                    if c.pipeline == 1:
                        s.scratch[u] *= 1e12
                    elif s.ue[u].sr_flag == UNASKED:
                        s.scratch[u] *= 1e-12
    rounds, kept, held = 2, 0, 0
    if c.pipeline == 1:
        rounds, rest = 1, c.n_prb
        for i in range(c.slices):
            if s.slices[i].has_quota == 1:
                rounds += 1
                rest -= s.slices[i].quota_ul if d == UL else s.slices[i].quota_dl
        if dcis > 1 or first_of(turn, rounds) == rounds - 1:
            for u in range(c.ues):
                if s.scratch[u] >= 0.0 and s.slices[s.ue[u].slice].has_quota == 0:
                    kept, held = 1, c.min_grant if rest < c.min_grant else 0
    for k in range(rounds):
        quota, own = 1, -1
        if k == rounds - 1:
            quota, kept, held = 0, 0, 0
        elif c.pipeline == 1:
            place = (first_of(turn, rounds - 1) + k) % (rounds - 1)
            for i in range(c.slices):
                if s.slices[i].has_quota == 1:
                    if place == 0:
                        own = i
                    place -= 1
        if c.pipeline == 1 and rounds > 1:
            most = dcis - kept - granted
            for i in range(c.ues):
                v = (i + turn // rounds) % c.ues
                of = s.ue[v].slice
                if s.scratch[v] >= 0.0 and s.slices[of].has_quota == quota and (own < 0 or of == own):
                    if most <= 0:
                        s.scratch[v] = -1.0
                        candidates -= 1
                    most -= 1
        while candidates > 0 and avail - held >= c.min_grant and granted < dcis - kept:
            best, u = -1.0, -1
            for i in range(c.ues):
                v = (i + n) % c.ues
                of = s.ue[v].slice
                if s.scratch[v] > best and s.slices[of].has_quota == quota and (own < 0 or of == own):
                    best, u = s.scratch[v], v
            if u < 0:
                break
            s.scratch[u] = -1.0
            candidates -= 1
            e = s.ue[u]
            x = s.slices[e.slice]
            limit = min(avail - held, x.left)
            if limit < c.min_grant:
                continue
            prb = grant(s, 2 * u + d, shape, limit, n, m)
            granted += prb > 0
            avail -= prb
            x.left -= prb
            x.slot_prb += prb
    for i in range(c.slices):
        x = s.slices[i]
        if x.slot_prb > 0:
            if d == UL:
                x.new_ul += x.slot_prb
                x.max_ul = max(x.max_ul, x.slot_prb)
            else:
                x.new_dl += x.slot_prb
                x.max_dl = max(x.max_dl, x.slot_prb)
    return granted


@inlined
def grant(s: Any, row: int, shape: int, limit: int, n: int, m: int) -> int:
    """New data for one UE in at most ``limit`` PRBs of NR slot ``m``; the PRBs given, 0 where HARQ feedback
    has no room.

    The gNB knows by the logical channel whether what comes first follows the law of short packets. An UL
    grant that finds nothing waiting in a UE with such a flow is made for it.
    """
    c, e, r = s.cell[0], s.ue[row >> 1], s.rlc[row]
    known = 0
    if row & 1 == DL:
        ack = feedback_slot(s, row, n)
        if ack < 0:
            return 0
        known = ack + c.dl_known
        need = backlog(r)
    else:
        need = e.estimate - e.scheduled
    mcs, prb, law = r.mcs, c.min_grant, LINK_LAW
    if e.decoding_error > 0.0:
        size, error = next_of_one_law(
            s, row, min(r.queued - r.sent, s.tbs[shape, len(s.midpoint) - 1, limit])
        )
        if row & 1 == DL:
            need = size + r.am_bytes
        elif size == 0:
            error = e.decoding_error
        if error > 0.0 and r.am_head == r.am_ready:
            law = SHORT_PACKET_LAW
            most = limit if need > 0 else c.min_grant
            mcs, prb = short_packet_grant(s, row, shape, need + c.mac_header, most, error)
    if law == LINK_LAW and need > 0:
        prb = prb_for(s, shape, mcs, need + c.mac_header, c.min_grant, limit)
    pid = 0
    while (r.free_harq >> pid) & 1 == 0:
        pid += 1
    r.free_harq &= ~(1 << pid)
    h = s.harq[row * 16 + pid]
    h.prb, h.mcs, h.shape, h.round = prb, mcs, shape, 0
    h.law, h.adapted = law, 1 if law == LINK_LAW else 0
    h.tbs = s.tbs[shape, mcs, prb]
    r.throughput = r.throughput * c.pf_keep ** (n - r.last_tb) + (1.0 - c.pf_keep) * h.tbs
    r.last_tb = n
    r.prb_slots += prb
    at = GRANTS + m % SLOTS_PER_FRAME
    s.small[row, at] += 1
    s.small[row, at + 2 * SLOTS_PER_FRAME] += prb
    if row & 1 == DL:
        fill(s, row, h)
        r.lc_bytes += h.taken
        transmit(s, row, pid, n, known)
    else:
        e.sr_flag = 0
        e.scheduled += h.tbs
        e.last_grant = n
        e.granted += 1
        s.small[row, PUSCH + m % PUSCH_LEN] = pid
    return prb


@inlined
def uplink(s: Any, n: int) -> None:
    """Grants PUSCH in NR slot ``n``: of the UL slot K2 later or, in the pipeline, of one UL slot after the
    other, as far as its table reaches and there are DCIs.

    An UL slot in which nobody is granted is left to the next NR slot with downlink; the last of the period
    goes on behind it, or nobody would reach what comes then.
    """
    c = s.cell[0]
    m, left = n + c.k2, c.dcis
    if c.pipeline == 1:
        m = max(m, c.ul_next)
    while left > 0:
        if c.pipeline == 1:
            while s.tdd[2, m % c.period] == 0:
                m += 1
        shape = -1
        if REACH + m - n < s.tdd.shape[0]:
            shape = s.tdd[REACH + m - n, m % c.period]
        if shape < 0:
            break
        granted = schedule(s, UL, shape, n, m, left)
        if c.pipeline == 0 or (granted == 0 and n % c.period != c.last_dl):
            break
        left -= granted
        m += 1
    c.ul_next = m


@inlined
def radio(s: Any, n: int) -> bool:
    """NR slot ``n`` of the whole cell; True while some UE has radio work left."""
    c = s.cell[0]
    at = n % c.period
    now = n * SLOT_NS
    want_ul = want_dl = False
    for u in range(c.ues):
        e = s.ue[u]
        if e.busy == 0:
            continue
        # Calls cost more than these conditions: the arrays are handed over one by one.
        for row in range(2 * u, 2 * u + 2):
            r = s.rlc[row]
            if r.res_due <= n:
                outcomes(s, row, n)
            if r.am_ready < r.am_tail:
                retransmissions_due(s, row, n)
            if r.reorder_due <= now:
                release(s, row, n - 1)
        if e.sr_known_slot <= n:
            e.sr_known_slot = NEVER
            e.sr_flag = ASKED
        if s.tdd[2, at] > 0:
            if s.small[2 * u, PUSCH + n % PUSCH_LEN] >= 0:
                pusch(s, u, n)
            if e.granted == 0 and n >= e.sr_silent_until and (e.sr_trigger == 1 or backlog(s.rlc[2 * u]) > 0):
                scheduling_request(s, u, n)
        if n - e.last_grant >= c.inactivity and e.sr_flag == 0:
            e.sr_flag = UNASKED
        r = s.rlc[2 * u]
        want_ul |= r.retx_head < r.retx_tail or e.sr_flag > 0 or e.estimate > e.scheduled
        r = s.rlc[2 * u + 1]
        want_dl |= r.retx_head < r.retx_tail or backlog(r) > 0
    if s.tdd[1, at] >= 0:
        if want_dl:
            schedule(s, DL, s.tdd[1, at], n, n, c.dcis)
        if want_ul:
            uplink(s, n)
    any_busy = False
    for u in range(c.ues):
        e = s.ue[u]
        if e.busy == 0:
            continue
        a, b = s.rlc[2 * u], s.rlc[2 * u + 1]
        if (
            n - e.last_grant + c.period < c.inactivity
            and backlog(a) == 0
            and backlog(b) == 0
            and a.res_head == a.res_tail
            and b.res_head == b.res_tail
            and a.retx_head == a.retx_tail
            and b.retx_head == b.retx_tail
            and a.am_ready == a.am_tail
            and b.am_ready == b.am_tail
            and e.granted == 0
            and e.sr_flag == 0
            and e.sr_known_slot == NEVER
            and e.estimate <= e.scheduled
            and a.reorder_due == NEVER
            and b.reorder_due == NEVER
        ):
            e.busy = 0
        else:
            any_busy = True
    return any_busy


@compiled
def adapt(s: Any, row: int) -> None:
    """One update of the BLER loop of a (UE, direction)."""
    c, r = s.cell[0], s.rlc[row]
    if r.window_new > 0:
        r.bler = c.bler_keep * r.bler + (1.0 - c.bler_keep) * min(1.0, r.window_failed / r.window_new)
    top = c.max_mcs_ul if row & 1 == UL else c.max_mcs_dl
    if r.window_new <= c.mcs_idle:
        if r.mcs > c.mcs_floor:
            r.mcs -= 1
    elif r.bler < c.bler_lower and r.mcs < top:
        r.mcs += 1
    elif r.bler > c.bler_upper and r.mcs > 0:
        r.mcs -= 1
    r.window_new, r.window_failed = 0, 0


@compiled
def channel(s: Any, u: int, frame: int) -> None:
    """SNR of a UE in a radio frame."""
    c, e = s.cell[0], s.ue[u]
    ul, dl = e.mean_ul, e.mean_dl
    if e.trace_len > 0:
        t = e.trace_start_s + frame * 0.01
        k = int(t)
        dl = s.trace[e.trace_first + k % e.trace_len]
        after = s.trace[e.trace_first + (k + 1) % e.trace_len]
        if e.trace_hold == 0 and min(dl, after) > OUTAGE_DB:
            dl += (t - k) * (after - dl)
        ul = dl + e.ul_offset
    # The process starts in its stationary distribution.
    keep = e.rho if frame > 0 else 0.0
    turn = math.sqrt(1.0 - keep * keep)
    e.z_ul = keep * e.z_ul + turn * draws.gaussian(c.seed, draws.CHANNEL, 2 * u, frame)
    e.z_dl = keep * e.z_dl + turn * draws.gaussian(c.seed, draws.CHANNEL, 2 * u + 1, frame)
    e.snr_ul = ul + e.sd * e.z_ul + e.power_db
    e.snr_dl = dl + e.sd * e.z_dl


@compiled
def interruptions(s: Any, u: int, n: int, frame: int) -> None:
    """Begins the holds of a UE's uplink and its hiccups, at most one of each in a radio frame."""
    c, e = s.cell[0], s.ue[u]
    if c.hold_p > 0.0 and n >= e.hold_until and draws.uniform(c.seed, draws.HOLD, 3 * u, frame) < c.hold_p:
        e.hold_from = n + int(draws.uniform(c.seed, draws.HOLD, 3 * u + 1, frame) * SLOTS_PER_FRAME)
        length = c.hold_median * math.exp(c.hold_sigma * draws.gaussian(c.seed, draws.HOLD, 3 * u + 2, frame))
        e.hold_until = e.hold_from + int(length + 0.5)
    if (
        c.hiccup_p > 0.0
        and n >= e.hiccup_until
        and draws.uniform(c.seed, draws.HICCUP, 3 * u, frame) < c.hiccup_p
    ):
        e.hiccup_from = n + int(draws.uniform(c.seed, draws.HICCUP, 3 * u + 1, frame) * SLOTS_PER_FRAME)
        span = c.hiccup_max - c.hiccup_min
        length = c.hiccup_min + span * draws.uniform(c.seed, draws.HICCUP, 3 * u + 2, frame)
        e.hiccup_until = e.hiccup_from + int(length + 0.5)


@compiled
def radio_frame(s: Any, n: int) -> None:
    """What happens once a radio frame, at NR slot ``n``: channel, link adaptation, inactive UEs, sources."""
    c = s.cell[0]
    frame = n // SLOTS_PER_FRAME
    for u in range(c.ues):
        e = s.ue[u]
        channel(s, u, frame)
        interruptions(s, u, n, frame)
        if (frame + u) % c.mcs_period == 0:
            adapt(s, 2 * u)
            adapt(s, 2 * u + 1)
        if n - e.last_grant >= c.inactivity:
            e.busy = 1
    for i in range(c.flows):
        f = s.flow[i]
        if f.active == 0 or (f.kind != SATURATED_UL and f.kind != SATURATED_DL):
            continue
        row = 2 * f.ue + (UL if f.kind == SATURATED_UL else DL)
        while backlog(s.rlc[row]) < SATURATED_BACKLOG:
            if row & 1 == UL:
                f.ul_offered += SATURATED_PACKET
            else:
                f.dl_offered += SATURATED_PACKET
            if not enqueue(s, row, SATURATED_PACKET, i, RAW, 0, 0):
                if row & 1 == UL:
                    f.ul_dropped += SATURATED_PACKET
                else:
                    f.dl_dropped += SATURATED_PACKET
                break
