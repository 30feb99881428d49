"""Hop decomposition (MUCB1 paper, sections VI-B and VIII): each hop learns on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from controller import policies
from controller.allocators.base import Allocator, SliceView
from controller.core import hops
from controller.core.decision import HopChoice, SliceDemand
from controller.core.measure import Reason
from controller.core.observation import HOPS, Hop
from controller.core.spec import LoopSpec, SliceSpec
from controller.policies.base import Policy

_PATIENCE = 3
_MODEST = 12


class ArAllocator(Allocator):
    """One policy for each (hop, state), created when the state is first seen.

    The hop state is the demand in PRB rounded up to a grid (section VIII-A); the edge uses the uplink's.
    Policies without a state (static, aimd) get one instance a hop. ``static`` plays all there is, which
    need not be in the action set of the others (section IX-B).

    A policy that is not told how its action went asks for the same again. So where a hop had less than it
    asked for in three control slots running, it stays within what it had for the next twelve and learns from
    those, before it asks for more again.
    """

    service: ClassVar[str] = "ar"

    def __init__(self, spec: SliceSpec, loop: LoopSpec) -> None:
        self._spec, self._loop = spec, loop
        self._grid = hops.state_grid(loop.n_prb)
        self._per_state = policies.is_per_state(spec.policy)
        maximum = {Hop.UL: loop.n_prb, Hop.EDGE: loop.max_mhz, Hop.DL: loop.n_prb}
        actions = {Hop.UL: spec.ul_prb, Hop.EDGE: spec.gpu_mhz, Hop.DL: spec.dl_prb}
        if spec.policy == "static" and "action" not in spec.policy_options:
            actions = {hop: (maximum[hop],) for hop in HOPS}
        self._actions = actions
        self._policies: dict[Hop, dict[int | None, Policy]] = {hop: {} for hop in HOPS}
        self._demand: dict[Hop, float] = {Hop.UL: 0.0, Hop.DL: 0.0}
        self._played: dict[Hop, tuple[int | None, int]] = {}
        self._short: dict[Hop, int] = dict.fromkeys(HOPS, 0)
        self._ceiling: dict[Hop, tuple[int, int]] = {}
        for hop in HOPS:  # a bad policy name or option is found here, not at the first control slot
            self._new(hop)

    def _new(self, hop: Hop) -> Policy:
        return policies.make(self._spec.policy, self._actions[hop], **self._spec.policy_options)

    def learn(self, view: SliceView) -> Mapping[Hop, Reason]:
        reasons = dict(view.unattributed)
        for hop in HOPS:
            if hop in reasons:
                if reasons[hop].short:
                    self._fell_short(hop, view.available.get(hop))
                continue
            self._short[hop] = 0
            q = view.qos.hop(hop).q
            if hop not in self._played:
                reasons[hop] = Reason.NO_DECISION
            elif q is None:
                reasons[hop] = Reason.HOP_DELAY_NOT_KNOWN
            else:
                state, action = self._played[hop]
                self._policies[hop][state].update(action, q)
        return reasons

    def _fell_short(self, hop: Hop, available: int | None) -> None:
        self._short[hop] += 1
        if self._short[hop] >= _PATIENCE and available is not None:
            self._short[hop] = 0
            self._ceiling[hop] = (available, _MODEST)

    def demand(self, view: SliceView) -> SliceDemand:
        self._measure(view)
        choices = {hop: self._choose(hop) for hop in HOPS}
        return SliceDemand(
            ul_prb=choices[Hop.UL].action,
            dl_prb=choices[Hop.DL].action,
            gpu_mhz=choices[Hop.EDGE].action,
            ul_floor=self._actions[Hop.UL][0],
            dl_floor=self._actions[Hop.DL][0],
            choices=tuple(choices[hop] for hop in HOPS),
        )

    def _measure(self, view: SliceView) -> None:
        """Demand of both radio hops; without a report the last one stays."""
        for hop in (Hop.UL, Hop.DL):
            demand = hops.demand_prb(
                view.observation.reports,
                view.observation.flows,
                view.slice,
                hop,
                self._loop.carrier,
                queue=self._spec.queue,
            )
            if demand is not None:
                self._demand[hop] = demand

    def _choose(self, hop: Hop) -> HopChoice:
        demand = self._demand[Hop.UL if hop is Hop.EDGE else hop]
        state = hops.hop_state(demand, self._grid) if self._per_state else None
        policy = self._policies[hop].get(state)
        if policy is None:
            policy = self._policies[hop][state] = self._new(hop)
        action = policy.pull()
        why = policy.explain()
        if hop in self._ceiling:
            ceiling, left = self._ceiling.pop(hop)
            if left > 1:
                self._ceiling[hop] = (ceiling, left - 1)
            if action > ceiling:
                action = max((a for a in policy.actions if a <= ceiling), default=policy.actions[0])
                why = replace(why, reason="within what there was")
        self._played[hop] = (state, action)
        indices = None if why.indices is None else tuple(why.indices.tolist())
        return HopChoice(hop, self._spec.policy, state, demand, policy.actions, indices, action, why.reason)

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

    def load_state(self, state: Mapping[str, Any]) -> None:
        restored: dict[Hop, dict[int | None, Policy]] = {hop: {} for hop in HOPS}
        for name, saved in state["hops"].items():
            hop = Hop(name)
            for hop_state, policy_state in saved:
                policy = policies.restore(policy_state)
                if policy.actions != tuple(self._actions[hop]):
                    raise ValueError(
                        f"slice {self._spec.slice}, hop {name}: learned with actions "
                        f"{list(policy.actions)}, configured are {list(self._actions[hop])}"
                    )
                restored[hop][hop_state] = policy
        self._policies = restored
        self._demand = {Hop(h): float(d) for h, d in state["demand"].items()}
        self._short = {hop: int(state["short"].get(hop.value, 0)) for hop in HOPS}
        self._ceiling = {Hop(h): (int(c), int(left)) for h, (c, left) in state["ceiling"].items()}
        self._played = {}
