"""The rows of a run's tables (:mod:`controller.store.tables`), as Arrow batches of bounded size.

A run is read once, from its first control slot to its last, and nothing of it is kept but what no batch has
yet: a night of control slots takes as much memory as an hour.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from controller.core.measure import RESOURCES, Lever
from controller.core.observation import DIRECTION_COLUMNS, UE_COLUMNS, MacReport, Observation
from controller.store.parts import Part
from controller.store.run import Recorded, RunStore, StoreError
from controller.store.summary import ClosedSlot, Pairs, allocations
from controller.store.tables import SCHEMA, TABLES, Column, Table
from wire.definitions.extras import needs

BATCH = 65_536
"""Rows of a batch, and so of a row group of a file."""
_UNITS = {Lever.UL: "PRB", Lever.EDGE: "MHz", Lever.DL: "PRB"}
_CHOICE = ("unit", "method", "action", "state", "demand", "why", "actions", "indices")
_TIMES = ("ue_sent", "edge_received", "edge_sent", "ue_received")


def schema(table: Table) -> Any:
    """The Arrow schema of a table: description and unit of each column are in the metadata of its field.

    ImportError, naming the extra ``research``, where pyarrow is not installed.
    """
    with needs("research", "tables of a run"):
        import pyarrow

    fields = [
        pyarrow.field(
            c.name,
            _arrow_type(c),
            nullable=c.nullable,
            metadata={"description": c.doc, **({"unit": c.unit} if c.unit else {})},
        )
        for c in table.columns
    ]
    return pyarrow.schema(fields, metadata={"prbandit.table": f"{table.name}, version {SCHEMA}: {table.row}"})


def _arrow_type(column: Column) -> Any:
    import pyarrow

    plain = {
        "string": pyarrow.string(),
        "int64": pyarrow.int64(),
        "float64": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "time": pyarrow.timestamp("ns", tz="UTC"),
    }
    of_list = column.type.removeprefix("list of ")
    return plain[column.type] if of_list == column.type else pyarrow.list_(plain[of_list])


def batches(
    store: RunStore, names: Collection[str], progress: Callable[[], None] = lambda: None
) -> Iterator[tuple[str, Any]]:
    """(table, Arrow batch) for the tables of those names, in one pass over the run as it is now; at least one
    batch of each. ``progress`` is called after each control slot.

    KeyError for a name that is none of :data:`TABLES`, StoreError for a record that cannot be read or that
    has a number beyond 64 bits.
    """
    buffers = {name: _Buffer(TABLES[name], str(store.path)) for name in dict.fromkeys(names)}
    with store.snapshot():
        parts = list(store.parts())
        for name, of in (("starts", _starts), ("parts", lambda _: _parts(parts))):
            if name in buffers:
                for row in of(store):
                    buffers[name].add(row)
        slots = [name for name in buffers if name not in ("events", "starts", "parts")]
        if slots:
            for _ in _fill(store, {n: buffers[n] for n in slots}):
                progress()
                yield from _full(buffers)
        if "events" in buffers:
            for row in _events(store, parts):
                buffers["events"].add(row)
                yield from _full(buffers)
    for name, buffer in buffers.items():
        yield name, buffer.take()


def _full(buffers: Mapping[str, _Buffer]) -> Iterator[tuple[str, Any]]:
    for name, buffer in buffers.items():
        if len(buffer) >= BATCH:
            yield name, buffer.take()


class _Buffer:
    """Rows of one table that are not in a batch yet, as columns."""

    def __init__(self, table: Table, path: str) -> None:
        self.table, self.schema = table, schema(table)
        self._path = path
        self._columns: dict[str, list[Any]] = {c.name: [] for c in table.columns}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, row: Mapping[str, Any]) -> None:
        """One row; what it lacks is none."""
        for name, column in self._columns.items():
            column.append(row.get(name))
        self._length += 1

    def extend(self, n: int, columns: Mapping[str, Sequence[Any]], **same: Any) -> None:
        """``n`` rows, as columns; ``same`` has what is the same in all of them. A column that is empty or is
        not there is none."""
        for name, column in self._columns.items():
            column.extend(columns.get(name) or [same.get(name)] * n)
        self._length += n

    def take(self) -> Any:
        """An Arrow batch of what there is, which is forgotten."""
        import pyarrow

        arrays = []
        for field in self.schema:
            values = self._columns[field.name]
            try:
                arrays.append(pyarrow.array(values, field.type))
            except (pyarrow.ArrowException, OverflowError) as error:
                where = f"table {self.table.name}, column {field.name}"
                raise StoreError(f"{self._path}: {where}: cannot be written: {error}") from error
            values.clear()
        self._length = 0
        return pyarrow.record_batch(arrays, schema=self.schema)


# ---- of a control slot -----------------------------------------------------------------------------------


def _fill(store: RunStore, buffers: Mapping[str, _Buffer]) -> Iterator[None]:
    """Fills the buffers, control slot by control slot."""
    observed = [name for name in buffers if TABLES[name].observed]
    pairs = Pairs()
    open_: dict[str, Recorded] = {}
    for recorded in store.recorded(observed=bool(observed)):
        cell = recorded.decision["cell"]
        closed, before = pairs.add(recorded.decision), open_.get(cell)
        open_[cell] = recorded
        if before is not None:
            _add_slot(buffers, before, closed)
        if recorded.observation is not None:
            key = _key(recorded, recorded.observation.control_slot)
            for name in observed:
                _OBSERVED[name](buffers[name], recorded.observation, key)
        yield
    for recorded in open_.values():
        _add_slot(buffers, recorded, None)
    yield


def _key(recorded: Recorded, control_slot: int) -> dict[str, Any]:
    return {
        "part": recorded.part,
        "start": recorded.start_id,
        "cell": recorded.decision["cell"],
        "control_slot": control_slot,
    }


def _add_slot(buffers: Mapping[str, _Buffer], recorded: Recorded, closed: ClosedSlot | None) -> None:
    """What a control slot's own record and, where it is over, the next one say of it."""
    decision = recorded.decision
    same = _key(recorded, decision["control_slot"])
    same["time"] = decision["time_ns"]
    same["length_s"] = None if closed is None else closed.length_ns / 1e9
    for name, add in (("decisions", _decisions), ("settings", _settings)):
        if name in buffers:
            for row in add(decision, closed):
                buffers[name].add({**same, **row})
    if closed is not None:
        for name, tell in (("measures", _measures), ("counts", _counts)):
            if name in buffers:
                for row in tell(closed):
                    buffers[name].add({**same, **row})


def _decisions(decision: Mapping[str, Any], closed: ClosedSlot | None) -> Iterator[dict[str, Any]]:
    in_force = allocations(decision)
    for name, s in decision["slices"].items():
        outcome = None if closed is None else closed.outcomes.get(name)
        about: dict[str, Any] = {"slice": name, "mode": decision["mode"]}
        if s.get("failed"):
            about["failed"] = "; ".join(f"{what}: {how}" for what, how in s["failed"].items())
        if closed is not None and closed.ended:
            about["ended"] = closed.ended
        if outcome is not None:
            met = outcome["met"]
            about |= {"met": None if met is None else bool(met), "busy": bool(outcome["busy"])}
            about["users"] = outcome["users"]
        for lever in Lever:
            choices = [c for c in s["choices"] if c["lever"] == lever.value]
            if not choices and lever not in RESOURCES:
                continue
            had = _lever(decision, s, lever, in_force[name])
            if outcome is not None:
                had["unattributed"] = outcome["unattributed"].get(lever.value)
            chosen: Sequence[Mapping[str, Any]] = choices or ({},)
            for choice in chosen:
                yield {**about, "lever": lever.value, **had, **_choice(choice)}


def _lever(decision: Mapping[str, Any], s: Mapping[str, Any], lever: Lever, in_force: Any) -> dict[str, Any]:
    """What was asked for, granted and in force at a lever."""
    out: dict[str, Any] = {"unit": _UNITS.get(lever)}
    if lever in (Lever.UL, Lever.DL):
        out["wanted"], out["floor"] = s["demand"][lever.value]
        out["granted"], why = s["granted"][lever.value]
        out["granted_why"] = why or None
        out["in_force"] = getattr(in_force, f"{lever.value}_prb")
        out["manual"] = (s.get("manual") or {}).get(lever.value)
    elif lever is Lever.EDGE:
        out["wanted"], out["granted"] = s["demand"]["gpu_mhz"], decision["gpu_mhz"]
        out["in_force"] = in_force.gpu_mhz
    if lever.value in s.get("rescue", {}):
        out["rescue"], out["rescue_why"] = s["rescue"][lever.value]
    return out


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    if not choice:
        return {}
    return {
        **{name: choice[name] for name in _CHOICE},
        "binding": choice["binding"] or None,
        "user": choice.get("user") or None,
    }


def _settings(decision: Mapping[str, Any], _closed: ClosedSlot | None) -> Iterator[dict[str, Any]]:
    for name, s in decision["slices"].items():
        for user, of in s["settings"].items():
            for setting, values in of.items():
                yield {"slice": name, "user": user, "setting": setting, "values": values}


def _measures(closed: ClosedSlot) -> Iterator[dict[str, Any]]:
    for name, outcome in closed.outcomes.items():
        for measure, of in outcome["measures"].items():
            about = {n: of[n] for n in ("unit", "better", "samples")}
            about["met"] = None if of["met"] is None else bool(of["met"])
            for user, (value, target) in of["users"].items():
                had = {"user": user, "value": value, "target": target}
                yield {"slice": name, "measure": measure, **about, **had}


def _counts(closed: ClosedSlot) -> Iterator[dict[str, Any]]:
    for name, outcome in closed.outcomes.items():
        for kind, of in (("count", outcome["counts"]), ("fault", outcome.get("faults", {}))):
            for what, value in of.items():
                if value:
                    yield {"slice": name, "kind": kind, "name": what, "value": value}


# ---- of an observation -----------------------------------------------------------------------------------


def _enforcement(buffer: _Buffer, observation: Observation, key: Mapping[str, Any]) -> None:
    gpu = observation.gpu
    clock = {} if gpu is None else {"gpu_mhz": gpu.sm_mhz, "gpu_fault": gpu.reason}
    for name, e in observation.enforcement.items():
        used = {"ul_used": e.ul_used, "dl_used": e.dl_used}
        buffer.add({**key, **clock, "slice": name, "fault": e.reason, **used})
    if clock and not observation.enforcement:
        buffer.add({**key, **clock})


def _frames(buffer: _Buffer, observation: Observation, key: Mapping[str, Any]) -> None:
    frames, flows = observation.frames, observation.flows
    of = frames.flow.tolist()
    columns: dict[str, list[Any]] = {
        name: [getattr(flows[i], name) for i in of] for name in ("slice", "flow", "ue_id")
    }
    columns |= {name: [t or None for t in getattr(frames, name).tolist()] for name in _TIMES}
    columns |= {name: getattr(frames, name).tolist() for name in ("sequence", "synchronised")}
    buffer.extend(len(of), columns, **key)


def _samples(buffer: _Buffer, observation: Observation, key: Mapping[str, Any]) -> None:
    for name, tables in observation.samples.items():
        for table, rows in tables.items():
            columns = {
                "flow": [observation.flows[i].flow for i in rows.flow.tolist()],
                "time": rows.time_ns.tolist(),
                "values": rows.values.tolist(),
            }
            buffer.extend(len(rows), columns, **key, slice=name, table=table)


def _reports(buffer: _Buffer, observation: Observation, key: Mapping[str, Any]) -> None:
    for report in observation.reports:
        buffer.extend(len(report.ue_id), _report(report), **key, time=report.time_ns)


def _report(report: MacReport) -> dict[str, Sequence[Any]]:
    columns: dict[str, Sequence[Any]] = {name: getattr(report, name) for name in UE_COLUMNS}
    channels = columns.pop("dl_channels")
    columns |= {f"{d}_{c}": getattr(getattr(report, d), c) for d in ("ul", "dl") for c in DIRECTION_COLUMNS}
    for i, name in enumerate(("lcid", "queued")):
        columns[f"dl_channel_{name}"] = [[channel[i] for channel in of_ue] for of_ue in channels]
    return columns


def _clocks(buffer: _Buffer, observation: Observation, key: Mapping[str, Any]) -> None:
    for c in observation.clocks:
        names = ("host", "ptp_state", "offset_ns", "path_delay_ns", "grandmaster", "fault")
        buffer.add({**key, "time": c.time_ns, **{name: getattr(c, name) for name in names}})


_OBSERVED: dict[str, Callable[[_Buffer, Observation, Mapping[str, Any]], None]] = {
    "enforcement": _enforcement,
    "frames": _frames,
    "samples": _samples,
    "reports": _reports,
    "clocks": _clocks,
}


# ---- beside the control slots ----------------------------------------------------------------------------


def _events(store: RunStore, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    began = [part.time_ns for part in parts]
    for event in store.events():
        place = bisect_right(began, event.time_ns)
        yield {
            "part": parts[max(place - 1, 0)].number if parts else None,
            "time": event.time_ns,
            "cell": event.cell or None,
            "kind": event.kind,
            "text": event.text,
            "data": json.dumps(event.data),
        }


def _starts(store: RunStore) -> Iterator[dict[str, Any]]:
    for start in store.starts():
        about = {"lost": start.lost, "pruned": start.pruned, "spec": json.dumps(start.spec)}
        yield {"part": start.part, "start": start.id, "cell": start.cell, "time": start.time_ns, **about}


def _parts(parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    before: Part | None = None
    for part in parts:
        yield {
            "part": part.number,
            "time": part.time_ns,
            "seed": part.about.get("seed"),
            "config": part.config,
            "changed": "" if before is None else "\n".join(part.changes(before)),
            **{name: json.dumps(part.about.get(name, {})) for name in ("versions", "host", "meta")},
        }
        before = part
