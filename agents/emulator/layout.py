"""The state of the emulated cell: record arrays that the kernel works on in place.

Times are ns from the start of the run, ``*_slot`` are NR slots from the start, offsets and lengths are
bytes. ``NEVER`` is a time or NR slot that does not come. Directions: 0 is UL, 1 is DL; row ``2 * ue +
direction`` of the MAC arrays, row ``2 * flow + direction`` (of the data) of the TCP arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

UL, DL = 0, 1
NEVER = 1 << 62

# Lengths of the rings, powers of two. Those of the RLC queues, delay lines, exchanges and the GPU's queue
# come from the specification: they stand in CELL and FLOW.
SEGMENTS = 512
HOST = 4096
TCP_SEGMENTS = 1024
FRAMES = 1024
CLOCK_ORDERS = 256
FLOW_EVENTS = 4096
MAX_SLICES = 64
# Packets of an external flow and direction under way; all of a UE fit into half an RLC queue.
STREAM_PACKETS = 256

# Columns of the small rings of a (UE, direction).
RESULTS, RESULTS_LEN = 0, 64  # HARQ processes whose outcome the gNB does not know yet
RETX, RETX_LEN = 64, 16  # HARQ processes to be sent again
PUSCH, PUSCH_LEN = 80, 32  # HARQ process granted in an UL slot, -1: none
ACKS, ACKS_LEN = 112, 64  # HARQ bits in an UL slot
ACK_SLOT = 176  # the NR slot that an entry of ACKS speaks of
AM = 240  # RLC segments to be sent again, SEGMENTS entries
GRANTS = AM + SEGMENTS  # by NR slot of the radio frame: new grants, retransmissions, PRBs of new grants
SMALL_RINGS = GRANTS + 60

# State.tdd: the first of the rows that say what is reached from how many NR slots before.
REACH = 3

# Packet kinds.
DATA, ACK, RAW, PROBE, STREAM, STREAM_ACK, DATAGRAM = range(7)
# Flow kinds.
OPENRTIST, SATURATED_UL, SATURATED_DL, CBR_UL, CBR_DL, ECHO, BURST_UL, EXTERNAL, EXCHANGE = range(9)
# States of an RLC segment: LOST waits for the reordering timer, DISCARDED is lost and nothing waits for it.
UNDERWAY, RECEIVED, LOST, DISCARDED = 0, 1, 2, 3
# The law that a transport block follows: the link's with HARQ, or that of short packets.
LINK_LAW, SHORT_PACKET_LAW = 0, 1
# States of an exchange: planned, its request under way, at the edge, its answer under way, over, over for
# want of a datagram. What is over leaves the ring.
PLANNED, REQUEST, AT_EDGE, ANSWER, COMPLETE, FAILED = range(6)
# Whom the times of an exchange are still to be reported to, bits of EXCHANGE_RECORD.changed.
TO_TESTBED, TO_APPLICATION = 1, 2


def _record(ints: str, floats: str = "") -> np.dtype:
    return np.dtype([(n, np.int64) for n in ints.split()] + [(n, np.float64) for n in floats.split()])


CELL = _record(
    # clock and cursors
    "slot next_ns epoch_ns seed ues flows slices period n_prb k2 min_grant mac_header l2_header"
    " pipeline dcis ul_next last_dl turn_ul turn_dl"
    " ssb_period ssb_free prach_period prach_free rounds k1_min k1_span acks_per_slot"
    " ul_known dl_known pusch_ns sr_period sr_known sr_prohibit retx_bsr inactivity"
    " max_mcs_ul max_mcs_dl mcs_period mcs_idle mcs_floor"
    " am am_slots reordering_ns queue_limit queue_packets"
    " ul_forward_ns dl_forward_ns ue_dl_ns poll_ns"
    " mss tcp_header window_0 send_buffer receive_buffer delack_ns rto_min rto_max udp_payload udp_header"
    # delay lines between gNB and edge host
    " up_head up_tail down_head down_tail line_packets line_drops"
    # edge
    " edge_head edge_tail edge_queue serving serving_frame edge_end busy_ns mhz"
    " orders_head orders_tail lag_ns held_max stall_mean_ns events_head events_tail"
    # bits of the applications of which an exchange has ended that they wait for
    " wake",
    "harq_gain bler_scale bler_lower bler_upper bler_keep pf_keep base_ns clocked_ns max_mhz stall_rate"
    " hold_p hold_median hold_sigma hiccup_p hiccup_min hiccup_max service_time"
    " short_packet_margin",
)
UE = _record(
    "slice busy trace_first trace_len trace_hold sr_offset sr_trigger sr_known_slot sr_silent_until sr_flag"
    " last_grant last_pusch bsr_slot estimate scheduled granted host_head host_tail host_due host_drops cqi"
    " hold_from hold_until hiccup_from hiccup_until",
    # decoding_error: the least of its flows' that follow the law of short packets, 0: there is none
    "snr_ul snr_dl mean_ul mean_dl sd rho z_ul z_dl trace_start_s ul_offset power_db decoding_error",
)
RLC = _record(
    # stream offsets: put into the queue, into transport blocks
    "queued sent pk_head pk_tail sg_head sg_tail ahead am_head am_ready am_tail am_bytes reorder_due"
    # HARQ
    " free_harq res_head res_tail res_due retx_head retx_tail mcs window_new window_failed last_tb"
    # counters
    " lc_bytes prb_slots packets_in packets_out packets_dropped bytes_in bytes_out bytes_dropped"
    " harq_new harq_retx harq_failed stalled short_blocks short_lost",
    "bler throughput short_probability",
)
# law: the block's; adapted: 1 where the MCS is that of the BLER loop
HARQ = _record("tbs prb mcs shape round ok slot seg rexmit rexmit_bytes taken bsr due law adapted")
PACKET = _record("end size flow kind a b lost due")
SEGMENT = _record("start end state unsent missing due")
FLOW = _record(
    "ue kind next_ns interval intervals active capture_due frame_ns left captured_ns frames"
    " edge_read held inferred written returned report_from phase"
    " ul_offered dl_offered ul_delivered dl_delivered ul_dropped dl_dropped frame_unreported"
    " poisson packets burst on_ticks"
    # exchanges: the flow's ring in State.exchanges, and positions in it, which count up from 0. Those before
    # `returned` are over, those before `begun` have begun, those before `frames` are planned.
    " ring_first ring begun edge_work answer_head answer_tail datagrams wakes sequence app_from refused",
    "ul_max ul_scale ul_power dl_max dl_scale dl_power ul_floor dl_floor jitter content_ns size"
    " gap_min gap_span decoding_error",
)
TCP = _record(
    # sender
    "app next una seg_next seg_una window dup recover recovering rto_due backoff last_send undo limited"
    " retransmitted"
    # receiver
    " rcv_seg rcv read unacked delack_due advertised out_of_order",
    "cwnd ssthresh srtt rttvar rto undo_cwnd undo_ssthresh",
)
TCP_SEGMENT = _record("len sent_ns rexmit have")
FRAME = _record("seq ul_size dl_size ul_end dl_end t_ue_sent t_edge_in t_edge_out t_ue_in changed")
EXCHANGE_RECORD = _record(
    "position seq state due ul_size gpu_ns edge_ns dl_size ul_end dl_end ul_left dl_left ready next"
    " t_ue_sent t_edge_in t_edge_out t_ue_in changed"
)
SLICE = _record("quota_ul quota_dl has_quota max_ul max_dl new_ul new_dl retx_ul retx_dl left slot_prb")
EVENT = _record("time flow start")


class State(NamedTuple):
    """Everything that a run's future depends on. Arrays of the records above unless said otherwise."""

    cell: Any
    """[1]"""
    ue: Any
    """[UEs]"""
    rlc: Any
    """[2 UEs]"""
    harq: Any
    """[2 UEs x 16]"""
    packets: Any
    """[2 UEs x queue_packets], ring of each (UE, direction)"""
    segments: Any
    """[2 UEs x SEGMENTS]"""
    small: Any
    """int64 [2 UEs, SMALL_RINGS]"""
    slices: Any
    """[MAX_SLICES]; the first is that of UEs without one"""
    flow: Any
    """[flows]"""
    tcp: Any
    """[2 flows]"""
    tcp_segments: Any
    """[2 flows x TCP_SEGMENTS]"""
    frames: Any
    """[flows that are not of EXCHANGE x FRAMES]; the flows of EXCHANGE come after the others"""
    exchanges: Any
    """EXCHANGE_RECORD [sum of the flows' rings]. Times that are not yet are -1."""
    up: Any
    """packets [line_packets] on their way from the gNB to the edge host"""
    down: Any
    """packets [line_packets] the other way"""
    host: Any
    """packets [UEs x HOST] in the UE, not yet with its applications"""
    edge: Any
    """int64 [edge_queue, 2]: (flow, frame or exchange) waiting for the GPU"""
    orders: Any
    """int64 [CLOCK_ORDERS, 2]: (time, MHz) ordered and not yet in force"""
    events: Any
    """[FLOW_EVENTS] flow starts and stops"""
    scratch: Any
    """float64 [UEs]: proportional-fair metric of the candidates of one NR slot, below 0: none"""
    intervals: Any
    """int64 [.., 2]: the flows' [start, stop) in ns"""
    tbs: Any
    """int64 [shapes, 29, n_prb + 1]: transport block size in bytes by slot shape, MCS and PRBs"""
    channel_uses: Any
    """int64 [shapes]: resource elements for data of a PRB by slot shape"""
    midpoint: Any
    """float64 [29]: SNR in dB of 50 % BLER"""
    tdd: Any
    """int64 [REACH + MAX_K2 + 1, period], by NR slot of the period: shape of an UL part (-1: none), of a DL
    part (-1: none), whether there are UL symbols; row REACH + k: shape of a PUSCH granted k NR slots before
    (-1: none)"""
    trace: Any
    """float64 [..]: DL SNR in dB a second, the UEs' traces one behind the other"""
