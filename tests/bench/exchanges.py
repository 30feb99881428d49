"""Emulated seconds a wall second: users of an application, against as many OpenRTiST flows."""

from __future__ import annotations

import statistics
import time

import tests.applications
from agents.emulator.spec import ApplicationSpec, FlowSpec, TestbedSpec, UeSpec, UserSpec
from agents.emulator.testbed import EmulatedTestbed
from agents.emulator.warmup import warm_up
from tests.bench.common import Row
from wire.definitions.nr import SLOT_NS

NAME = "exchanges"
USERS = 64
SUBINTERVAL_SLOTS = 400
OPTIONS = {"size_bytes": 1000, "answer_bytes": 1000, "gpu_ms": 0.2}
"""Of each user 30 times a second: 15 Mbit/s in each direction of the cell, 38 % of the GPU."""


def run(effort: float) -> list[Row]:
    """64 users on one cell, a UE each, over TCP and in datagrams, a MAC report every 200 ms.

    They are users of the tests' periodic application. What is measured is the cell with its application:
    frames and samples are taken. It is compared with 64 UEs of one OpenRTiST flow each, in turns; 1 would be
    real time.
    """
    assert "periodic" in tests.applications.NAMES
    warm_up()
    emulated_s = max(2.0, 30.0 * effort)
    rounds = 3 if effort >= 0.1 else 1
    speeds: dict[str, list[float]] = {"tcp": [], "udp": [], "openrtist": []}
    for _ in range(rounds):
        for what, seen in speeds.items():
            seen.append(emulated_s / _cell(what, emulated_s))
    baseline = statistics.median(speeds["openrtist"])
    return [
        Row(
            NAME,
            f"{USERS} users over {transport.upper()}",
            "s/s",
            statistics.median(speeds[transport]),
            baseline,
            f"{USERS} OpenRTiST flows",
            statistics.median(speeds[transport]) / baseline,
            ">= 10 s/s",
            {"emulated_s": emulated_s, **speeds},
        )
        for transport in ("tcp", "udp")
    ]


def _cell(what: str, emulated_s: float) -> float:
    """Wall seconds of the cell with OpenRTiST flows, or with users of the transport ``what``."""
    ues = [UeSpec(f"ue-{i}", i + 1) for i in range(USERS)]
    if what == "openrtist":
        spec = TestbedSpec(ues, [FlowSpec(f"flow-{i}", f"ue-{i}") for i in range(USERS)])
    else:
        users = [UserSpec(f"user-{i}", f"ue-{i}", transport=what, options=OPTIONS) for i in range(USERS)]
        spec = TestbedSpec(ues, [], applications=[ApplicationSpec("periodic", users)])
    bed = EmulatedTestbed(spec, seed=1)
    start = time.perf_counter()
    for until in range(SUBINTERVAL_SLOTS, int(emulated_s * 1e9 / SLOT_NS) + 1, SUBINTERVAL_SLOTS):
        bed.advance(until)
        bed.mac_report()
        bed.take_frames()
        bed.take_samples()
    return time.perf_counter() - start
