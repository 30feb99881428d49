"""Problem (6) in the control loop: what devices cache, offload and transmit with, and the PRBs that takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, exp, inf, isfinite, log10, sqrt
from typing import Any, Final

import numpy as np

from controller.allocators.base import Allocator, Options, SliceView
from controller.allocators.urllc import joint
from controller.allocators.urllc.access import IDLE_FORGET, AccessDelay
from controller.allocators.urllc.instance import BoolArray, Instance, watt
from controller.allocators.urllc.judge import (
    EDGE,
    LOCAL,
    LOST,
    TOTAL,
    Promise,
    judge,
    silent,
    tasks_of,
)
from controller.allocators.urllc.model import parts, rate_mbps
from controller.allocators.urllc.options import UrllcOptions
from controller.allocators.urllc.resources import late_ms
from controller.allocators.urllc.twin import Twin
from controller.allocators.views import active, attributed, present, settings_count
from controller.core.decision import Choice, Grant, Settings, SliceDemand, Want
from controller.core.measure import Lever, Outcome, Reason
from controller.core.observation import Flow, Samples
from controller.core.spec import LoopSpec
from wire.definitions import nr
from wire.definitions.short_packets import LN2, inverse_q, rate_bps

METHOD: Final = "ao"
LEAST_PRB: Final = 5
"""The smallest grant of OpenAirInterface's scheduler."""
LEAST_POWER_DBM: Final = -40.0
"""Of a UE (TS 38.101-1 Table 6.3.1-1)."""
LEAST_STEP_DB: Final = 1e-3
BELOW: Final = 1.0 - 1e-6
LEAST_GHZ: Final = 1e-3
"""Of the edge, for a device with nothing there."""
USUAL_SNR_DB: Final = 15.0
"""Of a UE that no report has named."""
POWER_MARGIN_DB: Final = 3.0
"""Above the SNR of the highest MCS: more power than that carries nothing more."""
SNR_DB: Final = (-20.0, 60.0)
"""What is reported below or above counts as that."""
RADIO_MEMORY: Final = 0.5
"""What is known of a UE's radio weighs so much beside a control slot's reports."""
MAX_USERS: Final = 256
DELAY_MEMORY: Final = 0.6
MAX_DELAY_MS: Final = 1e4
MAX_BPS: Final = 1e10
RATE_MEMORY: Final = 0.7
USUAL_TASK_HZ: Final = 10.0
FILLED: Final = 0.5
"""Of the uplink's PRBs that tasks may fill where devices share them: near all of them queues grow."""
TOP_EFFICIENCY: Final = nr.spectral_efficiency(nr.MAX_MCS)
"""bit/s/Hz of the highest MCS."""
LEVELS: Final = 5
"""PRBs for which the problem is solved in a control slot."""
BISECTIONS: Final = 2
TOLERANCE: Final = 1e-4
"""Of the total latency, in a control slot."""
CACHING_DECISIONS: Final = 2
BURST: Final = 2.33
"""Standard deviations of how many devices send, or are answered, in one period of the TDD pattern."""
LEAST_PART_MS: Final = 0.01
"""Of a task: what takes less time shows more of the clock than of the rate."""
RESULT_BITS: Final = 8.0 * 128
"""What comes back for a task at least, with its headers."""
TIGHT: Final = 0.98


@dataclass(frozen=True, slots=True)
class _Device:
    """What a device has said of itself: kbit and 10^6 cycles of a task, GHz, mJ, W; ``whole``: 1 where it
    sends all of a task that is not cached, 0 where it sends the part that it offloads."""

    kbit: float
    mcycles: float
    ue_ghz: float
    energy_mj: float
    power_w: float
    whole: float = 1.0

    @classmethod
    def of(cls, row: Sequence[float]) -> _Device | None:
        """From a row of the table ``device``; None for one that cannot be."""
        size, cycles, ue_ghz, energy, dbm, whole = (float(x) for x in row)
        if not all(0.0 < x < 1e12 for x in (size, cycles, ue_ghz, energy)) or not -60.0 <= dbm <= 60.0:
            return None
        if not isfinite(whole):
            return None
        numbers = (8e-3 * size, 1e-6 * cycles, ue_ghz, energy, watt(dbm), float(whole > 0.5))
        return cls(*(float(f"{x:.7g}") for x in numbers))

    def to_state(self) -> list[float]:
        return [self.kbit, self.mcycles, self.ue_ghz, self.energy_mj, self.power_w, self.whole]


@dataclass(frozen=True, slots=True)
class _Setting:
    """What a device is to do; ``latency_ms``, of it ``computing_ms``, and ``prb`` are what the plan
    expects."""

    cached: bool
    local_share: float
    power_w: float
    ue_ghz: float
    edge_ghz: float
    latency_ms: float
    computing_ms: float
    prb: float
    binding: str = ""

    def values(self) -> dict[str, tuple[float, ...]]:
        """As the application has them, a little below the device's limits, which came as 32-bit numbers."""
        least = watt(LEAST_POWER_DBM)
        dbm = max(10.0 * log10(1e3 * max(self.power_w, least)) - LEAST_STEP_DB, LEAST_POWER_DBM)
        return {
            "cached": (float(self.cached),),
            "local_share": (self.local_share,),
            "power_dbm": (round(dbm, 4),),
            "ue_ghz": (self.ue_ghz * BELOW,),
            "edge_ghz": (self.edge_ghz * BELOW,),
        }


@dataclass(frozen=True, slots=True)
class _Plan:
    """The problem solved for some PRBs. ``devices`` and ``part``: see :meth:`UrllcAllocator._known`;
    ``late``: total ms over the deadlines; ``load``: of the PRBs, what tasks fill."""

    prb: int
    devices: Instance
    part: float
    instance: Instance
    solved: joint.Solved
    total_ms: float
    late: float
    load: float

    @property
    def possible(self) -> bool:
        return not self.late and self.load <= FILLED


class UrllcAllocator(Allocator):
    """Every control slot problem (6) is solved for the devices' present radio and the deviations that their
    twins expect; the slice asks for the PRBs beyond which little is gained, and gives its devices what fits
    the grant.

    A device in a cell differs from one of the paper: it waits for grants and NR slots, and no rate is above
    that of the highest MCS. What that takes beside processing and transmission is learned, as what all but a
    share ``1 - on_time`` of the tasks do not exceed. Its power is that of the PUSCH over all PRBs of a grant,
    as SNRs in reports do not tell how many these were.
    """

    def __init__(self, slice_id: str, options: Options, loop: LoopSpec) -> None:
        assert isinstance(options, UrllcOptions)
        self._slice, self._options, self._loop = slice_id, options, loop
        carrier = loop.carrier
        self._ul_share = carrier.tdd.share("ul", guard=carrier.guard)
        self._prb_mhz = nr.N_SC_PER_RB * carrier.scs_khz / 1e3 * self._ul_share * (1.0 - carrier.ul_overhead)
        self._devices: dict[str, _Device] = {}
        self._twins: dict[str, Twin] = {}
        self._snr: dict[str, float] = {}
        self._task_hz = USUAL_TASK_HZ
        self._dl_bps = 0.0
        self._access = AccessDelay()
        self._cached_ms = options.overhead_ms / 2
        self._settings: dict[str, _Setting] = {}
        self._silent: frozenset[str] = frozenset()
        self._asked: tuple[tuple[Flow, ...], _Plan | None] | None = None
        self._warm_up()

    def set(self, options: Options) -> None:
        assert isinstance(options, UrllcOptions)
        self._options = options

    def _warm_up(self) -> None:
        """What is compiled at its first use is compiled now, not in a control slot."""
        device = _Device(10.0, 0.3, 1.5, 3.0, 0.2)
        users = [Flow(f"warm-up-{i}", f"warm-up-{i}", self._slice, 0.0, 0.0, 1) for i in range(2)]
        self._plan(self._instance(users, [device] * 2), 1.0, self._loop.n_prb)

    # ---- learn ---------------------------------------------------------------------------------------------

    def learn(self, view: SliceView) -> Outcome:
        self._silent = silent(view)
        promises = {
            flow: Promise(s.computing_ms, s.prb)
            for flow, s in self._settings.items()
            if flow in view.settings and flow not in view.unapplied
        }
        budgets = {flow: d.energy_mj for flow, d in self._devices.items()}
        outcome = judge(view, self._options, promises, budgets, self._loop.carrier, dict(view.unattributed))
        faults = self._learn_devices(view)
        tasks = tasks_of(view)
        self._learn_task_rate(view, tasks)
        if view.granted is not None and settings_count(view):
            self._learn_twins(view, tasks)
            if attributed(view, Lever.UL):
                self._learn_delays(view, tasks)
        self._learn_radio(view)
        self._learn_results(view)
        if self._silent and self._silent == present(view):
            # No row of a task came: that is no idle slice, and nothing was learned about its radio.
            unknown = dict.fromkeys((Lever.UL, Lever.DL), Reason.PROMISE_NOT_KNOWN)
            outcome = replace(outcome, busy=True, unattributed={**unknown, **outcome.unattributed})
        return replace(outcome, faults={**outcome.faults, **faults})

    def _learn_devices(self, view: SliceView) -> dict[str, int]:
        """What devices say of themselves; rows that cannot be, by what they are."""
        rows = view.samples.get("device")
        wrong = 0
        for i, row in zip(rows.flow.tolist(), rows.values.tolist(), strict=True) if rows is not None else ():
            device = _Device.of(row)
            if device is None:
                wrong += 1
            else:
                flow = view.users[i].flow
                self._devices.pop(flow, None)  # the latest come last
                self._devices[flow] = device
        self._devices = dict(list(self._devices.items())[-MAX_USERS:])
        return {"device that cannot be": wrong} if wrong else {}

    def _learn_task_rate(self, view: SliceView, tasks: Samples) -> None:
        """Tasks of a device in a second; of those that tell of none nothing is known."""
        there = present(view) - self._silent
        counted = [i for i, user in enumerate(view.users) if user.flow in there]
        rows = int(np.isin(tasks.flow, counted).sum())
        seconds = (view.end_ns - view.begin_ns) / 1e9
        if rows and seconds > 0.0:
            found = RATE_MEMORY * self._task_hz + (1.0 - RATE_MEMORY) * rows / len(there) / seconds
            self._task_hz = min(max(found, 0.1), 1e4)

    def _learn_twins(self, view: SliceView, tasks: Samples) -> None:
        """From the completion times of the devices whose settings were in force."""
        values = tasks.values.astype(np.float64)
        for i, user in enumerate(view.users):
            setting = view.settings.get(user.flow)
            device = self._devices.get(user.flow)
            if setting is None or device is None or user.flow in view.unapplied:
                continue
            if not {"cached", "local_share", "ue_ghz", "edge_ghz"} <= setting.keys():
                continue
            cached, local, ue_ghz, edge_ghz = (
                setting[name][0] for name in ("cached", "local_share", "ue_ghz", "edge_ghz")
            )
            own = values[tasks.flow == i]
            local = 0.0 if cached else local
            at_ue, at_edge = local * device.mcycles / ue_ghz, (1.0 - local) * device.mcycles / edge_ghz
            twin = self._twins.pop(user.flow, Twin())
            with np.errstate(divide="ignore", invalid="ignore"):
                ue, edge = 1.0 - at_ue / own[:, LOCAL], 1.0 - at_edge / own[:, EDGE]
            self._twins[user.flow] = Twin(
                twin.ue.observe(ue) if at_ue >= LEAST_PART_MS else twin.ue,
                twin.edge.observe(edge) if at_edge >= LEAST_PART_MS else twin.edge,
            )
        self._twins = dict(list(self._twins.items())[-MAX_USERS:])

    def _learn_delays(self, view: SliceView, tasks: Samples) -> None:
        """What the way up and down takes beside the transmission of the plan, of tasks that were sent and of
        those that were cached: what a share ``on_time`` of a device's tasks does not exceed, and a share
        ``users`` of the devices. A lost task took the deadline at least. Of what no task shows ever less of
        what was learned is kept."""
        assert view.granted is not None
        values = tasks.values.astype(np.float64)
        if not len(tasks):
            return
        sent: list[float] = []
        cached: list[float] = []
        for i, user in enumerate(view.users):
            setting, device = self._settings.get(user.flow), self._devices.get(user.flow)
            if setting is None or user.flow not in view.settings or user.flow in view.unapplied:
                continue
            own = values[tasks.flow == i]
            way = own[:, TOTAL] - np.nan_to_num(own[:, LOCAL]) - np.nan_to_num(own[:, EDGE])
            way = np.where(own[:, LOST] > 0.5, self._options.deadline_ms, way)
            if not len(way):
                continue
            tail = float(np.quantile(way, self._options.on_time))
            if setting.cached:
                cached.append(tail)
            elif device is not None and (device.whole or setting.local_share < 1.0):
                kbit = device.kbit * (1.0 if device.whole else 1.0 - setting.local_share)
                rate = self._rate_mbps(user.ue_id, setting, view.granted.ul_prb)
                sent.append(tail - (kbit / rate if rate > 0.0 else 0.0))
        up, down = (
            min(max(float(np.quantile(x, self._options.users, method="higher")), 0.0), MAX_DELAY_MS)
            if x
            else None
            for x in (sent, cached)
        )
        if up is None:
            self._access = self._access.unseen()
        elif view.granted.ul_prb > 0:
            self._access = self._access.observe(len(view.users) / view.granted.ul_prb, up)
        if down is None:
            usual = self._options.overhead_ms / 2
            self._cached_ms = IDLE_FORGET * self._cached_ms + (1.0 - IDLE_FORGET) * usual
        else:
            self._cached_ms = DELAY_MEMORY * self._cached_ms + (1.0 - DELAY_MEMORY) * down

    def _rate_mbps(self, ue: str, setting: _Setting, ul_prb: int) -> float:
        """Of a device's transmission by the plan: with all of the granted PRBs, or with its own."""
        prb = ul_prb if self._options.bandwidth == "shared" else setting.prb
        snr = self._snr.get(ue, _linear(USUAL_SNR_DB)) * setting.power_w
        return _mbps(prb * self._prb_mhz, snr, self._interval_ms, self._options.error)

    def _learn_radio(self, view: SliceView) -> None:
        """SNR at 1 W of each UE, from its reports and the power that it sent with; that at full power of a UE
        of which nothing is known."""
        count = settings_count(view)
        found: dict[str, list[float]] = {}
        for report in view.reports:
            for ue, snr_db in zip(report.ue_id, report.snr_db, strict=False):
                if isfinite(snr_db):
                    within = min(max(snr_db, SNR_DB[0]), SNR_DB[1])
                    found.setdefault(ue, []).append(_linear(within))
        for user in view.users:
            if user.ue_id not in found:
                continue
            power = self._devices[user.flow].power_w if user.flow in self._devices else watt(23.0)
            if count:
                if user.flow in view.unapplied:
                    continue
                dbm = view.settings.get(user.flow, {}).get("power_dbm")
                power = power if dbm is None else watt(dbm[0])
            elif user.ue_id in self._snr:
                continue
            values = found.pop(user.ue_id)
            value = len(values) / sum(1.0 / v for v in values) / power
            if user.ue_id in self._snr:
                value = RADIO_MEMORY * self._snr.pop(user.ue_id) + (1.0 - RADIO_MEMORY) * value
            self._snr[user.ue_id] = value
        self._snr = dict(list(self._snr.items())[-MAX_USERS:])

    def _learn_results(self, view: SliceView) -> None:
        """bit/s of a device that came for it down, from the gNB's counters: at once where that is more than
        was known. Where the downlink is too small it is what got through, so that a want grows by a factor
        ``1 / FILLED`` each control slot."""
        users = {user.ue_id for user in view.users}
        if len(view.reports) < 2 or not users:
            return
        first, last = view.reports[0], view.reports[-1]
        seconds = (last.time_ns - first.time_ns) / 1e9
        before, after = (
            dict(zip(r.ue_id, zip(r.dl.lc_bytes, r.dl.queued_bytes, strict=False), strict=False))
            for r in (first, last)
        )
        there = [ue for ue in users if ue in before and ue in after and after[ue][0] >= before[ue][0]]
        if not there or seconds <= 0.0:
            return
        came = sum(sum(after[ue]) - sum(before[ue]) for ue in there)
        found = min(max(8.0 * came / seconds / len(there), 0.0), MAX_BPS)
        self._dl_bps = max(found, RATE_MEMORY * self._dl_bps + (1.0 - RATE_MEMORY) * found)

    # ---- demand --------------------------------------------------------------------------------------------

    def demand(self, view: SliceView) -> SliceDemand:
        users, n_prb = active(view), self._loop.n_prb
        least = min(LEAST_PRB, n_prb)
        self._settings = {u.flow: self._settings[u.flow] for u in users if u.flow in self._settings}
        if not users:
            self._asked = None
            idle = Want(least)
            return SliceDemand(idle, idle, choices=(self._choice(Lever.UL, least, "nobody is there"),))
        known = [u for u in users if u.flow in self._devices]
        burst = min(max(self._burst_prb(len(users)), least), n_prb)
        if not known:
            return self._everything(users, burst, "no device has reported its properties: all there is")
        devices, part = self._known(users)
        if not len(devices):
            return self._everything(users, burst, "no device's radio carries a bit: all there is")
        devices = self._offloading(devices, part)
        if not len(devices):
            self._asked = (users, None)
            alone = Want(least)
            why = "all devices are sooner done alone"
            return SliceDemand(alone, alone, choices=(self._choice(Lever.UL, least, why),))
        plans = self._plans(devices, part, burst)
        if not plans:
            return self._everything(users, burst, "devices cannot share the band: all there is")
        best = plans[-1]
        possible = [p for p in plans if p.possible]
        floor = possible[0].prb if possible else n_prb
        everybody = bool(self._silent) and self._silent >= {u.flow for u in users}
        gain: tuple[float, ...] = ()
        if everybody:
            prb, why = n_prb, "no task is reported: all there is"
        elif not possible:
            prb, why = n_prb, f"all there is; {best.late:.1f} ms over the deadlines with it"
        else:
            prb, gain = _worthwhile(plans, floor, self._options.worth)
            why = f"more takes less than {self._options.worth:.1%} a PRB off {best.total_ms:.0f} ms"
        chosen = min(plans, key=lambda p: (p.prb < prb, p.prb))
        self._asked = (users, chosen)
        settings = self._settings_of(chosen)
        least_down = min(max(ceil(self._dl_load_prb(len(users)) - 1e-9), burst), n_prb)
        down = n_prb if everybody else least_down
        choices = [
            self._choice(Lever.UL, prb, why, float(floor)),
            Choice(Lever.DL, "PRB", METHOD, down, "results of as many devices as end together"),
            *(self._choice_of(u, settings.get(u.flow)) for u in users),
        ]
        return SliceDemand(Want(prb, min(floor, prb), gain), Want(down, least_down), choices=tuple(choices))

    def _everything(self, users: tuple[Flow, ...], burst: int, why: str) -> SliceDemand:
        """All PRBs, where nothing can be planned; devices go on with what they have."""
        self._asked = (users, None)
        want = Want(self._loop.n_prb, burst)
        return SliceDemand(want, want, choices=(self._choice(Lever.UL, want.prb, why),))

    def _burst_prb(self, users: int) -> int:
        """Least grants for as many devices as send at once but in a hundredth of the periods."""
        tdd = self._loop.carrier.tdd
        seconds = tdd.period_slots * nr.slot_ns(self._loop.carrier.scs_khz) / 1e9
        mean = users * self._task_hz * seconds
        return LEAST_PRB * max(1, ceil(mean + BURST * sqrt(mean)))

    def _dl_load_prb(self, users: int) -> float:
        """What results take of the downlink at the MCS that link adaptation begins with."""
        per_bit = self._loop.carrier.prb_per_bit("dl")[1][9] * nr.FRAME_MS / 1e3
        return users * max(self._task_hz * RESULT_BITS, self._dl_bps) * per_bit / FILLED

    @property
    def _interval_ms(self) -> float:
        """An NR slot, in which a device has PRBs of the uplink's NR slots alone."""
        return nr.slot_ns(self._loop.carrier.scs_khz) / 1e6 / self._ul_share

    def _deviations(self, flow: str) -> tuple[float, float, float]:
        """Of a device's rate at most and at least, by which its energy and its latency are planned, and of
        the edge's for it."""
        o = self._options
        if o.twin == "none":
            return 0.0, 0.0, 0.0
        twin = self._twins.get(flow, Twin()) if o.twin == "estimated" else Twin()
        quantile = inverse_q(1.0 - o.confidence)
        fast, slow = twin.ue.bounds(quantile, o.deviation)
        return fast, slow, twin.edge.bounds(quantile, o.deviation)[1]

    def _instance(self, users: Sequence[Flow], devices: Sequence[_Device]) -> Instance:
        """The devices for :meth:`_with_prb`, which has the band of problem (6) and what becomes of its
        SNR."""
        o, m, usual = self._options, len(users), _linear(USUAL_SNR_DB)
        rows = []
        for user, device in zip(users, devices, strict=True):
            snr = self._snr.get(user.ue_id, usual / device.power_w)
            rows.append((*device.to_state(), snr, *self._deviations(user.flow)))
        kbit, mcycles, ue_ghz, energy_mj, power_w, whole, snr_per_w, fast_of, slow_of, edge_of = np.array(
            rows
        ).T
        return Instance(
            ids=tuple(u.flow for u in users),
            kbit=kbit,
            mcycles=mcycles,
            deadline_ms=np.full(m, o.deadline_ms),
            energy_mj=energy_mj,
            snr_per_w=snr_per_w,
            max_power_w=power_w,
            ue_ghz=ue_ghz,
            error=np.full(m, o.error),
            ue_deviation=slow_of,
            energy_deviation=fast_of,
            edge_deviation=edge_of,
            task_cache_kbit=kbit,
            uncached_overhead_ms=np.zeros(m),
            cached_overhead_ms=np.full(m, self._cached_ms),
            bandwidth_mhz=1.0,
            interval_ms=self._interval_ms,
            min_rate_mbps=o.min_rate_mbps,
            edge_ghz=o.edge_ghz,
            cache_kbit=o.cache_kbit,
            theta=o.theta,
            transmitted="whole" if whole.any() else "offloaded",
        )

    def _with_prb(self, devices: Instance, part: float, prb: int) -> Instance:
        """Problem (6) for devices whose ``snr_per_w`` is that of the PUSCH, with so many PRBs; shared ones
        are a band that all have at once.

        An SNR above that of the highest MCS carries nothing more; a device has no more power than that takes.
        """
        o, m = self._options, len(devices)
        mhz = max(prb, 1) * self._prb_mhz * (m if o.bandwidth == "shared" else 1)
        uses = max(1e3 * self._interval_ms * mhz / m, 1.0)
        top = exp(TOP_EFFICIENCY * LN2 + inverse_q(o.error) / sqrt(uses)) - 1.0
        power = np.minimum(devices.max_power_w, top * _linear(POWER_MARGIN_DB) / devices.snr_per_w)
        snr = np.minimum(devices.snr_per_w, top / power)
        wait = self._access.at(m / part / max(prb, 1), o.overhead_ms)
        return replace(
            devices,
            max_power_w=power,
            snr_per_w=snr / m,
            bandwidth_mhz=mhz,
            uncached_overhead_ms=np.full(m, wait),
        )

    def _known(self, users: Sequence[Flow]) -> tuple[Instance, float]:
        """The devices that have said what their tasks are and whose radio carries bits with an equal share of
        all PRBs, and which part of all users they are. Of the others the edge serves as much."""
        known = [u for u in users if u.flow in self._devices]
        devices = self._instance(known, [self._devices[u.flow] for u in known])
        whole = self._with_prb(devices, 1.0, self._loop.n_prb)
        share = np.full(len(known), 1.0 / len(known))
        devices = devices.only(rate_mbps(whole, share, whole.max_power_w, exact=False) > 0.0)
        part = len(devices) / len(users)
        return replace(devices, edge_ghz=devices.edge_ghz * part), part

    def _plan(
        self, devices: Instance, part: float, prb: int, cached: BoolArray | None = None
    ) -> _Plan | None:
        """With a caching decision, or the best that is found; None where devices cannot send."""
        instance, equal = self._with_prb(devices, part, prb), self._options.bandwidth == "shared"
        if cached is None:
            solved = joint.solve(instance, CACHING_DECISIONS, tolerance=TOLERANCE, equal_bandwidth=equal)
        else:
            solved = joint.resources_for(instance, cached, tolerance=TOLERANCE, equal_bandwidth=equal)
        if solved is None:
            return None
        p, a = parts(instance, solved.allocation), solved.allocation
        sends = ~a.cached & (p.rate_mbps > 0.0)
        # Of the band that is the device's a task fills its transmission's share of the time.
        busy = np.where(sends, p.transmission_ms * a.bandwidth, 0.0) * (len(a.cached) if equal else 1.0)
        load = float(busy.sum()) * self._task_hz / 1e3 / part
        return _Plan(
            prb, devices, part, instance, solved, p.total_ms, float(late_ms(instance, a).sum()), load
        )

    def _plans(self, devices: Instance, part: float, burst: int) -> list[_Plan]:
        """With all PRBs and with ever fewer, the fewest first; what is cached is decided with all."""
        n_prb = self._loop.n_prb
        most = self._plan(devices, part, n_prb)
        if most is None:
            return []
        plans = [most]
        levels = np.unique(np.geomspace(min(burst, n_prb), n_prb, LEVELS).round().astype(int))[:-1]
        for prb in levels[::-1].tolist():
            plan = self._plan(devices, part, prb, most.solved.allocation.cached)
            if plan is None:
                break
            plans.append(plan)
            if not plan.possible:
                break
        for _ in range(BISECTIONS):
            # The fewest PRBs that do lie between the last that do not and the first that do.
            gap = plans[-2].prb - plans[-1].prb if len(plans) > 1 and not plans[-1].possible else 0
            if gap < 2 or not plans[-2].possible:
                break
            plan = self._plan(devices, part, plans[-1].prb + gap // 2, most.solved.allocation.cached)
            if plan is None:
                break
            plans.insert(len(plans) - 1 if plan.possible else len(plans), plan)
            if not plan.possible:
                plans.pop(-2)
        return plans[::-1]

    def _offloading(self, devices: Instance, part: float) -> Instance:
        """The devices but for those that are sooner done alone, where what stays in a device need not be
        sent: the way to the edge and back takes its time however little goes there, which is no convex
        function of what does."""
        if devices.transmitted == "whole":
            return devices
        plan = self._plan(devices, part, self._loop.n_prb)
        if plan is None:
            return devices
        alone = np.array([self._alone(flow).latency_ms for flow in devices.ids])
        return devices.only(alone > parts(plan.instance, plan.solved.allocation).latency_ms)

    def _settings_of(self, plan: _Plan) -> dict[str, _Setting]:
        instance, a = plan.instance, plan.solved.allocation
        p = parts(instance, a)
        late = late_ms(instance, a)
        out = {}
        for m, flow in enumerate(instance.ids):
            device = self._devices[flow]
            sends = p.transmission_ms[m] > 0.0
            out[flow] = _Setting(
                cached=bool(a.cached[m]),
                local_share=round(float(a.local_share[m]), 6),
                power_w=round(float(a.power_w[m]), 9) if sends else device.power_w,
                ue_ghz=min(round(float(a.ue_ghz[m]), 6), device.ue_ghz) or device.ue_ghz,
                edge_ghz=max(min(round(float(a.edge_ghz[m]), 6), instance.edge_ghz), LEAST_GHZ),
                latency_ms=round(float(p.latency_ms[m]), 6),
                computing_ms=round(float(p.local_ms[m] + p.edge_ms[m]), 6),
                prb=round(plan.prb * float(a.bandwidth[m]), 4) if sends else 0.0,
                binding=_binding(plan, m, float(p.energy_mj[m]), float(late[m])),
            )
        return out

    def _alone(self, flow: str) -> _Setting:
        """A device that cannot send processes all of its task, as fast as its energy allows."""
        device, (fast, slow, _) = self._devices[flow], self._deviations(flow)
        mj_per_mcycle = self._options.theta / 2.0 * 1e27 * (1.0 - fast) ** 2
        ghz = min(device.ue_ghz, sqrt(device.energy_mj / (mj_per_mcycle * device.mcycles)))
        ms = device.mcycles / (ghz * (1.0 - slow))
        return _Setting(False, 1.0, device.power_w, ghz, LEAST_GHZ, ms, ms, 0.0, "channel")

    def _choice(self, lever: Lever, prb: int, why: str, demand: float | None = None) -> Choice:
        return Choice(lever, "PRB", METHOD, prb, why, demand=demand)

    def _choice_of(self, user: Flow, setting: _Setting | None) -> Choice:
        """The part of a task that the device keeps."""
        if setting is None:
            return Choice(
                Lever.SETTINGS, "1", METHOD, 0.0, "it has not reported its properties", user=user.flow
            )
        kept = 0.0 if setting.cached else setting.local_share
        what = "cached" if setting.cached else f"{setting.edge_ghz:.2f} GHz at the edge"
        why = f"{what}, {setting.latency_ms:.2f} ms"
        return Choice(
            Lever.SETTINGS,
            "1",
            METHOD,
            kept,
            why,
            user=user.flow,
            demand=setting.prb,
            binding=setting.binding,
        )

    def early(self, view: SliceView) -> str:
        """A user came, for whom nothing was asked."""
        known = () if self._asked is None else tuple(u.flow for u in self._asked[0])
        came = any(user.flow not in known for user in active(view))
        return "a user came" if came and view.granted is not None else ""

    # ---- settle --------------------------------------------------------------------------------------------

    def settle(self, view: SliceView, grant: Grant) -> Settings:
        if self._asked is None:
            self._settings = {}
            return {}
        users, plan = self._asked
        if plan is not None and grant.ul_prb != plan.prb:
            cached = plan.solved.allocation.cached
            plan = self._plan(plan.devices, plan.part, grant.ul_prb, cached) or plan
        alone = {u.flow: self._alone(u.flow) for u in users if u.flow in self._devices}
        planned = {} if plan is None else self._settings_of(plan)
        self._settings = self._settings | alone | planned
        return {flow: s.values() for flow, s in self._settings.items()}

    # ---- state ---------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        return {
            "devices": {flow: d.to_state() for flow, d in self._devices.items()},
            "twins": {flow: t.to_state() for flow, t in self._twins.items()},
            "snr": dict(self._snr),
            "task_hz": self._task_hz,
            "dl_bps": self._dl_bps,
            "access": self._access.to_state(),
            "cached_ms": self._cached_ms,
            "settings": {flow: _astuple(s) for flow, s in self._settings.items()},
        }

    def load_state(self, state: Mapping[str, Any], models: Callable[[str], bytes]) -> None:
        devices = {str(flow): _Device(*(float(x) for x in d)) for flow, d in state["devices"].items()}
        twins = {str(flow): Twin.from_state(t) for flow, t in state["twins"].items()}
        snr = {str(ue): float(x) for ue, x in state["snr"].items()}
        access, cached_ms = AccessDelay.from_state(state["access"]), float(state["cached_ms"])
        task_hz, dl_bps = float(state["task_hz"]), float(state["dl_bps"])
        settings = {str(flow): _Setting(bool(s[0]), *s[1:]) for flow, s in state["settings"].items()}
        numbers = [task_hz, *snr.values(), *(x for d in devices.values() for x in d.to_state()[:-1])]
        if not all(0.0 < x < inf for x in numbers) or not (0.0 <= cached_ms < inf and 0.0 <= dl_bps < inf):
            raise ValueError("a device, an SNR, the rate of tasks or results or a delay is not what can be")
        self._devices, self._twins, self._snr, self._task_hz = devices, twins, snr, task_hz
        self._access, self._cached_ms, self._dl_bps = access, cached_ms, dl_bps
        self._settings, self._asked = settings, None


def _worthwhile(plans: Sequence[_Plan], floor: int, worth: float) -> tuple[int, tuple[float, ...]]:
    """The most PRBs, from ``floor`` on, of which the last still takes a part ``worth`` off the total latency;
    and what each of them takes off, in ms, never rising."""
    of = [p for p in plans if p.prb >= floor]
    at = np.arange(floor, of[-1].prb + 1)
    total = np.interp(at, [p.prb for p in of], [p.total_ms for p in of])
    gain = np.maximum(np.minimum.accumulate(-np.diff(total)), 0.0)
    enough = int((gain >= worth * of[-1].total_ms).sum())
    return floor + enough, tuple(gain[:enough].tolist())


def _binding(plan: _Plan, m: int, energy_mj: float, late: float) -> str:
    """What holds a device back."""
    instance, solved = plan.instance, plan.solved
    if late > 0.0:
        return "deadline"
    if energy_mj > TIGHT * instance.energy_mj[m]:
        return "energy"
    return "bandwidth" if solved.band >= solved.edge * instance.edge_ghz else "edge rate"


def _mbps(mhz: float, snr: float, interval_ms: float, error: float) -> float:
    if mhz <= 0.0 or snr <= 0.0:
        return 0.0
    return min(float(rate_bps(1e6 * mhz, snr, interval_ms / 1e3, error)) / 1e6, mhz * TOP_EFFICIENCY)


def _linear(db: float) -> float:
    return float(10.0 ** (db / 10.0))


def _astuple(s: _Setting) -> list[Any]:
    numbers = [s.cached, s.local_share, s.power_w, s.ue_ghz, s.edge_ghz, s.latency_ms, s.computing_ms, s.prb]
    return [*numbers, s.binding]
