"""The tables that a run is read as: what `prbandit export` writes and :func:`prbandit.load_run` gives.

The only place that says what their columns are called, of what type and unit they are, and what they mean:
the files' schemas and ``docs/run-data.md`` (``prbandit export --schema``) are made of it. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SCHEMA = 1
"""Version of these tables; a column that is taken away or means something else makes a new one."""

TYPES = {
    "string": "UTF-8 text",
    "int64": "whole number, 64 bits",
    "float64": "number, 64 bits",
    "bool": "true or false",
    "time": "nanoseconds since 1970 in UTC (CLOCK_REALTIME), `timestamp[ns, tz=UTC]`",
    "list of float64": "list of numbers",
    "list of int64": "list of whole numbers",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``type`` is one of :data:`TYPES`, ``unit`` is "" where it has none."""

    name: str
    type: str
    doc: str
    unit: str = ""
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table; ``row`` says what a row of it is. ``observed``: it is read from the observations of the
    control slots, which takes longer than their decisions."""

    name: str
    row: str
    columns: tuple[Column, ...]
    observed: bool = False


def _optional(name: str, type: str, doc: str, unit: str = "") -> Column:
    return Column(name, type, doc, unit, nullable=True)


_PART = Column(
    "part", "int64", "Number of the run's part: a start or reload with another configuration begins one."
)
_START = Column(
    "start", "int64", "Number of the control loop; with the control slot it is the key of a control slot."
)
_CELL = Column("cell", "string", "Cell id.")
_SLOT = Column("control_slot", "int64", "Number of the control slot, counted by cell.")
_SLICE = Column("slice", "string", "Slice id.")
_KEY = (_PART, _START, _CELL, _SLOT)
_BEGAN = Column("time", "time", "When the control slot began: its decision was made.")
_LENGTH = _optional(
    "length_s", "float64", "How long the control slot lasted; none for one that is not over.", "s"
)


def _directions(columns: Sequence[tuple[str, str, str, str]]) -> tuple[Column, ...]:
    return tuple(
        _optional(f"{direction}_{name}", type, f"{where}: {doc}", unit)
        for direction, where in (("ul", "Uplink"), ("dl", "Downlink"))
        for name, type, doc, unit in columns
    )


_TABLES = (
    Table(
        "decisions",
        "A control slot, slice and lever: what was decided for it, why, and what came of it. A lever has "
        "several rows where the allocator chooses user by user.",
        (
            *_KEY,
            _SLICE,
            Column(
                "lever", "string", "`ul`, `dl` (PRB), `edge` (the GPU's clock) or `settings` of applications."
            ),
            _optional("user", "string", "The user that the choice is for; none: the whole slice."),
            _BEGAN,
            _LENGTH,
            Column("mode", "string", "`active`, `shadow`, `frozen` or `released`."),
            _optional(
                "ended", "string", "Why the control slot ended before its time; none where it did not."
            ),
            _optional("unit", "string", "Unit of action, wanted, granted and what is in force."),
            _optional("method", "string", "The policy or solver that chose; none where nothing was chosen."),
            _optional("action", "float64", "What was chosen.", "`unit`"),
            _optional("state", "float64", "The state of the lever that it was chosen in.", "`unit`"),
            _optional("demand", "float64", "What the present traffic needs.", "`unit`"),
            _optional("why", "string", "The method's word: explore, exploit, first visit, ..."),
            _optional(
                "binding", "string", "The constraint that holds the choice back; none where none does."
            ),
            _optional("actions", "list of float64", "What it was chosen among, ascending.", "`unit`"),
            _optional("indices", "list of float64", "The policy's index of each of `actions`."),
            _optional("wanted", "float64", "What the slice asked the arbiter for.", "`unit`"),
            _optional("floor", "float64", "Without which the promise is lost; of `ul` and `dl`.", "PRB"),
            _optional("granted", "float64", "What the arbiter left of it.", "`unit`"),
            _optional("granted_why", "string", "Why that is not what was asked for; none where it is."),
            _optional(
                "in_force",
                "float64",
                "What the slice had: all that there is in shadow and released.",
                "`unit`",
            ),
            _optional("rescue", "float64", "The least that the slice gets while it is rescued.", "`unit`"),
            _optional("rescue_why", "string", "Why it is rescued."),
            _optional("manual", "float64", "The quota that an operator set by hand.", "PRB"),
            _optional("failed", "string", "What of the slice's allocator failed, and how."),
            _optional("unattributed", "string", "Why nothing was learned of the lever; none where it was."),
            _optional("met", "bool", "Whether the slice's promise was kept; none where that cannot be told."),
            _optional("busy", "bool", "Whether a user of the slice was judged."),
            _optional("users", "int64", "Users of the slice that were judged."),
        ),
    ),
    Table(
        "measures",
        "A control slot, slice, measure and user whose value is known: what the user had, and was promised.",
        (
            *_KEY,
            _SLICE,
            _BEGAN,
            _LENGTH,
            Column("measure", "string", "What was measured, by the name that the service gives it."),
            Column("unit", "string", "Unit of value and target (1: none)."),
            Column("better", "string", "`lower` or `higher`."),
            Column("user", "string", "The flow."),
            Column("value", "float64", "What the user had.", "`unit`"),
            _optional(
                "target", "float64", "What it is held against; none where nothing was promised.", "`unit`"
            ),
            _optional(
                "met", "bool", "Whether the slice kept the measure for all; none where that cannot be told."
            ),
            Column("samples", "int64", "Frames, tasks or poses behind the measure, of all users."),
        ),
    ),
    Table(
        "counts",
        "A control slot, slice and thing counted that was not 0.",
        (
            *_KEY,
            _SLICE,
            Column("kind", "string", "`count`, or `fault`: samples that could be used in part only."),
            Column("name", "string", "What was counted, or what was wrong with the samples."),
            Column("value", "int64", "How many."),
        ),
    ),
    Table(
        "settings",
        "A control slot, user and setting: what an application was told to do.",
        (
            *_KEY,
            _SLICE,
            Column("user", "string", "The flow."),
            Column(
                "setting", "string", "Name of the setting; `prbandit services` and the service say its unit."
            ),
            Column("values", "list of float64", "Its values; one for a setting that is a number."),
        ),
    ),
    Table(
        "enforcement",
        "A control slot and slice with a quota: what became of its quotas and of the clock.",
        (
            *_KEY,
            _optional(
                "slice", "string", "Slice id; none where no slice had a quota and the clock alone is known."
            ),
            _optional(
                "fault", "string", "Why the quotas were not in force or not kept; none where they were."
            ),
            _optional("ul_used", "int64", "Most PRBs of new transmissions in one NR slot, uplink.", "PRB"),
            _optional("dl_used", "int64", "The same, downlink.", "PRB"),
            _optional("gpu_mhz", "int64", "The clock that the edge agent read back.", "MHz"),
            _optional("gpu_fault", "string", "Why the clock was not as locked; none where it was."),
        ),
        observed=True,
    ),
    Table(
        "frames",
        "A frame that was sent in a control slot, with what was known of it when the slot closed.",
        (
            *_KEY,
            _SLICE,
            Column("flow", "string", "The flow."),
            Column("ue_id", "string", "Its UE."),
            Column("sequence", "int64", "Number of the frame in its flow."),
            _optional("ue_sent", "time", "Sent by the UE; a time that is not known (yet) is none."),
            _optional("edge_received", "time", "Received at the edge."),
            _optional("edge_sent", "time", "Sent back by the edge."),
            _optional("ue_received", "time", "Received by the UE."),
            Column(
                "synchronised",
                "bool",
                "Whether the hosts' clocks are known to agree: else the round trip alone counts.",
            ),
        ),
        observed=True,
    ),
    Table(
        "samples",
        "A row of a table that an application tells: poses, realised experience, context.",
        (
            *_KEY,
            _SLICE,
            Column("table", "string", "Name of the service's table."),
            Column("flow", "string", "The flow."),
            Column("time", "time", "When it was so."),
            Column(
                "values",
                "list of float64",
                "Its columns in the order and units that the service declares; NaN: not known.",
            ),
        ),
        observed=True,
    ),
    Table(
        "reports",
        "A UE in a report of the gNB's MAC state; the record keeps one report a state sub-interval.",
        (
            *_KEY,
            Column("time", "time", "When the gNB took it."),
            Column("ue_id", "string", "UE id, as the gNB says it."),
            Column("slice", "string", "Slice id."),
            _optional("cqi", "int64", "Wide-band CQI (TS 38.214 clause 5.2.2.1; 0: none reported)."),
            _optional("snr_db", "float64", "SNR of the PUSCH.", "dB"),
            _optional("five_qi", "int64", "5QI of its first DRB (TS 23.501 clause 5.7.2.1; 0: not known)."),
            _optional("priority_level", "int64", "Priority level (TS 23.501 clause 5.7.3.3; 0: not known)."),
            _optional("snssai", "string", "S-NSSAI of its first DRB, SST or SST-SD; empty: not known."),
            *_directions(
                (
                    ("mcs", "int64", "MCS index.", ""),
                    ("mcs_table", "int64", "MCS table (TS 38.214 clauses 5.1.3.1 and 6.1.4.1).", ""),
                    ("layers", "int64", "MIMO layers.", ""),
                    ("queued_bytes", "int64", "bytes that wait.", "bytes"),
                    ("bler", "float64", "BLER of first transmissions, 0 to 1.", ""),
                    ("lc_bytes", "int64", "bytes of the logical channels since the UE attached.", "bytes"),
                    ("prb_slots", "int64", "PRBs times NR slots since the UE attached.", "PRB NR slots"),
                )
            ),
            _optional(
                "dl_channel_lcid",
                "list of int64",
                "LCIDs of the downlink logical channels with bytes that wait.",
            ),
            _optional("dl_channel_queued", "list of int64", "The bytes that wait in each of them.", "bytes"),
        ),
        observed=True,
    ),
    Table(
        "clocks",
        "A report of a host's PTP clock.",
        (
            *_KEY,
            Column("time", "time", "When the host said it."),
            Column("host", "string", "Name of the host."),
            Column("ptp_state", "string", "State of its port, as IEEE 1588 names it."),
            Column("offset_ns", "float64", "Offset from the master.", "ns"),
            Column("path_delay_ns", "float64", "Path delay to the master.", "ns"),
            Column("grandmaster", "string", "Identity of the clock that it follows; empty: not told."),
            Column("fault", "string", "Why the clock cannot be used; empty where it can."),
        ),
        observed=True,
    ),
    Table(
        "events",
        "Something that happened beside the control slots.",
        (
            _optional("part", "int64", "Number of the run's part that it fell into."),
            Column("time", "time", "When."),
            _optional("cell", "string", "Cell id; none where it concerns the daemon."),
            Column("kind", "string", "What: `rescued`, `quota_not_honoured`, `policy`, ..."),
            Column("text", "string", "The same for people."),
            Column("data", "string", "More of it, a JSON object."),
        ),
    ),
    Table(
        "starts",
        "A control loop that was made: at a start, and where a cell joined or changed.",
        (
            _PART,
            _START,
            _CELL,
            Column("time", "time", "When."),
            Column("lost", "int64", "Control slots of it that could not be recorded."),
            Column("pruned", "int64", "Control slots of it that retention has deleted."),
            Column("spec", "string", "What the loop was made of, a JSON object."),
        ),
    ),
    Table(
        "parts",
        "A part of the run.",
        (
            _PART,
            Column("time", "time", "When it began."),
            _optional("seed", "int64", "The seed of the run."),
            Column("config", "string", "The resolved configuration, YAML."),
            Column("changed", "string", "What is otherwise than in the part before, a line each."),
            Column("versions", "string", "Versions of what ran, a JSON object."),
            Column("host", "string", "The host that it ran on, a JSON object."),
            Column("meta", "string", "What else is known of it, a JSON object."),
        ),
    ),
)
TABLES: dict[str, Table] = {table.name: table for table in _TABLES}


def markdown() -> str:
    """The page of all tables, ``docs/run-data.md``."""
    lines = [
        "# A run as tables",
        "",
        "`prbandit export RUN` writes a run as Parquet files, a file a table; `prbandit.load_run(RUN)` gives",
        "the same tables as pandas data frames. This page is `prbandit export --schema`.",
        "",
        f"Version {SCHEMA} of the tables. A file has its own, the units and the texts below in the metadata",
        "of its schema. Types:",
        "",
        *(f"- `{name}`: {doc}." for name, doc in TYPES.items()),
        "",
        "The key of a control slot is `start` and `control_slot`: tables join on these. A value that the run",
        "does not hold is none (null).",
    ]
    for table in _TABLES:
        lines += ["", f"## {table.name}", "", table.row, ""]
        lines += ["| column | type | unit | null | what |", "|---|---|---|---|---|"]
        for c in table.columns:
            null = "yes" if c.nullable else ""
            lines.append(f"| `{c.name}` | {c.type} | {c.unit} | {null} | {c.doc} |")
    return "\n".join(lines) + "\n"
