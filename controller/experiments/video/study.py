"""What the case study is computed from: worlds, schemes played through them, and how a run is judged.

All runs are judged over the same windows of :data:`WINDOW_S`, whatever slice windows a scheme chose, on the
scores that users gave and never on what an agent expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.bdqn import KINDS, BranchingNetwork
from controller.experiments import pool
from controller.experiments.stats import estimate
from controller.experiments.video.schemes import SCHEMES, WARM_UP_S, Campus, begin, run
from controller.experiments.video.world import STEP_S, Traces, WorldSpec, draw
from wire.definitions import mos

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
R = TypeVar("R")

WINDOW_S: Final = 180
"""Of which runs are judged: the shortest slice window."""
JUDGED_S: Final = 1800
"""That follow the first minutes, in which nobody is judged."""
USERS: Final = (16, 18, 20, 22, 24)
TYPICAL_USERS: Final = 20


@dataclass(frozen=True, slots=True)
class Judged:
    """A run: ``scores`` and ``ratio``, its mean over ELA, [users, windows]; ``share``: that of a window's
    scores at or above the ELA, [users, windows]; ``each`` score [users, steps]; ``prb`` and ``cycles``: parts
    that were reserved of what there is; ``possible`` [users, windows]: whether any allocation could keep the
    ELA in the mean."""

    ela: FloatArray
    scores: FloatArray
    share: FloatArray
    each: FloatArray
    possible: BoolArray
    prb: float
    cycles: float

    @property
    def ratio(self) -> FloatArray:
        return self.scores / self.ela[:, None]

    @property
    def kept(self) -> BoolArray:
        """Whether the mean score of a window is the ELA or more."""
        return np.asarray(self.scores >= self.ela[:, None])

    def summary(self) -> dict[str, float]:
        """Plain numbers of one run."""
        possible = self.kept[self.possible]
        return {
            "ratio": float(self.ratio.mean()),
            "kept": float(self.kept.mean()),
            "kept_of_possible": float(possible.mean()) if len(possible) else float("nan"),
            "score": float(self.each.mean()),
            "prb": self.prb,
            "cycles": self.cycles,
        }


def judged(campus: Campus, first_s: int = WARM_UP_S) -> Judged:
    """A run that is over, from ``first_s`` on; whole windows alone count."""
    spec, world = campus.traces.spec, campus.world
    steps = WINDOW_S // STEP_S
    begin_step = first_s // STEP_S
    count = (spec.steps - begin_step) // steps
    if count < 1:
        raise ValueError(f"{spec.duration_s - first_s} s: a window takes {WINDOW_S}")
    each = world.ratings[:, begin_step : begin_step + count * steps, 0]
    windows = each.reshape(spec.users, count, steps)
    ela = campus.traces.ela
    played = np.array([w.steps for w in campus.windows], np.float64)
    prb = np.array([w.prb.sum() / (spec.prb * spec.cells) for w in campus.windows])
    cycles = np.array([w.mcycles / spec.edge_mcycles for w in campus.windows])
    best = best_scores(campus.traces)[:, begin_step : begin_step + count * steps]
    return Judged(
        ela,
        windows.mean(axis=2),
        (windows >= ela[:, None, None]).mean(axis=2),
        each,
        np.asarray(best.reshape(windows.shape).mean(axis=2) >= ela[:, None]),
        float(prb @ played / played.sum()),
        float(cycles @ played / played.sum()),
    )


def best_scores(traces: Traces) -> FloatArray:
    """The mean score of each user and step where nothing stalls at the highest bitrate, [users, steps]."""
    ends = np.arange(1, traces.spec.steps + 1) * STEP_S
    return np.array(
        [
            [
                traces.viewer(user, float(t)).mean_score(
                    0.0, 1.0, float(traces.behaviour[user, t]), float(traces.environment[user, t])
                )
                for t in ends
            ]
            for user in range(traces.spec.users)
        ]
    )


def ceiling(principle: str) -> float:
    """The highest mean score of a principle: scores end at 5, so that their mean is below it."""
    return mos.mean_score(mos.SCALE[1], mos.DEVIATIONS[principle])


@dataclass(frozen=True, slots=True)
class Study:
    """``seeds`` from 0 on, each an independent sample; ``networks``: files of trained networks by kind;
    ``workers`` processes."""

    seeds: int = 10
    users: tuple[int, ...] = USERS
    judged_s: int = JUDGED_S
    workers: int = 1
    networks: Mapping[str, str] = field(default_factory=dict)

    def each(
        self, function: Callable[[Task], R], advance: Callable[[str], None], seeds: int | None = None
    ) -> list[R]:
        """The function of every seed, in their order; it is one of a module, as processes need it."""
        tasks = [Task(self, seed) for seed in range(self.seeds if seeds is None else seeds)]
        found: dict[int, R] = {}
        for place, result in pool.local(function, tasks, self.workers):
            found[place] = result
            advance(f"seed {place}")
        return [found[i] for i in range(len(tasks))]


@dataclass(frozen=True, slots=True)
class Task:
    """One seed of a study."""

    study: Study
    seed: int

    def spec(self, users: int = TYPICAL_USERS, **changes: Any) -> WorldSpec:
        return WorldSpec(**{"users": users, "duration_s": WARM_UP_S + self.study.judged_s, **changes})

    def play(self, spec: WorldSpec, names: Iterable[str]) -> dict[str, Campus]:
        """Runs of schemes in one world, by name; those whose network is not there are left out."""
        traces = draw(spec, self.seed)
        start = begin(traces, self.seed)
        networks = {kind: network_of(file) for kind, file in self.study.networks.items()}
        out = {}
        for name in names:
            scheme = SCHEMES[name]
            if scheme.network and scheme.network not in networks:
                continue
            own = start if scheme.drift else None
            out[name] = run(traces, scheme, self.seed, start=own, networks=networks)
        return out

    def judge(self, spec: WorldSpec, names: Iterable[str]) -> dict[str, Judged]:
        """As :meth:`play`, and judged."""
        return {name: judged(campus) for name, campus in self.play(spec, names).items()}


@lru_cache(maxsize=len(KINDS))
def network_of(file: str) -> BranchingNetwork:
    """ValueError, OSError for a file without one."""
    return BranchingNetwork.from_bytes(Path(file).read_bytes())


Estimated = dict[str, float | None] | None


def mean(values: Sequence[float | None]) -> Estimated:
    """Over seeds with its 95 % interval, plain JSON; None of nothing."""
    of = estimate([None if v is None or v != v else float(v) for v in values])
    return None if of is None else of.to_dict()


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, Estimated]:
    """Of each number of rows of several seeds."""
    return {key: mean([row[key] for row in rows]) for key in rows[0]}


def compared(values: Sequence[float], others: Sequence[float]) -> int:
    """1: higher, -1: lower, 0: undecided, by the 95 % interval of the differences seed by seed."""
    of = estimate([a - b for a, b in zip(values, others, strict=True)])
    if of is None or of.half is None or abs(of.mean) <= of.half:
        return 0
    return 1 if of.mean > 0.0 else -1
