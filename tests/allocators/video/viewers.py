"""A cell of viewers for tests: they score what comes of the allocator's settings, by
:class:`wire.definitions.viewing.Viewer`; and histories of theirs without a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.allocators.base import SliceView
from controller.allocators.video.agent import HISTORY
from controller.allocators.video.allocator import VideoAllocator
from controller.allocators.video.options import VideoOptions
from controller.allocators.video.playback import shown_share
from controller.allocators.video.rows import RATING
from controller.core.decision import Grant, Settings, SliceDemand
from controller.core.fits import Fit, Job
from controller.core.hops import Carrier
from controller.core.measure import Lever, Outcome, Reason
from controller.core.observation import DirectionColumns, Flow, MacReport, Samples
from controller.core.spec import LoopSpec, SliceSpec
from controller.fits import run_now
from wire.definitions import mos, nr
from wire.definitions.viewing import Viewer

S = 1_000_000_000
SLOT_S = 10
"""A rating of each user in every control slot."""
T0 = 1_800_000_000 * S
PRB = 133
LOOP = LoopSpec("cell-1", PRB, Carrier(), (SliceSpec("video", "video"),), 1600, control_slot_s=SLOT_S)
MCS = 12
KBPS_PER_PRB = 1.0 / (LOOP.carrier.prb_per_bit("dl")[1][MCS] * nr.FRAME_MS)
STALLS = Viewer(3.5, "stalls", "linear", (0.0, 0.0))
QUALITY = Viewer(3.5, "quality", "linear", (0.0, 0.0))
COMBINED = Viewer(3.2, "combined", "exponential", (0.0, 0.1))


def history(
    viewer: Viewer,
    rows: int,
    seed: int = 0,
    bitrates_kbps: Sequence[float] = (500.0, 1000.0, 2000.0, 3000.0),
    stalled_s: float = 3.0,
    start_s: float = 0.0,
) -> NDArray[np.float64]:
    """Scores [rows, HISTORY] of a viewer under random bitrates, stalls, behaviour and environment."""
    rng = np.random.default_rng(seed)
    stalled = np.clip(rng.gamma(0.7, stalled_s / 0.7, rows), 0.0, 60.0) if stalled_s else np.zeros(rows)
    swipes = rng.uniform(0.0, 12.0, rows)
    columns = {
        "stalled": stalled,
        "quality": mos.quality(rng.choice(bitrates_kbps, rows)) * (1.0 - stalled / 60.0),
        "delay": rng.gamma(2.0, 0.2, rows),
        "throughput": rng.uniform(1.0, 8.0, rows),
        "jitter": rng.uniform(0.0, 0.1, rows),
        "loss": rng.uniform(0.0, 0.1, rows),
        "behaviour": mos.behaviour(swipes),
        "environment": rng.uniform(1.0, 2.0, rows),
        "swipes_per_min": swipes,
        "prb_per_kbps": rng.uniform(0.001, 0.004, rows),
        "time_s": start_s + 10.0 * np.arange(rows),
    }
    seen = (columns[n] for n in ("stalled", "quality", "behaviour", "environment"))
    scores = [viewer.score(*x, u) for *x, u in zip(*seen, rng.uniform(size=rows), strict=True)]
    return np.column_stack([scores if n == "score" else columns[n] for n in HISTORY])


def allocator(**options: Any) -> VideoAllocator:
    return VideoAllocator("video", VideoOptions(**options), LOOP)


@dataclass
class Cell:
    """Viewers by flow, ``u0`` and so on. The PRBs that are granted are shared so that all play alike; while a
    user fetches, segments come as fast as those of any.

    ``radio``: times what a PRB carries; 0: nothing comes. ``silent``: who sends no rating. ``reverse``: rows
    come in the reverse order of users.
    """

    viewers: dict[str, Viewer]
    seed: int = 0
    slot: int = 0
    radio: float = 1.0
    silent: frozenset[str] = frozenset()
    arrivals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reverse: bool = False
    granted: Grant | None = None
    settings: Settings = field(default_factory=dict)
    fits: list[Fit] = field(default_factory=list)
    models: dict[str, bytes] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    since: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, *viewers: Viewer, **more: Any) -> Cell:
        return cls({f"u{i}": v for i, v in enumerate(viewers)}, **more)

    def flows(self) -> tuple[Flow, ...]:
        opened = T0 + self.slot * SLOT_S * S
        for flow in self.viewers:
            self.since.setdefault(flow, opened)
        return tuple(Flow(f, f"ue-{f}", "video", 0.0, 0.0, self.since[f]) for f in self.viewers)

    def view(self, **changes: Any) -> SliceView:
        """The control slot that closes, with a rating of each user near its end."""
        flows, opened = self.flows(), T0 + self.slot * SLOT_S * S
        closed = opened + SLOT_S * S
        samples: dict[str, Samples] = {}
        if flows and self.granted is not None:
            samples = self._samples(flows, closed - S // 2)
        known: dict[str, Any] = {
            "users": flows,
            "reports": (self._report(opened + S, flows), self._report(opened + 9 * S, flows)),
            "samples": samples,
            "granted": self.granted,
            "settings": self.settings,
            "unattributed": {}
            if self.granted is not None
            else dict.fromkeys((Lever.UL, Lever.DL, Lever.SETTINGS), Reason.NO_DECISION),
            "fits": tuple(self.fits),
            "models": self.models.__getitem__,
            "arrivals": self.arrivals,
            "seed": (7, self.slot),
        }
        begin = opened + S // 5
        self.fits, self.arrivals, self.slot = [], {}, self.slot + 1
        return SliceView("video", self.slot - 1, opened, closed, begin, closed, **{**known, **changes})

    def _samples(self, flows: Sequence[Flow], time_ns: int) -> dict[str, Samples]:
        rng = np.random.default_rng((self.seed, self.slot))
        set_to = {
            f: self.settings.get(f, {"bitrate_kbps": (1000.0,), "prefetch": (1.0,)}) for f in self.viewers
        }
        bitrate = {f: s["bitrate_kbps"][0] for f, s in set_to.items()}
        assert self.granted is not None
        carried = self.granted.dl_prb * KBPS_PER_PRB * self.radio / max(sum(bitrate.values()), 1e-9)
        ratings, profiles, rows = [], [], []
        order = list(enumerate(self.viewers.items()))
        # Each viewer's own numbers, whoever else is there.
        for i, (flow, viewer) in reversed(order) if self.reverse else order:
            own = np.random.default_rng((self.seed, self.slot, int(flow[1:])))
            swipes, environment = own.uniform(3.0, 9.0), own.uniform(1.0, 2.0)
            shown = float(shown_share(carried, swipes, int(set_to[flow]["prefetch"][0])))
            stalled = min(max(60.0 * (1.0 - shown) + own.normal(0.0, 0.5), 0.0), 60.0)
            quality = float(mos.quality(bitrate[flow])) * (1.0 - stalled / 60.0)
            behaviour = float(mos.behaviour(swipes))
            score = viewer.score(stalled, quality, behaviour, environment, own.uniform())
            profiles.append((viewer.ela, 1.0, 180.0, 500.0, 3000.0, 4.0))
            row = dict.fromkeys((c.name for c in RATING), 0.0)
            mean = carried * float(np.mean(list(bitrate.values()))) * own.uniform(0.8, 1.2)
            fetched = (1e6 / mean, mean / 1e3) if carried > 0.0 else (np.nan, np.nan)
            row |= {"score": score, "stalled": stalled, "quality": quality, "behaviour": behaviour}
            row |= {"environment": environment, "delay": fetched[0], "throughput": fetched[1]}
            row |= {"swipes": swipes, "jitter": float(rng.uniform(0.0, 50.0))}
            rows.append(i)
            ratings.append(tuple(row.values()))
        told_by = [k for k, i in enumerate(rows) if flows[i].flow not in self.silent]
        at = np.array(rows, np.int64)[told_by], np.full(len(told_by), time_ns)
        return {
            "rating": Samples(*at, np.array(ratings, np.float32).reshape(-1, len(RATING))[told_by]),
            "profile": Samples(*at, np.array(profiles, np.float32).reshape(-1, 6)[told_by]),
        }

    def _report(self, time_ns: int, flows: Sequence[Flow]) -> MacReport:
        n = len(flows)
        zero = (0,) * n
        columns = DirectionColumns((MCS,) * n, (1,) * n, (1,) * n, zero, (0.05,) * n, zero, zero)
        names = tuple(f.ue_id for f in flows)
        return MacReport(time_ns, names, ("video",) * n, columns, columns, zero, (15.0,) * n)

    def step(
        self, a: VideoAllocator, grant: Grant | None = None, **changes: Any
    ) -> tuple[Outcome, SliceDemand, Settings]:
        """A control slot; what was asked for is granted, and jobs are done for the next."""
        seen = self.view(**changes)
        outcome = a.learn(seen)
        demand = a.demand(seen)
        self.granted = grant or Grant(demand.ul.prb, demand.dl.prb, 0)
        self.settings = a.settle(seen, self.granted)
        for job in a.jobs():
            self.jobs.append(job)
            fit, data = run_now("video", job)
            self.models[fit.digest] = data
            self.fits.append(fit)
        return outcome, demand, self.settings

    def play(
        self, a: VideoAllocator, slots: int, grant: Grant | None = None
    ) -> list[tuple[Outcome, SliceDemand, Settings]]:
        return [self.step(a, grant) for _ in range(slots)]


def mos_of(played: Sequence[tuple[Outcome, SliceDemand, Settings]], flow: str) -> float:
    """The mean of a user's latest scores at the end."""
    outcome = played[-1][0]
    value = outcome.measures[0].values[outcome.users.index(flow)]
    assert value is not None
    return value
