"""What a metrics page shows of a cell when it is read: its links, its UEs and its decision."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import Metric

from controller.core.clocks import STATES
from controller.core.measure import MAX_NAMES, RESOURCES, Lever
from controller.core.observation import MacReport, Mode
from controller.core.ue_rates import UeRate
from controller.links.operator import CellStatus
from wire.families import PREFIX, Families, Family

log = logging.getLogger(__name__)

NO_SLICE = "none"
"""The label ``slice`` of a UE that is in none."""


def _gauges(rows: Mapping[str, tuple[str, Sequence[str]]]) -> list[Family]:
    return [Family(PREFIX + name, "gauge", text, tuple(labels)) for name, (text, labels) in rows.items()]


class _Page:
    """The families of one scrape, by their short name."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._made = {f.name.removeprefix(PREFIX): f.open() for f in families}

    def __call__(self, name: str, value: float | None, *labels: str) -> None:
        """A sample; none where the value is not known."""
        if value is not None:
            self._made[name].add_metric(labels, value)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._made.values())


# ---- links and UEs ---------------------------------------------------------------------------------------

_CELL = ("cell",)
_HOST = ("cell", "host")
_UE = ("cell", "slice", "ue")
_UE_WAY = ("cell", "slice", "ue", "direction")

LINKS = _gauges(
    {
        "gnb_connected": ("1 while the gNB of the cell has a session", _CELL),
        "report_age_seconds": ("Age of the session's last MacReport, seconds", _CELL),
        "lease_remaining_seconds": (
            "Time until the lease of the quotas in force ends, seconds",
            _CELL,
        ),
        "edge_agent_connected": ("1 while the edge agent of the cell's GPU answers", _CELL),
        "gpu_clock_hertz": ("GPU clock as the edge agent read it back, Hz", _CELL),
        "gpu_power_watts": ("GPU power as the edge agent read it, W", _CELL),
        "power_saving_ratio": (
            "Mean saving against the cell's maxima over the control slots so far, 0..1: of the GPU's dynamic"
            " power (gpu), the base station's DL power (bs), a UE's power (ue). Potential savings, by the"
            " models of the MUCB1 paper, section V; nothing measures them",
            ("cell", "part"),
        ),
        "clock_usable": ("1 while hop delays may be told from the host's clock", _HOST),
        "clock_offset_seconds": ("Offset of the host's clock as it was told last, seconds", _HOST),
        "clock_age_seconds": ("Time since the host told of its clock, seconds", _HOST),
        "ues": ("UEs in the cell's last MacReport", _CELL),
        "ue_cqi": ("Wide-band CQI that the UE reported last (TS 38.214 clause 5.2.2.1), 1..15", _UE),
        "ue_snr_db": ("SNR of the UE's PUSCH, dB", _UE),
        "ue_mcs": ("MCS index of the UE's last grant (TS 38.214 clause 5.1.3.1)", _UE_WAY),
        "ue_bler_ratio": ("BLER of the UE's first transmissions, 0..1", _UE_WAY),
        "ue_queued_bytes": (
            "Bytes that wait for the UE (DL), or by its buffer status reports (UL)",
            _UE_WAY,
        ),
        "ue_throughput_bits_per_second": (
            "Bits of the UE's logical channels between two reports a second apart, bit/s",
            _UE_WAY,
        ),
        "ue_prb": (
            "PRBs that the UE was given, HARQ retransmissions included: mean of all NR slots that the TDD"
            " pattern gives the direction, between two reports a second apart; 0 to prbandit_carrier_prb",
            _UE_WAY,
        ),
    }
)


class CellCollector(Families):
    """Asks for every cell's status; a cell whose status cannot be told is left out of the scrape.

    UEs are bounded in number as those of a MacReport are (:data:`controller.links.codec.MAX_UES`); one that
    is in the last report no more has no series any more.
    """

    families = LINKS

    def __init__(self, cells: Mapping[str, Callable[[], CellStatus]]) -> None:
        self._cells = cells

    def collect(self) -> Iterator[Metric]:
        page = _Page(LINKS)
        for cell, ask in list(self._cells.items()):
            try:
                status = ask()
            except Exception as error:
                log.warning("cell %s: its status cannot be read for the metrics: %r", cell, error)
                continue
            _links(page, cell, status)
            _edge(page, cell, status)
            for clock in status.clocks:
                offset_s = clock.offset_ns / 1e9 if clock.ptp_state in STATES else None
                page("clock_usable", not clock.fault, cell, clock.host)
                page("clock_offset_seconds", offset_s, cell, clock.host)
                page("clock_age_seconds", clock.age_s, cell, clock.host)
            if status.report is not None:
                _ues(page, cell, status.report, status.rates)
        yield from page


def _links(page: _Page, cell: str, status: CellStatus) -> None:
    page("gnb_connected", status.connected, cell)
    page("report_age_seconds", status.report_age_s, cell)
    page("lease_remaining_seconds", status.lease_left_s, cell)
    if status.savings is not None:
        for part in ("gpu", "bs", "ue"):
            page("power_saving_ratio", getattr(status.savings, part), cell, part)


def _edge(page: _Page, cell: str, status: CellStatus) -> None:
    if not status.edge_configured:
        return
    page("edge_agent_connected", status.edge_connected, cell)
    if status.edge_connected:
        page("gpu_clock_hertz", status.sm_mhz * 1e6 if status.sm_mhz else None, cell)
        page("gpu_power_watts", status.gpu_power_w, cell)


def _ues(page: _Page, cell: str, report: MacReport, rates: Mapping[str, UeRate]) -> None:
    page("ues", len(report.ue_id), cell)
    for i, (ue, name) in enumerate(zip(report.ue_id, report.slice, strict=True)):
        labels = (cell, name or NO_SLICE, ue)
        page("ue_cqi", (report.cqi[i] or None) if report.cqi else None, *labels)
        page("ue_snr_db", report.snr_db[i] if report.snr_db else None, *labels)
        rate = rates.get(ue, UeRate())
        for direction, columns, told in (("ul", report.ul, rate.ul), ("dl", report.dl, rate.dl)):
            way = (*labels, direction)
            page("ue_mcs", columns.mcs[i], *way)
            page("ue_bler_ratio", columns.bler[i] if columns.bler else None, *way)
            page("ue_queued_bytes", columns.queued_bytes[i], *way)
            if told is not None:
                page("ue_throughput_bits_per_second", told.throughput_bps, *way)
                page("ue_prb", told.prb, *way)


# ---- the decision ----------------------------------------------------------------------------------------

_SLICE = ("cell", "slice")
_WAY = ("cell", "slice", "direction")
_MEASURE = ("cell", "slice", "measure", "unit")

DECISION = _gauges(
    {
        "control_slot": ("Number of the control slot in progress", _CELL),
        "last_decision_timestamp_seconds": ("Unix time of the last decision, seconds", _CELL),
        "mode": (
            "1 for what the controller does with its decisions, else 0",
            ("cell", "mode"),
        ),
        "carrier_prb": ("PRBs of the carrier", _CELL),
        "quota_prb": ("PRBs that the slice may use from the last decision on; without a quota all", _WAY),
        "asked_prb": ("PRBs that the slice's allocator asked for in the last decision", _WAY),
        "demand_prb": (
            "Demand of the last decision: PRBs that the slice's traffic needs at the present MCS",
            _WAY,
        ),
        "manual_quota_prb": (
            "PRBs that an operator has set for the slice; 0 while its allocator decides",
            _WAY,
        ),
        "gpu_max_hertz": ("Highest clock of the GPU, Hz", _CELL),
        "gpu_wanted_hertz": ("GPU clock of the last decision, Hz; the highest without a lock", _CELL),
        "asked_gpu_hertz": (
            "GPU clock that the slice's allocator asked for, Hz; 0: it needs no GPU",
            _SLICE,
        ),
        "rescue_ratio": (
            "The least that the slice gets although it asks for less, 0..1 of all PRBs or of the highest"
            " clock; 0 without rescue",
            ("cell", "slice", "lever"),
        ),
        "settings_flows": ("Flows whose application was told settings in the last decision", _SLICE),
        "active_flows": ("Flows that the last closed control slot was judged by", _SLICE),
        "measure": (
            "Measure of the worst user in the last closed control slot, in the base unit of the label `unit`",
            _MEASURE,
        ),
        "measure_target": (
            "What the worst user's measure is held against: a delay's budget, the promise of a share or a"
            " score; in the same unit",
            _MEASURE,
        ),
    }
)

BASE_UNITS: dict[str, tuple[str, float]] = {
    "ms": ("s", 1e-3),
    "kbit/s": ("bit/s", 1e3),
    "mJ": ("J", 1e-3),
    "s/min": ("1", 1 / 60),
    "1/min": ("Hz", 1 / 60),
    "frames/s": ("Hz", 1.0),
}
"""A measure's unit -> its base unit, and what makes that of its values; other units are base units."""


class DecisionCollector(Families):
    """Exports the last decision record of each cell (``cell -> Decision.to_record``)."""

    families = DECISION

    def __init__(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        self._records = records

    def collect(self) -> Iterator[Metric]:
        page = _Page(DECISION)
        for cell, record in list(self._records.items()):
            prb, max_mhz = record["prb"], record["max_mhz"]
            mhz = max_mhz if record["gpu_mhz"] is None else record["gpu_mhz"]
            page("control_slot", record["control_slot"], cell)
            page("last_decision_timestamp_seconds", record["time_ns"] / 1e9, cell)
            for mode in Mode:
                page("mode", mode.value == record["mode"], cell, mode.value)
            page("carrier_prb", prb, cell)
            page("gpu_max_hertz", max_mhz * 1e6, cell)
            page("gpu_wanted_hertz", mhz * 1e6, cell)
            for name, s in record["slices"].items():
                quotas = record["quotas"].get(name, (prb, prb))
                for direction, quota in zip(("ul", "dl"), quotas, strict=True):
                    page("quota_prb", quota, cell, name, direction)
                _slice(page, (cell, name), s, {Lever.EDGE: max_mhz, Lever.UL: prb, Lever.DL: prb})
        yield from page


def _slice(page: _Page, labels: tuple[str, str], s: Mapping[str, Any], all_of: Mapping[Lever, int]) -> None:
    demands = {c["lever"]: c["demand"] for c in s["choices"] if not c.get("user")}
    for direction in ("ul", "dl"):
        page("asked_prb", s["demand"][direction][0], *labels, direction)
        page("demand_prb", demands.get(direction), *labels, direction)
        page("manual_quota_prb", (s.get("manual") or {}).get(direction) or 0, *labels, direction)
    page("asked_gpu_hertz", s["demand"]["gpu_mhz"] * 1e6, *labels)
    for lever in RESOURCES:
        least, _ = s.get("rescue", {}).get(lever.value, (0, ""))
        page("rescue_ratio", least / all_of[lever] if all_of[lever] else 0.0, *labels, lever.value)
    page("settings_flows", len(s["settings"]), *labels)
    page("active_flows", s["closed"]["users"], *labels)
    for measure, stored in list(s["closed"]["measures"].items())[:MAX_NAMES]:
        unit, factor = BASE_UNITS.get(stored["unit"], (stored["unit"], 1.0))
        if stored["users"]:
            worst = max if stored["better"] == "lower" else min
            value, target = worst(stored["users"].values())
            page("measure", value * factor, *labels, measure, unit)
            page("measure_target", target * factor if math.isfinite(target) else None, *labels, measure, unit)
