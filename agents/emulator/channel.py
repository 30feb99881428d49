"""SNR of a UE: from a measured trace, a series or for the channel process; CQI; block error rates.

A trace is a table of :mod:`wire.channel_traces`. What drives the cell is the CQI: it says which MCS the
network's own link adaptation would have had, while the SNR of such traces is taken on reference signals of
neighbouring load and contradicts it. Both are downlink measurements.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.emulator.spec import ChannelProcess, ChannelSeries, ChannelTrace, LinkSpec
from wire import channel_traces
from wire.channel_traces import Account
from wire.definitions.nr import MAX_MCS, spectral_efficiency

CQI_EFFICIENCY = (
    *(0.1523, 0.2344, 0.3770, 0.6016, 0.8770, 1.1758, 1.4766, 1.9141),
    *(2.4063, 2.7305, 3.3223, 3.9023, 4.5234, 5.1152, 5.5547),
)
"""Bits of a resource element by CQI 1..15 (TS 38.214 Table 5.2.2.1-2)."""

OUTAGE_DB = -40.0
"""SNR of a row that is not 5G, where that is an outage: no transmission gets through."""


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
    out (``skip``) or are an outage; so is a gap of more than :data:`wire.channel_traces.MAX_GAP_S`, while a
    shorter one holds the row before it. Of several rows in a second the last one counts.
    :func:`trace_account` says what became of the rows. ValueError, OSError as of
    :func:`wire.channel_traces.read_trace`.
    """
    return _grid(trace, link)[0]


def trace_account(trace: ChannelTrace) -> Account:
    """What became of a trace's rows in :func:`read_trace`, whose errors it has."""
    return _grid(trace, LinkSpec())[1]


def _grid(trace: ChannelTrace, link: LinkSpec) -> tuple[NDArray[np.float64], Account]:
    if trace.not_5g not in ("skip", "outage"):
        raise ValueError(f"channel trace: not_5g {trace.not_5g!r} is neither 'skip' nor 'outage'")
    if trace.between not in ("linear", "hold"):
        raise ValueError(f"channel trace: between {trace.between!r} is neither 'linear' nor 'hold'")
    rows = channel_traces.read_trace(Path(trace.path))
    account = rows.account.copy()
    table = np.concatenate([[OUTAGE_DB], cqi_snr(link)])
    is_5g = np.array([why is None for why in rows.modes])
    held = rows.cqi[~np.isnan(rows.cqi)][0]
    cqi = np.array([held := held if np.isnan(c) else c for c in rows.cqi]).astype(int)
    second = _seconds(rows.times, account, skip=trace.not_5g == "skip")
    # The last row of each second, and of the seconds without one the row before.
    last = np.append(np.flatnonzero(np.diff(second)), len(second) - 1)
    if double := len(second) - len(last):
        account.left_out["in the same second as a later row"] = double
    row = np.repeat(last, np.diff(second[last], append=second[-1] + 1))
    if trace.not_5g == "skip":
        row = row[is_5g[row]]
        account.left_out.update(why for k in last if (why := rows.modes[k]) is not None)
        if not len(row):
            raise ValueError(f"{trace.path}: no second ends in a row of 5G")
    return np.where(is_5g[row], table[cqi[row]], OUTAGE_DB), account


def _seconds(times: NDArray[np.float64], account: Account, *, skip: bool) -> NDArray[np.int64]:
    """The second of each row, from 0; of gaps that are too long one second is left where they are cut out."""
    steps = np.diff(times)
    long = steps > channel_traces.MAX_GAP_S
    if long.any():
        fate = "cut out" if skip else "in which the row before holds"
        account.notes.append(
            f"{long.sum()} gaps of more than {channel_traces.MAX_GAP_S:g} s,"
            f" {steps[long].sum():.0f} s together, {fate}"
        )
        if skip:
            steps[long] = 1.0
            times = np.concatenate([times[:1], times[0] + np.cumsum(steps)])
    # Fractions such as 4.1 - 0.1 lie a little below the whole second.
    return np.floor(times - times[0] + 1e-6).astype(np.int64)
