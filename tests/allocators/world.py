"""A small world for any service: views with reports, frames, samples and fits, good and bad."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from controller import allocators
from controller.allocators.base import Allocator, Service, SliceView
from controller.core.decision import Grant, Settings, SliceDemand
from controller.core.fits import Fit, Job
from controller.core.hops import Carrier
from controller.core.measure import RESOURCES, Lever, Outcome, Reason
from controller.core.observation import DirectionColumns, Flow, Frames, MacReport, Observation, Samples
from controller.core.spec import LoopSpec, SliceSpec
from controller.fits import run_now

T0 = 1_800_000_000_000_000_000
MS = 1_000_000
SLOT_NS = 1_000 * MS
SLICE = "slice-1"
PRB, MHZ = 106, 1600
OTHERS = Flow("another's", "ue-0", "slice-0", 1e6, 1e6, T0)


class World:
    """Draws what a service's slice sees, control slot by control slot; equal seeds draw the same."""

    def __init__(
        self, service: Service, options: Mapping[str, Any], *, users: int = 3, seed: int = 0
    ) -> None:
        self.service = service
        self.users = tuple(
            Flow(f"user-{i}", f"ue-{i}", SLICE, 1e6 * (i % 4), 5e5, T0) for i in range(1, users + 1)
        )
        self.options = service.options.model_validate(dict(options))
        self.spec = LoopSpec("cell-1", PRB, Carrier(), (SliceSpec(SLICE, service.name),), MHZ)
        self.rng = np.random.default_rng(seed)
        self.slot = 0
        self.models: dict[str, bytes] = {}
        self.granted: Grant | None = None
        self.settings: Settings = {}
        self.fits: list[Fit] = []
        self._asked: set[str] = set()

    def allocator(self) -> Allocator:
        self.options.check(n_prb=PRB, max_mhz=MHZ)
        return self.service.allocator(SLICE, self.options, self.spec)

    @property
    def levers(self) -> tuple[Lever, ...]:
        return (*RESOURCES, Lever.SETTINGS) if self.service.settings else RESOURCES

    def view(self, **changes: Any) -> SliceView:
        """What the slice sees of the control slot that closes; ``changes`` replace fields of the view."""
        rng, opened = self.rng, T0 + self.slot * SLOT_NS
        closed = opened + SLOT_NS
        flows = [OTHERS]
        for user in self.users:
            match int(rng.integers(12)):
                case 0:
                    continue
                case 1:
                    flows.append(replace(user, start_ns=opened + int(rng.integers(SLOT_NS))))
                case 2:
                    flows.append(replace(user, stop_ns=opened + int(rng.integers(1, SLOT_NS))))
                case _:
                    flows.append(user)
        observation = Observation(
            control_slot=self.slot,
            opened_ns=opened,
            closed_ns=closed,
            known_ns=closed - int(rng.integers(3)) * 50 * MS,
            reports=tuple(self._report(opened + i * 200 * MS) for i in range(int(rng.integers(0, 6)))),
            flows=tuple(flows),
            frames=self._frames(len(flows), opened),
            samples={SLICE: self._samples(len(flows), opened)},
            fits=tuple(self.fits),
        )
        self.fits = []
        reasons = list(Reason)
        values: dict[str, Any] = {
            "granted": self.granted,
            "settings": self.settings,
            "unattributed": dict.fromkeys(self.levers, Reason.NO_DECISION)
            if self.granted is None
            else {x: reasons[rng.integers(len(reasons))] for x in self.levers if rng.random() < 0.2},
            "unapplied": frozenset(flow for flow in self.settings if rng.random() < 0.2),
            "models": self.models.__getitem__,
        }
        view = SliceView.of(observation, SLICE, guard_ms=100.0, seed=7, cell="cell-1", **values)
        self.slot += 1
        return replace(view, **changes)

    def grant(self, demand: SliceDemand) -> Grant:
        """All of the demand, a part of it, or nothing."""
        whole = self.rng.random(2) < 0.6
        ul, dl = (
            want.prb if all_of_it else int(self.rng.integers(want.prb + 1))
            for want, all_of_it in zip((demand.ul, demand.dl), whole, strict=True)
        )
        return Grant(
            ul, dl, demand.gpu_mhz, "" if ul == demand.ul.prb else "cut", "" if dl == demand.dl.prb else "cut"
        )

    def go_on(self, grant: Grant, settings: Settings, jobs: Sequence[Job]) -> None:
        """What was decided is in force; of the jobs, every second one fails."""
        self.granted, self.settings = grant, settings
        for job in jobs:
            if job.key not in self._asked:
                self._asked.add(job.key)
                fit, data = run_now(SLICE, job)
                if len(self._asked) % 2:
                    self.models[fit.digest] = data
                else:
                    fit = Fit(SLICE, job.key, "", "killed: it took longer than 1 s")
                self.fits.append(fit)

    # ---- what is seen ----------------------------------------------------------------------------------

    def _report(self, time_ns: int) -> MacReport:
        rng = self.rng
        seen = [OTHERS, *(user for user in self.users if rng.random() < 0.95)]
        n = len(seen)
        old = rng.random() < 0.1  # from before BLER, CQI and the counters were kept

        def ints(low: int, high: int) -> tuple[int, ...]:
            return tuple(rng.integers(low, high, n).tolist())

        def direction() -> DirectionColumns:
            state = ints(0, 28), ints(1, 3), ints(1, 3), ints(0, 200_000)
            counted = tuple(rng.random(n).tolist()), ints(0, 10**9), ints(0, 10**7)
            return DirectionColumns(*state) if old else DirectionColumns(*state, *counted)

        return MacReport(
            time_ns,
            tuple(f.ue_id for f in seen),
            tuple(f.slice for f in seen),
            direction(),
            direction(),
            () if old else ints(0, 16),
            () if old else tuple(rng.normal(15, 10, n).tolist()),
        )

    def _frames(self, flows: int, opened: int) -> Frames:
        rng = self.rng
        n = int(rng.integers(0, 20)) * flows
        if not n:
            return Frames.empty()
        sent = opened + rng.integers(0, SLOT_NS, n)
        times = sent + np.cumsum(rng.normal(40, 25, (3, n)) * MS, axis=0).astype(np.int64)
        times[rng.random((3, n)) < 0.1] = 0
        order = np.lexsort((sent, flow := rng.integers(0, flows, n)))
        return Frames(
            flow[order],
            np.arange(n, dtype=np.int64),
            sent[order],
            *(t[order] for t in times),
            synchronised=rng.random(n) < 0.9,
        )

    def _samples(self, flows: int, opened: int) -> dict[str, Samples]:
        rng, out = self.rng, {}
        for name, columns in self.service.tables.items():
            rows = int(rng.integers(0, 8)) * (flows - 1)
            if rng.random() < 0.2 or flows < 2:
                continue
            values = rng.normal(0, 10.0 ** rng.integers(-1, 4), (rows, len(columns))).astype(np.float32)
            values[rng.random(values.shape) < 0.1] = np.nan
            out[name] = Samples(
                rng.integers(1, flows, rows), np.sort(opened + rng.integers(0, SLOT_NS, rows)), values
            )
        return out


Played = tuple[Outcome, SliceDemand, Settings]


def play(
    world: World,
    allocator: Allocator,
    slots: int,
    look: Callable[[SliceView, Grant, Played], None] | None = None,
) -> list[Played]:
    """Control slot after control slot as the loop does it; ``look`` is shown each."""
    played = []
    for _ in range(slots):
        view = world.view()
        outcome = allocator.learn(view)
        demand = allocator.demand(view)
        grant = world.grant(demand)
        settings = allocator.settle(view, grant)
        played.append((outcome, demand, settings))
        if look is not None:
            look(view, grant, played[-1])
        world.go_on(grant, settings, allocator.jobs())
    return played


def measure_names(name: str) -> set[str]:
    """The names of the measures of a service."""
    service = allocators.service(name)
    worlds = [World(service, options) for options in service.unit_test_options]
    played = [outcome for w in worlds for outcome, _, _ in play(w, w.allocator(), 5)]
    return {measure.name for outcome in played for measure in outcome.measures}
