"""From a specification to the arrays that the compiled cell works on (:mod:`agents.emulator.layout`)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from agents.emulator import layout as lay
from agents.emulator.channel import bler_midpoints, snr_grid
from agents.emulator.spec import (
    MAX_K2,
    OAI_2026,
    UDP,
    ApplicationSpec,
    CellSpec,
    ChannelProcess,
    FlowSpec,
    RateSpec,
    TestbedSpec,
    UserSpec,
)
from wire.definitions.nr import FRAME_MS, N_SC_PER_RB, SLOT_NS, SLOTS_PER_FRAME, tbs_table

IntArray = NDArray[np.int64]

# DM-RS resource elements of a PRB by data symbols of the NR slot's part, as OAI places them (rfsim).
_DMRS_DL = {13: 12}
_DMRS_UL = {13: 18, 5: 12}
_DMRS_ELSE = 6
_LEAST_MIXED_SYMBOLS = 3
"""UL symbols of a mixed slot below which oai-2026 has no PUSCH in it."""
_MAX_DCIS = 8
_PRB_OF_A_DCI = 24
"""What OAI takes: an aggregation level of 4 CCEs of 6 resource element groups."""
_FORGET_2024, _FORGET_2026 = 0.0005, 0.01


def _ns(ms: float) -> int:
    return round(ms * 1e6)


def new_state(spec: TestbedSpec, seed: int) -> lay.State:
    """The state at NR slot 0. ValueError, OSError as :func:`agents.emulator.channel.read_trace`."""
    tbs, channel_uses, tdd = _shapes(spec)
    flows: tuple[FlowSpec | UserSpec, ...] = (*spec.flows, *spec.users)
    intervals = [(round(a * 1e9), round(b * 1e9)) for f in flows for a, b in f.active]
    n_ue, n_flow = len(spec.ues), len(flows)
    exchanges = sum(a.exchanges * len(a.users) for a in spec.applications)
    edge_queue = 1 << (len(spec.flows) * spec.edge.frames_held + exchanges).bit_length()
    grids = [snr_grid(u.channel, spec.link) for u in spec.ues]
    s = lay.State(
        cell=np.zeros(1, lay.CELL),
        ue=np.zeros(n_ue, lay.UE),
        rlc=np.zeros(2 * n_ue, lay.RLC),
        harq=np.zeros(2 * n_ue * 16, lay.HARQ),
        packets=np.zeros(2 * n_ue * spec.rlc.queue_packets, lay.PACKET),
        segments=np.zeros(2 * n_ue * lay.SEGMENTS, lay.SEGMENT),
        small=np.zeros((2 * n_ue, lay.SMALL_RINGS), np.int64),
        slices=np.zeros(lay.MAX_SLICES, lay.SLICE),
        flow=np.zeros(n_flow, lay.FLOW),
        tcp=np.zeros(2 * n_flow, lay.TCP),
        tcp_segments=np.zeros(2 * n_flow * lay.TCP_SEGMENTS, lay.TCP_SEGMENT),
        frames=np.zeros(len(spec.flows) * lay.FRAMES, lay.FRAME),
        exchanges=np.zeros(exchanges, lay.EXCHANGE_RECORD),
        up=np.zeros(spec.path.line_packets, lay.PACKET),
        down=np.zeros(spec.path.line_packets, lay.PACKET),
        host=np.zeros(n_ue * lay.HOST, lay.PACKET),
        edge=np.zeros((edge_queue, 2), np.int64),
        orders=np.zeros((lay.CLOCK_ORDERS, 2), np.int64),
        events=np.zeros(lay.FLOW_EVENTS, lay.EVENT),
        scratch=np.zeros(n_ue),
        intervals=np.array(intervals, np.int64).reshape(-1, 2),
        tbs=tbs,
        channel_uses=channel_uses,
        midpoint=bler_midpoints(spec.link),
        tdd=tdd,
        trace=np.concatenate([np.empty(0), *grids]),
    )
    _set_cell(s.cell, spec, seed)
    s.cell["flows"], s.cell["edge_queue"] = n_flow, edge_queue
    firsts = np.cumsum([0, *(len(g) for g in grids)])
    for i in range(n_ue):
        _set_ue(s, spec, i, int(firsts[i]), len(grids[i]))
    first = 0
    for i, f in enumerate(flows):
        _set_connection(s, spec, i, f, first)
        first += len(f.active)
    for i, flow in enumerate(spec.flows):
        _set_flow(s.flow[i], spec, flow)
    i, ring = len(spec.flows), 0
    for application in spec.applications:
        for user in application.users:
            _set_user(s.flow[i], application, user, ring)
            i, ring = i + 1, ring + application.exchanges
    s.small[:, lay.PUSCH : lay.PUSCH + lay.PUSCH_LEN] = -1
    s.small[:, lay.ACK_SLOT : lay.ACK_SLOT + lay.ACKS_LEN] = -1
    return s


def _shapes(spec: TestbedSpec) -> tuple[NDArray[np.int32], IntArray, IntArray]:
    """By slot shape transport block sizes and data REs of a PRB; which shape an NR slot of the period has."""
    c = spec.cell
    shapes: dict[tuple[str, int], int] = {}
    tables: list[IntArray] = []
    data_re: list[int] = []
    tdd = np.full((lay.REACH + MAX_K2 + 1, c.tdd.period_slots), -1, np.int64)
    for at in range(c.tdd.period_slots):
        for row, name, symbols, dmrs in (
            (0, "ul", c.tdd.ul_symbols_in(at), _DMRS_UL),
            (1, "dl", c.tdd.dl_symbols_in(at), _DMRS_DL),
        ):
            data = symbols - c.control_symbols
            if data < 1:
                tdd[row, at] = -1
                continue
            if (name, data) not in shapes:
                shapes[name, data] = len(tables)
                dmrs_re = dmrs.get(data, _DMRS_ELSE)
                tables.append(tbs_table(data, c.n_prb, dmrs_re=dmrs_re) // 8)
                data_re.append(N_SC_PER_RB * data - dmrs_re)
            tdd[row, at] = shapes[name, data]
        tdd[2, at] = c.tdd.ul_symbols_in(at) > 0
    if not tdd[2].any() or not (tdd[1] >= 0).any():
        raise ValueError(f"TDD pattern {c.tdd.name} has no UL or no DL part")
    for k2, (full, mixed) in pusch_offsets(c).items():
        for at in range(c.tdd.period_slots):
            if full if at > c.tdd.dl_slots else mixed:
                tdd[lay.REACH + k2, at] = tdd[0, at]
    return np.array(tables, np.int32), np.array(data_re, np.int64), tdd


def pusch_offsets(cell: CellSpec) -> dict[int, tuple[bool, bool]]:
    """By NR slots from an UL grant to its PUSCH whether a full UL slot and a mixed slot can be granted so.

    ValueError for a TDD pattern for which ``oai-2026`` has no table.

    >>> pusch_offsets(CellSpec(k2=1, scheduler="oai-2026"))
    {1: (True, True), 2: (True, False), 3: (True, False)}
    """
    k2, tdd = cell.k2, cell.tdd
    if cell.scheduler != OAI_2026:
        return {k2: (True, True)}
    if tdd.ul_slots > k2 > tdd.dl_slots + 1:
        raise ValueError(
            f"cell.k2 {k2}: with it scheduler {OAI_2026} cannot reach every UL slot of TDD pattern"
            f" {tdd.name}: {tdd.dl_slots + 1} at most, or {tdd.ul_slots} and more"
        )
    offsets = dict.fromkeys(range(k2, max(k2, tdd.ul_slots) + 1), (True, False))
    if tdd.ul_symbols >= _LEAST_MIXED_SYMBOLS:
        k = k2 if k2 <= tdd.dl_slots else tdd.period_slots
        offsets[k] = (offsets.get(k, (False, False))[0], True)
    return {k: of for k, of in offsets.items() if k2 <= k <= MAX_K2}


def _dcis(n_prb: int) -> int:
    return min(max(n_prb // _PRB_OF_A_DCI, 1), _MAX_DCIS)


def uplink_opportunities(cell: CellSpec, tdd: IntArray) -> IntArray:
    """UL slots that the scheduler can grant in each NR slot of the period, int64 [period]; ``tdd`` as in
    :class:`agents.emulator.layout.State`."""
    period = cell.tdd.period_slots
    granted = np.zeros(period, np.int64)
    if cell.scheduler != OAI_2026:
        return (tdd[1] >= 0) & (np.roll(tdd[0], -cell.k2) >= 0) | granted
    m = 0
    for n in range(4 * period):
        at = n % period
        granted[at] = 0
        if tdd[1, at] < 0:
            continue
        m = max(m, n + cell.k2)
        while True:
            while not tdd[2, m % period]:
                m += 1
            if m - n > MAX_K2 or tdd[lay.REACH + m - n, m % period] < 0:
                break
            granted[at] += 1
            m += 1
    return granted


def _set_cell(cell: NDArray[np.void], spec: TestbedSpec, seed: int) -> None:
    c, t, e = spec.cell, spec.tcp, spec.edge
    own = _FORGET_2026 if c.scheduler == OAI_2026 else _FORGET_2024
    forget = own if c.pf_forget is None else c.pf_forget
    values: dict[str, float] = {
        "seed": seed,
        "next_ns": 0,
        "ues": len(spec.ues),
        "slices": 1,
        "period": c.tdd.period_slots,
        "n_prb": c.n_prb,
        "k2": c.k2,
        "pipeline": c.scheduler == OAI_2026,
        "dcis": _dcis(c.n_prb) if c.scheduler == OAI_2026 else len(spec.ues),
        "last_dl": c.tdd.dl_slots - (c.tdd.dl_symbols == 0),
        "min_grant": c.min_grant_prb,
        "mac_header": c.mac_header_bytes,
        "l2_header": c.l2_header_bytes,
        "ssb_period": c.ssb_period_frames,
        "ssb_free": min(c.ssb_free_prb, c.n_prb),
        "prach_period": c.prach_period_frames,
        "prach_free": min(c.prach_free_prb, c.n_prb),
        "rounds": c.harq_rounds,
        "k1_min": c.k2 if c.k1_min is None else c.k1_min,
        "k1_span": c.k1_span,
        "acks_per_slot": c.acks_per_ul_slot,
        "ul_known": 1 + c.pusch_decode_slots + c.sched_lead_slots,
        "dl_known": 1 + c.sched_lead_slots,
        "pusch_ns": c.pusch_decode_slots * SLOT_NS,
        "sr_period": c.sr_period_slots,
        "sr_known": 1 + c.sr_latency_slots + c.sched_lead_slots,
        "sr_prohibit": c.sr_prohibit_slots,
        "retx_bsr": c.retx_bsr_slots,
        "inactivity": lay.NEVER
        if c.ul_inactivity_frames is None
        else c.ul_inactivity_frames * SLOTS_PER_FRAME or c.tdd.period_slots,
        "max_mcs_ul": c.max_mcs_ul,
        "max_mcs_dl": c.max_mcs_dl,
        "mcs_period": c.mcs_period_frames,
        "mcs_idle": c.mcs_idle_transmissions,
        "mcs_floor": c.mcs_idle_floor,
        "am": spec.rlc.mode == "am",
        "am_slots": math.ceil(spec.rlc.am_retransmit_ms * 1e6 / SLOT_NS),
        "reordering_ns": _ns(spec.rlc.t_reordering_ms),
        "queue_limit": spec.rlc.queue_limit_bytes,
        "queue_packets": spec.rlc.queue_packets,
        "line_packets": spec.path.line_packets,
        "udp_payload": spec.udp.payload_bytes,
        "udp_header": spec.udp.header_bytes,
        "ul_forward_ns": _ns(spec.path.ul_forward_ms),
        "dl_forward_ns": _ns(spec.path.dl_forward_ms) + c.sched_lead_slots * SLOT_NS,
        "ue_dl_ns": _ns(spec.path.ue_dl_offset_ms),
        "poll_ns": _ns(spec.path.ue_dl_poll_ms),
        "mss": t.mss_bytes,
        "tcp_header": t.header_bytes,
        "window_0": t.initial_window,
        "send_buffer": t.send_buffer_bytes,
        "receive_buffer": t.receive_buffer_bytes,
        "delack_ns": _ns(t.delayed_ack_ms),
        "rto_min": _ns(t.min_rto_ms),
        "rto_max": _ns(t.max_rto_ms),
        "serving": -1,
        "edge_end": lay.NEVER,
        "mhz": e.max_mhz,
        "lag_ns": _ns(e.clock_lag_ms),
        "held_max": e.frames_held,
        "stall_mean_ns": _ns(e.stall_mean_ms),
        "harq_gain": c.harq_gain_db,
        "bler_scale": spec.link.bler_scale_db,
        "bler_lower": c.bler_lower,
        "bler_upper": c.bler_upper,
        "bler_keep": c.bler_filter,
        "pf_keep": 1 - forget,
        "base_ns": e.base_ms * 1e6,
        "clocked_ns": e.clocked_ms * 1e6,
        "max_mhz": e.max_mhz,
        "stall_rate": e.stall_rate_hz,
        "hold_p": spec.path.ul_hold_rate_hz * FRAME_MS / 1e3,
        "hold_median": _ns(spec.path.ul_hold_median_ms) / SLOT_NS,
        "hold_sigma": spec.path.ul_hold_sigma,
        "hiccup_p": spec.path.hiccup_rate_hz * FRAME_MS / 1e3,
        "hiccup_min": _ns(spec.path.hiccup_min_ms) / SLOT_NS,
        "hiccup_max": _ns(spec.path.hiccup_max_ms) / SLOT_NS,
        "service_time": 1.0,
        "short_packet_margin": c.short_packet_margin_db,
    }
    for name, value in values.items():
        cell[name] = value


def _set_ue(s: lay.State, spec: TestbedSpec, i: int, first: int, length: int) -> None:
    c, channel, e = spec.cell, spec.ues[i].channel, s.ue[i]
    ul_last = int(np.flatnonzero(s.tdd[2])[-1])
    e["sr_offset"] = (ul_last + i * c.tdd.period_slots) % c.sr_period_slots
    e["sr_known_slot"] = e["host_due"] = lay.NEVER
    e["bsr_slot"] = -1
    e["rho"] = math.exp(-0.01 / channel.coherence_s)
    if isinstance(channel, ChannelProcess):
        e["mean_ul"], e["mean_dl"], e["sd"] = channel.ul_mean_db, channel.dl_mean_db, channel.sd_db
    else:
        e["trace_first"], e["trace_len"] = first, length
        e["trace_hold"] = channel.between == "hold"
        e["trace_start_s"], e["ul_offset"] = channel.start_s, channel.ul_offset_db
        e["sd"] = channel.fading_sd_db
    errors = [u.decoding_error for u in spec.users if u.ue_id == spec.ues[i].ue_id and u.decoding_error > 0]
    e["decoding_error"] = min(errors, default=0.0)
    for row, top in ((2 * i, c.max_mcs_ul), (2 * i + 1, c.max_mcs_dl)):
        r = s.rlc[row]
        r["mcs"] = min(c.initial_mcs, top)
        r["free_harq"] = (1 << c.harq_processes) - 1
        r["reorder_due"] = r["res_due"] = lay.NEVER


def _set_user(row: np.void, application: ApplicationSpec, user: UserSpec, ring: int) -> None:
    """A flow of exchanges, whose ring begins at ``ring``."""
    row["kind"] = lay.EXCHANGE
    row["datagrams"] = user.transport == UDP
    row["decoding_error"] = user.decoding_error
    row["ring_first"], row["ring"] = ring, application.exchanges
    row["edge_work"] = row["answer_head"] = row["answer_tail"] = -1


def _set_flow(row: np.void, spec: TestbedSpec, f: FlowSpec) -> None:
    row["kind"] = getattr(lay, f.kind.upper())
    row["frame_ns"] = round(1e9 / f.fps)
    row["content_ns"] = f.content_s * 1e9
    row["jitter"] = f.frame_jitter
    row["poisson"] = f.arrivals == "poisson"
    row["on_ticks"] = f.on_ticks
    row["packets"], row["burst"] = f.packets, f.burst_bytes
    row["gap_min"], row["gap_span"] = f.gap_ms[0] * 1e6, (f.gap_ms[1] - f.gap_ms[0]) * 1e6
    share = spec.edge.pixel_share
    row["size"] = 1 - share + share * f.width * f.height / (160 * 80)
    for name, rate in (("ul", f.ul), ("dl", f.dl)):
        row[f"{name}_max"] = rate.max_bps
        row[f"{name}_floor"] = 0.05 * rate.mean_bps
        row[f"{name}_scale"], row[f"{name}_power"] = _dips(rate)


def _set_connection(s: lay.State, spec: TestbedSpec, i: int, f: FlowSpec | UserSpec, first: int) -> None:
    """What a flow of any kind has: its UE, its intervals from row ``first`` on, a connection."""
    row = s.flow[i]
    row["ue"] = [u.ue_id for u in spec.ues].index(f.ue_id)
    row["interval"], row["intervals"] = first, first + len(f.active)
    row["capture_due"] = lay.NEVER
    row["next_ns"] = round(f.active[0][0] * 1e9) if f.active else lay.NEVER
    for t in (s.tcp[2 * i], s.tcp[2 * i + 1]):
        t["cwnd"] = spec.tcp.initial_window * spec.tcp.mss_bytes
        t["ssthresh"] = 1e18
        t["rto"] = max(1e9, _ns(spec.tcp.min_rto_ms))
        t["window"] = t["advertised"] = spec.tcp.receive_buffer_bytes
        t["rto_due"] = t["delack_due"] = lay.NEVER
    own = s.tcp_segments[2 * i * lay.TCP_SEGMENTS : 2 * (i + 1) * lay.TCP_SEGMENTS]
    own["have"] = -1


def _dips(rate: RateSpec) -> tuple[float, float]:
    """(scale, power) so that max - scale * max(0, z) ** power, z standard normal, has the rate's moments.

    Measured rates sit near their maximum and dip below it. Where the standard deviation is less than the
    distance from mean to maximum, which no such law has, the mean alone is met.
    """
    below = rate.max_bps - rate.mean_bps
    if below == 0:
        return 0.0, 1.0

    def moment(p: float) -> float:
        return 2 ** (p / 2 - 1) * math.gamma((p + 1) / 2) / math.sqrt(math.pi)

    low, high = 0.01, 8.0
    for _ in range(60):
        p = (low + high) / 2
        if moment(2 * p) / moment(p) ** 2 < 1 + (rate.sd_bps / below) ** 2:
            low = p
        else:
            high = p
    return below / moment(low), low
