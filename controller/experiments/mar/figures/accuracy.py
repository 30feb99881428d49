"""Figure 4: how well models foretell VCHR on frames that they have not seen, by how the frames were split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, Final

import numpy as np

from controller.allocators.mar.splits import KINDS, Kind
from controller.allocators.mar.twin import PRIOR_WEIGHT
from controller.experiments.figures import COLOURS, Plot, Table, canvas, cell
from controller.experiments.mar import baselines
from controller.experiments.mar.baselines import METRICS, PERSONAL_TRAINING, Problem, Scores, score
from controller.experiments.mar.figures.base import Figure, Video
from wire.definitions.poses import FloatArray

SEEDS: Final[Mapping[Kind, tuple[int, ...]]] = {"temporal": (0,), "blocks": (0, 1, 2), "random": (0, 1, 2)}
OF_PAPER: Final = (0, 2)
"""The users whose frames the paper's Figure 4 has, User 1 and User 3; the last where there are fewer."""
TWINS: Final = "twins"
PRIOR_WEIGHTS: Final = (inf, 100.0, PRIOR_WEIGHT, 0.0)
OFFSET_PENALTIES: Final = (0.01, 0.03, 0.1, 0.3, 1.0)
LESS_TRAINING: Final = (
    replace(PERSONAL_TRAINING, steps=300, decay=1e-2),
    replace(PERSONAL_TRAINING, steps=150, decay=1e-1),
)


def compute(videos: Sequence[Video], advance: Callable[[str], None]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for video in videos:
        splits: dict[str, Any] = {}
        for kind in KINDS:
            runs = []
            for seed in SEEDS[kind]:
                runs.append(_run(video, kind, seed))
                advance(f"accuracy {video.name}, {kind} split {seed}")
            splits[kind] = _averaged([run for run, _ in runs])
            if kind == "temporal":
                scores = runs[0][1]
        problem = video.problem("temporal")
        result[video.name] = {
            "users": video.observed.users,
            "splits": splits,
            "paired": _paired(scores),
            "reliability": _reliability(problem, video.twins("temporal")),
            "variants": _variants(problem),
        }
        advance(f"accuracy {video.name}, variants")
    return result


def _run(video: Video, kind: Kind, seed: int) -> tuple[dict[str, Any], dict[str, Scores]]:
    problem = video.problem(kind, seed)
    users = video.observed.users
    networks = baselines.personal(problem)
    everybody = baselines.of_network(problem, baselines.aggregated(problem))
    own = np.empty_like(everybody)
    table, strength = baselines.table(problem)
    best_table, best_strength = baselines.table_in_hindsight(problem)
    first, other = OF_PAPER[0], min(OF_PAPER[1], users - 1)
    right_of_others = []
    for user, network in enumerate(networks):
        said = baselines.of_network(problem, network)
        own[user] = said[user]
        by_user = _right(problem, said)
        if users > 1:
            right_of_others.append(np.nanmean(np.delete(by_user, user)))
        if user == first:
            of_first = [by_user[first], by_user[other], score(problem, said).accuracy]
    scores = {
        name: score(problem, p)
        for name, p in {
            "majority class": baselines.common(problem),
            "mean VCHR of the frequency": baselines.by_frequency(problem),
            "table of user and frequency": table,
            "the same, strength in hindsight": best_table,
            "personal network (paper)": own,
            "aggregated network (slicing)": everybody,
            TWINS: video.twins(kind, seed),
        }.items()
    }
    of_all = _right(problem, everybody)
    ours, mine = _right(problem, video.twins(kind, seed)), _right(problem, own)
    run = {
        "train": len(problem.train),
        "test": len(problem.test),
        "table_strength": strength,
        "table_strength_in_hindsight": best_strength,
        "models": {name: s.plain() for name, s in scores.items()},
        "paper": {
            "personal": [float(v) for v in of_first],
            "aggregated": [
                float(of_all[first]),
                float(of_all[other]),
                float(scores["aggregated network (slicing)"].accuracy),
            ],
            TWINS: [float(ours[first]), float(ours[other]), float(scores[TWINS].accuracy)],
        },
        "personal_minus_aggregated": {
            "own": float(np.nanmean(mine - of_all)),
            "others": float(np.nanmean(right_of_others) - np.nanmean(of_all)) if right_of_others else None,
        },
    }
    return run, scores


def _right(problem: Problem, probabilities: FloatArray) -> FloatArray:
    """Accuracy on each user's test frames; NaN where nothing was to be rendered."""
    outcome = problem.outcome(problem.test)
    users = len(outcome)
    judged = (outcome >= 0).reshape(users, -1)
    right = (probabilities.argmax(axis=-1) == outcome).reshape(users, -1)
    count = judged.sum(axis=1)
    return np.where(count > 0, right.sum(axis=1) / np.maximum(count, 1), np.nan)


def _averaged(runs: Sequence[Any]) -> Any:
    """Means of numbers over runs, in dicts and lists alike; None where one is not known."""
    if isinstance(runs[0], dict):
        return {key: _averaged([run[key] for run in runs]) for key in runs[0]}
    if isinstance(runs[0], list):
        return [_averaged(list(of)) for of in zip(*runs, strict=True)]
    if any(value is None or value != value for value in runs):
        return None
    return sum(runs) / len(runs)


def _paired(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """The twins against each baseline: log loss of each user, Wilcoxon's signed-rank test, two-sided."""
    from scipy.stats import wilcoxon

    result = {}
    for name, of in scores.items():
        if name == TWINS:
            continue
        gain = of.by_user - scores[TWINS].by_user
        gain = gain[np.isfinite(gain)]
        result[name] = {
            "users": len(gain),
            "better": int((gain > 0).sum()),
            "gain": float(gain.mean()),
            "p": float(wilcoxon(gain).pvalue) if (gain != 0).any() else 1.0,
        }
    return result


def _reliability(problem: Problem, probabilities: FloatArray) -> dict[str, Any]:
    outcome = problem.outcome(problem.test)
    judged = outcome >= 0
    first_hit = int(np.searchsorted(problem.edges, problem.options.vchr - 1e-9))
    hit = probabilities[..., first_hit:].sum(axis=-1)[judged]
    likeliest = probabilities.max(axis=-1)[judged]
    return {
        "hit": baselines.reliability(hit, outcome[judged] >= first_hit),
        "likeliest": baselines.reliability(likeliest, (probabilities.argmax(axis=-1) == outcome)[judged]),
        "vchr": problem.options.vchr,
    }


def _variants(problem: Problem) -> list[dict[str, Any]]:
    """What is personal, one by one, on the temporal split."""
    rows: list[dict[str, Any]] = []

    def add(name: str, p: FloatArray) -> None:
        rows.append({"variant": name, **score(problem, p).plain()})

    for weight in PRIOR_WEIGHTS:
        variant = baselines.variant(problem, weight)
        own = "no error is personal" if weight == inf else "all errors are" if weight == 0 else ""
        add(f"twins, everybody's errors weigh {weight:g}{f' ({own})' if own else ''}", variant.probabilities)
        if weight == PRIOR_WEIGHT:
            for penalty in OFFSET_PENALTIES:
                add(
                    f"the same with personal offsets of the logits, penalty {penalty:g}",
                    baselines.with_offsets(variant, penalty),
                )
    for training in LESS_TRAINING:
        networks = baselines.personal(problem, training)
        own_frames = np.stack([baselines.of_network(problem, n)[u] for u, n in enumerate(networks)])
        add(f"personal network, {training.steps} steps, weight decay {training.decay:g}", own_frames)
    return rows


_HEADS: Final = {
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "calibration_error": "ECE",
    "hit_calibration_error": "ECE of P(hit)",
}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    parts: list[str | Table] = [
        "Log loss in nats. ECE: expected calibration error, of the likeliest bin, and of the probability that"
        " VCHR is at least V. Random and blocked splits are means over seeds"
        f" {', '.join(str(s) for s in SEEDS['random'])}."
    ]
    for name, of in result.items():
        for kind in KINDS:
            split = of["splits"][kind]
            parts.append(
                Table(
                    f"{name}, {kind} split, {of['users']} users: frames that the models have not seen",
                    ["model", *_HEADS.values()],
                    [[m, *(cell(s[k]) for k in METRICS)] for m, s in split["models"].items()],
                )
            )
        first, other = OF_PAPER[0], min(OF_PAPER[1], of["users"] - 1)
        parts.append(
            Table(
                f"{name}: accuracy as in the paper's Fig. 4 (personal: the network of user {first})",
                ["split", "model", f"user {first}", f"user {other}", "all"],
                [
                    [kind, model, *(cell(v) for v in values)]
                    for kind in KINDS
                    for model, values in of["splits"][kind]["paper"].items()
                ],
            )
        )
        parts.append(
            Table(
                f"{name}: accuracy of the personal less that of the aggregated network, mean over all users",
                ["split", "on its own user", "on the others"],
                [
                    [
                        kind,
                        *(
                            cell(of["splits"][kind]["personal_minus_aggregated"][k], "+.3f")
                            for k in ("own", "others")
                        ),
                    ]
                    for kind in KINDS
                ],
            )
        )
        parts.append(
            Table(
                f"{name}, temporal split: log loss of each baseline less the twins', user by user (Wilcoxon)",
                ["baseline", "mean gain", "users better", "p"],
                [
                    [m, cell(t["gain"], "+.3f"), f"{t['better']} of {t['users']}", cell(t["p"], ".2g")]
                    for m, t in of["paired"].items()
                ],
            )
        )
        parts.append(
            Table(
                f"{name}, temporal split: what is personal",
                ["variant", *_HEADS.values()],
                [[v["variant"], *(cell(v[k]) for k in METRICS)] for v in of["variants"]],
            )
        )
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    drawn = []
    for name, of in result.items():
        figure, axes = canvas(len(KINDS), width=3.2)
        first, other = OF_PAPER[0], min(OF_PAPER[1], of["users"] - 1)
        for axis, kind in zip(axes[0], KINDS, strict=True):
            split = of["splits"][kind]
            for k, (model, values) in enumerate(split["paper"].items()):
                heights = [0.0 if v is None else v for v in values]
                axis.bar(np.arange(3) + 0.27 * (k - 1), heights, 0.25, color=COLOURS[k], label=model)
            axis.axhline(
                split["models"]["majority class"]["accuracy"], color=COLOURS[5], label="majority class, all"
            )
            axis.set_xticks(range(3), [f"user {first}", f"user {other}", "all"])
            axis.set_ylim(0, 1)
            axis.set_title(f"{kind} split")
        axes[0][0].set_ylabel("accuracy")
        axes[0][-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.03))
        drawn.append(Plot(f"{name}: accuracy as in the paper's Fig. 4, by split", figure))
    figure, axes = canvas(len(result))
    for axis, (name, of) in zip(axes[0], result.items(), strict=True):
        axis.plot([0, 1], [0, 1], color=COLOURS[5], linewidth=0.8)
        labels = {"hit": f"VCHR at least {of['reliability']['vchr']:g}", "likeliest": "the likeliest bin"}
        for k, (key, label) in enumerate(labels.items()):
            p, came, _ = zip(*of["reliability"][key], strict=True)
            axis.plot(p, came, "o-", color=COLOURS[k], label=label)
        axis.set_xlabel("probability, by the twins")
        axis.set_title(name)
    axes[0][0].set_ylabel("share of frames in which it came")
    axes[0][0].legend(fontsize=8)
    drawn.append(Plot("Reliability diagram of the twins, temporal split", figure))
    figure, axes = canvas(len(result), width=4.2)
    for axis, (name, of) in zip(axes[0], result.items(), strict=True):
        models = list(of["splits"]["temporal"]["models"])
        for k, kind in enumerate(KINDS):
            losses = [of["splits"][kind]["models"][m]["log_loss"] for m in models]
            axis.barh(np.arange(len(models)) + 0.27 * (1 - k), losses, 0.25, color=COLOURS[k], label=kind)
        axis.set_yticks(range(len(models)), models if axis is axes[0][0] else [""] * len(models))
        axis.invert_yaxis()
        axis.set_xlabel("log loss, nats")
        axis.set_title(name)
    axes[0][-1].legend(fontsize=8)
    drawn.append(Plot("Log loss of all models, by split", figure))
    return drawn


FIGURE = Figure(
    "Models of VCHR on frames that they have not seen (Fig. 4)",
    lambda n: n * (sum(len(s) for s in SEEDS.values()) + 1),
    compute,
    shown,
    plots,
)
