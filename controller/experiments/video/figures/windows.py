"""Slice windows: how dynamics are distributed, which windows are chosen, and what adaptive ones earn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from controller.experiments.figures import COLOURS, Plot, Table, canvas
from controller.experiments.video.figures.base import SUMMARY, SUMMARY_HEADS, Figure, interval, summary_row
from controller.experiments.video.schemes import STEP_S, TUNING, WARM_UP_S
from controller.experiments.video.study import Study, Task, judged, mean, means
from controller.twins.slice.windows import WINDOWS_MIN

ADAPTIVE: Final = "agents"
FIXED: Final = {f"window-{minutes}": f"{minutes} min" for minutes in WINDOWS_MIN}


def of_seed(task: Task) -> dict[str, Any]:
    """Of a seed: summaries by scheme, and the adaptive windows' dynamics and steps."""
    # Twice the usual time: the longest window is half of that.
    spec = task.spec(duration_s=WARM_UP_S + 2 * task.study.judged_s)
    runs = task.play(spec, (ADAPTIVE, *FIXED))
    # All that was seen on the way, of windows of every length.
    index = [w.dynamics for campus in runs.values() for w in campus.windows]
    chosen = [w.steps * STEP_S // 60 for w in runs[ADAPTIVE].windows[:-1]]
    return {
        "summaries": {name: judged(campus).summary() for name, campus in runs.items()},
        "index": index,
        "chosen": chosen,
    }


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    seeds = study.each(of_seed, advance)
    index = np.concatenate([s["index"] for s in seeds])
    chosen = [minutes for s in seeds for minutes in s["chosen"]]
    more = {
        name: {
            key: mean([s["summaries"][ADAPTIVE][key] - s["summaries"][name][key] for s in seeds])
            for key in SUMMARY
        }
        for name in FIXED
    }
    return {
        "thresholds": list(TUNING.thresholds),
        "index": np.sort(index).tolist(),
        "chosen": {str(minutes): chosen.count(minutes) for minutes in WINDOWS_MIN},
        "schemes": {name: means([s["summaries"][name] for s in seeds]) for name in (ADAPTIVE, *FIXED)},
        "adaptive_over": more,
    }


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    index = result["index"]
    quantiles = ", ".join(f"{np.quantile(index, q):.3f}" for q in (0.0, 0.25, 0.5, 0.75, 1.0))
    chosen = ", ".join(f"{minutes} min {count}" for minutes, count in result["chosen"].items())
    return [
        f"Dynamics: quartiles {quantiles}; thresholds {', '.join(map(str, result['thresholds']))}. Windows"
        f" chosen: {chosen}.",
        Table(
            "Windows",
            ("window", *SUMMARY_HEADS),
            [summary_row(FIXED.get(name, "adaptive"), of) for name, of in result["schemes"].items()],
        ),
        Table(
            "Adaptive windows less fixed ones, seed by seed",
            ("fixed", *SUMMARY_HEADS),
            [
                [FIXED[name], *(interval(of[key], "+.4f") for key in SUMMARY)]
                for name, of in result["adaptive_over"].items()
            ],
        ),
    ]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, ((left, right),) = canvas(2, width=4.0)
    index = result["index"]
    left.plot(index, (np.arange(len(index)) + 1) / len(index), color=COLOURS[0], drawstyle="steps-post")
    for threshold in result["thresholds"]:
        left.axvline(threshold, color="#5d6873", linestyle=":", linewidth=1)
    left.set(xlabel="index of dynamics", ylabel="CDF over windows", ylim=(0, 1))
    right.bar(list(result["chosen"]), list(result["chosen"].values()), color=COLOURS[0])
    right.set(xlabel="window in minutes", ylabel="chosen so often")
    return [Plot("Dynamics with the thresholds between the stages, and the windows chosen", figure)]


FIGURE = Figure("Slice windows and dynamics", lambda seeds: seeds, compute, shown, plots)
