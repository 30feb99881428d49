"""Load: PRBs of a base station and cycles of the edge, from where nobody can be content to where all are who
can be, with the point of the case study on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from controller.experiments.figures import Plot, Table, canvas
from controller.experiments.video.figures.base import (
    COLOUR,
    SHOWN,
    SUMMARY_HEADS,
    Figure,
    banded,
    interval,
    summary_row,
)
from controller.experiments.video.schemes import WARM_UP_S
from controller.experiments.video.study import (
    TYPICAL_USERS,
    Study,
    Task,
    best_scores,
    ceiling,
    mean,
    means,
)
from controller.experiments.video.world import STEP_S, WorldSpec, draw

FACTORS: Final = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
PRB: Final = (12, 25, 50, 100, 200)
EDGE_GCYCLES: Final = (2.5, 5.0, 10.0, 20.0, 40.0)
NAMES: Final = ("agents", "without-agents", "hsla-l2")
SEEDS: Final = 5
"""At most: there are many points."""
POINT: Final = WorldSpec()


SWEEPS: Final[Mapping[str, tuple[float, ...]]] = {"both": FACTORS, "prb": PRB, "cycles": EDGE_GCYCLES}


def of_seed(task: Task) -> dict[str, Any]:
    """Of a seed: the summaries of every point, by sweep, amount and scheme."""
    known: dict[tuple[int, float], dict[str, dict[str, float]]] = {}

    def point(sweep: str, amount: float) -> dict[str, dict[str, float]]:
        prb, mcycles = POINT.prb, POINT.edge_mcycles
        if sweep in ("both", "prb"):
            prb = round(POINT.prb * amount) if sweep == "both" else int(amount)
        if sweep in ("both", "cycles"):
            mcycles = POINT.edge_mcycles * amount if sweep == "both" else 1e3 * amount
        if (prb, mcycles) not in known:
            spec = task.spec(prb=prb, edge_mcycles=mcycles)
            known[prb, mcycles] = {name: of.summary() for name, of in task.judge(spec, NAMES).items()}
        return known[prb, mcycles]

    of = {sweep: {f"{amount:g}": point(sweep, amount) for amount in SWEEPS[sweep]} for sweep in SWEEPS}
    traces = draw(task.spec(), task.seed)
    best, ela = best_scores(traces)[:, WARM_UP_S // STEP_S :], traces.ela
    ends = np.array([ceiling(viewer.principle) for viewer in traces.viewers])
    return {
        "sweeps": of,
        "scale": float((ela > ends).mean()),
        "context": float(((ela <= ends)[:, None] & (best < ela[:, None])).mean()),
    }


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    seeds = study.each(of_seed, advance, min(study.seeds, SEEDS))
    return {
        "users": TYPICAL_USERS,
        "point": {"both": 1.0, "prb": POINT.prb, "cycles": POINT.edge_mcycles / 1e3},
        "scale": mean([s["scale"] for s in seeds]),
        "context": mean([s["context"] for s in seeds]),
        "sweeps": {
            sweep: {
                amount: {name: means([s["sweeps"][sweep][amount][name] for s in seeds]) for name in NAMES}
                for amount in seeds[0]["sweeps"][sweep]
            }
            for sweep in SWEEPS
        },
    }


_TITLES: Final = {
    "both": "both, relative to the case study",
    "prb": "PRBs of a base station",
    "cycles": "Gcycle/s of the edge",
}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    point = result["point"]
    parts: list[str | Table] = [
        f"The case study is at {point['prb']} PRB a station and {point['cycles']:g} Gcycle/s, with"
        f" {result['users']} users. What nobody can keep whatever there is: the ELAs of"
        f" {interval(result['scale'], '.1f', 100.0)} % of the users are above the highest mean score, as"
        f" scores end at 5; in {interval(result['context'], '.1f', 100.0)} % of users' time it is B and C"
        " that take the rest."
    ]
    for resource, title in _TITLES.items():
        rows = [
            summary_row(f"{amount}, {SHOWN[name]}", of)
            for amount, by_name in result["sweeps"][resource].items()
            for name, of in by_name.items()
        ]
        parts.append(Table(title, ("amount, scheme", *SUMMARY_HEADS), rows))
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, rows = canvas(3, 2, width=3.8, height=2.8)
    keys = (("ratio", "QoE / ELA"), ("kept_of_possible", "ELA kept, of possible"))
    for (resource, title), column in zip(_TITLES.items(), range(3), strict=True):
        amounts = [float(amount) for amount in result["sweeps"][resource]]
        for (key, label), row in zip(keys, rows, strict=True):
            axes = row[column]
            for name in NAMES:
                of = [by_name[name][key] for by_name in result["sweeps"][resource].values()]
                banded(axes, amounts, of, color=COLOUR[name], label=SHOWN[name], marker=".")
            axes.axvline(result["point"][resource], color="#5d6873", linestyle=":", linewidth=1)
            axes.set(xscale="log", xlabel=title, ylabel=label, ylim=(0, None))
            axes.set_xticks(amounts, [f"{a:g}" for a in amounts])
            axes.minorticks_off()
    rows[0][0].legend(fontsize="small")
    return [Plot("From too little to enough; dotted: the point of the case study", figure)]


FIGURE = Figure("Load", lambda seeds: min(seeds, SEEDS), compute, shown, plots)
