"""Hop decomposition (MUCB1 paper, sections VI-B and VIII): each hop learns on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller import policies
from controller.allocators.ar.delays import HOPS, Metric, judge
from controller.allocators.ar.options import ArOptions
from controller.allocators.base import Allocator, Options, SliceView
from controller.core import hops
from controller.core.decision import Choice, SliceDemand, Want
from controller.core.measure import Lever, Outcome, Reason
from controller.core.spec import LoopSpec
from controller.policies import UNKNOWN, Context, Feedback, Policy

_PATIENCE = 3
_MODEST = 12
_UNITS = {Lever.UL: "PRB", Lever.EDGE: "MHz", Lever.DL: "PRB"}


class ArAllocator(Allocator):
    """One policy for each (hop, state), created when the state is first seen.

    The hop state is the demand in PRB rounded up to a grid (section VIII-A); the edge uses the uplink's.
    Policies without a state (static, aimd) get one instance a hop. ``static`` plays all there is, which
    need not be in the action set of the others (section IX-B).

    A policy that is not told how its action went asks for the same again. So where a hop had less than it
    asked for in three control slots running, it stays within what it had for the next twelve and learns from
    those, before it asks for more again. Where it had more than it asked for, what it had is what is learned
    about.

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
        self._per_state = policies.is_per_state(options.policy)
        maximum = {Lever.UL: loop.n_prb, Lever.EDGE: loop.max_mhz, Lever.DL: loop.n_prb}
        of = options.actions
        actions = {Lever.UL: of.ul_prb, Lever.EDGE: of.gpu_mhz, Lever.DL: of.dl_prb}
        if options.policy == "static" and "action" not in options.policy_options:
            actions = {hop: (maximum[hop],) for hop in HOPS}
        self._actions = actions
        self._policies: dict[Lever, dict[int | None, Policy]] = {hop: {} for hop in HOPS}
        self._demand: dict[Lever, float] = {Lever.UL: 0.0, Lever.DL: 0.0}
        self._played: dict[Lever, tuple[int | None, int]] = {}
        self._short: dict[Lever, int] = dict.fromkeys(HOPS, 0)
        self._ceiling: dict[Lever, tuple[int, int]] = {}
        for hop in HOPS:  # a bad policy name or option is found here, not at the first control slot
            self._new(hop)

    def _new(self, hop: Lever) -> Policy:
        return policies.make(self._options.policy, self._actions[hop], **self._options.policy_options)

    def set(self, options: Options) -> None:
        assert isinstance(options, ArOptions)
        self._options = options
        self._budgets, self._metric = options.budgets.to_budgets(), Metric.parse(options.metric)

    def learn(self, view: SliceView) -> Outcome:
        reasons = dict(view.unattributed)
        # The outcome holds the reasons, which are added to below.
        outcome = judge(view, self._budgets, metric=self._metric, unattributed=reasons)
        round_trip, *measures = outcome.measures
        blind = all(measure.met is None for measure in measures)
        granted = view.granted
        had = (
            {}
            if granted is None
            else dict(zip(HOPS, (granted.ul_prb, granted.gpu_mhz, granted.dl_prb), strict=True))
        )
        for hop, measure in zip(HOPS, measures, strict=True):
            why = reasons.get(hop)
            if why is not None and not (why is Reason.RESCUED and hop in had):
                if why.short and hop in had:
                    self._fell_short(hop, had[hop])
                continue
            self._short[hop] = 0
            met = round_trip.met if blind else measure.met
            if hop not in self._played:
                reasons[hop] = Reason.NO_DECISION
            elif met is None:
                late = view.begin_ns >= view.end_ns
                reasons[hop] = Reason.NO_WINDOW if late else Reason.HOP_DELAY_NOT_KNOWN
            else:
                state, action = self._played[hop]
                policy = self._policies[hop][state]
                spoken_for = action if why is None else _spoken_for(policy.actions, had[hop], met)
                if spoken_for is not None:
                    policy.update(spoken_for, Feedback(met))
                    reasons.pop(hop, None)
        return outcome

    def _fell_short(self, hop: Lever, available: int) -> None:
        self._short[hop] += 1
        if self._short[hop] >= _PATIENCE:
            self._short[hop] = 0
            self._ceiling[hop] = (available, _MODEST)

    def demand(self, view: SliceView) -> SliceDemand:
        self._measure(view)
        choices = {hop: self._choose(hop, view) for hop in HOPS}
        action = {hop: int(choice.action) for hop, choice in choices.items()}
        return SliceDemand(
            ul=Want(action[Lever.UL], self._actions[Lever.UL][0]),
            dl=Want(action[Lever.DL], self._actions[Lever.DL][0]),
            gpu_mhz=action[Lever.EDGE],
            choices=tuple(choices.values()),
        )

    def _measure(self, view: SliceView) -> None:
        """Demand of both radio hops; without a report the last one stays."""
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
                self._demand[hop] = demand

    def _choose(self, hop: Lever, view: SliceView) -> Choice:
        demand = self._demand[Lever.UL if hop is Lever.EDGE else hop]
        state = hops.hop_state(demand, self._grid) if self._per_state else None
        policy = self._policies[hop].get(state)
        if policy is None:
            policy = self._policies[hop][state] = self._new(hop)
        action = policy.pull(Context(rng=view.rng) if policy.draws else UNKNOWN)
        why = policy.explain()
        if hop in self._ceiling:
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
            method=self._options.policy,
            action=action,
            why=why.reason,
            state=state,
            demand=demand,
            actions=policy.actions,
            indices=() if why.indices is None else tuple(why.indices.tolist()),
        )

    def to_state(self) -> dict[str, Any]:
        return {
            "short": {hop.value: n for hop, n in self._short.items() if n},
            "ceiling": {hop.value: list(c) for hop, c in self._ceiling.items()},
            "demand": {hop.value: d for hop, d in self._demand.items()},
            "hops": {
                hop.value: [[state, policy.to_state()] for state, policy in by_state.items()]
                for hop, by_state in self._policies.items()
            },
        }

    def load_state(self, state: Mapping[str, Any], models: Callable[[str], bytes]) -> None:
        restored: dict[Lever, dict[int | None, Policy]] = {hop: {} for hop in HOPS}
        for name, saved in state["hops"].items():
            hop = Lever(name)
            for hop_state, policy_state in saved:
                policy = policies.restore(policy_state)
                if policy.actions != tuple(self._actions[hop]):
                    raise ValueError(
                        f"slice {self._slice}, hop {name}: learned with actions "
                        f"{list(policy.actions)}, configured are {list(self._actions[hop])}"
                    )
                restored[hop][hop_state] = policy
        self._policies = restored
        self._demand = {Lever(h): float(d) for h, d in state["demand"].items()}
        self._short = {hop: int(state["short"].get(hop.value, 0)) for hop in HOPS}
        self._ceiling = {Lever(h): (int(c), int(left)) for h, (c, left) in state["ceiling"].items()}
        self._played = {}


def _spoken_for(actions: Sequence[int], had: int, met: int) -> int | None:
    """The action that an outcome speaks for best where ``had`` was in force: the smallest that is no less
    where it was met, the largest that is no more where it was not; None where there is none."""
    if met:
        return next((a for a in actions if a >= had), None)
    return next((a for a in reversed(actions) if a <= had), None)
