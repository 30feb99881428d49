"""Fig. 3's lesson on the emulated edge: better estimates of processing rates, lower latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from controller import config, sim
from controller.core.decision import Decision
from controller.core.observation import Observation
from controller.experiments.figures import Plot, Table
from controller.experiments.urllc.figures.base import Figure, Study, interval, mean
from controller.loop import ControlLoop

SCENARIO: Final = "urllc-factory"
SLICE, GROUP = 1, 1
"""Places of the slice and of its users in the scenario."""
CYCLES_PER_BYTE: Final = (800.0, 2400.0)
"""100 to 300 cycles a bit: processing counts beside what the cell takes."""
DEVIATIONS: Final = (0.02, 0.3)
"""Half-widths of the uniform deviations of devices and edge."""
EDGE_GHZ: Final = 15.0
"""Half of the paper's: what a plan with wrong rates costs is to be seen beside what the cell takes."""
PRB: Final = 100
TWINS: Final = ("none", "prior", "estimated")
BEST: Final = "estimated"
SEEDS: Final = 8
SECONDS: Final = 80.0
LEARNING: Final = 6
"""Control slots that do not count: delays and rates are being learned."""


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    rows = []
    for deviation in DEVIATIONS:
        runs: dict[str, list[dict[str, float]]] = {}
        for twin in TWINS:
            scenario = config.load(config.find(SCENARIO), _changes(deviation, twin))
            runs[twin] = []
            for seed in range(1, 1 + min(SEEDS, study.drops)):
                runs[twin].append(_run(_closed(scenario, seed)))
                advance(f"deviation {deviation:g}, twin {twin}, seed {seed}")
        for twin, of in runs.items():
            row: dict[str, Any] = {"deviation": deviation, "twin": twin, "seeds": len(of)}
            row |= {key: mean([run[key] for run in of]) for key in of[0]}
            pairs = zip(of, runs[BEST], strict=True)
            row["more_ms"] = mean([run["latency_ms"] - best["latency_ms"] for run, best in pairs])
            rows.append(row)
    return {"rows": rows}


def _changes(deviation: float, twin: str) -> dict[str, Any]:
    """Of the scenario."""
    slice_, users = f"cells.0.slices.{SLICE}.", f"emulation.users.{GROUP}."
    return {
        slice_ + "twin": twin,
        # Of a uniform deviation.
        slice_ + "deviation": deviation / 3.0**0.5,
        slice_ + "edge_ghz": EDGE_GHZ,
        # As many PRBs in every run and control slot.
        slice_ + "worth": 0.0,
        slice_ + "share": {"min": PRB, "max": PRB},
        users + "edge_ghz": EDGE_GHZ,
        users + "deviation": deviation,
        users + "edge_deviation": deviation,
        users + "cycles_per_byte": list(CYCLES_PER_BYTE),
    }


def _closed(scenario: config.Config, seed: int) -> list[dict[str, Any]]:
    """What came of each control slot of the slice, those aside in which it learns."""
    records: list[dict[str, Any]] = []

    def on_slot(observation: Observation, decision: Decision, loop: ControlLoop) -> None:
        records.append(decision.to_record())

    sim.run(scenario, seed, duration_s=SECONDS, on_slot=on_slot)
    name = scenario.cells[0].slices[SLICE].id
    return [record["slices"][name]["closed"] for record in records[LEARNING:]]


def _run(closed: list[dict[str, Any]]) -> dict[str, float]:
    """Of all devices and control slots: mean latency and processing in ms, tasks in time, and the mean energy
    of the UE that spends most of its budget, as a part of that."""
    latency, computing, spent, tasks, in_time = [], [], [], 0, 0
    for slot in closed:
        measures = slot.get("measures", {})
        if "latency" not in measures:
            continue
        latency += [value for value, _ in measures["latency"]["users"].values() if value is not None]
        computing += [value for value, _ in measures["computing"]["users"].values() if value is not None]
        spent.append(
            [v / target for v, target in measures["energy"]["users"].values() if v is not None and target]
        )
        tasks, in_time = tasks + slot["counts"]["tasks"], in_time + slot["counts"]["tasks_on_time"]
    over = float(np.mean([max(of) for of in spent if of])) if any(spent) else 0.0
    return {
        "latency_ms": float(np.mean(latency)),
        "computing_ms": float(np.mean(computing)),
        "in_time": in_time / max(tasks, 1),
        "energy": over,
    }


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    names = {"none": "taken for exact", "prior": "robust, not learned", "estimated": "learned (twin)"}
    rows = [
        [
            f"{row['deviation']:.0%}, {names[row['twin']]}",
            interval(row["latency_ms"]),
            interval(row["more_ms"]),
            interval(row["computing_ms"]),
            interval(row["energy"], ".1f", 100.0),
            interval(row["in_time"], ".2f", 100.0),
        ]
        for row in result["rows"]
    ]
    return [
        f"The scenario {SCENARIO} with tasks of 100 to 300 cycles a bit, where the rates of devices and edge"
        " deviate by up to so much. Rates that are taken for exact break the energy budget; plans that are"
        " robust without learning pay for it in latency.",
        Table(
            "Processing rates on the emulated edge",
            [
                "deviation, rates",
                "latency, ms",
                "more than learned",
                "processing, ms",
                "highest energy, % of the budget",
                "in time, %",
            ],
            rows,
        ),
    ]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    return []


FIGURE = Figure(
    "Twins of processing rates on the emulated edge",
    lambda drops: len(DEVIATIONS) * len(TWINS) * min(SEEDS, drops),
    compute,
    shown,
    plots,
)
