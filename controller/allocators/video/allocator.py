"""Digital agents in the control loop: what the users of a slice need to keep their agreements, and what each
watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.base import Allocator, Options, SliceView
from controller.allocators.video import bdqn, frontier, orchestration
from controller.allocators.video.agent import HISTORY, OWN, Agent
from controller.allocators.video.bdqn import BranchingNetwork, Condition
from controller.allocators.video.judge import JUDGED_SCORES, Promise, Seen, judge
from controller.allocators.video.learning import Memory, arrived, handed_over
from controller.allocators.video.opinion import OpinionModel, first_informative
from controller.allocators.video.options import VideoOptions
from controller.allocators.video.orchestration import Plan, Resources
from controller.allocators.video.playback import shown_share
from controller.allocators.video.rows import (
    Profile,
    buffers_of,
    pack_rows,
    profiles_of,
    ratings_of,
    unpack_rows,
)
from controller.allocators.video.users import SCATTER, Users
from controller.allocators.views import active, attributed, present, settings_count
from controller.core.decision import Choice, Grant, Settings, SliceDemand, Want
from controller.core.fits import Job
from controller.core.measure import Lever, Outcome, Reason
from controller.core.observation import Flow
from controller.core.spec import LoopSpec
from controller.twins.slice.windows import SliceWindow
from wire.definitions import mos, nr
from wire.definitions.viewing import REQUESTS_PER_MIN

FloatArray = NDArray[np.float64]

LEAST_PRB: Final = 5
"""The smallest grant of OpenAirInterface's scheduler."""
USUAL_MCS: Final = 9
"""Of a UE that no report has named: where link adaptation begins."""
USUAL_KBPS: Final = 2700.0
"""Asked for a user of whom nothing is known: of the middle of the ladder, and a third more."""
MAX_USERS: Final = 256
MAX_PENDING: Final = 400
"""Ratings that wait for the next round of learning."""
MAX_ARRIVED: Final = 4
PATIENCE_S: Final = 120.0
"""Until a round of learning that does not come is given up."""
MAX_ERROR: Final = 200
RADIO_MEMORY: Final = 0.6
"""What is known of a UE's radio weighs so much beside a control slot's reports."""
LEAST_PRB_PER_KBPS: Final = 1e-5
SILENT_S: Final = 35.0
"""Without a rating of a user: three of its intervals, and the way."""
STRETCH: Final = (0.3, 6.0)
"""Of the PRBs that rates take: users share the cell, and a segment waits for the edge too."""
STRETCH_UP, STRETCH_DOWN = 1.08, 0.97
SLOW, FAST = 0.9, 1.15
"""Of the rate that was planned: what segments came at."""
FLOOR_RATIO: Final = 1.1
EXPLORE_UNKNOWN: Final = 0.5
"""Share of control slots in which a user whose own model is not known yet gets another bitrate."""
ACKNOWLEDGED: Final = 0.05
"""Of the bits down, what goes up: acknowledgements of TCP and requests."""
UL_LOAD: Final = 0.4
MARGIN_STEP: Final = 0.006
"""In a control slot: a promise is judged by what some forty of them brought."""
MAX_MARGIN: Final = 1.5
LEAST_GHZ: Final = 0.01
WEIGHTS_KEY: Final = "weights"


@dataclass(frozen=True, slots=True)
class _Asked:
    """The users of the control slot that begins, as columns, and the cycles of a bit."""

    users: tuple[Flow, ...]
    known: Users
    cycles_per_bit: float
    unknown: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Window:
    """A slice window: the control slot in which it ends, its minutes, and the PRBs reserved in it."""

    until: int
    minutes: int
    prb: int


@dataclass(frozen=True, slots=True)
class _Weights:
    """The network's: their digest, or why there are none; neither before they were read."""

    digest: str = ""
    error: str = ""


class VideoAllocator(Allocator):
    """Level one: an agent for each user. Beside the loop agents learn their users' QoE models, emulate them
    and work out what a slice window takes (:mod:`controller.allocators.video.learning`); in it the slice asks
    for the sum of that, and divides what it was granted by the users' gains at their present context. Level
    two: windows by network dynamics, in which what agents expect to need is reserved.

    A slice's users share its PRBs, so that an agent's rate is what its user's segments are to come at, not
    what it has alone; the edge transcodes a segment before the cell carries it. What PRBs that takes beside
    the radio's own rate is learned as a factor, from the rates that users saw.
    """

    def __init__(self, slice_id: str, options: Options, loop: LoopSpec) -> None:
        assert isinstance(options, VideoOptions)
        self._slice, self._options, self._loop = slice_id, options, loop
        self._every = max(1, round(options.learn_every_s / loop.control_slot_s))
        self._memory: Memory | None = None
        self._digest = ""
        self._pending_key = ""
        self._asked_in = -self._every
        self._sent = 0
        self._fit_error = ""
        self._job: Job | None = None
        self._network: BranchingNetwork | None = None
        self._weights = _Weights()
        self._profiles: dict[str, Profile] = {}
        self._rows: list[tuple[str, FloatArray]] = []
        self._first_row = 0
        self._arrived: dict[str, Mapping[str, Any]] = {}
        self._scores: dict[str, list[float]] = {}
        self._promised: dict[str, list[float]] = {}
        self._context: dict[str, tuple[float, float]] = {}
        self._lately: dict[str, tuple[float, float, float]] = {}
        self._rated_ns: dict[str, int] = {}
        self._radio: dict[str, float] = {}
        self._stretch = 1.0
        self._margin = SCATTER * NormalDist().inv_cdf(max(options.reliability, 0.5))
        self._slice_window = SliceWindow()
        self._window: _Window | None = None
        self._promises: dict[str, Promise] = {}
        self._silent: frozenset[str] = frozenset()
        self._asked: _Asked | None = None
        self._warm_up()

    def set(self, options: Options) -> None:
        assert isinstance(options, VideoOptions)
        self._options = options

    def _warm_up(self) -> None:
        """What is compiled at its first use is compiled now, not in a control slot."""
        flow = Flow("warm-up", "warm-up", self._slice, 0.0, 0.0, 1)
        self._plan(self._ask((flow,)), float(self._loop.n_prb))

    # ---- learn ---------------------------------------------------------------------------------------------

    def learn(self, view: SliceView) -> Outcome:
        self._take_weights(view)
        self._take(view)
        self._take_arrivals(view)
        profiles, wrong = profiles_of(view)
        for flow, profile in profiles.items():
            self._profiles.pop(flow, None)  # the latest come last
            self._profiles[flow] = profile
        self._profiles = dict(list(self._profiles.items())[-MAX_USERS:])
        self._learn_radio(view)
        rows, faults = ratings_of(view, self._radio, _losses(view))
        if wrong:
            faults = {**faults, "profile that cannot be": wrong}
        promises = {
            flow: p
            for flow, p in self._promises.items()
            if flow in view.settings and flow not in view.unapplied
        }
        seen = self._take_rows(rows, promises, buffers_of(view))
        there = present(view)
        self._silent = frozenset(
            u.flow
            for u in view.users
            if u.flow in there
            and view.end_ns - max(self._rated_ns.get(u.flow, 0), u.start_ns) > SILENT_S * 1e9
        )
        outcome = judge(
            view,
            self._options,
            self._scores,
            self._promised,
            seen,
            promises,
            {flow: p.ela for flow, p in self._profiles.items()},
            self._loop.carrier,
            dict(view.unattributed),
            faults,
        )
        if view.granted is not None and settings_count(view):
            self._learn_margin(outcome)
            if attributed(view, Lever.DL):
                self._learn_stretch(seen, promises)
        self._turn_window(view)
        self._job = self._next_job(view)
        if self._silent and self._silent == there:
            # Nobody tells of what it sees: that is no idle slice, and nothing was learned about its radio.
            unknown = dict.fromkeys((Lever.UL, Lever.DL), Reason.PROMISE_NOT_KNOWN)
            outcome = replace(outcome, busy=True, unattributed={**unknown, **outcome.unattributed})
        return outcome

    def _take_weights(self, view: SliceView) -> None:
        """The network's weights, once they were read; without them it goes on without."""
        for fit in view.fits:
            if fit.key == WEIGHTS_KEY and not self._weights.digest:
                try:
                    error = fit.error
                    if not error:
                        self._network = _network(view.models(fit.digest))
                        self._weights = _Weights(fit.digest)
                except ValueError as wrong:
                    error = str(wrong)
                if error:
                    self._weights = _Weights(error=error[:MAX_ERROR])

    def _take(self, view: SliceView) -> None:
        """The round of learning that was waited for; one that failed changes nothing, and its ratings wait
        on."""
        for fit in view.fits:
            if fit.key != self._pending_key:
                continue
            self._pending_key, self._fit_error = "", fit.error[:MAX_ERROR]
            if fit.error:
                continue
            self._memory = Memory.from_bytes(view.models(fit.digest))
            self._digest = fit.digest
            done = max(self._sent - self._first_row, 0)
            self._rows, self._first_row = self._rows[done:], self._first_row + min(done, len(self._rows))
            known = self._memory.population.agents
            self._arrived = {
                flow: s
                for flow, s in self._arrived.items()
                if flow not in known or known[flow].seen < s["seen"]
            }

    def _take_arrivals(self, view: SliceView) -> None:
        """Agents of users who came from another cell; one that cannot be is left out."""
        for flow, state in view.arrivals.items():
            try:
                agent = arrived({**state, "user": flow})
            except (ValueError, KeyError, TypeError, AttributeError, IndexError):
                continue
            self._arrived.pop(flow, None)
            self._arrived[flow] = handed_over(agent)
            self._profiles.setdefault(flow, Profile(agent.ela, agent.segment_s))
            if len(agent.history):
                self._scores[flow] = agent.column("score")[-JUDGED_SCORES:].tolist()
                last = agent.history[-1]
                self._context[flow] = (
                    float(last[HISTORY.index("behaviour")]),
                    float(last[HISTORY.index("environment")]),
                )
        self._arrived = dict(list(self._arrived.items())[-MAX_ARRIVED:])

    def _take_rows(
        self,
        rows: Mapping[str, FloatArray],
        promises: Mapping[str, Promise],
        buffers: Mapping[str, float],
    ) -> dict[str, Seen]:
        """Keep ratings for the next round of learning; what each user saw in this slot."""
        seen = {}
        for flow, of in rows.items():
            self._rows += [(flow, row) for row in of]
            columns = dict(zip(HISTORY, of.T, strict=True))
            new = [round(float(x), 4) for x in columns["score"]]
            self._scores[flow] = (self._scores.pop(flow, []) + new)[-JUDGED_SCORES:]
            if flow in promises and promises[flow].kept:
                self._promised[flow] = (self._promised.pop(flow, []) + new)[-JUDGED_SCORES:]
            self._context[flow] = (float(columns["behaviour"][-1]), float(columns["environment"][-1]))
            self._rated_ns[flow] = int(columns["time_s"][-1] * 1e9)
            self._lately[flow] = (
                round(buffers.get(flow, 0.0), 4),
                round(float(columns["quality"][-1]), 4),
                round(float(columns["stalled"][-1]), 4),
            )
            throughput = columns["throughput"][np.isfinite(columns["throughput"])]
            seen[flow] = Seen(
                float(columns["stalled"].mean()),
                float(columns["quality"].mean()),
                float(throughput.mean()) * 1e3 if len(throughput) else None,
            )
        dropped = max(len(self._rows) - MAX_PENDING, 0)
        self._rows, self._first_row = self._rows[dropped:], self._first_row + dropped
        for known in (self._scores, self._promised, self._context, self._lately, self._rated_ns):
            for flow in list(known)[: max(len(known) - MAX_USERS, 0)]:
                del known[flow]
        return seen

    def _learn_radio(self, view: SliceView) -> None:
        """PRBs of a kbit/s of each UE in the downlink, from the MCS of its reports."""
        found: dict[str, list[float]] = {}
        factors = self._loop.carrier.prb_per_bit("dl")
        for report in view.reports:
            dl = report.dl
            for ue, mcs, table, layers in zip(report.ue_id, dl.mcs, dl.mcs_table, dl.layers, strict=True):
                factor = factors.get(table, {}).get(mcs)
                if factor is not None and layers > 0:
                    found.setdefault(ue, []).append(_per_kbps(factor / layers))
        for ue, values in found.items():
            value = float(np.mean(values))
            if ue in self._radio:
                value = RADIO_MEMORY * self._radio.pop(ue) + (1.0 - RADIO_MEMORY) * value
            self._radio[ue] = value
        self._radio = dict(list(self._radio.items())[-MAX_USERS:])

    def _learn_margin(self, outcome: Outcome) -> None:
        """By how much an expected opinion must be above an agreement for a promise: more where promises are
        kept less often than with ``reliability``, and less where more often, whatever is wrong with the
        models (adaptive conformal inference, Gibbs and Candes 2021)."""
        promises = outcome.counts["promises"]
        if promises:
            kept = outcome.counts["promises_kept"] / promises
            margin = self._margin + MARGIN_STEP * (self._options.reliability - kept)
            self._margin = round(min(max(margin, 0.0), MAX_MARGIN), 6)

    def _learn_stretch(self, seen: Mapping[str, Seen], promises: Mapping[str, Promise]) -> None:
        """By how fast segments came, beside what was planned. Where playback stood still and none came, the
        rate was 0: users who get nothing at all must not go unheard."""
        ratios = []
        for flow, s in seen.items():
            planned = promises.get(flow)
            if planned is None or planned.kbps <= 0.0:
                continue
            if s.kbps is not None:
                ratios.append(s.kbps / planned.kbps)
            elif s.stalled > planned.stalled:
                ratios.append(0.0)
        if not ratios:
            return
        typical = float(np.median(ratios))
        if typical < SLOW:
            self._stretch = min(self._stretch * STRETCH_UP, STRETCH[1])
        elif typical > FAST:
            self._stretch = max(self._stretch * STRETCH_DOWN, STRETCH[0])

    def _turn_window(self, view: SliceView) -> None:
        """Where a slice window ends another begins, with what agents expect to need in it."""
        memory = self._memory
        if self._window is not None and view.control_slot < self._window.until:
            return
        if self._window is not None and self._scores:
            kept = [
                float(np.mean(s)) >= self._profiles[flow].ela
                for flow, s in self._scores.items()
                if flow in self._profiles
            ]
            if kept:
                self._slice_window.feedback(sum(kept) / len(kept))
        self._window = None
        if memory is None or not memory.quantiles:
            return
        wished = self._options.window_min or self._slice_window.minutes(min(max(memory.index, 0.0), 1.0))
        # Where the operator has just set another, agents know it from the next round of learning on.
        minutes = min(memory.quantiles, key=lambda known: abs(known - wished))
        prb = min(ceil(memory.quantiles[minutes] * self._stretch), self._loop.n_prb)
        slots = max(1, round(60.0 * minutes / self._loop.control_slot_s))
        self._window = _Window(view.control_slot + slots, minutes, prb)

    def _next_job(self, view: SliceView) -> Job | None:
        """A round of learning each ``learn_every_s``, and as soon as there are the first ratings or somebody
        came."""
        slots = view.control_slot - self._asked_in
        anew = self._memory is None or bool(self._arrived)
        wait = PATIENCE_S / self._loop.control_slot_s if self._pending_key else 0.0 if anew else self._every
        if 0 <= slots < wait or not (self._rows or self._arrived):
            return None
        users = [u.flow for u in active(view)]
        rows: dict[str, FloatArray] = {}
        for flow in dict.fromkeys(flow for flow, _ in self._rows):
            rows[flow] = np.stack([row for of, row in self._rows if of == flow])
        self._asked_in, self._sent = view.control_slot, self._first_row + len(self._rows)
        self._pending_key = f"agents-{view.control_slot}"
        return Job(
            self._pending_key,
            "controller.allocators.video.learning:learn",
            {
                "before": b"" if self._memory is None else self._memory.to_bytes(),
                "rows": rows,
                "profiles": {flow: p.to_state() for flow, p in self._profiles.items()},
                "arrivals": dict(self._arrived),
                "present": users,
                "options": self._options.to_dict(),
            },
            int(view.rng.integers(1 << 32)),
        )

    def jobs(self) -> Sequence[Job]:
        jobs = [] if self._job is None else [self._job]
        if self._options.weights and self._weights == _Weights():
            jobs.append(
                Job(WEIGHTS_KEY, "controller.store.models:read_file", {"path": self._options.weights}, 0)
            )
        return jobs

    def hand_over(self, flow: str) -> Mapping[str, Any] | None:
        known = None if self._memory is None else self._memory.population.agents.get(flow)
        if flow in self._arrived and (known is None or known.seen < self._arrived[flow]["seen"]):
            known = arrived(self._arrived[flow])
        rows = [row for of, row in self._rows if of == flow]
        if known is None and not rows:
            return None
        if known is None:
            profile = self._profiles.get(flow, Profile(self._options.ela))
            agent = Agent(flow, profile.ela, profile.segment_s)
        else:
            agent = replace(known)
        if rows:
            agent.observe(np.stack(rows))
        return handed_over(agent)

    # ---- demand --------------------------------------------------------------------------------------------

    def demand(self, view: SliceView) -> SliceDemand:
        users, n_prb = active(view), self._loop.n_prb
        least = min(LEAST_PRB, n_prb)
        if not users:
            self._asked = None
            idle = Want(least)
            return SliceDemand(idle, idle, choices=(self._choice(Lever.DL, least, "nobody is there"),))
        asked = self._asked = self._ask(users)
        kbps, out_of_reach = self._wanted(users)
        takes = self._stretch / asked.known.kbps_per_prb
        total = max(ceil(float((kbps * takes).sum()) - 1e-9), least)
        silent = bool(self._silent) and self._silent >= {u.flow for u in users}
        if silent:
            prb, why = n_prb, "no user rates what it sees: all there is"
        elif total > n_prb:
            prb, why = n_prb, f"all there is; {total - n_prb} PRB short of what agents ask for"
        elif self._memory is None:
            prb, why = total, "the usual, until agents have learned"
        else:
            prb, why = (
                total,
                f"least that keeps the agreements of {len(users) - out_of_reach} of {len(users)} users",
            )
        if self._weights.error:
            why += f"; no network: {self._weights.error}"
        if self._fit_error:
            why += f"; the last fit failed: {self._fit_error}"
        floor = min(ceil(float((FLOOR_RATIO * mos.BITRATES_KBPS[0] * takes).sum()) - 1e-9), prb)
        floor = max(floor, min(least, prb))
        gain = self._gain(asked, floor, prb)
        reserved = self._window.prb if self._window is not None and self._options.reserve else 0
        up = self._ul_prb(float(kbps.sum()))
        choices = [
            self._choice(Lever.DL, prb, why, float(total)),
            Choice(Lever.UL, "PRB", self._options.orchestration, up, "requests and acknowledgements"),
            *(self._choice_of(u, k) for u, k in zip(users, kbps, strict=True)),
        ]
        return SliceDemand(
            Want(up, min(least, up)), Want(prb, floor, gain), choices=tuple(choices), reserved=(0, reserved)
        )

    def _wanted(self, users: Sequence[Flow]) -> tuple[FloatArray, int]:
        """Rates that the agents ask for in the present window, kbit/s, and of how many users no rate keeps
        the agreement."""
        memory = self._memory
        if memory is None or not memory.demands:
            return np.full(len(users), USUAL_KBPS), 0
        window = self._window.minutes if self._window is not None else 0
        wanted = memory.demands[min(memory.demands, key=lambda known: abs(known - window))]
        place = {flow: i for i, flow in enumerate(memory.users)}
        at = [place.get(u.flow) for u in users]
        out_of_reach = sum(i is not None and not wanted.feasible[i] for i in at)
        return np.array([USUAL_KBPS if i is None else float(wanted.kbps[i]) for i in at]), out_of_reach

    def _ask(self, users: tuple[Flow, ...]) -> _Asked:
        models, unknown = zip(*(self._model_of(u.flow) for u in users), strict=True)
        profiles = [self._profiles.get(u.flow, Profile(self._options.ela)) for u in users]
        usual = float(mos.behaviour(REQUESTS_PER_MIN)), float(np.mean(mos.FACTOR_RANGE))
        context = np.array([self._context.get(u.flow, usual) for u in users])
        per_kbps = np.array([self._radio.get(u.ue_id, self._usual_per_kbps("dl")) for u in users])
        zeros = np.zeros(len(users))
        known = Users(
            tuple(models),
            np.array([p.ela for p in profiles]),
            context[:, 0],
            context[:, 1],
            mos.SWIPES_AT_MOST * (context[:, 0] - mos.FACTOR_RANGE[0]),
            1.0 / np.maximum(per_kbps, LEAST_PRB_PER_KBPS),
            np.zeros(len(users), np.int64),
            zeros,
            zeros,
            float(np.median([p.segment_s for p in profiles])),
        )
        cycles = float(np.mean([p.cycles_per_bit for p in profiles]))
        return _Asked(users, known, max(cycles, 1e-3), np.array(unknown, np.bool_))

    def _model_of(self, flow: str) -> tuple[OpinionModel, bool]:
        """The QoE model to go by, and whether the user's own is not known yet."""
        memory = self._memory
        general = None if memory is None else memory.population.general
        agent = None if memory is None else memory.population.agents.get(flow)
        if (agent is None or agent.source != OWN) and flow in self._arrived:
            agent = arrived(self._arrived[flow])
        if self._options.models == "general":
            return first_informative(general), False
        model = None if agent is None else agent.model
        return first_informative(model, general), agent is None or agent.source != OWN

    def _usual_per_kbps(self, direction: str) -> float:
        return _per_kbps(self._loop.carrier.prb_per_bit(direction)[1][USUAL_MCS])

    def _ul_prb(self, kbps: float) -> int:
        """What requests and acknowledgements take at the MCS that link adaptation begins with."""
        need = ceil(ACKNOWLEDGED * kbps * self._usual_per_kbps("ul") / UL_LOAD)
        return min(max(need, 2 * LEAST_PRB), self._loop.n_prb)

    def _gain(self, asked: _Asked, floor: int, prb: int) -> tuple[float, ...]:
        """What each PRB above the floor adds to the users' gains, the best first."""
        if prb <= floor:
            return ()
        carried = asked.known.kbps_per_prb / self._stretch
        slopes, widths = [], []
        for hull, each in zip(frontier.hulls(asked.known), carried.tolist(), strict=True):
            rates = np.diff(hull.kbps)
            slopes.append(np.diff(hull.gain) / rates * each)
            widths.append(rates / each)
        slope, width = np.concatenate(slopes), np.concatenate(widths)
        order = np.argsort(-slope, kind="stable")
        ends = np.concatenate(([0.0], np.cumsum(width[order])))
        worth = np.concatenate(([0.0], np.cumsum((slope * width)[order])))
        gain = np.diff(np.interp(np.arange(floor, prb + 1), ends, worth))
        return tuple(np.minimum.accumulate(np.maximum(gain, 0.0)).tolist())  # but for rounding it never rises

    def _choice(self, lever: Lever, prb: int, why: str, demand: float | None = None) -> Choice:
        return Choice(lever, "PRB", self._options.orchestration, prb, why, demand=demand)

    def _choice_of(self, user: Flow, kbps: float) -> Choice:
        """The rate that a user's agent asks for, by which model."""
        memory = self._memory
        agent = None if memory is None else memory.population.agents.get(user.flow)
        if agent is None or agent.model is None:
            why = "nothing is known of it yet"
        else:
            why = f"{agent.source} model {agent.model.structure}, of {agent.model.rows} scores"
        return Choice(
            Lever.SETTINGS, "kbit/s", self._options.orchestration, round(float(kbps), 1), why, user=user.flow
        )

    def early(self, view: SliceView) -> str:
        """A user came, for whom nothing was asked."""
        known = () if self._asked is None else tuple(u.flow for u in self._asked.users)
        came = any(user.flow not in known for user in active(view))
        return "a user came" if came and view.granted is not None else ""

    # ---- settle --------------------------------------------------------------------------------------------

    def settle(self, view: SliceView, grant: Grant) -> Settings:
        asked = self._asked
        if asked is None:
            self._promises = {}
            return {}
        plan = self._plan(asked, float(grant.dl_prb))
        chance = np.maximum(self._options.explore, np.where(asked.unknown, EXPLORE_UNKNOWN, 0.0))
        tries = view.rng.uniform(size=len(asked.users)) < chance
        plan = orchestration.explored(plan, tries, view.rng.uniform(size=len(asked.users)))
        shown = shown_share(
            plan.kbps / plan.bitrate_kbps, asked.known.swipes_per_min, plan.prefetch, asked.known.segment_s
        )
        # Nobody else has the edge's cycles: what rates do not need makes segments come sooner.
        share = np.maximum(plan.kbps, 1.0) / np.maximum(plan.kbps, 1.0).sum()
        ghz = np.maximum(self._options.edge_ghz * share, LEAST_GHZ)
        self._promises = {}
        settings: dict[str, Mapping[str, tuple[float, ...]]] = {}
        for i, user in enumerate(asked.users):
            bitrate = float(plan.bitrate_kbps[i])
            self._promises[user.flow] = Promise(
                kbps=round(float(plan.kbps[i]), 3),
                bitrate_kbps=bitrate,
                prb=round(bitrate * float(shown[i]) / float(asked.known.kbps_per_prb[i]), 4),
                expected=round(float(plan.expected[i]), 4),
                stalled=round(60.0 * (1.0 - float(shown[i])), 4),
                quality=round(float(mos.quality(bitrate)) * float(shown[i]), 4),
                kept=bool(
                    plan.expected[i] >= asked.known.ela[i] + self._margin
                    and not tries[i]
                    and not asked.unknown[i]
                ),
            )
            settings[user.flow] = {
                "bitrate_kbps": (bitrate,),
                "prefetch": (float(plan.prefetch[i]),),
                "edge_ghz": (float(min(ghz[i], self._options.edge_ghz)),),
            }
        return settings

    def _plan(self, asked: _Asked, prb: float) -> Plan:
        resources = Resources(
            np.array([prb / self._stretch]), 1e3 * self._options.edge_ghz, asked.cycles_per_bit
        )
        o = self._options
        if (
            o.orchestration == "convex"
            or prb <= 0.0
            or (o.orchestration == "network" and self._network is None)
        ):
            return orchestration.convex(asked.known, resources)
        if self._network is None:
            return orchestration.plan(asked.known, resources)
        level = bdqn.group_level(self._network, self._condition(asked))
        return orchestration.plan(asked.known, resources, level)

    def _condition(self, asked: _Asked) -> Condition:
        """How it has been going for the users, as their latest ratings have it."""
        rows = [self._lately.get(u.flow, (np.nan, np.nan, np.nan)) for u in asked.users]
        buffer, quality, stalled = np.array(rows, np.float64).T
        mcycles = np.array(
            [self._promises[u.flow].kbps if u.flow in self._promises else 0.0 for u in asked.users]
        )
        return Condition(buffer, quality, stalled, mcycles * asked.cycles_per_bit / 1e3)

    # ---- state ---------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        flows = list(dict.fromkeys(flow for flow, _ in self._rows))
        rows = np.stack([row for _, row in self._rows]) if self._rows else np.empty((0, len(HISTORY)))
        w = self._window
        return {
            "agents": self._digest,
            "pending": self._pending_key,
            "asked_in": self._asked_in,
            "sent": self._sent,
            "first_row": self._first_row,
            "flows": flows,
            "rows_of": [flows.index(flow) for flow, _ in self._rows],
            "rows": pack_rows(rows),
            "profiles": {flow: p.to_state() for flow, p in self._profiles.items()},
            "arrived": {flow: dict(s) for flow, s in self._arrived.items()},
            "scores": {flow: list(s) for flow, s in self._scores.items()},
            "promised": {flow: list(s) for flow, s in self._promised.items()},
            "context": {flow: list(c) for flow, c in self._context.items()},
            "lately": {flow: [round(x, 4) for x in c] for flow, c in self._lately.items()},
            "rated_ns": dict(self._rated_ns),
            "weights": [self._weights.digest, self._weights.error],
            "radio": dict(self._radio),
            "stretch": self._stretch,
            "margin": self._margin,
            "slice_window": self._slice_window.to_state(),
            "window": None if w is None else [w.until, w.minutes, w.prb],
            "promises": {
                flow: [p.kbps, p.bitrate_kbps, p.prb, p.expected, p.stalled, p.quality, p.kept]
                for flow, p in self._promises.items()
            },
        }

    def load_state(self, state: Mapping[str, Any], models: Callable[[str], bytes]) -> None:
        digest = str(state["agents"])
        memory = Memory.from_bytes(models(digest)) if digest else None
        flows = [str(f) for f in state["flows"]]
        packed = unpack_rows(state["rows"])
        rows = [(flows[int(i)], row) for i, row in zip(state["rows_of"], packed, strict=True)]
        profiles = {str(f): Profile(*map(float, p)) for f, p in state["profiles"].items()}
        moved: dict[str, Mapping[str, Any]] = {str(f): dict(s) for f, s in state["arrived"].items()}
        for s in moved.values():
            arrived(s)
        scores = {str(f): [float(x) for x in s] for f, s in state["scores"].items()}
        promised = {str(f): [float(x) for x in s] for f, s in state["promised"].items()}
        context = {str(f): (float(c[0]), float(c[1])) for f, c in state["context"].items()}
        lately = {str(f): (float(c[0]), float(c[1]), float(c[2])) for f, c in state["lately"].items()}
        weights = _Weights(*map(str, state["weights"]))
        network = _network(models(weights.digest)) if weights.digest else None
        rated = {str(f): int(t) for f, t in state["rated_ns"].items()}
        radio = {str(u): float(x) for u, x in state["radio"].items()}
        stretch, margin = float(state["stretch"]), float(state["margin"])
        window = None if state["window"] is None else _Window(*map(int, state["window"]))
        slice_window = SliceWindow.from_state(state["slice_window"])
        promises = {str(f): _promise(p) for f, p in state["promises"].items()}
        low, high = STRETCH
        numbers = [x for c in context.values() for x in c]
        if (
            not low <= stretch <= high
            or not 0.0 <= margin <= MAX_MARGIN
            or not all(x > 0.0 for x in radio.values())
        ):
            raise ValueError(f"stretch {stretch}, margin {margin} or the radio of a UE is not what can be")
        if not all(mos.FACTOR_RANGE[0] - 1e-6 <= x <= mos.FACTOR_RANGE[1] + 1e-6 for x in numbers):
            raise ValueError("behaviour or environment of a user is outside its range")
        self._memory, self._digest, self._rows, self._first_row = (
            memory,
            digest,
            rows,
            int(state["first_row"]),
        )
        self._pending_key, self._asked_in = str(state["pending"]), int(state["asked_in"])
        self._sent, self._profiles, self._arrived = int(state["sent"]), profiles, moved
        self._scores, self._promised, self._context = scores, promised, context
        self._lately, self._rated_ns, self._radio = lately, rated, radio
        self._weights, self._network = weights, network
        self._margin = margin
        self._stretch, self._slice_window, self._window = stretch, slice_window, window
        self._promises, self._asked, self._job = promises, None, None


def _network(data: bytes) -> BranchingNetwork:
    """ValueError for bytes that are no network of the group level."""
    network = BranchingNetwork.from_bytes(data)
    bdqn.group_level(network, Condition(*np.zeros((4, 0))))
    return network


def _promise(state: Sequence[Any]) -> Promise:
    kbps, bitrate, prb, expected, stalled, quality = map(float, state[:6])
    return Promise(kbps, bitrate, prb, expected, stalled, quality, bool(state[6]))


def _per_kbps(prb_per_bit: float) -> float:
    """PRBs of a kbit/s from those of a bit in a radio frame."""
    return prb_per_bit * nr.FRAME_MS


def _losses(view: SliceView) -> dict[str, float]:
    """Share of each UE's first transmissions down that were lost, by the gNB's latest report that says."""
    out: dict[str, float] = {}
    for report in view.reports:
        out.update(
            (ue, min(max(float(x), 0.0), 1.0)) for ue, x in zip(report.ue_id, report.dl.bler, strict=False)
        )
    return out
