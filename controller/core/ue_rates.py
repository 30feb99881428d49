"""Throughput and PRBs of each UE, from what its MAC reports have counted since it attached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.core.observation import DirectionColumns, MacReport
from wire.definitions import nr

MIN_S = 1.0
"""Two reports are so far apart, at least: in less a rate tells of single grants."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One direction of a UE: bit/s of its logical channels, and the mean PRBs that it was given.

    ``prb`` counts HARQ retransmissions and is a mean over all NR slots that the TDD pattern gives that
    direction, its mixed slot included, busy or not: 0 to the carrier's PRBs, as a quota is (TS 28.552 clause
    5.1.1.2 has it in per cent of them).
    """

    throughput_bps: float
    prb: float


@dataclass(frozen=True, slots=True)
class UeRate:
    """Both directions of a UE; None where its counters are not known, or began anew."""

    ul: Rate | None = None
    dl: Rate | None = None


class UeRates:
    """The rates of a cell's UEs between one report and the next that is at least ``min_s`` later.

    One for each session of a gNB, since its counters are its own. ``scs_khz`` and ``tdd`` are the carrier's.
    """

    def __init__(self, scs_khz: int, tdd: nr.TddPattern, *, min_s: float = MIN_S) -> None:
        slots_per_s = nr.slots_per_frame(scs_khz) * 1000 / nr.FRAME_MS
        period = range(tdd.period_slots)
        self._slots_per_s = {
            "ul": slots_per_s * sum(tdd.ul_symbols_in(i) > 0 for i in period) / len(period),
            "dl": slots_per_s * sum(tdd.dl_symbols_in(i) > 0 for i in period) / len(period),
        }
        self._min_ns = min_s * 1e9
        self._base: MacReport | None = None
        self._latest: Mapping[str, UeRate] = {}

    @property
    def latest(self) -> Mapping[str, UeRate]:
        """UE id -> rates, of the last two reports that were far enough apart. Any thread may ask."""
        return self._latest

    def take(self, report: MacReport) -> Mapping[str, UeRate]:
        """The rates once ``report`` is known: UE id -> rates, an entry for each UE of the report that they
        were told from last; nothing before there are two.

        A UE whose counters went backwards, or that was not there before, attached in between: it has no rate
        until the next report. A report that is older than the one before (the gNB's clock was set) starts
        anew.
        """
        base = self._base
        if base is not None and 0 <= report.time_ns - base.time_ns < self._min_ns:
            return self._latest
        self._base = report
        if base is None or report.time_ns < base.time_ns:
            self._latest = {}
            return self._latest
        seconds = (report.time_ns - base.time_ns) / 1e9
        before = {ue: i for i, ue in enumerate(base.ue_id)}
        self._latest = {
            ue: UeRate(
                self._rate("ul", base.ul, before.get(ue), report.ul, i, seconds),
                self._rate("dl", base.dl, before.get(ue), report.dl, i, seconds),
            )
            for i, ue in enumerate(report.ue_id)
        }
        return self._latest

    def _rate(
        self,
        direction: str,
        base: DirectionColumns,
        i: int | None,
        now: DirectionColumns,
        j: int,
        seconds: float,
    ) -> Rate | None:
        known = (base.lc_bytes, base.prb_slots, now.lc_bytes, now.prb_slots)
        if i is None or not all(known):
            return None
        carried, given = now.lc_bytes[j] - base.lc_bytes[i], now.prb_slots[j] - base.prb_slots[i]
        if carried < 0 or given < 0:
            return None
        return Rate(8 * carried / seconds, given / (seconds * self._slots_per_s[direction]))
