"""The emulated cell with the habits of OAI's scheduler of 2026 against those of 2024: capacity and delay."""

from __future__ import annotations

import numpy as np

from agents.emulator.spec import (
    OAI_2024,
    OAI_2026,
    CellSpec,
    ChannelProcess,
    FlowSpec,
    PathSpec,
    RlcSpec,
    TestbedSpec,
    UeSpec,
)
from agents.emulator.testbed import EmulatedTestbed
from agents.emulator.warmup import warm_up
from tests.bench.common import Row
from wire.definitions.nr import TDD_PATTERNS

NAME = "schedulers"
SECOND = 2000
CHANNEL = ChannelProcess(22.0, 26.5, 0.8)
PATH = PathSpec(ul_hold_rate_hz=0.0, hiccup_rate_hz=0.0)
CAPACITIES = (("DSUUU", 6), ("DSUUU", 2), ("DSUUU", 1), ("DDSUU", 6), ("DDDDDDDSUU", 6))
QUOTAS = {1: (10, 26, 58, 106), 2: (10, 26, 53)}
DELAYS = [
    (tdd, ues, slices, quota, inactivity)
    for tdd, inactivity in (("DSUUU", 0), ("DSUUU", 10), ("DDDDDDDSUU", 0))
    for slices, quotas in QUOTAS.items()
    for ues in (1, 2, 4, 8)
    for quota in quotas
    if ues >= slices
]


def run(effort: float) -> list[Row]:
    """UL and DL capacity of one UE, and the median delay up of 1200 bytes every 20 to 60 ms for 1, 2, 4 and 8
    UEs in one slice and in two, with an unasked grant every TDD period or after ten radio frames without one.

    The rest is equal: 106 PRB, link adaptation, HARQ; no holds and no hiccups of the modem.
    """
    seconds = max(1, round(8 * effort))
    warm_up()
    rows = []
    for tdd, k2 in CAPACITIES:
        for direction in ("ul", "dl"):
            old, new = (_capacity(s, tdd, k2, direction, seconds) for s in (OAI_2024, OAI_2026))
            rows.append(_row(f"{direction.upper()} capacity, {tdd}, K2 {k2}", "Mbit/s", new, old))
    for tdd, ues, slices, quota, inactivity in DELAYS if effort >= 0.1 else DELAYS[:2]:
        old, new = (_delay(s, tdd, ues, slices, quota, inactivity, seconds) for s in (OAI_2024, OAI_2026))
        unasked = f"after {inactivity} frames" if inactivity else "every period"
        name = f"UL delay, {tdd}, {ues} UEs, {slices} x {quota} PRB, unasked {unasked}"
        rows.append(_row(name, "ms", new, old))
    return rows


def _row(name: str, unit: str, new: float, old: float) -> Row:
    return Row(NAME, name, unit, new, old, OAI_2024, new / old, "")


def _bed(spec: CellSpec, kind: str, ues: int, slices: int, quota: int) -> EmulatedTestbed:
    of = [UeSpec(f"ue-{i}", i + 1, f"slice-{i % slices}", CHANNEL) for i in range(ues)]
    flows = [FlowSpec(f"f-{u.ue_id}", u.ue_id, kind=kind, gap_ms=(20.0, 60.0), burst_bytes=1200) for u in of]
    mode = RlcSpec(mode="um" if kind.startswith("saturated") else "am")
    bed = EmulatedTestbed(TestbedSpec(of, flows, spec, rlc=mode, path=PATH), seed=1)
    bed.set_quotas({u.slice: (quota, quota) for u in of}, {})
    return bed


def _capacity(scheduler: str, tdd: str, k2: int, direction: str, seconds: int) -> float:
    """Mbit/s of the logical channel."""
    spec = CellSpec(tdd=TDD_PATTERNS[tdd], k2=k2, scheduler=scheduler, initial_mcs=20)
    bed = _bed(spec, f"saturated_{direction}", 1, 1, 106)
    bed.advance(2 * SECOND)
    before = getattr(bed.mac_report().ues[0], direction).lc_bytes
    bed.advance((2 + seconds) * SECOND)
    after = getattr(bed.mac_report().ues[0], direction).lc_bytes
    return float((after - before) * 8 / seconds / 1e6)


def _delay(
    scheduler: str, tdd: str, ues: int, slices: int, quota: int, inactivity: int, seconds: int
) -> float:
    """Median in ms from when the UE has a burst until the edge has all of it."""
    spec = CellSpec(
        tdd=TDD_PATTERNS[tdd], scheduler=scheduler, ul_inactivity_frames=inactivity, initial_mcs=20
    )
    bed = _bed(spec, "burst_ul", ues, slices, quota)
    times: dict[tuple[int, int], float] = {}
    while bed.nr_slot < 2 * seconds * SECOND:
        bed.advance(bed.nr_slot + 400)
        f = bed.take_frames()
        over = f.edge_sent > 0
        columns = (f.flow[over], f.sequence[over], (f.edge_sent - f.ue_sent)[over])
        for flow, sequence, ns in zip(*(c.tolist() for c in columns), strict=True):
            times[flow, sequence] = ns / 1e6
    return float(np.median(list(times.values())))
