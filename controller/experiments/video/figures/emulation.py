"""Emulation on held-out time: the finite-state machine and the recurrent network by the logarithmic score,
futures of B and C by the continuous ranked probability score (CRPS), beside what always was and what is now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.emulation import EDGES, STATES, STEP_S
from controller.experiments.figures import COLOURS, Plot, Table, canvas
from controller.experiments.video.figures.base import Figure, banded, interval
from controller.experiments.video.study import Study, Task, mean
from controller.experiments.video.world import draw
from controller.twins.environment import NeighbourBootstrap, crps
from controller.twins.markov import MarkovChain
from controller.twins.recurrent import RecurrentNetwork, better
from wire.definitions import mos

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

HISTORY_MIN: Final = (30, 120)
HELD_OUT_MIN: Final = 30
LEADS: Final = (1, 2, 6, 18)
"""Steps ahead."""
ORIGINS: Final = 6
"""Steps between two times from which futures are emulated."""
FUTURES: Final = 64
BEHAVIOUR: Final = ("state machine", "network", "what always was", "what is now")
ENVIRONMENT: Final = ("bootstrap", "what always was", "what is now")


def of_seed(task: Task) -> dict[str, Any]:
    """Of a seed, by minutes of history: log scores in nat a step, CRPS by method and lead."""
    longest = HISTORY_MIN[-1]
    traces = draw(task.spec(duration_s=60 * (longest + HELD_OUT_MIN)), task.seed)
    every = int(STEP_S)
    swipes, environment = traces.swipes_per_min[:, every::every], traces.environment[:, every::every]
    states = np.searchsorted(EDGES, swipes, side="right").astype(np.int64)
    held_out = HELD_OUT_MIN * 60 // every
    out = {}
    for minutes in HISTORY_MIN:
        begin = states.shape[1] - held_out - minutes * 60 // every
        parts = (states[:, begin:], swipes[:, begin:], environment[:, begin:])
        out[str(minutes)] = _scored(*parts, held_out, task.seed)
    return out


def _scored(
    states: IntArray, swipes: FloatArray, environment: FloatArray, held_out: int, seed: int
) -> dict[str, Any]:
    since = states.shape[1] - held_out
    rng = np.random.default_rng((seed, 4))
    past = states[:, :since]
    pooled = MarkovChain.fit(past, STATES)
    chains = [MarkovChain.fit([s], STATES, pooled) for s in past]
    network = RecurrentNetwork.fit(list(past), STATES, seed=seed)
    usual = np.array([np.bincount(s, minlength=STATES) + 1.0 for s in past])
    usual /= usual.sum(axis=1, keepdims=True)
    after = states[:, since:]
    log = {
        "state machine": _log(
            np.stack([c.scores(s)[since - 1 :] for c, s in zip(chains, states, strict=True)])
        ),
        "pooled machine": _log(np.stack([pooled.scores(s)[since - 1 :] for s in states])),
        "network": _log(np.stack([network.scores(s)[since - 1 :] for s in states])),
        "what always was": _log(np.log(np.take_along_axis(usual, after, axis=1))),
    }
    of_state = np.array(
        [swipes[:, :since][past == k].mean() if (past == k).any() else 6.0 for k in range(STATES)]
    )
    bootstrap = NeighbourBootstrap.fit(environment[:, :since])
    behaviour = mos.behaviour(swipes)
    found: dict[str, dict[str, list[FloatArray]]] = {
        "behaviour": {name: [] for name in BEHAVIOUR},
        "environment": {name: [] for name in ENVIRONMENT},
    }
    at = np.array(LEADS)
    origins = range(since - 1, states.shape[1] - LEADS[-1], ORIGINS)
    spread = np.linspace(0, since - 1, FUTURES).astype(np.int64)
    for origin in origins:
        seen_b, seen_c = behaviour[:, origin + at], environment[:, origin + at]
        machine = np.stack(
            [c.simulate(rng, int(s[origin]), LEADS[-1], FUTURES) for c, s in zip(chains, states, strict=True)]
        )
        hidden = np.stack([network.hidden(s[: origin + 1]) for s in states])
        recurrent = network.simulate(rng, hidden, LEADS[-1], FUTURES)
        for name, simulated in (("state machine", machine), ("network", recurrent)):
            ahead = mos.behaviour(of_state[simulated[:, :, at - 1]]).transpose(0, 2, 1)
            found["behaviour"][name].append(crps(ahead, seen_b))
        ahead = np.clip(
            bootstrap.simulate(rng, environment[:, origin], LEADS[-1], FUTURES), *mos.FACTOR_RANGE
        )
        found["environment"]["bootstrap"].append(crps(ahead[:, :, at - 1].transpose(0, 2, 1), seen_c))
        for key, series, seen in (("behaviour", behaviour, seen_b), ("environment", environment, seen_c)):
            always = np.broadcast_to(series[:, None, spread], (*seen.shape, FUTURES))
            found[key]["what always was"].append(crps(always, seen))
            found[key]["what is now"].append(np.abs(series[:, [origin]] - seen))
    comparison = better(chains, network, list(states), since)
    return {
        "log": log,
        "gain": comparison.gain,
        "chosen": float(comparison.network),
        **{
            key: {name: np.mean(values, axis=(0, 1)).tolist() for name, values in of.items()}
            for key, of in found.items()
        },
    }


def _log(scores: FloatArray) -> float:
    return float(np.nanmean(scores))


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    seeds = study.each(of_seed, advance)
    out: dict[str, Any] = {}
    for minutes in map(str, HISTORY_MIN):
        rows = [seed[minutes] for seed in seeds]
        out[minutes] = {
            "log": {name: mean([r["log"][name] for r in rows]) for name in rows[0]["log"]},
            "gain": mean([r["gain"] for r in rows]),
            "chosen": mean([r["chosen"] for r in rows]),
            **{
                key: {
                    name: [mean([r[key][name][i] for r in rows]) for i in range(len(LEADS))]
                    for name in rows[0][key]
                }
                for key in ("behaviour", "environment")
            },
        }
    return out


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    parts: list[str | Table] = []
    names = list(next(iter(result.values()))["log"])
    rows = [
        [
            minutes,
            *(interval(of["log"][name]) for name in names),
            interval(of["gain"], "+.3f"),
            interval(of["chosen"], ".2f"),
        ]
        for minutes, of in result.items()
    ]
    head = ("minutes of history", *names, "network over machine", "network chosen")
    parts.append(Table("Behaviour a step of 30 s ahead: log score in nat, 0 is perfect", head, rows))
    heads = [f"{lead * STEP_S:.0f} s" for lead in LEADS]
    for key, title in (("behaviour", "B"), ("environment", "C")):
        rows = [
            [f"{minutes} min, {name}", *(interval(x, ".4f") for x in values)]
            for minutes, of in result.items()
            for name, values in of[key].items()
        ]
        parts.append(Table(f"CRPS of {title} by lead", ("history, method", *heads), rows))
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, ((*panels,),) = canvas(2, width=4.2)
    of = result[str(HISTORY_MIN[-1])]
    at = [lead * STEP_S for lead in LEADS]
    for axes, (key, title) in zip(panels, (("behaviour", "B"), ("environment", "C")), strict=True):
        for colour, (name, values) in zip(COLOURS, of[key].items(), strict=False):
            banded(axes, at, values, color=colour, label=name, marker=".")
        axes.set(xlabel="seconds ahead", ylabel=f"CRPS of {title}", ylim=(0, None))
        axes.legend(fontsize="small")
    return [Plot(f"Futures after {HISTORY_MIN[-1]} min of history", figure)]


FIGURE = Figure("Emulation on held-out time", lambda seeds: seeds, compute, shown, plots)
