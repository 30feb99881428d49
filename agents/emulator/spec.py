"""What an emulated testbed is made of: every parameter of the model, with its unit and its source.

Sources are named as follows. *rfsim*: ``../shared/data/oai-rfsim``, measurements of the real OAI scheduler
(OAI 0ad85cb111). *Table II, III, IV*: the MUCB1 paper. *38.xxx*: the 3GPP specification. *assumed*: no
source; the value is a plain assumption and is open to calibration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.definitions import qos
from wire.definitions.nr import SMALLEST_GRANT_PRB, TDD_PATTERNS, TddPattern

FloatArray = NDArray[np.float64]

SATURATED_UL = "saturated_ul"
SATURATED_DL = "saturated_dl"
OPENRTIST = "openrtist"
CBR_UL = "cbr_ul"
CBR_DL = "cbr_dl"
ECHO = "echo"
BURST_UL = "burst_ul"
EXTERNAL = "external"
FLOW_KINDS = (OPENRTIST, SATURATED_UL, SATURATED_DL, CBR_UL, CBR_DL, ECHO, BURST_UL, EXTERNAL)
MAX_K2 = 16
MAX_EXTERNAL = 8
"""External flows of one UE: what they have under way fits into its queues."""
OPENRTIST_SERVICE = "ar"
"""The service whose application a flow of kind ``openrtist`` is."""
TCP, UDP = "tcp", "udp"
TRANSPORTS = (TCP, UDP)
OAI_2024, OAI_2026 = "oai-2024", "oai-2026"
SCHEDULERS = (OAI_2024, OAI_2026)


@dataclass(frozen=True, slots=True)
class CellSpec:
    """Carrier, TDD pattern and MAC scheduler of the gNB.

    NR slots are of 0.5 ms (30 kHz SCS). ValueError for values outside what the model can run.
    """

    cell_id: str = "cell-1"
    n_prb: int = 106
    """PRBs of the carrier (40 MHz at 30 kHz SCS, band 78)."""
    tdd: TddPattern = TDD_PATTERNS["DSUUU"]
    control_symbols: int = 1
    """Symbols of a DL part (PDCCH) and of an UL part (PUCCH, SRS) that carry no data. rfsim: 13, 5 and 3 data
    symbols in 14, 6 and 4."""
    k2: int = 6
    """NR slots from an UL grant to its PUSCH (38.214 6.1.2.1). rfsim: 6 and 7."""
    scheduler: str = OAI_2024
    """Whose habits the scheduler has.

    ``oai-2024`` (0ad85cb111, what rfsim measured): an NR slot with downlink grants one UL slot, the one K2
    later; grants that nobody asked for come last; DCIs have no limit.

    ``oai-2026``, the pipeline of policies: an NR slot with downlink grants UL slots one after the other, as
    many as the table of PUSCH time-domain allocations reaches (:func:`agents.emulator.build.pusch_offsets`).
    Each grant takes a DCI; of these an NR slot has n_prb / 24 a direction, 1 to 8. Slices with a quota come
    first by turns, but for one DCI that is kept for UEs without one, who take turns with the slices where it
    is the only one, and a smallest grant where the quotas leave less; in each, of as many UEs as there are
    DCIs, by turns, those without known data come before data, with a smallest grant each. Without quotas all
    UEs are one pass. Source: ``gNB_scheduler_ulsch.c``, ``gNB_scheduler_{ul,dl}sch_default_policies.c`` and
    ``nr_radio_config.c`` of OAI of August 2026, read; ``passes.c`` of the module.
    """
    min_grant_prb: int = SMALLEST_GRANT_PRB
    """Smallest grant in PRB, both directions. rfsim."""
    mac_header_bytes: int = 5
    """MAC subheaders and control elements of a transport block. rfsim: mac_bytes against lc_bytes."""
    l2_header_bytes: int = 5
    """PDCP and RLC header of an IP packet (38.323 6.2.2.3, 38.322 6.2.2)."""
    pf_forget: float | None = None
    """Weight of one NR slot in the filtered throughput of the proportional-fair metric; None: the scheduler's
    own, 0.0005 in ``oai-2024`` and 0.01 in ``oai-2026``."""

    ssb_period_frames: int = 2
    """Radio frames between NR slots 0 with SSB and SIB1 in them; 0: none. rfsim."""
    ssb_free_prb: int = 33
    """PRBs that a DL grant can get in such an NR slot. rfsim: 69.5 on average of 106, 41.5 of 50."""
    prach_period_frames: int = 2
    """Radio frames between PRACH occasions in NR slot 19 (odd frames); 0: none. rfsim."""
    prach_free_prb: int = 51
    """PRBs that an UL grant can get in that NR slot. rfsim: 79 on average of 106."""

    harq_processes: int = 16
    """At most 16 a direction (38.321 5.4.2.1 and 5.3.2.1)."""
    harq_rounds: int = 4
    """Transmissions of a transport block before it is given up. OAI's default."""
    harq_gain_db: float = 3.0
    """SNR that each retransmission adds by combining. Assumed: 3 dB, as rfsim's second rounds hardly fail."""
    k1_min: int | None = None
    """NR slots from PDSCH to the earliest HARQ feedback; None: as K2 (OAI's min_rxtxtime rules both)."""
    k1_span: int = 8
    """Feedback slots k1_min .. k1_min + k1_span - 1 can be signalled (dl-DataToUL-ACK has 8 entries)."""
    acks_per_ul_slot: int = 2
    """HARQ bits of one UE that one UL slot carries. rfsim: a quarter of the DL slots of DDDDDDDSUU go unused,
    the very NR slots that first-fit placement at two a slot leaves without room."""

    sched_lead_slots: int = 1
    """NR slots that the scheduler decides ahead: what it hears later waits for the next decision. Assumed."""
    pusch_decode_slots: int = 0
    """NR slots from the end of a PUSCH to its decoding. Table IV: the UL minimum of 5 ms and mean of 12 ms
    leave no more; the scheduler's lead stands for the rest."""
    sr_period_slots: int = 10
    """NR slots between the SR occasions of a UE; a multiple of the TDD period. Assumed; rfsim's idle echo
    spreads over about 10."""
    sr_latency_slots: int = 1
    """NR slots from the end of an SR to the scheduler's knowledge of it, without the lead. Assumed."""
    sr_prohibit_slots: int = 40
    """NR slots after an SR in which the UE sends no other (sr-ProhibitTimer, 38.321 5.4.4)."""
    retx_bsr_slots: int = 160
    """NR slots without PUSCH after which a UE with data asks again (retxBSR-Timer sf80, 38.321 5.4.5)."""
    ul_inactivity_frames: int | None = 0
    """Radio frames without a grant after which OAI gives a UE a minimum grant (ulsch_max_frame_inactivity);
    0: one TDD period, as in OAI's configuration for the USRP B210; None: never. rfsim ran with 10. Table IV's
    UL mean of 12 ms leaves no time for a scheduling request: a UE without data has a grant at hand."""

    initial_mcs: int = 9
    max_mcs_ul: int = 28
    max_mcs_dl: int = 28
    bler_lower: float = 0.05
    """MCS +1 below this filtered BLER of first transmissions. rfsim."""
    bler_upper: float = 0.15
    """MCS -1 above it. rfsim."""
    bler_filter: float = 0.9
    """What the BLER filter keeps at an update."""
    mcs_period_frames: int = 10
    """Radio frames between two updates; at most one MCS step each. rfsim."""
    mcs_idle_transmissions: int = 3
    """With no more first transmissions than this between two updates the MCS is not raised, and steps down
    to ``mcs_idle_floor``. rfsim: the idle direction of the echo runs settles at MCS 9 to 11."""
    mcs_idle_floor: int = 9

    short_packet_margin_db: float = 0.5
    """What the gNB takes off the SNR where it chooses the MCS of a block for a flow with a decoding error
    (:class:`UserSpec`), as the SNR ages between the grant and the transmission. Assumed."""

    def __post_init__(self) -> None:
        _between("cell.n_prb", self.n_prb, 1, 275)
        _between("cell.min_grant_prb", self.min_grant_prb, 1, self.n_prb)
        _between("cell.control_symbols", self.control_symbols, 0, 3)
        _between("cell.k2", self.k2, 1, MAX_K2)
        if self.scheduler not in SCHEDULERS:
            raise ValueError(f"cell.scheduler {self.scheduler!r} is none of {', '.join(SCHEDULERS)}")
        _between("cell.harq_processes", self.harq_processes, 1, 16)
        _between("cell.harq_rounds", self.harq_rounds, 1, 8)
        if self.k1_min is not None:
            _between("cell.k1_min", self.k1_min, 1, 16)
        _between("cell.k1_span", self.k1_span, 1, 16)
        _between("cell.acks_per_ul_slot", self.acks_per_ul_slot, 1, 64)
        for name in ("sched_lead_slots", "pusch_decode_slots", "sr_latency_slots"):
            _between(f"cell.{name}", getattr(self, name), 0, 16)
        for name in ("mac_header_bytes", "l2_header_bytes"):
            _between(f"cell.{name}", getattr(self, name), 0, 64)
        if self.sr_period_slots < 1 or self.sr_period_slots % self.tdd.period_slots:
            raise ValueError(
                f"cell.sr_period_slots {self.sr_period_slots} is not a multiple of the "
                f"{self.tdd.period_slots} NR slots of TDD pattern {self.tdd.name}"
            )
        for name in ("ul", "dl"):
            _between(f"cell.max_mcs_{name}", getattr(self, f"max_mcs_{name}"), 0, 28)
        _between("cell.initial_mcs", self.initial_mcs, 0, 28)
        _between("cell.mcs_idle_floor", self.mcs_idle_floor, 0, 28)
        _between("cell.mcs_period_frames", self.mcs_period_frames, 1, 1000)
        if not 0 <= self.short_packet_margin_db <= 30:
            raise ValueError(f"cell.short_packet_margin_db {self.short_packet_margin_db} is outside 0..30 dB")


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Block error rate of a first transmission: 1 / (1 + exp((SNR - s50(MCS)) / scale)).

    s50(MCS) = ``snr_at_mcs0_db`` + MCS * ``snr_step_db`` + scale * ln 9, so that the first two parameters
    give the SNR of 10 % BLER. rfsim: MCS 18.9 at 14 dB and 12 at 8 dB with 10 % BLER.
    """

    snr_at_mcs0_db: float = -2.4
    snr_step_db: float = 0.87
    bler_scale_db: float = 0.6
    """Steepness in dB. Assumed."""

    def __post_init__(self) -> None:
        if self.bler_scale_db <= 0:
            raise ValueError(f"link.bler_scale_db {self.bler_scale_db} is not positive")
        if self.snr_step_db <= 0:
            raise ValueError(f"link.snr_step_db {self.snr_step_db} is not positive")


@dataclass(frozen=True, slots=True)
class ChannelProcess:
    """SNR in dB by radio frame: a first-order autoregressive process round a mean, one a direction."""

    ul_mean_db: float = 16.5
    """Gives UL MCS 19 to 22, with which 106 PRB carry Table III's 22 Mbit/s in spite of the holds. The
    other two patterns of Table III ask for less, the average UL delay of Table IV for no less than this."""
    dl_mean_db: float = 26.5
    """Gives DL MCS 28, the highest of MCS table 1."""
    sd_db: float = 0.8
    """Standard deviation. Assumed."""
    coherence_s: float = 0.5
    """Time in which the autocorrelation falls to 1/e. Assumed."""

    def __post_init__(self) -> None:
        if self.sd_db < 0 or self.coherence_s <= 0:
            raise ValueError(f"channel: sd {self.sd_db} dB or coherence {self.coherence_s} s out of range")


@dataclass(frozen=True, slots=True)
class ChannelTrace:
    """SNR from a measured trace (see :func:`agents.emulator.channel.read_trace`); it repeats at its end."""

    path: str | Path
    ul_offset_db: float = -3.0
    """CQI is a downlink measurement: the UL SNR is the DL SNR plus this. Assumed."""
    not_5g: str = "skip"
    """What a row that is not 5G is: ``skip`` (cut out of the trace) or ``outage`` (nothing gets through)."""
    between: str = "linear"
    """Between two rows: ``linear`` interpolation in dB, or ``hold``."""
    start_s: float = 0.0
    """Where in the trace the run begins."""
    fading_sd_db: float = 0.8
    """Standard deviation of a fast process added to the trace, of ``coherence_s`` as above. Assumed."""
    coherence_s: float = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class ChannelSeries:
    """SNR from a series: ``snr_db`` float64 [seconds], downlink, one value a second; it repeats at its end.

    The other fields are those of :class:`ChannelTrace`.
    """

    snr_db: FloatArray
    ul_offset_db: float = -3.0
    between: str = "linear"
    start_s: float = 0.0
    fading_sd_db: float = 0.8
    coherence_s: float = 0.5

    def __post_init__(self) -> None:
        if self.snr_db.ndim != 1 or not len(self.snr_db) or not np.isfinite(self.snr_db).all():
            raise ValueError(f"channel series: {self.snr_db.shape} values are none, or not all finite")
        if self.between not in ("linear", "hold"):
            raise ValueError(f"channel series: between {self.between!r} is neither 'linear' nor 'hold'")


@dataclass(frozen=True, slots=True)
class UeSpec:
    """A UE: identity, slice and channel. An empty slice uses what the slices leave.

    ``five_qi`` (0: none is told) and ``snssai`` (SST or SST-SD, "": none) are of its one data bearer. The
    scheduler goes by neither.
    """

    ue_id: str
    rnti: int
    slice: str = ""
    channel: ChannelProcess | ChannelTrace | ChannelSeries = field(default_factory=ChannelProcess)
    five_qi: int = 0
    snssai: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.five_qi <= qos.MAX_FIVE_QI:
            raise ValueError(f"UE {self.ue_id!r}: five_qi {self.five_qi} is outside 0..{qos.MAX_FIVE_QI}")
        if self.snssai:
            qos.parse_snssai(self.snssai)


@dataclass(frozen=True, slots=True)
class RateSpec:
    """Offered rate in bit/s: mean, standard deviation and maximum, as measured offline."""

    mean_bps: float
    sd_bps: float
    max_bps: float

    def __post_init__(self) -> None:
        if not 0 < self.mean_bps <= self.max_bps or self.sd_bps < 0:
            raise ValueError(
                f"rate: mean {self.mean_bps}, sd {self.sd_bps}, max {self.max_bps} bit/s do not go together"
            )


@dataclass(frozen=True, slots=True)
class FlowSpec:
    """An application stream of one UE.

    ``active`` holds [start, stop) intervals in seconds from the start of the run, ascending and disjoint.
    Kind ``openrtist``: camera frames up, stylised frames down, over TCP. ``saturated_ul``/``saturated_dl``:
    UDP of 1400-byte payloads gated so that the queue never empties (iperf-like).

    The other kinds send ``burst_bytes`` (IP) in ``packets`` packets without TCP, at gaps uniform in
    ``gap_ms``: ``cbr_ul``/``cbr_dl`` a constant or jittered stream, ``echo`` from the gNB to the UE, which
    answers at once, ``burst_ul`` from the UE. :meth:`EmulatedTestbed.take_frames` tells echoes
    (``edge_sent``, ``ue_received`` = ``ue_sent``, ``edge_received``) and bursts (``ue_sent``,
    ``edge_received`` of the latest packet, ``edge_sent`` once all are through).

    Kind ``external`` carries the bytes of somebody else in both directions, in order, as
    :meth:`EmulatedTestbed.send` puts them in; it has no schedule (``active`` is empty). It needs RLC AM.
    """

    flow: str
    ue_id: str
    active: Sequence[tuple[float, float]] = ((0.0, 1e9),)
    kind: str = OPENRTIST
    fps: float = 30.0
    width: int = 160
    height: int = 80
    ul: RateSpec = RateSpec(2.997e6, 0.390e6, 3.190e6)
    dl: RateSpec = RateSpec(0.992e6, 0.136e6, 1.071e6)
    content_s: float = 1.0
    """Time scale of the content process behind the rates. Assumed."""
    frame_jitter: float = 0.05
    """Relative half-width of the frame sizes round the content process. Assumed."""
    arrivals: str = "periodic"
    """``periodic`` (the camera's or the source's own gaps) or ``poisson`` (exponential, of the same mean)."""
    gap_ms: tuple[float, float] = (33.0, 33.0)
    packets: int = 1
    burst_bytes: int = 1000
    on_ticks: bool = False
    """Sources without TCP: send in NR slots with downlink by the scheduler's clock, as rfsim's tools do."""
    announced: bool = True
    """Whether its host tells the controller of it."""
    announced_rate: float = 1.0
    """What its host announces, in mean rates of the source."""

    def __post_init__(self) -> None:
        if self.kind not in FLOW_KINDS:
            raise ValueError(f"flow {self.flow!r}: kind {self.kind!r} is none of {FLOW_KINDS}")
        if self.fps <= 0 or self.width < 1 or self.height < 1 or self.content_s <= 0:
            raise ValueError(f"flow {self.flow!r}: fps, resolution and content_s are positive")
        if not 0 <= self.frame_jitter < 1:
            raise ValueError(f"flow {self.flow!r}: frame_jitter {self.frame_jitter} is outside [0, 1)")
        if self.arrivals not in ("periodic", "poisson"):
            raise ValueError(
                f"flow {self.flow!r}: arrivals {self.arrivals!r} are neither periodic nor poisson"
            )
        if not 0 < self.gap_ms[0] <= self.gap_ms[1]:
            raise ValueError(f"flow {self.flow!r}: gaps of {self.gap_ms} ms are not positive or out of order")
        if not 1 <= self.packets <= self.burst_bytes <= 1_000_000:
            raise ValueError(f"flow {self.flow!r}: {self.burst_bytes} bytes in {self.packets} packets")
        if not 0 < self.announced_rate < math.inf:
            raise ValueError(f"flow {self.flow!r}: announced_rate {self.announced_rate} is not positive")
        if self.kind == EXTERNAL and self.active:
            raise ValueError(f"flow {self.flow!r}: an external flow has no schedule, active is ()")
        _intervals(self.flow, self.active)


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Where a user is, second by second: ``position_m`` float64 [seconds, 2], ``speed_kmh`` float64
    [seconds]. Past its end the last second stands."""

    positions_m: FloatArray
    speeds_kmh: FloatArray

    def __post_init__(self) -> None:
        n = len(self.speeds_kmh)
        if n < 1 or self.speeds_kmh.shape != (n,) or self.positions_m.shape != (n, 2):
            raise ValueError(
                f"track: positions {self.positions_m.shape} and speeds {self.speeds_kmh.shape}"
                " are not [seconds, 2] and [seconds]"
            )
        if not (np.isfinite(self.positions_m).all() and np.isfinite(self.speeds_kmh).all()):
            raise ValueError("track: a position or a speed is not finite")

    def position_m(self, time_s: float) -> tuple[float, float]:
        """At a time, between two seconds in proportion."""
        t = np.arange(len(self.positions_m))
        x, y = (float(np.interp(time_s, t, self.positions_m[:, axis])) for axis in range(2))
        return x, y

    def mean_speed_kmh(self, begin_s: float, end_s: float) -> float:
        """Over the seconds that [begin, end) touches."""
        last = len(self.speeds_kmh) - 1
        first = min(int(begin_s), last)
        return float(self.speeds_kmh[first : max(first + 1, math.ceil(end_s))].mean())


@dataclass(frozen=True, slots=True)
class UserSpec:
    """A user of an application: the flow of exchanges between one UE and the edge.

    ``active`` holds [start, stop) intervals in seconds as in :class:`FlowSpec`; an exchange begins in one of
    them. ``ul_bps`` and ``dl_bps`` are the rates that the flow announces, bit/s. ``transport``: ``tcp``, one
    connection for both directions, in which a message of any size streams through the window; or ``udp``,
    datagrams both ways, sent all at once, of which nobody repeats a lost one above RLC and HARQ: its message
    never arrives.

    ``decoding_error``: 0, or the decoding error probability of short packets, at most 0.5. Such a flow's
    transport blocks, both ways, follow :func:`wire.definitions.short_packets.error_probability` instead of
    :class:`LinkSpec`. The gNB grants the highest MCS whose block is lost with at most this probability at the
    UE's SNR of that moment less ``CellSpec.short_packet_margin_db`` (MCS 0 where none is), in the fewest PRBs
    that hold what waits; the BLER loop neither chooses nor counts it. A block is sent once, as equation (1)
    knows one transmission of error epsilon: neither HARQ nor RLC repeats a lost one. Its packets are gone,
    and those behind it do not wait for them (outOfOrderDelivery, 38.331).
    A block follows the law where the first packet that it carries is of such a flow; it then carries no
    packet of a flow with another decoding error. Where a UE has such a flow, a block of nothing but padding
    follows the law for which it was granted: that of the first packet that waited in the UE at the grant, and
    that of short packets where none did.

    ``index`` is the user's place in the random numbers, None: its place among the application's users.
    ``seed`` is that of what is the user's own and not its cell's, None: the cell's; so a user can be the same
    in several cells. ``track``: where it is, None: nowhere in particular. ``options`` are the application's
    own.
    """

    flow: str
    ue_id: str
    active: Sequence[tuple[float, float]] = ((0.0, 1e9),)
    ul_bps: float = 0.0
    dl_bps: float = 0.0
    transport: str = TCP
    decoding_error: float = 0.0
    index: int | None = None
    seed: int | None = None
    track: Track | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.transport not in TRANSPORTS:
            raise ValueError(f"flow {self.flow!r}: transport {self.transport!r} is none of {TRANSPORTS}")
        for name in ("ul_bps", "dl_bps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"flow {self.flow!r}: {name} {getattr(self, name)} is no rate in bit/s")
        if not 0 <= self.decoding_error <= 0.5:
            raise ValueError(f"flow {self.flow!r}: decoding_error {self.decoding_error} is outside [0, 0.5]")
        if self.index is not None and not 0 <= self.index < 1 << 20:
            raise ValueError(f"flow {self.flow!r}: index {self.index} is outside 0..2**20 - 1")
        if self.seed is not None and not 0 <= self.seed < 1 << 63:
            raise ValueError(f"flow {self.flow!r}: seed {self.seed} is outside 0..2**63 - 1")
        _intervals(self.flow, self.active)


@dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """The users of one application (see :mod:`agents.emulator.applications`), all in one cell.

    ``exchanges``: how many of one user can be planned, under way and not yet taken, a power of two. 4096 are
    45 s at 90 a second; each takes 152 bytes.
    """

    application: str
    users: Sequence[UserSpec]
    exchanges: int = 4096

    def __post_init__(self) -> None:
        if not self.users:
            raise ValueError(f"application {self.application!r} has no users")
        _power_of_two(f"application {self.application!r}: exchanges", self.exchanges, 16, 1 << 20)


@dataclass(frozen=True, slots=True)
class EdgeSpec:
    """The edge server: one GPU, first in first out over all flows.

    Inference time at clock f MHz: (``base_ms`` + ``clocked_ms`` * ``max_mhz`` / f) * size, where size is 1 at
    160x80 and affine in the pixels. Table IV: 7 ms at 160x80 and 1600 MHz. The split between the parts is
    assumed: no table gives inference time against the clock. The MUCB1 authors' records, found later, have
    0.4 to 0.6 ms less at every clock from 500 to 1600 MHz.
    """

    base_ms: float = 2.8
    clocked_ms: float = 4.2
    max_mhz: int = 1600
    """The clock before the first :meth:`EmulatedTestbed.set_gpu_mhz`, and the law's reference."""
    pixel_share: float = 0.42
    """Part of the time at 160x80 that grows with the pixels. Table II: 5.2 ms + 0.298 ms per 1000 pixels."""
    clock_lag_ms: float = 10.0
    """From the order to the clock in force. Assumed."""
    stall_rate_hz: float = 0.45
    """Stalls of the GPU or its host, at most one a second. Table IV: mean above the 90th percentile."""
    stall_mean_ms: float = 55.0
    """Mean length of a stall; lengths are exponential, at most a second. Table IV: the maximum of 376 ms, the
    mean, and a 90th percentile that does not feel the stalls."""
    frames_held: int = 60
    """Frames of one flow at the edge (waiting, in service or not yet written to the socket). With so many the
    server stops reading that connection. Assumed; few enough to bound the model, enough that an overload of
    one control slot stays at its own hop."""

    def __post_init__(self) -> None:
        if self.base_ms < 0 or self.clocked_ms < 0 or self.base_ms + self.clocked_ms <= 0:
            raise ValueError("edge: inference time is not positive")
        if not 0 <= self.stall_rate_hz <= 1:
            raise ValueError(f"edge.stall_rate_hz {self.stall_rate_hz} is outside [0, 1]")
        if not 0 <= self.stall_mean_ms <= 1000:
            raise ValueError(f"edge.stall_mean_ms {self.stall_mean_ms} is outside 0..1000 ms")
        _between("edge.frames_held", self.frames_held, 1, 256)
        _between("edge.max_mhz", self.max_mhz, 1, 100_000)


@dataclass(frozen=True, slots=True)
class TcpSpec:
    """TCP of OpenRTiST flows and of users: Reno congestion control with NewReno recovery (RFC 5681, 6582)."""

    mss_bytes: int = 1400
    header_bytes: int = 52
    """IP and TCP header with timestamps; an ACK is nothing else."""
    initial_window: int = 10
    """Segments (RFC 6928)."""
    send_buffer_bytes: int = 131_072
    """Socket send buffer, unacknowledged bytes included. A full one blocks the writer. Assumed: Linux
    starts at 85 KiB (twice ten segments with their overhead) and grows it with the congestion window."""
    receive_buffer_bytes: int = 131_072
    delayed_ack_ms: float = 40.0
    min_rto_ms: float = 200.0
    max_rto_ms: float = 10_000.0

    def __post_init__(self) -> None:
        _between("tcp.mss_bytes", self.mss_bytes, 100, 9000)
        _between("tcp.initial_window", self.initial_window, 1, 100)
        _between("tcp.send_buffer_bytes", self.send_buffer_bytes, 2 * self.mss_bytes, 1 << 24)
        _between("tcp.receive_buffer_bytes", self.receive_buffer_bytes, 2 * self.mss_bytes, 1 << 26)


@dataclass(frozen=True, slots=True)
class UdpSpec:
    """Datagrams of the users with transport ``udp``."""

    payload_bytes: int = 1400
    """Of a message in one datagram."""
    header_bytes: int = 28
    """IPv4 and UDP header (RFC 791, 768)."""

    def __post_init__(self) -> None:
        _between("udp.payload_bytes", self.payload_bytes, 100, 9000)
        _between("udp.header_bytes", self.header_bytes, 0, 100)


@dataclass(frozen=True, slots=True)
class RlcSpec:
    """RLC and PDCP of the data bearer."""

    mode: str = "am"
    """``am``: a transport block given up by HARQ is sent again; ``um``: its packets are lost."""
    queue_limit_bytes: int = 2_000_000
    """Bytes that wait in one queue; a packet beyond is dropped and counted. Assumed."""
    queue_packets: int = 4096
    """Packets that wait in one queue, a power of two; one beyond is dropped and counted."""
    am_retransmit_ms: float = 20.0
    """From giving up to the RLC retransmission (STATUS report and poll timers, 38.322 5.3). Assumed."""
    t_reordering_ms: float = 100.0
    """PDCP t-Reordering, used in UM. rfsim."""

    def __post_init__(self) -> None:
        if self.mode not in ("am", "um"):
            raise ValueError(f"rlc.mode {self.mode!r} is neither 'am' nor 'um'")
        _between("rlc.queue_limit_bytes", self.queue_limit_bytes, 10_000, 1 << 26)
        _power_of_two("rlc.queue_packets", self.queue_packets, 4096, 1 << 18)


@dataclass(frozen=True, slots=True)
class PathSpec:
    """Fixed delays and the UE's host interface: what no queue of the radio explains."""

    ul_forward_ms: float = 0.3
    """gNB, core and host stack from decoding to the edge's TCP receiver. Assumed."""
    dl_forward_ms: float = 0.3
    """The same downwards, to the RLC queue. Assumed."""
    ue_dl_offset_ms: float = 7.5
    """Processing in the UE's modem and host, DL. Table IV: the minimum is 9 ms, the radio needs under 4."""
    ue_dl_poll_ms: float = 16.0
    """Period in which the UE's modem hands received packets to its host, with a jitter of one period; 0: at
    once. The spread of Table IV's DL delays (9 to 62 ms at 1/40 of the capacity) is not one of queues; this
    mechanism is assumed for it."""
    ul_hold_rate_hz: float = 11.0
    """Holds of the UE's uplink a second: the modem answers its grants with padding and asks for none, while
    what its host gave it waits. Table IV: the 90th percentile of 27 ms at a mean of 12 ms, which no
    queue at a seventh of the capacity explains."""
    ul_hold_median_ms: float = 7.0
    """Median length of a hold; lengths are log-normal. Table IV, with the rate."""
    ul_hold_sigma: float = 0.65
    """Standard deviation of the logarithm of the lengths. Table IV, with the two above."""
    hiccup_rate_hz: float = 0.019
    """Hiccups a second that no resource prevents: the UE loses its cell and comes back (re-establishment,
    38.331 5.3.7); the gNB schedules nothing for it, PDCP and RLC keep what waits. Fitted to the Static row of
    scenario 1 in Table V, over ten seeds, and to nothing else."""
    hiccup_min_ms: float = 1500.0
    """Lengths are uniform. Assumed: shorter ones leave the mean delay of a control slot within 150 ms."""
    hiccup_max_ms: float = 3000.0
    line_packets: int = 16_384
    """Packets on their way between the gNB and the edge host, each way, a power of two; one beyond is dropped
    and counted. Datagrams of a message enter all at once."""

    def __post_init__(self) -> None:
        for name in (
            "ul_forward_ms",
            "dl_forward_ms",
            "ue_dl_offset_ms",
            "ue_dl_poll_ms",
            "ul_hold_median_ms",
        ):
            if not 0 <= getattr(self, name) <= 1000:
                raise ValueError(f"path.{name} {getattr(self, name)} is outside 0..1000 ms")
        if not 0 <= self.ul_hold_sigma <= 2:
            raise ValueError(f"path.ul_hold_sigma {self.ul_hold_sigma} is outside 0..2")
        for name in ("ul_hold_rate_hz", "hiccup_rate_hz"):
            if not 0 <= getattr(self, name) <= 100:
                raise ValueError(f"path.{name} {getattr(self, name)} is outside 0..100 Hz")
        if not 0 <= self.hiccup_min_ms <= self.hiccup_max_ms <= 60_000:
            raise ValueError("path: hiccup lengths are outside 0..60000 ms or out of order")
        _power_of_two("path.line_packets", self.line_packets, 1024, 1 << 22)


@dataclass(frozen=True, slots=True)
class Change:
    """What is different from a time on, for the rest of the run."""

    at_s: float
    """Seconds from the start."""
    demand: float = 1.0
    """Frames of kind ``openrtist``, camera's and results, are so many times as large."""
    service_time: float = 1.0
    """The GPU takes so many times as long at the same clock."""

    def __post_init__(self) -> None:
        if not 0 <= self.at_s <= 1e9:
            raise ValueError(f"change.at_s {self.at_s} is outside 0..1e9 s")
        for name in ("demand", "service_time"):
            if not 0 < getattr(self, name) <= 100:
                raise ValueError(f"change.{name} {getattr(self, name)} is outside 0..100")


@dataclass(frozen=True, slots=True)
class TestbedSpec:
    """A whole testbed: one cell, its UEs, their flows, the edge.

    The users of ``applications`` are flows like the others, behind ``flows`` in the order in which they are.
    ``clocks_synchronised``: whether the clocks of UEs and edge are known to agree; where not, their times
    say nothing of a single hop.
    """

    __test__ = False

    ues: Sequence[UeSpec]
    flows: Sequence[FlowSpec]
    cell: CellSpec = field(default_factory=CellSpec)
    link: LinkSpec = field(default_factory=LinkSpec)
    edge: EdgeSpec = field(default_factory=EdgeSpec)
    tcp: TcpSpec = field(default_factory=TcpSpec)
    rlc: RlcSpec = field(default_factory=RlcSpec)
    path: PathSpec = field(default_factory=PathSpec)
    applications: Sequence[ApplicationSpec] = ()
    udp: UdpSpec = field(default_factory=UdpSpec)
    change: Change | None = None
    clocks_synchronised: bool = True

    @property
    def users(self) -> tuple[UserSpec, ...]:
        """The users of all applications, in the order of their flows."""
        return tuple(u for a in self.applications for u in a.users)

    def __post_init__(self) -> None:
        if not self.ues:
            raise ValueError("a testbed has at least one UE")
        _unique("UE id", [u.ue_id for u in self.ues])
        _unique("RNTI", [u.rnti for u in self.ues])
        flows: list[FlowSpec | UserSpec] = [*self.flows, *self.users]
        _unique("flow", [f.flow for f in flows])
        _unique("application", [a.application for a in self.applications])
        known = {u.ue_id for u in self.ues}
        for flow in flows:
            if flow.ue_id not in known:
                raise ValueError(f"flow {flow.flow!r}: UE {flow.ue_id!r} is not in the testbed")
        demand = max(1.0, self.change.demand if self.change else 1.0)
        for f in self.flows:
            largest = max(f.ul.max_bps, f.dl.max_bps) / f.fps / 8 * (1 + f.frame_jitter) * demand
            if largest > self.tcp.receive_buffer_bytes / 2:
                raise ValueError(f"flow {f.flow!r}: frames of {largest:.0f} B exceed half the receive buffer")
        for ue in known:
            streams = sum(f.kind == EXTERNAL and f.ue_id == ue for f in self.flows)
            if streams and self.rlc.mode != "am":
                raise ValueError(f"UE {ue!r}: external flows need rlc.mode am, which loses nothing")
            if streams > MAX_EXTERNAL:
                raise ValueError(f"UE {ue!r}: {streams} external flows, {MAX_EXTERNAL} at most")


def _between(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} {value} is outside {low}..{high}")


def _power_of_two(name: str, value: int, low: int, high: int) -> None:
    _between(name, value, low, high)
    if value & (value - 1):
        raise ValueError(f"{name} {value} is not a power of two")


def _intervals(flow: str, active: Sequence[tuple[float, float]]) -> None:
    last = 0.0
    for start, stop in active:
        if not last <= start < stop:
            raise ValueError(f"flow {flow!r}: interval [{start}, {stop}) is empty or out of order")
        last = stop


def _unique(what: str, names: Sequence[object]) -> None:
    seen: set[object] = set()
    for n in names:
        if n in seen:
            raise ValueError(f"{what} {n!r} is there twice")
        seen.add(n)


# -- the measurements' setups --------------------------------------------------------------------------

RFSIM_LEAD_SLOTS = 5
"""``sched_lead_slots`` of the RF simulator: the gNB's scheduler, whose clock stamps the echoes, runs ahead of
the air. rfsim, with the next: an idle DL takes 6 to 8 NR slots by that clock."""
RFSIM_UE_RX_SLOTS = 0
"""NR slots from the end of a PDSCH to the UE's stack, beyond the lead. rfsim."""
RFSIM_UE_LEAD_SLOTS = 5
"""NR slots that the UE prepares a PUSCH or SR ahead of the air: what its stack sends later misses it. rfsim:
idle and loaded UL delays."""
RFSIM_SR_PERIOD_SLOTS = 20
"""rfsim: spread of the idle UL delays."""
RFSIM_SR_LATENCY_SLOTS = 1
"""rfsim, with the above: an idle UL takes 35 to 40 NR slots (DSUUU) and 54 to 62 (DDDDDDDSUU)."""
RFSIM_ECHO_GAPS = (30.0, 45.0)
"""ms between two echoes: 60 to 90 NR slots, uniform. rfsim's README."""
RFSIM_PATH = PathSpec(
    ul_forward_ms=0.0,
    dl_forward_ms=0.0,
    ue_dl_offset_ms=0.5 * (RFSIM_UE_RX_SLOTS + RFSIM_UE_LEAD_SLOTS),
    ue_dl_poll_ms=0.0,
    ul_hold_rate_hz=0.0,
    hiccup_rate_hz=0.0,
)
"""Echoes are answered inside the UE's process: no host, no modem. The UE's lead stands at its receiver, where
its answers pass as well; stamps of the UE are moved back by it."""


def rfsim_cell(tdd: TddPattern, k2: int) -> CellSpec:
    """The cell that ``../shared/data/oai-rfsim`` was measured on."""
    return CellSpec(
        tdd=tdd,
        k2=k2,
        sched_lead_slots=RFSIM_LEAD_SLOTS,
        pusch_decode_slots=1,
        sr_period_slots=RFSIM_SR_PERIOD_SLOTS,
        sr_latency_slots=RFSIM_SR_LATENCY_SLOTS,
        ul_inactivity_frames=10,
    )


TABLE_II_UL_BITS = 146_000.0
"""Bits of a 160x80 frame. Table II: 4.3 Mbit/s at 30 fps. The scenarios use their own offline measurement
(:class:`FlowSpec`), which is lower."""
TABLE_II_UL_EXPONENT = 0.64
"""Bits of a frame grow with its pixels to this power. Table II, least sum of relative deviations."""
TABLE_II_DL_BITS = 31_000.0
"""Bits of a result without its pixels. Table II."""
TABLE_II_DL_BITS_PER_PIXEL = 1.5
"""Table II, with results as often as the inference time allows."""
TABLE_II_INFERENCE = 9 / 7
"""Inference time at 160x80 in Table II over that in Table IV."""


def table_ii_bits(width: int, height: int) -> tuple[float, float]:
    """Bits of a camera frame and of its result, as fitted to Table II."""
    pixels = width * height
    up = TABLE_II_UL_BITS * (pixels / (160 * 80)) ** TABLE_II_UL_EXPONENT
    return up, TABLE_II_DL_BITS + TABLE_II_DL_BITS_PER_PIXEL * pixels
