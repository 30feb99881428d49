"""What hindsight would have played: the limits that policies are measured against.

Two references, both *fixed actions for each load*, the load being the number of flows active in a control
slot, which they know beforehand. Both are searched on the emulated cell with common random numbers: schedule,
channel, traffic and stalls are those of the compared schemes' runs. Probes play one hop at an action and the
others at full resources; all loads share a run.

**Clairvoyant** (resources): for each load the least (UL PRB, MHz, DL PRB) whose delivery ratio of the *round
trip* equals that of full resources, less :data:`TOLERANCE`. First each hop by itself, by bisection: more
resources never hurt (beyond that tolerance). These three minima are a lower bound of every fixed action. Then
all three are played together over the whole scenario, and as long as a load falls short, the hop that
violates its own budget most is raised a step. Without a flow the smallest actions are played.

**Best in hindsight** (regret): for each hop and load the action with the least mean cost
c(a, q) = a + lambda (1 - q), lambda = 2 a_max, q the hop's own (MUCB1 paper, eq. 10), the other hops at
full resources. By branch and bound: the q of an action that was played bounds that of smaller ones from
above. It is within :data:`SLACK` a_max of the least.

What they are not. The clairvoyant is no lower bound over all controllers: one that changes its action within
a load can do with less. The greedy raise may end in another trade between hops than the cheapest. Only the
scenario's action sets are searched. Control slots just after a change of load do not count in the probes
(the backlog of the load before would be charged to this one); they do when all hops are played together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller import sim
from controller.core.observation import HOPS
from controller.experiments.runs import Run, RunSpec, Series, execute
from controller.store.summary import Allocation

TOLERANCE = 0.01
"""By how much a delivery ratio may stay below that of full resources."""

SLACK = 0.02
"""How near to the least mean cost, in a_max, the search of the best action stops."""

SETTLE_S = 5.0
"""Seconds after a change of load that do not count in a probe."""

COST_WEIGHT = 2.0
"""lambda / a_max: 0.2 / 0.1 (MUCB1 paper, section IX)."""

HOP_NAMES: tuple[str, ...] = tuple(hop.value for hop in HOPS)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Best:
    """The action of a hop and load with the least mean cost, and that cost, in PRB or MHz."""

    action: int
    mean_cost: float


@dataclass(frozen=True, slots=True)
class Oracle:
    """The references of one scenario and seed.

    ``actions`` is the clairvoyant allocation by load, ``least`` the lower bound of it (each hop by itself),
    ``hindsight`` the cheapest action by load and hop, ``run`` the clairvoyant run, ``full`` the one at full
    resources. ``verified`` tells whether the run met its aim for every load, ``raised`` how many steps up
    that took, ``runs`` how many emulated runs the search.
    """

    actions: Mapping[int, Allocation]
    least: Mapping[int, Allocation]
    hindsight: Mapping[int, Mapping[str, Best]]
    run: Run
    full: Run
    a_max: Mapping[str, int]
    verified: bool
    raised: int
    runs: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; costs are PRB or MHz."""

        def table(actions: Mapping[int, Allocation]) -> dict[str, Any]:
            return {
                str(load): {"ul": a.ul_prb, "edge": a.gpu_mhz, "dl": a.dl_prb}
                for load, a in sorted(actions.items())
            }

        return {
            "tolerance": TOLERANCE,
            "verified": self.verified,
            "raised_steps": self.raised,
            "emulated_runs": self.runs,
            "actions": table(self.actions),
            "each_hop_by_itself": table(self.least),
            "best_in_hindsight": {
                str(load): {
                    hop: {"action": b.action, "mean_cost": round(b.mean_cost, 3)} for hop, b in by_hop.items()
                }
                for load, by_hop in sorted(self.hindsight.items())
            },
        }


def find(spec: RunSpec) -> Oracle:
    """Search the references of a scenario and seed; the policy of ``spec`` plays no part.

    Takes some ten to twenty emulated runs of the scenario. ValueError where it has more than one slice.
    """
    return _Search(spec).find()


def settle(loads: NDArray[np.int64], control_slot_s: float) -> NDArray[np.bool_]:
    """Control slots that count in a probe: those without a change of load just before: bool [slots]."""
    out = np.ones(len(loads), np.bool_)
    for back in range(1, max(1, round(SETTLE_S / control_slot_s)) + 1):
        out[back:] &= loads[back:] == loads[:-back]
    return out


def cost(series: Series, hop: str, a_max: int) -> Floats:
    """c(a, q) = a + lambda (1 - q) of each control slot, PRB or MHz: float64 [control slots].

    A q that cannot be told costs nothing (it is not judged).
    """
    return series.action(hop).astype(np.float64) + np.where(series.q[hop] == 0, COST_WEIGHT * a_max, 0.0)


def regret(run: Run, oracle: Oracle) -> dict[str, Floats]:
    """Cumulative cost above that of the best actions in hindsight, by hop: float64 [control slots].

    In units of a_max, so that hops can be added: 1 is a control slot at the largest action too many, 2 a
    violation too many. The reference is a mean, so it may fall for a while, and in the end where a policy
    changes its actions for the better within a load.
    """
    out = {}
    for hop, a_max in oracle.a_max.items():
        reference = np.zeros(len(run.series))
        for load, by_hop in oracle.hindsight.items():
            reference[run.series.flows == load] = by_hop[hop].mean_cost
        out[hop] = np.cumsum(cost(run.series, hop, a_max) - reference) / a_max
    return out


@dataclass(frozen=True, slots=True)
class _Probe:
    """Delivery ratios of a load with one hop at an action: the round trip's and the hop's own."""

    round_trip: float
    hop: float


Known = Mapping[int, dict[int, _Probe]]
"""By load: what came of a hop's actions, by position, as far as they were played."""


class _Search:
    def __init__(self, spec: RunSpec) -> None:
        config = spec.load()
        if len(config.cells) != 1 or len(config.cells[0].slices) != 1:
            raise ValueError(f"{spec.scenario}: the oracle is for one cell with one slice")
        cell = config.cells[0]
        actions = cell.slices[0].actions
        self._actions: dict[str, tuple[int, ...]] = {
            "ul": actions.ul_prb,
            "edge": actions.gpu_mhz,
            "dl": actions.dl_prb,
        }
        assert config.emulation is not None
        n_prb, mhz = config.emulation.prb, cell.max_mhz
        self._full = {"ul": n_prb, "edge": mhz, "dl": n_prb}
        self._spec = spec
        self._loads = np.array(sim.loads(config, spec.seed, spec.duration_s))
        self._busy = [int(load) for load in np.unique(self._loads) if load > 0]
        settled = settle(self._loads, config.control.control_slot_s)
        self._counted = {load: (self._loads == load) & settled for load in self._busy}
        for load, counted in self._counted.items():
            if not counted.any():
                self._counted[load] = self._loads == load
        self._runs = 0

    def find(self) -> Oracle:
        full = self._play({load: dict(self._full) for load in self._busy}, idle=self._full)
        chosen: dict[int, dict[str, int]] = {load: {} for load in self._busy}
        hindsight: dict[int, dict[str, Best]] = {load: {} for load in self._busy}
        for hop in HOP_NAMES:
            aim = {load: self._probe_of(full.series, hop, load) for load in self._busy}
            known: Known = {load: {} for load in self._busy}
            for load, action in self._smallest(hop, aim, known).items():
                chosen[load][hop] = action
            for load, best in self._cheapest(hop, aim, known).items():
                hindsight[load][hop] = best
        idle = {hop: a[0] for hop, a in self._actions.items()}
        if 0 in self._loads:
            hindsight[0] = {hop: Best(a, float(a)) for hop, a in idle.items()}
        least = {load: _allocation(a) for load, a in chosen.items()} | {0: _allocation(idle)}
        run, raised, verified = self._verify(chosen, idle, full)
        return Oracle(
            actions={load: _allocation(a) for load, a in chosen.items()} | {0: _allocation(idle)},
            least=least,
            hindsight=hindsight,
            run=run,
            full=full,
            a_max={hop: a[-1] for hop, a in self._actions.items()},
            verified=verified,
            raised=raised,
            runs=self._runs,
        )

    def _smallest(self, hop: str, aim: Mapping[int, _Probe], known: Known) -> dict[int, int]:
        """The smallest action with which each load meets its aim, else full resources."""
        actions = self._actions[hop]
        # The aim is met at high (len: full resources) and not below low. The smallest action comes first:
        # it often suffices.
        low, high = dict.fromkeys(self._busy, 0), dict.fromkeys(self._busy, len(actions))
        while any(low[load] < high[load] for load in self._busy):
            at = {
                load: (low[load] + high[load]) // 2 if known[load] else 0
                for load in self._busy
                if low[load] < high[load]
            }
            self._try(hop, at, known)
            for load, i in at.items():
                if known[load][i].round_trip >= aim[load].round_trip - TOLERANCE:
                    high[load] = i
                else:
                    low[load] = i + 1
        return {load: actions[i] if i < len(actions) else self._full[hop] for load, i in high.items()}

    def _cheapest(self, hop: str, aim: Mapping[int, _Probe], known: Known) -> dict[int, Best]:
        """The action of the set with the least mean cost, within the slack."""
        actions = self._actions[hop]
        weight = COST_WEIGHT * actions[-1]
        while True:
            at: dict[int, int] = {}
            best: dict[int, Best] = {}
            for load, met in known.items():
                least, i = min((actions[i] + weight * (1 - p.hop), i) for i, p in met.items())
                best[load] = Best(actions[i], least)
                ceiling = max(aim[load].hop, *(p.hop for p in met.values()))
                bounds = [
                    (actions[i] + weight * (1 - min([ceiling, *(p.hop for j, p in met.items() if j > i)])), i)
                    for i in range(len(actions))
                    if i not in met
                ]
                if bounds and min(bounds)[0] < least - SLACK * actions[-1]:
                    at[load] = min(bounds)[1]
            if not at:
                return best
            self._try(hop, at, known)

    def _try(self, hop: str, at: Mapping[int, int], known: Known) -> None:
        """Play an action of a hop at some loads; everything else is at full resources."""
        plan = {load: dict(self._full) for load in self._busy}
        for load, i in at.items():
            plan[load][hop] = self._actions[hop][i]
        series = self._play(plan, idle=self._full).series
        for load, i in at.items():
            known[load][i] = self._probe_of(series, hop, load)

    def _verify(
        self, chosen: dict[int, dict[str, int]], idle: Mapping[str, int], full: Run
    ) -> tuple[Run, int, bool]:
        """Play the actions together and raise them where that is not enough; ``chosen`` is changed."""
        raised = 0
        while True:
            run = self._play(chosen, idle=idle)
            short = [load for load in self._busy if self._shortfall(run, full, load) > TOLERANCE]
            if not short:
                return run, raised, True
            progress = False
            for load in short:
                hop = self._weakest(run.series, full.series, load, chosen[load])
                if hop is not None:
                    steps = (*self._actions[hop], self._full[hop])
                    chosen[load][hop] = next(b for a, b in pairwise(steps) if a == chosen[load][hop])
                    raised += 1
                    progress = True
            if not progress:
                return run, raised, False

    def _shortfall(self, run: Run, full: Run, load: int) -> float:
        at = self._loads == load
        return float(
            (full.series.q["round_trip"][at] != 0).mean() - (run.series.q["round_trip"][at] != 0).mean()
        )

    def _weakest(self, series: Series, full: Series, load: int, actions: Mapping[str, int]) -> str | None:
        """The hop not yet at full resources that violates most, beyond what it does at full resources."""
        at = self._loads == load
        lost = {
            hop: int((series.q[hop][at] == 0).sum()) - int((full.q[hop][at] == 0).sum())
            for hop in HOP_NAMES
            if actions[hop] < self._full[hop]
        }
        return max(lost, key=lambda hop: lost[hop]) if lost else None

    def _probe_of(self, series: Series, hop: str, load: int) -> _Probe:
        at = self._counted[load]
        return _Probe(*(float((series.q[leg][at] != 0).mean()) for leg in ("round_trip", hop)))

    def _play(self, actions: Mapping[int, Mapping[str, int]], *, idle: Mapping[str, int]) -> Run:
        by_load = {load: _allocation(a) for load, a in actions.items()} | {0: _allocation(idle)}
        self._runs += 1
        plan: Sequence[Allocation] = [by_load[int(load)] for load in self._loads]
        return execute(self._spec, plan)


def _allocation(actions: Mapping[str, int]) -> Allocation:
    return Allocation(actions["ul"], actions["dl"], actions["edge"])
