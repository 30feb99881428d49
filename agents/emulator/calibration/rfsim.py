"""The emulated cell against the real OAI scheduler under PRB caps (``../shared/data/oai-rfsim``).

A folder of measurements holds ``capacity.csv.gz``, ``delay.csv.gz`` and ``slots.csv.gz`` (or another table of
:mod:`wire.tables`), in the columns that the folder's README describes.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from agents.emulator.calibration.table import Calibration, Row
from agents.emulator.spec import (
    BURST_UL,
    CBR_DL,
    CBR_UL,
    ECHO,
    RFSIM_ECHO_GAPS,
    RFSIM_PATH,
    RFSIM_UE_LEAD_SLOTS,
    ChannelProcess,
    FlowSpec,
    LinkSpec,
    RlcSpec,
    TestbedSpec,
    UeSpec,
    rfsim_cell,
)
from agents.emulator.testbed import EmulatedTestbed
from wire import tables
from wire.definitions.nr import FRAME_MS, MAX_MCS, SLOT_NS, SLOTS_PER_FRAME, TDD_PATTERNS, TddPattern

CAPACITY_COLUMNS = (
    *("tdd", "k2", "dir", "kind", "cap_prb", "noise_power_db", "phase", "mcs_mean", "grants_new"),
    *("grants_retx", "lc_bytes"),
)
DELAY_COLUMNS = (
    *("tdd", "k2", "kind", "run", "cap_prb", "noise_power_db", "load_dir", "load_pct_actual"),
    *("load_bytes_per_frame", "slots_dl", "slots_ul", "slots_total", "dl_mcs", "ul_mcs"),
)
SLOTS_COLUMNS = ("tdd", "k2", "dir", "cap_prb", "noise_power_db", "slot_in_frame", "grants_new")

CLEAR_DB = -50.0
"""A ``noise_power_db`` below this is no noise."""
CAPACITY_AIM, NOISY_CAPACITY_AIM, DELAY_AIM = 0.05, 0.15, 0.25
PLACE_AIM = 0.05
"""Part of the grants that may fall in another NR slot of the radio frame."""

_SETTLE, _HOLD, _REPORT = 100, 300, 10  # radio frames
_PROBES = 200
_RUNS = 6
_DRAIN = 400  # radio frames after the last probe
_LINK = LinkSpec()
_BURST = re.compile(r"burst(\d+)B_(?:(\d+)ps|isolated)")
_ISOLATED_FRAMES = 20
_ECHO = re.compile(r"echo(\d+)B")
_BURST_PACKETS = 9
_INDEX = {"ul": 0, "dl": 1}
_OVERLOAD_SLOTS = 60
"""A loaded hop's median above this is a queue, not a grant's latency."""


_LINE = "#"
"""Where a row keeps its place in the file."""


@dataclass(frozen=True, slots=True)
class _Table:
    path: Path
    separator: str
    rows: list[dict[str, str]]
    left_out: str = ""

    def where(self, row: dict[str, str]) -> str:
        return f"{self.path}: row {row[_LINE]}"

    def number(self, row: dict[str, str], column: str) -> float:
        try:
            return tables.number(row[column], self.separator)
        except ValueError as error:
            raise ValueError(f"{self.where(row)}: {column} {error}") from None

    def integer(self, row: dict[str, str], column: str) -> int:
        value = self.number(row, column)
        if value != int(value):
            raise ValueError(f"{self.where(row)}: {column} {row[column]!r} is not a whole number")
        return int(value)

    def cell(self, row: dict[str, str]) -> _Cell:
        name = row["tdd"].replace("M", "S")
        if name not in TDD_PATTERNS:
            known = ", ".join(TDD_PATTERNS)
            raise ValueError(f"{self.where(row)}: tdd {row['tdd']!r} is none of {known} (M stands for S)")
        k2, cap = self.integer(row, "k2"), self.integer(row, "cap_prb")
        if not 1 <= k2 <= 16:
            raise ValueError(f"{self.where(row)}: k2 {k2} is outside 1..16")
        if not 0 <= cap <= rfsim_cell(TDD_PATTERNS[name], k2).n_prb:
            raise ValueError(f"{self.where(row)}: cap_prb {cap} is outside the carrier")
        return _Cell(TDD_PATTERNS[name], k2, self.number(row, "noise_power_db"), cap)

    def direction(self, row: dict[str, str], column: str = "dir") -> str:
        name = row[column].lower()
        if name not in _INDEX:
            raise ValueError(f"{self.where(row)}: {column} {row[column]!r} is neither UL nor DL")
        return name


@dataclass(frozen=True, slots=True)
class _Cell:
    """What a group of rows was measured in."""

    tdd: TddPattern
    k2: int
    noise_db: float
    cap: int

    @property
    def clear(self) -> bool:
        return self.noise_db < CLEAR_DB

    def __str__(self) -> str:
        return f"{self.tdd.name}, K2 {self.k2}, noise {self.noise_db:g} dB"


def calibrate(data: Path, progress: Callable[[str], None] = lambda _: None) -> Calibration:
    """Drives the cell as each group of rows was driven and compares.

    A file that is not there is named among what was left out. FileNotFoundError, naming the folder and the
    files, where none is there; ValueError, naming file and row, for a malformed one.
    """
    read = {n: _read(data, n, c) for n, c in _FILES.items()}
    if all(t is None for t in read.values()):
        raise FileNotFoundError(f"{data}: none of {', '.join(f'{n}.csv.gz' for n in _FILES)} is there")
    out = Calibration("oai-rfsim")
    out.skipped += [f"{data / n}.csv.gz: not there" for n, t in read.items() if t is None]
    snr = _Snr(read["capacity"])
    if table := read["capacity"]:
        progress("capacity")
        _capacity(out, table)
    if table := read["slots"]:
        progress("grants in the radio frame")
        _places(out, table, snr)
    if table := read["delay"]:
        progress("delays")
        _delays(out, table, snr)
    out.missing += _reasons(out.rows)
    return out


_OPTIONAL = ("packets",)
_FILES = {"capacity": CAPACITY_COLUMNS, "slots": SLOTS_COLUMNS, "delay": DELAY_COLUMNS}


def _read(data: Path, name: str, columns: Iterable[str]) -> _Table | None:
    found = [f for f in tables.folder(data) if f.name.lower().split(".")[0] == name] if data.is_dir() else []
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{data}: {', '.join(f.name for f in found)}: which is it? Leave one")
    table = tables.read(found[0])
    places = {c: table.find([c]) for c in (*columns, *_OPTIONAL)}
    missing = [c for c in columns if places[c] is None]
    if missing:
        raise ValueError(
            f"{table.path}: column {missing[0]!r} is not there; columns found: {', '.join(table.columns)};"
            f" wanted: {', '.join(columns)}"
        )
    rows: list[dict[str, str]] = []
    for at, fields in enumerate(table.rows):
        row = {_LINE: str(table.lines[at])}
        for column, place in places.items():
            text = "" if place is None else fields[place]
            if text is None:
                raise ValueError(f"{table.where(at)}: {column} is not there")
            row[column] = "" if text.lower() in tables.MISSING else text
        rows.append(row)
    return _Table(table.path, table.separator, rows, table.left_out)


class _Snr:
    """SNR in dB of a cell and direction: that of the MCS at which its saturated rows settled.

    Without rows of that cap, those of the noise level; without any, what the measurements'
    README says: 14 dB at -7 and 8 dB at -4.
    """

    def __init__(self, capacity: _Table | None) -> None:
        seen: dict[tuple[_Cell | float, str], list[float]] = defaultdict(list)
        for row in capacity.rows if capacity else ():
            if capacity and row["kind"] == "saturated" and row["phase"] == "hold":
                mcs = capacity.number(row, "mcs_mean")
                if mcs >= 0:
                    cell, direction = capacity.cell(row), capacity.direction(row)
                    seen[cell, direction].append(mcs)
                    seen[cell.noise_db, direction].append(mcs)
        self._mcs = {k: fmean(v) for k, v in seen.items()}

    def __call__(self, cell: _Cell, direction: str) -> float:
        if cell.clear:
            return 51.0
        for key in ((cell, direction), (cell.noise_db, direction)):
            if key in self._mcs:
                return snr_of(self._mcs[key])
        return min(51.0, 14.0 - 2.0 * (cell.noise_db + 7.0))


def snr_of(mcs: float) -> float:
    """SNR in dB at which a first transmission at an MCS, interpolated, has 10 % BLER."""
    return _LINK.snr_at_mcs0_db + mcs * _LINK.snr_step_db


def _mcs_of(snr_db: float) -> int:
    return max(0, min(MAX_MCS, round((snr_db - _LINK.snr_at_mcs0_db) / _LINK.snr_step_db)))


def _bed(
    cell: _Cell, flows: Sequence[FlowSpec], ul_db: float, dl_db: float, *, mcs: int, seed: int = 1
) -> EmulatedTestbed:
    spec = TestbedSpec(
        [UeSpec("ue", 1, "s", ChannelProcess(ul_db, dl_db, 0.0))],
        flows,
        replace(rfsim_cell(cell.tdd, cell.k2), initial_mcs=mcs),
        rlc=RlcSpec(mode="um"),
        path=RFSIM_PATH,
    )
    bed = EmulatedTestbed(spec, seed=seed)
    bed.set_quotas({"s": (cell.cap, cell.cap)}, {})
    return bed


# -- capacity ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Saturated:
    """Means a radio frame of a saturated direction."""

    bits: float
    grants: float
    retx: float
    mcs: float


def saturated(cell: _Cell, direction: str, snr_db: float, mcs: int, seed: int = 1) -> _Saturated:
    """The emulated cell under a cap, one direction saturated, after it has settled."""
    flow = FlowSpec("flow", "ue", kind=f"saturated_{direction}")
    bed = _bed(cell, [flow], snr_db, snr_db, mcs=mcs, seed=seed)
    bed.advance(_SETTLE * SLOTS_PER_FRAME)
    before = getattr(bed.mac_report().ues[0], direction).lc_bytes
    grants = bed.grants("ue")
    levels = []
    for frame in range(_SETTLE, _SETTLE + _HOLD, _REPORT):
        bed.advance((frame + _REPORT) * SLOTS_PER_FRAME)
        levels.append(getattr(bed.mac_report().ues[0], direction).mcs)
    after = getattr(bed.mac_report().ues[0], direction).lc_bytes
    new, retx, _ = (bed.grants("ue") - grants)[_INDEX[direction]].sum(axis=1) / _HOLD
    return _Saturated((after - before) * 8 / _HOLD, float(new), float(retx), fmean(levels))


def at_mcs(cell: _Cell, direction: str, mcs: float) -> _Saturated:
    """As :func:`saturated`, at the SNR that makes link adaptation settle at the mean ``mcs``.

    The loop moves in whole steps: the nearest of five trials is taken.
    """
    snr, best = snr_of(mcs), None
    for _ in range(5):
        got = saturated(cell, direction, snr, max(0, min(28, round(mcs))))
        if best is None or abs(got.mcs - mcs) < abs(best.mcs - mcs):
            best = got
        if abs(best.mcs - mcs) < 0.2:
            break
        snr += 0.7 * (mcs - got.mcs) * _LINK.snr_step_db
    assert best is not None
    return best


def _tell_read(out: Calibration, table: _Table, used: int) -> None:
    out.read.append(f"{table.path.name}: {used} of {len(table.rows)} rows used{table.left_out}")


def _capacity(out: Calibration, table: _Table) -> None:
    groups: dict[tuple[_Cell, str], list[dict[str, str]]] = defaultdict(list)
    kinds: dict[str, int] = defaultdict(int)
    phases: dict[str, int] = defaultdict(int)
    for row in table.rows:
        if row["kind"] == "saturated":
            if row["phase"] == "hold":
                groups[table.cell(row), table.direction(row)].append(row)
            else:
                phases[row["phase"]] += 1
        else:
            kinds[row["kind"]] += 1
    _tell_read(out, table, sum(map(len, groups.values())))
    out.skipped += [
        f"{table.path.name}: {n} rows of phase {phase!r} (the cap has not settled)"
        for phase, n in sorted(phases.items())
    ]
    known = {
        "delay_probe": "the MAC rows of the delay runs; the delays themselves are compared",
        "cap_switch": "no cap holds for the ten radio frames of a row",
    }
    out.skipped += [
        f"{table.path.name}: {n} rows of kind {kind!r} ({known.get(kind, 'unknown kind')})"
        for kind, n in sorted(kinds.items())
    ]
    order = sorted(groups, key=lambda k: (k[0].tdd.name, k[0].k2, k[1], k[0].noise_db, k[0].cap))
    place = ""
    grants: list[Row] = []
    for cell, direction in order:
        rows = groups[cell, direction]
        levels = [m for m in (table.number(r, "mcs_mean") for r in rows) if m >= 0]
        mcs = fmean(levels) if levels else 0.0
        got = saturated(cell, direction, 51.0, 28) if cell.clear else at_mcs(cell, direction, mcs)
        bits = fmean(table.number(r, "lc_bytes") for r in rows) * 8 / _REPORT
        new = fmean(table.number(r, "grants_new") for r in rows) / _REPORT
        retx = fmean(table.number(r, "grants_retx") for r in rows) / _REPORT
        aim = CAPACITY_AIM if cell.clear else NOISY_CAPACITY_AIM
        group = f"capacity, {direction.upper()}, {cell}"
        if group != place:
            out.rows += grants
            place, grants = group, []
        note = "" if cell.clear else f"MCS {mcs:.1f}, emulated {got.mcs:.1f}"
        per_prb = max(cell.cap, 1)
        name = f"cap {cell.cap:3}"
        out.rows.append(Row(group, name, "bit/frame/PRB", bits / per_prb, got.bits / per_prb, aim, note))
        grants.append(Row(f"grants, {group[10:]}", name, "new grants/frame", new, got.grants))
        if not cell.clear:
            real, own = (r / (n + r) if n + r else 0.0 for n, r in ((new, retx), (got.grants, got.retx)))
            grants.append(Row(f"grants, {group[10:]}", f"{name} retx", "of all grants", real, own))
    out.rows += grants


# -- where in the radio frame ------------------------------------------------------------------------


def _places(out: Calibration, table: _Table, snr: _Snr) -> None:
    measured: dict[tuple[_Cell, str], NDArray[np.float64]] = {}
    for row in table.rows:
        slot = table.integer(row, "slot_in_frame")
        if not 0 <= slot < SLOTS_PER_FRAME:
            raise ValueError(f"{table.where(row)}: slot_in_frame {slot} is outside 0..{SLOTS_PER_FRAME - 1}")
        key = table.cell(row), table.direction(row)
        measured.setdefault(key, np.zeros(SLOTS_PER_FRAME))[slot] += table.number(row, "grants_new")
    _tell_read(out, table, len(table.rows))
    sums: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for (cell, direction), grants in measured.items():
        flow = FlowSpec("flow", "ue", kind=f"saturated_{direction}")
        level = snr(cell, direction)
        bed = _bed(cell, [flow], level, level, mcs=28 if cell.clear else 17)
        bed.advance((_SETTLE + _HOLD) * SLOTS_PER_FRAME)
        got = bed.grants("ue")[_INDEX[direction], 0].astype(float)
        pair = sums.setdefault((direction, str(cell)), [np.zeros(SLOTS_PER_FRAME), np.zeros(SLOTS_PER_FRAME)])
        pair[0] += grants
        pair[1] += got * grants.sum() / max(got.sum(), 1)
    for (direction, name), (real, got) in sorted(sums.items()):
        group = f"place of the new grants in the radio frame, {direction.upper()}, {name}"
        total = max(real.sum(), 1)
        for slot in np.flatnonzero(real + got > 0.002 * total).tolist():
            share = float(real[slot] / total), float(got[slot] / total)
            out.rows.append(Row(group, f"NR slot {slot:2}", "of the grants", share[0], share[1]))
        same = float(np.minimum(real, got).sum() / total)
        out.rows.append(Row(group, "in the same place", "of the grants", 1.0, same, PLACE_AIM))


# -- delays ------------------------------------------------------------------------------------------


def _delays(out: Calibration, table: _Table, snr: _Snr) -> None:
    groups: dict[tuple[_Cell, str, str, str, float], list[dict[str, str]]] = defaultdict(list)
    kinds: dict[str, int] = defaultdict(int)
    for row in table.rows:
        kind = row["kind"]
        if not _ECHO.fullmatch(kind) and not _BURST.fullmatch(kind):
            kinds[kind] += 1
            continue
        load = "none"
        if row["load_dir"] not in ("", "none"):
            load = table.direction(row, "load_dir")
        offered = table.number(row, "load_bytes_per_frame") if load != "none" else 0.0
        groups[table.cell(row), kind, load, row["run"], offered].append(row)
    out.skipped += [
        f"{table.path.name}: {n} rows of kind {k!r} (unknown kind)" for k, n in sorted(kinds.items())
    ]
    _tell_read(out, table, sum(map(len, groups.values())))
    for (cell, kind, load, _, offered), rows in groups.items():
        levels = {d: snr(cell, d) for d in _INDEX}
        percent = rows[0]["load_pct_actual"] or "?"
        name = f"cap {cell.cap:3} " + ("idle" if load == "none" else f"{load.upper()} load {percent} %")
        # A loaded link begins where it settles, or its first second leaves a backlog.
        mcs = 9 if load == "none" else _mcs_of(levels[load])
        if match := _BURST.fullmatch(kind):
            rates = [table.number(r, "ul_mcs") for r in rows if r["ul_mcs"]]
            mcs = max(0, min(MAX_MCS, round(median(rates)))) if rates else mcs
            gap = 1e3 / float(match[2]) if match[2] else float(_ISOLATED_FRAMES * FRAME_MS)
            packets = [int(table.number(r, "packets")) for r in rows if r.get("packets")]
            flow = FlowSpec(
                *("probe", "ue"),
                kind=BURST_UL,
                gap_ms=(gap, gap),
                on_ticks=True,
                burst_bytes=int(match[1]),
                packets=max(1, round(median(packets))) if packets else _BURST_PACKETS,
            )
        elif match := _ECHO.fullmatch(kind):
            flow = FlowSpec(
                *("probe", "ue"),
                kind=ECHO,
                gap_ms=RFSIM_ECHO_GAPS,
                on_ticks=True,
                burst_bytes=int(match[1]),
            )
        got = probes(cell, flow, load, offered, levels, count=len(rows), mcs=mcs)
        group = f"{kind}, {cell}"
        for column in ("slots_dl", "slots_ul", "slots_total"):
            real = [table.number(r, column) for r in rows if r[column]]
            if not real or column not in got or not len(got[column]):
                continue
            pair = median(real), float(np.median(got[column]))
            out.rows.append(Row(group, f"{name} {column[6:]} median", "NR slots", *pair, DELAY_AIM))
            pair = float(np.quantile(real, 0.95)), float(np.quantile(got[column], 0.95))
            out.rows.append(Row(group, f"{name} {column[6:]} p95", "NR slots", *pair))


def probes(
    cell: _Cell,
    probe: FlowSpec,
    load: str,
    bytes_per_frame: float,
    snr_db: dict[str, float],
    *,
    count: int = _PROBES,
    mcs: int = 9,
) -> dict[str, NDArray[np.int64]]:
    """Delays of echoes or bursts in NR slots, in the columns of the measurements and on their clock.

    Runs of ``count`` probes each, since an overloaded run's delays grow with its length, as many as it takes
    for some hundred probes. ``mcs`` is the one that both directions begin with. The stamps come from the gNB
    scheduler's frame and NR slot, which is ``sched_lead_slots`` ahead of the air and only moves in NR slots
    with downlink.
    """
    runs = [
        _one_run(cell, probe, load, bytes_per_frame, snr_db, count, mcs, seed)
        for seed in range(1, 1 + min(_RUNS, -(-_PROBES // count)))
    ]
    ns = np.concatenate(runs)
    ticks = _ticks(cell, ns, rfsim_cell(cell.tdd, cell.k2).sched_lead_slots)
    if probe.kind == BURST_UL:
        return {"slots_ul": ticks[:, 1] - ticks[:, 0]}
    return {
        "slots_dl": ticks[:, 3] - ticks[:, 2],
        "slots_ul": ticks[:, 1] - ticks[:, 0],
        "slots_total": ticks[:, 1] - ticks[:, 2],
    }


def _one_run(
    cell: _Cell,
    probe: FlowSpec,
    load: str,
    bytes_per_frame: float,
    snr_db: dict[str, float],
    count: int,
    mcs: int,
    seed: int,
) -> NDArray[np.int64]:
    """The four times, in ns, of the first ``count`` probes that came through."""
    flows = [probe]
    if bytes_per_frame > 0:
        gap = 1000 / bytes_per_frame * FRAME_MS
        flows.append(FlowSpec("load", "ue", kind=CBR_UL if load == "ul" else CBR_DL, gap_ms=(gap, gap)))
    bed = _bed(cell, flows, snr_db["ul"], snr_db["dl"], mcs=mcs, seed=seed)
    burst = probe.kind == BURST_UL
    settle = 0 if burst else 2 * _SETTLE * SLOTS_PER_FRAME
    sending = settle + math.ceil(count * sum(probe.gap_ms) / 2 * 1e6 / SLOT_NS)
    end = sending + _DRAIN * SLOTS_PER_FRAME
    times: dict[int, tuple[int, ...]] = {}
    while bed.nr_slot < end:
        bed.advance(min(end, bed.nr_slot + 2000))
        f = bed.take_frames()
        own = f.flow == 0
        columns = (f.ue_sent, f.edge_received, f.edge_sent, f.ue_received)
        for sequence, *row in zip(f.sequence[own].tolist(), *(c[own].tolist() for c in columns), strict=True):
            times[sequence] = tuple(row)
    ns = np.array([times[k] for k in sorted(times)], np.int64).reshape(-1, 4)
    ns = ns[(ns[:, 2] > 0) & (ns[:, 1] > 0)] - bed.epoch_ns
    ns[:, [0, 3]] -= RFSIM_UE_LEAD_SLOTS * SLOT_NS
    first = ns[:, 0] if burst else ns[:, 2]
    return ns[(first >= settle * SLOT_NS) & (first < sending * SLOT_NS)]


def _ticks(cell: _Cell, ns: NDArray[np.int64], lead: int) -> NDArray[np.int64]:
    period = cell.tdd.period_slots
    downlink = [at for at in range(period) if cell.tdd.dl_symbols_in(at) > 0]
    back = np.array([min((at - d) % period for d in downlink) for at in range(period)])
    slot = ns // SLOT_NS + lead
    return slot - back[slot % period]


def _reasons(rows: Sequence[Row]) -> list[str]:
    beyond = [r for r in rows if r.within is False]
    capacity = [r for r in beyond if r.group.startswith("capacity")]
    place = [r for r in beyond if r.group.startswith("place")]
    overload = [r for r in beyond if "load" in r.name and max(r.measured, r.emulated) > _OVERLOAD_SLOTS]
    delay = [r for r in beyond if r not in capacity and r not in place and r not in overload]
    down = [r for r in delay if " dl " in r.name]
    tables = (
        (
            capacity,
            "capacity: the measured run sent more of its blocks again than the loop at that MCS would",
        ),
        (place, "place of the grants: retransmissions displace new grants by chance"),
        (
            overload,
            "delay near saturation: a run of one minute whose MCS fell by one or two steps, measured or "
            "emulated, is overloaded for as long, and its median is the length of that time",
        ),
        (
            [r for r in down if "idle" in r.name or "UL load" in r.name],
            "DL delay without DL load: an echo fits the mixed NR slot from MCS 13 on; the idle link's MCS "
            "hovers there and the side on which half the echoes fall moves the median by a TDD period",
        ),
        (
            [r for r in down if "DL load" in r.name],
            "DL delay under load: packets in order wait for the retransmissions ahead of them; the emulated "
            "link sends 6 to 8 % of its blocks again, the real one 3.5 to 8 % at the same MCS, and which of "
            "the two has its feedback sooner was not measured",
        ),
        (
            [r for r in delay if r not in down],
            "UL delay: whole TDD periods, on whose edge the UE's preparation time decides",
        ),
    )
    return [
        f"{why}: "
        + "; ".join(f"{r.group.removeprefix('capacity, ')} {r.name} {r.deviation:+.0%}" for r in found)
        for found, why in tables
        if found
    ]
