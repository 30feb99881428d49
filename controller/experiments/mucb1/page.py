"""Table V as one self-contained HTML page with the paper's plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controller.experiments.mucb1 import oracle, table_v
from controller.experiments.mucb1.table_v import NAMES, Table
from controller.experiments.runs import FIGURES, Run
from controller.store import figures
from controller.store.figures import Array
from controller.store.oracle import HOP_NAMES, RESOURCES, Reference

COLOURS = {"static": "#5d6873", "aimd": "#cf7a22", "ucb1": "#d64545", "mucb1": "#2f81c7", "oracle": "#2a9563"}
_PAPER = "#b0672a"
_OVERVIEW = {
    "qos_delivery_ratio": "QoS",
    "avg_ul_prb": "UL PRB",
    "avg_dl_prb": "DL PRB",
    "avg_gpu_mhz": "GPU MHz",
}
_UL, _DL, _QOS = "#2f81c7", "#2a9563", "#8d63c9"


def require() -> None:
    """ImportError, naming the extra ``report``, where the page cannot be made: before the long work."""
    figures.template(Path(__file__).with_name("table-v.html"))


def build(tables: Sequence[Table], results: Sequence[Mapping[str, Any]]) -> str:
    """The page of some tables (schedules) with their :func:`table_v.result`.

    ImportError, naming the extra ``report``, where matplotlib or Jinja2 is not installed.
    """
    template = figures.template(Path(__file__).with_name("table-v.html"))
    page: str = template.render(
        parts=[
            {
                "result": result,
                "overview": overview(result),
                "plots": {n: plots(table, n) for n in table.scenarios},
            }
            for table, result in zip(tables, results, strict=True)
        ],
        columns=FIGURES,
        resources=RESOURCES,
        hops=HOP_NAMES,
        names=NAMES,
        labels=table_v.LABELS,
        tolerance=oracle.TOLERANCE,
        reasons=[r.text for r in table_v.REASONS],
    )
    return page


def overview(result: Mapping[str, Any]) -> dict[str, Any]:
    """One figure of the schemes' QoS and resources in all scenarios, the paper's beside each, as inline SVG
    by the name of each sheet."""
    import matplotlib

    out = {}
    for sheet in figures.SHEETS:
        with matplotlib.rc_context({**figures.RC, "font.size": sheet.font}):
            figure, axes = sheet.axes([1.3, 1.0, 1.0, 1.0], [len(table_v.SCHEMES) + 1, 0, 0, 0])
            _schemes(axes, result)
            sheet.legend(axes[0])
            label = (
                f"The four schemes beside the paper, schedule {result['schedule']}, rules {result['rules']}"
            )
            key = f"{result['rules']}-{result['schedule']}-overview-{sheet.name}"
            out[sheet.name] = figures.svg(figure, key, label, sheet.name)
    return out


def _schemes(axes: Any, result: Mapping[str, Any]) -> None:
    scenarios = sorted({row["scenario"] for row in result["rows"]})
    width = 0.8 / len(table_v.SCHEMES)
    which = "paper, another experiment" if result["other"] else "paper"
    for axis, (figure, label) in zip(axes, _OVERVIEW.items(), strict=True):
        told: list[tuple[float, float]] = []
        highest = 0.0
        for i, scheme in enumerate(table_v.SCHEMES):
            rows = [row for row in result["rows"] if row["scheme"] == scheme]
            at = np.array([scenarios.index(row["scenario"]) - 0.4 + (i + 0.5) * width for row in rows])
            of = [row["figures"][figure] for row in rows]
            heights = [e["mean"] or 0.0 for e in of]
            axis.bar(at, heights, 0.9 * width, color=COLOURS[scheme], label=NAMES[scheme])
            spread = [e["half_95"] or 0.0 for e in of]
            if any(spread):
                axis.errorbar(at, heights, spread, fmt="none", ecolor=figures.INK, elinewidth=0.8)
            highest = max([highest, *heights, *(e["paper"] for e in of if "paper" in e)])
            told += [(x, e["paper"]) for x, e in zip(at, of, strict=True) if "paper" in e]
        if told:
            x, y = zip(*told, strict=True)
            axis.plot(x, y, "D", color="white", markeredgecolor=_PAPER, markersize=4, label=which)
        axis.set_ylabel(label)
        axis.set_ylim(0, 1.08 * highest or 1.0)
        axis.set_axisbelow(True)
        axis.grid(axis="x", visible=False)
    axes[-1].set_xticks(range(len(scenarios)), [str(n) for n in scenarios])
    axes[-1].set_xlabel("scenario")


def plots(table: Table, scenario: int) -> list[dict[str, Any]]:
    """Figures of one scenario with the first seed, as inline SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    seed = table.seeds[0]
    runs = {scheme: table.runs[scenario, scheme, seed] for scheme in table.schemes()}
    key = f"{table.rules}-{table.schedule}-{scenario}"
    out = []
    with matplotlib.rc_context(figures.RC):
        loads = Figure(figsize=(9.5, 5.2), layout="constrained")
        _by_load(loads, runs["mucb1"])
        running = Figure(figsize=(9.5, 6.6), layout="constrained")
        _running(running, runs)
        drawn = [
            ("MUCB1: active flows; by load the mean of the last 25 decisions", loads),
            ("Running averages of all schemes", running),
        ]
        if table.oracles:
            regret = Figure(figsize=(9.5, 2.8), layout="constrained")
            _regret(regret, runs, table.oracles[scenario, seed].reference)
            drawn.append(("Regret against the best fixed actions in hindsight", regret))
        for i, (title, figure) in enumerate(drawn):
            label = (
                f"{title}, scenario {scenario}, schedule {table.schedule}, rules {table.rules}, seed {seed}"
            )
            out.append({"title": label, "svg": figures.svg(figure, f"{key}-{i}", label)})
    return out


def _minutes(run: Run) -> Array:
    n = len(run.series)
    return np.arange(n, dtype=np.float64) * (run.simulated_s / max(1, run.control_slots) / 60)


def _by_load(figure: Any, run: Run) -> None:
    (flows, qos), (prb, mhz) = figure.subplots(2, 2)
    flows.step(_minutes(run), run.series.flows, where="post", color=figures.INK)
    flows.set_xlabel("minutes")
    flows.set_ylabel("active flows")
    flows.yaxis.get_major_locator().set_params(integer=True)
    loads = list(run.by_load)
    at = np.arange(len(loads))

    def bars(axis: Any, name: str, offset: float, width: float, colour: str, label: str) -> None:
        heights = [run.by_load[load][name] or 0.0 for load in loads]
        axis.bar(at + offset, heights, width, color=colour, label=label)

    bars(qos, "qos_delivery_ratio", 0, 0.6, _QOS, "QoS")
    qos.set_ylim(0, 1.05)
    qos.set_ylabel("QoS delivery ratio")
    bars(prb, "avg_ul_prb", -0.2, 0.4, _UL, "uplink")
    bars(prb, "avg_dl_prb", 0.2, 0.4, _DL, "downlink")
    prb.set_ylabel("PRB")
    prb.legend(fontsize=8)
    bars(mhz, "avg_gpu_mhz", 0, 0.6, "#cf7a22", "GPU")
    mhz.set_ylabel("MHz")
    for axis in (qos, prb, mhz):
        axis.set_xticks(at, loads)
        axis.set_xlabel("active flows")


def _running(figure: Any, runs: Mapping[str, Run]) -> None:
    axes = figure.subplots(4, 1, sharex=True)
    for scheme, run in runs.items():
        count = np.arange(1, len(run.series) + 1)
        bits = run.series.q["round_trip"] != 0
        for axis, values in zip(
            axes, (bits, run.series.ul_prb, run.series.dl_prb, run.series.gpu_mhz), strict=True
        ):
            x, y = figures.binned_means(_minutes(run), np.cumsum(values, dtype=float) / count)
            dash = "--" if scheme == "oracle" else "-"
            axis.plot(x, y, dash, color=COLOURS[scheme], label=NAMES[scheme])
    for axis, label in zip(axes, ("QoS delivery ratio", "UL PRB", "DL PRB", "GPU MHz"), strict=True):
        axis.set_ylabel(label)
    figures.legend(axes[0])
    axes[-1].set_xlabel("minutes")


def _regret(figure: Any, runs: Mapping[str, Run], reference: Reference) -> None:
    axis = figure.subplots()
    for scheme, run in runs.items():
        total = np.sum(list(oracle.regret(run, reference).values()), axis=0)
        dash = "--" if scheme == "oracle" else "-"
        axis.plot(
            *figures.binned_means(_minutes(run), total), dash, color=COLOURS[scheme], label=NAMES[scheme]
        )
    axis.set_xlabel("minutes")
    axis.set_ylabel("cost / a_max, all hops")
    figures.legend(axis)
