"""VR-GX in the control loop: frame rates and resolutions of all users, and the PRBs and GPU time they
take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Any, Final

import numpy as np

from controller.allocators.base import Allocator, Options, SliceView
from controller.allocators.views import active, attributed, granted_counts, present, within
from controller.allocators.vr import heuristic
from controller.allocators.vr.instance import Instance, Node, Object, Station, User
from controller.allocators.vr.judge import COLUMNS, LATENCY, PIXELS, Promise, judge, silent
from controller.allocators.vr.menus import FAST_POINTS, Menu
from controller.allocators.vr.options import VrOptions
from controller.allocators.vr.problem import IntArray, Problem
from controller.allocators.vr.scenes import Scene, scenes
from controller.allocators.vr.tables import MOVE, Tables, total
from controller.core.decision import Choice, Grant, Settings, SliceDemand, Want
from controller.core.measure import Lever, Outcome, Reason
from controller.core.observation import Flow
from controller.core.spec import LoopSpec
from wire.definitions import nr
from wire.definitions.cloud_gaming import FRAME_RATES_HZ, RESOLUTION_PIXELS, VIEW_PIXELS

METHOD: Final = "vr-gx"
NO_ROOM: Final = "no room beside the others"
LEAST_PRB: Final = 5
"""The smallest grant of OpenAirInterface's scheduler."""
USUAL_MCS: Final = 9
"""Of a UE that no report has named: where link adaptation begins."""
MAX_UES: Final = 256
CQI_MARGIN: Final = 0.8
"""Of what a CQI promises, for the errors and the retransmissions that link adaptation allows."""
RADIO_MEMORY: Final = 0.5
"""What is known of a UE's radio weighs so much beside a control slot's reports."""
FEW_PRB_SLOTS: Final = 200
"""With fewer in a control slot the CQI says more about a UE than what its PRBs carried."""
USABLE: Final = 0.75
"""Of the PRBs of all downlink slots, to begin with: OpenAirInterface leaves a quarter of them empty."""
USABLE_LIMITS: Final = (0.3, 1.0)
USABLE_RISE: Final = 0.1
"""Of the way to USABLE, in a control slot that tells nothing: what is less than that is never used up, so
that no queue would ever say that there is more."""
SATURATED_S: Final = 0.05
"""What a UE carries waits so long, on average, where all that can be used is used (Little's law)."""
FILLED: Final = 0.8
"""Of the usable PRBs, the part that settings are chosen for: near all of them queues grow, and what waits
after a stall takes long to drain."""
OUTDONE: Final = 0.25
"""So much more users, or so much more QoE, there must be for those who are admitted to be chosen anew."""
SLACK: Final = 0.1
"""So much more than that, and half as much less, users may take with what they have: a radio that is known
anew each control slot would change settings each time."""
OVERHEAD_MEMORY: Final = 0.7
OVERHEAD_LIMIT: Final = 0.6
"""Of the time of a frame at the lowest rate: what is left must do for rendering and transmission."""
CLOCKS: Final = 4
"""Steps of the GPU's clock where the configuration names none."""
ACK_SHARE: Final = 0.03
"""Bytes up for each byte down: TCP's acknowledgements, a 52-byte packet for two segments, with RLC and
MAC."""
ACK_LOAD: Final = 0.5
"""Of the uplink's PRBs that these may fill."""
GAIN_POINTS: Final = 24
CLOCK_COST: Final = 1.05
"""So much more bandwidth a lower clock may take."""
_GPU: Final = 1
"""The column of a problem's linear resources."""
TIGHT: Final = 0.98
"""A resource of which more is taken is what holds users back."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """What a user is to do, and the PRBs of it; ``classes`` by object."""

    frame_rate_hz: float
    classes: Mapping[int, int]
    qoe: float
    prb: float
    gpu_share: float
    admitted: bool = True
    changed: bool = False
    binding: str = ""

    def after(self, before: _Setting | None) -> _Setting:
        """With whether it differs from what the user had, in the frame rate or in the class of an object that
        is still there."""
        if before is None:
            return self
        other = any(self.classes[o] != k for o, k in before.classes.items() if o in self.classes)
        return replace(self, changed=other or self.frame_rate_hz != before.frame_rate_hz)

    def to_state(self) -> list[Any]:
        numbers = [self.frame_rate_hz, self.qoe, self.prb, self.gpu_share, self.admitted, self.changed]
        return [*numbers, self.binding, list(self.classes), list(self.classes.values())]

    @classmethod
    def from_state(cls, state: Sequence[Any]) -> _Setting:
        *numbers, admitted, changed, binding, objects, classes = state
        rate, qoe, prb, share = (float(x) for x in numbers)
        by_object = {int(o): int(k) for o, k in zip(objects, classes, strict=True)}
        return cls(rate, by_object, qoe, prb, share, bool(admitted), bool(changed), str(binding))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for in the control slot that begins: for users with a scene, for the others, in PRB."""

    users: tuple[Flow, ...]
    scenes: Mapping[int, Scene]
    served: Mapping[int, Scene]
    settings: Mapping[str, _Setting]
    others_prb: float
    others_part: float
    dl_prb: int
    gpu_mhz: int


class VrAllocator(Allocator):
    """Every control slot VR-GX is solved for the users' present radio, views and attention; the slice asks
    for the PRBs and the GPU time of that, and gives its users what fits the grant.

    Users go on with what they have: settings change where what they had does not fit any more, where a change
    is worth a part of ``hysteresis`` of a user's QoE, or where a solution from nothing is worth as much more.
    Who sends no view goes on as before, with the PRBs of it.
    """

    def __init__(self, slice_id: str, options: Options, loop: LoopSpec) -> None:
        assert isinstance(options, VrOptions)
        self._slice, self._options, self._loop = slice_id, options, loop
        self._clocks = options.gpu_mhz or _clocks(loop)
        slots_per_s = 1e9 / nr.slot_ns(loop.carrier.scs_khz)
        self._dl_slots_per_s = slots_per_s * loop.carrier.tdd.share("dl", guard=loop.carrier.guard)
        self._radio: dict[str, float] = {}
        self._usable = USABLE
        self._overhead_s = options.overhead_ms / 1e3
        self._settings: dict[str, _Setting] = {}
        self._menus: dict[str, tuple[Scene, Menu]] = {}
        self._silent: frozenset[str] = frozenset()
        self._seen: tuple[SliceView, dict[int, Scene], dict[str, int]] | None = None
        self._asked: _Asked | None = None
        self._warm_up()

    def set(self, options: Options) -> None:
        assert isinstance(options, VrOptions)
        if options.objective != self._options.objective:
            self._menus = {}
        self._clocks = options.gpu_mhz or _clocks(self._loop)
        self._options = options

    def _warm_up(self) -> None:
        """What is compiled at its first use is compiled now, not in a control slot."""
        scene = Scene(((0, float(VIEW_PIXELS), 1.0),), (2, 4), FRAME_RATES_HZ[:1])
        # Room for one of the two.
        bits_per_s = RESOLUTION_PIXELS[2] * self._options.bits_per_pixel * FRAME_RATES_HZ[0]
        rates = dict.fromkeys(range(2), 1e3 * bits_per_s)
        problem = self._problem([("a", scene), ("b", scene)], rates, 1.5e-3, self._clocks[-1], {})
        found = heuristic.solve(problem)
        nobody = np.full(len(problem), -1)
        heuristic.hold(problem, found.prices, nobody, found.point, np.arange(len(problem)), 0.0)
        heuristic.frontier(problem, found.prices, 2)

    # ---- learn ---------------------------------------------------------------------------------------------

    def learn(self, view: SliceView) -> Outcome:
        self._silent = silent(view)
        promises = {
            flow: Promise(s.frame_rate_hz, s.qoe, s.prb, s.changed)
            for flow, s in self._settings.items()
            if s.admitted and flow in view.settings and flow not in view.unapplied
        }
        outcome = judge(view, self._options, promises, self._loop.carrier, dict(view.unattributed))
        if view.granted is not None and attributed(view, Lever.DL):
            self._learn_usable(view)
            if granted_counts(view, Lever.EDGE):
                self._learn_overhead(view)
        self._learn_radio(view)
        self._seen = None
        _, faults = self._views(view)
        if self._silent and self._silent == present(view):
            # Nobody tells of a frame: that is no idle slice, and nothing was learned about its radio.
            unknown = dict.fromkeys((Lever.UL, Lever.DL), Reason.PROMISE_NOT_KNOWN)
            outcome = replace(outcome, busy=True, unattributed={**unknown, **outcome.unattributed})
        return replace(outcome, faults={**outcome.faults, **faults})

    def _learn_radio(self, view: SliceView) -> None:
        """Seconds that a PRB of all downlink slots takes for a bit of each UE: of what its PRBs carried, or
        of its channel quality where they carried little."""
        values = self._of_quality(view) | self._of_counters(view)
        for ue, value in values.items():
            if ue in self._radio:
                value = RADIO_MEMORY * self._radio[ue] + (1.0 - RADIO_MEMORY) * value
            self._radio.pop(ue, None)  # the latest come last
            self._radio[ue] = value
        self._radio = dict(list(self._radio.items())[-MAX_UES:])

    def _of_quality(self, view: SliceView) -> dict[str, float]:
        """Of the CQI, as link adaptation lowers the MCS of a UE that gets nothing; of the MCS without one."""
        factors = self._loop.carrier.prb_per_bit("dl")
        inverse: dict[str, list[float]] = {}
        for report in view.reports:
            columns = report.dl
            cqi = report.cqi or (0,) * len(report.ue_id)
            rows = zip(report.ue_id, cqi, columns.mcs, columns.mcs_table, columns.layers, strict=True)
            for ue, quality, mcs, table, layers in rows:
                if 0 < quality < len(nr.CQI_EFFICIENCY):
                    factor = factors[1][nr.mcs_of_cqi(quality)] / CQI_MARGIN
                else:
                    factor = factors.get(table, {}).get(mcs, 0.0)
                if factor > 0.0 and layers > 0:
                    inverse.setdefault(ue, []).append(factor / layers * nr.FRAME_MS / 1e3)
        return {ue: sum(values) / len(values) for ue, values in inverse.items()}

    def _of_counters(self, view: SliceView) -> dict[str, float]:
        out: dict[str, float] = {}
        for ue, carried, slots in _carried(view):
            if slots >= FEW_PRB_SLOTS and carried > 0:
                out[ue] = slots / self._dl_slots_per_s / (8.0 * carried)
        return out

    def _learn_usable(self, view: SliceView) -> None:
        """Of the granted PRBs' slots, those that were used while the bytes of most had to wait."""
        reports = view.reports
        if len(reports) < 2 or view.granted is None:
            return
        seconds = (reports[-1].time_ns - reports[0].time_ns) / 1e9
        queued: dict[str, float] = {}
        for report in reports:
            for ue, waiting in zip(report.ue_id, report.dl.queued_bytes, strict=True):
                queued[ue] = queued.get(ue, 0.0) + waiting / len(reports)
        rows = _carried(view)
        carried = sum(bytes_ for _, bytes_, _ in rows)
        # Of a UE alone that waits it is the radio that says so.
        behind = sum(bytes_ for ue, bytes_, _ in rows if queued.get(ue, 0.0) * seconds > SATURATED_S * bytes_)
        there = view.granted.dl_prb * self._dl_slots_per_s * seconds
        used = sum(slots for _, _, slots in rows)
        if carried > 0 and 2 * behind >= carried and there > 0.0 and used > 0:
            low, high = USABLE_LIMITS
            self._usable = 0.5 * (self._usable + min(max(used / there, low), high))
        else:
            self._usable += USABLE_RISE * max(USABLE - self._usable, 0.0)

    def _learn_overhead(self, view: SliceView) -> None:
        """What all but a share ``1 - on_time`` of the frames do not exceed beside rendering and transmission
        with all of the granted PRBs."""
        assert view.granted is not None
        rows = within(view, "delivered", COLUMNS)
        ms = rows.values[:, LATENCY].astype(np.float64)
        known = np.isfinite(ms) & (ms >= 0.0) & np.isfinite(rows.values[:, PIXELS])
        if view.granted.dl_prb < 1:
            return
        if not known.any():
            if self._silent:
                return
            # Nothing is rendered for anybody: what it was then must not keep everybody out for ever.
            start = self._options.overhead_ms / 1e3
            self._overhead_s = OVERHEAD_MEMORY * self._overhead_s + (1.0 - OVERHEAD_MEMORY) * start
            return
        per_bit = np.array([self._s_per_bit(u.ue_id) for u in view.users])[rows.flow[known]]
        rows_of = rows.values[known].astype(np.float64)
        o = self._options
        sent = rows_of[:, PIXELS] * o.bits_per_pixel * per_bit / (view.granted.dl_prb * self._usable)
        clock = (view.granted.gpu_mhz or self._clocks[-1]) / self._loop.max_mhz
        rendered = rows_of[:, PIXELS] * o.flop_per_pixel / (o.gpu_flops_per_s * o.gpu_share * clock)
        over = ms[known] / 1e3 - sent - rendered - o.encoding_ms / 1e3
        value = float(np.quantile(np.maximum(over, 0.0), self._options.on_time))
        self._overhead_s = OVERHEAD_MEMORY * self._overhead_s + (1.0 - OVERHEAD_MEMORY) * value
        self._overhead_s = min(self._overhead_s, OVERHEAD_LIMIT / FRAME_RATES_HZ[0])

    def _s_per_bit(self, ue: str) -> float:
        usual = self._loop.carrier.prb_per_bit("dl")[1][USUAL_MCS] * nr.FRAME_MS / 1e3
        return self._radio.get(ue, usual)

    # ---- demand --------------------------------------------------------------------------------------------

    def demand(self, view: SliceView) -> SliceDemand:
        users, n_prb = active(view), self._loop.n_prb
        least = min(LEAST_PRB, n_prb)
        self._settings = {u.flow: self._settings[u.flow] for u in users if u.flow in self._settings}
        if not users:
            self._asked, self._menus = None, {}
            idle = Want(least)
            return SliceDemand(idle, idle, choices=(self._choice(Lever.DL, least, "nobody is there"),))
        self._menus = {u.flow: self._menus[u.flow] for u in users if u.flow in self._menus}
        there = self._scenes_of(view, users)
        others_prb = sum(self._usual_prb(u) for i, u in enumerate(users) if i not in there)
        others_part = 1.0 - len(there) / len(users)
        room = _room(n_prb * self._usable * FILLED, others_prb, others_part)
        problem, found, served = self._solve(users, there, room, self._clocks[-1])
        # Of who sends no view it is not known what is rendered.
        gpu_mhz = self._least_clock(problem, found) if len(there) == len(users) else self._clocks[-1]
        if gpu_mhz < self._clocks[-1]:
            # The same choices, in which frames are rendered longer and must be sent faster.
            problem = _slower(problem, self._clocks[-1] / gpu_mhz)
        settings = self._settings_of(users, there, served, problem, found)
        nobody = bool(settings) and not any(s.admitted for s in settings.values())
        need = sum(s.prb for s in settings.values()) + others_prb
        whole = need / (self._usable * FILLED)
        prb = min(max(ceil(whole - 1e-9), least), n_prb)
        floor = min(max(ceil(self._floor(problem, others_prb) - 1e-9), least), prb)
        gain = self._gain(problem, found, floor, prb, others_prb)
        everybody = bool(self._silent) and self._silent >= {u.flow for u in users}
        if everybody:
            prb, floor, gain, why = n_prb, min(floor, n_prb), (), "no user tells of its frames: all there is"
        elif not there:
            why = "no user has sent what it looks at"
        elif nobody:
            # No frame would ever tell that what is known of radio or servers is wrong.
            prb, gain, gpu_mhz = n_prb, (), self._clocks[-1]
            floor, why = (
                min(floor, n_prb),
                "none of the users could be served with all there is: all there is",
            )
        else:
            admitted = sum(s.admitted for s in settings.values())
            why = f"frame rates and resolutions of {admitted} of {len(users)} users"
        self._asked = _Asked(users, there, served, settings, others_prb, others_part, prb, gpu_mhz)
        share = min(sum(s.gpu_share for s in settings.values()), 1.0)
        choices = [
            self._choice(Lever.DL, prb, why, whole),
            Choice(
                Lever.EDGE,
                "MHz",
                METHOD,
                gpu_mhz,
                f"the least clock at which {share:.0%} of its time does",
                actions=tuple(float(c) for c in self._clocks),
            ),
            *(self._choice_of(u, settings.get(u.flow)) for u in users),
        ]
        ul = self._ul_prb(users, settings, least)
        # Where it is not known what comes down, it is not known what acknowledges it.
        up = Want(n_prb if nobody else ul, ul)
        return SliceDemand(up, Want(prb, floor, gain), gpu_mhz, share, tuple(choices))

    def _usual_prb(self, user: Flow) -> float:
        """PRBs of a user without a view: what it has, or the lowest class at the lowest frame rate, with
        which servers begin."""
        if (had := self._settings.get(user.flow)) is not None:
            return had.prb
        pixels = RESOLUTION_PIXELS[min(RESOLUTION_PIXELS)]
        return pixels * self._options.bits_per_pixel * FRAME_RATES_HZ[0] * self._s_per_bit(user.ue_id)

    def _views(self, view: SliceView) -> tuple[dict[int, Scene], dict[str, int]]:
        """:func:`scenes` of a control slot; demand asks after learn."""
        if self._seen is None or self._seen[0] is not view:
            self._seen = (view, *scenes(view.samples, len(view.users)))
        return self._seen[1:]

    def _scenes_of(self, view: SliceView, users: Sequence[Flow]) -> dict[int, Scene]:
        """By place in ``users``."""
        found, _ = self._views(view)
        place = {u.flow: i for i, u in enumerate(view.users)}
        return {i: found[place[u.flow]] for i, u in enumerate(users) if place[u.flow] in found}

    def _problem(
        self,
        named: Sequence[tuple[str, Scene]],
        bits_per_prb_s: Mapping[int, float],
        room: float,
        mhz: int,
        menus: Mapping[int, Menu],
    ) -> Problem:
        """VR-GX with the cell as its station, of ``room`` "Hz", each a PRB, and the GPU as its node."""
        o = self._options
        gpu = o.gpu_flops_per_s * o.gpu_share * mhz / self._loop.max_mhz
        users = tuple(
            User(
                i,
                flow or i,
                scene.classes,
                scene.rates,
                (bits_per_prb_s[i],),
                (0.0,),
                tuple(Object(*entry) for entry in scene.objects),
            )
            for i, (flow, scene) in enumerate(named)
        )
        instance = Instance(
            (Station("cell", room),),
            (Node("edge", gpu, (o.encoding_ms / 1e3,)),),
            users,
            bits_per_pixel=o.bits_per_pixel,
            flop_per_pixel=o.flop_per_pixel,
            fixed_latency_s=self._overhead_s,
        )
        shared = o.bandwidth == "shared"
        return Problem.of(instance, "full", o.objective, points=FAST_POINTS, shared=shared, menus=menus)

    def _problem_of(
        self, users: Sequence[Flow], there: Mapping[int, Scene], room: float, mhz: int
    ) -> Problem:
        """Of the users with a scene, in their order."""
        named = [(users[i].flow, scene) for i, scene in there.items()]
        rates = {n: 1.0 / self._s_per_bit(users[i].ue_id) for n, i in enumerate(there)}
        known = {
            n: entry[1]
            for n, (flow, scene) in enumerate(named)
            if (entry := self._menus.get(flow)) is not None and entry[0] == scene
        }
        problem = self._problem(named, rates, room, mhz, known)
        for own, n in zip(problem.menus, problem.user.tolist(), strict=True):
            self._menus[named[n][0]] = (named[n][1], own)
        return problem

    def _solve(
        self, users: Sequence[Flow], there: Mapping[int, Scene], room: float, mhz: int
    ) -> tuple[Problem, heuristic.Found, Mapping[int, Scene]]:
        """From what users have, unless what is worth more by the hysteresis comes from nothing; and who the
        users of the problem are.

        Who is not admitted waits until there is room for the lowest class with something to spare, or until
        a solution from nothing that counts all of them is by far the better one.
        """
        everybody = self._problem_of(users, there, room, mhz)
        waiting = self._waiting(users, there, everybody)
        if not waiting:
            return *self._improved(users, there, everybody), there
        served = {i: scene for i, scene in there.items() if i not in waiting}
        problem, found = self._improved(users, served, self._problem_of(users, served, room, mhz))
        fresh = heuristic.solve(everybody)
        worth, admitted = (1.0 + OUTDONE) * found.value, (1.0 + OUTDONE) * found.admitted
        if fresh.admitted > admitted or (fresh.admitted >= found.admitted and fresh.value > worth):
            return everybody, fresh, there
        return problem, found, served

    def _waiting(self, users: Sequence[Flow], there: Mapping[int, Scene], problem: Problem) -> frozenset[int]:
        """Places of those without admission for whom there is no room yet, at the fewest pixels; of nobody
        where nobody is admitted."""
        places = list(there)
        place = [places[k] for k in problem.user.tolist()]
        had = [self._settings.get(users[i].flow) for i in place]
        admitted = np.array([s is not None and s.admitted for s in had], bool)
        if not admitted.any():
            return frozenset()
        least = problem.bandwidth(_lowest_rates(problem), problem.pixels[problem.menu_at[:-1]])
        room = 1.0 - SLACK - float(least[admitted].sum())
        waiting: list[int] = []
        for n in np.argsort(least, kind="stable").tolist():
            if not admitted[n]:
                room -= float(least[n])
                if room < 0.0:
                    waiting.append(place[n])
        return frozenset(waiting)

    def _improved(
        self, users: Sequence[Flow], there: Mapping[int, Scene], problem: Problem
    ) -> tuple[Problem, heuristic.Found]:
        """What users have may take a little more than there is, or less, where nobody comes in."""
        fresh = heuristic.solve(problem)
        config, point, order = self._before(users, there, problem)
        if not (config >= 0).any():
            return problem, fresh
        least = max(self._options.hysteresis * fresh.value / max(len(problem), 1), MOVE)
        held, of = heuristic.hold(problem, fresh.prices, config, point, order, least), problem
        loose = replace(problem, budget_s=problem.budget_s + SLACK / problem.frame_rate_hz)
        value = float(total(Tables.of(problem), config, point))
        as_before = heuristic.Found(config, point, value, inf, fresh.prices)
        most = max(_used(loose, as_before))
        if 1.0 - SLACK / 2 < most <= 1.0 + SLACK and held.admitted <= as_before.admitted:
            held, of = as_before, loose
        worth = held.value + self._options.hysteresis * abs(held.value)
        better = fresh.admitted > held.admitted or (fresh.admitted == held.admitted and fresh.value > worth)
        return (problem, fresh) if better else (of, held)

    def _before(
        self, users: Sequence[Flow], there: Mapping[int, Scene], problem: Problem
    ) -> tuple[IntArray, IntArray, IntArray]:
        """What users had as configurations and points of a problem, and users in the order of how much more
        it takes now: those whose radio or view became worse come last."""
        places = list(there)
        config, point = np.full(len(problem), -1), problem.menu_at[:-1].copy()
        more = np.zeros(len(problem))
        pixels_of = problem.instance.resolution_pixels
        for n, k in enumerate(problem.user.tolist()):
            flow = users[places[k]].flow
            had = self._settings.get(flow)
            if had is None:
                continue
            own = slice(problem.config_at[n], problem.config_at[n + 1])
            same = np.flatnonzero(problem.frame_rate_hz[own] == had.frame_rate_hz)
            if not len(same):
                continue
            config[n] = problem.config_at[n] + same[0]
            lowest = there[places[k]].classes[0]
            pixels = sum(
                area * pixels_of[had.classes.get(o, lowest)] / VIEW_PIXELS
                for o, area, _ in there[places[k]].objects
            )
            # The best with no more pixels than what the user had takes in the present view.
            points = problem.pixels[problem.menu_at[n] : problem.menu_at[n + 1]]
            point[n] += max(int(np.searchsorted(points, pixels * (1.0 + 1e-9), side="right")) - 1, 0)
            need = _prb_of(problem, int(config[n]), int(point[n]))
            more[n] = need / had.prb if had.prb > 0.0 else inf
        return config, point, np.lexsort((np.arange(len(problem)), more))

    def _least_clock(self, problem: Problem, found: heuristic.Found) -> int:
        """The least clock at which what was found still fits, with hardly more bandwidth: the GPU takes
        longer for a frame then, which must be sent in less time."""
        chosen = found.config >= 0
        c, x = found.config[chosen], problem.pixels[found.point[chosen]]
        most, least = max(float(problem.bandwidth(c, x).sum()), 1.0), self._clocks[-1]
        for mhz in reversed(self._clocks):
            then = _slower(problem, self._clocks[-1] / mhz)
            bandwidth = then.bandwidth(c, x).sum()
            if not bandwidth <= most or (x * then.slope[c, _GPU]).sum() > 1.0:
                break
            most, least = min(most, float(bandwidth) * CLOCK_COST), mhz
        return least

    def _settings_of(
        self,
        users: Sequence[Flow],
        there: Mapping[int, Scene],
        served: Mapping[int, Scene],
        problem: Problem,
        found: heuristic.Found,
    ) -> dict[str, _Setting]:
        """Of the users with a scene, ``served`` those of the problem; for who is not admitted nothing is
        rendered, unless nobody is and nobody was."""
        places = list(served)
        used = _used(problem, found)
        out: dict[str, _Setting] = {}
        row = {places[k]: n for n, k in enumerate(problem.user.tolist())}
        reasons = {places[k]: why for k, why in problem.reasons.items()}
        for place, scene in there.items():
            n = row.get(place)
            flow = users[place].flow
            c = -1 if n is None else int(found.config[n])
            if n is None or c < 0:
                lowest = dict.fromkeys((o for o, _, _ in scene.objects), scene.classes[0])
                why = reasons.get(place, NO_ROOM)
                out[flow] = _Setting(0.0, lowest, 0.0, 0.0, 0.0, False, binding=why)
                continue
            point = int(found.point[n])
            classes = problem.menus[n].resolutions(point - int(problem.menu_at[n]))
            out[flow] = _Setting(
                float(problem.frame_rate_hz[c]),
                {o: int(k) for (o, _, _), k in zip(scene.objects, classes, strict=True)},
                round(float(problem.rate_value[c] + problem.value[point]), 6),
                round(_prb_of(problem, c, point), 6),
                round(float(problem.pixels[point] * problem.slope[c, _GPU]) * self._options.gpu_share, 6),
                binding=_binding(problem, n, c, point, used),
            )
        before = [self._settings.get(flow) for flow in out]
        if not any(s.admitted for s in out.values()) and all(
            b is not None and not b.admitted for b in before
        ):
            # Nobody was served before, either: that all play on as they can is the only way to learn more.
            lowest_hz = {users[place].flow: scene.rates[0] for place, scene in there.items()}
            out = {flow: replace(s, frame_rate_hz=lowest_hz[flow]) for flow, s in out.items()}
        return out

    def _floor(self, problem: Problem, others_prb: float) -> float:
        """PRBs with which all users can have the fewest pixels at the lowest rate, as far as they can at
        all."""
        part = problem.bandwidth(_lowest_rates(problem), problem.pixels[problem.menu_at[:-1]])
        total = float(part[np.isfinite(part)].sum()) * problem.instance.stations[0].bandwidth_hz
        return (total + others_prb) / (self._usable * FILLED)

    def _gain(
        self, problem: Problem, found: heuristic.Found, floor: int, prb: int, others_prb: float
    ) -> tuple[float, ...]:
        """QoE that each further PRB above the floor adds, of the concave hull of what can be had."""
        if prb == floor or not len(problem):
            return ()
        part, value = heuristic.frontier(problem, found.prices, GAIN_POINTS)
        room = problem.instance.stations[0].bandwidth_hz
        at = (part * room + others_prb) / (self._usable * FILLED)
        gain = np.diff(np.interp(np.arange(floor, prb + 1), at, value))
        return tuple(np.maximum(np.minimum.accumulate(gain), 0.0).tolist())

    def _ul_prb(self, users: Sequence[Flow], settings: Mapping[str, _Setting], least: int) -> int:
        """What TCP's acknowledgements of the frames take at the MCS that uplinks begin with."""
        per_bit = self._loop.carrier.prb_per_bit("ul")[1][USUAL_MCS] * nr.FRAME_MS / 1e3
        bps = sum(s.prb / self._s_per_bit(u.ue_id) for u in users if (s := settings.get(u.flow)) is not None)
        prb = ceil(bps * ACK_SHARE * per_bit / ACK_LOAD - 1e-9)
        return min(max(prb, least), self._loop.n_prb)

    def _choice(self, lever: Lever, prb: int, why: str, demand: float | None = None) -> Choice:
        return Choice(lever, "PRB", METHOD, prb, why, demand=demand)

    def _choice_of(self, user: Flow, setting: _Setting | None) -> Choice:
        setting = setting or self._settings.get(user.flow)
        if setting is None:
            return Choice(Lever.SETTINGS, "Hz", METHOD, 0.0, "no view is known", user=user.flow)
        if not setting.admitted:
            why, binding = f"not admitted: {setting.binding}", ""
        else:
            why, binding = f"QoE {setting.qoe:.2f}", setting.binding
        rate = setting.frame_rate_hz
        return Choice(
            Lever.SETTINGS, "Hz", METHOD, rate, why, user=user.flow, demand=setting.prb, binding=binding
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
            self._settings = {}
            return {}
        settings = dict(asked.settings)
        mhz = grant.gpu_mhz or asked.gpu_mhz
        if grant.dl_prb < asked.dl_prb or mhz < asked.gpu_mhz:
            room = _room(grant.dl_prb * self._usable * FILLED, asked.others_prb, asked.others_part)
            problem = self._problem_of(asked.users, asked.served, room, mhz)
            problem, found = self._improved(asked.users, asked.served, problem)
            settings = self._settings_of(asked.users, asked.scenes, asked.served, problem, found)
        had = self._settings
        same = {flow: replace(s, changed=False) for flow, s in had.items()}
        self._settings = same | {flow: s.after(had.get(flow)) for flow, s in settings.items()}
        return {
            flow: {
                "frame_rate": (s.frame_rate_hz,),
                "objects": tuple(float(o) for o in s.classes),
                "resolutions": tuple(float(k) for k in s.classes.values()),
            }
            for flow, s in self._settings.items()
        }

    # ---- state ---------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        return {
            "radio": dict(self._radio),
            "usable": self._usable,
            "overhead_s": self._overhead_s,
            "settings": {flow: s.to_state() for flow, s in self._settings.items()},
        }

    def load_state(self, state: Mapping[str, Any], models: Callable[[str], bytes]) -> None:
        radio = {str(ue): float(r) for ue, r in state["radio"].items()}
        usable, overhead_s = float(state["usable"]), float(state["overhead_s"])
        low, high = USABLE_LIMITS
        if not (
            low <= usable <= high and 0.0 <= overhead_s < inf and all(0.0 < r < inf for r in radio.values())
        ):
            raise ValueError(f"usable {usable}, overhead_s {overhead_s} or a radio is not what can be")
        settings = {str(flow): _Setting.from_state(s) for flow, s in state["settings"].items()}
        self._radio, self._usable, self._overhead_s, self._settings = radio, usable, overhead_s, settings
        self._asked, self._menus = None, {}


def _clocks(loop: LoopSpec) -> tuple[int, ...]:
    """Where the configuration names none, MHz."""
    return tuple(sorted({max(1, round(loop.max_mhz * k / CLOCKS)) for k in range(1, CLOCKS + 1)}))


def _prb_of(problem: Problem, c: int, point: int) -> float:
    """PRBs, all of them usable, that a point takes in a configuration; inf where it is not in time."""
    return float(problem.bandwidth(c, problem.pixels[point])) * problem.instance.stations[0].bandwidth_hz


def _room(prb: float, others_prb: float, others_part: float) -> float:
    """PRBs for the users with a view; the others leave them their part, and half of all at least, as with
    less no frame would be in time."""
    return prb - min(others_prb, prb * min(others_part, 0.5))


def _lowest_rates(problem: Problem) -> IntArray:
    """Of each user the configuration of the lowest frame rate, int64 [n]."""
    config = problem.config_at[:-1].copy()
    for n in range(len(problem)):
        config[n] += problem.frame_rate_hz[problem.config_at[n] : problem.config_at[n + 1]].argmin()
    return config


def _slower(problem: Problem, factor: float) -> Problem:
    """The same with a GPU that takes ``factor`` as long."""
    slope = problem.slope.copy()
    slope[:, _GPU] *= factor
    return replace(problem, pixel_s=problem.pixel_s * factor, slope=slope)


def _used(problem: Problem, found: heuristic.Found) -> tuple[float, float]:
    """Of the cell's bandwidth and the GPU's time."""
    chosen = found.config >= 0
    c, x = found.config[chosen], problem.pixels[found.point[chosen]]
    return float(problem.bandwidth(c, x).sum()), float((x * problem.slope[c, _GPU]).sum())


def _binding(problem: Problem, n: int, c: int, point: int, used: tuple[float, float]) -> str:
    """What holds a user back."""
    highest = problem.frame_rate_hz[problem.config_at[n] : problem.config_at[n + 1]].max()
    if point == problem.menu_at[n + 1] - 1 and problem.frame_rate_hz[c] == highest:
        return "display"
    if used[1] > TIGHT:
        return "gpu"
    return "bandwidth" if used[0] > TIGHT else "latency"


def _carried(view: SliceView) -> list[tuple[str, int, int]]:
    """Of each UE: bytes of its logical channels down, and PRBs times NR slots, from the first report to the
    last."""
    if len(view.reports) < 2:
        return []
    first, last = view.reports[0], view.reports[-1]
    before = {
        ue: (b, s) for ue, b, s in zip(first.ue_id, first.dl.lc_bytes, first.dl.prb_slots, strict=False)
    }
    out = []
    for ue, b, s in zip(last.ue_id, last.dl.lc_bytes, last.dl.prb_slots, strict=False):
        if ue in before and b >= before[ue][0] and s >= before[ue][1]:
            out.append((ue, b - before[ue][0], s - before[ue][1]))
    return out
