"""Figure 3: VCHR against upload frequency, of one user and of all, and what shapes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from controller.experiments.figures import COLOURS, Plot, Table, canvas, cell, plain
from controller.experiments.mar.figures.base import Figure, Video, hertz
from wire.definitions.poses import FloatArray, rotation, upload_frames
from wire.definitions.vchr import BoolArray, Content, hit_rate, visible

USER = 0
"""The paper's User 1."""
FIELDS_OF_VIEW_DEG = (70.0, 90.0, 110.0)
LOOKAHEADS = (5, 10, 15)
HISTORIES = (10, 15, 30)


def in_frustum(poses: FloatArray, content: Content, field_of_view_deg: tuple[float, float]) -> BoolArray:
    """Cells whose centres are in the frustum, hidden or not, as :func:`wire.definitions.vchr.visible`."""
    edges = [content.edges(axis) for axis in range(3)]
    grid = np.meshgrid(*((e[:-1] + e[1:]) / 2 for e in edges), indexing="ij")
    centre = np.stack([g.ravel() for g in grid], axis=-1)
    right, up, depth = np.moveaxis((centre - poses[..., None, :3]) @ rotation(poses), -1, 0)
    across, along = (np.tan(np.radians(angle / 2)) for angle in field_of_view_deg)
    return np.asarray((depth > 0) & (np.abs(right) <= across * depth) & (np.abs(up) <= along * depth))


def compute(videos: Sequence[Video], advance: Callable[[str], None]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for video in videos:
        rate = video.observed.vchr
        of_user = _mean(rate)
        frames = [rate[USER, place][np.isfinite(rate[USER, place])] for place in range(rate.shape[1])]
        result[video.name] = {
            "upload_hz": list(video.observed.upload_hz),
            "user": USER,
            "of_user": plain(of_user[USER]),
            "frames_of_user": [
                plain(np.percentile(f, (25, 50, 75))) if f.size else [None] * 3 for f in frames
            ],
            "mean": plain(_nan_free(of_user, np.mean)),
            "quartiles": plain(_nan_free(of_user, lambda a, axis: np.percentile(a, (25, 50, 75), axis=axis))),
            "users": len(rate),
            "steps": _steps(of_user, _mean(_held(video)), video.observed.upload_hz),
            "nothing_to_render": int(np.isnan(rate).sum()),
            "samples": _by_samples(video),
        }
        advance(f"vchr {video.name}")
        result[video.name]["options"] = _options(video)
        advance(f"vchr {video.name}, other options")
    return result


def _mean(rate: FloatArray) -> FloatArray:
    """The mean over frames in which there is something to render, [users, frequencies]; NaN without any."""
    known = np.isfinite(rate)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, rate, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def _nan_free(of_user: FloatArray, of: Callable[..., Any]) -> Any:
    return of(of_user[np.isfinite(of_user).all(axis=1)], axis=0)


def _held(video: Video) -> FloatArray:
    """VCHR had the latest upload been taken for the prediction, [users, frequencies, frames]."""
    fov = video.options.field_of_view_deg
    seen = visible(video.poses[:, video.observed.frame], video.content, fov)[:, None]
    return hit_rate(seen, visible(video.observed.situation.last, video.content, fov))


def _steps(of_user: FloatArray, held: FloatArray, upload_hz: Sequence[float]) -> list[dict[str, Any]]:
    """From each frequency to the next: which users fall, and what it would be had the last pose been held."""
    rows = []
    for k, (low, high) in enumerate(pairwise(upload_hz)):
        fall = of_user[:, k + 1] < of_user[:, k] - 1e-9
        rows.append(
            {
                "from_hz": low,
                "to_hz": high,
                "fall": int(fall.sum()),
                "fall_if_held": int((held[:, k + 1] < held[:, k] - 1e-9).sum()),
                "of_these": int((fall & (held[:, k + 1] < held[:, k] - 1e-9)).sum()),
                "before": float(of_user[fall, k].mean()) if fall.any() else None,
                "after": float(of_user[fall, k + 1].mean()) if fall.any() else None,
                "after_if_held": float(held[fall, k + 1].mean()) if fall.any() else None,
            }
        )
    return rows


def _by_samples(video: Video) -> list[dict[str, Any]]:
    """By how many uploads are in the window of the predictor: VCHR as predicted, and had the last pose been
    held in the same frames."""
    o, observed = video.options, video.observed
    held = _held(video)
    now = observed.frame - o.lookahead_frames
    groups: dict[tuple[float, int], tuple[FloatArray, FloatArray]] = {}
    for place, hz in enumerate(observed.upload_hz):
        uploaded = upload_frames(hz, video.poses.shape[1])
        inside = (uploaded > now[:, None] - o.history_frames) & (uploaded <= now[:, None])
        count = np.maximum(inside.sum(axis=1), 1)
        for n in np.unique(count).tolist():
            chosen = count == n
            groups[hz, n] = observed.vchr[:, place, chosen], held[:, place, chosen]
    judged = np.isfinite(observed.vchr).sum(axis=(0, 2))
    rows = []
    for (hz, n), (rate, as_held) in groups.items():
        known = np.isfinite(rate) & np.isfinite(as_held)
        if not known.any():
            continue
        rate, as_held = rate[known], as_held[known]
        rows.append(
            {
                "upload_hz": hz,
                "samples": n,
                "share": float(known.sum() / judged[observed.upload_hz.index(hz)]),
                "vchr": float(rate.mean()),
                "held": float(as_held.mean()),
                "better_held": float((as_held > rate + 1e-9).mean()),
                "worse_held": float((as_held < rate - 1e-9).mean()),
            }
        )
    return rows


def _options(video: Video) -> list[dict[str, Any]]:
    o, observed = video.options, video.observed
    rows: list[dict[str, Any]] = [{"option": "as the service", "vchr": observed.vchr}]
    rows += [
        {"option": f"field of view {a:g} degrees", "vchr": video.observe(field_of_view_deg=(a, a)).vchr}
        for a in FIELDS_OF_VIEW_DEG
    ]
    seen = in_frustum(video.poses[:, observed.frame], video.content, o.field_of_view_deg)[:, None]
    prepared = in_frustum(observed.situation.predicted, video.content, o.field_of_view_deg)
    rows.append({"option": "no occlusion", "vchr": hit_rate(seen, prepared)})
    rows += [{"option": f"W = {w} frames", "vchr": video.observe(lookahead=w).vchr} for w in LOOKAHEADS]
    rows += [{"option": f"H = {h} frames", "vchr": video.observe(history=h).vchr} for h in HISTORIES]
    for row in rows:
        row["vchr"] = plain(_nan_free(_mean(row["vchr"]), np.mean))
    return rows


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    parts: list[str | Table] = []
    for name, of in result.items():
        heads = hertz(of["upload_hz"])
        quartiles = of["quartiles"]
        parts.append(
            Table(
                f"{name}: mean VCHR by upload frequency",
                ["", *heads],
                [
                    [f"user {of['user']}", *(cell(v) for v in of["of_user"])],
                    ["lower quartile of its frames", *(cell(v[0]) for v in of["frames_of_user"])],
                    ["upper quartile of its frames", *(cell(v[2]) for v in of["frames_of_user"])],
                    [f"mean of {of['users']} users", *(cell(v) for v in of["mean"])],
                    ["lower quartile of users", *(cell(v) for v in quartiles[0])],
                    ["upper quartile of users", *(cell(v) for v in quartiles[2])],
                ],
            )
        )
        parts.append(
            "A regression needs two uploads in its window; with one, the last pose is held. A line through"
            " few uploads is read further ahead than they lie apart: where a user turns back in the meantime"
            " it is worse than the pose held, and a higher frequency costs VCHR. The table says how many of"
            " those that fall would have fallen, had the last pose been held at every frequency."
        )
        keys = ("before", "after", "after_if_held")
        parts.append(
            Table(
                f"{name}: users whose VCHR falls from one frequency to the next",
                ["step", "fall", "fall also if held", "their VCHR before", "after", "after if held"],
                [
                    [
                        f"{row['from_hz']:g} to {row['to_hz']:g} Hz",
                        str(row["fall"]),
                        str(row["of_these"]),
                        *(cell(row[key]) for key in keys),
                    ]
                    for row in of["steps"]
                ],
            )
        )
        few = [row for row in of["samples"] if row["samples"] <= 3]
        parts.append(
            Table(
                f"{name}: by uploads in the window",
                [
                    "frequency",
                    "uploads",
                    "share of frames",
                    "VCHR",
                    "VCHR if held",
                    "better held",
                    "worse held",
                ],
                [
                    [
                        f"{row['upload_hz']:g} Hz",
                        str(row["samples"]),
                        *(cell(row[key]) for key in ("share", "vchr", "held", "better_held", "worse_held")),
                    ]
                    for row in few
                ],
            )
        )
        parts.append(
            Table(
                f"{name}: mean VCHR under other options, one changed at a time",
                ["", *heads],
                [[row["option"], *(cell(v) for v in row["vchr"])] for row in of["options"]],
            )
        )
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, axes = canvas(len(result))
    for axis, (name, of) in zip(axes[0], result.items(), strict=True):
        place = range(len(of["upload_hz"]))
        low, _, high = of["quartiles"]
        axis.fill_between(place, low, high, color=COLOURS[0], alpha=0.2, label="half of the users")
        axis.plot(place, of["mean"], "o-", color=COLOURS[0], label=f"mean of {of['users']} users")
        axis.plot(place, of["of_user"], "s-", color=COLOURS[1], label=f"user {of['user']}")
        axis.set_xticks(place, [f"{hz:g}" for hz in of["upload_hz"]])
        axis.set_xlabel("upload frequency, Hz")
        axis.set_title(name)
    axes[0][0].set_ylabel("VCHR")
    axes[0][0].legend(fontsize=8)
    shape, more = canvas(len(result), width=4.4)
    for axis, (name, of) in zip(more[0], result.items(), strict=True):
        for k, row in enumerate(of["options"]):
            axis.plot(
                range(len(row["vchr"])),
                row["vchr"],
                ("-", "--", ":")[k // 4],
                color=COLOURS[k % len(COLOURS)],
                label=row["option"],
            )
        axis.set_xticks(range(len(of["upload_hz"])), [f"{hz:g}" for hz in of["upload_hz"]])
        axis.set_xlabel("upload frequency, Hz")
        axis.set_title(name)
    more[0][0].set_ylabel("mean VCHR")
    more[0][-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.03))
    return [Plot("VCHR against upload frequency", figure), Plot("The same under other options", shape)]


FIGURE = Figure("VCHR against upload frequency (Fig. 3)", lambda n: 2 * n, compute, shown, plots)
