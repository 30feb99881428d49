"""What the pages have in common: their look, their figures as inline SVG, their number formats."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.definitions.extras import needs

MAX_POINTS = 1500
"""Points of a curve; a longer run is drawn as means over equal stretches."""

# Stand for the page's own colours until the SVG is in the page, so that it fits light and dark.
INK, GRID = "#010203", "#040506"

RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prbandit",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "text.usetex": False,
    "text.parse_math": False,
}

Array = NDArray[np.float64]


def require() -> None:
    """ImportError, naming the extra, where matplotlib or Jinja2 is not installed."""
    with needs("report", "the report"):
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401


def template(path: Path) -> Any:
    """The Jinja2 template of a page; the shared style is included as ``style.html``.

    ImportError as :func:`require`.
    """
    require()
    import jinja2

    loader = jinja2.FileSystemLoader([path.parent, Path(__file__).parent])
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number, percent=percent, instant=instant)
    return environment.get_template(path.name)


def number(value: float | None, digits: int = 1) -> str:
    """With so many decimals; ``n/a`` for None."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A ratio in percent; ``n/a`` for None."""
    return "n/a" if value is None else f"{100 * value:.1f} %"


def instant(time_ns: int) -> str:
    """A CLOCK_REALTIME in UTC, to a tenth of a second."""
    moment = datetime.fromtimestamp(time_ns / 1e9, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 100_000} UTC"


def unit(seconds: float) -> tuple[str, float]:
    """What an axis of that length is best read in, and how many seconds that is."""
    for name, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 5 * length:
            return name, length
    return "seconds", 1.0


def legend(axis: Any) -> None:
    """The legend to the right of an axis."""
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), fontsize=8)


def binned_means(
    x: Sequence[float] | Array, y: Sequence[float] | Array, points: int = MAX_POINTS
) -> tuple[Array, Array]:
    """At most about so many points: means over equal stretches, NaN left out."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    step = -(-len(xs) // points)
    if step <= 1:
        return xs, ys
    starts = np.arange(0, len(xs), step)
    known = ~np.isnan(ys)
    count = np.add.reduceat(known.astype(float), starts)
    total = np.add.reduceat(np.where(known, ys, 0.0), starts)
    return xs[starts], np.where(count > 0, total / np.maximum(count, 1), np.nan)


def decimated(x: Array, points: int = MAX_POINTS) -> Array:
    """At most about so many of the points, evenly chosen."""
    return x[:: max(1, -(-len(x) // points))]


def standalone_svg(figure: Any) -> str:
    """The figure as the text of an SVG file, dark ink on white."""
    text = io.StringIO()
    figure.savefig(text, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return text.getvalue().replace(INK, "#1d2733").replace(GRID, "#d8dee5")


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a figure is drawn for: ``name`` is its class on the page, which shows the one that fits the
    screen. ``width``, ``left`` and ``right`` (margins) are in inches, equal for all figures of a page, so
    that their axes stand above each other; ``columns`` are those of a legend, ``points`` the most of a
    curve."""

    name: str
    width: float
    left: float
    right: float
    font: float
    columns: int
    points: int

    def axes(self, heights: Sequence[float], legends: Sequence[int]) -> tuple[Any, Any]:
        """A figure with axes above each other that share their x: their heights in inches, and of how many
        entries the legend above each is. ValueError where there are none."""
        from matplotlib.figure import Figure

        above = [0.08 + 0.19 * -(-n // self.columns) for n in legends]
        gap, below = 0.1, 0.45
        if not heights:
            raise ValueError("a figure without axes")
        total = sum(heights) + sum(above) + gap * (len(heights) - 1) + below
        figure = Figure(figsize=(self.width, total))
        top = total
        axes: list[Any] = []
        for height, over in zip(heights, above, strict=True):
            bottom = top - over - height
            box = (self.left, bottom, self.width - self.left - self.right, height)
            left, low, width, high = box
            scaled = (left / self.width, low / total, width / self.width, high / total)
            axes.append(figure.add_axes(scaled, sharex=axes[0] if axes else None))
            axes[-1].tick_params(labelbottom=False)
            top = bottom - gap
        axes[-1].tick_params(labelbottom=True)
        return figure, np.array(axes)

    def legend(self, axis: Any) -> None:
        """The legend above an axis; nothing where it has no entries."""
        handles, labels = axis.get_legend_handles_labels()
        if handles:
            axis.legend(
                handles,
                labels,
                loc="lower left",
                bbox_to_anchor=(0.0, 1.0),
                ncols=self.columns,
                borderaxespad=0.1,
                borderpad=0.1,
                handlelength=1.4,
                columnspacing=1.2,
                fontsize=self.font - 1,
            )


WIDE = Sheet("wide", 9.5, 0.75, 0.15, 9.0, 4, MAX_POINTS)
NARROW = Sheet("narrow", 4.0, 0.62, 0.12, 8.5, 2, 500)
SHEETS = (WIDE, NARROW)


def svg(figure: Any, key: str, label: str, look: str = "") -> Any:
    """The figure as markup for the page: its ids made unique, its ink the page's; ``look`` is its class."""
    from markupsafe import Markup, escape

    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    markup = text.getvalue()
    markup = markup[markup.index("<svg") :]
    prefix = re.sub(r"[^A-Za-z0-9_-]", "_", key)
    markup = re.sub(r'\bid="', f'id="{prefix}-', markup)
    markup = re.sub(r'href="#', f'href="#{prefix}-', markup)
    markup = re.sub(r"url\(#", f"url(#{prefix}-", markup)
    markup = markup.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    markup = re.sub(r"<metadata>.*?</metadata>\s*", "", markup, flags=re.DOTALL)
    markup = re.sub(r'width="[^"]*pt" height="[^"]*pt" ', "", markup, count=1)
    look = f'class="{look}" ' if look else ""
    markup = markup.replace("<svg ", f'<svg {look}role="img" aria-label="{escape(label)}" ', 1)
    return Markup(markup)
