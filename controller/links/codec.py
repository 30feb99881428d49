"""From the wire to the core's types: every field that the core will use is checked here, once.

Pure functions. What cannot be used raises :class:`BadMessage` (:class:`BadReport` for the MAC state),
which names the field, whose it is and the value. Bounds of names and counts are those of wire/ran.options and
of wire/definitions/bounds.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.core.clocks import ClockFault
from controller.core.collector import MAX_AHEAD_NS, MAX_BEHIND_NS
from controller.core.observation import (
    DIRECTION_COLUMNS,
    ClockReport,
    DirectionColumns,
    Flow,
    IntArray,
    MacReport,
)
from wire import edge_pb2, qos_pb2, ran_pb2
from wire.definitions import nr, qos
from wire.definitions.bounds import (
    MAX_CELL_ID,
    MAX_FLOW_NAME,
    MAX_FRAMES,
    MAX_NAME,
    MAX_REFUSED,
    MAX_SAMPLE_VALUES,
    MAX_SAMPLES,
    MAX_SETTINGS_FLOWS,
    MAX_SETTINGS_LEASE_MS,
    check_settings,
)

MAX_UES = 64
MAX_CHANNELS = 8
"""Logical channels of a UE."""
MAX_SLICES = 16
MAX_USES = 32
MAX_RNTI = 0xFFF2
"""TS 38.321 Table 7.1-1: the highest C-RNTI."""
MAX_LAYERS = 4
MAX_CQI = 15
MAX_SNR_DB = 100.0
MAX_QUEUED_BYTES = 1 << 40
MAX_BPS = 1e12
MIN_TIME_NS = 10**17
"""Below it a time is not CLOCK_REALTIME in ns: seconds, milliseconds or a clock that was never set."""
MAX_TIME_NS = 1 << 62
"""2116. A negative time that was cast to unsigned is above it."""
MAX_MHZ = 100_000


class BadMessage(ValueError):
    """A message with a value that cannot be; the text names the field and the value."""


class BadReport(BadMessage):
    """A MacReport, Applied or Hello with a value that cannot be."""


# ---- RAN link -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CellFacts:
    """What a gNB's Hello says of its cell: PRBs, subcarrier spacing in kHz, TDD pattern, and the smallest
    grant of its scheduler in PRB (1 where it does not tell)."""

    cell_id: str
    n_prb: int
    scs_khz: int
    tdd: nr.TddPattern
    agent_version: str = ""
    min_prb: int = 1

    @property
    def slots_per_frame(self) -> int:
        return nr.slots_per_frame(self.scs_khz)


def checked_lease(lease_s: float) -> float:
    """Seconds that a quota or a clock lock may hold without renewal; ValueError for what is none."""
    if not 0.1 <= lease_s <= 3600:
        raise ValueError(f"lease_s {lease_s} is outside 0.1..3600")
    return lease_s


def open_hello(msg: ran_pb2.Hello) -> CellFacts:
    """The cell that a Hello describes; the protocol version is the caller's to check.

    Raises:
        BadReport: names the field and the value.
    """
    cell_id = msg.cell_id
    if not cell_id:
        raise BadReport("Hello: cell_id is empty")
    if len(cell_id.encode()) > MAX_CELL_ID:
        raise BadReport(f"Hello: cell_id {cell_id[:MAX_CELL_ID]!r}... is longer than {MAX_CELL_ID} bytes")
    place = f"Hello of cell {cell_id!r}"
    if len(msg.agent_version.encode()) > MAX_NAME:
        raise BadReport(f"{place}: agent_version {msg.agent_version[:40]!r} is longer than {MAX_NAME} bytes")
    if not 1 <= msg.prb <= nr.MAX_PRB:
        raise BadReport(f"{place}: prb {msg.prb} is outside 1..{nr.MAX_PRB}")
    try:
        nr.slots_per_frame(msg.scs_khz)
    except ValueError as error:
        raise BadReport(f"{place}: scs_khz: {error}") from None
    p = msg.tdd
    if max(p.dl_slots, p.ul_slots, p.dl_symbols, p.ul_symbols) > 320:
        raise BadReport(f"{place}: tdd: more than 320 NR slots in a period")
    if p.period_slots != p.dl_slots + 1 + p.ul_slots:
        raise BadReport(
            f"{place}: tdd: period_slots {p.period_slots} is not"
            f" dl_slots {p.dl_slots} + 1 + ul_slots {p.ul_slots}"
        )
    try:
        tdd = nr.TddPattern(
            "D" * p.dl_slots + "S" + "U" * p.ul_slots, p.dl_slots, p.dl_symbols, p.ul_symbols, p.ul_slots
        )
    except ValueError as error:
        raise BadReport(f"{place}: tdd: {error}") from None
    if not (p.ul_slots or p.ul_symbols) or not (p.dl_slots or p.dl_symbols):
        raise BadReport(f"{place}: tdd: {tdd.name} carries one direction only")
    if msg.min_prb > msg.prb:
        raise BadReport(f"{place}: min_prb {msg.min_prb} is above the {msg.prb} PRB of the carrier")
    return CellFacts(cell_id, msg.prb, msg.scs_khz, tdd, msg.agent_version, msg.min_prb or 1)


_ue_fields = attrgetter(
    *("rnti", "ue_id", "slice", "cqi", "snr_db", "ul", "dl", "five_qi", "priority_level"),
    *("snssai", "dl_channels"),
)
_direction_fields = attrgetter(*DIRECTION_COLUMNS)
_snssai_fields = attrgetter("sst", "sd")
_channel_fields = attrgetter("lcid", "queued_bytes")
_NO_SNSSAI = (0, 0)


def open_report(
    msg: ran_pb2.MacReport, cell: CellFacts, received_ns: int | None = None
) -> tuple[MacReport, tuple[str, ...]]:
    """The MAC state of a report, UEs as columns, and what is wrong with each UE that is left out of it.

    Its time is ``received_ns`` where that is given, else the gNB's. A layer count of 0 reads as 1 and an MCS
    table of 0 as 1.

    A UE is left out, and named with the first field and value that cannot be, for: an RNTI outside
    1..0xFFF2; a UE id that is empty or too long; an RNTI or a UE id that another UE of the report has too
    (both are left out); MCS outside its table (TS 38.214 clause 5.1.3.1); an MCS table, layers, CQI, queue,
    BLER, SNR, 5QI, priority level or S-NSSAI that cannot be; logical channels that are too many, or an LCID
    that cannot be or is there twice. What it had in the other fields is not used either.

    Raises:
        BadReport: names the field and value of what makes the whole report useless: time, frame or NR slot
            outside their range; too many UEs.
    """
    time_ns = msg.time_ns
    if not 0 < time_ns < MAX_TIME_NS:
        raise BadReport(f"MacReport: time_ns {time_ns} is not a time")
    if msg.frame > 1023:
        raise BadReport(f"MacReport: frame {msg.frame} is outside 0..1023")
    if msg.slot >= cell.slots_per_frame:
        raise BadReport(f"MacReport: slot {msg.slot} is outside 0..{cell.slots_per_frame - 1}")
    if received_ns is not None:
        time_ns = received_ns
    n = len(msg.ues)
    if n > MAX_UES:
        raise BadReport(f"MacReport: {n} UEs, more than {MAX_UES}")
    rows = [*map(_ue_fields, msg.ues)]
    wrong: dict[int, str] = {}
    report = _columns(time_ns, rows)
    if report is None:
        wrong = _wrong_ues(rows)
        rows = [row for i, row in enumerate(rows) if i not in wrong]
        report = _columns(time_ns, rows, checked=True)
        assert report is not None
    return report, tuple(wrong.values())


def _columns(time_ns: int, rows: Sequence[tuple[Any, ...]], checked: bool = False) -> MacReport | None:
    """The UEs as columns; None where a value looks suspect and they are not ``checked``."""
    if not rows:
        none = DirectionColumns((), (), (), ())
        return MacReport(time_ns, (), (), none, none)
    rntis, ids, slices, cqis, snrs, ul, dl, five_qis, levels, snssais, channels = zip(*rows, strict=True)
    directions = _direction(ul), _direction(dl)
    snssais = tuple(map(_snssai_fields, snssais))
    if any(channels):
        channels = tuple(tuple(map(_channel_fields, of_ue)) for of_ue in channels)
    else:
        channels = ()
    good = checked or (
        _good_identities(rntis, ids, slices)
        and max(cqis) <= MAX_CQI
        and isfinite(sum(snrs))
        and -MAX_SNR_DB <= min(snrs) <= max(snrs) <= MAX_SNR_DB
        and all(map(_good_direction, directions))
        and max(five_qis) <= qos.MAX_FIVE_QI
        and max(levels) <= qos.MAX_PRIORITY_LEVEL
        and not any(map(_wrong_snssai, {*snssais}))
        and not any(map(_wrong_channels, channels))
    )
    if not good:
        return None
    return MacReport(
        time_ns,
        ids,
        slices,
        *directions,
        cqis,
        snrs,
        five_qis if any(five_qis) else (),
        levels if any(levels) else (),
        tuple(map(_snssai_text, snssais)) if {*snssais} != {_NO_SNSSAI} else (),
        channels,
    )


@lru_cache(maxsize=256)
def _good_identities(rntis: tuple[int, ...], ids: tuple[str, ...], slices: tuple[str, ...]) -> bool:
    """False where an RNTI or a name looks suspect. A cell's reports name the same UEs again and again."""
    names = {*ids, *slices}
    return (
        len(set(rntis)) == len(set(ids)) == len(ids)
        and 0 < min(rntis) <= max(rntis) <= MAX_RNTI
        and "" not in ids
        and max(map(len, names)) <= MAX_NAME
        and "".join(names).isascii()
    )


def _direction(states: Sequence[ran_pb2.DirectionState]) -> DirectionColumns:
    mcs, tables, layers, queued, blers, lc_bytes, prb_slots = zip(
        *map(_direction_fields, states), strict=True
    )
    if 0 in tables:
        tables = tuple(t or 1 for t in tables)
    if 0 in layers:
        layers = tuple(n or 1 for n in layers)
    return DirectionColumns(mcs, tables, layers, queued, blers, lc_bytes, prb_slots)


def _good_direction(d: DirectionColumns) -> bool:
    """False where a value looks suspect."""
    table = max(d.mcs_table)
    return (
        table <= 3
        and max(d.layers) <= MAX_LAYERS
        and max(d.mcs) <= (nr.MAX_MCS if table == 1 else 27)
        and max(d.queued_bytes) <= MAX_QUEUED_BYTES
        and isfinite(sum(d.bler))
        and 0.0 <= min(d.bler) <= max(d.bler) <= 1.0
    )


def _wrong_ues(rows: Sequence[tuple[Any, ...]]) -> dict[int, str]:
    """Row -> the first value of its UE that cannot be. Rows that only looked suspect are not in it: names
    beyond ASCII, MCS 28 of tables 1 and 3."""
    rntis, ids = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
    out = {}
    for i, row in enumerate(rows):
        why = _wrong_ue((rntis[row[0]] > 1, ids[row[1]] > 1), *row)
        if why:
            out[i] = f"MacReport: UE {row[1][: MAX_NAME + 1]!r} (RNTI {row[0]:#06x}): {why}"
    return out


def _wrong_ue(
    twice: tuple[bool, bool],
    rnti: int,
    ue_id: str,
    slice_: str,
    cqi: int,
    snr: float,
    ul: ran_pb2.DirectionState,
    dl: ran_pb2.DirectionState,
    five_qi: int,
    priority_level: int,
    snssai: ran_pb2.Snssai,
    channels: Sequence[ran_pb2.LogicalChannel],
) -> str:
    """The first value of a UE that cannot be, or that another one has too; "" for none. ``twice``: its RNTI,
    its id."""
    if not 0 < rnti <= MAX_RNTI:
        return f"rnti is outside 0x0001..{MAX_RNTI:#06x}"
    if not ue_id:
        return "ue_id is empty"
    for field, value in (("ue_id", ue_id), ("slice", slice_)):
        if len(value.encode()) > MAX_NAME:
            return f"{field} {value[: MAX_NAME + 1]!r} is longer than {MAX_NAME} bytes"
    for field, is_twice in zip(("rnti", "ue_id"), twice, strict=True):
        if is_twice:
            return f"{field} is there twice"
    if cqi > MAX_CQI:
        return f"cqi {cqi} is outside 0..{MAX_CQI}"
    if not -MAX_SNR_DB <= snr <= MAX_SNR_DB:
        return f"snr_db {snr} is not within {MAX_SNR_DB:g} dB of 0"
    if five_qi > qos.MAX_FIVE_QI:
        return f"five_qi {five_qi} is outside 0..{qos.MAX_FIVE_QI}"
    if priority_level > qos.MAX_PRIORITY_LEVEL:
        return f"priority_level {priority_level} is outside 0..{qos.MAX_PRIORITY_LEVEL}"
    return (
        _wrong_direction("ul", ul)
        or _wrong_direction("dl", dl)
        or _wrong_snssai(_snssai_fields(snssai))
        or _wrong_channels([*map(_channel_fields, channels)])
    )


def _wrong_snssai(snssai: tuple[int, int]) -> str:
    if snssai == _NO_SNSSAI:
        return ""
    sst, sd = snssai
    if not 1 <= sst <= qos.MAX_SST:
        return f"snssai.sst {sst} is outside 1..{qos.MAX_SST}"
    return "" if sd <= qos.NO_SD else f"snssai.sd {sd:#x} has more than six hexadecimal digits"


def _snssai_text(snssai: tuple[int, int]) -> str:
    return "" if snssai == _NO_SNSSAI else qos.snssai_text(*snssai)


def _wrong_channels(channels: Sequence[tuple[int, int]]) -> str:
    if len(channels) > MAX_CHANNELS:
        return f"dl_channels: {len(channels)} logical channels, more than {MAX_CHANNELS}"
    lcids = {lcid for lcid, _ in channels}
    for lcid, queued in channels:
        if not 1 <= lcid <= qos.MAX_LCID:
            return f"dl_channels.lcid {lcid} is outside 1..{qos.MAX_LCID}"
        if queued > MAX_QUEUED_BYTES:
            return f"dl_channels.queued_bytes {queued} of LCID {lcid} is more than any queue holds"
    return "" if len(lcids) == len(channels) else f"dl_channels: one of LCIDs {sorted(lcids)} is there twice"


def _wrong_direction(name: str, d: ran_pb2.DirectionState) -> str:
    table = d.mcs_table or 1
    if table not in nr.MCS_TABLES:
        return f"{name}.mcs_table {table} is none of {list(nr.MCS_TABLES)}"
    if d.mcs > nr.max_mcs(table):
        return f"{name}.mcs {d.mcs} is outside 0..{nr.max_mcs(table)} of MCS table {table}"
    if d.layers > MAX_LAYERS:
        return f"{name}.layers {d.layers} is outside 1..{MAX_LAYERS}"
    if d.queued_bytes > MAX_QUEUED_BYTES:
        return f"{name}.queued_bytes {d.queued_bytes} is more than any queue holds"
    if not 0.0 <= d.bler <= 1.0:
        return f"{name}.bler {d.bler} is outside 0..1"
    return ""


def check_applied(msg: ran_pb2.Applied, cell: CellFacts) -> dict[str, tuple[int, int]]:
    """The quotas that an Applied says are in force: slice -> (UL, DL) PRBs.

    Raises:
        BadReport: names the field and the value: frame or NR slot outside their range, too many entries,
            a slice without a name or twice, PRBs beyond the carrier, a use without a direction.
    """
    if msg.frame > 1023:
        raise BadReport(f"Applied: frame {msg.frame} is outside 0..1023")
    if msg.slot >= cell.slots_per_frame:
        raise BadReport(f"Applied: slot {msg.slot} is outside 0..{cell.slots_per_frame - 1}")
    if len(msg.in_force) > MAX_SLICES:
        raise BadReport(f"Applied: {len(msg.in_force)} quotas in force, more than {MAX_SLICES}")
    if len(msg.use) > MAX_USES:
        raise BadReport(f"Applied: {len(msg.use)} slice uses, more than {MAX_USES}")
    quotas: dict[str, tuple[int, int]] = {}
    for q in msg.in_force:
        if not q.slice or len(q.slice.encode()) > MAX_NAME:
            raise BadReport(f"Applied: in_force: slice {q.slice!r} is empty or longer than {MAX_NAME} bytes")
        if q.slice in quotas:
            raise BadReport(f"Applied: in_force: slice {q.slice!r} is there twice")
        if max(q.ul_prb, q.dl_prb) > cell.n_prb:
            raise BadReport(
                f"Applied: in_force: slice {q.slice!r}: {q.ul_prb} UL and {q.dl_prb} DL PRB on a carrier"
                f" of {cell.n_prb}"
            )
        quotas[q.slice] = (q.ul_prb, q.dl_prb)
    for use in msg.use:
        if use.direction not in (ran_pb2.UL, ran_pb2.DL):
            raise BadReport(
                f"Applied: use: slice {use.slice!r}: direction {use.direction} is neither UL nor DL"
            )
        if use.max_new_prb > cell.n_prb:
            raise BadReport(
                f"Applied: use: slice {use.slice!r}: max_new_prb {use.max_new_prb} on a carrier"
                f" of {cell.n_prb}"
            )
    return quotas


# ---- QoS ingest -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FlowEnd:
    """A flow stopped at ``time_ns``."""

    flow: str
    time_ns: int


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Times of frames of one flow, as a host reported them.

    ``columns`` is int64 [n, 5]: sequence, ue_sent, edge_received, edge_sent, ue_received in
    CLOCK_REALTIME ns, 0 where not known (yet). ``synchronised`` tells whether all four come from clocks
    known to agree, ``fault`` why not; ``received_ns`` is the controller's time of arrival.
    """

    flow: str
    columns: IntArray
    synchronised: bool
    received_ns: int
    fault: ClockFault | None = None

    def __len__(self) -> int:
        return len(self.columns)


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """Rows of one table of one flow, as a host reported them.

    ``time_ns`` is int64 [n], CLOCK_REALTIME ns; ``values`` is float32 [n, columns] in the units that the
    flow's service declares, NaN where not known; ``received_ns`` is the controller's time of arrival.
    """

    flow: str
    table: str
    time_ns: IntArray
    values: NDArray[np.float32]
    received_ns: int

    def __len__(self) -> int:
        return len(self.time_ns)


@dataclass(frozen=True, slots=True)
class SettingsApplied:
    """An application's answer to settings: in force for ``flows`` from ``time_ns`` (CLOCK_REALTIME ns) on.

    ``refused`` says why none was taken, empty where all were. ``sequence`` rises over all streams of a
    controller: the settings of a flow are in force where it is at least the one that
    :meth:`controller.links.qos.QosIngest.set_settings` gave for them.
    """

    host: str
    stream: int
    flows: tuple[str, ...]
    sequence: int
    time_ns: int
    refused: str = ""


def _name(place: str, field: str, value: str, bound: int, *, empty: bool = False) -> str:
    if not value and not empty:
        raise BadMessage(f"{place}: {field} is empty")
    if len(value.encode()) > bound:
        raise BadMessage(f"{place}: {field} {value[:bound]!r}... is longer than {bound} bytes")
    return value


def _time(place: str, field: str, value: int) -> int:
    if not MIN_TIME_NS <= value < MAX_TIME_NS:
        raise BadMessage(f"{place}: {field} {value} is not a CLOCK_REALTIME time in ns")
    return value


def _rate(place: str, field: str, value: float) -> float:
    if not 0.0 <= value <= MAX_BPS:
        raise BadMessage(f"{place}: {field} {value} is not a rate in bit/s")
    return value


def open_flow_start(msg: qos_pb2.FlowStart) -> Flow:
    """The flow that starts; its service is checked and left in the message.

    Raises:
        BadMessage: names the field and the value: an empty or overlong name, a rate that is NaN, negative
            or infinite, a time that is none.
    """
    flow = _name("FlowStart", "flow", msg.flow, MAX_FLOW_NAME)
    place = f"FlowStart of flow {flow!r}"
    _name(place, "service", msg.service, MAX_NAME, empty=True)
    return Flow(
        flow=flow,
        ue_id=_name(place, "ue_id", msg.ue_id, MAX_NAME),
        slice=_name(place, "slice", msg.slice, MAX_NAME),
        ul_bps=_rate(place, "ul_bps", msg.ul_bps),
        dl_bps=_rate(place, "dl_bps", msg.dl_bps),
        start_ns=_time(place, "time_ns", msg.time_ns),
    )


def open_flow_stop(msg: qos_pb2.FlowStop) -> FlowEnd:
    """The end of a flow; raises BadMessage as :func:`open_flow_start`."""
    flow = _name("FlowStop", "flow", msg.flow, MAX_FLOW_NAME)
    return FlowEnd(flow, _time(f"FlowStop of flow {flow!r}", "time_ns", msg.time_ns))


def open_frame_batch(
    msg: qos_pb2.FrameBatch, *, synchronised: bool, received_ns: int, fault: ClockFault | None = None
) -> FrameBatch:
    """The frame times of a batch.

    Delays are not judged here: a negative one reaches the core, which counts it.

    Raises:
        BadMessage: names flow, frame, field and value: no flow, more than MAX_FRAMES frames, a time that
            is none, a frame without any time.
    """
    flow = _name("FrameBatch", "flow", msg.flow, MAX_FLOW_NAME)
    frames = msg.frames
    if len(frames) > MAX_FRAMES:
        raise BadMessage(f"FrameBatch of flow {flow!r}: {len(frames)} frames, more than {MAX_FRAMES}")
    rows = [(f.sequence, f.ue_sent_ns, f.edge_received_ns, f.edge_sent_ns, f.ue_received_ns) for f in frames]
    for sequence, *times in rows:
        # Four times at once: those that are known lie in the range, and there is one.
        known = [t for t in times if t]
        if not known or min(known) < MIN_TIME_NS or max(known) >= MAX_TIME_NS:
            _blame_frame(f"FrameBatch of flow {flow!r}: frame {sequence}", times)
    columns = np.array(rows, np.int64).reshape(len(rows), 5)
    return FrameBatch(flow, columns, synchronised, received_ns, fault)


def _blame_frame(place: str, times: Sequence[int]) -> None:
    if not any(times):
        raise BadMessage(f"{place}: has no time at all")
    names = ("ue_sent_ns", "edge_received_ns", "edge_sent_ns", "ue_received_ns")
    for field, value in zip(names, times, strict=True):
        if value:
            _time(place, field, value)


def open_samples(msg: qos_pb2.Samples, columns: Mapping[str, int], *, received_ns: int) -> SampleBatch:
    """Rows of a table.

    Args:
        columns: tables that the flow's service declares -> number of columns.
        received_ns: now, CLOCK_REALTIME ns.

    Raises:
        BadMessage: names flow, table, row, field and value: no flow, an unknown table, too many rows or
            values, rows that are not whole, an infinite value (NaN is: not known), a time that is none, is
            ahead of ``received_ns`` by more than MAX_AHEAD_NS or behind it by more than MAX_BEHIND_NS.
    """
    flow = _name("Samples", "flow", msg.flow, MAX_FLOW_NAME)
    width = columns.get(msg.table)
    if width is None:
        known = ", ".join(sorted(columns)) or "none"
        raise BadMessage(
            f"Samples of flow {flow!r}: unknown table {msg.table[:MAX_NAME]!r}; its tables: {known}"
        )
    place = f"Samples of flow {flow!r}: table {msg.table!r}"
    n, n_values = len(msg.time_ns), len(msg.values)
    if n > MAX_SAMPLES:
        raise BadMessage(f"{place}: time_ns: {n} rows, more than {MAX_SAMPLES}")
    if n_values > MAX_SAMPLE_VALUES:
        raise BadMessage(f"{place}: values: {n_values} values, more than {MAX_SAMPLE_VALUES}")
    if n_values != n * width:
        raise BadMessage(f"{place}: values: {n_values} values are not {n} rows of {width} columns")
    sent = np.array(msg.time_ns, np.uint64)
    outside = (sent < MIN_TIME_NS) | (sent >= MAX_TIME_NS)
    if outside.any():
        row = int(outside.argmax())
        _time(f"{place}: row {row}", "time_ns", int(sent[row]))
    times = sent.astype(np.int64)
    for wrong, what in (
        (times > received_ns + MAX_AHEAD_NS, "ahead of"),
        (times < received_ns - MAX_BEHIND_NS, "behind"),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            off_s = abs(int(times[row]) - received_ns) / 1e9
            raise BadMessage(
                f"{place}: row {row}: time_ns {times[row]} is {off_s:.1f} s {what} the controller's clock"
            )
    values = np.array(msg.values, np.float32).reshape(n, width)
    infinite = np.isinf(values)
    if infinite.any():
        row, column = np.argwhere(infinite)[0].tolist()
        raise BadMessage(f"{place}: row {row}: values: column {column} is {values[row, column]}")
    return SampleBatch(flow, msg.table, times, values, received_ns)


def settings_message(
    sequence: int, lease_ms: int, settings: Mapping[str, Mapping[str, Sequence[float]]]
) -> qos_pb2.SetSettings:
    """Settings as they go out: flow -> name -> values, each in the unit that its service declares.

    Raises:
        ValueError: names flow, setting and value: more than MAX_SETTINGS_FLOWS flows, a lease outside
            0..MAX_SETTINGS_LEASE_MS, and what :func:`wire.definitions.bounds.check_settings` refuses.
    """
    if len(settings) > MAX_SETTINGS_FLOWS:
        raise ValueError(f"settings: {len(settings)} flows, more than {MAX_SETTINGS_FLOWS}")
    if not 0 <= lease_ms <= MAX_SETTINGS_LEASE_MS:
        raise ValueError(f"settings: lease of {lease_ms} ms is outside 0..{MAX_SETTINGS_LEASE_MS}")
    check_settings(settings)
    flows = [
        qos_pb2.FlowSettings(
            flow=flow,
            settings=[qos_pb2.Setting(name=name, values=values) for name, values in of_flow.items()],
        )
        for flow, of_flow in settings.items()
    ]
    return qos_pb2.SetSettings(sequence=sequence, lease_ms=lease_ms, flows=flows)


def open_settings_applied(
    msg: qos_pb2.SettingsApplied, *, host: str, stream: int, sent: Mapping[int, Collection[str]]
) -> SettingsApplied:
    """An answer to settings.

    Args:
        host, stream: whose answer it is.
        sent: sequences that went out on the stream -> their flows.

    Raises:
        BadMessage: names the field and the value: a sequence that was not sent, a time that is none, a text
            of more than MAX_REFUSED bytes.
    """
    flows = sent.get(msg.sequence)
    if flows is None:
        raise BadMessage(f"SettingsApplied: sequence {msg.sequence} was not sent on this stream")
    place = f"SettingsApplied of sequence {msg.sequence}"
    refused = _name(place, "refused", msg.refused, MAX_REFUSED, empty=True)
    return SettingsApplied(
        host, stream, tuple(flows), msg.sequence, _time(place, "time_ns", msg.time_ns), refused
    )


def open_clock_status(msg: qos_pb2.ClockStatus) -> ClockReport:
    """The state of a host's clock; raises BadMessage for a value that cannot be."""
    host = _name("ClockStatus", "host", msg.host, MAX_FLOW_NAME)
    place = f"ClockStatus of host {host!r}"
    if not isfinite(msg.offset_ns):
        raise BadMessage(f"{place}: offset_ns {msg.offset_ns} is not a number")
    if not (isfinite(msg.path_delay_ns) and msg.path_delay_ns >= 0.0):
        raise BadMessage(f"{place}: path_delay_ns {msg.path_delay_ns} is not a delay")
    return ClockReport(
        host,
        _name(place, "ptp_state", msg.ptp_state, MAX_NAME),
        msg.offset_ns,
        msg.path_delay_ns,
        _time(place, "time_ns", msg.time_ns),
        _name(place, "grandmaster", msg.grandmaster, MAX_NAME, empty=True),
    )


# ---- edge link ------------------------------------------------------------------------------------------


def check_gpu_state(msg: edge_pb2.GpuState) -> None:
    """Checks the values of a GpuState: MHz, W, J, utilisation 0..1, degrees Celsius.

    Raises:
        BadMessage: names GPU, field and value.
    """
    place = f"GpuState of GPU {msg.gpu!r}"
    for field in ("sm_mhz", "memory_mhz", "locked_mhz"):
        if getattr(msg, field) > MAX_MHZ:
            raise BadMessage(f"{place}: {field} {getattr(msg, field)} is no clock in MHz")
    for field, bound in (("power_w", 1e5), ("energy_j", 1e15), ("utilisation", 1.0)):
        if not 0.0 <= getattr(msg, field) <= bound:
            raise BadMessage(f"{place}: {field} {getattr(msg, field)} is outside 0..{bound:g}")
    if not -100.0 <= msg.temperature_c <= 250.0:
        raise BadMessage(f"{place}: temperature_c {msg.temperature_c} is no temperature")
    if not 0 < msg.time_ns < MAX_TIME_NS:
        raise BadMessage(f"{place}: time_ns {msg.time_ns} is not a time")
