"""From a configuration to the emulated testbed that it describes, and what of a run is known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from agents.emulator import schedule
from agents.emulator.channel import read_trace, trace_account
from agents.emulator.spec import (
    CBR_DL,
    CBR_UL,
    ApplicationSpec,
    CellSpec,
    Change,
    ChannelProcess,
    ChannelSeries,
    ChannelTrace,
    EdgeSpec,
    FlowSpec,
    LinkSpec,
    PathSpec,
    TestbedSpec,
    Track,
    UeSpec,
    UserSpec,
)
from controller.allocators import service
from controller.config import BearerModel, CellModel, Config, Emulation, StressModel, UserGroup
from controller.mobility import ways
from wire import channel_traces
from wire.definitions.nr import MAX_MCS, TDD_PATTERNS
from wire.definitions.qos import DEFAULT_FIVE_QI

SCS_KHZ = 30
"""Subcarrier spacing of every emulated cell."""

OPENRTIST = "openrtist"
"""The application that is a kind of flow of the emulated cell, with sources of its own."""

CROSS_BYTES = 1400
"""Of a packet of cross traffic, its IP header included."""

_LINK = LinkSpec()
SNR_RANGE_DB = (_LINK.snr_at_mcs0_db, _LINK.snr_at_mcs0_db + (MAX_MCS + 4) * _LINK.snr_step_db)
"""Of a UE's way: what the emulated link tells apart, from MCS 0 to the highest in the uplink too, whose SNR
is lower."""

CELL_SEEDS = 1_000_003
"""What lies between the seeds of two cells of a scenario."""


def cell_seed(config: Config, cell_id: str, seed: int) -> int:
    """The seed of one cell's channel, traffic and schedule; the first cell's is the scenario's own."""
    return seed + CELL_SEEDS * [c.id for c in config.cells].index(cell_id)


def testbed_spec(config: Config, seed: int, cell_id: str = "") -> TestbedSpec:
    """The emulated testbed of one cell of a scenario (empty: its first).

    Every cell of a scenario has the UEs and flows of the ``emulation`` section, with a seed of its own
    (:func:`cell_seed`). The schedule ``described`` is drawn with it, ``published`` with the authors' own.
    Where each UE is in the measured channel: :func:`trace_uses`.

    With ``mobility``, a UE with users who can change cell (:meth:`Application.handover_points`) moves, on the
    same way in the eyes of all cells, in each of which its channel is the SINR to that cell's station. These
    users, seeded by the scenario, are active in one cell at a time: from a start of theirs, or a handover
    point, in the cell that serves the UE then. All other UEs and users stay, one of each in every cell, as
    without mobility: nobody knows what OpenRTiST would lose on the way.

    ValueError where the configuration has no emulation, where users cannot be, where a slice binds a UE that
    is not emulated, and for mobility where nobody can change cell, or a slice of who can has other UEs in
    another cell; OSError, ValueError for a trace that cannot be used.
    """
    e = config.emulation
    if e is None:
        raise ValueError("the configuration has no emulation section")
    cell = next((c for c in config.cells if c.id == (cell_id or config.cells[0].id)), None)
    if cell is None:
        raise ValueError(f"unknown cell {cell_id!r}; cells: {', '.join(c.id for c in config.cells)}")
    _check_bound(cell, e)
    scenario_seed, seed = seed, cell_seed(config, cell.id, seed)
    channels: list[ChannelProcess | ChannelTrace | ChannelSeries] = (
        [ChannelTrace(path=use.trace, start_s=use.start_s) for use in trace_uses(e, seed)]
        if e.channel_trace
        else [ChannelProcess()] * e.ues
    )
    ues = [_ue(cell, e, i, channel) for i, channel in enumerate(channels, 1)]
    flows = [
        FlowSpec(f"{OPENRTIST}-{i + 1}", ues[i % e.ues].ue_id, active)
        for i, active in enumerate(_active(e, e.schedule, e.flows, seed))
    ]
    for group in e.users:
        if group.application == OPENRTIST:
            flows += _openrtist(group, ues, e, seed, len(flows))
    applications = [_users(group, ues, e, seed) for group in e.users if group.application != OPENRTIST]
    if e.mobility is not None:
        station = [c.id for c in config.cells].index(cell.id)
        ues, applications = _moving(e, ues, applications, config.cells, scenario_seed, station)
    spec = TestbedSpec(
        ues=tuple(ues),
        flows=tuple(flows),
        cell=CellSpec(cell_id=cell.id, n_prb=e.prb, tdd=TDD_PATTERNS[e.tdd], k2=e.k2, scheduler=e.scheduler),
        edge=EdgeSpec(max_mhz=cell.max_mhz),
        applications=tuple(applications),
    )
    return _stressed(spec, e)


def _check_bound(cell: CellModel, e: Emulation) -> None:
    there = {f"ue-{number}" for number in range(1, e.ues + 1)}
    for s in cell.slices:
        for ue_id in s.ues:
            if ue_id not in there:
                raise ValueError(
                    f"cell {cell.id!r}: slice {s.id!r} binds UE {ue_id!r}, which is not emulated: with"
                    f" emulation.ues {e.ues} there {'is ue-1' if e.ues == 1 else f'are ue-1 to ue-{e.ues}'}"
                )


def check_applications(spec: TestbedSpec) -> None:
    """ValueError for users of an application that there is not, or that does not take their options."""
    from agents.emulator.applications import load

    for application in spec.applications:
        try:
            load(application.application)(application.users, 1)
        except ValueError as error:
            raise ValueError(f"emulation.users: {error}") from error


def _moving(
    e: Emulation,
    ues: Sequence[UeSpec],
    applications: Sequence[ApplicationSpec],
    cells: Sequence[CellModel],
    seed: int,
    station: int,
) -> tuple[list[UeSpec], list[ApplicationSpec]]:
    """UEs and users as the cell of a station has them while some move; ``seed`` is the scenario's."""
    from agents.emulator.applications import load

    assert e.mobility is not None
    way = ways(e.mobility, seed, len(ues), e.duration_s, e.prb)
    place = {ue.ue_id: i for i, ue in enumerate(ues)}
    moved: dict[str, UeSpec] = {}
    out = []
    for group, spec in zip((g for g in e.users if g.application != OPENRTIST), applications, strict=True):
        handover_points = load(group.application).handover_points
        active = _active(e, group.schedule, group.count, seed)
        of = [ue.ue_id for ue in _ues_of(group, ues)]
        users = []
        for i, user in enumerate(spec.users):
            try:
                points = handover_points(group.options, seed, i, e.duration_s)
            except ValueError as error:
                raise ValueError(f"emulation.users: application {group.application!r}: {error}") from error
            if points is None:
                users.append(user)
                continue
            for cell in cells:
                if [ue.ue_id for ue in ues if _slice_of(cell, ue.ue_id) == group.slice] != of:
                    raise ValueError(
                        f"emulation.mobility: slice {group.slice!r} has other UEs in cell {cell.id!r} than in"
                        f" {cells[station].id!r}, users who move are on the same in all"
                    )
            k = place[user.ue_id]
            snr_db = np.clip(way.sinr_db(k, station), *SNR_RANGE_DB)
            moved[user.ue_id] = replace(ues[k], channel=ChannelSeries(snr_db))
            intervals = way.within(k, station, active[i], points)
            track = Track(way.positions_m[k], way.speeds_kmh[k])
            users.append(replace(user, active=intervals, index=i, seed=seed, track=track))
        out.append(replace(spec, users=tuple(users)))
    if not moved:
        raise ValueError("emulation.mobility: no users who can change cell")
    return [moved.get(ue.ue_id, ue) for ue in ues], out


def _stressed(spec: TestbedSpec, e: Emulation) -> TestbedSpec:
    """The testbed under the ``stress`` of its emulation section."""
    s = e.stress
    delays: dict[str, Any] = {
        "hiccup_rate_hz": s.hiccup_rate_hz,
        "ul_hold_rate_hz": s.ul_hold_rate_hz,
        "ue_dl_offset_ms": e.modem_ms,
        "ue_dl_poll_ms": e.modem_poll_ms,
    }
    edge = spec.edge if s.stall_rate_hz is None else replace(spec.edge, stall_rate_hz=s.stall_rate_hz)
    at_s = e.duration_s / 2 if s.at_s is None else s.at_s
    cross = [
        FlowSpec(
            f"cross-{direction}",
            spec.ues[0].ue_id,
            ((0.0, e.duration_s),),
            kind=kind,
            arrivals="poisson",
            gap_ms=(8e3 * CROSS_BYTES / bps,) * 2,
            burst_bytes=CROSS_BYTES,
            announced=False,
        )
        for direction, kind, bps in (("ul", CBR_UL, s.cross_ul_bps), ("dl", CBR_DL, s.cross_dl_bps))
        if bps
    ]
    return replace(
        spec,
        flows=(*(replace(f, announced_rate=s.announced_rate) for f in spec.flows), *cross),
        path=replace(PathSpec(), **{name: value for name, value in delays.items() if value is not None}),
        edge=edge,
        applications=tuple(replace(a, users=_announcing(a.users, s)) for a in spec.applications),
        change=Change(at_s, s.demand, s.service_time) if s.changes else None,
        clocks_synchronised=s.synchronised,
    )


def _announcing(users: Sequence[UserSpec], s: StressModel) -> tuple[UserSpec, ...]:
    return tuple(
        replace(u, ul_bps=u.ul_bps * s.announced_rate, dl_bps=u.dl_bps * s.announced_rate) for u in users
    )


def _ues_of(group: UserGroup, ues: Sequence[UeSpec]) -> list[UeSpec]:
    of = [ue for ue in ues if ue.slice == group.slice]
    if not of:
        where = f"slice {group.slice!r}" if group.slice else "no slice"
        raise ValueError(
            f"emulation.users: application {group.application!r}: "
            f"none of the {len(ues)} UEs is bound to {where}"
        )
    return of


def _openrtist(
    group: UserGroup, ues: Sequence[UeSpec], e: Emulation, seed: int, before: int
) -> list[FlowSpec]:
    """The flows of a group of OpenRTiST users, which the kernel has a kind of flow for."""
    if group.options:
        raise ValueError(f"emulation.users: openrtist has no option {', '.join(group.options)}")
    if group.decoding_error:
        raise ValueError("emulation.users: openrtist has no decoding_error, it sends no short packets")
    of = _ues_of(group, ues)
    return [
        FlowSpec(f"{OPENRTIST}-{before + i + 1}", of[i % len(of)].ue_id, active)
        for i, active in enumerate(_active(e, group.schedule, group.count, seed))
    ]


def _users(group: UserGroup, ues: Sequence[UeSpec], e: Emulation, seed: int) -> ApplicationSpec:
    """The users of a group, on the UEs of its slice in turn."""
    of = _ues_of(group, ues)
    active = _active(e, group.schedule, group.count, seed)
    users = [
        UserSpec(
            f"{group.application}-{i + 1}",
            of[i % len(of)].ue_id,
            intervals,
            ul_bps=group.ul_bps,
            dl_bps=group.dl_bps,
            transport=group.transport,
            decoding_error=group.decoding_error,
            options=group.options,
        )
        for i, intervals in enumerate(active)
    ]
    return ApplicationSpec(group.application, users)


@dataclass(frozen=True, slots=True)
class TraceUse:
    """Where a UE is in a measured channel: the file, the second in which it begins, how many it has.

    Seconds are those of 5G, as the others are cut out; the trace repeats at its end. ``rows`` says what
    became of the file's rows (:meth:`wire.channel_traces.Account.to_dict`).
    """

    ue: str
    trace: str
    start_s: int
    length_s: int
    rows: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        used = f", {self.rows['used']} of {self.rows['rows']} rows" if self.rows else ""
        return f"{self.ue}: {Path(self.trace).name} from {self.start_s} of {self.length_s} s{used}"


GOLDEN = 0.6180339887498949
"""The fractional part of its multiples spreads any number of seeds evenly."""


def trace_uses(e: Emulation, seed: int) -> tuple[TraceUse, ...]:
    """The measured channel of each UE under a seed; none where a process drives the cell.

    Of the n traces of a folder (:func:`wire.channel_traces.files`) UE k = 0, 1, ... takes number (seed + k)
    mod n. It begins after the part (:data:`GOLDEN` seed + k / UEs) mod 1 of the trace, so that no two seeds,
    and no two UEs of a cell, meet the same channel at the same time. ValueError, naming the key, for a folder
    without traces and for what :func:`agents.emulator.channel.read_trace` cannot read.
    """
    if not e.channel_trace:
        return ()
    try:
        files = channel_traces.files(Path(e.channel_trace))
        chosen = [files[(seed + k) % len(files)] for k in range(e.ues)]
        lengths = {file: len(read_trace(ChannelTrace(path=file), LinkSpec())) for file in set(chosen)}
    except OSError as error:
        where = error.filename or e.channel_trace
        raise ValueError(f"emulation.channel_trace: {where}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"emulation.channel_trace: {error}") from error
    return tuple(
        TraceUse(
            f"ue-{k + 1}",
            str(file),
            int((GOLDEN * seed + k / e.ues) % 1 * lengths[file]),
            lengths[file],
            trace_rows(file),
        )
        for k, file in enumerate(chosen)
    )


def all_trace_uses(config: Config, seed: int) -> tuple[TraceUse, ...]:
    """:func:`trace_uses` of every cell, cell after cell; none without emulation."""
    e = config.emulation
    return (
        ()
        if e is None
        else tuple(u for c in config.cells for u in trace_uses(e, cell_seed(config, c.id, seed)))
    )


def trace_rows(path: Path) -> dict[str, Any]:
    """What became of a trace's rows (:meth:`wire.channel_traces.Account.to_dict`), whose errors it has."""
    return trace_account(ChannelTrace(path=path)).to_dict()


def rows_lines(channel: Iterable[Mapping[str, Any]]) -> list[str]:
    """What became of the rows of the traces in :meth:`TraceUse.to_dict`, a line a trace."""
    of = {use["trace"]: use["rows"] for use in channel if use["rows"]}
    return [
        f"channel trace {Path(trace).name}: {channel_traces.rows_text(rows)}" for trace, rows in of.items()
    ]


def _ue(
    cell: CellModel, e: Emulation, number: int, channel: ChannelProcess | ChannelTrace | ChannelSeries
) -> UeSpec:
    """UE 1, 2, ... with the data bearer of its slice."""
    ue_id = f"ue-{number}"
    of = next((s for s in cell.slices if ue_id in s.ues), None)
    if of is None:
        return UeSpec(ue_id, 0x4600 + number, "", channel, DEFAULT_FIVE_QI)
    bearer = e.bearers.get(of.id, BearerModel())
    five_qi = service(of.service).five_qi if bearer.five_qi is None else bearer.five_qi
    return UeSpec(ue_id, 0x4600 + number, of.id, channel, five_qi, bearer.snssai)


def _slice_of(cell: CellModel, ue_id: str) -> str:
    """The slice that a UE is bound to; empty: none, it is background traffic."""
    return next((s.id for s in cell.slices if ue_id in s.ues), "")


def _active(e: Emulation, kind: str, count: int, seed: int) -> tuple[schedule.Intervals, ...]:
    if kind == "always" or e.on_off is None:
        return (((0.0, e.duration_s),),) * count
    times = e.on_off.model_dump()
    if kind == "published":
        return schedule.published(count, e.duration_s, **times)
    return schedule.described(count, e.duration_s, **times, seed=seed)


def control_slots(config: Config, duration_s: float | None = None) -> int:
    """Control slots that a run holds; ValueError for none, and for a run longer than its scenario.

    ``duration_s`` shortens the scenario.
    """
    if config.emulation is None:
        raise ValueError("the configuration has no emulation section")
    length_s = config.emulation.duration_s if duration_s is None else duration_s
    slot_s = config.control.control_slot_s
    if length_s > config.emulation.duration_s:
        raise ValueError(
            f"{length_s:g} s are more than the scenario's {config.emulation.duration_s:g} s "
            "(emulation.duration_s): its flows end there"
        )
    if not length_s >= slot_s:
        raise ValueError(f"{length_s:g} s hold no control slot of {slot_s:g} s")
    return int(length_s / slot_s)


def loads(config: Config, seed: int, duration_s: float | None = None) -> tuple[int, ...]:
    """OpenRTiST flows that are active at some time in each control slot of a run, known beforehand."""
    slot_s = config.control.control_slot_s
    count = [0] * control_slots(config, duration_s)
    assert config.emulation is not None  # has control slots
    e = config.emulation
    for active in _active(e, e.schedule, e.flows, seed):
        touched = {
            slot
            for start, stop in active
            for slot in range(int(start / slot_s), min(len(count), -int(-stop // slot_s)))
        }
        for slot in touched:
            count[slot] += 1
    return tuple(count)
