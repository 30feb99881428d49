"""The emulated testbed: cell, UEs, applications and edge on one virtual clock of NR slots.

The result depends on the specification, the seed and the NR slots at which quotas, clocks and settings were
put in force, not on how :meth:`EmulatedTestbed.advance` was called in between: a real-time and a virtual-time
face see the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.emulator import kernel
from agents.emulator import layout as lay
from agents.emulator.applications.base import Settings
from agents.emulator.applications.hosting import HostedApplication
from agents.emulator.build import new_state, uplink_opportunities
from agents.emulator.channel import cqi_snr
from agents.emulator.spec import OPENRTIST, OPENRTIST_SERVICE, TestbedSpec
from wire import ran_pb2
from wire.definitions.nr import SLOT_NS, SLOTS_PER_FRAME
from wire.definitions.qos import FIRST_DRB_LCID, PRIORITY_LEVELS, parse_snssai

IntArray = NDArray[np.int64]

DEFAULT_EPOCH_NS = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z: CLOCK_REALTIME of NR slot 0 where nothing else is said."""

MAX_UES = 256
MAX_FLOWS = 256
MAX_APPLICATIONS = 32


@dataclass(frozen=True, slots=True)
class FlowInfo:
    """A flow of the testbed; rates are those that its host announces, bit/s."""

    flow: str
    ue_id: str
    slice: str
    """The slice of the flow's UE at the start."""
    ul_bps: float
    dl_bps: float
    service: str
    """The service whose user the flow is; empty for traffic that is no service's."""
    announced: bool = True
    """Whether its host tells the controller of it."""


@dataclass(frozen=True, slots=True)
class FlowEvent:
    """``kind`` is ``start`` or ``stop``; ``flow`` indexes :attr:`EmulatedTestbed.flows`."""

    time_ns: int
    kind: str
    flow: int


@dataclass(frozen=True, slots=True)
class FrameUpdates:
    """Frames whose times changed, as int64 columns of equal length: ns of the epoch, 0 is not yet."""

    flow: IntArray
    sequence: IntArray
    ue_sent: IntArray
    edge_received: IntArray
    edge_sent: IntArray
    ue_received: IntArray

    def __len__(self) -> int:
        return len(self.flow)


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows of one table of one flow, oldest first.

    ``flow`` indexes :attr:`EmulatedTestbed.flows`; ``time_ns`` int64 [n], ns of the epoch; ``values``
    float64 [n, columns], columns and units as the flow's application says, NaN where not known.
    """

    flow: int
    table: str
    time_ns: IntArray
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ByteCounters:
    """Application bytes of a flow, or IP bytes of an RLC entity, in one direction since the start.

    offered = delivered + queued + dropped at every instant. ``queued`` is counted from what is in the queues,
    not from the other three.
    """

    name: str
    direction: str
    offered: int
    delivered: int
    queued: int
    dropped: int


@dataclass(frozen=True, slots=True)
class HarqCounters:
    """Transmissions of a UE in one direction since the start, accounted in the NR slot that carries them."""

    ue_id: str
    direction: str
    new: int
    retransmissions: int
    failed: int
    """Transport blocks given up after the last round"""


@dataclass(frozen=True, slots=True)
class ShortPacketCounters:
    """Transport blocks under the law of short packets of a UE in one direction since the start.

    They are among the ``new`` of :class:`HarqCounters`, the lost ones not among its ``failed``.
    """

    ue_id: str
    direction: str
    blocks: int
    lost: int
    probability: float
    """Sum of the probabilities of loss that the law gave the blocks: what ``lost`` is on average"""


@dataclass(frozen=True, slots=True)
class Health:
    """What the model's bounded rings had to refuse, since the start. All 0 in a sound run."""

    line_drops: int
    """Packets between gNB and edge host"""
    host_drops: int
    """Packets in the UEs, before their applications"""
    segments_stalled: int
    """Transport blocks that went without new data because the RLC window was full"""
    frames_unreported: int
    """Frames forgotten before :meth:`EmulatedTestbed.take_frames` took their last times"""
    events_unreported: int
    """Flow starts and stops forgotten before they were taken"""
    exchanges_refused: int
    """Exchanges that never began because as many of their user were under way as its ring holds"""
    samples_unreported: int
    """Rows of samples forgotten before :meth:`EmulatedTestbed.take_samples` took them"""


class EmulatedTestbed:
    """One emulated testbed. ValueError where the specification cannot be run, OSError for a missing trace.

    An application that breaks its contract ends the run:
    :class:`agents.emulator.applications.hosting.ApplicationError`.

    ``seed`` is 0 or more; ``epoch_ns`` is CLOCK_REALTIME of NR slot 0.
    """

    def __init__(self, spec: TestbedSpec, *, seed: int, epoch_ns: int = DEFAULT_EPOCH_NS) -> None:
        if not 0 <= seed < 1 << 63:
            raise ValueError(f"seed {seed} is outside 0..2**63 - 1")
        if len(spec.ues) > MAX_UES or len(spec.flows) + len(spec.users) > MAX_FLOWS:
            raise ValueError(f"more than {MAX_UES} UEs or {MAX_FLOWS} flows")
        if len(spec.applications) > MAX_APPLICATIONS:
            raise ValueError(f"more than {MAX_APPLICATIONS} applications")
        self.spec = spec
        self.seed = seed
        self.epoch_ns = epoch_ns
        self._ue_index = {u.ue_id: i for i, u in enumerate(spec.ues)}
        self._slice_index: dict[str, int] = {"": 0}
        self._cqi_snr = cqi_snr(spec.link)
        self._state = new_state(spec, seed)
        self._ul_opportunities = uplink_opportunities(spec.cell, self._state.tdd)
        self._cell = self._state.cell[0]
        self._cell["epoch_ns"] = epoch_ns
        self._applications: list[HostedApplication] = []
        first = len(spec.flows)
        for bit, application in enumerate(spec.applications):
            self._applications.append(HostedApplication(application, first, seed, self._state, bit))
            first += len(application.users)
        self.flows: tuple[FlowInfo, ...] = tuple(self._flow_infos())
        self._user_of = {
            user.flow: (application, k)
            for application in self._applications
            for k, user in enumerate(application.application.users)
        }
        n = spec.cell.n_prb
        self._state.slices["quota_ul"] = self._state.slices["quota_dl"] = n
        for i, u in enumerate(spec.ues):
            self._state.ue[i]["slice"] = self._slice(u.slice)
        self._set_powers()
        self._frame_rows = np.empty((1024, 6), np.int64)
        self._use_slot = 0
        self._busy_taken = 0
        self._busy_slot = 0
        self._events_lost = 0
        self._change_slot = lay.NEVER if spec.change is None else round(spec.change.at_s * 1e9 / SLOT_NS)

    # -- clock ---------------------------------------------------------------------------------------

    @property
    def nr_slot(self) -> int:
        """NR slots done."""
        return int(self._cell["slot"])

    def time_ns(self) -> int:
        """CLOCK_REALTIME of the start of the next NR slot, ns."""
        return self.epoch_ns + self.nr_slot * SLOT_NS

    def advance(self, until_nr_slot: int) -> None:
        """Runs the NR slots up to, not including, ``until_nr_slot``. ValueError for one in the past."""
        if until_nr_slot < self.nr_slot:
            raise ValueError(f"NR slot {until_nr_slot} is before {self.nr_slot}: time does not go back")
        if self._change_slot < until_nr_slot:
            self._advance(self._change_slot)
            self._change()
        self._advance(until_nr_slot)

    def _advance(self, until_nr_slot: int) -> None:
        if not self._applications:
            kernel.advance(self._state, until_nr_slot)
            return
        due_slot = self._call_applications()
        while self.nr_slot < until_nr_slot:
            kernel.advance(self._state, min(until_nr_slot, due_slot))
            due_slot = self._call_applications()

    # -- control -------------------------------------------------------------------------------------

    def set_quotas(self, quotas: Mapping[str, tuple[int, int]], bindings: Mapping[str, str]) -> None:
        """Replaces all quotas, from the next NR slot on.

        ``quotas`` maps a slice to (UL, DL) PRB, of which its UEs get theirs first; a slice that is not in
        it has what is left, as have the UEs without one (slice ``""`` has no quota). ``bindings`` maps
        a UE id to its slice; a UE that is not in it keeps its slice. ValueError, and nothing changed, for
        PRBs outside the carrier, a quota for slice ``""`` and an unknown UE.
        """
        n_prb = self.spec.cell.n_prb
        for name, (ul, dl) in quotas.items():
            if not name:
                raise ValueError("a quota without a slice's name")
            for direction, prb in (("UL", ul), ("DL", dl)):
                if not 0 <= prb <= n_prb:
                    raise ValueError(f"slice {name!r}: {direction} quota of {prb} PRB is outside 0..{n_prb}")
        for ue_id in bindings:
            if ue_id not in self._ue_index:
                raise ValueError(f"binding of UE {ue_id!r}: no such UE in the cell")
        new = {*quotas, *bindings.values()} - self._slice_index.keys()
        if len(self._slice_index) + len(new) > lay.MAX_SLICES:
            raise ValueError(f"more than {lay.MAX_SLICES - 1} slices in a cell")
        slices = self._state.slices
        slices["quota_ul"] = slices["quota_dl"] = n_prb
        slices["has_quota"] = 0
        for name, (ul, dl) in quotas.items():
            i = self._slice(name)
            slices["quota_ul"][i], slices["quota_dl"][i], slices["has_quota"][i] = ul, dl, 1
        for ue_id, name in bindings.items():
            self._state.ue["slice"][self._ue_index[ue_id]] = self._slice(name)

    def set_gpu_mhz(self, mhz: int) -> None:
        """Orders an SM clock in MHz; inferences that start after the lag run at it. ValueError below 1."""
        if mhz < 1:
            raise ValueError(f"GPU clock of {mhz} MHz")
        c, orders = self._cell, self._state.orders
        now = self.nr_slot * SLOT_NS
        due = now + int(c["lag_ns"])
        head, tail = int(c["orders_head"]), int(c["orders_tail"])
        # Instants of the NR slot before are still to be worked off.
        while head < tail and orders[head % lay.CLOCK_ORDERS, 0] < now - SLOT_NS:
            c["mhz"] = orders[head % lay.CLOCK_ORDERS, 1]
            head += 1
        if head < tail and orders[(tail - 1) % lay.CLOCK_ORDERS, 0] == due:
            tail -= 1
        if tail - head >= lay.CLOCK_ORDERS:
            raise RuntimeError(f"more than {lay.CLOCK_ORDERS} clock orders within the lag")
        orders[tail % lay.CLOCK_ORDERS] = due, mhz
        c["orders_head"], c["orders_tail"] = head, tail + 1

    def apply(self, settings: Mapping[str, Settings]) -> None:
        """Tells applications what their users are to do, from the next NR slot on.

        ``settings`` maps a flow to setting -> values: all that is set of it, so that a setting that is not
        named is at its default. A flow that is not named keeps what it has. ValueError, which names the flow
        and the setting, and nothing changed, for a flow that is no application's, a setting that its
        application does not know, and values that cannot be.
        """
        by_application: dict[int, dict[int, Settings]] = {}
        for flow, values in settings.items():
            if flow not in self._user_of:
                raise ValueError(f"flow {flow!r}: no user of an application in the cell")
            application, user = self._user_of[flow]
            application.check(user, values)
            values = {**application.defaults(user), **values}
            by_application.setdefault(self._applications.index(application), {})[user] = values
        for number, users in sorted(by_application.items()):
            self._applications[number].apply(users, self.nr_slot * SLOT_NS)
        self._set_powers()

    # -- external flows ------------------------------------------------------------------------------

    def send(self, flow: int, direction: str, size: int) -> int:
        """Puts up to ``size`` bytes of an external flow into the cell, at the start of the next NR slot.

        ``direction`` is ``ul`` or ``dl``. Returns how many bytes were taken: no more than
        ``tcp.send_buffer_bytes`` are under way. They come out in order (:meth:`delivered`). ValueError for
        another kind of flow.
        """
        if self._state.flow[flow]["kind"] != lay.EXTERNAL:
            raise ValueError(f"flow {self.flows[flow].flow!r} is not external")
        return int(kernel.send(self._state, flow, ("ul", "dl").index(direction), size))

    def delivered(self, flow: int, direction: str) -> int:
        """Bytes of a flow that have come out since the start."""
        return int(self._state.flow[flow][f"{direction}_delivered"])

    def dropped(self, flow: int, direction: str) -> int:
        """Bytes of a flow that a full queue has dropped since the start."""
        return int(self._state.flow[flow][f"{direction}_dropped"])

    def underway(self, flow: int, direction: str) -> int:
        """Bytes of a flow that are neither out nor dropped."""
        row = self._state.flow[flow]
        return int(row[f"{direction}_offered"] - row[f"{direction}_delivered"] - row[f"{direction}_dropped"])

    # -- what is seen --------------------------------------------------------------------------------

    def mac_report(self) -> ran_pb2.MacReport:
        """The MAC state now, in the words of the RAN link; session and sequence are left 0."""
        n = self.nr_slot
        report = ran_pb2.MacReport(
            frame=n // SLOTS_PER_FRAME % 1024, slot=n % SLOTS_PER_FRAME, time_ns=self.epoch_ns + n * SLOT_NS
        )
        names = list(self._slice_index)
        ues, rlc = self._state.ue, self._state.rlc
        queued = (rlc["queued"] - rlc["sent"] + rlc["am_bytes"]).tolist()
        granted = (ues["estimate"] - ues["scheduled"]).tolist()
        mcs, lc, prb, bler = (rlc[k].tolist() for k in ("mcs", "lc_bytes", "prb_slots", "bler"))
        slices, snr_ul = ues["slice"].tolist(), ues["snr_ul"].tolist()
        cqi = np.searchsorted(self._cqi_snr, ues["snr_dl"], side="right").tolist()
        for i, u in enumerate(self.spec.ues):
            ue = report.ues.add(
                rnti=u.rnti,
                ue_id=u.ue_id,
                slice=names[slices[i]],
                cqi=cqi[i],
                snr_db=snr_ul[i],
                five_qi=u.five_qi,
                priority_level=PRIORITY_LEVELS.get(u.five_qi, 0),
            )
            if u.snssai:
                ue.snssai.sst, ue.snssai.sd = parse_snssai(u.snssai)
            if queued[2 * i + 1]:
                ue.dl_channels.add(lcid=FIRST_DRB_LCID, queued_bytes=queued[2 * i + 1])
            for d, direction, waiting in (
                (2 * i, ue.ul, max(0, granted[i])),
                (2 * i + 1, ue.dl, queued[2 * i + 1]),
            ):
                direction.mcs = mcs[d]
                direction.mcs_table = 1
                direction.layers = 1
                direction.queued_bytes = waiting
                direction.lc_bytes = lc[d]
                direction.prb_slots = prb[d]
                direction.bler = bler[d]
        return report

    def slice_use(self) -> list[ran_pb2.SliceUse]:
        """PRBs of every slice and direction since the last call, accounted at their grant.

        UEs without a slice are under ``""``. ``slots`` are the NR slots of the direction whose PRBs could be
        granted.
        """
        table, n = self._state.slices, self.nr_slot
        can_grant = {"ul": self._ul_opportunities, "dl": (self._state.tdd[1] >= 0).astype(np.int64)}
        use = []
        for name, i in self._slice_index.items():
            for direction, code in (("ul", ran_pb2.UL), ("dl", ran_pb2.DL)):
                row = table[i]
                use.append(
                    ran_pb2.SliceUse(
                        slice=name,
                        direction=code,
                        max_new_prb=int(row[f"max_{direction}"]),
                        new_prb_slots=int(row[f"new_{direction}"]),
                        retx_prb_slots=int(row[f"retx_{direction}"]),
                        slots=min(_count(can_grant[direction], self._use_slot, n), 2**32 - 1),
                    )
                )
        for name in ("max", "new", "retx"):
            table[f"{name}_ul"] = table[f"{name}_dl"] = 0
        self._use_slot = n
        return use

    def take_frames(self) -> FrameUpdates:
        """Every frame whose times changed since the last call, once, with all times known so far."""
        while True:
            n = kernel.collect(self._state, self._frame_rows)
            if n >= 0:
                break
            self._frame_rows = np.empty((2 * len(self._frame_rows), 6), np.int64)
        rows = self._frame_rows[:n].T.copy()
        return FrameUpdates(*rows)

    def take_samples(self) -> list[Samples]:
        """What the applications have sent since the last call, once for each flow and table with rows."""
        samples = []
        for application in self._applications:
            for rows in application.take_rows():
                users, first = np.unique(rows.user, return_index=True)
                for user, a, b in zip(users, first, [*first[1:], len(rows.user)], strict=True):
                    flow, time_ns = application.first + int(user), rows.time_ns[a:b] + self.epoch_ns
                    samples.append(Samples(flow, rows.table, time_ns, rows.values[a:b]))
        return samples

    def take_flow_events(self) -> list[FlowEvent]:
        """Starts and stops of flows since the last call, in the order of time."""
        c = self._cell
        head, tail = int(c["events_head"]), int(c["events_tail"])
        if tail - head > lay.FLOW_EVENTS:
            self._events_lost += tail - head - lay.FLOW_EVENTS
            head = tail - lay.FLOW_EVENTS
        events = []
        for k in range(head, tail):
            e = self._state.events[k % lay.FLOW_EVENTS]
            kind = "start" if e["start"] else "stop"
            events.append(FlowEvent(self.epoch_ns + int(e["time"]), kind, int(e["flow"])))
        c["events_head"] = tail
        return events

    def edge_utilisation(self) -> float:
        """Part of the time since the last call in which the GPU worked, 0..1; 0 for no time."""
        n = self.nr_slot
        ahead = 0
        if self._cell["serving"] >= 0:
            ahead = max(0, int(self._cell["edge_end"]) - n * SLOT_NS)
        done = int(self._cell["busy_ns"]) - ahead
        worked, slots = done - self._busy_taken, n - self._busy_slot
        self._busy_taken, self._busy_slot = done, n
        return min(1.0, max(0.0, worked / (slots * SLOT_NS))) if slots else 0.0

    def gpu_mhz(self) -> int:
        """The SM clock in force, MHz."""
        c, now, mhz = self._cell, self.nr_slot * SLOT_NS, int(self._cell["mhz"])
        for k in range(int(c["orders_head"]), int(c["orders_tail"])):
            at, ordered = self._state.orders[k % lay.CLOCK_ORDERS]
            if at <= now:
                mhz = int(ordered)
        return mhz

    # -- accounts ------------------------------------------------------------------------------------

    def counters(self) -> tuple[ByteCounters, ...]:
        """Application bytes by flow and direction (``ul``, ``dl``)."""
        result = []
        for i, info in enumerate(self.flows):
            f = self._state.flow[i]
            for d, name in enumerate(("ul", "dl")):
                if f["kind"] == lay.OPENRTIST:
                    queued = self._frames_underway(i, d)
                elif f["kind"] == lay.EXTERNAL:
                    queued = sum(int(p["a"]) for p in self._packets_between_hosts(i, d, lay.STREAM))
                elif f["kind"] == lay.EXCHANGE:
                    if f["datagrams"]:
                        queued = sum(int(p["b"]) for p in self._packets_between_hosts(i, d, lay.DATAGRAM))
                    else:
                        queued = self._exchanges_underway(i, d)
                else:
                    queued = sum(
                        int(p["size"]) for p in self._packets(2 * int(f["ue"]) + d) if p["flow"] == i
                    )
                offered, delivered, dropped = (
                    int(f[f"{name}_{k}"]) for k in ("offered", "delivered", "dropped")
                )
                result.append(ByteCounters(info.flow, name, offered, delivered, queued, dropped))
        return tuple(result)

    def rlc_counters(self) -> tuple[ByteCounters, ...]:
        """IP bytes through the RLC entities by UE id and direction, TCP's headers and ACKs included."""
        result = []
        for i, u in enumerate(self.spec.ues):
            for d, name in enumerate(("ul", "dl")):
                r = self._state.rlc[2 * i + d]
                queued = sum(int(p["size"]) for p in self._packets(2 * i + d))
                offered, delivered, dropped = (int(r[f"bytes_{k}"]) for k in ("in", "out", "dropped"))
                result.append(ByteCounters(u.ue_id, name, offered, delivered, queued, dropped))
        return tuple(result)

    def harq_counters(self) -> tuple[HarqCounters, ...]:
        """HARQ transmissions by UE and direction."""
        table = self._state.rlc
        columns = [table[k].tolist() for k in ("harq_new", "harq_retx", "harq_failed")]
        return tuple(
            HarqCounters(u.ue_id, name, *(c[2 * i + d] for c in columns))
            for i, u in enumerate(self.spec.ues)
            for d, name in enumerate(("ul", "dl"))
        )

    def short_packet_counters(self) -> tuple[ShortPacketCounters, ...]:
        """Transport blocks under the law of short packets by UE and direction."""
        table = self._state.rlc
        columns = [table[k].tolist() for k in ("short_blocks", "short_lost", "short_probability")]
        return tuple(
            ShortPacketCounters(u.ue_id, name, *(c[2 * i + d] for c in columns))
            for i, u in enumerate(self.spec.ues)
            for d, name in enumerate(("ul", "dl"))
        )

    def grants(self, ue_id: str) -> IntArray:
        """Grants of a UE since the start, by NR slot of the radio frame that carries them.

        int64 [2, 3, 20]: direction (UL, DL); new grants, retransmissions, PRBs of new grants; NR slot.
        """
        i = self._ue_index[ue_id]
        rings = self._state.small[2 * i : 2 * i + 2, lay.GRANTS : lay.GRANTS + 3 * SLOTS_PER_FRAME]
        return rings.reshape(2, 3, SLOTS_PER_FRAME).copy()

    def health(self) -> Health:
        """What the model's rings had to refuse."""
        return Health(
            int(self._cell["line_drops"]),
            int(self._state.ue["host_drops"].sum()),
            int(self._state.rlc["stalled"].sum()),
            int(self._state.flow["frame_unreported"].sum()),
            self._events_lost,
            int(self._state.flow["refused"].sum()),
            sum(a.samples_lost for a in self._applications),
        )

    # -- inside --------------------------------------------------------------------------------------

    def _flow_infos(self) -> Iterator[FlowInfo]:
        of = {u.ue_id: u.slice for u in self.spec.ues}
        for f in self.spec.flows:
            service = OPENRTIST_SERVICE if f.kind == OPENRTIST else ""
            rates = (f.ul.mean_bps * f.announced_rate, f.dl.mean_bps * f.announced_rate)
            yield FlowInfo(f.flow, f.ue_id, of[f.ue_id], *rates, service, f.announced)
        for a in self._applications:
            for u in a.application.users:
                yield FlowInfo(u.flow, u.ue_id, of[u.ue_id], u.ul_bps, u.dl_bps, a.service)

    def _set_powers(self) -> None:
        """UL SNRs follow the transmit powers that the applications have now."""
        ues, power = self._state.ue, np.zeros(len(self.spec.ues))
        for a in self._applications:
            np.minimum.at(power, self._state.flow["ue"][a.first : a.end], a.power_db())
        ues["snr_ul"] += power - ues["power_db"]
        ues["power_db"] = power

    def _change(self) -> None:
        """The rest of the run is as :attr:`TestbedSpec.change` says."""
        change = self.spec.change
        assert change is not None
        self._change_slot = lay.NEVER
        self._cell["service_time"] = change.service_time
        rows = self._state.flow[self._state.flow["kind"] == lay.OPENRTIST]
        for name in ("max", "scale", "floor"):
            for direction in ("ul", "dl"):
                rows[f"{direction}_{name}"] *= change.demand
        self._state.flow[self._state.flow["kind"] == lay.OPENRTIST] = rows

    def _call_applications(self) -> int:
        """Calls the applications that are due; the NR slot in which the next one is."""
        woken = int(self._cell["wake"])
        self._cell["wake"] = 0
        now = self.nr_slot * SLOT_NS
        due = lay.NEVER
        for application in self._applications:
            if application.due_ns() <= now or application.wakes(woken):
                application.call(now)
            due = min(due, application.due_ns())
        return -(-due // SLOT_NS)

    def _slice(self, name: str) -> int:
        if name not in self._slice_index and len(self._slice_index) >= lay.MAX_SLICES:
            raise ValueError(f"more than {lay.MAX_SLICES - 1} slices in a cell")
        index = self._slice_index.setdefault(name, len(self._slice_index))
        self._cell["slices"] = len(self._slice_index)
        return index

    def _packets(self, row: int) -> list[np.void]:
        r, length = self._state.rlc[row], self.spec.rlc.queue_packets
        return _ring(self._state.packets, row * length, length, int(r["pk_head"]), int(r["pk_tail"]))

    def _packets_between_hosts(self, i: int, d: int, kind: int) -> list[np.void]:
        """Packets of one kind of a flow and direction, wherever they are between UE and edge host."""
        c, ue = self._cell, int(self._state.flow[i]["ue"])
        packets, line = self._packets(2 * ue + d), self.spec.path.line_packets
        if d == lay.UL:
            packets += _ring(self._state.up, 0, line, int(c["up_head"]), int(c["up_tail"]))
        else:
            e = self._state.ue[ue]
            packets += _ring(self._state.down, 0, line, int(c["down_head"]), int(c["down_tail"]))
            packets += _ring(
                self._state.host, ue * lay.HOST, lay.HOST, int(e["host_head"]), int(e["host_tail"])
            )
        return [p for p in packets if p["flow"] == i and p["kind"] == kind]

    def _exchanges_underway(self, i: int, d: int) -> int:
        """Bytes of a connection's messages that have begun and are not at their host."""
        f, received = self._state.flow[i], int(self._state.tcp[2 * i + d]["rcv"])
        state, name = ((lay.REQUEST, "ul"), (lay.ANSWER, "dl"))[d]
        k = np.arange(int(f["returned"]), int(f["begun"]))
        x = self._state.exchanges[int(f["ring_first"]) + k % int(f["ring"])]
        x = x[x["state"] == state]
        return int(np.minimum(x[f"{name}_size"], np.maximum(0, x[f"{name}_end"] - received)).sum())

    def _frames_underway(self, i: int, d: int) -> int:
        f, received = self._state.flow[i], int(self._state.tcp[2 * i + d]["rcv"])
        name = ("ul", "dl")[d]
        total = 0
        for k in range(int(f["returned"]), int(f["frames" if d == lay.UL else "inferred"])):
            frame = self._state.frames[i * lay.FRAMES + k % lay.FRAMES]
            total += min(int(frame[f"{name}_size"]), max(0, int(frame[f"{name}_end"]) - received))
        return total


def _ring(rows: NDArray[np.void], first: int, length: int, head: int, tail: int) -> list[np.void]:
    return [rows[first + k % length] for k in range(head, tail)]


def _count(can_carry: IntArray, first: int, end: int) -> int:
    """The sum over the NR slots in [first, end) of what ``can_carry`` says for their place in the period."""
    period = len(can_carry)
    whole, rest = divmod(end - first, period)
    return whole * int(can_carry.sum()) + int(np.roll(can_carry, -(first % period))[:rest].sum())
