"""Load: PRBs of a base station and cycles of the edge, from where nobody can be content to where all are who
can be, with the point of the case study on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

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
from controller.experiments.video.study import TYPICAL_USERS, Study, Task, mean, means
from controller.experiments.video.world import WorldSpec

PRB: Final = (6, 12, 25, 50, 100, 200, 400)
EDGE_GCYCLES: Final = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0)
NAMES: Final = ("agents", "without-agents", "hsla-l2")
SEEDS: Final = 5
"""At most: there are many points."""
JUDGED_S: Final = 1800
POINT: Final = WorldSpec()


def one(task: Task) -> dict[str, Any]:
    """Of a seed: the summaries of every point, by resource, amount and scheme."""
    duration = task.spec().duration_s - task.study.judged_s + min(JUDGED_S, task.study.judged_s)
    usual = {"duration_s": duration}
    runs = {prb: task.judge(task.spec(prb=prb, **usual), NAMES) for prb in PRB}
    by_prb = {str(prb): {n: of.summary() for n, of in run.items()} for prb, run in runs.items()}
    cycles = {}
    for gcycles in EDGE_GCYCLES:
        if 1e3 * gcycles == POINT.edge_mcycles and POINT.prb in PRB:
            cycles[str(gcycles)] = by_prb[str(POINT.prb)]
            continue
        of = task.judge(task.spec(edge_mcycles=1e3 * gcycles, **usual), NAMES)
        cycles[str(gcycles)] = {name: run.summary() for name, run in of.items()}
    return {"prb": by_prb, "cycles": cycles, "possible": float(runs[PRB[0]][NAMES[0]].possible.mean())}


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    seeds = study.each(one, advance, min(study.seeds, SEEDS))
    return {
        "users": TYPICAL_USERS,
        "point": {"prb": POINT.prb, "cycles": POINT.edge_mcycles / 1e3},
        "possible": mean([s["possible"] for s in seeds]),
        **{
            resource: {
                amount: {name: means([s[resource][amount][name] for s in seeds]) for name in NAMES}
                for amount in seeds[0][resource]
            }
            for resource in ("prb", "cycles")
        },
    }


_TITLES: Final = {"prb": "PRBs of a base station", "cycles": "Gcycle/s of the edge"}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    point = result["point"]
    parts: list[str | Table] = [
        f"The case study is at {point['prb']} PRB a station and {point['cycles']:g} Gcycle/s, with"
        f" {result['users']} users. An ELA can be kept in {interval(result['possible'], '.1f', 100.0)} % of"
        " users' windows at most."
    ]
    for resource, title in _TITLES.items():
        rows = [
            summary_row(f"{amount}, {SHOWN[name]}", of)
            for amount, by_name in result[resource].items()
            for name, of in by_name.items()
        ]
        parts.append(Table(title, ("amount, scheme", *SUMMARY_HEADS), rows))
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, rows = canvas(2, 2, width=4.2, height=2.8)
    keys = (("ratio", "QoE / ELA"), ("kept_of_possible", "ELA kept, of possible"))
    for (resource, title), column in zip(_TITLES.items(), range(2), strict=True):
        amounts = [float(amount) for amount in result[resource]]
        for (key, label), row in zip(keys, rows, strict=True):
            axes = row[column]
            for name in NAMES:
                of = [by_name[name][key] for by_name in result[resource].values()]
                banded(axes, amounts, of, color=COLOUR[name], label=SHOWN[name], marker=".")
            axes.axvline(result["point"][resource], color="#5d6873", linestyle=":", linewidth=1)
            axes.set(xscale="log", xlabel=title, ylabel=label, ylim=(0, None))
            axes.set_xticks(amounts, [f"{a:g}" for a in amounts])
            axes.minorticks_off()
    rows[0][0].legend(fontsize="small")
    return [Plot("From too little to enough; dotted: the point of the case study", figure)]


FIGURE = Figure("Load", lambda seeds: min(seeds, SEEDS), compute, shown, plots)
