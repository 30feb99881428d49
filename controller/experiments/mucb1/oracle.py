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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from controller import scenario
from controller.allocators.ar.options import Actions, ArOptions
from controller.config import Config, SliceModel
from controller.core.measure import Lever
from controller.experiments.runs import Run, RunSpec, Series, execute
from controller.store.oracle import COST_WEIGHT, HOP_NAMES, Best, Floats, Reference
from controller.store.summary import Allocation
from wire.definitions.nr import SMALLEST_GRANT_PRB

TOLERANCE = 0.01
"""By how much a delivery ratio may stay below that of full resources."""

SLACK = 0.02
"""How near to the least mean cost, in a_max, the search of the best action stops."""

SETTLE_S = 5.0
"""Seconds after a change of load that do not count in a probe."""


@dataclass(frozen=True, slots=True)
class Oracle:
    """The references of one scenario and seed, with the clairvoyant run and the one at full resources."""

    reference: Reference
    run: Run
    full: Run


def check(config: Config) -> None:
    """ValueError for what has no oracle: more than one slice."""
    if len(config.cells) != 1 or len(config.cells[0].slices) != 1:
        raise ValueError("the oracle is for one cell with one slice")
    _actions(config.cells[0].slices[0])


def _actions(s: SliceModel) -> Actions:
    """The action sets of a slice; ValueError where its service has none."""
    if not isinstance(s.options, ArOptions):
        raise ValueError(f"slice {s.id}: the oracle is for the service ar, not {s.service}")
    return s.options.actions


def find(spec: RunSpec, on_run: Callable[[int], None] = lambda _runs: None) -> Oracle:
    """Search the references of a scenario and seed; the policy of ``spec`` plays no part.

    Takes some ten to forty emulated runs of the scenario; ``on_run`` hears how many are done. ValueError as
    :func:`check`.
    """
    return _Search(spec, on_run).find()


def settle(loads: NDArray[np.int64], control_slot_s: float) -> NDArray[np.bool_]:
    """Control slots that count in a probe: those without a change of load just before: bool [slots]."""
    out = np.ones(len(loads), np.bool_)
    for back in range(1, max(1, round(SETTLE_S / control_slot_s)) + 1):
        out[back:] &= loads[back:] == loads[:-back]
    return out


def regret(run: Run, reference: Reference) -> dict[str, Floats]:
    """:meth:`Reference.regret` of a run."""
    return reference.regret({hop: run.series.action(hop) for hop in HOP_NAMES}, run.series.q)


@dataclass(frozen=True, slots=True)
class _Probe:
    """Delivery ratios of a load with one hop at an action: the round trip's and the hop's own."""

    round_trip: float
    hop: float


Known = Mapping[int, dict[int, _Probe]]
"""By load: what came of a hop's actions, by position, as far as they were played."""


class _Search:
    def __init__(self, spec: RunSpec, on_run: Callable[[int], None]) -> None:
        config = spec.load()
        check(config)
        self._on_run = on_run
        cell = config.cells[0]
        actions = _actions(cell.slices[0])
        assert config.emulation is not None
        n_prb, min_prb = config.emulation.prb, SMALLEST_GRANT_PRB
        self._actions: dict[str, tuple[int, ...]] = {
            hop: actions.of(Lever(hop), n_prb=n_prb, max_mhz=cell.max_mhz, min_prb=min_prb)
            for hop in HOP_NAMES
        }
        n_prb, mhz = config.emulation.prb, cell.max_mhz
        self._full = {"ul": n_prb, "edge": mhz, "dl": n_prb}
        self._spec = spec
        self._loads = np.array(scenario.loads(config, spec.seed, spec.duration_s))
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
        reference = Reference(
            loads=tuple(int(load) for load in self._loads),
            actions={load: _allocation(a) for load, a in chosen.items()} | {0: _allocation(idle)},
            least=least,
            hindsight=hindsight,
            a_max={hop: a[-1] for hop, a in self._actions.items()},
            figures=run.figures,
            tolerance=TOLERANCE,
            verified=verified,
            raised=raised,
            runs=self._runs,
        )
        return Oracle(reference, run, full)

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
        run = execute(self._spec, plan)
        self._on_run(self._runs)
        return run


def _allocation(actions: Mapping[str, int]) -> Allocation:
    return Allocation(actions["ul"], actions["dl"], actions["edge"])
