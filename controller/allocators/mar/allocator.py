"""QoE-CSP in the control loop: twins say how often users must upload, and what PRBs that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from controller.allocators.base import Allocator, Options, SliceView
from controller.allocators.mar import qoe_csp
from controller.allocators.mar.fit import Memory
from controller.allocators.mar.judge import LATENCY, judge, silent
from controller.allocators.mar.margin import Margin, deviate
from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.promises import Promise, Promises
from controller.allocators.mar.radio import Uplink, prb_hz, prbs
from controller.allocators.mar.traces import FIRST_FRAME
from controller.allocators.views import active, attributed, present
from controller.core.decision import Choice, Grant, Settings, SliceDemand, Want
from controller.core.fits import Job
from controller.core.measure import Lever, Outcome, Reason
from controller.core.observation import Flow
from controller.core.spec import LoopSpec
from wire.definitions import nr
from wire.definitions.poses import FRAME_RATE_HZ, POSE, FloatArray

METHOD = "qoe-csp"
LEAST_JUDGED_S = 1.0
"""Of a control slot, after the first frames, that twins can learn from."""
LEAST_PRB = 5
"""The smallest grant of OpenAirInterface's scheduler."""
USUAL_MCS = 9
"""Of a UE that no report has named: where link adaptation begins."""
WINDOWS = 256
"""Control slots of users that the margin is learned from."""
PATIENCE = 20
"""Control slots until a fit that does not come is given up."""
MAX_UES = 256
"""Whose radio is remembered."""
MAX_ERROR = 200
"""Characters of why a fit failed, in a decision's reason."""
RADIO_MEMORY = 0.8
"""What is known of a user's radio weighs so much beside a control slot's reports."""
STRETCH = 2.0
"""To begin with: OpenAirInterface grants one uplink slot for each downlink slot, and leaves others empty."""
STRETCH_UP, STRETCH_DOWN = 1.25, 0.95
LEAST_STRETCH, MAX_STRETCH = 0.5, 16.0
SATURATED = 0.9
"""Of the reports, those in which bytes wait: then what went through is what the PRBs carry."""
LATE = 2.0
"""Times T: such uploads say nothing of what twins expect."""
DROWNED = 5.0
"""Times T: the queue is to drain, at the lowest frequencies."""
FILLED = 0.85
"""Of the granted PRBs, the part that frequencies are chosen for: near all of them the queue grows."""
DL_LOAD = 0.5
"""Of the downlink's PRBs that the content fills."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for in the control slot that begins: b*, loads and expectations [U, F].

    ``uplink`` is that of the users [U], at the rate that the cell really has for them."""

    users: tuple[str, ...]
    uplink: Uplink
    bandwidth_hz: FloatArray
    load_hz: FloatArray
    expected: FloatArray
    reliability: FloatArray
    plan: qoe_csp.Plan
    drowned: bool


class MarAllocator(Allocator):
    """For each user the least bandwidth that keeps its promise; the slice asks for the sum.

    Twins are trained beside the loop (:mod:`controller.allocators.mar.fit`). What they expect of a user is
    turned into the probability of its promise by a margin that is learned from what came of earlier control
    slots. Of whom nothing is known, yet or any more, he uploads as often as can be, and so does everybody
    until there is a twin and a margin.

    Equations (1) to (3) know a user's own bandwidth at its MCS, a carrier has PRBs that its users share and a
    scheduler that does not use all of them. So the bandwidths are stretched by a common factor: where uploads
    took longer than T it grows or, where bytes waited all the time, goes to what the MCS promises over what
    the granted PRBs carried; while they take less than half of T it shrinks. Where they took much longer, all
    upload as rarely as can be until the queue has drained.
    """

    def __init__(self, slice_id: str, options: Options, loop: LoopSpec) -> None:
        assert isinstance(options, MarOptions)
        least = max(FIRST_FRAME, options.lookahead_frames) / FRAME_RATE_HZ + LEAST_JUDGED_S
        if loop.control_slot_s < least:
            raise ValueError(
                f"control slots of {loop.control_slot_s:g} s are too short for twins to learn from: at least"
                f" {least:g} s with a lookahead of {options.lookahead_frames} frames"
            )
        self._slice, self._options, self._loop = slice_id, options, loop
        self._frequencies = np.array(options.upload_hz)
        self._prb_hz = prb_hz(loop.carrier)
        self._memory: Memory | None = None
        self._digest = ""
        self._pending = ""
        self._fit_error = ""
        self._asked_in = 0
        self._job: Job | None = None
        self._windows: list[tuple[float, float]] = []
        self._margin: Margin | None = None
        self._radio: dict[str, tuple[float, float]] = {}
        self._stretch = STRETCH
        self._latency_ms: float | None = None
        self._promises = Promises()
        self._silent: frozenset[str] = frozenset()
        self._asked: _Asked | None = None

    def set(self, options: Options) -> None:
        assert isinstance(options, MarOptions)
        self._options = options

    # ---- learn ---------------------------------------------------------------------------------------------

    def learn(self, view: SliceView) -> Outcome:
        left_out = self._take(view)
        self._latency_ms, self._silent = _typical_latency_ms(view), silent(view)
        outcome = judge(view, self._options, self._promises, self._loop.carrier, dict(view.unattributed))
        if view.granted is not None and attributed(view, Lever.UL):
            if self._latency_ms is None or self._latency_ms <= LATE * self._options.latency_ms:
                self._learn_margin(view, outcome)
            self._learn_stretch(view)
        self._learn_radio(view)
        self._job = self._next_job(view)
        if self._silent and self._silent == present(view):
            # Nobody tells of a frame: that is no idle slice, and nothing was learned about its radio.
            unknown = dict.fromkeys((Lever.UL, Lever.DL), Reason.PROMISE_NOT_KNOWN)
            outcome = replace(outcome, busy=True, unattributed={**unknown, **outcome.unattributed})
        return replace(outcome, faults={**outcome.faults, **left_out})

    def _take(self, view: SliceView) -> dict[str, int]:
        """The fit that was waited for; one that cannot be used changes nothing. Users whose poses could not
        be used, by why."""
        self._fit_error = ""
        for fit in view.fits:
            if fit.key == self._pending:
                self._pending, self._fit_error = "", fit.error[:MAX_ERROR]
                if not fit.error:
                    self._memory = self._read(view.models(fit.digest))
                    self._digest = fit.digest
                    return dict(Counter(self._memory.left_out.values()))
        return {}

    def _read(self, data: bytes) -> Memory:
        memory = Memory.from_bytes(data)
        if memory.frequencies != len(self._frequencies):
            raise ValueError(
                f"slice {self._slice}: twins of {memory.frequencies} upload frequencies, configured are"
                f" {len(self._frequencies)}"
            )
        return memory

    def _learn_margin(self, view: SliceView, outcome: Outcome) -> None:
        share = dict(zip(outcome.users, outcome.measure("hits").values, strict=True))
        for flow, promise in self._promises.of.items():
            came = share.get(flow)
            if promise.expected is not None and came is not None and flow not in view.unapplied:
                kept = came >= self._options.rho - 1e-9
                # Rounded as it is written: a restart goes on with the same margin.
                d = round(float(deviate(promise.expected, self._options.rho)), 4)
                self._windows.append((d, float(kept)))
        self._windows = self._windows[-WINDOWS:]
        self._margin = self._new_margin()

    def _new_margin(self) -> Margin | None:
        pairs = np.array(self._windows, np.float64).reshape(-1, 2)
        return Margin.learn(pairs[:, :1], pairs[:, 1:])

    def _learn_stretch(self, view: SliceView) -> None:
        if self._latency_ms is None:
            return
        if self._latency_ms > self._options.latency_ms:
            carried = self._carried(view)
            stretch = self._stretch * STRETCH_UP if carried is None else 0.5 * (self._stretch + carried)
        elif self._latency_ms < self._options.latency_ms / 2:
            stretch = self._stretch * STRETCH_DOWN
        else:
            return
        self._stretch = min(max(stretch, LEAST_STRETCH), MAX_STRETCH)

    def _carried(self, view: SliceView) -> float | None:
        """What the granted PRBs would have carried at their UEs' MCS over what they did carry, bytes of the
        logical channels; None where no bytes waited, or where the reports do not tell."""
        reports = view.reports
        waiting = sum(any(r.ul.queued_bytes) for r in reports)
        if len(reports) < 2 or view.granted is None or waiting < SATURATED * len(reports):
            return None
        first, last = reports[0], reports[-1]
        before = dict(zip(first.ue_id, first.ul.lc_bytes, strict=False))
        went, could = 0.0, []
        for ue, after in zip(last.ue_id, last.ul.lc_bytes, strict=False):
            if ue in before and after > before[ue]:
                went += 8.0 * (after - before[ue])
                if ue in self._radio:
                    could.append((8.0 * (after - before[ue]), 1.0 / self._radio[ue][0]))
        seconds = (last.time_ns - first.time_ns) / 1e9
        if not went or not could or seconds <= 0:
            return None
        efficiency = sum(b * e for b, e in could) / sum(b for b, _ in could)
        return float(efficiency * self._prb_hz * view.granted.ul_prb * seconds / went)

    def _learn_radio(self, view: SliceView) -> None:
        """Mean and variance of the inverse spectral efficiency of each UE, from the MCS of its reports."""
        inverse: dict[str, list[float]] = {}
        factors = self._loop.carrier.prb_per_bit("ul")
        for report in view.reports:
            columns = report.ul
            rows = zip(report.ue_id, columns.mcs, columns.mcs_table, columns.layers, strict=True)
            for ue, mcs, table, layers in rows:
                factor = factors.get(table, {}).get(mcs)
                if factor is not None and layers > 0:
                    inverse.setdefault(ue, []).append(self._inverse_efficiency(factor / layers))
        for ue, values in inverse.items():
            mean, variance = float(np.mean(values)), float(np.var(values))
            if ue in self._radio:
                old_mean, old_variance = self._radio[ue]
                mean = RADIO_MEMORY * old_mean + (1.0 - RADIO_MEMORY) * mean
                variance = RADIO_MEMORY * old_variance + (1.0 - RADIO_MEMORY) * variance
            self._radio.pop(ue, None)  # the latest come last
            self._radio[ue] = (mean, variance)
        self._radio = dict(list(self._radio.items())[-MAX_UES:])

    def _inverse_efficiency(self, prb_per_bit: float) -> float:
        """1/e in s Hz/bit from the PRBs that a bit takes of a radio frame."""
        return prb_per_bit * nr.FRAME_MS / 1000 * self._prb_hz

    def _next_job(self, view: SliceView) -> Job | None:
        """Each control slot until there is a network, then every ``learn_every_s``; one that does not come is
        given up."""
        poses = view.samples.get("pose")
        if poses is None or not len(poses):
            return None
        every = max(1, round(self._options.learn_every_s / self._loop.control_slot_s))
        trained = self._memory is not None and self._memory.network is not None
        wait = PATIENCE if self._pending else every if trained else 1
        if 0 <= view.control_slot - self._asked_in < wait:
            return None
        answers = view.samples.get("prediction")
        predicted = None if answers is None else (answers.flow, answers.time_ns, answers.values)
        self._asked_in = view.control_slot
        self._pending = f"twins-{view.control_slot}"
        return Job(
            self._pending,
            "controller.allocators.mar.fit:learn",
            {
                "before": b"" if self._memory is None else self._memory.to_bytes(),
                "flows": [u.flow for u in view.users],
                "user": poses.flow,
                "time_ns": poses.time_ns,
                "pose": poses.values[:, : len(POSE)],
                "latency_ms": poses.values[:, LATENCY],
                "predicted": predicted,
                "opened_ns": view.opened_ns,
                "closed_ns": view.closed_ns,
                "options": self._options.to_dict(),
            },
            int(view.rng.integers(1 << 32)),
        )

    def jobs(self) -> Sequence[Job]:
        return () if self._job is None else (self._job,)

    # ---- demand --------------------------------------------------------------------------------------------

    def demand(self, view: SliceView) -> SliceDemand:
        n_prb = self._loop.n_prb
        users = active(view)
        least = min(LEAST_PRB, n_prb)
        if not users:
            self._asked = None
            idle = Want(least)
            return SliceDemand(idle, idle, choices=(self._choice(Lever.UL, least, "nobody is there", None),))
        asked = self._asked = self._ask(users)
        at = np.arange(len(users))
        chosen = self._frequencies[asked.plan.choice]
        needed = np.where(asked.plan.promised, chosen, self._frequencies[0])
        pooled = self._pooled_prb(asked, chosen)
        alone = int(prbs(asked.bandwidth_hz[at, asked.plan.choice].sum(), self._loop.carrier))
        total = max(alone, pooled) if self._options.ask == "sum" else pooled
        prb = max(min(total, n_prb), least)
        floor = min(self._pooled_prb(asked, needed), prb)
        if asked.drowned:
            why = "uploads are late: the queue drains"
        elif self._silent and self._silent >= set(asked.users):
            why = "no user tells of its frames: as often as can be"
        elif total > n_prb:
            why = f"all there is; {total - n_prb} PRB short of what all users want"
        elif self._margin is None or self._memory is None or self._memory.network is None:
            why = "as often as can be, until there are twins"
            why += f"; the last fit failed: {self._fit_error}" if self._fit_error else ""
        else:
            why = f"least that keeps {int(asked.plan.promised.sum())} promises of {len(users)} users"
        ul = Want(prb, floor, self._gain(asked, prb, floor))
        dl_prb = self._dl_prb(view, float(self._frequencies[asked.plan.choice].sum()))
        choices = [
            self._choice(Lever.UL, prb, why, float(total)),
            Choice(Lever.DL, "PRB", METHOD, dl_prb, "what the content takes"),
            *(self._choice_of(i, user.flow, asked) for i, user in enumerate(users)),
        ]
        return SliceDemand(ul, Want(dl_prb, min(least, dl_prb)), choices=tuple(choices))

    def _pooled_prb(self, asked: _Asked, frequency_hz: FloatArray) -> int:
        """What users need who upload so often, in one queue."""
        bandwidth = asked.uplink.pooled_bandwidth_hz(frequency_hz, self._options.latency_ms / 1e3)
        load = float(asked.uplink.load_hz(frequency_hz).sum())
        return int(prbs(max(bandwidth, load / FILLED), self._loop.carrier))

    def _ask(self, users: Sequence[Flow]) -> _Asked:
        o = self._options
        expected = np.full((len(users), len(self._frequencies)), np.nan)
        for i, user in enumerate(users):
            known = None if self._memory is None else self._memory.expected_of(user.flow)
            if known is not None and user.flow not in self._silent:
                expected[i] = known
        reliability = np.full_like(expected, np.nan)
        if self._margin is not None:
            reliability = self._margin.reliability(expected, o.rho)
        uplink = Uplink.of_users([self._uplink(user.ue_id) for user in users])
        uplink = replace(
            uplink, mean=uplink.mean * self._stretch, variance=uplink.variance * self._stretch**2
        )
        every = self._frequencies[:, None]
        bandwidth = uplink.bandwidth_hz(every, o.latency_ms / 1e3).T
        plan = qoe_csp.least_bandwidth(reliability, expected, bandwidth, o.epsilon, o.without_promise)
        known_users = np.isfinite(reliability).all(axis=1)
        choice = np.where(known_users, plan.choice, len(self._frequencies) - 1)
        drowned = self._latency_ms is not None and self._latency_ms > DROWNED * o.latency_ms
        return _Asked(
            tuple(u.flow for u in users),
            uplink,
            bandwidth,
            uplink.load_hz(every).T,
            expected,
            reliability,
            qoe_csp.Plan(choice, plan.promised),
            drowned,
        )

    def _uplink(self, ue: str) -> Uplink:
        usual = self._inverse_efficiency(self._loop.carrier.prb_per_bit("ul")[1][USUAL_MCS])
        mean, variance = self._radio.get(ue, (usual, 0.0))
        return Uplink(*(np.array(v) for v in (self._options.frame_bits, mean, variance)))

    def _gain(self, asked: _Asked, prb: int, floor: int) -> tuple[float, ...]:
        """Hits that each further PRB above the floor adds: of the users without promise, the best first."""
        if prb == floor:
            return ()
        at = np.arange(len(asked.users))
        extra = (asked.load_hz[at, asked.plan.choice] - asked.load_hz[:, 0]) / FILLED / self._prb_hz
        more = asked.expected[at, asked.plan.choice] - asked.expected[:, 0]
        more = np.where(np.isfinite(more), np.maximum(more, 0.0), 1.0)  # who is unknown is worth knowing
        others = ~asked.plan.promised & (extra > 0.0)
        extra, more = extra[others], more[others]
        order = np.argsort(-more / extra, kind="stable")
        ends, hits = (np.append(0.0, np.cumsum(x[order])) for x in (extra, more))
        gain = np.diff(np.interp(np.arange(prb - floor + 1), ends, hits))
        return tuple(np.minimum.accumulate(gain).tolist())  # but for rounding it does not rise

    def _dl_prb(self, view: SliceView, uploads_hz: float) -> int:
        carrier = self._loop.carrier
        mcs = [
            carrier.prb_per_bit("dl").get(t, {}).get(m)
            for r in view.reports
            for m, t in zip(r.dl.mcs, r.dl.mcs_table, strict=True)
        ]
        known = [m for m in mcs if m is not None]
        per_bit = float(np.mean(known)) if known else carrier.prb_per_bit("dl")[1][USUAL_MCS]
        bits = uploads_hz * 8.0 * self._options.content_bytes * nr.FRAME_MS / 1000
        least = min(LEAST_PRB, self._loop.n_prb)
        return max(least, min(ceil(bits * per_bit / DL_LOAD), self._loop.n_prb))

    def _choice(self, lever: Lever, prb: int, why: str, demand: float | None) -> Choice:
        return Choice(lever, "PRB", METHOD, prb, why, demand=demand)

    def _choice_of(self, i: int, flow: str, asked: _Asked) -> Choice:
        k = int(asked.plan.choice[i])
        reliability = asked.reliability[i]
        if not np.isfinite(reliability).all():
            why = "not known yet"
        elif asked.plan.promised[i]:
            why = f"promise kept with {reliability[k]:.2f}"
        else:
            why = f"no frequency keeps the promise, {reliability.max():.2f} at best"
        return Choice(
            Lever.SETTINGS,
            "Hz",
            METHOD,
            float(self._frequencies[k]),
            why,
            user=flow,
            demand=float(asked.bandwidth_hz[i, k] / self._prb_hz),
            actions=self._options.upload_hz,
            indices=tuple(reliability.tolist()) if np.isfinite(reliability).all() else (),
        )

    def early(self, view: SliceView) -> str:
        """A user came, for whom nothing was asked."""
        known = () if self._asked is None else self._asked.users
        came = any(user.flow not in known for user in active(view))
        return "a user came" if came and view.granted is not None else ""

    # ---- settle --------------------------------------------------------------------------------------------

    def settle(self, view: SliceView, grant: Grant) -> Settings:
        asked = self._asked
        if asked is None:
            self._promises = Promises()
            return {}
        granted_hz = grant.ul_prb * self._prb_hz
        wanted = self._frequencies[asked.plan.choice]
        within_t = asked.uplink.pooled_load_hz(wanted, granted_hz, self._options.latency_ms / 1e3)
        allotment = qoe_csp.within(asked.plan, asked.load_hz, min(within_t, FILLED * granted_hz))
        promises: dict[str, Promise] = {}
        settings: dict[str, Mapping[str, tuple[float, ...]]] = {}
        for i, flow in enumerate(asked.users):
            k = 0 if asked.drowned else int(allotment.choice[i])
            expected, reliability = asked.expected[i, k], asked.reliability[i, k]
            promises[flow] = Promise(
                expected=float(expected) if np.isfinite(expected) else None,
                reliability=float(reliability) if allotment.kept[i] and not asked.drowned else None,
                prb=float(asked.bandwidth_hz[i, asked.plan.choice[i]] / self._prb_hz),
            )
            settings[flow] = {"upload_hz": (float(self._frequencies[k]),)}
        self._promises = Promises(promises)
        return settings

    # ---- state ---------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        return {
            "twins": self._digest,
            "pending": self._pending,
            "asked_in": self._asked_in,
            "windows": [[d, kept] for d, kept in self._windows],
            "radio": {ue: list(r) for ue, r in self._radio.items()},
            "stretch": self._stretch,
            "promises": self._promises.to_state(),
        }

    def load_state(self, state: Mapping[str, Any], models: Callable[[str], bytes]) -> None:
        digest = str(state["twins"])
        memory = self._read(models(digest)) if digest else None
        windows = [(float(d), float(kept)) for d, kept in state["windows"]]
        radio = {str(ue): (float(r[0]), float(r[1])) for ue, r in state["radio"].items()}
        promises = Promises.from_state(state["promises"])
        stretch = float(state["stretch"])
        pending, asked_in = str(state["pending"]), int(state["asked_in"])
        self._memory, self._digest, self._windows, self._radio = memory, digest, windows, radio
        self._promises, self._stretch = promises, stretch
        self._pending, self._asked_in = pending, asked_in
        self._margin, self._job, self._asked = self._new_margin(), None, None


def _typical_latency_ms(view: SliceView) -> float | None:
    """What half of the users do not exceed, of each the median latency of the uploads that arrived, ms; None
    where none did. A user counts once, however many rows its host sends."""
    rows = view.samples.get("pose")
    if rows is None or not len(rows):
        return None
    ms = rows.values[:, LATENCY].astype(np.float64)
    known = np.isfinite(ms) & (ms >= 0.0)
    medians = sorted(float(np.median(ms[known & (rows.flow == u)])) for u in np.unique(rows.flow[known]))
    return medians[(len(medians) - 1) // 2] if medians else None
