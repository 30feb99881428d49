"""Emulated seconds a wall second against the number of UEs, and Table V against the hours it stands for."""

from __future__ import annotations

import time

from agents.emulator.spec import FlowSpec, TestbedSpec, UeSpec
from agents.emulator.testbed import EmulatedTestbed
from agents.emulator.warmup import warm_up
from controller import config, sim
from tests.bench.common import Row
from wire.definitions.nr import SLOT_NS

NAME = "scaling"
UES = (1, 3, 10, 50)
SUBINTERVAL_SLOTS = 400
POLICIES = ("static", "aimd", "ucb1", "mucb1")


def run(effort: float) -> list[Row]:
    """One OpenRTiST flow a UE, 1, 3, 10 and 50 UEs, a MAC report every 200 ms; then the runs of Table V.

    The cell with n UEs is compared with the cell with one, so the ratio says how the cost grows. Table V is
    its twenty closed loops with one seed, one after another on one core, without oracle and page; its
    baseline is real time.
    """
    warm_up()
    emulated_s = max(1.0, 60.0 * effort)
    speeds = {n: emulated_s / _cell(n, emulated_s) for n in UES}
    rows = [
        Row(
            NAME,
            f"{n} UEs",
            "s/s",
            speed,
            speeds[1],
            "1 UE",
            speed / speeds[1],
            ">= 500 s/s" if n == 3 else "",
        )
        for n, speed in speeds.items()
    ]
    simulated = wall = 0.0
    for scenario in range(1, 6):
        settings = config.load(config.find(f"mucb1-{scenario}"))
        assert settings.emulation is not None
        length_s = max(10.0, settings.emulation.duration_s * effort)
        for policy in POLICIES:
            result = sim.run(settings.with_policy(policy), 4, duration_s=length_s)
            simulated += result.simulated_s
            wall += result.wall_s
    rows.append(
        Row(NAME, "Table V, one seed", "s", wall, simulated, "real time", simulated / wall, "< 180 s")
    )
    return rows


def _cell(n: int, emulated_s: float) -> float:
    """Wall seconds of a cell with ``n`` UEs of one flow each."""
    ues = [UeSpec(f"ue-{i}", i + 1) for i in range(n)]
    bed = EmulatedTestbed(TestbedSpec(ues, [FlowSpec(f"flow-{i}", f"ue-{i}") for i in range(n)]), seed=1)
    start = time.perf_counter()
    for until in range(SUBINTERVAL_SLOTS, int(emulated_s * 1e9 / SLOT_NS) + 1, SUBINTERVAL_SLOTS):
        bed.advance(until)
        bed.mac_report()
        bed.take_frames()
    return time.perf_counter() - start
