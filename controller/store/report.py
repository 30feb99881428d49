"""A run as one self-contained HTML page with its plots, and as ``summary.json``."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controller.core.measure import RESOURCES as LEVERS
from controller.store import charts, figures
from controller.store.charts import CLOCKS, MISSES, REGRET
from controller.store.figures import Array
from controller.store.files import write_atomic
from controller.store.misses import Misses
from controller.store.oracle import LIVE, ORACLE_FILE, RESOURCES, can_be_played_again, read
from controller.store.run import Event, RunStore, StoreError, part_about
from controller.store.series import CellSeries
from controller.store.series import read as read_series
from controller.store.summary import Summary

__all__ = ["CLOCKS", "HTML_FILE", "MISSES", "REGRET", "SUMMARY_FILE", "build"]

HTML_FILE, SUMMARY_FILE = "report.html", "summary.json"
LAST_EVENTS = 100


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
        summary, by_part, cells = read_series(store)
        missed = Misses() if read_misses is None else read_misses(store)
        events: deque[Event] = deque(maxlen=LAST_EVENTS)
        times: dict[str, dict[str, list[int]]] = {}
        for event in store.events():
            summary.add_event(event.cell, event.kind)
            events.append(event)
            times.setdefault(event.cell, {}).setdefault(event.kind, []).append(event.time_ns)
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
        plots={
            cell: charts.plots(cell, series, regret, missed, {**times.get("", {}), **times.get(cell, {})})
            for cell, series in cells.items()
        },
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
        name=charts.name,
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
    folder: Path, about: Mapping[str, Any], result: Mapping[str, Any], cells: Mapping[str, CellSeries]
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
