"""Prometheus metrics of the controller: one container with all of them."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from prometheus_client import Metric

from controller.core.measure import MAX_NAMES, Lever
from controller.links import edge, operator, page, qos, ran_protocol
from controller.links.cell_metrics import CellCollector, DecisionCollector
from controller.links.counters import Counters
from controller.links.operator import CellStatus
from wire.exposition import MetricsServer
from wire.families import PREFIX, Families, Family, Registry
from wire.security import Tls
from wire.version import commit, version

MAX_CELLS = 256
"""Cells of one counter that are exported by name; the others are summed under :data:`OTHER`."""
MAX_WORDS = 32
"""Reasons of unattributed control slots, words of choices, that are exported by name."""
OTHER = "other"
NO_CELL = "none"
"""The label ``cell`` of what is counted by cell where none is to blame, or it is not known."""

COUNTERS: dict[str, str] = {
    **ran_protocol.COUNTERS,
    **edge.COUNTERS,
    **qos.COUNTERS,
    **operator.COUNTERS,
    **page.COUNTERS,
    "store_slots_total": "Control slots recorded",
    "store_errors_total": "Attempts to write the run record that failed",
    "store_lost_total": "Control slots and events that are not in the run record: its queue was full",
    "store_refused_total": "Control slots and events that cannot be recorded",
    "early_ends_total": "Control slots that ended before their time (control.events)",
    "clock_steps_total": "Times that CLOCK_REALTIME was set while a cell was under control",
    "events_total": "Events in the run record",
    "events_thinned_total": "Events of floods that are neither in the log nor in the run record",
    "step_failed_total": "Control slots in which no decision could be made",
    "allocator_failed_total": "Failures of a slice's allocator; the others are not touched",
    "fit_failed_total": "Fits that gave no result",
    "hand_over_failed_total": "Failures of an allocator to hand over a user to another cell",
    "config_refused_total": "Configurations refused",
}
"""Help text of every counter that :class:`Counters` may hold."""

OF_NO_CELL = frozenset(
    {
        *(name for name in operator.COUNTERS if name != "operator_decisions_dropped_total"),
        *("ran_bad_hello_total", "ran_version_mismatch_total", "ran_unknown_cell_total"),
        *("ran_key_refused_total", "ran_handshake_failed_total", "ran_front_restarts_total"),
        *("qos_version_mismatch_total", "qos_stream_refused_total", "qos_crowded_total", "qos_late_total"),
        "store_errors_total",
    }
)
"""Counters of what happens before a cell is known: they have no label ``cell``."""
OF_SOME_CELL = frozenset(
    {
        *("ran_malformed_total", "ran_no_session_total", "ran_wrong_key_total", "ran_send_failed_total"),
        *("qos_malformed_total", "qos_denied_total"),
        *("store_lost_total", "store_refused_total", "events_total", "events_thinned_total"),
        "config_refused_total",
    }
)
"""Counters that count with a cell where one is known, else under :data:`NO_CELL`."""

_STEP_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class CounterCollector(Families):
    """Exports the links' counters as they stand when they are scraped.

    A counter is there before its first count, with every cell of ``cells`` where it is by cell: what begins
    with a count above 0 has no rate that shows it.
    """

    def __init__(self, counters: Counters, cells: Collection[str]) -> None:
        self._counters, self._cells = counters, cells
        self.families = [self._family(name) for name in sorted(COUNTERS)]

    @staticmethod
    def _family(name: str) -> Family:
        text = COUNTERS.get(name, f"Count of {name.removesuffix('_total').replace('_', ' ')}")
        return Family(PREFIX + name, "counter", text, () if name in OF_NO_CELL else ("cell",))

    def collect(self) -> Iterator[Metric]:
        values: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for name in COUNTERS:
            known = (NO_CELL,) if name in OF_NO_CELL else self._cells
            values[name] = dict.fromkeys((*known, NO_CELL) if name in OF_SOME_CELL else known, 0)
        for (name, cell), value in sorted(self._counters.snapshot().items()):
            of = values[name]
            label = NO_CELL if name in OF_NO_CELL else cell or NO_CELL
            label = label if label in of or len(of) < MAX_CELLS else OTHER
            of[label] = of.get(label, 0) + value
        for name in sorted(values):
            made = self._family(name).open()
            for label, value in values[name].items():
                made.add_metric([] if name in OF_NO_CELL else [label], value)
            yield made


class _Words:
    """The first :data:`MAX_WORDS` texts as labels; for the others, and what holds a number, :data:`OTHER`."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, text: str) -> str:
        if text not in self._known:
            if len(self._known) >= MAX_WORDS or any(map(str.isdigit, text)):
                return OTHER
            self._known.add(text)
        return text


class Metrics:
    """Every metric of the controller, in a registry of its own.

    A cell, a slice, a lever, a measure, a clock's host and, of a cell that reports, its UEs are labels; flows
    are not. Any thread may call.
    """

    def __init__(self, counters: Counters | None = None) -> None:
        self.registry = registry = Registry()
        self._mutex = threading.Lock()
        self._reasons, self._whys = _Words(), _Words()
        self._measures: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._counts: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._cells: dict[str, Callable[[], CellStatus]] = {}
        self._records: dict[str, Mapping[str, Any]] = {}
        if counters is not None:
            registry.add(CounterCollector(counters, self._cells.keys()))
        registry.add(CellCollector(self._cells))
        registry.add(DecisionCollector(self._records))
        counter = registry.counter
        registry.info("build", "Version of the controller", "version", "commit").info(
            {"version": version(), "commit": commit() or "unknown"}
        )
        self.config = registry.info("config", "Hash of the configuration that is in force", "hash")
        self.reload_worked = registry.gauge(
            "config_last_reload_successful",
            "1 where the configuration that was read last is in force, else 0",
        )
        self.reload_time = registry.gauge(
            "config_last_reload_success_timestamp_seconds",
            "Unix time at which the configuration in force was taken, seconds",
        )
        self.decisions = counter("decisions_total", "Decisions made", "cell")
        self.choices = counter(
            "choices_total",
            "Choices of a slice's policy or allocator by lever and by its word of why; what holds a number is"
            " `other`",
            *("cell", "slice", "lever", "why"),
        )
        self.busy = counter(
            "busy_control_slots_total", "Closed control slots with an active flow", "cell", "slice"
        )
        self.judged = counter(
            "qos_judged_control_slots_total",
            "Closed control slots of which it is known whether the slice's promise was kept",
            *("cell", "slice"),
        )
        self.met = counter(
            "qos_met_control_slots_total",
            "Closed control slots in which the slice's promise was kept",
            *("cell", "slice"),
        )
        self.measure_judged = counter(
            "measure_judged_control_slots_total",
            "Closed control slots of which it is known whether every user's measure was met",
            *("cell", "slice", "measure"),
        )
        self.measure_met = counter(
            "measure_met_control_slots_total",
            "Closed control slots in which every user's measure was met",
            *("cell", "slice", "measure"),
        )
        self.allocator_failures = counter(
            "allocator_failures_total", "Control slots in which the slice's allocator failed", "cell", "slice"
        )
        self.unattributed = counter(
            "unattributed_control_slots_total",
            "Closed control slots that nothing was learned from, by lever and reason",
            *("cell", "slice", "lever", "reason"),
        )
        self.counted = counter(
            "outcome_counts_total",
            "What the slice's service counts in its control slots (late_frames, negative_delays, rebuffers)",
            *("cell", "slice", "count"),
        )
        self.step_duration = registry.histogram(
            "step_duration_seconds",
            "Time to close a control slot, decide the next one and hand it over, seconds",
            "cell",
            buckets=_STEP_BUCKETS,
        )

    def observe(self, record: Mapping[str, Any]) -> None:
        """Take over a decision record (``Decision.to_record``)."""
        cell = record["cell"]
        with self._mutex:
            self._records[cell] = record
            self.decisions.labels(cell).inc()
            for name, s in record["slices"].items():
                for choice in s["choices"]:
                    if not choice.get("user"):
                        self.choices.labels(cell, name, choice["lever"], self._whys(choice["why"])).inc()
                self.allocator_failures.labels(cell, name).inc("failed" in s)
                self._observe_closed(cell, name, s["closed"])

    def _observe_closed(self, cell: str, name: str, closed: Mapping[str, Any]) -> None:
        self.busy.labels(cell, name).inc(bool(closed["busy"]))
        self.judged.labels(cell, name).inc(closed["met"] is not None)
        self.met.labels(cell, name).inc(closed["met"] or 0)
        for measure, stored in closed["measures"].items():
            if _room(self._measures[cell, name], measure):
                self.measure_judged.labels(cell, name, measure).inc(stored["met"] is not None)
                self.measure_met.labels(cell, name, measure).inc(stored["met"] or 0)
        for count, n in closed["counts"].items():
            if _room(self._counts[cell, name], count):
                self.counted.labels(cell, name, count).inc(n)
        for lever in Lever:
            if reason := closed["unattributed"].get(lever.value):
                self.unattributed.labels(cell, name, lever.value, self._reasons(reason)).inc()

    def gone(self, cell: str) -> None:
        """The gNB of a cell has gone: nothing that was decided is in force any more."""
        with self._mutex:
            self._records.pop(cell, None)

    def step_seconds(self, cell: str, seconds: float) -> None:
        """How long one control slot took to close and decide."""
        self.step_duration.labels(cell).observe(seconds)

    def configured(self, digest: str) -> None:
        """A configuration with this hash is in force from now on."""
        self.config.info({"hash": digest})
        self.reloaded(True)

    def reloaded(self, worked: bool) -> None:
        """A configuration was read, and taken over or refused."""
        self.reload_worked.set(worked)
        if worked:
            self.reload_time.set(time.time())

    def watch_cell(self, cell: str, status: Callable[[], CellStatus]) -> None:
        """Ask for a cell's links and UEs at each scrape; nothing is told of it where ``status`` fails."""
        self._cells[cell] = status

    def serve(
        self,
        address: str,
        tls: Tls | None = None,
        *,
        setting: str = "links.metrics.address",
        missing: str = "security.keys",
    ) -> MetricsServer:
        """Serve the metrics on ``host:port`` (port 0: any) at ``/metrics``; over HTTPS with ``tls``.

        Errors are those of :class:`wire.exposition.MetricsServer`.
        """
        return MetricsServer(self.registry, address, tls, setting=setting, missing=missing)


def _room(known: set[str], name: str) -> bool:
    """Whether ``name`` is one of the first :data:`MAX_NAMES` that were asked for."""
    if name not in known and len(known) < MAX_NAMES:
        known.add(name)
    return name in known


def families() -> list[Family]:
    """All that the controller may export."""
    return Metrics(Counters()).registry.families
