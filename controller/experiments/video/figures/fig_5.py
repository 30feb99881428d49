"""Figure 5: the CDF of the ELA achievable ratio, box plots of QoE, and a verdict on each sentence of the
discussion.

"The proportion of user QoE over ELA in each slicing window" has two readings: QoE / ELA, and the share of the
scores that are the ELA or more. Both are drawn.
"""

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
    middle,
    summary_row,
)
from controller.experiments.video.study import Study, Task, ceiling, mean, means
from controller.experiments.video.verdicts import PROPOSED, RATIOS, measures, verdicts
from wire.definitions import mos

READINGS: Final = {"ratio": "QoE / ELA", "share": "share of scores that keep the ELA"}
BDQN: Final = "agents-bdqn"


def of_seed(task: Task) -> dict[str, Any]:
    """Of a seed: by reading and scheme the measures, by number of users and scheme a summary."""
    runs = {users: task.judge(task.spec(users), SHOWN) for users in task.study.users}
    names = list(next(iter(runs.values())))
    readings = {
        reading: {
            name: measures(
                np.concatenate([getattr(of[name], reading).ravel() for of in runs.values()]),
                np.concatenate([of[name].each.ravel() for of in runs.values()]),
            )
            for name in names
        }
        for reading in READINGS
    }
    possible = np.mean([of[names[0]].possible.mean() for of in runs.values()])
    return {
        "readings": readings,
        "users": {str(users): {n: of[n].summary() for n in names} for users, of in runs.items()},
        "possible": float(possible),
    }


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    seeds = study.each(of_seed, advance)
    names = list(seeds[0]["readings"]["ratio"])
    curves = {
        reading: {
            name: {
                "cdf": [
                    mean([float(s["readings"][reading][name]["cdf"][i]) for s in seeds])
                    for i in range(len(RATIOS))
                ],
                "mean": mean([s["readings"][reading][name]["mean"] for s in seeds]),
            }
            for name in names
        }
        for reading in READINGS
    }
    boxes = {
        name: {
            "box": [mean([s["readings"]["ratio"][name]["box"][i] for s in seeds]) for i in range(5)],
            "iqr": mean([s["readings"]["ratio"][name]["iqr"] for s in seeds]),
        }
        for name in names
    }
    told = {
        f"{reading}, {proposed}": verdicts([s["readings"][reading] for s in seeds], proposed)
        for proposed in (PROPOSED, BDQN)
        if proposed in names
        for reading in READINGS
    }
    return {
        "users": list(study.users),
        "at": RATIOS.tolist(),
        "curves": curves,
        "boxes": boxes,
        "verdicts": told,
        "by_users": {
            str(users): {name: means([s["users"][str(users)][name] for s in seeds]) for name in names}
            for users in study.users
        },
        "possible": mean([s["possible"] for s in seeds]),
        "ceilings": {principle: ceiling(principle) for principle in mos.PRINCIPLES},
        "missing": [name for name in SHOWN if name not in names],
    }


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    parts: list[str | Table] = []
    ends = ", ".join(f"{mean:.2f} ({name})" for name, mean in result["ceilings"].items())
    parts.append(
        f"Scores end at 5, so that their mean has a ceiling: {ends}. With B and C on top an ELA can be kept"
        f" in {interval(result['possible'], '.1f', 100.0)} % of users' windows, whatever anybody is given."
    )
    if result["missing"]:
        parts.append(f"No networks: {', '.join(result['missing'])} were not run.")
    for users, of in result["by_users"].items():
        rows = [summary_row(SHOWN[name], values) for name, values in of.items()]
        parts.append(Table(f"{users} users", ("scheme", *SUMMARY_HEADS), rows))
    parts.append(
        Table(
            "Real-time QoE",
            ("scheme", "median", "25 %", "75 %", "IQR"),
            [
                [SHOWN[name], *(interval(of["box"][i]) for i in (2, 1, 3)), interval(of["iqr"])]
                for name, of in result["boxes"].items()
            ],
        )
    )
    for key, told in result["verdicts"].items():
        reading, proposed = key.split(", ")
        rows = [[v["sentence"], v["figure"], v["holds"]] for v in told]
        caption = f"Verdicts; (a) read as {READINGS[reading]}; proposed: {SHOWN[proposed]}"
        parts.append(Table(caption, ("sentence", "figure", "holds"), rows))
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, ((*panels,),) = canvas(len(READINGS), width=4.6, height=3.6)
    for axes, (reading, of) in zip(panels, result["curves"].items(), strict=True):
        for name, curve in of.items():
            options = {"color": COLOUR[name], "label": SHOWN[name], "drawstyle": "steps-post"}
            banded(axes, result["at"], curve["cdf"], **options)
        axes.set(xlabel=READINGS[reading], ylabel="CDF over users' windows", ylim=(0, 1))
        axes.set_xlim(0, 1 if reading == "share" else RATIOS[-1])
    panels[0].legend(fontsize="small")
    boxes, ((axes,),) = canvas(1, width=5.6, height=3.4)
    stats = []
    for of in result["boxes"].values():
        low, q1, med, q3, high = (middle(x) for x in of["box"])
        stats.append({"whislo": low, "q1": q1, "med": med, "q3": q3, "whishi": high, "fliers": []})
    drawn = axes.bxp(stats, showfliers=False, patch_artist=True)
    for patch, name in zip(drawn["boxes"], result["boxes"], strict=True):
        patch.set(facecolor=COLOUR[name], alpha=0.5)
    axes.set_xticks(range(1, len(stats) + 1), [SHOWN[name] for name in result["boxes"]], fontsize="small")
    axes.set(ylabel="score, 1 to 5")
    return [
        Plot("(a) CDF of the ELA achievable ratio, both readings; bands: 95 % intervals over seeds", figure),
        Plot("(b) Real-time QoE: quartiles, and 5 and 95 %, means over seeds", boxes),
    ]


FIGURE = Figure("ELA achievable ratio and real-time QoE", lambda seeds: seeds, compute, shown, plots)
