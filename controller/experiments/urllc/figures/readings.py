"""Which reading of the paper's text gives its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from controller.allocators.urllc import alternating
from controller.experiments.figures import Plot, Table, cell
from controller.experiments.urllc.figures.base import (
    METHODS,
    NAMES,
    Figure,
    Outcome,
    Study,
    mean,
    middle,
    paired,
    summary,
)
from controller.experiments.urllc.readings import READINGS, SHOWN

STARTS: Final = (0.5, 0.6, 0.7, 0.8, 0.9)
_CASES: Final[Mapping[str, Mapping[str, float]]] = {
    "30": {},
    "38": {"edge_hz": 38e9},
    "no cache": {"cache_bits": 0.0},
    "1.5 mJ": {"energy_mj": 1.5},
    "4 mJ": {"energy_mj": 4.0},
    "no cache, 1.5 mJ": {"cache_bits": 0.0, "energy_mj": 1.5},
}
_HEAD: Final = (
    *("reading", "30 GHz", "to 38", "share", "to 38", "S = 0", "gap", "E = 1.5", "to 4", "S = 0, E = 1.5"),
    *("local", "air", "edge", "fits"),
)


class Fit(NamedTuple):
    """What the paper's plots show, read off as a range, and where it is in a row."""

    letter: str
    name: str
    low: float
    high: float
    value: Callable[[Mapping[str, Any]], float]


def _rise(row: Mapping[str, Any]) -> float:
    return middle(row["38"]["share"]) - middle(row["30"]["share"])


def _spread(row: Mapping[str, Any]) -> float:
    return middle(row["no cache, 1.5 mJ"]["total_ms"]) - middle(row["4 mJ"]["total_ms"])


PAPER: Final = (
    Fit("t", "total at 30 GHz", 18.0, 20.5, lambda row: middle(row["30"]["total_ms"])),
    Fit("f", "fall to 38 GHz", 2.0, 3.0, lambda row: middle(row["fall_ms"])),
    Fit("s", "share at 30 GHz", 0.65, 0.75, lambda row: middle(row["30"]["share"])),
    Fit("r", "rise of the share", 0.003, 0.02, _rise),
    Fit("c", "total without cache", 24.0, 28.0, lambda row: middle(row["no cache"]["total_ms"])),
    Fit("e", "least to most in Fig. 2", 6.0, 10.0, _spread),
)
"""The paper prints few ticks, so that a range is what can be said."""


def fits(row: Mapping[str, Any]) -> str:
    """Letters of what a reading and a method give of the paper's."""
    return "".join(fit.letter for fit in PAPER if fit.low <= fit.value(row) <= fit.high)


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    rows = []
    for reading in READINGS:
        for method in METHODS:
            of = {name: study.outcomes(reading, method, **changes) for name, changes in _CASES.items()}
            rows.append(
                {
                    "reading": reading,
                    "method": method,
                    **{name: summary(outcomes) for name, outcomes in of.items()},
                    "fall_ms": paired(of["30"], of["38"]),
                    "gap_ms": paired(of["no cache"], of["30"]),
                    "slope_ms": paired(of["1.5 mJ"], of["4 mJ"]),
                }
            )
        advance(reading)
    starts = []
    for reading in SHOWN:
        for start in STARTS:
            ends = [_from(study, reading, start, edge_hz) for edge_hz in (30e9, 38e9)]
            starts.append({"reading": reading, "start": start, "ends": ends})
        advance(f"{reading}: starts")
    return {"rows": rows, "starts": starts}


def _from(study: Study, reading: str, start: float, edge_hz: float) -> dict[str, Any]:
    """Algorithm 1 of every drop from a point that offloads ``start`` of each task where the energy allows."""
    outcomes: list[Outcome] = []
    before: list[float] = []
    for seed in range(study.drops):
        instance = READINGS[reading].instance(seed, edge_hz=edge_hz)
        first = alternating.first_allocation(instance, start)
        if first is not None:
            outcomes.append(Outcome.of(instance, alternating.solve(instance, first).allocation))
            before.append(float((1.0 - first.local_share).mean()))
    return {**summary(outcomes), "before": mean(before)}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    out: list[str | Table] = [
        "The paper: about 19 ms at 30 GHz with S = 60 kbit and E = 3 mJ, nearly 2.5 ms less at 38 GHz, an"
        " offloaded share of 0.70 and 0.71; up to about 26 ms without a cache.",
    ]
    for method in METHODS:
        rows = [_row(row) for row in result["rows"] if row["method"] == method]
        out.append(Table(f"{NAMES[method]}: means, ms (local, air, edge: parts at 30 GHz)", _HEAD, rows))
    out.append(
        "Fits: " + "; ".join(f"{of.letter}: {of.name}, {of.low:g} to {of.high:g}" for of in PAPER) + "."
    )
    most = max(len(fits(row)) for row in result["rows"])
    best = [row for row in result["rows"] if len(fits(row)) == most]
    names = [f"{NAMES[row['method']]}, {READINGS[row['reading']].title}" for row in best]
    out.append(f"No reading and method fits in more than {most} of {len(PAPER)}: {'; '.join(names)}.")
    missed = [of.name for of in PAPER if not any(of.letter in fits(row) for row in best)]
    if missed:
        out.append(f"What none of these gives: {', '.join(missed)}.")
    late = sum(row[name]["late"] for row in result["rows"] for name in _CASES)
    out.append(f"Solutions with late devices among these: {late}.")
    rows = [
        [
            f"{row['reading']}, {row['start']:g}",
            cell(middle(row["ends"][0]["before"])),
            *(cell(middle(end["share"])) for end in row["ends"]),
            *(cell(middle(end["total_ms"]), ".2f") for end in row["ends"]),
        ]
        for row in result["starts"]
    ]
    head = ["reading, asked for", "start", "share, 30", "share, 38", "ms, 30", "ms, 38"]
    out.append(
        "Algorithm 1 keeps the offloaded share that it begins with, as the edge's rate is all in use at fixed"
        " rates and its programme can only trade between devices."
    )
    out.append(Table("Algorithm 1 by the share of its start", head, rows))
    return out


def _row(row: Mapping[str, Any]) -> Sequence[str]:
    def total(name: str) -> str:
        return cell(middle(row[name]["total_ms"]), ".2f")

    return [
        READINGS[row["reading"]].title,
        total("30"),
        cell(-middle(row["fall_ms"]), ".2f"),
        cell(middle(row["30"]["share"]), ".2f"),
        cell(middle(row["38"]["share"]), ".2f"),
        total("no cache"),
        cell(middle(row["gap_ms"]), ".2f"),
        total("1.5 mJ"),
        cell(-middle(row["slope_ms"]), ".2f"),
        total("no cache, 1.5 mJ"),
        *(cell(middle(row["30"][part]), ".2f") for part in ("local_ms", "transmission_ms", "edge_ms")),
        fits(row) or "-",
    ]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    return []


FIGURE = Figure("Readings of the paper", lambda drops: len(READINGS) + len(SHOWN), compute, shown, plots)
