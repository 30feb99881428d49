"""Regret: orchestration by networks, by gain, by equal shares and by who knows all, against a bound that
nobody betters (:mod:`controller.experiments.video.clairvoyant`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from controller.experiments.figures import COLOURS, Plot, Table, canvas
from controller.experiments.video.clairvoyant import regrets
from controller.experiments.video.figures.base import Figure, half, interval, middle
from controller.experiments.video.study import TYPICAL_USERS, Study
from controller.experiments.video.world import WorldSpec

SEEDS: Final = 5
"""At most: the bound of a run is a large linear program."""
LEARN_S: Final = 600
JUDGED_S: Final = 900
PRB: Final = (25, 50)
HEADS: Final = ("gain", "of drawn scores", "scores that keep the ELA", "regret", "over greedy")
KEYS: Final = ("gain", "drawn", "kept", "regret", "over_greedy")


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    networks = {kind: Path(file).read_bytes() for kind, file in study.networks.items()}
    seeds = range(min(study.seeds, SEEDS))
    judged_s = min(JUDGED_S, study.judged_s)
    out = {}
    for prb in PRB:
        spec = WorldSpec(users=TYPICAL_USERS, duration_s=LEARN_S + judged_s, prb=prb)
        of = regrets(seeds, spec, networks, LEARN_S, study.workers)
        out[str(prb)] = {key: of[key] for key in ("run_bound", "step_bound", "schemes")}
        advance(f"{prb} PRB")
    return out


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    parts: list[str | Table] = []
    for prb, of in result.items():
        rows = [
            [name, *(interval(values[key], "+.4f" if key == "over_greedy" else ".4f") for key in KEYS)]
            for name, values in of["schemes"].items()
        ]
        caption = f"{prb} PRB a station; no scheme gains more than {interval(of['run_bound'], '.4f')}"
        parts.append(Table(caption, ("orchestration", *HEADS), rows))
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, ((*panels,),) = canvas(len(result), width=4.2)
    for axes, (prb, of) in zip(panels, result.items(), strict=True):
        names = list(of["schemes"])
        rows = [of["schemes"][name]["regret"] for name in names]
        axes.bar(names, [middle(r) for r in rows], yerr=[half(r) for r in rows], color=COLOURS[0], capsize=3)
        axes.set(ylabel="regret in mean gain", title=f"{prb} PRB a station")
        axes.tick_params(axis="x", rotation=60)
    return [Plot("Regret against the bound of the run", figure)]


FIGURE = Figure("Regret of orchestration", lambda seeds: len(PRB), compute, shown, plots)
