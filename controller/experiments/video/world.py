"""The campus of the case study (section IV): users who move between two base stations, watch, swipe and rate.

Everything that no scheme can change is drawn beforehand from the seed: who the users are, where they go, what
the radio carries, when they swipe and the quantile at which each of their scores is drawn. So schemes meet
the same world. The players are those of :mod:`controller.allocators.video.player`; what a scheme gives a
user, PRBs of its cell, cycles of the edge, bitrate and prefetching, holds for a step of :data:`STEP_S`, at
whose end the user rates it.

The paper leaves open the carrier's width, the cycles of transcoding and what arrives at the rate 6: here 50
PRB (10 MHz of n28) a base station, 180 cycle/bit, and 6 videos a minute.
:mod:`controller.experiments.video.figures.load` moves the load from where nobody can be content to where all
are who can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.opinion import COLUMNS
from controller.allocators.video.player import STATE, STEPS_PER_S, SUMS, play
from wire.definitions import mobility, mos, propagation, viewing

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

STEP_S: Final = 10
"""Seconds of an orchestration step, and between two ratings of a user."""
OVERHEAD: Final = 0.14
"""Of a carrier, for reference signals and control (TS 38.306 4.1.2)."""
ENVIRONMENT_NOISE: Final = 0.05
"""Standard deviation of C round what the velocity says."""
MAX_STALLED: Final = 60.0


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """``changed``: part of the users who are somebody else from ``change_s`` on, and judge by other
    principles."""

    users: int = 20
    duration_s: int = 3600
    prb: int = 50
    edge_mcycles: float = 10_000.0
    """10^6 cycles/s."""
    cycles_per_bit: float = viewing.CYCLES_PER_BIT
    requests_per_min: float = viewing.REQUESTS_PER_MIN
    area_m: tuple[float, float] = (1200.0, 800.0)
    stations_m: tuple[tuple[float, float], ...] = ((300.0, 400.0), (900.0, 400.0))
    segment_s: float = viewing.SEGMENT_S
    change_s: int = 0
    changed: float = 0.0

    def __post_init__(self) -> None:
        if self.users < 1 or self.prb < 1 or self.duration_s < STEP_S or self.duration_s % STEP_S:
            raise ValueError(
                f"{self.users} users, {self.prb} PRB, {self.duration_s} s: one of each at least of {STEP_S} s"
            )
        if not 0.0 <= self.changed <= 1.0 or not self.edge_mcycles > 0.0:
            raise ValueError(f"changed {self.changed}, edge of {self.edge_mcycles} Mcycle/s: no such world")

    @property
    def cells(self) -> int:
        return len(self.stations_m)

    @property
    def steps(self) -> int:
        return self.duration_s // STEP_S

    @property
    def kbit_mcycles(self) -> float:
        """10^6 cycles of a kbit."""
        return self.cycles_per_bit / 1e3


@dataclass(frozen=True, slots=True)
class Traces:
    """What no scheme changes. [users, seconds + 1] where not said otherwise.

    ``cell`` serves, ``kbps_per_prb`` is what a PRB of it carries; ``position_m`` [users, seconds + 1, 2];
    ``swipes`` int [users, steps of the player]; ``swipes_per_min``, ``behaviour``, ``environment`` at the end
    of each second; ``quantile`` [users, steps]; ``viewers`` and, from ``change_s`` on, ``later``.
    """

    spec: WorldSpec
    viewers: tuple[viewing.Viewer, ...]
    later: tuple[viewing.Viewer, ...]
    position_m: FloatArray
    speed_kmh: FloatArray
    cell: IntArray
    kbps_per_prb: FloatArray
    swipes: IntArray
    swipes_per_min: FloatArray
    behaviour: FloatArray
    environment: FloatArray
    quantile: FloatArray

    def viewer(self, user: int, time_s: float) -> viewing.Viewer:
        """Whom the user is at a time."""
        changed = self.spec.change_s and time_s > self.spec.change_s
        return (self.later if changed else self.viewers)[user]

    @property
    def ela(self) -> FloatArray:
        """[users]; nobody's agreement changes."""
        return np.array([v.ela for v in self.viewers])


def draw(spec: WorldSpec, seed: int) -> Traces:
    """A world. The first users of a larger one are those of a smaller one of the same seed."""
    n, seconds = spec.users, spec.duration_s
    site = propagation.Site(prb=spec.prb)
    each = [np.random.default_rng((seed, user)) for user in range(n)]
    viewers = tuple(viewing.draw_viewer(rng) for rng in each)
    later = tuple(
        _other(rng, viewer) if rng.uniform() < spec.changed else viewer
        for rng, viewer in zip(each, viewers, strict=True)
    )
    walks = [mobility.walks(rng, 1, seconds, spec.area_m) for rng in each]
    position = np.concatenate([p for p, _ in walks])
    speed = np.concatenate([s for _, s in walks])
    travelled = np.concatenate((np.zeros((n, 1)), np.cumsum(speed[:, :-1], axis=1) / 3.6), axis=1)
    shadowing = np.concatenate(
        [propagation.shadowing_db(r, t[None], spec.cells, site) for r, t in zip(each, travelled, strict=True)]
    )
    received = propagation.received_dbm(position, np.array(spec.stations_m), shadowing, site)
    cell = propagation.serving(received)
    efficiency = propagation.efficiency(propagation.sinr_db(received, cell, site))
    lives = [viewing.draw_behaviour(rng, seconds, spec.requests_per_min) for rng in each]
    swipes = np.zeros((n, seconds * STEPS_PER_S), np.int64)
    for user, life in enumerate(lives):
        np.add.at(swipes[user], (life.swipes_s * STEPS_PER_S).astype(np.int64), 1)
    times = np.arange(seconds + 1, dtype=np.float64)
    per_min = np.stack([life.swipes_per_min(times) for life in lives])
    noise = np.stack([rng.standard_normal(seconds + 1) for rng in each])
    environment = np.clip(mos.environment(speed) + ENVIRONMENT_NOISE * noise, *mos.FACTOR_RANGE)
    return Traces(
        spec,
        viewers,
        later,
        position,
        speed,
        cell,
        efficiency * site.prb_hz * (1.0 - OVERHEAD) / 1e3,
        swipes,
        per_min,
        mos.behaviour(per_min),
        environment,
        np.stack([rng.uniform(size=spec.steps) for rng in each]),
    )


def _other(rng: np.random.Generator, viewer: viewing.Viewer) -> viewing.Viewer:
    """A viewer of another principle with the same agreement."""
    while True:
        new = viewing.draw_viewer(rng)
        if new.principle != viewer.principle:
            return viewing.Viewer(viewer.ela, new.principle, new.impact, new.weights)


@dataclass(frozen=True, slots=True)
class Allocation:
    """For a step, float64 [users]: PRBs of its cell, 10^6 cycles/s, bitrate in kbit/s, first segments
    prefetched."""

    prb: FloatArray
    mcycles: FloatArray
    bitrate_kbps: FloatArray
    prefetch: FloatArray


@dataclass(slots=True)
class World:
    """A run: :meth:`step` by step. ``ratings`` float64 [users, steps, COLUMNS], NaN where it has not been;
    ``expected`` [users, steps]: the mean of the law from which each score was drawn; ``fetched_kbps``
    [users]: what was really fetched in the last step."""

    traces: Traces
    step_number: int = 0
    state: FloatArray = field(init=False)
    under_way_s: FloatArray = field(init=False)
    sums: FloatArray = field(init=False)
    ratings: FloatArray = field(init=False)
    expected: FloatArray = field(init=False)
    fetched_kbps: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        spec = self.traces.spec
        self.state = np.zeros((spec.users, len(STATE)))
        self.under_way_s = np.zeros(spec.users)
        self.sums = np.zeros((spec.users, len(SUMS)))
        self.ratings = np.full((spec.users, spec.steps, len(COLUMNS)), np.nan)
        self.expected = np.full((spec.users, spec.steps), np.nan)
        self.fetched_kbps = np.zeros(spec.users)

    @property
    def time_s(self) -> int:
        return self.step_number * STEP_S

    @property
    def done(self) -> bool:
        return self.step_number >= self.traces.spec.steps

    @property
    def buffer_s(self) -> FloatArray:
        """Seconds of the current video that each user has."""
        return self.state[:, 0]

    def check(self, a: Allocation) -> None:
        """ValueError for what the cells and the edge do not have."""
        spec = self.traces.spec
        used = np.bincount(self.traces.cell[:, self.time_s], a.prb, spec.cells)
        columns = (a.prb, a.mcycles, a.bitrate_kbps, a.prefetch)
        if any(len(x) != spec.users or not np.isfinite(x).all() or (x < 0.0).any() for x in columns):
            raise ValueError(
                f"step {self.step_number}: not a finite number from 0 for each of {spec.users} users"
            )
        if (used > spec.prb * (1.0 + 1e-6)).any() or a.mcycles.sum() > spec.edge_mcycles * (1.0 + 1e-6):
            raise ValueError(
                f"step {self.step_number}: {used.round(2).tolist()} PRB of {spec.prb} and"
                f" {a.mcycles.sum():.0f} Mcycle/s of {spec.edge_mcycles:.0f}"
            )

    def step(self, a: Allocation) -> FloatArray:
        """Let a step go by; the users' ratings of it, float64 [users, COLUMNS]."""
        self.check(a)
        t, at, spec = self.traces, self.time_s, self.traces.spec
        seconds = slice(at, at + STEP_S)
        # Cells change within a step too; the PRBs that a user has go with it.
        kbps = np.minimum(
            a.prb[:, None] * t.kbps_per_prb[:, seconds], (a.mcycles / spec.kbit_mcycles)[:, None]
        )
        before = self.sums.copy()
        play(
            self.state,
            self.under_way_s,
            self.sums,
            kbps,
            a.bitrate_kbps,
            mos.quality(a.bitrate_kbps),
            a.prefetch,
            t.swipes[:, at * STEPS_PER_S : (at + STEP_S) * STEPS_PER_S],
            spec.segment_s,
        )
        stalled, shown_quality, fetched, _, fetch, fetch_2, segments = (self.sums - before).T
        self.fetched_kbps = fetched / STEP_S
        end = at + STEP_S
        row = self.ratings[:, self.step_number]
        counted = np.maximum(segments, 1.0)
        mean = fetch / counted
        values: Mapping[str, FloatArray] = {
            "stalled": np.minimum(stalled * 60.0 / STEP_S, MAX_STALLED),
            "quality": shown_quality / STEP_S,
            "delay": np.where(segments > 0.0, mean, np.nan),
            "throughput": np.where(fetched > 0.0, kbps.mean(axis=1) / 1e3, np.nan),
            "jitter": np.where(
                segments > 1.0, np.sqrt(np.maximum(fetch_2 / counted - mean * mean, 0.0)), np.nan
            ),
            "loss": np.zeros(spec.users),
            "behaviour": t.behaviour[:, end],
            "environment": t.environment[:, end],
        }
        for name, column in values.items():
            row[:, COLUMNS.index(name)] = column
        for user in range(spec.users):
            viewer = t.viewer(user, end)
            seen = (values[c][user] for c in ("stalled", "quality", "behaviour", "environment"))
            stalled_u, quality_u, b, c = map(float, seen)
            self.expected[user, self.step_number] = viewer.mean_score(stalled_u, quality_u, b, c)
            row[user, 0] = viewer.score(stalled_u, quality_u, b, c, float(t.quantile[user, self.step_number]))
        self.step_number += 1
        return row
