"""``prbandit figures mar``: the paper's figures on measured poses, and what contradicts them.

A figure is a file of this package with a ``FIGURE`` and a line of :data:`FIGURES`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.splits import KINDS
from controller.experiments.mar.figures import (
    accuracy,
    clone,
    distribution,
    promise,
    spectrum,
    theorem_1,
    vchr,
)
from controller.experiments.mar.figures.base import DEFAULT_SNR_DB, Figure, Table, Video
from controller.store import figures as pages
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
_TEMPLATE = Path(__file__).with_name("page.html")

Progress = Callable[[str, int | None], AbstractContextManager[Callable[[str], None]]]


def require() -> None:
    """ImportError, naming the extra, where a package that figures need is not installed."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the figures need the package {error.name}: pip install 'prbandit[mar]'", name=error.name
        ) from error


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
    require()
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
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (out / "figures.html").write_text(_page(result, out), encoding="utf-8")
    return result


def text(result: Mapping[str, Any]) -> str:
    """Every figure as sentences and tables."""
    lines: list[str] = []
    for name, computed in result["figures"].items():
        lines += [f"{name}: {FIGURES[name].title}", ""]
        for part in FIGURES[name].shown(computed):
            lines += [*(_lines(part) if isinstance(part, Table) else [part]), ""]
    return "\n".join(lines).rstrip()


def _lines(table: Table) -> list[str]:
    rows = [list(table.columns), *table.rows]
    width = [max(len(row[k]) for row in rows) for k in range(len(table.columns))]
    return [
        table.caption,
        *(
            "  ".join(
                [row[0].ljust(width[0]), *(c.rjust(w) for c, w in zip(row[1:], width[1:], strict=True))]
            ).rstrip()
            for row in rows
        ),
    ]


def _page(result: Mapping[str, Any], out: Path) -> str:
    """The page, self-contained; each plot goes to a file of its own besides."""
    import matplotlib

    sections = []
    with matplotlib.rc_context(pages.RC):
        for name, computed in result["figures"].items():
            drawn = []
            for place, plot in enumerate(FIGURES[name].plots(computed), start=1):
                key = f"{name}-{place}"
                (out / f"{key}.svg").write_text(pages.standalone_svg(plot.figure), encoding="utf-8")
                drawn.append((plot.caption, pages.svg(plot.figure, key, plot.caption)))
            parts = FIGURES[name].shown(computed)
            sections.append(
                {
                    "name": name,
                    "title": FIGURES[name].title,
                    "plots": drawn,
                    "parts": [(isinstance(part, Table), part) for part in parts],
                }
            )
    page: str = pages.template(_TEMPLATE).render(
        videos=result["videos"], options=result["options"], sections=sections
    )
    return page
