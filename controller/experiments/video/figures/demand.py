"""Demand: how often the resources that an agent predicts keep the agreement, against the probability that it
gives, and how much that takes.

Each user gets exactly its demand for a window, whatever others get: the rate, or PRBs that stay what they are
(the quantile of the futures at the reliability), with its bitrate and prefetching. "same for all" is the
rate of a service-level agreement instead, without a probability.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.demand import Demand, demand
from controller.allocators.video.emulation import Emulator
from controller.experiments.figures import COLOURS, Plot, Table, canvas, cell
from controller.experiments.video.clairvoyant import true_model
from controller.experiments.video.figures.base import Figure, interval, middle
from controller.experiments.video.schemes import (
    RELIABILITY,
    SLA_KBPS,
    STEP_S,
    Campus,
    begin,
    copied,
    observe,
    users_now,
)
from controller.experiments.video.study import Study, Task, mean
from controller.experiments.video.world import Allocation, draw
from wire.definitions.viewing import MAX_PREFETCH

FloatArray = NDArray[np.float64]

WINDOW_MIN: Final = 9
EDGES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
SLA_BITRATE: Final = 1500.0
AMPLE: Final = 1e7
"""PRBs and 10^9 cycles/s: demand is given whatever it is."""
KNOWN_ROWS: Final = 1_000_000
"""Scores that true models are as good as fitted to."""
KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "own models, rate": ("own", "rate"),
    "own models, fixed PRBs": ("own", "prb"),
    "general model, rate": ("general", "rate"),
    "true models, rate": ("true", "rate"),
    "same for all": ("none", "rate"),
}
"""Whose models, and what is given."""


def of_seed(task: Task) -> dict[str, Any]:
    traces = draw(task.spec(), task.seed)
    start = begin(traces, task.seed)
    return {name: play(copied(start), task.seed, *of) for name, of in KINDS.items()}


def play(campus: Campus, seed: int, models: str, given: str) -> dict[str, Any]:
    """``probability`` and ``kept`` of every user and window of which something is demanded, and the rate and
    PRBs in the mean."""
    world = campus.world
    spec = campus.traces.spec
    carried = np.maximum(world.traces.kbps_per_prb, 1e-9)
    ample = replace(spec, prb=int(AMPLE), edge_mcycles=1e3 * AMPLE)
    # A rate that is given is kept whatever the channel does within a step.
    seen = np.ones_like(carried) if given == "rate" else carried
    world.traces = replace(world.traces, spec=ample, kbps_per_prb=seen)
    rng = np.random.default_rng((seed, 3))
    steps = WINDOW_MIN * 60 // STEP_S
    probability, kept, kbps, prb = [], [], [], []
    while world.step_number + steps <= spec.steps:
        campus.population.learn()
        agents = list(campus.population.agents.values())
        first = world.step_number
        users = replace(
            users_now(campus, "own" if models == "own" else "general"), kbps_per_prb=carried[:, first]
        )
        if models == "true":
            users = replace(
                users,
                models=tuple(replace(true_model(viewer), rows=KNOWN_ROWS) for viewer in world.traces.viewers),
            )
        if models == "none":
            wanted = _same(len(users), spec.cycles_per_bit)
        else:
            ahead = Emulator.fit(agents, network=False).futures(agents, 60.0 * WINDOW_MIN, rng)
            wanted = demand(users, ahead, 60.0 * WINDOW_MIN, RELIABILITY, spec.cycles_per_bit)
        fixed = np.quantile(wanted.prb, RELIABILITY, axis=1, method="inverted_cdf")
        for _ in range(steps):
            here = carried[:, world.time_s]
            now = wanted.kbps / here if given == "rate" else fixed
            world.step(
                Allocation(
                    now * here if given == "rate" else now,
                    wanted.mcycles,
                    wanted.bitrate_kbps,
                    wanted.prefetch,
                )
            )
            observe(campus)
            kbps.append(float(world.fetched_kbps.mean()))
            prb.append(float(now.mean()))
        scores = world.ratings[:, first : world.step_number, 0]
        kept.append(scores.mean(axis=1) >= campus.traces.ela)
        probability.append(wanted.probability)
    p, k = np.concatenate(probability), np.concatenate(kept)
    place = np.clip(np.searchsorted(EDGES, p, side="right") - 1, 0, len(EDGES) - 2)
    bins = [
        {"count": int((place == i).sum()), "nominal": _mean(p[place == i]), "kept": _mean(k[place == i])}
        for i in range(len(EDGES) - 1)
    ]
    return {
        "bins": bins,
        "nominal": _mean(p),
        "kept": float(k.mean()),
        "brier": _mean(np.square(p - k)),
        "kbps": float(np.mean(kbps)),
        "prb": float(np.mean(prb)),
    }


def _same(users: int, cycles_per_bit: float) -> Demand:
    column = np.full(users, SLA_KBPS)
    none = np.full(users, np.nan)
    return Demand(
        column,
        np.full(users, SLA_BITRATE),
        np.full(users, float(MAX_PREFETCH)),
        none,
        np.ones(users, np.bool_),
        np.zeros((users, 1)),
        column * cycles_per_bit / 1e3,
    )


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    seeds = study.each(of_seed, advance)
    return {
        name: {
            "bins": [
                {
                    "count": sum(s[name]["bins"][i]["count"] for s in seeds),
                    "nominal": mean([s[name]["bins"][i]["nominal"] for s in seeds]),
                    "kept": mean([s[name]["bins"][i]["kept"] for s in seeds]),
                }
                for i in range(len(EDGES) - 1)
            ],
            **{k: mean([s[name][k] for s in seeds]) for k in ("nominal", "kept", "brier", "kbps", "prb")},
        }
        for name in KINDS
    }


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    head = ("demand of", "expected", "kept", "Brier score", "kbit/s fetched", "PRBs a user")
    rows = [
        [
            name,
            *(interval(of[k]) for k in ("nominal", "kept", "brier")),
            interval(of["kbps"], ".0f"),
            interval(of["prb"], ".2f"),
        ]
        for name, of in result.items()
    ]
    parts: list[str | Table] = [
        Table(
            f"Windows of {WINDOW_MIN} min whose mean score keeps the ELA; reliability {RELIABILITY}",
            head,
            rows,
        )
    ]
    for name, of in result.items():
        if of["nominal"] is None:
            continue
        rows = [
            [
                f"{low:g} to {high:g}",
                str(b["count"]),
                cell(middle(b["nominal"])),
                interval(b["kept"]),
            ]
            for low, high, b in zip(EDGES[:-1], EDGES[1:], of["bins"], strict=True)
        ]
        parts.append(Table(f"Calibration: {name}", ("probability", "windows", "expected", "kept"), rows))
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, ((axes,),) = canvas(1, width=4.6, height=3.8)
    axes.plot((0, 1), (0, 1), color="#5d6873", linestyle=":", linewidth=1)
    for colour, (name, of) in zip(COLOURS, result.items(), strict=False):
        bins = [b for b in of["bins"] if b["nominal"] is not None]
        if not bins:
            continue
        axes.errorbar(
            [middle(b["nominal"]) for b in bins],
            [middle(b["kept"]) for b in bins],
            yerr=[0.0 if b["kept"]["half_95"] is None else b["kept"]["half_95"] for b in bins],
            color=colour,
            label=name,
            marker="o",
            capsize=2,
        )
    axes.set(xlabel="probability that the demand keeps the ELA", ylabel="windows that kept it")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize="small")
    return [Plot("Calibration of demand", figure)]


FIGURE = Figure("Reliability of demand", lambda seeds: seeds, compute, shown, plots)
