"""Figure 2: what a twin says of one user's VCHR, against what came, on seconds that it had not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from controller.experiments.figures import COLOURS, Plot, Table, canvas, cell, plain
from controller.experiments.mar.baselines import counts
from controller.experiments.mar.figures.base import Figure, Video, hertz

USER = 6
"""The paper's User 7; the last one where there are fewer."""


def compute(videos: Sequence[Video], advance: Callable[[str], None]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for video in videos:
        problem = video.problem("temporal")
        user = min(USER, video.observed.users - 1)
        outcome = problem.outcome(problem.test)
        p = video.twins("temporal")[user]
        known = outcome[user] >= 0
        count = np.maximum(known.sum(axis=-1), 1)[:, None]
        true = counts(outcome[user], problem.bins) / count
        predicted = np.where(known[..., None], p, 0.0).sum(axis=1) / count
        middle = (problem.edges[:-1] + np.minimum(problem.edges[1:], 1.0)) / 2
        result[video.name] = {
            "user": user,
            "frames": int(known.sum()),
            "upload_hz": list(video.observed.upload_hz),
            "edges": plain(np.minimum(problem.edges, 1.0)),
            "predicted": plain(predicted),
            "true": plain(true),
            "total_variation": plain(0.5 * np.abs(predicted - true).sum(axis=-1)),
            "mean_predicted": plain(predicted @ middle),
            "mean_true": plain(true @ middle),
        }
        advance(f"distribution {video.name}")
    return result


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    parts: list[str | Table] = [
        "The twin is learned from the first two thirds of the frames and asked about the last third."
    ]
    for name, of in result.items():
        edges = of["edges"]
        rows = [
            [
                f"{low:.2f} to {high:.2f}",
                *(f"{p[k]:.2f} / {t[k]:.2f}" for p, t in zip(of["predicted"], of["true"], strict=True)),
            ]
            for k, (low, high) in enumerate(pairwise(edges))
        ]
        rows.append(["total variation distance", *(cell(v, ".2f") for v in of["total_variation"])])
        rows.append(
            [
                "mean, by the middles of bins",
                *(f"{p:.2f} / {t:.2f}" for p, t in zip(of["mean_predicted"], of["mean_true"], strict=True)),
            ]
        )
        caption = f"{name}, user {of['user']}: predicted / true share of frames in each bin of VCHR"
        parts.append(Table(caption, ["VCHR", *hertz(of["upload_hz"])], rows))
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    drawn = []
    for name, of in result.items():
        columns = -(-len(of["upload_hz"]) // 2)
        figure, axes = canvas(columns, 2, width=2.6, height=2.2)
        for place, hz in enumerate(of["upload_hz"]):
            axis = axes[place // columns][place % columns]
            bins = np.arange(len(of["edges"]) - 1)
            axis.bar(bins - 0.2, of["predicted"][place], 0.4, color=COLOURS[0], label="predicted")
            axis.bar(bins + 0.2, of["true"][place], 0.4, color=COLOURS[1], label="true")
            axis.set_xticks(bins[::3], [f"{of['edges'][k]:.1f}" for k in bins[::3]])
            axis.set_ylim(0, 1)
            axis.set_title(f"{hz:g} Hz")
        for axis in axes.ravel()[len(of["upload_hz"]) :]:
            axis.set_visible(False)
        axes[0][0].legend(fontsize=7)
        figure.supxlabel("VCHR")
        figure.supylabel("share of frames")
        drawn.append(Plot(f"{name}, user {of['user']}: distribution of VCHR", figure))
    return drawn


FIGURE = Figure("Predicted and true distribution of VCHR (Fig. 2)", lambda n: n, compute, shown, plots)
