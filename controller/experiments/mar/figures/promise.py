"""Equation (7): of the users who are promised something, how many have it kept on frames not seen.

Four ways to promise, all from a twin's probabilities of hits: Theorem 1 and the exact distribution, which
take frames as independent and the probabilities as right, from the user-agnostic network of the paper's
inputs and from this project's twins; and the learned margin. The last is tried twice: with the predicted
poses of the frames in question, as the paper has it, and as a forecast from the frames before, which is all
that a controller has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from controller.allocators.mar.learning import STRIDE, learn, share_of_hits, was_kept
from controller.allocators.mar.promise import kept, normal_reliability, reliability
from controller.allocators.mar.splits import Kind
from controller.allocators.mar.twin import every
from controller.experiments.figures import COLOURS, Plot, Table, canvas, cell
from controller.experiments.mar.baselines import aggregated, of_network
from controller.experiments.mar.figures.base import Figure, Video

VCHR: Final = (0.7, 0.8, 0.9)
RHO: Final = (0.6, 0.7, 0.8)
SPLITS: Final[tuple[tuple[Kind, int], ...]] = (
    ("temporal", 0),
    ("blocks", 0),
    ("blocks", 1),
    ("random", 0),
    ("random", 1),
)
RULES: Final = {
    "slicing": "one network for all on pose and frequency, Theorem 1",
    "theorem-1": "twins, Theorem 1",
    "exact": "twins, exact Poisson-binomial",
    "margin": "twins, learned margin",
    "forecast": "twins, learned margin, from the frames before",
}


def compute(videos: Sequence[Video], advance: Callable[[str], None]) -> dict[str, Any]:
    epsilon = videos[0].options.epsilon
    counts: dict[tuple[str, str, str], dict[str, float]] = {}
    cases: list[dict[str, Any]] = []
    for video in videos:
        for kind, seed in SPLITS:
            advance(f"{video.name}: promises, {kind} {seed}")
            known, judged = video.split(kind, seed)
            unseen = every(judged, STRIDE)
            problem = video.problem(kind, seed)
            common = of_network(problem, aggregated(problem))[:, :, ::STRIDE]
            for vchr in VCHR:
                options = video.options.model_copy(update={"vchr": vchr})
                twins = learn(video.observed, known, len(judged), video.content, options, seed=seed)
                p = twins.model.hit(twins.probabilities(video.observed, unseen))
                lowest = round(vchr * options.bins)
                p_common = np.clip(common[..., lowest:].sum(axis=-1), 0.0, 1.0)
                before = twins.expected(video.observed, every(known, STRIDE)[-len(unseen) :])
                share = share_of_hits(video.observed.vchr[:, :, judged], vchr)
                for rho in RHO:
                    came = was_kept(np.nan_to_num(share, nan=1.0), rho) > 0.0
                    trust = {
                        "slicing": normal_reliability(p_common, rho),
                        "theorem-1": normal_reliability(p, rho),
                        "exact": reliability(p, rho),
                    }
                    if (margin := twins.margin(rho)) is not None:
                        trust["margin"] = margin.reliability(p.mean(axis=-1), rho)
                    if kind == "temporal" and (margin := twins.margin(rho, ahead=1)) is not None:
                        trust["forecast"] = margin.reliability(before, rho)
                    for rule, r in trust.items():
                        promised = kept(np.nan_to_num(r, nan=0.0), epsilon)
                        accepted = promised.any(axis=1)
                        met = came[np.arange(len(came)), promised.argmax(axis=1)] & accepted
                        total = counts.setdefault(
                            (video.name, kind, rule), {"promised": 0, "met": 0, "servable": 0, "cases": 0}
                        )
                        total["promised"] += int(accepted.sum())
                        total["met"] += int(met.sum())
                        total["servable"] += int(came.any(axis=1).sum())
                        total["cases"] += len(came)
                        if (vchr, rho) == (video.options.vchr, video.options.rho):
                            cases.append(
                                {
                                    "video": video.name,
                                    "split": kind,
                                    "seed": seed,
                                    "rule": rule,
                                    "promised": int(accepted.sum()),
                                    "met": int(met.sum()),
                                    "servable": int(came.any(axis=1).sum()),
                                }
                            )
    rows = [{"video": v, "split": k, "rule": r, **c} for (v, k, r), c in counts.items()]
    return {"epsilon": epsilon, "vchr": VCHR, "rho": RHO, "rows": rows, "default": cases}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    def rows(of: Sequence[Mapping[str, Any]]) -> list[list[str]]:
        return [
            [
                " ".join(str(row[key]) for key in ("video", "split", "seed") if key in row),
                RULES[row["rule"]],
                str(row["promised"]),
                str(row["met"]),
                cell(row["met"] / row["promised"] if row["promised"] else None),
                str(row["servable"]),
            ]
            for row in of
        ]

    heads = ["video, split", "rule", "promised", "kept", "share kept", "could be served"]
    return [
        f"Of the users who are promised something at epsilon {result['epsilon']:g}, those who had it kept at"
        " the lowest frequency that was promised, on frames that the twins never saw; beside them all who"
        " could have been served at some frequency, in hindsight.",
        Table(
            f"Sums over V {', '.join(f'{v:g}' for v in result['vchr'])} and rho"
            f" {', '.join(f'{v:g}' for v in result['rho'])}",
            heads,
            rows(result["rows"]),
        ),
        Table("At the service's defaults", heads, rows(result["default"])),
    ]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    places = sorted({(row["video"], row["split"]) for row in result["rows"]})
    figure, axes = canvas(1, width=9.0, height=3.6)
    axis = axes[0][0]
    width = 0.8 / len(RULES)
    for k, rule in enumerate(RULES):
        of = {(r["video"], r["split"]): r for r in result["rows"] if r["rule"] == rule and r["promised"]}
        at = [i + k * width for i, place in enumerate(places) if place in of]
        axis.bar(
            at,
            [of[place]["met"] / of[place]["promised"] for place in places if place in of],
            width,
            color=COLOURS[k],
            label=RULES[rule],
        )
    axis.axhline(result["epsilon"], color=COLOURS[5], linewidth=0.8)
    axis.set_xticks([i + 0.3 for i in range(len(places))], [f"{v}\n{s}" for v, s in places])
    axis.set_ylim(0.4, 1.0)
    axis.set_ylabel("share of promises kept")
    axis.legend(fontsize=7, loc="lower right")
    return [Plot("Promises kept on frames not seen; the line is epsilon", figure)]


FIGURE = Figure("The promise itself (equations 7 and 12)", lambda n: n * len(SPLITS), compute, shown, plots)
