"""Runs beside each other: one table and one chart of what they kept and what they spent.

The figures of a run are those of :class:`controller.store.summary.Summary`. Runs of one scenario and one
policy are a group: its figures are means over its runs, with 95 % intervals where there are several seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from controller.core.measure import RESOURCES
from controller.experiments.figures import COLOURS, Section, Table, render, table_lines
from controller.experiments.stats import estimate
from controller.store import figures as pages
from controller.store.parts import differences
from controller.store.run import RunStore, StoreError
from controller.store.summary import Summary

LENGTHS = 1.05
"""Runs whose lengths differ by more than this ratio are said to differ in it."""
_SAID = 4
"""Differences of two scenarios that are named; the others are counted."""


class Figure(NamedTuple):
    """One figure of a slice: how it is called, how a value is written (in percent where ``percent``)."""

    label: str
    of: Callable[[Mapping[str, Any]], float | None]
    percent: bool = False
    digits: int = 1


def _unattributed(s: Mapping[str, Any]) -> float | None:
    levers = {lever for by_lever in s["unattributed"].values() for lever in by_lever}
    possible = s["control_slots"] * len(levers | {lever.value for lever in RESOURCES})
    missing = sum(n for by_lever in s["unattributed"].values() for n in by_lever.values())
    return missing / possible if possible else None


def _rescued(s: Mapping[str, Any]) -> float | None:
    return s["rescued"] / s["control_slots"] if s["control_slots"] else None


FIGURES: dict[str, Figure] = {
    "qos_delivery_ratio": Figure("QoS", lambda s: s["qos_delivery_ratio"], True),
    "qos_delivery_ratio_busy": Figure("QoS, busy", lambda s: s["qos_delivery_ratio_busy"], True),
    "avg_ul_prb": Figure("UL PRB", lambda s: s["avg_ul_prb"]),
    "avg_dl_prb": Figure("DL PRB", lambda s: s["avg_dl_prb"]),
    "avg_gpu_mhz": Figure("GPU MHz", lambda s: s["avg_gpu_mhz"], digits=0),
    "bs_power_saving": Figure("BS saving", lambda s: s["bs_power_saving"], True),
    "ue_power_saving": Figure("UE saving", lambda s: s["ue_power_saving"], True),
    "explored": Figure("explored", lambda s: s["explored"], True),
    "unattributed": Figure("unattributed", _unattributed, True),
    "rescued": Figure("rescued", _rescued, True),
}
"""Of a slice: shares of control slots by how long they lasted (QoS), means over time of what was in force,
savings of eq. 5 and 6 of the MUCB1 paper, and the shares of choices that explored, of control slots and
levers of which nothing was learned, and of control slots in which the slice was rescued."""
_DRAWN = ("qos_delivery_ratio", "avg_ul_prb", "avg_dl_prb", "avg_gpu_mhz")

_PLAYED = {"policy", "policy_options", "hop_policies"}
"""Options of a slice that are how it is played, not what."""
_NOT_PLAYED = ("links", "security", "store", "seed", "log")
"""Parts of a configuration that are of the host, or of the run."""


@dataclass(frozen=True)
class _Run:
    """One run folder: what was played, by whom, and what came of it."""

    path: Path
    scenario: Mapping[str, Any]
    services: Mapping[tuple[str, str], str]
    options: Mapping[tuple[str, str], Mapping[str, Any]]
    """Of each slice's policy, as configured."""
    seed: Any
    versions: Mapping[str, str]
    clock: str
    parts: int
    summary: Mapping[str, Any]

    @property
    def slices(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        return {(c, s): of for c, cell in self.summary["cells"].items() for s, of in cell["slices"].items()}

    @property
    def policy(self) -> str:
        """What the slices were played by; each by its name where they differ."""
        one_cell = len(self.summary["cells"]) == 1
        by_slice = {
            key[1] if one_cell else " ".join(key): (", then ".join(s["policies"]) or "none")
            + _options_text(self.options.get(key, {}))
            for key, s in self.slices.items()
        }
        if len(set(by_slice.values())) == 1:
            return next(iter(by_slice.values()))
        return "; ".join(f"{key}: {policy}" for key, policy in by_slice.items())

    @property
    def length_s(self) -> float:
        cells = self.summary["cells"].values()
        return max(((c["end_ns"] - c["begin_ns"]) / 1e9 for c in cells), default=0.0)

    @property
    def key(self) -> str:
        return json.dumps([self.scenario, self.policy], sort_keys=True, default=str)

    def measures(self, key: tuple[str, str]) -> Mapping[str, Any]:
        measures: Mapping[str, Any] = self.summary["cells"][key[0]]["outcomes"][key[1]]["measures"]
        return measures


def _read(path: Path) -> _Run:
    with RunStore.open(path) as store, store.snapshot():
        summary = Summary()
        for record in store.decisions():
            summary.add(record)
        parts = list(store.parts())
    latest = parts[-1]
    result = summary.result()
    if not result["control_slots"]:
        raise StoreError(f"{path}: no control slot of this run is over: there is nothing to compare")
    try:
        config = yaml.safe_load(latest.config)
    except yaml.YAMLError as error:
        raise StoreError(f"{path}: its configuration cannot be read: {error}") from error
    config = config if isinstance(config, dict) else {}
    slices = {
        (str(cell.get("id")), str(s.get("id"))): s
        for cell in config.get("cells", ())
        for s in cell.get("slices", ())
    }
    return _Run(
        path,
        _scenario(config),
        {key: str(s.get("service", "")) for key, s in slices.items()},
        {key: s.get("policy_options") or {} for key, s in slices.items()},
        latest.about.get("seed"),
        latest.about.get("versions", {}),
        str(latest.about.get("meta", {}).get("clock", "real")),
        len(parts),
        result,
    )


def _options_text(options: Mapping[str, Any]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in options.items())})" if options else ""


def _scenario(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration says what is played, not how, where, and under which seed."""
    out = {name: value for name, value in config.items() if name not in _NOT_PLAYED}
    if isinstance(out.get("control"), dict):
        out["control"] = {name: value for name, value in out["control"].items() if name != "seed"}
    out["cells"] = [
        {**cell, "slices": [{k: v for k, v in s.items() if k not in _PLAYED} for s in cell.get("slices", ())]}
        for cell in config.get("cells", ())
    ]
    return out


def compare(runs: Sequence[str | Path]) -> dict[str, Any]:
    """The runs in these folders beside each other, as plain JSON.

    ``groups`` in the order of their first runs: ``policy``, ``runs``, ``seeds``, ``length_s`` (mean), in what
    it ``differs`` from the first group, its policy aside, and how (scenario, carrier, GPU, length, clock,
    version), and ``slices``: ``cell``, ``slice``, ``service``, ``figures`` (those of :data:`FIGURES`:
    ``mean`` and ``half_95``, which is None with one run; None where it is not known), ``measures`` by name
    (``kept``, ``worst``: the mean of the worst user; ``unit``) and ``to_first``, differences of the figures
    to the first group's (None where it has no such slice): over the seeds that both have, else of the means.
    ``notes`` says what to mind.

    StoreError where a folder holds no run or one without a control slot that is over; ValueError for a folder
    that is there twice; ImportError, naming the extra ``research``, where SciPy is wanted and not installed.
    """
    paths = [Path(run) for run in runs]
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise ValueError(f"{', '.join(twice)} is there twice")
    groups: dict[str, list[_Run]] = {}
    for path in paths:
        run = _read(path)
        groups.setdefault(run.key, []).append(run)
    first = next(iter(groups.values()))
    out = [_group(group, first) for group in groups.values()]
    labels = {name: figure.label for name, figure in FIGURES.items()}
    return {"figures": labels, "groups": out, "notes": _notes(list(groups.values()), out)}


def _group(group: Sequence[_Run], first: Sequence[_Run]) -> dict[str, Any]:
    keys = dict.fromkeys(key for run in group for key in run.slices)
    return {
        "policy": group[0].policy,
        "runs": [str(run.path) for run in group],
        "seeds": [run.seed for run in group],
        "length_s": sum(run.length_s for run in group) / len(group),
        "differs": {} if group is first else _differs(group, first),
        "slices": [
            {
                "cell": key[0],
                "slice": key[1],
                "service": group[0].services.get(key, ""),
                "figures": {name: _mean([_value(run, key, name) for run in group]) for name in FIGURES},
                "measures": _measures(group, key),
                "to_first": _to_first(group, first, key) if _shared(group, first, key) else None,
            }
            for key in keys
        ],
    }


def _value(run: _Run, key: tuple[str, str], name: str) -> float | None:
    return FIGURES[name].of(run.slices[key]) if key in run.slices else None


def _mean(values: Sequence[float | None]) -> dict[str, float | None] | None:
    found = estimate(values)
    return None if found is None else found.to_dict()


def _measures(group: Sequence[_Run], key: tuple[str, str]) -> dict[str, Any]:
    of = [run.measures(key) for run in group if key in run.slices]
    return {
        name: {
            "unit": next(m[name]["unit"] for m in of if name in m),
            "kept": _mean([m[name]["delivery_ratio"] for m in of if name in m]),
            "worst": _mean([m[name]["mean_of_worst_user"] for m in of if name in m]),
        }
        for name in dict.fromkeys(name for m in of for name in m)
    }


def _shared(group: Sequence[_Run], first: Sequence[_Run], key: tuple[str, str]) -> bool:
    return group is not first and any(key in run.slices for run in first)


def _to_first(group: Sequence[_Run], first: Sequence[_Run], key: tuple[str, str]) -> dict[str, Any]:
    by_seed = [{run.seed: run for run in runs if run.seed is not None} for runs in (group, first)]
    shared = [seed for seed in by_seed[0] if seed in by_seed[1]]
    out: dict[str, Any] = {}
    for name in FIGURES:
        pairs = [(_value(by_seed[0][s], key, name), _value(by_seed[1][s], key, name)) for s in shared]
        known = [a - b for a, b in pairs if a is not None and b is not None]
        if not known:
            means = [_mean([_value(run, key, name) for run in runs]) for runs in (group, first)]
            known = [means[0]["mean"] - means[1]["mean"]] if all(means) else []  # type: ignore[index,operator]
        out[name] = _mean(known)
    return out


def _differs(group: Sequence[_Run], first: Sequence[_Run]) -> dict[str, str]:
    """In what a group is not as the first is, its policy aside, and how."""
    one, other = group[0], first[0]
    out = {}
    if changed := differences(other.scenario, one.scenario):
        more = f" and {len(changed) - _SAID} more" if len(changed) > _SAID else ""
        out["scenario"] = f"{'; '.join(changed[:_SAID])}{more}"
    for name, what, unit in (("prb", "carrier", "PRB"), ("max_mhz", "GPU", "MHz")):
        has, had = (
            " and ".join(map(str, sorted({cell[name] for cell in run.summary["cells"].values()})))
            for run in (one, other)
        )
        if has != had:
            out[what] = f"{has} {unit}, not {had}"
    has_s, had_s = (sum(run.length_s for run in runs) / len(runs) for runs in (group, first))
    if max(has_s, had_s) > LENGTHS * min(has_s, had_s):
        out["length"] = f"{has_s:.0f} s, not {had_s:.0f} s"
    if one.clock != other.clock:
        out["clock"] = f"{one.clock}, not {other.clock}"
    has, had = (str(run.versions.get("prbandit")) for run in (one, other))
    if has != had:
        out["version"] = f"{has}, not {had}"
    return out


def _notes(groups: Sequence[Sequence[_Run]], out: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    if any(group["differs"] for group in out):
        notes.append(
            "Not all of these runs are of one kind: what a group differs in from the first, beside its "
            "policy, is said with it. A difference of figures may be that one's."
        )
    for group in groups:
        notes += [
            f"{run.path}: its configuration changed in the course of it ({run.parts} parts)"
            for run in group
            if run.parts > 1
        ]
        seeds = [run.seed for run in group]
        if twice := sorted({str(seed) for seed in seeds if seed is not None and seeds.count(seed) > 1}):
            where = f"{group[0].policy}: seed {', '.join(twice)} is there more than once"
            notes.append(f"{where}: the interval takes these runs for independent ones")
        lengths = [run.length_s for run in group]
        if max(lengths) > LENGTHS * min(lengths):
            spread = f"{min(lengths):.0f} to {max(lengths):.0f} s"
            notes.append(f"{group[0].policy}: its runs are of several lengths, {spread}")
    return notes


# ---- shown -----------------------------------------------------------------------------------------------


def text(result: Mapping[str, Any]) -> str:
    """The comparison as tables of text."""
    lines: list[str] = []
    for part in _shown(result):
        lines += [*(table_lines(part) if isinstance(part, Table) else [part]), ""]
    return "\n".join(lines).rstrip()


def page(result: Mapping[str, Any]) -> str:
    """The comparison as a self-contained HTML page. ImportError, naming the extra ``report``, where
    matplotlib or Jinja2 is not installed."""
    pages.require()
    markup = _chart(result, "wide", 4, 11.0) + _chart(result, "narrow", 2, 4.4)
    chart = [("QoS, and what it took, by slice; 95 % intervals", markup)]
    introduction = [
        "Means over the runs of a group (one scenario, one policy), with 95 % intervals where there are "
        "several seeds. QoS is the share of time in which the slice's promise was kept; PRB and MHz are "
        "means over time of what was in force."
    ]
    return render("Runs compared", introduction, [Section("runs", "Runs", chart, _shown(result))])


def _names(result: Mapping[str, Any]) -> list[str]:
    """A group by its policy; by its first run, too, where that is not enough."""
    policies = [group["policy"] for group in result["groups"]]
    return [
        p if policies.count(p) == 1 else f"{p} ({Path(group['runs'][0]).name})"
        for p, group in zip(policies, result["groups"], strict=True)
    ]


def _shown(result: Mapping[str, Any]) -> list[str | Table]:
    groups, names = result["groups"], _names(result)
    rows = [
        [
            name,
            str(len(group["runs"])),
            ", ".join("?" if seed is None else str(seed) for seed in group["seeds"]),
            f"{group['length_s']:.0f}",
            ", ".join(group["differs"]) or "-",
        ]
        for name, group in zip(names, groups, strict=True)
    ]
    shown: list[str | Table] = [
        Table("Groups", ("policy", "runs", "seeds", "length, s", "differs from the first in"), rows)
    ]
    shown += [
        f"{name} differs from the first in its {what}: {how}"
        for name, group in zip(names, groups, strict=True)
        for what, how in group["differs"].items()
    ]
    shown += [f"Note: {note}" for note in result["notes"]]
    for key in dict.fromkeys((s["cell"], s["slice"]) for group in groups for s in group["slices"]):
        shown += _slice_tables(key, groups, names)
    return shown


def _slice_tables(
    key: tuple[str, str], groups: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[Table]:
    found = [
        (f"{name}{' *' if group['differs'] else ''}", s)
        for name, group in zip(names, groups, strict=True)
        for s in group["slices"]
        if (s["cell"], s["slice"]) == key
    ]
    where = f"Cell {key[0]}, slice {key[1]} ({found[0][1]['service']})"
    starred = "; *: not of the first one's kind" if any(g["differs"] for g in groups) else ""
    labels = ["policy", *(f.label for f in FIGURES.values())]
    tables = [Table(f"{where}{starred}", labels, [[name, *_cells(s["figures"])] for name, s in found])]
    if differences_ := [[name, *_cells(s["to_first"], "+")] for name, s in found if s["to_first"]]:
        tables.append(Table(f"{where}: differences to the first (points, PRB, MHz)", labels, differences_))
    measures = list(dict.fromkeys(name for _, s in found for name in s["measures"]))
    if measures:
        units = {m: next(s["measures"][m]["unit"] for _, s in found if m in s["measures"]) for m in measures}
        heads = [
            h for m in measures for h in (f"{m} kept", f"worst{'' if units[m] == '1' else f', {units[m]}'}")
        ]
        cells = [
            [name, *(c for m in measures for c in _measure_cells(s["measures"].get(m)))] for name, s in found
        ]
        tables.append(Table(f"{where}: measures, kept and mean of the worst user", ["policy", *heads], cells))
    return tables


def _measure_cells(measure: Mapping[str, Any] | None) -> tuple[str, str]:
    if measure is None:
        return "-", "-"
    return _cell(measure["kept"], True, 1), _cell(measure["worst"], False, 2)


def _cells(figures: Mapping[str, Any], sign: str = "") -> list[str]:
    return [_cell(figures[name], f.percent, f.digits, sign) for name, f in FIGURES.items()]


def _cell(value: Mapping[str, Any] | None, percent: bool, digits: int, sign: str = "") -> str:
    """A mean with its interval; a share in percent, or in points where it is a difference (``sign``)."""
    if value is None:
        return "-"
    scale, unit = (100.0, "" if sign else "\u00a0%") if percent else (1.0, "")
    # Spaces that do not break: a value stays on its line.
    half = "" if value["half_95"] is None else f"\u00a0±\u00a0{scale * value['half_95']:.{digits}f}"
    return f"{scale * value['mean']:{sign}.{digits}f}{half}{unit}"


def _chart(result: Mapping[str, Any], look: str, columns: int, width: float) -> Any:
    """A panel a figure, a row a group, a colour a slice; ``look`` is the sheet that it is for."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    groups, names = result["groups"], _names(result)
    slices = list(dict.fromkeys((s["cell"], s["slice"]) for group in groups for s in group["slices"]))
    height = 0.9 + 0.34 * len(groups) * max(1.0, len(slices) / 2)
    rows = -(-len(_DRAWN) // columns)
    with matplotlib.rc_context(pages.RC):
        figure = Canvas(figsize=(width, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axis, name in zip(axes.flat, _DRAWN, strict=True):
            for i, key in enumerate(slices):
                label = " ".join(key) if len({cell for cell, _ in slices}) > 1 else key[1]
                offset = 0.5 * ((i + 1) / (len(slices) + 1) - 0.5)
                _points(axis, name, key, groups, offset, color=COLOURS[i % len(COLOURS)], label=label)
            axis.set_title(f"{FIGURES[name].label}{', %' if FIGURES[name].percent else ''}")
            axis.margins(x=0.1)
        axes[0][0].set_yticks(range(len(groups)), names)
        axes[0][0].set_ylim(len(groups) - 0.4, -0.6)
        if len(slices) > 1:
            handles, labels = axes[0][0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        return pages.svg(figure, f"compare-{look}", "QoS and resources of the runs compared", look)


def _points(
    axis: Any,
    name: str,
    key: tuple[str, str],
    groups: Sequence[Mapping[str, Any]],
    offset: float,
    **style: Any,
) -> None:
    """One slice's means with their intervals."""
    scale = 100.0 if FIGURES[name].percent else 1.0
    points = [
        (row + offset, s["figures"][name])
        for row, group in enumerate(groups)
        for s in group["slices"]
        if (s["cell"], s["slice"]) == key and s["figures"][name] is not None
    ]
    means = [scale * value["mean"] for _, value in points]
    halves = [scale * (value["half_95"] or 0.0) for _, value in points]
    axis.errorbar(means, [row for row, _ in points], xerr=halves, fmt="o", **style)
