"""Emulated seconds a wall second: the closed loop on the virtual clock, against the cell alone."""

from __future__ import annotations

import statistics
import time

from agents.emulator.testbed import EmulatedTestbed
from agents.emulator.warmup import warm_up
from controller import config, scenario, sim
from tests.bench.common import Row
from wire.definitions.nr import SLOT_NS

NAME = "emulation"
SCENARIO, SEED = "mucb1-1", 4


def run(effort: float) -> list[Row]:
    """Emulated seconds in a wall second, scenario mucb1-1 with mucb1.

    What is measured is ``controller.sim.run``: the emulated cell, its MAC reports and frames, and the control
    loop at every control slot of 5 s. It is compared with the same cell, flows and seed without a controller
    (all PRBs, highest clock, nothing read from it). They take turns; compilation is done before. The ratio
    says what part of the bare cell's speed is left. In both, 1 would be real time.
    """
    settings = config.load(config.find(SCENARIO))
    assert settings.emulation is not None
    slot_s = settings.control.control_slot_s
    length_s = max(2, int(settings.emulation.duration_s * effort / slot_s)) * slot_s
    rounds = 3 if effort >= 0.1 else 1
    warm_up()
    loop, alone = [], []
    for _ in range(rounds):
        result = sim.run(settings, SEED, duration_s=length_s)
        loop.append(result.simulated_s / result.wall_s)
        alone.append(length_s / _alone(settings, length_s))
    measured, baseline = statistics.median(loop), statistics.median(alone)
    return [
        Row(
            NAME,
            f"emulated time, {SCENARIO} with mucb1",
            "s/s",
            measured,
            baseline,
            "the cell alone",
            measured / baseline,
            ">= 500 s/s",
            {"emulated_s": length_s, "seed": SEED, "controlled": loop, "alone": alone},
        )
    ]


def _alone(settings: config.Config, length_s: float) -> float:
    """Wall seconds that the cell takes by itself, a control slot at a time."""
    bed = EmulatedTestbed(scenario.testbed_spec(settings, SEED), seed=SEED, epoch_ns=sim.EPOCH_NS)
    slot = int(settings.control.control_slot_s * 1e9 / SLOT_NS)
    start = time.perf_counter()
    for until in range(slot, int(length_s * 1e9 / SLOT_NS) + 1, slot):
        bed.advance(until)
    return time.perf_counter() - start
