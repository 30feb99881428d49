"""What the figures of the services' papers have in common: how one is shown, and the page of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from controller.store import figures as pages
from wire.definitions.extras import needs

COLOURS = ("#2f81c7", "#cf7a22", "#2a9563", "#d64545", "#8d63c9", "#5d6873", "#c2549d", "#8a6d3b")
_TEMPLATE = Path(__file__).with_name("figures.html")

Source = TypeVar("Source")
Progress = Callable[[str, int | None], AbstractContextManager[Callable[[str], None]]]


class Table(NamedTuple):
    """Rows of cells as text; the first column reads from the left."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Plot(NamedTuple):
    """A matplotlib figure and what it shows."""

    caption: str
    figure: Any


@dataclass(frozen=True)
class Figure(Generic[Source]):
    """Computed from a source: ``pieces`` is how often ``compute`` reports progress, by the size of the
    source. Its result is plain JSON, ``shown`` makes sentences and tables of it, ``plots`` drawings."""

    title: str
    pieces: Callable[[int], int]
    compute: Callable[[Source, Callable[[str], None]], dict[str, Any]]
    shown: Callable[[Mapping[str, Any]], list[str | Table]]
    plots: Callable[[Mapping[str, Any]], list[Plot]]


def require(extra: str) -> None:
    """ImportError, naming the extra, where a package that figures need is not installed."""
    with needs(extra, "a figure"):
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401


def write(
    result: Mapping[str, Any],
    figures: Mapping[str, Figure[Any]],
    out: Path,
    title: str,
    introduction: Sequence[str],
) -> None:
    """``figures.json``, which is ``result``, an SVG file for each plot and ``figures.html``, to ``out``.

    ``result["figures"]`` is what was computed, by name.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    page = _page(result["figures"], figures, out, title, introduction)
    (out / "figures.html").write_text(page, encoding="utf-8")


def text(computed: Mapping[str, Any], figures: Mapping[str, Figure[Any]]) -> str:
    """Every figure as sentences and tables."""
    lines: list[str] = []
    for name, of in computed.items():
        lines += [f"{name}: {figures[name].title}", ""]
        for part in figures[name].shown(of):
            lines += [*(table_lines(part) if isinstance(part, Table) else [part]), ""]
    return "\n".join(lines).rstrip()


def table_lines(table: Table) -> list[str]:
    """A table as text, its columns aligned."""
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


def _page(
    computed: Mapping[str, Any],
    figures: Mapping[str, Figure[Any]],
    out: Path,
    title: str,
    introduction: Sequence[str],
) -> str:
    """The page, self-contained; each plot goes to a file of its own besides."""
    import matplotlib

    sections = []
    with matplotlib.rc_context(pages.RC):
        for name, of in computed.items():
            drawn = []
            for place, plot in enumerate(figures[name].plots(of), start=1):
                key = f"{name}-{place}"
                (out / f"{key}.svg").write_text(pages.standalone_svg(plot.figure), encoding="utf-8")
                drawn.append((plot.caption, pages.svg(plot.figure, key, plot.caption)))
            sections.append(Section(name, figures[name].title, drawn, figures[name].shown(of)))
    return render(title, introduction, sections)


class Section(NamedTuple):
    """Part of a page: plots as (caption, :func:`controller.store.figures.svg`), sentences and tables."""

    name: str
    title: str
    plots: Sequence[tuple[str, Any]]
    shown: Sequence[str | Table]


def render(title: str, introduction: Sequence[str], sections: Sequence[Section]) -> str:
    """A self-contained page. ImportError, naming the extra ``report``, where Jinja2 is not installed."""
    parts = [
        {
            "name": section.name,
            "title": section.title,
            "plots": section.plots,
            "parts": [(isinstance(part, Table), part) for part in section.shown],
        }
        for section in sections
    ]
    page: str = pages.template(_TEMPLATE).render(title=title, introduction=introduction, sections=parts)
    return page


def cell(value: float | None, form: str = ".3f") -> str:
    """A number of a table; ``-`` for None and NaN."""
    return "-" if value is None or value != value else format(value, form)


def plain(values: Any) -> Any:
    """An array as lists of numbers; NaN as None."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, list):
        return [plain(value) for value in values]
    return None if isinstance(values, float) and values != values else values


def logarithmic(axes: Any, *names: str) -> None:
    """The axes "x" or "y" as powers of ten that are written out: pages parse no formulas."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(LogLocator(10.0))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def canvas(columns: int, rows: int = 1, width: float = 3.6, height: float = 3.2) -> tuple[Any, Any]:
    """A matplotlib figure and its axes [rows][columns]."""
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(max(width * columns, 5.0), height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
