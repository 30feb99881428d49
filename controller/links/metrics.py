"""Prometheus metrics of the controller: one container with all of them."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.core.clocks import KnownClock
from controller.core.measure import MAX_NAMES, RESOURCES, Lever, worst_value
from controller.core.observation import Mode
from controller.links import edge, operator, qos, ran_protocol
from controller.links.counters import Counters
from wire.exposition import MetricsServer
from wire.security import Tls
from wire.version import commit, version

log = logging.getLogger(__name__)

MAX_CELLS = 256
"""Cells of one counter that are exported by name; the others are summed under :data:`OTHER`."""
MAX_REASONS = 32
"""Reasons of unattributed control slots that are exported by name."""
OTHER = "other"

COUNTERS: dict[str, str] = {
    **ran_protocol.COUNTERS,
    **edge.COUNTERS,
    **qos.COUNTERS,
    **operator.COUNTERS,
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

_STEP_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class CounterCollector(Collector):
    """Exports the links' counters as they stand when they are scraped."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[CounterMetricFamily]:
        values: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (name, cell), value in sorted(self._counters.snapshot().items()):
            cells = values[name]
            label = cell if cell in cells or len(cells) < MAX_CELLS else OTHER
            cells[label] = cells.get(label, 0) + value
        # A known counter is there before its first count, so that dashboards and alerts find it.
        for name in sorted({*COUNTERS, *values}):
            text = COUNTERS.get(name, f"Count of {name.removesuffix('_total').replace('_', ' ')}")
            family = CounterMetricFamily(f"prbandit_{name}", text, labels=["cell"])
            for cell, value in (values.get(name) or {"": 0}).items():
                family.add_metric([cell], value)
            yield family


class ClockCollector(Collector):
    """Exports what is known of the hosts' clocks when it is scraped; ``ask`` has one callable a cell."""

    def __init__(self) -> None:
        self.ask: dict[str, Callable[[], Sequence[KnownClock]]] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = usable, offset, age = [
            GaugeMetricFamily(f"prbandit_clock_{name}", text, labels=["cell", "host"])
            for name, text in (
                ("usable", "1 while hop delays may be told from the host's clock"),
                ("offset_seconds", "Offset of the host's clock as it was told last, seconds"),
                ("age_seconds", "Time since the host told of its clock, seconds"),
            )
        ]
        for cell, ask in list(self.ask.items()):
            for clock in ask():
                labels = [cell, clock.host]
                usable.add_metric(labels, not clock.fault)
                offset.add_metric(labels, clock.offset_ns / 1e9 if clock.ptp_state else math.nan)
                age.add_metric(labels, math.nan if clock.age_s is None else clock.age_s)
        yield from families


class Metrics:
    """Every metric of the controller, in a registry of its own.

    A cell, a slice, a lever, a measure and a clock's host are labels; flows and UEs are not. The label
    ``hop`` of the metrics that have it is a lever's name, or a measure's. Any thread may call.
    """

    def __init__(self, counters: Counters | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        self._mutex = threading.Lock()
        self._reasons: set[str] = set()
        self._ratios: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._measures: dict[tuple[str, str], list[str]] = {}
        self._slices: dict[str, frozenset[str]] = {}
        if counters is not None:
            registry.register(CounterCollector(counters))
        self._clocks = ClockCollector()
        registry.register(self._clocks)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"prbandit_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"prbandit_{name}", text, labels, registry=registry)

        self.build = Info("prbandit_build", "Version of the controller", registry=registry)
        self.build.info({"version": version(), "commit": commit()})
        self.decisions = counter("decisions", "Decisions made", "cell")
        self.control_slot = gauge("control_slot", "Number of the control slot in progress", "cell")
        self.decision_time = gauge(
            "last_decision_timestamp_seconds", "Unix time of the last decision, seconds", "cell"
        )
        self.mode = Enum(
            "prbandit_mode",
            "What the controller does with its decisions",
            ["cell"],
            states=[m.value for m in Mode],
            registry=registry,
        )
        self.carrier_prb = gauge("carrier_prb", "PRBs of the carrier", "cell")
        self.quota_prb = gauge(
            "quota_prb",
            "PRBs that the slice may use from the last decision on; without a quota all, without a gNB NaN",
            "cell",
            "slice",
            "direction",
        )
        self.gpu_wanted_mhz = gauge(
            "gpu_wanted_mhz", "GPU clock of the last decision, MHz; the highest without a lock", "cell"
        )
        self.gpu_max_mhz = gauge("gpu_max_mhz", "Highest clock of the GPU, MHz", "cell")
        self.gpu_sm_mhz = gauge("gpu_sm_mhz", "GPU clock as the edge agent read it back, MHz", "cell")
        self.gpu_power_watts = gauge("gpu_power_watts", "GPU power as the edge agent read it, W", "cell")
        self.flows = gauge(
            "active_flows", "Flows that the last closed control slot was judged by", "cell", "slice"
        )
        self.busy = counter("busy_control_slots", "Closed control slots with an active flow", "cell", "slice")
        self.hop_state = gauge("hop_state_prb", "Hop state of the last decision, PRB", "cell", "slice", "hop")
        self.hop_demand = gauge(
            "hop_demand_prb", "Demand of the last decision before rounding, PRB", "cell", "slice", "hop"
        )
        self.hop_action = gauge(
            "hop_action", "Action of the last decision: PRB (ul, dl) or MHz (edge)", "cell", "slice", "hop"
        )
        self.hop_delay = gauge(
            "delay_seconds",
            "Delay metric of the worst flow in the last closed control slot, seconds; NaN without a flow",
            "cell",
            "slice",
            "hop",
        )
        self.qos_judged = counter(
            "qos_judged_control_slots", "Closed control slots whose QoS is known", "cell", "slice", "hop"
        )
        self.qos_met = counter(
            "qos_met_control_slots", "Closed control slots within their delay budget", "cell", "slice", "hop"
        )
        self.qos_ratio = gauge(
            "qos_delivery_ratio",
            "QoS delivery ratio since the controller started, 0..1",
            "cell",
            "slice",
            "hop",
        )
        self.measure = gauge(
            "measure",
            "Measure of the worst user in the last closed control slot, in its unit; NaN without one",
            "cell",
            "slice",
            "measure",
        )
        self.measure_met = counter(
            "measure_met",
            "Closed control slots in which every user's measure was met",
            "cell",
            "slice",
            "measure",
        )
        self.lever = gauge(
            "lever",
            "What was in force last: PRB (ul, dl), MHz (edge), users with settings (settings)",
            "cell",
            "slice",
            "lever",
        )
        self.rescue = gauge(
            "rescue",
            "The least that a slice gets beyond its demand: PRB (ul, dl) or MHz (edge); 0 without rescue",
            "cell",
            "slice",
            "lever",
        )
        self.manual_quota = gauge(
            "manual_quota_prb",
            "PRBs that an operator has set for the slice; 0 while its policy decides",
            "cell",
            "slice",
            "direction",
        )
        self.allocator_failures = counter(
            "allocator_failures", "Control slots in which the slice's allocator failed", "cell", "slice"
        )
        self.unattributed = counter(
            "unattributed",
            "Closed control slots that nothing was learned from, by reason",
            "cell",
            "slice",
            "hop",
            "reason",
        )
        self.negative_delays = counter(
            "negative_delays", "Frames with a negative delay, which no QoS was told from", "cell", "slice"
        )
        self.unsynchronised_frames = counter(
            "unsynchronised_frames",
            "Frames that counted for the round trip alone: their clocks are not known to agree",
            "cell",
            "slice",
        )
        self.step_duration = Histogram(
            "prbandit_step_duration_seconds",
            "Time to close a control slot, decide the next one and hand it over, seconds",
            ["cell"],
            buckets=_STEP_BUCKETS,
            registry=registry,
        )
        self.report_age = gauge("report_age_seconds", "Age of the cell's last MacReport, seconds", "cell")
        self.lease_remaining = gauge(
            "lease_remaining_seconds", "Time until the lease of the cell's quotas ends, seconds", "cell"
        )

    def observe(self, record: Mapping[str, Any]) -> None:
        """Take over a decision record (``Decision.to_record``)."""
        cell, prb, max_mhz = record["cell"], record["prb"], record["max_mhz"]
        with self._mutex:
            self.decisions.labels(cell).inc()
            self.control_slot.labels(cell).set(record["control_slot"])
            self.decision_time.labels(cell).set(record["time_ns"] / 1e9)
            self.mode.labels(cell).state(record["mode"])
            self.carrier_prb.labels(cell).set(prb)
            self.gpu_max_mhz.labels(cell).set(max_mhz)
            self.gpu_wanted_mhz.labels(cell).set(max_mhz if record["gpu_mhz"] is None else record["gpu_mhz"])
            self._forget(cell, self._slices.get(cell, frozenset()) - record["slices"].keys())
            self._slices[cell] = frozenset(record["slices"])
            for name, s in record["slices"].items():
                ul, dl = record["quotas"].get(name, (prb, prb))
                self.quota_prb.labels(cell, name, "ul").set(ul)
                self.quota_prb.labels(cell, name, "dl").set(dl)
                mhz = max_mhz if record["gpu_mhz"] is None else record["gpu_mhz"]
                for lever, value in (
                    (Lever.UL, ul),
                    (Lever.EDGE, mhz),
                    (Lever.DL, dl),
                    (Lever.SETTINGS, len(s["settings"])),
                ):
                    self.lever.labels(cell, name, lever.value).set(value)
                for choice in s["choices"]:
                    if choice.get("user"):
                        continue
                    hop = choice["lever"]
                    self.hop_action.labels(cell, name, hop).set(choice["action"])
                    for metric, value in (
                        (self.hop_state, choice["state"]),
                        (self.hop_demand, choice["demand"]),
                    ):
                        metric.labels(cell, name, hop).set(math.nan if value is None else value)
                for direction, prb in (s.get("manual") or {"ul": 0, "dl": 0}).items():
                    self.manual_quota.labels(cell, name, direction).set(prb or 0)
                for lever in RESOURCES:
                    least, _ = s.get("rescue", {}).get(lever.value, (0, ""))
                    self.rescue.labels(cell, name, lever.value).set(least)
                self.allocator_failures.labels(cell, name).inc("failed" in s)
                self._observe_closed(cell, name, s["closed"])

    def gone(self, cell: str) -> None:
        """The gNB of a cell has gone: no quota is in force any more."""
        with self._mutex:
            for name in self._slices.get(cell, ()):
                for direction in ("ul", "dl"):
                    self.quota_prb.labels(cell, name, direction).set(math.nan)
                    self.manual_quota.labels(cell, name, direction).set(0)

    def _forget(self, cell: str, slices: Collection[str]) -> None:
        """A slice that a reload took away has no quota any more; what was counted of it stays."""
        for name in slices:
            self.flows.remove(cell, name)
            for direction in ("ul", "dl"):
                self.quota_prb.remove(cell, name, direction)
                self.manual_quota.remove(cell, name, direction)
            labels = [lever.value for lever in Lever] + self._measures.pop((cell, name), [])
            for gauge in (
                self.hop_state,
                self.hop_demand,
                self.hop_action,
                self.hop_delay,
                self.qos_ratio,
                self.measure,
                self.lever,
                self.rescue,
            ):
                for label in labels:
                    with contextlib.suppress(KeyError):
                        gauge.remove(cell, name, label)

    def _observe_closed(self, cell: str, name: str, closed: Mapping[str, Any]) -> None:
        self.flows.labels(cell, name).set(closed["users"])
        self.busy.labels(cell, name).inc(bool(closed["busy"]))
        self.negative_delays.labels(cell, name).inc(closed["counts"].get("negative_delays", 0))
        self.unsynchronised_frames.labels(cell, name).inc(closed["counts"].get("unsynchronised_frames", 0))
        known = self._measures.setdefault((cell, name), [])
        for measure, stored in closed["measures"].items():
            if measure not in known:
                if len(known) >= MAX_NAMES:
                    continue
                known.append(measure)
            value = worst_value(stored)
            worst = math.nan if value is None else value
            self.measure.labels(cell, name, measure).set(worst)
            if stored["unit"] == "ms":
                self.hop_delay.labels(cell, name, measure).set(worst / 1e3)
            met = stored["met"]
            judged, kept = self._ratios.get((cell, name, measure), (0, 0))
            if met is not None:
                judged, kept = judged + 1, kept + met
                self._ratios[cell, name, measure] = judged, kept
                self.qos_ratio.labels(cell, name, measure).set(kept / judged)
            self.qos_judged.labels(cell, name, measure).inc(met is not None)
            self.qos_met.labels(cell, name, measure).inc(met or 0)
            self.measure_met.labels(cell, name, measure).inc(met or 0)
        for hop, reason in closed["unattributed"].items():
            if reason not in self._reasons:
                if len(self._reasons) < MAX_REASONS:
                    self._reasons.add(reason)
                else:
                    reason = OTHER
            self.unattributed.labels(cell, name, hop, reason).inc()

    def step_seconds(self, cell: str, seconds: float) -> None:
        """How long one control slot took to close and decide."""
        self.step_duration.labels(cell).observe(seconds)

    def gpu(self, cell: str, sm_mhz: float, power_w: float) -> None:
        """The GPU of a cell as its edge agent read it."""
        self.gpu_sm_mhz.labels(cell).set(sm_mhz)
        self.gpu_power_watts.labels(cell).set(power_w)

    def watch_cell(
        self,
        cell: str,
        *,
        report_age: Callable[[], float | None] | None = None,
        lease_remaining: Callable[[], float | None] | None = None,
        clocks: Callable[[], Sequence[KnownClock]] | None = None,
    ) -> None:
        """Ask for a cell's seconds at each scrape, NaN where the callable returns None or fails, and for the
        clocks of its hosts."""
        if clocks is not None:
            self._clocks.ask[cell] = clocks
        for gauge, ask in ((self.report_age, report_age), (self.lease_remaining, lease_remaining)):
            if ask is not None:
                gauge.labels(cell).set_function(_guarded(ask, cell))

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


def _guarded(ask: Callable[[], float | None], cell: str) -> Callable[[], float]:
    def value() -> float:
        try:
            answer = ask()
        except Exception as error:
            log.warning("cell %s: a metric cannot be read: %s", cell, error)
            return math.nan
        return math.nan if answer is None else float(answer)

    return value
