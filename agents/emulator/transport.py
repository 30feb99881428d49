"""Applications, TCP and the edge server: what happens at instants rather than in NR slots.

Compiled code, on the arrays of :class:`agents.emulator.layout.State`. A connection carries frames up and
results down; direction ``d`` is that of the data, its ACKs go the other way.
"""

from __future__ import annotations

import math
from typing import Any

from agents.emulator import draws
from agents.emulator.draws import compiled, inlined
from agents.emulator.layout import (
    ACK,
    ANSWER,
    AT_EDGE,
    BURST_UL,
    CBR_DL,
    CBR_UL,
    CLOCK_ORDERS,
    COMPLETE,
    DATA,
    DATAGRAM,
    DL,
    ECHO,
    EXCHANGE,
    EXTERNAL,
    FLOW_EVENTS,
    FRAMES,
    HOST,
    NEVER,
    OPENRTIST,
    PLANNED,
    PROBE,
    RAW,
    REQUEST,
    STREAM,
    STREAM_ACK,
    STREAM_PACKETS,
    TCP_SEGMENTS,
    TO_APPLICATION,
    TO_TESTBED,
    UL,
)
from agents.emulator.mac import backlog, datagram_dropped, enqueue, exchange_over, line_push
from wire.definitions.nr import SLOT_NS

_SECOND = 1_000_000_000


@inlined
def send_packet(s: Any, i: int, up: bool, size: int, kind: int, a: int, b: int, now: int) -> None:
    """A host hands an IP packet to the network: the UE to its modem, the edge towards the gNB."""
    c = s.cell[0]
    if up:
        enqueue(s, 2 * s.flow[i].ue, size, i, kind, a, b)
    else:
        c.down_tail = line_push(
            c, s.down, c.down_head, c.down_tail, now + c.dl_forward_ns, size, i, kind, a, b
        )


@inlined
def send_segment(s: Any, i: int, d: int, k: int, now: int) -> None:
    c, t = s.cell[0], s.tcp[2 * i + d]
    g = s.tcp_segments[(2 * i + d) * TCP_SEGMENTS + (k & (TCP_SEGMENTS - 1))]
    g.sent_ns = now
    t.last_send = now
    send_packet(s, i, d == UL, g.len + c.tcp_header, DATA, k, g.len, now)
    if t.rto_due == NEVER:
        t.rto_due = now + int(t.rto)


@inlined
def tcp_output(s: Any, i: int, d: int, now: int) -> None:
    """Sends what the congestion window and the receiver's window allow."""
    c, t = s.cell[0], s.tcp[2 * i + d]
    if t.next == t.una and now - t.last_send > t.rto:
        # Restart after idle (RFC 5681 4.1).
        t.cwnd = min(t.cwnd, float(c.window_0 * c.mss))
    t.limited = 0
    while t.next < t.app:
        size = min(c.mss, t.app - t.next)
        flight = t.next - t.una
        if t.seg_next - t.seg_una >= TCP_SEGMENTS:
            return
        if flight > 0 and flight + size > t.cwnd:
            t.limited = 1
            return
        if t.next + size > t.window:
            if flight == 0 and t.rto_due == NEVER:
                # Doubles as the persist timer: a lost window update must not stop the connection.
                t.rto_due = now + int(t.rto)
            return
        k = t.seg_next
        g = s.tcp_segments[(2 * i + d) * TCP_SEGMENTS + (k & (TCP_SEGMENTS - 1))]
        g.len, g.rexmit = size, 0
        t.seg_next += 1
        t.next += size
        send_segment(s, i, d, k, now)


@inlined
def write(s: Any, i: int, d: int, size: int) -> int:
    """Puts up to ``size`` bytes into the socket's send buffer; what fits."""
    t = s.tcp[2 * i + d]
    room = s.cell[0].send_buffer - (t.app - t.una)
    if room <= 0:
        return 0
    n = min(size, room)
    t.app += n
    return n


@compiled
def retransmit(s: Any, i: int, d: int, k: int, now: int) -> None:
    t = s.tcp[2 * i + d]
    s.tcp_segments[(2 * i + d) * TCP_SEGMENTS + (k & (TCP_SEGMENTS - 1))].rexmit = 1
    t.retransmitted += 1
    send_segment(s, i, d, k, now)


@compiled
def tcp_timeout(s: Any, i: int, d: int, now: int) -> None:
    """Retransmission timeout (RFC 6298), with the undo of a spurious one (in the manner of RFC 5682)."""
    c, t = s.cell[0], s.tcp[2 * i + d]
    t.rto_due = NEVER
    t.rto = min(2.0 * t.rto, float(c.rto_max))
    if t.seg_next == t.seg_una:
        if t.next < t.app:
            # Window probe with a segment of its own.
            t.window = max(t.window, t.next + min(c.mss, t.app - t.next))
            tcp_output(s, i, d, now)
        return
    if t.backoff == 0:
        t.undo_cwnd, t.undo_ssthresh = t.cwnd, t.ssthresh
        t.ssthresh = max((t.next - t.una) / 2.0, 2.0 * c.mss)
    t.backoff += 1
    t.undo = t.seg_una
    t.cwnd = float(c.mss)
    t.recover, t.recovering, t.dup = t.seg_next, 2, 0
    retransmit(s, i, d, t.seg_una, now)


@inlined
def ack_arrived(s: Any, i: int, d: int, k: int, window: int, now: int) -> None:
    """An ACK for everything before segment ``k``, with the receiver's window as a stream offset."""
    c, t = s.cell[0], s.tcp[2 * i + d]
    first = (2 * i + d) * TCP_SEGMENTS
    opened = window > t.window
    t.window = max(t.window, window)
    if k > t.seg_una:
        acked, rtt = 0, -1.0
        limited = t.limited == 1
        while t.seg_una < k:
            g = s.tcp_segments[first + (t.seg_una & (TCP_SEGMENTS - 1))]
            acked += g.len
            if g.rexmit == 0:
                rtt = float(now - g.sent_ns)
            t.seg_una += 1
        t.una += acked
        t.dup = 0
        if rtt >= 0.0:
            if t.srtt == 0.0:
                t.srtt, t.rttvar = rtt, rtt / 2.0
            else:
                t.rttvar = 0.75 * t.rttvar + 0.25 * abs(t.srtt - rtt)
                t.srtt = 0.875 * t.srtt + 0.125 * rtt
            t.rto = min(max(t.srtt + 4.0 * t.rttvar, float(c.rto_min)), float(c.rto_max))
        if t.recovering == 2 and k > t.undo + 1 and t.backoff == 1:
            # More than the one segment sent again is acknowledged: the timeout was spurious.
            t.recovering, t.backoff = 0, 0
            t.cwnd, t.ssthresh = t.undo_cwnd, t.undo_ssthresh
        elif t.recovering > 0 and k < t.recover:
            retransmit(s, i, d, k, now)
            if t.recovering == 1:
                t.cwnd = max(t.cwnd - acked + c.mss, float(c.mss))
            else:
                t.cwnd += c.mss
            t.backoff = 0
        elif t.recovering > 0:
            if t.recovering == 1:
                t.cwnd = t.ssthresh
            t.recovering, t.backoff = 0, 0
        elif limited:
            if t.cwnd < t.ssthresh:
                t.cwnd += min(float(acked), 2.0 * c.mss)
            else:
                t.cwnd += c.mss * acked / t.cwnd
        if t.recovering == 0:
            t.backoff = 0
        t.rto_due = NEVER if t.seg_una == t.seg_next else now + int(t.rto)
    elif t.seg_next > t.seg_una and not opened:
        t.dup += 1
        if t.recovering == 1:
            t.cwnd += c.mss
        elif t.dup == 3 and t.recovering == 0:
            t.ssthresh = max((t.next - t.una) / 2.0, 2.0 * c.mss)
            t.cwnd = t.ssthresh + 3.0 * c.mss
            t.recover, t.recovering = t.seg_next, 1
            retransmit(s, i, d, t.seg_una, now)
    if s.flow[i].kind == EXCHANGE:
        exchange_write(s, i, d)
    elif d == UL:
        client_write(s, i, now)
    else:
        server_write(s, i, now)
    tcp_output(s, i, d, now)


@inlined
def send_ack(s: Any, i: int, d: int, now: int) -> None:
    c, t = s.cell[0], s.tcp[2 * i + d]
    t.unacked, t.delack_due = 0, NEVER
    t.advertised = t.read + c.receive_buffer
    send_packet(s, i, d == DL, c.tcp_header, ACK, t.rcv_seg, t.advertised, now)


@inlined
def data_arrived(s: Any, i: int, d: int, k: int, now: int) -> None:
    """Segment ``k`` reaches its receiver, which acknowledges every second one (RFC 5681 4.2)."""
    c, t = s.cell[0], s.tcp[2 * i + d]
    first = (2 * i + d) * TCP_SEGMENTS
    if k < t.rcv_seg:
        send_ack(s, i, d, now)
        return
    g = s.tcp_segments[first + (k & (TCP_SEGMENTS - 1))]
    if k > t.rcv_seg:
        if g.have != k:
            g.have = k
            t.out_of_order += 1
        send_ack(s, i, d, now)
        return
    g.have = k
    at_once = t.out_of_order > 0
    t.out_of_order += 1
    before = t.rcv
    while True:
        g = s.tcp_segments[first + (t.rcv_seg & (TCP_SEGMENTS - 1))]
        if g.have != t.rcv_seg:
            break
        t.rcv += g.len
        t.rcv_seg += 1
        t.out_of_order -= 1
        t.unacked += 1
    if d == UL:
        s.flow[i].ul_delivered += t.rcv - before
    else:
        s.flow[i].dl_delivered += t.rcv - before
    if s.flow[i].kind == EXCHANGE:
        exchange_read(s, i, d, now)
    elif d == UL:
        server_read(s, i, now)
    else:
        client_read(s, i, now)
    if t.unacked >= 2 or (at_once and t.unacked > 0):
        send_ack(s, i, d, now)
    elif t.unacked > 0 and t.delack_due == NEVER:
        t.delack_due = now + c.delack_ns


@inlined
def touched(fr: Any) -> None:
    fr.changed = 1


@inlined
def exponential(s: Any, i: int, k: int, mean: float) -> int:
    """The gap of a Poisson process before emission ``k`` of a flow, ns."""
    return int(-mean * math.log(1.0 - draws.uniform(s.cell[0].seed, draws.GAP, i, k)))


@compiled
def emission(s: Any, i: int, now: int) -> None:
    """A flow without TCP sends: one packet, or a burst of the UE's in one go."""
    c, f = s.cell[0], s.flow[i]
    k = f.frames
    f.frames += 1
    if f.poisson == 1:
        gap = exponential(s, i, k, f.gap_min + 0.5 * f.gap_span)
    else:
        gap = int(f.gap_min + f.gap_span * draws.uniform(c.seed, draws.GAP, i, k))
    f.capture_due = now + max(gap, 1)
    if f.on_ticks == 1:
        # The source sees the scheduler's clock move only in NR slots with downlink, and sends then.
        n = f.capture_due // SLOT_NS + 1
        while s.tdd[1, (n + c.dl_known - 1) % c.period] < 0:
            n += 1
        f.capture_due = n * SLOT_NS + SLOT_NS // 2
    up = f.kind != ECHO and f.kind != CBR_DL
    kind = RAW
    if f.kind == ECHO or f.kind == BURST_UL:
        kind = PROBE
        fr = s.frames[i * FRAMES + (k & (FRAMES - 1))]
        if fr.changed == 1:
            f.frame_unreported += 1
            f.report_from = max(f.report_from, k - FRAMES + 1)
        fr.seq, fr.dl_size = k, f.packets
        fr.t_ue_sent, fr.t_edge_in, fr.t_edge_out, fr.t_ue_in = 0, 0, 0, 0
        if up:
            fr.t_ue_sent = now
        else:
            fr.t_edge_out = now
        touched(fr)
    else:
        f.report_from = f.frames
    for q in range(f.packets):
        size = f.burst // f.packets + (1 if q < f.burst % f.packets else 0)
        if f.kind == ECHO:
            due = now + c.dl_forward_ns
            c.down_tail = line_push(c, s.down, c.down_head, c.down_tail, due, size, i, kind, k, 0)
        else:
            offer(s, i, UL if up else DL, size, kind, k)


@inlined
def offer(s: Any, i: int, d: int, size: int, kind: int, k: int) -> None:
    """A packet without TCP enters an RLC queue, or is dropped and counted."""
    f = s.flow[i]
    taken = enqueue(s, 2 * f.ue + d, size, i, kind, k, 0)
    if d == UL:
        f.ul_offered += size
        f.ul_dropped += 0 if taken else size
    else:
        f.dl_offered += size
        f.dl_dropped += 0 if taken else size


@inlined
def probe_arrived(s: Any, p: Any, up: bool, now: int) -> None:
    """A packet of an echo or a burst is through. The UE answers an echo at once.

    A burst's ``t_edge_in`` is that of its latest packet, ``t_edge_out`` that of the last one of all.
    """
    i, k, size = p.flow, p.a, p.size
    f = s.flow[i]
    fr = s.frames[i * FRAMES + (k & (FRAMES - 1))]
    if fr.seq != k:
        return
    touched(fr)
    if not up:
        fr.t_ue_in, fr.t_ue_sent = now, now
        offer(s, i, UL, size, PROBE, k)
        return
    fr.t_edge_in = now
    if f.kind == BURST_UL:
        fr.dl_size -= 1
        if fr.dl_size > 0:
            return
        fr.t_edge_out = now
    f.returned = max(f.returned, k + 1)


@inlined
def stream_arrived(s: Any, p: Any, up: bool, now: int) -> None:
    """A packet of an external flow is through; every second one is acknowledged (RFC 5681 4.2)."""
    f, t = s.flow[p.flow], s.tcp[2 * p.flow + (UL if up else DL)]
    if up:
        f.ul_delivered += p.a
    else:
        f.dl_delivered += p.a
    t.seg_una += 1
    t.unacked += 1
    if t.unacked == 2:
        t.unacked = 0
        back = s.rlc[2 * f.ue + (DL if up else UL)]
        # They are cumulative: where so many packets wait, one less is no loss.
        if back.pk_tail - back.pk_head < s.cell[0].queue_packets // 2:
            send_packet(s, p.flow, not up, s.cell[0].tcp_header, STREAM_ACK, 0, 0, now)


@compiled
def stream_send(s: Any, i: int, d: int, size: int) -> int:
    """Up to ``size`` bytes of an external flow enter at the start of the present NR slot; how many did.

    No more than the send buffer are under way, and none that the UE's queue would drop. Bytes of the DL reach
    their queue later; what it then drops is counted.
    """
    c, f, t = s.cell[0], s.flow[i], s.tcp[2 * i + d]
    now = c.slot * SLOT_NS
    r = s.rlc[2 * f.ue + d]
    taken = 0
    while taken < size and t.seg_next - t.seg_una < STREAM_PACKETS:
        if d == UL:
            underway = f.ul_offered - f.ul_delivered - f.ul_dropped
        else:
            underway = f.dl_offered - f.dl_delivered - f.dl_dropped
        n = min(min(c.mss, size - taken), c.send_buffer - underway)
        whole = n + c.tcp_header
        if n <= 0 or backlog(r) + whole > c.queue_limit or r.pk_tail - r.pk_head >= c.queue_packets:
            break
        if d == DL and c.down_tail - c.down_head >= c.line_packets:
            break
        send_packet(s, i, d == UL, whole, STREAM, n, 0, now)
        t.seg_next += 1
        taken += n
        if d == UL:
            f.ul_offered += n
        else:
            f.dl_offered += n
    return taken


@compiled
def client_capture(s: Any, i: int, now: int) -> None:
    """The client takes a camera frame and begins to send it."""
    c, f = s.cell[0], s.flow[i]
    if f.frames - f.returned >= FRAMES:
        f.capture_due = now + f.frame_ns
        return
    k = f.frames
    fr = s.frames[i * FRAMES + (k & (FRAMES - 1))]
    if fr.changed == 1:
        f.frame_unreported += 1
        f.report_from = max(f.report_from, k - FRAMES + 1)
    z = draws.smooth(c.seed, draws.CONTENT, 2 * i, now / f.content_ns)
    rate = max(f.ul_max - f.ul_scale * max(z, 0.0) ** f.ul_power, f.ul_floor)
    spread = 1.0 + f.jitter * (2.0 * draws.uniform(c.seed, draws.JITTER, 2 * i, now) - 1.0)
    size = max(1, int(rate * spread * f.frame_ns / (8.0 * _SECOND) + 0.5))
    f.frames += 1
    f.ul_offered += size
    fr.seq, fr.ul_size, fr.dl_size, fr.ul_end, fr.dl_end = k, size, 0, f.ul_offered, 0
    fr.t_ue_sent, fr.t_edge_in, fr.t_edge_out, fr.t_ue_in = now, 0, 0, 0
    touched(fr)
    f.left, f.captured_ns, f.capture_due = size, now, NEVER
    client_write(s, i, now)
    tcp_output(s, i, UL, now)


@inlined
def client_write(s: Any, i: int, now: int) -> None:
    """The rest of the frame in hand goes into the socket; when it is in, the next capture can come."""
    f = s.flow[i]
    if f.left == 0:
        return
    f.left -= write(s, i, UL, f.left)
    if f.left == 0 and f.active == 1:
        gap = f.frame_ns
        if f.poisson == 1:
            gap = exponential(s, i, f.frames, f.frame_ns)
        f.capture_due = max(now, f.captured_ns + gap)


@inlined
def server_read(s: Any, i: int, now: int) -> None:
    """The server reads frames, as long as it does not hold too many of this client's."""
    c, f, t = s.cell[0], s.flow[i], s.tcp[2 * i + UL]
    while f.held < c.held_max and f.edge_read < f.frames:
        fr = s.frames[i * FRAMES + (f.edge_read & (FRAMES - 1))]
        if fr.ul_end > t.rcv:
            t.read = t.rcv
            break
        t.read = fr.ul_end
        fr.t_edge_in = now
        touched(fr)
        k = f.edge_read
        f.edge_read += 1
        f.held += 1
        gpu_push(s, i, k, now)
    if f.held < c.held_max and f.edge_read == f.frames:
        t.read = t.rcv
    # Tell a sender whose window had closed.
    if t.advertised - t.rcv < 2 * c.mss and t.read + c.receive_buffer - t.advertised >= 2 * c.mss:
        send_ack(s, i, UL, now)


@compiled
def stall_of(c: Any, k: int) -> tuple[int, int]:
    """Start and end of the stall that begins in second ``k``; both NEVER where there is none.

    The length is exponential, at most a second, which bounds how far back a stall can have begun.
    """
    if draws.uniform(c.seed, draws.STALL, 0, k) >= c.stall_rate:
        return NEVER, NEVER
    start = k * _SECOND + int(draws.uniform(c.seed, draws.STALL, 1, k) * _SECOND)
    length = -c.stall_mean_ns * math.log(1.0 - draws.uniform(c.seed, draws.STALL, 2, k))
    return start, start + int(min(length, 1.0 * _SECOND))


@inlined
def gpu_push(s: Any, i: int, k: int, now: int) -> None:
    """Frame or exchange ``k`` of a flow joins the GPU's queue, which has room for all that the rings hold."""
    c = s.cell[0]
    s.edge[c.edge_tail & (c.edge_queue - 1), 0] = i
    s.edge[c.edge_tail & (c.edge_queue - 1), 1] = k
    c.edge_tail += 1
    inference_start(s, now)


@inlined
def inference_start(s: Any, now: int) -> None:
    """The GPU takes the next frame if it is free. Work stands still during a stall."""
    c = s.cell[0]
    if c.serving >= 0 or c.edge_head == c.edge_tail:
        return
    while c.orders_head < c.orders_tail and s.orders[c.orders_head & (CLOCK_ORDERS - 1), 0] <= now:
        c.mhz = s.orders[c.orders_head & (CLOCK_ORDERS - 1), 1]
        c.orders_head += 1
    i = s.edge[c.edge_head & (c.edge_queue - 1), 0]
    c.serving, c.serving_frame = i, s.edge[c.edge_head & (c.edge_queue - 1), 1]
    c.edge_head += 1
    if s.flow[i].kind == EXCHANGE:
        slowdown = (c.base_ns + c.clocked_ns * c.max_mhz / c.mhz) / (c.base_ns + c.clocked_ns)
        work = int(s.exchanges[place(s.flow[i], c.serving_frame)].gpu_ns * slowdown * c.service_time)
    else:
        work = int((c.base_ns + c.clocked_ns * c.max_mhz / c.mhz) * s.flow[i].size * c.service_time)
    c.busy_ns += work
    at, left = now, work
    k = max(0, now // _SECOND - 1)
    while k <= (at + left) // _SECOND:
        start, end = stall_of(c, k)
        if start < at + left and end > at:
            if start > at:
                left -= start - at
            at = end
        k += 1
    c.edge_end = at + left
    if c.edge_end < c.next_ns:
        c.next_ns = c.edge_end


@compiled
def inference_end(s: Any) -> None:
    """The GPU is done with a frame: its result goes to the client's connection."""
    c = s.cell[0]
    now, i = c.edge_end, c.serving
    f = s.flow[i]
    if f.kind == EXCHANGE:
        k = c.serving_frame
        c.serving, c.edge_end = -1, NEVER
        inference_start(s, now)
        edge_work(s, i, k, now)
        return
    fr = s.frames[i * FRAMES + (c.serving_frame & (FRAMES - 1))]
    c.serving, c.edge_end = -1, NEVER
    fr.t_edge_out = now
    touched(fr)
    z = draws.smooth(c.seed, draws.CONTENT, 2 * i + 1, now / f.content_ns)
    rate = max(f.dl_max - f.dl_scale * max(z, 0.0) ** f.dl_power, f.dl_floor)
    spread = 1.0 + f.jitter * (2.0 * draws.uniform(c.seed, draws.JITTER, 2 * i + 1, now) - 1.0)
    fr.dl_size = max(1, int(rate * spread * f.frame_ns / (8.0 * _SECOND) + 0.5))
    f.dl_offered += fr.dl_size
    fr.dl_end = f.dl_offered
    f.inferred += 1
    inference_start(s, now)
    server_write(s, i, now)
    tcp_output(s, i, DL, now)


@inlined
def server_write(s: Any, i: int, now: int) -> None:
    """Results go into the socket in order; one that is in makes room for the next frame."""
    f, t = s.flow[i], s.tcp[2 * i + DL]
    freed = False
    while f.written < f.inferred:
        fr = s.frames[i * FRAMES + (f.written & (FRAMES - 1))]
        left = fr.dl_end - t.app
        if write(s, i, DL, left) < left:
            break
        f.written += 1
        f.held -= 1
        freed = True
    if freed:
        server_read(s, i, now)


@inlined
def client_read(s: Any, i: int, now: int) -> None:
    f, t = s.flow[i], s.tcp[2 * i + DL]
    t.read = t.rcv
    while f.returned < f.inferred:
        fr = s.frames[i * FRAMES + (f.returned & (FRAMES - 1))]
        if fr.dl_end > t.rcv:
            return
        fr.t_ue_in = now
        touched(fr)
        f.returned += 1


# -- exchanges ---------------------------------------------------------------------------------------
#
# An application (agents.emulator.applications) plans them; a request goes up, the edge works, an answer goes
# down. Over TCP both are streams. Datagrams are sent all at once and nobody repeats them above RLC and HARQ:
# a message of which one is lost never arrives, and its exchange has failed.


@inlined
def place(f: Any, k: int) -> int:
    """Row of State.exchanges that position ``k`` of a flow's ring has."""
    return f.ring_first + (k & (f.ring - 1))


@inlined
def exchange_plan(s: Any, i: int, due: int, ul_size: int, gpu_ns: int, edge_ns: int, dl_size: int) -> bool:
    """An exchange is to begin at ``due``, no earlier than the one before it; False where the ring is full."""
    c, f = s.cell[0], s.flow[i]
    seq = f.sequence
    f.sequence += 1
    if f.frames - f.returned >= f.ring:
        f.refused += 1
        return False
    k = f.frames
    x = s.exchanges[place(f, k)]
    if x.changed & TO_TESTBED:
        f.frame_unreported += 1
    x.position, x.seq, x.state, x.due, x.changed = k, seq, PLANNED, due, 0
    x.ul_size, x.gpu_ns, x.edge_ns, x.dl_size = ul_size, gpu_ns, edge_ns, dl_size
    x.t_ue_sent, x.t_edge_in, x.t_edge_out, x.t_ue_in = -1, -1, -1, -1
    x.next = -1
    f.frames += 1
    f.report_from = max(f.report_from, f.frames - f.ring)
    f.app_from = max(f.app_from, f.frames - f.ring)
    f.next_ns = min(f.next_ns, due)
    c.next_ns = min(c.next_ns, due)
    return True


@inlined
def exchanges_withdrawn(s: Any, i: int, now: int) -> int:
    """Takes back what a flow has planned for ``now`` or later; how many exchanges that were."""
    f = s.flow[i]
    n = 0
    while f.frames > f.begun and s.exchanges[place(f, f.frames - 1)].due >= now:
        f.frames -= 1
        n += 1
    f.sequence -= n
    return n


@inlined
def exchange_begin(s: Any, i: int, now: int) -> None:
    """The UE sends a request or, where there is none, the edge begins by itself."""
    f = s.flow[i]
    k = f.begun
    x = s.exchanges[place(f, k)]
    f.begun += 1
    x.t_ue_sent, x.changed = now, TO_TESTBED | TO_APPLICATION
    if x.ul_size == 0:
        request_received(s, i, k, now)
        return
    x.state = REQUEST
    f.ul_offered += x.ul_size
    x.ul_end, x.ul_left = f.ul_offered, x.ul_size
    send_message(s, i, UL, k, x.ul_size, now)


@compiled
def send_message(s: Any, i: int, d: int, k: int, size: int, now: int) -> None:
    """The request or the answer of exchange ``k`` goes into the connection, or out in datagrams at once."""
    c, f = s.cell[0], s.flow[i]
    if f.datagrams == 0:
        exchange_write(s, i, d)
        tcp_output(s, i, d, now)
        return
    left = size
    while left > 0:
        n = min(left, c.udp_payload)
        left -= n
        if d == UL:
            taken = enqueue(s, 2 * f.ue + UL, n + c.udp_header, i, DATAGRAM, k, n)
        else:
            taken = c.down_tail - c.down_head < c.line_packets
            due, whole = now + c.dl_forward_ns, n + c.udp_header
            c.down_tail = line_push(c, s.down, c.down_head, c.down_tail, due, whole, i, DATAGRAM, k, n)
        if not taken:
            datagram_dropped(s, i, d == UL, k, n)


@compiled
def datagram_arrived(s: Any, i: int, k: int, size: int, up: bool, now: int) -> None:
    """A datagram is at its host; with the last one the message is there. Its order is of no account."""
    f = s.flow[i]
    x = s.exchanges[place(f, k)]
    stands = x.position == k
    if up:
        f.ul_delivered += size
        if stands and x.state == REQUEST:
            x.ul_left -= size
            if x.ul_left == 0:
                request_received(s, i, k, now)
    else:
        f.dl_delivered += size
        if stands and x.state == ANSWER:
            x.dl_left -= size
            if x.dl_left == 0:
                answer_received(s, i, k, now)


@inlined
def exchange_write(s: Any, i: int, d: int) -> None:
    """What has begun goes into the socket's send buffer, in the order in which it began."""
    f = s.flow[i]
    left = (f.ul_offered if d == UL else f.dl_offered) - s.tcp[2 * i + d].app
    if left > 0:
        write(s, i, d, left)


@compiled
def exchange_read(s: Any, i: int, d: int, now: int) -> None:
    """The host reads all that has come, so that a message larger than the window streams through it."""
    f, t = s.flow[i], s.tcp[2 * i + d]
    t.read = t.rcv
    if d == UL:
        # Without a request nothing comes here, and the ring goes on.
        f.edge_read = max(f.edge_read, f.returned)
        while f.edge_read < f.begun:
            x = s.exchanges[place(f, f.edge_read)]
            if x.ul_size > 0 and x.ul_end > t.rcv:
                return
            f.edge_read += 1
            if x.ul_size > 0:
                request_received(s, i, f.edge_read - 1, now)
    else:
        while f.answer_head >= 0:
            k = f.answer_head
            x = s.exchanges[place(f, k)]
            if x.dl_end > t.rcv:
                return
            f.answer_head = x.next
            if f.answer_head < 0:
                f.answer_tail = -1
            answer_received(s, i, k, now)


@compiled
def request_received(s: Any, i: int, k: int, now: int) -> None:
    """A request is at the edge, whose GPU comes first."""
    x = s.exchanges[place(s.flow[i], k)]
    x.state, x.t_edge_in, x.changed = AT_EDGE, now, TO_TESTBED | TO_APPLICATION
    if x.gpu_ns > 0:
        gpu_push(s, i, k, now)
    else:
        edge_work(s, i, k, now)


@compiled
def edge_work(s: Any, i: int, k: int, now: int) -> None:
    """The rest of the edge's work, beside that of other exchanges: a list by the time at which it is done."""
    f = s.flow[i]
    x = s.exchanges[place(f, k)]
    x.ready = now + x.edge_ns
    before, after = -1, f.edge_work
    while after >= 0 and s.exchanges[place(f, after)].ready <= x.ready:
        before, after = after, s.exchanges[place(f, after)].next
    x.next = after
    if before < 0:
        f.edge_work = k
    else:
        s.exchanges[place(f, before)].next = k
    if x.ready < f.next_ns:
        f.next_ns = x.ready
        s.cell[0].next_ns = min(s.cell[0].next_ns, x.ready)


@inlined
def answer(s: Any, i: int, now: int) -> None:
    """The edge is done with an exchange and sends what goes back."""
    f = s.flow[i]
    k = f.edge_work
    x = s.exchanges[place(f, k)]
    f.edge_work, x.next = x.next, -1
    x.t_edge_out, x.changed = now, TO_TESTBED | TO_APPLICATION
    if x.dl_size == 0:
        exchange_over(s, i, x, COMPLETE)
        return
    x.state = ANSWER
    f.dl_offered += x.dl_size
    x.dl_end, x.dl_left = f.dl_offered, x.dl_size
    if f.datagrams == 0:
        if f.answer_tail >= 0:
            s.exchanges[place(f, f.answer_tail)].next = k
        else:
            f.answer_head = k
        f.answer_tail = k
    send_message(s, i, DL, k, x.dl_size, now)


@inlined
def answer_received(s: Any, i: int, k: int, now: int) -> None:
    x = s.exchanges[place(s.flow[i], k)]
    x.t_ue_in, x.changed = now, TO_TESTBED | TO_APPLICATION
    exchange_over(s, i, x, COMPLETE)


@inlined
def exchange_due(s: Any, i: int) -> int:
    """The next instant of a flow of exchanges that is no timer of TCP: one begins, or the edge is done."""
    f = s.flow[i]
    t = NEVER
    if f.begun < f.frames:
        t = s.exchanges[place(f, f.begun)].due
    if f.edge_work >= 0:
        t = min(t, s.exchanges[place(f, f.edge_work)].ready)
    return t


# -- instants ----------------------------------------------------------------------------------------


@inlined
def flow_timers(s: Any, i: int) -> None:
    """Brings a flow's next instant up to date."""
    f, a, b = s.flow[i], s.tcp[2 * i], s.tcp[2 * i + 1]
    t = NEVER
    if f.interval < f.intervals:
        t = s.intervals[f.interval, f.active]
    if f.active == 1:
        t = min(t, f.capture_due)
    if f.kind == EXCHANGE:
        t = min(t, exchange_due(s, i))
    f.next_ns = min(t, min(min(a.rto_due, a.delack_due), min(b.rto_due, b.delack_due)))


@compiled
def flow_event(s: Any, i: int, now: int) -> None:
    """The earliest of a flow's own instants: start, stop, capture or a TCP timer."""
    c, f = s.cell[0], s.flow[i]
    if f.interval < f.intervals and s.intervals[f.interval, f.active] <= now:
        x = s.events[c.events_tail & (FLOW_EVENTS - 1)]
        x.time, x.flow, x.start = now, i, 1 - f.active
        c.events_tail += 1
        if f.active == 0:
            f.active = 1
            if f.kind == OPENRTIST and f.left == 0:
                # The camera's phase: flows that start together do not capture together.
                f.capture_due = now + int(draws.uniform(c.seed, draws.PHASE, i, f.interval) * f.frame_ns)
            elif CBR_UL <= f.kind < EXTERNAL:
                f.capture_due = now + int(draws.uniform(c.seed, draws.PHASE, i, f.interval) * f.gap_min)
        else:
            f.active = 0
            f.capture_due = NEVER
            f.interval += 1
    elif f.active == 1 and f.capture_due <= now:
        if f.kind == OPENRTIST:
            client_capture(s, i, now)
        else:
            emission(s, i, now)
    elif f.kind == EXCHANGE and f.edge_work >= 0 and s.exchanges[place(f, f.edge_work)].ready <= now:
        answer(s, i, now)
    elif f.kind == EXCHANGE and f.begun < f.frames and s.exchanges[place(f, f.begun)].due <= now:
        exchange_begin(s, i, now)
    else:
        for d in (UL, DL):
            t = s.tcp[2 * i + d]
            if t.delack_due <= now:
                send_ack(s, i, d, now)
            if t.rto_due <= now:
                tcp_timeout(s, i, d, now)


@inlined
def packet_arrived(s: Any, p: Any, up: bool, now: int) -> None:
    """A packet reaches its host: the edge (``up``) or the UE."""
    i = p.flow
    if p.kind == PROBE:
        probe_arrived(s, p, up, now)
        return
    if p.kind >= STREAM:
        if p.kind == STREAM:
            stream_arrived(s, p, up, now)
        elif p.kind == DATAGRAM:
            datagram_arrived(s, i, p.a, p.b, up, now)
            flow_timers(s, i)
        return
    if p.kind == DATA:
        data_arrived(s, i, UL if up else DL, p.a, now)
    else:
        ack_arrived(s, i, DL if up else UL, p.a, p.b, now)
    flow_timers(s, i)


@inlined
def instants(s: Any, until: int) -> None:
    """Everything that falls due up to ``until`` ns, in the order of time."""
    c = s.cell[0]
    while True:
        t, source, which = c.edge_end, 0, 0
        if c.up_head < c.up_tail and s.up[c.up_head & (c.line_packets - 1)].due < t:
            t, source = s.up[c.up_head & (c.line_packets - 1)].due, 1
        if c.down_head < c.down_tail and s.down[c.down_head & (c.line_packets - 1)].due < t:
            t, source = s.down[c.down_head & (c.line_packets - 1)].due, 2
        for u in range(c.ues):
            if s.ue[u].host_due < t:
                t, source, which = s.ue[u].host_due, 3, u
        for i in range(c.flows):
            if s.flow[i].next_ns < t:
                t, source, which = s.flow[i].next_ns, 4, i
        if t > until:
            c.next_ns = t
            return
        if source == 0:
            i = c.serving
            inference_end(s)
            flow_timers(s, i)
        elif source == 1:
            p = s.up[c.up_head & (c.line_packets - 1)]
            c.up_head += 1
            packet_arrived(s, p, True, t)
        elif source == 2:
            p = s.down[c.down_head & (c.line_packets - 1)]
            c.down_head += 1
            if p.kind == PROBE:
                offer(s, p.flow, DL, p.size, p.kind, p.a)
            else:
                taken = enqueue(s, 2 * s.flow[p.flow].ue + DL, p.size, p.flow, p.kind, p.a, p.b)
                if p.kind == DATAGRAM and not taken:
                    datagram_dropped(s, p.flow, False, p.a, p.b)
                if p.kind == STREAM and not taken:
                    s.flow[p.flow].dl_dropped += p.a
                    s.tcp[2 * p.flow + DL].seg_una += 1
        elif source == 3:
            e = s.ue[which]
            p = s.host[which * HOST + (e.host_head & (HOST - 1))]
            e.host_head += 1
            e.host_due = NEVER
            if e.host_head < e.host_tail:
                e.host_due = s.host[which * HOST + (e.host_head & (HOST - 1))].due
            packet_arrived(s, p, False, t)
        else:
            flow_event(s, which, t)
            flow_timers(s, which)
