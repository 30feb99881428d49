"""A run as one self-contained HTML page with its plots, and as ``summary.json``."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from controller.core.measure import RESOURCES as LEVERS
from controller.core.measure import Lever, worst_value
from controller.store import figures, misses
from controller.store.figures import Array
from controller.store.files import write_atomic
from controller.store.misses import Misses
from controller.store.oracle import LIVE, ORACLE_FILE, RESOURCES, can_be_played_again, read
from controller.store.run import Event, RunStore, StoreError, part_about
from controller.store.summary import Allocation, ClosedSlot, Summary

HTML_FILE, SUMMARY_FILE = "report.html", "summary.json"
LAST_DECISIONS = 20
LAST_EVENTS = 100

_ROLLING = 25
_NAMES = {"ul": "uplink", "edge": "edge", "dl": "downlink"}
_COLOURS = {"ul": "#2f81c7", "edge": "#cf7a22", "dl": "#2a9563"}
_PROMISE, _OTHER = "#8d63c9", "#5d6873"
_UNITS = {"ul": "PRB", "edge": "MHz", "dl": "PRB"}
_MET, _VIOLATED = "#2a9563", "#d64545"
_DASHES = ("-", "--", ":", "-.")

CLOCKS = "Clock offsets, the worst of each control slot, and frames that count for the round trip alone"
MISSES = "Missed control slots by cause"
REGRET = "Regret against the best fixed actions in hindsight"


@dataclass(slots=True)
class _MeasureSeries:
    """One measure of a slice: the worst user's value, the target, whether it was met; NaN where not known."""

    unit: str
    met: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    target: list[float] = field(default_factory=list)

    def add(self, measure: Mapping[str, Any], better: str) -> None:
        worst = worst_value(measure)
        targets = [t for _, t in measure["users"].values() if t is not None]
        self.met.append(_or_nan(measure["met"]))
        self.value.append(_or_nan(worst))
        # The strictest, where users have their own; one that nobody was held against goes on.
        strictest = min if better == "lower" else max
        self.target.append(strictest(targets) if targets else self.target[-1] if self.target else np.nan)

    def pad(self, length: int) -> None:
        for column in (self.met, self.value, self.target):
            column.extend([np.nan] * (length - len(column)))


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


@dataclass(slots=True)
class _SliceSeries:
    """One slice's control slots in their order, as columns."""

    time: list[float] = field(default_factory=list)
    users: list[float] = field(default_factory=list)
    ul_prb: list[float] = field(default_factory=list)
    dl_prb: list[float] = field(default_factory=list)
    gpu_mhz: list[float] = field(default_factory=list)
    met: list[float] = field(default_factory=list)
    busy: list[bool] = field(default_factory=list)
    measures: dict[str, _MeasureSeries] = field(default_factory=dict)
    settings: dict[str, list[float]] = field(default_factory=dict)
    """Mean over the users, by name."""
    unsynchronised: list[float] = field(default_factory=list)
    state: dict[str, list[float]] = field(default_factory=lambda: {lever.value: [] for lever in LEVERS})
    actions: dict[str, Counter[tuple[float, float]]] = field(
        default_factory=lambda: {lever.value: Counter() for lever in LEVERS}
    )

    def add(self, seconds: float, slot: ClosedSlot, name: str, allocation: Allocation) -> None:
        """Control slot ``slot`` of slice ``name``."""
        closed = slot.outcomes[name]
        before = len(self.time)
        self.time.append(seconds)
        self.users.append(closed["users"])
        self.ul_prb.append(allocation.ul_prb)
        self.dl_prb.append(allocation.dl_prb)
        self.gpu_mhz.append(allocation.gpu_mhz)
        self.busy.append(bool(closed["busy"]))
        self.met.append(_or_nan(closed["met"]))
        self.unsynchronised.append(closed["counts"].get("unsynchronised_frames", 0))
        for measure, stored in closed["measures"].items():
            series = self.measures.setdefault(measure, _MeasureSeries(stored["unit"]))
            series.pad(before)
            series.add(stored, stored["better"])
        for series in self.measures.values():
            series.pad(before + 1)
        self._add_settings(slot.settings[name], before)
        choices = {c["lever"]: c for c in slot.choices[name] if not c.get("user")}
        for lever in LEVERS:
            choice = choices.get(lever.value)
            known = choice is not None and choice["state"] is not None
            self.state[lever.value].append(choice["state"] if choice is not None and known else np.nan)
            if choice is not None and known:
                self.actions[lever.value][choice["state"], choice["action"]] += 1

    def _add_settings(self, settings: Mapping[str, Mapping[str, Sequence[float]]], before: int) -> None:
        values: dict[str, list[float]] = {}
        for of in settings.values():
            for setting, numbers in of.items():
                values.setdefault(setting, []).extend(numbers)
        for setting in {*values, *self.settings}:
            column = self.settings.setdefault(setting, [np.nan] * before)
            column.append(float(np.mean(values[setting])) if setting in values else np.nan)

    def by_hop(self) -> dict[str, list[float]]:
        """What was in force, PRB or MHz."""
        return {Lever.UL.value: self.ul_prb, Lever.EDGE.value: self.gpu_mhz, Lever.DL.value: self.dl_prb}

    def met_by_hop(self) -> dict[str, list[float]]:
        """Of the measures that are named as a lever, whether they were met."""
        return {name: m.met for name, m in self.measures.items() if name in _NAMES}


@dataclass(slots=True)
class _CellSeries:
    slices: dict[str, _SliceSeries] = field(default_factory=dict)
    last: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=LAST_DECISIONS))
    prb: int = 0
    max_mhz: int = 0
    clocks: dict[str, _ClockSeries] = field(default_factory=dict)


@dataclass(slots=True)
class _ClockSeries:
    """A host's worst offset in each control slot, ns; NaN where it followed no clock."""

    time: list[float] = field(default_factory=list)
    offset_ns: list[float] = field(default_factory=list)


def build(
    run_folder: Path | str,
    *,
    out: Path | str | None = None,
    read_misses: Callable[[RunStore], Misses] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Write ``report.html`` and ``summary.json`` into the run folder (or ``out``).

    ``read_misses`` is :func:`controller.misses.read`; without it nothing is said of why slots were missed.

    Returns the page's path and the summary: :meth:`Summary.result`, ``run`` (name, versions, seed, host),
    ``parts`` (of each part of the run :func:`controller.store.run.part_about` and :meth:`Summary.headline`),
    ``misses`` (:meth:`controller.store.misses.Misses.result`, where they are read) and ``oracle``: what
    :meth:`controller.store.oracle.Reference.judge` says of the run's one slice with its ``cell`` and
    ``slice``, or ``missing``, why there is none. The run may still be recorded meanwhile.

    Raises:
        StoreError: the run cannot be read, or the folder not written; names the path.
        ImportError: matplotlib or Jinja2 is not installed; names the extra ``report``.
    """
    template = figures.template(Path(__file__).with_name("report.html"))
    folder = Path(run_folder)
    with RunStore.open(folder) as store:
        about = store.about()
        parts = list(store.parts())
        summary, by_part, cells = _read(store)
        missed = Misses() if read_misses is None else read_misses(store)
        events: deque[Event] = deque(maxlen=LAST_EVENTS)
        for event in store.events():
            summary.add_event(event.cell, event.kind)
            events.append(event)
    run = {"name": folder.resolve().name, **about}
    result = summary.result()
    oracle, regret = _oracle(folder, about, result, cells)
    result |= {
        "run": run,
        "parts": [
            {**part_about(part, before), **by_part.get(part.number, Summary()).headline()}
            for part, before in zip(parts, (None, *parts), strict=False)
        ],
        "oracle": oracle,
    }
    if read_misses is not None:
        result["misses"] = missed.result()
    page = template.render(
        run=run,
        summary=result,
        configs={part.number: part.config for part in parts},
        oracle=oracle,
        searched=(folder / ORACLE_FILE).exists(),
        misses=missed.result()["cells"],
        resources=dict(zip(RESOURCES, ("UL PRB", "DL PRB", "GPU MHz"), strict=True)),
        plots={cell: _plots(cell, series, regret, missed) for cell, series in cells.items()},
        decisions={cell: [_decision_row(r) for r in reversed(s.last)] for cell, s in cells.items()},
        events=[_event_row(e) for e in reversed(events)],
        hops=[lever.value for lever in LEVERS],
        measures={
            cell: list(
                dict.fromkeys(
                    name
                    for slice_series in c["slices"].values()
                    for name in slice_series["hop_delivery_ratio"]
                )
            )
            for cell, c in result["cells"].items()
        },
        name=_name,
    )
    target = Path(out) if out is not None else folder
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_atomic(target / SUMMARY_FILE, (json.dumps(result, indent=1) + "\n").encode())
        write_atomic(target / HTML_FILE, page.encode())
    except OSError as error:
        raise StoreError(f"{target}: the report cannot be written: {error.strerror or error}") from error
    return target / HTML_FILE, result


def _oracle(
    folder: Path, about: Mapping[str, Any], result: Mapping[str, Any], cells: Mapping[str, _CellSeries]
) -> tuple[dict[str, Any], Mapping[str, Array]]:
    """The run against its oracle, and its regret over time by hop; why there is none, and nothing."""
    if not can_be_played_again(about):
        return {"missing": LIVE}, {}
    slices = [
        (cell, name, slice_series)
        for cell, series in cells.items()
        for name, slice_series in series.slices.items()
    ]
    if len(slices) != 1:
        why = "one with more has no oracle" if slices else "no control slot is over"
        return {"missing": f"an oracle is for a run with one slice; {why}"}, {}
    cell, name, slice_series = slices[0]
    try:
        found = read(folder, about["seed"], len(slice_series.time))
    except ValueError as error:
        return {"missing": f"{error}; `prbandit report {folder} --oracle` searches it again"}, {}
    if found is None:
        return {
            "missing": f"no oracle yet: `prbandit report {folder} --oracle` searches it (some minutes)"
        }, {}
    actions = slice_series.by_hop()
    judged = found.judge(result["cells"][cell]["slices"][name], actions, slice_series.met_by_hop())
    return {"cell": cell, "slice": name, **judged}, found.regret(actions, slice_series.met_by_hop())


# ---- reading ---------------------------------------------------------------------------------------------


def _read(store: RunStore) -> tuple[Summary, dict[int, Summary], dict[str, _CellSeries]]:
    summary = Summary()
    by_part: dict[int, Summary] = {}
    cells: dict[str, _CellSeries] = {}
    first_ns = 0
    for part, record in store.decisions_by_part():
        by_part.setdefault(part, Summary()).add(record)
        cell = cells.setdefault(record["cell"], _CellSeries())
        cell.last.append(record)
        cell.prb, cell.max_mhz = record["prb"], record["max_mhz"]
        slot = summary.add(record)
        if slot is not None:
            first_ns = first_ns or slot.begin_ns
        for host, clock_status in record.get("clocks", {}).items():
            clock = cell.clocks.setdefault(host, _ClockSeries())
            clock.time.append((record["time_ns"] - (first_ns or record["time_ns"])) / 1e9)
            clock.offset_ns.append(
                np.nan if clock_status["worst_offset_ns"] is None else clock_status["worst_offset_ns"]
            )
        if slot is not None:
            seconds = (slot.begin_ns - first_ns) / 1e9
            for name, allocation in slot.allocations.items():
                if name in slot.outcomes:
                    cell.slices.setdefault(name, _SliceSeries()).add(seconds, slot, name, allocation)
    return summary, by_part, cells


def _name(text: str) -> str:
    """A lever's or a measure's name as people read it."""
    return _NAMES.get(text, text.replace("_", " "))


# ---- tables ----------------------------------------------------------------------------------------------


def _decision_row(record: Mapping[str, Any]) -> dict[str, Any]:
    slices = []
    for name, s in record["slices"].items():
        hops = {}
        for choice in s["choices"]:
            if not choice.get("user"):
                indices = choice["indices"]
                pairs = list(zip(choice["actions"], indices, strict=True)) if indices else []
                hops[choice["lever"]] = {**choice, "pairs": pairs}
        granted = {d: prb for d, (prb, _) in s["granted"].items()}
        slices.append(
            {"name": name, "closed": s["closed"], "hops": hops, "granted": granted, "settings": s["settings"]}
        )
    return {**record, "slices": slices}


def _event_row(event: Event) -> dict[str, Any]:
    return {
        "time_ns": event.time_ns,
        "cell": event.cell,
        "kind": event.kind,
        "text": event.text,
        "data": json.dumps(event.data) if event.data else "",
    }


# ---- plots -----------------------------------------------------------------------------------------------


def _plots(
    cell: str, series: _CellSeries, regret: Mapping[str, Array], missed: Misses
) -> list[dict[str, str]]:
    """Figures of one cell as inline SVG; none where no control slot is over."""
    if not series.slices:
        return []
    import matplotlib
    from matplotlib.figure import Figure

    measures = [
        (slice_series, name, m)
        for slice_series in series.slices
        for name, m in series.slices[slice_series].measures.items()
    ]
    settings = sorted({name for slice_series in series.slices.values() for name in slice_series.settings})
    unit, scale = figures.unit(max(slice_series.time[-1] for slice_series in series.slices.values()))
    with_misses = {name: s for name, s in missed.cells.get(cell, {}).items() if s.missed}

    def plot_misses(axes: Sequence[Any], series: _CellSeries) -> None:
        last = max(slice_series.time[-1] for slice_series in series.slices.values())
        for axis, (name, s) in zip(axes, with_misses.items(), strict=True):
            misses.draw(axis, s, missed.seconds(s) / scale, last)
            if len(series.slices) > 1:
                axis.set_title(name)

    panels: tuple[tuple[str, int, float, Callable[[Any, _CellSeries], None], bool], ...] = (
        ("Active flows", 1, 1.5, _plot_flows, True),
        ("Quotas and GPU clock", 3, 1.4, _plot_allocation, True),
        ("Settings, the mean of each slice's users", len(settings), 1.4, _plot_settings, True),
        ("QoS", 1, 2.0, _plot_qos, True),
        (MISSES, len(with_misses), 2.2, plot_misses, True),
        ("Measures, the worst user of each control slot", len(measures), 1.25, _plot_measures, True),
        ("Hop states", 2, 1.4, _plot_states, True),
        (REGRET, 1, 2.4, lambda axes, cell: _plot_regret(axes, cell, regret), True),
        (CLOCKS, 2, 1.5, _plot_clocks, True),
        ("Actions by hop state", 3, 3.2, _plot_actions, False),
    )
    for slice_series in series.slices.values():
        slice_series.time = [t / scale for t in slice_series.time]
    for clock in series.clocks.values():
        clock.time = [t / scale for t in clock.time]
    plots = []
    with matplotlib.rc_context(figures.RC):
        for number, (title, count, height, draw, over_time) in enumerate(panels):
            if not count:
                continue
            if over_time:
                figure = Figure(figsize=(9.5, height * count + 0.5), layout="constrained")
                axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
                axes[-1].set_xlabel(f"{unit} since the first control slot")
            else:
                figure = Figure(figsize=(9.5, height), layout="constrained")
                axes = figure.subplots(1, count, squeeze=False)[0, :]
            draw(axes, series)
            if any(a.has_data() for a in axes):
                label = f"{title}, cell {cell}"
                plots.append({"title": title, "svg": figures.svg(figure, f"{cell}-{number}", label)})
    return plots


def _styled(series: _CellSeries) -> Iterable[tuple[str, _SliceSeries, str, str]]:
    """Slices with the dash and the prefix of their curves."""
    for (name, slice_series), dash in zip(series.slices.items(), cycle(_DASHES), strict=False):
        yield name, slice_series, dash, "" if len(series.slices) == 1 else f"{name} "


def _plot_flows(axes: Sequence[Any], series: _CellSeries) -> None:
    axis = axes[0]
    for name, slice_series, dash, _ in _styled(series):
        axis.step(
            *figures.thin(slice_series.time, slice_series.users),
            where="post",
            linestyle=dash,
            label=name,
            color=figures.INK,
        )
    axis.set_ylabel("flows")
    axis.set_ylim(bottom=0)
    axis.yaxis.get_major_locator().set_params(integer=True)
    if len(series.slices) > 1:
        figures.legend(axis)


def _plot_allocation(axes: Sequence[Any], series: _CellSeries) -> None:
    for axis, hop, column, unit, limit in zip(
        axes,
        ("ul", "dl", "edge"),
        ("ul_prb", "dl_prb", "gpu_mhz"),
        ("PRB", "PRB", "MHz"),
        (series.prb, series.prb, series.max_mhz),
        strict=True,
    ):
        for _, slice_series, dash, prefix in _styled(series):
            x, y = figures.thin(slice_series.time, getattr(slice_series, column))
            axis.step(x, y, where="post", linestyle=dash, color=_COLOURS[hop], label=f"{prefix}{_name(hop)}")
        axis.axhline(limit, color=figures.INK, linestyle="--", linewidth=0.9, label=f"maximum {limit} {unit}")
        axis.set_ylabel(f"{_name(hop)}, {unit}")
        axis.set_ylim(0, limit * 1.08)
        figures.legend(axis)


def _plot_qos(axes: Sequence[Any], series: _CellSeries) -> None:
    axis = axes[0]
    for _, slice_series, dash, prefix in _styled(series):
        times, q = np.asarray(slice_series.time), np.asarray(slice_series.met)
        judged = ~np.isnan(q)
        x, bits = times[judged], q[judged]
        if not len(bits):
            continue
        running = np.cumsum(bits) / np.arange(1, len(bits) + 1)
        sums = np.concatenate(([0.0], np.cumsum(bits)))
        first = np.maximum(np.arange(1, len(bits) + 1) - _ROLLING, 0)
        rolling = (sums[1:] - sums[first]) / (np.arange(1, len(bits) + 1) - first)
        colour = _PROMISE
        axis.plot(*figures.thin(x, running), color=colour, linestyle=dash, label=f"{prefix}ratio so far")
        label = f"{prefix}last {_ROLLING}"
        axis.plot(*figures.thin(x, rolling), color=colour, linestyle=dash, alpha=0.45, label=label)
        busy = np.asarray(slice_series.busy)[judged]
        for value, mark, level in ((1, _MET, 1.06), (0, _VIOLATED, -0.06)):
            at = figures.some(x[busy & (bits == value)])
            axis.plot(at, np.full(len(at), level), "|", color=mark, markersize=6)
    axis.set_ylim(-0.13, 1.13)
    axis.set_ylabel("QoS delivery ratio")
    figures.legend(axis)


def _plot_regret(axes: Sequence[Any], series: _CellSeries, regret: Mapping[str, Array]) -> None:
    if not regret:
        return
    axis = axes[0]
    (slice_series,) = series.slices.values()
    for hop, curve in regret.items():
        axis.plot(*figures.thin(slice_series.time, curve), color=_COLOURS[hop], label=_name(hop))
    total = np.sum(list(regret.values()), axis=0)
    axis.plot(*figures.thin(slice_series.time, total), color=figures.INK, label="all hops")
    axis.set_ylabel("cost / a_max")
    figures.legend(axis)


def _plot_clocks(axes: Sequence[Any], series: _CellSeries) -> None:
    if not series.clocks and not any(
        sum(slice_series.unsynchronised) for slice_series in series.slices.values()
    ):
        return
    offsets, frames = axes
    for (host, clock), dash in zip(series.clocks.items(), cycle(_DASHES), strict=False):
        x, y = figures.thin(clock.time, clock.offset_ns)
        offsets.plot(
            x,
            y / 1e3,
            linestyle=dash,
            marker=".",
            markersize=2.5,
            linewidth=0.8,
            color=figures.INK,
            label=host,
        )
    offsets.set_ylabel("offset, µs")
    if series.clocks:
        figures.legend(offsets)
    for _, slice_series, dash, prefix in _styled(series):
        x, y = figures.thin(slice_series.time, slice_series.unsynchronised)
        frames.step(x, y, where="post", linestyle=dash, color=_VIOLATED, label=f"{prefix}frames")
    frames.set_ylabel("frames")
    frames.set_ylim(bottom=0)
    figures.legend(frames)


def _plot_settings(axes: Sequence[Any], series: _CellSeries) -> None:
    names = sorted({name for slice_series in series.slices.values() for name in slice_series.settings})
    for axis, name in zip(axes, names, strict=True):
        for _, slice_series, dash, prefix in _styled(series):
            if name in slice_series.settings:
                x, y = figures.thin(slice_series.time, slice_series.settings[name])
                axis.step(x, y, where="post", linestyle=dash, color=_OTHER, label=f"{prefix}{_name(name)}")
        axis.set_ylabel(_name(name))
        axis.set_ylim(bottom=0)
        figures.legend(axis)


def _plot_measures(axes: Sequence[Any], series: _CellSeries) -> None:
    panels = iter(axes)
    for _, slice_series, dash, prefix in _styled(series):
        for first, (name, measure) in zip([True] + [False] * 15, slice_series.measures.items(), strict=False):
            axis = next(panels)
            colour = _COLOURS.get(name, _PROMISE if first else _OTHER)
            axis.plot(
                *figures.thin(slice_series.time, measure.value),
                linestyle=dash,
                marker=".",
                markersize=2.5,
                linewidth=0.8,
                color=colour,
                label=f"{prefix}{_name(name)}",
            )
            x, y = figures.thin(slice_series.time, measure.target)
            if not np.isnan(y).all():
                axis.plot(x, y, color=_VIOLATED, linestyle=dash, linewidth=0.9, label=f"{prefix}target")
            axis.set_ylabel(f"{_name(name)}, {measure.unit}")
            axis.set_ylim(bottom=0)
            figures.legend(axis)


def _plot_states(axes: Sequence[Any], series: _CellSeries) -> None:
    for axis, hop in zip(axes, ("ul", "dl"), strict=True):
        for _, slice_series, dash, prefix in _styled(series):
            if not np.isnan(slice_series.state[hop]).all():
                x, y = figures.thin(slice_series.time, slice_series.state[hop])
                axis.step(
                    x, y, where="post", linestyle=dash, color=_COLOURS[hop], label=f"{prefix}{_name(hop)}"
                )
        axis.set_ylabel(f"{_name(hop)} state, PRB")
        axis.set_ylim(0, series.prb)
        if axis.has_data():
            figures.legend(axis)


def _plot_actions(axes: Sequence[Any], series: _CellSeries) -> None:
    for axis, hop in zip(axes, ("ul", "edge", "dl"), strict=True):
        marks = cycle("osD^")
        for (_, slice_series, _, prefix), mark in zip(_styled(series), marks, strict=False):
            if slice_series.actions[hop]:
                played = np.array([(s, a, n) for (s, a), n in slice_series.actions[hop].items()], float)
                size = 12 + 260 * np.sqrt(played[:, 2] / played[:, 2].max())
                axis.scatter(
                    played[:, 0],
                    played[:, 1],
                    s=size,
                    marker=mark,
                    alpha=0.55,
                    color=_COLOURS[hop],
                    label=prefix.strip(),
                )
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.margins(0.15)
        axis.set_title(_name(hop))
        axis.set_xlabel("uplink state, PRB" if hop == "edge" else "state, PRB")
        axis.set_ylabel("GPU clock, MHz" if hop == "edge" else "action, PRB")
        if axis.has_data() and len(series.slices) > 1:
            axis.legend(fontsize=8)
