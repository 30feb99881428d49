"""QoE models: how far they are off on held-out time, which factors they find, and distance correlation
against Pearson's.

Users are given rates, bitrates and prefetching at random. The group's and the general model are those of the
other users, as for somebody new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video import opinion
from controller.allocators.video.agent import CHOOSE_ROWS, MAX_GENERAL, factors_of
from controller.allocators.video.groups import GROUPS, group_of
from controller.allocators.video.opinion import COLUMNS, CONTEXT, LEAST_ROWS, QOS, OpinionModel
from controller.experiments.figures import COLOURS, Plot, Table, canvas
from controller.experiments.video.figures.base import Figure, banded, interval
from controller.experiments.video.runs import at_random
from controller.experiments.video.study import Study, Task, mean
from controller.experiments.video.world import Traces, World, draw
from controller.twins.factors import independent_rows, significant
from wire.definitions.viewing import Viewer

FloatArray = NDArray[np.float64]

ROWS: Final = (6, 12, 24, 48, 96, 240)
"""Scores that models are fitted to."""
HELD_OUT: Final = 120
LEVELS: Final = (0.01, 0.05, 0.2)
SOURCES: Final = ("own", "group", "general", "constant", "truth")
KINDS: Final = ("right", "wrong", "missed")
PARTS: Final = {"QoS": frozenset(QOS), "B and C": frozenset(CONTEXT)}


def of_seed(task: Task) -> dict[str, Any]:
    spec = task.spec(duration_s=10 * (ROWS[-1] + HELD_OUT))
    traces = draw(spec, task.seed)
    world, rng = World(traces), np.random.default_rng((task.seed, 2))
    while not world.done:
        world.step(at_random(world, rng))
    known, held_out = world.ratings[:, :-HELD_OUT], world.ratings[:, -HELD_OUT:]
    truth = world.expected[:, -HELD_OUT:]
    latest = [opinion.fit(rows) for rows in known]
    shared = [_shared(known, latest, user) for user in range(spec.users)]
    errors = {
        str(count): _errors(
            [_models(rows[-count:], *s) for rows, s in zip(known, shared, strict=True)], held_out, truth
        )
        for count in ROWS
    }
    found = {
        f"{count}, {level}": _found(traces, [opinion.fit(rows[-count:], level) for rows in known])
        for count in ROWS
        if count >= LEAST_ROWS
        for level in (LEVELS if count == ROWS[-1] else (0.05,))
    }
    return {"errors": errors, "found": found, "screened": _screened(traces, known[:, -96:])}


def _shared(
    known: FloatArray, models: Sequence[OpinionModel], user: int
) -> tuple[OpinionModel, list[OpinionModel]]:
    """The general model of the others, and those of their groups."""
    others = [i for i in range(len(known)) if i != user]
    members = [[i for i in others if group_of(models[i]) == group] for group in range(len(GROUPS))]
    return _pooled(known, others), [_pooled(known, of) for of in members if of]


def _pooled(known: FloatArray, users: Sequence[int]) -> OpinionModel:
    each = max(MAX_GENERAL // len(users), 1)
    return opinion.fit(np.concatenate([known[i, -each:] for i in users]))


def _models(
    rows: FloatArray, general: OpinionModel, groups: Sequence[OpinionModel]
) -> dict[str, OpinionModel | None]:
    """By source; an own model needs some scores."""
    errors = [np.square(m.predict(factors_of(rows)) - rows[:, 0]).mean() for m in groups]
    return {
        "own": opinion.fit(rows) if len(rows) >= LEAST_ROWS else None,
        "group": groups[int(np.argmin(errors))] if len(rows) >= CHOOSE_ROWS else None,
        "general": general,
        "constant": opinion.constant(rows),
    }


def _errors(
    models: Sequence[Mapping[str, OpinionModel | None]], held_out: FloatArray, truth: FloatArray
) -> dict[str, dict[str, float] | None]:
    """Root of the mean squared error over users and time, against scores and against their true means."""
    out: dict[str, dict[str, float] | None] = {}
    scores = held_out[:, :, 0]
    for source in SOURCES:
        if source == "truth":
            predicted = truth
        elif any(of[source] is None for of in models):
            out[source] = None
            continue
        else:
            chosen = [of[source] for of in models]
            predicted = np.stack(
                [m.predict(factors_of(rows)) for m, rows in zip(chosen, held_out, strict=True) if m]
            )
        out[source] = {
            "score": float(np.sqrt(np.square(predicted - scores).mean())),
            "expected": float(np.sqrt(np.square(predicted - truth).mean())),
        }
    return out


def factors(viewer: Viewer) -> frozenset[str]:
    """What a viewer's scores really depend on."""
    service = {"stalls": {"stalled"}, "quality": {"quality"}, "combined": {"stalled", "quality"}}
    context = {name for name, weight in zip(CONTEXT, viewer.weights, strict=True) if weight > 0.0}
    return frozenset(service[viewer.principle] | context)


def _found(traces: Traces, models: Sequence[OpinionModel]) -> dict[str, dict[str, float]]:
    """Factors of a user, in the mean, by part of the model: right, wrong, missed. Delay and throughput, which
    go with stalls and quality, are wrong."""
    out = {}
    for part, names in PARTS.items():
        counts = []
        for viewer, model in zip(traces.viewers, models, strict=True):
            true = factors(viewer) & names
            has = frozenset((*model.structure.qos, *model.structure.context)) & names
            counts.append((len(has & true), len(has - true), len(true - has)))
        out[part] = dict(zip(KINDS, np.mean(counts, axis=0).tolist(), strict=True))
    return out


def _screened(traces: Traces, known: FloatArray) -> dict[str, dict[str, float]]:
    """By method: the part of the true factors that it finds significant, and of the others."""
    names = (*QOS, *CONTEXT)
    out = {}
    for method, screen in (("distance", significant), ("Pearson", pearson)):
        of_true, of_others = [], []
        for viewer, rows in zip(traces.viewers, known, strict=True):
            columns = {name: rows[:, COLUMNS.index(name)] for name in names}
            found, true = frozenset(screen(rows[:, 0], columns)), factors(viewer)
            of_true += [name in found for name in true]
            of_others += [name in found for name in names if name not in true]
        out[method] = {"true": float(np.mean(of_true)), "others": float(np.mean(of_others))}
    return out


def pearson(
    experience: FloatArray, columns: Mapping[str, FloatArray], level: float = 0.05
) -> dict[str, tuple[float, float]]:
    """As :func:`controller.twins.factors.significant`, by Pearson's correlation."""
    from scipy.stats import t

    tested = {}
    for name, column in columns.items():
        known = np.isfinite(column)
        x, y = column[known], experience[known]
        if len(x) < 8 or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
            tested[name] = (0.0, 1.0)
            continue
        r = float(np.clip(np.corrcoef(x, y)[0, 1], -1.0 + 1e-12, 1.0 - 1e-12))
        free = max(independent_rows(x, y) - 2.0, 1.0)
        tested[name] = (abs(r), float(2.0 * t.sf(abs(r) * np.sqrt(free / (1.0 - r * r)), free)))
    chosen = {}
    for place, (name, of) in enumerate(sorted(tested.items(), key=lambda item: item[1][1])):
        if of[1] * (len(tested) - place) > level:
            break
        chosen[name] = of
    return chosen


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    seeds = study.each(of_seed, advance)
    return {
        "errors": {
            count: {
                source: None
                if of is None
                else {key: mean([s["errors"][count][source][key] for s in seeds]) for key in of}
                for source, of in by_source.items()
            }
            for count, by_source in seeds[0]["errors"].items()
        },
        "found": {
            key: {
                part: {kind: mean([s["found"][key][part][kind] for s in seeds]) for kind in KINDS}
                for part in PARTS
            }
            for key in seeds[0]["found"]
        },
        "screened": {
            method: {key: mean([s["screened"][method][key] for s in seeds]) for key in ("true", "others")}
            for method in seeds[0]["screened"]
        },
    }


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    parts: list[str | Table] = []
    for key, caption in (
        ("score", "Error against drawn scores on held-out time (truth: what no model betters)"),
        ("expected", "Error against their true means"),
    ):
        rows = [
            [count, *("-" if of[source] is None else interval(of[source][key]) for source in SOURCES)]
            for count, of in result["errors"].items()
        ]
        parts.append(Table(caption, ("scores", *SOURCES), rows))
    rows = [
        [key, *(interval(of[part][kind], ".2f") for part in PARTS for kind in KINDS)]
        for key, of in result["found"].items()
    ]
    head = ("scores, level", *(f"{part}: {kind}" for part in PARTS for kind in KINDS))
    parts.append(Table("Factors of a user by own models", head, rows))
    rows = [[name, *(interval(of[k]) for k in ("true", "others"))] for name, of in result["screened"].items()]
    parts.append(
        Table(
            "Factors significant at 0.05 of 96 scores, of the true ones and of the others, which may go with"
            " them",
            ("correlation", "true", "others"),
            rows,
        )
    )
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, ((*panels,),) = canvas(2, width=4.2)
    for axes, (key, label) in zip(panels, (("score", "scores"), ("expected", "true means")), strict=True):
        for colour, source in zip(COLOURS, SOURCES, strict=False):
            at = [count for count, of in result["errors"].items() if of[source] is not None]
            if key == "expected" and source == "truth":
                continue
            rows = [result["errors"][count][source][key] for count in at]
            banded(axes, [float(c) for c in at], rows, color=colour, label=source, marker=".")
        axes.set(xscale="log", xlabel="scores", ylabel=f"RMSE against {label}", ylim=(0, None))
        axes.set_xticks([float(c) for c in result["errors"]], list(result["errors"]))
        axes.minorticks_off()
    panels[0].legend(fontsize="small")
    return [Plot("Error of QoE models on held-out time by the scores that they are fitted to", figure)]


FIGURE = Figure("QoE models", lambda seeds: seeds, compute, shown, plots)
