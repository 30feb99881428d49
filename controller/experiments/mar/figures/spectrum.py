"""Bandwidth for all users: personal twins against one frequency for everybody, at the same realised promise.

The slicing-based way knows no users: one frequency for all, each with the bandwidth that its own SNR takes.
QoE-CSP gives each user its own. What counts is what comes on frames not seen: of how many users the promise
is kept. A total of bandwidth says nothing without the rule for those with whom no frequency keeps the
promise; it is given for each rule, and beside them what hindsight needs for as many users.

The total is counted twice: as the sum of each user's b*, with which its upload takes no longer than T, and
pooled, where users take turns in one queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from controller.allocators.mar import qoe_csp
from controller.allocators.mar.learning import STRIDE, learn, share_of_hits, was_kept
from controller.allocators.mar.radio import Uplink
from controller.allocators.mar.twin import every
from controller.experiments.figures import COLOURS, Plot, Table, canvas, cell
from controller.experiments.mar.figures.base import Figure, Video
from wire.definitions.poses import FloatArray

EPSILON: Final = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
"""What QoE-CSP is asked for: at 0 everybody is promised something."""
PROMISES: Final = ((0.8, 0.8), (0.7, 0.6))
"""V and rho."""


def compute(videos: Sequence[Video], advance: Callable[[str], None]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for video in videos:
        advance(f"{video.name}: spectrum")
        known, judged = video.split("temporal")
        frequencies = np.array(video.options.upload_hz)
        users = np.arange(video.observed.users)
        uplink = Uplink.of_users(
            [Uplink.from_snr_db(video.options.frame_bits, video.snr_db[u % len(video.snr_db)]) for u in users]
        )
        bandwidth = uplink.bandwidth_hz(frequencies[:, None], video.options.latency_ms / 1e3).T
        for vchr, rho in PROMISES:
            options = video.options.model_copy(update={"vchr": vchr, "rho": rho})
            twins = learn(video.observed, known, len(judged), video.content, options)
            expected = twins.expected(video.observed, every(judged, STRIDE))
            share = share_of_hits(video.observed.vchr[:, :, judged], vchr)
            came = was_kept(np.nan_to_num(share, nan=1.0), rho) > 0.0
            margin = twins.margin(rho)
            reliability = np.full(expected.shape, np.nan)
            if margin is not None:
                reliability = margin.reliability(expected, rho)

            def row(way: str, setting: str, choice: Any, promised: Any = None) -> dict[str, Any]:
                return {
                    "video": video.name,  # noqa: B023
                    "vchr": vchr,  # noqa: B023
                    "rho": rho,  # noqa: B023
                    "way": way,
                    "setting": setting,
                    "mhz": float(bandwidth[users, choice].sum()) / 1e6,  # noqa: B023
                    "pooled_mhz": uplink.pooled_bandwidth_hz(  # noqa: B023
                        frequencies[choice],  # noqa: B023
                        video.options.latency_ms / 1e3,  # noqa: B023
                    )
                    / 1e6,
                    "met": int(came[users, choice].sum()),  # noqa: B023
                    "promised": None if promised is None else int(promised.sum()),
                    "users": len(users),  # noqa: B023
                }

            for k, hz in enumerate(frequencies.tolist()):
                rows.append(row("slicing", f"{hz:g} Hz for all", np.full(len(users), k)))
            for rule in ("lowest", "best", "highest"):
                for epsilon in EPSILON:
                    plan = qoe_csp.least_bandwidth(reliability, expected, bandwidth, epsilon, rule)
                    way = f"QoE-CSP, {rule} for the others"
                    rows.append(row(way, f"epsilon {epsilon:g}", plan.choice, plan.promised))
            rows.append(row("hindsight", "", _hindsight(came, bandwidth)))
    return {"rows": rows}


def _hindsight(came: Any, bandwidth: FloatArray) -> Any:
    """The least bandwidth of each user with which the promise is kept, the lowest frequency where none is."""
    cost = np.where(came, bandwidth, np.inf)
    return np.where(came.any(axis=1), cost.argmin(axis=1), 0)


def _needed(rows: Sequence[Mapping[str, Any]], met: int, total: str) -> float | None:
    """The least total with which at least ``met`` users had their promise kept."""
    return min((row[total] for row in rows if row["met"] >= met), default=None)


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    parts: list[str | Table] = [
        "Each user's SNR is that of a channel trace where traces are given, a frame draws its own; b as the"
        " latency takes it. Kept: users whose promise was kept on frames that the twins never saw."
        " Slicing: what one frequency for all takes to keep as many."
    ]
    for key in dict.fromkeys((r["video"], r["vchr"], r["rho"]) for r in result["rows"]):
        of = [r for r in result["rows"] if (r["video"], r["vchr"], r["rho"]) == key]
        slicing = [r for r in of if r["way"] == "slicing"]
        parts.append(
            Table(
                f"{key[0]}, V {key[1]:g}, rho {key[2]:g}, {of[0]['users']} users",
                ["way", "setting", "promised", "kept", "MHz", "slicing", "pooled MHz", "slicing"],
                [
                    [
                        r["way"],
                        r["setting"],
                        "-" if r["promised"] is None else str(r["promised"]),
                        str(r["met"]),
                        cell(r["mhz"], ".2f"),
                        cell(_needed(slicing, r["met"], "mhz"), ".2f"),
                        cell(r["pooled_mhz"], ".2f"),
                        cell(_needed(slicing, r["met"], "pooled_mhz"), ".2f"),
                    ]
                    for r in of
                ],
            )
        )
    return parts


def plots(result: Mapping[str, Any]) -> list[Plot]:
    keys = list(dict.fromkeys((r["video"], r["vchr"], r["rho"]) for r in result["rows"]))
    totals = {"mhz": "MHz, sum of b*", "pooled_mhz": "MHz, pooled"}
    figure, axes = canvas(len(keys), len(totals))
    for line, (total, label) in zip(axes, totals.items(), strict=True):
        for axis, key in zip(line, keys, strict=True):
            of = [r for r in result["rows"] if (r["video"], r["vchr"], r["rho"]) == key]
            for k, way in enumerate(dict.fromkeys(r["way"] for r in of)):
                points = sorted((r[total], r["met"]) for r in of if r["way"] == way)
                axis.plot(*zip(*points, strict=True), "o-", color=COLOURS[k], label=way, markersize=4)
            axis.set_title(f"{key[0]}, V {key[1]:g}, rho {key[2]:g}")
            axis.set_xlabel(label)
        line[0].set_ylabel("users whose promise was kept")
    axes[0][0].legend(fontsize=7)
    return [Plot("Promises kept on frames not seen against the bandwidth of all users", figure)]


FIGURE = Figure("Spectrum at the same realised promise", lambda n: n, compute, shown, plots)
