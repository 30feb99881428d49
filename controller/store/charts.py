"""The charts of a run's report, each for a wide screen and for a narrow one.

Charts over time have one axis: their panels stand above each other, from the run's first control slot to its
last. Changes of the run's part, the mode and the policies go through all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np

from controller.store import figures, misses
from controller.store.figures import Array, Sheet
from controller.store.misses import Misses
from controller.store.series import CellSeries, MeasureSeries, SliceSeries

_ROLLING = 25
_NAMES = {"ul": "uplink", "edge": "edge", "dl": "downlink"}
_COLOURS = {"ul": "#2f81c7", "edge": "#cf7a22", "dl": "#2a9563"}
_PROMISE, _OTHER, _CHANGE = "#8d63c9", "#7a8793", "#b0672a"
_MET, _VIOLATED = "#2a9563", "#d64545"
_DASHES = ("-", "--", ":", "-.")
_TARGETS_SHOWN = 3.0
"""A measure's axis ends at so many targets: what is beyond is marked at its end."""
_LETTER = 0.075
"""Inches of a letter in a strip; where there is less room what is in force is not named."""

CHANGES = "Changes and events"
CLOCKS = "Clock offsets, the worst of each control slot, and frames that count for the round trip alone"
MISSES = "Missed control slots by cause"
REGRET = "Regret against the best fixed actions in hindsight"


def name(text: str) -> str:
    """A lever's or a measure's name as people read it."""
    return _NAMES.get(text, text.replace("_", " "))


@dataclass(frozen=True)
class _Chart:
    """What is drawn of one cell on one sheet; times are in ``scale`` seconds."""

    series: CellSeries
    sheet: Sheet
    unit: str
    scale: float

    @property
    def end(self) -> float:
        return max(self.series.length_s / self.scale, 1e-9)

    def at(self, time_ns: int) -> float:
        return min(max(self.series.seconds(time_ns) / self.scale, 0.0), self.end)

    def time(self, seconds: Sequence[float]) -> Array:
        return np.asarray(seconds, float) / self.scale

    def step(self, axis: Any, seconds: Sequence[float], values: Sequence[float], **look: Any) -> None:
        """A staircase, whose last step lasts to the end."""
        x, y = figures.binned_means(self.time(seconds), values, self.sheet.points)
        if len(x):
            axis.step(np.append(x, self.end), np.append(y, y[-1]), where="post", **look)

    def line(self, axis: Any, seconds: Any, values: Any, **look: Any) -> None:
        axis.plot(*figures.binned_means(self.time(seconds), values, self.sheet.points), **look)

    def slices(self) -> Iterator[tuple[str, SliceSeries, str, str]]:
        """Slices with the dash and the prefix of their curves."""
        several = len(self.series.slices) > 1
        for (of, series), dash in zip(self.series.slices.items(), cycle(_DASHES), strict=False):
            yield of, series, dash, f"{of} " if several else ""


@dataclass(frozen=True)
class _Panel:
    """Axes above each other: their heights in inches, the entries of each one's legend, which may be long."""

    title: str
    heights: Sequence[float]
    legends: Sequence[int]
    draw: Callable[[_Chart, Sequence[Any]], None]
    over_time: bool = True
    long: bool = False


def plots(
    cell: str,
    series: CellSeries,
    regret: Mapping[str, Array],
    missed: Misses,
    events: Mapping[str, Sequence[int]],
) -> list[dict[str, Any]]:
    """Figures of one cell as inline SVG, ``title`` and one by the name of each sheet; none where no control
    slot is over. ``events`` are times (ns) by kind."""
    if not series.slices:
        return []
    import matplotlib

    unit, scale = figures.unit(series.length_s)
    out = []
    for number, panel in enumerate(_panels(cell, series, regret, missed, events)):
        if not panel.heights:
            continue
        drawn: dict[str, Any] = {"title": panel.title}
        for sheet in figures.SHEETS:
            sheet = replace(sheet, columns=sheet.columns - 1) if panel.long else sheet
            with matplotlib.rc_context({**figures.RC, "font.size": sheet.font}):
                figure, axes = sheet.axes(panel.heights, panel.legends)
                chart = _Chart(series, sheet, unit, scale)
                panel.draw(chart, axes)
                if not any(axis.has_data() for axis in axes):
                    break
                if panel.over_time:
                    _over_time(chart, axes, panel.title != CHANGES)
                label = f"{panel.title}, cell {cell}"
                drawn[sheet.name] = figures.svg(figure, f"{cell}-{number}-{sheet.name}", label, sheet.name)
        if len(drawn) > 1:
            out.append(drawn)
    return out


def _panels(
    cell: str,
    series: CellSeries,
    regret: Mapping[str, Array],
    missed: Misses,
    events: Mapping[str, Sequence[int]],
) -> list[_Panel]:
    n = len(series.slices)
    measures = [m for of in series.slices.values() for m in of.measures.items()]
    settings = sorted({setting for of in series.slices.values() for setting in of.settings})
    by_cause = {of: s for of, s in missed.cells.get(cell, {}).items() if s.missed}
    strips = {what: strip for what, strip in series.strips.items() if len(strip) > 1}

    def draw_misses(chart: _Chart, axes: Sequence[Any]) -> None:
        for axis, (of, s) in zip(axes, by_cause.items(), strict=True):
            misses.draw(axis, s, missed.seconds(s) / chart.scale, chart.end)
            axis.set_ylabel("missed" if n == 1 else f"missed, {of}")
            chart.sheet.legend(axis)

    rows = len(strips) + len(events)
    return [
        _Panel(
            CHANGES,
            [0.3 * rows] if rows else [],
            [0] if rows else [],
            lambda c, axes: _draw_changes(c, axes, strips, events),
        ),
        _Panel("Active flows", [0.8], [n if n > 1 else 0], _draw_flows),
        _Panel("Quotas and GPU clock", [1.1] * 3, [n + 1] * 3, _draw_allocation),
        _Panel("QoS", [1.4], [2 * n], _draw_qos),
        _Panel(
            "Measures, the worst user of each control slot",
            [1.3 if i == 0 else 1.0 for i in range(len(measures))],
            [4] * len(measures),
            _draw_measures,
        ),
        _Panel(
            MISSES,
            [1.5] * len(by_cause),
            [len(s.by_cause()) for s in by_cause.values()],
            draw_misses,
            long=True,
        ),
        _Panel(
            "Settings, the mean of each slice's users",
            [1.0] * len(settings),
            [n if n > 1 else 0] * len(settings),
            lambda c, axes: _draw_settings(c, axes, settings),
        ),
        _Panel("Hop states", [1.0] * 2, [n if n > 1 else 0] * 2, _draw_states),
        _Panel(REGRET, [1.8], [4], lambda c, axes: _draw_regret(c, axes, regret)),
        _Panel(CLOCKS, [1.1] * 2, [max(len(series.clocks), 1), n], _draw_clocks),
        _Panel("Actions by hop state", [1.7] * 3, [n if n > 1 else 0] * 3, _draw_actions, over_time=False),
    ]


def _over_time(chart: _Chart, axes: Sequence[Any], marked: bool) -> None:
    """The one axis of all panels, and the changes in it."""
    axes[-1].set_xlabel(f"{chart.unit} since the first control slot")
    axes[-1].set_xlim(0.0, chart.end)
    axes[-1].xaxis.get_major_locator().set_params(nbins=10 if chart.sheet.name == figures.WIDE.name else 5)
    if marked:
        changes = {time for strip in chart.series.strips.values() for time, _ in strip[1:]}
        for axis in axes:
            for time_ns in sorted(changes)[: chart.sheet.points]:
                axis.axvline(chart.at(time_ns), color=_CHANGE, linewidth=0.8, linestyle="--", zorder=0.5)


def _draw_changes(
    chart: _Chart,
    axes: Sequence[Any],
    strips: Mapping[str, Sequence[tuple[int, str]]],
    events: Mapping[str, Sequence[int]],
) -> None:
    (axis,) = axes
    row = len(strips) + len(events)
    axis.set_ylim(0, row)
    axis.set_yticks([])
    axis.grid(axis="y", visible=False)
    small = chart.sheet.font - 1
    for what, strip in strips.items():
        row -= 1
        ends = [time for time, _ in strip[1:]] + [chart.series.end_ns]
        axis.text(0.0, row + 0.92, what, fontsize=small - 0.5, va="top", color=_OTHER, transform=_right(axis))
        for i, ((time_ns, value), end_ns) in enumerate(zip(strip, ends, strict=True)):
            begin, end = chart.at(time_ns), chart.at(end_ns)
            shade = 0.35 if i % 2 else 0.16
            axis.barh(row + 0.26, end - begin, 0.44, begin, color=_CHANGE, alpha=shade, edgecolor="none")
            room = (end - begin) / chart.end * (chart.sheet.width - chart.sheet.left - chart.sheet.right)
            if room > _LETTER * (len(value) + 1):
                axis.text(begin, row + 0.26, f" {value}", fontsize=small, va="center", clip_on=True)
    for kind, times in events.items():
        row -= 1
        text = f"{kind.replace('_', ' ')}, {len(times)}"
        axis.text(0.0, row + 0.92, text, fontsize=small - 0.5, va="top", color=_OTHER, transform=_right(axis))
        at = figures.decimated(np.array([chart.at(t) for t in times]), chart.sheet.points)
        axis.plot(at, np.full(len(at), row + 0.24), "|", color=figures.INK, markersize=7, clip_on=False)


def _right(axis: Any) -> Any:
    """Texts begin at the left end of the axis, whatever its times are."""
    return axis.get_yaxis_transform()


def _draw_flows(chart: _Chart, axes: Sequence[Any]) -> None:
    axis = axes[0]
    for of, series, dash, _ in chart.slices():
        chart.step(axis, series.time, series.users, linestyle=dash, label=of, color=figures.INK)
    axis.set_ylabel("flows")
    axis.set_ylim(bottom=0)
    axis.yaxis.get_major_locator().set_params(integer=True, nbins=3)
    if len(chart.series.slices) > 1:
        chart.sheet.legend(axis)


def _draw_allocation(chart: _Chart, axes: Sequence[Any]) -> None:
    for axis, hop, column, unit, limit in zip(
        axes,
        ("ul", "dl", "edge"),
        ("ul_prb", "dl_prb", "gpu_mhz"),
        ("PRB", "PRB", "MHz"),
        (chart.series.prb, chart.series.prb, chart.series.max_mhz),
        strict=True,
    ):
        for _, series, dash, prefix in chart.slices():
            label = f"{prefix}{name(hop)}"
            chart.step(
                axis, series.time, getattr(series, column), linestyle=dash, color=_COLOURS[hop], label=label
            )
        axis.axhline(limit, color=figures.INK, linestyle="--", linewidth=0.9, label=f"maximum {limit} {unit}")
        axis.set_ylabel(unit)
        axis.set_ylim(0, limit * 1.08)
        chart.sheet.legend(axis)


def _draw_qos(chart: _Chart, axes: Sequence[Any]) -> None:
    axis = axes[0]
    for _, series, dash, prefix in chart.slices():
        times, q = np.asarray(series.time), np.asarray(series.met)
        judged = ~np.isnan(q)
        x, bits = times[judged], q[judged]
        if not len(bits):
            continue
        running = np.cumsum(bits) / np.arange(1, len(bits) + 1)
        sums = np.concatenate(([0.0], np.cumsum(bits)))
        first = np.maximum(np.arange(1, len(bits) + 1) - _ROLLING, 0)
        rolling = (sums[1:] - sums[first]) / (np.arange(1, len(bits) + 1) - first)
        look = {"color": _PROMISE, "linestyle": dash}
        chart.line(axis, x, running, label=f"{prefix}delivery ratio so far", **look)
        chart.line(axis, x, rolling, label=f"{prefix}of the last {_ROLLING} slots", alpha=0.5, **look)
        busy = np.asarray(series.busy)[judged]
        for value, mark, level in ((1, _MET, 1.06), (0, _VIOLATED, -0.06)):
            at = figures.decimated(chart.time(x[busy & (bits == value)]), chart.sheet.points)
            axis.plot(at, np.full(len(at), level), "|", color=mark, markersize=6)
    axis.set_ylim(-0.13, 1.13)
    axis.set_ylabel("ratio")
    chart.sheet.legend(axis)


def _draw_regret(chart: _Chart, axes: Sequence[Any], regret: Mapping[str, Array]) -> None:
    if not regret:
        return
    axis = axes[0]
    (series,) = chart.series.slices.values()
    for hop, curve in regret.items():
        chart.line(axis, series.time, curve, color=_COLOURS[hop], label=name(hop))
    total = np.sum(list(regret.values()), axis=0)
    chart.line(axis, series.time, total, color=figures.INK, label="all hops")
    axis.set_ylabel("cost / a_max")
    chart.sheet.legend(axis)


def _draw_clocks(chart: _Chart, axes: Sequence[Any]) -> None:
    series = chart.series
    if not series.clocks and not any(sum(of.unsynchronised) for of in series.slices.values()):
        return
    offsets, frames = axes
    for (host, clock), dash in zip(series.clocks.items(), cycle(_DASHES), strict=False):
        offset_us = np.asarray(clock.offset_ns, float) / 1e3
        look = {"linestyle": dash, "marker": ".", "markersize": 2.5, "linewidth": 0.8, "color": figures.INK}
        chart.line(offsets, clock.time, offset_us, label=host, **look)
    offsets.set_ylabel("offset, µs")
    chart.sheet.legend(offsets)
    for _, of, dash, prefix in chart.slices():
        chart.step(
            frames, of.time, of.unsynchronised, linestyle=dash, color=_VIOLATED, label=f"{prefix}frames"
        )
    frames.set_ylabel("frames")
    frames.set_ylim(bottom=0)
    chart.sheet.legend(frames)


def _draw_settings(chart: _Chart, axes: Sequence[Any], settings: Sequence[str]) -> None:
    for axis, setting in zip(axes, settings, strict=True):
        for of, series, dash, _ in chart.slices():
            if setting in series.settings:
                chart.step(
                    axis, series.time, series.settings[setting], linestyle=dash, color=_OTHER, label=of
                )
        axis.set_ylabel(name(setting))
        axis.set_ylim(bottom=0)
        if len(chart.series.slices) > 1:
            chart.sheet.legend(axis)


def _draw_measures(chart: _Chart, axes: Sequence[Any]) -> None:
    panels = iter(axes)
    for _, series, dash, prefix in chart.slices():
        for i, (of, measure) in enumerate(series.measures.items()):
            colour = _COLOURS.get(of, _OTHER if i else _PROMISE)
            missed = np.asarray(series.met if i == 0 else measure.met) == 0
            _draw_measure(
                chart, next(panels), f"{prefix}{name(of)}", measure, series.time, missed, colour, dash
            )


def _draw_measure(
    chart: _Chart,
    axis: Any,
    label: str,
    measure: MeasureSeries,
    seconds: Sequence[float],
    missed: Any,
    colour: str,
    dash: str,
) -> None:
    """The axis is for what is about the target: a value beyond it is at its end, with a mark; so is a missed
    control slot of which no value is known, as where nothing came back."""
    values, targets = np.asarray(measure.value, float), np.asarray(measure.target, float)
    times = chart.time(seconds)
    known = values[~np.isnan(values)]
    highest = float(known.max()) if len(known) else 0.0
    aims = targets[~np.isnan(targets)]
    lower = measure.better == "lower"
    end = highest * 1.08 or 1.0
    if len(aims):
        end = min(end, _TARGETS_SHOWN * aims.max()) if lower else end
        end = max(end, 1.25 * float(aims.max()))
    worst = end if lower else 0.0
    drawn = np.where(missed & np.isnan(values), worst, np.minimum(values, end))
    x, y = figures.binned_means(times, drawn, chart.sheet.points)
    axis.plot(x, y, linestyle=dash, marker=".", markersize=2.5, linewidth=0.8, color=colour, label=label)
    if len(aims):
        x, y = figures.binned_means(times, targets, chart.sheet.points)
        axis.step(
            np.append(x, chart.end),
            np.append(y, y[-1]),
            where="post",
            color=_VIOLATED,
            linewidth=1.1,
            label=_target(aims, measure.unit),
        )
        axis.set_yticks(sorted({0.0, float(aims[-1]), round(end, 1)}))
    at = figures.decimated(times[missed], chart.sheet.points)
    if len(at):
        height = figures.decimated(drawn[missed], chart.sheet.points)
        axis.plot(at, height, "x", color=_VIOLATED, markersize=3.5, label="missed", clip_on=False, zorder=3)
    beyond = times[(missed & np.isnan(values)) | (values > end)]
    if len(beyond):
        at = figures.decimated(beyond, chart.sheet.points)
        what = f"beyond, up to {highest:.0f} {measure.unit}" if highest > end else "nothing came back"
        axis.plot(
            at,
            np.full(len(at), worst),
            "^" if lower else "v",
            color=_VIOLATED,
            markersize=4,
            label=what,
            clip_on=False,
            zorder=3,
        )
    axis.set_ylabel(measure.unit)
    axis.set_ylim(0.0, end)
    chart.sheet.legend(axis)


def _target(targets: Array, unit: str) -> str:
    """The number of a target, and its range where it moved."""
    what = "budget" if unit == "ms" else "target"
    low, high, last = targets.min(), targets.max(), targets[-1]
    moved = f" ({low:.4g} to {high:.4g})" if high > low else ""
    return f"{what} {last:.4g} {unit}{moved}"


def _draw_states(chart: _Chart, axes: Sequence[Any]) -> None:
    for axis, hop in zip(axes, ("ul", "dl"), strict=True):
        for of, series, dash, _ in chart.slices():
            if not np.isnan(series.state[hop]).all():
                chart.step(
                    axis, series.time, series.state[hop], linestyle=dash, color=_COLOURS[hop], label=of
                )
        axis.set_ylabel(f"{name(hop)}, PRB")
        axis.set_ylim(0, chart.series.prb)
        if len(chart.series.slices) > 1:
            chart.sheet.legend(axis)


def _draw_actions(chart: _Chart, axes: Sequence[Any]) -> None:
    for axis, hop in zip(axes, ("ul", "edge", "dl"), strict=True):
        marks: Iterable[str] = cycle("osD^")
        for (of, series, _, _), mark in zip(chart.slices(), marks, strict=False):
            if series.actions[hop]:
                played = np.array([(s, a, n) for (s, a), n in series.actions[hop].items()], float)
                size = 12 + 160 * np.sqrt(played[:, 2] / played[:, 2].max())
                axis.scatter(
                    played[:, 0],
                    played[:, 1],
                    s=size,
                    marker=mark,
                    alpha=0.55,
                    color=_COLOURS[hop],
                    label=of,
                )
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.margins(0.1)
        axis.set_ylabel("MHz" if hop == "edge" else f"{name(hop)}, PRB")
        if len(chart.series.slices) > 1:
            chart.sheet.legend(axis)
    axes[-1].set_xlabel("state, PRB (the edge's is the uplink's)")
