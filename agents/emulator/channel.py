"""SNR of a UE: from a measured trace, a series or for the channel process; CQI; block error rates.

A trace is a (gzipped) CSV with the columns ``t_s, network_mode, rsrp_dbm, snr_db, cqi, dl_kbps, ul_kbps,
speed_kmh``, ``-`` for a missing value. What drives the cell is the CQI: it says which MCS the network's own
link adaptation would have had, while the SNR of such traces is taken on reference signals of neighbouring
load and contradicts it. Both are downlink measurements.
"""

from __future__ import annotations

import csv
import gzip
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.emulator.spec import ChannelProcess, ChannelSeries, ChannelTrace, LinkSpec
from wire.definitions.nr import MAX_MCS, spectral_efficiency

CQI_EFFICIENCY = (
    *(0.1523, 0.2344, 0.3770, 0.6016, 0.8770, 1.1758, 1.4766, 1.9141),
    *(2.4063, 2.7305, 3.3223, 3.9023, 4.5234, 5.1152, 5.5547),
)
"""Bits of a resource element by CQI 1..15 (TS 38.214 Table 5.2.2.1-2)."""

OUTAGE_DB = -40.0
"""SNR of a row that is not 5G, where that is an outage: no transmission gets through."""

TRACE_COLUMNS = ("t_s", "network_mode", "cqi")
MAX_GAP_S = 60.0
"""A longer gap between two rows is refused."""


def bler_midpoints(link: LinkSpec) -> NDArray[np.float64]:
    """SNR in dB at which the first transmission fails every second time, by MCS: float64 [29]."""
    mcs = np.arange(MAX_MCS + 1)
    return link.snr_at_mcs0_db + mcs * link.snr_step_db - link.bler_scale_db * np.log(9.0)


def bler(link: LinkSpec, snr_db: float, mcs: int) -> float:
    """Block error rate of a first transmission, 0..1."""
    return float(1 / (1 + np.exp((snr_db - bler_midpoints(link)[mcs]) / link.bler_scale_db)))


def cqi_snr(link: LinkSpec) -> NDArray[np.float64]:
    """SNR in dB that a CQI stands for, by CQI 1..15 at [0..14]: float64 [15].

    The SNR at which the model's MCS of the same spectral efficiency has 10 % BLER (TS 38.214 5.2.2.1 defines
    a CQI by that error rate), with the MCS interpolated.
    """
    efficiency = [spectral_efficiency(m) for m in range(MAX_MCS + 1)]
    # MCS 17 has less efficiency than 16: keep the curve monotone for the interpolation.
    mcs = np.interp(CQI_EFFICIENCY, np.maximum.accumulate(efficiency), np.arange(MAX_MCS + 1.0))
    mcs[0] = -2.0
    return link.snr_at_mcs0_db + mcs * link.snr_step_db


def snr_grid(channel: ChannelProcess | ChannelTrace | ChannelSeries, link: LinkSpec) -> NDArray[np.float64]:
    """DL SNR in dB on a grid of one second, float64 [seconds]; empty for a process.

    ValueError, OSError as :func:`read_trace`.
    """
    match channel:
        case ChannelProcess():
            return np.empty(0)
        case ChannelSeries():
            return channel.snr_db
        case ChannelTrace():
            return read_trace(channel, link)


def read_trace(trace: ChannelTrace, link: LinkSpec) -> NDArray[np.float64]:
    """DL SNR in dB on a grid of one second, from the trace's rows: float64 [seconds].

    A missing CQI holds the last one (before the first, the first one known). Rows that are not 5G are cut
    out (``skip``) or are an outage. Times rise by at most :data:`MAX_GAP_S`; rows closer than a second keep
    the later one. ValueError, naming the file and the row, for columns that are not there, for what is
    neither a number nor ``-``, for a CQI outside 0..15, for time that does not rise, for a longer gap;
    ValueError naming the file where no row can be used; OSError where it cannot be read.
    """
    path = Path(trace.path)
    if trace.not_5g not in ("skip", "outage"):
        raise ValueError(f"channel trace: not_5g {trace.not_5g!r} is neither 'skip' nor 'outage'")
    if trace.between not in ("linear", "hold"):
        raise ValueError(f"channel trace: between {trace.between!r} is neither 'linear' nor 'hold'")
    times, modes, cqis = _rows(path)
    known = [c for c in cqis if c is not None]
    if not known:
        raise ValueError(f"{path}: no row has a CQI")
    table = np.concatenate([[OUTAGE_DB], cqi_snr(link)])
    held, snr = known[0], []
    for mode, cqi in zip(modes, cqis, strict=True):
        held = held if cqi is None else cqi
        snr.append(table[held] if mode == "5G" else OUTAGE_DB)
    grid = np.full(int(times[-1] - times[0]) + 1, np.nan)
    second = (np.asarray(times) - times[0]).astype(int)
    # A gap in the rows holds the row before it.
    for at, value in zip(second, snr, strict=True):
        grid[at] = value
    filled = np.maximum.accumulate(np.where(np.isnan(grid), 0, np.arange(len(grid))))
    grid = grid[filled]
    if trace.not_5g == "skip":
        is_5g = np.zeros(len(grid), bool)
        is_5g[second] = [m == "5G" for m in modes]
        grid = grid[is_5g[filled]]
        if not len(grid):
            raise ValueError(f"{path}: no row is 5G")
    return grid


def _rows(path: Path) -> tuple[list[float], list[str], list[int | None]]:
    stat = path.stat()
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, mtime_ns: int, size: int) -> tuple[list[float], list[str], list[int | None]]:
    """A file is read once for all UEs that it drives; time and size tell that it has been written anew."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            return _columns(csv.DictReader(file), path)
    except (EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error


def _columns(reader: csv.DictReader[str], path: Path) -> tuple[list[float], list[str], list[int | None]]:
    times: list[float] = []
    modes: list[str] = []
    cqis: list[int | None] = []
    missing = [c for c in TRACE_COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} is not there")
    for row in reader:
        where = f"{path}: row {reader.line_num}"
        t = _number(row["t_s"], "t_s", where)
        if t is None:
            raise ValueError(f"{where}: t_s is missing")
        if times and not 0 < t - times[-1] <= MAX_GAP_S:
            raise ValueError(f"{where}: t_s {t:g} after {times[-1]:g} (it rises, by at most {MAX_GAP_S:g} s)")
        cqi = _number(row["cqi"], "cqi", where)
        if cqi is not None and (cqi != int(cqi) or not 0 <= cqi <= 15):
            raise ValueError(f"{where}: cqi {cqi:g} is not a whole number in 0..15")
        times.append(t)
        modes.append(row["network_mode"] or "-")
        cqis.append(None if cqi is None else int(cqi))
    if not times:
        raise ValueError(f"{path}: no rows")
    return times, modes, cqis


def _number(text: str | None, column: str, where: str) -> float | None:
    if text is None:
        raise ValueError(f"{where}: {column} is not there")
    if text.strip() == "-":
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{where}: {column} {text!r} is not a number") from None
    if not np.isfinite(value):
        raise ValueError(f"{where}: {column} {text!r} is not finite")
    return value
