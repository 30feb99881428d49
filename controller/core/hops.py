"""Hop states from MAC reports (MUCB1 paper, section VIII-A)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite

from controller.core.measure import Lever
from controller.core.observation import Flow, MacReport
from wire.definitions import nr

_FRAME_S = nr.FRAME_MS / 1000


@dataclass(frozen=True, slots=True)
class Carrier:
    """What turns bits into PRBs on one cell.

    ``guard`` counts the guard symbols of the TDD pattern (see :meth:`nr.TddPattern.share`); off, as the
    authors do. Overheads are fractions of the resource elements. ``subinterval_ms`` is the time in
    which the present queue is to drain. ValueError for an overhead outside 0..1 (1 excluded), a
    sub-interval that is not positive and a pattern without one of the directions.
    """

    tdd: nr.TddPattern = nr.TDD_PATTERNS["DSUUU"]
    scs_khz: int = 30
    guard: bool = False
    ul_overhead: float = 0.08
    dl_overhead: float = 0.14
    subinterval_ms: float = 200.0
    _prb_per_bit: dict[str, dict[int, dict[int, float]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for direction, overhead in (("ul", self.ul_overhead), ("dl", self.dl_overhead)):
            if not 0 <= overhead < 1:
                raise ValueError(f"{direction} overhead {overhead!r} is outside 0..1")
            if self.tdd.share(direction, guard=self.guard) == 0:
                raise ValueError(f"TDD pattern {self.tdd.name!r} has no {direction} symbol")
        if not (isfinite(self.subinterval_ms) and self.subinterval_ms > 0):
            raise ValueError(f"sub-interval {self.subinterval_ms!r} ms is not a positive number")
        factors = {
            direction: {
                table: {
                    mcs: 1 / self.bits_per_prb(direction, mcs, table) for mcs in range(nr.max_mcs(table) + 1)
                }
                for table in nr.MCS_TABLES
            }
            for direction in ("ul", "dl")
        }
        object.__setattr__(self, "_prb_per_bit", factors)

    def bits_per_prb(self, direction: str, mcs: int, table: int = 1) -> float:
        """Bits that one PRB carries in a radio frame on one layer.

        SE x 12 subcarriers x symbols in 10 ms x TDD share x (1 - overhead).
        """
        overhead = self.ul_overhead if direction == "ul" else self.dl_overhead
        symbols = nr.symbols_per_ms(self.scs_khz) * nr.FRAME_MS
        share = self.tdd.share(direction, guard=self.guard)
        return nr.spectral_efficiency(mcs, table) * nr.N_SC_PER_RB * symbols * share * (1 - overhead)

    def prb_per_bit(self, direction: str) -> dict[int, dict[int, float]]:
        """1 / :meth:`bits_per_prb` by MCS table, then by MCS index."""
        return self._prb_per_bit[direction]


def demand_prb(
    reports: Sequence[MacReport],
    flows: Sequence[Flow],
    slice_id: str,
    hop: Lever,
    carrier: Carrier,
    *,
    queue: bool = True,
) -> float | None:
    """PRBs that a slice's traffic needs over a hop: the mean over the reports of the sum over its UEs.

    A slice's UEs are those that a report names with it. Each UE needs, at its own MCS, MCS table and
    layers, the PRBs for the bits of a radio frame: 10 ms of the offered rates of its flows active at the
    report's time, and the part of its MAC queue that must go in 10 ms to drain it in one sub-interval.
    ``queue=False`` leaves the queue out, as the authors' code does. The edge has the demand of the uplink.

    None where there is no report at all. ValueError for an MCS or MCS table that does not exist; it names
    report, UE and value.
    """
    if not reports:
        return None
    downlink = hop == Lever.DL
    factors = carrier.prb_per_bit("dl" if downlink else "ul")
    drain = 8 * nr.FRAME_MS / carrier.subinterval_ms if queue else 0.0
    first = min(r.time_ns for r in reports)
    last = max(r.time_ns for r in reports)
    steady: dict[str, float] = {}
    changing: list[Flow] = []
    for f in flows:
        if f.start_ns <= first and (f.stop_ns == 0 or f.stop_ns > last):
            rate = f.dl_bps if downlink else f.ul_bps
            steady[f.ue_id] = steady.get(f.ue_id, 0.0) + rate * _FRAME_S
        elif f.start_ns <= last and (f.stop_ns == 0 or f.stop_ns > first):
            changing.append(f)
    total = 0.0
    for report in reports:
        offered = steady
        if changing:
            now = report.time_ns
            offered = dict(steady)
            for f in changing:
                if f.start_ns <= now and (f.stop_ns == 0 or f.stop_ns > now):
                    rate = f.dl_bps if downlink else f.ul_bps
                    offered[f.ue_id] = offered.get(f.ue_id, 0.0) + rate * _FRAME_S
        columns = report.dl if downlink else report.ul
        for ue, its_slice, mcs, table, layers, queued in zip(
            report.ue_id,
            report.slice,
            columns.mcs,
            columns.mcs_table,
            columns.layers,
            columns.queued_bytes,
            strict=True,
        ):
            if its_slice == slice_id:
                bits = offered.get(ue, 0.0) + queued * drain
                if bits:
                    try:
                        total += bits * factors[table][mcs] / layers
                    except (KeyError, ZeroDivisionError):
                        raise ValueError(
                            f"report at {report.time_ns} ns, UE {ue!r}, hop {hop.value}: "
                            f"no MCS {mcs!r} in MCS table {table!r} on {layers!r} layers"
                        ) from None
    return total / len(reports)


def offered_prb(
    reports: Sequence[MacReport], flows: Sequence[Flow], slice_id: str, hop: Lever, carrier: Carrier
) -> list[float]:
    """PRBs that a slice's offered rates need over a hop at each of the reports: :func:`demand_prb` without
    the queue, before the mean."""
    demands = (demand_prb((r,), flows, slice_id, hop, carrier, queue=False) for r in reports)
    return [d for d in demands if d is not None]


def state_grid(n_prb: int = 106, step: int = 5) -> tuple[int, ...]:
    """The hop states of a carrier in PRB: 0, step, 2 step, ... up to ``n_prb``.

    >>> state_grid()[:3], state_grid()[-1]
    ((0, 5, 10), 105)
    """
    if n_prb < 1 or step < 1:
        raise ValueError(f"no hop states for {n_prb!r} PRB in steps of {step!r}")
    return tuple(range(0, n_prb + 1, step))


def hop_state(demand: float, grid: Sequence[int]) -> int:
    """The hop state of a demand in PRB: rounded up to whole PRBs, then the smallest greater grid value.

    The last grid value where none is greater. ValueError for a demand that is negative or not finite.

    >>> hop_state(13.1, state_grid()), hop_state(14.5, state_grid())
    (15, 20)
    """
    if not (isfinite(demand) and demand >= 0):
        raise ValueError(f"demand of {demand!r} PRB is not a number of PRBs")
    return grid[min(bisect_right(grid, ceil(demand)), len(grid) - 1)]
