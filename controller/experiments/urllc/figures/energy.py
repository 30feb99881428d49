"""Fig. 2: total latency against the energy budget of the devices, by what the edge server can cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.experiments.figures import COLOURS, Plot, Table, canvas
from controller.experiments.urllc.figures.base import (
    METHODS,
    NAMES,
    Figure,
    Study,
    half,
    interval,
    middle,
    paired,
    summary,
)
from controller.experiments.urllc.readings import READINGS, SHOWN

ENERGY_MJ: Final = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
CACHE_KBIT: Final = (0, 20, 40, 60)
PAPER: Final = (
    "The paper shows about 19 to 26 ms, falling with the energy, and a large gap between 0 and 60 kbit."
)


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    curves = []
    for reading in SHOWN:
        for method in METHODS:
            of = {
                (kbit, mj): study.outcomes(reading, method, cache_bits=1e3 * kbit, energy_mj=mj)
                for kbit in CACHE_KBIT
                for mj in ENERGY_MJ
            }
            curves.append(
                {
                    "reading": reading,
                    "method": method,
                    "of": [[summary(of[kbit, mj]) for mj in ENERGY_MJ] for kbit in CACHE_KBIT],
                    "saved_by_energy_ms": [
                        paired(of[kbit, ENERGY_MJ[0]], of[kbit, ENERGY_MJ[-1]]) for kbit in CACHE_KBIT
                    ],
                    "saved_by_cache_ms": [paired(of[0, mj], of[60, mj]) for mj in ENERGY_MJ],
                }
            )
            advance(f"{reading}, {method}")
    return {"energy_mj": list(ENERGY_MJ), "cache_kbit": list(CACHE_KBIT), "curves": curves}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    out: list[str | Table] = [PAPER]
    for curve in result["curves"]:
        rows = [
            [
                f"{mj:g}",
                *(interval(line[k]["total_ms"]) for line in curve["of"]),
                interval(curve["saved_by_cache_ms"][k]),
            ]
            for k, mj in enumerate(result["energy_mj"])
        ]
        rows.append(["1.5 less 4", *(interval(saved) for saved in curve["saved_by_energy_ms"]), ""])
        head = ["E, mJ", *(f"S = {kbit} kbit" for kbit in result["cache_kbit"]), "0 less 60"]
        caption = f"Total latency, ms: {NAMES[curve['method']]}, {READINGS[curve['reading']].title}"
        out.append(Table(caption, head, rows))
        if late := sum(point["late"] for line in curve["of"] for point in line):
            out.append(f"Of these {late} drops and points have devices that are late.")
    return out


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, axes = canvas(2, 2, width=4.4)
    for axis, curve in zip(axes.flat, result["curves"], strict=True):
        for k, (kbit, line) in enumerate(zip(result["cache_kbit"], curve["of"], strict=True)):
            axis.errorbar(
                result["energy_mj"],
                [middle(point["total_ms"]) for point in line],
                yerr=[half(point["total_ms"]) for point in line],
                marker="osv^"[k],
                markersize=3.5,
                capsize=2,
                color=COLOURS[k],
                label=f"S = {kbit} kbit",
            )
        axis.set_title(f"{NAMES[curve['method']]}; {curve['reading']}", fontsize=8)
        axis.set_xlabel("energy budget, mJ")
        axis.set_ylabel("total latency, ms")
    axes[0][0].legend(fontsize=7)
    return [Plot("Total latency against the energy budget", figure)]


FIGURE = Figure("Energy and cache (Fig. 2)", lambda drops: len(SHOWN) * len(METHODS), compute, shown, plots)
