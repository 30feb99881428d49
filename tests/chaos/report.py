"""What an attack did and what came of it, as one row; and the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from controller.links.ran_front import MEMORY_BYTES
from controller.links.ran_protocol import HELLOS_REFUSED
from tests.chaos.world import FRONT, LEASE_S, Snapshot

MAX_LOG_BYTES = 10.0
"""Of log that a refused message may cost; judged from MIN_REFUSED on, as the first ones are told of."""
MIN_REFUSED = 2000
MAX_GROWTH_MIB, MAX_PEAK_MIB = 48.0, 256.0
FRONT_MIB = MEMORY_BYTES / (1 << 20)
"""What the process to which gNBs connect may take before it ends."""
"""That a process may have grown by after an attack, and at any time in it."""
FULL_WITHIN_S = LEASE_S + 2.5
"""A lease; and the gNB tells of its quotas once a second, and the processes share two cores."""


@dataclass
class Outcome:
    """What an attack itself knows.

    Args:
        sent: messages, calls, connections or faults.
        taken: messages that were not refused, by their answers or counters; None: not countable.
        counters: names of the controller's counters of refused messages; of the ``untouched`` cell only
            those of Hellos count, which any peer may send in its name. Empty: not countable.
        edge_counters: the same of the edge agent, by prefix.
        all_refused: nothing of it can be taken, and it is not counted.
        to_full: for each fault that took the controller away, seconds until everything was at full
            resources; None: never.
        broken: promises that were broken.
    """

    sent: int = 0
    taken: int | None = None
    counters: frozenset[str] = frozenset()
    edge_counters: str = ""
    all_refused: bool = False
    to_full: list[float | None] = field(default_factory=list)
    to_control: list[float | None] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    note: str = ""


@dataclass
class Row:
    """One line of the table; None: not countable, or not of this attack."""

    attack: str
    keys: bool
    sent: int = 0
    refused: int | None = None
    accounted: bool | None = None
    crashed: int = 0
    late_slots: int = 0
    rss_before_mib: float = 0.0
    rss_after_mib: float = 0.0
    rss_peak_mib: float = 0.0
    log_bytes_per_refused: float | None = None
    full_s: float | None = None
    control_s: float | None = None
    slots: int = 0
    slots_lost: int = 0
    slots_twice: int = 0
    replays_differ: int | None = None
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    row: Row,
    outcome: Outcome,
    before: Snapshot,
    after: Snapshot,
    *,
    victim: str,
    peaks: Mapping[str, float],
    untouched: str,
) -> None:
    """Fills in ``row`` and names every promise that was broken."""
    row.sent, row.note = outcome.sent, outcome.note
    row.broken += outcome.broken
    row.rss_before_mib, row.rss_after_mib = before.rss_mib[victim], after.rss_mib[victim]
    row.rss_peak_mib = peaks.get(victim, 0.0)
    same = before.pids[victim] == after.pids[victim]
    if same and (outcome.counters or outcome.edge_counters):
        row.refused = round(_refused(outcome, after, untouched) - _refused(outcome, before, untouched))
        if outcome.taken is not None:
            row.accounted = row.refused + outcome.taken == row.sent
            if not row.accounted:
                row.broken.append(f"{row.sent} sent, {row.refused} counted as refused, {outcome.taken} taken")
    refused = row.sent if outcome.all_refused else row.refused
    if same and refused:
        row.log_bytes_per_refused = (after.log_bytes[victim] - before.log_bytes[victim]) / refused
        if refused >= MIN_REFUSED and row.log_bytes_per_refused > MAX_LOG_BYTES:
            row.broken.append(f"{row.log_bytes_per_refused:.1f} bytes of log a refused message")
    if same:
        for name in before.rss_mib:
            if before.pids[name] != after.pids.get(name):
                continue
            grown = after.rss_mib[name] - before.rss_mib[name]
            peak = peaks.get(name, 0.0) - before.rss_mib[name]
            largest = (FRONT_MIB, FRONT_MIB) if name == FRONT else (MAX_GROWTH_MIB, MAX_PEAK_MIB)
            if grown > largest[0] or peak > largest[1]:
                row.broken.append(f"{name} grew by {grown:.0f} MiB, {peak:.0f} MiB at its peak")
    for seconds in outcome.to_full:
        if seconds is None or seconds > FULL_WITHIN_S:
            row.broken.append(f"full resources after {_seconds(seconds)}, the lease is {LEASE_S:g} s")
    row.full_s = max((s for s in outcome.to_full if s is not None), default=None)
    row.control_s = max((s for s in outcome.to_control if s is not None), default=None)
    if None in outcome.to_control:
        row.broken.append("no control again")
    row.slots = len(set(after.slots.numbers) - set(before.slots.numbers))
    row.late_slots = max(0, after.slots.late - before.slots.late)
    gone = len(set(before.slots.numbers) - set(after.slots.numbers))
    row.slots_lost = after.slots.lost - before.slots.lost + gone
    row.slots_twice = after.slots.twice - before.slots.twice
    if row.slots_lost > 0 or row.slots_twice > 0:
        row.broken.append(f"{row.slots_lost} control slots lost, {row.slots_twice} twice")


def _refused(outcome: Outcome, at: Snapshot, untouched: str) -> float:
    edge = sum(
        n for name, n in at.edge.items() if outcome.edge_counters and name.startswith(outcome.edge_counters)
    )
    return edge + sum(
        n
        for (name, cell), n in at.counters.items()
        if name in outcome.counters and (cell != untouched or name in HELLOS_REFUSED)
    )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("attack", lambda r: r.attack),
    ("keys", lambda r: "yes" if r.keys else "no"),
    ("sent", lambda r: str(r.sent)),
    ("refused", lambda r: _number(r.refused)),
    ("accounted", lambda r: {None: "-", True: "yes", False: "NO"}[r.accounted]),
    ("crashed", lambda r: str(r.crashed)),
    ("late", lambda r: str(r.late_slots)),
    ("MiB before", lambda r: _number(r.rss_before_mib)),
    ("peak", lambda r: _number(r.rss_peak_mib)),
    ("after", lambda r: _number(r.rss_after_mib)),
    ("log B", lambda r: _number(r.log_bytes_per_refused, 2)),
    ("s to full", lambda r: _number(r.full_s, 1)),
    ("s to control", lambda r: _number(r.control_s, 1)),
    ("slots", lambda r: str(r.slots)),
    ("lost", lambda r: str(r.slots_lost)),
    ("twice", lambda r: str(r.slots_twice)),
    ("differ", lambda r: _number(r.replays_differ)),
    ("holds", lambda r: "NO" if r.broken else "yes"),
)


def table(rows: Iterable[Row], skipped: Mapping[str, str]) -> str:
    """The table, what broke, what was left out and why."""
    rows = list(rows)
    cells = [[name for name, _ in _COLUMNS]] + [[show(r) for _, show in _COLUMNS] for r in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        first, *rest = (
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        lines.append("  ".join((first, *rest)))
    lines += [f"{r.attack}: {r.note}" for r in rows if r.note]
    lines += [f"BROKEN {r.attack}{'' if r.keys else ' (no keys)'}: {b}" for r in rows for b in r.broken]
    lines += [f"skipped {name}: {why}" for name, why in skipped.items()]
    full = [r.full_s for r in rows if r.full_s is not None]
    lines.append(
        f"{sum(r.sent for r in rows)} messages and faults, {sum(r.refused or 0 for r in rows)} refused,"
        f" {sum(r.crashed for r in rows)} crashes, {sum(r.slots for r in rows)} control slots,"
        f" {sum(r.slots_lost for r in rows)} lost, {sum(r.slots_twice for r in rows)} twice,"
        f" full resources within {max(full, default=0):.1f} s (median {statistics.median(full or [0]):.1f});"
        f" {sum(bool(r.broken) for r in rows)} of {len(rows)} rows broken"
    )
    return "\n".join(lines)
