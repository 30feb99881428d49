"""Which part earns what: each is left out in turn, all else equal; beside QoE always what was reserved.

Drift of opinions and the group's model as a fallback matter where users change, so that these are left out in
a world in which :data:`CHANGED` of the users are somebody else half-way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.experiments.figures import Plot, Table, canvas
from controller.experiments.video.figures.base import SUMMARY, SUMMARY_HEADS, Figure, interval, middle
from controller.experiments.video.figures.base import half as half_of
from controller.experiments.video.schemes import WARM_UP_S
from controller.experiments.video.study import Study, Task, mean

CHANGED: Final = 0.5
BASE: Final = "agents"
PARTS: Final[Mapping[str, str]] = {
    "general-models": "twins: one general model for all",
    "present": "emulation: the present instead of futures",
    "recurrent": "emulation: a recurrent network too",
    "no-prefetch": "caching: nothing prefetched",
    "sla": "level two: reserved by SLA",
    "everything": "level two: everything reserved",
    "reliability-0.5": "level two: demand at 0.5",
    "reliability-0.95": "level two: demand at 0.95",
    "game": "level two: game instead of greedy",
    "grouped": "orchestration: groups greedily, then SLSQP and DP",
    "grouped-equally": "orchestration: equal shares for groups",
    "agents-bdqn": "orchestration: groups by the BDQN",
    "pdrl-l1": "orchestration: users by the five-layer BDQN",
    "round-robin": "orchestration: round robin",
}
"""What is changed, of every scheme in the usual world."""
CHANGES: Final[Mapping[str, str]] = {
    "no-drift": "changed users: no drift detection",
    "no-fallback": "changed users: no group's model as fallback",
    "general-models": "changed users: one general model for all",
}


def of_seed(task: Task) -> dict[str, Any]:
    """Of a seed: summaries by world and scheme."""
    usual = {name: of.summary() for name, of in task.judge(task.spec(), (BASE, *PARTS)).items()}
    half = WARM_UP_S + task.study.judged_s // 2
    runs = task.judge(task.spec(change_s=half, changed=CHANGED), (BASE, *CHANGES))
    return {"usual": usual, "changed": {name: of.summary() for name, of in runs.items()}}


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    seeds = study.each(of_seed, advance)
    out: dict[str, Any] = {}
    for world in ("usual", "changed"):
        rows = [seed[world] for seed in seeds]
        out[world] = {
            name: {
                key: {
                    "of": mean([row[name][key] for row in rows]),
                    "more": mean([row[name][key] - row[BASE][key] for row in rows]),
                }
                for key in SUMMARY
            }
            for name in rows[0]
        }
    return out


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    parts: list[str | Table] = []
    for world, titles in (("usual", PARTS), ("changed", CHANGES)):
        of = result[world]
        parts.append(
            Table(
                f"{'The usual world' if world == 'usual' else f'{CHANGED:.0%} of the users change'}: agents",
                ("", *SUMMARY_HEADS),
                [["agents", *(interval(of[BASE][key]["of"]) for key in SUMMARY)]],
            )
        )
        rows = [
            [title, *(interval(of[name][key]["more"], "+.3f") for key in SUMMARY)]
            for name, title in titles.items()
            if name in of
        ]
        parts.append(Table("Differences from it, seed by seed", ("changed", *SUMMARY_HEADS), rows))
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    of = result["usual"]
    names = [name for name in PARTS if name in of]
    figure, ((*panels,),) = canvas(3, width=3.6, height=4.2)
    keys = (("ratio", "QoE / ELA"), ("kept", "ELA kept"), ("prb", "PRBs reserved"))
    for axes, (key, label) in zip(panels, keys, strict=True):
        rows = [of[name][key]["more"] for name in names]
        axes.errorbar(
            [middle(r) for r in rows],
            range(len(names)),
            xerr=[half_of(r) for r in rows],
            fmt="o",
            color="#2f81c7",
            capsize=2,
        )
        axes.axvline(0.0, color="#5d6873", linewidth=1)
        axes.set(xlabel=f"more {label}")
        axes.set_yticks(range(len(names)), [PARTS[n] for n in names] if axes is panels[0] else [])
        axes.invert_yaxis()
    return [Plot("What changes with each part, against all of them; 95 % intervals over seeds", figure)]


FIGURE = Figure("Which part earns what", lambda seeds: seeds, compute, shown, plots)
