"""The emulated testbed against Tables II, III and IV of the MUCB1 paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agents.emulator.calibration.table import Calibration, Row
from agents.emulator.spec import (
    TABLE_II_INFERENCE,
    CellSpec,
    EdgeSpec,
    FlowSpec,
    PathSpec,
    RateSpec,
    RlcSpec,
    TcpSpec,
    TestbedSpec,
    UeSpec,
    table_ii_bits,
)
from agents.emulator.testbed import EmulatedTestbed
from wire.definitions.nr import MAX_MCS, TDD_PATTERNS, tbs_table

AVERAGE_AIM, P90_AIM = 0.10, 0.25

TABLE_II = (
    *((320, 240, 30, 11.7, 3.7, 28.0), (480, 360, 30, 23.3, 4.8, 56.7), (640, 480, 30, 36.0, 5.1, 96.7)),
    *((960, 720, 30, 56.0, 13.0, 215.9), (1920, 1080, 30, 85.0, 6.0, 645.0)),
    *((1280, 720, 30, 70.0, 4.8, 280.0), (720, 576, 60, 70.0, 5.0, 131.0)),
    *((720, 480, 30, 60.0, 4.0, 110.0), (160, 80, 30, 4.3, 1.5, 9.0)),
)
"""Width, height, frames/s, UL and DL Mbit/s, inference ms."""
TABLE_III = {"DDDDDDDSUU": (12.5, 99.0), "DDSUU": (16.0, 82.0), "DSUUU": (22.0, 44.0)}
"""TDD pattern: peak UL and DL Mbit/s."""
TABLE_IV = {
    "DL": (19.0, 9.0, 62.0, 31.0),
    "edge": (9.0, 7.0, 376.0, 7.0),
    "UL": (12.0, 5.0, 216.0, 27.0),
    "round trip": (40.0, 24.0, 567.0, 63.0),
}
"""Average, minimum, maximum and 90th percentile in ms of one flow at full resources."""

_SLOTS_PER_S = 2000
_SEEDS = (1, 2, 3, 4)


def calibrate(progress: Callable[[str], None] = lambda _: None, *, flow_s: float = 1200.0) -> Calibration:
    """Emulates the three tables. ``flow_s`` are the emulated seconds behind Table IV."""
    out = Calibration("paper")
    progress("Table II")
    _table_ii(out)
    progress("Table III")
    _table_iii(out)
    progress("Table IV")
    _table_iv(out, flow_s)
    return out


# -- Table II ----------------------------------------------------------------------------------------


def _table_ii(out: Calibration) -> None:
    group = "Table II: one flow by resolution, client and server on one wire"
    for width, height, fps, ul, dl, inference in TABLE_II:
        bits, ms = offered(width, height)
        results = min(float(fps), 1e3 / ms)
        name = f"{width}x{height} at {fps} fps"
        out.rows.append(Row(group, f"{name} UL", "Mbit/s", ul, bits[0] * fps / 1e6, AVERAGE_AIM))
        note = "" if results == fps else f"{results:.1f} results/s"
        out.rows.append(Row(group, f"{name} DL", "Mbit/s", dl, bits[1] * results / 1e6, AVERAGE_AIM, note))
        out.rows.append(Row(group, f"{name} inference", "ms", inference, ms, AVERAGE_AIM))
    out.missing += [
        "Table II, inference: the table has 9 ms at 160x80 where Table IV has 7; its setup is emulated with "
        f"an inference time {TABLE_II_INFERENCE:.2f} times that of the scenarios",
        "Table II, rates: frames are a power law of the pixels (UL) and results affine in them (DL), with no "
        "content or codec setting behind them; 720x480 and 720x576 lie above and below one law by a third, "
        "960x720 answers with 2.6 times the bits a pixel of every other resolution",
    ]


def offered(width: int, height: int) -> tuple[tuple[float, float], float]:
    """((UL, DL) bits of a frame and of its result, inference in ms) as the emulated application has them.

    The flow is slow enough that neither radio nor GPU has a queue: the rates are the application's own.
    """
    up, down = table_ii_bits(width, height)
    fps = 0.25
    flow = FlowSpec(
        *("flow", "ue"),
        fps=fps,
        width=width,
        height=height,
        ul=RateSpec(up * fps, 0.0, up * fps),
        dl=RateSpec(down * fps, 0.0, down * fps),
    )
    edge = EdgeSpec()
    edge = replace(
        edge,
        base_ms=edge.base_ms * TABLE_II_INFERENCE,
        clocked_ms=edge.clocked_ms * TABLE_II_INFERENCE,
        stall_rate_hz=0.0,
    )
    buffer = 8 << 20
    spec = TestbedSpec(
        [UeSpec("ue", 1)],
        [flow],
        edge=edge,
        tcp=TcpSpec(send_buffer_bytes=buffer, receive_buffer_bytes=buffer),
        rlc=RlcSpec(queue_limit_bytes=5_000_000),
        path=PathSpec(hiccup_rate_hz=0.0),
    )
    bed = EmulatedTestbed(spec, seed=1)
    times = _times(bed, 100 * _SLOTS_PER_S)
    up_bytes, down_bytes = (c.offered for c in bed.counters())
    n = len(times)
    done = int((times[:, 2] > 0).sum())
    edge_ms = (times[:, 2] - times[:, 1])[times[:, 2] > 0] / 1e6
    return (up_bytes * 8 / n, down_bytes * 8 / done), float(np.median(edge_ms))


# -- Table III ---------------------------------------------------------------------------------------


def peak(direction: str, tdd: str, seconds: float = 60.0, seed: int = 1) -> tuple[float, float]:
    """(Mbit/s, mean MCS) of a saturated direction at full resources, without hiccups."""
    pattern = TDD_PATTERNS[tdd]
    cell = CellSpec(tdd=pattern, sr_period_slots=2 * pattern.period_slots)
    flow = FlowSpec("flow", "ue", kind=f"saturated_{direction}")
    path = PathSpec(hiccup_rate_hz=0.0)
    bed = EmulatedTestbed(TestbedSpec([UeSpec("ue", 1)], [flow], cell, path=path), seed=seed)
    start = 5 * _SLOTS_PER_S
    bed.advance(start)
    before = getattr(bed.mac_report().ues[0], direction).lc_bytes
    levels = []
    for second in range(int(seconds)):
        bed.advance(start + (second + 1) * _SLOTS_PER_S)
        levels.append(getattr(bed.mac_report().ues[0], direction).mcs)
    after = getattr(bed.mac_report().ues[0], direction).lc_bytes
    return (after - before) * 8 / int(seconds) / 1e6, float(np.mean(levels))


def ceiling(tdd: str) -> float:
    """Mbit/s of the DL with every data symbol of every PRB at MCS 28 of MCS table 1 and no error."""
    pattern, cell = TDD_PATTERNS[tdd], CellSpec()
    bits = 0
    for at in range(pattern.period_slots):
        symbols = pattern.dl_symbols_in(at) - cell.control_symbols
        if symbols > 0:
            bits += int(
                tbs_table(symbols, cell.n_prb, dmrs_re=12 if symbols == 13 else 6)[MAX_MCS, cell.n_prb]
            )
    return bits / (pattern.period_slots * 500.0)


def _table_iii(out: Calibration) -> None:
    group = "Table III: peak bitrate at 106 PRB"
    for tdd, paper in TABLE_III.items():
        for direction, mbps in zip(("ul", "dl"), paper, strict=True):
            got, mcs = peak(direction, tdd)
            note = f"MCS {mcs:.1f}"
            if direction == "dl":
                note += f", ceiling {ceiling(tdd):.1f}"
            name = f"{tdd} {direction.upper()}"
            out.rows.append(Row(group, name, "Mbit/s", mbps, got, AVERAGE_AIM, note))
    out.missing += [
        "Table III, DL of DSUUU and DDDDDDDSUU: MCS table 2 (256QAM, TS 38.214 Table 5.1.3.1-2), which OAI "
        "uses for a UE that reports it, is not modelled; the paper's 44 Mbit/s lies above the ceiling of MCS "
        "28 in table 1 with OAI's control symbol and DM-RS, and the real scheduler in rfsim gives what is "
        "emulated",
        "Table III, UL of DDSUU and DDDDDDDSUU: the paper's 12.5, 16 and 22 Mbit/s are no function of the UL "
        "symbols that K2 = 6 lets OAI grant (612, 672 and 744 resource elements a PRB in 10 ms, 0.82 : 0.90 "
        ": 1); a channel of its own for each of the three measurements would explain it, one SNR is emulated",
    ]


# -- Table IV ----------------------------------------------------------------------------------------


def one_flow(seconds: float, seed: int = 1) -> dict[str, NDArray[np.float64]]:
    """Delays in ms of one flow's frames at full resources, without hiccups, by hop and round trip."""
    spec = TestbedSpec([UeSpec("ue", 1)], [FlowSpec("flow", "ue")], path=PathSpec(hiccup_rate_hz=0.0))
    times = _times(EmulatedTestbed(spec, seed=seed), int(seconds * _SLOTS_PER_S))
    t = times[times[:, 3] > 0] / 1e6
    return {
        "DL": t[:, 3] - t[:, 2],
        "edge": t[:, 2] - t[:, 1],
        "UL": t[:, 1] - t[:, 0],
        "round trip": t[:, 3] - t[:, 0],
    }


def _times(bed: EmulatedTestbed, until: int) -> NDArray[np.float64]:
    rows: dict[int, tuple[int, ...]] = {}
    while bed.nr_slot < until:
        bed.advance(min(until, bed.nr_slot + _SLOTS_PER_S))
        f = bed.take_frames()
        columns = (f.ue_sent, f.edge_received, f.edge_sent, f.ue_received)
        for sequence, *times in zip(f.sequence.tolist(), *(c.tolist() for c in columns), strict=True):
            rows[sequence] = tuple(t and t - bed.epoch_ns for t in times)
    return np.array(list(rows.values()), float).reshape(-1, 4)


def _table_iv(out: Calibration, seconds: float) -> None:
    group = "Table IV: one flow at full resources"
    runs = [one_flow(seconds / len(_SEEDS), seed) for seed in _SEEDS]
    for hop, (mean, low, high, p90) in TABLE_IV.items():
        ms = np.concatenate([r[hop] for r in runs])
        out.rows += [
            Row(group, f"{hop} average", "ms", mean, float(ms.mean()), AVERAGE_AIM),
            Row(group, f"{hop} minimum", "ms", low, float(ms.min())),
            Row(
                group, f"{hop} maximum", "ms", high, float(ms.max()), None, "grows with the length of the run"
            ),
            Row(group, f"{hop} p90", "ms", p90, float(np.quantile(ms, 0.9)), P90_AIM),
        ]
    out.missing.append(
        "Table IV, UL: half the frames take over 11 ms (buffer status report, K2 and two TDD periods for "
        "12.5 kB), so a mean of 12 ms leaves little for a tail with a 90th percentile of 27 ms; a modem that "
        "needs fewer TDD periods for most frames would make room for it, and for the rare long holds behind "
        "the maximum of 216 ms. Round trip: hops are independent "
        "here, and the paper's maximum of 567 ms says that its stalls sometimes meet"
    )
