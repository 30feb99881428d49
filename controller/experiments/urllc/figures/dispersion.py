"""What the approximation V = 1 gives away: in the objective, and in the error probability that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from controller.allocators.urllc.instance import FloatArray, Instance
from controller.allocators.urllc.model import Allocation, parts, rate_mbps
from controller.experiments.figures import Plot, Table, cell
from controller.experiments.urllc.figures.base import Figure, Study, by_method, interval, mean
from controller.experiments.urllc.readings import READINGS, SHOWN
from wire.definitions.short_packets import error_probability

LOSS_DB: Final = (0.0, 20.0, 30.0, 40.0, 45.0)
"""Taken off every channel gain: the drops' own SNRs are far too high for a difference."""


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    rows = []
    for reading in SHOWN:
        for loss_db in LOSS_DB:
            saved, snr, errors = [], [], []
            for seed in range(study.drops):
                instance = READINGS[reading].instance(seed)
                # A longer deadline, and no R_min: what a poor channel takes is not the question here.
                instance = instance.with_(
                    snr_per_w=instance.snr_per_w / 10.0 ** (loss_db / 10.0),
                    deadline_ms=1e3,
                    min_rate_mbps=0.0,
                )
                a = by_method(instance, "joint")
                if a is None:
                    continue
                exact, v1 = (parts(instance, a, exact=e).total_ms for e in (True, False))
                saved.append((v1 - exact) / exact)
                gamma, error = real_errors(instance, a)
                snr.append(10.0 * float(np.log10(gamma.min())))
                errors.append(float((error / instance.error[~a.cached]).mean()))
            rows.append(
                {
                    "reading": reading,
                    "loss_db": loss_db,
                    "drops": len(saved),
                    "least_snr_db": mean(snr),
                    "objective": mean(saved),
                    "error_of_epsilon": mean(errors),
                }
            )
            advance(f"{reading}, {loss_db:g} dB")
    return {"rows": rows}


def real_errors(instance: Instance, a: Allocation) -> tuple[FloatArray, FloatArray]:
    """SNR and error probability, of devices that send, of a block of one interval at the rate that V = 1
    gives."""
    sends = ~a.cached
    rate = rate_mbps(instance, np.where(sends, a.bandwidth, 1.0), a.power_w, exact=False)[sends]
    gamma = a.power_w[sends] * instance.snr_per_w[sends] / a.bandwidth[sends]
    uses = 1e3 * instance.interval_ms * instance.bandwidth_mhz * a.bandwidth[sends]
    bits = 1e3 * rate * instance.interval_ms
    error = [error_probability(*of) for of in zip(bits.tolist(), uses.tolist(), gamma.tolist(), strict=True)]
    return gamma, np.array(error)


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    rows = [
        [
            f"{row['reading']}, -{row['loss_db']:g} dB",
            interval(row["least_snr_db"], ".1f"),
            cell(None if row["objective"] is None else 1e2 * row["objective"]["mean"], ".2g"),
            cell(None if row["error_of_epsilon"] is None else row["error_of_epsilon"]["mean"], ".4f"),
            str(row["drops"]),
        ]
        for row in result["rows"]
    ]
    head = ["reading, gain", "least SNR, dB", "V = 1 above exact, %", "real error / epsilon", "drops"]
    return [
        "V is below 1, so that a rate with V = 1 is one that the exact law carries with fewer errors than"
        " epsilon. The same allocation is judged by both; its error is that of a block of one interval at the"
        " rate with V = 1.",
        Table("Dispersion: V = 1 against the exact one", head, rows),
    ]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    return []


FIGURE = Figure("Dispersion", lambda drops: len(SHOWN) * len(LOSS_DB), compute, shown, plots)
