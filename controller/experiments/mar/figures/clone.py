"""Equation (9): how close clones are to the predictor that they were learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from controller.allocators.mar.clone import GeneralClone, Inputs, LinearClone, inputs, joined
from controller.experiments.figures import COLOURS, Plot, Table, canvas, cell
from controller.experiments.mar.figures.base import Figure, Video
from wire.definitions.poses import FloatArray, IntArray, predict, turned, unwrapped, upload_frames
from wire.definitions.vchr import visible

UNSEEN_HZ: Final = 4.0
"""A frequency at which no clone is learned."""
LEVEL, TREND = 0.7, 0.3
FASTEST: Final = (1.0, 60.0)
"""Metres and degrees a second."""

Predictor = Callable[[FloatArray, IntArray, IntArray, int, int], FloatArray]


def holt(sent: FloatArray, uploaded: IntArray, now: IntArray, lookahead: int, history: int) -> FloatArray:
    """Double exponential smoothing: a level and a trend, brought up to date by every upload ever made."""
    sent = unwrapped(sent)
    level, trend = sent[0], np.zeros(sent.shape[-1])
    levels, trends = [level], [trend]
    for k in range(1, len(uploaded)):
        gap = float(uploaded[k] - uploaded[k - 1])
        now_at = LEVEL * sent[k] + (1.0 - LEVEL) * (level + trend * gap)
        trend = TREND * (now_at - level) / gap + (1.0 - TREND) * trend
        level = now_at
        levels.append(level)
        trends.append(trend)
    latest = np.searchsorted(uploaded, now, side="right") - 1
    ahead = (now + lookahead - uploaded[latest])[:, None]
    return np.asarray(np.array(levels)[latest] + np.array(trends)[latest] * ahead)


def limited(sent: FloatArray, uploaded: IntArray, now: IntArray, lookahead: int, history: int) -> FloatArray:
    """The velocity between the last two uploads goes on, but saturates: not linear in the poses."""
    sent = unwrapped(sent)
    latest = np.searchsorted(uploaded, now, side="right") - 1
    before = np.maximum(latest - 1, 0)
    fastest = np.repeat(FASTEST, 3) / 30.0
    gap = np.maximum(uploaded[latest] - uploaded[before], 1)[:, None]
    velocity = fastest * np.tanh((sent[latest] - sent[before]) / gap / fastest)
    return np.asarray(sent[latest] + velocity * (now + lookahead - uploaded[latest])[:, None])


PREDICTORS: Final[Mapping[str, Predictor]] = {
    "linear regression (the application's)": predict,
    "double exponential smoothing": holt,
    "saturating velocity": limited,
}
TECHNIQUES: Final[Mapping[str, type[LinearClone] | type[GeneralClone]]] = {
    "linear": LinearClone,
    "general": GeneralClone,
}


def pairs(
    video: Video, users: Sequence[int], upload_hz: Sequence[float], predictor: Predictor
) -> tuple[Inputs, FloatArray]:
    """Observed inputs and predictions of some users at some frequencies, in the frames that are judged."""
    o = video.options
    now = video.observed.frame - o.lookahead_frames
    given, out = [], []
    for hz in upload_hz:
        uploaded = upload_frames(hz, video.poses.shape[1])
        for user in users:
            sent = video.poses[user, uploaded]
            given.append(inputs(sent, uploaded, now, o.lookahead_frames))
            out.append(predictor(sent, uploaded, now, o.lookahead_frames, o.history_frames))
    return joined(given), np.concatenate(out)


def fidelity(video: Video, clone: FloatArray, real: FloatArray) -> dict[str, float]:
    """Root mean square distance in metres and turn in degrees, and in which share of frames the same cells
    are visible from both."""
    fov = video.options.field_of_view_deg
    same = visible(clone, video.content, fov) == visible(real, video.content, fov)
    return {
        "rmse_m": float(np.sqrt(((clone - real)[:, :3] ** 2).sum(axis=-1).mean())),
        "rmse_deg": float(np.sqrt((turned(clone, real) ** 2).mean())),
        "same_cells": float(same.all(axis=-1).mean()),
    }


def compute(videos: Sequence[Video], advance: Callable[[str], None]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for video in videos:
        users = np.random.default_rng(0).permutation(video.observed.users)
        known = users[: max(len(users) // 2, 1)].tolist()
        unseen = users[len(known) :].tolist()
        upload_hz = list(video.observed.upload_hz)
        tested_hz = [*upload_hz, UNSEEN_HZ]
        rows: list[dict[str, Any]] = []
        for name, predictor in PREDICTORS.items():
            given, real = pairs(video, known, upload_hz, predictor)
            clones = {t: of.fit(given, real) for t, of in TECHNIQUES.items()}
            made: dict[str, list[dict[str, float]]] = {t: [] for t in ("held", *clones)}
            for hz in tested_hz if unseen else ():
                given, real = pairs(video, unseen, [hz], predictor)
                made["held"].append(fidelity(video, given.poses[:, 0], real))
                for technique, clone in clones.items():
                    made[technique].append(fidelity(video, clone.predict(given), real))
            linear = clones["linear"]
            assert isinstance(linear, LinearClone)
            found = {"history": linear.history, "order": linear.order}
            rows += [
                {"predictor": name, "technique": t, "fidelity": of, **(found if t == "linear" else {})}
                for t, of in made.items()
            ]
            advance(f"clone {video.name}, {name}")
        result[video.name] = {
            "learned_from": len(known),
            "unseen": len(unseen),
            "upload_hz": tested_hz,
            "rows": rows,
        }
    return result


_PARTS: Final = {
    "rmse_m": ("distance from the predictor's pose, m (root mean square)", ".4f"),
    "rmse_deg": ("turn from the predictor's pose, degrees (root mean square)", ".3f"),
    "same_cells": ("share of frames in which exactly the same cells are visible", ".3f"),
}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    parts: list[str | Table] = [
        "Against the predictor, not against the truth. Held: the last upload taken for the prediction."
        f" No clone was learned at {UNSEEN_HZ:g} Hz."
    ]
    for name, of in result.items():
        heads = [f"{hz:g} Hz" for hz in of["upload_hz"]]
        for key, (what, form) in _PARTS.items():
            rows = []
            for row in of["rows"]:
                found = f", H = {row['history']}, order {row['order']}" if "history" in row else ""
                label = f"{row['predictor']}: {row['technique']}{found}"
                values = [f[key] for f in row["fidelity"]] or [None] * len(heads)
                rows.append([label, *(cell(v, form) for v in values)])
            caption = f"{name}, {of['unseen']} unseen users, learned from {of['learned_from']}: {what}"
            parts.append(Table(caption, ["predictor: clone", *heads], rows))
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, axes = canvas(len(result), width=4.8)
    for axis, (name, of) in zip(axes[0], result.items(), strict=True):
        for k, row in enumerate(of["rows"]):
            axis.plot(
                range(len(of["upload_hz"])),
                [f["same_cells"] for f in row["fidelity"]] or [np.nan] * len(of["upload_hz"]),
                {"held": ":", "linear": "--", "general": "-"}[row["technique"]],
                color=COLOURS[list(PREDICTORS).index(row["predictor"]) % len(COLOURS)],
                label=f"{row['predictor']}: {row['technique']}" if name == list(result)[-1] else None,
                linewidth=1.3 + 0.4 * (k % 3),
            )
        axis.set_xticks(
            range(len(of["upload_hz"])), [f"{hz:g}" for hz in of["upload_hz"][:-1]] + [f"({UNSEEN_HZ:g})"]
        )
        axis.set_xlabel("upload frequency, Hz (in brackets: not learned)")
        axis.set_title(name)
    axes[0][0].set_ylabel("share of frames with the same cells")
    axes[0][-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.03))
    return [Plot("How often a clone prepares what the predictor would", figure)]


FIGURE = Figure("Clones of the predictor (equation 9)", lambda n: n * len(PREDICTORS), compute, shown, plots)
