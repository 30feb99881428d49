"""``prbandit figures mar``: the paper's figures on measured poses, and what contradicts them.

A figure is a file of this package with a ``FIGURE`` and a line of :data:`FIGURES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.splits import KINDS
from controller.experiments import figures
from controller.experiments.figures import Progress
from controller.experiments.mar.figures import (
    accuracy,
    clone,
    distribution,
    promise,
    spectrum,
    theorem_1,
    vchr,
)
from controller.experiments.mar.figures.base import DEFAULT_SNR_DB, Figure, Video
from wire.definitions.poses import FloatArray

FIGURES: Final[Mapping[str, Figure]] = {
    "vchr": vchr.FIGURE,
    "distribution": distribution.FIGURE,
    "accuracy": accuracy.FIGURE,
    "clone": clone.FIGURE,
    "theorem-1": theorem_1.FIGURE,
    "promise": promise.FIGURE,
    "spectrum": spectrum.FIGURE,
}
NAMES: Final = tuple(FIGURES)


def run(
    videos: Mapping[str, FloatArray],
    out: Path,
    names: Sequence[str],
    progress: Progress,
    snr_db: Sequence[FloatArray] = DEFAULT_SNR_DB,
) -> dict[str, Any]:
    """Compute figures of the poses [users, frames, 6] of each video.

    User k has the SNR, in dB, of the samples k modulo those that there are. Writes ``figures.json``, an SVG
    file for each plot and ``figures.html`` to ``out``. Returns what is in ``figures.json``.

    ImportError, naming the extra ``mar``. ValueError, naming the video, where it has too few frames.
    """
    figures.require("mar")
    options = MarOptions()
    of_poses = [Video(name, poses, options, tuple(snr_db)) for name, poses in videos.items()]
    for video in of_poses:
        for kind in KINDS:
            video.split(kind)
    computed: dict[str, Any] = {}
    with progress("figures", sum(FIGURES[name].pieces(len(of_poses)) for name in names)) as advance:
        for name in names:
            computed[name] = FIGURES[name].compute(of_poses, advance)
    result = {
        "videos": {v.name: {"users": v.poses.shape[0], "frames": v.poses.shape[1]} for v in of_poses},
        "options": options.model_dump(mode="json"),
        "figures": computed,
    }
    across, up = options.field_of_view_deg
    introduction = (
        "; ".join(f"{v.name}: {v.poses.shape[0]} users, {v.poses.shape[1]} frames" for v in of_poses)
        + f". VCHR is the share of cells, of those visible or prepared, that are both. V = {options.vchr},"
        f" H = {options.history_frames} and W = {options.lookahead_frames} frames, field of view {across} x"
        f" {up} degrees."
    )
    title = "Digital twins of mobile AR: figures on measured poses"
    figures.write(result, FIGURES, out, title, [introduction])
    return result


def text(result: Mapping[str, Any]) -> str:
    """Every figure as sentences and tables."""
    return figures.text(result["figures"], FIGURES)
