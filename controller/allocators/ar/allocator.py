"""Hop decomposition (MUCB1 paper, sections VI-B and VIII): each hop learns on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller import policies
from controller.allocators.ar import traffic
from controller.allocators.ar.adaptive import AdaptiveBudgets
from controller.allocators.ar.delays import HOPS, Metric, judge
from controller.allocators.ar.options import ArOptions
from controller.allocators.base import Allocator, Options, SliceView
from controller.core import hops
from controller.core.attachment import unmeasured
from controller.core.decision import Choice, SliceDemand, Want
from controller.core.measure import Lever, Measure, Outcome, Reason
from controller.core.observation import MacReport
from controller.core.spec import LoopSpec, Share
from controller.policies import UNKNOWN, Context, Feedback, Policy
from controller.policies.base import BACKLOG, BURST, LOAD_CHANGED

CONSECUTIVE = 2
"""Reports running that must say so before a control slot ends early."""
LATE = 0.8
"""Of the round-trip budget: the hop falls behind where a frame waits longer in it."""
RISEN = 1.5
"""Times the demand that was planned for: the radio has become so much worse."""
DRAINED = 0.25
"""Of the hop's budget: a queue that is younger holds nobody up."""
_PATIENCE = 3
_MODEST = 12
_UNITS = {Lever.UL: "PRB", Lever.EDGE: "MHz", Lever.DL: "PRB"}


class ArAllocator(Allocator):
    """One policy for each (hop, state), created when the state is first seen; each hop has a policy of its
    own where ``hop_policies`` names one, and learns by itself.

    The hop state is the demand in PRB rounded up to a grid (section VIII-A); the edge uses the uplink's.
    Policies without a state (static, aimd, headroom) get one instance a hop. ``static`` plays all there is,
    which need not be in the action set of the others (section IX-B); a policy that looks at delays has it
    among its actions, and budgets that adapt (:class:`AdaptiveBudgets`).

    A policy that is not told how its action went asks for the same again. So where a hop had less than it
    asked for in three control slots running, it stays within what it had for the next twelve and learns from
    those, before it asks for more again; a GPU that falls short of that too is not asked for less. Where a
    hop had more than it asked for, what it had is what is learned about.

    Where the delay of no hop is known but that of the round trip is, as with clocks that are not
    synchronised, every hop learns from the round trip. What met it is enough at every hop. What missed it is
    too little at one of them, and nobody knows which: all are debited, so that none goes lower for want of a
    culprit.
    """

    def __init__(self, slice_id: str, options: Options, loop: LoopSpec) -> None:
        assert isinstance(options, ArOptions)
        self._slice, self._options, self._loop = slice_id, options, loop
        self._budgets, self._metric = options.budgets.to_budgets(), Metric.parse(options.metric)
        self._grid = hops.state_grid(loop.n_prb)
        maximum = {Lever.UL: loop.n_prb, Lever.EDGE: loop.max_mhz, Lever.DL: loop.n_prb}
        share = next((s.share for s in loop.slices if s.slice == slice_id), Share())
        self._maximum, self._share = maximum, share.max
        self._per_state: dict[Lever, bool] = {}
        self._contextual: dict[Lever, bool] = {}
        self._actions: dict[Lever, tuple[int, ...]] = {}
        self._policies: dict[Lever, dict[int | None, Policy]] = {hop: {} for hop in HOPS}
        self._demand: dict[Lever, float] = {Lever.UL: 0.0, Lever.DL: 0.0}
        self._played: dict[Lever, tuple[int | None, int]] = {}
        self._short: dict[Lever, int] = dict.fromkeys(HOPS, 0)
        self._ceiling: dict[Lever, tuple[int, int]] = {}
        self._bound: set[Lever] = set()
        self._active: frozenset[str] = frozenset()
        self._backlogged: set[Lever] = set()
        self._confounded = False
        self._planned: dict[Lever, float | None] = {}
        self._unmeasured: Reason | None = None
        for hop in HOPS:  # a bad policy name or option is found here, not at the first control slot
            self._begin(hop)
        self._adaptive = self._adapted(options)

    def _begin(self, hop: Lever) -> None:
        """Start to learn a hop under the policy that the options name."""
        policy, policy_options = self._options.policy_of(hop)
        given, maximum = self._options.actions, self._maximum[hop]
        actions = given.of(
            hop, n_prb=self._loop.n_prb, max_mhz=self._loop.max_mhz, min_prb=self._loop.min_prb
        )
        if policy == "static" and "action" not in policy_options and given.given(hop) is None:
            actions = (maximum,)
        self._per_state[hop] = policies.is_per_state(policy)
        self._contextual[hop] = policies.is_contextual(policy)
        if self._contextual[hop]:
            most = maximum if hop is Lever.EDGE else min(maximum, self._share)
            actions = tuple(sorted({*(a for a in actions if a < most), most}))
        self._actions[hop] = actions
        self._policies[hop] = {}
        self._played.pop(hop, None)
        self._ceiling.pop(hop, None)
        self._short[hop] = 0
        self._backlogged.discard(hop)
        self._new(hop)

    def _new(self, hop: Lever) -> Policy:
        policy, policy_options = self._options.policy_of(hop)
        return policies.make(policy, self._actions[hop], **policy_options)

    def set(self, options: Options) -> None:
        assert isinstance(options, ArOptions)
        before, self._options = self._options, options
        changed = [hop for hop in HOPS if options.policy_of(hop) != before.policy_of(hop)]
        for hop in changed:
            self._begin(hop)
        budgets = (options.budgets, options.adaptive_budgets) != (before.budgets, before.adaptive_budgets)
        if budgets or changed:
            self._budgets = options.budgets.to_budgets()
            self._adaptive = self._adapted(options)
        self._metric = Metric.parse(options.metric)

    def _adapted(self, options: ArOptions) -> AdaptiveBudgets | None:
        """Budgets that move need the delays at every hop."""
        adapts = all(self._contextual.values()) and options.adaptive_budgets
        return AdaptiveBudgets(self._budgets) if adapts else None

    def learn(self, view: SliceView) -> Outcome:
        reasons = dict(view.unattributed)
        # The outcome holds the reasons, which are added to below.
        late = self._options.late_frames
        outcome = judge(view, self._budgets, metric=self._metric, late=late, unattributed=reasons)
        round_trip, *measures = outcome.measures
        blind = all(measure.met is None for measure in measures)
        granted = view.granted
        had = (
            {}
            if granted is None
            else dict(zip(HOPS, (granted.ul_prb, granted.gpu_mhz, granted.dl_prb), strict=True))
        )
        self._confounded = False
        if self._unmeasured is not None:
            # The state in which it was played is not known, the edge's either, which is the uplink's.
            for hop in (h for h in HOPS if self._per_state[h]):
                reasons.setdefault(hop, self._unmeasured)
        for hop, measure in zip(HOPS, measures, strict=True):
            why = reasons.get(hop)
            unknown = self._per_state[hop] and self._unmeasured is not None
            if unknown or (why is not None and not (why is Reason.RESCUED and hop in had)):
                if why is not None and why.short and hop in had:
                    self._fell_short(hop, had[hop])
                continue
            self._short[hop] = 0
            met = round_trip.met if blind else measure.met
            if hop not in self._played:
                reasons[hop] = Reason.NO_DECISION
            elif met is None:
                closed = view.begin_ns >= view.end_ns
                reasons[hop] = Reason.NO_WINDOW if closed else Reason.HOP_DELAY_NOT_KNOWN
            else:
                state, action = self._played[hop]
                policy = self._policies[hop][state]
                spoken_for = action if why is None else _spoken_for(policy.actions, had[hop], met)
                if spoken_for is not None:
                    policy.update(spoken_for, self._feedback(hop, met, outcome, view, blind))
                    reasons.pop(hop, None)
        if self._adaptive and not self._confounded and not all(hop in reasons for hop in HOPS):
            worst = [w for measure in measures if (w := _worst(measure)) is not None]
            if len(worst) == len(HOPS):
                spends = {hop: had[hop] > self._actions[hop][0] for hop in HOPS}
                self._adaptive.observe(dict(zip(HOPS, worst, strict=True)), spends)
                self._budgets = self._adaptive.budgets
        return outcome

    def _feedback(self, hop: Lever, met: int, outcome: Outcome, view: SliceView, blind: bool) -> Feedback:
        """What a policy that looks at more than the QoS bit learns from."""
        if not self._contextual[hop]:
            return Feedback(met)
        round_trip, *measures = outcome.measures
        i = HOPS.index(hop)
        budget = self._budgets.of(hop)
        delay = _worst(round_trip if blind else measures[i])
        if delay is not None and blind:  # its part of the round trip's
            delay *= budget / self._budgets.round_trip_ms
        confounded = ""
        if frozenset(f.flow for f in view.users) != self._active:
            confounded = LOAD_CHANGED
        elif hop in self._backlogged:
            confounded = BACKLOG
        elif i and not blind and measures[i - 1].met == 0:  # whatever came of it: else only the good is kept
            confounded = BURST
        per_second = max(1, round(1000 / self._loop.carrier.subinterval_ms))
        demand = traffic.highest(self._offered(hop, view.reports, view), per_second)
        self._confounded |= bool(confounded)
        slots = (view.closed_ns - view.opened_ns) / (self._loop.control_slot_s * 1e9)
        return Feedback(met, delay, budget, demand, confounded, slots)

    def _offered(self, hop: Lever, reports: Sequence[MacReport], view: SliceView) -> list[float]:
        """Demand of the view's users at each of the reports in PRB; at the edge their number."""
        if hop is Lever.EDGE:
            return [float(len(view.users))]
        return hops.offered_prb(reports, view.users, view.slice, hop, self._loop.carrier)

    def _fell_short(self, hop: Lever, available: int) -> None:
        # A clock that is missed within what there was, or at the lowest action, is missed at any.
        if hop is Lever.EDGE and (hop in self._bound or available < self._actions[hop][0]):
            self._short[hop] = 0
            return
        self._short[hop] += 1
        if self._short[hop] >= _PATIENCE:
            self._short[hop] = 0
            self._ceiling[hop] = (available, _MODEST)

    def demand(self, view: SliceView) -> SliceDemand:
        self._measure(view)
        self._active = frozenset(f.flow for f in view.users if not f.stop_ns or f.stop_ns > view.closed_ns)
        choices = {hop: self._choose(hop, view) for hop in HOPS}
        action = {hop: int(choice.action) for hop, choice in choices.items()}
        return SliceDemand(
            ul=Want(action[Lever.UL], self._actions[Lever.UL][0]),
            dl=Want(action[Lever.DL], self._actions[Lever.DL][0]),
            gpu_mhz=action[Lever.EDGE],
            choices=tuple(choices.values()),
        )

    def _context(self, hop: Lever, view: SliceView, policy: Policy) -> Context:
        rng = view.rng if policy.draws else None
        if not self._contextual[hop]:
            return UNKNOWN if rng is None else Context(rng=rng)
        # As though they had been active all along: what they will need at the MCS that was.
        active = tuple(replace(f, start_ns=0, stop_ns=0) for f in view.users if f.flow in self._active)
        offered = self._offered(hop, view.reports, replace(view, users=active))
        waiting = traffic.waiting_ms(view.frames, hop, view.end_ns)
        if hop is not Lever.EDGE:
            waiting = max([waiting, *self._queue_ms(hop, replace(view, users=active))[-1:]])
        # A report without the flows' UE says nothing of their demand.
        offered = [d for d in offered if d > 0]
        demand = (sum(offered) / len(offered) if offered else None) if active else 0.0
        if hop is not Lever.EDGE and self._unmeasured is not None:
            demand = None
        self._planned[hop] = demand
        context = Context(demand, waiting, self._budgets.of(hop), self._loop.events is not None, rng)
        (self._backlogged.add if context.backlogged else self._backlogged.discard)(hop)
        return context

    def early(self, view: SliceView) -> str:
        """A flow started; a hop that does not have all there is falls behind; or what was drained at full
        resources is gone. For policies that look at delays; the others' control slots last their time."""
        if not all(self._contextual.values()) or view.granted is None:
            return ""
        granted, view = view.granted, replace(view, reports=view.reports[-CONSECUTIVE - 1 :])
        has = dict(zip(HOPS, (granted.ul_prb, granted.gpu_mhz, granted.dl_prb), strict=True))
        # Where an early end could give more: not where the arbiter cut it.
        could = [
            hop
            for hop in HOPS
            if hop not in self._ceiling and self._played[hop][1] <= has[hop] < self._actions[hop][-1]
        ]
        if could and any(f.flow not in self._active and not f.stop_ns for f in view.users):
            return "a flow started"
        for hop in could:
            if hop not in self._backlogged and (why := self._falls_behind(hop, view)):
                return f"{hop}: {why}"
        drained = {hop for hop in self._backlogged if hop is not Lever.EDGE}
        if drained and all(max(self._queue_ms(h, view)) < DRAINED * self._budgets.of(h) for h in drained):
            return "the queue has drained"
        return ""

    def _falls_behind(self, hop: Lever, view: SliceView) -> str:
        """What says that a hop has too little in the control slot in progress."""
        if traffic.waiting_ms(view.frames, hop, view.end_ns) > LATE * self._budgets.round_trip_ms:
            return "frames wait"
        if hop is Lever.EDGE:
            return ""
        if min(self._queue_ms(hop, view)) > self._budgets.of(hop):
            return "the queue grows"
        planned = self._planned.get(hop)
        offered = self._offered(hop, view.reports[-CONSECUTIVE:], view)
        risen = planned and len(offered) == CONSECUTIVE and min(offered) > RISEN * planned
        return "the MCS falls" if risen else ""

    def _queue_ms(self, hop: Lever, view: SliceView) -> list[float]:
        """How old the queue of a radio hop was in the last reports; where there are fewer, neither old nor
        drained."""
        ages = traffic.queue_ms(view.reports[-CONSECUTIVE - 1 :], view.users, view.slice, hop)[-CONSECUTIVE:]
        return ages if len(ages) == CONSECUTIVE else [0.0, float("inf"), 0.0]

    def _measure(self, view: SliceView) -> None:
        """Demand of both radio hops; without a report the last one stays, and where reports do not have a
        flow's UE, or it carries nothing, it is that of the others, and no less than it was."""
        self._unmeasured = unmeasured(view.users, view.frames, view.reports, view.slice)
        for hop in (Lever.UL, Lever.DL):
            demand = hops.demand_prb(
                view.reports,
                view.users,
                view.slice,
                hop,
                self._loop.carrier,
                queue=self._options.queue,
            )
            if demand is not None:
                self._demand[hop] = max(demand, self._demand[hop]) if self._unmeasured else demand

    def _choose(self, hop: Lever, view: SliceView) -> Choice:
        demand = self._demand[Lever.UL if hop is Lever.EDGE else hop]
        state = hops.hop_state(demand, self._grid) if self._per_state[hop] else None
        policy = self._policies[hop].get(state)
        if policy is None:
            policy = self._policies[hop][state] = self._new(hop)
        action = policy.pull(self._context(hop, view, policy))
        why = policy.explain()
        self._bound.discard(hop)
        if hop in self._ceiling:
            self._bound.add(hop)
            ceiling, left = self._ceiling.pop(hop)
            if left > 1:
                self._ceiling[hop] = (ceiling, left - 1)
            if action > ceiling:
                action = max((a for a in policy.actions if a <= ceiling), default=policy.actions[0])
                why = replace(why, reason="within what there was")
        self._played[hop] = (state, action)
        return Choice(
            lever=hop,
            unit=_UNITS[hop],
            method=self._options.policy_of(hop)[0],
            action=action,
            why=why.reason,
            state=state,
            demand=demand,
            actions=policy.actions,
            indices=() if why.indices is None else tuple(why.indices.tolist()),
        )

    def to_state(self) -> dict[str, Any]:
        of = self._options.hop_policies
        return {
            **({"policies": {hop: dict(of[hop]) for hop in sorted(of)}} if of else {}),
            "short": {hop.value: n for hop, n in self._short.items() if n},
            "ceiling": {hop.value: list(c) for hop, c in self._ceiling.items()},
            "demand": {hop.value: d for hop, d in self._demand.items()},
            **({"budgets": self._adaptive.to_state()} if self._adaptive else {}),
            "hops": {
                hop.value: [[state, policy.to_state()] for state, policy in by_state.items()]
                for hop, by_state in self._policies.items()
            },
        }

    def take_over(self, state: Mapping[str, Any]) -> None:
        taken: dict[Lever, dict[int | None, Policy]] = {hop: {} for hop in HOPS}
        try:
            for hop in HOPS:
                for hop_state, learned in state["hops"].get(hop.value, []):
                    policy = taken[hop][hop_state] = self._new(hop)
                    policy.take_over(learned)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no state of an ar slice: {error!r}") from None
        self._policies = taken

    def load_state(self, state: Mapping[str, Any], models: Callable[[str], bytes]) -> None:
        restored: dict[Lever, dict[int | None, Policy]] = {hop: {} for hop in HOPS}
        goes_on = {hop for hop in HOPS if self._learned_under(hop, state.get("policies", {}))}
        for name, saved in state["hops"].items():
            hop = Lever(name)
            if hop not in goes_on:
                continue
            for hop_state, policy_state in saved:
                policy = policies.restore(policy_state)
                if policy.actions != tuple(self._actions[hop]):
                    raise ValueError(
                        f"slice {self._slice}, hop {name}: learned with actions "
                        f"{list(policy.actions)}, configured are {list(self._actions[hop])}"
                    )
                restored[hop][hop_state] = policy
        if self._adaptive and "budgets" in state:
            self._adaptive.load_state(state["budgets"])
            self._budgets = self._adaptive.budgets
        self._policies = restored
        self._demand = {Lever(h): float(d) for h, d in state["demand"].items()}
        short = {Lever(h): int(n) for h, n in state["short"].items()}
        ceiling = {Lever(h): (int(c), int(left)) for h, (c, left) in state["ceiling"].items()}
        self._short = {hop: short.get(hop, 0) if hop in goes_on else 0 for hop in HOPS}
        self._ceiling = {hop: c for hop, c in ceiling.items() if hop in goes_on}
        self._played = {}

    def _learned_under(self, hop: Lever, of: Mapping[str, Any]) -> bool:
        """Whether a hop's state is of the policy that it has now; ``of`` are the hop policies it was saved
        with. That the slice's own policy is the same is known by then."""
        default = {"policy": self._options.policy, "policy_options": self._options.policy_options}
        policy, policy_options = self._options.policy_of(hop)
        return {"policy": policy, "policy_options": policy_options} == of.get(hop.value, default)


def _spoken_for(actions: Sequence[int], had: int, met: int) -> int | None:
    """The action that an outcome speaks for best where ``had`` was in force: the smallest that is no less
    where it was met, the largest that is no more where it was not; None where there is none."""
    if met:
        return next((a for a in actions if a >= had), None)
    return next((a for a in reversed(actions) if a <= had), None)


def _worst(measure: Measure) -> float | None:
    """The delay of the worst flow; None where that of a judged flow is not known."""
    known = [v for v in measure.values if v is not None]
    return max(known) if known and len(known) == len(measure.values) else None
