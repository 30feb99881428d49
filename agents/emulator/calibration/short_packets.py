"""The law of short packets in the emulated cell: blocks that are lost against what the law expects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agents.emulator.calibration.table import Calibration, Row
from agents.emulator.spec import (
    ApplicationSpec,
    CellSpec,
    ChannelProcess,
    EdgeSpec,
    PathSpec,
    TestbedSpec,
    UeSpec,
    UserSpec,
)
from agents.emulator.testbed import EmulatedTestbed
from wire.definitions.nr import tbs_bits
from wire.definitions.short_packets import error_probability

RUNS: Final = ((1e-2, 2, 300.0), (1e-3, 4, 600.0), (1e-4, 16, 600.0))
"""Epsilon, devices and seconds of the emulated cell."""
MCS: Final = 20
PRB: Final = 5
"""Of the smallest uplink blocks, of which there are most."""
SYMBOLS: Final = 13
DMRS_RE: Final = 18
EXTRAPOLATED: Final = 1e-7
_SEED: Final = 3
_SLOTS_PER_S: Final = 2000


def calibrate(progress: Callable[[str], None] = lambda _: None, *, part: float = 1.0) -> Calibration:
    """Counts lost uplink blocks on constant channels on which most are as large as epsilon lets them be; over
    a ``part`` of the time."""
    out = Calibration("short-packets")
    for error, devices, seconds in RUNS:
        progress(f"epsilon {error:g}")
        bed = _cell(error, devices)
        bed.advance(round(part * seconds * _SLOTS_PER_S))
        counters = [c for c in bed.short_packet_counters() if c.direction == "ul"]
        blocks, lost = sum(c.blocks for c in counters), sum(c.lost for c in counters)
        expected = sum(c.probability for c in counters)
        # Four standard deviations of the binomial distribution.
        aim = 4.0 / expected**0.5 if expected > 0.0 else None
        out.rows.append(
            Row("Blocks lost", f"epsilon {error:g}", "blocks", expected, lost, aim, f"of {blocks:,} blocks")
        )
    out.skipped.append(f"at epsilon {EXTRAPOLATED:g} no run sees a loss: there the law is extrapolated")
    return out


def _cell(error: float, devices: int) -> EmulatedTestbed:
    snr_db = _snr_db(0.95 * error)
    ues = [UeSpec(f"ue-{i}", i + 1, "s", ChannelProcess(snr_db, snr_db, 0.0)) for i in range(devices)]
    users = [UserSpec(f"u-{i}", f"ue-{i}", transport="udp", decoding_error=error) for i in range(devices)]
    spec = TestbedSpec(
        ues,
        [],
        applications=[ApplicationSpec("urllc", users)],
        cell=CellSpec(k2=2, short_packet_margin_db=0.0),
        path=PathSpec(ul_hold_rate_hz=0.0, hiccup_rate_hz=0.0),
        edge=EdgeSpec(stall_rate_hz=0.0),
    )
    return EmulatedTestbed(spec, seed=_SEED)


def _snr_db(error: float) -> float:
    """At which the smallest uplink block at :data:`MCS` is lost with this probability."""
    bits, uses = tbs_bits(PRB, SYMBOLS, MCS, dmrs_re=DMRS_RE), PRB * (12 * SYMBOLS - DMRS_RE)
    low, high = 0.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        at_middle = error_probability(bits, uses, 10.0 ** (middle / 10.0))
        low, high = (middle, high) if at_middle > error else (low, middle)
    return high
